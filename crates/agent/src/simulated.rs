//! A host without machines: it takes what is desired and says, after a while, that it is so.
//!
//! What happens next to an instance is decided by the same function as on a real host (`lifecycle`); only the
//! carrying out is simulated, as a delay. Delays run on tokio's clock, so that a test may pause it. Faults are
//! injected by the methods beside `HostAgent`'s.
//!
//! Invariants: no task per instance (one timer task, there only while something is under way), and per instance
//! no more than its identity and where it is in its life, so that one process holds 100,000 of them. Nothing is
//! durable: after a restart control's `replace` makes all of it anew.

use crate::lifecycle::{Actual, Step, Wanted, Why, next_step, observation};
use crate::observations::Observations;
use crate::snapshots::{Blocks, MemorySnapshots};
use agent_api::{
    Change, Check, Desired, HostAgent, HostDescription, HostError, Instance, InstanceObservation,
    NewSnapshot, Observation, ObservedDevice, PlugState, StatusChecks, StopCause, UefiVariable, Unfilled,
    Volume, VolumeState,
};
use async_trait::async_trait;
use model::Id;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

/// How long things take. Zero is at once, within the call that asks for it.
#[derive(Clone, Debug)]
pub struct SimulatedOptions {
    pub start: Duration,
    /// From the power button to the guest's end.
    pub shutdown: Duration,
    /// Ending a guest by force, and removing what is left of it.
    pub end: Duration,
}

impl Default for SimulatedOptions {
    /// Long enough for a caller to see `pending` and `stopping`, too short to wait for.
    fn default() -> Self {
        SimulatedOptions {
            start: Duration::from_millis(3),
            shutdown: Duration::from_millis(2),
            end: Duration::from_millis(1),
        }
    }
}

impl SimulatedOptions {
    /// Everything at once.
    pub fn immediate() -> Self {
        SimulatedOptions { start: Duration::ZERO, shutdown: Duration::ZERO, end: Duration::ZERO }
    }
}

/// A simulated guest is well from its start.
const ALL_PASSED: StatusChecks =
    StatusChecks { system: Check::Passed, instance: Check::Passed, attached_ebs: Check::Passed };

/// Cheap to clone; clones are the same host.
#[derive(Clone)]
pub struct SimulatedHost {
    shared: Arc<Shared>,
}

struct Shared {
    description: HostDescription,
    options: SimulatedOptions,
    snapshots: Arc<MemorySnapshots>,
    state: Mutex<State>,
    observations: Observations,
    /// Something is due earlier than the timer task knows.
    sooner: Notify,
}

#[derive(Default)]
struct State {
    instances: BTreeMap<Id, Simulated>,
    volumes: BTreeMap<Id, SimulatedVolume>,
    due: BinaryHeap<Reverse<(Instant, u64, Id)>>,
    last_ticket: u64,
    timer_runs: bool,
    lost: bool,
    launch_faults: HashMap<Id, String>,
    next_launches_fault: (usize, String),
    next_volumes_fault: (usize, String),
    /// Volumes that are not there although they shall be, and why.
    failed_volumes: BTreeMap<Id, VolumeState>,
}

struct SimulatedVolume {
    size_gib: u32,
    /// What its snapshot held when it was made: simulated guests write nothing.
    blocks: Blocks,
}

struct Simulated {
    wanted: Option<Wanted>,
    /// The request that what is under way is for.
    request_id: Option<Box<str>>,
    generation: u64,
    instance_type: Box<str>,
    /// Each that is desired, and whether it shall leave.
    devices: Box<[(Id, bool)]>,
    /// As it was launched with.
    uefi_variables: Box<[UefiVariable]>,
    actual: Actual,
    /// The step under way and the ticket that ends it.
    doing: Option<(Step, u64)>,
}

impl SimulatedHost {
    pub fn new(description: HostDescription, options: SimulatedOptions) -> Self {
        SimulatedHost::with_snapshots(description, options, Arc::default())
    }

    /// One whose volumes are made of these snapshots, and whose own go there.
    pub fn with_snapshots(
        description: HostDescription,
        options: SimulatedOptions,
        snapshots: Arc<MemorySnapshots>,
    ) -> Self {
        SimulatedHost {
            shared: Arc::new(Shared {
                description,
                options,
                snapshots,
                state: Mutex::default(),
                observations: Observations::default(),
                sooner: Notify::new(),
            }),
        }
    }

    /// Every start of this instance fails with the message, until `launch_again`.
    pub fn fail_launch(&self, instance_id: &Id, message: &str) {
        self.shared.state.lock().launch_faults.insert(instance_id.clone(), message.to_owned());
    }

