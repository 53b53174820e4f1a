//! What a trace says is what packets meet: random clouds, real packets of both families.
//!
//! `CUMULET_TRACES=N` tries so many clouds, `CUMULET_TRACE=SEED` the one that was printed.

use crate::cloud::{Cloud, Guest, HOST6, Machine, OUTSIDE, OUTSIDE6, PATIENCE, ROUTER6, id, possible};
use crate::peering::peer;
use crate::probe::{self, Heard, Probe};
use crate::routes::{nat_gateway, route, three_subnets};
use datapath::trace::{self, End, Packet, Payload, Place, Source, Trace};
use datapath::{
    AclEntry, Address, Interface, NetworkAcl, Peer, Protocol, PublicAccess, Route, RouteTable, Rule, Target,
    examples, nat64,
};
use ipnet::IpNet;
use model::{Id, Kind, Random, SeededRandom};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Of the random clouds that every run tries.
const CLOUDS: u64 = 200;
const FLOWS: usize = 30;
/// And more, from IPv6 to IPv4.
const TRANSLATED: usize = 6;
/// What does not come about by then does not, where none is expected to: what is expected has come before.
const SOON: Duration = Duration::from_millis(40);
/// The first of the numbers of flows, which no two of a run share: what is tracked of one says nothing of another.
const FIRST: u16 = 10_000;
const PORTS: [u16; 2] = [80, 443];
/// Of the VPC's three interfaces the one that may forward.
const ROUTER: usize = 2;
const NAT: u64 = 7;

fn public(number: u64) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 7, 10 + number as u8)
}

struct Dice(SeededRandom);

impl Dice {
    fn roll(&self, sides: usize) -> usize {
        self.0.u64() as usize % sides
    }

    fn one_of<'a, T>(&self, all: &'a [T]) -> &'a T {
        &all[self.roll(all.len())]
    }

    /// Some of them, in their order.
    fn some<T: Clone>(&self, all: &[T]) -> Vec<T> {
        all.iter().filter(|_| self.roll(3) == 0).cloned().collect()
    }
}

/// Five guests: two in the first of a VPC's subnets and one in each other, the last of which may forward, and one in a
/// peer VPC. Each has more addresses than the plan lets it have: a secondary one and one of a prefix, of each family.
struct World {
    cloud: Cloud,
    interfaces: Vec<Id>,
    guests: Vec<Guest>,
    /// Of guests and then of the outside.
    addresses: Vec<Vec<IpAddr>>,
    heard: Receiver<Heard>,
    number: u16,
}

/// All that an interface may have: its first address and its second, its prefix and an address in that, for each
/// family.
fn own(subnet: &str, subnet6: &str, last: u8) -> Interface {
    let v4 = |last: u8| format!("{subnet}.{last}").parse().unwrap();
    let v6 = |rest: String| format!("{subnet6}:{rest}");
    Interface {
        addresses: [last, last + 150].map(|last| Address { private_ip: v4(last), public_ip: None }).to_vec(),
        ipv6_addresses: [v6(format!(":{last}")), v6(format!(":1{last}"))]
            .map(|ip| ip.parse().unwrap())
            .to_vec(),
        prefixes: vec![
            IpNet::new(v4(last * 16).into(), 28).unwrap(),
            format!("{}/80", v6(format!("{last}::"))).parse().unwrap(),
        ],
        ..examples::interface(0)
    }
}

/// Lets a guest know its router once and for all, and nobody else on its link: who asks for another by an address that
/// is not its own is not answered, and would take down what it sends by others.
async fn know_router(guest: &Machine, subnet: &str) {
    let mac = crate::wire::ROUTER.map(|octet| format!("{octet:02x}")).join(":");
    let gateway = format!("{subnet}.1");
    for router in [gateway.clone(), ROUTER6.to_string()] {
        guest.ip(&["neigh", "replace", &router, "lladdr", &mac, "dev", "eth0", "nud", "permanent"]).await;
    }
    guest.ip(&["route", "add", &gateway, "dev", "eth0"]).await;
    guest.ip(&["route", "flush", "dev", "eth0", "proto", "kernel"]).await;
}

