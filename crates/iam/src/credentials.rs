//! Whose key it is: what a verifier is given to look keys up in, and what it answers with.

use model::AccountId;
use std::fmt;
use std::sync::Arc;

/// A secret access key. Printing one, even for debugging, shows nothing of it.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(secret: impl Into<Arc<str>>) -> Self {
        Secret(secret.into())
    }

    /// The secret itself: for signing, and for the one time its owner is shown it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who acts, as GetCallerIdentity tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub account: AccountId,
    pub arn: String,
    /// `AIDA…` of a user, the account's id of its root.
    pub user_id: String,
}

/// What is known of an access key.
#[derive(Clone, Debug)]
pub struct Credential {
    pub secret: Secret,
    pub principal: Principal,
    /// An inactive key is refused as an unknown one is.
    pub active: bool,
}

/// Where access keys are looked up: in memory, for every request does it.
pub trait Credentials: Send + Sync {
    fn find(&self, access_key_id: &str) -> Option<Credential>;
}

/// A caller whose signature was found good, and the scope it signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub principal: Principal,
    pub access_key_id: String,
    /// As the credential scope names it: whether it is a region of ours is the edge's question.
    pub region: String,
    /// The signing name, as `ec2`.
    pub service: String,
}
