//! Volumes: disks that machines write to.

use crate::catalogue::{Disks, Head};
use crate::layer::{Format, Layer, check};
use crate::{Result, VolumeError, bytes, durable, failed, qcow2};
use model::{DiskKey, Kind, SecretKey};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What a machine opens for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeDisk {
    /// In bytes.
    pub size: u64,
    /// The uppermost first; it is the only one to be written to.
    pub layers: Vec<Layer>,
    /// Of an encrypted one.
    pub key: Option<DiskKey>,
}

impl Disks {
    /// Makes the volume where it is not whole yet, of what the snapshot holds or of zeros, and says what it consists
    /// of; encrypted, with a key. Of what is there already only the size is changed, to a larger one; see `fit`.
    /// Of a snapshot with another key, or none, all that it holds is encrypted anew.
    pub fn ensure(
        &self,
        volume_id: &str,
        size_gib: u32,
        snapshot_id: Option<&str>,
        key: Option<&SecretKey>,
    ) -> Result<VolumeDisk> {
        let size = bytes(size_gib)?;
        check(Kind::Volume, volume_id)?;
        let key = key.map(|key| self.told(key));
        let key = key.as_deref();
        let mut work = self.work_on(&[volume_id]);
        let had = self.head(volume_id).ok();
        if had.as_ref().is_some_and(|head| head.size >= size) {
            return self.disk(volume_id);
        }
        let head = match (had, snapshot_id) {
            // Said before the file grows, so that what is laid over it is never smaller than the file.
            (Some(head), _) => head.grown(size),
            (None, Some(snapshot_id)) => {
                check(Kind::Snapshot, snapshot_id)?;
                let of_same_key = |head: &Head| head.key.as_deref() == key.map(|key| &*key.id);
                let below = loop {
                    if of_same_key(&self.head(snapshot_id)?) {
                        self.have_layer(snapshot_id)?;
                    }
                    let below = work.pin(snapshot_id)?;
                    // Room may have been made of its layers in between.
                    if !of_same_key(&below) || !below.layers().is_empty() {
                        break below;
                    }
                };
                if size < below.size {
                    return Err(VolumeError::Invalid(format!("{volume_id} is smaller than {snapshot_id}")));
                }
                let below = match of_same_key(&below) {
                    true => below.layers(),
                    false => vec![self.encrypt_anew(&mut work, snapshot_id, &below, volume_id, key)?],
                };
                let mut layers = vec![self.next_layer(volume_id, Format::Qcow2)];
                let path = self.layer_path(&layers[0]);
                whole(&path, || qcow2::create(&path, size, key))?;
                layers.extend(below);
                Head::new(size, &layers, key)
            }
            // What is not held of a raw one would be read as what decrypts to it.
            (None, None) => {
                let format = if key.is_some() { Format::Qcow2 } else { Format::Raw };
                let layer = self.next_layer(volume_id, format);
                let path = self.layer_path(&layer);
                whole(&path, || match format {
                    Format::Qcow2 => qcow2::create(&path, size, key),
                    Format::Raw => create_raw(&path, size),
                })?;
                Head::new(size, &[layer], key)
            }
        };
        self.put_head(volume_id, head)?;
        self.disk(volume_id)
    }

    /// Makes the file of a volume as large as the volume. No machine may use it: one that does makes it so itself.
    pub fn fit(&self, volume_id: &str) -> Result<VolumeDisk> {
        let _work = self.work_on(&[volume_id]);
        let disk = self.disk(volume_id)?;
        let key = self.key_of(&self.head(volume_id)?)?;
        let top = &disk.layers[0];
        match top.format {
            Format::Qcow2 if qcow2::size(&top.path, key.as_deref())? < disk.size => {
                qcow2::grow(&top.path, disk.size, key.as_deref())?;
                durable::sync(&top.path)?;
            }
            Format::Raw => {
                let file = OpenOptions::new().write(true).open(&top.path);
                let grow = |file: File| match file.metadata()?.len() < disk.size {
                    true => file.set_len(disk.size).and_then(|()| file.sync_all()),
                    false => Ok(()),
                };
                file.and_then(grow).map_err(failed("can't enlarge", &top.path))?;
            }
            Format::Qcow2 => {}
        }
        Ok(disk)
    }

    /// What the volume consists of.
    pub fn disk(&self, volume_id: &str) -> Result<VolumeDisk> {
        check(Kind::Volume, volume_id)?;
        let head = self.head(volume_id)?;
        let key = head.key.as_deref().map(|id| match self.keys.get(id) {
            Ok(key) => DiskKey::Known(key.of_disk()),
            Err(_) => DiskKey::Untold,
        });
        Ok(VolumeDisk { size: head.size, layers: self.layers(&head.layers()), key })
    }

    /// Ids of all volumes.
    pub fn volumes(&self) -> Vec<String> {
        self.ids(Kind::Volume)
    }

    /// Nothing of the volume is left afterwards but what snapshots hold; no error where nothing was. No machine may
    /// use it.
    pub fn delete(&self, volume_id: &str) -> Result<()> {
        check(Kind::Volume, volume_id)?;
        // Without a machine, whatever was begun is at its end.
        for freeze in self.freezes_of(&[volume_id]) {
            self.finish_freeze(&freeze.key)?;
        }
        let _work = self.work_on(&[volume_id]);
        self.remove_head(volume_id)
    }
}

/// Makes a layer that is durable under its name, or leaves nothing.
pub(crate) fn whole(path: &Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let made = make()
        .and_then(|()| durable::sync(path))
        .and_then(|()| durable::sync_directory(path.parent().unwrap_or(path)));
    made.inspect_err(|_| {
        // What can't be removed now is when the directory is next opened: no head names it.
        let _ = durable::remove(path);
    })
}

pub(crate) fn create_raw(path: &Path, size: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|file| file.set_len(size)).map_err(failed("can't make", path))
}
