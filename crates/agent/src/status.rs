//! Status checks of the instances that run here (EC2 User Guide, "Status checks for Amazon EC2 instances"): is its
//! machine well, do its volumes work, does the guest answer on its network.
//!
//! ```text
//!   runs ─▶ due ──▶ QEMU: status? ─────────┬▶ series of each check ─▶ told where it has changed
//!            ▲      guest: who has …? (ARP) ┘            │
//!            └──────────────── a period later ◀──────────┘
//! ```
//!
//! Invariants: one task for all; an instance is looked at by no more than one check at a time; checks of many are
//! spread over the period; what the check of an earlier boot finds is told of none.

mod series;
#[cfg(test)]
mod tests;

use crate::network::HostNetwork;
use crate::observations::Observations;
use agent_api::{Check, Instance, StatusChecks};
use futures::StreamExt;
use futures::future::join;
use futures::stream::FuturesUnordered;
use host::machine::{Hypervisor, MachineError, Status};
use model::{Environment, Id, Timestamp};
use parking_lot::Mutex;
use series::Series;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// One that is starting is looked at so many times in a period, so that it is known to have started soon after.
const LOOKS_AT_START: u32 = 12;
const LOOK_MIN: Duration = Duration::from_secs(1);
/// No snapshot keeps a guest from running for so long.
const PAUSED_FOR: Duration = Duration::from_secs(2);

pub(crate) struct Checks {
    hypervisor: Arc<dyn Hypervisor>,
    network: Arc<HostNetwork>,
    observations: Arc<Observations>,
    environment: Environment,
    period: Duration,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    running: HashMap<Id, Subject>,
    /// When those that are not being looked at are to be.
    due: BTreeSet<(Instant, Id)>,
}

struct Subject {
    boot: u64,
    /// The primary one.
    interface_id: Option<Id>,
    started: Timestamp,
    /// None while it is looked at.
    due: Option<Instant>,
    /// Looked at once a period.
    is_settled: bool,
    system: Series,
    instance: Series,
    attached_ebs: Series,
}

/// What one look has found.
struct Findings {
    system: bool,
    instance: bool,
    attached_ebs: bool,
}

impl Checks {
    pub(crate) fn new(
        hypervisor: Arc<dyn Hypervisor>,
        network: Arc<HostNetwork>,
        observations: Arc<Observations>,
        environment: Environment,
        period: Duration,
    ) -> Arc<Checks> {
        let (state, wake) = Default::default();
        Arc::new(Checks { hypervisor, network, observations, environment, period, state, wake })
    }

    /// Its machine has just been started.
    pub(crate) fn started(&self, instance: &Instance) {
        self.look_after(instance, instance.boot, Series::OF_NEW);
    }

    /// It runs, since just now or since before us.
    pub(crate) fn runs(&self, instance: &Instance, boot: u64) {
        let is_known = {
            let mut state = self.state.lock();
            let known = state.running.get_mut(&instance.instance_id).filter(|known| known.boot == boot);
            known.map(|known| known.interface_id = primary_interface(instance)).is_some()
        };
        if !is_known {
            self.look_after(instance, boot, Series::OF_FOUND);
        }
    }

    /// It is being ended, or has.
    pub(crate) fn rests(&self, instance_id: &Id) {
        self.state.lock().remove(instance_id);
    }

    fn look_after(&self, instance: &Instance, boot: u64, first: Series) {
        let mut state = self.state.lock();
        state.remove(&instance.instance_id);
        let subject = Subject {
            boot,
            interface_id: primary_interface(instance),
            started: self.environment.clock.now(),
            due: None,
            is_settled: false,
            system: first,
            instance: first,
            attached_ebs: first,
        };
        state.running.insert(instance.instance_id.clone(), subject);
        state.plan(&instance.instance_id, Instant::now() + self.random_part_of(self.look_at_start()));
        self.wake.notify_one();
    }

    fn look_at_start(&self) -> Duration {
        (self.period / LOOKS_AT_START).max(LOOK_MIN)
    }

