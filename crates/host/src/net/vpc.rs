//! What the router of one VPC is made of: names, numbers, addresses, routes. Pure.
//!
//! A packet's mark says, while the packet is inside the namespace, whose it is and how it is routed: the low half is
//! the number of the network interface it came from, which is its tap's index, and the high half the number of its
//! subnet, which decides on route table and network ACL. Marks are set once, where the packet enters, by a map that the
//! guest can't talk itself into.

use datapath::{Address, Elsewhere, Interface, NatGateway, Peering, Plan, Subnet, Target};
use ipnet::{IpNet, Ipv4Net};
use model::Id;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::NetError;
use super::family::Family;
use super::hosts;
use super::index::Index;
use super::kernel::{LOOPBACK, Layer3, MAIN_TABLE, Route, Rule};
use super::neighbour::{Neighbour, Question};

/// Where every VPC's guests find the metadata service, the resolver (VPC User Guide, "DNS attributes") and the time
/// (EC2 User Guide, "Amazon Time Sync Service").
pub(super) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
pub(super) const TIME: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 123);
/// The same for IPv6 (EC2 User Guide, "Access instance metadata"; VPC User Guide, "Amazon DNS server"; "Amazon Time Sync
/// Service").
pub(super) const METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
pub(super) const RESOLVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253);
pub(super) const TIME6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123);
/// Where guests look for DHCPv6 servers (RFC 8415, "All_DHCP_Relay_Agents_and_Servers").
pub(super) const DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);

/// The VPC's end of the pair that leads to the host: its internet gateway.
pub(super) const GATEWAY: &str = "igw";
pub(super) const GATEWAY_MAC: [u8; 6] = [0xfe, b'c', b'm', b'l', 0, 3];
pub(super) const GATEWAY_PEER_MAC: [u8; 6] = [0xfe, b'c', b'm', b'l', 0, 2];
/// The next hops on both ends of pairs that lead out: never on the wire, just the keys of permanent neighbours.
const GATEWAY_PEER: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
const GATEWAY_PEER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 1);

pub(super) fn gateway_peer(family: Family) -> IpAddr {
    match family {
        Family::V4 => GATEWAY_PEER.into(),
        Family::V6 => GATEWAY_PEER6.into(),
    }
}

/// What every guest sees as its router. First octets of EC2's own interfaces are 02 to 1e.
pub(super) const ROUTER_MAC: [u8; 6] = [0xfe, b'c', b'm', b'l', 0, 1];

/// Numbers of interfaces and of subnets are 16 bits of the mark each; the low ones are left to links that the kernel
/// numbers, and to what else a mark says.
pub(super) const NUMBERS: std::ops::RangeInclusive<u32> = 16..=0xffff;
pub(super) const NUMBER_MASK: u32 = 0xffff;

/// The low half of marks of what comes from a NAT gateway, of which no guest sends.
pub(super) const NAT_GATEWAY: u32 = 8;
/// And of what comes from a peer VPC.
pub(super) const PEER: u32 = 9;
/// And of what comes from another host.
pub(super) const OTHER_HOST: u32 = 10;

/// What names of links begin with: of taps, and of links to NAT gateways and to peer VPCs.
const TAP: char = 't';
const NAT_LINK: char = 'n';
const PEERING_LINK: char = 'p';

/// Kernel tables of the VPC's route tables: routes within the VPC, which are more specific than the local ones, and
/// all others. Above those that the kernel names.
const INNER_TABLES: u32 = 100_000;
const OUTER_TABLES: u32 = 200_000;
/// The kernel's own last resort; it asks there for IPv4 only.
const DEFAULT_TABLE: u32 = 253;
/// A route within a VPC's own ranges wins over the local ones, which win over all others, by the longest prefix (VPC
/// User Guide, "Route priority").
const INNER_PRIORITY: u32 = 5_000;
const LOCAL_PRIORITY: u32 = 10_000;
const OUTER_PRIORITY: u32 = 20_000;
const LAST_PRIORITY: u32 = 40_000;

