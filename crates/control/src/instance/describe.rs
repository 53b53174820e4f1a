//! DescribeInstances.

use super::{Instance, Tenancy, architecture_name, boot_mode_name};
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::Values;
use crate::engine::{Tables, filter};
use crate::image;
use crate::network_interface::describe::field as interface_field;
use crate::network_interface::{NetworkInterface, PrivateAddress, attach, queues, tracking};
use aws_api::ec2;
use model::{Kind, Result};
use std::sync::Arc;

pub async fn describe_instances(
    context: &Context,
    input: ec2::DescribeInstancesRequest,
) -> Result<ec2::DescribeInstancesResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.instance_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "instancesSet",
    };
    let page = describe::select(
        &tables.instances,
        Kind::Instance,
        &query,
        |_| true,
        |instance, name, values| field(context, &tables, instance, name, values),
    )?;
    Ok(ec2::DescribeInstancesResult {
        reservations: reservations(context, &tables, &page.records),
        next_token: page.next_token,
    })
}

/// Filters about an instance's interfaces, volumes and groups.
fn field<'t>(
    context: &Context,
    tables: &'t Tables,
    instance: &'t Instance,
    name: &str,
    values: &mut Values<'t>,
) -> bool {
    let region = &context.region.view.region;
    let interfaces = || instance.interfaces.iter().filter_map(|id| tables.network_interfaces.find(id));
    let volumes = || instance.disks.iter().filter_map(|disk| tables.volumes.find(&disk.volume_id));
    let attachments = || volumes().filter_map(|volume| volume.attachment_to(&instance.instance_id));
    let group_names = || {
        interfaces()
            .flat_map(|interface| &interface.security_groups)
            .filter_map(|id| tables.security_groups.find(id))
            .map(|group| group.name.as_str())
    };
    match name {
        "availability-zone-id" => filter::some(
            values,
            tables.subnets.find(&instance.subnet_id).map(|subnet| subnet.zone_id.as_str()),
        ),
        "block-device-mapping.attach-time" => {
            filter::many(values, attachments().map(|a| filter::time(a.attached_at)))
        }
        "block-device-mapping.delete-on-termination" => {
            filter::many(values, attachments().map(|a| filter::boolean(a.delete_on_termination)))
        }
        "block-device-mapping.device-name" => {
            filter::many(values, attachments().map(|a| a.device_name.as_str()))
        }
        "block-device-mapping.status" => filter::many(values, attachments().map(|a| a.state.name())),
        "block-device-mapping.volume-id" => {
            filter::many(values, instance.disks.iter().map(|disk| disk.volume_id.as_str()))
        }
        "dns-name" => filter::some(values, instance.public_dns_name(tables, region)),
        "private-dns-name" => filter::some(values, instance.private_dns_name(tables, region)),
        "ipv6-address" => filter::many(
            values,
            interfaces().flat_map(|interface| interface.ipv6.addresses.iter().map(|own| own.to_string())),
        ),
        "instance.group-id" | "group-id" => filter::many(
            values,
            interfaces().flat_map(|interface| &interface.security_groups).map(|id| id.as_str()),
        ),
        "instance.group-name" | "group-name" => filter::many(values, group_names()),
        "ip-address" => filter::many(
            values,
            interfaces()
                .flat_map(|interface| interface.addresses.iter().filter_map(PrivateAddress::public_ip))
                .map(|ip| ip.to_string()),
        ),
        "private-ip-address" => filter::many(
            values,
            interfaces()
                .flat_map(|interface| interface.addresses.iter().map(|own| own.private_ip.to_string())),
        ),
        "source-dest-check" => {
            filter::many(values, interfaces().map(|interface| filter::boolean(interface.source_dest_check)))
        }
        _ => match name.strip_prefix("network-interface.") {
            Some(of_interface) => {
                // Checked on an empty list too: the name is known if an interface knows it.
                let mut known = interfaces().next().is_none();
                for interface in interfaces() {
                    known |= filter::record_field(&**interface, of_interface, values)
                        || interface_field(tables, region, interface, of_interface, values);
                }
                known
            }
            None => false,
        },
    }
}

/// Groups instances by reservation, in the order in which the reservations first appear.
pub fn reservations(
    context: &Context,
    tables: &Tables,
    instances: &[Arc<Instance>],
) -> Vec<ec2::Reservation> {
    let mut reservations: indexmap::IndexMap<&str, ec2::Reservation> = indexmap::IndexMap::new();
    for instance in instances {
        let reservation = reservations.entry(&instance.reservation_id).or_insert_with(|| ec2::Reservation {
            reservation_id: Some(instance.reservation_id.to_string()),
            owner_id: Some(instance.owner.to_string()),
            ..Default::default()
        });
        reservation.instances.push(to_api(context, tables, instance));
    }
    for reservation in reservations.values_mut() {
        reservation.instances.sort_by_key(|instance| instance.ami_launch_index);
    }
    reservations.into_values().collect()
}

