//! Snapshots of volumes, also of those that a machine writes to.
//!
//! ```text
//!   lock the volumes ─▶ begin (journalled) ─▶ the machine, if one runs, writes to new layers ─▶ finish
//! ```
//!
//! Invariants: while it is decided what a volume consists of, its machine neither starts nor gets it (`lock`); what
//! was begun is finished, after a crash too, before anything else is done to its volumes' layers.

use crate::volumes::{DiskError, DiskFile, Volumes};
use agent_api::{HostError, NewSnapshot};
use host::machine::{DiskLayer, MachineError};
use model::Id;
use std::sync::Arc;

/// Snapshots that are under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Freeze {
    pub key: String,
    /// Whose machine shall put the new layers on top, if it runs.
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
        let user = self.user_of(std::slice::from_ref(volume_id)).ok().flatten();
        let Some(instance_id) = user else { return Ok(()) };
        let attached = match self.hypervisor.attached(&instance_id).await {
            Err(MachineError::NotFound(_)) => return Ok(()),
            attached => attached?,
        };
        if attached.contains(volume_id) {
            let before = before(&file.layers);
            self.hypervisor.rebase_disk(&instance_id, file.spec(volume_id), before).await?;
        }
        Ok(())
    }

    /// After a restart: whatever was begun goes on.
    pub(crate) async fn finish_all(&self) -> Result<(), DiskError> {
        for freeze in self.disks.freezes().await? {
            let ids: Vec<Id> = freeze.volumes.iter().map(|(volume_id, _)| volume_id.clone()).collect();
            let _locks = self.lock(&ids).await;
            if let Err(error) = self.carry_out(&freeze).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(snapshot_id = freeze.key, error, "snapshot not finished yet");
            }
        }
        Ok(())
    }

    /// Of these volumes, which the caller has locked.
    pub(crate) async fn finish_earlier(&self, volume_ids: &[Id]) -> Result<(), FreezeError> {
        for freeze in self.disks.freezes().await? {
            if freeze.volumes.iter().any(|(volume_id, _)| volume_ids.contains(volume_id)) {
                self.carry_out(&freeze).await?;
            }
        }
        Ok(())
    }

    async fn carry_out(&self, freeze: &Freeze) -> Result<(), FreezeError> {
        let mut attempt = 1;
        let mut backoff = crate::tasks::Backoff::new();
        loop {
            match self.freeze_machine(freeze).await {
                Ok(()) => break,
                Err(error @ MachineError::Failed(_)) => {
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

    /// A machine that does not run writes nothing.
    async fn freeze_machine(&self, freeze: &Freeze) -> Result<(), MachineError> {
        let Some(instance_id) = &freeze.instance_id else { return Ok(()) };
        let attached = match self.hypervisor.attached(instance_id).await {
            Err(MachineError::NotFound(_)) => return Ok(()),
            attached => attached?,
        };
        let of_machine = freeze.volumes.iter().filter(|(volume_id, _)| attached.contains(volume_id));
        let disks = of_machine.map(|(volume_id, file)| file.clone().spec(volume_id));
        match self.hypervisor.freeze_disks(instance_id, disks.collect()).await {
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
