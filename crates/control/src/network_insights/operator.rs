//! What `cumulet net trace` asks: the same walk, in words.

use super::FlowProtocol;
use super::flow::{Flow, Stop};
use super::ground::Records;
use crate::Context;
use crate::engine::Tables;
use aws_api::cumulet;
use datapath::trace::{Because, Hop, Path, Payload, Place};
use datapath::{Peer, Protocol, Rule, Target};
use model::{Error, Result};
use std::net::Ipv4Addr;

const INTERNET: &str = "internet";

pub async fn trace_network(
    context: &Context,
    input: cumulet::TraceNetworkRequest,
) -> Result<cumulet::TraceNetworkResponse> {
    let tables = context.tables();
    let invalid = |error: Error| Error::new("ValidationException", error.message).with_status(400);
    let stop = |text: Option<String>| stop(&tables, &text.unwrap_or_default()).map_err(invalid);
    let (source, destination) = (stop(input.source)?, stop(input.destination)?);
    let source = match source {
        Stop::Address(address) => match holder(&tables, address) {
            Some(interface) => interface,
            None => Stop::Address(address),
        },
        other => other,
    };
    let protocol = input.protocol.as_deref().unwrap_or("tcp");
    let protocol = FlowProtocol::parse(protocol).ok_or_else(|| {
        invalid(Error::invalid_parameter_value(format!("{protocol} is not tcp, udp or icmp")))
    })?;
    let port =
        input.port.map(u16::try_from).transpose().map_err(|_| {
            invalid(Error::invalid_parameter_value("a port is between 0 and 65535".to_owned()))
        })?;
    let flow = Flow::new(source, destination, (None, None), protocol, (None, port));
    let (trace, arrives) = flow.follow(&Records { tables: &tables, region: &context.region.view.region });
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
        return Ok(Stop::Address(Ipv4Addr::new(192, 0, 2, 1)));
    }
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Ok(Stop::Address(address)),
        Err(_) => Stop::find(tables, text),
    }
}

/// Who sends from the address, where there is only one who has it.
fn holder(tables: &Tables, address: Ipv4Addr) -> Option<Stop> {
    let text = address.to_string();
    let mut private = tables.network_interfaces.with("private-ip-address", &text);
    let first = private.next()?;
    private.next().is_none().then(|| Stop::Interface(first.clone()))
}

fn hops(path: &Path) -> Vec<cumulet::Hop> {
    path.hops.iter().map(hop).collect()
}

fn hop(hop: &Hop) -> cumulet::Hop {
    let packet = &hop.packet;
    let (source, destination) = match packet.payload {
        Payload::Tcp { source_port, destination_port } | Payload::Udp { source_port, destination_port } => {
            (format!("{}:{source_port}", packet.source), format!("{}:{destination_port}", packet.destination))
        }
        Payload::Icmp { .. } | Payload::Other(_) => {
            (packet.source.to_string(), packet.destination.to_string())
        }
    };
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
    match protocol {
        Protocol::All => "all".into(),
        Protocol::Tcp { from, to } => ports("tcp", from, to),
        Protocol::Udp { from, to } => ports("udp", from, to),
        Protocol::Icmp { .. } => "icmp".into(),
        Protocol::Icmpv6 { .. } => "icmpv6".into(),
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
