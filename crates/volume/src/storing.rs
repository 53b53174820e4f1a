//! Snapshots go into the block store, and come back from it.
//!
//! ```text
//!   snapshot  [ vol-a.2 ][ vol-a.1 ][ vol-a.0 ]
//!   parent               [ vol-a.1 ][ vol-a.0 ]     stored: its manifest, but for what vol-a.2 says
//! ```
//!
//! The store is the truth of a snapshot once it is `stored`: blocks are read from there, and checked. Its layers are
//! kept beside it, so that volumes are made of it at once and share them, for as long as there is room; then they go,
//! and the next volume made of it has one made anew (`filling`).
//!
//! Only what has changed since the nearest snapshot that is stored is read and put: what the layers say that the two
//! do not share. A journal says what has been put, so that a crash repeats some blocks at most.

use crate::catalogue::{Disks, Head, Work, to_json};
use crate::chain::Chain;
use crate::encryption::DataKey;
use crate::layer::{Format, LayerName, check};
use crate::qcow2;
use crate::store::{Collected, Manifest, Name};
use crate::volumes::whole;
use crate::{BLOCK_BYTES, Result, VolumeError, durable, failed};
use model::{Kind, SecretKey};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const JOURNAL: &str = "storing";
/// Blocks that one call puts: 512 MiB; few in tests, so that they see several calls.
const BATCH: usize = if cfg!(test) { 4 } else { 1024 };
/// Blocks that the kernel reads while others are packed.
const AHEAD: usize = 8;
const BLOCK: u64 = BLOCK_BYTES as u64;
const RECORD: usize = 4 + Name::BYTES;
/// In the journal: nothing is held there any more.
const NOTHING: [u8; Name::BYTES] = [0; Name::BYTES];
/// Blocks stay for so long without a manifest that names them.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// A snapshot on its way into the store.
#[derive(Clone, Debug)]
pub(crate) struct Storing {
    plan: Plan,
    /// What the nearest stored snapshot consists of, once it was looked at.
    parent: Option<Arc<Manifest>>,
    /// What was put, or is no more, by index.
    changed: Vec<(u32, Option<Name>)>,
}

/// The first line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    parent: Option<String>,
    /// How many of the layers are not the parent's.
    layers: usize,
}

impl Disks {
    /// Puts some of what a snapshot holds into the store, and answers how many percent of it are there; 100 once it is
    /// whole there. To be called until then.
    pub fn store(&self, snapshot_id: &str) -> Result<u8> {
        check(Kind::Snapshot, snapshot_id)?;
        let mut work = self.work_on(&[&name(snapshot_id)]);
        let head = work.pin(snapshot_id)?;
        if head.stored { Ok(100) } else { self.store_some(snapshot_id, &head) }
    }

    /// Nobody else stores it meanwhile.
    fn store_some(&self, snapshot_id: &str, head: &Head) -> Result<u8> {
        let _kept = self.store.keep();
        let storing = self.resume(snapshot_id, head)?;
        let key = self.key_of(head)?;
        let layers = self.layers(&head.layers());
        let differing = &layers[..storing.plan.layers.min(layers.len())];
        let mut differing = Chain::open(head.size, differing, key.as_deref())?;
        let mut batch = Vec::new();
        let mut from = storing.changed.last().map_or(0, |(index, _)| u64::from(*index) + 1);
        while batch.len() < BATCH
            && let Some(block) = differing.next_told(from)?
        {
            batch.push(block);
            from = block + 1;
        }
        let is_last = batch.len() < BATCH;
        let mut chain = Chain::open(head.size, &layers, key.as_deref())?;
        batch.iter().take(AHEAD).for_each(|block| chain.expect(*block));
        let ahead = batch.iter().skip(AHEAD).copied().map(Some).chain(std::iter::repeat(None));
        let blocks = batch.iter().zip(ahead).map(|(block, ahead)| {
            ahead.into_iter().for_each(|block| chain.expect(block));
            read(&mut chain, *block)
        });
        let put = self.store.put_blocks(blocks, key)?;
        self.note(snapshot_id, &put)?;
        let mut state = self.state();
        let changed = state.storing.get_mut(snapshot_id).map(|storing| {
            storing.changed.extend(put);
            if is_last { std::mem::take(&mut storing.changed) } else { Vec::new() }
        });
        drop(state);
        if !is_last {
            return Ok((from * BLOCK * 100 / head.size).min(99) as u8);
        }
        let changed = changed.unwrap_or_default();
        match (storing.plan.parent, storing.parent) {
            (Some(same), Some(parent)) if changed.is_empty() && parent.size == head.size => {
                self.store.copy_manifest(&same, snapshot_id, parent)?;
            }
            (_, parent) => {
                let manifest = parent.unwrap_or_default().with(head.size, &changed);
                self.store.put_manifest(snapshot_id, Arc::new(manifest))?;
            }
        }
        self.put_head(snapshot_id, head.clone().in_store())?;
        self.forget_storing(snapshot_id)?;
        Ok(100)
    }

