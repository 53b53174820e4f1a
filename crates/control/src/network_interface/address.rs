//! Private addresses and prefixes of an interface: those asked for when it is made, AssignPrivateIpAddresses,
//! UnassignPrivateIpAddresses.

use super::{AskedIpv6, Ipv6, NetworkInterface, PrivateAddress, Purpose, attach};
use crate::Context;
use crate::engine::Tx;
use crate::subnet::{self, Subnet};
use aws_api::ec2;
use ipnet::Ipv4Net;
use model::{Error, Id, Result};
use smallvec::SmallVec;
use std::net::Ipv4Addr;

/// No instance type takes more on one interface (EC2 User Guide, "Maximum IP addresses per network interface").
pub(super) const ADDRESSES_MAX: usize = 50;

/// Addresses and prefixes that are wanted; None is any that is free.
pub struct Asked {
    /// The primary one first.
    addresses: Vec<Option<Ipv4Addr>>,
    prefixes: Vec<Option<Ipv4Net>>,
    /// Nothing is said of IPv4: none where the subnet has none.
    unsaid: bool,
    ipv6: AskedIpv6,
}

type Claimed = (SmallVec<[PrivateAddress; 1]>, Box<[Ipv4Net]>, Ipv6);

impl Asked {
    pub fn new(
        primary: Option<&str>,
        listed: &[ec2::PrivateIpAddressSpecification],
        count: Option<i32>,
        prefixes: &[Option<&str>],
        prefix_count: Option<i32>,
        ipv6: AskedIpv6,
    ) -> Result<Asked> {
        let mut first = primary.map(parse).transpose()?;
        let mut others = Vec::new();
        for one in listed {
            let text = one.private_ip_address.as_deref();
            let address = parse(text.ok_or_else(|| Error::missing_parameter("privateIpAddress"))?)?;
            match (one.primary.unwrap_or(false), first) {
                (false, _) => others.push(Some(address)),
                (true, None) => first = Some(address),
                (true, Some(before)) if before == address => {}
                (true, Some(_)) => {
                    return Err(Error::invalid_parameter_combination(
                        "Only one primary private IP address can be specified.",
                    ));
                }
            }
        }
        others.extend(any(count, "secondaryPrivateIpAddressCount", !listed.is_empty())?);
        let prefixes = wanted_prefixes(prefixes, prefix_count)?;
        let unsaid = first.is_none() && others.is_empty() && prefixes.is_empty();
        let addresses = std::iter::once(first).chain(others).collect();
        Asked { addresses, prefixes, unsaid, ipv6 }.checked()
    }

    pub fn of(addresses: &[Option<Ipv4Addr>]) -> Asked {
        Asked {
            addresses: addresses.to_vec(),
            prefixes: Vec::new(),
            unsaid: false,
            ipv6: AskedIpv6::default(),
        }
    }

    /// Whether it names addresses that only one interface can have.
    pub fn is_particular(&self) -> bool {
        self.addresses.iter().any(Option::is_some)
            || self.prefixes.iter().any(Option::is_some)
            || self.ipv6.is_particular()
    }

    /// As an interface of this purpose takes it: an EFA-only one has no addresses.
    pub fn of_purpose(self, purpose: Purpose) -> Result<Asked> {
        if purpose != Purpose::EfaOnly {
            return Ok(self);
        }
        if self.addresses != [None] || !self.prefixes.is_empty() || self.ipv6.count() > 0 {
            return Err(without_addresses());
        }
        Ok(Asked::of(&[]))
    }

    /// How many addresses and prefixes of IPv4.
    fn count(&self) -> usize {
        self.addresses.len() + self.prefixes.len()
    }

    fn checked(self) -> Result<Asked> {
        if self.count() > ADDRESSES_MAX { Err(too_many()) } else { Ok(self) }
    }

    /// Claims them all of the subnet.
    pub fn claim(&self, tx: &mut Tx<'_>, subnet: &Subnet, interface_id: &Id) -> Result<Claimed> {
        let wanted = if self.unsaid && subnet.cidr.is_none() { &[] } else { self.addresses.as_slice() };
        let mut addresses = SmallVec::with_capacity(wanted.len());
        for wanted in wanted {
            let private_ip = subnet::claim_address(tx, subnet, *wanted, interface_id)?;
            addresses.push(PrivateAddress { private_ip, public: None });
        }
        let prefixes =
            self.prefixes.iter().map(|wanted| subnet::claim_prefix(tx, subnet, *wanted, interface_id));
        let prefixes = prefixes.collect::<Result<_>>()?;
        Ok((addresses, prefixes, self.ipv6.claim(tx, subnet, interface_id)?))
    }
}

