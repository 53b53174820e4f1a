//! DescribeAddressesAttribute, ModifyAddressAttribute, ResetAddressAttribute: the names that addresses shall have in the
//! reverse (EC2 User Guide, "Create a reverse DNS record for email").
//!
//! A name is kept with its address and stays an update that is pending: no name server of this cloud answers for public
//! addresses, and none says that it does.

use super::Address;
use crate::Context;
use crate::engine::describe::{self, Query};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

const WAITING: &str = "No name server answers for the public addresses of this cloud yet.";

/// The only attribute that there is.
const DOMAIN_NAME: &str = "domain-name";
/// RFC 1035, 2.3.4.
const NAME_LEN_MAX: usize = 253;
const LABEL_LEN_MAX: usize = 63;

fn check_attribute(name: Option<&str>) -> Result<()> {
    match name {
        None | Some(DOMAIN_NAME) => Ok(()),
        Some(other) => Err(Error::invalid_parameter_value(format!(
            "Value ({other}) for parameter attribute is invalid. Expected '{DOMAIN_NAME}'."
        ))),
    }
}

/// A domain name in its full form, with the dot at its end.
fn full_name(text: &str) -> Result<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=LABEL_LEN_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > NAME_LEN_MAX || !name.contains('.') || !name.split('.').all(is_label) {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({text}) for parameter domainName is invalid. It is not the name of a host."
        )));
    }
    Ok(format!("{}.", name.to_ascii_lowercase()))
}

pub async fn describe_addresses_attribute(
    context: &Context,
    input: ec2::DescribeAddressesAttributeRequest,
) -> Result<ec2::DescribeAddressesAttributeResult> {
    check_attribute(input.attribute.as_deref())?;
    let tables = context.tables();
    let query = Query {
        ids: &input.allocation_ids,
        filters: &[],
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "allocationIds",
    };
    let page = describe::select(&tables.addresses, Kind::ElasticIp, &query, |_| true, |_, _, _| false)?;
    Ok(ec2::DescribeAddressesAttributeResult {
        addresses: page.records.iter().map(|address| to_api(address)).collect(),
        next_token: page.next_token,
    })
}

pub async fn modify_address_attribute(
    context: &Context,
    input: ec2::ModifyAddressAttributeRequest,
) -> Result<ec2::ModifyAddressAttributeResult> {
    let name = input.domain_name.as_deref().filter(|name| !name.is_empty());
    let name = full_name(name.ok_or_else(|| Error::missing_parameter("DomainName"))?)?;
    let address = set(context, input.allocation_id, Some(name)).await?;
    Ok(ec2::ModifyAddressAttributeResult { address: Some(to_api(&address)) })
}

pub async fn reset_address_attribute(
    context: &Context,
    input: ec2::ResetAddressAttributeRequest,
) -> Result<ec2::ResetAddressAttributeResult> {
    check_attribute(input.attribute.as_deref())?;
    let address = set(context, input.allocation_id, None).await?;
    Ok(ec2::ResetAddressAttributeResult { address: Some(to_api(&address)) })
}

async fn set(context: &Context, id: Option<String>, reverse_name: Option<String>) -> Result<Address> {
    let id = Id::parse(Kind::ElasticIp, id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let address = tx.get::<Address>(&id).ok_or_else(|| Id::not_found(Kind::ElasticIp, &id))?;
            let address = Address { reverse_name: reverse_name.clone(), ..(*address).clone() };
            tx.put(&address);
            Ok(address)
        })
        .await
}

fn to_api(address: &Address) -> ec2::AddressAttribute {
    ec2::AddressAttribute {
        public_ip: Some(address.public_ip.to_string()),
        allocation_id: Some(address.allocation_id.to_string()),
        ptr_record: None,
        ptr_record_update: address.reverse_name.clone().map(|name| ec2::PtrUpdateStatus {
            value: Some(name),
            status: Some("PENDING".into()),
            reason: Some(WAITING.into()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_full_ones_of_hosts() {
        assert_eq!(full_name("Mail.Example.com").unwrap(), "mail.example.com.");
        assert_eq!(full_name("a-b.example.").unwrap(), "a-b.example.");
        let (long, label) = (format!("{}a.example", "a.".repeat(125)), format!("{}.example", "a".repeat(64)));
        for text in
            ["", ".", "mail", "mail..example", ".example.com", "-a.example", "ma il.example", &long, &label]
        {
            assert!(full_name(text).is_err(), "{text}");
        }
    }
}
