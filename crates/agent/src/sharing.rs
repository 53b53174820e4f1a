//! Volumes that several instances can have at once (EBS User Guide, "Attach an EBS volume to multiple EC2 instances
//! using EBS Multi-Attach").
//!
//! ```text
//!   first instance gets it ─▶ its own machine opens its layers and shares it ─▶ instances have it from there
//!   last one has let go of it ─▶ that machine is ended
//! ```
//!
//! Invariant: a volume's layers are open in one machine at most, its owner: its own, which has its id, while it is shared;
//! the one instance's that has it, else. What is done to layers that are in use is done by their owner.

use crate::freeze::FreezeError;
use crate::tasks::Backoff;
use crate::volumes::{DiskError, DiskFile, Volumes, of_machine};
use agent_api::DiskLimits;
use host::machine::{DiskLayer, DiskSpec, MachineError, MachineSpec};
use model::Id;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// How long the end of an instance waits for the machines of volumes that were shared with it alone.
const UNSHARED_WITHIN: Duration = Duration::from_secs(20);

/// That a volume has a machine of its own, which may have ended by itself.
#[derive(Default)]
pub(crate) struct Sharing {
    /// How fast it is for all together; None where that, or whether it runs, is not known.
    pub(crate) limits: Option<Option<DiskLimits>>,
    /// How often it was found, or has ended: what is known is of the time before.
    news: u64,
}

impl Volumes {
    /// The volume's own machine was found, running or not, or has ended.
    pub(crate) fn found_sharing(self: &Arc<Self>, volume_id: &Id) {
        let mut state = self.state.lock();
        let entry = state.volumes.entry(volume_id.clone()).or_default();
        let sharing = entry.sharing.get_or_insert_default();
        (sharing.limits, sharing.news) = (None, sharing.news + 1);
        self.work_on(&mut state, volume_id);
        drop(state);
        self.changed.send_replace(());
    }

    pub(crate) fn is_shared(&self, volume_id: &Id) -> bool {
        self.state.lock().volumes.get(volume_id).is_some_and(|entry| entry.sharing.is_some())
    }

    /// What a machine opens for the volume, which is locked.
    pub(crate) async fn opened(&self, volume_id: &Id) -> Result<DiskFile, DiskError> {
        let is_to_be_shared = {
            let state = self.state.lock();
            let entry = state.volumes.get(volume_id);
            entry.is_some_and(|entry| entry.sharing.is_some() || entry.shared_limits().is_some())
        };
        if !is_to_be_shared {
            return self.disks.open(volume_id).await;
        }
        self.share(volume_id).await?;
        Ok(DiskFile { layers: vec![self.hypervisor.shared_layer(volume_id)], key: None })
    }

    /// By what layers an instance has the volume.
    pub(crate) async fn layers_in_instance(&self, volume_id: &Id) -> Vec<DiskLayer> {
        if self.is_shared(volume_id) {
            return vec![self.hypervisor.shared_layer(volume_id)];
        }
        self.disks.layers(volume_id).await.map(|file| file.layers).unwrap_or_default()
    }

    /// Lets instances have the volume, which is locked, from a machine of its own, as fast as is desired. Who does not wait
    /// for the end of it may repeat it.
    pub(crate) async fn share(&self, volume_id: &Id) -> Result<(), DiskError> {
        let (limits, known, news) = {
            let mut state = self.state.lock();
            let entry = state.volumes.entry(volume_id.clone()).or_default();
            let limits = entry.shared_limits();
            let sharing = entry.sharing.get_or_insert_default();
            (limits, sharing.limits, sharing.news)
        };
        if known == Some(limits) {
            return Ok(());
        }
        self.share_or_limit(volume_id, limits, known.is_some()).await?;
        let mut state = self.state.lock();
        let sharing = state.volumes.get_mut(volume_id).and_then(|entry| entry.sharing.as_mut());
        if let Some(sharing) = sharing.filter(|sharing| sharing.news == news) {
            sharing.limits = Some(limits);
        }
        Ok(())
    }

    async fn share_or_limit(
        &self,
        volume_id: &Id,
        limits: Option<DiskLimits>,
        is_shared: bool,
    ) -> Result<(), DiskError> {
        let runs = self.devices_of(volume_id).await.map_err(of_machine)?.contains(volume_id);
        if !is_shared {
            let file = match runs {
                true => self.disks.layers(volume_id).await?,
                false => self.open_to_share(volume_id).await?,
            };
            let disk = DiskSpec { limits, ..file.spec(volume_id) };
            self.hypervisor.start(MachineSpec::sharing(disk), Vec::new()).await.map_err(of_machine)?;
            tracing::info!(%volume_id, "volume is shared");
        }
        match runs {
            true => self.hypervisor.limit_disk(volume_id, volume_id, limits).await.map_err(of_machine),
            false => Ok(()),
        }
    }

    /// After a restart its key is not known before it is said what the volume shall be.
    async fn open_to_share(&self, volume_id: &Id) -> Result<DiskFile, DiskError> {
        let desired = self.state.lock().volumes.get(volume_id).and_then(|entry| entry.desired.clone());
        if let Some(volume) = desired {
            self.disks.ensure(&volume).await?;
        }
        self.disks.open(volume_id).await
    }

