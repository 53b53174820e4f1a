//! Asks a guest for its own address, as EC2's instance status check does: by ARP (RFC 826) or, where it is of IPv6 alone,
//! by neighbour discovery (RFC 4861).
//!
//! The question comes from the subnet's gateway, whose address and MAC the guest has or may as well have: a question
//! from nobody (a probe of RFC 5227, or of RFC 4862) could make a guest that is configuring itself believe that its address
//! is taken. What the kernel knows of the guest is no answer: its neighbours are permanent.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
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
/// More than an answer of either kind needs.
const FRAME_BYTES_MAX: usize = 128;

/// A guest as its VPC's router sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Neighbour {
    /// Of its tap.
    pub index: u32,
    pub mac: [u8; 6],
    pub question: Question,
}

/// Which address of the guest's is asked for, and who asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Question {
    V4 { address: Ipv4Addr, gateway: Ipv4Addr },
    V6 { address: Ipv6Addr, gateway: Ipv6Addr },
}

impl Neighbour {
    fn question(&self) -> Vec<u8> {
        match self.question {
            Question::V4 { address, gateway } => arp::question(address, gateway),
            Question::V6 { address, gateway } => discovery::question(address, gateway),
        }
    }

    fn is_answer(&self, frame: &[u8]) -> bool {
        match self.question {
            Question::V4 { address, .. } => arp::is_answer(frame, self.mac, address),
            Question::V6 { address, .. } => discovery::is_answer(frame, self.mac, address),
        }
    }

    /// Whom the question is for on its link.
    fn link_address(&self) -> libc::sockaddr_ll {
        let (protocol, [a, b, c, d, e, f]) = match self.question {
            Question::V4 { .. } => (libc::ETH_P_ARP, [0xff; 6]),
            Question::V6 { address, .. } => (libc::ETH_P_IPV6, discovery::group_mac(address)),
        };
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (protocol as u16).to_be(),
            sll_ifindex: self.index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [a, b, c, d, e, f, 0, 0],
        }
    }
}

