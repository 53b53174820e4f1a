//! What a trace says is what packets meet: random clouds, real connections.
//!
//! `CUMULET_TRACES=N` tries so many clouds, `CUMULET_TRACE=SEED` the one that was printed.

use crate::cloud::{Cloud, Guest, Machine, OUTSIDE, PATIENCE, id, possible, tcp_from};
use crate::peering::peer;
use crate::routes::{route, three_subnets};
use datapath::trace::{self, End, Packet, Payload, Place, Source};
use datapath::{
    AclEntry, Address, Interface, NatGateway, NetworkAcl, Peer, Protocol, PublicAccess, RouteTable, Rule,
    Target, examples,
};
use futures::future::join_all;
use model::{Id, Kind, Random, SeededRandom};
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Of the random clouds that every run tries.
const CLOUDS: u64 = 200;
const FLOWS: usize = 14;
/// What does not come about by then does not, where none is expected to.
const SOON: Duration = Duration::from_millis(80);
/// Among those that guests choose from.
const EPHEMERAL: u16 = 40_000;
const PORTS: [u16; 2] = [80, 443];
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

/// Four guests: three in subnets of one VPC, the last of which may forward, and one in a peer VPC.
struct World {
    cloud: Cloud,
    interfaces: Vec<Id>,
    guests: Vec<Guest>,
}

impl World {
    async fn new() -> World {
        let mut cloud = Cloud::start().await;
        let (one, open) = three_subnets(&mut cloud);
        let other = cloud.add_vpc(2, "10.1.0.0/16");
        let there = cloud.add_group(2, &other, vec![]);
        cloud.add_group(3, &one, vec![]);
        let interfaces = vec![
            cloud.add_interface(1, &one, "10.0.0.5", &[&open]),
            cloud.add_interface(2, &one, "10.0.1.5", &[&open]),
            cloud.add_interface(3, &one, "10.0.2.5", &[&open]),
            cloud.add_interface(4, &other, "10.1.0.5", &[&there]),
        ];
        peer(&mut cloud, 1, 0, 1);
        cloud.apply().await;
        cloud.outside.ip(&["route", "add", "198.18.7.0/24", "via", "203.0.113.1"]).await;
        let mut guests = Vec::new();
        for interface in &interfaces {
            guests.push(cloud.guest(interface).await);
        }
        guests[2].run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).await.unwrap();
        for machine in guests.iter().map(|guest| &guest.machine).chain([&cloud.outside]) {
            for port in PORTS {
                let listener = machine.listen(port).await;
                // Nobody waits to be taken in: a full queue would look like a rule.
                std::thread::spawn(move || while listener.accept().is_ok() {});
            }
        }
        World { cloud, interfaces, guests }
    }

    /// Another cloud around the same guests.
    fn shuffle(&mut self, dice: &Dice) {
        let router = Target::Interface(self.interfaces[2].clone());
        let plan = &mut self.cloud.plan;
        let inner = [
            route("10.0.2.0/24", router.clone()),
            route("10.0.1.0/24", router.clone()),
            route("10.0.0.5/32", Target::Blackhole),
        ];
        let peering = Target::Peering(id(Kind::VpcPeeringConnection, 1));
        let nat = Target::NatGateway(id(Kind::NatGateway, NAT));
        let edge_table_id = id(Kind::RouteTable, 9);
        let at_edge = [
            route("10.0.0.0/24", router.clone()),
            route("10.0.1.0/24", router.clone()),
            route("10.0.1.0/24", Target::Blackhole),
            route("10.0.0.0/16", router.clone()),
        ];
        for vpc in &mut plan.vpcs {
            vpc.route_tables.remove(&edge_table_id);
            vpc.edge_route_table_id = None;
            let is_first = vpc.nat_gateways.is_empty() && vpc.subnets.len() > 1 || vpc.subnets.len() == 3;
            vpc.internet_gateway = dice.roll(8) > 0;
            let modes = [PublicAccess::Outward, PublicAccess::Blocked];
            for subnet in &mut vpc.subnets {
                let is_shut = dice.roll(8) == 0;
                subnet.public_access = if is_shut { *dice.one_of(&modes) } else { PublicAccess::Open };
            }
            vpc.nat_gateways.clear();
            let mut defaults = vec![None, Some(Target::InternetGateway), Some(Target::InternetGateway)];
            if is_first {
                let subnet_id = dice.one_of(&vpc.subnets).clone();
                let private_ip = nth(subnet_id.cidr, 9);
                let public_ip = (dice.roll(4) > 0).then(|| public(NAT));
                vpc.nat_gateways.push(NatGateway {
                    nat_gateway_id: id(Kind::NatGateway, NAT),
                    interface_id: id(Kind::NetworkInterface, 70),
                    mac: [2, 0, 0, 0, 7, 7],
                    subnet_id: subnet_id.subnet_id,
                    addresses: vec![Address { private_ip, public_ip }],
                });
                defaults.push(Some(nat.clone()));
                defaults.push(Some(router.clone()));
            }
            for table in vpc.route_tables.values_mut() {
                let mut routes = if is_first && dice.roll(3) == 0 { dice.some(&inner) } else { Vec::new() };
                let beyond = if is_first { "10.1.0.0/16" } else { "10.0.0.0/16" };
                let across = [Some(peering.clone()), Some(peering.clone()), Some(Target::Blackhole), None];
                routes.extend(dice.one_of(&across).clone().map(|target| route(beyond, target)));
                routes.extend(dice.one_of(&defaults).clone().map(|target| route("0.0.0.0/0", target)));
                let closer = [None, None, Some(Target::Blackhole), Some(Target::InternetGateway)];
                routes.extend(dice.one_of(&closer).clone().map(|target| route("203.0.113.0/24", target)));
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
        let member = Rule { protocol: Protocol::All, peer: Peer::Group(id(Kind::SecurityGroup, 3)) };
        let rules = [
            tcp_from("0.0.0.0/0", 80),
            tcp_from("10.0.0.0/16", 443),
            tcp_from("203.0.113.0/24", 443),
            tcp_from("198.18.7.0/24", 80),
            Rule { protocol: Protocol::All, peer: Peer::Cidr("10.0.0.0/8".parse().unwrap()) },
            Rule { protocol: Protocol::Number(6), peer: Peer::Cidr("10.0.1.5/32".parse().unwrap()) },
            member,
        ];
        let any = Rule { protocol: Protocol::All, peer: Peer::Cidr("0.0.0.0/0".parse().unwrap()) };
        for group in &mut plan.groups {
            group.members.clear();
            group.ingress = if dice.roll(2) == 0 { vec![any.clone()] } else { dice.some(&rules) };
            group.egress = if dice.roll(3) > 0 { vec![any.clone()] } else { dice.some(&rules) };
        }
        for (number, interface) in (1..).zip(&mut plan.interfaces) {
            interface.addresses[0].public_ip = (dice.roll(4) > 0).then(|| public(number));
            interface.source_dest_check = number != 3 || dice.roll(3) == 0;
            let groups = [1, 3].map(|group| id(Kind::SecurityGroup, group));
            interface.groups = match number {
                4 => vec![id(Kind::SecurityGroup, 2)],
                _ => [groups[..1].to_vec(), groups[1..].to_vec(), groups.to_vec()][dice.roll(3)].clone(),
            };
            for group in plan.groups.iter_mut().filter(|group| interface.groups.contains(&group.group_id)) {
                let members = group.members.entry(interface.vpc_id.clone()).or_default();
                members.insert(std::net::IpAddr::from(interface.primary().private_ip).into());
            }
        }
    }

    /// The outside is number 4.
    fn machine(&self, number: usize) -> &Machine {
        self.guests.get(number).map_or(&self.cloud.outside, |guest| &guest.machine)
    }

    fn interface(&self, number: usize) -> Option<&Interface> {
        let id = self.interfaces.get(number)?;
        self.cloud.plan.interfaces.iter().find(|interface| interface.interface_id == *id)
    }

    /// Whether a connection comes about as the trace says.
    async fn check(&self, from: usize, to: Ipv4Addr, port: u16) -> Result<bool, String> {
        let source_ip = self.interface(from).map_or(OUTSIDE, |interface| interface.primary().private_ip);
        let payload = Payload::Tcp { source_port: EPHEMERAL, destination_port: port };
        let packet = Packet { source: source_ip, destination: to, payload };
        let source = self.interface(from).map_or(Source::Internet, Source::Interface);
        let trace = trace::trace(&self.cloud.plan, source, packet);
        // Of all the internet there is one machine here.
        let is_nowhere = trace.forward.end == End::Arrives(Place::Internet) && to != OUTSIDE;
        let passes = trace.passes() && !is_nowhere;
        let wait = if passes { PATIENCE } else { SOON };
        let came = self.machine(from).connect(to, port, wait).await;
        match passes == came.is_ok() {
            true => Ok(came.is_ok()),
            false => Err(format!("{source_ip} to {to}:{port}: {came:?}, and by the trace {trace:#?}")),
        }
    }
}

fn nth(net: ipnet::Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()) + n)
}

