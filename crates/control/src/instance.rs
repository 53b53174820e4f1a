//! Instances: the record that control keeps of each, and what its host is told of it.
//!
//! A call changes the record (state, `boot`, `force_stop`) and returns; the reconciler tells the host what shall
//! be, and what the host observes moves the record on (`lifecycle::observed`). Nothing of a launch lives in a
//! task's memory, so a crash at any point resumes by itself.

use crate::Context;
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, filter};
use crate::host_names::HostNames;
use crate::image;
use crate::network_interface::NetworkInterface;
use crate::placement::Load;
use crate::region::RegionState;
use agent_api::{Architecture, BootMode, DiskBus, HostAgent, HostError, StatusChecks};
use model::{AccountId, Id, InstanceState, Kind, Region, Result, Text, Timestamp};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

pub mod attribute;
pub mod console;
pub mod credit;
pub mod describe;
pub mod desired;
pub mod lifecycle;
pub mod monitoring;
pub mod names;
pub mod placement;
pub mod run;
pub mod status;
pub mod uefi_data;

pub use credit::CreditOption;
pub use placement::{Affinity, InGroup, Placement, Tenancy};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub instance_id: Id,
    pub reservation_id: Id,
    pub owner: AccountId,
    pub launch_index: u32,
    pub client_token: Option<Box<str>>,

    pub state: InstanceState,
    /// The request that what is done about it is done for; None where it has ended by itself since.
    #[serde(default)]
    pub request_id: Option<Box<str>>,
    /// Rises with every start and reboot; the host restarts a guest that runs with an older one.
    pub boot: u64,
    /// Whether the stop or end that is under way shall not wait for the guest.
    pub force_stop: bool,
    /// While its volumes are captured for an image.
    #[serde(default)]
    pub hold: Option<Hold>,
    pub state_reason: Option<Box<StateReason>>,
    pub state_transition_reason: Box<str>,
    /// What the status checks of a boot have found, last time that it was something else.
    #[serde(default)]
    pub checks: Option<(u64, StatusChecks)>,
    pub launched_at: Timestamp,
    pub created_at: Timestamp,
    pub terminated_at: Option<Timestamp>,
    /// Terminated while it was stopped: its place on the host may be another's since.
    #[serde(default)]
    pub ended_stopped: bool,

    pub image_id: Id,
    pub instance_type: Text,
    pub architecture: Architecture,
    pub boot_mode: BootMode,
    /// As its image has it.
    #[serde(default)]
    pub uefi_data: Option<Box<str>>,
    #[serde(default)]
    pub tpm: bool,
    #[serde(default)]
    pub disk_bus: DiskBus,
    pub vcpus: u32,
    /// Divides the vCPUs; zero is one.
    #[serde(default)]
    pub threads_per_core: u32,
    pub memory_mib: u64,
    pub platform_details: Text,
    pub root_device_name: Text,

    pub placement: Placement,
    /// Empty once terminated.
    pub interfaces: SmallVec<[Id; 1]>,
    pub disks: SmallVec<[InstanceDisk; 1]>,
    /// Where the instance is or, once its interfaces are gone, was.
    pub vpc_id: Id,
    pub subnet_id: Id,

    /// Name and OpenSSH line of the key pair, as they were at launch.
    pub public_key: Option<Box<(String, String)>>,
    /// As given: base64.
    pub user_data: Option<Box<str>>,
    pub metadata_options: MetadataOptions,
    pub shutdown_behavior: ShutdownBehavior,
    pub disable_api_termination: bool,
    pub disable_api_stop: bool,
    pub ebs_optimized: bool,
    pub ena_support: bool,
    pub monitoring: bool,
    /// Of burstable types; None leaves it to the type.
    pub cpu_credits: Option<CreditOption>,
    #[serde(default)]
    pub auto_recovery: AutoRecovery,
    /// Whether it would stay out of Capacity Reservations, of which there are none.
    #[serde(default)]
    pub avoids_reservations: bool,
    #[serde(default)]
    pub names: HostNames,
    pub tags: Tags,
}

/// A running instance whose guest is shut down for the moment; it boots again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    Asked,
    Down,
}

/// EC2's `StateReason`: `Client.UserInitiatedShutdown` and the like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateReason {
    pub code: Text,
    pub message: Box<str>,
}

