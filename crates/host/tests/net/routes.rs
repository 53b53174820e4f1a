//! Route tables, and the addresses that an interface has beside its primary one.

use crate::cloud::{Cloud, Machine, OUTSIDE, PATIENCE, any_from, id, possible, within};
use crate::wire::{Card, Ends, ROUTER};
use datapath::{Address, NatGateway, Route, RouteTable, Subnet, Target, examples};
use model::{Id, Kind};
use std::io::Write;
use std::net::Ipv4Addr;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 5);
const PUBLIC_TOO: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 6);

pub fn route(destination: &str, target: Target) -> Route {
    Route { destination: destination.parse().unwrap(), target }
}

/// 10.0.0.0/16 with 10.0.0.0/24, 10.0.1.0/24 and 10.0.2.0/24, each with a route table and an ACL of its own number,
/// and a group that lets all pass.
pub fn three_subnets(cloud: &mut Cloud) -> (Id, Id) {
    let vpc_id = cloud.add_vpc(1, "10.0.0.0/16");
    let vpc = &mut cloud.plan.vpcs[0];
    vpc.subnets = (0..3)
        .map(|number| Subnet {
            route_table_id: id(Kind::RouteTable, number),
            network_acl_id: id(Kind::NetworkAcl, number),
            ..examples::subnet(number, &format!("10.0.{number}.0/24"))
        })
        .collect();
    vpc.route_tables = (0..3).map(|number| (id(Kind::RouteTable, number), RouteTable::default())).collect();
    vpc.network_acls = (0..3).map(|number| (id(Kind::NetworkAcl, number), examples::open())).collect();
    let group = cloud.add_group(1, &vpc_id, vec![any_from("0.0.0.0/0")]);
    (vpc_id, group)
}

pub fn set_routes(cloud: &mut Cloud, subnet: u64, routes: Vec<Route>) {
    *cloud.plan.vpcs[0].route_tables.get_mut(&id(Kind::RouteTable, subnet)).unwrap() = RouteTable { routes };
}

