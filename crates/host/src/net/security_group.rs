//! Security groups as packet filter text. Pure.
//!
//! A group becomes one chain a direction that lets on what its rules allow and returns otherwise. Its rules are
//! never walked one by one: those with CIDR peers become elements of an interval set, so that a thousand cost what
//! one does; those with a group as peer ask that group's member set first.
//!
//! What a rule matches is a box: ranges of addresses and of two more fields. A set takes no overlapping boxes, EC2
//! takes any rules: boxes inside others are dropped (they allow nothing more), and what still overlaps, which is
//! rare, goes to further sets (`layers`), each one more lookup.

use datapath::{Peer, Protocol, Rule, SecurityGroup};
use ipnet::IpNet;
use model::Id;
use std::collections::BTreeMap;

use super::family::{Family, elements};
use super::flows::ADMIT;
use super::table::Table;
use super::vpc::digits;

const TCP: u16 = 6;
const UDP: u16 = 17;
const EVERY_OCTET: Range = (0, u8::MAX as u16);

/// The chain that asks the groups of the one it goes to.
pub(super) const INGRESS: &str = "ingress";

/// Both ends included.
type Range = (u16, u16);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(super) const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    pub(super) fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }

    /// What becomes of what is allowed.
    fn verdict(self) -> String {
        match self {
            Direction::Ingress => format!("goto {ADMIT}"),
            Direction::Egress => format!("goto {INGRESS}"),
        }
    }

    /// The field of a packet that holds the peer's address.
    fn peer(self, family: Family) -> String {
        let end = match self {
            Direction::Ingress => "saddr",
            Direction::Egress => "daddr",
        };
        format!("{} {end}", family.ip())
    }

    fn rules(self, group: &SecurityGroup) -> &[Rule] {
        match self {
            Direction::Ingress => &group.ingress,
            Direction::Egress => &group.egress,
        }
    }
}

/// Which fields a rule looks at beside the peer's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    Any,
    Protocol,
    Ports,
    Icmp,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Any => "any",
            Shape::Protocol => "protocol",
            Shape::Ports => "ports",
            Shape::Icmp => "icmp",
        }
    }

    /// The types of the fields, for a set's declaration.
    fn types(self, family: Family) -> &'static [&'static str] {
        match (self, family) {
            (Shape::Any, _) => &[],
            (Shape::Protocol, _) => &["inet_proto"],
            (Shape::Ports, _) => &["inet_proto", "inet_service"],
            (Shape::Icmp, Family::V4) => &["icmp_type", "icmp_code"],
            (Shape::Icmp, Family::V6) => &["icmpv6_type", "icmpv6_code"],
        }
    }

    /// The fields, for a rule.
    fn fields(self, family: Family) -> &'static [&'static str] {
        match (self, family) {
            (Shape::Any, _) => &[],
            (Shape::Protocol, _) => &["meta l4proto"],
            (Shape::Ports, _) => &["meta l4proto", "th dport"],
            (Shape::Icmp, Family::V4) => &["icmp type", "icmp code"],
            (Shape::Icmp, Family::V6) => &["icmpv6 type", "icmpv6 code"],
        }
    }

    /// How many they are.
    fn width(self) -> usize {
        self.fields(Family::V4).len()
    }
}

/// What one rule allows: peers in `net`, fields within the ranges. Fields that a shape has not are (0, 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Allowed {
    net: IpNet,
    first: Range,
    second: Range,
}

impl Allowed {
    fn contains(&self, other: &Allowed) -> bool {
        let within = |a: Range, b: Range| a.0 <= b.0 && b.1 <= a.1;
        self.net.contains(&other.net) && within(self.first, other.first) && within(self.second, other.second)
    }

    fn overlaps(&self, other: &Allowed) -> bool {
        let meet = |a: Range, b: Range| a.0 <= b.1 && b.0 <= a.1;
        (self.net.contains(&other.net) || other.net.contains(&self.net))
            && meet(self.first, other.first)
            && meet(self.second, other.second)
    }

    /// As an element of a set: the fields of the shape, after the network where `with_net`.
    fn element(&self, shape: Shape, with_net: bool) -> String {
        let net = with_net.then(|| self.net.to_string());
        let ranges = [self.first, self.second];
        let fields = ranges.iter().take(shape.width()).map(|(low, high)| match low == high {
            true => low.to_string(),
            false => format!("{low}-{high}"),
        });
        net.into_iter().chain(fields).collect::<Vec<_>>().join(" . ")
    }
}

