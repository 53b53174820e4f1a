//! Puts into a folder, many at once.
//!
//! ```text
//!   stage     4fc2…#7 ┐
//!   stage     a01e…#8 ┴▶ publish: all are synced, each gets its name, all are synced again
//! ```
//!
//! The whole file system is synced: to sync each file, and each of the directories, is hundreds of times what a disk
//! must do for it.
//!
//! A block that is there already is replaced by one that is durable, never by one that is not. What a crash leaves staged
//! `collect` removes: a name with `#` and a number is none that `object_store` lists.

use crate::{Result, durable, failed};
use object_store::path::Path as Key;
use rustix::fs::{Advice, OFlags, fadvise, fcntl_setfl};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Of memory and of files, where the page cache is passed by.
const PAGE: usize = 4096;

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
        write_all(&mut file, bytes)
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

/// Past the page cache where that can be: it is read seldom, and is on its way to the disk while others are packed.
fn write_all(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    if bytes.len().is_multiple_of(PAGE) && fcntl_setfl(&*file, OFlags::DIRECT).is_ok() {
        let mut room = vec![0; bytes.len() + PAGE];
        let start = room.as_ptr().align_offset(PAGE);
        let aligned = &mut room[start..start + bytes.len()];
        aligned.copy_from_slice(bytes);
        match file.write_all(aligned) {
            // The file system can't, or asks for larger pages.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                fcntl_setfl(&*file, OFlags::empty())?;
            }
            written => return written,
        }
    }
    file.write_all(bytes)?;
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

/// Where files wait for their names.
pub(super) struct Stage {
    folder: PathBuf,
    /// Tells what failed of the file system since it was opened.
    opened: File,
}

impl Stage {
    /// To be opened before what is written there.
    pub(super) fn open(folder: &Path) -> Result<Stage> {
        let opened = File::open(folder).map_err(failed("can't open", folder))?;
        Ok(Stage { folder: folder.to_owned(), opened })
    }

    /// Gives them their names, durable on return.
    pub(super) fn publish(&self, staged: &[Staged]) -> Result<()> {
        if staged.is_empty() {
            return Ok(());
        }
        durable::sync_all(&self.opened, &self.folder)?;
        for Staged { path, name } in staged {
            durable::step(name)?;
            fs::rename(path, name).map_err(failed("can't name", name))?;
        }
        durable::sync_all(&self.opened, &self.folder)
    }
}
