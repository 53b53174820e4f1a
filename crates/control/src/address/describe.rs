//! DescribeAddresses.

use super::Address;
use crate::Context;
use crate::engine::{Tables, describe, filter};
use crate::network_interface::NetworkInterface;
use crate::public_pool;
use aws_api::ec2;
use model::{Error, Kind, Result};
use std::sync::Arc;

pub async fn describe_addresses(
    context: &Context,
    input: ec2::DescribeAddressesRequest,
) -> Result<ec2::DescribeAddressesResult> {
    let tables = context.tables();
    let mut ids = input.allocation_ids.clone();
    for ip in &input.public_ips {
        let found = tables.addresses.with("public-ip", ip).next();
        let not_found = || Error::new("InvalidAddress.NotFound", format!("Address '{ip}' not found."));
        ids.push(found.ok_or_else(not_found)?.allocation_id.to_string());
    }
    let region = context.region.view.region.as_str();
    let found = describe::select_all(
        &tables.addresses,
        Kind::ElasticIp,
        &ids,
        &input.filters,
        |address, name, values| match name {
            "instance-id" => {
                let attachment = interface(&tables, address).and_then(|found| found.attachment.as_ref());
                filter::some(values, attachment.map(|attachment| attachment.instance_id.to_string()))
            }
            "network-border-group" => filter::one(values, region.to_owned()),
            _ => false,
        },
    )?;
    let addresses = found.iter().map(|address| to_api(&tables, address, region)).collect();
    Ok(ec2::DescribeAddressesResult { addresses })
}

fn interface<'t>(tables: &'t Tables, address: &Address) -> Option<&'t Arc<NetworkInterface>> {
    tables.network_interfaces.find(&address.association.as_ref()?.interface_id)
}

fn to_api(tables: &Tables, address: &Address, region: &str) -> ec2::Address {
    let association = address.association.as_ref();
    let attachment = interface(tables, address).and_then(|found| found.attachment.as_ref());
    ec2::Address {
        allocation_id: Some(address.allocation_id.to_string()),
        public_ip: Some(address.public_ip.to_string()),
        association_id: association.map(|one| one.association_id.to_string()),
        network_interface_id: association.map(|one| one.interface_id.to_string()),
        network_interface_owner_id: association.map(|_| address.owner.to_string()),
        private_ip_address: association.map(|one| one.private_ip.to_string()),
        instance_id: attachment.map(|attachment| attachment.instance_id.to_string()),
        domain: Some("vpc".into()),
        public_ipv4_pool: Some(public_pool::name_of(tables, address.public_ip)),
        network_border_group: Some(region.to_owned()),
        tags: address.tags.to_api(),
        ..Default::default()
    }
}
