//! ModifyNetworkInterfaceAttribute, ResetNetworkInterfaceAttribute.

use super::{InterfaceAttachment, NetworkInterface, groups, queues, tracking};
use crate::engine::Tx;
use crate::engine::unsupported::refuse;
use crate::instance::Instance;
use crate::{Context, description, instance_type};
use aws_api::ec2;
use model::{Error, Id, InstanceState, Kind, Result};

/// What one call changes: EC2 takes one attribute at a time.
enum Change<'a> {
    Description(&'a str),
    SourceDestCheck(bool),
    Groups(&'a [String]),
    DeleteOnTermination {
        attachment_id: Id,
        value: bool,
    },
    /// As many as the type gives where None.
    EnaQueues {
        attachment_id: Id,
        count: Option<u16>,
    },
    AssociatePublicIpAddress(bool),
    Tracking(&'a ec2::ConnectionTrackingSpecificationRequest),
    EnablePrimaryIpv6(bool),
}

pub async fn modify_network_interface_attribute(
    context: &Context,
    input: ec2::ModifyNetworkInterfaceAttributeRequest,
) -> Result<()> {
    refuse([
        (input.ena_srd_specification.is_some(), "ENA Express is"),
        (!input.associated_subnet_ids.is_empty(), "Further subnets of an interface are"),
    ])?;
    let id = input.network_interface_id.as_deref().unwrap_or_default();
    let change = change(&input)?;
    context
        .transact(|tx| {
            let mut interface = super::own(tx, id)?;
            match &change {
                Change::Description(text) => interface.description = (*text).into(),
                Change::SourceDestCheck(value) => interface.source_dest_check = *value,
                Change::Groups(ids) => {
                    interface.security_groups = groups::resolve(tx.tables(), &interface.vpc_id, ids, &[])?;
                    groups::depend(tx, &interface.security_groups)?;
                }
                Change::DeleteOnTermination { attachment_id, value } => {
                    attachment_of(&mut interface, attachment_id)?.delete_on_termination = *value;
                }
                Change::EnaQueues { attachment_id, count } => {
                    set_queues(tx, attachment_of(&mut interface, attachment_id)?, *count)?;
                }
                Change::AssociatePublicIpAddress(value) => interface.wants_public_ip = *value,
                Change::Tracking(asked) => {
                    interface.tracking = tracking::asked(interface.tracking, Some(asked))?;
                }
                Change::EnablePrimaryIpv6(true) => interface.ipv6.set_primary()?,
                Change::EnablePrimaryIpv6(false) if interface.ipv6.has_primary => {
                    return Err(Error::new(
                        "OperationNotPermitted",
                        "A primary IPv6 address can't be disabled once it is enabled.",
                    ));
                }
                Change::EnablePrimaryIpv6(false) => {}
            }
            tx.put(&interface);
            Ok(())
        })
        .await
}

fn change(input: &ec2::ModifyNetworkInterfaceAttributeRequest) -> Result<Change<'_>> {
    let mut found = Vec::new();
    if let Some(wanted) = &input.description {
        let text = wanted.value.as_deref().unwrap_or_default();
        description::check(text)?;
        found.push(Change::Description(text));
    }
    if let Some(wanted) = &input.source_dest_check {
        found.push(Change::SourceDestCheck(wanted.value.ok_or_else(|| Error::missing_parameter("value"))?));
    }
    if !input.groups.is_empty() {
        found.push(Change::Groups(&input.groups));
    }
    if let Some(wanted) = &input.attachment {
        let id = wanted.attachment_id.as_deref().ok_or_else(|| Error::missing_parameter("attachmentId"))?;
        let id = || Id::parse(Kind::NetworkInterfaceAttachment, id);
        let before = found.len();
        if let Some(value) = wanted.delete_on_termination {
            found.push(Change::DeleteOnTermination { attachment_id: id()?, value });
        }
        if let Some(count) = queues::asked(wanted.ena_queue_count)? {
            found.push(Change::EnaQueues { attachment_id: id()?, count: Some(count) });
        }
        if wanted.default_ena_queue_count == Some(true) {
            found.push(Change::EnaQueues { attachment_id: id()?, count: None });
        }
        if found.len() == before {
            return Err(Error::missing_parameter("deleteOnTermination"));
        }
    }
    found.extend(input.associate_public_ip_address.map(Change::AssociatePublicIpAddress));
    found.extend(input.connection_tracking_specification.as_ref().map(Change::Tracking));
    found.extend(input.enable_primary_ipv6.map(Change::EnablePrimaryIpv6));
    match (found.pop(), found.is_empty()) {
        (Some(change), true) => Ok(change),
        (Some(_), false) => Err(Error::invalid_parameter_combination(
            "Fields for multiple attribute types specified; only one attribute can be modified at a time",
        )),
        (None, _) => Err(Error::invalid_parameter_combination("No attributes specified")),
    }
}

fn attachment_of<'i>(
    interface: &'i mut NetworkInterface,
    attachment_id: &Id,
) -> Result<&'i mut InterfaceAttachment> {
    let attachment = interface.attachment.as_mut().filter(|one| one.attachment_id == *attachment_id);
    attachment.ok_or_else(|| Id::not_found(Kind::NetworkInterfaceAttachment, attachment_id))
}

/// A machine has as many for as long as it runs.
fn set_queues(tx: &mut Tx<'_>, attachment: &mut InterfaceAttachment, count: Option<u16>) -> Result<()> {
    let id = &attachment.instance_id;
    let instance = tx.get::<Instance>(id).ok_or_else(|| Id::not_found(Kind::Instance, id))?;
    if instance.state != InstanceState::Stopped {
        return Err(Error::new(
            "IncorrectInstanceState",
            format!("The instance '{id}' is not in the 'stopped' state."),
        ));
    }
    let mut asked = queues::of_instance(tx.tables(), &instance);
    let place = attachment.place();
    asked.retain(|(other, _)| *other != place);
    asked.push((place, count));
    let limits = instance_type::performance(tx.tables(), &instance.instance_type).interfaces;
    queues::check(&asked, &instance.instance_type, &limits)?;
    attachment.ena_queues = count;
    Ok(())
}

/// Only `sourceDestCheck` has a default to go back to.
pub async fn reset_network_interface_attribute(
    context: &Context,
    input: ec2::ResetNetworkInterfaceAttributeRequest,
) -> Result<()> {
    let id = input.network_interface_id.as_deref().unwrap_or_default();
    if input.source_dest_check.is_none() {
        return Err(Error::missing_parameter("sourceDestCheck"));
    }
    context
        .transact(|tx| {
            let mut interface = super::own(tx, id)?;
            interface.source_dest_check = true;
            tx.put(&interface);
            Ok(())
        })
        .await
}
