//! CreateReplaceRootVolumeTask: the new volume is made beside the guest, which then boots from it.
//!
//! ```text
//!   pending: the new volume is made ──▶ in progress: held, its guest shuts down ──▶ volumes change places,
//!                                                                                   its guest boots: succeeded
//! ```
//!
//! Until the volumes change places, whatever goes wrong leaves the instance with the root volume that it had.

use super::{INSTANCE_ID, ReplaceRootVolumeTask, TaskState, to_api};
use crate::Context;
use crate::encryption::{self, Asked, Unnamed};
use crate::engine::tags::Specified;
use crate::engine::{Tables, Tags, Tx};
use crate::image::{self, Image};
use crate::instance::{Hold, Instance, lifecycle, run};
use crate::snapshot::{self, Snapshot, fast_restore};
use crate::volume::{self, Condition, Volume, specification};
use crate::workflow::{self, Decision, Failure, Next, Steps, Work, World};
use async_trait::async_trait;
use aws_api::ec2;
use model::{Error, Id, InstanceState, Kind, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// A volume of any size is made in less, and a guest that does not shut down is ended in less.
const DEADLINE: Duration = Duration::from_secs(60 * 60);
const LOOK_PAUSE: Duration = Duration::from_millis(200);

pub async fn create_replace_root_volume_task(
    context: &Context,
    input: ec2::CreateReplaceRootVolumeTaskRequest,
) -> Result<ec2::CreateReplaceRootVolumeTaskResult> {
    let rate = input.volume_initialization_rate.map(|rate| i32::try_from(rate).unwrap_or(i32::MAX));
    let initialization_rate = specification::initialization_rate(rate)?;
    let instance_id = Id::parse(Kind::Instance, input.instance_id.as_deref().unwrap_or_default())?;
    if input.snapshot_id.is_some() && input.image_id.is_some() {
        return Err(Error::invalid_parameter_combination(
            "The parameters snapshotId and imageId cannot be used together",
        ));
    }
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::ReplaceRootVolumeTask])?;
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let before = tx
                .get::<Instance>(&instance_id)
                .ok_or_else(|| Id::not_found(Kind::Instance, &instance_id))?;
            check(tx.tables(), &before)?;
            // Written, so that of two calls at the same time the other looks again.
            tx.put(&Instance { request_id: tx.request_id().map(Into::into), ..(*before).clone() });
            let root = root_of(tx, &before)?;
            let launch_snapshot_id = launch_snapshot(tx.tables(), &before, &root);
            let source = source(context, tx, &input, &before, &root, &launch_snapshot_id)?;
            let source = source.as_deref();
            let before = source.and_then(|source| source.encryption.as_ref()).or(root.encryption.as_ref());
            let encryption = encryption::choose(context, tx, &Asked::default(), before, Unnamed::Source)?;
            let volume = Volume { encryption, initialization_rate, ..volume_like(tx, &root, source) };
            let task = ReplaceRootVolumeTask {
                task_id: tx.new_id(Kind::ReplaceRootVolumeTask),
                instance_id: instance_id.clone(),
                state: TaskState::Pending,
                snapshot_id: volume.snapshot_id.clone(),
                image_id: input.image_id.as_deref().map(|id| Id::parse(Kind::Image, id)).transpose()?,
                replaced_volume_id: root.volume_id.clone(),
                launch_snapshot_id,
                delete_replaced: input.delete_replaced_root_volume.unwrap_or(false),
                started_at: tx.now(),
                completed_at: None,
                tags: tags.of(Kind::ReplaceRootVolumeTask),
            };
            tx.create(&volume);
            tx.create(&task);
            let work = ReplaceRootVolume {
                task_id: task.task_id.clone(),
                instance_id: instance_id.clone(),
                volume_id: volume.volume_id,
                is_made: false,
            };
            workflow::begin(tx, Work::ReplaceRootVolume(work));
            idempotent.remember(tx, vec![task.task_id.to_string()]);
            Ok(task.task_id.to_string())
        })
        .await?;
    let task = context.region.view.record::<ReplaceRootVolumeTask>(&id);
    let task = task.ok_or_else(|| Id::not_found(Kind::ReplaceRootVolumeTask, &id))?;
    Ok(ec2::CreateReplaceRootVolumeTaskResult { replace_root_volume_task: Some(to_api(&task)) })
}

fn check(tables: &Tables, instance: &Instance) -> Result<()> {
    let instance_id = &instance.instance_id;
    if instance.state != InstanceState::Running || instance.hold.is_some() {
        return Err(Error::new(
            "IncorrectInstanceState",
            format!("The instance '{instance_id}' is not in the 'running' state."),
        ));
    }
    let is_over =
        |task: &ReplaceRootVolumeTask| matches!(task.state, TaskState::Succeeded | TaskState::Failed);
    if tables.replace_root_volume_tasks.with(INSTANCE_ID, instance_id).any(|task| !is_over(task)) {
        return Err(Error::new(
            "IncorrectState",
            format!("The root volume of the instance '{instance_id}' is being replaced already."),
        ));
    }
    Ok(())
}

