//! The policy through `answer`, and the wire over a real connection.

use super::*;
use crate::doubles::Doubles;
use crate::examples;
use crate::network::HostNetwork;
use agent_api::{Desired, Instance};
use model::ManualClock;
use proptest::prelude::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

fn service(dir: &tempfile::TempDir) -> (MetadataService, Arc<ManualClock>) {
    let (environment, clock) = Environment::seeded(1, "2026-03-01T00:00:00Z".parse().unwrap());
    let key = TokenKey::load_or_make(dir.path(), &*environment.random).unwrap();
    let identity = Identity::new(dir.path().to_owned(), environment.clone());
    (MetadataService::new(environment, key, identity), clock)
}

fn guest(number: u32, change: impl FnOnce(&mut Instance)) -> Guest {
    let mut instance = examples::instance(number);
    change(&mut instance);
    Guest::new(Arc::new(instance), Arc::new(examples::vpc()), 0)
}

fn get(path: &str) -> Request<'_> {
    Request { method: Method::Get, path, token: None, ttl: None, forwarded: false, over_ipv6: false }
}

fn put_token(ttl: Option<&'static str>) -> Request<'static> {
    let ttl = ttl.map(str::as_bytes);
    Request {
        method: Method::Put,
        path: "/latest/api/token",
        token: None,
        ttl,
        forwarded: false,
        over_ipv6: false,
    }
}

const INSTANCE_ID: &str = "/latest/meta-data/instance-id";

#[tokio::test]
async fn version_2_wants_a_token_of_the_same_instance_that_has_not_expired() {
    let dir = tempfile::tempdir().unwrap();
    let (service, clock) = service(&dir);
    let guest_1 = guest(1, |instance| instance.metadata_options.tokens_required = true);
    assert_eq!(service.answer(&guest_1, get(INSTANCE_ID)).await.status, 401);
    let made = service.answer(&guest_1, put_token(Some("60"))).await;
    assert_eq!((made.status, made.token_ttl, made.hop_limit), (200, Some(60), Some(2)));
    let with_token = || Request { token: Some(&made.body), ..get(INSTANCE_ID) };
    let answer = service.answer(&guest_1, with_token()).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"i-00000000000000001"[..]));
    assert_eq!(answer.hop_limit, None);
    let guest_2 = guest(2, |_| {});
    assert_eq!(service.answer(&guest_2, with_token()).await.status, 401, "another's token, though optional");
    clock.advance(Duration::from_secs(61));
    assert_eq!(service.answer(&guest_1, with_token()).await.status, 401);
}

#[tokio::test]
async fn version_1_works_where_tokens_are_optional() {
    let dir = tempfile::tempdir().unwrap();
    let (service, _) = service(&dir);
    let guest = guest(1, |_| {});
    assert_eq!(service.answer(&guest, get(INSTANCE_ID)).await.status, 200);
    let user_data = service.answer(&guest, get("/latest/user-data")).await;
    assert_eq!((user_data.status, user_data.content_type), (200, "application/octet-stream"));
    assert_eq!(&user_data.body[..], b"#!/bin/sh\necho hello\n");
    let missing = service.answer(&guest, get("/latest/meta-data/nothing")).await;
    assert!(
        missing.status == 404 && missing.body.starts_with(b"<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>")
    );
    let encoded =
        service.answer(&guest, get("/latest/meta-data/network/interfaces/macs/02%3A00%3aac:1f:10:0b/mac"));
    assert_eq!(encoded.await.status, 200);
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_with_ec2s_status() {
    let dir = tempfile::tempdir().unwrap();
    let (service, _) = service(&dir);
    let allowed = guest(1, |_| {});
    let forwarded = Request { forwarded: true, ..put_token(Some("60")) };
    assert_eq!(service.answer(&allowed, forwarded).await.status, 403);
    for ttl in
        [None, Some(""), Some("0"), Some("21601"), Some("-1"), Some("+1"), Some(" 60"), Some("99999999999")]
    {
        assert_eq!(service.answer(&allowed, put_token(ttl)).await.status, 400, "{ttl:?}");
    }
    for ttl in ["1", "21600"] {
        assert_eq!(service.answer(&allowed, put_token(Some(ttl))).await.status, 200, "{ttl}");
    }
    assert_eq!(service.answer(&allowed, get("/latest/api/token")).await.status, 405);
    let put = Request { path: INSTANCE_ID, ..put_token(Some("60")) };
    assert_eq!(service.answer(&allowed, put).await.status, 405);
    assert_eq!(service.answer(&allowed, Request { method: Method::Other, ..get("/") }).await.status, 405);
    assert_eq!(service.answer(&allowed, get(&format!("/{}", "x".repeat(2000)))).await.status, 414);
    assert_eq!(service.answer(&allowed, get("/%ff")).await.status, 400);
    let disabled = guest(1, |instance| instance.metadata_options.enabled = false);
    assert_eq!(service.answer(&disabled, get(INSTANCE_ID)).await.status, 403);
    assert_eq!(service.answer(&disabled, put_token(Some("60"))).await.status, 403);
    for (ipv6, status) in [(false, 403), (true, 200)] {
        let guest = guest(1, |instance| instance.metadata_options.ipv6 = ipv6);
        let request = Request { over_ipv6: true, ..get(INSTANCE_ID) };
        assert_eq!(service.answer(&guest, request).await.status, status, "{ipv6}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_answered_with_503_and_others_are_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (service, _) = service(&dir);
    let (loud, quiet) = (guest(1, |_| {}), guest(2, |_| {}));
    for _ in 0..REQUESTS_BURST {
        assert_eq!(service.answer(&loud, get("/")).await.status, 200);
    }
    assert_eq!(service.answer(&loud, get("/")).await.status, 503);
    assert_eq!(service.answer(&quiet, get("/")).await.status, 200);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(service.answer(&loud, get("/")).await.status, 200);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_request_makes_it_panic(
        path in "/?.{0,80}",
        token in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)),
        ttl in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..12)),
        method in prop_oneof![Just(Method::Get), Just(Method::Put), Just(Method::Other)],
        forwarded in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (service, _) = service(&dir);
        let guest = guest(1, |_| {});
        let request =
            Request { method, path: &path, token: token.as_deref(), ttl: ttl.as_deref(), forwarded, over_ipv6: false };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let answer = runtime.block_on(service.answer(&guest, request));
        prop_assert!(answer.status < 500);
    }
}

