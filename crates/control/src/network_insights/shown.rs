//! A trace as the API shows it (Reachability Analyzer Guide, "Path components", "Explanation codes").

use super::flow::component;
use crate::engine::Tables;
use crate::{Context, egress_only_internet_gateway, internet_gateway};
use aws_api::ec2;
use datapath::trace::{Because, Hop, Obstacle, Packet, Path, Place, Trace};
use datapath::{AclEntry, Peer, Protocol, Route, Rule, Target};
use ipnet::IpNet;
use model::Id;

pub fn components(context: &Context, path: &Path) -> Vec<ec2::PathComponent> {
    let shown = path.hops.iter().filter_map(|hop| Some((hop, component_of(context, hop)?)));
    let numbered = (1..).zip(shown).map(|(number, (hop, component))| ec2::PathComponent {
        sequence_number: Some(number),
        outbound_header: Some(header(&hop.packet)),
        vpc: hop.vpc_id.as_ref().map(|id| named(context, id)),
        ..component
    });
    numbered.collect()
}

/// None of what has no id: the internet, and the VPC's own services.
fn component_of(context: &Context, hop: &Hop) -> Option<ec2::PathComponent> {
    let of = |id: &Id| ec2::PathComponent { component: Some(named(context, id)), ..Default::default() };
    Some(match (&hop.place, &hop.because) {
        (Place::SecurityGroups { interface_id, egress }, Because::Rule { group_id, rule }) => {
            ec2::PathComponent {
                security_group_rule: Some(security_group_rule(group_id, rule, *egress)),
                attached_to: Some(named(context, interface_id)),
                ..of(group_id)
            }
        }
        (Place::NetworkAcl { network_acl_id, subnet_id, egress }, Because::Entry(entry)) => {
            ec2::PathComponent {
                acl_rule: Some(acl_rule(entry, *egress)),
                subnet: Some(named(context, subnet_id)),
                ..of(network_acl_id)
            }
        }
        (Place::RouteTable(id), Because::Route(route)) => {
            ec2::PathComponent { route_table_route: Some(route_table_route(route)), ..of(id) }
        }
        (Place::RouteTable(id), Because::Local(cidr)) => ec2::PathComponent {
            route_table_route: Some(ec2::AnalysisRouteTableRoute {
                destination_cidr: Some(cidr.to_string()),
                gateway_id: Some("local".into()),
                origin: Some("createroutetable".into()),
                state: Some("active".into()),
                ..Default::default()
            }),
            ..of(id)
        },
        (Place::InternetGateway | Place::EgressOnlyInternetGateway, _) => {
            of(&gateway_id(&context.tables(), hop)?)
        }
        (Place::Interface(id) | Place::NatGateway(id) | Place::Peering(id) | Place::RouteTable(id), _) => {
            of(id)
        }
        // An answer's rules were asked on its way there.
        (Place::SecurityGroups { .. } | Place::NetworkAcl { .. } | Place::Internet | Place::Service, _) => {
            return None;
        }
    })
}

/// Of the gateway of the VPC that a hop is in.
fn gateway_id(tables: &Tables, hop: &Hop) -> Option<Id> {
    let vpc_id = hop.vpc_id.as_ref()?;
    match hop.place {
        Place::InternetGateway => {
            internet_gateway::of_vpc(tables, vpc_id).map(|gateway| gateway.internet_gateway_id.clone())
        }
        Place::EgressOnlyInternetGateway => {
            egress_only_internet_gateway::of_vpc(tables, vpc_id).map(|gateway| gateway.gateway_id.clone())
        }
        _ => None,
    }
}

/// Of all that a path goes by.
pub fn component_ids(tables: &Tables, path: &Path) -> Vec<Id> {
    let of_hop = |hop: &Hop| match (&hop.place, &hop.because) {
        (Place::Interface(id) | Place::RouteTable(id) | Place::NatGateway(id) | Place::Peering(id), _)
        | (Place::SecurityGroups { .. }, Because::Rule { group_id: id, .. })
        | (Place::NetworkAcl { network_acl_id: id, .. }, _) => Some(id.clone()),
        _ => gateway_id(tables, hop),
    };
    path.hops.iter().filter_map(of_hop).collect()
}

fn named(context: &Context, id: &Id) -> ec2::AnalysisComponent {
    let kind = Id::kind_of(id);
    ec2::AnalysisComponent {
        id: Some(id.to_string()),
        arn: kind.map(|kind| context.arn(kind.resource_type(), id)),
        name: None,
    }
}

