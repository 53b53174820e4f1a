//! What a host has observed, told to whoever listens.
//!
//! Invariants: the latest of every instance and volume is kept until its removal has been told to somebody, so that
//! a new observer begins with all there is and misses nothing; what has not changed is not told again.

use agent_api::{
    InstanceObservation, Observation, ObservedDevice, ObservedInstance, StatusChecks, VolumeState,
};
use model::Id;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

#[derive(Default)]
pub(crate) struct Observations {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    instances: BTreeMap<Id, Latest>,
    volumes: BTreeMap<Id, VolumeState>,
    observer: Option<UnboundedSender<Observation>>,
}

#[derive(Clone, PartialEq)]
struct Latest {
    boot: u64,
    state: InstanceObservation,
    checks: Option<StatusChecks>,
    devices: Vec<ObservedDevice>,
}

impl Observations {
    /// Of an instance that goes on running, what its checks found is still so.
    pub(crate) fn tell_instance(&self, instance_id: &Id, boot: u64, state: InstanceObservation) {
        self.inner.lock().tell_again(instance_id, Latest { boot, state, checks: None, devices: Vec::new() });
    }

    /// The same with its devices; where nothing is known of its checks yet, they have found this.
    pub(crate) fn tell_at_rest(
        &self,
        instance_id: &Id,
        boot: u64,
        state: InstanceObservation,
        checks: Option<StatusChecks>,
        devices: Vec<ObservedDevice>,
    ) {
        self.inner.lock().tell_again(instance_id, Latest { boot, state, checks, devices });
    }

    /// What the checks of a running instance found. Of one that does not run this boot, nothing is to be told.
    pub(crate) fn tell_checks(&self, instance_id: &Id, boot: u64, checks: StatusChecks) {
        let mut inner = self.inner.lock();
        let running = |had: &&Latest| had.boot == boot && had.state == InstanceObservation::Running;
        if let Some(had) = inner.instances.get(instance_id).filter(running) {
            let latest = Latest { checks: Some(checks), ..had.clone() };
            inner.tell_instance(instance_id, latest);
        }
    }

    pub(crate) fn tell_volume(&self, volume_id: &Id, state: VolumeState) {
        let mut inner = self.inner.lock();
        let is_removal = state == VolumeState::Removed;
        if !is_removal && inner.volumes.get(volume_id) == Some(&state) {
            return;
        }
        if inner.tell(of_volume(volume_id, &state)) && is_removal {
            inner.volumes.remove(volume_id);
        } else {
            inner.volumes.insert(volume_id.clone(), state);
        }
    }

    /// Ends the observer before.
    pub(crate) fn observe(&self) -> UnboundedReceiver<Observation> {
        let (sender, receiver) = unbounded_channel();
        let mut inner = self.inner.lock();
        inner.observer = Some(sender);
        for (volume_id, state) in &inner.volumes {
            inner.tell(of_volume(volume_id, state));
        }
        for (instance_id, latest) in &inner.instances {
            inner.tell(of_instance(instance_id, latest));
        }
        inner.volumes.retain(|_, state| *state != VolumeState::Removed);
        inner.instances.retain(|_, latest| latest.state != InstanceObservation::Removed);
        receiver
    }

    /// Ends the observer and forgets all.
    pub(crate) fn reset(&self) {
        *self.inner.lock() = Inner::default();
    }
}

impl Inner {
    fn tell_again(&mut self, instance_id: &Id, latest: Latest) {
        let had = self.instances.get(instance_id);
        let same = had.filter(|had| had.boot == latest.boot && had.state == latest.state);
        let checks = same.and_then(|had| had.checks).or(latest.checks);
        self.tell_instance(instance_id, Latest { checks, ..latest });
    }

    fn tell_instance(&mut self, instance_id: &Id, latest: Latest) {
        let is_removal = latest.state == InstanceObservation::Removed;
        if !is_removal && self.instances.get(instance_id) == Some(&latest) {
            return;
        }
        if self.tell(of_instance(instance_id, &latest)) && is_removal {
            self.instances.remove(instance_id);
        } else {
            self.instances.insert(instance_id.clone(), latest);
        }
    }

    /// Whether there was somebody to hear it.
    fn tell(&self, observation: Observation) -> bool {
        self.observer.as_ref().is_some_and(|observer| observer.send(observation).is_ok())
    }
}

fn of_instance(instance_id: &Id, latest: &Latest) -> Observation {
    Observation::Instance(ObservedInstance {
        instance_id: instance_id.clone(),
        boot: latest.boot,
        state: latest.state.clone(),
        checks: latest.checks,
        devices: latest.devices.clone(),
    })
}

fn of_volume(volume_id: &Id, state: &VolumeState) -> Observation {
    Observation::Volume { volume_id: volume_id.clone(), state: state.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;
    use agent_api::Check;

    const PASSED: StatusChecks =
        StatusChecks { system: Check::Passed, instance: Check::Passed, attached_ebs: Check::Passed };

    #[test]
    fn a_removal_waits_for_somebody_to_hear_it_and_is_then_forgotten() {
        let observations = Observations::default();
        let (instance_id, volume_id) = (examples::instance(1).instance_id, examples::volume(1).volume_id);
        drop(observations.observe());
        observations.tell_instance(&instance_id, 1, InstanceObservation::Running);
        observations.tell_instance(&instance_id, 0, InstanceObservation::Removed);
        observations.tell_volume(&volume_id, VolumeState::Removed);
        let mut first = observations.observe();
        assert_eq!(first.try_recv().unwrap(), of_volume(&volume_id, &VolumeState::Removed));
        let removed = Latest { boot: 0, state: InstanceObservation::Removed, checks: None, devices: vec![] };
        assert_eq!(first.try_recv().unwrap(), of_instance(&instance_id, &removed));
        assert!(observations.observe().try_recv().is_err());
    }

    #[test]
    fn checks_are_told_of_the_boot_that_runs_and_no_other() {
        let observations = Observations::default();
        let instance_id = examples::instance(1).instance_id;
        let mut told = observations.observe();
        let mut next = || match told.try_recv() {
            Ok(Observation::Instance(observed)) => Some((observed.boot, observed.checks)),
            _ => None,
        };
        observations.tell_instance(&instance_id, 2, InstanceObservation::Preparing);
        observations.tell_checks(&instance_id, 2, PASSED);
        assert_eq!((next(), next()), (Some((2, None)), None));
        observations.tell_instance(&instance_id, 2, InstanceObservation::Running);
        observations.tell_checks(&instance_id, 1, PASSED);
        assert_eq!((next(), next()), (Some((2, None)), None));
        observations.tell_checks(&instance_id, 2, PASSED);
        observations.tell_instance(&instance_id, 2, InstanceObservation::Running);
        assert_eq!((next(), next()), (Some((2, Some(PASSED))), None));
        observations.tell_instance(&instance_id, 3, InstanceObservation::Running);
        assert_eq!(next(), Some((3, None)));
    }
}
