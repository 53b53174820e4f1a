//! Frames that a guest's card sends and takes, made by hand.

use super::cloud::Machine;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

pub const ROUTER: [u8; 6] = [0xfe, b'c', b'm', b'l', 0, 1];
const ETHERNET: usize = 14;
const IP: usize = 20;
const TCP: usize = 20;
const UDP: usize = 8;
/// Of `virtio_net_hdr`.
const VIRTIO: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
const SEGMENTS_OF_TCP4: u8 = 1;
/// What a card hands over at once where the kernel cuts it up for the wire (TSO).
const SEGMENT: usize = 60_000;
const MSS: u16 = 8961 - 12;

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

thread_local! {
    /// Zeroed once only, so that it is no part of what is measured.
    static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; 66_000]);
}

#[derive(Clone)]
pub struct Card {
    pub tap: Arc<OwnedFd>,
    mac: [u8; 6],
    address: Ipv4Addr,
    /// By which others know it.
    known_as: Ipv4Addr,
    next_hop: [u8; 6],
}

impl Card {
    pub fn new(tap: OwnedFd, mac: [u8; 6], address: Ipv4Addr, next_hop: [u8; 6]) -> Card {
        // As QEMU does for a guest whose driver takes them: frames may come uncut and without checksums.
        const OFFLOADS: libc::c_ulong = 1 | 2 | 4; // TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6
        let set = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, OFFLOADS) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        Card { tap: Arc::new(tap), mac, address, known_as: address, next_hop }
    }

    pub fn known_as(self, known_as: Ipv4Addr) -> Card {
        Card { known_as, ..self }
    }

    /// Sends until the other hears: a tap and a bridge's port begin to deliver a moment after they are up.
    pub fn settle(&self, to: &Card) {
        for (from, to) in [(self, to), (to, self)] {
            let frame = from.datagram(to, 9, 9, b"settle");
            for attempt in 0.. {
                rustix::io::write(&*from.tap, &frame).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                if to.take_if_there() {
                    break;
                }
                assert!(attempt < 200, "nothing arrives");
            }
        }
        std::thread::sleep(Duration::from_millis(50));
        while self.take_if_there() || to.take_if_there() {}
    }

    pub fn datagram(&self, to: &Card, from_port: u16, to_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.headers(to, 17, UDP + payload.len());
        for field in [from_port, to_port, (UDP + payload.len()) as u16, 0] {
            frame.extend(field.to_be_bytes());
        }
        frame.extend(payload);
        frame
    }

    fn segment(&self, to: &Card, ports: [u16; 2], numbers: [u32; 2], flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = self.headers(to, 6, TCP + payload);
        // Not summed: the card's work.
        frame[0] = NEEDS_CHECKSUM;
        if payload > usize::from(MSS) {
            frame[1] = SEGMENTS_OF_TCP4;
            frame[2..4].copy_from_slice(&((ETHERNET + IP + TCP) as u16).to_le_bytes());
            frame[4..6].copy_from_slice(&MSS.to_le_bytes());
        }
        frame[6..8].copy_from_slice(&((ETHERNET + IP) as u16).to_le_bytes());
        frame[8..10].copy_from_slice(&16u16.to_le_bytes());
        ports.iter().for_each(|port| frame.extend(port.to_be_bytes()));
        numbers.iter().for_each(|number| frame.extend(number.to_be_bytes()));
        frame.extend([5 << 4, flags, 0xff, 0xff]);
        // The sum of the pseudo header, to which the card adds the rest.
        let mut pseudo = [self.address.octets(), to.known_as.octets()].concat();
        pseudo.extend([0, 6]);
        pseudo.extend(((TCP + payload) as u16).to_be_bytes());
        frame.extend((!checksum(&pseudo)).to_be_bytes());
        frame.extend([0, 0]);
        frame.resize(frame.len() + payload, 0);
        frame
    }

    fn headers(&self, to: &Card, protocol: u8, length: usize) -> Vec<u8> {
        let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header[2..4].copy_from_slice(&((IP + length) as u16).to_be_bytes());
        header[12..16].copy_from_slice(&self.address.octets());
        header[16..20].copy_from_slice(&to.known_as.octets());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [&[0; VIRTIO][..], &self.next_hop, &self.mac, &[0x08, 0x00], &header].concat()
    }

    /// Sends a frame and takes it in on the other side.
    pub fn pass(&self, frame: &[u8], to: &Card) {
        rustix::io::write(&*self.tap, frame).unwrap();
        to.take();
    }

    fn take(&self) {
        for _ in 0..1_000_000 {
            if self.take_if_there() {
                return;
            }
            std::thread::yield_now();
        }
        panic!("a frame did not arrive");
    }

    /// Takes a frame of IPv4 from the queue, and what else is before it.
    fn take_if_there(&self) -> bool {
        BUFFER.with_borrow_mut(|frame| self.take_into(frame))
    }

    fn take_into(&self, frame: &mut [u8]) -> bool {
        while let Ok(length) = rustix::io::read(&*self.tap, &mut *frame) {
            if length > VIRTIO + ETHERNET && frame[VIRTIO + 12..VIRTIO + 14] == [0x08, 0x00] {
                return true;
            }
        }
        false
    }
}

/// A TCP connection between two cards.
pub struct Conversation<'a> {
    one: &'a Card,
    two: &'a Card,
    ports: [u16; 2],
    sent: u32,
}

impl<'a> Conversation<'a> {
    pub fn begin(one: &'a Card, two: &'a Card, from_port: u16, to_port: u16) -> Conversation<'a> {
        let talk = Conversation { one, two, ports: [from_port, to_port], sent: 1 };
        one.pass(&one.segment(two, talk.ports, [0, 0], SYN, 0), two);
        two.pass(&two.segment(one, talk.back(), [0, 1], SYN | ACK, 0), one);
        one.pass(&one.segment(two, talk.ports, [1, 1], ACK, 0), two);
        talk
    }

    fn back(&self) -> [u16; 2] {
        [self.ports[1], self.ports[0]]
    }

    pub fn send_segment(&mut self) {
        let frame = self.one.segment(self.two, self.ports, [self.sent, 1], ACK, SEGMENT);
        self.one.pass(&frame, self.two);
        self.sent = self.sent.wrapping_add(SEGMENT as u32);
        let answer = self.two.segment(self.one, self.back(), [1, self.sent], ACK, 0);
        self.two.pass(&answer, self.one);
    }

    pub fn end(self) {
        let frame = self.one.segment(self.two, self.ports, [self.sent, 1], RST | ACK, 0);
        self.one.pass(&frame, self.two);
    }
}

/// A tap in the machine's namespace, as the cloud's are.
pub async fn tap(machine: &Machine, name: &'static str) -> OwnedFd {
    machine.run(move || super::cloud::open_tap(name)).await.unwrap()
}

pub fn text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
