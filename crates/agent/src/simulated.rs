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
use agent_api::{
    Change, Check, Desired, HostAgent, HostDescription, HostError, Instance, InstanceObservation,
    Observation, StatusChecks, StopCause, VolumeState,
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
    state: Mutex<State>,
    observations: Observations,
    /// Something is due earlier than the timer task knows.
    sooner: Notify,
}

#[derive(Default)]
struct State {
    instances: BTreeMap<Id, Simulated>,
    /// Volumes and the generation of each.
    volumes: BTreeMap<Id, u64>,
    due: BinaryHeap<Reverse<(Instant, u64, Id)>>,
    last_ticket: u64,
    timer_runs: bool,
    lost: bool,
    launch_faults: HashMap<Id, String>,
    next_launches_fault: (usize, String),
}

struct Simulated {
    wanted: Option<Wanted>,
    generation: u64,
    instance_type: Box<str>,
    actual: Actual,
    /// The step under way and the ticket that ends it.
    doing: Option<(Step, u64)>,
}

impl SimulatedHost {
    pub fn new(description: HostDescription, options: SimulatedOptions) -> Self {
        SimulatedHost {
            shared: Arc::new(Shared {
                description,
                options,
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
        state.volumes.keys().for_each(|id| observations.tell_volume(id, VolumeState::Ready));
        for (id, instance) in &mut state.instances {
            if let Actual::Running { boot } = instance.actual {
                let message = "The host lost power".to_owned();
                instance.actual = Actual::Stopped { boot, cause: StopCause::Lost { message } };
            }
            instance.doing = None;
            let (boot, observed) = observation(instance.wanted, &instance.actual);
            observations.tell_instance(id, boot, observed);
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
            Change::PutVolume(volume) => {
                let generation = volume.generation;
                let is_new = state.volumes.insert(volume.volume_id.clone(), generation).is_none();
                if is_new {
                    self.shared.observations.tell_volume(&volume.volume_id, VolumeState::Ready);
                }
            }
            Change::RemoveVolume(id) => {
                state.volumes.remove(&id);
                self.shared.observations.tell_volume(&id, VolumeState::Removed);
            }
            Change::PutVpc(_)
            | Change::RemoveVpc(_)
            | Change::PutSecurityGroup(_)
            | Change::RemoveSecurityGroup(_) => {}
        }
    }

    fn put_instance(&self, state: &mut State, desired: &Instance) {
        let instance = state.instances.entry(desired.instance_id.clone()).or_insert_with(|| Simulated {
            wanted: None,
            generation: 0,
            instance_type: "".into(),
            actual: Actual::Absent,
            doing: None,
        });
        if desired.generation < instance.generation {
            return;
        }
        instance.generation = desired.generation;
        instance.wanted = Some(Wanted { power: desired.power, boot: desired.boot });
        if *instance.instance_type != *desired.machine.instance_type {
            instance.instance_type = desired.machine.instance_type.as_str().into();
        }
        self.advance(state, &desired.instance_id);
    }

    /// What is not here is said to be removed all the same: control may not know that it is.
    fn remove_instance(&self, state: &mut State, id: &Id) {
        match state.instances.get_mut(id) {
            Some(instance) => {
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
        let Some(instance) = state.instances.get(id) else { return };
        let (boot, observed) = observation(instance.wanted, &instance.actual);
        match observed {
            InstanceObservation::Running => self.shared.observations.tell_running(id, boot, ALL_PASSED),
            observed => {
                if observed == InstanceObservation::Removed {
                    state.instances.remove(id);
                }
                self.shared.observations.tell_instance(id, boot, observed);
            }
        }
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
                () = tokio::time::sleep_until(next) => {}
                () = self.shared.sooner.notified() => {}
            }
        }
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
        let (left, message) = &mut self.next_launches_fault;
        *left = left.checked_sub(1)?;
        Some(message.clone())
    }
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
        for id in &gone {
            self.remove_instance(&mut state, id);
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
mod tests {
    use super::*;
    use crate::examples;
    use agent_api::{Architecture, Power};

    fn host(options: SimulatedOptions) -> SimulatedHost {
        SimulatedHost::new(examples::host_description(), options)
    }

    fn put(instance: Instance) -> Vec<Change> {
        vec![Change::PutInstance(Box::new(instance))]
    }

    fn told(observations: &mut UnboundedReceiver<Observation>) -> Vec<(u64, InstanceObservation)> {
        std::iter::from_fn(|| observations.try_recv().ok())
            .filter_map(|observation| match observation {
                Observation::Instance(observed) => Some((observed.boot, observed.state)),
                Observation::Volume { .. } => None,
            })
            .collect()
    }

    async fn next(observations: &mut UnboundedReceiver<Observation>) -> (u64, InstanceObservation) {
        match observations.recv().await {
            Some(Observation::Instance(observed)) => (observed.boot, observed.state),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_takes_its_time() {
        let host = host(SimulatedOptions {
            start: Duration::from_secs(20),
            shutdown: Duration::from_secs(5),
            end: Duration::ZERO,
        });
        let mut observations = host.observe();
        let mut instance = examples::instance(1);
        host.apply(put(instance.clone())).await;
        assert_eq!(told(&mut observations), [(1, InstanceObservation::Preparing)]);
        let began = Instant::now();
        assert_eq!(next(&mut observations).await, (1, InstanceObservation::Running));
        assert_eq!(began.elapsed().as_secs(), 20);
        instance.boot = 2;
        host.apply(put(instance.clone())).await;
        assert_eq!(next(&mut observations).await, (2, InstanceObservation::Preparing));
        assert_eq!(next(&mut observations).await, (2, InstanceObservation::Running));
        assert_eq!(began.elapsed().as_secs(), 45);
        instance.power = Power::Off;
        host.apply(put(instance.clone())).await;
        assert_eq!(next(&mut observations).await, (2, InstanceObservation::Stopped(StopCause::Asked)));
        host.apply(vec![Change::RemoveInstance(instance.instance_id.clone())]).await;
        assert_eq!(next(&mut observations).await, (0, InstanceObservation::Removed));
        assert!(host.console_output(&instance.instance_id).await.is_err());
    }

    #[tokio::test]
    async fn at_once_doubled_and_late_messages_do_no_harm() {
        let host = host(SimulatedOptions::immediate());
        let mut observations = host.observe();
        let mut instance = examples::instance(1);
        instance.generation = 5;
        host.apply(put(instance.clone())).await;
        host.apply(put(instance.clone())).await;
        let started = [(1, InstanceObservation::Preparing), (1, InstanceObservation::Running)];
        assert_eq!(told(&mut observations), started);
        instance.generation = 4;
        instance.power = Power::OffForced;
        host.apply(put(instance.clone())).await;
        assert_eq!(told(&mut observations), []);
        let id = instance.instance_id.clone();
        host.apply(vec![Change::RemoveInstance(id.clone()), Change::RemoveInstance(id)]).await;
        let removed = (0, InstanceObservation::Removed);
        assert_eq!(told(&mut observations), [removed.clone(), removed]);
    }

    #[tokio::test]
    async fn a_new_observer_is_told_all_and_the_old_one_ends() {
        let host = host(SimulatedOptions::immediate());
        let mut first = host.observe();
        let mut desired = Desired::default();
        for number in 1..=3 {
            let instance = examples::instance(number);
            desired.instances.insert(instance.instance_id.clone(), instance);
        }
        desired.volumes.insert(examples::volume(1).volume_id, examples::volume(1));
        host.replace(desired.clone()).await;
        let mut second = host.observe();
        assert!(matches!(second.try_recv(), Ok(Observation::Volume { state: VolumeState::Ready, .. })));
        assert_eq!(told(&mut second), vec![(1, InstanceObservation::Running); 3]);
        while first.recv().await.is_some() {}
        desired.instances.pop_last();
        host.replace(desired).await;
        assert_eq!(told(&mut second), [(0, InstanceObservation::Removed)]);
        assert_eq!(host.running(), 2);
    }

    #[tokio::test]
    async fn faults_are_told_and_a_higher_boot_starts_again() {
        let host = host(SimulatedOptions::immediate());
        let mut observations = host.observe();
        let mut instance = examples::instance(1);
        host.fail_next_launches(1, "No memory");
        host.apply(put(instance.clone())).await;
        let failed = InstanceObservation::Failed { message: "No memory".into() };
        assert_eq!(told(&mut observations), [(1, InstanceObservation::Preparing), (1, failed)]);
        instance.boot = 2;
        host.apply(put(instance.clone())).await;
        assert!(host.power_off_guest(&instance.instance_id));
        let guest = InstanceObservation::Stopped(StopCause::Guest);
        assert_eq!(told(&mut observations).last(), Some(&(2, guest)));
        host.apply(put(instance.clone())).await;
        assert_eq!(told(&mut observations), [], "what ended by itself stays so");
        assert!(!host.lose_instance(&instance.instance_id, "killed"));
    }

    #[tokio::test]
    async fn a_lost_host_is_silent_and_comes_back_with_its_guests_gone() {
        let host = host(SimulatedOptions::immediate());
        let mut observations = host.observe();
        let instance = examples::instance(1);
        host.apply(put(instance.clone())).await;
        host.lose();
        told(&mut observations);
        assert!(observations.recv().await.is_none());
        host.apply(put(examples::instance(2))).await;
        host.restore();
        let mut observations = host.observe();
        let [(1, InstanceObservation::Stopped(StopCause::Lost { .. }))] = &told(&mut observations)[..] else {
            panic!("the instance is not told to be lost");
        };
    }

    #[tokio::test]
    async fn the_console_says_that_it_is_simulated() {
        let host = host(SimulatedOptions::immediate());
        let instance = examples::instance(1);
        host.apply(put(instance.clone())).await;
        let console = host.console_output(&instance.instance_id).await.unwrap();
        assert!(String::from_utf8(console).unwrap().contains("no guest runs on a simulated host"));
        let screen = host.console_screenshot(&instance.instance_id).await.unwrap();
        let image = jpeg::load_from_memory_with_format(&screen, jpeg::ImageFormat::Jpeg).unwrap();
        assert_eq!((image.width(), image.height()), (160, 100));
        assert_eq!(host.describe().architecture, Architecture::X86_64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_thousand_instances_need_one_timer() {
        let host = host(SimulatedOptions::default());
        let mut observations = host.observe();
        let changes = (0..100_000).map(|number| Change::PutInstance(Box::new(examples::instance(number))));
        host.apply(changes.collect()).await;
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
        let mut running = 0;
        while running < 100_000 {
            running += usize::from(next(&mut observations).await.1 == InstanceObservation::Running);
        }
        tokio::task::yield_now().await;
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    }
}
