//! Volumes: disks that machines write to.

use crate::{Result, Snapshots, VolumeError, bytes, durable, failed, qcow2};
use model::{Id, Kind};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Under this name a volume is being made; what a crash leaves of it is removed.
const NEW: &str = "new";
const RAW: &str = "raw";
const OVERLAY: &str = "qcow2";

/// The volumes in one directory.
pub struct Volumes {
    dir: PathBuf,
    snapshots: Arc<Snapshots>,
    /// Volumes that are being made, and what they will lie over. Locked while it is decided what may be removed.
    making: Mutex<HashMap<String, Option<String>>>,
    made: Condvar,
}

/// Where a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFile {
    pub path: PathBuf,
    pub backing: Backing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// The file is raw.
    None,
    /// The file is a qcow2 overlay over this raw file.
    Raw(PathBuf),
}

/// A volume's file by its name.
struct Entry {
    volume_id: String,
    /// None where it is raw.
    snapshot_id: Option<String>,
}

impl Entry {
    /// None for what is no volume.
    fn parse(name: &str) -> Option<Entry> {
        let mut parts = name.split('.');
        let volume_id = parts.next().filter(|id| Id::is_well_formed(Kind::Volume, id))?.to_owned();
        let snapshot_id = match (parts.next(), parts.next(), parts.next()) {
            (Some(RAW), None, _) => None,
            (Some(id), Some(OVERLAY), None) if Id::is_well_formed(Kind::Snapshot, id) => Some(id.to_owned()),
            _ => return None,
        };
        Some(Entry { volume_id, snapshot_id })
    }

    fn name(&self) -> String {
        match &self.snapshot_id {
            None => format!("{}.{RAW}", self.volume_id),
            Some(snapshot_id) => format!("{}.{snapshot_id}.{OVERLAY}", self.volume_id),
        }
    }
}

impl Volumes {
    /// Finishes what a crash has left undone.
    pub fn open(dir: &Path, snapshots: Arc<Snapshots>) -> Result<Self> {
        durable::create_directory(dir)?;
        let dir = fs::canonicalize(dir).map_err(failed("can't find", dir))?;
        let volumes = Volumes { dir, snapshots, making: Mutex::default(), made: Condvar::new() };
        for name in volumes.names()? {
            if name.strip_suffix(NEW).is_some_and(|stem| stem.ends_with('.')) {
                durable::remove(&volumes.dir.join(name))?;
            }
        }
        volumes.collect(&volumes.making.lock())?;
        Ok(volumes)
    }

    /// Makes the volume where it is not whole yet, of what the snapshot holds or of zeros, and says where it is.
    /// What is there already is never touched.
    pub fn ensure(&self, volume_id: &str, size_gib: u32, snapshot_id: Option<&str>) -> Result<VolumeFile> {
        let size = bytes(size_gib)?;
        if !Id::is_well_formed(Kind::Volume, volume_id) {
            return Err(VolumeError::Invalid(format!("{volume_id:?} is no volume's id")));
        }
        let mut making = self.making.lock();
        self.made.wait_while(&mut making, |making| making.contains_key(volume_id));
        if let Some(entry) = self.find(volume_id)? {
            // The name may have been written by a call that did not come to its end.
            durable::sync_directory(&self.dir)?;
            return Ok(self.file(&entry));
        }
        if let Some(snapshot_id) = snapshot_id {
            let (_, least) = self.snapshots.sealed(snapshot_id)?;
            if size < least {
                return Err(VolumeError::Invalid(format!("{volume_id} is smaller than {snapshot_id}")));
            }
        }
        making.insert(volume_id.to_owned(), snapshot_id.map(str::to_owned));
        drop(making);
        let entry = Entry { volume_id: volume_id.to_owned(), snapshot_id: snapshot_id.map(str::to_owned) };
        let made = self.make(&entry, size);
        let mut making = self.making.lock();
        making.remove(volume_id);
        self.made.notify_all();
        if made.is_err() {
            // The snapshot may have been deleted meanwhile.
            self.collect(&making)?;
        }
        made
    }

