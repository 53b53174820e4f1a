//! What a scope says of a way: of its ends, of the packets there, and of what it leads through (Network Access Analyzer
//! Guide, "Network Access Scopes").

use super::super::FlowProtocol;
use super::super::flow::component;
use aws_api::ec2;
use ipnet::Ipv4Net;
use model::{Error, Id, Kind, Result, Text};
use serde::{Deserialize, Serialize};

/// Values in one list of a statement.
const VALUES_MAX: usize = 100;

const INTERNET_GATEWAY: &str = "AWS::EC2::InternetGateway";
const NETWORK_INTERFACE: &str = "AWS::EC2::NetworkInterface";
const VPC_PEERING: &str = "AWS::EC2::VPCPeeringConnection";
const NAT_GATEWAY: &str = "AWS::EC2::NatGateway";

/// What AWS has and this cloud has not, so that no way leads there.
const ELSEWHERE: [&str; 7] = [
    "AWS::EC2::TransitGatewayAttachment",
    "AWS::EC2::VPCEndpoint",
    "AWS::EC2::VPCEndpointService",
    "AWS::EC2::VPNGateway",
    "AWS::ElasticLoadBalancing::LoadBalancer",
    "AWS::ElasticLoadBalancingV2::LoadBalancer",
    "AWS::NetworkFirewall::NetworkFirewall",
];

/// The type of what has an id of this kind, where ways lead through it.
fn type_of(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::InternetGateway => INTERNET_GATEWAY,
        Kind::NetworkInterface => NETWORK_INTERFACE,
        Kind::NatGateway => NAT_GATEWAY,
        Kind::VpcPeeringConnection => VPC_PEERING,
        _ => return None,
    })
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScopePath {
    pub source: End,
    pub destination: End,
    /// It leads through something of each.
    pub through: Vec<Resources>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub packet: Option<PacketHeader>,
    /// Anything where None.
    pub resources: Option<Resources>,
}

/// By id or by type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    pub ids: Vec<Text>,
    pub types: Vec<Text>,
}

/// Lists that are empty say nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PacketHeader {
    pub sources: Vec<Ipv4Net>,
    pub destinations: Vec<Ipv4Net>,
    pub source_prefix_lists: Vec<Id>,
    pub destination_prefix_lists: Vec<Id>,
    pub source_ports: Vec<(u16, u16)>,
    pub destination_ports: Vec<(u16, u16)>,
    pub protocols: Vec<FlowProtocol>,
}

impl ScopePath {
    pub fn from_api(asked: ec2::AccessScopePathRequest) -> Result<ScopePath> {
        let end = |end: Option<ec2::PathStatementRequest>| match end {
            Some(end) => End::from_api(end),
            None => Ok(End::default()),
        };
        let statements = few(asked.through_resources)?.into_iter();
        let through = statements.filter_map(|through| through.resource_statement);
        Ok(ScopePath {
            source: end(asked.source)?,
            destination: end(asked.destination)?,
            through: through.map(|through| Resources::from_api(through, false)).collect::<Result<_>>()?,
        })
    }

    pub fn to_api(&self) -> ec2::AccessScopePath {
        let through = self
            .through
            .iter()
            .map(|through| ec2::ThroughResourcesStatement { resource_statement: Some(through.to_api()) });
        ec2::AccessScopePath {
            source: self.source.to_api(),
            destination: self.destination.to_api(),
            through_resources: through.collect(),
        }
    }
}

impl End {
    fn from_api(asked: ec2::PathStatementRequest) -> Result<End> {
        Ok(End {
            packet: asked.packet_header_statement.map(PacketHeader::from_api).transpose()?,
            resources: asked
                .resource_statement
                .map(|resources| Resources::from_api(resources, true))
                .transpose()?,
        })
    }

    fn to_api(&self) -> Option<ec2::PathStatement> {
        (*self != End::default()).then(|| ec2::PathStatement {
            packet_header_statement: self.packet.as_ref().map(PacketHeader::to_api),
            resource_statement: self.resources.as_ref().map(Resources::to_api),
        })
    }
}

