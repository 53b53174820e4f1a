//! Leases: keys that vanish when nobody keeps them alive.
//!
//! ```text
//!   grant ─▶ held ◀─ keep_alive          `revoke`, or the timer once the time to live has passed, sends a command
//!             └─ revoke · expire ─▶ gone  to the store; the lease is held until that command is decided
//! ```
//!
//! Time is tokio's, so that a test may move it. Invariant: a key is bound to one lease at most, and to one that is
//! held.

use crate::api::LEASE_KEYS_MAX;
use crate::{LeaseId, Op, Outcome, StoreError};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

#[derive(Default)]
pub struct Leases {
    state: Mutex<State>,
    /// Which lease is due first may have changed.
    changed: Notify,
    /// Whose time it is. A backend decides in a thread of its own as well, which tokio gives the machine's time.
    runtime: OnceLock<Handle>,
}

#[derive(Default)]
struct State {
    last: LeaseId,
    held: HashMap<LeaseId, Lease>,
    /// The lease that each bound key has.
    bound: HashMap<String, LeaseId>,
    due: BTreeSet<(Instant, LeaseId)>,
}

struct Lease {
    ttl: Duration,
    expires: Instant,
    keys: BTreeSet<String>,
}

impl State {
    fn take(&mut self, id: LeaseId) -> Option<Vec<String>> {
        let lease = self.held.remove(&id)?;
        self.due.remove(&(lease.expires, id));
        for key in &lease.keys {
            self.bound.remove(key);
        }
        Some(lease.keys.into_iter().collect())
    }
}

impl Leases {
    /// Goes on after `last`, the highest number that was ever given.
    pub fn after(last: LeaseId) -> Leases {
        Leases { state: Mutex::new(State { last, ..State::default() }), ..Leases::default() }
    }

    fn now(&self) -> Instant {
        let _within = self.runtime.get().map(Handle::enter);
        Instant::now()
    }

    /// A number for a lease that is about to be granted.
    pub fn next_id(&self) -> LeaseId {
        let mut state = self.state.lock();
        state.last += 1;
        state.last
    }

    pub fn insert(&self, id: LeaseId, ttl: Duration) {
        let mut state = self.state.lock();
        let expires = self.now() + ttl;
        state.held.insert(id, Lease { ttl, expires, keys: BTreeSet::new() });
        state.due.insert((expires, id));
        self.changed.notify_one();
    }

    pub fn keep_alive(&self, id: LeaseId) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let State { held, due, .. } = &mut *state;
        let lease = held.get_mut(&id).ok_or(StoreError::UnknownLease(id))?;
        due.remove(&(lease.expires, id));
        lease.expires = self.now() + lease.ttl;
        due.insert((lease.expires, id));
        self.changed.notify_one();
        Ok(())
    }

    /// Ends a lease; its keys, or none where it is not held.
    pub fn take(&self, id: LeaseId) -> Option<Vec<String>> {
        self.state.lock().take(id)
    }

    /// Ends a lease whose time to live has passed. Looks and takes in one step: whoever keeps it alive either comes
    /// before and it holds, or is told that it is gone.
    pub fn take_due(&self, id: LeaseId) -> Option<Vec<String>> {
        let now = self.now();
        let mut state = self.state.lock();
        if state.held.get(&id)?.expires > now { None } else { state.take(id) }
    }

    /// Whether every lease that a transaction names is held and has room for its keys; no key is named twice.
    pub fn check(&self, ops: &[Op]) -> Result<(), StoreError> {
        let state = self.state.lock();
        let mut added: HashMap<LeaseId, usize> = HashMap::new();
        for op in ops {
            let Op::Put { key, lease: Some(id), .. } = op else { continue };
            let lease = state.held.get(id).ok_or(StoreError::UnknownLease(*id))?;
            if !lease.keys.contains(key) {
                let added = added.entry(*id).or_default();
                *added += 1;
                if lease.keys.len() + *added > LEASE_KEYS_MAX {
                    return Err(StoreError::TooLarge("the number of keys of one lease"));
                }
            }
        }
        Ok(())
    }

    /// Ties a key to its lease, or unties it; whether that changes anything.
    pub fn bind(&self, key: &str, lease: Option<LeaseId>) -> bool {
        let mut state = self.state.lock();
        let State { held, bound, .. } = &mut *state;
        let before = bound.get(key).copied();
        if before == lease {
            return false;
        }
        if let Some(before) = before.and_then(|before| held.get_mut(&before)) {
            before.keys.remove(key);
        }
        match lease.and_then(|id| Some((id, held.get_mut(&id)?))) {
            Some((id, lease)) => {
                lease.keys.insert(key.to_owned());
                bound.insert(key.to_owned(), id);
            }
            None => drop(bound.remove(key)),
        }
        true
    }

    fn first_due(&self) -> Option<(Instant, LeaseId)> {
        self.state.lock().due.first().copied()
    }
}

/// The task that ends leases whose time has passed; ends with its store.
#[derive(Default)]
pub struct Timer(OnceLock<AbortHandle>);

impl Timer {
    /// Nothing happens outside a runtime, whose time it would be: the next caller inside one starts it.
    pub fn start<Fut>(&self, leases: &Arc<Leases>, expire: impl Fn(LeaseId) -> Fut + Send + 'static)
    where
        Fut: Future<Output = Result<Outcome, StoreError>> + Send + 'static,
    {
        if let Ok(runtime) = Handle::try_current() {
            self.0.get_or_init(|| {
                let _ = leases.runtime.set(runtime.clone());
                runtime.spawn(run(leases.clone(), expire)).abort_handle()
            });
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

async fn run<Fut>(leases: Arc<Leases>, expire: impl Fn(LeaseId) -> Fut)
where
    Fut: Future<Output = Result<Outcome, StoreError>>,
{
    loop {
        let Some((at, lease)) = leases.first_due() else {
            leases.changed.notified().await;
            continue;
        };
        if at > Instant::now() {
            tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = leases.changed.notified() => {}
            }
            continue;
        }
        match expire(lease).await {
            // Ended now, kept alive at the last moment, or revoked by its holder.
            Ok(_) | Err(StoreError::UnknownLease(_)) => {}
            Err(error) => {
                tracing::warn!(%error, lease, "the store ends no leases any more");
                return;
            }
        }
    }
}
