//! What control and a host say to each other.
//!
//! Control *desires*: networks, security groups, volumes and instances that shall be on the host. The host
//! *observes*: what it found or did. Both directions are level-triggered: a message says how things shall be or
//! are, never what to do next, so that a lost, doubled or late message does no harm. `generation`s let a host
//! ignore what is older than what it has; after a restart of either side control sends the whole desire once
//! (`HostAgent::replace`) and the host reports all it observes.
//!
//! Invariants: no IO here; every type is plain data (serde), so that the link may become a network one.

mod desired;
mod observed;

pub use desired::*;
pub use model::{Burst, DiskLimits, Rate, SecretKey, UefiVariable};
pub use observed::*;

use async_trait::async_trait;
use model::Id;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes in one block of a snapshot: the block size of the EBS direct APIs.
pub const BLOCK_BYTES: usize = 512 * 1024;

/// The version of this protocol; a host with another is refused with a message that says which side to upgrade.
pub const PROTOCOL_VERSION: u32 = 1;

/// One host as control sees it: the real agent and the simulated one, in this process or far away.
#[async_trait]
pub trait HostAgent: Send + Sync {
    fn describe(&self) -> HostDescription;

    /// The whole of what shall be on the host; what is not in it is removed. Sent once when the link comes up.
    /// Returns when the host has taken it in, not when it has carried it out.
    async fn replace(&self, desired: Desired);

    /// Changes to what shall be. Each is idempotent; an older generation than the host has is ignored.
    async fn apply(&self, changes: Vec<Change>);

    /// What the host observes from now on, beginning with all it has. One subscriber at a time; a new
    /// subscription ends the one before.
    fn observe(&self) -> tokio::sync::mpsc::UnboundedReceiver<Observation>;

    /// Makes snapshots of volumes of this host, all of one moment within this call: of volumes of one instance, or of
    /// one volume. Where a guest runs it goes on, and what it has flushed before is in them. On return they are whole
    /// and durable on this host, in the `SnapshotStore` as `SnapshotStore::store` has them; on an error there may be none or all of them, never some. To be repeated
    /// under the same ids after an error, a crash or a lost answer: what is there already is not made again.
    async fn create_snapshots(&self, snapshots: Vec<NewSnapshot>) -> Result<(), HostError>;

    /// The last bytes that the guest wrote to its serial console, at most `CONSOLE_BYTES_MAX`.
    async fn console_output(&self, instance_id: &str) -> Result<Vec<u8>, HostError>;

    /// The guest's screen as a JPEG.
    async fn console_screenshot(&self, instance_id: &str) -> Result<Vec<u8>, HostError>;

    /// The volumes of this host that lack something of what they are made of.
    async fn unfilled_volumes(&self) -> Result<BTreeMap<Id, Unfilled>, HostError>;

    /// The variables that the instance's firmware keeps; those of its `Machine` where it has not run yet.
    async fn uefi_variables(&self, instance_id: &str) -> Result<Vec<UefiVariable>, HostError>;
}

/// A snapshot that shall be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSnapshot {
    pub snapshot_id: Id,
    pub volume_id: Id,
}

/// How much of a console GetConsoleOutput returns (EC2 API Reference: "the most recent 64 KB").
pub const CONSOLE_BYTES_MAX: usize = 64 * 1024;

/// Blocks of snapshots, wherever they are kept. Shared by all hosts. What an encrypted one holds is not to be had before
/// its data key is told; told and answered is what it holds, unencrypted.
#[async_trait]
pub trait SnapshotStore: Send + Sync {
    /// Tells the data key of snapshots that are about to be used; kept in memory.
    async fn tell(&self, key: &SecretKey);
    /// Makes an empty pending snapshot of `size_gib`; encrypted, with a data key. Doing it twice is no error.
    async fn begin(&self, snapshot_id: &str, size_gib: u32, key: Option<&SecretKey>)
    -> Result<(), HostError>;
    /// Writes one block of exactly `BLOCK_BYTES`; a block may be written again while the snapshot is pending.
    async fn put_block(&self, snapshot_id: &str, index: u32, data: &[u8]) -> Result<(), HostError>;
    /// Seals the snapshot: durable and never changed again. Doing it twice is no error.
    async fn complete(&self, snapshot_id: &str) -> Result<(), HostError>;
    /// None where the snapshot holds nothing (zeros) at this index.
    async fn get_block(&self, snapshot_id: &str, index: u32) -> Result<Option<Vec<u8>>, HostError>;
    /// Indexes of the blocks that hold data, ascending, from `start` on, at most `limit`.
    async fn list_blocks(&self, snapshot_id: &str, start: u32, limit: usize) -> Result<Vec<u32>, HostError>;
    /// Brings some more of a sealed snapshot to where it is safe from the loss of a disk, and answers how many percent of
    /// it are; 100 once it is whole there. To be called until then.
    async fn store(&self, snapshot_id: &str) -> Result<u8, HostError>;
    /// Has all of a sealed snapshot stay where volumes are made of it, or lets it go from there again. Brings some more of
    /// it there and answers how many percent are; 100 once all is. To be called until then.
    async fn keep_near(&self, snapshot_id: &str, keep: bool) -> Result<u8, HostError>;
    /// The blocks in which two snapshots differ that are stored, ascending, from `start` on, at most `limit`.
    async fn list_changed_blocks(
        &self,
        first: &str,
        second: &str,
        start: u32,
        limit: usize,
    ) -> Result<Vec<ChangedBlock>, HostError>;
    /// Makes a sealed snapshot that holds the same as another; encrypted, with a data key, which need not be the other's.
    /// Doing it twice is no error.
    async fn copy(&self, from: &str, to: &str, key: Option<&SecretKey>) -> Result<(), HostError>;
    async fn delete(&self, snapshot_id: &str) -> Result<(), HostError>;
}

/// A block in which two snapshots differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedBlock {
    pub index: u32,
    /// Whether they hold anything there.
    pub in_first: bool,
    pub in_second: bool,
}

/// Why a host could not answer. The message is for the user.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HostError {
    #[error("{0} is not on this host")]
    NotFound(String),
    #[error("{0}")]
    Failed(String),
}
