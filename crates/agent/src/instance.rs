//! The task of one instance: it owns what there is of it on this host and takes it, step by step, to what is
//! desired. The steps are `lifecycle`'s; here they are carried out.
//!
//! Invariants: the task is the only one that starts or ends the instance's machine; it sleeps while nothing
//! changes; its volumes and network are held from before a start until the machine is known to be gone.

use crate::AgentOptions;
use crate::credits::Credits;
use crate::lifecycle::{Actual, Step, Wanted, Why, next_step, observation};
use crate::network::HostNetwork;
use crate::observations::Observations;
use crate::plug::{ASKED_AGAIN, Plugged};
use crate::scratch::Scratch;
use crate::status::Checks;
use crate::tasks::Backoff;
use crate::volumes::Volumes;
use agent_api::{BootMode, DiskLimits, Instance, InstanceObservation, Power, StopCause};
use futures::future::{join, try_join_all};
use host::machine::{
    DiskBus, DiskSpec, EndCause, Ended, Firmware, Hypervisor, MachineError, MachineSpec, NicSpec, Tap,
};
use host::net::NetError;
use model::Id;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::Instrument as _;

/// Attempts to start a machine before its failure is told: what fails three times in a row stays so.
const ATTEMPTS_MAX: u32 = 3;
/// The power button is pressed again after this long: a guest that is still booting does not hear the first.
const BUTTON_AGAIN: Duration = Duration::from_secs(10);

/// What all instance tasks of an agent share.
pub(crate) struct Host {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) network: Arc<HostNetwork>,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) observations: Arc<Observations>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) credits: Arc<Credits>,
    pub(crate) scratch: Scratch,
    pub(crate) options: AgentOptions,
    pub(crate) instances: Mutex<HashMap<Id, Handle>>,
}

/// How an instance's task is reached.
pub(crate) struct Handle {
    pub(crate) desire: watch::Sender<Desire>,
    pub(crate) ends: mpsc::UnboundedSender<Ended>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Desire {
    /// Control has not spoken since the agent started: nothing may be done.
    Unknown,
    /// Nothing of it shall be here.
    Gone,
    Put(Arc<Instance>),
}

impl Desire {
    fn wanted(&self) -> Option<Wanted> {
        match self {
            Desire::Put(instance) => Some(Wanted { power: instance.power, boot: instance.boot }),
            Desire::Gone | Desire::Unknown => None,
        }
    }

    fn request_id(&self) -> Option<&str> {
        match self {
            Desire::Put(instance) => instance.request_id.as_deref(),
            Desire::Gone | Desire::Unknown => None,
        }
    }
}

pub(crate) struct InstanceTask {
    pub(crate) instance_id: Id,
    pub(crate) host: Arc<Host>,
    pub(crate) desire: watch::Receiver<Desire>,
    ends: mpsc::UnboundedReceiver<Ended>,
    pub(crate) actual: Actual,
    /// How fast its machine's disks are; None where that is not known.
    limits: Option<BTreeMap<Id, Option<DiskLimits>>>,
    pub(crate) plugged: Plugged,
}

/// How a task goes on after a step.
enum Course {
    On,
    /// All is as desired.
    Rests,
    Over,
}

/// Why a start did not succeed.
enum StartError {
    /// The message is for the user.
    Final(String),
    /// Worth another attempt; the message is for the user if that fails too.
    Transient(String),
}

impl InstanceTask {
    pub(crate) fn new(host: &Arc<Host>, instance_id: Id, desire: Desire, actual: Actual) -> (Self, Handle) {
        let (desire_sender, desire) = watch::channel(desire);
        let (ends_sender, ends) = mpsc::unbounded_channel();
        let (host, plugged) = (host.clone(), Plugged::default());
        let task = InstanceTask { instance_id, host, desire, ends, actual, limits: None, plugged };
        (task, Handle { desire: desire_sender, ends: ends_sender })
    }

    pub(crate) async fn run(mut self) {
        self.meet().await;
        loop {
            let desire = self.desire.borrow_and_update().clone();
            let span = tracing::info_span!("request", request_id = desire.request_id());
            match self.advance(&desire).instrument(span).await {
                Course::On => {}
                Course::Rests => self.wait().await,
                Course::Over => return,
            }
        }
    }

