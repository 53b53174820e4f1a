//! The host's side of the internet gateways: one end of a pair for each VPC, routes to the public addresses behind
//! it, and a packet filter table of our own.
//!
//! Pools of the network around the host are as real there as the host's own address: the host answers for those in use
//! on the pool's interface (proxy ARP), and what bears them leaves by it as it is.
//!
//! The host is the internet of its guests. It forwards between them, itself and its other interfaces, and lends its
//! own address to guests that speak to the outside (masquerade), since nobody there has a route to the pool.
//! Forwarding is switched on for that, of IPv6 once a VPC has some; where it was off a file in the state directory
//! remembers, and it is switched off again once nothing of any cloud is left.
//!
//! Another table whose forward chain drops (Docker's policy does) still drops: in nftables all must accept. We never
//! edit others' rules; `LinuxNetwork::diagnose` tells.

use datapath::PublicPool;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::family::Family;
use super::kernel::{Kernel, Layer3, Link, MAIN_TABLE, Route};
use super::namespace::Namespace;
use super::netlink::Listener;
use super::nft::Filter;
use super::table::Table;
use super::vpc::{GATEWAY, GATEWAY_MAC, GATEWAY_PEER_MAC, gateway_peer};
use super::{NetError, NetOptions, hosts, io_failed, render, sysctl};

/// The host as its guests see it over IPv6: it may have no other address.
const SELF6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 1);

/// Names of the tables of every cloud begin so.
pub(super) const TABLES: &str = "inet cumulet_";

