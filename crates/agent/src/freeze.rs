//! Snapshots of volumes, also of those that a machine writes to.
//!
//! ```text
//!   lock the volumes ─▶ begin (journalled) ─▶ their owners, where they run, write to new layers ─▶ finish
//! ```
//!
//! Invariants: while it is decided what a volume consists of, its machine neither starts nor gets it (`lock`); what
//! was begun is finished, after a crash too, before anything else is done to its volumes' layers.

use crate::volumes::{DiskError, DiskFile, VolumeLock, Volumes};
use agent_api::{HostError, NewSnapshot};
use futures::future::join_all;
use host::machine::{DiskLayer, DiskSpec, MachineError};
use model::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Snapshots that are under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Freeze {
    pub key: String,
    /// Whose machine shall put the new layers of volumes on top that are not shared, if it runs.
    pub instance_id: Option<Id>,
    /// As they shall be, the new layer of each on top.
    pub volumes: Vec<(Id, DiskFile)>,
}

/// Attempts to reach a machine in one call; who asked is told, and asks again.
const ATTEMPTS_MAX: u32 = 3;

#[derive(Debug, thiserror::Error)]
pub(crate) enum FreezeError {
    #[error("the volumes' layers")]
    Disk(#[from] DiskError),
    #[error("the machine")]
    Machine(#[from] MachineError),
}

impl Volumes {
    pub(crate) async fn create_snapshots(
        self: &Arc<Self>,
        snapshots: &[NewSnapshot],
    ) -> Result<(), HostError> {
        let volume_ids: Vec<Id> = snapshots.iter().map(|new| new.volume_id.clone()).collect();
        if let Some(missing) = volume_ids.iter().find(|volume_id| !self.is_ready(volume_id)) {
            return Err(HostError::NotFound(missing.to_string()));
        }
        let _locks = self.lock(&volume_ids).await;
        self.finish_earlier(&volume_ids).await.map_err(host_error)?;
        let instance_id = self.user_of(&volume_ids)?;
        let begun = self.disks.begin_freeze(snapshots, instance_id.as_ref()).await;
        match begun.map_err(|error| host_error(error.into()))? {
            Some(freeze) => self.carry_out(&freeze).await.map_err(host_error)?,
            None => return Ok(()),
        }
        self.tasks.spawn(self.clone().fold(volume_ids));
        Ok(())
    }

    /// One at a time on the host: nobody waits for it.
    async fn fold(self: Arc<Self>, volume_ids: Vec<Id>) {
        let Ok(_permit) = self.folding.acquire().await else { return };
        for volume_id in volume_ids {
            match self.fold_one(&volume_id).await {
                // The volume may be gone by now.
                Ok(()) | Err(FreezeError::Disk(DiskError::Failed(_))) => {}
                Err(error) => {
                    tracing::warn!(%volume_id, error = &error as &dyn std::error::Error, "layers not merged");
                }
            }
        }
    }

    /// A machine that can't be told of the shorter chain goes on with the files that it has open.
    async fn fold_one(&self, volume_id: &Id) -> Result<(), FreezeError> {
        let Some(before) = self.disks.fold(volume_id).await? else { return Ok(()) };
        self.rebase(volume_id, |_| before).await
    }

    /// Tells the machine that has the volume, if one runs, of the layers that it has now; `before` says of them which it
    /// had.
    pub(crate) async fn rebase(
        &self,
        volume_id: &Id,
        before: impl FnOnce(&[DiskLayer]) -> Vec<DiskLayer>,
    ) -> Result<(), FreezeError> {
        let _lock = self.lock(std::slice::from_ref(volume_id)).await;
        let file = self.disks.layers(volume_id).await?;
        let owner = match self.is_shared(volume_id) {
            true => Some(volume_id.clone()),
            false => self.user_of(std::slice::from_ref(volume_id)).ok().flatten(),
        };
        let Some(owner) = owner else { return Ok(()) };
        if self.devices_of(&owner).await?.contains(volume_id) {
            let before = before(&file.layers);
            self.hypervisor.rebase_disk(&owner, file.spec(volume_id), before).await?;
        }
        Ok(())
    }

    /// After a restart: whatever was begun goes on, before anything else is done to its volumes; then guests run on that
    /// were paused for it. Not waited for: a machine may not get on with it before control has told what it needs.
    pub(crate) async fn finish_all(self: &Arc<Self>, running: BTreeSet<Id>) -> Result<(), DiskError> {
        let mut finishing = Vec::new();
        // None of them has a volume of another.
        for freeze in self.disks.freezes().await? {
            let ids: Vec<Id> = freeze.volumes.iter().map(|(volume_id, _)| volume_id.clone()).collect();
            let locks = self.lock(&ids).await;
            finishing.push(self.clone().finish(freeze, locks));
        }
        let volumes = self.clone();
        self.tasks.spawn(async move {
            join_all(finishing).await;
            volumes.resume(&volumes.those_sharing(running).await).await;
        });
        Ok(())
    }

    async fn finish(self: Arc<Self>, freeze: Freeze, _locks: Vec<VolumeLock>) {
        if let Err(error) = self.carry_out(&freeze).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(snapshot_id = freeze.key, error, "snapshot not finished yet");
        }
    }

    /// Of these volumes, which the caller has locked.
    pub(crate) async fn finish_earlier(self: &Arc<Self>, volume_ids: &[Id]) -> Result<(), FreezeError> {
        for freeze in self.disks.freezes().await? {
            if freeze.volumes.iter().any(|(volume_id, _)| volume_ids.contains(volume_id)) {
                self.carry_out(&freeze).await?;
            }
        }
        Ok(())
    }

    async fn carry_out(self: &Arc<Self>, freeze: &Freeze) -> Result<(), FreezeError> {
        let mut attempt = 1;
        let mut backoff = crate::tasks::Backoff::new();
        loop {
            match self.lay_on_top(freeze).await {
                Ok(()) => break,
                Err(error @ MachineError::Failed(_)) if !self.has_shared(freeze) => {
                    self.disks.undo_freeze(&freeze.key).await?;
                    return Err(error.into());
                }
                Err(error) if attempt == ATTEMPTS_MAX => return Err(error.into()),
                Err(_) => attempt += 1,
            }
            backoff.wait().await;
        }
        Ok(self.disks.finish_freeze(&freeze.key).await?)
    }

    /// Then it is never undone: who shares a volume may have started anew by now, and written to the new layer.
    fn has_shared(&self, freeze: &Freeze) -> bool {
        freeze.volumes.iter().any(|(volume_id, _)| self.is_shared(volume_id))
    }

    async fn lay_on_top(self: &Arc<Self>, freeze: &Freeze) -> Result<(), MachineError> {
        let volume_ids: Vec<Id> = freeze.volumes.iter().map(|(volume_id, _)| volume_id.clone()).collect();
        self.keeping_shared(&volume_ids, self.lay_by_owners(freeze)).await
    }

    /// Where several machines write, their guests pause, so that it is one moment for all.
    async fn lay_by_owners(self: &Arc<Self>, freeze: &Freeze) -> Result<(), MachineError> {
        let owners = self.owners(freeze);
        let mut writers = BTreeSet::new();
        if owners.len() > 1 {
            for (volume_id, _) in &freeze.volumes {
                let machines = self.machines_with(volume_id).await?;
                writers.extend(machines.into_iter().filter(|machine| machine != volume_id));
            }
        }
        let laid = self.lay_by_all(&writers, owners).await;
        self.resume(&writers).await;
        laid
    }

    /// Who has the layers open, where they are.
    fn owners(&self, freeze: &Freeze) -> BTreeMap<Id, Vec<DiskSpec>> {
        let mut owners: BTreeMap<Id, Vec<DiskSpec>> = BTreeMap::new();
        for (volume_id, file) in &freeze.volumes {
            let own = self.is_shared(volume_id).then_some(volume_id);
            if let Some(owner) = own.or(freeze.instance_id.as_ref()) {
                owners.entry(owner.clone()).or_default().push(file.clone().spec(volume_id));
            }
        }
        owners
    }

    async fn lay_by_all(
        &self,
        writers: &BTreeSet<Id>,
        owners: BTreeMap<Id, Vec<DiskSpec>>,
    ) -> Result<(), MachineError> {
        self.pause(writers).await?;
        for (owner, disks) in owners {
            self.lay_by(&owner, disks).await?;
        }
        Ok(())
    }

    /// A machine that does not run writes nothing.
    async fn lay_by(&self, owner: &Id, mut disks: Vec<DiskSpec>) -> Result<(), MachineError> {
        let devices = self.devices_of(owner).await?;
        disks.retain(|disk| devices.contains(&disk.volume_id));
        match self.hypervisor.freeze_disks(owner, disks).await {
            Err(MachineError::NotFound(_)) => Ok(()),
            frozen => frozen,
        }
    }
}

fn host_error(error: FreezeError) -> HostError {
    match error {
        FreezeError::Disk(DiskError::Failed(message))
        | FreezeError::Machine(MachineError::Failed(message)) => HostError::Failed(message),
        error => {
            tracing::warn!(error = &error as &dyn std::error::Error, "snapshot not made");
            HostError::Failed("The host could not make the snapshot".into())
        }
    }
}
