//! Virtual machines: what one is made of, and the trait of what runs them.
//!
//! `qemu` drives one QEMU process per machine, `fake` keeps the same promises in memory.
//!
//! ```text
//!   start:  directory ─▶ spawn, processors stopped ─▶ record, durable ─▶ processors run
//!   adopt:  record ─▶ same process? ─▶ its monitor ─▶ watched again, or how it ended
//! ```
//!
//! A volume that several machines have at once is open in a machine of its own, which has no guest and is named after
//! the volume (`shared`). All that is done to disks is done to it as to any other; the machines of instances have the
//! disk from there.
//!
//! Invariants of both: no guest runs that is not on record; a machine's disks are open in one process at most;
//! whoever drives them may crash at any moment and finds every machine again, running or ended, with its console.

mod acceleration;
mod aio;
mod cgroup;
mod command_line;
mod console;
mod disk;
mod fake;
mod firmware;
mod hotplug;
mod layer_server;
mod nic;
mod process;
mod qemu;
mod qmp;
mod record;
mod screenshot;
mod shared;
mod throttle;
mod tpm;
mod uefi_store;
mod watch;

pub use acceleration::{Proof, prove};
pub use command_line::Acceleration;
pub use fake::FakeHypervisor;
pub use layer_server::{LayerContent, LayerSource};
pub use model::{Burst, DiskKey, DiskLimits, Rate};
pub use qemu::{QemuHypervisor, QemuOptions};

pub(crate) use acceleration::{kernel_release, qemu_version};
pub(crate) use cgroup::Groups;
pub(crate) use firmware::uefi as firmware_files;
pub(crate) use tpm::is_installed as has_tpm;

use async_trait::async_trait;
use model::{Id, UefiVariable};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("no machine {0} is here")]
    NotFound(Id),
    /// The message is for the user.
    #[error("{0}")]
    Failed(String),
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
}

/// Says what failed beside why.
fn io_failed(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> MachineError {
    let what = what.into();
    move |source| MachineError::Io { what, source }
}

/// One start of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// The volume's where it shares one.
    pub instance_id: Id,
    /// Which start or reboot this is; kept beside the machine, so that it is known again after a restart of ours.
    pub boot: u64,
    /// The guest's DMI product name: `t3.micro`.
    pub instance_type: String,
    pub firmware: Firmware,
    /// What UEFI firmware has at the machine's first start. On no record: the machine's own file has them since.
    #[serde(skip)]
    pub uefi_variables: Vec<UefiVariable>,
    /// Whether it has a TPM 2.0.
    #[serde(default)]
    pub tpm: bool,
    pub vcpus: u32,
    /// Divides the vCPUs; zero is one.
    #[serde(default)]
    pub threads_per_core: u32,
    pub memory_mib: u64,
    /// The root disk first.
    pub disks: Vec<DiskSpec>,
    /// Instance store volumes: raw files.
    #[serde(default)]
    pub scratch: Vec<PathBuf>,
    /// The primary one first: it stays for as long as the machine runs.
    pub nics: Vec<NicSpec>,
    /// How many it may have at a time.
    #[serde(default)]
    pub nics_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Firmware {
    Bios,
    Uefi,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// The uppermost first; it is the only one to be written to.
    pub layers: Vec<DiskLayer>,
    /// The guest sees it without its dash, in at most 20 characters: `vol0123456789abcdef0`.
    pub volume_id: Id,
    #[serde(default)]
    pub bus: DiskBus,
    /// Not held to any where None.
    #[serde(default)]
    pub limits: Option<DiskLimits>,
    /// Of an encrypted one. On no record: a machine that runs has it.
    #[serde(skip)]
    pub key: Option<DiskKey>,
}

/// What a guest has its disks by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskBus {
    /// The faster one.
    #[default]
    Virtio,
    /// For guests without drivers for the other.
    Nvme,
}

/// A file of a disk. What it lies over is told by the disk and never read from the file: a guest that broke out of its
/// machine can write there what it likes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLayer {
    /// The machine knows it by its name without directory and extension, of at most 31 characters.
    pub path: PathBuf,
    pub format: DiskFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskFormat {
    Raw,
    Qcow2,
    /// Its file is not whole yet: the machine reads it from us (`LayerSource`). Never the uppermost.
    Served,
    /// The disk as another machine shares it (`Hypervisor::shared_layer`). The only one.
    Shared,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NicSpec {
    pub interface_id: Id,
    pub mac: [u8; 6],
    pub mtu: u16,
}

/// The open queues of a network card's tap, at least one.
pub type Tap = Vec<OwnedFd>;

impl DiskSpec {
    /// One of these layers: all that need be known of a disk that a machine has already, but for its key.
    pub fn new(volume_id: Id, layers: Vec<DiskLayer>) -> Self {
        DiskSpec { layers, volume_id, bus: DiskBus::default(), limits: None, key: None }
    }
}

impl MachineSpec {
    /// A machine without a guest that shares a disk with others.
    pub fn sharing(disk: DiskSpec) -> Self {
        MachineSpec {
            instance_id: disk.volume_id.clone(),
            boot: 1,
            instance_type: String::new(),
            firmware: Firmware::Bios,
            uefi_variables: Vec::new(),
            tpm: false,
            vcpus: 1,
            threads_per_core: 1,
            memory_mib: 0,
            disks: vec![disk],
            scratch: Vec::new(),
            nics: Vec::new(),
            nics_max: 0,
        }
    }

    /// Its volumes and interfaces.
    pub fn devices(&self) -> BTreeSet<Id> {
        let disks = self.disks.iter().map(|disk| disk.volume_id.clone());
        disks.chain(self.nics.iter().map(|nic| nic.interface_id.clone())).collect()
    }
}

/// A machine that was found again, or was found ended, when the driver started.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub instance_id: Id,
    pub boot: u64,
    pub state: FoundState,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FoundState {
    Running,
    Ended(EndCause),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndCause {
    /// The guest powered itself off; found after a restart, also: it was ended as asked.
    Guest,
    /// The process is gone without that; the message says what is known.
    Lost(String),
}

/// What a running machine says of its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has not run yet.
    Prelaunch,
    PoweredOff,
    /// Its processors are stopped because of its disks.
    Stalled,
    /// Its processors are stopped because we asked for it.
    Paused,
    /// Its processors are stopped for another reason, which is not the guest's.
    Halted,
    Runs,
}

/// Sent once for each machine that ends other than by `Hypervisor::end`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    pub instance_id: Id,
    pub boot: u64,
    pub cause: EndCause,
}

