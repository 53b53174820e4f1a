//! Security groups: the record, and what hosts are told of it.
//! Its rules are kept in its record, so that what a group lets through changes in one write; they are changed in
//! `rules`.

use crate::engine::retire::{self, Retire};
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, Tx, filter};
use crate::prefix_list;
use crate::vpc::Vpc;
pub use association::VpcAssociation;
pub use create::{create_security_group, delete_security_group};
pub use describe::{describe_security_groups, get_security_groups_for_vpc};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{AccountId, Error, Id, Kind, Result};
pub use peered::PeeredGroup;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub mod association;
pub mod create;
pub mod describe;
pub mod peered;
pub mod permission;
pub mod rules;

/// The name of the one that every VPC has.
pub(crate) const DEFAULT: &str = "default";
const ANYWHERE: Peer = Peer::Ipv4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));

const ANYWHERE6: Peer = Peer::Ipv6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub group_id: Id,
    pub owner: AccountId,
    pub vpc_id: Id,
    pub name: String,
    pub description: String,
    pub rules: Vec<SecurityGroupRule>,
    /// With further VPCs, whose interfaces may be in it.
    #[serde(default)]
    pub associations: Vec<VpcAssociation>,
    /// It is about to be deleted.
    #[serde(default)]
    pub retired: bool,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    pub rule_id: Id,
    pub egress: bool,
    pub permission: Permission,
    pub description: Option<String>,
    pub tags: Tags,
}

/// What a rule lets through: a protocol, its ports or types, and the other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// As the API says it: `-1`, `tcp`, `udp`, `icmp`, `icmpv6`, or a number.
    pub protocol: String,
    /// Ports for TCP and UDP; type and code for ICMP, -1 is any; None for all others.
    pub from_port: Option<i32>,
    pub to_port: Option<i32>,
    pub peer: Peer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    Ipv4(Ipv4Net),
    Ipv6(Ipv6Net),
    Group(Id),
    PeeredGroup(PeeredGroup),
    PrefixList(Id),
}

fn claim_scope(vpc_id: &str) -> String {
    format!("security-group-name/{vpc_id}")
}

impl SecurityGroup {
    /// A VPC's own: everything among its members, and everything out.
    pub fn default_for(tx: &mut Tx<'_>, owner: &AccountId, vpc_id: &Id) -> SecurityGroup {
        let group_id = tx.new_id(Kind::SecurityGroup);
        tx.claim(&claim_scope(vpc_id), DEFAULT, &group_id);
        SecurityGroup {
            rules: vec![everything(tx, false, Peer::Group(group_id.clone())), everything(tx, true, ANYWHERE)],
            group_id,
            owner: owner.clone(),
            vpc_id: vpc_id.clone(),
            name: DEFAULT.into(),
            description: "default VPC security group".into(),
            associations: Vec::new(),
            retired: false,
            tags: Tags::default(),
        }
    }

    /// Once its VPC has IPv6: all of it may go out where all IPv4 may, as from the start.
    pub fn let_ipv6_out(&mut self, tx: &Tx<'_>) {
        let everything = |to: &Peer| {
            let all = |of: &Permission| of.protocol == "-1" && of.peer == *to;
            self.rules(true).any(|rule| all(&rule.permission))
        };
        if everything(&ANYWHERE) && !everything(&ANYWHERE6) {
            self.rules.push(self::everything(tx, true, ANYWHERE6));
        }
    }

    /// Deletes the record and lets go of its name.
    pub fn delete(&self, tx: &mut Tx<'_>) {
        tx.delete::<SecurityGroup>(&self.group_id);
        tx.release(&claim_scope(&self.vpc_id), &self.name);
    }

    pub fn rules(&self, egress: bool) -> impl Iterator<Item = &SecurityGroupRule> {
        self.rules.iter().filter(move |rule| rule.egress == egress)
    }
}

/// A rule that lets everything from or to `peer` through.
fn everything(tx: &Tx<'_>, egress: bool, peer: Peer) -> SecurityGroupRule {
    SecurityGroupRule {
        rule_id: tx.new_id(Kind::SecurityGroupRule),
        egress,
        permission: Permission { protocol: "-1".into(), from_port: None, to_port: None, peer },
        description: None,
        tags: Tags::default(),
    }
}

/// The filters that name the groups which a group's rules refer to.
const REFERENCES: [&str; 2] = ["ip-permission.group-id", "egress.ip-permission.group-id"];
/// Those that name prefix lists.
const NAMING: [&str; 2] = ["ip-permission.prefix-list-id", "egress.ip-permission.prefix-list-id"];

impl Retire for SecurityGroup {
    fn retired(&mut self) -> &mut bool {
        &mut self.retired
    }

    fn is_retired(&self) -> bool {
        self.retired
    }
}

