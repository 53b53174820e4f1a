//! Block public access: what the gateways let through of subnets that are shut, and what becomes of flows when they are.

use crate::cloud::{
    Cloud, Flow, Guest, HOST6, OUTSIDE, OUTSIDE6, PATIENCE, any_from, assert_live, id, possible,
};
use crate::routes::{route, set_routes, three_subnets};
use datapath::{Address, NatGateway, PublicAccess, Target};
use model::Kind;
use std::net::{Ipv4Addr, Ipv6Addr};

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 5);
const OF_NAT: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 9);
const BLOCK: &str = "fd12:3456:7800::/56";
const SIX: &str = "fd12:3456:7800::a";

/// Subnet 0 has a public guest, also with IPv6, and a NAT gateway, by which the guest of subnet 1 speaks to the internet.
async fn start() -> (Cloud, [Guest; 2]) {
    let mut cloud = Cloud::start_known().await;
    let (vpc, open) = three_subnets(&mut cloud);
    cloud.add_ipv6(&vpc, BLOCK);
    cloud.group(&open).ingress.push(any_from("::/0"));
    let everywhere = |target: Target| vec![route("0.0.0.0/0", target)];
    let mut out = everywhere(Target::InternetGateway);
    out.push(route("::/0", Target::InternetGateway));
    set_routes(&mut cloud, 0, out);
    set_routes(&mut cloud, 1, everywhere(Target::NatGateway(id(Kind::NatGateway, 1))));
    cloud.plan.vpcs[0].nat_gateways.push(NatGateway {
        nat_gateway_id: id(Kind::NatGateway, 1),
        interface_id: id(Kind::NetworkInterface, 9),
        mac: [2, 0, 0, 0, 0, 9],
        subnet_id: id(Kind::Subnet, 0),
        addresses: vec![Address { private_ip: Ipv4Addr::new(10, 0, 0, 9), public_ip: Some(OF_NAT) }],
    });
    let outer = cloud.add_interface(1, &vpc, "10.0.0.5", &[&open]);
    let inner = cloud.add_interface(2, &vpc, "10.0.1.5", &[&open]);
    cloud.translate(&outer, Some(PUBLIC));
    cloud.assign_ipv6(&outer, SIX);
    cloud.outside.ip(&["-6", "route", "add", BLOCK, "via", &HOST6.to_string()]).await;
    cloud.apply().await;
    let guests = [cloud.guest(&outer).await, cloud.guest(&inner).await];
    (cloud, guests)
}

async fn shut(cloud: &mut Cloud, subnets: [PublicAccess; 2]) {
    for (subnet, public_access) in cloud.plan.vpcs[0].subnets.iter_mut().zip(subnets) {
        subnet.public_access = public_access;
    }
    cloud.apply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_let_through_what_is_not_shut() {
    use PublicAccess::{Blocked, Open, Outward};
    if !possible() {
        return;
    }
    let (mut cloud, [outer, inner]) = start().await;
    let _there = [cloud.outside.listen(80).await, cloud.outside.listen6(81).await];
    let _here = [outer.listen(80).await, outer.listen6(81).await, inner.listen(80).await];
    let six: Ipv6Addr = SIX.parse().unwrap();
    // Out of the public guest and into it, then out by the NAT gateway.
    for (subnets, passes, by_nat) in [
        ([Open, Open], true, true),
        ([Outward, Open], false, true),
        ([Outward, Outward], false, true),
        ([Blocked, Open], false, false),
        ([Open, Blocked], true, true),
    ] {
        shut(&mut cloud, subnets).await;
        if passes {
            assert!(outer.reaches(OUTSIDE, 80).await && cloud.outside.reaches(PUBLIC, 80).await);
            assert!(outer.reaches(OUTSIDE6, 81).await && cloud.outside.reaches(six, 81).await);
        } else {
            assert!(outer.is_ignored(OUTSIDE, 80).await && cloud.outside.is_ignored(PUBLIC, 80).await);
            assert!(outer.is_ignored(OUTSIDE6, 81).await && cloud.outside.is_ignored(six, 81).await);
        }
        match by_nat {
            true => assert!(inner.reaches(OUTSIDE, 80).await, "{subnets:?}"),
            false => assert!(inner.is_ignored(OUTSIDE, 80).await, "{subnets:?}"),
        }
        assert!(cloud.outside.is_ignored(OF_NAT, 80).await);
        assert!(outer.reaches(inner.address, 80).await, "within the VPC all is as ever");
    }

    // By the egress-only gateway out, and not in.
    let out = vec![route("::/0", Target::EgressOnlyInternetGateway)];
    set_routes(&mut cloud, 0, out);
    shut(&mut cloud, [Outward, Open]).await;
    assert!(outer.reaches(OUTSIDE6, 81).await && cloud.outside.is_ignored(six, 81).await);
    shut(&mut cloud, [Blocked, Open]).await;
    assert!(outer.is_ignored(OUTSIDE6, 81).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_end_when_their_subnet_is_shut() {
    if !possible() {
        return;
    }
    let (mut cloud, [outer, inner]) = start().await;
    let (there, there6) = (cloud.outside.listen(80).await, cloud.outside.listen6(81).await);
    let (here, within) = (outer.listen(80).await, inner.listen(80).await);
    let out = outer.connect(OUTSIDE, 80, PATIENCE).await.unwrap();
    let mut flows = vec![(out, there.accept().unwrap().0)];
    let by_nat = inner.connect(OUTSIDE, 80, PATIENCE).await.unwrap();
    flows.push((by_nat, there.accept().unwrap().0));
    flows.push((cloud.outside.connect(PUBLIC, 80, PATIENCE).await.unwrap(), here.accept().unwrap().0));
    flows.push((outer.connect(OUTSIDE6, 81, PATIENCE).await.unwrap(), there6.accept().unwrap().0));
    flows.push((outer.connect(inner.address, 80, PATIENCE).await.unwrap(), within.accept().unwrap().0));
    let flows: [Flow; 5] = flows.try_into().unwrap();
    assert_live(flows.each_ref(), [true; 5]);
    shut(&mut cloud, [PublicAccess::Outward, PublicAccess::Open]).await;
    assert_live(flows.each_ref(), [false, true, false, false, true]);

    // Also for a driver that does not know what was before.
    cloud.network = host::net::LinuxNetwork::new(cloud.options.clone()).unwrap();
    shut(&mut cloud, [PublicAccess::Blocked, PublicAccess::Open]).await;
    assert_live([&flows[1], &flows[4]], [false, true]);
}
