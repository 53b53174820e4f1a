//! What an interface has of IPv6: what is asked for when it is made, AssignIpv6Addresses, UnassignIpv6Addresses.

use super::{NetworkInterface, address, attach};
use crate::Context;
use crate::engine::Tx;
use crate::subnet::{self, Subnet, ipv6_block};
use aws_api::ec2;
use ipnet::Ipv6Net;
use model::{Error, Id, Result};
use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;

/// The addresses and prefixes of an interface, each in the order in which it got them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ipv6 {
    pub addresses: Box<[Ipv6Addr]>,
    /// Of /80, delegated to it.
    pub prefixes: Box<[Ipv6Net]>,
    /// Whether the first address is the primary one, which stays for as long as the interface is attached.
    pub has_primary: bool,
}

impl Ipv6 {
    /// How much of what its instance's type allows.
    pub fn count(&self) -> usize {
        self.addresses.len() + self.prefixes.len()
    }

    /// Each with whether it is the primary one.
    pub fn addresses(&self) -> impl Iterator<Item = (Ipv6Addr, bool)> {
        let is_primary = |at: usize| self.has_primary && at == 0;
        self.addresses.iter().enumerate().map(move |(at, address)| (*address, is_primary(at)))
    }

    pub fn set_primary(&mut self) -> Result<()> {
        self.has_primary = true;
        match self.addresses.is_empty() {
            false => Ok(()),
            true => Err(Error::invalid_parameter_combination(
                "A network interface without IPv6 addresses can't have a primary one.",
            )),
        }
    }

    pub fn release(&self, tx: &mut Tx<'_>, subnet_id: &Id) {
        self.addresses.iter().for_each(|address| ipv6_block::release_address(tx, subnet_id, *address));
        self.prefixes.iter().for_each(|prefix| ipv6_block::release_prefix(tx, subnet_id, *prefix));
    }
}

/// What is wanted; None is any that is free.
#[derive(Default)]
pub struct AskedIpv6 {
    addresses: Vec<Option<Ipv6Addr>>,
    prefixes: Vec<Option<Ipv6Net>>,
    /// Nothing is said of it: the subnet decides.
    by_subnet: bool,
    primary: bool,
}

impl AskedIpv6 {
    /// For a new interface. Either addresses or prefixes, one by one or by their number; none but by a number of zero.
    pub fn new(
        addresses: &[ec2::InstanceIpv6Address],
        address_count: Option<i32>,
        prefixes: &[ec2::Ipv6PrefixSpecificationRequest],
        prefix_count: Option<i32>,
        primary: Option<bool>,
    ) -> Result<AskedIpv6> {
        let texts = addresses.iter().map(|one| one.ipv6_address.as_deref().unwrap_or_default());
        let nets = prefixes.iter().map(|one| one.ipv6_prefix.as_deref().unwrap_or_default());
        let some = |count: Option<i32>| count.filter(|count| *count != 0);
        let mut asked = AskedIpv6::listed(texts, some(address_count), nets, some(prefix_count))?;
        if !asked.addresses.is_empty() && !asked.prefixes.is_empty() {
            return Err(Error::invalid_parameter_combination(
                "IPv6 addresses and IPv6 prefixes may not be specified on the same request",
            ));
        }
        asked.by_subnet = asked.count() == 0 && address_count.is_none();
        asked.primary = primary.unwrap_or(false);
        Ok(asked)
    }

    fn listed<'i>(
        addresses: impl Iterator<Item = &'i str>,
        address_count: Option<i32>,
        prefixes: impl Iterator<Item = &'i str>,
        prefix_count: Option<i32>,
    ) -> Result<AskedIpv6> {
        let mut addresses = addresses.map(|text| parse(text).map(Some)).collect::<Result<Vec<_>>>()?;
        let mut prefixes = prefixes.map(|text| parse_prefix(text).map(Some)).collect::<Result<Vec<_>>>()?;
        addresses.extend(address::any(address_count, "ipv6AddressCount", !addresses.is_empty())?);
        prefixes.extend(address::any(prefix_count, "ipv6PrefixCount", !prefixes.is_empty())?);
        let asked = AskedIpv6 { addresses, prefixes, ..AskedIpv6::default() };
        address::check_count(asked.count(), address::ADDRESSES_MAX)?;
        Ok(asked)
    }

    /// Whether it names what only one interface can have.
    pub fn is_particular(&self) -> bool {
        self.addresses.iter().any(Option::is_some) || self.prefixes.iter().any(Option::is_some)
    }

    pub(super) fn count(&self) -> usize {
        self.addresses.len() + self.prefixes.len()
    }

    /// Takes them all of the subnet.
    pub fn claim(&self, tx: &mut Tx<'_>, subnet: &Subnet, interface_id: &Id) -> Result<Ipv6> {
        let own: &[_] =
            if self.by_subnet && subnet.assign_ipv6_on_creation { &[None] } else { &self.addresses };
        let addresses = own.iter().map(|one| ipv6_block::claim_address(tx, subnet, *one, interface_id));
        let addresses = addresses.collect::<Result<_>>()?;
        let prefixes =
            self.prefixes.iter().map(|one| ipv6_block::claim_prefix(tx, subnet, *one, interface_id));
        let mut claimed = Ipv6 { addresses, prefixes: prefixes.collect::<Result<_>>()?, has_primary: false };
        if self.primary {
            claimed.set_primary()?;
        }
        Ok(claimed)
    }
}

