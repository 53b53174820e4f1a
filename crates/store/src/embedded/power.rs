//! What outlives a disk that fails, or loses its power, at any moment; and what is seen while it is slow.

use super::{RedbOptions, RedbStore};
use crate::{Batch, Entry, LeaseId, Op, Outcome, Revision, Store, StoreError, Transaction};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use parking_lot::{Condvar, Mutex};
use redb::{Database, StorageBackend};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A disk in memory. What is written is certain only once it is synced.
#[derive(Clone, Debug)]
struct Disk(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    /// As it is read.
    content: Vec<u8>,
    /// As it certainly is after a loss of power, and what may have come to it.
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// Until it fails; none where it does not.
    changes_left: Option<u64>,
    changes: u64,
    syncs: u64,
    /// Whether a sync waits.
    held: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Len(usize),
    Write(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Len(len) => content.resize(*len, 0),
            Change::Write(at, data) => {
                content.resize(content.len().max(at + data.len()), 0);
                content[*at..][..data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    fn with(content: Vec<u8>) -> Disk {
        let state = State { synced: content.clone(), content, ..State::default() };
        Disk(Arc::new((Mutex::new(state), Condvar::new())))
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.0.0.lock())
    }

    fn fail_after(&self, changes: Option<u64>) {
        self.state(|state| state.changes_left = changes);
    }

    fn hold_syncs(&self, held: bool) {
        self.state(|state| state.held = held);
        self.0.1.notify_all();
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.state(|state| {
            state.spend()?;
            change.apply(&mut state.content);
            state.unsynced.push(change);
            Ok(())
        })
    }

    /// What another boot finds: of what was not synced some is there, some is not, and some is in part.
    fn after_power_loss(&self, seed: u64) -> Vec<u8> {
        self.state(|state| {
            let mut content = state.synced.clone();
            let mut chance = seed;
            for change in &state.unsynced {
                chance =
                    chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                match (chance >> 33) % 4 {
                    0 => {}
                    1 if let Change::Write(at, data) = change => {
                        let sectors = (chance >> 40) as usize % (data.len() / 512 + 1);
                        Change::Write(*at, data[..sectors * 512].to_vec()).apply(&mut content);
                    }
                    _ => change.apply(&mut content),
                }
            }
            content
        })
    }
}

impl State {
    fn spend(&mut self) -> io::Result<()> {
        self.changes += 1;
        match &mut self.changes_left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the disk has failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state(|state| state.content.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.state(|state| {
            let there = state.content.get(offset as usize..).and_then(|rest| rest.get(..out.len()));
            out.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let (state, released) = &*self.0;
        let mut state = state.lock();
        state.syncs += 1;
        released.wait_while(&mut state, |state| state.held);
        state.spend()?;
        state.synced = state.content.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset as usize, data.to_vec()))
    }
}

fn open(disk: &Disk) -> RedbStore {
    let database = Database::builder().create_with_backend(disk.clone()).unwrap();
    RedbStore::start(database, None, &RedbOptions::default()).unwrap()
}

fn put(key: impl Into<String>, lease: Option<LeaseId>) -> Op {
    Op::Put { key: key.into(), value: Bytes::from(vec![7; 2000]), lease }
}

async fn write(store: &RedbStore, ops: Vec<Op>) -> Result<(), StoreError> {
    let outcome = store.transact(Transaction { compares: vec![], ops }).await?;
    assert!(matches!(outcome, Outcome::Committed(_)));
    Ok(())
}

/// One transaction after another, until the disk fails.
async fn work(store: &RedbStore) -> Result<(), StoreError> {
    let lease = store.lease_grant(Duration::from_secs(3600)).await?;
    for step in 0..8_u32 {
        let gone = Op::Delete { key: format!("step/{}", step.saturating_sub(3)) };
        write(store, vec![put("same", None), gone, put(format!("step/{step}"), None)]).await?;
        write(store, vec![put(format!("leased/{step}"), Some(lease))]).await?;
    }
    store.lease_revoke(lease).await?;
    write(store, vec![put("end", None)]).await
}

async fn history(store: &RedbStore) -> Vec<Batch> {
    let mut watch = store.watch("", 1).await.unwrap();
    let mut batches = Vec::new();
    while let Some(Some(batch)) = watch.next().now_or_never() {
        batches.push(batch);
    }
    batches
}

async fn everything(store: &RedbStore) -> (Revision, Vec<Entry>) {
    let page = store.range("", None, usize::MAX).await.unwrap();
    (page.revision, page.entries)
}

/// What was there at a revision, by an undisturbed history.
fn at(history: &[Batch], revision: Revision) -> Vec<Entry> {
    let mut entries = std::collections::BTreeMap::new();
    for event in history[..revision as usize].iter().flat_map(|batch| &batch.events) {
        match event {
            crate::Event::Put(entry) => drop(entries.insert(&entry.key, entry)),
            crate::Event::Delete { key, .. } => drop(entries.remove(key)),
        }
    }
    entries.into_values().cloned().collect()
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_loss_of_power_at_any_moment() {
    let disk = Disk::with(Vec::new());
    drop(open(&disk));
    let empty = disk.after_power_loss(0);

    let disk = Disk::with(empty.clone());
    let store = open(&disk);
    work(&store).await.unwrap();
    let undisturbed = history(&store).await;
    drop(store);
    let changes = disk.state(|state| state.changes);

    for moment in 0..changes {
        let disk = Disk::with(empty.clone());
        disk.fail_after(Some(moment));
        // It may fail while it is opened, too.
        let acknowledged = match Database::builder().create_with_backend(disk.clone()) {
            Err(_) => 0,
            Ok(database) => {
                let store = RedbStore::start(database, None, &RedbOptions::default()).unwrap();
                let _ = work(&store).await;
                store.revision().await.unwrap()
            }
        };
        for seed in 0..3 {
            let store = open(&Disk::with(disk.after_power_loss(moment * 3 + seed)));
            let (revision, entries) = everything(&store).await;
            assert!(
                (acknowledged..=acknowledged + 1).contains(&revision),
                "{acknowledged} acknowledged, {revision} there, power lost at change {moment}"
            );
            assert_eq!(entries, at(&undisturbed, revision));
            assert_eq!(history(&store).await, undisturbed[..revision as usize]);
            write(&store, vec![put("after", None)]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_written_until_the_file_is_opened_anew() {
    let disk = Disk::with(Vec::new());
    let store = open(&disk);
    write(&store, vec![put("a", None)]).await.unwrap();
    let mut watch = store.watch("", 2).await.unwrap();
    disk.fail_after(Some(0));
    let all = join_all(["b", "c", "d"].map(|key| write(&store, vec![put(key, None)]))).await;
    assert!(all.iter().all(|outcome| matches!(outcome, Err(StoreError::Backend(_)))), "{all:?}");
    // Not even when the disk is well again: what it holds is not known.
    disk.fail_after(None);
    assert!(write(&store, vec![put("e", None)]).await.is_err());
    assert!(store.lease_grant(Duration::from_secs(1)).await.is_err());
    assert_eq!(store.revision().await.unwrap(), 1);
    assert!(watch.next().now_or_never().is_none());
    drop(store);
    let store = open(&disk);
    let (revision, entries) = everything(&store).await;
    assert_eq!(entries.len() as u64, revision, "one key for each revision");
    write(&store, vec![put("f", None)]).await.unwrap();
}

#[tokio::test]
async fn nothing_is_told_before_it_is_durable() {
    let disk = Disk::with(Vec::new());
    let store = open(&disk);
    let mut watch = store.watch("", 1).await.unwrap();
    disk.hold_syncs(true);
    let syncs = disk.state(|state| state.syncs);
    let mut writing = Box::pin(write(&store, vec![put("a", None)]));
    while disk.state(|state| state.syncs) == syncs {
        assert!((&mut writing).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    // Reading does not wait for writing.
    assert_eq!(store.get("a").await.unwrap(), None);
    assert_eq!(everything(&store).await, (0, vec![]));
    assert_eq!(store.revision().await.unwrap(), 0);
    assert!(watch.next().now_or_never().is_none());
    disk.hold_syncs(false);
    writing.await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, 1);
}

#[tokio::test]
async fn all_that_wait_share_a_commit() {
    let disk = Disk::with(Vec::new());
    let store = open(&disk);
    let syncs = || disk.state(|state| state.syncs);
    disk.hold_syncs(true);
    let before = syncs();
    let mut first = Box::pin(write(&store, vec![put("first", None)]));
    while syncs() == before {
        assert!((&mut first).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let mut rest: Vec<_> =
        (0..100).map(|index| Box::pin(write(&store, vec![put(format!("{index}"), None)]))).collect();
    for waiting in &mut rest {
        assert!(waiting.now_or_never().is_none());
    }
    disk.hold_syncs(false);
    first.await.unwrap();
    join_all(rest).await.into_iter().for_each(Result::unwrap);
    assert_eq!(store.revision().await.unwrap(), 101, "each has a revision of its own");
    // Two commits, and what redb syncs for a file that grows.
    assert!(syncs() - before < 10, "{}", syncs() - before);
}
