//! AssociateAddress, DisassociateAddress.

use super::allocate::named;
use super::{Address, Association, disassociated, interface_of};
use crate::engine::{Tables, Tx};
use crate::instance::Instance;
use crate::network_interface::{Elastic, NetworkInterface, PrivateAddress, PublicAddress};
use crate::{Context, internet_gateway, public_address};
use aws_api::ec2;
use ipnet::Ipv4Net;
use model::{Error, Id, InstanceState, Kind, Result};
use std::net::Ipv4Addr;
use std::sync::Arc;

pub async fn associate_address(
    context: &Context,
    input: ec2::AssociateAddressRequest,
) -> Result<ec2::AssociateAddressResult> {
    let wanted: Option<Ipv4Addr> = input
        .private_ip_address
        .as_deref()
        .map(|text| {
            text.parse().map_err(|_| {
                Error::invalid_parameter_value(format!(
                    "Value ({text}) for parameter privateIpAddress is invalid."
                ))
            })
        })
        .transpose()?;
    let may_move = input.allow_reassociation.unwrap_or(true);
    let pool = context.options.public_pool;
    let association_id = context
        .transact(|tx| {
            let id = named(tx.tables(), input.allocation_id.as_deref(), input.public_ip.as_deref())?;
            let interface_id =
                target(tx.tables(), input.instance_id.as_deref(), input.network_interface_id.as_deref())?;
            let interface = tx
                .get::<NetworkInterface>(&interface_id)
                .ok_or_else(|| Id::not_found(Kind::NetworkInterface, &interface_id))?;
            if interface.is_managed() {
                return Err(Error::new(
                    "OperationNotPermitted",
                    format!("The network interface '{interface_id}' is managed by a service."),
                ));
            }
            associate(tx, &id, &interface, wanted, may_move, pool)
        })
        .await?;
    Ok(ec2::AssociateAddressResult { association_id: Some(association_id.to_string()) })
}

/// The interface that a request means.
fn target(tables: &Tables, instance_id: Option<&str>, interface_id: Option<&str>) -> Result<Id> {
    match (instance_id.filter(|id| !id.is_empty()), interface_id.filter(|id| !id.is_empty())) {
        (Some(_), Some(_)) => Err(Error::invalid_parameter_combination(
            "You may not specify an instance and a network interface in the same call",
        )),
        (None, Some(id)) => Id::parse(Kind::NetworkInterface, id),
        (Some(id), None) => {
            let id = Id::parse(Kind::Instance, id)?;
            let instance = tables.instances.find(&id).ok_or_else(|| Id::not_found(Kind::Instance, &id))?;
            if !matches!(
                instance.state,
                InstanceState::Pending
                    | InstanceState::Running
                    | InstanceState::Stopping
                    | InstanceState::Stopped
            ) {
                return Err(Error::new(
                    "IncorrectInstanceState",
                    format!("The instance '{id}' is not in a valid state for this operation."),
                ));
            }
            match instance.interfaces.as_slice() {
                [only] => Ok(only.clone()),
                [] => Err(Id::not_found(Kind::Instance, &id)),
                _ => Err(Error::new(
                    "InvalidInstanceID",
                    format!(
                        "There are multiple interfaces attached to instance '{id}'. Please specify an interface ID for the operation instead."
                    ),
                )),
            }
        }
        (None, None) => Err(Error::missing_parameter("InstanceId or NetworkInterfaceId")),
    }
}

/// Gives an address to an interface's private one, the primary where none is named. Both had others before: what the
/// address was of has it no more, and what the interface had is free again.
fn associate(
    tx: &mut Tx<'_>,
    allocation_id: &Id,
    interface: &NetworkInterface,
    private_ip: Option<Ipv4Addr>,
    may_move: bool,
    pool: Ipv4Net,
) -> Result<Id> {
    let address = find(tx, allocation_id)?;
    let interface_id = &interface.interface_id;
    check_gateway(tx.tables(), &interface.vpc_id)?;
    let wanted = private_ip.or_else(|| interface.private_ip()).ok_or_else(|| {
        Error::invalid_parameter_value(format!("{interface_id} has no private IPv4 address"))
    })?;
    let at = interface.addresses.iter().position(|own| own.private_ip == wanted).ok_or_else(|| {
        Error::invalid_parameter_value(format!("{wanted} is not a private address of {interface_id}"))
    })?;
    if let Some(before) = &address.association {
        if before.interface_id == *interface_id && before.private_ip == wanted {
            return Ok(before.association_id.clone());
        }
        if !may_move {
            return Err(already(allocation_id, &before.association_id));
        }
        check_unmanaged(tx, &address)?;
    }
    let had = interface.addresses[at].elastic().cloned();
    if let Some(elastic) = had.as_ref().filter(|_| !may_move) {
        return Err(already(interface_id, &elastic.association_id));
    }
    // Both may be of one interface.
    let mut interface = match &address.association {
        Some(before) if before.interface_id == *interface_id => without(interface, &before.association_id),
        _ => {
            leave(tx, &address, pool)?;
            interface.clone()
        }
    };
    let own = &mut interface.addresses[at];
    match (had, own.public.take()) {
        (Some(elastic), _) => disassociated(tx, &elastic),
        (None, Some(assigned)) => public_address::release(tx, assigned.ip, None),
        (None, None) => {}
    }
    let association_id = bind(tx, &address, interface_id, own);
    tx.put(&interface);
    Ok(association_id)
}

