//! The real host: this machine's drivers put together into an agent, and its files as the cloud's snapshot store.

use crate::config::Config;
use agent::{Agent, AgentOptions, DiskError, DiskFile, Disks, Freeze};
use agent_api::{
    Architecture, ChangedBlock, HostAgent, HostDescription, HostError, HostLink, NewSnapshot,
    PROTOCOL_VERSION, SnapshotStore,
};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use control::HostSource;
use host::machine::{Acceleration, DiskFormat, DiskLayer, QemuHypervisor, QemuOptions, prove};
use host::net::{LinuxNetwork, NetOptions, Network};
use ipnet::Ipv4Net;
use model::{Environment, Id, Region};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use volume::{VolumeDisk, VolumeError};

/// What the host keeps of its memory for itself.
const MEMORY_RESERVED_MIB: u64 = 1024;
/// How often the disk is looked at, and the block store.
const TIDY_PERIOD: Duration = Duration::from_secs(60 * 60);

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
        let disks = Arc::new(volume::Disks::open(&data_dir)?);
        let acceleration = acceleration(&data_dir).await?;
        let hypervisor = QemuHypervisor::open(QemuOptions::new(data_dir.join("machines"), acceleration))?;
        // Guests have no other way to it where it listens to the host alone.
        let api_port = (!config.listen.ip().is_loopback()).then_some(config.listen.port());
        let network = Arc::new(network(config.public_pool, api_port, &data_dir)?);
        let agent = Agent::start(
            AgentOptions {
                status_check_period: config.status_check_period,
                ..AgentOptions::new(data_dir.join("host"))
            },
            Arc::new(hypervisor),
            network.clone(),
            Arc::new(HostDisks(disks.clone())),
            environment.clone(),
            describe(&data_dir, acceleration, &network).await?,
        )
        .await?;
        tokio::spawn(tidy(Arc::downgrade(&disks)));
        Ok(Machine { agent, network, snapshots: Arc::new(HostSnapshots(disks)) })
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
pub fn network(public_pool: Ipv4Net, api_port: Option<u16>, data_dir: &Path) -> Result<LinuxNetwork> {
    let options = NetOptions::new(tag(data_dir), public_pool, data_dir.join("host"));
    Ok(LinuxNetwork::new(NetOptions { api_port, ..options })?)
}

/// The same for the same data directory, 8 hexadecimal digits.
fn tag(data_dir: &Path) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

async fn describe(
    data_dir: &Path,
    acceleration: Acceleration,
    network: &LinuxNetwork,
) -> Result<HostDescription> {
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
        links: network
            .links()
            .await?
            .into_iter()
            .map(|(name, addresses)| HostLink { name, addresses })
            .collect(),
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

/// From time to time: what nobody needs goes from the block store, and where the disk is nearly full, what the store has
/// goes from the disk.
async fn tidy(disks: Weak<volume::Disks>) {
    let mut times = tokio::time::interval(TIDY_PERIOD);
    loop {
        times.tick().await;
        let Some(disks) = disks.upgrade() else { return };
        let tidied = blocking(move || disks.make_room().and_then(|()| disks.collect())).await;
        match tidied {
            Ok(Ok(collected)) if collected.blocks > 0 => {
                tracing::info!(collected.blocks, collected.bytes, "removed from the block store");
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the block store is not tidied");
            }
            Err(error) => tracing::warn!(error, "the block store is not tidied"),
        }
    }
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

struct HostDisks(Arc<volume::Disks>);

impl HostDisks {
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&volume::Disks) -> volume::Result<T> + Send + 'static,
    ) -> Result<T, DiskError> {
        let disks = self.0.clone();
        blocking(move || work(&disks)).await.map_err(DiskError::Failed)?.map_err(disk_error)
    }
}

fn freeze(freeze: volume::Freeze) -> Freeze {
    let id = |kind, text: &str| Id::parse(kind, text).ok();
    let volume =
        |frozen: volume::Frozen| Some((id(model::Kind::Volume, &frozen.volume_id)?, disk_file(frozen.disk)));
    Freeze {
        key: freeze.key,
        instance_id: freeze.instance_id.and_then(|text| id(model::Kind::Instance, &text)),
        volumes: freeze.volumes.into_iter().filter_map(volume).collect(),
    }
}

fn disk_file(disk: VolumeDisk) -> DiskFile {
    disk_layers(disk.layers)
}

