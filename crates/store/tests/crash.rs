//! The process is killed with no warning at all, again and again, and the file is opened by the next.
//!
//! The child is this test binary again: it runs [`child`] alone, with the work named in its environment, and tells
//! on its standard error what was acknowledged to it.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;
use store::{Entry, Event, Op, Outcome, RedbStore, Revision, Store, StoreError, Transaction};

const WORK: &str = "STORE_CRASH_WORK";
const PATH: &str = "STORE_CRASH_PATH";
const WRITERS: usize = 8;

/// Nothing by itself: what a child process does.
#[tokio::test]
async fn child() {
    let (Ok(work), Some(path)) = (std::env::var(WORK), std::env::var_os(PATH)) else { return };
    tell(format_args!("opening"));
    let store = RedbStore::open(Path::new(&path)).unwrap();
    tell(format_args!("opened"));
    match work.as_str() {
        "create" => {}
        "write" => drop(futures::future::join_all((0..WRITERS).map(|writer| write(&store, writer))).await),
        "backup" => back_up(&store, &Path::new(&path).with_extension("backup")).await,
        work => panic!("no such work: {work}"),
    }
}

/// One line in one write, so that a pipe has all of it or nothing.
fn tell(line: std::fmt::Arguments) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn put(key: String, value: u64) -> Op {
    Op::Put { key, value: Bytes::from(value.to_string()), lease: None }
}

/// Counts up for ever. A step changes several keys, one of them bound to a lease and one that a later step deletes.
async fn write(store: &RedbStore, writer: usize) {
    let found = store.get(&format!("{writer}/one")).await.unwrap();
    let mut count = found.map_or(0, |entry| number(&entry));
    let lease = store.lease_grant(Duration::from_secs(3600)).await.unwrap();
    tell(format_args!("lease {lease}"));
    loop {
        count += 1;
        let leased = Op::Put { key: format!("{writer}/leased"), value: Bytes::new(), lease: Some(lease) };
        let ops = vec![
            put(format!("{writer}/one"), count),
            leased,
            put(format!("{writer}/step/{count}"), count),
            Op::Delete { key: format!("{writer}/step/{}", count.saturating_sub(5)) },
            put(format!("{writer}/two"), count),
        ];
        let outcome = store.transact(Transaction { compares: vec![], ops }).await.unwrap();
        let Outcome::Committed(revision) = outcome else { panic!("a conflict") };
        tell(format_args!("wrote {writer} {count} {revision}"));
    }
}

async fn back_up(store: &RedbStore, to: &Path) {
    for count in 0.. {
        let ops = vec![put("one".into(), count), put("two".into(), count)];
        store.transact(Transaction { compares: vec![], ops }).await.unwrap();
        store.backup(to).await.unwrap();
        tell(format_args!("saved {count}"));
    }
}

fn number(entry: &Entry) -> u64 {
    str::from_utf8(&entry.value).unwrap().parse().unwrap()
}

struct Victim {
    process: Child,
    told: BufReader<ChildStderr>,
}

impl Victim {
    fn spawn(work: &str, path: &Path) -> Victim {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(WORK, work)
            .env(PATH, path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(process.stderr.take().unwrap());
        Victim { process, told }
    }

    fn wait_for(&mut self, begin: &str) -> String {
        let mut line = String::new();
        while !line.starts_with(begin) {
            line.clear();
            assert_ne!(
                self.told.read_line(&mut line).unwrap(),
                0,
                "the child ended before it said {begin:?}"
            );
        }
        line
    }

    /// SIGKILL; all that it said until then.
    fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let told: Vec<String> = (&mut self.told).lines().map(Result::unwrap).collect();
        let panicked = told.iter().find(|line| line.contains("panicked"));
        assert_eq!(panicked, None, "{told:?}");
        told
    }
}

