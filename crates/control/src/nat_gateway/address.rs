//! AssignPrivateNatGatewayAddress, UnassignPrivateNatGatewayAddress, AssociateNatGatewayAddress,
//! DisassociateNatGatewayAddress: the secondary addresses of a gateway, each with its share of the connections.
//!
//! What is taken away goes at once, and the connections over it with it: there is nobody to say when the last has ended, as
//! EC2 waits for, and the time that a request allows for that is a bound, not a wish.

use super::create::{self, ADDRESSES_MAX};
use super::{NatGateway, describe, not_found};
use crate::engine::{Tx, quota};
use crate::network_interface::address::{parse, remove};
use crate::network_interface::{Asked, NetworkInterface, PrivateAddress};
use crate::subnet;
use crate::{Context, address};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::net::Ipv4Addr;

/// Seconds that connections may be given to end (EC2 API Reference).
const DRAIN_SECONDS: std::ops::RangeInclusive<i32> = 1..=4000;

type Addresses = Vec<ec2::NatGatewayAddress>;

/// Changes a gateway's interface; `change` returns the addresses that it was about, and the answer shows them in `status`.
async fn change(
    context: &Context,
    id: Option<String>,
    is_public: bool,
    status: &str,
    change: impl Fn(&mut Tx<'_>, &mut NetworkInterface) -> Result<Vec<PrivateAddress>>,
) -> Result<(Option<String>, Addresses)> {
    let id = Id::parse(Kind::NatGateway, id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let gateway = tx.get::<NatGateway>(&id).filter(|gateway| gateway.deleted_at.is_none());
            let gateway = gateway.ok_or_else(|| not_found(&id))?;
            if gateway.is_public != is_public {
                let kind = if is_public { "public" } else { "private" };
                return Err(invalid(format!("The operation is for {kind} NAT gateways only; {id} is none")));
            }
            let interface = tx.get::<NetworkInterface>(&gateway.interface_id);
            let mut interface = (*interface.ok_or_else(|| not_found(&id))?).clone();
            let changed = change(tx, &mut interface)?;
            tx.put(&interface);
            let shown = changed.iter().map(|own| describe::address_to_api(&interface, own, status));
            Ok((Some(id.to_string()), shown.collect()))
        })
        .await
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new("InvalidParameter", message)
}

/// Claims further addresses of the gateway's subnet; None is any that is free.
fn claim(
    tx: &mut Tx<'_>,
    interface: &NetworkInterface,
    wanted: &[Option<Ipv4Addr>],
) -> Result<Vec<PrivateAddress>> {
    create::check_count(interface.addresses.len() + wanted.len())?;
    let subnet = subnet::depend(tx, &interface.subnet_id)?;
    let (claimed, ..) = Asked::of(wanted).claim(tx, &subnet, &interface.interface_id)?;
    Ok(claimed.into_vec())
}

fn parse_all(listed: &[String]) -> Result<Vec<Option<Ipv4Addr>>> {
    listed.iter().map(|text| parse(text).map(Some)).collect()
}

fn check_drain(seconds: Option<i32>) -> Result<()> {
    match seconds {
        Some(seconds) if !DRAIN_SECONDS.contains(&seconds) => Err(Error::invalid_parameter_value(format!(
            "Value ({seconds}) for parameter maxDrainDurationSeconds is invalid. It is between {} and {}.",
            DRAIN_SECONDS.start(),
            DRAIN_SECONDS.end()
        ))),
        _ => Ok(()),
    }
}

pub async fn assign_private_nat_gateway_address(
    context: &Context,
    input: ec2::AssignPrivateNatGatewayAddressRequest,
) -> Result<ec2::AssignPrivateNatGatewayAddressResult> {
    let wanted = match (input.private_ip_address_count, input.private_ip_addresses.is_empty()) {
        (None, false) => parse_all(&input.private_ip_addresses)?,
        (Some(count), true) => {
            let valid = usize::try_from(count).ok().filter(|count| (1..ADDRESSES_MAX).contains(count));
            let valid = valid.ok_or_else(|| {
                Error::invalid_parameter_value(format!(
                    "Value ({count}) for parameter privateIpAddressCount is invalid."
                ))
            })?;
            vec![None; valid]
        }
        (None, true) => return Err(Error::missing_parameter("PrivateIpAddress")),
        (Some(_), false) => {
            return Err(Error::invalid_parameter_combination(
                "Private addresses are given either by their number or one by one",
            ));
        }
    };
    let (nat_gateway_id, nat_gateway_addresses) =
        change(context, input.nat_gateway_id, false, "assigning", |tx, interface| {
            let claimed = claim(tx, interface, &wanted)?;
            interface.addresses.extend(claimed.iter().cloned());
            Ok(claimed)
        })
        .await?;
    Ok(ec2::AssignPrivateNatGatewayAddressResult { nat_gateway_id, nat_gateway_addresses })
}

