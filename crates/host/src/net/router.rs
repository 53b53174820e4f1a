//! The router of one VPC on this host: a namespace, and what `vpc` and `render` say shall be in it.

use model::Id;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::Ipv4Addr;

use super::kernel::{Kernel, LOOPBACK, Layer3, Link, Route};
use super::namespace::Namespace;
use super::nfnetlink::{self, Flow};
use super::nft::Filter;
use super::vpc::{self, GATEWAY, ROUTER_MAC, Vpc};
use super::{GroupPlan, InterfacePlan, NetError, VpcPlan, io_failed, render, sysctl, tap};

/// Public addresses by the private ones that they stand for.
type Translation = BTreeMap<Ipv4Addr, Ipv4Addr>;

/// Of the whole namespace. Reverse path filtering is off but where a tap asks for it: sources are checked by the
/// packet filter, and what comes through the gateway has no route back in the table that the filter would ask.
/// Nothing speaks IPv6 yet.
const NAMESPACE_SETTINGS: [(&str, &str); 11] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/all/accept_source_route", "0"),
    // An accepted connection bears the mark of the packet that opened it: the metadata service asks it who calls.
    ("ipv4/tcp_fwmark_accept", "1"),
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
];

pub(super) struct Router {
    pub namespace: Namespace,
    kernel: Kernel,
    filter: Filter,
    /// How the gateway translates, where we know: private addresses to public ones.
    translation: Option<Translation>,
    /// Taps, by number, whose settings are written, and whether their source is checked.
    settled: BTreeSet<(u32, bool)>,
}

/// Who is inside a VPC, for those who ask from its services.
#[derive(Debug)]
pub(super) struct Inside {
    pub namespace: Namespace,
    pub resolvers: Vec<Ipv4Addr>,
    pub by_number: HashMap<u32, Id>,
    pub by_address: HashMap<Ipv4Addr, Id>,
}

impl Router {
    /// The router of this name, found or made.
    pub(super) async fn open(name: &str) -> Result<Router, NetError> {
        let failed = io_failed(format!("can't make the network namespace {name}"));
        let namespace = match Namespace::open(name).map_err(&failed)? {
            Some(namespace) => namespace,
            None => Namespace::create(name).await.map_err(&failed)?,
        };
        namespace.run(|| sysctl::write(NAMESPACE_SETTINGS)).await.map_err(&failed)?;
        let kernel = Kernel::open(&namespace).await.map_err(&failed)?;
        Ok(Router {
            namespace,
            kernel,
            filter: Filter::default(),
            translation: None,
            settled: BTreeSet::new(),
        })
    }

    /// Makes the namespace what the plan says. The pair to the host is made by the host's side before.
    ///
    /// The packet filter comes first: a tap that it does not know yet is mute, one that it knows no more is too. Flows
    /// go before the routes by which we see whose they were, so that a failure between the two is made good later.
    pub(super) async fn apply(
        &mut self,
        plan: &VpcPlan,
        interfaces: &[&InterfacePlan],
        groups: &BTreeMap<&Id, &GroupPlan>,
        mtu: u16,
    ) -> Result<Inside, NetError> {
        let failed = io_failed(format!("can't set up the network of {}", plan.vpc_id));
        let links = self.kernel.links().await.map_err(&failed)?;
        let taps = links.iter().filter(|(name, _)| vpc::is_tap_name(name));
        let taps: BTreeMap<String, u32> = taps.map(|(name, link)| (name.clone(), link.index)).collect();
        let vpc = Vpc::new(plan, interfaces, &taps)?;

        self.filter.load(&self.namespace, render::vpc(&vpc, groups)).await?;
        let have = self.kernel.layer3(|_| true).await.map_err(&failed)?;
        self.forget_flows(&vpc, &have).await.map_err(&failed)?;
        self.unplug(&vpc, &taps).await.map_err(&failed)?;
        self.plug(&vpc, &taps).await.map_err(&failed)?;
        let gateway = self.links_up(&vpc, &links, mtu).await.map_err(&failed)?;
        self.kernel.reconcile(&vpc.layer3(gateway), &have).await.map_err(&failed)?;

        Ok(Inside {
            namespace: self.namespace.clone(),
            resolvers: vpc.resolvers(),
            by_number: vpc.nics.iter().map(|nic| (nic.number, nic.plan.interface_id.clone())).collect(),
            by_address: vpc
                .nics
                .iter()
                .map(|nic| (nic.plan.private_ip, nic.plan.interface_id.clone()))
                .collect(),
        })
    }

