//! DescribeInstanceStatus.

use super::Instance;
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::filter;
use aws_api::ec2;
use model::{InstanceState, Kind, Result};

pub async fn describe_instance_status(
    context: &Context,
    input: ec2::DescribeInstanceStatusRequest,
) -> Result<ec2::DescribeInstanceStatusResult> {
    let all = input.include_all_instances.unwrap_or(false);
    let tables = context.tables();
    let query = Query {
        ids: &input.instance_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "instancesSet",
    };
    let mut page = describe::select(
        &tables.instances,
        Kind::Instance,
        &query,
        |_| true,
        |instance, name, values| match name {
            "instance-status.status" | "system-status.status" => filter::one(values, status(instance)),
            "instance-status.reachability" | "system-status.reachability" => {
                filter::one(values, reachability(instance))
            }
            "event.code"
            | "event.description"
            | "event.instance-event-id"
            | "event.not-after"
            | "event.not-before"
            | "event.not-before-deadline"
            | "attached-ebs-status.status"
            | "operator.managed"
            | "operator.principal" => true,
            _ => false,
        },
    )?;
    // Only running instances are told of unless all are asked for.
    page.records.retain(|instance| all || instance.state == InstanceState::Running);
    Ok(ec2::DescribeInstanceStatusResult {
        instance_statuses: page.records.iter().map(|instance| to_api(context, instance)).collect(),
        next_token: page.next_token,
    })
}

/// The host reports its machines as they are: one that runs is reachable, one that does not has no status.
fn status(instance: &Instance) -> &'static str {
    if instance.state == InstanceState::Running { "ok" } else { "not-applicable" }
}

fn reachability(instance: &Instance) -> &'static str {
    if instance.state == InstanceState::Running { "passed" } else { "not-applicable" }
}

fn to_api(context: &Context, instance: &Instance) -> ec2::InstanceStatus {
    let summary = || ec2::InstanceStatusSummary {
        status: Some(status(instance).into()),
        details: match instance.state {
            InstanceState::Running => vec![ec2::InstanceStatusDetails {
                name: Some("reachability".into()),
                status: Some("passed".into()),
                ..Default::default()
            }],
            _ => Vec::new(),
        },
    };
    let zone_id = context.region.zones.iter().find(|zone| zone.name == instance.placement.zone);
    ec2::InstanceStatus {
        instance_id: Some(instance.instance_id.to_string()),
        availability_zone: Some(instance.placement.zone.clone()),
        availability_zone_id: zone_id.map(|zone| zone.id.clone()),
        instance_state: Some(super::lifecycle::state_to_api(instance.state)),
        instance_status: Some(summary()),
        system_status: Some(summary()),
        ..Default::default()
    }
}
