//! The instance metadata service: what an instance may know of itself, at 169.254.169.254 and fd00:ec2::254.
//!
//! ```text
//!   http (wire, bounds) ──▶ MetadataService::answer (policy) ──▶ tree (content) · identity (signatures)
//!                                     └──▶ token (sessions)
//! ```
//!
//! Who asks is known from the connection alone (`host::net`), so an instance reads its own and no other's. The
//! policy is EC2's (User Guide, "Use the Instance Metadata Service"): version 2 wants a token made by a PUT that
//! no proxy forwarded; version 1 works where `HttpTokens` is optional; the answer to the PUT travels
//! `HttpPutResponseHopLimit` hops.

mod http;
mod identity;
mod token;
mod tree;

pub(crate) use http::serve;
pub(crate) use identity::Identity;
pub(crate) use token::TokenKey;

use crate::limits::{Rate, Slots};
use crate::network::Guest;
use hyper::body::Bytes;
use model::Environment;
use percent_encoding::percent_decode_str;
use std::sync::Arc;
use token::TTL_SECONDS;
use tree::{Found, IdentityPart, Leaf};

/// Longer than any path that is answered: a tag's key has 128 characters, each at most three here.
const PATH_CHARS_MAX: usize = 1024;
/// Requests of one instance: beyond what cloud-init and a busy SDK ask, far below what would load the host.
const REQUESTS_PER_SECOND: u32 = 200;
const REQUESTS_BURST: u32 = 400;
/// Connections of one instance, and of all instances of the host, at a time.
const CONNECTIONS_EACH_MAX: usize = 32;
const CONNECTIONS_MAX: usize = 2048;

pub(crate) struct MetadataService {
    environment: Environment,
    token_key: TokenKey,
    identity: Arc<Identity>,
    requests: Rate,
    connections: Arc<Slots>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Method {
    Get,
    Put,
    Other,
}

/// A request as far as the policy looks at it.
struct Request<'a> {
    method: Method,
    /// As it came, percent-encoded.
    path: &'a str,
    token: Option<&'a [u8]>,
    ttl: Option<&'a [u8]>,
    /// Whether it has an `X-Forwarded-For`.
    forwarded: bool,
    /// Whether it came to the endpoint of IPv6.
    over_ipv6: bool,
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    content_type: &'static str,
    body: Bytes,
    /// What is left of the token's life.
    token_ttl: Option<u32>,
    /// The answer may travel this many hops.
    hop_limit: Option<u8>,
}

impl MetadataService {
    pub(crate) fn new(environment: Environment, token_key: TokenKey, identity: Arc<Identity>) -> Self {
        MetadataService {
            environment,
            token_key,
            identity,
            requests: Rate::new(REQUESTS_PER_SECOND, REQUESTS_BURST),
            connections: Slots::new(CONNECTIONS_EACH_MAX, CONNECTIONS_MAX),
        }
    }

    async fn answer(&self, guest: &Guest, request: Request<'_>) -> Answer {
        let options = &guest.instance.metadata_options;
        if !options.enabled || (request.over_ipv6 && !options.ipv6) {
            return Answer::error(403);
        }
        if !self.requests.allow(&guest.instance.instance_id) {
            return Answer::error(503);
        }
        if request.path.len() > PATH_CHARS_MAX {
            return Answer::error(414);
        }
        let Ok(path) = percent_decode_str(request.path).decode_utf8() else { return Answer::error(400) };
        match request.method {
            Method::Put if is_token_path(&path) => self.put_token(guest, &request),
            Method::Get if !is_token_path(&path) => self.get(guest, &path, request.token).await,
            Method::Get | Method::Put | Method::Other => Answer::error(405),
        }
    }

    fn put_token(&self, guest: &Guest, request: &Request<'_>) -> Answer {
        // A proxy that forwards requests of strangers must not get a token for them.
        if request.forwarded {
            return Answer::error(403);
        }
        let Some(ttl) = request.ttl.and_then(seconds).filter(|ttl| TTL_SECONDS.contains(ttl)) else {
            return Answer::error(400);
        };
        let Environment { clock, random } = &self.environment;
        let token = self.token_key.make(&guest.instance.instance_id, ttl, clock.now(), &**random);
        let hop_limit = Some(guest.instance.metadata_options.hop_limit.max(1));
        Answer { token_ttl: Some(ttl), hop_limit, ..Answer::text(token) }
    }

    async fn get(&self, guest: &Guest, path: &str, token: Option<&[u8]>) -> Answer {
        let options = &guest.instance.metadata_options;
        let now = self.environment.clock.now();
        let token_ttl = match token {
            None if options.tokens_required => return Answer::error(401),
            None => None,
            Some(token) => match self.token_key.check(&guest.instance.instance_id, token, now) {
                None => return Answer::error(401),
                left => left,
            },
        };
        let found = match tree::find(guest, path) {
            Some(found) => self.found(guest, found).await,
            None => Answer::error(404),
        };
        Answer { token_ttl, ..found }
    }

    async fn found(&self, guest: &Guest, found: Found) -> Answer {
        let part = match found {
            Found::Listing(text) | Found::Leaf(Leaf::Text(text)) => return Answer::text(text),
            Found::Leaf(Leaf::UserData) => {
                let bytes = guest.instance.metadata.user_data.clone().unwrap_or_default();
                let content_type = "application/octet-stream";
                return Answer { content_type, ..Answer::text(bytes) };
            }
            Found::Leaf(Leaf::Identity(part)) => part,
        };
        match self.identity.signed(guest).await {
            Ok(signed) => Answer::text(match part {
                IdentityPart::Document => signed.document.clone(),
                IdentityPart::Signature => signed.signature.clone(),
                IdentityPart::Pkcs7 => signed.pkcs7.clone(),
            }),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "identity document not signed");
                Answer::error(500)
            }
        }
    }
}

impl Answer {
    fn text(body: impl Into<Bytes>) -> Self {
        Answer {
            status: 200,
            content_type: "text/plain",
            body: body.into(),
            token_ttl: None,
            hop_limit: None,
        }
    }

    /// The body as EC2's, which some clients show to people.
    fn error(status: u16) -> Self {
        let reason = match status {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            414 => "URI Too Long",
            503 => "Service Unavailable",
            _ => "Internal Server Error",
        };
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
             <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n\
             \t\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
             <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n \
             <head>\n  <title>{status} - {reason}</title>\n </head>\n \
             <body>\n  <h1>{status} - {reason}</h1>\n </body>\n</html>\n"
        );
        Answer { status, content_type: "text/html", ..Answer::text(body) }
    }
}

fn is_token_path(path: &str) -> bool {
    path.trim_end_matches('/') == "/latest/api/token"
}

/// Decimal digits alone: no sign, no blank.
fn seconds(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