/// A network interface on its tap.
#[derive(Clone, Debug)]
pub(super) struct Nic<'a> {
    pub plan: &'a Interface,
    pub tap: String,
    /// The tap's index in the namespace.
    pub number: u32,
}

/// A VPC with its interfaces on this host, in the order of their ids.
#[derive(Clone, Debug)]
pub(super) struct Vpc<'a> {
    pub plan: &'a datapath::Vpc,
    pub nics: Vec<Nic<'a>>,
    /// Its interfaces on other hosts.
    pub elsewhere: &'a [&'a Elsewhere],
    /// Peerings whose other VPC is on this host too.
    pub peers: Vec<(&'a Peering, &'a datapath::Vpc)>,
    /// The VPC's own id among them stands for its internet gateway.
    subnets: BTreeMap<&'a Id, u32>,
    route_tables: BTreeMap<&'a Id, u32>,
}

/// Indexes of the links that lead out of the namespace, as far as they are there.
#[derive(Clone, Debug, Default)]
pub(super) struct Exits {
    pub internet_gateway: Option<u32>,
    /// The link to other hosts.
    pub hosts: Option<u32>,
    /// To NAT gateways and to peers, by name.
    pub links: BTreeMap<String, u32>,
}

impl<'a> Vpc<'a> {
    /// Numbers the interfaces: those that have a tap keep its index, the others get the next free ones after the
    /// highest in use, so that a number comes back as late as possible.
    pub(super) fn new(
        plan: &'a datapath::Vpc,
        index: &'a Index<'a>,
        taps: &BTreeMap<String, u32>,
    ) -> Result<Self, NetError> {
        let interfaces = index.interfaces(&plan.vpc_id);
        let mut used: BTreeSet<u32> = taps.values().copied().collect();
        let mut last = used.last().copied().unwrap_or(0);
        let mut nics = Vec::with_capacity(interfaces.len());
        for interface in interfaces {
            let tap = tap_name(&interface.interface_id);
            let number = match taps.get(&tap) {
                Some(index) => *index,
                None => {
                    let free = (last + 1..=*NUMBERS.end()).chain(NUMBERS);
                    let number = free
                        .into_iter()
                        .find(|n| NUMBERS.contains(n) && !used.contains(n))
                        .ok_or_else(|| {
                            NetError::Failed(format!(
                                "{} has too many network interfaces on one host",
                                plan.vpc_id
                            ))
                        })?;
                    used.insert(number);
                    last = number;
                    number
                }
            };
            nics.push(Nic { plan: interface, tap, number });
        }
        nics.sort_by(|a, b| a.plan.interface_id.cmp(&b.plan.interface_id));
        let peers = peers(plan, &index.vpcs);
        let elsewhere = index.elsewhere(&plan.vpc_id);
        let subnets = plan.subnets.iter().map(|subnet| &subnet.subnet_id);
        let subnets = numbered(subnets.chain(plan.edge_route_table_id.as_ref().map(|_| &plan.vpc_id)));
        Ok(Vpc { plan, nics, elsewhere, peers, subnets, route_tables: numbered(plan.route_tables.keys()) })
    }

    /// The mark of packets that come from this interface.
    pub(super) fn mark(&self, nic: &Nic) -> u32 {
        self.subnet_mark(&nic.plan.subnet_id) | nic.number
    }

    /// The mark of packets that come from this NAT gateway.
    pub(super) fn nat_mark(&self, nat: &NatGateway) -> u32 {
        self.subnet_mark(&nat.subnet_id) | NAT_GATEWAY
    }

    /// The high half of the marks of what comes from the subnet.
    pub(super) fn subnet_mark(&self, subnet_id: &Id) -> u32 {
        self.subnets.get(subnet_id).map_or(0, |number| number << 16)
    }

    /// And of what comes by the internet gateway: none where that has no routes of its own.
    pub(super) fn gateway_mark(&self) -> u32 {
        self.subnet_mark(&self.plan.vpc_id)
    }

