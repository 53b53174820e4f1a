//! Addresses that somebody brings (EC2 User Guide, "Bring your own IP addresses"). Here the operator does
//! (`cumulet network pool`): EC2's callers see what is there, which is advertised for as long as it is.

use super::PublicPool;
use crate::Context;
use crate::engine::describe::page_of;
use aws_api::ec2;
use ipnet::Ipv4Net;
use model::{Error, Result};

fn operators() -> Error {
    Error::new(
        "UnsupportedOperation",
        "Addresses are brought to this cloud by its operator: cumulet network pool add, list and remove.",
    )
}

/// As EC2 writes it.
fn to_api(pool: &PublicPool, region: &str) -> ec2::ByoipCidr {
    ec2::ByoipCidr {
        cidr: Some(pool.cidr.to_string()),
        description: Some(pool.description.clone()).filter(|text| !text.is_empty()),
        state: Some("advertised".into()),
        network_border_group: Some(region.to_owned()),
        ..Default::default()
    }
}

pub async fn describe_byoip_cidrs(
    context: &Context,
    input: ec2::DescribeByoipCidrsRequest,
) -> Result<ec2::DescribeByoipCidrsResult> {
    let tables = context.tables();
    let pools: Vec<_> = tables.public_pools.iter().cloned().collect();
    let id = |pool: &std::sync::Arc<PublicPool>| pool.pool_id.to_string();
    let (page, next_token) = page_of(&pools, id, &[], input.max_results, input.next_token.as_deref())?;
    let region = context.region.view.region.as_str();
    let byoip_cidrs = page.iter().map(|pool| to_api(pool, region)).collect();
    Ok(ec2::DescribeByoipCidrsResult { byoip_cidrs, next_token })
}

/// The pool of a block.
fn find(context: &Context, cidr: Option<&str>) -> Result<ec2::ByoipCidr> {
    let text = cidr.unwrap_or_default();
    let tables = context.tables();
    let pool =
        text.parse().ok().and_then(|cidr: Ipv4Net| tables.public_pools.iter().find(|of| of.cidr == cidr));
    let pool = pool.ok_or_else(|| {
        Error::invalid_parameter_value(format!(
            "The address range {text} is not provisioned in this account."
        ))
    })?;
    Ok(to_api(pool, context.region.view.region.as_str()))
}

/// It is already.
pub async fn advertise_byoip_cidr(
    context: &Context,
    input: ec2::AdvertiseByoipCidrRequest,
) -> Result<ec2::AdvertiseByoipCidrResult> {
    Ok(ec2::AdvertiseByoipCidrResult { byoip_cidr: Some(find(context, input.cidr.as_deref())?) })
}

pub async fn withdraw_byoip_cidr(
    context: &Context,
    input: ec2::WithdrawByoipCidrRequest,
) -> Result<ec2::WithdrawByoipCidrResult> {
    find(context, input.cidr.as_deref())?;
    Err(operators())
}

pub async fn provision_byoip_cidr(
    _: &Context,
    _: ec2::ProvisionByoipCidrRequest,
) -> Result<ec2::ProvisionByoipCidrResult> {
    Err(operators())
}

pub async fn deprovision_byoip_cidr(
    context: &Context,
    input: ec2::DeprovisionByoipCidrRequest,
) -> Result<ec2::DeprovisionByoipCidrResult> {
    find(context, input.cidr.as_deref())?;
    Err(operators())
}

pub async fn create_public_ipv4_pool(
    _: &Context,
    _: ec2::CreatePublicIpv4PoolRequest,
) -> Result<ec2::CreatePublicIpv4PoolResult> {
    Err(operators())
}

/// Whether there is such a pool, which is not the caller's to change.
fn check(context: &Context, pool_id: Option<&str>) -> Result<()> {
    let id = super::parse(pool_id.unwrap_or_default())?;
    context.tables().public_pools.find(&id).map(drop).ok_or_else(|| super::not_found(&id))
}

pub async fn delete_public_ipv4_pool(
    context: &Context,
    input: ec2::DeletePublicIpv4PoolRequest,
) -> Result<ec2::DeletePublicIpv4PoolResult> {
    check(context, input.pool_id.as_deref())?;
    Err(operators())
}

pub async fn provision_public_ipv4_pool_cidr(
    context: &Context,
    input: ec2::ProvisionPublicIpv4PoolCidrRequest,
) -> Result<ec2::ProvisionPublicIpv4PoolCidrResult> {
    check(context, input.pool_id.as_deref())?;
    Err(operators())
}

pub async fn deprovision_public_ipv4_pool_cidr(
    context: &Context,
    input: ec2::DeprovisionPublicIpv4PoolCidrRequest,
) -> Result<ec2::DeprovisionPublicIpv4PoolCidrResult> {
    check(context, input.pool_id.as_deref())?;
    Err(operators())
}
