//! What is taken of a subnet's IPv6: a record for each /80 of which anything is. A delegated prefix takes a whole one, so
//! that what is taken never overlaps, whoever takes it at once.

use super::{Subnet, reservation};
use crate::engine::table::{Record, Values};
use crate::engine::{Tx, filter};
use ipnet::Ipv6Net;
use model::{Error, Id, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// Length of the prefixes that are delegated to interfaces (EC2 User Guide, "Prefix delegation").
pub const PREFIX_LEN: u8 = 80;
/// Bits of an address behind such a prefix.
const BEHIND: u32 = 128 - PREFIX_LEN as u32;
/// Looks for something free: as many as a /64 has prefixes.
const PROBES_MAX: u128 = 1 << 16;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ipv6Block {
    /// `subnet-…/fd12:…::/80`.
    pub key: Box<str>,
    pub subnet_id: Id,
    pub taken: Taken,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// All of it, delegated to an interface.
    Prefix(Id),
    /// Single addresses, each by an interface.
    Addresses(BTreeMap<Ipv6Addr, Id>),
}

impl Record for Ipv6Block {
    const TABLE: &'static str = "ipv6-block";
    const INDEXED: &'static [&'static str] = &["subnet-id"];

    fn id(&self) -> &str {
        &self.key
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "subnet-id" => filter::one(values, self.subnet_id.as_str()),
            _ => false,
        }
    }
}

/// The prefix that an address is in.
fn around(address: Ipv6Addr) -> Ipv6Net {
    Ipv6Net::new_assert(address, PREFIX_LEN).trunc()
}

fn key(subnet_id: &Id, prefix: Ipv6Net) -> String {
    format!("{subnet_id}/{prefix}")
}

/// The subnet's block, where it has one that does not go.
fn cidr(subnet: &Subnet) -> Result<Ipv6Net> {
    let cidr = subnet.ipv6.as_ref().filter(|_| !subnet.ipv6_goes).map(|of| of.cidr);
    cidr.ok_or_else(|| {
        Error::invalid_parameter_combination(format!(
            "The subnet '{}' does not have an IPv6 CIDR block.",
            subnet.subnet_id
        ))
    })
}

/// Takes an address of the subnet for an interface: the wanted one, or any free one.
pub fn claim_address(
    tx: &mut Tx<'_>,
    subnet: &Subnet,
    wanted: Option<Ipv6Addr>,
    owner: &Id,
) -> Result<Ipv6Addr> {
    let all = assignable(cidr(subnet)?);
    if let Some(address) = wanted {
        return if !all.contains(address.to_bits()) {
            Err(outside("Address", address))
        } else if !take_address(tx, subnet, address, owner) {
            Err(Error::new("InvalidIPAddress.InUse", format!("Address {address} is in use.")))
        } else {
            Ok(address)
        };
    }
    let reserved = reservation::reserved6(tx.tables(), &subnet.subnet_id, false);
    let free = Free::new(all, reserved.map(Span::of).collect());
    // Two that are looked at one after the other are never in one prefix.
    let stride = (1 << BEHIND) + 1;
    let mut probes = free.probes(random(tx), stride).map(Ipv6Addr::from_bits);
    probes.find(|address| take_address(tx, subnet, *address, owner)).ok_or_else(|| {
        Error::new(
            "InsufficientFreeAddressesInSubnet",
            format!("There are not enough free IPv6 addresses in subnet '{}'.", subnet.subnet_id),
        )
    })
}

