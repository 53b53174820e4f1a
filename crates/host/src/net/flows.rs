//! How many flows one interface may have, as packet filter text. Pure.
//!
//! What a namespace can track is bounded, for all that is in it together: without a bound of its own one guest, or
//! somebody outside who speaks to it, would leave its neighbours nothing. EC2 gives each instance an allowance too (EC2
//! User Guide, "Security group connection tracking"). A flow is on the account of who began it here, or of whom an
//! outsider began it with, while it lives; what is beyond the allowance does not begin.
//!
//! The kernel looks through a whole account for each flow that begins. So an account is in parts that are short: a flow
//! belongs to one by a hash of its ends, which a guest can't foresee. Parts in which nothing lives go by themselves. Who
//! flushes the rules clears the accounts with them.

use super::table::Table;
use super::vpc::{GATEWAY, NUMBER_MASK, NUMBERS};

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
pub(super) fn render(tracked: u32, table: &mut Table) {
    let of_interfaces = NUMBER_MASK - (NUMBERS.start() - 1);
    let [from, to] = ["iif", "oif"].map(|link| beyond(link, tracked));
    table.set("flows", "iface_index . mark; size 16777216; flags dynamic", &[]);
    table.chain("begun_outside", "", format!("{to} drop\naccept"));
    table.chain(
        ADMIT,
        "",
        format!(
            "iifname \"{GATEWAY}\" goto begun_outside
            meta mark & {of_interfaces:#x} == 0 accept
            {from} drop
            accept"
        ),
    );
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
