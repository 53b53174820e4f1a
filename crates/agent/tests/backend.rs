//! What a backend for disks must keep to, whatever is below it: one set of tests for all there are.

#![allow(clippy::unwrap_used)]

use agent::{Backend, LocalDisks, MemorySnapshots};
use agent_api::{BLOCK_BYTES, ChangedBlock, HostError, NewSnapshot, SecretKey, SnapshotStore, Volume};
use host::machine::DiskFormat;
use model::{Id, Kind};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

fn block(content: u32) -> Vec<u8> {
    let mut data = vec![0; BLOCK_BYTES];
    data[..4].copy_from_slice(&content.to_le_bytes());
    data
}

fn snapshot_id(number: u32) -> Id {
    Id::parse(Kind::Snapshot, &format!("snap-{number:017x}")).unwrap()
}

fn volume_id(number: u32) -> Id {
    Id::parse(Kind::Volume, &format!("vol-{number:017x}")).unwrap()
}

fn wanted(number: u32, snapshot_id: Option<Id>, size_gib: u32) -> Volume {
    Volume {
        volume_id: volume_id(number),
        generation: 1,
        size_gib,
        snapshot_id,
        made: false,
        key: None,
        snapshot_key: None,
        multi_attach: None,
        initialization_mibps: None,
    }
}

fn backends() -> (TempDir, Vec<Arc<dyn Backend>>) {
    let dir = tempfile::tempdir().unwrap();
    let local = LocalDisks(Arc::new(volume::Disks::open(dir.path()).unwrap()));
    (dir, vec![Arc::new(local)])
}

fn stores() -> (TempDir, Vec<Arc<dyn SnapshotStore>>) {
    let (dir, backends) = backends();
    let of_backends = backends.into_iter().map(|backend| backend as Arc<dyn SnapshotStore>);
    let mut stores: Vec<Arc<dyn SnapshotStore>> = of_backends.collect();
    stores.push(Arc::new(MemorySnapshots::new()));
    (dir, stores)
}

/// A sealed one of 1 GiB with these blocks, stored.
async fn uploaded(store: &dyn SnapshotStore, number: u32, blocks: &[(u32, u32)]) -> Id {
    uploaded_with(store, number, blocks, None).await
}

/// Encrypted, with a key.
async fn uploaded_with(
    store: &dyn SnapshotStore,
    number: u32,
    blocks: &[(u32, u32)],
    key: Option<&SecretKey>,
) -> Id {
    let id = snapshot_id(number);
    store.begin(&id, 1, key).await.unwrap();
    for (index, content) in blocks {
        store.put_block(&id, *index, &block(*content)).await.unwrap();
    }
    store.complete(&id).await.unwrap();
    stored(store, &id).await;
    id
}

async fn stored(store: &dyn SnapshotStore, id: &Id) {
    while store.store(id).await.unwrap() < 100 {}
}

