//! The EBS direct APIs: snapshots written and read block by block
//! (EBS User Guide, "Use EBS direct APIs to access the contents of an EBS snapshot").

use crate::Context;
use crate::engine::{Tags, Tx};
use crate::snapshot::{Snapshot, SnapshotState};
use agent_api::{BLOCK_BYTES, HostError};
use aws_api::ebs;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use model::{Error, Id, Kind, Result, Timestamp};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

const SIZE_GIB_MAX: i64 = 65_536;
const BLOCKS_PER_GIB: u32 = ((1 << 30) / BLOCK_BYTES) as u32;
/// A page of blocks where the request names no size, and the largest it may name.
const PAGE: usize = 10_000;
const PAGE_MIN: i32 = 100;
/// How long a listing's block tokens are said to be good.
const TOKENS_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const DESCRIPTION_LEN_MAX: usize = 255;

fn invalid(message: impl Into<String>) -> Error {
    Error::new("ValidationException", message)
}

fn failed(error: HostError) -> Error {
    match error {
        HostError::NotFound(what) => Error::new("ResourceNotFoundException", format!("{what} does not exist.")),
        HostError::Failed(_) => Error::internal(error),
    }
}

fn parse_id(id: Option<&str>) -> Result<Id> {
    let id = id.unwrap_or_default();
    Id::parse(Kind::Snapshot, id).map_err(|_| invalid(format!("The snapshot id '{id}' is not valid.")))
}

fn not_found(id: &str) -> Error {
    Error::new("ResourceNotFoundException", format!("The snapshot '{id}' does not exist."))
}

fn find(context: &Context, id: Option<&str>, wanted: SnapshotState) -> Result<Arc<Snapshot>> {
    let id = parse_id(id)?;
    let snapshot = context.region.view.record::<Snapshot>(&id).ok_or_else(|| not_found(&id))?;
    if snapshot.state != wanted {
        let state = if wanted == SnapshotState::Pending { "pending" } else { "completed" };
        return Err(invalid(format!("The snapshot '{id}' is not {state}.")));
    }
    Ok(snapshot)
}

pub async fn start_snapshot(context: &Context, input: ebs::StartSnapshotRequest) -> Result<ebs::StartSnapshotResponse> {
    let size_gib = input.volume_size.unwrap_or(0);
    if !(1..=SIZE_GIB_MAX).contains(&size_gib) {
        return Err(invalid(format!("VolumeSize must be between 1 and {SIZE_GIB_MAX} GiB.")));
    }
    if input.encrypted == Some(true) || input.kms_key_arn.is_some() {
        return Err(invalid("Encrypted snapshots are not supported by this cloud."));
    }
    if input.parent_snapshot_id.is_some() {
        return Err(invalid("Incremental uploads are not supported by this cloud: leave ParentSnapshotId out."));
    }
    let description = input.description.clone().unwrap_or_default();
    if description.chars().count() > DESCRIPTION_LEN_MAX {
        return Err(invalid(format!("The description is longer than {DESCRIPTION_LEN_MAX} characters.")));
    }
    let tags: Vec<_> = input
        .tags
        .iter()
        .map(|tag| aws_api::ec2::Tag { key: tag.key.clone(), value: tag.value.clone() })
        .collect();
    let tags = Tags::from_api(&tags)?;
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(id) = idempotent.made_before(tx)?.and_then(|made| made.into_iter().next()) {
                return Id::parse(Kind::Snapshot, &id);
            }
            let snapshot = Snapshot {
                snapshot_id: tx.new_id(Kind::Snapshot),
                owner: context.account().clone(),
                volume_id: None,
                size_gib: size_gib as u32,
                description: description.clone(),
                state: SnapshotState::Pending,
                started_at: tx.now(),
                completed_at: None,
                tags: tags.clone(),
            };
            tx.create(&snapshot);
            idempotent.remember(tx, vec![snapshot.snapshot_id.to_string()]);
            Ok(snapshot.snapshot_id)
        })
        .await?;
    // After the record: what has no record would be left over. Beginning twice is no error.
    context.snapshots.begin(&id, size_gib as u32).await.map_err(failed)?;
    let snapshot = context.region.view.record::<Snapshot>(&id).ok_or_else(|| not_found(&id))?;
    Ok(ebs::StartSnapshotResponse {
        snapshot_id: Some(id.to_string()),
        owner_id: Some(snapshot.owner.to_string()),
        status: Some("pending".into()),
        start_time: Some(snapshot.started_at),
        volume_size: Some(size_gib),
        block_size: Some(BLOCK_BYTES as i32),
        description: Some(snapshot.description.clone()),
        tags: input.tags,
        ..Default::default()
    })
}

fn block_index(snapshot: &Snapshot, index: Option<i32>) -> Result<u32> {
    let blocks = snapshot.size_gib * BLOCKS_PER_GIB;
    index
        .and_then(|index| u32::try_from(index).ok())
        .filter(|index| *index < blocks)
        .ok_or_else(|| invalid(format!("BlockIndex must be between 0 and {}.", blocks - 1)))
}

fn checksum(data: &[u8]) -> String {
    STANDARD.encode(Sha256::digest(data))
}

