//! What a hostile guest can't do.

use crate::cloud::{Cloud, HOST, OUTSIDE, SILENCE, any_from, possible, udp_from, within};
use crate::wire::{BROADCAST, Card, Ends, ROUTER, is_arp_reply};
use datapath::Bandwidth;
use futures::future::join_all;
use host::net::{NetError, Network};
use std::net::Ipv4Addr;

#[tokio::test(flavor = "multi_thread")]
async fn the_router_answers_arp_for_what_there_is_and_for_nothing_else() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[]);
    cloud.add_interface(2, &vpc, "10.0.0.6", &[]);
    cloud.apply().await;
    let card = Card::plug(&cloud, &a).await;
    for there in [[10, 0, 0, 1], [10, 0, 0, 6], [169, 254, 169, 254]].map(Ipv4Addr::from) {
        let request = card.arp_request(card.address, there);
        let reply = card.ask(&request, |frame| is_arp_reply(frame, there));
        assert_eq!(reply[22..28], ROUTER);
    }
    // Nobody; the guest itself, which looks for another with its address; outside.
    for absent in [[10, 0, 0, 7], [10, 0, 0, 5], [198, 51, 100, 1]].map(Ipv4Addr::from) {
        card.send(&card.arp_request(card.address, absent));
    }
    card.send(&card.arp_request(Ipv4Addr::new(10, 0, 0, 99), Ipv4Addr::new(10, 0, 0, 1)));
    assert!(card.hears_nothing(|frame| frame[12..14] == [0x08, 0x06]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_from_an_address_or_mac_not_its_own_is_dropped() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (vpc, open, [a, b]) = cloud.add_two();
    let c = cloud.add_interface(3, &vpc, "10.0.0.7", &[&open]);
    cloud.apply().await;
    let (a, b) = (Card::plug(&cloud, &a).await, Card::plug(&cloud, &b).await);
    let third = cloud.plan.interfaces.iter().find(|nic| nic.interface_id == c).unwrap();
    let ends = |from| Ends { mac: ROUTER, from: (from, 1000), to: (b.address, 2000) };
    a.send(&a.udp_frame(ends(third.addresses[0].private_ip), b"another's address"));
    a.send(&a.udp_frame(ends(Ipv4Addr::new(8, 8, 8, 8)), b"an outsider's address"));
    a.send(&a.udp_frame_from(third.mac, ends(a.address), b"another's MAC"));
    a.send(&a.udp_frame_from(third.mac, ends(third.addresses[0].private_ip), b"all of another's"));
    a.send(&a.udp_frame(ends(a.address), b"its own"));
    let first = b.receive(|frame| frame[12..14] == [0x08, 0x00]);
    assert!(first.ends_with(b"its own"), "{}", String::from_utf8_lossy(&first));
    assert!(b.hears_nothing(|frame| frame[12..14] == [0x08, 0x00]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_queue_of_a_card_is_held_to_the_same() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (_, _, [a, b]) = cloud.add_two();
    cloud.interface(&a).bandwidth = Some(Bandwidth { baseline: 1_000_000, peak: 1_000_000 });
    cloud.apply().await;
    let b = Card::plug(&cloud, &b).await;
    let queues = cloud.network.open_tap(&a, 4).await.unwrap();
    assert!(matches!(cloud.network.open_tap(&a, 1).await, Err(NetError::Failed(_))), "one machine has all");
    let nic = cloud.interface(&a).clone();
    let cards = queues.into_iter().map(|queue| Card::of(queue, nic.mac, nic.addresses[0].private_ip));
    let cards: Vec<Card> = cards.collect();
    let ends = |from| Ends { mac: ROUTER, from: (from, 1000), to: (b.address, 2000) };
    let is_datagram = |frame: &[u8]| frame[12..14] == [0x08, 0x00];
    for card in &cards {
        card.send(&card.udp_frame(ends(Ipv4Addr::new(10, 0, 0, 7)), b"another's"));
        card.send(&card.udp_frame(ends(card.address), b"its own"));
        assert!(b.receive(is_datagram).ends_with(b"its own"));
    }

    // What a bucket holds comes at once, and of all else little before patience ends.
    for packet in 0..2000 {
        let card = &cards[packet % cards.len()];
        card.send(&card.udp_frame(ends(card.address), &[0; 1400]));
    }
    let mut came = 0;
    while !b.hears_nothing(is_datagram) && came < 1000 {
        came += 1;
    }
    assert!((10..400).contains(&came), "{came} of 2000");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_addresses_in_two_vpcs_never_meet() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let mut guests = Vec::new();
    for number in [1, 2] {
        let vpc = cloud.add_vpc(number, "10.0.0.0/16");
        let open = cloud.add_group(number, &vpc, vec![any_from("0.0.0.0/0")]);
        let server = cloud.add_interface(number * 10, &vpc, "10.0.0.5", &[&open]);
        let client = cloud.add_interface(number * 10 + 1, &vpc, &format!("10.0.0.{}", 6 + number), &[&open]);
        guests.push((server, client));
    }
    cloud.apply().await;
    for (index, (server, client)) in guests.iter().enumerate() {
        let (server, client) = (cloud.guest(server).await, cloud.guest(client).await);
        let _listener = server.listen(80).await;
        assert!(client.reaches(server.address, 80).await);
        let other = Ipv4Addr::new(10, 0, 0, 8 - index as u8);
        assert!(!client.ping(other, SILENCE).await, "{other} is in the other VPC only");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reaches_neither_the_router_nor_the_host() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let nic = cloud.add_interface(1, &vpc, "10.0.0.5", &[&open]);
    cloud.apply().await;
    let guest = cloud.guest(&nic).await;
    let _listener = cloud.host.listen(22).await;
    for address in [[10, 0, 0, 1], [10, 0, 0, 2], [169, 254, 0, 1], [169, 254, 169, 254]].map(Ipv4Addr::from)
    {
        assert!(guest.is_ignored(address, 22).await, "{address}");
        assert!(!guest.ping(address, SILENCE).await, "{address}");
    }
    assert!(guest.is_ignored(HOST, 22).await, "without a public address there is no way out");
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_not_reached_by_the_gateway() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let nic = cloud.add_interface(1, &vpc, "10.0.0.5", &[&open]);
    cloud.translate(&nic, Some(Ipv4Addr::new(198, 18, 7, 5)));
    cloud.apply().await;
    let guest = cloud.guest(&nic).await;
    let _listener = guest.listen(53).await;
    let _services = cloud.network.open_services(&vpc).await.unwrap();
    assert!(cloud.host.reaches(Ipv4Addr::new(198, 18, 7, 5), 53).await);
    // Somebody outside who routes into the gateway what nobody told him of.
    let links = cloud.host.ip(&["-o", "link", "show", "type", "veth"]).await;
    let gateway = links.split_whitespace().find(|word| word.starts_with("cg")).unwrap();
    let gateway = gateway.split('@').next().unwrap();
    let hop = ["via", "169.254.0.1", "dev", gateway, "onlink"];
    for private in [[10, 0, 0, 5], [10, 0, 0, 2], [169, 254, 169, 253]].map(Ipv4Addr::from) {
        cloud.host.ip(&[&["route", "add", &private.to_string()], &hop[..]].concat()).await;
        assert!(cloud.host.is_ignored(private, 53).await, "{private}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_unchecked_interface_forwards_for_others() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (_, _, [router, peer]) = cloud.add_two();
    cloud.apply().await;
    let (card, peer) = (Card::plug(&cloud, &router).await, Card::plug(&cloud, &peer).await);
    let send = |payload: &[u8]| {
        let ends =
            Ends { mac: ROUTER, from: (Ipv4Addr::new(192, 168, 1, 1), 1000), to: (peer.address, 2000) };
        card.send(&card.udp_frame(ends, payload));
    };
    let is_datagram = |frame: &[u8]| frame[12..14] == [0x08, 0x00];
    send(b"checked");
    cloud.interface(&router).source_dest_check = false;
    cloud.apply().await;
    send(b"unchecked");
    assert!(peer.receive(is_datagram).ends_with(b"unchecked"));
    cloud.interface(&router).source_dest_check = true;
    cloud.apply().await;
    send(b"checked again");
    assert!(peer.hears_nothing(is_datagram));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_begins_all_it_can_leaves_others_room() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start_known().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let open = cloud.add_group(1, &vpc, vec![any_from("0.0.0.0/0")]);
    let nics = [5, 6, 7].map(|number| {
        let nic = cloud.add_interface(number, &vpc, &format!("10.0.0.{number}"), &[&open]);
        cloud.translate(&nic, Some(Ipv4Addr::new(198, 18, 7, number as u8)));
        nic
    });
    cloud.apply().await;
    let [flooder, victim, neighbour] = nics;
    let card = Card::plug(&cloud, &flooder).await;
    let (victim, neighbour) = (cloud.guest(&victim).await, cloud.guest(&neighbour).await);
    let router = cloud.namespaces().remove(0);
    let setting = |name: &str| -> usize {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        within(&router, &["cat", &path]).trim().parse().unwrap()
    };
    let allowance = setting("max") / 8;
    // However long all that takes, what was begun is still there to be counted.
    within(&router, &["sh", "-c", "echo 600 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout"]);

    // To a neighbour, to nobody, and to what the router serves.
    let fits = allowance * 5 / 4 + 100;
    let to = [victim.address, OUTSIDE, Ipv4Addr::new(169, 254, 169, 253)];
    for flow in 0..2 * allowance {
        let from = (card.address, 1024 + (flow / 3 % 60_000) as u16);
        let port = if flow % 3 == 2 { 53 } else { 1024 + (flow / 180_000) as u16 };
        card.send(&card.udp_frame(Ends { mac: ROUTER, from, to: (to[flow % 3], port) }, b"flow"));
    }
    let begun = setting("count");
    assert!((allowance / 2..fits).contains(&begun), "{begun} of {allowance}");
    let _listening = (neighbour.listen(80).await, victim.listen(80).await, cloud.outside.listen(80).await);
    assert!(neighbour.reaches(victim.address, 80).await && victim.reaches(neighbour.address, 80).await);
    assert!(neighbour.reaches(OUTSIDE, 80).await);
    let neighbours = Ipv4Addr::new(198, 18, 7, 7);
    assert!(cloud.outside.reaches(neighbours, 80).await);

    // Nor can somebody outside fill it by way of one guest.
    let outside = cloud.outside.udp(0).await;
    let others: Vec<_> = join_all((0..40).map(|_| cloud.outside.udp(0))).await;
    for port in 1..=2 * allowance / 41 {
        for socket in others.iter().chain([&outside]) {
            socket.send_to(b"flow", (Ipv4Addr::new(198, 18, 7, 6), port as u16)).unwrap();
        }
    }
    let begun = setting("count");
    assert!((3 * allowance / 2..2 * fits).contains(&begun), "{begun} of twice {allowance}");
    assert!(neighbour.reaches(OUTSIDE, 80).await && cloud.outside.reaches(neighbours, 80).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_guest_serves_dhcp_to_another() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let (_, _, [a, b]) = cloud.add_two();
    cloud.apply().await;
    let (rogue, asks) = (Card::plug(&cloud, &a).await, Card::plug(&cloud, &b).await);
    let is_datagram = |frame: &[u8]| frame[12..14] == [0x08, 0x00];
    let everybody = Ipv4Addr::BROADCAST;
    for from in [rogue.address, Ipv4Addr::new(10, 0, 0, 1)] {
        let offer = Ends { mac: BROADCAST, from: (from, 67), to: (everybody, 68) };
        rogue.send(&rogue.udp_frame(offer, b"OFFER"));
    }
    let subnet = Ends { mac: BROADCAST, from: (rogue.address, 67), to: (Ipv4Addr::new(10, 0, 255, 255), 68) };
    rogue.send(&rogue.udp_frame(subnet, b"OFFER"));
    assert!(asks.hears_nothing(is_datagram));
    let discover = Ends { mac: BROADCAST, from: (Ipv4Addr::UNSPECIFIED, 68), to: (everybody, 67) };
    asks.send(&asks.udp_frame(discover, b"DISCOVER"));
    assert!(rogue.hears_nothing(is_datagram), "nor does it hear who asks");
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_meet_the_rules_as_what_they_make() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let some = cloud.add_group(1, &vpc, vec![udp_from("10.0.0.0/16", 2000)]);
    let a = cloud.add_interface(1, &vpc, "10.0.0.5", &[&some]);
    let b = cloud.add_interface(2, &vpc, "10.0.0.6", &[&some]);
    cloud.apply().await;
    let card = Card::plug(&cloud, &a).await;
    let b = Card::plug(&cloud, &b).await;
    let whole = |port| {
        card.udp_frame(Ends { mac: ROUTER, from: (card.address, 1000), to: (b.address, port) }, &[7; 64])
    };
    // Bytes of the packet's payload from one place on, as a fragment.
    let part = |port, id: u16, range: std::ops::Range<usize>, more: bool| {
        let offset = (range.start / 8) as u16 | if more { 0x2000 } else { 0 };
        card.fragment(&whole(port), id, range, offset)
    };
    // Tiny ones, the last first; what they make is not allowed, and then is.
    for (port, id) in [(2001, 1), (2000, 2)] {
        for start in [64, 56, 48, 40, 32, 24, 16, 8, 0] {
            card.send(&part(port, id, start..start + 8, start < 64));
        }
    }
    let is_datagram = |frame: &[u8]| frame[12..14] == [0x08, 0x00];
    let port_of = |frame: &[u8]| u16::from_be_bytes([frame[36], frame[37]]);
    // The router parts again what it has put together, its beginning first.
    let mut made = b.receive(is_datagram);
    assert_eq!(port_of(&made), 2000);
    while made.len() < whole(2000).len() {
        made.extend(&b.receive(is_datagram)[34..]);
    }
    assert_eq!(made[42..], [7; 64]);
    // The second's beginning would take the place of the first's.
    card.send(&part(2000, 3, 0..16, true));
    card.send(&part(2001, 3, 0..24, true));
    card.send(&part(2001, 3, 24..72, false));

    assert!(b.hears_nothing(is_datagram));
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_fragments_do_not_cost_its_neighbour_its_own() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let some = cloud.add_group(1, &vpc, vec![udp_from("10.0.0.0/16", 2000)]);
    let [hostile, b, c] = [(1, "10.0.0.5"), (2, "10.0.0.6"), (3, "10.0.0.7")]
        .map(|(number, address)| cloud.add_interface(number, &vpc, address, &[&some]));
    cloud.apply().await;
    let hostile = Card::plug(&cloud, &hostile).await;
    let (b, c) = (Card::plug(&cloud, &b).await, Card::plug(&cloud, &c).await);
    let whole = |card: &Card, length: usize| {
        let ends = Ends { mac: ROUTER, from: (card.address, 1000), to: (b.address, 2000) };
        card.udp_frame(ends, &vec![7; length])
    };
    let router = cloud.namespaces().remove(0);
    let most = within(&router, &["cat", "/proc/sys/net/ipv4/ipfrag_high_thresh"]);
    let most: usize = most.trim().parse().unwrap();
    // Beginnings of packets of which none ends: many, and long ones.
    for (count, length) in [(40_000, 16), (4_000, 8_000)] {
        let frame = whole(&hostile, length);
        for id in 0..count {
            hostile.send(&hostile.fragment(&frame, id, 0..length, 0x2000));
            if id % 1_000 > 0 {
                continue;
            }
            let kept = within(&router, &["sh", "-c", "grep FRAG: /proc/thread-self/net/sockstat"]);
            let bytes: usize = kept.split_whitespace().last().unwrap().parse().unwrap();
            assert!(bytes <= most / 4, "{kept} of {most}");
        }
        let is_datagram = |frame: &[u8]| frame[12..14] == [0x08, 0x00];
        let frame = whole(&c, 64);
        c.send(&c.fragment(&frame, 1, 0..32, 0x2000));
        c.send(&c.fragment(&frame, 1, 32..72, 4));
        let made = b.receive(is_datagram);
        let rest = b.receive(is_datagram);
        assert_eq!([&made[42..], &rest[34..]].concat(), [7; 64]);
    }
}
