//! What a daemon that starts anew does to those who speak meanwhile: nothing.

use crate::cloud::{
    Cloud, Flow, Machine, OUTSIDE, PATIENCE, any_from, assert_live, possible, tcp_from, udp_from, within,
};
use crate::routes::{nat_gateway, route, set_routes, three_subnets};
use crate::wire::{Card, Ends, Packet6, ROUTER, is_arp_reply};
use datapath::{AclEntry, Bandwidth, NetworkAcl, Protocol, Rule, Target};
use host::net::{LinuxNetwork, Namespace};
use model::{Id, Kind};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 5);
const PUBLIC_TOO: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 6);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const BLOCK: &str = "fd12:3456:7800::/56";
const UDP: u8 = 17;
/// What groups let pass, and what ACLs let pass of that.
const OPEN: std::ops::RangeInclusive<u16> = 4000..=5999;
const PASSES: std::ops::RangeInclusive<u16> = 5000..=5999;

/// As after a restart.
fn start_anew(cloud: &mut Cloud) {
    cloud.network = LinuxNetwork::new(cloud.options.clone()).unwrap();
}

/// As after one while which somebody touched the rules, if only others': all are made anew.
fn start_unsure(cloud: &mut Cloud) {
    for namespace in cloud.namespaces().iter().chain([&cloud.host.name]) {
        within(namespace, &["nft", "add table ip theirs"]);
        within(namespace, &["nft", "delete table ip theirs"]);
    }
    start_anew(cloud);
}

fn ports(from: u16, to: u16, cidr: &str) -> Rule {
    Rule { protocol: Protocol::Udp { from, to }, ..any_from(cidr) }
}

/// An ACL that lets some ports pass.
fn edge() -> NetworkAcl {
    let protocol = Protocol::Udp { from: *PASSES.start(), to: *PASSES.end() };
    let entry = |(rule_number, cidr): (u16, &str)| AclEntry {
        rule_number,
        cidr: cidr.parse().unwrap(),
        protocol,
        allow: true,
    };
    let entries: Vec<AclEntry> = [(100, "10.0.0.0/16"), (110, BLOCK), (120, "0.0.0.0/0")].map(entry).into();
    NetworkAcl { ingress: entries.clone(), egress: entries }
}

/// 10.0.0.5 with a public address, 10.0.1.5 behind an ACL, both of IPv6 too; 10.0.2.6 by a NAT gateway. Groups of ranges of ports and of
/// networks, of which others have so many that loading them takes a while.
fn busy(cloud: &mut Cloud) -> [Id; 3] {
    let (vpc, _) = three_subnets(cloud);
    cloud.plan.vpcs[0].ipv6_cidrs.push(BLOCK.parse().unwrap());
    for (number, subnet) in cloud.plan.vpcs[0].subnets.iter_mut().enumerate() {
        subnet.ipv6_cidr = Some(format!("fd12:3456:7800:{number}::/64").parse().unwrap());
    }
    *cloud.plan.vpcs[0].network_acls.get_mut(&datapath::examples::id(Kind::NetworkAcl, 1)).unwrap() = edge();
    set_routes(cloud, 0, vec![route("0.0.0.0/0", Target::InternetGateway)]);
    let nat = nat_gateway(1, 0, &[("10.0.0.9", Some(PUBLIC_TOO))]);
    set_routes(cloud, 2, vec![route("0.0.0.0/0", Target::NatGateway(nat.nat_gateway_id.clone()))]);
    cloud.plan.vpcs[0].nat_gateways.push(nat);
    let (first, last) = (*OPEN.start(), *OPEN.end());
    let rules = ["10.0.0.0/16", "203.0.113.0/24", BLOCK].map(|cidr| ports(first, last, cidr));
    let group = cloud.add_group(2, &vpc, rules.clone().into());
    cloud.group(&group).egress = [rules.to_vec(), vec![udp_from("10.0.0.0/8", 53)]].concat();
    let many: Vec<Id> = (10..60u16)
        .map(|number| {
            let rules = (0..20).map(|at| ports(at * 100, at * 100 + number, &format!("10.{at}.0.0/16")));
            cloud.add_group(number.into(), &vpc, rules.collect())
        })
        .collect();
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&group]);
    let b = cloud.add_interface(2, &vpc, "10.0.1.5", &[&group]);
    cloud.add_interface(3, &vpc, "10.0.2.5", &many.iter().collect::<Vec<_>>());
    let c = cloud.add_interface(4, &vpc, "10.0.2.6", &[&group]);
    cloud.translate(&a, Some(PUBLIC));
    cloud.interface(&a).bandwidth = Some(Bandwidth { baseline: 10_000_000_000, peak: 10_000_000_000 });
    for (nic, address) in [(&a, "fd12:3456:7800::5"), (&b, "fd12:3456:7800:1::5")] {
        cloud.assign_ipv6(nic, address);
    }
    [a, b, c]
}

