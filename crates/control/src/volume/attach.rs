//! AttachVolume, DetachVolume, and what a host says of an instance's disks.

use super::{Condition, Volume, VolumeAttachment, describe, multi_attach, specification};
use crate::Context;
use crate::attachment::{AttachmentState, Outcome};
use crate::engine::{Tables, Tx};
use crate::instance::{Instance, InstanceDisk};
use crate::instance_type;
use agent_api::PlugState;
use aws_api::ec2;
use model::{Error, Id, InstanceState, Kind, Result};
use std::sync::Arc;

pub async fn attach_volume(
    context: &Context,
    input: ec2::AttachVolumeRequest,
) -> Result<ec2::VolumeAttachment> {
    let volume_id = Id::parse(Kind::Volume, input.volume_id.as_deref().unwrap_or_default())?;
    let instance_id = Id::parse(Kind::Instance, input.instance_id.as_deref().unwrap_or_default())?;
    let device_name = input.device.as_deref().ok_or_else(|| Error::missing_parameter("device"))?;
    specification::device_name(device_name)?;
    if input.ebs_card_index.unwrap_or(0) != 0 {
        return Err(Error::invalid_parameter_value(
            "The instance types of this cloud have one EBS card, with the index 0",
        ));
    }
    let simulate = context.options.simulate;
    context
        .transact(|tx| {
            let volume =
                tx.get::<Volume>(&volume_id).ok_or_else(|| Id::not_found(Kind::Volume, &volume_id))?;
            let before = tx
                .get::<Instance>(&instance_id)
                .ok_or_else(|| Id::not_found(Kind::Instance, &instance_id))?;
            let most = instance_type::volumes_max(tx.tables(), &before.instance_type);
            check(tx.tables(), &volume, &before, device_name, most)?;
            let mut volume = (*volume).clone();
            let mut instance = (*before).clone();
            if volume.host_id.as_ref() != Some(&instance.placement.host_id) {
                // Its data is where it is; only what a simulated host has can be made anew, where nobody has it.
                if !simulate || !volume.attachments.is_empty() {
                    return Err(Error::new(
                        "InsufficientVolumeCapacity",
                        format!(
                            "The volume '{volume_id}' is on another host than the instance '{instance_id}'."
                        ),
                    ));
                }
                volume.host_id = Some(instance.placement.host_id.clone());
                volume.condition = Condition::Creating;
            }
            let attachment = VolumeAttachment {
                instance_id: instance_id.clone(),
                device_name: device_name.into(),
                delete_on_termination: false,
                attached_at: tx.now(),
                state: AttachmentState::begin(instance.state == InstanceState::Running),
            };
            let answer = VolumeAttachment { state: AttachmentState::Attaching, ..attachment.clone() };
            volume.attachments.push(attachment);
            instance
                .disks
                .push(InstanceDisk { device_name: device_name.into(), volume_id: volume_id.clone() });
            tx.put(&volume);
            tx.put(&instance);
            Ok(describe::attachment_to_api(&volume, &answer))
        })
        .await
}

fn check(
    tables: &Tables,
    volume: &Volume,
    instance: &Instance,
    device_name: &str,
    most: usize,
) -> Result<()> {
    let own = volume.attachment_to(&instance.instance_id);
    let in_the_way = own.or(volume.attachments.first().filter(|_| !volume.multi_attach));
    if let Some(attachment) = in_the_way {
        return Err(Error::new(
            "VolumeInUse",
            format!("{} is already attached to an instance: {}", volume.volume_id, attachment.instance_id),
        ));
    }
    volume.check_usable()?;
    if !matches!(instance.state, InstanceState::Running | InstanceState::Stopped) {
        return Err(Error::new(
            "IncorrectState",
            format!("Instance '{}' is not 'running'.", instance.instance_id),
        ));
    }
    if volume.zone != instance.placement.zone {
        return Err(Error::new(
            "InvalidVolume.ZoneMismatch",
            format!(
                "The volume '{}' is not in the same availability zone as instance '{}'",
                volume.volume_id, instance.instance_id
            ),
        ));
    }
    if instance.disks.iter().any(|disk| disk.device_name == device_name) {
        return Err(Error::invalid_parameter_value(format!(
            "Invalid value '{device_name}' for unixDevice. Attachment point {device_name} is already in use"
        )));
    }
    if instance.disks.len() >= most {
        return Err(Error::new(
            "AttachmentLimitExceeded",
            format!("An instance of the type {} can have at most {most} volumes.", instance.instance_type),
        ));
    }
    if volume.multi_attach {
        multi_attach::check_attached(tables, volume, instance, device_name)?;
    }
    Ok(())
}

