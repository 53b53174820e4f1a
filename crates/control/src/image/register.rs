//! RegisterImage and DeregisterImage.

use super::protection::Protection;
use super::{Condition, Image, ImageBlockDevice};
use crate::Context;
use crate::block_device;
use crate::description;
use crate::engine::Tx;
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::snapshot::{self, Snapshot};
use crate::uefi_data;
use crate::volume::specification;
use agent_api::Architecture;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::collections::BTreeSet;

const NAME_SCOPE: &str = "image-name";
const DEVICES_MAX: usize = 27;
pub(super) const NAME_LEN_MIN: usize = 3;
pub(super) const NAME_LEN_MAX: usize = 128;
/// GiB of the empty root disk that a simulated image may have.
const SIMULATED_ROOT_GIB: u32 = 8;
const ROOT_DEVICE: &str = "/dev/xvda";

pub async fn register_image(
    context: &Context,
    input: ec2::RegisterImageRequest,
) -> Result<ec2::RegisterImageResult> {
    refuse_what_is_not_there(&input)?;
    let name = input.name.as_deref().ok_or_else(|| Error::missing_parameter("Name"))?;
    check_name(name)?;
    let description = input.description.clone().unwrap_or_default();
    description::check(&description)?;
    let architecture = match input.architecture.as_deref() {
        None | Some("x86_64") => Architecture::X86_64,
        Some("arm64") => Architecture::Arm64,
        Some(other) => {
            return Err(Error::invalid_parameter_value(format!(
                "The architecture '{other}' is not supported by this cloud."
            )));
        }
    };
    if architecture == Architecture::Arm64 && input.boot_mode.as_deref().is_some_and(|mode| mode != "uefi") {
        return Err(Error::invalid_parameter_combination("Images for arm64 must have the boot mode 'uefi'."));
    }
    let one_of = |name, value: &Option<String>, known: &[&str]| match value.as_deref() {
        Some(value) if !known.contains(&value) => Err(Error::invalid_parameter_value(format!(
            "Value ({value}) for parameter {name} is invalid. Expected: {}.",
            known.join(", ")
        ))),
        _ => Ok(()),
    };
    one_of("bootMode", &input.boot_mode, &["legacy-bios", "uefi", "uefi-preferred"])?;
    input.imds_support.as_deref().map(super::check_imds_support).transpose()?;
    one_of("tpmSupport", &input.tpm_support, &["v2.0"])?;
    if input.tpm_support.is_some() && input.boot_mode.as_deref() != Some("uefi") {
        return Err(Error::invalid_parameter_combination(
            "Images with TPM support must have the boot mode 'uefi'.",
        ));
    }
    let uefi_data = input.uefi_data.as_ref().filter(|data| !data.is_empty());
    if let Some(data) = uefi_data {
        uefi_data::check(data)?;
        if input.boot_mode.as_deref() == Some("legacy-bios") {
            return Err(Error::invalid_parameter_combination(
                "Images with UEFI data can't have the boot mode 'legacy-bios'.",
            ));
        }
    }
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::Image])?;
    let image_id = context
        .transact(|tx| {
            let image = Image {
                image_id: tx.new_id(Kind::Image),
                owner: context.account().clone(),
                owner_alias: None,
                name: name.to_owned(),
                description: description.clone(),
                architecture,
                boot_mode: input.boot_mode.clone(),
                root_device_name: input.root_device_name.clone().unwrap_or_else(|| ROOT_DEVICE.into()),
                block_devices: devices(tx, &input, context.options.simulate)?,
                ena_support: input.ena_support.unwrap_or(false),
                sriov_net_support: input.sriov_net_support.clone(),
                imds_support: input.imds_support.clone(),
                tpm: input.tpm_support.is_some(),
                uefi_data: uefi_data.cloned(),
                platform_details: "Linux/UNIX".into(),
                created_at: tx.now(),
                deprecated_at: None,
                disabled: false,
                condition: Condition::Available,
                source_instance_id: None,
                ancestors: Vec::new(),
                protection: Protection::Disabled,
                last_launched_at: None,
                public: false,
                launch_permissions: Vec::new(),
                tags: tags.of(Kind::Image),
            };
            check_devices(&image, context.options.simulate)?;
            record(tx, &image)?;
            Ok(image.image_id)
        })
        .await?;
    Ok(ec2::RegisterImageResult { image_id: Some(image_id.to_string()) })
}

/// Writes a new image's record, whose name is the account's only one.
pub(super) fn record(tx: &mut Tx<'_>, image: &Image) -> Result<()> {
    if !tx.claim(NAME_SCOPE, &image.name, &image.image_id) {
        let by = tx.tables().images.with("name", &image.name).find(|other| other.owner == image.owner);
        let by = by.map_or_else(String::new, |other| format!(" {}", other.image_id));
        return Err(Error::new(
            "InvalidAMIName.Duplicate",
            format!("AMI name {} is already in use by AMI{by}", image.name),
        ));
    }
    tx.create(image);
    Ok(())
}

