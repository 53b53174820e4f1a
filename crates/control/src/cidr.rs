//! CIDR blocks as EC2 takes them: written in their canonical form whatever bits stand behind the prefix.

use ipnet::{Ipv4Net, Ipv6Net};
use model::{Error, Id, Result};
use serde::{Deserialize, Serialize};

/// A block that is associated with a VPC or a subnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CidrAssociation<N> {
    pub association_id: Id,
    pub cidr: N,
}

pub fn ipv4(parameter: &str, text: &str) -> Result<Ipv4Net> {
    text.parse::<Ipv4Net>().map(|cidr| cidr.trunc()).map_err(|_| malformed(parameter, text))
}

pub fn ipv6(parameter: &str, text: &str) -> Result<Ipv6Net> {
    text.parse::<Ipv6Net>().map(|cidr| cidr.trunc()).map_err(|_| malformed(parameter, text))
}

pub fn malformed(parameter: &str, text: &str) -> Error {
    Error::invalid_parameter_value(format!(
        "Value ({text}) for parameter {parameter} is invalid. This is not a valid CIDR block."
    ))
}

pub fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

pub fn overlap6(one: Ipv6Net, other: Ipv6Net) -> bool {
    one.contains(&other) || other.contains(&one)
}
