//! `cumulet uninstall`: takes from the host what a cloud has made on it. The program itself, and what its owner wrote into
//! the data directory, stay.

use crate::config::{Config, DATA_DIR};
use crate::serve::{machine, state_file};
use anyhow::{Context, Result, bail};
use host::machine::{Acceleration, FoundState, Hypervisor, QemuHypervisor, QemuOptions};
use host::net::{LinuxNetwork, Network};
use ipnet::Ipv4Net;
use model::{Id, Kind};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a cloud keeps in its data directory.
const DATA: [&str; 14] = [
    "block-store",
    "blocks",
    "cloud.json",
    "filling",
    "host",
    "images",
    "keys",
    "layers",
    "machines",
    "secret.key",
    "snapshots",
    "state.redb",
    "state.redb.lock",
    "volumes",
];

#[derive(clap::Args)]
pub struct Args {
    /// The cloud's data directory
    #[arg(long, env = "CUMULET_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Where its public addresses came from, where its file does not say
    #[arg(long, env = "CUMULET_PUBLIC_POOL", value_name = "CIDR")]
    public_pool: Option<Ipv4Net>,
    /// End instances that run, as if their power failed
    #[arg(long)]
    end_instances: bool,
    /// Delete the cloud's data too: volumes, snapshots, images, records and keys
    #[arg(long)]
    data: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("what a cloud made on its host is root's to take away");
    }
    let dir = &args.data_dir;
    let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
    if !state_file(&dir).try_exists()? {
        bail!("{} is no cloud's data directory", dir.display());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(uninstall(&args, &dir))?;
    if args.data {
        delete_data(&dir)?;
        println!("nothing of the cloud is left on this host");
    } else {
        println!("nothing of the cloud is left on this host but its data in {}", dir.display());
    }
    Ok(ExitCode::SUCCESS)
}

async fn uninstall(args: &Args, dir: &Path) -> Result<()> {
    // Held to the end: a cloud that runs has it, and none can start meanwhile.
    let state = state_file(dir);
    let _records = store::RedbStore::open(&state)
        .with_context(|| format!("cannot open {}: stop the cloud first", state.display()))?;
    // Nothing is started: how is no matter.
    let options = QemuOptions::new(dir.join("machines"), Acceleration::Tcg);
    let hypervisor = QemuHypervisor::open(options)?;
    let found = hypervisor.adopt().await?;
    let running: Vec<&str> = found
        .iter()
        .filter(|found| found.state == FoundState::Running && Id::is_of(Kind::Instance, &found.instance_id))
        .map(|found| found.instance_id.as_str())
        .collect();
    if !running.is_empty() && !args.end_instances {
        bail!("{} still run: stop them, or say --end-instances", running.join(", "));
    }
    for machine in &found {
        hypervisor.end(&machine.instance_id).await?;
    }
    let pool = match args.public_pool {
        Some(pool) => pool,
        None => Config::of(dir)?.public_pool,
    };
    Ok(LinuxNetwork::new(machine::network_options(pool, dir))?.remove_all().await?)
}

/// The directory itself goes where nothing else is in it.
fn delete_data(dir: &Path) -> Result<()> {
    for name in DATA {
        let path = dir.join(name);
        let deleted =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match deleted {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot delete {}", path.display()));
            }
            _ => {}
        }
    }
    let _ = std::fs::remove_dir(dir);
    Ok(())
}