/// What the API knows and this cloud has not: refused rather than ignored.
fn refuse_what_is_not_there(input: &ec2::RegisterImageRequest) -> Result<()> {
    refuse([
        (given(&input.image_location), "Images backed by instance store are"),
        (
            input.virtualization_type.as_deref().is_some_and(|kind| kind != "hvm"),
            "Other virtualization than hvm is",
        ),
        (given(&input.kernel_id) || given(&input.ramdisk_id), "Kernel and RAM disk images are"),
        (!input.billing_products.is_empty(), "Billing products are"),
    ])
}

/// The devices that the request maps; in a simulated cloud an image without any has an empty root disk.
fn devices(
    tx: &mut Tx<'_>,
    input: &ec2::RegisterImageRequest,
    simulate: bool,
) -> Result<Vec<ImageBlockDevice>> {
    let mut devices = Vec::with_capacity(input.block_device_mappings.len());
    for mapping in input.block_device_mappings.iter().filter(|mapping| mapping.no_device.is_none()) {
        let snapshot = match mapping.ebs.as_ref().and_then(|ebs| ebs.snapshot_id.as_deref()) {
            None => None,
            Some(id) => {
                Id::parse(Kind::Snapshot, id)?;
                let snapshot = tx.get::<Snapshot>(id).ok_or_else(|| Id::not_found(Kind::Snapshot, id))?;
                // Written as it is, so that whoever deletes it at the same time must look again.
                tx.put(&*snapshot);
                Some(snapshot)
            }
        };
        devices.push(device(mapping, snapshot.as_deref())?);
    }
    if devices.is_empty() && simulate {
        devices.push(ImageBlockDevice {
            device_name: input.root_device_name.clone().unwrap_or_else(|| ROOT_DEVICE.into()),
            snapshot_id: None,
            size_gib: Some(SIMULATED_ROOT_GIB),
            volume_type: "gp3".into(),
            iops: None,
            throughput: None,
            delete_on_termination: true,
            encrypted: false,
            virtual_name: None,
        });
    }
    Ok(devices)
}

/// What the API reference lists.
pub(super) fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"()[] ./-'@_".contains(&byte)
}

pub(super) fn check_name(name: &str) -> Result<()> {
    if (NAME_LEN_MIN..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_of_a_name) {
        return Ok(());
    }
    Err(Error::new(
        "InvalidAMIName.Malformed",
        "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '[', ']', ' ', '.', '/', '-', ''', '@' and '_'",
    ))
}

pub(super) fn device(
    mapping: &ec2::BlockDeviceMapping,
    snapshot: Option<&Snapshot>,
) -> Result<ImageBlockDevice> {
    let invalid = |message: String| Error::new("InvalidBlockDeviceMapping", message);
    let device_name = mapping
        .device_name
        .clone()
        .ok_or_else(|| invalid("A block device mapping must name its device".into()))?;
    let ebs = mapping.ebs.clone().unwrap_or_default();
    if mapping.ebs.is_none() && mapping.virtual_name.is_none() {
        return Err(invalid(format!("The mapping of {device_name} must have a volume")));
    }
    block_device::refuse_what_is_not_there(&ebs)?;
    refuse([(
        ebs.volume_initialization_rate.is_some(),
        "Rates of volume initialization in the block device mappings of images are",
    )])?;
    if given(&ebs.kms_key_id) {
        return Err(Error::invalid_parameter_combination(
            "The parameter KmsKeyId is supported in the block device mappings of launches only",
        ));
    }
    let of_snapshot = snapshot.map(|snapshot| snapshot.encryption.is_some());
    if ebs.encrypted.is_some() && of_snapshot.is_some_and(|encrypted| ebs.encrypted != Some(encrypted)) {
        return Err(invalid(format!(
            "the encrypted flag cannot be specified for device {device_name} because it has a snapshot specified."
        )));
    }
    let size_gib =
        ebs.volume_size.map(|size| u32::try_from(size).ok().filter(|size| (1..=65_536).contains(size)));
    let size_gib = match size_gib {
        Some(None) => {
            return Err(Error::invalid_parameter_value("The volume size must be between 1 and 65536 GiB"));
        }
        Some(size) => size,
        None => snapshot.map(|snapshot| snapshot.size_gib),
    };
    if let Some(snapshot) = snapshot {
        if !snapshot.is_completed() {
            return Err(Error::new(
                "IncorrectState",
                format!("Snapshot is in invalid state - {}", snapshot.state.name()),
            ));
        }
        if size_gib.is_some_and(|size| size < snapshot.size_gib) {
            return Err(invalid(format!(
                "The volume of {device_name} is smaller than its snapshot, expect size >= {}GB",
                snapshot.size_gib
            )));
        }
    }
    if size_gib.is_none() && mapping.virtual_name.is_none() {
        return Err(invalid(format!("The mapping of {device_name} must have a snapshot or a size")));
    }
    let volume_type = ebs.volume_type.unwrap_or_else(|| "gp2".into());
    if let Some(size_gib) = size_gib {
        specification::performance(&volume_type, size_gib, ebs.iops, ebs.throughput)?;
    }
    Ok(ImageBlockDevice {
        device_name,
        snapshot_id: snapshot.map(|snapshot| snapshot.snapshot_id.clone()),
        size_gib,
        volume_type,
        iops: ebs.iops,
        throughput: ebs.throughput,
        delete_on_termination: ebs.delete_on_termination.unwrap_or(true),
        encrypted: of_snapshot.or(ebs.encrypted).unwrap_or(false),
        virtual_name: mapping.virtual_name.clone(),
    })
}

