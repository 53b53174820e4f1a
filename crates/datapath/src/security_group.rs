//! Security groups.

use crate::Protocol;
use ipnet::IpNet;
use model::Id;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub group_id: Id,
    pub vpc_id: Id,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
    /// All addresses and prefixes of the interfaces in the group, on this host or another: what a rule that names the
    /// group as its peer stands for.
    pub members: BTreeSet<IpNet>,
}

impl SecurityGroup {
    /// The groups that its rules name.
    pub fn peers(&self) -> impl Iterator<Item = &Id> {
        self.ingress.iter().chain(&self.egress).filter_map(|rule| match &rule.peer {
            Peer::Group(group_id) => Some(group_id),
            Peer::Cidr(_) => None,
        })
    }
}

/// Lets matching traffic through (EC2 User Guide, "Security group rules"). Rules only ever allow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    pub protocol: Protocol,
    pub peer: Peer,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Peer {
    Cidr(IpNet),
    Group(Id),
}
