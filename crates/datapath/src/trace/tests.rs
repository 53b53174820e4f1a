//! Reasons are named; that they are those of the packets is shown with packets, in `host`.

use super::*;
use crate::examples::{self, id, subnet};
use crate::{
    Address, NatGateway, NetworkAcl, Peer, Peering, Plan, Protocol, RouteTable, SecurityGroup, Target, nat64,
};
use model::Kind;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 5);

fn route(destination: &str, target: Target) -> Route {
    Route { destination: destination.parse().unwrap(), target }
}

fn any(cidr: &str) -> Rule {
    Rule { protocol: Protocol::All, peer: Peer::Cidr(cidr.parse().unwrap()) }
}

/// Two subnets of 10.0.0.0/16 with an interface each, and a peer VPC with one.
fn plan() -> Plan {
    let vpc = |number: u64, cidr: &str, subnets: &[&str]| crate::Vpc {
        cidrs: vec![cidr.parse().unwrap()],
        subnets: (number * 10..).zip(subnets).map(|(number, cidr)| subnet(number, cidr)).collect(),
        peerings: vec![Peering {
            peering_id: id(Kind::VpcPeeringConnection, 1),
            peer_vpc_id: id(Kind::Vpc, 3 - number),
            resolves_names: false,
        }],
        route_tables: [(id(Kind::RouteTable, 1), RouteTable::default())].into(),
        ..examples::vpc(number)
    };
    let interface = |number: u64, vpc: u64, subnet: u64, ip: [u8; 4]| Interface {
        vpc_id: id(Kind::Vpc, vpc),
        subnet_id: id(Kind::Subnet, subnet),
        addresses: vec![Address { private_ip: ip.into(), public_ip: None }],
        groups: vec![id(Kind::SecurityGroup, vpc)],
        ..examples::interface(number)
    };
    let group = |number: u64| SecurityGroup {
        group_id: id(Kind::SecurityGroup, number),
        vpc_id: id(Kind::Vpc, number),
        ingress: vec![any("10.0.0.0/8")],
        egress: vec![any("0.0.0.0/0")],
        members: BTreeMap::new(),
    };
    Plan {
        vpcs: vec![
            vpc(1, "10.0.0.0/16", &["10.0.0.0/24", "10.0.1.0/24"]),
            vpc(2, "10.1.0.0/16", &["10.1.0.0/24"]),
        ],
        interfaces: vec![
            interface(1, 1, 10, [10, 0, 0, 5]),
            interface(2, 1, 11, [10, 0, 1, 5]),
            interface(3, 2, 20, [10, 1, 0, 5]),
        ],
        groups: vec![group(1), group(2)],
        ..Plan::default()
    }
}

fn routes(plan: &mut Plan, vpc: usize, routes: Vec<Route>) {
    plan.vpcs[vpc].route_tables = [(id(Kind::RouteTable, 1), RouteTable { routes })].into();
}

fn from_first(plan: &Plan, destination: impl Into<IpAddr>, payload: Payload) -> Trace {
    let source = plan.interfaces[0].addresses[0].private_ip.to_string();
    from_first_as(plan, &source, destination.into(), payload)
}

fn from_first_as(plan: &Plan, source: &str, destination: IpAddr, payload: Payload) -> Trace {
    let packet = Packet { source: source.parse().unwrap(), destination, payload };
    trace(plan, Source::Interface(&plan.interfaces[0]), packet)
}

