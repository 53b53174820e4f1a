//! Disks as layers of files: snapshots, and the volumes made of them; and the block store that has snapshots for good.
//!
//! ```text
//!   volume   [ vol-a.2 ][ vol-a.1 ][ vol-a.0 ]      uppermost first; only the uppermost is written to
//!   snapshot            [ vol-a.1 ][ vol-a.0 ]      of the moment when vol-a.2 was laid over them
//!   volume   [ vol-b.0 ][ vol-a.1 ][ vol-a.0 ]      made of that snapshot
//! ```
//!
//! A layer that anything lies over never changes again, so that snapshots and the volumes made of them share it:
//! making either copies nothing and takes the same time whatever the size, a snapshot takes the room of what was
//! written since the one before, and each is whole by itself. Which layers a snapshot or volume consists of is told
//! by its head, a small file that is replaced as a whole; a layer goes with the last head that names it.
//!
//! Chains stay short by merging layers that nobody writes to (`fold`).
//!
//! The store is what a snapshot is kept in, its layers are kept beside that for as long as there is room: volumes are
//! made of them at once and share them (`storing`). So what a snapshot holds takes room twice, the second time compressed
//! and once for all that have it; where the disk is nearly full, layers go that no volume lies over. A volume that is made
//! of a snapshot without layers is usable at once, too: what it lacks is fetched when it is read, or meanwhile (`filling`).
//!
//! A snapshot of a volume that a machine writes to takes two steps with the machine's own between them (`freeze`). One
//! that is uploaded is written block by block, then sealed as a layer of its own (`snapshots`).
//!
//! What an encrypted volume and its snapshots hold is encrypted in every layer and in the store, with keys that are in
//! memory only (`encryption`); made with another key or none before, it is encrypted anew, and used meanwhile.
//!
//! Calls block on the disk: run them off the threads that serve. Those who use disks see them through
//! `agent_api::SnapshotStore` and `agent::Disks`; Ceph, whose images are layered just so, can take this crate's place
//! behind the same two traits.
//!
//! Invariants: every call may be repeated, also after a crash at any point of it; what was acknowledged is durable,
//! directory entry included; a head names layers that are whole; a layer that a head names is never removed. One
//! process at a time uses a directory.

mod catalogue;
mod chain;
mod durable;
mod encryption;
mod filling;
mod fold;
mod freeze;
mod layer;
mod luks;
mod qcow2;
mod snapshots;
mod store;
mod storing;
#[cfg(test)]
mod tests;
mod volumes;

pub use catalogue::Disks;
pub use encryption::disk_key;
pub use filling::{Fill, Filling, LayerReader};
pub use freeze::{Freeze, Frozen};
pub use layer::{Format, Layer};
pub use store::{BlockStore, ChangedBlock, Collected};
pub use volumes::VolumeDisk;

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
    /// What is asked for is encrypted with a data key of this id, which nobody has told since the start.
    #[error("The data key {0} has not been told")]
    Locked(String),
    /// What was read is not what was written.
    #[error("{0} is damaged in the block store")]
    Damaged(String),
    #[error("the block store: {what}")]
    Store {
        /// As `can't put a block`.
        what: &'static str,
        #[source]
        source: Box<object_store::Error>,
    },
    #[error("{what} {}", path.display())]
    Io {
        /// As `can't write`.
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, VolumeError::NotFound(_))
    }

    fn is_of_full_disk(&self) -> bool {
        let is_full = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        matches!(self, VolumeError::Io { source, .. } if is_full(source))
    }
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
