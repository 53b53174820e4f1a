//! The cloud's side: is this request from whom it says, now, and as it was sent?

use crate::amz_date::AmzDate;
use crate::canonical::canonical_request;
use crate::claim::{Carriage, Claim};
use crate::sign::string_to_sign;
use crate::signing_key::{SigningKey, SigningKeyCache};
use crate::{Credentials, Identity, RawRequest, Refusal, UNSIGNED_PAYLOAD, sha256_hex};
use jiff::SignedDuration;
use model::Timestamp;
use std::borrow::Cow;
use subtle::ConstantTimeEq;

/// How far the caller's clock may be from ours, either way.
#[derive(Clone, Copy, Debug)]
pub struct SkewPolicy {
    pub s3: SignedDuration,
    pub others: SignedDuration,
}

/// AWS's own: 15 minutes for S3 (S3 API reference, `RequestTimeTooSkewed`), five elsewhere (IAM User Guide,
/// "Signature Version 4 request elements").
impl Default for SkewPolicy {
    fn default() -> Self {
        SkewPolicy { s3: SignedDuration::from_mins(15), others: SignedDuration::from_mins(5) }
    }
}

impl SkewPolicy {
    fn of(&self, service: &str) -> SignedDuration {
        if service == "s3" { self.s3 } else { self.others }
    }
}

#[derive(Default)]
pub struct Verifier {
    skew: SkewPolicy,
    signing_keys: SigningKeyCache,
}

impl Verifier {
    pub fn new(skew: SkewPolicy) -> Self {
        Verifier { skew, signing_keys: SigningKeyCache::default() }
    }

    /// The refusal's words are the service's: see [`Refusal::into_error`].
    pub fn verify(
        &self,
        request: &RawRequest<'_>,
        now: Timestamp,
        credentials: &dyn Credentials,
    ) -> Result<Identity, Refusal> {
        let claim = Claim::read(request)?;
        check_coverage(request, &claim)?;
        check_scope_date(&claim)?;
        let credential = credentials
            .find(&claim.access_key_id)
            .filter(|credential| credential.active)
            .ok_or(Refusal::UnknownAccessKey)?;
        // Only temporary credentials come with a token, and this cloud has issued none.
        if claim.has_session_token {
            return Err(Refusal::UnknownSessionToken);
        }
        self.check_time(&claim, now)?;

        let payload_hash = payload_hash(request, &claim)?;
        let canonical =
            canonical_request(request, &claim.signed_headers, &claim.scope.service, &payload_hash);
        let string_to_sign = string_to_sign(&claim.date, &claim.scope, &canonical);
        let known = self.signing_keys.get(&credential.secret, &claim.scope);
        let key = known.unwrap_or_else(|| SigningKey::derive(&credential.secret, &claim.scope));
        let expected = key.sign(&string_to_sign);
        if !bool::from(expected.as_bytes().ct_eq(claim.signature.as_bytes())) {
            return Err(Refusal::Mismatch);
        }
        if known.is_none() {
            self.signing_keys.insert(&credential.secret, &claim.scope, key);
        }
        Ok(Identity {
            principal: credential.principal,
            access_key_id: claim.access_key_id,
            region: claim.scope.region,
            service: claim.scope.service,
        })
    }

    fn check_time(&self, claim: &Claim, now: Timestamp) -> Result<(), Refusal> {
        let skew = self.skew.of(&claim.scope.service);
        let minutes = skew.as_mins();
        let signed = &claim.date;
        let shifted = |by: SignedDuration| now.checked_add(by).unwrap_or(now);
        if signed.at > shifted(skew) {
            return Err(Refusal::Skewed(format!(
                "Signature not yet current: {signed} is still later than {} ({} + {minutes} min.)",
                spelled(shifted(skew)),
                spelled(now),
            )));
        }
        match claim.carriage {
            Carriage::Query { expires: Some(seconds) } => {
                let end = signed.at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
                if now > end {
                    return Err(Refusal::LinkExpired(format!(
                        "Signature expired: {} is now earlier than {}",
                        spelled(end),
                        spelled(now),
                    )));
                }
            }
            Carriage::Header | Carriage::Query { expires: None } => {
                if signed.at < shifted(-skew) {
                    return Err(Refusal::Skewed(format!(
                        "Signature expired: {signed} is now earlier than {} ({} - {minutes} min.)",
                        spelled(shifted(-skew)),
                        spelled(now),
                    )));
                }
            }
        }
        Ok(())
    }
}

fn spelled(at: Timestamp) -> String {
    AmzDate::new(at).map_or_else(|| at.to_string(), |date| date.to_string())
}

/// The signature must cover the host and every `x-amz-` header there is (IAM User Guide, "Create a canonical
/// request"), or else they could be altered or added on the way. Other headers, `content-type` included, the
/// caller may leave out.
fn check_coverage(request: &RawRequest<'_>, claim: &Claim) -> Result<(), Refusal> {
    if !claim.signs("host") {
        return Err(Refusal::Unsigned("Host".into()));
    }
    let is_amazon = |name: &str| name.get(..6).is_some_and(|prefix| prefix.eq_ignore_ascii_case("x-amz-"));
    if let Some((name, _)) = request.headers.iter().find(|(name, _)| is_amazon(name) && !claim.signs(name)) {
        return Err(Refusal::Unsigned((*name).to_owned()));
    }
    match claim.signed_headers.iter().find(|name| request.values(name).next().is_none()) {
        Some(name) => Err(Refusal::Malformed(format!(
            "'{name}' is named in SignedHeaders, but the request has no such header."
        ))),
        None => Ok(()),
    }
}

fn check_scope_date(claim: &Claim) -> Result<(), Refusal> {
    let (scope, day, date) = (&claim.scope.day, claim.date.day(), &claim.date);
    if scope == day {
        return Ok(());
    }
    Err(Refusal::ScopeDate(format!(
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: \
         '{scope}' != '{day}', from '{date}'."
    )))
}

/// What stands for the body in the canonical request, once it is known to be true of the body.
///
/// `UNSIGNED-PAYLOAD` is for S3, and for EBS, whose PutSnapshotBlock is modelled so and carries a checksum of
/// its own; a presigned link of S3's never covers a body.
fn payload_hash<'a>(request: &RawRequest<'a>, claim: &Claim) -> Result<Cow<'a, str>, Refusal> {
    let service = claim.scope.service.as_str();
    match request.only("x-amz-content-sha256")? {
        Some(UNSIGNED_PAYLOAD) if matches!(service, "s3" | "ebs") => Ok(UNSIGNED_PAYLOAD.into()),
        Some(given) => {
            let actual = sha256_hex(request.body);
            if actual == given { Ok(given.into()) } else { Err(Refusal::Payload) }
        }
        None if service == "s3" && claim.carriage != Carriage::Header => Ok(UNSIGNED_PAYLOAD.into()),
        None => Ok(sha256_hex(request.body).into()),
    }
}
