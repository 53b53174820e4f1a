//! The network of the host: what desired VPCs, groups and instances ask of `host::net`, and who is on it.
//!
//! An instance is *attached* from before its machine starts until after it has ended: its interfaces, their VPCs
//! and groups are the plan. One task applies the latest plan; changes that come meanwhile become one.
//!
//! Invariants: a VPC or group that is no longer desired stays as it was while an attached instance is in it; an
//! interface whose VPC is not known yet is left out of the plan, and whoever waits for it goes on waiting.

use crate::services::Services;
use crate::tasks::Backoff;
use agent_api::{Desired, Instance, PublicPool, SecurityGroup, Vpc};
use datapath::{Interface, Plan, Subnet};
use host::machine::Tap;
use host::net::{NetError, Network};
use model::Id;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
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
    groups: BTreeMap<Id, Kept<datapath::SecurityGroup>>,
    pools: Vec<datapath::PublicPool>,
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
pub(crate) struct Applied {
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

    pub(crate) fn interface(&self) -> &agent_api::Interface {
        &self.instance.interfaces[self.interface]
    }

    /// The VPC's base plus two (Amazon VPC User Guide, "Amazon DNS server").
    pub(crate) fn resolver(&self) -> Option<Ipv4Addr> {
        let base = u32::from(self.vpc.network.cidrs.first()?.network());
        base.checked_add(2).map(Ipv4Addr::from)
    }

