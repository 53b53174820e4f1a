//! What the API knows and this cloud has not: refused rather than ignored.

use model::{Error, Result};

/// Refuses the first that is asked for; each says what it is, as in `Spot instances are`.
pub fn refuse<'a>(asked: impl IntoIterator<Item = (bool, &'a str)>) -> Result<()> {
    match asked.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => {
            Err(Error::new("UnsupportedOperation", format!("{what} not supported by this cloud.")))
        }
        None => Ok(()),
    }
}

/// Whether a text is given: what is not wanted may be said by an empty one, as Terraform does.
pub fn given(text: &Option<String>) -> bool {
    text.as_deref().is_some_and(|text| !text.is_empty())
}
