//! Watching: everything once, in order, from where it was asked.

use crate::backend::{
    Dice, Open, all, delete, everything, has_deleted, has_put, last, put, refused, take, write,
};
use futures::FutureExt;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{
    Batch, Compare, Entry, Event, HistoryBounds, Op, Outcome, Revision, Store, StoreError, Transaction, Watch,
};

async fn watch(store: &dyn Store, from: Revision) -> Watch {
    store.watch("", from).await.unwrap()
}

/// From which revision on history is remembered, told by asking for more.
async fn compacted(store: &dyn Store, from: Revision) -> Revision {
    match store.watch("", from).await.err() {
        Some(StoreError::Compacted { oldest }) => oldest,
        other => panic!("remembered, or {other:?}"),
    }
}

async fn write_many(store: &dyn Store, count: usize) {
    for index in 0..count {
        write(store, [put(&format!("{index}"), "some value")]).await;
    }
}

pub async fn a_watch_begins_with_what_is_remembered_and_goes_on(open: Open) {
    let store = open(all());
    write(&*store, [put("a", "1")]).await;
    write(&*store, [put("a", "2")]).await;
    // The first revision is 1: from 0 is from the beginning as well.
    for from in 0..=3 {
        let mut watch = watch(&*store, from).await;
        for revision in from.max(1)..=2 {
            let events = vec![has_put("a", &revision.to_string(), revision)];
            assert_eq!(watch.next().await, Some(Batch { revision, events }), "from {from}");
        }
        assert!(watch.next().now_or_never().is_none());
    }
    let mut watch = watch(&*store, 2).await;
    write(&*store, [delete("a")]).await;
    let seen = take(&mut watch, 2).await;
    assert_eq!(seen[1], Batch { revision: 3, events: vec![has_deleted("a", 3)] });
}

pub async fn a_watch_has_one_event_for_each_changed_key(open: Open) {
    let store = open(all());
    write(&*store, [put("old", "")]).await;
    write(&*store, [put("a", "1"), put("b", ""), delete("old"), delete("never"), put("a", "2")]).await;
    let mut watch = watch(&*store, 2).await;
    let mut events = watch.next().await.unwrap().events;
    events.sort_by(|one, other| one.key().cmp(other.key()));
    assert_eq!(events, [has_put("a", "2", 2), has_put("b", "", 2), has_deleted("old", 2)]);
}

pub async fn a_watch_tells_of_commits_elsewhere_by_empty_batches(open: Open) {
    let store = open(all());
    let mut watch = store.watch("a/", 1).await.unwrap();
    write(&*store, [put("a", ""), put("b", "")]).await;
    write(&*store, [put("a/1", ""), put("b", "")]).await;
    write(&*store, []).await;
    write(&*store, [delete("a/absent"), delete("b")]).await;
    let conflict = Transaction { compares: vec![Compare::Absent("a".into())], ops: vec![put("a/2", "")] };
    assert_eq!(store.transact(conflict).await.unwrap(), Outcome::Conflict);
    refused(&*store, Transaction { compares: vec![], ops: vec![crate::backend::put_with("a/3", 99)] }).await;
    write(&*store, [delete("a/1")]).await;
    let expected: [Vec<Event>; 5] =
        [vec![], vec![has_put("a/1", "", 2)], vec![], vec![], vec![has_deleted("a/1", 5)]];
    for (revision, events) in (1..).zip(expected) {
        assert_eq!(watch.next().await, Some(Batch { revision, events }));
    }
    assert!(watch.next().now_or_never().is_none());
}

pub async fn a_page_and_a_watch_behind_it_are_everything(open: Open) {
    let store = open(all());
    write_many(&*store, 5).await;
    let page = store.range("", None, 100).await.unwrap();
    write(&*store, [delete("0"), put("new", "")]).await;
    write(&*store, [put("1", "changed")]).await;
    let mut view = View::of(page.entries, page.revision);
    let mut watch = watch(&*store, page.revision + 1).await;
    view.follow(&mut watch, 7).await;
    assert_eq!(view.entries(), everything(&*store, "").await);
}

