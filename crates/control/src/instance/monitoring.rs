//! MonitorInstances and UnmonitorInstances: whether an instance is to be watched in detail.

use super::lifecycle::change_all;
use crate::Context;
use aws_api::ec2;
use model::{Error, InstanceState, Result};

pub async fn monitor_instances(
    context: &Context,
    input: ec2::MonitorInstancesRequest,
) -> Result<ec2::MonitorInstancesResult> {
    Ok(ec2::MonitorInstancesResult { instance_monitorings: set(context, &input.instance_ids, true).await? })
}

pub async fn unmonitor_instances(
    context: &Context,
    input: ec2::UnmonitorInstancesRequest,
) -> Result<ec2::UnmonitorInstancesResult> {
    Ok(ec2::UnmonitorInstancesResult {
        instance_monitorings: set(context, &input.instance_ids, false).await?,
    })
}

async fn set(context: &Context, ids: &[String], monitoring: bool) -> Result<Vec<ec2::InstanceMonitoring>> {
    let changed = change_all(context, ids, |_, instance, id| {
        if matches!(instance.state, InstanceState::ShuttingDown | InstanceState::Terminated) {
            return Err(Error::new(
                "IncorrectInstanceState",
                format!(
                    "The instance '{id}' is not in a state from which its monitoring can be changed: it is {}.",
                    instance.state.name()
                ),
            ));
        }
        instance.monitoring = monitoring;
        Ok(())
    })
    .await?;
    let to_api = |change: ec2::InstanceStateChange| ec2::InstanceMonitoring {
        instance_id: change.instance_id,
        monitoring: Some(to_api(monitoring)),
    };
    Ok(changed.into_iter().map(to_api).collect())
}

pub fn to_api(monitoring: bool) -> ec2::Monitoring {
    ec2::Monitoring { state: Some(if monitoring { "enabled" } else { "disabled" }.into()) }
}
