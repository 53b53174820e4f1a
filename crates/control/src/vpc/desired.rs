//! What hosts are told of a VPC: a pure function of the records.

use super::Vpc;
use crate::dhcp_options::DhcpOptions;
use crate::engine::Tables;
use crate::network_acl::{Entry, NetworkAcl};
use crate::route_table::{Route, RouteTable, Target};
use crate::subnet::Subnet;
use model::{Id, Region};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Revision;

pub fn desired(vpc: &Vpc, tables: &Tables, region: &Region, generation: Revision) -> agent_api::Vpc {
    let id = vpc.vpc_id.as_str();
    let route_tables: Vec<&Arc<RouteTable>> = tables.route_tables.with("vpc-id", id).collect();
    let network_acls: Vec<&Arc<NetworkAcl>> = tables.network_acls.with("vpc-id", id).collect();
    let subnet = |subnet: &Arc<Subnet>| {
        let main = route_tables.iter().find(|table| table.main_association_id.is_some())?;
        let is_its = |acl: &&&Arc<NetworkAcl>| acl.associations.iter().any(|(_, id)| *id == subnet.subnet_id);
        Some(datapath::Subnet {
            subnet_id: subnet.subnet_id.clone(),
            cidr: subnet.cidr,
            ipv6_cidr: subnet.ipv6.as_ref().map(|of| of.cidr),
            route_table_id: main.route_table_id.clone(),
            network_acl_id: network_acls.iter().find(is_its)?.network_acl_id.clone(),
        })
    };
    let internet_gateway = tables.internet_gateways.with("attachment.vpc-id", id).next();
    let internet_gateway = internet_gateway.map(|gateway| &gateway.internet_gateway_id);
    let dhcp_options = vpc.dhcp_options_id.as_ref().and_then(|id| tables.dhcp_options.find(id));
    agent_api::Vpc {
        generation,
        network: datapath::Vpc {
            vpc_id: vpc.vpc_id.clone(),
            cidrs: vpc.cidrs().map(|(_, cidr)| cidr).collect(),
            ipv6_cidrs: vpc.ipv6_cidrs().collect(),
            subnets: tables.subnets.with("vpc-id", id).filter_map(subnet).collect(),
            internet_gateway: internet_gateway.is_some(),
            route_tables: route_tables
                .iter()
                .map(|table| (table.route_table_id.clone(), routes(table, internet_gateway)))
                .collect::<BTreeMap<_, _>>(),
            network_acls: network_acls
                .iter()
                .map(|acl| (acl.network_acl_id.clone(), entries(acl)))
                .collect::<BTreeMap<_, _>>(),
            nat_gateways: Vec::new(),
            peerings: Vec::new(),
        },
        dns_domain: region.private_dns_domain(),
        dns_support: vpc.dns_support,
        dns_hostnames: vpc.dns_hostnames,
        dhcp_options: dhcp_options.map(|options| told(options)).unwrap_or_default(),
    }
}

/// What is gone or detached is a blackhole.
fn routes(table: &RouteTable, internet_gateway: Option<&Id>) -> datapath::RouteTable {
    let route = |route: &Route| {
        let target = match &route.target {
            Target::Local => return None,
            Target::InternetGateway(id) if internet_gateway == Some(id) => datapath::Target::InternetGateway,
            Target::InternetGateway(_) => datapath::Target::Blackhole,
        };
        Some(datapath::Route { destination: route.destination.into(), target })
    };
    datapath::RouteTable { routes: table.routes.iter().filter_map(route).collect() }
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
        protocol: match entry.protocol.as_str() {
            "-1" => datapath::Protocol::All,
            number => datapath::Protocol::Number(number.parse().ok()?),
        },
        allow: entry.allow,
    })
}

fn told(options: &DhcpOptions) -> agent_api::DhcpOptions {
    let values = |wanted: &'static str| {
        let of = options.configurations.iter().filter(move |(key, _)| key == wanted);
        of.flat_map(|(_, values)| values)
    };
    agent_api::DhcpOptions {
        domain_name: values("domain-name").next().cloned(),
        // `AmazonProvidedDNS` is no address: where it stands alone, there is none.
        domain_name_servers: values("domain-name-servers").filter_map(|value| value.parse().ok()).collect(),
        ntp_servers: values("ntp-servers").filter_map(|value| value.parse().ok()).collect(),
        netbios_name_servers: values("netbios-name-servers").filter_map(|value| value.parse().ok()).collect(),
        netbios_node_type: values("netbios-node-type").find_map(|value| value.parse().ok()),
    }
}
