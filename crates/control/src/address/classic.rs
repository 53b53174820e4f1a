//! What is left of EC2-Classic, which is retired and never was here.

use super::allocate::named;
use crate::Context;
use crate::engine::describe;
use aws_api::ec2;
use model::{Error, Result};

fn retired() -> Error {
    Error::new("UnsupportedOperation", "EC2-Classic is retired: no address can be moved from it or to it.")
}

/// None ever moves.
pub async fn describe_moving_addresses(
    context: &Context,
    input: ec2::DescribeMovingAddressesRequest,
) -> Result<ec2::DescribeMovingAddressesResult> {
    let tables = context.tables();
    input.public_ips.iter().try_for_each(|ip| named(&tables, None, Some(ip)).map(drop))?;
    describe::none(&["moving-status"], &input.filters, input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeMovingAddressesResult::default())
}

pub async fn move_address_to_vpc(
    context: &Context,
    input: ec2::MoveAddressToVpcRequest,
) -> Result<ec2::MoveAddressToVpcResult> {
    named(&context.tables(), None, input.public_ip.as_deref())?;
    Err(retired())
}

pub async fn restore_address_to_classic(
    context: &Context,
    input: ec2::RestoreAddressToClassicRequest,
) -> Result<ec2::RestoreAddressToClassicResult> {
    named(&context.tables(), None, input.public_ip.as_deref())?;
    Err(retired())
}
