//! Snapshots in memory, for the simulated cloud.
//!
//! Blocks with the same content are kept once, so that the many snapshots of a test that hold the same few
//! blocks cost little. The content of all of them together is bounded: a block beyond it is refused, never
//! silently dropped.

use agent_api::{BLOCK_BYTES, ChangedBlock, HostError, SecretKey, SnapshotStore};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

/// 256 MiB in 512 distinct blocks: ample for tests of snapshots, little beside what runs the tests.
const DISTINCT_BLOCKS_MAX: usize = 512;

#[derive(Default)]
pub struct MemorySnapshots {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    snapshots: HashMap<String, Snapshot>,
    contents: HashMap<blake3::Hash, Weak<[u8]>>,
}

struct Snapshot {
    size_gib: u32,
    completed: bool,
    blocks: Blocks,
}

/// Shared by a snapshot, the simulated volumes made of it, and their snapshots.
pub(crate) type Blocks = Arc<BTreeMap<u32, Arc<[u8]>>>;

impl MemorySnapshots {
    pub fn new() -> Self {
        Self::default()
    }

    /// All there are, whole or not.
    pub fn ids(&self) -> Vec<String> {
        self.inner.lock().snapshots.keys().cloned().collect()
    }

    /// What a volume holds that is made of this snapshot.
    pub(crate) fn blocks(&self, snapshot_id: &str) -> Blocks {
        let inner = self.inner.lock();
        inner.snapshots.get(snapshot_id).map(|snapshot| snapshot.blocks.clone()).unwrap_or_default()
    }

    /// Makes a whole snapshot of a volume that holds these blocks, where it is not there yet.
    pub(crate) fn take(&self, snapshot_id: &str, size_gib: u32, blocks: Blocks) {
        let taken = || Snapshot { size_gib, completed: true, blocks };
        self.inner.lock().snapshots.entry(snapshot_id.to_owned()).or_insert_with(taken);
    }
}

impl Inner {
    fn snapshot(&self, snapshot_id: &str) -> Result<&Snapshot, HostError> {
        self.snapshots.get(snapshot_id).ok_or_else(|| HostError::NotFound(snapshot_id.to_owned()))
    }

    fn content(&mut self, data: &[u8]) -> Result<Arc<[u8]>, HostError> {
        let hash = blake3::hash(data);
        if let Some(had) = self.contents.get(&hash).and_then(Weak::upgrade) {
            return Ok(had);
        }
        if self.contents.len() >= DISTINCT_BLOCKS_MAX {
            self.contents.retain(|_, content| content.strong_count() > 0);
        }
        if self.contents.len() >= DISTINCT_BLOCKS_MAX {
            return Err(HostError::Failed(format!(
                "The simulated cloud keeps at most {DISTINCT_BLOCKS_MAX} different snapshot blocks"
            )));
        }
        let content: Arc<[u8]> = data.into();
        self.contents.insert(hash, Arc::downgrade(&content));
        Ok(content)
    }
}

#[async_trait]
impl SnapshotStore for MemorySnapshots {
    /// Nothing is at rest here.
    async fn tell(&self, _: &SecretKey) {}

    async fn begin(&self, snapshot_id: &str, size_gib: u32, _: Option<&SecretKey>) -> Result<(), HostError> {
        let fresh = || Snapshot { size_gib, completed: false, blocks: Blocks::default() };
        self.inner.lock().snapshots.entry(snapshot_id.to_owned()).or_insert_with(fresh);
        Ok(())
    }

    async fn put_block(&self, snapshot_id: &str, index: u32, data: &[u8]) -> Result<(), HostError> {
        let mut inner = self.inner.lock();
        let snapshot = inner.snapshot(snapshot_id)?;
        if snapshot.completed {
            return Err(HostError::Failed(format!("{snapshot_id} is completed and never changes again")));
        }
        let blocks_max = u64::from(snapshot.size_gib) << 30;
        if data.len() != BLOCK_BYTES || u64::from(index) * BLOCK_BYTES as u64 >= blocks_max {
            return Err(HostError::Failed(format!(
                "{snapshot_id} has no block {index} of {} bytes",
                data.len()
            )));
        }
        let content = inner.content(data)?;
        if let Some(snapshot) = inner.snapshots.get_mut(snapshot_id) {
            Arc::make_mut(&mut snapshot.blocks).insert(index, content);
        }
        Ok(())
    }

