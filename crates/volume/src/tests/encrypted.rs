//! Volumes and snapshots that are encrypted: QEMU and we read the same, and nobody else reads anything.

use super::*;
use model::SecretKey;
use std::path::Path;
use std::time::Duration;

const COPY: &str = "snap-0123456789abcdef4";
/// What a pattern of 0x6b looks like where it is not encrypted.
const MARK: [u8; 64] = [0x6b; 64];

pub(super) fn key(byte: u8) -> SecretKey {
    [byte; 32].into()
}

/// The files in which the mark is to be read. Nothing was written but where a sector begins.
fn marked(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            marked(&path, found);
        } else if fs::read(&path).unwrap().chunks(512).any(|sector| sector.starts_with(&MARK)) {
            found.push(path);
        }
    }
}

fn is_locked<T>(result: Result<T, VolumeError>) -> bool {
    matches!(result, Err(VolumeError::Locked(_)))
}

impl Room {
    fn assert_unreadable(&self) {
        let mut found = Vec::new();
        marked(self.dir.path(), &mut found);
        assert!(found.is_empty(), "{found:?}");
    }

    /// An encrypted volume, and a snapshot of it in the store.
    fn encrypted() -> Room {
        let room = Room::new();
        let disk = room.ensure(VOLUME, 1, None, Some(&key(1))).unwrap();
        assert!(qemu_io(&disk, &["write -P 0x6b 1m 512k", "write -P 0x6b 5000k 4k", "write -P 7 64m 512k"]));
        room.snapshot(SNAPSHOT, VOLUME);
        while room.store(SNAPSHOT).unwrap() < 100 {}
        room
    }

    /// How many layers a snapshot has here.
    fn layers_of(&self, snapshot_id: &str) -> usize {
        self.files().iter().filter(|file| file.starts_with(&format!("layers/{snapshot_id}"))).count()
    }

    /// It is whole after a while, for QEMU too. Nothing is to be read meanwhile.
    fn check_filled(&self, volume_id: &str) {
        let layer = || self.disk(volume_id).unwrap().layers.pop().unwrap();
        assert!(layer().filling.is_some());
        let mut part = [0; 1000];
        self.reader(volume_id).read((5000 << 10) - 100, &mut part).unwrap();
        assert!(part[..100] == [0; 100] && part[100..] == [0x6b; 900]);
        self.assert_unreadable();
        self.fill_all();
        let disk = self.disk(volume_id).unwrap();
        assert!(disk.layers.iter().all(|layer| layer.filling.is_none()));
        qemu_check(&layer(), &disk);
        assert!(qemu_io(&disk, &READ));
    }

    fn check(&self, snapshot_id: &str) {
        assert_eq!(self.list_blocks(snapshot_id, 0, 9).unwrap(), [2, 9, 128]);
        assert!(self.get_block(snapshot_id, 2).unwrap() == Some(block(0x6b)));
        assert!(self.get_block(snapshot_id, 128).unwrap() == Some(block(7)));
        let part = self.get_block(snapshot_id, 9).unwrap().unwrap();
        let at = (5000 - 9 * 512) * 1024;
        assert!(part[..at].iter().all(|byte| *byte == 0));
        assert!(part[at..at + 4096].iter().all(|byte| *byte == 0x6b));
        assert!(part[at + 4096..].iter().all(|byte| *byte == 0));
    }
}

const READ: [&str; 4] =
    ["read -P 0x6b 1m 512k", "read -P 0x6b 5000k 4k", "read -P 0 5004k 4k", "read -P 7 64m 512k"];

#[test]
fn what_qemu_writes_we_read_and_nobody_else() {
    if !has_qemu() {
        return;
    }
    let room = Room::encrypted();
    room.check(SNAPSHOT);
    room.assert_unreadable();
    let disk = room.disk(VOLUME).unwrap();
    disk.layers.iter().for_each(|layer| qemu_check(layer, &disk));
    assert!(qemu_io(&disk, &READ));
    assert!(is_invalid(room.ensure(OTHER, 1, Some(SNAPSHOT), None)), "it stays encrypted");
    assert!(is_invalid(room.copy_snapshot(SNAPSHOT, COPY, None)));
    let other = VolumeDisk { key: Some(DiskKey::Known(key(1))), ..disk };
    assert!(!qemu_io(&other, &READ), "the data key itself opens no layer");

    // After a restart, not before the key is told.
    let room = room.reopen();
    assert_eq!(room.disk(VOLUME).unwrap().key, Some(DiskKey::Untold));
    assert!(is_locked(room.get_block(SNAPSHOT, 2)));
    assert!(is_locked(room.fit(VOLUME)));
    assert!(is_locked(room.begin_freeze(&[(SECOND, VOLUME)], None)));
    room.tell(&key(2));
    assert!(is_locked(room.get_block(SNAPSHOT, 2)), "another one");
    room.tell(&key(1));
    room.check(SNAPSHOT);
    assert!(qemu_io(&room.disk(VOLUME).unwrap(), &READ));
}

