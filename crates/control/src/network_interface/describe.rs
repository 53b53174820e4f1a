//! DescribeNetworkInterfaces, DescribeNetworkInterfaceAttribute.

use super::{NetworkInterface, PrivateAddress, address, tracking};
use crate::Context;
use crate::engine::Tables;
use crate::engine::describe::{self, Query};
use crate::engine::filter;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

pub async fn describe_network_interfaces(
    context: &Context,
    input: ec2::DescribeNetworkInterfacesRequest,
) -> Result<ec2::DescribeNetworkInterfacesResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.network_interface_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "networkInterfaceIds",
    };
    let region = &context.region.view.region;
    let page = describe::select(
        &tables.network_interfaces,
        Kind::NetworkInterface,
        &query,
        |_| true,
        |interface, name, values| match name {
            "availability-zone" => filter::one(values, interface.zone(&tables).to_owned()),
            "private-dns-name" => filter::one(values, interface.private_dns_name(region)),
            "association.public-dns-name" => filter::some(values, interface.public_dns_name(&tables, region)),
            "attachment.instance-owner-id" => {
                filter::some(values, interface.attachment.as_ref().map(|_| interface.owner.as_str()))
            }
            "group-name" => filter::many(
                values,
                groups(&tables, interface).into_iter().filter_map(|group| group.group_name),
            ),
            _ => false,
        },
    )?;
    Ok(ec2::DescribeNetworkInterfacesResult {
        network_interfaces: page
            .records
            .iter()
            .map(|interface| to_api(context, &tables, interface))
            .collect(),
        next_token: page.next_token,
    })
}

fn groups(tables: &Tables, interface: &NetworkInterface) -> Vec<ec2::GroupIdentifier> {
    let group = |id: &Id| ec2::GroupIdentifier {
        group_id: Some(id.to_string()),
        group_name: tables.security_groups.find(id).map(|group| group.name.clone()),
    };
    interface.security_groups.iter().map(group).collect()
}

fn attachment(interface: &NetworkInterface) -> Option<ec2::NetworkInterfaceAttachment> {
    interface.attachment.as_ref().map(|attachment| ec2::NetworkInterfaceAttachment {
        attachment_id: Some(attachment.attachment_id.to_string()),
        attach_time: Some(attachment.attached_at),
        delete_on_termination: Some(attachment.delete_on_termination),
        device_index: Some(attachment.device_index.into()),
        network_card_index: Some(attachment.network_card.into()),
        instance_id: Some(attachment.instance_id.to_string()),
        instance_owner_id: Some(interface.owner.to_string()),
        status: Some(attachment.state_name().into()),
        ..Default::default()
    })
}

pub fn to_api(context: &Context, tables: &Tables, interface: &NetworkInterface) -> ec2::NetworkInterface {
    let region = &context.region.view.region;
    let association = |own: &PrivateAddress| {
        let elastic = own.elastic();
        own.public_ip().map(|ip| ec2::NetworkInterfaceAssociation {
            allocation_id: elastic.map(|elastic| elastic.allocation_id.to_string()),
            association_id: elastic.map(|elastic| elastic.association_id.to_string()),
            ip_owner_id: interface.ip_owner(own).map(str::to_owned),
            public_dns_name: interface.public_name_of(own, tables, region),
            public_ip: Some(ip.to_string()),
            ..Default::default()
        })
    };
    ec2::NetworkInterface {
        network_interface_id: Some(interface.interface_id.to_string()),
        subnet_id: Some(interface.subnet_id.to_string()),
        vpc_id: Some(interface.vpc_id.to_string()),
        availability_zone: Some(interface.zone(tables).to_owned()),
        description: Some(interface.description.to_string()),
        owner_id: Some(interface.owner.to_string()),
        requester_managed: Some(interface.is_managed()),
        status: Some(interface.status().into()),
        mac_address: Some(interface.mac_text()),
        private_ip_address: Some(interface.private_ip().to_string()),
        private_dns_name: Some(interface.private_dns_name(region)),
        source_dest_check: Some(interface.source_dest_check),
        connection_tracking_configuration: tracking::to_api(interface.tracking),
        interface_type: Some(interface.purpose.name().into()),
        groups: groups(tables, interface),
        attachment: attachment(interface),
        private_ip_addresses: interface
            .addresses
            .iter()
            .enumerate()
            .map(|(at, own)| ec2::NetworkInterfacePrivateIpAddress {
                primary: Some(at == 0),
                private_ip_address: Some(own.private_ip.to_string()),
                private_dns_name: Some(own.private_dns_name(region)),
                association: association(own),
            })
            .collect(),
        association: interface.primary().and_then(association),
        ipv4_prefixes: address::prefixes_to_api(&interface.prefixes),
        tag_set: interface.tags.to_api(),
        ..Default::default()
    }
}

pub async fn describe_network_interface_attribute(
    context: &Context,
    input: ec2::DescribeNetworkInterfaceAttributeRequest,
) -> Result<ec2::DescribeNetworkInterfaceAttributeResult> {
    let id = Id::parse(Kind::NetworkInterface, input.network_interface_id.as_deref().unwrap_or_default())?;
    let tables = context.tables();
    let interface =
        tables.network_interfaces.find(&id).ok_or_else(|| Id::not_found(Kind::NetworkInterface, &id))?;
    let mut answer = ec2::DescribeNetworkInterfaceAttributeResult {
        network_interface_id: Some(id.to_string()),
        ..Default::default()
    };
    match input.attribute.as_deref().unwrap_or_default() {
        "description" => {
            answer.description = Some(ec2::AttributeValue { value: Some(interface.description.to_string()) })
        }
        "groupSet" => answer.groups = groups(&tables, interface),
        "sourceDestCheck" => {
            answer.source_dest_check =
                Some(ec2::AttributeBooleanValue { value: Some(interface.source_dest_check) });
        }
        "attachment" => answer.attachment = attachment(interface),
        "associatePublicIpAddress" => answer.associate_public_ip_address = Some(interface.wants_public_ip),
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter attribute is invalid. Unknown attribute."
            )));
        }
    }
    Ok(answer)
}