    /// Deletes the taps that nobody wants.
    async fn unplug(&self, vpc: &Vpc<'_>, taps: &BTreeMap<String, u32>) -> io::Result<()> {
        let wanted: BTreeSet<&str> = vpc.nics.iter().map(|nic| nic.tap.as_str()).collect();
        let old = taps.iter().filter(|(name, _)| !wanted.contains(name.as_str()));
        self.kernel.delete_links(&old.map(|(_, index)| *index).collect::<Vec<_>>()).await
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

    /// Ends the flows of addresses that are an interface's no more, before another gets them.
    async fn forget_flows(&mut self, vpc: &Vpc<'_>, have: &Layer3) -> io::Result<()> {
        let owners: BTreeMap<Ipv4Addr, u32> =
            vpc.nics.iter().map(|nic| (nic.plan.private_ip, nic.number)).collect();
        let departed: BTreeSet<Ipv4Addr> = have
            .routes
            .iter()
            .filter_map(|((_, net), route)| match route {
                Route::Link(link) if owners.get(&net.addr()) != Some(link) => Some(net.addr()),
                _ => None,
            })
            .collect();
        let translation: Translation =
            vpc.nics.iter().filter_map(|nic| Some((nic.plan.private_ip, vpc.public_ip(nic)?))).collect();
        if departed.is_empty() && self.translation.as_ref() == Some(&translation) {
            return Ok(());
        }
        let now = translation.clone();
        self.namespace
            .run(move || nfnetlink::forget_flows(|flow| is_stale(flow, &departed, &translation)))
            .await?;
        self.translation = Some(now);
        Ok(())
    }

    /// Writes the settings of the taps that we have not written them for.
    async fn settle(&mut self, vpc: &Vpc<'_>) -> io::Result<()> {
        let want: BTreeSet<(u32, bool)> =
            vpc.nics.iter().map(|nic| (nic.number, nic.plan.source_dest_check)).collect();
        let mut settings = Vec::new();
        for nic in &vpc.nics {
            if !self.settled.contains(&(nic.number, nic.plan.source_dest_check)) {
                // Strict where the source is checked: it keeps the guest from filling the neighbour table with
                // made-up senders of ARP.
                let strict = if nic.plan.source_dest_check { "1" } else { "0" };
                settings.push((format!("ipv4/conf/{}/rp_filter", nic.tap), strict));
                settings.push((format!("ipv4/conf/{}/proxy_arp", nic.tap), "1"));
                settings.push((format!("ipv4/neigh/{}/proxy_delay", nic.tap), "0"));
            }
        }
        if !settings.is_empty() {
            self.namespace
                .run(move || sysctl::write(settings.iter().map(|(name, value)| (name.as_str(), *value))))
                .await?;
        }
        self.settled = want;
        Ok(())
    }

    /// Sets up what was not, or not there, when `links` was read; returns the index of the gateway's link where there
    /// is one.
    async fn links_up(
        &mut self,
        vpc: &Vpc<'_>,
        links: &BTreeMap<String, Link>,
        mtu: u16,
    ) -> io::Result<Option<u32>> {
        if links.get("lo").is_some_and(|link| !link.up) {
            self.kernel.set_link_up(LOOPBACK, None, None, None).await?;
        }
        let ready = |link: &Link| link.up && link.mtu == u32::from(mtu) && link.mac == ROUTER_MAC;
        let asleep: Vec<_> = vpc.nics.iter().filter(|nic| !links.get(&nic.tap).is_some_and(ready)).collect();
        self.settle(vpc).await?;
        for nic in asleep {
            let alias = nic.plan.interface_id.as_str();
            self.kernel.set_link_up(nic.number, Some(ROUTER_MAC), Some(mtu), Some(alias)).await?;
        }
        match links.get(GATEWAY) {
            Some(link) if link.up => Ok(Some(link.index)),
            Some(link) => {
                self.kernel.set_link_up(link.index, None, None, None).await?;
                Ok(Some(link.index))
            }
            None => Ok(None),
        }
    }

    /// Takes the namespace of this name away with all that is in it, whoever still has a part of it open.
    pub(super) async fn remove(name: &str) -> Result<(), NetError> {
        let failed = io_failed(format!("can't remove the network namespace {name}"));
        if let Some(namespace) = Namespace::open(name).map_err(&failed)? {
            let kernel = Kernel::open(&namespace).await.map_err(&failed)?;
            let links = kernel.links().await.map_err(&failed)?;
            let ours = links.iter().filter(|(name, _)| vpc::is_tap_name(name) || *name == GATEWAY);
            let ours: Vec<u32> = ours.map(|(_, link)| link.index).collect();
            kernel.delete_links(&ours).await.map_err(&failed)?;
        }
        Namespace::remove(name).map_err(&failed)
    }
}

/// Whether a flow is one of an address that left, or is translated as the gateway does no more.
fn is_stale(flow: Flow, departed: &BTreeSet<Ipv4Addr>, translation: &Translation) -> bool {
    let Flow { original, reply } = flow;
    let translates = |private: Ipv4Addr, public: Ipv4Addr| translation.get(&private) == Some(&public);
    [original.0, original.1, reply.0, reply.1].iter().any(|address| departed.contains(address))
        || (original.1 != reply.0 && !translates(reply.0, original.1))
        || (original.0 != reply.1 && !translates(original.0, reply.1))
}
