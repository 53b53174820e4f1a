//! What keeps the disks of a cloud, in one place: a host's volumes, and the snapshots of all.
//!
//! One backend is there, files of this host (`LocalDisks`). What another must bring is these traits and no more; Ceph's
//! RBD, the first in mind, as an example:
//!
//! | of a backend | `LocalDisks` | RBD |
//! |---|---|---|
//! | a volume (`ensure`) | a head and its layers | an image of 512 KiB objects, a clone where it has a snapshot |
//! | what a machine opens (`open`) | the layers' files | one layer, which names pool and image |
//! | snapshots of one moment (`begin_freeze`) | a journal, a new layer on each volume | a snapshot of a group of images; the layers stay as they are |
//! | and afterwards (`finish_freeze`, `undo_freeze`) | the journal goes | the group goes, or the snapshot |
//! | a long chain (`fold`) | layers merged | `flatten`; no machine is told |
//! | what is not there yet (`fill`, `read_layer`) | layers filled from the block store | nothing: the cluster reads on |
//! | blocks (`get_block`, `list_blocks`) | of layers or of the block store | objects of the snapshot |
//! | what changed (`list_changed_blocks`) | of two manifests | `diff` by whole objects |
//! | safe from the loss of a disk (`store`) | put into the block store | at once |
//! | keeping house (`tidy`) | room is made, blocks are collected | nothing |
//!
//! Invariants: each call may be made again; what was answered is durable; a snapshot is whole by itself, so that any other,
//! and the volume that it is of, may go.

use crate::volumes::{DiskError, Disks};
use agent_api::SnapshotStore;
use async_trait::async_trait;

#[async_trait]
pub trait Backend: Disks + SnapshotStore {
    /// Done from time to time: lets go of what nobody needs, and where less than so many percent of the host's disk are
    /// free, of what is elsewhere too.
    async fn tidy(&self, keep_free: u8) -> Result<Tidied, DiskError>;
}

/// What nobody needed, and is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    pub blocks: u64,
    pub bytes: u64,
}
