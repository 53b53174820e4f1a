//! Tags and tag specifications (EC2 User Guide, "Tag your Amazon EC2 resources", "Tag restrictions").

use aws_api::ec2;
use model::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most tags on one resource.
pub const TAGS_MAX: usize = 50;
/// Characters in a key.
const KEY_LEN_MAX: usize = 128;
/// Characters in a value.
const VALUE_LEN_MAX: usize = 256;
/// Reserved for AWS's own tags.
const RESERVED_PREFIX: &str = "aws:";

/// A resource's tags in the order of their keys. Most resources have few: a list takes less than a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Tags(Box<[(Box<str>, Box<str>)]>);

impl From<BTreeMap<String, String>> for Tags {
    fn from(map: BTreeMap<String, String>) -> Tags {
        Tags(map.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl From<Tags> for BTreeMap<String, String> {
    fn from(tags: Tags) -> Self {
        tags.0.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
    }
}

impl Tags {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(of, _)| (**of).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds or overwrites; refused as a whole when the result has too many.
    pub fn set(&mut self, tags: &Tags) -> Result<()> {
        let mut merged = self.to_map();
        merged.extend(tags.to_map());
        check_count(merged.len())?;
        *self = merged.into();
        Ok(())
    }

    /// Removes `key`; with a value only where it is the tag's.
    pub fn unset(&mut self, key: &str, value: Option<&str>) {
        if value.is_none_or(|value| self.get(key) == Some(value)) {
            let mut kept = self.to_map();
            kept.remove(key);
            *self = kept.into();
        }
    }

    pub fn clear(&mut self) {
        *self = Tags::default();
    }

    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.clone().into()
    }

    /// As the API lists them.
    pub fn to_api(&self) -> Vec<ec2::Tag> {
        self.iter()
            .map(|(key, value)| ec2::Tag { key: Some(key.to_owned()), value: Some(value.to_owned()) })
            .collect()
    }

    /// Checked against the tag restrictions; a value that is absent is empty.
    pub fn from_api(tags: &[ec2::Tag]) -> Result<Tags> {
        let mut checked = BTreeMap::new();
        for tag in tags {
            let key = tag.key.as_deref().unwrap_or_default();
            let value = tag.value.as_deref().unwrap_or_default();
            check(key, value)?;
            if checked.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(Error::invalid_parameter_value(format!("Duplicate tag key '{key}' specified.")));
            }
        }
        check_count(checked.len())?;
        Ok(checked.into())
    }
}

fn check_count(count: usize) -> Result<()> {
    if count > TAGS_MAX {
        return Err(Error::new("TagLimitExceeded", format!("More than {TAGS_MAX} tags on one resource")));
    }
    Ok(())
}

fn check(key: &str, value: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid_parameter_value("Tag keys must not be empty"));
    }
    if key.to_ascii_lowercase().starts_with(RESERVED_PREFIX) {
        return Err(Error::invalid_parameter_value(format!(
            "Tag keys starting with '{RESERVED_PREFIX}' are reserved for internal use"
        )));
    }
    if key.chars().count() > KEY_LEN_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "Tag key exceeds the maximum length of {KEY_LEN_MAX} characters"
        )));
    }
    if value.chars().count() > VALUE_LEN_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "Tag value exceeds the maximum length of {VALUE_LEN_MAX} characters"
        )));
    }
    Ok(())
}

/// The tags that a request wants on each kind of resource it creates.
#[derive(Debug, Default)]
pub struct Specified(Vec<(Kind, Tags)>);

impl Specified {
    /// `allowed` are the kinds that the operation creates.
    pub fn from_api(specifications: &[ec2::TagSpecification], allowed: &[Kind]) -> Result<Specified> {
        let mut specified = Vec::new();
        let mut seen = BTreeSet::new();
        for specification in specifications {
            let resource_type = specification.resource_type.as_deref().unwrap_or_default();
            let kind =
                allowed.iter().copied().find(|kind| kind.resource_type() == resource_type).ok_or_else(
                    || {
                        Error::invalid_parameter_value(format!(
                            "'{resource_type}' is not a valid taggable resource type for this operation."
                        ))
                    },
                )?;
            if !seen.insert(kind) {
                return Err(Error::invalid_parameter_value(format!(
                    "Duplicate resource type '{resource_type}' in TagSpecification"
                )));
            }
            specified.push((kind, Tags::from_api(&specification.tags)?));
        }
        Ok(Specified(specified))
    }

    pub fn of(&self, kind: Kind) -> Tags {
        self.0.iter().find(|(of, _)| *of == kind).map(|(_, tags)| tags.clone()).unwrap_or_default()
    }
}
