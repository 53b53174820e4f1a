//! Files that are there whole or not at all.

use crate::{Result, failed};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

/// Gives a finished file its name: synced first, and the name too before this returns.
pub fn publish(from: &Path, to: &Path) -> Result<()> {
    File::open(from).and_then(|file| file.sync_all()).map_err(failed("cannot sync", from))?;
    rename(from, to)
}

pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(failed("cannot rename", from))?;
    sync_directory_of(to)
}

/// No error where it is gone already.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory_of(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("cannot remove", path)(error)),
    }
}

fn sync_directory_of(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("cannot sync", dir))
}