    async fn complete(&self, snapshot_id: &str) -> Result<(), HostError> {
        let mut inner = self.inner.lock();
        inner.snapshot(snapshot_id)?;
        if let Some(snapshot) = inner.snapshots.get_mut(snapshot_id) {
            snapshot.completed = true;
        }
        Ok(())
    }

    async fn get_block(&self, snapshot_id: &str, index: u32) -> Result<Option<Vec<u8>>, HostError> {
        let inner = self.inner.lock();
        Ok(inner.snapshot(snapshot_id)?.blocks.get(&index).map(|content| content.to_vec()))
    }

    async fn list_blocks(&self, snapshot_id: &str, start: u32, limit: usize) -> Result<Vec<u32>, HostError> {
        let inner = self.inner.lock();
        Ok(inner.snapshot(snapshot_id)?.blocks.range(start..).take(limit).map(|(index, _)| *index).collect())
    }

    async fn store(&self, snapshot_id: &str) -> Result<u8, HostError> {
        self.inner.lock().snapshot(snapshot_id).map(|_| 100)
    }

    async fn keep_near(&self, snapshot_id: &str, _keep: bool) -> Result<u8, HostError> {
        self.inner.lock().snapshot(snapshot_id).map(|_| 100)
    }

    async fn list_changed_blocks(
        &self,
        first: &str,
        second: &str,
        start: u32,
        limit: usize,
    ) -> Result<Vec<ChangedBlock>, HostError> {
        let inner = self.inner.lock();
        let (first, second) = (&inner.snapshot(first)?.blocks, &inner.snapshot(second)?.blocks);
        let indexes: BTreeSet<u32> =
            first.range(start..).chain(second.range(start..)).map(|(index, _)| *index).collect();
        let changed = indexes.into_iter().filter_map(|index| {
            let (first, second) = (first.get(&index), second.get(&index));
            let (in_first, in_second) = (first.is_some(), second.is_some());
            (first != second).then_some(ChangedBlock { index, in_first, in_second })
        });
        Ok(changed.take(limit).collect())
    }

    async fn copy(&self, from: &str, to: &str, _: Option<&SecretKey>) -> Result<(), HostError> {
        let mut inner = self.inner.lock();
        let source = inner.snapshot(from)?;
        let copy = Snapshot { size_gib: source.size_gib, completed: true, blocks: source.blocks.clone() };
        inner.snapshots.entry(to.to_owned()).or_insert(copy);
        Ok(())
    }

    async fn delete(&self, snapshot_id: &str) -> Result<(), HostError> {
        self.inner.lock().snapshots.remove(snapshot_id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(content: u32) -> Vec<u8> {
        let mut data = vec![0; BLOCK_BYTES];
        data[..4].copy_from_slice(&content.to_le_bytes());
        data
    }

    #[tokio::test]
    async fn the_bound_is_on_what_differs_and_deleting_makes_room() {
        let store = MemorySnapshots::new();
        store.begin("snap-same", 1, None).await.unwrap();
        for index in 0..600 {
            store.put_block("snap-same", index, &block(0)).await.unwrap();
        }
        store.begin("snap-full", 1, None).await.unwrap();
        for index in 0..DISTINCT_BLOCKS_MAX as u32 - 1 {
            store.put_block("snap-full", index, &block(index + 1)).await.unwrap();
        }
        store.begin("snap-late", 1, None).await.unwrap();
        assert!(store.put_block("snap-late", 0, &block(100_000)).await.is_err());
        store.put_block("snap-late", 0, &block(1)).await.unwrap();
        store.delete("snap-full").await.unwrap();
        store.put_block("snap-late", 1, &block(100_000)).await.unwrap();
        assert_eq!(store.get_block("snap-late", 0).await.unwrap(), Some(block(1)));
    }
}
