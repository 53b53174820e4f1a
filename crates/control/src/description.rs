//! Descriptions: of images, snapshots, ranges of addresses.

use model::{Error, Result};

const LEN_MAX: usize = 255;

pub fn check(description: &str) -> Result<()> {
    if description.chars().count() > LEN_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "The description is longer than {LEN_MAX} characters"
        )));
    }
    Ok(())
}
