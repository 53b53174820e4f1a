//! A block store that fails: puts that come to nothing, in part, or too late; a full disk; flushes that were none; bits
//! that rot. Nothing wrong is ever read, and while layers are there all is mended.

use super::*;
use crate::BlockStore;
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use model::{Random, SeededRandom};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

const BLOCKS: u32 = 6;
const SEEDS: u64 = 16;

/// Objects in memory, with faults by chance.
#[derive(Clone)]
struct Faulty(Arc<State>);

struct State {
    objects: InMemory,
    chance: SeededRandom,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Faults {
    are_on: bool,
    is_full: bool,
    /// Said to be durable.
    unsynced: BTreeMap<String, Vec<u8>>,
}

impl Faulty {
    fn new(seed: u64) -> Faulty {
        let chance = SeededRandom::new(seed);
        Faulty(Arc::new(State { objects: InMemory::new(), chance, faults: Mutex::default() }))
    }

    fn below(&self, bound: u64) -> u64 {
        self.0.chance.u64() % bound
    }

    /// Whether there are faults from now on; where they end there is room again.
    fn switch(&self, are_on: bool) {
        let mut faults = self.0.faults.lock();
        (faults.are_on, faults.is_full) = (are_on, false);
    }

    fn write(&self, key: &Key, bytes: Vec<u8>) {
        self.0.objects.put(key, bytes.into()).now_or_never().unwrap().unwrap();
    }

    fn read(&self, key: &Key) -> Vec<u8> {
        let got = self.0.objects.get(key).now_or_never().unwrap().unwrap();
        got.bytes().now_or_never().unwrap().unwrap().into()
    }

    /// Of what was said to be durable some is not there, and some only in part.
    fn lose_power(&self) {
        for (key, bytes) in std::mem::take(&mut self.0.faults.lock().unsynced) {
            let key = Key::from(key);
            match self.below(3) {
                0 => drop(self.0.objects.delete(&key).now_or_never()),
                1 => self.write(&key, bytes[..bytes.len() / 2].to_vec()),
                _ => {}
            }
        }
    }

    fn rot(&self) {
        let listed = self.0.objects.list(None).collect::<Vec<_>>().now_or_never().unwrap();
        let filled: Vec<ObjectMeta> = listed.into_iter().flatten().filter(|object| object.size > 0).collect();
        if filled.is_empty() {
            return;
        }
        let key = &filled[self.below(filled.len() as u64) as usize].location;
        let mut bytes = self.read(key);
        let at = self.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.below(8);
        self.write(key, bytes);
    }
}

fn fault(what: &'static str) -> Error {
    Error::Generic { store: "faulty", source: what.into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, key: &Key, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
        let fate = {
            let mut faults = self.0.faults.lock();
            let fate = if faults.are_on { self.below(12) } else { u64::MAX };
            faults.is_full |= fate == 0;
            if faults.is_full { 0 } else { fate }
        };
        match fate {
            0 => Err(fault("no space left on device")),
            1 => Err(fault("it came to nothing")),
            2 => {
                self.write(key, bytes[..bytes.len() / 2].to_vec());
                Err(fault("half of it is there"))
            }
            3 => {
                self.write(key, bytes);
                Err(fault("it is there, but nobody is told"))
            }
            4 => {
                self.0.faults.lock().unsynced.insert(key.to_string(), bytes);
                self.0.objects.put_opts(key, payload, options).await
            }
            _ => self.0.objects.put_opts(key, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        key: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.objects.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        if self.0.faults.lock().are_on && self.below(12) == 0 {
            return Err(fault("no answer"));
        }
        self.0.objects.get_opts(key, options).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        self.0.objects.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.0.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, _options: CopyOptions) -> Result<()> {
        let bytes = self.0.objects.get(from).await?.bytes().await?;
        self.put_opts(to, bytes.into(), PutOptions::default()).await.map(drop)
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faulty")
    }
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}

fn open(dir: tempfile::TempDir, store: &Faulty) -> Room {
    let store = BlockStore::new(Arc::new(store.clone()), None).unwrap();
    Room { disks: Disks::open_with(dir.path(), store).unwrap(), dir }
}

/// Some blocks are the same in both.
fn expected(snapshot_id: &str, index: u32) -> Vec<u8> {
    block((index as u8 + 1) * if snapshot_id == SECOND && index.is_multiple_of(2) { 20 } else { 1 })
}

/// How many blocks can't be read; those that can are right.
fn unread(room: &Room, seed: u64) -> usize {
    let mut unread = 0;
    for snapshot_id in [SNAPSHOT, SECOND] {
        for index in 0..BLOCKS {
            match room.get_block(snapshot_id, index) {
                Ok(got) => assert!(got == Some(expected(snapshot_id, index)), "seed {seed}: wrong data"),
                Err(_) => unread += 1,
            }
        }
    }
    unread
}

#[test]
fn whatever_the_store_does_nothing_wrong_is_read() {
    for seed in 0..SEEDS {
        let store = Faulty::new(seed);
        let mut room = open(tempfile::tempdir().unwrap(), &store);
        for snapshot_id in [SNAPSHOT, SECOND] {
            room.begin(snapshot_id, 1, None).unwrap();
            for index in 0..BLOCKS {
                room.put_block(snapshot_id, index, &expected(snapshot_id, index)).unwrap();
            }
            room.complete(snapshot_id).unwrap();
        }
        for _ in 0..12 {
            store.switch(true);
            for snapshot_id in [SNAPSHOT, SECOND] {
                let _ = room.store(snapshot_id);
            }
            unread(&room, seed);
            store.switch(false);
            match store.below(4) {
                0 => store.rot(),
                1 => {
                    store.lose_power();
                    let dir = room.dir;
                    drop(room.disks);
                    room = open(dir, &store);
                }
                _ => {}
            }
            // Layers are there, and the store does its work again.
            assert_eq!(unread(&room, seed), 0, "seed {seed}");
        }
        store.lose_power();
        for snapshot_id in [SNAPSHOT, SECOND] {
            while room.store(snapshot_id).unwrap() < 100 {}
        }
        store.rot();
        room.drop_layers().unwrap();
        assert!(!room.files().iter().any(|file| file.starts_with("layers")), "seed {seed}");
        assert_eq!(unread(&room, seed), 0, "seed {seed}: it was looked at before the layers went");
        // From here on there is no other copy.
        store.rot();
        let dir = room.dir;
        drop(room.disks);
        room = open(dir, &store);
        let is_made = |(volume_id, snapshot_id)| room.ensure(volume_id, 1, Some(snapshot_id), None).is_ok();
        let is_whole = [(VOLUME, SNAPSHOT), (OTHER, SECOND)].iter().all(|pair| is_made(*pair)) && {
            let filled = std::iter::repeat_with(|| room.fill(1));
            filled.take_while(|filled| !matches!(filled, Ok(Fill::Nothing))).all(|filled| filled.is_ok())
        };
        assert_eq!(is_whole, unread(&room, seed) == 0, "seed {seed}");
    }
}
