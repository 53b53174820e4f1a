//! Machines as QEMU processes: one each, detached from us, found again after a restart.
//!
//! Invariants: a process is started with its guest's processors stopped, and they run only once the record is
//! durable, so that whatever runs is on record and what is not on record never ran; nothing that was begun here is
//! left half done because the caller stopped waiting.

use super::aio::Aio;
use super::cgroup::Groups;
use super::command_line::{
    Acceleration, DISKS_MAX, Handed, HandedFile, HandedFirmware, NICS_MAX, SCRATCH_MAX, arguments,
};
use super::disk::{self, OpenFile};
use super::process::{self, Launch, Process, ProcessIdentity};
use super::qmp::{Qmp, QmpError};
use super::record::{LAYERS, MONITOR, MONITOR_SPARE, MachineDirectory, Record};
use super::watch::{Ends, Machine, Running, end_process, status};
use super::{
    DiskBus, DiskLayer, DiskLimits, DiskSpec, EndCause, Ended, Found, FoundState, Hypervisor, LayerSource,
    MachineError, MachineSpec, NicSpec, Status, Tap, firmware, hotplug, io_failed, layer_server, screenshot,
    shared, throttle, tpm,
};
use async_trait::async_trait;
use futures::future::try_join_all;
use model::{Id, UefiVariable};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;

/// Where the kernel counts what all processes may have in flight by native asynchronous I/O.
const AIO_MAX: &str = "/proc/sys/fs/aio-max-nr";
/// Each machine reserves a thousand: the kernel's own limit is met at 64 machines, this at a thousand.
const AIO_MAX_WANTED: u64 = 1024 * 1024;

/// Nobody waits for a machine that says nothing: what it waits for may be ours to do.
const REACHED_WITHIN: Duration = Duration::from_secs(1);
/// A process that does not answer may be about to end.
const DYING_TIME_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct QemuOptions {
    /// Machines are kept in directories below it.
    pub root: PathBuf,
    /// As proved by running a guest.
    pub acceleration: Acceleration,
    pub program: PathBuf,
}

impl QemuOptions {
    pub fn new(root: impl Into<PathBuf>, acceleration: Acceleration) -> Self {
        QemuOptions { root: root.into(), acceleration, program: "qemu-system-x86_64".into() }
    }
}

/// Dropping it leaves the machines running. To be used inside a tokio runtime.
pub struct QemuHypervisor {
    options: QemuOptions,
    groups: Arc<Groups>,
    machines: Mutex<HashMap<Id, Arc<Machine>>>,
    ends: Ends,
    layers: layer_server::Source,
}

impl QemuHypervisor {
    /// Needs root: machines are given away to users without rights.
    pub fn open(options: QemuOptions) -> Result<Self, MachineError> {
        if !rustix::process::geteuid().is_root() {
            return Err(MachineError::Failed("Running machines needs root".into()));
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.root);
        made.map_err(io_failed(format!("can't make {}", options.root.display())))?;
        // As the kernel names the working directories of processes.
        let root =
            fs::canonicalize(&options.root).map_err(io_failed("can't find the machines' directory"))?;
        if let Err(error) = raise_aio_max() {
            tracing::warn!(error = &error as &dyn std::error::Error, "{AIO_MAX} not raised");
        }
        // No machine shall wait for its trial.
        let aio = Aio::direct(DiskBus::Nvme);
        tracing::debug!(aio = aio.as_str(), "how NVMe disks are read and written");
        Ok(QemuHypervisor {
            groups: Arc::new(Groups::find(&root)),
            options: QemuOptions { root, ..options },
            machines: Mutex::default(),
            ends: Ends::default(),
            layers: Default::default(),
        })
    }

    fn known(&self, instance_id: &Id) -> Option<Arc<Machine>> {
        self.machines.lock().get(instance_id).cloned()
    }

    fn machine(&self, instance_id: &Id) -> Arc<Machine> {
        let mut machines = self.machines.lock();
        let make = || self.new_machine(instance_id.clone());
        machines.entry(instance_id.clone()).or_insert_with(make).clone()
    }

