//! The internet gateway's own route table: what comes in is led through an instance.

use crate::cloud::{Cloud, HOST6, OUTSIDE, OUTSIDE6, PATIENCE, any_from, id, possible};
use crate::routes::{route, set_routes, three_subnets};
use datapath::{Route, RouteTable, Target};
use model::{Id, Kind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const OF_APPLIANCE: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 4);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 5);
const BLOCK: &str = "fd12:3456:7800::/56";
const SIX: &str = "fd12:3456:7800:1::a";

fn set_edge(cloud: &mut Cloud, routes: Option<Vec<Route>>) {
    let vpc = &mut cloud.plan.vpcs[0];
    let table_id = id(Kind::RouteTable, 9);
    vpc.route_tables.remove(&table_id);
    vpc.edge_route_table_id = routes.is_some().then(|| table_id.clone());
    vpc.route_tables.extend(routes.map(|routes| (table_id, RouteTable { routes })));
}

/// An appliance in subnet 0, through which a server in subnet 1 speaks to the internet, and is spoken to.
async fn start() -> (Cloud, [Id; 2]) {
    let mut cloud = Cloud::start_known().await;
    let (vpc, open) = three_subnets(&mut cloud);
    cloud.add_ipv6(&vpc, BLOCK);
    cloud.plan.vpcs[0].subnets[1].ipv6_cidr = Some("fd12:3456:7800:1::/64".parse().unwrap());
    cloud.group(&open).ingress.push(any_from("::/0"));
    let appliance = cloud.add_interface(1, &vpc, "10.0.0.5", &[&open]);
    let server = cloud.add_interface(2, &vpc, "10.0.1.5", &[&open]);
    cloud.interface(&appliance).source_dest_check = false;
    cloud.translate(&appliance, Some(OF_APPLIANCE));
    cloud.translate(&server, Some(PUBLIC));
    cloud.assign_ipv6(&appliance, "fd12:3456:7800::a");
    cloud.assign_ipv6(&server, SIX);
    let everywhere = |target: &Target| ["0.0.0.0/0", "::/0"].map(|all| route(all, target.clone())).into();
    let through = Target::Interface(appliance.clone());
    set_routes(&mut cloud, 0, everywhere(&Target::InternetGateway));
    set_routes(&mut cloud, 1, everywhere(&through));
    let inner = ["10.0.1.0/24", "fd12:3456:7800:1::/64"].map(|subnet| route(subnet, through.clone()));
    set_edge(&mut cloud, Some(inner.into()));
    cloud.outside.ip(&["-6", "route", "add", BLOCK, "via", &HOST6.to_string()]).await;
    cloud.apply().await;
    (cloud, [appliance, server])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_is_led_through_an_appliance() {
    if !possible() {
        return;
    }
    let (mut cloud, [appliance, target]) = start().await;
    let (middle, server) = (cloud.guest(&appliance).await, cloud.guest(&target).await);
    let (here, here6) = (server.listen(80).await, server.listen6(81).await);
    let (there, there6) = (cloud.outside.listen(80).await, cloud.outside.listen6(81).await);
    let six: Ipv6Addr = SIX.parse().unwrap();
    let forward = |how: &'static str| {
        middle.run(move || {
            std::fs::write("/proc/sys/net/ipv4/conf/all/send_redirects", "0")?;
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", how)?;
            std::fs::write("/proc/sys/net/ipv4/ip_forward", how)
        })
    };
    forward("0").await.unwrap();
    assert!(cloud.outside.is_ignored(PUBLIC, 80).await && server.is_ignored(OUTSIDE, 80).await);
    assert!(cloud.outside.is_ignored(six, 81).await);
    forward("1").await.unwrap();
    // A machine that forwards has no route of its own any more.
    middle.ip(&["-6", "route", "replace", "default", "via", "fe80::fc63:6dff:fe6c:1", "dev", "eth0"]).await;
    let came = cloud.outside.connect(PUBLIC, 80, PATIENCE).await.unwrap();
    assert_eq!(here.accept().unwrap().1, came.local_addr().unwrap(), "the server sees the true client");
    assert!(cloud.outside.ping(PUBLIC, PATIENCE).await);
    assert!(server.reaches(OUTSIDE, 80).await);
    assert_eq!(there.accept().unwrap().1.ip(), IpAddr::V4(PUBLIC));
    assert!(cloud.outside.reaches(six, 81).await && here6.accept().is_ok());
    assert!(server.reaches(OUTSIDE6, 81).await && there6.accept().is_ok());
    assert!(middle.reaches(OUTSIDE, 80).await, "the appliance is itself as ever");

    // Both are asked: the appliance's groups, and the server's. It must be one that forwards.
    let vpc = cloud.plan.vpcs[0].vpc_id.clone();
    let shut = cloud.add_group(2, &vpc, vec![]);
    let open = id(Kind::SecurityGroup, 1);
    for one in [&appliance, &target] {
        cloud.interface(one).groups = vec![shut.clone()];
        cloud.apply().await;
        assert!(cloud.outside.is_ignored(PUBLIC, 80).await && cloud.outside.is_ignored(six, 81).await);
        cloud.interface(one).groups = vec![open.clone()];
    }
    cloud.interface(&appliance).source_dest_check = true;
    cloud.apply().await;
    assert!(cloud.outside.is_ignored(PUBLIC, 80).await && cloud.outside.is_ignored(six, 81).await);
    cloud.interface(&appliance).source_dest_check = false;

    // All of the VPC instead of the subnet, and back to none.
    set_edge(&mut cloud, Some(vec![route("10.0.0.0/16", Target::Interface(appliance.clone()))]));
    cloud.apply().await;
    assert!(cloud.outside.reaches(PUBLIC, 80).await);
    let _at_appliance = middle.listen(82).await;
    assert!(cloud.outside.reaches(OF_APPLIANCE, 82).await);
    set_edge(&mut cloud, Some(vec![route("10.0.1.0/24", Target::Blackhole)]));
    cloud.apply().await;
    assert!(cloud.outside.is_ignored(PUBLIC, 80).await && cloud.outside.reaches(OF_APPLIANCE, 82).await);
    set_edge(&mut cloud, None);
    set_routes(&mut cloud, 1, vec![route("0.0.0.0/0", Target::InternetGateway)]);
    cloud.apply().await;
    forward("0").await.unwrap();
    assert!(cloud.outside.reaches(PUBLIC, 80).await && server.reaches(OUTSIDE, 80).await);
}