    /// Private addresses and the public ones that the internet gateway translates them to: none where there is no
    /// gateway.
    pub(super) fn translated(&self) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr)> + use<'a> {
        let addresses: Vec<Address> = match self.plan.internet_gateway {
            true => self.addresses().map(|(address, _)| *address).collect(),
            false => Vec::new(),
        };
        addresses.into_iter().filter_map(|address| Some((address.private_ip, address.public_ip?)))
    }

    /// All addresses of interfaces, by the number of each, and of NAT gateways.
    fn addresses(&self) -> impl Iterator<Item = (&'a Address, u32)> {
        let nics = self.nics.iter().flat_map(|nic| nic.plan.addresses.iter().map(|own| (own, nic.number)));
        let nats = self.plan.nat_gateways.iter().flat_map(|nat| &nat.addresses);
        nics.chain(nats.map(|own| (own, NAT_GATEWAY)))
    }

    /// The networks that are an interface's own, and its number.
    pub(super) fn owners(&self) -> BTreeMap<IpNet, u32> {
        self.nics.iter().flat_map(|nic| nic.plan.networks().map(|net| (net, nic.number))).collect()
    }

    /// Names of the links to NAT gateways and to peers.
    pub(super) fn exits(&self) -> BTreeSet<String> {
        let peers = self.peers.iter().map(|(peering, _)| peering_link(peering));
        self.plan.nat_gateways.iter().map(nat_link).chain(peers).collect()
    }

    /// The guest as it is asked for its address: by the gateway of its subnet or, where it is in none, by the resolver.
    pub(super) fn neighbour(&self, nic: &Nic) -> Neighbour {
        let question = match nic.plan.primary() {
            Some(Address { private_ip: address, .. }) => {
                let mut subnets = self.plan.subnets.iter();
                let subnet = subnets.find(|subnet| subnet.cidr.is_some_and(|cidr| cidr.contains(&address)));
                let gateway = subnet.and_then(Subnet::router).unwrap_or(RESOLVER);
                Question::V4 { address, gateway }
            }
            None => {
                let own = nic.plan.ipv6_addresses.first().copied();
                let address = own.unwrap_or(link_local(nic.plan.mac));
                Question::V6 { address, gateway: link_local(ROUTER_MAC) }
            }
        };
        Neighbour { index: nic.number, mac: nic.plan.mac, question }
    }

    /// Addresses on which the resolver answers.
    pub(super) fn resolvers(&self) -> Vec<Ipv4Addr> {
        resolvers(self.plan)
    }

    /// The whole of layer 3 inside the namespace.
    pub(super) fn layer3(&self, exits: &Exits) -> Layer3 {
        let mut layer3 = self.routes(exits);
        let gateways = self.plan.subnets.iter().filter_map(Subnet::router);
        let services = [METADATA, TIME].into_iter().chain(self.resolvers()).chain(gateways);
        layer3.addresses.extend(services.map(|address| (LOOPBACK, address.into())));
        layer3.addresses.extend([METADATA6, TIME6, RESOLVER6].map(|address| (LOOPBACK, address.into())));

        // Only known addresses of the VPC answer, and what no table routes is dropped in silence, as EC2 does: a
        // blackhole sends no error, and makes proxy ARP keep still.
        let blackholes = self.plan.ranges().chain([LINK_LOCAL.into()]);
        layer3.routes.extend(blackholes.map(|net| ((MAIN_TABLE, net.trunc()), Route::Blackhole)));
        for family in Family::BOTH {
            layer3.routes.insert((DEFAULT_TABLE, family.everywhere()), Route::Blackhole);
            layer3.rules.insert(Rule { family, priority: LOCAL_PRIORITY, mark: None, table: MAIN_TABLE });
        }
        let last = Rule { family: Family::V6, priority: LAST_PRIORITY, mark: None, table: DEFAULT_TABLE };
        layer3.rules.insert(last);
        for nic in &self.nics {
            layer3 = layer3.with(&nic.layer3());
        }
        if let Some(link) = exits.hosts {
            layer3 = layer3.with(&hosts::layer3(self, link));
        }
        layer3
    }

    /// The part that says what the route tables say: rules, routes, and the next hops of those that lead out.
    pub(super) fn routes(&self, exits: &Exits) -> Layer3 {
        let mut layer3 = Layer3::default();
        let peers = self.peers.iter().filter_map(|(peering, _)| exits.links.get(&peering_link(peering)));
        let outer = exits.internet_gateway.map(|link| (link, GATEWAY_PEER_MAC));
        for (link, mac) in peers.map(|link| (*link, ROUTER_MAC)).chain(outer) {
            layer3.neighbours.extend(Family::BOTH.map(|family| ((link, gateway_peer(family)), mac)));
        }
        for nat in &self.plan.nat_gateways {
            let Some(link) = exits.links.get(&nat_link(nat)) else { continue };
            layer3.neighbours.insert((*link, GATEWAY_PEER6.into()), nat.mac);
            for address in &nat.addresses {
                let destination = IpNet::from(IpAddr::V4(address.private_ip));
                layer3.routes.insert((MAIN_TABLE, destination), Route::Link(*link));
                layer3.neighbours.insert((*link, address.private_ip.into()), nat.mac);
            }
        }
        let subnets = self.plan.subnets.iter();
        let subnets = subnets.map(|subnet| (self.subnet_mark(&subnet.subnet_id), &subnet.route_table_id));
        let gateway = self.plan.edge_route_table_id.iter().map(|id| (self.gateway_mark(), id));
        for (mark, route_table_id) in subnets.chain(gateway) {
            let Some(table) = self.plan.route_tables.get(route_table_id) else { continue };
            let number = self.route_tables.get(route_table_id).copied().unwrap_or(0);
            for route in &table.routes {
                let is_inner = self.plan.ranges().any(|cidr| cidr.contains(&route.destination));
                let (priority, table) = match is_inner {
                    true => (INNER_PRIORITY, INNER_TABLES + number),
                    false => (OUTER_PRIORITY, OUTER_TABLES + number),
                };
                let mark = Some((mark, !NUMBER_MASK));
                let family = Family::of(route.destination.addr());
                layer3.rules.insert(Rule { family, priority, mark, table });
                let hop = self.hop(&route.target, family, exits);
                layer3.routes.insert((table, route.destination.trunc()), hop);
            }
        }
        layer3
    }

    /// What is not here, or not for the family, is as if it were gone.
    fn hop(&self, target: &Target, family: Family, exits: &Exits) -> Route {
        let outward = |link: u32| (gateway_peer(family), link);
        let hop = match target {
            Target::InternetGateway if self.plan.internet_gateway => exits.internet_gateway.map(outward),
            Target::EgressOnlyInternetGateway if family == Family::V6 => exits.internet_gateway.map(outward),
            Target::NatGateway(id) => {
                let nat = self.plan.nat_gateways.iter().find(|nat| nat.nat_gateway_id == *id);
                nat.and_then(|nat| {
                    let link = *exits.links.get(&nat_link(nat))?;
                    let gateway = match family {
                        Family::V4 => nat.addresses.first()?.private_ip.into(),
                        Family::V6 => gateway_peer(family),
                    };
                    Some((gateway, link))
                })
            }
            Target::Interface(id) => {
                let nic = self.nics.iter().find(|nic| nic.plan.interface_id == *id);
                let elsewhere = self.elsewhere.iter().find(|other| other.interface.interface_id == *id);
                match nic {
                    Some(nic) => nic.hop(family).map(|hop| (hop, nic.number)),
                    None => elsewhere.and_then(|other| Some((hosts::hop(other.host, family), exits.hosts?))),
                }
            }
            Target::Peering(id) => {
                let peer = self.peers.iter().find(|(peering, _)| peering.peering_id == *id);
                let link = peer.and_then(|(peering, _)| exits.links.get(&peering_link(peering)));
                link.copied().map(outward)
            }
            Target::InternetGateway
            | Target::EgressOnlyInternetGateway
            | Target::Endpoint(_)
            | Target::Blackhole => None,
        };
        hop.map_or(Route::Blackhole, |(gateway, link)| Route::Gateway { gateway, link, mtu: None })
    }

    /// Interfaces that a route leads to although they take only what is for them.
    pub(super) fn checked_targets(&self) -> impl Iterator<Item = &Nic<'a>> {
        let routes = self.plan.route_tables.values().flat_map(|table| &table.routes);
        let targets: BTreeSet<&Id> = routes
            .filter_map(|route| match &route.target {
                Target::Interface(id) => Some(id),
                _ => None,
            })
            .collect();
        self.nics
            .iter()
            .filter(move |nic| nic.plan.source_dest_check && targets.contains(&nic.plan.interface_id))
    }
}