    fn new_machine(&self, instance_id: Id) -> Arc<Machine> {
        let directory = MachineDirectory::new(&self.options.root, &instance_id);
        Machine::new(instance_id, directory, self.groups.clone(), self.layers.clone())
    }

    fn found(&self, instance_id: &Id) -> Result<Arc<Machine>, MachineError> {
        self.known(instance_id).ok_or_else(|| MachineError::NotFound(instance_id.clone()))
    }

    /// Takes up a machine that is on record.
    async fn take_up(&self, machine: Arc<Machine>, record: Record) -> Result<Found, MachineError> {
        let boot = record.spec.boot;
        machine.set_group(record.group);
        let process =
            Process::find(&record.process).map_err(io_failed("can't look for a machine's process"))?;
        let state = match (record.ended, process) {
            (Some(cause), process) => {
                if let Some(process) = process {
                    end_process(&process, None).await?;
                }
                machine.clear().await;
                FoundState::Ended(cause)
            }
            (None, None) => {
                let cause = machine.lost();
                machine.record_end(boot, &cause);
                machine.clear().await;
                FoundState::Ended(cause)
            }
            (None, Some(process)) => self.take_up_process(&machine, boot, process).await?,
        };
        self.machines.lock().insert(machine.instance_id.clone(), machine.clone());
        Ok(Found { instance_id: machine.instance_id.clone(), boot, state })
    }

    async fn take_up_process(
        &self,
        machine: &Arc<Machine>,
        boot: u64,
        process: Process,
    ) -> Result<FoundState, MachineError> {
        // First: as long as it waits for a layer, it answers nothing that has to do with disks.
        machine.serve_layers()?;
        let reached = timeout(REACHED_WITHIN, machine.reach()).await;
        let running =
            match reached.unwrap_or_else(|_| Err(machine.unreachable(QmpError::TimedOut("adopt".into())))) {
                Ok((qmp, Status::PoweredOff)) => {
                    let running = Running::new(boot, process, Some(qmp));
                    machine.finish(&running, &EndCause::Guest).await?;
                    return Ok(FoundState::Ended(EndCause::Guest));
                }
                Ok((qmp, _)) => Running::new(boot, process, Some(qmp)),
                Err(_) if timeout(DYING_TIME_MAX, process.exited()).await.is_ok() => {
                    let cause = machine.lost();
                    machine.record_end(boot, &cause);
                    machine.clear().await;
                    return Ok(FoundState::Ended(cause));
                }
                Err(error) => {
                    // It lives; that it does not speak to us now is no reason to end it.
                    machine.warn(&error, "machine does not answer");
                    Running::new(boot, process, None)
                }
            };
        machine.set_running(running, self.ends.clone());
        Ok(FoundState::Running)
    }

    /// Ends processes that no record tells of: they were started and never ran a guest.
    async fn end_orphans(&self, known: HashSet<&ProcessIdentity>) -> Result<(), MachineError> {
        let root = Some(self.options.root.as_path());
        let below = process::working_in(|directory| directory.parent() == root);
        let below = below.map_err(io_failed("can't look for machines' processes"))?;
        for orphan in below.into_iter().filter(|process| !known.contains(&process.identity)) {
            tracing::warn!(pid = orphan.identity.pid, "ending a machine that is not on record");
            end_process(&orphan, None).await?;
        }
        Ok(())
    }

    /// Removes the control groups of machines that run no more.
    async fn sweep_groups(&self) -> Result<(), MachineError> {
        let running: Vec<Id> = {
            let machines = self.machines.lock();
            machines.values().filter(|m| m.running().is_some()).map(|m| m.instance_id.clone()).collect()
        };
        let groups = self.groups.clone();
        let sweep = move || groups.sweep(&running.iter().map(Id::as_str).collect());
        let swept = tokio::task::spawn_blocking(sweep).await;
        swept.map_err(|error| io_failed("control groups were not swept")(io::Error::other(error)))
    }
}

impl Drop for QemuHypervisor {
    fn drop(&mut self) {
        self.machines.lock().values().for_each(|machine| machine.leave());
    }
}

