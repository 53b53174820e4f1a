//! Who has IPv6 alone speaks to who has IPv4 alone, by a NAT gateway.

use crate::cloud::{Cloud, Guest, OUTSIDE, PATIENCE, any_from, id, possible, within};
use crate::mtu::learned;
use crate::routes::{nat_gateway, route, set_routes, three_subnets};
use datapath::{Target, nat64};
use model::{Id, Kind};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 9);
const PUBLIC_TOO: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 10);
const OWN: &str = "2001:db8:7:1::5";
const UNSUMMED: (i32, i32) = (libc::SOL_SOCKET, libc::SO_NO_CHECK);
const IN_PIECES: (i32, i32) = (libc::SOL_UDP, libc::UDP_SEGMENT);
const PREFIX: &str = "64:ff9b::/96";

/// Three subnets of which the second is of IPv6 alone, with an interface, and the first has a NAT gateway that it is led
/// to.
async fn start() -> (Cloud, Id) {
    let mut cloud = Cloud::start_known().await;
    let (vpc_id, _) = three_subnets(&mut cloud);
    let nat = nat_gateway(1, 0, &[("10.0.0.9", Some(PUBLIC)), ("10.0.0.10", Some(PUBLIC_TOO))]);
    let shut = cloud.add_group(9, &vpc_id, vec![]);
    let interface_id = cloud.add_interface(5, &vpc_id, "10.0.1.5", &[&shut]);
    let vpc = &mut cloud.plan.vpcs[0];
    vpc.ipv6_cidrs.push("2001:db8:7::/56".parse().unwrap());
    (vpc.subnets[1].cidr, vpc.subnets[1].ipv6_cidr) = (None, Some("2001:db8:7:1::/64".parse().unwrap()));
    vpc.nat_gateways.push(nat.clone());
    let interface = cloud.interface(&interface_id);
    (interface.addresses, interface.ipv6_addresses) = (Vec::new(), vec![OWN.parse().unwrap()]);
    set_routes(&mut cloud, 0, vec![route("0.0.0.0/0", Target::InternetGateway)]);
    set_routes(&mut cloud, 1, vec![route(PREFIX, Target::NatGateway(nat.nat_gateway_id))]);
    cloud.apply().await;
    (cloud, interface_id)
}

