//! Volumes: an overlay over a snapshot, or an empty disk.

use crate::{Result, SIZE_GIB_MAX, Snapshots, VolumeError, durable, failed, qemu_img};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const GIB: u64 = 1 << 30;
const RAW: &str = "raw";
const OVERLAY: &str = "qcow2";
/// Beside an overlay: the name of the snapshot that it lies over. Written first, removed last.
const BACKING: &str = "backing";
const MAKING: &str = "making";

/// Where a volume's data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: PathBuf,
    pub backing: Backing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// The file is the disk.
    None,
    /// The file is a qcow2 overlay over this raw disk.
    Raw(PathBuf),
}

pub struct Volumes {
    dir: PathBuf,
    snapshots: Arc<Snapshots>,
}

impl Volumes {
    /// Opens the directory and clears away what a crash left half made.
    pub fn open(dir: &Path, snapshots: Arc<Snapshots>) -> Result<Volumes> {
        fs::create_dir_all(dir).map_err(failed("cannot make", dir))?;
        let dir = dir.canonicalize().map_err(failed("cannot find", dir))?;
        let volumes = Volumes { dir, snapshots };
        let names = volumes.names()?;
        for (volume_id, extensions) in &names {
            for extension in extensions.iter().filter(|extension| *extension == MAKING) {
                durable::remove(&volumes.path(volume_id, extension))?;
            }
            if extensions.iter().all(|extension| extension == MAKING || extension == BACKING) {
                durable::remove(&volumes.path(volume_id, BACKING))?;
            }
        }
        volumes.collect()?;
        Ok(volumes)
    }

    fn path(&self, volume_id: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{volume_id}.{extension}"))
    }

    /// What is there of each volume.
    fn names(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in fs::read_dir(&self.dir).map_err(failed("cannot list", &self.dir))? {
            let name = entry.map_err(failed("cannot list", &self.dir))?.file_name();
            if let Some((volume_id, extension)) = name.to_str().and_then(|name| name.split_once('.')) {
                names.entry(volume_id.to_owned()).or_default().push(extension.to_owned());
            }
        }
        Ok(names)
    }

    pub fn list(&self) -> Result<Vec<String>> {
        Ok(self.names()?.into_keys().collect())
    }

    /// None where the volume is not there, or only half.
    pub fn find(&self, volume_id: &str) -> Result<Option<File>> {
        let raw = self.path(volume_id, RAW);
        if raw.exists() {
            return Ok(Some(File { path: raw, backing: Backing::None }));
        }
        let overlay = self.path(volume_id, OVERLAY);
        if !overlay.exists() {
            return Ok(None);
        }
        let note = self.path(volume_id, BACKING);
        let snapshot = fs::read_to_string(&note).map_err(failed("cannot read", &note))?;
        Ok(Some(File { path: overlay, backing: Backing::Raw(self.snapshots.file(snapshot.trim())?) }))
    }

