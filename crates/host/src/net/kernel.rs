//! What the kernel of one namespace has of ours, read and changed by netlink.
//!
//! The state of layer 3 is a value (`Layer3`): what shall be is computed elsewhere, what is comes from the kernel, and
//! `reconcile` carries out the difference. So a restart, or somebody's flush, needs no case of its own.
//!
//! Invariant: only what bears our mark (`PROTOCOL` on routes and rules) or lies on links that the caller calls ours
//! is read, so nothing else is ever changed.

mod message;

use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourMessage};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::{Handle, IpVersion, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, MulticastGroup};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use super::family::Family;
use super::namespace::Namespace;
use super::netlink::{Listener, u32_at};
use super::sysctl;
use message::{
    PROTOCOL, address_message, address_of, link_of, neighbour_of, number, proxy_message, proxy_of,
    route_message, route_of, rule_message, rule_of,
};

pub(super) const MAIN_TABLE: u32 = 254;
pub(super) const LOOPBACK: u32 = 1;

/// The group of links that are about to be deleted.
const DOOMED: u32 = 0x646f_6f6d;

/// The largest packets that IP has.
const MTU_MAX: u32 = 65_535;

/// Requests on their way at once: their acknowledgements must fit the socket's buffer.
const REQUESTS_AT_ONCE: usize = 64;

/// What we hear of: links, and addresses, routes and rules of both families.
const LISTENED_GROUPS: u32 = group(MulticastGroup::Link)
    | group(MulticastGroup::Ipv4Ifaddr)
    | group(MulticastGroup::Ipv4Route)
    | group(MulticastGroup::Ipv4Rule)
    | group(MulticastGroup::Ipv6Ifaddr)
    | group(MulticastGroup::Ipv6Route)
    | group(MulticastGroup::Ipv6Rule);

const fn group(group: MulticastGroup) -> u32 {
    1 << (group as u32 - 1)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub up: bool,
    pub mtu: u32,
    pub mac: Vec<u8>,
    /// What holds back what leaves by it: `tbf`.
    pub queueing: String,
}

/// Addresses, routes, neighbours and rules, each keyed by what the kernel takes for the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layer3 {
    /// Each alone, as a network of one, on the link of that index.
    pub addresses: BTreeSet<(u32, IpAddr)>,
    /// By table and destination.
    pub routes: BTreeMap<(u32, IpNet), Route>,
    /// By link and address.
    pub neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
    /// By link, what the host answers for in the name of others (ARP).
    pub proxies: BTreeSet<(u32, Ipv4Addr)>,
    /// Which host a MAC is at, on links to other hosts.
    pub forwarding: BTreeMap<(u32, [u8; 6]), Ipv4Addr>,
    pub rules: BTreeSet<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The destination is on the link.
    Link(u32),
    /// The link need not have an address of the gateway's network; its neighbour must be known. For packets that are no
    /// longer than `mtu`, where that is narrower than the link.
    Gateway { gateway: IpAddr, link: u32, mtu: Option<u32> },
    /// Dropped in silence.
    Blackhole,
    /// Refused with an error, unless a better route is there.
    Unreachable,
}

/// Packets with this mark look into that table; rules without a mark are for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    pub family: Family,
    pub priority: u32,
    pub mark: Option<(u32, u32)>,
    pub table: u32,
}

pub(super) struct Kernel {
    pub(super) handle: Handle,
    pub listener: Arc<Listener>,
    /// Whether the kernel has IPv6 at all.
    has_ipv6: bool,
}