fn parse(text: &str) -> Result<Ipv6Addr> {
    text.parse().map_err(|_| {
        Error::invalid_parameter_value(format!(
            "Value ({text}) for parameter ipv6Address is invalid. Invalid IPv6 address."
        ))
    })
}

fn parse_prefix(text: &str) -> Result<Ipv6Net> {
    let is_one = |net: &Ipv6Net| net.prefix_len() == ipv6_block::PREFIX_LEN && net.trunc() == *net;
    text.parse().ok().filter(is_one).ok_or_else(|| {
        Error::invalid_parameter_value(format!(
            "Value ({text}) for parameter ipv6Prefix is invalid. It must be an IPv6 network of /80."
        ))
    })
}

pub async fn assign_ipv6_addresses(
    context: &Context,
    input: ec2::AssignIpv6AddressesRequest,
) -> Result<ec2::AssignIpv6AddressesResult> {
    let id = input.network_interface_id.as_deref().unwrap_or_default();
    let asked = AskedIpv6::listed(
        input.ipv6_addresses.iter().map(String::as_str),
        input.ipv6_address_count,
        input.ipv6_prefixes.iter().map(String::as_str),
        input.ipv6_prefix_count,
    )?;
    if asked.count() == 0 {
        return Err(Error::missing_parameter("ipv6AddressCount or ipv6Addresses"));
    }
    let added = context
        .transact(|tx| {
            let mut interface = super::with_addresses(tx, id)?;
            let subnet = subnet::depend(tx, &interface.subnet_id)?;
            let max =
                attach::limits(tx.tables(), &interface).map_or(usize::MAX, |limits| limits.ipv6_addresses);
            address::check_count(interface.ipv6.count() + asked.count(), max.min(address::ADDRESSES_MAX))?;
            let added = asked.claim(tx, &subnet, &interface.interface_id)?;
            let own = &mut interface.ipv6;
            own.addresses = own.addresses.iter().chain(&added.addresses).copied().collect();
            own.prefixes = own.prefixes.iter().chain(&added.prefixes).copied().collect();
            tx.put(&interface);
            Ok(added)
        })
        .await?;
    Ok(ec2::AssignIpv6AddressesResult {
        network_interface_id: Some(id.to_owned()),
        assigned_ipv6_addresses: added.addresses.iter().map(Ipv6Addr::to_string).collect(),
        assigned_ipv6_prefixes: added.prefixes.iter().map(Ipv6Net::to_string).collect(),
    })
}

pub async fn unassign_ipv6_addresses(
    context: &Context,
    input: ec2::UnassignIpv6AddressesRequest,
) -> Result<ec2::UnassignIpv6AddressesResult> {
    let id = input.network_interface_id.as_deref().unwrap_or_default();
    let addresses: Vec<_> = input.ipv6_addresses.iter().map(|text| parse(text)).collect::<Result<_>>()?;
    let prefixes: Vec<_> =
        input.ipv6_prefixes.iter().map(|text| parse_prefix(text)).collect::<Result<_>>()?;
    if addresses.is_empty() && prefixes.is_empty() {
        return Err(Error::missing_parameter("ipv6Addresses"));
    }
    context
        .transact(|tx| {
            let mut interface = super::own(tx, id)?;
            let gone = Ipv6 {
                addresses: addresses.iter().copied().collect(),
                prefixes: prefixes.iter().copied().collect(),
                has_primary: false,
            };
            remove(&mut interface, &gone)?;
            gone.release(tx, &interface.subnet_id);
            tx.put(&interface);
            Ok(())
        })
        .await?;
    Ok(ec2::UnassignIpv6AddressesResult {
        network_interface_id: Some(id.to_owned()),
        unassigned_ipv6_addresses: addresses.iter().map(Ipv6Addr::to_string).collect(),
        unassigned_ipv6_prefixes: prefixes.iter().map(Ipv6Net::to_string).collect(),
    })
}

fn remove(interface: &mut NetworkInterface, gone: &Ipv6) -> Result<()> {
    let own = &interface.ipv6;
    let foreign = gone.addresses.iter().find(|one| !own.addresses.contains(one)).map(Ipv6Addr::to_string);
    let foreign_prefix = gone.prefixes.iter().find(|one| !own.prefixes.contains(one)).map(Ipv6Net::to_string);
    if let Some(what) = foreign.or(foreign_prefix) {
        return Err(address::not_assigned(&what, &interface.interface_id));
    }
    if own.addresses().any(|(address, is_primary)| is_primary && gone.addresses.contains(&address)) {
        return Err(Error::new(
            "OperationNotPermitted",
            format!("The primary IPv6 address of {} can't be unassigned.", interface.interface_id),
        ));
    }
    let kept = own.addresses.iter().filter(|one| !gone.addresses.contains(one)).copied().collect();
    let kept_prefixes = own.prefixes.iter().filter(|one| !gone.prefixes.contains(one)).copied().collect();
    interface.ipv6 = Ipv6 { addresses: kept, prefixes: kept_prefixes, has_primary: own.has_primary };
    Ok(())
}
