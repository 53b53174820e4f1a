//! A simulated cloud in the test's own process: the control plane on a store in memory, with a host that does
//! nothing. Requests go in as parameters, answers come out as the text that a client would get.

use agent_api::{
    Architecture, BLOCK_BYTES, Change, ChangedBlock, Desired, HostAgent, HostDescription, HostError,
    InstanceObservation, Observation, ObservedInstance, PROTOCOL_VERSION, Power, SecretKey, SnapshotStore,
    StatusChecks, StopCause, VolumeState,
};
use async_trait::async_trait;
use aws_api::{Request, Response, Service};
use control::region::RegionState;
use control::{Caller, Control, HostSource, Limits, Options};
use model::{Clock, Environment, Id, Region, Result, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use store::{MemoryStore, Store};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

const START: Timestamp = Timestamp::constant(1_700_000_000, 0);

/// Goes with the runtime's time, which a test may have paused.
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        START.saturating_add(self.0.elapsed()).unwrap()
    }
}

pub const ACCOUNT: &str = "123456789012";

pub struct Cloud(Arc<Control>, pub Arc<RegionState>, Arc<IdleHost>);

/// A request's answer, or the code of its error.
pub type Answer = Result<Text, String>;

/// The text of an answer.
#[derive(Debug, PartialEq)]
pub struct Text(pub String);

impl Text {
    /// What stands between all tags of a name, in order.
    pub fn all(&self, tag: &str) -> Vec<&str> {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let parts = self.0.split(open.as_str()).skip(1);
        parts.filter_map(|part| part.split_once(close.as_str()).map(|(value, _)| value)).collect()
    }

    pub fn one(&self, tag: &str) -> &str {
        match self.all(tag).as_slice() {
            [value] => value,
            other => panic!("{} <{tag}> in {}", other.len(), self.0),
        }
    }
}

impl Cloud {
    pub async fn start() -> Cloud {
        Cloud::over(Arc::new(MemoryStore::new()), Arc::new(Blocks::default())).await.unwrap()
    }

    /// A cloud that takes its host for a real one, with the images of a simulated one.
    pub async fn real() -> Cloud {
        let (store, snapshots) = (Arc::new(MemoryStore::new()), Arc::new(Blocks::default()));
        Cloud::open(store.clone(), snapshots.clone(), true).await.unwrap();
        Cloud::open(store, snapshots, false).await.unwrap()
    }

    /// A cloud that goes on with what is stored.
    pub async fn over(store: Arc<dyn Store>, snapshots: Arc<Blocks>) -> Result<Cloud> {
        Cloud::open(store, snapshots, true).await
    }

    async fn open(store: Arc<dyn Store>, snapshots: Arc<Blocks>, simulate: bool) -> Result<Cloud> {
        let (environment, _) = Environment::seeded(1, START);
        let environment = Environment { clock: Arc::new(RuntimeClock(Instant::now())), ..environment };
        let options = Options {
            account: ACCOUNT.parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
            simulate,
            zones: 2,
            public_pool: "198.18.0.0/16".parse().unwrap(),
            encryption_key: [7; 32],
            limits: Limits::default(),
        };
        let host = Arc::new(IdleHost { snapshots: snapshots.clone(), ..IdleHost::default() });
        let hosts = Arc::new(OneHost(host.clone()));
        let control = Control::start(options, environment, store, snapshots, hosts, None).await?;
        let region = control.region(&control.options.region).await?;
        Ok(Cloud(control, region, host))
    }

    async fn send(&self, service: Service, operation: &str, request: Request) -> Result<Response> {
        let caller = Caller {
            account: ACCOUNT.parse().unwrap(),
            arn: format!("arn:aws:iam::{ACCOUNT}:root"),
            user_id: ACCOUNT.into(),
            region: "us-east-1".parse().unwrap(),
            request_id: "request".into(),
            source_ip: [127, 0, 0, 1].into(),
        };
        self.0.call(caller, service, operation, request).await
    }

    /// An EC2 operation.
    pub async fn call(&self, operation: &str, parameters: &[(&str, &str)]) -> Answer {
        let params = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let request = Request { method: "POST".into(), path: "/".into(), params, ..Default::default() };
        let answer =
            self.send(Service::Ec2, operation, request).await.map_err(|error| error.code.into_owned())?;
        Ok(Text(String::from_utf8(answer.body.to_vec()).unwrap()))
    }

