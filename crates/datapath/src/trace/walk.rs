//! From hop to hop.

use super::matching::{Way, allows, deciding, way};
use super::{Because, End, Ground, Hop, Obstacle, Packet, Path, Payload, Place, Source};
use crate::{Address, Interface, NatGateway, PublicAccess, Route, Subnet, Target, Vpc, nat64};
use ipnet::{IpNet, Ipv4Net};
use model::Id;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// More routers than anybody puts one behind the other.
const HOPS_MAX: usize = 100;

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
const TIME: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 123);
const METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
const RESOLVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253);
const TIME6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123);
const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
const MULTICAST_AND_RESERVED: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3);

type Ended = std::result::Result<Place, Obstacle>;

struct Walk<'g> {
    ground: &'g dyn Ground,
    hops: Vec<Hop>,
    /// Answers meet no rules of groups.
    is_answer: bool,
    /// The interface that an answer goes to. Who sends from an address, whoever's it is, takes what comes back for it.
    asked_by: Option<&'g Id>,
    /// What NAT gateways have put another source to.
    translations: Vec<Translation>,
    /// Who sent the gateway what is of an address.
    senders: Vec<(IpAddr, Id)>,
    packet: Packet,
}

#[derive(Clone)]
struct Translation {
    nat_gateway_id: Id,
    /// The source as it came, and as it went on.
    from: IpAddr,
    to: IpAddr,
}

/// A way there, and what is to be known of it to go back.
pub(super) struct There {
    pub(super) path: Path,
    translations: Vec<Translation>,
    senders: Vec<(IpAddr, Id)>,
    /// As it arrived.
    packet: Packet,
}

pub(super) fn there(ground: &dyn Ground, source: Source<'_>, packet: Packet) -> There {
    let (hops, translations, senders) = Default::default();
    let mut walk = Walk { ground, hops, is_answer: false, asked_by: None, translations, senders, packet };
    let end = match source {
        Source::Interface(interface) => walk.sent_by(interface),
        Source::Internet => {
            walk.push(None, Place::Internet, Because::Passing);
            let destination = packet.destination;
            match ground.inward(destination) {
                Some(_) => walk.outside(),
                None => Err(Obstacle::NoDestination { destination }),
            }
        }
    };
    let Walk { hops, translations, senders, packet, .. } = walk;
    There { path: Path { hops, end: ended(end) }, translations, senders, packet }
}

fn ended(end: Ended) -> End {
    match end {
        Ok(place) => End::Arrives(place),
        Err(obstacle) => End::Dropped(obstacle),
    }
}

impl There {
    /// The way back to where `first` began, where there is somebody who answers.
    pub(super) fn answer<'g>(
        &self,
        ground: &'g dyn Ground,
        source: &'g Source<'_>,
        first: Packet,
    ) -> Option<Path> {
        let End::Arrives(place) = &self.path.end else { return None };
        let mut walk = Walk {
            ground,
            hops: Vec::new(),
            is_answer: true,
            asked_by: match source {
                Source::Interface(interface) => Some(&interface.interface_id),
                Source::Internet => None,
            },
            translations: self.translations.clone(),
            senders: self.senders.clone(),
            packet: self.packet.answered(),
        };
        let end = match place {
            Place::Interface(id) => {
                let interface = ground.interface(id)?;
                walk.sent_by(&interface)
            }
            Place::Internet => {
                walk.push(None, Place::Internet, Because::Passing);
                walk.outside()
            }
            // It answers by the way that was asked by.
            _ => return None,
        };
        let end = end.and_then(|place| {
            let expected = first.answered();
            let is_back = match source {
                Source::Interface(interface) => place == Place::Interface(interface.interface_id.clone()),
                Source::Internet => place == Place::Internet,
            };
            let found = walk.packet.source;
            match is_back && (found, walk.packet.destination) == (expected.source, expected.destination) {
                true => Ok(place),
                false => Err(Obstacle::AnswersAsAnother { expected: expected.source, found }),
            }
        });
        Some(Path { hops: walk.hops, end: ended(end) })
    }
}

