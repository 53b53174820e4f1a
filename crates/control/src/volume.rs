//! EBS volumes as the API knows them. Their data lives on the host that `host_id` names.

use crate::engine::table::{Record, Values};
use crate::engine::{Tags, filter};
use model::{AccountId, Id, Text, Timestamp};
use serde::{Deserialize, Serialize};

pub mod describe;
pub mod performance;

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
    pub zone: Text,
    pub encrypted: bool,
    pub created_at: Timestamp,
    /// None while the volume is `available`.
    pub attachment: Option<VolumeAttachment>,
    /// The host that has the data; none before the volume is first needed.
    pub host_id: Option<Text>,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeAttachment {
    pub instance_id: Id,
    pub device_name: Text,
    pub delete_on_termination: bool,
    pub attached_at: Timestamp,
}

impl Volume {
    /// EC2's `VolumeState`.
    pub fn state(&self) -> &'static str {
        if self.attachment.is_some() { "in-use" } else { "available" }
    }
}

impl Record for Volume {
    const TABLE: &'static str = "volume";
    const INDEXED: &'static [&'static str] = &["attachment.instance-id", "snapshot-id"];

    fn id(&self) -> &str {
        &self.volume_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let attachment = self.attachment.as_ref();
        match name {
            "attachment.attach-time" => filter::some(values, attachment.map(|a| filter::time(a.attached_at))),
            "attachment.delete-on-termination" => {
                filter::some(values, attachment.map(|a| filter::boolean(a.delete_on_termination)))
            }
            "attachment.device" => filter::some(values, attachment.map(|a| a.device_name.as_str())),
            "attachment.instance-id" => filter::some(values, attachment.map(|a| a.instance_id.as_str())),
            "attachment.status" => filter::some(values, attachment.map(|_| "attached")),
            "availability-zone" => filter::one(values, self.zone.as_str()),
            "create-time" => filter::one(values, filter::time(self.created_at)),
            "encrypted" => filter::one(values, filter::boolean(self.encrypted)),
            "fast-restored" | "multi-attach-enabled" => filter::one(values, "false"),
            "size" => filter::one(values, self.size_gib.to_string()),
            "snapshot-id" => filter::some(values, self.snapshot_id.as_deref()),
            "status" => filter::one(values, self.state()),
            "volume-id" => filter::one(values, self.volume_id.as_str()),
            "volume-type" => filter::one(values, self.volume_type.as_str()),
            _ => false,
        }
    }
}
