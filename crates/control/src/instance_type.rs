//! Instance types: the catalogue, and what of it this cloud offers.

use crate::Context;
use crate::engine::describe::page_of;
use crate::engine::filter;
use crate::engine::table::Values;
use crate::placement::VCPU_OVERCOMMIT;
use agent_api::{Architecture, HostDescription};
use aws_api::ec2::{self, InstanceTypeInfo};
use model::{Error, Result};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock};

/// AWS's catalogue: facts, one type a line, sorted by name.
const CATALOGUE: &str = include_str!("../data/instance-types.json");

/// Read when it is first asked for: half a second of no start-up pays for it.
static TYPES: LazyLock<BTreeMap<String, Arc<InstanceTypeInfo>>> = LazyLock::new(|| {
    let types: Vec<InstanceTypeInfo> = lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    types.into_iter().filter_map(|info| Some((info.instance_type.clone()?, Arc::new(info)))).collect()
});

/// The catalogue's objects, without the brackets and commas around them.
fn lines() -> impl Iterator<Item = &'static str> {
    CATALOGUE.lines().map(|line| line.trim_end_matches(',')).filter(|line| line.starts_with('{'))
}

/// What a machine of a type has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MachineShape {
    pub vcpus: u32,
    pub memory_mib: u64,
    pub architecture: Architecture,
}

#[derive(Default)]
pub struct Catalogue {
    /// Of the types that were asked for.
    shapes: parking_lot::RwLock<BTreeMap<String, Option<MachineShape>>>,
}

/// Most names remembered: more than there are types, so that only made-up names are forgotten.
const SHAPES_MAX: usize = 4096;

impl Catalogue {
    /// None where there is no such type.
    pub fn shape(&self, name: &str) -> Option<MachineShape> {
        if let Some(shape) = self.shapes.read().get(name) {
            return *shape;
        }
        let shape = read_one(name).and_then(|info| shape_of(&info));
        let mut shapes = self.shapes.write();
        if shapes.len() >= SHAPES_MAX {
            shapes.clear();
        }
        shapes.insert(name.to_owned(), shape);
        shape
    }
}

/// One type, without reading all others.
fn read_one(name: &str) -> Option<InstanceTypeInfo> {
    let wanted = format!("\"InstanceType\":{}", serde_json::to_string(name).ok()?);
    let line = lines().find(|line| line.contains(&wanted))?;
    serde_json::from_str(line).ok()
}

fn shape_of(info: &InstanceTypeInfo) -> Option<MachineShape> {
    let architectures = &info.processor_info.as_ref()?.supported_architectures;
    let architecture = if architectures.iter().any(|name| name == "x86_64") {
        Architecture::X86_64
    } else if architectures.iter().any(|name| name == "arm64") {
        Architecture::Arm64
    } else {
        return None;
    };
    Some(MachineShape {
        vcpus: u32::try_from(info.v_cpu_info.as_ref()?.default_v_cpus?).ok()?,
        memory_mib: u64::try_from(info.memory_info.as_ref()?.size_in_mi_b?).ok()?,
        architecture,
    })
}

/// Whether one of the hosts could hold a machine of the shape, were it empty.
fn fits(shape: MachineShape, hosts: &[&HostDescription]) -> bool {
    hosts.iter().any(|host| {
        host.architecture == shape.architecture
            && u64::from(shape.vcpus) <= u64::from(host.cores) * VCPU_OVERCOMMIT
            && shape.memory_mib <= host.memory_mib
    })
}

/// The types that the region offers, in the order of their names.
fn offered(context: &Context) -> Vec<Arc<InstanceTypeInfo>> {
    let hosts: Vec<&HostDescription> = context.region.hosts.iter().map(|host| &host.description).collect();
    let offers = |info: &&Arc<InstanceTypeInfo>| context.options.simulate || shape_of(info).is_some_and(|shape| fits(shape, &hosts));
    TYPES.values().filter(offers).cloned().collect()
}

