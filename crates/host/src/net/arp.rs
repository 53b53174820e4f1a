//! Asks a guest for its own address, as EC2's instance status check does (RFC 826).
//!
//! The question comes from the subnet's gateway, whose address and MAC the guest has or may as well have: a question
//! from nobody (a probe of RFC 5227) could make a guest that is configuring itself believe that its address is taken.
//! What the kernel knows of the guest is no answer: its neighbours are permanent.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::namespace::Namespace;
use super::vpc::ROUTER_MAC;

/// A question or its answer may be lost where the guest is at the end of what its interface may carry.
const QUESTIONS: u32 = 3;
/// For the answer to each: an emulated guest on a busy host takes its time.
const PATIENCE: Duration = Duration::from_secs(1);
/// A guest may send what it likes; no more frames are looked at for one answer.
const FRAMES_MAX: usize = 1024;

const ETHERTYPE_ARP: u16 = 0x0806;
const FRAME_BYTES: usize = 28;
/// Ethernet and IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// A guest as its VPC's router sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Neighbour {
    /// Of its tap.
    pub index: u32,
    pub mac: [u8; 6],
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
}

/// Whether the guest answers for its address with its MAC.
pub(super) async fn answers(namespace: &Namespace, guest: Neighbour) -> io::Result<bool> {
    let socket = namespace.run(move || open(guest.index)).await?;
    // SAFETY: an owned descriptor is the same until it is dropped, and nobody else closes it.
    let socket = unsafe { AsyncFd::register(socket)? };
    let answer = ask(&socket, &guest).await;
    // The kernel waits for all its processors when such a socket is closed, some milliseconds: not here.
    let socket = socket.into_inner();
    drop(tokio::task::spawn_blocking(move || drop(socket)));
    answer
}

async fn ask(socket: &AsyncFd<OwnedFd>, guest: &Neighbour) -> io::Result<bool> {
    let mut frames = 0;
    for _ in 0..QUESTIONS {
        send(socket, guest)?;
        let deadline = Instant::now() + PATIENCE;
        while frames < FRAMES_MAX {
            let mut frame = [0; FRAME_BYTES];
            let read =
                socket.async_io(Interest::READABLE, |socket| Ok(rustix::io::read(socket, &mut frame)?));
            let Ok(read) = timeout_at(deadline, read).await else { break };
            frames += 1;
            if read? == FRAME_BYTES && is_answer(&frame, guest) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn question(guest: &Neighbour) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[..6].copy_from_slice(&KIND);
    frame[6..8].copy_from_slice(&REQUEST);
    frame[8..14].copy_from_slice(&ROUTER_MAC);
    frame[14..18].copy_from_slice(&guest.gateway.octets());
    frame[24..].copy_from_slice(&guest.address.octets());
    frame
}

fn is_answer(frame: &[u8; FRAME_BYTES], guest: &Neighbour) -> bool {
    frame[..6] == KIND
        && frame[6..8] == REPLY
        && frame[8..14] == guest.mac
        && frame[14..18] == guest.address.octets()
}

/// A socket for ARP by one link, in the calling thread's namespace. What goes out by it is not looped back to it.
fn open(index: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // Of no protocol before it is bound: it hears nothing of other links meanwhile.
    // SAFETY: takes plain numbers, returns a descriptor that is nobody's yet, or -1.
    let socket = unsafe {
        match libc::socket(libc::AF_PACKET, kind, 0) {
            -1 => return Err(io::Error::last_os_error()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    let address = link_address(index);
    // SAFETY: the call takes a pointer to an address and its length; it lives through the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of(&address)) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

fn send(socket: &AsyncFd<OwnedFd>, guest: &Neighbour) -> io::Result<()> {
    let (frame, to) = (question(guest), link_address(guest.index));
    // SAFETY: the call takes pointers to the frame and an address with their lengths; both live through the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            length_of(&to),
        )
    };
    match sent {
        -1 => match io::Error::last_os_error() {
            // A guest that takes nothing in has filled its tap's queue: no answer, and no fault of the host.
            full if matches!(full.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}

/// Everybody on the link, for ARP.
fn link_address(index: u32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ETHERTYPE_ARP.to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    }
}

fn length_of(address: &libc::sockaddr_ll) -> libc::socklen_t {
    size_of_val(address) as libc::socklen_t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_guests_own_word_is_an_answer() {
        let guest = Neighbour {
            index: 16,
            mac: [2, 0, 0, 0, 0, 5],
            address: Ipv4Addr::new(10, 0, 0, 5),
            gateway: Ipv4Addr::new(10, 0, 0, 1),
        };
        let asked = question(&guest);
        assert_eq!(asked[14..18], [10, 0, 0, 1]);
        let mut answer = asked;
        answer[6..8].copy_from_slice(&REPLY);
        answer[8..14].copy_from_slice(&guest.mac);
        answer[14..18].copy_from_slice(&guest.address.octets());
        assert!(is_answer(&answer, &guest) && !is_answer(&asked, &guest));
        for at in [0, 7, 13, 17] {
            let mut other = answer;
            other[at] ^= 1;
            assert!(!is_answer(&other, &guest), "{at}");
        }
    }
}
