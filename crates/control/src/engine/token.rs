//! Client tokens: the same request with the same token has one effect, and every repetition its answer
//! (EC2 API Reference, "Ensuring idempotency").

use crate::engine::table::{Record, Values};
use crate::engine::transaction::Tx;
use model::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};

/// Longest token, in characters.
const TOKEN_LEN_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientToken {
    /// `operation/token`.
    pub key: String,
    /// A digest of the request's parameters, the token left out.
    pub parameters: String,
    /// Ids of what the request made.
    pub made: Vec<String>,
    pub at: Timestamp,
}

impl Record for ClientToken {
    const TABLE: &'static str = "client-token";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        &self.key
    }

    fn field<'a>(&'a self, _: &str, _: &mut Values<'a>) -> bool {
        false
    }
}

/// A request's token, if it has one, bound to its operation and parameters.
#[derive(Clone, Debug)]
pub struct Idempotent {
    key: Option<String>,
    parameters: String,
}

impl Idempotent {
    pub fn new(operation: &str, token: Option<&str>, parameters: String) -> Result<Self> {
        let key = match token {
            None | Some("") => None,
            Some(token)
                if token.chars().count() > TOKEN_LEN_MAX
                    || !token.bytes().all(|b| (b'!'..=b'~').contains(&b)) =>
            {
                return Err(Error::invalid_parameter_value(format!(
                    "The client token must be at most {TOKEN_LEN_MAX} ASCII characters without spaces"
                )));
            }
            Some(token) => Some(format!("{operation}/{token}")),
        };
        Ok(Idempotent { key, parameters })
    }

    /// What an earlier request with this token made; `IdempotentParameterMismatch` if its parameters differed.
    pub fn made_before(&self, tx: &mut Tx<'_>) -> Result<Option<Vec<String>>> {
        let Some(token) = self.key.as_deref().and_then(|key| tx.get::<ClientToken>(key)) else {
            return Ok(None);
        };
        if token.parameters != self.parameters {
            return Err(Error::new(
                "IdempotentParameterMismatch",
                "The request uses the same client token as a previous, but non-identical request.",
            ));
        }
        Ok(Some(token.made.clone()))
    }

    /// Remembers, in the transaction that makes it, what the token stands for.
    pub fn remember(&self, tx: &mut Tx<'_>, made: Vec<String>) {
        if let Some(key) = &self.key {
            let token =
                ClientToken { key: key.clone(), parameters: self.parameters.clone(), made, at: tx.now() };
            tx.create(&token);
        }
    }
}
