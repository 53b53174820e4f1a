//! Snapshots: what a disk held, in blocks of 512 KiB. Those that are uploaded are pending while they are written.

use crate::catalogue::{Disks, Head};
use crate::chain::Chain;
use crate::encryption::DataKey;
use crate::layer::{Format, check};
use crate::qcow2::layer_key;
use crate::store::{ChangedBlock, Manifest};
use crate::{BLOCK_BYTES, GIB, Result, VolumeError, bytes, durable, failed, storing};
use model::{Kind, SecretKey};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

const PENDING: &str = "pending";
/// Beside one that is encrypted: the id of its data key.
const PENDING_KEY: &str = "pending-key";

impl Disks {
    /// Makes an empty pending snapshot of this size; encrypted, with a key. No error where it is there already.
    pub fn begin(&self, snapshot_id: &str, size_gib: u32, key: Option<&SecretKey>) -> Result<()> {
        check(Kind::Snapshot, snapshot_id)?;
        let size = bytes(size_gib)?;
        let of_size = |had: u64| match had == size {
            true => Ok(()),
            false => {
                Err(VolumeError::Invalid(format!("{snapshot_id} has {} GiB, not {size_gib}", had / GIB)))
            }
        };
        if let Ok(head) = self.head(snapshot_id) {
            return of_size(head.size);
        }
        if let Some(key) = key.map(|key| self.told(key)) {
            durable::write(&self.snapshot_file(snapshot_id, PENDING_KEY), key.id.as_bytes())?;
        }
        let path = self.snapshot_file(snapshot_id, PENDING);
        let make = || {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            let had = file.metadata()?.len();
            if had == 0 {
                // New, or left by a crash before this step.
                file.set_len(size)?;
                file.sync_all()?;
            }
            Ok(had)
        };
        match make().map_err(failed("can't make", &path))? {
            0 => durable::sync_directory(path.parent().unwrap_or(&path)),
            had => of_size(had),
        }
    }

    /// Writes one block of exactly `BLOCK_BYTES`. It is durable once the snapshot is complete.
    pub fn put_block(&self, snapshot_id: &str, index: u32, data: &[u8]) -> Result<()> {
        check(Kind::Snapshot, snapshot_id)?;
        if data.len() != BLOCK_BYTES {
            let length = data.len();
            return Err(VolumeError::Invalid(format!("A block has {BLOCK_BYTES} bytes, not {length}")));
        }
        let key = self.pending_key(snapshot_id)?;
        // One that is encrypted is copied when it is sealed: others are not to wait for that.
        let _alone = key.as_ref().map(|_| self.work_on(&[snapshot_id]));
        let _unsealed = self.sealing.read();
        if self.head(snapshot_id).is_ok() {
            return Err(VolumeError::Invalid(format!("{snapshot_id} is complete and never changes again")));
        }
        let path = self.snapshot_file(snapshot_id, PENDING);
        let file = open(OpenOptions::new().write(true), snapshot_id, &path)?;
        let size = file.metadata().map_err(failed("can't see", &path))?.len();
        let offset = offset_of(snapshot_id, index, size)?;
        let written = match layer_key(&path, key.as_deref()) {
            None => file.write_all_at(data, offset),
            Some(key) => {
                let mut data = data.to_vec();
                key.cipher().encrypt(offset, &mut data);
                file.write_all_at(&data, offset)
            }
        };
        written.map_err(failed("can't write", &path))
    }