impl Kernel {
    pub(super) async fn open(namespace: &Namespace) -> io::Result<Kernel> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle) = namespace
            .run(move || {
                let _entered = runtime.enter();
                let (connection, handle, _) = rtnetlink::new_connection()?;
                Ok((connection, handle))
            })
            .await?;
        // Ends when the handle is dropped.
        tokio::spawn(connection);
        let listener = Listener::open(namespace, NETLINK_ROUTE, LISTENED_GROUPS, takes_away).await?;
        Ok(Kernel { handle, listener: Arc::new(listener), has_ipv6: sysctl::has_ipv6() })
    }

    pub(super) async fn links(&self) -> io::Result<BTreeMap<String, Link>> {
        let messages: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats])
            .execute()
            .try_collect()
            .await
            .map_err(io_error)?;
        Ok(messages.into_iter().filter_map(link_of).collect())
    }

    /// Every address of IPv4, by the index of its link.
    pub(super) async fn ipv4_addresses(&self) -> io::Result<Vec<(u32, Ipv4Addr)>> {
        let messages: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(io_error)?;
        let own = |message: &AddressMessage| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some((message.header.index, *address)),
                _ => None,
            })
        };
        Ok(messages.iter().filter_map(own).collect())
    }

    /// Makes a pair of which one end is here and the other in `peer_namespace`.
    pub(super) async fn add_veth(
        &self,
        name: &str,
        mac: [u8; 6],
        peer: (&str, [u8; 6], &Namespace),
        mtu: u16,
    ) -> io::Result<()> {
        let (peer_name, peer_mac, peer_namespace) = peer;
        let peer_link = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer_name.to_owned())
            .address(peer_mac.to_vec())
            .mtu(mtu.into())
            .setns_by_fd(peer_namespace.as_fd().as_raw_fd())
            .build();
        let pair = LinkVeth::new(name, peer_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer_link)))
            .address(mac.to_vec())
            .mtu(mtu.into())
            .build();
        self.handle.link().add(pair).execute().await.map_err(io_error)
    }

    /// Makes a pair of which both ends are here, by their names and numbers. It carries the largest packets there are.
    pub(super) async fn add_pair(&self, one: (&str, u32), other: (&str, u32)) -> io::Result<()> {
        let end = |(name, index): (&str, u32)| {
            let link =
                LinkMessageBuilder::<LinkUnspec>::new().name(name.to_owned()).index(index).mtu(MTU_MAX);
            // One queue: else it has as many as there are processors.
            link.append_extra_attribute(LinkAttribute::NumTxQueues(1))
                .append_extra_attribute(LinkAttribute::NumRxQueues(1))
                .build()
        };
        let mut pair = end(one);
        let kind = LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(other)))),
        ]);
        pair.attributes.push(kind);
        self.handle.link().add(pair).execute().await.map_err(io_error)
    }

    /// Makes a device that gives back what is sent to it (ifb).
    pub(super) async fn add_ifb(&self, name: &str, index: u32) -> io::Result<()> {
        let link = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Ifb);
        let link = link.name(name.to_owned()).index(index).build();
        self.handle.link().add(link).execute().await.map_err(io_error)
    }

    /// Makes a VXLAN in `inside` whose outer packets are sent and received here.
    pub(super) async fn add_vxlan(
        &self,
        name: &str,
        inside: &Namespace,
        number: u32,
        local: (Ipv4Addr, u16, [u8; 6]),
        mtu: u16,
    ) -> io::Result<()> {
        let (address, port, mac) = local;
        let link = LinkVxlan::new(name, number)
            .local(address)
            .port(port)
            .learning(false)
            .append_info_data(InfoVxlan::Gbp(true))
            .address(mac.to_vec())
            .mtu(mtu.into())
            .setns_by_fd(inside.as_fd().as_raw_fd())
            .build();
        self.handle.link().add(link).execute().await.map_err(io_error)
    }

    /// No error for what is gone already. Links are deleted together, since the kernel waits for all processors
    /// each time it deletes: for each link alone that is 20 ms.
    pub(super) async fn delete_links(&self, links: &[u32]) -> io::Result<()> {
        let handle = &self.handle;
        match links {
            [] => Ok(()),
            [link] => gone_is_fine(handle.link().del(*link).execute().await),
            links => {
                let group = LinkAttribute::Group(DOOMED);
                stream::iter(links.to_vec())
                    .map(|link| {
                        let link = LinkUnspec::new_with_index(link).append_extra_attribute(group.clone());
                        handle.link().set(link.build()).execute().map(gone_is_fine)
                    })
                    .buffered(REQUESTS_AT_ONCE)
                    .try_for_each(|()| async { Ok(()) })
                    .await?;
                let doomed = LinkMessageBuilder::<LinkUnspec>::new().append_extra_attribute(group).build();
                gone_is_fine(handle.link().del_with_message(doomed).execute().await)
            }
        }
    }

    /// Sets what can be set on a link that is down, then sets it up. The alias is for people.
    pub(super) async fn set_link_up(
        &self,
        index: u32,
        mac: Option<[u8; 6]>,
        mtu: Option<u16>,
        alias: Option<&str>,
    ) -> io::Result<()> {
        let mut link = LinkUnspec::new_with_index(index);
        if let Some(mac) = mac {
            link = link.address(mac.to_vec());
        }
        if let Some(mtu) = mtu {
            link = link.mtu(mtu.into());
        }
        if let Some(alias) = alias {
            link = link.append_extra_attribute(LinkAttribute::IfAlias(alias.to_owned()));
        }
        self.handle.link().set(link.up().build()).execute().await.map_err(io_error)
    }

    /// What there is of ours: routes, rules and proxies, and addresses and neighbours of the links that `ours` picks by their index.
    pub(super) async fn layer3(&self, ours: impl Fn(u32) -> bool) -> io::Result<Layer3> {
        let addresses: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(io_error)?;
        let (mut routes, mut neighbours, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for family in Family::BOTH {
            let mut every_route = RouteMessage::default();
            every_route.header.address_family = number(family);
            let found = self.handle.route().get(every_route).execute();
            routes.extend(found.try_collect::<Vec<_>>().await.map_err(io_error)?);
            let version = match family {
                Family::V4 => IpVersion::V4,
                Family::V6 => IpVersion::V6,
            };
            let found = self.handle.neighbours().get().set_family(version.clone()).execute();
            neighbours.extend(found.try_collect::<Vec<_>>().await.map_err(io_error)?);
            let found = self.handle.rule().get(version).execute();
            rules.extend(found.try_collect::<Vec<_>>().await.map_err(io_error)?);
        }
        let proxies = self.handle.neighbours().get().set_family(IpVersion::V4).proxies().execute();
        let proxies: Vec<NeighbourMessage> = proxies.try_collect().await.map_err(io_error)?;
        let mut bridge = self.handle.neighbours().get();
        bridge.message_mut().header.family = AddressFamily::Bridge;
        let forwarding: Vec<NeighbourMessage> = bridge.execute().try_collect().await.map_err(io_error)?;
        Ok(Layer3 {
            forwarding: forwarding
                .iter()
                .filter_map(neighbour_of)
                .filter(|((link, _), _)| ours(*link))
                .filter_map(|((link, host), mac)| match host {
                    IpAddr::V4(host) => Some(((link, mac), host)),
                    IpAddr::V6(_) => None,
                })
                .collect(),
            addresses: addresses.iter().filter_map(address_of).filter(|(link, _)| ours(*link)).collect(),
            routes: routes.iter().filter_map(route_of).collect(),
            neighbours: neighbours
                .iter()
                .filter_map(neighbour_of)
                .filter(|((link, _), _)| ours(*link))
                .collect(),
            proxies: proxies.iter().filter_map(proxy_of).collect(),
            rules: rules.iter().filter_map(rule_of).collect(),
        })
    }

    /// Makes `have` what `want` says, as far as the kernel speaks of it.
    pub(super) async fn reconcile(&self, want: &Layer3, have: &Layer3) -> io::Result<()> {
        stream::iter(self.changes(want, have))
            .map(|change| {
                self.carry_out(change).map(move |done| done.map_err(|error| while_at(change, &error)))
            })
            .buffered(REQUESTS_AT_ONCE)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    /// Forgets what was told of our own doing: what another `look` finds as `want` says, with its links up. If it does
    /// not, somebody else had a hand in it, and whoever listens hears of that still.
    pub(super) async fn forget_own_doing(
        &self,
        want: &Layer3,
        look: impl Future<Output = io::Result<Layer3>>,
    ) -> io::Result<()> {
        if !self.listener.forget() {
            return Ok(());
        }
        let (have, links) = (look.await?, self.links().await?);
        let up: BTreeSet<u32> = links.values().filter(|link| link.up).map(|link| link.index).collect();
        if !want.links().is_subset(&up) || !self.changes(want, &have).is_empty() {
            self.listener.remind();
        }
        Ok(())
    }

    fn changes(&self, want: &Layer3, have: &Layer3) -> Vec<Change> {
        let mut changes = want.changes(have);
        changes.retain(|change| self.has_ipv6 || change.family() == Family::V4);
        changes
    }

    async fn carry_out(&self, change: Change) -> io::Result<()> {
        let handle = &self.handle;
        match change {
            Change::PutAddress(link, address) => {
                let mut request = handle.address().add(link, address, 0).replace();
                *request.message_mut() = address_message(link, address);
                request.execute().await.map_err(io_error)
            }
            Change::PutNeighbour((link, address), mac) => {
                let neighbour = handle.neighbours().add(link, address).link_local_address(&mac);
                neighbour.replace().execute().await.map_err(io_error)
            }
            Change::PutForwarding((link, mac), host) => {
                let entry = handle.neighbours().add_bridge(link, &mac).flags(NeighbourFlags::Own);
                entry.destination(host.into()).replace().execute().await.map_err(io_error)
            }
            Change::DropForwarding((link, mac), host) => {
                let entry = handle.neighbours().add_bridge(link, &mac).flags(NeighbourFlags::Own);
                let mut entry = entry.destination(host.into());
                gone_is_fine(handle.neighbours().del(entry.message_mut().clone()).execute().await)
            }
            Change::PutProxy(link, address) => {
                let mut proxy = handle.neighbours().add(link, address.into());
                *proxy.message_mut() = proxy_message(link, address);
                proxy.replace().execute().await.map_err(io_error)
            }
            Change::DropProxy(link, address) => {
                gone_is_fine(handle.neighbours().del(proxy_message(link, address)).execute().await)
            }
            Change::PutRoute(key, route) => {
                let route = handle.route().add(route_message(key, route));
                route.replace().execute().await.map_err(io_error)
            }
            Change::PutRule(rule) => {
                let mut request = handle.rule().add();
                *request.message_mut() = rule_message(rule);
                request.execute().await.map_err(io_error)
            }
            Change::DropAddress(link, address) => {
                gone_is_fine(handle.address().del(address_message(link, address)).execute().await)
            }
            Change::DropNeighbour((link, address)) => {
                let mut neighbour = handle.neighbours().add(link, address);
                gone_is_fine(handle.neighbours().del(neighbour.message_mut().clone()).execute().await)
            }
            Change::DropRoute(key, route) => {
                gone_is_fine(handle.route().del(route_message(key, route)).execute().await)
            }
            Change::DropRule(rule) => gone_is_fine(handle.rule().del(rule_message(rule)).execute().await),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    PutAddress(u32, IpAddr),
    PutNeighbour((u32, IpAddr), [u8; 6]),
    PutForwarding((u32, [u8; 6]), Ipv4Addr),
    PutRoute((u32, IpNet), Route),
    PutProxy(u32, Ipv4Addr),
    PutRule(Rule),
    DropRule(Rule),
    DropProxy(u32, Ipv4Addr),
    DropRoute((u32, IpNet), Route),
    DropNeighbour((u32, IpAddr)),
    DropForwarding((u32, [u8; 6]), Ipv4Addr),
    DropAddress(u32, IpAddr),
}

impl Change {
    fn family(&self) -> Family {
        match self {
            Change::PutAddress(_, address) | Change::DropAddress(_, address) => Family::of(*address),
            Change::PutNeighbour((_, address), _) | Change::DropNeighbour((_, address)) => {
                Family::of(*address)
            }
            Change::PutRoute((_, net), _) | Change::DropRoute((_, net), _) => Family::of(net.addr()),
            Change::PutRule(rule) | Change::DropRule(rule) => rule.family,
            Change::PutForwarding(..)
            | Change::DropForwarding(..)
            | Change::PutProxy(..)
            | Change::DropProxy(..) => Family::V4,
        }
    }
}

impl Layer3 {
    /// All of both, as `other` says where they differ.
    pub(super) fn with(&self, other: &Layer3) -> Layer3 {
        let mut all = self.clone();
        all.addresses.extend(&other.addresses);
        all.routes.extend(&other.routes);
        all.neighbours.extend(&other.neighbours);
        all.forwarding.extend(&other.forwarding);
        all.proxies.extend(&other.proxies);
        all.rules.extend(&other.rules);
        all
    }

    /// Those that packets leave by, or that have addresses.
    fn links(&self) -> BTreeSet<u32> {
        let routed = self.routes.values().filter_map(|route| match route {
            Route::Link(link) | Route::Gateway { link, .. } => Some(*link),
            Route::Blackhole | Route::Unreachable => None,
        });
        routed.chain(self.addresses.iter().map(|(link, _)| *link)).collect()
    }

    /// What makes `have` the same as `self`. What differs is replaced in one step; what is new comes before what is
    /// old goes, and a neighbour before the route that needs it.
    fn changes(&self, have: &Layer3) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(self.addresses.difference(&have.addresses).map(|&(l, a)| Change::PutAddress(l, a)));
        changes.extend(
            changed(&self.neighbours, &have.neighbours).map(|(&key, &mac)| Change::PutNeighbour(key, mac)),
        );
        let moved = changed(&self.forwarding, &have.forwarding);
        changes.extend(moved.map(|(&key, &host)| Change::PutForwarding(key, host)));
        changes
            .extend(changed(&self.routes, &have.routes).map(|(&key, &route)| Change::PutRoute(key, route)));
        changes.extend(self.proxies.difference(&have.proxies).map(|&(l, a)| Change::PutProxy(l, a)));
        changes.extend(self.rules.difference(&have.rules).map(|&rule| Change::PutRule(rule)));

        changes.extend(have.rules.difference(&self.rules).map(|&rule| Change::DropRule(rule)));
        changes.extend(have.proxies.difference(&self.proxies).map(|&(l, a)| Change::DropProxy(l, a)));
        let old = have.routes.iter().filter(|(key, _)| !self.routes.contains_key(key));
        changes.extend(old.map(|(&key, &route)| Change::DropRoute(key, route)));
        let old = have.neighbours.keys().filter(|key| !self.neighbours.contains_key(key));
        changes.extend(old.map(|&key| Change::DropNeighbour(key)));
        let old = have.forwarding.iter().filter(|(key, _)| !self.forwarding.contains_key(key));
        changes.extend(old.map(|(&key, &host)| Change::DropForwarding(key, host)));
        changes.extend(have.addresses.difference(&self.addresses).map(|&(l, a)| Change::DropAddress(l, a)));
        changes
    }
}

/// Entries of `want` that `have` lacks or has otherwise.
fn changed<'a, K: Ord, V: PartialEq>(
    want: &'a BTreeMap<K, V>,
    have: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    want.iter().filter(|(key, value)| have.get(key) != Some(value))
}

/// Whether a message says that something is gone which may be ours: a link, or its being up, an address, a rule, a route
/// with our mark. What others add is theirs.
fn takes_away(kind: u16, body: &[u8]) -> bool {
    match kind {
        libc::RTM_DELLINK | libc::RTM_DELADDR | libc::RTM_DELRULE => true,
        // Flags of `ifinfomsg`.
        libc::RTM_NEWLINK => u32_at(body, 8).is_some_and(|flags| flags & libc::IFF_UP as u32 == 0),
        // Protocol of `rtmsg`.
        libc::RTM_DELROUTE => body.get(5) == Some(&u8::from(PROTOCOL)),
        _ => false,
    }
}

fn gone_is_fine(result: Result<(), rtnetlink::Error>) -> io::Result<()> {
    match result.map_err(io_error) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL)
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Says at what beside why.
fn while_at(change: Change, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{change:?}: {error}"))
}

pub(super) fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn example() -> Layer3 {
        let address = Ipv4Addr::new(10, 0, 0, 5);
        Layer3 {
            addresses: [(LOOPBACK, Ipv4Addr::new(10, 0, 0, 1).into())].into(),
            routes: [
                ((MAIN_TABLE, net("10.0.0.0/16")), Route::Blackhole),
                ((MAIN_TABLE, net("10.0.0.5/32")), Route::Link(16)),
            ]
            .into(),
            neighbours: [((16, address.into()), [2, 0, 0, 0, 0, 5])].into(),
            forwarding: [((3, [2, 0, 0, 0, 0, 6]), address)].into(),
            proxies: [(2, address)].into(),
            rules: [Rule { family: Family::V4, priority: 1, mark: None, table: MAIN_TABLE }].into(),
        }
    }

    #[test]
    fn what_is_as_it_shall_be_is_left_alone() {
        assert_eq!(example().changes(&example()), []);
    }

    #[test]
    fn all_is_put_where_nothing_is_and_dropped_where_nothing_shall_be() {
        let (all, nothing) = (example(), Layer3::default());
        let puts = all.changes(&nothing);
        assert_eq!(puts.len(), 7);
        let position = |wanted: fn(&Change) -> bool| puts.iter().position(wanted).unwrap();
        assert!(
            position(|c| matches!(c, Change::PutNeighbour(..)))
                < position(|c| matches!(c, Change::PutRoute(..)))
        );
        let drops = nothing.changes(&all);
        assert_eq!(drops.len(), 7);
        assert!(drops.iter().all(|change| matches!(
            change,
            Change::DropAddress(..)
                | Change::DropRoute(..)
                | Change::DropNeighbour(..)
                | Change::DropForwarding(..)
                | Change::DropProxy(..)
                | Change::DropRule(..)
        )));
    }

    #[test]
    fn what_differs_is_replaced_and_never_dropped() {
        let (mut want, have) = (example(), example());
        want.routes.insert((MAIN_TABLE, net("10.0.0.5/32")), Route::Link(17));
        let key = (MAIN_TABLE, net("10.0.0.5/32"));
        assert_eq!(want.changes(&have), [Change::PutRoute(key, Route::Link(17))]);
    }
}