/// The name of the chain that lets on what a group allows.
pub(super) fn chain_name(group_id: &Id, direction: Direction) -> String {
    format!("sg_{}_{}", digits(group_id), direction.name())
}

fn members_name(group_id: &Id, family: Family) -> String {
    family.named(&format!("sg_{}_members", digits(group_id)))
}

/// The sets and chains of one group.
pub(super) fn render(group: &SecurityGroup, table: &mut Table) {
    for direction in Direction::BOTH {
        render_direction(group, direction, table);
    }
}

/// The addresses and prefixes that a group stands for in a VPC where a rule names it as its peer.
pub(super) fn render_members(
    group_id: &Id,
    group: Option<&SecurityGroup>,
    vpc: &datapath::Vpc,
    table: &mut Table,
) {
    for family in Family::BOTH {
        let members = group.into_iter().flat_map(|group| group.members_near(vpc));
        let members: Vec<IpNet> = members.filter(|net| Family::of(net.addr()) == family).collect();
        let name = members_name(group_id, family);
        // Of addresses alone it is a hash table: an interval costs more to find.
        if members.iter().all(|net| net.prefix_len() == net.max_prefix_len()) {
            let addresses: Vec<String> = members.iter().map(|net| net.addr().to_string()).collect();
            table.set(name, family.address(), &addresses);
        } else {
            let types = format!("{}; flags interval", family.address());
            table.set(name, &types, &elements(members, family));
        }
    }
}

fn render_direction(group: &SecurityGroup, direction: Direction, table: &mut Table) {
    let name = chain_name(&group.group_id, direction);
    let rules = direction.rules(group);
    // The default egress of every group: worth no lookup, and nothing can be added to it.
    let lets_all = |family: &Family| {
        rules.contains(&Rule { protocol: Protocol::All, peer: Peer::Cidr(family.everywhere()) })
    };
    let chain = match Family::BOTH.iter().all(lets_all) {
        true => vec![direction.verdict()],
        false => {
            let chain = Family::BOTH.into_iter().flat_map(|family| match lets_all(&family) {
                true => vec![format!("meta nfproto {} {}", family.protocol(), direction.verdict())],
                false => {
                    let mut chain = by_net(&name, rules, direction, family, table);
                    chain.extend(by_group(rules, direction, family));
                    chain
                }
            });
            chain.collect()
        }
    };
    table.chain(name, "", chain.join("\n"));
}

/// The part of the chain that asks for networks, and its sets.
fn by_net(
    name: &str,
    rules: &[Rule],
    direction: Direction,
    family: Family,
    table: &mut Table,
) -> Vec<String> {
    let mut chain = Vec::new();
    let by_net = allowed(rules, family, |peer| match peer {
        Peer::Cidr(net) if Family::of(net.addr()) == family => Some(net.trunc()),
        _ => None,
    });
    for (shape, boxes) in by_net {
        for (index, layer) in layers(boxes).iter().enumerate() {
            let set = format!("{}_{index}", family.named(&format!("{name}_{}", shape.name())));
            let types = [family.address()].iter().chain(shape.types(family)).copied().collect::<Vec<_>>();
            let elements: Vec<String> = layer.iter().map(|allowed| allowed.element(shape, true)).collect();
            table.set(&set, &format!("{}; flags interval", types.join(" . ")), &elements);
            let peer = direction.peer(family);
            let fields = [peer.as_str()].iter().chain(shape.fields(family)).copied().collect::<Vec<_>>();
            chain.push(format!("{} @{set} {}", fields.join(" . "), direction.verdict()));
        }
    }
    chain
}

