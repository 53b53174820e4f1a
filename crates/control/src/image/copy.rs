//! CopyImage: an image like another, of copies of its snapshots.

use super::protection::Protection;
use super::register::{check_name, record};
use super::{Condition, Image};
use crate::Context;
use crate::description;
use crate::encryption::Asked;
use crate::engine::Tags;
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::snapshot::{Snapshot, copy};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

pub async fn copy_image(context: &Context, input: ec2::CopyImageRequest) -> Result<ec2::CopyImageResult> {
    refuse_what_is_not_there(&input)?;
    let encrypted = Asked::of(input.encrypted, &input.kms_key_id)?;
    let name = input.name.as_deref().ok_or_else(|| Error::missing_parameter("Name"))?;
    check_name(name)?;
    let id = input.source_image_id.as_deref().unwrap_or_default();
    let region = copy::source_region(context, input.source_region.as_deref()).await?;
    let now = context.environment.clock.now();
    let source = super::seen(&region.view.read(), context.account(), id, now)?;
    source.check_available()?;
    let description = input.description.as_deref().unwrap_or(&source.description);
    description::check(description)?;
    let mut tags = Tags::default();
    if input.copy_image_tags.unwrap_or(false) {
        tags.set(&source.tags)?;
    }
    let specified = Specified::from_api(&input.tag_specifications, &[Kind::Image, Kind::Snapshot])?;
    tags.set(&specified.of(Kind::Image))?;
    let idempotent = context.idempotent()?;
    let image_id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let mut image = Image {
                image_id: tx.new_id(Kind::Image),
                owner: context.account().clone(),
                owner_alias: None,
                name: name.to_owned(),
                description: description.to_owned(),
                created_at: tx.now(),
                deprecated_at: None,
                source_instance_id: None,
                ancestors: source.with_ancestors(&region.view.region),
                protection: Protection::Disabled,
                last_launched_at: None,
                public: false,
                launch_permissions: Vec::new(),
                tags: tags.clone(),
                ..(*source).clone()
            };
            let mut copies = Vec::new();
            for device in &mut image.block_devices {
                let Some(id) = &device.snapshot_id else { continue };
                let of = region.view.record::<Snapshot>(id);
                let of = of.ok_or_else(|| Id::not_found(Kind::Snapshot, id))?;
                // As AWS words it: those that tidy up find an image's snapshots by it.
                let description = format!(
                    "Copied for DestinationAmi {} from SourceAmi {} for SourceSnapshot {id}. Task created on {}.",
                    image.image_id,
                    source.image_id,
                    tx.now().as_millisecond()
                );
                let encryption = copy::of_copy(context, tx, &encrypted, &of)?;
                device.encrypted = encryption.is_some();
                let made = copy::make(tx, &of, &description, specified.of(Kind::Snapshot), encryption);
                device.snapshot_id = Some(made.to().clone());
                copies.push(made);
            }
            if !copies.is_empty() {
                image.condition = Condition::Pending;
                copy::begin(tx, copies, Some(image.image_id.clone()));
            }
            record(tx, &image)?;
            idempotent.remember(tx, vec![image.image_id.to_string()]);
            Ok(image.image_id.to_string())
        })
        .await?;
    Ok(ec2::CopyImageResult { image_id: Some(image_id) })
}

fn refuse_what_is_not_there(input: &ec2::CopyImageRequest) -> Result<()> {
    refuse([
        (given(&input.destination_outpost_arn), "Outposts are"),
        (
            given(&input.destination_availability_zone) || given(&input.destination_availability_zone_id),
            "Local Zones are",
        ),
        (input.snapshot_copy_completion_duration_minutes.is_some(), copy::TIMED),
    ])
}
