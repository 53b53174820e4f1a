//! Fragments: how many of them one interface may have waiting for the rest of their packets; as packet filter text and
//! settings. Pure.
//!
//! The router puts packets together before it judges them, and what it keeps of those that are not whole is bounded for
//! all of its VPC together. So nobody may send so many fragments that others' find no room: an interface, or outsiders who
//! speak to one address, have a part of it. What is beyond is dropped before the kernel keeps it. Peers and other hosts
//! send what they have put together themselves.

use std::fmt::Write;

use super::family::Family;
use super::table::Table;
use super::vpc::GATEWAY;

/// What the kernel keeps of packets of each family that are not whole.
const KEPT_BYTES: &str = "134217728";
/// For how long, in seconds: fragments of a packet come one after the other.
const KEPT_SECONDS: &str = "1";

pub(super) const SETTINGS: [(&str, &str); 4] = [
    ("ipv4/ipfrag_high_thresh", KEPT_BYTES),
    ("ipv4/ipfrag_time", KEPT_SECONDS),
    ("netfilter/nf_conntrack_frag6_high_thresh", KEPT_BYTES),
    ("netfilter/nf_conntrack_frag6_timeout", KEPT_SECONDS),
];

/// By number and by length: the kernel counts for a fragment, which may be tiny, a kilobyte beside its content. Of what
/// is kept, what comes within a second of this after a pause is an eighth.
const TOO_MANY: [(&str, &str); 2] =
    [("fragments", "4096/second burst 4096 packets"), ("fragment_bytes", "4 mbytes/second burst 4 mbytes")];

pub(super) fn render(table: &mut Table) {
    let mut count = |whose: &str, key: &str, kind: &str| {
        let mut rules = String::new();
        for (set, limit) in TOO_MANY {
            let set = format!("{set}_{whose}");
            table.set(set.clone(), &format!("{kind}; size 65535; flags dynamic,timeout; timeout 1m"), &[]);
            let _ = writeln!(rules, "update @{set} {{ {key} limit rate over {limit} }} drop");
        }
        table.chain(format!("fragment_{whose}"), "", rules);
    };
    count("of", "iif", "iface_index");
    for family in Family::BOTH {
        count(family.named("to").as_str(), &format!("{} daddr", family.ip()), family.address());
    }
    table.chain(
        "fragment",
        "",
        format!(
            "iifname != \"{GATEWAY}\" goto fragment_of
            meta nfproto ipv4 goto fragment_to
            goto fragment_to6"
        ),
    );
    // Before the kernel puts them together, at -400.
    table.chain(
        "fragments",
        "type filter hook prerouting priority -450; policy accept;",
        "ip frag-off & 0x3fff != 0 goto fragment\nexthdr frag exists goto fragment",
    );
}
