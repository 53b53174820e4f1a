//! Security groups as packet filter text. Pure.
//!
//! A group becomes one chain a direction that accepts what its rules allow and returns otherwise. Its rules are
//! never walked one by one: those with CIDR peers become elements of an interval set, so that a thousand cost what
//! one does; those with a group as peer ask that group's member set first.
//!
//! What a rule matches is a box: ranges of addresses and of two more fields. A set takes no overlapping boxes, EC2
//! takes any rules: boxes inside others are dropped (they allow nothing more), and what still overlaps, which is
//! rare, goes to further sets (`layers`), each one more lookup.

use ipnet::Ipv4Net;
use model::Id;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use super::vpc::digits;
use super::{GroupPlan, PeerPlan, ProtocolPlan, RulePlan};

const EVERYWHERE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
const TCP: u16 = 6;
const UDP: u16 = 17;
const EVERY_OCTET: Range = (0, u8::MAX as u16);

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

    /// The field of a packet that holds the peer's address.
    fn peer(self) -> &'static str {
        match self {
            Direction::Ingress => "ip saddr",
            Direction::Egress => "ip daddr",
        }
    }

    fn rules(self, group: &GroupPlan) -> &[RulePlan] {
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
    fn types(self) -> &'static [&'static str] {
        match self {
            Shape::Any => &[],
            Shape::Protocol => &["inet_proto"],
            Shape::Ports => &["inet_proto", "inet_service"],
            Shape::Icmp => &["icmp_type", "icmp_code"],
        }
    }

    /// The fields, for a rule.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Shape::Any => &[],
            Shape::Protocol => &["meta l4proto"],
            Shape::Ports => &["meta l4proto", "th dport"],
            Shape::Icmp => &["icmp type", "icmp code"],
        }
    }
}

/// What one rule allows: peers in `net`, fields within the ranges. Fields that a shape has not are (0, 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Allowed {
    net: Ipv4Net,
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
        let fields = ranges.iter().take(shape.fields().len()).map(|(low, high)| match low == high {
            true => low.to_string(),
            false => format!("{low}-{high}"),
        });
        net.into_iter().chain(fields).collect::<Vec<_>>().join(" . ")
    }
}

/// The name of the chain that accepts what a group allows.
pub(super) fn chain_name(group_id: &Id, direction: Direction) -> String {
    format!("sg_{}_{}", digits(group_id), direction.name())
}

fn members_name(group_id: &Id) -> String {
    format!("sg_{}_members", digits(group_id))
}

/// The sets and chains of one group.
pub(super) fn render(group: &GroupPlan, out: &mut String) {
    for direction in Direction::BOTH {
        render_direction(group, direction, out);
    }
}

/// The addresses that a group stands for where a rule names it as its peer.
pub(super) fn render_members(group_id: &Id, group: Option<&GroupPlan>, out: &mut String) {
    let elements: Vec<String> =
        group.into_iter().flat_map(|group| &group.members).map(Ipv4Addr::to_string).collect();
    render_set(&members_name(group_id), "ipv4_addr", "", &elements, out);
}

/// The groups that a group's rules name.
pub(super) fn peers(group: &GroupPlan) -> impl Iterator<Item = &Id> {
    group.ingress.iter().chain(&group.egress).filter_map(|rule| match &rule.peer {
        PeerPlan::Group(group_id) => Some(group_id),
        PeerPlan::Cidr(_) | PeerPlan::Cidr6(_) => None,
    })
}