pub async fn a_watch_of_the_future_waits_for_it(open: Open) {
    let store = open(all());
    let mut future = watch(&*store, 3).await;
    let mut never = watch(&*store, Revision::MAX).await;
    write_many(&*store, 2).await;
    assert!(future.next().now_or_never().is_none());
    write_many(&*store, 2).await;
    assert_eq!(take(&mut future, 2).await.iter().map(|batch| batch.revision).collect::<Vec<_>>(), [3, 4]);
    assert!(never.next().now_or_never().is_none());
}

pub async fn no_batch_is_lost_to_impatience(open: Open) {
    let store = open(all());
    let mut watch = watch(&*store, 1).await;
    for revision in 1..=10 {
        for _ in 0..3 {
            assert!(watch.next().now_or_never().is_none());
        }
        write(&*store, [put("a", "")]).await;
        assert_eq!(watch.next().await.unwrap().revision, revision);
    }
}

pub async fn forgotten_history_is_compacted(open: Open) {
    let store = open(last(4));
    write_many(&*store, 10).await;
    for from in 0..7 {
        assert_eq!(compacted(&*store, from).await, 7, "from {from}");
    }
    for from in 7..=10 {
        let mut watch = watch(&*store, from).await;
        for revision in from..=10 {
            assert_eq!(watch.next().await.unwrap().revision, revision);
        }
    }
}

pub async fn a_slow_reader_is_left_behind_and_can_begin_anew(open: Open) {
    let store = open(last(4));
    let mut slow = watch(&*store, 1).await;
    write_many(&*store, 3).await;
    assert_eq!(slow.next().await.unwrap().revision, 1);
    write_many(&*store, 10).await;
    assert_eq!(slow.next().await, None, "rather an end than a gap");
    assert_eq!(compacted(&*store, 2).await, 10);
    let page = store.range("", None, 100).await.unwrap();
    let mut anew = watch(&*store, page.revision + 1).await;
    write(&*store, [put("a", "")]).await;
    assert_eq!(anew.next().await.unwrap().revision, page.revision + 1);
}

pub async fn a_reader_resumes_behind_its_last_batch(open: Open) {
    let store = open(last(8));
    let mut reader = watch(&*store, 1).await;
    write_many(&*store, 8).await;
    let seen = take(&mut reader, 3).await.last().unwrap().revision;
    drop(reader);
    // What the reader has yet to see is the oldest that is remembered.
    write_many(&*store, 3).await;
    let mut resumed = watch(&*store, seen + 1).await;
    let revisions: Vec<_> = take(&mut resumed, 8).await.iter().map(|batch| batch.revision).collect();
    assert_eq!(revisions, (4..=11).collect::<Vec<_>>());
}

pub async fn history_is_bounded_by_its_length_too(open: Open) {
    let store = open(HistoryBounds { batches: 100, len: 50_000 });
    let value = "v".repeat(10_000);
    for _ in 0..20 {
        write(&*store, [put("a", &value)]).await;
    }
    let oldest = compacted(&*store, 1).await;
    assert!((16..=18).contains(&oldest), "{oldest}");
    // The latest batch is remembered however long it is.
    write(&*store, [put("a", &"v".repeat(100_000))]).await;
    assert_eq!(compacted(&*store, 1).await, 21);
    assert_eq!(watch(&*store, 21).await.next().await.unwrap().revision, 21);
}

pub async fn a_watch_ends_with_its_store(open: Open) {
    let store = open(all());
    write_many(&*store, 3).await;
    let mut waiting = watch(&*store, 4).await;
    assert!(waiting.next().now_or_never().is_none());
    let waiting = tokio::spawn(async move { waiting.next().await });
    tokio::task::yield_now().await;
    drop(store);
    assert_eq!(waiting.await.unwrap(), None);
}

