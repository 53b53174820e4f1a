//! Answers in XML: EC2 query and AWS query.

use crate::{Response, Service};
use bytes::Bytes;
use indexmap::IndexMap;
use model::{Error, Timestamp};
use std::fmt::Write;

const CONTENT_TYPE: &str = "text/xml;charset=UTF-8";
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// Writes elements one after another.
pub struct Xml {
    text: String,
}

/// Can be the content of an element.
pub trait ToXml {
    fn to_xml(&self, xml: &mut Xml);
}

impl Xml {
    fn open(&mut self, name: &str) {
        self.text.push('<');
        self.text.push_str(name);
        self.text.push('>');
    }

    fn close(&mut self, name: &str) {
        self.text.push_str("</");
        self.text.push_str(name);
        self.text.push('>');
    }

    pub fn element(&mut self, name: &str, content: &impl ToXml) {
        self.open(name);
        content.to_xml(self);
        self.close(name);
    }

    /// Nothing where there is no value.
    pub fn field(&mut self, name: &str, value: &Option<impl ToXml>) {
        if let Some(value) = value {
            self.element(name, value);
        }
    }

    /// An empty list is an empty element.
    pub fn list(&mut self, name: &str, item: &str, values: &[impl ToXml]) {
        if values.is_empty() {
            self.text.push('<');
            self.text.push_str(name);
            self.text.push_str("/>");
            return;
        }
        self.open(name);
        for value in values {
            self.element(item, value);
        }
        self.close(name);
    }

    /// AWS query: an `entry` for each pair.
    #[allow(dead_code, reason = "generated code calls it once a listed operation reaches a map")]
    pub fn map(&mut self, name: &str, key: &str, value: &str, entries: &IndexMap<String, impl ToXml>) {
        self.open(name);
        for (of, holds) in entries {
            self.open("entry");
            self.element(key, of);
            self.element(value, holds);
            self.close("entry");
        }
        self.close(name);
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
    }

    /// Escapes, and leaves out what XML 1.0 cannot say (a guest's console, a tag's control characters).
    fn escaped(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                '\r' => self.text.push_str("&#xd;"),
                '\t' | '\n' => self.text.push(character),
                '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => {}
                other => self.text.push(other),
            }
        }
    }
}

impl ToXml for String {
    fn to_xml(&self, xml: &mut Xml) {
        xml.escaped(self);
    }
}

impl ToXml for &str {
    fn to_xml(&self, xml: &mut Xml) {
        xml.escaped(self);
    }
}

macro_rules! displayed {
    ($($rust:ty),+) => {
        $(impl ToXml for $rust {
            fn to_xml(&self, xml: &mut Xml) {
                xml.display(self);
            }
        })+
    };
}

displayed!(bool, i32, i64, f64);

impl ToXml for Timestamp {
    fn to_xml(&self, xml: &mut Xml) {
        xml.display(self.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"));
    }
}

impl ToXml for Bytes {
    fn to_xml(&self, xml: &mut Xml) {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(self);
        xml.text.push_str(&text);
    }
}

impl<T: ToXml> ToXml for Box<T> {
    fn to_xml(&self, xml: &mut Xml) {
        (**self).to_xml(xml);
    }
}

/// A list inside a list.
impl<T: ToXml> ToXml for Vec<T> {
    fn to_xml(&self, xml: &mut Xml) {
        for value in self {
            xml.element("item", value);
        }
    }
}

/// What an operation without an output says.
impl ToXml for () {
    fn to_xml(&self, xml: &mut Xml) {
        xml.element("return", &true);
    }
}

fn respond(status: u16, xml: Xml) -> Response {
    Response { status, content_type: CONTENT_TYPE, headers: Vec::new(), body: xml.text.into() }
}

/// An answer; AWS query wraps the result and puts the request's id behind it, EC2 puts the id first.
pub fn encode(
    service: Service,
    name: &str,
    wrapper: Option<&str>,
    output: &impl ToXml,
    request_id: &str,
) -> Response {
    let mut xml = Xml { text: String::with_capacity(1024) };
    xml.text.push_str(DECLARATION);
    let root = format!("{name}Response");
    xml.display(format_args!("<{root} xmlns=\"{}\">", service.xml_namespace()));
    if service == Service::Ec2 {
        xml.element("requestId", &request_id);
        output.to_xml(&mut xml);
    } else {
        if let Some(wrapper) = wrapper {
            xml.element(wrapper, &Inner(output));
        }
        xml.open("ResponseMetadata");
        xml.element("RequestId", &request_id);
        xml.close("ResponseMetadata");
    }
    xml.close(&root);
    respond(200, xml)
}

struct Inner<'o, T>(&'o T);

impl<T: ToXml> ToXml for Inner<'_, T> {
    fn to_xml(&self, xml: &mut Xml) {
        self.0.to_xml(xml);
    }
}

pub fn encode_error(service: Service, error: &Error, request_id: &str) -> Response {
    let mut xml = Xml { text: DECLARATION.to_owned() };
    let code = error.code.as_ref();
    if service == Service::Ec2 {
        xml.text.push_str("<Response><Errors><Error>");
        xml.element("Code", &code);
        xml.element("Message", &error.message);
        xml.text.push_str("</Error></Errors>");
        xml.element("RequestID", &request_id);
        xml.close("Response");
    } else {
        xml.display(format_args!("<ErrorResponse xmlns=\"{}\"><Error>", service.xml_namespace()));
        xml.element("Type", &if error.is_internal() { "Receiver" } else { "Sender" });
        xml.element("Code", &code);
        xml.element("Message", &error.message);
        xml.close("Error");
        xml.element("RequestId", &request_id);
        xml.close("ErrorResponse");
    }
    respond(error.status, xml)
}