fn raise_aio_max() -> io::Result<()> {
    let now: u64 = fs::read_to_string(AIO_MAX)?.trim().parse().map_err(io::Error::other)?;
    if now < AIO_MAX_WANTED { fs::write(AIO_MAX, AIO_MAX_WANTED.to_string()) } else { Ok(()) }
}

/// Runs to its end whether or not the caller waits for it.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, MachineError>> + Send + 'static,
) -> Result<T, MachineError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(io_failed("the work on a machine was cut short")(io::Error::other(error))),
    }
}

fn check(spec: &MachineSpec, taps: &[Tap]) -> Result<(), MachineError> {
    let refuse = |what: String| Err(MachineError::Failed(format!("{} {what}", spec.instance_id)));
    if taps.len() != spec.nics.len() || taps.iter().any(Vec::is_empty) {
        return refuse(format!("has {} network cards and {} taps", spec.nics.len(), taps.len()));
    }
    if spec.scratch.len() > SCRATCH_MAX {
        return refuse(format!("has more than {SCRATCH_MAX} instance store volumes"));
    }
    if spec.nics.len() > NICS_MAX || spec.disks.len() > DISKS_MAX {
        return refuse(format!("has more than {NICS_MAX} network cards or {DISKS_MAX} disks"));
    }
    Ok(())
}

async fn start(
    machine: Arc<Machine>,
    options: QemuOptions,
    ends: Ends,
    spec: MachineSpec,
    taps: Vec<Tap>,
) -> Result<(), MachineError> {
    let _changing = machine.changing.lock().await;
    if machine.forgotten.load(Ordering::Relaxed) {
        return Err(MachineError::NotFound(spec.instance_id));
    }
    match machine.running() {
        // It may have been cut short before it shared anything.
        Some(running) if running.boot == spec.boot && spec.is_sharing() => {
            return machine.set_off(&*machine.monitor().await?, &spec).await;
        }
        Some(running) if running.boot == spec.boot => return Ok(()),
        Some(running) => {
            return Err(MachineError::Failed(format!(
                "{} still runs, started as number {}",
                spec.instance_id, running.boot
            )));
        }
        None => {}
    }
    machine.serve_layers()?;
    let (launching, launched) = (spec.clone(), machine.clone());
    let launched = tokio::task::spawn_blocking(move || launch(&launched, &options, &launching, taps)).await;
    let launched = launched.map_err(|error| io_failed("QEMU was not started")(io::Error::other(error)));
    let process = match launched.and_then(|launched| launched) {
        Ok(process) => process,
        Err(error) => {
            machine.clear().await;
            return Err(error);
        }
    };
    match run_guest(&machine, &spec, &process).await {
        Ok(qmp) => {
            machine.set_running(Running::new(spec.boot, process, Some(qmp)), ends);
            Ok(())
        }
        Err(error) => {
            end_process(&process, None).await?;
            machine.clear().await;
            machine.record_end(spec.boot, &EndCause::Lost(error.to_string()));
            Err(error)
        }
    }
}