    /// Goes on with what was begun, if what it was begun with is still there.
    fn resume(&self, snapshot_id: &str, head: &Head) -> Result<Storing> {
        let begun = self.state().storing.get(snapshot_id).cloned();
        if let Some(mut storing) = begun {
            let is_looked_at = storing.parent.is_some() || storing.plan.parent.is_none();
            if !is_looked_at && let Some(parent) = &storing.plan.parent {
                storing.parent = self.parent(parent)?;
            }
            if storing.parent.is_some() || storing.plan.parent.is_none() {
                self.state().storing.insert(snapshot_id.to_owned(), storing.clone());
                return Ok(storing);
            }
        }
        let layers = head.layers();
        let nearest = self.state().nearest_stored(&layers);
        let parent = match &nearest {
            Some((parent, _)) => self.parent(parent)?,
            None => None,
        };
        let shared = nearest.as_ref().filter(|_| parent.is_some());
        let plan = Plan {
            parent: shared.map(|(parent, _)| parent.clone()),
            layers: layers.len() - shared.map_or(0, |(_, count)| *count),
        };
        let mut line = to_json(&plan);
        line.push(b'\n');
        durable::write(&self.snapshot_file(snapshot_id, JOURNAL), &line)?;
        let storing = Storing { plan, parent, changed: Vec::new() };
        self.state().storing.insert(snapshot_id.to_owned(), storing.clone());
        Ok(storing)
    }

    /// None where it can't be used: then all is put again.
    fn parent(&self, snapshot_id: &str) -> Result<Option<Arc<Manifest>>> {
        match self.store.manifest(snapshot_id) {
            Err(error) if error.is_damaged() => Ok(None),
            manifest => manifest,
        }
    }

    /// In the journal, durable.
    fn note(&self, snapshot_id: &str, put: &[(u32, Option<Name>)]) -> Result<()> {
        let path = self.snapshot_file(snapshot_id, JOURNAL);
        durable::step(&path)?;
        let mut records = Vec::with_capacity(put.len() * RECORD);
        for (index, name) in put {
            records.extend(index.to_be_bytes());
            records.extend(name.map_or(NOTHING, |name| name.0));
        }
        let append = || {
            let mut file = OpenOptions::new().append(true).mode(0o600).open(&path)?;
            let before = file.metadata()?.len();
            file.write_all(&records).and_then(|()| file.sync_data()).inspect_err(|_| {
                // The next must begin where a record begins.
                let _ = file.set_len(before);
            })
        };
        append().map_err(failed("can't write", &path))
    }

    pub(crate) fn forget_storing(&self, snapshot_id: &str) -> Result<()> {
        durable::remove(&self.snapshot_file(snapshot_id, JOURNAL))?;
        self.state().storing.remove(snapshot_id);
        Ok(())
    }

    /// Makes a snapshot that holds the same as another; encrypted, with a key. Copies nothing where the other has the same
    /// key. No error where it is there already.
    pub fn copy_snapshot(&self, from: &str, to: &str, key: Option<&SecretKey>) -> Result<()> {
        check(Kind::Snapshot, from)?;
        check(Kind::Snapshot, to)?;
        let key = key.map(|key| self.told(key));
        let key = key.as_deref();
        let mut work = self.work_on(&[to]);
        if self.head(to).is_ok() {
            return Ok(());
        }
        let head = work.pin(from)?;
        if head.key.as_deref() != key.map(|key| &*key.id) {
            let layer = self.encrypt_anew(&mut work, from, &head, to, key)?;
            return self.put_head(to, Head::new(head.size, &[layer], key));
        }
        if head.stored {
            let _kept = self.store.keep();
            let manifest = self.stored_manifest(from)?;
            self.store.copy_manifest(from, to, manifest)?;
        }
        self.put_head(to, head.keep(false))
    }

