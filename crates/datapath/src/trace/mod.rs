//! Why a packet passes, or does not: the same rules that hosts render their data path from, followed hop by hop.
//!
//! A flow is followed there and, where it arrives, its answer back: rules of groups are asked once, network ACLs each
//! way. What the guests themselves do is taken for granted: who is a router forwards, who is asked answers.
//!
//! IPv4 only, as the data path is.

mod ground;
mod matching;
#[cfg(test)]
mod tests;
mod walk;

pub use ground::Ground;

use crate::{AclEntry, Interface, Route, Rule};
use ipnet::Ipv4Net;
use model::Id;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The first packet of a flow, or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub payload: Payload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    Tcp {
        source_port: u16,
        destination_port: u16,
    },
    Udp {
        source_port: u16,
        destination_port: u16,
    },
    Icmp {
        kind: u8,
        code: u8,
    },
    /// Another protocol, by its IANA number.
    Other(u8),
}

/// Echo request and its answer (RFC 792).
pub const ECHO: Payload = Payload::Icmp { kind: 8, code: 0 };
const ECHO_REPLY: Payload = Payload::Icmp { kind: 0, code: 0 };

impl Payload {
    pub fn protocol(self) -> u8 {
        match self {
            Payload::Icmp { .. } => 1,
            Payload::Tcp { .. } => 6,
            Payload::Udp { .. } => 17,
            Payload::Other(number) => number,
        }
    }

    fn answered(self) -> Payload {
        match self {
            Payload::Tcp { source_port, destination_port } => {
                Payload::Tcp { source_port: destination_port, destination_port: source_port }
            }
            Payload::Udp { source_port, destination_port } => {
                Payload::Udp { source_port: destination_port, destination_port: source_port }
            }
            ECHO => ECHO_REPLY,
            other => other,
        }
    }
}

impl Packet {
    fn answered(self) -> Packet {
        Packet { source: self.destination, destination: self.source, payload: self.payload.answered() }
    }
}

/// Where a flow begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Source<'a> {
    Interface(&'a Interface),
    /// Any address that is none of this cloud's.
    Internet,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    pub forward: Path,
    /// None where nothing arrives that could be answered.
    pub back: Option<Path>,
}

impl Trace {
    /// Whether a connection comes about.
    pub fn passes(&self) -> bool {
        let arrives = |path: &Path| matches!(path.end, End::Arrives(_));
        arrives(&self.forward) && self.back.as_ref().is_none_or(arrives)
    }

    /// Why it does not.
    pub fn obstacle(&self) -> Option<&Obstacle> {
        [Some(&self.forward), self.back.as_ref()].into_iter().flatten().find_map(|path| match &path.end {
            End::Arrives(_) => None,
            End::Dropped(obstacle) => Some(obstacle),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Path {
    pub hops: Vec<Hop>,
    pub end: End,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// None outside of all.
    pub vpc_id: Option<Id>,
    pub place: Place,
    /// As it leaves the place.
    pub packet: Packet,
    pub because: Because,
}

/// What decides on a packet, or passes it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    Interface(Id),
    /// The groups of an interface.
    SecurityGroups {
        interface_id: Id,
        egress: bool,
    },
    NetworkAcl {
        network_acl_id: Id,
        subnet_id: Id,
        egress: bool,
    },
    RouteTable(Id),
    /// Of the VPC that the hop is in.
    InternetGateway,
    NatGateway(Id),
    Peering(Id),
    Internet,
    /// What the VPC's router serves itself: names, time, metadata.
    Service,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Because {
    /// Nothing decides there.
    Passing,
    Rule {
        group_id: Id,
        rule: Rule,
    },
    /// It belongs to a flow that was allowed.
    Tracked,
    Entry(AclEntry),
    Route(Route),
    Local(Ipv4Net),
    SourceTranslated {
        from: Ipv4Addr,
    },
    DestinationTranslated {
        from: Ipv4Addr,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum End {
    Arrives(Place),
    Dropped(Obstacle),
}

/// Why a packet goes no further.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum Obstacle {
    #[error("{interface_id} may not send from {source_ip}: its source is checked")]
    ForeignSource { interface_id: Id, source_ip: Ipv4Addr },
    #[error("{interface_id} takes only what is for it, and {destination} is not: its destination is checked")]
    ForeignDestination { interface_id: Id, destination: Ipv4Addr },
    #[error("no {} rule of the security groups of {interface_id} allows it", direction(*egress))]
    NoRule { interface_id: Id, groups: Vec<Id>, egress: bool },
    #[error("entry {} of the {} entries of {network_acl_id} denies it", entry.rule_number, direction(*egress))]
    Denied { network_acl_id: Id, subnet_id: Id, egress: bool, entry: AclEntry },
    #[error("no {} entry of {network_acl_id} allows it", direction(*egress))]
    NoEntry { network_acl_id: Id, subnet_id: Id, egress: bool },
    #[error("{route_table_id} has no route to {destination}")]
    NoRoute { route_table_id: Id, destination: Ipv4Addr },
    #[error("the route of {route_table_id} to {} leads nowhere", route.destination)]
    Blackhole { route_table_id: Id, route: Route },
    #[error("{vpc_id} has no internet gateway")]
    NoInternetGateway { vpc_id: Id },
    #[error("the internet gateway exchanges what is of {address} with {through} only, and {sender} sends it")]
    OtherWay { address: Ipv4Addr, through: Id, sender: Id },
    #[error("public access to {subnet_id} is blocked")]
    PublicAccessBlocked { vpc_id: Id, subnet_id: Id, egress: bool },
    #[error("{address} has no public address to speak to the internet with")]
    NoPublicAddress { address: Ipv4Addr },
    #[error("nobody has {address} in {vpc_id}")]
    NobodyHas { vpc_id: Id, address: Ipv4Addr },
    #[error("{nat_gateway_id} lets nobody in: it is for those who go out")]
    NoWayIn { nat_gateway_id: Id },
    #[error("{nat_gateway_id} passes TCP, UDP and ICMP only")]
    NotTranslatable { nat_gateway_id: Id },
    #[error(
        "{peering_id} leads from one of its VPCs to the other only, not from {source_ip} to {destination}"
    )]
    Transit { peering_id: Id, source_ip: Ipv4Addr, destination: Ipv4Addr },
    #[error("nothing is served at {destination} that is asked for so")]
    NotServed { destination: Ipv4Addr },
    #[error("{destination} is no address that one could send to")]
    NoDestination { destination: Ipv4Addr },
    #[error("the answer comes from {found}, and not from {expected}")]
    AnswersAsAnother { expected: Ipv4Addr, found: Ipv4Addr },
    #[error("it goes round in a circle")]
    Circle,
}

fn direction(egress: bool) -> &'static str {
    if egress { "outbound" } else { "inbound" }
}

/// Follows a flow from where it begins.
pub fn trace(ground: &dyn Ground, source: Source<'_>, packet: Packet) -> Trace {
    let there = walk::there(ground, source.clone(), packet);
    let back = there.answer(ground, &source, packet);
    Trace { forward: there.path, back }
}
