//! Disks on one host: sealed snapshots, and the volumes made of them.
//!
//! ```text
//!  blocks ──▶ snapshots/snap-….pending ──complete──▶ snapshots/snap-….raw (read-only)
//!                                                      ▲ backing file
//!                        volumes/vol-….qcow2 ──────────┘      (or volumes/vol-….raw, empty at first)
//! ```
//!
//! A volume made from a snapshot is an overlay: made in the same time whatever its size, nothing is copied. A
//! snapshot that is deleted while volumes lie over it keeps its file, renamed, until the last of them is gone.
//!
//! Invariants: a name that is there names a whole file (made under another name, synced, renamed, its directory
//! synced); every call may be repeated after a crash at any point; nothing here knows of QEMU or of the network.

mod durable;
mod qemu_img;
mod snapshots;
mod volumes;

pub use snapshots::{BLOCK_BYTES, SIZE_GIB_MAX, Snapshots};
pub use volumes::{Backing, File, Volumes};

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{0} is not here")]
    NotFound(String),
    /// What was asked for makes no sense; the message is for the user.
    #[error("{0}")]
    Invalid(String),
    #[error("{what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("qemu-img: {0}")]
    Tool(String),
}

pub type Result<T> = std::result::Result<T, VolumeError>;

/// Puts a path and what was being done to it into an I/O error.
fn failed<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(std::io::Error) -> VolumeError + use<'p> {
    move |source| VolumeError::Io { what, path: path.to_owned(), source }
}
