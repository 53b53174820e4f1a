//! CopyVolumes: another volume that holds what one held at the moment of the call.
//!
//! ```text
//!   record, on no host yet ─▶ its source is frozen ─▶ on the source's host, made of what was frozen ─▶ that goes
//! ```
//!
//! What was frozen is a snapshot to the host alone: nobody is shown it, and it is never stored.

use super::{Condition, Volume, create, describe, multi_attach, specification};
use crate::Context;
use crate::encryption::{self, Asked, Encryption, Unnamed};
use crate::engine::Tx;
use crate::engine::tags::Specified;
use crate::snapshot::{DeleteBlocks, create as snapshots};
use crate::workflow::{self, Decision, Failure, Next, Steps, Work, World};
use agent_api::{HostError, NewSnapshot};
use async_trait::async_trait;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The index of the volumes that are copies of one.
pub(super) const SOURCE: &str = "source-volume-id";

/// What a volume is a copy of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copied {
    pub source: Id,
    /// What its source held, until it has it itself.
    pub template: Option<Id>,
}

pub async fn copy_volumes(
    context: &Context,
    input: ec2::CopyVolumesRequest,
) -> Result<ec2::CopyVolumesResult> {
    let source_id = Id::parse(Kind::Volume, input.source_volume_id.as_deref().unwrap_or_default())?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::Volume])?;
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return create::still_there(tx, made.concat());
            }
            let source =
                tx.get::<Volume>(&source_id).ok_or_else(|| Id::not_found(Kind::Volume, &source_id))?;
            source.check_usable()?;
            let size_gib = size(input.size, &source)?;
            let volume_type = input.volume_type.as_deref().unwrap_or(create::TYPE_DEFAULT);
            let (iops, throughput) =
                specification::performance(volume_type, size_gib, input.iops, input.throughput)?;
            let multi_attach = input.multi_attach_enabled == Some(true);
            multi_attach::check_made(multi_attach, volume_type)?;
            let before = source.encryption.as_ref();
            let encryption = encryption::choose(context, tx, &Asked::default(), before, Unnamed::Source)?;
            encryption.as_ref().map_or(Ok(()), Encryption::check)?;
            let template = tx.new_id(Kind::Snapshot);
            let (id, owner) = (tx.new_id(Kind::Volume), context.account().clone());
            let volume = Volume {
                volume_type: volume_type.into(),
                iops,
                throughput,
                multi_attach,
                copied: Some(Box::new(Copied {
                    source: source_id.clone(),
                    template: Some(template.clone()),
                })),
                encryption,
                tags: tags.of(Kind::Volume),
                ..Volume::new(id, owner, size_gib, source.zone.clone(), tx.now())
            };
            tx.create(&volume);
            // Written as it is, so that whoever deletes it at the same time must look again.
            tx.put(&*source);
            let work =
                CopyVolume { volume_id: volume.volume_id.clone(), source: source_id.clone(), template };
            workflow::begin(tx, Work::CopyVolume(work));
            idempotent.remember(tx, vec![volume.volume_id.to_string()]);
            Ok(volume.volume_id.to_string())
        })
        .await?;
    snapshots::until(context, |tables| {
        tables.volumes.find(&id).is_none_or(|volume| !volume.is_being_copied())
    })
    .await;
    let volume = context.region.view.record::<Volume>(&id).ok_or_else(|| Id::not_found(Kind::Volume, &id))?;
    Ok(ec2::CopyVolumesResult { volumes: vec![describe::to_api(context, &volume)] })
}

fn size(asked: Option<i32>, source: &Volume) -> Result<u32> {
    match asked.map(specification::size).transpose()? {
        None => Ok(source.size_gib),
        Some(size) if size < source.size_gib => Err(Error::invalid_parameter_value(format!(
            "The size of the volume, {size} GiB, is smaller than the size of the volume {}, {} GiB",
            source.volume_id, source.size_gib
        ))),
        Some(size) => Ok(size),
    }
}

