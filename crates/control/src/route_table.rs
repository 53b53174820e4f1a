//! Route tables: the record, which table a subnet uses, and how one is described.
//!
//! The local routes are the VPC's CIDR blocks, which every table has: they are not kept in it. One that was given another
//! target is kept as a route like any other, and stands in their place.

use crate::Context;
use crate::cidr;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, Tx, filter};
use crate::internet_gateway::InternetGateway;
use crate::vpc::Vpc;
use aws_api::ec2;
use ipnet::{IpNet, Ipv4Net};
use model::{AccountId, Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

pub mod association;
pub mod create;
pub mod endpoint;
pub mod propagation;
pub mod route;
mod target;

pub use target::Target;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteTable {
    pub route_table_id: Id,
    pub owner: AccountId,
    pub vpc_id: Id,
    pub routes: Vec<Route>,
    /// The one that subnets without another use.
    pub main_association_id: Option<Id>,
    #[serde(default)]
    pub associations: Vec<Association>,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub destination: Destination,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Destination {
    Cidr(IpNet),
    /// All ranges of a prefix list.
    PrefixList(Id),
}

/// Of a subnet, or an internet gateway, that uses the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Association {
    pub association_id: Id,
    #[serde(alias = "subnet_id")]
    pub user_id: Id,
}

impl Association {
    fn subnet_id(&self) -> Option<&Id> {
        Some(&self.user_id).filter(|id| Id::is_of(Kind::Subnet, id))
    }

    fn gateway_id(&self) -> Option<&Id> {
        Some(&self.user_id).filter(|id| Id::is_of(Kind::InternetGateway, id))
    }
}

impl Destination {
    pub fn parse(ipv4: Option<&str>, ipv6: Option<&str>, prefix_list: Option<&str>) -> Result<Destination> {
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        match (given(ipv4), given(ipv6), given(prefix_list)) {
            (Some(text), None, None) => {
                Ok(Destination::Cidr(cidr::ipv4("destinationCidrBlock", &text)?.into()))
            }
            (None, Some(text), None) => {
                Ok(Destination::Cidr(cidr::ipv6("destinationIpv6CidrBlock", &text)?.into()))
            }
            (None, None, Some(id)) => Ok(Destination::PrefixList(Id::parse(Kind::PrefixList, &id)?)),
            (None, None, None) => Err(Error::missing_parameter("destinationCidrBlock")),
            _ => Err(Error::invalid_parameter_combination(
                "Exactly one of destinationCidrBlock, destinationIpv6CidrBlock and destinationPrefixListId must be given",
            )),
        }
    }

    pub fn cidr(&self) -> Option<IpNet> {
        if let Destination::Cidr(cidr) = self { Some(*cidr) } else { None }
    }

    fn prefix_list(&self) -> Option<&Id> {
        if let Destination::PrefixList(id) = self { Some(id) } else { None }
    }

    fn ipv4(&self) -> Option<String> {
        matches!(self, Destination::Cidr(IpNet::V4(_))).then(|| self.to_string())
    }

    fn ipv6(&self) -> Option<String> {
        matches!(self, Destination::Cidr(IpNet::V6(_))).then(|| self.to_string())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Cidr(cidr) => cidr.fmt(f),
            Destination::PrefixList(id) => id.fmt(f),
        }
    }
}

impl Route {
    /// All IPv4 traffic that nothing else says more of.
    pub fn everything_to(gateway: &InternetGateway) -> Route {
        Route {
            destination: Destination::Cidr(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into()),
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
            routes: Vec::new(),
            main_association_id: None,
            associations: Vec::new(),
            tags: Tags::default(),
        }
    }

    /// All its routes, the local ones first.
    pub fn all_routes(&self, vpc: &Vpc) -> impl Iterator<Item = Route> + use<'_> {
        let local: Vec<Route> = local_destinations(vpc)
            .filter(|destination| self.route_to(destination).is_none())
            .map(|destination| Route { destination, target: Target::Local })
            .collect();
        local.into_iter().chain(self.routes.iter().cloned())
    }

    fn route_to(&self, destination: &Destination) -> Option<&Route> {
        self.routes.iter().find(|route| route.destination == *destination)
    }
}