impl Walk<'_> {
    fn push(&mut self, vpc_id: Option<&Id>, place: Place, because: Because) {
        self.hops.push(Hop { vpc_id: vpc_id.cloned(), place, packet: self.packet, because });
    }

    fn sent_by(&mut self, interface: &Interface) -> Ended {
        if self.hops.len() > HOPS_MAX {
            return Err(Obstacle::Circle);
        }
        let id = &interface.interface_id;
        self.push(Some(&interface.vpc_id), Place::Interface(id.clone()), Because::Passing);
        let source_ip = self.packet.source;
        if self.packet.is_ipv6() && !interface.speaks_ipv6() {
            return Err(Obstacle::NoIpv6 { interface_id: id.clone() });
        }
        if interface.source_dest_check && !interface.has(source_ip) {
            return Err(Obstacle::ForeignSource { interface_id: id.clone(), source_ip });
        }
        let vpc = self.vpc(&interface.vpc_id)?;
        if let Some(served) = self.service(&vpc) {
            return served;
        }
        let subnet = subnet(&vpc, &interface.subnet_id)?;
        self.route(&vpc, subnet, Some(interface))
    }

    fn vpc(&self, vpc_id: &Id) -> Result<Vpc, Obstacle> {
        let nobody = || Obstacle::NobodyHas { vpc_id: vpc_id.clone(), address: self.packet.destination };
        self.ground.vpc(vpc_id).map(|vpc| vpc.into_owned()).ok_or_else(nobody)
    }

    /// Where it is for the router itself.
    fn service(&mut self, vpc: &Vpc) -> Option<Ended> {
        let destination = self.packet.destination;
        let served = match destination {
            IpAddr::V4(address) => services(vpc, address)?,
            IpAddr::V6(address) => services6(address)?,
        };
        let is_served = match self.packet.payload {
            Payload::Tcp { destination_port: 80, .. } => served == Service::Metadata,
            Payload::Udp { destination_port: 123, .. } => served == Service::Time,
            Payload::Udp { destination_port: 53, .. } | Payload::Tcp { destination_port: 53, .. } => {
                served == Service::Names
            }
            _ => false,
        };
        if !is_served {
            return Some(Err(Obstacle::NotServed { destination }));
        }
        self.push(Some(&vpc.vpc_id), Place::Service, Because::Passing);
        Some(Ok(Place::Service))
    }

    /// As the route table of the subnet says. `from` is None where a NAT gateway sends.
    fn route(&mut self, vpc: &Vpc, subnet: &Subnet, from: Option<&Interface>) -> Ended {
        let destination = self.packet.destination;
        let route_table_id = subnet.route_table_id.clone();
        let none = || Obstacle::NoRoute { route_table_id: route_table_id.clone(), destination };
        let table = vpc.route_tables.get(&subnet.route_table_id).ok_or_else(none)?;
        let at = At { vpc, subnet, from, table: &subnet.route_table_id };
        match way(vpc, table, destination) {
            Way::None => {
                self.leave(&at, None)?;
                Err(none())
            }
            Way::Local(cidr) => self.local(&at, cidr),
            Way::Route(route) => self.follow(&at, route),
        }
    }

    /// To whoever has the address in the VPC.
    fn local(&mut self, at: &At<'_>, cidr: IpNet) -> Ended {
        let (vpc, destination) = (at.vpc, self.packet.destination);
        let owner = self.owner(vpc, destination);
        let (At { subnet, .. }, to) = (at, owner.as_ref().map(Owner::subnet_id));
        self.leave(at, to)?;
        self.push(Some(&vpc.vpc_id), Place::RouteTable(at.table.clone()), Because::Local(cidr));
        let nobody = Obstacle::NobodyHas { vpc_id: vpc.vpc_id.clone(), address: destination };
        self.deliver(vpc, Some(&subnet.subnet_id), owner.ok_or(nobody)?)
    }

    fn follow(&mut self, at: &At<'_>, route: &Route) -> Ended {
        let vpc = at.vpc;
        let blackhole = || Obstacle::Blackhole { route_table_id: at.table.clone(), route: route.clone() };
        match &route.target {
            Target::InternetGateway => {
                self.leave(at, None)?;
                self.push_route(at, route);
                if !vpc.internet_gateway {
                    return Err(Obstacle::NoInternetGateway { vpc_id: vpc.vpc_id.clone() });
                }
                match self.packet.source {
                    IpAddr::V4(source) => self.gateway_out(vpc, source),
                    IpAddr::V6(_) => self.gateway_out6(vpc, Place::InternetGateway),
                }
            }
            Target::EgressOnlyInternetGateway if self.packet.is_ipv6() => {
                self.leave(at, None)?;
                self.push_route(at, route);
                self.gateway_out6(vpc, Place::EgressOnlyInternetGateway)
            }
            Target::NatGateway(id) => {
                let nat = vpc.nat_gateways.iter().find(|nat| nat.nat_gateway_id == *id);
                let nat = nat.ok_or_else(blackhole)?;
                self.leave(at, Some(&nat.subnet_id))?;
                self.push_route(at, route);
                self.translate(at, nat)
            }
            Target::Interface(id) => {
                let interface = self.ground.interface(id).filter(|one| one.vpc_id == vpc.vpc_id);
                let interface = interface.ok_or_else(blackhole)?.into_owned();
                self.leave(at, Some(&interface.subnet_id))?;
                self.push_route(at, route);
                self.through(vpc, Some(&at.subnet.subnet_id), &interface)
            }
            Target::Peering(id) => {
                let peering = vpc.peerings.iter().find(|peering| peering.peering_id == *id);
                let peer = peering.and_then(|peering| self.ground.vpc(&peering.peer_vpc_id));
                let peer = peer.filter(|peer| peer.peerings.iter().any(|its| its.peering_id == *id));
                let peer = peer.ok_or_else(blackhole)?.into_owned();
                self.leave(at, None)?;
                self.push_route(at, route);
                self.push(Some(&vpc.vpc_id), Place::Peering(id.clone()), Because::Passing);
                self.over_peering(vpc, &peer, id)
            }
            Target::EgressOnlyInternetGateway | Target::Endpoint(_) | Target::Blackhole => {
                self.leave(at, None)?;
                Err(blackhole())
            }
        }
    }

    /// To an interface that a route leads to, and on.
    fn through(&mut self, vpc: &Vpc, from_subnet: Option<&Id>, interface: &Interface) -> Ended {
        let (id, destination) = (&interface.interface_id, self.packet.destination);
        let interface_id = id.clone();
        if self.packet.is_ipv6() && !interface.speaks_ipv6() {
            return Err(Obstacle::NoIpv6 { interface_id });
        }
        if interface.source_dest_check && !interface.has(destination) {
            return Err(Obstacle::ForeignDestination { interface_id, destination });
        }
        let place = self.enter(vpc, from_subnet, interface)?;
        match interface.has(destination) || self.asked_by == Some(id) {
            true => Ok(place),
            false => self.sent_by(interface),
        }
    }

    fn push_route(&mut self, at: &At<'_>, route: &Route) {
        let place = Place::RouteTable(at.table.clone());
        self.push(Some(&at.vpc.vpc_id), place, Because::Route(route.clone()));
    }

    /// Peering is a way from one of the two to the other, and no further.
    fn over_peering(&mut self, vpc: &Vpc, peer: &Vpc, peering_id: &Id) -> Ended {
        let Packet { source, destination, .. } = self.packet;
        let is_in = |vpc: &Vpc, address| vpc.ranges().any(|range| range.contains(&address));
        if !is_in(vpc, source) || is_in(peer, source) || !is_in(peer, destination) {
            let peering_id = peering_id.clone();
            return Err(Obstacle::Transit { peering_id, source_ip: source, destination });
        }
        let nobody = Obstacle::NobodyHas { vpc_id: peer.vpc_id.clone(), address: destination };
        let owner = self.owner(peer, destination).ok_or(nobody)?;
        self.deliver(peer, None, owner)
    }

    /// Out of the VPC, with the public address in place of the private one.
    fn gateway_out(&mut self, vpc: &Vpc, private_ip: Ipv4Addr) -> Ended {
        let Packet { source, destination, .. } = self.packet;
        let is_nowhere = |address| LOOPBACK.contains(&address) || MULTICAST_AND_RESERVED.contains(&address);
        if matches!(destination, IpAddr::V4(address) if is_nowhere(address)) {
            return Err(Obstacle::NoDestination { destination });
        }
        let none = || Obstacle::NoPublicAddress { address: source };
        let owner = self.owner(vpc, source).ok_or_else(none)?;
        self.public_access(vpc, source, matches!(owner, Owner::Nat(_)), true)?;
        let public = owner.address(private_ip).and_then(|own| own.public_ip);
        self.packet.source = public.ok_or_else(none)?.into();
        let sender = self.hops.iter().rev().find_map(|hop| match &hop.place {
            Place::Interface(id) | Place::NatGateway(id) => Some(id.clone()),
            _ => None,
        });
        let sender = sender.unwrap_or_else(|| owner.id().clone());
        check_sender(vpc, &owner, source, &sender, self.is_answer)?;
        self.senders.push((source, sender));
        let because = Because::SourceTranslated { from: source };
        self.push(Some(&vpc.vpc_id), Place::InternetGateway, because);
        self.outside()
    }

    /// Out of the VPC, as itself.
    fn gateway_out6(&mut self, vpc: &Vpc, gateway: Place) -> Ended {
        let Packet { source, destination, .. } = self.packet;
        if !vpc.ranges().any(|range| range.contains(&source)) {
            return Err(Obstacle::NoPublicAddress { address: source });
        }
        self.public_access(vpc, source, is_egress_only(vpc, source, destination), true)?;
        self.push(Some(&vpc.vpc_id), gateway, Because::Passing);
        self.outside()
    }

    /// To the VPC that the address leads into, or out into the world.
    fn outside(&mut self) -> Ended {
        let Packet { source, destination, .. } = self.packet;
        let Some((vpc_id, inside)) = self.ground.inward(destination) else {
            self.push(None, Place::Internet, Because::Passing);
            return Ok(Place::Internet);
        };
        let vpc = self.vpc(&vpc_id)?;
        let is_open = match inside {
            IpAddr::V6(_) if self.is_answer => vpc.leads_out(),
            _ => vpc.internet_gateway,
        };
        if !is_open {
            return Err(Obstacle::NoInternetGateway { vpc_id });
        }
        if vpc.ranges().any(|range| range.contains(&source)) {
            return Err(Obstacle::NoDestination { destination });
        }
        self.packet.destination = inside;
        let is_egress_only = is_egress_only(&vpc, inside, source);
        let gateway = match is_egress_only {
            true if self.is_answer => Place::EgressOnlyInternetGateway,
            true => return Err(Obstacle::EgressOnly { vpc_id, address: inside, source_ip: source }),
            false => Place::InternetGateway,
        };
        let because = match inside == destination {
            true => Because::Passing,
            false => Because::DestinationTranslated { from: destination },
        };
        self.push(Some(&vpc_id), gateway, because);
        let owner = self.owner(&vpc, inside);
        let is_led_out = is_egress_only || matches!(owner, Some(Owner::Nat(_)));
        self.public_access(&vpc, inside, is_led_out, false)?;
        let sender = self.senders.iter().find(|(of, _)| self.is_answer && *of == inside);
        if let (Some(owner), Some((_, sender))) = (&owner, sender) {
            check_sender(&vpc, owner, inside, sender, true)?;
        }
        self.enter_vpc(&vpc, owner)
    }

    /// By the internet gateway's own route table, where it has one, to whom it is for.
    fn enter_vpc(&mut self, vpc: &Vpc, owner: Option<Owner>) -> Ended {
        let (vpc_id, destination) = (&vpc.vpc_id, self.packet.destination);
        if let Some((route_table_id, way)) = edge(vpc, destination) {
            let place = Place::RouteTable(route_table_id.clone());
            match way {
                Way::Local(cidr) => self.push(Some(vpc_id), place, Because::Local(cidr)),
                Way::Route(route) => {
                    let interface = match &route.target {
                        Target::Interface(id) => {
                            self.ground.interface(id).filter(|one| one.vpc_id == *vpc_id)
                        }
                        _ => None,
                    };
                    let route_table_id = route_table_id.clone();
                    let interface = interface
                        .ok_or_else(|| Obstacle::Blackhole { route_table_id, route: route.clone() })?;
                    self.push(Some(vpc_id), place, Because::Route(route.clone()));
                    return self.through(vpc, None, &interface);
                }
                Way::None => {}
            }
        }
        let nobody = || Obstacle::NobodyHas { vpc_id: vpc_id.clone(), address: destination };
        self.deliver(vpc, None, owner.ok_or_else(nobody)?)
    }

    /// Through a NAT gateway, as itself, and as IPv4.
    fn translate(&mut self, at: &At<'_>, nat: &NatGateway) -> Ended {
        let vpc = at.vpc;
        if self.hops.len() > HOPS_MAX {
            return Err(Obstacle::Circle);
        }
        let subnet = subnet(vpc, &nat.subnet_id)?;
        self.acl(vpc, subnet, Some(&at.subnet.subnet_id), false)?;
        let id = &nat.nat_gateway_id;
        // What it has not begun itself it does not pass on.
        if self.is_answer {
            return Err(Obstacle::NoWayIn { nat_gateway_id: id.clone() });
        }
        let Packet { source: from, destination, .. } = self.packet;
        if let IpAddr::V6(address) = destination {
            let ipv4 = nat64::ipv4(address).filter(|ipv4| nat64::leads_to(*ipv4));
            self.packet.destination = ipv4.ok_or(Obstacle::NoDestination { destination })?.into();
        }
        let payload = self.packet.payload.translated(from.is_ipv6());
        self.packet.payload =
            payload.ok_or_else(|| Obstacle::NotTranslatable { nat_gateway_id: id.clone() })?;
        let to = nat.addresses.first().map_or(Ipv4Addr::UNSPECIFIED, |own| own.private_ip).into();
        self.translations.push(Translation { nat_gateway_id: id.clone(), from, to });
        self.packet.source = to;
        self.push(Some(&vpc.vpc_id), Place::NatGateway(id.clone()), Because::SourceTranslated { from });
        self.route(vpc, subnet, None)
    }

    /// An answer to what a NAT gateway has passed on goes back to whom it spoke for.
    fn restore(&mut self, vpc: &Vpc, from_subnet: Option<&Id>, nat: &NatGateway) -> Ended {
        let subnet = subnet(vpc, &nat.subnet_id)?;
        self.acl(vpc, subnet, from_subnet, false)?;
        let id = &nat.nat_gateway_id;
        let destination = self.packet.destination;
        let is_its = |one: &Translation| one.nat_gateway_id == *id && one.to == destination;
        let known = self.translations.iter().rposition(is_its).filter(|_| self.is_answer);
        let known = known.ok_or_else(|| Obstacle::NoWayIn { nat_gateway_id: id.clone() })?;
        self.packet.destination = self.translations.remove(known).from;
        if let (IpAddr::V4(source), true) = (self.packet.source, self.packet.is_ipv6()) {
            self.packet.source = nat64::ipv6(source).into();
            self.packet.payload = self.packet.payload.answered_over_ipv6();
        }
        let because = Because::DestinationTranslated { from: destination };
        self.push(Some(&vpc.vpc_id), Place::NatGateway(id.clone()), because);
        self.route(vpc, subnet, None)
    }

    /// To who has it, from a subnet of the VPC or from outside of it.
    fn deliver(&mut self, vpc: &Vpc, from_subnet: Option<&Id>, owner: Owner) -> Ended {
        match owner {
            Owner::Interface(interface) => self.enter(vpc, from_subnet, &interface),
            Owner::Nat(nat) => self.restore(vpc, from_subnet, &nat),
        }
    }

    /// Out of an interface and, unless `to` is its own, out of its subnet.
    fn leave(&mut self, at: &At<'_>, to: Option<&Id>) -> Result<(), Obstacle> {
        if let Some(interface) = at.from {
            self.groups(interface, true)?;
        }
        self.acl(at.vpc, at.subnet, to, true)
    }

    fn enter(&mut self, vpc: &Vpc, from_subnet: Option<&Id>, interface: &Interface) -> Ended {
        let subnet = subnet(vpc, &interface.subnet_id)?;
        self.acl(vpc, subnet, from_subnet, false)?;
        self.groups(interface, false)?;
        let place = Place::Interface(interface.interface_id.clone());
        self.push(Some(&vpc.vpc_id), place.clone(), Because::Passing);
        Ok(place)
    }

    fn groups(&mut self, interface: &Interface, egress: bool) -> Result<(), Obstacle> {
        let interface_id = interface.interface_id.clone();
        let place = Place::SecurityGroups { interface_id: interface_id.clone(), egress };
        if self.is_answer {
            self.push(Some(&interface.vpc_id), place, Because::Tracked);
            return Ok(());
        }
        if let (false, Payload::Icmp { kind, .. } | Payload::Icmpv6 { kind, .. }) =
            (self.packet.payload.begins(), self.packet.payload)
        {
            return Err(Obstacle::BeginsNothing { interface_id, kind });
        }
        let peer = if egress { self.packet.destination } else { self.packet.source };
        let vpc = self.ground.vpc(&interface.vpc_id);
        for group_id in &interface.groups {
            let (Some(group), Some(vpc)) = (self.ground.group(group_id), &vpc) else { continue };
            let rules = if egress { &group.egress } else { &group.ingress };
            if let Some(rule) = rules.iter().find(|rule| allows(self.ground, vpc, rule, peer, self.packet)) {
                let because = Because::Rule { group_id: group_id.clone(), rule: rule.clone() };
                self.push(Some(&interface.vpc_id), place, because);
                return Ok(());
            }
        }
        Err(Obstacle::NoRule { interface_id, groups: interface.groups.clone(), egress })
    }

    /// Whether what an address sends to the internet, or is sent from there, may begin. `is_led_out` where a NAT gateway or
    /// an egress-only one does so.
    fn public_access(&self, vpc: &Vpc, own: IpAddr, is_led_out: bool, egress: bool) -> Result<(), Obstacle> {
        let Some(subnet) = subnet_of(vpc, own).filter(|_| !self.is_answer) else { return Ok(()) };
        match subnet.public_access {
            PublicAccess::Open => Ok(()),
            PublicAccess::Outward if is_led_out => Ok(()),
            PublicAccess::Outward | PublicAccess::Blocked => {
                let (vpc_id, subnet_id) = (vpc.vpc_id.clone(), subnet.subnet_id.clone());
                Err(Obstacle::PublicAccessBlocked { vpc_id, subnet_id, egress })
            }
        }
    }

    /// At the edge of a subnet: what stays in it, `other` being the same, meets none.
    fn acl(&mut self, vpc: &Vpc, subnet: &Subnet, other: Option<&Id>, egress: bool) -> Result<(), Obstacle> {
        if other == Some(&subnet.subnet_id) {
            return Ok(());
        }
        let (network_acl_id, subnet_id) = (subnet.network_acl_id.clone(), subnet.subnet_id.clone());
        let Some(acl) = vpc.network_acls.get(&network_acl_id) else { return Ok(()) };
        let (entries, peer) = match egress {
            true => (&acl.egress, self.packet.destination),
            false => (&acl.ingress, self.packet.source),
        };
        match deciding(entries, peer, self.packet) {
            Some(entry) if entry.allow => {
                let place = Place::NetworkAcl { network_acl_id, subnet_id, egress };
                self.push(Some(&vpc.vpc_id), place, Because::Entry(entry.clone()));
                Ok(())
            }
            Some(entry) => Err(Obstacle::Denied { network_acl_id, subnet_id, egress, entry: entry.clone() }),
            None => Err(Obstacle::NoEntry { network_acl_id, subnet_id, egress }),
        }
    }

    fn owner(&self, vpc: &Vpc, address: IpAddr) -> Option<Owner> {
        let is_its =
            |nat: &&NatGateway| nat.addresses.iter().any(|own| IpAddr::V4(own.private_ip) == address);
        match self.ground.owner(&vpc.vpc_id, address) {
            Some(interface) => Some(Owner::Interface(interface.into_owned())),
            None => vpc.nat_gateways.iter().find(is_its).cloned().map(Owner::Nat),
        }
    }
}

