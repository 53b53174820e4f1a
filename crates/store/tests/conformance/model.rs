//! Random commands, and a model of a few lines that says what they come to.

use crate::backend::{Open, all};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;
use store::{
    Batch, Compare, Entry, Event, LeaseId, Op, Outcome, Range, Revision, Store, StoreError, Transaction,
};

/// Few, so that commands meet; some are prefixes of others.
const KEYS: [&str; 8] = ["", "a", "a/", "a/1", "a/2", "a/ü", "b", "b/1"];

#[derive(Clone, Debug)]
enum Step {
    Transact {
        guesses: Vec<(Guess, &'static str)>,
        changes: Vec<(&'static str, Change)>,
    },
    Grant,
    /// Of the lease that was granted as the n-th, which may have ended, or never begun.
    Revoke(usize),
    KeepAlive(usize),
    Page {
        prefix: &'static str,
        after: Option<&'static str>,
        limit: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Guess {
    /// What the model knows.
    Right,
    Absent,
    /// As it was so many revisions ago.
    Stale(Revision),
}

#[derive(Clone, Debug)]
enum Change {
    Put(u8, Option<usize>),
    Delete,
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&KEYS[..])
}

fn step() -> impl Strategy<Value = Step> {
    let guess = prop_oneof![
        8 => Just(Guess::Right),
        1 => Just(Guess::Absent),
        1 => (1..4_u64).prop_map(Guess::Stale),
    ];
    let change = prop_oneof![
        3 => (any::<u8>(), prop::option::weighted(0.4, 0..4_usize)).prop_map(|(value, lease)| Change::Put(value, lease)),
        1 => Just(Change::Delete),
    ];
    let guesses = prop::collection::vec((guess, key()), 0..3);
    let changes = prop::collection::vec((key(), change), 0..5);
    prop_oneof![
        8 => (guesses, changes).prop_map(|(guesses, changes)| Step::Transact { guesses, changes }),
        1 => Just(Step::Grant),
        1 => (0..5_usize).prop_map(Step::Revoke),
        1 => (0..5_usize).prop_map(Step::KeepAlive),
        3 => (key(), prop::option::of(key()), 0..5_usize)
            .prop_map(|(prefix, after, limit)| Step::Page { prefix, after, limit }),
    ]
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<String, (Entry, Option<LeaseId>)>,
    history: Vec<Batch>,
    /// In the order they were granted; those that have ended are none.
    leases: Vec<(LeaseId, bool)>,
}

impl Model {
    fn revision(&self) -> Revision {
        self.history.len() as Revision
    }

    /// The number of the lease granted as the n-th; one that was never given where there are fewer.
    fn lease(&self, nth: usize) -> LeaseId {
        self.leases.get(nth).map_or(1_000_000, |(id, _)| *id)
    }

    fn held(&self, lease: LeaseId) -> bool {
        self.leases.contains(&(lease, true))
    }

    fn transaction(&self, guesses: &[(Guess, &str)], changes: &[(&str, Change)]) -> Transaction {
        let compares = guesses.iter().map(|(guess, key)| {
            let modified = self.entries.get(*key).map(|(entry, _)| entry.modified);
            match (guess, modified) {
                (Guess::Right, None) | (Guess::Absent, _) => Compare::Absent((*key).into()),
                (Guess::Right, Some(modified)) => Compare::Modified((*key).into(), modified),
                (Guess::Stale(age), modified) => {
                    Compare::Modified((*key).into(), modified.unwrap_or_default().saturating_sub(*age))
                }
            }
        });
        let ops = changes.iter().map(|(key, change)| match change {
            Change::Put(value, lease) => Op::Put {
                key: (*key).into(),
                value: Bytes::copy_from_slice(&[*value]),
                lease: lease.map(|nth| self.lease(nth)),
            },
            Change::Delete => Op::Delete { key: (*key).into() },
        });
        Transaction { compares: compares.collect(), ops: ops.collect() }
    }

    fn transact(&mut self, transaction: &Transaction) -> Result<Outcome, LeaseId> {
        let holds = |compare: &Compare| match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Modified(key, revision) => {
                self.entries.get(key).is_some_and(|(entry, _)| entry.modified == *revision)
            }
        };
        if !transaction.compares.iter().all(holds) {
            return Ok(Outcome::Conflict);
        }
        let last: BTreeMap<&str, &Op> = transaction.ops.iter().map(|op| (op.key(), op)).collect();
        let unknown = transaction.ops.iter().find_map(|op| match op {
            // An earlier change of the same key is none.
            Op::Put { lease: Some(lease), .. } if std::ptr::eq(last[op.key()], op) && !self.held(*lease) => {
                Some(*lease)
            }
            _ => None,
        });
        if let Some(unknown) = unknown {
            return Err(unknown);
        }
        let revision = self.revision() + 1;
        let events = last.into_values().filter_map(|op| self.apply(op, revision)).collect();
        self.history.push(Batch { revision, events });
        Ok(Outcome::Committed(revision))
    }

    fn apply(&mut self, op: &Op, revision: Revision) -> Option<Event> {
        match op {
            Op::Put { key, value, lease } => {
                let entry = Entry { key: key.clone(), value: value.clone(), modified: revision };
                self.entries.insert(key.clone(), (entry.clone(), *lease));
                Some(Event::Put(entry))
            }
            Op::Delete { key } => {
                self.entries.remove(key).map(|_| Event::Delete { key: key.clone(), revision })
            }
        }
    }

    fn revoke(&mut self, lease: LeaseId) -> bool {
        let Some(held) = self.leases.iter_mut().find(|held| **held == (lease, true)) else { return false };
        held.1 = false;
        let keys: Vec<String> = self
            .entries
            .iter()
            .filter(|(_, (_, bound))| *bound == Some(lease))
            .map(|(key, _)| key.clone())
            .collect();
        if !keys.is_empty() {
            let revision = self.revision() + 1;
            let events =
                keys.into_iter().filter_map(|key| self.apply(&Op::Delete { key }, revision)).collect();
            self.history.push(Batch { revision, events });
        }
        true
    }

    fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Range {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut entries: Vec<Entry> = self
            .entries
            .range::<str, _>((after, Bound::Unbounded))
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(_, (entry, _))| entry.clone())
            .collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        Range { entries, revision: self.revision(), more }
    }

    async fn step(&mut self, store: &dyn Store, step: &Step) {
        match step {
            Step::Transact { guesses, changes } => {
                let transaction = self.transaction(guesses, changes);
                let expected = self.transact(&transaction);
                match store.transact(transaction).await {
                    Ok(outcome) => assert_eq!(Ok(outcome), expected),
                    Err(StoreError::UnknownLease(lease)) => assert_eq!(Err(lease), expected),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Grant => {
                let lease = store.lease_grant(Duration::from_secs(3600)).await.unwrap();
                assert!(self.leases.iter().all(|(given, _)| *given != lease));
                self.leases.push((lease, true));
            }
            Step::Revoke(nth) => {
                let lease = self.lease(*nth);
                assert_eq!(store.lease_revoke(lease).await.is_ok(), self.revoke(lease));
            }
            Step::KeepAlive(nth) => {
                let lease = self.lease(*nth);
                assert_eq!(store.lease_keep_alive(lease).await.is_ok(), self.held(lease));
            }
            Step::Page { prefix, after, limit } => {
                let page = store.range(prefix, *after, *limit).await.unwrap();
                assert_eq!(page, self.page(prefix, *after, *limit));
            }
        }
    }

    /// At the end everything is as the model has it, history too.
    async fn agree(&self, store: &dyn Store) {
        assert_eq!(store.revision().await.unwrap(), self.revision());
        for prefix in KEYS {
            let page = store.range(prefix, None, usize::MAX).await.unwrap();
            assert_eq!(page, self.page(prefix, None, usize::MAX));
            let mut watch = store.watch(prefix, 1).await.unwrap();
            for batch in &self.history {
                let mut seen = watch.next().await.unwrap();
                assert_eq!(seen.revision, batch.revision);
                seen.events.sort_by(|one, other| one.key().cmp(other.key()));
                let under = batch.events.iter().filter(|event| event.key().starts_with(prefix));
                assert!(seen.events.iter().eq(under), "{:?} is not of {:?}", seen.events, batch.events);
            }
        }
        for key in KEYS {
            let known = self.entries.get(key).map(|(entry, _)| entry.clone());
            assert_eq!(store.get(key).await.unwrap(), known);
        }
    }
}

pub fn it_does_as_the_model(open: Open) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // A failure prints its steps; nothing is left in the source tree.
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let steps = prop::collection::vec(step(), 1..60);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(async {
            let store = open(all());
            let mut model = Model::default();
            for step in &steps {
                model.step(&*store, step).await;
            }
            model.agree(&*store).await;
        });
        Ok(())
    });
    outcome.unwrap();
}
