//! What a guest's message says, as far as it matters here (RFC 8415, 8 and 21).
//!
//! Read by hand: the codec that writes our replies asserts what hostile bytes need not keep.

use dhcproto::v6::MessageType;
use std::net::Ipv6Addr;

const CLIENT_IDENTIFIER: u16 = 1;
const SERVER_IDENTIFIER: u16 = 2;
const ASSOCIATION: u16 = 3;
const ADDRESS: u16 = 5;
const RAPID_COMMIT: u16 = 14;

/// A DUID is two bytes of type and up to 128 more (RFC 8415, 11.1).
const DUID_BYTES_MAX: usize = 130;
/// A client has one for each interface, and we see one interface; more addresses than EC2 gives one.
const ASSOCIATIONS_MAX: usize = 4;
const ADDRESSES_MAX: usize = 50;

#[derive(Debug, PartialEq)]
pub(super) struct Request<'a> {
    pub kind: MessageType,
    pub id: [u8; 3],
    pub client: Option<&'a [u8]>,
    pub server: Option<&'a [u8]>,
    pub rapid: bool,
    /// For addresses that are not temporary; the first of them.
    pub associations: Vec<Association>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Association {
    pub id: u32,
    pub addresses: Vec<Ipv6Addr>,
}

impl Request<'_> {
    /// None where it is malformed.
    pub(super) fn parse(bytes: &[u8]) -> Option<Request<'_>> {
        let ([kind, a, b, c], options) = bytes.split_first_chunk()?;
        let mut request = Request {
            kind: MessageType::from(*kind),
            id: [*a, *b, *c],
            client: None,
            server: None,
            rapid: false,
            associations: Vec::new(),
        };
        for option in options_of(options) {
            match option? {
                (CLIENT_IDENTIFIER, duid) if duid.len() <= DUID_BYTES_MAX => request.client = Some(duid),
                (CLIENT_IDENTIFIER, _) => return None,
                (SERVER_IDENTIFIER, duid) => request.server = Some(duid),
                (RAPID_COMMIT, _) => request.rapid = true,
                (ASSOCIATION, value) if request.associations.len() < ASSOCIATIONS_MAX => {
                    request.associations.push(Association::parse(value)?);
                }
                _ => {}
            }
        }
        Some(request)
    }
}

impl Association {
    fn parse(value: &[u8]) -> Option<Association> {
        let (id, rest) = value.split_first_chunk()?;
        // Two times that the client would like.
        let options = rest.get(8..)?;
        let mut association = Association { id: u32::from_be_bytes(*id), addresses: Vec::new() };
        for option in options_of(options) {
            if let (ADDRESS, value) = option?
                && association.addresses.len() < ADDRESSES_MAX
            {
                association.addresses.push(Ipv6Addr::from(*value.first_chunk::<16>()?));
            }
        }
        Some(association)
    }
}

/// Code and value of each option; None, and the end, where the bytes are none.
fn options_of(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let option = (|| {
            let ([a, b, c, d], rest) = bytes.split_first_chunk()?;
            let (value, rest) = rest.split_at_checked(u16::from_be_bytes([*c, *d]).into())?;
            bytes = rest;
            Some((u16::from_be_bytes([*a, *b]), value))
        })();
        if option.is_none() {
            bytes = &[];
        }
        Some(option)
    })
}
