//! Keeps hosts at what the records say, and the records at what the hosts observe.
//!
//! ```text
//!   records ──changes──▶ desire loop ──agent_api::Change──▶ host
//!      ▲                                                     │
//!      └── transaction ◀── observe loop ◀──Observation───────┘
//! ```
//!
//! Both loops are level-triggered: a desire is computed from the records as they are, never from what happened,
//! so that a change seen late, twice or not at all (followed by `replace`) comes to the same.
//!
//! A host whose observations end is *away*. It is asked again until it tells of itself, and then catches up both ways:
//! it tells all that it has, and is told all that it shall have. The same where what it told could not be written. Only the desire loop tells hosts anything, so that no
//! older word can follow a newer one.

use crate::encryption::{self, Encryption};
use crate::engine::{Change, Tables, Tx, transaction};
use crate::instance::{ON_HOST, desired, lifecycle};
use crate::public_pool::PublicPool;
use crate::region::{HostLink, RegionState};
use crate::volume::Condition;
use crate::{Control, route_table, security_group, volume, vpc};
use agent_api::{Desired, Observation, VolumeState};
use model::{Id, Text};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};

/// Most change notices taken together.
const NOTICES_MAX: usize = 1024;
/// Most observations taken in with one transaction.
const OBSERVATIONS_MAX: usize = 256;
/// How long to leave a host alone that is away.
const AWAY_PAUSE: Duration = Duration::from_secs(1);
/// How long to leave a host alone whose word could not be taken in, before it is asked for all again.
const UNTAKEN_PAUSE: Duration = Duration::from_secs(5);

pub(crate) fn start(control: &Arc<Control>, region: &Arc<RegionState>) {
    let (found, here) = mpsc::unbounded_channel();
    for host in &region.hosts {
        let (control, region) = (Arc::downgrade(control), Arc::downgrade(region));
        tokio::spawn(observe(control, region, host.clone(), found.clone()));
    }
    let changes = region.view.changes();
    tokio::spawn(desire(Arc::downgrade(region), changes, here));
}

/// Takes in what a host tells, through all times that it is away. `found` is told of it whenever it begins anew.
async fn observe(
    control: Weak<Control>,
    region: Weak<RegionState>,
    host: HostLink,
    found: mpsc::UnboundedSender<HostLink>,
) {
    let host_id = host.description.host_id.clone();
    loop {
        let mut observations = host.agent.observe();
        if !observations.is_closed() {
            hear(&control, &region, &host, true);
            if found.send(host.clone()).is_err() {
                return;
            }
        }
        let mut waiting = Vec::new();
        let pause = loop {
            if observations.recv_many(&mut waiting, OBSERVATIONS_MAX).await == 0 {
                hear(&control, &region, &host, false);
                break AWAY_PAUSE;
            }
            let (Some(control), Some(region)) = (control.upgrade(), region.upgrade()) else { return };
            if !take_in_all(&control, &region, &host_id, &mut waiting).await {
                break UNTAKEN_PAUSE;
            }
        };
        tokio::time::sleep(pause).await;
        // For a cloud that is gone the host is not taken from whoever has it now.
        if control.strong_count() == 0 {
            return;
        }
    }
}

/// Notes whether a host is heard from, and tells those who watch.
fn hear(control: &Weak<Control>, region: &Weak<RegionState>, host: &HostLink, heard: bool) {
    let (Some(control), Some(region)) = (control.upgrade(), region.upgrade()) else { return };
    if host.is_heard() == heard {
        return;
    }
    host.set_heard(heard);
    let (host_id, now) = (&host.description.host_id, control.environment.clock.now());
    tracing::warn!(host = host_id, "{}", if heard { "a host is back" } else { "a host is away" });
    region.events.push(now, "host", host_id, if heard { "back" } else { "away" }.to_owned(), None);
}