    fn make(&self, entry: &Entry, size: u64) -> Result<VolumeFile> {
        let file = self.file(entry);
        let new = self.dir.join(format!("{}.{NEW}", entry.volume_id));
        let write = || {
            match &file.backing {
                Backing::Raw(backing) => qcow2::create(&new, size, backing)?,
                Backing::None => {
                    File::create(&new)
                        .and_then(|raw| raw.set_len(size))
                        .map_err(failed("can't make", &new))?;
                }
            }
            durable::sync(&new)?;
            durable::rename(&new, &file.path)
        };
        match write() {
            Ok(()) => Ok(file),
            Err(error) => {
                durable::remove(&new)?;
                Err(error)
            }
        }
    }

    /// Where the volume is.
    pub fn file_of(&self, volume_id: &str) -> Result<VolumeFile> {
        let entry = self.find(volume_id)?.ok_or_else(|| VolumeError::NotFound(volume_id.to_owned()))?;
        Ok(self.file(&entry))
    }

    /// Bytes that the volume takes of the host's disk, without what it lies over.
    pub fn usage(&self, volume_id: &str) -> Result<u64> {
        let path = self.file_of(volume_id)?.path;
        // stat(2) counts in units of 512 bytes, whatever the file system's blocks.
        Ok(fs::metadata(&path).map_err(failed("can't see", &path))?.blocks() * 512)
    }

    /// Ids of all volumes.
    pub fn list(&self) -> Result<Vec<String>> {
        Ok(self.entries()?.into_iter().map(|entry| entry.volume_id).collect())
    }

    /// Nothing of the volume is left afterwards; no error where nothing was. No machine may use it.
    pub fn delete(&self, volume_id: &str) -> Result<()> {
        let mut making = self.making.lock();
        self.made.wait_while(&mut making, |making| making.contains_key(volume_id));
        if let Some(entry) = self.find(volume_id)? {
            durable::remove(&self.dir.join(entry.name()))?;
        }
        self.collect(&making)
    }

    /// From now on there is no such snapshot. Its data stays for as long as volumes lie over it.
    pub fn delete_snapshot(&self, snapshot_id: &str) -> Result<()> {
        let making = self.making.lock();
        self.snapshots.hide(snapshot_id)?;
        self.collect(&making)
    }

    /// Removes the data of deleted snapshots that no volume lies over, nor one that is being made.
    fn collect(&self, making: &HashMap<String, Option<String>>) -> Result<()> {
        let deleted = self.snapshots.deleted()?;
        if deleted.is_empty() {
            return Ok(());
        }
        let entries = self.entries()?;
        for snapshot_id in deleted {
            let is_below = |over: &Option<String>| over.as_deref() == Some(&snapshot_id);
            if !making.values().any(is_below) && !entries.iter().any(|entry| is_below(&entry.snapshot_id)) {
                self.snapshots.remove_data(&snapshot_id)?;
            }
        }
        Ok(())
    }

    fn file(&self, entry: &Entry) -> VolumeFile {
        let backing = match &entry.snapshot_id {
            None => Backing::None,
            Some(snapshot_id) => Backing::Raw(self.snapshots.data(snapshot_id)),
        };
        VolumeFile { path: self.dir.join(entry.name()), backing }
    }

    fn find(&self, volume_id: &str) -> Result<Option<Entry>> {
        Ok(self.entries()?.into_iter().find(|entry| entry.volume_id == volume_id))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        Ok(self.names()?.iter().filter_map(|name| Entry::parse(name)).collect())
    }

    fn names(&self) -> Result<Vec<String>> {
        let failed = || failed("can't list", &self.dir);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed())? {
            names.extend(entry.map_err(failed())?.file_name().into_string());
        }
        Ok(names)
    }
}
