//! Disks of running machines: attached and detached, larger, and frozen for snapshots under writes.

use crate::guest::Then;
use crate::host::{Host, disk};
use host::machine::{DiskFormat, DiskKey, DiskLayer, DiskSpec, Hypervisor, MachineError, MachineSpec};
use model::{Id, Kind, SystemRandom};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A second client beside the driver, at the spare monitor.
pub struct Monitor {
    stream: BufReader<UnixStream>,
    /// What its disk commands say goes here, once it is much.
    log: PathBuf,
}

impl Monitor {
    pub fn of(host: &Host, spec: &MachineSpec) -> Monitor {
        let directory = host.machines().join(&*spec.instance_id);
        let stream = UnixStream::connect(directory.join("qmp-spare.sock")).unwrap();
        let mut monitor = Monitor { stream: BufReader::new(stream), log: directory.join("qemu.log") };
        monitor.stream.read_line(&mut String::new()).unwrap();
        monitor.ask("qmp_capabilities", json!({}));
        monitor
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments, "id": 7 }));
        self.stream.get_mut().write_all(line.as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "the monitor has ended");
            let answer: Value = serde_json::from_str(&line).unwrap();
            if answer["id"] == 7 {
                return answer;
            }
        }
    }

    /// As the guest would, through the device of the disk.
    pub fn io(&mut self, disk: &DiskSpec, command: &str) {
        // The last makes it write out what it said before.
        for command in [command, "help", "help", "help", "help"] {
            let device = format!("/machine/peripheral/{}/virtio-backend", disk.volume_id);
            let line = json!({ "command-line": format!("qemu-io -d {device} \"{command}\"") });
            assert_eq!(self.ask("human-monitor-command", line)["return"], "", "{command}");
        }
        let said = std::fs::read_to_string(&self.log).unwrap();
        let failed = said.lines().find(|line| line.contains("erification failed") || line.contains("rror"));
        assert_eq!(failed, None, "{command}");
    }
}

/// An empty layer of 64 MiB.
pub fn layer(dir: &Path, name: &str, key: Option<&DiskKey>) -> DiskLayer {
    let path = dir.join(name);
    let is_raw = name.ends_with("raw");
    let mut options = "cluster_size=128k,extended_l2=on".to_owned();
    let mut make = Command::new("qemu-img");
    make.args(["create", "-q"]).args(secret(key));
    if key.is_some() {
        options.push_str(",encrypt.format=luks,encrypt.key-secret=disk,encrypt.iter-time=10");
    }
    match is_raw {
        true => make.args(["-f", "raw"]),
        false => make.args(["-f", "qcow2", "-o", &options]),
    };
    // Which takes long to be made where it is encrypted, and is the same each time.
    let like = dir.join("encrypted");
    if key.is_none() || !like.exists() {
        let made = make.arg(if key.is_some() { &like } else { &path }).arg("64M").status().unwrap();
        assert!(made.success());
    }
    if key.is_some() {
        std::fs::copy(&like, &path).unwrap();
    }
    DiskLayer { path, format: if is_raw { DiskFormat::Raw } else { DiskFormat::Qcow2 } }
}

/// What QEMU's programs are told of a key.
fn secret(key: Option<&DiskKey>) -> Vec<String> {
    match key {
        Some(DiskKey::Known(key)) => {
            vec!["--object".into(), format!("secret,id=disk,data={}", key.passphrase())]
        }
        _ => Vec::new(),
    }
}

/// An empty disk of 64 MiB, whose n-th layer has the number n.
pub fn empty(host: &Host) -> DiskSpec {
    let volume_id = Id::new(Kind::Volume, &SystemRandom);
    let layer = layer(host.dir.path(), &format!("{volume_id}.0.raw"), None);
    DiskSpec { layers: vec![layer], ..disk(volume_id, "".into()) }
}

pub fn encrypted(host: &Host) -> DiskSpec {
    let volume_id = Id::new(Kind::Volume, &SystemRandom);
    let key = DiskKey::Known([7; 32].into());
    let layer = layer(host.dir.path(), &format!("{volume_id}.0.qcow2"), Some(&key));
    DiskSpec { layers: vec![layer], key: Some(key), ..disk(volume_id, "".into()) }
}