/// False where something could not be taken in: the host must be asked for all again.
async fn take_in_all(
    control: &Control,
    region: &RegionState,
    host_id: &str,
    observations: &mut Vec<Observation>,
) -> bool {
    let mut is_whole = true;
    let mut rest = observations.as_slice();
    while !rest.is_empty() {
        let (together, others) = rest.split_at(different(&region.view.read(), rest));
        rest = others;
        let done = transaction::transact(&*control.store, &region.view, &control.environment, |tx| {
            together.iter().try_for_each(|observation| take_in(tx, host_id, observation))
        })
        .await;
        if let Err(error) = done {
            tracing::error!(%error, host = host_id, ?together, "observations were not taken in");
            is_whole = false;
        }
    }
    for observation in observations.drain(..) {
        match observation {
            Observation::Volume { volume_id, state: VolumeState::Failed { message } } => {
                tracing::error!(%volume_id, message, host = host_id, "a volume failed");
            }
            Observation::Volume { volume_id, state: VolumeState::Lost } => {
                tracing::error!(%volume_id, host = host_id, "the data of a volume is not on its host any more");
            }
            Observation::Volume { .. } | Observation::Instance(_) => {}
        }
    }
    is_whole
}

/// How many observations from the first on are of different things: a transaction sees its records as they were
/// before it, so that two of one thing take two.
fn different(tables: &Tables, observations: &[Observation]) -> usize {
    let mut seen = HashSet::new();
    observations
        .iter()
        .take_while(|observation| subjects(tables, observation).into_iter().all(|id| seen.insert(id)))
        .count()
}

/// What an observation may change: an instance, and its volumes with it.
fn subjects(tables: &Tables, observation: &Observation) -> Vec<Id> {
    match observation {
        Observation::Instance(instance) => {
            let id = &instance.instance_id;
            let record = tables.instances.find(id);
            let volumes = record.into_iter().flat_map(|record| &record.disks).map(|disk| &disk.volume_id);
            std::iter::once(id).chain(volumes).cloned().collect()
        }
        Observation::Volume { volume_id, .. } => vec![volume_id.clone()],
    }
}

fn take_in(tx: &mut Tx<'_>, host_id: &str, observation: &Observation) -> model::Result<()> {
    match observation {
        // What a host says of an instance that has moved on is over.
        Observation::Instance(instance)
            if tx
                .tables()
                .instances
                .find(&instance.instance_id)
                .is_some_and(|record| record.placement.host_id != host_id) =>
        {
            Ok(())
        }
        Observation::Instance(instance) => lifecycle::observed(tx, instance),
        // As of one that has moved on.
        Observation::Volume { volume_id, .. }
            if tx
                .tables()
                .volumes
                .find(volume_id)
                .is_some_and(|record| record.host_id.as_deref() != Some(host_id)) =>
        {
            Ok(())
        }
        Observation::Volume { volume_id, state } => {
            volume::create::observed(tx, volume_id, state);
            Ok(())
        }
    }
}

/// Ids of what a batch of changes may have made different on hosts.
#[derive(Default)]
struct Affected {
    instances: BTreeSet<Id>,
    volumes: BTreeSet<Id>,
    groups: BTreeSet<Id>,
    vpcs: BTreeSet<Id>,
    all_vpcs: bool,
    /// Where routes may lead.
    targets: BTreeSet<Id>,
    prefix_lists: BTreeSet<Id>,
    public_pools: BTreeSet<Id>,
    /// Connections that rules are of.
    peerings: BTreeSet<Id>,
    /// Of what is deleted: the host that had it.
    volume_hosts: HashMap<Id, Text>,
    instance_hosts: HashMap<Id, Text>,
    /// Hosts that an instance or volume has moved away from.
    instances_left: BTreeSet<(Text, Id)>,
    volumes_left: BTreeSet<(Text, Id)>,
}

