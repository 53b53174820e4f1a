//! Which packet is meant by two places, addresses and ports, and whether it arrived.

use super::ground::{Records, told};
use super::{FlowProtocol, NetworkInsightsPath};
use crate::engine::Tables;
use crate::network_interface::NetworkInterface;
use datapath::trace::{self, ECHO, End, Packet, Payload, Place, Source, Trace};
use model::{Error, Id, Kind, Result};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Where no source port is asked about: one that every system chooses from (RFC 6056).
const EPHEMERAL: u16 = 49_152;
const DESTINATION_PORT: u16 = 80;
/// Somebody on the internet, where nobody in particular is asked about (RFC 5737).
const SOMEBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// What a flow begins or ends at.
#[derive(Clone, Debug)]
pub enum Stop {
    Interface(Arc<NetworkInterface>),
    /// Of this VPC.
    InternetGateway(Option<Id>),
    Address(Ipv4Addr),
}

impl Stop {
    /// By the id of an instance, an interface or an internet gateway.
    pub fn find(tables: &Tables, id: &str) -> Result<Stop> {
        match Id::kind_of(id) {
            Some(Kind::Instance) => {
                let instance = tables.instances.find(id).ok_or_else(|| Id::not_found(Kind::Instance, id))?;
                let primary = instance.primary_interface(tables).cloned();
                primary.map(Stop::Interface).ok_or_else(|| Id::not_found(Kind::Instance, id))
            }
            Some(Kind::NetworkInterface) => {
                let interface = tables.network_interfaces.find(id).cloned();
                interface.map(Stop::Interface).ok_or_else(|| Id::not_found(Kind::NetworkInterface, id))
            }
            Some(Kind::InternetGateway) => match tables.internet_gateways.find(id) {
                Some(gateway) => Ok(Stop::InternetGateway(gateway.vpc_id.clone())),
                None => Err(Id::not_found(Kind::InternetGateway, id)),
            },
            _ => Err(Error::invalid_parameter_value(format!(
                "Value ({id}) is invalid. It must be the id of an instance, a network interface or an internet gateway."
            ))),
        }
    }
}

/// A question, complete.
pub struct Flow {
    pub source: Stop,
    pub destination: Stop,
    pub packet: Packet,
}

impl Flow {
    pub fn of(tables: &Tables, path: &NetworkInsightsPath) -> Result<Flow> {
        let source = Stop::find(tables, &path.source)?;
        let named = path.destination.as_deref().map(|id| Stop::find(tables, id)).transpose()?;
        let destination = match (named, path.destination_ip) {
            (Some(stop), _) => stop,
            (None, Some(address)) => Stop::Address(address),
            (None, None) => return Err(Error::missing_parameter("destination")),
        };
        let ports = (path.source_port, path.destination_port);
        Ok(Flow::new(source, destination, (path.source_ip, path.destination_ip), path.protocol, ports))
    }

    pub fn new(
        source: Stop,
        destination: Stop,
        (source_ip, destination_ip): (Option<Ipv4Addr>, Option<Ipv4Addr>),
        protocol: FlowProtocol,
        (source_port, destination_port): (Option<u16>, Option<u16>),
    ) -> Flow {
        let is_from_outside = !matches!(source, Stop::Interface(_));
        let source_ip = source_ip.unwrap_or(match &source {
            Stop::Interface(interface) => interface.private_ip(),
            Stop::Address(address) => *address,
            Stop::InternetGateway(_) => SOMEBODY,
        });
        let destination_ip = destination_ip.unwrap_or(match &destination {
            Stop::Interface(interface) if is_from_outside => {
                interface.public_ip().unwrap_or(interface.private_ip())
            }
            Stop::Interface(interface) => interface.private_ip(),
            Stop::Address(address) => *address,
            Stop::InternetGateway(_) => SOMEBODY,
        });
        let source_port = source_port.unwrap_or(EPHEMERAL);
        let destination_port = destination_port.unwrap_or(DESTINATION_PORT);
        let payload = match protocol {
            FlowProtocol::Tcp => Payload::Tcp { source_port, destination_port },
            FlowProtocol::Udp => Payload::Udp { source_port, destination_port },
            FlowProtocol::Icmp => ECHO,
        };
        Flow {
            source,
            destination,
            packet: Packet { source: source_ip, destination: destination_ip, payload },
        }
    }

    /// Follows it; also whether it ends where it was to.
    pub fn follow(&self, records: &Records<'_>) -> (Trace, bool) {
        let interface = match &self.source {
            Stop::Interface(interface) => Some(told(interface)),
            Stop::InternetGateway(_) | Stop::Address(_) => None,
        };
        let source = interface.as_ref().map_or(Source::Internet, Source::Interface);
        let trace = trace::trace(records, source, self.packet);
        let ends = match (&self.destination, &trace.forward.end) {
            (Stop::Interface(wanted), End::Arrives(Place::Interface(id))) => wanted.interface_id == *id,
            (Stop::InternetGateway(_), End::Arrives(Place::Internet)) => true,
            (Stop::Address(_), End::Arrives(_)) => true,
            _ => false,
        };
        let passes_gateways = [&self.source, &self.destination].into_iter().all(|stop| match stop {
            Stop::InternetGateway(vpc_id) => crosses(&trace, vpc_id.as_ref()),
            Stop::Interface(_) | Stop::Address(_) => true,
        });
        (trace, ends && passes_gateways)
    }
}

/// Whether it goes by the internet gateway of the VPC.
fn crosses(trace: &Trace, vpc_id: Option<&Id>) -> bool {
    let mut gateways = trace.forward.hops.iter().filter(|hop| hop.place == Place::InternetGateway);
    gateways.any(|hop| vpc_id.is_some() && hop.vpc_id.as_ref() == vpc_id)
}
