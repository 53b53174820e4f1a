//! Disks and network interfaces that come to a running machine and leave it.
//!
//! Invariant: a volume is held for as long as the guest may have it, whatever is desired by then.

use crate::instance::{InstanceTask, disk_bus, queues};
use crate::lifecycle::Actual;
use agent_api::{Detach, Disk, Instance, Interface, ObservedDevice, PlugState};
use host::machine::{DiskSpec, MachineError};
use model::{Id, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A guest that holds on to something is asked again after this long.
pub(crate) const ASKED_AGAIN: Duration = Duration::from_secs(10);

/// What the task knows of its machine's disks and secondary interfaces.
#[derive(Default)]
pub(crate) struct Plugged {
    /// None where it is to be asked.
    pub(crate) attached: Option<BTreeSet<Id>>,
    /// What did not go as desired.
    troubles: BTreeMap<Id, PlugState>,
}

/// What may come and go while an instance runs.
enum Device<'a> {
    Disk(&'a Disk),
    Interface(&'a Interface),
}

impl Device<'_> {
    fn id(&self) -> &Id {
        match self {
            Device::Disk(disk) => &disk.volume_id,
            Device::Interface(interface) => &interface.network.interface_id,
        }
    }

    fn detach(&self) -> Option<Detach> {
        match self {
            Device::Disk(disk) => disk.detach,
            Device::Interface(interface) => interface.detach,
        }
    }
}

/// All but the primary interface, which stays.
fn devices(instance: &Instance) -> impl Iterator<Item = Device<'_>> {
    let interfaces = instance.interfaces.iter().skip(1).map(Device::Interface);
    instance.disks.iter().map(Device::Disk).chain(interfaces)
}

/// What the guest shall have.
fn wanted(instance: &Instance) -> impl Iterator<Item = Device<'_>> {
    devices(instance).filter(|device| device.detach().is_none())
}

impl Plugged {
    /// A machine starts with all that it shall have.
    pub(crate) fn at_start(instance: &Instance) -> Self {
        Plugged::with(wanted(instance).map(|device| device.id().clone()))
    }

    fn with(attached: impl IntoIterator<Item = Id>) -> Self {
        Plugged { attached: Some(attached.into_iter().collect()), troubles: BTreeMap::new() }
    }

    pub(crate) fn has(&self, device_id: &Id) -> bool {
        self.attached.as_ref().is_none_or(|attached| attached.contains(device_id))
    }

    /// Whether the guest has been asked for something and has not let go, or its machine did not say what it has.
    pub(crate) fn waits(&self) -> bool {
        self.attached.is_none() || self.troubles.values().any(|state| *state == PlugState::Busy)
    }

    /// What is told of what is desired.
    pub(crate) fn observed(&self, instance: &Instance, is_running: bool) -> Vec<ObservedDevice> {
        let of = |device: Device<'_>| {
            let id = device.id();
            let has = is_running && self.attached.as_ref().is_some_and(|had| had.contains(id));
            let trouble = self.troubles.get(id).cloned().filter(|_| is_running);
            let state = match (device.detach(), has) {
                (None, true) => Some(PlugState::Attached),
                (None, false) => trouble,
                (Some(_), true) => trouble.filter(|state| *state == PlugState::Busy),
                (Some(_), false) if is_running && self.attached.is_none() => None,
                (Some(_), false) => Some(PlugState::Detached),
            };
            Some(ObservedDevice { device_id: id.clone(), state: state? })
        };
        devices(instance).filter_map(of).collect()
    }
}

impl InstanceTask {
    /// The volumes that the guest has or shall have.
    pub(crate) fn held_volumes(&self, instance: &Instance) -> BTreeSet<Id> {
        let desired =
            instance.disks.iter().filter(|disk| disk.detach.is_none() || self.plugged.has(&disk.volume_id));
        let desired = desired.map(|disk| disk.volume_id.clone());
        let attached = self.plugged.attached.iter().flatten().filter(|id| Id::is_of(Kind::Volume, id));
        desired.chain(attached.cloned()).collect()
    }

    /// Gives the guest of a running machine what it shall have and takes what it shall not.
    /// True where something has changed that is to be told or held.
    pub(crate) async fn plug(&mut self, instance: &Arc<Instance>) -> bool {
        if !matches!(self.actual, Actual::Running { .. }) {
            return false;
        }
        let mut changed = false;
        if self.plugged.attached.is_none() {
            match self.host.hypervisor.attached(&self.instance_id).await {
                Ok(mut attached) => {
                    if let Some(primary) = instance.interfaces.first() {
                        attached.remove(&primary.network.interface_id);
                    }
                    self.plugged = Plugged::with(attached);
                }
                Err(error) => {
                    self.log(&error, "devices not known");
                    return false;
                }
            }
            changed = true;
        }
        let attached = self.plugged.attached.clone().unwrap_or_default();
        for device_id in &attached {
            if !wanted(instance).any(|device| device.id() == device_id) {
                let device = devices(instance).find(|device| device.id() == device_id);
                let force = device.and_then(|device| device.detach()) == Some(Detach::Forced);
                changed |= self.unplug(device_id, force).await;
            }
        }
        for device in wanted(instance).filter(|device| !attached.contains(device.id())) {
            changed |= self.plug_in(instance, &device).await;
        }
        changed
    }