impl Nic<'_> {
    /// How it is found by what is not for an address of its own. None where it has no such address to be found by.
    fn hop(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.plan.primary().map(|own| own.private_ip.into()),
            Family::V6 => Some(link_local(self.plan.mac).into()),
        }
    }

    fn layer3(&self) -> Layer3 {
        let mut layer3 = Layer3::default();
        let (link, mac) = (self.number, self.plan.mac);
        for net in self.plan.networks() {
            let family = Family::of(net.addr());
            let route = match net.prefix_len() == net.max_prefix_len() {
                true => {
                    layer3.neighbours.insert((link, net.addr()), mac);
                    Route::Link(link)
                }
                // Too many for a neighbour each: all are behind one.
                false => match self.hop(family) {
                    Some(gateway) => Route::Gateway { gateway, link, mtu: None },
                    None => Route::Blackhole,
                },
            };
            layer3.routes.insert((MAIN_TABLE, net), route);
        }
        if self.plan.speaks_ipv6() {
            layer3.neighbours.insert((link, link_local(mac).into()), mac);
        }
        layer3
    }
}

/// The address that a card with this MAC has on its link, unless it chose another (RFC 4291, appendix A).
pub(super) fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let bytes = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Addr::from(bytes)
}

/// What a subnet's routes lead to an egress-only gateway for: from its network to those.
pub(super) fn egress_only<'a>(
    plan: &'a datapath::Vpc,
    subnet: &'a Subnet,
) -> impl Iterator<Item = (IpNet, IpNet)> + use<'a> {
    let table = plan.route_tables.get(&subnet.route_table_id);
    let routes = table.into_iter().flat_map(|table| &table.routes);
    let led = routes.filter(|route| route.target == Target::EgressOnlyInternetGateway);
    let led: Vec<IpNet> =
        led.map(|route| route.destination).filter(|net| matches!(net, IpNet::V6(_))).collect();
    let own = subnet.ipv6_cidr.map(|own| IpNet::V6(own.trunc()));
    own.into_iter().flat_map(move |own| IpNet::aggregate(&led).into_iter().map(move |net| (own, net)))
}

