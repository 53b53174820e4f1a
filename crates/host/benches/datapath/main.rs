//! What the data path costs, against a plain Linux bridge or router in the same run: `cargo bench -p host`, as root.
//!
//! One thread writes frames into one guest's tap and reads them from another's, as QEMU does, so that all the work on the
//! way is done on its time: the figure is a ratio of what two ways of the same frames take of the processor, in turns.
//! `cargo bench -p host --bench datapath -- elastic` does one part alone: `rules`, `held`, `elastic`, `flood` or `changes`.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/net/cloud.rs"]
#[allow(dead_code)]
mod cloud;
mod frames;

use cloud::{Cloud, Machine, any_from, possible, tcp_from};
use datapath::Bandwidth;
use frames::{Card, Conversation, ROUTER};
use host::net::Network;
use model::Id;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;
const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 6);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 5);

#[tokio::main]
async fn main() {
    if !possible() {
        return;
    }
    println!("ratios of throughput, of {ROUNDS} rounds in turns the median");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|word| word == part);
    if is_wanted("rules") {
        by_rules().await;
    }
    if is_wanted("held") {
        held().await;
    }
    if is_wanted("elastic") {
        outward().await;
    }
    if is_wanted("flood") {
        flood().await;
    }
    if is_wanted("changes") {
        changes().await;
    }
}

/// Two guests against two on a bridge, by how many rules there are.
async fn by_rules() {
    let bridge = Bridge::start().await;
    let mut by_rules = Vec::new();
    for rules in [0, 10, 1000] {
        let (_cloud, pair) = two_guests(rules, None).await;
        by_rules.push(to_a_bridge(&format!("two taps, {rules} rules"), &pair, &bridge));
    }
    let spread = |kind: usize| {
        let all = by_rules.iter().map(|ratios| ratios[kind]);
        all.clone().fold(f64::MAX, f64::min) / all.fold(0.0, f64::max)
    };
    for (kind, what) in ["TCP", "64 bytes", "new connections"].into_iter().enumerate() {
        say(&format!("slowest of the rule counts to the fastest: {what}"), spread(kind), 0.9);
    }
}

/// Two guests that are held to more than they can reach.
async fn held() {
    let bridge = Bridge::start().await;
    let rate = 1_000_000_000_000;
    let (_cloud, pair) = two_guests(10, Some(Bandwidth { baseline: rate, peak: rate })).await;
    to_a_bridge("two taps held to a bandwidth", &pair, &bridge);
}

fn to_a_bridge(what: &str, pair: &Pair, bridge: &Bridge) -> [f64; 3] {
    let [tcp, small, new] = compare(pair, &bridge.pair);
    say(&format!("{what}, to a bridge: TCP"), tcp, 0.9);
    say(&format!("{what}, to a bridge: 64 bytes"), small, 0.65);
    say(&format!("{what}, to a bridge: new connections"), new, 0.6);
    [tcp, small, new]
}

async fn outward() {
    let routed = Routed::start().await;
    let (_cloud, pair) = elastic().await;
    let [tcp, small, _] = compare(&pair, &routed.pair);
    say("an elastic address to a routed veth: TCP", tcp, 0.85);
    say("an elastic address to a routed veth: 64 bytes", small, 0.85);
}

fn say(what: &str, ratio: f64, bound: f64) {
    let verdict = if ratio >= bound { "ok" } else { "MISSED" };
    println!("{what:<58} {ratio:>6.2}   bound >= {bound:<4}   {verdict}");
}

fn say_at_most(what: &str, took: Duration, bound_ms: u128) {
    let verdict = if took.as_millis() <= bound_ms { "ok" } else { "MISSED" };
    println!("{what:<58} {:>6.1} ms bound <= {bound_ms}   {verdict}", took.as_secs_f64() * 1e3);
}

/// What the work takes of the processor, the kernel's part included.
fn processor_time(work: impl FnOnce()) -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let began = now();
    work();
    now() - began
}

/// Two cards that reach each other.
struct Pair {
    one: Card,
    two: Card,
}

/// TCP, small packets and new connections: the second's time over the first's.
fn compare(ours: &Pair, theirs: &Pair) -> [f64; 3] {
    let mut next_port = 10_000;
    let mut ratios = |work: &dyn Fn(&Pair, u16)| {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (pair, times) in [ours, theirs].into_iter().zip(&mut times) {
                times.push(processor_time(|| work(pair, next_port)));
            }
            next_port += 6_000;
        }
        let [ours, theirs] = times.map(|mut times| {
            times.sort();
            times[ROUNDS / 2].as_secs_f64()
        });
        theirs / ours
    };
    let tcp = ratios(&|pair, port| {
        let mut talk = Conversation::begin(&pair.one, &pair.two, port, 80);
        (0..2_000).for_each(|_| talk.send_segment());
        talk.end();
    });
    let small = ratios(&|pair, port| {
        let frame = pair.one.datagram(&pair.two, port, 53, &[0; 22]);
        (0..20_000).for_each(|_| pair.one.pass(&frame, &pair.two));
    });
    let new = ratios(&|pair, port| {
        (0..3_000).for_each(|at| Conversation::begin(&pair.one, &pair.two, port + at, 80).end());
    });
    [tcp, small, new]
}

