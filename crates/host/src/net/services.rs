//! The sockets on which a VPC's guests find metadata, DHCP, DNS and the time.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use super::ServiceSockets;
use super::vpc::{METADATA, TIME};

const METADATA_PORT: u16 = 80;
const DHCP_PORT: u16 = 67;
const DNS_PORT: u16 = 53;
const TIME_PORT: u16 = 123;

/// Opens them in the calling thread's namespace.
pub(super) fn open(resolvers: &[Ipv4Addr]) -> io::Result<ServiceSockets> {
    let sockets = ServiceSockets {
        metadata: TcpListener::bind((METADATA, METADATA_PORT))?,
        dhcp: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DHCP_PORT))?,
        dns_udp: resolvers.iter().map(|to| UdpSocket::bind((*to, DNS_PORT))).collect::<io::Result<_>>()?,
        time: UdpSocket::bind((TIME, TIME_PORT))?,
        dns_tcp: resolvers.iter().map(|to| TcpListener::bind((*to, DNS_PORT))).collect::<io::Result<_>>()?,
    };
    prepare(&sockets)?;
    Ok(sockets)
}

/// What the services expect of their sockets.
pub(super) fn prepare(sockets: &ServiceSockets) -> io::Result<()> {
    let ServiceSockets { metadata, dhcp, dns_udp, dns_tcp, time } = sockets;
    for listener in dns_tcp.iter().chain([metadata]) {
        listener.set_nonblocking(true)?;
    }
    for socket in dns_udp.iter().chain([dhcp, time]) {
        socket.set_nonblocking(true)?;
    }
    dhcp.set_broadcast(true)?;
    let on: libc::c_int = 1;
    // SAFETY: the option takes a pointer to an int and its size; it lives through the call.
    let result = unsafe {
        libc::setsockopt(
            dhcp.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
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
