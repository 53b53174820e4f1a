//! Why a packet passes, or does not: the same rules that hosts render their data path from, followed hop by hop.
//!
//! A flow is followed there and, where it arrives, its answer back: rules of groups are asked once, network ACLs each
//! way. What the guests themselves do is taken for granted: who is a router forwards, who is asked answers.

mod ground;
mod matching;
#[cfg(test)]
mod tests;
mod walk;

pub use ground::Ground;

use crate::{AclEntry, Interface, Route, Rule};
use ipnet::IpNet;
use model::Id;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The first packet of a flow, or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
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
    Icmpv6 {
        kind: u8,
        code: u8,
    },
    /// Another protocol, by its IANA number.
    Other(u8),
}

/// Echo requests (RFC 792, RFC 4443).
pub const ECHO: Payload = Payload::Icmp { kind: 8, code: 0 };
pub const ECHO6: Payload = Payload::Icmpv6 { kind: 128, code: 0 };

/// Types of control messages that ask something, and those of the answers: echo, timestamp, information, address mask
/// (RFC 792, RFC 950).
const QUESTIONS: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];
/// The same of IPv6: echo, node information (RFC 4443, RFC 4620).
const QUESTIONS6: [(u8, u8); 2] = [(128, 129), (139, 140)];
/// Who listens to which groups, which is asked and told without an answer (RFC 2710, RFC 3810).
const UNANSWERED6: [u8; 4] = [130, 131, 132, 143];

impl Payload {
    pub fn protocol(self) -> u8 {
        match self {
            Payload::Icmp { .. } => 1,
            Payload::Icmpv6 { .. } => 58,
            Payload::Tcp { .. } => 6,
            Payload::Udp { .. } => 17,
            Payload::Other(number) => number,
        }
    }

    /// The source's and the destination's.
    pub fn ports(self) -> Option<(u16, u16)> {
        match self {
            Payload::Tcp { source_port, destination_port }
            | Payload::Udp { source_port, destination_port } => Some((source_port, destination_port)),
            Payload::Icmp { .. } | Payload::Icmpv6 { .. } | Payload::Other(_) => None,
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
            Payload::Icmp { kind, code } => Payload::Icmp { kind: answer(&QUESTIONS, kind), code },
            Payload::Icmpv6 { kind, code } => Payload::Icmpv6 { kind: answer(&QUESTIONS6, kind), code },
            Payload::Other(number) => Payload::Other(number),
        }
    }

    /// What a NAT gateway makes of it, whose other side is IPv4; None of what it passes on for nobody.
    fn translated(self, is_ipv6: bool) -> Option<Payload> {
        match self {
            Payload::Icmpv6 { kind: 128, code } if is_ipv6 => Some(Payload::Icmp { kind: 8, code }),
            Payload::Icmpv6 { .. } | Payload::Other(_) => None,
            Payload::Tcp { .. } | Payload::Udp { .. } | Payload::Icmp { .. } => Some(self),
        }
    }

    /// And of the answer, on its way back.
    fn answered_over_ipv6(self) -> Payload {
        match self {
            Payload::Icmp { kind: 0, code } => Payload::Icmpv6 { kind: 129, code },
            other => other,
        }
    }

    /// Whether it may be the first of a flow. Control messages that answer or report belong to one that is there.
    fn begins(self) -> bool {
        let asks = |questions: &[(u8, u8)], kind| questions.iter().any(|(question, _)| *question == kind);
        match self {
            Payload::Icmp { kind, .. } => asks(&QUESTIONS, kind),
            Payload::Icmpv6 { kind, .. } => asks(&QUESTIONS6, kind) || UNANSWERED6.contains(&kind),
            Payload::Tcp { .. } | Payload::Udp { .. } | Payload::Other(_) => true,
        }
    }
}

fn answer(questions: &[(u8, u8)], kind: u8) -> u8 {
    questions.iter().find(|(question, _)| *question == kind).map_or(kind, |(_, answer)| *answer)
}

impl Packet {
    fn is_ipv6(self) -> bool {
        self.destination.is_ipv6()
    }

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
    EgressOnlyInternetGateway,
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
    Local(IpNet),
    SourceTranslated {
        from: IpAddr,
    },
    DestinationTranslated {
        from: IpAddr,
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
    ForeignSource { interface_id: Id, source_ip: IpAddr },
    #[error("{interface_id} takes only what is for it, and {destination} is not: its destination is checked")]
    ForeignDestination { interface_id: Id, destination: IpAddr },
    #[error("no {} rule of the security groups of {interface_id} allows it", direction(*egress))]
    NoRule { interface_id: Id, groups: Vec<Id>, egress: bool },
    #[error("entry {} of the {} entries of {network_acl_id} denies it", entry.rule_number, direction(*egress))]
    Denied { network_acl_id: Id, subnet_id: Id, egress: bool, entry: AclEntry },
    #[error("no {} entry of {network_acl_id} allows it", direction(*egress))]
    NoEntry { network_acl_id: Id, subnet_id: Id, egress: bool },
    #[error("{route_table_id} has no route to {destination}")]
    NoRoute { route_table_id: Id, destination: IpAddr },
    #[error("the route of {route_table_id} to {} leads nowhere", route.destination)]
    Blackhole { route_table_id: Id, route: Route },
    #[error("{vpc_id} has no internet gateway")]
    NoInternetGateway { vpc_id: Id },
    #[error("the internet gateway exchanges what is of {address} with {through} only, and {sender} sends it")]
    OtherWay { address: IpAddr, through: Id, sender: Id },
    #[error("public access to {subnet_id} is blocked")]
    PublicAccessBlocked { vpc_id: Id, subnet_id: Id, egress: bool },
    #[error("{address} has no public address to speak to the internet with")]
    NoPublicAddress { address: IpAddr },
    #[error("nobody has {address} in {vpc_id}")]
    NobodyHas { vpc_id: Id, address: IpAddr },
    #[error("{interface_id} has no address of IPv6")]
    NoIpv6 { interface_id: Id },
    #[error("{address} speaks to {source_ip} by an egress-only internet gateway, which lets nobody in")]
    EgressOnly { vpc_id: Id, address: IpAddr, source_ip: IpAddr },
    #[error("a control message of type {kind} begins nothing: it passes with a flow that is there")]
    BeginsNothing { interface_id: Id, kind: u8 },
    #[error("{nat_gateway_id} lets nobody in: it is for those who go out")]
    NoWayIn { nat_gateway_id: Id },
    #[error("{nat_gateway_id} passes TCP, UDP and ICMP only")]
    NotTranslatable { nat_gateway_id: Id },
    #[error(
        "{peering_id} leads from one of its VPCs to the other only, not from {source_ip} to {destination}"
    )]
    Transit { peering_id: Id, source_ip: IpAddr, destination: IpAddr },
    #[error("nothing is served at {destination} that is asked for so")]
    NotServed { destination: IpAddr },
    #[error("{destination} is no address that one could send to")]
    NoDestination { destination: IpAddr },
    #[error("the answer comes from {found}, and not from {expected}")]
    AnswersAsAnother { expected: IpAddr, found: IpAddr },
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
