//! The resolver's own names, and what is forwarded, against an upstream of the test's own.

use super::*;
use crate::doubles::Doubles;
use crate::examples;
use agent_api::{Desired, Vpc};
use hickory_proto::rr::{Name, RData, RecordType};
use model::{Id, Kind, SeededRandom};
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn network() -> (Arc<HostNetwork>, Arc<Doubles>) {
    let doubles = Doubles::new();
    let network = HostNetwork::new(doubles.clone());
    let mut desired = Desired::default();
    desired.vpcs.insert(examples::vpc().network.vpc_id, examples::vpc());
    let running = (1..=2).map(|number| Arc::new(examples::instance(number)));
    network.replace(&desired, running.collect());
    (network, doubles)
}

fn guest(network: &HostNetwork) -> Guest {
    network.guest(&examples::instance(1).interfaces[0].network.interface_id).unwrap()
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

/// What the resolver says by itself: code and data, or `forward`.
fn said(name: &str, kind: RecordType) -> String {
    said_by(&network().0, name, kind)
}

fn said_by(network: &HostNetwork, name: &str, kind: RecordType) -> String {
    match here(&guest(network), network, &query(name, kind)).unwrap() {
        Here::Forward(_) => "forward".into(),
        Here::Answer(answer) => {
            assert_eq!(answer.metadata.id, 77);
            let data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
            format!("{:?} {}", answer.metadata.response_code, data.join(" "))
        }
    }
}

#[test]
fn the_vpcs_own_names_are_known() {
    use RecordType::{A, AAAA, MX, PTR};
    for (name, kind, expected) in [
        ("ip-172-31-16-11.ec2.internal.", A, "NoError 172.31.16.11"),
        ("IP-172-31-200-1.EC2.Internal.", A, "NoError 172.31.200.1"),
        ("ip-172-31-16-11.ec2.internal.", AAAA, "NoError "),
        ("ip-10-0-0-1.ec2.internal.", A, "NXDomain "),
        ("ip-172-31-16-011.ec2.internal.", A, "NXDomain "),
        ("ip-172-31-16.ec2.internal.", A, "NXDomain "),
        ("db.ec2.internal.", MX, "NXDomain "),
        ("i-00000000000000002.ec2.internal.", A, "NoError 172.31.16.12"),
        ("i-00000000000000002.ec2.internal.", AAAA, "NoError "),
        ("i-00000000000000003.ec2.internal.", A, "NXDomain "),
        ("ec2.internal.", A, "NoError "),
        ("11.16.31.172.in-addr.arpa.", PTR, "NoError ip-172-31-16-11.ec2.internal."),
        ("1.0.0.10.in-addr.arpa.", PTR, "forward"),
        ("254.169.254.169.in-addr.arpa.", PTR, "NoError instance-data.ec2.internal."),
        ("instance-data.ec2.internal.", A, "NoError 169.254.169.254"),
        ("ec2-203-0-113-12.compute-1.amazonaws.com.", A, "NoError 172.31.16.12"),
        ("ec2-203-0-113-99.compute-1.amazonaws.com.", A, "NoError 203.0.113.99"),
        ("ec2-203-0-113-12.eu-west-1.compute.amazonaws.com.", A, "forward"),
        (
            "f5lnz-0khrm-nt2u3-gyqqt-nbdl5.us-east-1.ip.aws.",
            AAAA,
            "NoError ffff:1407:4:f000:81d:2689:1066:4489",
        ),
        ("f5lnz-0khrm-nt2u3-gyqqt-nbdl5.us-east-1.ip.aws.", A, "NoError "),
        ("f5lnz-0khrm-nt2u3-gyqqt-nbdl5-1kbq70s.us-east-1.ip.aws.", A, "NoError 172.31.16.12"),
        ("f5lnz-0khrm-nt2u3-gyqqt-nbdl5.eu-west-1.ip.aws.", AAAA, "forward"),
        ("www.us-east-1.ip.aws.", A, "forward"),
        ("example.com.", A, "forward"),
        ("notec2.internal.", A, "forward"),
        (".", A, "forward"),
    ] {
        assert_eq!(said(name, kind), expected, "{name} {kind}");
    }
}

#[test]
fn public_names_lead_inward_only_where_the_vpc_gives_them() {
    let (network, _) = network();
    let vpc = Vpc { dns_hostnames: false, ..examples::vpc() };
    network.put_vpc(&vpc);
    let query = query("ec2-203-0-113-12.compute-1.amazonaws.com.", RecordType::A);
    let Some(Here::Answer(answer)) = here(&guest(&network), &network, &query) else { panic!() };
    assert_eq!(answer.answers[0].data.to_string(), "203.0.113.12");
}

#[test]
fn a_peers_public_names_lead_inward_where_it_lets_them() {
    let peer_vpc_id = Id::parse(Kind::Vpc, "vpc-00000000000000002").unwrap();
    for (resolves_names, expected) in [(false, "203.0.113.12"), (true, "172.31.16.12")] {
        let network = HostNetwork::new(Doubles::new());
        let (mut own, mut peer) = (examples::vpc(), examples::vpc());
        peer.network.vpc_id = peer_vpc_id.clone();
        own.network.peerings.push(datapath::Peering {
            peering_id: Id::parse(Kind::VpcPeeringConnection, "pcx-00000000000000001").unwrap(),
            peer_vpc_id: peer_vpc_id.clone(),
            resolves_names,
        });
        let mut desired = Desired::default();
        desired.vpcs.extend([own, peer].map(|vpc| (vpc.network.vpc_id.clone(), vpc)));
        let mut far = examples::instance(2);
        far.interfaces[0].network.vpc_id = peer_vpc_id.clone();
        network.replace(&desired, vec![Arc::new(examples::instance(1)), Arc::new(far)]);
        let query = query("ec2-203-0-113-12.compute-1.amazonaws.com.", RecordType::A);
        let Some(Here::Answer(answer)) = here(&guest(&network), &network, &query) else { panic!() };
        assert_eq!(answer.answers[0].data.to_string(), expected);
    }
}

#[test]
fn an_address_of_ipv6_leads_back_to_the_instance_that_is_named_so() {
    let own = "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.7.6.5.4.3.2.1.d.f.ip6.arpa.";
    let others = own.replace("a.0.0.", "b.0.0.");
    let outside = own.replace("2.1.d.f.", "2.2.d.f.");
    for (named, expected) in [(true, "NoError i-00000000000000001.ec2.internal."), (false, "NXDomain ")] {
        let doubles = Doubles::new();
        let network = HostNetwork::new(doubles.clone());
        let mut desired = Desired::default();
        let mut vpc = examples::vpc();
        vpc.network.ipv6_cidrs = vec!["fd12:3456:7800::/56".parse().unwrap()];
        desired.vpcs.insert(vpc.network.vpc_id.clone(), vpc);
        let mut instance = examples::instance(1);
        instance.metadata.resource_aaaa_record = named;
        instance.interfaces[0].network.ipv6_addresses = vec!["fd12:3456:7800::a".parse().unwrap()];
        let interfaces = vec![instance.interfaces[0].network.clone()];
        *doubles.plan.lock() = Some(datapath::Plan { interfaces, ..Default::default() });
        network.replace(&desired, vec![Arc::new(instance)]);
        let said = |name: &str| said_by(&network, name, RecordType::PTR);
        assert_eq!(said(own), expected);
        assert_eq!((said(&others), said(&outside)), ("NXDomain ".into(), "forward".into()));
        assert_eq!(said("0.8.7.6.5.4.3.2.1.d.f.ip6.arpa."), "forward");
    }
}

/// The example's, in a subnet that wants addresses of IPv6 for what has none.
fn network_with_dns64() -> Arc<HostNetwork> {
    let (network, _) = network();
    let mut vpc = examples::vpc();
    vpc.dns64_subnets.insert(examples::instance(1).interfaces[0].network.subnet_id.clone());
    network.put_vpc(&vpc);
    network
}

#[test]
fn what_has_ipv4_alone_has_an_address_of_ipv6_where_the_subnet_wants_it() {
    let network = network_with_dns64();
    for (name, expected) in [
        ("ip-172-31-16-11.ec2.internal.", "NoError 64:ff9b::ac1f:100b"),
        ("i-00000000000000002.ec2.internal.", "NoError 64:ff9b::ac1f:100c"),
        ("ip-10-0-0-1.ec2.internal.", "NXDomain "),
        ("instance-data.ec2.internal.", "NoError "),
        ("ec2.internal.", "NoError "),
        ("f5lnz-0khrm-nt2u3-gyqqt-nbdl5.us-east-1.ip.aws.", "NoError ffff:1407:4:f000:81d:2689:1066:4489"),
        ("example.com.", "forward"),
    ] {
        assert_eq!(said_by(&network, name, RecordType::AAAA), expected, "{name}");
    }
    assert_eq!(said_by(&network, "ip-172-31-16-11.ec2.internal.", RecordType::A), "NoError 172.31.16.11");
}

#[tokio::test]
async fn what_the_hosts_resolvers_know_by_ipv4_alone_has_an_address_of_ipv6_too() {
    let (port, upstream) = upstream().await;
    let resolv_conf = tempfile::NamedTempFile::new().unwrap();
    let service = service(&resolv_conf, "nameserver 127.0.0.1\n", port);
    let network = network_with_dns64();
    let guest = guest(&network);
    for transport in [Transport::Udp, Transport::Tcp] {
        let query = query("example.com.", RecordType::AAAA);
        let answer = service.answer(&guest, &network, &query, transport).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!((answer.metadata.id, answer.queries[0].query_type()), (77, RecordType::AAAA));
        assert_eq!(answer.answers[0].data.to_string(), "64:ff9b::c000:201");
    }
    // Of a name with many, a datagram holds no more than was asked for.
    let query = query("many.example.com.", RecordType::AAAA);
    let answer = service.answer(&guest, &network, &query, Transport::Udp).await.unwrap();
    assert!(answer.len() <= 512 && Message::from_vec(&answer).unwrap().metadata.truncation);
    let answer = service.answer(&guest, &network, &query, Transport::Tcp).await.unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 20);
    // Who judges signatures himself is told what there is.
    let mut judging = Message::from_vec(&query).unwrap();
    judging.metadata.checking_disabled = true;
    judging.edns = Some(Edns::new());
    judging.edns.as_mut().unwrap().set_dnssec_ok(true);
    let answer = service.answer(&guest, &network, &judging.to_vec().unwrap(), Transport::Udp).await.unwrap();
    assert!(Message::from_vec(&answer).unwrap().answers.is_empty());
    upstream.abort();
}