#[test]
fn what_stands_in_the_way_is_named() {
    let tcp = Payload::Tcp { source_port: 40_000, destination_port: 22 };
    let mut plan = plan();
    let there = from_first(&plan, [10, 0, 1, 5], ECHO);
    assert!(there.passes() && there.obstacle().is_none());
    let served =
        from_first(&plan, [169, 254, 169, 254], Payload::Tcp { source_port: 40_000, destination_port: 80 });
    assert_eq!((served.passes(), served.back), (true, None));
    let closed = from_first(&plan, [169, 254, 169, 254], tcp);
    assert!(matches!(closed.obstacle(), Some(Obstacle::NotServed { .. })));
    let nobody = from_first(&plan, [10, 0, 1, 77], tcp);
    assert!(matches!(nobody.obstacle(), Some(Obstacle::NobodyHas { .. })));
    let unrouted = from_first(&plan, OUTSIDE, tcp);
    assert!(matches!(unrouted.obstacle(), Some(Obstacle::NoRoute { .. })));

    routes(
        &mut plan,
        0,
        vec![route("0.0.0.0/0", Target::InternetGateway), route("10.1.0.0/16", Target::Blackhole)],
    );
    let unnamed = from_first(&plan, OUTSIDE, tcp);
    assert!(matches!(unnamed.obstacle(), Some(Obstacle::NoPublicAddress { .. })));
    let gone = from_first(&plan, [10, 1, 0, 5], tcp);
    assert!(matches!(gone.obstacle(), Some(Obstacle::Blackhole { .. })));
    plan.interfaces[0].addresses[0].public_ip = Some(PUBLIC);
    assert!(from_first(&plan, OUTSIDE, tcp).passes());
    plan.vpcs[0].internet_gateway = false;
    let shut = from_first(&plan, OUTSIDE, tcp);
    assert!(matches!(shut.obstacle(), Some(Obstacle::NoInternetGateway { .. })));

    let acl = NetworkAcl { ingress: vec![], egress: examples::open().egress };
    plan.vpcs[0].network_acls = [(plan.vpcs[0].subnets[0].network_acl_id.clone(), acl)].into();
    let refused = from_first(&plan, [10, 0, 1, 5], tcp);
    assert!(matches!(refused.obstacle(), Some(Obstacle::NoEntry { egress: false, .. })));
    plan.vpcs[0].network_acls.clear();
    plan.groups[0].ingress.clear();
    let refused = from_first(&plan, [10, 0, 1, 5], tcp);
    let Some(Obstacle::NoRule { interface_id, egress: false, .. }) = refused.obstacle() else { panic!() };
    assert_eq!(*interface_id, plan.interfaces[1].interface_id);
    assert_eq!(
        refused.obstacle().unwrap().to_string(),
        format!("no inbound rule of the security groups of {interface_id} allows it")
    );
}

#[test]
fn the_way_back_is_another_matter() {
    let mut plan = plan();
    let peering = || Target::Peering(id(Kind::VpcPeeringConnection, 1));
    routes(&mut plan, 0, vec![route("10.1.0.0/16", peering())]);
    routes(&mut plan, 1, vec![]);
    let there = from_first(&plan, [10, 1, 0, 5], ECHO);
    assert!(matches!(there.forward.end, End::Arrives(Place::Interface(_))));
    assert!(matches!(there.back.unwrap().end, End::Dropped(Obstacle::NoRoute { .. })));
    routes(&mut plan, 1, vec![route("10.0.0.0/16", peering())]);
    assert!(from_first(&plan, [10, 1, 0, 5], ECHO).passes());
}

/// Led out, what of both families the first interface sends, by a NAT gateway in the second subnet.
fn by_nat_gateway() -> Plan {
    let mut plan = plan();
    let nat_gateway_id = id(Kind::NatGateway, 1);
    let private_ip = Ipv4Addr::new(10, 0, 1, 9);
    plan.vpcs[0].nat_gateways.push(NatGateway {
        nat_gateway_id: nat_gateway_id.clone(),
        interface_id: id(Kind::NetworkInterface, 9),
        mac: [2; 6],
        subnet_id: id(Kind::Subnet, 11),
        addresses: vec![Address { private_ip, public_ip: Some(PUBLIC) }],
    });
    let table = id(Kind::RouteTable, 2);
    plan.vpcs[0].subnets[1].route_table_id = table.clone();
    let by_nat = Target::NatGateway(nat_gateway_id);
    routes(&mut plan, 0, vec![route("0.0.0.0/0", by_nat.clone()), route("64:ff9b::/96", by_nat)]);
    let out = RouteTable { routes: vec![route("0.0.0.0/0", Target::InternetGateway)] };
    plan.vpcs[0].route_tables.insert(table, out);
    plan
}

#[test]
fn a_nat_gateway_speaks_for_others_and_hears_only_answers() {
    let plan = by_nat_gateway();
    let there = from_first(&plan, OUTSIDE, ECHO);
    assert!(there.passes(), "{there:#?}");
    assert_eq!(there.forward.hops.last().unwrap().packet.source, IpAddr::from(PUBLIC));
    assert_eq!(
        there.back.unwrap().hops.last().unwrap().packet.destination,
        IpAddr::from(plan.interfaces[0].addresses[0].private_ip)
    );
    let packet = Packet { source: OUTSIDE.into(), destination: PUBLIC.into(), payload: ECHO };
    let inward = trace(&plan, Source::Internet, packet);
    assert!(matches!(inward.obstacle(), Some(Obstacle::NoWayIn { .. })));
}