/// Forgets flows of datagrams at once: each packet is the first of one, and no interface has too many.
pub fn forget_at_once(namespace: &str) {
    let setting = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
    within(namespace, &["sh", "-c", &format!("echo 0 > {setting}")]);
}

/// Everybody who may speak to somebody here, one packet after the other, each beside some that may not.
struct Probe {
    a: Card,
    b: Card,
    c: Card,
    ipv6: [Ipv6Addr; 2],
    /// Outside: what may be reached there, and what may not.
    outside: [UdpSocket; 2],
    resolver: UdpSocket,
}

impl Probe {
    /// Fails where a packet is lost or one passes that may not.
    fn round(&self, number: u32) {
        let from = 1024 + (number % 60_000) as u16;
        let to = PASSES.start() + (number % 1000) as u16;
        let word = number.to_be_bytes();
        let Probe { a, b, c, ipv6: [own6, other6], outside: [outside, shut], resolver } = self;
        let ends = |address, port| Ends { mac: ROUTER, from: (a.address, from), to: (address, port) };
        let is_ipv4 = |frame: &[u8]| frame[12..14] == [0x08, 0x00];
        let is_datagram6 = |frame: &[u8]| frame[12..14] == [0x86, 0xdd] && frame[20] == UDP;

        for port in [OPEN.start() - 1, *OPEN.start(), to] {
            a.send(&a.udp_frame(ends(b.address, port), &word));
        }
        let came = b.receive(is_ipv4);
        assert!(came.ends_with(&word) && came[36..38] == to.to_be_bytes(), "to a neighbour: {came:?}");

        for port in [OPEN.start() - 1, *OPEN.start(), to] {
            let packet = Packet6 { from: *own6, to: *other6, hops: 64, protocol: UDP };
            a.send(&a.frame6(packet.datagram((from, port), &word)));
        }
        let came = b.receive(is_datagram6);
        assert!(came.ends_with(&word) && came[56..58] == to.to_be_bytes(), "over IPv6: {came:?}");

        let mut came = [0; 8];
        for port in [shut, outside].map(|socket| socket.local_addr().unwrap().port()) {
            a.send(&a.udp_frame(ends(OUTSIDE, port), &word));
        }
        let (length, source) = outside.recv_from(&mut came).expect("what goes out is not dropped");
        assert_eq!((&came[..length], source.ip()), (&word[..], PUBLIC.into()));
        assert!(shut.recv_from(&mut came).is_err(), "what may not go out does");

        // A NAT gateway remembers flows for long, and has only so many ports.
        if number.is_multiple_of(8) {
            let port = outside.local_addr().unwrap().port();
            let ends = Ends { mac: ROUTER, from: (c.address, from), to: (OUTSIDE, port) };
            c.send(&c.udp_frame(ends, &word));
            let (length, source) = outside.recv_from(&mut came).expect("nor what goes by a NAT gateway");
            assert_eq!((&came[..length], source.ip()), (&word[..], PUBLIC_TOO.into()));
        }

        for port in [OPEN.start() - 1, to] {
            outside.send_to(&word, (PUBLIC, port)).unwrap();
        }
        let came = a.receive(is_ipv4);
        assert!(came.ends_with(&word) && came[36..38] == to.to_be_bytes(), "from outside: {came:?}");

        a.send(&a.udp_frame(ends(RESOLVER, 53), &word));
        resolver.recv_from(&mut [0; 8]).expect("what is for the router is not dropped");
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        a.send(&a.arp_request(a.address, gateway));
        a.receive(|frame| is_arp_reply(frame, gateway));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_that_start_anew_drop_nothing_that_is_allowed_and_let_nothing_else_pass() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start_known().await;
    let [a, b, c] = busy(&mut cloud);
    cloud.apply().await;
    let router = cloud.namespaces().into_iter().find(|name| !name.contains("-nat")).unwrap();
    for namespace in [&router, &cloud.host.name] {
        forget_at_once(namespace);
    }
    let bind = || UdpSocket::bind((RESOLVER, 53));
    let resolver = Namespace::open(&router).unwrap().unwrap().run(bind).await.unwrap();
    resolver.set_read_timeout(Some(PATIENCE)).unwrap();
    let probe = Probe {
        ipv6: [&a, &b].map(|nic| cloud.interface(nic).ipv6_addresses[0]),
        a: Card::plug(&cloud, &a).await,
        b: Card::plug(&cloud, &b).await,
        c: Card::plug(&cloud, &c).await,
        outside: [cloud.outside.udp(*OPEN.end()).await, cloud.outside.udp(OPEN.end() + 1).await],
        resolver,
    };
    probe.outside[1].set_nonblocking(true).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let probing = scope.spawn(|| {
            for number in (0..).take_while(|number| *number < 100 || !is_over.load(Ordering::Relaxed)) {
                probe.round(number);
            }
        });
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            let mut starts = 0;
            // At least ten, and until the probing has had its rounds, or failed.
            while !probing.is_finished() {
                start_unsure(&mut cloud);
                runtime.block_on(cloud.apply());
                starts += 1;
                is_over.store(starts >= 10, Ordering::Relaxed);
            }
        });
        probing.join().unwrap();
    });
}

