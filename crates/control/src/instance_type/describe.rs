//! DescribeInstanceTypes and DescribeInstanceTypeOfferings.

use crate::Context;
use crate::engine::describe::page_of;
use crate::engine::filter::{self, boolean, many, one, some};
use crate::engine::table::Values;
use agent_api::HostDescription;
use aws_api::ec2::{self, InstanceTypeInfo};
use model::{Error, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most types that a request may name, and most on a page (EC2 API Reference, DescribeInstanceTypes).
const TYPES_MAX: usize = 100;
/// Most offerings on a page.
const OFFERINGS_MAX: i32 = 1000;

fn offered(context: &Context) -> Vec<Arc<InstanceTypeInfo>> {
    let hosts: Vec<&HostDescription> = context.region.hosts.iter().map(|host| &host.description).collect();
    super::offered(&context.tables(), &hosts, context.options.simulate)
}

fn name_of(info: &InstanceTypeInfo) -> &str {
    info.instance_type.as_deref().unwrap_or_default()
}

pub async fn describe_instance_types(
    context: &Context,
    input: ec2::DescribeInstanceTypesRequest,
) -> Result<ec2::DescribeInstanceTypesResult> {
    if !input.instance_types.is_empty() && input.max_results.is_some() {
        return Err(Error::invalid_parameter_combination(
            "The parameter MaxResults cannot be used with the parameter InstanceTypes",
        ));
    }
    if input.instance_types.len() > TYPES_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "At most {TYPES_MAX} instance types can be named"
        )));
    }
    if input.max_results.is_some_and(|wanted| wanted > TYPES_MAX as i32) {
        return Err(out_of_range(input.max_results, TYPES_MAX as i32));
    }
    let offered = named(offered(context), &input.instance_types)?;
    let filters = filter::parse(&input.filters)?;
    let mut passed = Vec::with_capacity(offered.len());
    for info in &offered {
        if filter::passes(&filters, |name, values| field(info, name, values))? {
            passed.push(info.clone());
        }
    }
    let limit = Some(input.max_results.unwrap_or(TYPES_MAX as i32));
    let key = |info: &Arc<InstanceTypeInfo>| name_of(info).to_owned();
    let (page, next_token) = page_of(&passed, key, &input.filters, limit, input.next_token.as_deref())?;
    Ok(ec2::DescribeInstanceTypesResult {
        instance_types: page.iter().map(|info| (**info).clone()).collect(),
        next_token,
    })
}

fn out_of_range(wanted: Option<i32>, max: i32) -> Error {
    Error::invalid_parameter_value(format!(
        "Value ( {} ) for parameter maxResults is invalid. Expecting a value smaller than or equal to {max}.",
        wanted.unwrap_or_default()
    ))
}

/// Only the named ones; all where none is.
fn named(offered: Vec<Arc<InstanceTypeInfo>>, names: &[String]) -> Result<Vec<Arc<InstanceTypeInfo>>> {
    if names.is_empty() {
        return Ok(offered);
    }
    let mut missing: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let found: Vec<_> = offered.into_iter().filter(|info| missing.remove(name_of(info))).collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let missing: Vec<&str> = missing.into_iter().collect();
    Err(Error::new(
        "InvalidInstanceType",
        format!("The following supplied instance types do not exist: [{}]", missing.join(", ")),
    ))
}

/// The filters of DescribeInstanceTypes: the members of its answer, by the names that the API reference gives them.
fn field<'a>(info: &'a InstanceTypeInfo, name: &str, values: &mut Values<'a>) -> bool {
    match name.split_once('.') {
        Some(("ebs-info", name)) => ebs_field(info, name, values),
        Some(("instance-storage-info", name)) => storage_field(info, name, values),
        Some(("memory-info", "size-in-mib")) => {
            some(values, info.memory_info.as_ref().and_then(|memory| memory.size_in_mi_b).map(text))
        }
        Some(("network-info", name)) => network_field(info, name, values),
        Some(("nitro-tpm-info", "supported-versions")) => {
            let versions = info.nitro_tpm_info.as_ref().map_or(&[][..], |tpm| &tpm.supported_versions);
            many(values, versions.iter().map(String::as_str))
        }
        Some(("processor-info", name)) => processor_field(info, name, values),
        Some(("vcpu-info", name)) => vcpu_field(info, name, values),
        Some(_) => false,
        None => own_field(info, name, values),
    }
}

