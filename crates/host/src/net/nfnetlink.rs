//! What we ask netfilter itself: whether anybody touched the rules, which tables packets meet, and to forget flows.
//!
//! All are a few bytes of netlink (`linux/netfilter/nfnetlink*.h`); numbers of messages and attributes are the
//! kernel's. What the kernel sends is trusted to be well formed, yet never indexed without a look.
//!
//! A flow that is tracked passes the groups without being asked again. So when an address leaves an interface its
//! flows must go first, else the next owner of the address would inherit them.

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::namespace::Namespace;
use super::netlink::{HEADER, Listener, aligned, messages, u32_at};

const NFTABLES: u16 = 10 << 8;
const NEW_TABLE: u16 = NFTABLES;
const GET_TABLE: u16 = NFTABLES | 1;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const DORMANT: u32 = 1;
const GET_CHAIN: u16 = NFTABLES | 4;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const NEW_GENERATION: u16 = NFTABLES | 15;
const GET_GENERATION: u16 = NFTABLES | 16;
const GENERATION_ID: u16 = 1;
/// The group that is told of changes of the rules: the seventh.
const NFTABLES_GROUP: u32 = 1 << 6;

const CONNTRACK: u16 = 1 << 8;
const CONNTRACK_NEW: u16 = CONNTRACK;
const CONNTRACK_GET: u16 = CONNTRACK | 1;
const CONNTRACK_DELETE: u16 = CONNTRACK | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const CONNTRACK_ID: u16 = 12;
const CONNTRACK_ZONE: u16 = 18;

const FAMILIES: [(&str, libc::c_int); 2] = [("inet", libc::NFPROTO_INET), ("arp", libc::NFPROTO_ARP)];

const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACKNOWLEDGE: u16 = libc::NLM_F_ACK as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;

/// Bytes of a message's own header and of netfilter's after it.
const HEADERS: usize = HEADER + 4;
/// The two flags in an attribute's type.
const TYPE_MASK: u16 = 0x3fff;

/// Source and destination.
pub(super) type Ends = (IpAddr, IpAddr);

/// A tracked flow: what its first packet bore, and what a reply bears, which differs where addresses are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub original: Ends,
    pub reply: Ends,
    pub protocol: u8,
    /// Of the first packet, where the protocol has them: source and destination.
    pub ports: Option<(u16, u16)>,
}

/// Changes with every transaction on the packet filter of the calling thread's namespace.
pub(super) fn generation() -> io::Result<u32> {
    let mut generation = None;
    exchange(&open()?, GET_GENERATION, ACKNOWLEDGE, (libc::AF_UNSPEC, &[]), |kind, payload| {
        if kind == NEW_GENERATION {
            let id = attributes(payload).find(|(kind, _)| *kind == GENERATION_ID);
            generation = id.and_then(|(_, value)| Some(u32::from_be_bytes(value.try_into().ok()?)));
        }
    })?;
    generation.ok_or_else(|| io::Error::other("netfilter told no generation"))
}

/// Whether a table, named by family and name, of the calling thread's namespace has a chain.
pub(super) fn has_chain(table: &str, chain: &str) -> io::Result<bool> {
    let found = FAMILIES
        .iter()
        .find_map(|(family, number)| Some((*number, table.strip_prefix(family)?.strip_prefix(' ')?)));
    let Some((family, table)) = found else { return Ok(false) };
    let name = [put_text(CHAIN_TABLE, table), put_text(CHAIN_NAME, chain)].concat();
    match exchange(&open()?, GET_CHAIN, ACKNOWLEDGE, (family, &name), |_, _| {}) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        result => result.map(|()| true),
    }
}

/// The tables that packets meet in the calling thread's namespace, by family and name, of the families that we use.
pub(super) fn tables_awake() -> io::Result<BTreeSet<String>> {
    let mut awake = BTreeSet::new();
    for (family, number) in FAMILIES {
        exchange(&open()?, GET_TABLE, DUMP, (number, &[]), |kind, payload| {
            let flags = attribute(payload, TABLE_FLAGS).and_then(|flags| flags.try_into().ok());
            if kind == NEW_TABLE && u32::from_be_bytes(flags.unwrap_or_default()) & DORMANT == 0 {
                // It ends with a zero.
                let name = attribute(payload, TABLE_NAME).and_then(|name| name.split_last());
                awake.extend(name.map(|(_, name)| format!("{family} {}", String::from_utf8_lossy(name))));
            }
        })?;
    }
    Ok(awake)
}

/// Hears of every transaction on the packet filter of the namespace.
pub(super) async fn listen(namespace: &Namespace) -> io::Result<Listener> {
    Listener::open(namespace, NETLINK_NETFILTER, NFTABLES_GROUP, |kind, _| kind == NEW_GENERATION).await
}

/// Ends the tracking of the flows that are picked, in the calling thread's namespace.
pub(super) fn forget_flows(mut stale: impl FnMut(&Flow) -> bool) -> io::Result<()> {
    let socket = open()?;
    let mut deletions = Vec::new();
    exchange(&socket, CONNTRACK_GET, DUMP, (libc::AF_UNSPEC, &[]), |kind, payload| {
        if kind == CONNTRACK_NEW
            && let Some(flow) = flow_of(payload).filter(&mut stale)
        {
            let family = if flow.original.0.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
            deletions.push((family, name_of_flow(payload)));
        }
    })?;
    for (family, name) in deletions {
        match exchange(&socket, CONNTRACK_DELETE, ACKNOWLEDGE, (family, &name), |_, _| {}) {
            // It ended by itself meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            result => result?,
        }
    }
    Ok(())
}