fn root_of(tx: &mut Tx<'_>, instance: &Instance) -> Result<Arc<Volume>> {
    let root = instance.disks.iter().find(|disk| disk.device_name == instance.root_device_name);
    root.and_then(|disk| tx.get::<Volume>(&disk.volume_id)).ok_or_else(|| {
        Error::new(
            "IncorrectState",
            format!("The instance '{}' has no root volume to replace.", instance.instance_id),
        )
    })
}

/// What the root volume was made of at launch.
fn launch_snapshot(tables: &Tables, instance: &Instance, root: &Volume) -> Option<Id> {
    let tasks = tables.replace_root_volume_tasks.with(INSTANCE_ID, &instance.instance_id);
    match tasks.min_by_key(|task| task.started_at) {
        Some(first) => first.launch_snapshot_id.clone(),
        None => root.snapshot_id.clone(),
    }
}

/// The snapshot to make the new volume of; none where images have none, as simulated ones.
fn source(
    context: &Context,
    tx: &mut Tx<'_>,
    input: &ec2::CreateReplaceRootVolumeTaskRequest,
    instance: &Instance,
    root: &Volume,
    launch_snapshot_id: &Option<Id>,
) -> Result<Option<Arc<Snapshot>>> {
    let id = match (input.snapshot_id.as_deref(), input.image_id.as_deref()) {
        (Some(id), _) => Some(Id::parse(Kind::Snapshot, id)?),
        (None, Some(id)) => {
            let image = image::seen(tx.tables(), context.account(), id, tx.now())?;
            check_image(&image, instance)?;
            image.root().and_then(|root| root.snapshot_id.clone())
        }
        (None, None) => launch_snapshot_id.clone(),
    };
    let Some(id) = id else { return Ok(None) };
    let snapshot = snapshot::to_make_volumes_of(tx.tables(), &id)?;
    // Depended upon: whoever deletes it at the same time is seen.
    tx.get::<Snapshot>(&id);
    if input.snapshot_id.is_some() && launch_snapshot_id.as_ref() != Some(&id) {
        check_lineage(tx.tables(), &snapshot, instance, root)?;
    }
    Ok(Some(snapshot))
}

/// An image that the machine boots as it is.
fn check_image(image: &Image, instance: &Instance) -> Result<()> {
    image.check_available()?;
    let differs = if image.architecture != instance.architecture {
        "architecture"
    } else if run::boot_mode(image) != instance.boot_mode {
        "boot mode"
    } else if image.tpm != instance.tpm {
        "TPM support"
    } else if image.disk_bus()? != instance.disk_bus {
        "disk drivers"
    } else {
        return Ok(());
    };
    Err(Error::invalid_parameter_value(format!(
        "The image '{}' must have the same {differs} as the instance '{}'.",
        image.image_id, instance.instance_id
    )))
}

/// The snapshot must be one of a root volume of the instance.
fn check_lineage(tables: &Tables, snapshot: &Snapshot, instance: &Instance, root: &Volume) -> Result<()> {
    let mut tasks = tables.replace_root_volume_tasks.with(INSTANCE_ID, &instance.instance_id);
    let is_of = |volume_id: &Id| snapshot.volume_id.as_ref() == Some(volume_id);
    if is_of(&root.volume_id) || tasks.any(|task| is_of(&task.replaced_volume_id)) {
        return Ok(());
    }
    Err(Error::invalid_parameter_value(format!(
        "The snapshot '{}' is not one of a root volume of the instance '{}'.",
        snapshot.snapshot_id, instance.instance_id
    )))
}

/// A volume as the root volume is, on its host.
fn volume_like(tx: &Tx<'_>, root: &Volume, source: Option<&Snapshot>) -> Volume {
    Volume {
        volume_id: tx.new_id(Kind::Volume),
        size_gib: source.map_or(root.size_gib, |snapshot| snapshot.size_gib.max(root.size_gib)),
        snapshot_id: source.map(|snapshot| snapshot.snapshot_id.clone()),
        copied: None,
        fast_restored: source
            .is_some_and(|snapshot| fast_restore::is_enabled(tx.tables(), &snapshot.snapshot_id, &root.zone)),
        created_at: tx.now(),
        condition: Condition::Creating,
        lost: false,
        attachments: Default::default(),
        modification: None,
        tags: Tags::default(),
        ..root.clone()
    }
}

/// Replaces a root volume by one that has its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplaceRootVolume {
    task_id: Id,
    instance_id: Id,
    /// The new one.
    volume_id: Id,
    /// Whether it is: from then on the guest is held down.
    is_made: bool,
}

#[async_trait]
impl Steps for ReplaceRootVolume {
    fn deadline(&self) -> Duration {
        DEADLINE
    }

