//! RegisterImage and DeregisterImage.

use super::{Image, ImageBlockDevice};
use crate::Context;
use crate::engine::tags::Specified;
use crate::snapshot::Snapshot;
use agent_api::Architecture;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

const NAME_SCOPE: &str = "image-name";
const DESCRIPTION_LEN_MAX: usize = 255;
const DEVICES_MAX: usize = 27;
/// GiB of the empty root disk that a simulated image may have.
const SIMULATED_ROOT_GIB: u32 = 8;
const ROOT_DEVICE: &str = "/dev/xvda";

pub async fn register_image(context: &Context, input: ec2::RegisterImageRequest) -> Result<ec2::RegisterImageResult> {
    if input.image_location.is_some() {
        return Err(Error::new("UnsupportedOperation", "Images backed by instance store are not supported by this cloud."));
    }
    if input.virtualization_type.as_deref().is_some_and(|kind| kind != "hvm") {
        return Err(Error::new("UnsupportedOperation", "Only hvm images are supported by this cloud."));
    }
    if input.kernel_id.is_some() || input.ramdisk_id.is_some() || input.tpm_support.is_some() || input.uefi_data.is_some() {
        return Err(Error::new("UnsupportedOperation", "Kernel and RAM disk images, TPM and UEFI data are not supported by this cloud."));
    }
    let name = input.name.clone().ok_or_else(|| Error::missing_parameter("Name"))?;
    check_name(&name)?;
    let description = input.description.clone().unwrap_or_default();
    if description.chars().count() > DESCRIPTION_LEN_MAX {
        return Err(Error::invalid_parameter_value(format!("The description is longer than {DESCRIPTION_LEN_MAX} characters")));
    }
    let architecture = match input.architecture.as_deref() {
        None | Some("x86_64") => Architecture::X86_64,
        Some("arm64") => Architecture::Arm64,
        Some(other) => return Err(Error::invalid_parameter_value(format!("The architecture '{other}' is not supported by this cloud."))),
    };
    let root_device_name = input.root_device_name.clone().unwrap_or_else(|| ROOT_DEVICE.into());
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::Image])?;
    let image_id = context
        .transact(|tx| {
            let mut block_devices = Vec::new();
            for mapping in &input.block_device_mappings {
                let snapshot = match mapping.ebs.as_ref().and_then(|ebs| ebs.snapshot_id.as_deref()) {
                    None => None,
                    Some(id) => {
                        Id::parse(Kind::Snapshot, id)?;
                        Some(tx.get::<Snapshot>(id).ok_or_else(|| Id::not_found(Kind::Snapshot, id))?)
                    }
                };
                block_devices.push(device(mapping, snapshot.as_deref())?);
            }
            if block_devices.is_empty() && context.options.simulate {
                block_devices.push(ImageBlockDevice {
                    device_name: root_device_name.clone(),
                    snapshot_id: None,
                    size_gib: Some(SIMULATED_ROOT_GIB),
                    volume_type: "gp3".into(),
                    iops: None,
                    throughput: None,
                    delete_on_termination: true,
                    virtual_name: None,
                });
            }
            let image = Image {
                image_id: tx.new_id(Kind::Image),
                owner: context.account().clone(),
                owner_alias: None,
                name: name.clone(),
                description: description.clone(),
                architecture,
                boot_mode: input.boot_mode.clone(),
                root_device_name: root_device_name.clone(),
                block_devices,
                ena_support: input.ena_support.unwrap_or(false),
                imds_support: input.imds_support.clone(),
                platform_details: "Linux/UNIX".into(),
                created_at: tx.now(),
                deprecated_at: None,
                disabled: false,
                public: false,
                launch_permissions: Vec::new(),
                tags: tags.of(Kind::Image),
            };
            check_devices(&image, context.options.simulate)?;
            if !tx.claim(NAME_SCOPE, &name, &image.image_id) {
                return Err(Error::new("InvalidAMIName.Duplicate", format!("AMI name {name} is already in use by an AMI of this account")));
            }
            tx.create(&image);
            Ok(image.image_id)
        })
        .await?;
    Ok(ec2::RegisterImageResult { image_id: Some(image_id.to_string()) })
}

