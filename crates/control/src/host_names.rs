//! How instances are named inside: what a subnet says of those launched into it, and an instance of itself
//! (EC2 User Guide, "EC2 instance hostnames and domains").

use crate::engine::filter;
use crate::engine::table::Values;
use model::{Error, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostNames {
    /// After the instance's id; else after its address.
    pub by_resource: bool,
    /// Whether the name after the id resolves, whatever the instance is named after.
    pub resource_a_record: bool,
    pub resource_aaaa_record: bool,
}

impl HostNames {
    /// EC2's `HostnameType`.
    pub fn kind(self) -> &'static str {
        if self.by_resource { "resource-name" } else { "ip-name" }
    }

    /// Whether the type says that names are after ids.
    pub fn parse_kind(parameter: &str, text: &str) -> Result<bool> {
        match text {
            "ip-name" => Ok(false),
            "resource-name" => Ok(true),
            other => Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter {parameter} is invalid. Expected 'ip-name' or 'resource-name'."
            ))),
        }
    }

    /// The values under the last part of a filter's name.
    pub fn field(self, name: &str, values: &mut Values<'_>) -> bool {
        match name {
            "hostname-type" => filter::one(values, self.kind()),
            "enable-resource-name-dns-a-record" => {
                filter::one(values, filter::boolean(self.resource_a_record))
            }
            "enable-resource-name-dns-aaaa-record" => {
                filter::one(values, filter::boolean(self.resource_aaaa_record))
            }
            _ => false,
        }
    }
}
