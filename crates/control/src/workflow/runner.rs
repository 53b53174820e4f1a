//! Gives every workflow of a region its turns: one at a time each, many at once.

use super::{Turn, Workflow, World, turn};
use crate::Control;
use crate::engine::{Change, Tables};
use crate::region::RegionState;
use model::{Result, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{Id, JoinError, JoinSet};

/// Most workflows that have their turn at the same time.
const TURNS_MAX: usize = 64;
/// How long to leave a workflow alone whose turn could not be stored: the store says why in the log.
const PAUSE_UNSTORED: Duration = Duration::from_secs(1);

pub(crate) fn start(control: &Arc<Control>, region: &Arc<RegionState>) {
    let mut changes = region.view.changes();
    let mut runner =
        Runner { control: Arc::downgrade(control), region: Arc::downgrade(region), ..Runner::default() };
    runner.look(&region.view.read());
    tokio::spawn(async move {
        while let Some(pause) = runner.start_due() {
            tokio::select! {
                // In order, not by chance: a seed replays.
                biased;
                notice = changes.recv() => match notice {
                    Ok(batch) => batch.iter().for_each(|change| runner.note(change)),
                    Err(RecvError::Lagged(_)) => match runner.region.upgrade() {
                        Some(region) => runner.look(&region.view.read()),
                        None => return,
                    },
                    Err(RecvError::Closed) => return,
                },
                Some(ended) = runner.turns.join_next_with_id() => runner.ended(ended),
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

#[derive(Default)]
struct Runner {
    control: Weak<Control>,
    region: Weak<RegionState>,
    /// When each workflow that has no turn now is to have one, in both directions.
    due: BTreeSet<(Timestamp, String)>,
    due_of: BTreeMap<String, Timestamp>,
    turns: JoinSet<Result<Turn>>,
    having: HashMap<Id, String>,
    running: BTreeSet<String>,
}

impl Runner {
    /// Takes in all rows as they are.
    fn look(&mut self, tables: &Tables) {
        for row in tables.workflows.iter() {
            self.plan(&row.key, Some(row.due_at));
        }
    }

    fn note(&mut self, change: &Change) {
        if let Change::Workflow { old, new } = change {
            for row in old.iter().chain(new).take(1) {
                self.plan(&row.key, new.as_ref().map(|row| row.due_at));
            }
        }
    }

    fn plan(&mut self, key: &str, due_at: Option<Timestamp>) {
        if let Some(before) = self.due_of.remove(key) {
            self.due.remove(&(before, key.to_owned()));
        }
        // One that has its turn is planned when that ends.
        if let Some(due_at) = due_at.filter(|_| !self.running.contains(key)) {
            self.due.insert((due_at, key.to_owned()));
            self.due_of.insert(key.to_owned(), due_at);
        }
    }

    /// Starts the turns that are due; returns how long until the next is. None once the cloud is gone.
    fn start_due(&mut self) -> Option<Duration> {
        let (control, region) = (self.control.upgrade()?, self.region.upgrade()?);
        let now = control.environment.clock.now();
        while let Some((due_at, key)) = self.due.first().cloned() {
            if due_at > now || self.running.len() >= TURNS_MAX {
                // What keeps others waiting ends with a turn, which wakes us.
                return Some(due_at.duration_since(now).unsigned_abs().max(Duration::from_millis(1)));
            }
            self.plan(&key, None);
            let world = World { control: control.clone(), region: region.clone() };
            let its = key.clone();
            let turn = self.turns.spawn(async move { turn(&world, &its).await });
            self.having.insert(turn.id(), key.clone());
            self.running.insert(key);
        }
        Some(Duration::from_secs(3600))
    }

    fn ended(&mut self, ended: Result<(Id, Result<Turn>), JoinError>) {
        let (id, pause) = match ended {
            Ok((id, Ok(Turn::Stored))) => (id, None),
            Ok((id, Ok(Turn::Waiting(pause)))) => (id, Some(pause)),
            Ok((id, Err(error))) => {
                tracing::error!(%error, "a workflow's turn was not stored");
                (id, Some(PAUSE_UNSTORED))
            }
            Err(error) => {
                tracing::error!(%error, "a workflow's turn broke off");
                (error.id(), Some(super::PAUSE_MAX))
            }
        };
        let (Some(key), Some(control), Some(region)) =
            (self.having.remove(&id), self.control.upgrade(), self.region.upgrade())
        else {
            return;
        };
        self.running.remove(&key);
        let row = region.view.record::<Workflow>(&key);
        let now = control.environment.clock.now();
        let due_at = row.map(|row| match pause {
            // Not past its deadline: then it is to be undone.
            Some(pause) => {
                super::later(now, pause).min(row.deadline_at.max(super::later(now, PAUSE_UNSTORED)))
            }
            None => row.due_at,
        });
        self.plan(&key, due_at);
    }
}
