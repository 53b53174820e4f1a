//! One request and its answer, from the parsed head to the line in the log.

use crate::answer::{Failure, HttpResponse, respond, respond_page};
use crate::api::{Api, Caller};
use crate::pages::Page;
use crate::routing::Destination;
use crate::{Options, body, limits, pages, parameters, routing};
use aws_api::{Protocol, Service};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{Method, Request};
use iam::{RawRequest, Refusal, Verifier};
use metrics::{counter, histogram};
use model::Error;
use std::any::Any;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;

/// What all requests share.
pub(crate) struct Edge {
    api: Arc<dyn Api>,
    verifier: Verifier,
    options: Options,
}

/// One request as the log will tell of it: filled as it becomes known, told when it is over.
struct Exchange<'a> {
    edge: &'a Edge,
    request_id: String,
    source_ip: IpAddr,
    started: Instant,
    /// Whose words an error is said in.
    service: Service,
    operation: String,
    principal: String,
    status: u16,
    code: Option<Cow<'static, str>>,
}

/// Not sent to anybody, but usual in logs (as nginx's) for a caller that did not wait for its answer.
const HUNG_UP: u16 = 499;

impl Edge {
    pub fn new(api: Arc<dyn Api>, options: Options) -> Self {
        Edge { api, verifier: Verifier::new(options.skew), options }
    }

    pub async fn answer(&self, request: Request<Incoming>, source_ip: IpAddr) -> HttpResponse {
        let started = Instant::now();
        let request_id = self.api.new_request_id();
        let (head, body) = request.into_parts();
        match pages::page(&head) {
            Some(Page::Text(text)) => return respond_page(text, &request_id),
            // Of no business to strangers.
            Some(Page::Metrics) if source_ip.is_loopback() => {
                return respond_page(self.api.metrics(), &request_id);
            }
            Some(Page::Metrics) | None => {}
        }
        let mut exchange = Exchange {
            edge: self,
            request_id,
            source_ip,
            started,
            service: Service::Ec2,
            operation: "-".to_owned(),
            principal: "-".to_owned(),
            status: HUNG_UP,
            code: None,
        };
        let result = exchange.run(&head, body).await;
        exchange.conclude(result)
    }
}