/// One that is the interface's by its prefix alone.
fn delegated(prefix: &IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(net) => Ipv4Addr::from_bits(net.network().to_bits() + 9).into(),
        IpNet::V6(net) => Ipv6Addr::from_bits(net.network().to_bits() + 9).into(),
    }
}

const PLACES: [(u64, &str, &str, u8); 5] = [
    (1, "10.0.0", "2001:db8:7:0", 5),
    (1, "10.0.1", "2001:db8:7:1", 5),
    (1, "10.0.2", "2001:db8:7:2", 5),
    (2, "10.1.0", "2001:db8:8:0", 5),
    (1, "10.0.0", "2001:db8:7:0", 6),
];

impl World {
    async fn new() -> World {
        let mut cloud = Cloud::start().await;
        let (one, _) = three_subnets(&mut cloud);
        let other = cloud.add_vpc(2, "10.1.0.0/16");
        cloud.add_group(2, &other, vec![]);
        cloud.add_group(3, &one, vec![]);
        for (vpc, block) in cloud.plan.vpcs.iter_mut().zip(["2001:db8:7::", "2001:db8:8::"]) {
            vpc.ipv6_cidrs = vec![format!("{block}/56").parse().unwrap()];
            for (number, subnet) in vpc.subnets.iter_mut().enumerate() {
                let net = block.replace("::", &format!(":{number}::/64"));
                subnet.ipv6_cidr = Some(net.parse().unwrap());
            }
        }
        let mut interfaces = Vec::new();
        for (number, (vpc, subnet, subnet6, last)) in (1..).zip(PLACES) {
            let vpc = if vpc == 1 { &one } else { &other };
            let interface_id = cloud.add_interface(number, vpc, &format!("{subnet}.{last}"), &[]);
            let all = own(subnet, subnet6, last);
            let interface = cloud.interface(&interface_id);
            (interface.addresses, interface.ipv6_addresses) = (all.addresses, all.ipv6_addresses);
            interfaces.push(interface_id);
        }
        peer(&mut cloud, 1, 0, 1);
        cloud.apply().await;
        cloud.outside.ip(&["route", "add", "198.18.7.0/24", "via", "203.0.113.1"]).await;
        for block in ["2001:db8:7::/56", "2001:db8:8::/56"] {
            cloud.outside.ip(&["-6", "route", "add", block, "via", &HOST6.to_string()]).await;
        }
        let (tell, heard) = mpsc::channel();
        let mut world = World { cloud, interfaces, guests: vec![], addresses: vec![], heard, number: FIRST };
        for (interface_id, (_, subnet, subnet6, last)) in world.interfaces.iter().zip(PLACES) {
            let guest = world.cloud.guest(interface_id).await;
            let all = own(subnet, subnet6, last);
            let more = all.prefixes.iter().map(delegated).chain([all.addresses[1].private_ip.into()]);
            for address in more {
                let flags: &[&str] = if address.is_ipv6() { &["nodad"] } else { &[] };
                let net = IpNet::from(address).to_string();
                guest.ip(&[&["address", "add", &net, "dev", "eth0"], flags].concat()).await;
            }
            let ipv4 = all.addresses.iter().map(|own| own.private_ip.into());
            let ipv6 = all.ipv6_addresses.iter().map(|own| IpAddr::from(*own));
            let addresses = ipv4.chain(ipv6).chain(all.prefixes.iter().map(delegated)).collect();
            world.addresses.push(addresses);
            know_router(&guest, subnet).await;
            world.guests.push(guest);
        }
        let forwards = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
        for setting in forwards.map(|name| format!("/proc/sys/net/{name}")) {
            world.guests[ROUTER].run(move || std::fs::write(setting, "1")).await.unwrap();
        }
        world.addresses.push(vec![OUTSIDE.into(), OUTSIDE6.into()]);
        for (number, addresses) in world.addresses.iter().enumerate() {
            let ends = addresses.iter().flat_map(|address| PORTS.map(|port| (*address, port).into()));
            probe::answer(world.machine(number), number, ends.collect(), &tell).await;
        }
        world
    }