async fn snapshot(backend: &dyn Backend, snapshots: &[(u32, &Id)]) {
    let new = |(number, volume_id): &(u32, &Id)| NewSnapshot {
        snapshot_id: snapshot_id(*number),
        volume_id: (*volume_id).clone(),
    };
    let snapshots: Vec<NewSnapshot> = snapshots.iter().map(new).collect();
    let freeze = backend.begin_freeze(&snapshots, None).await.unwrap().unwrap();
    backend.finish_freeze(&freeze.key).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_holds_what_was_put_and_nothing_after_it_is_sealed() {
    let (_dir, stores) = stores();
    for store in stores {
        let (one, other) = (snapshot_id(1), snapshot_id(2));
        store.begin(&one, 1, None).await.unwrap();
        store.put_block(&one, 7, &block(1)).await.unwrap();
        store.put_block(&one, 2, &block(2)).await.unwrap();
        store.begin(&one, 1, None).await.unwrap();
        store.put_block(&one, 7, &block(3)).await.unwrap();
        assert!(store.put_block(&one, 0, &[1, 2, 3]).await.is_err(), "not a whole block");
        assert!(store.put_block(&one, 2048, &block(1)).await.is_err(), "beyond the volume's end");
        store.complete(&one).await.unwrap();
        store.complete(&one).await.unwrap();
        assert!(store.put_block(&one, 3, &block(1)).await.is_err());
        assert_eq!(store.list_blocks(&one, 0, 10).await.unwrap(), [2, 7]);
        assert_eq!(store.list_blocks(&one, 0, 1).await.unwrap(), [2]);
        assert_eq!(store.list_blocks(&one, 3, 10).await.unwrap(), [7]);
        assert_eq!(store.get_block(&one, 7).await.unwrap(), Some(block(3)));
        assert_eq!(store.get_block(&one, 8).await.unwrap(), None);
        assert!(matches!(store.get_block(&other, 0).await, Err(HostError::NotFound(_))));
    }
}

#[tokio::test]
async fn snapshots_are_told_apart_block_by_block_and_outlive_each_other() {
    let (_dir, stores) = stores();
    for store in stores {
        let one = uploaded(&*store, 1, &[(0, 10), (1, 11), (2, 12)]).await;
        let other = uploaded(&*store, 2, &[(0, 10), (1, 99), (5, 15)]).await;
        let copy = snapshot_id(3);
        store.copy(&one, &copy, None).await.unwrap();
        store.copy(&one, &copy, None).await.unwrap();
        stored(&*store, &copy).await;
        let changed = |index, in_first, in_second| ChangedBlock { index, in_first, in_second };
        let all = [changed(1, true, true), changed(2, true, false), changed(5, false, true)];
        assert_eq!(store.list_changed_blocks(&one, &other, 0, 10).await.unwrap(), all);
        assert_eq!(store.list_changed_blocks(&one, &other, 2, 1).await.unwrap(), all[1..2]);
        assert_eq!(store.list_changed_blocks(&one, &copy, 0, 10).await.unwrap(), []);
        assert_eq!(store.keep_near(&copy, false).await.unwrap(), 100);

        store.delete(&one).await.unwrap();
        store.delete(&one).await.unwrap();
        assert!(matches!(store.get_block(&one, 0).await, Err(HostError::NotFound(_))));
        for (id, index, content) in [(&copy, 1, 11), (&copy, 2, 12), (&other, 0, 10), (&other, 1, 99)] {
            assert_eq!(store.get_block(id, index).await.unwrap(), Some(block(content)));
        }
    }
}

#[tokio::test]
async fn a_volume_of_a_snapshot_and_snapshots_of_it_may_go_in_any_order() {
    let (_dir, backends) = backends();
    for backend in backends {
        let first = uploaded(&*backend, 1, &[(0, 10), (2047, 11)]).await;
        let (one, two) = (wanted(1, Some(first.clone()), 2), wanted(2, None, 1));
        for volume in [&one, &two, &one] {
            backend.ensure(volume).await.unwrap();
        }
        let mut there = backend.list().await.unwrap();
        there.sort();
        assert_eq!(there, [one.volume_id.clone(), two.volume_id.clone()]);
        let larger = Volume { size_gib: 3, ..one.clone() };
        backend.ensure(&larger).await.unwrap();
        assert!(!backend.open(&one.volume_id).await.unwrap().layers.is_empty());

        // Of one moment, once.
        snapshot(&*backend, &[(2, &one.volume_id), (3, &two.volume_id)]).await;
        let again = NewSnapshot { snapshot_id: snapshot_id(2), volume_id: one.volume_id.clone() };
        let and = NewSnapshot { snapshot_id: snapshot_id(3), volume_id: two.volume_id.clone() };
        assert_eq!(backend.begin_freeze(&[again, and], None).await.unwrap(), None);
        assert_eq!(backend.freezes().await.unwrap(), []);
        let (second, empty) = (snapshot_id(2), snapshot_id(3));

        // Begun and undone leaves no snapshot.
        let new = NewSnapshot { snapshot_id: snapshot_id(4), volume_id: two.volume_id.clone() };
        let freeze = backend.begin_freeze(std::slice::from_ref(&new), None).await.unwrap().unwrap();
        assert_eq!(backend.freezes().await.unwrap(), std::slice::from_ref(&freeze));
        backend.undo_freeze(&freeze.key).await.unwrap();
        assert!(matches!(backend.get_block(&new.snapshot_id, 0).await, Err(HostError::NotFound(_))));

        SnapshotStore::delete(&*backend, &first).await.unwrap();
        assert!(backend.list_blocks(&empty, 0, 10).await.unwrap().is_empty());
        for is_there in [true, false] {
            assert_eq!(backend.list_blocks(&second, 0, 10).await.unwrap(), [0, 2047]);
            assert_eq!(backend.get_block(&second, 2047).await.unwrap(), Some(block(11)));
            if is_there {
                for volume in [&one, &two] {
                    agent::Disks::delete(&*backend, &volume.volume_id).await.unwrap();
                    agent::Disks::delete(&*backend, &volume.volume_id).await.unwrap();
                }
                stored(&*backend, &second).await;
                backend.tidy(0).await.unwrap();
            }
        }
        assert_eq!(backend.list().await.unwrap(), []);
        let lost = Volume { made: true, ..one };
        assert!(backend.ensure(&lost).await.is_err(), "it was made, and is gone");
    }
}

/// Of a snapshot that is not near: encrypted or not, and with another key than the snapshot's.
#[tokio::test]
async fn a_volume_is_read_before_all_of_it_is_there() {
    let [one, other] = [1, 2].map(|byte| Some(SecretKey::from([byte; SecretKey::BYTES])));
    for (from, to) in [(&None, &None), (&one, &one), (&one, &other), (&None, &one)] {
        let (_dir, backends) = backends();
        for backend in backends {
            let blocks = [(0, 10), (3, 13), (2047, 11)];
            let source = uploaded_with(&*backend, 1, &blocks, from.as_ref()).await;
            backend.tidy(100).await.unwrap();
            let volume = wanted(1, Some(source.clone()), 2);
            let volume = Volume { key: to.clone(), snapshot_key: from.clone(), ..volume };
            backend.ensure(&volume).await.unwrap();
            SnapshotStore::delete(&*backend, &source).await.unwrap();
            if let Some(layer) = served(&*backend, &volume.volume_id).await {
                let volume_ids = [volume.volume_id.clone()].into();
                let layer = backend.read_layer(&volume_ids, &layer).await.unwrap().unwrap();
                assert_eq!((layer.content.size(), layer.is_whole), (1 << 30, false));
                let read = tokio::task::spawn_blocking(move || {
                    let mut data = block(0);
                    layer.content.read(3 * BLOCK_BYTES as u64, &mut data).map(|()| data)
                });
                assert_eq!(read.await.unwrap().unwrap(), block(13));
            }
            while !backend.unfilled().await.unwrap().is_empty() {
                backend.fill(1).await.unwrap();
            }
            assert_eq!(served(&*backend, &volume.volume_id).await, None);
            snapshot(&*backend, &[(2, &volume.volume_id)]).await;
            let taken = snapshot_id(2);
            assert_eq!(backend.list_blocks(&taken, 0, 10).await.unwrap(), [0, 3, 2047]);
            assert_eq!(backend.get_block(&taken, 2047).await.unwrap(), Some(block(11)));
        }
    }
}

/// A file system of 4 MiB, until it is dropped.
struct Small(TempDir);

impl Small {
    fn new() -> Small {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "small"]).arg(dir.path());
        assert!(mount.status().unwrap().success());
        Small(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_room_for_is_read_all_the_same() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let small = Small::new();
    let backend: &dyn Backend = &LocalDisks(Arc::new(volume::Disks::open(small.0.path()).unwrap()));
    let source = uploaded(backend, 1, &[(3, 13)]).await;
    backend.tidy(100).await.unwrap();
    let volume = wanted(1, Some(source), 1);
    backend.ensure(&volume).await.unwrap();
    let layer = served(backend, &volume.volume_id).await.unwrap();
    let layer = backend.read_layer(&[volume.volume_id].into(), &layer).await.unwrap().unwrap();
    let read = || {
        let mut data = block(0);
        layer.content.read(3 * BLOCK_BYTES as u64, &mut data).map(|()| data).map_err(|error| error.kind())
    };
    let other = small.0.path().join("other");
    assert!(std::fs::write(&other, vec![1; 4 << 20]).is_err(), "the disk is full");
    tokio::task::block_in_place(|| {
        assert_eq!(read(), Ok(block(13)));
        std::fs::remove_file(other).unwrap();
        assert_eq!(read(), Ok(block(13)));
    });
}

/// The name of the layer that a machine reads from us.
async fn served(backend: &dyn Backend, volume_id: &Id) -> Option<String> {
    let layers = backend.open(volume_id).await.unwrap().layers;
    let layer = layers.into_iter().find(|layer| layer.format == DiskFormat::Served)?;
    Some(layer.path.file_stem().unwrap().to_str().unwrap().to_owned())
}