impl Affected {
    fn note(&mut self, change: &Change) {
        match change {
            Change::Instance { old, new } => {
                if let (Some(old), Some(new)) = (old, new)
                    && old.placement.host_id != new.placement.host_id
                {
                    let left = (old.placement.host_id.clone(), old.instance_id.clone());
                    self.instances_left.insert(left);
                }
                for instance in old.iter().chain(new) {
                    self.instances.insert(instance.instance_id.clone());
                    self.instance_hosts
                        .insert(instance.instance_id.clone(), instance.placement.host_id.clone());
                }
            }
            Change::Volume { old, new } => {
                if let (Some(old), Some(new)) = (old, new)
                    && old.host_id != new.host_id
                {
                    let left = old.host_id.clone().map(|host_id| (host_id, old.volume_id.clone()));
                    self.volumes_left.extend(left);
                }
                for volume in old.iter().chain(new) {
                    self.volumes.insert(volume.volume_id.clone());
                    // Its machine is told how fast it is.
                    self.instances.extend(volume.attachments.iter().map(|a| a.instance_id.clone()));
                    if let Some(host_id) = &volume.host_id {
                        self.volume_hosts.insert(volume.volume_id.clone(), host_id.clone());
                    }
                }
            }
            Change::NetworkInterface { old, new } => {
                for interface in old.iter().chain(new) {
                    self.targets.insert(interface.interface_id.clone());
                    self.vpcs.extend(interface.is_managed().then(|| interface.vpc_id.clone()));
                    self.groups.extend(interface.security_groups.iter().cloned());
                    self.instances
                        .extend(interface.attachment.iter().map(|attachment| attachment.instance_id.clone()));
                }
            }
            Change::SecurityGroup { old, new } => {
                self.groups.extend(old.iter().chain(new).map(|group| group.group_id.clone()));
            }
            Change::Vpc { old, new } => self.vpcs.extend(old.iter().chain(new).map(|vpc| vpc.vpc_id.clone())),
            Change::Subnet { old, new } => {
                self.vpcs.extend(old.iter().chain(new).map(|subnet| subnet.vpc_id.clone()))
            }
            Change::RouteTable { old, new } => {
                self.vpcs.extend(old.iter().chain(new).map(|table| table.vpc_id.clone()));
            }
            Change::NetworkAcl { old, new } => {
                self.vpcs.extend(old.iter().chain(new).map(|acl| acl.vpc_id.clone()));
            }
            Change::InternetGateway { old, new } => {
                self.vpcs.extend(old.iter().chain(new).filter_map(|gateway| gateway.vpc_id.clone()));
            }
            Change::PrefixList { old, new } => {
                self.prefix_lists.extend(old.iter().chain(new).map(|list| list.prefix_list_id.clone()));
            }
            Change::PublicPool { old, new } => {
                self.public_pools.extend(old.iter().chain(new).map(|pool| pool.pool_id.clone()));
            }
            Change::VpcPeeringConnection { old, new } => {
                let both = old.iter().chain(new).flat_map(|peering| [&peering.requester, &peering.accepter]);
                self.vpcs.extend(both.cloned());
                self.peerings.extend(old.iter().chain(new).map(|peering| peering.peering_id.clone()));
            }
            Change::VpcEndpoint { old, new } => {
                self.vpcs.extend(old.iter().chain(new).map(|endpoint| endpoint.vpc_id.clone()));
            }
            Change::NatGateway { old, new } => {
                self.vpcs.extend(old.iter().chain(new).map(|gateway| gateway.vpc_id.clone()));
            }
            Change::VpcBlockPublicAccessOptions { .. } => self.all_vpcs = true,
            Change::VpcBlockPublicAccessExclusion { old, new } => {
                self.vpcs.extend(old.iter().chain(new).map(|exclusion| exclusion.vpc_id.clone()));
            }
            Change::EgressOnlyInternetGateway { old, new } => {
                self.vpcs.extend(old.iter().chain(new).map(|gateway| gateway.vpc_id.clone()));
            }
            _ => {}
        }
    }

    /// The groups that are different, also by the prefix lists that they name and by what leads to their peers.
    fn groups(&self, tables: &Tables) -> BTreeSet<Id> {
        let naming = self.prefix_lists.iter().flat_map(|id| security_group::naming(tables, id));
        let over = self.peerings.iter().flat_map(|id| security_group::peered::over(tables, id));
        naming.chain(over).map(|group| &group.group_id).chain(&self.groups).cloned().collect()
    }

    /// The VPCs that are different, also by what their routes lead to.
    fn vpcs(&self, tables: &Tables) -> BTreeSet<Id> {
        let leading = self.targets.iter().flat_map(|id| route_table::leading_to(tables, id));
        let led = self.prefix_lists.iter().flat_map(|id| route_table::leading_by(tables, id));
        let all = self.all_vpcs.then(|| tables.vpcs.iter().map(|vpc| &vpc.vpc_id)).into_iter().flatten();
        leading.chain(led).map(|table| &table.vpc_id).chain(&self.vpcs).chain(all).cloned().collect()
    }
}

