//! ListSnapshotBlocks, ListChangedBlocks, GetSnapshotBlock.

use super::{CHECKSUM_ALGORITHM, block_index, checksum, failed, find_completed, invalid};
use crate::Context;
use agent_api::BLOCK_BYTES;
use aws_api::ebs;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use model::{Error, Result, Timestamp};
use std::time::Duration;

/// A page of blocks where the request names no size, and the largest it may name.
const PAGE: usize = 10_000;
const PAGE_MIN: i32 = 100;
/// How long a listing's block tokens are said to be good.
const TOKENS_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

fn page_size(wanted: Option<i32>) -> Result<usize> {
    match wanted {
        None => Ok(PAGE),
        Some(wanted) if wanted >= PAGE_MIN && wanted as usize <= PAGE => Ok(wanted as usize),
        Some(_) => Err(invalid(format!("MaxResults must be between {PAGE_MIN} and {PAGE}."))),
    }
}

/// Names a block of a snapshot, or where a listing of `of` goes on. Opaque to clients, of the characters that
/// the API's tokens have.
fn token(of: &str, index: u32) -> String {
    STANDARD.encode(format!("{of}:{index}"))
}

fn parse_token(of: &str, token: &str) -> Option<u32> {
    let text = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
    text.strip_prefix(of)?.strip_prefix(':')?.parse().ok()
}

/// The first block of a page.
fn start(of: &str, page_token: Option<&str>, starting: Option<i32>) -> Result<u32> {
    match page_token {
        Some(page_token) => {
            parse_token(of, page_token).ok_or_else(|| invalid("The page token is not valid."))
        }
        None => u32::try_from(starting.unwrap_or(0))
            .map_err(|_| invalid("StartingBlockIndex must not be negative.")),
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
    let snapshot = find_completed(context, input.snapshot_id.as_deref()).await?;
    let id = &snapshot.snapshot_id;
    let limit = page_size(input.max_results)?;
    let from = start(id, input.next_token.as_deref(), input.starting_block_index)?;
    let mut indexes = context.snapshots.list_blocks(id, from, limit + 1).await.map_err(failed)?;
    let next_token = indexes.get(limit).map(|next| token(id, *next));
    indexes.truncate(limit);
    let block =
        |index: u32| ebs::Block { block_index: Some(index as i32), block_token: Some(token(id, index)) };
    Ok(ebs::ListSnapshotBlocksResponse {
        blocks: indexes.into_iter().map(block).collect(),
        block_size: Some(BLOCK_BYTES as i32),
        volume_size: Some(i64::from(snapshot.size_gib)),
        expiry_time: Some(expiry(context)),
        next_token,
    })
}

pub async fn list_changed_blocks(
    context: &Context,
    input: ebs::ListChangedBlocksRequest,
) -> Result<ebs::ListChangedBlocksResponse> {
    if input.first_snapshot_id.is_none() {
        return Err(invalid("FirstSnapshotId must be given together with SecondSnapshotId."));
    }
    let first = &find_completed(context, input.first_snapshot_id.as_deref()).await?.snapshot_id;
    let snapshot = find_completed(context, input.second_snapshot_id.as_deref()).await?;
    let second = &snapshot.snapshot_id;
    let limit = page_size(input.max_results)?;
    let pair = format!("{first}:{second}");
    let from = start(&pair, input.next_token.as_deref(), input.starting_block_index)?;
    let changed = context.snapshots.list_changed_blocks(first, second, from, limit + 1).await;
    let mut changed = changed.map_err(failed)?;
    let next = changed.get(limit).map(|next| next.index);
    changed.truncate(limit);
    let changed = changed.into_iter().map(|block| ebs::ChangedBlock {
        block_index: Some(block.index as i32),
        first_block_token: block.in_first.then(|| token(first, block.index)),
        second_block_token: block.in_second.then(|| token(second, block.index)),
    });
    Ok(ebs::ListChangedBlocksResponse {
        changed_blocks: changed.collect(),
        block_size: Some(BLOCK_BYTES as i32),
        volume_size: Some(i64::from(snapshot.size_gib)),
        expiry_time: Some(expiry(context)),
        next_token: next.map(|index| token(&pair, index)),
    })
}

pub async fn get_snapshot_block(
    context: &Context,
    input: ebs::GetSnapshotBlockRequest,
) -> Result<ebs::GetSnapshotBlockResponse> {
    let snapshot = find_completed(context, input.snapshot_id.as_deref()).await?;
    let id = &snapshot.snapshot_id;
    let index = block_index(&snapshot, input.block_index)?;
    if input.block_token.as_deref().and_then(|token| parse_token(id, token)) != Some(index) {
        return Err(invalid("The block token is not one of this block."));
    }
    let data = context.snapshots.get_block(id, index).await.map_err(failed)?.ok_or_else(|| {
        Error::new("ResourceNotFoundException", format!("The snapshot has no block with index {index}."))
    })?;
    Ok(ebs::GetSnapshotBlockResponse {
        data_length: Some(data.len() as i32),
        checksum: Some(checksum(&data)),
        checksum_algorithm: Some(CHECKSUM_ALGORITHM.into()),
        block_data: Some(Bytes::from(data)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_what_it_was_given_for() {
        let given = token("snap-0123456789abcdef0", 42);
        assert!(given.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)));
        assert_eq!(parse_token("snap-0123456789abcdef0", &given), Some(42));
        assert_eq!(parse_token("snap-0123456789abcdef1", &given), None);
        assert_eq!(parse_token("snap-0123456789abcdef", &given), None);
        for text in ["", "!", "c25hcA==", "42"] {
            assert_eq!(parse_token("snap-0123456789abcdef0", text), None, "{text}");
        }
    }

    #[test]
    fn pages_have_their_bounds() {
        assert_eq!(page_size(None).unwrap(), 10_000);
        assert_eq!(page_size(Some(100)).unwrap(), 100);
        for wanted in [99, 10_001, 0, -1, i32::MIN] {
            assert_eq!(page_size(Some(wanted)).unwrap_err().code, "ValidationException", "{wanted}");
        }
    }
}