impl Volume {
    /// Whether it is still to be decided what it holds.
    fn is_being_copied(&self) -> bool {
        self.condition == Condition::Creating && self.copied.is_some() && self.host_id.is_none()
    }
}

/// Whether a copy of the volume, but for these, is not taken yet. The transaction depends on it.
pub fn is_under_way(tx: &mut Tx<'_>, volume_id: &str, taken: &[NewSnapshot]) -> bool {
    let is_taken = |copy: &Volume| {
        let template = copy.copied.as_ref().and_then(|copied| copied.template.as_ref());
        taken.iter().any(|new| Some(&new.snapshot_id) == template)
    };
    let copies = tx.tables().volumes.with(SOURCE, volume_id);
    let copies = copies.filter(|copy| copy.is_being_copied() && !is_taken(copy));
    let copies: Vec<Id> = copies.map(|copy| copy.volume_id.clone()).collect();
    for copy in &copies {
        tx.get::<Volume>(copy);
    }
    !copies.is_empty()
}

/// How long to leave a host that is making the volume.
const PAUSE: Duration = Duration::from_millis(200);

/// Makes a copy that has its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyVolume {
    volume_id: Id,
    source: Id,
    template: Id,
}

#[async_trait]
impl Steps for CopyVolume {
    fn deadline(&self) -> Duration {
        Duration::from_secs(24 * 60 * 60)
    }

    fn subject(&self) -> &str {
        &self.volume_id
    }

    fn step(&self) -> &'static str {
        "copying a volume"
    }

    async fn act(&self, world: &World) -> Result<Decision, Failure> {
        let volume = world.region.view.record::<Volume>(&self.volume_id);
        match volume {
            Some(volume) if volume.is_being_copied() => {
                let new = NewSnapshot { snapshot_id: self.template.clone(), volume_id: self.source.clone() };
                snapshots::take(world, std::slice::from_ref(&new)).await?;
                let work = self.clone();
                Ok(Box::new(move |tx| {
                    work.taken(tx);
                    snapshots::let_volumes_go(tx, std::slice::from_ref(&new));
                    Ok(Next::Wait(Duration::ZERO))
                }))
            }
            Some(volume) if volume.condition == Condition::Creating => workflow::decide(Next::Wait(PAUSE)),
            _ => {
                let deleted = world.control.snapshots.delete(&self.template).await;
                deleted.map_err(|error| match error {
                    HostError::NotFound(message) | HostError::Failed(message) => Failure::Again(message),
                })?;
                let volume_id = self.volume_id.clone();
                Ok(Box::new(move |tx| {
                    // One that failed is never made of anything else.
                    if let Some(volume) = tx.get::<Volume>(&volume_id)
                        && volume.condition != Condition::Failed
                    {
                        let mut volume = (*volume).clone();
                        volume.copied.iter_mut().for_each(|copied| copied.template = None);
                        tx.put(&volume);
                    }
                    Ok(Next::Done)
                }))
            }
        }
    }

    fn undo(&self, tx: &mut Tx<'_>, _: &str) -> Result<()> {
        if let Some(volume) = tx.get::<Volume>(&self.volume_id)
            && volume.condition == Condition::Creating
        {
            tx.put(&Volume { condition: Condition::Failed, ..(*volume).clone() });
        }
        workflow::begin(tx, Work::DeleteBlocks(DeleteBlocks { snapshot_id: self.template.clone() }));
        let taken = NewSnapshot { snapshot_id: self.template.clone(), volume_id: self.source.clone() };
        snapshots::let_volumes_go(tx, &[taken]);
        Ok(())
    }
}

impl CopyVolume {
    /// From now on the volume's host makes it: its source's.
    fn taken(&self, tx: &mut Tx<'_>) {
        let host_id = tx.get::<Volume>(&self.source).and_then(|source| source.host_id.clone());
        if let Some(volume) = tx.get::<Volume>(&self.volume_id) {
            let condition = if host_id.is_none() { Condition::Failed } else { volume.condition };
            tx.put(&Volume { host_id, condition, ..(*volume).clone() });
        }
    }
}
