//! Amazon Machine Images: what an instance is launched from.

use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, Tx, filter, settings};
use crate::instance::architecture_name;
use agent_api::{Architecture, DiskBus};
use allowed::Judge;
use ancestry::Ancestor;
use model::{AccountId, Error, Id, Kind, Result, Timestamp};
use protection::Protection;
use public_access::ImageSettings;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

mod allowed;
mod ancestry;
pub mod attribute;
pub mod copy;
pub mod create;
pub mod describe;
pub mod fast_launch;
mod protection;
mod public;
pub mod public_access;
pub mod register;
pub mod usage;
pub mod usage_report;

pub use allowed::{
    disable_allowed_images_settings, enable_allowed_images_settings, get_allowed_images_settings,
    replace_image_criteria_in_allowed_images_settings,
};
pub use ancestry::get_image_ancestry;
pub use protection::{disable_image_deregistration_protection, enable_image_deregistration_protection};
pub use public::default_images;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    pub image_id: Id,
    pub owner: AccountId,
    /// `amazon` for the images that a simulated region begins with.
    pub owner_alias: Option<String>,
    pub name: String,
    pub description: String,
    pub architecture: Architecture,
    pub boot_mode: Option<String>,
    pub root_device_name: String,
    pub block_devices: Vec<ImageBlockDevice>,
    pub ena_support: bool,
    /// `simple` or none.
    pub sriov_net_support: Option<String>,
    pub imds_support: Option<String>,
    /// Whether its instances have a TPM 2.0.
    #[serde(default)]
    pub tpm: bool,
    /// What the firmware of its instances has at first, where they boot by UEFI.
    #[serde(default)]
    pub uefi_data: Option<String>,
    pub platform_details: String,
    pub created_at: Timestamp,
    pub deprecated_at: Option<Timestamp>,
    pub disabled: bool,
    #[serde(default)]
    pub condition: Condition,
    /// That it was made of.
    #[serde(default)]
    pub source_instance_id: Option<Id>,
    /// The image that it was made of first.
    #[serde(default)]
    pub ancestors: Vec<Ancestor>,
    #[serde(default)]
    pub protection: Protection,
    /// Roughly: see `note_launch`.
    #[serde(default)]
    pub last_launched_at: Option<Timestamp>,
    pub public: bool,
    /// Accounts that may launch it beside its owner.
    pub launch_permissions: Vec<AccountId>,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageBlockDevice {
    pub device_name: String,
    /// None is an empty disk.
    pub snapshot_id: Option<Id>,
    pub size_gib: Option<u32>,
    pub volume_type: String,
    pub iops: Option<i32>,
    pub throughput: Option<i32>,
    pub delete_on_termination: bool,
    /// As its snapshot is, or as an empty disk shall be.
    #[serde(default)]
    pub encrypted: bool,
    /// `ephemeral0`: instance store.
    pub virtual_name: Option<String>,
}

/// The tag by which an image says what its guests have drivers for. Ours: EC2 decides by the instance type.
const DISKS_TAG: &str = "cumulet:disks";

/// EC2's `TpmSupport`.
pub fn tpm_support(tpm: bool) -> Option<&'static str> {
    tpm.then_some("v2.0")
}

/// The version of the metadata service that an image may ask for.
fn check_imds_support(version: &str) -> Result<()> {
    match version {
        "v2.0" => Ok(()),
        _ => Err(Error::invalid_parameter_value(format!(
            "Value ({version}) for parameter imdsSupport is invalid. Expected: v2.0."
        ))),
    }
}

/// The code of the state's reason where an image could not be made.
const FAILURE: &str = "Server.InternalError";

/// Whether its snapshots are whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    Pending,
    #[default]
    Available,
    Failed {
        message: String,
    },
}

impl Image {
    /// Why it could not be made.
    fn failure(&self) -> Option<&str> {
        match &self.condition {
            Condition::Failed { message } => Some(message),
            _ => None,
        }
    }

    /// Refused where no instance can be launched of it.
    pub fn check_available(&self) -> Result<()> {
        if self.state() == "available" {
            return Ok(());
        }
        Err(Error::new(
            "InvalidAMIID.Unavailable",
            format!("The image id '[{}]' is not available: it is {}", self.image_id, self.state()),
        ))
    }

    pub fn state(&self) -> &'static str {
        match self.condition {
            Condition::Pending => "pending",
            Condition::Failed { .. } => "failed",
            Condition::Available if self.disabled => "disabled",
            Condition::Available => "available",
        }
    }

    pub fn root(&self) -> Option<&ImageBlockDevice> {
        self.block_devices.iter().find(|device| device.device_name == self.root_device_name)
    }

    /// `ImageLocation`: where an image that is backed by EBS would be, were it a manifest.
    fn location(&self) -> String {
        format!("{}/{}", self.owner_alias.as_deref().unwrap_or(self.owner.as_str()), self.name)
    }

    /// What its instances have their disks by.
    pub fn disk_bus(&self) -> Result<DiskBus> {
        match self.tags.get(DISKS_TAG) {
            None | Some("virtio") => Ok(DiskBus::Virtio),
            Some("nvme") => Ok(DiskBus::Nvme),
            Some(other) => Err(Error::invalid_parameter_value(format!(
                "The tag {DISKS_TAG} of {} is '{other}': it can be virtio or nvme",
                self.image_id
            ))),
        }
    }

    /// Whether the account may see and launch it.
    pub fn is_visible_to(&self, account: &AccountId) -> bool {
        self.public || self.owner == *account || self.launch_permissions.contains(account)
    }
}