    pub fn launch_again(&self, instance_id: &Id) {
        self.shared.state.lock().launch_faults.remove(instance_id);
    }

    /// The next `count` starts, whichever instances they are of, fail with the message.
    pub fn fail_next_launches(&self, count: usize, message: &str) {
        self.shared.state.lock().next_launches_fault = (count, message.to_owned());
    }

    /// The next `count` volumes that are to be made or to grow are not, and the message says why.
    pub fn fail_next_volumes(&self, count: usize, message: &str) {
        self.shared.state.lock().next_volumes_fault = (count, message.to_owned());
    }

    /// The data of a volume is gone. False where it was not here.
    pub fn lose_volume(&self, volume_id: &Id) -> bool {
        let mut state = self.shared.state.lock();
        let was_here = state.volumes.remove(volume_id).is_some();
        if was_here {
            state.failed_volumes.insert(volume_id.clone(), VolumeState::Lost);
            self.shared.observations.tell_volume(volume_id, VolumeState::Lost);
        }
        was_here
    }

    /// The volumes whose data is here.
    pub fn volumes(&self) -> Vec<Id> {
        self.shared.state.lock().volumes.keys().cloned().collect()
    }

    /// The guest powers itself off. False where it does not run.
    pub fn power_off_guest(&self, instance_id: &Id) -> bool {
        self.end_by_itself(instance_id, StopCause::Guest)
    }

    /// The machine is gone without being asked. False where it does not run.
    pub fn lose_instance(&self, instance_id: &Id, message: &str) -> bool {
        self.end_by_itself(instance_id, StopCause::Lost { message: message.to_owned() })
    }

    fn end_by_itself(&self, instance_id: &Id, cause: StopCause) -> bool {
        let mut state = self.shared.state.lock();
        let Some(instance) = state.instances.get_mut(instance_id) else { return false };
        let Actual::Running { boot } = instance.actual else { return false };
        let asked = instance.doing.take().is_some();
        instance.actual = Actual::Stopped { boot, cause: if asked { StopCause::Asked } else { cause } };
        self.advance(&mut state, instance_id);
        true
    }

    /// The host loses power: its guests end, the link to control ends, and what control says falls on deaf ears
    /// until `restore`.
    pub fn lose(&self) {
        let mut state = self.shared.state.lock();
        state.lost = true;
        state.due.clear();
        state.instances.retain(|_, instance| instance.actual != Actual::Absent);
        // Told to nobody until somebody observes again.
        let observations = &self.shared.observations;
        observations.reset();
        for (id, volume) in &state.volumes {
            observations.tell_volume(id, VolumeState::Ready { size_gib: volume.size_gib });
        }
        for (id, instance) in &mut state.instances {
            if let Actual::Running { boot } = instance.actual {
                let message = "The host lost power".to_owned();
                instance.actual = Actual::Stopped { boot, cause: StopCause::Lost { message } };
            }
            instance.doing = None;
            let (boot, observed) = observation(instance.wanted, &instance.actual);
            observations.tell_at_rest(id, boot, observed, None, instance.observed_devices());
        }
        self.shared.sooner.notify_one();
    }

    /// Back after `lose`: control is expected to observe and to replace, as after any restart of a host.
    pub fn restore(&self) {
        self.shared.state.lock().lost = false;
    }

    /// What the checks of a running instance find from now on; they pass until told otherwise.
    pub fn find_status(&self, instance_id: &Id, checks: StatusChecks) {
        let state = self.shared.state.lock();
        if let Some(Actual::Running { boot }) = state.instances.get(instance_id).map(|found| &found.actual) {
            self.shared.observations.tell_checks(instance_id, *boot, checks);
        }
    }

    /// How many guests run.
    pub fn running(&self) -> usize {
        let state = self.shared.state.lock();
        state.instances.values().filter(|instance| matches!(instance.actual, Actual::Running { .. })).count()
    }

    fn apply_change(&self, state: &mut State, change: Change) {
        match change {
            Change::PutInstance(instance) => self.put_instance(state, &instance),
            Change::RemoveInstance(id) => self.remove_instance(state, &id),
            Change::PutVolume(volume) => self.put_volume(state, &volume),
            Change::RemoveVolume(id) => {
                state.volumes.remove(&id);
                state.failed_volumes.remove(&id);
                self.shared.observations.tell_volume(&id, VolumeState::Removed);
            }
            Change::PutVpc(_)
            | Change::RemoveVpc(_)
            | Change::PutSecurityGroup(_)
            | Change::RemoveSecurityGroup(_)
            | Change::PutPublicPool(_)
            | Change::RemovePublicPool(_) => {}
        }
    }

