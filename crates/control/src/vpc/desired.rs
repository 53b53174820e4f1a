//! What hosts are told of a VPC: a pure function of the records.

use super::Vpc;
use super::cidr::resolver;
use crate::dhcp_options::{self, DhcpOptions};
use crate::engine::Tables;
use crate::internet_gateway;
use crate::nat_gateway::NatGateway;
use crate::network_acl::{self, Entry, NetworkAcl};
use crate::prefix_list;
use crate::route_table::{self, Destination, Route, RouteTable, local_destinations};
use crate::subnet::Subnet;
use crate::{vpc_block_public_access, vpc_peering_connection};
use ipnet::IpNet;
use model::Region;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use store::Revision;

pub fn desired(vpc: &Vpc, tables: &Tables, region: &Region, generation: Revision) -> agent_api::Vpc {
    let id = vpc.vpc_id.as_str();
    let subnet = |subnet: &Arc<Subnet>| {
        Some(datapath::Subnet {
            subnet_id: subnet.subnet_id.clone(),
            cidr: subnet.cidr,
            ipv6_cidr: subnet.ipv6.as_ref().map(|of| of.cidr),
            route_table_id: route_table::of_subnet(tables, &subnet.subnet_id, id)?.route_table_id.clone(),
            network_acl_id: network_acl::of_subnet(tables, &subnet.subnet_id)?.network_acl_id.clone(),
            public_access: vpc_block_public_access::of_subnet(tables, subnet).to_desired(),
        })
    };
    let subnets: Vec<_> = tables.subnets.with("vpc-id", id).filter_map(subnet).collect();
    let used_tables = subnets.iter().filter_map(|subnet| tables.route_tables.find(&subnet.route_table_id));
    let gateway = internet_gateway::of_vpc(tables, id);
    let edge = gateway.and_then(|gateway| route_table::of_gateway(tables, &gateway.internet_gateway_id));
    let used_acls = subnets.iter().filter_map(|subnet| tables.network_acls.find(&subnet.network_acl_id));
    let dhcp_options = vpc.dhcp_options_id.as_ref().and_then(|id| tables.dhcp_options.find(id));
    agent_api::Vpc {
        generation,
        network: datapath::Vpc {
            vpc_id: vpc.vpc_id.clone(),
            number: None,
            cidrs: vpc.cidrs().map(|(_, cidr)| cidr).collect(),
            ipv6_cidrs: vpc.ipv6_cidrs().collect(),
            internet_gateway: gateway.is_some(),
            edge_route_table_id: edge.map(|table| table.route_table_id.clone()),
            route_tables: used_tables
                .chain(edge)
                .map(|table| (table.route_table_id.clone(), routes(table, vpc, tables)))
                .collect::<BTreeMap<_, _>>(),
            network_acls: used_acls
                .map(|acl| (acl.network_acl_id.clone(), entries(acl)))
                .collect::<BTreeMap<_, _>>(),
            subnets,
            nat_gateways: tables.nat_gateways.with("vpc-id", id).filter_map(|one| nat(one, tables)).collect(),
            peerings: vpc_peering_connection::of_vpc(tables, id)
                .filter(|peering| peering.is_active())
                .map(|peering| datapath::Peering {
                    peering_id: peering.peering_id.clone(),
                    peer_vpc_id: peering.peer_of(id).clone(),
                    resolves_names: peering.resolves_names_for(id),
                })
                .collect(),
        },
        dns_domain: region.private_dns_domain(),
        dns_support: vpc.dns_support,
        dns_hostnames: vpc.dns_hostnames,
        dns64_subnets: tables
            .subnets
            .with("vpc-id", id)
            .filter(|subnet| subnet.dns64)
            .map(|subnet| subnet.subnet_id.clone())
            .collect(),
        dhcp_options: dhcp_options.map(|options| told(options, resolver(vpc.cidr))).unwrap_or_default(),
    }
}

/// None of one that is deleted.
fn nat(gateway: &NatGateway, tables: &Tables) -> Option<datapath::NatGateway> {
    let interface = tables.network_interfaces.find(&gateway.interface_id)?;
    Some(datapath::NatGateway {
        nat_gateway_id: gateway.nat_gateway_id.clone(),
        interface_id: gateway.interface_id.clone(),
        mac: interface.mac,
        subnet_id: gateway.subnet_id.clone(),
        addresses: interface.to_desired(),
    })
}

/// What is gone or detached is a blackhole. Prefix lists are written out: what a route of its own leads somewhere, or what
/// is within the VPC, no list leads elsewhere (VPC User Guide, "Route priority and prefix lists").
fn routes(table: &RouteTable, vpc: &Vpc, tables: &Tables) -> datapath::RouteTable {
    let own: BTreeSet<IpNet> = table.routes.iter().filter_map(|route| route.destination.cidr()).collect();
    let local: Vec<IpNet> = local_destinations(vpc).filter_map(|destination| destination.cidr()).collect();
    let mut listed = BTreeSet::new();
    let mut routes = Vec::new();
    for Route { destination, target } in &table.routes {
        let Some(target) = target.desired(tables, &table.vpc_id) else { continue };
        match destination {
            Destination::Cidr(cidr) => routes.push(datapath::Route { destination: *cidr, target }),
            Destination::PrefixList(id) => {
                let inside = |cidr: &IpNet| local.iter().any(|local| local.contains(cidr));
                let led = prefix_list::cidrs(tables, id).filter(|cidr| !own.contains(cidr) && !inside(cidr));
                let led = led.filter(|cidr| listed.insert(*cidr));
                routes.extend(led.map(|destination| datapath::Route { destination, target: target.clone() }));
            }
        }
    }
    datapath::RouteTable { routes }
}

fn entries(acl: &NetworkAcl) -> datapath::NetworkAcl {
    let entries = |egress: bool| {
        let mut entries: Vec<datapath::AclEntry> =
            acl.entries.iter().filter(|entry| entry.egress == egress).filter_map(entry).collect();
        entries.sort_by_key(|entry| entry.rule_number);
        entries
    };
    datapath::NetworkAcl { ingress: entries(false), egress: entries(true) }
}

fn entry(entry: &Entry) -> Option<datapath::AclEntry> {
    Some(datapath::AclEntry {
        rule_number: u16::try_from(entry.rule_number).ok()?,
        cidr: entry.cidr,
        protocol: entry.to_desired()?,
        allow: entry.allow,
    })
}

fn told(options: &DhcpOptions, resolver: Ipv4Addr) -> agent_api::DhcpOptions {
    let values = |wanted: &'static str| {
        let of = options.configurations.iter().filter(move |(key, _)| key == wanted);
        of.flat_map(|(_, values)| values)
    };
    let servers = values("domain-name-servers");
    let address = |value: &String| match value.as_str() {
        dhcp_options::VPC_RESOLVER => Some(resolver.into()),
        other => other.parse().ok(),
    };
    agent_api::DhcpOptions {
        domain_name: values("domain-name").next().cloned(),
        domain_name_servers: servers.filter_map(address).collect(),
        ntp_servers: values("ntp-servers").filter_map(|value| value.parse().ok()).collect(),
        netbios_name_servers: values("netbios-name-servers").filter_map(|value| value.parse().ok()).collect(),
        netbios_node_type: values("netbios-node-type").find_map(|value| value.parse().ok()),
        ipv6_preferred_seconds: values("ipv6-address-preferred-lease-time")
            .find_map(|value| value.parse().ok()),
    }
}
