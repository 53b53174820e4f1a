//! Disks that several machines have at once.

use crate::disks::{Monitor, empty, encrypted, over};
use crate::guest::Then;
use crate::host::Host;
use host::machine::{
    DiskLimits, DiskSpec, EndCause, Ended, FoundState, Hypervisor, MachineError, MachineSpec, Rate,
};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The disk as machines have it from the one that shares it.
fn shared(host: &Host, disk: &DiskSpec) -> DiskSpec {
    DiskSpec::new(disk.volume_id.clone(), vec![host.driver().shared_layer(&disk.volume_id)])
}

async fn share(host: &Host, disk: &DiskSpec) {
    host.driver().start(MachineSpec::sharing(disk.clone()), vec![]).await.unwrap();
}

/// The process that shares it.
fn owner(host: &Host, disk: &DiskSpec) -> i32 {
    let directory = host.machines().canonicalize().unwrap().join(disk.volume_id.as_str());
    let of = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == directory);
    host.processes().into_iter().find(of).unwrap()
}

/// Two machines that have the disk: one from its start, one attached.
async fn two_with(host: &Host, disk: &DiskSpec) -> [MachineSpec; 2] {
    share(host, disk).await;
    let mut one = host.spec("one", Then::Halt);
    one.disks.push(shared(host, disk));
    host.driver().start(one.clone(), vec![]).await.unwrap();
    let other = host.started("other", Then::Halt).await;
    host.driver().attach_disk(&other.instance_id, shared(host, disk)).await.unwrap();
    [one, other]
}

