//! The real host: this machine's drivers put together into an agent, and its files as the cloud's snapshot store.

use crate::config::Config;
use agent::{Agent, AgentOptions, DiskError, DiskFile, Disks};
use agent_api::{Architecture, HostAgent, HostDescription, HostError, PROTOCOL_VERSION, SnapshotStore};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use control::HostSource;
use host::machine::{Acceleration, DiskFormat, QemuHypervisor, QemuOptions, prove};
use host::net::{LinuxNetwork, NetOptions, Network};
use ipnet::Ipv4Net;
use model::{Environment, Id, Region};
use std::path::Path;
use std::sync::Arc;
use volume::{Backing, Snapshots, VolumeError, Volumes};

/// What the host keeps of its memory for itself.
const MEMORY_RESERVED_MIB: u64 = 1024;

pub struct Machine {
    agent: Arc<Agent>,
    network: Arc<LinuxNetwork>,
    snapshots: Arc<HostSnapshots>,
}

impl Machine {
    pub async fn open(config: &Config, environment: &Environment) -> Result<Machine> {
        if !rustix::process::geteuid().is_root() {
            bail!("real instances need root; 'cumulet serve --simulate' does not");
        }
        let data_dir = config.data_dir.as_deref().context("real instances need a data directory")?;
        let data_dir =
            data_dir.canonicalize().with_context(|| format!("cannot find {}", data_dir.display()))?;
        let snapshots = Arc::new(Snapshots::open(&data_dir.join("snapshots"))?);
        let volumes = Arc::new(Volumes::open(&data_dir.join("volumes"), snapshots.clone())?);
        let acceleration = acceleration(&data_dir).await?;
        let hypervisor = QemuHypervisor::open(QemuOptions::new(data_dir.join("machines"), acceleration))?;
        let network = Arc::new(network(config.public_pool, &data_dir)?);
        let agent = Agent::start(
            AgentOptions {
                status_check_period: config.status_check_period,
                ..AgentOptions::new(data_dir.join("host"))
            },
            Arc::new(hypervisor),
            network.clone(),
            Arc::new(HostDisks(volumes.clone())),
            environment.clone(),
            describe(&data_dir, acceleration)?,
        )
        .await?;
        Ok(Machine { agent, network, snapshots: Arc::new(HostSnapshots { snapshots, volumes }) })
    }

    pub fn hosts(&self) -> Arc<dyn HostSource> {
        Arc::new(ThisHost(self.agent.clone()))
    }

    pub fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        self.snapshots.clone()
    }

    /// Leaves nothing of the cloud on the machine but its data. Only where no instance runs.
    pub async fn clear(self) -> Result<()> {
        drop(self.agent);
        Ok(self.network.remove_all().await?)
    }
}

/// The network of the cloud with this data directory; another's on the same machine has another tag.
pub fn network(public_pool: Ipv4Net, data_dir: &Path) -> Result<LinuxNetwork> {
    Ok(LinuxNetwork::new(NetOptions::new(tag(data_dir), public_pool, data_dir.join("host")))?)
}

/// The same for the same data directory, 8 hexadecimal digits.
fn tag(data_dir: &Path) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

fn describe(data_dir: &Path, acceleration: Acceleration) -> Result<HostDescription> {
    let memory = std::fs::read_to_string("/proc/meminfo").context("cannot read how much memory there is")?;
    let total_kib =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let total_mib = total_kib.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) / 1024;
    let space = rustix::fs::statvfs(data_dir)?;
    Ok(HostDescription {
        host_id: "host-00000".into(),
        protocol_version: PROTOCOL_VERSION,
        architecture: Architecture::X86_64,
        cores: u32::try_from(std::thread::available_parallelism()?.get())?,
        memory_mib: total_mib.saturating_sub(MEMORY_RESERVED_MIB),
        disk_gib: (space.f_blocks * space.f_frsize) >> 30,
        zone: 0,
        rack: "rack-0000".into(),
        acceleration: acceleration.as_str().into(),
    })
}

/// Proved by running a guest, which takes seconds the first time.
async fn acceleration(data_dir: &Path) -> Result<Acceleration> {
    let dir = data_dir.to_owned();
    let proof = tokio::task::spawn_blocking(move || prove(&dir)).await?;
    if proof.acceleration == Acceleration::Tcg {
        tracing::warn!(why = proof.why, "guests are emulated, which is slow");
    }
    Ok(proof.acceleration)
}