fn disk_layers(layers: Vec<volume::Layer>) -> DiskFile {
    let layer = |layer: volume::Layer| DiskLayer {
        path: layer.path,
        format: match layer.format {
            volume::Format::Raw => DiskFormat::Raw,
            volume::Format::Qcow2 => DiskFormat::Qcow2,
        },
    };
    DiskFile { layers: layers.into_iter().map(layer).collect() }
}

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
        let names = self.with(|disks| Ok(disks.volumes())).await?;
        Ok(names.iter().filter_map(|name| Id::parse(model::Kind::Volume, name).ok()).collect())
    }

    async fn ensure(&self, volume: &agent_api::Volume) -> Result<(), DiskError> {
        let volume = volume.clone();
        let ensure = move |disks: &volume::Disks| {
            if volume.made && disks.disk(&volume.volume_id).is_err_and(|error| error.is_not_found()) {
                return Ok(Err(DiskError::Lost(volume.volume_id)));
            }
            disks.ensure(&volume.volume_id, volume.size_gib, volume.snapshot_id.as_deref()).map(|_| Ok(()))
        };
        self.with(ensure).await?
    }

    async fn open(&self, volume_id: &Id) -> Result<DiskFile, DiskError> {
        let volume_id = volume_id.clone();
        self.with(move |disks| disks.fit(&volume_id)).await.map(disk_file)
    }

    async fn layers(&self, volume_id: &Id) -> Result<DiskFile, DiskError> {
        let volume_id = volume_id.clone();
        self.with(move |disks| disks.disk(&volume_id)).await.map(disk_file)
    }

    async fn begin_freeze(
        &self,
        snapshots: &[NewSnapshot],
        instance_id: Option<&Id>,
    ) -> Result<Option<Freeze>, DiskError> {
        let (snapshots, instance_id) = (snapshots.to_vec(), instance_id.cloned());
        let begin = move |disks: &volume::Disks| {
            let pairs = snapshots.iter().map(|new| (&*new.snapshot_id, &*new.volume_id));
            disks.begin_freeze(&pairs.collect::<Vec<_>>(), instance_id.as_deref())
        };
        Ok(self.with(begin).await?.map(freeze))
    }

    async fn freezes(&self) -> Result<Vec<Freeze>, DiskError> {
        Ok(self.with(|disks| disks.freezes()).await?.into_iter().map(freeze).collect())
    }

    async fn finish_freeze(&self, key: &str) -> Result<(), DiskError> {
        let key = key.to_owned();
        self.with(move |disks| disks.finish_freeze(&key)).await
    }

    async fn fold(&self, volume_id: &Id) -> Result<Option<DiskFile>, DiskError> {
        let volume_id = volume_id.clone();
        Ok(self.with(move |disks| disks.fold(&volume_id)).await?.map(disk_layers))
    }

    async fn undo_freeze(&self, key: &str) -> Result<(), DiskError> {
        let key = key.to_owned();
        self.with(move |disks| disks.undo_freeze(&key)).await
    }

    async fn delete(&self, volume_id: &Id) -> Result<(), DiskError> {
        let volume_id = volume_id.clone();
        self.with(move |disks| disks.delete(&volume_id)).await
    }
}

struct HostSnapshots(Arc<volume::Disks>);

impl HostSnapshots {
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&volume::Disks) -> volume::Result<T> + Send + 'static,
    ) -> Result<T, HostError> {
        let disks = self.0.clone();
        blocking(move || work(&disks)).await.map_err(HostError::Failed)?.map_err(host_error)
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
        self.with(move |disks| disks.begin(&id, size_gib)).await
    }

    async fn put_block(&self, snapshot_id: &str, index: u32, data: &[u8]) -> Result<(), HostError> {
        let (id, data) = (snapshot_id.to_owned(), data.to_vec());
        self.with(move |disks| disks.put_block(&id, index, &data)).await
    }

    async fn complete(&self, snapshot_id: &str) -> Result<(), HostError> {
        let id = snapshot_id.to_owned();
        self.with(move |disks| disks.complete(&id)).await
    }

    async fn get_block(&self, snapshot_id: &str, index: u32) -> Result<Option<Vec<u8>>, HostError> {
        let id = snapshot_id.to_owned();
        self.with(move |disks| disks.get_block(&id, index)).await
    }

    async fn list_blocks(&self, snapshot_id: &str, start: u32, limit: usize) -> Result<Vec<u32>, HostError> {
        let id = snapshot_id.to_owned();
        self.with(move |disks| disks.list_blocks(&id, start, limit)).await
    }

    async fn store(&self, snapshot_id: &str) -> Result<u8, HostError> {
        let id = snapshot_id.to_owned();
        self.with(move |disks| disks.store(&id)).await
    }

    async fn list_changed_blocks(
        &self,
        first: &str,
        second: &str,
        start: u32,
        limit: usize,
    ) -> Result<Vec<ChangedBlock>, HostError> {
        let (first, second) = (first.to_owned(), second.to_owned());
        let changed =
            self.with(move |disks| disks.list_changed_blocks(&first, &second, start, limit)).await?;
        let block = |block: volume::ChangedBlock| ChangedBlock {
            index: block.index,
            in_first: block.in_first,
            in_second: block.in_second,
        };
        Ok(changed.into_iter().map(block).collect())
    }

    async fn copy(&self, from: &str, to: &str) -> Result<(), HostError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.with(move |disks| disks.copy_snapshot(&from, &to)).await
    }

    async fn delete(&self, snapshot_id: &str) -> Result<(), HostError> {
        let id = snapshot_id.to_owned();
        self.with(move |disks| disks.delete_snapshot(&id)).await
    }
}
