//! Packets that begin flows, all at once: who gets an answer, and who hears of them.

use crate::cloud::Machine;
use datapath::trace::{Packet, Payload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// Who heard a datagram, and its number.
pub type Heard = (usize, u16);

/// Answers on these ports at each of these addresses, by TCP and UDP, until the process ends; `tell` of what it hears
/// as `who`.
pub async fn answer(machine: &Machine, who: usize, ends: Vec<SocketAddr>, tell: &Sender<Heard>) {
    for at in ends {
        let sockets = move || Ok((TcpListener::bind(at)?, UdpSocket::bind(at)?));
        let (listener, socket) = machine.run(sockets).await.unwrap();
        // Nobody waits to be taken in: a full queue would look like a rule.
        std::thread::spawn(move || while listener.accept().is_ok() {});
        let tell = tell.clone();
        std::thread::spawn(move || {
            let mut number = [0; 2];
            while let Ok((_, from)) = socket.recv_from(&mut number) {
                let _ = tell.send((who, u16::from_be_bytes(number)));
                let _ = socket.send_to(&number, from);
            }
        });
    }
}

/// A link that has just been made begins to carry a moment later.
const AGAIN: Duration = Duration::from_millis(200);

/// How often it is looked for what no socket of a probe tells.
const STEP: Duration = Duration::from_millis(5);

/// Something sent, whose answer is waited for.
pub struct Probe {
    payload: Payload,
    number: u16,
    /// None where it could not even be sent.
    socket: Option<OwnedFd>,
}

/// Sends the first packets of flows, each with a number of its own, which is its source port too.
pub async fn send(machine: &Machine, packets: Vec<(u16, Packet)>) -> Vec<Probe> {
    let probe = |(number, packet): (u16, Packet)| Probe {
        payload: packet.payload,
        number,
        socket: begin(number, packet).ok(),
    };
    machine.run(move || Ok(packets.into_iter().map(probe).collect())).await.unwrap()
}

fn begin(number: u16, packet: Packet) -> io::Result<OwnedFd> {
    let family = if packet.source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol, ports) = match packet.payload {
        Payload::Tcp { source_port, destination_port } => {
            (SocketType::STREAM, ipproto::TCP, (source_port, destination_port))
        }
        Payload::Udp { source_port, destination_port } => {
            (SocketType::DGRAM, ipproto::UDP, (source_port, destination_port))
        }
        Payload::Icmp { .. } => (SocketType::RAW, ipproto::ICMP, (0, 0)),
        Payload::Icmpv6 { .. } => (SocketType::RAW, ipproto::ICMPV6, (0, 0)),
        Payload::Other(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let socket = rustix::net::socket(family, kind, Some(protocol))?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::new(packet.source, ports.0))?;
    match rustix::net::connect(&socket, &SocketAddr::new(packet.destination, ports.1)) {
        Err(rustix::io::Errno::INPROGRESS) => return Ok(socket),
        connected => connected?,
    }
    say(&socket, packet.payload, number)?;
    Ok(socket)
}

/// What the kernel does by itself for a connection, again and again.
fn say(socket: &OwnedFd, payload: Payload, number: u16) -> io::Result<()> {
    let message = match payload {
        Payload::Tcp { .. } => return Ok(()),
        Payload::Icmp { kind, code } | Payload::Icmpv6 { kind, code } => control(kind, code, number),
        Payload::Udp { .. } | Payload::Other(_) => number.to_be_bytes().to_vec(),
    };
    rustix::net::send(socket, &message, SendFlags::empty())?;
    Ok(())
}

/// A control message of IPv4 with its checksum; over that of IPv6 the kernel writes.
fn control(kind: u8, code: u8, number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    // With room for the times of a timestamp message.
    let mut message = [&[kind, code, 0, 0, high, low, 0, 1][..], &[0; 12]].concat();
    let sum = crate::wire::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

impl Probe {
    /// Whether what the socket has to say is the answer.
    fn is_answered(&self, socket: &OwnedFd, events: PollFlags) -> bool {
        match self.payload {
            Payload::Tcp { .. } => {
                events.contains(PollFlags::OUT) && matches!(sockopt::socket_error(socket), Ok(Ok(())))
            }
            Payload::Icmp { kind, .. } => self.hears(socket, 20, if kind == 8 { 0 } else { kind + 1 }),
            Payload::Icmpv6 { kind, .. } => self.hears(socket, 0, kind + 1),
            Payload::Udp { .. } | Payload::Other(_) => {
                rustix::net::recv(socket, &mut [0; 2], RecvFlags::empty()).is_ok()
            }
        }
    }

    /// Whether a control message of the type, after a header of that length, is about this number.
    fn hears(&self, socket: &OwnedFd, header: usize, kind: u8) -> bool {
        let mut packet = [0; 200];
        while let Ok((length, _)) = rustix::net::recv(socket, &mut packet, RecvFlags::empty()) {
            let message = packet.get(header..length).unwrap_or_default();
            if message.len() >= 6 && message[0] == kind && message[4..6] == self.number.to_be_bytes() {
                return true;
            }
        }
        false
    }
}

/// Which of the probes are answered: it is waited until all that should be are, and something more is so, for so long at
/// most, and then a little longer for those that should not. Until then what is not answered is said again now and then.
pub fn answered(
    probes: &[Probe],
    expected: &[bool],
    more: &mut dyn FnMut() -> bool,
    patience: Duration,
    soon: Duration,
) -> Vec<bool> {
    let mut came: Vec<Option<bool>> = vec![None; probes.len()];
    let mut deadline = Instant::now() + patience;
    let mut again = Instant::now() + AGAIN;
    let mut is_complete = false;
    loop {
        let mut pairs = came.iter().zip(expected);
        if !is_complete && pairs.all(|(came, expected)| !expected || *came == Some(true)) && more() {
            (is_complete, deadline) = (true, Instant::now() + soon);
        }
        let open = (0..).zip(probes).filter(|(at, _)| came[*at].is_none());
        let open: Vec<(usize, &OwnedFd)> =
            open.filter_map(|(at, probe)| Some((at, probe.socket.as_ref()?))).collect();
        let is_tcp = |at: usize| matches!(probes[at].payload, Payload::Tcp { .. });
        let wanted = |at| if is_tcp(at) { PollFlags::OUT } else { PollFlags::IN };
        let mut ready: Vec<PollFd> =
            open.iter().map(|(at, socket)| PollFd::from_borrowed_fd(socket.as_fd(), wanted(*at))).collect();
        let now = Instant::now();
        if now >= deadline {
            return came.into_iter().map(|came| came == Some(true)).collect();
        }
        if now >= again && !is_complete {
            again = now + AGAIN;
            for (at, socket) in &open {
                let _ = say(socket, probes[*at].payload, probes[*at].number);
            }
        }
        let left = deadline.saturating_duration_since(now).min(STEP);
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        poll(&mut ready, Some(&left)).unwrap();
        let events: Vec<PollFlags> = ready.iter().map(PollFd::revents).collect();
        for ((at, socket), events) in open.into_iter().zip(events).filter(|(_, events)| !events.is_empty()) {
            let is_answered = probes[at].is_answered(socket, events);
            // A connection has one outcome.
            came[at] = (is_answered || is_tcp(at)).then_some(is_answered);
        }
    }
}
