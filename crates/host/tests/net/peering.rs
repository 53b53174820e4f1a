//! Peering: two VPCs that route to each other, and nobody through them.

use crate::cloud::{Cloud, OUTSIDE, PATIENCE, SILENCE, any_from, id, possible};
use crate::routes::route;
use datapath::{AclEntry, Peer, Peering, Protocol, RouteTable, Rule, Target};
use model::{Id, Kind};
use std::net::Ipv4Addr;

fn peering_id(number: u64) -> Id {
    id(Kind::VpcPeeringConnection, number)
}

/// The VPCs of these positions, as the control plane tells of an accepted connection.
pub fn peer(cloud: &mut Cloud, number: u64, one: usize, other: usize) {
    for (this, that) in [(one, other), (other, one)] {
        let peer_vpc_id = cloud.plan.vpcs[that].vpc_id.clone();
        let peering = Peering { peering_id: peering_id(number), peer_vpc_id, resolves_names: false };
        cloud.plan.vpcs[this].peerings.push(peering);
    }
}

/// All routes of a VPC, to peering connections by number.
pub fn set_routes(cloud: &mut Cloud, vpc: usize, routes: &[(&str, u64)]) {
    let routes = routes.iter().map(|(net, number)| route(net, Target::Peering(peering_id(*number))));
    let table = RouteTable { routes: routes.collect() };
    cloud.plan.vpcs[vpc].route_tables = [(id(Kind::RouteTable, 1), table)].into();
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_reach_each_other_where_both_route_so() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let one = cloud.add_vpc(1, "10.0.0.0/16");
    let two = cloud.add_vpc(2, "10.1.0.0/16");
    let open = cloud.add_group(1, &one, vec![any_from("0.0.0.0/0")]);
    let other = cloud.add_group(2, &one, vec![any_from("0.0.0.0/0")]);
    let from_peer = Rule { protocol: Protocol::All, peer: Peer::Group(open.clone()) };
    let members_only = cloud.add_group(3, &two, vec![from_peer]);
    let a = cloud.add_interface(1, &one, "10.0.0.5", &[&open]);
    let stranger = cloud.add_interface(2, &one, "10.0.0.6", &[&other]);
    let b = cloud.add_interface(3, &two, "10.1.0.5", &[&members_only]);
    for (vpc, block) in [(&one, "fd00:1::/56"), (&two, "fd00:2::/56")] {
        cloud.add_ipv6(vpc, block);
    }
    cloud.assign_ipv6(&a, "fd00:1::a");
    let b_ipv6 = cloud.assign_ipv6(&b, "fd00:2::b");
    peer(&mut cloud, 1, 0, 1);
    set_routes(&mut cloud, 0, &[]);
    set_routes(&mut cloud, 1, &[]);
    cloud.apply().await;
    let (a, stranger, b) = (cloud.guest(&a).await, cloud.guest(&stranger).await, cloud.guest(&b).await);
    let (_at_a, at_b) = (a.listen(80).await, b.listen(80).await);
    assert!(a.is_ignored(b.address, 80).await, "no routes");
    set_routes(&mut cloud, 0, &[("10.1.0.0/16", 1)]);
    cloud.apply().await;
    assert!(a.is_ignored(b.address, 80).await, "no way back");
    set_routes(&mut cloud, 1, &[("10.0.0.0/24", 1)]);
    cloud.apply().await;
    assert!(a.reaches(b.address, 80).await && b.reaches(a.address, 80).await);
    assert_eq!(at_b.accept().unwrap().1.ip(), a.address);
    assert!(stranger.is_ignored(b.address, 80).await, "in no group that may");
    let ipv6_at_b = b.listen6(81).await;
    assert!(a.is_ignored(b_ipv6, 81).await, "no routes for IPv6");
    set_routes(&mut cloud, 0, &[("10.1.0.0/16", 1), ("fd00:2::/56", 1)]);
    set_routes(&mut cloud, 1, &[("10.0.0.0/24", 1), ("fd00:1::/56", 1)]);
    cloud.apply().await;
    assert!(a.reaches(b_ipv6, 81).await);
    assert_eq!(ipv6_at_b.accept().unwrap().1.ip().to_string(), "fd00:1::a");
    for service in [[10, 1, 0, 1], [10, 1, 0, 2]] {
        assert!(a.is_ignored(Ipv4Addr::from(service), 53).await, "services are the VPC's own");
    }

    // The peer's edge.
    let acl = cloud.plan.vpcs[1].network_acls.get_mut(&id(Kind::NetworkAcl, 1)).unwrap();
    let cidr = "10.0.0.5/32".parse().unwrap();
    acl.ingress.insert(0, AclEntry { rule_number: 1, cidr, protocol: Protocol::All, allow: false });
    cloud.apply().await;
    assert!(a.is_ignored(b.address, 80).await, "an entry of the peer's ACL");
    cloud.plan.vpcs[1].network_acls.get_mut(&id(Kind::NetworkAcl, 1)).unwrap().ingress.remove(0);
    cloud.apply().await;
    assert!(a.reaches(b.address, 80).await);

    for vpc in &mut cloud.plan.vpcs {
        vpc.peerings.clear();
    }
    cloud.apply().await;
    assert!(a.is_ignored(b.address, 80).await);
    for vpc in [&one, &two] {
        assert!(!cloud.links(vpc).await.contains(": p"), "the pair is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_passes_through_a_peer() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpcs: Vec<Id> = (1..)
        .zip(["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16"])
        .map(|(n, net)| cloud.add_vpc(n, net))
        .collect();
    let groups: Vec<Id> =
        (1..).zip(&vpcs).map(|(n, vpc)| cloud.add_group(n, vpc, vec![any_from("0.0.0.0/0")])).collect();
    let nics: Vec<Id> = (0..3)
        .map(|n| cloud.add_interface(n as u64, &vpcs[n], &format!("10.{n}.0.5"), &[&groups[n]]))
        .collect();
    cloud.translate(&nics[0], Some(Ipv4Addr::new(198, 18, 7, 5)));
    cloud.translate(&nics[1], Some(Ipv4Addr::new(198, 18, 7, 6)));
    peer(&mut cloud, 1, 0, 1);
    peer(&mut cloud, 2, 1, 2);
    set_routes(&mut cloud, 0, &[("10.1.0.0/16", 1), ("10.2.0.0/16", 1), ("0.0.0.0/0", 1)]);
    set_routes(&mut cloud, 1, &[("10.0.0.0/16", 1), ("10.2.0.0/16", 2)]);
    cloud.plan.vpcs[1]
        .route_tables
        .values_mut()
        .for_each(|table| table.routes.push(route("0.0.0.0/0", Target::InternetGateway)));
    set_routes(&mut cloud, 2, &[("10.0.0.0/8", 2)]);
    // One in the middle that lends itself to senders of all kinds.
    cloud.interface(&nics[0]).source_dest_check = false;
    cloud.apply().await;
    let a = cloud.guest(&nics[0]).await;
    let (b, c) = (cloud.guest(&nics[1]).await, cloud.guest(&nics[2]).await);
    let _listening = [b.listen(80).await, c.listen(80).await, cloud.outside.listen(80).await];
    assert!(a.reaches(b.address, 80).await && b.reaches(c.address, 80).await);
    assert!(b.reaches(OUTSIDE, 80).await);
    assert!(a.is_ignored(c.address, 80).await, "the peer's peer");
    assert!(a.is_ignored(OUTSIDE, 80).await, "the peer's internet gateway");

    // Addresses that are not the sender's VPC's do not pass either.
    let server = b.udp(5000).await;
    server.set_read_timeout(Some(SILENCE)).unwrap();
    a.ip(&["address", "add", "192.0.2.7/32", "dev", "lo"]).await;
    let send = async |from: [u8; 4]| {
        let to = (b.address, 5000);
        a.run(move || std::net::UdpSocket::bind((Ipv4Addr::from(from), 0))?.send_to(b"x", to)).await.unwrap();
    };
    send([192, 0, 2, 7]).await;
    assert!(server.recv_from(&mut [0; 8]).is_err());
    send([10, 0, 0, 5]).await;
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.recv_from(&mut [0; 8]).unwrap();
}