/// 3 to 128 of the characters that the API reference lists.
fn check_name(name: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"()[] ./-'@_".contains(&b);
    if (3..=128).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::new(
        "InvalidAMIName.Malformed",
        "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '[', ']', ' ', '.', '/', '-', ''', '@' and '_'",
    ))
}

fn device(mapping: &ec2::BlockDeviceMapping, snapshot: Option<&Snapshot>) -> Result<ImageBlockDevice> {
    let invalid = |message: String| Error::new("InvalidBlockDeviceMapping", message);
    let device_name = mapping.device_name.clone().ok_or_else(|| invalid("A block device mapping must name its device".into()))?;
    let ebs = mapping.ebs.clone().unwrap_or_default();
    if mapping.ebs.is_none() && mapping.virtual_name.is_none() {
        return Err(invalid(format!("The mapping of {device_name} must have a volume")));
    }
    if ebs.encrypted == Some(true) {
        return Err(Error::new("UnsupportedOperation", "Encrypted volumes are not supported by this cloud."));
    }
    let size_gib = ebs.volume_size.map(|size| u32::try_from(size).ok().filter(|size| (1..=65_536).contains(size)));
    let size_gib = match size_gib {
        Some(None) => return Err(Error::invalid_parameter_value("The volume size must be between 1 and 65536 GiB")),
        Some(size) => size,
        None => snapshot.map(|snapshot| snapshot.size_gib),
    };
    if let Some(snapshot) = snapshot {
        if !snapshot.is_completed() {
            return Err(Error::new("InvalidSnapshot.InProgress", format!("The snapshot {} is not completed", snapshot.snapshot_id)));
        }
        if size_gib.is_some_and(|size| size < snapshot.size_gib) {
            return Err(invalid(format!("The volume of {device_name} is smaller than its snapshot, expect size >= {}GB", snapshot.size_gib)));
        }
    }
    if size_gib.is_none() && mapping.virtual_name.is_none() {
        return Err(invalid(format!("The mapping of {device_name} must have a snapshot or a size")));
    }
    Ok(ImageBlockDevice {
        device_name,
        snapshot_id: snapshot.map(|snapshot| snapshot.snapshot_id.clone()),
        size_gib,
        volume_type: ebs.volume_type.unwrap_or_else(|| "gp2".into()),
        iops: ebs.iops,
        throughput: ebs.throughput,
        delete_on_termination: ebs.delete_on_termination.unwrap_or(true),
        virtual_name: mapping.virtual_name.clone(),
    })
}

fn check_devices(image: &Image, simulate: bool) -> Result<()> {
    if image.block_devices.len() > DEVICES_MAX {
        return Err(Error::new("InvalidBlockDeviceMapping", format!("An image has at most {DEVICES_MAX} devices")));
    }
    let root = image.root().ok_or_else(|| {
        Error::new("InvalidBlockDeviceMapping", format!("The root device {} must be mapped", image.root_device_name))
    })?;
    if root.snapshot_id.is_none() && !simulate {
        return Err(Error::new("InvalidBlockDeviceMapping", "The root device must have a snapshot to boot from"));
    }
    Ok(())
}

/// Instances that run of it go on; its snapshots stay.
pub async fn deregister_image(context: &Context, input: ec2::DeregisterImageRequest) -> Result<ec2::DeregisterImageResult> {
    if input.delete_associated_snapshots == Some(true) {
        return Err(Error::new("UnsupportedOperation", "Delete the snapshots with DeleteSnapshot: DeleteAssociatedSnapshots is not supported by this cloud."));
    }
    let id = Id::parse(Kind::Image, input.image_id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let image = tx.get::<Image>(&id).ok_or_else(|| Id::not_found(Kind::Image, &id))?;
            if image.owner != *context.account() {
                return Err(Error::new("AuthFailure", format!("Not authorized for image:{id}")));
            }
            tx.delete::<Image>(&id);
            tx.release(NAME_SCOPE, &image.name);
            Ok(())
        })
        .await?;
    Ok(ec2::DeregisterImageResult { r#return: Some(true), ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["abc", "My image (1) [x86_64] - v1.0/test@home_'q'"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "ab", "a#bc", &"x".repeat(129)] {
            assert_eq!(check_name(name).unwrap_err().code, "InvalidAMIName.Malformed", "{name}");
        }
    }
}