/// A group that an interface or a rule comes to name.
pub fn depend(tx: &mut Tx<'_>, id: &Id) -> Result<Arc<SecurityGroup>> {
    retire::depend(tx, id).ok_or_else(|| Id::not_found(Kind::SecurityGroup, id))
}

impl Record for SecurityGroup {
    const TABLE: &'static str = "security-group";
    const INDEXED: &'static [&'static str] = &[
        "group-name",
        "vpc-id",
        "security-group-rule-id",
        REFERENCES[0],
        REFERENCES[1],
        NAMING[0],
        NAMING[1],
        peered::BY_PEERING,
        association::WITH_VPC,
    ];

    fn id(&self) -> &str {
        &self.group_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "description" => filter::one(values, self.description.as_str()),
            "group-id" => filter::one(values, self.group_id.as_str()),
            "group-name" => filter::one(values, self.name.as_str()),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "security-group-rule-id" => {
                filter::many(values, self.rules.iter().map(|rule| rule.rule_id.as_str()))
            }
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            association::WITH_VPC => {
                filter::many(values, self.associations.iter().map(|of| of.vpc_id.as_str()))
            }
            peered::BY_PEERING => {
                filter::many(values, peered::named(self).map(|peered| peered.peering_id.as_str()))
            }
            _ => rules_filter(name).is_some_and(|(egress, name)| self.rules_field(egress, name, values)),
        }
    }
}

/// The direction and the rest of a filter's name about rules.
fn rules_filter(name: &str) -> Option<(bool, &str)> {
    let (egress, name) = match name.strip_prefix("egress.") {
        Some(rest) => (true, rest),
        None => (false, name),
    };
    Some((egress, name.strip_prefix("ip-permission.")?))
}

impl SecurityGroup {
    fn rules_field<'a>(&'a self, egress: bool, name: &str, values: &mut Values<'a>) -> bool {
        let permissions = || self.rules(egress).map(|rule| &rule.permission);
        let peers = || permissions().map(|permission| &permission.peer);
        let port = |port: Option<i32>| port.map(|port| port.to_string());
        match name {
            "cidr" => filter::many(
                values,
                peers().filter(|peer| matches!(peer, Peer::Ipv4(_))).map(Peer::to_string),
            ),
            "from-port" => filter::many(values, permissions().filter_map(|of| port(of.from_port))),
            "group-id" => filter::many(values, peers().filter_map(Peer::group_id).map(|id| id.as_str())),
            "ipv6-cidr" => filter::many(
                values,
                peers().filter(|peer| matches!(peer, Peer::Ipv6(_))).map(Peer::to_string),
            ),
            "prefix-list-id" => {
                filter::many(values, peers().filter_map(Peer::prefix_list_id).map(|id| id.as_str()))
            }
            "protocol" => filter::many(values, permissions().map(|of| of.protocol.as_str())),
            "to-port" => filter::many(values, permissions().filter_map(|of| port(of.to_port))),
            "user-id" => {
                filter::many(values, peers().filter_map(Peer::group_id).map(|_| self.owner.as_str()))
            }
            _ => false,
        }
    }
}

impl Peer {
    fn group_id(&self) -> Option<&Id> {
        match self {
            Peer::Group(id) => Some(id),
            Peer::PeeredGroup(peered) => Some(&peered.group_id),
            _ => None,
        }
    }

    fn peered(&self) -> Option<&PeeredGroup> {
        if let Peer::PeeredGroup(peered) = self { Some(peered) } else { None }
    }

    fn prefix_list_id(&self) -> Option<&Id> {
        if let Peer::PrefixList(id) = self { Some(id) } else { None }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ipv4(cidr) => cidr.fmt(f),
            Peer::Ipv6(cidr) => cidr.fmt(f),
            Peer::Group(id) | Peer::PrefixList(id) => id.fmt(f),
            Peer::PeeredGroup(peered) => peered.group_id.fmt(f),
        }
    }
}

/// The groups with a rule that names a prefix list; one that names it both ways comes twice.
pub fn naming<'t>(tables: &'t Tables, prefix_list_id: &str) -> impl Iterator<Item = &'t Arc<SecurityGroup>> {
    let [ingress, egress] = NAMING.map(|field| tables.security_groups.with(field, prefix_list_id));
    ingress.chain(egress)
}

