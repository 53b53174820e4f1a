//! Snapshots: what a disk held, in blocks of 512 KiB; pending while they are written, sealed for ever after.

use crate::{BLOCK_BYTES, Result, VolumeError, bytes, durable, failed};
use model::{Id, Kind};
use parking_lot::RwLock;
use rustix::fs::SeekFrom;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const PENDING: &str = "pending";
const SEALED: &str = "raw";
const DELETED: &str = "deleted";

/// The snapshots in one directory.
pub struct Snapshots {
    dir: PathBuf,
    /// Shared by who writes blocks, so that none is written while a snapshot is sealed.
    sealing: RwLock<()>,
}

impl Snapshots {
    pub fn open(dir: &Path) -> Result<Self> {
        durable::create_directory(dir)?;
        let dir = fs::canonicalize(dir).map_err(failed("can't find", dir))?;
        let snapshots = Snapshots { dir, sealing: RwLock::default() };
        for snapshot_id in snapshots.deleted()? {
            if !snapshots.path(&snapshot_id, SEALED).exists() {
                // A crash came between the two steps of `remove_data`.
                durable::remove(&snapshots.path(&snapshot_id, DELETED))?;
            }
        }
        Ok(snapshots)
    }

    /// Makes an empty pending snapshot of this size. No error where it is there already.
    pub fn begin(&self, snapshot_id: &str, size_gib: u32) -> Result<()> {
        check(snapshot_id)?;
        let size = bytes(size_gib)?;
        if self.path(snapshot_id, DELETED).exists() {
            return Err(VolumeError::NotFound(snapshot_id.to_owned()));
        }
        let is_sealed = self.path(snapshot_id, SEALED).exists();
        let path = self.path(snapshot_id, if is_sealed { SEALED } else { PENDING });
        let failed = || failed("can't make", &path);
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        if !is_sealed {
            options.write(true).create(true);
        }
        let file = options.open(&path).map_err(failed())?;
        let length = file.metadata().map_err(failed())?.len();
        if length == 0 {
            // New, or left by a crash before this step.
            file.set_len(size).map_err(failed())?;
            file.sync_all().map_err(failed())?;
        } else if length != size {
            let gib = length / crate::GIB;
            return Err(VolumeError::Invalid(format!("{snapshot_id} has {gib} GiB, not {size_gib}")));
        }
        durable::sync_directory(&self.dir)
    }

