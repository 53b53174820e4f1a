//! The store in memory: gone with the process.

use crate::evaluate::{Command, Tables, check_bounds, decide};
use crate::hub::{HistoryBounds, Hub};
use crate::lease::{Leases, Timer};
use crate::page;
use crate::{Entry, LeaseId, Outcome, Range, Revision, Store, StoreError, Transaction, Watch};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct MemoryStore(Arc<Shared>);

struct Shared {
    /// Held while a revision is published, so that a page's revision is its entries'.
    entries: Mutex<BTreeMap<String, Entry>>,
    hub: Hub,
    leases: Arc<Leases>,
    timer: Timer,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        MemoryStore::with_history(HistoryBounds::default())
    }

    pub fn with_history(bounds: HistoryBounds) -> Self {
        MemoryStore(Arc::new(Shared {
            entries: Mutex::default(),
            hub: Hub::new(0, bounds, None),
            leases: Arc::default(),
            timer: Timer::default(),
        }))
    }
}

impl Shared {
    fn run(&self, command: Command) -> Result<Outcome, StoreError> {
        check_bounds(&command)?;
        let mut entries = self.entries.lock();
        let decided = decide(&mut *entries, &self.leases, command, self.hub.last())?;
        self.hub.publish(decided.batch);
        decided.answer
    }
}

impl Tables for BTreeMap<String, Entry> {
    fn modified(&self, key: &str) -> Result<Option<Revision>, StoreError> {
        Ok(self.get(key).map(|entry| entry.modified))
    }

    fn put(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.insert(entry.key.clone(), entry.clone());
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<bool, StoreError> {
        Ok(self.remove(key).is_some())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.0.entries.lock().get(key).cloned())
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError> {
        let entries = self.0.entries.lock();
        let following = entries.range::<str, _>((page::start(prefix, after), Bound::Unbounded));
        page::page(prefix, limit, self.0.hub.last(), following.map(|(_, entry)| Ok(entry.clone())))
    }

    async fn transact(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        self.0.run(Command::Transact(transaction))
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        self.0.hub.watch(prefix, from)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.0.hub.last())
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let store = Arc::downgrade(&self.0);
        self.0.timer.start(&self.0.leases, move |lease| {
            let store = store.upgrade();
            async move { store.ok_or(StoreError::Closed)?.run(Command::Expire(lease)) }
        });
        let lease = self.0.leases.next_id();
        self.0.run(Command::Grant { lease, ttl })?;
        Ok(lease)
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.0.leases.keep_alive(lease)
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.0.run(Command::Revoke(lease)).map(drop)
    }
}
