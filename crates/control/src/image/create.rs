//! CreateImage: snapshots of an instance's volumes, of one moment, and the image that is made of them.
//!
//! ```text
//!   running ──▶ held: its guest shuts down ──▶ snapshots ──▶ its guest boots again
//!   stopped, or NoReboot ─────────────────────▶ snapshots
//! ```

use super::ancestry::Ancestor;
use super::protection::Protection;
use super::register::{check_devices, check_name, device, record};
use super::{Condition, Image, ImageBlockDevice};
use crate::Context;
use crate::block_device;
use crate::description;
use crate::engine::Tx;
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::instance::{Hold, Instance, boot_mode_name, lifecycle, uefi_data};
use crate::snapshot::{self, Snapshot, create};
use crate::volume::{Volume, specification};
use crate::workflow::{self, Decision, Failure, Next, Steps, Work, World};
use agent_api::NewSnapshot;
use async_trait::async_trait;
use aws_api::ec2;
use model::{Error, Id, InstanceState, Kind, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);
/// How often to look whether a guest is down.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

pub async fn create_image(
    context: &Context,
    input: ec2::CreateImageRequest,
) -> Result<ec2::CreateImageResult> {
    let instance_id = Id::parse(Kind::Instance, input.instance_id.as_deref().unwrap_or_default())?;
    let name = input.name.as_deref().ok_or_else(|| Error::missing_parameter("Name"))?;
    check_name(name)?;
    let description = input.description.as_deref().unwrap_or_default();
    description::check(description)?;
    refuse([(create::is_local(input.snapshot_location.as_deref()), create::LOCAL_SNAPSHOTS)])?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::Image, Kind::Snapshot])?;
    let reboots = !input.no_reboot.unwrap_or(false);
    let work = context
        .transact(|tx| {
            let before = tx
                .get::<Instance>(&instance_id)
                .ok_or_else(|| Id::not_found(Kind::Instance, &instance_id))?;
            check_instance(&before)?;
            let mut image = image_of(tx, &before, name, description, &tags);
            let snapshots = add_devices(tx, &mut image, &before, &input.block_device_mappings, &tags)?;
            check_devices(&image, false)?;
            record(tx, &image)?;
            let holds = reboots && before.state == InstanceState::Running;
            if holds {
                tx.put(&Instance {
                    hold: Some(Hold::Asked),
                    request_id: tx.request_id().map(Into::into),
                    ..(*before).clone()
                });
            }
            let work = CreateImage {
                image_id: image.image_id.clone(),
                instance_id: instance_id.clone(),
                snapshots,
                holds,
                is_down: !holds && before.state != InstanceState::Stopping,
            };
            workflow::begin(tx, Work::CreateImage(work.clone()));
            Ok(work)
        })
        .await?;
    if work.is_down {
        create::taken(context, work.snapshots.iter().map(|new| &new.snapshot_id)).await;
    }
    Ok(ec2::CreateImageResult { image_id: Some(work.image_id.to_string()) })
}

fn check_instance(instance: &Instance) -> Result<()> {
    if !matches!(instance.state, InstanceState::Running | InstanceState::Stopping | InstanceState::Stopped) {
        return Err(Error::invalid_parameter_value(format!(
            "Invalid value '{}' for instanceId. Instance is not in state 'running' or 'stopping' or 'stopped'",
            instance.instance_id
        )));
    }
    if instance.hold.is_some() {
        return Err(Error::new(
            "IncorrectInstanceState",
            format!("An image of the instance '{}' is being made already.", instance.instance_id),
        ));
    }
    Ok(())
}

