//! Requests as trees: `TagSpecification.1.Tag.2.Key=Name` is a path of names and numbers to a value. Types are
//! read out of the tree, and what nobody read is an unknown parameter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use model::{Error, Result, Timestamp};
use std::collections::HashMap;
use std::fmt::Write;

/// Parameters of one request: a RunInstances that uses every field to its limit stays far below.
pub const PARAMETERS_MAX: usize = 10_000;
/// Names and numbers in one parameter's name: the deepest of the models has 9.
pub const DEPTH_MAX: usize = 16;
/// Longest name of a parameter.
const NAME_LEN_MAX: usize = 512;

/// Parameters about the call, not about what is wanted.
fn is_about_the_call(name: &str) -> bool {
    matches!(
        name,
        "Action"
            | "Version"
            | "AWSAccessKeyId"
            | "Signature"
            | "SignatureMethod"
            | "SignatureVersion"
            | "SecurityToken"
            | "Timestamp"
            | "Expires"
    ) || name.get(..6).is_some_and(|prefix| prefix.eq_ignore_ascii_case("X-Amz-"))
}

#[derive(Debug, Default)]
pub struct Node {
    pub value: Option<String>,
    /// A payload that came as bytes.
    pub raw: Option<Bytes>,
    pub children: HashMap<String, Node>,
}

impl Node {
    pub fn from_parameters(parameters: &[(String, String)]) -> Result<Node> {
        if parameters.len() > PARAMETERS_MAX {
            return Err(Error::invalid_parameter_value(format!(
                "The request has more than {PARAMETERS_MAX} parameters"
            )));
        }
        let mut root = Node::default();
        for (name, value) in parameters.iter().filter(|(name, _)| !is_about_the_call(name)) {
            if name.len() > NAME_LEN_MAX || name.split('.').count() > DEPTH_MAX {
                let shown: String = name.chars().take(64).collect();
                return Err(Error::unknown_parameter(&shown));
            }
            let mut node = &mut root;
            for segment in name.split('.') {
                node = node.children.entry(segment.to_owned()).or_default();
            }
            node.value = Some(value.clone());
        }
        Ok(root)
    }

    pub fn child(&mut self, name: &str) -> &mut Node {
        self.children.entry(name.to_owned()).or_default()
    }
}

/// Where in the request a node is, kept as links so that only an error pays for the text.
#[derive(Clone, Copy)]
pub struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    name: &'p str,
}

impl<'p> Path<'p> {
    pub const fn root() -> Path<'static> {
        Path { parent: None, name: "" }
    }

    pub fn to(&'p self, name: &'p str) -> Path<'p> {
        Path { parent: Some(self), name }
    }

    fn write(&self, text: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(text);
            if !text.is_empty() {
                text.push('.');
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "{}", self.name);
        }
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }
}

/// Can be read out of a request.
pub trait FromNode: Sized {
    fn from_node(node: &Node, path: &Path) -> Result<Self>;
}

fn invalid(value: &str, path: &Path, expected: &str) -> Error {
    let shown: String = value.chars().take(256).collect();
    Error::invalid_parameter_value(format!(
        "Value ({shown}) for parameter {} is invalid. {expected}",
        path.text()
    ))
}

fn scalar<'n>(node: &'n Node, path: &Path) -> Result<&'n str> {
    if let Some(unread) = node.children.keys().min() {
        return Err(Error::unknown_parameter(&path.to(unread).text()));
    }
    Ok(node.value.as_deref().unwrap_or_default())
}

macro_rules! parsed {
    ($($rust:ty: $expected:literal),+) => {
        $(impl FromNode for $rust {
            fn from_node(node: &Node, path: &Path) -> Result<Self> {
                let text = scalar(node, path)?;
                text.parse().map_err(|_| invalid(text, path, $expected))
            }
        })+
    };
}

parsed!(i32: "An integer is expected.", i64: "An integer is expected.", f64: "A number is expected.");

impl FromNode for String {
    fn from_node(node: &Node, path: &Path) -> Result<Self> {
        scalar(node, path).map(str::to_owned)
    }
}

impl FromNode for bool {
    fn from_node(node: &Node, path: &Path) -> Result<Self> {
        let text = scalar(node, path)?;
        match text {
            _ if text.eq_ignore_ascii_case("true") || text == "1" => Ok(true),
            _ if text.eq_ignore_ascii_case("false") || text == "0" => Ok(false),
            _ => Err(invalid(text, path, "true or false is expected.")),
        }
    }
}

impl FromNode for Timestamp {
    fn from_node(node: &Node, path: &Path) -> Result<Self> {
        let text = scalar(node, path)?;
        let refuse = || invalid(text, path, "A time as 2030-01-31T12:00:00Z is expected.");
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(at);
        }
        // A date alone, a time without a zone (UTC), or seconds since 1970.
        if let Ok(at) = text.parse::<jiff::civil::DateTime>() {
            return at.to_zoned(jiff::tz::TimeZone::UTC).map(|at| at.timestamp()).map_err(|_| refuse());
        }
        let seconds: f64 = text.parse().map_err(|_| refuse())?;
        Timestamp::from_millisecond((seconds * 1000.0) as i64).map_err(|_| refuse())
    }
}

