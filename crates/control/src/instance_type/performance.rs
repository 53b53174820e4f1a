//! What an instance of a type may use of its host, beyond processors and memory.

use super::catalogue::Catalogue;
use crate::engine::Tables;
use agent_api::{Burst, Rate};
use aws_api::ec2::{InstanceTypeInfo, NetworkCardInfo};
use datapath::Bandwidth;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::LazyLock;

const GB: u64 = 1_000_000_000;
/// A billion bytes are no whole number of a disk's blocks.
const MIB: u64 = 1024 * 1024;
const EBS_BURST_SECONDS: u64 = 30 * 60;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Performance {
    pub bandwidth: Option<Bandwidth>,
    pub ebs: Option<EbsPerformance>,
    /// Bytes of each instance store volume.
    pub instance_store: Vec<u64>,
    pub interfaces: InterfaceLimits,
}

/// How many interfaces and addresses an instance takes (EC2 User Guide, "Maximum IP addresses per network interface").
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InterfaceLimits {
    pub interfaces: usize,
    /// Addresses and prefixes of each interface.
    pub ipv4_addresses: usize,
    /// Of IPv6, the same.
    pub ipv6_addresses: usize,
    /// How many interfaces each network card takes.
    pub network_cards: Vec<usize>,
    /// Interfaces with an Elastic Fabric Adapter.
    pub efa_interfaces: usize,
    /// Of each network card; none where the type lets nobody choose.
    pub queues: Vec<QueueLimits>,
}

/// How many queues the interfaces on a network card have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueLimits {
    pub default: u16,
    pub each_max: u16,
    pub all_max: usize,
}

/// What goes between the instance and each of its EBS volumes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EbsPerformance {
    pub bytes: Rate,
    pub operations: Rate,
}

/// Asked for each time that a host is told of an instance: a line of the catalogue is decoded the first time only.
static KNOWN: LazyLock<RwLock<HashMap<String, Performance>>> = LazyLock::new(Default::default);

/// Nothing where there is no such type.
pub fn performance(tables: &Tables, instance_type: &str) -> Performance {
    match tables.instance_types.find(instance_type) {
        Some(own) => Performance::of(&own.info()),
        None => of_aws(instance_type),
    }
}

fn of_aws(instance_type: &str) -> Performance {
    if let Some(performance) = KNOWN.read().get(instance_type) {
        return performance.clone();
    }
    let Some(info) = Catalogue::get().info(instance_type) else { return Performance::default() };
    let performance = Performance::of(&info);
    KNOWN.write().insert(instance_type.to_owned(), performance.clone());
    performance
}

impl Performance {
    fn of(info: &InstanceTypeInfo) -> Performance {
        Performance {
            bandwidth: bandwidth(info),
            ebs: ebs(info),
            instance_store: instance_store(info),
            interfaces: interfaces(info),
        }
    }
}

/// Of the type's first network card: EC2 tells bandwidth by card, and all its interfaces are on that one unless asked
/// for otherwise (EC2 User Guide, "Amazon EC2 instance network bandwidth").
fn bandwidth(info: &InstanceTypeInfo) -> Option<Bandwidth> {
    let card = info.network_info.as_ref()?.network_cards.first()?;
    let bits = |gbps: f64| (gbps * 1e9).round() as u64;
    let baseline = bits(card.baseline_bandwidth_in_gbps?);
    let peak = card.peak_bandwidth_in_gbps.map_or(baseline, bits);
    (baseline > 0).then_some(Bandwidth { baseline, peak: peak.max(baseline) })
}

fn interfaces(info: &InstanceTypeInfo) -> InterfaceLimits {
    let number = |count: Option<i32>| count.and_then(|count| usize::try_from(count).ok());
    let network = info.network_info.clone().unwrap_or_default();
    let interfaces = number(network.maximum_network_interfaces).unwrap_or(1);
    let efa = network.efa_info.filter(|_| network.efa_supported == Some(true));
    let cards: Vec<usize> = network
        .network_cards
        .iter()
        .map(|card| number(card.maximum_network_interfaces).unwrap_or(interfaces))
        .collect();
    InterfaceLimits {
        interfaces,
        ipv4_addresses: number(network.ipv4_addresses_per_interface).unwrap_or(1),
        ipv6_addresses: number(network.ipv6_addresses_per_interface).unwrap_or(0),
        network_cards: if cards.is_empty() { vec![interfaces] } else { cards },
        efa_interfaces: efa.and_then(|efa| number(efa.maximum_efa_interfaces)).unwrap_or(0),
        queues: match network.flexible_ena_queues_support.as_deref() {
            Some("supported") => network.network_cards.iter().filter_map(queues).collect(),
            _ => Vec::new(),
        },
    }
}