    /// One step towards what is desired.
    async fn advance(&mut self, desire: &Desire) -> Course {
        match (next_step(desire.wanted(), &self.actual), desire) {
            (Step::Start { boot }, Desire::Put(instance)) => self.start(instance, boot).await,
            (Step::Start { .. } | Step::Rest, _) => {
                if self.rest(desire) {
                    return Course::Over;
                }
                if let Desire::Put(instance) = desire
                    && self.plug(instance).await
                    && self.rest(desire)
                {
                    return Course::Over;
                }
                self.limit_disks(desire).await;
                return Course::Rests;
            }
            (Step::Shutdown(why), _) => self.shut_down(why).await,
            (Step::End, _) => self.end(StopCause::Asked).await,
            (Step::Forget, _) => self.forget().await,
        }
        Course::On
    }

    /// Until control has spoken: what runs is told. What has ended is told when it is known whether it was to end:
    /// the agent may have crashed while it stopped or rebooted the machine.
    async fn meet(&mut self) {
        let wanted = loop {
            let desire = self.desire.borrow_and_update().clone();
            if desire != Desire::Unknown {
                break desire.wanted();
            }
            if let Actual::Running { boot } = self.actual {
                self.host.observations.tell_instance(&self.instance_id, boot, InstanceObservation::Running);
            }
            self.wait().await;
        };
        let is_off = wanted.is_some_and(|wanted| wanted.power != Power::On);
        if let (true, Actual::Stopped { cause, .. }) = (is_off, &mut self.actual) {
            *cause = StopCause::Asked;
        }
    }

    /// All is as desired: holds what a running machine needs, lets go of the rest, and says so.
    /// True where the task has nothing left to do, ever.
    fn rest(&mut self, desire: &Desire) -> bool {
        let is_running = matches!(self.actual, Actual::Running { .. });
        if let (Actual::Running { boot }, Desire::Put(instance)) = (&self.actual, desire) {
            self.hold_volumes(instance);
            self.host.network.update(instance);
            self.host.credits.runs(instance, *boot);
            self.host.checks.runs(instance, *boot);
        } else {
            self.plugged = Plugged::default();
            self.host.checks.rests(&self.instance_id);
            self.host.credits.rests(&self.instance_id);
            self.host.scratch.remove(&self.instance_id);
            self.host.network.detach(&self.instance_id);
            self.host.volumes.release(&self.instance_id);
        }
        let (boot, observed) = observation(desire.wanted(), &self.actual);
        if observed != InstanceObservation::Removed {
            let disks = match desire {
                Desire::Put(instance) => self.plugged.observed(instance, is_running),
                Desire::Gone | Desire::Unknown => Vec::new(),
            };
            self.host.observations.tell_at_rest(&self.instance_id, boot, observed, None, disks);
            return false;
        }
        // Under the lock, so that nobody puts the instance again to a task that is about to end.
        let mut instances = self.host.instances.lock();
        if self.desire.has_changed().unwrap_or(false) {
            return false;
        }
        instances.remove(&self.instance_id);
        self.host.observations.tell_instance(&self.instance_id, boot, observed);
        true
    }

    /// Makes the disks of a running machine as fast as they shall be.
    async fn limit_disks(&mut self, desire: &Desire) {
        let (Actual::Running { .. }, Desire::Put(instance)) = (&self.actual, desire) else { return };
        let wanted = limits_of(instance);
        let had = self.limits.replace(wanted.clone());
        for (volume_id, limits) in wanted {
            let is_so = had.as_ref().and_then(|had| had.get(&volume_id)) == Some(&limits);
            if is_so || !self.plugged.has(&volume_id) {
                continue;
            }
            if let Err(error) = self.host.hypervisor.limit_disk(&self.instance_id, &volume_id, limits).await {
                self.log(&error, "disk not limited");
            }
        }
    }

    fn hold_volumes(&self, instance: &Instance) {
        self.host.volumes.hold(&self.instance_id, Some(self.held_volumes(instance)));
    }

    /// Until control desires something else or the machine has ended by itself.
    async fn wait(&mut self) {
        tokio::select! {
            changed = self.desire.changed() => if changed.is_err() {
                // The agent is gone; its tasks are about to be aborted.
                std::future::pending().await
            },
            Some(ended) = self.ends.recv() => self.ended_by_itself(ended).await,
            () = tokio::time::sleep(ASKED_AGAIN), if self.waits_for_machine() => {}
        }
    }

    /// Whether it has something to ask again of a machine that runs.
    fn waits_for_machine(&self) -> bool {
        let is_desired = matches!(&*self.desire.borrow(), Desire::Put(_));
        is_desired && matches!(self.actual, Actual::Running { .. }) && self.plugged.waits()
    }

    async fn ended_by_itself(&mut self, ended: Ended) {
        // A late word about an earlier boot is no news.
        if self.actual == (Actual::Running { boot: ended.boot }) {
            self.end(stop_cause(ended.cause)).await;
        }
    }

