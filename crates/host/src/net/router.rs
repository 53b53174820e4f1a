//! The router of one VPC on this host: a namespace, and what `vpc` and `render` say shall be in it.

use model::Id;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::Ipv4Addr;

use super::kernel::{Kernel, LOOPBACK, Link};
use super::namespace::Namespace;
use super::vpc::{self, GATEWAY, ROUTER_MAC, Vpc};
use super::{GroupPlan, InterfacePlan, NetError, VpcPlan, io_failed, nft, render, sysctl, tap};

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
    /// The text that is loaded, as far as we know.
    filter: Option<String>,
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
        Ok(Router { namespace, kernel, filter: None })
    }

    /// Makes the namespace what the plan says. The pair to the host is made by the host's side before.
    ///
    /// The packet filter comes first: a tap that it does not know yet is mute, one that it knows no more is too.
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

        let text = render::vpc(&vpc, groups);
        if self.filter.as_ref() != Some(&text) {
            nft::load(&self.namespace, text.clone()).await?;
            self.filter = Some(text);
        }
        self.taps(&vpc, &taps).await.map_err(&failed)?;
        let gateway = self.links_up(&vpc, mtu).await.map_err(&failed)?;
        let have = self.kernel.layer3(|_| true).await.map_err(&failed)?;
        let want = vpc.layer3(gateway);
        self.kernel.reconcile(&want, &have).await.map_err(&failed)?;

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

    /// Makes the taps that are missing and deletes those that nobody wants.
    async fn taps(&self, vpc: &Vpc<'_>, have: &BTreeMap<String, u32>) -> io::Result<()> {
        for (name, index) in have {
            if !vpc.nics.iter().any(|nic| nic.tap == *name) {
                self.kernel.delete_link(*index).await?;
            }
        }
        let missing = vpc.nics.iter().filter(|nic| !have.contains_key(&nic.tap));
        let missing: Vec<(String, u32)> = missing.map(|nic| (nic.tap.clone(), nic.number)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.namespace
            .run(move || missing.iter().try_for_each(|(name, number)| tap::create(name, *number)))
            .await
    }

    /// Sets up what is not, and returns the index of the gateway's link where there is one.
    async fn links_up(&self, vpc: &Vpc<'_>, mtu: u16) -> io::Result<Option<u32>> {
        let links = self.kernel.links().await?;
        if links.get("lo").is_some_and(|link| !link.up) {
            self.kernel.set_link_up(LOOPBACK, None, None, None).await?;
        }
        let ready = |link: &Link| link.up && link.mtu == u32::from(mtu) && link.mac == ROUTER_MAC;
        let asleep: Vec<_> = vpc.nics.iter().filter(|nic| !links.get(&nic.tap).is_some_and(ready)).collect();
        let settings: Vec<(String, &str)> = vpc
            .nics
            .iter()
            .flat_map(|nic| {
                // Strict where the source is checked: it keeps the guest from filling the neighbour table with
                // made-up senders of ARP.
                let strict = if nic.plan.source_dest_check { "1" } else { "0" };
                [
                    (format!("ipv4/conf/{}/rp_filter", nic.tap), strict),
                    (format!("ipv4/conf/{}/proxy_arp", nic.tap), "1"),
                    (format!("ipv4/neigh/{}/proxy_delay", nic.tap), "0"),
                ]
            })
            .collect();
        self.namespace
            .run(move || sysctl::write(settings.iter().map(|(name, value)| (name.as_str(), *value))))
            .await?;
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
            for (name, link) in kernel.links().await.map_err(&failed)? {
                if vpc::is_tap_name(&name) || name == GATEWAY {
                    kernel.delete_link(link.index).await.map_err(&failed)?;
                }
            }
        }
        Namespace::remove(name).map_err(&failed)
    }
}
