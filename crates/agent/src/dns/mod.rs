//! The VPC's resolver (Amazon VPC User Guide, "DNS attributes for your VPC"): its own names from what is known
//! here (`zone`), all others by the host's resolvers (`upstream`). Where a subnet wants it, what has IPv4 alone has
//! addresses of IPv6 too (`dns64`).
//!
//! Invariants: a query that is not answered here is forwarded as it came; all of one guest's queries under way are
//! bounded; none waits longer than `upstream` allows, twice at most.

mod dns64;
mod upstream;
mod zone;

use crate::limits::{Rate, Slots};
use crate::network::{Guest, HostNetwork};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::Record;
use model::{Id, Random};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use upstream::{Transport, Upstream};

/// Queries of one interface, as on EC2 (VPC User Guide, "DNS quotas": 1024 packets per second).
const QUERIES_PER_SECOND: u32 = 1024;
/// Forwarded queries of one guest, and of all, at a time: each holds a socket.
const FORWARDED_EACH_MAX: usize = 64;
const FORWARDED_MAX: usize = 1024;
const CONNECTIONS_EACH_MAX: usize = 8;
const CONNECTIONS_MAX: usize = 512;
/// For a query to arrive on a connection; for a connection in all.
const QUERY_WITHIN: Duration = Duration::from_secs(10);
const CONNECTION_WITHIN: Duration = Duration::from_secs(60);
/// A query is one name and a few options; what is longer is not one.
const QUERY_BYTES_MAX: usize = 4096;
/// What fits a datagram that no path splits (DNS flag day 2020).
const PAYLOAD_BYTES: u16 = 1232;
/// And what fits one for who does not say (RFC 1035, 4.2.1).
const DATAGRAM_BYTES: u16 = 512;
/// After a socket error, which is the host's: for it to pass.
const RECEIVE_AGAIN: Duration = Duration::from_millis(100);

pub(crate) struct DnsService {
    queries: Rate,
    forwarded: Arc<Slots>,
    connections: Arc<Slots>,
    upstream: Upstream,
}

impl DnsService {
    pub(crate) fn new(random: Arc<dyn Random>) -> Self {
        DnsService::with_upstream(Upstream::new("/etc/resolv.conf".into(), random))
    }

    fn with_upstream(upstream: Upstream) -> Self {
        DnsService {
            queries: Rate::new(QUERIES_PER_SECOND, QUERIES_PER_SECOND),
            forwarded: Slots::new(FORWARDED_EACH_MAX, FORWARDED_MAX),
            connections: Slots::new(CONNECTIONS_EACH_MAX, CONNECTIONS_MAX),
            upstream,
        }
    }

    /// None where the query gets no answer: it is not one, there are too many, or the VPC has no resolver.
    async fn answer(
        &self,
        guest: &Guest,
        network: &HostNetwork,
        bytes: &[u8],
        transport: Transport,
    ) -> Option<Vec<u8>> {
        match here(guest, network, bytes)? {
            Here::Answer(answer) => answer.to_vec().ok(),
            Here::Forward(query) => self.forward(guest, network, &query, bytes, transport).await,
        }
    }

    async fn forward(
        &self,
        guest: &Guest,
        network: &HostNetwork,
        query: &Message,
        bytes: &[u8],
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let _slot = self.forwarded.take(&guest.instance.instance_id)?;
        let Some(answer) = self.upstream.forward(bytes, transport, |to| network.is_guest(to)).await else {
            return refusal(query, ResponseCode::ServFail).to_vec().ok();
        };
        match dns64::question(guest, query) {
            Some(question) => {
                let by_ipv4 = self.by_ipv4(network, query, question, &answer, transport).await;
                by_ipv4.or(Some(answer))
            }
            None => Some(answer),
        }
    }

    /// What a name's addresses of IPv4 make of an answer without one of IPv6.
    async fn by_ipv4(
        &self,
        network: &HostNetwork,
        query: &Message,
        question: Query,
        answer: &[u8],
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let without = Message::from_vec(answer).ok().filter(dns64::lacks_ipv6)?;
        let mut asked = query.clone();
        asked.queries = vec![question];
        let asked = asked.to_vec().ok()?;
        let ipv4 = self.upstream.forward(&asked, transport, |to| network.is_guest(to)).await?;
        let ipv4 = Message::from_vec(&ipv4).ok()?;
        let records = dns64::records(&without, &ipv4.answers);
        if records.is_empty() {
            return None;
        }
        let mut response = refusal(query, ResponseCode::NoError);
        response.metadata.truncation = ipv4.metadata.truncation;
        response.add_answers(records);
        let whole = response.to_vec().ok()?;
        let fits = query.edns.as_ref().map_or(DATAGRAM_BYTES, |edns| edns.max_payload().max(DATAGRAM_BYTES));
        if transport == Transport::Tcp || whole.len() <= fits.into() {
            return Some(whole);
        }
        // To be asked for again, by TCP.
        response.metadata.truncation = true;
        response.answers.clear();
        response.to_vec().ok()
    }
}

enum Here {
    Answer(Message),
    Forward(Message),
}