    /// What a stored snapshot consists of.
    pub(crate) fn stored_manifest(&self, snapshot_id: &str) -> Result<Arc<Manifest>> {
        let missing = || VolumeError::Damaged(format!("The list of blocks of {snapshot_id}"));
        self.store.manifest(snapshot_id)?.ok_or_else(missing)
    }

    /// What a stored snapshot holds at an index. What is damaged there is put again, if the layers have it.
    pub(crate) fn stored_block(&self, snapshot_id: &str, index: u32, name: Name) -> Result<Vec<u8>> {
        let mut work = self.work_on(&[]);
        let head = work.pin(snapshot_id)?;
        let key = self.key_of(&head)?;
        let error = match self.store.get_block(snapshot_id, index, name, key.as_deref()) {
            Err(error) if error.is_damaged() => error,
            got => return got,
        };
        if head.layers().is_empty() {
            return Err(error);
        }
        match read(&mut self.chain(&head)?, index.into())? {
            (_, Some(data)) if Name::of(&data, key.as_deref()) == name => {
                self.store.put_blocks(std::iter::once(Ok((index, Some(data.clone())))), key)?;
                Ok(data)
            }
            _ => Err(error),
        }
    }

    /// Makes one layer, for `owner`, of all that a snapshot holds, encrypted with this key. It is filled from now on where
    /// the store has the snapshot, else copied now.
    pub(crate) fn encrypt_anew(
        &self,
        work: &mut Work<'_>,
        snapshot_id: &str,
        head: &Head,
        owner: &str,
        key: Option<&DataKey>,
    ) -> Result<LayerName> {
        let stays = || VolumeError::Invalid(format!("What is made of {snapshot_id} is encrypted as it is"));
        let key = key.ok_or_else(stays)?;
        // Where the store does not say what it has, the layers do.
        if head.stored && (head.layers().is_empty() || self.stored_manifest(snapshot_id).is_ok()) {
            return self.begin_filling(work, snapshot_id, head, owner, Some(key));
        }
        self.make_layer(owner, head.size, self.chain(head)?.blocks(), key)
    }

    /// Makes one encrypted layer of these blocks, whose indexes ascend.
    pub(crate) fn make_layer(
        &self,
        owner: &str,
        size: u64,
        blocks: impl Iterator<Item = Result<(u32, Vec<u8>)>>,
        key: &DataKey,
    ) -> Result<LayerName> {
        let layer = self.next_layer(owner, Format::Qcow2);
        let path = self.layer_path(&layer);
        whole(&path, || {
            qcow2::create(&path, size, Some(key))?;
            qcow2::fill(blocks, &path, Some(key))
        })?;
        Ok(layer)
    }

    /// The layers of a disk that has some, open for reading.
    pub(crate) fn chain(&self, head: &Head) -> Result<Chain> {
        Chain::open(head.size, &self.layers(&head.layers()), self.key_of(head)?.as_deref())
    }

    /// Lets the layers of snapshots go that the store holds, where less than so many percent of the disk are free. Those
    /// that volumes lie over stay, and those that the store turns out to have lost.
    pub fn make_room(&self, keep_free: u8) -> Result<()> {
        let space = rustix::fs::statvfs(self.dir()).map_err(io::Error::from);
        let space = space.map_err(failed("can't see", self.dir()))?;
        match space.f_bavail * 100 < space.f_blocks * u64::from(keep_free) {
            true => self.drop_layers(),
            false => Ok(()),
        }
    }

    pub(crate) fn drop_layers(&self) -> Result<()> {
        let mut result = Ok(());
        for snapshot_id in self.ids(Kind::Snapshot) {
            let dropped = self.drop_layers_of(&snapshot_id);
            result = result.and(dropped);
        }
        result
    }

    fn drop_layers_of(&self, snapshot_id: &str) -> Result<()> {
        let has_spare = |head: &Head| {
            let has_spare = head.stored && !head.kept && !head.layers().is_empty();
            // What nobody has told the key of can't be looked at; another time.
            has_spare && self.key_of(head).is_ok() && !self.state().is_under_volumes(head)
        };
        if !self.head(snapshot_id).is_ok_and(|head| has_spare(&head)) {
            return Ok(());
        }
        self.mend(snapshot_id)?;
        let _work = self.work_on(&[&name(snapshot_id)]);
        // It may be gone since, or a volume was made of it.
        match self.head(snapshot_id) {
            Ok(head) if has_spare(&head) => self.put_head(snapshot_id, head.of(&[]).in_store()),
            _ => Ok(()),
        }
    }

