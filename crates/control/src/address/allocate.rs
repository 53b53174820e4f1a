//! AllocateAddress, ReleaseAddress.

use super::Address;
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::{Context, public_address, public_pool};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::net::Ipv4Addr;

pub async fn allocate_address(
    context: &Context,
    input: ec2::AllocateAddressRequest,
) -> Result<ec2::AllocateAddressResult> {
    refuse([
        (given(&input.customer_owned_ipv4_pool), "Outposts are"),
        (given(&input.ipam_pool_id), "IPAM pools are"),
    ])?;
    let named = input.public_ipv4_pool.as_deref().filter(|pool| !pool.is_empty() && *pool != "amazon");
    let named = named.map(public_pool::parse).transpose()?;
    if let Some(domain) = input.domain.as_deref().filter(|domain| *domain != "vpc") {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({domain}) for parameter domain is invalid."
        )));
    }
    let group = context.region.view.region.to_string();
    if let Some(other) = input.network_border_group.as_deref().filter(|other| *other != group) {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({other}) for parameter networkBorderGroup is invalid."
        )));
    }
    let wanted = input.address.as_deref().map(parse).transpose()?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::ElasticIp])?;
    let builtin = context.options.public_pool;
    let made = context
        .transact(|tx| {
            let allocation_id = tx.new_id(Kind::ElasticIp);
            let address = Address {
                public_ip: match (&named, wanted) {
                    (Some(named), wanted) => public_address::claim_in(tx, named, wanted, &allocation_id)?,
                    (None, Some(wanted)) => {
                        public_address::recover(tx, builtin, wanted, context.account(), &allocation_id)?
                    }
                    (None, None) => public_address::claim(tx, builtin, &allocation_id)?,
                },
                allocation_id,
                owner: context.account().clone(),
                association: None,
                reverse_name: None,
                transfer: None,
                tags: tags.of(Kind::ElasticIp),
            };
            tx.create(&address);
            Ok(address)
        })
        .await?;
    Ok(ec2::AllocateAddressResult {
        allocation_id: Some(made.allocation_id.to_string()),
        public_ip: Some(made.public_ip.to_string()),
        public_ipv4_pool: Some(public_pool::name_of(&context.tables(), made.public_ip)),
        network_border_group: Some(group),
        domain: Some("vpc".into()),
        ..Default::default()
    })
}

pub async fn release_address(context: &Context, input: ec2::ReleaseAddressRequest) -> Result<()> {
    context
        .transact(|tx| {
            let id = named(tx.tables(), input.allocation_id.as_deref(), input.public_ip.as_deref())?;
            let address = tx.get::<Address>(&id).ok_or_else(|| Id::not_found(Kind::ElasticIp, &id))?;
            if let Some(other) =
                input.network_border_group.as_deref().filter(|other| *other != tx.region().as_str())
            {
                let message = format!(
                    "The address with allocation id [{id}] is not in the network border group {other}."
                );
                return Err(Error::new("InvalidAddress.NotFound", message));
            }
            if address.association.is_some() {
                let message = format!("The address with allocation id [{id}] is in use.");
                return Err(Error::new("InvalidIPAddress.InUse", message));
            }
            tx.delete::<Address>(&id);
            public_address::release(tx, address.public_ip, Some(&address.owner));
            Ok(())
        })
        .await
}

/// The address that a request means.
pub fn named(tables: &crate::engine::Tables, id: Option<&str>, public_ip: Option<&str>) -> Result<Id> {
    match (id.filter(|id| !id.is_empty()), public_ip.filter(|ip| !ip.is_empty())) {
        (Some(_), Some(_)) => Err(Error::invalid_parameter_combination(
            "You may specify public IP or allocation id, but not both in the same call",
        )),
        (Some(id), None) => Id::parse(Kind::ElasticIp, id),
        (None, Some(ip)) => {
            parse(ip)?;
            let found = tables.addresses.with("public-ip", ip).next();
            found
                .map(|address| address.allocation_id.clone())
                .ok_or_else(|| Error::new("InvalidAddress.NotFound", format!("Address '{ip}' not found.")))
        }
        (None, None) => Err(Error::missing_parameter("AllocationId")),
    }
}

fn parse(text: &str) -> Result<Ipv4Addr> {
    text.parse().map_err(|_| {
        Error::invalid_parameter_value(format!("Value ({text}) for parameter address is invalid."))
    })
}