/// Starts the process, its guest's processors stopped.
fn launch(
    machine: &Machine,
    options: &QemuOptions,
    spec: &MachineSpec,
    taps: Vec<Tap>,
) -> Result<Process, MachineError> {
    let directory = &machine.directory;
    let mut fds = Fds::default();
    let (mut handed_disks, mut secrets) = (Vec::new(), Vec::new());
    for disk in &spec.disks {
        let file = disk::key(disk).and_then(|key| key.map(disk::secret_file).transpose());
        let file = file.map_err(io_failed(format!("can't hand over the key of {}", disk.volume_id)))?;
        secrets.push(file.map(|fd| fds.hand(fd)));
        let open = disk::open(disk, &directory.file(LAYERS))
            .map_err(io_failed(format!("can't open {}", disk.volume_id)))?;
        handed_disks.push(open.into_iter().map(|file| fds.file(file)).collect());
    }
    let mut scratch = Vec::new();
    for path in &spec.scratch {
        let file = disk::open_to_write(path, DiskBus::Virtio)
            .map_err(io_failed("can't open an instance store volume"))?;
        scratch.push(fds.file(file));
    }
    let firmware = firmware::open(spec, directory)?;
    let group = machine.make_group(spec);
    let doors = || {
        let doors = group.as_ref().map_or(Ok(Vec::new()), |group| group.doors());
        doors.map_err(io_failed("can't open the machine's control group"))
    };
    let tpm = match spec.tpm {
        true => Some(fds.hand(tpm::start(&spec.instance_id, directory, doors()?)?)),
        false => None,
    };
    let listen = |name| directory.listen(name).map_err(io_failed("can't make the machine's monitor"));
    let handed = Handed {
        monitor: fds.hand(listen(MONITOR)?),
        monitor_spare: fds.hand(listen(MONITOR_SPARE)?),
        firmware: firmware.map(|firmware| HandedFirmware {
            code: fds.hand(firmware.code),
            variables: fds.hand(firmware.variables),
            is_secure: firmware.is_secure,
        }),
        tpm,
        disks: handed_disks,
        secrets,
        scratch,
        taps: taps.into_iter().map(|tap| tap.into_iter().map(|queue| fds.hand(queue)).collect()).collect(),
    };
    process::spawn(Launch {
        doors: doors()?,
        program: options.program.clone(),
        package: "qemu-system-x86",
        arguments: arguments(spec, options.acceleration, &handed).into_iter().map(Into::into).collect(),
        directory: directory.path().to_owned(),
        log: directory.create_log().map_err(io_failed("can't make the machine's log"))?,
        handed_over: fds.0,
        user: process::user_of(&spec.instance_id),
        group: match options.acceleration {
            Acceleration::Kvm => Some(group_of(Path::new("/dev/kvm"))?),
            Acceleration::Tcg => None,
        },
    })
}

/// What is handed to the process; kept open until it has it.
#[derive(Default)]
struct Fds(Vec<OwnedFd>);

impl Fds {
    fn hand(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.0.push(fd);
        number
    }

    fn file(&mut self, file: OpenFile) -> HandedFile {
        let fd_to_read = file.fd_to_read.map(|fd| self.hand(fd));
        HandedFile { aio: file.aio, fd: self.hand(file.fd), fd_to_read }
    }
}

fn group_of(device: &Path) -> Result<u32, MachineError> {
    Ok(fs::metadata(device).map_err(io_failed(format!("can't see {}", device.display())))?.gid())
}

/// Makes the record durable, then lets the guest's processors run.
async fn run_guest(machine: &Machine, spec: &MachineSpec, process: &Process) -> Result<Qmp, MachineError> {
    let record =
        Record { spec: spec.clone(), process: process.identity.clone(), group: machine.group(), ended: None };
    machine.directory.write_record(&record)?;
    let run = async {
        let qmp = machine.connect().await.map_err(|error| machine.unreachable(error))?;
        machine.set_off(&qmp, spec).await?;
        Ok(qmp)
    };
    let result = tokio::select! {
        result = run => result,
        _ = process.exited() => Err(machine.unreachable(QmpError::Closed)),
    };
    result.map_err(|error| match machine.directory.last_complaint() {
        Some(complaint) => {
            machine.warn(&error, "machine not started");
            MachineError::Failed(format!("The machine could not be started: {complaint}"))
        }
        None => error,
    })
}

async fn end(machine: Arc<Machine>) -> Result<(), MachineError> {
    let _changing = machine.changing.lock().await;
    match machine.running() {
        Some(running) => machine.finish(&running, &EndCause::Guest).await,
        None => Ok(()),
    }
}

#[async_trait]
impl Hypervisor for QemuHypervisor {
    async fn start(&self, spec: MachineSpec, taps: Vec<Tap>) -> Result<(), MachineError> {
        check(&spec, &taps)?;
        let machine = self.machine(&spec.instance_id);
        to_the_end(start(machine, self.options.clone(), self.ends.clone(), spec, taps)).await
    }

    fn shared_layer(&self, volume_id: &Id) -> DiskLayer {
        shared::layer(&self.options.root, volume_id)
    }

    fn serve_layers(&self, source: Arc<dyn LayerSource>) {
        // The first is the only one.
        let _ = self.layers.set(source);
    }

