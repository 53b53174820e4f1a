//! StartSnapshot, PutSnapshotBlock, CompleteSnapshot.

use super::{CHECKSUM_ALGORITHM, block_index, checksum, failed, find, invalid, not_found, sha256};
use crate::Context;
use crate::encryption::{self, Asked, Encryption, Unnamed};
use crate::engine::{Tags, Tx};
use crate::snapshot::{Snapshot, SnapshotState, create, store};
use agent_api::BLOCK_BYTES;
use aws_api::{ebs, ec2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Error, Id, Kind, Result, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

const SIZE_GIB_MAX: i64 = 65_536;
const DESCRIPTION_LEN_MAX: usize = 255;
/// Where StartSnapshot says none (EBS direct APIs Reference, StartSnapshot).
const TIMEOUT_MINUTES: u16 = 60;
/// A block is not noted that follows another so soon: many come in a second.
const NOTED_AFTER: Duration = Duration::from_secs(60);

/// For how long an upload may rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    timeout_minutes: u16,
    /// The last block came then, or less than a minute later.
    written_at: Timestamp,
    /// How much is there, as who uploads says.
    #[serde(default)]
    pub percent: u8,
}

impl Upload {
    /// Whether it has rested for too long.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        let rest = Duration::from_secs(60 * u64::from(self.timeout_minutes)) + NOTED_AFTER;
        now > self.written_at && now.duration_since(self.written_at).unsigned_abs() > rest
    }
}

/// Ends the upload of a snapshot that has rested for too long.
pub fn overdue(tx: &mut Tx<'_>, id: &str) {
    let (now, snapshot) = (tx.now(), tx.get::<Snapshot>(id));
    let rests = |snapshot: &Snapshot| snapshot.upload.is_some_and(|upload| upload.is_overdue(now));
    if let Some(snapshot) = snapshot.filter(|snapshot| rests(snapshot)) {
        create::fail(tx, &snapshot.snapshot_id, "The snapshot was not completed in time");
    }
}

