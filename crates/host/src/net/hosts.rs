//! The rest of a VPC: its interfaces on other hosts.
//!
//! ```text
//!   this host                                               the other host
//!   tap ─ who? ─ routes ─ ACL out ─ egress groups ─ link ══ VXLAN ══ link ─ routes ─ ACL in ─ ingress groups ─ tap
//! ```
//!
//! One VXLAN per VPC carries layer 3: an address is routed to its host, whose link's MAC is made of the host's address,
//! and nothing is ever asked for or learned. With a packet goes the number of the subnet that it comes from, as group
//! policy (draft-smith-vxlan-group-policy), so that the other router routes and judges it as this one does. Each host
//! asks its own interfaces' groups and the ACLs on its side.
//!
//! The link carries what the network below does, less what VXLAN adds: who sends more at once is told so by the router,
//! and the rest of the VPC keeps its MTU.
//!
//! Hosts trust each other, and take packets from nobody else (`render::host`).

use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use super::family::Family;
use super::kernel::{Kernel, Layer3, MAIN_TABLE, Route};
use super::vpc::{NUMBER_MASK, NUMBERS, OTHER_HOST, Vpc};

/// The link to the other hosts.
pub(super) const LINK: &str = "hosts";

/// UDP: not VXLAN's own, which other software on the host may use without group policy.
pub(super) const PORT: u16 = 8774;

/// An address that is documentation's (RFC 5737), and a port to discard.
const SOMEBODY: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The high half of the mark of what goes to another host, whose low half is the number of its subnet: no subnet's
/// number, so that it is seen that the mark is made, and nothing to VXLAN.
const READY: u32 = 1 << 16;

/// Rules that make the mark of a packet which goes to another host.
pub(super) fn sent() -> String {
    let half = !NUMBER_MASK;
    format!(
        "oifname \"{LINK}\" meta mark & {half:#x} != {READY:#x} meta mark set (meta mark >> 16) | {READY:#x}"
    )
}

/// Rules that make the mark, here, of a packet that comes from another host. One that is made has a low half which is no
/// subnet's number.
pub(super) fn received() -> String {
    let (first, last) = NUMBERS.into_inner();
    format!(
        "iifname \"{LINK}\" meta mark {first:#x}-{last:#x} meta mark set meta mark << 16
        iifname \"{LINK}\" meta mark set meta mark | {OTHER_HOST:#x} accept"
    )
}

/// Of a host's end of every VPC's link.
pub(super) fn mac(host: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = host.octets();
    [0xfe, b'v', a, b, c, d]
}

/// What VXLAN puts before a guest's packet: headers of IPv4, UDP, its own, and Ethernet's (RFC 7348).
const OVERHEAD: u32 = 20 + 8 + 8 + 14;

/// The address by which the host reaches others, as the routes of this thread's namespace say. Nothing is sent.
pub(super) fn own_address() -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(SOMEBODY)?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// How long a packet of a guest's may be on its way from the host that has the address to others; `mtu` at most.
pub(super) async fn carried(host: &Kernel, address: Ipv4Addr, mtu: u16) -> io::Result<u16> {
    let (links, addresses) = (host.links().await?, host.ipv4_addresses().await?);
    let below = addresses.iter().find(|(_, own)| *own == address);
    let below = below.and_then(|(index, _)| links.values().find(|link| link.index == *index));
    let carried = below.map(|link| u16::try_from(link.mtu.saturating_sub(OVERHEAD)).unwrap_or(u16::MAX));
    Ok(carried.map_or(mtu, |carried| carried.min(mtu)))
}

/// The next hop to another host: never on the wire, just the key of a permanent neighbour.
pub(super) fn hop(host: Ipv4Addr, family: Family) -> IpAddr {
    match family {
        Family::V4 => host.into(),
        Family::V6 => Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(host.to_bits())).into(),
    }
}

/// Routes to what is on other hosts, and how these are found.
pub(super) fn layer3(vpc: &Vpc, link: u32) -> Layer3 {
    let mut layer3 = Layer3::default();
    for elsewhere in vpc.elsewhere {
        let host = elsewhere.host;
        layer3.neighbours.extend(Family::BOTH.map(|family| ((link, hop(host, family)), mac(host))));
        layer3.forwarding.insert((link, mac(host)), host);
        for net in elsewhere.interface.networks() {
            let gateway = hop(host, Family::of(net.addr()));
            layer3.routes.insert((MAIN_TABLE, net), Route::Gateway { gateway, link, mtu: None });
        }
    }
    layer3
}

/// Whose the networks are that routes lead to other hosts for.
pub(super) fn owners<'a>(vpc: &Vpc<'a>) -> impl Iterator<Item = (IpNet, &'a model::Id)> {
    vpc.elsewhere.iter().flat_map(|elsewhere| {
        let interface = &elsewhere.interface;
        interface.networks().map(move |net| (net, &interface.interface_id))
    })
}
