//! What a guest shows: its serial console and its screen.

use super::Instance;
use crate::Context;
use agent_api::{HostAgent, HostError};
use aws_api::ec2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Error, InstanceState, Result};
use std::sync::Arc;

pub async fn get_console_output(
    context: &Context,
    input: ec2::GetConsoleOutputRequest,
) -> Result<ec2::GetConsoleOutputResult> {
    let (instance, host) = find(context, input.instance_id.as_deref())?;
    let output = match host.console_output(&instance.instance_id).await {
        Ok(output) => Some(STANDARD.encode(output)),
        // Nothing has been written yet, or nothing is left.
        Err(HostError::NotFound(_)) => None,
        Err(error @ HostError::Failed(_)) => return Err(Error::internal(error)),
    };
    Ok(ec2::GetConsoleOutputResult {
        instance_id: Some(instance.instance_id.to_string()),
        output,
        timestamp: Some(context.environment.clock.now()),
    })
}

pub async fn get_console_screenshot(
    context: &Context,
    input: ec2::GetConsoleScreenshotRequest,
) -> Result<ec2::GetConsoleScreenshotResult> {
    let (instance, host) = find(context, input.instance_id.as_deref())?;
    if instance.state != InstanceState::Running {
        return Err(Error::new(
            "IncorrectInstanceState",
            format!(
                "The instance '{}' must be in a running state to take a screenshot.",
                instance.instance_id
            ),
        ));
    }
    let screen = host.console_screenshot(&instance.instance_id).await.map_err(Error::internal)?;
    Ok(ec2::GetConsoleScreenshotResult {
        instance_id: Some(instance.instance_id.to_string()),
        image_data: Some(STANDARD.encode(screen)),
    })
}

/// Only Windows instances have a password: for others the data is empty.
pub async fn get_password_data(
    context: &Context,
    input: ec2::GetPasswordDataRequest,
) -> Result<ec2::GetPasswordDataResult> {
    let (instance, _) = find(context, input.instance_id.as_deref())?;
    Ok(ec2::GetPasswordDataResult {
        instance_id: Some(instance.instance_id.to_string()),
        password_data: Some(String::new()),
        timestamp: Some(context.environment.clock.now()),
    })
}

fn find(context: &Context, id: Option<&str>) -> Result<(Arc<Instance>, Arc<dyn HostAgent>)> {
    let instance = super::find(context, id)?;
    let host = instance.host(&context.region).map_err(Error::internal)?;
    Ok((instance, host))
}
