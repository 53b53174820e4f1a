//! Plain values for tests to start from.

#![allow(clippy::unwrap_used)]

use crate::{
    AclEntry, Address, Interface, NetworkAcl, Protocol, PublicAccess, Route, RouteTable, Subnet, Target,
    Tracking, Vpc,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{Id, Kind};
use std::net::{Ipv4Addr, Ipv6Addr};

const EVERYWHERE: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// An id whose last digits are the number.
pub fn id(kind: Kind, number: u64) -> Id {
    Id::parse(kind, &format!("{}-{number:017x}", kind.prefix())).unwrap()
}

/// 10.0.0.0/16 with a gateway, one subnet that is all of it, and tables and lists that let all through.
pub fn vpc(number: u64) -> Vpc {
    Vpc {
        vpc_id: id(Kind::Vpc, number),
        number: None,
        cidrs: vec!["10.0.0.0/16".parse().unwrap()],
        ipv6_cidrs: Vec::new(),
        subnets: vec![subnet(1, "10.0.0.0/16")],
        internet_gateway: true,
        route_tables: [(id(Kind::RouteTable, 1), to_internet())].into(),
        edge_route_table_id: None,
        network_acls: [(id(Kind::NetworkAcl, 1), open())].into(),
        nat_gateways: Vec::new(),
        peerings: Vec::new(),
    }
}

/// All that is not the VPC's goes to the internet gateway.
pub fn to_internet() -> RouteTable {
    let route = |destination| Route { destination, target: Target::InternetGateway };
    RouteTable { routes: EVERYWHERE.map(route).into() }
}

/// As the default network ACL: everything passes.
pub fn open() -> NetworkAcl {
    let entries: Vec<AclEntry> = [100, 101]
        .into_iter()
        .zip(EVERYWHERE)
        .map(|(rule_number, cidr)| AclEntry { rule_number, cidr, protocol: Protocol::All, allow: true })
        .collect();
    NetworkAcl { ingress: entries.clone(), egress: entries }
}

/// A subnet under the first route table and network ACL.
pub fn subnet(number: u64, cidr: &str) -> Subnet {
    Subnet {
        subnet_id: id(Kind::Subnet, number),
        cidr: Some(cidr.parse().unwrap()),
        ipv6_cidr: None,
        route_table_id: id(Kind::RouteTable, 1),
        network_acl_id: id(Kind::NetworkAcl, 1),
        public_access: PublicAccess::Open,
    }
}

/// In the first VPC's first subnet, at 10.0.0.number.
pub fn interface(number: u64) -> Interface {
    Interface {
        interface_id: id(Kind::NetworkInterface, number),
        vpc_id: id(Kind::Vpc, 1),
        subnet_id: id(Kind::Subnet, 1),
        mac: [2, 0, 0, 0, 0, number as u8],
        addresses: vec![Address { private_ip: Ipv4Addr::new(10, 0, 0, number as u8), public_ip: None }],
        ipv6_addresses: Vec::new(),
        prefixes: Vec::new(),
        groups: Vec::new(),
        source_dest_check: true,
        bandwidth: None,
        network_card: None,
        tracking: Tracking::default(),
        efa: false,
    }
}
