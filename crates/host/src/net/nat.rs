//! A NAT gateway: a namespace of its own that is one more interface of its subnet.
//!
//! ```text
//!   VPC's router ═ link ═ vpc ── forward: who begins, and answers ── source becomes the gateway's ── vpc ═ link ═ router
//! ```
//!
//! What a route leads here goes back by the link it came by, from an address of the gateway's own; the subnet's route
//! table and ACL decide what becomes of it, as of what any interface sends. Its flows are tracked apart from the VPC's, so
//! that its time-outs and its ports are its own (VPC User Guide, "NAT gateway basics"): a connection that was idle for 350
//! seconds is reset when it goes on, and one that finds no free port is dropped.
//!
//! EC2's drops what came in fragments of TCP and ICMP; this one puts it together.
//!
//! Those who have IPv6 alone it speaks for to who has IPv4 alone (NAT64: RFC 6146; VPC User Guide, "DNS64 and NAT64"):
//!
//! ```text
//!   router ─ IPv6 ─▶ vpc ── source becomes 64:ff9b::240.0.0.1 ── vpc ─ translated ─▶ vpc ── as all that comes of IPv4
//! ```
//!
//! They are many, and an address of IPv4 is short: so they take turns on ports twice. First all become one address of
//! IPv6, which a program where packets leave (`translation`) can make one of IPv4, and back, without knowing of anybody;
//! then that one becomes the gateway's as any other does. Both times the kernel's tracking knows who is who, for as
//! long, and bounded alike. For the gateway's own words about what comes over IPv6 it has its address as a guest there
//! sees it.

use datapath::{NatGateway, nat64};
use ipnet::Ipv4Net;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::family::Family;
use super::kernel::{Kernel, Layer3, MAIN_TABLE, Route};
use super::namespace::Namespace;
use super::netlink::Listener;
use super::nft::Filter;
use super::table::Table;
use super::translation::{TRANSLATED, Translation};
use super::vpc::{ROUTER_MAC, gateway_peer, nat_link};
use super::{NetError, io_failed, render, sysctl};

/// The gateway's end of its link.
pub(super) const LINK: &str = "vpc";

/// Whom the gateway speaks for in between the families: as many as it has addresses, of a network that is nobody's. The
/// program knows it too.
const BETWEEN: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4);
/// By how much a packet is longer as one of IPv6.
const LONGER: u16 = 20;

/// Flows are forgotten after 350 seconds without a packet; one that is forgotten is not taken up again in its middle.
const SETTINGS: [(&str, &str); 6] = [
    ("netfilter/nf_conntrack_tcp_timeout_established", "350"),
    ("netfilter/nf_conntrack_udp_timeout", "350"),
    ("netfilter/nf_conntrack_udp_timeout_stream", "350"),
    ("netfilter/nf_conntrack_icmp_timeout", "350"),
    ("netfilter/nf_conntrack_icmpv6_timeout", "350"),
    ("netfilter/nf_conntrack_tcp_loose", "0"),
];

/// What connections are told apart by: as many as EC2 allows an address to one destination, 55,000, of those that it may
/// take, 1024 to 65535. The kernel gives none to two of them.
const PORTS: &str = "10536-65535";

pub(super) struct Nat {
    namespace: Namespace,
    kernel: Kernel,
    filter: Filter,
    /// None where the kernel can't translate.
    translation: Option<Arc<Translation>>,
    is_settled: bool,
}

impl Nat {
    /// The gateway of this name, found or made.
    pub(super) async fn open(name: &str, translation: Option<Arc<Translation>>) -> Result<Nat, NetError> {
        let failed = io_failed(format!("can't make the network namespace {name}"));
        let namespace = match Namespace::open(name).map_err(&failed)? {
            Some(namespace) => namespace,
            None => Namespace::create(name).await.map_err(&failed)?,
        };
        let kernel = Kernel::open(&namespace).await.map_err(&failed)?;
        let filter = Filter::open(&namespace).await.map_err(&failed)?;
        Ok(Nat { namespace, kernel, filter, translation, is_settled: false })
    }

    /// Makes the link to the router where it is missing. `router` is the router's kernel.
    pub(super) async fn plug(&self, plan: &NatGateway, router: &Kernel, mtu: u16) -> std::io::Result<()> {
        router.add_veth(&nat_link(plan), ROUTER_MAC, (LINK, plan.mac, &self.namespace), mtu).await
    }

    pub(super) fn listeners(&self) -> [Arc<Listener>; 2] {
        [self.kernel.listener.clone(), self.filter.listener.clone()]
    }

