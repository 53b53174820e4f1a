//! What is left of EC2-Classic, which is retired and never was here, and of pools that accounts bring along.

use super::allocate::named;
use crate::Context;
use crate::engine::filter;
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

/// The pools that an account has brought; the operator's own is Amazon's to the callers, and not among them.
pub async fn describe_public_ipv4_pools(
    _: &Context,
    input: ec2::DescribePublicIpv4PoolsRequest,
) -> Result<ec2::DescribePublicIpv4PoolsResult> {
    let is_tag = |name: &str| name == "tag-key" || name.starts_with("tag:");
    filter::passes(&filter::parse(&input.filters)?, |name, _| is_tag(name))?;
    match input.pool_ids.first() {
        Some(id) => Err(Error::new(
            "InvalidPublicIpv4PoolID.NotFound",
            format!("The public IPv4 pool ID '{id}' does not exist"),
        )),
        None => Ok(ec2::DescribePublicIpv4PoolsResult::default()),
    }
}
