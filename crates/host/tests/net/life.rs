//! Restart, repair, removal.

use crate::cloud::{Cloud, SILENCE, any_from, possible, within};
use datapath::Plan;
use host::net::{Diagnosis, LinuxNetwork, NetError, Network};
use std::net::Ipv4Addr;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 5);

#[tokio::test(flavor = "multi_thread")]
async fn a_new_driver_finds_all_as_it_was_and_no_guest_notices() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (vpc, _, [a, b]) = cloud.add_two();
    cloud.apply().await;
    let (guest, other) = (cloud.guest(&a).await, cloud.guest(&b).await);
    let _listener = other.listen(80).await;
    assert!(guest.reaches(other.address, 80).await);
    let before = cloud.links(&vpc).await;

    // As after kill -9: nothing was told to the old one.
    cloud.network = LinuxNetwork::new(cloud.options.clone()).unwrap();
    cloud.apply().await;
    assert_eq!(cloud.links(&vpc).await, before);
    assert!(guest.reaches(other.address, 80).await);
    assert!(matches!(cloud.network.open_tap(&a, 1).await, Err(NetError::Failed(_))), "its machine holds it");

    // A guest that went while nobody watched.
    cloud.plan.interfaces.retain(|nic| nic.interface_id != b);
    cloud.network = LinuxNetwork::new(cloud.options.clone()).unwrap();
    cloud.apply().await;
    assert!(guest.is_ignored(other.address, 80).await);
    assert!(matches!(cloud.network.open_tap(&b, 1).await, Err(NetError::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_again_repairs_what_somebody_broke() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let nic = cloud.add_interface(1, &vpc, "10.0.0.5", &[&open]);
    cloud.translate(&nic, Some(PUBLIC));
    cloud.apply().await;
    let guest = cloud.guest(&nic).await;
    let _listener = guest.listen(22).await;
    assert!(cloud.host.reaches(PUBLIC, 22).await);

    let router = cloud.namespaces().remove(0);
    for namespace in [&router, &cloud.host.name] {
        within(namespace, &["ip", "route", "flush", "table", "main"]);
        within(namespace, &["nft", "flush", "ruleset"]);
    }
    within(&router, &["ip", "neigh", "flush", "nud", "permanent"]);
    within(&router, &["ip", "link", "set", "igw", "down"]);
    cloud.host.ip(&["route", "add", "203.0.113.0/24", "dev", "wan"]).await;
    cloud.apply().await;
    assert!(cloud.host.reaches(PUBLIC, 22).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_leaves_nothing_whoever_still_holds_a_part() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let untouched = cloud.host_state().await;
    for number in [1, 2] {
        let vpc = cloud.add_vpc(number, "10.0.0.0/16");
        let nic = cloud.add_interface(number, &vpc, "10.0.0.5", &[]);
        cloud.translate(&nic, Some(Ipv4Addr::new(198, 18, 7, number as u8)));
    }
    cloud.apply().await;
    assert_eq!(cloud.namespaces().len(), 2);
    assert_ne!(cloud.host_state().await, untouched);
    let first = cloud.plan.interfaces[0].clone();
    let _held = (
        cloud.network.open_tap(&first.interface_id, 1).await.unwrap(),
        cloud.network.open_services(&first.vpc_id).await.unwrap(),
    );

    // One VPC by plan, the other by removal, by a driver that has made nothing itself.
    cloud.plan.vpcs.pop();
    cloud.plan.interfaces.pop();
    cloud.apply().await;
    assert_eq!(cloud.namespaces().len(), 1);
    let network = LinuxNetwork::new(cloud.options.clone()).unwrap();
    network.remove_all().await.unwrap();
    assert_eq!(cloud.namespaces(), Vec::<String>::new());
    assert_eq!(cloud.host_state().await, untouched);
    network.remove_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_two_clouds_share_stays_for_the_second() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let state = tempfile::tempdir().unwrap();
    let mut options = cloud.options.clone();
    (options.tag, options.state_dir) = (format!("{}b", options.tag), state.path().into());
    let second = LinuxNetwork::new(options).unwrap();
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let nic = cloud.add_interface(1, &vpc, "10.0.0.5", &[]);
    cloud.translate(&nic, Some(PUBLIC));
    cloud.apply().await;
    second.apply(Plan::default()).await.unwrap();
    let pool = cloud.options.public_pool.to_string();
    let routes = ["-4", "route", "show", "root", &pool];
    cloud.network.remove_all().await.unwrap();
    let left = cloud.host.ip(&routes).await;
    assert!(left.starts_with(&format!("unreachable {pool}")) && left.lines().count() == 1, "{left}");
    second.remove_all().await.unwrap();
    assert_eq!(cloud.host.ip(&routes).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_cannot_be_is_refused_and_changes_nothing() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    cloud.add_interface(1, &vpc, "10.0.0.5", &[]);
    let good = cloud.plan.clone();
    let mut refused: Vec<Plan> = Vec::new();
    for spoil in [
        |plan: &mut Plan| plan.vpcs.clear(),
        |plan: &mut Plan| plan.vpcs.push(plan.vpcs[0].clone()),
        |plan: &mut Plan| plan.interfaces.push(plan.interfaces[0].clone()),
        |plan: &mut Plan| plan.interfaces[0].addresses[0].private_ip = Ipv4Addr::new(10, 1, 0, 5),
    ] {
        refused.push(good.clone());
        spoil(refused.last_mut().unwrap());
    }
    for plan in refused {
        assert!(matches!(cloud.network.apply(plan).await, Err(NetError::Failed(_))));
    }
    assert_eq!(cloud.namespaces(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_owner_of_an_address_inherits_no_flow() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let shut = cloud.add_group(2, &vpc, vec![]);
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&open]);
    let b = cloud.add_interface(2, &vpc, "10.0.0.6", &[&open]);
    cloud.translate(&b, Some(PUBLIC));
    cloud.apply().await;
    let a = cloud.guest(&a).await;
    let (inside, outside) = (a.udp(4000).await, cloud.host.udp(4001).await);
    {
        let b = cloud.guest(&b).await;
        let server = b.udp(5000).await;
        for (client, address) in [(&inside, b.address), (&outside, PUBLIC)] {
            client.send_to(b"ask", (address, 5000)).unwrap();
            let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
            server.send_to(b"answer", from).unwrap();
            client.recv_from(&mut [0; 8]).unwrap();
        }
    }
    cloud.plan.interfaces.retain(|nic| nic.interface_id != b);
    let c = cloud.add_interface(3, &vpc, "10.0.0.6", &[&shut]);
    let d = cloud.add_interface(4, &vpc, "10.0.0.7", &[&open]);
    cloud.translate(&d, Some(PUBLIC));
    cloud.apply().await;

    let (c, d) = (cloud.guest(&c).await, cloud.guest(&d).await);
    let (denied, server) = (c.udp(5000).await, d.udp(5000).await);
    inside.send_to(b"ask", (c.address, 5000)).unwrap();
    denied.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(denied.recv_from(&mut [0; 8]).is_err(), "its own group lets nothing in");
    outside.send_to(b"ask", (PUBLIC, 5000)).unwrap();
    assert_eq!(server.recv_from(&mut [0; 8]).unwrap().0, 3, "the address is another's now");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_nobody_touched_are_not_loaded_again() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    cloud.add_interface(1, &vpc, "10.0.0.5", &[]);
    cloud.apply().await;
    let router = cloud.namespaces().remove(0);
    // A table's handle is new whenever it is made.
    let list = || within(&router, &["nft", "-a", "list", "tables"]);
    let before = list();
    assert!(before.contains("cumulet"));
    cloud.apply().await;
    assert_eq!(list(), before);
    cloud.network = LinuxNetwork::new(cloud.options.clone()).unwrap();
    cloud.apply().await;
    assert_eq!(list(), before, "nor by a driver that starts anew");
    cloud.add_interface(2, &vpc, "10.0.0.6", &[]);
    cloud.apply().await;
    cloud.network = LinuxNetwork::new(cloud.options.clone()).unwrap();
    cloud.apply().await;
    assert_eq!(list(), before, "whatever was changed");
    // The last rule that lets nothing else in.
    within(&router, &["nft", "flush chain inet cumulet services"]);
    cloud.network = LinuxNetwork::new(cloud.options.clone()).unwrap();
    cloud.apply().await;
    assert_ne!(list(), before, "unless somebody touched them");
    assert!(within(&router, &["nft", "list", "ruleset"]).contains("udp dport 67 accept"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_diagnosed() {
    if !possible() {
        return;
    }
    let cloud = Cloud::start().await;
    cloud.apply().await;
    let ill = |all: Vec<Diagnosis>| all.into_iter().filter_map(|one| one.remedy).collect::<Vec<_>>();
    assert_eq!(ill(cloud.network.diagnose().await.unwrap()), Vec::<String>::new());

    cloud.host.command("nft", &["add table inet strict; add chain inet strict f { type filter hook forward priority 0; policy drop; }"]).await;
    cloud.host.ip(&["route", "add", "198.18.0.0/16", "dev", "wan"]).await;
    let remedies = ill(cloud.network.diagnose().await.unwrap()).join("\n");
    assert!(remedies.contains("nft insert rule inet strict f"), "{remedies}");
    assert!(remedies.contains("198.18.0.0/16 on wan"), "{remedies}");
}
