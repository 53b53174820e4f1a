//! The network of the host: what shall be there, and the trait of what makes it so.
//!
//! # The way of a packet
//!
//! `LinuxNetwork` makes each VPC a router of its own: a network namespace in which every guest's card ends on a tap.
//! There is no bridge: a guest is a host route to its tap, so guests meet only where the router lets them, and the same
//! addresses in two VPCs never meet at all.
//!
//! ```text
//!            ┌─────────────────── namespace of the VPC ────────────────────┐
//!            │ lo: 169.254.169.254 metadata, .253 and base+2 DNS, .123     │
//!            │     time, gateways of subnets                               │
//!  guest A ──┤ tap ─ who? ─┬─ services (DHCP, DNS, metadata, time only)    │
//!            │             │                                               │
//!            │             └─ routes of A's subnet ─ ACLs ─ egress of A's  │
//!            │                groups ─┬─ ingress of B's groups ─ tap ──────┼── guest B
//!            │                        ├─ NAT gateway ══════════════════════┼── its namespace
//!            │                        ├─ peer VPC ═════════════════════════┼── its namespace
//!            │                        ├─ hosts ══ VXLAN ═══════════════════┼── the VPC's namespace on another host
//!            │                        └─ public for private, 1:1 ──────────┤ igw
//!            └─────────────────────────────────────────────────────────────┘  ║ pair
//!            ┌──────────────────────── the host's own namespace ───────────┐  ║
//!  internet ─┤ uplink ─── masquerade of the public pool ─── route a /32 ───┼──╝
//!            └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! 1. *Who.* Before anything else, save that nobody sends too many fragments (`fragments`), a packet from a tap must bear the MAC and an address of the interface that the tap is
//!    for, else it is dropped; only an interface whose source is not checked may send for others. It then gets a mark:
//!    the interface's number, which is the tap's index, and the number of its subnet (`vpc`). ARP is answered for
//!    addresses that are there, and for nothing else.
//! 2. *Services.* What is for the router itself passes no group and no ACL: DHCP, DNS, metadata and time, all else is
//!    dropped. The metadata service reads the mark from its connection, so nobody can ask as another.
//! 3. *Routes.* The subnet's route table decides by the longest prefix: within the VPC to whoever has the address, unless
//!    a more specific route leads to an instance that forwards; to the internet gateway; to a NAT gateway, which is one
//!    more interface of its subnet, in a namespace of its own (`nat`); to a peer VPC, whose router takes from us only
//!    what is ours, and only for its own. What no route takes is dropped without a word.
//! 4. *ACLs.* At the edges of the two subnets, for every packet, without memory (`network_acl`).
//! 5. *Groups.* Packets of tracked flows pass; the first of a flow must be allowed by the egress rules of the groups it
//!    comes from and by the ingress rules of those it goes to (`security_group`), and an interface has only so many
//!    (`flows`); some end when the rule goes that let them begin (`untracked`). What leaves by the gateway passes the
//!    first only, what comes by it the second only, with the true client as its source;
//!    between peers, and between hosts, each asks its own.
//! 6. *Gateway.* Addresses with a public one, and no others, pass the pair to the host, where private is exchanged for
//!    public (`render`, `gateway`), unless public access to their subnet is blocked (`public_access`). One guest reaches
//!    another's public address by going out and in again, so that groups see public addresses, as in EC2.
//!    Where the gateway has a route table of its own, what comes is led by that one (`edge`).
//! 7. *Host.* It routes public addresses to their VPC, and lends its own to guests that speak to the outside. It speaks
//!    to guests by their public addresses only, and hears nothing but answers from them: what it serves to its network
//!    it does not serve to guests, save the cloud's own API where that listens to more than the host.
//!
//! IPv6 goes the same way by sets and tables of its own; it is never translated but by the host, where nobody outside could
//! answer, and by a NAT gateway, which leads 64:ff9b::/96 to who has IPv4 alone (`nat`, `translation`). Each tap's router
//! has the one address on the link, which only its own guest can speak to: what neighbours tell each other ends there. An
//! interface without an address of IPv6 is not heard at all.
//!
//! An interface on another host is one hop more: its router there continues with the mark that ours began with
//! (`hosts`).
//!
//! Of a flow that is known by its first packets, the others go from tap to tap, or to and from the gateway, past all of
//! that: once a second, and after each change, one goes the long way again (`shortcut`).
//!
//! On either way, what a guest sends or is sent waits where it is more than its interface may carry (`shape`).
//!
//! The rules are text from pure functions (`render`), loaded so that a packet meets all of them or all of those before
//! (`table`); addresses, routes and neighbours are values whose difference to the kernel's is carried out (`kernel`). What
//! is not in the plan is unknown to the filter and drops. Links outlive the daemon; a new one finds them by their names.
//!
//! What somebody else takes away (a flush of the rules, a route, a link that is set down) the kernel tells, and the plan
//! is applied again at once (`netlink`); what it does not tell of is looked at now and then.

