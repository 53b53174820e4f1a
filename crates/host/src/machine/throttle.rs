//! How fast a machine's disks are: QEMU's throttling of what a device asks for.
//!
//! It is told to the device, not made a node of the block graph: so whoever changes the graph under a running guest
//! (a snapshot, a larger disk) need not know of it. Each of QEMU's buckets leaks at the long rate and holds what a burst
//! may take; one without a burst holds a tenth of a second.

use super::qmp::{Qmp, QmpError};
use super::{Burst, DiskLimits, DiskSpec, Rate, hotplug};
use model::Id;
use serde_json::{Value, json};

/// Limits the disks of a machine that shall be limited. One that can't be is no reason not to run.
pub(super) async fn limit_all(qmp: &Qmp, disks: &[DiskSpec]) {
    for disk in disks.iter().filter(|disk| disk.limits.is_some()) {
        if let Err(error) = limit(qmp, &disk.volume_id, disk.limits).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(volume_id = %disk.volume_id, error, "disk not limited");
        }
    }
}

pub(super) async fn limit(qmp: &Qmp, volume_id: &Id, limits: Option<DiskLimits>) -> Result<(), QmpError> {
    let backend = hotplug::backend(qmp, volume_id).await?;
    qmp.execute("block_set_io_throttle", arguments(&backend, limits)).await.map(drop)
}

/// Zero is no limit.
fn arguments(backend: &str, limits: Option<DiskLimits>) -> Value {
    let (bytes, operations) = limits.map_or((0, 0), |l| (l.bytes.per_second, l.operations.per_second));
    let mut arguments = json!({
        "id": backend,
        "bps": bytes, "bps_rd": 0, "bps_wr": 0, "iops": operations, "iops_rd": 0, "iops_wr": 0,
    });
    if let Some(limits) = limits {
        arguments["iops_size"] = limits.operation_bytes.into();
        burst(&mut arguments, "bps", limits.bytes);
        burst(&mut arguments, "iops", limits.operations);
    }
    arguments
}

/// The same for what several machines have at once, where all is said: what is not stays as it was.
pub(super) fn group(limits: Option<DiskLimits>) -> Value {
    let mut group = json!({ "iops-size": limits.map_or(0, |limits| limits.operation_bytes) });
    let rates =
        [("bps", limits.map(|limits| limits.bytes)), ("iops", limits.map(|limits| limits.operations))];
    for (kind, rate) in rates {
        let burst = rate.and_then(faster);
        group[format!("{kind}-total")] = rate.map_or(0, |rate| rate.per_second).into();
        group[format!("{kind}-total-max")] = burst.map_or(0, |burst| burst.per_second).into();
        group[format!("{kind}-total-max-length")] = burst.map_or(1, |burst| burst.seconds.max(1)).into();
    }
    group
}

/// QEMU refuses a burst that is slower than the long rate.
fn faster(rate: Rate) -> Option<Burst> {
    rate.burst.filter(|burst| burst.per_second > rate.per_second)
}

fn burst(arguments: &mut Value, kind: &str, rate: Rate) {
    if let Some(burst) = faster(rate) {
        arguments[format!("{kind}_max")] = burst.per_second.into();
        arguments[format!("{kind}_max_length")] = burst.seconds.max(1).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_as_qemu_names_them() {
        let free = arguments("/disk", None);
        assert_eq!((&free["bps"], &free["iops"], free.get("iops_size")), (&json!(0), &json!(0), None));
        assert_eq!(free["id"], "/disk");
        let limits = DiskLimits {
            operations: Rate { per_second: 100, burst: Some(Burst { per_second: 3000, seconds: 1800 }) },
            bytes: Rate { per_second: 1 << 20, burst: Some(Burst { per_second: 1 << 20, seconds: 9 }) },
            operation_bytes: 1 << 18,
        };
        let told = arguments("/disk", Some(limits));
        let numbers =
            ["iops", "iops_max", "iops_max_length", "bps", "iops_size"].map(|name| told[name].as_u64());
        assert_eq!(numbers, [Some(100), Some(3000), Some(1800), Some(1 << 20), Some(1 << 18)]);
        assert_eq!(told.get("bps_max"), None);
        let shared = group(Some(limits));
        let numbers = ["iops-total", "iops-total-max", "bps-total", "bps-total-max", "bps-total-max-length"];
        assert_eq!(numbers.map(|name| shared[name].as_u64().unwrap()), [100, 3000, 1 << 20, 0, 1]);
        assert_eq!(
            (&group(None)["iops-total"], &group(None)["iops-total-max-length"]),
            (&json!(0), &json!(1))
        );
    }
}
