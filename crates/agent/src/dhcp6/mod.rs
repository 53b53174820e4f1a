//! DHCPv6 for the guests of a VPC (RFC 8415): each interface is given its own addresses.
//!
//! As with IPv4 there are no leases: who asks is known from the tap that the message came by, and what it is given is
//! its interface's. Messages that are malformed, of a relay, for another server or too many are dropped.

mod message;

use crate::limits::Rate;
use crate::link_socket::{DATAGRAM_BYTES_MAX, LinkSocket};
use crate::network::{Guest, HostNetwork};
use agent_api::DhcpOptions;
use dhcproto::Encodable as _;
use dhcproto::v6::{DhcpOption, IAAddr, IANA, Message, MessageType, NtpSuboption, Status, StatusCode};
use message::Request;
use model::Id;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// As EC2's, where the VPC's DHCP options say no other. A guest that renews sees changed addresses soon.
const PREFERRED_SECONDS: u32 = 140;
/// For how much longer an address is valid.
const VALID_MORE_SECONDS: u32 = 310;

/// By its link-layer address (RFC 8415, 11.4), which all guests see alike.
const SERVER: [u8; 10] = [0, 3, 0, 1, 0xfe, b'c', b'm', b'l', 0, 1];
/// The VPC's resolver (VPC User Guide, "Amazon DNS server").
const RESOLVER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253);
const CLIENT_PORT: u16 = 546;

const REQUESTS_PER_SECOND: u32 = 5;
const REQUESTS_BURST: u32 = 20;
/// After a socket error, which is the host's: for it to pass.
const RECEIVE_AGAIN: Duration = Duration::from_millis(100);

pub(crate) struct Dhcp6Service {
    requests: Rate,
}

impl Dhcp6Service {
    pub(crate) fn new() -> Self {
        Dhcp6Service { requests: Rate::new(REQUESTS_PER_SECOND, REQUESTS_BURST) }
    }
}

/// Serves the VPC until aborted.
pub(crate) async fn serve(
    socket: LinkSocket,
    vpc_id: Id,
    network: Arc<HostNetwork>,
    service: Arc<Dhcp6Service>,
) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    loop {
        let datagram = match socket.receive(&mut buffer).await {
            Ok(datagram) => datagram,
            Err(error) => {
                tracing::warn!(%vpc_id, error = %error, "no request received");
                tokio::time::sleep(RECEIVE_AGAIN).await;
                continue;
            }
        };
        let guest = network.guest_of_index(&vpc_id, datagram.index);
        let allowed = |guest: &Guest| service.requests.allow(&guest.interface().network.interface_id);
        let Some(guest) = guest.filter(allowed) else { continue };
        let Some(reply) = answer(&guest, &buffer[..datagram.length]) else { continue };
        let to = SocketAddr::new(datagram.from.ip(), CLIENT_PORT);
        if let Err(error) = socket.send(&reply, to, None, datagram.index) {
            // The guest asks again.
            tracing::debug!(%vpc_id, error = %error, "reply not sent");
        }
    }
}

fn answer(guest: &Guest, request: &[u8]) -> Option<Vec<u8>> {
    let request = Request::parse(request)?;
    let own = &guest.interface().network.ipv6_addresses;
    let names_us = match request.kind {
        MessageType::Solicit | MessageType::Rebind | MessageType::Confirm => request.server.is_none(),
        MessageType::InformationRequest => request.server.is_none_or(|server| server == SERVER),
        _ => request.server == Some(&SERVER[..]),
    };
    let may_be_nobody = request.kind == MessageType::InformationRequest;
    if own.is_empty() || !names_us || (request.client.is_none() && !may_be_nobody) {
        return None;
    }
    let kind = match request.kind {
        MessageType::Solicit if !request.rapid => MessageType::Advertise,
        MessageType::Solicit
        | MessageType::Request
        | MessageType::Renew
        | MessageType::Rebind
        | MessageType::Confirm
        | MessageType::Release
        | MessageType::Decline
        | MessageType::InformationRequest => MessageType::Reply,
        _ => return None,
    };
    let mut reply = Message::new_with_id(kind, request.id);
    let set = reply.opts_mut();
    set.insert(DhcpOption::ServerId(SERVER.to_vec()));
    if let Some(client) = request.client {
        set.insert(DhcpOption::ClientId(client.to_vec()));
    }
    match request.kind {
        MessageType::Confirm => {
            let mut named = request.associations.iter().flat_map(|association| &association.addresses);
            let is_right = named.all(|address| own.contains(address));
            set.insert(status(if is_right { Status::Success } else { Status::NotOnLink }));
        }
        // A declined or released address stays the interface's own.
        MessageType::Release | MessageType::Decline => set.insert(status(Status::Success)),
        MessageType::InformationRequest => {}
        _ => {
            if request.rapid {
                set.insert(DhcpOption::RapidCommit);
            }
            let preferred = guest.vpc.dhcp_options.ipv6_preferred_seconds.unwrap_or(PREFERRED_SECONDS);
            for (at, association) in request.associations.iter().enumerate() {
                // All are given at once: there are none for a second association.
                set.insert(granted(association, if at == 0 { own } else { &[] }, preferred));
            }
        }
    }
    for option in told(&guest.vpc.dhcp_options, guest.resolver()) {
        set.insert(option);
    }
    reply.to_vec().ok()
}