/// Without its devices.
fn image_of(tx: &mut Tx<'_>, instance: &Instance, name: &str, description: &str, tags: &Specified) -> Image {
    let source = tx.tables().images.find(&instance.image_id).cloned();
    Image {
        image_id: tx.new_id(Kind::Image),
        owner: instance.owner.clone(),
        owner_alias: None,
        name: name.to_owned(),
        description: description.to_owned(),
        architecture: instance.architecture,
        // What it was launched with, where the image that said so is gone.
        boot_mode: match &source {
            Some(source) => source.boot_mode.clone(),
            None => Some(boot_mode_name(instance.boot_mode).to_owned()),
        },
        root_device_name: instance.root_device_name.to_string(),
        block_devices: Vec::new(),
        ena_support: instance.ena_support,
        sriov_net_support: source.as_ref().and_then(|source| source.sriov_net_support.clone()),
        imds_support: source.as_ref().and_then(|source| source.imds_support.clone()),
        tpm: instance.tpm,
        uefi_data: None,
        platform_details: instance.platform_details.to_string(),
        created_at: tx.now(),
        deprecated_at: None,
        disabled: false,
        condition: Condition::Pending,
        source_instance_id: Some(instance.instance_id.clone()),
        ancestors: match &source {
            Some(source) => source.with_ancestors(tx.region()),
            None => vec![Ancestor::gone(&instance.image_id, tx.region())],
        },
        protection: Protection::Disabled,
        last_launched_at: None,
        public: false,
        launch_permissions: Vec::new(),
        tags: tags.of(Kind::Image),
    }
}

/// The instance's volumes and what the request makes of them, with the records of the snapshots to be taken.
fn add_devices(
    tx: &mut Tx<'_>,
    image: &mut Image,
    instance: &Instance,
    mappings: &[ec2::BlockDeviceMapping],
    tags: &Specified,
) -> Result<Vec<NewSnapshot>> {
    let mut snapshots = Vec::new();
    let named = |device_name: &str| {
        mappings.iter().find(|mapping| mapping.device_name.as_deref() == Some(device_name))
    };
    for disk in &instance.disks {
        let mapping = named(&disk.device_name);
        if mapping.is_some_and(|mapping| mapping.no_device.is_some()) {
            continue;
        }
        let volume =
            tx.get::<Volume>(&disk.volume_id).ok_or_else(|| Id::not_found(Kind::Volume, &disk.volume_id))?;
        if let Some(ebs) = mapping.and_then(|mapping| mapping.ebs.as_ref()) {
            check_unchanged(&disk.device_name, &volume, ebs)?;
        }
        let description = format!("Created by CreateImage({}) for {}", instance.instance_id, image.image_id);
        let snapshot = create::make(tx, &volume, &description, tags.of(Kind::Snapshot))?;
        let asked = mapping.and_then(|mapping| mapping.ebs.as_ref()?.delete_on_termination);
        let attachment = volume.attachment_to(&instance.instance_id);
        let attached = attachment.is_some_and(|attachment| attachment.delete_on_termination);
        image.block_devices.push(ImageBlockDevice {
            device_name: disk.device_name.to_string(),
            snapshot_id: Some(snapshot.snapshot_id.clone()),
            size_gib: Some(volume.size_gib),
            volume_type: volume.volume_type.to_string(),
            iops: specification::provisioned(&volume.volume_type, volume.iops),
            throughput: volume.throughput,
            delete_on_termination: asked.unwrap_or(attached),
            encrypted: volume.encryption.is_some(),
            virtual_name: None,
        });
        let volume_id = volume.volume_id.clone();
        snapshots.push(NewSnapshot { snapshot_id: snapshot.snapshot_id, volume_id });
    }
    let has = |name: &str| instance.disks.iter().any(|disk| disk.device_name == name);
    for mapping in mappings.iter().filter(|mapping| mapping.no_device.is_none()) {
        if mapping.device_name.as_deref().is_some_and(has) {
            continue;
        }
        let of = mapping.ebs.as_ref().and_then(|ebs| ebs.snapshot_id.as_deref());
        let of = of.map(|id| snapshot::to_make_volumes_of(tx.tables(), id)).transpose()?;
        if let Some(snapshot) = of.as_deref().and_then(|of| tx.get::<Snapshot>(&of.snapshot_id)) {
            // As RegisterImage: whoever deletes it at the same time must look again.
            tx.put(&*snapshot);
        }
        image.block_devices.push(device(mapping, of.as_deref())?);
    }
    Ok(snapshots)
}

