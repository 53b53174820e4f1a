//! The disks of a launch: the image's, changed and added to by the request's block device mappings.

use crate::engine::Tables;
use crate::image::Image;
use crate::snapshot::Snapshot;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::sync::Arc;

/// Most disks at launch (EC2 User Guide, "Amazon EBS volume limits": 28 attachments, the interface takes one).
const DISKS_MAX: usize = 27;
/// GiB of a root disk whose image names neither snapshot nor size.
const SIZE_GIB_DEFAULT: u32 = 8;
const SIZE_GIB_MAX: i32 = 65_536;
const TYPES: [&str; 7] = ["standard", "gp2", "gp3", "io1", "io2", "st1", "sc1"];

#[derive(Clone, Debug, PartialEq)]
pub struct DiskPlan {
    pub device_name: String,
    pub snapshot_id: Option<Id>,
    pub size_gib: u32,
    pub volume_type: String,
    pub iops: Option<i32>,
    pub throughput: Option<i32>,
    pub delete_on_termination: bool,
}

/// The root disk first.
pub fn plan(tables: &Tables, image: &Image, mappings: &[ec2::BlockDeviceMapping]) -> Result<Vec<DiskPlan>> {
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
            delete_on_termination: device.delete_on_termination,
        });
    }
    for mapping in mappings {
        apply(tables, &mut plans, mapping)?;
    }
    let root = plans.iter().position(|plan| plan.device_name == image.root_device_name);
    let root = root
        .ok_or_else(|| invalid(format!("The root device {} must have a volume", image.root_device_name)))?;
    plans[..=root].rotate_right(1);
    if plans.len() > DISKS_MAX {
        return Err(Error::new(
            "AttachmentLimitExceeded",
            format!("An instance can have at most {DISKS_MAX} volumes at launch."),
        ));
    }
    for plan in &mut plans {
        performance(plan)?;
    }
    Ok(plans)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new("InvalidBlockDeviceMapping", message)
}

fn apply(tables: &Tables, plans: &mut Vec<DiskPlan>, mapping: &ec2::BlockDeviceMapping) -> Result<()> {
    let device_name = mapping.device_name.as_deref().filter(|name| !name.is_empty());
    let device_name = device_name.ok_or_else(|| invalid("A block device mapping must name its device"))?;
    if !is_device_name(device_name) {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({device_name}) for parameter device is invalid. {device_name} is not a valid EBS device name."
        )));
    }
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
    if ebs.encrypted == Some(true) || ebs.kms_key_id.is_some() {
        return Err(Error::new("UnsupportedOperation", "Encrypted volumes are not supported by this cloud."));
    }
    let of_image = at.map(|at| plans[at].clone());
    let snapshot = match ebs.snapshot_id.as_deref() {
        Some(id) => Some(snapshot(tables, id)?),
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
        Some(size) if !(1..=SIZE_GIB_MAX).contains(&size) => {
            return Err(Error::invalid_parameter_value(format!(
                "Volume size {size} GiB is not between 1 and {SIZE_GIB_MAX}"
            )));
        }
        Some(size) if (size as u32) < least => {
            return Err(invalid(format!(
                "Volume of size {size}GB is smaller than snapshot '{}', expect size >= {least}GB",
                snapshot.map(|s| s.snapshot_id.to_string()).unwrap_or_default()
            )));
        }
        Some(size) => Some(size as u32),
    };
    let plan = DiskPlan {
        device_name: device_name.to_owned(),
        snapshot_id: snapshot.map(|snapshot| snapshot.snapshot_id.clone()),
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
        delete_on_termination: ebs
            .delete_on_termination
            .or(of_image.map(|plan| plan.delete_on_termination))
            .unwrap_or(true),
    };
    match at {
        Some(at) => plans[at] = plan,
        None => plans.push(plan),
    }
    Ok(())
}

fn snapshot(tables: &Tables, id: &str) -> Result<Arc<Snapshot>> {
    Id::parse(Kind::Snapshot, id)?;
    let snapshot = tables.snapshots.find(id).ok_or_else(|| Id::not_found(Kind::Snapshot, id))?;
    if !snapshot.is_completed() {
        return Err(Error::new("IncorrectState", format!("Snapshot '{id}' is not completed.")));
    }
    Ok(snapshot.clone())
}

/// `/dev/sda1`, `/dev/xvdb`, `/dev/sdf`, `xvdf` (EC2 User Guide, "Device names for volumes").
fn is_device_name(name: &str) -> bool {
    let short = name.strip_prefix("/dev/").unwrap_or(name);
    let letters = short.strip_prefix("sd").or_else(|| short.strip_prefix("xvd")).unwrap_or_default();
    let (letters, digits) = letters.split_at(letters.bytes().take_while(u8::is_ascii_lowercase).count());
    matches!(letters.len(), 1 | 2) && digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit())
}

/// IOPS and throughput: the type's default where none is asked, else within its range
/// (EBS User Guide, "Amazon EBS volume types").
fn performance(plan: &mut DiskPlan) -> Result<()> {
    let refuse = |what: &str, value: i32, volume_type: &str| {
        Err(Error::invalid_parameter_value(format!(
            "The value {value} for parameter {what} is not supported for the volume type {volume_type}"
        )))
    };
    let volume_type = plan.volume_type.as_str();
    if !TYPES.contains(&volume_type) {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({volume_type}) for parameter volumeType is invalid."
        )));
    }
    let iops = match volume_type {
        "gp3" => Some(3_000..=80_000),
        "io1" => Some(100..=64_000),
        "io2" => Some(100..=256_000),
        _ => None,
    };
    match (&iops, plan.iops) {
        (Some(range), Some(value)) if !range.contains(&value) => return refuse("iops", value, volume_type),
        (None, Some(value)) if volume_type != "gp2" => return refuse("iops", value, volume_type),
        (Some(_), None) if volume_type.starts_with("io") => return Err(Error::missing_parameter("iops")),
        _ => {}
    }
    match plan.throughput {
        Some(value) if volume_type != "gp3" || !(125..=2_000).contains(&value) => {
            return refuse("throughput", value, volume_type);
        }
        _ => {}
    }
    plan.iops = match volume_type {
        "gp3" => plan.iops.or(Some(3_000)),
        // Three for each GiB, at least 100, at most 16,000.
        "gp2" => Some((plan.size_gib as i32 * 3).clamp(100, 16_000)),
        _ => plan.iops,
    };
    if volume_type == "gp3" {
        plan.throughput = plan.throughput.or(Some(125));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names() {
        for name in ["/dev/sda1", "/dev/xvda", "xvdba", "/dev/sdf", "/dev/sdf12"] {
            assert!(is_device_name(name), "{name}");
        }
        for name in ["", "/dev/", "/dev/nvme0n1", "sda123", "/dev/sd1", "../sda"] {
            assert!(!is_device_name(name), "{name}");
        }
    }
}
