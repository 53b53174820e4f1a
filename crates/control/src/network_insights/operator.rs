//! What `cumulet net trace` asks: the same walk, in words.

use super::flow::{Asked, Flow, Stop};
use super::ground::Records;
use super::{FlowProtocol, Header};
use crate::Context;
use crate::engine::Tables;
use crate::network_interface::NetworkInterface;
use aws_api::cumulet;
use datapath::trace::{Because, Hop, Path, Place};
use datapath::{Peer, Protocol, Rule, Target};
use ipnet::IpNet;
use model::{Error, Result};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const INTERNET: &str = "internet";

pub async fn trace_network(
    context: &Context,
    input: cumulet::TraceNetworkRequest,
) -> Result<cumulet::TraceNetworkResponse> {
    let tables = context.tables();
    let invalid = |error: Error| Error::new("ValidationException", error.message).with_status(400);
    let stop = |text: Option<String>| stop(&tables, &text.unwrap_or_default()).map_err(invalid);
    let (source, destination) = (stop(input.source)?, stop(input.destination)?);
    let records = Records { tables: &tables, region: &context.region.view.region };
    // Who sends from an address is whoever has it, where there is only one.
    let (source, source_ip) = match source {
        Stop::Address(address) => match only_holder(&records, address) {
            Some(interface) => (Stop::Interface(interface), Some(address)),
            None => (Stop::Address(address), None),
        },
        other => (other, None),
    };
    let protocol = input.protocol.as_deref().unwrap_or("tcp");
    let protocol = FlowProtocol::parse(protocol).ok_or_else(|| {
        invalid(Error::invalid_parameter_value(format!("{protocol} is not tcp, udp or icmp")))
    })?;
    let out_of_range = |_| invalid(Error::invalid_parameter_value("a number is out of its range".to_owned()));
    let number = |number: Option<i32>| number.map(u8::try_from).transpose().map_err(out_of_range);
    let destination_port = input.port.map(u16::try_from).transpose().map_err(out_of_range)?;
    let asked = Asked {
        source,
        destination,
        header: Header { source_ip, destination_port, ..Header::default() },
        protocol,
        icmp: (number(input.icmp_type)?, number(input.icmp_code)?),
        ipv6: input.ipv6.unwrap_or_default(),
    };
    let flow = Flow::new(asked, None);
    flow.check_family().map_err(invalid)?;
    let (trace, arrives) = flow.follow(&records);
    let passes = trace.passes() && arrives;
    let obstacle = match (passes, trace.obstacle()) {
        (true, _) => None,
        (false, Some(obstacle)) => Some(obstacle.to_string()),
        (false, None) => Some("it arrives elsewhere".to_owned()),
    };
    Ok(cumulet::TraceNetworkResponse {
        passes: Some(passes),
        obstacle,
        forward: hops(&trace.forward),
        back: trace.back.as_ref().map(hops).unwrap_or_default(),
    })
}

/// By id, by address, or anybody outside.
fn stop(tables: &Tables, text: &str) -> Result<Stop> {
    if text == INTERNET {
        return Ok(Stop::Internet);
    }
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(Stop::Address(address)),
        Err(_) => Stop::find(tables, text),
    }
}

fn only_holder(records: &Records<'_>, address: IpAddr) -> Option<Arc<NetworkInterface>> {
    let vpcs = records.tables.vpcs.iter().filter(|vpc| {
        let ipv6 = vpc.ipv6_cidrs().map(IpNet::from);
        vpc.cidrs().map(|(_, cidr)| IpNet::from(cidr)).chain(ipv6).any(|cidr| cidr.contains(&address))
    });
    let mut holders = vpcs.filter_map(|vpc| records.holder(&vpc.vpc_id, address));
    let first = holders.next()?;
    holders.next().is_none().then(|| first.clone())
}

fn hops(path: &Path) -> Vec<cumulet::Hop> {
    path.hops.iter().map(hop).collect()
}

fn hop(hop: &Hop) -> cumulet::Hop {
    let packet = &hop.packet;
    let end = |address: IpAddr, port: Option<u16>| match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    let (source_port, destination_port) = packet.payload.ports().unzip();
    let (source, destination) = (end(packet.source, source_port), end(packet.destination, destination_port));
    cumulet::Hop {
        vpc_id: hop.vpc_id.as_ref().map(ToString::to_string),
        place: Some(place(&hop.place)),
        because: Some(because(&hop.because)),
        source: Some(source),
        destination: Some(destination),
    }
}

fn place(place: &Place) -> String {
    let direction = |egress: bool| if egress { "out" } else { "in" };
    match place {
        Place::Interface(id) | Place::RouteTable(id) | Place::NatGateway(id) | Place::Peering(id) => {
            id.to_string()
        }
        Place::SecurityGroups { interface_id, egress } => {
            format!("groups of {interface_id}, {}", direction(*egress))
        }
        Place::NetworkAcl { network_acl_id, egress, .. } => {
            format!("{network_acl_id}, {}", direction(*egress))
        }
        Place::InternetGateway => "internet gateway".into(),
        Place::EgressOnlyInternetGateway => "egress-only internet gateway".into(),
        Place::Internet => INTERNET.into(),
        Place::Service => "service of the VPC".into(),
    }
}

fn because(because: &Because) -> String {
    match because {
        Because::Passing => String::new(),
        Because::Rule { group_id, rule } => format!("{group_id} allows {}", rule_text(rule)),
        Because::Tracked => "answers a flow that was allowed".into(),
        Because::Entry(entry) => {
            let verb = if entry.allow { "allows" } else { "denies" };
            format!("entry {} {verb} {} {}", entry.rule_number, protocol_text(entry.protocol), entry.cidr)
        }
        Because::Route(route) => format!("{} by {}", route.destination, target(&route.target)),
        Because::Local(cidr) => format!("{cidr} is local"),
        Because::SourceTranslated { from } => format!("in place of {from}"),
        Because::DestinationTranslated { from } => format!("instead of {from}"),
    }
}

fn rule_text(rule: &Rule) -> String {
    let peer = match &rule.peer {
        Peer::Cidr(cidr) => cidr.to_string(),
        Peer::Group(id) => id.to_string(),
    };
    format!("{} {peer}", protocol_text(rule.protocol))
}

fn protocol_text(protocol: Protocol) -> String {
    let ports = |name: &str, from: u16, to: u16| match from == to {
        true => format!("{name} {from}"),
        false => format!("{name} {from}-{to}"),
    };
    let control = |name: &str, kind: Option<u8>, code: Option<u8>| match (kind, code) {
        (None, _) => name.to_owned(),
        (Some(kind), None) => format!("{name} type {kind}"),
        (Some(kind), Some(code)) => format!("{name} type {kind} code {code}"),
    };
    match protocol {
        Protocol::All => "all".into(),
        Protocol::Tcp { from, to } => ports("tcp", from, to),
        Protocol::Udp { from, to } => ports("udp", from, to),
        Protocol::Icmp { kind, code } => control("icmp", kind, code),
        Protocol::Icmpv6 { kind, code } => control("icmpv6", kind, code),
        Protocol::Number(number) => format!("protocol {number}"),
    }
}

fn target(target: &Target) -> String {
    match target {
        Target::InternetGateway => "the internet gateway".into(),
        Target::EgressOnlyInternetGateway => "the egress-only internet gateway".into(),
        Target::NatGateway(id) | Target::Interface(id) | Target::Peering(id) | Target::Endpoint(id) => {
            id.to_string()
        }
        Target::Blackhole => "nothing".into(),
    }
}
