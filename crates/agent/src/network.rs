//! The network of the host: what desired VPCs, groups and instances ask of `host::net`, and who is on it.
//!
//! An instance is *attached* from before its machine starts until after it has ended: its interfaces, their VPCs
//! and groups are the plan. One task applies the latest plan; changes that come meanwhile become one.
//!
//! Invariants: a VPC or group that is no longer desired stays as it was while an attached instance is in it; an
//! interface whose VPC is not known yet is left out of the plan, and whoever waits for it goes on waiting.

use crate::services::Services;
use crate::tasks::Backoff;
use agent_api::{Desired, Instance, Interface, Peer, Protocol, SecurityGroup, Subnet, Vpc};
use host::net::{
    Bandwidth, GroupPlan, InterfacePlan, NetError, NetPlan, Network, PeerPlan, ProtocolPlan, RulePlan,
    VpcPlan,
};
use model::Id;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long an interface may wait for its VPC: the message that tells of it may come later.
const APPLIED_WITHIN: Duration = Duration::from_secs(30);

pub(crate) struct HostNetwork {
    driver: Arc<dyn Network>,
    state: RwLock<State>,
    wake: Notify,
    applied: watch::Sender<Applied>,
}

#[derive(Default)]
struct State {
    vpcs: BTreeMap<Id, Kept<Arc<Vpc>>>,
    groups: BTreeMap<Id, Kept<SecurityGroup>>,
    /// By instance.
    attached: BTreeMap<Id, Arc<Instance>>,
    /// By interface, where in `attached` it is.
    interfaces: HashMap<Id, Id>,
    revision: u64,
    /// Whether control has said what is desired.
    replaced: bool,
}

struct Kept<T> {
    value: T,
    desired: bool,
}

#[derive(Default)]
struct Applied {
    revision: u64,
    interfaces: BTreeSet<Id>,
    failed: Option<Arc<NetError>>,
}

/// An instance as seen from one of its interfaces.
#[derive(Clone)]
pub(crate) struct Guest {
    pub instance: Arc<Instance>,
    pub vpc: Arc<Vpc>,
    interface: usize,
}

impl Guest {
    #[cfg(test)]
    pub(crate) fn new(instance: Arc<Instance>, vpc: Arc<Vpc>, interface: usize) -> Self {
        Guest { instance, vpc, interface }
    }

    pub(crate) fn interface(&self) -> &Interface {
        &self.instance.interfaces[self.interface]
    }

    pub(crate) fn subnet(&self) -> Option<&Subnet> {
        self.vpc.subnets.iter().find(|subnet| subnet.subnet_id == self.interface().subnet_id)
    }
}

impl HostNetwork {
    pub(crate) fn new(driver: Arc<dyn Network>) -> Arc<Self> {
        Arc::new(HostNetwork {
            driver,
            state: RwLock::default(),
            wake: Notify::new(),
            applied: watch::Sender::default(),
        })
    }

    pub(crate) fn driver(&self) -> &Arc<dyn Network> {
        &self.driver
    }

    /// Takes in all VPCs and groups, and the instances that already run. Nothing is applied before the first time.
    pub(crate) fn replace(&self, desired: &Desired, running: Vec<Arc<Instance>>) {
        self.change(|state| {
            state.replaced = true;
            state.vpcs.values_mut().for_each(|kept| kept.desired = false);
            state.groups.values_mut().for_each(|kept| kept.desired = false);
            for vpc in desired.vpcs.values() {
                state.put_vpc(vpc);
            }
            for group in desired.security_groups.values() {
                state.put_group(group);
            }
            for instance in running {
                state.attach(instance);
            }
            true
        });
    }

    pub(crate) fn put_vpc(&self, vpc: &Vpc) {
        self.change(|state| {
            state.put_vpc(vpc);
            true
        });
    }

    pub(crate) fn remove_vpc(&self, vpc_id: &Id) {
        self.change(|state| state.vpcs.get_mut(vpc_id).map(|kept| kept.desired = false).is_some());
    }

    pub(crate) fn put_group(&self, group: &SecurityGroup) {
        self.change(|state| {
            state.put_group(group);
            true
        });
    }

    pub(crate) fn remove_group(&self, group_id: &Id) {
        self.change(|state| state.groups.get_mut(group_id).map(|kept| kept.desired = false).is_some());
    }

    /// Takes in what has changed of an instance that is attached, or attaches it.
    pub(crate) fn update(&self, instance: &Arc<Instance>) {
        self.change(|state| {
            let is_new = state.attached.get(&instance.instance_id) != Some(instance);
            if is_new {
                state.attach(instance.clone());
            }
            is_new
        });
    }

    /// Attaches an instance and has the plan applied in any case. The revision is for `taps`.
    pub(crate) fn attach(&self, instance: &Arc<Instance>) -> u64 {
        self.change(|state| {
            state.attach(instance.clone());
            true
        })
    }

    pub(crate) fn detach(&self, instance_id: &Id) {
        self.change(|state| state.detach(instance_id));
    }

