//! Which ways there are that a scope is about.
//!
//! Between two ends there are more packets than can be tried. What can make a difference is where a rule or a statement
//! begins or ends: those ports and addresses are tried, and the first that gets through is the finding, one for two ends
//! and a protocol. The work is bounded; an analysis that stops before its end says so.

use super::super::FlowProtocol;
use super::super::flow::{Flow, Stop};
use super::super::ground::Records;
use super::super::shown;
use super::NetworkInsightsAccessScope;
use super::statement::{End, PacketHeader, ScopePath};
use crate::engine::Tables;
use crate::network_interface::NetworkInterface;
use crate::{internet_gateway, prefix_list};
use datapath::trace::{ECHO, Ground, Packet, Path, Payload, Trace};
use datapath::{Peer, Protocol, Rule, SecurityGroup};
use ipnet::{IpNet, Ipv4Net};
use model::{Id, Text};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Two ends that are looked at in one analysis, ways that are followed, and findings that it has.
const PAIRS_MAX: usize = 200_000;
const WALKS_MAX: usize = 2_000;
const FINDINGS_MAX: usize = 200;
/// Ports and addresses that are tried between two ends.
const PORTS_MAX: usize = 16;
const ADDRESSES_MAX: usize = 8;
/// Where nothing says which: one that every system chooses from, and one that is asked for most.
const EPHEMERAL: u16 = 49_152;
const USUAL: u16 = 443;
/// Somebody on the internet (RFC 5737).
const SOMEBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

pub struct Found {
    pub findings: Vec<Path>,
    /// Why there may be more.
    pub warning: Option<Text>,
    pub interfaces: usize,
}

pub fn search(records: &Records<'_>, scope: &NetworkInsightsAccessScope) -> Found {
    let ends = ends(records.tables);
    let mut search = Search {
        groups: groups(records, &ends),
        peers: peers(records, &ends),
        records,
        scope,
        pairs: 0,
        walks: 0,
        findings: Vec::new(),
    };
    let mut looked_at = BTreeSet::new();
    let warning = search.all(&ends, &mut looked_at).err().map(Into::into);
    Found { findings: search.findings, warning, interfaces: looked_at.len() }
}

struct Search<'s> {
    records: &'s Records<'s>,
    scope: &'s NetworkInsightsAccessScope,
    /// Of the interfaces.
    groups: BTreeMap<Id, SecurityGroup>,
    /// VPCs that lead to each other.
    peers: BTreeSet<(Id, Id)>,
    pairs: usize,
    walks: usize,
    findings: Vec<Path>,
}