async fn add_address(machine: &Machine, address: &str) {
    machine.ip(&["address", "add", address, "dev", "eth0"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secondary_addresses_and_prefixes_are_an_interfaces_own() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (vpc, group) = three_subnets(&mut cloud);
    set_routes(&mut cloud, 0, vec![route("0.0.0.0/0", Target::InternetGateway)]);
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&group]);
    let b = cloud.add_interface(2, &vpc, "10.0.0.6", &[&group]);
    let second = Ipv4Addr::new(10, 0, 0, 7);
    cloud.translate(&a, Some(PUBLIC));
    cloud.interface(&a).addresses.push(Address { private_ip: second, public_ip: Some(PUBLIC_TOO) });
    cloud.interface(&a).prefixes = vec!["10.0.0.32/28".parse().unwrap()];
    cloud.apply().await;
    let (guest_a, guest_b) = (cloud.guest(&a).await, cloud.guest(&b).await);
    for address in ["10.0.0.7/24", "10.0.0.40/24"] {
        add_address(&guest_a, address).await;
    }
    let listener = guest_a.listen(80).await;
    let (first, delegated) = (guest_a.address, Ipv4Addr::new(10, 0, 0, 40));
    for address in [first, second, delegated] {
        assert!(guest_b.reaches(address, 80).await, "{address}");
    }
    for public in [PUBLIC, PUBLIC_TOO] {
        assert!(cloud.host.reaches(public, 80).await, "{public}");
    }
    for source in [first, second, delegated] {
        let at_b = guest_b.udp(7000).await;
        let socket = guest_a.run(move || std::net::UdpSocket::bind((source, 0))).await.unwrap();
        socket.send_to(b"hello", (guest_b.address, 7000)).unwrap();
        assert_eq!(at_b.recv_from(&mut [0; 16]).unwrap().1.ip(), source);
    }
    drop(listener);

    cloud.interface(&a).addresses.pop();
    cloud.interface(&a).prefixes.clear();
    cloud.apply().await;
    let _listener = guest_a.listen(80).await;
    assert!(guest_b.reaches(first, 80).await);
    for address in [second, delegated] {
        assert!(!guest_b.ping(address, std::time::Duration::from_millis(300)).await, "{address}");
    }
    assert!(cloud.host.connect(PUBLIC_TOO, 80, PATIENCE).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_address_is_worth_nothing_without_a_route() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (vpc, group) = three_subnets(&mut cloud);
    set_routes(&mut cloud, 0, vec![route("0.0.0.0/0", Target::InternetGateway)]);
    let routed = cloud.add_interface(1, &vpc, "10.0.0.5", &[&group]);
    let stranded = cloud.add_interface(2, &vpc, "10.0.1.5", &[&group]);
    cloud.translate(&routed, Some(PUBLIC));
    cloud.translate(&stranded, Some(PUBLIC_TOO));
    cloud.apply().await;
    let (routed, stranded) = (cloud.guest(&routed).await, cloud.guest(&stranded).await);
    let _outside = cloud.outside.listen(80).await;
    let (_first, _second) = (routed.listen(22).await, stranded.listen(22).await);
    assert!(routed.reaches(OUTSIDE, 80).await && stranded.is_ignored(OUTSIDE, 80).await);
    assert!(cloud.host.is_ignored(PUBLIC_TOO, 22).await, "answers have no way either");
    assert!(routed.reaches(stranded.address, 22).await, "within the VPC all is as ever");

    // The longest prefix decides.
    let more = vec![route("0.0.0.0/0", Target::InternetGateway), route("203.0.113.2/32", Target::Blackhole)];
    set_routes(&mut cloud, 0, more);
    set_routes(&mut cloud, 1, vec![route("203.0.113.0/24", Target::InternetGateway)]);
    cloud.apply().await;
    assert!(routed.is_ignored(OUTSIDE, 80).await);
    assert!(stranded.reaches(OUTSIDE, 80).await && cloud.host.reaches(PUBLIC_TOO, 22).await);
    let beside = Ipv4Addr::new(203, 0, 113, 3);
    cloud.outside.ip(&["address", "add", "203.0.113.3/24", "dev", "wan"]).await;
    assert!(routed.reaches(beside, 80).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_a_router_where_nothing_checks_it() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (vpc, group) = three_subnets(&mut cloud);
    let client = cloud.add_interface(1, &vpc, "10.0.0.5", &[&group]);
    let router = cloud.add_interface(2, &vpc, "10.0.1.5", &[&group]);
    let target = cloud.add_interface(3, &vpc, "10.0.2.5", &[&group]);
    cloud.interface(&router).source_dest_check = false;
    // To another subnet by the instance, both ways: more specific than the VPC's own route. And to a network of its own.
    let by_router = Target::Interface(router.clone());
    let elsewhere = route("192.168.77.0/24", by_router.clone());
    set_routes(&mut cloud, 0, vec![route("10.0.2.0/24", by_router.clone()), elsewhere]);
    set_routes(&mut cloud, 2, vec![route("10.0.0.0/24", by_router)]);
    cloud.apply().await;
    let (client, guest, server) =
        (cloud.guest(&client).await, cloud.guest(&router).await, cloud.guest(&target).await);
    let listener = server.listen(80).await;
    guest.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")).await.unwrap();
    assert!(client.is_ignored(server.address, 80).await, "the router does not forward yet");
    guest.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).await.unwrap();
    guest.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/send_redirects", "0")).await.unwrap();
    assert!(client.reaches(server.address, 80).await);
    assert_eq!(listener.accept().unwrap().1.ip(), client.address);
    assert!(guest.reaches(server.address, 80).await, "what is not led through it goes straight");
    guest.ip(&["address", "add", "192.168.77.1/32", "dev", "lo"]).await;
    assert!(client.ping(Ipv4Addr::new(192, 168, 77, 1), PATIENCE).await);
    let only_router = cloud.add_group(2, &vpc, vec![any_from("10.0.1.5/32")]);
    cloud.interface(&target).groups = vec![only_router];
    cloud.apply().await;
    assert!(client.is_ignored(server.address, 80).await, "the groups of both ends are asked");
    cloud.interface(&target).groups = vec![group];
    cloud.apply().await;

    cloud.interface(&router).source_dest_check = true;
    cloud.apply().await;
    assert!(client.is_ignored(server.address, 80).await, "with the check it is sent what is its own alone");
    assert!(guest.reaches(server.address, 80).await);
}

pub fn nat_gateway(number: u64, subnet: u64, addresses: &[(&str, Option<Ipv4Addr>)]) -> NatGateway {
    let address = |(private, public_ip): &(&str, Option<Ipv4Addr>)| Address {
        private_ip: private.parse().unwrap(),
        public_ip: *public_ip,
    };
    NatGateway {
        nat_gateway_id: id(Kind::NatGateway, number),
        interface_id: id(Kind::NetworkInterface, 0xa00 + number),
        mac: [2, 0, 0, 0xa, 0, number as u8],
        subnet_id: id(Kind::Subnet, subnet),
        addresses: addresses.iter().map(address).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nat_gateway_speaks_for_those_without_a_public_address() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start_known().await;
    let (vpc, group) = three_subnets(&mut cloud);
    let nat = nat_gateway(1, 0, &[("10.0.0.9", Some(PUBLIC)), ("10.0.0.10", Some(PUBLIC_TOO))]);
    cloud.plan.vpcs[0].nat_gateways.push(nat.clone());
    set_routes(&mut cloud, 0, vec![route("0.0.0.0/0", Target::InternetGateway)]);
    set_routes(&mut cloud, 1, vec![route("0.0.0.0/0", Target::NatGateway(nat.nat_gateway_id.clone()))]);
    let a = cloud.add_interface(1, &vpc, "10.0.1.5", &[&group]);
    let b = cloud.add_interface(2, &vpc, "10.0.1.6", &[&group]);
    cloud.apply().await;
    let (a, b) = (cloud.guest(&a).await, cloud.guest(&b).await);
    let outside = cloud.outside.listen(80).await;
    let mut seen = Vec::new();
    for guest in [&a, &b, &a, &b] {
        assert!(guest.reaches(OUTSIDE, 80).await);
        seen.push(outside.accept().unwrap().1.ip());
    }
    seen.sort();
    assert_eq!(seen, [PUBLIC, PUBLIC, PUBLIC_TOO, PUBLIC_TOO], "each address has its share");
    assert!(a.ping(OUTSIDE, PATIENCE).await);
    let _inside = a.listen(22).await;
    assert!(cloud.host.is_ignored(PUBLIC, 22).await, "nobody begins from outside");
    let c = b.listen(23).await;
    assert!(a.reaches(b.address, 23).await, "and within the VPC it has no part");
    drop(c);

    // A driver that comes after finds it as it was; a flush of its rules is mended.
    let name = cloud.options.tag.clone();
    let namespace = format!("cml-{name}-nat{}", &nat.nat_gateway_id[4..]);
    within(&namespace, &["nft", "flush", "ruleset"]);
    cloud.apply().await;
    assert!(a.reaches(OUTSIDE, 80).await);

    cloud.plan.vpcs[0].nat_gateways.clear();
    cloud.apply().await;
    assert!(a.is_ignored(OUTSIDE, 80).await);
    assert!(!cloud.namespaces().contains(&namespace), "nothing of it is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nat_gateway_has_ports_of_its_own_and_resets_what_was_idle() {
    if !possible() {
        return;
    }
    const PORTS: std::ops::RangeInclusive<u16> = 10_536..=65_535;
    let mut cloud = Cloud::start_known().await;
    let (vpc, group) = three_subnets(&mut cloud);
    let nat = nat_gateway(1, 0, &[("10.0.0.9", Some(PUBLIC))]);
    cloud.plan.vpcs[0].nat_gateways.push(nat.clone());
    set_routes(&mut cloud, 0, vec![route("0.0.0.0/0", Target::InternetGateway)]);
    set_routes(&mut cloud, 1, vec![route("0.0.0.0/0", Target::NatGateway(nat.nat_gateway_id.clone()))]);
    let [a, b, c] = [5, 6, 7].map(|at| cloud.add_interface(at, &vpc, &format!("10.0.1.{at}"), &[&group]));
    cloud.apply().await;
    let namespace = format!("cml-{}-nat{}", cloud.options.tag, &nat.nat_gateway_id[4..]);
    let count = || -> usize {
        let count = within(&namespace, &["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]);
        count.trim().parse().unwrap()
    };
    let client = cloud.guest(&c).await;
    let (outside, answers) = (cloud.outside.listen(80).await, cloud.outside.udp(81).await);
    client.udp(600).await.send_to(b"from a port of the system's", (OUTSIDE, 81)).unwrap();
    let (_, from) = answers.recv_from(&mut [0; 64]).unwrap();
    assert!(from.ip() == PUBLIC && PORTS.contains(&from.port()), "{from}");

    // All that two others can begin with one destination, which is more than there are ports for.
    for interface in [&a, &b] {
        let card = Card::plug(&cloud, interface).await;
        for port in 1024..29_500 {
            let ends = Ends { mac: ROUTER, from: (card.address, port), to: (OUTSIDE, 82) };
            card.send(&card.udp_frame(ends, b"flow"));
        }
    }
    let begun = count();
    assert!((PORTS.len() * 9 / 10..=PORTS.len() + 10).contains(&begun), "{begun}");
    let sender = client.udp(0).await;
    sender.send_to(b"another destination", (OUTSIDE, 81)).unwrap();
    assert_eq!(answers.recv_from(&mut [0; 64]).unwrap().0, 19);

    // As if it had been quiet for its 350 seconds.
    let mut connection = client.connect(OUTSIDE, 80, PATIENCE).await.unwrap();
    let _held = outside.accept().unwrap();
    let idle = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
    assert_eq!(within(&namespace, &["cat", idle]).trim(), "350");
    within(&namespace, &["sh", "-c", &format!("echo 0 > {idle}")]);
    let goes_on = |_| connection.write_all(b"on it goes").err();
    let reset = (0..10_000).find_map(goes_on).expect("it goes on");
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_nat_gateway_speaks_with_its_private_address() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (vpc, group) = three_subnets(&mut cloud);
    let nat = nat_gateway(1, 0, &[("10.0.0.9", None)]);
    cloud.plan.vpcs[0].nat_gateways.push(nat.clone());
    set_routes(&mut cloud, 0, vec![route("0.0.0.0/0", Target::InternetGateway)]);
    let by_nat = Target::NatGateway(nat.nat_gateway_id);
    set_routes(&mut cloud, 1, vec![route("0.0.0.0/0", by_nat.clone()), route("10.0.2.0/24", by_nat)]);
    let client = cloud.add_interface(1, &vpc, "10.0.1.5", &[&group]);
    let server = cloud.add_interface(2, &vpc, "10.0.2.5", &[&group]);
    cloud.apply().await;
    let (client, server) = (cloud.guest(&client).await, cloud.guest(&server).await);
    let listener = server.listen(80).await;
    assert!(client.reaches(server.address, 80).await);
    assert_eq!(listener.accept().unwrap().1.ip(), Ipv4Addr::new(10, 0, 0, 9));
    let _outside = cloud.outside.listen(80).await;
    assert!(client.is_ignored(OUTSIDE, 80).await, "no public address, no internet");
}