fn open() -> io::Result<Socket> {
    Socket::new(NETLINK_NETFILTER)
}

/// Sends a request, for a family, and hands each message of the answer over: its type and its attributes.
fn exchange(
    socket: &Socket,
    kind: u16,
    flags: u16,
    (family, payload): (libc::c_int, &[u8]),
    mut answer: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    let length = (HEADERS + payload.len()) as u32;
    let mut request = Vec::with_capacity(HEADERS + payload.len());
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((REQUEST | flags).to_ne_bytes());
    request.extend([0; 8]); // sequence number and sender: one request at a time needs neither
    request.extend([family as u8, 0, 0, 0]);
    request.extend(payload);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&datagram) {
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    return match u32_at(body, 0).unwrap_or(0) as i32 {
                        0 => Ok(()),
                        number => Err(io::Error::from_raw_os_error(-number)),
                    };
                }
                kind => answer(kind, body.get(HEADERS - HEADER..).unwrap_or(&[])),
            }
        }
    }
}

fn flow_of(payload: &[u8]) -> Option<Flow> {
    let protocol = attribute(attribute(payload, TUPLE_ORIGINAL)?, TUPLE_PROTOCOL)?;
    let port = |kind| Some(u16::from_be_bytes(attribute(protocol, kind)?.try_into().ok()?));
    Some(Flow {
        original: ends(payload, TUPLE_ORIGINAL)?,
        reply: ends(payload, TUPLE_REPLY)?,
        protocol: *attribute(protocol, PROTOCOL_NUMBER)?.first()?,
        ports: port(SOURCE_PORT).zip(port(DESTINATION_PORT)),
    })
}

fn ends(payload: &[u8], tuple: u16) -> Option<Ends> {
    let ip = attribute(attribute(payload, tuple)?, TUPLE_IP)?;
    let address = |v4, v6| match attribute(ip, v4) {
        Some(bytes) => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
        None => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(attribute(ip, v6)?).ok()?))),
    };
    Some((address(IP_V4_SOURCE, IP_V6_SOURCE)?, address(IP_V4_DESTINATION, IP_V6_DESTINATION)?))
}

/// What names one flow and no other one with the same ends: its tuple, its number and, where it is in one, its zone.
fn name_of_flow(payload: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    for wanted in [TUPLE_ORIGINAL, CONNTRACK_ID, CONNTRACK_ZONE] {
        for (start, end, kind, _) in raw_attributes(payload) {
            if kind == wanted {
                name.extend(&payload[start..end]);
                name.resize(aligned(name.len()), 0);
            }
        }
    }
    name
}

/// An attribute to be sent.
fn put(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::new();
    attribute.extend((value.len() as u16 + 4).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(aligned(attribute.len()), 0);
    attribute
}

/// Texts end with a zero.
fn put_text(kind: u16, text: &str) -> Vec<u8> {
    put(kind, &[text.as_bytes(), &[0]].concat())
}

fn attribute(payload: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(payload).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn attributes(payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    raw_attributes(payload).map(|(_, _, kind, value)| (kind, value))
}

/// Start, end, type and value of each attribute.
fn raw_attributes(payload: &[u8]) -> impl Iterator<Item = (usize, usize, u16, &[u8])> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let header = payload.get(start..start + 4)?;
        let length = u16::from_ne_bytes([header[0], header[1]]) as usize;
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = payload.get(start + 4..start + length)?;
        let item = (start, start + length, kind, value);
        start += aligned(length);
        Some(item)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tuple(kind: u16, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let ip = [put(IP_V4_SOURCE, &source), put(IP_V4_DESTINATION, &destination)].concat();
        let ports = [put(SOURCE_PORT, &40_000u16.to_be_bytes()), put(DESTINATION_PORT, &22u16.to_be_bytes())];
        let protocol = [put(PROTOCOL_NUMBER, &[6]), ports.concat()].concat();
        // Nested attributes bear a flag.
        let parts = [put(TUPLE_IP | 0x8000, &ip), put(TUPLE_PROTOCOL | 0x8000, &protocol)];
        put(kind | 0x8000, &parts.concat())
    }

    #[test]
    fn a_flow_is_read_and_named_by_its_first_tuple_number_and_zone() {
        let original = tuple(TUPLE_ORIGINAL, [10, 0, 0, 5], [10, 0, 0, 6]);
        let reply = tuple(TUPLE_REPLY, [10, 0, 0, 6], [198, 18, 0, 5]);
        let number = put(CONNTRACK_ID, &[1, 2, 3, 4]);
        let zone = put(CONNTRACK_ZONE, &[0, 1]);
        let message = [original.clone(), reply, zone.clone(), put(99, b"other"), number.clone()].concat();
        let [a, b, c] = [[10, 0, 0, 5], [10, 0, 0, 6], [198, 18, 0, 5]].map(IpAddr::from);
        let flow = Flow { original: (a, b), reply: (b, c), protocol: 6, ports: Some((40_000, 22)) };
        assert_eq!(flow_of(&message), Some(flow));
        assert_eq!(name_of_flow(&message), [original, number, zone].concat());
    }

    proptest! {
        #[test]
        fn no_bytes_bring_the_reader_down(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            flow_of(&bytes);
            name_of_flow(&bytes);
        }
    }
}