    pub(crate) fn subnet(&self) -> Option<&Subnet> {
        let subnet_id = &self.interface().network.subnet_id;
        self.vpc.network.subnets.iter().find(|subnet| subnet.subnet_id == *subnet_id)
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
            state.set_pools(&desired.public_pools);
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

    pub(crate) fn set_pools(&self, pools: &BTreeMap<Id, PublicPool>) {
        self.change(|state| {
            state.set_pools(pools);
            true
        });
    }

    /// Takes in what has changed of an instance that is attached, or attaches it. The revision is for `taps`.
    pub(crate) fn update(&self, instance: &Arc<Instance>) -> u64 {
        self.change(|state| {
            let is_new = state.attached.get(&instance.instance_id) != Some(instance);
            if is_new {
                state.attach(instance.clone());
            }
            is_new
        })
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

    /// Opens the taps of interfaces once they are there, in their order, with so many queues each that does not say.
    pub(crate) async fn taps(
        &self,
        interfaces: &[agent_api::Interface],
        queues: usize,
        revision: u64,
    ) -> Result<Vec<Tap>, Arc<NetError>> {
        let mut applied = self.applied.subscribe();
        let is_there = |applied: &Applied| {
            let on_it = |i: &agent_api::Interface| applied.interfaces.contains(&i.network.interface_id);
            applied.revision >= revision && (applied.failed.is_some() || interfaces.iter().all(on_it))
        };
        match tokio::time::timeout(APPLIED_WITHIN, applied.wait_for(is_there)).await {
            Ok(Ok(applied)) => {
                if let Some(error) = &applied.failed {
                    return Err(error.clone());
                }
            }
            Ok(Err(_)) | Err(_) => {
                let ids: Vec<&str> = interfaces.iter().map(|own| own.network.interface_id.as_str()).collect();
                let message = format!("The network of {} is not known to its host", ids.join(", "));
                return Err(Arc::new(NetError::Failed(message)));
            }
        }
        let mut taps = Vec::with_capacity(interfaces.len());
        for interface in interfaces {
            let queues = interface.queues.map_or(queues, usize::from);
            taps.push(self.driver.open_tap(&interface.network.interface_id, queues).await?);
        }
        Ok(taps)
    }

    /// Who has the interface.
    pub(crate) fn guest(&self, interface_id: &Id) -> Option<Guest> {
        let state = self.state.read();
        let instance = state.attached.get(state.interfaces.get(interface_id)?)?;
        let interface = instance.interfaces.iter().position(|i| i.network.interface_id == *interface_id)?;
        let vpc = &state.vpcs.get(&instance.interfaces[interface].network.vpc_id)?.value;
        Some(Guest { instance: instance.clone(), vpc: vpc.clone(), interface })
    }

    /// Who is behind the tap of that index.
    pub(crate) fn guest_of_index(&self, vpc_id: &Id, index: u32) -> Option<Guest> {
        self.guest(&self.driver.interface_of_index(vpc_id, index)?)
    }

    /// Indexes of the taps in the VPC that have addresses of IPv6.
    pub(crate) fn speakers_of_ipv6(&self, vpc_id: &Id) -> impl Iterator<Item = u32> {
        let state = self.state.read();
        let speakers = state
            .used_interfaces()
            .filter(|interface| interface.vpc_id == *vpc_id && !interface.ipv6_addresses.is_empty());
        let speakers: Vec<u32> = speakers
            .filter_map(|interface| self.driver.index_of_interface(&interface.interface_id))
            .collect();
        speakers.into_iter()
    }

    /// Changes each time that a plan is applied.
    pub(crate) fn applied(&self) -> watch::Receiver<Applied> {
        let mut applied = self.applied.subscribe();
        applied.mark_changed();
        applied
    }

    /// The private address, in the VPC, of the interface that has this public one.
    pub(crate) fn private_address(&self, vpc_id: &Id, public_ip: Ipv4Addr) -> Option<Ipv4Addr> {
        let state = self.state.read();
        let interfaces = state.used_interfaces().filter(|interface| interface.vpc_id == *vpc_id);
        let mut addresses = interfaces.flat_map(|interface| &interface.addresses);
        addresses.find(|address| address.public_ip == Some(public_ip)).map(|address| address.private_ip)
    }

    /// The instance of this id, where its primary interface is in the VPC and on this host.
    pub(crate) fn instance_in(&self, vpc_id: &Id, instance_id: &str) -> Option<Arc<Instance>> {
        let state = self.state.read();
        let instance = state.attached.get(instance_id)?;
        let is_in = |interface: &agent_api::Interface| interface.network.vpc_id == *vpc_id;
        instance.interfaces.first().is_some_and(is_in).then(|| instance.clone())
    }

    /// Whether the address, as seen from the host, is a guest's. (Private ones may well be somebody else's there.)
    pub(crate) fn is_guest(&self, address: IpAddr) -> bool {
        let state = self.state.read();
        let mut interfaces = state.used_interfaces();
        match address {
            IpAddr::V4(address) => interfaces
                .flat_map(|interface| &interface.addresses)
                .any(|own| own.public_ip == Some(address)),
            IpAddr::V6(address) => interfaces.any(|interface| interface.ipv6_addresses.contains(&address)),
        }
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
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = self.driver.disturbed() => last = None,
                }
            } else {
                tokio::select! {
                    () = backoff.wait() => {}
                    () = self.wake.notified() => {}
                }
            }
        }
    }

    pub(crate) fn plan(&self) -> Option<(u64, Plan)> {
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
        self.vpcs.insert(vpc.network.vpc_id.clone(), kept);
    }

    fn put_group(&mut self, group: &SecurityGroup) {
        let kept = Kept { value: group.network.clone(), desired: true };
        self.groups.insert(group.network.group_id.clone(), kept);
    }

    fn set_pools(&mut self, pools: &BTreeMap<Id, PublicPool>) {
        self.pools = pools.values().map(|pool| pool.network.clone()).collect();
    }

    fn attach(&mut self, instance: Arc<Instance>) {
        self.detach(&instance.instance_id);
        for interface in &instance.interfaces {
            let id = interface.network.interface_id.clone();
            self.interfaces.insert(id, instance.instance_id.clone());
        }
        self.attached.insert(instance.instance_id.clone(), instance);
    }

    fn detach(&mut self, instance_id: &Id) -> bool {
        let Some(instance) = self.attached.remove(instance_id) else { return false };
        for interface in &instance.interfaces {
            // It may have moved to another instance since.
            if self.interfaces.get(&interface.network.interface_id) == Some(instance_id) {
                self.interfaces.remove(&interface.network.interface_id);
            }
        }
        true
    }

    fn used_interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.attached.iter().flat_map(move |(instance_id, instance)| {
            let is_its = move |i: &&Interface| self.interfaces.get(&i.interface_id) == Some(instance_id);
            instance.interfaces.iter().map(|interface| &interface.network).filter(is_its)
        })
    }

    fn drop_what_is_unused(&mut self) {
        let vpcs: BTreeSet<Id> = self.used_interfaces().map(|interface| interface.vpc_id.clone()).collect();
        let groups: BTreeSet<Id> =
            self.used_interfaces().flat_map(|interface| interface.groups.clone()).collect();
        self.vpcs.retain(|id, kept| kept.desired || vpcs.contains(id));
        self.groups.retain(|id, kept| kept.desired || groups.contains(id));
    }

    /// Only what attached instances need: a VPC whose instances all are stopped costs the host nothing.
    fn plan(&self) -> Plan {
        let used: Vec<&Interface> =
            self.used_interfaces().filter(|interface| self.vpcs.contains_key(&interface.vpc_id)).collect();
        let vpcs: BTreeSet<&Id> = used.iter().map(|interface| &interface.vpc_id).collect();
        let mut groups: BTreeSet<&Id> = used.iter().flat_map(|interface| &interface.groups).collect();
        let named: Vec<&Id> =
            groups.iter().filter_map(|id| self.groups.get(*id)).flat_map(|kept| kept.value.peers()).collect();
        groups.extend(named);
        let vpcs = vpcs.into_iter().filter_map(|id| self.vpcs.get(id));
        let groups = groups.into_iter().filter_map(|id| self.groups.get(id));
        Plan {
            vpcs: vpcs.map(|kept| kept.value.network.clone()).collect(),
            groups: groups.map(|kept| kept.value.clone()).collect(),
            interfaces: used.into_iter().map(|interface| self.planned(interface)).collect(),
            elsewhere: Vec::new(),
            public_pools: self.pools.clone(),
        }
    }

    /// A group that is not known lets nothing through, so leaving it out is safe.
    fn planned(&self, interface: &Interface) -> Interface {
        let mut planned = interface.clone();
        planned.groups.retain(|id| self.groups.contains_key(id));
        planned
    }
}