fn queues(card: &NetworkCardInfo) -> Option<QueueLimits> {
    let number = |count: Option<i32>| u16::try_from(count?).ok();
    Some(QueueLimits {
        default: number(card.default_ena_queue_count_per_interface)?,
        each_max: number(card.maximum_ena_queue_count_per_interface)?,
        all_max: number(card.maximum_ena_queue_count)?.into(),
    })
}

/// A type whose maximum is above its baseline sustains the maximum for half an hour a day (EC2 User Guide, "Amazon
/// EBS-optimized instance types").
fn ebs(info: &InstanceTypeInfo) -> Option<EbsPerformance> {
    let rates = info.ebs_info.as_ref()?.ebs_optimized_info.as_ref()?;
    let rate = |baseline: f64, maximum: Option<f64>| {
        let burst = Burst { per_second: maximum? as u64, seconds: EBS_BURST_SECONDS };
        let per_second = baseline as u64;
        Some(Rate { per_second, burst: (burst.per_second > per_second).then_some(burst) })
    };
    let bytes = |megabits: i32| f64::from(megabits) * 1e6 / 8.0;
    Some(EbsPerformance {
        bytes: rate(bytes(rates.baseline_bandwidth_in_mbps?), rates.maximum_bandwidth_in_mbps.map(bytes))?,
        operations: rate(f64::from(rates.baseline_iops?), rates.maximum_iops.map(f64::from))?,
    })
}

fn instance_store(info: &InstanceTypeInfo) -> Vec<u64> {
    let disks = info.instance_storage_info.iter().flat_map(|storage| &storage.disks);
    let each = disks.filter_map(|disk| {
        let count = usize::try_from(disk.count?).ok()?;
        let bytes = u64::try_from(disk.size_in_gb?).ok()? * GB;
        Some(std::iter::repeat_n(bytes.next_multiple_of(MIB), count))
    });
    each.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_bandwidth() {
        let catalogue = Catalogue::get();
        assert!(catalogue.types().iter().all(|info| bandwidth(info).is_some()));
        for (name, baseline, peak) in
            [("t3.micro", 64_000_000, 5_000_000_000), ("m5.24xlarge", 25_000_000_000, 25_000_000_000)]
        {
            for _ in 0..2 {
                assert_eq!(of_aws(name).bandwidth, Some(Bandwidth { baseline, peak }), "{name}");
            }
        }
        assert_eq!(of_aws("t9.colossal"), Performance::default());
    }

    #[test]
    fn a_small_type_reaches_its_maximum_to_volumes_for_a_while() {
        let micro = of_aws("t3.micro").ebs.unwrap();
        assert_eq!(micro.bytes.per_second, 10_875_000);
        assert_eq!(micro.bytes.burst, Some(Burst { per_second: 260_625_000, seconds: 1800 }));
        assert_eq!((micro.operations.per_second, micro.operations.burst.unwrap().per_second), (500, 11_800));
        assert_eq!(of_aws("m5.24xlarge").ebs.unwrap().bytes.burst, None);
        assert_eq!(of_aws("m1.small").ebs, None);
    }

    #[test]
    fn every_type_takes_an_interface_with_an_address() {
        for (name, interfaces, ipv4_addresses, ipv6_addresses, cards, efa_interfaces) in [
            ("t3.micro", 2, 2, 2, vec![2], 0),
            ("m5.24xlarge", 15, 50, 50, vec![15], 0),
            ("m1.small", 2, 4, 0, vec![2], 0),
            ("c5n.18xlarge", 15, 50, 50, vec![15], 1),
            ("p4d.24xlarge", 60, 50, 50, vec![15; 4], 4),
        ] {
            let limits = of_aws(name).interfaces;
            assert_eq!(
                (limits.interfaces, limits.network_cards, limits.efa_interfaces),
                (interfaces, cards, efa_interfaces)
            );
            assert_eq!((limits.ipv4_addresses, limits.ipv6_addresses), (ipv4_addresses, ipv6_addresses));
            assert_eq!(limits.queues, [], "{name}");
        }
        let limits = QueueLimits { default: 8, each_max: 16, all_max: 64 };
        assert_eq!(of_aws("m6i.4xlarge").interfaces.queues, [limits]);
        let all = Catalogue::get().types().iter().map(|info| interfaces(info));
        let takes =
            |of: InterfaceLimits| of.interfaces > 0 && of.ipv4_addresses > 0 && of.network_cards[0] > 0;
        assert!(all.into_iter().all(takes));
    }

    #[test]
    fn instance_stores_are_as_the_catalogue_says() {
        for (name, gigabytes) in
            [("m5d.large", vec![75]), ("m5d.4xlarge", vec![300, 300]), ("t3.micro", vec![])]
        {
            let bytes: Vec<u64> =
                gigabytes.into_iter().map(|size: u64| (size * GB).div_ceil(MIB) * MIB).collect();
            assert_eq!(of_aws(name).instance_store, bytes, "{name}");
        }
    }
}