fn group_identifiers(tables: &Tables, interface: &NetworkInterface) -> Vec<ec2::GroupIdentifier> {
    interface
        .security_groups
        .iter()
        .map(|id| ec2::GroupIdentifier {
            group_id: Some(id.to_string()),
            group_name: tables.security_groups.find(id).map(|group| group.name.clone()),
        })
        .collect()
}

pub fn to_api(context: &Context, tables: &Tables, instance: &Instance) -> ec2::Instance {
    let region = &context.region.view.region;
    let primary = instance.primary_interface(tables);
    let text = |text: &str| Some(text.to_owned());
    let gone = instance.is_terminated();
    let on_dedicated_host = instance.placement.tenancy == Tenancy::Host;
    ec2::Instance {
        instance_id: Some(instance.instance_id.to_string()),
        image_id: Some(instance.image_id.to_string()),
        state: Some(super::lifecycle::state_to_api(instance.state)),
        state_transition_reason: Some(instance.state_transition_reason.to_string()),
        state_reason: instance
            .state_reason
            .as_ref()
            .map(|reason| ec2::StateReason { code: text(&reason.code), message: text(&reason.message) }),
        private_dns_name: Some(instance.private_dns_name(tables, region).unwrap_or_default()),
        public_dns_name: Some(instance.public_dns_name(tables, region).unwrap_or_default()),
        private_ip_address: primary.and_then(|interface| interface.private_ip()).map(|ip| ip.to_string()),
        public_ip_address: primary.and_then(|interface| interface.public_ip()).map(|ip| ip.to_string()),
        ipv6_address: primary.and_then(|interface| interface.ipv6.addresses.first()).map(|ip| ip.to_string()),
        key_name: instance.public_key.as_ref().map(|key| key.0.clone()),
        ami_launch_index: Some(instance.launch_index as i32),
        client_token: Some(instance.client_token.as_deref().unwrap_or_default().to_owned()),
        instance_type: text(&instance.instance_type),
        launch_time: Some(instance.launched_at),
        placement: Some(ec2::Placement {
            availability_zone: text(&instance.placement.zone),
            group_name: Some(instance.placement.group_name().unwrap_or_default().to_owned()),
            group_id: instance.placement.group_id().map(|id| id.to_string()),
            partition_number: instance.placement.partition_number().map(|number| number as i32),
            tenancy: text(instance.placement.tenancy.name()),
            affinity: on_dedicated_host.then(|| instance.placement.affinity.name().to_owned()),
            host_id: instance.placement.dedicated_host_id.clone().map(Into::into),
            ..Default::default()
        }),
        monitoring: Some(super::monitoring::to_api(instance.monitoring)),
        subnet_id: (!gone).then(|| instance.subnet_id.to_string()),
        vpc_id: (!gone).then(|| instance.vpc_id.to_string()),
        architecture: text(architecture_name(instance.architecture)),
        root_device_name: text(&instance.root_device_name),
        root_device_type: text("ebs"),
        block_device_mappings: block_devices(tables, instance),
        virtualization_type: text("hvm"),
        hypervisor: text("xen"),
        ebs_optimized: Some(instance.ebs_optimized),
        ena_support: Some(instance.ena_support),
        source_dest_check: primary.map(|interface| interface.source_dest_check),
        security_groups: primary.map(|interface| group_identifiers(tables, interface)).unwrap_or_default(),
        network_interfaces: instance
            .interfaces
            .iter()
            .filter_map(|id| tables.network_interfaces.find(id))
            .map(|interface| interface_to_api(context, tables, interface))
            .collect(),
        cpu_options: Some(ec2::CpuOptions {
            core_count: Some((instance.vcpus / instance.threads_per_core.max(1)) as i32),
            threads_per_core: Some(instance.threads_per_core.max(1) as i32),
            ..Default::default()
        }),
        capacity_reservation_specification: Some(ec2::CapacityReservationSpecificationResponse {
            capacity_reservation_preference: text(instance.reservation_preference()),
            ..Default::default()
        }),
        hibernation_options: Some(ec2::HibernationOptions { configured: Some(false) }),
        enclave_options: Some(ec2::EnclaveOptions { enabled: Some(false) }),
        metadata_options: Some(super::attribute::metadata_options_to_api(&instance.metadata_options)),
        maintenance_options: Some(ec2::InstanceMaintenanceOptions {
            auto_recovery: text(instance.auto_recovery.name()),
            ..Default::default()
        }),
        private_dns_name_options: Some(super::names::to_api(instance.names)),
        boot_mode: text(boot_mode_name(instance.boot_mode)),
        tpm_support: image::tpm_support(instance.tpm).map(Into::into),
        current_instance_boot_mode: text(boot_mode_name(instance.boot_mode)),
        platform_details: text(&instance.platform_details),
        usage_operation: text("RunInstances"),
        usage_operation_update_time: Some(instance.created_at),
        tags: instance.tags.to_api(),
        ..Default::default()
    }
}

