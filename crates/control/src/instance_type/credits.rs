//! What burstable types earn (EC2 User Guide, "Key concepts for burstable performance instances").

use agent_api::CpuCredits;

/// Families, what their standard instances are given at each start for each processor, and whether credits outlive a
/// stop.
const FAMILIES: [(&str, f64, bool); 4] =
    [("t2", 30.0, false), ("t3", 0.0, true), ("t3a", 0.0, true), ("t4g", 0.0, true)];

/// Credits an hour, by size.
const T2: [(&str, f64); 7] = [
    ("nano", 3.0),
    ("micro", 6.0),
    ("small", 12.0),
    ("medium", 24.0),
    ("large", 36.0),
    ("xlarge", 54.0),
    ("2xlarge", 81.6),
];
const OTHERS: [(&str, f64); 7] = [
    ("nano", 6.0),
    ("micro", 12.0),
    ("small", 24.0),
    ("medium", 24.0),
    ("large", 36.0),
    ("xlarge", 96.0),
    ("2xlarge", 192.0),
];

/// None where the type is not burstable.
pub fn credits(instance_type: &str, vcpus: u32, unlimited: bool) -> Option<CpuCredits> {
    let (family, size) = instance_type.split_once('.')?;
    let (_, launch_each_vcpu, kept_when_stopped) = *FAMILIES.iter().find(|(name, ..)| *name == family)?;
    let sizes = if family == "t2" { &T2 } else { &OTHERS };
    let (_, per_hour) = *sizes.iter().find(|(name, _)| *name == size)?;
    let at_launch = launch_each_vcpu * f64::from(vcpus);
    Some(CpuCredits { per_hour, at_launch, unlimited, kept_when_stopped })
}

#[cfg(test)]
mod tests {
    use super::super::Catalogue;
    use super::*;

    #[test]
    fn the_types_that_aws_calls_burstable_have_credits_and_no_others() {
        let catalogue = Catalogue::default();
        for info in catalogue.types() {
            let name = info.instance_type.as_deref().unwrap();
            let is_burstable = info.burstable_performance_supported == Some(true);
            assert_eq!(credits(name, 1, false).is_some(), is_burstable, "{name}");
        }
    }

    #[test]
    fn baselines_are_as_documented() {
        let catalogue = Catalogue::default();
        for (name, percent, at_launch) in [
            ("t2.nano", 5.0, 30.0),
            ("t2.large", 30.0, 60.0),
            ("t2.xlarge", 22.5, 120.0),
            ("t2.2xlarge", 17.0, 240.0),
            ("t3.micro", 10.0, 0.0),
            ("t3a.medium", 20.0, 0.0),
            ("t4g.2xlarge", 40.0, 0.0),
        ] {
            let vcpus = catalogue.shape(name).unwrap().vcpus;
            let credits = credits(name, vcpus, false).unwrap();
            let baseline = credits.per_hour / 60.0 / f64::from(vcpus) * 100.0;
            assert!((baseline - percent).abs() < 1e-9, "{name}: {baseline}");
            assert_eq!((credits.at_launch, credits.kept_when_stopped), (at_launch, !name.starts_with("t2.")));
        }
    }
}
