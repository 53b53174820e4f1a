//! Why a request was not let in, and how each service says so.
//!
//! The reason is one; AWS's services spell it differently. [`Refusal::into_error`] is that table:
//!
//! | reason          | EC2                          | Query (STS, IAM, …)           | REST-JSON (EBS, …)                 | S3                               |
//! |-----------------|------------------------------|-------------------------------|------------------------------------|----------------------------------|
//! | no signature    | MissingAuthenticationToken 403 | MissingAuthenticationToken 403 | MissingAuthenticationTokenException 403 | AccessDenied 403           |
//! | malformed       | IncompleteSignature 400      | IncompleteSignature 400       | IncompleteSignatureException 400   | AuthorizationHeaderMalformed 400 |
//! | unknown key     | AuthFailure 401              | InvalidClientTokenId 403      | UnrecognizedClientException 403    | InvalidAccessKeyId 403           |
//! | unknown token   | AuthFailure 401              | InvalidClientTokenId 403      | UnrecognizedClientException 403    | InvalidToken 400                 |
//! | wrong signature | AuthFailure 401              | SignatureDoesNotMatch 403     | InvalidSignatureException 403      | SignatureDoesNotMatch 403        |
//! | clock           | RequestExpired 400           | SignatureDoesNotMatch 403     | InvalidSignatureException 403      | RequestTimeTooSkewed 403         |
//! | link too old    | RequestExpired 400           | SignatureDoesNotMatch 403     | InvalidSignatureException 403      | AccessDenied 403                 |
//! | other region    | AuthFailure 401              | SignatureDoesNotMatch 403     | InvalidSignatureException 403      | AuthorizationHeaderMalformed 400 |
//!
//! Sources: "Error codes for the Amazon EC2 API" and "Common error types" of the EC2, STS, IAM and EBS API
//! references; "Error responses" of the S3 API reference; "Troubleshoot Signature Version 4 signing" of the
//! IAM User Guide. Statuses and messages that these leave open are as clients report them from the services
//! (aws/aws-sdk-java#1443: `RequestExpired` is a 400; hashicorp/terraform-provider-aws#1102: `AuthFailure` is
//! a 401; cognitect-labs/aws-api#27: a region not served). EC2 documents `MissingAuthenticationToken`, though
//! it has also been seen to ask an unsigned request for the parameter `AWSAccessKeyId`.

use model::Error;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no Signature Version 4 in the request.
    Missing,
    /// There is one that can't be read; the text says what is wrong with it.
    Malformed(String),
    /// No such access key, or an inactive one.
    UnknownAccessKey,
    /// A session token that this cloud has not issued.
    UnknownSessionToken,
    /// A header that the signature must cover and does not.
    Unsigned(String),
    /// The scope is of another day than the request.
    ScopeDate(String),
    /// The body is not the one whose hash the caller gave.
    Payload,
    /// Another secret, or the request was altered on its way.
    Mismatch,
    /// The caller's clock is too far from ours; the text compares them.
    Skewed(String),
    /// A presigned link past its time.
    LinkExpired(String),
    /// Signed for a region that this cloud has not.
    Region(String),
}

/// The ways AWS's services speak of refusals.
enum Style {
    Ec2,
    Query,
    RestJson,
    S3,
}

impl Style {
    fn of(signing_name: &str) -> Style {
        match signing_name {
            "ec2" => Style::Ec2,
            "s3" => Style::S3,
            "ebs" | "ec2-instance-connect" => Style::RestJson,
            _ => Style::Query,
        }
    }
}

const EC2_AUTH_FAILURE: &str = "AWS was not able to validate the provided access credentials";
const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. Check your AWS \
     Secret Access Key and signing method. Consult the service documentation for details.";

impl Refusal {
    /// The error a service of this signing name answers.
    pub fn into_error(self, signing_name: &str) -> Error {
        let (code, status, message) = match Style::of(signing_name) {
            Style::Ec2 => self.ec2(),
            Style::Query => self.query(),
            Style::RestJson => self.rest_json(),
            Style::S3 => self.s3(),
        };
        Error::new(code, message).with_status(status)
    }

    fn ec2(self) -> (&'static str, u16, String) {
        match self {
            Refusal::Missing => (
                "MissingAuthenticationToken",
                403,
                "The request must contain valid (signed) credentials".into(),
            ),
            Refusal::Malformed(reason) => ("IncompleteSignature", 400, reason),
            Refusal::Skewed(_) | Refusal::LinkExpired(_) => {
                ("RequestExpired", 400, "Request has expired.".into())
            }
            Refusal::Region(_) => ("AuthFailure", 401, self.to_string()),
            Refusal::UnknownAccessKey
            | Refusal::UnknownSessionToken
            | Refusal::Unsigned(_)
            | Refusal::ScopeDate(_)
            | Refusal::Payload
            | Refusal::Mismatch => ("AuthFailure", 401, EC2_AUTH_FAILURE.into()),
        }
    }

