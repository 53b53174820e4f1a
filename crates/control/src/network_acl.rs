//! Network ACLs.

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::{Tags, Tx, filter};
use crate::vpc::Vpc;
use aws_api::ec2;
use ipnet::Ipv4Net;
use model::{AccountId, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The rule behind all others: denies what nothing allowed, and can't be removed.
const LAST_RULE: i32 = 32_767;
/// Where a default ACL's one rule stands.
const FIRST_RULE: i32 = 100;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkAcl {
    pub network_acl_id: Id,
    pub owner: AccountId,
    pub vpc_id: Id,
    pub is_default: bool,
    /// Association and subnet.
    pub associations: Vec<(Id, Id)>,
    pub entries: Vec<Entry>,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub rule_number: i32,
    pub egress: bool,
    pub allow: bool,
    /// IANA number; `-1` is all.
    pub protocol: String,
    pub cidr: Ipv4Net,
}

impl Entry {
    fn action(&self) -> &'static str {
        if self.allow { "allow" } else { "deny" }
    }
}

impl NetworkAcl {
    /// A VPC's default ACL: allows everything, both ways.
    pub fn default_for(
        tx: &mut Tx<'_>,
        owner: &AccountId,
        vpc: &Vpc,
        subnets: impl Iterator<Item = Id>,
    ) -> NetworkAcl {
        let entry = |rule_number, egress, allow| Entry {
            rule_number,
            egress,
            allow,
            protocol: "-1".into(),
            cidr: Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0),
        };
        NetworkAcl {
            network_acl_id: tx.new_id(Kind::NetworkAcl),
            owner: owner.clone(),
            vpc_id: vpc.vpc_id.clone(),
            is_default: true,
            associations: subnets.map(|subnet| (tx.new_id(Kind::NetworkAclAssociation), subnet)).collect(),
            entries: vec![
                entry(FIRST_RULE, true, true),
                entry(LAST_RULE, true, false),
                entry(FIRST_RULE, false, true),
                entry(LAST_RULE, false, false),
            ],
            tags: Tags::default(),
        }
    }
}

impl Record for NetworkAcl {
    const TABLE: &'static str = "network-acl";
    const INDEXED: &'static [&'static str] = &["vpc-id"];

    fn id(&self) -> &str {
        &self.network_acl_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "association.association-id" => {
                filter::many(values, self.associations.iter().map(|(id, _)| id.as_str()))
            }
            "association.network-acl-id" | "network-acl-id" => {
                filter::one(values, self.network_acl_id.as_str())
            }
            "association.subnet-id" => {
                filter::many(values, self.associations.iter().map(|(_, id)| id.as_str()))
            }
            "default" => filter::one(values, filter::boolean(self.is_default)),
            "entry.cidr" => filter::many(values, self.entries.iter().map(|entry| entry.cidr.to_string())),
            "entry.icmp.code"
            | "entry.icmp.type"
            | "entry.ipv6-cidr"
            | "entry.port-range.from"
            | "entry.port-range.to" => true,
            "entry.egress" => {
                filter::many(values, self.entries.iter().map(|entry| filter::boolean(entry.egress)))
            }
            "entry.protocol" => {
                filter::many(values, self.entries.iter().map(|entry| entry.protocol.as_str()))
            }
            "entry.rule-action" => filter::many(values, self.entries.iter().map(|entry| entry.action())),
            "entry.rule-number" => {
                filter::many(values, self.entries.iter().map(|entry| entry.rule_number.to_string()))
            }
            "owner-id" => filter::one(values, self.owner.as_str()),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            _ => false,
        }
    }
}

pub async fn describe_network_acls(
    context: &Context,
    input: ec2::DescribeNetworkAclsRequest,
) -> Result<ec2::DescribeNetworkAclsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.network_acl_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "networkAclIds",
    };
    let page = describe::select(&tables.network_acls, Kind::NetworkAcl, &query, |_| true, |_, _, _| false)?;
    Ok(ec2::DescribeNetworkAclsResult {
        network_acls: page.records.iter().map(|acl| to_api(acl)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(acl: &NetworkAcl) -> ec2::NetworkAcl {
    ec2::NetworkAcl {
        network_acl_id: Some(acl.network_acl_id.to_string()),
        owner_id: Some(acl.owner.to_string()),
        vpc_id: Some(acl.vpc_id.to_string()),
        is_default: Some(acl.is_default),
        associations: acl
            .associations
            .iter()
            .map(|(id, subnet_id)| ec2::NetworkAclAssociation {
                network_acl_association_id: Some(id.to_string()),
                network_acl_id: Some(acl.network_acl_id.to_string()),
                subnet_id: Some(subnet_id.to_string()),
            })
            .collect(),
        entries: acl
            .entries
            .iter()
            .map(|entry| ec2::NetworkAclEntry {
                cidr_block: Some(entry.cidr.to_string()),
                egress: Some(entry.egress),
                protocol: Some(entry.protocol.clone()),
                rule_action: Some(entry.action().into()),
                rule_number: Some(entry.rule_number),
                ..Default::default()
            })
            .collect(),
        tags: acl.tags.to_api(),
    }
}
