//! The disks of a launch: the image's, changed and added to by the request's block device mappings.

use crate::block_device;
use crate::encryption::{Asked, Encryption};
use crate::engine::Tables;
use crate::image::Image;
use crate::instance_type;
use crate::snapshot;
use crate::volume::specification;
use aws_api::ec2;
use model::{Error, Id, Result};

/// GiB of a root disk whose image names neither snapshot nor size.
const SIZE_GIB_DEFAULT: u32 = 8;

#[derive(Clone, Debug, PartialEq)]
pub struct DiskPlan {
    pub device_name: String,
    pub snapshot_id: Option<Id>,
    pub size_gib: u32,
    pub volume_type: String,
    pub iops: Option<i32>,
    pub throughput: Option<i32>,
    pub initialization_rate: Option<i32>,
    pub delete_on_termination: bool,
    pub encrypted: Asked,
    /// How its snapshot is encrypted.
    pub source: Option<Encryption>,
}

/// The root disk first; no more than the type takes.
pub fn plan(
    tables: &Tables,
    image: &Image,
    mappings: &[ec2::BlockDeviceMapping],
    instance_type: &str,
) -> Result<Vec<DiskPlan>> {
    let mut plans = Vec::new();
    for device in image.block_devices.iter().filter(|device| device.virtual_name.is_none()) {
        let snapshot = device.snapshot_id.as_ref().and_then(|id| tables.snapshots.find(id));
        plans.push(DiskPlan {
            device_name: device.device_name.clone(),
            snapshot_id: device.snapshot_id.clone(),
            size_gib: device
                .size_gib
                .or(snapshot.map(|snapshot| snapshot.size_gib))
                .unwrap_or(SIZE_GIB_DEFAULT),
            volume_type: device.volume_type.clone(),
            iops: device.iops,
            throughput: device.throughput,
            initialization_rate: None,
            delete_on_termination: device.delete_on_termination,
            encrypted: Asked::of(Some(device.encrypted), &None)?,
            source: snapshot.and_then(|snapshot| snapshot.encryption.clone()),
        });
    }
    for mapping in mappings {
        apply(tables, &mut plans, mapping)?;
    }
    let root = plans.iter().position(|plan| plan.device_name == image.root_device_name);
    let root = root
        .ok_or_else(|| invalid(format!("The root device {} must have a volume", image.root_device_name)))?;
    plans[..=root].rotate_right(1);
    let most = instance_type::volumes_max(tables, instance_type);
    if plans.len() > most {
        return Err(Error::new(
            "AttachmentLimitExceeded",
            format!("An instance of the type {instance_type} can have at most {most} volumes."),
        ));
    }
    for plan in &mut plans {
        (plan.iops, plan.throughput) =
            specification::performance(&plan.volume_type, plan.size_gib, plan.iops, plan.throughput)?;
    }
    Ok(plans)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new("InvalidBlockDeviceMapping", message)
}

fn apply(tables: &Tables, plans: &mut Vec<DiskPlan>, mapping: &ec2::BlockDeviceMapping) -> Result<()> {
    let device_name = mapping.device_name.as_deref().filter(|name| !name.is_empty());
    let device_name = device_name.ok_or_else(|| invalid("A block device mapping must name its device"))?;
    specification::device_name(device_name)?;
    let at = plans.iter().position(|plan| plan.device_name == device_name);
    if mapping.no_device.is_some() {
        plans.retain(|plan| plan.device_name != device_name);
        return Ok(());
    }
    if let Some(name) = &mapping.virtual_name {
        return Err(invalid(format!("{name}: instance store volumes are not there on this instance type")));
    }
    let Some(ebs) = &mapping.ebs else {
        return Err(invalid(format!("The mapping of {device_name} must have an EBS volume")));
    };
    block_device::refuse_what_is_not_there(ebs)?;
    let encrypted = Asked::of(ebs.encrypted, &ebs.kms_key_id)?;
    let of_image = at.map(|at| plans[at].clone());
    let snapshot = match ebs.snapshot_id.as_deref() {
        Some(id) => Some(snapshot::to_make_volumes_of(tables, id)?),
        None => of_image
            .as_ref()
            .and_then(|plan| plan.snapshot_id.as_ref())
            .and_then(|id| tables.snapshots.find(id).cloned()),
    };
    let least = snapshot.as_ref().map_or(1, |snapshot| snapshot.size_gib);
    let size_gib = match ebs.volume_size {
        None => of_image
            .as_ref()
            .map(|plan| plan.size_gib)
            .or(snapshot.as_ref().map(|snapshot| snapshot.size_gib)),
        Some(size) => {
            let size = specification::size(size)?;
            if size < least {
                return Err(invalid(format!(
                    "Volume of size {size}GB is smaller than snapshot '{}', expect size >= {least}GB",
                    snapshot.map(|s| s.snapshot_id.to_string()).unwrap_or_default()
                )));
            }
            Some(size)
        }
    };
    let plan = DiskPlan {
        device_name: device_name.to_owned(),
        snapshot_id: snapshot.as_ref().map(|snapshot| snapshot.snapshot_id.clone()),
        size_gib: size_gib.ok_or_else(|| Error::missing_parameter("size/snapshotId"))?,
        volume_type: ebs
            .volume_type
            .clone()
            .or(of_image.as_ref().map(|plan| plan.volume_type.clone()))
            .unwrap_or_else(|| "gp2".into()),
        iops: ebs.iops.or(of_image.as_ref().filter(|_| ebs.volume_type.is_none()).and_then(|plan| plan.iops)),
        throughput: ebs
            .throughput
            .or(of_image.as_ref().filter(|_| ebs.volume_type.is_none()).and_then(|plan| plan.throughput)),
        initialization_rate: specification::initialization_rate(ebs.volume_initialization_rate)?,
        delete_on_termination: ebs
            .delete_on_termination
            .or(of_image.as_ref().map(|plan| plan.delete_on_termination))
            .unwrap_or(true),
        encrypted: match of_image {
            Some(plan) if !encrypted.encrypted => plan.encrypted,
            _ => encrypted,
        },
        source: snapshot.and_then(|snapshot| snapshot.encryption.clone()),
    };
    match at {
        Some(at) => plans[at] = plan,
        None => plans.push(plan),
    }
    Ok(())
}
