//! CreateNatGateway, DeleteNatGateway.

use super::{NatGateway, describe, not_found};
use crate::engine::tags::Specified;
use crate::engine::unsupported::refuse;
use crate::engine::{Tx, quota};
use crate::network_interface::{Asked, NetworkInterface, Purpose};
use crate::subnet::{self, Subnet};
use crate::{Context, address};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Addresses of one gateway (VPC User Guide, "Amazon VPC quotas": 8 private ones).
pub const ADDRESSES_MAX: usize = 8;

/// A checked request.
struct Wanted {
    /// One for each private address of a public gateway.
    allocations: Vec<Id>,
    /// None is any that is free.
    private: Vec<Option<Ipv4Addr>>,
}

pub async fn create_nat_gateway(
    context: &Context,
    input: ec2::CreateNatGatewayRequest,
) -> Result<ec2::CreateNatGatewayResult> {
    let regional = input.availability_mode.as_deref() == Some("regional");
    refuse_regional(regional || !input.availability_zone_addresses.is_empty())?;
    if input.vpc_id.is_some() {
        return Err(Error::invalid_parameter_combination(
            "A VPC is given for a regional NAT gateway; a zonal one is in that of its subnet",
        ));
    }
    let subnet_id = input.subnet_id.as_deref().ok_or_else(|| Error::missing_parameter("subnetId"))?;
    let is_public = match input.connectivity_type.as_deref().unwrap_or("public") {
        "public" => true,
        "private" => false,
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter connectivityType is invalid."
            )));
        }
    };
    let wanted = wanted(&input, is_public)?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::NatGateway])?;
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            tx.quotas().check_within(quota::ELASTIC_IPS_PER_NAT_GATEWAY, wanted.allocations.len())?;
            let subnet = subnet::depend(tx, subnet_id)?;
            let nat_gateway_id = tx.new_id(Kind::NatGateway);
            let interface = make_interface(tx, &nat_gateway_id, &subnet, &wanted)?;
            tx.create(&interface);
            tx.create(&NatGateway {
                nat_gateway_id: nat_gateway_id.clone(),
                owner: context.account().clone(),
                vpc_id: subnet.vpc_id.clone(),
                subnet_id: subnet.subnet_id.clone(),
                interface_id: interface.interface_id,
                is_public,
                created_at: tx.now(),
                deleted_at: None,
                tags: tags.of(Kind::NatGateway),
            });
            idempotent.remember(tx, vec![nat_gateway_id.to_string()]);
            Ok(nat_gateway_id.to_string())
        })
        .await?;
    let tables = context.tables();
    let made = tables.nat_gateways.find(&id).ok_or_else(|| Id::not_found(Kind::NatGateway, &id))?;
    let shown = ec2::NatGateway { state: Some("pending".into()), ..describe::to_api(&tables, made) };
    Ok(ec2::CreateNatGatewayResult { client_token: input.client_token, nat_gateway: Some(shown) })
}

pub fn refuse_regional(asked: bool) -> Result<()> {
    refuse([(asked, "Regional NAT gateways are")])
}

/// Whether a gateway may have so many private addresses.
pub fn check_count(count: usize) -> Result<()> {
    if count > ADDRESSES_MAX {
        return Err(Error::new(
            "PrivateIpAddressLimitExceeded",
            format!("A NAT gateway can have {ADDRESSES_MAX} addresses at most."),
        ));
    }
    Ok(())
}

/// Elastic addresses, each once.
pub fn allocation_ids<'i>(listed: impl Iterator<Item = &'i str>) -> Result<Vec<Id>> {
    let ids: Vec<Id> = listed.map(|id| Id::parse(Kind::ElasticIp, id)).collect::<Result<_>>()?;
    if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
        return Err(Error::invalid_parameter_combination("An Elastic IP address can be given once only"));
    }
    Ok(ids)
}

fn wanted(input: &ec2::CreateNatGatewayRequest, is_public: bool) -> Result<Wanted> {
    let combination = |message: &str| Err(Error::invalid_parameter_combination(message));
    let secondary = &input.secondary_allocation_ids;
    let allocations: Vec<&str> = input.allocation_id.iter().chain(secondary).map(String::as_str).collect();
    match (is_public, input.allocation_id.is_some()) {
        (true, false) => return Err(Error::missing_parameter("AllocationId")),
        (false, _) if !allocations.is_empty() => {
            return combination("A private NAT gateway can't have Elastic IP addresses");
        }
        _ => {}
    }
    let count = match input.secondary_private_ip_address_count {
        None => 0,
        Some(_) if is_public => {
            return combination("Secondary private addresses by their number are for private NAT gateways");
        }
        Some(_) if !input.secondary_private_ip_addresses.is_empty() => {
            return combination("Secondary private addresses are given either by their number or one by one");
        }
        Some(count) => usize::try_from(count)
            .ok()
            .filter(|count| (1..ADDRESSES_MAX).contains(count))
            .ok_or_else(|| {
                Error::invalid_parameter_value(format!(
                    "Value ({count}) for parameter secondaryPrivateIpAddressCount is invalid."
                ))
            })?,
    };
    let parse = |text: &String| {
        text.parse().map(Some).map_err(|_| {
            Error::invalid_parameter_value(format!(
                "Value ({text}) for parameter privateIpAddress is invalid."
            ))
        })
    };
    let primary = input.private_ip_address.as_ref().map(parse).transpose()?.flatten();
    let mut private = vec![primary];
    private.extend(input.secondary_private_ip_addresses.iter().map(parse).collect::<Result<Vec<_>>>()?);
    if is_public {
        if !input.secondary_private_ip_addresses.is_empty() && private.len() != allocations.len() {
            return combination("Each secondary private address needs an Elastic IP address");
        }
        private.resize(allocations.len(), None);
    } else {
        private.resize(private.len() + count, None);
    }
    check_count(private.len())?;
    Ok(Wanted { allocations: allocation_ids(allocations.into_iter())?, private })
}

fn make_interface(
    tx: &mut Tx<'_>,
    nat_gateway_id: &Id,
    subnet: &Subnet,
    wanted: &Wanted,
) -> Result<NetworkInterface> {
    let mut interface = NetworkInterface {
        description: format!("Interface for NAT Gateway {nat_gateway_id}").into(),
        purpose: Purpose::NatGateway,
        source_dest_check: false,
        ..NetworkInterface::new(tx, subnet, &Asked::of(&wanted.private))?
    };
    for (allocation_id, own) in wanted.allocations.iter().zip(&mut interface.addresses) {
        address::take(tx, allocation_id, &interface.interface_id, &subnet.vpc_id, own)?;
    }
    Ok(interface)
}

pub async fn delete_nat_gateway(
    context: &Context,
    input: ec2::DeleteNatGatewayRequest,
) -> Result<ec2::DeleteNatGatewayResult> {
    let id = Id::parse(Kind::NatGateway, input.nat_gateway_id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let gateway = tx.get::<NatGateway>(&id).ok_or_else(|| not_found(&id))?;
            if gateway.deleted_at.is_some() {
                return Ok(());
            }
            if let Some(interface) = tx.get::<NetworkInterface>(&gateway.interface_id) {
                interface.delete(tx);
            }
            tx.put(&NatGateway { deleted_at: Some(tx.now()), ..(*gateway).clone() });
            Ok(())
        })
        .await?;
    Ok(ec2::DeleteNatGatewayResult { nat_gateway_id: Some(id.to_string()) })
}
