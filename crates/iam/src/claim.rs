//! What a request says of its own signature, in either of the two places it may say it: the `Authorization`
//! header, or `X-Amz-…` parameters of a presigned query. Nothing of it is true yet.

use crate::amz_date::AmzDate;
use crate::{ALGORITHM, RawRequest, Refusal, TERMINATOR, form};
use std::borrow::Cow;
use std::fmt;

/// More than any client signs, and few enough that matching them with the request's headers costs nothing.
const SIGNED_HEADERS_MAX: usize = 100;

/// A presigned link lives a week at most (IAM User Guide, "Elements of an AWS API request signature").
const EXPIRES_SECONDS_MAX: i64 = 7 * 24 * 60 * 60;

pub(crate) struct Claim {
    pub access_key_id: String,
    pub scope: Scope,
    /// Lowercase, in the order given.
    pub signed_headers: Vec<String>,
    pub signature: String,
    pub date: AmzDate,
    pub carriage: Carriage,
    pub has_session_token: bool,
}

/// Where the signature was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carriage {
    Header,
    /// With the link's life in seconds where it states one.
    Query {
        expires: Option<i64>,
    },
}

/// What a signing key is good for: one day, region and service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub day: String,
    pub region: String,
    pub service: String,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{TERMINATOR}", self.day, self.region, self.service)
    }
}

/// The service the request claims to be signed for, so that the edge knows whose limits and whose words to
/// use even for a request it refuses.
pub fn claimed_service(request: &RawRequest<'_>) -> Option<String> {
    let credential = match request.only("authorization").ok()? {
        Some(header) => Cow::Borrowed(header_field(header, "Credential").ok()??),
        None => query_field(request.query, "X-Amz-Credential").ok()??,
    };
    let mut parts = credential.rsplit('/');
    (parts.next() == Some(TERMINATOR)).then(|| parts.next().map(str::to_owned))?
}

/// Whether a query parameter is a signature's and not the operation's.
pub fn is_authentication_parameter(name: &str) -> bool {
    matches!(
        name,
        "X-Amz-Algorithm"
            | "X-Amz-Credential"
            | "X-Amz-Date"
            | "X-Amz-Expires"
            | "X-Amz-SignedHeaders"
            | "X-Amz-Signature"
            | "X-Amz-Security-Token"
    )
}

impl Claim {
    pub fn read(request: &RawRequest<'_>) -> Result<Claim, Refusal> {
        let presigned = query_field(request.query, "X-Amz-Signature")?.is_some()
            || query_field(request.query, "X-Amz-Algorithm")?.is_some();
        match (request.only("authorization")?, presigned) {
            (None, false) => Err(Refusal::Missing),
            (Some(_), true) => Err(malformed("A request is signed by header or by query, not by both.")),
            (Some(header), false) => Claim::read_header(request, header),
            (None, true) => Claim::read_query(request),
        }
    }

    fn read_header(request: &RawRequest<'_>, header: &str) -> Result<Claim, Refusal> {
        let algorithm = header.split([' ', '\t']).next().unwrap_or_default();
        if algorithm != ALGORITHM {
            return Err(malformed(format!("Unsupported AWS 'algorithm': '{algorithm}'.")));
        }
        let wanted = |name: &str| {
            header_field(header, name)?
                .ok_or_else(|| malformed(format!("Authorization header requires '{name}' parameter.")))
        };
        let date = match (request.only("x-amz-date")?, request.only("date")?) {
            (Some(text), _) => AmzDate::parse(text),
            (None, Some(text)) => AmzDate::parse_http(text),
            (None, None) => {
                return Err(malformed(
                    "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
                ));
            }
        };
        let (access_key_id, scope) = credential(wanted("Credential")?)?;
        Ok(Claim {
            access_key_id,
            scope,
            signed_headers: signed_headers(wanted("SignedHeaders")?)?,
            signature: wanted("Signature")?.to_owned(),
            date: date.ok_or_else(|| malformed("The date must be of the form YYYYMMDDTHHMMSSZ."))?,
            carriage: Carriage::Header,
            has_session_token: request.values("x-amz-security-token").next().is_some(),
        })
    }

