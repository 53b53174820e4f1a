//! Making, deleting and associating DHCP options (VPC User Guide, "DHCP option sets in Amazon VPC").

use super::{DEFAULT, DEFAULT_SCOPE, DhcpOptions, VPC_RESOLVER, to_api};
use crate::Context;
use crate::engine::retire;
use crate::engine::tags::Specified;
use crate::engine::{Claim, Tables, Tx};
use crate::vpc;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

/// Of each family.
const SERVERS_MAX: usize = 4;
/// A name may be several, with spaces between.
const DOMAIN_NAME_LEN_MAX: usize = 255;
const LEASE_SECONDS: RangeInclusive<i64> = 140..=2_147_483_647;

fn invalid(key: &str, value: &str, why: &str) -> Error {
    Error::invalid_parameter_value(format!(
        "Value ({value}) for parameter value is invalid. Invalid DHCP option value for {key}: {why}"
    ))
}

/// The values of one option, checked. Several may be written as one, with commas.
fn read(key: &str, values: &[String]) -> Result<Vec<String>> {
    let values: Vec<String> =
        values.iter().flat_map(|value| value.split(',')).map(|value| value.trim().to_owned()).collect();
    let shown = values.join(",");
    let one = |why: &str| match values.as_slice() {
        [one] => Ok(one.as_str()),
        _ => Err(invalid(key, &shown, why)),
    };
    match key {
        "domain-name" => {
            let name = one("there can be one domain name.")?;
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_ ".contains(&byte);
            if name.is_empty() || name.len() > DOMAIN_NAME_LEN_MAX || !name.bytes().all(allowed) {
                return Err(invalid(key, name, "it is no domain name."));
            }
        }
        "domain-name-servers" => servers(key, &values, |value| value == VPC_RESOLVER)?,
        "ntp-servers" => servers(key, &values, |_| false)?,
        "netbios-name-servers" => {
            let good = values.iter().all(|value| value.parse::<Ipv4Addr>().is_ok());
            if !good || !(1..=SERVERS_MAX).contains(&values.len()) {
                return Err(invalid(key, &shown, "at most four IPv4 addresses are expected."));
            }
        }
        "netbios-node-type" => {
            if !["1", "2", "4", "8"].contains(&one("there can be one node type.")?) {
                return Err(invalid(key, &shown, "1, 2, 4 or 8 is expected."));
            }
        }
        "ipv6-address-preferred-lease-time" => {
            let seconds = one("there can be one lease time.")?.parse::<i64>();
            if !seconds.is_ok_and(|seconds| LEASE_SECONDS.contains(&seconds)) {
                return Err(invalid(key, &shown, "between 140 and 2147483647 seconds are expected."));
            }
        }
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter name is invalid. Unknown DHCP option"
            )));
        }
    }
    Ok(values)
}

/// Addresses, a few of each family; `other` says what else may stand for one.
fn servers(key: &str, values: &[String], other: impl Fn(&str) -> bool) -> Result<()> {
    let mut families = [0, 0];
    for value in values {
        match value.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => families[1] += 1,
            Ok(IpAddr::V4(_)) => families[0] += 1,
            Err(_) if other(value) => families[0] += 1,
            Err(_) => return Err(invalid(key, value, "it is no IP address.")),
        }
    }
    if values.is_empty() || families.iter().any(|count| *count > SERVERS_MAX) {
        return Err(invalid(key, &values.join(","), "at most four addresses of a family are expected."));
    }
    Ok(())
}