impl FromNode for Bytes {
    fn from_node(node: &Node, path: &Path) -> Result<Self> {
        if let Some(raw) = &node.raw {
            return Ok(raw.clone());
        }
        let text = scalar(node, path)?;
        STANDARD.decode(text).map(Bytes::from).map_err(|_| invalid("…", path, "base64 is expected."))
    }
}

impl FromNode for () {
    fn from_node(node: &Node, path: &Path) -> Result<Self> {
        Reader::new(node, path)?.finish()
    }
}

/// A list inside a list.
impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node, path: &Path) -> Result<Self> {
        items(node, path, &[])
    }
}

/// The numbered children, in the order of their numbers; clients begin at 0 or 1 and may leave gaps.
fn items<T: FromNode>(node: &Node, path: &Path, choices: &[&str]) -> Result<Vec<T>> {
    let mut numbered: Vec<(u32, &str, &Node)> = Vec::with_capacity(node.children.len());
    for (name, child) in &node.children {
        let number = name.parse().map_err(|_| Error::unknown_parameter(&path.to(name).text()))?;
        numbered.push((number, name, child));
    }
    numbered.sort_by_key(|(number, name, _)| (*number, *name));
    numbered
        .into_iter()
        .map(|(_, name, child)| {
            let path = path.to(name);
            check_choice(child, &path, choices)?;
            T::from_node(child, &path)
        })
        .collect()
}

fn check_choice(node: &Node, path: &Path, choices: &[&str]) -> Result<()> {
    match node.value.as_deref() {
        Some(value) if !choices.is_empty() && !choices.contains(&value) => {
            Err(invalid(value, path, &format!("Valid values are: {}.", choices.join(", "))))
        }
        _ => Ok(()),
    }
}

/// Reads one structure and remembers what was read.
pub struct Reader<'n> {
    node: &'n Node,
    path: &'n Path<'n>,
    read: usize,
}

impl<'n> Reader<'n> {
    pub fn new(node: &'n Node, path: &'n Path<'n>) -> Result<Self> {
        match &node.value {
            // `Placement=` stands for an empty structure; text in its place is a mistake.
            Some(value) if !value.is_empty() => Err(invalid(value, path, "A structure is expected.")),
            _ => Ok(Reader { node, path, read: 0 }),
        }
    }

    fn take(&mut self, name: &str) -> Option<&'n Node> {
        let node = self.node.children.get(name)?;
        self.read += 1;
        Some(node)
    }

    pub fn value<T: FromNode>(&mut self, name: &str) -> Result<Option<T>> {
        let path = self.path;
        self.take(name).map(|node| T::from_node(node, &path.to(name))).transpose()
    }

    pub fn choice(&mut self, name: &str, choices: &[&str]) -> Result<Option<String>> {
        let path = self.path;
        let Some(node) = self.take(name) else { return Ok(None) };
        // An empty value is no value, as EC2 has it.
        if node.value.as_deref() == Some("") {
            return Ok(None);
        }
        check_choice(node, &path.to(name), choices)?;
        String::from_node(node, &path.to(name)).map(Some)
    }

    /// `inner` is the level that AWS query puts between a list's name and its numbers.
    pub fn list<T: FromNode>(&mut self, name: &str, inner: Option<&str>, choices: &[&str]) -> Result<Vec<T>> {
        let path = self.path.to(name);
        let Some(node) = self.take(name) else { return Ok(Vec::new()) };
        if let Some(value) = node.value.as_deref().filter(|value| !value.is_empty()) {
            return Err(invalid(value, &path, "A list is expected."));
        }
        match inner {
            None => items(node, &path, choices),
            Some(inner) => {
                if let Some(other) = node.children.keys().filter(|child| *child != inner).min() {
                    return Err(Error::unknown_parameter(&path.to(other).text()));
                }
                node.children.get(inner).map_or(Ok(Vec::new()), |node| items(node, &path.to(inner), choices))
            }
        }
    }

    pub fn missing(&self, name: &str) -> Error {
        Error::missing_parameter(&self.path.to(name).text())
    }

    /// `UnknownParameter` where the request says more than was read. The names that were read are the
    /// structure's, each asked for once, so that the count tells.
    pub fn finish(self) -> Result<()> {
        if self.read == self.node.children.len() {
            return Ok(());
        }
        let mut names: Vec<&String> = self.node.children.keys().collect();
        names.sort();
        let shown: Vec<String> = names.iter().take(8).map(|name| self.path.to(name).text()).collect();
        Err(Error::unknown_parameter(&shown.join(", ")))
    }
}