async fn bind(guest: &Guest) -> UdpSocket {
    let socket = guest.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).await.unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn set_option(socket: &UdpSocket, (level, option): (i32, i32), value: i32) {
    let length = size_of::<i32>() as libc::socklen_t;
    let value = (&raw const value).cast();
    assert_eq!(0, unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, length) });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ipv6_alone_reaches_what_has_ipv4_alone() {
    if !possible() {
        return;
    }
    let (cloud, interface_id) = start().await;
    let guest = cloud.guest(&interface_id).await;
    let (outside, answers) = (cloud.outside.listen(80).await, cloud.outside.udp(81).await);
    let there = nat64::ipv6(OUTSIDE);

    // Connections, each by another of the gateway's addresses, with more both ways than the kernel passes on at once.
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut near = guest.connect(there, 80, PATIENCE).await.unwrap();
        let (mut far, from) = outside.accept().unwrap();
        seen.push(from.ip());
        let sent: Vec<u8> = (0..400_000u32).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let echo = std::thread::spawn(move || {
            let mut received = vec![0; 400_000];
            far.read_exact(&mut received).unwrap();
            far.write_all(&received).unwrap();
        });
        near.write_all(&sent).unwrap();
        near.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut received = vec![0; 400_000];
        near.read_exact(&mut received).unwrap();
        echo.join().unwrap();
        assert!(received == expected);
    }
    seen.sort();
    assert_eq!(seen, [PUBLIC, PUBLIC_TOO]);

    assert!(guest.ping(there, PATIENCE).await);

    // Datagrams that fit, and those that come in fragments, with a checksum and without.
    let socket = bind(&guest).await;
    socket.send_to(b"hello", (there, 81)).unwrap();
    let (length, from) = answers.recv_from(&mut [0; 64]).unwrap();
    assert!(length == 5 && [PUBLIC, PUBLIC_TOO].contains(&from.ip().to_string().parse().unwrap()));
    set_option(&answers, (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_DONT);
    let mut buffer = vec![0; 10_000];
    for (length, unsummed) in [(5, 0), (4000, 0), (5, 1), (1400, 1)] {
        set_option(&answers, UNSUMMED, unsummed);
        let data: Vec<u8> = (0..length).map(|at: u32| (at % 249) as u8).collect();
        answers.send_to(&data, from).unwrap();
        let (received, by) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..received], by), (&data[..], SocketAddr::new(there.into(), 81)));
    }
    // Many at once, which nobody takes apart before the last link; and the same from the guest.
    set_option(&answers, UNSUMMED, 0);
    set_option(&answers, IN_PIECES, 1000);
    answers.send_to(&[9; 5000], from).unwrap();
    set_option(&socket, IN_PIECES, 900);
    socket.send_to(&[9; 4500], (there, 81)).unwrap();
    for _ in 0..5 {
        assert_eq!(socket.recv_from(&mut buffer).unwrap().0, 1000);
        assert_eq!(answers.recv_from(&mut buffer).unwrap().0, 900);
    }
    set_option(&answers, IN_PIECES, 0);
    set_option(&socket, IN_PIECES, 0);

    // What is too large for the way, and that nobody listens, is told both ways.
    assert_eq!(learned(&guest, there, PATIENCE).await, 1500 + 20);
    socket.send_to(&[7; 4000], (there, 81)).unwrap();
    assert_eq!(answers.recv_from(&mut buffer).unwrap().0, 4000, "taken apart by the guest");
    let refused = bind(&guest).await;
    refused.connect((there, 82)).unwrap();
    refused.send(b"anybody?").unwrap();
    assert_eq!(refused.recv(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    drop(socket);
    answers.connect(from).unwrap();
    answers.send(b"still there?").unwrap();
    assert_eq!(answers.recv(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_reached_whom_no_route_leads_to() {
    if !possible() {
        return;
    }
    let (mut cloud, interface_id) = start().await;
    let vpc_id = id(Kind::Vpc, 1);
    let open = id(Kind::SecurityGroup, 1);
    let near = cloud.add_interface(6, &vpc_id, "10.0.2.5", &[&open]);
    let dual = cloud.add_interface(7, &vpc_id, "10.0.2.6", &[&open]);
    cloud.apply().await;
    let (guest, near, dual) =
        (cloud.guest(&interface_id).await, cloud.guest(&near).await, cloud.guest(&dual).await);
    let _listeners = [cloud.outside.listen(80).await, near.listen(80).await];
    let there = nat64::ipv6(OUTSIDE);
    assert!(guest.reaches(there, 80).await && guest.reaches(nat64::ipv6(near.address), 80).await);

    // Nowhere, the gateway itself, and who it speaks for in between.
    for address in ["169.254.169.254", "127.0.0.1", "224.0.0.1", "10.0.0.9", "240.0.0.1"] {
        let address = nat64::ipv6(address.parse().unwrap());
        assert!(guest.is_ignored(address, 80).await, "{address}");
    }
    assert!(cloud.outside.is_ignored(PUBLIC, 80).await, "nobody begins from outside");
    // Nobody else's source passes, one that would be made IPv4 least of all.
    let by_nat = Target::NatGateway(id(Kind::NatGateway, 1));
    set_routes(&mut cloud, 2, vec![route("240.0.0.0/4", by_nat)]);
    cloud.apply().await;
    assert!(dual.is_ignored("240.0.0.1".parse::<Ipv4Addr>().unwrap(), 80).await);

    // Rules of groups and of ACLs are asked about what is IPv6.
    let shut = id(Kind::SecurityGroup, 9);
    cloud.group(&shut).egress = vec![any_from("0.0.0.0/0")];
    cloud.apply().await;
    assert!(guest.is_ignored(there, 80).await);
    cloud.group(&shut).egress = vec![any_from("64:ff9b::203.0.113.0/120")];
    cloud.apply().await;
    assert!(guest.reaches(there, 80).await && guest.is_ignored(nat64::ipv6(near.address), 80).await);
    let acl = cloud.plan.vpcs[0].network_acls.get_mut(&id(Kind::NetworkAcl, 0)).unwrap();
    acl.ingress.retain(|entry| entry.cidr.addr().is_ipv4());
    cloud.apply().await;
    assert!(guest.is_ignored(there, 80).await, "at the edge of the gateway's subnet");
    cloud.plan.vpcs[0].network_acls.insert(id(Kind::NetworkAcl, 0), datapath::examples::open());
    cloud.apply().await;
    assert!(guest.reaches(there, 80).await);

    // A driver that comes after finds all as it was; a program that is taken away is there again.
    let namespace = format!("cml-{}-nat{}", cloud.options.tag, &id(Kind::NatGateway, 1)[4..]);
    let mut connection = guest.connect(there, 80, PATIENCE).await.unwrap();
    cloud.network = host::net::LinuxNetwork::new(cloud.options.clone()).unwrap();
    cloud.apply().await;
    connection.write_all(b"still here").unwrap();
    within(&namespace, &["tc", "qdisc", "del", "dev", "vpc", "clsact"]);
    assert!(guest.is_ignored(there, 80).await, "and nothing goes round in a circle");
    cloud.interface(&interface_id).ipv6_addresses.push("2001:db8:7:1::6".parse().unwrap());
    cloud.apply().await;
    assert!(guest.reaches(there, 80).await);

    set_routes(&mut cloud, 1, vec![]);
    cloud.apply().await;
    assert!(guest.is_ignored(there, 80).await);
}
