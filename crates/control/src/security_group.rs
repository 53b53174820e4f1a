//! Security groups: the record, and what hosts are told of it. Rules are in `rules`.

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::tags::Specified;
use crate::engine::{Tables, Tags, Tx, filter};
use crate::vpc::Vpc;
use aws_api::ec2;
use ipnet::{Ipv4Net, Ipv6Net};
use model::{AccountId, Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::sync::Arc;
use store::Revision;

pub mod permission;
pub mod rules;

const NAME_LEN_MAX: usize = 255;
const DEFAULT: &str = "default";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub group_id: Id,
    pub owner: AccountId,
    pub vpc_id: Id,
    pub name: String,
    pub description: String,
    pub rules: Vec<SecurityGroupRule>,
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
}

fn claim_scope(vpc_id: &str) -> String {
    format!("security-group-name/{vpc_id}")
}

impl SecurityGroup {
    /// A VPC's own: everything among its members, and everything out.
    pub fn default_for(tx: &mut Tx<'_>, owner: &AccountId, vpc_id: &Id) -> SecurityGroup {
        let group_id = tx.new_id(Kind::SecurityGroup);
        let among_members = SecurityGroupRule {
            rule_id: tx.new_id(Kind::SecurityGroupRule),
            egress: false,
            permission: Permission { protocol: "-1".into(), from_port: None, to_port: None, peer: Peer::Group(group_id.clone()) },
            description: None,
            tags: Tags::default(),
        };
        tx.claim(&claim_scope(vpc_id), DEFAULT, &group_id);
        SecurityGroup {
            rules: vec![among_members, everything_out(tx)],
            group_id,
            owner: owner.clone(),
            vpc_id: vpc_id.clone(),
            name: DEFAULT.into(),
            description: "default VPC security group".into(),
            tags: Tags::default(),
        }
    }

    pub fn rules(&self, egress: bool) -> impl Iterator<Item = &SecurityGroupRule> {
        self.rules.iter().filter(move |rule| rule.egress == egress)
    }
}

/// The rule that a new group has.
fn everything_out(tx: &Tx<'_>) -> SecurityGroupRule {
    SecurityGroupRule {
        rule_id: tx.new_id(Kind::SecurityGroupRule),
        egress: true,
        permission: Permission {
            protocol: "-1".into(),
            from_port: None,
            to_port: None,
            peer: Peer::Ipv4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        },
        description: None,
        tags: Tags::default(),
    }
}

impl Record for SecurityGroup {
    const TABLE: &'static str = "security-group";
    const INDEXED: &'static [&'static str] = &["group-name", "vpc-id", "ip-permission.group-id", "egress.ip-permission.group-id"];

    fn id(&self) -> &str {
        &self.group_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let (egress, of_rules) = match name.strip_prefix("egress.") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        if let Some(field) = of_rules.strip_prefix("ip-permission.") {
            return self.rules(egress).fold(true, |_, rule| rule.permission.field(field, values)) || is_permission_field(field);
        }
        match name {
            "description" => filter::one(values, self.description.as_str()),
            "group-id" => filter::one(values, self.group_id.as_str()),
            "group-name" => filter::one(values, self.name.as_str()),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            _ => false,
        }
    }
}

fn is_permission_field(name: &str) -> bool {
    matches!(name, "cidr" | "from-port" | "group-id" | "group-name" | "ipv6-cidr" | "prefix-list-id" | "protocol" | "to-port" | "user-id")
}

impl Permission {
    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match (name, &self.peer) {
            ("cidr", Peer::Ipv4(cidr)) => filter::one(values, cidr.to_string()),
            ("ipv6-cidr", Peer::Ipv6(cidr)) => filter::one(values, cidr.to_string()),
            ("group-id", Peer::Group(id)) => filter::one(values, id.as_str()),
            ("from-port", _) => filter::some(values, self.from_port.map(|port| port.to_string())),
            ("to-port", _) => filter::some(values, self.to_port.map(|port| port.to_string())),
            ("protocol", _) => filter::one(values, self.protocol.as_str()),
            _ => is_permission_field(name),
        }
    }
}

/// What a host is told: rules it can apply, and who the members are.
pub fn to_desired(group: &SecurityGroup, tables: &Tables, generation: Revision) -> agent_api::SecurityGroup {
    let rules = |egress| {
        group
            .rules(egress)
            .filter_map(|rule| {
                Some(agent_api::Rule {
                    protocol: permission::protocol(&rule.permission)?,
                    peer: match &rule.permission.peer {
                        Peer::Ipv4(cidr) => agent_api::Peer::Cidr(*cidr),
                        Peer::Ipv6(cidr) => agent_api::Peer::Cidr6(*cidr),
                        Peer::Group(id) => agent_api::Peer::Group(id.clone()),
                    },
                })
            })
            .collect()
    };
    agent_api::SecurityGroup {
        group_id: group.group_id.clone(),
        generation,
        vpc_id: group.vpc_id.clone(),
        ingress: rules(false),
        egress: rules(true),
        members: tables
            .network_interfaces
            .with("group-id", &group.group_id)
            .map(|interface| interface.private_ip)
            .collect(),
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
        (None, Some(name)) => {
            let in_default = |group: &&Arc<SecurityGroup>| tables.vpcs.find(&group.vpc_id).is_some_and(|vpc| vpc.is_default);
            let found = tables.security_groups.with("group-name", name).find(in_default);
            found.cloned().ok_or_else(|| Error::new("InvalidGroup.NotFound", format!("The security group '{name}' does not exist")))
        }
        (None, None) => Err(Error::new("MissingParameter", "The request must contain the parameter groupName or groupId")),
    }
}

