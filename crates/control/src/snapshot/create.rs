//! CreateSnapshot and CreateSnapshots: the records are made at once, the host takes the snapshots as a workflow.

use super::{DeleteBlocks, Snapshot, SnapshotState, store, to_api};
use crate::Context;
use crate::description;
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::engine::{Tables, Tags, Tx};
use crate::instance::Instance;
use crate::volume::{Condition, Volume, copy};
use crate::workflow::{self, Decision, Failure, Next, Steps, Work, World};
use agent_api::{HostError, NewSnapshot};
use async_trait::async_trait;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// The longest that a call waits for snapshots to be taken.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How long a snapshot may take to be whole.
const DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

pub async fn create_snapshot(context: &Context, input: ec2::CreateSnapshotRequest) -> Result<ec2::Snapshot> {
    refuse_places(&input.outpost_arn, input.location.as_deref())?;
    let volume_id = Id::parse(Kind::Volume, input.volume_id.as_deref().unwrap_or_default())?;
    let description = input.description.as_deref().unwrap_or_default();
    description::check(description)?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::Snapshot])?.of(Kind::Snapshot);
    let snapshot = context
        .transact(|tx| {
            let volume =
                tx.get::<Volume>(&volume_id).ok_or_else(|| Id::not_found(Kind::Volume, &volume_id))?;
            let snapshot = make(tx, &volume, description, tags.clone())?;
            begin(tx, std::slice::from_ref(&snapshot));
            Ok(snapshot)
        })
        .await?;
    taken(context, [&snapshot.snapshot_id]).await;
    Ok(to_api(&snapshot))
}

pub async fn create_snapshots(
    context: &Context,
    input: ec2::CreateSnapshotsRequest,
) -> Result<ec2::CreateSnapshotsResult> {
    refuse_places(&input.outpost_arn, input.location.as_deref())?;
    let instance = input.instance_specification.as_ref();
    let instance = instance.ok_or_else(|| Error::missing_parameter("InstanceSpecification"))?;
    let instance_id = Id::parse(Kind::Instance, instance.instance_id.as_deref().unwrap_or_default())?;
    let excluded = instance
        .exclude_data_volume_ids
        .iter()
        .map(|id| Id::parse(Kind::Volume, id))
        .collect::<Result<_>>()?;
    let without_root = instance.exclude_boot_volume.unwrap_or(false);
    let description = input.description.as_deref().unwrap_or_default();
    description::check(description)?;
    let copies_tags = match input.copy_tags_from_source.as_deref() {
        None => false,
        Some("volume") => true,
        Some(other) => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter copyTagsFromSource is invalid. The valid value is volume."
            )));
        }
    };
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::Snapshot])?.of(Kind::Snapshot);
    let snapshots = context
        .transact(|tx| {
            let instance = tx
                .get::<Instance>(&instance_id)
                .ok_or_else(|| Id::not_found(Kind::Instance, &instance_id))?;
            let volumes = volumes_of(&instance, without_root, &excluded)?;
            let mut snapshots = Vec::with_capacity(volumes.len());
            for volume_id in volumes {
                let volume =
                    tx.get::<Volume>(&volume_id).ok_or_else(|| Id::not_found(Kind::Volume, &volume_id))?;
                let mut all = if copies_tags { volume.tags.clone() } else { Tags::default() };
                all.set(&tags)?;
                snapshots.push(make(tx, &volume, description, all)?);
            }
            begin(tx, &snapshots);
            Ok(snapshots)
        })
        .await?;
    taken(context, snapshots.iter().map(|snapshot| &snapshot.snapshot_id)).await;
    let info = |snapshot: &Snapshot| {
        let api = to_api(snapshot);
        ec2::SnapshotInfo {
            description: api.description,
            tags: api.tags,
            encrypted: api.encrypted,
            volume_id: api.volume_id,
            state: api.state,
            volume_size: api.volume_size,
            start_time: api.start_time,
            progress: api.progress,
            owner_id: api.owner_id,
            snapshot_id: api.snapshot_id,
            ..Default::default()
        }
    };
    Ok(ec2::CreateSnapshotsResult { snapshots: snapshots.iter().map(info).collect() })
}

