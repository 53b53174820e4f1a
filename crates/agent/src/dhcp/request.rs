//! What a guest's request says, as far as it matters here (RFC 2131, figure 1; RFC 2132).
//!
//! Read by hand: the codec that writes our replies asserts what hostile bytes need not keep.

use dhcproto::v4::MessageType;
use std::net::Ipv4Addr;

const OPTIONS_AT: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const BOOT_REQUEST: u8 = 1;
const ETHERNET: u8 = 1;
const HARDWARE_BYTES: u8 = 6;

const PAD: u8 = 0;
const REQUESTED_ADDRESS: u8 = 50;
const MESSAGE_TYPE: u8 = 53;
const SERVER_IDENTIFIER: u8 = 54;
const END: u8 = 255;

#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub kind: MessageType,
    pub xid: u32,
    pub flags: u16,
    /// `ciaddr`: what the client has already.
    pub has: Option<Ipv4Addr>,
    pub mac: [u8; 6],
    /// Option 50.
    pub wants: Option<Ipv4Addr>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
}

impl Request {
    /// None where it is malformed, not a request, not over Ethernet or came through a relay.
    pub(super) fn parse(bytes: &[u8]) -> Option<Request> {
        let (header, options) = bytes.split_at_checked(OPTIONS_AT)?;
        let [operation, hardware, hardware_bytes, ..] = header else { return None };
        let is_relayed = address(&header[24..28])?.is_some();
        let is_ours = *operation == BOOT_REQUEST
            && *hardware == ETHERNET
            && *hardware_bytes == HARDWARE_BYTES
            && !is_relayed
            && header[236..] == MAGIC;
        if !is_ours {
            return None;
        }
        let mut request = Request {
            kind: MessageType::Unknown(0),
            xid: u32::from_be_bytes(header[4..8].try_into().ok()?),
            flags: u16::from_be_bytes(header[10..12].try_into().ok()?),
            has: address(&header[12..16])?,
            mac: header[28..34].try_into().ok()?,
            wants: None,
            server: None,
        };
        let mut rest = options;
        // One that stops without an end is taken for what it says until there, as other servers do.
        while let Some((&code, after)) = rest.split_first().filter(|(code, _)| **code != END) {
            rest = after;
            if code == PAD {
                continue;
            }
            let (&length, after) = rest.split_first()?;
            let (value, after) = after.split_at_checked(length.into())?;
            rest = after;
            match code {
                MESSAGE_TYPE => request.kind = MessageType::from(*value.first()?),
                REQUESTED_ADDRESS => request.wants = address(value)?,
                SERVER_IDENTIFIER => request.server = address(value)?,
                _ => {}
            }
        }
        Some(request)
    }
}

/// Outer None where it is not four bytes, inner where they are all zero.
fn address(bytes: &[u8]) -> Option<Option<Ipv4Addr>> {
    let octets: [u8; 4] = bytes.try_into().ok()?;
    Some(Some(Ipv4Addr::from(octets)).filter(|address| !address.is_unspecified()))
}
