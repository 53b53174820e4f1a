//! Interfaces are held to their bandwidth both ways, by real TCP between namespaces.

use crate::cloud::{Cloud, Guest, Machine, PATIENCE, any_from, possible};
use datapath::Bandwidth;
use host::net::LinuxNetwork;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

const MBIT: u64 = 1_000_000;
/// The first of it is not counted: TCP finds its pace, and a full bucket lets its content through at once.
const WARM_UP: Duration = Duration::from_millis(700);
const MEASURED: Duration = Duration::from_millis(1500);

/// On a host that is busy with other things a stream may fall short.
const ATTEMPTS_MAX: u16 = 3;

/// Whether what arrives is the figure. Ethernet, IP and TCP headers are counted too.
async fn carries(what: &str, figure: u64, from: &Machine, to: &Guest, port: u16) {
    let mbit = (figure / MBIT) as f64;
    let mut rate = 0.0;
    for attempt in 0..ATTEMPTS_MAX {
        rate = throughput(from, to, to.address, port + attempt).await;
        eprintln!("{what}: {rate:.1} of {mbit} Mbit/s");
        assert!(rate <= 1.10 * mbit, "{what}: {rate}");
        if rate >= 0.75 * mbit {
            return;
        }
    }
    panic!("{what}: {rate}");
}

/// Megabits a second that arrive at the second machine.
async fn throughput(from: &Machine, to: &Machine, address: Ipv4Addr, port: u16) -> f64 {
    let listener = to.listen(port).await;
    let mut sender = from.connect(address, port, PATIENCE).await.unwrap();
    let (receiver, _) = listener.accept().unwrap();
    let sending = std::thread::spawn(move || {
        let block = vec![0; 64 * 1024];
        // Until the other end is closed.
        while sender.write_all(&block).is_ok() {}
    });
    let rate = tokio::task::spawn_blocking(move || receive(receiver)).await.unwrap();
    sending.join().unwrap();
    rate
}

fn receive(mut stream: TcpStream) -> f64 {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut block = vec![0; 256 * 1024];
    let mut count = |time: Duration| {
        let (start, mut bytes) = (Instant::now(), 0);
        while start.elapsed() < time {
            bytes += stream.read(&mut block).unwrap();
        }
        bytes as f64 * 8.0 / 1e6 / start.elapsed().as_secs_f64()
    };
    count(WARM_UP);
    count(MEASURED)
}

/// Two guests of which only the first is held.
async fn two_guests(cloud: &mut Cloud, bandwidth: Option<Bandwidth>) -> (Guest, Guest) {
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let held = cloud.add_interface(1, &vpc, "10.0.0.5", &[&open]);
    let free = cloud.add_interface(2, &vpc, "10.0.0.6", &[&open]);
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
    cloud.interface(&crate::cloud::id(model::Kind::NetworkInterface, 1)).bandwidth = None;
    cloud.apply().await;
    let links = cloud.links(&cloud.plan.vpcs[0].vpc_id).await;
    assert!(!links.contains("ifb") && !links.contains("tbf"), "{links}");
    let rate = throughput(&held, &free, free.address, 5100).await;
    eprintln!("held to nothing: {rate:.1}");
    assert!(rate > 250.0, "{rate}");
}
