//! Which packet is meant by two places, addresses and ports, and whether it arrived.

use super::ground::{Records, told};
use super::{FlowProtocol, Header, NetworkInsightsPath};
use crate::engine::Tables;
use crate::network_interface::NetworkInterface;
use datapath::trace::{self, ECHO, ECHO6, End, Packet, Payload, Place, Source, Trace};
use model::{Error, Id, Kind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Where no source port is asked about: one that every system chooses from (RFC 6056).
const EPHEMERAL: u16 = 49_152;
const DESTINATION_PORT: u16 = 80;
/// Somebody on the internet, where nobody in particular is asked about (RFC 5737).
const SOMEBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The same of IPv6 (RFC 3849).
const SOMEBODY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// What a flow begins or ends at.
#[derive(Clone, Debug)]
pub enum Stop {
    Interface(Arc<NetworkInterface>),
    /// Of this VPC.
    InternetGateway(Option<Id>),
    Address(IpAddr),
    /// Somebody outside of the cloud.
    Internet,
}

impl Stop {
    /// By the id or the ARN of an instance, an interface or an internet gateway.
    pub fn find(tables: &Tables, named: &str) -> Result<Stop> {
        let id = component(named);
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
                "Value ({named}) is invalid. It must be the id of an instance, a network interface or an internet gateway."
            ))),
        }
    }
}

/// The id in an ARN, or what is one.
pub fn component(named: &str) -> &str {
    match named.starts_with("arn:") {
        true => named.rsplit_once('/').map_or(named, |(_, id)| id),
        false => named,
    }
}

/// A question, as far as it is asked.
pub struct Asked {
    pub source: Stop,
    pub destination: Stop,
    /// As it is sent.
    pub header: Header,
    pub protocol: FlowProtocol,
    /// Type and code of a control message.
    pub icmp: (Option<u8>, Option<u8>),
    /// Where no address says so, and there is a choice.
    pub ipv6: bool,
}

/// A question, complete.
pub struct Flow {
    source: Stop,
    destination: Stop,
    packet: Packet,
    /// What it must be where it arrives.
    arriving: Header,
}

impl Flow {
    pub fn of(tables: &Tables, path: &NetworkInsightsPath) -> Result<Flow> {
        let source = Stop::find(tables, &path.source)?;
        let named = path.destination.as_deref().map(|id| Stop::find(tables, id)).transpose()?;
        let arriving = path.at_destination.unwrap_or_default();
        let destination = match (named, path.destination_ip.or(arriving.destination_ip)) {
            (Some(stop), _) => stop,
            (None, Some(address)) => Stop::Address(address),
            (None, None) => return Err(Error::missing_parameter("destination")),
        };
        // Nothing on the way changes ports.
        let header = Header {
            source_port: path.source_port.or(arriving.source_port),
            destination_port: path.destination_port.or(arriving.destination_port),
            ..path.sent()
        };
        let (protocol, icmp) = (path.protocol, (None, None));
        let asked = Asked { source, destination, header, protocol, icmp, ipv6: false };
        Ok(Flow { arriving, ..Flow::new(asked, arriving.destination_ip) })
    }

    /// `inside` is which of the destination's private addresses is meant.
    pub fn new(asked: Asked, inside: Option<IpAddr>) -> Flow {
        let Asked { source, destination, header, protocol, icmp, ipv6 } = asked;
        let named = [&source, &destination].map(|stop| match stop {
            Stop::Address(address) => Some(*address),
            _ => None,
        });
        // Who has no address of IPv4 can be asked about over IPv6 only.
        let has_ipv4 = |stop: &Stop| !matches!(stop, Stop::Interface(of) if of.private_ip().is_none());
        let ipv6 = ipv6 || !has_ipv4(&source) || !has_ipv4(&destination);
        let given = [header.source_ip, header.destination_ip, named[0], named[1]];
        let ipv6 = given.into_iter().flatten().next().map_or(ipv6, |address| address.is_ipv6());
        let is_from_outside = !matches!(source, Stop::Interface(_));
        let packet = Packet {
            source: header.source_ip.unwrap_or_else(|| source.address(ipv6, false, None)),
            destination: header
                .destination_ip
                .unwrap_or_else(|| destination.address(ipv6, is_from_outside, inside)),
            payload: payload(protocol, icmp, ipv6, &header),
        };
        Flow::with(source, destination, packet)
    }

