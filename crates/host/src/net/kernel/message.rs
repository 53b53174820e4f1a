//! What of the kernel's messages is a value of ours, and the messages that say one. Pure.

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::family::Family;
use super::{Link, Route, Rule};

/// Who made a route or rule, for the kernel and for `ip route`. Unassigned in `/etc/iproute2/rt_protos`.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(197);

/// The metric of our unreachable routes: a route of the host's own to the same network is another one, and wins.
const LAST_RESORT: u32 = 1 << 30;

pub(super) fn number(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

pub(super) fn link_of(message: LinkMessage) -> Option<(String, Link)> {
    let (mut name, mut mtu, mut mac, mut queueing) = (None, 0, Vec::new(), String::new());
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value),
            LinkAttribute::Mtu(value) => mtu = value,
            LinkAttribute::Address(value) => mac = value,
            LinkAttribute::Qdisc(value) => queueing = value,
            _ => {}
        }
    }
    let up = message.header.flags.contains(LinkFlags::Up);
    Some((name?, Link { index: message.header.index, up, mtu, mac, queueing }))
}

pub(super) fn address_of(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some((message.header.index, *address)).filter(|_| {
            IpNet::from(*address).prefix_len() == message.header.prefix_len && !address.is_loopback()
        }),
        _ => None,
    })
}

/// Nobody is asked whether an address is another's: the guest could say so.
pub(super) fn address_message(link: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = number(Family::of(address));
    message.header.prefix_len = IpNet::from(address).prefix_len();
    message.header.index = link;
    message.attributes = vec![AddressAttribute::Address(address), AddressAttribute::Local(address)];
    if address.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

pub(super) fn neighbour_of(message: &NeighbourMessage) -> Option<((u32, IpAddr), [u8; 6])> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(value)) => {
                address = Some(IpAddr::V4(*value));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(value)) => {
                address = Some(IpAddr::V6(*value));
            }
            NeighbourAttribute::LinkLocalAddress(value) => mac = value.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(((message.header.ifindex, address?), mac?))
}

pub(super) fn proxy_of(message: &NeighbourMessage) -> Option<(u32, Ipv4Addr)> {
    let (mut address, mut ours) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(value)) => address = Some(*value),
            NeighbourAttribute::Protocol(protocol) => ours = *protocol == PROTOCOL,
            _ => {}
        }
    }
    Some((message.header.ifindex, address?)).filter(|_| ours)
}

pub(super) fn proxy_message(link: u32, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = link;
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
        NeighbourAttribute::Protocol(PROTOCOL),
    ];
    message
}

pub(super) fn route_of(message: &RouteMessage) -> Option<((u32, IpNet), Route)> {
    if message.header.protocol != PROTOCOL {
        return None;
    }
    let mut table = u32::from(message.header.table);
    let mut destination = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut gateway, mut link, mut mtu) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(value) => table = *value,
            RouteAttribute::Destination(value) => destination = address_in(value)?,
            RouteAttribute::Gateway(value) => gateway = address_in(value),
            RouteAttribute::Oif(value) => link = Some(*value),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    let route = match (message.header.kind, gateway, link) {
        (RouteType::BlackHole, _, _) => Route::Blackhole,
        (RouteType::Unreachable, _, _) => Route::Unreachable,
        (_, Some(gateway), Some(link)) => Route::Gateway { gateway, link, mtu },
        (_, None, Some(link)) => Route::Link(link),
        _ => return None,
    };
    Some(((table, destination), route))
}

fn address_in(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

pub(super) fn route_message((table, destination): (u32, IpNet), route: Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = number(Family::of(destination.addr()));
    header.destination_prefix_length = destination.prefix_len();
    header.protocol = PROTOCOL;
    header.kind = RouteType::Unicast;
    header.scope = RouteScope::Universe;
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(table));
    attributes.push(RouteAttribute::Destination(destination.network().into()));
    match route {
        Route::Link(link) => {
            header.scope = RouteScope::Link;
            attributes.push(RouteAttribute::Oif(link));
        }
        Route::Gateway { gateway, link, mtu } => {
            header.flags = RouteFlags::Onlink;
            attributes.extend([RouteAttribute::Gateway(gateway.into()), RouteAttribute::Oif(link)]);
            attributes.extend(mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
        }
        Route::Blackhole => header.kind = RouteType::BlackHole,
        Route::Unreachable => {
            header.kind = RouteType::Unreachable;
            attributes.push(RouteAttribute::Priority(LAST_RESORT));
        }
    }
    message
}

pub(super) fn rule_of(message: &RuleMessage) -> Option<Rule> {
    let (mut ours, mut priority, mut mark, mut mask) = (false, 0, None, u32::MAX);
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(protocol) => ours = *protocol == PROTOCOL,
            RuleAttribute::Priority(value) => priority = *value,
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = *value,
            RuleAttribute::Table(value) => table = *value,
            _ => {}
        }
    }
    let family = match message.header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    ours.then(|| Rule { family, priority, mark: mark.map(|mark| (mark, mask)), table })
}

pub(super) fn rule_message(rule: Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = number(rule.family);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Protocol(PROTOCOL),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
    ];
    if let Some((mark, mask)) = rule.mark {
        message.attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::super::MAIN_TABLE;
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let nets = [("10.0.0.5/32", "0.0.0.0/0", "169.254.0.1"), ("fd00::5/128", "::/0", "fe80::1")];
        for (host, everywhere, gateway) in nets {
            let gateway = gateway.parse().unwrap();
            let narrow = Route::Gateway { gateway, link: 3, mtu: Some(1480) };
            let gateway = Route::Gateway { gateway, link: 3, mtu: None };
            for route in [Route::Link(16), gateway, narrow, Route::Blackhole, Route::Unreachable] {
                for key in [(MAIN_TABLE, net(host)), (1001, net(everywhere))] {
                    assert_eq!(route_of(&route_message(key, route)), Some((key, route)));
                }
            }
        }
        for family in Family::BOTH {
            for mark in [None, Some((0x1_0000, 0xffff_0000))] {
                let rule = Rule { family, priority: 20_001, mark, table: 1001 };
                assert_eq!(rule_of(&rule_message(rule)), Some(rule));
            }
        }
        let address = Ipv4Addr::new(192, 168, 50, 7);
        assert_eq!(proxy_of(&proxy_message(2, address)), Some((2, address)));
        for text in ["10.0.0.5", "fd00::5"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(address_of(&address_message(1, address)), Some((1, address)));
        }
    }

    #[test]
    fn what_others_made_is_not_seen() {
        let mut route = route_message((MAIN_TABLE, net("10.0.0.0/16")), Route::Blackhole);
        route.header.protocol = RouteProtocol::Static;
        assert_eq!(route_of(&route), None);
        let mut rule = rule_message(Rule { family: Family::V4, priority: 1, mark: None, table: MAIN_TABLE });
        rule.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
        assert_eq!(rule_of(&rule), None);
    }
}
