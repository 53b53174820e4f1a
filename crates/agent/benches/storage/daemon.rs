//! QEMU's block layer without a machine: `qemu-storage-daemon`, with nodes as the driver makes them.

use crate::aio::Aio;
use crate::disk::{self, NamedLayer};
use crate::load::Disk;
use crate::qmp::Qmp;
use host::machine::{DiskBus, DiskFormat, DiskLayer};
use model::SecretKey;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

pub struct Daemon {
    process: Child,
    qmp: Qmp,
    nbd: PathBuf,
}

impl Daemon {
    pub async fn start(dir: &Path) -> Daemon {
        let (monitor, nbd) = (dir.join("monitor"), dir.join("nbd"));
        let mut process = Command::new("qemu-storage-daemon")
            .args(["--object", "iothread,id=disks", "--chardev"])
            .arg(format!("socket,id=monitor,server=on,wait=off,path={}", monitor.display()))
            .args(["--monitor", "chardev=monitor", "--nbd-server"])
            .arg(format!("addr.type=unix,addr.path={}", nbd.display()))
            .spawn()
            .expect("qemu-storage-daemon (package qemu-utils)");
        while !nbd.exists() {
            assert!(process.try_wait().unwrap().is_none(), "qemu-storage-daemon has ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let qmp = Qmp::connect(&monitor, Duration::from_secs(5)).await.unwrap();
        Daemon { process, qmp, nbd }
    }

    async fn execute(&self, command: &str, arguments: Value) {
        self.qmp.execute(command, arguments).await.unwrap();
    }

    /// Plainly what QEMU's manual says for a raw file, without the page cache.
    pub async fn add_raw(&self, name: &str, path: &Path) -> Disk {
        let file = json!({
            "driver": "file", "filename": path, "aio": "native", "cache": { "direct": true, "no-flush": false },
        });
        self.execute("blockdev-add", json!({ "driver": "raw", "node-name": name, "file": file })).await;
        self.export(name, DiskBus::Virtio).await
    }

    /// As a machine has a volume.
    pub async fn add(&self, layers: &[DiskLayer], bus: DiskBus) -> Disk {
        let name = self.add_nodes(layers, bus, None).await;
        self.export(&name, bus).await
    }

    /// As a machine has an encrypted volume; one in all.
    pub async fn add_encrypted(&self, layers: &[DiskLayer], key: &SecretKey) -> Disk {
        let secret = json!({ "qom-type": "secret", "id": "key", "data": key.passphrase() });
        self.execute("object-add", secret).await;
        let name = self.add_nodes(layers, DiskBus::Virtio, Some("key")).await;
        self.export(&name, DiskBus::Virtio).await
    }

    async fn add_nodes(&self, layers: &[DiskLayer], bus: DiskBus, secret: Option<&str>) -> String {
        let name = disk::node_name(&layers[0]);
        self.execute("blockdev-add", disk::nodes(&name, &named(layers, bus), secret)).await;
        name
    }

    /// In the thread that serves a device of this kind.
    async fn export(&self, name: &str, bus: DiskBus) -> Disk {
        let mut export = json!({
            "type": "nbd", "id": format!("e-{name}"), "name": name, "node-name": name, "writable": true,
        });
        if bus == DiskBus::Virtio {
            export["iothread"] = "disks".into();
            export["fixed-iothread"] = true.into();
        }
        self.execute("block-export-add", export).await;
        self.connect(name)
    }

    /// To what is exported under this name.
    pub fn connect(&self, name: &str) -> Disk {
        Disk::open(&self.nbd, name)
    }

    /// As the driver does under a machine.
    pub async fn lay_on_top(&self, before: &DiskLayer, layers: &[DiskLayer], bus: DiskBus) {
        let overlay = self.add_nodes(&layers[..1], bus, None).await;
        let action = json!({ "node": disk::node_name(before), "overlay": overlay });
        let action = json!({ "type": "blockdev-snapshot", "data": action });
        self.execute("transaction", json!({ "actions": [action] })).await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn named(layers: &[DiskLayer], bus: DiskBus) -> Vec<NamedLayer> {
    let named = |(at, layer): (usize, &DiskLayer)| NamedLayer {
        name: disk::node_name(layer),
        format: layer.format,
        place: layer.path.display().to_string(),
        aio: if at == 0 { Aio::direct(bus) } else { Aio::Threads },
    };
    layers.iter().enumerate().map(named).collect()
}

pub fn layers(layers: Vec<volume::Layer>) -> Vec<DiskLayer> {
    let layer = |layer: volume::Layer| DiskLayer {
        path: layer.path,
        format: match layer.format {
            volume::Format::Raw => DiskFormat::Raw,
            volume::Format::Qcow2 => DiskFormat::Qcow2,
        },
    };
    layers.into_iter().map(layer).collect()
}
