//! Snapshots that are taken go into the block store: some of the blocks at a time, so that its progress is seen. With the
//! last of them the image that is made of them is ready.

use super::{Snapshot, SnapshotState, create};
use crate::encryption;
use crate::engine::Tx;
use crate::image::{self, Image};
use crate::workflow::{self, Decision, Failure, Next, Steps, Work, World};
use agent_api::{HostError, SnapshotStore};
use async_trait::async_trait;
use model::{Id, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);
/// What is stored in one call, where that is done within it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const WHOLE: u8 = 100;

/// Has snapshots that are taken stored, and with the last of them their image ready.
pub fn begin(tx: &mut Tx<'_>, snapshots: Vec<Id>, image_id: Option<Id>) {
    for snapshot_id in &snapshots {
        progressed(tx, snapshot_id, 0);
    }
    workflow::begin(tx, Work::StoreSnapshots(StoreSnapshots { snapshots, stored: 0, image_id }));
}

/// Stores a snapshot while its caller waits; false where that takes long.
pub async fn at_once(store: &dyn SnapshotStore, snapshot_id: &str) -> std::result::Result<bool, HostError> {
    let whole = async {
        while store.store(snapshot_id).await? < WHOLE {}
        Ok(true)
    };
    tokio::time::timeout(ANSWER_WITHIN, whole).await.unwrap_or(Ok(false))
}

/// Stores snapshots that are taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreSnapshots {
    /// Never empty.
    snapshots: Vec<Id>,
    /// How many are whole.
    stored: usize,
    image_id: Option<Id>,
}

#[async_trait]
impl Steps for StoreSnapshots {
    fn deadline(&self) -> Duration {
        DEADLINE
    }

    fn subject(&self) -> &str {
        self.snapshots.first().map_or("", |snapshot_id| snapshot_id)
    }

    fn step(&self) -> &'static str {
        "storing snapshots"
    }

    async fn act(&self, world: &World) -> std::result::Result<Decision, Failure> {
        let work = self.clone();
        let Some(snapshot_id) = work.snapshots.get(work.stored).cloned() else {
            return workflow::decide(Next::Done);
        };
        let percent = match world.region.view.record::<Snapshot>(&snapshot_id) {
            Some(snapshot) => store_some(world, &snapshot).await?,
            // Deleted meanwhile.
            None => WHOLE,
        };
        Ok(Box::new(move |tx| {
            let mut work = work.clone();
            if percent < WHOLE {
                progressed(tx, &snapshot_id, percent);
            } else {
                create::complete(tx, &snapshot_id);
                work.stored += 1;
            }
            if work.stored < work.snapshots.len() {
                return Ok(Next::Step(Work::StoreSnapshots(work)));
            }
            work.end_image(tx, image::Condition::Available);
            Ok(Next::Done)
        }))
    }

    fn undo(&self, tx: &mut Tx<'_>, reason: &str) -> Result<()> {
        for snapshot_id in &self.snapshots[self.stored.min(self.snapshots.len())..] {
            create::fail(tx, snapshot_id, reason);
        }
        self.end_image(tx, image::Condition::Failed { message: reason.to_owned() });
        Ok(())
    }
}

async fn store_some(world: &World, snapshot: &Snapshot) -> std::result::Result<u8, Failure> {
    let told = encryption::tell(&world.control, &world.region, snapshot).await;
    told.map_err(|error| Failure::Never(error.message))?;
    match world.control.snapshots.store(&snapshot.snapshot_id).await {
        Ok(percent) => Ok(percent),
        // Deleted meanwhile.
        Err(HostError::NotFound(_)) => Ok(WHOLE),
        Err(HostError::Failed(message)) => Err(Failure::Again(message)),
    }
}

impl StoreSnapshots {
    fn end_image(&self, tx: &mut Tx<'_>, condition: image::Condition) {
        if let Some(image) = self.image_id.as_ref().and_then(|id| tx.get::<Image>(id)) {
            tx.put(&Image { condition, ..(*image).clone() });
        }
    }
}

fn progressed(tx: &mut Tx<'_>, snapshot_id: &Id, percent: u8) {
    if let Some(snapshot) = tx.get::<Snapshot>(snapshot_id)
        && snapshot.state == SnapshotState::Pending
        && snapshot.stored_percent != Some(percent)
    {
        tx.put(&Snapshot { stored_percent: Some(percent), ..(*snapshot).clone() });
    }
}
