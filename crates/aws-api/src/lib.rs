//! What AWS's APIs say and how they say it: types for the requests and answers of the operations listed in
//! `operations.txt`, generated from the service models, and the codecs of their protocols (EC2 query, AWS query,
//! REST-JSON).
//!
//! Invariants: no request, however made, can panic here or cost more than its bounds; nothing here knows what an
//! operation does.

mod json;
mod node;
mod rule;
mod service;
mod xml;

pub use node::{DEPTH_MAX, PARAMETERS_BYTES_MAX, PARAMETERS_MAX};
pub use service::{Protocol, Service};

use bytes::Bytes;
use model::{Error, Result};
use node::{FromNode, Node, Path};

/// A request after its signature was verified, before anybody knows what it says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Of query and form, decoded, in the order they came.
    pub params: Vec<(String, String)>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// One operation: a unit type that ties its name to its types.
pub trait Operation {
    type Input: FromNode;
    type Output;
    const NAME: &'static str;
    const SERVICE: Service;
    /// It changes nothing: Describe, Get, List, Search.
    const READ_ONLY: bool;

    fn dry_run(input: &Self::Input) -> bool;
    fn client_token(input: &Self::Input) -> Option<&str>;
    fn encode(output: &Self::Output, request_id: &str) -> Response;
}

/// Reads an operation's input out of a request; errors name the parameter at fault.
pub fn decode<O: Operation>(request: &Request) -> Result<O::Input> {
    match O::SERVICE.protocol() {
        Protocol::RestJson => {
            let node = json::read(O::SERVICE, O::NAME, request)?;
            O::Input::from_node(&node, &Path::root()).map_err(json::as_validation)
        }
        Protocol::Ec2Query | Protocol::AwsQuery => {
            O::Input::from_node(&Node::from_parameters(&request.params)?, &Path::root())
        }
    }
}

pub fn encode<O: Operation>(output: &O::Output, request_id: &str) -> Response {
    O::encode(output, request_id)
}

/// An error as the service's clients expect it.
pub fn encode_error(service: Service, error: &Error, request_id: &str) -> Response {
    match service.protocol() {
        Protocol::RestJson => json::encode_error(error, request_id),
        Protocol::Ec2Query | Protocol::AwsQuery => xml::encode_error(service, error, request_id),
    }
}

/// The operation that a request asks for, offered or not.
pub fn operation_name(service: Service, request: &Request) -> Result<String> {
    if service.protocol() == Protocol::RestJson {
        return json::operation(service, request).map(str::to_owned);
    }
    let parameter =
        |name: &str| request.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let action = parameter("Action").filter(|action| !action.is_empty()).ok_or_else(|| {
        Error::new("MissingAction", "The request is missing an action or a required parameter")
    })?;
    if let Some(version) = parameter("Version")
        && !service.takes_version(version)
    {
        return Err(Error::new(
            "InvalidParameterValue",
            format!("The API version '{version}' is not supported: use {}", service.api_version()),
        ));
    }
    if !known_to_model(service, action) {
        return Err(Error::new(
            "InvalidAction",
            format!("The action {action} is not valid for this web service."),
        ));
    }
    Ok(action.to_owned())
}

/// Whether AWS has such an operation at all.
pub fn known_to_model(service: Service, operation: &str) -> bool {
    let known: &[&str] = match service {
        Service::Ec2 => ec2::KNOWN,
        Service::Sts => sts::KNOWN,
        Service::Ebs => ebs::KNOWN,
        Service::Iam => iam::KNOWN,
        Service::Cumulet => cumulet::KNOWN,
    };
    known.binary_search(&operation).is_ok()
}

/// Includes a generated module with what its code names.
macro_rules! generated {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[allow(clippy::all, unused_imports, unused_mut, dead_code)]
        pub mod $name {
            use crate::node::{FromNode, Node, Path, Reader};
            use crate::rule::Rule;
            use crate::xml::{ToXml, Xml};
            use crate::{Operation, Response, Service};
            use bytes::Bytes;
            use indexmap::IndexMap;
            use model::{Result, Timestamp};
            use serde::{Deserialize, Serialize};
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    };
}

generated!(
    /// Amazon EC2, API version 2016-11-15.
    ec2
);
generated!(
    /// AWS STS, API version 2011-06-15.
    sts
);
generated!(
    /// AWS IAM, API version 2010-05-08.
    iam
);
generated!(
    /// The EBS direct APIs, API version 2019-11-02.
    ebs
);
generated!(
    /// The operator's API of this cloud, of a model of its own.
    cumulet
);
