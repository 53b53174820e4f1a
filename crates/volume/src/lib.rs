//! Disks: sealed snapshots and the volumes made of them, as plain files.
//!
//! ```text
//!   begin ─▶ snap-….pending ─ put_block… ─ complete ─▶ snap-….raw, never changed again
//!                                                           ▲ backing
//!   ensure ─▶ vol-….new ──────────────────────────▶ vol-….snap-….qcow2   (from a snapshot)
//!                     └───────────────────────────▶ vol-….raw            (of zeros)
//! ```
//!
//! The name of a volume's file tells what it lies over: which snapshots are in use follows from one listing, and
//! can't disagree with the volumes. A deleted snapshot that volumes lie over keeps its file, hidden by a marker
//! (`snap-….deleted`), until the last of them is gone.
//!
//! Making a volume takes the same time whatever its size. Calls block on the disk: run them off the threads that
//! serve. Those who use disks see them through `agent_api::SnapshotStore` and `agent::Disks`; a store of shared
//! blocks, or Ceph, takes the place of this crate's two types behind the same two traits.
//!
//! Invariants: every call may be repeated, also after a crash at any point of it; what was acknowledged is durable,
//! directory entry included; a file under its final name is whole; a file that something lies over is never
//! removed. One process at a time uses a directory.

mod durable;
mod qcow2;
mod snapshots;
mod volumes;

pub use snapshots::Snapshots;
pub use volumes::{Backing, VolumeFile, Volumes};

use std::io;
use std::path::{Path, PathBuf};

/// Bytes in one block of a snapshot: the block size of the EBS direct APIs.
pub const BLOCK_BYTES: usize = 512 * 1024;

const GIB: u64 = 1 << 30;
/// The largest volume that EBS offers (EBS User Guide, "EBS volume types": io2 Block Express), in GiB.
pub const SIZE_GIB_MAX: u32 = 65536;

pub type Result<T> = std::result::Result<T, VolumeError>;

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{0} is not here")]
    NotFound(String),
    /// Trying again will not help. The message is for the user.
    #[error("{0}")]
    Invalid(String),
    #[error("{what} {}", path.display())]
    Io {
        /// As `can't write`.
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Says what failed, and on which file, beside why.
fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    move |source| VolumeError::Io { what, path: path.to_owned(), source }
}

/// Bytes of a disk of this size.
fn bytes(size_gib: u32) -> Result<u64> {
    match size_gib {
        1..=SIZE_GIB_MAX => Ok(u64::from(size_gib) * GIB),
        _ => Err(VolumeError::Invalid(format!("A disk has 1 to {SIZE_GIB_MAX} GiB, not {size_gib}"))),
    }
}
