//! ModifySubnetAttribute: one attribute a request.

use super::{Subnet, depend};
use crate::Context;
use crate::engine::unsupported::{given, refuse};
use crate::host_names::HostNames;
use aws_api::ec2;
use model::{Error, Result};

pub async fn modify_subnet_attribute(
    context: &Context,
    input: ec2::ModifySubnetAttributeRequest,
) -> Result<()> {
    let value = |given: &Option<ec2::AttributeBooleanValue>| given.as_ref().and_then(|given| given.value);
    refuse([
        (
            given(&input.customer_owned_ipv4_pool)
                || value(&input.map_customer_owned_ip_on_launch) == Some(true),
            "Customer-owned address pools are",
        ),
        (
            input.enable_lni_at_device_index.is_some() || value(&input.disable_lni_at_device_index).is_some(),
            "Local network interfaces are",
        ),
    ])?;
    let kind = input.private_dns_hostname_type_on_launch.as_deref();
    let by_resource =
        kind.map(|text| HostNames::parse_kind("privateDnsHostnameTypeOnLaunch", text)).transpose()?;
    let public = value(&input.map_public_ip_on_launch);
    let ipv6 = value(&input.assign_ipv6_address_on_creation);
    let a_record = value(&input.enable_resource_name_dns_a_record_on_launch);
    let aaaa_record = value(&input.enable_resource_name_dns_aaaa_record_on_launch);
    let dns64 = value(&input.enable_dns64);
    // There is no such thing: that there shall be none says nothing new.
    let customer_owned = value(&input.map_customer_owned_ip_on_launch);
    let given = [by_resource, public, ipv6, dns64, a_record, aaaa_record, customer_owned];
    match given.into_iter().flatten().count() {
        0 => return Err(Error::invalid_parameter_combination("No attributes specified.")),
        1 => {}
        _ => {
            return Err(Error::invalid_parameter_combination(
                "Only one attribute can be modified in a request.",
            ));
        }
    }
    // What needs a block of which family; what is of IPv6 alone has no choice.
    let needs = [
        ("map-public-ip-on-launch", "true", public == Some(true), IPV4),
        ("enable-resource-name-dns-a-record-on-launch", "true", a_record == Some(true), IPV4),
        ("private-dns-hostname-type-on-launch", "ip-name", by_resource == Some(false), IPV4),
        ("assign-ipv6-address-on-creation", "false", ipv6 == Some(false), IPV4),
        ("assign-ipv6-address-on-creation", "true", ipv6 == Some(true), IPV6),
        ("enable-resource-name-dns-aaaa-record-on-launch", "true", aaaa_record == Some(true), IPV6),
        ("enable-dns64", "true", dns64 == Some(true), IPV6),
    ];
    let needs = needs.into_iter().filter(|(_, _, is_asked, _)| *is_asked);
    let subnet_id = input.subnet_id.unwrap_or_default();
    context
        .transact(|tx| {
            let before = depend(tx, &subnet_id)?;
            needs
                .clone()
                .try_for_each(|(attribute, value, _, family)| check(&before, attribute, value, family))?;
            let mut after: Subnet = (*before).clone();
            after.map_public_ip_on_launch = public.unwrap_or(after.map_public_ip_on_launch);
            after.assign_ipv6_on_creation = ipv6.unwrap_or(after.assign_ipv6_on_creation);
            after.dns64 = dns64.unwrap_or(after.dns64);
            after.names.by_resource = by_resource.unwrap_or(after.names.by_resource);
            after.names.resource_a_record = a_record.unwrap_or(after.names.resource_a_record);
            after.names.resource_aaaa_record = aaaa_record.unwrap_or(after.names.resource_aaaa_record);
            if after != *before {
                tx.put(&after);
            }
            Ok(())
        })
        .await
}

const IPV4: &str = "IPv4";
const IPV6: &str = "IPv6";

/// Whether the subnet has a block of the family that a value of an attribute needs.
fn check(subnet: &Subnet, attribute: &str, value: &str, family: &str) -> Result<()> {
    match if family == IPV4 { subnet.cidr.is_some() } else { subnet.ipv6.is_some() } {
        true => Ok(()),
        false => Err(Error::invalid_parameter_value(format!(
            "Invalid value '{value}' for {attribute}. Cannot set {attribute} to {value} unless the subnet ({}) has an {family} CIDR block associated with it.",
            subnet.subnet_id
        ))),
    }
}
