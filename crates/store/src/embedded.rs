//! The store in one file (redb). One thread writes: it takes every transaction that waits, decides them one after
//! another, and makes them durable with a single sync.

use crate::api::StoreError as Error;
use crate::evaluate::{check_bounds, holds};
use crate::hub::Hub;
use crate::lease::Leases;
use crate::{
    Batch, Entry, Event, LeaseId, Op, Outcome, Range, Revision, Store, StoreError, Transaction, Watch,
};
use async_trait::async_trait;
use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::sync::oneshot;

/// Key to the revision that wrote it (8 bytes, little-endian) and the value.
const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
/// `revision` and `schema`.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const SCHEMA: &str = "schema";
/// Raised with every change of the layout, together with a step in `upgrade`.
const SCHEMA_VERSION: u64 = 1;
/// Most transactions in one commit: bounds how long the first of them waits.
const BATCH_MAX: usize = 1024;

/// Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct RedbStore(Arc<Shared>);

struct Shared {
    database: Arc<Database>,
    hub: Arc<Hub>,
    leases: Arc<Leases>,
    queue: Sender<Job>,
}

struct Job {
    transaction: Transaction,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

fn backend(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Backend(Box::new(error))
}

impl RedbStore {
    /// Opens the file or makes it, for its owner alone. A second process is refused.
    pub fn open(path: &Path) -> Result<RedbStore, StoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        let opened = |error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                let path = path.display();
                let why = format!("{path} is in use: is another cumulet running with this data directory?");
                StoreError::Backend(why.into())
            }
            other => backend(other),
        };
        let file = FileBackend::new(file.map_err(backend)?).map_err(opened)?;
        let database = Database::builder().create_with_backend(file).map_err(opened)?;
        let revision = prepare(&database)?;
        let shared = Shared {
            database: Arc::new(database),
            hub: Arc::new(Hub::new(revision)),
            leases: Arc::default(),
            queue: {
                let (queue, jobs) = channel();
                drop(jobs);
                queue
            },
        };
        let (queue, jobs) = channel();
        let (database, hub, leases) = (shared.database.clone(), shared.hub.clone(), shared.leases.clone());
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_all(&database, &hub, &leases, &jobs))
            .map_err(backend)?;
        Ok(RedbStore(Arc::new(Shared { queue, ..shared })))
    }

    /// A consistent copy while the store runs: whole and durable at `to`, or nothing there.
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let fresh = to.with_extension("new");
        if let Err(error) = std::fs::remove_file(&fresh)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(backend(error));
        }
        let copy = Database::create(&fresh).map_err(backend)?;
        let reading = self.0.database.begin_read().map_err(backend)?;
        let writing = copy.begin_write().map_err(backend)?;
        {
            let mut entries = writing.open_table(ENTRIES).map_err(backend)?;
            for entry in reading.open_table(ENTRIES).map_err(backend)?.iter().map_err(backend)? {
                let (key, value) = entry.map_err(backend)?;
                entries.insert(key.value(), value.value()).map_err(backend)?;
            }
            let mut meta = writing.open_table(META).map_err(backend)?;
            for entry in reading.open_table(META).map_err(backend)?.iter().map_err(backend)? {
                let (key, value) = entry.map_err(backend)?;
                meta.insert(key.value(), value.value()).map_err(backend)?;
            }
        }
        writing.commit().map_err(backend)?;
        drop(copy);
        std::fs::rename(&fresh, to).map_err(backend)?;
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(backend)
    }
}

/// Brings the file to this build's schema; returns its revision.
fn prepare(database: &Database) -> Result<Revision, StoreError> {
    let writing = database.begin_write().map_err(backend)?;
    let revision = {
        writing.open_table(ENTRIES).map_err(backend)?;
        let mut meta = writing.open_table(META).map_err(backend)?;
        let found = meta.get(SCHEMA).map_err(backend)?.map(|found| found.value());
        match found {
            Some(found) if found > SCHEMA_VERSION => {
                return Err(StoreError::SchemaTooNew { found: found as u32, known: SCHEMA_VERSION as u32 });
            }
            Some(_) => {}
            None => drop(meta.insert(SCHEMA, SCHEMA_VERSION).map_err(backend)?),
        }
        meta.get(REVISION).map_err(backend)?.map_or(0, |revision| revision.value())
    };
    writing.commit().map_err(backend)?;
    Ok(revision)
}

fn write_all(database: &Database, hub: &Hub, leases: &Leases, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let batch: Vec<Job> = std::iter::once(first).chain(jobs.try_iter().take(BATCH_MAX - 1)).collect();
        match commit(database, hub.last(), leases, &batch) {
            Ok((outcomes, changes)) => {
                for change in changes {
                    hub.publish(change);
                }
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    // Nobody waits any more: the transaction stands all the same.
                    let _ = job.answer.send(outcome);
                }
            }
            Err(error) => {
                // Nothing of the batch is durable; each author learns why.
                let message = error.to_string();
                for job in batch {
                    let _ = job.answer.send(Err(StoreError::Backend(message.clone().into())));
                }
            }
        }
    }
}

