//! The store in one file (redb).
//!
//! ```text
//!   transact ─▶ queue ─▶ writer thread ─ one commit for all that wait ─▶ file
//!      ▲                     │ publish                                    │
//!      └──────── answer ◀────┤                                            │ read transactions,
//!                            └─▶ hub ─▶ watches ◀─ older history ─────────┤ never behind the writer
//!   get, range ◀──────────────────────────────────────────────────────────┘
//! ```

mod backup;
mod file;
mod log;
#[cfg(test)]
mod power;
mod schema;
mod writer;

use crate::evaluate::{Command, check_bounds};
use crate::hub::{HistoryBounds, Hub};
use crate::lease::{Leases, Timer};
use crate::page;
use crate::{Entry, LeaseId, Outcome, Range, Revision, Store, StoreError, Transaction, Watch};
use async_trait::async_trait;
use log::LogReader;
use parking_lot::Mutex;
use redb::{Builder, Database, ReadableDatabase};
use schema::{ENTRIES, REVISION};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use writer::Writer;

/// Pages of the file kept in memory; what control needs often is in its own view.
const CACHE_LEN: usize = 16 * 1024 * 1024;

#[derive(Clone, Debug)]
pub struct RedbOptions {
    /// Bytes.
    pub cache_len: usize,
    /// What watches find in memory.
    pub recent: HistoryBounds,
    /// What they find in the file besides.
    pub log: HistoryBounds,
}

impl Default for RedbOptions {
    fn default() -> Self {
        RedbOptions {
            cache_len: CACHE_LEN,
            // The file remembers the rest.
            recent: HistoryBounds { batches: 4096, len: 16 * 1024 * 1024 },
            log: HistoryBounds::default(),
        }
    }
}

impl RedbOptions {
    fn builder(&self) -> Builder {
        let mut builder = Database::builder();
        builder.set_cache_size(self.cache_len);
        builder
    }
}

/// Cheap to clone; clones are the same store. When the last is dropped, that waits for the last commit, and the file
/// may be opened again.
#[derive(Clone)]
pub struct RedbStore(Arc<Shared>);

/// Dropped in this order: nobody reads the log, nobody sends, nobody writes, the file is closed, the lock is let go.
struct Shared {
    timer: Timer,
    writer: Writer,
    hub: Arc<Hub>,
    leases: Arc<Leases>,
    log: Arc<LogReader>,
    database: Arc<Database>,
    /// Held by a backup: two at once to one place would fill one file.
    copying: Mutex<()>,
    _lock: Option<file::Lock>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.log.close();
    }
}

impl RedbStore {
    /// Opens the file or makes it, for its owner alone, and brings it to this build's schema. A file that is open
    /// already, in whatever process, is refused. Leases of an earlier run begin their time now: open it inside the
    /// tokio runtime that shall time them.
    pub fn open(path: &Path) -> Result<RedbStore, StoreError> {
        RedbStore::open_with(path, RedbOptions::default())
    }

    pub fn open_with(path: &Path, options: RedbOptions) -> Result<RedbStore, StoreError> {
        let lock = file::Lock::take(path)?;
        let database = file::open_or_create(path, &options.builder())?;
        RedbStore::start(database, Some(lock), &options)
    }

    fn start(
        database: Database,
        lock: Option<file::Lock>,
        options: &RedbOptions,
    ) -> Result<RedbStore, StoreError> {
        schema::migrate(&database)?;
        let reading = database.begin_read().map_err(StoreError::backend)?;
        let revision = schema::number(&reading, REVISION)?;
        let leases = Arc::new(schema::leases(&reading)?);
        drop(reading);
        let database = Arc::new(database);
        let log = Arc::new(LogReader::new(database.clone()));
        let hub = Arc::new(Hub::new(revision, options.recent, Some(log.clone())));
        let writer = Writer::start(database.clone(), hub.clone(), leases.clone(), options.log)?;
        let timer = Timer::default();
        let store =
            Shared { timer, writer, hub, leases, log, database, copying: Mutex::default(), _lock: lock };
        store.time_leases();
        Ok(RedbStore(Arc::new(store)))
    }
}

impl Shared {
    fn time_leases(&self) {
        let writer = self.writer.downgrade();
        self.timer.start(&self.leases, move |lease| writer.clone().run(Command::Expire(lease)));
    }

    async fn run(&self, command: Command) -> Result<Outcome, StoreError> {
        check_bounds(&command)?;
        self.writer.run(command).await
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let reading = self.0.database.begin_read().map_err(StoreError::backend)?;
        let entries = reading.open_table(ENTRIES).map_err(StoreError::backend)?;
        let found = entries.get(key).map_err(StoreError::backend)?;
        found.map(|stored| schema::entry(key, stored.value())).transpose()
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError> {
        let reading = self.0.database.begin_read().map_err(StoreError::backend)?;
        let revision = schema::number(&reading, REVISION)?;
        let entries = reading.open_table(ENTRIES).map_err(StoreError::backend)?;
        let following = entries
            .range::<&str>((page::start(prefix, after), Bound::Unbounded))
            .map_err(StoreError::backend)?;
        let following = following.map(|row| {
            let (key, stored) = row.map_err(StoreError::backend)?;
            schema::entry(key.value(), stored.value())
        });
        page::page(prefix, limit, revision, following)
    }

    async fn transact(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        self.0.run(Command::Transact(transaction)).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        self.0.hub.watch(prefix, from)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.0.hub.last())
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.0.time_leases();
        let lease = self.0.leases.next_id();
        self.0.run(Command::Grant { lease, ttl }).await?;
        Ok(lease)
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.0.leases.keep_alive(lease)
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.0.run(Command::Revoke(lease)).await.map(drop)
    }

    async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let (store, to) = (self.clone(), to.to_owned());
        tokio::task::spawn_blocking(move || store.copy_to(&to)).await.map_err(StoreError::backend)?
    }
}
