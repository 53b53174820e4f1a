//! Layers that are used before they are whole: what they lack the block store has.
//!
//! ```text
//!   volume   [ vol-b.0 ][ snap-a.4 ]      made of a snapshot that has no layers any more
//!                            │ read: blocks that are not there yet come from the store first
//!                            ╰ filled: those that nobody asked for come meanwhile
//! ```
//!
//! Such a layer is a raw file with holes. Beside it, in `filling/`, are the list of its blocks, which is written once, and a
//! map of those that are there. A block counts once it and its bit are durable; after a crash some are fetched again.
//! The list is the layer's own, so that its snapshot may go meanwhile. None of this is encrypted: the layer of an encrypted
//! snapshot is made whole at once.

use crate::catalogue::{Disks, Head, LAYERS};
use crate::layer::{Format, LayerName, check};
use crate::qcow2::Part;
use crate::store::{BlockStore, Manifest, Name};
use crate::volumes::{create_raw, whole};
use crate::{BLOCK_BYTES, Result, VolumeError, durable, failed, storing};
use model::Kind;
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const FILLING: &str = "filling";
/// Ends the name of a map.
pub(crate) const MAP: &str = ".map";
const BLOCK: u64 = BLOCK_BYTES as u64;
/// That one call of `keep_near` fetches.
const BYTES_AT_ONCE: u64 = 64 << 20;

/// A layer that is being filled.
pub struct Filling {
    name: LayerName,
    path: PathBuf,
    file: File,
    store: Arc<BlockStore>,
    manifest: Manifest,
    filled: Mutex<Filled>,
    /// Says that a block is no longer being fetched.
    fetched: Condvar,
}

/// By their places in the list.
#[derive(Default)]
struct Filled {
    /// One bit for each block that is there.
    bits: Vec<u8>,
    left: usize,
    fetching: HashSet<usize>,
    /// The store has them no more as they were put: only who needs them asks again.
    damaged: HashSet<usize>,
    /// Whether blocks are there of which the map on the disk does not tell.
    is_ahead: bool,
    /// Those before it are there or damaged.
    next: usize,
}

impl std::fmt::Debug for Filling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.name, f)
    }
}

impl PartialEq for Filling {
    fn eq(&self, other: &Filling) -> bool {
        self.path == other.path
    }
}

impl Eq for Filling {}

/// Reads a layer for a machine that does not open its file.
pub enum LayerReader {
    Filling(Arc<Filling>),
    /// It has become whole since the machine was told of it.
    Whole {
        file: File,
        path: PathBuf,
        size: u64,
    },
}

impl LayerReader {
    pub fn is_whole(&self) -> bool {
        matches!(self, LayerReader::Whole { .. })
    }

    /// Of its file.
    pub fn path(&self) -> &Path {
        match self {
            LayerReader::Filling(filling) => &filling.path,
            LayerReader::Whole { path, .. } => path,
        }
    }

    pub fn size(&self) -> u64 {
        match self {
            LayerReader::Filling(filling) => filling.size(),
            LayerReader::Whole { size, .. } => *size,
        }
    }

    /// Within the size.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        match self {
            LayerReader::Filling(filling) => filling.read(offset, into),
            LayerReader::Whole { file, path, .. } => {
                file.read_exact_at(into, offset).map_err(failed("can't read", path))
            }
        }
    }
}

/// What one call of `Disks::fill` has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fill {
    /// So many bytes were fetched.
    Some(u64),
    /// A layer is whole, which these volumes have: a file like others from now on.
    Whole { layer: PathBuf, volumes: Vec<String> },
    /// All layers are whole, or lack what is damaged.
    Nothing,
}

