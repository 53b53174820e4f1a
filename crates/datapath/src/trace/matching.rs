//! Whether a rule, an entry or a route is about a packet.

use super::{Ground, Packet, Payload};
use crate::{AclEntry, Peer, Protocol, Route, RouteTable, Rule, Vpc};
use ipnet::IpNet;
use std::net::IpAddr;

/// What a route table says of a destination.
pub(super) enum Way<'a> {
    /// To whoever has it in the VPC.
    Local(IpNet),
    Route(&'a Route),
    None,
}

impl Protocol {
    fn is_of(self, payload: Payload) -> bool {
        match (self, payload) {
            (Protocol::All, _) => true,
            (Protocol::Tcp { from, to }, Payload::Tcp { destination_port, .. })
            | (Protocol::Udp { from, to }, Payload::Udp { destination_port, .. }) => {
                (from..=to).contains(&destination_port)
            }
            (Protocol::Icmp { kind, code }, Payload::Icmp { kind: of, code: with })
            | (Protocol::Icmpv6 { kind, code }, Payload::Icmpv6 { kind: of, code: with }) => {
                kind.is_none_or(|kind| kind == of && code.is_none_or(|code| code == with))
            }
            (Protocol::Number(number), payload) => number == payload.protocol(),
            _ => false,
        }
    }
}

/// Whether a group's rule allows a packet of the VPC from or to a peer.
pub(super) fn allows(ground: &dyn Ground, vpc: &Vpc, rule: &Rule, peer: IpAddr, packet: Packet) -> bool {
    let is_peer = match &rule.peer {
        Peer::Cidr(net) => net.contains(&peer),
        Peer::Group(id) => {
            ground.group(id).is_some_and(|group| group.members_near(vpc).any(|net| net.contains(&peer)))
        }
    };
    is_peer && rule.protocol.is_of(packet.payload)
}

/// The entry that decides.
pub(super) fn deciding(entries: &[AclEntry], peer: IpAddr, packet: Packet) -> Option<&AclEntry> {
    entries.iter().find(|entry| entry.cidr.contains(&peer) && entry.protocol.is_of(packet.payload))
}

/// A route within the VPC's own ranges wins over the local ones, which win over all others, by the longest prefix (VPC
/// User Guide, "Route priority").
pub(super) fn way<'a>(vpc: &Vpc, table: &'a RouteTable, destination: IpAddr) -> Way<'a> {
    let local = vpc.ranges().find(|cidr| cidr.contains(&destination)).map(|cidr| cidr.trunc());
    let concerned = table.routes.iter().filter(|route| route.destination.contains(&destination));
    let longest = concerned.max_by_key(|route| route.destination.prefix_len());
    let is_inner = |route: &&Route| local.is_none_or(|local| local.contains(&route.destination));
    match (longest.filter(is_inner), local) {
        (Some(route), _) => Way::Route(route),
        (None, Some(local)) => Way::Local(local),
        (None, None) => Way::None,
    }
}
