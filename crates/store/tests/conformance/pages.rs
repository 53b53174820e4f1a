//! Reading: one key, and ranges in pages.

use crate::backend::{Open, all, delete, entry, everything, keys, put, write};
use bytes::Bytes;
use std::sync::Arc;
use store::{Entry, Op, PAGE_LEN_MAX, Range, TRANSACTION_LEN_MAX, VALUE_LEN_MAX};

pub async fn what_is_put_is_found_until_it_is_deleted(open: Open) {
    let store = open(all());
    assert_eq!(store.get("a").await.unwrap(), None);
    write(&*store, [put("a", "first"), put("", "the empty key"), put("empty", "")]).await;
    assert_eq!(store.get("a").await.unwrap(), Some(entry("a", "first", 1)));
    assert_eq!(store.get("").await.unwrap(), Some(entry("", "the empty key", 1)));
    assert_eq!(store.get("empty").await.unwrap(), Some(entry("empty", "", 1)));
    write(&*store, [put("a", "second")]).await;
    assert_eq!(store.get("a").await.unwrap(), Some(entry("a", "second", 2)));
    write(&*store, [delete("a")]).await;
    assert_eq!(store.get("a").await.unwrap(), None);
}

pub async fn a_range_has_the_keys_under_its_prefix_in_order(open: Open) {
    let store = open(all());
    let all_keys = ["", "a", "a/", "a/1", "a/10", "a/2", "a/ü", "a0", "b", "ä", "\u{10ffff}"];
    let mut shuffled: Vec<Op> = all_keys.iter().map(|key| put(key, key)).collect();
    shuffled.reverse();
    shuffled.swap(2, 7);
    write(&*store, shuffled).await;
    for prefix in ["", "a", "a/", "a/1", "a0", "b", "c", "ä", "\u{10ffff}", "a/1/more"] {
        let expected: Vec<_> = all_keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
        assert_eq!(keys(&*store, prefix).await, expected, "under {prefix:?}");
    }
    let empty = store.range("c", None, 10).await.unwrap();
    assert_eq!(empty, Range { entries: vec![], revision: 1, more: false });
}

pub async fn a_page_ends_at_its_limit_and_says_whether_there_is_more(open: Open) {
    let store = open(all());
    write(&*store, [put("a/1", ""), put("a/2", ""), put("a/3", ""), put("b", "")]).await;
    for (limit, len, more) in [(0, 0, true), (1, 1, true), (2, 2, true), (3, 3, false), (4, 3, false)] {
        let page = store.range("a/", None, limit).await.unwrap();
        assert_eq!((page.entries.len(), page.more), (len, more), "limit {limit}");
    }
    let nothing = store.range("c", None, 0).await.unwrap();
    assert!(!nothing.more);
}

pub async fn pages_follow_each_other_wherever_the_last_one_ended(open: Open) {
    let store = open(all());
    write(&*store, [put("a", ""), put("b/1", ""), put("b/2", ""), put("b/3", ""), put("c", "")]).await;
    let after = async |after: &str| {
        let page = store.range("b/", Some(after), 2).await.unwrap();
        (page.entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(after("b/1").await, (vec!["b/2".into(), "b/3".into()], false));
    // A key that is not there, or no longer, is a place all the same.
    assert_eq!(after("b/").await, (vec!["b/1".into(), "b/2".into()], true));
    assert_eq!(after("b/10").await, (vec!["b/2".into(), "b/3".into()], false));
    // What lies before the prefix leaves nothing out, and what lies behind it has nothing behind it.
    for before in ["", "a", "b"] {
        assert_eq!(after(before).await, (vec!["b/1".into(), "b/2".into()], true), "after {before:?}");
    }
    for behind in ["b/3", "b0", "c", "z"] {
        assert_eq!(after(behind).await, (vec![], false), "after {behind:?}");
    }
}

pub async fn a_page_ends_at_its_longest(open: Open) {
    let store = open(all());
    let longest = Bytes::from(vec![7; VALUE_LEN_MAX]);
    // As much as one transaction may bring, which is two pages; keys count too.
    let count = TRANSACTION_LEN_MAX / VALUE_LEN_MAX;
    let name = |index: usize| format!("{index:02}");
    let rest = longest.slice(name(0).len() * count..);
    let ops: Vec<Op> = (0..count)
        .map(|index| if index == 0 { rest.clone() } else { longest.clone() })
        .enumerate()
        .map(|(index, value)| Op::Put { key: name(index), value, lease: None })
        .collect();
    write(&*store, ops).await;
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store.range("", after.as_deref(), usize::MAX).await.unwrap();
        let len = |entry: &Entry| entry.key.len() + entry.value.len();
        assert!(page.entries.iter().map(len).sum::<usize>() <= PAGE_LEN_MAX);
        assert!(!page.entries.is_empty());
        after = page.entries.last().map(|entry| entry.key.clone());
        seen.extend(page.entries.into_iter().map(|entry| entry.key));
        pages += 1;
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, (0..count).map(name).collect::<Vec<_>>());
    assert_eq!(pages, TRANSACTION_LEN_MAX / PAGE_LEN_MAX + 1, "every page as long as it may be");
}

pub async fn a_page_is_of_one_revision(open: Open) {
    let store = open(all());
    write(&*store, [put("a", "0"), put("b", "0")]).await;
    let writer = tokio::spawn({
        let store = Arc::clone(&store.store);
        async move {
            for round in 1..=30 {
                write(&*store, [put("a", &round.to_string()), put("b", &round.to_string())]).await;
                tokio::task::yield_now().await;
            }
        }
    });
    while !writer.is_finished() {
        let page = store.range("", None, 10).await.unwrap();
        assert_eq!(page.entries[0].value, page.entries[1].value);
        assert_eq!(page.entries[0].modified, page.revision);
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert_eq!(everything(&*store, "").await, [entry("a", "30", 31), entry("b", "30", 31)]);
}
