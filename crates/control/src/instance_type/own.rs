//! A type of the owner's own: a record of its region, and what the EC2 API says of it.

use super::{MachineShape, VOLUMES_MAX};
use crate::engine::retire::Retire;
use crate::engine::table::{Record, Values};
use agent_api::Architecture;
use aws_api::ec2;
use datapath::Bandwidth;
use serde::{Deserialize, Serialize};

const INTERFACES_MAX: i32 = 8;
const ADDRESSES_MAX: i32 = 30;

/// What was not said of it is not limited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnType {
    pub instance_type: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub architecture: Architecture,
    pub bandwidth: Option<Bandwidth>,
    pub ebs: Option<EbsRates>,
    pub instance_store: Option<InstanceStore>,
    /// Burstable where there is one: what of each processor it may use all the time.
    pub baseline_percent: Option<f64>,
    /// About to be deleted: nothing new can have it.
    pub retired: bool,
}

impl Retire for OwnType {
    fn retired(&mut self) -> &mut bool {
        &mut self.retired
    }

    fn is_retired(&self) -> bool {
        self.retired
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EbsRates {
    pub megabits: u32,
    pub iops: u32,
}

/// Volumes of one size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStore {
    pub count: u32,
    pub size_gb: u32,
}

impl Record for OwnType {
    const TABLE: &'static str = "instance-type";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        &self.instance_type
    }

    fn field<'a>(&'a self, _name: &str, _values: &mut Values<'a>) -> bool {
        false
    }
}

impl OwnType {
    pub fn shape(&self) -> MachineShape {
        let OwnType { vcpus, memory_mib, architecture, .. } = *self;
        MachineShape { vcpus, threads_per_core: 1, memory_mib, architecture }
    }

    /// As DescribeInstanceTypes tells it.
    pub fn info(&self) -> ec2::InstanceTypeInfo {
        let text = |text: &str| Some(text.to_owned());
        let is_arm = self.architecture == Architecture::Arm64;
        let boot_modes: &[&str] = if is_arm { &["uefi"] } else { &["legacy-bios", "uefi"] };
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let vcpus = self.vcpus as i32;
        ec2::InstanceTypeInfo {
            instance_type: Some(self.instance_type.clone()),
            current_generation: Some(true),
            free_tier_eligible: Some(false),
            bare_metal: Some(false),
            hypervisor: text("nitro"),
            supported_usage_classes: list(&["on-demand"]),
            supported_root_device_types: list(&["ebs"]),
            supported_virtualization_types: list(&["hvm"]),
            supported_boot_modes: list(boot_modes),
            processor_info: Some(ec2::ProcessorInfo {
                supported_architectures: list(&[crate::instance::architecture_name(self.architecture)]),
                ..Default::default()
            }),
            v_cpu_info: Some(ec2::VCpuInfo {
                default_v_cpus: Some(vcpus),
                default_cores: Some(vcpus),
                default_threads_per_core: Some(1),
                valid_cores: (1..=vcpus).collect(),
                valid_threads_per_core: vec![1],
            }),
            memory_info: Some(ec2::MemoryInfo { size_in_mi_b: Some(self.memory_mib as i64) }),
            instance_storage_supported: Some(self.instance_store.is_some()),
            instance_storage_info: self.instance_store.map(InstanceStore::info),
            ebs_info: Some(self.ebs_info()),
            network_info: Some(self.network_info()),
            placement_group_info: Some(ec2::PlacementGroupInfo {
                supported_strategies: list(&["cluster", "partition", "spread"]),
            }),
            burstable_performance_supported: Some(self.baseline_percent.is_some()),
            hibernation_supported: Some(false),
            dedicated_hosts_supported: Some(false),
            auto_recovery_supported: Some(true),
            nitro_enclaves_support: text("unsupported"),
            nitro_tpm_support: text("supported"),
            nitro_tpm_info: Some(ec2::NitroTpmInfo { supported_versions: list(&["2.0"]) }),
            ..Default::default()
        }
    }

    fn ebs_info(&self) -> ec2::EbsInfo {
        let text = |text: &str| Some(text.to_owned());
        let rates = |ebs: EbsRates| {
            let (mbps, iops) = (Some(ebs.megabits as i32), Some(ebs.iops as i32));
            let megabytes = Some(f64::from(ebs.megabits) / 8.0);
            ec2::EbsOptimizedInfo {
                baseline_bandwidth_in_mbps: mbps,
                baseline_throughput_in_m_bps: megabytes,
                baseline_iops: iops,
                maximum_bandwidth_in_mbps: mbps,
                maximum_throughput_in_m_bps: megabytes,
                maximum_iops: iops,
            }
        };
        ec2::EbsInfo {
            ebs_optimized_support: text(if self.ebs.is_some() { "default" } else { "unsupported" }),
            encryption_support: text("unsupported"),
            ebs_optimized_info: self.ebs.map(rates),
            nvme_support: text("unsupported"),
            maximum_ebs_attachments: Some(VOLUMES_MAX as i32),
            attachment_limit_type: text("shared"),
            ..Default::default()
        }
    }

    fn network_info(&self) -> ec2::NetworkInfo {
        let gbps = |bits: u64| bits as f64 / 1e9;
        let performance = self.bandwidth.map(|Bandwidth { baseline, peak }| match peak > baseline {
            true => format!("Up to {} Gigabit", gbps(peak)),
            false => format!("{} Gigabit", gbps(baseline)),
        });
        ec2::NetworkInfo {
            network_performance: performance.clone(),
            maximum_network_interfaces: Some(INTERFACES_MAX),
            maximum_network_cards: Some(1),
            default_network_card_index: Some(0),
            network_cards: vec![ec2::NetworkCardInfo {
                network_card_index: Some(0),
                network_performance: performance,
                maximum_network_interfaces: Some(INTERFACES_MAX),
                baseline_bandwidth_in_gbps: self.bandwidth.map(|rates| gbps(rates.baseline)),
                peak_bandwidth_in_gbps: self.bandwidth.map(|rates| gbps(rates.peak)),
                ..Default::default()
            }],
            ipv4_addresses_per_interface: Some(ADDRESSES_MAX),
            ipv6_addresses_per_interface: Some(ADDRESSES_MAX),
            ipv6_supported: Some(true),
            ena_support: Some("unsupported".to_owned()),
            efa_supported: Some(false),
            encryption_in_transit_supported: Some(false),
            ..Default::default()
        }
    }
}

impl InstanceStore {
    fn info(self) -> ec2::InstanceStorageInfo {
        ec2::InstanceStorageInfo {
            total_size_in_gb: Some(i64::from(self.count) * i64::from(self.size_gb)),
            disks: vec![ec2::DiskInfo {
                size_in_gb: Some(i64::from(self.size_gb)),
                count: Some(self.count as i32),
                r#type: Some("ssd".to_owned()),
            }],
            nvme_support: Some("unsupported".to_owned()),
            encryption_support: Some("unsupported".to_owned()),
        }
    }
}
