//! Security groups: what they let through, what they drop, and when a change of theirs holds.

use crate::cloud::{
    Cloud, Flow, Guest, PATIENCE, SILENCE, any_from, assert_live, carries, forgotten_in, ping_from, possible,
    tcp_from, udp_from, within,
};
use crate::restart::forget_at_once;
use crate::wire::{Card, Ends, ROUTER};
use datapath::{Peer, Protocol, Rule, Tracking};
use ipnet::{IpNet, Ipv4Net};
use model::{Random, SeededRandom};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test(flavor = "multi_thread")]
async fn groups_decide_between_guests() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let rules = vec![tcp_from("10.0.0.0/16", 80), udp_from("10.0.0.0/16", 5000), ping_from("0.0.0.0/0")];
    let web = cloud.add_group(1, &vpc, rules);
    let client = cloud.add_group(2, &vpc, vec![]);
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&client]);
    let b = cloud.add_interface(2, &vpc, "10.0.9.6", &[&web]);
    cloud.apply().await;
    let (a, b) = (cloud.guest(&a).await, cloud.guest(&b).await);

    let _allowed = b.listen(80).await;
    let _denied = b.listen(81).await;
    assert!(a.reaches(b.address, 80).await);
    assert!(a.is_ignored(b.address, 81).await);

    // Both datagrams take the same way: when the second is there the first would be.
    let (denied, allowed, sender) = (b.udp(5001).await, b.udp(5000).await, a.udp(0).await);
    sender.send_to(b"denied", (b.address, 5001)).unwrap();
    sender.send_to(b"allowed", (b.address, 5000)).unwrap();
    let mut data = [0; 16];
    let (length, from) = allowed.recv_from(&mut data).unwrap();
    assert_eq!((&data[..length], from.ip()), (&b"allowed"[..], a.address.into()));
    denied.set_nonblocking(true).unwrap();
    assert!(denied.recv_from(&mut data).is_err());

    assert!(a.ping(b.address, PATIENCE).await);
    assert!(!b.ping(a.address, SILENCE).await, "the client's group lets nothing in");
}