impl StateReason {
    pub fn new(code: &str, message: &str) -> StateReason {
        StateReason { code: code.into(), message: format!("{code}: {message}").into() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceDisk {
    pub device_name: Text,
    pub volume_id: Id,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetadataOptions {
    pub http_endpoint: bool,
    pub http_tokens_required: bool,
    pub hop_limit: u8,
    pub instance_tags: bool,
    #[serde(default)]
    pub http_ipv6: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownBehavior {
    Stop,
    Terminate,
}

/// Whether an instance is started again elsewhere where its host fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AutoRecovery {
    #[default]
    Default,
    Disabled,
}

impl AutoRecovery {
    pub fn name(self) -> &'static str {
        match self {
            AutoRecovery::Default => "default",
            AutoRecovery::Disabled => "disabled",
        }
    }

    pub fn parse(text: &str) -> model::Result<Self> {
        match text {
            "default" => Ok(AutoRecovery::Default),
            "disabled" => Ok(AutoRecovery::Disabled),
            other => Err(model::Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter autoRecovery is invalid. Valid values are default and disabled."
            ))),
        }
    }
}

impl ShutdownBehavior {
    pub fn name(self) -> &'static str {
        match self {
            ShutdownBehavior::Stop => "stop",
            ShutdownBehavior::Terminate => "terminate",
        }
    }

    pub fn parse(text: &str) -> model::Result<Self> {
        match text {
            "stop" => Ok(ShutdownBehavior::Stop),
            "terminate" => Ok(ShutdownBehavior::Terminate),
            other => Err(model::Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter instanceInitiatedShutdownBehavior is invalid. Valid values are stop and terminate."
            ))),
        }
    }
}

pub fn architecture_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "x86_64",
        Architecture::Arm64 => "arm64",
    }
}

pub fn boot_mode_name(mode: BootMode) -> &'static str {
    match mode {
        BootMode::LegacyBios => "legacy-bios",
        BootMode::Uefi => "uefi",
    }
}

impl Instance {
    pub fn is_terminated(&self) -> bool {
        self.state == InstanceState::Terminated
    }

    /// As EC2 writes it.
    fn reservation_preference(&self) -> &'static str {
        if self.avoids_reservations { "none" } else { "open" }
    }

    /// Who has it on its host.
    fn host(&self, region: &RegionState) -> std::result::Result<Arc<dyn HostAgent>, HostError> {
        let host_id = &self.placement.host_id;
        let not_here = || format!("{} is placed on {host_id}, which is not here", self.instance_id);
        let host = region.host(host_id).ok_or_else(|| HostError::Failed(not_here()))?;
        Ok(host.agent.clone())
    }

    /// Whether it takes up room on its host. A stopped one does not, and may be placed anew when started.
    pub fn load(&self) -> Load {
        Load { vcpus: u64::from(self.vcpus), memory_mib: self.memory_mib }
    }

    pub fn occupies_host(&self) -> bool {
        !self.ended_stopped && !matches!(self.state, InstanceState::Terminated | InstanceState::Stopped)
    }

    /// The interface with device index 0.
    pub fn primary_interface<'t>(&self, tables: &'t Tables) -> Option<&'t Arc<NetworkInterface>> {
        self.interfaces.first().and_then(|id| tables.network_interfaces.find(id))
    }

    /// Inside its VPC; None where it has no interface any more.
    pub fn private_dns_name(&self, tables: &Tables, region: &Region) -> Option<String> {
        let interface = self.primary_interface(tables)?;
        Some(match self.names.by_resource {
            true => format!("{}.{}", self.instance_id, region.private_dns_domain()),
            false => interface.private_dns_name(region),
        })
    }

    /// Outside; None where its VPC gives none.
    pub fn public_dns_name(&self, tables: &Tables, region: &Region) -> Option<String> {
        self.primary_interface(tables)?.public_dns_name(tables, region)
    }
}

/// The one that a request names.
fn find(context: &Context, id: Option<&str>) -> Result<Arc<Instance>> {
    let id = Id::parse(Kind::Instance, id.unwrap_or_default())?;
    context.region.view.record::<Instance>(&id).ok_or_else(|| Id::not_found(Kind::Instance, &id))
}

/// The field with the machine that an instance or a volume is on. Ours, not EC2's: nothing that a user would filter by.
pub(crate) const ON_HOST: &str = "cumulet:on-host";

