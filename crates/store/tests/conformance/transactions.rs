//! Writing: comparisons, revisions, bounds.

use crate::backend::{Dice, Open, all, delete, entry, everything, put, refused, write};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use store::{
    Compare, KEY_LEN_MAX, LEASE_TTL_MAX, OPS_MAX, Op, Outcome, Store, StoreError, TRANSACTION_LEN_MAX,
    Transaction, VALUE_LEN_MAX,
};

fn absent(key: &str) -> Compare {
    Compare::Absent(key.into())
}

fn modified(key: &str, revision: u64) -> Compare {
    Compare::Modified(key.into(), revision)
}

async fn attempt(store: &dyn Store, compares: impl Into<Vec<Compare>>, ops: impl Into<Vec<Op>>) -> Outcome {
    store.transact(Transaction { compares: compares.into(), ops: ops.into() }).await.unwrap()
}

pub async fn revisions_count_transactions(open: Open) {
    let store = open(all());
    assert_eq!(store.revision().await.unwrap(), 0);
    assert_eq!(write(&*store, [put("a", "")]).await, 1);
    assert_eq!(store.revision().await.unwrap(), 1);
    // One that changes nothing is a transaction too.
    assert_eq!(write(&*store, [delete("absent")]).await, 2);
    assert_eq!(write(&*store, []).await, 3);
    assert_eq!(write(&*store, [put("b", ""), put("c", "")]).await, 4);
    assert_eq!(everything(&*store, "").await, [entry("a", "", 1), entry("b", "", 4), entry("c", "", 4)]);
    assert_eq!(store.range("", None, 1).await.unwrap().revision, 4);
}

pub async fn every_comparison_must_hold(open: Open) {
    let store = open(all());
    write(&*store, [put("a", "")]).await;
    write(&*store, [put("b", "")]).await;
    let holds = [modified("a", 1), modified("b", 2), absent("c")];
    let fails = [
        absent("a"),
        modified("a", 0),
        modified("a", 2),
        modified("b", 1),
        modified("c", 0),
        modified("c", 2),
        modified("c", u64::MAX),
    ];
    for fail in fails {
        for place in 0..=holds.len() {
            let mut compares = holds.to_vec();
            compares.insert(place, fail.clone());
            assert_eq!(attempt(&*store, compares, [put("a", "!")]).await, Outcome::Conflict, "{fail:?}");
        }
    }
    assert_eq!(attempt(&*store, holds, [put("a", "!")]).await, Outcome::Committed(3));
}

pub async fn a_conflict_writes_nothing(open: Open) {
    let store = open(all());
    write(&*store, [put("a", "old"), put("b", "old")]).await;
    let ops = [put("a", "new"), delete("b"), put("c", "new")];
    assert_eq!(attempt(&*store, [absent("a")], ops).await, Outcome::Conflict);
    assert_eq!(everything(&*store, "").await, [entry("a", "old", 1), entry("b", "old", 1)]);
    assert_eq!(store.revision().await.unwrap(), 1);
    // Not even a revision is used up.
    assert_eq!(write(&*store, [put("d", "")]).await, 2);
}

pub async fn comparisons_see_what_was_before_the_transaction(open: Open) {
    let store = open(all());
    assert_eq!(attempt(&*store, [absent("a")], [put("a", "")]).await, Outcome::Committed(1));
    assert_eq!(attempt(&*store, [modified("a", 1)], [delete("a")]).await, Outcome::Committed(2));
    assert_eq!(attempt(&*store, [modified("a", 1)], [put("a", "")]).await, Outcome::Conflict);
    assert_eq!(attempt(&*store, [absent("a")], [put("a", "")]).await, Outcome::Committed(3));
    // Writing the same again is a change.
    assert_eq!(attempt(&*store, [modified("a", 3)], [put("a", "")]).await, Outcome::Committed(4));
    assert_eq!(attempt(&*store, [modified("a", 3)], [put("a", "")]).await, Outcome::Conflict);
}

pub async fn the_last_change_of_a_key_wins(open: Open) {
    let store = open(all());
    write(&*store, [put("gone", "")]).await;
    let ops = [
        put("twice", "first"),
        put("gone", "again"),
        delete("back"),
        put("other", ""),
        put("twice", "second"),
        delete("gone"),
        put("back", ""),
    ];
    write(&*store, ops).await;
    let expected = [entry("back", "", 2), entry("other", "", 2), entry("twice", "second", 2)];
    assert_eq!(everything(&*store, "").await, expected);
}

pub async fn bounds_are_refused_and_write_nothing(open: Open) {
    let store = open(all());
    let key = "k".repeat(KEY_LEN_MAX + 1);
    let value = |len| Op::Put { key: "v".into(), value: Bytes::from(vec![0; len]), lease: None };
    let too_much = [
        (vec![], vec![put(&key, "")]),
        (vec![], vec![delete(&key)]),
        (vec![absent(&key)], vec![]),
        (vec![modified(&key, 1)], vec![]),
        (vec![], vec![value(VALUE_LEN_MAX + 1)]),
        (vec![], vec![delete("a"); OPS_MAX + 1]),
        (vec![absent("a"); OPS_MAX + 1], vec![]),
        // The values alone are as much as there may be, and the keys count too.
        (vec![], vec![value(VALUE_LEN_MAX); TRANSACTION_LEN_MAX / VALUE_LEN_MAX]),
    ];
    for (compares, mut ops) in too_much {
        // Within the bounds, before what is not.
        if ops.len() < OPS_MAX {
            ops.insert(0, put("witness", ""));
        }
        let error = refused(&*store, Transaction { compares, ops }).await;
        assert!(matches!(error, StoreError::TooLarge(_)), "{error}");
    }
    let prefix = store.watch(&key, 1).await.err().expect("refused");
    assert!(matches!(prefix, StoreError::TooLarge(_)), "{prefix}");
    let lease = store.lease_grant(LEASE_TTL_MAX + Duration::from_nanos(1)).await.unwrap_err();
    assert!(matches!(lease, StoreError::TooLarge(_)), "{lease}");
    assert_eq!(store.revision().await.unwrap(), 0);
    assert_eq!(everything(&*store, "").await, []);
}

