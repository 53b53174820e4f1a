//! A control plane on a store in memory, and simulated hosts that outlive it.

use crate::actions::FEW_HOSTS;
use crate::call::Call;
use crate::crashing::Crashing;
use crate::link::Link;
use agent::{MemorySnapshots, SimulatedHost, SimulatedOptions};
use agent_api::{Architecture, HostAgent, HostDescription, PROTOCOL_VERSION};
use async_trait::async_trait;
use aws_api::{Request, Service};
use control::region::RegionState;
use control::{Caller, Control, HostSource, Limits, Options};
use model::{Clock, Environment, Random, Region, Result, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use store::MemoryStore;
use tokio::time::Instant;

const ACCOUNT: &str = "123456789012";
const START: Timestamp = Timestamp::constant(1_700_000_000, 0);
const RACKS: usize = 8;
const ZONES: usize = 2;

/// Goes with the runtime's paused time.
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        START.saturating_add(self.0.elapsed()).unwrap()
    }
}

struct Hosts(Vec<Arc<Link>>);

#[async_trait]
impl HostSource for Hosts {
    async fn hosts(&self, _: &Region) -> Result<Vec<Arc<dyn HostAgent>>> {
        Ok(self.0.iter().map(|host| host.clone() as Arc<dyn HostAgent>).collect())
    }
}

pub struct World {
    environment: Environment,
    store: MemoryStore,
    /// The store as the control plane that lives now has it.
    reached: Option<Arc<Crashing>>,
    pub snapshots: Arc<MemorySnapshots>,
    pub hosts: Vec<SimulatedHost>,
    /// From the control plane that lives now to each of the hosts.
    pub links: Vec<Arc<Link>>,
    control: Option<Arc<Control>>,
    region: Option<Arc<RegionState>>,
}

impl World {
    pub async fn new(seed: u64, hosts: usize) -> World {
        let (environment, _) = Environment::seeded(seed, START);
        let environment = Environment { clock: Arc::new(RuntimeClock(Instant::now())), ..environment };
        let snapshots = Arc::new(MemorySnapshots::default());
        let options = SimulatedOptions {
            start: Duration::from_millis(900),
            shutdown: Duration::from_millis(700),
            end: Duration::from_millis(300),
        };
        let cores = if hosts > FEW_HOSTS { 32 } else { 2 };
        let host = |number| {
            SimulatedHost::with_snapshots(describe(number, cores), options.clone(), snapshots.clone())
        };
        let hosts: Vec<_> = (0..hosts).map(host).collect();
        let links = hosts.iter().map(|host| link(host, &environment)).collect();
        let store = MemoryStore::new();
        let (reached, control, region) = (None, None, None);
        let mut world = World { environment, store, reached, snapshots, hosts, links, control, region };
        world.open().await;
        world
    }

    async fn open(&mut self) {
        let options = Options {
            account: ACCOUNT.parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
            simulate: true,
            zones: ZONES,
            public_pool: "198.18.0.0/16".parse().unwrap(),
            encryption_key: [7; 32],
            limits: Limits::default(),
        };
        let stands = self.random().u64().is_multiple_of(2);
        let store = Arc::new(Crashing { inner: self.store.clone(), left: AtomicI64::new(i64::MAX), stands });
        self.reached = Some(store.clone());
        let hosts = Arc::new(Hosts(self.links.clone()));
        let control =
            Control::start(options, self.environment.clone(), store, self.snapshots.clone(), hosts, None)
                .await
                .unwrap();
        self.region = Some(control.region(&control.options.region).await.unwrap());
        self.control = Some(control);
    }

    /// The control plane dies with whatever it was about, and another goes on with what is stored.
    pub async fn crash(&mut self) {
        self.die_after(0);
        self.links.iter().for_each(|link| link.cut());
        self.links = self.hosts.iter().map(|host| link(host, &self.environment)).collect();
        self.region = None;
        self.control = None;
        self.open().await;
    }

    /// The control plane writes nothing any more after so many commits; `crash` has another go on.
    pub fn die_after(&self, commits: usize) {
        self.reached.as_ref().unwrap().left.store(commits as i64, Ordering::SeqCst);
    }

    pub fn region(&self) -> &RegionState {
        self.region.as_ref().unwrap()
    }

    pub fn random(&self) -> &dyn Random {
        &*self.environment.random
    }

    /// An EC2 operation: the text of its answer, or its error's code.
    pub async fn call(&self, call: &Call) -> Result<String, String> {
        let caller = Caller {
            account: ACCOUNT.parse().unwrap(),
            arn: format!("arn:aws:iam::{ACCOUNT}:root"),
            user_id: ACCOUNT.into(),
            region: "us-east-1".parse().unwrap(),
            request_id: "request".into(),
            source_ip: [127, 0, 0, 1].into(),
        };
        let params = call.parameters.clone();
        let request = Request { method: "POST".into(), path: "/".into(), params, ..Default::default() };
        let answer = self.control.as_ref().unwrap().call(caller, Service::Ec2, call.operation, request).await;
        answer
            .map(|answer| String::from_utf8(answer.body.to_vec()).unwrap())
            .map_err(|error| error.code.into_owned())
    }
}

fn link(host: &SimulatedHost, environment: &Environment) -> Arc<Link> {
    Arc::new(Link::new(host.clone(), environment.random.clone()))
}

fn describe(number: usize, cores: u32) -> HostDescription {
    let rack = number % RACKS;
    HostDescription {
        host_id: format!("host-{number:05}"),
        protocol_version: PROTOCOL_VERSION,
        architecture: Architecture::X86_64,
        cores,
        memory_mib: u64::from(cores) * 4096,
        disk_gib: 1024,
        zone: (rack % ZONES) as u32,
        rack: format!("rack-{rack:02}"),
        acceleration: "simulated".into(),
        links: Vec::new(),
    }
}

/// What stands between all tags of a name, in order.
pub fn all<'a>(text: &'a str, tag: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let parts = text.split(open.as_str()).skip(1);
    parts.filter_map(|part| part.split_once(close.as_str()).map(|(value, _)| value)).collect()
}