pub async fn start_snapshot(
    context: &Context,
    input: ebs::StartSnapshotRequest,
) -> Result<ebs::StartSnapshotResponse> {
    let size_gib = input.volume_size.unwrap_or(0);
    if !(1..=SIZE_GIB_MAX).contains(&size_gib) {
        return Err(invalid(format!("VolumeSize must be between 1 and {SIZE_GIB_MAX} GiB.")));
    }
    let encrypted = Asked::of(input.encrypted, &input.kms_key_arn).map_err(in_ebs_words)?;
    if input.parent_snapshot_id.is_some() {
        return Err(invalid(
            "Incremental uploads are not supported by this cloud: leave ParentSnapshotId out.",
        ));
    }
    let description = input.description.clone().unwrap_or_default();
    if description.chars().count() > DESCRIPTION_LEN_MAX {
        return Err(invalid(format!("The description is longer than {DESCRIPTION_LEN_MAX} characters.")));
    }
    let tags = tags(&input.tags)?;
    let idempotent = context.idempotent().map_err(in_ebs_words)?;
    let id = context
        .transact(|tx| {
            if let Some(id) = idempotent.made_before(tx)?.and_then(|made| made.into_iter().next()) {
                return Id::parse(Kind::Snapshot, &id);
            }
            let encryption = encryption::choose(context, tx, &encrypted, None, Unnamed::Default)?;
            encryption.as_ref().map_or(Ok(()), Encryption::check)?;
            let snapshot = Snapshot {
                state_message: None,
                stored_percent: None,
                upload: Some(Upload {
                    // Within its bounds: the model says them.
                    timeout_minutes: input.timeout.map_or(TIMEOUT_MINUTES, |minutes| minutes as u16),
                    written_at: tx.now(),
                    percent: 0,
                }),
                encryption,
                public: false,
                create_volume_permissions: Vec::new(),
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
        .await
        .map_err(in_ebs_words)?;
    let snapshot = context.region.view.record::<Snapshot>(&id).ok_or_else(|| not_found(&id))?;
    // After the record: what has no record would be left over. Beginning twice is no error.
    let key = encryption::tell(context, &context.region, &snapshot).await?;
    context.snapshots.begin(&id, snapshot.size_gib, key.as_ref()).await.map_err(failed)?;
    Ok(ebs::StartSnapshotResponse {
        snapshot_id: Some(id.to_string()),
        owner_id: Some(snapshot.owner.to_string()),
        status: Some(snapshot.state.name().into()),
        start_time: Some(snapshot.started_at),
        volume_size: Some(i64::from(snapshot.size_gib)),
        block_size: Some(BLOCK_BYTES as i32),
        description: Some(snapshot.description.clone()),
        kms_key_arn: snapshot.encryption.as_ref().map(|encryption| encryption.kms_key_id.to_string()),
        tags: input.tags,
        ..Default::default()
    })
}

fn tags(tags: &[ebs::Tag]) -> Result<Tags> {
    let tags: Vec<ec2::Tag> =
        tags.iter().map(|tag| ec2::Tag { key: tag.key.clone(), value: tag.value.clone() }).collect();
    Tags::from_api(&tags).map_err(in_ebs_words)
}

/// What the shared mechanisms refuse with EC2's codes.
fn in_ebs_words(error: Error) -> Error {
    match error.code.as_ref() {
        "IdempotentParameterMismatch" => Error::new("ConflictException", error.message).with_status(409),
        "InvalidParameterValue" | "InvalidParameterDependency" | "TagLimitExceeded" => invalid(error.message),
        _ => error,
    }
}

/// A snapshot that a caller may write: pending, and not one that a volume's host writes.
async fn find_writable(context: &Context, id: Option<&str>) -> Result<Arc<Snapshot>> {
    let snapshot = find(context, id).await?;
    if snapshot.state != SnapshotState::Pending || snapshot.volume_id.is_some() {
        return Err(invalid(format!("The snapshot '{}' cannot be written to.", snapshot.snapshot_id)));
    }
    Ok(snapshot)
}

pub async fn put_snapshot_block(
    context: &Context,
    input: ebs::PutSnapshotBlockRequest,
) -> Result<ebs::PutSnapshotBlockResponse> {
    let snapshot = find_writable(context, input.snapshot_id.as_deref()).await?;
    let index = block_index(&snapshot, input.block_index)?;
    let data = input.block_data.unwrap_or_default();
    if data.len() != BLOCK_BYTES || input.data_length != Some(BLOCK_BYTES as i32) {
        return Err(invalid(format!("A block has {BLOCK_BYTES} bytes, not {}.", data.len())));
    }
    let sum = checksum(&data);
    if input.checksum.as_deref() != Some(&sum) {
        return Err(invalid("The checksum does not match the block's data."));
    }
    context.snapshots.put_block(&snapshot.snapshot_id, index, &data).await.map_err(failed)?;
    // Within its bounds, too.
    note(context, &snapshot, input.progress.map(|percent| percent as u8)).await?;
    Ok(ebs::PutSnapshotBlockResponse {
        checksum: Some(sum),
        checksum_algorithm: Some(CHECKSUM_ALGORITHM.into()),
    })
}

/// That a block has come, and how much is there now.
async fn note(context: &Context, snapshot: &Snapshot, percent: Option<u8>) -> Result<()> {
    let now = context.environment.clock.now();
    let is_noted = |upload: Upload| {
        now.duration_since(upload.written_at).unsigned_abs() < NOTED_AFTER
            && percent.is_none_or(|percent| percent == upload.percent)
    };
    if snapshot.upload.is_none_or(is_noted) {
        return Ok(());
    }
    context
        .transact(|tx| {
            let snapshot = tx.get::<Snapshot>(&snapshot.snapshot_id);
            if let Some((snapshot, upload)) =
                snapshot.and_then(|snapshot| Some((snapshot.clone(), snapshot.upload?)))
            {
                let percent = percent.unwrap_or(upload.percent);
                let upload = Some(Upload { written_at: tx.now(), percent, ..upload });
                tx.put(&Snapshot { upload, ..(*snapshot).clone() });
            }
            Ok(())
        })
        .await
}

pub async fn complete_snapshot(
    context: &Context,
    input: ebs::CompleteSnapshotRequest,
) -> Result<ebs::CompleteSnapshotResponse> {
    let answer = |state: SnapshotState| ebs::CompleteSnapshotResponse { status: Some(state.name().into()) };
    if find(context, input.snapshot_id.as_deref()).await?.is_completed() {
        return Ok(answer(SnapshotState::Completed));
    }
    let id = find_writable(context, input.snapshot_id.as_deref()).await?.snapshot_id.clone();
    let blocks = context.snapshots.list_blocks(&id, 0, usize::MAX).await.map_err(failed)?;
    if input.changed_blocks_count.map(|count| count as usize) != Some(blocks.len()) {
        let said = input.changed_blocks_count.unwrap_or_default();
        return Err(invalid(format!("ChangedBlocksCount is {said}, but {} blocks were put.", blocks.len())));
    }
    if let Some(checksum) = &input.checksum
        && *checksum != aggregated(context, &id, &blocks).await?
    {
        return Err(invalid("The checksum does not match the snapshot's data."));
    }
    context.snapshots.complete(&id).await.map_err(failed)?;
    if !store::at_once(&*context.snapshots, &id).await.map_err(failed)? {
        let begin = |tx: &mut Tx<'_>| {
            if let Some(snapshot) = tx.get::<Snapshot>(&id) {
                tx.put(&Snapshot { upload: None, ..(*snapshot).clone() });
            }
            store::begin(tx, vec![id.clone()], None);
            Ok(())
        };
        context.transact(begin).await?;
        return Ok(answer(SnapshotState::Pending));
    }
    context.transact(|tx| complete(tx, &id)).await?;
    Ok(answer(SnapshotState::Completed))
}

/// The linear aggregation: a hash over the blocks' hashes in the order of their indexes. The blocks are read again,
/// so that it speaks of what is kept.
async fn aggregated(context: &Context, id: &Id, blocks: &[u32]) -> Result<String> {
    let mut hasher = Sha256::new();
    for index in blocks {
        let data = context.snapshots.get_block(id, *index).await.map_err(failed)?.unwrap_or_default();
        hasher.update(sha256(&data));
    }
    Ok(STANDARD.encode(hasher.finalize()))
}

fn complete(tx: &mut Tx<'_>, id: &Id) -> Result<()> {
    let snapshot = tx.get::<Snapshot>(id).ok_or_else(|| not_found(id))?;
    if !snapshot.is_completed() {
        let completed_at = Some(tx.now());
        let state = SnapshotState::Completed;
        tx.put(&Snapshot { state, completed_at, upload: None, ..(*snapshot).clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_may_rest_for_as_long_as_it_was_begun_with() {
        let at = |minutes: i64| Timestamp::from_second(minutes * 60).unwrap();
        let upload = Upload { timeout_minutes: 10, written_at: at(100), percent: 0 };
        for minutes in [90, 100, 110, 111] {
            assert!(!upload.is_overdue(at(minutes)), "{minutes}");
        }
        assert!(upload.is_overdue(at(112)));
    }
}
