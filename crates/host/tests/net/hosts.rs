//! One VPC on two hosts.

use crate::cloud::{Cloud, Guest, PATIENCE, SILENCE, any_from, id, possible};
use crate::mtu::learned;
use crate::peering::{peer, set_routes as set_peer_routes};
use crate::routes::{route, set_routes, three_subnets};
use datapath::{AclEntry, Elsewhere, Peer, Protocol, Rule, Target};
use host::net::{LinuxNetwork, Network};
use model::{Id, Kind};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, UdpSocket};

const UNDERLAY: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// Where hosts hear each other.
const PORT: u16 = 8774;
const NUMBER: u32 = 0x12345;

/// Two hosts, and what is where.
struct Pair {
    clouds: [Cloud; 2],
    /// Of the whole VPC: the first one's plan, with all interfaces.
    on_second: Vec<Id>,
}

impl Pair {
    async fn start() -> Pair {
        let mut clouds = [Cloud::start().await, Cloud::start().await];
        let [one, two] = &clouds;
        one.host
            .ip(&["link", "add", "under", "type", "veth", "peer", "under", "netns", &two.host.name])
            .await;
        for (cloud, address) in clouds.iter_mut().zip(UNDERLAY) {
            cloud.host.ip(&["address", "add", &format!("{address}/24"), "dev", "under"]).await;
            cloud.host.ip(&["link", "set", "under", "up"]).await;
        }
        // The other one finds its own.
        clouds[0].options.underlay = Some(UNDERLAY[0]);
        clouds[0].network = LinuxNetwork::new(clouds[0].options.clone()).unwrap();
        Pair { clouds, on_second: Vec::new() }
    }

    fn whole(&mut self) -> &mut Cloud {
        &mut self.clouds[0]
    }

    async fn apply(&self) {
        for (host, cloud) in self.clouds.iter().enumerate() {
            let mut plan = self.clouds[0].plan.clone();
            let is_here =
                |nic: &datapath::Interface| (host == 1) == self.on_second.contains(&nic.interface_id);
            let (here, elsewhere) = plan.interfaces.into_iter().partition(is_here);
            plan.interfaces = here;
            let at = |interface| Elsewhere { host: UNDERLAY[1 - host], interface };
            plan.elsewhere = Vec::into_iter(elsewhere).map(at).collect();
            cloud.network.apply(plan).await.unwrap();
        }
    }

