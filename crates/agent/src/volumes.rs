//! The volumes of the host: made when desired, before the machines that use them; deleted when no longer desired,
//! after the machines that use them are gone.
//!
//! Invariant: nothing is deleted while a machine runs whose disks are not known (one that was found running and
//! of which control has not spoken, or speaks no more).

use crate::observations::Observations;
use crate::tasks::{Backoff, Tasks};
use agent_api::{Volume, VolumeState};
use async_trait::async_trait;
use host::machine::DiskLayer;
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

    /// Makes the volume from its snapshot, or of zeros, where it is not whole yet, and says where it is.
    /// Idempotent; data that is there is never touched.
    async fn ensure(&self, volume: &Volume) -> Result<DiskFile, DiskError>;

    /// Nothing of the volume is left afterwards. No error where nothing was.
    async fn delete(&self, volume_id: &Id) -> Result<(), DiskError>;
}

/// What a machine opens for a volume.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskFile {
    /// The uppermost first; it is the only one to be written to.
    pub layers: Vec<DiskLayer>,
}

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Trying again will not help. The message is for the user.
    #[error("{0}")]
    Failed(String),
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
    disks: Arc<dyn Disks>,
    observations: Arc<Observations>,
    tasks: Arc<Tasks>,
    making: Semaphore,
    state: Mutex<State>,
    /// Says that some volume's state has changed.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<Id, Entry>,
    /// The disks of each machine that runs or is being started; None where they are not known.
    users: HashMap<Id, Option<BTreeSet<Id>>>,
    /// Whether control has said what is desired.
    replaced: bool,
}

#[derive(Default)]
struct Entry {
    desired: Option<Volume>,
    state: Made,
    /// A task is at work on it.
    busy: bool,
}

#[derive(Default)]
enum Made {
    #[default]
    NotYet,
    Ready(DiskFile),
    Failed {
        generation: u64,
        message: String,
    },
}

enum Work {
    Make(Volume),
    Delete,
}

impl Volumes {
    pub(crate) fn new(
        disks: Arc<dyn Disks>,
        observations: Arc<Observations>,
        tasks: Arc<Tasks>,
    ) -> Arc<Self> {
        Arc::new(Volumes {
            disks,
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
        let had = self.state.lock().users.insert(instance_id.clone(), volumes);
        if had == Some(None) {
            // What it might have used, and does not, may go.
            self.work_on_all();
        }
    }

    pub(crate) fn release(self: &Arc<Self>, instance_id: &Id) {
        if self.state.lock().users.remove(instance_id).is_some() {
            self.work_on_all();
        }
    }

    /// Waits until the volume is ready. The error is for the user.
    pub(crate) async fn ready(&self, volume_id: &Id) -> Result<DiskFile, String> {
        let mut changed = self.changed.subscribe();
        let undesired = tokio::time::sleep(DESIRED_WITHIN);
        tokio::pin!(undesired);
        loop {
            changed.mark_unchanged();
            let is_desired = match self.state.lock().volumes.get(volume_id) {
                Some(Entry { state: Made::Ready(file), desired: Some(_), .. }) => return Ok(file.clone()),
                Some(Entry { state: Made::Failed { message, .. }, desired: Some(_), busy: false }) => {
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

    fn work_on(self: &Arc<Self>, state: &mut State, volume_id: &Id) {
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
            match work {
                Work::Make(volume) => self.make(volume).await,
                Work::Delete => {
                    if let Err(error) = self.disks.delete(&volume_id).await {
                        tracing::error!(%volume_id, error = &error as &dyn std::error::Error, "volume not deleted");
                        backoff.wait().await;
                        continue;
                    }
                    self.deleted(&volume_id);
                }
            }
        }
        self.changed.send_replace(());
    }

    async fn make(&self, volume: Volume) {
        let volume_id = &volume.volume_id;
        let Ok(_permit) = self.making.acquire().await else { return };
        let mut backoff = Backoff::new();
        let mut attempt = 1;
        let made = loop {
            match self.disks.ensure(&volume).await {
                Ok(file) => break Ok(file),
                Err(DiskError::Failed(message)) => break Err(message),
                Err(error) => {
                    tracing::warn!(%volume_id, attempt, error = &error as &dyn std::error::Error, "volume not made");
                    if attempt == ATTEMPTS_MAX {
                        break Err(format!("The volume {volume_id} could not be made"));
                    }
                    attempt += 1;
                    backoff.wait().await;
                }
            }
        };
        let told = match &made {
            Ok(_) => VolumeState::Ready { size_gib: volume.size_gib },
            Err(message) => VolumeState::Failed { message: message.clone() },
        };
        if let Some(entry) = self.state.lock().volumes.get_mut(volume_id) {
            entry.state = match made {
                Ok(file) => Made::Ready(file),
                Err(message) => Made::Failed { generation: volume.generation, message },
            };
        }
        self.observations.tell_volume(volume_id, told);
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

impl State {
    /// What shall be done about a volume now.
    fn work(&self, volume_id: &Id) -> Option<Work> {
        let entry = self.volumes.get(volume_id).filter(|entry| self.replaced && !entry.busy)?;
        match (&entry.desired, &entry.state) {
            (Some(volume), Made::NotYet) => Some(Work::Make(volume.clone())),
            (Some(volume), Made::Failed { generation, .. }) if *generation < volume.generation => {
                Some(Work::Make(volume.clone()))
            }
            (Some(_), _) => None,
            (None, _) => {
                let is_used = self
                    .users
                    .values()
                    .any(|disks| disks.as_ref().is_none_or(|disks| disks.contains(volume_id)));
                (!is_used).then_some(Work::Delete)
            }
        }
    }
}
