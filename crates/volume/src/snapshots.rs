//! Snapshots as sparse raw files: written block by block while pending, sealed and never written again.

use crate::{Result, VolumeError, durable, failed};
use parking_lot::Mutex;
use rustix::fs::SeekFrom;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes in a block of a snapshot (EBS User Guide, "EBS direct APIs").
pub const BLOCK_BYTES: usize = 512 * 1024;
/// The largest volume (EBS User Guide, "Amazon EBS volume constraints").
pub const SIZE_GIB_MAX: u32 = 65_536;
const GIB: u64 = 1 << 30;

const PENDING: &str = "pending";
const SEALED: &str = "raw";
/// Deleted, but volumes still lie over it.
const CONDEMNED: &str = "deleted";

pub struct Snapshots {
    dir: PathBuf,
    /// Held while a volume is laid over a snapshot and while one is deleted: neither sees the other half done.
    pub(crate) using: Mutex<()>,
}

impl Snapshots {
    pub fn open(dir: &Path) -> Result<Snapshots> {
        fs::create_dir_all(dir).map_err(failed("cannot make", dir))?;
        let dir = dir.canonicalize().map_err(failed("cannot find", dir))?;
        Ok(Snapshots { dir, using: Mutex::new(()) })
    }

    fn path(&self, id: &str, state: &str) -> PathBuf {
        self.dir.join(format!("{id}.{state}"))
    }

    /// Makes an empty pending snapshot. Once more is no error, sealed or not.
    pub fn begin(&self, id: &str, size_gib: u32) -> Result<()> {
        if !(1..=SIZE_GIB_MAX).contains(&size_gib) {
            return Err(VolumeError::Invalid(format!("A snapshot has 1 to {SIZE_GIB_MAX} GiB, not {size_gib}.")));
        }
        if self.path(id, SEALED).exists() {
            return Ok(());
        }
        let path = self.path(id, PENDING);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed("cannot make", &path))?;
        file.set_len(u64::from(size_gib) * GIB).map_err(failed("cannot size", &path))
    }

    /// Writes one whole block of a pending snapshot.
    pub fn put_block(&self, id: &str, index: u32, data: &[u8]) -> Result<()> {
        if data.len() != BLOCK_BYTES {
            return Err(VolumeError::Invalid(format!("A block has {BLOCK_BYTES} bytes, not {}.", data.len())));
        }
        let path = self.path(id, PENDING);
        let file = OpenOptions::new().write(true).open(&path).map_err(|error| absent(id, &path, error))?;
        let at = u64::from(index) * BLOCK_BYTES as u64;
        let len = file.metadata().map_err(failed("cannot read", &path))?.len();
        if at + BLOCK_BYTES as u64 > len {
            return Err(VolumeError::Invalid(format!("The block {index} is beyond the snapshot's end.")));
        }
        file.write_all_at(data, at).map_err(failed("cannot write", &path))
    }

    /// Seals the snapshot: durable and read-only. Once more is no error.
    pub fn complete(&self, id: &str) -> Result<()> {
        let (pending, sealed) = (self.path(id, PENDING), self.path(id, SEALED));
        if sealed.exists() {
            return Ok(());
        }
        let file = fs::File::open(&pending).map_err(|error| absent(id, &pending, error))?;
        let mut mode = file.metadata().map_err(failed("cannot read", &pending))?.permissions();
        mode.set_readonly(true);
        file.set_permissions(mode).map_err(failed("cannot protect", &pending))?;
        durable::publish(&pending, &sealed)
    }

    /// The sealed file of a snapshot, deleted or not.
    pub(crate) fn file(&self, id: &str) -> Result<PathBuf> {
        [SEALED, CONDEMNED]
            .into_iter()
            .map(|state| self.path(id, state))
            .find(|path| path.exists())
            .ok_or_else(|| VolumeError::NotFound(id.to_owned()))
    }

    fn readable(&self, id: &str) -> Result<(PathBuf, fs::File)> {
        for state in [SEALED, PENDING] {
            let path = self.path(id, state);
            match fs::File::open(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed("cannot open", &path)(error)),
            }
        }
        Err(VolumeError::NotFound(id.to_owned()))
    }

    /// None where the snapshot holds nothing at this index.
    pub fn get_block(&self, id: &str, index: u32) -> Result<Option<Vec<u8>>> {
        if self.list_blocks(id, index, 1)?.first() != Some(&index) {
            return Ok(None);
        }
        let (path, file) = self.readable(id)?;
        let mut data = vec![0; BLOCK_BYTES];
        file.read_exact_at(&mut data, u64::from(index) * BLOCK_BYTES as u64).map_err(failed("cannot read", &path))?;
        Ok(Some(data))
    }

    /// Blocks that hold data, ascending: as the file system knows them, without reading zeros.
    pub fn list_blocks(&self, id: &str, start: u32, limit: usize) -> Result<Vec<u32>> {
        let (path, file) = self.readable(id)?;
        let block = BLOCK_BYTES as u64;
        let mut blocks: Vec<u32> = Vec::new();
        let mut at = u64::from(start) * block;
        while blocks.len() < limit {
            let data = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(rustix::io::Errno::NXIO) => break,
                Err(error) => return Err(failed("cannot read", &path)(error.into())),
            };
            let hole = rustix::fs::seek(&file, SeekFrom::Hole(data)).map_err(|error| failed("cannot read", &path)(error.into()))?;
            let (first, last) = ((data / block) as u32, ((hole - 1) / block) as u32);
            let room = limit - blocks.len();
            blocks.extend((first..=last).take(room));
            at = (u64::from(last) + 1) * block;
        }
        Ok(blocks)
    }

    /// Deletes the snapshot; its file stays while `is_used` says that volumes lie over it. Once more is no error.
    pub fn delete(&self, id: &str, is_used: impl Fn(&Path) -> bool) -> Result<()> {
        let _using = self.using.lock();
        durable::remove(&self.path(id, PENDING))?;
        let (sealed, condemned) = (self.path(id, SEALED), self.path(id, CONDEMNED));
        if is_used(&sealed) {
            // The overlays name the file: the sealed name must go on leading to it.
            return fs::hard_link(&sealed, &condemned).or_else(already_there).map_err(failed("cannot mark", &sealed));
        }
        durable::remove(&sealed)?;
        durable::remove(&condemned)
    }

    /// Removes files of deleted snapshots that no volume lies over any more.
    pub(crate) fn collect(&self, is_used: impl Fn(&Path) -> bool) -> Result<()> {
        for entry in fs::read_dir(&self.dir).map_err(failed("cannot list", &self.dir))? {
            let condemned = entry.map_err(failed("cannot list", &self.dir))?.path();
            if condemned.extension().is_some_and(|extension| extension == CONDEMNED) {
                let sealed = condemned.with_extension(SEALED);
                if !is_used(&sealed) {
                    durable::remove(&sealed)?;
                    durable::remove(&condemned)?;
                }
            }
        }
        Ok(())
    }
}

fn already_there(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

fn absent(id: &str, path: &Path, error: std::io::Error) -> VolumeError {
    match error.kind() {
        ErrorKind::NotFound => VolumeError::NotFound(id.to_owned()),
        _ => failed("cannot open", path)(error),
    }
}
