//! What is left of EC2-Classic, which is retired and never was here.

use super::allocate::named;
use crate::Context;
use aws_api::ec2;
use model::{Error, Result};

fn retired() -> Error {
    Error::new("UnsupportedOperation", "EC2-Classic is retired: no address can be moved from it or to it.")
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
