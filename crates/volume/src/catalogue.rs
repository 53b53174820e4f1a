//! Which layers each volume and snapshot consists of.
//!
//! ```text
//!   volumes/vol-….json      heads: size, and the layers, uppermost first
//!   snapshots/snap-….json
//!   snapshots/snap-….freeze what `freeze` has begun
//!   snapshots/snap-….storing what `storing` has begun
//!   layers/vol-….0.raw      …
//!   filling/snap-….0.raw    of a layer that is not whole yet, what it lacks
//! ```
//!
//! All of it is read once and then known: a call for one disk costs what that disk costs, however many there are.

use crate::encryption::{DataKey, Keys};
use crate::filling::{self, FILLING, Filling};
use crate::freeze::{self, Journal};
use crate::layer::{Format, Layer, LayerName};
use crate::store::BlockStore;
use crate::storing::{self, Storing};
use crate::{Result, VolumeError, durable, failed};
use model::{Id, Kind};
use parking_lot::{Condvar, Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const LAYERS: &str = "layers";
const VOLUMES: &str = "volumes";
const SNAPSHOTS: &str = "snapshots";
const HEAD: &str = "json";
/// The block store, where no other is given.
const BLOCKS: &str = "blocks";
/// Names the block store that was given.
const NOTED: &str = "block-store";

/// The volumes and snapshots below one directory.
pub struct Disks {
    dir: PathBuf,
    state: Mutex<State>,
    /// Says that a disk is no longer worked on.
    idle: Condvar,
    /// Shared by who writes blocks, so that none is written while a snapshot is sealed.
    pub(crate) sealing: RwLock<()>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) store: Arc<BlockStore>,
    /// Says that there is something to fill, or to tell of it.
    pub(crate) lacking: tokio::sync::Notify,
}

/// What a volume or snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// In bytes.
    pub(crate) size: u64,
    /// The uppermost first.
    layers: Vec<String>,
    /// Of a snapshot: all of it is in the block store. Then it may have no layers.
    #[serde(default)]
    pub(crate) stored: bool,
    /// Of a snapshot: its layers stay, and are made where there are none.
    #[serde(default)]
    pub(crate) kept: bool,
    /// The id of the data key, where it is encrypted: then all its layers are, with the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
}

#[derive(Default)]
pub(crate) struct State {
    heads: BTreeMap<String, Head>,
    /// How many heads, and how much work under way, needs each layer.
    needs: HashMap<String, usize>,
    /// The number that the next layer of each disk has.
    next: HashMap<String, u32>,
    /// Disks that are worked on.
    busy: HashSet<String>,
    pub(crate) journals: BTreeMap<String, Journal>,
    pub(crate) storing: HashMap<String, Storing>,
    /// By the layers' names.
    pub(crate) filling: BTreeMap<String, Arc<Filling>>,
    /// The names of those that are whole since, which nobody has been told of.
    pub(crate) filled: Vec<String>,
}

impl Head {
    pub(crate) fn new(size: u64, layers: &[LayerName], key: Option<&DataKey>) -> Head {
        let layers = layers.iter().map(LayerName::to_string).collect();
        Head { size, layers, stored: false, kept: false, key: key.map(|key| key.id.clone()) }
    }

    /// The same of other layers, which may not be in the store.
    pub(crate) fn of(&self, layers: &[LayerName]) -> Head {
        let layers = layers.iter().map(LayerName::to_string).collect();
        Head { layers, stored: false, ..self.clone() }
    }

    pub(crate) fn grown(self, size: u64) -> Head {
        Head { size, ..self }
    }

    pub(crate) fn in_store(self) -> Head {
        Head { stored: true, ..self }
    }

    pub(crate) fn keep(self, kept: bool) -> Head {
        Head { kept, ..self }
    }

    pub(crate) fn layers(&self) -> Vec<LayerName> {
        // Checked when it was read.
        self.layers.iter().filter_map(|name| LayerName::parse(name)).collect()
    }
}

