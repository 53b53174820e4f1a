//! What may be asked of volumes that several instances can have at once (EBS User Guide, "Attach an EBS volume to multiple
//! EC2 instances using EBS Multi-Attach").

use super::Volume;
use super::modify::Shape;
use crate::engine::Tables;
use crate::instance::Instance;
use crate::instance_type;
use model::{Error, Result};

/// Instances that can have it at a time.
const ATTACHMENTS_MAX: usize = 16;

/// One of this type is made.
pub fn check_made(multi_attach: bool, volume_type: &str) -> Result<()> {
    match volume_type {
        _ if !multi_attach => Ok(()),
        "io1" | "io2" => Ok(()),
        _ => Err(Error::invalid_parameter_combination(format!(
            "The parameter MultiAttachEnabled is not supported for {volume_type} volumes."
        ))),
    }
}

/// An instance that has one is of this type, or shall be.
pub fn check_type(tables: &Tables, instance_type: &str) -> Result<()> {
    if instance_type::is_nitro(tables, instance_type) {
        return Ok(());
    }
    Err(Error::new(
        "UnsupportedOperation",
        format!(
            "Multi-Attach enabled volumes can be attached only to instances built on the Nitro System, which those of the type {instance_type} are not."
        ),
    ))
}

/// One is to be attached to another instance, under this name.
pub fn check_attached(
    tables: &Tables,
    volume: &Volume,
    instance: &Instance,
    device_name: &str,
) -> Result<()> {
    check_type(tables, &instance.instance_type)?;
    if device_name == instance.root_device_name {
        return Err(Error::new(
            "UnsupportedOperation",
            format!("The volume '{}' is Multi-Attach enabled and cannot be a root volume.", volume.volume_id),
        ));
    }
    if volume.attachments.len() >= ATTACHMENTS_MAX {
        return Err(Error::new(
            "AttachmentLimitExceeded",
            format!(
                "The volume '{}' is attached to {ATTACHMENTS_MAX} instances, the most that can have it.",
                volume.volume_id
            ),
        ));
    }
    Ok(())
}

/// One is to be modified, or another is to become one.
pub fn check_modified(volume: &Volume, to: &Shape) -> Result<()> {
    let refuse = |message: &str| Err(Error::invalid_parameter_combination(message));
    let (before, after) = (volume.multi_attach, to.multi_attach);
    if before && to.volume_type != volume.volume_type {
        return refuse("To change the type of a Multi-Attach enabled volume, first disable Multi-Attach.");
    }
    if before && volume.volume_type == "io1" {
        return refuse("Multi-Attach enabled io1 volumes cannot be modified.");
    }
    if before == after {
        return Ok(());
    }
    if (&*volume.volume_type, &*to.volume_type) != ("io2", "io2") {
        return refuse("Multi-Attach can be enabled and disabled for io2 volumes only, once they are made.");
    }
    let attached_max = if after { 0 } else { 1 };
    if volume.attachments.len() > attached_max {
        let state =
            if after { "is not attached to any instance" } else { "is attached to one instance at most" };
        let what = if after { "enabled" } else { "disabled" };
        return Err(Error::new(
            "VolumeInUse",
            format!("Multi-Attach can be {what} only while the volume '{}' {state}.", volume.volume_id),
        ));
    }
    Ok(())
}