impl Drop for Victim {
    /// Also where an assertion failed before.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Default)]
struct Acknowledged {
    /// Per writer, its last step.
    steps: BTreeMap<usize, u64>,
    leases: Vec<u64>,
    revision: Revision,
}

impl Acknowledged {
    fn hear(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("wrote") => {
                let mut numbers = words.map(|word| word.parse::<u64>().unwrap());
                let mut next = || numbers.next().unwrap();
                let (writer, step, revision) = (next() as usize, next(), next());
                self.steps.insert(writer, step);
                self.revision = self.revision.max(revision);
            }
            Some("lease") => self.leases.push(words.next().unwrap().parse().unwrap()),
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let mut acknowledged = Acknowledged::default();
    for round in 0..10_u64 {
        let mut victim = Victim::spawn("write", &path);
        acknowledged.hear(&victim.wait_for("lease"));
        let second = RedbStore::open(&path).err().expect("refused");
        assert!(matches!(second, StoreError::InUse(_)), "{second}");
        // Some moments within a commit, and some between two.
        std::thread::sleep(Duration::from_micros(round * 7_919 % 60_000));
        victim.kill().iter().for_each(|line| acknowledged.hear(line));
        let store = RedbStore::open(&path).unwrap();
        check(&store, &acknowledged).await;
    }
    assert!(acknowledged.revision > 100, "too little happened: {}", acknowledged.revision);
}

async fn check(store: &RedbStore, acknowledged: &Acknowledged) {
    let last = store.revision().await.unwrap();
    assert!(last >= acknowledged.revision);
    let page = store.range("", None, usize::MAX).await.unwrap();
    assert_eq!((page.revision, page.more), (last, false));
    let there: BTreeMap<String, Entry> =
        page.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    for writer in 0..WRITERS {
        let Some(one) = there.get(&format!("{writer}/one")) else {
            assert_eq!(acknowledged.steps.get(&writer), None);
            continue;
        };
        let step = number(one);
        assert!(
            step >= acknowledged.steps.get(&writer).copied().unwrap_or(0),
            "an acknowledged step is lost"
        );
        // No half of a step: all its keys are there, at its revision, and what it deleted is not.
        for key in ["two".into(), format!("step/{step}"), "leased".into()] {
            assert_eq!(there[&format!("{writer}/{key}")].modified, one.modified, "{writer}/{key}");
        }
        assert_eq!(number(&there[&format!("{writer}/two")]), step);
        let steps = there.keys().filter(|key| key.starts_with(&format!("{writer}/step/"))).count();
        assert_eq!(steps as u64, step.min(5));
    }
    for lease in &acknowledged.leases {
        store.lease_keep_alive(*lease).await.unwrap();
    }
    // History comes to what is there.
    let mut replayed = BTreeMap::new();
    let mut watch = store.watch("", 1).await.unwrap();
    for revision in 1..=last {
        let batch = watch.next().await.unwrap();
        assert_eq!(batch.revision, revision);
        for event in batch.events {
            match event {
                Event::Put(entry) => drop(replayed.insert(entry.key.clone(), entry)),
                Event::Delete { key, .. } => drop(replayed.remove(&key).expect("it was there")),
            }
        }
    }
    assert_eq!(replayed, there);
}

#[tokio::test]
async fn a_file_whose_making_was_cut_short_opens() {
    for round in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let mut victim = Victim::spawn("create", &path);
        victim.wait_for("opening");
        std::thread::sleep(Duration::from_micros(round * 700));
        victim.kill();
        open_and_use(&path).await;
    }
}

/// What a crash may leave beside the file, or an older build's in its place.
#[tokio::test]
async fn a_file_that_was_half_made_opens() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.redb");
    open_and_use(&whole).await;
    let whole = std::fs::read(whole).unwrap();
    for len in [0, 1, 100, 4096, 5000, whole.len() / 2, whole.len()] {
        let path = dir.path().join(format!("{len}.redb"));
        std::fs::write(dir.path().join(format!("{len}.redb.new")), &whole[..len]).unwrap();
        open_and_use(&path).await;
    }
    let empty = dir.path().join("empty.redb");
    std::fs::write(&empty, "").unwrap();
    open_and_use(&empty).await;
}

async fn open_and_use(path: &Path) {
    let store = RedbStore::open(path).unwrap();
    assert_eq!(store.revision().await.unwrap(), 0);
    let ops = vec![put("a".into(), 1)];
    let outcome = store.transact(Transaction { compares: vec![], ops }).await.unwrap();
    assert_eq!(outcome, Outcome::Committed(1));
    drop(store);
    assert_eq!(RedbStore::open(path).unwrap().revision().await.unwrap(), 1);
    assert!(!path.with_extension("redb.new").exists());
}

#[tokio::test]
async fn a_backup_is_whole_wherever_the_next_one_was_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    for round in 0..6_u64 {
        let mut victim = Victim::spawn("backup", &path);
        let mut saved = victim.wait_for("saved");
        std::thread::sleep(Duration::from_micros(round * 7_919 % 40_000));
        saved = victim.kill().into_iter().rfind(|line| line.starts_with("saved")).unwrap_or(saved);
        let saved: u64 = saved["saved ".len()..].trim().parse().unwrap();
        let restored = dir.path().join(format!("{round}.redb"));
        RedbStore::restore(&path.with_extension("backup"), &restored).unwrap();
        let store = RedbStore::open(&restored).unwrap();
        let (one, two) = (store.get("one").await.unwrap().unwrap(), store.get("two").await.unwrap().unwrap());
        assert_eq!((one.value.clone(), one.modified), (two.value.clone(), two.modified));
        assert!(number(&one) >= saved, "{} is older than {saved}", number(&one));
    }
}
