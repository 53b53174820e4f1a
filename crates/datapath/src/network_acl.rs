//! Network ACLs: what may cross the edge of a subnet. They know nothing of connections.

use crate::Protocol;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Entries in the order of their numbers: the first that matches decides, and nothing passes what none matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAcl {
    /// Of what enters the subnet.
    pub ingress: Vec<AclEntry>,
    /// Of what leaves it.
    pub egress: Vec<AclEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclEntry {
    pub rule_number: u16,
    /// Of the other side.
    pub cidr: IpNet,
    pub protocol: Protocol,
    pub allow: bool,
}