const FORWARDING6: &str = "ipv6/conf/all/forwarding";

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
    pub ipv6_cidrs: Vec<Ipv6Net>,
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

    /// By which address other hosts reach this one, and how long a packet of a guest's may be on the way to them.
    pub(super) async fn underlay(&self, options: &NetOptions) -> Result<(Ipv4Addr, u16), NetError> {
        let address = match options.underlay {
            Some(address) => Ok(address),
            None => self.namespace.run(hosts::own_address).await,
        };
        let address = address.map_err(io_failed("can't see by which address other hosts reach this one"))?;
        let carried = hosts::carried(&self.kernel, address, options.mtu).await;
        Ok((address, carried.map_err(io_failed("can't see what the network between hosts carries"))?))
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
        pools: &[PublicPool],
        hosts: &BTreeSet<Ipv4Addr>,
    ) -> Result<(), NetError> {
        let failed = io_failed("can't route public addresses on the host");
        let public: BTreeSet<Ipv4Addr> =
            gateways.iter().flat_map(|gateway| &gateway.public).copied().collect();
        let cidrs: BTreeSet<Ipv4Net> = gateways.iter().flat_map(|gateway| &gateway.cidrs).copied().collect();
        let ipv6_cidrs: Vec<Ipv6Net> =
            gateways.iter().flat_map(|gateway| &gateway.ipv6_cidrs).copied().collect();
        let table = render::host(render::Host {
            table: &options.table(),
            links: &format!("{}*", options.link_prefix()),
            pool: options.public_pool,
            pools,
            uplink: options.uplink.as_deref(),
            public: &public,
            cidrs: &cidrs,
            ipv6_cidrs: &ipv6_cidrs,
            hosts,
            api_port: options.api_port,
        });
        self.filter.load(vec![table]).await?;

        let links = self.kernel.links().await.map_err(&failed)?;
        let mut want = Layer3::default();
        want.routes.insert((MAIN_TABLE, options.public_pool.into()), Route::Unreachable);
        let mut asleep = Vec::new();
        for gateway in gateways {
            let Some(link) = links.get(&gateway.link) else { continue };
            if !link.up {
                asleep.push((gateway.link.clone(), link.index));
            }
            let hop = |family| Route::Gateway { gateway: gateway_peer(family), link: link.index, mtu: None };
            for address in &gateway.public {
                let destination = IpNet::from(IpAddr::V4(*address));
                want.routes.insert((MAIN_TABLE, destination), hop(Family::V4));
            }
            for cidr in &gateway.ipv6_cidrs {
                want.addresses.insert((link.index, SELF6.into()));
                want.routes.insert((MAIN_TABLE, cidr.trunc().into()), hop(Family::V6));
            }
            want.proxies.extend(proxies(&gateway.public, pools, &links));
            let peers = Family::BOTH.map(|family| ((link.index, gateway_peer(family)), GATEWAY_MAC));
            want.neighbours.extend(peers);
        }
        // Our ends take no address, and no route, from what comes by them.
        let settings = asleep.iter().flat_map(|(name, _)| {
            [("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", "0")]
                .map(|(setting, value)| (format!("ipv6/conf/{name}/{setting}"), value))
        });
        let settings: Vec<(String, &str)> = settings.collect();
        let (memory, memory6) = (forwarding_memory(options), ipv6_forwarding_memory(options));
        let needs_ipv6 = !ipv6_cidrs.is_empty() && sysctl::has_ipv6();
        self.namespace
            .run(move || {
                sysctl::write(settings.iter().map(|(name, value)| (name.as_str(), *value)))?;
                if sysctl::read("ipv4/ip_forward")? == "0" {
                    remember(&memory, "ip_forward was 0 before the cloud's network was made\n")?;
                    sysctl::write([("ipv4/ip_forward", "1")])?;
                }
                if needs_ipv6 { forward_ipv6(&memory6) } else { Ok(()) }
            })
            .await
            .map_err(&failed)?;
        for (_, index) in asleep {
            self.kernel.set_link_up(index, None, None, None).await.map_err(&failed)?;
        }
        let have = self.have(options).await.map_err(&failed)?;
        self.kernel.reconcile(&want, &have).await.map_err(&failed)?;
        self.kernel.forget_own_doing(&want, self.have(options)).await.map_err(&failed)
    }

    /// What the host has of this cloud: another's lies on other links and serves another pool, and it answers for what is
    /// routed to those.
    async fn have(&self, options: &NetOptions) -> io::Result<Layer3> {
        let links = self.kernel.links().await?;
        let ours: BTreeSet<u32> = links
            .iter()
            .filter(|(name, _)| name.starts_with(&options.link_prefix()))
            .map(|(_, link)| link.index)
            .collect();
        let mut have = self.kernel.layer3(|link| ours.contains(&link)).await?;
        have.rules.clear();
        let routed = have.routes.iter().filter_map(|((_, destination), route)| match route {
            Route::Gateway { link, .. } if !ours.contains(link) => Some(destination.addr()),
            _ => None,
        });
        let others: BTreeSet<IpAddr> = routed.collect();
        have.proxies.retain(|(_, address)| !others.contains(&IpAddr::V4(*address)));
        have.routes.retain(|(_, destination), route| match route {
            Route::Link(link) | Route::Gateway { link, .. } => ours.contains(link),
            Route::Unreachable | Route::Blackhole => *destination == IpNet::V4(options.public_pool),
        });
        Ok(have)
    }

    /// Leaves the host as it was found.
    pub(super) async fn remove(&mut self, options: &NetOptions) -> Result<(), NetError> {
        let failed = io_failed("can't remove the cloud's network from the host");
        self.pairs(options, &BTreeMap::new()).await?;
        let mut have = self.have(options).await.map_err(&failed)?;
        let listing = self.filter.listing().await.map_err(&failed)?;
        if is_shared(&listing, &Table::new(options.table()), options.public_pool) {
            have.routes.retain(|_, route| *route != Route::Unreachable);
        }
        self.kernel.reconcile(&Layer3::default(), &have).await.map_err(&failed)?;
        self.filter.remove(&Table::new(options.table())).await?;
        let (memory, memory6) = (forwarding_memory(options), ipv6_forwarding_memory(options));
        // Each cloud has a route for its pool at least, which bears our mark.
        let others = self.kernel.layer3(|_| false).await.map_err(&failed)?;
        if !others.routes.is_empty() {
            return Ok(());
        }
        self.namespace
            .run(move || {
                if memory.exists() {
                    sysctl::write([("ipv4/ip_forward", "0")])?;
                    std::fs::remove_file(&memory)?;
                }
                if memory6.exists() { unforward_ipv6(&memory6) } else { Ok(()) }
            })
            .await
            .map_err(&failed)
    }
}