    fn put_volume(&self, state: &mut State, desired: &Volume) {
        let had = state.volumes.get(&desired.volume_id);
        let fault = match had {
            // What a restart has taken is made anew, what a fault has taken is not.
            None if desired.made
                && state.failed_volumes.get(&desired.volume_id) == Some(&VolumeState::Lost) =>
            {
                Some(VolumeState::Lost)
            }
            // Its data comes from where it was.
            None if desired.made => None,
            Some(had) if had.size_gib >= desired.size_gib => None,
            _ => take(&mut state.next_volumes_fault).map(|message| VolumeState::Failed { message }),
        };
        if let Some(told) = fault {
            if had.is_none() {
                state.failed_volumes.insert(desired.volume_id.clone(), told.clone());
            }
            return self.shared.observations.tell_volume(&desired.volume_id, told);
        }
        state.failed_volumes.remove(&desired.volume_id);
        let volume = state.volumes.entry(desired.volume_id.clone()).or_insert_with(|| {
            let made_of = |id: &Id| self.shared.snapshots.blocks(id);
            SimulatedVolume {
                size_gib: 0,
                blocks: desired.snapshot_id.as_ref().map(made_of).unwrap_or_default(),
            }
        });
        // An older desire, which comes late, is smaller.
        volume.size_gib = volume.size_gib.max(desired.size_gib);
        let ready = VolumeState::Ready { size_gib: volume.size_gib };
        self.shared.observations.tell_volume(&desired.volume_id, ready);
    }

    fn put_instance(&self, state: &mut State, desired: &Instance) {
        let instance = state.instances.entry(desired.instance_id.clone()).or_insert_with(|| Simulated {
            wanted: None,
            request_id: None,
            generation: 0,
            instance_type: "".into(),
            devices: Box::default(),
            uefi_variables: desired.machine.uefi_variables.as_slice().into(),
            actual: Actual::Absent,
            doing: None,
        });
        if desired.generation < instance.generation {
            return;
        }
        instance.generation = desired.generation;
        let wanted = Some(Wanted { power: desired.power, boot: desired.boot });
        if std::mem::replace(&mut instance.wanted, wanted) != wanted {
            instance.request_id = desired.request_id.as_deref().map(Into::into);
        }
        if *instance.instance_type != *desired.machine.instance_type {
            instance.instance_type = desired.machine.instance_type.as_str().into();
        }
        let disks = desired.disks.iter().map(|disk| (&disk.volume_id, disk.detach));
        // The primary interface is there for as long as the machine runs.
        let interfaces = desired.interfaces.iter().skip(1);
        let interfaces = interfaces.map(|own| (&own.network.interface_id, own.detach));
        let devices = disks.chain(interfaces).map(|(id, detach)| (id.clone(), detach.is_some()));
        if !instance.devices.iter().cloned().eq(devices.clone()) {
            instance.devices = devices.collect();
        }
        self.advance(state, &desired.instance_id);
    }

    /// What is not here is said to be removed all the same: control may not know that it is.
    fn remove_instance(&self, state: &mut State, id: &Id) {
        match state.instances.get_mut(id) {
            Some(instance) => {
                instance.request_id = None;
                instance.wanted = None;
                self.advance(state, id);
            }
            None => self.shared.observations.tell_instance(id, 0, InstanceObservation::Removed),
        }
    }

    /// Takes an instance as far towards what is wanted as goes without waiting.
    fn advance(&self, state: &mut State, id: &Id) {
        loop {
            let State { instances, last_ticket, .. } = &mut *state;
            let Some(instance) = instances.get_mut(id) else { return };
            if instance.doing.is_some() {
                return;
            }
            let step = next_step(instance.wanted, &instance.actual);
            if step == Step::Rest {
                return self.rest(state, id);
            }
            *last_ticket += 1;
            let ticket = *last_ticket;
            instance.doing = Some((step, ticket));
            let request_id = instance.request_id.as_deref();
            tracing::debug!(instance_id = %id, request_id, ?step, "simulated step");
            if let Step::Start { boot } = step {
                self.shared.observations.tell_instance(id, boot, InstanceObservation::Preparing);
            }
            let delay = match step {
                Step::Start { .. } => self.shared.options.start,
                Step::Shutdown(Why::Stop | Why::Reboot) => self.shared.options.shutdown,
                Step::End | Step::Forget | Step::Rest => self.shared.options.end,
            };
            if !delay.is_zero() {
                return self.schedule(state, Instant::now() + delay, ticket, id);
            }
            state.carry_out(id, ticket);
        }
    }

