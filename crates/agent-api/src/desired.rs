//! What shall be on a host.

use model::{DiskLimits, Id, SecretKey, Timestamp, UefiVariable};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Everything that shall be on one host, by id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    pub vpcs: BTreeMap<Id, Vpc>,
    pub security_groups: BTreeMap<Id, SecurityGroup>,
    pub volumes: BTreeMap<Id, Volume>,
    pub instances: BTreeMap<Id, Instance>,
    #[serde(default)]
    pub public_pools: BTreeMap<Id, PublicPool>,
}

/// One difference between two desires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    PutVpc(Box<Vpc>),
    RemoveVpc(Id),
    PutSecurityGroup(SecurityGroup),
    RemoveSecurityGroup(Id),
    PutPublicPool(PublicPool),
    RemovePublicPool(Id),
    PutVolume(Volume),
    /// The volume's data is destroyed.
    RemoveVolume(Id),
    PutInstance(Box<Instance>),
    /// As `Power::GoneForced`, of an instance that nothing is known of any more.
    RemoveInstance(Id),
}

impl Desired {
    /// Makes this desire what it is after the change. Puts of an older generation are ignored.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::PutVpc(vpc) => put(&mut self.vpcs, vpc.network.vpc_id.clone(), *vpc, |v| v.generation),
            Change::PutSecurityGroup(group) => {
                put(&mut self.security_groups, group.network.group_id.clone(), group, |g| g.generation)
            }
            Change::PutPublicPool(pool) => {
                put(&mut self.public_pools, pool.pool_id.clone(), pool, |p| p.generation)
            }
            Change::PutVolume(volume) => {
                put(&mut self.volumes, volume.volume_id.clone(), volume, |v| v.generation)
            }
            Change::PutInstance(instance) => {
                put(&mut self.instances, instance.instance_id.clone(), *instance, |i| i.generation)
            }
            Change::RemoveVpc(id) => drop(self.vpcs.remove(&id)),
            Change::RemoveSecurityGroup(id) => drop(self.security_groups.remove(&id)),
            Change::RemovePublicPool(id) => drop(self.public_pools.remove(&id)),
            Change::RemoveVolume(id) => drop(self.volumes.remove(&id)),
            Change::RemoveInstance(id) => drop(self.instances.remove(&id)),
        }
    }
}

fn put<T>(map: &mut BTreeMap<Id, T>, id: Id, value: T, generation: impl Fn(&T) -> u64) {
    if map.get(&id).is_none_or(|had| generation(had) <= generation(&value)) {
        map.insert(id, value);
    }
}

/// A VPC: its network, and what its services tell guests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vpc {
    pub generation: u64,
    pub network: datapath::Vpc,
    /// Names under it are the VPC's own, as `ec2.internal`.
    pub dns_domain: String,
    /// `enableDnsSupport`: its resolver answers.
    pub dns_support: bool,
    /// `enableDnsHostnames`: its instances have public names.
    pub dns_hostnames: bool,
    /// `EnableDns64`: in these subnets, names of what has IPv4 alone lead to it by way of a NAT gateway.
    #[serde(default)]
    pub dns64_subnets: BTreeSet<Id>,
    pub dhcp_options: DhcpOptions,
}

/// What guests are told by DHCP beside their address (VPC User Guide, "DHCP option sets in Amazon VPC").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOptions {
    pub domain_name: Option<String>,
    /// Empty is the VPC's own resolver, as is its address among them.
    pub domain_name_servers: Vec<IpAddr>,
    pub ntp_servers: Vec<IpAddr>,
    pub netbios_name_servers: Vec<Ipv4Addr>,
    pub netbios_node_type: Option<u8>,
    /// For how many seconds an address of IPv6 is preferred.
    #[serde(default)]
    pub ipv6_preferred_seconds: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub generation: u64,
    pub network: datapath::SecurityGroup,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublicPool {
    pub pool_id: Id,
    pub generation: u64,
    pub network: datapath::PublicPool,
}

/// A disk that keeps its data until it is no longer desired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    pub volume_id: Id,
    pub generation: u64,
    /// Grows when this does; never shrinks.
    pub size_gib: u32,
    /// What it holds when made; zeros where None.
    pub snapshot_id: Option<Id>,
    /// It was whole here before: where it is not, it is `VolumeState::Lost`, never made anew.
    #[serde(default)]
    pub made: bool,
    /// The data key of an encrypted one. No host writes it down.
    #[serde(default)]
    pub key: Option<SecretKey>,
    /// The data key of the snapshot that it is made of, where that is encrypted with another.
    #[serde(default)]
    pub snapshot_key: Option<SecretKey>,
    /// How fast it is for all that have it together, where several instances can have it at once.
    #[serde(default)]
    pub multi_attach: Option<DiskLimits>,
    /// How fast what it is made of shall come at least, in MiB a second.
    #[serde(default)]
    pub initialization_mibps: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Power {
    On,
    /// Off, its volumes kept. The guest is asked to power off (ACPI) and given time first.
    Off,
    /// Off at once.
    OffForced,
    /// Off as with `Off`; then nothing of it stays but its volumes.
    Gone,
    /// Off at once; then nothing of it stays but its volumes.
    GoneForced,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub instance_id: Id,
    pub generation: u64,
    /// The request that made it so, for the log: never a reason to do anything.
    #[serde(default)]
    pub request_id: Option<String>,
    pub power: Power,
    /// Counts the times the guest shall have been started or rebooted: a guest that runs with an older number is
    /// restarted; one that ended by itself is not started again until this number rises.
    pub boot: u64,
    pub machine: Machine,
    /// The primary one first: it stays for as long as the machine runs.
    pub interfaces: Vec<Interface>,
    #[serde(default)]
    pub efa_only: Vec<EfaOnlyInterface>,
    pub disks: Vec<Disk>,
    pub metadata: Metadata,
    pub metadata_options: MetadataOptions,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As `t3.micro`: shown to the guest as its DMI product name.
    pub instance_type: String,
    pub architecture: Architecture,
    pub boot_mode: BootMode,
    /// What its firmware has at its first start.
    #[serde(default)]
    pub uefi_variables: Vec<UefiVariable>,
    /// Whether it has a TPM 2.0.
    #[serde(default)]
    pub tpm: bool,
    #[serde(default)]
    pub disk_bus: DiskBus,
    pub vcpus: u32,
    /// Divides the vCPUs; zero is one.
    #[serde(default)]
    pub threads_per_core: u32,
    pub memory_mib: u64,
    /// None where it may use its processors all the time.
    #[serde(default)]
    pub credits: Option<CpuCredits>,
    /// How many interfaces it may have at a time.
    #[serde(default)]
    pub interfaces_max: usize,
    /// Bytes of each instance store volume: empty at every start, gone with every stop.
    #[serde(default)]
    pub instance_store: Vec<u64>,
}