    fn subject(&self) -> &str {
        &self.task_id
    }

    fn step(&self) -> &'static str {
        if self.is_made { "shutting the guest down" } else { "making the new root volume" }
    }

    async fn act(&self, world: &World) -> Result<Decision, Failure> {
        let work = self.clone();
        if !self.is_made {
            let volume = world.region.view.record::<Volume>(&self.volume_id);
            return match volume.map(|volume| volume.condition) {
                Some(Condition::Creating) => workflow::decide(Next::Wait(LOOK_PAUSE)),
                Some(Condition::Made) => Ok(Box::new(move |tx| work.hold(tx))),
                Some(Condition::Failed | Condition::Deleting) | None => {
                    Err(Failure::Never("The new root volume could not be made".into()))
                }
            };
        }
        let instance = world.region.view.record::<Instance>(&self.instance_id);
        if instance.is_some_and(|instance| instance.hold == Some(Hold::Asked)) {
            return workflow::decide(Next::Wait(LOOK_PAUSE));
        }
        Ok(Box::new(move |tx| work.change_places(tx)))
    }

    fn undo(&self, tx: &mut Tx<'_>, reason: &str) -> Result<()> {
        tracing::warn!(task_id = %self.task_id, reason, "a root volume was not replaced");
        self.end(tx, TaskState::Failed);
        if let Some(volume) = tx.get::<Volume>(&self.volume_id)
            && volume.attachments.is_empty()
        {
            volume::create::delete(tx, &volume);
        }
        if self.is_made {
            lifecycle::let_guest_up(tx, &self.instance_id);
        }
        Ok(())
    }
}

impl ReplaceRootVolume {
    /// Asks for the guest to be shut down.
    fn hold(&self, tx: &mut Tx<'_>) -> Result<Next> {
        let running =
            tx.get::<Instance>(&self.instance_id).filter(|instance| instance.state == InstanceState::Running);
        let Some(instance) = running else { return self.fail(tx) };
        if instance.hold.is_some() {
            // An image is made of it.
            return Ok(Next::Wait(LOOK_PAUSE));
        }
        tx.put(&Instance { hold: Some(Hold::Asked), ..(*instance).clone() });
        if let Some(task) = tx.get::<ReplaceRootVolumeTask>(&self.task_id) {
            tx.put(&ReplaceRootVolumeTask { state: TaskState::InProgress, ..(*task).clone() });
        }
        Ok(Next::Step(Work::ReplaceRootVolume(ReplaceRootVolume { is_made: true, ..self.clone() })))
    }

    /// Gives the instance, whose guest is down, the new volume in the old one's place.
    fn change_places(&self, tx: &mut Tx<'_>) -> Result<Next> {
        let task = tx.get::<ReplaceRootVolumeTask>(&self.task_id);
        let held = tx.get::<Instance>(&self.instance_id);
        let held = held
            .filter(|instance| instance.state == InstanceState::Running && instance.hold == Some(Hold::Down));
        let new = tx.get::<Volume>(&self.volume_id).filter(|volume| volume.attachments.is_empty());
        // Started again meanwhile, the instance may be on another host.
        let new = new.filter(|volume| {
            held.as_ref().is_some_and(|held| volume.host_id.as_ref() == Some(&held.placement.host_id))
        });
        let old = task.as_ref().and_then(|task| tx.get::<Volume>(&task.replaced_volume_id));
        let (Some(task), Some(held), Some(new), Some(old)) = (task, held, new, old) else {
            return self.fail(tx);
        };
        let mut instance = (*held).clone();
        let disk = instance.disks.iter_mut().find(|disk| disk.volume_id == old.volume_id);
        let attachment = old.attachment_to(&self.instance_id).cloned();
        let (Some(disk), Some(attachment)) = (disk, attachment) else { return self.fail(tx) };
        disk.volume_id = new.volume_id.clone();
        tx.put(&instance);
        lifecycle::let_guest_up(tx, &self.instance_id);
        let attachment = volume::VolumeAttachment { attached_at: tx.now(), ..attachment };
        tx.put(&Volume { attachments: smallvec::smallvec![attachment], ..(*new).clone() });
        match task.delete_replaced {
            true => volume::create::delete(tx, &old),
            false => tx.put(&old.detached_from(&self.instance_id)),
        }
        self.end(tx, TaskState::Succeeded);
        Ok(Next::Done)
    }

    fn fail(&self, tx: &mut Tx<'_>) -> Result<Next> {
        self.undo(tx, "The instance or its volumes were changed meanwhile")?;
        Ok(Next::Done)
    }

    fn end(&self, tx: &mut Tx<'_>, state: TaskState) {
        if let Some(task) = tx.get::<ReplaceRootVolumeTask>(&self.task_id) {
            tx.put(&ReplaceRootVolumeTask { state, completed_at: Some(tx.now()), ..(*task).clone() });
        }
    }
}