fn text(value: impl ToString) -> String {
    value.to_string()
}

fn own_field<'a>(info: &'a InstanceTypeInfo, name: &str, values: &mut Values<'a>) -> bool {
    match name {
        "auto-recovery-supported" => some(values, info.auto_recovery_supported.map(boolean)),
        "bare-metal" => some(values, info.bare_metal.map(boolean)),
        "burstable-performance-supported" => some(values, info.burstable_performance_supported.map(boolean)),
        "current-generation" => some(values, info.current_generation.map(boolean)),
        "dedicated-hosts-supported" => some(values, info.dedicated_hosts_supported.map(boolean)),
        "free-tier-eligible" => some(values, info.free_tier_eligible.map(boolean)),
        "hibernation-supported" => some(values, info.hibernation_supported.map(boolean)),
        "hypervisor" => some(values, info.hypervisor.as_deref()),
        "instance-storage-supported" => some(values, info.instance_storage_supported.map(boolean)),
        "instance-type" => one(values, name_of(info)),
        "nitro-enclaves-support" => some(values, info.nitro_enclaves_support.as_deref()),
        "nitro-tpm-support" => some(values, info.nitro_tpm_support.as_deref()),
        "reboot-migration-support" => some(values, info.reboot_migration_support.as_deref()),
        "supported-boot-mode" => many(values, info.supported_boot_modes.iter().map(String::as_str)),
        "supported-root-device-type" => {
            many(values, info.supported_root_device_types.iter().map(String::as_str))
        }
        "supported-usage-class" => many(values, info.supported_usage_classes.iter().map(String::as_str)),
        "supported-virtualization-type" => {
            many(values, info.supported_virtualization_types.iter().map(String::as_str))
        }
        _ => false,
    }
}

fn ebs_field<'a>(info: &'a InstanceTypeInfo, name: &str, values: &mut Values<'a>) -> bool {
    let ebs = info.ebs_info.as_ref();
    let optimized = ebs.and_then(|ebs| ebs.ebs_optimized_info.as_ref());
    match name {
        "attachment-limit-type" => some(values, ebs.and_then(|ebs| ebs.attachment_limit_type.as_deref())),
        "ebs-optimized-info.baseline-bandwidth-in-mbps" => {
            some(values, optimized.and_then(|of| of.baseline_bandwidth_in_mbps).map(text))
        }
        "ebs-optimized-info.baseline-iops" => {
            some(values, optimized.and_then(|of| of.baseline_iops).map(text))
        }
        "ebs-optimized-info.baseline-throughput-in-mbps" => {
            some(values, optimized.and_then(|of| of.baseline_throughput_in_m_bps).map(text))
        }
        "ebs-optimized-info.maximum-bandwidth-in-mbps" => {
            some(values, optimized.and_then(|of| of.maximum_bandwidth_in_mbps).map(text))
        }
        "ebs-optimized-info.maximum-iops" => some(values, optimized.and_then(|of| of.maximum_iops).map(text)),
        "ebs-optimized-info.maximum-throughput-in-mbps" => {
            some(values, optimized.and_then(|of| of.maximum_throughput_in_m_bps).map(text))
        }
        "ebs-optimized-support" => some(values, ebs.and_then(|ebs| ebs.ebs_optimized_support.as_deref())),
        "encryption-support" => some(values, ebs.and_then(|ebs| ebs.encryption_support.as_deref())),
        "maximum-ebs-attachments" => some(values, ebs.and_then(|ebs| ebs.maximum_ebs_attachments).map(text)),
        "nvme-support" => some(values, ebs.and_then(|ebs| ebs.nvme_support.as_deref())),
        _ => false,
    }
}