    /// Ends the machine for certain; until it is, its disks may be in use and nothing else may happen.
    async fn end(&mut self, cause: StopCause) {
        let Actual::Running { boot } = self.actual else { return };
        self.host.checks.rests(&self.instance_id);
        let mut backoff = Backoff::new();
        while let Err(error) = self.host.hypervisor.end(&self.instance_id).await {
            self.log(&error, "machine not ended");
            backoff.wait().await;
        }
        self.host.volumes.release(&self.instance_id);
        self.host.volumes.unshared().await;
        tracing::info!(boot, ?cause, "instance stopped");
        self.actual = Actual::Stopped { boot, cause };
    }

    async fn forget(&mut self) {
        self.host.credits.forget(&self.instance_id);
        self.host.scratch.remove(&self.instance_id);
        let mut backoff = Backoff::new();
        loop {
            match self.host.hypervisor.forget(&self.instance_id).await {
                Ok(()) | Err(MachineError::NotFound(_)) => break,
                Err(error) => self.log(&error, "machine not forgotten"),
            }
            backoff.wait().await;
        }
        self.actual = Actual::Absent;
    }

    /// Asks the guest to power off, waits for it, and ends its machine in any case.
    async fn shut_down(&mut self, why: Why) {
        let Actual::Running { boot } = self.actual else { return };
        self.host.checks.rests(&self.instance_id);
        let grace = match why {
            Why::Reboot => self.host.options.reboot_grace,
            Why::Stop => self.host.options.stop_grace,
        };
        let deadline = Instant::now() + grace;
        let mut button = tokio::time::interval(BUTTON_AGAIN);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => break,
                Some(ended) = self.ends.recv() => if ended.boot == boot { break },
                Ok(()) = self.desire.changed() => {
                    let wanted = self.desire.borrow_and_update().wanted();
                    if next_step(wanted, &self.actual) == Step::End {
                        break;
                    }
                }
                _ = button.tick() => {
                    if let Err(error) = self.host.hypervisor.press_power_button(&self.instance_id).await {
                        self.log(&error, "power button not pressed");
                    }
                }
            }
        }
        self.end(StopCause::Asked).await;
    }

    async fn start(&mut self, instance: &Arc<Instance>, boot: u64) {
        self.host.observations.tell_instance(&self.instance_id, boot, InstanceObservation::Preparing);
        let mut backoff = Backoff::new();
        let mut attempt = 1;
        loop {
            let prepared = tokio::select! {
                prepared = self.prepare(instance) => prepared,
                () = other_course(self.desire.clone(), &self.actual, boot) => return,
            };
            // From here on it is not given up half-way: the machine either runs or is ended.
            let result = match prepared {
                Ok((spec, taps)) => self.start_machine(spec, taps).await,
                Err(error) => Err(error),
            };
            let message = match result {
                Ok(()) => {
                    self.plugged = Plugged::at_start(instance);
                    self.limits = Some(limits_of(instance));
                    self.actual = Actual::Running { boot };
                    self.host.checks.started(instance);
                    tracing::info!(boot, "machine runs");
                    return;
                }
                Err(StartError::Transient(_)) if attempt < ATTEMPTS_MAX => None,
                Err(StartError::Final(message) | StartError::Transient(message)) => Some(message),
            };
            if let Err(error) = self.host.hypervisor.end(&self.instance_id).await {
                self.log(&error, "what is left of a failed start not ended");
            }
            if let Some(message) = message {
                tracing::warn!(boot, message, "not started");
                self.actual = Actual::Failed { boot, message };
                return;
            }
            attempt += 1;
            tokio::select! {
                () = backoff.wait() => {}
                () = other_course(self.desire.clone(), &self.actual, boot) => return,
            }
        }
    }

    /// Of what the disks consist is looked up while nobody changes it.
    async fn start_machine(&self, mut spec: MachineSpec, taps: Vec<Tap>) -> Result<(), StartError> {
        let volume_ids: Vec<Id> = spec.disks.iter().map(|disk| disk.volume_id.clone()).collect();
        let _locks = self.host.volumes.lock(&volume_ids).await;
        for disk in &mut spec.disks {
            let file = self.host.volumes.open_locked(&disk.volume_id).await;
            let file = file.map_err(StartError::Transient)?;
            (disk.layers, disk.key) = (file.layers, file.key);
        }
        let starting = self.host.hypervisor.start(spec, taps);
        let started = self.host.volumes.keeping_shared(&volume_ids, starting).await;
        started.map_err(|error| {
            self.log(&error, "machine not started");
            StartError::from(error)
        })
    }

    /// Volumes and taps, at the same time.
    async fn prepare(&self, instance: &Arc<Instance>) -> Result<(MachineSpec, Vec<Tap>), StartError> {
        self.hold_volumes(instance);
        let revision = self.host.network.attach(instance);
        // The root disk first: it is the one that the machine boots from.
        let mut disks: Vec<&agent_api::Disk> =
            instance.disks.iter().filter(|disk| disk.detach.is_none()).collect();
        disks.sort_by_key(|disk| !disk.root);
        let ready = try_join_all(disks.iter().map(|disk| self.host.volumes.ready(&disk.volume_id)));
        let interfaces: Vec<_> =
            instance.interfaces.iter().filter(|interface| interface.detach.is_none()).cloned().collect();
        let (ready, taps) =
            join(ready, self.host.network.taps(&interfaces, queues(instance), revision)).await;
        ready.map_err(StartError::Final)?;
        let taps = taps.map_err(|error| {
            self.log(&*error, "taps not opened");
            StartError::from(error)
        })?;
        let scratch = self.host.scratch.ensure(instance).map_err(|error| {
            self.log(&error, "instance store volumes not made");
            StartError::Transient("The host could not make the instance store volumes".into())
        })?;
        let disk = |disk: &&agent_api::Disk| DiskSpec {
            bus: disk_bus(instance),
            limits: disk.limits,
            ..DiskSpec::new(disk.volume_id.clone(), Vec::new())
        };
        let spec = MachineSpec {
            instance_id: instance.instance_id.clone(),
            boot: instance.boot,
            instance_type: instance.machine.instance_type.clone(),
            firmware: match instance.machine.boot_mode {
                BootMode::LegacyBios => Firmware::Bios,
                BootMode::Uefi => Firmware::Uefi,
            },
            uefi_variables: instance.machine.uefi_variables.clone(),
            tpm: instance.machine.tpm,
            vcpus: instance.machine.vcpus,
            threads_per_core: instance.machine.threads_per_core,
            memory_mib: instance.machine.memory_mib,
            disks: disks.iter().map(disk).collect(),
            scratch,
            nics: interfaces.iter().map(|interface| self.nic(interface)).collect(),
            nics_max: instance.machine.interfaces_max,
        };
        Ok((spec, taps))
    }

    pub(crate) fn nic(&self, interface: &agent_api::Interface) -> NicSpec {
        NicSpec {
            interface_id: interface.network.interface_id.clone(),
            mac: interface.network.mac,
            mtu: self.host.network.driver().mtu(),
        }
    }

    pub(crate) fn log(&self, error: &(dyn std::error::Error + 'static), what: &str) {
        tracing::warn!(error, "{what}");
    }
}