    /// Writes one block of exactly `BLOCK_BYTES`. It is durable once the snapshot is complete.
    pub fn put_block(&self, snapshot_id: &str, index: u32, data: &[u8]) -> Result<()> {
        check(snapshot_id)?;
        if data.len() != BLOCK_BYTES {
            let length = data.len();
            return Err(VolumeError::Invalid(format!("A block has {BLOCK_BYTES} bytes, not {length}")));
        }
        let _unsealed = self.sealing.read();
        let path = self.path(snapshot_id, PENDING);
        let file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.not_pending(snapshot_id));
            }
            Err(error) => return Err(failed("can't open", &path)(error)),
        };
        let offset = offset_of(snapshot_id, index, &file, &path)?;
        file.write_all_at(data, offset).map_err(failed("can't write", &path))
    }

    /// Seals the snapshot: durable, and never changed again. No error where it is sealed already.
    pub fn complete(&self, snapshot_id: &str) -> Result<()> {
        check(snapshot_id)?;
        let pending = self.path(snapshot_id, PENDING);
        if !pending.exists() {
            // The name may have been written by a call that did not come to its end.
            self.sealed(snapshot_id)?;
            return durable::sync_directory(&self.dir);
        }
        // The long part, while blocks of other snapshots are written.
        durable::sync(&pending)?;
        let _sealing = self.sealing.write();
        fs::set_permissions(&pending, Permissions::from_mode(0o400))
            .map_err(failed("can't seal", &pending))?;
        durable::sync(&pending)?;
        durable::rename(&pending, &self.path(snapshot_id, SEALED))
    }

    /// None where the snapshot holds nothing (zeros) at this index.
    pub fn get_block(&self, snapshot_id: &str, index: u32) -> Result<Option<Vec<u8>>> {
        let (file, path) = self.open_any(snapshot_id)?;
        let offset = offset_of(snapshot_id, index, &file, &path)?;
        match next_data(&file, offset).map_err(failed("can't read", &path))? {
            Some(data) if data < offset + BLOCK_BYTES as u64 => {}
            _ => return Ok(None),
        }
        let mut block = vec![0; BLOCK_BYTES];
        file.read_exact_at(&mut block, offset).map_err(failed("can't read", &path))?;
        Ok(Some(block))
    }

    /// Indexes of the blocks that hold data, ascending, from `start` on, at most `limit`.
    pub fn list_blocks(&self, snapshot_id: &str, start: u32, limit: usize) -> Result<Vec<u32>> {
        let (file, path) = self.open_any(snapshot_id)?;
        let list = || {
            let mut blocks = Vec::new();
            let mut offset = u64::from(start) * BLOCK_BYTES as u64;
            while let Some(data) = next_data(&file, offset)? {
                let hole = rustix::fs::seek(&file, SeekFrom::Hole(data))?;
                let mut block = data / BLOCK_BYTES as u64;
                while block * (BLOCK_BYTES as u64) < hole {
                    if blocks.len() == limit {
                        return Ok(blocks);
                    }
                    blocks.push(u32::try_from(block).map_err(io::Error::other)?);
                    block += 1;
                }
                offset = block * BLOCK_BYTES as u64;
            }
            Ok(blocks)
        };
        list().map_err(failed("can't list the blocks of", &path))
    }

    /// The file of a sealed snapshot that is not deleted, and its bytes.
    pub(crate) fn sealed(&self, snapshot_id: &str) -> Result<(PathBuf, u64)> {
        check(snapshot_id)?;
        let path = self.path(snapshot_id, SEALED);
        match fs::metadata(&path) {
            Ok(metadata) if !self.path(snapshot_id, DELETED).exists() => Ok((path, metadata.len())),
            Ok(_) => Err(VolumeError::NotFound(snapshot_id.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(VolumeError::NotFound(snapshot_id.to_owned()))
            }
            Err(error) => Err(failed("can't see", &path)(error)),
        }
    }

    /// Where the data is that volumes lie over, the snapshot deleted or not.
    pub(crate) fn data(&self, snapshot_id: &str) -> PathBuf {
        self.path(snapshot_id, SEALED)
    }

    /// From now on there is no such snapshot; its data stays.
    pub(crate) fn hide(&self, snapshot_id: &str) -> Result<()> {
        check(snapshot_id)?;
        durable::remove(&self.path(snapshot_id, PENDING))?;
        if self.path(snapshot_id, SEALED).exists() {
            let marker = self.path(snapshot_id, DELETED);
            File::create(&marker).map_err(failed("can't make", &marker))?;
            durable::sync_directory(&self.dir)?;
        }
        Ok(())
    }

    /// Removes the data of a hidden snapshot. Nothing may lie over it. The marker goes last, so that no crash brings
    /// the snapshot back.
    pub(crate) fn remove_data(&self, snapshot_id: &str) -> Result<()> {
        durable::remove(&self.path(snapshot_id, SEALED))?;
        durable::remove(&self.path(snapshot_id, DELETED))?;
        Ok(())
    }

    /// Hidden snapshots whose data is still here.
    pub(crate) fn deleted(&self) -> Result<Vec<String>> {
        let failed = || failed("can't list", &self.dir);
        let mut deleted = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            if let Some((snapshot_id, DELETED)) = name.to_str().and_then(|name| name.split_once('.')) {
                deleted.push(snapshot_id.to_owned());
            }
        }
        Ok(deleted)
    }

    fn open_any(&self, snapshot_id: &str) -> Result<(File, PathBuf)> {
        check(snapshot_id)?;
        let pending = self.path(snapshot_id, PENDING);
        // In this order: one that is sealed meanwhile is found under its other name.
        let path = if pending.exists() { pending } else { self.sealed(snapshot_id)?.0 };
        match File::open(&path) {
            Ok(file) => Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = self.sealed(snapshot_id)?.0;
                let file = File::open(&path).map_err(failed("can't open", &path))?;
                Ok((file, path))
            }
            Err(error) => Err(failed("can't open", &path)(error)),
        }
    }

    fn not_pending(&self, snapshot_id: &str) -> VolumeError {
        match self.sealed(snapshot_id) {
            Ok(_) => VolumeError::Invalid(format!("{snapshot_id} is complete and never changes again")),
            Err(error) => error,
        }
    }

    fn path(&self, snapshot_id: &str, state: &str) -> PathBuf {
        self.dir.join(format!("{snapshot_id}.{state}"))
    }
}

/// What becomes a file's name must be an id.
fn check(snapshot_id: &str) -> Result<()> {
    if Id::is_well_formed(Kind::Snapshot, snapshot_id) {
        return Ok(());
    }
    Err(VolumeError::Invalid(format!("{snapshot_id:?} is no snapshot's id")))
}

fn offset_of(snapshot_id: &str, index: u32, file: &File, path: &Path) -> Result<u64> {
    let offset = u64::from(index) * BLOCK_BYTES as u64;
    if offset < file.metadata().map_err(failed("can't see", path))?.len() {
        return Ok(offset);
    }
    Err(VolumeError::Invalid(format!("{snapshot_id} has no block {index}")))
}

/// Where the file holds data next, at `offset` or after it.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