fn header(packet: &Packet) -> ec2::AnalysisPacketHeader {
    let ports = packet.payload.ports();
    let range = |port: u16| vec![ports_to_api(port, port)];
    ec2::AnalysisPacketHeader {
        source_addresses: vec![IpNet::from(packet.source).to_string()],
        destination_addresses: vec![IpNet::from(packet.destination).to_string()],
        protocol: Some(packet.payload.protocol().to_string()),
        source_port_ranges: ports.map(|(source, _)| range(source)).unwrap_or_default(),
        destination_port_ranges: ports.map(|(_, destination)| range(destination)).unwrap_or_default(),
    }
}

fn ports_to_api(from: u16, to: u16) -> ec2::PortRange {
    ec2::PortRange { from: Some(from.into()), to: Some(to.into()) }
}

/// A protocol's number, and its ports.
fn protocol(protocol: Protocol) -> (String, Option<ec2::PortRange>) {
    match protocol {
        Protocol::All => ("all".into(), None),
        Protocol::Tcp { from, to } => ("6".into(), Some(ports_to_api(from, to))),
        Protocol::Udp { from, to } => ("17".into(), Some(ports_to_api(from, to))),
        Protocol::Icmp { .. } => ("1".into(), None),
        Protocol::Icmpv6 { .. } => ("58".into(), None),
        Protocol::Number(number) => (number.to_string(), None),
    }
}

fn security_group_rule(group_id: &Id, rule: &Rule, egress: bool) -> ec2::AnalysisSecurityGroupRule {
    let (protocol, port_range) = protocol(rule.protocol);
    let (cidr, peer) = match &rule.peer {
        Peer::Cidr(cidr) => (Some(cidr.to_string()), None),
        Peer::Group(id) => (None, Some(id.to_string())),
    };
    ec2::AnalysisSecurityGroupRule {
        cidr,
        direction: Some(direction(egress).into()),
        // The group that the rule names or, where it names none, the one that it is of.
        security_group_id: peer.or_else(|| Some(group_id.to_string())),
        port_range,
        protocol: Some(protocol),
        ..Default::default()
    }
}

fn direction(egress: bool) -> &'static str {
    if egress { "egress" } else { "ingress" }
}

fn acl_rule(entry: &AclEntry, egress: bool) -> ec2::AnalysisAclRule {
    let (protocol, port_range) = protocol(entry.protocol);
    ec2::AnalysisAclRule {
        cidr: Some(entry.cidr.to_string()),
        egress: Some(egress),
        port_range,
        protocol: Some(protocol),
        rule_action: Some(if entry.allow { "allow" } else { "deny" }.into()),
        rule_number: Some(entry.rule_number.into()),
    }
}

fn route_table_route(route: &Route) -> ec2::AnalysisRouteTableRoute {
    let mut shown = ec2::AnalysisRouteTableRoute {
        destination_cidr: Some(route.destination.to_string()),
        origin: Some("createroute".into()),
        state: Some(if route.target == Target::Blackhole { "blackhole" } else { "active" }.into()),
        ..Default::default()
    };
    match &route.target {
        Target::InternetGateway => shown.gateway_id = Some("igw".into()),
        Target::NatGateway(id) => shown.nat_gateway_id = Some(id.to_string()),
        Target::Interface(id) => shown.network_interface_id = Some(id.to_string()),
        Target::Peering(id) => shown.vpc_peering_connection_id = Some(id.to_string()),
        Target::Endpoint(id) => shown.gateway_id = Some(id.to_string()),
        Target::EgressOnlyInternetGateway | Target::Blackhole => {}
    }
    shown
}

/// That the path is not by the components that it is to go by.
pub fn filter_restriction(arn: &str) -> ec2::Explanation {
    let id = component(arn);
    ec2::Explanation {
        explanation_code: Some("COMPONENT_FILTER_RESTRICTION".into()),
        component: Some(ec2::AnalysisComponent { id: Some(id.into()), arn: Some(arn.into()), name: None }),
        ..Default::default()
    }
}

