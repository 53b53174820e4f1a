//! The real network: drives the host's side (`gateway`) and one router a VPC.

use async_trait::async_trait;
use datapath::Plan;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use ipnet::Ipv4Net;
use model::{Id, Kind};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::diagnosis::{self, Diagnosis};
use super::gateway::{Gateway, Host, TABLES};
use super::index::Index;
use super::kernel::{Kernel, LOOPBACK};
use super::namespace::Namespace;
use super::neighbour::{self, Neighbour};
use super::netlink::Listener;
use super::open::Open;
use super::router::{Inside, Router};
use super::shortcut::Shortcut;
use super::translation::Translation;
use super::vpc::{self, NUMBER_MASK, digits, tap_name};
use super::{NetError, Network, ServiceSockets, io_failed, services, tap};

/// Names of network namespaces of every cloud begin so.
const NAMESPACE_PREFIX: &str = "cml-";

/// Longest tag: it is part of names that people read.
const TAG_LENGTH_MAX: usize = 16;

/// What guests of the same host may send each other in one packet, as between EC2 instances.
pub(super) const JUMBO: u16 = 9001;

/// Least time between two repairs: somebody who takes the same away again and again keeps nobody busy.
const PAUSE: Duration = Duration::from_secs(1);
/// What the kernel does not tell of (settings, neighbours) is looked at this often.
const LOOK: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct NetOptions {
    /// Tells this cloud's namespaces, links and tables from those of another on the same machine: 1 to 16 lower-case
    /// letters and digits.
    pub tag: String,
    /// Public addresses are taken from it. The host routes them; outside of it nobody need know them.
    pub public_pool: Ipv4Net,
    /// Where to remember what of the host was changed.
    pub state_dir: PathBuf,
    /// The one interface that guests reach the outside by; whichever the host's routes choose where None.
    pub uplink: Option<String>,
    /// The port of the host's own that guests may begin to speak to.
    pub api_port: Option<u16>,
    /// The host's address by which other hosts reach it; the one by which it reaches the internet where None.
    pub underlay: Option<Ipv4Addr>,
    /// Of guests' links, and at most of links between hosts.
    pub mtu: u16,
    /// The namespace that is the host's; that of the thread which makes the driver where None.
    pub host_namespace: Option<PathBuf>,
}

impl NetOptions {
    pub fn new(tag: impl Into<String>, public_pool: Ipv4Net, state_dir: impl Into<PathBuf>) -> Self {
        NetOptions {
            tag: tag.into(),
            public_pool,
            state_dir: state_dir.into(),
            uplink: None,
            api_port: None,
            underlay: None,
            mtu: JUMBO,
            host_namespace: None,
        }
    }

    /// Of a VPC's router, or of a NAT gateway.
    pub(super) fn namespace_name(&self, id: &Id) -> String {
        let kind = if id.starts_with(Kind::NatGateway.prefix()) { "nat" } else { "" };
        format!("{NAMESPACE_PREFIX}{}-{kind}{}", self.tag, digits(id))
    }

    /// Whether a namespace's name is one that we give.
    fn is_ours(&self, namespace: &str) -> bool {
        let rest = namespace.strip_prefix(NAMESPACE_PREFIX).and_then(|rest| rest.strip_prefix(&self.tag));
        rest.and_then(|rest| rest.strip_prefix('-')).is_some_and(|name| {
            let digits = name.strip_prefix("nat").unwrap_or(name);
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit())
        })
    }

    /// Names of links have 15 characters: six of them tell clouds apart, nine VPCs.
    pub(super) fn link_prefix(&self) -> String {
        let hash = self.tag.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193) // FNV-1a
        });
        format!("cg{:04x}", (hash >> 16) ^ (hash & 0xffff))
    }

    fn link_name(&self, vpc_id: &Id) -> String {
        let digits = digits(vpc_id);
        format!("{}{}", self.link_prefix(), &digits[digits.len().saturating_sub(9)..])
    }

    pub(super) fn table(&self) -> String {
        format!("{TABLES}{}", self.tag)
    }
}

