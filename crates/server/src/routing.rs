//! Which service a request is for, and which region: one port serves them all.

use crate::api::Api;
use aws_api::Service;
use iam::{RawRequest, Refusal, form};
use model::Region;

/// What a request says of the service it is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Destination {
    Service(Service),
    /// Signed for a service that this cloud has not.
    Unserved(String),
    /// It says nothing.
    Unsaid,
}

/// By the scope of its credential, else by its host's first label, else by the version of its API.
pub(crate) fn destination(request: &RawRequest<'_>) -> Destination {
    if let Some(name) = iam::claimed_service(request) {
        return Service::from_signing_name(&name).map_or(Destination::Unserved(name), Destination::Service);
    }
    by_host(request)
        .or_else(|| by_version(request.query))
        .or_else(|| request.path.starts_with("/snapshots").then_some(Service::Ebs))
        .map_or(Destination::Unsaid, Destination::Service)
}

fn by_host(request: &RawRequest<'_>) -> Option<Service> {
    let (_, host) = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"))?;
    Service::from_signing_name(std::str::from_utf8(host).ok()?.split(['.', ':']).next()?)
}

/// By the `Version` in a query or form.
pub(crate) fn by_version(text: &str) -> Option<Service> {
    let (_, version) = form::pairs(text).find(|(name, _)| *name == "Version")?;
    Service::ALL.into_iter().find(|service| service.api_version() == version)
}

/// What clients sign requests to global services for (AWS General Reference, "IAM endpoints"), wherever the
/// cloud may be.
const GLOBAL_SIGNING_REGION: &str = "us-east-1";

pub(crate) fn region(api: &dyn Api, service: Service, name: &str) -> Result<Region, Refusal> {
    match name.parse::<Region>() {
        Ok(region) if api.region_exists(&region) => Ok(region),
        _ if matches!(service, Service::Iam | Service::Sts) && name == GLOBAL_SIGNING_REGION => {
            Ok(api.default_region())
        }
        _ => Err(Refusal::Region(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, query: &str, headers: &[(&str, &str)]) -> Destination {
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        destination(&RawRequest { method: "GET", path, query, headers: &headers, body: b"" })
    }

    #[test]
    fn the_scope_comes_first_then_the_host_then_the_version() {
        let scope =
            |service: &str| format!("AWS4-HMAC-SHA256 Credential=K/20150830/r/{service}/aws4_request");
        let sts = Destination::Service(Service::Sts);
        let ec2 = Destination::Service(Service::Ec2);
        let ec2_host = ("host", "ec2.us-east-1.amazonaws.com");
        assert_eq!(of("/", "", &[ec2_host, ("authorization", &scope("sts"))]), sts);
        assert_eq!(of("/", "Version=2011-06-15", &[ec2_host]), ec2);
        assert_eq!(of("/", "Action=A&Version=2011-06-15", &[("host", "127.0.0.1:8773")]), sts);
        assert_eq!(of("/", "", &[("host", "sts:80")]), sts);
        assert_eq!(of("/snapshots/snap-1/blocks", "", &[]), Destination::Service(Service::Ebs));
        assert_eq!(of("/", "", &[("host", "localhost")]), Destination::Unsaid);
        assert_eq!(
            of("/", "", &[ec2_host, ("authorization", &scope("sqs"))]),
            Destination::Unserved("sqs".into())
        );
    }
}