    fn read_query(request: &RawRequest<'_>) -> Result<Claim, Refusal> {
        let wanted = |name: &str| {
            query_field(request.query, name)?
                .ok_or_else(|| malformed(format!("AWS query-string parameters must include '{name}'.")))
        };
        let algorithm = wanted("X-Amz-Algorithm")?;
        if algorithm != ALGORITHM {
            return Err(malformed(format!("Unsupported AWS 'algorithm': '{algorithm}'.")));
        }
        let expires = query_field(request.query, "X-Amz-Expires")?.map(|text| expires(&text)).transpose()?;
        let (access_key_id, scope) = credential(&wanted("X-Amz-Credential")?)?;
        Ok(Claim {
            access_key_id,
            scope,
            signed_headers: signed_headers(&wanted("X-Amz-SignedHeaders")?)?,
            signature: wanted("X-Amz-Signature")?.into_owned(),
            date: AmzDate::parse(&wanted("X-Amz-Date")?)
                .ok_or_else(|| malformed("X-Amz-Date must be of the form YYYYMMDDTHHMMSSZ."))?,
            carriage: Carriage::Query { expires },
            has_session_token: query_field(request.query, "X-Amz-Security-Token")?.is_some()
                || request.values("x-amz-security-token").next().is_some(),
        })
    }

    pub fn signs(&self, header: &str) -> bool {
        self.signed_headers.iter().any(|signed| signed.eq_ignore_ascii_case(header))
    }
}

fn malformed(reason: impl Into<String>) -> Refusal {
    Refusal::Malformed(reason.into())
}

/// One field of `ALGORITHM Credential=…, SignedHeaders=…, Signature=…`.
fn header_field<'a>(header: &'a str, name: &str) -> Result<Option<&'a str>, Refusal> {
    let fields = header.split_once([' ', '\t']).map_or("", |(_, fields)| fields);
    let mut values = fields
        .split(',')
        .filter_map(|field| field.trim_matches([' ', '\t']).split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err(malformed(format!("Authorization header must have '{name}' once."))),
    }
}

/// One parameter of a query, decoded.
fn query_field<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    let mut values = form::pairs(query).filter(|(key, _)| form::decode(key).as_ref() == name.as_bytes());
    let Some((_, value)) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed(format!("The query must have '{name}' once.")));
    }
    let text = match form::decode(value) {
        Cow::Borrowed(_) => Some(Cow::Borrowed(value)),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    };
    text.map(Some).ok_or_else(|| malformed(format!("'{name}' must be text.")))
}

fn credential(text: &str) -> Result<(String, Scope), Refusal> {
    let parts: Vec<&str> = text.splitn(6, '/').collect();
    let [access_key_id, day, region, service, terminator] = parts[..] else {
        return Err(malformed(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{text}'"
        )));
    };
    if terminator != TERMINATOR {
        return Err(malformed(format!(
            "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{terminator}'."
        )));
    }
    if [access_key_id, day, region, service].iter().any(|part| part.is_empty()) {
        return Err(malformed("Credential must have no empty element."));
    }
    let scope = Scope { day: day.into(), region: region.into(), service: service.into() };
    Ok((access_key_id.into(), scope))
}

fn signed_headers(text: &str) -> Result<Vec<String>, Refusal> {
    let names: Vec<String> =
        text.split(';').take(SIGNED_HEADERS_MAX + 1).map(|name| name.to_ascii_lowercase()).collect();
    if names.len() > SIGNED_HEADERS_MAX {
        return Err(malformed(format!("SignedHeaders must name no more than {SIGNED_HEADERS_MAX} headers.")));
    }
    Ok(names)
}

