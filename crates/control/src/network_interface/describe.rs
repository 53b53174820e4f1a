//! DescribeNetworkInterfaces, DescribeNetworkInterfaceAttribute.

use super::{NetworkInterface, PrivateAddress, address, attach, queues, tracking};
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::Values;
use crate::engine::{Tables, filter};
use aws_api::ec2;
use model::{Error, Id, Kind, Region, Result};

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
        |interface, name, values| field(&tables, region, interface, name, values),
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

/// Filters that need more than the record.
pub fn field<'t>(
    tables: &'t Tables,
    region: &Region,
    interface: &'t NetworkInterface,
    name: &str,
    values: &mut Values<'t>,
) -> bool {
    let subnet = || tables.subnets.find(&interface.subnet_id);
    let public_names =
        || interface.addresses.iter().filter_map(|own| interface.public_name_of(own, tables, region));
    match name {
        "availability-zone" => filter::some(values, subnet().map(|subnet| subnet.zone.as_str())),
        "availability-zone-id" => filter::some(values, subnet().map(|subnet| subnet.zone_id.as_str())),
        "private-dns-name" => filter::one(values, interface.private_dns_name(region)),
        "addresses.private-dns-name" => {
            filter::many(values, interface.addresses.iter().map(|own| own.private_dns_name(region)))
        }
        "public-dns-name" => filter::some(values, interface.public_dns_name(tables, region)),
        "addresses.association.public-dns-name" | "association.public-dns-name" => {
            filter::many(values, public_names())
        }
        "group-name" => filter::many(
            values,
            interface
                .security_groups
                .iter()
                .filter_map(|id| tables.security_groups.find(id))
                .map(|group| group.name.as_str()),
        ),
        _ => false,
    }
}

fn groups(tables: &Tables, interface: &NetworkInterface) -> Vec<ec2::GroupIdentifier> {
    let group = |id: &Id| ec2::GroupIdentifier {
        group_id: Some(id.to_string()),
        group_name: tables.security_groups.find(id).map(|group| group.name.clone()),
    };
    interface.security_groups.iter().map(group).collect()
}

fn attachment(tables: &Tables, interface: &NetworkInterface) -> Option<ec2::NetworkInterfaceAttachment> {
    let limits = attach::limits(tables, interface);
    interface.attachment.as_ref().map(|attachment| ec2::NetworkInterfaceAttachment {
        attachment_id: Some(attachment.attachment_id.to_string()),
        attach_time: Some(attachment.attached_at),
        delete_on_termination: Some(attachment.delete_on_termination),
        device_index: Some(attachment.device_index.into()),
        network_card_index: Some(attachment.network_card.into()),
        instance_id: Some(attachment.instance_id.to_string()),
        instance_owner_id: Some(interface.owner.to_string()),
        status: Some(attachment.state_name().into()),
        ena_queue_count: limits.and_then(|limits| queues::shown(attachment, &limits)),
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
    let subnet = tables.subnets.find(&interface.subnet_id);
    ec2::NetworkInterface {
        network_interface_id: Some(interface.interface_id.to_string()),
        subnet_id: Some(interface.subnet_id.to_string()),
        vpc_id: Some(interface.vpc_id.to_string()),
        availability_zone: Some(interface.zone(tables).to_owned()),
        availability_zone_id: subnet.map(|subnet| subnet.zone_id.clone()),
        description: Some(interface.description.to_string()),
        owner_id: Some(interface.owner.to_string()),
        requester_id: interface.requester().map(str::to_owned),
        requester_managed: Some(interface.is_managed()),
        status: Some(interface.status().into()),
        mac_address: Some(interface.mac_text()),
        private_ip_address: interface.primary().map(|own| own.private_ip.to_string()),
        private_dns_name: interface.primary().map(|own| own.private_dns_name(region)),
        source_dest_check: Some(interface.source_dest_check),
        connection_tracking_configuration: tracking::to_api(interface.tracking),
        interface_type: Some(interface.purpose.name().into()),
        groups: groups(tables, interface),
        attachment: attachment(tables, interface),
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
        public_dns_name: interface.public_dns_name(tables, region),
        public_ip_dns_name_options: interface.public_names(tables, region),
        ipv4_prefixes: address::prefixes_to_api(&interface.prefixes),
        ipv6_native: subnet.filter(|subnet| subnet.cidr.is_none()).map(|_| true),
        ipv6_address: interface.ipv6.addresses.first().map(|address| address.to_string()),
        ipv6_addresses: interface
            .ipv6
            .addresses()
            .map(|(address, is_primary)| ec2::NetworkInterfaceIpv6Address {
                ipv6_address: Some(address.to_string()),
                is_primary_ipv6: Some(is_primary),
                ..Default::default()
            })
            .collect(),
        ipv6_prefixes: interface
            .ipv6
            .prefixes
            .iter()
            .map(|prefix| ec2::Ipv6PrefixSpecification { ipv6_prefix: Some(prefix.to_string()) })
            .collect(),
        operator: Some(ec2::OperatorResponse { managed: Some(false), ..Default::default() }),
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
        "attachment" => answer.attachment = attachment(&tables, interface),
        "associatePublicIpAddress" => answer.associate_public_ip_address = Some(interface.wants_public_ip),
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter attribute is invalid. Unknown attribute."
            )));
        }
    }
    Ok(answer)
}