/// Of addresses, and of prefixes that are delegated to an interface (EC2 User Guide, "Prefix delegation").
const LENGTHS: [u8; 2] = [32, 28];
const LENGTHS6: [u8; 2] = [128, 80];

/// Whose an address is, by the networks that are interfaces' own.
pub(super) fn owner<T>(by_network: &HashMap<IpNet, T>, address: IpAddr) -> Option<&T> {
    let lengths = if address.is_ipv4() { LENGTHS } else { LENGTHS6 };
    let nets = lengths.into_iter().filter_map(|length| IpNet::new(address, length).ok());
    nets.map(|net| net.trunc()).find_map(|net| by_network.get(&net))
}

/// Peerings of the VPC whose other VPC is on this host and knows of them too.
pub(super) fn peers<'a>(
    plan: &'a datapath::Vpc,
    vpcs: &BTreeMap<&Id, &'a datapath::Vpc>,
) -> Vec<(&'a Peering, &'a datapath::Vpc)> {
    let peer = |peering: &'a Peering| {
        let peer = *vpcs.get(&peering.peer_vpc_id)?;
        let knows = peer.peerings.iter().any(|its| its.peering_id == peering.peering_id);
        knows.then_some((peering, peer))
    };
    plan.peerings.iter().filter_map(peer).collect()
}

