//! The store in memory: gone with the process.

use crate::evaluate::{check_bounds, holds};
use crate::hub::Hub;
use crate::lease::Leases;
use crate::{
    Batch, Entry, Event, LeaseId, Op, Outcome, Range, Revision, Store, StoreError, Transaction, Watch,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone)]
pub struct MemoryStore(Arc<Shared>);

struct Shared {
    entries: Mutex<BTreeMap<String, Entry>>,
    hub: Hub,
    leases: Leases,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        MemoryStore(Arc::new(Shared {
            entries: Mutex::default(),
            hub: Hub::new(0),
            leases: Leases::default(),
        }))
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.0.entries.lock().get(key).cloned())
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError> {
        let entries = self.0.entries.lock();
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut found = entries
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|entry| entry.key.starts_with(prefix));
        let page: Vec<Entry> = found.by_ref().take(limit).cloned().collect();
        Ok(Range { entries: page, revision: self.0.hub.last(), more: found.next().is_some() })
    }

    async fn transact(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        check_bounds(&transaction)?;
        let mut entries = self.0.entries.lock();
        let Ok(held) = holds::<std::convert::Infallible>(&transaction, |key| {
            Ok(entries.get(key).map(|entry| entry.modified))
        });
        if !held {
            return Ok(Outcome::Conflict);
        }
        self.0.leases.check(&transaction.ops)?;
        let revision = self.0.hub.last() + 1;
        let mut events = Vec::with_capacity(transaction.ops.len());
        for op in transaction.ops {
            match op {
                Op::Put { key, value, lease } => {
                    self.0.leases.bind(&key, lease);
                    let entry = Entry { key: key.clone(), value, modified: revision };
                    entries.insert(key, entry.clone());
                    events.push(Event::Put(entry));
                }
                Op::Delete { key } => {
                    self.0.leases.bind(&key, None);
                    if entries.remove(&key).is_some() {
                        events.push(Event::Delete { key, revision });
                    }
                }
            }
        }
        self.0.hub.publish(Batch { revision, events });
        Ok(Outcome::Committed(revision))
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
            let store = store.upgrade().map(MemoryStore);
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
