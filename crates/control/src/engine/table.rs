//! A typed, indexed table of records of one kind.

use crate::engine::Tags;
use crate::engine::by_id::{ById, Sharing};
use model::Text;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
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

pub struct Table<T> {
    /// Every record and the revision that last wrote it.
    rows: BTreeMap<ById<T>, Revision>,
    /// By the name of an indexed field (`tag:…` of a tag), then by its value.
    index: HashMap<Text, HashMap<Text, Sharing<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { rows: BTreeMap::new(), index: HashMap::new() }
    }
}

impl<T: Record> Table<T> {
    pub fn find(&self, id: &str) -> Option<&Arc<T>> {
        self.find_with_revision(id).map(|(record, _)| record)
    }

    pub fn find_with_revision(&self, id: &str) -> Option<(&Arc<T>, Revision)> {
        self.rows.get_key_value(id).map(|(by_id, modified)| (&by_id.0, *modified))
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
        self.rows.keys().map(|by_id| &by_id.0)
    }

    /// Records whose ids come after `id`, in order.
    pub fn after<'a>(&'a self, id: &str) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        let bounds: (Bound<&str>, Bound<&str>) = (Bound::Excluded(id), Bound::Unbounded);
        self.rows.range::<str, _>(bounds).map(|(by_id, _)| &by_id.0)
    }

    /// Records whose `field` is `value`, in the order of their ids; only for indexed fields and `tag:…`.
    pub fn with<'a>(&'a self, field: &str, value: &str) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        self.with_after(field, value, "")
    }

    /// Those of them whose ids come after `id`.
    pub fn with_after<'a>(
        &'a self,
        field: &str,
        value: &str,
        id: &str,
    ) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        self.sharing(field, value).map(|records| records.after(id)).into_iter().flatten()
    }

    /// How many records there are whose `field` is `value`.
    pub fn count(&self, field: &str, value: &str) -> usize {
        self.sharing(field, value).map_or(0, Sharing::len)
    }

    fn sharing(&self, field: &str, value: &str) -> Option<&Sharing<T>> {
        self.index.get(field)?.get(value)
    }

    pub(super) fn put(&mut self, record: T, modified: Revision) -> (Option<Arc<T>>, Arc<T>) {
        let record = Arc::new(record);
        let old = self.rows.remove_entry(record.id()).map(|(by_id, _)| by_id.0);
        self.rows.insert(ById(record.clone()), modified);
        let mut gone: HashSet<IndexKey<'_>> = old.iter().flat_map(|old| index_keys(&**old)).collect();
        for (field, value) in index_keys(&*record) {
            gone.remove(&(field.clone(), value.clone()));
            let values = self.index.entry(field.into()).or_default();
            let sharing = match values.remove_entry(&*value) {
                Some((value, records)) => (value, records.put(record.clone())),
                None => (value.into(), Sharing::One(ById(record.clone()))),
            };
            values.insert(sharing.0, sharing.1);
        }
        unindex(&mut self.index, record.id(), gone);
        (old.clone(), record)
    }

    pub(super) fn delete(&mut self, id: &str) -> Option<Arc<T>> {
        let (ById(old), _) = self.rows.remove_entry(id)?;
        unindex(&mut self.index, id, index_keys(&*old));
        Some(old)
    }
}

type IndexKey<'a> = (Cow<'a, str>, Cow<'a, str>);

fn unindex<'k, T: Record>(
    index: &mut HashMap<Text, HashMap<Text, Sharing<T>>>,
    id: &str,
    keys: impl IntoIterator<Item = IndexKey<'k>>,
) {
    for (field, value) in keys {
        let Some(values) = index.get_mut(&*field) else { continue };
        if let Some((value, records)) = values.remove_entry(&*value)
            && let Some(records) = records.without(id)
        {
            values.insert(value, records);
        }
        // Tags have any name: none is kept that nothing has.
        if values.is_empty() {
            index.remove(&*field);
        }
    }
}

/// The indexed fields of a record and their values.
fn index_keys<T: Record>(record: &T) -> Vec<IndexKey<'_>> {
    let mut keys = Vec::new();
    for field in T::INDEXED {
        let mut values = Vec::new();
        record.field(field, &mut values);
        keys.extend(values.into_iter().map(|value| (Cow::Borrowed(*field), value)));
    }
    for (key, value) in record.tags().into_iter().flat_map(Tags::iter) {
        keys.push((format!("tag:{key}").into(), value.into()));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Thing {
        id: String,
        colour: u8,
        tags: Tags,
    }

    impl Record for Thing {
        const TABLE: &'static str = "thing";
        const INDEXED: &'static [&'static str] = &["colour"];

        fn id(&self) -> &str {
            &self.id
        }

        fn tags(&self) -> Option<&Tags> {
            Some(&self.tags)
        }

        fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
            values.push(self.colour.to_string().into());
            name == "colour"
        }
    }

    proptest! {
        #[test]
        fn indexes_say_what_a_scan_would(
            changes in prop::collection::vec((0u8..6, prop::option::of((0u8..3, any::<bool>()))), 0..60),
            after in 0u8..7,
        ) {
            let mut table = Table::default();
            let mut expected: BTreeMap<String, (Thing, Revision)> = BTreeMap::new();
            for (revision, (id, change)) in (1..).zip(changes) {
                let id = format!("thing-{id}");
                let old = match change {
                    Some((colour, tagged)) => {
                        let tags = tagged.then(|| ("size".to_owned(), colour.to_string()));
                        let tags = tags.into_iter().collect::<BTreeMap<_, _>>().into();
                        let thing = Thing { id: id.clone(), colour, tags };
                        let old = expected.insert(id, (thing.clone(), revision));
                        let (replaced, _) = table.put(thing, revision);
                        prop_assert_eq!(replaced.as_deref(), old.as_ref().map(|(old, _)| old));
                        continue;
                    }
                    None => expected.remove(&id),
                };
                let deleted = table.delete(&id);
                prop_assert_eq!(deleted.as_deref(), old.as_ref().map(|(old, _)| old));
            }
            let after = format!("thing-{after}");
            for (id, (thing, revision)) in &expected {
                prop_assert_eq!(table.find_with_revision(id), Some((&Arc::new(thing.clone()), *revision)));
            }
            for colour in 0..3u8 {
                let scan = |has: &dyn Fn(&Thing) -> bool| -> Vec<Thing> {
                    expected.values().map(|(thing, _)| thing).filter(|thing| has(thing)).cloned().collect()
                };
                let all = |field: &str, after: &str| -> Vec<Thing> {
                    table.with_after(field, &colour.to_string(), after).map(|thing| (**thing).clone()).collect()
                };
                let coloured = scan(&|thing| thing.colour == colour);
                prop_assert_eq!(table.count("colour", &colour.to_string()), coloured.len());
                prop_assert_eq!(all("colour", ""), coloured);
                prop_assert_eq!(all("colour", &after), scan(&|thing| thing.colour == colour && thing.id > after));
                let sized = scan(&|thing| thing.tags.get("size") == Some(&*colour.to_string()));
                prop_assert_eq!(all("tag:size", ""), sized);
            }
            for id in expected.keys() {
                table.delete(id);
            }
            prop_assert!(table.index.values().all(HashMap::is_empty));
        }
    }
}
