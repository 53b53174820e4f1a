//! ClassicLink, which linked instances of EC2-Classic to a VPC. EC2-Classic is retired and never was here: nothing is
//! linked, and nothing can be.

use super::Vpc;
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::filter;
use crate::instance::Instance;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

fn retired() -> Error {
    Error::new(
        "UnsupportedOperation",
        "EC2-Classic is retired: there is nothing that a VPC could be linked to.",
    )
}

fn check_vpc(context: &Context, id: Option<&str>) -> Result<()> {
    let id = Id::parse(Kind::Vpc, id.unwrap_or_default())?;
    context.tables().vpcs.find(&id).map(drop).ok_or_else(|| Id::not_found(Kind::Vpc, &id))
}

fn check_instance(context: &Context, id: Option<&str>) -> Result<()> {
    let id = Id::parse(Kind::Instance, id.unwrap_or_default())?;
    context.region.view.record::<Instance>(&id).map(drop).ok_or_else(|| Id::not_found(Kind::Instance, &id))
}

pub async fn describe_vpc_classic_link(
    context: &Context,
    input: ec2::DescribeVpcClassicLinkRequest,
) -> Result<ec2::DescribeVpcClassicLinkResult> {
    let tables = context.tables();
    let field = |_: &Vpc, name: &str, values: &mut _| match name {
        "is-classic-link-enabled" => filter::one(values, "false"),
        _ => false,
    };
    let found = describe::select_all(&tables.vpcs, Kind::Vpc, &input.vpc_ids, &input.filters, field)?;
    let to_api = |vpc: &Vpc| ec2::VpcClassicLink {
        classic_link_enabled: Some(false),
        vpc_id: Some(vpc.vpc_id.to_string()),
        tags: vpc.tags.to_api(),
    };
    Ok(ec2::DescribeVpcClassicLinkResult { vpcs: found.iter().map(|vpc| to_api(vpc)).collect() })
}

pub async fn describe_vpc_classic_link_dns_support(
    context: &Context,
    input: ec2::DescribeVpcClassicLinkDnsSupportRequest,
) -> Result<ec2::DescribeVpcClassicLinkDnsSupportResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.vpc_ids,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "vpcIds",
        ..Query::default()
    };
    let page = describe::select(&tables.vpcs, Kind::Vpc, &query, |_| true, |_, _, _| false)?;
    let to_api = |vpc: &Vpc| ec2::ClassicLinkDnsSupport {
        classic_link_dns_supported: Some(false),
        vpc_id: Some(vpc.vpc_id.to_string()),
    };
    Ok(ec2::DescribeVpcClassicLinkDnsSupportResult {
        vpcs: page.records.iter().map(|vpc| to_api(vpc)).collect(),
        next_token: page.next_token,
    })
}

pub async fn describe_classic_link_instances(
    context: &Context,
    input: ec2::DescribeClassicLinkInstancesRequest,
) -> Result<ec2::DescribeClassicLinkInstancesResult> {
    input.instance_ids.iter().try_for_each(|id| check_instance(context, Some(id)))?;
    let names = ["group-id", "instance-id", "vpc-id"];
    describe::none(&names, &input.filters, input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeClassicLinkInstancesResult::default())
}

pub async fn enable_vpc_classic_link(
    context: &Context,
    input: ec2::EnableVpcClassicLinkRequest,
) -> Result<ec2::EnableVpcClassicLinkResult> {
    check_vpc(context, input.vpc_id.as_deref())?;
    Err(retired())
}

pub async fn disable_vpc_classic_link(
    context: &Context,
    input: ec2::DisableVpcClassicLinkRequest,
) -> Result<ec2::DisableVpcClassicLinkResult> {
    check_vpc(context, input.vpc_id.as_deref())?;
    Err(retired())
}

pub async fn enable_vpc_classic_link_dns_support(
    context: &Context,
    input: ec2::EnableVpcClassicLinkDnsSupportRequest,
) -> Result<ec2::EnableVpcClassicLinkDnsSupportResult> {
    check_vpc(context, input.vpc_id.as_deref())?;
    Err(retired())
}

pub async fn disable_vpc_classic_link_dns_support(
    context: &Context,
    input: ec2::DisableVpcClassicLinkDnsSupportRequest,
) -> Result<ec2::DisableVpcClassicLinkDnsSupportResult> {
    check_vpc(context, input.vpc_id.as_deref())?;
    Err(retired())
}

pub async fn attach_classic_link_vpc(
    context: &Context,
    input: ec2::AttachClassicLinkVpcRequest,
) -> Result<ec2::AttachClassicLinkVpcResult> {
    check_instance(context, input.instance_id.as_deref())?;
    check_vpc(context, input.vpc_id.as_deref())?;
    Err(retired())
}

pub async fn detach_classic_link_vpc(
    context: &Context,
    input: ec2::DetachClassicLinkVpcRequest,
) -> Result<ec2::DetachClassicLinkVpcResult> {
    check_instance(context, input.instance_id.as_deref())?;
    check_vpc(context, input.vpc_id.as_deref())?;
    Err(retired())
}