/// Whether the guest answers for its address with its MAC.
pub(super) async fn answers(namespace: &Namespace, guest: Neighbour) -> io::Result<bool> {
    let socket = namespace.run(move || open(&guest)).await?;
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
            let mut frame = [0; FRAME_BYTES_MAX];
            let read =
                socket.async_io(Interest::READABLE, |socket| Ok(rustix::io::read(socket, &mut frame)?));
            let Ok(read) = timeout_at(deadline, read).await else { break };
            frames += 1;
            if guest.is_answer(&frame[..read?]) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A socket for the question's protocol by one link, in the calling thread's namespace. What goes out by it is not looped
/// back to it.
fn open(guest: &Neighbour) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // Of no protocol before it is bound: it hears nothing of other links meanwhile.
    // SAFETY: takes plain numbers, returns a descriptor that is nobody's yet, or -1.
    let socket = unsafe {
        match libc::socket(libc::AF_PACKET, kind, 0) {
            -1 => return Err(io::Error::last_os_error()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    if let Question::V6 { .. } = guest.question {
        discovery::hear_answers_alone(&socket)?;
    }
    let address = guest.link_address();
    // SAFETY: the call takes a pointer to an address and its length; it lives through the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of(&address)) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

fn send(socket: &AsyncFd<OwnedFd>, guest: &Neighbour) -> io::Result<()> {
    let (frame, to) = (guest.question(), guest.link_address());
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

fn length_of(address: &libc::sockaddr_ll) -> libc::socklen_t {
    size_of_val(address) as libc::socklen_t
}

mod arp {
    use super::ROUTER_MAC;
    use std::net::Ipv4Addr;

    const FRAME_BYTES: usize = 28;
    /// Ethernet and IPv4, and the lengths of their addresses.
    const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
    const REQUEST: [u8; 2] = [0, 1];
    pub(super) const REPLY: [u8; 2] = [0, 2];

    pub(super) fn question(address: Ipv4Addr, gateway: Ipv4Addr) -> Vec<u8> {
        let mut frame = [&KIND[..], &REQUEST, &ROUTER_MAC, &gateway.octets()].concat();
        frame.resize(24, 0);
        frame.extend(address.octets());
        frame
    }

    pub(super) fn is_answer(frame: &[u8], mac: [u8; 6], address: Ipv4Addr) -> bool {
        frame.len() >= FRAME_BYTES
            && frame[..6] == KIND
            && frame[6..8] == REPLY
            && frame[8..14] == mac
            && frame[14..18] == address.octets()
    }
}

mod discovery {
    use super::ROUTER_MAC;
    use std::io;
    use std::net::Ipv6Addr;
    use std::os::fd::{AsRawFd, OwnedFd};

    const ICMPV6: u8 = 58;
    const SOLICITATION: u8 = 135;
    pub(super) const ADVERTISEMENT: u8 = 136;
    /// What comes from the same link: no router has passed it on.
    const HOPS: u8 = 255;
    const HEADER_BYTES: usize = 40;
    const MESSAGE_BYTES: usize = 24;
    const SOURCE_LINK_ADDRESS: u8 = 1;
    const TARGET_LINK_ADDRESS: u8 = 2;
    /// In units of eight bytes.
    const OPTION_LENGTH: u8 = 1;

    /// The solicited-node address (RFC 4291, 2.7.1).
    fn group(address: Ipv6Addr) -> Ipv6Addr {
        let [.., d, e, f] = address.octets();
        Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, d, e, f])
    }

    /// And how it is reached on the link (RFC 2464, 7).
    pub(super) fn group_mac(address: Ipv6Addr) -> [u8; 6] {
        let [.., d, e, f] = address.octets();
        [0x33, 0x33, 0xff, d, e, f]
    }

    pub(super) fn question(address: Ipv6Addr, gateway: Ipv6Addr) -> Vec<u8> {
        let to = group(address);
        let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        message.extend(address.octets());
        message.extend([SOURCE_LINK_ADDRESS, OPTION_LENGTH]);
        message.extend(ROUTER_MAC);
        let length = message.len() as u16;
        let sum = checksum(
            &[&gateway.octets(), &to.octets(), &[0, 0], &length.to_be_bytes(), &[0, 0, 0, ICMPV6]],
            &message,
        );
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([ICMPV6, HOPS]);
        packet.extend(gateway.octets());
        packet.extend(to.octets());
        packet.extend(message);
        packet
    }

    /// Over the pseudo header (RFC 8200, 8.1) and the message, all of even lengths.
    fn checksum(pseudo_header: &[&[u8]], message: &[u8]) -> u16 {
        let bytes = [&pseudo_header.concat(), message].concat();
        let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        !((folded & 0xffff) + (folded >> 16)) as u16
    }

    /// A guest may leave its link address out where it is the one who answers: then nobody can tell whose word it is, and
    /// it is none.
    pub(super) fn is_answer(frame: &[u8], mac: [u8; 6], address: Ipv6Addr) -> bool {
        let Some((header, message)) = frame.split_at_checked(HEADER_BYTES) else { return false };
        let Some((message, options)) = message.split_at_checked(MESSAGE_BYTES) else { return false };
        let told = [&[TARGET_LINK_ADDRESS, OPTION_LENGTH][..], &mac].concat();
        header[6..8] == [ICMPV6, HOPS]
            && message[0] == ADVERTISEMENT
            && message[8..] == address.octets()
            && options.starts_with(&told)
    }

    /// Has the kernel drop all other packets of IPv6, of which a guest may send many: they are no answers to look at.
    pub(super) fn hear_answers_alone(socket: &OwnedFd) -> io::Result<()> {
        let load = |offset: usize| step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, offset as u32);
        // Else on to the last step.
        let is =
            |value: u8, to_last: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to_last, value.into());
        let end = |bytes: u32| step(libc::BPF_RET | libc::BPF_K, 0, bytes);
        let mut steps =
            [load(6), is(ICMPV6, 3), load(HEADER_BYTES), is(ADVERTISEMENT, 1), end(u32::MAX), end(0)];
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: the call takes a pointer to the program and its length; the kernel copies both before it returns.
        let attached = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_val(&program) as libc::socklen_t,
            )
        };
        if attached < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn step(code: u32, otherwise: u8, value: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: 0, jf: otherwise, k: value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];

    fn guest(question: Question) -> Neighbour {
        Neighbour { index: 16, mac: MAC, question }
    }

    /// Whether every changed byte of those makes it no answer.
    fn all_matter(guest: &Neighbour, answer: &[u8], at: &[usize]) -> bool {
        at.iter().all(|at| {
            let mut other = answer.to_vec();
            other[*at] ^= 1;
            !guest.is_answer(&other)
        })
    }

    #[test]
    fn only_the_guests_own_word_is_an_answer() {
        let address = Ipv4Addr::new(10, 0, 0, 5);
        let guest = guest(Question::V4 { address, gateway: Ipv4Addr::new(10, 0, 0, 1) });
        let asked = guest.question();
        assert_eq!(asked[14..18], [10, 0, 0, 1]);
        let mut answer = asked.clone();
        answer[6..8].copy_from_slice(&arp::REPLY);
        answer[8..14].copy_from_slice(&MAC);
        answer[14..18].copy_from_slice(&address.octets());
        assert!(guest.is_answer(&answer) && !guest.is_answer(&asked));
        assert!(!guest.is_answer(&answer[..27]));
        assert!(all_matter(&guest, &answer, &[0, 7, 13, 17]));
    }

    #[test]
    fn so_it_is_with_ipv6() {
        let (address, gateway): (Ipv6Addr, Ipv6Addr) =
            ("fd12:3456:7800::a0b:c0d".parse().unwrap(), "fe80::fc63:6dff:fe6c:1".parse().unwrap());
        let guest = guest(Question::V6 { address, gateway });
        assert_eq!(guest.link_address().sll_addr[..6], [0x33, 0x33, 0xff, 0x0b, 0x0c, 0x0d]);
        let asked = guest.question();
        assert_eq!(asked[24..40], "ff02::1:ff0b:c0d".parse::<Ipv6Addr>().unwrap().octets());
        let mut answer = asked.clone();
        answer[40] = discovery::ADVERTISEMENT;
        answer[64] = 2;
        answer[66..].copy_from_slice(&MAC);
        assert!(guest.is_answer(&answer) && !guest.is_answer(&asked));
        assert!(all_matter(&guest, &answer, &[6, 7, 40, 63, 64, 71]));
        assert!((0..answer.len()).all(|length| !guest.is_answer(&answer[..length])));
    }
}