    async fn plug_in(&mut self, instance: &Arc<Instance>, device: &Device<'_>) -> bool {
        let attached = match device {
            Device::Disk(disk) => self.attach_disk(instance, disk).await,
            Device::Interface(interface) => self.attach_interface(instance, interface).await,
        };
        let Some(attached) = attached else { return false };
        match attached {
            Ok(()) => {
                self.plugged.troubles.remove(device.id());
                self.plugged.attached.get_or_insert_default().insert(device.id().clone());
                true
            }
            Err(message) => self.note(device.id(), PlugState::Failed { message }),
        }
    }

    /// Waits for what is not there yet, as long as nothing else is desired: that may be more urgent. What the machine has
    /// begun comes to its end.
    async fn unless_desire_changes<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let mut desire = self.desire.clone();
        tokio::select! {
            done = wait => Some(done),
            _ = desire.changed() => None,
        }
    }

    /// None where it was given up for something else.
    async fn attach_disk(&self, instance: &Instance, disk: &Disk) -> Option<Result<(), String>> {
        let (volumes, volume_id) = (&self.host.volumes, &disk.volume_id);
        let open = async {
            volumes.ready(volume_id).await?;
            volumes.open(volume_id).await
        };
        let (_lock, file) = match self.unless_desire_changes(open).await? {
            Ok(opened) => opened,
            Err(message) => return Some(Err(message)),
        };
        let spec = DiskSpec { bus: disk_bus(instance), limits: disk.limits, ..file.spec(volume_id) };
        let attaching = self.host.hypervisor.attach_disk(&self.instance_id, spec);
        let attached = volumes.keeping_shared(std::slice::from_ref(volume_id), attaching).await;
        Some(attached.map_err(|error| self.refused(error, volume_id)))
    }

    /// None where it was given up for something else.
    async fn attach_interface(
        &self,
        instance: &Arc<Instance>,
        interface: &Interface,
    ) -> Option<Result<(), String>> {
        let interface_id = &interface.network.interface_id;
        let revision = self.host.network.update(instance);
        let taps = self.host.network.taps(std::slice::from_ref(interface), queues(instance), revision);
        let tap = match self.unless_desire_changes(taps).await? {
            Ok(mut taps) => taps.pop().ok_or_else(|| format!("{interface_id} has no tap")),
            Err(error) => {
                self.log(&*error, "tap not opened");
                Err(format!("The host could not make the network of {interface_id}"))
            }
        };
        let tap = match tap {
            Ok(tap) => tap,
            Err(message) => return Some(Err(message)),
        };
        let attached = self.host.hypervisor.attach_nic(&self.instance_id, self.nic(interface), tap).await;
        Some(attached.map_err(|error| self.refused(error, interface_id)))
    }

    /// Why a device was not attached, for the user.
    fn refused(&self, error: MachineError, device_id: &Id) -> String {
        self.log(&error, "device not attached");
        match error {
            MachineError::Failed(message) => message,
            _ => format!("{device_id} could not be attached"),
        }
    }

    async fn unplug(&mut self, device_id: &Id, force: bool) -> bool {
        let detached = match Id::is_of(Kind::Volume, device_id) {
            true => self.detach_disk(device_id, force).await,
            false => self.detach_interface(device_id, force).await,
        };
        match detached {
            Ok(true) => {
                self.plugged.troubles.remove(device_id);
                self.plugged.attached.get_or_insert_default().remove(device_id);
                true
            }
            Ok(false) => self.note(device_id, PlugState::Busy),
            Err(error) => {
                self.log(&error, "device not detached");
                self.note(device_id, PlugState::Busy)
            }
        }
    }

    async fn detach_disk(&self, volume_id: &Id, force: bool) -> Result<bool, MachineError> {
        let (volumes, volume_ids) = (&self.host.volumes, std::slice::from_ref(volume_id));
        let _lock = volumes.lock(volume_ids).await;
        let spec = DiskSpec::new(volume_id.clone(), volumes.layers_in_instance(volume_id).await);
        let detaching = self.host.hypervisor.detach_disk(&self.instance_id, spec, force);
        volumes.keeping_shared(volume_ids, detaching).await
    }

    async fn detach_interface(&self, interface_id: &Id, force: bool) -> Result<bool, MachineError> {
        let detached = self.host.hypervisor.detach_nic(&self.instance_id, interface_id, force).await?;
        // A machine whose guest has not let go may have the tap open still.
        if detached
            && force
            && let Err(error) = self.host.network.driver().close_tap(interface_id).await
        {
            self.log(&error, "tap not closed");
        }
        Ok(detached)
    }

    fn note(&mut self, device_id: &Id, trouble: PlugState) -> bool {
        let had = self.plugged.troubles.insert(device_id.clone(), trouble.clone());
        had != Some(trouble)
    }
}