/// Gives an address that is free to an interface that is being made.
pub fn take(
    tx: &mut Tx<'_>,
    allocation_id: &Id,
    interface_id: &Id,
    vpc_id: &Id,
    own: &mut PrivateAddress,
) -> Result<()> {
    let address = find(tx, allocation_id)?;
    check_gateway(tx.tables(), vpc_id)?;
    if let Some(association) = &address.association {
        return Err(already(allocation_id, &association.association_id));
    }
    bind(tx, &address, interface_id, own);
    Ok(())
}

fn bind(tx: &mut Tx<'_>, address: &Address, interface_id: &Id, own: &mut PrivateAddress) -> Id {
    let association_id = tx.new_id(Kind::ElasticIpAssociation);
    let elastic =
        Elastic { allocation_id: address.allocation_id.clone(), association_id: association_id.clone() };
    own.public = Some(PublicAddress { ip: address.public_ip, elastic: Some(elastic.into()) });
    let association = Association {
        association_id: association_id.clone(),
        interface_id: interface_id.clone(),
        private_ip: own.private_ip,
    };
    tx.put(&Address { association: Some(association), ..address.clone() });
    association_id
}

fn find(tx: &mut Tx<'_>, allocation_id: &Id) -> Result<Arc<Address>> {
    tx.get::<Address>(allocation_id).ok_or_else(|| Id::not_found(Kind::ElasticIp, allocation_id))
}

fn check_gateway(tables: &Tables, vpc_id: &Id) -> Result<()> {
    match internet_gateway::of_vpc(tables, vpc_id) {
        Some(_) => Ok(()),
        None => Err(Error::new(
            "Gateway.NotAttached",
            format!("Network {vpc_id} is not attached to any internet gateway"),
        )),
    }
}

/// A NAT gateway's address leaves it by the gateway's own operations only.
fn check_unmanaged(tx: &mut Tx<'_>, address: &Address) -> Result<()> {
    if interface_of(tx, address).is_some_and(|interface| interface.is_managed()) {
        return Err(Error::new(
            "OperationNotPermitted",
            format!("The address '{}' is of an interface that a service manages.", address.public_ip),
        ));
    }
    Ok(())
}

fn already(id: &Id, association_id: &Id) -> Error {
    Error::new(
        "Resource.AlreadyAssociated",
        format!("resource {id} is already associated with associate-id {association_id}"),
    )
}

fn without(interface: &NetworkInterface, association_id: &Id) -> NetworkInterface {
    let mut interface = interface.clone();
    for own in &mut interface.addresses {
        if own.elastic().is_some_and(|elastic| elastic.association_id == *association_id) {
            own.public = None;
        }
    }
    interface
}

/// The interface that has the address loses it. One whose instance runs, and that shall have a public address, gets
/// another at once (EC2 User Guide, "Elastic IP address basics").
fn leave(tx: &mut Tx<'_>, address: &Address, pool: Ipv4Net) -> Result<()> {
    let (Some(interface), Some(association)) = (interface_of(tx, address), &address.association) else {
        return Ok(());
    };
    let mut interface = without(&interface, &association.association_id);
    let instance_id = interface.attachment.as_ref().map(|attachment| attachment.instance_id.clone());
    let instance = instance_id.and_then(|id| tx.get::<Instance>(&id));
    let runs = instance.is_some_and(|instance| {
        matches!(instance.state, InstanceState::Pending | InstanceState::Running)
            && instance.interfaces.len() == 1
    });
    if runs {
        interface.assign(tx, pool)?;
    }
    tx.put(&interface);
    Ok(())
}

pub async fn disassociate_address(context: &Context, input: ec2::DisassociateAddressRequest) -> Result<()> {
    let pool = context.options.public_pool;
    context
        .transact(|tx| {
            let id = match (input.association_id.as_deref(), input.public_ip.as_deref()) {
                (Some(association_id), None) => {
                    let association_id = Id::parse(Kind::ElasticIpAssociation, association_id)?;
                    let found = tx.tables().addresses.with("association-id", &association_id).next();
                    found
                        .map(|address| address.allocation_id.clone())
                        .ok_or_else(|| Id::not_found(Kind::ElasticIpAssociation, &association_id))?
                }
                (None, ip) => named(tx.tables(), None, ip)?,
                (Some(_), Some(_)) => {
                    return Err(Error::invalid_parameter_combination(
                        "You may specify public IP or association id, but not both in the same call",
                    ));
                }
            };
            let address = tx.get::<Address>(&id).ok_or_else(|| Id::not_found(Kind::ElasticIp, &id))?;
            check_unmanaged(tx, &address)?;
            if address.association.is_none() {
                return match input.association_id.is_some() {
                    true => Err(Id::not_found(Kind::ElasticIpAssociation, &id)),
                    false => Ok(()),
                };
            }
            leave(tx, &address, pool)?;
            tx.put(&Address { association: None, ..(*address).clone() });
            Ok(())
        })
        .await
}