/// A cloud of one machine.
struct ThisHost(Arc<Agent>);

#[async_trait]
impl HostSource for ThisHost {
    async fn hosts(&self, _: &Region) -> model::Result<Vec<Arc<dyn HostAgent>>> {
        Ok(vec![self.0.clone()])
    }
}

/// Runs what waits for the disk off the threads that serve.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

struct HostDisks(Arc<Volumes>);

fn disk_error(error: VolumeError) -> DiskError {
    match error {
        VolumeError::Io { what, path, source } => {
            DiskError::Io { what: format!("{what} {}", path.display()), source }
        }
        other => DiskError::Failed(other.to_string()),
    }
}

#[async_trait]
impl Disks for HostDisks {
    async fn list(&self) -> Result<Vec<Id>, DiskError> {
        let volumes = self.0.clone();
        let names = blocking(move || volumes.list()).await.map_err(DiskError::Failed)?.map_err(disk_error)?;
        Ok(names.iter().filter_map(|name| Id::parse(model::Kind::Volume, name).ok()).collect())
    }

    async fn ensure(&self, volume: &agent_api::Volume) -> Result<DiskFile, DiskError> {
        let (volumes, volume) = (self.0.clone(), volume.clone());
        let made = blocking(move || {
            volumes.ensure(&volume.volume_id, volume.size_gib, volume.snapshot_id.as_deref())
        });
        let file = made.await.map_err(DiskError::Failed)?.map_err(disk_error)?;
        let format = match file.backing {
            Backing::None => DiskFormat::Raw,
            Backing::Raw(backing) => DiskFormat::Qcow2 { backing: Some(backing) },
        };
        Ok(DiskFile { path: file.path, format })
    }

    async fn delete(&self, volume_id: &Id) -> Result<(), DiskError> {
        let (volumes, volume_id) = (self.0.clone(), volume_id.clone());
        blocking(move || volumes.delete(&volume_id)).await.map_err(DiskError::Failed)?.map_err(disk_error)
    }
}

struct HostSnapshots {
    snapshots: Arc<Snapshots>,
    volumes: Arc<Volumes>,
}

impl HostSnapshots {
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshots) -> volume::Result<T> + Send + 'static,
    ) -> Result<T, HostError> {
        let snapshots = self.snapshots.clone();
        blocking(move || work(&snapshots)).await.map_err(HostError::Failed)?.map_err(host_error)
    }
}

fn host_error(error: VolumeError) -> HostError {
    match error {
        VolumeError::NotFound(what) => HostError::NotFound(what),
        other => HostError::Failed(format!("{:#}", anyhow::Error::from(other))),
    }
}

#[async_trait]
impl SnapshotStore for HostSnapshots {
    async fn begin(&self, snapshot_id: &str, size_gib: u32) -> Result<(), HostError> {
        let id = snapshot_id.to_owned();
        self.with(move |snapshots| snapshots.begin(&id, size_gib)).await
    }

    async fn put_block(&self, snapshot_id: &str, index: u32, data: &[u8]) -> Result<(), HostError> {
        let (id, data) = (snapshot_id.to_owned(), data.to_vec());
        self.with(move |snapshots| snapshots.put_block(&id, index, &data)).await
    }

    async fn complete(&self, snapshot_id: &str) -> Result<(), HostError> {
        let id = snapshot_id.to_owned();
        self.with(move |snapshots| snapshots.complete(&id)).await
    }

    async fn get_block(&self, snapshot_id: &str, index: u32) -> Result<Option<Vec<u8>>, HostError> {
        let id = snapshot_id.to_owned();
        self.with(move |snapshots| snapshots.get_block(&id, index)).await
    }

    async fn list_blocks(&self, snapshot_id: &str, start: u32, limit: usize) -> Result<Vec<u32>, HostError> {
        let id = snapshot_id.to_owned();
        self.with(move |snapshots| snapshots.list_blocks(&id, start, limit)).await
    }

    async fn delete(&self, snapshot_id: &str) -> Result<(), HostError> {
        let (volumes, id) = (self.volumes.clone(), snapshot_id.to_owned());
        let deleted = blocking(move || volumes.delete_snapshot(&id)).await;
        deleted.map_err(HostError::Failed)?.map_err(host_error)
    }
}
