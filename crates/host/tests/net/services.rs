//! What a VPC's own services see of their callers.

use crate::cloud::{Cloud, PATIENCE, possible};
use crate::wire::{BROADCAST, Card, Ends, receive_with_index};
use host::net::{Network, ServiceSockets};
use std::net::Ipv4Addr;

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_known_by_its_tap_even_where_another_vpc_has_its_address() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let mut guests = Vec::new();
    for number in [1, 2] {
        let vpc = cloud.add_vpc(number, "10.0.0.0/16");
        // Without any group: the services are not subject to them.
        let nic = cloud.add_interface(number, &vpc, "10.0.0.5", &[]);
        guests.push((vpc, nic));
    }
    cloud.apply().await;
    for (vpc, nic) in &guests {
        let ServiceSockets { metadata, dns_udp, .. } = cloud.network.open_services(vpc).await.unwrap();
        let guest = cloud.guest(nic).await;
        assert!(guest.reaches(METADATA, 80).await);
        metadata[0].set_nonblocking(false).unwrap();
        let (stream, from) = metadata[0].accept().unwrap();
        assert_eq!(from.ip(), guest.address);
        assert_eq!(cloud.network.interface_of_connection(vpc, &stream).as_ref(), Some(nic));
        assert_eq!(cloud.network.interface_of_address(vpc, guest.address.into()).as_ref(), Some(nic));

        for (socket, address) in
            dns_udp.iter().zip([Ipv4Addr::new(169, 254, 169, 253), Ipv4Addr::new(10, 0, 0, 2)])
        {
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            guest.udp(0).await.send_to(b"name?", (address, 53)).unwrap();
            let (_, from) = socket.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(from.ip(), guest.address);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dhcp_hears_a_guest_without_address_and_knows_its_tap() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let nic = cloud.add_interface(1, &vpc, "10.0.0.5", &[]);
    cloud.apply().await;
    let card = Card::plug(&cloud, &nic).await;
    let services = cloud.network.open_services(&vpc).await.unwrap();
    services.dhcp.set_nonblocking(false).unwrap();
    services.dhcp.set_read_timeout(Some(PATIENCE)).unwrap();

    let discover = card.udp_frame(
        Ends { mac: BROADCAST, from: (Ipv4Addr::UNSPECIFIED, 68), to: (Ipv4Addr::BROADCAST, 67) },
        b"DISCOVER",
    );
    card.send(&discover);
    let (message, index) = receive_with_index(&services.dhcp);
    assert_eq!(message, b"DISCOVER");
    assert_eq!(cloud.network.interface_of_index(&vpc, index), Some(nic));

    // A reply to an address that the guest has not got yet: nobody could be asked for it by ARP.
    services.dhcp.send_to(b"OFFER", (Ipv4Addr::new(10, 0, 0, 5), 68)).unwrap();
    let offer = card.receive(|frame| frame.ends_with(b"OFFER"));
    assert_eq!(offer[..6], card.mac);
}