async fn desire(
    region: Weak<RegionState>,
    mut changes: broadcast::Receiver<Arc<Vec<Change>>>,
    mut found: mpsc::UnboundedReceiver<HostLink>,
) {
    loop {
        let mut affected = Affected::default();
        let mut lagged = false;
        tokio::select! {
            // In order, not by chance: a seed replays.
            biased;
            Some(host) = found.recv() => {
                let Some(region) = region.upgrade() else { return };
                replace(&region, &host).await;
                continue;
            }
            notice = changes.recv() => match notice {
                Ok(notice) => notice.iter().for_each(|change| affected.note(change)),
                Err(RecvError::Lagged(_)) => lagged = true,
                Err(RecvError::Closed) => return,
            },
        }
        // Whatever else came meanwhile goes out together: many changes of one thing are one.
        for _ in 0..NOTICES_MAX {
            match changes.try_recv() {
                Ok(notice) => notice.iter().for_each(|change| affected.note(change)),
                Err(TryRecvError::Lagged(_)) => lagged = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let Some(region) = region.upgrade() else { return };
        if lagged {
            for host in &region.hosts {
                replace(&region, host).await;
            }
            continue;
        }
        for (host_id, changes) in changes_by_host(&region, &affected) {
            if let Some(host) = region.host(&host_id) {
                host.agent.apply(changes).await;
            }
        }
    }
}

async fn replace(region: &RegionState, host: &HostLink) {
    host.agent.replace(whole(region, &host.description.host_id)).await;
}

/// Everything that shall be on a host.
fn whole(region: &RegionState, host_id: &str) -> Desired {
    let tables = region.view.read();
    let mut desired = Desired::default();
    for vpc in tables.vpcs.iter().filter_map(|vpc| vpc_desired(&tables, region, &vpc.vpc_id)) {
        desired.vpcs.insert(vpc.network.vpc_id.clone(), vpc);
    }
    for group in tables.security_groups.iter() {
        desired.security_groups.insert(group.group_id.clone(), group_desired(&tables, region, group));
    }
    for pool in tables.public_pools.iter() {
        desired.public_pools.insert(pool.pool_id.clone(), pool_desired(region, pool));
    }
    for volume in tables.volumes.with(ON_HOST, host_id) {
        desired.volumes.insert(volume.volume_id.clone(), volume_desired(&tables, region, volume));
    }
    for instance in tables.instances.with(ON_HOST, host_id) {
        if let Some(wanted) = desired::desired(instance, &tables, &region.view.region, region.view.applied())
        {
            desired.instances.insert(instance.instance_id.clone(), wanted);
        }
    }
    desired
}

/// In order, so that one seed does the same twice.
fn changes_by_host(region: &RegionState, affected: &Affected) -> BTreeMap<String, Vec<agent_api::Change>> {
    let tables = region.view.read();
    let mut by_host: BTreeMap<String, Vec<agent_api::Change>> = BTreeMap::new();
    let everywhere: Vec<agent_api::Change> = affected
        .vpcs(&tables)
        .iter()
        .map(|id| match vpc_desired(&tables, region, id) {
            Some(vpc) => agent_api::Change::PutVpc(Box::new(vpc)),
            None => agent_api::Change::RemoveVpc(id.clone()),
        })
        .chain(affected.groups(&tables).iter().map(|id| match tables.security_groups.find(id) {
            Some(group) => agent_api::Change::PutSecurityGroup(group_desired(&tables, region, group)),
            None => agent_api::Change::RemoveSecurityGroup(id.clone()),
        }))
        .chain(affected.public_pools.iter().map(|id| match tables.public_pools.find(id) {
            Some(pool) => agent_api::Change::PutPublicPool(pool_desired(region, pool)),
            None => agent_api::Change::RemovePublicPool(id.clone()),
        }))
        .collect();
    if !everywhere.is_empty() {
        for host in &region.hosts {
            by_host.entry(host.description.host_id.clone()).or_default().extend(everywhere.iter().cloned());
        }
    }
    for (host_id, id) in &affected.instances_left {
        // It may have come back meanwhile.
        if tables.instances.find(id).is_none_or(|instance| instance.placement.host_id != *host_id) {
            let gone = agent_api::Change::RemoveInstance(id.clone());
            by_host.entry(host_id.to_string()).or_default().push(gone);
        }
    }
    for (host_id, id) in &affected.volumes_left {
        if tables.volumes.find(id).is_none_or(|volume| volume.host_id.as_ref() != Some(host_id)) {
            by_host.entry(host_id.to_string()).or_default().push(agent_api::Change::RemoveVolume(id.clone()));
        }
    }
    for id in &affected.volumes {
        let Some(host_id) = affected.volume_hosts.get(id) else { continue };
        let change = match tables.volumes.find(id) {
            Some(volume) => agent_api::Change::PutVolume(volume_desired(&tables, region, volume)),
            None => agent_api::Change::RemoveVolume(id.clone()),
        };
        by_host.entry(host_id.to_string()).or_default().push(change);
    }
    for id in &affected.instances {
        let instance = tables.instances.find(id);
        let host_id =
            instance.map(|instance| &instance.placement.host_id).or(affected.instance_hosts.get(id));
        let Some(host_id) = host_id else { continue };
        let wanted = instance.and_then(|instance| {
            desired::desired(instance, &tables, &region.view.region, region.view.applied())
        });
        let change = match wanted {
            Some(wanted) => agent_api::Change::PutInstance(Box::new(wanted)),
            None => agent_api::Change::RemoveInstance(id.clone()),
        };
        by_host.entry(host_id.to_string()).or_default().push(change);
    }
    by_host
}

fn vpc_desired(tables: &Tables, region: &RegionState, id: &str) -> Option<agent_api::Vpc> {
    let vpc = tables.vpcs.find(id)?;
    Some(vpc::desired(vpc, tables, &region.view.region, region.view.applied()))
}

fn group_desired(
    tables: &Tables,
    region: &RegionState,
    group: &security_group::SecurityGroup,
) -> agent_api::SecurityGroup {
    agent_api::SecurityGroup {
        generation: region.view.applied(),
        network: security_group::to_desired(group, tables),
    }
}

fn pool_desired(region: &RegionState, pool: &PublicPool) -> agent_api::PublicPool {
    agent_api::PublicPool {
        pool_id: pool.pool_id.clone(),
        generation: region.view.applied(),
        network: pool.to_desired(),
    }
}

fn volume_desired(
    tables: &Tables,
    region: &RegionState,
    volume: &crate::volume::Volume,
) -> agent_api::Volume {
    // Also where it is deleted meanwhile: what was to be made of it never is empty instead.
    let template = volume.copied.as_ref().and_then(|copied| copied.template.clone());
    let snapshot_id = volume.snapshot_id.clone().or(template);
    let key_of = |encryption: Option<&Encryption>| {
        encryption.map(|encryption| encryption::data_key(region, tables, encryption)).transpose()
    };
    let source = snapshot_id.as_ref().and_then(|id| tables.snapshots.find(id));
    let source = source.and_then(|snapshot| snapshot.encryption.as_ref());
    let source = source.filter(|source| Some(*source) != volume.encryption.as_ref());
    let keys = key_of(volume.encryption.as_ref()).and_then(|key| Ok((key, key_of(source)?)));
    let is_lost = keys.is_err();
    let (key, snapshot_key) = keys.unwrap_or_else(|error| {
        let (volume_id, error) = (&volume.volume_id, &error as &dyn std::error::Error);
        tracing::error!(%volume_id, error, "a volume's key does not open");
        (None, None)
    });
    agent_api::Volume {
        volume_id: volume.volume_id.clone(),
        generation: region.view.applied(),
        size_gib: volume.size_gib,
        snapshot_id,
        // Without its key it is not made, as one that is not encrypted would be.
        made: is_lost || !matches!(volume.condition, Condition::Creating | Condition::Failed),
        key,
        snapshot_key,
        multi_attach: volume.multi_attach.then(|| volume::performance::limits(volume)),
        initialization_mibps: volume.initialization_rate.and_then(|rate| rate.try_into().ok()),
    }
}