impl Resources {
    /// `is_end` where a way begins or ends there.
    fn from_api(asked: ec2::ResourceStatementRequest, is_end: bool) -> Result<Resources> {
        let invalid = |value: &str| {
            Error::invalid_parameter_value(format!("Value ({value}) is invalid in a resource statement."))
        };
        let (ids, types) = (few(asked.resources)?, few(asked.resource_types)?);
        if ids.is_empty() == types.is_empty() {
            return Err(Error::invalid_parameter_combination(
                "A resource statement has either resources or resource types.",
            ));
        }
        for id in &ids {
            let fits = match Id::kind_of(component(id)) {
                Some(
                    Kind::Instance
                    | Kind::InternetGateway
                    | Kind::NetworkInterface
                    | Kind::SecurityGroup
                    | Kind::Subnet
                    | Kind::Vpc,
                ) => is_end,
                Some(Kind::NatGateway | Kind::VpcPeeringConnection) => !is_end,
                _ => false,
            };
            if !fits {
                return Err(invalid(id));
            }
        }
        let own = if is_end { [INTERNET_GATEWAY, NETWORK_INTERFACE] } else { [NAT_GATEWAY, VPC_PEERING] };
        let is_known = |name: &&String| own.contains(&name.as_str()) || ELSEWHERE.contains(&name.as_str());
        if let Some(unknown) = types.iter().find(|name| !is_known(name)) {
            return Err(invalid(unknown));
        }
        let texts = |list: Vec<String>| list.iter().map(|text| text.as_str().into()).collect();
        Ok(Resources { ids: texts(ids), types: texts(types) })
    }

    fn to_api(&self) -> ec2::ResourceStatement {
        let texts = |list: &[Text]| list.iter().map(ToString::to_string).collect();
        ec2::ResourceStatement { resources: texts(&self.ids), resource_types: texts(&self.types) }
    }

    /// Whether any of these ids, of which the first is the thing's own, is meant.
    pub fn names(&self, ids: &[Id]) -> bool {
        let own_type = ids.first().and_then(|id| type_of(Id::kind_of(id)?));
        self.types.iter().any(|name| own_type == Some(name.as_str()))
            || self.ids.iter().any(|named| ids.iter().any(|id| id.as_str() == component(named)))
    }
}

impl PacketHeader {
    fn from_api(asked: ec2::PacketHeaderStatementRequest) -> Result<PacketHeader> {
        let nets = |list| few(list)?.iter().map(|text: &String| net(text)).collect::<Result<Vec<_>>>();
        let ports = |list| few(list)?.iter().map(|text: &String| ports(text)).collect::<Result<Vec<_>>>();
        let lists = |list| {
            let ids = few(list)?.into_iter();
            ids.map(|id: String| Id::parse(Kind::PrefixList, component(&id))).collect::<Result<Vec<_>>>()
        };
        let protocols = few(asked.protocols)?.into_iter().map(|name| {
            let known = FlowProtocol::parse(&name).filter(|protocol| *protocol != FlowProtocol::Icmp);
            known.ok_or_else(|| invalid(&name, "tcp or udp"))
        });
        Ok(PacketHeader {
            protocols: protocols.collect::<Result<_>>()?,
            sources: nets(asked.source_addresses)?,
            destinations: nets(asked.destination_addresses)?,
            source_prefix_lists: lists(asked.source_prefix_lists)?,
            destination_prefix_lists: lists(asked.destination_prefix_lists)?,
            source_ports: ports(asked.source_ports)?,
            destination_ports: ports(asked.destination_ports)?,
        })
    }

    fn to_api(&self) -> ec2::PacketHeaderStatement {
        let nets = |nets: &[Ipv4Net]| nets.iter().map(ToString::to_string).collect();
        let ids = |ids: &[Id]| ids.iter().map(ToString::to_string).collect();
        let ports = |ranges: &[(u16, u16)]| {
            let text = |(from, to): &(u16, u16)| match from == to {
                true => from.to_string(),
                false => format!("{from}-{to}"),
            };
            ranges.iter().map(text).collect()
        };
        ec2::PacketHeaderStatement {
            source_addresses: nets(&self.sources),
            destination_addresses: nets(&self.destinations),
            source_prefix_lists: ids(&self.source_prefix_lists),
            destination_prefix_lists: ids(&self.destination_prefix_lists),
            source_ports: ports(&self.source_ports),
            destination_ports: ports(&self.destination_ports),
            protocols: self.protocols.iter().map(|protocol| protocol.name().into()).collect(),
        }
    }
}

fn few<T>(list: Vec<T>) -> Result<Vec<T>> {
    match list.len() > VALUES_MAX {
        true => Err(Error::invalid_parameter_value(format!(
            "A list of a statement has at most {VALUES_MAX} values."
        ))),
        false => Ok(list),
    }
}

fn invalid(value: &str, expected: &str) -> Error {
    Error::invalid_parameter_value(format!("Value ({value}) is invalid. It must be {expected}."))
}

/// A network, or an address alone.
fn net(text: &str) -> Result<Ipv4Net> {
    let alone = |_| text.parse().map(|address| Ipv4Net::new_assert(address, 32));
    let net = text.parse::<Ipv4Net>().map(|net| net.trunc());
    net.or_else(alone).map_err(|_| invalid(text, "an IPv4 address or network"))
}

/// A port, or a range of them.
fn ports(text: &str) -> Result<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.trim().parse(), to.trim().parse()) {
        (Ok(from), Ok(to)) if from <= to => Ok((from, to)),
        _ => Err(invalid(text, "a port or a range of ports")),
    }
}
