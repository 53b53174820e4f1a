//! Copies of a store: made while it runs, verified before they become one.

use super::file;
use super::log;
use super::schema::{self, BOUND, ENTRIES, LEASE, LEASES, LOG, LOG_LEN, META, REVISION};
use super::{RedbOptions, RedbStore};
use crate::StoreError;
use redb::{Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, Value, WriteTransaction};
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

impl RedbStore {
    /// Copies everything as it is at one revision, while the store runs. The copy is whole and durable at `to`, in
    /// place of what was there; or nothing has happened. A store that runs is not replaced, least of all this one: it
    /// would go on writing to a file without a name. Blocks for as long as the copying takes.
    pub(super) fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
        let _alone = self.0.copying.lock();
        match File::open(to) {
            Ok(there) => file::check_unused(&there, to)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::backend(error)),
        }
        let reading = self.0.database.begin_read().map_err(StoreError::backend)?;
        file::make(to, |new| {
            let copy = file::open(new, &RedbOptions::default().builder())?;
            let writing = copy.begin_write().map_err(StoreError::backend)?;
            copy_table(&reading, &writing, ENTRIES)?;
            copy_table(&reading, &writing, META)?;
            copy_table(&reading, &writing, LOG)?;
            copy_table(&reading, &writing, LEASES)?;
            copy_table(&reading, &writing, BOUND)?;
            writing.commit().map_err(StoreError::backend)
        })
    }

    /// Makes a store at `to`, where there must be none, from a backup. The backup is verified as a whole (checksums,
    /// schema, and that its tables agree) and stays as it is. Blocks for as long as that takes.
    pub fn restore(from: &Path, to: &Path) -> Result<(), StoreError> {
        let _lock = file::Lock::take(to)?;
        if to.try_exists().map_err(StoreError::backend)? {
            let to = to.display();
            return Err(StoreError::backend(format!(
                "{to} is there already: move it away to restore a backup"
            )));
        }
        let mut source = File::open(from).map_err(StoreError::backend)?;
        file::check_unused(&source, from)?;
        if source.metadata().map_err(StoreError::backend)?.len() == 0 {
            return Err(StoreError::backend(format!("{} is empty", from.display())));
        }
        file::make(to, |new| {
            std::io::copy(&mut source, &mut file::open_private(new)?).map_err(StoreError::backend)?;
            let mut builder = RedbOptions::default().builder();
            builder.set_check_integrity_on_open(true);
            let copy = file::open(new, &builder)?;
            schema::migrate(&copy)?;
            verify(&copy.begin_read().map_err(StoreError::backend)?)
        })
    }
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<K, V>,
) -> Result<(), StoreError> {
    let mut copy = to.open_table(table).map_err(StoreError::backend)?;
    let rows = from.open_table(table).map_err(StoreError::backend)?;
    for row in rows.iter().map_err(StoreError::backend)? {
        let (key, value) = row.map_err(StoreError::backend)?;
        copy.insert(key.value(), value.value()).map_err(StoreError::backend)?;
    }
    Ok(())
}

/// What redb's checksums don't tell: that the tables agree.
fn verify(reading: &ReadTransaction) -> Result<(), StoreError> {
    let damaged = |what: &str| Err(StoreError::backend(format!("the backup is damaged: {what}")));
    let last = schema::number(reading, REVISION)?;
    let entries = reading.open_table(ENTRIES).map_err(StoreError::backend)?;
    for row in entries.iter().map_err(StoreError::backend)? {
        let (_, stored) = row.map_err(StoreError::backend)?;
        if schema::modified(stored.value())? > last {
            return damaged("an entry is newer than the last revision");
        }
    }
    let log = reading.open_table(LOG).map_err(StoreError::backend)?;
    let (mut newest, mut len) = (None, 0);
    for row in log.iter().map_err(StoreError::backend)? {
        let (revision, encoded) = row.map_err(StoreError::backend)?;
        let revision = revision.value();
        log::decode(revision, encoded.value())?;
        if newest.is_some_and(|newest| revision != newest + 1) {
            return damaged("the log has a gap");
        }
        newest = Some(revision);
        len += encoded.value().len() as u64;
    }
    if newest.is_some_and(|newest| newest != last) || len != schema::number(reading, LOG_LEN)? {
        return damaged("the log is not of the last revision");
    }
    let leases = reading.open_table(LEASES).map_err(StoreError::backend)?;
    if leases.last().map_err(StoreError::backend)?.map_or(0, |(lease, _)| lease.value())
        > schema::number(reading, LEASE)?
    {
        return damaged("a lease has a number that was not given");
    }
    let bound = reading.open_table(BOUND).map_err(StoreError::backend)?;
    for row in bound.iter().map_err(StoreError::backend)? {
        let (_, lease) = row.map_err(StoreError::backend)?;
        if leases.get(lease.value()).map_err(StoreError::backend)?.is_none() {
            return damaged("a key is bound to a lease that is not there");
        }
    }
    Ok(())
}
