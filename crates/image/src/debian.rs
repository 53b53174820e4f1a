//! Debian 12 as its cloud images are.

use crate::command::Log;
use anyhow::Result;
use std::path::Path;

pub(crate) fn ingredients() -> Vec<&'static str> {
    vec!["debian"]
}

pub(crate) fn build(
    _log: &Log,
    _work: &Path,
    _disk: &Path,
    _size_gib: u32,
    _step: &dyn Fn(&str),
) -> Result<()> {
    anyhow::bail!("not yet")
}
