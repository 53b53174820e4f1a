//! What the host has observed, told to whoever listens.
//!
//! Invariant: the latest of every instance and volume is kept until it is removed, so that a new observer begins
//! with all there is; what has not changed is not told again.

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
    instances: BTreeMap<Id, ObservedInstance>,
    volumes: BTreeMap<Id, VolumeState>,
    observer: Option<UnboundedSender<Observation>>,
}

impl Observations {
    pub(crate) fn tell_instance(&self, instance_id: &Id, boot: u64, state: InstanceObservation) {
        let mut inner = self.inner.lock();
        let observed = ObservedInstance { instance_id: instance_id.clone(), boot, state };
        if observed.state == InstanceObservation::Removed {
            inner.instances.remove(instance_id);
        } else if inner.instances.insert(instance_id.clone(), observed.clone()).as_ref() == Some(&observed) {
            return;
        }
        inner.tell(Observation::Instance(observed));
    }

    pub(crate) fn tell_volume(&self, volume_id: &Id, state: VolumeState) {
        let mut inner = self.inner.lock();
        if state == VolumeState::Removed {
            inner.volumes.remove(volume_id);
        } else if inner.volumes.insert(volume_id.clone(), state.clone()).as_ref() == Some(&state) {
            return;
        }
        inner.tell(Observation::Volume { volume_id: volume_id.clone(), state });
    }

    /// Ends the observer before.
    pub(crate) fn observe(&self) -> UnboundedReceiver<Observation> {
        let (sender, receiver) = unbounded_channel();
        let mut inner = self.inner.lock();
        inner.observer = Some(sender);
        for (volume_id, state) in &inner.volumes {
            inner.tell(Observation::Volume { volume_id: volume_id.clone(), state: state.clone() });
        }
        for observed in inner.instances.values() {
            inner.tell(Observation::Instance(observed.clone()));
        }
        receiver
    }
}

impl Inner {
    fn tell(&self, observation: Observation) {
        if let Some(observer) = &self.observer {
            // Nobody there: the next one is told all.
            let _ = observer.send(observation);
        }
    }
}
