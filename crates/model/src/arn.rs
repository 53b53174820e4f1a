//! Account ids and Amazon Resource Names.

use crate::{Error, Region, Result, Text};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Twelve decimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountId(Text);

impl AccountId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
            Ok(AccountId(text.into()))
        } else {
            Err(Error::invalid_parameter_value(format!(
                "'{text}' is not an account id: 12 digits are wanted"
            )))
        }
    }
}

impl TryFrom<String> for AccountId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<AccountId> for String {
    fn from(account: AccountId) -> String {
        account.0.into()
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `arn:aws:service:region:account:resource`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Arn {
    pub service: String,
    /// Empty for global services such as IAM.
    pub region: String,
    pub account: String,
    pub resource: String,
}

impl Arn {
    pub fn ec2(region: &Region, account: &AccountId, resource_type: &str, id: &str) -> Arn {
        Arn {
            service: "ec2".into(),
            region: region.to_string(),
            account: account.to_string(),
            resource: format!("{resource_type}/{id}"),
        }
    }

    /// Of a key.
    pub fn kms(region: &Region, account: &AccountId, key_id: &str) -> Arn {
        Arn {
            service: "kms".into(),
            region: region.to_string(),
            account: account.to_string(),
            resource: format!("key/{key_id}"),
        }
    }

    pub fn iam(account: &AccountId, resource: &str) -> Arn {
        Arn {
            service: "iam".into(),
            region: String::new(),
            account: account.to_string(),
            resource: resource.into(),
        }
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:{}:{}:{}:{}", self.service, self.region, self.account, self.resource)
    }
}
