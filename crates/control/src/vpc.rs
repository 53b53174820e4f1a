//! VPCs: the record, and how it is described.

use crate::Context;
use crate::cidr::CidrAssociation;
use crate::engine::describe::{self, Query};
use crate::engine::retire::{self, Retire};
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, Tx, filter};
use crate::vpc_block_public_access;
use aws_api::ec2;
use ipnet::{Ipv4Net, Ipv6Net};
use model::{AccountId, Id, Kind, Region, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub mod attribute;
pub mod cidr;
pub mod classic;
pub mod create;
mod desired;
pub mod encryption_control;
pub mod ipv6_pool;

pub use desired::desired;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vpc {
    pub vpc_id: Id,
    pub owner: AccountId,
    /// The block that it was made with, which it keeps.
    pub cidr: Ipv4Net,
    pub cidr_association_id: Id,
    #[serde(default)]
    pub secondary_cidrs: Vec<CidrAssociation<Ipv4Net>>,
    #[serde(default)]
    pub ipv6_cidrs: Vec<CidrAssociation<Ipv6Net>>,
    /// None has no options at all.
    pub dhcp_options_id: Option<Id>,
    /// Whether instances are of dedicated tenancy where they do not say.
    #[serde(default)]
    pub dedicated: bool,
    pub is_default: bool,
    pub dns_support: bool,
    pub dns_hostnames: bool,
    #[serde(default)]
    pub address_usage_metrics: bool,
    #[serde(default)]
    pub retired: bool,
    pub tags: Tags,
}

impl Vpc {
    /// All its IPv4 blocks, the primary one first.
    pub fn cidrs(&self) -> impl Iterator<Item = (&Id, Ipv4Net)> {
        let secondary = self.secondary_cidrs.iter().map(|of| (&of.association_id, of.cidr));
        std::iter::once((&self.cidr_association_id, self.cidr)).chain(secondary)
    }

    pub fn ipv6_cidrs(&self) -> impl Iterator<Item = Ipv6Net> {
        self.ipv6_cidrs.iter().map(|of| of.cidr)
    }

    fn tenancy(&self) -> &'static str {
        if self.dedicated { "dedicated" } else { "default" }
    }
}

/// Reads a VPC for something that comes to be in it: one that is about to be deleted takes nothing more.
pub fn depend(tx: &mut Tx<'_>, id: &str) -> Result<Arc<Vpc>> {
    Id::parse(Kind::Vpc, id)?;
    retire::depend(tx, id).ok_or_else(|| Id::not_found(Kind::Vpc, id))
}

impl Retire for Vpc {
    fn retired(&mut self) -> &mut bool {
        &mut self.retired
    }

    fn is_retired(&self) -> bool {
        self.retired
    }
}

impl Record for Vpc {
    const TABLE: &'static str = "vpc";
    const INDEXED: &'static [&'static str] =
        &["is-default", "dhcp-options-id", IPV4_ASSOCIATION, IPV6_ASSOCIATION];

    fn id(&self) -> &str {
        &self.vpc_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "cidr" => filter::one(values, self.cidr.to_string()),
            "cidr-block-association.cidr-block" => {
                filter::many(values, self.cidrs().map(|(_, cidr)| cidr.to_string()))
            }
            IPV4_ASSOCIATION => filter::many(values, self.cidrs().map(|(id, _)| id.as_str())),
            "cidr-block-association.state" => filter::one(values, "associated"),
            "dhcp-options-id" => filter::one(values, self.dhcp_options_id.as_deref().unwrap_or("default")),
            IPV6_ASSOCIATION => {
                filter::many(values, self.ipv6_cidrs.iter().map(|of| of.association_id.as_str()))
            }
            "ipv6-cidr-block-association.ipv6-cidr-block" => {
                filter::many(values, self.ipv6_cidrs().map(|cidr| cidr.to_string()))
            }
            "ipv6-cidr-block-association.ipv6-pool" => {
                filter::many(values, self.ipv6_cidrs().map(|_| ipv6_pool::NAME))
            }
            "ipv6-cidr-block-association.state" => {
                filter::many(values, self.ipv6_cidrs().map(|_| "associated"))
            }
            "is-default" | "isDefault" => filter::one(values, filter::boolean(self.is_default)),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "state" => filter::one(values, "available"),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            _ => false,
        }
    }
}

const IPV4_ASSOCIATION: &str = "cidr-block-association.association-id";
const IPV6_ASSOCIATION: &str = "ipv6-cidr-block-association.association-id";

pub async fn describe_vpcs(
    context: &Context,
    input: ec2::DescribeVpcsRequest,
) -> Result<ec2::DescribeVpcsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.vpc_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "vpcIds",
    };
    let page = describe::select(&tables.vpcs, Kind::Vpc, &query, |_| true, |_, _, _| false)?;
    Ok(ec2::DescribeVpcsResult {
        vpcs: page.records.iter().map(|vpc| to_api(vpc, &tables, &context.region.view.region)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(vpc: &Vpc, tables: &Tables, region: &Region) -> ec2::Vpc {
    ec2::Vpc {
        vpc_id: Some(vpc.vpc_id.to_string()),
        owner_id: Some(vpc.owner.to_string()),
        state: Some("available".into()),
        cidr_block: Some(vpc.cidr.to_string()),
        cidr_block_association_set: vpc
            .cidrs()
            .map(|(id, cidr)| cidr::ipv4_to_api(id, cidr, "associated"))
            .collect(),
        ipv6_cidr_block_association_set: vpc
            .ipv6_cidrs
            .iter()
            .map(|of| cidr::ipv6_to_api(of, region, "associated"))
            .collect(),
        dhcp_options_id: Some(vpc.dhcp_options_id.as_deref().unwrap_or("default").to_owned()),
        instance_tenancy: Some(vpc.tenancy().into()),
        is_default: Some(vpc.is_default),
        block_public_access_states: Some(
            vpc_block_public_access::of_vpc(tables, &vpc.owner, &vpc.vpc_id).to_api(),
        ),
        tags: vpc.tags.to_api(),
        ..Default::default()
    }
}
