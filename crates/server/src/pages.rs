//! What is answered to those who don't speak AWS: people with a browser, and health checks.

use hyper::Method;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::http::request::Parts;

pub(crate) enum Page {
    Text(String),
    /// For Prometheus.
    Metrics,
}

/// A page in plain text, where the request asks for one.
pub(crate) fn page(head: &Parts) -> Option<Page> {
    if head.method != Method::GET || head.headers.contains_key(AUTHORIZATION) || head.uri.query().is_some() {
        return None;
    }
    match head.uri.path() {
        "/" => Some(Page::Text(welcome(head))),
        "/health" => Some(Page::Text("ok\n".to_owned())),
        "/metrics" => Some(Page::Metrics),
        _ => None,
    }
}

fn welcome(head: &Parts) -> String {
    let address = head.headers.get(HOST).and_then(|host| host.to_str().ok()).filter(|host| is_address(host));
    let address = address.unwrap_or("THIS-ADDRESS");
    format!(
        "This is cumulet, a self-hosted cloud that answers to Amazon EC2's API.\n\
         \n\
         Any AWS client works with it once it is told where to go:\n\
         \n\
         \x20   export AWS_ENDPOINT_URL=http://{address}\n\
         \x20   export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... AWS_DEFAULT_REGION=...\n\
         \x20   aws ec2 describe-instances\n\
         \n\
         On the cloud's own machine `cumulet env` prints these lines with the keys filled in.\n"
    )
}

/// What the caller says of our address is repeated only where it can be one.
fn is_address(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'-' | b'[' | b']'))
}