fn render_direction(group: &GroupPlan, direction: Direction, out: &mut String) {
    let name = chain_name(&group.group_id, direction);
    let everything = RulePlan { protocol: ProtocolPlan::All, peer: PeerPlan::Cidr(EVERYWHERE) };
    let rules = match direction.rules(group) {
        // The default egress of every group: worth no lookup, and nothing can be added to it.
        rules if rules.contains(&everything) => {
            let _ = writeln!(out, "\tchain {name} {{\n\t\taccept\n\t}}");
            return;
        }
        rules => rules,
    };
    let mut chain = Vec::new();

    let by_net = allowed(rules, |peer| match peer {
        PeerPlan::Cidr(net) => Some(net.trunc()),
        _ => None,
    });
    for (shape, boxes) in by_net {
        for (index, layer) in layers(boxes).iter().enumerate() {
            let set = format!("{name}_{}_{index}", shape.name());
            let types = ["ipv4_addr"].iter().chain(shape.types()).copied().collect::<Vec<_>>().join(" . ");
            let elements: Vec<String> = layer.iter().map(|allowed| allowed.element(shape, true)).collect();
            render_set(&set, &types, "flags interval; ", &elements, out);
            let fields = [direction.peer()].iter().chain(shape.fields()).copied().collect::<Vec<_>>();
            chain.push(format!("{} @{set} accept", fields.join(" . ")));
        }
    }

    let mut peers: Vec<&Id> = rules
        .iter()
        .filter_map(|rule| match &rule.peer {
            PeerPlan::Group(group_id) => Some(group_id),
            _ => None,
        })
        .collect();
    peers.sort();
    peers.dedup();
    for peer in peers {
        let from_peer = format!("{} @{}", direction.peer(), members_name(peer));
        let by_peer = allowed(rules, |candidate| match candidate {
            PeerPlan::Group(group_id) if group_id == peer => Some(EVERYWHERE),
            _ => None,
        });
        for (shape, boxes) in by_peer {
            if shape == Shape::Any {
                chain.push(format!("{from_peer} accept"));
                continue;
            }
            for layer in layers(boxes) {
                let elements: Vec<String> =
                    layer.iter().map(|allowed| allowed.element(shape, false)).collect();
                let fields = shape.fields().join(" . ");
                chain.push(format!("{from_peer} {fields} {{ {} }} accept", elements.join(", ")));
            }
        }
    }

    let _ = writeln!(out, "\tchain {name} {{");
    for rule in chain {
        let _ = writeln!(out, "\t\t{rule}");
    }
    let _ = writeln!(out, "\t}}");
}

/// The rules that `net_of` picks by their peer, as boxes by shape; none inside another.
fn allowed(
    rules: &[RulePlan],
    net_of: impl Fn(&PeerPlan) -> Option<Ipv4Net>,
) -> BTreeMap<Shape, Vec<Allowed>> {
    let mut shapes: BTreeMap<Shape, Vec<Allowed>> = BTreeMap::new();
    for rule in rules {
        let Some(net) = net_of(&rule.peer) else { continue };
        let octet = |value: Option<u8>| value.map_or(EVERY_OCTET, |value| (value.into(), value.into()));
        let (shape, first, second) = match rule.protocol {
            ProtocolPlan::All => (Shape::Any, (0, 0), (0, 0)),
            ProtocolPlan::Number(number) => (Shape::Protocol, (number.into(), number.into()), (0, 0)),
            ProtocolPlan::Tcp { from, to } => (Shape::Ports, (TCP, TCP), (from, to)),
            ProtocolPlan::Udp { from, to } => (Shape::Ports, (UDP, UDP), (from, to)),
            ProtocolPlan::Icmp { kind, code } => (Shape::Icmp, octet(kind), octet(code)),
            // IPv6 has no way here yet.
            ProtocolPlan::Icmpv6 { .. } => continue,
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

/// A named set; one without elements is declared alone, since empty braces are no syntax.
pub(super) fn render_set(name: &str, types: &str, flags: &str, elements: &[String], out: &mut String) {
    let elements = match elements.is_empty() {
        true => String::new(),
        false => format!("elements = {{ {} }}; ", elements.join(", ")),
    };
    let _ = writeln!(out, "\tset {name} {{ type {types}; {flags}{elements}}}");
}
