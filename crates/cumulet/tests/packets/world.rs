//! A control plane with a real agent whose host is a namespace; its machines are in memory, and have no disks.

use crate::cloud::{Cloud, Guest};
use agent::{Agent, AgentOptions, DiskError, DiskFile, Disks, Fill, Freeze, MemorySnapshots, ServedLayer};
use agent_api::{Architecture, HostAgent, HostDescription, NewSnapshot, PROTOCOL_VERSION, Volume};
use async_trait::async_trait;
use aws_api::{Request, Service};
use control::{Caller, Control, HostSource, Limits, Options};
use datapath::{Address, Interface, Subnet, examples};
use host::machine::{DiskLayer, FakeHypervisor};
use host::net::LinuxNetwork;
use model::{Environment, Id, Kind, Region};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::MemoryStore;

const ACCOUNT: &str = "123456789012";

pub struct World {
    control: Arc<Control>,
    machines: FakeHypervisor,
    /// That of all instances, which lets nobody in.
    pub group: String,
    tag: String,
    _state: tempfile::TempDir,
}

struct OneHost(Arc<Agent>);

#[async_trait]
impl HostSource for OneHost {
    async fn hosts(&self, _: &Region) -> model::Result<Vec<Arc<dyn HostAgent>>> {
        Ok(vec![self.0.clone()])
    }
}

struct NoDisks;

#[async_trait]
impl Disks for NoDisks {
    async fn list(&self) -> Result<Vec<Id>, DiskError> {
        Ok(Vec::new())
    }

    async fn ensure(&self, _: &Volume) -> Result<(), DiskError> {
        Ok(())
    }

    async fn open(&self, _: &Id) -> Result<DiskFile, DiskError> {
        Ok(DiskFile { layers: Vec::new(), key: None })
    }

    async fn layers(&self, volume_id: &Id) -> Result<DiskFile, DiskError> {
        self.open(volume_id).await
    }

    async fn begin_freeze(&self, _: &[NewSnapshot], _: Option<&Id>) -> Result<Option<Freeze>, DiskError> {
        Ok(None)
    }

    async fn freezes(&self) -> Result<Vec<Freeze>, DiskError> {
        Ok(Vec::new())
    }

