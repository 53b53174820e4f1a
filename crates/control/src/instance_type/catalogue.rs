//! AWS's instance types.
//!
//! The catalogue is a JSON array with one type a line, sorted by name, each line beginning with the name; a test
//! holds it to that. It lies in the program's file and costs nothing until it is asked for: finding one type splits
//! the lines once and decodes one of them, and only a request that looks at many types decodes all.

use super::{MachineShape, VOLUMES_MAX, shape_of};
use aws_api::ec2::InstanceTypeInfo;
use std::sync::{Arc, LazyLock, OnceLock};

static TYPES: &str = include_str!("../../data/instance-types.json");
const LINE_PREFIX: &str = "{\"InstanceType\":\"";

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::default);

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
        serde_json::from_str(self.json).ok().map(as_here)
    }
}

/// Of no more volumes than a machine here has room for, whatever interfaces it has.
fn as_here(mut info: InstanceTypeInfo) -> InstanceTypeInfo {
    if let Some(ebs) = &mut info.ebs_info {
        ebs.maximum_ebs_attachments = ebs.maximum_ebs_attachments.map(|most| most.min(VOLUMES_MAX as i32));
        ebs.attachment_limit_type = Some("dedicated".into());
    }
    info
}

impl Catalogue {
    pub fn get() -> &'static Catalogue {
        &CATALOGUE
    }

    fn lines(&self) -> &[Line] {
        self.lines.get_or_init(|| TYPES.lines().filter_map(Line::read).collect())
    }

    /// Every type with all that is known of it, in the order of their names.
    pub fn types(&self) -> &[Arc<InstanceTypeInfo>] {
        self.types.get_or_init(|| self.lines().iter().filter_map(Line::decode).map(Arc::new).collect())
    }

    pub fn info(&self, name: &str) -> Option<InstanceTypeInfo> {
        let lines = self.lines();
        let at = lines.binary_search_by(|line| line.name.cmp(name)).ok()?;
        lines[at].decode()
    }

    /// Whether types of this family are AWS's.
    pub fn has_family(&self, family: &str) -> bool {
        let lines = self.lines();
        let from = lines.partition_point(|line| line.name < family);
        lines[from..]
            .iter()
            .take_while(|line| line.name.starts_with(family))
            .any(|line| crate::placement::family(line.name) == family)
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::Architecture;

    fn shape(name: &str) -> Option<MachineShape> {
        shape_of(&Catalogue::get().info(name)?)
    }

    #[test]
    fn the_file_is_as_its_readers_expect() {
        let catalogue = Catalogue::get();
        let whole: Vec<InstanceTypeInfo> = serde_json::from_str(TYPES).unwrap();
        let whole: Vec<_> = whole.into_iter().map(as_here).map(Arc::new).collect();
        assert_eq!(catalogue.types(), whole);
        assert!(catalogue.lines().windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(whole.len() > 800, "{}", whole.len());
        for (line, info) in catalogue.lines().iter().zip(&whole) {
            assert_eq!(info.instance_type.as_deref(), Some(line.name));
            assert_eq!(shape(line.name), shape_of(info), "{}", line.name);
        }
    }

    #[test]
    fn a_known_type_has_its_shape_and_an_unknown_none() {
        let micro = MachineShape {
            vcpus: 2,
            threads_per_core: 2,
            memory_mib: 1024,
            architecture: Architecture::X86_64,
        };
        assert_eq!(shape("t3.micro"), Some(micro));
        assert_eq!(shape("t4g.nano").unwrap().architecture, Architecture::Arm64);
        for name in ["", "t3", "t3.micr", "t3.micro ", "T3.MICRO", "t9.colossal", "\"}", "mac2.metal"] {
            assert_eq!(shape(name), None, "{name}");
        }
    }

    #[test]
    fn dedicated_hosts_take_what_the_catalogue_says() {
        let catalogue = Catalogue::get();
        let m5 = catalogue.on_dedicated_hosts("m5");
        assert!(m5.iter().any(|(name, shape)| name == "m5.large" && shape.vcpus == 2));
        assert!(m5.iter().all(|(name, _)| name.starts_with("m5.")));
        for (family, is) in
            [("m5", true), ("mac1", true), ("", false), ("m", false), ("m5.", false), ("zz", false)]
        {
            assert_eq!(catalogue.has_family(family), is, "{family}");
        }
        for family in ["", "m", "m5.", "t2", "mac1"] {
            assert!(catalogue.on_dedicated_hosts(family).is_empty(), "{family}");
        }
    }
}
