//! What a seed does to a cloud, and what it expects of it.

use crate::call::Call;
use crate::invariants::{Group, Held, Owned, Rule, lost, violations};
use crate::world::{World, all};
use crate::{interfaces, manage, network, storage};
use agent_api::HostAgent;
use control::placement_group::Strategy;
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const TYPES: [&str; 4] = ["t3.nano", "t3.micro", "t3.small", "t3.medium"];
/// How many hosts there are where a few instances fill them.
pub const FEW_HOSTS: usize = 16;
/// Placement groups that are always there.
const GROUPS: [(&str, &str); 3] = [("c", "cluster"), ("p", "partition"), ("s", "spread")];

pub struct Run {
    pub world: World,
    seed: u64,
    image: String,
    acknowledged: BTreeSet<String>,
    /// What was made by other calls than launches, and not asked to be deleted.
    pub kept: BTreeSet<String>,
    /// The latest launch with a token.
    latest: Option<Call>,
    /// By how much launches are larger.
    scale: usize,
    /// What each client token made.
    tokens: BTreeMap<String, Vec<String>>,
    away: BTreeSet<usize>,
    /// The instances whose places are free: seen stopped, and not started since.
    vacated: BTreeSet<String>,
    pub trace: Vec<String>,
}

impl Run {
    pub async fn new(seed: u64, hosts: usize) -> Run {
        let world = World::new(seed, hosts).await;
        let named = vec![("Filter.1.Name", "name"), ("Filter.1.Value.1", "al2023*x86_64")];
        let images = world.call(&Call::new("DescribeImages", named)).await.unwrap();
        let image = all(&images, "imageId")[0].to_owned();
        for (name, strategy) in GROUPS {
            let given = vec![("GroupName", name), ("Strategy", strategy)];
            world.call(&Call::new("CreatePlacementGroup", given)).await.unwrap();
        }
        let (acknowledged, kept, latest, tokens) = Default::default();
        let (away, vacated, trace) = Default::default();
        let scale = if hosts > FEW_HOSTS { 60 } else { 1 };
        Run { world, seed, image, acknowledged, kept, latest, scale, tokens, away, vacated, trace }
    }

    pub fn draw(&self, below: usize) -> usize {
        (self.world.random().u64() % below as u64) as usize
    }

    pub fn an_instance(&self) -> String {
        let at = self.draw(self.acknowledged.len().max(1));
        self.acknowledged.iter().nth(at).cloned().unwrap_or_else(|| "i-0123456789abcdef0".into())
    }

    pub async fn step(&mut self) {
        let done = match self.draw(24) {
            14 | 15 => self.crash().await,
            16..=19 => self.fault(),
            _ => self.act().await,
        };
        self.trace.push(done);
        let pause = [0, 1, 200, 1000, 3000][self.draw(5)];
        tokio::time::sleep(Duration::from_millis(pause)).await;
        self.look();
    }

    /// One call, or several at the same time.
    async fn act(&mut self) -> String {
        let mut calls = Vec::new();
        for _ in 0..[1, 1, 1, 2, 4][self.draw(5)] {
            match self.draw(6) {
                0 => self.launch(&mut calls),
                1 => calls.push(self.change()),
                2 => calls.push(self.manage()),
                3 => calls.push(self.connect()),
                4 => calls.push(self.interface()),
                _ => calls.push(self.store()),
            }
        }
        self.make(calls).await
    }

    pub async fn make(&mut self, calls: Vec<Call>) -> String {
        let answers = join_all(calls.iter().map(|call| self.world.call(call))).await;
        let told: Vec<String> =
            calls.iter().zip(answers).map(|(call, answer)| self.note(call, answer)).collect();
        told.join("; at once ")
    }

    /// The control plane dies at a commit of a call or of what follows from it, and the caller asks again.
    async fn crash(&mut self) -> String {
        let commits = self.draw(5);
        self.world.die_after(commits);
        let done = self.act().await;
        tokio::time::sleep(Duration::from_millis([0, 1, 1000][self.draw(3)])).await;
        self.world.crash().await;
        let again = self.latest.clone();
        let again = self.make(again.into_iter().collect()).await;
        format!("{done}; the control plane crashes after {commits} commits; again: {again}")
    }

