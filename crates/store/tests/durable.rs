//! The store in a file: what a later run finds, who may open it, copies of it, and files of older builds.

use bytes::Bytes;
use futures::future::join_all;
use redb::{Database, ReadableDatabase, TableDefinition};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::{
    Batch, Entry, Event, HistoryBounds, LeaseId, MemoryStore, Op, Outcome, Range, RedbOptions, RedbStore,
    Revision, Store, StoreError, Transaction,
};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);

fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), lease: None }
}

fn put_with(key: &str, lease: LeaseId) -> Op {
    Op::Put { key: key.into(), value: Bytes::new(), lease: Some(lease) }
}

fn delete(key: &str) -> Op {
    Op::Delete { key: key.into() }
}

async fn write(store: &RedbStore, ops: impl Into<Vec<Op>>) -> Revision {
    let transaction = Transaction { compares: vec![], ops: ops.into() };
    match store.transact(transaction).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("a conflict without a comparison"),
    }
}

async fn everything(store: &RedbStore) -> Range {
    store.range("", None, usize::MAX).await.unwrap()
}

async fn keys(store: &RedbStore) -> Vec<String> {
    everything(store).await.entries.into_iter().map(|entry| entry.key).collect()
}

/// From the first revision to the last.
async fn history(store: &RedbStore) -> Vec<Batch> {
    let mut watch = store.watch("", 1).await.unwrap();
    let mut batches = Vec::new();
    for _ in 0..store.revision().await.unwrap() {
        batches.push(watch.next().await.unwrap());
    }
    batches
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    (dir, path)
}

fn refused(path: &Path) -> StoreError {
    RedbStore::open(path).err().expect("refused")
}

fn names(dir: &TempDir) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[tokio::test]
async fn another_run_finds_everything() {
    let (_dir, path) = place();
    let (before, told) = {
        let store = RedbStore::open(&path).unwrap();
        write(&store, [put("a", "1"), put("ü", "2"), put("", "3")]).await;
        write(&store, [put("a", "4"), delete("ü"), put("b", &"long".repeat(10_000))]).await;
        write(&store, []).await;
        (everything(&store).await, history(&store).await)
    };
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.revision().await.unwrap(), 3);
    assert_eq!(everything(&store).await, before);
    assert_eq!(history(&store).await, told);
    // A watch from before goes on with what this run writes.
    let mut watch = store.watch("", 3).await.unwrap();
    assert_eq!(write(&store, [put("c", "")]).await, 4);
    assert_eq!(watch.next().await.unwrap().revision, 3);
    let added = Entry { key: "c".into(), value: Bytes::new(), modified: 4 };
    assert_eq!(watch.next().await.unwrap().events, [Event::Put(added)]);
}

#[tokio::test]
async fn another_run_finds_the_leases() {
    let (_dir, path) = place();
    let (kept, revoked) = {
        let store = RedbStore::open(&path).unwrap();
        let kept = store.lease_grant(HOUR).await.unwrap();
        let revoked = store.lease_grant(HOUR).await.unwrap();
        write(&store, [put_with("a", kept), put_with("b", kept), put_with("c", kept), put_with("d", kept)])
            .await;
        write(&store, [put("b", "no longer"), delete("c"), put_with("e", revoked)]).await;
        write(&store, [put("c", "again")]).await;
        store.lease_revoke(revoked).await.unwrap();
        (kept, revoked)
    };
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(keys(&store).await, ["a", "b", "c", "d"]);
    store.lease_keep_alive(kept).await.unwrap();
    assert!(matches!(store.lease_keep_alive(revoked).await, Err(StoreError::UnknownLease(_))));
    assert!(store.lease_grant(HOUR).await.unwrap() > revoked, "no number is given twice");
    store.lease_revoke(kept).await.unwrap();
    assert_eq!(keys(&store).await, ["b", "c"]);
    drop(store);
    let store = RedbStore::open(&path).unwrap();
    assert!(matches!(store.lease_keep_alive(kept).await, Err(StoreError::UnknownLease(_))));
}