fn expires(text: &str) -> Result<i64, Refusal> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(seconds @ 1..=EXPIRES_SECONDS_MAX) if digits => Ok(seconds),
        _ => Err(malformed(format!("X-Amz-Expires must be between 1 and {EXPIRES_SECONDS_MAX} seconds."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/ec2/aws4_request, \
                          SignedHeaders=Host;x-amz-date, Signature=abc";

    fn read(headers: &[(&str, &str)], query: &str) -> Result<Claim, Refusal> {
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        Claim::read(&RawRequest { method: "POST", path: "/", query, headers: &headers, body: b"" })
    }

    fn reason(claim: Result<Claim, Refusal>) -> String {
        match claim {
            Err(Refusal::Malformed(reason)) => reason,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("was read"),
        }
    }

    #[test]
    fn from_the_header() {
        let claim = read(&[("Authorization", HEADER), ("X-Amz-Date", "20150830T123600Z")], "").unwrap();
        assert_eq!(claim.access_key_id, "AKIDEXAMPLE");
        assert_eq!(claim.scope.to_string(), "20150830/us-east-1/ec2/aws4_request");
        assert_eq!(claim.signed_headers, ["host", "x-amz-date"]);
        assert_eq!(claim.signature, "abc");
        assert_eq!(claim.date.as_str(), "20150830T123600Z");
        assert_eq!(claim.carriage, Carriage::Header);
        assert!(claim.signs("Host") && !claim.signs("date"));
    }

    #[test]
    fn spaces_between_the_fields_are_free() {
        let header = HEADER.replace(", ", ",");
        let claim =
            read(&[("authorization", &header), ("date", "Sun, 30 Aug 2015 12:36:00 GMT")], "").unwrap();
        assert_eq!(claim.signature, "abc");
        assert_eq!(claim.date.as_str(), "20150830T123600Z");
    }

    #[test]
    fn from_the_query() {
        let query = "Action=A&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=K%2F20150830%2Fr%2Fec2%2Faws4_request\
                     &X-Amz-Date=20150830T123600Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=abc";
        let claim = read(&[], query).unwrap();
        assert_eq!(claim.scope.to_string(), "20150830/r/ec2/aws4_request");
        assert_eq!(claim.carriage, Carriage::Query { expires: Some(60) });
        assert!(!claim.has_session_token);
        assert!(reason(read(&[], &query.replace("=60", "=604801"))).contains("604800"));
        assert!(reason(read(&[], &query.replace("=60", "=0"))).contains("604800"));
        assert!(reason(read(&[], &query.replace("=60", "=%2B6"))).contains("604800"));
        assert!(reason(read(&[], &query.replace("-SHA256", "-MD5"))).contains("algorithm"));
        assert!(reason(read(&[], &format!("{query}&X-Amz-Date=20150830T123600Z"))).contains("once"));
        assert!(reason(read(&[("Authorization", HEADER)], query)).contains("not by both"));
    }

    #[test]
    fn no_signature_is_missing_and_half_of_one_is_malformed() {
        assert_eq!(read(&[], "Action=A").err(), Some(Refusal::Missing));
        let date = ("x-amz-date", "20150830T123600Z");
        for (header, expected) in [
            ("Bearer abc", "algorithm"),
            ("AWS AKID:abc", "algorithm"),
            ("", "algorithm"),
            ("AWS4-HMAC-SHA256", "'Credential'"),
            ("AWS4-HMAC-SHA256 Credential=a/b/c/d", "5 slash-delimited"),
            ("AWS4-HMAC-SHA256 Credential=a/b/c/d/e/aws4_request", "5 slash-delimited"),
            ("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws5_request", "terminator"),
            ("AWS4-HMAC-SHA256 Credential=a//c/d/aws4_request", "empty"),
            ("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request", "'SignedHeaders'"),
            ("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request, SignedHeaders=host", "'Signature'"),
            (&format!("{HEADER}, Signature=def"), "once"),
        ] {
            let said = reason(read(&[("Authorization", header), date], ""));
            assert!(said.contains(expected), "{header}: {said}");
        }
        assert!(reason(read(&[("Authorization", HEADER)], "")).contains("X-Amz-Date"));
        assert!(reason(read(&[("Authorization", HEADER), ("x-amz-date", "today")], "")).contains("YYYYMMDD"));
        assert!(reason(read(&[("Authorization", HEADER), date, date], "")).contains("once"));
        assert!(
            reason(read(&[("Authorization", HEADER), ("authorization", HEADER), date], "")).contains("once")
        );
        let many = HEADER.replace("Host", &"a;".repeat(SIGNED_HEADERS_MAX));
        assert!(reason(read(&[("Authorization", &many), date], "")).contains("no more than"));
    }

    #[test]
    fn the_service_is_told_before_the_rest_is_read() {
        let service = |headers: &[(&str, &[u8])], query: &str| {
            claimed_service(&RawRequest { method: "GET", path: "/", query, headers, body: b"" })
        };
        assert_eq!(service(&[("authorization", HEADER.as_bytes())], "").as_deref(), Some("ec2"));
        assert_eq!(service(&[], "X-Amz-Credential=K%2Fd%2Fr%2Fsts%2Faws4_request").as_deref(), Some("sts"));
        assert_eq!(service(&[("authorization", b"Basic abc")], ""), None);
        assert_eq!(service(&[], "X-Amz-Credential=K"), None);
    }
}