    async fn adopt(&self) -> Result<Vec<Found>, MachineError> {
        let all = MachineDirectory::all(&self.options.root).map_err(io_failed("can't list the machines"))?;
        let mut recorded = Vec::new();
        let mut left_over = Vec::new();
        for (instance_id, directory) in all {
            match directory.read_record()? {
                Some(record) => recorded.push((self.new_machine(instance_id), record)),
                None => left_over.push(directory),
            }
        }
        self.end_orphans(recorded.iter().map(|(_, record)| &record.process).collect()).await?;
        let found =
            try_join_all(recorded.into_iter().map(|(machine, record)| self.take_up(machine, record))).await?;
        self.sweep_groups().await?;
        for directory in left_over {
            directory.remove().map_err(io_failed("can't remove what a start left over"))?;
        }
        Ok(found)
    }

    async fn press_power_button(&self, instance_id: &Id) -> Result<(), MachineError> {
        let machine = self.found(instance_id)?;
        let pressed = machine.monitor().await?.execute("system_powerdown", json!({})).await;
        pressed.map(drop).map_err(|error| machine.unreachable(error))
    }

    async fn end(&self, instance_id: &Id) -> Result<(), MachineError> {
        match self.known(instance_id) {
            Some(machine) => to_the_end(end(machine)).await,
            None => Ok(()),
        }
    }

    async fn limit_disk(
        &self,
        instance_id: &Id,
        volume_id: &Id,
        limits: Option<DiskLimits>,
    ) -> Result<(), MachineError> {
        let machine = self.found(instance_id)?;
        let qmp = machine.monitor().await?;
        let limited = match shared::is_sharing(instance_id) {
            true => shared::limit(&qmp, limits).await,
            false => throttle::limit(&qmp, volume_id, limits).await,
        };
        limited.map_err(|error| machine.unreachable(error))
    }

    async fn attached(&self, instance_id: &Id) -> Result<BTreeSet<Id>, MachineError> {
        let qmp = self.found(instance_id)?.monitor().await?;
        match shared::is_sharing(instance_id) {
            true => Ok(BTreeSet::from([instance_id.clone()])),
            false => Ok(hotplug::attached(&qmp).await?),
        }
    }

    async fn attach_disk(&self, instance_id: &Id, disk: DiskSpec) -> Result<(), MachineError> {
        let machine = self.found(instance_id)?;
        to_the_end(async move {
            let _changing = machine.changing.lock().await;
            let qmp = machine.monitor().await?;
            hotplug::attach(&qmp, &disk, &machine.directory.file(LAYERS)).await?;
            throttle::limit_all(&qmp, std::slice::from_ref(&disk)).await;
            Ok(())
        })
        .await
    }

    async fn detach_disk(&self, instance_id: &Id, disk: DiskSpec, force: bool) -> Result<bool, MachineError> {
        let machine = self.found(instance_id)?;
        to_the_end(async move { Ok(hotplug::detach(&*machine.monitor().await?, &disk, force).await?) }).await
    }

    async fn attach_nic(&self, instance_id: &Id, nic: NicSpec, tap: Tap) -> Result<(), MachineError> {
        let machine = self.found(instance_id)?;
        to_the_end(async move {
            let _changing = machine.changing.lock().await;
            Ok(hotplug::nic::attach(&*machine.monitor().await?, &nic, tap).await?)
        })
        .await
    }

    async fn detach_nic(
        &self,
        instance_id: &Id,
        interface_id: &Id,
        force: bool,
    ) -> Result<bool, MachineError> {
        let (machine, interface_id) = (self.found(instance_id)?, interface_id.clone());
        to_the_end(async move {
            Ok(hotplug::nic::detach(&*machine.monitor().await?, &interface_id, force).await?)
        })
        .await
    }

    async fn freeze_disks(&self, instance_id: &Id, disks: Vec<DiskSpec>) -> Result<(), MachineError> {
        let machine = self.found(instance_id)?;
        to_the_end(async move {
            let _changing = machine.changing.lock().await;
            Ok(hotplug::freeze(&*machine.monitor().await?, &disks, &machine.directory.file(LAYERS)).await?)
        })
        .await
    }

    async fn pause(&self, instance_id: &Id) -> Result<(), MachineError> {
        let machine = self.found(instance_id)?;
        let paused = machine.monitor().await?.execute("stop", json!({})).await;
        paused.map(drop).map_err(|error| machine.unreachable(error))
    }

