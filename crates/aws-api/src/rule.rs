//! What the models say of a value beyond its type: which it may be, how large, how long.

use crate::node::{Node, Path, invalid};
use model::{Error, Result};
use std::fmt::Display;

/// Of a value; of a list's length where it stands for a list. A side without a bound is infinite or the largest.
#[derive(Clone, Copy)]
pub enum Rule {
    Free,
    OneOf(&'static [&'static str]),
    Between(f64, f64),
    /// In characters, or in items.
    Length(usize, usize),
}

impl Rule {
    /// Of a value still in its text. What is no number at all is the type's to refuse.
    pub fn check(self, node: &Node, path: &Path) -> Result<()> {
        let Some(text) = node.value.as_deref() else { return Ok(()) };
        match self {
            Rule::Free => Ok(()),
            Rule::OneOf(values) if values.contains(&text) => Ok(()),
            Rule::OneOf(values) => {
                Err(invalid(text, path, &format!("Valid values are: {}.", values.join(", "))))
            }
            Rule::Between(least, most) => match text.parse::<f64>() {
                Ok(number) if number < least => {
                    Err(invalid(text, path, &format!("Expecting a value greater than or equal to {least}.")))
                }
                Ok(number) if number > most => {
                    Err(invalid(text, path, &format!("Expecting a value less than or equal to {most}.")))
                }
                _ => Ok(()),
            },
            Rule::Length(..) => self.check_length(text.chars().count(), "characters", path),
        }
    }

    /// Of how long a string or a list is. The message leaves the value out: it may be a secret, and it may be long.
    pub fn check_length(self, length: usize, unit: &str, path: &Path) -> Result<()> {
        let Rule::Length(least, most) = self else { return Ok(()) };
        let refuse = |side: &str, bound: &dyn Display| {
            Err(Error::invalid_parameter_value(format!(
                "The parameter {} has {length} {unit}. Expecting at {side} {bound}.",
                path.text()
            )))
        };
        match length {
            _ if length < least => refuse("least", &least),
            _ if length > most => refuse("most", &most),
            _ => Ok(()),
        }
    }
}
