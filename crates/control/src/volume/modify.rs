//! ModifyVolume and its progress, and the attributes of a volume.
//!
//! The record says at once what the volume shall be; the modification is `modifying` until its host says that it has
//! grown. What else can be modified, its speed, is so with the next word to the host.

use super::{Volume, multi_attach, specification};
use crate::Context;
use crate::engine::Tx;
use crate::engine::describe::{self, Query};
use crate::engine::filter;
use aws_api::ec2;
use model::{Error, Id, Kind, Result, Text, Timestamp};
use serde::{Deserialize, Serialize};

const IOPS_DEFAULT: i32 = 3_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Modification {
    pub state: ModificationState,
    pub status_message: Option<String>,
    pub from: Shape,
    pub to: Shape,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModificationState {
    Modifying,
    Completed,
    Failed,
}

impl ModificationState {
    fn name(self) -> &'static str {
        match self {
            ModificationState::Modifying => "modifying",
            ModificationState::Completed => "completed",
            ModificationState::Failed => "failed",
        }
    }
}

/// What a modification can change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    pub size_gib: u32,
    pub volume_type: Text,
    pub iops: Option<i32>,
    pub throughput: Option<i32>,
    #[serde(default)]
    pub multi_attach: bool,
}

impl Shape {
    fn of(volume: &Volume) -> Shape {
        Shape {
            size_gib: volume.size_gib,
            volume_type: volume.volume_type.clone(),
            iops: volume.iops,
            throughput: volume.throughput,
            multi_attach: volume.multi_attach,
        }
    }
}

pub async fn modify_volume(
    context: &Context,
    input: ec2::ModifyVolumeRequest,
) -> Result<ec2::ModifyVolumeResult> {
    let id = Id::parse(Kind::Volume, input.volume_id.as_deref().unwrap_or_default())?;
    let volume = context
        .transact(|tx| {
            let before = tx.get::<Volume>(&id).ok_or_else(|| Id::not_found(Kind::Volume, &id))?;
            before.check_usable()?;
            if before.modification.as_ref().is_some_and(|last| last.state == ModificationState::Modifying) {
                return Err(Error::new(
                    "IncorrectModificationState",
                    format!("Volume {id} is already being modified; wait until that is completed."),
                ));
            }
            let to = target(&before, &input)?;
            let grows = to.size_gib > before.size_gib;
            let now = tx.now();
            let modification = Modification {
                state: if grows { ModificationState::Modifying } else { ModificationState::Completed },
                status_message: None,
                from: Shape::of(&before),
                to: to.clone(),
                started_at: now,
                ended_at: (!grows).then_some(now),
            };
            let volume = Volume {
                size_gib: to.size_gib,
                volume_type: to.volume_type,
                iops: to.iops,
                throughput: to.throughput,
                multi_attach: to.multi_attach,
                modification: Some(modification.into()),
                ..(*before).clone()
            };
            tx.put(&volume);
            Ok(volume)
        })
        .await?;
    Ok(ec2::ModifyVolumeResult { volume_modification: to_api(&volume) })
}

fn target(volume: &Volume, input: &ec2::ModifyVolumeRequest) -> Result<Shape> {
    let size_gib = input.size.map(specification::size).transpose()?.unwrap_or(volume.size_gib);
    if size_gib < volume.size_gib {
        return Err(Error::invalid_parameter_value(format!(
            "New size cannot be smaller than existing size: {} is of {} GiB",
            volume.volume_id, volume.size_gib
        )));
    }
    let volume_type = input.volume_type.as_deref().unwrap_or(&volume.volume_type);
    let same_type = volume_type == volume.volume_type;
    // What was provisioned stays where the type does, unless it is a function of the size.
    let kept = |value: Option<i32>| value.filter(|_| same_type && volume_type != "gp2");
    // EC2 API Reference, ModifyVolume: unlike a new volume, one that becomes io1 or io2 has a default.
    let becomes_io = !same_type && matches!(volume_type, "io1" | "io2");
    let iops = kept(volume.iops).or(becomes_io.then_some(IOPS_DEFAULT));
    let (iops, throughput) = specification::performance(
        volume_type,
        size_gib,
        input.iops.or(iops),
        input.throughput.or(kept(volume.throughput)),
    )?;
    let multi_attach = input.multi_attach_enabled.unwrap_or(volume.multi_attach);
    let shape = Shape { size_gib, volume_type: volume_type.into(), iops, throughput, multi_attach };
    multi_attach::check_modified(volume, &shape)?;
    Ok(shape)
}

/// The host has the volume in this size.
pub(super) fn grown(volume: &mut Volume, size_gib: u32, now: Timestamp) {
    if let Some(modification) = &mut volume.modification
        && modification.state == ModificationState::Modifying
        && size_gib >= modification.to.size_gib
    {
        modification.state = ModificationState::Completed;
        modification.ended_at = Some(now);
    }
}