/// Two guests of a group with so many rules, of which the last one lets them speak.
async fn two_guests(rules: u16, bandwidth: Option<Bandwidth>) -> (Cloud, Pair) {
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let others = (1..rules).map(|at| tcp_from(&format!("10.{}.{}.0/24", 1 + at / 200, at % 200), at));
    let ingress = match rules {
        0 => vec![any_from("0.0.0.0/0")],
        _ => others.chain([any_from("10.0.0.0/24")]).collect(),
    };
    let group = cloud.add_group(1, &vpc, ingress);
    let nics = [A, B].map(|address| {
        let number = address.octets()[3].into();
        let nic = cloud.add_interface(number, &vpc, &address.to_string(), &[&group]);
        cloud.interface(&nic).bandwidth = bandwidth;
        nic
    });
    cloud.apply().await;
    let [one, two] = [card(&cloud, &nics[0]).await, card(&cloud, &nics[1]).await];
    one.settle(&two);
    (cloud, Pair { one, two })
}

async fn card(cloud: &Cloud, interface: &Id) -> Card {
    let tap = cloud.tap(interface).await;
    let nic = cloud.plan.interfaces.iter().find(|nic| nic.interface_id == *interface).unwrap();
    Card::new(tap, nic.mac, nic.addresses[0].private_ip, ROUTER)
}

/// The same two on a bridge.
struct Bridge {
    _machine: Machine,
    pair: Pair,
}

impl Bridge {
    async fn start() -> Bridge {
        let machine = Machine::new(&format!("bench{}-bridge", std::process::id())).await;
        machine.ip(&["link", "add", "bridge", "type", "bridge"]).await;
        machine.ip(&["link", "set", "bridge", "up"]).await;
        let macs = [[2, 0, 0, 0, 0, 5], [2, 0, 0, 0, 0, 6]];
        let taps = [frames::tap(&machine, "one").await, frames::tap(&machine, "two").await];
        for name in ["one", "two"] {
            machine.ip(&["link", "set", name, "mtu", "9001", "master", "bridge", "up"]).await;
        }
        let [one, two] = taps;
        let pair =
            Pair { one: Card::new(one, macs[0], A, macs[1]), two: Card::new(two, macs[1], B, macs[0]) };
        // The bridge forwards at once and learns where both are.
        machine.ip(&["link", "set", "bridge", "type", "bridge", "forward_delay", "0"]).await;
        pair.one.settle(&pair.two);
        Bridge { _machine: machine, pair }
    }
}

/// A guest behind two routers, without any filter: tap, veth, tap.
struct Routed {
    _machines: [Machine; 2],
    pair: Pair,
}

impl Routed {
    async fn start() -> Routed {
        let id = std::process::id();
        let inner = Machine::new(&format!("bench{id}-inner")).await;
        let outer = Machine::new(&format!("bench{id}-outer")).await;
        inner.ip(&["link", "add", "out", "type", "veth", "peer", "name", "in", "netns", &outer.name]).await;
        let (mac, wan_mac) = ([2, 0, 0, 0, 0, 5], [2, 0, 0, 0, 0, 9]);
        let guest = frames::tap(&inner, "guest").await;
        let wan = frames::tap(&outer, "wan").await;
        for (machine, link, address) in [
            (&inner, "guest", "10.0.0.1/24"),
            (&inner, "out", "169.254.0.1/30"),
            (&outer, "in", "169.254.0.2/30"),
            (&outer, "wan", "192.0.2.1/24"),
        ] {
            machine.ip(&["address", "add", address, "dev", link]).await;
            machine.ip(&["link", "set", link, "mtu", "9001", "up"]).await;
        }
        inner.ip(&["link", "set", "guest", "address", &frames::text(ROUTER)]).await;
        inner.ip(&["route", "add", "default", "via", "169.254.0.2"]).await;
        outer.ip(&["route", "add", "10.0.0.0/24", "via", "169.254.0.1"]).await;
        inner.ip(&["neigh", "add", &A.to_string(), "lladdr", &frames::text(mac), "dev", "guest"]).await;
        outer.ip(&["link", "set", "wan", "address", &frames::text(ROUTER)]).await;
        outer
            .ip(&["neigh", "add", &OUTSIDE.to_string(), "lladdr", &frames::text(wan_mac), "dev", "wan"])
            .await;
        for machine in [&inner, &outer] {
            machine.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).await.unwrap();
        }
        let one = Card::new(guest, mac, A, ROUTER);
        let two = Card::new(wan, wan_mac, OUTSIDE, ROUTER);
        one.settle(&two);
        Routed { _machines: [inner, outer], pair: Pair { one, two } }
    }
}

