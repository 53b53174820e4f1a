//! Security groups.

use crate::{Protocol, Vpc};
use ipnet::IpNet;
use model::Id;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub group_id: Id,
    pub vpc_id: Id,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
    /// All addresses and prefixes of the interfaces in the group, on this host or another, by the VPC that they are in:
    /// what a rule that names the group as its peer stands for.
    pub members: BTreeMap<Id, BTreeSet<IpNet>>,
}

impl SecurityGroup {
    /// The members that a VPC's packets may come from or go to: in itself and in its peers. In others the same addresses
    /// are somebody else's.
    pub fn members_near(&self, vpc: &Vpc) -> impl Iterator<Item = IpNet> {
        let peers = vpc.peerings.iter().map(|peering| &peering.peer_vpc_id);
        let near: BTreeSet<&Id> = peers.chain([&vpc.vpc_id]).collect();
        near.into_iter().filter_map(|vpc_id| self.members.get(vpc_id)).flatten().copied()
    }

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
