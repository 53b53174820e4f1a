//! DHCP for the guests of a VPC (RFC 2131, 2132): each interface is offered its own private address, for ever.
//!
//! Nothing is leased from a pool, so there is no state: who asks is known from the tap that the request came by,
//! and the hardware address in it must be the interface's. Requests that are malformed, from elsewhere or too
//! many are dropped, and so are those in a subnet of IPv6 alone.

mod request;

use crate::limits::Rate;
use crate::link_socket::{DATAGRAM_BYTES_MAX, LinkSocket};
use crate::network::{Guest, HostNetwork};
use agent_api::DhcpOptions;
use dhcproto::Encodable as _;
use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode};
use model::Id;
use request::Request;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// A guest that renews sees changed options after half of this, as on EC2.
const LEASE_SECONDS: u32 = 3600;
const CLIENT_PORT: u16 = 68;
/// The shortest message that old clients take (RFC 1542, 2.1).
const MESSAGE_BYTES_MIN: usize = 300;
/// Requests of one interface: a client asks four times a minute when all goes wrong.
const REQUESTS_PER_SECOND: u32 = 5;
const REQUESTS_BURST: u32 = 20;
/// After a socket error, which is the host's: for it to pass.
const RECEIVE_AGAIN: Duration = Duration::from_millis(100);

pub(crate) struct DhcpService {
    requests: Rate,
}

#[derive(Debug, PartialEq)]
struct Reply {
    bytes: Vec<u8>,
    to: SocketAddrV4,
    from: Ipv4Addr,
}

impl DhcpService {
    pub(crate) fn new() -> Self {
        DhcpService { requests: Rate::new(REQUESTS_PER_SECOND, REQUESTS_BURST) }
    }
}

/// Serves the VPC until aborted.
pub(crate) async fn serve(
    socket: LinkSocket,
    vpc_id: Id,
    network: Arc<HostNetwork>,
    service: Arc<DhcpService>,
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
        let request = &buffer[..datagram.length];
        let Some(reply) = answer(&guest, network.driver().mtu(), request) else { continue };
        let Reply { bytes, to, from } = reply;
        if let Err(error) = socket.send(&bytes, SocketAddr::V4(to), Some(from), datagram.index) {
            // The guest asks again.
            tracing::debug!(%vpc_id, error = %error, "reply not sent");
        }
    }
}

fn answer(guest: &Guest, mtu: u16, request: &[u8]) -> Option<Reply> {
    let request = Request::parse(request)?;
    let interface = &guest.interface().network;
    let address = interface.primary()?.private_ip;
    let (subnet, gateway) = (guest.subnet()?.cidr?, guest.subnet()?.router()?);
    if request.mac != interface.mac || request.server.is_some_and(|server| server != gateway) {
        return None;
    }
    let is_inform = request.kind == MessageType::Inform;
    let kind = match request.kind {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request if request.wants.or(request.has) == Some(address) => MessageType::Ack,
        MessageType::Request => MessageType::Nak,
        MessageType::Inform => MessageType::Ack,
        // A declined or released address stays the interface's own.
        _ => return None,
    };

    let mut reply = Message::default();
    reply
        .set_opcode(Opcode::BootReply)
        .set_xid(request.xid)
        .set_flags(Flags::from(request.flags))
        .set_chaddr(&interface.mac);
    let set = reply.opts_mut();
    set.insert(DhcpOption::MessageType(kind));
    set.insert(DhcpOption::ServerIdentifier(gateway));
    if kind != MessageType::Nak {
        set.insert(DhcpOption::SubnetMask(subnet.netmask()));
        set.insert(DhcpOption::Router(vec![gateway]));
        set.insert(DhcpOption::InterfaceMtu(mtu));
        for option in told(&guest.vpc.dhcp_options, guest.resolver()?) {
            set.insert(option);
        }
        let hostname = guest.instance.metadata.local_hostname.split('.').next().unwrap_or_default();
        if !hostname.is_empty() {
            set.insert(DhcpOption::Hostname(hostname.to_owned()));
        }
        if !is_inform {
            set.insert(DhcpOption::AddressLeaseTime(LEASE_SECONDS));
            reply.set_yiaddr(address);
        }
    }
    // A client that has its address hears what is sent to it; others hear only a broadcast.
    let has_address = request.has == Some(address) && kind == MessageType::Ack;
    if has_address {
        reply.set_ciaddr(address);
    }
    let mut bytes = reply.to_vec().ok()?;
    bytes.resize(bytes.len().max(MESSAGE_BYTES_MIN), 0);
    let to = if has_address { address } else { Ipv4Addr::BROADCAST };
    Some(Reply { bytes, to: SocketAddrV4::new(to, CLIENT_PORT), from: gateway })
}