    /// The data key of one that is pending and encrypted.
    fn pending_key(&self, snapshot_id: &str) -> Result<Option<Arc<DataKey>>> {
        let path = self.snapshot_file(snapshot_id, PENDING_KEY);
        match std::fs::read_to_string(&path) {
            Ok(id) => self.keys.get(&id).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("can't read", &path)(error)),
        }
    }

    /// Seals the snapshot: durable, and never changed again. No error where it is sealed already.
    pub fn complete(&self, snapshot_id: &str) -> Result<()> {
        check(Kind::Snapshot, snapshot_id)?;
        let _work = self.work_on(&[snapshot_id]);
        let pending = self.snapshot_file(snapshot_id, PENDING);
        if self.head(snapshot_id).is_err() {
            // The long part, while blocks of other snapshots are written.
            let file = open(OpenOptions::new().read(true), snapshot_id, &pending)?;
            if let Err(error) = file.sync_all() {
                // The next flush would say that what was not written is: all must be put again.
                durable::remove(&pending)?;
                return Err(failed("can't write", &pending)(error));
            }
            let size = file.metadata().map_err(failed("can't see", &pending))?.len();
            match self.pending_key(snapshot_id)?.as_deref() {
                None => {
                    let _sealing = self.sealing.write();
                    durable::sync(&pending)?;
                    let layer = self.next_layer(snapshot_id, Format::Raw);
                    // Under both names until the head is there: a crash before that leaves it pending.
                    durable::link(&pending, &self.layer_path(&layer))?;
                    self.put_head(snapshot_id, Head::new(size, &[layer], None))?;
                }
                Some(key) => {
                    let mut chain = Chain::of(file, &pending, Some(key))?;
                    let layer = self.make_layer(snapshot_id, size, chain.blocks(), key)?;
                    self.put_head(snapshot_id, Head::new(size, &[layer], Some(key)))?;
                }
            }
        }
        durable::remove(&pending)?;
        durable::remove(&self.snapshot_file(snapshot_id, PENDING_KEY)).map(drop)
    }

    /// None where the snapshot holds nothing (zeros) at this index.
    pub fn get_block(&self, snapshot_id: &str, index: u32) -> Result<Option<Vec<u8>>> {
        let mut chain = match self.open_snapshot(snapshot_id)? {
            Content::Layers(chain) => chain,
            Content::Stored(manifest) => {
                offset_of(snapshot_id, index, manifest.size)?;
                return manifest
                    .get(index)
                    .map(|name| self.stored_block(snapshot_id, index, name))
                    .transpose();
            }
        };
        offset_of(snapshot_id, index, chain.size())?;
        chain.block(index.into())
    }

    /// Indexes of the blocks that hold data, ascending, from `start` on, at most `limit`.
    pub fn list_blocks(&self, snapshot_id: &str, start: u32, limit: usize) -> Result<Vec<u32>> {
        let mut chain = match self.open_snapshot(snapshot_id)? {
            Content::Layers(chain) => chain,
            Content::Stored(manifest) => {
                return Ok(manifest.from(start).iter().take(limit).map(|(index, _)| *index).collect());
            }
        };
        let mut blocks = Vec::new();
        let mut from = u64::from(start);
        while blocks.len() < limit
            && let Some(block) = chain.next_block(from)?
        {
            // A disk of the largest size has 2^27.
            blocks.extend(u32::try_from(block));
            from = block + 1;
        }
        Ok(blocks)
    }

    /// The blocks in which two snapshots differ that are in the block store, ascending, from `start` on, at most `limit`.
    pub fn list_changed_blocks(
        &self,
        first: &str,
        second: &str,
        start: u32,
        limit: usize,
    ) -> Result<Vec<ChangedBlock>> {
        let manifest = |snapshot_id: &str| match self.open_snapshot(snapshot_id)? {
            Content::Stored(manifest) => Ok(manifest),
            Content::Layers(_) => Err(VolumeError::Invalid(format!("{snapshot_id} is not stored yet"))),
        };
        Ok(manifest(first)?.changed(&*manifest(second)?, start, limit))
    }

    /// From now on there is no such snapshot; what volumes and other snapshots share with it stays. No error where
    /// there was none.
    pub fn delete_snapshot(&self, snapshot_id: &str) -> Result<()> {
        check(Kind::Snapshot, snapshot_id)?;
        let _work = self.work_on(&[snapshot_id, &storing::name(snapshot_id)]);
        self.leave_out(snapshot_id)?;
        self.store.remove_manifest(snapshot_id)?;
        self.forget_storing(snapshot_id)?;
        // In this order: without its head, a pending one would be back.
        durable::remove(&self.snapshot_file(snapshot_id, PENDING))?;
        durable::remove(&self.snapshot_file(snapshot_id, PENDING_KEY))?;
        self.remove_head(snapshot_id)
    }

    fn open_snapshot(&self, snapshot_id: &str) -> Result<Content> {
        check(Kind::Snapshot, snapshot_id)?;
        // Opened while its layers are kept.
        let mut work = self.work_on(&[]);
        let of_head = |head: Head| {
            let manifest = head.stored.then(|| self.stored_manifest(snapshot_id));
            match manifest {
                Some(Ok(manifest)) => Ok(Content::Stored(manifest)),
                Some(Err(error)) if head.layers().is_empty() => Err(error),
                // Its layers are as good.
                _ => self.chain(&head).map(Content::Layers),
            }
        };
        if let Ok(head) = work.pin(snapshot_id) {
            return of_head(head);
        }
        let path = self.snapshot_file(snapshot_id, PENDING);
        match open(OpenOptions::new().read(true), snapshot_id, &path) {
            Ok(file) => {
                let key = self.pending_key(snapshot_id)?;
                Chain::of(file, &path, key.as_deref()).map(Content::Layers)
            }
            // Sealed meanwhile, or none.
            Err(error) => work.pin(snapshot_id).map_or(Err(error), of_head),
        }
    }
}

/// Where a snapshot is read from.
enum Content {
    /// It is not in the store yet.
    Layers(Chain),
    Stored(Arc<Manifest>),
}

fn open(options: &OpenOptions, snapshot_id: &str, path: &Path) -> Result<File> {
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => VolumeError::NotFound(snapshot_id.to_owned()),
        _ => failed("can't open", path)(error),
    })
}

fn offset_of(snapshot_id: &str, index: u32, size: u64) -> Result<u64> {
    let offset = u64::from(index) * BLOCK_BYTES as u64;
    if offset < size {
        return Ok(offset);
    }
    Err(VolumeError::Invalid(format!("{snapshot_id} has no block {index}")))
}