/// The part that asks for members of groups.
fn by_group(rules: &[Rule], direction: Direction, family: Family) -> Vec<String> {
    let mut peers: Vec<&Id> = rules
        .iter()
        .filter_map(|rule| match &rule.peer {
            Peer::Group(group_id) => Some(group_id),
            _ => None,
        })
        .collect();
    peers.sort();
    peers.dedup();
    let mut chain = Vec::new();
    for peer in peers {
        let from_peer = format!("{} @{}", direction.peer(family), members_name(peer, family));
        let by_peer = allowed(rules, family, |candidate| match candidate {
            Peer::Group(group_id) if group_id == peer => Some(family.everywhere()),
            _ => None,
        });
        for (shape, boxes) in by_peer {
            if shape == Shape::Any {
                chain.push(format!("{from_peer} {}", direction.verdict()));
                continue;
            }
            for layer in layers(boxes) {
                let elements: Vec<String> =
                    layer.iter().map(|allowed| allowed.element(shape, false)).collect();
                let fields = shape.fields(family).join(" . ");
                let elements = elements.join(", ");
                chain.push(format!("{from_peer} {fields} {{ {elements} }} {}", direction.verdict()));
            }
        }
    }
    chain
}

/// The rules that `net_of` picks by their peer, as boxes by shape; none inside another.
fn allowed(
    rules: &[Rule],
    family: Family,
    net_of: impl Fn(&Peer) -> Option<IpNet>,
) -> BTreeMap<Shape, Vec<Allowed>> {
    let mut shapes: BTreeMap<Shape, Vec<Allowed>> = BTreeMap::new();
    for rule in rules {
        let Some(net) = net_of(&rule.peer) else { continue };
        let octet = |value: Option<u8>| value.map_or(EVERY_OCTET, |value| (value.into(), value.into()));
        let (shape, first, second) = match rule.protocol {
            // Each family has control messages of its own.
            Protocol::Icmp { .. } if family == Family::V6 => continue,
            Protocol::Icmpv6 { .. } if family == Family::V4 => continue,
            Protocol::All => (Shape::Any, (0, 0), (0, 0)),
            Protocol::Number(number) => (Shape::Protocol, (number.into(), number.into()), (0, 0)),
            Protocol::Tcp { from, to } => (Shape::Ports, (TCP, TCP), (from, to)),
            Protocol::Udp { from, to } => (Shape::Ports, (UDP, UDP), (from, to)),
            Protocol::Icmp { kind, code } | Protocol::Icmpv6 { kind, code } => {
                (Shape::Icmp, octet(kind), octet(code))
            }
        };
        if second.0 <= second.1 {
            shapes.entry(shape).or_default().push(Allowed { net, first, second });
        }
    }
    for boxes in shapes.values_mut() {
        boxes.sort();
        boxes.dedup();
        let all = boxes.clone();
        boxes.retain(|allowed| !all.iter().any(|other| other != allowed && other.contains(allowed)));
    }
    shapes
}