/// A number of 16 bits for each id. It hangs on the id alone but where two fall together, so that it seldom changes when
/// others come and go: what is under way bears it.
fn numbered<'a>(ids: impl Iterator<Item = &'a Id>) -> BTreeMap<&'a Id, u32> {
    let mut numbers = BTreeMap::new();
    let mut used = BTreeSet::new();
    let ids: BTreeSet<&Id> = ids.collect();
    for id in ids {
        let hash = id.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193) // FNV-1a
        });
        let first = (((hash >> 16) ^ hash) & NUMBER_MASK).max(*NUMBERS.start());
        let free =
            (first..=*NUMBERS.end()).chain(*NUMBERS.start()..first).find(|number| used.insert(*number));
        numbers.extend(free.map(|number| (id, number)));
    }
    numbers
}

/// The link to a NAT gateway.
pub(super) fn nat_link(nat: &NatGateway) -> String {
    link_name(NAT_LINK, &nat.nat_gateway_id)
}

/// Each end of the pair between two peers.
pub(super) fn peering_link(peering: &Peering) -> String {
    link_name(PEERING_LINK, &peering.peering_id)
}

/// Whether it is a link to a NAT gateway or to a peer.
pub(super) fn is_exit(name: &str) -> bool {
    is_link_name(NAT_LINK, name) || is_link_name(PEERING_LINK, name)
}

/// The resolver's addresses: one that is the same everywhere, and the VPC's base plus two.
pub(super) fn resolvers(plan: &datapath::Vpc) -> Vec<Ipv4Addr> {
    std::iter::once(RESOLVER).chain(plan.cidrs.first().map(|cidr| nth(*cidr, 2))).collect()
}

/// Refuses a plan that can't be, before anything is touched.
pub(super) fn check(plan: &Plan) -> Result<(), NetError> {
    let failed = |message: String| Err(NetError::Failed(message));
    let mut vpcs = BTreeMap::new();
    for vpc in &plan.vpcs {
        if vpcs.insert(&vpc.vpc_id, vpc).is_some() {
            return failed(format!("{} is planned twice", vpc.vpc_id));
        }
    }
    let (mut taps, mut privates, mut publics) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut privates6 = BTreeSet::new();
    for interface in &plan.interfaces {
        let Interface { interface_id, vpc_id, addresses, ipv6_addresses, prefixes, .. } = interface;
        let Some(vpc) = vpcs.get(vpc_id) else {
            return failed(format!("{interface_id} is in {vpc_id}, which is not planned"));
        };
        for Address { private_ip, public_ip } in addresses {
            if !vpc.cidrs.iter().any(|cidr| cidr.contains(private_ip)) {
                return failed(format!("{private_ip} of {interface_id} is outside of {vpc_id}"));
            }
            if !privates.insert((vpc_id, private_ip)) {
                return failed(format!("{private_ip} of {interface_id} is taken in {vpc_id}"));
            }
            if public_ip.is_some_and(|address| !publics.insert(address)) {
                return failed(format!("the public address of {interface_id} is taken"));
            }
        }
        for address in ipv6_addresses {
            if !vpc.ipv6_cidrs.iter().any(|cidr| cidr.contains(address)) {
                return failed(format!("{address} of {interface_id} is outside of {vpc_id}"));
            }
            if !privates6.insert((vpc_id, address)) {
                return failed(format!("{address} of {interface_id} is taken in {vpc_id}"));
            }
        }
        for prefix in prefixes {
            let is_inside = match prefix {
                IpNet::V4(prefix) => vpc.cidrs.iter().any(|cidr| cidr.contains(prefix)),
                IpNet::V6(prefix) => vpc.ipv6_cidrs.iter().any(|cidr| cidr.contains(prefix)),
            };
            if !is_inside {
                return failed(format!("{prefix} of {interface_id} is outside of {vpc_id}"));
            }
        }
        if !taps.insert((vpc_id, tap_name(interface_id))) {
            return failed(format!("{interface_id} is planned twice, or is too like another's id"));
        }
    }
    let nats = plan.vpcs.iter().flat_map(|vpc| vpc.nat_gateways.iter().map(move |nat| (&vpc.vpc_id, nat)));
    for (vpc_id, nat) in nats {
        let id = &nat.nat_gateway_id;
        if nat.addresses.is_empty() {
            return failed(format!("{id} has no address"));
        }
        for Address { private_ip, public_ip } in &nat.addresses {
            if !privates.insert((vpc_id, private_ip)) {
                return failed(format!("{private_ip} of {id} is taken in {vpc_id}"));
            }
            if public_ip.is_some_and(|address| !publics.insert(address)) {
                return failed(format!("the public address of {id} is taken"));
            }
        }
    }
    Ok(())
}