/// Takes a whole prefix of the subnet for an interface: the wanted one, or one that is free, of what is reserved for
/// prefixes first.
pub fn claim_prefix(
    tx: &mut Tx<'_>,
    subnet: &Subnet,
    wanted: Option<Ipv6Net>,
    owner: &Id,
) -> Result<Ipv6Net> {
    let Some(whole) = assignable(cidr(subnet)?).prefixes() else { return Err(none_free(subnet)) };
    if let Some(prefix) = wanted {
        return if !whole.contains(prefix.network().to_bits() >> BEHIND) {
            Err(outside("Prefix", prefix))
        } else if !take_prefix(tx, subnet, prefix, owner) {
            Err(Error::new("InvalidIPAddress.InUse", format!("Prefix {prefix} is in use.")))
        } else {
            Ok(prefix)
        };
    }
    let reserved =
        reservation::reserved6(tx.tables(), &subnet.subnet_id, false).map(|net| Span::of(net).touched());
    let others = Free::new(whole, reserved.collect());
    let preferred = reservation::reserved6(tx.tables(), &subnet.subnet_id, true);
    let preferred = Free(preferred.filter_map(|net| Span::of(net).prefixes()?.within(whole)).collect());
    let start = random(tx);
    let mut probes = preferred.probes(start, 1).chain(others.probes(start, 1)).map(prefix_of);
    probes.find(|prefix| take_prefix(tx, subnet, *prefix, owner)).ok_or_else(|| none_free(subnet))
}

fn none_free(subnet: &Subnet) -> Error {
    Error::new(
        "InsufficientCidrBlocks",
        format!("There are not enough free CIDR blocks in subnet '{}'.", subnet.subnet_id),
    )
}

fn outside(kind: &str, what: impl std::fmt::Display) -> Error {
    Error::invalid_parameter_value(format!("{kind} {what} does not fall within the subnet's address range"))
}

fn random(tx: &Tx<'_>) -> u128 {
    u128::from(tx.random().u64()) << 64 | u128::from(tx.random().u64())
}

fn prefix_of(number: u128) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::from_bits(number << BEHIND), PREFIX_LEN)
}

fn take_address(tx: &mut Tx<'_>, subnet: &Subnet, address: Ipv6Addr, owner: &Id) -> bool {
    let key = key(&subnet.subnet_id, around(address));
    let mut taken = match tx.get::<Ipv6Block>(&key).map(|block| block.taken.clone()) {
        None => BTreeMap::new(),
        Some(Taken::Addresses(taken)) => taken,
        Some(Taken::Prefix(_)) => return false,
    };
    if taken.contains_key(&address) {
        return false;
    }
    taken.insert(address, owner.clone());
    let taken = Taken::Addresses(taken);
    tx.put(&Ipv6Block { key: key.into(), subnet_id: subnet.subnet_id.clone(), taken });
    true
}

fn take_prefix(tx: &mut Tx<'_>, subnet: &Subnet, prefix: Ipv6Net, owner: &Id) -> bool {
    let key = key(&subnet.subnet_id, prefix);
    if tx.get::<Ipv6Block>(&key).is_some() {
        return false;
    }
    let taken = Taken::Prefix(owner.clone());
    tx.put(&Ipv6Block { key: key.into(), subnet_id: subnet.subnet_id.clone(), taken });
    true
}

pub fn release_address(tx: &mut Tx<'_>, subnet_id: &Id, address: Ipv6Addr) {
    let key = key(subnet_id, around(address));
    let Some(block) = tx.get::<Ipv6Block>(&key) else { return };
    let Taken::Addresses(mut taken) = block.taken.clone() else { return };
    taken.remove(&address);
    match taken.is_empty() {
        true => tx.delete::<Ipv6Block>(&key),
        false => tx.put(&Ipv6Block { taken: Taken::Addresses(taken), ..(*block).clone() }),
    }
}

pub fn release_prefix(tx: &mut Tx<'_>, subnet_id: &Id, prefix: Ipv6Net) {
    tx.delete::<Ipv6Block>(&key(subnet_id, prefix));
}

/// Both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    first: u128,
    last: u128,
}

/// The first four addresses and the last are EC2's (VPC User Guide, "Subnet CIDR blocks").
fn assignable(cidr: Ipv6Net) -> Span {
    let Span { first, last } = Span::of(cidr);
    Span { first: first + u128::from(super::RESERVED_FIRST), last: last - 1 }
}