impl Search<'_> {
    /// An error says why it was not all.
    fn all(&mut self, ends: &[Stop], looked_at: &mut BTreeSet<Id>) -> Result<(), String> {
        let mut found = BTreeSet::new();
        for path in &self.scope.matches {
            let of = |end: &End| -> Vec<(usize, &Stop)> {
                (0..).zip(ends).filter(|(_, stop)| is_meant(end, stop, self.records.tables)).collect()
            };
            let (sources, destinations) = (of(&path.source), of(&path.destination));
            looked_at.extend(sources.iter().chain(&destinations).filter_map(|(_, stop)| match stop {
                Stop::Interface(interface) => Some(interface.interface_id.clone()),
                _ => None,
            }));
            for (from, source) in &sources {
                for (to, destination) in destinations.iter().filter(|(to, _)| to != from) {
                    self.pairs += 1;
                    if self.pairs > PAIRS_MAX {
                        return Err(format!(
                            "The analysis ended after {PAIRS_MAX} pairs: there may be more findings."
                        ));
                    }
                    for protocol in [FlowProtocol::Tcp, FlowProtocol::Udp] {
                        let key = (*from, *to, protocol.name());
                        if !found.contains(&key) && self.between(path, source, destination, protocol)? {
                            found.insert(key);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a way of the path leads from one end to the other that is not excluded; the first becomes a finding.
    fn between(
        &mut self,
        path: &ScopePath,
        source: &Stop,
        destination: &Stop,
        protocol: FlowProtocol,
    ) -> Result<bool, String> {
        for packet in self.candidates(path, source, destination, protocol) {
            if self.walks == WALKS_MAX {
                return Err(format!(
                    "The analysis ended after {WALKS_MAX} ways: there may be more findings."
                ));
            }
            self.walks += 1;
            let flow = Flow::with(source.clone(), destination.clone(), packet);
            let (trace, arrives) = flow.follow(self.records);
            let is_of = |path: &ScopePath| self.is_of(path, source, destination, &trace);
            if !arrives || !trace.passes() || !is_of(path) || self.scope.excludes.iter().any(is_of) {
                continue;
            }
            if self.findings.len() == FINDINGS_MAX {
                return Err(format!("The analysis ended after {FINDINGS_MAX} findings: there may be more."));
            }
            self.findings.push(trace.forward);
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether a path is about a way.
    fn is_of(&self, path: &ScopePath, source: &Stop, destination: &Stop, trace: &Trace) -> bool {
        let hops = &trace.forward.hops;
        let (Some(first), Some(last)) = (hops.first(), hops.last()) else { return false };
        let tables = self.records.tables;
        let fits =
            |end: &End, packet| end.packet.as_ref().is_none_or(|header| is_header(header, packet, tables));
        let components = shown::component_ids(tables, &trace.forward);
        is_meant(&path.source, source, tables)
            && is_meant(&path.destination, destination, tables)
            && fits(&path.source, &first.packet)
            && fits(&path.destination, &last.packet)
            && path
                .through
                .iter()
                .all(|through| components.iter().any(|id| through.names(std::slice::from_ref(id))))
    }

    /// The packets that are tried between two ends.
    fn candidates(
        &self,
        path: &ScopePath,
        source: &Stop,
        destination: &Stop,
        protocol: FlowProtocol,
    ) -> Vec<Packet> {
        let (rules, near) = match (source, destination) {
            (_, Stop::Interface(to)) => (self.rules(to, false), to),
            (Stop::Interface(from), _) => (self.rules(from, true), from),
            _ => return Vec::new(),
        };
        let paths = || self.scope.excludes.iter().chain([path]);
        let headers = || {
            paths().flat_map(|path| [&path.source, &path.destination]).filter_map(|end| end.packet.as_ref())
        };
        let stated = headers().flat_map(|header| &header.destination_ports);
        let open: Vec<(u16, u16)> = rules.iter().filter_map(|rule| ports(rule.protocol, protocol)).collect();
        let marks = stated.flat_map(|(from, to)| [*from, to.saturating_add(1)]);
        let marks: BTreeSet<u16> = open.iter().map(|(from, _)| *from).chain(marks).chain([USUAL]).collect();
        let is_open = |port: &u16| open.iter().any(|(from, to)| (from..=to).contains(&port));
        let ports: Vec<u16> = marks.into_iter().filter(is_open).take(PORTS_MAX).collect();
        let stated = headers().flat_map(|header| header.sources.iter().chain(&header.destinations));
        let nets = rules.iter().filter_map(|rule| match rule.peer {
            Peer::Cidr(IpNet::V4(net)) => Some(net),
            _ => None,
        });
        let outside: BTreeSet<IpAddr> =
            stated.copied().chain(nets).map(first_of).chain([SOMEBODY]).map(IpAddr::V4).collect();
        let outside: Vec<IpAddr> = outside.into_iter().take(ADDRESSES_MAX).collect();
        let own = |public: bool| -> Vec<IpAddr> {
            let own = near.addresses.iter().filter_map(|own| match public {
                true => own.public_ip(),
                false => Some(own.private_ip),
            });
            own.map(IpAddr::V4).collect()
        };
        let (sources, destinations) = match (source, destination) {
            (Stop::Interface(from), Stop::Interface(to)) if !self.are_near(from, to) => return Vec::new(),
            (Stop::Interface(from), Stop::Interface(_)) => {
                (from.private_ip().map(IpAddr::V4).into_iter().collect(), own(false))
            }
            (Stop::Interface(_), _) => (own(false), outside),
            (_, _) => (outside, own(true)),
        };
        let source_ports = headers().flat_map(|header| &header.source_ports).map(|(from, _)| *from);
        let source_ports: Vec<u16> = source_ports.chain([EPHEMERAL]).take(2).collect();
        let mut packets = Vec::new();
        for source in sources {
            for destination in &destinations {
                for source_port in &source_ports {
                    packets.extend(ports.iter().map(|port| Packet {
                        source,
                        destination: *destination,
                        payload: payload(protocol, *source_port, *port),
                    }));
                }
            }
        }
        packets
    }

    fn rules(&self, interface: &NetworkInterface, egress: bool) -> Vec<&Rule> {
        let groups = interface.security_groups.iter().filter_map(|id| self.groups.get(id));
        groups.flat_map(|group| if egress { &group.egress } else { &group.ingress }).collect()
    }

    /// Whether there may be a way within the cloud.
    fn are_near(&self, one: &NetworkInterface, other: &NetworkInterface) -> bool {
        one.vpc_id == other.vpc_id || self.peers.contains(&(one.vpc_id.clone(), other.vpc_id.clone()))
    }
}

fn interfaces(ends: &[Stop]) -> impl Iterator<Item = &NetworkInterface> {
    ends.iter().filter_map(|end| match end {
        Stop::Interface(interface) => Some(&**interface),
        Stop::InternetGateway(_) | Stop::Address(_) | Stop::Internet => None,
    })
}

fn groups(records: &Records<'_>, ends: &[Stop]) -> BTreeMap<Id, SecurityGroup> {
    let ids: BTreeSet<&Id> = interfaces(ends).flat_map(|interface| &interface.security_groups).collect();
    ids.into_iter().filter_map(|id| Some((id.clone(), records.group(id)?.into_owned()))).collect()
}

fn peers(records: &Records<'_>, ends: &[Stop]) -> BTreeSet<(Id, Id)> {
    let vpcs: BTreeSet<&Id> = interfaces(ends).map(|interface| &interface.vpc_id).collect();
    let vpcs = vpcs.into_iter().filter_map(|id| records.vpc(id));
    let peers = vpcs.flat_map(|vpc| {
        let of = vpc.vpc_id.clone();
        let peers: Vec<Id> = vpc.peerings.iter().map(|peering| peering.peer_vpc_id.clone()).collect();
        peers.into_iter().map(move |peer| (of.clone(), peer))
    });
    peers.collect()
}

/// Where ways may begin and end: interfaces, and internet gateways.
fn ends(tables: &Tables) -> Vec<Stop> {
    let is_used =
        |interface: &&Arc<NetworkInterface>| !interface.is_managed() && !interface.addresses.is_empty();
    let interfaces = tables.network_interfaces.iter().filter(is_used).cloned().map(Stop::Interface);
    let gateways = tables.internet_gateways.iter().filter(|gateway| gateway.vpc_id.is_some());
    interfaces.chain(gateways.map(|gateway| Stop::InternetGateway(gateway.vpc_id.clone()))).collect()
}

/// Whether an end is meant: by itself, or by what it is of.
fn is_meant(end: &End, stop: &Stop, tables: &Tables) -> bool {
    let Some(resources) = &end.resources else { return true };
    let ids: Vec<Id> = match stop {
        Stop::Interface(interface) => {
            let instance = interface.attachment.as_ref().map(|attached| attached.instance_id.clone());
            let of = [&interface.interface_id, &interface.subnet_id, &interface.vpc_id].map(Id::clone);
            of.into_iter().chain(instance).chain(interface.security_groups.iter().cloned()).collect()
        }
        Stop::InternetGateway(Some(vpc_id)) => {
            let gateway = internet_gateway::of_vpc(tables, vpc_id);
            gateway
                .map(|gateway| gateway.internet_gateway_id.clone())
                .into_iter()
                .chain([vpc_id.clone()])
                .collect()
        }
        Stop::InternetGateway(None) | Stop::Address(_) | Stop::Internet => Vec::new(),
    };
    resources.names(&ids)
}

fn is_header(header: &PacketHeader, packet: &Packet, tables: &Tables) -> bool {
    let is_in = |nets: &[Ipv4Net], lists: &[Id], address: IpAddr| {
        let mut listed = lists.iter().flat_map(|id| prefix_list::cidrs(tables, id));
        (nets.is_empty() && lists.is_empty())
            || nets.iter().any(|net| IpNet::V4(*net).contains(&address))
            || listed.any(|net| net.contains(&address))
    };
    let (source_port, destination_port) = packet.payload.ports().unzip();
    let is_among = |ranges: &[(u16, u16)], port: Option<u16>| {
        ranges.is_empty()
            || ranges.iter().any(|(from, to)| port.is_some_and(|port| (*from..=*to).contains(&port)))
    };
    let is_protocol = |protocol: &FlowProtocol| number(*protocol) == packet.payload.protocol();
    is_in(&header.sources, &header.source_prefix_lists, packet.source)
        && is_in(&header.destinations, &header.destination_prefix_lists, packet.destination)
        && is_among(&header.source_ports, source_port)
        && is_among(&header.destination_ports, destination_port)
        && (header.protocols.is_empty() || header.protocols.iter().any(is_protocol))
}

/// The ports that a rule opens to a protocol.
fn ports(rule: Protocol, protocol: FlowProtocol) -> Option<(u16, u16)> {
    match (rule, protocol) {
        (Protocol::Tcp { from, to }, FlowProtocol::Tcp) | (Protocol::Udp { from, to }, FlowProtocol::Udp) => {
            Some((from, to))
        }
        (Protocol::All, _) => Some((0, u16::MAX)),
        (Protocol::Number(of), _) if of == number(protocol) => Some((0, u16::MAX)),
        _ => None,
    }
}

fn number(protocol: FlowProtocol) -> u8 {
    payload(protocol, 0, 0).protocol()
}

fn payload(protocol: FlowProtocol, source_port: u16, destination_port: u16) -> Payload {
    match protocol {
        FlowProtocol::Tcp => Payload::Tcp { source_port, destination_port },
        FlowProtocol::Udp => Payload::Udp { source_port, destination_port },
        FlowProtocol::Icmp => ECHO,
    }
}

/// An address of a network that somebody may have.
fn first_of(net: Ipv4Net) -> Ipv4Addr {
    match net.prefix_len() {
        0 => SOMEBODY,
        _ => net.hosts().next().unwrap_or(net.network()),
    }
}
