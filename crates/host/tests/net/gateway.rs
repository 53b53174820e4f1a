//! The internet gateway: one-to-one translation, the way out, and who has none.

use crate::cloud::{
    Cloud, Flow, HOST, HOST6, OUTSIDE, PATIENCE, SILENCE, any_from, assert_live, possible, tcp_from,
};
use crate::routes::route;
use datapath::{Address, Target};
use host::net::LinuxNetwork;
use std::net::Ipv4Addr;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 5);
const PUBLIC_TOO: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 6);

#[tokio::test(flavor = "multi_thread")]
async fn a_public_address_is_reached_from_the_host_and_from_outside() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    cloud.outside.ip(&["route", "add", "198.18.7.0/24", "via", &HOST.to_string()]).await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let ssh = cloud.add_group(1, &vpc, vec![tcp_from("203.0.113.0/24", 22)]);
    let nic = cloud.add_interface(1, &vpc, "10.0.0.5", &[&ssh]);
    cloud.translate(&nic, Some(PUBLIC));
    cloud.apply().await;
    let guest = cloud.guest(&nic).await;
    let (ssh, _other) = (guest.listen(22).await, guest.listen(23).await);
    for (machine, address) in [(&cloud.host, HOST), (&cloud.outside, OUTSIDE)] {
        let _connection = machine.connect(PUBLIC, 22, PATIENCE).await.unwrap();
        let (_stream, from) = ssh.accept().unwrap();
        assert_eq!(from.ip(), address, "the guest sees the true client");
        assert!(machine.is_ignored(PUBLIC, 23).await);
    }
    assert!(
        cloud.host.connect(PUBLIC_TOO, 22, PATIENCE).await.is_err(),
        "an address in the pool that nobody has"
    );

    cloud.translate(&nic, None);
    cloud.apply().await;
    assert!(cloud.host.connect(PUBLIC, 22, PATIENCE).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_out_needs_a_public_address_and_a_gateway() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let group = cloud.add_group(1, &vpc, vec![]);
    let with = cloud.add_interface(1, &vpc, "10.0.0.5", &[&group]);
    let without = cloud.add_interface(2, &vpc, "10.0.0.6", &[&group]);
    cloud.translate(&with, Some(PUBLIC));
    cloud.apply().await;
    let (with, without) = (cloud.guest(&with).await, cloud.guest(&without).await);
    let outside = cloud.outside.listen(80).await;
    // Nobody outside has a route to the pool: the guest appears as the host.
    assert!(with.reaches(OUTSIDE, 80).await);
    let (_stream, from) = outside.accept().unwrap();
    assert_eq!(from.ip(), HOST);
    assert!(with.ping(OUTSIDE, PATIENCE).await);
    assert!(without.is_ignored(OUTSIDE, 80).await);

    cloud.plan.vpcs[0].internet_gateway = false;
    cloud.apply().await;
    assert!(with.is_ignored(OUTSIDE, 80).await);
    cloud.plan.vpcs[0].internet_gateway = true;
    cloud.apply().await;
    assert!(with.reaches(OUTSIDE, 80).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_serves_guests_nothing_but_the_clouds_api() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    cloud.options.api_port = Some(8773);
    cloud.network = LinuxNetwork::new(cloud.options.clone()).unwrap();
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    cloud.add_ipv6(&vpc, "2001:db8:7::/56");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0"), any_from("::/0")]);
    let nic = cloud.add_interface(1, &vpc, "10.0.0.5", &[&open]);
    cloud.translate(&nic, Some(PUBLIC));
    let address6 = cloud.assign_ipv6(&nic, "2001:db8:7::5");
    cloud.plan.vpcs[0]
        .route_tables
        .values_mut()
        .for_each(|table| table.routes.push(route("::/0", Target::InternetGateway)));
    cloud.apply().await;
    let guest = cloud.guest(&nic).await;
    let _on_host =
        (cloud.host.listen(22).await, cloud.host.listen(8773).await, cloud.host.listen6(2222).await);
    assert!(guest.is_ignored(HOST, 22).await);
    assert!(!guest.ping(HOST, SILENCE).await);
    assert!(guest.is_ignored(HOST6, 2222).await);
    assert!(guest.reaches(HOST, 8773).await);

    // What the host begins is answered.
    let _in_guest = (guest.listen(22).await, guest.listen6(2222).await);
    assert!(cloud.host.reaches(PUBLIC, 22).await);
    assert!(cloud.host.reaches(address6, 2222).await);
    assert!(cloud.host.ping(PUBLIC, PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reaches_anothers_public_address_as_a_public_address() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let far = cloud.add_vpc(2, "10.0.0.0/16");
    let client = cloud.add_group(1, &vpc, vec![]);
    let server = cloud.add_group(2, &vpc, vec![tcp_from("198.18.7.5/32", 80)]);
    let far_server = cloud.add_group(3, &far, vec![any_from("0.0.0.0/0")]);
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&client]);
    let b = cloud.add_interface(2, &vpc, "10.0.0.6", &[&server]);
    let c = cloud.add_interface(3, &far, "10.0.0.6", &[&far_server]);
    let far_public = Ipv4Addr::new(198, 18, 7, 7);
    for (nic, public) in [(&a, PUBLIC), (&b, PUBLIC_TOO), (&c, far_public)] {
        cloud.translate(nic, Some(public));
    }
    cloud.apply().await;
    let (a, b, c) = (cloud.guest(&a).await, cloud.guest(&b).await, cloud.guest(&c).await);
    for (server, public) in [(&b, PUBLIC_TOO), (&c, far_public)] {
        let listener = server.listen(80).await;
        assert!(a.reaches(public, 80).await, "{public}");
        let (_stream, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), PUBLIC, "groups see the public address, as in EC2");
    }
    assert!(a.is_ignored(b.address, 80).await, "the group allows the public address only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_own_network_is_the_vpcs_still_gets_in() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "203.0.113.0/24");
    let group = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let nic = cloud.add_interface(1, &vpc, "203.0.113.5", &[&group]);
    cloud.translate(&nic, Some(PUBLIC));
    cloud.apply().await;
    let guest = cloud.guest(&nic).await;
    let _listener = guest.listen(22).await;
    assert!(cloud.host.reaches(PUBLIC, 22).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_the_network_around_the_host_are_real_there() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let group = cloud.add_group(1, &vpc, vec![tcp_from("0.0.0.0/0", 80)]);
    let nic = cloud.add_interface(1, &vpc, "10.0.0.5", &[&group]);
    let (on_lan, unused) = (Ipv4Addr::new(203, 0, 113, 133), Ipv4Addr::new(203, 0, 113, 134));
    let pool = |cidr: &str, interface: &str| datapath::PublicPool {
        cidr: cidr.parse().unwrap(),
        interface: Some(interface.to_owned()),
    };
    // The second one's interface is not there, which hinders nobody.
    cloud.plan.public_pools = vec![pool("203.0.113.128/25", "wan"), pool("192.0.2.0/24", "nowhere")];
    cloud.translate(&nic, Some(on_lan));
    cloud.apply().await;
    let guest = cloud.guest(&nic).await;
    let (inside, outside) = (guest.listen(80).await, cloud.outside.listen(80).await);

    // Nobody outside was told of a route: the host answers for the address as a neighbour.
    assert!(cloud.outside.reaches(on_lan, 80).await);
    let (_stream, from) = inside.accept().unwrap();
    assert_eq!(from.ip(), OUTSIDE);
    assert!(guest.reaches(OUTSIDE, 80).await);
    let (_stream, from) = outside.accept().unwrap();
    assert_eq!(from.ip(), on_lan, "it is known by its own address");
    assert!(cloud.host.reaches(on_lan, 80).await);
    assert!(cloud.outside.connect(unused, 80, PATIENCE).await.is_err(), "the host answers for nobody else");

    // A driver that starts anew finds what there is; what is not in use any more is not answered for.
    cloud.network = host::net::LinuxNetwork::new(cloud.options.clone()).unwrap();
    cloud.apply().await;
    let proxies = cloud.host.ip(&["neighbour", "show", "proxy"]).await;
    assert_eq!(proxies.lines().count(), 1, "{proxies}");
    cloud.translate(&nic, Some(unused));
    cloud.apply().await;
    let proxies = cloud.host.ip(&["neighbour", "show", "proxy"]).await;
    assert!(proxies.contains("203.0.113.134") && proxies.lines().count() == 1, "{proxies}");
    assert!(cloud.outside.reaches(unused, 80).await);
    cloud.plan.public_pools.clear();
    cloud.apply().await;
    assert_eq!(cloud.host.ip(&["neighbour", "show", "proxy"]).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_by_an_address_that_moves_goes_on() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start_known().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let [a, b, c] = [5, 6, 7].map(|at| cloud.add_interface(at, &vpc, &format!("10.0.0.{at}"), &[&open]));
    cloud.translate(&a, Some(PUBLIC));
    let second = Address { private_ip: Ipv4Addr::new(10, 0, 0, 15), public_ip: Some(PUBLIC_TOO) };
    cloud.interface(&a).addresses.push(second);
    cloud.apply().await;
    let (from, to) = (cloud.guest(&a).await, cloud.guest(&b).await);
    from.ip(&["address", "add", "10.0.0.15/16", "dev", "eth0"]).await;
    let inside = cloud.guest(&c).await;
    let (old, new) = (from.listen(80).await, to.listen(80).await);
    let mut flows = Vec::new();
    for (machine, address) in
        [(&cloud.outside, PUBLIC), (&cloud.outside, PUBLIC_TOO), (&inside.machine, from.address)]
    {
        let begun = machine.connect(address, 80, PATIENCE).await.unwrap();
        flows.push((begun, old.accept().unwrap().0));
    }
    cloud.translate(&a, None);
    cloud.translate(&b, Some(PUBLIC));
    cloud.apply().await;
    let flows: [Flow; 3] = flows.try_into().unwrap();
    assert_live(flows.each_ref(), [false, true, true]);
    assert!(cloud.outside.reaches(PUBLIC, 80).await);
    new.accept().unwrap();
}
