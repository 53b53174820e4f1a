//! The real host: this machine's drivers put together into an agent, and its files as the cloud's snapshot store.

use crate::config::Config;
use agent::{Agent, AgentOptions, Backend, LocalDisks};
use agent_api::{Architecture, HostAgent, HostDescription, HostLink, PROTOCOL_VERSION, SnapshotStore};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use control::HostSource;
use host::machine::{Acceleration, QemuHypervisor, QemuOptions, prove};
use host::net::{LinuxNetwork, NetOptions, Network};
use ipnet::Ipv4Net;
use model::{Environment, Region};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What the host keeps of its memory for itself.
const MEMORY_RESERVED_MIB: u64 = 1024;
/// How often the disk is looked at, and the block store.
const TIDY_PERIOD: Duration = Duration::from_secs(60 * 60);

pub struct Machine {
    agent: Arc<Agent>,
    network: Arc<LinuxNetwork>,
    backend: Arc<dyn Backend>,
}

impl Machine {
    pub async fn open(config: &Config, environment: &Environment) -> Result<Machine> {
        if !rustix::process::geteuid().is_root() {
            bail!("real instances need root; 'cumulet serve --simulate' does not");
        }
        let data_dir = config.data_dir.as_deref().context("real instances need a data directory")?;
        let data_dir =
            data_dir.canonicalize().with_context(|| format!("cannot find {}", data_dir.display()))?;
        let disks = volume::Disks::open_at(&data_dir, config.block_store.as_deref())?;
        let backend: Arc<dyn Backend> = Arc::new(LocalDisks(Arc::new(disks)));
        let acceleration = acceleration(&data_dir).await?;
        let hypervisor = QemuHypervisor::open(QemuOptions::new(data_dir.join("machines"), acceleration))?;
        // Guests have no other way to it where it listens to the host alone.
        let api_port = (!config.listen.ip().is_loopback()).then_some(config.listen.port());
        let options = network_options(config.public_pool, &data_dir);
        let options = NetOptions { api_port, mtu: config.mtu, underlay: config.underlay, ..options };
        let network = Arc::new(LinuxNetwork::new(options)?);
        if let Some(underlay) = config.underlay
            && !network.links().await?.values().flatten().any(|own| *own == underlay)
        {
            bail!("no network interface of this host has the address {underlay} (--underlay)");
        }
        let agent = Agent::start(
            AgentOptions {
                status_check_period: config.status_check_period,
                ..AgentOptions::new(data_dir.join("host"))
            },
            Arc::new(hypervisor),
            network.clone(),
            backend.clone(),
            environment.clone(),
            describe(&data_dir, acceleration, &network).await?,
        )
        .await?;
        tokio::spawn(tidy(Arc::downgrade(&backend), config.keep_free));
        Ok(Machine { agent, network, backend })
    }

    pub fn hosts(&self) -> Arc<dyn HostSource> {
        Arc::new(ThisHost(self.agent.clone()))
    }

    pub fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        self.backend.clone()
    }

    /// Leaves nothing of the cloud on the machine but its data. Only where no instance runs.
    pub async fn clear(self) -> Result<()> {
        drop(self.agent);
        Ok(self.network.remove_all().await?)
    }
}

/// The network of the cloud with this data directory; another's on the same machine has another tag.
pub fn network_options(public_pool: Ipv4Net, data_dir: &Path) -> NetOptions {
    NetOptions::new(tag(data_dir), public_pool, data_dir.join("host"))
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
async fn tidy(backend: Weak<dyn Backend>, keep_free: u8) {
    let mut times = tokio::time::interval(TIDY_PERIOD);
    loop {
        times.tick().await;
        let Some(backend) = backend.upgrade() else { return };
        match backend.tidy(keep_free).await {
            Ok(tidied) if tidied.blocks > 0 => {
                tracing::info!(tidied.blocks, tidied.bytes, "removed from the block store");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the block store is not tidied");
            }
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
