//! Route tables.

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::{Tags, Tx, filter};
use crate::internet_gateway::InternetGateway;
use crate::vpc::Vpc;
use aws_api::ec2;
use ipnet::Ipv4Net;
use model::{AccountId, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteTable {
    pub route_table_id: Id,
    pub owner: AccountId,
    pub vpc_id: Id,
    pub routes: Vec<Route>,
    /// The one that subnets without another use.
    pub main_association_id: Option<Id>,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub destination: Ipv4Net,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Target {
    Local,
    InternetGateway(Id),
}

impl Route {
    fn gateway_id(&self) -> &str {
        match &self.target {
            Target::Local => "local",
            Target::InternetGateway(id) => id,
        }
    }

    fn origin(&self) -> &'static str {
        if self.target == Target::Local { "CreateRouteTable" } else { "CreateRoute" }
    }
}

impl Route {
    /// All IPv4 traffic that nothing else says more of.
    pub fn everything_to(gateway: &InternetGateway) -> Route {
        Route {
            destination: Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0),
            target: Target::InternetGateway(gateway.internet_gateway_id.clone()),
        }
    }
}

impl RouteTable {
    pub fn new(tx: &Tx<'_>, owner: &AccountId, vpc: &Vpc) -> RouteTable {
        RouteTable {
            route_table_id: tx.new_id(Kind::RouteTable),
            owner: owner.clone(),
            vpc_id: vpc.vpc_id.clone(),
            routes: vec![Route { destination: vpc.cidr, target: Target::Local }],
            main_association_id: None,
            tags: Tags::default(),
        }
    }
}

impl Record for RouteTable {
    const TABLE: &'static str = "route-table";
    const INDEXED: &'static [&'static str] = &["vpc-id"];

    fn id(&self) -> &str {
        &self.route_table_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let main = self.main_association_id.as_ref();
        match name {
            "association.gateway-id"
            | "association.subnet-id"
            | "route.destination-ipv6-cidr-block"
            | "route.destination-prefix-list-id"
            | "route.egress-only-internet-gateway-id"
            | "route.instance-id"
            | "route.nat-gateway-id"
            | "route.transit-gateway-id"
            | "route.vpc-peering-connection-id" => true,
            "association.main" => filter::some(values, main.map(|_| "true")),
            "association.route-table-association-id" => filter::some(values, main.map(|id| id.as_str())),
            "association.route-table-id" => filter::some(values, main.map(|_| self.route_table_id.as_str())),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "route-table-id" => filter::one(values, self.route_table_id.as_str()),
            "route.destination-cidr-block" => {
                filter::many(values, self.routes.iter().map(|route| route.destination.to_string()))
            }
            "route.gateway-id" => filter::many(values, self.routes.iter().map(|route| route.gateway_id())),
            "route.origin" => filter::many(values, self.routes.iter().map(|route| route.origin())),
            "route.state" => filter::one(values, "active"),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            _ => false,
        }
    }
}

pub async fn describe_route_tables(
    context: &Context,
    input: ec2::DescribeRouteTablesRequest,
) -> Result<ec2::DescribeRouteTablesResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.route_table_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "routeTableIds",
    };
    let page = describe::select(&tables.route_tables, Kind::RouteTable, &query, |_| true, |_, _, _| false)?;
    Ok(ec2::DescribeRouteTablesResult {
        route_tables: page.records.iter().map(|table| to_api(table)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(table: &RouteTable) -> ec2::RouteTable {
    ec2::RouteTable {
        route_table_id: Some(table.route_table_id.to_string()),
        owner_id: Some(table.owner.to_string()),
        vpc_id: Some(table.vpc_id.to_string()),
        associations: table
            .main_association_id
            .iter()
            .map(|id| ec2::RouteTableAssociation {
                main: Some(true),
                route_table_association_id: Some(id.to_string()),
                route_table_id: Some(table.route_table_id.to_string()),
                association_state: Some(ec2::RouteTableAssociationState {
                    state: Some("associated".into()),
                    ..Default::default()
                }),
                ..Default::default()
            })
            .collect(),
        routes: table
            .routes
            .iter()
            .map(|route| ec2::Route {
                destination_cidr_block: Some(route.destination.to_string()),
                gateway_id: Some(route.gateway_id().to_owned()),
                origin: Some(route.origin().to_owned()),
                state: Some("active".into()),
                ..Default::default()
            })
            .collect(),
        tags: table.tags.to_api(),
        ..Default::default()
    }
}