fn block_devices(tables: &Tables, instance: &Instance) -> Vec<ec2::InstanceBlockDeviceMapping> {
    instance
        .disks
        .iter()
        .filter_map(|disk| {
            let attachment = tables.volumes.find(&disk.volume_id)?.attachment_to(&instance.instance_id)?;
            Some(ec2::InstanceBlockDeviceMapping {
                device_name: Some(disk.device_name.to_string()),
                ebs: Some(ec2::EbsInstanceBlockDevice {
                    volume_id: Some(disk.volume_id.to_string()),
                    status: Some(attachment.state.name().into()),
                    attach_time: Some(attachment.attached_at),
                    delete_on_termination: Some(attachment.delete_on_termination),
                    ..Default::default()
                }),
            })
        })
        .collect()
}

fn interface_to_api(
    context: &Context,
    tables: &Tables,
    interface: &NetworkInterface,
) -> ec2::InstanceNetworkInterface {
    let region = &context.region.view.region;
    let limits = attach::limits(tables, interface);
    let association = |own: &PrivateAddress| {
        own.public_ip().map(|ip| ec2::InstanceNetworkInterfaceAssociation {
            ip_owner_id: interface.ip_owner(own).map(str::to_owned),
            public_dns_name: interface.public_name_of(own, tables, region),
            public_ip: Some(ip.to_string()),
            ..Default::default()
        })
    };
    ec2::InstanceNetworkInterface {
        network_interface_id: Some(interface.interface_id.to_string()),
        subnet_id: Some(interface.subnet_id.to_string()),
        vpc_id: Some(interface.vpc_id.to_string()),
        owner_id: Some(interface.owner.to_string()),
        description: Some(interface.description.to_string()),
        status: Some(interface.status().into()),
        mac_address: Some(interface.mac_text()),
        private_ip_address: interface.primary().map(|own| own.private_ip.to_string()),
        private_dns_name: interface.primary().map(|own| own.private_dns_name(region)),
        source_dest_check: Some(interface.source_dest_check),
        connection_tracking_configuration: tracking::to_api(interface.tracking).map(|own| {
            ec2::ConnectionTrackingSpecificationResponse {
                tcp_established_timeout: own.tcp_established_timeout,
                udp_stream_timeout: own.udp_stream_timeout,
                udp_timeout: own.udp_timeout,
            }
        }),
        interface_type: Some(interface.purpose.name().into()),
        groups: group_identifiers(tables, interface),
        attachment: interface.attachment.as_ref().map(|attachment| ec2::InstanceNetworkInterfaceAttachment {
            attachment_id: Some(attachment.attachment_id.to_string()),
            attach_time: Some(attachment.attached_at),
            delete_on_termination: Some(attachment.delete_on_termination),
            device_index: Some(attachment.device_index.into()),
            network_card_index: Some(attachment.network_card.into()),
            status: Some(attachment.state_name().into()),
            ena_queue_count: limits.as_ref().and_then(|limits| queues::shown(attachment, limits)),
            ..Default::default()
        }),
        private_ip_addresses: interface
            .addresses
            .iter()
            .enumerate()
            .map(|(at, own)| ec2::InstancePrivateIpAddress {
                primary: Some(at == 0),
                private_ip_address: Some(own.private_ip.to_string()),
                private_dns_name: Some(own.private_dns_name(region)),
                association: association(own),
            })
            .collect(),
        association: interface.primary().and_then(association),
        ipv4_prefixes: interface
            .prefixes
            .iter()
            .map(|prefix| ec2::InstanceIpv4Prefix { ipv4_prefix: Some(prefix.to_string()) })
            .collect(),
        ipv6_addresses: interface
            .ipv6
            .addresses()
            .map(|(address, is_primary)| ec2::InstanceIpv6Address {
                ipv6_address: Some(address.to_string()),
                is_primary_ipv6: Some(is_primary),
            })
            .collect(),
        ipv6_prefixes: interface
            .ipv6
            .prefixes
            .iter()
            .map(|prefix| ec2::InstanceIpv6Prefix { ipv6_prefix: Some(prefix.to_string()) })
            .collect(),
        operator: Some(ec2::OperatorResponse { managed: Some(false), ..Default::default() }),
    }
}
