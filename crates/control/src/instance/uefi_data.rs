//! The variables of an instance's firmware, which outlive a stop and go into the images that are made of it.

use super::Instance;
use crate::Context;
use crate::region::RegionState;
use crate::uefi_data;
use agent_api::{BootMode, HostError};
use aws_api::ec2;
use model::{Error, InstanceState, Result};

pub async fn get_instance_uefi_data(
    context: &Context,
    input: ec2::GetInstanceUefiDataRequest,
) -> Result<ec2::GetInstanceUefiDataResult> {
    let instance = super::find(context, input.instance_id.as_deref())?;
    let id = &instance.instance_id;
    if instance.boot_mode != BootMode::Uefi {
        return Err(Error::new(
            "UnsupportedOperation",
            format!("The instance '{id}' does not boot by UEFI."),
        ));
    }
    if matches!(instance.state, InstanceState::ShuttingDown | InstanceState::Terminated) {
        return Err(Error::new(
            "IncorrectInstanceState",
            format!("The instance '{id}' has no UEFI data any more: it is {}.", instance.state.name()),
        ));
    }
    let data = of(&context.region, &instance).await.map_err(Error::internal)?;
    Ok(ec2::GetInstanceUefiDataResult { instance_id: Some(id.to_string()), uefi_data: data })
}

/// As its host has them now, or as it was launched with them where that has not heard of it; None where it boots by BIOS.
pub async fn of(region: &RegionState, instance: &Instance) -> std::result::Result<Option<String>, HostError> {
    if instance.boot_mode != BootMode::Uefi {
        return Ok(None);
    }
    match instance.host(region)?.uefi_variables(&instance.instance_id).await {
        Ok(variables) => Ok(Some(uefi_data::encode(&variables))),
        Err(HostError::NotFound(_)) => {
            let launched_with = instance.uefi_data.as_deref().map(str::to_owned);
            Ok(launched_with.or_else(|| Some(uefi_data::encode(&[]))))
        }
        Err(error) => Err(error),
    }
}