fn entries(dice: &Dice) -> Vec<AclEntry> {
    let tcp = |from, to| Protocol::Tcp { from, to };
    let some = [
        (false, "10.0.0.0/24", tcp(80, 80)),
        (true, "10.0.0.0/8", Protocol::All),
        (false, "203.0.113.2/32", Protocol::Number(6)),
        (true, "0.0.0.0/0", tcp(1024, 65535)),
        (true, "0.0.0.0/0", tcp(80, 80)),
        (true, "0.0.0.0/0", tcp(443, 443)),
        (true, "203.0.113.0/24", Protocol::All),
        (true, "0.0.0.0/0", Protocol::All),
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
    let (mut passed, mut count) = (0, 0);
    for seed in seeds {
        let dice = Dice(SeededRandom::new(seed));
        world.shuffle(&dice);
        world.cloud.apply().await;
        let mut flows = Vec::new();
        while flows.len() < FLOWS {
            let (from, to) = (dice.roll(5), dice.roll(5));
            let by_public = from == 4 || dice.roll(3) == 0;
            let address = match world.interface(to).map(Interface::primary) {
                Some(own) => {
                    if by_public {
                        own.public_ip
                    } else {
                        Some(own.private_ip)
                    }
                }
                None => Some(OUTSIDE),
            };
            // What answers the router through itself finds its way by chance.
            let is_of_router = from == 2 && by_public;
            if let Some(address) = address.filter(|_| from != to && !is_of_router) {
                flows.push(world.check(from, address, *dice.one_of(&PORTS)));
            }
        }
        for result in join_all(flows).await {
            let came = result.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}\n{:#?}", world.cloud.plan));
            passed += usize::from(came);
            count += 1;
        }
    }
    // Clouds in which nothing passes, or everything, would show nothing.
    assert!((count / 10..count * 9 / 10).contains(&passed), "{passed} of {count} passed");
}