#[tokio::test]
async fn a_lease_of_an_earlier_run_ends_after_its_whole_time() {
    let (_dir, path) = place();
    {
        let store = RedbStore::open(&path).unwrap();
        let lease = store.lease_grant(HOUR).await.unwrap();
        write(&store, [put_with("a", lease)]).await;
    }
    // From here on tokio moves time: whenever all wait, to what comes next.
    tokio::time::pause();
    let reopened = tokio::time::Instant::now();
    let store = RedbStore::open(&path).unwrap();
    let mut watch = store.watch("", 2).await.unwrap();
    let ended = watch.next().await.unwrap();
    assert_eq!(ended.events, [Event::Delete { key: "a".into(), revision: 2 }]);
    assert!(reopened.elapsed() >= HOUR);
}

#[tokio::test]
async fn another_run_finds_history_within_its_bounds() {
    let (_dir, path) = place();
    let bounds = HistoryBounds { batches: 10, len: 1_000_000 };
    let options =
        RedbOptions { recent: HistoryBounds { batches: 3, ..bounds }, log: bounds, ..Default::default() };
    {
        let store = RedbStore::open_with(&path, options.clone()).unwrap();
        for _ in 0..25 {
            write(&store, [put("a", "")]).await;
        }
    }
    let oldest = async |store: &RedbStore| match store.watch("", 1).await.err() {
        Some(StoreError::Compacted { oldest }) => oldest,
        other => panic!("{other:?}"),
    };
    let store = RedbStore::open_with(&path, options.clone()).unwrap();
    assert_eq!(oldest(&store).await, 16);
    let mut watch = store.watch("", 16).await.unwrap();
    for revision in 16..=25 {
        assert_eq!(watch.next().await.unwrap().revision, revision);
    }
    drop(store);
    // Narrower bounds hold from the next commit on.
    let narrow = RedbOptions { log: HistoryBounds { batches: 2, ..bounds }, ..options };
    let store = RedbStore::open_with(&path, narrow).unwrap();
    write(&store, []).await;
    assert_eq!(oldest(&store).await, 25);
}

#[tokio::test]
async fn one_at_a_time_has_the_file_open() {
    let (_dir, path) = place();
    let store = RedbStore::open(&path).unwrap();
    let clone = store.clone();
    assert!(matches!(refused(&path), StoreError::InUse(used) if used == path));
    drop(store);
    assert!(matches!(refused(&path), StoreError::InUse(_)), "a clone is the same store");
    write(&clone, [put("a", "")]).await;
    // Neither a watch nor a lease keeps it open.
    let mut watch = clone.watch("", 1).await.unwrap();
    clone.lease_grant(HOUR).await.unwrap();
    drop(clone);
    let store = RedbStore::open(&path).unwrap();
    write(&store, [put("b", "")]).await;
    while let Some(batch) = watch.next().await {
        assert_eq!(batch.revision, 1, "a watch is of the store it was begun with");
    }
}

