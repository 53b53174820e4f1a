//! Machines that are launched of a snapshot, as an agent does it. QEMU runs without a guest; what a guest would read is read
//! by a monitor.

use crate::examples;
use crate::qmp::Qmp;
use agent::{Agent, AgentOptions, LocalDisks};
use agent_api::{Desired, DiskBus, HostAgent, InstanceObservation, Observation, VolumeState};
use host::machine::{Acceleration, QemuHypervisor, QemuOptions};
use host::net::FakeNetwork;
use model::{Environment, Id, Kind};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use volume::Disks;

pub struct Machines {
    dir: PathBuf,
    agent: Arc<Agent>,
    seen: UnboundedReceiver<Observation>,
}

/// One that runs, with one disk.
pub struct Running {
    pub took: Duration,
    volume_id: Id,
    monitor: Qmp,
}

impl Machines {
    pub async fn start(dir: &Path, disks: Arc<Disks>) -> Machines {
        let options = QemuOptions::new(dir.join("machines"), Acceleration::Tcg);
        let agent = Agent::start(
            AgentOptions { reboot_grace: Duration::ZERO, ..AgentOptions::new(dir.join("host")) },
            Arc::new(QemuHypervisor::open(options).unwrap()),
            Arc::new(FakeNetwork::new()),
            Arc::new(LocalDisks(disks)),
            Environment::system(),
            examples::host_description(),
        );
        let agent = agent.await.unwrap();
        let seen = agent.observe();
        let machines = Machines { dir: dir.to_owned(), agent, seen };
        machines.agent.replace(Desired::default()).await;
        machines
    }

    /// From the wish to the machine's run, its disk a volume of this snapshot.
    pub async fn launch(&mut self, number: u32, size_gib: u32, snapshot_id: &str) -> Running {
        let mut instance = examples::instance(number);
        instance.interfaces.clear();
        instance.machine.disk_bus = DiskBus::Nvme;
        instance.disks[0].limits = None;
        let volume = agent_api::Volume {
            size_gib,
            snapshot_id: Some(Id::parse(Kind::Snapshot, snapshot_id).unwrap()),
            ..examples::volume(number)
        };
        let (instance_id, volume_id) = (instance.instance_id.clone(), volume.volume_id.clone());
        let desired = Desired {
            volumes: [(volume_id.clone(), volume)].into(),
            instances: [(instance_id.clone(), instance)].into(),
            ..Desired::default()
        };
        let began = Instant::now();
        self.agent.replace(desired).await;
        self.wait(|seen| match seen {
            Observation::Instance(seen) => {
                seen.instance_id == instance_id && seen.state == InstanceObservation::Running
            }
            Observation::Volume { .. } => false,
        })
        .await;
        let took = began.elapsed();
        let monitor = self.dir.join(format!("machines/{instance_id}/qmp-spare.sock"));
        let monitor = Qmp::connect(&monitor, Duration::from_secs(5)).await.unwrap();
        Running { took, volume_id, monitor }
    }

    /// Machine and volume are gone.
    pub async fn terminate(&mut self, machine: Running) {
        self.agent.replace(Desired::default()).await;
        let gone = |seen: &Observation| match seen {
            Observation::Volume { volume_id, state } => {
                *volume_id == machine.volume_id && *state == VolumeState::Removed
            }
            Observation::Instance(_) => false,
        };
        self.wait(gone).await;
    }

    async fn wait(&mut self, is_so: impl Fn(&Observation) -> bool) {
        while !is_so(&self.seen.recv().await.unwrap()) {}
    }
}

impl Running {
    /// So many bytes from there on.
    pub async fn read(&self, offset: u64, bytes: usize) -> Duration {
        let line = format!("qemu-io -d /machine/peripheral/{} \"read {offset} {bytes}\"", self.volume_id);
        let began = Instant::now();
        let said = self.monitor.execute("human-monitor-command", json!({ "command-line": line })).await;
        assert_eq!(said.unwrap(), "");
        began.elapsed()
    }
}