#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// Makes the machine run. `taps` are those of `spec.nics`, in their order. Where the same boot
    /// runs already nothing happens; returns once the guest's processors run.
    async fn start(&self, spec: MachineSpec, taps: Vec<Tap>) -> Result<(), MachineError>;

    /// By what machines have a disk that another shares.
    fn shared_layer(&self, volume_id: &Id) -> DiskLayer;

    /// Whom machines read layers from that are served. Called once, before all else.
    fn serve_layers(&self, source: Arc<dyn LayerSource>);

    /// All machines that were started and not forgotten, adopted if they run. Called once, before any other is
    /// started.
    async fn adopt(&self) -> Result<Vec<Found>, MachineError>;

    /// Presses the power button (ACPI); what follows is the guest's affair. `Ended` with `EndCause::Guest` tells.
    async fn press_power_button(&self, instance_id: &Id) -> Result<(), MachineError>;

    /// Ends the machine at once and returns when its process is gone and its disks are released. No `Ended` is
    /// sent for it. No error where it does not run.
    async fn end(&self, instance_id: &Id) -> Result<(), MachineError>;

    /// Changes how fast a disk of a running machine may be.
    async fn limit_disk(
        &self,
        instance_id: &Id,
        volume_id: &Id,
        limits: Option<DiskLimits>,
    ) -> Result<(), MachineError>;

    /// The volumes and interfaces that the guest of a running machine has.
    async fn attached(&self, instance_id: &Id) -> Result<BTreeSet<Id>, MachineError>;

    /// Gives a running guest another disk. No error where it has it.
    async fn attach_disk(&self, instance_id: &Id, disk: DiskSpec) -> Result<(), MachineError>;

    /// Asks a running guest to let go of a disk; false where it has not yet, and is to be asked again. By force it goes
    /// in any case. No error where it has none such.
    async fn detach_disk(&self, instance_id: &Id, disk: DiskSpec, force: bool) -> Result<bool, MachineError>;

    /// Gives a running guest another network card on this tap. No error where it has it.
    async fn attach_nic(&self, instance_id: &Id, nic: NicSpec, tap: Tap) -> Result<(), MachineError>;

    /// As `detach_disk`, for a network card: by force it loses its link in any case.
    async fn detach_nic(
        &self,
        instance_id: &Id,
        interface_id: &Id,
        force: bool,
    ) -> Result<bool, MachineError>;

    /// From one moment on, the same for all these disks of a running machine, only their uppermost layers are written
    /// to. Those are new and empty, or on top already. `MachineError::Failed` says that none of it was done.
    async fn freeze_disks(&self, instance_id: &Id, disks: Vec<DiskSpec>) -> Result<(), MachineError>;

    /// Stops the processors of a running machine; all that its guest has asked of its disks is done.
    async fn pause(&self, instance_id: &Id) -> Result<(), MachineError>;

    /// Lets a machine run on that was paused, by whom ever. No error where it was not.
    async fn resume(&self, instance_id: &Id) -> Result<(), MachineError>;

    /// Lets a running machine have a disk by these layers from now on. Those below the one that was the uppermost
    /// `before` hold the same as what was below it; others may lie over it since.
    async fn rebase_disk(
        &self,
        instance_id: &Id,
        disk: DiskSpec,
        before: Vec<DiskLayer>,
    ) -> Result<(), MachineError>;

    /// Makes a disk of a running machine so large; one by NVMe is as large as its file only from the next start on.
    async fn resize_disk(&self, instance_id: &Id, volume_id: &Id, bytes: u64) -> Result<(), MachineError>;

    /// What the machine says of its guest, now.
    async fn status(&self, instance_id: &Id) -> Result<Status, MachineError>;

    /// How much processor time the machine has taken since it started; None where it does not run.
    fn cpu_time(&self, instance_id: &Id) -> Option<Duration>;

    /// Holds a running machine to so many thousandths of a processor, or lets it take what it gets where None.
    /// False where this host can't.
    async fn limit_cpu(&self, instance_id: &Id, processors_milli: Option<u32>) -> Result<bool, MachineError>;

    /// Removes what is kept of an ended machine, its console included.
    async fn forget(&self, instance_id: &Id) -> Result<(), MachineError>;

    /// The stream of ends. One subscriber.
    fn ends(&self) -> tokio::sync::mpsc::UnboundedReceiver<Ended>;

    /// The last `limit` bytes of the serial console; the same after the machine has ended.
    async fn console_output(&self, instance_id: &Id, limit: usize) -> Result<Vec<u8>, MachineError>;

    /// The screen as a JPEG.
    async fn console_screenshot(&self, instance_id: &Id) -> Result<Vec<u8>, MachineError>;

    /// The variables that the firmware of a machine keeps, running or not; None where it has none by UEFI.
    async fn uefi_variables(&self, instance_id: &Id) -> Result<Option<Vec<UefiVariable>>, MachineError>;
}
