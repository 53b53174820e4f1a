//! A VPC's attributes, and the tenancy of what is launched into it.

use super::{Vpc, depend};
use crate::Context;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

pub async fn describe_vpc_attribute(
    context: &Context,
    input: ec2::DescribeVpcAttributeRequest,
) -> Result<ec2::DescribeVpcAttributeResult> {
    let vpc_id = Id::parse(Kind::Vpc, input.vpc_id.as_deref().unwrap_or_default())?;
    let vpc = context.region.view.record::<Vpc>(&vpc_id).ok_or_else(|| Id::not_found(Kind::Vpc, &vpc_id))?;
    let mut result =
        ec2::DescribeVpcAttributeResult { vpc_id: Some(vpc_id.to_string()), ..Default::default() };
    let value = |value| Some(ec2::AttributeBooleanValue { value: Some(value) });
    match input.attribute.as_deref().unwrap_or_default() {
        "enableDnsSupport" => result.enable_dns_support = value(vpc.dns_support),
        "enableDnsHostnames" => result.enable_dns_hostnames = value(vpc.dns_hostnames),
        "enableNetworkAddressUsageMetrics" => {
            result.enable_network_address_usage_metrics = value(vpc.address_usage_metrics);
        }
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter attribute is invalid. Unknown attribute."
            )));
        }
    }
    Ok(result)
}

pub async fn modify_vpc_attribute(context: &Context, input: ec2::ModifyVpcAttributeRequest) -> Result<()> {
    let value = |given: &Option<ec2::AttributeBooleanValue>| given.as_ref().and_then(|given| given.value);
    let support = value(&input.enable_dns_support);
    let hostnames = value(&input.enable_dns_hostnames);
    let metrics = value(&input.enable_network_address_usage_metrics);
    match [support, hostnames, metrics].into_iter().flatten().count() {
        0 => return Err(Error::invalid_parameter_combination("No attributes specified.")),
        1 => {}
        _ => {
            return Err(Error::invalid_parameter_combination(
                "Only one attribute can be modified in a request.",
            ));
        }
    }
    let vpc_id = input.vpc_id.unwrap_or_default();
    context
        .transact(|tx| {
            let before = depend(tx, &vpc_id)?;
            let mut vpc = (*before).clone();
            vpc.dns_support = support.unwrap_or(vpc.dns_support);
            vpc.dns_hostnames = hostnames.unwrap_or(vpc.dns_hostnames);
            vpc.address_usage_metrics = metrics.unwrap_or(vpc.address_usage_metrics);
            if hostnames == Some(true) && !vpc.dns_support {
                return Err(Error::invalid_parameter_combination(format!(
                    "DNS hostnames can only be enabled where DNS support is: it is not in the vpc '{vpc_id}'."
                )));
            }
            if vpc != *before {
                tx.put(&vpc);
            }
            Ok(())
        })
        .await
}

pub async fn modify_vpc_tenancy(
    context: &Context,
    input: ec2::ModifyVpcTenancyRequest,
) -> Result<ec2::ModifyVpcTenancyResult> {
    let tenancy = input.instance_tenancy.as_deref().unwrap_or_default();
    if tenancy != "default" {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({tenancy}) for parameter instanceTenancy is invalid. The tenancy of a VPC can only be changed to 'default'."
        )));
    }
    let vpc_id = input.vpc_id.unwrap_or_default();
    context
        .transact(|tx| {
            let before = depend(tx, &vpc_id)?;
            if before.dedicated {
                tx.put(&Vpc { dedicated: false, ..(*before).clone() });
            }
            Ok(())
        })
        .await?;
    Ok(ec2::ModifyVpcTenancyResult { return_value: Some(true) })
}
