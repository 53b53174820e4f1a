//! The user's commands speak to the cloud as any AWS client does: signed requests to its endpoint.

use crate::cloud::Cloud;
use anyhow::{Context, Result, anyhow, bail};
use iam::{RawRequest, Secret, Signer};
use model::{Clock, SystemClock};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::Reader;
use quick_xml::events::Event;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// What RFC 3986 leaves unreserved.
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const API_VERSION: &str = "2016-11-15";
/// Console output and lists come in pages far below it.
const ANSWER_LEN_MAX: u64 = 64 * 1024 * 1024;

pub struct Client {
    cloud: Cloud,
    secret: Secret,
    host: String,
    agent: ureq::Agent,
}

/// An HTTP answer, whatever its status.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(cloud: Cloud) -> Result<Client> {
        let host = cloud.endpoint.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').to_owned());
        let host = host.ok_or_else(|| anyhow!("{} is not an http:// endpoint", cloud.endpoint))?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        Ok(Client { secret: Secret::new(cloud.secret_access_key.clone()), host, agent: config.into(), cloud })
    }

    /// One EC2 call; an error of the cloud's is told as it says it.
    pub fn ec2(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Node> {
        let mut body = format!("Action={action}&Version={API_VERSION}");
        for (name, value) in parameters {
            body +=
                &format!("&{}={}", utf8_percent_encode(name, RESERVED), utf8_percent_encode(value, RESERVED));
        }
        let headers = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let answer = self.send("ec2", "POST", "/", "", &headers, body.as_bytes())?;
        let node = Node::parse(&answer.body)?;
        if answer.status < 300 {
            return Ok(node);
        }
        let error =
            node.find("Error").ok_or_else(|| anyhow!("{action} was answered with HTTP {}", answer.status))?;
        bail!("{action}: {} ({})", error.text_of("Message"), error.text_of("Code"))
    }

    /// Asks the operator's API; `query` is encoded already.
    pub fn operator<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<T> {
        let answer = self.operate("GET", path, query, b"")?;
        serde_json::from_slice(&answer).context("the cloud's answer is not as expected")
    }

    /// Tells the operator's API to do something.
    pub fn tell_operator(&self, path: &str, input: &serde_json::Value) -> Result<()> {
        self.operate("POST", path, "", input.to_string().as_bytes()).map(drop)
    }

    pub fn delete_operator(&self, path: &str) -> Result<()> {
        self.operate("DELETE", path, "", b"").map(drop)
    }

    fn operate(&self, method: &str, path: &str, query: &str, body: &[u8]) -> Result<Vec<u8>> {
        let answer = self.send("cumulet", method, path, query, &[], body)?;
        if answer.status < 300 {
            return Ok(answer.body);
        }
        let refusal: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match refusal["message"].as_str() {
            Some(message) => bail!("{message}"),
            None => bail!("{path} was answered with HTTP {}", answer.status),
        }
    }

    /// A signed request. `query` is encoded already.
    pub fn send(
        &self,
        service: &str,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let mut signed: Vec<(&str, &[u8])> = vec![("host", self.host.as_bytes())];
        signed.extend(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
        let signer = Signer {
            access_key_id: &self.cloud.access_key_id,
            secret: &self.secret,
            region: &self.cloud.region,
            service,
        };
        let raw = RawRequest { method, path, query, headers: &signed, body };
        let added = signer.sign(&raw, SystemClock.now())?;
        let separator = if query.is_empty() { "" } else { "?" };
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}{separator}{query}", self.host));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        for (name, value) in &added {
            request = request.header(*name, value);
        }
        let mut answer = self.agent.run(request.body(body)?).with_context(|| {
            format!("the cloud at {} does not answer: is 'cumulet serve' running?", self.cloud.endpoint)
        })?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(ANSWER_LEN_MAX).read_to_vec()?;
        Ok(Answer { status, body })
    }
}

/// An XML element: enough of XML to read EC2's answers.
#[derive(Debug, Default)]
pub struct Node {
    pub name: String,
    pub text: String,
    pub children: Vec<Node>,
}

impl Node {
    pub fn parse(xml: &[u8]) -> Result<Node> {
        let mut reader = Reader::from_reader(xml);
        let mut open: Vec<Node> = vec![Node::default()];
        let mut buffer = Vec::new();
        loop {
            match reader.read_event_into(&mut buffer)? {
                Event::Start(start) => {
                    open.push(Node { name: start.local_name().as_ref().to_owned(), ..Node::default() });
                }
                Event::Empty(empty) => {
                    let name = empty.local_name().as_ref().to_owned();
                    if let Some(parent) = open.last_mut() {
                        parent.children.push(Node { name, ..Node::default() });
                    }
                }
                Event::Text(text) => {
                    if let Some(node) = open.last_mut() {
                        node.text += &text.xml10_content();
                    }
                }
                Event::GeneralRef(reference) => {
                    let name = reference.xml10_content();
                    let character = match reference.resolve_char_ref()? {
                        Some(character) => character.to_string(),
                        None => {
                            quick_xml::escape::resolve_predefined_entity(&name).unwrap_or_default().to_owned()
                        }
                    };
                    if let Some(node) = open.last_mut() {
                        node.text += &character;
                    }
                }
                Event::End(_) => {
                    let node = open.pop().unwrap_or_default();
                    match open.last_mut() {
                        Some(parent) => parent.children.push(node),
                        None => bail!("the answer's XML closes more than it opens"),
                    }
                }
                Event::Eof => break,
                _ => {}
            }
            buffer.clear();
        }
        let root = open.swap_remove(0);
        root.children.into_iter().next().ok_or_else(|| anyhow!("the cloud's answer is not XML"))
    }

    /// The first element of this name, at any depth.
    pub fn find(&self, name: &str) -> Option<&Node> {
        self.children.iter().find_map(|child| if child.name == name { Some(child) } else { child.find(name) })
    }

    pub fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of a child; empty where there is none.
    pub fn text_of(&self, name: &str) -> &str {
        self.child(name).map(|child| child.text.as_str()).unwrap_or_default()
    }

    /// The items of a list child.
    pub fn items(&self, name: &str) -> &[Node] {
        self.child(name).map(|list| list.children.as_slice()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let xml = b"<?xml version=\"1.0\"?><R xmlns=\"x\"><set><item><a>1 &amp; 2</a></item><item/></set><b>&#x41;</b></R>";
        let node = Node::parse(xml).unwrap();
        assert_eq!(node.items("set").len(), 2);
        assert_eq!(node.items("set")[0].text_of("a"), "1 & 2");
        assert_eq!(node.text_of("b"), "A");
        assert!(Node::parse(b"not xml").is_err());
    }
}