fn storage_field<'a>(info: &'a InstanceTypeInfo, name: &str, values: &mut Values<'a>) -> bool {
    let storage = info.instance_storage_info.as_ref();
    let disks = || storage.into_iter().flat_map(|storage| &storage.disks);
    match name {
        "disk.count" => many(values, disks().filter_map(|disk| disk.count).map(text)),
        "disk.size-in-gb" => many(values, disks().filter_map(|disk| disk.size_in_gb).map(text)),
        "disk.type" => many(values, disks().filter_map(|disk| disk.r#type.as_deref())),
        "encryption-support" => {
            some(values, storage.and_then(|storage| storage.encryption_support.as_deref()))
        }
        "nvme-support" => some(values, storage.and_then(|storage| storage.nvme_support.as_deref())),
        "total-size-in-gb" => some(values, storage.and_then(|storage| storage.total_size_in_gb).map(text)),
        _ => false,
    }
}

fn network_field<'a>(info: &'a InstanceTypeInfo, name: &str, values: &mut Values<'a>) -> bool {
    let Some(network) = info.network_info.as_ref() else { return true };
    match name {
        "bandwidth-weightings" => many(values, network.bandwidth_weightings.iter().map(String::as_str)),
        "efa-info.maximum-efa-interfaces" => {
            some(values, network.efa_info.as_ref().and_then(|efa| efa.maximum_efa_interfaces).map(text))
        }
        "efa-supported" => some(values, network.efa_supported.map(boolean)),
        "ena-support" => some(values, network.ena_support.as_deref()),
        "encryption-in-transit-supported" => {
            some(values, network.encryption_in_transit_supported.map(boolean))
        }
        "flexible-ena-queues-support" => some(values, network.flexible_ena_queues_support.as_deref()),
        "ipv4-addresses-per-interface" => some(values, network.ipv4_addresses_per_interface.map(text)),
        "ipv6-addresses-per-interface" => some(values, network.ipv6_addresses_per_interface.map(text)),
        "ipv6-supported" => some(values, network.ipv6_supported.map(boolean)),
        "maximum-network-cards" => some(values, network.maximum_network_cards.map(text)),
        "maximum-network-interfaces" => some(values, network.maximum_network_interfaces.map(text)),
        "network-performance" => some(values, network.network_performance.as_deref()),
        _ => false,
    }
}

fn processor_field<'a>(info: &'a InstanceTypeInfo, name: &str, values: &mut Values<'a>) -> bool {
    let Some(processor) = info.processor_info.as_ref() else { return true };
    match name {
        "supported-architecture" => {
            many(values, processor.supported_architectures.iter().map(String::as_str))
        }
        "supported-features" => many(values, processor.supported_features.iter().map(String::as_str)),
        "sustained-clock-speed-in-ghz" => some(values, processor.sustained_clock_speed_in_ghz.map(text)),
        _ => false,
    }
}

fn vcpu_field<'a>(info: &'a InstanceTypeInfo, name: &str, values: &mut Values<'a>) -> bool {
    let Some(vcpus) = info.v_cpu_info.as_ref() else { return true };
    match name {
        "default-cores" => some(values, vcpus.default_cores.map(text)),
        "default-threads-per-core" => some(values, vcpus.default_threads_per_core.map(text)),
        "default-vcpus" => some(values, vcpus.default_v_cpus.map(text)),
        "valid-cores" => many(values, vcpus.valid_cores.iter().map(text)),
        "valid-threads-per-core" => many(values, vcpus.valid_threads_per_core.iter().map(text)),
        _ => false,
    }
}

