//! Network ACLs: at a subnet's edge, in order, and of no memory.

use crate::cloud::{Cloud, OUTSIDE, PATIENCE, id, possible};
use crate::routes::{route, set_routes, three_subnets};
use datapath::{AclEntry, NetworkAcl, Protocol, Target};
use model::Kind;
use std::net::Ipv4Addr;

const EPHEMERAL: Protocol = Protocol::Tcp { from: 32_768, to: 65_535 };

fn entry(rule_number: u16, cidr: &str, protocol: Protocol, allow: bool) -> AclEntry {
    AclEntry { rule_number, cidr: cidr.parse().unwrap(), protocol, allow }
}

fn port(port: u16) -> Protocol {
    Protocol::Tcp { from: port, to: port }
}

fn set_acl(cloud: &mut Cloud, subnet: u64, ingress: Vec<AclEntry>, egress: Vec<AclEntry>) {
    let acls = &mut cloud.plan.vpcs[0].network_acls;
    *acls.get_mut(&id(Kind::NetworkAcl, subnet)).unwrap() = NetworkAcl { ingress, egress };
}

fn all(allow: bool) -> AclEntry {
    entry(200, "0.0.0.0/0", Protocol::All, allow)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_entry_that_matches_decides_at_the_edge_of_a_subnet() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (vpc, group) = three_subnets(&mut cloud);
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&group]);
    let neighbour = cloud.add_interface(2, &vpc, "10.0.0.6", &[&group]);
    let b = cloud.add_interface(3, &vpc, "10.0.1.5", &[&group]);
    cloud.apply().await;
    let (a, neighbour, b) = (cloud.guest(&a).await, cloud.guest(&neighbour).await, cloud.guest(&b).await);
    let _listening = [a.listen(80).await, a.listen(81).await, neighbour.listen(80).await, b.listen(80).await];
    assert!(b.reaches(a.address, 80).await && a.reaches(b.address, 80).await);

    let ingress = vec![
        entry(90, "10.0.1.0/24", port(81), false),
        entry(100, "10.0.0.0/16", port(80), true),
        entry(110, "10.0.1.5/32", Protocol::Icmp { kind: Some(8), code: None }, true),
    ];
    set_acl(&mut cloud, 0, ingress, vec![all(true)]);
    cloud.apply().await;
    assert!(b.reaches(a.address, 80).await && b.ping(a.address, PATIENCE).await);
    assert!(b.is_ignored(a.address, 81).await);
    assert!(a.is_ignored(b.address, 80).await, "the answers are not let in: an ACL knows of no connection");
    assert!(a.reaches(neighbour.address, 80).await, "within a subnet there is no edge");

    let answers = entry(120, "0.0.0.0/0", EPHEMERAL, true);
    set_acl(&mut cloud, 0, vec![all(true)], vec![answers.clone()]);
    cloud.apply().await;
    assert!(b.reaches(a.address, 80).await && b.reaches(a.address, 81).await);
    assert!(a.is_ignored(b.address, 80).await, "what goes out needs an entry too");
    assert!(!b.ping(a.address, crate::cloud::SILENCE).await);

    set_acl(&mut cloud, 0, vec![], vec![]);
    cloud.apply().await;
    assert!(b.is_ignored(a.address, 80).await, "nothing passes what has no entry");
    let dns = a.udp(0).await;
    dns.send_to(b"is anybody there", (Ipv4Addr::new(169, 254, 169, 253), 53)).unwrap();
    assert!(a.reaches(neighbour.address, 80).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_enters_by_the_internet_gateway_meets_them_too() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (vpc, group) = three_subnets(&mut cloud);
    set_routes(&mut cloud, 0, vec![route("0.0.0.0/0", Target::InternetGateway)]);
    let nic = cloud.add_interface(1, &vpc, "10.0.0.5", &[&group]);
    let public = Ipv4Addr::new(198, 18, 7, 5);
    cloud.translate(&nic, Some(public));
    // The true client, and the private address: translation is on the gateway's side.
    set_acl(
        &mut cloud,
        0,
        vec![entry(100, "203.0.113.1/32", port(80), true)],
        vec![entry(100, "203.0.113.1/32", EPHEMERAL, true)],
    );
    cloud.apply().await;
    let guest = cloud.guest(&nic).await;
    let _listening = [guest.listen(80).await, guest.listen(81).await, cloud.outside.listen(80).await];
    assert!(cloud.host.reaches(public, 80).await && cloud.host.is_ignored(public, 81).await);
    assert!(guest.is_ignored(OUTSIDE, 80).await);
}
