//! Addresses of IPv4 as those see them who have IPv6 alone (RFC 6052; VPC User Guide, "DNS64 and NAT64").

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The well-known prefix, at the end of which an address of IPv4 stands.
pub const PREFIX: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Where no gateway leads: this host, this link, many at once, and nobody.
pub const NOWHERE: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3),
];

pub fn ipv6(address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(PREFIX.addr().to_bits() | u128::from(address.to_bits()))
}

/// None of an address that is not under the prefix.
pub fn ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    PREFIX.contains(&address).then(|| Ipv4Addr::new(a, b, c, d))
}

/// The part of the prefix that stands for a network.
pub fn network(net: Ipv4Net) -> Ipv6Net {
    Ipv6Net::new_assert(ipv6(net.network()), PREFIX.prefix_len() + net.prefix_len())
}

/// Whether a NAT gateway would lead there.
pub fn leads_to(address: Ipv4Addr) -> bool {
    !NOWHERE.iter().any(|net| net.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_stands_for_the_other() {
        let (address, six) = (Ipv4Addr::new(192, 0, 2, 33), "64:ff9b::192.0.2.33".parse().unwrap());
        assert_eq!((ipv6(address), ipv4(six)), (six, Some(address)));
        assert_eq!(ipv4("64:ff9b:1::192.0.2.33".parse().unwrap()), None);
        assert_eq!(network("224.0.0.0/3".parse().unwrap()), "64:ff9b::e000:0/99".parse().unwrap());
        assert!(leads_to(address) && !leads_to(Ipv4Addr::new(169, 254, 169, 254)));
    }
}