pub async fn describe_security_groups(
    context: &Context,
    input: ec2::DescribeSecurityGroupsRequest,
) -> Result<ec2::DescribeSecurityGroupsResult> {
    let tables = context.tables();
    let mut ids = input.group_ids.clone();
    for name in &input.group_names {
        ids.push(named(&tables, None, Some(name))?.group_id.to_string());
    }
    let query = Query {
        ids: &ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "securityGroupIds",
    };
    let page = describe::select(&tables.security_groups, Kind::SecurityGroup, &query, |_| true, |_, _, _| false)?;
    Ok(ec2::DescribeSecurityGroupsResult {
        security_groups: page.records.iter().map(|group| to_api(context, group)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(context: &Context, group: &SecurityGroup) -> ec2::SecurityGroup {
    ec2::SecurityGroup {
        group_id: Some(group.group_id.to_string()),
        security_group_arn: Some(context.arn("security-group", &group.group_id)),
        group_name: Some(group.name.clone()),
        description: Some(group.description.clone()),
        owner_id: Some(group.owner.to_string()),
        vpc_id: Some(group.vpc_id.to_string()),
        ip_permissions: permission::to_api(group, false),
        ip_permissions_egress: permission::to_api(group, true),
        tags: group.tags.to_api(),
    }
}

pub async fn create_security_group(
    context: &Context,
    input: ec2::CreateSecurityGroupRequest,
) -> Result<ec2::CreateSecurityGroupResult> {
    let name = input.group_name.filter(|name| !name.is_empty()).ok_or_else(|| Error::missing_parameter("GroupName"))?;
    let description = input.description.ok_or_else(|| Error::missing_parameter("GroupDescription"))?;
    for (what, text) in [("groupName", &name), ("groupDescription", &description)] {
        if text.len() > NAME_LEN_MAX || !text.bytes().all(is_allowed) {
            return Err(Error::invalid_parameter_value(format!("Value ({text}) for parameter {what} is invalid. Character sets beyond ASCII are not supported.")));
        }
    }
    if name.starts_with("sg-") {
        return Err(Error::invalid_parameter_value("Invalid group name: it must not begin with 'sg-'"));
    }
    if name == DEFAULT {
        return Err(Error::new("InvalidParameterValue", "Cannot use reserved security group name: default"));
    }
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::SecurityGroup])?;
    let group = context
        .transact(|tx| {
            let vpc: Arc<Vpc> = match input.vpc_id.as_deref() {
                Some(id) => {
                    Id::parse(Kind::Vpc, id)?;
                    tx.get::<Vpc>(id).ok_or_else(|| Id::not_found(Kind::Vpc, id))?
                }
                None => {
                    let default = tx.tables().vpcs.with("is-default", "true").next().cloned();
                    default.ok_or_else(|| Error::new("VPCIdNotSpecified", "No default VPC for this user"))?
                }
            };
            let group_id = tx.new_id(Kind::SecurityGroup);
            if !tx.claim(&claim_scope(&vpc.vpc_id), &name, &group_id) {
                return Err(Error::new("InvalidGroup.Duplicate", format!("The security group '{name}' already exists for VPC '{}'", vpc.vpc_id)));
            }
            let group = SecurityGroup {
                rules: vec![everything_out(tx)],
                group_id,
                owner: context.account().clone(),
                vpc_id: vpc.vpc_id.clone(),
                name: name.clone(),
                description: description.clone(),
                tags: tags.of(Kind::SecurityGroup),
            };
            tx.create(&group);
            Ok(group)
        })
        .await?;
    Ok(ec2::CreateSecurityGroupResult {
        group_id: Some(group.group_id.to_string()),
        security_group_arn: Some(context.arn("security-group", &group.group_id)),
        tags: group.tags.to_api(),
    })
}

/// The characters that EC2 allows in a group's name and description in a VPC.
fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" ._-:/()#,@[]+=&;{}!$*".contains(&byte)
}

pub async fn delete_security_group(
    context: &Context,
    input: ec2::DeleteSecurityGroupRequest,
) -> Result<ec2::DeleteSecurityGroupResult> {
    let deleted = context
        .transact(|tx| {
            let group = named(tx.tables(), input.group_id.as_deref(), input.group_name.as_deref())?;
            if group.name == DEFAULT {
                return Err(Error::new("CannotDelete", format!("the specified group: \"{}\" name: \"default\" cannot be deleted by a user", group.group_id)));
            }
            let used = tx.tables().network_interfaces.ids_with("group-id", &group.group_id).is_some();
            let referred = ["ip-permission.group-id", "egress.ip-permission.group-id"]
                .into_iter()
                .flat_map(|field| tx.tables().security_groups.with(field, &group.group_id))
                .any(|other| other.group_id != group.group_id);
            if used || referred {
                return Err(Error::new("DependencyViolation", format!("resource {} has a dependent object", group.group_id)));
            }
            tx.get::<SecurityGroup>(&group.group_id);
            tx.delete::<SecurityGroup>(&group.group_id);
            tx.release(&claim_scope(&group.vpc_id), &group.name);
            Ok(group.group_id.to_string())
        })
        .await?;
    Ok(ec2::DeleteSecurityGroupResult { r#return: Some(true), group_id: Some(deleted) })
}