/// The volumes of an instance that are not left out; refused where one is named that it has not, or none is left.
fn volumes_of(instance: &Instance, without_root: bool, excluded: &BTreeSet<Id>) -> Result<Vec<Id>> {
    let is_root = |device_name: &str| device_name == instance.root_device_name;
    let has =
        |id: &Id| instance.disks.iter().any(|disk| disk.volume_id == *id && !is_root(&disk.device_name));
    if let Some(other) = excluded.iter().find(|id| !has(id)) {
        return Err(Error::invalid_parameter_value(format!(
            "The volume '{other}' is no data volume of the instance '{}'",
            instance.instance_id
        )));
    }
    let volumes: Vec<Id> = instance
        .disks
        .iter()
        .filter(|disk| !(without_root && is_root(&disk.device_name)))
        .filter(|disk| !excluded.contains(&disk.volume_id))
        .map(|disk| disk.volume_id.clone())
        .collect();
    if volumes.is_empty() {
        return Err(Error::invalid_parameter_value(format!(
            "No volume of the instance '{}' is left to make a snapshot of",
            instance.instance_id
        )));
    }
    Ok(volumes)
}

/// Where snapshots are not kept in this cloud.
fn refuse_places(outpost_arn: &Option<String>, location: Option<&str>) -> Result<()> {
    refuse([(given(outpost_arn), "Outposts are"), (is_local(location), LOCAL_SNAPSHOTS)])
}

pub const LOCAL_SNAPSHOTS: &str = "Local snapshots are";

pub fn is_local(location: Option<&str>) -> bool {
    location.is_some_and(|location| location != "regional")
}

/// The record of a snapshot that is about to be taken; `begin` has it taken.
pub fn make(tx: &mut Tx<'_>, volume: &Volume, description: &str, tags: Tags) -> Result<Snapshot> {
    volume.check_usable()?;
    let snapshot = Snapshot {
        snapshot_id: tx.new_id(Kind::Snapshot),
        owner: volume.owner.clone(),
        volume_id: Some(volume.volume_id.clone()),
        size_gib: volume.size_gib,
        description: description.to_owned(),
        state: SnapshotState::Pending,
        state_message: None,
        stored_percent: None,
        upload: None,
        encryption: volume.encryption.clone(),
        public: false,
        create_volume_permissions: Vec::new(),
        started_at: tx.now(),
        completed_at: None,
        tags,
    };
    tx.create(&snapshot);
    // Written as it is, so that whoever deletes it at the same time must look again.
    tx.put(volume);
    Ok(snapshot)
}

/// Has snapshots taken, all of one moment: of volumes of one instance, or of one volume.
pub fn begin(tx: &mut Tx<'_>, snapshots: &[Snapshot]) {
    let pairs = snapshots.iter().filter_map(|snapshot| {
        let volume_id = snapshot.volume_id.clone()?;
        Some(NewSnapshot { snapshot_id: snapshot.snapshot_id.clone(), volume_id })
    });
    workflow::begin(tx, Work::TakeSnapshots(TakeSnapshots { snapshots: pairs.collect() }));
}

/// Waits until snapshots are taken, so that nothing is in them that is written after the call; where that takes long
/// the call is answered all the same.
pub async fn taken(context: &Context, snapshots: impl IntoIterator<Item = &Id> + Clone) {
    let are_taken = |tables: &Tables| {
        let mut found = snapshots.clone().into_iter().filter_map(|id| tables.snapshots.find(id));
        !found.any(|snapshot| snapshot.is_being_taken())
    };
    until(context, are_taken).await;
}

/// Waits until that is so, but not long.
pub async fn until(context: &Context, is_so: impl Fn(&Tables) -> bool) {
    let mut changes = context.region.view.changes();
    let waiting = async {
        // A lag only means that there were many changes.
        while !is_so(&context.tables()) && !matches!(changes.recv().await, Err(RecvError::Closed)) {}
    };
    // Not in time is no error.
    let _ = tokio::time::timeout(ANSWER_WITHIN, waiting).await;
}

/// Whether a snapshot of the volume is not taken yet. The transaction depends on it.
pub fn is_being_taken(tx: &mut Tx<'_>, volume_id: &str) -> bool {
    let snapshots = tx.tables().snapshots.with("volume-id", volume_id);
    let pending: Vec<_> = snapshots.filter(|snapshot| snapshot.is_being_taken()).cloned().collect();
    for snapshot in &pending {
        tx.get::<Snapshot>(&snapshot.snapshot_id);
    }
    !pending.is_empty()
}

/// Takes snapshots that have their records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TakeSnapshots {
    /// Never empty.
    pub snapshots: Vec<NewSnapshot>,
}

#[async_trait]
impl Steps for TakeSnapshots {
    fn deadline(&self) -> Duration {
        DEADLINE
    }

    fn subject(&self) -> &str {
        self.snapshots.first().map_or("", |new| &new.snapshot_id)
    }