    pub(crate) async fn share_again(&self, volume_id: &Id) -> Result<(), DiskError> {
        let _lock = self.lock(std::slice::from_ref(volume_id)).await;
        match self.is_shared(volume_id) {
            true => self.share(volume_id).await,
            false => Ok(()),
        }
    }

    /// Does something with these volumes, which are locked: a machine that waits for one that is shared no more would not
    /// get on with it, so that is shared again meanwhile.
    pub(crate) async fn keeping_shared<T>(&self, volume_ids: &[Id], work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.keep_shared(volume_ids) => match never {},
        }
    }

    async fn keep_shared(&self, volume_ids: &[Id]) -> Infallible {
        let mut changed = self.changed.subscribe();
        let mut backoff = Backoff::new();
        loop {
            changed.mark_unchanged();
            for volume_id in volume_ids.iter().filter(|volume_id| self.may_have_ended(volume_id)) {
                if let Err(error) = self.share(volume_id).await {
                    tracing::warn!(%volume_id, error = &error as &dyn std::error::Error, "volume not shared again");
                    backoff.wait().await;
                    changed.mark_changed();
                }
            }
            // For as long as we are there.
            let _ = changed.changed().await;
        }
    }

    /// Before control has said what is desired nobody knows with which key it is opened.
    fn may_have_ended(&self, volume_id: &Id) -> bool {
        let state = self.state.lock();
        let sharing = state.volumes.get(volume_id).and_then(|entry| entry.sharing.as_ref());
        state.replaced && sharing.is_some_and(|sharing| sharing.limits.is_none())
    }

    /// Ends the volume's own machine, unless an instance has come to have the volume.
    pub(crate) async fn unshare(self: &Arc<Self>, volume_id: &Id) -> Result<(), FreezeError> {
        let _lock = self.lock(std::slice::from_ref(volume_id)).await;
        if self.state.lock().is_used(volume_id) {
            return Ok(());
        }
        self.finish_earlier(std::slice::from_ref(volume_id)).await?;
        self.hypervisor.end(volume_id).await?;
        self.hypervisor.forget(volume_id).await?;
        if let Some(entry) = self.state.lock().volumes.get_mut(volume_id) {
            entry.sharing = None;
        }
        tracing::info!(%volume_id, "volume is shared no more");
        Ok(())
    }

    /// Waits, for some time, until no volume has a machine of its own that no instance has.
    pub(crate) async fn unshared(&self) {
        let mut changed = self.changed.subscribe();
        let unshared =
            async { while self.state.lock().has_idle_sharing() && changed.changed().await.is_ok() {} };
        if tokio::time::timeout(UNSHARED_WITHIN, unshared).await.is_err() {
            tracing::warn!("volumes are still shared with nobody");
        }
    }

    /// The volumes and interfaces that a machine has; none where it does not run. Never `MachineError::Failed`, which
    /// would say that something was not done.
    pub(crate) async fn devices_of(&self, instance_id: &Id) -> Result<BTreeSet<Id>, MachineError> {
        match self.hypervisor.attached(instance_id).await {
            Err(MachineError::NotFound(_)) => Ok(BTreeSet::new()),
            Err(MachineError::Failed(message)) => {
                let what = format!("what {instance_id} has is not known");
                Err(MachineError::Io { what, source: std::io::Error::other(message) })
            }
            devices => devices,
        }
    }

    /// All machines that have the volume, its owner first.
    pub(crate) async fn machines_with(&self, volume_id: &Id) -> Result<Vec<Id>, MachineError> {
        let users: BTreeSet<Id> = self.state.lock().users_of(volume_id).collect();
        let mut machines = Vec::new();
        for machine in std::iter::once(volume_id.clone()).chain(users) {
            if self.devices_of(&machine).await?.contains(volume_id) {
                machines.push(machine);
            }
        }
        Ok(machines)
    }

    /// Those of the machines that have a volume which is shared, or may have: only they are ever paused.
    pub(crate) async fn those_sharing(&self, mut machines: BTreeSet<Id>) -> BTreeSet<Id> {
        for machine in machines.clone() {
            let devices = self.devices_of(&machine).await;
            if devices.is_ok_and(|devices| !devices.iter().any(|device_id| self.is_shared(device_id))) {
                machines.remove(&machine);
            }
        }
        machines
    }

    /// Stops the guests of all these machines, but for those that have none.
    pub(crate) async fn pause(&self, machines: &BTreeSet<Id>) -> Result<(), MachineError> {
        for machine in machines {
            match self.hypervisor.pause(machine).await {
                Ok(()) | Err(MachineError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Guests that were stopped run on, whatever it takes.
    pub(crate) async fn resume(self: &Arc<Self>, machines: &BTreeSet<Id>) {
        for machine in machines {
            if let Err(error) = self.resume_one(machine).await {
                tracing::warn!(instance_id = %machine, error = &error as &dyn std::error::Error, "guest not resumed");
                let (volumes, machine) = (self.clone(), machine.clone());
                self.tasks.spawn(async move {
                    let mut backoff = Backoff::new();
                    while volumes.resume_one(&machine).await.is_err() {
                        backoff.wait().await;
                    }
                });
            }
        }
    }

    async fn resume_one(&self, machine: &Id) -> Result<(), MachineError> {
        match self.hypervisor.resume(machine).await {
            Err(MachineError::NotFound(_)) => Ok(()),
            resumed => resumed,
        }
    }
}
