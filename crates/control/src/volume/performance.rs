//! How fast a volume is: a pure function of its type, size and what was provisioned.

use super::Volume;
use crate::instance_type::EbsPerformance;
use agent_api::{Burst, DiskLimits, Rate};

const MIB: u64 = 1024 * 1024;
const GIB_PER_TIB: u64 = 1024;

/// One operation of an SSD volume, and of an HDD volume: a longer one counts as several
/// (EBS User Guide, "Amazon EBS I/O characteristics and monitoring").
const SSD_OPERATION: u64 = 256 * 1024;
const HDD_OPERATION: u64 = MIB;

/// What a gp2 volume bursts to, and the credits that it can save and begins with (EBS User Guide, "Amazon EBS General
/// Purpose SSD volumes").
const GP2_BURST: u64 = 3000;
const GP2_CREDITS: u64 = 5_400_000;
/// Above this a gp2 volume reaches its type's full throughput.
const GP2_SMALL_GIB: u64 = 170;

/// EBS User Guide, "Amazon EBS volume types" and the pages of each. EC2 counts sequential small operations together,
/// which is not seen here: a guest's kernel mostly joins them before.
pub fn limits(volume: &Volume) -> DiskLimits {
    let gib = u64::from(volume.size_gib);
    let iops = volume.iops.and_then(|iops| u64::try_from(iops).ok());
    let throughput = volume.throughput.and_then(|throughput| u64::try_from(throughput).ok());
    match volume.volume_type.as_str() {
        "gp2" => gp2(gib),
        "io1" => provisioned(iops.unwrap_or(100), io1_bytes),
        "io2" => provisioned(iops.unwrap_or(100), |iops| (iops * SSD_OPERATION).min(4000 * MIB)),
        "st1" => hdd(gib, PerTib { baseline: 40, burst: 250, max: 500 }),
        "sc1" => hdd(gib, PerTib { baseline: 12, burst: 80, max: 250 }),
        "standard" => DiskLimits {
            // "Approximately 100 IOPS on average, with burst capability of up to hundreds", 40 to 90 MiB/s.
            operations: Rate { per_second: 100, burst: Some(Burst { per_second: 200, seconds: 60 }) },
            bytes: steady(90 * MIB),
            operation_bytes: SSD_OPERATION,
        },
        // gp3, which new volumes are.
        _ => DiskLimits {
            operations: steady(iops.unwrap_or(3000)),
            bytes: steady(throughput.unwrap_or(125) * MIB),
            operation_bytes: SSD_OPERATION,
        },
    }
}

/// As slow as the slower of the volume and its way to the instance. What several volumes of an instance take together
/// is not counted.
pub fn limits_on(volume: &Volume, way: Option<EbsPerformance>) -> DiskLimits {
    let limits = limits(volume);
    let Some(way) = way else { return limits };
    DiskLimits {
        operations: slower(limits.operations, way.operations),
        bytes: slower(limits.bytes, way.bytes),
        ..limits
    }
}

/// A burst lasts as long as the shorter of the two: one that is without is at its burst always.
fn slower(one: Rate, other: Rate) -> Rate {
    let per_second = one.per_second.min(other.per_second);
    let most = |rate: Rate| rate.burst.map_or(rate.per_second, |burst| burst.per_second);
    let lasts = |rate: Rate| rate.burst.map(|burst| burst.seconds);
    let burst_per_second = most(one).min(most(other));
    let seconds = lasts(one).into_iter().chain(lasts(other)).min();
    let burst = seconds.map(|seconds| Burst { per_second: burst_per_second, seconds });
    Rate { per_second, burst: burst.filter(|burst| burst.per_second > per_second) }
}

fn steady(per_second: u64) -> Rate {
    Rate { per_second, burst: None }
}

fn gp2(gib: u64) -> DiskLimits {
    let baseline = (3 * gib).clamp(100, 16_000);
    let burst = Burst { per_second: GP2_BURST, seconds: GP2_CREDITS / GP2_BURST };
    DiskLimits {
        operations: Rate { per_second: baseline, burst: (baseline < GP2_BURST).then_some(burst) },
        bytes: steady(if gib <= GP2_SMALL_GIB { 128 * MIB } else { 250 * MIB }),
        operation_bytes: SSD_OPERATION,
    }
}

fn provisioned(iops: u64, bytes: impl Fn(u64) -> u64) -> DiskLimits {
    DiskLimits { operations: steady(iops), bytes: steady(bytes(iops)), operation_bytes: SSD_OPERATION }
}

/// Up to 32,000 IOPS by operations of 256 KiB, above by operations of 16 KiB.
fn io1_bytes(iops: u64) -> u64 {
    if iops <= 32_000 { (iops * SSD_OPERATION).min(500 * MIB) } else { (iops * 16 * 1024).min(1000 * MIB) }
}