    /// Another cloud around the same guests.
    fn shuffle(&mut self, dice: &Dice) {
        let router = Target::Interface(self.interfaces[ROUTER].clone());
        let plan = &mut self.cloud.plan;
        let peering = Target::Peering(id(Kind::VpcPeeringConnection, 1));
        let edge_table_id = id(Kind::RouteTable, 9);
        let at_edge = [
            route("10.0.0.0/24", router.clone()),
            route("10.0.1.0/24", router.clone()),
            route("10.0.1.0/24", Target::Blackhole),
            route("10.0.0.0/16", router.clone()),
            route("2001:db8:7:1::/64", router.clone()),
            route("2001:db8:7::5/128", Target::Blackhole),
        ];
        for vpc in &mut plan.vpcs {
            vpc.route_tables.remove(&edge_table_id);
            vpc.edge_route_table_id = None;
            let is_first = vpc.vpc_id == id(Kind::Vpc, 1);
            vpc.internet_gateway = dice.roll(8) > 0;
            let modes = [PublicAccess::Outward, PublicAccess::Blocked];
            for subnet in &mut vpc.subnets {
                let is_shut = dice.roll(8) == 0;
                subnet.public_access = if is_shut { *dice.one_of(&modes) } else { PublicAccess::Open };
            }
            vpc.nat_gateways.clear();
            let gateway = Some(Target::InternetGateway);
            let mut translated = None;
            let mut defaults = vec![None, gateway.clone(), gateway.clone()];
            let defaults6 = [None, gateway.clone(), gateway.clone(), Some(Target::EgressOnlyInternetGateway)];
            if is_first {
                let subnet = dice.roll(3);
                let public_ip = (dice.roll(4) > 0).then(|| public(NAT));
                let nat = nat_gateway(NAT, subnet as u64, &[(&format!("10.0.{subnet}.9"), public_ip)]);
                defaults.push(Some(Target::NatGateway(nat.nat_gateway_id.clone())));
                defaults.push(Some(router.clone()));
                translated = Some(Target::NatGateway(nat.nat_gateway_id.clone()));
                vpc.nat_gateways.push(nat);
            }
            for table in vpc.route_tables.values_mut() {
                let inner = if is_first && dice.roll(2) == 0 { dice.some(&inner(&router)) } else { vec![] };
                let beyond = if is_first {
                    ["10.1.0.0/16", "2001:db8:8::/56"]
                } else {
                    ["10.0.0.0/16", "2001:db8:7::/56"]
                };
                let across = [Some(peering.clone()), Some(peering.clone()), Some(Target::Blackhole), None];
                let closer = [None, None, Some(Target::Blackhole), gateway.clone()];
                let choices = [
                    (beyond[0], &across[..]),
                    (beyond[1], &across),
                    ("0.0.0.0/0", &defaults),
                    ("::/0", &defaults6),
                    ("203.0.113.0/24", &closer),
                    ("2001:db8::/64", &closer),
                ];
                let chosen =
                    choices.into_iter().filter_map(|(net, all)| Some(route(net, dice.one_of(all).clone()?)));
                let translated = translated.clone().map(|target| route("64:ff9b::/96", target));
                let routes = inner.into_iter().chain(chosen).chain(translated).collect();
                *table = RouteTable { routes };
            }
            if is_first && dice.roll(3) == 0 {
                let routes = dice.some(&at_edge[dice.roll(2)..]);
                vpc.route_tables.insert(edge_table_id.clone(), RouteTable { routes });
                vpc.edge_route_table_id = Some(edge_table_id.clone());
            }
            for acl in vpc.network_acls.values_mut() {
                *acl = match dice.roll(3) {
                    0 => NetworkAcl { ingress: entries(dice), egress: entries(dice) },
                    _ => examples::open(),
                };
            }
        }
        let (rules, any) = (rules(), ["0.0.0.0/0", "::/0"].map(|net| rule(Protocol::All, net)));
        for group in &mut plan.groups {
            group.members.clear();
            group.ingress = if dice.roll(2) == 0 { any.to_vec() } else { dice.some(&rules) };
            group.egress = if dice.roll(3) > 0 { any.to_vec() } else { dice.some(&rules) };
        }
        for ((number, interface), place) in (0..).zip(&mut plan.interfaces).zip(PLACES) {
            let (_, subnet, subnet6, last) = place;
            let all = own(subnet, subnet6, last);
            interface.addresses = all.addresses[..1 + dice.roll(2)].to_vec();
            for (second, address) in (0..).zip(&mut interface.addresses) {
                address.public_ip = (dice.roll(4) > 0).then(|| public(number * 10 + second + 10));
            }
            interface.ipv6_addresses = all.ipv6_addresses[..dice.roll(4).min(2)].to_vec();
            interface.prefixes = all.prefixes.into_iter().filter(|_| dice.roll(2) == 0).collect();
            interface.source_dest_check = number as usize != ROUTER || dice.roll(3) == 0;
            let groups = [1, 3].map(|group| id(Kind::SecurityGroup, group));
            interface.groups = match interface.vpc_id == id(Kind::Vpc, 1) {
                true => [&groups[..1], &groups[1..], &groups][dice.roll(3)].to_vec(),
                false => vec![id(Kind::SecurityGroup, 2)],
            };
            for group in plan.groups.iter_mut().filter(|group| interface.groups.contains(&group.group_id)) {
                group.members.entry(interface.vpc_id.clone()).or_default().extend(interface.networks());
            }
        }
    }

