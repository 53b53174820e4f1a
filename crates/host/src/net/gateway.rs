//! The host's side of the internet gateways: one end of a pair for each VPC, routes to the public addresses behind
//! it, and a packet filter table of our own.
//!
//! The host is the internet of its guests. It forwards between them, itself and its other interfaces, and lends its
//! own address to guests that speak to the outside (masquerade), since nobody there has a route to the pool.
//! Forwarding (`ip_forward`) is switched on for that; where it was off a file in the state directory remembers, and
//! it is switched off again once nothing of any cloud is left.
//!
//! Another table whose forward chain drops (Docker's policy does) still drops: in nftables all must accept. We never
//! edit others' rules; `LinuxNetwork::diagnose` tells.

use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use super::kernel::{Kernel, Layer3, MAIN_TABLE, Route};
use super::namespace::Namespace;
use super::netlink::Listener;
use super::nft::Filter;
use super::vpc::{GATEWAY, GATEWAY_MAC, GATEWAY_PEER, GATEWAY_PEER_MAC};
use super::{NetError, NetOptions, io_failed, render, sysctl};

pub(super) struct Host {
    pub namespace: Namespace,
    pub kernel: Kernel,
    filter: Filter,
}

/// What one VPC has on the host.
pub(super) struct Gateway {
    pub link: String,
    pub public: BTreeSet<Ipv4Addr>,
    pub cidrs: Vec<Ipv4Net>,
}

impl Host {
    pub(super) async fn open(namespace: Namespace) -> Result<Host, NetError> {
        let failed = io_failed("can't speak to the host's network");
        let kernel = Kernel::open(&namespace).await.map_err(&failed)?;
        let filter = Filter::open(&namespace).await.map_err(&failed)?;
        Ok(Host { namespace, kernel, filter })
    }

    /// Those who hear what others change on the host.
    pub(super) fn listeners(&self) -> [Arc<Listener>; 2] {
        [self.kernel.listener.clone(), self.filter.listener.clone()]
    }

    /// Makes the pairs to these VPCs and takes away all other pairs of ours.
    pub(super) async fn pairs(
        &self,
        options: &NetOptions,
        want: &BTreeMap<String, Namespace>,
    ) -> Result<(), NetError> {
        let failed = io_failed("can't make the pair of an internet gateway");
        let links = self.kernel.links().await.map_err(&failed)?;
        let old: Vec<u32> = links
            .iter()
            .filter(|(name, _)| name.starts_with(&options.link_prefix()) && !want.contains_key(*name))
            .map(|(_, link)| link.index)
            .collect();
        self.kernel.delete_links(&old).await.map_err(&failed)?;
        for (name, inside) in want.iter().filter(|(name, _)| !links.contains_key(*name)) {
            let peer = (GATEWAY, GATEWAY_MAC, inside);
            self.kernel.add_veth(name, GATEWAY_PEER_MAC, peer, options.mtu).await.map_err(&failed)?;
        }
        Ok(())
    }

    /// Routes the public addresses to their VPCs and loads the table.
    pub(super) async fn apply(
        &mut self,
        options: &NetOptions,
        gateways: &[Gateway],
        hosts: &BTreeSet<Ipv4Addr>,
    ) -> Result<(), NetError> {
        let failed = io_failed("can't route public addresses on the host");
        let public: BTreeSet<Ipv4Addr> =
            gateways.iter().flat_map(|gateway| &gateway.public).copied().collect();
        let cidrs: BTreeSet<Ipv4Net> = gateways.iter().flat_map(|gateway| &gateway.cidrs).copied().collect();
        let text = render::host(render::Host {
            table: &options.table(),
            links: &format!("{}*", options.link_prefix()),
            pool: options.public_pool,
            uplink: options.uplink.as_deref(),
            public: &public,
            cidrs: &cidrs,
            hosts,
        });
        self.filter.load(text).await?;

        let links = self.kernel.links().await.map_err(&failed)?;
        let mut want = Layer3::default();
        want.routes.insert((MAIN_TABLE, options.public_pool), Route::Unreachable);
        let mut asleep = Vec::new();
        for gateway in gateways {
            let Some(link) = links.get(&gateway.link) else { continue };
            if !link.up {
                asleep.push((gateway.link.clone(), link.index));
            }
            want.neighbours.insert((link.index, GATEWAY_PEER), GATEWAY_MAC);
            for address in &gateway.public {
                let route = Route::Gateway { gateway: GATEWAY_PEER, link: link.index };
                want.routes.insert((MAIN_TABLE, Ipv4Net::from(*address)), route);
            }
        }
        let settings: Vec<String> =
            asleep.iter().map(|(name, _)| format!("ipv6/conf/{name}/disable_ipv6")).collect();
        let memory = forwarding_memory(options);
        self.namespace
            .run(move || {
                sysctl::write(settings.iter().map(|name| (name.as_str(), "1")))?;
                if sysctl::read("ipv4/ip_forward")? == "0" {
                    memory.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                    std::fs::write(&memory, "ip_forward was 0 before the cloud's network was made\n")?;
                    sysctl::write([("ipv4/ip_forward", "1")])?;
                }
                Ok(())
            })
            .await
            .map_err(&failed)?;
        for (_, index) in asleep {
            self.kernel.set_link_up(index, None, None, None).await.map_err(&failed)?;
        }
        let have = self.have(options).await.map_err(&failed)?;
        self.kernel.reconcile(&want, &have).await.map_err(&failed)
    }

    /// What the host has of this cloud: another's lies on other links and serves another pool.
    async fn have(&self, options: &NetOptions) -> io::Result<Layer3> {
        let links = self.kernel.links().await?;
        let ours: BTreeSet<u32> = links
            .iter()
            .filter(|(name, _)| name.starts_with(&options.link_prefix()))
            .map(|(_, link)| link.index)
            .collect();
        let mut have = self.kernel.layer3(|link| ours.contains(&link)).await?;
        have.rules.clear();
        have.routes.retain(|(_, destination), route| match route {
            Route::Link(link) | Route::Gateway { link, .. } => ours.contains(link),
            Route::Unreachable | Route::Blackhole => *destination == options.public_pool,
        });
        Ok(have)
    }

    /// Leaves the host as it was found.
    pub(super) async fn remove(&mut self, options: &NetOptions) -> Result<(), NetError> {
        let failed = io_failed("can't remove the cloud's network from the host");
        self.pairs(options, &BTreeMap::new()).await?;
        let have = self.have(options).await.map_err(&failed)?;
        self.kernel.reconcile(&Layer3::default(), &have).await.map_err(&failed)?;
        self.filter.load(render::without(&options.table())).await?;
        let memory = forwarding_memory(options);
        // Each cloud has a route for its pool at least, which bears our mark.
        let others = self.kernel.layer3(|_| false).await.map_err(&failed)?;
        if !others.routes.is_empty() || !memory.exists() {
            return Ok(());
        }
        self.namespace
            .run(move || {
                sysctl::write([("ipv4/ip_forward", "0")])?;
                std::fs::remove_file(&memory)
            })
            .await
            .map_err(&failed)
    }
}

fn forwarding_memory(options: &NetOptions) -> PathBuf {
    options.state_dir.join("ip_forward")
}