pub struct LinuxNetwork {
    options: NetOptions,
    /// The host's namespace before its driver is there.
    host_namespace: Namespace,
    /// Held while anything is changed.
    state: Mutex<State>,
    /// What the last `apply` made, for those who only ask.
    directory: RwLock<HashMap<Id, Arc<Inside>>>,
    /// Those who hear what others change of what it made.
    listeners: RwLock<Vec<Arc<Listener>>>,
    /// None where the kernel can't.
    shortcut: LazyLock<Option<Arc<Shortcut>>>,
    /// The same.
    translation: LazyLock<Option<Arc<Translation>>>,
    /// When they were heard last.
    heard: parking_lot::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct State {
    host: Option<Host>,
    routers: BTreeMap<Id, Router>,
    /// The last plan that was applied without a failure; an empty one before.
    applied: Plan,
    /// Whether nothing failed since.
    is_whole: bool,
    /// What that plan had open to everybody, or that of an earlier daemon; None before it is recalled.
    open: Option<Open>,
}

/// What the kernel runs for us; where it can't, a word about what is missed.
fn or_missed<T>(loaded: io::Result<T>, missed: &str) -> Option<Arc<T>> {
    let warned = loaded.inspect_err(|error| {
        tracing::warn!(error = error as &dyn std::error::Error, "{missed}");
    });
    warned.ok().map(Arc::new)
}

impl LinuxNetwork {
    /// Touches nothing yet.
    pub fn new(mut options: NetOptions) -> Result<Self, NetError> {
        options.public_pool = options.public_pool.trunc();
        let well_formed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if options.tag.is_empty()
            || options.tag.len() > TAG_LENGTH_MAX
            || !options.tag.bytes().all(well_formed)
        {
            return Err(NetError::Failed(format!(
                "\"{}\" can't tell a cloud's network from another's: 1 to {TAG_LENGTH_MAX} lower-case letters and digits can",
                options.tag
            )));
        }
        let host_namespace = match &options.host_namespace {
            Some(path) => Namespace::open_path(path),
            None => Namespace::current(),
        }
        .map_err(io_failed("can't open the host's network namespace"))?;
        Ok(LinuxNetwork {
            options,
            host_namespace,
            state: Mutex::default(),
            directory: RwLock::default(),
            listeners: RwLock::default(),
            shortcut: LazyLock::new(|| or_missed(Shortcut::load(), "known flows take no shortcut")),
            translation: LazyLock::new(|| or_missed(Translation::load(), "NAT gateways translate no IPv6")),
            heard: parking_lot::Mutex::default(),
        })
    }

    /// What the host lacks for guests to have a network, and what to do about it. Changes nothing.
    pub async fn diagnose(&self) -> Result<Vec<Diagnosis>, NetError> {
        let failed = io_failed("can't look at the host's network");
        diagnosis::diagnose(&self.host_namespace, &self.options).await.map_err(failed)
    }

    /// The host's interfaces and their addresses of IPv4, but for those that are ours.
    pub async fn links(&self) -> Result<BTreeMap<String, Vec<Ipv4Addr>>, NetError> {
        let failed = io_failed("can't list the host's network interfaces");
        let kernel = Kernel::open(&self.host_namespace).await.map_err(&failed)?;
        let (links, addresses) = (kernel.links().await, kernel.ipv4_addresses().await);
        let addresses = addresses.map_err(&failed)?;
        let on = |link: u32| addresses.iter().filter(move |(of, _)| *of == link).map(|(_, address)| *address);
        let theirs = links
            .map_err(&failed)?
            .into_iter()
            .filter(|(name, link)| link.index != LOOPBACK && !name.starts_with(&self.options.link_prefix()));
        Ok(theirs.map(|(name, link)| (name, on(link.index).collect())).collect())
    }

    /// Names of namespaces that this cloud has on the host, wanted or left over.
    fn namespaces(&self) -> Result<Vec<String>, NetError> {
        let mut names = Namespace::names().map_err(io_failed("can't list network namespaces"))?;
        names.retain(|name| self.options.is_ours(name));
        Ok(names)
    }

    /// Whose router has the interface, and who is behind it.
    fn guest(&self, interface_id: &Id) -> Result<(Arc<Inside>, Neighbour), NetError> {
        let directory = self.directory.read();
        let found = directory.values().find_map(|inside| Some((inside, *inside.guests.get(interface_id)?)));
        let (inside, guest) = found.ok_or_else(|| NetError::NotFound(interface_id.clone()))?;
        Ok((inside.clone(), guest))
    }