    /// An EC2 operation that must succeed.
    pub async fn ok(&self, operation: &str, parameters: &[(&str, &str)]) -> Text {
        self.call(operation, parameters)
            .await
            .unwrap_or_else(|code| panic!("{operation} {parameters:?}: {code}"))
    }

    /// An operation of the EBS direct APIs.
    pub async fn ebs(&self, operation: &str, request: Request) -> Result<Response, (String, u16)> {
        let answer = self.send(Service::Ebs, operation, request).await;
        answer.map_err(|error| (error.code.into_owned(), error.status))
    }

    /// What the host was told of an instance last.
    pub async fn told(&self, instance_id: &str) -> agent_api::Instance {
        loop {
            if let Some(told) = self.2.wanted.lock().unwrap().get(instance_id) {
                return told.clone();
            }
            tokio::task::yield_now().await;
        }
    }

    /// What the host was told of a VPC, once it is so; None once it is to be no more.
    pub async fn told_of_vpc(
        &self,
        vpc_id: &str,
        is_so: impl Fn(Option<&agent_api::Vpc>) -> bool,
    ) -> Option<agent_api::Vpc> {
        loop {
            let told = self.2.vpcs.lock().unwrap().get(vpc_id).cloned();
            if is_so(told.as_ref()) {
                return told;
            }
            tokio::task::yield_now().await;
        }
    }