pub async fn create_dhcp_options(
    context: &Context,
    input: ec2::CreateDhcpOptionsRequest,
) -> Result<ec2::CreateDhcpOptionsResult> {
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::DhcpOptions])?;
    let mut configurations: Vec<(String, Vec<String>)> = Vec::new();
    for given in &input.dhcp_configurations {
        let key = given.key.as_deref().ok_or_else(|| Error::missing_parameter("dhcpConfiguration.key"))?;
        if configurations.iter().any(|(other, _)| other == key) {
            return Err(Error::invalid_parameter_value(format!("Duplicate DHCP option '{key}' specified.")));
        }
        configurations.push((key.to_owned(), read(key, &given.values)?));
    }
    if configurations.is_empty() {
        return Err(Error::missing_parameter("dhcpConfiguration"));
    }
    let options = context
        .transact(|tx| {
            let options = DhcpOptions {
                dhcp_options_id: tx.new_id(Kind::DhcpOptions),
                owner: context.account().clone(),
                configurations: configurations.clone(),
                retired: false,
                tags: tags.of(Kind::DhcpOptions),
            };
            tx.create(&options);
            Ok(options)
        })
        .await?;
    Ok(ec2::CreateDhcpOptionsResult { dhcp_options: Some(to_api(&options)) })
}

pub async fn delete_dhcp_options(context: &Context, input: ec2::DeleteDhcpOptionsRequest) -> Result<()> {
    let id = Id::parse(Kind::DhcpOptions, input.dhcp_options_id.as_deref().unwrap_or_default())?;
    let in_use = |tables: &Tables| {
        (tables.vpcs.count("dhcp-options-id", &id) > 0).then(|| {
            let message = format!("The dhcpOptions '{id}' has dependencies and cannot be deleted.");
            Error::new("DependencyViolation", message)
        })
    };
    let gone = |tx: &mut Tx<'_>, options: &DhcpOptions| {
        let default = tx.get::<Claim>(&Claim::key(DEFAULT_SCOPE, DEFAULT));
        if default.is_some_and(|claim| claim.owner.as_str() == options.dhcp_options_id.as_str()) {
            tx.release(DEFAULT_SCOPE, DEFAULT);
        }
    };
    retire::delete(context, &id, || Id::not_found(Kind::DhcpOptions, &id), in_use, gone).await
}

pub async fn associate_dhcp_options(
    context: &Context,
    input: ec2::AssociateDhcpOptionsRequest,
) -> Result<()> {
    let wanted = match input.dhcp_options_id.as_deref().unwrap_or_default() {
        "default" => None,
        id => Some(Id::parse(Kind::DhcpOptions, id)?),
    };
    let vpc_id = input.vpc_id.unwrap_or_default();
    context
        .transact(|tx| {
            let before = vpc::depend(tx, &vpc_id)?;
            if let Some(id) = &wanted {
                retire::depend::<DhcpOptions>(tx, id).ok_or_else(|| Id::not_found(Kind::DhcpOptions, id))?;
            }
            let mut after = (*before).clone();
            after.dhcp_options_id = wanted.clone();
            if after != *before {
                tx.put(&after);
            }
            Ok(())
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_as_the_guide_says() {
        for (key, values, good) in [
            ("domain-name", &["example.com"][..], true),
            ("domain-name", &["one.example two.example"], true),
            ("domain-name", &["one.example", "two.example"], false),
            ("domain-name", &["exa$mple"], false),
            ("domain-name-servers", &["AmazonProvidedDNS"], true),
            ("domain-name-servers", &["10.0.0.2", "AmazonProvidedDNS"], true),
            ("domain-name-servers", &["10.0.0.1,10.0.0.2", "10.0.0.3", "10.0.0.4"], true),
            ("domain-name-servers", &["10.0.0.1,10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"], false),
            ("domain-name-servers", &[], false),
            ("ntp-servers", &["AmazonProvidedDNS"], false),
            ("ntp-servers", &["169.254.169.123", "fd00:ec2::123"], true),
            ("netbios-name-servers", &["fd00::1"], false),
            ("netbios-name-servers", &["10.0.0.1"], true),
            ("netbios-node-type", &["2"], true),
            ("netbios-node-type", &["3"], false),
            ("ipv6-address-preferred-lease-time", &["140"], true),
            ("ipv6-address-preferred-lease-time", &["139"], false),
            ("router", &["10.0.0.1"], false),
        ] {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            assert_eq!(read(key, &values).is_ok(), good, "{key} {values:?}");
        }
    }
}
