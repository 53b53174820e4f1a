//! Encryption controls, which watch or enforce that what a VPC carries is encrypted. Nothing encrypts it here: there are no
//! such controls, and none can be made.

use super::Vpc;
use crate::Context;
use crate::engine::describe;
use crate::engine::unsupported::refuse;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

fn check_vpc(context: &Context, id: Option<&str>) -> Result<()> {
    let id = Id::parse(Kind::Vpc, id.unwrap_or_default())?;
    context.region.view.record::<Vpc>(&id).map(drop).ok_or_else(|| Id::not_found(Kind::Vpc, &id))
}

fn unsupported<T: Default>() -> Result<T> {
    refuse([(true, "Encryption controls are")]).map(|()| T::default())
}

fn not_found(id: Option<&str>) -> Error {
    let id = id.unwrap_or_default();
    let message = format!("The VPC encryption control ID '{id}' does not exist");
    Error::new("InvalidVpcEncryptionControlId.NotFound", message)
}

pub async fn create_vpc_encryption_control(
    context: &Context,
    input: ec2::CreateVpcEncryptionControlRequest,
) -> Result<ec2::CreateVpcEncryptionControlResult> {
    check_vpc(context, input.vpc_id.as_deref())?;
    unsupported()
}

pub async fn modify_vpc_encryption_control(
    _: &Context,
    input: ec2::ModifyVpcEncryptionControlRequest,
) -> Result<ec2::ModifyVpcEncryptionControlResult> {
    Err(not_found(input.vpc_encryption_control_id.as_deref()))
}

pub async fn delete_vpc_encryption_control(
    _: &Context,
    input: ec2::DeleteVpcEncryptionControlRequest,
) -> Result<ec2::DeleteVpcEncryptionControlResult> {
    Err(not_found(input.vpc_encryption_control_id.as_deref()))
}

pub async fn describe_vpc_encryption_controls(
    context: &Context,
    input: ec2::DescribeVpcEncryptionControlsRequest,
) -> Result<ec2::DescribeVpcEncryptionControlsResult> {
    input.vpc_ids.iter().try_for_each(|id| check_vpc(context, Some(id)))?;
    if let Some(id) = input.vpc_encryption_control_ids.first() {
        return Err(not_found(Some(id)));
    }
    let names = ["mode", "state", "state-message", "vpc-encryption-control-id", "vpc-id"];
    describe::none(&names, &input.filters, input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeVpcEncryptionControlsResult::default())
}

pub async fn get_vpc_resources_blocking_encryption_enforcement(
    context: &Context,
    input: ec2::GetVpcResourcesBlockingEncryptionEnforcementRequest,
) -> Result<ec2::GetVpcResourcesBlockingEncryptionEnforcementResult> {
    check_vpc(context, input.vpc_id.as_deref())?;
    unsupported()
}