    /// Changes the state; where that is so, what follows from it is applied.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) -> u64 {
        let mut state = self.state.write();
        if change(&mut state) {
            state.revision += 1;
            self.wake.notify_one();
        }
        state.revision
    }

    /// Opens the taps of an instance once they are there, in the order of its interfaces.
    pub(crate) async fn taps(
        &self,
        instance: &Instance,
        revision: u64,
    ) -> Result<Vec<OwnedFd>, Arc<NetError>> {
        let mut applied = self.applied.subscribe();
        let is_there = |applied: &Applied| {
            let on_it = |interface: &Interface| applied.interfaces.contains(&interface.interface_id);
            applied.revision >= revision
                && (applied.failed.is_some() || instance.interfaces.iter().all(on_it))
        };
        match tokio::time::timeout(APPLIED_WITHIN, applied.wait_for(is_there)).await {
            Ok(Ok(applied)) => {
                if let Some(error) = &applied.failed {
                    return Err(error.clone());
                }
            }
            Ok(Err(_)) | Err(_) => {
                let message = format!("The network of {} is not known to its host", instance.instance_id);
                return Err(Arc::new(NetError::Failed(message)));
            }
        }
        let mut taps = Vec::with_capacity(instance.interfaces.len());
        for interface in &instance.interfaces {
            taps.push(self.driver.open_tap(&interface.interface_id).await?);
        }
        Ok(taps)
    }

    /// Who has the interface.
    pub(crate) fn guest(&self, interface_id: &Id) -> Option<Guest> {
        let state = self.state.read();
        let instance = state.attached.get(state.interfaces.get(interface_id)?)?;
        let interface = instance.interfaces.iter().position(|i| i.interface_id == *interface_id)?;
        let vpc = &state.vpcs.get(&instance.interfaces[interface].vpc_id)?.value;
        Some(Guest { instance: instance.clone(), vpc: vpc.clone(), interface })
    }

    /// The private address, in the VPC, of the interface that has this public one.
    pub(crate) fn private_address(&self, vpc_id: &Id, public_ip: Ipv4Addr) -> Option<Ipv4Addr> {
        let state = self.state.read();
        let interfaces = state.attached.values().flat_map(|instance| &instance.interfaces);
        let mut interfaces = interfaces.filter(|interface| interface.vpc_id == *vpc_id);
        interfaces
            .find(|interface| interface.public_ip == Some(public_ip))
            .map(|interface| interface.private_ip)
    }

    /// Whether the address, as seen from the host, is a guest's. (Private ones may well be somebody else's there.)
    pub(crate) fn is_guest(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let state = self.state.read();
        let mut interfaces = state.attached.values().flat_map(|instance| &instance.interfaces);
        interfaces.any(|interface| interface.public_ip == Some(address))
    }

    /// Keeps the host's network as the plan says. Never ends by itself.
    pub(crate) async fn run(self: Arc<Self>, mut services: Services) {
        let mut last = None;
        let mut backoff = Backoff::new();
        loop {
            let Some((revision, plan)) = self.plan() else {
                self.wake.notified().await;
                continue;
            };
            services.keep(plan.vpcs.iter().map(|vpc| &vpc.vpc_id)).await;
            let result =
                if last.as_ref() == Some(&plan) { Ok(()) } else { self.driver.apply(plan.clone()).await };
            let interfaces: BTreeSet<Id> =
                plan.interfaces.iter().map(|interface| interface.interface_id.clone()).collect();
            let mut is_whole = result.is_ok();
            match result {
                Ok(()) => {
                    is_whole &= services.open(plan.vpcs.iter().map(|vpc| &vpc.vpc_id), &self).await;
                    last = Some(plan);
                    self.applied.send_replace(Applied { revision, interfaces, failed: None });
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "network not applied");
                    last = None;
                    let failed = Some(Arc::new(error));
                    self.applied.send_replace(Applied { revision, interfaces: BTreeSet::new(), failed });
                }
            }
            if is_whole {
                backoff = Backoff::new();
                self.wake.notified().await;
            } else {
                tokio::select! {
                    () = backoff.wait() => {}
                    () = self.wake.notified() => {}
                }
            }
        }
    }

    pub(crate) fn plan(&self) -> Option<(u64, NetPlan)> {
        let mut state = self.state.write();
        if !state.replaced {
            return None;
        }
        state.drop_what_is_unused();
        Some((state.revision, state.plan()))
    }
}

impl State {
    fn put_vpc(&mut self, vpc: &Vpc) {
        let kept = Kept { value: Arc::new(vpc.clone()), desired: true };
        self.vpcs.insert(vpc.vpc_id.clone(), kept);
    }

    fn put_group(&mut self, group: &SecurityGroup) {
        self.groups.insert(group.group_id.clone(), Kept { value: group.clone(), desired: true });
    }

    fn attach(&mut self, instance: Arc<Instance>) {
        self.detach(&instance.instance_id);
        for interface in &instance.interfaces {
            self.interfaces.insert(interface.interface_id.clone(), instance.instance_id.clone());
        }
        self.attached.insert(instance.instance_id.clone(), instance);
    }

