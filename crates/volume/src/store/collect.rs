//! What nobody needs any more goes: blocks that no manifest names.
//!
//! Blocks are put before the manifest that names them, perhaps by somebody else who uses the same store: so the young
//! stay, whoever names them. How old they are is told by the store's own clock. Where a manifest can't be read nothing
//! goes.

use super::{BlockStore, Manifest, Name, block_key, failed};
use crate::{Result, VolumeError, durable};
use futures::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStoreExt};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Written to see what time it is at the store.
const CLOCK: &str = "clock";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub blocks: u64,
    /// As they were kept.
    pub bytes: u64,
}

impl BlockStore {
    /// Removes the blocks that are not named by a manifest or by `others`, and are older than this.
    pub(crate) fn collect(
        &self,
        older_than: Duration,
        others: impl FnOnce() -> HashSet<[u8; Name::BYTES]>,
    ) -> Result<Collected> {
        let _alone = self.collecting.write();
        let now = self.now()?;
        let mut needed = others();
        for manifest in self.list("manifests")? {
            let snapshot_id = manifest.location.filename().unwrap_or_default();
            // One that went meanwhile needs nothing.
            let Some(Manifest { blocks, .. }) = self.read_manifest(snapshot_id)? else { continue };
            needed.extend(blocks.into_iter().map(|(_, name)| name.0));
        }
        let mut collected = Collected::default();
        for block in self.list("data")? {
            let age = now.signed_duration_since(block.last_modified).to_std().unwrap_or_default();
            let Some(name) = name_of(&block).filter(|name| !needed.contains(&name.0) && age >= older_than)
            else {
                continue;
            };
            durable::step(Path::new("the block store"))?;
            self.remove(block_key(name))?;
            collected.blocks += 1;
            collected.bytes += block.size;
        }
        if let Some(folder) = &self.folder {
            remove_staged(folder, older_than, now.into())?;
        }
        Ok(collected)
    }

    fn now(&self) -> Result<chrono::DateTime<chrono::Utc>> {
        let (objects, key) = (self.objects.clone(), Key::from(CLOCK));
        let looked = async move {
            objects.put(&key, Vec::new().into()).await?;
            Ok(objects.head(&key).await?.last_modified)
        };
        self.run(looked)?.map_err(failed("can't ask for the time"))
    }

    fn list(&self, part: &'static str) -> Result<Vec<ObjectMeta>> {
        let objects = self.objects.clone();
        let listed = async move { objects.list(Some(&Key::from(part))).try_collect().await };
        self.run(listed)?.map_err(failed("can't list what there is"))
    }
}

/// What a crash has left of puts into a folder: until it is whole, a file is there under its name and a number, as
/// `4fc2…#1`, both by `folder::stage` and by `object_store`, which lists no such.
fn remove_staged(folder: &Path, older_than: Duration, now: SystemTime) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(crate::failed("can't list", folder))? {
        let path = entry.map_err(crate::failed("can't list", folder))?.path();
        // One that is gone meanwhile was not left.
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() {
            remove_staged(&path, older_than, now)?;
            continue;
        }
        let is_staged = path.file_name().is_some_and(|name| name.as_encoded_bytes().contains(&b'#'));
        let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
        if is_staged && age.unwrap_or_default() >= older_than {
            durable::remove(&path)?;
        }
    }
    Ok(())
}

/// None for what is no block.
fn name_of(block: &ObjectMeta) -> Option<Name> {
    let hash = blake3::Hash::from_hex(block.location.filename()?).ok()?;
    let name = Name(*hash.as_bytes());
    (block_key(name) == block.location).then_some(name)
}

impl VolumeError {
    /// Whether what is kept is not what was put.
    pub fn is_damaged(&self) -> bool {
        matches!(self, VolumeError::Damaged(_))
    }
}
