//! EBS volumes as the API knows them. Their data lives on the host that `host_id` names.
//!
//! A call changes the record and returns; the reconciler tells the host, and what the host observes of the volume
//! (`create::observed`) and of its instance's disks (`attach::observed`) moves the record on.

use crate::attachment::AttachmentState;
use crate::encryption::Encryption;
use crate::engine::table::{Record, Values};
use crate::engine::{Tags, filter};
use crate::instance::ON_HOST;
use model::{AccountId, Error, Id, Result, Text, Timestamp};
use serde::{Deserialize, Serialize};

pub mod attach;
pub mod copy;
pub mod create;
pub mod describe;
mod initialization;
pub mod modify;
pub mod performance;
pub mod specification;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    pub volume_id: Id,
    pub owner: AccountId,
    pub size_gib: u32,
    /// `gp3` and so on.
    pub volume_type: Text,
    pub iops: Option<i32>,
    pub throughput: Option<i32>,
    pub snapshot_id: Option<Id>,
    #[serde(default)]
    pub copied: Option<Box<copy::Copied>>,
    pub zone: Text,
    #[serde(default)]
    pub encryption: Option<Encryption>,
    pub created_at: Timestamp,
    #[serde(default)]
    pub condition: Condition,
    /// Its host had its data and has it no more.
    #[serde(default)]
    pub lost: bool,
    /// None where no instance has it.
    pub attachment: Option<VolumeAttachment>,
    /// The latest one, under way or over.
    #[serde(default)]
    pub modification: Option<Box<modify::Modification>>,
    /// Whether it stays readable and writable after its data may have been damaged.
    #[serde(default)]
    pub auto_enable_io: bool,
    /// In MiB a second.
    #[serde(default)]
    pub initialization_rate: Option<i32>,
    /// It was made of a snapshot of which nothing had to come first.
    #[serde(default)]
    pub fast_restored: bool,
    /// The host that has the data, or shall have it.
    pub host_id: Option<Text>,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeAttachment {
    pub instance_id: Id,
    pub device_name: Text,
    pub delete_on_termination: bool,
    pub attached_at: Timestamp,
    #[serde(default)]
    pub state: AttachmentState,
}

/// Where a volume is between being asked for and being gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Its host has not said yet that it has it.
    Creating,
    #[default]
    Made,
    /// Its host could not make it.
    Failed,
    /// It goes once the snapshots that are being made of it are whole.
    Deleting,
}

impl Volume {
    /// One that shall be made: empty, of the default type, on no host yet. The rest is for the caller to say.
    pub fn new(volume_id: Id, owner: AccountId, size_gib: u32, zone: Text, now: Timestamp) -> Volume {
        Volume {
            volume_id,
            owner,
            size_gib,
            volume_type: create::TYPE_DEFAULT.into(),
            iops: None,
            throughput: None,
            snapshot_id: None,
            copied: None,
            zone,
            encryption: None,
            created_at: now,
            condition: Condition::Creating,
            lost: false,
            attachment: None,
            modification: None,
            auto_enable_io: false,
            initialization_rate: None,
            fast_restored: false,
            host_id: None,
            tags: Tags::default(),
        }
    }

    /// EC2's `VolumeState`.
    pub fn state(&self) -> &'static str {
        match self.condition {
            Condition::Deleting => "deleting",
            _ if self.attachment.is_some() => "in-use",
            Condition::Creating => "creating",
            Condition::Made if self.lost => "error",
            Condition::Made => "available",
            Condition::Failed => "error",
        }
    }

    /// Whether it can be attached, modified and snapshotted, or EC2's error.
    pub fn check_usable(&self) -> Result<()> {
        match self.state() {
            "available" | "in-use" => Ok(()),
            state => Err(Error::new(
                "IncorrectState",
                format!("The volume '{}' is in the '{state}' state.", self.volume_id),
            )),
        }
    }
}

impl Record for Volume {
    const TABLE: &'static str = "volume";
    const INDEXED: &'static [&'static str] =
        &["attachment.instance-id", "snapshot-id", copy::SOURCE, ON_HOST];

    fn id(&self) -> &str {
        &self.volume_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let attachment = self.attachment.as_ref();
        match name {
            ON_HOST => filter::some(values, self.host_id.as_deref()),
            copy::SOURCE => filter::some(values, self.copied.as_ref().map(|copied| &*copied.source)),
            "attachment.attach-time" => filter::some(values, attachment.map(|a| filter::time(a.attached_at))),
            "attachment.delete-on-termination" => {
                filter::some(values, attachment.map(|a| filter::boolean(a.delete_on_termination)))
            }
            "attachment.device" => filter::some(values, attachment.map(|a| a.device_name.as_str())),
            "attachment.instance-id" => filter::some(values, attachment.map(|a| a.instance_id.as_str())),
            "attachment.status" => filter::some(values, attachment.map(|a| a.state.name())),
            "availability-zone" => filter::one(values, self.zone.as_str()),
            "create-time" => filter::one(values, filter::time(self.created_at)),
            "encrypted" => filter::one(values, filter::boolean(self.encryption.is_some())),
            "fast-restored" => filter::one(values, filter::boolean(self.fast_restored)),
            "multi-attach-enabled" => filter::one(values, "false"),
            "size" => filter::one(values, self.size_gib.to_string()),
            "snapshot-id" => filter::some(values, self.snapshot_id.as_deref()),
            "status" => filter::one(values, self.state()),
            "volume-id" => filter::one(values, self.volume_id.as_str()),
            "volume-type" => filter::one(values, self.volume_type.as_str()),
            _ => false,
        }
    }
}