    async fn finish_freeze(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    async fn undo_freeze(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    async fn fold(&self, _: &Id) -> Result<Option<Vec<DiskLayer>>, DiskError> {
        Ok(None)
    }

    async fn fill(&self, _: u64) -> Result<Fill, DiskError> {
        std::future::pending().await
    }

    async fn read_layer(&self, _: &BTreeSet<Id>, _: &str) -> Result<Option<ServedLayer>, DiskError> {
        Ok(None)
    }

    async fn delete(&self, _: &Id) -> Result<(), DiskError> {
        Ok(())
    }
}

impl World {
    /// The cloud is there for its host. It has to outlive all that runs here, which would make anew what it takes away
    /// when it ends.
    pub async fn start(cloud: &Cloud) -> World {
        let (state, machines) = (tempfile::tempdir().unwrap(), FakeHypervisor::new());
        let environment = Environment::system();
        let agent = Agent::start(
            AgentOptions::new(state.path()),
            Arc::new(machines.clone()),
            Arc::new(LinuxNetwork::new(cloud.options.clone()).unwrap()),
            Arc::new(NoDisks),
            environment.clone(),
            description(),
        );
        let agent = agent.await.unwrap();
        let options = Options {
            account: ACCOUNT.parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
            // With images that need not be built.
            simulate: true,
            zones: 1,
            public_pool: cloud.options.public_pool,
            encryption_key: [7; 32],
            limits: Limits::default(),
        };
        let (store, snapshots) = (Arc::new(MemoryStore::new()), Arc::new(MemorySnapshots::default()));
        let control = Control::start(options, environment, store, snapshots, Arc::new(OneHost(agent)), None);
        let (control, tag) = (control.await.unwrap(), cloud.options.tag.clone());
        let mut world = World { control, machines, group: String::new(), tag, _state: state };
        let vpcs = world.call("DescribeVpcs", &[]).await;
        let group = [("GroupName", "shut"), ("GroupDescription", "shut"), ("VpcId", one(&vpcs, "vpcId"))];
        let made = world.call("CreateSecurityGroup", &group).await;
        world.group = one(&made, "groupId").to_owned();
        world
    }

    /// Answers an EC2 operation.
    pub async fn call(&self, operation: &str, parameters: &[(&str, &str)]) -> String {
        let caller = Caller {
            account: ACCOUNT.parse().unwrap(),
            arn: format!("arn:aws:iam::{ACCOUNT}:root"),
            user_id: ACCOUNT.into(),
            region: "us-east-1".parse().unwrap(),
            request_id: "request".into(),
            source_ip: [127, 0, 0, 1].into(),
        };
        let params = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let request = Request { method: "POST".into(), path: "/".into(), params, ..Default::default() };
        let answer = self.control.call(caller, Service::Ec2, operation, request).await;
        let answer = answer.unwrap_or_else(|error| panic!("{operation}: {error:?}"));
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    /// Two instances that run.
    pub async fn launch(&self) -> [Guest; 2] {
        let images = self
            .call("DescribeImages", &[("Filter.1.Name", "architecture"), ("Filter.1.Value.1", "x86_64")])
            .await;
        let wanted = [
            ("ImageId", one(&images, "imageId")),
            ("MinCount", "2"),
            ("MaxCount", "2"),
            // Of one processor: its card has one queue, so that who stands for the guest reads all.
            ("InstanceType", "t2.micro"),
            ("SecurityGroupId.1", &self.group),
        ];
        let made = self.call("RunInstances", &wanted).await;
        let cards = [1, 2].map(|at| {
            let interface = made.split("<networkInterfaceSet>").nth(at).unwrap();
            ["networkInterfaceId", "subnetId", "macAddress", "privateIpAddress"]
                .map(|tag| one(interface, tag).to_owned())
        });
        let [first, second] = cards;
        [self.guest(first).await, self.guest(second).await]
    }

    async fn guest(&self, [interface_id, subnet_id, mac, address]: [String; 4]) -> Guest {
        let subnets = self.call("DescribeSubnets", &[("SubnetId.1", &subnet_id)]).await;
        let subnet_id = Id::parse(Kind::Subnet, &subnet_id).unwrap();
        let subnet =
            Subnet { subnet_id: subnet_id.clone(), ..examples::subnet(1, one(&subnets, "cidrBlock")) };
        let mut octets = mac.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap());
        let nic = Interface {
            interface_id: Id::parse(Kind::NetworkInterface, &interface_id).unwrap(),
            subnet_id,
            mac: std::array::from_fn(|_| octets.next().unwrap()),
            addresses: vec![Address { private_ip: address.parse().unwrap(), public_ip: None }],
            ..examples::interface(1)
        };
        let vpc = datapath::Vpc { subnets: vec![subnet], ..examples::vpc(1) };
        let tap = async {
            loop {
                match self.machines.tap(&nic.interface_id) {
                    Some(tap) => return tap,
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let tap = tokio::time::timeout(Duration::from_secs(60), tap).await.expect("the instance runs");
        Guest::start(&format!("{}-{}", self.tag, &interface_id[16..]), tap, &nic, &vpc).await
    }
}

fn description() -> HostDescription {
    HostDescription {
        host_id: "host-00000".into(),
        protocol_version: PROTOCOL_VERSION,
        architecture: Architecture::X86_64,
        cores: 8,
        memory_mib: 16 << 10,
        disk_gib: 1000,
        zone: 0,
        rack: "rack-0000".into(),
        acceleration: "none".into(),
        links: Vec::new(),
    }
}

/// The first value of this name.
fn one<'a>(answer: &'a str, tag: &str) -> &'a str {
    let (_, rest) = answer.split_once(&format!("<{tag}>")).unwrap_or_else(|| panic!("no {tag} in {answer}"));
    rest.split('<').next().unwrap()
}