async fn end_all(host: &Host, disk: &DiskSpec, machines: [MachineSpec; 2]) {
    for spec in machines {
        host.driver().end(&spec.instance_id).await.unwrap();
    }
    host.driver().end(&disk.volume_id).await.unwrap();
    host.driver().forget(&disk.volume_id).await.unwrap();
    assert_eq!(host.processes(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_machine_writes_another_reads() {
    let Some(mut host) = Host::new() else { return };
    let mut disk = encrypted(&host);
    let [one, other] = two_with(&host, &disk).await;
    let mut frozen = Vec::new();
    for round in 1..=3u8 {
        let (mut here, mut there) = (Monitor::of(&host, &one), Monitor::of(&host, &other));
        here.io(&disk, &format!("write -P {round} {round}m 256k"));
        there.io(&disk, &format!("read -P {round} {round}m 256k"));
        there.io(&disk, &format!("write -P 7{round} {round}m 4k"));
        here.io(&disk, &format!("read -P 7{round} {round}m 4k"));
        here.io(&disk, "flush");
        drop((here, there));
        frozen.push(disk.clone());
        disk = over(&host, &disk);
        if round == 2 {
            // The driver may be another by now, and finds it again.
            let found = host.restart().await;
            let shares = found.iter().find(|found| found.instance_id == disk.volume_id).unwrap();
            assert_eq!((found.len(), &shares.state), (3, &FoundState::Running));
            share(&host, &disk).await;
        }
        for _ in 0..2 {
            host.driver().freeze_disks(&disk.volume_id, vec![disk.clone()]).await.unwrap();
        }
    }
    let mut there = Monitor::of(&host, &other);
    there.io(&disk, "write -P 9 3m 256k");
    there.io(&disk, "flush");
    drop(there);
    for (disk, round) in frozen.iter().zip(1u8..) {
        let own = [
            format!("read -P 7{round} {round}m 4k"),
            format!("read -P {round} {}k 64k", u32::from(round) * 1024 + 64),
        ];
        let later = format!("read -P 0 {}m 256k", round + 1);
        assert!(crate::disks::holds(disk, &[&own[0], &own[1], &later]), "round {round}");
    }
    assert!(crate::disks::holds(&disk, &["read -P 9 3m 256k", "read -P 2 2112k 64k"]));
    assert!(host.driver().detach_disk(&one.instance_id, shared(&host, &disk), true).await.unwrap());
    let mut there = Monitor::of(&host, &other);
    there.io(&disk, "read -P 1 1088k 64k");
    drop(there);
    host.driver().attach_disk(&one.instance_id, shared(&host, &disk)).await.unwrap_err();
    end_all(&host, &disk, [one, other]).await;
}

/// Guests wait, and what was written is there.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_shares_a_disk_may_be_killed() {
    let Some(mut host) = Host::new() else { return };
    // One where not all is in the file as soon as it is written.
    let disk = over(&host, &empty(&host));
    let [one, other] = two_with(&host, &disk).await;
    for round in 1..=3u8 {
        let mut here = Monitor::of(&host, &one);
        here.io(&disk, &format!("write -P {round} {round}m 256k"));
        drop(here);
        host.kill(owner(&host, &disk));
        let Ended { instance_id, cause, .. } = host.next_end().await;
        assert_eq!(instance_id, disk.volume_id);
        assert!(matches!(cause, EndCause::Lost(_)));
        // Asked while nobody is there who could answer.
        let (there, spec) = (Monitor::of(&host, &other), other.clone());
        let asked = disk.clone();
        let reads = tokio::task::spawn_blocking(move || {
            let mut there = there;
            there.io(&asked, &format!("read -P {round} {round}m 256k"));
            drop(spec);
        });
        share(&host, &disk).await;
        reads.await.unwrap();
    }
    // Nor need the driver be there when it happens.
    let pid = owner(&host, &disk);
    host.driver().attached(&disk.volume_id).await.unwrap();
    let found = {
        let machines = host.machines();
        let kill = || {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            assert!(machines.exists());
        };
        host.restart_after(kill).await
    };
    let shares = found.iter().find(|found| found.instance_id == disk.volume_id).unwrap();
    assert!(matches!(shares.state, FoundState::Ended(EndCause::Lost(_))), "{shares:?}");
    let gone = host.driver().attached(&disk.volume_id).await;
    assert!(matches!(gone, Err(MachineError::NotFound(_))), "{gone:?}");
    share(&host, &disk).await;
    Monitor::of(&host, &one).io(&disk, "read -P 3 3m 256k");
    end_all(&host, &disk, [one, other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_disk_grows_for_all() {
    let Some(host) = Host::new() else { return };
    let disk = empty(&host);
    let machines = two_with(&host, &disk).await;
    let driver = host.driver();
    for mib in [128u64, 128, 256] {
        for machine in [&disk.volume_id, &machines[0].instance_id, &machines[1].instance_id] {
            driver.resize_disk(machine, &disk.volume_id, mib << 20).await.unwrap();
        }
        Monitor::of(&host, &machines[0]).io(&disk, &format!("write -P 5 {}m 1m", mib - 1));
        Monitor::of(&host, &machines[1]).io(&disk, &format!("read -P 5 {}m 1m", mib - 1));
    }
    let above = over(&host, &disk);
    driver.resize_disk(&disk.volume_id, &disk.volume_id, 256 << 20).await.unwrap();
    driver.freeze_disks(&disk.volume_id, vec![above]).await.unwrap();
    assert!(driver.detach_disk(&machines[0].instance_id, shared(&host, &disk), true).await.unwrap());
    end_all(&host, &disk, machines).await;
}

/// They have it together, whoever asks; and all can be fast again.
#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_shared_disk_are_those_of_all_together() {
    let Some(host) = Host::new() else { return };
    let mut disk = empty(&host);
    let slow = Rate { per_second: 4 << 20, burst: None };
    let limits = DiskLimits {
        operations: Rate { per_second: 1000, burst: None },
        bytes: slow,
        operation_bytes: 1 << 18,
    };
    disk.limits = Some(limits);
    let machines = two_with(&host, &disk).await;
    let both_write = async |mib: u32| {
        let began = Instant::now();
        let writes = machines.clone().map(|spec| {
            let (mut monitor, disk) = (Monitor::of(&host, &spec), disk.clone());
            tokio::task::spawn_blocking(move || {
                (0..mib).for_each(|at| monitor.io(&disk, &format!("write {at}m 1m")))
            })
        });
        for write in writes {
            write.await.unwrap();
        }
        began.elapsed()
    };
    let took = both_write(5).await;
    assert!(took > Duration::from_secs(2), "10 MiB at 4 MiB a second in {took:?}");
    host.driver().limit_disk(&disk.volume_id, &disk.volume_id, None).await.unwrap();
    let took = both_write(10).await;
    assert!(took < Duration::from_secs(4), "20 MiB without a limit in {took:?}");
    end_all(&host, &disk, machines).await;
}

/// Only root, and who was handed the directory, can reach it.
#[tokio::test]
async fn nobody_else_reaches_a_shared_disk() {
    use std::os::unix::fs::MetadataExt;
    let Some(host) = Host::new() else { return };
    let disk = empty(&host);
    share(&host, &disk).await;
    let layer = host.driver().shared_layer(&disk.volume_id);
    UnixStream::connect(&layer.path).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&host.machines()), 0o700, "no other user enters it");
    host.driver().end(&disk.volume_id).await.unwrap();
}