/// A guest that broke out of its machine can write what it likes.
#[test]
fn whatever_a_layer_holds_it_is_read_without_harm() {
    if !has_qemu() {
        return;
    }
    let room = Room::encrypted();
    let layer = room.disk(VOLUME).unwrap().layers.pop().unwrap();
    let whole = fs::read(&layer.path).unwrap();
    for length in [whole.len() - 1, whole.len() - 505, whole.len() - 130_000, 4 << 20, 131_073, 50, 0] {
        fs::write(&layer.path, &whole[..length.min(whole.len())]).unwrap();
        // Whatever it answers, it answers.
        let _ = room.copy_snapshot(SNAPSHOT, COPY, Some(&key(2)));
        room.delete_snapshot(COPY).unwrap();
    }
}

#[test]
fn volumes_and_copies_with_the_same_key_share_all() {
    if !has_qemu() {
        return;
    }
    let room = Room::encrypted();
    let below = room.disk(VOLUME).unwrap().layers[1..].to_vec();
    let other = room.ensure(OTHER, 4, Some(SNAPSHOT), Some(&key(1))).unwrap();
    assert_eq!(other.layers[1..], below);
    assert!(qemu_io(&other, &READ));
    let blocks = room.kept().len();
    room.copy_snapshot(SNAPSHOT, COPY, Some(&key(1))).unwrap();
    assert_eq!(room.store(COPY).unwrap(), 100);
    assert_eq!(room.kept().len(), blocks);
    room.check(COPY);
    // It grows, and what is written is read after the layers that can be made anew are gone.
    room.ensure(OTHER, 6, None, Some(&key(1))).unwrap();
    let grown = room.fit(OTHER).unwrap();
    assert!(qemu_io(&grown, &["write -P 0x6b 5g 64k", "read -P 0x6b 5g 64k", READ[0]]));
    room.delete(VOLUME).unwrap();
    room.delete(OTHER).unwrap();
    room.drop_layers().unwrap();
    assert!(!room.files().iter().any(|file| file.starts_with("layers")));
    room.check(SNAPSHOT);
    while room.keep_near(COPY, true).unwrap() < 100 {}
    room.drop_layers().unwrap();
    assert_eq!(room.layers_of(COPY), 1, "it is kept");
    room.ensure(VOLUME, 1, Some(SNAPSHOT), Some(&key(1))).unwrap();
    room.check_filled(VOLUME);
    room.assert_unreadable();
}

#[test]
fn with_another_key_or_none_before_all_is_encrypted_anew() {
    if !has_qemu() {
        return;
    }
    let room = Room::new();
    let plain = room.ensure(VOLUME, 1, None, None).unwrap();
    assert!(qemu_io(&plain, &["write -P 0x6b 1m 512k", "write -P 0x6b 5000k 4k", "write -P 7 64m 512k"]));
    room.snapshot(SNAPSHOT, VOLUME);
    let disk = room.ensure(OTHER, 2, Some(SNAPSHOT), Some(&key(1))).unwrap();
    assert_eq!(disk.layers.len(), 2);
    assert!(qemu_io(&disk, &READ));
    room.copy_snapshot(SNAPSHOT, SECOND, Some(&key(2))).unwrap();
    room.copy_snapshot(SECOND, COPY, Some(&key(3))).unwrap();
    room.delete(VOLUME).unwrap();
    room.delete_snapshot(SNAPSHOT).unwrap();
    room.assert_unreadable();
    for copy in [SECOND, COPY] {
        room.check(copy);
        while room.store(copy).unwrap() < 100 {}
        room.check(copy);
    }
    // Which blocks are the same nobody sees from their names.
    assert_eq!(room.kept().len(), 6);
    room.delete(OTHER).unwrap();
    room.drop_layers().unwrap();
    // From the store alone, into yet another key.
    room.copy_snapshot(COPY, SNAPSHOT, Some(&key(1))).unwrap();
    room.check(SNAPSHOT);
    room.ensure(VOLUME, 1, Some(COPY), Some(&key(3))).unwrap();
    room.check_filled(VOLUME);
    room.assert_unreadable();
}

