//! What a host has observed, told to whoever listens.
//!
//! Invariants: the latest of every instance and volume is kept until its removal has been told to somebody, so that
//! a new observer begins with all there is and misses nothing; what has not changed is not told again.

use agent_api::{InstanceObservation, Observation, ObservedInstance, VolumeState};
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
    instances: BTreeMap<Id, (u64, InstanceObservation)>,
    volumes: BTreeMap<Id, VolumeState>,
    observer: Option<UnboundedSender<Observation>>,
}

impl Observations {
    pub(crate) fn tell_instance(&self, instance_id: &Id, boot: u64, state: InstanceObservation) {
        let mut inner = self.inner.lock();
        let latest = (boot, state);
        let is_removal = latest.1 == InstanceObservation::Removed;
        if !is_removal && inner.instances.get(instance_id) == Some(&latest) {
            return;
        }
        if inner.tell(of_instance(instance_id, &latest)) && is_removal {
            inner.instances.remove(instance_id);
        } else {
            inner.instances.insert(instance_id.clone(), latest);
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
        inner.instances.retain(|_, (_, state)| *state != InstanceObservation::Removed);
        receiver
    }

    /// Ends the observer and forgets all.
    pub(crate) fn reset(&self) {
        *self.inner.lock() = Inner::default();
    }
}

impl Inner {
    /// Whether there was somebody to hear it.
    fn tell(&self, observation: Observation) -> bool {
        self.observer.as_ref().is_some_and(|observer| observer.send(observation).is_ok())
    }
}

fn of_instance(instance_id: &Id, (boot, state): &(u64, InstanceObservation)) -> Observation {
    Observation::Instance(ObservedInstance {
        instance_id: instance_id.clone(),
        boot: *boot,
        state: state.clone(),
    })
}

fn of_volume(volume_id: &Id, state: &VolumeState) -> Observation {
    Observation::Volume { volume_id: volume_id.clone(), state: state.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

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
        let removed = (0, InstanceObservation::Removed);
        assert_eq!(first.try_recv().unwrap(), of_instance(&instance_id, &removed));
        assert!(observations.observe().try_recv().is_err());
    }
}