/// Where a packet is that is about to go out of a subnet.
struct At<'a> {
    vpc: &'a Vpc,
    subnet: &'a Subnet,
    from: Option<&'a Interface>,
    table: &'a Id,
}

enum Owner {
    Interface(Interface),
    Nat(NatGateway),
}

impl Owner {
    fn id(&self) -> &Id {
        match self {
            Owner::Interface(interface) => &interface.interface_id,
            Owner::Nat(nat) => &nat.nat_gateway_id,
        }
    }

    fn subnet_id(&self) -> &Id {
        match self {
            Owner::Interface(interface) => &interface.subnet_id,
            Owner::Nat(nat) => &nat.subnet_id,
        }
    }

    fn address(&self, private_ip: Ipv4Addr) -> Option<&Address> {
        let addresses = match self {
            Owner::Interface(interface) => &interface.addresses,
            Owner::Nat(nat) => &nat.addresses,
        };
        addresses.iter().find(|own| own.private_ip == private_ip)
    }
}

fn subnet<'v>(vpc: &'v Vpc, subnet_id: &Id) -> Result<&'v Subnet, Obstacle> {
    let found = vpc.subnets.iter().find(|subnet| subnet.subnet_id == *subnet_id);
    found.ok_or_else(|| Obstacle::NobodyHas {
        vpc_id: vpc.vpc_id.clone(),
        address: Ipv4Addr::UNSPECIFIED.into(),
    })
}