/// Readers of old history are in the file for moments that the store does not see.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dropped_store_can_be_opened_again_at_once() {
    let (_dir, path) = place();
    let options = RedbOptions { recent: HistoryBounds { batches: 1, len: 1 }, ..RedbOptions::default() };
    let open = || RedbStore::open_with(&path, options.clone()).unwrap();
    let store = open();
    join_all((0..300).map(|index| write(&store, [put("a", &index.to_string().repeat(1000))]))).await;
    drop(store);
    let mut readers = Vec::new();
    for _ in 0..60 {
        let store = open();
        for _ in 0..3 {
            let mut watch = store.watch("", 1).await.unwrap();
            readers.push(tokio::spawn(async move { while watch.next().await.is_some() {} }));
        }
        tokio::task::yield_now().await;
        drop(store);
    }
    join_all(readers).await;
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    let (dir, path) = place();
    let store = RedbStore::open(&path).unwrap();
    store.backup(&dir.path().join("backup")).await.unwrap();
    for name in names(&dir) {
        let mode = fs::metadata(dir.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// What the store held at a revision, by its history.
fn at(history: &[Batch], revision: Revision) -> Vec<Entry> {
    let mut entries = BTreeMap::new();
    for event in history.iter().take_while(|batch| batch.revision <= revision).flat_map(|batch| &batch.events)
    {
        match event {
            Event::Put(entry) => drop(entries.insert(&entry.key, entry)),
            Event::Delete { key, .. } => drop(entries.remove(key)),
        }
    }
    entries.into_values().cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_is_the_store_at_one_revision_while_it_is_written() {
    let (dir, path) = place();
    let store = RedbStore::open(&path).unwrap();
    let lease = store.lease_grant(HOUR).await.unwrap();
    write(&store, [put_with("leased", lease)]).await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..40 {
                    let [one, two] = ["one", "two"].map(|key| format!("{writer}/{key}/{}", round % 7));
                    write(&store, [put(&one, &round.to_string()), delete(&two)]).await;
                    write(&store, [delete(&one), put(&two, &round.to_string())]).await;
                }
            })
        })
        .collect();
    let mut backups = Vec::new();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let backup = dir.path().join(format!("backup-{}", backups.len()));
        let least = store.revision().await.unwrap();
        store.backup(&backup).await.unwrap();
        backups.push((backup, least));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let told = history(&store).await;
    assert!(backups.len() > 1);
    for (backup, least) in backups {
        let copy = RedbStore::open(&backup).unwrap();
        let page = everything(&copy).await;
        assert!(page.revision >= least, "what was acknowledged before is in it");
        assert_eq!(page.entries, at(&told, page.revision));
        assert_eq!(history(&copy).await, told[..page.revision as usize]);
        copy.lease_revoke(lease).await.unwrap();
        assert_eq!(copy.get("leased").await.unwrap(), None);
        assert!(copy.lease_grant(HOUR).await.unwrap() > lease);
    }
    assert!(store.get("leased").await.unwrap().is_some(), "a copy is a store of its own");
}

#[tokio::test]
async fn a_backup_takes_the_place_of_the_one_before() {
    let (dir, path) = place();
    let backup = dir.path().join("backup");
    let store = RedbStore::open(&path).unwrap();
    for value in ["first", "second"] {
        write(&store, [put("a", value)]).await;
        store.backup(&backup).await.unwrap();
        let restored = dir.path().join(value);
        RedbStore::restore(&backup, &restored).unwrap();
        let restored = RedbStore::open(&restored).unwrap();
        assert_eq!(everything(&restored).await, everything(&store).await);
    }
    // What is no backup goes too: whoever names a file means it.
    fs::write(&backup, "something else").unwrap();
    store.backup(&backup).await.unwrap();
    assert_eq!(everything(&RedbStore::open(&backup).unwrap()).await, everything(&store).await);
}