    fn detach(&mut self, instance_id: &Id) -> bool {
        let Some(instance) = self.attached.remove(instance_id) else { return false };
        for interface in &instance.interfaces {
            // It may have moved to another instance since.
            if self.interfaces.get(&interface.interface_id) == Some(instance_id) {
                self.interfaces.remove(&interface.interface_id);
            }
        }
        true
    }

    fn used_interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.users().map(|(interface, _)| interface)
    }

    /// Interfaces and the instances that have them.
    fn users(&self) -> impl Iterator<Item = (&Interface, &Instance)> {
        self.attached.iter().flat_map(move |(instance_id, instance)| {
            let is_its = move |i: &&Interface| {
                self.interfaces.get(&i.interface_id).is_some_and(|id| id == instance_id)
            };
            instance.interfaces.iter().filter(is_its).map(|interface| (interface, &**instance))
        })
    }

    fn drop_what_is_unused(&mut self) {
        let vpcs: BTreeSet<Id> = self.used_interfaces().map(|interface| interface.vpc_id.clone()).collect();
        let groups: BTreeSet<Id> =
            self.used_interfaces().flat_map(|interface| interface.security_groups.clone()).collect();
        self.vpcs.retain(|id, kept| kept.desired || vpcs.contains(id));
        self.groups.retain(|id, kept| kept.desired || groups.contains(id));
    }

    /// Only what attached instances need: a VPC whose instances all are stopped costs the host nothing.
    fn plan(&self) -> NetPlan {
        let users: Vec<(&Interface, &Instance)> =
            self.users().filter(|(interface, _)| self.vpcs.contains_key(&interface.vpc_id)).collect();
        let vpcs: BTreeSet<&Id> = users.iter().map(|(interface, _)| &interface.vpc_id).collect();
        let groups: BTreeSet<&Id> =
            users.iter().flat_map(|(interface, _)| &interface.security_groups).collect();
        NetPlan {
            vpcs: vpcs
                .into_iter()
                .filter_map(|id| self.vpcs.get(id))
                .map(|kept| vpc_plan(&kept.value))
                .collect(),
            groups: groups
                .into_iter()
                .filter_map(|id| self.groups.get(id))
                .map(|kept| group_plan(&kept.value))
                .collect(),
            interfaces: users
                .into_iter()
                .map(|(interface, instance)| self.interface_plan(interface, instance))
                .collect(),
        }
    }

    /// A group that is not known lets nothing through, so leaving it out is safe.
    fn interface_plan(&self, interface: &Interface, instance: &Instance) -> InterfacePlan {
        let known = interface.security_groups.iter().filter(|id| self.groups.contains_key(*id));
        InterfacePlan {
            interface_id: interface.interface_id.clone(),
            vpc_id: interface.vpc_id.clone(),
            mac: interface.mac,
            private_ip: interface.private_ip,
            public_ip: interface.public_ip,
            groups: known.cloned().collect(),
            source_dest_check: interface.source_dest_check,
            bandwidth: instance
                .machine
                .bandwidth
                .map(|bandwidth| Bandwidth { baseline: bandwidth.baseline, peak: bandwidth.peak }),
        }
    }
}

fn vpc_plan(vpc: &Vpc) -> VpcPlan {
    VpcPlan {
        vpc_id: vpc.vpc_id.clone(),
        cidrs: vpc.cidrs.clone(),
        subnets: vpc.subnets.iter().map(|subnet| subnet.cidr).collect(),
        internet_gateway: vpc.internet_gateway,
    }
}

fn group_plan(group: &SecurityGroup) -> GroupPlan {
    let rules = |rules: &[agent_api::Rule]| {
        rules
            .iter()
            .map(|rule| RulePlan {
                protocol: protocol_plan(rule.protocol.clone()),
                peer: peer_plan(&rule.peer),
            })
            .collect()
    };
    GroupPlan {
        group_id: group.group_id.clone(),
        vpc_id: group.vpc_id.clone(),
        ingress: rules(&group.ingress),
        egress: rules(&group.egress),
        members: group.members.clone(),
    }
}

fn protocol_plan(protocol: Protocol) -> ProtocolPlan {
    match protocol {
        Protocol::All => ProtocolPlan::All,
        Protocol::Tcp { from, to } => ProtocolPlan::Tcp { from, to },
        Protocol::Udp { from, to } => ProtocolPlan::Udp { from, to },
        Protocol::Icmp { kind, code } => ProtocolPlan::Icmp { kind, code },
        Protocol::Icmpv6 { kind, code } => ProtocolPlan::Icmpv6 { kind, code },
        Protocol::Number(number) => ProtocolPlan::Number(number),
    }
}

fn peer_plan(peer: &Peer) -> PeerPlan {
    match peer {
        Peer::Cidr(cidr) => PeerPlan::Cidr(*cidr),
        Peer::Cidr6(cidr) => PeerPlan::Cidr6(*cidr),
        Peer::Group(id) => PeerPlan::Group(id.clone()),
    }
}
