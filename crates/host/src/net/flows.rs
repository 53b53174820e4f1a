//! How flows begin: how many one interface may have, and how long they stay when they are idle; as packet filter text.
//! Pure.
//!
//! What a namespace can track is bounded, for all that is in it together: without a bound of its own one guest, or
//! somebody outside who speaks to it, would leave its neighbours nothing. EC2 gives each instance an allowance too (EC2
//! User Guide, "Security group connection tracking"). A flow is on the account of who began it here, or of whom an
//! outsider began it with, while it lives; what is beyond the allowance does not begin.
//!
//! The kernel looks through a whole account for each flow that begins. So an account is in parts that are short: a flow
//! belongs to one by a hash of its ends, which a guest can't foresee. Parts in which nothing lives go by themselves. Who
//! flushes the rules clears the accounts with them, and they stay clear: the kernel puts flows on them as they begin.
//!
//! Of two interfaces of the VPC on this host, the one that begins a flow says how long it stays, if it says so at all.

use datapath::Tracking;
use std::collections::BTreeSet;

use super::table::Table;
use super::vpc::{GATEWAY, NUMBER_MASK, NUMBERS, Vpc};

/// The chain that lets flows begin which all have allowed.
pub(super) const ADMIT: &str = "admit";

const PARTS: u32 = 256;
/// Parts are not filled evenly.
const UNEVEN_PERCENT: u32 = 125;
/// An interface may have this part of all that the namespace can track.
const SHARE: u32 = 8;

/// What the kernel tracks in each namespace where it does not say: its own default for the smallest hosts.
pub(super) const TRACKED_DEFAULT: u32 = 65_536;

/// `tracked` is how many flows the namespace can track. What comes from NAT gateways, peers and other hosts, which have
/// lower numbers than interfaces, is on an account already: here, or there.
pub(super) fn render(vpc: &Vpc, tracked: u32, table: &mut Table) {
    let stays = times(vpc, table);
    let of_interfaces = NUMBER_MASK - (NUMBERS.start() - 1);
    let [from, to] = ["iif", "oif"].map(|link| beyond(link, tracked));
    table.set("flows", "iface_index . mark; size 16777216; flags dynamic", &[]);
    table.chain("begun_outside", "", format!("{to} drop\naccept"));
    table.chain(
        ADMIT,
        "",
        format!(
            "{stays}iifname \"{GATEWAY}\" goto begun_outside
            meta mark & {of_interfaces:#x} == 0 accept
            {from} drop
            accept"
        ),
    );
}

/// Who has times of its own, by its link, and the rules that ask for them.
fn times(vpc: &Vpc, table: &mut Table) -> String {
    let own = vpc.nics.iter().filter(|nic| nic.plan.tracking != Tracking::default());
    let own: Vec<(u32, Tracking)> = own.map(|nic| (nic.number, nic.plan.tracking)).collect();
    if own.is_empty() {
        return String::new();
    }
    for tracking in own.iter().map(|(_, tracking)| *tracking).collect::<BTreeSet<_>>() {
        let Tracking { tcp_established, udp, udp_stream } = tracking;
        let name = name(tracking);
        // The tracking does not see what takes the shortcut: what it misses is no sign of an end.
        let tcp = ["established", "unack", "retrans"].map(|state| (state, tcp_established));
        let udp = [("unreplied", udp), ("replied", udp_stream)];
        let mut rules = String::new();
        for (protocol, times) in [("tcp", &tcp[..]), ("udp", &udp[..])] {
            let times = times.iter().filter_map(|(state, time)| Some(format!("{state} : {}", (*time)?)));
            let times = times.collect::<Vec<_>>().join(", ");
            if !times.is_empty() {
                table.timeout(format!("{name}_{protocol}"), protocol, &times);
                rules.push_str(&format!("meta l4proto {protocol} ct timeout set \"{name}_{protocol}\"\n"));
            }
        }
        table.chain(name, "", rules);
    }
    let own = own.into_iter().map(|(number, tracking)| format!("{number} : jump {}", name(tracking)));
    table.map("times", "iface_index : verdict", &own.collect::<Vec<_>>());
    "oif vmap @times\niif vmap @times\n".to_owned()
}

fn name(Tracking { tcp_established, udp, udp_stream }: Tracking) -> String {
    let text = |time: Option<u32>| time.map_or("x".to_owned(), |time| time.to_string());
    format!("times_{}_{}_{}", text(tcp_established), text(udp), text(udp_stream))
}

/// Puts a flow on the account of whom the packet comes from, or goes to, and says whether that is too many. The set and
/// chains are those that `render` makes.
fn beyond(link: &str, tracked: u32) -> String {
    let part = (tracked / SHARE / PARTS).max(1) * UNEVEN_PERCENT / 100;
    format!("add @flows {{ {link} . symhash mod {PARTS} ct count over {part} }}")
}

/// The same for what is for the router itself, where no packet of a flow that is there already was let on before.
pub(super) fn beyond_for_services(tracked: u32) -> String {
    format!("ct state new ct status ! confirmed {}", beyond("iif", tracked))
}
