//! Long operations as stored steps.
//!
//! ```text
//!   begin, in the caller's transaction ──▶ row
//!                                           │ due
//!        ┌──────────────────────────────────▼──────────────┐
//!        │ act: the step's effect; may fail, may be repeated │
//!        │ transaction: records and the row's next step      │──▶ done: the row goes
//!        └────────▲───────────────────────────┬────────────┘
//!                 └── next · wait · again ────┘──▶ never, or past its deadline: undo, and the row goes
//! ```
//!
//! Invariants: whatever a step did is lost or repeated by a crash, so its effect must be idempotent; the records that
//! it changes and the row that says so are written together or not at all; no state is in a task's memory alone;
//! every workflow ends.

use crate::Control;
use crate::engine::table::{Record, Values};
use crate::engine::{Tx, transaction};
use crate::region::RegionState;
use async_trait::async_trait;
use model::{Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument as _;

mod runner;

pub(crate) use runner::start;

/// The first pause after a failed attempt; doubled with each, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The steps of one kind of workflow: usually an enum.
#[async_trait]
pub trait Steps: Send + Sync {
    /// How long the whole may take before it is undone.
    fn deadline(&self) -> Duration;

    /// The resource that it is about. At most one workflow of a kind runs for one subject.
    fn subject(&self) -> &str;

    /// What it is doing, for those who watch.
    fn step(&self) -> &'static str;

    /// Has the step's effect. It may have had it before.
    async fn act(&self, world: &World) -> Result<Decision, Failure>;

    /// Makes good for what was begun: in the transaction that ends the workflow.
    fn undo(&self, tx: &mut Tx<'_>, reason: &str) -> Result<()>;
}

/// What a step works with.
pub struct World {
    pub control: Arc<Control>,
    pub region: Arc<RegionState>,
}

/// What the step's effect changes in the records, and what comes next.
pub type Decision = Box<dyn FnMut(&mut Tx<'_>) -> Result<Next> + Send>;

/// For effects that change no record.
pub fn decide(next: Next) -> Result<Decision, Failure> {
    Ok(Box::new(move |_| Ok(next.clone())))
}

#[derive(Clone, Debug)]
pub enum Next {
    Step(Work),
    /// The same step again, later.
    Wait(Duration),
    Done,
}

/// Why a step could not be done. The message is for the user.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// Trying again may help.
    Again(String),
    /// It will not.
    Never(String),
}

/// Lists every kind of workflow once.
macro_rules! workflows {
    ($($variant:ident($steps:ty) $kind:literal),+ $(,)?) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Work {
            $(#[serde(rename = $kind)] $variant($steps)),+
        }

        impl Work {
            /// All there are.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            pub fn kind(&self) -> &'static str {
                match self { $(Work::$variant(_) => $kind),+ }
            }

            pub fn steps(&self) -> &dyn Steps {
                match self { $(Work::$variant(steps) => steps),+ }
            }
        }
    };
}

workflows! {
    DeleteBlocks(crate::snapshot::DeleteBlocks) "delete-blocks",
    TakeSnapshots(crate::snapshot::create::TakeSnapshots) "take-snapshots",
    StoreSnapshots(crate::snapshot::store::StoreSnapshots) "store-snapshots",
    CopySnapshots(crate::snapshot::copy::CopySnapshots) "copy-snapshots",
    CopyVolume(crate::volume::copy::CopyVolume) "copy-volume",
    CreateImage(crate::image::create::CreateImage) "create-image",
    KeepSnapshotNear(crate::snapshot::fast_restore::KeepSnapshotNear) "keep-snapshot-near",
    ReplaceRootVolume(crate::replace_root_volume_task::ReplaceRootVolume) "replace-root-volume",
}

impl Work {
    fn key(&self) -> String {
        format!("{}:{}", self.kind(), self.steps().subject())
    }
}

/// A workflow's row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// Kind and subject.
    pub key: String,
    pub work: Work,
    /// The request that began it.
    #[serde(default)]
    pub request_id: Option<Box<str>>,
    pub begun_at: Timestamp,
    /// When the step is to be tried next.
    pub due_at: Timestamp,
    pub deadline_at: Timestamp,
    /// Failed ones, of this step.
    pub attempts: u32,
    pub last_error: Option<String>,
}

