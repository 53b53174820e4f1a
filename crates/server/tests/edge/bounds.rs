//! Too much, too slow, too many.

use crate::cloud::{reached, start};
use crate::wire::{DESCRIBE, Draft, FORM, Wire};
use server::{Options, limits};
use std::time::Duration;

/// Long enough for a request to be answered, short enough to wait for.
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_body_up_to_the_bound_is_taken_and_one_byte_more_is_not() {
    let server = start(Options::default()).await;
    let of_length = |length: usize| {
        let start = format!("{DESCRIBE}&Padding=");
        Draft::post(format!("{start}{}", "x".repeat(length - start.len()))).signed()
    };
    assert_eq!(of_length(limits::FORM_BODY_BYTES_MAX).ask(&server).await.status, 200);
    let over = of_length(limits::FORM_BODY_BYTES_MAX + 1);
    // Far more than sockets hold: the caller is let finish, and then told.
    let far_over = of_length(8 * limits::FORM_BODY_BYTES_MAX);
    for bytes in [over.bytes(), over.chunked_bytes(), far_over.bytes(), far_over.chunked_bytes()] {
        let mut wire = Wire::connect(&server).await;
        wire.send(&bytes).await;
        let answer = wire.answer().await;
        assert_eq!(answer.error(), (413, "RequestEntityTooLarge"));
        assert!(answer.message().contains("1048576"), "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        wire.closed().await;
    }
}

#[tokio::test]
async fn a_caller_that_asks_first_is_told_before_it_sends() {
    let server = start(Options::default()).await;
    let mut wire = Wire::connect(&server).await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: {FORM}\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n"
    );
    wire.send(head.as_bytes()).await;
    assert_eq!(wire.answer().await.error(), (413, "RequestEntityTooLarge"));
    wire.closed().await;
}

#[tokio::test]
async fn the_head_is_bounded() {
    let server = start(Options::default()).await;
    let mut wire = Wire::connect(&server).await;
    let padding = "x".repeat(limits::HEAD_BYTES_MAX / 2);
    let draft = Draft::post(DESCRIBE).header("x-padding", &padding).signed();
    wire.send(&draft.bytes()).await;
    assert_eq!(wire.answer().await.status, 200);
    let draft = draft.header("x-more", &padding);
    wire.send(&draft.bytes()).await;
    assert_eq!(wire.answer().await.status, 431);
    wire.closed().await;

    let mut many = Draft::post(DESCRIBE);
    for number in 0..=limits::HEADERS_MAX {
        many = many.header(&format!("x-{number}"), "1");
    }
    assert_eq!(many.signed().ask(&server).await.status, 431);
}

#[tokio::test]
async fn the_number_of_parameters_is_bounded() {
    let server = start(Options::default()).await;
    let body: String = (0..=limits::PARAMETERS_MAX).map(|number| format!("A.{number}=1&")).collect();
    let answer = Draft::post(body).signed().ask(&server).await;
    assert_eq!(answer.error(), (400, "InvalidQueryParameter"));
}

#[tokio::test]
async fn a_dribbled_head_is_cut_off() {
    let server = start(Options { head_read_timeout: SHORT, ..Options::default() }).await;
    let mut wire = Wire::connect(&server).await;
    wire.send(b"POST / HTTP/1.1\r\nhost: a\r\nx-slow: ").await;
    wire.closed().await;
}

#[tokio::test]
async fn a_dribbled_body_is_cut_off() {
    let server = start(Options { body_read_timeout: SHORT, ..Options::default() }).await;
    let mut wire = Wire::connect(&server).await;
    let bytes = Draft::post(DESCRIBE).signed().bytes();
    wire.send(&bytes[..bytes.len() - 5]).await;
    assert_eq!(wire.answer().await.error(), (408, "RequestTimeout"));
    wire.closed().await;
}

#[tokio::test]
async fn a_caller_who_does_not_read_loses_its_place() {
    let options = Options { connections_max: 1, write_stall_timeout: SHORT, ..Options::default() };
    let server = start(options).await;
    let mut deaf = Wire::connect(&server).await;
    deaf.send(&Draft::get("Action=DescribeImages").signed().bytes()).await;
    assert_eq!(Draft::get(DESCRIBE).signed().ask(&server).await.status, 200);
}

#[tokio::test]
async fn connections_too_many_wait_for_a_place() {
    let server = start(Options { connections_max: 1, ..Options::default() }).await;
    let mut first = Wire::connect(&server).await;
    first.send(&Draft::post("Action=RunInstances").signed().bytes()).await;
    reached(&server.cloud.begun).await;
    let mut second = Wire::connect(&server).await;
    second.send(&Draft::post(DESCRIBE).signed().bytes()).await;
    tokio::time::timeout(SHORT, second.answer()).await.expect_err("answered though there was no place");
    server.cloud.released.add_permits(1);
    assert_eq!(first.answer().await.body, "ran");
    drop(first);
    assert_eq!(second.answer().await.status, 200);
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let server = start(Options::default()).await;
    let mut wire = Wire::connect(&server).await;
    wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 400);
    wire.closed().await;
}