    fn step(&self) -> &'static str {
        "taking snapshots"
    }

    async fn act(&self, world: &World) -> Result<Decision, Failure> {
        take(world, &self.snapshots).await?;
        let snapshots = self.snapshots.clone();
        Ok(Box::new(move |tx| {
            have_stored(tx, &snapshots, None);
            Ok(Next::Done)
        }))
    }

    fn undo(&self, tx: &mut Tx<'_>, reason: &str) -> Result<()> {
        failed(tx, &self.snapshots, reason);
        Ok(())
    }
}

/// Has the host take snapshots; they hold what they shall once this returns.
pub async fn take(world: &World, snapshots: &[NewSnapshot]) -> Result<(), Failure> {
    let host_id = {
        let tables = world.region.view.read();
        let mut volumes = snapshots.iter().filter_map(|new| tables.volumes.find(&new.volume_id));
        let host_id = volumes.clone().next().and_then(|volume| volume.host_id.clone());
        if let Some(lost) = volumes.find(|volume| volume.lost) {
            let message = format!("The data of the volume {} is not on its host any more", lost.volume_id);
            return Err(Failure::Never(message));
        }
        host_id
    };
    let host = host_id.as_deref().and_then(|id| world.region.host(id));
    let host = host.ok_or_else(|| Failure::Never("The volume's host is no more".into()))?;
    let taken = host.agent.create_snapshots(snapshots.to_vec()).await;
    taken.map_err(|error| match error {
        // It may not have been told of the volume yet.
        HostError::NotFound(what) => Failure::Again(format!("{what} is not on its host")),
        HostError::Failed(message) => Failure::Again(message),
    })
}

/// The snapshots are taken and are to be stored. With the last of a volume that was deleted meanwhile the volume goes.
pub fn have_stored(tx: &mut Tx<'_>, snapshots: &[NewSnapshot], image_id: Option<Id>) {
    store::begin(tx, snapshots.iter().map(|new| new.snapshot_id.clone()).collect(), image_id);
    let_volumes_go(tx, snapshots);
}

/// The snapshots are not to be had.
pub fn failed(tx: &mut Tx<'_>, snapshots: &[NewSnapshot], reason: &str) {
    for new in snapshots {
        fail(tx, &new.snapshot_id, reason);
    }
    let_volumes_go(tx, snapshots);
}

/// One snapshot is whole, or was deleted meanwhile and is left to be.
pub fn complete(tx: &mut Tx<'_>, snapshot_id: &Id) {
    let completed_at = Some(tx.now());
    match tx.get::<Snapshot>(snapshot_id) {
        Some(snapshot) => {
            tx.put(&Snapshot { state: SnapshotState::Completed, completed_at, ..(*snapshot).clone() });
        }
        None => delete_blocks(tx, snapshot_id),
    }
}

/// One snapshot is not to be had.
pub fn fail(tx: &mut Tx<'_>, snapshot_id: &Id, reason: &str) {
    if let Some(snapshot) = tx.get::<Snapshot>(snapshot_id) {
        let state_message = Some(reason.to_owned());
        tx.put(&Snapshot { state: SnapshotState::Error, state_message, ..(*snapshot).clone() });
    }
    delete_blocks(tx, snapshot_id);
}

fn delete_blocks(tx: &mut Tx<'_>, snapshot_id: &Id) {
    workflow::begin(tx, Work::DeleteBlocks(DeleteBlocks { snapshot_id: snapshot_id.clone() }));
}

/// Volumes that were deleted while snapshots or copies of them were taken, and have none under way but these.
pub fn let_volumes_go(tx: &mut Tx<'_>, taken: &[NewSnapshot]) {
    let volumes: BTreeSet<&Id> = taken.iter().map(|new| &new.volume_id).collect();
    for volume_id in volumes {
        let Some(volume) = tx.get::<Volume>(volume_id) else { continue };
        if volume.condition != Condition::Deleting {
            continue;
        }
        let others = tx.tables().snapshots.with("volume-id", volume_id).filter(|snapshot| {
            snapshot.is_being_taken() && !taken.iter().any(|new| new.snapshot_id == snapshot.snapshot_id)
        });
        let others: Vec<Id> = others.map(|snapshot| snapshot.snapshot_id.clone()).collect();
        if others.is_empty() && !copy::is_under_way(tx, volume_id, taken) {
            tx.delete::<Volume>(volume_id);
        }
        // Of two that end at one moment neither shall leave the volume to the other.
        for other in &others {
            tx.get::<Snapshot>(other);
        }
    }
}