#[tokio::test]
async fn a_backup_never_takes_the_place_of_a_store_that_runs() {
    let (dir, path) = place();
    let store = RedbStore::open(&path).unwrap();
    let other_path = dir.path().join("other.redb");
    let other = RedbStore::open(&other_path).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for to in [&path, &other_path, &link] {
        let error = store.backup(to).await.unwrap_err();
        assert!(matches!(error, StoreError::InUse(_)), "{error}");
    }
    write(&store, [put("a", "")]).await;
    drop((store, other));
    assert_eq!(keys(&RedbStore::open(&path).unwrap()).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn backups_to_one_place_at_once_are_each_whole() {
    let (dir, path) = place();
    let backup = dir.path().join("backup");
    let store = RedbStore::open(&path).unwrap();
    for index in 0..50 {
        write(&store, [put(&index.to_string(), &"value".repeat(5000))]).await;
    }
    for _ in 0..3 {
        let backups = (0..4).map(|_| {
            let (store, backup) = (store.clone(), backup.clone());
            tokio::spawn(async move { store.backup(&backup).await })
        });
        for made in join_all(backups).await {
            made.unwrap().unwrap();
        }
    }
    assert_eq!(everything(&RedbStore::open(&backup).unwrap()).await, everything(&store).await);
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing() {
    let (dir, path) = place();
    let store = RedbStore::open(&path).unwrap();
    let before = names(&dir);
    store.backup(&dir.path().join("absent/backup")).await.unwrap_err();
    // A directory is not replaced by a file.
    fs::create_dir(dir.path().join("taken")).unwrap();
    store.backup(&dir.path().join("taken")).await.unwrap_err();
    fs::remove_dir(dir.path().join("taken")).unwrap();
    assert_eq!(names(&dir), before);
    let memory = MemoryStore::new().backup(&dir.path().join("memory")).await;
    assert!(matches!(memory, Err(StoreError::Backend(_))));
}

#[tokio::test]
async fn a_restored_store_is_new_and_its_backup_stays() {
    let (dir, path) = place();
    let (backup, to) = (dir.path().join("backup"), dir.path().join("restored.redb"));
    let store = RedbStore::open(&path).unwrap();
    write(&store, [put("a", "")]).await;
    store.backup(&backup).await.unwrap();
    let bytes = fs::read(&backup).unwrap();
    RedbStore::restore(&backup, &to).unwrap();
    assert_eq!(fs::read(&backup).unwrap(), bytes);
    // Never over what is there, and never from a store that runs.
    let there = RedbStore::restore(&backup, &to).unwrap_err();
    assert!(matches!(there, StoreError::Backend(_)), "{there}");
    let running = RedbStore::restore(&path, &dir.path().join("of-running")).unwrap_err();
    assert!(matches!(running, StoreError::InUse(_)), "{running}");
    let restored = RedbStore::open(&to).unwrap();
    let used = RedbStore::restore(&backup, &to).unwrap_err();
    assert!(matches!(used, StoreError::InUse(_)), "{used}");
    assert_eq!(write(&restored, [put("b", "")]).await, 2);
}

#[tokio::test]
async fn what_is_no_whole_backup_is_not_restored() {
    let (dir, path) = place();
    let (backup, to) = (dir.path().join("backup"), dir.path().join("restored.redb"));
    let store = RedbStore::open(&path).unwrap();
    for index in 0..20 {
        write(&store, [put(&index.to_string(), &"value".repeat(1000))]).await;
    }
    store.backup(&backup).await.unwrap();
    let whole = fs::read(&backup).unwrap();
    let value = whole.windows(5).position(|five| five == b"value").unwrap();
    let mut flipped = whole.clone();
    flipped[value + 100] ^= 1;
    let damaged = [vec![], b"no database at all".repeat(1000), whole[..whole.len() / 2].to_vec(), flipped];
    for (index, bytes) in damaged.into_iter().enumerate() {
        fs::write(&backup, bytes).unwrap();
        assert!(RedbStore::restore(&backup, &to).is_err(), "damage {index}");
        assert!(!to.exists() && !dir.path().join("restored.redb.new").exists());
    }
    assert!(RedbStore::restore(&dir.path().join("absent"), &to).is_err());
    assert!(!dir.path().join("absent").exists());
}

const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// A file as an older build left it, its tables written by hand: they must stay readable, whatever today's are.
fn write_tables(path: &Path, entries: &[(&str, u64)], meta: &[(&str, u64)]) {
    let database = Database::create(path).unwrap();
    let writing = database.begin_write().unwrap();
    // Every version has had this table, but for a file that is empty.
    if !(entries.is_empty() && meta.is_empty()) {
        let mut table = writing.open_table(ENTRIES).unwrap();
        for (key, modified) in entries {
            let stored = [&modified.to_le_bytes()[..], key.as_bytes()].concat();
            table.insert(*key, stored.as_slice()).unwrap();
        }
    }
    if !meta.is_empty() {
        let mut table = writing.open_table(META).unwrap();
        for (name, number) in meta {
            table.insert(*name, *number).unwrap();
        }
    }
    writing.commit().unwrap();
}

fn schema(path: &Path) -> u64 {
    let database = Database::open(path).unwrap();
    let reading = database.begin_read().unwrap();
    reading.open_table(META).unwrap().get("schema").unwrap().unwrap().value()
}

#[tokio::test]
async fn files_of_older_builds_are_brought_to_this_ones_schema() {
    let entries = [("a", 3), ("b", 7), ("ü", 5)];
    let older: [(&[_], &[_], Revision); 6] = [
        // Before there were versions: nothing, or entries alone.
        (&[], &[], 0),
        (&entries, &[], 7),
        (&entries, &[("revision", 9)], 9),
        // Version 1: without history and leases.
        (&entries, &[("revision", 9), ("schema", 1)], 9),
        (&[], &[("revision", 2), ("schema", 1)], 2),
        (&[], &[("schema", 1)], 0),
    ];
    for (entries, meta, revision) in older {
        let (_dir, path) = place();
        write_tables(&path, entries, meta);
        let store = RedbStore::open(&path).unwrap();
        let stored = |(key, modified): &(&str, u64)| Entry {
            key: (*key).into(),
            value: Bytes::copy_from_slice(key.as_bytes()),
            modified: *modified,
        };
        let expected = Range { entries: entries.iter().map(stored).collect(), revision, more: false };
        assert_eq!(everything(&store).await, expected);
        use_migrated(&store, revision).await;
        drop(store);
        assert_eq!(schema(&path), 2);
        assert_eq!(RedbStore::open(&path).unwrap().revision().await.unwrap(), revision + 2);
    }
}

async fn use_migrated(store: &RedbStore, revision: Revision) {
    if revision > 0 {
        let before = store.watch("", revision).await.err().expect("no history");
        assert!(matches!(before, StoreError::Compacted { oldest } if oldest == revision + 1), "{before}");
    }
    let mut watch = store.watch("", revision + 1).await.unwrap();
    let lease = store.lease_grant(HOUR).await.unwrap();
    assert_eq!(write(store, [put_with("new", lease)]).await, revision + 1);
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, revision + 1);
    assert_eq!(watch.next().await.unwrap().revision, revision + 2);
}

#[tokio::test]
async fn a_backup_of_an_older_build_is_restored_in_this_ones_schema() {
    let (dir, path) = place();
    let backup = dir.path().join("backup");
    write_tables(&backup, &[("a", 3)], &[("revision", 9), ("schema", 1)]);
    RedbStore::restore(&backup, &path).unwrap();
    assert_eq!(schema(&backup), 1);
    assert_eq!(schema(&path), 2);
    assert_eq!(everything(&RedbStore::open(&path).unwrap()).await.revision, 9);
}

#[tokio::test]
async fn a_newer_builds_file_is_left_as_it_is() {
    for version in [3, 99, u64::MAX] {
        let (dir, path) = place();
        write_tables(&path, &[("a", 3)], &[("revision", 9), ("schema", version)]);
        let found = u32::try_from(version).unwrap_or(u32::MAX);
        let too_new =
            |error| matches!(error, StoreError::SchemaTooNew { found: told, known: 2 } if told == found);
        assert!(too_new(refused(&path)));
        assert_eq!(schema(&path), version);
        let restored = dir.path().join("restored.redb");
        assert!(too_new(RedbStore::restore(&path, &restored).unwrap_err()));
        assert!(!restored.exists());
    }
}
