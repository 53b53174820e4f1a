//! REST-JSON: what is wanted comes in path, query, headers and body, each told by the model.

use crate::node::Node;
use crate::{Request, Response, Service};
use bytes::Bytes;
use model::{Error, Result};
use serde::Serialize;
use serde_json::Value;

const CONTENT_TYPE: &str = "application/json";
const DEPTH_MAX: usize = 32;

/// How an operation is recognised and where its members travel.
pub struct Route {
    pub operation: &'static str,
    pub method: &'static str,
    /// With `{name}` for members of the path.
    pub uri: &'static str,
    /// Location, name there, member.
    pub members: &'static [(&'static str, &'static str, &'static str)],
    /// The member that is the body itself.
    pub payload: Option<&'static str>,
}

impl Route {
    /// The values of the path's members, where the path is of this route.
    fn matches<'r>(&self, request: &'r Request) -> Option<Vec<(&'static str, &'r str)>> {
        if self.method != request.method {
            return None;
        }
        let template = self.uri.split('?').next().unwrap_or_default().trim_matches('/').split('/');
        let mut path = request.path.trim_matches('/').split('/');
        let mut values = Vec::new();
        for part in template {
            let here = path.next()?;
            match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) => values.push((name, here)),
                None if part == here => {}
                None => return None,
            }
        }
        path.next().is_none().then_some(values)
    }
}

fn routes(service: Service) -> &'static [Route] {
    match service {
        Service::Ebs => crate::ebs::ROUTES,
        Service::Cumulet => crate::cumulet::ROUTES,
        // The others find their operation by its name.
        Service::Ec2 | Service::Sts | Service::Iam => &[],
    }
}

pub fn operation(service: Service, request: &Request) -> Result<&'static str> {
    routes(service)
        .iter()
        .find(|route| route.matches(request).is_some())
        .map(|route| route.operation)
        .ok_or_else(|| {
            Error::new("UnknownOperationException", "No operation has this method and path.").with_status(404)
        })
}

/// The request as a tree under the members' names.
pub fn read(service: Service, operation: &str, request: &Request) -> Result<Node> {
    let route = routes(service).iter().find(|route| route.operation == operation);
    let route = route
        .ok_or_else(|| Error::new("UnknownOperationException", "No such operation.").with_status(404))?;
    let mut node = Node::default();
    let in_path = route.matches(request).unwrap_or_default();
    for (location, wire, member) in route.members {
        let found = match *location {
            "uri" => in_path.iter().find(|(name, _)| name == wire).map(|(_, value)| decode(value)),
            "querystring" => {
                request.params.iter().find(|(name, _)| name == wire).map(|(_, value)| value.clone())
            }
            "header" => request
                .headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wire))
                .map(|(_, value)| value.clone()),
            _ => None,
        };
        if let Some(value) = found {
            node.child(member).value = Some(value);
        }
    }
    match route.payload {
        Some(payload) => node.child(payload).raw = Some(request.body.clone()),
        None if !request.body.is_empty() => {
            let body: Value = serde_json::from_slice(&request.body)
                .map_err(|_| Error::new("ValidationException", "The body is not JSON."))?;
            grow(&mut node, body, 0)?;
        }
        None => {}
    }
    Ok(node)
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn grow(node: &mut Node, value: Value, depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Error::new("ValidationException", "The body is nested too deeply."));
    }
    match value {
        Value::Null => {}
        Value::Bool(value) => node.value = Some(value.to_string()),
        Value::Number(value) => node.value = Some(value.to_string()),
        Value::String(value) => node.value = Some(value),
        Value::Array(values) => {
            for (at, value) in values.into_iter().enumerate() {
                grow(node.child(&at.to_string()), value, depth + 1)?;
            }
        }
        Value::Object(members) => {
            for (name, value) in members.into_iter().filter(|(_, value)| !value.is_null()) {
                grow(node.child(&name), value, depth + 1)?;
            }
        }
    }
    Ok(())
}

/// An answer: the members named in `headers` travel there, the payload (if any) is the body.
pub fn encode(
    output: &impl Serialize,
    status: u16,
    payload: Option<Bytes>,
    headers: &[(&str, &str)],
    request_id: &str,
) -> Response {
    // Generated structs of plain fields: encoding them cannot fail.
    let mut value = serde_json::to_value(output).unwrap_or_default();
    let mut sent = vec![("x-amzn-requestid".to_owned(), request_id.to_owned())];
    if let Value::Object(members) = &mut value {
        for (header, member) in headers {
            match members.remove(*member) {
                Some(Value::String(text)) => sent.push(((*header).to_owned(), text)),
                Some(other) => sent.push(((*header).to_owned(), other.to_string())),
                None => {}
            }
        }
    }
    match payload {
        Some(body) => Response { status, content_type: "application/octet-stream", headers: sent, body },
        None => {
            Response { status, content_type: CONTENT_TYPE, headers: sent, body: value.to_string().into() }
        }
    }
}

/// The one code that the service's model has for a request that can't be read.
pub fn as_validation(error: Error) -> Error {
    Error { code: "ValidationException".into(), ..error }
}

pub fn encode_error(error: &Error, request_id: &str) -> Response {
    let body =
        serde_json::json!({ "__type": error.code, "Message": error.message, "message": error.message });
    Response {
        status: error.status,
        content_type: CONTENT_TYPE,
        headers: vec![
            ("x-amzn-errortype".to_owned(), error.code.to_string()),
            ("x-amzn-requestid".to_owned(), request_id.to_owned()),
        ],
        body: body.to_string().into(),
    }
}

/// Timestamps as seconds since 1970.
pub mod epoch_seconds {
    use model::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.serialize_f64(at.as_millisecond() as f64 / 1000.0),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        Ok(seconds.and_then(|seconds| Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()))
    }
}
