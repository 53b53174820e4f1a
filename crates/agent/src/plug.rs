//! Disks that come to a running machine and leave it.
//!
//! Invariant: a volume is held for as long as the guest may have it, whatever is desired by then.

use crate::instance::InstanceTask;
use crate::lifecycle::Actual;
use agent_api::{Detach, Disk, Instance, ObservedDisk, PlugState};
use host::machine::{DiskSpec, MachineError};
use model::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A guest that holds on to a disk is asked again after this long.
pub(crate) const ASKED_AGAIN: Duration = Duration::from_secs(10);

/// What the task knows of its machine's disks.
#[derive(Default)]
pub(crate) struct Plugged {
    /// None where it is to be asked.
    pub(crate) attached: Option<BTreeSet<Id>>,
    /// What did not go as desired.
    troubles: BTreeMap<Id, PlugState>,
}

impl Plugged {
    pub(crate) fn with(attached: impl IntoIterator<Item = Id>) -> Self {
        Plugged { attached: Some(attached.into_iter().collect()), troubles: BTreeMap::new() }
    }

    pub(crate) fn has(&self, volume_id: &Id) -> bool {
        self.attached.as_ref().is_none_or(|attached| attached.contains(volume_id))
    }

    /// Whether the guest has been asked for a disk and has not let go.
    pub(crate) fn waits(&self) -> bool {
        self.troubles.values().any(|state| *state == PlugState::Busy)
    }

    /// What is told of the disks that are desired.
    pub(crate) fn observed(&self, disks: &[Disk], is_running: bool) -> Vec<ObservedDisk> {
        let of = |disk: &Disk| {
            let has = is_running && self.attached.as_ref().is_some_and(|had| had.contains(&disk.volume_id));
            let trouble = self.troubles.get(&disk.volume_id).cloned().filter(|_| is_running);
            let state = match (disk.detach, has) {
                (None, true) => Some(PlugState::Attached),
                (None, false) => trouble,
                (Some(_), true) => trouble.filter(|state| *state == PlugState::Busy),
                (Some(_), false) if is_running && self.attached.is_none() => None,
                (Some(_), false) => Some(PlugState::Detached),
            };
            Some(ObservedDisk { volume_id: disk.volume_id.clone(), state: state? })
        };
        disks.iter().filter_map(of).collect()
    }
}

impl InstanceTask {
    /// The volumes that the guest has or shall have.
    pub(crate) fn held_volumes(&self, instance: &Instance) -> BTreeSet<Id> {
        let desired =
            instance.disks.iter().filter(|disk| disk.detach.is_none() || self.plugged.has(&disk.volume_id));
        let desired = desired.map(|disk| disk.volume_id.clone());
        desired.chain(self.plugged.attached.iter().flatten().cloned()).collect()
    }

    /// Gives the guest of a running machine the disks that it shall have and takes those that it shall not.
    /// True where something has changed that is to be told or held.
    pub(crate) async fn plug(&mut self, instance: &Arc<Instance>) -> bool {
        if !matches!(self.actual, Actual::Running { .. }) {
            return false;
        }
        let mut changed = false;
        if self.plugged.attached.is_none() {
            match self.host.hypervisor.attached_disks(&self.instance_id).await {
                Ok(attached) => self.plugged = Plugged::with(attached),
                Err(error) => {
                    self.log(&error, "disks not known");
                    return false;
                }
            }
            changed = true;
        }
        let wanted = |volume_id: &Id| {
            instance.disks.iter().any(|disk| disk.volume_id == *volume_id && disk.detach.is_none())
        };
        let attached = self.plugged.attached.clone().unwrap_or_default();
        for volume_id in attached.iter().filter(|volume_id| !wanted(volume_id)) {
            let disk = instance.disks.iter().find(|disk| disk.volume_id == *volume_id);
            let force = disk.and_then(|disk| disk.detach) == Some(Detach::Forced);
            changed |= self.unplug(volume_id, force).await;
        }
        for disk in instance.disks.iter().filter(|disk| disk.detach.is_none()) {
            if !attached.contains(&disk.volume_id) {
                changed |= self.plug_in(disk).await;
            }
        }
        changed
    }

    async fn plug_in(&mut self, disk: &Disk) -> bool {
        let host = self.host.clone();
        let attach = async {
            host.volumes.ready(&disk.volume_id).await?;
            let (_lock, layers) = host.volumes.open(&disk.volume_id).await?;
            let spec = DiskSpec { layers, volume_id: disk.volume_id.clone(), limits: disk.limits };
            let attached = host.hypervisor.attach_disk(&self.instance_id, spec).await;
            attached.map_err(|error| {
                self.log(&error, "disk not attached");
                match error {
                    MachineError::Failed(message) => message,
                    _ => format!("The volume {} could not be attached", disk.volume_id),
                }
            })
        };
        let mut desire = self.desire.clone();
        let result = tokio::select! {
            result = attach => result,
            // Something else may be more urgent than a volume that is not there yet.
            _ = desire.changed() => return false,
        };
        match result {
            Ok(()) => {
                self.plugged.troubles.remove(&disk.volume_id);
                self.plugged.attached.get_or_insert_default().insert(disk.volume_id.clone());
                true
            }
            Err(message) => self.note(&disk.volume_id, PlugState::Failed { message }),
        }
    }

    async fn unplug(&mut self, volume_id: &Id, force: bool) -> bool {
        let _lock = self.host.volumes.lock(std::slice::from_ref(volume_id)).await;
        let layers = self.host.volumes.disks.layers(volume_id).await;
        let layers = layers.map(|file| file.layers).unwrap_or_default();
        let spec = DiskSpec { layers, volume_id: volume_id.clone(), limits: None };
        match self.host.hypervisor.detach_disk(&self.instance_id, spec, force).await {
            Ok(true) => {
                self.plugged.troubles.remove(volume_id);
                self.plugged.attached.get_or_insert_default().remove(volume_id);
                true
            }
            Ok(false) => self.note(volume_id, PlugState::Busy),
            Err(error) => {
                self.log(&error, "disk not detached");
                self.note(volume_id, PlugState::Busy)
            }
        }
    }

    fn note(&mut self, volume_id: &Id, trouble: PlugState) -> bool {
        let had = self.plugged.troubles.insert(volume_id.clone(), trouble.clone());
        had != Some(trouble)
    }
}
