//! Shares of the host: a machine's control group, from before its process to after its end.

use crate::guest::Then;
use crate::host::{Host, groups_of};
use host::machine::{Hypervisor, MachineSpec};
use std::path::Path;
use std::time::{Duration, Instant};

const NONE: [&str; 0] = [];

fn text(group: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(group.join(name)).ok().map(|text| text.trim().to_owned())
}

/// The first of these files that one of the machine's groups has.
fn number(spec: &MachineSpec, names: [&str; 2]) -> u64 {
    let groups = groups_of(&spec.instance_id);
    let mut found = groups.iter().flat_map(|group| names.iter().filter_map(|name| text(group, name)));
    found.next().unwrap().parse().unwrap()
}

/// Whether the machine has a group that is held to shares of this; says so where not.
fn is_held(spec: &MachineSpec, names: [&str; 2]) -> bool {
    let has = |group: &std::path::PathBuf| names.iter().any(|name| group.join(name).exists());
    let is_held = groups_of(&spec.instance_id).iter().any(has);
    if !is_held {
        eprintln!("skipped: no control group has {}", names.join(" or "));
    }
    is_held
}

#[tokio::test]
async fn a_machine_is_in_its_group_from_start_to_end() {
    let Some(mut host) = Host::new() else { return };
    let small = host.started("small", Then::Halt).await;
    let mut large = host.spec("large", Then::Halt);
    large.vcpus = 4;
    host.driver().start(large.clone(), vec![]).await.unwrap();
    if !is_held(&small, ["cpu.weight", "cpu.shares"])
        || !is_held(&small, ["memory.max", "memory.limit_in_bytes"])
    {
        return;
    }
    let members = |spec: &MachineSpec| -> Vec<String> {
        groups_of(&spec.instance_id).iter().map(|group| text(group, "cgroup.procs").unwrap()).collect()
    };
    let mut processes: Vec<String> = host.processes().iter().map(i32::to_string).collect();
    processes.sort();
    let mut in_groups = [members(&small), members(&large)].concat();
    in_groups.sort();
    in_groups.dedup();
    assert_eq!(in_groups, processes);
    let weight = |spec| number(spec, ["cpu.weight", "cpu.shares"]);
    assert_eq!(weight(&large), 4 * weight(&small));
    let limit = number(&small, ["memory.max", "memory.limit_in_bytes"]);
    assert!(limit > 64 << 20 && limit < 1 << 30, "{limit}");

    host.restart().await;
    assert_eq!(members(&small).len(), groups_of(&small.instance_id).len());
    host.driver().end(&small.instance_id).await.unwrap();
    assert_eq!(groups_of(&small.instance_id), NONE.map(Path::new));
    let parents: Vec<_> =
        groups_of(&large.instance_id).iter().map(|group| group.parent().unwrap().to_owned()).collect();
    host.kill(host.processes()[0]);
    host.next_end().await;
    assert_eq!(groups_of(&large.instance_id), NONE.map(Path::new));
    assert!(parents.iter().all(|parent| !parent.exists()), "{parents:?}");
}

#[tokio::test]
async fn what_a_crash_left_is_swept() {
    let Some(mut host) = Host::new() else { return };
    let killed = host.started("killed", Then::Halt).await;
    let unknown = host.started("unknown", Then::Halt).await;
    let stays = host.started("stays", Then::Halt).await;
    if !is_held(&killed, ["cpu.weight", "cpu.shares"]) {
        return;
    }
    let pid = |spec: &MachineSpec| text(&groups_of(&spec.instance_id)[0], "cgroup.procs").unwrap();
    let pid: i32 = pid(&killed).parse().unwrap();
    let record = host.machines().join(&*unknown.instance_id).join("machine.json");
    let crash = || {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        std::fs::remove_file(record).unwrap();
    };
    host.restart_after(crash).await;
    for gone in [&killed, &unknown] {
        assert_eq!(groups_of(&gone.instance_id), NONE.map(Path::new));
    }
    assert!(!groups_of(&stays.instance_id).is_empty());
    host.driver().end(&stays.instance_id).await.unwrap();
}

#[tokio::test]
async fn a_busy_machine_is_held_to_a_part_of_a_processor() {
    let Some(mut host) = Host::new() else { return };
    let spec = host.started("busy", Then::Spin).await;
    if !is_held(&spec, ["cpu.max", "cpu.cfs_quota_us"]) {
        return;
    }
    host.said(&spec, "busy", 1).await;
    let load = async |host: &Host| {
        let (time, start) = (host.driver().cpu_time(&spec.instance_id).unwrap(), Instant::now());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let spent = host.driver().cpu_time(&spec.instance_id).unwrap() - time;
        spent.as_secs_f64() / start.elapsed().as_secs_f64()
    };
    assert!(host.driver().limit_cpu(&spec.instance_id, Some(200)).await.unwrap());
    let held = load(&host).await;
    // By another after a restart, too.
    host.restart().await;
    assert!(host.driver().limit_cpu(&spec.instance_id, Some(100)).await.unwrap());
    let held_more = load(&host).await;
    assert!(host.driver().limit_cpu(&spec.instance_id, None).await.unwrap());
    let free = load(&host).await;
    eprintln!("held to 0.2: {held:.3}, to 0.1: {held_more:.3}, free: {free:.3}");
    assert!(held < 0.24 && held_more < 0.13, "{held} {held_more}");
    assert!(free > held && held > held_more, "{held} {held_more} {free}");
    host.driver().end(&spec.instance_id).await.unwrap();
    assert_eq!(host.driver().cpu_time(&spec.instance_id), None);
}
