//! A guest that speaks raw Ethernet on its tap, to say what a well-behaved one wouldn't.

use crate::cloud::{Cloud, PATIENCE, SILENCE};
use model::Id;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

pub const BROADCAST: [u8; 6] = [0xff; 6];
/// What a guest finds as the MAC of its router.
pub const ROUTER: [u8; 6] = [0xfe, b'c', b'm', b'l', 0, 1];

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The header that `IFF_VNET_HDR` puts before a frame: all zeros is "nothing to offload".
const VIRTIO_HEADER: usize = 10;

pub struct Card {
    tap: File,
    pub mac: [u8; 6],
    pub address: Ipv4Addr,
}

pub struct Ends {
    /// Where the frame goes.
    pub mac: [u8; 6],
    pub from: (Ipv4Addr, u16),
    pub to: (Ipv4Addr, u16),
}

/// A packet of IPv6 to be made.
#[derive(Clone, Copy)]
pub struct Packet6 {
    pub from: Ipv6Addr,
    pub to: Ipv6Addr,
    pub hops: u8,
    pub protocol: u8,
}

impl Packet6 {
    pub fn datagram(self, (from, to): (u16, u16), payload: &[u8]) -> Vec<u8> {
        let length = (8 + payload.len()) as u16;
        let header = [from, to, length, 0].map(u16::to_be_bytes).concat();
        self.with(&[&header, payload].concat(), 6)
    }

    /// A control message (ICMPv6) of code 0.
    pub fn control(self, kind: u8, body: &[u8]) -> Vec<u8> {
        self.with(&[&[kind, 0, 0, 0], body].concat(), 2)
    }

    /// With a payload whose checksum is at that place.
    fn with(self, payload: &[u8], checksum_at: usize) -> Vec<u8> {
        let mut payload = payload.to_vec();
        let length = payload.len() as u16;
        let mut summed = [self.from.octets(), self.to.octets()].concat();
        summed.extend([0, 0]);
        summed.extend(length.to_be_bytes());
        summed.extend([0, 0, 0, self.protocol]);
        summed.extend(&payload);
        summed.resize(summed.len().next_multiple_of(2), 0);
        // Zero would be none.
        let sum = Some(checksum(&summed)).filter(|sum| *sum != 0).unwrap_or(u16::MAX);
        payload[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([self.protocol, self.hops]);
        packet.extend([self.from.octets(), self.to.octets()].concat());
        packet.extend(payload);
        packet
    }
}

impl Card {
    /// Returns once the tap delivers, which it begins a moment after it is opened.
    pub async fn plug(cloud: &Cloud, interface_id: &Id) -> Card {
        let nic = cloud.plan.interfaces.iter().find(|nic| nic.interface_id == *interface_id).unwrap();
        let tap = cloud.tap(interface_id).await;
        let card = Card::of(tap, nic.mac, nic.addresses[0].private_ip);
        card.ask(&card.arp_request(card.address, METADATA), |frame| is_arp_reply(frame, METADATA));
        card
    }

    /// On one queue of a tap that delivers.
    pub fn of(tap: OwnedFd, mac: [u8; 6], address: Ipv4Addr) -> Card {
        Card { tap: tap.into(), mac, address }
    }

    pub fn send(&self, frame: &[u8]) {
        let packet = [&[0; VIRTIO_HEADER][..], frame].concat();
        assert_eq!((&self.tap).write(&packet).unwrap(), packet.len());
    }

    /// The next frame that is wanted, without the header.
    pub fn receive(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        self.receive_within(PATIENCE, wanted).expect("no such frame came")
    }

    /// Repeats a request until its answer comes.
    pub fn ask(&self, request: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        for _ in 0..PATIENCE.as_millis() / SILENCE.as_millis() {
            self.send(request);
            if let Some(frame) = self.receive_within(SILENCE, &wanted) {
                return frame;
            }
        }
        panic!("no answer came")
    }

    pub fn hears_nothing(&self, of: impl Fn(&[u8]) -> bool) -> bool {
        self.receive_within(SILENCE, of).is_none()
    }