fn wanted_prefixes(listed: &[Option<&str>], count: Option<i32>) -> Result<Vec<Option<Ipv4Net>>> {
    let mut wanted = any(count, "ipv4PrefixCount", !listed.is_empty())?;
    for text in listed {
        wanted.push(Some(parse_prefix(text.ok_or_else(|| Error::missing_parameter("ipv4Prefix"))?)?));
    }
    Ok(wanted)
}

/// Any, so many.
pub(super) fn any<T: Clone>(count: Option<i32>, name: &str, listed: bool) -> Result<Vec<Option<T>>> {
    match count {
        None => Ok(Vec::new()),
        Some(_) if listed => Err(Error::invalid_parameter_combination(format!(
            "The parameter {name} cannot be used beside what it counts"
        ))),
        Some(count) => {
            let valid = usize::try_from(count).ok().filter(|count| (1..=ADDRESSES_MAX).contains(count));
            let valid = valid.ok_or_else(|| {
                Error::invalid_parameter_value(format!("Value ({count}) for parameter {name} is invalid."))
            })?;
            Ok(vec![None; valid])
        }
    }
}

pub fn parse(text: &str) -> Result<Ipv4Addr> {
    text.parse().map_err(|_| {
        Error::invalid_parameter_value(format!(
            "Value ({text}) for parameter privateIpAddress is invalid. Invalid IPv4 address."
        ))
    })
}

fn parse_prefix(text: &str) -> Result<Ipv4Net> {
    let is_one = |net: &Ipv4Net| net.prefix_len() == subnet::PREFIX_LEN && net.trunc() == *net;
    text.parse().ok().filter(is_one).ok_or_else(|| {
        Error::invalid_parameter_value(format!(
            "Value ({text}) for parameter ipv4Prefix is invalid. It must be an IPv4 network of /28."
        ))
    })
}

pub(super) fn without_addresses() -> Error {
    Error::invalid_parameter_combination("An EFA-only network interface does not support IP addresses.")
}

fn too_many() -> Error {
    Error::new(
        "PrivateIpAddressLimitExceeded",
        "Number of private addresses will exceed limit of the network interface.",
    )
}

/// Whether an instance of the type may have an interface with so many.
pub fn check_count(count: usize, max: usize) -> Result<()> {
    if count > max { Err(too_many()) } else { Ok(()) }
}

pub async fn assign_private_ip_addresses(
    context: &Context,
    input: ec2::AssignPrivateIpAddressesRequest,
) -> Result<ec2::AssignPrivateIpAddressesResult> {
    let id = input.network_interface_id.as_deref().unwrap_or_default();
    let listed = input.private_ip_addresses.iter().map(|text| parse(text).map(Some));
    let mut addresses = listed.collect::<Result<Vec<_>>>()?;
    addresses.extend(any(
        input.secondary_private_ip_address_count,
        "secondaryPrivateIpAddressCount",
        !addresses.is_empty(),
    )?);
    let prefixes: Vec<_> = input.ipv4_prefixes.iter().map(|text| Some(text.as_str())).collect();
    let prefixes = wanted_prefixes(&prefixes, input.ipv4_prefix_count)?;
    let asked = Asked { addresses, prefixes, unsaid: false, ipv6: AskedIpv6::default() }.checked()?;
    if asked.count() == 0 {
        return Err(Error::missing_parameter("secondaryPrivateIpAddressCount or privateIpAddress"));
    }
    let may_move = input.allow_reassignment.unwrap_or(false);
    let (addresses, prefixes) = context
        .transact(|tx| {
            let mut interface = super::with_addresses(tx, id)?;
            let subnet = subnet::depend(tx, &interface.subnet_id)?;
            let max =
                attach::limits(tx.tables(), &interface).map_or(usize::MAX, |limits| limits.ipv4_addresses);
            let count = interface.addresses.len() + interface.prefixes.len() + asked.count();
            check_count(count, max.min(ADDRESSES_MAX))?;
            if may_move {
                for address in asked.addresses.iter().flatten() {
                    take_from_another(tx, &interface, *address)?;
                }
            }
            let (addresses, prefixes, _) = asked.claim(tx, &subnet, &interface.interface_id)?;
            interface.addresses.extend(addresses.iter().cloned());
            interface.prefixes = interface.prefixes.iter().chain(&prefixes).copied().collect();
            tx.put(&interface);
            Ok((addresses, prefixes))
        })
        .await?;
    let address = |own: &PrivateAddress| ec2::AssignedPrivateIpAddress {
        private_ip_address: Some(own.private_ip.to_string()),
    };
    Ok(ec2::AssignPrivateIpAddressesResult {
        network_interface_id: Some(id.to_owned()),
        assigned_private_ip_addresses: addresses.iter().map(address).collect(),
        assigned_ipv4_prefixes: prefixes_to_api(&prefixes),
    })
}