/// What a watch's reader knows, and that it is told everything once.
struct View {
    entries: BTreeMap<String, Entry>,
    seen: Revision,
}

impl View {
    fn of(entries: Vec<Entry>, seen: Revision) -> View {
        View { entries: entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect(), seen }
    }

    fn entries(&self) -> Vec<Entry> {
        self.entries.values().cloned().collect()
    }

    async fn follow(&mut self, watch: &mut Watch, until: Revision) {
        while self.seen < until {
            let batch = watch.next().await.expect("a batch");
            assert_eq!(batch.revision, self.seen + 1, "no gap, and none twice");
            self.seen = batch.revision;
            for event in batch.events {
                match event {
                    Event::Put(entry) => {
                        assert_eq!(entry.modified, batch.revision);
                        self.entries.insert(entry.key.clone(), entry);
                    }
                    Event::Delete { key, revision } => {
                        assert_eq!(revision, batch.revision);
                        assert!(self.entries.remove(&key).is_some(), "{key} was there");
                    }
                }
            }
        }
    }
}

const WRITERS: u64 = 8;

/// Each writes `rounds` transactions that change up to three of a few keys.
async fn write_concurrently(store: &Arc<dyn Store>, rounds: u64) {
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut dice = Dice(writer);
            for round in 0..rounds {
                let ops: Vec<Op> = (0..dice.below(4))
                    .map(|_| {
                        let key = format!("{}/{}", ["a", "b"][dice.below(2) as usize], dice.below(5));
                        if dice.below(3) == 0 {
                            delete(&key)
                        } else {
                            put(&key, &format!("{writer}.{round}"))
                        }
                    })
                    .collect();
                write(&*store, ops).await;
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
}

pub async fn watches_see_everything_once_while_many_write(open: Open) {
    const ROUNDS: u64 = 30;
    const END: Revision = WRITERS * ROUNDS;
    // No more than is written, so that what a backend archives is read back while it is written.
    let store = open(last(END as usize));
    let readers: Vec<_> = (0..12_usize)
        .map(|reader| {
            let store = Arc::clone(&store.store);
            let prefix = ["", "a/", "b/1"][reader % 3];
            tokio::spawn(async move {
                // They begin one after another, each with what is there by then.
                while store.revision().await.unwrap() < (reader as u64 / 3) * END / 5 {
                    tokio::task::yield_now().await;
                }
                let page = store.range(prefix, None, 100).await.unwrap();
                let mut view = View::of(page.entries, page.revision);
                let mut watch = store.watch(prefix, page.revision + 1).await.unwrap();
                view.follow(&mut watch, END).await;
                assert_eq!(view.entries(), everything(&*store, prefix).await);
            })
        })
        .collect();
    write_concurrently(&store.store, ROUNDS).await;
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(store.revision().await.unwrap(), END);
}

pub async fn slow_readers_see_a_gapless_piece_of_history(open: Open) {
    const ROUNDS: u64 = 30;
    let store = open(last(16));
    let readers: Vec<_> = (0..4_u64)
        .map(|reader| {
            let store = Arc::clone(&store.store);
            tokio::spawn(async move {
                let mut dice = Dice(reader);
                let mut next = 1;
                while next <= WRITERS * ROUNDS {
                    let mut watch = match store.watch("", next).await {
                        Ok(watch) => watch,
                        Err(StoreError::Compacted { oldest }) => {
                            assert!(oldest > next);
                            next = oldest;
                            continue;
                        }
                        Err(error) => panic!("{error}"),
                    };
                    while next <= WRITERS * ROUNDS {
                        let Some(batch) = watch.next().await else { break };
                        assert_eq!(batch.revision, next, "from where it was asked, without a gap");
                        next += 1;
                        for _ in 0..dice.below(50) {
                            tokio::task::yield_now().await;
                        }
                    }
                }
            })
        })
        .collect();
    write_concurrently(&store.store, ROUNDS).await;
    for reader in readers {
        reader.await.unwrap();
    }
}