    fn receive_within(&self, wait: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let mut frame = vec![0; 10_000];
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        loop {
            let mut ready = [PollFd::from_borrowed_fd(self.tap.as_fd(), PollFlags::IN)];
            if poll(&mut ready, Some(&wait)).unwrap() == 0 {
                return None;
            }
            let length = (&self.tap).read(&mut frame).unwrap();
            if wanted(&frame[VIRTIO_HEADER..length]) {
                return Some(frame[VIRTIO_HEADER..length].to_vec());
            }
        }
    }

    pub fn udp_frame(&self, ends: Ends, payload: &[u8]) -> Vec<u8> {
        self.udp_frame_from(self.mac, ends, payload)
    }

    /// As `udp_frame`, with another's MAC as the sender's.
    pub fn udp_frame_from(&self, mac: [u8; 6], ends: Ends, payload: &[u8]) -> Vec<u8> {
        let length = (8 + payload.len()) as u16;
        let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
        header[12..16].copy_from_slice(&ends.from.0.octets());
        header[16..20].copy_from_slice(&ends.to.0.octets());
        let checksum = checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        let mut frame = [&ends.mac[..], &mac, &[0x08, 0x00], &header].concat();
        // A UDP checksum of zero is none.
        for field in [ends.from.1, ends.to.1, length, 0] {
            frame.extend(field.to_be_bytes());
        }
        frame.extend(payload);
        frame
    }

    /// A part of a frame's payload of IPv4, under a number that the parts of one packet share.
    pub fn fragment(&self, frame: &[u8], id: u16, range: std::ops::Range<usize>, offset: u16) -> Vec<u8> {
        let mut part = [&frame[..34], &frame[34..][range]].concat();
        let length = (part.len() - 14) as u16;
        part[16..18].copy_from_slice(&length.to_be_bytes());
        part[18..20].copy_from_slice(&id.to_be_bytes());
        part[20..22].copy_from_slice(&offset.to_be_bytes());
        part[24..26].fill(0);
        let sum = checksum(&part[14..34]);
        part[24..26].copy_from_slice(&sum.to_be_bytes());
        part
    }

    /// To the router, or to a group on the link.
    pub fn frame6(&self, packet: Vec<u8>) -> Vec<u8> {
        let to = match packet[24] {
            0xff => [0x33, 0x33, packet[36], packet[37], packet[38], packet[39]],
            _ => ROUTER,
        };
        [&to[..], &self.mac, &[0x86, 0xdd], &packet].concat()
    }

    pub fn arp_request(&self, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let mut frame =
            [&BROADCAST[..], &self.mac, &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1], &self.mac].concat();
        frame.extend(sender.octets());
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame
    }
}

/// Whether a frame is an ARP reply about this address.
pub fn is_arp_reply(frame: &[u8], about: Ipv4Addr) -> bool {
    frame[12..14] == [0x08, 0x06] && frame[20..22] == [0, 2] && frame[28..32] == about.octets()
}

pub fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(folded + (folded >> 16)) as u16
}

/// A datagram and the index of the link it came by.
pub fn receive_with_index(socket: &UdpSocket) -> (Vec<u8>, u32) {
    let mut data = [0u8; 2000];
    let mut control = [0u64; 16];
    let mut vector = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    assert!(length >= 0, "{}", std::io::Error::last_os_error());
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    assert!(!first.is_null(), "the link's index was not told");
    let data = data[..length as usize].to_vec();
    let told = unsafe { libc::CMSG_DATA(first) };
    let index = match unsafe { (*first).cmsg_level } {
        libc::IPPROTO_IPV6 => {
            unsafe { std::ptr::read_unaligned(told.cast::<libc::in6_pktinfo>()) }.ipi6_ifindex
        }
        _ => unsafe { std::ptr::read_unaligned(told.cast::<libc::in_pktinfo>()) }.ipi_ifindex as u32,
    };
    (data, index)
}