    async fn resume(&self, instance_id: &Id) -> Result<(), MachineError> {
        let machine = self.found(instance_id)?;
        let qmp = machine.monitor().await?;
        let resumed = async {
            if status(&qmp).await? == Status::Paused {
                qmp.execute("cont", json!({})).await?;
            }
            Ok(())
        };
        resumed.await.map_err(|error| machine.unreachable(error))
    }

    async fn rebase_disk(
        &self,
        instance_id: &Id,
        disk: DiskSpec,
        before: Vec<DiskLayer>,
    ) -> Result<(), MachineError> {
        let machine = self.found(instance_id)?;
        to_the_end(async move {
            let _changing = machine.changing.lock().await;
            Ok(hotplug::rebase(&*machine.monitor().await?, &disk, &before, &machine.directory.file(LAYERS))
                .await?)
        })
        .await
    }

    async fn resize_disk(&self, instance_id: &Id, volume_id: &Id, bytes: u64) -> Result<(), MachineError> {
        let (machine, volume_id) = (self.found(instance_id)?, volume_id.clone());
        let shared = self.shared_layer(&volume_id);
        to_the_end(async move {
            let _changing = machine.changing.lock().await;
            let qmp = machine.monitor().await?;
            match shared::is_sharing(&machine.instance_id) {
                true => shared::resize(&qmp, &volume_id, bytes).await?,
                false => hotplug::resize(&qmp, &volume_id, bytes, &shared).await?,
            }
            Ok(())
        })
        .await
    }

    async fn status(&self, instance_id: &Id) -> Result<Status, MachineError> {
        let machine = self.found(instance_id)?;
        status(&*machine.monitor().await?).await.map_err(|error| machine.unreachable(error))
    }

    fn cpu_time(&self, instance_id: &Id) -> Option<Duration> {
        self.known(instance_id)?.running()?.process.cpu_time()
    }

    async fn limit_cpu(&self, instance_id: &Id, processors_milli: Option<u32>) -> Result<bool, MachineError> {
        let machine = self.found(instance_id)?;
        // What runs can't end, and its group not go, while it is held.
        let _changing = machine.changing.lock().await;
        if machine.running().is_none() {
            return Err(MachineError::NotFound(instance_id.clone()));
        }
        let Some(group) = machine.group() else { return Ok(false) };
        group.limit_cpu(processors_milli).map_err(io_failed("can't limit a machine's processor time"))
    }

    async fn forget(&self, instance_id: &Id) -> Result<(), MachineError> {
        let Some(machine) = self.known(instance_id) else { return Ok(()) };
        let _changing = machine.changing.lock().await;
        if machine.running().is_some() {
            return Err(MachineError::Failed(format!("{instance_id} still runs")));
        }
        machine.directory.remove().map_err(io_failed("can't remove the machine's directory"))?;
        machine.forgotten.store(true, Ordering::Relaxed);
        self.machines.lock().remove(instance_id);
        Ok(())
    }

    fn ends(&self) -> tokio::sync::mpsc::UnboundedReceiver<Ended> {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        *self.ends.lock() = Some(sender);
        receiver
    }

    async fn console_output(&self, instance_id: &Id, limit: usize) -> Result<Vec<u8>, MachineError> {
        let machine = self.found(instance_id)?;
        if let Some(qmp) = machine.running().and_then(|running| running.monitor()) {
            machine.save_console(&qmp).await;
        }
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        machine.console.lock().await.tail(limit).map_err(io_failed("can't read the console"))
    }

    async fn console_screenshot(&self, instance_id: &Id) -> Result<Vec<u8>, MachineError> {
        let machine = self.found(instance_id)?;
        screenshot::take(&*machine.monitor().await?).await
    }

    async fn uefi_variables(&self, instance_id: &Id) -> Result<Option<Vec<UefiVariable>>, MachineError> {
        let machine = self.found(instance_id)?;
        let read = tokio::task::spawn_blocking(move || firmware::variables(&machine.directory)).await;
        read.map_err(|error| io_failed("UEFI variables were not read")(io::Error::other(error)))?
    }
}