impl Span {
    fn of(net: Ipv6Net) -> Span {
        Span { first: net.network().to_bits(), last: net.broadcast().to_bits() }
    }

    fn contains(self, number: u128) -> bool {
        self.first <= number && number <= self.last
    }

    fn within(self, other: Span) -> Option<Span> {
        let span = Span { first: self.first.max(other.first), last: self.last.min(other.last) };
        (span.first <= span.last).then_some(span)
    }

    fn len(self) -> u128 {
        self.last - self.first + 1
    }

    /// The numbers of the prefixes that any of it is in.
    fn touched(self) -> Span {
        Span { first: self.first >> BEHIND, last: self.last >> BEHIND }
    }

    /// The numbers of the prefixes that are all in it.
    fn prefixes(self) -> Option<Span> {
        let first = self.first.checked_add((1 << BEHIND) - 1)? >> BEHIND;
        let end = self.last.checked_add(1)? >> BEHIND;
        (first < end).then_some(Span { first, last: end.checked_sub(1)? })
    }
}

/// Numbers that may be chosen, in spans beside each other.
struct Free(Vec<Span>);

impl Free {
    /// All but what is reserved.
    fn new(all: Span, mut reserved: Vec<Span>) -> Free {
        reserved.sort();
        let mut spans = Vec::new();
        let mut first = all.first;
        for span in reserved {
            if let Some(before) = span.first.checked_sub(1) {
                spans.extend(Span { first, last: before }.within(all));
            }
            first = first.max(span.last.saturating_add(1));
        }
        spans.extend(Span { first, last: all.last }.within(all));
        Free(spans)
    }

    /// Some of them, from a place chosen by chance on.
    fn probes(&self, start: u128, stride: u128) -> impl Iterator<Item = u128> {
        let total: u128 = self.0.iter().map(|span| span.len()).sum();
        (0..total.min(PROBES_MAX))
            .map(move |step| self.nth((start % total + step * (stride % total)) % total))
    }

    fn nth(&self, mut number: u128) -> u128 {
        for span in &self.0 {
            if number < span.len() {
                return span.first + number;
            }
            number -= span.len();
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_prefix_and_the_last_are_not_whole() {
        let prefixes = assignable(net("fd00::/64")).prefixes().unwrap();
        assert_eq!(prefixes.len(), (1 << 16) - 2);
        assert_eq!(prefix_of(prefixes.first), net("fd00:0:0:0:1::/80"));
        assert_eq!(prefix_of(prefixes.last), net("fd00:0:0:0:fffe::/80"));
        assert_eq!(Span::of(net("fd00::/80")).prefixes().unwrap().len(), 1);
        assert_eq!(Span::of(net("fd00::/81")).prefixes(), None);
    }

    #[test]
    fn what_is_reserved_is_never_chosen() {
        let all = assignable(net("fd00::/64"));
        let halves = ["fd00::/65", "fd00:0:0:0:8000::/66"].map(|text| Span::of(net(text)));
        let free = Free::new(all, halves.into());
        assert!(free.probes(u128::MAX, (1 << BEHIND) + 1).all(|one| one > halves[1].last && one <= all.last));
        assert_eq!(Free::new(all, vec![Span::of(net("fd00::/64"))]).probes(7, 1).next(), None);
    }

    proptest! {
        #[test]
        fn probes_are_all_that_is_free_each_once(
            reserved in prop::collection::vec((0u128..40, 0u128..6), 0..5),
            start in any::<u128>(),
        ) {
            let spans: Vec<Span> =
                reserved.iter().map(|(first, more)| Span { first: *first, last: first + more }).collect();
            let all = Span { first: 3, last: 30 };
            let expected: Vec<u128> =
                (3..=30).filter(|one| !spans.iter().any(|span| span.contains(*one))).collect();
            let mut probes: Vec<u128> = Free::new(all, spans).probes(start, 1).collect();
            probes.sort();
            prop_assert_eq!(probes, expected);
        }
    }
}
