//! Writes one service's module.

use crate::model::{Model, Shape, ShapeRef};
use std::collections::BTreeSet;
use std::fmt::Write;

const KEYWORDS: &[&str] = &[
    "type", "match", "ref", "self", "use", "where", "move", "static", "final", "virtual", "return", "priv",
    "in", "for", "loop",
];

/// Its values are not closed: an owner may make instance types.
const OPEN_ENUMS: &[&str] = &["InstanceType"];

/// EC2 refuses wrong ones with codes of their own (`InvalidAMIName.Malformed`), which are control's to say.
const UNRULED: &[&str] = &["ImageNameRequest", "LaunchTemplateName"];

struct Service<'m> {
    model: &'m Model,
    ec2: bool,
    json: bool,
    out: String,
}

pub fn module(service: &str, model: &Model, operations: &[&str], serde_roots: &[&str]) -> String {
    let protocol = model.metadata.protocol.as_str();
    let mut emit =
        Service { model, ec2: protocol == "ec2", json: protocol == "rest-json", out: String::new() };
    let mut inputs = BTreeSet::new();
    let mut outputs = BTreeSet::new();
    let mut serde = BTreeSet::new();
    for name in operations {
        let operation =
            model.operations.get(*name).unwrap_or_else(|| panic!("{service} has no operation {name}"));
        operation.input.iter().for_each(|shape| emit.reach(&shape.shape, &mut inputs));
        operation.output.iter().for_each(|shape| emit.reach(&shape.shape, &mut outputs));
    }
    serde_roots.iter().for_each(|root| emit.reach(root, &mut serde));
    if emit.json {
        serde.extend(outputs.iter().cloned());
    }
    let all: BTreeSet<String> = inputs.iter().chain(&outputs).cloned().collect();
    for name in &all {
        match emit.shape(name).kind.as_str() {
            "structure" => {
                emit.structure(name, serde.contains(name));
                if inputs.contains(name) {
                    emit.decoder(name);
                }
                if outputs.contains(name) && !emit.json {
                    emit.encoder(name);
                }
            }
            "string" if emit.is_closed_enum(name) && inputs.contains(name) => {
                let values = emit.shape(name).values.clone();
                writeln!(emit.out, "const {}: &[&str] = &{values:?};", constant(name)).unwrap();
            }
            _ => {}
        }
    }
    operations.iter().for_each(|name| emit.operation(service, name));
    let known: Vec<&String> = model.operations.keys().collect();
    writeln!(
        emit.out,
        "/// Every operation of the service's model, sorted.\npub(crate) const KNOWN: &[&str] = &{:?};",
        sorted(known)
    )
    .unwrap();
    emit.routes(operations);
    emit.out
}

fn sorted(mut names: Vec<&String>) -> Vec<&String> {
    names.sort();
    names
}

fn constant(name: &str) -> String {
    format!("VALUES_{}", snake(name).to_uppercase())
}

/// `VpcId` to `vpc_id`, `EnableDns64` to `enable_dns64`, `IPv6` forms as the field's readers expect them.
fn snake(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut text = String::new();
    for (at, character) in characters.iter().enumerate() {
        if character.is_uppercase() && at > 0 {
            let before = characters[at - 1];
            let after_is_lower = characters.get(at + 1).is_some_and(|next| next.is_lowercase());
            if before.is_lowercase() || before.is_ascii_digit() || (before.is_uppercase() && after_is_lower) {
                text.push('_');
            }
        }
        text.extend(character.to_lowercase());
    }
    text
}

fn field(name: &str) -> String {
    let name = snake(name);
    if KEYWORDS.contains(&name.as_str()) { format!("r#{name}") } else { name }
}

fn capitalised(name: &str) -> String {
    let mut characters = name.chars();
    characters
        .next()
        .map(|first| first.to_uppercase().collect::<String>() + characters.as_str())
        .unwrap_or_default()
}