/// The image that an account names, of those that it may see and use; the others do not exist for it.
pub fn seen(tables: &Tables, account: &AccountId, id: &str, now: Timestamp) -> Result<Arc<Image>> {
    Id::parse(Kind::Image, id)?;
    let settings: ImageSettings = settings::of(tables, account);
    let judge = Judge::new(&settings, now);
    let is_seen = |image: &&Arc<Image>| image.is_visible_to(account) && !judge.hides(image);
    tables.images.find(id).filter(is_seen).cloned().ok_or_else(|| Id::not_found(Kind::Image, id))
}

/// How long launches may go unnoted after another: EC2 tells of them a day late, and launches of one image at the
/// same time are not to wait for each other.
const LAUNCH_NOTED: Duration = Duration::from_secs(24 * 60 * 60);

pub fn note_launch(tx: &mut Tx<'_>, id: &Id) {
    let now = tx.now();
    let is_noted = |image: &Image| {
        image.last_launched_at.is_some_and(|at| now.duration_since(at).unsigned_abs() < LAUNCH_NOTED)
    };
    if tx.tables().images.find(id).is_some_and(|image| !is_noted(image))
        && let Some(image) = tx.get::<Image>(id)
    {
        tx.put(&Image { last_launched_at: Some(now), ..(*image).clone() });
    }
}

impl Record for Image {
    const TABLE: &'static str = "image";
    const INDEXED: &'static [&'static str] =
        &["name", "owner-id", "owner-alias", "block-device-mapping.snapshot-id"];

    fn id(&self) -> &str {
        &self.image_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let devices = || self.block_devices.iter();
        match name {
            "architecture" => filter::one(values, architecture_name(self.architecture)),
            "block-device-mapping.delete-on-termination" => {
                filter::many(values, devices().map(|device| filter::boolean(device.delete_on_termination)))
            }
            "block-device-mapping.device-name" => {
                filter::many(values, devices().map(|device| device.device_name.as_str()))
            }
            "block-device-mapping.encrypted" => {
                filter::many(values, devices().map(|device| filter::boolean(device.encrypted)))
            }
            "block-device-mapping.snapshot-id" => {
                filter::many(values, devices().filter_map(|device| device.snapshot_id.as_deref()))
            }
            "block-device-mapping.volume-size" => filter::many(
                values,
                devices().filter_map(|device| device.size_gib).map(|size| size.to_string()),
            ),
            "block-device-mapping.volume-type" => {
                filter::many(values, devices().map(|device| device.volume_type.as_str()))
            }
            "boot-mode" => filter::some(values, self.boot_mode.as_deref()),
            "creation-date" => filter::one(values, filter::time(self.created_at)),
            "description" => filter::one(values, self.description.as_str()),
            "ena-support" => filter::one(values, filter::boolean(self.ena_support)),
            "hypervisor" => filter::one(values, "xen"),
            "image-id" => filter::one(values, self.image_id.as_str()),
            "image-type" => filter::one(values, "machine"),
            "imds-support" => filter::some(values, self.imds_support.as_deref()),
            "is-public" => filter::one(values, filter::boolean(self.public)),
            "kernel-id" | "platform" | "product-code" | "product-code.type" | "ramdisk-id" => true,
            "source-image-id" => filter::some(values, self.source().map(|source| source.image_id.as_str())),
            "source-image-region" => filter::some(values, self.source().map(|source| source.region.as_str())),
            "tpm-support" => filter::some(values, tpm_support(self.tpm)),
            "manifest-location" => filter::one(values, self.location()),
            "name" => filter::one(values, self.name.as_str()),
            "owner-alias" => filter::some(values, self.owner_alias.as_deref()),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "platform-details" => filter::one(values, self.platform_details.as_str()),
            "root-device-name" => filter::one(values, self.root_device_name.as_str()),
            "root-device-type" => filter::one(values, "ebs"),
            "sriov-net-support" => filter::some(values, self.sriov_net_support.as_deref()),
            "state-reason-code" => filter::some(values, self.failure().map(|_| FAILURE)),
            "state-reason-message" => filter::some(values, self.failure()),
            "source-instance-id" => filter::some(values, self.source_instance_id.as_deref()),
            "state" => filter::one(values, self.state()),
            "usage-operation" => filter::one(values, "RunInstances"),
            "virtualization-type" => filter::one(values, "hvm"),
            _ => false,
        }
    }
}