pub async fn detach_volume(
    context: &Context,
    input: ec2::DetachVolumeRequest,
) -> Result<ec2::VolumeAttachment> {
    let volume_id = Id::parse(Kind::Volume, input.volume_id.as_deref().unwrap_or_default())?;
    let instance_id = input.instance_id.as_deref().map(|id| Id::parse(Kind::Instance, id)).transpose()?;
    let force = input.force.unwrap_or(false);
    context
        .transact(|tx| {
            let volume =
                tx.get::<Volume>(&volume_id).ok_or_else(|| Id::not_found(Kind::Volume, &volume_id))?;
            let mut volume = (*volume).clone();
            if volume.attachments.is_empty() {
                return Err(Error::new(
                    "IncorrectState",
                    format!("Volume '{volume_id}' is in the '{}' state.", volume.state()),
                ));
            }
            if volume.multi_attach && instance_id.is_none() {
                return Err(Error::missing_parameter("instanceId"));
            }
            let named_device = input.device.as_deref().filter(|device| !device.is_empty());
            let is_named = |attachment: &VolumeAttachment| {
                instance_id.as_ref().is_none_or(|id| *id == attachment.instance_id)
                    && named_device.is_none_or(|device| attachment.device_name == device)
            };
            let first = volume.attachments[0].clone();
            let Some(attachment) = volume.attachments.iter_mut().find(|attachment| is_named(attachment))
            else {
                return Err(Error::new(
                    "InvalidAttachment.NotFound",
                    format!(
                        "The volume '{volume_id}' is not attached to instance '{}' as device '{}'.",
                        instance_id.as_deref().unwrap_or(&first.instance_id),
                        named_device.unwrap_or(&first.device_name)
                    ),
                ));
            };
            let instance = tx.get::<Instance>(&attachment.instance_id);
            let instance = instance.ok_or_else(|| Id::not_found(Kind::Instance, &attachment.instance_id))?;
            let is_stopped = instance.state == InstanceState::Stopped;
            if !is_stopped && attachment.device_name == instance.root_device_name {
                return Err(Error::new(
                    "OperationNotPermitted",
                    format!(
                        "Unable to detach root volume '{volume_id}' from instance '{}'",
                        instance.instance_id
                    ),
                ));
            }
            attachment.state = attachment.state.detach(force);
            let answer = attachment.clone();
            if is_stopped {
                let mut instance = (*instance).clone();
                instance.disks.retain(|disk| disk.volume_id != volume_id);
                tx.put(&instance);
                volume = volume.detached_from(&answer.instance_id);
            }
            tx.put(&volume);
            Ok(describe::attachment_to_api(&volume, &answer))
        })
        .await
}

/// Takes in what a host says of a volume of an instance.
pub fn observed(tx: &mut Tx<'_>, instance: &mut Instance, volume_id: &Id, told: &PlugState) {
    let Some((volume, state)) = attached_to(tx, instance, volume_id) else { return };
    if let PlugState::Failed { message } = told {
        tracing::error!(instance = %instance.instance_id, volume = %volume_id, message, "a volume was not attached");
    }
    if let Some(outcome) = state.told(told) {
        take(tx, instance, &volume, outcome);
    }
}

/// No guest runs.
pub fn settle(tx: &mut Tx<'_>, instance: &mut Instance) {
    for disk in instance.disks.clone() {
        let Some((volume, state)) = attached_to(tx, instance, &disk.volume_id) else { continue };
        if let Some(outcome) = state.settled() {
            take(tx, instance, &volume, outcome);
        }
    }
}

fn attached_to(
    tx: &mut Tx<'_>,
    instance: &Instance,
    volume_id: &Id,
) -> Option<(Arc<Volume>, AttachmentState)> {
    let volume = tx.get::<Volume>(volume_id)?;
    let state = volume.attachment_to(&instance.instance_id)?.state;
    Some((volume, state))
}

fn take(tx: &mut Tx<'_>, instance: &mut Instance, volume: &Volume, outcome: Outcome) {
    match outcome {
        Outcome::Goes(state) => {
            let mut volume = volume.clone();
            if let Some(attachment) = volume.attachment_to_mut(&instance.instance_id) {
                attachment.state = state;
            }
            tx.put(&volume);
        }
        Outcome::Over => {
            instance.disks.retain(|disk| disk.volume_id != volume.volume_id);
            tx.put(&volume.detached_from(&instance.instance_id));
        }
    }
}