pub async fn unassign_private_nat_gateway_address(
    context: &Context,
    input: ec2::UnassignPrivateNatGatewayAddressRequest,
) -> Result<ec2::UnassignPrivateNatGatewayAddressResult> {
    check_drain(input.max_drain_duration_seconds)?;
    let addresses: Vec<Ipv4Addr> =
        input.private_ip_addresses.iter().map(|text| parse(text)).collect::<Result<_>>()?;
    let (nat_gateway_id, nat_gateway_addresses) =
        change(context, input.nat_gateway_id, false, "unassigning", |tx, interface| {
            addresses.iter().map(|address| remove(tx, interface, *address)).collect()
        })
        .await?;
    Ok(ec2::UnassignPrivateNatGatewayAddressResult { nat_gateway_id, nat_gateway_addresses })
}

pub async fn associate_nat_gateway_address(
    context: &Context,
    input: ec2::AssociateNatGatewayAddressRequest,
) -> Result<ec2::AssociateNatGatewayAddressResult> {
    create::refuse_regional(input.availability_zone.is_some() || input.availability_zone_id.is_some())?;
    let allocations = create::allocation_ids(input.allocation_ids.iter().map(String::as_str))?;
    if allocations.is_empty() {
        return Err(Error::missing_parameter("AllocationId"));
    }
    let mut wanted = parse_all(&input.private_ip_addresses)?;
    if !wanted.is_empty() && wanted.len() != allocations.len() {
        return Err(Error::invalid_parameter_combination("Each private address needs an Elastic IP address"));
    }
    wanted.resize(allocations.len(), None);
    let (nat_gateway_id, nat_gateway_addresses) =
        change(context, input.nat_gateway_id, true, "associating", |tx, interface| {
            let count = interface.addresses.len() + allocations.len();
            tx.quotas().check_within(quota::ELASTIC_IPS_PER_NAT_GATEWAY, count)?;
            let mut claimed = claim(tx, interface, &wanted)?;
            for (allocation_id, own) in allocations.iter().zip(&mut claimed) {
                address::take(tx, allocation_id, &interface.interface_id, &interface.vpc_id, own)?;
            }
            interface.addresses.extend(claimed.iter().cloned());
            Ok(claimed)
        })
        .await?;
    Ok(ec2::AssociateNatGatewayAddressResult { nat_gateway_id, nat_gateway_addresses })
}

pub async fn disassociate_nat_gateway_address(
    context: &Context,
    input: ec2::DisassociateNatGatewayAddressRequest,
) -> Result<ec2::DisassociateNatGatewayAddressResult> {
    check_drain(input.max_drain_duration_seconds)?;
    let associations: Vec<Id> = input
        .association_ids
        .iter()
        .map(|id| Id::parse(Kind::ElasticIpAssociation, id))
        .collect::<Result<_>>()?;
    let (nat_gateway_id, nat_gateway_addresses) =
        change(context, input.nat_gateway_id, true, "disassociating", |tx, interface| {
            let mut removed = Vec::new();
            for id in &associations {
                let is_it = |own: &&PrivateAddress| own.elastic().is_some_and(|of| of.association_id == *id);
                let own = interface.addresses.iter().find(is_it);
                let own = own.ok_or_else(|| Id::not_found(Kind::ElasticIpAssociation, id))?;
                removed.push(remove(tx, interface, own.private_ip)?);
            }
            Ok(removed)
        })
        .await?;
    Ok(ec2::DisassociateNatGatewayAddressResult { nat_gateway_id, nat_gateway_addresses })
}