pub fn local_destinations(vpc: &Vpc) -> impl Iterator<Item = Destination> {
    let ipv4 = vpc.cidrs().map(|(_, cidr)| IpNet::V4(cidr));
    ipv4.chain(vpc.ipv6_cidrs().map(IpNet::V6)).map(Destination::Cidr)
}

/// A local route that was given another target goes with the block of the VPC that it was for.
pub fn forget_local(tx: &mut Tx<'_>, vpc_id: &str, block: IpNet) {
    let destination = Destination::Cidr(block);
    let has = |table: &&Arc<RouteTable>| table.route_to(&destination).is_some();
    for table in tx.tables().route_tables.with("vpc-id", vpc_id).filter(has) {
        if let Some(table) = tx.get::<RouteTable>(&table.route_table_id) {
            let mut table = (*table).clone();
            table.routes.retain(|route| route.destination != destination);
            tx.put(&table);
        }
    }
}

/// The table that a subnet of the VPC uses: its own, else the main one.
pub fn of_subnet<'t>(tables: &'t Tables, subnet_id: &str, vpc_id: &str) -> Option<&'t Arc<RouteTable>> {
    let own = tables.route_tables.with(BY_SUBNET, subnet_id).next();
    own.or_else(|| main(tables, vpc_id))
}

pub fn main<'t>(tables: &'t Tables, vpc_id: &str) -> Option<&'t Arc<RouteTable>> {
    tables.route_tables.with("vpc-id", vpc_id).find(|table| table.main_association_id.is_some())
}

/// The table of an internet gateway: it leads what enters within the VPC.
pub fn of_gateway<'t>(tables: &'t Tables, gateway_id: &str) -> Option<&'t Arc<RouteTable>> {
    tables.route_tables.with(BY_GATEWAY, gateway_id).next()
}

/// The tables with a route to a network interface, or to a gateway endpoint.
pub fn leading_to<'t>(tables: &'t Tables, id: &str) -> impl Iterator<Item = &'t Arc<RouteTable>> {
    tables.route_tables.with(BY_TARGET, id)
}

/// The tables with a route to the ranges of a prefix list.
pub fn leading_by<'t>(tables: &'t Tables, id: &str) -> impl Iterator<Item = &'t Arc<RouteTable>> {
    tables.route_tables.with(BY_PREFIX_LIST, id)
}

/// The field with the prefix lists of routes. Ours, as EC2's is answered with the routes.
const BY_PREFIX_LIST: &str = "cumulet:route-prefix-list";
/// The field with the targets of routes that come and go without the VPC. Ours: EC2 has one for each kind of target.
const BY_TARGET: &str = "cumulet:route-target";
const BY_SUBNET: &str = "association.subnet-id";
const BY_GATEWAY: &str = "association.gateway-id";
const BY_ASSOCIATION: &str = "association.route-table-association-id";

impl Record for RouteTable {
    const TABLE: &'static str = "route-table";
    const INDEXED: &'static [&'static str] =
        &["vpc-id", BY_SUBNET, BY_GATEWAY, BY_ASSOCIATION, BY_TARGET, BY_PREFIX_LIST];

    fn id(&self) -> &str {
        &self.route_table_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let associations = || {
            let others = self.associations.iter().map(|of| (&of.association_id, "false"));
            self.main_association_id.iter().map(|id| (id, "true")).chain(others)
        };
        match name {
            BY_PREFIX_LIST => {
                let lists = self.routes.iter().filter_map(|route| route.destination.prefix_list());
                filter::many(values, lists.map(|id| id.as_str()))
            }
            BY_TARGET => filter::many(values, self.routes.iter().map(|route| route.target.id())),
            BY_SUBNET => {
                filter::many(values, self.associations.iter().filter_map(|of| Some(of.subnet_id()?.as_str())))
            }
            BY_GATEWAY => filter::many(
                values,
                self.associations.iter().filter_map(|of| Some(of.gateway_id()?.as_str())),
            ),
            "association.main" => filter::many(values, associations().map(|(_, main)| main)),
            BY_ASSOCIATION => filter::many(values, associations().map(|(id, _)| id.as_str())),
            "association.route-table-id" => {
                filter::some(values, associations().next().map(|_| self.route_table_id.as_str()))
            }
            "owner-id" => filter::one(values, self.owner.as_str()),
            "route-table-id" => filter::one(values, self.route_table_id.as_str()),
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
    let of_routes = |table: &RouteTable, name: &str, values: &mut Values<'_>| {
        let Some(name) = name.strip_prefix("route.") else { return false };
        route_field(&routes_to_api(table, &tables), name, values)
    };
    let page = describe::select(&tables.route_tables, Kind::RouteTable, &query, |_| true, of_routes)?;
    Ok(ec2::DescribeRouteTablesResult {
        route_tables: page.records.iter().map(|table| to_api(table, &tables)).collect(),
        next_token: page.next_token,
    })
}