    async fn guest(&self, interface_id: &Id) -> Guest {
        let host = usize::from(self.on_second.contains(interface_id));
        let whole = &self.clouds[0].plan;
        let nic = whole.interfaces.iter().find(|nic| nic.interface_id == *interface_id).unwrap();
        let vpc = whole.vpcs.iter().find(|vpc| vpc.vpc_id == nic.vpc_id).unwrap();
        let cloud = &self.clouds[host];
        let tap = cloud.tap(interface_id).await;
        Guest::start(&format!("{}-{}", cloud.options.tag, &interface_id[18..]), tap, nic, vpc).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vpc_is_the_same_on_two_hosts() {
    if !possible() {
        return;
    }
    let mut pair = Pair::start().await;
    let whole = pair.whole();
    let (vpc, open) = three_subnets(whole);
    whole.plan.vpcs[0].number = Some(NUMBER);
    let other = whole.add_group(2, &vpc, vec![]);
    let from_open = Rule { protocol: Protocol::All, peer: Peer::Group(open.clone()) };
    let members_only = whole.add_group(3, &vpc, vec![from_open]);
    let a = whole.add_interface(1, &vpc, "10.0.0.5", &[&open]);
    let stranger = whole.add_interface(2, &vpc, "10.0.0.6", &[&other]);
    let b = whole.add_interface(3, &vpc, "10.0.0.7", &[&members_only]);
    let c = whole.add_interface(4, &vpc, "10.0.1.5", &[&members_only]);
    whole.add_ipv6(&vpc, "fd12:3456:7800::/56");
    whole.assign_ipv6(&a, "fd12:3456:7800::a");
    let b_ipv6 = whole.assign_ipv6(&b, "fd12:3456:7800::b");
    pair.on_second = vec![b.clone(), c.clone()];
    pair.apply().await;
    let (a, stranger) = (pair.guest(&a).await, pair.guest(&stranger).await);
    let (guest_b, guest_c) = (pair.guest(&b).await, pair.guest(&c).await);
    let (at_b, _at_c) = (guest_b.listen(80).await, guest_c.listen(80).await);

    // Groups, with members on another host.
    assert!(a.reaches(guest_b.address, 80).await && a.reaches(guest_c.address, 80).await);
    let (mut served, from) = at_b.accept().unwrap();
    assert_eq!(from.ip(), a.address);
    assert!(stranger.is_ignored(guest_b.address, 80).await && stranger.is_ignored(guest_c.address, 80).await);
    assert!(a.is_ignored(Ipv4Addr::new(10, 0, 0, 9), 80).await, "nobody's address");

    let at_b_ipv6 = guest_b.listen6(81).await;
    assert!(a.reaches(b_ipv6, 81).await);
    assert_eq!(at_b_ipv6.accept().unwrap().1.ip().to_string(), "fd12:3456:7800::a");
    drop(at_b_ipv6);

    // More than one packet of the network below carries, both ways.
    let mut stream = a.connect(guest_b.address, 80, PATIENCE).await.unwrap();
    drop(std::mem::replace(&mut served, at_b.accept().unwrap().0));
    let sent = vec![7; 1 << 20];
    let answer = std::thread::spawn(move || {
        let mut received = vec![0; 1 << 20];
        served.read_exact(&mut received).unwrap();
        served.write_all(&received).unwrap();
    });
    stream.write_all(&sent).unwrap();
    let mut received = vec![0; 1 << 20];
    stream.read_exact(&mut received).unwrap();
    answer.join().unwrap();
    assert_eq!(received, sent);

    // ACLs stand between subnets, wherever these are, and never within one.
    let deny = |cidr: &str| AclEntry {
        rule_number: 1,
        cidr: cidr.parse().unwrap(),
        protocol: Protocol::All,
        allow: false,
    };
    type Side = fn(&mut datapath::NetworkAcl) -> &mut Vec<AclEntry>;
    let sides: [(u64, Side, &str); 2] =
        [(0, |acl| &mut acl.egress, "10.0.0.0/16"), (1, |acl| &mut acl.ingress, "10.0.0.5/32")];
    for (subnet, side, peer) in sides {
        let acl_id = id(Kind::NetworkAcl, subnet);
        side(pair.whole().plan.vpcs[0].network_acls.get_mut(&acl_id).unwrap()).insert(0, deny(peer));
        pair.apply().await;
        assert!(a.is_ignored(guest_c.address, 80).await, "subnet {subnet}");
        assert!(a.reaches(guest_b.address, 80).await, "within a subnet");
        side(pair.whole().plan.vpcs[0].network_acls.get_mut(&acl_id).unwrap()).remove(0);
        pair.apply().await;
        assert!(a.reaches(guest_c.address, 80).await);
    }

    // An instance on the other host is a router: of the subnet whose table says so, and only unchecked.
    let behind = Ipv4Addr::new(198, 51, 100, 9);
    guest_b.ip(&["address", "add", &format!("{behind}/32"), "dev", "lo"]).await;
    set_routes(pair.whole(), 0, vec![route("198.51.100.0/24", Target::Interface(b.clone()))]);
    pair.apply().await;
    assert!(!a.ping(behind, SILENCE).await, "checked");
    pair.whole().interface(&b).source_dest_check = false;
    pair.apply().await;
    assert!(a.ping(behind, PATIENCE).await);

    // It moves to this host.
    drop(guest_b);
    pair.on_second.retain(|moved| *moved != b);
    pair.apply().await;
    let guest_b = pair.guest(&b).await;
    let _at_b = guest_b.listen(81).await;
    assert!(a.reaches(guest_b.address, 81).await);

    // A VPC that stays on one host has no link.
    assert!(pair.clouds[0].links(&vpc).await.contains("hosts"));
    pair.whole().plan.vpcs[0].number = None;
    pair.apply().await;
    assert!(!pair.clouds[0].links(&vpc).await.contains("hosts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_reach_each_other_on_two_hosts() {
    if !possible() {
        return;
    }
    let mut pair = Pair::start().await;
    let whole = pair.whole();
    let one = whole.add_vpc(1, "10.0.0.0/16");
    let two = whole.add_vpc(2, "10.1.0.0/16");
    let open = whole.add_group(1, &one, vec![]);
    let from_peer = Rule { protocol: Protocol::All, peer: Peer::Group(open.clone()) };
    let members_only = whole.add_group(2, &two, vec![from_peer]);
    let a = whole.add_interface(1, &one, "10.0.0.5", &[&open]);
    let b = whole.add_interface(2, &two, "10.1.0.5", &[&members_only]);
    peer(whole, 1, 0, 1);
    for (vpc, net) in ["10.1.0.0/16", "10.0.0.0/16"].into_iter().enumerate() {
        set_peer_routes(whole, vpc, &[(net, 1)]);
        whole.plan.vpcs[vpc].number = Some(NUMBER + vpc as u32);
    }
    pair.on_second = vec![b.clone()];
    pair.apply().await;
    let (a, b) = (pair.guest(&a).await, pair.guest(&b).await);
    let (_at_a, at_b) = (a.listen(80).await, b.listen(80).await);
    assert!(a.reaches(b.address, 80).await);
    assert_eq!(at_b.accept().unwrap().1.ip(), a.address);
    assert!(a.ping(b.address, PATIENCE).await);
    assert!(b.is_ignored(a.address, 80).await, "its group lets nobody in");
}

/// What a host would send another: a datagram from one guest to another, in an Ethernet frame, in VXLAN.
fn forged(to: Ipv4Addr, port: u16, from: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x88, 0, 0, 0];
    packet.extend((NUMBER << 8).to_be_bytes());
    let [a, b, c, d] = UNDERLAY[1].octets();
    packet.extend([0xfe, b'v', a, b, c, d, 2, 0, 0, 0, 0, 9, 0x08, 0x00]);
    let mut header = [0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    header[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    packet.extend(header);
    for field in [4000, port, 12, 0] {
        packet.extend(u16::to_be_bytes(field));
    }
    packet.extend(b"fake");
    packet
}

#[tokio::test(flavor = "multi_thread")]
async fn only_hosts_speak_for_guests() {
    if !possible() {
        return;
    }
    let mut pair = Pair::start().await;
    let whole = pair.whole();
    let vpc = whole.add_vpc(1, "10.0.0.0/16");
    whole.plan.vpcs[0].number = Some(NUMBER);
    let open = whole.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let a = whole.add_interface(1, &vpc, "10.0.0.5", &[&open]);
    let b = whole.add_interface(2, &vpc, "10.0.0.6", &[&open]);
    whole.translate(&a, Some(Ipv4Addr::new(198, 18, 7, 5)));
    pair.on_second = vec![b.clone()];
    pair.apply().await;
    let (a, b) = (pair.guest(&a).await, pair.guest(&b).await);
    assert!(a.ping(b.address, PATIENCE).await);
    let server = b.udp(5000).await;
    let forged = forged(b.address, 5000, Ipv4Addr::new(10, 0, 0, 99));
    let send = async |from: &crate::cloud::Machine, to: Ipv4Addr| {
        let packet = forged.clone();
        let send = move || UdpSocket::bind("0.0.0.0:0")?.send_to(&packet, (to, PORT));
        from.run(send).await.unwrap();
    };
    send(&pair.clouds[0].host, UNDERLAY[1]).await;
    assert_eq!(server.recv_from(&mut [0; 8]).expect("as a host sends it").0, 4);
    server.set_read_timeout(Some(SILENCE)).unwrap();
    send(&a, UNDERLAY[1]).await;
    assert!(server.recv_from(&mut [0; 8]).is_err(), "from a guest, lent its host's address");
    send(&pair.clouds[1].outside, crate::cloud::HOST).await;
    assert!(server.recv_from(&mut [0; 8]).is_err(), "from a machine that is no host");
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_learn_what_the_network_between_hosts_carries() {
    if !possible() {
        return;
    }
    let mut pair = Pair::start().await;
    let whole = pair.whole();
    let (vpc, _) = three_subnets(whole);
    whole.plan.vpcs[0].number = Some(NUMBER);
    // Nothing is let in: what a router says is no flow.
    let shut = whole.add_group(2, &vpc, vec![]);
    whole.add_ipv6(&vpc, "fd12:3456:7800::/56");
    let [a, b, near] =
        [5, 6, 7].map(|last| whole.add_interface(last, &vpc, &format!("10.0.0.{last}"), &[&shut]));
    let [_, b_ipv6, _] = [(&a, "a"), (&b, "b"), (&near, "c")]
        .map(|(nic, last)| whole.assign_ipv6(nic, &format!("fd12:3456:7800::{last}")));
    pair.on_second = vec![b.clone()];
    pair.apply().await;
    let (guest, near, there) = (pair.guest(&a).await, pair.guest(&near).await, pair.guest(&b).await);
    assert_eq!(learned(&guest, there.address, PATIENCE).await, 1450);
    assert_eq!(learned(&guest, b_ipv6, PATIENCE).await, 1450);
    assert_eq!(learned(&guest, near.address, SILENCE).await, 9001, "on its own host all is as ever");

    // A network that carries more is made use of, by those who have not learned otherwise.
    for cloud in &pair.clouds {
        cloud.host.ip(&["link", "set", "under", "mtu", "9100"]).await;
    }
    pair.apply().await;
    assert_eq!(learned(&near, there.address, SILENCE).await, 9001);
}