#[tokio::test(flavor = "multi_thread")]
async fn egress_rules_decide_too() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let shut = cloud.add_group(2, &vpc, vec![]);
    cloud.group(&shut).egress = vec![tcp_from("10.0.0.6/32", 80)];
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&shut]);
    let b = cloud.add_interface(2, &vpc, "10.0.0.6", &[&open]);
    let c = cloud.add_interface(3, &vpc, "10.0.0.7", &[&open]);
    cloud.apply().await;
    let (a, b, c) = (cloud.guest(&a).await, cloud.guest(&b).await, cloud.guest(&c).await);
    let _listeners = (b.listen(80).await, b.listen(443).await, c.listen(80).await);
    assert!(a.reaches(b.address, 80).await);
    assert!(a.is_ignored(b.address, 443).await);
    assert!(a.is_ignored(c.address, 80).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_as_peer_is_its_members() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let clients = cloud.add_group(1, &vpc, vec![]);
    let strangers = cloud.add_group(2, &vpc, vec![]);
    let peer = Peer::Group(clients.clone());
    let rule = Rule { protocol: Protocol::Tcp { from: 5430, to: 5439 }, peer: peer.clone() };
    let news = Rule { protocol: Protocol::Udp { from: 7000, to: 7000 }, peer };
    let database = cloud.add_group(3, &vpc, vec![rule, news]);
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&clients]);
    let b = cloud.add_interface(2, &vpc, "10.0.0.6", &[&strangers]);
    let c = cloud.add_interface(3, &vpc, "10.0.0.7", &[&database, &strangers]);
    let prefix: IpNet = "10.0.0.32/28".parse().unwrap();
    cloud.interface(&a).prefixes.push(prefix);
    cloud.group(&clients).members.entry(vpc.clone()).or_default().insert(prefix);
    cloud.apply().await;
    let (a, b, c) = (cloud.guest(&a).await, cloud.guest(&b).await, cloud.guest(&c).await);
    let _listeners = (c.listen(5432).await, c.listen(80).await);
    assert!(a.reaches(c.address, 5432).await);
    assert!(a.is_ignored(c.address, 80).await);
    assert!(b.is_ignored(c.address, 5432).await);

    // What is in a prefix of a member speaks for the group too.
    a.ip(&["address", "add", "10.0.0.40/24", "dev", "eth0"]).await;
    let at_c = c.udp(7000).await;
    let delegated = Ipv4Addr::new(10, 0, 0, 40);
    let socket = a.run(move || std::net::UdpSocket::bind((delegated, 0))).await.unwrap();
    socket.send_to(b"hello", (c.address, 7000)).unwrap();
    assert_eq!(at_c.recv_from(&mut [0; 16]).unwrap().1.ip(), delegated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_two_vpcs_share_is_each_ones_own_members() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (one, two) = (cloud.add_vpc(1, "10.0.0.0/16"), cloud.add_vpc(2, "10.0.0.0/16"));
    let shared = cloud.add_group(1, &one, vec![]);
    let member = Rule { protocol: Protocol::All, peer: Peer::Group(shared.clone()) };
    cloud.group(&shared).ingress = vec![member];
    let stranger = cloud.add_group(2, &one, vec![]);
    let a = cloud.add_interface(1, &one, "10.0.0.5", &[&shared]);
    let b = cloud.add_interface(2, &one, "10.0.0.6", &[&stranger]);
    let c = cloud.add_interface(3, &two, "10.0.0.6", &[&shared]);
    let d = cloud.add_interface(4, &two, "10.0.0.7", &[&shared]);
    cloud.apply().await;
    let (a, b) = (cloud.guest(&a).await, cloud.guest(&b).await);
    let (c, d) = (cloud.guest(&c).await, cloud.guest(&d).await);
    let _listeners = (a.listen(80).await, d.listen(80).await);
    assert!(c.reaches(d.address, 80).await);
    assert!(b.is_ignored(a.address, 80).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_holds_for_new_flows_at_once_and_tracked_flows_stay() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let web = cloud.add_group(1, &vpc, vec![tcp_from("10.0.0.0/16", 80)]);
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&web]);
    let b = cloud.add_interface(2, &vpc, "10.0.0.6", &[&web]);
    cloud.apply().await;
    let (a, b) = (cloud.guest(&a).await, cloud.guest(&b).await);
    let (first, _second) = (b.listen(80).await, b.listen(81).await);
    let mut tracked = a.connect(b.address, 80, PATIENCE).await.unwrap();
    let (mut served, _) = first.accept().unwrap();
    assert!(a.is_ignored(b.address, 81).await);

    cloud.group(&web).ingress = vec![tcp_from("10.0.0.0/16", 81)];
    cloud.apply().await;
    assert!(a.reaches(b.address, 81).await);
    assert!(a.is_ignored(b.address, 80).await);
    tracked.set_read_timeout(Some(PATIENCE)).unwrap();
    served.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut word = [0; 4];
    tracked.write_all(b"ping").unwrap();
    served.read_exact(&mut word).unwrap();
    served.write_all(b"pong").unwrap();
    tracked.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_flows_stay_as_long_as_the_interface_says() {
    if !possible() || !std::path::Path::new("/proc/net/nf_conntrack").exists() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let nics = [5, 6, 7].map(|at| cloud.add_interface(at, &vpc, &format!("10.0.0.{at}"), &[&open]));
    let brief = Tracking { tcp_established: Some(100), udp: Some(55), udp_stream: None };
    cloud.interface(&nics[0]).tracking = brief;
    cloud.apply().await;
    let router = cloud.namespaces().remove(0);
    let (a, b) = (cloud.guest(&nics[0]).await, cloud.guest(&nics[1]).await);
    let c = cloud.guest(&nics[2]).await;
    let listeners = (a.listen(80).await, b.listen(80).await);
    // The one that is brief begins, is begun with, and has no part.
    let talks = [(&a, &b), (&c, &a), (&c, &b)];
    let mut open = Vec::new();
    for (from, to) in talks {
        open.push(from.connect(to.address, 80, PATIENCE).await.unwrap());
        let heard = to.udp(4001).await;
        from.udp(4000).await.send_to(b"word", (to.address, 4001)).unwrap();
        heard.recv_from(&mut [0; 4]).unwrap();
    }
    // Who has accepted them has seen the last of what begins them.
    let _accepted = [&listeners.1, &listeners.0, &listeners.1].map(|listener| listener.accept().unwrap());
    let idle = |protocol: &str, (from, to): (&Guest, &Guest)| {
        let ends = format!("src={} dst={} ", from.address, to.address);
        forgotten_in(&router, protocol, &ends).unwrap()
    };
    let tcp = talks.map(|talk| idle("tcp", talk));
    assert!(tcp[0] <= 100 && tcp[1] <= 100 && tcp[2] > 400_000, "{tcp:?}");
    let udp = talks.map(|talk| idle("udp", talk));
    assert!((31..=55).contains(&udp[0]) && (31..=55).contains(&udp[1]) && udp[2] <= 30, "{udp:?}");

    cloud.interface(&nics[0]).tracking = Tracking::default();
    cloud.apply().await;
    drop((open, listeners));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_may_overlap_as_they_like() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let random = SeededRandom::new(7);
    let below = |bound: u64| (random.u64() % bound) as u8;
    let mut groups = Vec::new();
    for number in 0..40 {
        let rules = (0..20).map(|_| {
            let (from, to) = (u16::from(below(9)), u16::from(below(9)));
            let (from, to) = (from.min(to) * 8191, from.max(to) * 8191);
            let octet = |value: u8| (value < 3).then_some(value);
            let protocol = match below(5) {
                0 => Protocol::Tcp { from, to },
                1 => Protocol::Udp { from, to },
                2 => Protocol::Icmp { kind: octet(below(5)), code: octet(below(5)) },
                3 => Protocol::Number(below(4)),
                _ => Protocol::All,
            };
            let length = if protocol == Protocol::All { 31 } else { below(33) };
            let net = Ipv4Net::new([10, 0, 0, below(8)].into(), length).unwrap();
            Rule { protocol, peer: Peer::Cidr(net.into()) }
        });
        groups.push(cloud.add_group(number, &vpc, rules.collect()));
    }
    cloud.add_interface(1, &vpc, "10.0.0.5", &groups.iter().collect::<Vec<_>>());
    cloud.apply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_open_to_everybody_ends_with_its_rule() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start_known().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let web = cloud.add_group(1, &vpc, vec![tcp_from("0.0.0.0/0", 80), tcp_from("0.0.0.0/0", 81)]);
    let client = cloud.add_group(2, &vpc, vec![]);
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&client]);
    let b = cloud.add_interface(2, &vpc, "10.0.0.6", &[&web]);
    let public = Ipv4Addr::new(198, 18, 7, 6);
    cloud.translate(&b, Some(public));
    cloud.apply().await;
    let (a, b) = (cloud.guest(&a).await, cloud.guest(&b).await);
    let listeners = [b.listen(80).await, b.listen(81).await];
    let mut flows = Vec::new();
    for listener in &listeners {
        let port = listener.local_addr().unwrap().port();
        for (machine, address) in [(&a.machine, b.address), (&cloud.outside, public)] {
            let begun = machine.connect(address, port, PATIENCE).await.unwrap();
            flows.push((begun, listener.accept().unwrap().0));
        }
    }
    let flows: [Flow; 4] = flows.try_into().unwrap();
    assert_live(flows.each_ref(), [true; 4]);

    // Another rule allows one of the two callers still, and the other port is as it was.
    cloud.group(&web).ingress = vec![tcp_from("10.0.0.5/32", 80), tcp_from("0.0.0.0/0", 81)];
    cloud.apply().await;
    assert_live(flows.each_ref(), [true, false, true, true]);
    assert!(!carries(&flows[1].1, &flows[1].0, SILENCE), "nor is it begun anew from its other end");

    // That one is tracked since: it was narrow when its rule went.
    cloud.group(&web).ingress.clear();
    cloud.apply().await;
    assert_live(flows.each_ref(), [true, false, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_stays_is_dropped_while_rules_change_and_nothing_else_passes() {
    if !possible() {
        return;
    }
    /// Twenty of each kind.
    const ROUNDS: u16 = 60;
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let ports = |from, cidr: &str| Rule { protocol: Protocol::Udp { from, to: 5000 }, ..any_from(cidr) };
    let [wide, across, narrow] =
        [ports(4000, "10.0.0.0/8"), ports(4500, "10.0.0.0/24"), ports(5000, "0.0.0.0/0")];
    let web = cloud.add_group(1, &vpc, vec![]);
    let by_group = Rule { peer: Peer::Group(web.clone()), ..ports(5000, "0.0.0.0/0") };
    cloud.group(&web).ingress = vec![by_group.clone()];
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&web]);
    let b = cloud.add_interface(2, &vpc, "10.0.0.6", &[&web]);
    cloud.apply().await;
    let (card, b) = (Card::plug(&cloud, &a).await, cloud.guest(&b).await);
    let (allowed, denied) = (b.udp(5000).await, b.udp(5001).await);
    denied.set_nonblocking(true).unwrap();
    cloud.group(&web).ingress.extend([tcp_from("10.0.0.0/16", 80), any_from("10.1.0.0/16")]);
    cloud.apply().await;
    // A table's handle is new whenever it is made.
    let router = cloud.namespaces().remove(0);
    let tables = || within(&router, &["nft", "-a", "list", "tables"]);
    let made = tables();
    // Each datagram begins a flow: none is let on for another's sake.
    forget_at_once(&router);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let probing = scope.spawn(|| {
            for port in (1024..21_024u16).cycle().take_while(|_| !is_over.load(Ordering::Relaxed)) {
                for to in [5001, 5000] {
                    let ends = Ends { mac: ROUTER, from: (card.address, port), to: (b.address, to) };
                    card.send(&card.udp_frame(ends, &port.to_be_bytes()));
                }
                let mut data = [0; 8];
                let (length, _) = allowed.recv_from(&mut data).expect("nothing is dropped");
                assert_eq!(data[..length], port.to_be_bytes());
                assert!(denied.recv_from(&mut data).is_err(), "and nothing else passes");
            }
        });
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            for round in (0..ROUNDS).take_while(|_| !probing.is_finished()) {
                let others = (0..100).map(|at| tcp_from(&format!("10.{at}.0.0/16"), 6000 + round));
                let net = any_from(&format!("10.{}.0.0/16", 1 + round % 200));
                // What allows it is another rule each time; of some rounds it is the only one about ports.
                cloud.group(&web).ingress = match round % 3 {
                    0 => vec![by_group.clone(), net],
                    1 => [vec![wide.clone(), net], others.collect()].concat(),
                    _ => [vec![net, across.clone(), narrow.clone()], others.collect()].concat(),
                };
                runtime.block_on(cloud.apply());
            }
        });
        is_over.store(true, Ordering::Relaxed);
        probing.join().unwrap();
    });
    assert_eq!(tables(), made, "all was said as a difference to what was before");
}