/// The host could not make the volume so: it is of the size that it was.
pub(super) fn failed(volume: &mut Volume, message: &str, now: Timestamp) {
    if let Some(modification) = &mut volume.modification
        && modification.state == ModificationState::Modifying
    {
        modification.state = ModificationState::Failed;
        modification.status_message = Some(message.to_owned());
        modification.ended_at = Some(now);
        let from = modification.from.clone();
        volume.size_gib = from.size_gib;
        volume.volume_type = from.volume_type;
        volume.iops = from.iops;
        volume.throughput = from.throughput;
    }
}

fn to_api(volume: &Volume) -> Option<ec2::VolumeModification> {
    let modification = volume.modification.as_ref()?;
    let (from, to) = (&modification.from, &modification.to);
    Some(ec2::VolumeModification {
        volume_id: Some(volume.volume_id.to_string()),
        modification_state: Some(modification.state.name().into()),
        status_message: modification.status_message.clone(),
        target_size: Some(to.size_gib as i32),
        target_iops: to.iops,
        target_volume_type: Some(to.volume_type.to_string()),
        target_throughput: to.throughput,
        target_multi_attach_enabled: Some(to.multi_attach),
        original_size: Some(from.size_gib as i32),
        original_iops: from.iops,
        original_volume_type: Some(from.volume_type.to_string()),
        original_throughput: from.throughput,
        original_multi_attach_enabled: Some(from.multi_attach),
        progress: Some(if modification.state == ModificationState::Completed { 100 } else { 0 }),
        start_time: Some(modification.started_at),
        end_time: modification.ended_at,
        ..Default::default()
    })
}

pub async fn describe_volumes_modifications(
    context: &Context,
    input: ec2::DescribeVolumesModificationsRequest,
) -> Result<ec2::DescribeVolumesModificationsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.volume_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "volumeIds",
    };
    let page = describe::select(
        &tables.volumes,
        Kind::Volume,
        &query,
        |volume| !input.volume_ids.is_empty() || volume.modification.is_some(),
        |volume, name, values| {
            let last = volume.modification.as_ref();
            let (from, to) = (last.map(|last| &last.from), last.map(|last| &last.to));
            let number = |value: Option<i32>| value.map(|value| value.to_string());
            match name {
                "modification-state" => filter::some(values, last.map(|last| last.state.name())),
                "original-iops" => filter::some(values, number(from.and_then(|from| from.iops))),
                "original-size" => filter::some(values, from.map(|from| from.size_gib.to_string())),
                "original-volume-type" => filter::some(values, from.map(|from| from.volume_type.as_str())),
                "originalMultiAttachEnabled" => {
                    filter::some(values, from.map(|from| filter::boolean(from.multi_attach)))
                }
                "start-time" => filter::some(values, last.map(|last| filter::time(last.started_at))),
                "target-iops" => filter::some(values, number(to.and_then(|to| to.iops))),
                "target-size" => filter::some(values, to.map(|to| to.size_gib.to_string())),
                "targetMultiAttachEnabled" => {
                    filter::some(values, to.map(|to| filter::boolean(to.multi_attach)))
                }
                "target-volume-type" => filter::some(values, to.map(|to| to.volume_type.as_str())),
                _ => false,
            }
        },
    )?;
    let unmodified = page.records.iter().find(|volume| volume.modification.is_none());
    if let Some(volume) = unmodified {
        return Err(Error::new(
            "InvalidVolumeModification.NotFound",
            format!("Modification for volume '{}' does not exist.", volume.volume_id),
        ));
    }
    Ok(ec2::DescribeVolumesModificationsResult {
        volumes_modifications: page.records.iter().filter_map(|volume| to_api(volume)).collect(),
        next_token: page.next_token,
    })
}

pub async fn modify_volume_attribute(
    context: &Context,
    input: ec2::ModifyVolumeAttributeRequest,
) -> Result<()> {
    let wanted = input.auto_enable_io.as_ref().and_then(|attribute| attribute.value);
    let wanted = wanted.ok_or_else(|| Error::missing_parameter("AutoEnableIO"))?;
    change(context, input.volume_id.as_deref(), |volume| volume.auto_enable_io = wanted).await
}

/// No volume of this cloud is ever without IO: there is nothing to enable but for one that is not there.
pub async fn enable_volume_io(context: &Context, input: ec2::EnableVolumeIORequest) -> Result<()> {
    change(context, input.volume_id.as_deref(), |_| {}).await
}

async fn change(context: &Context, id: Option<&str>, change: impl Fn(&mut Volume)) -> Result<()> {
    let id = Id::parse(Kind::Volume, id.unwrap_or_default())?;
    context
        .transact(|tx: &mut Tx<'_>| {
            let before = tx.get::<Volume>(&id).ok_or_else(|| Id::not_found(Kind::Volume, &id))?;
            let mut volume = (*before).clone();
            change(&mut volume);
            if volume != *before {
                tx.put(&volume);
            }
            Ok(())
        })
        .await
}
