//! Whether a guest answers for its address.

use crate::cloud::{Cloud, id, possible, within};
use datapath::Bandwidth;
use host::net::{NetError, Network};
use model::Kind;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_reachable_while_it_answers_for_its_address_and_no_longer() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    // The same address in another VPC, and groups that let nothing in, are no matter.
    let other_vpc = cloud.add_vpc(2, "10.0.0.0/16");
    let nic = cloud.add_interface(1, &vpc, "10.0.0.5", &[]);
    let other = cloud.add_interface(2, &other_vpc, "10.0.0.5", &[]);
    // What a shaped guest sends takes another way.
    cloud.interface(&nic).bandwidth = Some(Bandwidth { baseline: 1_000_000, peak: 5_000_000 });
    cloud.apply().await;
    let answers = |nic| cloud.network.guest_answers(nic);
    assert!(!answers(&nic).await.unwrap(), "there is no guest yet");

    let (guest, neighbour) = (cloud.guest(&nic).await, cloud.guest(&other).await);
    assert!(answers(&nic).await.unwrap() && answers(&other).await.unwrap());
    for (impaired, repaired) in [(&["down"][..], &["up"][..]), (&["arp", "off"], &["arp", "on"])] {
        let set = async |what: &[&str]| guest.ip(&[&["link", "set", "eth0"], what].concat()).await;
        set(impaired).await;
        assert!(!answers(&nic).await.unwrap(), "{impaired:?}");
        set(repaired).await;
        assert!(answers(&nic).await.unwrap(), "{repaired:?}");
    }
    // With another's address it is not where it should be.
    guest.ip(&["link", "set", "eth0", "address", "02:00:00:00:00:99"]).await;
    assert!(!answers(&nic).await.unwrap());
    drop(neighbour);
    assert!(!answers(&other).await.unwrap(), "its machine is gone");
    let unknown = id(Kind::NetworkInterface, 9);
    assert!(matches!(answers(&unknown).await, Err(NetError::NotFound(_))));

    // That the host's own end is down is the host's fault.
    let router = format!("cml-{}-{}", cloud.options.tag, &vpc[4..]);
    let tap = cloud.links(&vpc).await;
    let tap = tap.split([':', ' ', '@']).find(|word| word.starts_with("t0000")).unwrap().to_owned();
    within(&router, &["ip", "link", "set", &tap, "down"]);
    assert!(matches!(answers(&nic).await, Err(NetError::Io { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_costs_little() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let nic = cloud.add_interface(1, &vpc, "10.0.0.5", &[]);
    cloud.apply().await;
    let _guest = cloud.guest(&nic).await;
    assert!(cloud.network.guest_answers(&nic).await.unwrap());
    let ran = || -> Duration {
        // Of this process and its threads, in ticks of a hundredth of a second: user and system.
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let ticks = stat.split_whitespace().skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
        Duration::from_millis(10 * ticks.sum::<u64>())
    };
    let before = ran();
    const QUESTIONS: u32 = 200;
    for _ in 0..QUESTIONS {
        assert!(cloud.network.guest_answers(&nic).await.unwrap());
    }
    let each = (ran() - before) / QUESTIONS;
    println!("{each:?} of processor time a question, the relay of this test included");
    assert!(each < Duration::from_millis(5), "a thousand guests would take {each:?} × 1000 of each minute");
}
