//! What a VPC is made of where packets are concerned: one vocabulary for those who say it (`control`), those who pass
//! it on (`agent-api`) and those who carry it out (`host`).
//!
//! Invariants: plain data and pure functions. What users name once and use often (prefix lists, groups' members) is
//! written out here; what is gone is a blackhole here.

#[cfg(any(test, feature = "examples"))]
pub mod examples;
mod interface;
pub mod nat64;
mod network_acl;
mod protocol;
mod route;
mod security_group;
pub mod trace;

pub use interface::{Address, Bandwidth, Elsewhere, Interface, NetworkCard, Tracking};
pub use network_acl::{AclEntry, NetworkAcl};
pub use protocol::Protocol;
pub use route::{Route, RouteTable, Target};
pub use security_group::{Peer, Rule, SecurityGroup};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::Id;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The whole network of a host. What its packets meet is a pure function of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub vpcs: Vec<Vpc>,
    pub interfaces: Vec<Interface>,
    pub groups: Vec<SecurityGroup>,
    /// Interfaces of these VPCs on other hosts.
    pub elsewhere: Vec<Elsewhere>,
    /// Where public addresses are of that the network around the host knows.
    pub public_pools: Vec<PublicPool>,
}

/// A prefix of the network around the host, whose addresses guests have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicPool {
    pub cidr: Ipv4Net,
    /// The host's interface on which it answers for the addresses in use; None where the prefix is routed to the host.
    pub interface: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vpc {
    pub vpc_id: Id,
    /// Tells its packets from other VPCs' between hosts: 24 bits. It stays on one host where None.
    pub number: Option<u32>,
    /// The primary one first: the resolver has its third address.
    pub cidrs: Vec<Ipv4Net>,
    pub ipv6_cidrs: Vec<Ipv6Net>,
    pub subnets: Vec<Subnet>,
    /// Whether one is attached: without one nothing enters the VPC, whatever its routes say.
    pub internet_gateway: bool,
    /// Those that subnets use, and the internet gateway.
    pub route_tables: BTreeMap<Id, RouteTable>,
    /// The internet gateway's: where what enters goes within the VPC.
    #[serde(default)]
    pub edge_route_table_id: Option<Id>,
    /// Those that subnets use.
    pub network_acls: BTreeMap<Id, NetworkAcl>,
    pub nat_gateways: Vec<NatGateway>,
    pub peerings: Vec<Peering>,
}

impl Vpc {
    /// Its own, of both families.
    pub fn ranges(&self) -> impl Iterator<Item = IpNet> {
        let ipv6 = self.ipv6_cidrs.iter().copied().map(IpNet::from);
        self.cidrs.iter().copied().map(IpNet::from).chain(ipv6)
    }

    /// Whether anything goes from it to the outside: by an internet gateway or, of IPv6, an egress-only one.
    pub fn leads_out(&self) -> bool {
        let mut routes = self.route_tables.values().flat_map(|table| &table.routes);
        self.internet_gateway || routes.any(|route| route.target == Target::EgressOnlyInternetGateway)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    pub subnet_id: Id,
    /// None where it is of IPv6 alone.
    pub cidr: Option<Ipv4Net>,
    pub ipv6_cidr: Option<Ipv6Net>,
    pub route_table_id: Id,
    pub network_acl_id: Id,
    #[serde(default)]
    pub public_access: PublicAccess,
}

impl Subnet {
    /// Its own, of both families.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        let ipv4 = self.cidr.map(IpNet::from);
        ipv4.into_iter().chain(self.ipv6_cidr.map(IpNet::from)).map(|net| net.trunc())
    }

    /// The router has its first address of IPv4.
    pub fn router(&self) -> Option<Ipv4Addr> {
        self.cidr?.hosts().next()
    }
}

/// What passes between a subnet and the internet (VPC User Guide, "Block public access to VPCs and subnets").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PublicAccess {
    #[default]
    Open,
    /// What its NAT gateways, and egress-only internet gateways, lead out, and the answers to it.
    Outward,
    Blocked,
}

/// Speaks to others with an address of its own for those whose routes lead to it, and lets only answers back (VPC User
/// Guide, "NAT gateways"). It is in no security group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NatGateway {
    pub nat_gateway_id: Id,
    /// The interface that EC2 keeps for it.
    pub interface_id: Id,
    pub mac: [u8; 6],
    pub subnet_id: Id,
    /// Those of the interface, the primary one first; each carries its own share of connections. A private gateway has
    /// no public ones.
    pub addresses: Vec<Address>,
}

/// An accepted peering connection, as seen from one of its two VPCs. Never a way to a third one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peering {
    pub peering_id: Id,
    pub peer_vpc_id: Id,
    /// Whether public names of the peer lead to private addresses here, as they do there.
    #[serde(default)]
    pub resolves_names: bool,
}
