//! The life of connections: reused, pipelined, abandoned, and ended in order.

use crate::cloud::{reached, start, within};
use crate::wire::{DESCRIBE, Draft, IDENTITY, Wire};
use server::Options;
use std::time::Duration;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_connection_serves_many_requests_errors_included() {
    let server = start(Options::default()).await;
    let mut wire = Wire::connect(&server).await;
    for round in 0..10 {
        let draft = if round % 2 == 0 { Draft::post(DESCRIBE).signed() } else { Draft::post(DESCRIBE) };
        wire.send(&draft.bytes()).await;
        assert_eq!(wire.answer().await.status, if round % 2 == 0 { 200 } else { 403 });
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(Options::default()).await;
    let mut wire = Wire::connect(&server).await;
    let sts = Draft { service: "sts", ..Draft::post(IDENTITY) }.signed();
    let mut bytes = Draft::post(DESCRIBE).signed().bytes();
    bytes.extend(sts.chunked_bytes());
    bytes.extend(Draft::get(DESCRIBE).presigned(60).bytes());
    wire.send(&bytes).await;
    for service in ["ec2", "sts", "ec2"] {
        assert!(wire.answer().await.body.starts_with(service));
    }
}

#[tokio::test]
async fn a_panic_ends_neither_the_server_nor_the_connection() {
    let server = start(Options::default()).await;
    let mut wire = Wire::connect(&server).await;
    wire.send(&Draft::post("Action=StartInstances").signed().bytes()).await;
    assert_eq!(wire.answer().await.error(), (500, "InternalError"));
    wire.send(&Draft::post(DESCRIBE).signed().bytes()).await;
    assert_eq!(wire.answer().await.status, 200);
}

#[tokio::test]
async fn a_call_runs_to_its_end_though_its_caller_hangs_up() {
    let server = start(Options::default()).await;
    let mut wire = Wire::connect(&server).await;
    wire.send(&Draft::post("Action=RunInstances").signed().bytes()).await;
    reached(&server.cloud.begun).await;
    drop(wire);
    // Another exchange makes sure that the server has seen the end of the first connection.
    assert_eq!(Draft::post(DESCRIBE).signed().ask(&server).await.status, 200);
    server.cloud.released.add_permits(1);
    reached(&server.cloud.ended).await;
}

#[tokio::test]
async fn stopping_lets_requests_under_way_finish_and_idle_connections_go() {
    let server = start(Options::default()).await;
    let cloud = server.cloud.clone();
    let address = server.address;
    let mut idle = Wire::connect(&server).await;
    idle.send(&Draft::post(DESCRIBE).signed().bytes()).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut busy = Wire::connect(&server).await;
    busy.send(&Draft::post("Action=RunInstances").signed().bytes()).await;
    reached(&cloud.begun).await;

    let serving = server.stop();
    idle.closed().await;
    assert!(!serving.is_finished());
    assert!(TcpStream::connect(address).await.is_err(), "a new connection was taken");
    cloud.released.add_permits(1);
    assert_eq!(busy.answer().await.body, "ran");
    busy.closed().await;
    within(serving).await.unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_longer_than_the_grace() {
    let server = start(Options { shutdown_grace: Duration::from_millis(100), ..Options::default() }).await;
    let mut busy = Wire::connect(&server).await;
    busy.send(&Draft::post("Action=RunInstances").signed().bytes()).await;
    reached(&server.cloud.begun).await;
    within(server.stop()).await.unwrap();
    busy.closed().await;
}
