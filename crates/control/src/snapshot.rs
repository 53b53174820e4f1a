//! EBS snapshots. Their blocks are in the `SnapshotStore`.

use crate::Context;
use crate::ebs_direct::Upload;
use crate::encryption::Encryption;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, Tx, filter, settings};
use crate::image::Image;
use crate::volume::Condition;
use crate::workflow::{self, Decision, Failure, Next, Steps, Work, World};
use agent_api::HostError;
use async_trait::async_trait;
use aws_api::ec2;
use model::{AccountId, Error, Id, Kind, Result, Timestamp};
use public_access::{PublicAccess, SnapshotSettings};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

pub mod attribute;
pub mod copy;
pub mod create;
pub mod fast_restore;
pub mod public_access;
pub mod store;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub snapshot_id: Id,
    pub owner: AccountId,
    /// EC2 shows `vol-ffffffff` where a snapshot was not made from a volume.
    pub volume_id: Option<Id>,
    pub size_gib: u32,
    pub description: String,
    pub state: SnapshotState,
    /// Why it is in error.
    #[serde(default)]
    pub state_message: Option<String>,
    /// How many percent of it are stored. None until it is taken: until then it may be of a later moment.
    #[serde(default)]
    pub stored_percent: Option<u8>,
    /// Of one that is uploaded and not complete yet.
    #[serde(default)]
    pub upload: Option<Upload>,
    pub started_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    #[serde(default)]
    pub encryption: Option<Encryption>,
    #[serde(default)]
    pub public: bool,
    /// Accounts that may make volumes of it beside its owner.
    #[serde(default)]
    pub create_volume_permissions: Vec<AccountId>,
    pub tags: Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    Pending,
    Completed,
    Error,
}

impl SnapshotState {
    pub fn name(self) -> &'static str {
        match self {
            SnapshotState::Pending => "pending",
            SnapshotState::Completed => "completed",
            SnapshotState::Error => "error",
        }
    }
}

/// How long to leave blocks that a volume is being made of.
const NEEDED_PAUSE: Duration = Duration::from_secs(1);

const NO_VOLUME: &str = "vol-ffffffff";

impl Snapshot {
    pub fn is_completed(&self) -> bool {
        self.state == SnapshotState::Completed
    }

    fn volume(&self) -> &str {
        self.volume_id.as_deref().unwrap_or(NO_VOLUME)
    }

    /// Whether it is still to be decided what it holds.
    pub fn is_being_taken(&self) -> bool {
        self.state == SnapshotState::Pending && self.stored_percent.is_none()
    }

    fn progress(&self) -> String {
        let percent = match (self.is_completed(), self.upload) {
            (true, _) => 100,
            (false, Some(upload)) => upload.percent,
            (false, None) => self.stored_percent.unwrap_or(0),
        };
        format!("{percent}%")
    }
}

impl Record for Snapshot {
    const TABLE: &'static str = "snapshot";
    const INDEXED: &'static [&'static str] = &["volume-id", "status"];

    fn id(&self) -> &str {
        &self.snapshot_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "description" => filter::one(values, self.description.as_str()),
            "encrypted" => filter::one(values, filter::boolean(self.encryption.is_some())),
            "owner-alias" => true,
            "owner-id" => filter::one(values, self.owner.as_str()),
            "progress" => filter::one(values, self.progress()),
            "snapshot-id" => filter::one(values, self.snapshot_id.as_str()),
            "start-time" => filter::one(values, filter::time(self.started_at)),
            "status" => filter::one(values, self.state.name()),
            "storage-tier" => filter::one(values, "standard"),
            "transfer-type" => true,
            "volume-id" => filter::one(values, self.volume()),
            "volume-size" => filter::one(values, self.size_gib.to_string()),
            _ => false,
        }
    }
}

