//! A host for one test: a directory of its own, machines that end with it.

use crate::guest::{self, Then};
use host::machine::{
    Acceleration, DiskFormat, DiskLayer, DiskSpec, Ended, Firmware, Found, Hypervisor, LayerSource,
    MachineSpec, QemuHypervisor, QemuOptions,
};
use model::{Id, Kind, SystemRandom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// What a guest of one sector takes to say its word on a busy host without KVM, with much to spare.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Host {
    /// None while the driver is away.
    driver: Option<QemuHypervisor>,
    pub ends: UnboundedReceiver<Ended>,
    pub dir: tempfile::TempDir,
    layers: Option<Arc<dyn LayerSource>>,
}

impl Host {
    /// None where no machine can run: said, then passed over.
    pub fn new() -> Option<Host> {
        let has_qemu = Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
        if !has_qemu || !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root and qemu-system-x86_64");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let driver = open(&dir.path().join("machines"), QemuOptions::new("", Acceleration::Tcg).program);
        Some(Host { ends: driver.ends(), driver: Some(driver), dir, layers: None })
    }

    /// Whom machines read served layers from, whichever driver is there.
    pub fn serve(&mut self, layers: Arc<dyn LayerSource>) {
        self.driver().serve_layers(layers.clone());
        self.layers = Some(layers);
    }

    pub fn driver(&self) -> &QemuHypervisor {
        self.driver.as_ref().unwrap()
    }

    pub fn machines(&self) -> PathBuf {
        self.dir.path().join("machines")
    }

    /// The driver is gone, as after a `kill -9`, and another takes its place.
    pub async fn restart(&mut self) -> Vec<Found> {
        self.restart_after(|| {}).await
    }

    pub async fn restart_after(&mut self, meanwhile: impl FnOnce()) -> Vec<Found> {
        self.driver = None;
        meanwhile();
        let driver = open(&self.machines(), "qemu-system-x86_64".into());
        self.ends = driver.ends();
        self.layers.iter().for_each(|layers| driver.serve_layers(layers.clone()));
        let found = driver.adopt().await.unwrap();
        self.driver = Some(driver);
        found
    }

    /// From now on another program is started for QEMU.
    pub fn use_program(&mut self, program: &str) {
        let driver = open(&self.machines(), program.into());
        self.ends = driver.ends();
        self.driver = Some(driver);
    }

    /// A machine whose guest says `word`.
    pub fn spec(&self, word: &str, then: Then) -> MachineSpec {
        let volume_id = Id::new(Kind::Volume, &SystemRandom);
        let path = self.dir.path().join(volume_id.as_str());
        std::fs::write(&path, guest::disk(word, then)).unwrap();
        MachineSpec {
            instance_id: Id::new(Kind::Instance, &SystemRandom),
            boot: 1,
            instance_type: "t3.nano".into(),
            firmware: Firmware::Bios,
            uefi_variables: vec![],
            tpm: false,
            vcpus: 1,
            threads_per_core: 1,
            memory_mib: 64,
            disks: vec![disk(volume_id, path)],
            scratch: vec![],
            nics: vec![],
            nics_max: 1,
        }
    }

    pub async fn started(&self, word: &str, then: Then) -> MachineSpec {
        let spec = self.spec(word, then);
        self.driver().start(spec.clone(), vec![]).await.unwrap();
        spec
    }

    pub async fn console(&self, spec: &MachineSpec) -> String {
        let output = self.driver().console_output(&spec.instance_id, 64 * 1024).await.unwrap();
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Waits until the console holds the word so many times.
    pub async fn said(&self, spec: &MachineSpec, word: &str, times: usize) {
        let said = async {
            while self.console(spec).await.matches(word).count() < times {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, said).await.is_err() {
            panic!("{word:?} was not said {times} times: {:?}", self.console(spec).await);
        }
    }

    pub async fn next_end(&mut self) -> Ended {
        tokio::time::timeout(PATIENCE, self.ends.recv()).await.expect("no machine ended").unwrap()
    }

    /// Ids of the processes that have their working directory below the machines'.
    pub fn processes(&self) -> Vec<i32> {
        let machines = self.machines().canonicalize().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let entry = entry.unwrap();
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(directory) = std::fs::read_link(entry.path().join("cwd")) else { continue };
            if directory.starts_with(&machines) {
                found.push(pid);
            }
        }
        found
    }

    /// `kill -9`, from outside.
    pub fn kill(&self, pid: i32) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

fn open(machines: &Path, program: PathBuf) -> QemuHypervisor {
    QemuHypervisor::open(QemuOptions { program, ..QemuOptions::new(machines, Acceleration::Tcg) }).unwrap()
}

/// A raw disk.
pub fn disk(volume_id: Id, path: PathBuf) -> DiskSpec {
    DiskSpec::new(volume_id, vec![DiskLayer { path, format: DiskFormat::Raw }])
}

impl Drop for Host {
    fn drop(&mut self) {
        let Ok(machines) = std::fs::read_dir(self.machines()) else { return };
        for pid in self.processes() {
            self.kill(pid);
        }
        for machine in machines.flatten() {
            let name = machine.file_name().to_string_lossy().into_owned();
            for group in groups_of(&name) {
                // Refused until the kernel is done with the process.
                while std::fs::remove_dir(&group).is_err_and(|e| e.kind() == std::io::ErrorKind::ResourceBusy)
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let _ = std::fs::remove_dir(group.parent().unwrap());
            }
        }
    }
}

/// The control groups of a machine, one a hierarchy.
pub fn groups_of(instance_id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut unseen = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = unseen.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            match path.ends_with(instance_id) {
                true => found.push(path),
                false => unseen.push(path),
            }
        }
    }
    found
}