/// How many queues each of its interfaces has that does not say, as EC2 gives most types: one a processor, up to eight
/// (EC2 User Guide, "ENA queues").
pub(crate) fn queues(instance: &Instance) -> usize {
    instance.machine.vcpus.clamp(1, 8) as usize
}

pub(crate) fn disk_bus(instance: &Instance) -> DiskBus {
    match instance.machine.disk_bus {
        agent_api::DiskBus::Virtio => DiskBus::Virtio,
        agent_api::DiskBus::Nvme => DiskBus::Nvme,
    }
}

fn limits_of(instance: &Instance) -> BTreeMap<Id, Option<DiskLimits>> {
    instance.disks.iter().map(|disk| (disk.volume_id.clone(), disk.limits)).collect()
}

/// Returns when another step than starting this boot has become due.
async fn other_course(mut desire: watch::Receiver<Desire>, actual: &Actual, boot: u64) {
    let is_other = |desire: &Desire| next_step(desire.wanted(), actual) != Step::Start { boot };
    if desire.wait_for(is_other).await.is_err() {
        std::future::pending().await
    }
}

pub(crate) fn stop_cause(cause: EndCause) -> StopCause {
    match cause {
        EndCause::Guest => StopCause::Guest,
        EndCause::Lost(message) => StopCause::Lost { message },
    }
}

impl From<MachineError> for StartError {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::Failed(message) => StartError::Final(message),
            MachineError::NotFound(id) => StartError::Transient(format!("The machine of {id} did not start")),
            MachineError::Io { .. } => StartError::Transient("The host could not start the machine".into()),
        }
    }
}

impl From<Arc<NetError>> for StartError {
    fn from(error: Arc<NetError>) -> Self {
        match &*error {
            NetError::Failed(message) => StartError::Final(message.clone()),
            NetError::NotFound(id) => StartError::Transient(format!("{id} is not on the host's network")),
            NetError::Io { .. } => {
                StartError::Transient("The host could not make the instance's network".into())
            }
        }
    }
}
