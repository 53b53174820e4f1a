//! The agent of a real host: takes in what is desired and hands each part to what keeps it.
//!
//! ```text
//!   start ──▶ adopt: what runs and what ended is known, what runs is told, nothing is touched
//!   replace ─▶ what shall be is known: from here on the host is made so
//!   apply ──▶ each change goes to the instance, volume or network that it is about
//!   drop ───▶ the tasks end, machines and networks stay as they are
//! ```

use crate::credits::Credits;
use crate::filling::ServedLayers;
use crate::instance::{Desire, Handle, Host, InstanceTask, stop_cause};
use crate::lifecycle::Actual;
use crate::metadata::{Identity, TokenKey};
use crate::network::HostNetwork;
use crate::observations::Observations;
use crate::scratch::Scratch;
use crate::services::Services;
use crate::status::Checks;
use crate::tasks::Tasks;
use crate::volumes::{Disks, Volumes};
use agent_api::{
    CONSOLE_BYTES_MAX, Change, Desired, HostAgent, HostDescription, HostError, Instance, InstanceObservation,
    NewSnapshot, Observation, UefiVariable, Unfilled,
};
use async_trait::async_trait;
use host::machine::{FoundState, Hypervisor, MachineError};
use host::net::Network;
use model::{Environment, Id, Kind};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::Instrument as _;

#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Where the agent's own key is kept (`token.key`), made on first use, and balances of CPU credits.
    pub state_dir: PathBuf,
    /// Where the cloud's identity key and certificate are (`identity.key`, `identity.crt`), made on first use.
    /// The same for all hosts of a cloud.
    pub identity_dir: PathBuf,
    /// How long a guest may take to power off when it is rebooted, before its machine is ended.
    pub reboot_grace: Duration,
    /// The same when it is stopped.
    pub stop_grace: Duration,
    /// How often each running instance's status is checked.
    pub status_check_period: Duration,
}

impl AgentOptions {
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let state_dir = state_dir.into();
        AgentOptions {
            identity_dir: state_dir.clone(),
            state_dir,
            reboot_grace: Duration::from_secs(60),
            stop_grace: Duration::from_secs(90),
            status_check_period: Duration::from_secs(60),
        }
    }
}

