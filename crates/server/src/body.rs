//! Reading a body, bounded in size and time.

use crate::limits::DISCARDED_BYTES_MAX;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use model::Error;
use std::time::Duration;

/// After any of these errors the connection is of no more use: what is left of the body may still come.
pub(crate) async fn read(
    head: &Parts,
    mut body: Incoming,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, Error> {
    let reading = async {
        if body.size_hint().lower() > bytes_max as u64 {
            discard(head, &mut body).await;
            return Err(too_large(bytes_max));
        }
        match Limited::new(&mut body, bytes_max).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                discard(head, &mut body).await;
                Err(too_large(bytes_max))
            }
            Err(error) => {
                Err(Error::new("IncompleteBody", "The request body ended before its announced length")
                    .with_source(error))
            }
        }
    };
    tokio::time::timeout(timeout, reading).await.unwrap_or_else(|_| {
        Err(Error::new("RequestTimeout", "The request body was not received within the time allowed")
            .with_status(408))
    })
}

/// A caller that waits for leave to send needs no more than the refusal.
async fn discard(head: &Parts, body: &mut Incoming) {
    if head.headers.contains_key(EXPECT) {
        return;
    }
    let mut left = DISCARDED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn too_large(bytes_max: usize) -> Error {
    Error::new(
        "RequestEntityTooLarge",
        format!("The request body is larger than the {bytes_max} bytes allowed"),
    )
    .with_status(413)
}