impl Filling {
    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.manifest.size
    }

    /// Reads what the layer shall hold there. Waits for the block store, if need be.
    pub fn read(&self, mut offset: u64, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let (index, within) = (offset / BLOCK, offset % BLOCK);
            let count = (BLOCK - within).min(into.len() as u64) as usize;
            let (now, rest) = into.split_at_mut(count);
            match self.place(index) {
                Some(place) => {
                    self.fetch(place)?;
                    self.file.read_exact_at(now, offset).map_err(failed("can't read", &self.path))?;
                }
                None => now.fill(0),
            }
            offset += count as u64;
            into = rest;
        }
        Ok(())
    }

    /// Where the first block that holds data is, at `offset` or after it.
    pub(crate) fn next(&self, offset: u64) -> Option<u64> {
        let index = u32::try_from(offset / BLOCK).ok()?;
        let (first, _) = self.manifest.from(index).first()?;
        Some(offset.max(u64::from(*first) * BLOCK))
    }

    /// What it says of this place, and for how many bytes.
    pub(crate) fn part(&self, offset: u64) -> (Part, u64) {
        if offset >= self.size() {
            return (Part::Below, u64::MAX - offset);
        }
        match self.next(offset) {
            Some(data) if data == offset => {
                let end = (offset / BLOCK + 1) * BLOCK;
                (Part::Data(offset), end.min(self.size()) - offset)
            }
            data => (Part::Zeros, data.unwrap_or(self.size()) - offset),
        }
    }

    fn place(&self, index: u64) -> Option<usize> {
        let index = u32::try_from(index).ok()?;
        self.manifest.blocks.binary_search_by_key(&index, |(index, _)| *index).ok()
    }

    /// The block at this place of the list is there afterwards. Whether it was not before.
    fn fetch(&self, place: usize) -> Result<bool> {
        let mut filled = self.filled.lock();
        self.fetched.wait_while(&mut filled, |filled| filled.fetching.contains(&place));
        if filled.has(place) {
            return Ok(false);
        }
        filled.fetching.insert(place);
        drop(filled);
        let (index, name) = self.manifest.blocks[place];
        let fetched = self.store.get_block(&self.name.owner, index, name, None).and_then(|data| {
            // A disk's last block may end behind it.
            let length = BLOCK.min(self.size() - u64::from(index) * BLOCK) as usize;
            let written = self.file.write_all_at(&data[..length], u64::from(index) * BLOCK);
            written.map_err(failed("can't write", &self.path))
        });
        let mut filled = self.filled.lock();
        filled.fetching.remove(&place);
        if fetched.is_ok() {
            filled.add(place);
        }
        drop(filled);
        self.fetched.notify_all();
        fetched.map(|()| true)
    }

    /// What is there is durable, and known to be. Whether all is.
    fn settle(&self, map: &Path) -> Result<bool> {
        let (bits, is_whole) = {
            let mut filled = self.filled.lock();
            if !std::mem::take(&mut filled.is_ahead) {
                return Ok(filled.left == 0);
            }
            (filled.bits.clone(), filled.left == 0)
        };
        let settled = self.file.sync_data().map_err(failed("can't write", &self.path));
        // Before the map says that they are there; a whole layer needs none.
        let settled = settled.and_then(|()| if is_whole { Ok(()) } else { durable::write(map, &bits) });
        settled.inspect_err(|_| self.filled.lock().is_ahead = true)?;
        Ok(is_whole)
    }

    /// The first block that is not there.
    fn lacking(&self) -> Option<usize> {
        let mut filled = self.filled.lock();
        let count = self.manifest.blocks.len();
        while filled.next < count && (filled.has(filled.next) || filled.damaged.contains(&filled.next)) {
            filled.next += 1;
        }
        (filled.next < count).then_some(filled.next)
    }

    /// Fetches at least so many bytes, if so many are lacking, and says how many.
    fn fetch_some(&self, bytes: u64) -> Result<u64> {
        let mut fetched = 0;
        while fetched < bytes
            && let Some(place) = self.lacking()
        {
            match self.fetch(place) {
                Ok(is_new) => fetched += if is_new { BLOCK } else { 0 },
                Err(error) => {
                    if error.is_damaged() {
                        self.filled.lock().damaged.insert(place);
                    }
                    return Err(error);
                }
            }
        }
        Ok(fetched)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = Name> {
        self.manifest.blocks.iter().map(|(_, name)| *name)
    }
}