/// Whether another cloud's table lends the host's address to the same pool: the pool's route is that one's too.
fn is_shared(listing: &str, ours: &Table, pool: Ipv4Net) -> bool {
    let (lends, other) = (format!("ip saddr {pool} ip daddr != {pool} masquerade"), ours.other());
    let mut is_anothers = false;
    listing.lines().any(|line| {
        if let Some(name) = line.strip_prefix("table ").and_then(|line| line.strip_suffix(" {")) {
            is_anothers = name.starts_with(TABLES) && ![ours.name(), other.name()].contains(&name);
        }
        is_anothers && line.contains(&lends)
    })
}

/// What the host answers for on the interfaces of pools. It does so without being asked twice only where the kernel finds
/// the address behind another interface, as it does by our route.
fn proxies(
    public: &BTreeSet<Ipv4Addr>,
    pools: &[PublicPool],
    links: &BTreeMap<String, Link>,
) -> Vec<(u32, Ipv4Addr)> {
    let mut proxies = Vec::new();
    for pool in pools {
        let Some(name) = &pool.interface else { continue };
        let Some(link) = links.get(name) else {
            tracing::warn!(interface = name, pool = %pool.cidr, "the interface of a pool is not there");
            continue;
        };
        let own = public.iter().filter(|address| pool.cidr.contains(*address));
        proxies.extend(own.map(|address| (link.index, *address)));
    }
    proxies
}

fn forwarding_memory(options: &NetOptions) -> PathBuf {
    options.state_dir.join("ip_forward")
}

fn ipv6_forwarding_memory(options: &NetOptions) -> PathBuf {
    options.state_dir.join("ipv6_forwarding")
}

fn remember(memory: &Path, text: &str) -> io::Result<()> {
    memory.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(memory, text)
}

/// A host that forwards takes no routers' advertisements any more, unless it is told to: what it has from them it keeps.
/// Those that were told so are remembered, a line each.
fn forward_ipv6(memory: &Path) -> io::Result<()> {
    if sysctl::read(FORWARDING6)? != "0" {
        return Ok(());
    }
    // What was told before a crash is remembered still.
    let mut told: Vec<String> =
        std::fs::read_to_string(memory).unwrap_or_default().lines().map(str::to_owned).collect();
    for link in sysctl::list("ipv6/conf")? {
        // It may be gone again.
        if sysctl::read(&accept_ra(&link)).is_ok_and(|setting| setting == "1") {
            told.push(link);
        }
    }
    remember(memory, &told.iter().map(|link| format!("{link}\n")).collect::<String>())?;
    set_accept_ra(told.iter().map(String::as_str), "2")?;
    sysctl::write([(FORWARDING6, "1")])
}

fn unforward_ipv6(memory: &Path) -> io::Result<()> {
    let told = std::fs::read_to_string(memory)?;
    sysctl::write([(FORWARDING6, "0")])?;
    set_accept_ra(told.lines(), "1")?;
    std::fs::remove_file(memory)
}

fn set_accept_ra<'a>(mut links: impl Iterator<Item = &'a str>, value: &str) -> io::Result<()> {
    links.try_for_each(|link| sysctl::write([(accept_ra(link).as_str(), value)]))
}

fn accept_ra(link: &str) -> String {
    format!("ipv6/conf/{link}/accept_ra")
}