/// Parts boxes so that none overlap within a part; each goes to the first part that has room for it.
fn layers(boxes: Vec<Allowed>) -> Vec<Vec<Allowed>> {
    let mut layers: Vec<Vec<Allowed>> = Vec::new();
    for allowed in boxes {
        match layers.iter_mut().find(|layer| !layer.iter().any(|other| other.overlaps(&allowed))) {
            Some(layer) => layer.push(allowed),
            None => layers.push(vec![allowed]),
        }
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    /// What a rule may look at.
    #[derive(Clone, Copy, Debug)]
    struct Packet {
        peer: IpAddr,
        protocol: u8,
        /// Destination port, or ICMP type and code.
        port: u16,
        icmp: (u8, u8),
    }

    /// EC2's reading of a rule, as plain as can be.
    fn allows(rule: &Rule, packet: Packet) -> bool {
        let peer = match &rule.peer {
            Peer::Cidr(net) => net.contains(&packet.peer),
            _ => false,
        };
        let within = |from, to| from <= packet.port && packet.port <= to;
        peer && match rule.protocol {
            Protocol::All => true,
            Protocol::Number(number) => packet.protocol == number,
            Protocol::Tcp { from, to } => packet.protocol == 6 && within(from, to),
            Protocol::Udp { from, to } => packet.protocol == 17 && within(from, to),
            Protocol::Icmp { kind, code } | Protocol::Icmpv6 { kind, code } => {
                let number = if matches!(rule.protocol, Protocol::Icmp { .. }) { 1 } else { 58 };
                packet.protocol == number
                    && packet.peer.is_ipv4() == (number == 1)
                    && kind.is_none_or(|kind| kind == packet.icmp.0)
                    && code.is_none_or(|code| code == packet.icmp.1)
            }
        }
    }

    /// How the packet filter reads a box.
    fn matches(shape: Shape, allowed: &Allowed, packet: Packet) -> bool {
        let within = |range: Range, value: u16| range.0 <= value && value <= range.1;
        let protocol = u16::from(packet.protocol);
        allowed.net.contains(&packet.peer)
            && match shape {
                Shape::Any => true,
                Shape::Protocol => within(allowed.first, protocol),
                Shape::Ports => within(allowed.first, protocol) && within(allowed.second, packet.port),
                Shape::Icmp => {
                    protocol == if packet.peer.is_ipv4() { 1 } else { 58 }
                        && within(allowed.first, packet.icmp.0.into())
                        && within(allowed.second, packet.icmp.1.into())
                }
            }
    }

    /// Few networks and small numbers, so that rules meet.
    fn rule() -> impl Strategy<Value = Rule> {
        let port = 0..8u16;
        let octet = proptest::option::of(0..3u8);
        let protocol = prop_oneof![
            Just(Protocol::All),
            (0..20u8).prop_map(Protocol::Number),
            (port.clone(), port.clone()).prop_map(|(from, to)| Protocol::Tcp { from, to }),
            (port.clone(), port).prop_map(|(from, to)| Protocol::Udp { from, to }),
            (octet.clone(), octet.clone()).prop_map(|(kind, code)| Protocol::Icmp { kind, code }),
            (octet.clone(), octet).prop_map(|(kind, code)| Protocol::Icmpv6 { kind, code }),
        ];
        (protocol, address(8), 0..=8u8).prop_map(|(protocol, address, less)| {
            let net = IpNet::new(address, IpNet::from(address).prefix_len() - less).unwrap();
            Rule { protocol, peer: Peer::Cidr(net) }
        })
    }

    /// Of a handful, of either family.
    fn address(count: u8) -> impl Strategy<Value = IpAddr> {
        (any::<bool>(), 0..count).prop_map(|(is_ipv4, host)| match is_ipv4 {
            true => [10, 0, 0, host].into(),
            false => [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)].into(),
        })
    }

    fn packet() -> impl Strategy<Value = Packet> {
        let protocol = prop_oneof![Just(1u8), Just(6), Just(17), Just(58), 0..20u8];
        (address(16), protocol, 0..9u16, (0..4u8, 0..4u8)).prop_map(|(peer, protocol, port, icmp)| Packet {
            peer,
            protocol,
            port,
            icmp,
        })
    }

    proptest! {
        #[test]
        fn sets_allow_what_the_rules_allow(
            rules in proptest::collection::vec(rule(), 0..30),
            packets in proptest::collection::vec(packet(), 50),
        ) {
            let mut sets = Vec::new();
            for family in Family::BOTH {
                let shapes = allowed(&rules, family, |peer| match peer {
                    Peer::Cidr(net) if Family::of(net.addr()) == family => Some(net.trunc()),
                    _ => None,
                });
                for (shape, layer) in shapes.into_iter().flat_map(|(shape, boxes)| {
                    layers(boxes).into_iter().map(move |layer| (shape, layer))
                }) {
                    for (index, one) in layer.iter().enumerate() {
                        prop_assert!(!layer[..index].iter().any(|other| other.overlaps(one)), "{layer:?}");
                    }
                    sets.push((shape, layer));
                }
            }
            for packet in packets {
                let by_sets = sets.iter().any(|(shape, layer)| layer.iter().any(|one| matches(*shape, one, packet)));
                prop_assert_eq!(by_sets, rules.iter().any(|rule| allows(rule, packet)), "{:?}", packet);
            }
        }
    }

    #[test]
    fn rules_within_others_cost_nothing() {
        let tcp = |from, to, net: &str| Rule {
            protocol: Protocol::Tcp { from, to },
            peer: Peer::Cidr(net.parse().unwrap()),
        };
        let rules = [
            tcp(22, 22, "0.0.0.0/0"),
            tcp(22, 22, "10.0.0.0/8"),
            tcp(0, 65535, "10.1.0.0/16"),
            tcp(80, 80, "10.1.2.0/24"),
        ];
        let shapes = allowed(&rules, Family::V4, |peer| match peer {
            Peer::Cidr(net) => Some(*net),
            _ => None,
        });
        // The two that are left overlap: port 22 from 10.1.0.0/16.
        assert_eq!(layers(shapes[&Shape::Ports].clone()).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    }
}