/// What can be said without asking anybody.
fn here(guest: &Guest, network: &HostNetwork, bytes: &[u8]) -> Option<Here> {
    let query = Message::from_vec(bytes).ok()?;
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    // As if no resolver were there.
    if !guest.vpc.dns_support {
        return None;
    }
    if query.metadata.op_code != OpCode::Query {
        return Some(Here::Answer(refusal(&query, ResponseCode::NotImp)));
    }
    let [question] = &query.queries[..] else {
        return Some(Here::Answer(refusal(&query, ResponseCode::FormErr)));
    };
    Some(match zone::find(guest, question, network) {
        Some(Ok(records)) => {
            let mut answer = response(&query, question, records);
            if let Some(question) = dns64::question(guest, &query)
                && dns64::lacks_ipv6(&answer)
                && let Some(Ok(ipv4)) = zone::find(guest, &question, network)
            {
                answer.answers = dns64::records(&answer, &ipv4);
            }
            Here::Answer(answer)
        }
        Some(Err(code)) => Here::Answer(refusal(&query, code)),
        None => Here::Forward(query),
    })
}

fn response(query: &Message, question: &Query, records: Vec<Record>) -> Message {
    let mut response = refusal(query, ResponseCode::NoError);
    response.metadata.authoritative = true;
    response.queries = vec![question.clone()];
    response.add_answers(records);
    response
}

fn refusal(query: &Message, code: ResponseCode) -> Message {
    let mut response = Message::error_msg(query.metadata.id, query.metadata.op_code, code);
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.queries.clone_from(&query.queries);
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD_BYTES);
        response.edns = Some(edns);
    }
    response
}

/// Serves one of the VPC's addresses until aborted.
pub(crate) async fn serve_udp(
    socket: UdpSocket,
    vpc_id: Id,
    network: Arc<HostNetwork>,
    service: Arc<DnsService>,
) {
    let socket = Arc::new(socket);
    let mut buffer = [0; QUERY_BYTES_MAX];
    let mut queries = JoinSet::new();
    loop {
        let (length, from) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%vpc_id, error = %error, "no query received");
                    tokio::time::sleep(RECEIVE_AGAIN).await;
                    continue;
                }
            },
            Some(_) = queries.join_next() => continue,
        };
        let Some(guest) = guest_at(&network, &vpc_id, from.ip(), &service) else { continue };
        let bytes = &buffer[..length];
        match here(&guest, &network, bytes) {
            None => {}
            Some(Here::Answer(answer)) => {
                if let Ok(answer) = answer.to_vec() {
                    // Lost as any datagram may be.
                    let _ = socket.try_send_to(&answer, from);
                }
            }
            Some(Here::Forward(query)) if queries.len() < FORWARDED_MAX => {
                let (network, service) = (network.clone(), service.clone());
                let (socket, bytes) = (socket.clone(), bytes.to_vec());
                queries.spawn(async move {
                    let answer = service.forward(&guest, &network, &query, &bytes, Transport::Udp).await;
                    if let Some(answer) = answer {
                        let _ = socket.try_send_to(&answer, from);
                    }
                });
            }
            Some(Here::Forward(_)) => {}
        }
    }
}

fn guest_at(network: &HostNetwork, vpc_id: &Id, address: IpAddr, service: &DnsService) -> Option<Guest> {
    let interface_id = network.driver().interface_of_address(vpc_id, address)?;
    network.guest(&interface_id).filter(|_| service.queries.allow(&interface_id))
}

/// Serves one of the VPC's addresses until aborted; its connections end with it.
pub(crate) async fn serve_tcp(
    listener: TcpListener,
    vpc_id: Id,
    network: Arc<HostNetwork>,
    service: Arc<DnsService>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted.and_then(|(stream, from)| Ok((stream.into_std()?, from))) {
            Ok((stream, from)) => accept(&mut connections, stream, from, &vpc_id, &network, &service),
            Err(error) => {
                tracing::warn!(%vpc_id, error = %error, "connection not accepted");
                tokio::time::sleep(RECEIVE_AGAIN).await;
            }
        }
    }
}

fn accept(
    connections: &mut JoinSet<()>,
    stream: TcpStream,
    from: SocketAddr,
    vpc_id: &Id,
    network: &Arc<HostNetwork>,
    service: &Arc<DnsService>,
) {
    let Some(guest) = guest_at(network, vpc_id, from.ip(), service) else { return };
    let Some(slot) = service.connections.take(&guest.instance.instance_id) else { return };
    let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { return };
    let (vpc_id, network, service) = (vpc_id.clone(), network.clone(), service.clone());
    connections.spawn(async move {
        let _slot = slot;
        let connection = serve_connection(stream, from, vpc_id, network, service);
        // An end by the guest, or by a bound, is no news to anybody.
        let _ = tokio::time::timeout(CONNECTION_WITHIN, connection).await;
    });
}

async fn serve_connection(
    mut stream: tokio::net::TcpStream,
    from: SocketAddr,
    vpc_id: Id,
    network: Arc<HostNetwork>,
    service: Arc<DnsService>,
) -> std::io::Result<()> {
    loop {
        let length = tokio::time::timeout(QUERY_WITHIN, stream.read_u16()).await??;
        if usize::from(length) > QUERY_BYTES_MAX {
            return Ok(());
        }
        let mut bytes = vec![0; length.into()];
        tokio::time::timeout(QUERY_WITHIN, stream.read_exact(&mut bytes)).await??;
        // Looked up for each query: the address may have gone to another instance.
        let Some(guest) = guest_at(&network, &vpc_id, from.ip(), &service) else { return Ok(()) };
        let Some(answer) = service.answer(&guest, &network, &bytes, Transport::Tcp).await else {
            return Ok(());
        };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

#[cfg(test)]
mod tests;
