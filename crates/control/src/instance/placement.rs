//! An instance's placement: where it is, and what was asked of where it may be.

use aws_api::ec2;
use model::{Error, Id, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    pub zone: String,
    /// The machine behind the cloud; EC2's own host id is that of a Dedicated Host.
    pub host_id: String,
    pub group_name: Option<String>,
    pub group_id: Option<Id>,
    pub partition_number: Option<u32>,
    #[serde(default)]
    pub tenancy: Tenancy,
    #[serde(default)]
    pub affinity: Affinity,
    /// The Dedicated Host that it is on; of a stopped instance the last one, or the one that it was given since.
    #[serde(default)]
    pub dedicated_host_id: Option<String>,
    /// Whether the next start is to be on that Dedicated Host, whatever the affinity.
    #[serde(default)]
    pub targeted: bool,
}

impl Placement {
    /// The Dedicated Host that it must start on.
    pub fn named_host(&self) -> Option<&str> {
        let bound = self.targeted || self.affinity == Affinity::Host;
        self.dedicated_host_id.as_deref().filter(|_| bound)
    }
}

/// With whom an instance shares its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tenancy {
    #[default]
    Default,
    Dedicated,
    /// On a Dedicated Host.
    Host,
}

impl Tenancy {
    pub fn name(self) -> &'static str {
        match self {
            Tenancy::Default => "default",
            Tenancy::Dedicated => "dedicated",
            Tenancy::Host => "host",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "default" => Ok(Tenancy::Default),
            "dedicated" => Ok(Tenancy::Dedicated),
            "host" => Ok(Tenancy::Host),
            other => Err(Error::new(
                "InvalidTenancy",
                format!("Value ({other}) for parameter tenancy is invalid."),
            )),
        }
    }
}

/// Whether an instance of host tenancy goes back to its Dedicated Host whenever it is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Affinity {
    #[default]
    Default,
    Host,
}

impl Affinity {
    pub fn name(self) -> &'static str {
        match self {
            Affinity::Default => "default",
            Affinity::Host => "host",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "default" => Ok(Affinity::Default),
            "host" => Ok(Affinity::Host),
            other => Err(Error::new(
                "InvalidAffinity",
                format!("Value ({other}) for parameter affinity is invalid."),
            )),
        }
    }
}

/// The tenancy and affinity that a launch asks for. To name a Dedicated Host is to ask for one.
pub(crate) fn asked(placement: Option<&ec2::Placement>) -> Result<(Tenancy, Affinity)> {
    let given = |text: fn(&ec2::Placement) -> &Option<String>| {
        placement.and_then(|placement| text(placement).as_deref()).filter(|text| !text.is_empty())
    };
    if given(|placement| &placement.host_resource_group_arn).is_some() {
        return Err(Error::new(
            "UnsupportedOperation",
            "Host resource groups are not supported by this cloud.",
        ));
    }
    let names_host = given(|placement| &placement.host_id).is_some();
    let tenancy = match given(|placement| &placement.tenancy) {
        Some(text) => Tenancy::parse(text)?,
        None if names_host => Tenancy::Host,
        None => Tenancy::Default,
    };
    let affinity = given(|placement| &placement.affinity).map(Affinity::parse).transpose()?;
    match (tenancy, names_host, affinity) {
        (Tenancy::Host, ..) | (_, false, None) => Ok((tenancy, affinity.unwrap_or_default())),
        (_, true, _) => Err(only_with_host_tenancy("hostId")),
        (_, false, Some(_)) => Err(only_with_host_tenancy("affinity")),
    }
}

/// `The parameter affinity cannot be used without specifying a tenancy of 'host'`.
pub(crate) fn only_with_host_tenancy(parameter: &str) -> Error {
    Error::invalid_parameter_combination(format!(
        "The parameter {parameter} cannot be used without specifying a tenancy of 'host'"
    ))
}
