//! CreateRoute, ReplaceRoute, DeleteRoute.

use super::target::Named;
use super::{Destination, Route, RouteTable, Target, local_destinations};
use crate::Context;
use crate::engine::{Tables, Tx, quota};
use crate::prefix_list;
use crate::vpc::{self, Vpc};
use aws_api::ec2;
use datapath::nat64;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{Error, Id, Kind, Result};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// EC2's own services in a VPC: no route may lead their addresses elsewhere (VPC User Guide, "Route tables").
const RESERVED: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 168, 0), 22)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32)),
];

pub(super) fn find(tx: &mut Tx<'_>, id: &str) -> Result<(RouteTable, Arc<Vpc>)> {
    Id::parse(Kind::RouteTable, id)?;
    let table = tx.get::<RouteTable>(id).ok_or_else(|| Id::not_found(Kind::RouteTable, id))?;
    let vpc = vpc::depend(tx, &table.vpc_id)?;
    Ok(((*table).clone(), vpc))
}

pub async fn create_route(
    context: &Context,
    input: ec2::CreateRouteRequest,
) -> Result<ec2::CreateRouteResult> {
    let destination = Destination::parse(
        input.destination_cidr_block.as_deref(),
        input.destination_ipv6_cidr_block.as_deref(),
        input.destination_prefix_list_id.as_deref(),
    )?;
    let named = Named {
        gateway_id: input.gateway_id,
        egress_only_internet_gateway_id: input.egress_only_internet_gateway_id,
        instance_id: input.instance_id,
        network_interface_id: input.network_interface_id,
        nat_gateway_id: input.nat_gateway_id,
        vpc_peering_connection_id: input.vpc_peering_connection_id,
        vpc_endpoint_id: input.vpc_endpoint_id,
        transit_gateway_id: input.transit_gateway_id,
        others: [
            &input.local_gateway_id,
            &input.carrier_gateway_id,
            &input.core_network_arn,
            &input.odb_network_arn,
        ]
        .into_iter()
        .any(Option::is_some),
    };
    let id = input.route_table_id.unwrap_or_default();
    context
        .transact(|tx| {
            let (mut table, vpc) = find(tx, &id)?;
            if table.all_routes(&vpc).any(|route| route.destination == destination) {
                return Err(Error::new(
                    "RouteAlreadyExists",
                    format!("The route identified by {destination} already exists."),
                ));
            }
            if let Some(id) = destination.prefix_list() {
                prefix_list::depend(tx, id)?;
            }
            let target = named.target(tx.tables())?;
            check_destination(tx.tables(), &vpc, &destination, &target)?;
            check_target(tx.tables(), &table, &destination, &target)?;
            tx.quotas().check_within(quota::ROUTES_PER_TABLE, weight(tx.tables(), &table, &destination))?;
            table.routes.push(Route { destination: destination.clone(), target });
            check_edge(tx, &table)?;
            tx.put(&table);
            Ok(())
        })
        .await?;
    Ok(ec2::CreateRouteResult { r#return: Some(true) })
}

pub async fn replace_route(context: &Context, input: ec2::ReplaceRouteRequest) -> Result<()> {
    let destination = Destination::parse(
        input.destination_cidr_block.as_deref(),
        input.destination_ipv6_cidr_block.as_deref(),
        input.destination_prefix_list_id.as_deref(),
    )?;
    let local_target = input.local_target.unwrap_or(false);
    let named = Named {
        // To be local again is a target like another.
        gateway_id: if local_target { Some("local".into()) } else { input.gateway_id },
        egress_only_internet_gateway_id: input.egress_only_internet_gateway_id,
        instance_id: input.instance_id,
        network_interface_id: input.network_interface_id,
        nat_gateway_id: input.nat_gateway_id,
        vpc_peering_connection_id: input.vpc_peering_connection_id,
        vpc_endpoint_id: input.vpc_endpoint_id,
        transit_gateway_id: input.transit_gateway_id,
        others: [
            &input.local_gateway_id,
            &input.carrier_gateway_id,
            &input.core_network_arn,
            &input.odb_network_arn,
        ]
        .into_iter()
        .any(Option::is_some),
    };
    let id = input.route_table_id.unwrap_or_default();
    context
        .transact(|tx| {
            let (mut table, vpc) = find(tx, &id)?;
            if !table.all_routes(&vpc).any(|route| route.destination == destination) {
                return Err(no_route(&destination, &id));
            }
            check_free(&table, &destination, "replace")?;
            let target = named.target(tx.tables())?;
            let is_local = local_destinations(&vpc).any(|local| local == destination);
            match (is_local, &target) {
                (true, Target::Local) => table.routes.retain(|route| route.destination != destination),
                (false, Target::Local) => {
                    return Err(Error::invalid_parameter_value(format!(
                        "The route identified by {destination} is not a local route of the VPC."
                    )));
                }
                (true, _) => {
                    check_inside(&destination, &target)?;
                    check_target(tx.tables(), &table, &destination, &target)?;
                    table.routes.retain(|route| route.destination != destination);
                    table.routes.push(Route { destination: destination.clone(), target });
                }
                (false, _) => {
                    check_destination(tx.tables(), &vpc, &destination, &target)?;
                    check_target(tx.tables(), &table, &destination, &target)?;
                    let mut routes = table.routes.iter_mut();
                    if let Some(route) = routes.find(|route| route.destination == destination) {
                        route.target = target;
                    }
                }
            }
            check_edge(tx, &table)?;
            tx.put(&table);
            Ok(())
        })
        .await
}

pub async fn delete_route(context: &Context, input: ec2::DeleteRouteRequest) -> Result<()> {
    let destination = Destination::parse(
        input.destination_cidr_block.as_deref(),
        input.destination_ipv6_cidr_block.as_deref(),
        input.destination_prefix_list_id.as_deref(),
    )?;
    let id = input.route_table_id.unwrap_or_default();
    context
        .transact(|tx| {
            let (mut table, vpc) = find(tx, &id)?;
            if local_destinations(&vpc).any(|local| local == destination) {
                return Err(Error::invalid_parameter_value(format!(
                    "cannot remove local route {destination} in route table {id}"
                )));
            }
            if table.route_to(&destination).is_none() {
                return Err(no_route(&destination, &id));
            }
            check_free(&table, &destination, "remove")?;
            table.routes.retain(|route| route.destination != destination);
            tx.put(&table);
            Ok(())
        })
        .await
}

/// An endpoint's routes are changed with the endpoint only (PrivateLink Guide, "Gateway endpoints").
fn check_free(table: &RouteTable, destination: &Destination, verb: &str) -> Result<()> {
    match table.route_to(destination) {
        Some(Route { target: Target::VpcEndpoint(_), .. }) => Err(Error::invalid_parameter_value(format!(
            "cannot {verb} VPC endpoint route {destination} in route table {}",
            table.route_table_id
        ))),
        _ => Ok(()),
    }
}

fn no_route(destination: &Destination, id: &str) -> Error {
    Error::new(
        "InvalidRoute.NotFound",
        format!("no route with destination-cidr-block {destination} in route table {id}"),
    )
}

/// How many routes a table has with one more: a prefix list stands for as many as it may have entries.
pub(super) fn weight(tables: &Tables, table: &RouteTable, more: &Destination) -> usize {
    let lists = table.routes.iter().map(|route| &route.destination).chain([more]);
    let of = |id: &Id| prefix_list::max_entries(tables, id);
    lists.map(|destination| destination.prefix_list().map_or(1, of)).sum()
}

/// Whether the VPC's table may say anything of the destination.
fn check_destination(tables: &Tables, vpc: &Vpc, destination: &Destination, target: &Target) -> Result<()> {
    let Destination::Cidr(cidr) = destination else { return Ok(()) };
    if RESERVED.iter().any(|reserved| reserved.contains(cidr)) {
        return Err(Error::invalid_parameter_value(format!(
            "The destination CIDR block {cidr} is reserved for services of the VPC."
        )));
    }
    let holds = |local: Destination| matches!(local, Destination::Cidr(local) if local.contains(cidr));
    if !local_destinations(vpc).any(holds) {
        return Ok(());
    }
    check_inside(destination, target)?;
    let mut subnets = tables.subnets.with("vpc-id", &vpc.vpc_id);
    let is_subnet = subnets.any(|subnet| subnet.networks().any(|net| net == *cidr));
    if !is_subnet {
        return Err(Error::invalid_parameter_value(format!(
            "The destination CIDR block {cidr} is more specific than one of this VPC's CIDR blocks. It must be the CIDR block of a subnet."
        )));
    }
    Ok(())
}

/// Traffic within a VPC can be led through a machine, and nowhere else.
fn check_inside(destination: &Destination, target: &Target) -> Result<()> {
    match target {
        Target::NetworkInterface(_) | Target::NatGateway(_) => Ok(()),
        _ => Err(Error::invalid_parameter_value(format!(
            "The destination CIDR block {destination} is equal to or more specific than one of this VPC's CIDR blocks. This route can target only an interface, an instance or a NAT gateway."
        ))),
    }
}

/// An internet gateway's table leads what is for the VPC or one of its subnets to a network interface, and nothing else
/// (VPC User Guide, "Gateway route tables").
pub(super) fn check_edge(tx: &Tx<'_>, table: &RouteTable) -> Result<()> {
    if !table.associations.iter().any(|of| of.gateway_id().is_some()) {
        return Ok(());
    }
    let vpc = tx.tables().vpcs.find(&table.vpc_id);
    let inside: Vec<Destination> = vpc.into_iter().flat_map(|vpc| local_destinations(vpc)).collect();
    let is_inside = |destination: &Destination| {
        let holds = |net: &Destination| Some(net.cidr()?.contains(&destination.cidr()?));
        inside.iter().any(|net| holds(net) == Some(true))
    };
    let leads_well =
        |route: &Route| matches!(route.target, Target::NetworkInterface(_)) && is_inside(&route.destination);
    match table.routes.iter().find(|route| !leads_well(route)) {
        Some(Route { destination, .. }) => Err(Error::invalid_parameter_value(format!(
            "The route identified by {destination} can't be in route table {}, which is a gateway's: that leads what is for the VPC or one of its subnets to a network interface only.",
            table.route_table_id
        ))),
        None => Ok(()),
    }
}

fn is_ipv6(tables: &Tables, destination: &Destination) -> bool {
    match destination {
        Destination::Cidr(cidr) => matches!(cidr, IpNet::V6(_)),
        Destination::PrefixList(id) => tables.prefix_lists.find(id).is_some_and(|list| list.ipv6),
    }
}

/// Whether the target is one for this table and this destination.
fn check_target(
    tables: &Tables,
    table: &RouteTable,
    destination: &Destination,
    target: &Target,
) -> Result<()> {
    let (id, table_id) = (target.id(), &table.route_table_id);
    let belongs = target.is_of(tables, &table.vpc_id);
    let what = match target {
        Target::Local => {
            return Err(Error::invalid_parameter_value(format!(
                "The route identified by {destination} can't be local: it is none of the VPC's CIDR blocks."
            )));
        }
        Target::InternetGateway(_) => "network gateway",
        Target::EgressOnlyInternetGateway(_) => {
            if !is_ipv6(tables, destination) {
                return Err(Error::invalid_parameter_value(format!(
                    "The egress only internet gateway {id} can be the target of IPv6 destinations only."
                )));
            }
            "egress only internet gateway"
        }
        Target::NatGateway(_) => {
            let is_translated = |cidr| matches!(cidr, IpNet::V6(cidr) if nat64::PREFIX.contains(&cidr));
            if is_ipv6(tables, destination) && !destination.cidr().is_some_and(is_translated) {
                return Err(Error::invalid_parameter_value(format!(
                    "The NAT gateway {id} can be the target of IPv4 destinations and of {} only.",
                    nat64::PREFIX
                )));
            }
            "NAT gateway"
        }
        Target::VpcEndpoint(_) => "VPC endpoint",
        Target::VpcPeeringConnection(_) => "VPC peering connection",
        Target::NetworkInterface(_) => "interface",
    };
    if !belongs {
        return Err(Error::invalid_parameter_value(format!(
            "route table {table_id} and {what} {id} belong to different networks"
        )));
    }
    Ok(())
}