pub async fn describe_snapshots(
    context: &Context,
    input: ec2::DescribeSnapshotsRequest,
) -> Result<ec2::DescribeSnapshotsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.snapshot_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "snapshotIds",
    };
    let account = context.account();
    let owned = |snapshot: &Snapshot| {
        input.owner_ids.is_empty()
            || input.owner_ids.iter().any(|owner| match owner.as_str() {
                "self" => snapshot.owner == *account,
                other => snapshot.owner.as_str() == other,
            })
    };
    let SnapshotSettings { public_access, .. } = settings::of(&tables, account);
    let is_public = |snapshot: &Snapshot| snapshot.public && public_access != PublicAccess::BlockAllSharing;
    let is_shared_with = |snapshot: &Snapshot, user: &str| {
        snapshot.create_volume_permissions.iter().any(|allowed| allowed.as_str() == user)
    };
    let restorable = |snapshot: &Snapshot| {
        input.restorable_by_user_ids.is_empty()
            || input.restorable_by_user_ids.iter().any(|user| match user.as_str() {
                "all" => is_public(snapshot),
                "self" => snapshot.owner == *account || is_shared_with(snapshot, account.as_str()),
                other => is_shared_with(snapshot, other),
            })
    };
    // A snapshot that is named is there or not, whoever owns it.
    let wanted = |snapshot: &Snapshot| owned(snapshot) && restorable(snapshot);
    let visible = |snapshot: &Snapshot| !input.snapshot_ids.is_empty() || wanted(snapshot);
    let mut page = describe::select(&tables.snapshots, Kind::Snapshot, &query, visible, |_, _, _| false)?;
    page.records.retain(|snapshot| wanted(snapshot));
    Ok(ec2::DescribeSnapshotsResult {
        snapshots: page.records.iter().map(|snapshot| to_api(snapshot)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(snapshot: &Snapshot) -> ec2::Snapshot {
    ec2::Snapshot {
        snapshot_id: Some(snapshot.snapshot_id.to_string()),
        owner_id: Some(snapshot.owner.to_string()),
        volume_id: Some(snapshot.volume().to_owned()),
        volume_size: Some(snapshot.size_gib as i32),
        description: Some(snapshot.description.clone()),
        state: Some(snapshot.state.name().into()),
        state_message: snapshot.state_message.clone(),
        progress: Some(snapshot.progress()),
        start_time: Some(snapshot.started_at),
        completion_time: snapshot.completed_at,
        encrypted: Some(snapshot.encryption.is_some()),
        kms_key_id: snapshot.encryption.as_ref().map(|encryption| encryption.kms_key_id.to_string()),
        storage_tier: Some("standard".into()),
        tags: snapshot.tags.to_api(),
        ..Default::default()
    }
}

/// A snapshot that volumes can be made of.
pub fn to_make_volumes_of(tables: &Tables, id: &str) -> Result<Arc<Snapshot>> {
    Id::parse(Kind::Snapshot, id)?;
    let snapshot = tables.snapshots.find(id).ok_or_else(|| Id::not_found(Kind::Snapshot, id))?;
    if !snapshot.is_completed() {
        return Err(Error::new("IncorrectState", format!("Snapshot '{id}' is not completed.")));
    }
    Ok(snapshot.clone())
}

/// Refused while an image is made of it; volumes made of it keep what they need.
pub async fn delete_snapshot(context: &Context, input: ec2::DeleteSnapshotRequest) -> Result<()> {
    let id = Id::parse(Kind::Snapshot, input.snapshot_id.as_deref().unwrap_or_default())?;
    context.transact(|tx| delete(tx, &id, None)).await
}

/// Deletes the record, unless an image other than `but` is made of the snapshot, and its blocks afterwards.
pub fn delete(tx: &mut Tx<'_>, id: &Id, but: Option<&Id>) -> Result<()> {
    tx.get::<Snapshot>(id).ok_or_else(|| Id::not_found(Kind::Snapshot, id))?;
    let images = tx.tables().images.with("block-device-mapping.snapshot-id", id);
    let user = images.map(|image: &Arc<Image>| &image.image_id).find(|image_id| Some(*image_id) != but);
    if let Some(image_id) = user {
        return Err(Error::new(
            "InvalidSnapshot.InUse",
            format!("The snapshot {id} is currently in use by {image_id}"),
        ));
    }
    tx.delete::<Snapshot>(id);
    fast_restore::forget(tx, id);
    workflow::begin(tx, Work::DeleteBlocks(DeleteBlocks { snapshot_id: id.clone() }));
    Ok(())
}

/// The workflow that gives back the room of a snapshot whose record is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteBlocks {
    pub snapshot_id: Id,
}

impl DeleteBlocks {
    /// Whether a volume is still being made of it.
    fn is_needed(&self, world: &World) -> bool {
        let tables = world.region.view.read();
        tables
            .volumes
            .with("snapshot-id", &self.snapshot_id)
            .any(|volume| volume.condition == Condition::Creating)
    }
}

#[async_trait]
impl Steps for DeleteBlocks {
    /// A disk may be away for long, and nobody waits.
    fn deadline(&self) -> Duration {
        Duration::from_secs(7 * 24 * 60 * 60)
    }

    fn subject(&self) -> &str {
        &self.snapshot_id
    }

    fn step(&self) -> &'static str {
        "deleting blocks"
    }

    async fn act(&self, world: &World) -> Result<Decision, Failure> {
        if self.is_needed(world) {
            return workflow::decide(Next::Wait(NEEDED_PAUSE));
        }
        match world.control.snapshots.delete(&self.snapshot_id).await {
            Ok(()) | Err(HostError::NotFound(_)) => workflow::decide(Next::Done),
            Err(HostError::Failed(message)) => Err(Failure::Again(message)),
        }
    }

    fn undo(&self, _: &mut Tx<'_>, reason: &str) -> Result<()> {
        tracing::error!(snapshot_id = %self.snapshot_id, reason, "the blocks of a deleted snapshot are left over");
        Ok(())
    }
}