/// The disk with a new layer on top.
pub fn over(host: &Host, disk: &DiskSpec) -> DiskSpec {
    let name = format!("{}.{}.qcow2", disk.volume_id, disk.layers.len());
    let mut above = disk.clone();
    above.layers.insert(0, layer(host.dir.path(), &name, disk.key.as_ref()));
    above
}

/// What a disk holds, as a QEMU sees it that opens its layers anew. Locks of a machine are no hindrance.
pub fn holds(disk: &DiskSpec, commands: &[&str]) -> bool {
    fn told(layers: &[DiskLayer], is_encrypted: bool) -> Value {
        let Some((top, below)) = layers.split_first() else { return Value::Null };
        let file = json!({ "driver": "file", "filename": top.path, "locking": "off" });
        match top.format {
            DiskFormat::Raw | DiskFormat::Served | DiskFormat::Shared => {
                json!({ "driver": "raw", "file": file })
            }
            DiskFormat::Qcow2 => {
                let backing = told(below, is_encrypted);
                let mut node = json!({ "driver": "qcow2", "file": file, "backing": backing });
                if is_encrypted {
                    node["encrypt"] = json!({ "format": "luks", "key-secret": "disk" });
                }
                node
            }
        }
    }
    let mut io = Command::new("qemu-io");
    io.args(["-r", "-U"]).args(secret(disk.key.as_ref()));
    commands.iter().for_each(|command| {
        io.args(["-c", command]);
    });
    let told = told(&disk.layers, disk.key.is_some());
    let output = io.arg(format!("json:{told}")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    output.status.success() && !said.contains("failed") && !said.contains("rror")
}

/// Two disks, one from the start and one attached, are frozen together again and again while they are written to; the
/// process is killed in the middle.
#[tokio::test]
async fn what_was_frozen_stays_and_no_flushed_write_is_lost() {
    let Some(mut host) = Host::new() else { return };
    let mut spec = host.spec("hello", Then::Halt);
    let mut disks = [empty(&host), encrypted(&host)];
    spec.disks.push(disks[0].clone());
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    host.driver().attach_disk(&spec.instance_id, disks[1].clone()).await.unwrap();
    host.driver().attach_disk(&spec.instance_id, disks[1].clone()).await.unwrap();
    let mut frozen = Vec::new();
    for round in 1..=4u8 {
        let mut monitor = Monitor::of(&host, &spec);
        for disk in &disks {
            monitor.io(disk, &format!("write -P {round} 0 8k"));
            monitor.io(disk, &format!("write -P {round} {round}m 256k"));
            monitor.io(disk, "flush");
        }
        drop(monitor);
        frozen.push(disks.clone());
        disks = [over(&host, &disks[0]), over(&host, &disks[1])];
        if round == 3 {
            // The driver may be another by now.
            host.restart().await;
        }
        for _ in 0..2 {
            host.driver().freeze_disks(&spec.instance_id, disks.to_vec()).await.unwrap();
        }
    }
    let mut monitor = Monitor::of(&host, &spec);
    disks.iter().for_each(|disk| monitor.io(disk, "write -P 9 0 4k"));
    disks.iter().for_each(|disk| monitor.io(disk, "flush"));
    let process = host.processes()[0];
    host.kill(process);
    host.next_end().await;
    for (disks, round) in frozen.iter().zip(1..) {
        for disk in disks {
            let own = [format!("read -P {round} 0 8k"), format!("read -P {round} {round}m 256k")];
            let before = (1..round).map(|n| format!("read -P {n} {n}m 256k"));
            let later = format!("read -P 0 {}m 1m", round + 1);
            let commands: Vec<String> = own.into_iter().chain(before).chain([later]).collect();
            let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
            assert!(holds(disk, &commands), "round {round}");
        }
    }
    for disk in &disks {
        assert!(holds(disk, &["read -P 9 0 4k", "read -P 4 4k 4k", "read -P 4 4m 256k"]));
    }
    // Adopted by nobody, it starts again on all its layers.
    spec.boot = 2;
    spec.disks.truncate(1);
    spec.disks.extend(disks.clone());
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    Monitor::of(&host, &spec).io(&disks[0], "read -P 9 0 4k");
    host.driver().end(&spec.instance_id).await.unwrap();
}

/// Layers are merged by hand; the machine goes on with the merged one, and the others are of no account.
#[tokio::test]
async fn a_running_machine_takes_a_shorter_chain() {
    let Some(host) = Host::new() else { return };
    let spec = host.started("hello", Then::Halt).await;
    takes_a_shorter_chain(&host, &spec, empty(&host)).await;
    takes_a_shorter_chain(&host, &spec, encrypted(&host)).await;
    host.driver().end(&spec.instance_id).await.unwrap();
}

async fn takes_a_shorter_chain(host: &Host, spec: &MachineSpec, mut disk: DiskSpec) {
    let numbered = |below: &DiskSpec, number: u32| {
        let mut above = below.clone();
        let name = format!("{}.{number}.qcow2", below.volume_id);
        above.layers.insert(0, layer(host.dir.path(), &name, below.key.as_ref()));
        above
    };
    host.driver().attach_disk(&spec.instance_id, disk.clone()).await.unwrap();
    for round in 1..=4 {
        Monitor::of(host, spec).io(&disk, &format!("write -P {round} {round}m 64k"));
        disk = over(host, &disk);
        host.driver().freeze_disks(&spec.instance_id, vec![disk.clone()]).await.unwrap();
    }
    Monitor::of(host, spec).io(&disk, "write -P 9 9m 64k");
    // Of all but the uppermost and the raw one, which holds the first.
    let mut merged = disk.clone();
    let name = format!("{}.9.qcow2", disk.volume_id);
    merged.layers.splice(1..4, [layer(host.dir.path(), &name, disk.key.as_ref())]);
    let mut io = Command::new("qemu-io");
    io.args(secret(disk.key.as_ref()));
    for round in 2..=4 {
        io.args(["-c", &format!("write -P {round} {round}m 64k")]);
    }
    let mut image = format!("driver=qcow2,file.filename={}", merged.layers[1].path.display());
    if disk.key.is_some() {
        image.push_str(",encrypt.format=luks,encrypt.key-secret=disk");
    }
    assert!(io.arg("--image-opts").arg(image).output().unwrap().status.success());
    let before = disk.layers.clone();
    // One more comes in between.
    disk = numbered(&disk, 10);
    host.driver().freeze_disks(&spec.instance_id, vec![disk.clone()]).await.unwrap();
    merged.layers.insert(0, disk.layers[0].clone());
    host.driver().rebase_disk(&spec.instance_id, merged.clone(), before.clone()).await.unwrap();
    before[1..4].iter().for_each(|layer| std::fs::write(&layer.path, "gone").unwrap());
    for fd in std::fs::read_dir(format!("/proc/{}/fd", host.processes()[0])).unwrap() {
        // One may be gone since it was listed.
        let Ok(open) = std::fs::read_link(fd.unwrap().path()) else { continue };
        assert!(!before[1..4].iter().any(|layer| layer.path == open), "{} is still open", open.display());
    }
    let mut monitor = Monitor::of(host, spec);
    for round in [1, 2, 3, 4, 9] {
        monitor.io(&disk, &format!("read -P {round} {round}m 64k"));
    }
    monitor.io(&disk, "write -P 5 2m 4k");
    drop(monitor);
    let above = numbered(&merged, 11);
    host.driver().freeze_disks(&spec.instance_id, vec![above.clone()]).await.unwrap();
    Monitor::of(host, spec).io(&above, "write -P 6 3m 4k");
    let other = numbered(&above, 12);
    let refused = host.driver().rebase_disk(&spec.instance_id, other, vec![]).await;
    assert!(matches!(refused, Err(MachineError::Failed(_))), "{refused:?}");
    assert!(host.driver().detach_disk(&spec.instance_id, above.clone(), true).await.unwrap());
    assert!(holds(&above, &["read -P 6 3m 4k", "read -P 5 2m 4k", "read -P 4 4m 64k", "read -P 1 1m 64k"]));
}

#[tokio::test]
async fn disks_grow_and_a_freeze_that_fails_changes_nothing() {
    let Some(host) = Host::new() else { return };
    let mut spec = host.spec("hello", Then::Halt);
    let disk = empty(&host);
    spec.disks.push(disk.clone());
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    let mut missing = over(&host, &disk);
    missing.volume_id = Id::new(Kind::Volume, &SystemRandom);
    let above = over(&host, &disk);
    let refused = host.driver().freeze_disks(&spec.instance_id, vec![above.clone(), missing]).await;
    assert!(matches!(refused, Err(MachineError::Io { .. })), "it may have been laid before: {refused:?}");
    let mut monitor = Monitor::of(&host, &spec);
    monitor.io(&disk, "write -P 1 0 1m");
    drop(monitor);
    assert!(holds(&disk, &["read -P 1 0 1m"]), "written where it was before");
    for bytes in [128 << 20, 128 << 20] {
        host.driver().resize_disk(&spec.instance_id, &disk.volume_id, bytes).await.unwrap();
    }
    host.driver().freeze_disks(&spec.instance_id, vec![above.clone()]).await.unwrap();
    host.driver().resize_disk(&spec.instance_id, &disk.volume_id, 256 << 20).await.unwrap();
    let mut monitor = Monitor::of(&host, &spec);
    monitor.io(&disk, "write -P 2 200m 1m");
    monitor.io(&disk, "read -P 0 120m 1m");
    drop(monitor);
    host.driver().end(&spec.instance_id).await.unwrap();
    assert!(holds(&above, &["read -P 2 200m 1m", "read -P 1 0 1m"]));
}

/// What the guest discards takes no room any more, whatever the disk is made of; what lies below stays as it was.
#[tokio::test]
async fn what_a_guest_discards_is_given_back() {
    let Some(host) = Host::new() else { return };
    let spec = host.started("hello", Then::Halt).await;
    for disk in [empty(&host), encrypted(&host)] {
        host.driver().attach_disk(&spec.instance_id, disk.clone()).await.unwrap();
        gives_back(&host, &spec, &disk);
        let above = over(&host, &disk);
        host.driver().freeze_disks(&spec.instance_id, vec![above.clone()]).await.unwrap();
        gives_back(&host, &spec, &above);
        let below = above.layers[1..].to_vec();
        assert!(host.driver().detach_disk(&spec.instance_id, above.clone(), true).await.unwrap());
        assert!(holds(&above, &["read -P 0 0 32m", "read -P 3 32m 1m"]), "zeros hide what is below");
        assert!(holds(&DiskSpec { layers: below, ..above }, &["read -P 3 32m 1m"]));
    }
    host.driver().end(&spec.instance_id).await.unwrap();
}

fn gives_back(host: &Host, spec: &MachineSpec, disk: &DiskSpec) {
    let file = &disk.layers[0].path;
    // stat(2) counts in units of 512 bytes, whatever the file system's blocks.
    let taken = || file.metadata().unwrap().blocks() * 512;
    let mut monitor = Monitor::of(host, spec);
    monitor.io(disk, "write -P 3 0 33m");
    monitor.io(disk, "flush");
    let before = taken();
    assert!(before >= 33 << 20, "{before} bytes are taken");
    monitor.io(disk, "discard 0 32m");
    monitor.io(disk, "flush");
    // The file system may need some blocks to say where the hole is.
    assert!(taken() <= before - (31 << 20), "{} of {before} bytes are still taken", taken());
}

/// A guest that listens to nothing keeps its disk until it is taken by force; then another machine can have it.
#[tokio::test]
async fn a_disk_leaves_when_the_guest_lets_go_or_by_force() {
    let Some(host) = Host::new() else { return };
    let (spec, other) = (host.started("deaf", Then::Halt).await, host.started("other", Then::Halt).await);
    host.said(&spec, "deaf", 1).await;
    let disk = empty(&host);
    let driver = host.driver();
    driver.attach_disk(&spec.instance_id, disk.clone()).await.unwrap();
    let attached = driver.attached(&spec.instance_id).await.unwrap();
    assert!(attached.contains(&disk.volume_id) && attached.len() == 2);
    let twice = driver.attach_disk(&other.instance_id, disk.clone()).await;
    assert!(matches!(twice, Err(MachineError::Failed(_))), "it is in use: {twice:?}");
    let let_go = driver.detach_disk(&spec.instance_id, disk.clone(), false).await.unwrap();
    if !let_go {
        assert!(driver.detach_disk(&spec.instance_id, disk.clone(), true).await.unwrap());
    }
    assert_eq!(driver.attached(&spec.instance_id).await.unwrap().len(), 1);
    driver.attach_disk(&other.instance_id, disk.clone()).await.unwrap();
    Monitor::of(&host, &other).io(&disk, "write -P 5 0 4k");
    for spec in [spec, other] {
        driver.end(&spec.instance_id).await.unwrap();
    }
    assert!(holds(&disk, &["read -P 5 0 4k"]));
}
