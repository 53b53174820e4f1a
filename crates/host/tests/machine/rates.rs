//! How fast a guest may write to its disk, from its start on and changed under it.

use crate::guest::Then;
use crate::host::Host;
use host::machine::{DiskLimits, Hypervisor, MachineSpec, Rate};
use std::time::{Duration, Instant};

/// What the guest writes, and by how much at a time.
const WRITTEN: f64 = 7.0 * MIB as f64;
const WRITE: f64 = 32.0 * 1024.0;
const MIB: u64 = 1024 * 1024;
/// QEMU lets so much of a second through at once.
const AT_ONCE: f64 = 0.1;

fn limits(operations: u64, bytes: u64) -> Option<DiskLimits> {
    let steady = |per_second| Rate { per_second, burst: None };
    Some(DiskLimits { operations: steady(operations), bytes: steady(bytes), operation_bytes: 256 * 1024 })
}

fn writer(host: &Host, limits: Option<DiskLimits>) -> MachineSpec {
    let mut spec = host.spec("writing:", Then::FillDisk);
    let disk = std::fs::OpenOptions::new().write(true).open(&spec.disks[0].layers[0].path).unwrap();
    disk.set_len(64 * MIB).unwrap();
    spec.disks[0].limits = limits;
    spec
}

/// Seconds from the guest's first word to its last.
async fn written(host: &Host, spec: &MachineSpec) -> f64 {
    host.said(spec, "writing:", 1).await;
    let start = Instant::now();
    host.said(spec, "writing:D", 1).await;
    start.elapsed().as_secs_f64()
}

/// Never above the figure. A guest that has to wait for a busy host's processors stays below it.
fn is_near(what: &str, rate: f64, figure: f64) {
    eprintln!("{what}: {rate:.1} of {figure}");
    assert!(rate < 1.1 * figure && rate > 0.25 * figure, "{what}: {rate} of {figure}");
}

/// Figures well below what a guest can do on a busy host without KVM.
#[tokio::test]
async fn a_disk_is_written_as_fast_as_it_may_be() {
    let Some(host) = Host::new() else { return };
    let (bytes, operations) = (MIB, 32);
    let by_bytes = writer(&host, limits(100_000, bytes));
    let by_operations = writer(&host, limits(operations, 1000 * MIB));
    for spec in [&by_bytes, &by_operations] {
        host.driver().start(spec.clone(), vec![]).await.unwrap();
    }
    let times = tokio::join!(written(&host, &by_bytes), written(&host, &by_operations));
    is_near("bytes a second", (WRITTEN - AT_ONCE * bytes as f64) / times.0, bytes as f64);
    let operations = operations as f64;
    is_near("operations a second", (WRITTEN / WRITE - AT_ONCE * operations) / times.1, operations);
    for spec in [&by_bytes, &by_operations] {
        host.driver().end(&spec.instance_id).await.unwrap();
    }
}

#[tokio::test]
async fn a_rate_changes_while_the_guest_writes() {
    let Some(mut host) = Host::new() else { return };
    // Far too slow to come to an end.
    let spec = writer(&host, limits(100_000, 32 * 1024));
    let volume_id = &spec.disks[0].volume_id;
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    host.said(&spec, "writing:", 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    host.restart().await;
    assert!(!host.console(&spec).await.contains("writing:D"));
    let start = Instant::now();
    let bytes = MIB;
    host.driver().limit_disk(&spec.instance_id, volume_id, limits(100_000, bytes)).await.unwrap();
    host.said(&spec, "writing:D", 1).await;
    is_near("bytes a second", WRITTEN / start.elapsed().as_secs_f64(), bytes as f64);
    host.driver().limit_disk(&spec.instance_id, volume_id, None).await.unwrap();
    host.driver().end(&spec.instance_id).await.unwrap();
}
