//! The sockets on which a VPC's guests find metadata, DHCP, DNS, the time and, for IPv6, their router.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use super::vpc::{METADATA, METADATA6, RESOLVER6, TIME, TIME6};
use super::{Ipv6Sockets, ServiceSockets, sysctl};

const METADATA_PORT: u16 = 80;
const DHCP_PORT: u16 = 67;
const DHCP6_PORT: u16 = 547;
const DNS_PORT: u16 = 53;
const TIME_PORT: u16 = 123;

/// ICMPv6's router solicitation (RFC 4861, 4.1).
const ROUTER_SOLICITATION: usize = 133;
/// `ICMP6_FILTER` of `linux/icmpv6.h`: a bit for each type that shall not come.
const ICMP6_FILTER: libc::c_int = 1;
/// What is of the link's own bears it, so that it can't come from elsewhere (RFC 4861, 6.1).
const HOPS_OF_LINK: libc::c_int = 255;

/// Opens them in the calling thread's namespace.
pub(super) fn open(resolvers: &[Ipv4Addr]) -> io::Result<ServiceSockets> {
    let has_ipv6 = sysctl::has_ipv6();
    let both = |v4: Ipv4Addr, v6: Ipv6Addr| -> Vec<IpAddr> {
        std::iter::once(IpAddr::V4(v4)).chain(has_ipv6.then_some(IpAddr::V6(v6))).collect()
    };
    let resolvers: Vec<IpAddr> =
        resolvers.iter().copied().map(IpAddr::V4).chain(has_ipv6.then_some(RESOLVER6.into())).collect();
    let sockets = ServiceSockets {
        metadata: tcp(&both(METADATA, METADATA6), METADATA_PORT)?,
        dhcp: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DHCP_PORT))?,
        dns_udp: udp(&resolvers, DNS_PORT)?,
        dns_tcp: tcp(&resolvers, DNS_PORT)?,
        time: udp(&both(TIME, TIME6), TIME_PORT)?,
        ipv6: if has_ipv6 { Some(open_ipv6()?) } else { None },
    };
    prepare(&sockets)?;
    Ok(sockets)
}

fn tcp(addresses: &[IpAddr], port: u16) -> io::Result<Vec<TcpListener>> {
    addresses.iter().map(|address| TcpListener::bind((*address, port))).collect()
}

fn udp(addresses: &[IpAddr], port: u16) -> io::Result<Vec<UdpSocket>> {
    addresses.iter().map(|address| UdpSocket::bind((*address, port))).collect()
}

fn open_ipv6() -> io::Result<Ipv6Sockets> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let router = socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6))?;
    let mut filter = [u32::MAX; 8];
    filter[ROUTER_SOLICITATION / 32] &= !(1 << (ROUTER_SOLICITATION % 32));
    set_option(&router, libc::IPPROTO_ICMPV6, ICMP6_FILTER, filter)?;
    set_option(&router, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, HOPS_OF_LINK)?;
    set_option(&router, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    // IPv4's DHCP has a socket and a port of its own.
    let dhcp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, DHCP6_PORT))?;
    dhcp.set_nonblocking(true)?;
    set_option(&dhcp, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    Ok(Ipv6Sockets { dhcp, router })
}

/// What the services expect of their sockets.
pub(super) fn prepare(sockets: &ServiceSockets) -> io::Result<()> {
    let ServiceSockets { metadata, dhcp, dns_udp, dns_tcp, time, ipv6: _ } = sockets;
    for listener in dns_tcp.iter().chain(metadata) {
        listener.set_nonblocking(true)?;
    }
    for socket in dns_udp.iter().chain(time).chain([dhcp]) {
        socket.set_nonblocking(true)?;
    }
    dhcp.set_broadcast(true)?;
    set_option(dhcp, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
}

fn set_option<T: Copy>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the option takes a pointer to a plain value and its size; it lives through the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The mark of the packet that opened the connection (`tcp_fwmark_accept`).
pub(super) fn mark(stream: &TcpStream) -> io::Result<u32> {
    let mut mark: u32 = 0;
    let mut length = size_of_val(&mark) as libc::socklen_t;
    // SAFETY: the option gives an int of the size that is told; both pointers live through the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            (&raw mut mark).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(mark) }
}
