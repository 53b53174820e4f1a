//! Layers by their names: `vol-….3.qcow2` is the fourth that was made for that volume.

use crate::filling::Filling;
use crate::{Result, VolumeError};
use model::{Id, Kind};
use std::path::PathBuf;
use std::sync::Arc;

/// A file of a disk's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub path: PathBuf,
    pub format: Format,
    /// Where its file is not whole yet: what it holds is read by this.
    pub filling: Option<Arc<Filling>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Raw,
    /// Where it holds nothing, what lies below is seen. Its file names nothing: what lies below is told by its head.
    Qcow2,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        }
    }
}

/// What tells a layer from all others, also those that are gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LayerName {
    /// The volume or snapshot that it was made for.
    pub(crate) owner: String,
    pub(crate) number: u32,
    pub(crate) format: Format,
}

impl LayerName {
    /// None for what is no layer's name.
    pub(crate) fn parse(name: &str) -> Option<LayerName> {
        let mut parts = name.split('.');
        let (owner, number, format) = (parts.next()?, parts.next()?, parts.next()?);
        let is_id = Id::is_well_formed(Kind::Volume, owner) || Id::is_well_formed(Kind::Snapshot, owner);
        let format = [Format::Raw, Format::Qcow2].into_iter().find(|known| known.extension() == format)?;
        let parsed = LayerName { owner: owner.to_owned(), number: number.parse().ok()?, format };
        (is_id && parsed.to_string() == name).then_some(parsed)
    }

    /// Without the extension.
    pub(crate) fn stem(&self) -> String {
        format!("{}.{}", self.owner, self.number)
    }
}

impl std::fmt::Display for LayerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.stem(), self.format.extension())
    }
}

/// What becomes a file's name must be an id.
pub(crate) fn check(kind: Kind, id: &str) -> Result<()> {
    if Id::is_well_formed(kind, id) {
        return Ok(());
    }
    let noun = if kind == Kind::Volume { "volume" } else { "snapshot" };
    Err(VolumeError::Invalid(format!("{id:?} is no {noun}'s id")))
}
