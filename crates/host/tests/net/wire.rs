//! A guest that speaks raw Ethernet on its tap, to say what a well-behaved one wouldn't.

use crate::cloud::{Cloud, PATIENCE, SILENCE};
use host::net::Network;
use model::Id;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
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

impl Card {
    /// Returns once the tap delivers, which it begins a moment after it is opened.
    pub async fn plug(cloud: &Cloud, interface_id: &Id) -> Card {
        let nic = cloud.plan.interfaces.iter().find(|nic| nic.interface_id == *interface_id).unwrap();
        let tap = cloud.network.open_tap(interface_id).await.unwrap();
        let card = Card { tap: tap.into(), mac: nic.mac, address: nic.primary().private_ip };
        card.ask(&card.arp_request(card.address, METADATA), |frame| is_arp_reply(frame, METADATA));
        card
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

fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
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
    let info = unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(first).cast::<libc::in_pktinfo>()) };
    (data[..length as usize].to_vec(), info.ipi_ifindex as u32)
}
