//! Gateway endpoints: a VPC's way to a service of the region without the internet (PrivateLink Guide, "Gateway
//! endpoints").
//!
//! An endpoint has no record of its route tables: the routes that lead to it are in the tables, and nowhere else.

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, filter};
use crate::route_table;
use aws_api::ec2;
use model::{AccountId, Id, Kind, Region, Result, Timestamp};
use serde::{Deserialize, Serialize};

pub mod change;
mod policy;
pub mod service;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VpcEndpoint {
    pub endpoint_id: Id,
    pub owner: AccountId,
    pub vpc_id: Id,
    /// `com.amazonaws.us-east-1.s3`.
    pub service_name: String,
    /// As it was given; None is the one that lets everything through.
    pub policy: Option<String>,
    pub created_at: Timestamp,
    pub tags: Tags,
}

const GATEWAY: &str = "Gateway";

impl Record for VpcEndpoint {
    const TABLE: &'static str = "vpc-endpoint";
    const INDEXED: &'static [&'static str] = &["vpc-id"];

    fn id(&self) -> &str {
        &self.endpoint_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "ip-address-type" => filter::one(values, service::ADDRESS_TYPE),
            "service-name" => filter::one(values, self.service_name.as_str()),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            "vpc-endpoint-id" => filter::one(values, self.endpoint_id.as_str()),
            "vpc-endpoint-state" => filter::one(values, "available"),
            "vpc-endpoint-type" => filter::one(values, GATEWAY),
            _ => false,
        }
    }
}

pub async fn describe_vpc_endpoints(
    context: &Context,
    input: ec2::DescribeVpcEndpointsRequest,
) -> Result<ec2::DescribeVpcEndpointsResult> {
    let tables = context.tables();
    let region = &context.region.view.region;
    let query = Query {
        ids: &input.vpc_endpoint_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "vpcEndpointIds",
    };
    let page = describe::select(
        &tables.vpc_endpoints,
        Kind::VpcEndpoint,
        &query,
        |_| true,
        |_, name, values| name == "service-region" && filter::one(values, region.as_str()),
    )?;
    Ok(ec2::DescribeVpcEndpointsResult {
        vpc_endpoints: page.records.iter().map(|endpoint| to_api(&tables, region, endpoint)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(tables: &Tables, region: &Region, endpoint: &VpcEndpoint) -> ec2::VpcEndpoint {
    let led_by = route_table::leading_to(tables, &endpoint.endpoint_id);
    ec2::VpcEndpoint {
        vpc_endpoint_id: Some(endpoint.endpoint_id.to_string()),
        vpc_endpoint_type: Some(GATEWAY.into()),
        vpc_id: Some(endpoint.vpc_id.to_string()),
        service_name: Some(endpoint.service_name.clone()),
        service_region: Some(region.to_string()),
        state: Some("available".into()),
        policy_document: Some(endpoint.policy.clone().unwrap_or_else(|| policy::DEFAULT.to_owned())),
        route_table_ids: led_by.map(|table| table.route_table_id.to_string()).collect(),
        ip_address_type: Some(service::ADDRESS_TYPE.into()),
        private_dns_enabled: Some(false),
        requester_managed: Some(false),
        creation_timestamp: Some(endpoint.created_at),
        owner_id: Some(endpoint.owner.to_string()),
        tags: endpoint.tags.to_api(),
        ..Default::default()
    }
}

/// Of endpoints for resources and service networks with what they lead to: there are none.
pub async fn describe_vpc_endpoint_associations(
    context: &Context,
    input: ec2::DescribeVpcEndpointAssociationsRequest,
) -> Result<ec2::DescribeVpcEndpointAssociationsResult> {
    let tables = context.tables();
    for id in &input.vpc_endpoint_ids {
        let id = Id::parse(Kind::VpcEndpoint, id)?;
        tables.vpc_endpoints.find(&id).ok_or_else(|| Id::not_found(Kind::VpcEndpoint, &id))?;
    }
    let names = [
        "vpc-endpoint-id",
        "associated-resource-accessibility",
        "association-id",
        "associated-resource-id",
        "service-network-arn",
        "resource-configuration-group-arn",
        "service-network-resource-association-id",
    ];
    describe::none(&names, &input.filters, input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeVpcEndpointAssociationsResult::default())
}