#[test]
fn what_is_no_query_gets_no_or_a_short_answer() {
    let (network, _) = network();
    let guest = guest(&network);
    let code = |message: &Message| match here(&guest, &network, &message.to_vec().unwrap()) {
        Some(Here::Answer(answer)) => Some(answer.metadata.response_code),
        Some(Here::Forward(_)) => panic!(),
        None => None,
    };
    assert_eq!(code(&Message::new(1, MessageType::Response, OpCode::Query)), None);
    assert_eq!(code(&Message::new(1, MessageType::Query, OpCode::Query)), Some(ResponseCode::FormErr));
    assert_eq!(code(&Message::new(1, MessageType::Query, OpCode::Status)), Some(ResponseCode::NotImp));
    let mut vpc = examples::vpc();
    vpc.dns_support = false;
    network.put_vpc(&vpc);
    let guest = network.guest(&examples::instance(1).interfaces[0].network.interface_id).unwrap();
    for name in ["example.com.", "ip-172-31-16-11.ec2.internal."] {
        assert!(here(&guest, &network, &query(name, RecordType::A)).is_none());
    }
}

/// A resolver that answers each query for an address of IPv4 with 192.0.2.1, twenty times for `many`; before it, one lie
/// with another id.
async fn upstream() -> (u16, tokio::task::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind(socket.local_addr().unwrap()).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let answer = |bytes: &[u8]| {
        let query = Message::from_vec(bytes).unwrap();
        let question = &query.queries[0];
        let count = match question.query_type() {
            RecordType::A if question.name().to_ascii().starts_with("many.") => 20,
            RecordType::A => 1,
            _ => 0,
        };
        let data = RData::A(hickory_proto::rr::rdata::A(Ipv4Addr::new(192, 0, 2, 1)));
        let record = Record::from_rdata(question.name().clone(), 5, data);
        response(&query, question, vec![record; count]).to_vec().unwrap()
    };
    let serving = tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            tokio::select! {
                received = socket.recv_from(&mut buffer) => {
                    let (length, from) = received.unwrap();
                    let answer = answer(&buffer[..length]);
                    let mut lie = answer.clone();
                    lie[0] ^= 1;
                    *lie.last_mut().unwrap() = 66;
                    socket.send_to(&lie, from).await.unwrap();
                    socket.send_to(&answer, from).await.unwrap();
                }
                accepted = listener.accept() => {
                    let mut stream = accepted.unwrap().0;
                    let length = stream.read_u16().await.unwrap().into();
                    stream.read_exact(&mut buffer[..length]).await.unwrap();
                    let answer = answer(&buffer[..length]);
                    stream.write_u16(answer.len() as u16).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        }
    });
    (port, serving)
}