pub async fn describe_instance_type_offerings(
    context: &Context,
    input: ec2::DescribeInstanceTypeOfferingsRequest,
) -> Result<ec2::DescribeInstanceTypeOfferingsResult> {
    if input.max_results.is_some_and(|wanted| wanted > OFFERINGS_MAX) {
        return Err(out_of_range(input.max_results, OFFERINGS_MAX));
    }
    let location_type = input.location_type.as_deref().unwrap_or("region");
    let region = &context.region;
    let locations: Vec<&str> = match location_type {
        "region" => vec![region.view.region.as_str()],
        "availability-zone" => region.zones.iter().map(|zone| zone.name.as_str()).collect(),
        "availability-zone-id" => region.zones.iter().map(|zone| zone.id.as_str()).collect(),
        other => {
            return Err(Error::new(
                "UnsupportedOperation",
                format!("There are no locations of the type '{other}' in this cloud."),
            ));
        }
    };
    let filters = filter::parse(&input.filters)?;
    let mut passed: Vec<(String, &str)> = Vec::new();
    for info in offered(context) {
        for location in &locations {
            let passes = filter::passes(&filters, |name, values| match name {
                "instance-type" => one(values, name_of(&info).to_owned()),
                "location" => one(values, *location),
                _ => false,
            })?;
            if passes {
                passed.push((name_of(&info).to_owned(), location));
            }
        }
    }
    let key = |(instance_type, location): &(String, &str)| format!("{instance_type}\0{location}");
    let (page, next_token) =
        page_of(&passed, key, &input.filters, input.max_results, input.next_token.as_deref())?;
    let to_api = |(instance_type, location): (String, &str)| ec2::InstanceTypeOffering {
        instance_type: Some(instance_type),
        location: Some(location.to_owned()),
        location_type: Some(location_type.to_owned()),
    };
    Ok(ec2::DescribeInstanceTypeOfferingsResult {
        instance_type_offerings: page.into_iter().map(to_api).collect(),
        next_token,
    })
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::Catalogue;
    use super::*;

    fn passing(catalogue: &Catalogue, filters: &[(&str, &str)]) -> Vec<String> {
        let filters: Vec<ec2::Filter> = filters
            .iter()
            .map(|(name, value)| ec2::Filter { name: Some((*name).into()), values: vec![(*value).into()] })
            .collect();
        let filters = filter::parse(&filters).unwrap();
        let passes = |info: &&Arc<InstanceTypeInfo>| {
            filter::passes(&filters, |name, values| field(info, name, values)).unwrap()
        };
        catalogue.types().iter().filter(passes).map(|info| name_of(info).to_owned()).collect()
    }

    #[test]
    fn filters_are_the_members_of_the_answer() {
        let catalogue = Catalogue::get();
        for (filters, expected) in [
            (&[("instance-type", "t3.micro")][..], "t3.micro"),
            (&[("instance-type", "t3.*"), ("memory-info.size-in-mib", "1024")], "t3.micro"),
            (&[("instance-type", "t4g.*"), ("vcpu-info.default-vcpus", "8")], "t4g.2xlarge"),
            (
                &[
                    ("instance-type", "a1.*"),
                    ("ebs-info.ebs-optimized-info.baseline-throughput-in-mbps", "218.75"),
                ],
                "a1.2xlarge",
            ),
            (
                &[
                    ("instance-type", "a1.*"),
                    ("network-info.ipv4-addresses-per-interface", "30"),
                    ("bare-metal", "true"),
                ],
                "a1.metal",
            ),
        ] {
            assert_eq!(passing(catalogue, filters), [expected], "{filters:?}");
        }
        assert!(passing(catalogue, &[("processor-info.supported-architecture", "arm64")]).len() > 100);
        assert!(passing(catalogue, &[("bare-metal", "true"), ("bare-metal", "false")]).is_empty());
    }

    #[test]
    fn what_is_no_filter_is_none() {
        let catalogue = Catalogue::get();
        let info = &catalogue.types()[0];
        for name in ["", "colour", "ebs-info", "ebs-info.", "vcpu-info.colour", "memory-info.size", "tag:x"] {
            assert!(!field(info, name, &mut Vec::new()), "{name}");
        }
    }

    #[test]
    fn named_types_come_once_and_unknown_ones_are_listed() {
        let catalogue = Catalogue::get();
        let all = || catalogue.types().to_vec();
        let two = named(all(), &["t3.micro".into(), "a1.large".into(), "t3.micro".into()]).unwrap();
        assert_eq!(two.iter().map(|info| name_of(info)).collect::<Vec<_>>(), ["a1.large", "t3.micro"]);
        let error = named(all(), &["zz.large".into(), "t3.micro".into(), "aa.large".into()]).unwrap_err();
        assert_eq!(error.code, "InvalidInstanceType");
        assert!(error.message.ends_with("[aa.large, zz.large]"), "{}", error.message);
    }
}
