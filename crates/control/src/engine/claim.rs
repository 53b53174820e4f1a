//! Claims keep what must be unique: a name, an address. The claim's key is the thing itself, so that the store's
//! compare-and-swap decides who has it.

use crate::engine::table::{Record, Values};
use model::Text;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// `scope/value`.
    pub key: Box<str>,
    /// The id of the resource that has it.
    pub owner: Text,
}

impl Claim {
    pub fn key(scope: &str, value: &str) -> String {
        format!("{scope}/{value}")
    }
}

impl Record for Claim {
    const TABLE: &'static str = "claim";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        &self.key
    }

    fn field<'a>(&'a self, _: &str, _: &mut Values<'a>) -> bool {
        false
    }
}
