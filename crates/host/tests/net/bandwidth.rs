//! Interfaces are held to their bandwidth both ways, by real TCP between namespaces.

use crate::cloud::{Cloud, Guest, Machine, PATIENCE, any_from, id, possible};
use datapath::{Bandwidth, NetworkCard};
use host::net::LinuxNetwork;
use model::Kind;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const MBIT: u64 = 1_000_000;
/// The first of it is not counted: TCP finds its pace, and a full bucket lets its content through at once.
const WARM_UP: Duration = Duration::from_millis(700);
const MEASURED: Duration = Duration::from_millis(1500);

/// On a host that is busy with other things a stream may fall short, and what waited to be read come all at once.
const ATTEMPTS_MAX: u16 = 3;

/// Whether what arrives is the figure. Ethernet, IP and TCP headers are counted too.
async fn carries(what: &str, figure: u64, from: &Machine, to: &Guest, port: u16) {
    carry(what, figure, &[(from, to)], port).await;
}

/// The same of all that arrives at once.
async fn carry(what: &str, figure: u64, streams: &[(&Machine, &Guest)], port: u16) {
    let mbit = (figure / MBIT) as f64;
    let mut rates = Vec::new();
    for attempt in 0..ATTEMPTS_MAX {
        let rate = throughput(streams, port + attempt).await;
        if (0.75 * mbit..=1.10 * mbit).contains(&rate) {
            return;
        }
        rates.push(rate);
    }
    panic!("{what}: {rates:.1?} of {mbit} Mbit/s");
}

/// Megabits a second that arrive at the second machines, of all streams in the same time.
async fn throughput(streams: &[(&Machine, &Guest)], port: u16) -> f64 {
    let mut ends = Vec::new();
    for (from, to) in streams {
        let listener = to.listen(port).await;
        let sender = from.connect(to.address, port, PATIENCE).await.unwrap();
        ends.push((sender, listener.accept().unwrap().0));
    }
    let start = Instant::now() + WARM_UP;
    let send = |mut stream: TcpStream| {
        let block = vec![0; 64 * 1024];
        // Until the other end is closed.
        while stream.write_all(&block).is_ok() {}
    };
    let streaming = move || {
        std::thread::scope(|scope| {
            let receivers = ends.into_iter().map(|(sender, receiver)| {
                scope.spawn(move || send(sender));
                scope.spawn(move || receive(receiver, start))
            });
            let receivers: Vec<_> = receivers.collect();
            receivers.into_iter().map(|receiver| receiver.join().unwrap()).sum()
        })
    };
    tokio::task::spawn_blocking(streaming).await.unwrap()
}

fn receive(mut stream: TcpStream, start: Instant) -> f64 {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut block = vec![0; 256 * 1024];
    let mut count_until = |end: Instant| {
        let mut bytes = 0;
        while Instant::now() < end {
            bytes += stream.read(&mut block).unwrap();
        }
        bytes
    };
    count_until(start);
    let bytes = count_until(start + MEASURED);
    bytes as f64 * 8.0 / 1e6 / start.elapsed().as_secs_f64()
}

/// Two guests of which only the first is held.
async fn two_guests(cloud: &mut Cloud, bandwidth: Option<Bandwidth>) -> (Guest, Guest) {
    let (_, _, [held, free]) = cloud.add_two();
    cloud.interface(&held).bandwidth = bandwidth;
    cloud.apply().await;
    (cloud.guest(&held).await, cloud.guest(&free).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_sends_and_is_sent_no_more_than_its_bandwidth() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let bandwidth = |mbit: u64| Some(Bandwidth { baseline: mbit * MBIT, peak: mbit * MBIT });
    let (held, free) = two_guests(&mut cloud, bandwidth(100)).await;
    let mut port = 5000;
    for figure in [100, 400] {
        // Changed while the guest runs, and by a driver that has just come.
        cloud.plan.interfaces[0].bandwidth = bandwidth(figure);
        cloud.network = LinuxNetwork::new(cloud.options.clone()).unwrap();
        cloud.apply().await;
        for (from, to) in [(&held, &free), (&free, &held)] {
            port += 10;
            let way = if to.address == held.address { "to the guest" } else { "from the guest" };
            carries(way, figure * MBIT, from, to, port).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_was_quiet_may_send_more_for_a_while() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    // The bucket of 240 s at this baseline lasts for as many seconds at ten times the rate as a test waits for.
    let bandwidth = Bandwidth { baseline: 5 * MBIT, peak: 200 * MBIT };
    let (held, free) = two_guests(&mut cloud, Some(bandwidth)).await;
    carries("at the peak", 200 * MBIT, &held, &free, 5000).await;
    // 150 MB are in the bucket; more than is left of it.
    cloud.interface(&id(Kind::NetworkInterface, 1)).bandwidth = None;
    cloud.apply().await;
    let links = cloud.links(&cloud.plan.vpcs[0].vpc_id).await;
    assert!(!links.contains("ifb") && !links.contains("tbf"), "{links}");
    let rate = throughput(&[(&held, &free)], 5100).await;
    eprintln!("held to nothing: {rate:.1}");
    assert!(rate > 250.0, "{rate}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interfaces_of_a_network_card_share_its_bandwidth() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let held = [1, 2, 3].map(|at| cloud.add_interface(at, &vpc, &format!("10.0.0.{}", at + 4), &[&open]));
    let free = [4, 5].map(|at| cloud.add_interface(at, &vpc, &format!("10.0.0.{}", at + 4), &[&open]));
    let figure = 100 * MBIT;
    for (interface, index) in held.iter().zip([0, 0, 1]) {
        let instance_id = id(Kind::Instance, 1);
        cloud.interface(interface).bandwidth = Some(Bandwidth { baseline: figure, peak: figure });
        cloud.interface(interface).network_card = Some(NetworkCard { instance_id, index });
    }
    cloud.apply().await;
    let [a, b, other] = &held;
    let (a, b, other) = (cloud.guest(a).await, cloud.guest(b).await, cloud.guest(other).await);
    let [c, d] = &free;
    let (c, d) = (cloud.guest(c).await, cloud.guest(d).await);
    carry("sent by two of one card", figure, &[(&a, &c), (&b, &d)], 5000).await;
    carry("received by two of one card", figure, &[(&c, &a), (&d, &b)], 5010).await;
    carry("sent by two of two cards", 2 * figure, &[(&a, &c), (&other, &d)], 5020).await;
    carries("one has what the other leaves", figure, &c, &a, 5030).await;

    // The second goes, and comes again to a driver that knows nothing.
    let second = cloud.plan.interfaces.remove(1);
    cloud.apply().await;
    let links = cloud.links(&vpc).await;
    assert_eq!(links.matches(": o").count(), 0, "{links}");
    carries("to the one that is left", figure, &c, &a, 5040).await;
    carries("from the one that is left", figure, &a, &c, 5050).await;
    drop(b);
    cloud.plan.interfaces.push(second);
    cloud.network = LinuxNetwork::new(cloud.options.clone()).unwrap();
    cloud.apply().await;
    let b = cloud.guest(&held[1]).await;
    carry("received by two again", figure, &[(&c, &a), (&d, &b)], 5060).await;
    for interface in &held {
        cloud.interface(interface).bandwidth = None;
    }
    cloud.apply().await;
    let links = cloud.links(&vpc).await;
    assert!(!links.contains("ifb") && !links.contains("tbf"), "{links}");
    let rate = throughput(&[(&c, &a)], 5070).await;
    assert!(rate > 150.0, "held to nothing: {rate}");
}