    fn inside(&self, vpc_id: &Id) -> Option<Arc<Inside>> {
        self.directory.read().get(vpc_id).cloned()
    }
}

/// What has a namespace of a VPC: its router, and each of its NAT gateways.
fn namespaces_of(vpc: &datapath::Vpc) -> impl Iterator<Item = &Id> {
    std::iter::once(&vpc.vpc_id).chain(vpc.nat_gateways.iter().map(|nat| &nat.nat_gateway_id))
}

/// Whether two plans differ in security groups alone, as most changes do.
fn differ_in_groups(old: &Plan, new: &Plan) -> bool {
    old.groups != new.groups
        && old.vpcs == new.vpcs
        && old.interfaces == new.interfaces
        && old.elsewhere == new.elsewhere
        && old.public_pools == new.public_pools
}

impl State {
    async fn host(&mut self, namespace: &Namespace) -> Result<&mut Host, NetError> {
        let host = match self.host.take() {
            Some(host) => host,
            None => Host::open(namespace.clone()).await?,
        };
        Ok(self.host.insert(host))
    }

    /// Takes note of a plan that was applied without a failure.
    async fn applied(&mut self, plan: Plan, options: &NetOptions) {
        self.remember(Open::of(&plan), options).await;
        (self.applied, self.is_whole) = (plan, true);
    }

    async fn remember(&mut self, open: Open, options: &NetOptions) {
        if self.open.as_ref() != Some(&open) {
            if let Err(error) = open.remember(&options.state_dir).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "what is open to everybody is not remembered");
            }
            self.open = Some(open);
        }
    }

    /// Applies a plan that differs from the last one in groups alone.
    async fn regroup(&mut self, plan: &Plan) -> Result<(), NetError> {
        let index = Index::new(plan);
        let open = self.open.get_or_insert_default();
        let regrouped = join_all(self.routers.iter_mut().filter_map(|(id, router)| {
            let (plan, both) = (*index.vpcs.get(id)?, (&*open, &index));
            Some(async move { router.regroup(plan, both).await })
        }));
        regrouped.await.into_iter().collect()
    }

    /// Makes the links that are missing between routers, and to other hosts.
    async fn link(&self, options: &NetOptions, plan: &Plan, index: &Index<'_>) -> Vec<NetError> {
        let mut failures = Vec::new();
        let is_linked = plan.vpcs.iter().any(|vpc| vpc.number.is_some());
        let underlay = match self.host.as_ref().filter(|_| is_linked) {
            Some(host) => match host.underlay(options).await {
                Ok((address, mtu)) => Some((&host.kernel, address, mtu)),
                Err(error) => {
                    failures.push(error);
                    None
                }
            },
            None => None,
        };
        for vpc in &plan.vpcs {
            let Some(router) = self.routers.get(&vpc.vpc_id) else { continue };
            failures.extend(router.link_peers(vpc, index, &self.routers, options.mtu).await.err());
            if let Some((host, address, mtu)) = underlay {
                failures.extend(router.link_hosts(vpc, host, address, mtu).await.err());
            }
        }
        failures
    }

    fn listeners(&self) -> Vec<Arc<Listener>> {
        let routers = self.routers.values().flat_map(Router::listeners);
        self.host.iter().flat_map(Host::listeners).chain(routers).collect()
    }

    /// Opens the routers that are not open; those whose name somebody took away are made anew.
    async fn open_routers(
        &mut self,
        options: &NetOptions,
        plan: &Plan,
        names: &[String],
        (shortcut, translation): (Option<&Arc<Shortcut>>, Option<&Arc<Translation>>),
    ) -> Vec<NetError> {
        let wanted = |id: &Id| plan.vpcs.iter().any(|vpc| vpc.vpc_id == *id);
        self.routers.retain(|id, _| wanted(id) && names.contains(&options.namespace_name(id)));
        let missing = plan.vpcs.iter().filter(|vpc| !self.routers.contains_key(&vpc.vpc_id));
        let opened = join_all(missing.map(|vpc| async {
            let ways = shortcut.and_then(|shortcut| shortcut.enter(options.mtu));
            let name = options.namespace_name(&vpc.vpc_id);
            (vpc.vpc_id.clone(), Router::open(&name, ways, translation.cloned()).await)
        }))
        .await;
        let mut failures = Vec::new();
        for (id, router) in opened {
            match router {
                Ok(router) => drop(self.routers.insert(id, router)),
                Err(error) => failures.push(error),
            }
        }
        failures
    }
}

