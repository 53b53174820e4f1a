//! What a command comes to, the same for every backend: a backend brings its [`Tables`] and makes durable what was
//! written to them.

use crate::api::{KEY_LEN_MAX, LEASE_TTL_MAX, OPS_MAX, TRANSACTION_LEN_MAX, VALUE_LEN_MAX};
use crate::lease::Leases;
use crate::{Batch, Compare, Entry, Event, LeaseId, Op, Outcome, Revision, StoreError, Transaction};
use std::collections::HashSet;
use std::time::Duration;

/// Everything that changes a store.
#[derive(Debug)]
pub enum Command {
    Transact(Transaction),
    Grant {
        lease: LeaseId,
        ttl: Duration,
    },
    Revoke(LeaseId),
    /// A conflict where the lease was kept alive in the meantime, or has ended.
    Expire(LeaseId),
}

/// What a backend keeps. Reads see what was written before, durable or not. An error leaves the tables undefined.
pub trait Tables {
    fn modified(&self, key: &str) -> Result<Option<Revision>, StoreError>;
    fn put(&mut self, entry: &Entry) -> Result<(), StoreError>;
    /// Whether the key was there.
    fn delete(&mut self, key: &str) -> Result<bool, StoreError>;

    // Leases work from `Leases`; a backend that outlives its process remembers here what it was told.
    fn granted(&mut self, _lease: LeaseId, _ttl: Duration) -> Result<(), StoreError> {
        Ok(())
    }
    fn ended(&mut self, _lease: LeaseId) -> Result<(), StoreError> {
        Ok(())
    }
    fn bound(&mut self, _key: &str, _lease: Option<LeaseId>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What to answer once the tables are durable, and what to tell those who watch.
pub struct Decided {
    pub answer: Result<Outcome, StoreError>,
    pub batch: Option<Batch>,
}

impl Decided {
    fn nothing(answer: Result<Outcome, StoreError>) -> Decided {
        Decided { answer, batch: None }
    }

    fn commit(revision: Revision, events: Vec<Event>) -> Decided {
        Decided { answer: Ok(Outcome::Committed(revision)), batch: Some(Batch { revision, events }) }
    }
}

/// `last` is the revision before. An error means that the tables are undefined.
pub fn decide(
    tables: &mut impl Tables,
    leases: &Leases,
    command: Command,
    last: Revision,
) -> Result<Decided, StoreError> {
    match command {
        Command::Transact(transaction) => transact(tables, leases, transaction, last + 1),
        Command::Grant { lease, ttl } => {
            tables.granted(lease, ttl)?;
            leases.insert(lease, ttl);
            Ok(Decided::nothing(Ok(Outcome::Committed(last))))
        }
        Command::Revoke(lease) => match leases.take(lease) {
            Some(keys) => ended(tables, lease, keys, last),
            None => Ok(Decided::nothing(Err(StoreError::UnknownLease(lease)))),
        },
        Command::Expire(lease) => match leases.take_due(lease) {
            Some(keys) => ended(tables, lease, keys, last),
            None => Ok(Decided::nothing(Ok(Outcome::Conflict))),
        },
    }
}

fn transact(
    tables: &mut impl Tables,
    leases: &Leases,
    transaction: Transaction,
    revision: Revision,
) -> Result<Decided, StoreError> {
    for compare in &transaction.compares {
        let holds = match compare {
            Compare::Absent(key) => tables.modified(key)?.is_none(),
            Compare::Modified(key, revision) => tables.modified(key)? == Some(*revision),
        };
        if !holds {
            return Ok(Decided::nothing(Ok(Outcome::Conflict)));
        }
    }
    let ops = last_of_each_key(transaction.ops);
    if let Err(refused) = leases.check(&ops) {
        return Ok(Decided::nothing(Err(refused)));
    }
    let mut events = Vec::with_capacity(ops.len());
    for op in ops {
        match op {
            Op::Put { key, value, lease } => {
                if leases.bind(&key, lease) {
                    tables.bound(&key, lease)?;
                }
                let entry = Entry { key, value, modified: revision };
                tables.put(&entry)?;
                events.push(Event::Put(entry));
            }
            Op::Delete { key } => events.extend(delete(tables, leases, key, revision)?),
        }
    }
    Ok(Decided::commit(revision, events))
}

/// What is left to do for a lease that is taken from those that are held.
fn ended(
    tables: &mut impl Tables,
    lease: LeaseId,
    keys: Vec<String>,
    last: Revision,
) -> Result<Decided, StoreError> {
    let revision = last + 1;
    let mut events = Vec::with_capacity(keys.len());
    for key in keys {
        tables.bound(&key, None)?;
        if tables.delete(&key)? {
            events.push(Event::Delete { key, revision });
        }
    }
    tables.ended(lease)?;
    if events.is_empty() {
        return Ok(Decided::nothing(Ok(Outcome::Committed(last))));
    }
    Ok(Decided::commit(revision, events))
}

fn delete(
    tables: &mut impl Tables,
    leases: &Leases,
    key: String,
    revision: Revision,
) -> Result<Option<Event>, StoreError> {
    if leases.bind(&key, None) {
        tables.bound(&key, None)?;
    }
    Ok(tables.delete(&key)?.then_some(Event::Delete { key, revision }))
}

/// A batch has one event for each key at most.
fn last_of_each_key(ops: Vec<Op>) -> Vec<Op> {
    let mut seen = HashSet::with_capacity(ops.len());
    let wins: Vec<bool> = ops.iter().rev().map(|op| seen.insert(op.key())).collect();
    if seen.len() == ops.len() {
        return ops;
    }
    drop(seen);
    ops.into_iter().zip(wins.into_iter().rev()).filter_map(|(op, wins)| wins.then_some(op)).collect()
}

/// Refuses what no backend shall have to bear.
pub fn check_bounds(command: &Command) -> Result<(), StoreError> {
    match command {
        Command::Transact(transaction) => check_transaction(transaction),
        Command::Grant { ttl, .. } if *ttl > LEASE_TTL_MAX => {
            Err(StoreError::TooLarge("a lease's time to live"))
        }
        Command::Grant { .. } | Command::Revoke(_) | Command::Expire(_) => Ok(()),
    }
}

fn check_transaction(transaction: &Transaction) -> Result<(), StoreError> {
    if transaction.ops.len() > OPS_MAX {
        return Err(StoreError::TooLarge("the number of changes in one transaction"));
    }
    if transaction.compares.len() > OPS_MAX {
        return Err(StoreError::TooLarge("the number of comparisons in one transaction"));
    }
    let mut len = 0;
    for op in &transaction.ops {
        let value_len = match op {
            Op::Put { value, .. } => value.len(),
            Op::Delete { .. } => 0,
        };
        check_key(op.key())?;
        if value_len > VALUE_LEN_MAX {
            return Err(StoreError::TooLarge("a value"));
        }
        len += op.key().len() + value_len;
    }
    for compare in &transaction.compares {
        let (Compare::Absent(key) | Compare::Modified(key, _)) = compare;
        check_key(key)?;
        len += key.len();
    }
    if len > TRANSACTION_LEN_MAX {
        return Err(StoreError::TooLarge("a transaction"));
    }
    Ok(())
}

pub fn check_key(key: &str) -> Result<(), StoreError> {
    if key.len() > KEY_LEN_MAX { Err(StoreError::TooLarge("a key")) } else { Ok(()) }
}
