//! Who sends more at once than the way carries hears of it, whatever the groups say.

use crate::cloud::{Cloud, Machine, OUTSIDE, OUTSIDE6, PATIENCE, SILENCE, any_from, id, possible, within};
use crate::peering::peer;
use crate::routes::{nat_gateway, route, set_routes, three_subnets};
use datapath::Target;
use model::Kind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const JUMBO: i32 = 9001;
/// Of the link between the host and the outside.
const OUTER: i32 = 1500;

/// What a machine believes the way to carry, after it has tried for some time to send more in one packet.
pub async fn learned(machine: &Machine, to: impl Into<IpAddr>, within: Duration) -> i32 {
    let to = to.into();
    machine
        .run(move || {
            let (any, level, discover, mtu) = match to {
                IpAddr::V4(_) => {
                    let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
                    (any, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_MTU)
                }
                IpAddr::V6(_) => {
                    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
                    (any, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_MTU)
                }
            };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
            socket.connect(SocketAddr::new(to, 9))?;
            let (mut value, mut length) = (libc::IP_PMTUDISC_DO, size_of::<i32>() as libc::socklen_t);
            let fd = socket.as_raw_fd();
            assert_eq!(0, unsafe {
                libc::setsockopt(fd, level, discover, (&raw const value).cast(), length)
            });
            let began = Instant::now();
            loop {
                // Errors are what is looked for: it is too long, or nobody listens.
                let _ = socket.send(&[0; 8000]);
                let told =
                    unsafe { libc::getsockopt(fd, level, mtu, (&raw mut value).cast(), &raw mut length) };
                assert_eq!(told, 0);
                if value < JUMBO || began.elapsed() > within {
                    return Ok(value);
                }
                std::thread::sleep(SILENCE / 20);
            }
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_cannot_send_on_is_told() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start_known().await;
    let (vpc, _) = three_subnets(&mut cloud);
    // Nothing is let in.
    let shut = cloud.add_group(9, &vpc, vec![]);
    cloud.add_ipv6(&vpc, "2001:db8:7::/56");
    let nat = nat_gateway(1, 0, &[("10.0.0.9", Some(Ipv4Addr::new(198, 18, 7, 9)))]);
    cloud.plan.vpcs[0].nat_gateways.push(nat.clone());
    let everywhere = |net| route(net, Target::InternetGateway);
    set_routes(&mut cloud, 0, vec![everywhere("0.0.0.0/0"), everywhere("::/0")]);
    set_routes(&mut cloud, 1, vec![route("0.0.0.0/0", Target::NatGateway(nat.nat_gateway_id))]);
    let public = cloud.add_interface(1, &vpc, "10.0.0.5", &[&shut]);
    cloud.translate(&public, Some(Ipv4Addr::new(198, 18, 7, 5)));
    cloud.assign_ipv6(&public, "2001:db8:7::5");
    let private = cloud.add_interface(2, &vpc, "10.0.1.5", &[&shut]);
    let other = cloud.add_interface(3, &vpc, "10.0.2.5", &[&shut]);
    cloud.apply().await;
    let back = ["-6", "route", "add", "2001:db8:7::/56", "via", "2001:db8::1"];
    cloud.outside.ip(&back).await;
    let (public, private) = (cloud.guest(&public).await, cloud.guest(&private).await);
    let other = cloud.guest(&other).await;
    assert_eq!(learned(&public, OUTSIDE, PATIENCE).await, OUTER);
    assert_eq!(learned(&public, OUTSIDE6, PATIENCE).await, OUTER);
    assert_eq!(learned(&private, OUTSIDE, PATIENCE).await, OUTER, "by way of a NAT gateway");
    assert_eq!(learned(&public, other.address, SILENCE).await, JUMBO, "within the VPC");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_link_between_routers_cannot_carry_is_told() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let mut guests = Vec::new();
    for number in [1, 2] {
        let vpc = cloud.add_vpc(number, &format!("10.{number}.0.0/16"));
        let open = cloud.add_group(number, &vpc, vec![any_from("0.0.0.0/0")]);
        guests.push(cloud.add_interface(number, &vpc, &format!("10.{number}.0.5"), &[&open]));
    }
    peer(&mut cloud, 1, 0, 1);
    let peering = Target::Peering(id(Kind::VpcPeeringConnection, 1));
    for (vpc, net) in cloud.plan.vpcs.iter_mut().zip(["10.2.0.0/16", "10.1.0.0/16"]) {
        vpc.route_tables.values_mut().for_each(|table| table.routes.push(route(net, peering.clone())));
    }
    cloud.apply().await;
    let (one, two) = (cloud.guest(&guests[0]).await, cloud.guest(&guests[1]).await);
    assert_eq!(learned(&one, two.address, SILENCE).await, JUMBO);
    let mut routers = cloud.namespaces();
    routers.sort();
    for (router, to, from) in [(0, &two, &one), (1, &one, &two)] {
        let links = within(&routers[router], &["ip", "-o", "link", "show", "type", "veth"]);
        let link = links.split_whitespace().find(|word| word.starts_with('p')).unwrap();
        let link = link.split('@').next().unwrap();
        within(&routers[router], &["ip", "link", "set", link, "mtu", "4000"]);
        assert_eq!(learned(from, to.address, PATIENCE).await, 4000);
    }
}
