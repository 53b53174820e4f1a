//! What an instance is called inside its VPC.

use super::Instance;
use crate::Context;
use crate::host_names::HostNames;
use crate::subnet::Subnet;
use aws_api::ec2;
use model::{Error, Id, InstanceState, Kind, Result};

/// As the launch says; what it leaves out is as its subnet has it.
pub fn at_launch(input: &ec2::RunInstancesRequest, subnet: &Subnet) -> Result<HostNames> {
    let Some(asked) = &input.private_dns_name_options else { return Ok(subnet.names) };
    let has_ipv4 = subnet.cidr.is_some();
    let by_resource = match asked.hostname_type.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => HostNames::parse_kind("privateDnsNameOptions.hostnameType", text)?,
        None => subnet.names.by_resource,
    };
    check(by_resource, has_ipv4)?;
    Ok(HostNames {
        by_resource,
        resource_a_record: asked.enable_resource_name_dns_a_record.unwrap_or(subnet.names.resource_a_record),
        resource_aaaa_record: asked
            .enable_resource_name_dns_aaaa_record
            .unwrap_or(subnet.names.resource_aaaa_record),
    })
}

/// What has no address of IPv4 is named after itself.
fn check(by_resource: bool, has_ipv4: bool) -> Result<()> {
    match by_resource || has_ipv4 {
        true => Ok(()),
        false => Err(Error::invalid_parameter_value(
            "Value (ip-name) for parameter hostnameType is invalid. An instance without IPv4 has a resource-name.",
        )),
    }
}

pub fn to_api(names: HostNames) -> ec2::PrivateDnsNameOptionsResponse {
    ec2::PrivateDnsNameOptionsResponse {
        hostname_type: Some(names.kind().into()),
        enable_resource_name_dns_a_record: Some(names.resource_a_record),
        enable_resource_name_dns_aaaa_record: Some(names.resource_aaaa_record),
    }
}

pub async fn modify_private_dns_name_options(
    context: &Context,
    input: ec2::ModifyPrivateDnsNameOptionsRequest,
) -> Result<ec2::ModifyPrivateDnsNameOptionsResult> {
    let id = Id::parse(Kind::Instance, input.instance_id.as_deref().unwrap_or_default())?;
    let kind = input.private_dns_hostname_type.as_deref();
    let by_resource = kind.map(|text| HostNames::parse_kind("privateDnsHostnameType", text)).transpose()?;
    context
        .transact(|tx| {
            let before = tx.get::<Instance>(&id).filter(|instance| !instance.is_terminated());
            let before = before.ok_or_else(|| Id::not_found(Kind::Instance, &id))?;
            let names = HostNames {
                by_resource: by_resource.unwrap_or(before.names.by_resource),
                resource_a_record: input
                    .enable_resource_name_dns_a_record
                    .unwrap_or(before.names.resource_a_record),
                resource_aaaa_record: input
                    .enable_resource_name_dns_aaaa_record
                    .unwrap_or(before.names.resource_aaaa_record),
            };
            let primary = before.primary_interface(tx.tables());
            check(names.by_resource, primary.is_none_or(|interface| interface.primary().is_some()))?;
            // A guest learns its name when it starts.
            if names.by_resource != before.names.by_resource && before.state != InstanceState::Stopped {
                return Err(Error::new(
                    "IncorrectInstanceState",
                    format!("The instance '{id}' is not in the 'stopped' state."),
                ));
            }
            if names != before.names {
                tx.put(&Instance { names, ..(*before).clone() });
            }
            Ok(())
        })
        .await?;
    Ok(ec2::ModifyPrivateDnsNameOptionsResult { r#return: Some(true) })
}
