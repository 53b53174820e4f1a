//! The metadata service on the wire: HTTP/1.1 on the listener of one VPC.
//!
//! Everything a guest sends is bounded: headers, path, connections, requests, and the time that each may take.
//! Bodies are never read.

use super::{Answer, MetadataService, Method, Request};
use crate::network::HostNetwork;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, SERVER};
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::Id;
use std::convert::Infallible;
use std::net::TcpStream;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const FORWARDED: &str = "x-forwarded-for";

/// Hyper's smallest; no request of a well-meaning client comes near.
const HEADER_BYTES_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;
/// For a request to arrive, and for an idle connection to ask again.
const HEADER_WITHIN: Duration = Duration::from_secs(15);
/// For a connection in all: one that reads its answers slower than this is not a client.
const CONNECTION_WITHIN: Duration = Duration::from_secs(300);
/// After an accept that failed, as for want of file descriptors: they come back when connections end.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves the VPC until aborted; its connections end with it.
pub(crate) async fn serve(
    listener: TcpListener,
    vpc_id: Id,
    network: Arc<HostNetwork>,
    service: Arc<MetadataService>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match stream.into_std() {
                    Ok(stream) => accept(&mut connections, stream, &vpc_id, &network, &service),
                    Err(error) => tracing::debug!(%vpc_id, error = %error, "connection lost"),
                },
                Err(error) => {
                    tracing::warn!(%vpc_id, error = %error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A connection of nobody known, or one too many, is closed without a word.
fn accept(
    connections: &mut JoinSet<()>,
    stream: TcpStream,
    vpc_id: &Id,
    network: &Arc<HostNetwork>,
    service: &Arc<MetadataService>,
) {
    let Some(interface_id) = network.driver().interface_of_connection(vpc_id, &stream) else { return };
    let Some(guest) = network.guest(&interface_id) else { return };
    let Some(slot) = service.connections.take(&guest.instance.instance_id) else { return };
    let (network, service) = (network.clone(), service.clone());
    connections.spawn(async move {
        let _slot = slot;
        let connection = serve_connection(stream, interface_id, network, service);
        // An end by the guest, or by a bound, is no news to anybody.
        let _ = tokio::time::timeout(CONNECTION_WITHIN, connection).await;
    });
}

pub(super) async fn serve_connection(
    stream: TcpStream,
    interface_id: Id,
    network: Arc<HostNetwork>,
    service: Arc<MetadataService>,
) -> std::io::Result<()> {
    let socket = Arc::new(stream.as_fd().try_clone_to_owned()?);
    let over_ipv6 = stream.local_addr()?.is_ipv6();
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let handler = service_fn(|request| {
        let (interface_id, network) = (interface_id.clone(), network.clone());
        let (service, socket) = (service.clone(), socket.clone());
        async move {
            Ok::<_, Infallible>(respond(request, &interface_id, &network, &service, &socket, over_ipv6).await)
        }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), handler)
        .await
        .map_err(std::io::Error::other)
}

async fn respond(
    request: hyper::Request<Incoming>,
    interface_id: &Id,
    network: &HostNetwork,
    service: &MetadataService,
    socket: &OwnedFd,
    over_ipv6: bool,
) -> Response<Full<Bytes>> {
    // Looked up for each request: its metadata may have changed, or the interface gone to another instance.
    let Some(guest) = network.guest(interface_id) else { return response(Answer::error(404)) };
    let method = match *request.method() {
        hyper::Method::GET | hyper::Method::HEAD => Method::Get,
        hyper::Method::PUT => Method::Put,
        _ => Method::Other,
    };
    let headers = request.headers();
    let request = Request {
        method,
        path: request.uri().path(),
        token: header(headers, TOKEN),
        ttl: header(headers, TOKEN_TTL),
        forwarded: headers.contains_key(FORWARDED),
        over_ipv6,
    };
    let answer = service.answer(&guest, request).await;
    if let Some(hops) = answer.hop_limit {
        // Never raised again on this connection: a token that is sent anew must not travel further.
        let set = match over_ipv6 {
            true => rustix::net::sockopt::set_ipv6_unicast_hops(socket, Some(hops)),
            false => rustix::net::sockopt::set_ip_ttl(socket, hops.into()),
        };
        if let Err(error) = set {
            tracing::error!(%interface_id, error = %error, "hop limit not set");
            return response(Answer::error(500));
        }
    }
    response(answer)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get(name).map(HeaderValue::as_bytes)
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(SERVER, HeaderValue::from_static("EC2ws"));
    headers.insert("accept-ranges", HeaderValue::from_static("none"));
    if let Some(seconds) = answer.token_ttl {
        headers.insert(TOKEN_TTL, seconds.into());
    }
    response
}
