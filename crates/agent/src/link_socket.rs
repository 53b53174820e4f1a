//! A socket that tells by which interface a datagram came, and sends by the one it is told (`IP_PKTINFO`,
//! `IPV6_PKTINFO`): many taps share the one socket of their VPC's namespace.

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// More than any message to us that fits an Ethernet frame; what is longer is cut off and so malformed.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1500;

pub(crate) struct LinkSocket {
    socket: AsyncFd<OwnedFd>,
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Datagram {
    pub length: usize,
    /// Of the interface that it came by.
    pub index: u32,
    pub from: SocketAddr,
}

impl LinkSocket {
    /// The socket must tell by which interface a datagram came, and not block.
    pub(crate) fn new(socket: impl Into<OwnedFd>) -> io::Result<Self> {
        // SAFETY: an owned descriptor is the same until it is dropped, and nobody else closes it.
        Ok(LinkSocket { socket: unsafe { AsyncFd::register(socket.into())? } })
    }

    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        self.socket.async_io(Interest::READABLE, |socket| receive(socket, buffer)).await
    }

    /// Sends by the interface with that index, from an address of the host's choice where None. Does not wait for
    /// room: a reply may be lost like any datagram.
    pub(crate) fn send(
        &self,
        bytes: &[u8],
        to: SocketAddr,
        from: Option<Ipv4Addr>,
        index: u32,
    ) -> io::Result<()> {
        let (fd, parts) = (self.socket.as_raw_fd(), [IoSlice::new(bytes)]);
        let flags = MsgFlags::MSG_DONTWAIT;
        match to {
            SocketAddr::V4(to) => {
                let from = from.unwrap_or(Ipv4Addr::UNSPECIFIED);
                let info = libc::in_pktinfo {
                    ipi_ifindex: index.cast_signed(),
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let by = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(fd, &parts, &by, flags, Some(&SockaddrIn::from(to)))?
            }
            SocketAddr::V6(to) => {
                let anything = libc::in6_addr { s6_addr: Ipv6Addr::UNSPECIFIED.octets() };
                let info = libc::in6_pktinfo { ipi6_addr: anything, ipi6_ifindex: index };
                let by = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(fd, &parts, &by, flags, Some(&SockaddrIn6::from(to)))?
            }
        };
        Ok(())
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let index = message.cmsgs()?.find_map(|told| match told {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(info.ipi_ifindex.cast_unsigned()),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info.ipi6_ifindex),
        _ => None,
    });
    let from = message.address.as_ref().and_then(|from| {
        let v4 = from.as_sockaddr_in().map(|from| SocketAddr::new(IpAddr::V4(from.ip()), from.port()));
        v4.or_else(|| from.as_sockaddr_in6().map(|from| SocketAddr::new(IpAddr::V6(from.ip()), from.port())))
    });
    let (Some(index), Some(from)) = (index, from) else {
        return Err(io::Error::other("the socket does not tell by which interface a datagram came"));
    };
    Ok(Datagram { length: message.bytes, index, from })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{setsockopt, sockopt};
    use std::net::UdpSocket;

    #[tokio::test]
    async fn the_arriving_interface_is_told_and_replies_go_out_by_it() {
        for own in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(own).unwrap();
            match own.starts_with('[') {
                true => setsockopt(&server, sockopt::Ipv6RecvPacketInfo, &true).unwrap(),
                false => setsockopt(&server, sockopt::Ipv4PacketInfo, &true).unwrap(),
            }
            server.set_nonblocking(true).unwrap();
            let client = UdpSocket::bind(own).unwrap();
            client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
            let server = LinkSocket::new(server).unwrap();
            let mut buffer = [0; DATAGRAM_BYTES_MAX];
            let datagram = server.receive(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..datagram.length], b"hello");
            // The loopback interface is the first of any namespace.
            assert_eq!((datagram.index, datagram.from), (1, client.local_addr().unwrap()));
            server.send(b"and back", datagram.from, None, datagram.index).unwrap();
            let (length, _) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"and back");
            assert!(server.send(b"x", datagram.from, None, 999_999).is_err());
        }
    }
}
