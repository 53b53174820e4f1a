//! What a host is told of an instance: a pure function of the records.

use super::{Instance, credit};
use crate::engine::Tables;
use crate::instance_type;
use crate::network_interface::{InterfaceAttachment, NetworkInterface, Purpose};
use crate::uefi_data;
use crate::volume::performance;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datapath::Bandwidth;
use model::{InstanceState, Region};
use store::Revision;

/// None where nothing of the instance shall be on a host.
pub fn desired(
    instance: &Instance,
    tables: &Tables,
    region: &Region,
    generation: Revision,
) -> Option<agent_api::Instance> {
    let power = match instance.state {
        InstanceState::Running if instance.hold.is_some() => agent_api::Power::Off,
        InstanceState::Pending | InstanceState::Running => agent_api::Power::On,
        InstanceState::Stopping if instance.force_stop => agent_api::Power::OffForced,
        InstanceState::Stopping | InstanceState::Stopped => agent_api::Power::Off,
        InstanceState::ShuttingDown if instance.force_stop => agent_api::Power::GoneForced,
        InstanceState::ShuttingDown => agent_api::Power::Gone,
        InstanceState::Terminated => return None,
    };
    let interfaces: Vec<_> =
        instance.interfaces.iter().filter_map(|id| tables.network_interfaces.find(id)).collect();
    let options = &instance.metadata_options;
    let type_performance = instance_type::performance(tables, &instance.instance_type);
    let burstable = instance_type::burstable(tables, &instance.instance_type);
    let credits = burstable.map(|burstable| burstable.credits(credit::is_unlimited(instance, burstable)));
    Some(agent_api::Instance {
        instance_id: instance.instance_id.clone(),
        generation,
        request_id: instance.request_id.as_deref().map(str::to_owned),
        power,
        boot: instance.boot,
        machine: agent_api::Machine {
            instance_type: instance.instance_type.to_string(),
            architecture: instance.architecture,
            boot_mode: instance.boot_mode,
            // Checked when it was given.
            uefi_variables: instance.uefi_data.as_deref().and_then(uefi_data::decode).unwrap_or_default(),
            tpm: instance.tpm,
            disk_bus: instance.disk_bus,
            vcpus: instance.vcpus,
            threads_per_core: instance.threads_per_core,
            memory_mib: instance.memory_mib,
            credits,
            instance_store: type_performance.instance_store,
            interfaces_max: type_performance.interfaces.interfaces,
        },
        disks: instance
            .disks
            .iter()
            .map(|disk| agent_api::Disk {
                volume_id: disk.volume_id.clone(),
                device_name: disk.device_name.to_string(),
                root: disk.device_name == instance.root_device_name,
                limits: tables
                    .volumes
                    .find(&disk.volume_id)
                    .map(|volume| performance::limits_on(volume, type_performance.ebs)),
                detach: tables
                    .volumes
                    .find(&disk.volume_id)
                    .and_then(|volume| volume.attachment_to(&instance.instance_id)?.state.to_desired()),
            })
            .collect(),
        metadata: metadata(instance, interfaces.first().map(|interface| &***interface), tables, region),
        efa_only: interfaces.iter().filter_map(|interface| efa_only(interface)).collect(),
        interfaces: interfaces
            .iter()
            .filter(|interface| interface.purpose != Purpose::EfaOnly)
            .map(|interface| interface_desired(interface, type_performance.bandwidth))
            .collect(),
        metadata_options: agent_api::MetadataOptions {
            enabled: options.http_endpoint,
            tokens_required: options.http_tokens_required,
            hop_limit: options.hop_limit,
            instance_tags: options.instance_tags,
            ipv6: options.http_ipv6,
        },
    })
}

fn efa_only(interface: &NetworkInterface) -> Option<agent_api::EfaOnlyInterface> {
    let attachment = interface.attachment.as_ref().filter(|_| interface.purpose == Purpose::EfaOnly)?;
    Some(agent_api::EfaOnlyInterface {
        interface_id: interface.interface_id.clone(),
        vpc_id: interface.vpc_id.clone(),
        subnet_id: interface.subnet_id.clone(),
        mac: interface.mac,
        groups: interface.security_groups.to_vec(),
        device_index: attachment.device_index,
        network_card: attachment.network_card,
    })
}

pub(crate) fn interface_desired(
    interface: &NetworkInterface,
    bandwidth: Option<Bandwidth>,
) -> agent_api::Interface {
    let network_card = |attachment: &InterfaceAttachment| datapath::NetworkCard {
        instance_id: attachment.instance_id.clone(),
        index: attachment.network_card,
    };
    agent_api::Interface {
        network: datapath::Interface {
            interface_id: interface.interface_id.clone(),
            vpc_id: interface.vpc_id.clone(),
            subnet_id: interface.subnet_id.clone(),
            mac: interface.mac,
            addresses: interface.to_desired(),
            ipv6_addresses: interface.ipv6.addresses.to_vec(),
            prefixes: interface.all_prefixes().collect(),
            groups: interface.security_groups.to_vec(),
            source_dest_check: interface.source_dest_check,
            efa: interface.purpose.has_efa(),
            bandwidth,
            network_card: interface.attachment.as_ref().map(network_card),
            tracking: interface.tracking,
        },
        device_index: interface.attachment.as_ref().map_or(0, |attachment| attachment.device_index),
        queues: interface.attachment.as_ref().and_then(|attachment| attachment.ena_queues),
        delete_on_termination: interface.attachment.as_ref().is_some_and(|a| a.delete_on_termination),
        detach: interface.attachment.as_ref().and_then(|attachment| attachment.state.to_desired()),
    }
}

fn metadata(
    instance: &Instance,
    primary: Option<&NetworkInterface>,
    tables: &Tables,
    region: &Region,
) -> agent_api::Metadata {
    let zone_id = tables.subnets.find(&instance.subnet_id).map(|subnet| subnet.zone_id.clone());
    let group_names = primary.into_iter().flat_map(|interface| &interface.security_groups);
    agent_api::Metadata {
        account_id: instance.owner.to_string(),
        region: region.to_string(),
        availability_zone: instance.placement.zone.to_string(),
        availability_zone_id: zone_id.unwrap_or_default(),
        ami_id: instance.image_id.clone(),
        ami_launch_index: instance.launch_index,
        reservation_id: instance.reservation_id.clone(),
        launched_at: instance.launched_at,
        local_hostname: instance.private_dns_name(tables, region).unwrap_or_default(),
        public_hostname: instance.public_dns_name(tables, region),
        resource_a_record: instance.names.resource_a_record,
        resource_aaaa_record: instance.names.resource_aaaa_record,
        security_group_names: group_names
            .filter_map(|id| tables.security_groups.find(id))
            .map(|group| group.name.clone())
            .collect(),
        public_key: instance.public_key.as_deref().cloned(),
        // Checked when it was given.
        user_data: instance.user_data.as_deref().and_then(|text| STANDARD.decode(text).ok()),
        tags: instance.tags.to_map(),
        partition_number: instance.placement.partition_number(),
        placement_group: instance.placement.group_name().map(Into::into),
        host_id: instance.placement.dedicated_host_id.clone().map(Into::into),
    }
}