    /// Where there is a token the same is asked for twice.
    fn launch(&mut self, calls: &mut Vec<Call>) {
        let count = (1 + self.draw(6)) * self.scale;
        let count = count.to_string();
        let mut parameters = vec![
            ("ImageId", self.image.as_str()),
            ("InstanceType", TYPES[self.draw(TYPES.len())]),
            ("MinCount", "1"),
            ("MaxCount", &count),
        ];
        let dedicated_host = self.one_of(&self.manageable().hosts, "h-0123456789abcdef0");
        match self.draw(10) {
            group @ 0..=2 => parameters.push(("Placement.GroupName", GROUPS[group].0)),
            3 => parameters.push(("Placement.GroupName", manage::NAMES[self.draw(manage::NAMES.len())])),
            4 => parameters.push(("Placement.Tenancy", "dedicated")),
            5 => parameters.push(("Placement.Tenancy", "host")),
            6 => parameters.push(("Placement.HostId", &dedicated_host)),
            _ => {}
        }
        let group = self.one_of(&self.manageable().groups, "sg-0123456789abcdef0");
        if self.draw(3) == 0 {
            parameters.push(("SecurityGroupId.1", &group));
        }
        let subnet = self.a_subnet();
        if self.draw(4) == 0 {
            parameters.push(("SubnetId", &subnet));
        }
        let token = format!("token-{}-{}", self.trace.len(), calls.len());
        let has_token = self.draw(3) == 0;
        if has_token {
            parameters.push(("ClientToken", &token));
        }
        let call = Call::new("RunInstances", parameters);
        if has_token {
            self.latest = Some(call.clone());
            calls.push(call.clone());
        }
        calls.push(call);
    }

    fn change(&mut self) -> Call {
        let id = self.an_instance();
        let one = ("InstanceId.1", id.as_str());
        let instance_type = TYPES[self.draw(TYPES.len())];
        match self.draw(7) {
            0 => Call::new("StopInstances", vec![one]),
            1 => Call::new("StopInstances", vec![one, ("Force", "true")]),
            2 | 3 => Call::new("StartInstances", vec![one]),
            4 => Call::new("RebootInstances", vec![one]),
            5 => Call::new("TerminateInstances", vec![one]),
            _ => Call::new(
                "ModifyInstanceAttribute",
                vec![("InstanceId", id.as_str()), ("InstanceType.Value", instance_type)],
            ),
        }
    }

    /// Takes down what a call has made, or promised to end.
    fn note(&mut self, call: &Call, answer: Result<String, String>) -> String {
        let text = answer.as_deref().unwrap_or_default();
        let made: Vec<String> =
            call.made().map_or(Vec::new(), |tag| all(text, tag).into_iter().map(str::to_owned).collect());
        match (call.operation, &answer) {
            ("RunInstances", Ok(_)) => {
                self.acknowledged.extend(made.iter().cloned());
                if let Some(token) = call.value("ClientToken") {
                    let first = self.tokens.entry(token.to_owned()).or_insert_with(|| made.clone());
                    if *first != made {
                        return format!("{call:?}: {made:?} TWICE");
                    }
                }
            }
            (_, Ok(_)) => self.kept.extend(made.iter().cloned()),
            (_, Err(_)) => {}
        }
        format!("{call:?}: {:?}", answer.as_ref().map(|_| made))
    }

    fn fault(&mut self) -> String {
        let number = self.draw(self.world.hosts.len());
        let id = self.an_instance();
        let host = &self.world.hosts[number];
        match self.draw(7) {
            0 if self.away.insert(number) => {
                host.lose();
                format!("host {number} is lost")
            }
            0 | 1 => match self.away.pop_first() {
                Some(back) => {
                    self.world.hosts[back].restore();
                    format!("host {back} is back")
                }
                None => "no host is away".into(),
            },
            2 => {
                host.fail_next_launches(2, "The driver failed");
                format!("host {number} fails two launches")
            }
            3 => {
                host.fail_next_volumes(2, "The disk is full");
                format!("host {number} has no room for two volumes")
            }
            4 => {
                let volumes = host.volumes();
                let lost = volumes.get(self.draw(volumes.len().max(1)));
                format!("host {number} loses {lost:?}: {}", lost.is_some_and(|id| host.lose_volume(id)))
            }
            5 => {
                self.world.links[number].cut();
                format!("the link to host {number} breaks")
            }
            _ => {
                let id = model::Id::parse(model::Kind::Instance, &id).unwrap();
                let off = self.world.hosts.iter().any(|host| host.power_off_guest(&id));
                format!("guest {id} powers off: {off}")
            }
        }
    }

    /// Takes down what is seen of the instances.
    fn look(&mut self) {
        let tables = self.world.region().view.read();
        let mut seen = String::new();
        for one in tables.instances.iter() {
            let (id, state) = (one.instance_id.to_string(), one.state.name());
            seen += &format!("{id} {state} {}; ", one.placement.host_id);
            match state {
                "stopped" | "terminated" => drop(self.vacated.insert(id)),
                // What is terminated when stopped has no guest that would have to go.
                "shutting-down" => {}
                _ => drop(self.vacated.remove(&id)),
            }
        }
        self.trace.push(seen);
    }

