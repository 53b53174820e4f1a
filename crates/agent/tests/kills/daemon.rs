//! The daemon that is killed: an agent over real drivers, told what to do by lines of JSON.

use crate::examples;
use crate::ledger::{Content, UNIT, offsets};
use agent::{Agent, AgentOptions, LocalDisks};
use agent_api::{BLOCK_BYTES, Desired, HostAgent, HostError, NewSnapshot, Observation, SnapshotStore};
use host::machine::{Acceleration, QemuHypervisor, QemuOptions};
use host::net::FakeNetwork;
use model::{Environment, SecretKey};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// In the environment: where all of it is.
pub const DIR: &str = "CUMULET_KILLS_DIR";

#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    Desire(Box<Desired>),
    Snapshot(Vec<NewSnapshot>),
    Store { snapshot_id: String, while_collecting: bool },
    Tell(SecretKey),
    Copy { from: String, to: String, key: Option<SecretKey> },
    Delete(String),
    Collect,
    Look { snapshot_id: String, size_gib: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    Seen(Observation),
    Answer(Answer),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Failed(String),
    Content(Content),
}

#[tokio::main]
pub async fn run(dir: &Path) {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let data = dir.join("data");
    let disks = LocalDisks(Arc::new(volume::Disks::open(&data).unwrap()));
    let options = QemuOptions::new(data.join("machines"), Acceleration::Tcg);
    let agent = Agent::start(
        // There is no guest to wait for.
        AgentOptions { reboot_grace: Duration::ZERO, ..AgentOptions::new(dir.join("host")) },
        Arc::new(QemuHypervisor::open(options).unwrap()),
        Arc::new(FakeNetwork::new()),
        Arc::new(disks.clone()),
        Environment::system(),
        examples::host_description(),
    );
    let agent = agent.await.unwrap();
    let mut seen = agent.observe();
    let (sender, mut calls) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            sender.send(serde_json::from_str(&line.unwrap()).unwrap()).unwrap();
        }
    });
    loop {
        tokio::select! {
            Some(seen) = seen.recv() => say(&Said::Seen(seen)),
            call = calls.recv() => {
                let Some(call) = call else { return };
                let (agent, disks) = (agent.clone(), disks.clone());
                tokio::spawn(async move { say(&Said::Answer(answer(&agent, &disks, call).await)) });
            }
        }
    }
}

fn say(said: &Said) {
    let line = format!("{}\n", serde_json::to_string(said).unwrap());
    // Past the test harness, which would keep it.
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

async fn answer(agent: &Agent, disks: &LocalDisks, call: Call) -> Answer {
    let done = match call {
        Call::Desire(desired) => {
            agent.replace(*desired).await;
            Ok(())
        }
        Call::Snapshot(snapshots) => agent.create_snapshots(snapshots).await,
        Call::Store { snapshot_id, while_collecting: false } => store(disks, &snapshot_id).await,
        Call::Store { snapshot_id, while_collecting: true } => {
            let (stored, collected) = tokio::join!(store(disks, &snapshot_id), collect(disks));
            stored.and(collected)
        }
        Call::Tell(key) => {
            disks.tell(&key).await;
            Ok(())
        }
        Call::Copy { from, to, key } => disks.copy(&from, &to, key.as_ref()).await,
        Call::Delete(snapshot_id) => disks.delete(&snapshot_id).await,
        Call::Collect => collect(disks).await,
        Call::Look { snapshot_id, size_gib } => match look(disks, &snapshot_id, size_gib).await {
            Ok(content) => return Answer::Content(content),
            Err(error) => Err(error),
        },
    };
    done.map_or_else(|error| Answer::Failed(error.to_string()), |()| Answer::Done)
}

async fn store(disks: &LocalDisks, snapshot_id: &str) -> Result<(), HostError> {
    while disks.store(snapshot_id).await? < 100 {}
    Ok(())
}

async fn collect(disks: &LocalDisks) -> Result<(), HostError> {
    let disks = disks.0.clone();
    // What the store has it alone has, but for what volumes lie over.
    let collect = move || disks.make_room(100).and(disks.collect());
    let collected = tokio::task::spawn_blocking(collect).await.unwrap();
    collected.map(drop).map_err(|error| HostError::Failed(error.to_string()))
}

async fn look(disks: &LocalDisks, snapshot_id: &str, size_gib: u32) -> Result<Content, HostError> {
    let mut content = Content::new();
    let mut block = (u32::MAX, None);
    for offset in offsets(size_gib) {
        let index = (offset / BLOCK_BYTES as u64) as u32;
        if block.0 != index {
            block = (index, disks.get_block(snapshot_id, index).await?);
        }
        let within = (offset % BLOCK_BYTES as u64) as usize;
        let unit = match &block.1 {
            None => &[0; UNIT as usize],
            Some(data) => &data[within..within + UNIT as usize],
        };
        if unit.iter().any(|byte| *byte != unit[0]) {
            return Err(HostError::Failed(format!("{snapshot_id} has a torn write at {offset}")));
        }
        content.insert(offset, unit[0]);
    }
    Ok(content)
}
