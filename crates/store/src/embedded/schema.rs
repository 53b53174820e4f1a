//! What the file holds, and how a file of an older build is brought to it.
//!
//! Every table is written in the same commit as what it belongs to, so that a file is consistent wherever a crash
//! left it.

use crate::lease::Leases;
use crate::{Entry, LeaseId, Revision, StoreError};
use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::time::Duration;

/// Key to the revision that wrote it (8 bytes, little-endian) and the value.
pub const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
/// The numbers named below.
pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Revision to its batch (`log::encode`), without gaps up to the last revision.
pub const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// Lease to its time to live in milliseconds.
pub const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
/// Key to its lease.
pub const BOUND: TableDefinition<&str, u64> = TableDefinition::new("bound");

/// The last revision.
pub const REVISION: &str = "revision";
/// The version of this layout.
pub const SCHEMA: &str = "schema";
/// The highest number that was ever given to a lease.
pub const LEASE: &str = "lease";
/// Bytes in `LOG`'s values.
pub const LOG_LEN: &str = "log_len";

type Migration = fn(&WriteTransaction) -> Result<(), StoreError>;

/// The step at index n brings a file from version n to n + 1; an empty file is of version 0. Only ever appended to.
const MIGRATIONS: &[Migration] = &[revisioned_entries, log_and_leases];
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// Brings the file to this build's schema, in one commit. A newer file is left as it is.
pub fn migrate(database: &Database) -> Result<(), StoreError> {
    let found = version(database)?;
    if found > u64::from(SCHEMA_VERSION) {
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        return Err(StoreError::SchemaTooNew { found, known: SCHEMA_VERSION });
    }
    // At most the number of migrations, so it fits.
    let missing = &MIGRATIONS[found as usize..];
    if missing.is_empty() {
        return Ok(());
    }
    tracing::info!(from = found, to = SCHEMA_VERSION, "bringing the store's file to this version");
    let writing = database.begin_write().map_err(StoreError::backend)?;
    for migration in missing {
        migration(&writing)?;
    }
    {
        let mut meta = writing.open_table(META).map_err(StoreError::backend)?;
        meta.insert(SCHEMA, u64::from(SCHEMA_VERSION)).map_err(StoreError::backend)?;
    }
    writing.commit().map_err(StoreError::backend)
}

fn version(database: &Database) -> Result<u64, StoreError> {
    let reading = database.begin_read().map_err(StoreError::backend)?;
    match reading.open_table(META) {
        Ok(meta) => Ok(meta.get(SCHEMA).map_err(StoreError::backend)?.map_or(0, |found| found.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(StoreError::backend(error)),
    }
}

/// Version 1: entries and the last revision. Entries that came without one have the highest of theirs.
fn revisioned_entries(writing: &WriteTransaction) -> Result<(), StoreError> {
    let entries = writing.open_table(ENTRIES).map_err(StoreError::backend)?;
    let mut meta = writing.open_table(META).map_err(StoreError::backend)?;
    if meta.get(REVISION).map_err(StoreError::backend)?.is_some() {
        return Ok(());
    }
    let mut last = 0;
    for entry in entries.iter().map_err(StoreError::backend)? {
        let (_, stored) = entry.map_err(StoreError::backend)?;
        last = last.max(modified(stored.value())?);
    }
    meta.insert(REVISION, last).map_err(StoreError::backend)?;
    Ok(())
}

/// Version 2: history and leases that outlive the process.
fn log_and_leases(writing: &WriteTransaction) -> Result<(), StoreError> {
    writing.open_table(LOG).map_err(StoreError::backend)?;
    writing.open_table(LEASES).map_err(StoreError::backend)?;
    writing.open_table(BOUND).map_err(StoreError::backend)?;
    let mut meta = writing.open_table(META).map_err(StoreError::backend)?;
    meta.insert(LEASE, 0).map_err(StoreError::backend)?;
    meta.insert(LOG_LEN, 0).map_err(StoreError::backend)?;
    Ok(())
}

/// A number of `META`; 0 where it was never written.
pub fn number(reading: &ReadTransaction, name: &str) -> Result<u64, StoreError> {
    let meta = reading.open_table(META).map_err(StoreError::backend)?;
    Ok(meta.get(name).map_err(StoreError::backend)?.map_or(0, |number| number.value()))
}

/// The leases that the file remembers, their time beginning now.
pub fn leases(reading: &ReadTransaction) -> Result<Leases, StoreError> {
    let leases = Leases::after(number(reading, LEASE)?);
    let granted = reading.open_table(LEASES).map_err(StoreError::backend)?;
    for row in granted.iter().map_err(StoreError::backend)? {
        let (lease, ttl_ms) = row.map_err(StoreError::backend)?;
        leases.insert(lease.value(), Duration::from_millis(ttl_ms.value()));
    }
    let bound = reading.open_table(BOUND).map_err(StoreError::backend)?;
    for row in bound.iter().map_err(StoreError::backend)? {
        let (key, lease): (_, redb::AccessGuard<LeaseId>) = row.map_err(StoreError::backend)?;
        leases.bind(key.value(), Some(lease.value()));
    }
    Ok(leases)
}

pub fn stored(entry: &Entry) -> Vec<u8> {
    [&entry.modified.to_le_bytes()[..], &entry.value].concat()
}

pub fn modified(stored: &[u8]) -> Result<Revision, StoreError> {
    split(stored).map(|(modified, _)| modified)
}

pub fn entry(key: &str, stored: &[u8]) -> Result<Entry, StoreError> {
    let (modified, value) = split(stored)?;
    Ok(Entry { key: key.to_owned(), value: Bytes::copy_from_slice(value), modified })
}

fn split(stored: &[u8]) -> Result<(Revision, &[u8]), StoreError> {
    let (modified, value) =
        stored.split_first_chunk().ok_or_else(|| StoreError::backend("an entry without its revision"))?;
    Ok((Revision::from_le_bytes(*modified), value))
}
