//! The cloud's memory: a revisioned key-value store shaped after etcd, so that an embedded file, plain memory and
//! an etcd cluster are the same to everyone above.
//!
//! Every committed transaction gets the next revision; every key remembers the revision that last wrote it.
//! A transaction compares keys with what its author read and writes all or nothing. A watch delivers every commit
//! from a revision on, in order, without gaps. Keys bound to a lease vanish with it.
//!
//! Invariant: this crate knows nothing of what is stored.

mod api;
mod embedded;
mod evaluate;
mod hub;
mod lease;
mod memory;

pub use embedded::RedbStore;
pub use memory::MemoryStore;

pub use api::{
    Batch, Compare, Entry, Event, LeaseId, Op, Outcome, Range, Revision, Store, StoreError, Transaction,
    Watch,
};