impl Exchange<'_> {
    async fn run(&mut self, head: &Parts, body: Incoming) -> Result<aws_api::Response, Failure> {
        let headers: Vec<(&str, &[u8])> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let unread = RawRequest {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &headers,
            body: b"",
        };
        let service = self.destination(head, &unread);
        // Even of a request that is refused by its head: who sends all before he reads would else not get to
        // see why.
        let bytes_max = limits::body_bytes_max(*service.as_ref().unwrap_or(&None));
        let body = body::read(head, body, bytes_max, self.edge.options.body_read_timeout).await;
        let service = service?;
        let body = body.map_err(Failure::closing)?;
        if service.is_none() {
            let by_form = std::str::from_utf8(&body).ok().and_then(routing::by_version);
            self.service = by_form.unwrap_or(self.service);
        }

        let request = RawRequest { body: &body, ..unread };
        let caller = self.authenticate(&request).map_err(|refusal| {
            tracing::debug!(request_id = self.request_id, reason = %refusal, "refused");
            refusal.into_error(self.service.signing_name())
        })?;

        let parameters = match self.service.protocol() {
            Protocol::RestJson => parameters::read(request.query, "")?,
            _ => {
                let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                parameters::read(request.query, parameters::form_text(content_type, &body)?)?
            }
        };
        let request = aws_api::Request {
            method: request.method.to_owned(),
            path: iam::normalize_path(request.path).into_owned(),
            params: parameters,
            headers: forwarded(&headers),
            body,
        };
        self.operation = aws_api::operation_name(self.service, &request)?;
        self.call(caller, request).await
    }

    /// The service to be asked, by a method that it has; None where the request has yet to say it in its body.
    fn destination(&mut self, head: &Parts, request: &RawRequest<'_>) -> Result<Option<Service>, Failure> {
        let service = match routing::destination(request) {
            Destination::Service(service) => {
                self.service = service;
                Some(service)
            }
            Destination::Unsaid => None,
            Destination::Unserved(name) => {
                // In words that the client of such a service is likeliest to understand.
                let speaks_json = head.headers.get(CONTENT_TYPE).is_some_and(|value| {
                    value.as_bytes().starts_with(b"application/x-amz-json") || value == "application/json"
                });
                self.service = if speaks_json { Service::Ebs } else { Service::Sts };
                let error = Error::new("NotImplemented", format!("This cloud does not serve '{name}'"));
                return Err(error.with_status(501).into());
            }
        };
        check_method(&head.method, service)?;
        Ok(service)
    }

    fn authenticate(&mut self, request: &RawRequest<'_>) -> Result<Caller, Refusal> {
        let api = &*self.edge.api;
        let identity = self.edge.verifier.verify(request, api.now(), api.credentials())?;
        self.principal.clone_from(&identity.principal.arn);
        let region = routing::region(api, self.service, &identity.region)?;
        Ok(Caller { identity, region, request_id: self.request_id.clone(), source_ip: self.source_ip })
    }

    /// In a task of its own: a caller who hangs up does not stop what he began, and a panic ends nothing else.
    async fn call(&self, caller: Caller, request: aws_api::Request) -> Result<aws_api::Response, Failure> {
        let (api, service, operation) = (self.edge.api.clone(), self.service, self.operation.clone());
        let request_id = self.request_id.clone();
        let span = tracing::info_span!("call", request_id, operation);
        let call = async move {
            let result = api.call(caller, service, &operation, request).await;
            result.inspect_err(|error| log_cause(error, &request_id, &operation))
        };
        match tokio::spawn(call.instrument(span)).await {
            Ok(result) => Ok(result?),
            Err(ended) => {
                let error = match ended.try_into_panic() {
                    Ok(panic) => Error::internal(format!("panic: {}", panic_message(&*panic))),
                    Err(cancelled) => Error::internal(cancelled),
                };
                log_cause(&error, &self.request_id, &self.operation);
                Err(error.into())
            }
        }
    }

    fn conclude(mut self, result: Result<aws_api::Response, Failure>) -> HttpResponse {
        let response = match result {
            Ok(answer) => respond(answer, &self.request_id),
            Err(failure) => {
                let response = failure.respond(self.service, &self.request_id);
                self.code = Some(failure.error.code);
                response
            }
        };
        self.status = response.status().as_u16();
        response
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let service = self.service.signing_name();
        // The operation is one of the models', or a dash.
        let operation = self.operation.clone();
        let code = self.code.as_deref().unwrap_or("Success").to_owned();
        histogram!("cumulet_request_seconds", "service" => service, "operation" => operation.clone())
            .record(self.started.elapsed());
        counter!("cumulet_requests_total", "service" => service, "operation" => operation, "code" => code)
            .increment(1);
        tracing::info!(
            request_id = self.request_id,
            service = self.service.signing_name(),
            operation = self.operation,
            principal = self.principal,
            source_ip = %self.source_ip,
            status = self.status,
            code = self.code.as_deref(),
            micros = self.started.elapsed().as_micros() as u64,
            "request"
        );
    }
}

/// What an error's receiver is not told. Of faults of ours it is what there is to go by; of others, a detail.
fn log_cause(error: &Error, request_id: &str, operation: &str) {
    let Some(cause) = &error.source else { return };
    let cause = chain(&**cause);
    if error.is_internal() {
        tracing::error!(request_id, operation, cause, "failed");
    } else {
        tracing::debug!(request_id, operation, cause, "refused");
    }
}

fn check_method(method: &Method, service: Option<Service>) -> Result<(), Failure> {
    let (allowed, names): (&[Method], _) = match service {
        Some(service) if service.protocol() == Protocol::RestJson => {
            (&[Method::GET, Method::POST, Method::PUT, Method::DELETE], "GET, POST, PUT, DELETE")
        }
        _ => (&[Method::GET, Method::POST], "GET, POST"),
    };
    if allowed.contains(method) { Ok(()) } else { Err(Failure::method_not_allowed(method.as_str(), names)) }
}

/// The headers that an operation may read: all that are text, but the signature.
fn forwarded(headers: &[(&str, &[u8])]) -> Vec<(String, String)> {
    (headers.iter())
        .filter(|(name, _)| *name != "authorization")
        .filter_map(|(name, value)| Some(((*name).to_owned(), std::str::from_utf8(value).ok()?.to_owned())))
        .collect()
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => message,
        (None, Some(message)) => message,
        (None, None) => "without a message",
    }
}

/// A cause with the causes behind it.
fn chain(cause: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(cause), |cause| cause.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