pub async fn describe_instance_types(
    context: &Context,
    input: ec2::DescribeInstanceTypesRequest,
) -> Result<ec2::DescribeInstanceTypesResult> {
    if !input.instance_types.is_empty() && input.max_results.is_some() {
        return Err(Error::invalid_parameter_combination("The parameter MaxResults cannot be used with the parameter InstanceTypes"));
    }
    let types = offered(context);
    let unknown: Vec<&str> = input
        .instance_types
        .iter()
        .map(String::as_str)
        .filter(|name| !types.iter().any(|info| info.instance_type.as_deref() == Some(name)))
        .collect();
    if !unknown.is_empty() {
        return Err(Error::new("InvalidInstanceType", format!("The following supplied instance types do not exist: [{}]", unknown.join(", "))));
    }
    let wanted: HashSet<&str> = input.instance_types.iter().map(String::as_str).collect();
    let filters = filter::parse(&input.filters)?;
    let mut passed = Vec::new();
    for info in types {
        let named = wanted.is_empty() || info.instance_type.as_deref().is_some_and(|name| wanted.contains(name));
        if filter::passes(&filters, |name, values| field(&info, name, values))? && named {
            passed.push(info.clone());
        }
    }
    let key = |info: &Arc<InstanceTypeInfo>| info.instance_type.clone().unwrap_or_default();
    let (page, next_token) = page_of(&passed, key, &input.filters, input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeInstanceTypesResult {
        instance_types: page.into_iter().map(|info| (*info).clone()).collect(),
        next_token,
    })
}

fn text<'a>(values: &mut Values<'a>, value: Option<&str>) -> bool {
    values.extend(value.map(|value| Cow::Owned(value.to_owned())));
    true
}

fn flag(values: &mut Values<'_>, value: Option<bool>) -> bool {
    values.extend(value.map(|value| Cow::Borrowed(filter::boolean(value))));
    true
}

fn number(values: &mut Values<'_>, value: Option<impl ToString>) -> bool {
    values.extend(value.map(|value| Cow::Owned(value.to_string())));
    true
}

fn all<'a>(values: &mut Values<'a>, many: &[String]) -> bool {
    values.extend(many.iter().map(|value| Cow::Owned(value.clone())));
    true
}