impl Record for Instance {
    const TABLE: &'static str = "instance";
    const INDEXED: &'static [&'static str] = &[
        "image-id",
        "instance-state-name",
        "instance-type",
        "reservation-id",
        "subnet-id",
        "vpc-id",
        "placement-group-name",
        "key-name",
        "host-id",
        ON_HOST,
    ];

    fn id(&self) -> &str {
        &self.instance_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    /// Filters that the record alone answers; those about interfaces and volumes are in `describe`.
    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let options = &self.metadata_options;
        let placement = &self.placement;
        let on_dedicated_host = placement.tenancy == Tenancy::Host;
        match name {
            ON_HOST => filter::one(values, placement.host_id.as_str()),
            "affinity" => filter::some(values, on_dedicated_host.then(|| placement.affinity.name())),
            "capacity-reservation-id"
            | "iam-instance-profile.arn"
            | "iam-instance-profile.id"
            | "instance-lifecycle"
            | "kernel-id"
            | "outpost-arn"
            | "platform"
            | "product-code"
            | "product-code.type"
            | "ramdisk-id"
            | "requester-id"
            | "spot-instance-request-id" => true,
            "tpm-support" => filter::some(values, image::tpm_support(self.tpm)),
            "architecture" => filter::one(values, architecture_name(self.architecture)),
            "availability-zone" => filter::one(values, placement.zone.as_str()),
            "boot-mode" | "current-instance-boot-mode" => filter::one(values, boot_mode_name(self.boot_mode)),
            "capacity-reservation-specification.capacity-reservation-preference" => {
                filter::one(values, self.reservation_preference())
            }
            "client-token" => filter::some(values, self.client_token.as_deref()),
            "ebs-optimized" => filter::one(values, filter::boolean(self.ebs_optimized)),
            "ena-support" => filter::one(values, filter::boolean(self.ena_support)),
            "enclave-options.enabled" | "hibernation-options.configured" => filter::one(values, "false"),
            "host-id" => filter::some(values, placement.dedicated_host_id.as_deref()),
            "hypervisor" => filter::one(values, "xen"),
            "image-id" => filter::one(values, self.image_id.as_str()),
            "instance-id" => filter::one(values, self.instance_id.as_str()),
            "instance-state-code" => filter::one(values, self.state.code().to_string()),
            "instance-state-name" => filter::one(values, self.state.name()),
            "instance-type" => filter::one(values, self.instance_type.as_str()),
            "key-name" => filter::some(values, self.public_key.as_ref().map(|key| key.0.as_str())),
            "launch-index" => filter::one(values, self.launch_index.to_string()),
            "launch-time" => filter::one(values, filter::time(self.launched_at)),
            "maintenance-options.auto-recovery" => filter::one(values, self.auto_recovery.name()),
            "metadata-options.http-endpoint" => {
                filter::one(values, if options.http_endpoint { "enabled" } else { "disabled" })
            }
            "metadata-options.http-protocol-ipv4" => filter::one(values, "enabled"),
            "metadata-options.http-protocol-ipv6" => {
                filter::one(values, if options.http_ipv6 { "enabled" } else { "disabled" })
            }
            "metadata-options.http-put-response-hop-limit" => {
                filter::one(values, options.hop_limit.to_string())
            }
            "metadata-options.http-tokens" => {
                filter::one(values, if options.http_tokens_required { "required" } else { "optional" })
            }
            "metadata-options.instance-metadata-tags" => {
                filter::one(values, if options.instance_tags { "enabled" } else { "disabled" })
            }
            "metadata-options.state" => filter::one(values, "applied"),
            "monitoring-state" => filter::one(values, if self.monitoring { "enabled" } else { "disabled" }),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "placement-group-name" => filter::some(values, placement.group_name()),
            "placement-partition-number" => {
                filter::some(values, placement.partition_number().map(|number| number.to_string()))
            }
            "platform-details" => filter::one(values, self.platform_details.as_str()),
            "reason" => filter::one(values, &*self.state_transition_reason),
            "reservation-id" => filter::one(values, self.reservation_id.as_str()),
            "root-device-name" => filter::one(values, self.root_device_name.as_str()),
            "root-device-type" => filter::one(values, "ebs"),
            "state-reason-code" => {
                filter::some(values, self.state_reason.as_ref().map(|reason| reason.code.as_str()))
            }
            "state-reason-message" => {
                filter::some(values, self.state_reason.as_ref().map(|reason| &*reason.message))
            }
            "subnet-id" => filter::one(values, self.subnet_id.as_str()),
            "tenancy" => filter::one(values, placement.tenancy.name()),
            "usage-operation" => filter::one(values, "RunInstances"),
            "usage-operation-update-time" => filter::one(values, filter::time(self.created_at)),
            "virtualization-type" => filter::one(values, "hvm"),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            _ => match name.strip_prefix("private-dns-name-options.") {
                Some(name) => self.names.field(name, values),
                None => false,
            },
        }
    }
}