type Committed = (Vec<Result<Outcome, StoreError>>, Vec<Batch>);

fn commit(
    database: &Database,
    last: Revision,
    leases: &Leases,
    jobs: &[Job],
) -> Result<Committed, StoreError> {
    let writing = database.begin_write().map_err(backend)?;
    let mut outcomes = Vec::with_capacity(jobs.len());
    let mut changes: Vec<Batch> = Vec::new();
    for job in jobs {
        let revision = last + changes.len() as u64 + 1;
        let (outcome, change) = decide(&writing, leases, &job.transaction, revision)?;
        outcomes.push(outcome);
        changes.extend(change);
    }
    if changes.is_empty() {
        writing.abort().map_err(backend)?;
        return Ok((outcomes, changes));
    }
    writing
        .open_table(META)
        .map_err(backend)?
        .insert(REVISION, last + changes.len() as u64)
        .map_err(backend)?;
    writing.commit().map_err(backend)?;
    Ok((outcomes, changes))
}

/// One transaction of a batch, in the face of those before it.
fn decide(
    writing: &WriteTransaction,
    leases: &Leases,
    transaction: &Transaction,
    revision: Revision,
) -> Result<(Result<Outcome, StoreError>, Option<Batch>), StoreError> {
    let mut entries = writing.open_table(ENTRIES).map_err(backend)?;
    let held = holds::<Error>(transaction, |key| {
        Ok(entries.get(key).map_err(backend)?.map(|stored| split(stored.value()).0))
    })?;
    if !held {
        return Ok((Ok(Outcome::Conflict), None));
    }
    if let Err(error) = leases.check(&transaction.ops) {
        return Ok((Err(error), None));
    }
    let mut events = Vec::with_capacity(transaction.ops.len());
    for op in &transaction.ops {
        match op {
            Op::Put { key, value, lease } => {
                leases.bind(key, *lease);
                let stored = [&revision.to_le_bytes()[..], value].concat();
                entries.insert(key.as_str(), stored.as_slice()).map_err(backend)?;
                events.push(Event::Put(Entry { key: key.clone(), value: value.clone(), modified: revision }));
            }
            Op::Delete { key } => {
                leases.bind(key, None);
                if entries.remove(key.as_str()).map_err(backend)?.is_some() {
                    events.push(Event::Delete { key: key.clone(), revision });
                }
            }
        }
    }
    Ok((Ok(Outcome::Committed(revision)), Some(Batch { revision, events })))
}

fn split(stored: &[u8]) -> (Revision, &[u8]) {
    match stored.split_first_chunk::<8>() {
        Some((revision, value)) => (Revision::from_le_bytes(*revision), value),
        None => (0, &[]),
    }
}

fn entry(key: &str, stored: &[u8]) -> Entry {
    let (modified, value) = split(stored);
    Entry { key: key.to_owned(), value: Bytes::copy_from_slice(value), modified }
}

#[async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let reading = self.0.database.begin_read().map_err(backend)?;
        let entries = reading.open_table(ENTRIES).map_err(backend)?;
        let found = entries.get(key).map_err(backend)?;
        Ok(found.map(|stored| entry(key, stored.value())))
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError> {
        let reading = self.0.database.begin_read().map_err(backend)?;
        let meta = reading.open_table(META).map_err(backend)?;
        let revision = meta.get(REVISION).map_err(backend)?.map_or(0, |revision| revision.value());
        let table = reading.open_table(ENTRIES).map_err(backend)?;
        let start = after.filter(|after| *after >= prefix).unwrap_or(prefix);
        let mut page = Range { entries: Vec::new(), revision, more: false };
        for found in table.range(start..).map_err(backend)? {
            let (key, stored) = found.map_err(backend)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            if after == Some(key.value()) {
                continue;
            }
            if page.entries.len() == limit {
                page.more = true;
                break;
            }
            page.entries.push(entry(key.value(), stored.value()));
        }
        Ok(page)
    }

    async fn transact(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        check_bounds(&transaction)?;
        let (answer, outcome) = oneshot::channel();
        self.0.queue.send(Job { transaction, answer }).map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        self.0.hub.watch(prefix, from)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.0.hub.last())
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let store = Arc::downgrade(&self.0);
        Ok(self.0.leases.grant(ttl, move |ops| {
            let store = store.upgrade().map(RedbStore);
            async move {
                if let Some(store) = store {
                    let _ = store.transact(Transaction { compares: Vec::new(), ops }).await;
                }
            }
        }))
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.0.leases.keep_alive(lease)
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let ops = self.0.leases.revoke(lease)?;
        self.transact(Transaction { compares: Vec::new(), ops }).await.map(drop)
    }
}