#[test]
fn a_nat_gateway_speaks_ipv4_for_who_has_ipv6_alone() {
    let mut plan = by_nat_gateway();
    let own: IpAddr = "2001:db8:7::5".parse().unwrap();
    plan.vpcs[0].ipv6_cidrs = vec!["2001:db8:7::/56".parse().unwrap()];
    plan.vpcs[0].subnets[0].ipv6_cidr = Some("2001:db8:7::/64".parse().unwrap());
    plan.interfaces[0].addresses.clear();
    plan.interfaces[0].ipv6_addresses = vec!["2001:db8:7::5".parse().unwrap()];
    plan.groups[0].egress = vec![any("64:ff9b::203.0.113.0/120"), any("64:ff9b::169.254.0.0/112")];
    let to = |address: Ipv4Addr, payload| {
        from_first_as(&plan, "2001:db8:7::5", nat64::ipv6(address).into(), payload)
    };
    let there = to(OUTSIDE, ECHO6);
    assert!(there.passes(), "{there:#?}");
    let sent = there.forward.hops.last().unwrap().packet;
    assert_eq!(sent, Packet { source: PUBLIC.into(), destination: OUTSIDE.into(), payload: ECHO });
    let answer = there.back.unwrap().hops.last().unwrap().packet;
    assert_eq!((answer.source, answer.destination), (nat64::ipv6(OUTSIDE).into(), own));
    assert_eq!(answer.payload, Payload::Icmpv6 { kind: 129, code: 0 });

    let nowhere = to(Ipv4Addr::new(169, 254, 169, 254), ECHO6);
    assert!(matches!(nowhere.obstacle(), Some(Obstacle::NoDestination { .. })));
    let other = to(OUTSIDE, Payload::Other(47));
    assert!(matches!(other.obstacle(), Some(Obstacle::NotTranslatable { .. })));
    let unallowed = to(Ipv4Addr::new(192, 0, 2, 1), ECHO6);
    assert!(matches!(unallowed.obstacle(), Some(Obstacle::NoRule { .. })));
}

#[test]
fn ipv6_is_itself_everywhere_and_an_egress_only_gateway_lets_nobody_in() {
    let somebody: IpAddr = "2001:db8:ffff::9".parse().unwrap();
    let mut plan = plan();
    plan.vpcs[0].ipv6_cidrs = vec!["2001:db8:7::/56".parse().unwrap()];
    plan.vpcs[0].subnets[0].ipv6_cidr = Some("2001:db8:7::/64".parse().unwrap());
    let refused = from_first_as(&plan, "2001:db8:7::5", somebody, ECHO6);
    assert!(matches!(refused.obstacle(), Some(Obstacle::NoIpv6 { .. })));
    plan.interfaces[0].prefixes = vec!["2001:db8:7:0:5::/80".parse().unwrap()];
    let foreign = from_first_as(&plan, "2001:db8:7::5", somebody, ECHO6);
    assert!(matches!(foreign.obstacle(), Some(Obstacle::ForeignSource { .. })));
    let own = "2001:db8:7:0:5::1";
    plan.groups[0].egress.push(any("::/0"));
    let ask = |plan: &Plan| from_first_as(plan, own, somebody, ECHO6);
    assert!(matches!(ask(&plan).obstacle(), Some(Obstacle::NoRoute { .. })));
    for (target, place) in [
        (Target::InternetGateway, Place::InternetGateway),
        (Target::EgressOnlyInternetGateway, Place::EgressOnlyInternetGateway),
    ] {
        let is_open = target == Target::InternetGateway;
        routes(&mut plan, 0, vec![route("::/0", target)]);
        plan.groups[0].ingress = vec![any("::/0")];
        let there = ask(&plan);
        assert!(there.passes(), "{there:#?}");
        assert!(there.forward.hops.iter().any(|hop| hop.place == place));
        let packet = Packet { source: somebody, destination: own.parse().unwrap(), payload: ECHO6 };
        let inward = trace(&plan, Source::Internet, packet);
        assert_eq!(inward.passes(), is_open);
        assert!(is_open || matches!(inward.obstacle(), Some(Obstacle::EgressOnly { .. })));
    }
    let reported = from_first_as(&plan, own, somebody, Payload::Icmpv6 { kind: 1, code: 0 });
    assert!(matches!(reported.obstacle(), Some(Obstacle::BeginsNothing { kind: 1, .. })));
    let served = Payload::Udp { source_port: 40_000, destination_port: 123 };
    assert!(from_first_as(&plan, own, "fd00:ec2::123".parse().unwrap(), served).passes());
    let link = from_first_as(&plan, own, "ff02::2".parse().unwrap(), served);
    assert!(matches!(link.obstacle(), Some(Obstacle::NotServed { .. })));
}
