//! Protection against being deregistered (EC2 User Guide, "Protect an Amazon EC2 AMI from deregistration").
//!
//! ```text
//!   disabled ──enable──▶ enabled without cooldown ──disable──▶ disabled
//!            └─enable──▶ enabled with cooldown ──disable──▶ cooling down ──24 hours──▶ disabled
//! ```

use super::Image;
use super::attribute::change;
use crate::Context;
use crate::engine::filter;
use aws_api::ec2;
use model::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const COOLDOWN: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    #[default]
    Disabled,
    Enabled {
        cooldown: bool,
    },
    CoolingDown {
        until: Timestamp,
    },
}

impl Protection {
    pub fn name(self) -> &'static str {
        match self {
            Protection::Enabled { cooldown: true } => "enabled-with-cooldown",
            Protection::Enabled { cooldown: false } => "enabled-without-cooldown",
            Protection::Disabled | Protection::CoolingDown { .. } => "disabled",
        }
    }

    fn disable(self, now: Timestamp) -> Protection {
        match self {
            Protection::Enabled { cooldown: true } => {
                Protection::CoolingDown { until: now.saturating_add(COOLDOWN).unwrap_or(Timestamp::MAX) }
            }
            Protection::Enabled { cooldown: false } => Protection::Disabled,
            // Disabling it again does not begin the cooldown anew.
            Protection::Disabled | Protection::CoolingDown { .. } => self,
        }
    }
}

impl Image {
    /// Refused while it is protected.
    pub(super) fn check_deregistrable(&self, now: Timestamp) -> Result<()> {
        let why = match self.protection {
            Protection::Enabled { .. } => "it has deregistration protection".to_owned(),
            Protection::CoolingDown { until } if now < until => {
                format!("its deregistration protection cools down until {}", filter::time(until))
            }
            Protection::Disabled | Protection::CoolingDown { .. } => return Ok(()),
        };
        Err(Error::new(
            "OperationNotPermitted",
            format!("The image '{}' cannot be deregistered: {why}.", self.image_id),
        ))
    }
}

pub async fn enable_image_deregistration_protection(
    context: &Context,
    input: ec2::EnableImageDeregistrationProtectionRequest,
) -> Result<ec2::EnableImageDeregistrationProtectionResult> {
    let cooldown = input.with_cooldown.unwrap_or(false);
    change(context, input.image_id.as_deref(), |_, image| {
        image.protection = Protection::Enabled { cooldown };
        Ok(())
    })
    .await?;
    Ok(ec2::EnableImageDeregistrationProtectionResult { r#return: Some("true".into()) })
}

pub async fn disable_image_deregistration_protection(
    context: &Context,
    input: ec2::DisableImageDeregistrationProtectionRequest,
) -> Result<ec2::DisableImageDeregistrationProtectionResult> {
    change(context, input.image_id.as_deref(), |tx, image| {
        image.protection = image.protection.disable(tx.now());
        Ok(())
    })
    .await?;
    Ok(ec2::DisableImageDeregistrationProtectionResult { r#return: Some("true".into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cooldown_begins_once_and_ends() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let hours = |hours: i64| at(hours * 60 * 60);
        let cooling = Protection::Enabled { cooldown: true }.disable(at(0));
        assert_eq!(cooling, Protection::CoolingDown { until: hours(24) });
        assert_eq!(cooling.disable(hours(5)), cooling);
        assert_eq!(Protection::Enabled { cooldown: false }.disable(at(0)), Protection::Disabled);
        let region = "us-east-1".parse().unwrap();
        let mut image = crate::image::default_images(&region, at(0)).remove(0);
        image.protection = cooling;
        assert_eq!(image.check_deregistrable(hours(23)).unwrap_err().code, "OperationNotPermitted");
        assert!(image.check_deregistrable(hours(24)).is_ok());
    }
}
