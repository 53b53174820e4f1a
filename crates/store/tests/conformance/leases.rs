//! Leases. Time stands still, except where a case moves it.

use crate::backend::{
    Open, Opened, all, delete, has_deleted, keys, last, put, put_with, refused, take, write,
};
use std::sync::mpsc;
use std::time::Duration;
use store::{Batch, Compare, LEASE_KEYS_MAX, LeaseId, Op, Outcome, Store, StoreError, Transaction};
use tokio::task::yield_now;

const TTL: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(1);

/// Tokio moves a paused clock by itself whenever all tasks wait, as they do for a backend's own thread; not while
/// work outside its tasks goes on. This is such work.
struct Stillness(#[expect(dead_code, reason = "its end is what ends the work")] mpsc::Sender<()>);

impl Stillness {
    fn begin() -> Stillness {
        tokio::time::pause();
        let (end, ended) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || ended.recv());
        Stillness(end)
    }

    /// Moves time, and waits until whatever is due by then has happened.
    async fn pass(&self, time: Duration, store: &dyn Store) {
        tokio::time::advance(time).await;
        settle(store).await;
    }
}

/// A lease that is due is sent to the store before these leases are, and decided before them.
async fn settle(store: &dyn Store) {
    for _ in 0..3 {
        for _ in 0..10 {
            yield_now().await;
        }
        let lease = store.lease_grant(TTL * 1000).await.unwrap();
        store.lease_revoke(lease).await.unwrap();
    }
}

fn begin(open: Open) -> (Stillness, Opened) {
    let still = Stillness::begin();
    (still, open(all()))
}

async fn assert_unknown(store: &dyn Store, lease: LeaseId) {
    let unknown = |error: StoreError| assert!(matches!(error, StoreError::UnknownLease(id) if id == lease));
    unknown(store.lease_keep_alive(lease).await.unwrap_err());
    unknown(store.lease_revoke(lease).await.unwrap_err());
    let revision = store.revision().await.unwrap();
    let ops = vec![put("witness", ""), put_with("witness/leased", lease)];
    unknown(refused(store, Transaction { compares: vec![], ops }).await);
    assert_eq!(store.revision().await.unwrap(), revision);
    assert_eq!(store.get("witness").await.unwrap(), None);
}

pub async fn keys_vanish_with_their_lease(open: Open) {
    let (still, store) = begin(open);
    let lease = store.lease_grant(TTL).await.unwrap();
    write(&*store, [put_with("a", lease), put("stays", "")]).await;
    write(&*store, [put_with("b", lease)]).await;
    let mut watch = store.watch("", 3).await.unwrap();
    still.pass(TTL - MOMENT, &*store).await;
    assert_eq!(keys(&*store, "").await, ["a", "b", "stays"]);
    still.pass(MOMENT * 2, &*store).await;
    assert_eq!(keys(&*store, "").await, ["stays"]);
    // All at once.
    let events = vec![has_deleted("a", 3), has_deleted("b", 3)];
    assert_eq!(take(&mut watch, 1).await, [Batch { revision: 3, events }]);
    assert_unknown(&*store, lease).await;
}

pub async fn a_lease_kept_alive_holds(open: Open) {
    let (still, store) = begin(open);
    let lease = store.lease_grant(TTL).await.unwrap();
    write(&*store, [put_with("a", lease)]).await;
    for _ in 0..5 {
        still.pass(TTL - MOMENT, &*store).await;
        store.lease_keep_alive(lease).await.unwrap();
    }
    // Writing with it is not keeping it alive.
    still.pass(TTL - MOMENT, &*store).await;
    write(&*store, [put_with("b", lease)]).await;
    assert_eq!(keys(&*store, "").await, ["a", "b"]);
    still.pass(MOMENT * 2, &*store).await;
    assert_eq!(keys(&*store, "").await, [""; 0]);
}

pub async fn each_lease_has_its_own_time(open: Open) {
    let (still, store) = begin(open);
    // Not in the order in which they end.
    for seconds in [30, 10, 20, 40] {
        let lease = store.lease_grant(Duration::from_secs(seconds)).await.unwrap();
        write(&*store, [put_with(&format!("{seconds}"), lease)]).await;
    }
    for left in [vec!["20", "30", "40"], vec!["30", "40"], vec!["40"], vec![]] {
        still.pass(Duration::from_secs(10) + MOMENT, &*store).await;
        assert_eq!(keys(&*store, "").await, left);
    }
    // Several that are due together all end.
    for key in ["a", "b", "c"] {
        let lease = store.lease_grant(TTL).await.unwrap();
        write(&*store, [put_with(key, lease)]).await;
    }
    still.pass(TTL * 2, &*store).await;
    assert_eq!(keys(&*store, "").await, [""; 0]);
}

pub async fn a_revoked_lease_takes_its_keys_along(open: Open) {
    let (still, store) = begin(open);
    let lease = store.lease_grant(TTL).await.unwrap();
    let other = store.lease_grant(TTL).await.unwrap();
    write(&*store, [put_with("a", lease), put_with("b", lease), put_with("c", other)]).await;
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(keys(&*store, "").await, ["c"]);
    assert_eq!(store.revision().await.unwrap(), 2);
    assert_unknown(&*store, lease).await;
    // Its time does not come later either.
    write(&*store, [put("a", "again")]).await;
    still.pass(TTL - MOMENT, &*store).await;
    store.lease_keep_alive(other).await.unwrap();
    still.pass(TTL - MOMENT, &*store).await;
    assert_eq!(keys(&*store, "").await, ["a", "c"]);
}