    /// The outside comes after the guests.
    fn machine(&self, number: usize) -> &Machine {
        self.guests.get(number).map_or(&self.cloud.outside, |guest| &guest.machine)
    }

    fn interface(&self, number: usize) -> Option<&Interface> {
        let id = self.interfaces.get(number)?;
        self.cloud.plan.interfaces.iter().find(|interface| interface.interface_id == *id)
    }

    /// A flow from one machine to another, by one of its addresses or a public one of theirs: where it is translated, from
    /// IPv6 to IPv4.
    fn flow(&mut self, dice: &Dice, is_translated: bool) -> Option<Flow> {
        let (from, to) = (dice.roll(6), dice.roll(6));
        let source = *dice.one_of(&self.addresses[from]);
        if is_translated && source.is_ipv4() {
            return None;
        }
        let to_ipv4 = source.is_ipv4() || is_translated;
        let is_same_family = |address: &&IpAddr| address.is_ipv4() == to_ipv4;
        let mut addresses: Vec<IpAddr> = self.addresses[to].iter().filter(is_same_family).copied().collect();
        let own = self.interface(to).into_iter().flat_map(|interface| &interface.addresses);
        let public = own.filter_map(|own| Some(own.public_ip?.into())).filter(|_| to_ipv4);
        let public: Vec<IpAddr> = public.collect();
        if source == IpAddr::from(OUTSIDE) || (!public.is_empty() && dice.roll(3) == 0) {
            addresses.clone_from(&public);
        }
        // What a router has beside what the cloud gave it, nobody can know.
        let is_known = |address| self.interface(to).is_none_or(|interface| interface.has(address));
        addresses.retain(|address| to != ROUTER || is_known(*address) || public.contains(address));
        // What answers the router through itself finds its way by chance.
        let answers_by_chance = from == ROUTER && addresses == public;
        if from == to || addresses.is_empty() || answers_by_chance {
            return None;
        }
        self.number = self.number.checked_add(1).unwrap_or(FIRST);
        let (source_port, destination_port) = (self.number, *dice.one_of(&PORTS));
        let code = dice.roll(2) as u8;
        let payload = match (dice.roll(3), source) {
            (0, _) => Payload::Udp { source_port, destination_port },
            // Echo requests, and now and then a question about the time, or a report that belongs to nothing.
            // Guests tell the time without a code, whichever they are asked with.
            (1, IpAddr::V4(_)) => match *dice.one_of(&[8, 8, 8, 13, 3]) {
                13 => Payload::Icmp { kind: 13, code: 0 },
                kind => Payload::Icmp { kind, code },
            },
            (1, IpAddr::V6(_)) => Payload::Icmpv6 { kind: *dice.one_of(&[128, 128, 128, 1]), code },
            _ => Payload::Tcp { source_port, destination_port },
        };
        let destination = match *dice.one_of(&addresses) {
            IpAddr::V4(address) if is_translated => nat64::ipv6(address).into(),
            address => address,
        };
        let packet = Packet { source, destination, payload };
        let by = self.interface(from).map_or(Source::Internet, Source::Interface);
        let trace = trace::trace(&self.cloud.plan, by, packet);
        Some(Flow { number: self.number, from, packet, trace })
    }