pub fn prefixes_to_api(prefixes: &[Ipv4Net]) -> Vec<ec2::Ipv4PrefixSpecification> {
    let shown = |prefix: &Ipv4Net| ec2::Ipv4PrefixSpecification { ipv4_prefix: Some(prefix.to_string()) };
    prefixes.iter().map(shown).collect()
}

/// A secondary address may leave another interface of the subnet for this one.
fn take_from_another(tx: &mut Tx<'_>, interface: &NetworkInterface, address: Ipv4Addr) -> Result<()> {
    let text = address.to_string();
    let mut holders = tx.tables().network_interfaces.with("private-ip-address", &text);
    let holder = holders
        .find(|other| other.subnet_id == interface.subnet_id && other.interface_id != interface.interface_id);
    let Some(holder_id) = holder.map(|holder| holder.interface_id.clone()) else { return Ok(()) };
    let mut holder = super::own(tx, &holder_id)?;
    remove(tx, &mut holder, address)?;
    tx.put(&holder);
    Ok(())
}

pub async fn unassign_private_ip_addresses(
    context: &Context,
    input: ec2::UnassignPrivateIpAddressesRequest,
) -> Result<()> {
    let id = input.network_interface_id.as_deref().unwrap_or_default();
    let addresses: Vec<_> =
        input.private_ip_addresses.iter().map(|text| parse(text)).collect::<Result<_>>()?;
    let prefixes: Vec<_> =
        input.ipv4_prefixes.iter().map(|text| parse_prefix(text)).collect::<Result<_>>()?;
    if addresses.is_empty() && prefixes.is_empty() {
        return Err(Error::missing_parameter("privateIpAddress"));
    }
    context
        .transact(|tx| {
            let mut interface = super::own(tx, id)?;
            for address in &addresses {
                remove(tx, &mut interface, *address)?;
            }
            for prefix in &prefixes {
                if !interface.prefixes.contains(prefix) {
                    return Err(not_assigned(&prefix.to_string(), &interface.interface_id));
                }
                interface.prefixes =
                    interface.prefixes.iter().filter(|own| *own != prefix).copied().collect();
                release_prefix(tx, &interface.subnet_id, *prefix);
            }
            tx.put(&interface);
            Ok(())
        })
        .await
}

/// Takes a secondary address away, and what it is outside with it.
pub fn remove(
    tx: &mut Tx<'_>,
    interface: &mut NetworkInterface,
    address: Ipv4Addr,
) -> Result<PrivateAddress> {
    match interface.addresses.iter().position(|own| own.private_ip == address) {
        None => Err(not_assigned(&address.to_string(), &interface.interface_id)),
        Some(0) => Err(Error::invalid_parameter_value(format!(
            "The address {address} is the primary one of {} and can't be unassigned",
            interface.interface_id
        ))),
        Some(at) => {
            let own = interface.addresses.remove(at);
            interface.let_go(tx, &own);
            tx.release(&Subnet::claim_scope(&interface.subnet_id), &address.to_string());
            Ok(own)
        }
    }
}

pub(super) fn not_assigned(what: &str, interface_id: &Id) -> Error {
    Error::invalid_parameter_value(format!("Some of {what} are not assigned to interface {interface_id}"))
}

pub fn release_prefix(tx: &mut Tx<'_>, subnet_id: &Id, prefix: Ipv4Net) {
    for address in subnet::addresses(prefix) {
        tx.release(&Subnet::claim_scope(subnet_id), &address.to_string());
    }
}
