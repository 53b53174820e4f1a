//! The network of the host: what shall be there, and the trait of what makes it so.

mod fake;
mod gateway;
mod kernel;
mod linux;
mod namespace;
mod nfnetlink;
mod nft;
mod render;
mod router;
mod security_group;
mod services;
mod sysctl;
mod tap;
mod vpc;

pub use fake::{FakeNetwork, FakeServices};
pub use linux::{Diagnosis, LinuxNetwork, NetOptions};
pub use namespace::Namespace;

use async_trait::async_trait;
use ipnet::{Ipv4Net, Ipv6Net};
use model::Id;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("{0} is not on this host's network")]
    NotFound(Id),
    /// The message is for the user.
    #[error("{0}")]
    Failed(String),
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
}

/// Says what failed beside why.
fn io_failed(what: impl Into<String>) -> impl Fn(std::io::Error) -> NetError {
    let what = what.into();
    move |source| NetError::Io { what: what.clone(), source }
}

/// The whole network of the host. The data path is a pure function of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetPlan {
    pub vpcs: Vec<VpcPlan>,
    pub interfaces: Vec<InterfacePlan>,
    pub groups: Vec<GroupPlan>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct VpcPlan {
    pub vpc_id: Id,
    pub cidrs: Vec<Ipv4Net>,
    /// The gateway answers on each subnet's first address, the resolver on the VPC's second.
    pub subnets: Vec<Ipv4Net>,
    /// Without one nothing leaves the VPC.
    pub internet_gateway: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InterfacePlan {
    pub interface_id: Id,
    pub vpc_id: Id,
    pub mac: [u8; 6],
    pub private_ip: Ipv4Addr,
    /// Translated one to one at the internet gateway.
    pub public_ip: Option<Ipv4Addr>,
    pub groups: Vec<Id>,
    pub source_dest_check: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GroupPlan {
    pub group_id: Id,
    pub vpc_id: Id,
    pub ingress: Vec<RulePlan>,
    pub egress: Vec<RulePlan>,
    pub members: BTreeSet<Ipv4Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RulePlan {
    pub protocol: ProtocolPlan,
    pub peer: PeerPlan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProtocolPlan {
    All,
    Tcp { from: u16, to: u16 },
    Udp { from: u16, to: u16 },
    Icmp { kind: Option<u8>, code: Option<u8> },
    Icmpv6 { kind: Option<u8>, code: Option<u8> },
    Number(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerPlan {
    Cidr(Ipv4Net),
    Cidr6(Ipv6Net),
    Group(Id),
}

/// Sockets that were opened inside a VPC, for the services that its guests see.
pub struct ServiceSockets {
    /// On 169.254.169.254:80.
    pub metadata: TcpListener,
    /// On port 67 of every tap of the VPC, with the arriving interface's index told (`IP_PKTINFO`).
    pub dhcp: UdpSocket,
    /// On port 53 of 169.254.169.253 and of the VPC's base plus two.
    pub dns_udp: Vec<UdpSocket>,
    pub dns_tcp: Vec<TcpListener>,
}

#[async_trait]
pub trait Network: Send + Sync {
    /// Makes the host's network what the plan says, at once and without a gap for what stays; nothing else on the
    /// host is touched. Idempotent: also the way to be whole again after a restart or somebody's flush.
    async fn apply(&self, plan: NetPlan) -> Result<(), NetError>;

    /// A queue of the interface's tap, for QEMU to be handed. The tap is made by `apply`.
    async fn open_tap(&self, interface_id: &Id) -> Result<OwnedFd, NetError>;

    /// Opens the service sockets of a VPC that `apply` has made.
    async fn open_services(&self, vpc_id: &Id) -> Result<ServiceSockets, NetError>;

    /// The interface whose guest made this connection to a service: from the mark that the data path put on it,
    /// never from anything the guest says.
    fn interface_of_connection(&self, vpc_id: &Id, stream: &TcpStream) -> Option<Id>;

    /// The interface behind a tap's index in the VPC's namespace, and an address's owner there.
    fn interface_of_index(&self, vpc_id: &Id, index: u32) -> Option<Id>;

    /// The interface that has this private address in the VPC.
    fn interface_of_address(&self, vpc_id: &Id, address: IpAddr) -> Option<Id>;

    /// The MTU that guests may use.
    fn mtu(&self) -> u16;

    /// Removes everything that this driver has made on the host.
    async fn remove_all(&self) -> Result<(), NetError>;
}
