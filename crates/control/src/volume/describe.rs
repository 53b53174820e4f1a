//! DescribeVolumes and what belongs to it.

use super::initialization::Initialization;
use super::{Condition, Volume, VolumeAttachment};
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::filter;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

pub async fn describe_volumes(
    context: &Context,
    input: ec2::DescribeVolumesRequest,
) -> Result<ec2::DescribeVolumesResult> {
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
        |_| true,
        |volume, name, values| match name {
            "availability-zone-id" => filter::some(values, zone_id(context, volume)),
            "operator.managed" => filter::one(values, "false"),
            "operator.principal" => true,
            _ => false,
        },
    )?;
    Ok(ec2::DescribeVolumesResult {
        volumes: page.records.iter().map(|volume| to_api(context, volume)).collect(),
        next_token: page.next_token,
    })
}

fn zone_id<'c>(context: &'c Context, volume: &Volume) -> Option<&'c str> {
    context.region.zone_named(&volume.zone).map(|zone| zone.id.as_str())
}

pub fn to_api(context: &Context, volume: &Volume) -> ec2::Volume {
    ec2::Volume {
        volume_id: Some(volume.volume_id.to_string()),
        size: Some(volume.size_gib as i32),
        snapshot_id: Some(volume.snapshot_id.as_ref().map(|id| id.to_string()).unwrap_or_default()),
        source_volume_id: volume.copied.as_ref().map(|copied| copied.source.to_string()),
        availability_zone: Some(volume.zone.to_string()),
        availability_zone_id: zone_id(context, volume).map(str::to_owned),
        state: Some(volume.state().into()),
        create_time: Some(volume.created_at),
        attachments: volume
            .attachments
            .iter()
            .map(|attachment| attachment_to_api(volume, attachment))
            .collect(),
        volume_type: Some(volume.volume_type.to_string()),
        iops: volume.iops,
        throughput: volume.throughput,
        encrypted: Some(volume.encryption.is_some()),
        kms_key_id: volume.encryption.as_ref().map(|encryption| encryption.kms_key_id.to_string()),
        multi_attach_enabled: Some(volume.multi_attach),
        operator: Some(operator()),
        volume_initialization_rate: volume.initialization_rate,
        fast_restored: volume.fast_restored.then_some(true),
        tags: volume.tags.to_api(),
        ..Default::default()
    }
}

/// No service provider operates volumes here.
fn operator() -> ec2::OperatorResponse {
    ec2::OperatorResponse { managed: Some(false), ..Default::default() }
}

pub fn attachment_to_api(volume: &Volume, attachment: &VolumeAttachment) -> ec2::VolumeAttachment {
    ec2::VolumeAttachment {
        volume_id: Some(volume.volume_id.to_string()),
        instance_id: Some(attachment.instance_id.to_string()),
        device: Some(attachment.device_name.to_string()),
        state: Some(attachment.state.name().into()),
        attach_time: Some(attachment.attached_at),
        delete_on_termination: Some(attachment.delete_on_termination),
        ..Default::default()
    }
}

pub async fn describe_volume_status(
    context: &Context,
    input: ec2::DescribeVolumeStatusRequest,
) -> Result<ec2::DescribeVolumeStatusResult> {
    let initialization = Initialization::ask(context, &input.volume_ids).await;
    let tables = context.tables();
    let query = Query {
        ids: &input.volume_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "volumeIds",
    };
    // Other filters than DescribeVolumes has: only these.
    let page = describe::select(
        &tables.volumes,
        Kind::Volume,
        &query,
        |_| true,
        |volume, name, values| match name {
            "action.code" | "action.description" | "action.event-id" | "event.description"
            | "event.event-id" | "event.event-type" | "event.not-after" | "event.not-before" => true,
            "availability-zone-id" => filter::some(values, zone_id(context, volume)),
            "operator.managed" => filter::one(values, "false"),
            "operator.principal" => true,
            "volume-status.details-name" => {
                filter::many(values, details(volume, &initialization).map(|(name, _)| name))
            }
            "volume-status.details-status" => {
                filter::many(values, details(volume, &initialization).map(|(_, status)| status))
            }
            "volume-status.status" => filter::one(values, status(volume)),
            _ => false,
        },
    )?;
    let to_api = |volume: &Volume| status_to_api(context, volume, &initialization);
    Ok(ec2::DescribeVolumeStatusResult {
        volume_statuses: page.records.iter().map(|volume| to_api(volume)).collect(),
        next_token: page.next_token,
    })
}

/// Impaired is one whose host has its data no more: nothing is known of others that would make them so.
fn status(volume: &Volume) -> &'static str {
    match volume.condition {
        _ if volume.lost => "impaired",
        Condition::Creating => "insufficient-data",
        Condition::Made | Condition::Failed | Condition::Deleting => "ok",
    }
}

fn details(
    volume: &Volume,
    initialization: &Initialization,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let enabled = if volume.lost { "failed" } else { "passed" };
    // Known of volumes whose IOPS are provisioned (EBS User Guide, "Amazon EBS volume status checks"): nothing here
    // makes one slower than it shall be.
    let performance = match &*volume.volume_type {
        "io1" | "io2" | "gp3" if !volume.lost => "normal",
        _ => "not-applicable",
    };
    let checks = [("io-enabled", enabled), ("io-performance", performance)];
    checks.into_iter().chain(initialization.state(volume).map(|state| ("initialization-state", state)))
}

fn status_to_api(
    context: &Context,
    volume: &Volume,
    initialization: &Initialization,
) -> ec2::VolumeStatusItem {
    ec2::VolumeStatusItem {
        volume_id: Some(volume.volume_id.to_string()),
        availability_zone: Some(volume.zone.to_string()),
        availability_zone_id: zone_id(context, volume).map(str::to_owned),
        volume_status: Some(ec2::VolumeStatusInfo {
            status: Some(status(volume).into()),
            details: details(volume, initialization)
                .map(|(name, status)| ec2::VolumeStatusDetails {
                    name: Some(name.into()),
                    status: Some(status.into()),
                })
                .collect(),
        }),
        initialization_status_details: initialization.details(volume),
        operator: Some(operator()),
        ..Default::default()
    }
}

pub async fn describe_volume_attribute(
    context: &Context,
    input: ec2::DescribeVolumeAttributeRequest,
) -> Result<ec2::DescribeVolumeAttributeResult> {
    let id = Id::parse(Kind::Volume, input.volume_id.as_deref().unwrap_or_default())?;
    let volume = context.region.view.record::<Volume>(&id).ok_or_else(|| Id::not_found(Kind::Volume, &id))?;
    let mut result =
        ec2::DescribeVolumeAttributeResult { volume_id: Some(id.to_string()), ..Default::default() };
    match input.attribute.as_deref().unwrap_or_default() {
        "autoEnableIO" => {
            result.auto_enable_io = Some(ec2::AttributeBooleanValue { value: Some(volume.auto_enable_io) })
        }
        "productCodes" => {}
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter attribute is invalid. Unknown attribute."
            )));
        }
    }
    Ok(result)
}
