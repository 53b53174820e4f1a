//! The sockets on which a VPC's guests find metadata, DHCP and DNS.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use super::ServiceSockets;
use super::vpc::METADATA;

const METADATA_PORT: u16 = 80;
const DHCP_PORT: u16 = 67;
const DNS_PORT: u16 = 53;

/// Opens them in the calling thread's namespace.
pub(super) fn open(resolvers: &[Ipv4Addr]) -> io::Result<ServiceSockets> {
    let metadata = listen(METADATA, METADATA_PORT)?;

    let dhcp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DHCP_PORT))?;
    dhcp.set_broadcast(true)?;
    dhcp.set_nonblocking(true)?;
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
    if result < 0 {
        return Err(io::Error::last_os_error());
    }

    let mut dns_udp = Vec::with_capacity(resolvers.len());
    let mut dns_tcp = Vec::with_capacity(resolvers.len());
    for address in resolvers {
        let socket = UdpSocket::bind((*address, DNS_PORT))?;
        socket.set_nonblocking(true)?;
        dns_udp.push(socket);
        dns_tcp.push(listen(*address, DNS_PORT)?);
    }
    Ok(ServiceSockets { metadata, dhcp, dns_udp, dns_tcp })
}

/// As `TcpListener::bind`, which sets what lets us listen again at once after a restart.
fn listen(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((address, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
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
