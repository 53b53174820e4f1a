//! Packets of known flows take a shortcut past the packet filter, and no further than the rules let them.

use crate::cloud::{
    Cloud, Guest, PATIENCE, SILENCE, any_from, forgotten_in, possible, tcp_from, udp_from, within,
};
use datapath::Bandwidth;
use model::Id;
use rustix::net::sockopt::set_socket_linger;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

const DATAGRAMS: usize = 200;
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 5);

async fn two_guests() -> (Cloud, Id, [Guest; 2]) {
    let mut cloud = Cloud::start_known().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    cloud.add_ipv6(&vpc, "fd12::/56");
    let mut rules = vec![udp_from("10.0.0.0/16", 5000), tcp_from("10.0.0.0/16", 80), any_from("::/0")];
    rules.push(udp_from("203.0.113.0/24", 5000));
    let group = cloud.add_group(1, &vpc, rules);
    let [a, b] = [(1, "10.0.0.5"), (2, "10.0.0.6")]
        .map(|(number, address)| cloud.add_interface(number, &vpc, address, &[&group]));
    cloud.assign_ipv6(&a, "fd12::5");
    cloud.assign_ipv6(&b, "fd12::6");
    cloud.translate(&b, Some(PUBLIC));
    cloud.apply().await;
    let guests = [cloud.guest(&a).await, cloud.guest(&b).await];
    (cloud, group, guests)
}

/// Counts what the VPC's packet filter is asked for, beside it.
fn count(router: &str) {
    within(
        router,
        &[
            "nft",
            "add table inet probe; add chain inet probe c { type filter hook forward priority -5; counter; }",
        ],
    );
    within(router, &["nft", "add rule inet probe c counter"]);
}

fn counted(router: &str) -> usize {
    let listing = within(router, &["nft", "list chain inet probe c"]);
    let packets = listing.split("packets ").nth(1).unwrap();
    packets.split(' ').next().unwrap().parse().unwrap()
}

/// Sends datagrams and answers, of all sizes that a link takes.
fn talk(from: &UdpSocket, to: &UdpSocket, address: IpAddr) {
    let mut buffer = [0; 2000];
    for at in 0..DATAGRAMS {
        let sent = vec![at as u8; 1 + at * 7];
        from.send_to(&sent, (address, 5000)).unwrap();
        let asked = to.recv_from(&mut buffer);
        let (length, sender) = asked.unwrap_or_else(|error| panic!("{at} to {address}: {error}"));
        assert_eq!(&buffer[..length], sent);
        to.send_to(&buffer[..length], sender).unwrap();
        let answered = from.recv_from(&mut buffer);
        let (length, answerer) = answered.unwrap_or_else(|error| panic!("{at} from {address}: {error}"));
        assert_eq!((&buffer[..length], answerer.ip()), (&sent[..], address));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn known_flows_are_not_asked_for_again() {
    if !possible() {
        return;
    }
    let (mut cloud, group, [a, b]) = two_guests().await;
    let router = cloud.namespaces().remove(0);
    count(&router);
    let (inside, outside) = (a.udp(0).await, cloud.outside.udp(0).await);
    let inside6 = a.run(|| UdpSocket::bind("[::]:0")).await.unwrap();
    let to = b.run(|| UdpSocket::bind("[::]:5000")).await.unwrap();
    for socket in [&inside6, &to] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let by =
        [(&inside, IpAddr::V4(b.address)), (&inside6, "fd12::6".parse().unwrap()), (&outside, PUBLIC.into())];
    for (from, address) in by {
        let before = counted(&router);
        talk(from, &to, address);
        let asked = counted(&router) - before;
        assert!((2..DATAGRAMS).contains(&asked), "{asked} packets of {} to {address}", 2 * DATAGRAMS);
    }

    // What is open to all is not tracked: it ends with its rule, the shortcut too.
    cloud.group(&group).ingress.retain(|rule| *rule != any_from("::/0"));
    cloud.apply().await;
    inside6.send_to(b"late", ("fd12::6", 5000)).unwrap();
    to.set_read_timeout(Some(SILENCE)).unwrap();
    let mut buffer = [0; 16];
    assert!(to.recv_from(&mut buffer).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_reset_is_forgotten() {
    if !possible() || !std::path::Path::new("/proc/net/nf_conntrack").exists() {
        return;
    }
    let (cloud, _, [a, b]) = two_guests().await;
    let listener = b.listen(80).await;
    let mut client = a.connect(b.address, 80, PATIENCE).await.unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut block = [0; 1000];
    for _ in 0..20 {
        client.write_all(&block).unwrap();
        server.read_exact(&mut block).unwrap();
        server.write_all(&block).unwrap();
        client.read_exact(&mut block).unwrap();
    }
    let seconds = || forgotten_in(&cloud.namespaces()[0], "tcp", "dport=80");
    assert!(seconds().unwrap() > 400_000, "what was not seen is not taken for unanswered");
    set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    let reset = server.read(&mut block).unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    // The kernel has not seen all of it, and yet takes the reset for its end.
    assert!(seconds().is_none_or(|seconds| seconds <= 10));
}

/// What leaves by the bucket of the first guest's card, in packets.
fn waited(router: &str) -> usize {
    let statistics = within(router, &["tc", "-s", "qdisc", "show", "dev", "i00000000000001"]);
    let packets = statistics.split(" bytes ").nth(1).unwrap();
    packets.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_held_to_a_bandwidth_waits_first() {
    if !possible() {
        return;
    }
    let (mut cloud, group, [a, b]) = two_guests().await;
    let router = cloud.namespaces().remove(0);
    let (from, to) = (a.udp(0).await, b.udp(5000).await);
    talk(&from, &to, b.address.into());
    let interface = cloud.plan.interfaces[0].interface_id.clone();
    let rate = 100_000_000;
    cloud.interface(&interface).bandwidth = Some(Bandwidth { baseline: rate, peak: rate });
    cloud.apply().await;
    count(&router);
    talk(&from, &to, b.address.into());
    let asked = counted(&router);
    assert!((2..DATAGRAMS).contains(&asked), "{asked} packets of {}", 2 * DATAGRAMS);
    assert!(waited(&router) >= DATAGRAMS, "{} packets waited", waited(&router));

    // The rules hold for what waits as for all else.
    cloud.group(&group).ingress.retain(|rule| *rule != udp_from("10.0.0.0/16", 5000));
    cloud.apply().await;
    let stranger = a.udp(0).await;
    stranger.send_to(b"late", (b.address, 5000)).unwrap();
    to.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(to.recv_from(&mut [0; 16]).is_err());

    cloud.group(&group).ingress.push(udp_from("10.0.0.0/16", 5000));
    cloud.interface(&interface).bandwidth = None;
    cloud.apply().await;
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    talk(&from, &to, b.address.into());
}
