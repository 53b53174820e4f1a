//! IPv6: the same rules for the other family, and a router that speaks to guests before they have an address.

use crate::cloud::{Cloud, HOST6, OUTSIDE6, PATIENCE, ROUTER6, SILENCE, any_from, id, possible, tcp_from};
use crate::wire::{Card, Packet6};
use datapath::{AclEntry, Address, Interface, Protocol, Target};
use host::net::Network;
use model::{Id, Kind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

const BLOCK: &str = "fd12:3456:7800::/56";
const ONE: &str = "fd12:3456:7800::a";
const TWO: &str = "fd12:3456:7800::b";
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const ICMPV6: u8 = 58;
const UDP: u8 = 17;

/// A VPC with two interfaces of one group, which lets port 80 in from where it says.
async fn two(ingress: Vec<datapath::Rule>) -> (Cloud, Id, [Id; 2]) {
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    cloud.add_ipv6(&vpc, BLOCK);
    let group = cloud.add_group(1, &vpc, ingress);
    let nics = [(1, "10.0.0.5", ONE), (2, "10.0.0.6", TWO)].map(|(number, v4, v6)| {
        let nic = cloud.add_interface(number, &vpc, v4, &[&group]);
        cloud.assign_ipv6(&nic, v6);
        nic
    });
    (cloud, vpc, nics)
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_acls_decide_as_for_ipv4() {
    if !possible() {
        return;
    }
    let (mut cloud, vpc, [one, two]) = two(vec![tcp_from("fd12:3456:7800::/64", 80)]).await;
    cloud.apply().await;
    let (a, b) = (cloud.guest(&one).await, cloud.guest(&two).await);
    let _listeners = [b.listen6(80).await, b.listen6(81).await];
    let to: Ipv6Addr = TWO.parse().unwrap();
    assert!(a.reaches(to, 80).await);
    assert!(a.is_ignored(to, 81).await);
    assert!(a.is_ignored(b.address, 80).await, "a rule for IPv6 lets no IPv4 in");

    // Of the same group.
    let group = id(Kind::SecurityGroup, 1);
    cloud.group(&group).ingress = vec![datapath::Rule {
        protocol: Protocol::Tcp { from: 81, to: 81 },
        peer: datapath::Peer::Group(group.clone()),
    }];
    cloud.apply().await;
    assert!(a.reaches(to, 81).await);
    assert!(a.is_ignored(to, 80).await);

    // An ACL stands between subnets only: the second interface moves to one of its own.
    let mut other = cloud.plan.vpcs[0].subnets[0].clone();
    other.subnet_id = id(Kind::Subnet, 9);
    other.cidr = Some("10.0.9.0/24".parse().unwrap());
    other.ipv6_cidr = Some("fd12:3456:7800:1::/64".parse().unwrap());
    other.network_acl_id = id(Kind::NetworkAcl, 9);
    let mut shut = datapath::examples::open();
    let entry = |rule_number, cidr: &str, allow| AclEntry {
        rule_number,
        cidr: cidr.parse().unwrap(),
        protocol: Protocol::Tcp { from: 81, to: 81 },
        allow,
    };
    shut.ingress.insert(0, entry(1, "fd12:3456:7800::a/128", false));
    cloud.plan.vpcs[0].network_acls.insert(id(Kind::NetworkAcl, 9), shut);
    cloud.plan.vpcs[0].subnets[0].cidr = Some("10.0.0.0/24".parse().unwrap());
    cloud.plan.vpcs[0].subnets.push(other);
    let moved = cloud.interface(&two);
    moved.subnet_id = id(Kind::Subnet, 9);
    cloud.apply().await;
    assert!(a.is_ignored(to, 81).await, "{vpc}");
    cloud.plan.vpcs[0].network_acls.get_mut(&id(Kind::NetworkAcl, 9)).unwrap().ingress.remove(0);
    cloud.apply().await;
    assert!(a.reaches(to, 81).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_internet_gateway_leads_both_ways_and_the_egress_only_one_out() {
    if !possible() {
        return;
    }
    let (mut cloud, _, [one, _]) = two(vec![any_from("::/0")]).await;
    let before = cloud.host_state().await;
    cloud.apply().await;
    let guest = cloud.guest(&one).await;
    let address: Ipv6Addr = ONE.parse().unwrap();
    let (outside, inside) = (cloud.outside.listen6(80).await, guest.listen6(80).await);
    let to_cloud = ["-6", "route", "add", BLOCK, "via", &HOST6.to_string()];
    cloud.outside.ip(&to_cloud).await;

    // Nobody outside has a route to unique local addresses: the host lends its own.
    assert!(guest.reaches(OUTSIDE6, 80).await);
    assert_eq!(outside.accept().unwrap().1.ip(), IpAddr::V6(HOST6));
    assert!(cloud.outside.reaches(address, 80).await);
    assert_eq!(inside.accept().unwrap().1.ip(), IpAddr::V6(OUTSIDE6));
    assert!(cloud.host.reaches(address, 80).await);

    let routes = &mut cloud.plan.vpcs[0].route_tables.values_mut().next().unwrap().routes;
    for route in routes.iter_mut().filter(|route| route.destination.addr().is_ipv6()) {
        route.target = Target::EgressOnlyInternetGateway;
    }
    cloud.plan.vpcs[0].internet_gateway = false;
    cloud.apply().await;
    assert!(guest.reaches(OUTSIDE6, 80).await);
    assert!(cloud.outside.is_ignored(address, 80).await);
    cloud.plan.vpcs[0].internet_gateway = true;
    cloud.apply().await;
    assert!(guest.reaches(OUTSIDE6, 80).await);
    assert!(
        cloud.outside.is_ignored(address, 80).await,
        "the route decides, not the gateways that are there"
    );

    cloud.plan.vpcs[0].route_tables.values_mut().next().unwrap().routes.clear();
    cloud.apply().await;
    assert!(guest.is_ignored(OUTSIDE6, 80).await);

    drop(guest);
    cloud.network.remove_all().await.unwrap();
    assert_eq!(cloud.host_state().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_sends_as_itself_only_and_is_no_router() {
    if !possible() {
        return;
    }
    let (mut cloud, vpc, [one, two]) = two(vec![any_from("::/0")]).await;
    let mute = cloud.add_interface(3, &vpc, "10.0.0.7", &[&id(Kind::SecurityGroup, 1)]);
    cloud.apply().await;
    let (a, b) = (Card::plug(&cloud, &one).await, Card::plug(&cloud, &two).await);
    let [own, other]: [Ipv6Addr; 2] = [ONE, TWO].map(|text| text.parse().unwrap());
    let hears = |marker: &'static [u8]| move |frame: &[u8]| frame.ends_with(marker);
    let udp = |from: Ipv6Addr, to: Ipv6Addr, marker: &[u8]| {
        Packet6 { from, to, hops: 64, protocol: UDP }.datagram((1000, 1001), marker)
    };
    a.send(&a.frame6(udp(own, other, b"as itself")));
    b.receive(hears(b"as itself"));

    let strangers = ["fd12:3456:7800::c", TWO, "fe80::1", "::1", "2001:db8::9", "::ffff:10.0.0.5"];
    for stranger in strangers {
        a.send(&a.frame6(udp(stranger.parse().unwrap(), other, b"as another")));
    }
    // Another's MAC.
    let mut frame = a.frame6(udp(own, other, b"as another"));
    frame[11] ^= 1;
    a.send(&frame);
    // A router's word, and a neighbour's about somebody else, end at the router.
    let solicited = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0xb);
    for (to, kind) in [(ALL_NODES, 134), (other, 134), (other, 136), (solicited, 135), (other, 137)] {
        let packet = Packet6 { from: own, to, hops: 255, protocol: ICMPV6 };
        a.send(&a.frame6(packet.control(kind, b"advertisement of a liar!")));
    }
    assert!(b.hears_nothing(|frame| {
        frame.ends_with(b"as another") || (frame[12..14] == [0x86, 0xdd] && frame.ends_with(b"of a liar!"))
    }));

    // An interface without an address of IPv6 has no way at all, not even to its router.
    let mute = Card::plug(&cloud, &mute).await;
    let sockets = cloud.network.open_services(&vpc).await.unwrap().ipv6.unwrap();
    let solicit = Packet6 { from: "fe80::5".parse().unwrap(), to: ALL_ROUTERS, hops: 255, protocol: ICMPV6 };
    let solicitation = solicit.control(133, &[0; 4]);
    mute.send(&mute.frame6(solicitation.clone()));
    assert!(!heard(&sockets.router));
    a.send(&a.frame6(solicitation));
    assert!(heard(&sockets.router));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_finds_its_router_and_is_known_by_its_tap() {
    if !possible() {
        return;
    }
    let (cloud, vpc, [one, _]) = two(vec![]).await;
    cloud.apply().await;
    let card = Card::plug(&cloud, &one).await;
    let sockets = cloud.network.open_services(&vpc).await.unwrap();
    let ipv6 = sockets.ipv6.unwrap();
    let index = asks_for_an_address(&card, &ipv6.dhcp);
    assert_eq!(cloud.network.interface_of_index(&vpc, index), Some(one.clone()));

    // Who has the router's address? The router.
    let link_local: Ipv6Addr = "fe80::1234".parse().unwrap();
    let solicited = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff6c, 1);
    let ask = Packet6 { from: link_local, to: solicited, hops: 255, protocol: ICMPV6 };
    let question = [&[0; 4][..], &ROUTER6.octets(), &[1, 1], &card.mac].concat();
    let answer = card.ask(&card.frame6(ask.control(135, &question)), |frame| {
        frame[12..14] == [0x86, 0xdd] && frame[20] == ICMPV6 && frame[54] == 136
    });
    assert_eq!(answer[62..78], ROUTER6.octets());

    // The metadata service knows who calls, over IPv6 too.
    drop(card);
    let guest = cloud.guest(&one).await;
    let metadata: Ipv6Addr = "fd00:ec2::254".parse().unwrap();
    assert!(guest.reaches(metadata, 80).await);
    let listener = sockets.metadata.iter().find(|socket| socket.local_addr().unwrap().is_ipv6()).unwrap();
    listener.set_nonblocking(false).unwrap();
    let (stream, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), ONE.parse::<IpAddr>().unwrap());
    assert_eq!(cloud.network.interface_of_connection(&vpc, &stream), Some(one.clone()));
    assert_eq!(cloud.network.interface_of_address(&vpc, from.ip()), Some(one));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_takes_the_place_of_one_that_has_gone() {
    if !possible() {
        return;
    }
    let (mut cloud, vpc, [_, two]) = two(vec![]).await;
    cloud.apply().await;
    let index = cloud.network.index_of_interface(&two);
    let old = cloud.plan.interfaces.remove(1);
    cloud.apply().await;
    let three = id(Kind::NetworkInterface, 3);
    cloud.plan.interfaces.push(Interface { interface_id: three.clone(), ..old });
    cloud.apply().await;
    assert_eq!(cloud.network.index_of_interface(&three), index);
    let card = Card::plug(&cloud, &three).await;
    let ipv6 = cloud.network.open_services(&vpc).await.unwrap().ipv6.unwrap();
    asks_for_an_address(&card, &ipv6.dhcp);
}

/// Returns the index of the link by which the question came.
fn asks_for_an_address(card: &Card, dhcp: &UdpSocket) -> u32 {
    dhcp.set_nonblocking(false).unwrap();
    dhcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let solicit = Packet6 { from: "fe80::1234".parse().unwrap(), to: DHCP_SERVERS, hops: 1, protocol: UDP };
    card.send(&card.frame6(solicit.datagram((546, 547), b"SOLICIT")));
    let (message, index) = crate::wire::receive_with_index(dhcp);
    assert_eq!(message, b"SOLICIT");
    index
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegated_prefix_and_an_address_that_moves() {
    if !possible() {
        return;
    }
    let (mut cloud, vpc, [one, two]) = two(vec![any_from("::/0")]).await;
    cloud.interface(&two).prefixes.push("fd12:3456:7800:0:1::/80".parse().unwrap());
    cloud
        .interface(&two)
        .addresses
        .push(Address { private_ip: Ipv4Addr::new(10, 0, 0, 66), public_ip: None });
    cloud.apply().await;
    let (a, b) = (cloud.guest(&one).await, cloud.guest(&two).await);
    b.ip(&["address", "add", "fd12:3456:7800:0:1::77/80", "dev", "eth0", "nodad"]).await;
    let _listener = b.listen6(80).await;
    let inside: Ipv6Addr = "fd12:3456:7800:0:1::77".parse().unwrap();
    assert!(a.reaches(inside, 80).await);
    assert_eq!(cloud.network.interface_of_address(&vpc, inside.into()), Some(two.clone()));

    // A connection to an address that leaves ends with it.
    let address: Ipv6Addr = TWO.parse().unwrap();
    assert!(a.reaches(address, 80).await);
    cloud.interface(&two).ipv6_addresses.clear();
    cloud.apply().await;
    assert!(a.is_ignored(address, 80).await);
    assert!(a.reaches(inside, 80).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_of_ipv6_alone_has_all_but_ipv4() {
    if !possible() {
        return;
    }
    let (mut cloud, vpc, [one, two]) = two(vec![any_from("::/0"), any_from("0.0.0.0/0")]).await;
    let (subnet_id, own) = (id(Kind::Subnet, 9), "fd12:3456:7800:1::b".parse::<Ipv6Addr>().unwrap());
    let other = datapath::Subnet {
        subnet_id: subnet_id.clone(),
        cidr: None,
        ipv6_cidr: Some("fd12:3456:7800:1::/64".parse().unwrap()),
        ..cloud.plan.vpcs[0].subnets[0].clone()
    };
    cloud.plan.vpcs[0].subnets.push(other);
    let moved = cloud.interface(&two);
    (moved.subnet_id, moved.addresses, moved.ipv6_addresses) = (subnet_id, Vec::new(), vec![own]);
    cloud.apply().await;
    let _services = cloud.network.open_services(&vpc).await.unwrap();
    let (a, b) = (cloud.guest(&one).await, cloud.guest(&two).await);
    let _listeners = [a.listen6(80).await, b.listen6(80).await, cloud.outside.listen6(80).await];
    assert!(a.reaches(own, 80).await);
    assert!(b.reaches(ONE.parse::<Ipv6Addr>().unwrap(), 80).await);
    assert!(b.reaches(OUTSIDE6, 80).await);
    assert!(b.reaches("fd00:ec2::254".parse::<Ipv6Addr>().unwrap(), 80).await);

    assert!(cloud.network.guest_answers(&two).await.unwrap());
    b.ip(&["address", "del", &format!("{own}/128"), "dev", "eth0"]).await;
    assert!(!cloud.network.guest_answers(&two).await.unwrap());

    // Nothing of IPv4 is taken from it.
    b.ip(&["address", "add", "10.0.0.6/16", "dev", "eth0"]).await;
    assert!(b.is_ignored(a.address, 80).await);
}

fn heard(socket: &std::os::fd::OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let wait = Timespec { tv_sec: 0, tv_nsec: SILENCE.subsec_nanos().into() };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait)).unwrap() > 0
}