impl Disks {
    /// With the block store in a folder beside the disks.
    pub fn open(dir: &Path) -> Result<Disks> {
        Disks::open_at(dir, None)
    }

    /// With the block store in another folder, or in a bucket by its URL (`BlockStore::bucket`). As long as there are
    /// snapshots it is the same one.
    pub fn open_at(dir: &Path, block_store: Option<&str>) -> Result<Disks> {
        durable::create_directory(dir)?;
        let store = match block_store {
            None => BlockStore::folder(&dir.join(BLOCKS)),
            Some(url) if url.starts_with('/') => BlockStore::folder(Path::new(url)),
            Some(url) => BlockStore::bucket(url),
        }?;
        let noted = dir.join(NOTED);
        let had = match fs::read_to_string(&noted) {
            Ok(had) => Some(had),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("can't read", &noted)(error)),
        };
        let disks = Disks::open_with(dir, store)?;
        if had.as_deref() != block_store {
            let state = disks.state();
            let is_used = !state.storing.is_empty() || state.heads.values().any(|head| head.stored);
            drop(state);
            if is_used {
                let had = had.unwrap_or_else(|| dir.join(BLOCKS).display().to_string());
                return Err(VolumeError::Invalid(format!("There are snapshots in the block store {had}")));
            }
            match block_store {
                Some(url) => durable::write(&noted, url.as_bytes())?,
                None => drop(durable::remove(&noted)?),
            }
        }
        Ok(disks)
    }

    /// Finishes what a crash has left undone, but what `freeze` began: see `freezes`.
    pub fn open_with(dir: &Path, store: BlockStore) -> Result<Disks> {
        for part in [LAYERS, VOLUMES, SNAPSHOTS, FILLING] {
            durable::create_directory(&dir.join(part))?;
        }
        let dir = fs::canonicalize(dir).map_err(failed("can't find", dir))?;
        let (state, idle, sealing) = (Mutex::default(), Condvar::new(), RwLock::default());
        let (keys, store, lacking) = (Arc::default(), Arc::new(store), tokio::sync::Notify::new());
        let disks = Disks { dir, state, idle, sealing, keys, store, lacking };
        let mut state = State::default();
        for part in [VOLUMES, SNAPSHOTS] {
            for name in disks.names(part)? {
                disks.take_in(&mut state, part, &name)?;
            }
        }
        let (heads, storing) = (&state.heads, &mut state.storing);
        // Done, or no longer wanted, when a crash came.
        for (id, _) in storing.extract_if(|id, _| heads.get(id).is_none_or(|head| head.stored)) {
            durable::remove(&disks.snapshot_file(&id, storing::JOURNAL))?;
        }
        for name in disks.names(LAYERS)? {
            let Some(layer) = LayerName::parse(&name) else { continue };
            if state.needs.contains_key(&name) {
                let next = state.next.entry(layer.owner.clone()).or_default();
                *next = (*next).max(layer.number + 1);
                let filling = disks.find_filling(&layer)?;
                state.filling.extend(filling.map(|filling| (name, Arc::new(filling))));
            } else {
                durable::remove(&disks.dir.join(LAYERS).join(name))?;
            }
        }
        for name in disks.names(FILLING)? {
            if !state.filling.contains_key(filling::layer_of(&name)) {
                durable::remove(&disks.dir.join(FILLING).join(name))?;
            }
        }
        *disks.state.lock() = state;
        let journals: Vec<Journal> = disks.state.lock().journals.values().cloned().collect();
        for journal in &journals {
            disks.apply(journal)?;
            // The volumes need them from here on, but for what is undone.
            let unneeded: Vec<String> = {
                let mut state = disks.state.lock();
                journal.heads().flat_map(|head| state.unneed(head)).collect()
            };
            disks.remove_layers(unneeded)?;
        }
        Ok(disks)
    }

    fn take_in(&self, state: &mut State, part: &str, name: &str) -> Result<()> {
        let path = self.dir.join(part).join(name);
        let kind = if part == VOLUMES { Kind::Volume } else { Kind::Snapshot };
        let Some((id, what)) = name.split_once('.').filter(|(id, _)| Id::is_well_formed(kind, id)) else {
            return Ok(());
        };
        match what {
            HEAD => {
                let head: Head = read(&path)?;
                if (head.layers.is_empty() && !head.stored) || head.layers().len() != head.layers.len() {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "it names what is no layer");
                    return Err(failed("can't understand", &path)(error));
                }
                state.need(&head);
                state.heads.insert(id.to_owned(), head);
            }
            freeze::JOURNAL if part == SNAPSHOTS => {
                let journal: Journal = read(&path)?;
                journal.heads().for_each(|head| state.need(head));
                state.journals.insert(id.to_owned(), journal);
            }
            storing::JOURNAL if part == SNAPSHOTS => {
                let storing = self.read_storing(id)?;
                state.storing.extend(storing.map(|storing| (id.to_owned(), storing)));
            }
            durable::NEW => drop(durable::remove(&path)?),
            _ if what.ends_with(durable::NEW) => drop(durable::remove(&path)?),
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Nobody else works on these disks until the answer is dropped.
    pub(crate) fn work_on<'a>(&'a self, ids: &[&str]) -> Work<'a> {
        let ids: HashSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let mut state = self.state.lock();
        self.idle.wait_while(&mut state, |state| !state.busy.is_disjoint(&ids));
        state.busy.extend(ids.iter().cloned());
        Work { disks: self, ids, pinned: Vec::new() }
    }

    pub(crate) fn head(&self, id: &str) -> Result<Head> {
        self.state.lock().heads.get(id).cloned().ok_or_else(|| VolumeError::NotFound(id.to_owned()))
    }

    pub(crate) fn ids(&self, kind: Kind) -> Vec<String> {
        let state = self.state.lock();
        state.heads.keys().filter(|id| Id::is_well_formed(kind, id)).cloned().collect()
    }

    /// Makes a head durable; layers that only the one before named go.
    pub(crate) fn put_head(&self, id: &str, head: Head) -> Result<()> {
        durable::write(&self.head_path(id), &to_json(&head))?;
        let mut state = self.state.lock();
        state.need(&head);
        let had = state.heads.insert(id.to_owned(), head);
        let unneeded = had.map(|had| state.unneed(&had)).unwrap_or_default();
        drop(state);
        self.remove_layers(unneeded)
    }

    /// No error where there is none.
    pub(crate) fn remove_head(&self, id: &str) -> Result<()> {
        durable::remove(&self.head_path(id))?;
        let mut state = self.state.lock();
        let had = state.heads.remove(id);
        let unneeded = had.map(|had| state.unneed(&had)).unwrap_or_default();
        drop(state);
        self.remove_layers(unneeded)
    }

    fn remove_layers(&self, names: Vec<String>) -> Result<()> {
        names.iter().try_for_each(|name| {
            self.forget_filling(name)?;
            durable::remove(&self.dir.join(LAYERS).join(name)).map(drop)
        })
    }

    fn head_path(&self, id: &str) -> PathBuf {
        let part = if Id::is_well_formed(Kind::Volume, id) { VOLUMES } else { SNAPSHOTS };
        self.dir.join(part).join(format!("{id}.{HEAD}"))
    }

    pub(crate) fn snapshot_file(&self, snapshot_id: &str, what: &str) -> PathBuf {
        self.dir.join(SNAPSHOTS).join(format!("{snapshot_id}.{what}"))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn layer_path(&self, name: &LayerName) -> PathBuf {
        self.dir.join(LAYERS).join(name.to_string())
    }

    pub(crate) fn layers(&self, names: &[LayerName]) -> Vec<Layer> {
        names.iter().map(|name| self.layer(name)).collect()
    }

    pub(crate) fn layer(&self, name: &LayerName) -> Layer {
        let filling = self.state.lock().filling.get(&name.to_string()).cloned();
        Layer { path: self.layer_path(name), format: name.format, filling }
    }

    /// The name of a layer that shall be made for a disk.
    pub(crate) fn next_layer(&self, owner: &str, format: Format) -> LayerName {
        let mut state = self.state.lock();
        let next = state.next.entry(owner.to_owned()).or_default();
        *next += 1;
        LayerName { owner: owner.to_owned(), number: *next - 1, format }
    }

    fn names(&self, part: &str) -> Result<Vec<String>> {
        let dir = self.dir.join(part);
        let failed = || failed("can't list", &dir);
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed())? {
            names.extend(entry.map_err(failed())?.file_name().into_string());
        }
        Ok(names)
    }
}

