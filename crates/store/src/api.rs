//! The trait that every backend answers, and the words it is spoken in.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Counts committed transactions; 0 is the empty store. Never goes back, also over restarts.
pub type Revision = u64;

/// A lease's number; never used again.
pub type LeaseId = u64;

/// Longest key, in bytes.
pub const KEY_LEN_MAX: usize = 1024;
/// Longest value: etcd's request limit is 1.5 MiB, and a record is a few KiB.
pub const VALUE_LEN_MAX: usize = 1024 * 1024;
/// Most operations in one transaction (etcd's `--max-txn-ops` is raised to this where we run it).
pub const OPS_MAX: usize = 8192;
/// Most bytes of keys and values in one transaction: it is in memory several times over until it is durable.
pub const TRANSACTION_LEN_MAX: usize = 32 * 1024 * 1024;
/// Most bytes of keys and values in one page; a page that would be longer ends early and says that there is more.
pub const PAGE_LEN_MAX: usize = 16 * 1024 * 1024;
/// Longest time to live of a lease; what lives longer needs no lease.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Most keys bound to one lease: they are deleted in one transaction.
pub const LEASE_KEYS_MAX: usize = OPS_MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
    /// The revision that last wrote this key.
    pub modified: Revision,
}

/// A page of a range: what was there at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// In the order of their keys.
    pub entries: Vec<Entry>,
    /// The store's revision when the page was read; a watch from `revision + 1` continues it without a gap.
    pub revision: Revision,
    /// Whether the limit, or [`PAGE_LEN_MAX`], cut the range.
    pub more: bool,
}

/// What a transaction's author relies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key is not there.
    Absent(String),
    /// The key was last written by this revision.
    Modified(String, Revision),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put {
        key: String,
        value: Bytes,
        lease: Option<LeaseId>,
    },
    /// Deleting what is not there is no error.
    Delete {
        key: String,
    },
}

impl Op {
    pub fn key(&self) -> &str {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

/// All comparisons hold, or nothing is written. The last of several operations on one key wins.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable, with this revision.
    Committed(Revision),
    /// A comparison failed; nothing was written.
    Conflict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put(Entry),
    Delete { key: String, revision: Revision },
}

impl Event {
    pub fn key(&self) -> &str {
        match self {
            Event::Put(entry) => &entry.key,
            Event::Delete { key, .. } => key,
        }
    }
}

/// Everything one transaction changed under the watched prefix, at most one event for each key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub revision: Revision,
    pub events: Vec<Event>,
}

/// Delivers batches in the order of their revisions, none twice and none left out.
/// A batch without an event under the prefix is delivered empty, so that a reader knows how far it has seen.
///
/// It ends when the store closes, or when its reader has fallen so far behind that what comes next is no longer
/// remembered. To tell which, watch again from behind the last batch seen: [`StoreError::Compacted`] means reading
/// anew what is there.
pub struct Watch(BoxStream<'static, Batch>);

impl Watch {
    pub fn new(batches: impl Stream<Item = Batch> + Send + 'static) -> Watch {
        Watch(batches.boxed())
    }

    /// May be cancelled: no batch is lost.
    pub async fn next(&mut self) -> Option<Batch> {
        self.0.next().await
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the history before revision {oldest} is compacted")]
    Compacted { oldest: Revision },
    #[error("{0} exceeds the store's bound")]
    TooLarge(&'static str),
    #[error("lease {0} is not known")]
    UnknownLease(LeaseId),
    #[error("{} is in use: is another cumulet running with this data directory?", .0.display())]
    InUse(PathBuf),
    #[error("the data was written by schema version {found}, this build knows up to {known}")]
    SchemaTooNew { found: u32, known: u32 },
    #[error("the store is closed")]
    Closed,
    /// Of a write that ended so it isn't known whether it is durable: read before trying again.
    #[error(transparent)]
    Backend(Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// What went wrong below the store.
    pub(crate) fn backend(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Backend(error.into())
    }
}

#[async_trait]
pub trait Store: Send + Sync {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// A page of the keys that begin with `prefix`; `after` continues behind the last key of the page before.
    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError>;

    /// Returns once the outcome is durable. Concurrent transactions share one sync. Who stops waiting does not undo:
    /// the transaction may commit all the same.
    async fn transact(&self, transaction: Transaction) -> Result<Outcome, StoreError>;

    /// Every batch with `revision >= from`: first what the store remembers, then what comes.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError>;

    /// The last committed revision.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// Keys put with the lease are deleted, in one transaction, when nobody has kept it alive for `ttl`. A key that
    /// is put again belongs to the lease it is put with then, or to none. Where the store outlives its process, so
    /// does the lease, and `ttl` begins anew.
    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Copies everything as it is at one revision to a file that `RedbStore::restore` takes, while the store is used.
    async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let _ = to;
        Err(StoreError::backend("this store keeps nothing on disk: there is nothing to back up"))
    }
}
