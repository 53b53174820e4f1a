//! Puts into a folder, many at once.
//!
//! ```text
//!   stage     4fc2…#7, durable ┐
//!   stage     a01e…#8, durable ┴▶ publish: each gets its name, then each directory is synced once
//! ```
//!
//! A block that is there already is replaced by one that is durable, never by one that is not. What a crash leaves staged
//! `collect` removes: a name with `#` and a number is none that `object_store` lists.

use crate::{Result, durable, failed};
use object_store::path::Path as Key;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that waits for its name.
pub(super) struct Staged {
    path: PathBuf,
    name: PathBuf,
}

/// Writes what shall be under this key. Of those that wait at a time each has another number.
pub(super) fn stage(folder: &Path, key: &Key, number: u64, bytes: &[u8]) -> Result<Staged> {
    let name = folder.join(key.as_ref());
    let mut path = name.clone().into_os_string();
    path.push(format!("#{number}"));
    let path = PathBuf::from(path);
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(folder))?;
                options.open(&path)?
            }
            opened => opened?,
        };
        file.write_all(bytes)?;
        file.sync_data()
    };
    match write() {
        Ok(()) => Ok(Staged { path, name }),
        Err(error) => {
            // It takes room that may be short.
            let _ = fs::remove_file(&path);
            Err(failed("can't write", &path)(error))
        }
    }
}

/// Gives them their names, durable on return.
pub(super) fn publish(folder: &Path, staged: Vec<Staged>) -> Result<()> {
    let mut directories = BTreeSet::new();
    for one in staged {
        let Staged { path, name } = &one;
        durable::step(name)?;
        fs::rename(path, name).map_err(failed("can't name", name))?;
        // Those above may be new as well.
        let above = name.ancestors().skip(1).take_while(|above| above.starts_with(folder));
        directories.extend(above.map(Path::to_owned));
    }
    directories.iter().try_for_each(|directory| durable::sync_directory(directory))
}