    pub(super) async fn apply(&mut self, plan: &NatGateway, mtu: u16) -> Result<(), NetError> {
        let failed = io_failed(format!("can't set up {}", plan.nat_gateway_id));
        let addresses: Vec<Ipv4Addr> = plan.addresses.iter().map(|address| address.private_ip).collect();
        self.filter.load(vec![table(&addresses, self.translation.is_some())]).await?;
        if !self.is_settled {
            // The tracking of flows, and with it its settings, comes with the first rule that asks for it.
            let settings = sysctl::ROUTER.into_iter().chain(SETTINGS);
            self.namespace.run(|| sysctl::write(settings)).await.map_err(&failed)?;
            self.is_settled = true;
        }
        let links = self.kernel.links().await.map_err(&failed)?;
        let Some(link) = links.get(LINK) else { return Ok(()) };
        if !link.up {
            self.kernel.set_link_up(link.index, None, None, None).await.map_err(&failed)?;
        }
        if let Some(translation) = &self.translation {
            translation.run(&self.kernel, link.index).await.map_err(&failed)?;
        }
        let want = layer3(&addresses, link.index, mtu);
        let have = self.kernel.layer3(|index| index == link.index).await.map_err(&failed)?;
        self.kernel.reconcile(&want, &have).await.map_err(&failed)?;
        let look = self.kernel.layer3(|index| index == link.index);
        self.kernel.forget_own_doing(&want, look).await.map_err(&failed)
    }
}

/// All goes to the router, what is to be translated too: it comes in again where it would leave.
fn layer3(addresses: &[Ipv4Addr], link: u32, mtu: u16) -> Layer3 {
    let mut layer3 = Layer3::default();
    for address in addresses {
        layer3.addresses.extend([(link, (*address).into()), (link, nat64::ipv6(*address).into())]);
    }
    for family in Family::BOTH {
        let gateway = gateway_peer(family);
        layer3.neighbours.insert((link, gateway), ROUTER_MAC);
        layer3.routes.insert((MAIN_TABLE, family.everywhere()), Route::Gateway { gateway, link, mtu: None });
    }
    let mtu = Some(mtu.saturating_sub(LONGER).into());
    let narrow = Route::Gateway { gateway: gateway_peer(Family::V4), link, mtu };
    layer3.routes.insert((MAIN_TABLE, BETWEEN.into()), narrow);
    layer3
}

/// Whoever begins from the VPC passes, and what answers; nothing is for the gateway itself. With several addresses each
/// new connection takes the next.
fn table(addresses: &[Ipv4Addr], translates: bool) -> Table {
    let mut table = Table::new(render::TABLE);
    table.chain("services", "type filter hook input priority filter; policy drop;", "");
    table.chain(
        "in_between",
        "type filter hook prerouting priority raw; policy accept;",
        format!(
            "meta mark {TRANSLATED:#x} accept
            ip saddr {BETWEEN} drop
            ip daddr {BETWEEN} drop
            ip6 saddr {0} drop
            ip6 daddr != {0} drop",
            nat64::PREFIX
        ),
    );
    let nowhere = nat64::NOWHERE.map(|net| nat64::network(net).to_string()).join(", ");
    let translated = match translates {
        true => "meta l4proto { tcp, udp } accept\nicmpv6 type echo-request accept\n",
        false => "",
    };
    // What the program has made of an answer to nobody is no beginning.
    table.chain(
        "begin6",
        "",
        format!("meta mark {TRANSLATED:#x} drop\nip6 daddr {{ {nowhere} }} drop\n{translated}drop"),
    );
    table.chain(
        "forward",
        "type filter hook forward priority filter; policy drop;",
        "ct state established,related accept
        ct state invalid meta l4proto tcp reject with tcp reset
        ct state new meta nfproto ipv6 goto begin6
        ct state new meta l4proto { icmp, tcp, udp } accept",
    );
    let between = BETWEEN.hosts().map(nat64::ipv6).take(addresses.len());
    let outward = match (in_turn(addresses), in_turn(&between.collect::<Vec<_>>())) {
        (Some(own), Some(between)) => format!(
            "ip6 daddr {} snat ip6 to {between}
            meta l4proto {{ tcp, udp }} snat ip to {own}:{PORTS}
            snat ip to {own}",
            nat64::PREFIX
        ),
        _ => String::new(),
    };
    table.chain("outward", "type nat hook postrouting priority srcnat; policy accept;", outward);
    table
}

/// One of them for each that asks; None of none.
fn in_turn(all: &[impl Display]) -> Option<String> {
    match all {
        [] => None,
        [only] => Some(only.to_string()),
        several => {
            let turns: Vec<String> =
                several.iter().enumerate().map(|(turn, one)| format!("{turn} : {one}")).collect();
            Some(format!("numgen inc mod {} map {{ {} }}", several.len(), turns.join(", ")))
        }
    }
}