/// What the VPC's DHCP options say. They may name servers of IPv6, which this protocol can't.
fn told(options: &DhcpOptions, resolver: Ipv4Addr) -> Vec<DhcpOption> {
    let v4 = |servers: &[IpAddr]| {
        let servers = servers.iter().filter_map(|server| match server {
            IpAddr::V4(server) => Some(*server),
            IpAddr::V6(_) => None,
        });
        servers.collect::<Vec<Ipv4Addr>>()
    };
    let mut told: Vec<DhcpOption> = options.domain_name.iter().cloned().map(DhcpOption::DomainName).collect();
    let named = v4(&options.domain_name_servers);
    told.push(DhcpOption::DomainNameServer(if named.is_empty() { vec![resolver] } else { named }));
    let times = v4(&options.ntp_servers);
    if !times.is_empty() {
        told.push(DhcpOption::NtpServers(times));
    }
    if !options.netbios_name_servers.is_empty() {
        told.push(DhcpOption::NetBiosNameServers(options.netbios_name_servers.clone()));
    }
    told.extend(options.netbios_node_type.map(|kind| DhcpOption::NetBiosNodeType(kind.into())));
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;
    use dhcproto::v4::OptionCode;
    use dhcproto::{Decodable as _, Decoder};
    use proptest::prelude::*;

    fn guest() -> Guest {
        Guest::new(Arc::new(examples::instance(1)), Arc::new(examples::vpc()), 0)
    }

    fn request(kind: MessageType, change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::default();
        message.set_xid(7).set_chaddr(&guest().interface().network.mac);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        change(&mut message);
        message.to_vec().unwrap()
    }

    fn answered(request: &[u8]) -> Option<(Message, SocketAddrV4)> {
        let reply = answer(&guest(), 1450, request)?;
        assert!(reply.bytes.len() >= MESSAGE_BYTES_MIN);
        assert_eq!(reply.from, Ipv4Addr::new(172, 31, 16, 1));
        Some((Message::decode(&mut Decoder::new(&reply.bytes)).unwrap(), reply.to))
    }

    #[test]
    fn a_guest_is_offered_its_own_address_and_what_goes_with_it() {
        let (offer, to) = answered(&request(MessageType::Discover, |_| {})).unwrap();
        assert_eq!(to, "255.255.255.255:68".parse().unwrap());
        assert_eq!(offer.xid(), 7);
        assert_eq!(offer.yiaddr(), guest().interface().network.addresses[0].private_ip);
        let options: Vec<String> = offer.opts().iter().map(|(_, option)| format!("{option:?}")).collect();
        insta::assert_snapshot!(options.join("\n"), @r#"
        SubnetMask(255.255.240.0)
        Router([172.31.16.1])
        DomainNameServer([172.31.0.2])
        Hostname("ip-172-31-16-11")
        DomainName("ec2.internal")
        InterfaceMtu(1450)
        AddressLeaseTime(3600)
        MessageType(Offer)
        ServerIdentifier(172.31.16.1)
        "#);
    }

    #[test]
    fn the_vpcs_options_are_told() {
        let servers = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let options = DhcpOptions {
            domain_name: Some("example.com".into()),
            domain_name_servers: servers(&["10.2.5.1", "fd00::53", "10.2.5.2"]),
            ntp_servers: servers(&["169.254.169.123"]),
            netbios_name_servers: vec![Ipv4Addr::new(10, 2, 5, 1)],
            netbios_node_type: Some(2),
            ipv6_preferred_seconds: None,
        };
        insta::assert_snapshot!(format!("{:#?}", told(&options, Ipv4Addr::new(172, 31, 0, 2))));
        let none = told(&DhcpOptions::default(), Ipv4Addr::new(172, 31, 0, 2));
        assert_eq!(none, [DhcpOption::DomainNameServer(vec![Ipv4Addr::new(172, 31, 0, 2)])]);
    }

    #[test]
    fn a_request_is_granted_for_that_address_only() {
        let own = guest().interface().network.addresses[0].private_ip;
        let asking = |address| {
            request(MessageType::Request, |message| {
                message.opts_mut().insert(DhcpOption::RequestedIpAddress(address));
            })
        };
        let (ack, to) = answered(&asking(own)).unwrap();
        assert_eq!((ack.opts().msg_type(), ack.yiaddr()), (Some(MessageType::Ack), own));
        assert!(to.ip().is_broadcast());
        let (nak, to) = answered(&asking(Ipv4Addr::new(172, 31, 16, 99))).unwrap();
        assert_eq!((nak.opts().msg_type(), nak.yiaddr()), (Some(MessageType::Nak), Ipv4Addr::UNSPECIFIED));
        assert!(to.ip().is_broadcast());
        let renewal = request(MessageType::Request, |message| {
            message.set_ciaddr(own);
        });
        assert_eq!(answered(&renewal).unwrap().1, SocketAddrV4::new(own, CLIENT_PORT));
        let inform = request(MessageType::Inform, |message| {
            message.set_ciaddr(own);
        });
        let (ack, _) = answered(&inform).unwrap();
        assert!(ack.yiaddr().is_unspecified());
        assert_eq!(ack.opts().get(OptionCode::AddressLeaseTime), None);
    }

    #[test]
    fn nobody_answers_in_a_subnet_of_ipv6_alone() {
        let (mut instance, mut vpc) = (examples::instance(1), examples::vpc());
        instance.interfaces[0].network.addresses.clear();
        vpc.network.subnets[0].cidr = None;
        let guest = Guest::new(Arc::new(instance), Arc::new(vpc), 0);
        assert_eq!(answer(&guest, 1450, &request(MessageType::Discover, |_| {})), None);
    }

    #[test]
    fn what_is_not_its_own_is_dropped() {
        let dropped = |kind, change: fn(&mut Message)| answered(&request(kind, change)).is_none();
        assert!(dropped(MessageType::Discover, |m| {
            m.set_chaddr(&[2, 0, 0, 0, 0, 9]);
        }));
        assert!(dropped(MessageType::Discover, |m| {
            m.set_chaddr(&[2; 16]);
        }));
        assert!(dropped(MessageType::Discover, |m| {
            m.set_giaddr([10, 0, 0, 1]);
        }));
        assert!(dropped(MessageType::Discover, |m| {
            m.set_opcode(Opcode::BootReply);
        }));
        assert!(dropped(MessageType::Decline, |_| {}));
        assert!(dropped(MessageType::Release, |_| {}));
        assert!(dropped(MessageType::Offer, |_| {}));
        assert!(dropped(MessageType::Request, |m| {
            m.opts_mut().insert(DhcpOption::ServerIdentifier([10, 0, 0, 1].into()));
        }));
        let mut too_long = request(MessageType::Discover, |_| {});
        too_long[2] = 255;
        assert_eq!(answered(&too_long), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..600),
            at in 0usize..300,
            value in any::<u8>(),
        ) {
            answer(&guest(), 1450, &noise);
            let mut request = request(MessageType::Discover, |_| {});
            request.extend(&noise);
            let at = at.min(request.len() - 1);
            request[at] = value;
            answer(&guest(), 1450, &request);
        }
    }
}