async fn begin(from: &Machine, to: Ipv4Addr, listener: &TcpListener) -> Flow {
    let port = listener.local_addr().unwrap().port();
    (from.connect(to, port, PATIENCE).await.unwrap(), listener.accept().unwrap().0)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_go_on_by_public_addresses_and_nat_gateways() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start_known().await;
    let (vpc, group) = three_subnets(&mut cloud);
    let nat = nat_gateway(1, 0, &[("10.0.0.9", Some(PUBLIC_TOO))]);
    cloud.plan.vpcs[0].nat_gateways.push(nat.clone());
    set_routes(&mut cloud, 0, vec![route("0.0.0.0/0", Target::InternetGateway)]);
    set_routes(&mut cloud, 1, vec![route("0.0.0.0/0", Target::NatGateway(nat.nat_gateway_id))]);
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&group]);
    let b = cloud.add_interface(2, &vpc, "10.0.1.5", &[&group]);
    cloud.translate(&a, Some(PUBLIC));
    cloud.apply().await;
    let (a, b) = (cloud.guest(&a).await, cloud.guest(&b).await);
    let (inside, outside) = (a.listen(22).await, cloud.outside.listen(80).await);
    let flows = [
        begin(&cloud.outside, PUBLIC, &inside).await,
        begin(&a, OUTSIDE, &outside).await,
        begin(&b, OUTSIDE, &outside).await,
        begin(&b, a.address, &inside).await,
    ];
    for start in [start_anew, start_unsure] {
        start(&mut cloud);
        cloud.apply().await;
        assert_live(flows.each_ref(), [true; 4]);
    }
    for (from, to, listener) in [(&cloud.outside, PUBLIC, &inside), (&b.machine, OUTSIDE, &outside)] {
        assert_live([&begin(from, to, listener).await], [true]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_open_to_everybody_ends_where_its_rule_went_while_nobody_watched() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start_known().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let stays = tcp_from("0.0.0.0/0", 82);
    let rules = vec![tcp_from("0.0.0.0/0", 80), tcp_from("10.0.0.0/16", 81), stays.clone()];
    let web = cloud.add_group(1, &vpc, rules);
    let client = cloud.add_group(2, &vpc, vec![]);
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&client]);
    let b = cloud.add_interface(2, &vpc, "10.0.0.6", &[&web]);
    cloud.translate(&b, Some(PUBLIC));
    cloud.apply().await;
    let (a, b) = (cloud.guest(&a).await, cloud.guest(&b).await);
    let [first, second, third] = [b.listen(80).await, b.listen(81).await, b.listen(82).await];
    let flows = [
        begin(&a, b.address, &first).await,
        begin(&cloud.outside, PUBLIC, &first).await,
        begin(&a, b.address, &second).await,
        begin(&a, b.address, &third).await,
    ];
    assert_live(flows.each_ref(), [true; 4]);
    cloud.group(&web).ingress = vec![stays];
    start_anew(&mut cloud);
    cloud.apply().await;
    // One was tracked, one is allowed.
    assert_live(flows.each_ref(), [false, false, true, true]);
    start_anew(&mut cloud);
    cloud.apply().await;
    assert_live(flows.each_ref(), [false, false, true, true]);
}
