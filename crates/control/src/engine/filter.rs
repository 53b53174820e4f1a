//! Filters as every Describe operation takes them: values of one filter are alternatives, filters are all
//! wanted, `*` and `?` are wildcards, a backslash takes their meaning away
//! (EC2 User Guide, "Filter resources using the CLI").

use crate::engine::table::{Record, Values};
use aws_api::ec2;
use model::{Error, Result};
use std::borrow::Cow;

/// Most filters in one request.
const FILTERS_MAX: usize = 50;
/// Most values in one filter (EC2's documented limit).
const VALUES_MAX: usize = 200;

/// One filter of a request, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    pub name: String,
    pub patterns: Vec<Pattern>,
}

impl Filter {
    /// Its values, where none has a wildcard.
    pub fn exact(&self) -> Option<Vec<&str>> {
        let exact = self.patterns.iter().map(|pattern| match pattern {
            Pattern::Exact(value) => Some(value.as_str()),
            Pattern::Wild(_) => None,
        });
        exact.collect()
    }
}

/// One value of a filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    Exact(String),
    Wild(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Literal(char),
    One,
    Many,
}

impl Pattern {
    pub fn parse(text: &str) -> Pattern {
        let mut pieces = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            pieces.push(match character {
                '*' => Piece::Many,
                '?' => Piece::One,
                '\\' => Piece::Literal(characters.next().unwrap_or('\\')),
                other => Piece::Literal(other),
            });
        }
        let literal: Option<String> = pieces
            .iter()
            .map(|piece| if let Piece::Literal(character) = piece { Some(*character) } else { None })
            .collect();
        literal.map(Pattern::Exact).unwrap_or(Pattern::Wild(pieces))
    }

    pub fn matches(&self, value: &str) -> bool {
        match self {
            Pattern::Exact(exact) => exact == value,
            Pattern::Wild(pieces) => wild(pieces, value),
        }
    }
}

/// Matches in time linear in `pieces × value`: on a mismatch only the last `*` takes one character more.
fn wild(pieces: &[Piece], value: &str) -> bool {
    let value: Vec<char> = value.chars().collect();
    let (mut piece, mut at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at < value.len() {
        match pieces.get(piece) {
            Some(Piece::Many) => {
                retry = Some((piece, at));
                piece += 1;
            }
            Some(Piece::One) => (piece, at) = (piece + 1, at + 1),
            Some(Piece::Literal(character)) if *character == value[at] => (piece, at) = (piece + 1, at + 1),
            _ => match retry {
                Some((many, from)) => {
                    retry = Some((many, from + 1));
                    (piece, at) = (many + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pieces[piece..].iter().all(|piece| *piece == Piece::Many)
}

pub fn parse(filters: &[ec2::Filter]) -> Result<Vec<Filter>> {
    if filters.len() > FILTERS_MAX {
        return Err(Error::new(
            "FilterLimitExceeded",
            format!("The maximum number of filters is {FILTERS_MAX}"),
        ));
    }
    filters
        .iter()
        .map(|filter| {
            let name = filter.name.clone().ok_or_else(|| Error::missing_parameter("Filter.Name"))?;
            if filter.values.len() > VALUES_MAX {
                return Err(Error::new(
                    "FilterLimitExceeded",
                    format!("The maximum number of filter values specified on a single call is {VALUES_MAX}"),
                ));
            }
            if filter.values.is_empty() {
                return Err(Error::invalid_parameter_value(format!("The filter '{name}' must have values")));
            }
            Ok(Filter { name, patterns: filter.values.iter().map(|value| Pattern::parse(value)).collect() })
        })
        .collect()
}

/// Whether a thing passes all filters. `field` gives its values under a name, false for a name that EC2 does not
/// document: `InvalidParameterValue`.
pub fn passes<'a>(filters: &[Filter], mut field: impl FnMut(&str, &mut Values<'a>) -> bool) -> Result<bool> {
    let mut passed = true;
    for filter in filters {
        let mut values: Values<'a> = Vec::new();
        if !field(&filter.name, &mut values) {
            return Err(Error::invalid_parameter_value(format!("The filter '{}' is invalid", filter.name)));
        }
        passed &= values.iter().any(|value| filter.patterns.iter().any(|pattern| pattern.matches(value)));
    }
    Ok(passed)
}

/// A record's values under a filter's name, tags included.
pub fn record_field<'a, T: Record>(record: &'a T, name: &str, values: &mut Values<'a>) -> bool {
    match (record.tags(), name.strip_prefix("tag:")) {
        (Some(tags), Some(key)) => values.extend(tags.get(key).map(Cow::Borrowed)),
        (Some(tags), None) if name == "tag-key" => {
            values.extend(tags.iter().map(|(key, _)| Cow::Borrowed(key)))
        }
        (Some(tags), None) if name == "tag-value" => {
            values.extend(tags.iter().map(|(_, value)| Cow::Borrowed(value)))
        }
        _ => return record.field(name, values),
    }
    true
}

// What a record's `field` is written with: each answers true, for the name is a known one.

pub fn one<'a>(values: &mut Values<'a>, value: impl Into<Cow<'a, str>>) -> bool {
    values.push(value.into());
    true
}

pub fn some<'a>(values: &mut Values<'a>, value: Option<impl Into<Cow<'a, str>>>) -> bool {
    values.extend(value.map(Into::into));
    true
}

pub fn many<'a, V: Into<Cow<'a, str>>>(values: &mut Values<'a>, all: impl IntoIterator<Item = V>) -> bool {
    values.extend(all.into_iter().map(Into::into));
    true
}

pub fn boolean(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// As the API writes times.
pub fn time(at: model::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wildcards() {
        for (pattern, value, expected) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("?", "", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*b*b", "abab", true),
            ("\\", "\\", true),
        ] {
            assert_eq!(Pattern::parse(pattern).matches(value), expected, "{pattern} on {value}");
        }
    }

    proptest! {
        #[test]
        fn a_value_matches_itself_escaped(value in ".{0,20}") {
            let escaped: String = value.chars().flat_map(|c| if "*?\\".contains(c) { vec!['\\', c] } else { vec![c] }).collect();
            prop_assert!(Pattern::parse(&escaped).matches(&value));
        }

        #[test]
        fn stars_around_any_part_match(value in "[a-c]{0,12}", from in 0usize..12, len in 0usize..12) {
            let part: String = value.chars().skip(from).take(len).collect();
            let pattern = format!("*{}*", part);
            prop_assert!(Pattern::parse(&pattern).matches(&value));
        }
    }
}
