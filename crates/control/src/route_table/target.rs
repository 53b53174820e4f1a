//! Where a route leads.

use crate::egress_only_internet_gateway as egress_only;
use crate::engine::Tables;
use crate::engine::unsupported::{given, refuse};
use crate::internet_gateway;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Target {
    Local,
    InternetGateway(Id),
    EgressOnlyInternetGateway(Id),
    NatGateway(Id),
    VpcPeeringConnection(Id),
    /// A gateway endpoint: set and taken away with it alone.
    VpcEndpoint(Id),
    /// Whatever instance it is attached to forwards what comes.
    NetworkInterface(Id),
}

/// The targets that a request may name; CreateRoute's and ReplaceRoute's are the same.
#[derive(Default)]
pub struct Named {
    pub gateway_id: Option<String>,
    pub egress_only_internet_gateway_id: Option<String>,
    pub instance_id: Option<String>,
    pub network_interface_id: Option<String>,
    pub nat_gateway_id: Option<String>,
    pub vpc_peering_connection_id: Option<String>,
    pub vpc_endpoint_id: Option<String>,
    pub transit_gateway_id: Option<String>,
    pub others: bool,
}

impl Named {
    /// The one target that is named.
    pub fn target(&self, tables: &Tables) -> Result<Target> {
        refuse([
            (given(&self.transit_gateway_id), "Transit gateways are"),
            (given(&self.vpc_endpoint_id), "Gateway Load Balancer endpoints are"),
            (self.others, "Local and carrier gateways, core networks and ODB networks are"),
        ])?;
        let named = [
            (&self.gateway_id, Target::gateway as fn(&str, &Tables) -> Result<Target>),
            (&self.egress_only_internet_gateway_id, Target::egress_only),
            (&self.instance_id, Target::instance),
            (&self.network_interface_id, Target::interface),
            (&self.nat_gateway_id, Target::nat_gateway),
            (&self.vpc_peering_connection_id, Target::peering),
        ];
        let mut named = named.iter().filter_map(|(id, target)| Some((id.as_deref()?, target)));
        match (named.find(|(id, _)| !id.is_empty()), named.any(|(id, _)| !id.is_empty())) {
            (Some((id, target)), false) => target(id, tables),
            (Some(_), true) => {
                Err(Error::invalid_parameter_combination("Exactly one target of the route must be given"))
            }
            (None, _) => Err(Error::missing_parameter("gatewayId")),
        }
    }
}

pub(super) fn no_gateway(id: &str) -> Error {
    Error::new("InvalidGatewayID.NotFound", format!("The gateway ID '{id}' does not exist"))
}

impl Target {
    fn gateway(id: &str, tables: &Tables) -> Result<Target> {
        if id == "local" {
            return Ok(Target::Local);
        }
        let gateway = tables.internet_gateways.find(id).ok_or_else(|| no_gateway(id))?;
        Ok(Target::InternetGateway(gateway.internet_gateway_id.clone()))
    }

    fn egress_only(id: &str, tables: &Tables) -> Result<Target> {
        let id = Id::parse(Kind::EgressOnlyInternetGateway, id)?;
        match tables.egress_only_internet_gateways.contains(&id) {
            true => Ok(Target::EgressOnlyInternetGateway(id)),
            false => Err(no_gateway(&id)),
        }
    }

    fn nat_gateway(id: &str, tables: &Tables) -> Result<Target> {
        let id = Id::parse(Kind::NatGateway, id)?;
        match tables.nat_gateways.find(&id).filter(|gateway| gateway.deleted_at.is_none()) {
            Some(_) => Ok(Target::NatGateway(id)),
            None => Err(Id::not_found(Kind::NatGateway, &id)),
        }
    }

    fn interface(id: &str, tables: &Tables) -> Result<Target> {
        let id = Id::parse(Kind::NetworkInterface, id)?;
        match tables.network_interfaces.contains(&id) {
            true => Ok(Target::NetworkInterface(id)),
            false => Err(Id::not_found(Kind::NetworkInterface, &id)),
        }
    }

    fn peering(id: &str, tables: &Tables) -> Result<Target> {
        let id = Id::parse(Kind::VpcPeeringConnection, id)?;
        match tables.vpc_peering_connections.find(&id).filter(|peering| peering.is_active()) {
            Some(_) => Ok(Target::VpcPeeringConnection(id)),
            None => Err(Id::not_found(Kind::VpcPeeringConnection, &id)),
        }
    }

