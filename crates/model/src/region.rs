//! Regions and their names. Availability zones are a region's name and a letter.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a region, as `us-east-1`: AWS's own, or one the operator made up of the same form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Region(Arc<str>);

/// Longer than any of AWS's, short enough for host names.
const NAME_LEN_MAX: usize = 32;

impl Region {
    /// AWS's commercial regions (AWS General Reference, "Regions and Zones").
    pub const AWS: &'static [&'static str] = &[
        "af-south-1",
        "ap-east-1",
        "ap-east-2",
        "ap-northeast-1",
        "ap-northeast-2",
        "ap-northeast-3",
        "ap-south-1",
        "ap-south-2",
        "ap-southeast-1",
        "ap-southeast-2",
        "ap-southeast-3",
        "ap-southeast-4",
        "ap-southeast-5",
        "ap-southeast-6",
        "ap-southeast-7",
        "ca-central-1",
        "ca-west-1",
        "eu-central-1",
        "eu-central-2",
        "eu-north-1",
        "eu-south-1",
        "eu-south-2",
        "eu-west-1",
        "eu-west-2",
        "eu-west-3",
        "il-central-1",
        "me-central-1",
        "me-south-1",
        "mx-central-1",
        "sa-east-1",
        "us-east-1",
        "us-east-2",
        "us-west-1",
        "us-west-2",
    ];

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The zone with index 0 is `…a`.
    pub fn zone(&self, index: usize) -> String {
        format!("{}{}", self.0, (b'a' + index as u8) as char)
    }

    /// The domain of private host names: `ec2.internal` in us-east-1, `REGION.compute.internal` elsewhere.
    pub fn private_dns_domain(&self) -> String {
        if &*self.0 == "us-east-1" { "ec2.internal".into() } else { format!("{}.compute.internal", self.0) }
    }

    /// The domain of public host names: `compute-1.amazonaws.com` in us-east-1, else with the region.
    pub fn public_dns_domain(&self) -> String {
        if &*self.0 == "us-east-1" {
            "compute-1.amazonaws.com".into()
        } else {
            format!("{}.compute.amazonaws.com", self.0)
        }
    }

    /// And of those after addresses of IPv6.
    pub fn ip_dns_domain(&self) -> String {
        format!("{}.ip.aws", self.0)
    }
}

impl FromStr for Region {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let well_formed = !text.is_empty()
            && text.len() <= NAME_LEN_MAX
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && text.as_bytes()[0].is_ascii_lowercase()
            && text.as_bytes()[text.len() - 1].is_ascii_digit();
        if well_formed {
            Ok(Region(text.into()))
        } else {
            Err(Error::invalid_parameter_value(format!(
                "'{text}' is not the name of a region, as us-east-1 is"
            )))
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