    /// Makes the volume where it is not there yet: over the snapshot, or empty.
    pub fn ensure(&self, volume_id: &str, size_gib: u32, snapshot: Option<&str>) -> Result<File> {
        if let Some(file) = self.find(volume_id)? {
            return Ok(file);
        }
        if !(1..=SIZE_GIB_MAX).contains(&size_gib) {
            return Err(VolumeError::Invalid(format!("A volume has 1 to {SIZE_GIB_MAX} GiB, not {size_gib}.")));
        }
        let size_bytes = u64::from(size_gib) * GIB;
        let making = self.path(volume_id, MAKING);
        durable::remove(&making)?;
        match snapshot {
            None => {
                let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&making);
                file.and_then(|file| file.set_len(size_bytes)).map_err(failed("cannot make", &making))?;
                durable::publish(&making, &self.path(volume_id, RAW))?;
            }
            Some(snapshot) => {
                let _using = self.snapshots.using.lock();
                let backing = self.snapshots.file(snapshot)?;
                let least = fs::metadata(&backing).map_err(failed("cannot read", &backing))?.len();
                if size_bytes < least {
                    return Err(VolumeError::Invalid(format!("A volume of {size_gib} GiB is smaller than its snapshot {snapshot}.")));
                }
                let note = self.path(volume_id, BACKING);
                let fresh = self.path(volume_id, "backing.new");
                fs::write(&fresh, snapshot).map_err(failed("cannot write", &fresh))?;
                durable::publish(&fresh, &note)?;
                qemu_img::create_overlay(&making, &backing, size_bytes)?;
                durable::publish(&making, &self.path(volume_id, OVERLAY))?;
            }
        }
        self.find(volume_id)?.ok_or_else(|| VolumeError::NotFound(volume_id.to_owned()))
    }

    /// Nothing of the volume is left afterwards. Once more is no error.
    pub fn delete(&self, volume_id: &str) -> Result<()> {
        for extension in [RAW, OVERLAY, MAKING, "backing.new", BACKING] {
            durable::remove(&self.path(volume_id, extension))?;
        }
        self.collect()
    }

    /// Whether a volume lies over the snapshot's file.
    pub fn uses(&self, snapshot_file: &Path) -> bool {
        let Some(snapshot) = snapshot_file.file_stem().and_then(|stem| stem.to_str()) else { return false };
        let uses = |volume_id: &String| {
            fs::read_to_string(self.path(volume_id, BACKING)).is_ok_and(|note| note.trim() == snapshot)
        };
        // Not knowing counts as use: what is kept too long is found again, what is gone is gone.
        self.names().map_or(true, |names| names.keys().any(uses))
    }

    /// Deletes a snapshot, or marks it for when the last volume over it goes.
    pub fn delete_snapshot(&self, snapshot: &str) -> Result<()> {
        self.snapshots.delete(snapshot, |file| self.uses(file))
    }

    fn collect(&self) -> Result<()> {
        let _using = self.snapshots.using.lock();
        self.snapshots.collect(|file| self.uses(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BLOCK_BYTES;

    struct Room {
        dir: tempfile::TempDir,
        snapshots: Arc<Snapshots>,
        volumes: Volumes,
    }

    fn room() -> Room {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Arc::new(Snapshots::open(&dir.path().join("snapshots")).unwrap());
        let volumes = Volumes::open(&dir.path().join("volumes"), snapshots.clone()).unwrap();
        Room { dir, snapshots, volumes }
    }

    fn sealed(room: &Room, id: &str) {
        room.snapshots.begin(id, 1).unwrap();
        room.snapshots.put_block(id, 3, &[7; BLOCK_BYTES]).unwrap();
        room.snapshots.complete(id).unwrap();
    }

    #[test]
    fn blocks_come_back_and_holes_are_none() {
        let room = room();
        sealed(&room, "snap-1");
        assert_eq!(room.snapshots.list_blocks("snap-1", 0, 10).unwrap(), [3]);
        assert_eq!(room.snapshots.list_blocks("snap-1", 4, 10).unwrap(), [0u32; 0]);
        assert_eq!(room.snapshots.get_block("snap-1", 3).unwrap().unwrap(), [7; BLOCK_BYTES]);
        assert_eq!(room.snapshots.get_block("snap-1", 2).unwrap(), None);
        assert!(room.snapshots.put_block("snap-1", 0, &[1; BLOCK_BYTES]).is_err(), "sealed");
        assert!(room.snapshots.get_block("snap-2", 0).is_err());
    }

    #[test]
    fn bounds_are_refused() {
        let room = room();
        assert!(room.snapshots.begin("snap-1", 0).is_err());
        room.snapshots.begin("snap-1", 1).unwrap();
        assert!(room.snapshots.put_block("snap-1", 2048, &[0; BLOCK_BYTES]).is_err());
        assert!(room.snapshots.put_block("snap-1", 0, &[0; 17]).is_err());
        assert!(room.volumes.ensure("vol-1", 0, None).is_err());
    }

    #[test]
    fn an_empty_volume_is_sparse_and_made_once() {
        let room = room();
        let file = room.volumes.ensure("vol-1", 1024, None).unwrap();
        fs::write(room.dir.path().join("mark"), "").unwrap();
        let metadata = fs::metadata(&file.path).unwrap();
        assert_eq!(metadata.len(), 1024 * GIB);
        assert_eq!(room.volumes.ensure("vol-1", 1024, None).unwrap(), file);
        room.volumes.delete("vol-1").unwrap();
        room.volumes.delete("vol-1").unwrap();
        assert_eq!(room.volumes.list().unwrap(), [""; 0]);
    }

    #[test]
    fn a_deleted_snapshot_lives_as_long_as_its_volumes() {
        let room = room();
        sealed(&room, "snap-1");
        let file = room.volumes.ensure("vol-1", 2, Some("snap-1")).unwrap();
        let Backing::Raw(backing) = &file.backing else { panic!("{file:?}") };
        assert!(backing.exists());
        room.volumes.delete_snapshot("snap-1").unwrap();
        assert!(backing.exists(), "a volume lies over it");
        assert_eq!(room.volumes.find("vol-1").unwrap().unwrap(), file);
        room.volumes.delete("vol-1").unwrap();
        assert_eq!(fs::read_dir(room.dir.path().join("snapshots")).unwrap().count(), 0);
    }

    #[test]
    fn a_volume_smaller_than_its_snapshot_is_refused_and_leaves_nothing() {
        let room = room();
        room.snapshots.begin("snap-1", 2).unwrap();
        room.snapshots.complete("snap-1").unwrap();
        assert!(room.volumes.ensure("vol-1", 1, Some("snap-1")).is_err());
        assert_eq!(room.volumes.list().unwrap(), [""; 0]);
    }

    #[test]
    fn what_a_crash_left_half_made_is_cleared_away() {
        let room = room();
        sealed(&room, "snap-1");
        fs::write(room.dir.path().join("volumes/vol-1.making"), "half").unwrap();
        fs::write(room.dir.path().join("volumes/vol-1.backing"), "snap-1").unwrap();
        let volumes = Volumes::open(&room.dir.path().join("volumes"), room.snapshots.clone()).unwrap();
        assert_eq!(volumes.list().unwrap(), [""; 0]);
        volumes.delete_snapshot("snap-1").unwrap();
        assert_eq!(fs::read_dir(room.dir.path().join("snapshots")).unwrap().count(), 0);
    }
}
