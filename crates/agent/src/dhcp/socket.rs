//! A UDP socket that tells by which interface a datagram came, and sends by the one it is told (`IP_PKTINFO`):
//! many taps share the one socket of their VPC's namespace.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use tokio::io::Interest;

/// More than any DHCP message that fits an Ethernet frame; what is longer is cut off and so malformed.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1500;

pub(crate) struct DhcpSocket {
    socket: tokio::net::UdpSocket,
}

/// Room for the one control message that we send or ask for, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

impl DhcpSocket {
    /// The socket must have `IP_PKTINFO` and be allowed to broadcast.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(DhcpSocket { socket: tokio::net::UdpSocket::from_std(socket)? })
    }

    /// The length of the next datagram and the index of the interface that it came by.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, u32)> {
        self.socket.async_io(Interest::READABLE, || receive(self.socket.as_raw_fd(), buffer)).await
    }

    /// Sends by the interface with that index. Does not wait for room: a reply may be lost like any datagram.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddrV4, from: Ipv4Addr, index: u32) -> io::Result<()> {
        send(self.socket.as_raw_fd(), bytes, to, from, index)
    }
}

fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<(usize, u32)> {
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeros is a valid msghdr.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = size_of::<Control>();
    // SAFETY: the header points to the buffer and the control room with their lengths; both outlive the call.
    let received = unsafe { libc::recvmsg(fd, &raw mut header, 0) };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled in the header; the control messages it tells of are within the room, which is
    // still there, and one of this level and type holds an in_pktinfo.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::IPPROTO_IP && (*message).cmsg_type == libc::IP_PKTINFO {
                let mut info = MaybeUninit::<libc::in_pktinfo>::uninit();
                let data = libc::CMSG_DATA(message);
                std::ptr::copy_nonoverlapping(data, info.as_mut_ptr().cast(), size_of::<libc::in_pktinfo>());
                return Ok((length, info.assume_init().ipi_ifindex.cast_unsigned()));
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    Err(io::Error::other("the socket does not tell by which interface a datagram came"))
}

fn send(fd: RawFd, bytes: &[u8], to: SocketAddrV4, from: Ipv4Addr, index: u32) -> io::Result<()> {
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
        sin_zero: [0; 8],
    };
    let info = libc::in_pktinfo {
        ipi_ifindex: index.cast_signed(),
        ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let info_bytes = size_of::<libc::in_pktinfo>() as u32;
    // SAFETY: all zeros is a valid msghdr.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = (&raw mut address).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE only computes; the room is large enough for one in_pktinfo, so that FIRSTHDR is not null
    // and CMSG_DATA points into it; all that the header points to outlives sendmsg, which does not write to it.
    let sent = unsafe {
        header.msg_controllen = libc::CMSG_SPACE(info_bytes) as usize;
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::IPPROTO_IP;
        (*message).cmsg_type = libc::IP_PKTINFO;
        (*message).cmsg_len = libc::CMSG_LEN(info_bytes) as usize;
        std::ptr::copy_nonoverlapping(
            (&raw const info).cast(),
            libc::CMSG_DATA(message),
            info_bytes as usize,
        );
        libc::sendmsg(fd, &raw const header, 0)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_packet_info() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let on: libc::c_int = 1;
        // SAFETY: the option takes a pointer to an int and its size.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_PKTINFO,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as u32,
            )
        };
        assert_eq!(result, 0);
        socket
    }

    fn local_port(socket: &UdpSocket) -> SocketAddrV4 {
        match socket.local_addr().unwrap() {
            std::net::SocketAddr::V4(address) => address,
            std::net::SocketAddr::V6(_) => panic!(),
        }
    }

    #[tokio::test]
    async fn the_arriving_interface_is_told_and_replies_go_out_by_it() {
        let server = with_packet_info();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
        let server = DhcpSocket::new(server).unwrap();
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let (length, index) = server.receive(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"hello");
        // The loopback interface is the first of any namespace.
        assert_eq!(index, 1);
        server.send(b"and back", local_port(&client), Ipv4Addr::LOCALHOST, index).unwrap();
        let (length, _) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"and back");
        assert!(server.send(b"x", local_port(&client), Ipv4Addr::LOCALHOST, 999_999).is_err());
    }
}