#[async_trait]
impl Network for LinuxNetwork {
    /// What fails in one VPC hinders no other; the first failure is returned once all has been tried.
    async fn apply(&self, plan: Plan) -> Result<(), NetError> {
        vpc::check(&plan)?;
        let options = &self.options;
        let state = &mut *self.state.lock().await;
        let open = match state.open.take() {
            Some(open) => open,
            None => Open::recall(&options.state_dir).await,
        };
        // Flows may begin by a rule as soon as it holds, whatever fails after that.
        let either = open.clone().with(Open::of(&plan));
        state.open = Some(open);
        state.remember(either, options).await;
        if std::mem::take(&mut state.is_whole) && differ_in_groups(&state.applied, &plan) {
            state.regroup(&plan).await?;
            state.applied(plan, options).await;
            return Ok(());
        }
        let names = self.namespaces()?;
        let mut failures = Vec::new();

        let wanted: BTreeSet<String> =
            plan.vpcs.iter().flat_map(namespaces_of).map(|id| options.namespace_name(id)).collect();
        let programs = (self.shortcut.as_ref(), self.translation.as_ref());
        failures.extend(state.open_routers(options, &plan, &names, programs).await);
        self.directory.write().retain(|id, _| state.routers.contains_key(id));
        for name in names.iter().filter(|name| !wanted.contains(*name)) {
            failures.extend(Router::remove(name).await.err());
        }

        let pairs = plan.vpcs.iter().filter(|vpc| vpc.leads_out()).filter_map(|vpc| {
            let router = state.routers.get(&vpc.vpc_id)?;
            Some((options.link_name(&vpc.vpc_id), router.namespace.clone()))
        });
        let pairs: BTreeMap<String, Namespace> = pairs.collect();
        state.host(&self.host_namespace).await?.pairs(options, &pairs).await?;

        let index = Index::new(&plan);
        failures.extend(state.link(options, &plan, &index).await);
        let open = state.open.get_or_insert_default();
        let applied = join_all(state.routers.iter_mut().filter_map(|(id, router)| {
            let (plan, both) = (*index.vpcs.get(id)?, (&*open, &index));
            Some(async move { (id.clone(), router.apply(plan, both, options).await) })
        }))
        .await;
        for (id, inside) in applied {
            match inside {
                Ok(inside) => drop(self.directory.write().insert(id, Arc::new(inside))),
                Err(error) => failures.push(error),
            }
        }

        let gateways: Vec<Gateway> = plan
            .vpcs
            .iter()
            .filter(|vpc| vpc.leads_out())
            .map(|vpc| Gateway {
                link: options.link_name(&vpc.vpc_id),
                public: index
                    .interfaces(&vpc.vpc_id)
                    .iter()
                    .flat_map(|nic| &nic.addresses)
                    .chain(vpc.nat_gateways.iter().flat_map(|nat| &nat.addresses))
                    .filter_map(|address| address.public_ip)
                    .collect(),
                cidrs: vpc.cidrs.clone(),
                ipv6_cidrs: vpc.ipv6_cidrs.clone(),
            })
            .collect();
        let hosts = plan.elsewhere.iter().map(|elsewhere| elsewhere.host).collect();
        state.host(&self.host_namespace).await?.apply(options, &gateways, &plan.public_pools, &hosts).await?;
        *self.listeners.write() = state.listeners();
        match failures.into_iter().next() {
            Some(failure) => Err(failure),
            None => {
                state.applied(plan, options).await;
                Ok(())
            }
        }
    }