/// By what a burstable instance may use its processors (EC2 User Guide, "Key concepts for burstable performance
/// instances"). A credit is one processor for one minute; what a day earns can be saved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuCredits {
    /// Earned for each hour that it runs.
    pub per_hour: f64,
    /// Given at each start, where it is not unlimited.
    pub at_launch: f64,
    /// It may spend what it has not.
    pub unlimited: bool,
    /// What is saved outlives a stop of some days.
    pub kept_when_stopped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Architecture {
    X86_64,
    Arm64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootMode {
    LegacyBios,
    Uefi,
}

/// What a guest has its disks by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    #[default]
    Virtio,
    Nvme,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    pub volume_id: Id,
    /// As the user named it: `/dev/sda1`, `/dev/xvda`.
    pub device_name: String,
    /// The disk that the machine boots from.
    pub root: bool,
    /// Not held to any where None.
    #[serde(default)]
    pub limits: Option<DiskLimits>,
    /// None while the guest shall have it. A disk that is left out without a word goes as one that is asked for.
    #[serde(default)]
    pub detach: Option<Detach>,
}

/// How a disk or an interface shall leave a guest. Told as `PlugState::Detached` once it has, or where none runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detach {
    /// The guest is asked to let go of it.
    Asked,
    /// It goes whether or not the guest lets go of it: what the guest then does with it fails.
    Forced,
}

/// A network interface of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    pub network: datapath::Interface,
    pub device_index: u8,
    pub delete_on_termination: bool,
    /// As many as the machine's processors ask for where None.
    #[serde(default)]
    pub queues: Option<u16>,
    /// None while the guest shall have it.
    #[serde(default)]
    pub detach: Option<Detach>,
}

impl Interface {
    pub fn is_primary(&self) -> bool {
        (self.network_card(), self.device_index) == (0, 0)
    }

    pub fn network_card(&self) -> u8 {
        self.network.network_card.as_ref().map_or(0, |card| card.index)
    }
}

/// An interface that has an Elastic Fabric Adapter and no Ethernet, nor addresses (EC2 User Guide, "Elastic Fabric
/// Adapter"). As long as no host has RDMA there is nothing of it on the host's network, nor a device in the guest: its
/// metadata alone tell of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EfaOnlyInterface {
    pub interface_id: Id,
    pub vpc_id: Id,
    pub subnet_id: Id,
    pub mac: [u8; 6],
    pub groups: Vec<Id>,
    pub device_index: u8,
    pub network_card: u8,
}

/// What the metadata service says of an instance beyond what the other parts tell
/// (EC2 User Guide, "Instance metadata categories").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    pub account_id: String,
    pub region: String,
    pub availability_zone: String,
    pub availability_zone_id: String,
    pub ami_id: Id,
    pub ami_launch_index: u32,
    pub reservation_id: Id,
    pub launched_at: Timestamp,
    pub local_hostname: String,
    pub public_hostname: Option<String>,
    /// Whether the name after the instance's id has an IPv4 address.
    #[serde(default)]
    pub resource_a_record: bool,
    /// Whether it has an IPv6 address.
    #[serde(default)]
    pub resource_aaaa_record: bool,
    pub security_group_names: Vec<String>,
    /// Name and OpenSSH line of the key pair.
    pub public_key: Option<(String, String)>,
    /// Decoded.
    pub user_data: Option<Vec<u8>>,
    pub tags: BTreeMap<String, String>,
    pub partition_number: Option<u32>,
    pub placement_group: Option<String>,
    pub host_id: Option<String>,
}

/// ModifyInstanceMetadataOptions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetadataOptions {
    /// `HttpEndpoint`.
    pub enabled: bool,
    /// `HttpTokens=required`: version 1 requests are refused.
    pub tokens_required: bool,
    /// `HttpPutResponseHopLimit`, 1 to 64.
    pub hop_limit: u8,
    /// `InstanceMetadataTags`.
    pub instance_tags: bool,
    /// `HttpProtocolIpv6`: it answers at its address of IPv6 too.
    #[serde(default)]
    pub ipv6: bool,
}
