//! The two families of addresses, for what has rules, tables and sets of each.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::IpAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub(super) fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The header's name in rules.
    pub(super) fn ip(self) -> &'static str {
        match self {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        }
    }

    /// And of its control messages.
    pub(super) fn icmp(self) -> &'static str {
        match self {
            Family::V4 => "icmp",
            Family::V6 => "icmpv6",
        }
    }

    /// As a set's type.
    pub(super) fn address(self) -> &'static str {
        match self {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        }
    }

    /// As `meta nfproto` says it.
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }

    /// The name of this family's of two sets.
    pub(super) fn named(self, name: &str) -> String {
        match self {
            Family::V4 => name.to_owned(),
            Family::V6 => format!("{name}6"),
        }
    }

    pub(super) fn everywhere(self) -> IpNet {
        match self {
            Family::V4 => IpNet::V4(Ipv4Net::default()),
            Family::V6 => IpNet::V6(Ipv6Net::default()),
        }
    }
}

/// The networks of a family as elements of an interval set: none within another.
pub(super) fn elements(nets: impl IntoIterator<Item = IpNet>, family: Family) -> Vec<String> {
    let nets: Vec<IpNet> = nets.into_iter().filter(|net| Family::of(net.addr()) == family).collect();
    IpNet::aggregate(&nets).iter().map(IpNet::to_string).collect()
}
