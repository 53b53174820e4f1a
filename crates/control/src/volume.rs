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
use serde::{Deserialize, Deserializer, Serialize};
use smallvec::SmallVec;

pub mod attach;
pub mod copy;
pub mod create;
pub mod describe;
mod initialization;
pub mod modify;
pub mod multi_attach;
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
    /// Whether several instances can have it at once.
    #[serde(default)]
    pub multi_attach: bool,
    /// One of each instance that has it.
    #[serde(default, alias = "attachment", deserialize_with = "one_or_several")]
    pub attachments: SmallVec<[VolumeAttachment; 1]>,
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

/// Records were of one attachment at most before there could be several.
fn one_or_several<'de, D: Deserializer<'de>>(
    found: D,
) -> std::result::Result<SmallVec<[VolumeAttachment; 1]>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Found {
        Several(SmallVec<[VolumeAttachment; 1]>),
        One(Option<VolumeAttachment>),
    }
    Ok(match Found::deserialize(found)? {
        Found::Several(all) => all,
        Found::One(one) => one.into_iter().collect(),
    })
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
            multi_attach: false,
            attachments: SmallVec::new(),
            modification: None,
            auto_enable_io: false,
            initialization_rate: None,
            fast_restored: false,
            host_id: None,
            tags: Tags::default(),
        }
    }

    /// By which the instance has it.
    pub fn attachment_to(&self, instance_id: &str) -> Option<&VolumeAttachment> {
        self.attachments.iter().find(|attachment| *attachment.instance_id == *instance_id)
    }

    pub fn attachment_to_mut(&mut self, instance_id: &str) -> Option<&mut VolumeAttachment> {
        self.attachments.iter_mut().find(|attachment| *attachment.instance_id == *instance_id)
    }

    /// The instance has it no more.
    pub fn detached_from(&self, instance_id: &str) -> Volume {
        let mut volume = self.clone();
        volume.attachments.retain(|attachment| *attachment.instance_id != *instance_id);
        volume
    }

    /// EC2's `VolumeState`.
    pub fn state(&self) -> &'static str {
        match self.condition {
            Condition::Deleting => "deleting",
            _ if !self.attachments.is_empty() => "in-use",
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
        let attachments = self.attachments.iter();
        match name {
            ON_HOST => filter::some(values, self.host_id.as_deref()),
            copy::SOURCE => filter::some(values, self.copied.as_ref().map(|copied| &*copied.source)),
            "attachment.attach-time" => {
                filter::many(values, attachments.map(|a| filter::time(a.attached_at)))
            }
            "attachment.delete-on-termination" => {
                filter::many(values, attachments.map(|a| filter::boolean(a.delete_on_termination)))
            }
            "attachment.device" => filter::many(values, attachments.map(|a| a.device_name.as_str())),
            "attachment.instance-id" => filter::many(values, attachments.map(|a| a.instance_id.as_str())),
            "attachment.status" => filter::many(values, attachments.map(|a| a.state.name())),
            "availability-zone" => filter::one(values, self.zone.as_str()),
            "create-time" => filter::one(values, filter::time(self.created_at)),
            "encrypted" => filter::one(values, filter::boolean(self.encryption.is_some())),
            "fast-restored" => filter::one(values, filter::boolean(self.fast_restored)),
            "multi-attach-enabled" => filter::one(values, filter::boolean(self.multi_attach)),
            "size" => filter::one(values, self.size_gib.to_string()),
            "snapshot-id" => filter::some(values, self.snapshot_id.as_deref()),
            "status" => filter::one(values, self.state()),
            "volume-id" => filter::one(values, self.volume_id.as_str()),
            "volume-type" => filter::one(values, self.volume_type.as_str()),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn records_of_one_attachment_at_most_are_read() {
        let id = Id::parse(model::Kind::Volume, "vol-0123456789abcdef0").unwrap();
        let (owner, now) = ("123456789012".parse().unwrap(), "2026-03-01T12:00:00Z".parse().unwrap());
        let volume = Volume::new(id, owner, 8, "us-east-1a".into(), now);
        let attachment = VolumeAttachment {
            instance_id: Id::parse(model::Kind::Instance, "i-0123456789abcdef0").unwrap(),
            device_name: "/dev/sdf".into(),
            delete_on_termination: false,
            attached_at: now,
            state: AttachmentState::Attached,
        };
        let read = |name: &str, found: serde_json::Value| {
            let mut record = serde_json::to_value(&volume).unwrap();
            record.as_object_mut().unwrap().remove("attachments");
            record[name] = found;
            serde_json::from_slice::<Volume>(&serde_json::to_vec(&record).unwrap()).unwrap().attachments
        };
        assert!(read("attachment", json!(null)).is_empty() && read("else", json!(1)).is_empty());
        let one = json!(attachment);
        assert_eq!(read("attachment", one.clone())[0], attachment);
        assert_eq!(read("attachments", json!([one.clone(), one])).len(), 2);
    }
}
