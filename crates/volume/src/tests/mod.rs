//! Disks on a real file system, over crashes at every point.

mod crashes;
mod encrypted;
mod faults;
mod filling;
mod folds;
mod layers;
mod storing;
mod uploads;

use crate::{BLOCK_BYTES, Disks, Fill, Format, Layer, VolumeDisk, VolumeError};
use model::DiskKey;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const SNAPSHOT: &str = "snap-0123456789abcdef0";
const SECOND: &str = "snap-0123456789abcdef2";
const VOLUME: &str = "vol-0123456789abcdef0";
const OTHER: &str = "vol-0fedcba9876543210";

/// Disks in a directory of their own.
struct Room {
    dir: tempfile::TempDir,
    disks: Disks,
}

impl std::ops::Deref for Room {
    type Target = Disks;
    fn deref(&self) -> &Disks {
        &self.disks
    }
}

impl Room {
    fn new() -> Room {
        let dir = tempfile::tempdir().unwrap();
        Room { disks: Disks::open(dir.path()).unwrap(), dir }
    }

    /// As after a crash: what is in memory is gone.
    fn reopen(self) -> Room {
        let Room { dir, disks } = self;
        drop(disks);
        Room { disks: Disks::open(dir.path()).unwrap(), dir }
    }

    fn with_snapshot(self) -> Room {
        self.begin(SNAPSHOT, 1, None).unwrap();
        self.put_block(SNAPSHOT, 3, &block(3)).unwrap();
        self.complete(SNAPSHOT).unwrap();
        self
    }

    /// All files but the empty directories.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for dir in ["filling", "layers", "snapshots", "volumes"] {
            for entry in fs::read_dir(self.dir.path().join(dir)).unwrap() {
                files.push(format!("{dir}/{}", entry.unwrap().file_name().to_str().unwrap()));
            }
        }
        files.sort();
        files
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// All layers are whole afterwards. How many bytes were fetched.
    fn fill_all(&self) -> u64 {
        let mut fetched = 0;
        loop {
            match self.fill(1).unwrap() {
                Fill::Some(bytes) => fetched += bytes,
                Fill::Whole { .. } => {}
                Fill::Nothing => return fetched,
            }
        }
    }

    /// A snapshot of a volume that no machine uses.
    fn snapshot(&self, snapshot_id: &str, volume_id: &str) {
        if let Some(freeze) = self.begin_freeze(&[(snapshot_id, volume_id)], None).unwrap() {
            self.finish_freeze(&freeze.key).unwrap();
        }
    }
}

fn block(content: u8) -> Vec<u8> {
    vec![content; BLOCK_BYTES]
}

fn has_qemu() -> bool {
    let works = |program| Command::new(program).arg("--version").output().is_ok();
    let has = works("qemu-img") && works("qemu-io");
    if !has {
        eprintln!("skipped: needs qemu-img and qemu-io");
    }
    has
}

/// The chain as QEMU is told of it.
fn told(layers: &[Layer], encrypt: &str) -> String {
    let Some((top, below)) = layers.split_first() else { return "null".into() };
    let file = format!(r#"{{"driver":"file","filename":"{}"}}"#, top.path.display());
    match top.format {
        Format::Raw => format!(r#"{{"driver":"raw","file":{file}}}"#),
        Format::Qcow2 => {
            let below = told(below, encrypt);
            format!(r#"{{"driver":"qcow2","discard":"unmap"{encrypt},"file":{file},"backing":{below}}}"#)
        }
    }
}

/// Has QEMU do things with a disk; whether all went well.
fn qemu_io(disk: &VolumeDisk, commands: &[&str]) -> bool {
    let mut io = Command::new("qemu-io");
    io.args(["-d", "unmap"]);
    let mut encrypt = "";
    if let Some(DiskKey::Known(key)) = &disk.key {
        io.arg("--object").arg(format!("secret,id=disk,data={}", key.passphrase()));
        encrypt = r#","encrypt":{"format":"luks","key-secret":"disk"}"#;
    }
    for command in commands {
        io.args(["-c", command]);
    }
    let output = io.arg(format!("json:{}", told(&disk.layers, encrypt))).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    output.status.success() && !said.contains("failed") && !said.contains("rror")
}

/// Has QEMU look at the tables of one of a disk's layers.
fn qemu_check(layer: &Layer, disk: &VolumeDisk) {
    let mut image = format!("driver=qcow2,file.filename={}", layer.path.display());
    let mut check = Command::new("qemu-img");
    check.args(["check", "-q"]);
    if let Some(DiskKey::Known(key)) = &disk.key {
        check.arg("--object").arg(format!("secret,id=disk,data={}", key.passphrase()));
        image.push_str(",encrypt.format=luks,encrypt.key-secret=disk");
    }
    let checked = check.arg("--image-opts").arg(image).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

fn is_invalid<T>(result: Result<T, VolumeError>) -> bool {
    matches!(result, Err(VolumeError::Invalid(_)))
}

fn is_not_found<T>(result: Result<T, VolumeError>) -> bool {
    matches!(result, Err(VolumeError::NotFound(_)))
}
