//! The cloud's memory: a revisioned key-value store shaped after etcd, so that an embedded file, plain memory and
//! an etcd cluster are the same to everyone above.
//!
//! Every committed transaction gets the next revision; every key remembers the revision that last wrote it.
//! A transaction compares keys with what its author read and writes all or nothing. A watch delivers every commit
//! from a revision on, in order, without gaps. Keys bound to a lease vanish with it.
//!
//! A backend is small: `evaluate` decides every command over the backend's tables, `hub` has history and watches,
//! `lease` the leases and their time, `page` the bounds of a range. `tests/conformance` is what every backend must pass.
//!
//! Invariant: this crate knows nothing of what is stored.

mod api;
mod embedded;
mod evaluate;
mod hub;
mod lease;
mod memory;
mod page;

pub use api::{
    Batch, Compare, Entry, Event, KEY_LEN_MAX, LEASE_KEYS_MAX, LEASE_TTL_MAX, LeaseId, OPS_MAX, Op, Outcome,
    PAGE_LEN_MAX, Range, Revision, Store, StoreError, TRANSACTION_LEN_MAX, Transaction, VALUE_LEN_MAX, Watch,
};
pub use embedded::{RedbOptions, RedbStore};
pub use hub::HistoryBounds;
pub use memory::MemoryStore;