pub(super) fn check_devices(image: &Image, simulate: bool) -> Result<()> {
    let invalid = |message: String| Err(Error::new("InvalidBlockDeviceMapping", message));
    if image.block_devices.len() > DEVICES_MAX {
        return invalid(format!("An image has at most {DEVICES_MAX} devices"));
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = image.block_devices.iter().find(|device| !names.insert(&device.device_name)) {
        return invalid(format!(
            "The device '{}' is used in more than one block-device mapping",
            twice.device_name
        ));
    }
    match image.root() {
        None => invalid(format!("The root device {} must be mapped", image.root_device_name)),
        Some(root) if root.virtual_name.is_some() => {
            invalid(format!("The root device {} must have a volume", image.root_device_name))
        }
        Some(root) if root.snapshot_id.is_none() && !simulate => {
            invalid("The root device must have a snapshot to boot from".into())
        }
        Some(_) => Ok(()),
    }
}

/// Instances that run of it go on; its snapshots stay unless they are to go with it.
pub async fn deregister_image(
    context: &Context,
    input: ec2::DeregisterImageRequest,
) -> Result<ec2::DeregisterImageResult> {
    let id = Id::parse(Kind::Image, input.image_id.as_deref().unwrap_or_default())?;
    let with_snapshots = input.delete_associated_snapshots == Some(true);
    let results = context
        .transact(|tx| {
            let image = tx.get::<Image>(&id).ok_or_else(|| Id::not_found(Kind::Image, &id))?;
            if image.owner != *context.account() {
                return Err(Error::new("AuthFailure", format!("Not authorized for image:{id}")));
            }
            image.check_deregistrable(tx.now())?;
            tx.delete::<Image>(&id);
            tx.release(NAME_SCOPE, &image.name);
            let snapshots = image.block_devices.iter().filter_map(|device| device.snapshot_id.clone());
            let snapshots: BTreeSet<Id> = if with_snapshots { snapshots.collect() } else { BTreeSet::new() };
            let mut results = Vec::with_capacity(snapshots.len());
            for snapshot_id in snapshots {
                let deleted = snapshot::delete(tx, &snapshot_id, Some(&id));
                results.push((snapshot_id, deleted.is_ok()));
            }
            Ok(results)
        })
        .await?;
    let result = |(snapshot_id, deleted): &(Id, bool)| ec2::DeleteSnapshotReturnCode {
        snapshot_id: Some(snapshot_id.to_string()),
        return_code: Some(if *deleted { "success" } else { "skipped" }.into()),
    };
    Ok(ec2::DeregisterImageResult {
        r#return: Some(true),
        delete_snapshot_results: results.iter().map(result).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::SnapshotState;
    use model::Timestamp;

    fn snapshot(size_gib: u32, state: SnapshotState) -> Snapshot {
        Snapshot {
            state_message: None,
            stored_percent: None,
            upload: None,
            encryption: None,
            public: false,
            create_volume_permissions: Vec::new(),
            snapshot_id: Id::parse(Kind::Snapshot, "snap-0123456789abcdef0").unwrap(),
            owner: "123456789012".parse().unwrap(),
            volume_id: None,
            size_gib,
            description: String::new(),
            state,
            started_at: Timestamp::UNIX_EPOCH,
            completed_at: None,
            tags: Default::default(),
        }
    }

    fn mapping(size: Option<i32>) -> ec2::BlockDeviceMapping {
        ec2::BlockDeviceMapping {
            device_name: Some("/dev/xvda".into()),
            ebs: Some(ec2::EbsBlockDevice { volume_size: size, ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn a_volume_is_as_large_as_its_snapshot_or_larger() {
        let snapshot = snapshot(10, SnapshotState::Completed);
        assert_eq!(device(&mapping(None), Some(&snapshot)).unwrap().size_gib, Some(10));
        assert_eq!(device(&mapping(Some(20)), Some(&snapshot)).unwrap().size_gib, Some(20));
        assert_eq!(device(&mapping(Some(9)), Some(&snapshot)).unwrap_err().code, "InvalidBlockDeviceMapping");
        assert_eq!(device(&mapping(None), None).unwrap_err().code, "InvalidBlockDeviceMapping");
        for size in [0, -1, 65_537] {
            assert_eq!(
                device(&mapping(Some(size)), None).unwrap_err().code,
                "InvalidParameterValue",
                "{size}"
            );
        }
    }

    #[test]
    fn a_snapshot_must_be_completed() {
        for state in [SnapshotState::Pending, SnapshotState::Error] {
            let error = device(&mapping(None), Some(&snapshot(1, state))).unwrap_err();
            assert_eq!(error.code, "IncorrectState", "{state:?}");
        }
    }

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