    async fn disturbed(&self) {
        let last = *self.heard.lock();
        if let Some(last) = last {
            tokio::time::sleep_until(last + PAUSE).await;
        }
        let listeners = self.listeners.read().clone();
        let mut heard: FuturesUnordered<_> = listeners.iter().map(|listener| listener.heard()).collect();
        let anything = async {
            match heard.next().await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "changes of the network not heard"
                    );
                }
                None => std::future::pending().await,
            }
        };
        if tokio::time::timeout(LOOK, anything).await.is_ok() {
            *self.heard.lock() = Some(Instant::now());
        }
    }

    async fn open_tap(&self, interface_id: &Id, queues: usize) -> Result<Vec<OwnedFd>, NetError> {
        let (inside, _) = self.guest(interface_id)?;
        let name = tap_name(interface_id);
        inside.namespace.run(move || tap::open(&name, queues)).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => NetError::NotFound(interface_id.clone()),
            io::ErrorKind::ResourceBusy => {
                NetError::Failed(format!("the tap of {interface_id} is in use by another machine"))
            }
            _ => NetError::Io { what: format!("can't open the tap of {interface_id}"), source },
        })
    }

    async fn close_tap(&self, interface_id: &Id) -> Result<(), NetError> {
        let state = self.state.lock().await;
        let closed = state.routers.values().map(|router| router.close_tap(interface_id));
        let closed: Result<(), io::Error> = join_all(closed).await.into_iter().collect();
        closed.map_err(io_failed(format!("can't close the tap of {interface_id}")))
    }

    async fn guest_answers(&self, interface_id: &Id) -> Result<bool, NetError> {
        let (inside, guest) = self.guest(interface_id)?;
        let answers = neighbour::answers(&inside.namespace, guest).await;
        answers.map_err(io_failed(format!("can't ask the guest behind {interface_id}")))
    }

    async fn open_services(&self, vpc_id: &Id) -> Result<ServiceSockets, NetError> {
        let inside = self.inside(vpc_id).ok_or_else(|| NetError::NotFound(vpc_id.clone()))?;
        let resolvers = inside.resolvers.clone();
        let opened = inside.namespace.run(move || services::open(&resolvers)).await;
        opened.map_err(io_failed(format!("can't open the service sockets of {vpc_id}")))
    }

    fn interface_of_connection(&self, vpc_id: &Id, stream: &TcpStream) -> Option<Id> {
        self.interface_of_index(vpc_id, services::mark(stream).ok()? & NUMBER_MASK)
    }

    fn interface_of_index(&self, vpc_id: &Id, index: u32) -> Option<Id> {
        self.inside(vpc_id)?.by_number.get(&index).cloned()
    }

    fn index_of_interface(&self, interface_id: &Id) -> Option<u32> {
        self.guest(interface_id).ok().map(|(_, guest)| guest.index)
    }

    fn interface_of_address(&self, vpc_id: &Id, address: IpAddr) -> Option<Id> {
        self.inside(vpc_id)?.owner(address).cloned()
    }

    fn mtu(&self) -> u16 {
        self.options.mtu
    }

    async fn remove_all(&self) -> Result<(), NetError> {
        let mut state = self.state.lock().await;
        self.directory.write().clear();
        self.listeners.write().clear();
        state.routers.clear();
        (state.applied, state.is_whole, state.open) = (Plan::default(), false, None);
        Open::forget(&self.options.state_dir).await.map_err(io_failed("can't forget what was open"))?;
        for name in self.namespaces()? {
            Router::remove(&name).await?;
        }
        let mut host = match state.host.take() {
            Some(host) => host,
            None => Host::open(self.host_namespace.clone()).await?,
        };
        host.remove(&self.options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(tag: &str) -> NetOptions {
        NetOptions::new(tag, "198.18.0.0/24".parse().unwrap(), "/nowhere")
    }

    #[test]
    fn clouds_on_one_machine_know_their_own_by_name() {
        let vpc = Id::parse(Kind::Vpc, "vpc-0123456789abcdef0").unwrap();
        let (one, two) = (options("a"), options("ab"));
        assert_eq!(one.namespace_name(&vpc), "cml-a-0123456789abcdef0");
        assert!(one.is_ours(&one.namespace_name(&vpc)) && !one.is_ours(&two.namespace_name(&vpc)));
        assert!(!two.is_ours(&one.namespace_name(&vpc)) && !one.is_ours("cml-a-") && !one.is_ours("a"));
        assert_ne!(one.link_name(&vpc), two.link_name(&vpc));
        assert!(one.link_name(&vpc).len() <= 15, "{}", one.link_name(&vpc));
        assert!(one.link_name(&vpc).starts_with(&one.link_prefix()));
    }

    #[test]
    fn a_tag_that_would_not_do_in_names_is_refused() {
        for tag in ["", "a-b", "A", "../x", "a b", "abcdefghijklmnopq"] {
            assert!(LinuxNetwork::new(options(tag)).is_err(), "{tag}");
        }
        assert!(LinuxNetwork::new(options("a1")).is_ok());
    }
}
