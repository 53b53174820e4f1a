//! File system steps that are still there after the power has failed.

use crate::{Result, failed};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Ends the name of what is being written; what a crash leaves of it is removed.
pub(crate) const NEW: &str = "new";

/// Makes the directory, for us alone, and those above it.
pub(crate) fn create_directory(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(failed("can't make", path))?;
    sync_directory(path.parent().unwrap_or(path))
}

/// Replaces a file as a whole.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    step(path)?;
    let new = path.with_added_extension(NEW);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(failed("can't write", &new))?;
    rename(&new, path)
}

pub(crate) fn sync(path: &Path) -> Result<()> {
    step(path)?;
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("can't write", path))
}

/// Makes all that was written to the file system durable that has the directory, which was opened before.
pub(crate) fn sync_all(opened: &File, path: &Path) -> Result<()> {
    step(path)?;
    rustix::fs::syncfs(opened).map_err(|error| failed("can't write", path)(error.into()))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    sync(path)
}

/// Gives a file its final name. What is in the file must be durable already.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    step(to)?;
    fs::rename(from, to).map_err(failed("can't name", to))?;
    sync_directory(to.parent().unwrap_or(to))
}

/// Gives a file another name besides, in place of what had it. What is in the file must be durable already.
pub(crate) fn link(from: &Path, to: &Path) -> Result<()> {
    remove(to)?;
    step(to)?;
    fs::hard_link(from, to).map_err(failed("can't name", to))?;
    sync_directory(to.parent().unwrap_or(to))
}

/// Returns whether there was one.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    step(path)?;
    match fs::remove_file(path) {
        Ok(()) => {
            sync_directory(path.parent().unwrap_or(path))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("can't remove", path)(error)),
    }
}

/// Fails where a test wants a crash.
#[cfg(not(test))]
pub(crate) fn step(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use crash::{set as crash_after, step};

#[cfg(test)]
mod crash {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// From the so-manieth step on, all fail on this thread: as if the process were gone. None ends that.
    pub(crate) fn set(steps: Option<usize>) {
        LEFT.set(steps);
    }

    pub(crate) fn step(path: &Path) -> Result<()> {
        match LEFT.get() {
            None => Ok(()),
            Some(0) => Err(failed("crashed at", path)(io::Error::other("crash"))),
            Some(left) => {
                LEFT.set(Some(left - 1));
                Ok(())
            }
        }
    }
}
