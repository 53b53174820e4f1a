//! The router of one VPC on this host: a namespace, and what `vpc` and `render` say shall be in it.

use datapath::Bandwidth;
use ipnet::IpNet;
use model::Id;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::flows;
use super::fragments;
use super::hosts;
use super::index::Index;
use super::kernel::{Kernel, LOOPBACK, Layer3, Link, MAIN_TABLE, Route};
use super::linux::NetOptions;
use super::namespace::Namespace;
use super::nat::{self, Nat};
use super::neighbour::Neighbour;
use super::netlink::Listener;
use super::nfnetlink::{self, Flow};
use super::nft::Filter;
use super::open::Open;
use super::public_access::Barred;
use super::shortcut::{Arrival, Ways};
use super::traffic::Side;
use super::translation::Translation;
use super::untracked::Closed;
use super::vpc::{self, Exits, GATEWAY, NUMBERS, Nic, ROUTER_MAC, Vpc, nat_link, peering_link};
use super::{NetError, io_failed, render, shape, sysctl, tap};

/// What the internet gateway makes of flows.
#[derive(PartialEq)]
struct Gateway {
    /// Public addresses by the private ones that they stand for.
    translation: BTreeMap<Ipv4Addr, Ipv4Addr>,
    barred: Barred,
}

/// Of the whole namespace, beside what every router has. What comes through the gateway has no route back in the table that
/// the kernel would ask; `accept_local` spares it to look for one for each packet.
const NAMESPACE_SETTINGS: [(&str, &str); 9] = [
    ("ipv4/conf/all/accept_local", "1"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/all/accept_source_route", "0"),
    // An accepted connection bears the mark of the packet that opened it: the metadata service asks it who calls.
    ("ipv4/tcp_fwmark_accept", "1"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/default/addr_gen_mode", "0"),
    ("ipv6/conf/default/forwarding", "1"),
];

/// For as long as EC2 tracks idle flows (EC2 User Guide, "Connection tracking timeouts"), where the kernel's own times are
/// others. What is forgotten is not taken up again in its middle.
const TRACKING_SETTINGS: [(&str, &str); 6] = [
    ("netfilter/nf_conntrack_udp_timeout_stream", "180"),
    ("netfilter/nf_conntrack_tcp_loose", "0"),
    // What takes the shortcut is not seen by the tracking, which must not take the rest for what is out of place, nor for
    // what nobody answers.
    ("netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ("netfilter/nf_conntrack_tcp_ignore_invalid_rst", "1"),
    ("netfilter/nf_conntrack_tcp_timeout_unacknowledged", "432000"),
    ("netfilter/nf_conntrack_tcp_timeout_max_retrans", "432000"),
];

pub(super) struct Router {
    pub namespace: Namespace,
    kernel: Kernel,
    filter: Filter,
    /// How many flows the namespace can track.
    tracked: u32,
    tracking_is_settled: bool,
    /// The taps and their numbers, as of the last time.
    taps: BTreeMap<String, u32>,
    /// As of the last time, where we know.
    gateway: Option<Arc<Gateway>>,
    /// Taps, by number, whose settings are written.
    settled: BTreeSet<u32>,
    nats: BTreeMap<Id, Nat>,
    /// None where the kernel can't translate.
    translation: Option<Arc<Translation>>,
    /// Whose networks are on other hosts, as of the last time.
    elsewhere: BTreeMap<IpNet, Id>,
    /// What taps, by number, are held to by us, and by which devices.
    shaped: BTreeMap<u32, Option<(Bandwidth, shape::Devices)>>,
    /// Whether the rules for that could be carried out.
    is_shaped: bool,
    /// None where the kernel knows of no shortcut.
    ways: Option<Ways>,
}

/// Who is inside a VPC, for those who ask from its services.
#[derive(Debug)]
pub(super) struct Inside {
    pub namespace: Namespace,
    pub resolvers: Vec<Ipv4Addr>,
    pub by_number: HashMap<u32, Id>,
    /// Single addresses, and delegated prefixes.
    by_network: HashMap<IpNet, Id>,
    pub guests: HashMap<Id, Neighbour>,
}

impl Inside {
    /// The interface that has the address.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Id> {
        vpc::owner(&self.by_network, address)
    }
}

impl Router {
    /// The router of this name, found or made.
    pub(super) async fn open(
        name: &str,
        ways: Option<Ways>,
        translation: Option<Arc<Translation>>,
    ) -> Result<Router, NetError> {
        let failed = io_failed(format!("can't make the network namespace {name}"));
        let namespace = match Namespace::open(name).map_err(&failed)? {
            Some(namespace) => namespace,
            None => Namespace::create(name).await.map_err(&failed)?,
        };
        let tracked = namespace
            .run(|| {
                sysctl::write(sysctl::ROUTER.into_iter().chain(NAMESPACE_SETTINGS))?;
                // It is not there before anything is tracked.
                let tracked = sysctl::read("netfilter/nf_conntrack_max").unwrap_or_default();
                Ok(tracked.parse().unwrap_or(flows::TRACKED_DEFAULT))
            })
            .await
            .map_err(&failed)?;
        let kernel = Kernel::open(&namespace).await.map_err(&failed)?;
        if ways.is_none() {
            // An earlier daemon's programs would lead by ways of which nobody says that they changed.
            for link in kernel.links().await.map_err(&failed)?.values() {
                kernel.stop_program(link.index, Side::Arrival).await.map_err(&failed)?;
            }
        }
        let filter = Filter::open(&namespace).await.map_err(&failed)?;
        Ok(Router {
            namespace,
            kernel,
            filter,
            tracked,
            tracking_is_settled: false,
            taps: BTreeMap::new(),
            gateway: None,
            settled: BTreeSet::new(),
            nats: BTreeMap::new(),
            translation,
            elsewhere: BTreeMap::new(),
            shaped: BTreeMap::new(),
            is_shaped: false,
            ways,
        })
    }

    /// Makes the namespace what the plan says. The pair to the host is made by the host's side before.
    ///
    /// The packet filter comes first: a tap that it does not know yet is mute, one that it knows no more is too. Flows
    /// go before the routes by which we see whose they were, so that a failure between the two is made good later. `open`
    /// is what was open to everybody when all was applied last.
    pub(super) async fn apply(
        &mut self,
        plan: &datapath::Vpc,
        (open, index): (&Open, &Index<'_>),
        options: &NetOptions,
    ) -> Result<Inside, NetError> {
        let failed = io_failed(format!("can't set up the network of {}", plan.vpc_id));
        let links = self.kernel.links().await.map_err(&failed)?;
        let taps = links.iter().filter(|(name, _)| vpc::is_tap_name(name));
        let taps: BTreeMap<String, u32> = taps.map(|(name, link)| (name.clone(), link.index)).collect();
        let vpc = Vpc::new(plan, index, &taps)?;

        self.open_nats(plan, options).await?;
        let have = self.kernel.layer3(|_| true).await.map_err(&failed)?;
        let have = self.route_ahead(&vpc, &links, have).await.map_err(&failed)?;
        self.filter.load(render::vpc(&vpc, &index.groups, self.tracked)).await?;
        self.forget_ways().map_err(&failed)?;
        self.settle_tracking().await.map_err(&failed)?;
        self.forget_flows(&vpc, &have, Closed::between(open, index, plan)).await.map_err(&failed)?;
        self.unplug(&vpc, &links).await.map_err(&failed)?;
        self.plug(&vpc, &taps).await.map_err(&failed)?;
        self.plug_nats(plan, &links, options.mtu).await?;
        self.links_up(&vpc, &links, options.mtu).await.map_err(&failed)?;
        let exits = self.exits_up(&vpc).await.map_err(&failed)?;
        let want = vpc.layer3(&exits);
        self.kernel.reconcile(&want, &have).await.map_err(&failed)?;
        if let Err(error) = self.shape(&vpc, &links).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(vpc_id = %plan.vpc_id, error, "interfaces are not held to their bandwidth");
        }

        self.forget_ways().map_err(&failed)?;
        self.lead(&vpc, &links, &exits).await;
        self.remove_ways_round(&vpc, &links).await.map_err(&failed)?;
        let look = self.kernel.layer3(|_| true);
        self.kernel.forget_own_doing(&want, look).await.map_err(&failed)?;

        self.taps = vpc.nics.iter().map(|nic| (nic.tap.clone(), nic.number)).collect();
        Ok(Inside {
            namespace: self.namespace.clone(),
            resolvers: vpc.resolvers(),
            by_number: vpc.nics.iter().map(|nic| (nic.number, nic.plan.interface_id.clone())).collect(),
            by_network: vpc
                .nics
                .iter()
                .flat_map(|nic| nic.plan.networks().map(|net| (net, nic.plan.interface_id.clone())))
                .collect(),
            guests: vpc.nics.iter().map(|nic| (nic.plan.interface_id.clone(), vpc.neighbour(nic))).collect(),
        })
    }

    /// Makes the packet filter what a plan says that differs from the last one in groups alone.
    pub(super) async fn regroup(
        &mut self,
        plan: &datapath::Vpc,
        (open, index): (&Open, &Index<'_>),
    ) -> Result<(), NetError> {
        let vpc = Vpc::new(plan, index, &self.taps)?;
        self.filter.load(render::vpc(&vpc, &index.groups, self.tracked)).await?;
        let failed = io_failed(format!("can't change the ways through {}", plan.vpc_id));
        self.forget_ways().map_err(&failed)?;
        if let Some(closed) = Closed::between(open, index, plan) {
            let forgotten =
                self.namespace.run(move || nfnetlink::forget_flows(|flow| closed.ends(flow))).await;
            forgotten.map_err(io_failed(format!("can't end what the groups of {} shut", plan.vpc_id)))?;
        }
        self.forget_ways().map_err(&failed)
    }

    /// Comes after the rules, and last of what a change does: who is let pass by what was is led by it no more.
    fn forget_ways(&self) -> io::Result<()> {
        self.ways.as_ref().map_or(Ok(()), Ways::forget)
    }

    /// Leads known flows by the shortcut: between guests, and to and from the internet gateway. What a guest sends waits
    /// for its turn before, where it is held to its bandwidth.
    async fn lead(&mut self, vpc: &Vpc<'_>, links: &BTreeMap<String, Link>, exits: &Exits) {
        let Some(ways) = &mut self.ways else { return };
        ways.keep(&links.values().map(|link| link.index).collect());
        let arrival = |number: &u32| match self.shaped.get(number) {
            Some(Some((_, shape::Devices { sent: Some(pair), .. }))) => {
                Arrival::Waiting { bucket: pair.bucket.number, end: pair.end.number }
            }
            _ => Arrival::Shortcut,
        };
        let taps = vpc.nics.iter().map(|nic| (nic.number, arrival(&nic.number)));
        let links = taps.chain(exits.internet_gateway.map(|link| (link, Arrival::Shortcut))).collect();
        if let Err(error) = ways.lead(&self.kernel, links, exits.internet_gateway).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(vpc_id = %vpc.plan.vpc_id, error, "known flows take no shortcut");
        }
    }

    /// Those who hear what others change in the router and its NAT gateways.
    pub(super) fn listeners(&self) -> impl Iterator<Item = Arc<Listener>> {
        let nats = self.nats.values().flat_map(Nat::listeners);
        [self.kernel.listener.clone(), self.filter.listener.clone()].into_iter().chain(nats)
    }

    /// What routes say of links that are there already, before anybody is led by them: a subnet that changes its route
    /// table is never without. Returns what there is then.
    async fn route_ahead(
        &self,
        vpc: &Vpc<'_>,
        links: &BTreeMap<String, Link>,
        have: Layer3,
    ) -> io::Result<Layer3> {
        let mut ahead = vpc.routes(&exits(links));
        let is_there = |wanted: u32| links.values().any(|link| link.index == wanted && link.up);
        ahead.neighbours.retain(|(link, _), _| is_there(*link));
        ahead.routes.retain(|_, route| match route {
            Route::Link(link) | Route::Gateway { link, .. } => is_there(*link),
            Route::Blackhole | Route::Unreachable => false,
        });
        let all = have.with(&ahead);
        self.kernel.reconcile(&all, &have).await?;
        Ok(all)
    }

    /// Makes the pairs that are missing to peers; of two peers one does so for both.
    pub(super) async fn link_peers(
        &self,
        plan: &datapath::Vpc,
        index: &Index<'_>,
        routers: &BTreeMap<Id, Router>,
        mtu: u16,
    ) -> Result<(), NetError> {
        let ours = vpc::peers(plan, &index.vpcs).into_iter().filter(|(_, peer)| plan.vpc_id < peer.vpc_id);
        let ours: Vec<_> =
            ours.filter_map(|(peering, peer)| Some((peering, routers.get(&peer.vpc_id)?))).collect();
        if ours.is_empty() {
            return Ok(());
        }
        let links = self.kernel.links().await.map_err(io_failed("can't look for links to peers"))?;
        for (peering, peer) in ours {
            let name = peering_link(peering);
            if !links.contains_key(&name) {
                let end = (name.as_str(), ROUTER_MAC, &peer.namespace);
                let made = self.kernel.add_veth(&name, ROUTER_MAC, end, mtu).await;
                made.map_err(io_failed(format!("can't link {}", peering.peering_id)))?;
            }
        }
        Ok(())
    }

    /// Makes the link to other hosts where the VPC needs one and has none. `host` is the host's kernel, `address` how
    /// the others reach it, `mtu` what the way there carries.
    pub(super) async fn link_hosts(
        &self,
        plan: &datapath::Vpc,
        host: &Kernel,
        address: Ipv4Addr,
        mtu: u16,
    ) -> Result<(), NetError> {
        let Some(number) = plan.number else { return Ok(()) };
        let failed = io_failed(format!("can't link {} to other hosts", plan.vpc_id));
        let (links, mac) = (self.kernel.links().await.map_err(&failed)?, hosts::mac(address));
        match links.get(hosts::LINK) {
            Some(link) if link.mac == mac && link.mtu == u32::from(mtu) => return Ok(()),
            Some(link) if link.mac == mac => {
                let told = self.kernel.set_link_up(link.index, None, Some(mtu), None).await;
                return told.map_err(&failed);
            }
            // The host's address was another.
            Some(link) => self.kernel.delete_links(&[link.index]).await.map_err(&failed)?,
            None => {}
        }
        let local = (address, hosts::PORT, mac);
        host.add_vxlan(hosts::LINK, &self.namespace, number, local, mtu).await.map_err(&failed)
    }

    /// Opens the NAT gateways that are not open, and lets go of those that are no more: their namespaces are left over.
    async fn open_nats(&mut self, plan: &datapath::Vpc, options: &NetOptions) -> Result<(), NetError> {
        let wanted = |id: &Id| plan.nat_gateways.iter().any(|nat| nat.nat_gateway_id == *id);
        self.nats.retain(|id, _| wanted(id));
        for nat in &plan.nat_gateways {
            let id = &nat.nat_gateway_id;
            let name = options.namespace_name(id);
            // Somebody may have taken its name away.
            let is_there = Namespace::open(&name).is_ok_and(|found| found.is_some());
            if !self.nats.contains_key(id) || !is_there {
                self.nats.insert(id.clone(), Nat::open(&name, self.translation.clone()).await?);
            }
        }
        Ok(())
    }

    /// Links the NAT gateways and makes each what the plan says.
    async fn plug_nats(
        &mut self,
        plan: &datapath::Vpc,
        links: &BTreeMap<String, Link>,
        mtu: u16,
    ) -> Result<(), NetError> {
        for nat in &plan.nat_gateways {
            let Some(open) = self.nats.get_mut(&nat.nat_gateway_id) else { continue };
            if !links.contains_key(&nat_link(nat)) {
                let plugged = open.plug(nat, &self.kernel, mtu).await;
                plugged.map_err(io_failed(format!("can't link {}", nat.nat_gateway_id)))?;
            }
            open.apply(nat, mtu).await?;
        }
        Ok(())
    }

    /// Deletes the taps that nobody wants, and links that lead nowhere.
    async fn unplug(&self, vpc: &Vpc<'_>, links: &BTreeMap<String, Link>) -> io::Result<()> {
        let wanted: BTreeSet<&str> = vpc.nics.iter().map(|nic| nic.tap.as_str()).collect();
        let exits = vpc.exits();
        let is_old = |name: &str| match name {
            hosts::LINK => vpc.plan.number.is_none(),
            _ if vpc::is_exit(name) => !exits.contains(name),
            _ => vpc::is_tap_name(name) && !wanted.contains(name),
        };
        let old = links.iter().filter(|(name, _)| is_old(name));
        self.kernel.delete_links(&old.map(|(_, link)| link.index).collect::<Vec<_>>()).await
    }

    /// Deletes the devices on the way round that none needs, once none is led there.
    async fn remove_ways_round(&self, vpc: &Vpc<'_>, links: &BTreeMap<String, Link>) -> io::Result<()> {
        let held: Vec<shape::Devices> = shape::held(&vpc.nics).iter().map(shape::Held::devices).collect();
        let wanted: BTreeSet<&str> =
            held.iter().flat_map(shape::Devices::all).map(|device| device.name.as_str()).collect();
        let is_old = |name: &str| shape::tap_of(name).is_some() && !wanted.contains(name);
        let old = links.iter().filter(|(name, _)| is_old(name));
        self.kernel.delete_links(&old.map(|(_, link)| link.index).collect::<Vec<_>>()).await
    }

    pub(super) async fn close_tap(&self, interface_id: &Id) -> io::Result<()> {
        match self.kernel.links().await?.get(&vpc::tap_name(interface_id)) {
            Some(tap) => self.kernel.delete_links(&[tap.index]).await,
            None => Ok(()),
        }
    }

    /// Makes the taps that are missing.
    async fn plug(&self, vpc: &Vpc<'_>, taps: &BTreeMap<String, u32>) -> io::Result<()> {
        let missing = vpc.nics.iter().filter(|nic| !taps.contains_key(&nic.tap));
        let missing: Vec<(String, u32)> = missing.map(|nic| (nic.tap.clone(), nic.number)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.namespace
            .run(move || missing.iter().try_for_each(|(name, number)| tap::create(name, *number)))
            .await
    }

    /// Holds network cards to their bandwidth where they are not yet, as far as we or `links` know.
    async fn shape(&mut self, vpc: &Vpc<'_>, links: &BTreeMap<String, Link>) -> io::Result<()> {
        let holds = |name: &str| links.get(name).is_some_and(|link| link.up && link.queueing == "tbf");
        let all_hold = |devices: &shape::Devices, nics: &[&Nic<'_>]| {
            devices.buckets().all(|device| holds(&device.name))
                && (devices.received.is_some() || nics.iter().all(|nic| holds(&nic.tap)))
        };
        if !self.is_shaped {
            self.shaped.clear();
        }
        let (mut removals, mut rules) = (String::new(), String::new());
        let mut shaped = BTreeMap::new();
        for held in shape::held(&vpc.nics) {
            let mut had = held.nics.iter().map(|nic| self.shaped.get(&nic.number).cloned().flatten());
            let first = had.next().flatten().filter(|(_, devices)| all_hold(devices, &held.nics));
            let is_so = |(bandwidth, devices): &(Bandwidth, shape::Devices)| {
                *bandwidth == held.bandwidth && devices.received.is_some() == (held.nics.len() > 1)
            };
            let shape = match first.filter(|first| is_so(first) && had.all(|of| of.as_ref() == Some(first))) {
                Some(shape) => shape,
                None => {
                    let devices = self.ways_round(held.devices(), links).await;
                    let taps: Vec<&str> = held.nics.iter().map(|nic| nic.tap.as_str()).collect();
                    let old = taps.iter().filter(|tap| links.contains_key(**tap));
                    removals.extend(old.map(|tap| shape::removal_before(tap)));
                    rules.push_str(&shape::rules(&taps, &devices, held.bandwidth));
                    (held.bandwidth, devices)
                }
            };
            shaped.extend(held.nics.iter().map(|nic| (nic.number, Some(shape.clone()))));
        }
        for nic in vpc.nics.iter().filter(|nic| nic.plan.bandwidth.is_none()) {
            let is_new = !links.contains_key(&nic.tap);
            if !is_new && (holds(&nic.tap) || self.shaped.get(&nic.number) != Some(&None)) {
                removals.push_str(&shape::removal(&nic.tap));
            }
            shaped.insert(nic.number, None);
        }
        (self.shaped, self.is_shaped) = (shaped, false);
        if !removals.is_empty() || !rules.is_empty() {
            self.namespace.run(move || shape::run(&removals, &rules)).await?;
        }
        self.is_shaped = true;
        Ok(())
    }

    /// Makes devices on the way round that are not there; returns none where the kernel has none, or nobody would lead
    /// packets there.
    async fn ways_round(&self, devices: shape::Devices, links: &BTreeMap<String, Link>) -> shape::Devices {
        let is_missing = |device: &shape::Device| !links.contains_key(&device.name);
        let made = async {
            if self.ways.is_none() {
                return Err(io::Error::from(io::ErrorKind::Unsupported));
            }
            if let Some(shape::Pair { bucket, end }) =
                devices.sent.as_ref().filter(|pair| is_missing(&pair.end))
            {
                self.kernel.add_pair((&bucket.name, bucket.number), (&end.name, end.number)).await?;
            }
            if let Some(device) = devices.received.as_ref().filter(|device| is_missing(device)) {
                self.kernel.add_ifb(&device.name, device.number).await?;
            }
            for device in devices.all() {
                self.kernel.set_link_up(device.number, None, None, None).await?;
            }
            Ok(())
        };
        if let Err(error) = made.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "what guests send is not held back");
            return shape::Devices::default();
        }
        devices
    }

    /// Says how flows are tracked, once it is there to be told: with the first rule that asks for it.
    async fn settle_tracking(&mut self) -> io::Result<()> {
        if !self.tracking_is_settled {
            let settings = TRACKING_SETTINGS.into_iter().chain(fragments::SETTINGS);
            self.namespace.run(|| sysctl::write(settings)).await?;
            self.tracking_is_settled = true;
        }
        Ok(())
    }

    /// Ends the flows of addresses that are an interface's no more, before another gets them, and what is closed.
    async fn forget_flows(&mut self, vpc: &Vpc<'_>, have: &Layer3, closed: Option<Closed>) -> io::Result<()> {
        let owners = vpc.owners();
        let elsewhere: BTreeMap<IpNet, &Id> = hosts::owners(vpc).collect();
        let gone = self.elsewhere.iter().filter(|(net, id)| elsewhere.get(net) != Some(id));
        let departed: BTreeSet<IpNet> = have
            .routes
            .iter()
            .filter_map(|((table, net), route)| match route {
                Route::Link(link) | Route::Gateway { link, .. }
                    if *table == MAIN_TABLE && NUMBERS.contains(link) && owners.get(net) != Some(link) =>
                {
                    Some(*net)
                }
                _ => None,
            })
            .chain(gone.map(|(net, _)| *net))
            .collect();
        let elsewhere = elsewhere.into_iter().map(|(net, id)| (net, id.clone())).collect();
        let gateway = Arc::new(Gateway { translation: vpc.translated().collect(), barred: Barred::new(vpc) });
        if departed.is_empty() && closed.is_none() && self.gateway.as_ref() == Some(&gateway) {
            self.elsewhere = elsewhere;
            return Ok(());
        }
        let now = gateway.clone();
        self.namespace
            .run(move || {
                let is_closed = |flow: &Flow| closed.as_ref().is_some_and(|closed| closed.ends(flow));
                nfnetlink::forget_flows(|flow| is_stale(flow, &departed, &gateway) || is_closed(flow))
            })
            .await?;
        self.gateway = Some(now);
        self.elsewhere = elsewhere;
        Ok(())
    }

    /// Writes the settings of the taps that we have not written them for.
    async fn settle(&mut self, vpc: &Vpc<'_>) -> io::Result<()> {
        let want: BTreeSet<u32> = vpc.nics.iter().map(|nic| nic.number).collect();
        let mut settings = Vec::new();
        for nic in vpc.nics.iter().filter(|nic| !self.settled.contains(&nic.number)) {
            settings.push((format!("ipv4/conf/{}/proxy_arp", nic.tap), "1"));
            settings.push((format!("ipv4/neigh/{}/proxy_delay", nic.tap), "0"));
        }
        if !settings.is_empty() {
            self.namespace
                .run(move || sysctl::write(settings.iter().map(|(name, value)| (name.as_str(), *value))))
                .await?;
        }
        self.settled = want;
        Ok(())
    }

    /// Sets up what was not, or not there, when `links` was read.
    async fn links_up(&mut self, vpc: &Vpc<'_>, links: &BTreeMap<String, Link>, mtu: u16) -> io::Result<()> {
        if links.get("lo").is_some_and(|link| !link.up) {
            self.kernel.set_link_up(LOOPBACK, None, None, None).await?;
        }
        let ready = |link: &Link| link.up && link.mtu == u32::from(mtu) && link.mac == ROUTER_MAC;
        let asleep: Vec<_> = vpc.nics.iter().filter(|nic| !links.get(&nic.tap).is_some_and(ready)).collect();
        self.settle(vpc).await?;
        for nic in asleep {
            let alias = nic.plan.interface_id.as_str();
            if !links.get(&nic.tap).is_some_and(|link| link.up) {
                self.kernel.queue_nothing(nic.number).await?;
            }
            self.kernel.set_link_up(nic.number, Some(ROUTER_MAC), Some(mtu), Some(alias)).await?;
        }
        Ok(())
    }

    /// Sets up the links that lead out of the VPC.
    async fn exits_up(&self, vpc: &Vpc<'_>) -> io::Result<Exits> {
        let links = self.kernel.links().await?;
        let wanted = vpc.exits();
        for (name, link) in &links {
            if !link.up && ([GATEWAY, hosts::LINK].contains(&name.as_str()) || wanted.contains(name)) {
                self.kernel.set_link_up(link.index, None, None, None).await?;
            }
        }
        Ok(exits(&links))
    }

    /// Takes the namespace of this name away with all that is in it, whoever still has a part of it open.
    pub(super) async fn remove(name: &str) -> Result<(), NetError> {
        let failed = io_failed(format!("can't remove the network namespace {name}"));
        if let Some(namespace) = Namespace::open(name).map_err(&failed)? {
            let kernel = Kernel::open(&namespace).await.map_err(&failed)?;
            let links = kernel.links().await.map_err(&failed)?;
            let is_ours = |name: &str| {
                vpc::is_tap_name(name)
                    || vpc::is_exit(name)
                    || [GATEWAY, nat::LINK, hosts::LINK].contains(&name)
                    || shape::tap_of(name).is_some()
            };
            let ours = links.iter().filter(|(name, _)| is_ours(name));
            let ours: Vec<u32> = ours.map(|(_, link)| link.index).collect();
            kernel.delete_links(&ours).await.map_err(&failed)?;
        }
        Namespace::remove(name).map_err(&failed)
    }
}

fn exits(links: &BTreeMap<String, Link>) -> Exits {
    let others = links.iter().filter(|(name, _)| vpc::is_exit(name));
    Exits {
        internet_gateway: links.get(GATEWAY).map(|link| link.index),
        hosts: links.get(hosts::LINK).map(|link| link.index),
        links: others.map(|(name, link)| (name.clone(), link.index)).collect(),
    }
}

/// Whether a flow is one of an address that left, or one that the gateway would not translate so, or not let begin, any
/// more.
fn is_stale(flow: &Flow, departed: &BTreeSet<IpNet>, gateway: &Gateway) -> bool {
    let Flow { original, reply, .. } = flow;
    let translates = |private: IpAddr, public: IpAddr| match private {
        IpAddr::V4(private) => gateway.translation.get(&private).is_some_and(|to| IpAddr::V4(*to) == public),
        IpAddr::V6(_) => false,
    };
    [original.0, original.1, reply.0, reply.1]
        .iter()
        .any(|address| departed.iter().any(|net| net.contains(address)))
        || (original.1 != reply.0 && !translates(reply.0, original.1))
        || (original.0 != reply.1 && !translates(original.0, reply.1))
        || gateway.barred.ends(flow)
}
