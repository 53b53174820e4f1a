//! History in the file, so that a watch may begin before the last restart.
//!
//! A batch is stored under its revision as its events, one after another, lengths as 4 bytes little-endian:
//!
//! ```text
//!   put:    1 · key length · key · value length · value
//!   delete: 0 · key length · key
//! ```

use super::schema::{LOG, LOG_LEN};
use crate::hub::{Archive, HistoryBounds};
use crate::{Batch, Entry, Event, Revision, StoreError};
use bytes::Bytes;
use parking_lot::RwLock;
use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, WriteTransaction,
};
use std::sync::Arc;

const DELETE: u8 = 0;
const PUT: u8 = 1;

/// Appends within one commit.
pub struct Log<'txn> {
    table: Table<'txn, u64, &'static [u8]>,
    len: u64,
}

impl<'txn> Log<'txn> {
    pub fn open(writing: &'txn WriteTransaction, meta: &Table<&str, u64>) -> Result<Self, StoreError> {
        let len = meta.get(LOG_LEN).map_err(StoreError::backend)?.map_or(0, |len| len.value());
        Ok(Log { table: writing.open_table(LOG).map_err(StoreError::backend)?, len })
    }

    pub fn append(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let encoded = encode(&batch.events);
        self.len += encoded.len() as u64;
        self.table.insert(batch.revision, encoded.as_slice()).map_err(StoreError::backend)?;
        Ok(())
    }

    /// Forgets what exceeds the bounds.
    pub fn finish(
        mut self,
        meta: &mut Table<&'static str, u64>,
        bounds: HistoryBounds,
    ) -> Result<(), StoreError> {
        let mut batches = self.table.len().map_err(StoreError::backend)?;
        while bounds.exceeded(batches, self.len) {
            let Some((_, oldest)) = self.table.pop_first().map_err(StoreError::backend)? else { break };
            self.len = self.len.saturating_sub(oldest.value().len() as u64);
            batches -= 1;
        }
        meta.insert(LOG_LEN, self.len).map_err(StoreError::backend)?;
        Ok(())
    }
}

/// The log as a watch reads it, until it is closed: a forgotten watch does not keep the file open.
pub struct LogReader(RwLock<Option<Arc<Database>>>);

impl LogReader {
    pub fn new(database: Arc<Database>) -> LogReader {
        LogReader(RwLock::new(Some(database)))
    }

    /// Waits for whoever reads at this moment: nobody has the database from here any more.
    pub fn close(&self) {
        *self.0.write() = None;
    }

    fn read_with<T>(
        &self,
        read: impl FnOnce(ReadOnlyTable<u64, &'static [u8]>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.0.read();
        let reading =
            database.as_ref().ok_or(StoreError::Closed)?.begin_read().map_err(StoreError::backend)?;
        read(reading.open_table(LOG).map_err(StoreError::backend)?)
    }
}

impl Archive for LogReader {
    fn oldest(&self) -> Result<Option<Revision>, StoreError> {
        self.read_with(|log| {
            Ok(log.first().map_err(StoreError::backend)?.map(|(revision, _)| revision.value()))
        })
    }

    fn read(&self, revision: Revision) -> Result<Option<Batch>, StoreError> {
        self.read_with(|log| {
            let found = log.get(revision).map_err(StoreError::backend)?;
            found.map(|encoded| decode(revision, encoded.value())).transpose()
        })
    }
}

fn encode(events: &[Event]) -> Vec<u8> {
    let mut out = Vec::new();
    // Lengths are far below 4 GiB: see the bounds in `api`.
    let mut chunk = |tag: Option<u8>, bytes: &[u8]| {
        out.extend(tag);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    for event in events {
        match event {
            Event::Put(entry) => {
                chunk(Some(PUT), entry.key.as_bytes());
                chunk(None, &entry.value);
            }
            Event::Delete { key, .. } => chunk(Some(DELETE), key.as_bytes()),
        }
    }
    out
}

pub fn decode(revision: Revision, encoded: &[u8]) -> Result<Batch, StoreError> {
    let damaged = || StoreError::backend(format!("the log's batch {revision} is damaged"));
    let mut events = Vec::new();
    let mut rest = encoded;
    while let Some((tag, behind)) = rest.split_first() {
        rest = behind;
        let key = chunk(&mut rest).ok_or_else(damaged)?;
        let key = std::str::from_utf8(key).map_err(|_| damaged())?.to_owned();
        events.push(match *tag {
            PUT => {
                let value = Bytes::copy_from_slice(chunk(&mut rest).ok_or_else(damaged)?);
                Event::Put(Entry { key, value, modified: revision })
            }
            DELETE => Event::Delete { key, revision },
            _ => return Err(damaged()),
        });
    }
    Ok(Batch { revision, events })
}

fn chunk<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, behind) = rest.split_first_chunk()?;
    let (chunk, behind) = behind.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = behind;
    Some(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event() -> impl Strategy<Value = Event> {
        let value = prop::collection::vec(any::<u8>(), 0..50);
        (".{0,20}", prop::option::of(value)).prop_map(|(key, value)| match value {
            Some(value) => Event::Put(Entry { key, value: value.into(), modified: 7 }),
            None => Event::Delete { key, revision: 7 },
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(events in prop::collection::vec(event(), 0..8)) {
            prop_assert_eq!(decode(7, &encode(&events)).unwrap(), Batch { revision: 7, events });
        }

        #[test]
        fn a_damaged_batch_is_an_error_or_another_batch(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(batch) = decode(7, &bytes) {
                prop_assert_eq!(encode(&batch.events), bytes);
            }
        }
    }

    #[test]
    fn a_batch_cut_short_is_an_error() {
        let put = Event::Put(Entry { key: "key".into(), value: "value".into(), modified: 7 });
        let encoded = encode(&[put]);
        for len in 1..encoded.len() {
            assert!(decode(7, &encoded[..len]).is_err(), "{len} bytes");
        }
    }
}
