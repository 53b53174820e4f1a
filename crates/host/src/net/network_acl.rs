//! Network ACLs as packet filter text. Pure.
//!
//! They stand at the edge of a subnet: what goes from one interface to another of the same subnet meets none. They know
//! of no connections, so every packet is asked for, and the first entry that matches decides. An ACL has a few dozen
//! entries at most (VPC User Guide, "Amazon VPC quotas"), which are walked; one that lets everything pass, as a VPC's
//! default one does, is not there at all.

use datapath::{AclEntry, NatGateway, Protocol, Subnet};
use ipnet::IpNet;
use std::collections::BTreeSet;

use super::family::Family;
use super::hosts;
use super::table::Table;
use super::vpc::{NUMBER_MASK, Vpc, nat_link};

/// Renders what stands at the edges of the subnets that have interfaces here, and the chain that leads to it; whether
/// there is any. Translation at the internet gateway is between them and the outside: they see private addresses. What
/// comes from another host has left its subnet there.
pub(super) fn render(vpc: &Vpc, table: &mut Table) -> bool {
    let (mut leaving, mut entering) = (Vec::new(), Vec::new());
    for subnet in &vpc.plan.subnets {
        let links = links(vpc, subnet);
        let Some(acl) = vpc.plan.network_acls.get(&subnet.network_acl_id).filter(|_| !links.is_empty())
        else {
            continue;
        };
        let mark = vpc.subnet_mark(&subnet.subnet_id);
        let number = mark >> 16;
        // A NAT gateway is led IPv6 to by other subnets.
        let is_led_to = !vpc.plan.ipv6_cidrs.is_empty() && nats(vpc, subnet).next().is_some();
        let has_ipv6 = subnet.ipv6_cidr.is_some() || is_led_to;
        let passes_all = |entries: &[AclEntry]| passes_all(entries, has_ipv6);
        if !passes_all(&acl.egress) {
            let quoted: Vec<String> = links.iter().map(|link| format!("\"{link}\"")).collect();
            table.set(format!("subnet_{number}"), "ifname", &quoted);
            let name = format!("acl_from_{number}");
            let elsewhere = format!("oifname \"{}\"", hosts::LINK);
            let mut is_own = vec![format!("oifname @subnet_{number}")];
            is_own.extend(subnet.networks().map(|net| match net {
                IpNet::V4(_) => format!("{elsewhere} ip daddr {net}"),
                IpNet::V6(_) => format!("{elsewhere} ip6 daddr {net}"),
            }));
            render_entries(&name, &is_own, "daddr", &acl.egress, table);
            leaving.push(format!("{mark:#010x} : jump {name}"));
        }
        if !passes_all(&acl.ingress) {
            let name = format!("acl_to_{number}");
            let is_own = [format!("meta mark & {:#010x} == {mark:#010x}", !NUMBER_MASK)];
            render_entries(&name, &is_own, "saddr", &acl.ingress, table);
            entering.extend(links.iter().map(|link| format!("\"{link}\" : jump {name}")));
        }
    }
    if leaving.is_empty() && entering.is_empty() {
        return false;
    }
    table.map("acl_from", "mark : verdict", &leaving);
    table.map("acl_to", "ifname : verdict", &entering);
    table.chain("acls_entering", "", "oifname vmap @acl_to");
    let leaving = format!("meta mark & {:#010x} vmap @acl_from", !NUMBER_MASK);
    let elsewhere = format!("iifname \"{}\" goto acls_entering", hosts::LINK);
    table.chain("acls", "", format!("{elsewhere}\n{leaving}\ngoto acls_entering"));
    true
}

/// Names of the links by which the subnet's packets come and go.
fn links(vpc: &Vpc, subnet: &Subnet) -> BTreeSet<String> {
    let nics = vpc.nics.iter().filter(|nic| nic.plan.subnet_id == subnet.subnet_id);
    nics.map(|nic| nic.tap.clone()).chain(nats(vpc, subnet).map(nat_link)).collect()
}

fn nats<'v>(vpc: &'v Vpc, subnet: &Subnet) -> impl Iterator<Item = &'v NatGateway> {
    vpc.plan.nat_gateways.iter().filter(|nat| nat.subnet_id == subnet.subnet_id)
}

/// Whether every packet passes, as the first entry that concerns each family says.
fn passes_all(entries: &[AclEntry], has_ipv6: bool) -> bool {
    let passes = |family: Family| {
        let mut concerned = entries.iter().filter(|entry| Family::of(entry.cidr.addr()) == family);
        concerned.next().is_some_and(|entry| {
            entry.allow && entry.protocol == Protocol::All && entry.cidr.prefix_len() == 0
        })
    };
    passes(Family::V4) && (!has_ipv6 || passes(Family::V6))
}

fn render_entries(name: &str, is_within: &[String], end: &str, entries: &[AclEntry], table: &mut Table) {
    let mut rules: Vec<String> = is_within.iter().map(|is_within| format!("{is_within} return")).collect();
    for entry in entries {
        let family = Family::of(entry.cidr.addr());
        let Some(protocol) = matches(entry.protocol, family) else { continue };
        let verdict = if entry.allow { "return" } else { "drop" };
        let peer = match entry.cidr.prefix_len() {
            0 => format!("meta nfproto {}", family.protocol()),
            _ => format!("{} {end} {}", family.ip(), entry.cidr.trunc()),
        };
        rules.push(format!("{peer} {protocol}{verdict}"));
    }
    rules.push("drop".into());
    table.chain(name, "", rules.join("\n"));
}

/// What a packet must be, with a space after it; None for what no packet of the family is.
fn matches(protocol: Protocol, family: Family) -> Option<String> {
    let ports = |name: &str, from: u16, to: u16| match (from, to) {
        (0, u16::MAX) => format!("meta l4proto {name} "),
        (from, to) if from == to => format!("{name} dport {from} "),
        (from, to) => format!("{name} dport {from}-{to} "),
    };
    let icmp = family.icmp();
    Some(match protocol {
        Protocol::Icmp { .. } if family == Family::V6 => return None,
        Protocol::Icmpv6 { .. } if family == Family::V4 => return None,
        Protocol::All => String::new(),
        Protocol::Tcp { from, to } if from <= to => ports("tcp", from, to),
        Protocol::Udp { from, to } if from <= to => ports("udp", from, to),
        Protocol::Tcp { .. } | Protocol::Udp { .. } => return None,
        Protocol::Icmp { kind, code } | Protocol::Icmpv6 { kind, code } => match (kind, code) {
            (None, _) => format!("meta l4proto {icmp} "),
            (Some(kind), None) => format!("{icmp} type {kind} "),
            (Some(kind), Some(code)) => format!("{icmp} type {kind} {icmp} code {code} "),
        },
        Protocol::Number(number) => format!("meta l4proto {number} "),
    })
}
