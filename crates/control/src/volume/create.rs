//! CreateVolume, DeleteVolume, and what a volume's host says of it.

use super::{Condition, Volume, copy, describe, modify, multi_attach, specification};
use crate::Context;
use crate::encryption::{self, Asked, Encryption, Unnamed};
use crate::engine::Tx;
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::region::{RegionState, Zone};
use crate::snapshot::{self, Snapshot, fast_restore};
use agent_api::VolumeState;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

/// What EC2 makes where no type is asked for.
pub(super) const TYPE_DEFAULT: &str = "gp2";

pub async fn create_volume(context: &Context, input: ec2::CreateVolumeRequest) -> Result<ec2::Volume> {
    refuse_what_is_not_there(&input)?;
    let encrypted = Asked::of(input.encrypted, &input.kms_key_id)?;
    let zone = zone(&context.region, &input)?;
    let initialization_rate = specification::initialization_rate(input.volume_initialization_rate)?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::Volume])?;
    let host_id = host_in(context, zone)?;
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return still_there(tx, made.concat());
            }
            let snapshot = match input.snapshot_id.as_deref().filter(|id| !id.is_empty()) {
                Some(id) => Some(snapshot::to_make_volumes_of(tx.tables(), id)?),
                None => None,
            };
            let size_gib = size(input.size, snapshot.as_deref())?;
            let volume_type = input.volume_type.as_deref().unwrap_or(TYPE_DEFAULT);
            let (iops, throughput) =
                specification::performance(volume_type, size_gib, input.iops, input.throughput)?;
            if let Some(snapshot) = &snapshot {
                // Made to depend on, so that whoever deletes it at the same time is seen.
                tx.get::<Snapshot>(&snapshot.snapshot_id);
            }
            let multi_attach = input.multi_attach_enabled == Some(true);
            multi_attach::check_made(multi_attach, volume_type)?;
            if initialization_rate.is_some() && snapshot.is_none() {
                return Err(Error::invalid_parameter_combination(
                    "A volume initialization rate can only be specified with a snapshot",
                ));
            }
            let source = snapshot.as_ref().and_then(|snapshot| snapshot.encryption.as_ref());
            let encryption = encryption::choose(context, tx, &encrypted, source, Unnamed::Source)?;
            // With a key that is not there it comes to be in error, and no host hears of it.
            let lacks_key = encryption.as_ref().is_some_and(Encryption::lacks_key);
            let (id, owner) = (tx.new_id(Kind::Volume), context.account().clone());
            let volume = Volume {
                volume_type: volume_type.into(),
                iops,
                throughput,
                multi_attach,
                snapshot_id: snapshot.as_ref().map(|snapshot| snapshot.snapshot_id.clone()),
                encryption,
                condition: if lacks_key { Condition::Failed } else { Condition::Creating },
                initialization_rate,
                fast_restored: snapshot.as_ref().is_some_and(|snapshot| {
                    fast_restore::is_enabled(tx.tables(), &snapshot.snapshot_id, &zone.name)
                }),
                host_id: (!lacks_key).then(|| host_id.as_str().into()),
                tags: tags.of(Kind::Volume),
                ..Volume::new(id, owner, size_gib, zone.name.as_str().into(), tx.now())
            };
            tx.create(&volume);
            idempotent.remember(tx, vec![volume.volume_id.to_string()]);
            Ok(volume.volume_id.to_string())
        })
        .await?;
    let volume = context.region.view.record::<Volume>(&id).ok_or_else(|| Id::not_found(Kind::Volume, &id))?;
    Ok(describe::to_api(context, &volume))
}

/// The volume that a token has made. With the token of one that is gone, or never came to be, nobody gets another.
pub(super) fn still_there(tx: &mut Tx<'_>, id: String) -> Result<String> {
    let is_there = |volume: &Volume| !matches!(volume.condition, Condition::Failed | Condition::Deleting);
    match tx.get::<Volume>(&id) {
        Some(volume) if is_there(&volume) => Ok(id),
        _ => Err(Error::new(
            "IdempotentParameterMismatch",
            "The client token you have provided is associated with a resource that is already deleted. Use a different client token.",
        )),
    }
}