/// What is served by a VPC's router itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Service {
    Metadata,
    Names,
    Time,
    /// It is an address of the router's, of its link or of nobody: none goes further.
    Nothing,
}

/// None of what is not for the router.
fn services(vpc: &Vpc, address: Ipv4Addr) -> Option<Service> {
    let base = vpc.cidrs.first().map(|cidr| Ipv4Addr::from(u32::from(cidr.network()) + 2));
    let is_gateway = || vpc.subnets.iter().any(|subnet| subnet.router() == Some(address));
    match address {
        METADATA => Some(Service::Metadata),
        TIME => Some(Service::Time),
        RESOLVER => Some(Service::Names),
        _ if base == Some(address) => Some(Service::Names),
        _ => (LINK_LOCAL.contains(&address) || is_gateway()).then_some(Service::Nothing),
    }
}

fn services6(address: Ipv6Addr) -> Option<Service> {
    let is_near = address.is_unicast_link_local() || address.is_multicast() || address.is_loopback();
    match address {
        METADATA6 => Some(Service::Metadata),
        TIME6 => Some(Service::Time),
        RESOLVER6 => Some(Service::Names),
        _ => is_near.then_some(Service::Nothing),
    }
}

/// What the internet gateway's own route table says of an address inside, where there is one.
fn edge(vpc: &Vpc, inside: IpAddr) -> Option<(&Id, Way<'_>)> {
    let id = vpc.edge_route_table_id.as_ref()?;
    Some((id, way(vpc, vpc.route_tables.get(id)?, inside)))
}

