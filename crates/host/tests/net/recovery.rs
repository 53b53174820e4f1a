//! What somebody takes away is put back at once, and only that.

use crate::cloud::{Cloud, PATIENCE, SILENCE, any_from, possible, within};
use datapath::Plan;
use host::net::Network;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 5);
/// Between looks at whether it is back.
const LOOK: Duration = Duration::from_millis(20);
/// Longer than repairs lie apart, shorter than looks for no reason do.
const SOON: Duration = Duration::from_secs(5);

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what} is not back");
        tokio::time::sleep(LOOK).await;
    }
}

/// As an agent does, until dropped.
async fn keep(cloud: &Cloud, plan: Plan) {
    loop {
        cloud.network.disturbed().await;
        cloud.network.apply(plan.clone()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_takes_away_comes_back_without_a_gap_for_the_rest() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let shut = cloud.add_group(2, &vpc, vec![]);
    let nics = [("10.0.0.5", &open), ("10.0.0.6", &open), ("10.0.0.7", &shut)];
    let nics: Vec<_> = (1..)
        .zip(nics)
        .map(|(number, (address, group))| cloud.add_interface(number, &vpc, address, &[group]))
        .collect();
    cloud.translate(&nics[0], Some(PUBLIC));
    cloud.apply().await;
    let (a, b, silent) =
        (cloud.guest(&nics[0]).await, cloud.guest(&nics[1]).await, cloud.guest(&nics[2]).await);
    let listeners = [a.listen(80).await, b.listen(80).await, silent.listen(80).await];
    let mut stays = a.connect(b.address, 80, PATIENCE).await.unwrap();
    let mut served = listeners[1].accept().unwrap().0;

    // What is others', before and between.
    let router = cloud.namespaces().remove(0);
    let host = cloud.host.name.clone();
    let foreign: [&[&str]; 3] = [
        &["ip", "route", "add", "192.0.2.0/24", "dev", "wan"],
        &["ip", "rule", "add", "priority", "77", "lookup", "77"],
        &["nft", "add table ip theirs; add chain ip theirs kept { type filter hook forward priority 5; }"],
    ];
    for command in foreign {
        within(&host, command);
    }
    let theirs = || {
        let routes = within(&host, &["ip", "route", "show", "192.0.2.0/24"]);
        let rules = within(&host, &["ip", "rule", "show", "priority", "77"]);
        [routes, rules, within(&host, &["nft", "list", "table", "ip", "theirs"])]
    };
    let before = theirs();

    let keeper = keep(&cloud, cloud.plan.clone());
    let story = async {
        within(&router, &["nft", "flush", "ruleset"]);
        until("the packet filter", async || within(&router, &["nft", "list", "ruleset"]).contains("groups"))
            .await;
        assert!(b.is_ignored(silent.address, 80).await, "the groups hold again");

        within(&router, &["ip", "route", "del", "10.0.0.6"]);
        until("a tap's route", async || b.ping(a.address, SILENCE).await).await;

        within(&router, &["ip", "rule", "del", "priority", "20000"]);
        until("a route table", async || cloud.host.ping(PUBLIC, SILENCE).await).await;

        within(&router, &["ip", "address", "del", "10.0.0.1/32", "dev", "lo"]);
        until("the router's address", async || {
            within(&router, &["ip", "address", "show", "dev", "lo"]).contains("10.0.0.1/32")
        })
        .await;

        within(&router, &["ip", "link", "set", "igw", "down"]);
        until("the gateway", async || cloud.host.ping(PUBLIC, SILENCE).await).await;

        within(&host, &["ip", "route", "del", &PUBLIC.to_string()]);
        until("a public address", async || cloud.host.ping(PUBLIC, SILENCE).await).await;

        let table = || {
            let tables = within(&host, &["nft", "list", "tables"]);
            tables.lines().find(|table| table.contains(&cloud.options.tag)).map(str::to_owned)
        };
        within(&host, &["nft", &format!("delete {}", table().unwrap())]);
        until("the host's rules", async || table().is_some()).await;
    };
    tokio::select! {
        () = keeper => {}
        () = story => {}
    }
    assert_eq!(theirs(), before);
    stays.write_all(b"still here").unwrap();
    served.set_read_timeout(Some(PATIENCE)).unwrap();
    served.read_exact(&mut [0; 10]).unwrap();
    within(&host, &["nft", "delete", "table", "ip", "theirs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_left_alone_does_nothing() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let nics: Vec<_> =
        [5, 6].map(|number| cloud.add_interface(number, &vpc, &format!("10.0.0.{number}"), &[&open])).into();
    cloud.apply().await;
    let is_quiet =
        async |cloud: &Cloud| tokio::time::timeout(SILENCE, cloud.network.disturbed()).await.is_err();
    assert!(is_quiet(&cloud).await, "by its own doing");
    let (a, b) = (cloud.guest(&nics[0]).await, cloud.guest(&nics[1]).await);
    assert!(a.ping(b.address, PATIENCE).await);
    assert!(is_quiet(&cloud).await, "by guests");
    for command in [["add", "192.0.2.0/24"], ["del", "192.0.2.0/24"]] {
        cloud.host.ip(&["route", command[0], command[1], "dev", "wan"]).await;
    }
    assert!(is_quiet(&cloud).await, "by what the host does besides");
    cloud.plan.interfaces.pop();
    cloud.apply().await;
    assert!(is_quiet(&cloud).await, "by what it took away itself");
    cloud.host.ip(&["route", "flush", "proto", "197"]).await;
    assert!(!is_quiet(&cloud).await);
    assert!(is_quiet(&cloud).await, "not twice in a while");
}