pub async fn what_has_no_lease_is_unknown(open: Open) {
    let (_still, store) = begin(open);
    for lease in [0, 1, 7, LeaseId::MAX] {
        assert_unknown(&*store, lease).await;
    }
}

pub async fn a_key_belongs_to_the_lease_of_its_last_put(open: Open) {
    let (_still, store) = begin(open);
    let first = store.lease_grant(TTL).await.unwrap();
    let second = store.lease_grant(TTL).await.unwrap();
    let to_first = ["moves", "leaves", "stays", "within"].map(|key| put_with(key, first));
    write(&*store, to_first).await;
    write(&*store, [put("comes", "")]).await;
    write(&*store, [put_with("moves", second), put("leaves", ""), put_with("stays", first)]).await;
    write(&*store, [put_with("comes", second)]).await;
    // Within one transaction too, it is the last that counts.
    write(&*store, [put_with("within", first), put("within", ""), put_with("within", second)]).await;
    store.lease_revoke(first).await.unwrap();
    assert_eq!(keys(&*store, "").await, ["comes", "leaves", "moves", "within"]);
    store.lease_revoke(second).await.unwrap();
    assert_eq!(keys(&*store, "").await, ["leaves"]);
}

pub async fn a_deleted_key_is_no_longer_its_leases(open: Open) {
    let (_still, store) = begin(open);
    let lease = store.lease_grant(TTL).await.unwrap();
    write(&*store, [put_with("back", lease), put_with("gone", lease), put_with("kept", lease)]).await;
    write(&*store, [delete("back"), delete("gone")]).await;
    write(&*store, [put("back", "")]).await;
    let mut watch = store.watch("", 4).await.unwrap();
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(keys(&*store, "").await, ["back"]);
    assert_eq!(watch.next().await.unwrap().events, [has_deleted("kept", 4)]);
}

pub async fn a_conflict_binds_nothing(open: Open) {
    let (_still, store) = begin(open);
    let lease = store.lease_grant(TTL).await.unwrap();
    write(&*store, [put("free", ""), put_with("bound", lease)]).await;
    let compares = vec![Compare::Absent("free".into())];
    let ops = vec![put_with("free", lease), put("bound", "")];
    let outcome = store.transact(Transaction { compares, ops }).await.unwrap();
    assert_eq!(outcome, Outcome::Conflict);
    // Nor does what is refused.
    let ops = vec![put_with("free", lease), put("bound", ""), put_with("unknown", 99)];
    refused(&*store, Transaction { compares: vec![], ops }).await;
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(keys(&*store, "").await, ["free"]);
}

pub async fn the_end_of_a_lease_without_keys_is_no_revision(open: Open) {
    let (still, store) = begin(open);
    let lease = store.lease_grant(TTL).await.unwrap();
    store.lease_grant(TTL).await.unwrap();
    store.lease_revoke(lease).await.unwrap();
    still.pass(TTL * 2, &*store).await;
    assert_eq!(store.revision().await.unwrap(), 0);
    let mut watch = store.watch("", 1).await.unwrap();
    assert_eq!(write(&*store, [put("a", "")]).await, 1);
    assert_eq!(watch.next().await.unwrap().revision, 1);
}

pub async fn the_numbers_of_leases_are_never_used_again(open: Open) {
    let (_still, store) = begin(open);
    let mut given = Vec::new();
    for round in 0..10 {
        let lease = store.lease_grant(TTL).await.unwrap();
        if round % 2 == 0 {
            store.lease_revoke(lease).await.unwrap();
        }
        given.push(lease);
    }
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 10);
}

pub async fn a_lease_of_no_time_ends_at_once(open: Open) {
    let (still, store) = begin(open);
    let lease = store.lease_grant(Duration::ZERO).await.unwrap();
    still.pass(MOMENT, &*store).await;
    assert_unknown(&*store, lease).await;
}

pub async fn a_lease_has_so_many_keys_and_no_more(open: Open) {
    let _still = Stillness::begin();
    let store = open(last(2));
    let lease = store.lease_grant(TTL).await.unwrap();
    let names = |range: std::ops::Range<usize>| range.map(|index| put_with(&format!("{index:04}"), lease));
    let most: Vec<Op> = names(0..LEASE_KEYS_MAX).collect();
    write(&*store, &most[1..]).await;
    // One key named twice is one key.
    write(&*store, [most[0].clone(), most[0].clone()]).await;
    let more: Vec<Op> = names(LEASE_KEYS_MAX..LEASE_KEYS_MAX + 1).collect();
    let error = refused(&*store, Transaction { compares: vec![], ops: more.clone() }).await;
    assert!(matches!(error, StoreError::TooLarge(_)), "{error}");
    // Those it has may be put again, and one that goes makes room.
    write(&*store, [most[1].clone(), most[2].clone()]).await;
    write(&*store, [delete(most[1].key())]).await;
    write(&*store, more).await;
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(keys(&*store, "").await, [""; 0]);
}

pub async fn leases_do_not_keep_a_store_open(open: Open) {
    let (still, store) = begin(open);
    let lease = store.lease_grant(TTL).await.unwrap();
    write(&*store, [put_with("a", lease)]).await;
    let mut watch = store.watch("", 2).await.unwrap();
    drop(store);
    tokio::time::advance(TTL * 2).await;
    assert_eq!(watch.next().await, None);
    drop(still);
}
