//! Machines in memory, for tests of those who drive them: the promises of `Hypervisor` without processes.

use super::{
    DiskFormat, DiskLayer, DiskLimits, DiskSpec, EndCause, Ended, Firmware, Found, FoundState, Hypervisor,
    LayerSource, MachineError, MachineSpec, NicSpec, Status, Tap,
};
use async_trait::async_trait;
use model::{Id, UefiVariable};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Cheap to clone; clones are the same host, so that one outlives a restart of who drives it.
#[derive(Clone, Default)]
pub struct FakeHypervisor {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    machines: HashMap<Id, Machine>,
    /// What the next starts fail with, in order.
    failures: VecDeque<MachineError>,
    starts: Vec<MachineSpec>,
    ends: Option<UnboundedSender<Ended>>,
    is_button_ignored: bool,
}

struct Machine {
    spec: MachineSpec,
    /// Held while it runs, as a process would.
    taps: Vec<Tap>,
    ended: Option<EndCause>,
    console: Vec<u8>,
    status: Status,
    cpu_time: Duration,
    processors_milli: Option<u32>,
}

impl FakeHypervisor {
    pub fn new() -> Self {
        FakeHypervisor::default()
    }

    /// The guest ends by itself.
    pub fn end_guest(&self, instance_id: &Id, cause: EndCause) {
        self.state.lock().end_guest(instance_id, cause);
    }

    /// The next start that is not already done fails with this error; each call adds one.
    pub fn fail_next_start(&self, error: MachineError) {
        self.state.lock().failures.push_back(error);
    }

    /// Whether guests power off when the button is pressed; they do until told otherwise.
    pub fn obey_power_button(&self, obeys: bool) {
        self.state.lock().is_button_ignored = !obeys;
    }

    /// The guest prints.
    pub fn print(&self, instance_id: &Id, text: &[u8]) {
        if let Some(machine) = self.state.lock().machines.get_mut(instance_id) {
            machine.console.extend_from_slice(text);
        }
    }

    /// What the machine says of its guest from now on.
    pub fn set_status(&self, instance_id: &Id, status: Status) {
        if let Some(machine) = self.state.lock().machines.get_mut(instance_id) {
            machine.status = status;
        }
    }

    /// The guest has been busy for so long.
    pub fn spend(&self, instance_id: &Id, time: Duration) {
        if let Some(machine) = self.state.lock().machines.get_mut(instance_id) {
            machine.cpu_time += time;
        }
    }

    /// What the machine is held to, in thousandths of a processor.
    pub fn cpu_limit(&self, instance_id: &Id) -> Option<u32> {
        self.state.lock().machines.get(instance_id)?.processors_milli
    }

    /// What runs, as it was started.
    pub fn running(&self) -> Vec<MachineSpec> {
        let state = self.state.lock();
        let running = state.machines.values().filter(|machine| machine.ended.is_none());
        let mut running: Vec<MachineSpec> = running.map(|machine| machine.spec.clone()).collect();
        running.sort_by(|a, b| a.instance_id.cmp(&b.instance_id));
        running
    }

    /// A queue of the tap that a machine has for an interface, for somebody to be the guest behind it.
    pub fn tap(&self, interface_id: &Id) -> Option<OwnedFd> {
        let state = self.state.lock();
        state.machines.values().find_map(|machine| {
            let at = machine.spec.nics.iter().position(|nic| nic.interface_id == *interface_id)?;
            machine.taps.get(at)?.first()?.try_clone().ok()
        })
    }

    /// Every start that succeeded, in order.
    pub fn starts(&self) -> Vec<MachineSpec> {
        self.state.lock().starts.clone()
    }
}

impl State {
    fn end_guest(&mut self, instance_id: &Id, cause: EndCause) {
        let Some(machine) = self.machines.get_mut(instance_id).filter(|machine| machine.ended.is_none())
        else {
            return;
        };
        machine.ended = Some(cause.clone());
        machine.taps.clear();
        let ended = Ended { instance_id: instance_id.clone(), boot: machine.spec.boot, cause };
        if let Some(ends) = &self.ends {
            // Nobody listens: found ended by whoever comes next.
            let _ = ends.send(ended);
        }
    }