    fn random_part_of(&self, whole: Duration) -> Duration {
        whole.mul_f64((self.environment.random.u64() >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// Looks after all that run. Never ends by itself.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut looks = FuturesUnordered::new();
        loop {
            let next = {
                let mut state = self.state.lock();
                let now = Instant::now();
                while let Some((instance_id, boot, interface_id)) = state.take_due(now) {
                    looks.push(self.look_at(instance_id, boot, interface_id));
                }
                state.due.first().map(|(at, _)| *at)
            };
            let until_next = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(()) = looks.next(), if !looks.is_empty() => {}
                () = self.wake.notified() => {}
                () = until_next => {}
            }
        }
    }

    async fn look_at(&self, instance_id: Id, boot: u64, interface_id: Option<Id>) {
        let found = self.find(&instance_id, interface_id.as_ref()).await;
        let mut state = self.state.lock();
        let Some(subject) = state.running.get_mut(&instance_id).filter(|subject| subject.boot == boot) else {
            return;
        };
        if let Some(found) = found {
            subject.take_in(&found, self.environment.clock.now());
            if let Some(checks) = subject.told() {
                self.observations.tell_checks(&instance_id, boot, checks);
            }
        }
        let pause = if subject.is_starting() {
            self.look_at_start()
        } else if !std::mem::replace(&mut subject.is_settled, true) {
            // From here on all have the same period, each its own time in it.
            self.random_part_of(self.period)
        } else {
            self.period
        };
        state.plan(&instance_id, Instant::now() + pause);
    }

    /// One that is paused while a snapshot is taken is asked again.
    async fn status(&self, instance_id: &Id) -> Result<Status, MachineError> {
        match self.hypervisor.status(instance_id).await {
            Ok(Status::Paused) => {
                tokio::time::sleep(PAUSED_FOR).await;
                self.hypervisor.status(instance_id).await
            }
            status => status,
        }
    }

    /// None where there is nothing to be found: the machine starts or ends.
    async fn find(&self, instance_id: &Id, interface_id: Option<&Id>) -> Option<Findings> {
        let answer = async {
            match interface_id {
                Some(interface_id) => self.network.driver().guest_answers(interface_id).await,
                None => Ok(true),
            }
        };
        let (status, answer) = join(self.status(instance_id), answer).await;
        match status {
            Ok(Status::Prelaunch | Status::PoweredOff) | Err(MachineError::NotFound(_)) => return None,
            Ok(_) => {}
            Err(ref error) => {
                tracing::debug!(%instance_id, error = error as &dyn std::error::Error, "no status");
            }
        }
        let reached = answer.is_ok();
        let instance = answer.unwrap_or_else(|error| {
            tracing::warn!(%instance_id, error = &error as &dyn std::error::Error, "guest not asked");
            false
        });
        Some(Findings {
            system: matches!(status, Ok(Status::Runs)) && reached,
            instance,
            // A machine that says nothing writes nothing either.
            attached_ebs: matches!(status, Ok(Status::Runs | Status::Paused | Status::Halted)),
        })
    }
}

fn primary_interface(instance: &Instance) -> Option<Id> {
    let primary = instance.interfaces.iter().find(|interface| interface.is_primary());
    primary.map(|interface| interface.network.interface_id.clone())
}

impl State {
    fn plan(&mut self, instance_id: &Id, at: Instant) {
        if let Some(subject) = self.running.get_mut(instance_id) {
            subject.due = Some(at);
            self.due.insert((at, instance_id.clone()));
        }
    }

    fn take_due(&mut self, now: Instant) -> Option<(Id, u64, Option<Id>)> {
        let (_, instance_id) =
            self.due.first().is_some_and(|(at, _)| *at <= now).then(|| self.due.pop_first())??;
        let subject = self.running.get_mut(&instance_id)?;
        subject.due = None;
        Some((instance_id, subject.boot, subject.interface_id.clone()))
    }

    fn remove(&mut self, instance_id: &Id) {
        if let Some(subject) = self.running.remove(instance_id)
            && let Some(at) = subject.due
        {
            self.due.remove(&(at, instance_id.clone()));
        }
    }
}

impl Subject {
    fn is_starting(&self) -> bool {
        let all = [self.system, self.instance, self.attached_ebs];
        all.iter().any(|series| series.told() == Some(Check::Initializing))
    }

    fn take_in(&mut self, found: &Findings, now: Timestamp) {
        let after = |series: &mut Series, passed| *series = series.after(passed, now, self.started);
        after(&mut self.system, found.system);
        after(&mut self.instance, found.instance);
        after(&mut self.attached_ebs, found.attached_ebs);
    }

    fn told(&self) -> Option<StatusChecks> {
        Some(StatusChecks {
            system: self.system.told()?,
            instance: self.instance.told()?,
            attached_ebs: self.attached_ebs.told()?,
        })
    }
}
