//! What a call changes for packets: the control plane, an agent and the network of its host in one process, with
//! namespaces that stand for guests. That a change holds is tested; how soon it does is printed.

#[path = "../../../host/tests/net/cloud.rs"]
#[allow(dead_code)]
mod cloud;
mod world;

use cloud::{Cloud, Guest, PATIENCE, SILENCE, possible};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use world::World;

const ROUNDS: usize = 5;
const PORT: u16 = 5000;
/// Between two tries whether a packet passes by now.
const SOON: Duration = Duration::from_millis(5);

/// Whether the first packet of a new flow arrives. A port that was in use would be that of a flow which goes on.
async fn arrives(from: &Guest, to: &Guest, at: &UdpSocket, within: Duration) -> bool {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    from.udp(NEXT.fetch_add(1, Ordering::Relaxed)).await.send_to(b"new", (to.address, PORT)).unwrap();
    at.set_read_timeout(Some(within)).unwrap();
    at.recv_from(&mut [0; 8]).is_ok()
}

/// How long it takes until new flows pass, or pass no more.
async fn until(passes: bool, from: &Guest, to: &Guest, at: &UdpSocket) -> Duration {
    let began = Instant::now();
    loop {
        let tried = began.elapsed();
        assert!(tried < PATIENCE, "what a call changed does not hold");
        let within = if passes { SOON } else { SILENCE };
        if arrives(from, to, at, within).await == passes {
            break if passes { began.elapsed() } else { tried };
        }
    }
}

#[test]
fn a_rule_holds_once_the_call_is_answered() {
    if !possible() {
        return;
    }
    let runtime = Runtime::new().unwrap();
    let cloud = runtime.block_on(Cloud::start());
    // Ends before the cloud does.
    let runtime = runtime;
    runtime.block_on(rules_come_and_go(&cloud));
}

async fn rules_come_and_go(cloud: &Cloud) {
    let world = World::start(cloud).await;
    let [client, server] = world.launch().await;
    let at = server.udp(PORT).await;
    assert!(!arrives(&client, &server, &at, SILENCE).await);

    let (address, port) = (format!("{}/32", client.address), PORT.to_string());
    let rule = [
        ("GroupId", world.group.as_str()),
        ("IpPermissions.1.IpProtocol", "udp"),
        ("IpPermissions.1.FromPort", &port),
        ("IpPermissions.1.ToPort", &port),
        ("IpPermissions.1.IpRanges.1.CidrIp", &address),
    ];
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let changes = [("AuthorizeSecurityGroupIngress", true), ("RevokeSecurityGroupIngress", false)];
        for ((call, passes), took) in changes.into_iter().zip(&mut took) {
            world.call(call, &rule).await;
            took.push(until(passes, &client, &server, &at).await);
            let within = if passes { PATIENCE } else { SILENCE };
            assert_eq!(arrives(&client, &server, &at, within).await, passes, "and stays so");
        }
    }
    for (what, mut took) in ["allowed", "revoked"].into_iter().zip(took) {
        took.sort();
        let [middle, most] = [took[ROUNDS / 2], took[ROUNDS - 1]].map(|took| took.as_secs_f64() * 1e3);
        println!(
            "from the answer until it holds that a flow is {what}: {middle:.1} ms, {most:.1} ms at most"
        );
    }
}