    /// Whether both ends have an address of the family that the flow is of.
    pub fn check_family(&self) -> Result<()> {
        let ends = [(&self.source, self.packet.source), (&self.destination, self.packet.destination)];
        for (stop, address) in ends {
            if let (Stop::Interface(interface), true) = (stop, address.is_unspecified()) {
                let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
                let message = format!("{} has no {family} address.", interface.interface_id);
                return Err(Error::invalid_parameter_value(message));
            }
        }
        Ok(())
    }

    pub fn with(source: Stop, destination: Stop, packet: Packet) -> Flow {
        Flow { source, destination, packet, arriving: Header::default() }
    }

    /// Follows it; also whether it ends where it was to.
    pub fn follow(&self, records: &Records<'_>) -> (Trace, bool) {
        let interface = match &self.source {
            Stop::Interface(interface) => Some(told(interface)),
            Stop::InternetGateway(_) | Stop::Address(_) | Stop::Internet => None,
        };
        let source = interface.as_ref().map_or(Source::Internet, Source::Interface);
        let trace = trace::trace(records, source, self.packet);
        let ends = match (&self.destination, &trace.forward.end) {
            (Stop::Interface(wanted), End::Arrives(Place::Interface(id))) => wanted.interface_id == *id,
            (Stop::InternetGateway(_) | Stop::Internet, End::Arrives(Place::Internet)) => true,
            (Stop::Address(_), End::Arrives(_)) => true,
            _ => false,
        };
        let passes_gateways = [&self.source, &self.destination].into_iter().all(|stop| match stop {
            Stop::InternetGateway(vpc_id) => crosses(&trace, vpc_id.as_ref()),
            Stop::Interface(_) | Stop::Address(_) | Stop::Internet => true,
        });
        let last = trace.forward.hops.last();
        let is_as_asked = last.is_none_or(|hop| self.arriving.is_of(&hop.packet));
        (trace, ends && passes_gateways && is_as_asked)
    }
}

impl Stop {
    /// Where it speaks from or is spoken to, as somebody outside knows it or by a private address.
    fn address(&self, ipv6: bool, from_outside: bool, inside: Option<IpAddr>) -> IpAddr {
        match self {
            Stop::Interface(interface) if ipv6 => {
                let first = interface.ipv6.prefixes.first().map(|prefix| prefix.network());
                interface.ipv6.addresses.first().copied().or(first).unwrap_or(Ipv6Addr::UNSPECIFIED).into()
            }
            Stop::Interface(interface) => {
                let first = interface.private_ip().unwrap_or(Ipv4Addr::UNSPECIFIED);
                let private_ip = inside.unwrap_or(first.into());
                let own = interface.addresses.iter().find(|own| IpAddr::V4(own.private_ip) == private_ip);
                let public = own.and_then(|own| own.public_ip()).filter(|_| from_outside);
                public.map_or(private_ip, IpAddr::V4)
            }
            Stop::Address(address) => *address,
            Stop::InternetGateway(_) | Stop::Internet if ipv6 => SOMEBODY6.into(),
            Stop::InternetGateway(_) | Stop::Internet => SOMEBODY.into(),
        }
    }
}

fn payload(
    protocol: FlowProtocol,
    (kind, code): (Option<u8>, Option<u8>),
    ipv6: bool,
    header: &Header,
) -> Payload {
    let source_port = header.source_port.unwrap_or(EPHEMERAL);
    let destination_port = header.destination_port.unwrap_or(DESTINATION_PORT);
    match (protocol, kind) {
        (FlowProtocol::Tcp, _) => Payload::Tcp { source_port, destination_port },
        (FlowProtocol::Udp, _) => Payload::Udp { source_port, destination_port },
        (FlowProtocol::Icmp, None) => {
            if ipv6 {
                ECHO6
            } else {
                ECHO
            }
        }
        (FlowProtocol::Icmp, Some(kind)) => {
            let code = code.unwrap_or(0);
            if ipv6 { Payload::Icmpv6 { kind, code } } else { Payload::Icmp { kind, code } }
        }
    }
}

/// Whether it goes by the internet gateway of the VPC.
fn crosses(trace: &Trace, vpc_id: Option<&Id>) -> bool {
    let mut gateways = trace.forward.hops.iter().filter(|hop| hop.place == Place::InternetGateway);
    gateways.any(|hop| vpc_id.is_some() && hop.vpc_id.as_ref() == vpc_id)
}
