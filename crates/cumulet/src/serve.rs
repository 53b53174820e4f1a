//! `cumulet serve`: puts the parts together and keeps them going until told to stop.

use crate::cloud::Cloud;
use crate::config::{Config, ServeArgs};
use anyhow::{Context, Result};
use async_trait::async_trait;
use control::{Caller, Control, HostSource, Options, RootKey};
use model::{Environment, Region, Timestamp};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use store::{MemoryStore, RedbStore, Store};
use tokio::signal::unix::{SignalKind, signal};

pub mod machine;
mod metrics;
pub mod secret;
mod simulated;
#[cfg(test)]
mod tests;

pub fn run(args: ServeArgs) -> Result<ExitCode> {
    let config = args.resolve()?;
    start_logging(config.log_json);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

/// To stderr: stdout has the one line that says the cloud is ready.
fn start_logging(json: bool) {
    // The netlink library warns of every kernel newer than itself.
    let filter = tracing_subscriber::EnvFilter::try_from_env("CUMULET_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,netlink_packet_route=error"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json { log.json().init() } else { log.init() }
}

/// What differs between a simulated and a real cloud.
type Parts = (Arc<dyn HostSource>, Arc<dyn agent_api::SnapshotStore>, Option<machine::Machine>);

async fn serve(config: Config) -> Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let environment = Environment::system();
    if let Some(dir) = &config.data_dir {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the data directory {}", dir.display()))?;
    }
    let store = open_store(config.data_dir.as_deref())?;
    let encryption_key = secret::encryption_key(config.data_dir.as_deref(), &environment)?;
    let (hosts, snapshots, machine): Parts = match config.simulate {
        Some(simulated) => {
            let snapshots = Arc::new(agent::MemorySnapshots::new());
            (Arc::new(simulated::Hosts::new(simulated, snapshots.clone())), snapshots, None)
        }
        None => {
            let machine = machine::Machine::open(&config, &environment).await?;
            (machine.hosts(), machine.snapshots(), Some(machine))
        }
    };
    let options = Options {
        account: config.account.clone(),
        region: config.region.clone(),
        simulate: config.simulate.is_some(),
        zones: config.simulate.map_or(1, |simulated| simulated.zones),
        public_pool: config.public_pool,
        encryption_key,
        limits: config.limits.clone(),
    };
    let root_key = config
        .root_key
        .clone()
        .map(|(access_key_id, secret_access_key)| RootKey { access_key_id, secret_access_key });
    let control = Control::start(options, environment, store, snapshots, hosts, root_key).await?;
    let metrics = metrics::Metrics::install()?;
    let server = server::Server::bind(
        config.listen,
        server::Options::default(),
        Arc::new(Edge { control: control.clone(), metrics }),
    )
    .await
    .with_context(|| format!("cannot listen on {}: choose another with --listen", config.listen))?;
    let endpoint = format!("http://{}", server.local_addr()?);
    announce(&config, &control, &endpoint)?;
    server
        .serve(async move {
            tokio::select! {
                _ = stop.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    if config.stop_instances {
        tracing::info!("ending all instances");
        control.stop_all_instances().await?;
    }
    let idle = control.is_idle();
    drop(control);
    match machine {
        Some(machine) if idle => machine.clear().await?,
        Some(_) => tracing::info!("instances keep running"),
        None => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// Where the records are.
pub fn state_file(data_dir: &Path) -> PathBuf {
    data_dir.join("state.redb")
}

fn open_store(data_dir: Option<&Path>) -> Result<Arc<dyn Store>> {
    Ok(match data_dir {
        None => Arc::new(MemoryStore::new()),
        Some(dir) => {
            let path = state_file(dir);
            Arc::new(RedbStore::open(&path).with_context(|| format!("cannot open {}", path.display()))?)
        }
    })
}

/// Tells the user, and the commands that the user will run, where the cloud is.
fn announce(config: &Config, control: &Control, endpoint: &str) -> Result<()> {
    let root = control.root_key();
    let cloud = Cloud {
        endpoint: endpoint.to_owned(),
        region: config.region.to_string(),
        access_key_id: root.access_key_id.clone(),
        secret_access_key: root.secret_access_key.clone(),
    };
    match &config.data_dir {
        Some(dir) => {
            cloud.write(dir)?;
            eprintln!("cumulet: to use it: eval \"$(cumulet env --data-dir {})\"", dir.display());
        }
        None => eprintln!("cumulet: everything is in memory; to use it:\n{}", cloud.exports()),
    }
    println!("cumulet: ready on {endpoint}");
    Ok(())
}

/// What the HTTP edge asks of the cloud.
struct Edge {
    control: Arc<Control>,
    metrics: metrics::Metrics,
}

#[async_trait]
impl server::Api for Edge {
    fn credentials(&self) -> &dyn iam::Credentials {
        self.control.credentials()
    }

    fn now(&self) -> Timestamp {
        self.control.environment.clock.now()
    }

    fn new_request_id(&self) -> String {
        let mut bytes = [0u8; 16];
        self.control.environment.random.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    fn default_region(&self) -> Region {
        self.control.options.region.clone()
    }

    fn metrics(&self) -> String {
        self.metrics.render(&self.control)
    }

    fn region_exists(&self, region: &Region) -> bool {
        self.control.region_exists(region)
    }

    async fn call(
        &self,
        caller: server::Caller,
        service: aws_api::Service,
        operation: &str,
        request: aws_api::Request,
    ) -> model::Result<aws_api::Response> {
        let principal = caller.identity.principal;
        let caller = Caller {
            account: principal.account,
            arn: principal.arn,
            user_id: principal.user_id,
            region: caller.region,
            request_id: caller.request_id,
            source_ip: caller.source_ip,
        };
        self.control.call(caller, service, operation, request).await
    }
}
