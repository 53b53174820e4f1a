//! Flows that EC2 would not track, and when they end. Pure.
//!
//! The kernel tracks all flows here, since a tracked packet costs least. EC2 does not track what the groups of an
//! interface let through for everybody, and answers to everybody: so such a flow ends at once when its rule goes, while
//! a tracked one goes on until it is idle (EC2 User Guide, "Security group connection tracking"). Here it ends by being
//! forgotten, which the kernel does not take up again in its middle.
//!
//! By the same page EC2 tracks what is neither TCP nor UDP always, and what leaves by a NAT gateway or an egress-only
//! gateway.

use datapath::{Interface, Peer, Protocol, Rule, SecurityGroup};
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

use super::family::Family;
use super::index::Index;
use super::nfnetlink::Flow;
use super::open::Open;
use super::vpc::{self, owner, peers};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The interfaces of a VPC from whose groups something was taken that was open to everybody.
pub(super) struct Closed {
    interfaces: Vec<Narrowed>,
    /// Whose the networks are, in that order.
    by_network: HashMap<IpNet, usize>,
    /// What needs no gateway.
    near: Vec<IpNet>,
}

struct Narrowed {
    ingress: Side,
    egress: Side,
    /// What routes lead to an egress-only gateway for.
    egress_only: Vec<IpNet>,
}

/// What an interface may begin, or be begun with.
struct Side {
    /// What was open to everybody.
    open: Vec<(Family, Protocol)>,
    /// And the other way.
    answers: Vec<(Family, Protocol)>,
    now: Vec<(Protocol, Vec<IpNet>)>,
}

impl Closed {
    /// None where nothing was taken.
    pub(super) fn between(was: &Open, new: &Index, vpc: &datapath::Vpc) -> Option<Closed> {
        let mut closed = Closed { interfaces: Vec::new(), by_network: HashMap::new(), near: Vec::new() };
        for nic in new.interfaces(&vpc.vpc_id) {
            let ([into, out], now) = (was.rules(&nic.interface_id), groups(nic, new));
            if is_taken(&into, &now, ingress) || is_taken(&out, &now, egress) {
                closed.by_network.extend(nic.networks().map(|net| (net, closed.interfaces.len())));
                closed.interfaces.push(Narrowed {
                    ingress: Side::new([&into, &out], &now, ingress, new, vpc),
                    egress: Side::new([&out, &into], &now, egress, new, vpc),
                    egress_only: egress_only(vpc, nic),
                });
            }
        }
        let peers = peers(vpc, &new.vpcs).into_iter().flat_map(|(_, peer)| peer.ranges());
        closed.near.extend(vpc.ranges().chain(peers));
        (!closed.interfaces.is_empty()).then_some(closed)
    }

    /// Whether a flow was open to everybody at one of its ends, and is not allowed there any more.
    pub(super) fn ends(&self, flow: &Flow) -> bool {
        // As groups see it: before its source is translated, and after its destination is.
        let (from, to, is_translated) = (flow.original.0, flow.reply.0, flow.original.0 != flow.reply.1);
        let narrowed = |address| owner(&self.by_network, address).and_then(|at| self.interfaces.get(*at));
        let is_tracked = |by: &Narrowed| match to {
            _ if self.near.iter().any(|net| net.contains(&to)) => false,
            IpAddr::V4(_) => !is_translated,
            IpAddr::V6(_) => by.egress_only.iter().any(|net| net.contains(&to)),
        };
        narrowed(from).is_some_and(|by| !is_tracked(by) && by.egress.is_shut(to, flow))
            || narrowed(to).is_some_and(|by| by.ingress.is_shut(from, flow))
    }
}

type Way = fn(&SecurityGroup) -> &[Rule];

fn ingress(group: &SecurityGroup) -> &[Rule] {
    &group.ingress
}

fn egress(group: &SecurityGroup) -> &[Rule] {
    &group.egress
}

impl Side {
    /// `was` is what was open to everybody, this way and the other.
    fn new(
        [was, back]: [&[&Rule]; 2],
        now: &[&SecurityGroup],
        way: Way,
        new: &Index,
        vpc: &datapath::Vpc,
    ) -> Side {
        let rules = now.iter().flat_map(|group| way(group));
        let now = rules.map(|rule| {
            let nets = match &rule.peer {
                Peer::Cidr(net) => vec![*net],
                Peer::Group(id) => {
                    new.groups.get(id).into_iter().flat_map(|group| group.members_near(vpc)).collect()
                }
            };
            (rule.protocol, nets)
        });
        let kinds = |rules: &[&Rule]| rules.iter().filter_map(|rule| kind(rule)).collect();
        Side { open: kinds(was), answers: kinds(back), now: now.collect() }
    }

    fn is_shut(&self, peer: IpAddr, flow: &Flow) -> bool {
        let Some((_, port)) = flow.ports else { return false };
        let family = Family::of(peer);
        let was = |open: &[(Family, Protocol)], ports: [u16; 2]| {
            open.iter().any(|(of, protocol)| *of == family && lets(*protocol, flow.protocol, ports))
        };
        was(&self.open, [port, port])
            && was(&self.answers, [0, u16::MAX])
            && !self.now.iter().any(|(protocol, nets)| {
                lets(*protocol, flow.protocol, [port, port]) && nets.iter().any(|net| net.contains(&peer))
            })
    }
}

/// Whether a rule is about all of a range of ports.
fn lets(rule: Protocol, protocol: u8, [first, last]: [u16; 2]) -> bool {
    let ports = |from, to| from <= first && last <= to;
    match rule {
        Protocol::All => [TCP, UDP].contains(&protocol),
        Protocol::Tcp { from, to } => protocol == TCP && ports(from, to),
        Protocol::Udp { from, to } => protocol == UDP && ports(from, to),
        Protocol::Number(number) => number == protocol && [TCP, UDP].contains(&protocol),
        Protocol::Icmp { .. } | Protocol::Icmpv6 { .. } => false,
    }
}

