//! What happened lately in a region, for those who watch: told from the changes of its records, so that it costs no
//! write and can't disagree with them. Kept in memory, the newest few thousand.

use crate::engine::Claim;
use crate::engine::table::Record;
use crate::engine::token::ClientToken;
use crate::engine::{Change, Was};
use crate::instance::Instance;
use crate::instance::status::Statuses;
use crate::region::RegionState;
use crate::{Control, workflow::Workflow};
use model::Timestamp;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

/// How many are kept.
const KEPT: usize = 4096;

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Counted from the cloud's start.
    pub number: u64,
    pub at: Timestamp,
    /// `instance`, `volume` and so on.
    pub kind: &'static str,
    pub id: String,
    pub message: String,
    /// The request that it follows from, where there is one.
    pub request_id: Option<Box<str>>,
}

pub struct Events {
    kept: Mutex<VecDeque<Event>>,
    /// The number of the newest.
    newest: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Events { kept: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl Events {
    pub(crate) fn push(
        &self,
        at: Timestamp,
        kind: &'static str,
        id: &str,
        message: String,
        request_id: Option<&str>,
    ) {
        match kind {
            Instance::TABLE => tracing::info!(kind, id, request_id, "{message}"),
            _ => tracing::debug!(kind, id, request_id, "{message}"),
        }
        let request_id = request_id.map(Into::into);
        let number = *self.newest.borrow() + 1;
        let mut kept = self.kept.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Event { number, at, kind, id: id.to_owned(), message, request_id });
        drop(kept);
        self.newest.send_replace(number);
    }

    /// Those after `number`, oldest first; where there are none, what comes within `patience`.
    pub async fn after(&self, number: u64, limit: usize, patience: Duration) -> Vec<Event> {
        let mut newest = self.newest.subscribe();
        // Nothing having come in time is an answer too.
        let _ = tokio::time::timeout(patience, newest.wait_for(|newest| *newest > number)).await;
        let kept = self.kept.lock();
        let from = kept.partition_point(|event| event.number <= number);
        kept.iter().skip(from).take(limit).cloned().collect()
    }

    /// The number that an event would be after if only the newest `count` were wanted.
    pub fn before_newest(&self, count: u64) -> u64 {
        self.newest.borrow().saturating_sub(count)
    }
}

pub(crate) fn start(control: &Arc<Control>, region: &Arc<RegionState>) {
    let clock = control.environment.clock.clone();
    let mut changes = region.view.changes();
    let region = Arc::downgrade(region);
    tokio::spawn(async move {
        loop {
            let batch = match changes.recv().await {
                Ok(batch) => batch,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let Some(region) = region.upgrade() else { return };
            for change in batch.iter() {
                if let Some(message) = tell(change) {
                    let (kind, id, _) = change.of();
                    region.events.push(clock.now(), kind, id, message, request_id(change));
                }
            }
        }
    });
}

/// What is known of why, as the record itself says.
fn request_id(change: &Change) -> Option<&str> {
    match change {
        // What checks find follows from nothing that was asked.
        Change::Instance { old: Some(old), new: Some(new) } if old.state == new.state => None,
        Change::Instance { new: Some(record), .. } => record.request_id.as_deref(),
        Change::Workflow { new: Some(record), .. } | Change::Workflow { old: Some(record), new: None } => {
            record.request_id.as_deref()
        }
        _ => None,
    }
}

/// None for what nobody watches.
fn tell(change: &Change) -> Option<String> {
    let (kind, _, was) = change.of();
    match change {
        Change::Instance { old: Some(old), new: Some(new) } if old.state != new.state => {
            let reason = new.state_reason.as_ref().map(|reason| format!(" ({})", reason.message));
            Some(format!("{} → {}{}", old.state.name(), new.state.name(), reason.unwrap_or_default()))
        }
        // Whether the host is heard from is told of the host.
        Change::Instance { old: Some(old), new: Some(new) } if old.checks != new.checks => {
            Statuses::of(new, true).told_after(&Statuses::of(old, true))
        }
        Change::Instance { old: None, new: Some(new) } => {
            Some(format!("{} on {}", new.state.name(), new.placement.host_id))
        }
        Change::Snapshot { old: Some(old), new: Some(new) } if old.state != new.state => {
            Some(format!("{} → {}", old.state.name(), new.state.name()))
        }
        Change::Workflow { new: Some(new), .. } => {
            let error =
                new.last_error.as_ref().map(|error| format!(": failed {} times: {error}", new.attempts));
            Some(format!("{}{}", new.work.steps().step(), error.unwrap_or_default()))
        }
        _ if [Claim::TABLE, ClientToken::TABLE].contains(&kind) => None,
        _ => match was {
            Was::Created => Some("created".into()),
            Was::Changed => None,
            Was::Deleted if kind == Workflow::TABLE => Some("ended".into()),
            Was::Deleted => Some("deleted".into()),
        },
    }
}