impl State {
    pub(crate) fn has(&self, id: &str) -> bool {
        self.heads.contains_key(id)
    }

    pub(crate) fn heads(&self) -> impl Iterator<Item = (&String, &Head)> {
        self.heads.iter()
    }

    /// Whether a volume has the uppermost of these layers, and with it all of them.
    pub(crate) fn is_under_volumes(&self, head: &Head) -> bool {
        head.layers.first().is_some_and(|top| self.volumes_with(top).next().is_some())
    }

    /// The volumes that have this layer.
    pub(crate) fn volumes_with(&self, layer: &str) -> impl Iterator<Item = &String> {
        let volumes = self.heads.iter().filter(|(id, _)| Id::is_well_formed(Kind::Volume, id));
        volumes.filter(move |(_, head)| head.layers.iter().any(|name| name == layer)).map(|(id, _)| id)
    }

    fn need(&mut self, head: &Head) {
        for layer in &head.layers {
            *self.needs.entry(layer.clone()).or_default() += 1;
        }
    }

    /// The layers that nobody needs any more.
    fn unneed(&mut self, head: &Head) -> Vec<String> {
        let mut unneeded = Vec::new();
        for layer in &head.layers {
            let Some(needs) = self.needs.get_mut(layer) else { continue };
            *needs -= 1;
            if *needs == 0 {
                self.needs.remove(layer);
                unneeded.push(layer.clone());
            }
        }
        unneeded
    }
}