impl Record for Workflow {
    const TABLE: &'static str = "workflow";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        &self.key
    }

    fn field<'a>(&'a self, _: &str, _: &mut Values<'a>) -> bool {
        false
    }
}

impl Workflow {
    /// After a failed attempt.
    fn failed(&self, now: Timestamp, why: String) -> Workflow {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.attempts.min(16)).min(PAUSE_MAX);
        Workflow {
            due_at: later(now, pause),
            attempts: self.attempts.saturating_add(1),
            last_error: Some(why),
            ..self.clone()
        }
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// Begins a workflow with the transaction. One that runs already for the subject stays as it is.
pub fn begin(tx: &mut Tx<'_>, work: Work) {
    let (now, key) = (tx.now(), work.key());
    if tx.get::<Workflow>(&key).is_none() {
        let deadline_at = later(now, work.steps().deadline());
        tx.create(&Workflow {
            key,
            work,
            request_id: tx.request_id().map(Into::into),
            begun_at: now,
            due_at: now,
            deadline_at,
            attempts: 0,
            last_error: None,
        });
    }
}

/// How a turn of a workflow ended.
enum Turn {
    /// As its row says now.
    Stored,
    /// Nothing changed; look again after a while.
    Waiting(Duration),
}

/// One turn: the step's effect, then one transaction with all that follows from it.
async fn turn(world: &World, key: &str) -> Result<Turn> {
    let Some(row) = world.region.view.record::<Workflow>(key) else { return Ok(Turn::Stored) };
    let (step, request_id) = (row.work.steps().step(), row.request_id.as_deref());
    let span = tracing::info_span!("workflow", workflow = key, step, request_id);
    turn_of(world, &row).instrument(span).await
}

async fn turn_of(world: &World, row: &Arc<Workflow>) -> Result<Turn> {
    let key = row.key.as_str();
    let now = world.control.environment.clock.now();
    let acted = if now >= row.deadline_at {
        let last = row.last_error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        Err(Failure::Never(format!("{} was not done in time{last}", row.work.steps().step())))
    } else {
        row.work.steps().act(world).await
    };
    match &acted {
        Ok(_) => tracing::debug!("a step is done"),
        Err(failure) => tracing::warn!(?failure, "a step failed"),
    }
    let mut decided = acted;
    let (store, view) = (&*world.control.store, &world.region.view);
    let request_id = row.request_id.as_deref();
    transaction::transact_for(request_id, store, view, &world.control.environment, |tx| {
        // Somebody else may have ended or moved it meanwhile: then this turn is void.
        let Some(found) = tx.get::<Workflow>(key).filter(|found| *found == *row) else {
            return Ok(Turn::Stored);
        };
        let next = match &mut decided {
            Ok(decision) => decision(tx)?,
            Err(Failure::Again(why)) => {
                tx.put(&found.failed(tx.now(), why.clone()));
                return Ok(Turn::Stored);
            }
            Err(Failure::Never(why)) => {
                found.work.steps().undo(tx, why)?;
                Next::Done
            }
        };
        match next {
            Next::Done => tx.delete::<Workflow>(key),
            Next::Wait(pause) => return Ok(Turn::Waiting(pause)),
            Next::Step(work) => {
                debug_assert_eq!(work.key(), key, "a workflow keeps its kind and subject");
                tx.put(&Workflow {
                    work,
                    due_at: tx.now(),
                    attempts: 0,
                    last_error: None,
                    ..(*found).clone()
                });
            }
        }
        Ok(Turn::Stored)
    })
    .await
}