    fn rest(&self, state: &mut State, id: &Id) {
        let Some(instance) = state.instances.get_mut(id) else { return };
        let (boot, observed) = observation(instance.wanted, &instance.actual);
        let devices = instance.observed_devices();
        if let Some(request_id) = instance.request_id.take() {
            tracing::debug!(instance_id = %id, request_id = &*request_id, ?observed, "simulated");
        }
        if observed == InstanceObservation::Removed {
            state.instances.remove(id);
        }
        let checks = (observed == InstanceObservation::Running).then_some(ALL_PASSED);
        self.shared.observations.tell_at_rest(id, boot, observed, checks, devices);
    }

    fn schedule(&self, state: &mut State, at: Instant, ticket: u64, id: &Id) {
        let is_sooner = state.due.peek().is_none_or(|Reverse((first, ..))| at < *first);
        state.due.push(Reverse((at, ticket, id.clone())));
        if !state.timer_runs {
            state.timer_runs = true;
            tokio::spawn(self.clone().run_timer());
        } else if is_sooner {
            self.shared.sooner.notify_one();
        }
    }

    /// Ends with the last thing that is due.
    async fn run_timer(self) {
        loop {
            let next = {
                let mut state = self.shared.state.lock();
                let now = Instant::now();
                while let Some(Reverse((at, ..))) = state.due.peek() {
                    if *at > now {
                        break;
                    }
                    let Some(Reverse((_, ticket, id))) = state.due.pop() else { break };
                    if state.carry_out(&id, ticket) {
                        self.advance(&mut state, &id);
                    }
                }
                let next = state.due.peek().map(|Reverse((at, ..))| *at);
                state.timer_runs = next.is_some();
                next
            };
            let Some(next) = next else { return };
            tokio::select! {
                // In order, not by chance: a seed replays.
                biased;
                () = tokio::time::sleep_until(next) => {}
                () = self.shared.sooner.notified() => {}
            }
        }
    }
}

impl Simulated {
    /// Guests let go of what they have at once.
    fn observed_devices(&self) -> Vec<ObservedDevice> {
        let is_running = matches!(self.actual, Actual::Running { .. });
        let observed = self.devices.iter().filter_map(|(device_id, leaves)| {
            let state = match leaves {
                true => PlugState::Detached,
                false if is_running => PlugState::Attached,
                false => return None,
            };
            Some(ObservedDevice { device_id: device_id.clone(), state })
        });
        let mut observed: Vec<_> = observed.collect();
        // There may be very many instances, and most have one disk.
        observed.shrink_to_fit();
        observed
    }
}

impl State {
    /// Ends the step that the ticket stands for; false where it is no longer under way.
    fn carry_out(&mut self, id: &Id, ticket: u64) -> bool {
        let Some(instance) = self.instances.get_mut(id) else { return false };
        let Some((step, _)) = instance.doing.take_if(|(_, current)| *current == ticket) else { return false };
        let actual = std::mem::replace(&mut instance.actual, Actual::Absent);
        let after = match (step, actual) {
            (Step::Start { boot }, _) => match self.launch_fault(id) {
                Some(message) => Actual::Failed { boot, message },
                None => Actual::Running { boot },
            },
            (Step::Shutdown(_) | Step::End, Actual::Running { boot }) => {
                Actual::Stopped { boot, cause: StopCause::Asked }
            }
            (Step::Forget, _) => Actual::Absent,
            (Step::Shutdown(_) | Step::End | Step::Rest, actual) => actual,
        };
        if let Some(instance) = self.instances.get_mut(id) {
            instance.actual = after;
        }
        true
    }

    fn launch_fault(&mut self, id: &Id) -> Option<String> {
        if let Some(message) = self.launch_faults.get(id) {
            return Some(message.clone());
        }
        let disks = self.instances.get(id).into_iter().flat_map(|instance| &instance.devices);
        match disks.into_iter().find_map(|(volume_id, _)| self.failed_volumes.get_key_value(volume_id)) {
            Some((_, VolumeState::Failed { message })) => Some(message.clone()),
            Some((volume_id, _)) => Some(format!("The data of the volume {volume_id} is gone")),
            None => take(&mut self.next_launches_fault),
        }
    }
}

/// The message of a fault that is left for so many times.
fn take((left, message): &mut (usize, String)) -> Option<String> {
    *left = left.checked_sub(1)?;
    Some(message.clone())
}

#[async_trait]
impl HostAgent for SimulatedHost {
    fn describe(&self) -> HostDescription {
        self.shared.description.clone()
    }