    /// An instance stands for its one interface.
    fn instance(id: &str, tables: &Tables) -> Result<Target> {
        let id = Id::parse(Kind::Instance, id)?;
        tables.instances.find(&id).ok_or_else(|| Id::not_found(Kind::Instance, &id))?;
        let mut interfaces = tables.network_interfaces.with("attachment.instance-id", &id);
        match (interfaces.next(), interfaces.next()) {
            (Some(one), None) => Ok(Target::NetworkInterface(one.interface_id.clone())),
            (None, _) => Err(Error::new(
                "InvalidInstanceID",
                format!("There are no interfaces attached to instance '{id}'."),
            )),
            (Some(_), Some(_)) => Err(Error::new(
                "InvalidInstanceID",
                format!(
                    "There are multiple interfaces attached to instance '{id}'. Please specify an interface ID for the operation instead."
                ),
            )),
        }
    }

    /// Whether it is in the VPC, or at its edge.
    pub fn is_of(&self, tables: &Tables, vpc_id: &Id) -> bool {
        let of = match self {
            Target::Local => None,
            Target::InternetGateway(id) => {
                tables.internet_gateways.find(id).and_then(|gateway| gateway.vpc_id.as_ref())
            }
            Target::EgressOnlyInternetGateway(id) => {
                tables.egress_only_internet_gateways.find(id).map(|gateway| &gateway.vpc_id)
            }
            Target::NatGateway(id) => tables.nat_gateways.find(id).map(|gateway| &gateway.vpc_id),
            Target::NetworkInterface(id) => tables.network_interfaces.find(id).map(|one| &one.vpc_id),
            Target::VpcEndpoint(id) => tables.vpc_endpoints.find(id).map(|endpoint| &endpoint.vpc_id),
            Target::VpcPeeringConnection(id) => {
                let peering = tables.vpc_peering_connections.find(id);
                return peering.is_some_and(|of| [&of.requester, &of.accepter].contains(&vpc_id));
            }
        };
        of == Some(vpc_id)
    }

    /// As EC2's messages and the data path know it.
    pub fn id(&self) -> &str {
        match self {
            Target::Local => "local",
            Target::InternetGateway(id)
            | Target::EgressOnlyInternetGateway(id)
            | Target::NatGateway(id)
            | Target::VpcPeeringConnection(id)
            | Target::VpcEndpoint(id)
            | Target::NetworkInterface(id) => id,
        }
    }

    /// Where packets of the VPC go by it. Local routes are the VPC's own affair: they go without saying.
    pub fn desired(&self, tables: &Tables, vpc_id: &str) -> Option<datapath::Target> {
        let alive = match self {
            Target::Local => return None,
            Target::InternetGateway(id) => internet_gateway::of_vpc(tables, vpc_id)
                .filter(|gateway| gateway.internet_gateway_id == *id)
                .map(|_| datapath::Target::InternetGateway),
            Target::EgressOnlyInternetGateway(id) => egress_only::of_vpc(tables, vpc_id)
                .filter(|gateway| gateway.gateway_id == *id)
                .map(|_| datapath::Target::EgressOnlyInternetGateway),
            Target::NatGateway(id) => tables
                .nat_gateways
                .find(id)
                .filter(|gateway| gateway.deleted_at.is_none())
                .map(|_| datapath::Target::NatGateway(id.clone())),
            Target::VpcPeeringConnection(id) => tables
                .vpc_peering_connections
                .find(id)
                .filter(|peering| peering.is_active())
                .map(|_| datapath::Target::Peering(id.clone())),
            Target::VpcEndpoint(id) => {
                tables.vpc_endpoints.find(id).map(|_| datapath::Target::Endpoint(id.clone()))
            }
            Target::NetworkInterface(id) => tables
                .network_interfaces
                .find(id)
                .filter(|interface| interface.attachment.is_some())
                .map(|_| datapath::Target::Interface(id.clone())),
        };
        Some(alive.unwrap_or(datapath::Target::Blackhole))
    }

    /// Shows it in a route; false where it is gone.
    pub fn show(&self, tables: &Tables, vpc_id: &str, route: &mut ec2::Route) -> bool {
        let id = Some(self.id().to_owned());
        match self {
            Target::Local | Target::InternetGateway(_) | Target::VpcEndpoint(_) => route.gateway_id = id,
            Target::EgressOnlyInternetGateway(_) => route.egress_only_internet_gateway_id = id,
            Target::NatGateway(_) => route.nat_gateway_id = id,
            Target::VpcPeeringConnection(_) => route.vpc_peering_connection_id = id,
            Target::NetworkInterface(interface_id) => {
                route.network_interface_id = id;
                let interface = tables.network_interfaces.find(interface_id);
                let attachment = interface.and_then(|interface| interface.attachment.as_ref());
                route.instance_id = attachment.map(|attachment| attachment.instance_id.to_string());
                route.instance_owner_id =
                    interface.filter(|_| attachment.is_some()).map(|interface| interface.owner.to_string());
            }
        }
        self.desired(tables, vpc_id) != Some(datapath::Target::Blackhole)
    }
}
