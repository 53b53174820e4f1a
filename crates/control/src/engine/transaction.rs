//! Transactions: a closure reads the view and says what to write; the store's compare-and-swap makes sure that
//! what it read still holds. On a conflict the closure runs again on a fresher view.

use crate::engine::Claim;
use crate::engine::table::Record;
use crate::engine::view::{self, Has, Tables, View};
use bytes::Bytes;
use model::{Environment, Error, Id, Kind, Result, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Compare, Op, Outcome, Store, StoreError, Transaction};

/// After so many conflicts in a row something is wrong that trying again does not mend.
const ATTEMPTS_MAX: usize = 64;

/// One attempt at a transaction.
pub struct Tx<'a> {
    view: &'a View,
    tables: &'a Tables,
    environment: &'a Environment,
    request_id: Option<&'a str>,
    compares: BTreeMap<String, Compare>,
    ops: BTreeMap<String, Op>,
    /// New records by table.
    created: BTreeMap<&'static str, usize>,
}

impl<'a> Tx<'a> {
    /// The records as they are before this transaction.
    pub fn tables(&self) -> &'a Tables {
        self.tables
    }

    pub fn region(&self) -> &model::Region {
        &self.view.region
    }

    pub fn quotas(&self) -> &crate::engine::Quotas {
        &self.view.quotas
    }

    pub fn now(&self) -> Timestamp {
        self.environment.clock.now()
    }

    /// The request that this is done for; None where the cloud does it by itself.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id
    }

    pub fn new_id(&self, kind: Kind) -> Id {
        Id::new(kind, &*self.environment.random)
    }

    pub fn random(&self) -> &dyn model::Random {
        &*self.environment.random
    }

    /// Reads a record, as this transaction has left it, and makes the transaction depend on it: if anybody writes it
    /// first, the closure runs again.
    pub fn get<T: Record>(&mut self, id: &str) -> Option<Arc<T>>
    where
        Tables: Has<T>,
    {
        let key = self.key::<T>(id);
        let stored = self.tables.table().find_with_revision(id);
        let compare = match stored {
            Some((_, modified)) => Compare::Modified(key.clone(), modified),
            None => Compare::Absent(key.clone()),
        };
        self.compares.insert(key.clone(), compare);
        match self.ops.get(&key) {
            Some(Op::Put { value, .. }) => serde_json::from_slice(value).ok().map(Arc::new),
            Some(Op::Delete { .. }) => None,
            None => stored.map(|(record, _)| record.clone()),
        }
    }

    /// Writes a record that `get` has looked for before.
    pub fn put<T: Record>(&mut self, record: &T)
    where
        Tables: Has<T>,
    {
        let key = self.key::<T>(record.id());
        debug_assert!(self.compares.contains_key(&key), "{key} is written without having been read");
        self.ops.insert(key.clone(), Op::Put { key, value: encode(record), lease: None });
    }

    /// Writes a record that must not be there yet.
    pub fn create<T: Record>(&mut self, record: &T)
    where
        Tables: Has<T>,
    {
        let key = self.key::<T>(record.id());
        self.compares.insert(key.clone(), Compare::Absent(key.clone()));
        self.ops.insert(key.clone(), Op::Put { key, value: encode(record), lease: None });
        *self.created.entry(T::TABLE).or_default() += 1;
    }

    /// Whether the region may hold what is new.
    fn check_quotas(&self) -> Result<()> {
        let quotas = &self.view.quotas;
        self.created
            .iter()
            .try_for_each(|(table, count)| quotas.check(table, self.tables.len_of(table) + count))
    }

    pub fn delete<T: Record>(&mut self, id: &str)
    where
        Tables: Has<T>,
    {
        let key = self.key::<T>(id);
        self.ops.insert(key.clone(), Op::Delete { key });
    }

    /// Takes a value that only one may have at a time. False where somebody else has it.
    pub fn claim(&mut self, scope: &str, value: &str, owner: &str) -> bool {
        if self.is_claimed(scope, value) {
            return false;
        }
        let claim = Claim { key: Claim::key(scope, value).into(), owner: owner.into() };
        self.get::<Claim>(&claim.key);
        self.put(&claim);
        true
    }

    /// Lets transactions that say the same come one after the other: what one looks for another may be about to make.
    pub fn serialize(&mut self, what: &str) {
        let order = Claim { key: Claim::key("order", what).into(), owner: Default::default() };
        match self.get::<Claim>(&order.key) {
            Some(_) => self.put(&order),
            None => self.create(&order),
        }
    }

    pub fn is_claimed(&self, scope: &str, value: &str) -> bool {
        let key = Claim::key(scope, value);
        match self.ops.get(&self.key::<Claim>(&key)) {
            Some(op) => matches!(op, Op::Put { .. }),
            None => self.tables.claims.contains(&key),
        }
    }

    pub fn release(&mut self, scope: &str, value: &str) {
        self.delete::<Claim>(&Claim::key(scope, value));
    }

    fn key<T: Record>(&self, id: &str) -> String {
        view::key(&self.view.region, T::TABLE, id)
    }
}

fn encode<T: Record>(record: &T) -> Bytes {
    // Records are plain data with string keys: encoding them cannot fail.
    serde_json::to_vec(record).unwrap_or_default().into()
}

/// A transaction of the cloud's own: see `transact_for`.
pub async fn transact<R>(
    store: &dyn Store,
    view: &View,
    environment: &Environment,
    attempt: impl FnMut(&mut Tx<'_>) -> Result<R>,
) -> Result<R> {
    transact_for(None, store, view, environment, attempt).await
}

/// Runs `attempt` until its transaction commits; returns what it returned once the view shows the write.
/// An attempt that writes nothing commits nothing.
pub async fn transact_for<R>(
    request_id: Option<&str>,
    store: &dyn Store,
    view: &View,
    environment: &Environment,
    mut attempt: impl FnMut(&mut Tx<'_>) -> Result<R>,
) -> Result<R> {
    for _ in 0..ATTEMPTS_MAX {
        let (answer, transaction) = {
            let tables = view.read();
            let mut tx = Tx {
                view,
                tables: &tables,
                environment,
                request_id,
                compares: BTreeMap::new(),
                ops: BTreeMap::new(),
                created: BTreeMap::new(),
            };
            let answer = attempt(&mut tx)?;
            tx.check_quotas()?;
            let transaction = Transaction {
                compares: tx.compares.into_values().collect(),
                ops: tx.ops.into_values().collect(),
            };
            (answer, transaction)
        };
        if transaction.ops.is_empty() {
            return Ok(answer);
        }
        match store.transact(transaction).await.map_err(store_error)? {
            Outcome::Committed(revision) => {
                tracing::debug!(revision, request_id, "committed");
                view.wait_for(revision).await;
                return Ok(answer);
            }
            // What was read is older than what is there: let the view catch up before the next attempt.
            Outcome::Conflict => view.wait_for(store.revision().await.map_err(store_error)?).await,
        }
    }
    Err(Error::new(
        "RequestLimitExceeded",
        "Request limit exceeded: the resource is being changed by too many requests.",
    ))
}

pub fn store_error(error: StoreError) -> Error {
    match error {
        StoreError::TooLarge(what) => {
            Error::invalid_parameter_value(format!("The request is too large: {what}"))
        }
        other => Error::internal(other),
    }
}
