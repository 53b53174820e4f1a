//! Instance types: AWS's catalogue and the owner's own, and what of them this cloud offers.
//!
//! What a type is, is told by its `InstanceTypeInfo`, an own type's as well as AWS's. An own type is a record of its
//! region; everything that asks for a type by its name looks there first and then into the catalogue.

use crate::engine::Tables;
use crate::placement::{Load, VCPU_OVERCOMMIT};
use agent_api::{Architecture, HostDescription};
use aws_api::ec2::InstanceTypeInfo;
use catalogue::Catalogue;
use model::{Error, Result};
use std::sync::Arc;

/// Most volumes of an instance, whatever interfaces it has: its machine has room for so many.
const VOLUMES_MAX: usize = 27;

mod catalogue;
mod cpu_options;
mod credits;
mod describe;
mod operator;
mod own;
mod performance;

pub use cpu_options::with_cpu_options;
pub use credits::{Burstable, burstable};
pub use describe::{describe_instance_type_offerings, describe_instance_types};
pub use operator::{create_instance_type, delete_instance_type, list_instance_types};
pub use own::OwnType;
pub use performance::{EbsPerformance, InterfaceLimits, Performance, performance};

/// What a machine of some type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineShape {
    pub vcpus: u32,
    pub threads_per_core: u32,
    pub memory_mib: u64,
    pub architecture: Architecture,
}

/// What a new or resized instance of the type is; an error where there is no such type, or none that a host could be.
pub fn shape(tables: &Tables, name: &str) -> Result<MachineShape> {
    let shape = match tables.instance_types.find(name) {
        Some(own) => (!own.retired).then(|| own.shape()),
        None => Catalogue::get().info(name).as_ref().and_then(shape_of),
    };
    shape.ok_or_else(|| Error::invalid_parameter_value(format!("Invalid value '{name}' for InstanceType.")))
}

/// All that is known of a type; None where there is no such type.
fn info(tables: &Tables, name: &str) -> Option<InstanceTypeInfo> {
    match tables.instance_types.find(name) {
        Some(own) => Some(own.info()),
        None => Catalogue::get().info(name),
    }
}

/// How many volumes an instance of the type takes.
pub fn volumes_max(tables: &Tables, name: &str) -> usize {
    let said = info(tables, name).and_then(|info| info.ebs_info?.maximum_ebs_attachments);
    said.and_then(|most| usize::try_from(most).ok()).unwrap_or(VOLUMES_MAX)
}

/// Whether instances of the type are built on the Nitro System.
pub fn is_nitro(tables: &Tables, name: &str) -> bool {
    let is_nitro =
        |info: InstanceTypeInfo| info.hypervisor.as_deref() == Some("nitro") || info.bare_metal == Some(true);
    info(tables, name).is_some_and(is_nitro)
}

/// The types of a family that Dedicated Hosts take, in the order of their names. None of the owner's own are.
pub fn on_dedicated_hosts(family: &str) -> Vec<(String, MachineShape)> {
    Catalogue::get().on_dedicated_hosts(family)
}

/// The types that an instance could have here, in the order of their names: those that one of the hosts could hold
/// were it empty; all of them where the hosts are simulated.
fn offered(tables: &Tables, hosts: &[&HostDescription], simulate: bool) -> Vec<Arc<InstanceTypeInfo>> {
    let fits = |info: &InstanceTypeInfo| {
        shape_of(info).is_some_and(|shape| hosts.iter().any(|host| shape.fits(host)))
    };
    let name = |info: &Arc<InstanceTypeInfo>| info.instance_type.clone();
    let own = tables.instance_types.iter().filter(|own| !own.retired).map(|own| Arc::new(own.info()));
    let mut all: Vec<_> = own.chain(Catalogue::get().types().iter().cloned()).collect();
    all.retain(|info| simulate || fits(info));
    // A stable order: an own type hides AWS's that came later under its name.
    all.sort_by_key(name);
    all.dedup_by_key(|info| name(info));
    all
}

impl MachineShape {
    pub fn load(&self) -> Load {
        Load { vcpus: u64::from(self.vcpus), memory_mib: self.memory_mib }
    }

    fn fits(&self, host: &HostDescription) -> bool {
        self.architecture == host.architecture
            && u64::from(self.vcpus) <= u64::from(host.cores) * VCPU_OVERCOMMIT
            && self.memory_mib <= host.memory_mib
    }
}

/// None for a Mac.
fn shape_of(info: &InstanceTypeInfo) -> Option<MachineShape> {
    let supported = &info.processor_info.as_ref()?.supported_architectures;
    let supports = |name: &str| supported.iter().any(|supported| supported == name);
    let architecture = match (supports("x86_64"), supports("arm64")) {
        (true, _) => Architecture::X86_64,
        (false, true) => Architecture::Arm64,
        (false, false) => return None,
    };
    let processors = info.v_cpu_info.as_ref()?;
    Some(MachineShape {
        vcpus: u32::try_from(processors.default_v_cpus?).ok()?,
        threads_per_core: processors
            .default_threads_per_core
            .and_then(|threads| u32::try_from(threads).ok())
            .unwrap_or(1),
        memory_mib: u64::try_from(info.memory_info.as_ref()?.size_in_mi_b?).ok()?,
        architecture,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_offered_what_it_can_hold() {
        let host = HostDescription {
            host_id: "h".into(),
            protocol_version: agent_api::PROTOCOL_VERSION,
            architecture: Architecture::X86_64,
            cores: 2,
            memory_mib: 8 * 1024,
            disk_gib: 10,
            zone: 0,
            rack: "r".into(),
            acceleration: "tcg".into(),
            links: Vec::new(),
        };
        let tables = Tables::default();
        let names = |simulate| -> Vec<String> {
            let offered = offered(&tables, &[&host], simulate);
            offered.iter().filter_map(|info| info.instance_type.clone()).collect()
        };
        let real = names(false);
        assert!(real.contains(&"t3.micro".to_owned()) && real.contains(&"m5.large".to_owned()));
        for other in ["t4g.nano", "m5.xlarge", "c5.4xlarge", "mac1.metal"] {
            assert!(!real.iter().any(|name| name == other), "{other}");
        }
        assert_eq!(names(true).len(), Catalogue::get().types().len());
    }
}
