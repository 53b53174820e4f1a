//! Groups of peered VPCs: which rules name them, and which of those are stale (VPC Peering Guide, "Update your security
//! groups to reference peer security groups").
//!
//! A rule is of the connection that it was made over. It lets nothing through any more, and stays until it is revoked, once
//! that connection or the group at its other end is gone.

use super::{REFERENCES, SecurityGroup, SecurityGroupRule, find, permission};
use crate::Context;
use crate::engine::Tables;
use crate::engine::describe::page_of;
use crate::vpc_peering_connection;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most groups in one request.
const GROUPS_MAX: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeeredGroup {
    pub group_id: Id,
    pub vpc_id: Id,
    pub peering_id: Id,
}

impl PeeredGroup {
    /// A group of another VPC, as one of `vpc_id` may name it; None where no connection leads there.
    pub fn of(tables: &Tables, vpc_id: &Id, group: &SecurityGroup) -> Option<PeeredGroup> {
        let mut peerings = vpc_peering_connection::of_vpc(tables, vpc_id);
        let peering = peerings.find(|one| one.is_active() && *one.peer_of(vpc_id) == group.vpc_id)?;
        Some(PeeredGroup {
            group_id: group.group_id.clone(),
            vpc_id: group.vpc_id.clone(),
            peering_id: peering.peering_id.clone(),
        })
    }

    /// Whether the connection carries packets.
    pub fn is_connected(&self, tables: &Tables) -> bool {
        tables.vpc_peering_connections.find(&self.peering_id).is_some_and(|peering| peering.is_active())
    }

    fn is_stale(&self, tables: &Tables) -> bool {
        !self.is_connected(tables) || !tables.security_groups.contains(&self.group_id)
    }

    /// EC2's `PeeringStatus`: one that was active is so, or deleted.
    fn status(&self, tables: &Tables) -> &'static str {
        if self.is_connected(tables) { "active" } else { "deleted" }
    }

    pub fn pair(&self, tables: &Tables) -> ec2::UserIdGroupPair {
        let group = tables.security_groups.find(&self.group_id);
        ec2::UserIdGroupPair {
            group_id: Some(self.group_id.to_string()),
            user_id: group.map(|group| group.owner.to_string()),
            vpc_id: Some(self.vpc_id.to_string()),
            vpc_peering_connection_id: Some(self.peering_id.to_string()),
            peering_status: Some(self.status(tables).into()),
            ..Default::default()
        }
    }

    pub fn referenced(&self, tables: &Tables) -> ec2::ReferencedSecurityGroup {
        let pair = self.pair(tables);
        ec2::ReferencedSecurityGroup {
            group_id: pair.group_id,
            user_id: pair.user_id,
            vpc_id: pair.vpc_id,
            vpc_peering_connection_id: pair.vpc_peering_connection_id,
            peering_status: pair.peering_status,
        }
    }
}

/// The field with the connections that a group's rules are of. Ours.
pub(super) const BY_PEERING: &str = "cumulet:rule-peering";

/// The groups with rules over a connection.
pub fn over<'t>(tables: &'t Tables, peering_id: &str) -> impl Iterator<Item = &'t Arc<SecurityGroup>> {
    tables.security_groups.with(BY_PEERING, peering_id)
}

pub(super) fn named(group: &SecurityGroup) -> impl Iterator<Item = &PeeredGroup> {
    group.rules.iter().filter_map(|rule| rule.permission.peer.peered())
}

pub async fn describe_security_group_references(
    context: &Context,
    input: ec2::DescribeSecurityGroupReferencesRequest,
) -> Result<ec2::DescribeSecurityGroupReferencesResult> {
    if input.group_id.is_empty() {
        return Err(Error::missing_parameter("GroupId"));
    }
    if input.group_id.len() > GROUPS_MAX {
        return Err(Error::invalid_parameter_value(format!("At most {GROUPS_MAX} groups can be given")));
    }
    let tables = context.tables();
    let mut found = BTreeSet::new();
    for id in &input.group_id {
        let id = &find(&tables, id)?.group_id;
        let others = REFERENCES.into_iter().flat_map(|field| tables.security_groups.with(field, id));
        for other in others {
            let over = named(other).filter(|peered| peered.group_id == *id && peered.is_connected(&tables));
            found.extend(over.map(|peered| (id.clone(), other.vpc_id.clone(), peered.peering_id.clone())));
        }
    }
    let to_api = |(group_id, vpc_id, peering_id): (Id, Id, Id)| ec2::SecurityGroupReference {
        group_id: Some(group_id.to_string()),
        referencing_vpc_id: Some(vpc_id.to_string()),
        vpc_peering_connection_id: Some(peering_id.to_string()),
        ..Default::default()
    };
    Ok(ec2::DescribeSecurityGroupReferencesResult {
        security_group_reference_set: found.into_iter().map(to_api).collect(),
    })
}

pub async fn describe_stale_security_groups(
    context: &Context,
    input: ec2::DescribeStaleSecurityGroupsRequest,
) -> Result<ec2::DescribeStaleSecurityGroupsResult> {
    let vpc_id = Id::parse(Kind::Vpc, input.vpc_id.as_deref().unwrap_or_default())?;
    let tables = context.tables();
    tables.vpcs.find(&vpc_id).ok_or_else(|| Id::not_found(Kind::Vpc, &vpc_id))?;
    let has_stale = |group: &&Arc<SecurityGroup>| named(group).any(|peered| peered.is_stale(&tables));
    let groups: Vec<_> = tables.security_groups.with("vpc-id", &vpc_id).filter(has_stale).collect();
    let key = |group: &&Arc<SecurityGroup>| group.group_id.to_string();
    let (page, next_token) = page_of(&groups, key, &[], input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeStaleSecurityGroupsResult {
        stale_security_group_set: page.into_iter().map(|group| stale_to_api(&tables, group)).collect(),
        next_token,
    })
}

fn stale_to_api(tables: &Tables, group: &SecurityGroup) -> ec2::StaleSecurityGroup {
    let is_stale = |rule: &&SecurityGroupRule| {
        rule.permission.peer.peered().is_some_and(|peered| peered.is_stale(tables))
    };
    let stale = |egress| {
        let rules = group.rules(egress).filter(is_stale);
        let gathered =
            permission::gather(tables, group, rules.map(|rule| (&rule.permission, &rule.description)));
        let to_api = |shown: ec2::IpPermission| ec2::StaleIpPermission {
            ip_protocol: shown.ip_protocol,
            from_port: shown.from_port,
            to_port: shown.to_port,
            user_id_group_pairs: shown.user_id_group_pairs,
            ..Default::default()
        };
        gathered.into_iter().map(to_api).collect()
    };
    ec2::StaleSecurityGroup {
        group_id: Some(group.group_id.to_string()),
        group_name: Some(group.name.clone()),
        description: Some(group.description.clone()),
        vpc_id: Some(group.vpc_id.to_string()),
        stale_ip_permissions: stale(false),
        stale_ip_permissions_egress: stale(true),
    }
}