#[test]
fn what_is_encrypted_anew_is_usable_at_once_and_needs_its_own_key_alone() {
    if !has_qemu() {
        return;
    }
    for source in [None, Some(key(1))] {
        let room = Room::new();
        let disk = room.ensure(VOLUME, 1, None, source.as_ref()).unwrap();
        assert!(qemu_io(&disk, &["write -P 0x6b 1m 512k", "write -P 0x6b 5000k 4k", "write -P 7 64m 512k"]));
        room.snapshot(SNAPSHOT, VOLUME);
        while room.store(SNAPSHOT).unwrap() < 100 {}
        room.ensure(OTHER, 9, Some(SNAPSHOT), Some(&key(2))).unwrap();
        // A copy is stored from what comes.
        room.copy_snapshot(SNAPSHOT, COPY, Some(&key(3))).unwrap();
        while room.store(COPY).unwrap() < 100 {}
        room.check(COPY);
        room.snapshot(SECOND, OTHER);
        room.delete(VOLUME).unwrap();
        room.delete_snapshot(SNAPSHOT).unwrap();
        let room = room.reopen();
        let layer = format!("{OTHER}.0");
        assert!(is_locked(room.read_layer(&[OTHER], &layer)) && is_locked(room.get_block(SECOND, 2)));
        assert_eq!(room.fill(1).unwrap(), Fill::Nothing);
        room.tell(&key(2));
        room.collect_older(Duration::ZERO).unwrap();
        room.check_filled(OTHER);
        assert!(room.reader(OTHER).is_whole());
        room.check(SECOND);
        room.fold(OTHER).unwrap();
        assert_eq!(room.unfilled(), []);
    }
}

/// What is there already is closer than the store, which need not answer.
#[test]
fn what_is_encrypted_anew_comes_from_the_layers_where_they_are() {
    let room = Room::new().with_snapshot();
    while room.store(SNAPSHOT).unwrap() < 100 {}
    fs::remove_dir_all(room.path("blocks/data")).unwrap();
    room.ensure(VOLUME, 1, Some(SNAPSHOT), Some(&key(1))).unwrap();
    room.delete_snapshot(SNAPSHOT).unwrap();
    room.fill_all();
    let mut data = block(0);
    room.reader(VOLUME).read(3 * BLOCK_BYTES as u64, &mut data).unwrap();
    assert!(data == block(3));
}

/// Blocks far from each other, and tables that lie between none.
#[test]
fn large_ones_are_filled_and_qemu_finds_every_block() {
    if !has_qemu() {
        return;
    }
    let room = Room::new();
    let blocks = [0, 1, 2047, 2048, 5 * 2048 + 7, 64 * 2048 - 1];
    room.begin(SNAPSHOT, 64, Some(&key(1))).unwrap();
    blocks
        .iter()
        .for_each(|index| room.put_block(SNAPSHOT, *index, &block((index % 200) as u8 + 1)).unwrap());
    room.complete(SNAPSHOT).unwrap();
    while room.store(SNAPSHOT).unwrap() < 100 {}
    room.drop_layers().unwrap();
    room.ensure(VOLUME, 65, Some(SNAPSHOT), Some(&key(1))).unwrap();
    // In another order than that of the list.
    room.reader(VOLUME).read(u64::from(blocks[4]) * BLOCK_BYTES as u64, &mut block(0)).unwrap();
    room.fill_all();
    let disk = room.disk(VOLUME).unwrap();
    disk.layers.iter().for_each(|layer| qemu_check(layer, &disk));
    let read = |index: &u32| format!("read -P {} {}k 512k", index % 200 + 1, u64::from(*index) * 512);
    let reads: Vec<String> = blocks.iter().map(read).collect();
    let mut reads: Vec<&str> = reads.iter().map(String::as_str).collect();
    reads.extend(["read -P 0 1m 512k", "read -P 0 3g 1m", "read -P 0 64g 1m"]);
    assert!(qemu_io(&disk, &reads));
}

#[test]
fn uploads_are_encrypted_from_the_first_block_on() {
    if !has_qemu() {
        return;
    }
    let room = Room::new();
    room.begin(SNAPSHOT, 1, Some(&key(1))).unwrap();
    room.begin(SNAPSHOT, 1, Some(&key(1))).unwrap();
    room.put_block(SNAPSHOT, 7, &block(0x6b)).unwrap();
    room.assert_unreadable();
    let room = room.reopen();
    assert!(is_locked(room.put_block(SNAPSHOT, 3, &block(1))));
    room.tell(&key(1));
    room.put_block(SNAPSHOT, 3, &block(1)).unwrap();
    assert_eq!(room.list_blocks(SNAPSHOT, 0, 9).unwrap(), [3, 7]);
    assert!(room.get_block(SNAPSHOT, 7).unwrap() == Some(block(0x6b)));
    assert_eq!(room.get_block(SNAPSHOT, 8).unwrap(), None);
    room.complete(SNAPSHOT).unwrap();
    assert_eq!(room.files(), [format!("layers/{SNAPSHOT}.0.qcow2"), format!("snapshots/{SNAPSHOT}.json")]);
    let disk = room.ensure(VOLUME, 1, Some(SNAPSHOT), Some(&key(1))).unwrap();
    assert!(qemu_io(&disk, &["read -P 0x6b 3584k 512k", "read -P 1 1536k 512k", "read -P 0 2m 1536k"]));
    room.assert_unreadable();
    room.delete_snapshot(SNAPSHOT).unwrap();
    room.begin(SECOND, 1, Some(&key(1))).unwrap();
    room.delete_snapshot(SECOND).unwrap();
    assert_eq!(room.files().len(), 3, "the volume, its layer and the one below: {:?}", room.files());
}
