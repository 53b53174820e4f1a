//! VPCs.

mod desired;

pub use desired::desired;

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::{Tags, filter};
use aws_api::ec2;
use ipnet::Ipv4Net;
use model::{AccountId, Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vpc {
    pub vpc_id: Id,
    pub owner: AccountId,
    pub cidr: Ipv4Net,
    pub cidr_association_id: Id,
    pub dhcp_options_id: Id,
    pub is_default: bool,
    pub dns_support: bool,
    pub dns_hostnames: bool,
    pub tags: Tags,
}

impl Record for Vpc {
    const TABLE: &'static str = "vpc";
    const INDEXED: &'static [&'static str] = &["is-default"];

    fn id(&self) -> &str {
        &self.vpc_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "cidr" | "cidr-block-association.cidr-block" => filter::one(values, self.cidr.to_string()),
            "cidr-block-association.association-id" => filter::one(values, self.cidr_association_id.as_str()),
            "cidr-block-association.state" => filter::one(values, "associated"),
            "dhcp-options-id" => filter::one(values, self.dhcp_options_id.as_str()),
            "ipv6-cidr-block-association.association-id"
            | "ipv6-cidr-block-association.ipv6-cidr-block"
            | "ipv6-cidr-block-association.ipv6-pool"
            | "ipv6-cidr-block-association.state" => true,
            "is-default" | "isDefault" => filter::one(values, filter::boolean(self.is_default)),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "state" => filter::one(values, "available"),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            _ => false,
        }
    }
}

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
        vpcs: page.records.iter().map(|vpc| to_api(vpc)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(vpc: &Vpc) -> ec2::Vpc {
    ec2::Vpc {
        vpc_id: Some(vpc.vpc_id.to_string()),
        owner_id: Some(vpc.owner.to_string()),
        state: Some("available".into()),
        cidr_block: Some(vpc.cidr.to_string()),
        cidr_block_association_set: vec![ec2::VpcCidrBlockAssociation {
            association_id: Some(vpc.cidr_association_id.to_string()),
            cidr_block: Some(vpc.cidr.to_string()),
            cidr_block_state: Some(ec2::VpcCidrBlockState {
                state: Some("associated".into()),
                ..Default::default()
            }),
        }],
        dhcp_options_id: Some(vpc.dhcp_options_id.to_string()),
        instance_tenancy: Some("default".into()),
        is_default: Some(vpc.is_default),
        tags: vpc.tags.to_api(),
        ..Default::default()
    }
}

pub async fn describe_vpc_attribute(
    context: &Context,
    input: ec2::DescribeVpcAttributeRequest,
) -> Result<ec2::DescribeVpcAttributeResult> {
    let vpc_id = Id::parse(Kind::Vpc, input.vpc_id.as_deref().unwrap_or_default())?;
    let vpc = context.region.view.record::<Vpc>(&vpc_id).ok_or_else(|| Id::not_found(Kind::Vpc, &vpc_id))?;
    let mut result =
        ec2::DescribeVpcAttributeResult { vpc_id: Some(vpc_id.to_string()), ..Default::default() };
    let value = |value| Some(ec2::AttributeBooleanValue { value: Some(value) });
    match input.attribute.as_deref().unwrap_or_default() {
        "enableDnsSupport" => result.enable_dns_support = value(vpc.dns_support),
        "enableDnsHostnames" => result.enable_dns_hostnames = value(vpc.dns_hostnames),
        "enableNetworkAddressUsageMetrics" => result.enable_network_address_usage_metrics = value(false),
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter attribute is invalid. Unknown attribute."
            )));
        }
    }
    Ok(result)
}