    /// Who hears of a flow's first packet, by its trace.
    fn hearer(&self, flow: &Flow) -> Option<usize> {
        match &flow.trace.forward.end {
            End::Arrives(Place::Interface(id)) => {
                self.interfaces.iter().position(|interface| interface == id)
            }
            // Of all the internet there is one machine here.
            End::Arrives(Place::Internet) => {
                let last = flow.trace.forward.hops.last()?.packet.destination;
                [IpAddr::from(OUTSIDE), OUTSIDE6.into()].contains(&last).then_some(self.guests.len())
            }
            _ => None,
        }
    }

    /// Sends all at once, and compares what becomes of each with its trace; returns how many were answered.
    async fn check(&self, flows: &[Flow]) -> Result<usize, String> {
        let expected: Vec<bool> =
            flows.iter().map(|flow| flow.trace.passes() && self.hearer(flow).is_some()).collect();
        let mut probes: Vec<(usize, Probe)> = Vec::new();
        for machine in 0..self.addresses.len() {
            let its: Vec<(usize, &Flow)> =
                (0..).zip(flows).filter(|(_, flow)| flow.from == machine).collect();
            let packets = its.iter().map(|(_, flow)| (flow.number, flow.packet)).collect();
            let sent = probe::send(self.machine(machine), packets).await;
            probes.extend(its.into_iter().map(|(at, _)| at).zip(sent));
        }
        probes.sort_by_key(|(at, _)| *at);
        let probes: Vec<Probe> = probes.into_iter().map(|(_, probe)| probe).collect();
        let udp = flows.iter().filter(|flow| matches!(flow.packet.payload, Payload::Udp { .. }));
        let arrive: BTreeSet<Heard> =
            udp.filter_map(|flow| Some((self.hearer(flow)?, flow.number))).collect();
        let mut heard = BTreeSet::new();
        // What was said twice may be heard of an earlier cloud.
        let is_of_these = |heard: &Heard| flows.iter().any(|flow| flow.number == heard.1);
        let mut is_heard = || {
            heard.extend(self.heard.try_iter().filter(is_of_these));
            heard.is_superset(&arrive)
        };
        let came = probe::answered(&probes, &expected, &mut is_heard, PATIENCE, SOON);
        is_heard();
        for ((flow, came), expected) in flows.iter().zip(&came).zip(expected) {
            let Flow { packet, trace, .. } = flow;
            if *came != expected {
                return Err(format!("{packet:?}: answered {came}, and by the trace {trace:#?}"));
            }
        }
        if let Some((who, number)) = heard.symmetric_difference(&arrive).next() {
            let flow = flows.iter().find(|flow| flow.number == *number);
            let (packet, trace) = flow.map(|flow| (flow.packet, &flow.trace)).unzip();
            return Err(format!("{packet:?}: heard by {who} or not, unlike the trace {trace:#?}"));
        }
        Ok(came.into_iter().filter(|came| *came).count())
    }
}

struct Flow {
    number: u16,
    from: usize,
    packet: Packet,
    trace: Trace,
}

/// More specific than the VPC's own routes.
fn inner(router: &Target) -> [Route; 6] {
    [
        route("10.0.0.0/24", router.clone()),
        route("10.0.1.0/24", router.clone()),
        route("10.0.2.0/24", router.clone()),
        route("10.0.0.5/32", Target::Blackhole),
        route("2001:db8:7:1::/64", router.clone()),
        route("2001:db8:7::5/128", Target::Blackhole),
    ]
}

fn rule(protocol: Protocol, net: &str) -> Rule {
    Rule { protocol, peer: Peer::Cidr(net.parse().unwrap()) }
}

fn tcp(from: u16, to: u16) -> Protocol {
    Protocol::Tcp { from, to }
}

fn udp(from: u16, to: u16) -> Protocol {
    Protocol::Udp { from, to }
}

fn icmp(kind: u8) -> Protocol {
    Protocol::Icmp { kind: Some(kind), code: None }
}