pub async fn the_longest_of_everything_is_taken(open: Open) {
    let store = open(all());
    let key = "k".repeat(KEY_LEN_MAX);
    let value = Bytes::from(vec![7; VALUE_LEN_MAX]);
    let longest = Op::Put { key: key.clone(), value: value.clone(), lease: None };
    let compares = [absent(&key)];
    assert_eq!(attempt(&*store, compares, [longest]).await, Outcome::Committed(1));
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, value);
    assert_eq!(store.watch(&key, 1).await.unwrap().next().await.unwrap().events.len(), 1);
    let many: Vec<Op> = (0..OPS_MAX).map(|index| put(&format!("many/{index}"), "")).collect();
    let compares: Vec<Compare> = many.iter().map(|op| absent(op.key())).collect();
    assert_eq!(attempt(&*store, compares, many).await, Outcome::Committed(2));
    assert_eq!(everything(&*store, "many/").await.len(), OPS_MAX);
    store.lease_grant(LEASE_TTL_MAX).await.unwrap();
}

pub async fn who_stops_waiting_undoes_nothing(open: Open) {
    let store = open(all());
    let mut watch = store.watch("", 1).await.unwrap();
    for round in 0..20 {
        let ops = vec![put(&format!("{round:02}"), "")];
        // Asked once for its outcome, then dropped.
        let _ = store.transact(Transaction { compares: vec![], ops }).now_or_never();
    }
    write(&*store, [put("end", "")]).await;
    let keys = everything(&*store, "").await;
    assert_eq!(keys.len(), 21);
    for revision in 1..=21 {
        assert_eq!(watch.next().await.unwrap().revision, revision);
    }
}

pub async fn who_never_waited_wrote_nothing(open: Open) {
    let store = open(all());
    drop(store.transact(Transaction { compares: vec![], ops: vec![put("a", "")] }));
    assert_eq!(write(&*store, [put("b", "")]).await, 1);
    assert_eq!(everything(&*store, "").await, [entry("b", "", 1)]);
}

pub async fn concurrent_transactions_have_revisions_of_their_own(open: Open) {
    let store = open(all());
    let writers = (0..32).map(|writer| {
        let store = Arc::clone(&store.store);
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for round in 0..5 {
                let revision = write(&*store, [put(&format!("{writer}/{round}"), "")]).await;
                // What is committed can be read, at its revision or later.
                assert!(store.revision().await.unwrap() >= revision);
                let found = store.get(&format!("{writer}/{round}")).await.unwrap().unwrap();
                assert_eq!(found.modified, revision);
                revisions.push(revision);
            }
            assert!(revisions.is_sorted());
            revisions
        })
    });
    let mut revisions: Vec<_> =
        join_all(writers).await.into_iter().flat_map(|revisions| revisions.unwrap()).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=32 * 5).collect::<Vec<_>>());
}

/// Moves amounts between accounts, the way `control` writes: read, compare, try again.
pub async fn concurrent_counting_loses_nothing(open: Open) {
    const ACCOUNTS: u64 = 4;
    const TOTAL: i64 = 1000;
    let store = open(all());
    write(&*store, (0..ACCOUNTS).map(|account| put(&account.to_string(), "250")).collect::<Vec<_>>()).await;
    let writers = (0..8).map(|writer| {
        let store = Arc::clone(&store.store);
        tokio::spawn(async move {
            let mut dice = Dice(writer);
            let mut moved = 0;
            while moved < 8 {
                let from = dice.below(ACCOUNTS);
                let to = (from + 1 + dice.below(ACCOUNTS - 1)) % ACCOUNTS;
                let (from, to) = (account(&*store, from).await, account(&*store, to).await);
                let compares = [modified(&from.0, from.2), modified(&to.0, to.2)];
                let ops = [put(&from.0, &(from.1 - 1).to_string()), put(&to.0, &(to.1 + 1).to_string())];
                moved += u32::from(attempt(&*store, compares, ops).await != Outcome::Conflict);
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let mut total = 0;
    for index in 0..ACCOUNTS {
        total += account(&*store, index).await.1;
    }
    assert_eq!(total, TOTAL);
    assert_eq!(store.revision().await.unwrap(), 1 + 8 * 8, "conflicts are no revisions");
}

async fn account(store: &dyn Store, index: u64) -> (String, i64, u64) {
    let found = store.get(&index.to_string()).await.unwrap().unwrap();
    (found.key, str::from_utf8(&found.value).unwrap().parse().unwrap(), found.modified)
}