/// Whether the gateway takes what is of an address from this sender: from its owner or, where it leads what is for it
/// through another interface, from that one. What its owner begins by himself goes out, and is not answered.
fn check_sender(
    vpc: &Vpc,
    owner: &Owner,
    address: IpAddr,
    sender: &Id,
    is_answer: bool,
) -> Result<(), Obstacle> {
    let through = match edge(vpc, address) {
        Some((_, Way::Route(Route { target: Target::Interface(id), .. }))) => id,
        _ => owner.id(),
    };
    if sender == through || (sender == owner.id() && !is_answer) {
        return Ok(());
    }
    Err(Obstacle::OtherWay { address, through: through.clone(), sender: sender.clone() })
}

/// The subnet that an address is of.
fn subnet_of(vpc: &Vpc, address: IpAddr) -> Option<&Subnet> {
    vpc.subnets.iter().find(|subnet| subnet.networks().any(|net| net.contains(&address)))
}

/// Whether the subnet of an address speaks to somebody outside by an egress-only gateway.
fn is_egress_only(vpc: &Vpc, address: IpAddr, outsider: IpAddr) -> bool {
    let table = subnet_of(vpc, address).and_then(|subnet| vpc.route_tables.get(&subnet.route_table_id));
    table.into_iter().flat_map(|table| &table.routes).any(|route| {
        route.target == Target::EgressOnlyInternetGateway && route.destination.contains(&outsider)
    })
}