fn route_field(routes: &[ec2::Route], name: &str, values: &mut Values<'_>) -> bool {
    let field: fn(&ec2::Route) -> &Option<String> = match name {
        "destination-cidr-block" => |route| &route.destination_cidr_block,
        "destination-ipv6-cidr-block" => |route| &route.destination_ipv6_cidr_block,
        "destination-prefix-list-id" => |route| &route.destination_prefix_list_id,
        "egress-only-internet-gateway-id" => |route| &route.egress_only_internet_gateway_id,
        "gateway-id" => |route| &route.gateway_id,
        "instance-id" => |route| &route.instance_id,
        "nat-gateway-id" => |route| &route.nat_gateway_id,
        "transit-gateway-id" => |route| &route.transit_gateway_id,
        "vpc-peering-connection-id" => |route| &route.vpc_peering_connection_id,
        "origin" => |route| &route.origin,
        "state" => |route| &route.state,
        _ => return false,
    };
    filter::many(values, routes.iter().filter_map(|route| field(route).clone()))
}

fn routes_to_api(table: &RouteTable, tables: &Tables) -> Vec<ec2::Route> {
    // A table does not outlive its VPC.
    let Some(vpc) = tables.vpcs.find(&table.vpc_id) else { return Vec::new() };
    let to_api = |route: Route| {
        let local = local_destinations(vpc).any(|destination| destination == route.destination);
        let mut shown = ec2::Route {
            destination_cidr_block: route.destination.ipv4(),
            destination_ipv6_cidr_block: route.destination.ipv6(),
            destination_prefix_list_id: route.destination.prefix_list().map(Id::to_string),
            origin: Some(if local { "CreateRouteTable" } else { "CreateRoute" }.to_owned()),
            ..Default::default()
        };
        let alive = route.target.show(tables, &table.vpc_id, &mut shown);
        shown.state = Some(if alive { "active" } else { "blackhole" }.to_owned());
        shown
    };
    table.all_routes(vpc).map(to_api).collect()
}

fn to_api(table: &RouteTable, tables: &Tables) -> ec2::RouteTable {
    let association = |id: &Id, of: Option<&Association>| ec2::RouteTableAssociation {
        main: Some(of.is_none()),
        route_table_association_id: Some(id.to_string()),
        route_table_id: Some(table.route_table_id.to_string()),
        subnet_id: of.and_then(Association::subnet_id).map(Id::to_string),
        gateway_id: of.and_then(Association::gateway_id).map(Id::to_string),
        association_state: Some(association::in_state("associated")),
        ..Default::default()
    };
    let main = table.main_association_id.iter().map(|id| association(id, None));
    let others = table.associations.iter().map(|of| association(&of.association_id, Some(of)));
    ec2::RouteTable {
        route_table_id: Some(table.route_table_id.to_string()),
        owner_id: Some(table.owner.to_string()),
        vpc_id: Some(table.vpc_id.to_string()),
        associations: main.chain(others).collect(),
        routes: routes_to_api(table, tables),
        tags: table.tags.to_api(),
        ..Default::default()
    }
}