/// A served instance and where its guest would connect.
struct Served {
    _dir: tempfile::TempDir,
    network: Arc<HostNetwork>,
    instance: Arc<Instance>,
    address: std::net::SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

async fn serve_one() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let doubles = Doubles::new();
    let network = HostNetwork::new(doubles.clone());
    let instance = Arc::new(examples::instance(1));
    let mut desired = Desired::default();
    desired.vpcs.insert(examples::vpc().network.vpc_id, examples::vpc());
    network.replace(&desired, vec![instance.clone()]);
    host::net::Network::apply(&*doubles, network.plan().unwrap().1).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = Arc::new(service(&dir).0);
    let serving = tokio::spawn(serve(listener, examples::vpc().network.vpc_id, network.clone(), service));
    Served { _dir: dir, network, instance, address, serving }
}

impl Served {
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        // A server that refuses what was sent may reset the connection after its answer.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tokio::test]
async fn the_wire_is_ec2s() {
    let served = serve_one().await;
    let answer = served
        .say(
            b"PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\
              X-aws-ec2-metadata-token-ttl-seconds: 21600\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
    let (headers, token) = answer.split_once("\r\n\r\n").unwrap();
    assert!(headers.starts_with("HTTP/1.1 200 OK"), "{headers}");
    assert!(headers.contains("x-aws-ec2-metadata-token-ttl-seconds: 21600"), "{headers}");
    assert!(headers.contains("server: EC2ws"), "{headers}");
    let request = format!(
        "GET /2021-03-23/meta-data/local-ipv4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         X-aws-ec2-metadata-token: {token}\r\n\r\n"
    );
    let answer = served.say(request.as_bytes()).await;
    assert!(answer.ends_with("\r\n\r\n172.31.16.11"), "{answer}");
    let head =
        served.say(b"HEAD /latest/meta-data/mac HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(head.contains("content-length: 17") && head.ends_with("\r\n\r\n"), "{head}");
    let proxied =
        b"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 1.2.3.4\r\n\
                    X-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";
    assert!(served.say(proxied).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn what_is_too_large_or_no_http_is_refused_and_the_service_lives_on() {
    let served = serve_one().await;
    let long_header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    assert!(!served.say(long_header.as_bytes()).await.contains("200 OK"));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert!(!served.say(many_headers.as_bytes()).await.contains("200 OK"));
    for noise in [&b"\0\xff\xfe garbage"[..], b"GET\r\n\r\n", b"PUT /latest/api/token HTTP/9.9\r\n\r\n"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(noise).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"));
    }
    let answer = served.say(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("\nlatest"), "{answer}");
}

#[tokio::test]
async fn connections_are_bounded_and_one_without_a_guest_is_closed() {
    let served = serve_one().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_EACH_MAX {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    assert_eq!(served.say(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await, "");
    // Its interface is gone while a connection stands: no word of the metadata any more.
    served.network.detach(&served.instance.instance_id);
    let stream = &mut held[0];
    let mut rest = [0; 4096];
    stream
        .write_all(b"GET /latest/meta-data/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut all = Vec::new();
    while let Ok(length @ 1..) = stream.read(&mut rest).await {
        all.extend(&rest[..length]);
    }
    assert!(String::from_utf8_lossy(&all).contains("HTTP/1.1 404"));
    drop(held);
}

#[tokio::test]
async fn the_answer_to_a_put_travels_as_far_as_the_hop_limit() {
    let served = serve_one().await;
    let mut instance = (*served.instance).clone();
    instance.metadata_options.hop_limit = 1;
    served.network.update(&Arc::new(instance));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let socket = listener.accept().unwrap().0;
    socket.set_nonblocking(true).unwrap();
    let watched = socket.try_clone().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let interface_id = served.instance.interfaces[0].network.interface_id.clone();
    let connection =
        http::serve_connection(socket, interface_id, served.network.clone(), Arc::new(service(&dir).0));
    let connection = tokio::spawn(connection);
    let mut buffer = [0; 4096];
    let mut hops = Vec::new();
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n",
        "GET /latest/meta-data/mac HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        client.write_all(request.as_bytes()).await.unwrap();
        let length = client.read(&mut buffer).await.unwrap();
        assert!(buffer[..length].starts_with(b"HTTP/1.1 200"));
        hops.push(watched.ttl().unwrap());
    }
    assert!(hops[0] >= 64, "other answers travel as usual: {hops:?}");
    assert_eq!(hops[1..], [1, 1], "and nothing after a token on its connection");
    connection.abort();
}