/// Why an agent can not work on this host.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the machines of this host could not be found again")]
    Machines(#[from] MachineError),
    #[error("the volumes of this host could not be found again")]
    Volumes(#[from] crate::DiskError),
    #[error("the keys of the metadata service could not be read or made")]
    Keys(#[source] std::io::Error),
}

pub struct Agent {
    description: HostDescription,
    host: Arc<Host>,
    tasks: Arc<Tasks>,
    desired: Mutex<Option<Desired>>,
    adopted: Mutex<Vec<Id>>,
}

impl Agent {
    pub async fn start(
        options: AgentOptions,
        hypervisor: Arc<dyn Hypervisor>,
        network: Arc<dyn Network>,
        disks: Arc<dyn Disks>,
        environment: Environment,
        description: HostDescription,
    ) -> Result<Arc<Agent>, StartError> {
        let tasks = Arc::new(Tasks::default());
        let observations = Arc::new(Observations::default());
        let volumes = Volumes::new(disks, hypervisor.clone(), observations.clone(), tasks.clone());
        volumes.find().await?;
        hypervisor.serve_layers(Arc::new(ServedLayers(Arc::downgrade(&volumes))));
        let token_key =
            TokenKey::load_or_make(&options.state_dir, &*environment.random).map_err(StartError::Keys)?;
        let identity = Identity::new(options.identity_dir.clone(), environment.clone());
        let network = HostNetwork::new(network);
        let warm = identity.clone();
        tasks.spawn(async move { warm.prepare().await });
        let credits = Credits::new(&options.state_dir, hypervisor.clone(), environment.clone());
        tasks.spawn(credits.clone().run());
        let checks = Checks::new(
            hypervisor.clone(),
            network.clone(),
            observations.clone(),
            environment.clone(),
            options.status_check_period,
        );
        tasks.spawn(checks.clone().run());
        let services = Services::new(environment, token_key, identity);
        let host = Arc::new(Host {
            hypervisor,
            network: network.clone(),
            volumes,
            observations,
            checks,
            credits,
            scratch: Scratch::new(&options.state_dir),
            options,
            instances: Mutex::default(),
        });
        let agent = Agent { description, host, tasks, desired: Mutex::default(), adopted: Mutex::default() };
        agent.adopt().await?;
        let running = agent.adopted.lock().iter().cloned().collect();
        agent.host.volumes.finish_all(running).await?;
        agent.tasks.spawn(network.run(services));
        agent.tasks.spawn(agent.host.volumes.clone().fill());
        Ok(Arc::new(agent))
    }

    async fn adopt(&self) -> Result<(), MachineError> {
        // Subscribed first, so that no end falls between the two.
        let mut ends = self.host.hypervisor.ends();
        for found in self.host.hypervisor.adopt().await? {
            if Id::is_of(Kind::Volume, &found.instance_id) {
                self.host.volumes.found_sharing(&found.instance_id);
                continue;
            }
            let boot = found.boot;
            let actual = match found.state {
                FoundState::Running => {
                    self.host.volumes.hold(&found.instance_id, None);
                    self.adopted.lock().push(found.instance_id.clone());
                    Actual::Running { boot }
                }
                FoundState::Ended(cause) => Actual::Stopped { boot, cause: stop_cause(cause) },
            };
            self.spawn(&mut self.host.instances.lock(), found.instance_id, Desire::Unknown, actual);
        }
        let host = self.host.clone();
        self.tasks.spawn(async move {
            while let Some(ended) = ends.recv().await {
                if Id::is_of(Kind::Volume, &ended.instance_id) {
                    host.volumes.found_sharing(&ended.instance_id);
                } else if let Some(handle) = host.instances.lock().get(&ended.instance_id) {
                    // Its task is only gone where the machine is too.
                    let _ = handle.ends.send(ended);
                }
            }
        });
        Ok(())
    }

    fn spawn(&self, instances: &mut HashMap<Id, Handle>, instance_id: Id, desire: Desire, actual: Actual) {
        let (task, handle) = InstanceTask::new(&self.host, instance_id.clone(), desire, actual);
        let span = tracing::info_span!("instance", %instance_id);
        instances.insert(instance_id, handle);
        self.tasks.spawn(task.run().instrument(span));
    }

    fn put_instance(&self, instance: &Instance) {
        let mut instances = self.host.instances.lock();
        let desire = Desire::Put(Arc::new(instance.clone()));
        match instances.get(&instance.instance_id) {
            Some(handle) => change(handle, desire),
            None => self.spawn(&mut instances, instance.instance_id.clone(), desire, Actual::Absent),
        }
    }

    fn remove_instance(&self, instance_id: &Id) {
        match self.host.instances.lock().get(instance_id) {
            Some(handle) => change(handle, Desire::Gone),
            // Control may not know that it is gone.
            None => self.host.observations.tell_instance(instance_id, 0, InstanceObservation::Removed),
        }
    }

    /// Hands on what the desire has become by a change.
    fn changed(&self, desired: &Desired, change: &Change) {
        let host = &self.host;
        match change {
            Change::PutVpc(vpc) => {
                desired.vpcs.get(&vpc.network.vpc_id).into_iter().for_each(|vpc| host.network.put_vpc(vpc));
            }
            Change::RemoveVpc(id) => host.network.remove_vpc(id),
            Change::PutSecurityGroup(group) => {
                let current = desired.security_groups.get(&group.network.group_id);
                current.into_iter().for_each(|group| host.network.put_group(group));
            }
            Change::RemoveSecurityGroup(id) => host.network.remove_group(id),
            Change::PutPublicPool(_) | Change::RemovePublicPool(_) => {
                host.network.set_pools(&desired.public_pools);
            }
            Change::PutVolume(volume) => {
                desired
                    .volumes
                    .get(&volume.volume_id)
                    .into_iter()
                    .for_each(|volume| host.volumes.put(volume));
            }
            Change::RemoveVolume(id) => host.volumes.remove(id),
            Change::PutInstance(instance) => {
                let current = desired.instances.get(&instance.instance_id);
                current.into_iter().for_each(|instance| self.put_instance(instance));
            }
            Change::RemoveInstance(id) => self.remove_instance(id),
        }
    }
}

/// A message that changes nothing wakes nobody.
fn change(handle: &Handle, desire: Desire) {
    handle.desire.send_if_modified(|current| {
        let is_new = *current != desire;
        if is_new {
            *current = desire;
        }
        is_new
    });
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

#[async_trait]
impl HostAgent for Agent {
    fn describe(&self) -> HostDescription {
        self.description.clone()
    }

    async fn replace(&self, new: Desired) {
        let mut desired = self.desired.lock();
        // What runs already is part of the first plan, so that its traffic sees no gap.
        let adopted = std::mem::take(&mut *self.adopted.lock());
        let running = adopted.iter().filter_map(|id| new.instances.get(id)).map(|i| Arc::new(i.clone()));
        self.host.network.replace(&new, running.collect());
        let undesired: Vec<Id> = {
            let instances = self.host.instances.lock();
            instances.keys().filter(|id| !new.instances.contains_key(*id)).cloned().collect()
        };
        for instance_id in undesired {
            self.remove_instance(&instance_id);
        }
        for instance in new.instances.values() {
            self.put_instance(instance);
        }
        self.host.volumes.replace(&new.volumes);
        self.host.credits.sweep(new.instances.keys());
        self.host.scratch.sweep(new.instances.keys());
        *desired = Some(new);
    }

    async fn apply(&self, changes: Vec<Change>) {
        let mut desired = self.desired.lock();
        // Before the first `replace` nothing is acted upon, and it will tell these changes too.
        let Some(desired) = desired.as_mut() else { return };
        for change in changes {
            desired.apply(change.clone());
            self.changed(desired, &change);
        }
    }

    fn observe(&self) -> UnboundedReceiver<Observation> {
        self.host.observations.observe()
    }

    async fn create_snapshots(&self, snapshots: Vec<NewSnapshot>) -> Result<(), HostError> {
        self.host.volumes.create_snapshots(&snapshots).await
    }

    async fn console_output(&self, instance_id: &str) -> Result<Vec<u8>, HostError> {
        let instance_id = self.known(instance_id)?;
        match self.host.hypervisor.console_output(&instance_id, CONSOLE_BYTES_MAX).await {
            Ok(output) => Ok(output),
            // Not started yet.
            Err(MachineError::NotFound(_)) => Ok(Vec::new()),
            Err(error) => Err(host_error(&instance_id, error)),
        }
    }

    async fn console_screenshot(&self, instance_id: &str) -> Result<Vec<u8>, HostError> {
        let instance_id = self.known(instance_id)?;
        let screenshot = self.host.hypervisor.console_screenshot(&instance_id).await;
        screenshot.map_err(|error| host_error(&instance_id, error))
    }

    async fn unfilled_volumes(&self) -> Result<BTreeMap<Id, Unfilled>, HostError> {
        let unfilled = self.host.volumes.disks.unfilled().await;
        unfilled.map_err(|error| HostError::Failed(error.to_string()))
    }

    async fn uefi_variables(&self, instance_id: &str) -> Result<Vec<UefiVariable>, HostError> {
        let instance_id = self.known(instance_id)?;
        match self.host.hypervisor.uefi_variables(&instance_id).await {
            Ok(Some(variables)) => Ok(variables),
            // It has not run yet.
            Ok(None) | Err(MachineError::NotFound(_)) => {
                let desired = self.desired.lock();
                let instance = desired.as_ref().and_then(|desired| desired.instances.get(&instance_id));
                Ok(instance.map(|instance| instance.machine.uefi_variables.clone()).unwrap_or_default())
            }
            Err(error) => Err(host_error(&instance_id, error)),
        }
    }
}

impl Agent {
    fn known(&self, instance_id: &str) -> Result<Id, HostError> {
        let instances = self.host.instances.lock();
        let known = instances.get_key_value(instance_id).map(|(id, _)| id.clone());
        known.ok_or_else(|| HostError::NotFound(instance_id.to_owned()))
    }
}

fn host_error(instance_id: &Id, error: MachineError) -> HostError {
    match error {
        MachineError::NotFound(_) => HostError::Failed(format!("{instance_id} does not run")),
        MachineError::Failed(message) => HostError::Failed(message),
        MachineError::Io { .. } => {
            tracing::warn!(%instance_id, error = &error as &dyn std::error::Error, "machine does not answer");
            HostError::Failed(format!("The machine of {instance_id} does not answer"))
        }
    }
}