    /// What is wrong now, beside what is found to be.
    pub fn check(&self, found: &[String]) -> Result<(), String> {
        let hosts: Vec<_> = self.world.hosts.iter().map(|host| host.describe()).collect();
        let (held, owned, recorded) = self.records();
        let mut wrong = violations(&hosts, &held, &owned);
        wrong.extend(lost(&self.acknowledged, &recorded));
        let tables = self.world.region().view.read();
        wrong.extend(storage::violations(&tables));
        wrong.extend(manage::violations(&tables));
        wrong.extend(network::violations(&tables));
        wrong.extend(interfaces::violations(&tables));
        wrong.extend(manage::missing(&tables, &self.kept));
        drop(tables);
        wrong.extend(found.iter().cloned());
        wrong.extend(self.trace.iter().filter(|line| line.ends_with("TWICE")).cloned());
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!("seed {}:\n{}\n{}", self.seed, self.trace.join("\n"), wrong.join("\n")))
    }

    fn records(&self) -> (Vec<Held>, Vec<Owned>, BTreeSet<String>) {
        let tables = self.world.region().view.read();
        let (mut held, mut owned) = (Vec::new(), Vec::new());
        for one in tables.instances.iter() {
            let id = one.instance_id.to_string();
            owned.extend(one.disks.iter().map(|disk| (disk.volume_id.to_string(), id.clone())));
            if self.vacated.contains(&id) {
                continue;
            }
            let group = one.placement.group_id().and_then(|id| tables.placement_groups.find(id));
            let group = group.map(|group| {
                let rule = match group.strategy {
                    Strategy::Cluster => Rule::Cluster,
                    Strategy::Partition => Rule::Partition(one.placement.partition_number().unwrap_or(0)),
                    Strategy::Spread => Rule::Spread,
                };
                Group { id: group.group_id.to_string(), rule }
            });
            held.push(Held {
                instance: id,
                host: one.placement.host_id.to_string(),
                vcpus: one.vcpus.into(),
                memory_mib: one.memory_mib,
                tenancy: one.placement.tenancy.name(),
                group,
            });
        }
        for interface in tables.network_interfaces.iter() {
            let id = interface.interface_id.to_string();
            for own in &interface.addresses {
                owned.push((format!("{} in {}", own.private_ip, interface.vpc_id), id.clone()));
                owned.extend(own.public_ip().map(|ip| (ip.to_string(), id.clone())));
            }
        }
        let recorded = tables.instances.iter().map(|one| one.instance_id.to_string()).collect();
        (held, owned, recorded)
    }

    /// Faults end and time passes: everything has come to its end, and hosts have what the records say.
    pub async fn settle(&mut self) -> Result<(), String> {
        self.away.clear();
        for host in &self.world.hosts {
            host.restore();
            host.fail_next_launches(0, "");
            host.fail_next_volumes(0, "");
        }
        tokio::time::sleep(Duration::from_secs(20 * 60)).await;
        self.look();
        let mut found = storage::left_over(&self.world);
        found.extend(storage::leaked(&self.world));
        found.extend(self.not_running().await);
        {
            let tables = self.world.region().view.read();
            found.extend(interfaces::unsettled(&tables));
            found.extend((!tables.workflows.is_empty()).then(|| "a workflow has not ended".to_owned()));
            let mut running: BTreeMap<&str, usize> = BTreeMap::new();
            for one in tables.instances.iter() {
                match one.state.name() {
                    "running" => *running.entry(&one.placement.host_id).or_default() += 1,
                    "stopped" | "terminated" => {}
                    other => found.push(format!("{} is {other} for ever", one.instance_id)),
                }
            }
            for host in &self.world.hosts {
                let id = host.describe().host_id;
                let (wanted, there) = (running.get(id.as_str()).copied().unwrap_or(0), host.running());
                if wanted != there {
                    found.push(format!("{id} runs {there} guests; {wanted} are recorded to run"));
                }
            }
        }
        self.check(&found)
    }

    /// Instances that are recorded to run and that their host does not have running.
    async fn not_running(&self) -> Vec<String> {
        let recorded: Vec<(String, String)> = {
            let tables = self.world.region().view.read();
            let running = tables.instances.iter().filter(|one| one.state.name() == "running");
            running.map(|one| (one.instance_id.to_string(), one.placement.host_id.to_string())).collect()
        };
        let mut wrong = Vec::new();
        for (id, host_id) in recorded {
            let host = self.world.hosts.iter().find(|host| host.describe().host_id == host_id).unwrap();
            let console = host.console_output(&id).await.unwrap_or_default();
            if !String::from_utf8_lossy(&console).contains("simulated: running") {
                wrong.push(format!("{id} does not run on {host_id}"));
            }
        }
        wrong
    }
}
