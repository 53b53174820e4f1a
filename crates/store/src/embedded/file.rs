//! The file itself: who may open it, and how it comes to be.
//!
//! ```text
//!   lock NAME.lock ─▶ NAME there? ─ no ─▶ fill NAME.new ─ sync ─ rename ─▶ NAME ─▶ open
//!                         └─ yes ─────────────────────────────────────────────────▶ open
//! ```
//!
//! Invariants: what has the file's name is a whole database; whoever has the lock is alone (it goes with its
//! process, however that ends); what is made here is its owner's alone.

use super::schema;
use crate::StoreError;
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The right to use a path, as long as it lives.
pub struct Lock {
    held: File,
}

impl Lock {
    pub fn take(path: &Path) -> Result<Lock, StoreError> {
        let held = open_private(&beside(path, ".lock"))?;
        patiently(|| match held.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(StoreError::backend(error)),
        })?;
        Ok(Lock { held })
    }
}

/// How long what is in use may still be let go.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tries again for a moment where a file is in use: a process that was killed while it started another has shared its
/// locks with that, until the other is what it is to be.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(StoreError::InUse(_)) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

impl Drop for Lock {
    /// Closing would not do: a process that is being started shares the open file for a moment, and so the lock.
    fn drop(&mut self) {
        let _ = self.held.unlock();
    }
}

/// `builder` says how; the caller has the lock.
pub fn open(path: &Path, builder: &Builder) -> Result<Database, StoreError> {
    let file = patiently(|| FileBackend::new(open_private(path)?).map_err(|error| opened(path, error)))?;
    builder.create_with_backend(file).map_err(|error| opened(path, error))
}

/// Opens the file, or makes an empty store of this build's schema; the caller has the lock.
pub fn open_or_create(path: &Path, builder: &Builder) -> Result<Database, StoreError> {
    if !path.try_exists().map_err(StoreError::backend)? {
        make(path, |new| schema::migrate(&open(new, builder)?))?;
    }
    open(path, builder)
}

/// Whatever `fill` leaves at the path it is given has the name `path` in the end, replacing what had it, durably; or
/// nothing has happened.
pub fn make(path: &Path, fill: impl FnOnce(&Path) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let new = beside(path, ".new");
    // What an attempt left that did not end.
    remove(&new)?;
    let made = fill(&new).and_then(|()| {
        File::open(&new).and_then(|file| file.sync_all()).map_err(StoreError::backend)?;
        std::fs::rename(&new, path).map_err(StoreError::backend)?;
        sync_dir(path)
    });
    if made.is_err() {
        // The first error is the one to tell.
        let _ = remove(&new);
    }
    made
}

/// Refuses a file that a store has open: redb locks it then.
pub fn check_unused(file: &File, path: &Path) -> Result<(), StoreError> {
    match file.try_lock_shared() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(StoreError::backend(error)),
    }
}

pub fn open_private(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(StoreError::backend)
}

fn opened(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        other => StoreError::backend(other),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::backend(error)),
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::backend)
}
