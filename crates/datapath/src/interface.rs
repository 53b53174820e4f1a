//! Network interfaces.

use ipnet::IpNet;
use model::Id;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    pub interface_id: Id,
    pub vpc_id: Id,
    pub subnet_id: Id,
    pub mac: [u8; 6],
    /// The primary one, then the secondary ones; none in a subnet of IPv6 alone.
    pub addresses: Vec<Address>,
    pub ipv6_addresses: Vec<Ipv6Addr>,
    /// Delegated to it: their addresses are all its own.
    pub prefixes: Vec<IpNet>,
    /// Nothing passes one that is in none.
    pub groups: Vec<Id>,
    /// It may only send as itself, and is only sent what is for it.
    pub source_dest_check: bool,
    /// Not held to any where None.
    pub bandwidth: Option<Bandwidth>,
    /// Shares its bandwidth with all others that are on the same one.
    #[serde(default)]
    pub network_card: Option<NetworkCard>,
    #[serde(default)]
    pub tracking: Tracking,
    /// It has an Elastic Fabric Adapter beside its Ethernet.
    #[serde(default)]
    pub efa: bool,
}

impl Interface {
    /// The primary private address, its first.
    pub fn primary(&self) -> Option<Address> {
        self.addresses.first().copied()
    }

    /// What is its own, all that it may send from and is sent: its addresses, and its prefixes.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        let ipv4 = self.addresses.iter().map(|address| IpAddr::V4(address.private_ip));
        let ipv6 = self.ipv6_addresses.iter().copied().map(IpAddr::V6);
        ipv4.chain(ipv6).map(IpNet::from).chain(self.prefixes.iter().map(IpNet::trunc))
    }

    pub fn has(&self, address: IpAddr) -> bool {
        self.networks().any(|net| net.contains(&address))
    }

    /// Whether it has a way for IPv6 at all.
    pub fn speaks_ipv6(&self) -> bool {
        self.networks().any(|net| matches!(net, IpNet::V6(_)))
    }
}

/// A private address of an interface, and what it is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub private_ip: Ipv4Addr,
    /// The internet gateway translates one to the other, one to one.
    pub public_ip: Option<Ipv4Addr>,
}

/// Of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkCard {
    pub instance_id: Id,
    pub index: u8,
}

/// What a network card may carry each way, in bits a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// In the long run.
    pub baseline: u64,
    /// For a while, by one that has carried less before.
    pub peak: u64,
}

/// After how many idle seconds a flow is forgotten that an interface began or was begun with, where not when others are
/// (EC2 User Guide, "Connection tracking timeouts").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tracking {
    pub tcp_established: Option<u32>,
    /// Of a question and its answer, or less.
    pub udp: Option<u32>,
    /// Of more.
    pub udp_stream: Option<u32>,
}

/// An interface on another host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// By which hosts reach each other.
    pub host: Ipv4Addr,
    pub interface: Interface,
}