/// A guest with an elastic address, and somebody outside on a tap of the host's.
async fn elastic() -> (Cloud, Pair) {
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let group = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let nic = cloud.add_interface(5, &vpc, &A.to_string(), &[&group]);
    cloud.translate(&nic, Some(PUBLIC));
    let wan_mac = [2, 0, 0, 0, 0, 9];
    let wan = frames::tap(&cloud.host, "wan2").await;
    cloud.host.ip(&["address", "add", "192.0.2.1/24", "dev", "wan2"]).await;
    cloud.host.ip(&["link", "set", "wan2", "address", &frames::text(ROUTER), "mtu", "9001", "up"]).await;
    let to = OUTSIDE.to_string();
    cloud.host.ip(&["neigh", "add", &to, "lladdr", &frames::text(wan_mac), "dev", "wan2"]).await;
    // As where the pool is the LAN's own: nobody lends an address.
    cloud.options.uplink = Some("none".into());
    cloud.network = host::net::LinuxNetwork::new(cloud.options.clone()).unwrap();
    cloud.apply().await;
    let one = card(&cloud, &nic).await.known_as(PUBLIC);
    let two = Card::new(wan, wan_mac, OUTSIDE, ROUTER);
    one.settle(&two);
    (cloud, Pair { one, two })
}

/// What two guests still pass while a third begins all the flows it can.
async fn flood() {
    let (mut cloud, pair) = two_guests(0, None).await;
    let (vpc, group) = (cloud.plan.vpcs[0].vpc_id.clone(), cloud.plan.groups[0].group_id.clone());
    let third = cloud.add_interface(7, &vpc, "10.0.0.7", &[&group]);
    let fourth = cloud.add_interface(8, &vpc, "10.0.0.8", &[&group]);
    for interface in [&third, &fourth] {
        let bandwidth = Bandwidth { baseline: 1_000_000_000, peak: 1_000_000_000 };
        cloud.interface(interface).bandwidth = Some(bandwidth);
    }
    cloud.apply().await;
    let (third, fourth) = (card(&cloud, &third).await, card(&cloud, &fourth).await);
    let measure = || {
        let frame = pair.one.datagram(&pair.two, 4000, 53, &[0; 22]);
        let work = || (0..60_000).for_each(|_| pair.one.pass(&frame, &pair.two));
        processor_time(work).as_secs_f64()
    };
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let alone = measure();
        let ends = Arc::new(AtomicBool::new(false));
        let flooding = std::thread::spawn({
            let (ends, third, fourth) = (ends.clone(), third.clone(), fourth.clone());
            move || {
                for flow in (0u32..).take_while(|_| !ends.load(Ordering::Relaxed)) {
                    let [to, from] = [flow >> 16, flow].map(|port| port as u16);
                    let _ = rustix::io::write(&*third.tap, &third.datagram(&fourth, from, to, &[0; 1400]));
                }
            }
        });
        let beside = measure();
        ends.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
        ratios.push(alone / beside);
    }
    ratios.sort_by(f64::total_cmp);
    say("two guests beside one that floods, to the two alone", ratios[1], 0.8);
}

/// How long changes take.
async fn changes() {
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let groups: Vec<Id> = (0..1000u16)
        .map(|group| {
            let rules = (0..10).map(|rule| tcp_from(&format!("10.{rule}.0.0/16"), group * 10 + rule));
            cloud.add_group(group.into(), &vpc, rules.collect())
        })
        .collect();
    for number in 0..1000 {
        let address = format!("10.0.{}.{}", number / 200, 10 + number % 200);
        cloud.add_interface(number, &vpc, &address, &[&groups[number as usize]]);
    }
    cloud.apply().await;
    let mut times = Vec::new();
    for port in 0..ROUNDS {
        cloud.group(&groups[3]).ingress.push(tcp_from("0.0.0.0/0", 22 + port as u16));
        let began = Instant::now();
        cloud.apply().await;
        times.push(began.elapsed());
    }
    times.sort();
    say_at_most("one rule changed beside 1,000 interfaces, 10,000 rules", times[ROUNDS / 2], 50);

    // All rules from nothing: the links are there, as after a restart of the daemon.
    let router = cloud.namespaces().remove(0);
    cloud::within(&router, &["nft", "flush", "ruleset"]);
    cloud.network = host::net::LinuxNetwork::new(cloud.options.clone()).unwrap();
    let began = Instant::now();
    cloud.apply().await;
    say_at_most("10,000 rules of 1,000 groups loaded from nothing", began.elapsed(), 2000);
    cloud.network.remove_all().await.unwrap();
}
