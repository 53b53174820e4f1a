//! Layers that are used before they are whole: what they lack the block store has.
//!
//! ```text
//!   volume   [ vol-b.0 ][ snap-a.4 ]      made of a snapshot that has no layers any more
//!                            │ read: blocks that are not there yet come from the store first
//!                            ╰ filled: those that nobody asked for come meanwhile
//! ```
//!
//! Such a layer is a raw file with holes, or an encrypted overlay (`encrypted`). Beside it, in `filling/`, are the list of
//! its blocks, which is written once, and a map of those that are there. A block counts once it and its bit are durable;
//! after a crash some are fetched again. The list is the layer's own, so that its snapshot may go meanwhile.

mod encrypted;

use crate::catalogue::{self, Disks, Head, LAYERS, Work, to_json};
use crate::chain::Chain;
use crate::encryption::DataKey;
use crate::layer::{Format, LayerName, check};
use crate::qcow2::{self, Part};
use crate::store::{BlockStore, Manifest, Name};
use crate::volumes::{create_raw, whole};
use crate::{BLOCK_BYTES, Result, VolumeError, durable, failed, storing};
use encrypted::{Encrypted, Secrets};
use model::Kind;
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const FILLING: &str = "filling";
/// End the names of what is in there: of the list nothing; of the map; and of what may be on the disk of the keys of an
/// encrypted layer.
const LIST: &str = "";
const MAP: &str = ".map";
const SECRETS: &str = ".secrets";
const BLOCK: u64 = BLOCK_BYTES as u64;
/// That one call of `keep_near` fetches.
const BYTES_AT_ONCE: u64 = 64 << 20;

/// A layer that is being filled.
pub struct Filling {
    name: LayerName,
    path: PathBuf,
    file: File,
    encrypted: Option<Encrypted>,
    store: Arc<BlockStore>,
    /// What the snapshot had here when this was begun: it is closer than the store.
    near: Option<Mutex<Chain>>,
    manifest: Manifest,
    filled: Mutex<Filled>,
    /// Says that a block is no longer being fetched.
    fetched: Condvar,
    /// Held by who says on the disk what is there.
    settling: Mutex<()>,
}

/// By their places in the list.
#[derive(Default)]
struct Filled {
    /// One bit for each block that is there.
    bits: Vec<u8>,
    /// As the map on the disk has them.
    durable: Vec<u8>,
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
pub struct LayerReader {
    path: PathBuf,
    size: u64,
    content: Content,
}

enum Content {
    Filling(Arc<Filling>),
    /// It has become whole since the machine was told of it.
    Whole(Mutex<Chain>),
}

impl LayerReader {
    pub fn is_whole(&self) -> bool {
        matches!(self.content, Content::Whole(_))
    }

    /// Of its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Within the size.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        match &self.content {
            Content::Filling(filling) => filling.read(offset, into),
            Content::Whole(layer) => layer.lock().read(offset, into),
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
                Some(place) => match self.fetch(place) {
                    Ok(_) => self.read_block(place, within, now)?,
                    // What the disk has no room for is read all the same.
                    Err(error) if error.is_of_full_disk() => {
                        now.copy_from_slice(&self.get_block(place)?[within as usize..][..count]);
                    }
                    Err(error) => return Err(error),
                },
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
        let fetched = self.get_block(place).and_then(|data| self.write_block(place, data));
        let mut filled = self.filled.lock();
        filled.fetching.remove(&place);
        if fetched.is_ok() {
            filled.add(place);
        }
        drop(filled);
        self.fetched.notify_all();
        fetched.map(|()| true)
    }

    /// The block at this place of the list.
    fn get_block(&self, place: usize) -> Result<Vec<u8>> {
        let (index, name) = self.manifest.blocks[place];
        let key = match &self.encrypted {
            None => None,
            Some(encrypted) => encrypted.open(self.size())?.source.as_deref(),
        };
        if let Some(near) = &self.near
            && let Ok(Some(data)) = near.lock().block(index.into())
            && Name::of(&data, key) == name
        {
            return Ok(data);
        }
        self.store.get_block(&self.name.owner, index, name, key)
    }

    fn write_block(&self, place: usize, data: Vec<u8>) -> Result<()> {
        let written = match &self.encrypted {
            None => {
                let offset = u64::from(self.manifest.blocks[place].0) * BLOCK;
                // A disk's last block may end behind it.
                let length = BLOCK.min(self.size() - offset) as usize;
                self.file.write_all_at(&data[..length], offset)
            }
            Some(encrypted) => encrypted.open(self.size())?.write(&self.file, place, data),
        };
        written.map_err(failed("can't write", &self.path))
    }