fn service(resolv_conf: &tempfile::NamedTempFile, text: &str, port: u16) -> Arc<DnsService> {
    std::fs::write(resolv_conf.path(), text).unwrap();
    let upstream = Upstream::new(resolv_conf.path().to_owned(), Arc::new(SeededRandom::new(1)));
    Arc::new(DnsService::with_upstream(upstream.on_port(port)))
}

#[tokio::test]
async fn other_names_are_asked_of_the_hosts_resolvers() {
    let (port, upstream) = upstream().await;
    let resolv_conf = tempfile::NamedTempFile::new().unwrap();
    let service = service(&resolv_conf, "nameserver 127.0.0.1\n", port);
    let (network, _) = network();
    let guest = guest(&network);
    for transport in [Transport::Udp, Transport::Tcp] {
        let query = query("example.com.", RecordType::A);
        let answer = service.answer(&guest, &network, &query, transport).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, 77, "the guest's own id");
        assert_eq!(answer.answers[0].data.to_string(), "192.0.2.1");
    }
    upstream.abort();
}

#[tokio::test]
async fn without_a_resolver_the_answer_is_servfail_at_once() {
    let resolv_conf = tempfile::NamedTempFile::new().unwrap();
    let (network, _) = network();
    let guest = guest(&network);
    // None at all; only a guest of ours; one that is not there.
    for text in ["", "nameserver 203.0.113.12\n", "nameserver 127.0.0.1\n"] {
        let service = service(&resolv_conf, text, 1);
        let asked = std::time::Instant::now();
        let query = query("example.com.", RecordType::A);
        let answer = service.answer(&guest, &network, &query, Transport::Udp).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!((answer.metadata.id, answer.metadata.response_code), (77, ResponseCode::ServFail));
        assert_eq!(answer.queries.len(), 1);
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn both_wires_carry_answers() {
    let resolv_conf = tempfile::NamedTempFile::new().unwrap();
    let service = service(&resolv_conf, "", 1);
    let (network, doubles) = network();
    host::net::Network::apply(&*doubles, network.plan().unwrap().1).await.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (udp_address, tcp_address) = (socket.local_addr().unwrap(), listener.local_addr().unwrap());
    let vpc_id = examples::vpc().network.vpc_id;
    let udp = tokio::spawn(serve_udp(socket, vpc_id.clone(), network.clone(), service.clone()));
    let tcp = tokio::spawn(serve_tcp(listener, vpc_id, network, service));

    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(udp_address).await.unwrap();
    let mut buffer = [0; 512];
    client.send(b"no query").await.unwrap();
    for (name, code) in
        [("ip-172-31-0-9.ec2.internal.", ResponseCode::NoError), ("x.org.", ResponseCode::ServFail)]
    {
        client.send(&query(name, RecordType::A)).await.unwrap();
        let length = client.recv(&mut buffer).await.unwrap();
        assert_eq!(Message::from_vec(&buffer[..length]).unwrap().metadata.response_code, code);
    }
    let mut client = tokio::net::TcpStream::connect(tcp_address).await.unwrap();
    for _ in 0..2 {
        let query = query("ip-172-31-0-9.ec2.internal.", RecordType::A);
        client.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).await.unwrap();
        let length: usize = client.read_u16().await.unwrap().into();
        client.read_exact(&mut buffer[..length]).await.unwrap();
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(answer.answers[0].data.to_string(), "172.31.0.9");
    }
    client.write_all(&[0xff; 20]).await.unwrap();
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert_eq!(rest, b"", "too long a query ends the connection");
    udp.abort();
    tcp.abort();
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..40, value in any::<u8>()) {
        let (network, _) = network();
        let guest = guest(&network);
        here(&guest, &network, &noise);
        let mut bytes = query("ip-172-31-16-11.ec2.internal.", RecordType::A);
        bytes[at] = value;
        bytes.extend(&noise);
        if let Some(Here::Answer(answer)) = here(&guest, &network, &bytes) {
            prop_assert!(answer.to_vec().is_ok());
        }
    }
}
