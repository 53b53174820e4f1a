//! The backends, and short words for what the cases do with them.

use bytes::Bytes;
use std::ops::Deref;
use std::sync::Arc;
use store::{
    Batch, Entry, Event, HistoryBounds, LeaseId, MemoryStore, Op, Outcome, RedbOptions, RedbStore, Revision,
    Store, StoreError, Transaction, Watch,
};

/// Opens an empty store that remembers so much history.
pub type Open = fn(HistoryBounds) -> Opened;

pub struct Opened {
    pub store: Arc<dyn Store>,
    /// Behind the store: it is gone when its directory goes.
    _dir: Option<tempfile::TempDir>,
}

impl Deref for Opened {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

pub fn memory(history: HistoryBounds) -> Opened {
    Opened { store: Arc::new(MemoryStore::with_history(history)), _dir: None }
}

pub fn redb(history: HistoryBounds) -> Opened {
    let dir = tempfile::tempdir().unwrap();
    // Less in memory than in the file, so that watches go from the one to the other.
    let recent = HistoryBounds { batches: history.batches / 2, len: history.len / 2 };
    let options = RedbOptions { recent, log: history, ..RedbOptions::default() };
    let store = RedbStore::open_with(&dir.path().join("state.redb"), options).unwrap();
    Opened { store: Arc::new(store), _dir: Some(dir) }
}

/// As much history as a case writes.
pub fn all() -> HistoryBounds {
    HistoryBounds::default()
}

pub fn last(batches: usize) -> HistoryBounds {
    HistoryBounds { batches, ..HistoryBounds::default() }
}

pub fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), lease: None }
}

pub fn put_with(key: &str, lease: LeaseId) -> Op {
    Op::Put { key: key.into(), value: Bytes::from_static(b"leased"), lease: Some(lease) }
}

pub fn delete(key: &str) -> Op {
    Op::Delete { key: key.into() }
}

pub fn entry(key: &str, value: &str, modified: Revision) -> Entry {
    Entry { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), modified }
}

pub fn has_put(key: &str, value: &str, revision: Revision) -> Event {
    Event::Put(entry(key, value, revision))
}

pub fn has_deleted(key: &str, revision: Revision) -> Event {
    Event::Delete { key: key.into(), revision }
}

/// Commits; the revision.
pub async fn write(store: &dyn Store, ops: impl Into<Vec<Op>>) -> Revision {
    let transaction = Transaction { compares: Vec::new(), ops: ops.into() };
    match store.transact(transaction).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("a conflict without a comparison"),
    }
}

/// Why the store does not take it.
pub async fn refused(store: &dyn Store, transaction: Transaction) -> StoreError {
    store.transact(transaction).await.expect_err("refused")
}

/// Everything under the prefix.
pub async fn everything(store: &dyn Store, prefix: &str) -> Vec<Entry> {
    let range = store.range(prefix, None, usize::MAX).await.unwrap();
    assert!(!range.more);
    range.entries
}

pub async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    everything(store, prefix).await.into_iter().map(|entry| entry.key).collect()
}

pub async fn take(watch: &mut Watch, batches: usize) -> Vec<Batch> {
    let mut taken = Vec::new();
    for _ in 0..batches {
        taken.push(watch.next().await.expect("a batch"));
    }
    taken
}

/// The same sequence for the same seed: chance enough for a test (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
