//! Durable transactions per second, against redb itself with a commit for each transaction in the same directory; and
//! how long a store of 100,000 entries takes to open.
//!
//! `cargo bench -p store`, with `TMPDIR` naming the file system. Both are asked for the same: a transaction that is
//! on the disk when it is answered. Short rounds alternate between the two, so that a disk that slows down slows both;
//! what is told are medians, the ratio that of the rounds' ratios.

use bytes::Bytes;
use redb::{Database, TableDefinition};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Op, Outcome, RedbStore, Store, Transaction};

const VALUE_LEN: usize = 1024;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(200);
const ENTRIES: usize = 100_000;
const RAW: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");

fn main() {
    // Cargo passes `--bench`; a test run without it only has to compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::Builder::new().prefix("store-bench-").tempdir().unwrap();
    println!("durable transactions of one key and {VALUE_LEN} bytes, per second");
    println!("{:>8} {:>10} {:>10} {:>8}", "writers", "redb", "store", "ratio");
    for writers in [1, 8, 64] {
        let [raw, ours, ratio] = runtime.block_on(compare(dir.path(), writers));
        println!("{writers:>8} {raw:>10.0} {ours:>10.0} {ratio:>7.2}x");
    }
    println!();
    runtime.block_on(time_opening(dir.path()));
}

/// The medians of redb's rounds, of the store's, and of their ratios.
async fn compare(dir: &Path, writers: usize) -> [f64; 3] {
    let raw_path = dir.join(format!("raw-{writers}.redb"));
    let raw = Arc::new(Database::create(raw_path).unwrap());
    let store = RedbStore::open(&dir.join(format!("store-{writers}.redb"))).unwrap();
    let (mut of_raw, mut of_store, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first round fills caches and grows the files.
    for round in 0..=ROUNDS {
        let raw_round = write_raw(&raw, writers).await;
        let store_round = write_store(&store, writers).await;
        if round > 0 {
            of_raw.push(raw_round);
            of_store.push(store_round);
            ratios.push(store_round / raw_round);
        }
    }
    [median(of_raw), median(of_store), median(ratios)]
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn key(writer: usize, count: usize) -> String {
    format!("{writer:02}/{:04}", count % 1000)
}

/// A thread for each writer, as its users have to.
async fn write_raw(database: &Arc<Database>, writers: usize) -> f64 {
    let begin = Instant::now();
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let database = Arc::clone(database);
            std::thread::spawn(move || {
                let value = [7; VALUE_LEN];
                let mut count = 0;
                while begin.elapsed() < ROUND {
                    let writing = database.begin_write().unwrap();
                    let mut entries = writing.open_table(RAW).unwrap();
                    entries.insert(key(writer, count).as_str(), value.as_slice()).unwrap();
                    drop(entries);
                    writing.commit().unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let count: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    count as f64 / begin.elapsed().as_secs_f64()
}

async fn write_store(store: &RedbStore, writers: usize) -> f64 {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let value = Bytes::from_static(&[7; VALUE_LEN]);
                let mut count = 0;
                while begin.elapsed() < ROUND {
                    commit(&store, vec![(key(writer, count), value.clone())]).await;
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

async fn commit(store: &RedbStore, entries: Vec<(String, Bytes)>) {
    let ops = entries.into_iter().map(|(key, value)| Op::Put { key, value, lease: None }).collect();
    let outcome = store.transact(Transaction { compares: Vec::new(), ops }).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)));
}

async fn time_opening(dir: &Path) {
    let path = dir.join("full.redb");
    let crashed = dir.join("crashed.redb");
    let store = RedbStore::open(&path).unwrap();
    for begin in (0..ENTRIES).step_by(5000) {
        let entry = |index| (format!("entries/{index:06}"), Bytes::from_static(&[7; VALUE_LEN]));
        commit(&store, (begin..begin + 5000).map(entry).collect()).await;
    }
    // What a crash now would leave.
    std::fs::copy(&path, &crashed).unwrap();
    drop(store);
    println!("opening a store of {ENTRIES} entries of {VALUE_LEN} bytes, of {} MiB", len_mib(&path));
    for (how, path) in [("closed", &path), ("after a crash", &crashed)] {
        let begin = Instant::now();
        let store = RedbStore::open(path).unwrap();
        let opened = begin.elapsed();
        let page = store.range("", None, 1).await.unwrap();
        assert_eq!(page.revision, (ENTRIES / 5000) as u64);
        println!("{how:>16} {:>8.1} ms", opened.as_secs_f64() * 1000.0);
    }
}

fn len_mib(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len() / (1024 * 1024)
}
