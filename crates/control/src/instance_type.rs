//! Instance types: AWS's catalogue, and what of it this cloud offers.
//!
//! The catalogue is a JSON array with one type a line, sorted by name, each line beginning with the name; a test
//! holds it to that. It lies in the program's file and costs nothing until it is asked for: finding one type splits
//! the lines once and decodes one of them, and only a request that looks at many types decodes all.

use crate::placement::{Load, VCPU_OVERCOMMIT};
use agent_api::{Architecture, HostDescription};
use aws_api::ec2::InstanceTypeInfo;
use std::sync::{Arc, OnceLock};

mod credits;
mod describe;
mod performance;

pub use credits::credits;
pub use describe::{describe_instance_type_offerings, describe_instance_types};
pub use performance::{Performance, performance};

static TYPES: &str = include_str!("../data/instance-types.json");
const LINE_PREFIX: &str = "{\"InstanceType\":\"";

/// What a machine of some type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineShape {
    pub vcpus: u32,
    pub memory_mib: u64,
    pub architecture: Architecture,
}

/// AWS's instance types.
#[derive(Default)]
pub struct Catalogue {
    lines: OnceLock<Vec<Line>>,
    types: OnceLock<Vec<Arc<InstanceTypeInfo>>>,
}

struct Line {
    name: &'static str,
    json: &'static str,
}

impl Line {
    fn read(json: &'static str) -> Option<Line> {
        let (name, _) = json.strip_prefix(LINE_PREFIX)?.split_once('"')?;
        Some(Line { name, json: json.strip_suffix(',').unwrap_or(json) })
    }

    /// A test decodes every line: none is lost here.
    fn decode(&self) -> Option<InstanceTypeInfo> {
        serde_json::from_str(self.json).ok()
    }
}

impl Catalogue {
    fn lines(&self) -> &[Line] {
        self.lines.get_or_init(|| TYPES.lines().filter_map(Line::read).collect())
    }

    /// Every type with all that is known of it, in the order of their names.
    fn types(&self) -> &[Arc<InstanceTypeInfo>] {
        self.types.get_or_init(|| self.lines().iter().filter_map(Line::decode).map(Arc::new).collect())
    }

    /// None where there is no such type, or none that a host could be.
    pub fn shape(&self, name: &str) -> Option<MachineShape> {
        shape_of(&self.info(name)?)
    }

    fn info(&self, name: &str) -> Option<InstanceTypeInfo> {
        let lines = self.lines();
        let at = lines.binary_search_by(|line| line.name.cmp(name)).ok()?;
        lines[at].decode()
    }

    /// The types of a family that Dedicated Hosts take, in the order of their names.
    pub fn on_dedicated_hosts(&self, family: &str) -> Vec<(String, MachineShape)> {
        let of_family = |line: &&Line| crate::placement::family(line.name) == family;
        let lines = self.lines();
        // Sorted by name, types of one family are beside each other.
        let from = lines.partition_point(|line| line.name < family);
        let infos = lines[from..].iter().take_while(|line| line.name.starts_with(family)).filter(of_family);
        infos
            .filter_map(Line::decode)
            .filter(|info| info.dedicated_hosts_supported == Some(true))
            .filter_map(|info| Some((info.instance_type.clone()?, shape_of(&info)?)))
            .collect()
    }

    /// The types that an instance could have here, in the order of their names: those that one of the hosts could
    /// hold were it empty; all of them where the hosts are simulated.
    fn offered(&self, hosts: &[&HostDescription], simulate: bool) -> Vec<Arc<InstanceTypeInfo>> {
        let fits = |info: &InstanceTypeInfo| {
            shape_of(info).is_some_and(|shape| hosts.iter().any(|host| shape.fits(host)))
        };
        self.types().iter().filter(|info| simulate || fits(info)).cloned().collect()
    }
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
    Some(MachineShape {
        vcpus: u32::try_from(info.v_cpu_info.as_ref()?.default_v_cpus?).ok()?,
        memory_mib: u64::try_from(info.memory_info.as_ref()?.size_in_mi_b?).ok()?,
        architecture,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_as_its_readers_expect() {
        let catalogue = Catalogue::default();
        let whole: Vec<Arc<InstanceTypeInfo>> = serde_json::from_str(TYPES).unwrap();
        assert_eq!(catalogue.types(), whole);
        assert!(catalogue.lines().windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(whole.len() > 800, "{}", whole.len());
        for (line, info) in catalogue.lines().iter().zip(&whole) {
            assert_eq!(info.instance_type.as_deref(), Some(line.name));
            assert_eq!(catalogue.shape(line.name), shape_of(info), "{}", line.name);
        }
    }

    #[test]
    fn a_known_type_has_its_shape_and_an_unknown_none() {
        let catalogue = Catalogue::default();
        let micro = MachineShape { vcpus: 2, memory_mib: 1024, architecture: Architecture::X86_64 };
        assert_eq!(catalogue.shape("t3.micro"), Some(micro));
        assert_eq!(catalogue.shape("t4g.nano").unwrap().architecture, Architecture::Arm64);
        for name in ["", "t3", "t3.micr", "t3.micro ", "T3.MICRO", "t9.colossal", "\"}", "mac2.metal"] {
            assert_eq!(catalogue.shape(name), None, "{name}");
        }
    }

    #[test]
    fn dedicated_hosts_take_what_the_catalogue_says() {
        let catalogue = Catalogue::default();
        let m5 = catalogue.on_dedicated_hosts("m5");
        assert!(m5.iter().any(|(name, shape)| name == "m5.large" && shape.vcpus == 2));
        assert!(m5.iter().all(|(name, _)| name.starts_with("m5.")));
        for family in ["", "m", "m5.", "t2", "mac1"] {
            assert!(catalogue.on_dedicated_hosts(family).is_empty(), "{family}");
        }
    }

    #[test]
    fn a_host_is_offered_what_it_can_hold() {
        let catalogue = Catalogue::default();
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
        };
        let names = |simulate| -> Vec<String> {
            catalogue
                .offered(&[&host], simulate)
                .iter()
                .filter_map(|info| info.instance_type.clone())
                .collect()
        };
        let real = names(false);
        assert!(real.contains(&"t3.micro".to_owned()) && real.contains(&"m5.large".to_owned()));
        for other in ["t4g.nano", "m5.xlarge", "c5.4xlarge", "mac1.metal"] {
            assert!(!real.iter().any(|name| name == other), "{other}");
        }
        assert_eq!(names(true).len(), catalogue.types().len());
    }
}