/// All that a request may change of a volume that the instance has is whether it goes with its instance (EC2 API
/// Reference, CreateImage).
fn check_unchanged(device_name: &str, volume: &Volume, ebs: &ec2::EbsBlockDevice) -> Result<()> {
    block_device::refuse_what_is_not_there(ebs)?;
    let differs = |asked: Option<i32>, has: Option<i32>| asked.is_some() && asked != has;
    let changed = [
        ("volume size", differs(ebs.volume_size, i32::try_from(volume.size_gib).ok())),
        ("volume type", ebs.volume_type.as_deref().is_some_and(|asked| asked != volume.volume_type)),
        ("IOPS", differs(ebs.iops, volume.iops)),
        ("throughput", differs(ebs.throughput, volume.throughput)),
        ("encryption", ebs.encrypted.is_some_and(|asked| asked != volume.encryption.is_some())),
        ("key", given(&ebs.kms_key_id)),
        ("snapshot", given(&ebs.snapshot_id) && ebs.snapshot_id.as_deref() != volume.snapshot_id.as_deref()),
        ("initialization rate", ebs.volume_initialization_rate.is_some()),
    ];
    match changed.into_iter().find(|(_, is_changed)| *is_changed) {
        Some((what, _)) => Err(Error::new(
            "InvalidBlockDeviceMapping",
            format!("The {what} of the volume at {device_name} can't be changed in an image of its instance"),
        )),
        None => Ok(()),
    }
}

/// Makes an image that has its records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateImage {
    image_id: Id,
    instance_id: Id,
    /// Empty where every volume is left out.
    snapshots: Vec<NewSnapshot>,
    /// Whether the guest is held down meanwhile.
    holds: bool,
    is_down: bool,
}

#[async_trait]
impl Steps for CreateImage {
    fn deadline(&self) -> Duration {
        DEADLINE
    }

    fn subject(&self) -> &str {
        &self.image_id
    }

    fn step(&self) -> &'static str {
        if self.is_down { "taking snapshots" } else { "shutting the guest down" }
    }

    async fn act(&self, world: &World) -> Result<Decision, Failure> {
        if !self.is_down {
            let instance = world.region.view.record::<Instance>(&self.instance_id);
            // However it came to be down, or somebody else ended it.
            let is_down = instance.is_none_or(|instance| {
                instance.hold != Some(Hold::Asked) && instance.state != InstanceState::Stopping
            });
            return workflow::decide(match is_down {
                true => Next::Step(Work::CreateImage(CreateImage { is_down: true, ..self.clone() })),
                false => Next::Wait(LOOK_PAUSE),
            });
        }
        if !self.snapshots.is_empty() {
            create::take(world, &self.snapshots).await?;
        }
        let (work, uefi_data) = (self.clone(), self.uefi_data(world).await?);
        Ok(Box::new(move |tx| {
            if let Some(image) = tx.get::<Image>(&work.image_id) {
                let is_whole = work.snapshots.is_empty();
                let condition = if is_whole { Condition::Available } else { image.condition.clone() };
                tx.put(&Image { condition, uefi_data: uefi_data.clone(), ..(*image).clone() });
            }
            if !work.snapshots.is_empty() {
                create::have_stored(tx, &work.snapshots, Some(work.image_id.clone()));
            }
            work.let_go(tx);
            Ok(Next::Done)
        }))
    }

    fn undo(&self, tx: &mut Tx<'_>, reason: &str) -> Result<()> {
        create::failed(tx, &self.snapshots, reason);
        if let Some(image) = tx.get::<Image>(&self.image_id) {
            let condition = Condition::Failed { message: reason.to_owned() };
            tx.put(&Image { condition, ..(*image).clone() });
        }
        self.let_go(tx);
        Ok(())
    }
}

impl CreateImage {
    /// What the firmware keeps; an instance that is gone meanwhile has nothing to add.
    async fn uefi_data(&self, world: &World) -> Result<Option<String>, Failure> {
        match world.region.view.record::<Instance>(&self.instance_id) {
            Some(instance) => {
                let data = uefi_data::of(&world.region, &instance).await;
                data.map_err(|error| Failure::Again(error.to_string()))
            }
            None => Ok(None),
        }
    }

    fn let_go(&self, tx: &mut Tx<'_>) {
        if self.holds {
            lifecycle::let_guest_up(tx, &self.instance_id);
        }
    }
}