impl Filled {
    fn of(blocks: usize, map: Option<Vec<u8>>) -> Filled {
        let bits = map.filter(|bits| bits.len() == blocks.div_ceil(8)).unwrap_or(vec![0; blocks.div_ceil(8)]);
        let mut filled = Filled { bits, ..Filled::default() };
        filled.left = (0..blocks).filter(|place| !filled.has(*place)).count();
        filled
    }

    fn has(&self, place: usize) -> bool {
        self.bits[place / 8] >> (place % 8) & 1 == 1
    }

    fn add(&mut self, place: usize) {
        self.bits[place / 8] |= 1 << (place % 8);
        self.left -= 1;
        self.is_ahead = true;
    }
}

impl Disks {
    /// Gives a snapshot that only the store has, and that is not encrypted, a layer, which is filled from now on.
    pub(crate) fn begin_filling(&self, snapshot_id: &str) -> Result<()> {
        let _work = self.work_on(&[&storing::name(snapshot_id)]);
        let head = self.head(snapshot_id)?;
        if !head.layers().is_empty() {
            return Ok(());
        }
        // Until the list is the layer's own.
        let _kept = self.store.keep();
        let manifest = Manifest::clone(&*self.stored_manifest(snapshot_id)?);
        let name = self.next_layer(snapshot_id, Format::Raw);
        let path = self.layer_path(&name);
        whole(&path, || create_raw(&path, head.size))?;
        durable::write(&self.filling_files(&name.to_string()).0, &manifest.encode())?;
        let filling = self.open_filling(&name, manifest, None)?;
        self.state().filling.insert(name.to_string(), Arc::new(filling));
        self.put_head(snapshot_id, head.of(&[name]).in_store())?;
        self.lacking.notify_one();
        Ok(())
    }

    /// Has a sealed snapshot's layers stay, whole, whatever room there is, or lets them go again as those of others. Brings
    /// some more of it there and answers how many percent are; to be called until all is.
    pub fn keep_near(&self, snapshot_id: &str, keep: bool) -> Result<u8> {
        check(Kind::Snapshot, snapshot_id)?;
        {
            let _work = self.work_on(&[&storing::name(snapshot_id)]);
            let head = self.head(snapshot_id)?;
            if head.kept != keep {
                self.put_head(snapshot_id, head.keep(keep))?;
            }
        }
        if !keep {
            return Ok(100);
        }
        self.have_layer(snapshot_id)?;
        let mut work = self.work_on(&[]);
        for layer in self.layers(&work.pin(snapshot_id)?.layers()) {
            if let Some(filling) = layer.filling {
                self.fill_one(&filling, BYTES_AT_ONCE)?;
                let (left, all) = (filling.filled.lock().left, filling.manifest.blocks.len());
                // A hundred once its last is durable.
                return Ok(if self.is_filling(&filling) {
                    ((all - left) * 99 / all.max(1)) as u8
                } else {
                    100
                });
            }
        }
        Ok(100)
    }

    fn is_filling(&self, filling: &Filling) -> bool {
        self.state().filling.contains_key(&filling.name.to_string())
    }

    /// Waits until there may be something to fill. One waits at a time.
    pub async fn lacking(&self) {
        self.lacking.notified().await;
    }

