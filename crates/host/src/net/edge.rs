//! The internet gateway's own route table: what enters the VPC is led through an instance before it goes on (VPC User
//! Guide, "Gateway route tables"). Pure.
//!
//! ```text
//!   igw ─ translation ─ edge table ─ tap of the instance ─ and as the instance sends it on ─ whom it is for
//! ```
//!
//! Such a packet passes the router twice, and translation lies between the gateway and the instance only. So that part of
//! its way is tracked apart from the rest, in a zone of its own: by the public address for what comes, and by the way out
//! for what the instance sends to the gateway for others. What is led in through an instance has to go out through it.
//! So flows that are under way when a table begins or ceases to lead them end: the tracking knows them in one place only.

use datapath::{Route, Target};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::table::Table;
use super::vpc::{GATEWAY, Nic, Vpc};

/// Where flows between the gateway and an instance that is led to are tracked.
const ZONE: u32 = 1;

/// Renders what tells those flows apart, where there are any.
pub(super) fn render(vpc: &Vpc, table: &mut Table) {
    let led: Vec<(Ipv4Addr, Ipv4Addr, &Nic)> = led(vpc).collect();
    if led.is_empty() {
        return;
    }
    let instances: BTreeSet<u32> = led.iter().map(|(_, _, nic)| nic.number).collect();
    let instances: Vec<String> = instances.iter().map(u32::to_string).collect();
    let private: Vec<String> = led.iter().map(|(private, _, _)| private.to_string()).collect();
    let public: Vec<String> = led.iter().map(|(_, public, _)| public.to_string()).collect();
    table.set("edge_instances", "iface_index", &instances);
    table.set("edge_private", "ipv4_addr", &private);
    table.set("edge_public", "ipv4_addr", &public);
    table.chain(
        "edge",
        "type filter hook prerouting priority raw + 10; policy accept;",
        format!(
            "iifname \"{GATEWAY}\" ip daddr @edge_public ct zone set {ZONE}
            iif @edge_instances ip saddr @edge_private fib daddr . mark oifname \"{GATEWAY}\" ct zone set {ZONE}"
        ),
    );
}

/// Private and public addresses that the gateway leads to another interface, and that one.
fn led<'v>(vpc: &'v Vpc<'_>) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr, &'v Nic<'v>)> {
    vpc.translated().filter_map(move |(private, public)| {
        let route = route_to(vpc.plan, private)?;
        let Target::Interface(id) = &route.target else { return None };
        let nic = vpc.nics.iter().find(|nic| nic.plan.interface_id == *id)?;
        (!nic.plan.has(private.into())).then_some((private, public, nic))
    })
}

/// The gateway's route to an address, if it is another than the local one.
fn route_to(plan: &datapath::Vpc, address: Ipv4Addr) -> Option<&Route> {
    let table = plan.route_tables.get(plan.edge_route_table_id.as_ref()?)?;
    let concerned = table.routes.iter().filter(|route| route.destination.contains(&IpAddr::V4(address)));
    concerned.max_by_key(|route| IpNet::prefix_len(&route.destination))
}
