//! Requests as trees: `TagSpecification.1.Tag.2.Key=Name` is a path of names and numbers to a value. Types are
//! read out of the tree, and what nobody read is an unknown parameter.

use crate::rule::Rule;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use indexmap::IndexMap;
use model::{Error, Result, Timestamp};
use std::collections::HashMap;
use std::fmt::Write;

/// Parameters of one request: a RunInstances that uses every field to its limit stays far below.
pub const PARAMETERS_MAX: usize = 10_000;
/// Names and numbers in one parameter's name: the deepest of the models has 9.
pub const DEPTH_MAX: usize = 16;
/// Longest name of a parameter.
const NAME_LEN_MAX: usize = 512;
/// Names and values together: the largest form that the edge reads, and a head full of query before it.
pub const PARAMETERS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// No request can fill a longer list; clients leave gaps, but not such.
const LIST_NUMBER_MAX: u32 = PARAMETERS_MAX as u32;

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
        let bytes: usize = parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > PARAMETERS_BYTES_MAX {
            return Err(Error::invalid_parameter_value(format!(
                "The request has more than {PARAMETERS_BYTES_MAX} bytes of parameters"
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

pub fn invalid(value: &str, path: &Path, expected: &str) -> Error {
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
    // In JSON `{}` or `[]` may stand where text should.
    node.value.as_deref().ok_or_else(|| invalid("", path, "A single value is expected."))
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

parsed!(i32: "An integer is expected.", i64: "An integer is expected.");

impl FromNode for f64 {
    fn from_node(node: &Node, path: &Path) -> Result<Self> {
        let text = scalar(node, path)?;
        finite(text).ok_or_else(|| invalid(text, path, "A number is expected."))
    }
}

/// Rust would read `NaN` and `inf` too.
fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

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
        let seconds = finite(text).ok_or_else(refuse)?;
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
        items(node, path, Rule::Free)
    }
}

/// The numbered children, in the order of their numbers; clients begin at 0 or 1 and may leave gaps.
fn numbered<'n>(node: &'n Node, path: &Path) -> Result<Vec<(&'n str, &'n Node)>> {
    let mut numbered = Vec::with_capacity(node.children.len());
    for (name, child) in &node.children {
        let number = list_number(name).ok_or_else(|| Error::unknown_parameter(&path.to(name).text()))?;
        numbered.push((number, name.as_str(), child));
    }
    numbered.sort_unstable_by_key(|(number, ..)| *number);
    Ok(numbered.into_iter().map(|(_, name, child)| (name, child)).collect())
}

/// One way only to write a number, so that no two names are the same item.
fn list_number(name: &str) -> Option<u32> {
    let canonical = name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    name.parse().ok().filter(|number| canonical && *number <= LIST_NUMBER_MAX)
}

fn items<T: FromNode>(node: &Node, path: &Path, rule: Rule) -> Result<Vec<T>> {
    numbered(node, path)?
        .into_iter()
        .map(|(name, child)| {
            let path = path.to(name);
            rule.check(child, &path)?;
            T::from_node(child, &path)
        })
        .collect()
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

    pub fn value<T: FromNode>(&mut self, name: &str, rule: Rule) -> Result<Option<T>> {
        let path = self.path.to(name);
        let Some(node) = self.take(name) else { return Ok(None) };
        // An empty choice is none, as EC2 has it.
        if matches!(rule, Rule::OneOf(_)) && node.value.as_deref() == Some("") && node.children.is_empty() {
            return Ok(None);
        }
        rule.check(node, &path)?;
        T::from_node(node, &path).map(Some)
    }

    /// `inner` is the level that AWS query puts between a list's name and its numbers.
    pub fn list<T: FromNode>(
        &mut self,
        name: &str,
        inner: Option<&str>,
        length: Rule,
        each: Rule,
    ) -> Result<Vec<T>> {
        let path = self.path.to(name);
        let Some(node) = self.take(name) else { return Ok(Vec::new()) };
        let items = within(node, &path, inner, |node, path| items(node, path, each))?;
        length.check_length(items.len(), "items", &path)?;
        Ok(items)
    }

    /// AWS query: `Name.entry.N.key` and `.value`, by the names that the model gives to these three.
    #[allow(dead_code, reason = "generated code calls it once a listed operation reaches a map")]
    pub fn map<T: FromNode>(
        &mut self,
        name: &str,
        inner: Option<&str>,
        key: &str,
        value: &str,
    ) -> Result<IndexMap<String, T>> {
        let path = self.path.to(name);
        let Some(node) = self.take(name) else { return Ok(IndexMap::new()) };
        within(node, &path, inner, |node, path| {
            numbered(node, path)?
                .into_iter()
                .map(|(number, entry)| {
                    let path = path.to(number);
                    let mut reader = Reader::new(entry, &path)?;
                    let pair = (reader.value(key, Rule::Free)?, reader.value(value, Rule::Free)?);
                    let pair = match pair {
                        (Some(key), Some(value)) => (key, value),
                        (None, _) => return Err(reader.missing(key)),
                        (_, None) => return Err(reader.missing(value)),
                    };
                    reader.finish()?;
                    Ok(pair)
                })
                .collect()
        })
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

/// What is numbered under a list's or map's name. `Name=` stands for none; text in its place is a mistake.
fn within<T: Default>(
    node: &Node,
    path: &Path,
    inner: Option<&str>,
    read: impl FnOnce(&Node, &Path) -> Result<T>,
) -> Result<T> {
    if let Some(value) = node.value.as_deref().filter(|value| !value.is_empty()) {
        return Err(invalid(value, path, "A list is expected."));
    }
    let Some(inner) = inner else { return read(node, path) };
    if let Some(other) = node.children.keys().filter(|child| *child != inner).min() {
        return Err(Error::unknown_parameter(&path.to(other).text()));
    }
    node.children.get(inner).map_or_else(|| Ok(T::default()), |node| read(node, &path.to(inner)))
}