/// Work on disks that nobody else works on meanwhile.
pub(crate) struct Work<'a> {
    disks: &'a Disks,
    ids: HashSet<String>,
    pinned: Vec<Head>,
}

impl Work<'_> {
    /// The head of another disk, whose layers stay until the work is done.
    pub(crate) fn pin(&mut self, id: &str) -> Result<Head> {
        let mut state = self.disks.state.lock();
        let head = state.heads.get(id).cloned().ok_or_else(|| VolumeError::NotFound(id.to_owned()))?;
        state.need(&head);
        self.pinned.push(head.clone());
        Ok(head)
    }

    /// A layer that was made for a head which is yet to be put: without one it goes when the work is done.
    pub(crate) fn hold(&mut self, layer: &LayerName) {
        let held = Head::new(0, std::slice::from_ref(layer), None);
        self.disks.state.lock().need(&held);
        self.pinned.push(held);
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut state = self.disks.state.lock();
        let unneeded: Vec<String> = self.pinned.iter().flat_map(|head| state.unneed(head)).collect();
        state.busy.retain(|id| !self.ids.contains(id));
        drop(state);
        self.disks.idle.notify_all();
        // What can't be removed now is when the directory is next opened.
        let _ = self.disks.remove_layers(unneeded);
    }
}

pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of strings and numbers.
    serde_json::to_vec(value).unwrap_or_default()
}

pub(crate) fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(failed("can't read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| failed("can't understand", path)(error.into()))
}