    fn running(&self, instance_id: &Id) -> Result<&Machine, MachineError> {
        let running = self.machines.get(instance_id).filter(|machine| machine.ended.is_none());
        running.ok_or_else(|| MachineError::NotFound(instance_id.clone()))
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    async fn start(&self, spec: MachineSpec, taps: Vec<Tap>) -> Result<(), MachineError> {
        let mut state = self.state.lock();
        match state.running(&spec.instance_id) {
            Ok(machine) if machine.spec.boot == spec.boot => return Ok(()),
            Ok(_) => return Err(MachineError::Failed(format!("{} still runs", spec.instance_id))),
            Err(_) => {}
        }
        if let Some(error) = state.failures.pop_front() {
            return Err(error);
        }
        if taps.len() != spec.nics.len() {
            return Err(MachineError::Failed(format!("{} needs a tap a network card", spec.instance_id)));
        }
        state.starts.push(spec.clone());
        let console =
            state.machines.remove(&spec.instance_id).map(|earlier| earlier.console).unwrap_or_default();
        state.machines.insert(
            spec.instance_id.clone(),
            Machine {
                spec,
                taps,
                ended: None,
                console,
                status: Status::Runs,
                cpu_time: Duration::ZERO,
                processors_milli: None,
            },
        );
        Ok(())
    }

    fn shared_layer(&self, volume_id: &Id) -> DiskLayer {
        DiskLayer { path: format!("/shared/{volume_id}").into(), format: DiskFormat::Shared }
    }

    fn serve_layers(&self, _source: Arc<dyn LayerSource>) {}

    async fn adopt(&self) -> Result<Vec<Found>, MachineError> {
        let state = self.state.lock();
        let found = |machine: &Machine| Found {
            instance_id: machine.spec.instance_id.clone(),
            boot: machine.spec.boot,
            state: match &machine.ended {
                None => FoundState::Running,
                Some(cause) => FoundState::Ended(cause.clone()),
            },
        };
        Ok(state.machines.values().map(found).collect())
    }

    async fn press_power_button(&self, instance_id: &Id) -> Result<(), MachineError> {
        let mut state = self.state.lock();
        state.running(instance_id)?;
        if !state.is_button_ignored {
            state.end_guest(instance_id, EndCause::Guest);
        }
        Ok(())
    }

    async fn end(&self, instance_id: &Id) -> Result<(), MachineError> {
        let mut state = self.state.lock();
        if let Some(machine) = state.machines.get_mut(instance_id).filter(|machine| machine.ended.is_none()) {
            machine.ended = Some(EndCause::Guest);
            machine.taps.clear();
        }
        Ok(())
    }

    async fn limit_disk(
        &self,
        instance_id: &Id,
        volume_id: &Id,
        limits: Option<DiskLimits>,
    ) -> Result<(), MachineError> {
        let mut state = self.state.lock();
        state.running(instance_id)?;
        let disks =
            state.machines.get_mut(instance_id).into_iter().flat_map(|machine| &mut machine.spec.disks);
        for disk in disks.filter(|disk| disk.volume_id == *volume_id) {
            disk.limits = limits;
        }
        Ok(())
    }

    async fn attached(&self, instance_id: &Id) -> Result<BTreeSet<Id>, MachineError> {
        Ok(self.state.lock().running(instance_id)?.spec.devices())
    }

    async fn attach_nic(&self, instance_id: &Id, nic: NicSpec, tap: Tap) -> Result<(), MachineError> {
        self.detach_nic(instance_id, &nic.interface_id, true).await?;
        if let Some(machine) = self.state.lock().machines.get_mut(instance_id) {
            machine.spec.nics.push(nic);
            machine.taps.push(tap);
        }
        Ok(())
    }

    async fn detach_nic(&self, instance_id: &Id, interface_id: &Id, _: bool) -> Result<bool, MachineError> {
        let mut state = self.state.lock();
        state.running(instance_id)?;
        if let Some(machine) = state.machines.get_mut(instance_id)
            && let Some(at) = machine.spec.nics.iter().position(|nic| nic.interface_id == *interface_id)
        {
            machine.spec.nics.remove(at);
            machine.taps.remove(at);
        }
        Ok(true)
    }

    async fn attach_disk(&self, instance_id: &Id, disk: DiskSpec) -> Result<(), MachineError> {
        self.detach_disk(instance_id, disk.clone(), true).await?;
        if let Some(machine) = self.state.lock().machines.get_mut(instance_id) {
            machine.spec.disks.push(disk);
        }
        Ok(())
    }

    async fn detach_disk(&self, instance_id: &Id, disk: DiskSpec, _: bool) -> Result<bool, MachineError> {
        let mut state = self.state.lock();
        state.running(instance_id)?;
        if let Some(machine) = state.machines.get_mut(instance_id) {
            machine.spec.disks.retain(|had| had.volume_id != disk.volume_id);
        }
        Ok(true)
    }

    async fn freeze_disks(&self, instance_id: &Id, disks: Vec<DiskSpec>) -> Result<(), MachineError> {
        let mut state = self.state.lock();
        state.running(instance_id)?;
        let had = state.machines.get_mut(instance_id).into_iter().flat_map(|machine| &mut machine.spec.disks);
        for had in had {
            if let Some(frozen) = disks.iter().find(|disk| disk.volume_id == had.volume_id) {
                had.layers = frozen.layers.clone();
            }
        }
        Ok(())
    }

    async fn pause(&self, instance_id: &Id) -> Result<(), MachineError> {
        self.status(instance_id).await.map(|_| self.set_status(instance_id, Status::Paused))
    }

    async fn resume(&self, instance_id: &Id) -> Result<(), MachineError> {
        if self.status(instance_id).await? == Status::Paused {
            self.set_status(instance_id, Status::Runs);
        }
        Ok(())
    }

    async fn rebase_disk(
        &self,
        instance_id: &Id,
        disk: DiskSpec,
        _: Vec<DiskLayer>,
    ) -> Result<(), MachineError> {
        self.freeze_disks(instance_id, vec![disk]).await
    }

    async fn resize_disk(&self, instance_id: &Id, _: &Id, _: u64) -> Result<(), MachineError> {
        self.state.lock().running(instance_id).map(drop)
    }

    async fn status(&self, instance_id: &Id) -> Result<Status, MachineError> {
        self.state.lock().running(instance_id).map(|machine| machine.status)
    }

    fn cpu_time(&self, instance_id: &Id) -> Option<Duration> {
        self.state.lock().running(instance_id).ok().map(|machine| machine.cpu_time)
    }

    async fn limit_cpu(&self, instance_id: &Id, processors_milli: Option<u32>) -> Result<bool, MachineError> {
        let mut state = self.state.lock();
        state.running(instance_id)?;
        if let Some(machine) = state.machines.get_mut(instance_id) {
            machine.processors_milli = processors_milli;
        }
        Ok(true)
    }

    async fn forget(&self, instance_id: &Id) -> Result<(), MachineError> {
        let mut state = self.state.lock();
        if state.running(instance_id).is_ok() {
            return Err(MachineError::Failed(format!("{instance_id} still runs")));
        }
        state.machines.remove(instance_id);
        Ok(())
    }

    fn ends(&self) -> UnboundedReceiver<Ended> {
        let (sender, receiver) = unbounded_channel();
        self.state.lock().ends = Some(sender);
        receiver
    }

    async fn console_output(&self, instance_id: &Id, limit: usize) -> Result<Vec<u8>, MachineError> {
        let state = self.state.lock();
        let machine =
            state.machines.get(instance_id).ok_or_else(|| MachineError::NotFound(instance_id.clone()))?;
        Ok(machine.console[machine.console.len().saturating_sub(limit)..].to_vec())
    }

    /// A JPEG of one dark dot.
    async fn console_screenshot(&self, instance_id: &Id) -> Result<Vec<u8>, MachineError> {
        self.state.lock().running(instance_id)?;
        let mut encoded = std::io::Cursor::new(Vec::new());
        let written = jpeg::RgbImage::new(1, 1).write_to(&mut encoded, jpeg::ImageFormat::Jpeg);
        written.map_err(|error| super::io_failed("no screenshot")(std::io::Error::other(error)))?;
        Ok(encoded.into_inner())
    }

    /// What it was started with.
    async fn uefi_variables(&self, instance_id: &Id) -> Result<Option<Vec<UefiVariable>>, MachineError> {
        let state = self.state.lock();
        let machine = state.machines.get(instance_id);
        let machine = machine.ok_or_else(|| MachineError::NotFound(instance_id.clone()))?;
        let is_uefi = machine.spec.firmware == Firmware::Uefi;
        Ok(is_uefi.then(|| machine.spec.uefi_variables.clone()))
    }
}
