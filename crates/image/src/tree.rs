//! Files of a system that is being put together in a directory.

use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A file kept in this crate's sources.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    /// Below the tree.
    pub(crate) path: &'static str,
    pub(crate) permissions: u32,
    pub(crate) content: &'static str,
}

pub(crate) const fn script(path: &'static str, content: &'static str) -> Text {
    Text { path, permissions: 0o755, content }
}

pub(crate) const fn text(path: &'static str, content: &'static str) -> Text {
    Text { path, permissions: 0o644, content }
}

/// Writes files into the tree, with the directories that they need.
pub(crate) fn install(tree: &Path, files: &[Text]) -> Result<()> {
    files.iter().try_for_each(|file| write(&tree.join(file.path), file.content.as_bytes(), file.permissions))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A copy with the same permissions.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let permissions =
        fs::metadata(from).with_context(|| format!("cannot read {}", from.display()))?.permissions();
    write(to, &read(from)?, permissions.mode() & 0o7777)
}

pub(crate) fn write(path: &Path, content: &[u8], permissions: u32) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(permissions))?)
}
