//! The volumes of the host: made when desired, before the machines that use them; deleted when no longer desired,
//! after the machines that use them are gone.
//!
//! Invariant: nothing is deleted while a machine runs whose disks are not known (one that was found running and
//! of which control has not spoken, or speaks no more).

use crate::filling::{Fill, ServedLayer};
use crate::freeze::{Freeze, FreezeError};
use crate::observations::Observations;
use crate::sharing::Sharing;
use crate::tasks::{Backoff, Tasks};
use agent_api::{DiskLimits, HostError, NewSnapshot, Unfilled, Volume, VolumeState};
use async_trait::async_trait;
use host::machine::{DiskKey, DiskLayer, DiskSpec, Hypervisor, MachineError};
use model::Id;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// What keeps the volumes of a host.
#[async_trait]
pub trait Disks: Send + Sync {
    /// The volumes that are here, half-made ones too.
    async fn list(&self) -> Result<Vec<Id>, DiskError>;

    /// Makes the volume from its snapshot, or of zeros, where it is not whole yet. Of one that is there only the size
    /// changes, to a larger one: its file grows by `open`, or by the machine that has it. One that was made before and
    /// is not there is lost. Idempotent.
    async fn ensure(&self, volume: &Volume) -> Result<(), DiskError>;

    /// What a machine shall open for the volume, as large as the volume. Nobody writes to it meanwhile.
    async fn open(&self, volume_id: &Id) -> Result<DiskFile, DiskError>;

    /// The same where a machine has it: its file is left alone.
    async fn layers(&self, volume_id: &Id) -> Result<DiskFile, DiskError>;

    /// Begins to make these snapshots, all of one moment: from now on each volume has a new layer on top. None where
    /// they are there already; what was begun before is answered again.
    async fn begin_freeze(
        &self,
        snapshots: &[NewSnapshot],
        instance_id: Option<&Id>,
    ) -> Result<Option<Freeze>, DiskError>;

    /// What was begun and is neither finished nor undone.
    async fn freezes(&self) -> Result<Vec<Freeze>, DiskError>;

    /// No machine writes below the new layers: the snapshots are whole.
    async fn finish_freeze(&self, key: &str) -> Result<(), DiskError>;

    /// No machine writes to the new layers, and none will: all is as before.
    async fn undo_freeze(&self, key: &str) -> Result<(), DiskError>;

    /// Merges layers of a volume that has many, and says which it had then. May take long; a machine that has it goes
    /// on.
    async fn fold(&self, volume_id: &Id) -> Result<Option<Vec<DiskLayer>>, DiskError>;

    /// Fetches some of what layers lack that are used already, at least so many bytes if there are. Waits until there is
    /// something: for good where all that is made is whole. One calls at a time.
    async fn fill(&self, _bytes: u64) -> Result<Fill, DiskError> {
        std::future::pending().await
    }

    /// The volumes that lack something which `fill` fetches.
    async fn unfilled(&self) -> Result<BTreeMap<Id, Unfilled>, DiskError> {
        Ok(BTreeMap::new())
    }

    /// A layer by its name, to be read by a machine that has these volumes. None where they have none such. Waits until
    /// the key is told of one that is encrypted.
    async fn read_layer(
        &self,
        _volume_ids: &BTreeSet<Id>,
        _layer: &str,
    ) -> Result<Option<ServedLayer>, DiskError> {
        Ok(None)
    }

    /// Nothing of the volume is left afterwards. No error where nothing was.
    async fn delete(&self, volume_id: &Id) -> Result<(), DiskError>;
}

/// What a machine opens for a volume.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskFile {
    /// The uppermost first; it is the only one to be written to.
    pub layers: Vec<DiskLayer>,
    /// Of an encrypted one.
    pub key: Option<DiskKey>,
}

