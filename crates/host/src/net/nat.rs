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

use datapath::NatGateway;
use ipnet::{IpNet, Ipv4Net};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::kernel::{Kernel, Layer3, MAIN_TABLE, Route};
use super::namespace::Namespace;
use super::netlink::Listener;
use super::nft::Filter;
use super::table::Table;
use super::vpc::{ROUTER_MAC, nat_link};
use super::{NetError, io_failed, render, sysctl};

/// The gateway's end of its link.
pub(super) const LINK: &str = "vpc";

/// The next hop: never on the wire, just the key of a permanent neighbour.
const ROUTER: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
const EVERYWHERE: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));

/// Flows are forgotten after 350 seconds without a packet; one that is forgotten is not taken up again in its middle.
const SETTINGS: [(&str, &str); 13] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("netfilter/nf_conntrack_tcp_timeout_established", "350"),
    ("netfilter/nf_conntrack_udp_timeout", "350"),
    ("netfilter/nf_conntrack_udp_timeout_stream", "350"),
    ("netfilter/nf_conntrack_icmp_timeout", "350"),
    ("netfilter/nf_conntrack_tcp_loose", "0"),
];

/// What connections are told apart by: as many as EC2 allows an address to one destination, 55,000, of those that it may
/// take, 1024 to 65535. The kernel gives none to two of them.
const PORTS: &str = "10536-65535";

pub(super) struct Nat {
    namespace: Namespace,
    kernel: Kernel,
    filter: Filter,
    is_settled: bool,
}

impl Nat {
    /// The gateway of this name, found or made.
    pub(super) async fn open(name: &str) -> Result<Nat, NetError> {
        let failed = io_failed(format!("can't make the network namespace {name}"));
        let namespace = match Namespace::open(name).map_err(&failed)? {
            Some(namespace) => namespace,
            None => Namespace::create(name).await.map_err(&failed)?,
        };
        let kernel = Kernel::open(&namespace).await.map_err(&failed)?;
        let filter = Filter::open(&namespace).await.map_err(&failed)?;
        Ok(Nat { namespace, kernel, filter, is_settled: false })
    }

    /// Makes the link to the router where it is missing. `router` is the router's kernel.
    pub(super) async fn plug(&self, plan: &NatGateway, router: &Kernel, mtu: u16) -> std::io::Result<()> {
        router.add_veth(&nat_link(plan), ROUTER_MAC, (LINK, plan.mac, &self.namespace), mtu).await
    }

    pub(super) fn listeners(&self) -> [Arc<Listener>; 2] {
        [self.kernel.listener.clone(), self.filter.listener.clone()]
    }

    pub(super) async fn apply(&mut self, plan: &NatGateway) -> Result<(), NetError> {
        let failed = io_failed(format!("can't set up {}", plan.nat_gateway_id));
        let addresses: Vec<Ipv4Addr> = plan.addresses.iter().map(|address| address.private_ip).collect();
        self.filter.load(vec![table(&addresses)]).await?;
        if !self.is_settled {
            // The tracking of flows, and with it its settings, comes with the first rule that asks for it.
            self.namespace.run(|| sysctl::write(SETTINGS)).await.map_err(&failed)?;
            self.is_settled = true;
        }
        let links = self.kernel.links().await.map_err(&failed)?;
        let Some(link) = links.get(LINK) else { return Ok(()) };
        if !link.up {
            self.kernel.set_link_up(link.index, None, None, None).await.map_err(&failed)?;
        }
        let mut want = Layer3::default();
        want.addresses.extend(addresses.into_iter().map(|address| (link.index, address.into())));
        want.neighbours.insert((link.index, ROUTER.into()), ROUTER_MAC);
        let out = Route::Gateway { gateway: ROUTER.into(), link: link.index };
        want.routes.insert((MAIN_TABLE, EVERYWHERE), out);
        let have = self.kernel.layer3(|index| index == link.index).await.map_err(&failed)?;
        self.kernel.reconcile(&want, &have).await.map_err(&failed)
    }
}

/// Whoever begins from the VPC passes, and what answers; nothing is for the gateway itself. With several addresses each
/// new connection takes the next.
fn table(addresses: &[Ipv4Addr]) -> Table {
    let to = match addresses {
        [] => None,
        [only] => Some(only.to_string()),
        several => {
            let count = several.len();
            let turns: Vec<String> =
                several.iter().enumerate().map(|(turn, address)| format!("{turn} : {address}")).collect();
            Some(format!("numgen inc mod {count} map {{ {} }}", turns.join(", ")))
        }
    };
    let outward = to.map_or(String::new(), |to| {
        format!("meta l4proto {{ tcp, udp }} snat ip to {to}:{PORTS}\nsnat ip to {to}")
    });
    let mut table = Table::new(render::TABLE);
    table.chain("services", "type filter hook input priority filter; policy drop;", "");
    table.chain(
        "forward",
        "type filter hook forward priority filter; policy drop;",
        "ct state established,related accept
        ct state invalid meta l4proto tcp reject with tcp reset
        ct state new meta l4proto { icmp, tcp, udp } accept",
    );
    table.chain("outward", "type nat hook postrouting priority srcnat; policy accept;", outward);
    table
}
