//! Disk files, opened for QEMU: it gets descriptors, never paths, so that its process needs no right to any file.

use super::{DiskFormat, DiskSpec};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// One open file of a disk.
pub(super) struct OpenFile {
    pub(super) fd: OwnedFd,
    /// The page cache is passed by.
    pub(super) direct: bool,
}

pub(super) struct OpenDisk {
    pub(super) file: OpenFile,
    /// The file that an overlay lies over.
    pub(super) backing: Option<OpenFile>,
}

pub(super) fn open(spec: &DiskSpec) -> io::Result<OpenDisk> {
    let backing = match &spec.format {
        DiskFormat::Qcow2 { backing: Some(path) } => {
            // Through the page cache on purpose: all instances of an image read the same file.
            Some(OpenFile { fd: open_file(path, OFlags::RDONLY)?, direct: false })
        }
        DiskFormat::Raw | DiskFormat::Qcow2 { backing: None } => None,
    };
    Ok(OpenDisk { file: open_to_write(&spec.path)?, backing })
}

pub(super) fn open_to_write(path: &Path) -> io::Result<OpenFile> {
    match open_file(path, OFlags::RDWR | OFlags::DIRECT) {
        Ok(fd) => Ok(OpenFile { fd, direct: true }),
        // What a file system answers that always goes through the page cache.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Ok(OpenFile { fd: open_file(path, OFlags::RDWR)?, direct: false })
        }
        Err(error) => Err(error),
    }
}

fn open_file(path: &Path, access: OFlags) -> io::Result<OwnedFd> {
    let fd = rustix::fs::open(path, access | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd.as_fd())?.st_mode);
    if kind.is_file() || kind.is_block_device() {
        return Ok(fd);
    }
    Err(io::Error::other(format!("{} is no disk", path.display())))
}