impl DiskFile {
    /// The disk of a machine that has it already, or to which the rest is still to be added.
    pub(crate) fn spec(self, volume_id: &Id) -> DiskSpec {
        DiskSpec { key: self.key, ..DiskSpec::new(volume_id.clone(), self.layers) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Trying again will not help. The message is for the user.
    #[error("{0}")]
    Failed(String),
    #[error("The data of the volume {0} is not on its host any more")]
    Lost(Id),
    /// It may soon.
    #[error("a machine does not do what it shall with the volume")]
    Machine(#[source] MachineError),
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
}

/// Copies at the same time: more would only take the disk from each other.
const MAKING_MAX: usize = 4;
/// Attempts to make a volume before its failure is told.
const ATTEMPTS_MAX: u32 = 3;
/// How long a machine's disk may be missing from what is desired: the message that names it may come later.
const DESIRED_WITHIN: Duration = Duration::from_secs(30);

pub(crate) struct Volumes {
    pub(crate) disks: Arc<dyn Disks>,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    observations: Arc<Observations>,
    pub(crate) tasks: Arc<Tasks>,
    making: Semaphore,
    pub(crate) state: Mutex<State>,
    /// Says that some volume's state has changed.
    pub(crate) changed: watch::Sender<()>,
    /// Held by who changes of what a volume consists, or hands it to a machine.
    locks: Mutex<HashMap<Id, Arc<tokio::sync::Mutex<()>>>>,
    pub(crate) folding: Semaphore,
}

/// While it is held, of what a volume consists does not change, and no machine gets it.
pub(crate) type VolumeLock = tokio::sync::OwnedMutexGuard<()>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) volumes: BTreeMap<Id, Entry>,
    /// The disks of each machine that runs or is being started; None where they are not known.
    users: HashMap<Id, Option<BTreeSet<Id>>>,
    /// Whether control has said what is desired.
    pub(crate) replaced: bool,
}

#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) desired: Option<Volume>,
    state: Made,
    /// While it has a machine of its own.
    pub(crate) sharing: Option<Sharing>,
    /// A task is at work on it.
    busy: bool,
}

#[derive(Default)]
enum Made {
    #[default]
    NotYet,
    Ready {
        size_gib: u32,
        /// The desire that it could not be made larger by.
        failed: Option<u64>,
    },
    Failed {
        generation: u64,
        message: String,
    },
}

enum Work {
    Share,
    Unshare,
    Make(Box<Volume>),
    Delete,
}