    async fn replace(&self, desired: Desired) {
        let mut state = self.shared.state.lock();
        if state.lost {
            return;
        }
        let undesired = |id: &&Id| !desired.instances.contains_key(*id);
        let gone: Vec<Id> = state.instances.keys().filter(undesired).cloned().collect();
        for id in gone {
            self.remove_instance(&mut state, &id);
        }
        let undesired = |id: &&Id| !desired.volumes.contains_key(*id);
        let gone: Vec<Id> = state.volumes.keys().filter(undesired).cloned().collect();
        for id in gone {
            self.apply_change(&mut state, Change::RemoveVolume(id));
        }
        for volume in desired.volumes.into_values() {
            self.apply_change(&mut state, Change::PutVolume(volume));
        }
        for instance in desired.instances.into_values() {
            self.put_instance(&mut state, &instance);
        }
    }

    async fn apply(&self, changes: Vec<Change>) {
        let mut state = self.shared.state.lock();
        if state.lost {
            return;
        }
        for change in changes {
            self.apply_change(&mut state, change);
        }
    }

    fn observe(&self) -> UnboundedReceiver<Observation> {
        if self.shared.state.lock().lost {
            // Nobody at the other end.
            return unbounded_channel().1;
        }
        self.shared.observations.observe()
    }

    async fn create_snapshots(&self, snapshots: Vec<NewSnapshot>) -> Result<(), HostError> {
        let state = self.shared.state.lock();
        if state.lost {
            return Err(HostError::Failed("The host does not answer".into()));
        }
        let volume = |new: &NewSnapshot| {
            let volume = state.volumes.get(&new.volume_id);
            volume.ok_or_else(|| HostError::NotFound(new.volume_id.to_string()))
        };
        let volumes = snapshots.iter().map(volume).collect::<Result<Vec<_>, _>>()?;
        for (new, volume) in snapshots.iter().zip(volumes) {
            self.shared.snapshots.take(&new.snapshot_id, volume.size_gib, volume.blocks.clone());
        }
        Ok(())
    }

    async fn console_output(&self, instance_id: &str) -> Result<Vec<u8>, HostError> {
        let state = self.shared.state.lock();
        let not_found = || HostError::NotFound(instance_id.to_owned());
        let instance = state.instances.get(instance_id).ok_or_else(not_found)?;
        Ok(console_text(&self.shared.description.host_id, instance_id, instance).into_bytes())
    }

    async fn console_screenshot(&self, instance_id: &str) -> Result<Vec<u8>, HostError> {
        let state = self.shared.state.lock();
        match state.instances.get(instance_id).map(|instance| &instance.actual) {
            Some(Actual::Running { .. }) => dark_screen(),
            Some(_) => Err(HostError::Failed(format!("{instance_id} does not run"))),
            None => Err(HostError::NotFound(instance_id.to_owned())),
        }
    }

    /// Nothing has to come from anywhere.
    async fn unfilled_volumes(&self) -> Result<BTreeMap<Id, Unfilled>, HostError> {
        Ok(BTreeMap::new())
    }

    async fn uefi_variables(&self, instance_id: &str) -> Result<Vec<UefiVariable>, HostError> {
        let state = self.shared.state.lock();
        let instance = state.instances.get(instance_id);
        let instance = instance.ok_or_else(|| HostError::NotFound(instance_id.to_owned()))?;
        Ok(instance.uefi_variables.to_vec())
    }
}

/// Says plainly that nothing ran: who reads it may be looking for the traces of their user data.
fn console_text(host_id: &str, instance_id: &str, instance: &Simulated) -> String {
    let (boot, state) = match &instance.actual {
        Actual::Absent => return String::new(),
        Actual::Running { boot } => (boot, "[    0.003000] simulated: running\r\n"),
        Actual::Stopped { boot, .. } => (boot, "[    0.003000] simulated: power down\r\n"),
        Actual::Failed { boot, .. } => (boot, "[    0.003000] simulated: did not start\r\n"),
    };
    format!(
        "[    0.000000] simulated: boot {boot} of {instance_id} ({}) on {host_id}\r\n\
         [    0.001000] simulated: no guest runs on a simulated host, and no user data was executed\r\n{state}",
        instance.instance_type
    )
}

fn dark_screen() -> Result<Vec<u8>, HostError> {
    let (width, height) = (160, 100);
    let mut bytes = Vec::new();
    jpeg::codecs::jpeg::JpegEncoder::new(&mut bytes)
        .encode(&vec![0; width * height], width as u32, height as u32, jpeg::ExtendedColorType::L8)
        .map_err(|error| HostError::Failed(format!("The screen could not be encoded: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