/// MiB a second for each TiB, and the most that a volume has.
struct PerTib {
    baseline: u64,
    burst: u64,
    max: u64,
}

/// As many operations as MiB a second at most. Credits for one pass over the whole volume can be saved.
fn hdd(gib: u64, per_tib: PerTib) -> DiskLimits {
    let rate = |mib: u64| (gib * mib * MIB / GIB_PER_TIB).clamp(MIB, per_tib.max * MIB);
    let (baseline, per_second) = (rate(per_tib.baseline), rate(per_tib.burst));
    let seconds = (gib * 1024 * MIB).div_ceil(per_second);
    DiskLimits {
        operations: steady(per_tib.max),
        bytes: Rate {
            per_second: baseline,
            burst: (baseline < per_second).then_some(Burst { per_second, seconds }),
        },
        operation_bytes: HDD_OPERATION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Id, Kind};

    fn of(volume_type: &str, size_gib: u32, iops: Option<i32>, throughput: Option<i32>) -> DiskLimits {
        let id = Id::parse(Kind::Volume, "vol-0123456789abcdef0").unwrap();
        let (owner, now) = ("123456789012".parse().unwrap(), "2026-03-01T12:00:00Z".parse().unwrap());
        let made = Volume::new(id, owner, size_gib, "us-east-1a".into(), now);
        limits(&Volume { volume_type: volume_type.into(), iops, throughput, ..made })
    }

    /// IOPS and MiB a second, in the long run.
    fn rates(limits: DiskLimits) -> (u64, f64) {
        (limits.operations.per_second, limits.bytes.per_second as f64 / MIB as f64)
    }

    #[test]
    fn ssd_volumes_are_as_fast_as_documented() {
        assert_eq!(rates(of("gp3", 8, None, None)), (3000, 125.0));
        assert_eq!(rates(of("gp3", 100, Some(16_000), Some(1000))), (16_000, 1000.0));
        for (gib, iops, mib) in [
            (8, 100, 128.0),
            (100, 300, 128.0),
            (334, 1002, 250.0),
            (1000, 3000, 250.0),
            (6000, 16_000, 250.0),
        ] {
            let limits = of("gp2", gib, Some(77), None);
            assert_eq!(rates(limits), (iops, mib), "{gib}");
            assert_eq!(limits.operations.burst.is_some(), iops < 3000, "{gib}");
        }
        let burst = of("gp2", 8, None, None).operations.burst.unwrap();
        assert_eq!((burst.per_second, burst.per_second * burst.seconds), (3000, 5_400_000));
        for (iops, mib) in [(100, 25.0), (2000, 500.0), (32_000, 500.0), (48_000, 750.0), (64_000, 1000.0)] {
            assert_eq!(rates(of("io1", 2000, Some(iops), None)), (iops as u64, mib));
        }
        assert_eq!(rates(of("io2", 500, Some(256_000), None)), (256_000, 4000.0));
        assert_eq!(of("gp3", 8, None, None).operation_bytes, 256 * 1024);
    }

    #[test]
    fn the_slower_of_two_rates_is_what_is_left_of_both() {
        let burst =
            |per_second, most, seconds| Rate { per_second, burst: Some(Burst { per_second: most, seconds }) };
        for (one, other, expected) in [
            (steady(100), steady(50), steady(50)),
            (steady(100), burst(50, 80, 9), burst(50, 80, 9)),
            (steady(100), burst(50, 200, 9), burst(50, 100, 9)),
            (steady(40), burst(50, 200, 9), steady(40)),
            (burst(10, 300, 5), burst(50, 200, 9), burst(10, 200, 5)),
        ] {
            assert_eq!((slower(one, other), slower(other, one)), (expected, expected));
        }
    }

    #[test]
    fn hdd_volumes_are_as_fast_as_documented() {
        for (kind, gib, base, burst) in [
            ("st1", 128, 5.0, Some(31.25)),
            ("st1", 1024, 40.0, Some(250.0)),
            ("st1", 3072, 120.0, Some(500.0)),
            ("st1", 16_384, 500.0, None),
            ("sc1", 128, 1.5, Some(10.0)),
            ("sc1", 3200, 37.5, Some(250.0)),
            ("sc1", 16_384, 192.0, Some(250.0)),
        ] {
            let limits = of(kind, gib, None, None);
            assert_eq!(rates(limits).1, base, "{kind} {gib}");
            let at_most = limits.bytes.burst.map(|burst| burst.per_second as f64 / MIB as f64);
            assert_eq!(at_most, burst, "{kind} {gib}");
            assert_eq!(limits.operation_bytes, MIB);
        }
        // A pass over a TiB at the full rate.
        assert_eq!(of("st1", 1024, None, None).bytes.burst.unwrap().seconds, 4195);
        assert_eq!(rates(of("standard", 8, None, None)), (100, 90.0));
    }
}