/// What a rule for everybody is about.
fn kind(rule: &Rule) -> Option<(Family, Protocol)> {
    let Peer::Cidr(net) = rule.peer else { return None };
    Some((Family::of(net.addr()), rule.protocol))
}

/// Whether something was open to everybody that is not now. It may be allowed by another rule still.
fn is_taken(was: &[&Rule], now: &[&SecurityGroup], way: Way) -> bool {
    was.iter().any(|rule| !now.iter().any(|group| way(group).contains(rule)))
}

fn groups<'a>(interface: &Interface, index: &Index<'a>) -> Vec<&'a SecurityGroup> {
    interface.groups.iter().filter_map(|id| index.groups.get(id).copied()).collect()
}

fn egress_only(vpc: &datapath::Vpc, interface: &Interface) -> Vec<IpNet> {
    let subnet = vpc.subnets.iter().find(|subnet| subnet.subnet_id == interface.subnet_id);
    subnet.into_iter().flat_map(|subnet| vpc::egress_only(vpc, subnet)).map(|(_, net)| net).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::examples::{self, id};
    use datapath::{Address, Plan};
    use model::Kind;

    const ALL: &str = "0.0.0.0/0";

    fn rule(protocol: Protocol, cidr: &str) -> Rule {
        Rule { protocol, peer: Peer::Cidr(cidr.parse().unwrap()) }
    }

    fn tcp(port: u16, cidr: &str) -> Rule {
        rule(Protocol::Tcp { from: port, to: port }, cidr)
    }

    /// 10.0.0.5, known outside as 198.18.0.5, in a group with these rules.
    fn plan(ingress: Vec<Rule>, egress: Vec<Rule>) -> Plan {
        let group_id = id(Kind::SecurityGroup, 1);
        let vpc_id = id(Kind::Vpc, 1);
        let address = Address { private_ip: [10, 0, 0, 5].into(), public_ip: Some([198, 18, 0, 5].into()) };
        let interface =
            Interface { groups: vec![group_id.clone()], addresses: vec![address], ..examples::interface(5) };
        let members = [(vpc_id.clone(), ["10.0.0.9/32".parse().unwrap()].into())].into();
        let group = SecurityGroup { group_id, vpc_id, ingress, egress, members };
        Plan {
            vpcs: vec![examples::vpc(1)],
            interfaces: vec![interface],
            groups: vec![group],
            ..Plan::default()
        }
    }

    fn flow(original: [&str; 2], reply: [&str; 2], protocol: u8, port: u16) -> Flow {
        let ends = |[from, to]: [&str; 2]| (from.parse().unwrap(), to.parse().unwrap());
        Flow { original: ends(original), reply: ends(reply), protocol, ports: Some((40_000, port)) }
    }

    fn ends(old: &Plan, new: &Plan, flow: Flow) -> bool {
        let (was, new) = (Open::of(old), Index::new(new));
        Closed::between(&was, &new, new.vpcs[&id(Kind::Vpc, 1)]).is_some_and(|closed| closed.ends(&flow))
    }

    #[test]
    fn what_was_open_to_all_ends_with_its_rule() {
        let out = vec![rule(Protocol::All, ALL)];
        let open = plan(vec![tcp(22, ALL)], out.clone());
        let ssh = flow(["203.0.113.9", "198.18.0.5"], ["10.0.0.5", "203.0.113.9"], TCP, 22);
        let shut = |ingress| plan(ingress, out.clone());
        assert!(ends(&open, &shut(vec![]), ssh));
        assert!(ends(&open, &shut(vec![tcp(22, "203.0.113.8/32"), tcp(23, ALL)]), ssh));
        assert!(!ends(&open, &shut(vec![tcp(22, "203.0.113.0/24")]), ssh), "another rule allows it");
        assert!(!ends(&open, &shut(vec![tcp(23, ALL), tcp(22, ALL)]), ssh));
        assert!(!ends(&open, &shut(vec![]), Flow { protocol: UDP, ..ssh }));
        assert!(!ends(&open, &shut(vec![]), Flow { ports: None, protocol: 1, ..ssh }));

        // Answers are not open, or the rule is not: it is tracked.
        let narrow = plan(vec![tcp(22, ALL)], vec![rule(Protocol::All, "10.0.0.0/8")]);
        assert!(!ends(&narrow, &plan(vec![], narrow.groups[0].egress.clone()), ssh));
        let narrow = shut(vec![tcp(22, "203.0.113.0/24")]);
        assert!(!ends(&narrow, &shut(vec![]), ssh));
    }

    #[test]
    fn what_leaves_by_a_nat_gateway_is_tracked() {
        let (any, own) = (|| vec![rule(Protocol::All, ALL)], Peer::Group(id(Kind::SecurityGroup, 1)));
        let own = vec![Rule { protocol: Protocol::All, peer: own }];
        let (open, shut) = (plan(any(), any()), plan(any(), own));
        let outward = flow(["10.0.0.5", "203.0.113.9"], ["203.0.113.9", "198.18.0.5"], TCP, 443);
        let by_nat = flow(["10.0.0.5", "203.0.113.9"], ["203.0.113.9", "10.0.0.5"], TCP, 443);
        let within = |to| flow(["10.0.0.5", to], [to, "10.0.0.5"], TCP, 443);
        assert!(ends(&open, &shut, outward) && !ends(&open, &shut, by_nat));
        assert!(ends(&open, &shut, within("10.0.0.8")));
        assert!(!ends(&open, &shut, within("10.0.0.9")), "it is in the group that is allowed");
    }
}
