//! The EBS direct APIs: snapshots written and read block by block
//! (EBS User Guide, "Use EBS direct APIs to access the contents of an EBS snapshot").
//!
//! ```text
//!   StartSnapshot ──▶ pending ── PutSnapshotBlock … ──▶ CompleteSnapshot ──▶ completed ──▶ List…, GetSnapshotBlock
//!                        ╰── nothing for as long as `Timeout` says ──▶ error, its blocks gone
//! ```
//!
//! Invariants: a record that says completed is true: its blocks are sealed and durable before it says so. Nothing
//! is kept between calls but records and blocks, so that an upload goes on over a restart.

use crate::Context;
use crate::encryption;
use crate::snapshot::{Snapshot, SnapshotState};
use agent_api::{BLOCK_BYTES, HostError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Error, Id, Kind, Result};
use sha2::{Digest, Sha256};
use std::sync::Arc;

mod read;
mod write;

pub use read::{get_snapshot_block, list_changed_blocks, list_snapshot_blocks};
pub use write::{Upload, complete_snapshot, overdue, put_snapshot_block, start_snapshot};

const BLOCKS_PER_GIB: u32 = ((1 << 30) / BLOCK_BYTES) as u32;
/// The one algorithm of the API's checksums.
const CHECKSUM_ALGORITHM: &str = "SHA256";

fn invalid(message: impl Into<String>) -> Error {
    Error::new("ValidationException", message)
}

/// The store knows a snapshot from StartSnapshot on: one that it does not know is not there.
fn failed(error: HostError) -> Error {
    match error {
        HostError::NotFound(id) => not_found(&id),
        HostError::Failed(_) => Error::internal(error),
    }
}

fn not_found(id: &str) -> Error {
    Error::new("ResourceNotFoundException", format!("The snapshot '{id}' does not exist."))
}

/// What it holds can be had from then on.
async fn find(context: &Context, id: Option<&str>) -> Result<Arc<Snapshot>> {
    let id = id.unwrap_or_default();
    let id = Id::parse(Kind::Snapshot, id)
        .map_err(|_| invalid(format!("The snapshot id '{id}' is not valid.")))?;
    let snapshot = context.region.view.record::<Snapshot>(&id).ok_or_else(|| not_found(&id))?;
    encryption::tell(context, &context.region, &snapshot).await?;
    Ok(snapshot)
}

async fn find_completed(context: &Context, id: Option<&str>) -> Result<Arc<Snapshot>> {
    let snapshot = find(context, id).await?;
    if snapshot.state != SnapshotState::Completed {
        return Err(invalid(format!("The snapshot '{}' is not completed.", snapshot.snapshot_id)));
    }
    Ok(snapshot)
}

/// The index of a block within the snapshot's size.
fn block_index(snapshot: &Snapshot, index: Option<i32>) -> Result<u32> {
    let blocks = snapshot.size_gib * BLOCKS_PER_GIB;
    let index = index.and_then(|index| u32::try_from(index).ok()).filter(|index| *index < blocks);
    index.ok_or_else(|| invalid(format!("BlockIndex must be between 0 and {}.", blocks - 1)))
}

fn sha256(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

fn checksum(data: &[u8]) -> String {
    STANDARD.encode(sha256(data))
}