    /// What the host was told of a security group, once it is so.
    pub async fn told_of_group(
        &self,
        group_id: &str,
        is_so: impl Fn(&agent_api::SecurityGroup) -> bool,
    ) -> agent_api::SecurityGroup {
        loop {
            let told = self.2.groups.lock().unwrap().get(group_id).cloned();
            if let Some(told) = told.filter(&is_so) {
                return told;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Stops an instance of the first boot, and has its host say that it has.
    pub async fn stop(&self, instance_id: &str) {
        self.ok("StopInstances", &[("InstanceId.1", instance_id)]).await;
        let instance_id = model::Id::parse(model::Kind::Instance, instance_id).unwrap();
        self.observe(&instance_id, 1, InstanceObservation::Stopped(StopCause::Asked), None);
        self.until(&instance_id, |instance| instance.state.name() == "stopped").await;
    }

    /// The host tells of an instance.
    pub fn observe(
        &self,
        instance_id: &str,
        boot: u64,
        state: InstanceObservation,
        checks: Option<StatusChecks>,
    ) {
        let instance_id = model::Id::parse(model::Kind::Instance, instance_id).unwrap();
        let observed =
            ObservedInstance { instance_id: instance_id.clone(), boot, state, checks, devices: vec![] };
        self.2.said.lock().unwrap().insert(instance_id.to_string(), observed.clone());
        if let Some(observer) = &*self.2.observer.lock().unwrap() {
            observer.send(Observation::Instance(observed)).unwrap();
        }
    }

    /// The host tells that it has all volumes that it shall have.
    pub fn observe_volumes(&self) {
        let tables = self.1.view.read();
        if let Some(observer) = &*self.2.observer.lock().unwrap() {
            for volume in tables.volumes.iter().filter(|volume| volume.host_id.is_some()) {
                let state = VolumeState::Ready { size_gib: volume.size_gib };
                let observed = Observation::Volume { volume_id: volume.volume_id.clone(), state };
                observer.send(observed).unwrap();
            }
        }
    }

    /// Returns once an instance's record is so.
    pub async fn until(&self, instance_id: &str, is_so: impl Fn(&control::instance::Instance) -> bool) {
        let instance = || self.1.view.read().instances.find(instance_id).cloned();
        while !instance().is_some_and(|instance| is_so(&instance)) {
            tokio::task::yield_now().await;
        }
    }

    /// The host is heard from no more and hears nothing, until it is back.
    pub fn host_leaves(&self) {
        self.2.is_away.store(true, Ordering::Relaxed);
        *self.2.observer.lock().unwrap() = None;
    }

    pub fn host_returns(&self) {
        self.2.is_away.store(false, Ordering::Relaxed);
    }

    /// What shall be on the host, as far as it knows.
    pub fn on_host(&self) -> Vec<String> {
        self.2.wanted.lock().unwrap().keys().cloned().collect()
    }

    /// An instance of the first public image; returns its id.
    pub async fn run(&self, parameters: &[(&str, &str)]) -> String {
        let images = self
            .ok("DescribeImages", &[("Filter.1.Name", "name"), ("Filter.1.Value.1", "al2023*x86_64")])
            .await;
        let mut all = vec![
            ("ImageId", images.one("imageId")),
            ("InstanceType", "t3.micro"),
            ("MinCount", "1"),
            ("MaxCount", "1"),
        ];
        all.extend(parameters);
        self.ok("RunInstances", &all).await.one("instanceId").to_owned()
    }
}

struct OneHost(Arc<IdleHost>);

#[async_trait]
impl HostSource for OneHost {
    async fn hosts(&self, _: &Region) -> Result<Vec<Arc<dyn HostAgent>>> {
        Ok(vec![self.0.clone()])
    }
}

/// Takes everything in and starts nothing.
#[derive(Default)]
struct IdleHost {
    observer: Mutex<Option<UnboundedSender<Observation>>>,
    wanted: Mutex<BTreeMap<String, agent_api::Instance>>,
    vpcs: Mutex<BTreeMap<String, agent_api::Vpc>>,
    groups: Mutex<BTreeMap<String, agent_api::SecurityGroup>>,
    is_away: AtomicBool,
    /// What it has told of each instance last.
    said: Mutex<BTreeMap<String, ObservedInstance>>,
    snapshots: Arc<Blocks>,
}

impl IdleHost {
    fn put(&self, instance: agent_api::Instance) {
        match instance.power {
            Power::Gone | Power::GoneForced => self.remove(instance.instance_id),
            Power::On | Power::Off | Power::OffForced => {
                self.wanted.lock().unwrap().insert(instance.instance_id.to_string(), instance);
            }
        }
    }

    fn remove(&self, instance_id: Id) {
        self.wanted.lock().unwrap().remove(instance_id.as_str());
        let removed = ObservedInstance {
            instance_id,
            boot: 0,
            state: InstanceObservation::Removed,
            checks: None,
            devices: vec![],
        };
        if let Some(observer) = &*self.observer.lock().unwrap() {
            let _ = observer.send(Observation::Instance(removed));
        }
    }
}

#[async_trait]
impl HostAgent for IdleHost {
    fn describe(&self) -> HostDescription {
        HostDescription {
            host_id: "h-0123456789abcdef0".into(),
            protocol_version: PROTOCOL_VERSION,
            architecture: Architecture::X86_64,
            cores: 64,
            memory_mib: 256 * 1024,
            disk_gib: 1000,
            zone: 0,
            rack: "rack".into(),
            acceleration: "kvm".into(),
            links: Vec::new(),
        }
    }

    async fn replace(&self, desired: Desired) {
        if !self.is_away.load(Ordering::Relaxed) {
            let vpcs = desired.vpcs.into_iter().map(|(id, vpc)| (id.to_string(), vpc));
            *self.vpcs.lock().unwrap() = vpcs.collect();
            let groups = desired.security_groups.into_iter().map(|(id, group)| (id.to_string(), group));
            *self.groups.lock().unwrap() = groups.collect();
            self.wanted.lock().unwrap().clear();
            desired.instances.into_values().for_each(|instance| self.put(instance));
        }
    }

    async fn apply(&self, changes: Vec<Change>) {
        if self.is_away.load(Ordering::Relaxed) {
            return;
        }
        for change in changes {
            match change {
                Change::PutVpc(vpc) => {
                    self.vpcs.lock().unwrap().insert(vpc.network.vpc_id.to_string(), *vpc);
                }
                Change::PutSecurityGroup(group) => {
                    self.groups.lock().unwrap().insert(group.network.group_id.to_string(), group);
                }
                Change::RemoveSecurityGroup(id) => drop(self.groups.lock().unwrap().remove(id.as_str())),
                Change::PutPublicPool(_) | Change::RemovePublicPool(_) => {}
                Change::RemoveVpc(id) => drop(self.vpcs.lock().unwrap().remove(id.as_str())),
                Change::PutInstance(instance) => self.put(*instance),
                Change::RemoveInstance(id) => self.remove(id),
                _ => {}
            }
        }
    }

    fn observe(&self) -> UnboundedReceiver<Observation> {
        let (sender, receiver) = unbounded_channel();
        if self.is_away.load(Ordering::Relaxed) {
            return receiver;
        }
        for observed in self.said.lock().unwrap().values() {
            sender.send(Observation::Instance(observed.clone())).unwrap();
        }
        *self.observer.lock().unwrap() = Some(sender);
        receiver
    }

    async fn create_snapshots(&self, snapshots: Vec<agent_api::NewSnapshot>) -> Result<(), HostError> {
        for new in snapshots {
            let taken = self.snapshots.begin(&new.snapshot_id, 1, None).await;
            taken.and(self.snapshots.complete(&new.snapshot_id).await)?;
        }
        Ok(())
    }

    async fn console_output(&self, instance_id: &str) -> Result<Vec<u8>, HostError> {
        Err(HostError::NotFound(instance_id.into()))
    }

    async fn console_screenshot(&self, instance_id: &str) -> Result<Vec<u8>, HostError> {
        Err(HostError::NotFound(instance_id.into()))
    }

    async fn unfilled_volumes(&self) -> Result<BTreeMap<model::Id, agent_api::Unfilled>, HostError> {
        Ok(BTreeMap::new())
    }

    async fn uefi_variables(&self, instance_id: &str) -> Result<Vec<agent_api::UefiVariable>, HostError> {
        Err(HostError::NotFound(instance_id.into()))
    }
}

/// Snapshots in memory.
#[derive(Default)]
pub struct Blocks(Mutex<BTreeMap<String, Snapshot>>);

#[derive(Default)]
struct Snapshot {
    sealed: bool,
    blocks: BTreeMap<u32, Vec<u8>>,
    stored_percent: u8,
    is_near: bool,
}

impl Blocks {
    pub fn ids(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    pub fn is_near(&self, id: &str) -> bool {
        self.with(id, |snapshot| snapshot.is_near).unwrap_or(false)
    }

    fn with<R>(&self, id: &str, action: impl FnOnce(&mut Snapshot) -> R) -> Result<R, HostError> {
        self.0.lock().unwrap().get_mut(id).map(action).ok_or_else(|| HostError::NotFound(id.into()))
    }
}

#[async_trait]
impl SnapshotStore for Blocks {
    async fn tell(&self, _: &SecretKey) {}

    async fn begin(&self, id: &str, _: u32, _: Option<&SecretKey>) -> Result<(), HostError> {
        self.0.lock().unwrap().entry(id.into()).or_default();
        Ok(())
    }

    async fn put_block(&self, id: &str, index: u32, data: &[u8]) -> Result<(), HostError> {
        assert_eq!(data.len(), BLOCK_BYTES);
        self.with(id, |snapshot| {
            assert!(!snapshot.sealed, "a sealed snapshot is written to");
            snapshot.blocks.insert(index, data.to_vec());
        })
    }

    async fn complete(&self, id: &str) -> Result<(), HostError> {
        self.with(id, |snapshot| snapshot.sealed = true)
    }

    async fn get_block(&self, id: &str, index: u32) -> Result<Option<Vec<u8>>, HostError> {
        self.with(id, |snapshot| snapshot.blocks.get(&index).cloned())
    }

    async fn list_blocks(&self, id: &str, start: u32, limit: usize) -> Result<Vec<u32>, HostError> {
        self.with(id, |snapshot| {
            snapshot.blocks.range(start..).take(limit).map(|(index, _)| *index).collect()
        })
    }

    /// In two calls.
    async fn store(&self, id: &str) -> Result<u8, HostError> {
        self.with(id, |snapshot| {
            assert!(snapshot.sealed, "one is stored that may change");
            snapshot.stored_percent = (snapshot.stored_percent + 50).min(100);
            snapshot.stored_percent
        })
    }

    async fn keep_near(&self, id: &str, keep: bool) -> Result<u8, HostError> {
        self.with(id, |snapshot| snapshot.is_near = keep).map(|()| 100)
    }

    async fn list_changed_blocks(
        &self,
        first: &str,
        second: &str,
        start: u32,
        limit: usize,
    ) -> Result<Vec<ChangedBlock>, HostError> {
        let [first, second] = [first, second].map(|id| self.with(id, |snapshot| snapshot.blocks.clone()));
        let (first, second) = (first?, second?);
        let indexes: BTreeSet<u32> = first.keys().chain(second.keys()).copied().collect();
        let changed = indexes.range(start..).filter(|index| first.get(index) != second.get(index));
        let block = |index: &u32| ChangedBlock {
            index: *index,
            in_first: first.contains_key(index),
            in_second: second.contains_key(index),
        };
        Ok(changed.map(block).take(limit).collect())
    }

    async fn copy(&self, from: &str, to: &str, _: Option<&SecretKey>) -> Result<(), HostError> {
        let blocks = self.with(from, |snapshot| snapshot.blocks.clone())?;
        let copy = Snapshot { sealed: true, blocks, stored_percent: 0, is_near: false };
        self.0.lock().unwrap().entry(to.into()).or_insert(copy);
        Ok(())
    }

    async fn delete(&self, id: &str) -> Result<(), HostError> {
        self.0.lock().unwrap().remove(id);
        Ok(())
    }
}