/// What a host is told: rules it can apply, and who the members are.
pub fn to_desired(group: &SecurityGroup, tables: &Tables) -> datapath::SecurityGroup {
    let peers = |peer: &Peer| -> Vec<datapath::Peer> {
        match peer {
            Peer::Ipv4(cidr) => vec![datapath::Peer::Cidr((*cidr).into())],
            Peer::Ipv6(cidr) => vec![datapath::Peer::Cidr((*cidr).into())],
            Peer::Group(id) => vec![datapath::Peer::Group(id.clone())],
            Peer::PeeredGroup(peered) if !peered.is_connected(tables) => Vec::new(),
            Peer::PeeredGroup(peered) => vec![datapath::Peer::Group(peered.group_id.clone())],
            Peer::PrefixList(id) => prefix_list::cidrs(tables, id).map(datapath::Peer::Cidr).collect(),
        }
    };
    let written_out = |rule: &SecurityGroupRule| {
        let protocol = permission::protocol(&rule.permission);
        let with = move |peer| Some(datapath::Rule { protocol: protocol?, peer });
        peers(&rule.permission.peer).into_iter().filter_map(with)
    };
    let rules = |egress| group.rules(egress).flat_map(written_out).collect();
    let mut members: BTreeMap<Id, BTreeSet<IpNet>> = BTreeMap::new();
    for interface in tables.network_interfaces.with("group-id", &group.group_id) {
        members.entry(interface.vpc_id.clone()).or_default().extend(interface.networks());
    }
    datapath::SecurityGroup {
        group_id: group.group_id.clone(),
        vpc_id: group.vpc_id.clone(),
        ingress: rules(false),
        egress: rules(true),
        members,
    }
}

pub fn find<'t>(tables: &'t Tables, id: &str) -> Result<&'t Arc<SecurityGroup>> {
    Id::parse(Kind::SecurityGroup, id)?;
    tables.security_groups.find(id).ok_or_else(|| Id::not_found(Kind::SecurityGroup, id))
}

/// The group that a request means: by id, or by name in the default VPC.
pub fn named(tables: &Tables, id: Option<&str>, name: Option<&str>) -> Result<Arc<SecurityGroup>> {
    match (id.filter(|id| !id.is_empty()), name) {
        (Some(id), _) => find(tables, id).cloned(),
        (None, Some(name)) => in_default_vpc(tables, name),
        (None, None) => {
            Err(Error::new("MissingParameter", "The request must contain the parameter groupName or groupId"))
        }
    }
}

fn default_vpc(tables: &Tables) -> Result<&Arc<Vpc>> {
    let vpc = tables.vpcs.with("is-default", "true").next();
    vpc.ok_or_else(|| Error::new("VPCIdNotSpecified", "No default VPC for this user"))
}

fn in_default_vpc(tables: &Tables, name: &str) -> Result<Arc<SecurityGroup>> {
    let vpc_id = &default_vpc(tables)?.vpc_id;
    let group = tables.security_groups.with("group-name", name).find(|group| group.vpc_id == *vpc_id);
    group.cloned().ok_or_else(|| {
        Error::new(
            "InvalidGroup.NotFound",
            format!("The security group '{name}' does not exist in default VPC '{vpc_id}'"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_about_rules_look_at_their_own_direction() {
        let group_id: Id = Id::parse(Kind::SecurityGroup, "sg-0123456789abcdef0").unwrap();
        let rule = |egress, protocol: &str, port, peer| SecurityGroupRule {
            rule_id: Id::parse(Kind::SecurityGroupRule, "sgr-0123456789abcdef0").unwrap(),
            egress,
            permission: Permission { protocol: protocol.into(), from_port: port, to_port: port, peer },
            description: None,
            tags: Tags::default(),
        };
        let group = SecurityGroup {
            owner: "123456789012".parse().unwrap(),
            vpc_id: Id::parse(Kind::Vpc, "vpc-0123456789abcdef0").unwrap(),
            name: "web".into(),
            description: String::new(),
            rules: vec![
                rule(false, "tcp", Some(80), Peer::Ipv4("10.0.0.0/8".parse().unwrap())),
                rule(false, "-1", None, Peer::Group(group_id.clone())),
                rule(true, "udp", Some(53), Peer::Ipv6("::/0".parse().unwrap())),
            ],
            associations: Vec::new(),
            retired: false,
            tags: Tags::default(),
            group_id,
        };
        for (name, expected) in [
            ("ip-permission.cidr", &["10.0.0.0/8"][..]),
            ("ip-permission.from-port", &["80"]),
            ("ip-permission.protocol", &["tcp", "-1"]),
            ("ip-permission.group-id", &["sg-0123456789abcdef0"]),
            ("ip-permission.user-id", &["123456789012"]),
            ("ip-permission.ipv6-cidr", &[]),
            ("egress.ip-permission.ipv6-cidr", &["::/0"]),
            ("egress.ip-permission.to-port", &["53"]),
            ("egress.ip-permission.cidr", &[]),
        ] {
            let mut values = Vec::new();
            assert!(group.field(name, &mut values), "{name}");
            assert_eq!(values, expected, "{name}");
        }
        for name in ["ip-permission.colour", "egress.vpc-id", "egress.ip-permission", "ip-permission."] {
            assert!(!group.field(name, &mut Vec::new()), "{name}");
        }
    }
}