/// What an association is given; what it names beside is its guest's no more.
/// Renewed at half of what it is preferred for, rebound at four fifths (RFC 8415, 21.4).
fn granted(association: &message::Association, own: &[Ipv6Addr], preferred: u32) -> DhcpOption {
    let address = |addr: Ipv6Addr, preferred_life, valid_life| {
        let opts = Default::default();
        DhcpOption::IAAddr(IAAddr { addr, preferred_life, valid_life, opts })
    };
    let mut opts = dhcproto::v6::DhcpOptions::default();
    for own in own {
        opts.insert(address(*own, preferred, preferred.saturating_add(VALID_MORE_SECONDS)));
    }
    for old in association.addresses.iter().filter(|address| !own.contains(address)) {
        opts.insert(address(*old, 0, 0));
    }
    if own.is_empty() {
        opts.insert(status(Status::NoAddrsAvail));
    }
    let (renew, rebind) = (preferred / 2, preferred / 5 * 4);
    DhcpOption::IANA(IANA { id: association.id, t1: renew, t2: rebind, opts })
}

fn status(status: Status) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode { status, msg: String::new() })
}

/// What the VPC's DHCP options say that is of IPv6, where its own resolver has that address of IPv4.
fn told(options: &DhcpOptions, own: Option<Ipv4Addr>) -> Vec<DhcpOption> {
    let v6 = |servers: &[IpAddr]| -> Vec<Ipv6Addr> {
        let servers = servers.iter().filter_map(|server| match server {
            IpAddr::V6(server) => Some(*server),
            IpAddr::V4(server) => (own == Some(*server)).then_some(RESOLVER),
        });
        servers.collect()
    };
    // Where only others of IPv4 are named, ours is not meant.
    let resolvers = match options.domain_name_servers.is_empty() {
        true => vec![RESOLVER],
        false => v6(&options.domain_name_servers),
    };
    let mut told = Vec::new();
    if !resolvers.is_empty() {
        told.push(DhcpOption::DomainNameServers(resolvers));
    }
    let names = options.domain_name.iter().flat_map(|names| names.split_whitespace());
    let names: Vec<dhcproto::Name> = names.filter_map(|name| name.parse().ok()).collect();
    if !names.is_empty() {
        told.push(DhcpOption::DomainSearchList(names));
    }
    let times: Vec<NtpSuboption> =
        v6(&options.ntp_servers).into_iter().map(NtpSuboption::ServerAddress).collect();
    if !times.is_empty() {
        told.push(DhcpOption::NtpServer(times));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;
    use dhcproto::v6::OptionCode;
    use dhcproto::{Decodable as _, Decoder};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const OWN: &str = "fd12:3456:7800::a";

    fn guest() -> Guest {
        guest_of(examples::vpc())
    }

    fn guest_of(vpc: agent_api::Vpc) -> Guest {
        let mut instance = examples::instance(1);
        instance.interfaces[0].network.ipv6_addresses = vec![OWN.parse().unwrap()];
        Guest::new(Arc::new(instance), Arc::new(vpc), 0)
    }

    fn request(kind: MessageType, options: Vec<DhcpOption>) -> Vec<u8> {
        let mut message = Message::new_with_id(kind, [1, 2, 3]);
        for option in options {
            message.opts_mut().insert(option);
        }
        message.to_vec().unwrap()
    }

    fn client() -> DhcpOption {
        DhcpOption::ClientId(vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 1])
    }

    fn server() -> DhcpOption {
        DhcpOption::ServerId(SERVER.to_vec())
    }

    fn association(id: u32, addresses: &[&str]) -> DhcpOption {
        let mut opts = dhcproto::v6::DhcpOptions::default();
        for addr in addresses {
            let addr = addr.parse().unwrap();
            let opts_of = Default::default();
            opts.insert(DhcpOption::IAAddr(IAAddr { addr, preferred_life: 0, valid_life: 0, opts: opts_of }));
        }
        DhcpOption::IANA(IANA { id, t1: 0, t2: 0, opts })
    }

    fn answered(request: &[u8]) -> Option<Message> {
        let reply = answer(&guest(), request)?;
        Some(Message::decode(&mut Decoder::new(&reply)).unwrap())
    }

    fn addresses(reply: &Message) -> BTreeMap<String, u32> {
        let Some(DhcpOption::IANA(granted)) = reply.opts().get(OptionCode::IANA) else {
            return BTreeMap::new();
        };
        let all = granted.opts.get_all(OptionCode::IAAddr).unwrap_or_default().iter();
        let all = all.filter_map(|option| match option {
            DhcpOption::IAAddr(address) => Some((address.addr.to_string(), address.valid_life)),
            _ => None,
        });
        all.collect()
    }

    #[test]
    fn addresses_are_preferred_for_as_long_as_the_vpc_says() {
        let asked = request(MessageType::Solicit, vec![client(), association(7, &[])]);
        for (said, times) in [(None, (70, 112, 450)), (Some(1000), (500, 800, 1310))] {
            let mut vpc = examples::vpc();
            vpc.dhcp_options.ipv6_preferred_seconds = said;
            let reply = answer(&guest_of(vpc), &asked).unwrap();
            let reply = Message::decode(&mut Decoder::new(&reply)).unwrap();
            let Some(DhcpOption::IANA(granted)) = reply.opts().get(OptionCode::IANA) else { panic!() };
            assert_eq!((granted.t1, granted.t2, addresses(&reply)[OWN]), times);
        }
    }

    #[test]
    fn a_guest_is_given_its_own_addresses_and_the_resolver() {
        let solicit = request(MessageType::Solicit, vec![client(), association(7, &[])]);
        let offer = answered(&solicit).unwrap();
        assert_eq!((offer.msg_type(), offer.xid()), (MessageType::Advertise, [1, 2, 3]));
        assert_eq!(addresses(&offer), [(OWN.to_owned(), 450)].into());
        assert_eq!(offer.opts().get(OptionCode::ServerId), Some(&server()));
        assert_eq!(
            offer.opts().get(OptionCode::DomainNameServers),
            Some(&DhcpOption::DomainNameServers(vec![RESOLVER]))
        );
        let rapid = vec![client(), association(7, &[]), DhcpOption::RapidCommit];
        assert_eq!(answered(&request(MessageType::Solicit, rapid)).unwrap().msg_type(), MessageType::Reply);
        let request = request(MessageType::Request, vec![client(), server(), association(7, &[OWN])]);
        assert_eq!(answered(&request).unwrap().msg_type(), MessageType::Reply);
    }

    #[test]
    fn the_vpcs_resolver_is_told_by_its_address_of_ipv6_and_no_other_of_ipv4_is() {
        let told_of = |servers: &[&str]| {
            let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
            let options = DhcpOptions { domain_name_servers: servers, ..DhcpOptions::default() };
            told(&options, Some(Ipv4Addr::new(10, 0, 0, 2))).into_iter().find_map(|option| match option {
                DhcpOption::DomainNameServers(servers) => Some(servers),
                _ => None,
            })
        };
        let other: Ipv6Addr = "fd12:3456:7800::53".parse().unwrap();
        assert_eq!(told_of(&["10.0.0.2"]), Some(vec![RESOLVER]));
        assert_eq!(told_of(&["fd12:3456:7800::53", "10.0.0.9", "10.0.0.2"]), Some(vec![other, RESOLVER]));
        assert_eq!(told_of(&["10.0.0.9"]), None);
    }

    #[test]
    fn what_is_no_more_its_own_ends_at_once() {
        let renew =
            request(MessageType::Renew, vec![client(), server(), association(7, &["fd12:3456:7800::b"])]);
        let reply = answered(&renew).unwrap();
        let expected = [(OWN.to_owned(), 450), ("fd12:3456:7800::b".to_owned(), 0)];
        assert_eq!(addresses(&reply), expected.into());
        let status = |addresses: &[&str]| {
            let confirm = request(MessageType::Confirm, vec![client(), association(7, addresses)]);
            match answered(&confirm).unwrap().opts().get(OptionCode::StatusCode) {
                Some(DhcpOption::StatusCode(code)) => code.status,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(status(&[OWN]), Status::Success);
        assert_eq!(status(&["fd12:3456:7800::b"]), Status::NotOnLink);
    }

    #[test]
    fn what_is_not_for_us_is_dropped() {
        let dropped = |kind, options| answered(&request(kind, options)).is_none();
        let other = || DhcpOption::ServerId(vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 9]);
        assert!(dropped(MessageType::Solicit, vec![association(7, &[])]));
        assert!(dropped(MessageType::Solicit, vec![client(), server()]));
        assert!(dropped(MessageType::Request, vec![client(), association(7, &[])]));
        assert!(dropped(MessageType::Request, vec![client(), other(), association(7, &[])]));
        assert!(dropped(MessageType::Advertise, vec![client(), server()]));
        assert!(dropped(MessageType::RelayForw, vec![client()]));
        assert!(!dropped(MessageType::InformationRequest, vec![]));
        let mut mute = examples::instance(1);
        mute.interfaces[0].network.ipv6_addresses.clear();
        let mute = Guest::new(Arc::new(mute), Arc::new(examples::vpc()), 0);
        let solicit = request(MessageType::Solicit, vec![client(), association(7, &[])]);
        assert_eq!(answer(&mute, &solicit), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..600),
            at in 0usize..100,
            value in any::<u8>(),
        ) {
            answer(&guest(), &noise);
            let mut request =
                request(MessageType::Solicit, vec![client(), association(7, &[OWN]), DhcpOption::RapidCommit]);
            request.extend(&noise);
            let at = at.min(request.len() - 1);
            request[at] = value;
            answer(&guest(), &request);
        }
    }
}
