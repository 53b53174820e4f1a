//! Allowed AMIs: which images of others an account wants to see and use (EC2 User Guide, "Control the discovery and use of
//! AMIs in Amazon EC2 with Allowed AMIs").
//!
//! An image is allowed that meets every condition of one of the criteria; all are where there are no criteria, and
//! the account's own always. Enabled, what is not allowed does not exist for the account; in audit mode it is only told.

use super::public_access::ImageSettings;
use super::{Image, register};
use crate::Context;
use crate::engine::filter::Pattern;
use crate::engine::settings::{self, MANAGED_BY};
use aws_api::ec2;
use model::{AccountId, Error, Result, Timestamp};
use serde::{Deserialize, Serialize};

// EC2 API Reference, ImageCriterionRequest.
const CRITERIA_MAX: usize = 10;
const PROVIDERS_MAX: usize = 200;
const NAMES_MAX: usize = 50;
const PRODUCT_CODES_MAX: usize = 50;
const PRODUCT_CODE_LEN_MAX: usize = 25;

/// The aliases of owners that can be providers.
const ALIASES: &[&str] = &["amazon", "aws-marketplace", "aws-backup-vault"];
/// The provider that no image has.
const NONE: &str = "none";

const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AllowedImages {
    state: State,
    criteria: Vec<Criterion>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    #[default]
    Disabled,
    AuditMode,
    Enabled,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Disabled => "disabled",
            State::AuditMode => "audit-mode",
            State::Enabled => "enabled",
        }
    }
}

/// Conditions; an empty one is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Criterion {
    providers: Vec<String>,
    /// With wildcards.
    names: Vec<String>,
    product_codes: Vec<String>,
    days_since_deprecated_max: Option<i32>,
    days_since_created_max: Option<i32>,
}

impl Criterion {
    fn from_api(criterion: &ec2::ImageCriterionRequest) -> Result<Criterion> {
        let checked = Criterion {
            providers: criterion.image_providers.clone(),
            names: criterion.image_names.clone(),
            product_codes: criterion.marketplace_product_codes.clone(),
            days_since_deprecated_max: criterion
                .deprecation_time_condition
                .as_ref()
                .and_then(|condition| condition.maximum_days_since_deprecated),
            days_since_created_max: criterion
                .creation_date_condition
                .as_ref()
                .and_then(|condition| condition.maximum_days_since_created),
        };
        if checked == Criterion::default() {
            return Err(Error::invalid_parameter_value("An image criterion must have a condition."));
        }
        checked.check()?;
        Ok(checked)
    }

    fn check(&self) -> Result<()> {
        check_all("imageProvider", &self.providers, PROVIDERS_MAX, |provider| {
            provider == NONE || ALIASES.contains(&provider) || provider.parse::<AccountId>().is_ok()
        })?;
        if self.providers.len() > 1 && self.providers.iter().any(|provider| provider == NONE) {
            return Err(Error::invalid_parameter_value(
                "The image provider 'none' cannot be given with other image providers.",
            ));
        }
        check_all("imageName", &self.names, NAMES_MAX, is_name_pattern)?;
        check_all("marketplaceProductCode", &self.product_codes, PRODUCT_CODES_MAX, |code| {
            (1..=PRODUCT_CODE_LEN_MAX).contains(&code.len())
                && code.bytes().all(|b| b.is_ascii_alphanumeric())
        })?;
        let days = [self.days_since_deprecated_max, self.days_since_created_max];
        match days.into_iter().flatten().find(|days| *days < 0) {
            Some(days) => Err(Error::invalid_parameter_value(format!("A number of days cannot be {days}."))),
            None => Ok(()),
        }
    }

    fn to_api(&self) -> ec2::ImageCriterion {
        let deprecated = |days| ec2::DeprecationTimeCondition { maximum_days_since_deprecated: Some(days) };
        let created = |days| ec2::CreationDateCondition { maximum_days_since_created: Some(days) };
        ec2::ImageCriterion {
            image_providers: self.providers.clone(),
            image_names: self.names.clone(),
            marketplace_product_codes: self.product_codes.clone(),
            deprecation_time_condition: self.days_since_deprecated_max.map(deprecated),
            creation_date_condition: self.days_since_created_max.map(created),
        }
    }
}

