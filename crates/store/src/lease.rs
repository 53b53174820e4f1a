//! Leases: keys that vanish when nobody keeps them alive. Time is tokio's, so that a test may move it.

use crate::{LeaseId, Op, StoreError};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Default)]
pub struct Leases(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    last: LeaseId,
    granted: HashMap<LeaseId, Lease>,
    /// The lease that each bound key has.
    bound: HashMap<String, LeaseId>,
}

struct Lease {
    ttl: Duration,
    expires: Instant,
    keys: BTreeSet<String>,
}

impl Leases {
    /// `expire` is given the deletions once the lease has run out.
    pub fn grant<F, Fut>(&self, ttl: Duration, expire: F) -> LeaseId
    where
        F: FnOnce(Vec<Op>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let id = {
            let mut state = self.0.lock();
            state.last += 1;
            let id = state.last;
            state.granted.insert(id, Lease { ttl, expires: Instant::now() + ttl, keys: BTreeSet::new() });
            id
        };
        let leases = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                let Some(state) = leases.upgrade() else { return };
                let Some(expires) = state.lock().granted.get(&id).map(|lease| lease.expires) else { return };
                if expires <= Instant::now() {
                    let ops = take(&mut state.lock(), id);
                    expire(ops).await;
                    return;
                }
                drop(state);
                tokio::time::sleep_until(expires).await;
            }
        });
        id
    }

    pub fn keep_alive(&self, id: LeaseId) -> Result<(), StoreError> {
        let mut state = self.0.lock();
        let lease = state.granted.get_mut(&id).ok_or(StoreError::UnknownLease(id))?;
        lease.expires = Instant::now() + lease.ttl;
        Ok(())
    }

    /// The deletions of what was bound to the lease.
    pub fn revoke(&self, id: LeaseId) -> Result<Vec<Op>, StoreError> {
        let mut state = self.0.lock();
        if !state.granted.contains_key(&id) {
            return Err(StoreError::UnknownLease(id));
        }
        Ok(take(&mut state, id))
    }

    /// Whether every lease that a transaction names is there.
    pub fn check(&self, ops: &[Op]) -> Result<(), StoreError> {
        let state = self.0.lock();
        let mut named = ops.iter().filter_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        });
        named
            .find(|id| !state.granted.contains_key(id))
            .map_or(Ok(()), |id| Err(StoreError::UnknownLease(id)))
    }

    /// Ties a key that is written to its lease, or unties it.
    pub fn bind(&self, key: &str, lease: Option<LeaseId>) {
        let mut state = self.0.lock();
        if let Some(before) = state.bound.remove(key)
            && let Some(before) = state.granted.get_mut(&before)
        {
            before.keys.remove(key);
        }
        if let Some(id) = lease
            && let Some(granted) = state.granted.get_mut(&id)
        {
            granted.keys.insert(key.to_owned());
            state.bound.insert(key.to_owned(), id);
        }
    }
}

fn take(state: &mut State, id: LeaseId) -> Vec<Op> {
    let keys = state.granted.remove(&id).map(|lease| lease.keys).unwrap_or_default();
    keys.into_iter()
        .map(|key| {
            state.bound.remove(&key);
            Op::Delete { key }
        })
        .collect()
}