    /// Reads all that the store has of a snapshot before the only other copy goes; what is damaged is put again.
    fn mend(&self, snapshot_id: &str) -> Result<()> {
        self.store.forget_manifest(snapshot_id);
        if self.stored_manifest(snapshot_id).is_err_and(|error| error.is_damaged()) {
            let mut work = self.work_on(&[&name(snapshot_id)]);
            let head = work.pin(snapshot_id)?;
            while self.store_some(snapshot_id, &head)? < 100 {}
        }
        let manifest = self.stored_manifest(snapshot_id)?;
        let mut blocks = manifest.blocks.iter();
        blocks.try_for_each(|(index, name)| self.stored_block(snapshot_id, *index, *name).map(drop))
    }

    /// Removes what no snapshot needs from the store. May take long.
    pub fn collect(&self) -> Result<Collected> {
        self.collect_older(GRACE)
    }

    pub(crate) fn collect_older(&self, than: Duration) -> Result<Collected> {
        self.store.collect(than, || {
            let state = self.state();
            let storing = state.storing.values().flat_map(Storing::names);
            let filling = state.filling.values().flat_map(|filling| filling.names());
            storing.chain(filling).map(|name| name.0).collect::<HashSet<_>>()
        })
    }

    /// What a crash has left of a journal: what was put is whole, and the last record may not be.
    pub(crate) fn read_storing(&self, snapshot_id: &str) -> Result<Option<Storing>> {
        let path = self.snapshot_file(snapshot_id, JOURNAL);
        let bytes = fs::read(&path).map_err(failed("can't read", &path))?;
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let Ok(plan) = serde_json::from_slice(&bytes[..end]) else { return Ok(None) };
        let record = |bytes: &[u8]| {
            let (index, name) = bytes.split_first_chunk::<4>()?;
            let name: [u8; Name::BYTES] = name.try_into().ok()?;
            Some((u32::from_be_bytes(*index), (name != NOTHING).then_some(Name(name))))
        };
        let mut changed: Vec<(u32, Option<Name>)> =
            bytes[end + 1..].chunks_exact(RECORD).map_while(record).collect();
        // What does not ascend was not written as records are.
        let ascending = changed.is_sorted_by(|(one, _), (next, _)| one < next);
        changed.truncate(if ascending { changed.len() } else { 0 });
        // What comes behind must begin where a record begins.
        let kept = (end + 1 + changed.len() * RECORD) as u64;
        let file = OpenOptions::new().write(true).open(&path);
        file.and_then(|file| file.set_len(kept)).map_err(failed("can't write", &path))?;
        Ok(Some(Storing { plan, parent: None, changed }))
    }
}

impl Storing {
    fn names(&self) -> impl Iterator<Item = Name> {
        let parent = self.parent.iter().flat_map(|parent| parent.blocks.iter().map(|(_, name)| *name));
        parent.chain(self.changed.iter().filter_map(|(_, name)| *name))
    }
}

impl crate::catalogue::State {
    /// The stored snapshot that shares most of these layers, from the lowest on, and how many.
    fn nearest_stored(&self, layers: &[LayerName]) -> Option<(String, usize)> {
        let shares = |(id, head): (&String, &Head)| {
            let theirs = head.layers();
            let is_below = head.stored && !theirs.is_empty() && layers.ends_with(&theirs);
            is_below.then(|| (id.clone(), theirs.len()))
        };
        self.heads().filter_map(shares).max_by_key(|(_, count)| *count)
    }
}

/// What is worked on while a snapshot is stored; the snapshot can be used meanwhile.
pub(crate) fn name(snapshot_id: &str) -> String {
    format!("{snapshot_id}/{JOURNAL}")
}

fn read(chain: &mut Chain, block: u64) -> Result<(u32, Option<Vec<u8>>)> {
    // A disk of the largest size has 2^27.
    let index = u32::try_from(block).unwrap_or(u32::MAX);
    Ok((index, chain.block(block)?))
}