fn icmpv6(code: Option<u8>) -> Protocol {
    Protocol::Icmpv6 { kind: Some(128), code }
}

fn rules() -> Vec<Rule> {
    let group = |protocol, number| Rule { protocol, peer: Peer::Group(id(Kind::SecurityGroup, number)) };
    vec![
        rule(tcp(80, 80), "0.0.0.0/0"),
        rule(tcp(443, 443), "10.0.0.0/16"),
        rule(tcp(443, 443), "203.0.113.0/24"),
        rule(tcp(80, 80), "198.18.7.0/24"),
        rule(udp(80, 443), "10.0.0.0/8"),
        rule(icmp(8), "0.0.0.0/0"),
        rule(Protocol::Icmp { kind: Some(13), code: Some(0) }, "10.0.0.0/8"),
        rule(Protocol::All, "10.0.0.0/8"),
        rule(Protocol::Number(6), "10.0.1.5/32"),
        rule(Protocol::Number(1), "10.0.0.0/16"),
        rule(tcp(1, 442), "::/0"),
        rule(udp(443, 443), "2001:db8:7::/56"),
        rule(icmpv6(None), "2001:db8::/64"),
        rule(icmpv6(Some(0)), "::/0"),
        rule(Protocol::Number(58), "2001:db8:7::/56"),
        rule(Protocol::All, "2001:db8:7:1::/64"),
        group(Protocol::All, 3),
        group(udp(0, 65535), 1),
    ]
}

fn entries(dice: &Dice) -> Vec<AclEntry> {
    let some = [
        (false, "10.0.0.0/24", tcp(80, 80)),
        (true, "10.0.0.0/8", Protocol::All),
        (false, "2001:db8:7::/64", udp(0, 443)),
        (true, "2001:db8:7::/56", Protocol::All),
        (false, "203.0.113.2/32", Protocol::Number(6)),
        (false, "::/0", icmpv6(Some(1))),
        (true, "0.0.0.0/0", tcp(1024, 65535)),
        (true, "0.0.0.0/0", udp(80, 80)),
        (true, "0.0.0.0/0", icmp(8)),
        (true, "0.0.0.0/0", icmp(0)),
        (true, "::/0", tcp(80, 65535)),
        (true, "::/0", udp(1024, 65535)),
        (true, "::/0", Protocol::Icmpv6 { kind: None, code: None }),
        (true, "203.0.113.0/24", Protocol::All),
        (true, "0.0.0.0/0", Protocol::All),
        (true, "::/0", Protocol::All),
    ];
    let entry = |(rule_number, (allow, cidr, protocol)): (u16, &(bool, &str, Protocol))| AclEntry {
        rule_number,
        cidr: cidr.parse().unwrap(),
        protocol: *protocol,
        allow: *allow,
    };
    (1..).zip(&some).filter(|_| dice.roll(2) == 0).map(entry).collect()
}

fn number<T: std::str::FromStr<Err: Debug>>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_meet_what_a_trace_says() {
    if !possible() {
        return;
    }
    let mut world = World::new().await;
    let seeds = match number("CUMULET_TRACE") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CUMULET_TRACES").unwrap_or(CLOUDS),
    };
    let (mut passed, mut translated, mut count) = (0, 0, 0);
    for seed in seeds {
        let dice = Dice(SeededRandom::new(seed));
        world.shuffle(&dice);
        world.cloud.apply().await;
        let mut flows = Vec::new();
        while flows.len() < FLOWS {
            flows.extend(world.flow(&dice, false));
        }
        while flows.len() < FLOWS + TRANSLATED {
            flows.extend(world.flow(&dice, true));
        }
        translated += flows[FLOWS..].iter().filter(|flow| flow.trace.passes()).count();
        let came = world.check(&flows).await;
        passed += came.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}\n{:#?}", world.cloud.plan));
        count += flows.len();
    }
    // Clouds in which nothing passes, or everything, would show nothing.
    assert!((count / 10..count * 9 / 10).contains(&passed), "{passed} of {count} passed");
    let count = count * TRANSLATED / (FLOWS + TRANSLATED);
    assert!((count / 20..count * 9 / 10).contains(&translated), "{translated} of {count} were translated");
}