    /// Of one that is there.
    fn read_block(&self, place: usize, within: u64, into: &mut [u8]) -> Result<()> {
        let read = match &self.encrypted {
            None => {
                let offset = u64::from(self.manifest.blocks[place].0) * BLOCK + within;
                self.file.read_exact_at(into, offset)
            }
            Some(encrypted) => encrypted.open(self.size())?.read(&self.file, place, within, into),
        };
        read.map_err(failed("can't read", &self.path))
    }

    /// Whether its key has not been told.
    fn is_locked(&self) -> bool {
        let open = self.encrypted.as_ref().map(|encrypted| encrypted.open(self.size()));
        matches!(open, Some(Err(VolumeError::Locked(_))))
    }

    /// What is there is durable, and known to be. Whether all is: then its file is a layer's like others.
    fn settle(&self, map: &Path) -> Result<bool> {
        let (bits, is_whole) = {
            let mut filled = self.filled.lock();
            let is_whole = filled.left == 0;
            if !std::mem::take(&mut filled.is_ahead) && !is_whole {
                return Ok(false);
            }
            (filled.bits.clone(), is_whole)
        };
        // What could not be written then, the next flush may be silent about: it is fetched again.
        self.flush(is_whole).inspect_err(|_| self.filled.lock().fall_back(self.manifest.blocks.len()))?;
        if is_whole {
            return Ok(true);
        }
        // Behind what it tells of; a whole layer needs none.
        durable::write(map, &bits).inspect_err(|_| self.filled.lock().is_ahead = true)?;
        self.filled.lock().durable = bits;
        Ok(false)
    }

    fn flush(&self, is_whole: bool) -> Result<()> {
        if is_whole && self.encrypted.is_some() {
            let blocks = self.manifest.blocks.iter().map(|(index, _)| *index);
            qcow2::tell(blocks, &self.file, self.size()).map_err(failed("can't write", &self.path))?;
        }
        durable::step(&self.path)?;
        self.file.sync_data().map_err(failed("can't write", &self.path))
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
        let mut filled = Filled { durable: bits, ..Filled::default() };
        filled.fall_back(blocks);
        filled
    }

    /// Only what is durable is there.
    fn fall_back(&mut self, blocks: usize) {
        self.bits.clone_from(&self.durable);
        self.left = (0..blocks).filter(|place| !self.has(*place)).count();
        (self.next, self.is_ahead) = (0, false);
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
    /// Gives a snapshot that only the store has a layer, which is filled from now on.
    pub(crate) fn have_layer(&self, snapshot_id: &str) -> Result<()> {
        let mut work = self.work_on(&[&storing::name(snapshot_id)]);
        let head = self.head(snapshot_id)?;
        if !head.layers().is_empty() {
            return Ok(());
        }
        let key = self.key_of(&head)?;
        let layer = self.begin_filling(&mut work, snapshot_id, &head, snapshot_id, key.as_deref())?;
        self.put_head(snapshot_id, head.of(&[layer]).in_store())
    }

    /// Makes a layer, for `owner`, of all that a snapshot holds which the store has; encrypted, with a key. It is filled from
    /// now on.
    pub(crate) fn begin_filling(
        &self,
        work: &mut Work<'_>,
        snapshot_id: &str,
        head: &Head,
        owner: &str,
        key: Option<&DataKey>,
    ) -> Result<LayerName> {
        // Until the list is the layer's own.
        let _kept = self.store.keep();
        let manifest = Manifest::clone(&*self.stored_manifest(snapshot_id)?);
        let source = self.key_of(head)?;
        let near = if head.layers().is_empty() { None } else { Some(self.chain(head)?) };
        let name = self.next_layer(owner, if key.is_some() { Format::Qcow2 } else { Format::Raw });
        let path = self.layer_path(&name);
        work.hold(&name);
        whole(&path, || match key {
            None => create_raw(&path, head.size),
            Some(key) => qcow2::create(&path, head.size, Some(key)),
        })?;
        let secrets = key.map(|key| Secrets::new(key, source.as_deref()));
        if let Some(secrets) = &secrets {
            durable::write(&self.filling_file(&name.to_string(), SECRETS), &to_json(secrets))?;
        }
        durable::write(&self.filling_file(&name.to_string(), LIST), &manifest.encode())?;
        let mut filling = self.open_filling(&name, manifest, secrets, None)?;
        filling.near = near.map(Mutex::new);
        self.state().filling.insert(name.to_string(), Arc::new(filling));
        self.lacking.notify_one();
        Ok(name)
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
        let file = |what| self.filling_file(&name.to_string(), what);
        let path = file(LIST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("can't read", &path)(error)),
        };
        let damaged = || VolumeError::Damaged(format!("The list of blocks {}", path.display()));
        let manifest = Manifest::decode(&bytes).ok_or_else(damaged)?;
        let secrets = match name.format {
            Format::Raw => None,
            Format::Qcow2 => Some(catalogue::read(&file(SECRETS))?),
        };
        // Without a map, all is fetched again.
        self.open_filling(name, manifest, secrets, fs::read(file(MAP)).ok()).map(Some)
    }