/// What the API knows and this cloud has not: refused rather than ignored.
fn refuse_what_is_not_there(input: &ec2::CreateVolumeRequest) -> Result<()> {
    refuse([
        (input.operator.is_some(), "Volumes that a service provider operates are"),
        (given(&input.outpost_arn), "Outposts are"),
    ])
}

fn zone<'r>(region: &'r RegionState, input: &ec2::CreateVolumeRequest) -> Result<&'r Zone> {
    let (name, id) = (input.availability_zone.as_deref(), input.availability_zone_id.as_deref());
    match (name, id) {
        (None, None) => Err(Error::missing_parameter("AvailabilityZone")),
        (Some(_), Some(_)) => Err(Error::invalid_parameter_combination(
            "The parameters availabilityZone and availabilityZoneId cannot be used together",
        )),
        _ => {
            let found = region
                .zones
                .iter()
                .find(|zone| name.is_none_or(|name| zone.name == name) && id.is_none_or(|id| zone.id == id));
            let asked = name.or(id).unwrap_or_default();
            found.ok_or_else(|| {
                Error::new("InvalidZone.NotFound", format!("The zone '{asked}' does not exist."))
            })
        }
    }
}

/// A host of the zone, any: which one matters only once an instance is to have the volume.
fn host_in(context: &Context, zone: &Zone) -> Result<String> {
    let region = &context.region;
    let mut hosts = region.hosts.iter().filter(|host| region.zone_of(&host.description) == Some(zone));
    let first = hosts.next().ok_or_else(|| {
        Error::new(
            "InsufficientVolumeCapacity",
            format!("There is no host in the Availability Zone {} to make the volume on.", zone.name),
        )
    })?;
    let heard = std::iter::once(first).chain(hosts).find(|host| host.is_heard());
    Ok(heard.unwrap_or(first).description.host_id.clone())
}

fn size(asked: Option<i32>, snapshot: Option<&Snapshot>) -> Result<u32> {
    let asked = asked.map(specification::size).transpose()?;
    match (asked, snapshot) {
        (None, None) => Err(Error::missing_parameter("size/snapshotId")),
        (None, Some(snapshot)) => Ok(snapshot.size_gib),
        (Some(size), Some(snapshot)) if size < snapshot.size_gib => {
            Err(Error::invalid_parameter_value(format!(
                "The size of the volume, {size} GiB, is smaller than the size of the snapshot {}, {} GiB",
                snapshot.snapshot_id, snapshot.size_gib
            )))
        }
        (Some(size), _) => Ok(size),
    }
}

pub async fn delete_volume(context: &Context, input: ec2::DeleteVolumeRequest) -> Result<()> {
    let id = Id::parse(Kind::Volume, input.volume_id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let volume = tx.get::<Volume>(&id).ok_or_else(|| Id::not_found(Kind::Volume, &id))?;
            if let Some(attachment) = volume.attachments.first() {
                return Err(Error::new(
                    "VolumeInUse",
                    format!("Volume {id} is currently attached to {}", attachment.instance_id),
                ));
            }
            delete(tx, &volume);
            Ok(())
        })
        .await
}

/// The volume goes: at once, or when the snapshots and copies that are being made of it are taken.
pub fn delete(tx: &mut Tx<'_>, volume: &Volume) {
    let id = &volume.volume_id;
    if snapshot::create::is_being_taken(tx, id) || copy::is_under_way(tx, id, &[]) {
        tx.put(&Volume { condition: Condition::Deleting, attachments: Default::default(), ..volume.clone() });
    } else {
        tx.delete::<Volume>(&volume.volume_id);
    }
}

/// Takes in what the host says of a volume.
pub fn observed(tx: &mut Tx<'_>, id: &Id, state: &VolumeState) {
    let Some(before) = tx.get::<Volume>(id) else { return };
    let mut volume = (*before).clone();
    match state {
        VolumeState::Ready { size_gib } => {
            if matches!(volume.condition, Condition::Creating | Condition::Failed) {
                volume.condition = Condition::Made;
            }
            volume.lost = false;
            modify::grown(&mut volume, *size_gib, tx.now());
        }
        VolumeState::Failed { message } => {
            if volume.condition == Condition::Creating {
                volume.condition = Condition::Failed;
            }
            modify::failed(&mut volume, message, tx.now());
        }
        VolumeState::Lost => volume.lost = true,
        VolumeState::Removed => {}
    }
    if volume != *before {
        tx.put(&volume);
    }
}