/// What stands in the way, in EC2's words.
pub fn explanation(context: &Context, trace: &Trace) -> ec2::Explanation {
    let component = |id: &Id| Some(named(context, id));
    let Some(obstacle) = trace.obstacle() else {
        return ec2::Explanation { explanation_code: Some("NO_PATH".into()), ..Default::default() };
    };
    let code = |code: &str| ec2::Explanation { explanation_code: Some(code.into()), ..Default::default() };
    match obstacle {
        Obstacle::ForeignSource { interface_id, source_ip: address }
        | Obstacle::ForeignDestination { interface_id, destination: address } => ec2::Explanation {
            network_interface: component(interface_id),
            address: Some(address.to_string()),
            ..code("ENI_SOURCE_DEST_CHECK_RESTRICTION")
        },
        Obstacle::NoRule { interface_id, groups, egress } => ec2::Explanation {
            network_interface: component(interface_id),
            security_groups: groups.iter().map(|id| named(context, id)).collect(),
            direction: Some(direction(*egress).into()),
            ..code("ENI_SG_RULES_MISMATCH")
        },
        Obstacle::Denied { network_acl_id, subnet_id, egress, entry } => ec2::Explanation {
            acl: component(network_acl_id),
            acl_rule: Some(acl_rule(entry, *egress)),
            subnet: component(subnet_id),
            direction: Some(direction(*egress).into()),
            ..code("SUBNET_ACL_RESTRICTION")
        },
        Obstacle::NoEntry { network_acl_id, subnet_id, egress } => ec2::Explanation {
            acl: component(network_acl_id),
            subnet: component(subnet_id),
            direction: Some(direction(*egress).into()),
            ..code("SUBNET_ACL_RESTRICTION")
        },
        Obstacle::NoRoute { route_table_id, destination } => ec2::Explanation {
            route_table: component(route_table_id),
            address: Some(destination.to_string()),
            ..code("NO_ROUTE_TO_DESTINATION")
        },
        Obstacle::Blackhole { route_table_id, route } => ec2::Explanation {
            route_table: component(route_table_id),
            route_table_route: Some(route_table_route(route)),
            ..code("BAD_STATE_ROUTE")
        },
        Obstacle::NoInternetGateway { vpc_id } => {
            ec2::Explanation { vpc: component(vpc_id), ..code("BAD_STATE_ATTACHMENT") }
        }
        Obstacle::OtherWay { address, sender, .. } => ec2::Explanation {
            address: Some(address.to_string()),
            component: component(sender),
            ..code("NO_PATH")
        },
        Obstacle::PublicAccessBlocked { vpc_id, subnet_id, egress } => ec2::Explanation {
            vpc: component(vpc_id),
            subnet: component(subnet_id),
            direction: Some(direction(*egress).into()),
            ..code("VPC_BLOCK_PUBLIC_ACCESS_ENABLED")
        },
        Obstacle::NoPublicAddress { address } => ec2::Explanation {
            address: Some(address.to_string()),
            ..code("IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS")
        },
        Obstacle::NobodyHas { vpc_id, address } => ec2::Explanation {
            vpc: component(vpc_id),
            address: Some(address.to_string()),
            ..code("NO_POSSIBLE_DESTINATION")
        },
        Obstacle::NoIpv6 { interface_id } => {
            ec2::Explanation { network_interface: component(interface_id), ..code("NO_POSSIBLE_DESTINATION") }
        }
        Obstacle::EgressOnly { vpc_id, address, .. } => ec2::Explanation {
            vpc: component(vpc_id),
            address: Some(address.to_string()),
            ..code("NO_POSSIBLE_DESTINATION")
        },
        Obstacle::BeginsNothing { interface_id, .. } => {
            ec2::Explanation { network_interface: component(interface_id), ..code("PROTOCOL_RESTRICTION") }
        }
        Obstacle::NoWayIn { nat_gateway_id } => {
            ec2::Explanation { nat_gateway: component(nat_gateway_id), ..code("NGW_REQUIRES_SOURCE_IN_VPC") }
        }
        Obstacle::NotTranslatable { nat_gateway_id } => {
            ec2::Explanation { nat_gateway: component(nat_gateway_id), ..code("PROTOCOL_RESTRICTION") }
        }
        Obstacle::Transit { peering_id, destination, .. } => ec2::Explanation {
            vpc_peering_connection: component(peering_id),
            address: Some(destination.to_string()),
            ..code("PCX_REQUIRES_ADDRESS_IN_VPC_CIDR")
        },
        Obstacle::NotServed { destination } | Obstacle::NoDestination { destination } => {
            ec2::Explanation { address: Some(destination.to_string()), ..code("NO_POSSIBLE_DESTINATION") }
        }
        Obstacle::AnswersAsAnother { found, .. } => {
            ec2::Explanation { address: Some(found.to_string()), ..code("NO_PATH") }
        }
        Obstacle::Circle => code("NO_PATH"),
    }
}
