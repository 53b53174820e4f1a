//! Network ACLs: the record with its rules, and how it is described. What they do to packets is in `datapath`.

pub mod association;
pub mod create;
pub mod entries;
mod entry;

pub use entry::Entry;

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, Tx, filter};
use crate::vpc::Vpc;
use aws_api::ec2;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{AccountId, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The rules behind all others: they deny what nothing allowed, and can't be removed.
const LAST_RULE: i32 = 32_767;
const LAST_IPV6_RULE: i32 = 32_768;
/// Where a default ACL's rules stand.
const FIRST_RULE: i32 = 100;
const FIRST_IPV6_RULE: i32 = 101;

const ANYWHERE: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
const ANYWHERE6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));

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

/// Rules of the same number for both directions.
fn both_ways(rule_number: i32, allow: bool, cidr: IpNet) -> [Entry; 2] {
    [true, false].map(|egress| Entry {
        rule_number,
        egress,
        allow,
        protocol: entry::ALL.into(),
        ports: None,
        icmp: None,
        cidr,
    })
}

impl NetworkAcl {
    /// Denies everything.
    pub fn new(tx: &Tx<'_>, owner: &AccountId, vpc: &Vpc) -> NetworkAcl {
        let mut acl = NetworkAcl {
            network_acl_id: tx.new_id(Kind::NetworkAcl),
            owner: owner.clone(),
            vpc_id: vpc.vpc_id.clone(),
            is_default: false,
            associations: Vec::new(),
            entries: both_ways(LAST_RULE, false, ANYWHERE).into(),
            tags: Tags::default(),
        };
        if !vpc.ipv6_cidrs.is_empty() {
            acl.know_ipv6();
        }
        acl
    }

    /// A VPC's default ACL: allows everything, both ways.
    pub fn default_for(tx: &Tx<'_>, owner: &AccountId, vpc: &Vpc) -> NetworkAcl {
        let mut acl = NetworkAcl { is_default: true, ..NetworkAcl::new(tx, owner, vpc) };
        acl.entries.extend(both_ways(FIRST_RULE, true, ANYWHERE));
        acl.entries.sort_by_key(Entry::place);
        acl
    }

    /// Once the VPC has IPv6, what nothing allowed of it is denied too; a default list that still allows all of IPv4
    /// allows all of IPv6.
    pub fn know_ipv6(&mut self) {
        let has = |entries: &[Entry], wanted: &Entry| entries.contains(wanted);
        let taken = self
            .entries
            .iter()
            .any(|entry| entry.rule_number == FIRST_IPV6_RULE || entry.rule_number == LAST_IPV6_RULE);
        if taken {
            return;
        }
        let open = both_ways(FIRST_RULE, true, ANYWHERE).iter().all(|entry| has(&self.entries, entry));
        if self.is_default && open {
            self.entries.extend(both_ways(FIRST_IPV6_RULE, true, ANYWHERE6));
        }
        self.entries.extend(both_ways(LAST_IPV6_RULE, false, ANYWHERE6));
        self.entries.sort_by_key(Entry::place);
    }

    /// From now on the list of the subnet.
    pub fn associate(&mut self, tx: &Tx<'_>, subnet_id: &Id) -> Id {
        let id = tx.new_id(Kind::NetworkAclAssociation);
        self.associations.push((id.clone(), subnet_id.clone()));
        id
    }
}

/// The list of a subnet.
pub fn of_subnet<'t>(tables: &'t Tables, subnet_id: &str) -> Option<&'t Arc<NetworkAcl>> {
    tables.network_acls.with(BY_SUBNET, subnet_id).next()
}

const BY_SUBNET: &str = "association.subnet-id";
const BY_ASSOCIATION: &str = "association.association-id";

impl Record for NetworkAcl {
    const TABLE: &'static str = "network-acl";
    const INDEXED: &'static [&'static str] = &["vpc-id", BY_SUBNET, BY_ASSOCIATION];

    fn id(&self) -> &str {
        &self.network_acl_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            BY_ASSOCIATION => filter::many(values, self.associations.iter().map(|(id, _)| id.as_str())),
            "network-acl-id" => filter::one(values, self.network_acl_id.as_str()),
            "association.network-acl-id" => {
                filter::some(values, self.associations.first().map(|_| self.network_acl_id.as_str()))
            }
            BY_SUBNET => filter::many(values, self.associations.iter().map(|(_, id)| id.as_str())),
            "default" => filter::one(values, filter::boolean(self.is_default)),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            _ => match name.strip_prefix("entry.") {
                Some(name) => self.entries.iter().all(|entry| entry.field(name, values)),
                None => false,
            },
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
        entries: acl.entries.iter().map(Entry::to_api).collect(),
        tags: acl.tags.to_api(),
    }
}