    fn query(self) -> (&'static str, u16, String) {
        let code = match self {
            Refusal::Missing => ("MissingAuthenticationToken", 403),
            Refusal::Malformed(_) => ("IncompleteSignature", 400),
            Refusal::UnknownAccessKey | Refusal::UnknownSessionToken => ("InvalidClientTokenId", 403),
            Refusal::Unsigned(_)
            | Refusal::ScopeDate(_)
            | Refusal::Payload
            | Refusal::Mismatch
            | Refusal::Skewed(_)
            | Refusal::LinkExpired(_)
            | Refusal::Region(_) => ("SignatureDoesNotMatch", 403),
        };
        (code.0, code.1, self.to_string())
    }

    fn rest_json(self) -> (&'static str, u16, String) {
        let (code, status, message) = self.query();
        let code = match code {
            "MissingAuthenticationToken" => "MissingAuthenticationTokenException",
            "IncompleteSignature" => "IncompleteSignatureException",
            "InvalidClientTokenId" => "UnrecognizedClientException",
            _ => "InvalidSignatureException",
        };
        (code, status, message)
    }

    fn s3(self) -> (&'static str, u16, String) {
        match self {
            Refusal::Missing => ("AccessDenied", 403, "Access Denied".into()),
            Refusal::Malformed(reason) => ("AuthorizationHeaderMalformed", 400, reason),
            Refusal::UnknownAccessKey => (
                "InvalidAccessKeyId",
                403,
                "The AWS Access Key Id you provided does not exist in our records.".into(),
            ),
            Refusal::UnknownSessionToken => {
                ("InvalidToken", 400, "The provided token is malformed or otherwise invalid.".into())
            }
            Refusal::Unsigned(_) => (
                "AccessDenied",
                403,
                "There were headers present in the request which were not signed".into(),
            ),
            Refusal::Payload => ("XAmzContentSHA256Mismatch", 400, self.to_string()),
            Refusal::Mismatch => ("SignatureDoesNotMatch", 403, MISMATCH.into()),
            Refusal::Skewed(_) => (
                "RequestTimeTooSkewed",
                403,
                "The difference between the request time and the server's time is too large.".into(),
            ),
            Refusal::LinkExpired(_) => ("AccessDenied", 403, "Request has expired".into()),
            Refusal::ScopeDate(_) | Refusal::Region(_) => {
                ("AuthorizationHeaderMalformed", 400, self.to_string())
            }
        }
    }
}

/// The reason in full: for the log, and for the services that tell it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Missing => f.write_str("Request is missing Authentication Token"),
            Refusal::Malformed(reason)
            | Refusal::ScopeDate(reason)
            | Refusal::Skewed(reason)
            | Refusal::LinkExpired(reason) => f.write_str(reason),
            Refusal::UnknownAccessKey | Refusal::UnknownSessionToken => {
                f.write_str("The security token included in the request is invalid.")
            }
            Refusal::Unsigned(header) => {
                write!(f, "'{header}' must be a 'SignedHeader' in the AWS Authorization.")
            }
            Refusal::Payload => {
                f.write_str("The provided 'x-amz-content-sha256' header does not match what was computed.")
            }
            Refusal::Mismatch => f.write_str(MISMATCH),
            Refusal::Region(region) => {
                write!(f, "Credential should be scoped to a valid region, not '{region}'.")
            }
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_own_words() {
        let said = |refusal: Refusal, service: &str| {
            let error = refusal.into_error(service);
            (error.code.into_owned(), error.status)
        };
        for (refusal, ec2, query, json) in [
            (
                Refusal::Missing,
                ("MissingAuthenticationToken", 403),
                ("MissingAuthenticationToken", 403),
                ("MissingAuthenticationTokenException", 403),
            ),
            (
                Refusal::UnknownAccessKey,
                ("AuthFailure", 401),
                ("InvalidClientTokenId", 403),
                ("UnrecognizedClientException", 403),
            ),
            (
                Refusal::Mismatch,
                ("AuthFailure", 401),
                ("SignatureDoesNotMatch", 403),
                ("InvalidSignatureException", 403),
            ),
            (
                Refusal::Skewed("late".into()),
                ("RequestExpired", 400),
                ("SignatureDoesNotMatch", 403),
                ("InvalidSignatureException", 403),
            ),
        ] {
            let own = |(code, status): (&str, u16)| (code.to_owned(), status);
            assert_eq!(said(refusal.clone(), "ec2"), own(ec2));
            assert_eq!(said(refusal.clone(), "sts"), own(query));
            assert_eq!(said(refusal.clone(), "iam"), own(query));
            assert_eq!(said(refusal, "ebs"), own(json));
        }
    }

    #[test]
    fn ec2_does_not_tell_a_wrong_key_from_a_wrong_secret() {
        let wrong_key = Refusal::UnknownAccessKey.into_error("ec2");
        let wrong_secret = Refusal::Mismatch.into_error("ec2");
        assert_eq!(wrong_key.to_string(), wrong_secret.to_string());
    }
}