pub async fn put_snapshot_block(
    context: &Context,
    input: ebs::PutSnapshotBlockRequest,
) -> Result<ebs::PutSnapshotBlockResponse> {
    let snapshot = find(context, input.snapshot_id.as_deref(), SnapshotState::Pending)?;
    let index = block_index(&snapshot, input.block_index)?;
    let data = input.block_data.unwrap_or_default();
    if data.len() != BLOCK_BYTES || input.data_length.is_some_and(|length| length as usize != BLOCK_BYTES) {
        return Err(invalid(format!("A block has {BLOCK_BYTES} bytes, not {}.", data.len())));
    }
    if input.checksum_algorithm.as_deref().is_some_and(|algorithm| algorithm != "SHA256") {
        return Err(invalid("The checksum algorithm must be SHA256."));
    }
    let sum = checksum(&data);
    if input.checksum.as_deref().is_some_and(|given| given != sum) {
        return Err(invalid("The checksum does not match the block's data."));
    }
    context.snapshots.put_block(&snapshot.snapshot_id, index, &data).await.map_err(failed)?;
    Ok(ebs::PutSnapshotBlockResponse { checksum: Some(sum), checksum_algorithm: Some("SHA256".into()) })
}

pub async fn complete_snapshot(
    context: &Context,
    input: ebs::CompleteSnapshotRequest,
) -> Result<ebs::CompleteSnapshotResponse> {
    let id = parse_id(input.snapshot_id.as_deref())?;
    // Sealed first: a record that says completed must be true.
    let snapshot = context.region.view.record::<Snapshot>(&id).ok_or_else(|| not_found(&id))?;
    if !snapshot.is_completed() {
        let count = context.snapshots.list_blocks(&id, 0, usize::MAX).await.map_err(failed)?.len();
        if let Some(said) = input.changed_blocks_count
            && said != count as i32
        {
            return Err(invalid(format!("ChangedBlocksCount is {said}, but {count} blocks were put.")));
        }
        context.snapshots.complete(&id).await.map_err(failed)?;
        context.transact(|tx| complete(tx, &id)).await?;
    }
    Ok(ebs::CompleteSnapshotResponse { status: Some("completed".into()) })
}

fn complete(tx: &mut Tx<'_>, id: &Id) -> Result<()> {
    let snapshot = tx.get::<Snapshot>(id).ok_or_else(|| not_found(id))?;
    let completed_at = Some(tx.now());
    tx.put(&Snapshot { state: SnapshotState::Completed, completed_at, ..(*snapshot).clone() });
    Ok(())
}

/// Opaque to clients: which block of which snapshot.
fn token(id: &str, index: u32) -> String {
    URL_SAFE_NO_PAD.encode(format!("{id}:{index}"))
}

fn page_size(wanted: Option<i32>) -> Result<usize> {
    match wanted {
        None => Ok(PAGE),
        Some(wanted) if wanted >= PAGE_MIN && wanted as usize <= PAGE => Ok(wanted as usize),
        Some(_) => Err(invalid(format!("MaxResults must be between {PAGE_MIN} and {PAGE}."))),
    }
}

/// Where a listing goes on: the page token is the next block's index.
fn start(token: Option<&str>, starting: Option<i32>) -> Result<u32> {
    match token {
        Some(token) => token.parse().map_err(|_| invalid("The page token is not valid.")),
        None => u32::try_from(starting.unwrap_or(0)).map_err(|_| invalid("StartingBlockIndex must not be negative.")),
    }
}

fn expiry(context: &Context) -> Timestamp {
    let now = context.environment.clock.now();
    now.saturating_add(TOKENS_FOR).unwrap_or(now)
}

pub async fn list_snapshot_blocks(
    context: &Context,
    input: ebs::ListSnapshotBlocksRequest,
) -> Result<ebs::ListSnapshotBlocksResponse> {
    let snapshot = find(context, input.snapshot_id.as_deref(), SnapshotState::Completed)?;
    let limit = page_size(input.max_results)?;
    let from = start(input.next_token.as_deref(), input.starting_block_index)?;
    let mut indexes =
        context.snapshots.list_blocks(&snapshot.snapshot_id, from, limit + 1).await.map_err(failed)?;
    let next_token = (indexes.len() > limit).then(|| indexes[limit].to_string());
    indexes.truncate(limit);
    let block = |index: u32| ebs::Block {
        block_index: Some(index as i32),
        block_token: Some(token(&snapshot.snapshot_id, index)),
    };
    Ok(ebs::ListSnapshotBlocksResponse {
        blocks: indexes.into_iter().map(block).collect(),
        block_size: Some(BLOCK_BYTES as i32),
        volume_size: Some(i64::from(snapshot.size_gib)),
        expiry_time: Some(expiry(context)),
        next_token,
    })
}

pub async fn get_snapshot_block(
    context: &Context,
    input: ebs::GetSnapshotBlockRequest,
) -> Result<ebs::GetSnapshotBlockResponse> {
    let snapshot = find(context, input.snapshot_id.as_deref(), SnapshotState::Completed)?;
    let index = block_index(&snapshot, input.block_index)?;
    if input.block_token.as_deref() != Some(&token(&snapshot.snapshot_id, index)) {
        return Err(invalid("The block token is not one of this block."));
    }
    let data = context.snapshots.get_block(&snapshot.snapshot_id, index).await.map_err(failed)?;
    let data = data.ok_or_else(|| {
        Error::new("ResourceNotFoundException", format!("The snapshot has no block with index {index}."))
    })?;
    Ok(ebs::GetSnapshotBlockResponse {
        data_length: Some(data.len() as i32),
        checksum: Some(checksum(&data)),
        checksum_algorithm: Some("SHA256".into()),
        block_data: Some(Bytes::from(data)),
    })
}
