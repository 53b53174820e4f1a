//! Who is calling: Signature Version 4 from both sides, and the access keys it rests on.
//!
//! ```text
//!   raw request ──▶ claim ──▶ canonical request ──▶ string to sign ──▶ HMAC ──▶ compare
//!   (bytes as       (what it   (one spelling for     (date, scope,     (signing   (constant
//!    they came)      says)      all equal requests)   hash)             key)       time)
//! ```
//!
//! Invariants:
//! - Verification sees the bytes as they came, before anything has parsed them.
//! - What is signed is what is acted on: the query is read by [`form`] here and at the edge alike.
//! - Nothing a request claims is believed, cached or logged before its signature has been found good.
//! - A secret is never printed.
//!
//! Follows the IAM User Guide, "Create a signed AWS API request".

mod access_key;
mod amz_date;
mod canonical;
mod claim;
mod credentials;
pub mod form;
mod refusal;
mod request;
mod sign;
mod signing_key;
mod verify;

pub use access_key::AccessKey;
pub use canonical::normalize_path;
pub use claim::{claimed_service, is_authentication_parameter};
pub use credentials::{Credential, Credentials, Identity, Principal, Secret};
pub use refusal::Refusal;
pub use request::RawRequest;
pub use sign::Signer;
pub use verify::{SkewPolicy, Verifier};

/// The one algorithm: a keyed SHA-256 over the canonical request.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What every credential scope ends in.
const TERMINATOR: &str = "aws4_request";

/// Stands for the payload's hash where the payload is not signed.
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// SHA-256 as lowercase hexadecimal digits.
fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}