    fn open_filling(
        &self,
        name: &LayerName,
        manifest: Manifest,
        secrets: Option<Secrets>,
        map: Option<Vec<u8>>,
    ) -> Result<Filling> {
        let path = self.layer_path(name);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        Ok(Filling {
            file: file.map_err(failed("can't open", &path))?,
            encrypted: secrets.map(|secrets| Encrypted::new(name, secrets, &self.keys)),
            filled: Mutex::new(Filled::of(manifest.blocks.len(), map)),
            name: name.clone(),
            path,
            store: self.store.clone(),
            near: None,
            manifest,
            fetched: Condvar::new(),
            settling: Mutex::default(),
        })
    }

    /// Reads the lowest layer of one of these volumes, by its name without extension. None where none has it there.
    pub fn read_layer(&self, volume_ids: &[&str], layer: &str) -> Result<Option<LayerReader>> {
        let lowest = |head: Head| {
            let name = head.layers().pop().filter(|name| name.stem() == layer)?;
            Some((head, name))
        };
        let heads = volume_ids.iter().filter_map(|volume_id| self.head(volume_id).ok());
        let Some((head, name)) = heads.filter_map(lowest).next() else { return Ok(None) };
        let key = self.key_of(&head)?;
        let layer = self.layer(&name);
        let (size, content) = match layer.filling {
            Some(filling) => (filling.size(), Content::Filling(filling)),
            None => {
                let layer = Chain::of_one(&layer, key.as_deref())?;
                (layer.size(), Content::Whole(Mutex::new(layer)))
            }
        };
        Ok(Some(LayerReader { path: layer.path, size, content }))
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

    /// Fetches some of what a layer lacks, at least so many bytes if there are. What is locked waits.
    pub fn fill(&self, bytes: u64) -> Result<Fill> {
        // Its machines need not wait until others are whole.
        if let Some(whole) = self.take_filled() {
            return Ok(whole);
        }
        let layers: Vec<_> = self.state().filling.values().cloned().collect();
        for filling in layers.into_iter().filter(|filling| !filling.is_locked()) {
            let fetched = self.fill_one(&filling, bytes)?;
            // Else what it lacks is damaged, or it is whole.
            if fetched > 0 {
                return Ok(Fill::Some(fetched));
            }
        }
        Ok(self.take_filled().unwrap_or(Fill::Nothing))
    }

    /// A layer that has become whole.
    fn take_filled(&self) -> Option<Fill> {
        let mut state = self.state();
        let name = state.filled.pop()?;
        let layer = self.dir().join(LAYERS).join(&name);
        Some(Fill::Whole { layer, volumes: state.volumes_with(&name).cloned().collect() })
    }

    /// How many bytes were fetched. Where there are none left it is whole, for good.
    fn fill_one(&self, filling: &Filling, bytes: u64) -> Result<u64> {
        let fetched = filling.fetch_some(bytes);
        let name = filling.name.to_string();
        // Who comes second finds it whole.
        let _alone = filling.settling.lock();
        let is_whole = self.is_filling(filling) && filling.settle(&self.filling_file(&name, MAP))?;
        if !self.is_filling(filling) {
            // Nobody needed it any more meanwhile.
            durable::remove(&self.filling_file(&name, MAP))?;
            return Ok(0);
        }
        let fetched = fetched?;
        if is_whole {
            self.remove_filling(&name)?;
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
        self.remove_filling(name)
    }

    /// The list first: without it the others say nothing.
    fn remove_filling(&self, name: &str) -> Result<()> {
        [LIST, MAP, SECRETS]
            .iter()
            .try_for_each(|what| durable::remove(&self.filling_file(name, what)).map(drop))
    }

    fn filling_file(&self, name: &str, what: &str) -> PathBuf {
        self.dir().join(FILLING).join(format!("{name}{what}"))
    }
}

/// Of which layer a file in `filling/` is.
pub(crate) fn layer_of(file: &str) -> &str {
    [MAP, SECRETS].iter().find_map(|what| file.strip_suffix(what)).unwrap_or(file)
}