mod diagnosis;
mod edge;
mod fake;
mod family;
mod flows;
mod fragments;
mod gateway;
mod hosts;
mod index;
mod kernel;
mod linux;
mod namespace;
mod nat;
mod neighbour;
mod netlink;
mod network_acl;
mod nfnetlink;
mod nft;
mod open;
mod public_access;
mod render;
mod router;
mod security_group;
mod services;
mod shape;
mod shortcut;
mod sysctl;
mod table;
mod tap;
mod traffic;
mod translation;
mod untracked;
mod vpc;

pub use diagnosis::Diagnosis;
pub use fake::{FakeNetwork, FakeServices};
pub use linux::{LinuxNetwork, NetOptions};
pub use namespace::Namespace;

use async_trait::async_trait;
use datapath::Plan;
use model::Id;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
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

/// Sockets that were opened inside a VPC, for the services that its guests see.
pub struct ServiceSockets {
    /// On port 80 of 169.254.169.254 and fd00:ec2::254.
    pub metadata: Vec<TcpListener>,
    /// On port 67 of every tap of the VPC, with the arriving interface's index told (`IP_PKTINFO`).
    pub dhcp: UdpSocket,
    /// On port 53 of 169.254.169.253, fd00:ec2::253 and of the VPC's base plus two.
    pub dns_udp: Vec<UdpSocket>,
    pub dns_tcp: Vec<TcpListener>,
    /// On port 123 of 169.254.169.123 and fd00:ec2::123.
    pub time: Vec<UdpSocket>,
    /// None where the kernel has no IPv6.
    pub ipv6: Option<Ipv6Sockets>,
}

/// What guests need of their router before they have an address. Both tell the arriving interface's index
/// (`IPV6_PKTINFO`).
pub struct Ipv6Sockets {
    /// On port 547 of every tap.
    pub dhcp: UdpSocket,
    /// Raw ICMPv6: hears router solicitations, and nothing else.
    pub router: OwnedFd,
}

#[async_trait]
pub trait Network: Send + Sync {
    /// Makes the host's network what the plan says, at once and without a gap for what stays; nothing else on the
    /// host is touched. Idempotent: also the way to be whole again after a restart or somebody's flush.
    async fn apply(&self, plan: Plan) -> Result<(), NetError>;

    /// Waits until somebody else may have taken away what `apply` made, so that it is time to apply again. Soon after
    /// it was, yet not more often than once in a while; now and then for no reason.
    async fn disturbed(&self);

    /// So many queues of the interface's tap, for QEMU to be handed. The tap is made by `apply`.
    async fn open_tap(&self, interface_id: &Id, queues: usize) -> Result<Vec<OwnedFd>, NetError>;

    /// Takes the interface's tap from the machine that has it, for good; `apply` makes another. No error where there is
    /// none.
    async fn close_tap(&self, interface_id: &Id) -> Result<(), NetError>;

    /// Whether the guest behind the interface answers for its address. It is asked a few times within a few
    /// seconds; an error is a fault of the host's network.
    async fn guest_answers(&self, interface_id: &Id) -> Result<bool, NetError>;

    /// Opens the service sockets of a VPC that `apply` has made.
    async fn open_services(&self, vpc_id: &Id) -> Result<ServiceSockets, NetError>;

    /// The interface whose guest made this connection to a service: from the mark that the data path put on it,
    /// never from anything the guest says.
    fn interface_of_connection(&self, vpc_id: &Id, stream: &TcpStream) -> Option<Id>;

    /// The interface behind a tap's index in the VPC's namespace, and an address's owner there.
    fn interface_of_index(&self, vpc_id: &Id, index: u32) -> Option<Id>;

    /// And the index of the tap that is this interface's.
    fn index_of_interface(&self, interface_id: &Id) -> Option<u32>;

    /// The interface that has this private address in the VPC.
    fn interface_of_address(&self, vpc_id: &Id, address: IpAddr) -> Option<Id>;

    /// The MTU that guests may use.
    fn mtu(&self) -> u16;

    /// Removes everything that this driver has made on the host.
    async fn remove_all(&self) -> Result<(), NetError>;
}