impl Volumes {
    pub(crate) fn new(
        disks: Arc<dyn Disks>,
        hypervisor: Arc<dyn Hypervisor>,
        observations: Arc<Observations>,
        tasks: Arc<Tasks>,
    ) -> Arc<Self> {
        Arc::new(Volumes {
            disks,
            hypervisor,
            locks: Mutex::default(),
            folding: Semaphore::new(1),
            observations,
            tasks,
            making: Semaphore::new(MAKING_MAX),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    /// Takes in what is on the disks, without touching it.
    pub(crate) async fn find(&self) -> Result<(), DiskError> {
        let found = self.disks.list().await?;
        let mut state = self.state.lock();
        for volume_id in found {
            state.volumes.entry(volume_id).or_default();
        }
        Ok(())
    }

    pub(crate) fn replace(self: &Arc<Self>, desired: &BTreeMap<Id, Volume>) {
        let mut state = self.state.lock();
        state.replaced = true;
        for (volume_id, entry) in &mut state.volumes {
            entry.desired = desired.get(volume_id).cloned();
        }
        for (volume_id, volume) in desired {
            state.volumes.entry(volume_id.clone()).or_default().desired = Some(volume.clone());
        }
        drop(state);
        self.changed.send_replace(());
        self.work_on_all();
    }

    pub(crate) fn put(self: &Arc<Self>, volume: &Volume) {
        let mut state = self.state.lock();
        state.volumes.entry(volume.volume_id.clone()).or_default().desired = Some(volume.clone());
        self.work_on(&mut state, &volume.volume_id);
    }

    pub(crate) fn remove(self: &Arc<Self>, volume_id: &Id) {
        let mut state = self.state.lock();
        match state.volumes.get_mut(volume_id) {
            Some(entry) => {
                entry.desired = None;
                self.work_on(&mut state, volume_id);
            }
            // Control may not know that it is gone.
            None => self.observations.tell_volume(volume_id, VolumeState::Removed),
        }
    }

    /// The machine of the instance uses these volumes, or any where None, until `release`.
    pub(crate) fn hold(self: &Arc<Self>, instance_id: &Id, volumes: Option<BTreeSet<Id>>) {
        let now = volumes.clone().unwrap_or_default();
        let had = self.state.lock().users.insert(instance_id.clone(), volumes);
        match had {
            // What it might have used, and does not, may go.
            Some(None) => self.work_on_all(),
            Some(Some(had)) => {
                let mut state = self.state.lock();
                had.difference(&now).for_each(|volume_id| self.work_on(&mut state, volume_id));
            }
            None => {}
        }
    }

    pub(crate) fn release(self: &Arc<Self>, instance_id: &Id) {
        if self.state.lock().users.remove(instance_id).is_some() {
            self.work_on_all();
        }
    }

    /// The volumes that the instance's machine has, None where that is not known; or None where it has no machine.
    pub(crate) fn used_by(&self, instance_id: &Id) -> Option<Option<BTreeSet<Id>>> {
        self.state.lock().users.get(instance_id).cloned()
    }

    /// The most that is asked for.
    pub(crate) fn initialization_mibps(&self) -> Option<u32> {
        let state = self.state.lock();
        state.volumes.values().filter_map(|entry| entry.desired.as_ref()?.initialization_mibps).max()
    }

    pub(crate) fn is_ready(&self, volume_id: &Id) -> bool {
        let state = self.state.lock();
        state.volumes.get(volume_id).is_some_and(|entry| matches!(entry.state, Made::Ready { .. }))
    }

    /// In the order of their ids, so that nobody waits for one another.
    pub(crate) async fn lock(&self, volume_ids: &[Id]) -> Vec<VolumeLock> {
        let ids: BTreeSet<&Id> = volume_ids.iter().collect();
        let mut locks = Vec::new();
        for volume_id in ids {
            let lock = self.locks.lock().entry(volume_id.clone()).or_default().clone();
            locks.push(lock.lock_owned().await);
        }
        locks
    }

    /// What a machine shall open for a volume that no other has, which is the machine's while it is locked. The error
    /// is for the user.
    pub(crate) async fn open(&self, volume_id: &Id) -> Result<(Vec<VolumeLock>, DiskFile), String> {
        let lock = self.lock(std::slice::from_ref(volume_id)).await;
        Ok((lock, self.open_locked(volume_id).await?))
    }

    pub(crate) async fn open_locked(&self, volume_id: &Id) -> Result<DiskFile, String> {
        match self.opened(volume_id).await {
            Ok(file) => Ok(file),
            Err(DiskError::Failed(message)) => Err(message),
            Err(error @ DiskError::Lost(_)) => Err(error.to_string()),
            Err(error) => {
                tracing::warn!(%volume_id, error = &error as &dyn std::error::Error, "volume not opened");
                Err(format!("The volume {volume_id} could not be opened"))
            }
        }
    }

    /// The instance whose machine may have the layers of these volumes open. An error where that is not known.
    pub(crate) fn user_of(&self, volume_ids: &[Id]) -> Result<Option<Id>, HostError> {
        let state = self.state.lock();
        if state.users.values().any(Option::is_none) {
            return Err(HostError::Failed("The host has just started".into()));
        }
        let is_shared = |id: &Id| state.volumes.get(id).is_some_and(|entry| entry.sharing.is_some());
        let uses = |used: &Option<BTreeSet<Id>>| {
            used.iter().flatten().any(|volume_id| volume_ids.contains(volume_id) && !is_shared(volume_id))
        };
        let mut users = state.users.iter().filter(|(_, used)| uses(used)).map(|(id, _)| id.clone());
        match (users.next(), users.next()) {
            (_, Some(_)) => Err(HostError::Failed("The volumes are not of one instance".into())),
            (user, None) => Ok(user),
        }
    }

    /// Waits until the volume is ready. The error is for the user.
    pub(crate) async fn ready(&self, volume_id: &Id) -> Result<(), String> {
        let mut changed = self.changed.subscribe();
        let undesired = tokio::time::sleep(DESIRED_WITHIN);
        tokio::pin!(undesired);
        loop {
            changed.mark_unchanged();
            let is_desired = match self.state.lock().volumes.get(volume_id) {
                Some(Entry { state: Made::Ready { .. }, desired: Some(_), .. }) => return Ok(()),
                Some(Entry {
                    state: Made::Failed { message, .. }, desired: Some(_), busy: false, ..
                }) => {
                    return Err(message.clone());
                }
                Some(Entry { desired, .. }) => desired.is_some(),
                None => false,
            };
            tokio::select! {
                _ = changed.changed() => {}
                () = &mut undesired, if !is_desired => return Err(format!("The volume {volume_id} does not exist")),
            }
        }
    }

    fn work_on_all(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let all: Vec<Id> = state.volumes.keys().cloned().collect();
        for volume_id in all {
            self.work_on(&mut state, &volume_id);
        }
    }

    pub(crate) fn work_on(self: &Arc<Self>, state: &mut State, volume_id: &Id) {
        if state.work(volume_id).is_none() {
            return;
        }
        if let Some(entry) = state.volumes.get_mut(volume_id) {
            entry.busy = true;
            self.tasks.spawn(self.clone().run(volume_id.clone()));
        }
    }

    /// Works on one volume until nothing is left to do.
    async fn run(self: Arc<Self>, volume_id: Id) {
        let mut backoff = Backoff::new();
        loop {
            let work = {
                let mut state = self.state.lock();
                if let Some(entry) = state.volumes.get_mut(&volume_id) {
                    entry.busy = false;
                }
                let Some(work) = state.work(&volume_id) else { break };
                if let Some(entry) = state.volumes.get_mut(&volume_id) {
                    entry.busy = true;
                }
                work
            };
            let (what, done) = match work {
                Work::Make(volume) => ("made", self.make(*volume).await.map_err(FreezeError::from)),
                Work::Share => ("shared", self.share_again(&volume_id).await.map_err(FreezeError::from)),
                Work::Unshare => ("unshared", self.unshare(&volume_id).await),
                Work::Delete => ("deleted", self.delete(&volume_id).await),
            };
            if let Err(error) = done {
                tracing::error!(%volume_id, error = &error as &dyn std::error::Error, "volume not {what}");
                backoff.wait().await;
            }
        }
        self.changed.send_replace(());
    }

    /// An error where it is neither made nor has failed.
    async fn make(self: &Arc<Self>, volume: Volume) -> Result<(), DiskError> {
        let volume_id = &volume.volume_id;
        let Ok(_permit) = self.making.acquire().await else { return Ok(()) };
        let mut backoff = Backoff::new();
        let mut attempt = 1;
        let made = loop {
            match self.make_or_grow(&volume).await {
                Ok(()) => break Ok(()),
                Err(DiskError::Failed(message)) => {
                    break Err((VolumeState::Failed { message: message.clone() }, message));
                }
                Err(error @ DiskError::Lost(_)) => break Err((VolumeState::Lost, error.to_string())),
                Err(error @ DiskError::Machine(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%volume_id, attempt, error = &error as &dyn std::error::Error, "volume not made");
                    if attempt == ATTEMPTS_MAX {
                        let message = format!("The volume {volume_id} could not be made");
                        break Err((VolumeState::Failed { message: message.clone() }, message));
                    }
                    attempt += 1;
                    backoff.wait().await;
                }
            }
        };
        let told = match &made {
            Ok(()) => VolumeState::Ready { size_gib: volume.size_gib },
            Err((told, _)) => told.clone(),
        };
        if let Some(entry) = self.state.lock().volumes.get_mut(volume_id) {
            entry.state = match (made, &entry.state) {
                (Ok(()), _) => Made::Ready { size_gib: volume.size_gib, failed: None },
                (Err(_), Made::Ready { size_gib, .. }) => {
                    Made::Ready { size_gib: *size_gib, failed: Some(volume.generation) }
                }
                (Err((_, message)), _) => Made::Failed { generation: volume.generation, message },
            };
        }
        self.observations.tell_volume(volume_id, told);
        Ok(())
    }

    async fn make_or_grow(self: &Arc<Self>, volume: &Volume) -> Result<(), DiskError> {
        let volume_id = &volume.volume_id;
        let _lock = self.lock(std::slice::from_ref(volume_id)).await;
        self.disks.ensure(volume).await?;
        // Else a machine enlarges a layer that a snapshot is about to have.
        self.finish_earlier(std::slice::from_ref(volume_id)).await.map_err(|error| match error {
            FreezeError::Disk(error) => error,
            FreezeError::Machine(error) => of_machine(error),
        })?;
        if self.is_shared(volume_id) {
            self.share(volume_id).await?;
        }
        let growing = self.grow(volume_id, u64::from(volume.size_gib) << 30);
        let grown = self.keeping_shared(std::slice::from_ref(volume_id), growing).await;
        if grown.map_err(of_machine)? {
            return Ok(());
        }
        self.disks.open(volume_id).await.map(drop)
    }

    /// False where no machine has it.
    async fn grow(&self, volume_id: &Id, bytes: u64) -> Result<bool, MachineError> {
        let machines = self.machines_with(volume_id).await?;
        for machine in &machines {
            self.hypervisor.resize_disk(machine, volume_id, bytes).await?;
        }
        Ok(!machines.is_empty())
    }

    async fn delete(self: &Arc<Self>, volume_id: &Id) -> Result<(), FreezeError> {
        let volume_ids = std::slice::from_ref(volume_id);
        let _lock = self.lock(volume_ids).await;
        self.finish_earlier(volume_ids).await?;
        self.disks.delete(volume_id).await?;
        self.locks.lock().remove(volume_id);
        self.deleted(volume_id);
        Ok(())
    }

    fn deleted(&self, volume_id: &Id) {
        let mut state = self.state.lock();
        // Desired again while it was being deleted: made anew.
        if let Some(entry) = state.volumes.get_mut(volume_id).filter(|entry| entry.desired.is_some()) {
            entry.state = Made::NotYet;
            return;
        }
        state.volumes.remove(volume_id);
        self.observations.tell_volume(volume_id, VolumeState::Removed);
    }
}

pub(crate) fn of_machine(error: MachineError) -> DiskError {
    match error {
        MachineError::Failed(message) => DiskError::Failed(message),
        error => DiskError::Machine(error),
    }
}

impl Entry {
    /// How fast it shall be for all that have it together, where it is for several.
    pub(crate) fn shared_limits(&self) -> Option<DiskLimits> {
        self.desired.as_ref()?.multi_attach
    }
}

impl State {
    /// The machines of instances that may have the volume.
    pub(crate) fn users_of(&self, volume_id: &Id) -> impl Iterator<Item = Id> {
        let may_use = |used: &Option<BTreeSet<Id>>| used.as_ref().is_none_or(|used| used.contains(volume_id));
        self.users.iter().filter(move |(_, used)| may_use(used)).map(|(id, _)| id.clone())
    }

    pub(crate) fn is_used(&self, volume_id: &Id) -> bool {
        self.users_of(volume_id).next().is_some()
    }

    pub(crate) fn has_idle_sharing(&self) -> bool {
        let is_idle = |(id, entry): (&Id, &Entry)| entry.sharing.is_some() && !self.is_used(id);
        self.replaced && self.volumes.iter().any(is_idle)
    }

    /// What shall be done about a volume now.
    fn work(&self, volume_id: &Id) -> Option<Work> {
        let entry = self.volumes.get(volume_id).filter(|entry| self.replaced && !entry.busy)?;
        if let Some(sharing) = &entry.sharing {
            if !self.is_used(volume_id) {
                return Some(Work::Unshare);
            }
            if entry.desired.is_some() && sharing.limits != Some(entry.shared_limits()) {
                return Some(Work::Share);
            }
        }
        match (&entry.desired, &entry.state) {
            (Some(volume), Made::NotYet) => Some(Work::Make(volume.clone().into())),
            (Some(volume), Made::Ready { size_gib, failed })
                if *size_gib < volume.size_gib
                    && failed.is_none_or(|generation| generation < volume.generation) =>
            {
                Some(Work::Make(volume.clone().into()))
            }
            (Some(volume), Made::Failed { generation, .. }) if *generation < volume.generation => {
                Some(Work::Make(volume.clone().into()))
            }
            (Some(_), _) => None,
            (None, _) => (!self.is_used(volume_id)).then_some(Work::Delete),
        }
    }
}