fn check_all(name: &str, values: &[String], max: usize, is_valid: impl Fn(&str) -> bool) -> Result<()> {
    if values.len() > max {
        return Err(Error::invalid_parameter_value(format!("At most {max} values of {name} can be given.")));
    }
    match values.iter().find(|value| !is_valid(value)) {
        Some(value) => {
            Err(Error::invalid_parameter_value(format!("Value ({value}) for parameter {name} is invalid.")))
        }
        None => Ok(()),
    }
}

/// What an image's name may have, with wildcards; where it has a `?`, no less than the shortest name.
fn is_name_pattern(name: &str) -> bool {
    let len_min = if name.contains('?') { register::NAME_LEN_MIN } else { 1 };
    (len_min..=register::NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(|b| b"*?".contains(&b) || register::is_of_a_name(b))
}

/// What an account allows at some moment.
pub struct Judge<'a> {
    account: &'a AccountId,
    allowed: &'a AllowedImages,
    names: Vec<Vec<Pattern>>,
    now: Timestamp,
}

impl<'a> Judge<'a> {
    pub fn new(settings: &'a ImageSettings, now: Timestamp) -> Judge<'a> {
        let patterns =
            |criterion: &Criterion| criterion.names.iter().map(|name| Pattern::parse(name)).collect();
        let names = settings.allowed.criteria.iter().map(patterns).collect();
        Judge { account: &settings.account, allowed: &settings.allowed, names, now }
    }

    /// EC2's `ImageAllowed`.
    pub fn allows(&self, image: &Image) -> bool {
        let criteria = &self.allowed.criteria;
        self.allowed.state == State::Disabled
            || image.owner == *self.account
            || criteria.is_empty()
            || criteria.iter().zip(&self.names).any(|(criterion, names)| self.meets(image, criterion, names))
    }

    /// Whether the image does not exist for the account.
    pub fn hides(&self, image: &Image) -> bool {
        self.allowed.state == State::Enabled && !self.allows(image)
    }

    fn meets(&self, image: &Image, criterion: &Criterion, names: &[Pattern]) -> bool {
        let is_provided = criterion.providers.iter().any(|provider| {
            *provider == image.owner.as_str() || image.owner_alias.as_deref() == Some(provider.as_str())
        });
        let days_since = |at: Timestamp| (self.now.as_second() - at.as_second()) / SECONDS_PER_DAY;
        let within = |max: Option<i32>, at: Option<Timestamp>| match (max, at) {
            (Some(max), Some(at)) if at <= self.now => days_since(at) < i64::from(max),
            _ => true,
        };
        (criterion.providers.is_empty() || is_provided)
            && (names.is_empty() || names.iter().any(|pattern| pattern.matches(&image.name)))
            // No image here is sold in the Marketplace.
            && criterion.product_codes.is_empty()
            && within(criterion.days_since_deprecated_max, image.deprecated_at)
            && within(criterion.days_since_created_max, Some(image.created_at))
    }
}

pub async fn enable_allowed_images_settings(
    context: &Context,
    input: ec2::EnableAllowedImagesSettingsRequest,
) -> Result<ec2::EnableAllowedImagesSettingsResult> {
    let asked = input.allowed_images_settings_state.as_deref().unwrap_or_default();
    let state = [State::Enabled, State::AuditMode].into_iter().find(|state| state.name() == asked);
    let state = state.ok_or_else(|| {
        Error::invalid_parameter_value(format!(
            "Value ({asked}) for parameter allowedImagesSettingsState is invalid. Expected: enabled, audit-mode."
        ))
    })?;
    settings::change(context, |settings: &mut ImageSettings| settings.allowed.state = state).await?;
    Ok(ec2::EnableAllowedImagesSettingsResult { allowed_images_settings_state: Some(state.name().into()) })
}

/// The criteria stay.
pub async fn disable_allowed_images_settings(
    context: &Context,
    _: ec2::DisableAllowedImagesSettingsRequest,
) -> Result<ec2::DisableAllowedImagesSettingsResult> {
    settings::change(context, |settings: &mut ImageSettings| settings.allowed.state = State::Disabled)
        .await?;
    let state = State::Disabled.name().into();
    Ok(ec2::DisableAllowedImagesSettingsResult { allowed_images_settings_state: Some(state) })
}

pub async fn get_allowed_images_settings(
    context: &Context,
    _: ec2::GetAllowedImagesSettingsRequest,
) -> Result<ec2::GetAllowedImagesSettingsResult> {
    let ImageSettings { allowed, .. } = settings::of(&context.tables(), context.account());
    Ok(ec2::GetAllowedImagesSettingsResult {
        state: Some(allowed.state.name().into()),
        image_criteria: allowed.criteria.iter().map(Criterion::to_api).collect(),
        managed_by: Some(MANAGED_BY.into()),
    })
}

pub async fn replace_image_criteria_in_allowed_images_settings(
    context: &Context,
    input: ec2::ReplaceImageCriteriaInAllowedImagesSettingsRequest,
) -> Result<ec2::ReplaceImageCriteriaInAllowedImagesSettingsResult> {
    if input.image_criteria.len() > CRITERIA_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "At most {CRITERIA_MAX} image criteria can be given."
        )));
    }
    let criteria = input.image_criteria.iter().map(Criterion::from_api).collect::<Result<Vec<_>>>()?;
    settings::change(context, |settings: &mut ImageSettings| settings.allowed.criteria = criteria.clone())
        .await?;
    Ok(ec2::ReplaceImageCriteriaInAllowedImagesSettingsResult { return_value: Some(true) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(days * SECONDS_PER_DAY).unwrap()
    }

    fn image() -> Image {
        let region = "us-east-1".parse().unwrap();
        super::super::default_images(&region, at(100)).remove(0)
    }

    fn allows(criteria: &[Criterion], image: &Image, now: Timestamp) -> bool {
        let settings = ImageSettings {
            account: "123456789012".parse().unwrap(),
            blocks_public_access: true,
            allowed: AllowedImages { state: State::AuditMode, criteria: criteria.to_vec() },
        };
        Judge::new(&settings, now).allows(image)
    }

    #[test]
    fn one_criterion_must_be_met_in_full() {
        let image = image();
        let amazon = Criterion { providers: vec!["amazon".into()], ..Default::default() };
        let other = Criterion { providers: vec!["111122223333".into()], ..Default::default() };
        let named = Criterion { names: vec!["al2023-*".into()], ..amazon.clone() };
        let misnamed = Criterion { names: vec!["windows-?".into()], ..amazon.clone() };
        let sold = Criterion { product_codes: vec!["abc".into()], ..amazon.clone() };
        let nobody = Criterion { providers: vec![NONE.into()], ..Default::default() };
        let now = at(100);
        assert!(allows(&[], &image, now));
        for (criteria, allowed) in [
            (vec![amazon.clone()], true),
            (vec![other.clone()], false),
            (vec![other.clone(), amazon], true),
            (vec![named], true),
            (vec![misnamed, other], false),
            (vec![sold], false),
            (vec![nobody.clone()], false),
        ] {
            assert_eq!(allows(&criteria, &image, now), allowed, "{criteria:?}");
        }
        let own = Image { owner: "123456789012".parse().unwrap(), ..image };
        assert!(allows(&[nobody], &own, now));
    }

    #[test]
    fn ages_are_counted_in_days() {
        let image = image();
        let young = [Criterion { days_since_created_max: Some(10), ..Default::default() }];
        assert!(allows(&young, &image, at(109)));
        assert!(!allows(&young, &image, at(110)));
        let current = [Criterion { days_since_deprecated_max: Some(0), ..Default::default() }];
        assert!(allows(&current, &image, at(200)));
        let deprecated = Image { deprecated_at: Some(at(150)), ..image };
        assert!(allows(&current, &deprecated, at(149)));
        assert!(!allows(&current, &deprecated, at(150)));
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        let valid = |criterion: Criterion| criterion.check().is_ok();
        let providers = |providers: &[&str]| Criterion {
            providers: providers.iter().map(|provider| (*provider).to_owned()).collect(),
            ..Default::default()
        };
        assert!(valid(providers(&["amazon", "123456789012"])) && valid(providers(&[NONE])));
        assert!(!valid(providers(&[NONE, "amazon"])) && !valid(providers(&["self"])));
        assert!(!valid(providers(&vec!["amazon"; PROVIDERS_MAX + 1])));
        for (name, is_pattern) in [("*", true), ("a?", false), ("ab?", true), ("a#", false), ("", false)] {
            assert_eq!(is_name_pattern(name), is_pattern, "{name}");
        }
        assert!(!valid(Criterion { product_codes: vec!["a-b".into()], ..Default::default() }));
        assert!(!valid(Criterion { days_since_created_max: Some(-1), ..Default::default() }));
    }
}
