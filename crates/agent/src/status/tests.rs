//! Checks of instances on driver doubles, with the clock paused.

use super::Checks;
use crate::doubles::Doubles;
use crate::examples;
use crate::network::HostNetwork;
use crate::observations::Observations;
use agent_api::{Check, InstanceObservation, Observation, StatusChecks};
use datapath::Plan;
use host::machine::{EndCause, Found, FoundState, Status};
use model::{Clock, Environment, Id, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

const START: Timestamp = Timestamp::constant(1_700_000_000, 0);
const PERIOD: Duration = Duration::from_secs(60);

/// Goes with the runtime's time, which these tests pause.
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        START.saturating_add(self.0.elapsed()).unwrap()
    }
}

struct Room {
    doubles: Arc<Doubles>,
    checks: Arc<Checks>,
    observations: Arc<Observations>,
    told: UnboundedReceiver<Observation>,
}

impl Room {
    /// With so many instances, which run.
    fn new(instances: u32) -> Room {
        let (doubles, observations) = (Doubles::new(), Arc::new(Observations::default()));
        let (environment, _) = Environment::seeded(1, START);
        let environment = Environment { clock: Arc::new(RuntimeClock(Instant::now())), ..environment };
        let network = HostNetwork::new(doubles.clone());
        let checks = Checks::new(doubles.clone(), network, observations.clone(), environment, PERIOD);
        let mut plan = Plan::default();
        for instance in (1..=instances).map(examples::instance) {
            let (instance_id, interface) = (instance.instance_id.clone(), &instance.interfaces[0]);
            let found = Found { instance_id: instance_id.clone(), boot: 1, state: FoundState::Running };
            doubles.machines.lock().insert(instance_id.clone(), found);
            plan.interfaces.push(interface.network.clone());
            observations.tell_instance(&instance_id, 1, InstanceObservation::Running);
        }
        *doubles.plan.lock() = Some(plan);
        tokio::spawn(checks.clone().run());
        Room { doubles, checks, told: observations.observe(), observations }
    }

    fn started(&self, number: u32) {
        self.checks.started(&examples::instance(number));
    }

    /// What is found of the first instance, each time something else, within so many seconds.
    async fn found(&mut self, seconds: u64) -> Vec<StatusChecks> {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let checks = |observation| match observation {
            Observation::Instance(observed) => observed.checks,
            Observation::Volume { .. } => None,
        };
        std::iter::from_fn(|| self.told.try_recv().ok()).filter_map(checks).collect()
    }

    fn interface(&self) -> Id {
        examples::instance(1).interfaces[0].network.interface_id.clone()
    }

    fn instance(&self) -> Id {
        examples::instance(1).instance_id
    }
}

const PASSED: StatusChecks =
    StatusChecks { system: Check::Passed, instance: Check::Passed, attached_ebs: Check::Passed };

fn is_failed(check: Check) -> bool {
    matches!(check, Check::Failed { .. })
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_initializing_until_it_answers_and_impaired_while_it_does_not() {
    let mut room = Room::new(1);
    room.doubles.silent.lock().insert(room.interface());
    room.started(1);
    let starting = StatusChecks { instance: Check::Initializing, ..PASSED };
    assert_eq!(room.found(40).await, [starting]);
    room.doubles.silent.lock().clear();
    assert_eq!(room.found(6).await, [PASSED], "known soon after it answers");
    assert_eq!(room.found(3600).await, [], "what stays as it is is not told");

    room.doubles.silent.lock().insert(room.interface());
    let silent_at = START.saturating_add(Duration::from_secs(3646)).unwrap();
    assert_eq!(room.found(59).await, [], "one failure is none");
    let found = room.found(62).await;
    let [StatusChecks { system: Check::Passed, instance: Check::Failed { since }, .. }] = found[..] else {
        panic!("{found:?}");
    };
    assert!((0..=61).contains(&since.timestamp().duration_since(silent_at).as_secs()), "{since:?}");
    assert_eq!(room.found(600).await, [], "since when does not move");
    room.doubles.silent.lock().clear();
    assert_eq!(room.found(61).await, [PASSED]);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_answers_is_impaired_since_its_start() {
    let mut room = Room::new(1);
    room.doubles.silent.lock().insert(room.interface());
    room.started(1);
    room.found(299).await;
    let failed = StatusChecks { instance: Check::Failed { since: START.into() }, ..PASSED };
    assert_eq!(room.found(12).await, [failed]);
}

#[tokio::test(start_paused = true)]
async fn what_its_machine_says_decides_the_other_checks() {
    let (id, mut room) = (examples::instance(1).instance_id, Room::new(1));
    room.started(1);
    assert_eq!(room.found(6).await, [PASSED]);
    for (status, ebs_fails) in [(Status::Halted, false), (Status::Stalled, true)] {
        room.doubles.statuses.lock().insert(id.clone(), status);
        let found = room.found(181).await;
        let [found] = found[..] else { panic!("{found:?}") };
        assert!(is_failed(found.system) && found.instance == Check::Passed, "{found:?}");
        assert_eq!(is_failed(found.attached_ebs), ebs_fails, "{found:?}");
        room.doubles.statuses.lock().clear();
        assert_eq!(room.found(61).await, [PASSED]);
    }
    // The host's own network does not reach it.
    *room.doubles.plan.lock() = Some(Plan::default());
    let found = room.found(181).await;
    assert!(is_failed(found[0].system) && is_failed(found[0].instance), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn of_what_ran_before_us_nothing_is_told_until_it_is_known() {
    let mut room = Room::new(1);
    room.doubles.silent.lock().insert(room.interface());
    room.checks.runs(&examples::instance(1), 1);
    room.checks.runs(&examples::instance(1), 1);
    assert_eq!(room.found(5).await, [], "it may well have been passing");
    let found = room.found(121).await;
    assert!(found.len() == 1 && is_failed(found[0].instance), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn what_ends_is_looked_at_no_more() {
    let mut room = Room::new(1);
    room.started(1);
    assert_eq!(room.found(6).await, [PASSED]);
    room.doubles.end_by_itself(&room.instance(), EndCause::Guest);
    assert_eq!(room.found(600).await, [], "an end is no failure");
    room.checks.rests(&room.instance());
    room.found(60).await;
    room.doubles.asked.lock().clear();
    assert_eq!(room.found(600).await, []);
    assert_eq!(room.doubles.asked.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_are_looked_at_once_a_period_each_and_never_all_at_once() {
    let mut room = Room::new(1000);
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    (1..=1000).for_each(|number| room.started(number));
    room.found(3 * PERIOD.as_secs()).await;
    room.doubles.asked.lock().clear();
    room.found(PERIOD.as_secs()).await;
    let asked = std::mem::take(&mut *room.doubles.asked.lock());
    assert!((990..=1010).contains(&asked.len()), "{}", asked.len());
    let mut seconds = BTreeMap::new();
    let first = asked[0];
    asked.iter().for_each(|at| *seconds.entry((*at - first).as_secs()).or_insert(0) += 1);
    assert!(seconds.values().all(|looks| *looks < 50), "{seconds:?}");
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), tasks, "one task for all");
    drop(room.observations);
}