/// The filters of DescribeInstanceTypes.
fn field<'a>(info: &InstanceTypeInfo, name: &str, values: &mut Values<'a>) -> bool {
    let ebs = info.ebs_info.as_ref();
    let optimized = ebs.and_then(|ebs| ebs.ebs_optimized_info.as_ref());
    let network = info.network_info.as_ref();
    let processor = info.processor_info.as_ref();
    let vcpu = info.v_cpu_info.as_ref();
    let storage = info.instance_storage_info.as_ref();
    match name {
        "auto-recovery-supported" => flag(values, info.auto_recovery_supported),
        "bare-metal" => flag(values, info.bare_metal),
        "burstable-performance-supported" => flag(values, info.burstable_performance_supported),
        "current-generation" => flag(values, info.current_generation),
        "dedicated-hosts-supported" => flag(values, info.dedicated_hosts_supported),
        "ebs-info.ebs-optimized-info.baseline-bandwidth-in-mbps" => number(values, optimized.and_then(|o| o.baseline_bandwidth_in_mbps)),
        "ebs-info.ebs-optimized-info.baseline-iops" => number(values, optimized.and_then(|o| o.baseline_iops)),
        "ebs-info.ebs-optimized-info.maximum-bandwidth-in-mbps" => number(values, optimized.and_then(|o| o.maximum_bandwidth_in_mbps)),
        "ebs-info.ebs-optimized-info.maximum-iops" => number(values, optimized.and_then(|o| o.maximum_iops)),
        "ebs-info.ebs-optimized-support" => text(values, ebs.and_then(|ebs| ebs.ebs_optimized_support.as_deref())),
        "ebs-info.encryption-support" => text(values, ebs.and_then(|ebs| ebs.encryption_support.as_deref())),
        "ebs-info.nvme-support" => text(values, ebs.and_then(|ebs| ebs.nvme_support.as_deref())),
        "free-tier-eligible" => flag(values, info.free_tier_eligible),
        "hibernation-supported" => flag(values, info.hibernation_supported),
        "hypervisor" => text(values, info.hypervisor.as_deref()),
        "instance-storage-info.disk.count" => {
            storage.iter().flat_map(|s| &s.disks).for_each(|disk| drop(number(values, disk.count)));
            true
        }
        "instance-storage-info.disk.size-in-gb" => {
            storage.iter().flat_map(|s| &s.disks).for_each(|disk| drop(number(values, disk.size_in_gb)));
            true
        }
        "instance-storage-info.disk.type" => {
            storage.iter().flat_map(|s| &s.disks).for_each(|disk| drop(text(values, disk.r#type.as_deref())));
            true
        }
        "instance-storage-info.total-size-in-gb" => number(values, storage.and_then(|s| s.total_size_in_gb)),
        "instance-storage-info.nvme-support" => text(values, storage.and_then(|s| s.nvme_support.as_deref())),
        "instance-storage-supported" => flag(values, info.instance_storage_supported),
        "instance-type" => text(values, info.instance_type.as_deref()),
        "memory-info.size-in-mib" => number(values, info.memory_info.as_ref().and_then(|memory| memory.size_in_mi_b)),
        "network-info.efa-info.maximum-efa-interfaces" => {
            number(values, network.and_then(|n| n.efa_info.as_ref()).and_then(|efa| efa.maximum_efa_interfaces))
        }
        "network-info.efa-supported" => flag(values, network.and_then(|n| n.efa_supported)),
        "network-info.ena-support" => text(values, network.and_then(|n| n.ena_support.as_deref())),
        "network-info.encryption-in-transit-supported" => flag(values, network.and_then(|n| n.encryption_in_transit_supported)),
        "network-info.ipv4-addresses-per-interface" => number(values, network.and_then(|n| n.ipv4_addresses_per_interface)),
        "network-info.ipv6-addresses-per-interface" => number(values, network.and_then(|n| n.ipv6_addresses_per_interface)),
        "network-info.ipv6-supported" => flag(values, network.and_then(|n| n.ipv6_supported)),
        "network-info.maximum-network-cards" => number(values, network.and_then(|n| n.maximum_network_cards)),
        "network-info.maximum-network-interfaces" => number(values, network.and_then(|n| n.maximum_network_interfaces)),
        "network-info.network-performance" => text(values, network.and_then(|n| n.network_performance.as_deref())),
        "nitro-enclaves-support" => text(values, info.nitro_enclaves_support.as_deref()),
        "nitro-tpm-support" => text(values, info.nitro_tpm_support.as_deref()),
        "processor-info.supported-architecture" => all(values, processor.map_or(&[], |p| &p.supported_architectures)),
        "processor-info.sustained-clock-speed-in-ghz" => number(values, processor.and_then(|p| p.sustained_clock_speed_in_ghz)),
        "supported-boot-mode" => all(values, &info.supported_boot_modes),
        "supported-root-device-type" => all(values, &info.supported_root_device_types),
        "supported-usage-class" => all(values, &info.supported_usage_classes),
        "supported-virtualization-type" => all(values, &info.supported_virtualization_types),
        "vcpu-info.default-cores" => number(values, vcpu.and_then(|v| v.default_cores)),
        "vcpu-info.default-threads-per-core" => number(values, vcpu.and_then(|v| v.default_threads_per_core)),
        "vcpu-info.default-vcpus" => number(values, vcpu.and_then(|v| v.default_v_cpus)),
        _ => false,
    }
}

pub async fn describe_instance_type_offerings(
    context: &Context,
    input: ec2::DescribeInstanceTypeOfferingsRequest,
) -> Result<ec2::DescribeInstanceTypeOfferingsResult> {
    let location_type = input.location_type.as_deref().unwrap_or("region");
    let locations: Vec<String> = match location_type {
        "region" => vec![context.region.view.region.to_string()],
        "availability-zone" => context.region.zones.iter().map(|zone| zone.name.clone()).collect(),
        "availability-zone-id" => context.region.zones.iter().map(|zone| zone.id.clone()).collect(),
        _ => Vec::new(),
    };
    let filters = filter::parse(&input.filters)?;
    let mut passed: Vec<(String, String)> = Vec::new();
    for info in offered(context) {
        for location in &locations {
            let passes = filter::passes(&filters, |name, values| match name {
                "location" => filter::one(values, location.clone()),
                "instance-type" => text(values, info.instance_type.as_deref()),
                _ => false,
            })?;
            if passes {
                passed.push((info.instance_type.clone().unwrap_or_default(), location.clone()));
            }
        }
    }
    let key = |(instance_type, location): &(String, String)| format!("{instance_type}\0{location}");
    let (page, next_token) = page_of(&passed, key, &input.filters, input.max_results, input.next_token.as_deref())?;
    let to_api = |(instance_type, location)| ec2::InstanceTypeOffering {
        instance_type: Some(instance_type),
        location: Some(location),
        location_type: Some(location_type.to_owned()),
    };
    Ok(ec2::DescribeInstanceTypeOfferingsResult {
        instance_type_offerings: page.into_iter().map(to_api).collect(),
        next_token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_catalogue_is_a_type() {
        assert_eq!(TYPES.len(), lines().count());
        assert!(TYPES.len() > 800);
    }

    #[test]
    fn shapes_are_those_of_the_catalogue() {
        let catalogue = Catalogue::default();
        let expected = MachineShape { vcpus: 2, memory_mib: 1024, architecture: Architecture::X86_64 };
        assert_eq!(catalogue.shape("t3.micro"), Some(expected));
        assert_eq!(catalogue.shape("t4g.micro").map(|shape| shape.architecture), Some(Architecture::Arm64));
        assert_eq!(catalogue.shape("t9.colossal"), None);
        assert_eq!(catalogue.shape("\"}"), None);
    }
}
