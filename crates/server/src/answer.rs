//! Answers as HTTP, with the headers that every one has.

use aws_api::{Response, Service};
use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SERVER};
use model::Error;

pub(crate) type HttpResponse = hyper::Response<Full<Bytes>>;

/// An error on its way to the caller.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: Error,
    /// Whether the connection can't be used any more.
    pub close: bool,
    /// The methods to use instead, where the method was the fault.
    pub allow: Option<&'static str>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, close: false, allow: None }
    }
}

impl Failure {
    pub fn closing(error: Error) -> Self {
        Failure { close: true, ..Failure::from(error) }
    }

    pub fn method_not_allowed(method: &str, allow: &'static str) -> Self {
        let error =
            Error::new("MethodNotAllowed", format!("The method {method} is not allowed here; use {allow}"));
        Failure { allow: Some(allow), ..Failure::from(error.with_status(405)) }
    }

    pub fn respond(&self, service: Service, request_id: &str) -> HttpResponse {
        let mut response = respond(aws_api::encode_error(service, &self.error, request_id), request_id);
        if self.close {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(allow) = self.allow {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

pub(crate) fn respond(answer: Response, request_id: &str) -> HttpResponse {
    let mut response = hyper::Response::new(Full::new(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in answer.headers {
        match (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => drop(headers.append(name, value)),
            _ => {
                tracing::error!(request_id, header = name, "an answer's header can't be sent and is left out")
            }
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    put_standard_headers(&mut response, request_id);
    response
}

pub(crate) fn respond_page(text: String, request_id: &str) -> HttpResponse {
    let mut response = hyper::Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    put_standard_headers(&mut response, request_id);
    response
}

fn put_standard_headers(response: &mut HttpResponse, request_id: &str) {
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("cumulet"));
    // AWS's services use the one or the other, and clients look for both.
    if let Ok(id) = HeaderValue::try_from(request_id) {
        headers.insert("x-amzn-requestid", id.clone());
        headers.insert("x-amz-request-id", id);
    }
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
}
