//! A typed, indexed table of records of one kind.

use crate::engine::Tags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use store::Revision;

/// One kind of thing that the store keeps.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The part of the key between the region and the id; changing it loses data.
    const TABLE: &'static str;
    /// The filters that are answered from an index. Their values come from `field`.
    const INDEXED: &'static [&'static str];

    fn id(&self) -> &str;

    fn tags(&self) -> Option<&Tags> {
        None
    }

    /// The values of this record under a filter's name. False where EC2 documents no such filter.
    /// Indexed fields must not depend on other records.
    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool;
}

/// The values that a record has under one filter name.
pub type Values<'a> = Vec<Cow<'a, str>>;

/// A record and the revision that last wrote it.
pub struct Row<T> {
    pub record: Arc<T>,
    pub modified: Revision,
}

impl<T> Clone for Row<T> {
    fn clone(&self) -> Self {
        Row { record: self.record.clone(), modified: self.modified }
    }
}

pub struct Table<T> {
    rows: BTreeMap<Arc<str>, Row<T>>,
    /// `name NUL value` to the ids that have it.
    index: HashMap<Box<str>, BTreeSet<Arc<str>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { rows: BTreeMap::new(), index: HashMap::new() }
    }
}

impl<T: Record> Table<T> {
    pub fn get(&self, id: &str) -> Option<&Row<T>> {
        self.rows.get(id)
    }

    pub fn find(&self, id: &str) -> Option<&Arc<T>> {
        self.rows.get(id).map(|row| &row.record)
    }

    pub fn contains(&self, id: &str) -> bool {
        self.rows.contains_key(id)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All records in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.rows.values().map(|row| &row.record)
    }

    /// Records whose ids come after `id`, in order.
    pub fn after<'a>(&'a self, id: &str) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        let bounds: (Bound<&str>, Bound<&str>) = (Bound::Excluded(id), Bound::Unbounded);
        self.rows.range::<str, _>(bounds).map(|(_, row)| &row.record)
    }

    /// Ids whose `field` is `value`; only for indexed fields and `tag:…`.
    pub fn ids_with(&self, field: &str, value: &str) -> Option<&BTreeSet<Arc<str>>> {
        self.index.get(index_key(field, value).as_str())
    }

    /// How many records there are whose `field` is `value`.
    pub fn count(&self, field: &str, value: &str) -> usize {
        self.ids_with(field, value).map_or(0, BTreeSet::len)
    }

    /// Records whose `field` is `value`.
    pub fn with<'a>(&'a self, field: &str, value: &str) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        self.ids_with(field, value).into_iter().flatten().filter_map(|id| self.find(id))
    }

    pub(super) fn put(&mut self, record: T, modified: Revision) -> (Option<Arc<T>>, Arc<T>) {
        let id: Arc<str> = record.id().into();
        let record = Arc::new(record);
        let old = self.rows.insert(id.clone(), Row { record: record.clone(), modified });
        let old = old.map(|row| row.record);
        let mut gone: BTreeSet<String> = old.iter().flat_map(|old| index_keys(&**old)).collect();
        for key in index_keys(&*record) {
            if !gone.remove(&key) {
                self.index.entry(key.into()).or_default().insert(id.clone());
            }
        }
        self.unindex(&id, gone);
        (old, record)
    }

    pub(super) fn delete(&mut self, id: &str) -> Option<Arc<T>> {
        let old = self.rows.remove(id)?.record;
        self.unindex(id, index_keys(&*old));
        Some(old)
    }

    fn unindex(&mut self, id: &str, keys: impl IntoIterator<Item = String>) {
        for key in keys {
            if let Some(ids) = self.index.get_mut(key.as_str()) {
                ids.remove(id);
                if ids.is_empty() {
                    self.index.remove(key.as_str());
                }
            }
        }
    }
}

fn index_key(field: &str, value: &str) -> String {
    format!("{field}\0{value}")
}

fn index_keys<T: Record>(record: &T) -> Vec<String> {
    let mut keys = Vec::new();
    for field in T::INDEXED {
        let mut values = Vec::new();
        record.field(field, &mut values);
        keys.extend(values.iter().map(|value| index_key(field, value)));
    }
    for (key, value) in record.tags().into_iter().flat_map(Tags::iter) {
        keys.push(format!("tag:{key}\0{value}"));
    }
    keys
}
