//! The caller's side: for our own client, tests and benchmarks.

use crate::amz_date::AmzDate;
use crate::canonical::{RESERVED, canonical_request};
use crate::claim::Scope;
use crate::signing_key::SigningKey;
use crate::{ALGORITHM, RawRequest, Secret, UNSIGNED_PAYLOAD, sha256_hex};
use model::{Error, Result, Timestamp};
use percent_encoding::utf8_percent_encode;

/// Signs as one access key, for one region and service.
#[derive(Clone, Debug)]
pub struct Signer<'a> {
    pub access_key_id: &'a str,
    pub secret: &'a Secret,
    pub region: &'a str,
    /// The signing name, as `ec2`.
    pub service: &'a str,
}

impl Signer<'_> {
    /// The headers to add to the request. Every header it has already is signed; `host` must be among them.
    pub fn sign(&self, request: &RawRequest<'_>, now: Timestamp) -> Result<Vec<(&'static str, String)>> {
        let date = date(now)?;
        let scope = self.scope(&date);
        let payload_hash = sha256_hex(request.body);
        let mut added = vec![("x-amz-date", date.to_string())];
        if self.service == "s3" {
            added.push(("x-amz-content-sha256", payload_hash.clone()));
        }
        let headers: Vec<(&str, &[u8])> = (request.headers.iter().copied())
            .chain(added.iter().map(|(name, value)| (*name, value.as_bytes())))
            .collect();
        let signed_headers = names(&headers);
        let request = RawRequest { headers: &headers, ..*request };
        let canonical = canonical_request(&request, &signed_headers, self.service, &payload_hash);
        let signature =
            SigningKey::derive(self.secret, &scope).sign(&string_to_sign(&date, &scope, &canonical));
        let authorization = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
            self.access_key_id,
            signed_headers.join(";"),
        );
        added.push(("authorization", authorization));
        Ok(added)
    }

    /// The query of a link that anyone may follow for `expires_seconds` (1 to 604,800), the request's own
    /// query included. Every header the request has is signed and must come with the link; `host` must be
    /// among them.
    pub fn presign(&self, request: &RawRequest<'_>, now: Timestamp, expires_seconds: u32) -> Result<String> {
        let date = date(now)?;
        let scope = self.scope(&date);
        let signed_headers = names(request.headers);
        let escape = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
        let separator = if request.query.is_empty() { "" } else { "&" };
        let query = format!(
            "{}{separator}X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={}&X-Amz-Date={date}\
             &X-Amz-Expires={expires_seconds}&X-Amz-SignedHeaders={}",
            request.query,
            escape(&format!("{}/{scope}", self.access_key_id)),
            escape(&signed_headers.join(";")),
        );
        let payload_hash =
            if self.service == "s3" { UNSIGNED_PAYLOAD.to_owned() } else { sha256_hex(request.body) };
        let request = RawRequest { query: &query, ..*request };
        let canonical = canonical_request(&request, &signed_headers, self.service, &payload_hash);
        let signature =
            SigningKey::derive(self.secret, &scope).sign(&string_to_sign(&date, &scope, &canonical));
        Ok(format!("{query}&X-Amz-Signature={signature}"))
    }

    fn scope(&self, date: &AmzDate) -> Scope {
        Scope { day: date.day().into(), region: self.region.into(), service: self.service.into() }
    }
}

pub(crate) fn string_to_sign(date: &AmzDate, scope: &Scope, canonical: &[u8]) -> String {
    format!("{ALGORITHM}\n{date}\n{scope}\n{}", sha256_hex(canonical))
}

fn date(now: Timestamp) -> Result<AmzDate> {
    AmzDate::new(now).ok_or_else(|| Error::internal(format!("{now} can't be written as YYYYMMDDTHHMMSSZ")))
}

fn names(headers: &[(&str, &[u8])]) -> Vec<String> {
    let mut names: Vec<String> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    names
}
