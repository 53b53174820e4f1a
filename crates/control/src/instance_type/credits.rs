//! What burstable types earn (EC2 User Guide, "Key concepts for burstable performance instances").

use super::OwnType;
use crate::engine::Tables;
use agent_api::CpuCredits;

/// A credit is a minute of one processor.
const CREDITS_EACH_VCPU_HOUR: f64 = 60.0;
/// What a standard instance of T2 is given at each start; it loses what it has by a stop.
const T2_LAUNCH_EACH_VCPU: f64 = 30.0;
const OTHER_FAMILIES: [&str; 3] = ["t3", "t3a", "t4g"];

/// Processors, and credits an hour, by size.
const T2: [(&str, u32, f64); 7] = [
    ("nano", 1, 3.0),
    ("micro", 1, 6.0),
    ("small", 1, 12.0),
    ("medium", 2, 24.0),
    ("large", 2, 36.0),
    ("xlarge", 4, 54.0),
    ("2xlarge", 8, 81.6),
];
const OTHERS: [(&str, u32, f64); 7] = [
    ("nano", 2, 6.0),
    ("micro", 2, 12.0),
    ("small", 2, 24.0),
    ("medium", 2, 24.0),
    ("large", 2, 36.0),
    ("xlarge", 4, 96.0),
    ("2xlarge", 8, 192.0),
];

/// How a burstable type earns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burstable {
    per_hour: f64,
    at_launch: f64,
    kept_when_stopped: bool,
    /// Whether its instances are unlimited where nothing was said.
    pub unlimited_by_default: bool,
}

impl Burstable {
    pub fn credits(self, unlimited: bool) -> CpuCredits {
        let Burstable { per_hour, at_launch, kept_when_stopped, .. } = self;
        CpuCredits { per_hour, at_launch, unlimited, kept_when_stopped }
    }
}

/// None where the type is not burstable.
pub fn burstable(tables: &Tables, instance_type: &str) -> Option<Burstable> {
    match tables.instance_types.find(instance_type) {
        Some(own) => of_own(own),
        None => of_aws(instance_type),
    }
}

/// Nobody pays for surplus here: an own type is held to its baseline unless its owner says otherwise.
fn of_own(own: &OwnType) -> Option<Burstable> {
    let per_hour = own.baseline_percent? / 100.0 * CREDITS_EACH_VCPU_HOUR * f64::from(own.vcpus);
    Some(Burstable { per_hour, at_launch: 0.0, kept_when_stopped: true, unlimited_by_default: false })
}

fn of_aws(instance_type: &str) -> Option<Burstable> {
    let (family, size) = instance_type.split_once('.')?;
    let is_t2 = family == "t2";
    if !is_t2 && !OTHER_FAMILIES.contains(&family) {
        return None;
    }
    let sizes = if is_t2 { &T2 } else { &OTHERS };
    let (_, vcpus, per_hour) = *sizes.iter().find(|(name, ..)| *name == size)?;
    Some(Burstable {
        per_hour,
        at_launch: if is_t2 { T2_LAUNCH_EACH_VCPU * f64::from(vcpus) } else { 0.0 },
        kept_when_stopped: !is_t2,
        unlimited_by_default: !is_t2,
    })
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::Catalogue;
    use super::super::shape_of;
    use super::*;

    #[test]
    fn the_types_that_aws_calls_burstable_have_credits_and_no_others() {
        for info in Catalogue::get().types() {
            let name = info.instance_type.as_deref().unwrap();
            let is_burstable = info.burstable_performance_supported == Some(true);
            assert_eq!(of_aws(name).is_some(), is_burstable, "{name}");
            let (family, size) = name.split_once('.').unwrap();
            if is_burstable {
                let sizes = if family == "t2" { &T2 } else { &OTHERS };
                let (_, vcpus, _) = sizes.iter().find(|(had, ..)| *had == size).unwrap();
                assert_eq!(shape_of(info).unwrap().vcpus, *vcpus, "{name}");
            }
        }
    }

    #[test]
    fn baselines_are_as_documented() {
        for (name, vcpus, percent, at_launch) in [
            ("t2.nano", 1.0, 5.0, 30.0),
            ("t2.large", 2.0, 30.0, 60.0),
            ("t2.xlarge", 4.0, 22.5, 120.0),
            ("t2.2xlarge", 8.0, 17.0, 240.0),
            ("t3.micro", 2.0, 10.0, 0.0),
            ("t3a.medium", 2.0, 20.0, 0.0),
            ("t4g.2xlarge", 8.0, 40.0, 0.0),
        ] {
            let burstable = of_aws(name).unwrap();
            let baseline = burstable.per_hour / CREDITS_EACH_VCPU_HOUR / vcpus * 100.0;
            assert!((baseline - percent).abs() < 1e-9, "{name}: {baseline}");
            let is_t2 = name.starts_with("t2.");
            assert_eq!((burstable.at_launch, burstable.kept_when_stopped), (at_launch, !is_t2));
            assert_eq!(burstable.unlimited_by_default, !is_t2);
        }
    }
}
