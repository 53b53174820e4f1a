//! The one thread that writes. It takes every command that waits, decides them one after another, each in the face
//! of those before it, and makes them durable with a single sync.
//!
//! Invariant: nothing is published or answered before it is durable. After a failed commit nothing is written any
//! more: what the file holds is known only once it is opened anew.

use super::log::Log;
use super::schema::{self, BOUND, ENTRIES, LEASE, LEASES, META, REVISION};
use crate::evaluate::{Command, Decided, Tables, decide};
use crate::hub::{HistoryBounds, Hub};
use crate::lease::Leases;
use crate::{Batch, Entry, LeaseId, Outcome, Revision, StoreError};
use redb::{Database, ReadableTable, Table, WriteTransaction};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// Most commands in one commit: bounds how long the first of them waits.
const GROUP_MAX: usize = 1024;

struct Job {
    command: Command,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// Dropping it waits until the thread has closed its side of the file.
pub struct Writer {
    /// Unbounded, because its length is the number of those who wait for an answer.
    queue: UnboundedSender<Job>,
    /// After the queue, whose end is what ends the thread.
    _thread: Joined,
}

struct Joined(Option<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic there was its own message.
            let _ = thread.join();
        }
    }
}

/// Sends commands as long as the store is open, and does not keep it open.
#[derive(Clone)]
pub struct WeakWriter(WeakUnboundedSender<Job>);

impl Writer {
    pub fn start(
        database: Arc<Database>,
        hub: Arc<Hub>,
        leases: Arc<Leases>,
        log: HistoryBounds,
    ) -> Result<Writer, StoreError> {
        let (queue, jobs) = unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(jobs, &Target { database, hub, leases, log }))
            .map_err(StoreError::backend)?;
        Ok(Writer { queue, _thread: Joined(Some(thread)) })
    }

    pub async fn run(&self, command: Command) -> Result<Outcome, StoreError> {
        send(&self.queue, command)?.await.map_err(|_| StoreError::Closed)?
    }

    pub fn downgrade(&self) -> WeakWriter {
        WeakWriter(self.queue.downgrade())
    }
}

impl WeakWriter {
    pub async fn run(self, command: Command) -> Result<Outcome, StoreError> {
        // The queue is let go of before waiting: whoever drops the writer waits for its last sender.
        let answer = send(&self.0.upgrade().ok_or(StoreError::Closed)?, command)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

type Answer = oneshot::Receiver<Result<Outcome, StoreError>>;

fn send(queue: &UnboundedSender<Job>, command: Command) -> Result<Answer, StoreError> {
    let (answer, outcome) = oneshot::channel();
    queue.send(Job { command, answer }).map_err(|_| StoreError::Closed)?;
    Ok(outcome)
}

struct Target {
    database: Arc<Database>,
    hub: Arc<Hub>,
    leases: Arc<Leases>,
    log: HistoryBounds,
}

fn run(mut jobs: UnboundedReceiver<Job>, target: &Target) {
    let mut failure: Option<String> = None;
    let mut group = Vec::new();
    while jobs.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        let (commands, answers): (Vec<_>, Vec<_>) =
            group.drain(..).map(|job: Job| (job.command, job.answer)).unzip();
        let committed = match &failure {
            None => target.commit(commands),
            Some(failure) => Err(StoreError::backend(failure.as_str())),
        };
        match committed {
            Ok(Committed { batches, outcomes }) => {
                target.hub.publish(batches);
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // Nobody may wait any more: the transaction stands all the same.
                    let _ = answer.send(outcome);
                }
            }
            Err(error) => {
                let message = failure.get_or_insert_with(|| {
                    tracing::error!(%error, "the store writes nothing any more until it is opened anew");
                    format!("the store failed to write: {error}")
                });
                for answer in answers {
                    let _ = answer.send(Err(StoreError::backend(message.as_str())));
                }
            }
        }
    }
}

struct Committed {
    batches: Vec<Batch>,
    outcomes: Vec<Result<Outcome, StoreError>>,
}

impl Target {
    fn commit(&self, commands: Vec<Command>) -> Result<Committed, StoreError> {
        let mut last = self.hub.last();
        let mut committed = Committed {
            batches: Vec::with_capacity(commands.len()),
            outcomes: Vec::with_capacity(commands.len()),
        };
        let writing = self.database.begin_write().map_err(StoreError::backend)?;
        let mut tables = Group::open(&writing)?;
        for command in commands {
            let Decided { answer, batch } = decide(&mut tables, &self.leases, command, last)?;
            if let Some(batch) = batch {
                tables.log.append(&batch)?;
                last = batch.revision;
                committed.batches.push(batch);
            }
            committed.outcomes.push(answer);
        }
        tables.finish(last, self.log)?;
        let changed = committed.outcomes.iter().any(|outcome| matches!(outcome, Ok(Outcome::Committed(_))));
        if changed {
            writing.commit().map_err(StoreError::backend)?;
        } else {
            writing.abort().map_err(StoreError::backend)?;
        }
        Ok(committed)
    }
}

/// The tables within one commit.
struct Group<'txn> {
    writing: &'txn WriteTransaction,
    entries: Table<'txn, &'static str, &'static [u8]>,
    meta: Table<'txn, &'static str, u64>,
    log: Log<'txn>,
}

impl<'txn> Group<'txn> {
    fn open(writing: &'txn WriteTransaction) -> Result<Self, StoreError> {
        let entries = writing.open_table(ENTRIES).map_err(StoreError::backend)?;
        let meta = writing.open_table(META).map_err(StoreError::backend)?;
        let log = Log::open(writing, &meta)?;
        Ok(Group { writing, entries, meta, log })
    }

    fn finish(mut self, last: Revision, bounds: HistoryBounds) -> Result<(), StoreError> {
        self.meta.insert(REVISION, last).map_err(StoreError::backend)?;
        self.log.finish(&mut self.meta, bounds)
    }
}

impl Tables for Group<'_> {
    fn modified(&self, key: &str) -> Result<Option<Revision>, StoreError> {
        let found = self.entries.get(key).map_err(StoreError::backend)?;
        found.map(|stored| schema::modified(stored.value())).transpose()
    }

    fn put(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let stored = schema::stored(entry);
        self.entries.insert(entry.key.as_str(), stored.as_slice()).map_err(StoreError::backend)?;
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<bool, StoreError> {
        Ok(self.entries.remove(key).map_err(StoreError::backend)?.is_some())
    }

    fn granted(&mut self, lease: LeaseId, ttl: Duration) -> Result<(), StoreError> {
        let highest = self.meta.get(LEASE).map_err(StoreError::backend)?.map_or(0, |highest| highest.value());
        self.meta.insert(LEASE, highest.max(lease)).map_err(StoreError::backend)?;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let mut leases = self.writing.open_table(LEASES).map_err(StoreError::backend)?;
        leases.insert(lease, ttl_ms).map_err(StoreError::backend)?;
        Ok(())
    }

    fn ended(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let mut leases = self.writing.open_table(LEASES).map_err(StoreError::backend)?;
        leases.remove(lease).map_err(StoreError::backend)?;
        Ok(())
    }

    fn bound(&mut self, key: &str, lease: Option<LeaseId>) -> Result<(), StoreError> {
        let mut bound = self.writing.open_table(BOUND).map_err(StoreError::backend)?;
        match lease {
            Some(lease) => bound.insert(key, lease).map_err(StoreError::backend)?,
            None => bound.remove(key).map_err(StoreError::backend)?,
        };
        Ok(())
    }
}