    /// What a crash has left of a layer that was being filled.
    pub(crate) fn find_filling(&self, name: &LayerName) -> Result<Option<Filling>> {
        let (path, map) = self.filling_files(&name.to_string());
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("can't read", &path)(error)),
        };
        let damaged = || VolumeError::Damaged(format!("The list of blocks {}", path.display()));
        let manifest = Manifest::decode(&bytes).ok_or_else(damaged)?;
        // Without it, all is fetched again.
        self.open_filling(name, manifest, fs::read(map).ok()).map(Some)
    }

    fn open_filling(&self, name: &LayerName, manifest: Manifest, map: Option<Vec<u8>>) -> Result<Filling> {
        let path = self.layer_path(name);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        Ok(Filling {
            file: file.map_err(failed("can't open", &path))?,
            filled: Mutex::new(Filled::of(manifest.blocks.len(), map)),
            name: name.clone(),
            path,
            store: self.store.clone(),
            manifest,
            fetched: Condvar::new(),
        })
    }

    /// Reads a raw layer of one of these volumes, by its name without extension. None where they have none such.
    pub fn read_layer(&self, volume_ids: &[&str], layer: &str) -> Result<Option<LayerReader>> {
        let named = |head: Head| {
            head.layers().into_iter().find(|name| name.format == Format::Raw && name.stem() == layer)
        };
        let heads = volume_ids.iter().filter_map(|volume_id| self.head(volume_id).ok());
        let Some(name) = heads.filter_map(named).next() else { return Ok(None) };
        if let Some(filling) = self.state().filling.get(&name.to_string()) {
            return Ok(Some(LayerReader::Filling(filling.clone())));
        }
        let path = self.layer_path(&name);
        let open = || {
            let file = File::open(&path)?;
            Ok((file.metadata()?.len(), file))
        };
        let (size, file) = open().map_err(failed("can't open", &path))?;
        Ok(Some(LayerReader::Whole { file, path, size }))
    }

    /// The volumes that have layers which are not whole, and bytes of those: how many are lacking, and how many there are.
    pub fn unfilled(&self) -> Vec<(String, u64, u64)> {
        let state = self.state();
        let mut unfilled = Vec::new();
        for (name, filling) in &state.filling {
            let (left, all) = (filling.filled.lock().left as u64, filling.manifest.blocks.len() as u64);
            let volumes = state.volumes_with(name).cloned();
            unfilled.extend(volumes.map(|volume_id| (volume_id, left * BLOCK, all * BLOCK)));
        }
        unfilled
    }

    /// Fetches some of what a layer lacks, at least so many bytes if there are.
    pub fn fill(&self, bytes: u64) -> Result<Fill> {
        let layers: Vec<_> = self.state().filling.values().cloned().collect();
        for filling in layers {
            let fetched = self.fill_one(&filling, bytes)?;
            // Else what it lacks is damaged, or it is whole.
            if fetched > 0 {
                return Ok(Fill::Some(fetched));
            }
        }
        let mut state = self.state();
        let Some(name) = state.filled.pop() else { return Ok(Fill::Nothing) };
        let layer = self.dir().join(LAYERS).join(&name);
        Ok(Fill::Whole { layer, volumes: state.volumes_with(&name).cloned().collect() })
    }

    /// How many bytes were fetched. Where there are none left it is whole, for good.
    fn fill_one(&self, filling: &Filling, bytes: u64) -> Result<u64> {
        let fetched = filling.fetch_some(bytes);
        let name = filling.name.to_string();
        let (list, map) = self.filling_files(&name);
        let is_whole = filling.settle(&map)?;
        if !self.is_filling(filling) {
            // Nobody needed it any more meanwhile.
            durable::remove(&map)?;
            return Ok(0);
        }
        let fetched = fetched?;
        if is_whole {
            durable::remove(&list)?;
            durable::remove(&map)?;
            let mut state = self.state();
            if state.filling.remove(&name).is_some() {
                state.filled.push(name);
                self.lacking.notify_one();
            }
        }
        Ok(fetched)
    }

    /// Nobody needs the layer any more.
    pub(crate) fn forget_filling(&self, name: &str) -> Result<()> {
        if self.state().filling.remove(name).is_none() {
            return Ok(());
        }
        let (list, map) = self.filling_files(name);
        durable::remove(&list)?;
        durable::remove(&map).map(drop)
    }

    /// The list of a layer's blocks, and the map of those that are there.
    fn filling_files(&self, name: &str) -> (PathBuf, PathBuf) {
        let dir = self.dir().join(FILLING);
        (dir.join(name), dir.join(format!("{name}{MAP}")))
    }
}