pub(super) fn tap_name(interface_id: &Id) -> String {
    link_name(TAP, interface_id)
}

pub(super) fn is_tap_name(name: &str) -> bool {
    is_link_name(TAP, name)
}

/// A link's name has 15 characters, an id 17 digits: the last 14 are 56 of an id's 64 random bits.
fn link_name(first: char, id: &Id) -> String {
    let digits = digits(id);
    format!("{first}{}", &digits[digits.len().saturating_sub(14)..])
}

fn is_link_name(first: char, name: &str) -> bool {
    name.strip_prefix(first)
        .is_some_and(|digits| digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What follows an id's prefix.
pub(super) fn digits(id: &Id) -> &str {
    id.rsplit_once('-').map_or(id.as_str(), |(_, digits)| digits)
}

/// The address that many after the network's first.
fn nth(net: Ipv4Net, offset: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()).saturating_add(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::examples::{self, id, subnet};
    use model::Kind;

    fn plan() -> datapath::Vpc {
        datapath::Vpc {
            vpc_id: id(Kind::Vpc, 1),
            cidrs: vec!["10.0.0.0/16".parse().unwrap(), "10.9.0.0/16".parse().unwrap()],
            subnets: vec![subnet(1, "10.0.1.0/24"), subnet(2, "10.9.2.0/24")],
            ..examples::vpc(1)
        }
    }

    fn interface(number: u64, public_ip: Option<Ipv4Addr>) -> Interface {
        Interface {
            addresses: vec![Address { private_ip: Ipv4Addr::new(10, 0, 1, number as u8), public_ip }],
            ..examples::interface(number)
        }
    }

    fn whole(interfaces: Vec<Interface>) -> Plan {
        Plan { vpcs: vec![plan()], interfaces, ..Plan::default() }
    }

    fn numbers(taps: &[(u64, u32)], interfaces: &[u64]) -> Result<Vec<u32>, NetError> {
        let name = |number: u64| tap_name(&id(Kind::NetworkInterface, number));
        let taps = taps.iter().map(|(number, index)| (name(*number), *index)).collect();
        let interfaces: Vec<Interface> = interfaces.iter().map(|number| interface(*number, None)).collect();
        let whole = whole(interfaces);
        let index = Index::new(&whole);
        let vpc = Vpc::new(&whole.vpcs[0], &index, &taps)?;
        Ok(vpc.nics.iter().map(|nic| nic.number).collect())
    }

    #[test]
    fn interfaces_keep_their_numbers_and_new_ones_get_late_ones() {
        assert_eq!(numbers(&[], &[1, 2]).unwrap(), [16, 17]);
        assert_eq!(numbers(&[(2, 30)], &[1, 2, 3]).unwrap(), [31, 30, 32]);
        // The number of a tap that is about to go is not given away with it.
        assert_eq!(numbers(&[(9, 40)], &[1]).unwrap(), [41]);
        assert_eq!(numbers(&[(9, 0xffff), (8, 16)], &[1, 8]).unwrap(), [17, 16]);
    }

    #[test]
    fn there_are_as_many_numbers_as_the_mark_has_room_for() {
        let taps: Vec<(u64, u32)> = NUMBERS.map(|number| (number.into(), number)).collect();
        assert!(numbers(&taps, &[1]).is_err());
    }

    #[test]
    fn taps_are_named_by_the_end_of_the_id() {
        let long = Id::parse(Kind::NetworkInterface, "eni-0123456789abcdef0").unwrap();
        assert_eq!(tap_name(&long), "t3456789abcdef0");
        let short = Id::parse(Kind::NetworkInterface, "eni-12345678").unwrap();
        assert_eq!(tap_name(&short), "t12345678");
        for id in [long, short] {
            assert!(is_tap_name(&tap_name(&id)) && tap_name(&id).len() <= 15);
        }
        assert!(!is_tap_name(GATEWAY) && !is_tap_name("lo") && !is_tap_name("tunnel"));
    }

    #[test]
    fn routes_lead_where_the_subnets_table_says() {
        let mut whole = whole(vec![interface(5, Some(Ipv4Addr::new(198, 18, 0, 5))), interface(6, None)]);
        let host = Ipv4Addr::new(203, 0, 113, 9);
        whole.elsewhere.push(Elsewhere { host, interface: interface(7, None) });
        let index = Index::new(&whole);
        let vpc = Vpc::new(&whole.vpcs[0], &index, &BTreeMap::new()).unwrap();
        let marks: Vec<u32> = vpc.nics.iter().map(|nic| vpc.mark(nic)).collect();
        let subnet = vpc.subnet_mark(&id(Kind::Subnet, 1));
        assert!(subnet > 0 && marks == [subnet | 0x10, subnet | 0x11], "{marks:x?}");

        let layer3 = vpc.layer3(&Exits { internet_gateway: Some(3), ..Exits::default() });
        let local: Vec<String> = layer3.addresses.iter().map(|(_, address)| address.to_string()).collect();
        let expected = [
            "10.0.0.2",
            "10.0.1.1",
            "10.9.2.1",
            "169.254.169.123",
            "169.254.169.253",
            "169.254.169.254",
            "fd00:ec2::123",
            "fd00:ec2::253",
            "fd00:ec2::254",
        ];
        assert_eq!(local, expected);
        let default_routes: Vec<_> = layer3
            .routes
            .iter()
            .filter(|((_, net), _)| *net == Family::V4.everywhere())
            .map(|((table, _), r)| (*table, *r))
            .collect();
        let out = Route::Gateway { gateway: GATEWAY_PEER.into(), link: 3, mtu: None };
        let table = OUTER_TABLES + vpc.route_tables[&id(Kind::RouteTable, 1)];
        assert_eq!(default_routes, [(DEFAULT_TABLE, Route::Blackhole), (table, out)]);
        let rules = layer3.rules.iter().filter(|rule| rule.family == Family::V4);
        let rules: Vec<_> = rules.map(|rule| (rule.priority, rule.table)).collect();
        assert_eq!(rules[..2], [(LOCAL_PRIORITY, MAIN_TABLE), (OUTER_PRIORITY, table)]);
        let elsewhere = (MAIN_TABLE, "10.0.1.7/32".parse().unwrap());
        assert!(!layer3.routes.contains_key(&elsewhere));
        let linked = vpc.layer3(&Exits { hosts: Some(4), ..Exits::default() });
        assert_eq!(linked.routes[&elsewhere], Route::Gateway { gateway: host.into(), link: 4, mtu: None });
        assert_eq!(linked.forwarding, [((4, hosts::mac(host)), host)].into());
        let shut = vpc.layer3(&Exits::default());
        assert!(!shut.routes.values().any(|route| matches!(route, Route::Gateway { .. })));
    }

    #[test]
    fn plans_that_cannot_be_are_told_apart() {
        let public = Some(Ipv4Addr::new(198, 18, 0, 5));
        let good = whole(vec![interface(5, public), interface(6, None)]);
        assert!(check(&good).is_ok());
        type Spoil = fn(&mut Plan);
        let spoilt: [(&str, Spoil); 5] = [
            ("not planned", |plan| plan.vpcs.clear()),
            ("planned twice", |plan| plan.vpcs.push(plan.vpcs[0].clone())),
            ("outside", |plan| plan.interfaces[0].addresses[0].private_ip = Ipv4Addr::new(10, 1, 0, 5)),
            ("is taken in", |plan| {
                plan.interfaces[0].addresses[0].private_ip = plan.interfaces[1].addresses[0].private_ip
            }),
            ("public address", |plan| {
                plan.interfaces[1].addresses[0].public_ip = plan.interfaces[0].addresses[0].public_ip
            }),
        ];
        for (reason, spoil) in spoilt {
            let mut plan = good.clone();
            spoil(&mut plan);
            let message = check(&plan).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
    }
}
