//! Records in the order of their ids. A record is its own key, so that no id is kept twice.

use crate::engine::table::Record;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, btree_set};
use std::ops::Bound;
use std::sync::Arc;

/// A record that is equal to another where their ids are, and ordered by it.
pub(super) struct ById<T>(pub Arc<T>);

impl<T: Record> Borrow<str> for ById<T> {
    fn borrow(&self) -> &str {
        self.0.id()
    }
}

impl<T: Record> PartialEq for ById<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl<T: Record> Eq for ById<T> {}

impl<T: Record> PartialOrd for ById<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Record> Ord for ById<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.id().cmp(other.0.id())
    }
}

/// Records that have a value in common. Never empty; small where it is only one, as most values have that tell
/// records apart.
pub(super) enum Sharing<T> {
    One(ById<T>),
    Many(BTreeSet<ById<T>>),
}

impl<T: Record> Sharing<T> {
    pub fn len(&self) -> usize {
        match self {
            Sharing::One(_) => 1,
            Sharing::Many(records) => records.len(),
        }
    }

    /// The records whose ids come after `id`, in order; all of them after the empty one.
    pub fn after(&self, id: &str) -> After<'_, T> {
        match self {
            Sharing::One(only) => After::One(Some(only).filter(|only| only.0.id() > id)),
            Sharing::Many(records) => {
                After::Many(records.range::<str, _>((Bound::Excluded(id), Bound::Unbounded)))
            }
        }
    }

    /// Takes in a record, in place of an older one with its id.
    pub fn put(self, record: Arc<T>) -> Sharing<T> {
        match self {
            Sharing::One(only) if only.0.id() == record.id() => Sharing::One(ById(record)),
            Sharing::One(only) => Sharing::Many(BTreeSet::from([only, ById(record)])),
            Sharing::Many(mut records) => {
                records.replace(ById(record));
                Sharing::Many(records)
            }
        }
    }

    /// None where nothing is left.
    pub fn without(self, id: &str) -> Option<Sharing<T>> {
        match self {
            Sharing::One(only) => Some(only).filter(|only| only.0.id() != id).map(Sharing::One),
            Sharing::Many(mut records) => {
                records.remove(id);
                if records.len() > 1 {
                    Some(Sharing::Many(records))
                } else {
                    records.pop_first().map(Sharing::One)
                }
            }
        }
    }
}

pub enum After<'t, T> {
    One(Option<&'t ById<T>>),
    Many(btree_set::Range<'t, ById<T>>),
}

impl<'t, T> Iterator for After<'t, T> {
    type Item = &'t Arc<T>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self {
            After::One(only) => only.take(),
            After::Many(records) => records.next(),
        };
        next.map(|by_id| &by_id.0)
    }
}
