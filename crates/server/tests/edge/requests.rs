//! What a well-signed request may look like, and what every answer has.

use crate::cloud::{ACCESS_KEY_ID, CAUSE, SECRET, reached, start, within};
use crate::wire::{DESCRIBE, Draft, FORM, Wire};
use parking_lot::Mutex;
use server::Options;
use std::io;
use std::sync::Arc;
use tracing_subscriber::fmt::MakeWriter;

#[tokio::test]
async fn parameters_come_from_the_query_and_the_form() {
    let server = start(Options::default()).await;
    let mut draft = Draft::post("Filter.1.Name=tag%3AName&Filter.1.Value.1=a+b%20c%2Bd%C3%BC");
    draft.query = DESCRIBE.into();
    let answer = draft.signed().ask(&server).await;
    assert!(answer.body.contains("\nAction=DescribeInstances\n"), "{answer:?}");
    assert!(answer.body.ends_with("Filter.1.Name=tag:Name\nFilter.1.Value.1=a b c+dü\n"), "{answer:?}");
}

#[tokio::test]
async fn a_chunked_body_is_read_whole() {
    let server = start(Options::default()).await;
    let mut wire = Wire::connect(&server).await;
    wire.send(&Draft::post(DESCRIBE).signed().chunked_bytes()).await;
    let answer = wire.answer().await;
    assert!(answer.body.ends_with("Action=DescribeInstances\nVersion=2016-11-15\n"), "{answer:?}");
}

#[tokio::test]
async fn a_path_is_acted_on_as_it_was_signed() {
    let server = start(Options::default()).await;
    let draft = Draft { path: "//a/./../b", ..Draft::get(DESCRIBE) }.signed();
    let answer = draft.ask(&server).await;
    assert!(answer.body.lines().next().unwrap().ends_with(" /b"), "{answer:?}");
}

#[tokio::test]
async fn every_answer_has_its_headers() {
    let server = start(Options::default()).await;
    let good = Draft::post(DESCRIBE).signed().ask(&server).await;
    let bad = Draft::post(DESCRIBE).ask(&server).await;
    for answer in [&good, &bad] {
        let id = answer.header("x-amzn-requestid").unwrap();
        assert_eq!(answer.header("x-amz-request-id"), Some(id));
        assert_eq!(id.len(), 36);
        assert_eq!(answer.header("server"), Some("cumulet"));
        assert_eq!(answer.header("content-type"), Some("text/xml;charset=UTF-8"));
    }
    assert_eq!(good.header("x-test"), Some("yes"));
    assert!(bad.body.contains(bad.header("x-amzn-requestid").unwrap()));
    assert_ne!(good.header("x-amzn-requestid"), bad.header("x-amzn-requestid"));
}

#[tokio::test]
async fn bad_text_is_named_after_the_signature_is_checked() {
    let server = start(Options::default()).await;
    for (body, status, code) in [
        ("Action=%zz", 404, "MalformedQueryString"),
        ("Action=%ff", 404, "MalformedQueryString"),
        ("Action=A&Action=B", 400, "InvalidQueryParameter"),
    ] {
        assert_eq!(Draft::post(body).signed().ask(&server).await.error(), (status, code), "{body}");
        assert_eq!(Draft::post(body).ask(&server).await.error(), (403, "MissingAuthenticationToken"));
    }
    let mut json = Draft::post(DESCRIBE);
    json.headers[1].1 = "application/json".into();
    assert_eq!(json.signed().ask(&server).await.error(), (415, "UnsupportedMediaType"));
}

#[tokio::test]
async fn unknown_actions_and_services_are_clear_errors() {
    let server = start(Options::default()).await;
    let nonsense = Draft::post("Action=Nonsense&Version=2016-11-15").signed().ask(&server).await;
    assert_eq!(nonsense.error(), (400, "InvalidAction"));
    let bucket = Draft { service: "s3", path: "/bucket/key", ..Draft::get("") }.signed().ask(&server).await;
    assert_eq!(bucket.error(), (501, "NotImplemented"));
    assert!(bucket.message().contains("'s3'"));
}

#[tokio::test]
async fn people_and_health_checks_are_answered_in_plain_text() {
    let server = start(Options::default()).await;
    let welcome = Draft::get("").ask(&server).await;
    assert_eq!((welcome.status, welcome.header("content-type")), (200, Some("text/plain;charset=UTF-8")));
    assert!(welcome.body.contains("AWS_ENDPOINT_URL=http://127.0.0.1:8773\n"), "{welcome:?}");
    let mut script = Draft::get("");
    script.headers[0].1 = "<script>".into();
    assert!(!script.ask(&server).await.body.contains("<script>"));
    let health = Draft { path: "/health", ..Draft::get("") }.ask(&server).await;
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    // Whoever asks for an operation is no passer-by.
    assert_eq!(Draft::get(DESCRIBE).ask(&server).await.error(), (403, "MissingAuthenticationToken"));
}

#[tokio::test]
async fn other_methods_are_refused() {
    let server = start(Options::default()).await;
    for method in ["OPTIONS", "DELETE", "PUT", "PATCH", "TRACE"] {
        let answer = Draft { method, ..Draft::post(DESCRIBE) }.signed().ask(&server).await;
        assert_eq!(answer.error(), (405, "MethodNotAllowed"), "{method}");
        assert_eq!(answer.header("allow"), Some("GET, POST"));
    }
    let mut wire = Wire::connect(&server).await;
    wire.send(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = wire.head().await;
    assert_eq!((head.status, head.header("allow")), (405, Some("GET, POST")));
    let put = Draft { method: "PUT", service: "ebs", path: "/snapshots/snap-1/blocks/0", ..Draft::get("") };
    assert_ne!(put.signed().ask(&server).await.status, 405);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[tokio::test]
async fn a_fault_is_told_to_the_log_and_not_to_the_caller() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());

    let server = start(Options::default()).await;
    let failed = Draft::post("Action=StopInstances&Version=2016-11-15").signed().ask(&server).await;
    let panicked = Draft::post("Action=StartInstances&Version=2016-11-15").signed().ask(&server).await;
    let link = Draft::get(DESCRIBE).presigned(60);
    assert_eq!(link.ask(&server).await.status, 200);
    let signature = link.query.split_once("X-Amz-Signature=").unwrap().1;
    let mut hasty = Wire::connect(&server).await;
    hasty.send(&Draft::post("Action=RunInstances&Version=2016-11-15").signed().bytes()).await;
    reached(&server.cloud.begun).await;
    drop(hasty);
    within(async {
        while !log.text().contains("status=499") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for answer in [&failed, &panicked] {
        assert_eq!(answer.error(), (500, "InternalError"));
        assert_eq!(answer.message(), "An internal error has occurred");
    }

    let log = log.text();
    let line = |answer: &crate::wire::Answer, text: &str| {
        let id = answer.header("x-amzn-requestid").unwrap();
        assert!(log.lines().any(|line| line.contains(id) && line.contains(text)), "no {text} in\n{log}");
    };
    line(&failed, CAUSE);
    line(&failed, "operation=\"StopInstances\" principal=\"arn:aws:iam::123456789012:root\"");
    line(&panicked, "panic: the handler fell over");
    line(&panicked, "status=500");
    let requests = log.lines().filter(|line| line.contains(" server::exchange: request ")).count();
    assert_eq!(requests, 4, "{log}");
    for secret in [SECRET, signature, "Signature=", FORM] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
    assert!(!log.contains(&format!("Credential={ACCESS_KEY_ID}")), "{log}");
}