impl<'m> Service<'m> {
    fn shape(&self, name: &str) -> &'m Shape {
        &self.model.shapes[name]
    }

    fn is_closed_enum(&self, name: &str) -> bool {
        !self.shape(name).values.is_empty() && !OPEN_ENUMS.contains(&name)
    }

    fn reach(&self, name: &str, seen: &mut BTreeSet<String>) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        let shape = self.shape(name);
        for member in shape.members.values().chain(&shape.member).chain(&shape.key).chain(&shape.value) {
            self.reach(&member.shape, seen);
        }
    }

    /// The Rust type of a value of the shape.
    fn rust(&self, name: &str) -> String {
        let shape = self.shape(name);
        match shape.kind.as_str() {
            "structure" => name.to_owned(),
            "list" => format!("Vec<{}>", self.rust(&shape.member.as_ref().expect("a list's member").shape)),
            "map" => {
                format!(
                    "IndexMap<String, {}>",
                    self.rust(&shape.value.as_ref().expect("a map's value").shape)
                )
            }
            "string" => "String".into(),
            "integer" => "i32".into(),
            "long" => "i64".into(),
            "double" | "float" => "f64".into(),
            "boolean" => "bool".into(),
            "timestamp" => "Timestamp".into(),
            "blob" => "Bytes".into(),
            other => panic!("{name} is a {other}"),
        }
    }

    fn is_list(&self, member: &ShapeRef) -> bool {
        self.shape(&member.shape).kind == "list"
    }

    fn is_map(&self, member: &ShapeRef) -> bool {
        self.shape(&member.shape).kind == "map"
    }

    /// The model's constraint on a value of the shape, as an expression of `Rule`.
    fn rule(&self, name: &str) -> String {
        let shape = self.shape(name);
        if self.is_closed_enum(name) {
            return format!("Rule::OneOf({})", constant(name));
        }
        if UNRULED.contains(&name) || (shape.min.is_none() && shape.max.is_none()) {
            return "Rule::Free".into();
        }
        match shape.kind.as_str() {
            "integer" | "long" | "double" | "float" => {
                let side = |bound: Option<f64>, none: &str| {
                    bound.map_or(format!("f64::{none}"), |bound| format!("{bound:?}"))
                };
                format!("Rule::Between({}, {})", side(shape.min, "NEG_INFINITY"), side(shape.max, "INFINITY"))
            }
            "string" | "list" => {
                let most = shape.max.map_or("usize::MAX".into(), |most| most.to_string());
                format!("Rule::Length({}, {most})", shape.min.unwrap_or(0.0))
            }
            other => panic!("{name}: no rule for a {other}"),
        }
    }

    fn structure(&mut self, name: &str, serde: bool) {
        let mut text = String::from("#[derive(Clone, Debug, Default, PartialEq)]\n");
        if serde {
            text += "#[derive(Serialize, Deserialize)]\n#[serde(default)]\n";
        }
        writeln!(text, "pub struct {name} {{").unwrap();
        for (member_name, member) in &self.shape(name).members {
            let rust = self.rust(&member.shape);
            let empty = match self.shape(&member.shape).kind.as_str() {
                "list" => Some("Vec::is_empty"),
                "map" => Some("IndexMap::is_empty"),
                _ => None,
            };
            if serde {
                let skip = empty.unwrap_or("Option::is_none");
                let with = match self.shape(&member.shape).kind.as_str() {
                    "timestamp" if self.json => ", with = \"crate::json::epoch_seconds\"",
                    "blob" => ", skip",
                    _ => "",
                };
                // In an answer of a REST-JSON service a list is there, also an empty one.
                let skip = if with.ends_with("skip") || (self.json && empty.is_some()) {
                    String::new()
                } else {
                    format!(", skip_serializing_if = \"{skip}\"")
                };
                writeln!(text, "    #[serde(rename = \"{member_name}\"{skip}{with})]").unwrap();
            }
            let boxed = self.reaches(&member.shape, name) && empty.is_none();
            let rust = if boxed { format!("Box<{rust}>") } else { rust };
            let rust = if empty.is_some() { rust } else { format!("Option<{rust}>") };
            writeln!(text, "    pub {}: {rust},", field(member_name)).unwrap();
        }
        text += "}\n";
        self.out += &text;
    }

    /// Whether a structure holds another, itself perhaps, without a list between.
    fn reaches(&self, from: &str, to: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(name) = open.pop() {
            if name == to {
                return true;
            }
            if seen.insert(name.clone()) && self.shape(&name).kind == "structure" {
                open.extend(self.shape(&name).members.values().map(|member| member.shape.clone()));
            }
        }
        false
    }

    /// The name of a member in a request.
    fn name_in(&self, member_name: &str, member: &ShapeRef) -> String {
        if self.json {
            return member_name.to_owned();
        }
        match (&member.query_name, &member.location_name, self.ec2) {
            (Some(name), _, true) => name.clone(),
            (None, Some(name), true) => capitalised(name),
            (_, Some(name), false) => name.clone(),
            _ => member_name.to_owned(),
        }
    }

    fn decoder(&mut self, name: &str) {
        let shape = self.shape(name);
        let mut text = format!(
            "impl FromNode for {name} {{\n    fn from_node(node: &Node, path: &Path) -> Result<Self> {{\n        let mut reader = Reader::new(node, path)?;\n        let value = Self {{\n"
        );
        // `Reader::finish` counts on it that no name is asked for twice.
        let mut names = BTreeSet::new();
        for (member_name, member) in &shape.members {
            let wire = self.name_in(member_name, member);
            let target = self.shape(&member.shape);
            assert!(names.insert(wire.clone()), "{name} has two members named {wire}");
            let rule = match member_name.as_str() {
                // Pages of fewer are refused where the model says nothing of them.
                "MaxResults" if self.ec2 && target.min.is_none() && target.max.is_none() => {
                    "Rule::Between(5f64, f64::INFINITY)".into()
                }
                _ => self.rule(&member.shape),
            };
            let call = match target.kind.as_str() {
                "list" => {
                    let element = target.member.as_ref().expect("a list's member");
                    let inner = (!self.ec2 && !self.json && !target.flattened)
                        .then(|| element.location_name.as_deref().unwrap_or("member"));
                    format!("reader.list(\"{wire}\", {inner:?}, {rule}, {})?", self.rule(&element.shape))
                }
                "map" => {
                    assert!(!self.json, "{name}.{member_name}: no map in JSON yet");
                    let inner = (!target.flattened).then_some("entry");
                    let (key, value) = target.entry();
                    format!("reader.map(\"{wire}\", {inner:?}, \"{key}\", \"{value}\")?")
                }
                _ if self.reaches(&member.shape, name) => {
                    format!("reader.value(\"{wire}\", {rule})?.map(Box::new)")
                }
                _ => format!("reader.value(\"{wire}\", {rule})?"),
            };
            writeln!(text, "            {}: {call},", field(member_name)).unwrap();
        }
        text += "        };\n";
        for required in &shape.required {
            let member = &shape.members[required];
            let missing = if self.is_list(member) || self.is_map(member) { "is_empty" } else { "is_none" };
            let wire = self.name_in(required, member);
            writeln!(
                text,
                "        if value.{}.{missing}() {{ return Err(reader.missing(\"{wire}\")); }}",
                field(required)
            )
            .unwrap();
        }
        text += "        reader.finish()?;\n        Ok(value)\n    }\n}\n";
        self.out += &text;
    }

    fn encoder(&mut self, name: &str) {
        let shape = self.shape(name);
        let mut text = format!("impl ToXml for {name} {{\n    fn to_xml(&self, xml: &mut Xml) {{\n");
        if shape.members.is_empty() {
            text += "        let _ = xml;\n";
        }
        for (member_name, member) in &shape.members {
            let wire = member.location_name.as_deref().unwrap_or(member_name);
            let target = self.shape(&member.shape);
            assert!(!target.flattened, "{name}.{member_name}: no flattened list in an answer yet");
            let line = if self.is_list(member) {
                let element = target.member.as_ref().expect("a list's member");
                let item =
                    element.location_name.as_deref().unwrap_or(if self.ec2 { "item" } else { "member" });
                format!("xml.list(\"{wire}\", \"{item}\", &self.{})", field(member_name))
            } else if self.is_map(member) {
                let (key, value) = target.entry();
                format!("xml.map(\"{wire}\", \"{key}\", \"{value}\", &self.{})", field(member_name))
            } else {
                format!("xml.field(\"{wire}\", &self.{})", field(member_name))
            };
            writeln!(text, "        {line};").unwrap();
        }
        text += "    }\n}\n";
        self.out += &text;
    }

    fn operation(&mut self, service: &str, name: &str) {
        let operation = &self.model.operations[name];
        let input = operation.input.as_ref().map_or("()".to_owned(), |shape| shape.shape.clone());
        let output = operation.output.as_ref().map_or("()".to_owned(), |shape| shape.shape.clone());
        let members = operation.input.as_ref().map(|input| &self.shape(&input.shape).members);
        let has = |member: &str| members.is_some_and(|members| members.contains_key(member));
        let read_only = ["Describe", "Get", "List", "Search"].iter().any(|verb| name.starts_with(verb));
        let dry_run = if has("DryRun") { "input.dry_run.unwrap_or(false)" } else { "false" };
        let token = if has("ClientToken") { "input.client_token.as_deref()" } else { "None" };
        let encode = match (self.json, &operation.output) {
            (true, _) => {
                let payload =
                    operation.output.as_ref().and_then(|output| self.shape(&output.shape).payload.clone());
                let headers: Vec<String> = operation
                    .output
                    .iter()
                    .flat_map(|output| &self.shape(&output.shape).members)
                    .filter(|(_, member)| member.location.as_deref() == Some("header"))
                    .map(|(member_name, member)| {
                        format!(
                            "({:?}, {member_name:?})",
                            member.location_name.as_deref().unwrap_or(member_name).to_lowercase()
                        )
                    })
                    .collect();
                let payload = match payload {
                    Some(payload) => format!("output.{}.clone()", field(&payload)),
                    None => "None".into(),
                };
                let status = operation.http.response_code.unwrap_or(200);
                format!(
                    "crate::json::encode(output, {status}, {payload}, &[{}], request_id)",
                    headers.join(", ")
                )
            }
            (false, output) => {
                let wrapper = output.as_ref().and_then(|output| output.result_wrapper.as_deref());
                format!("crate::xml::encode(Self::SERVICE, Self::NAME, {wrapper:?}, output, request_id)")
            }
        };
        write!(
            self.out,
            "/// {name}.\npub struct {name};\nimpl Operation for {name} {{\n    type Input = {input};\n    type Output = {output};\n    const NAME: &'static str = \"{name}\";\n    const SERVICE: Service = Service::{};\n    const READ_ONLY: bool = {read_only};\n    fn dry_run(input: &Self::Input) -> bool {{ let _ = input; {dry_run} }}\n    fn client_token(input: &Self::Input) -> Option<&str> {{ let _ = input; {token} }}\n    fn encode(output: &Self::Output, request_id: &str) -> Response {{ {encode} }}\n}}\n",
            capitalised(service)
        )
        .unwrap();
    }

    /// How a REST service's requests are told apart, and where their members travel.
    fn routes(&mut self, operations: &[&str]) {
        if !self.json {
            return;
        }
        self.out += "pub(crate) const ROUTES: &[crate::json::Route] = &[\n";
        for name in operations {
            let operation = &self.model.operations[*name];
            let input = operation.input.as_ref().map(|input| self.shape(&input.shape));
            let travels: Vec<String> = input
                .iter()
                .flat_map(|input| &input.members)
                .filter_map(|(member_name, member)| {
                    let wire = member.location_name.as_deref().unwrap_or(member_name);
                    Some(format!("({:?}, {wire:?}, {member_name:?})", member.location.as_deref()?))
                })
                .collect();
            let payload = input.and_then(|input| input.payload.as_deref());
            writeln!(
                self.out,
                "    crate::json::Route {{ operation: {name:?}, method: {:?}, uri: {:?}, members: &[{}], payload: {payload:?} }},",
                operation.http.method,
                operation.http.request_uri,
                travels.join(", ")
            )
            .unwrap();
        }
        self.out += "];\n";
    }
}
