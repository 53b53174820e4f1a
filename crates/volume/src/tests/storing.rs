//! Snapshots in the block store: what of them is there, when it goes, and what is damaged.

use super::*;
use crate::ChangedBlock;
use crate::durable::crash_after;
use std::time::Duration;

const THIRD: &str = "snap-0123456789abcdef3";

impl Room {
    fn stored(self, snapshot_id: &str) -> Room {
        self.store_whole(snapshot_id);
        self
    }

    fn store_whole(&self, snapshot_id: &str) {
        while self.store(snapshot_id).unwrap() < 100 {}
    }

    /// Files of blocks in the store.
    pub(super) fn kept(&self) -> Vec<PathBuf> {
        let mut kept = Vec::new();
        for part in fs::read_dir(self.path("blocks/data")).into_iter().flatten() {
            let files = fs::read_dir(part.unwrap().path()).unwrap();
            kept.extend(files.map(|file| file.unwrap().path()));
        }
        kept
    }

    fn write(&self, commands: &[&str]) {
        assert!(qemu_io(&self.disk(VOLUME).unwrap(), commands));
    }

    /// A volume with two snapshots in the store, the second with two blocks changed and one gone.
    fn with_two() -> Room {
        let room = Room::new();
        room.ensure(VOLUME, 1, None, None).unwrap();
        room.write(&["write -P 1 0 512k", "write -P 2 1m 512k", "write -P 3 2m 512k"]);
        room.snapshot(SNAPSHOT, VOLUME);
        room.write(&["write -P 9 1m 4k", "discard 2m 512k", "write -P 7 64m 512k"]);
        room.snapshot(SECOND, VOLUME);
        room.stored(SNAPSHOT).stored(SECOND)
    }
}

fn collect(room: &Room) -> u64 {
    room.collect_older(Duration::ZERO).unwrap().blocks
}

fn is_damaged<T>(result: Result<T, VolumeError>) -> bool {
    result.is_err_and(|error| error.is_damaged())
}

#[test]
fn only_what_has_changed_is_stored_and_each_is_whole() {
    if !has_qemu() {
        return;
    }
    let room = Room::with_two();
    assert_eq!(room.kept().len(), 3 + 2);
    let room = room.reopen();
    assert_eq!(room.list_blocks(SNAPSHOT, 0, 9).unwrap(), [0, 2, 4]);
    assert_eq!(room.list_blocks(SECOND, 0, 9).unwrap(), [0, 2, 128]);
    assert_eq!(room.get_block(SECOND, 0).unwrap(), Some(block(1)));
    let mixed = room.get_block(SECOND, 2).unwrap().unwrap();
    assert_eq!((mixed[0], mixed[4095], mixed[4096]), (9, 9, 2));
    assert_eq!(room.get_block(SECOND, 4).unwrap(), None);
    assert!(is_invalid(room.get_block(SECOND, 2048)));
    let changed = |index, in_first, in_second| ChangedBlock { index, in_first, in_second };
    assert_eq!(
        room.list_changed_blocks(SNAPSHOT, SECOND, 0, 9).unwrap(),
        [changed(2, true, true), changed(4, true, false), changed(128, false, true)]
    );
    // With nothing changed nothing is put.
    room.snapshot(THIRD, VOLUME);
    assert!(is_invalid(room.list_changed_blocks(SECOND, THIRD, 0, 9)), "not there yet");
    room.store_whole(THIRD);
    assert_eq!(room.kept().len(), 3 + 2);
    assert!(room.list_changed_blocks(SECOND, THIRD, 0, 9).unwrap().is_empty());
}

/// As an append leaves it that came to a part of a record, with the next behind that.
#[test]
fn a_journal_with_a_torn_record_within_misleads_nobody() {
    let room = Room::new();
    room.begin(SNAPSHOT, 1, None).unwrap();
    for index in 0..10 {
        room.put_block(SNAPSHOT, index, &block(index as u8 + 1)).unwrap();
    }
    room.complete(SNAPSHOT).unwrap();
    assert!(room.store(SNAPSHOT).unwrap() < 100);
    let journal = room.files().into_iter().find(|file| file.ends_with("storing")).unwrap();
    let mut bytes = fs::read(room.path(&journal)).unwrap();
    let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let records = bytes[first..].to_vec();
    bytes.extend(&records[..20]);
    bytes.extend(&records);
    fs::write(room.path(&journal), bytes).unwrap();
    let room = room.reopen().stored(SNAPSHOT);
    assert_eq!(room.list_blocks(SNAPSHOT, 0, 99).unwrap(), Vec::from_iter(0..10));
    for index in 0..10 {
        assert_eq!(room.get_block(SNAPSHOT, index).unwrap(), Some(block(index as u8 + 1)));
    }
}

#[test]
fn what_is_damaged_is_told_and_never_given_out() {
    if !has_qemu() {
        return;
    }
    let room = Room::with_two();
    // No other copy is left.
    room.delete(VOLUME).unwrap();
    room.drop_layers().unwrap();
    let before = room.get_block(SNAPSHOT, 4).unwrap();
    for path in room.kept() {
        let good = fs::read(&path).unwrap();
        let damages =
            || [0, 4].into_iter().filter(|index| is_damaged(room.get_block(SNAPSHOT, *index))).count();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&path, &bad).unwrap();
        let of_first = damages();
        assert!(of_first <= 1);
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        assert_eq!(damages(), of_first);
        fs::remove_file(&path).unwrap();
        assert_eq!(damages(), of_first);
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(room.get_block(SNAPSHOT, 4).unwrap(), before);
    let manifest = room.path(&format!("blocks/manifests/{SECOND}"));
    let good = fs::read(&manifest).unwrap();
    fs::write(&manifest, &good[1..]).unwrap();
    let room = room.reopen();
    assert!(is_damaged(room.get_block(SECOND, 0)));
    assert!(is_damaged(room.collect_older(Duration::ZERO)), "nobody knows what it names");
    assert_eq!(room.kept().len(), 5);
    assert_eq!(room.get_block(SNAPSHOT, 0).unwrap(), Some(block(1)));
}

#[test]
fn in_whatever_order_snapshots_go_exactly_what_nobody_needs_does() {
    if !has_qemu() {
        return;
    }
    for (gone, left) in [(SNAPSHOT, SECOND), (SECOND, SNAPSHOT)] {
        let room = Room::with_two();
        assert_eq!(collect(&room), 0);
        let blocks = |room: &Room| {
            let listed = room.list_blocks(left, 0, 9).unwrap();
            listed.into_iter().map(|index| room.get_block(left, index).unwrap().unwrap()).collect::<Vec<_>>()
        };
        let before = blocks(&room);
        room.delete_snapshot(gone).unwrap();
        assert_eq!(room.collect().unwrap().blocks, 0, "too young");
        assert_eq!(collect(&room), 2);
        let room = room.reopen();
        assert!(blocks(&room) == before);
        room.delete_snapshot(left).unwrap();
        assert_eq!(collect(&room), 3);
        assert!(room.kept().is_empty());
        room.delete(VOLUME).unwrap();
        assert!(room.files().is_empty(), "{:?}", room.files());
    }
}

/// Crashed at every step, with what nobody needs collected after it: the next goes on, and nothing is missing.
#[test]
fn a_crash_while_storing_repeats_little_and_loses_nothing() {
    if !has_qemu() {
        return;
    }
    for steps in 0.. {
        let mut room = Room::new();
        room.ensure(VOLUME, 1, None, None).unwrap();
        // More than one batch.
        room.write(&["write -P 1 0 3m"]);
        room.snapshot(SNAPSHOT, VOLUME);
        room.write(&["write -P 2 1m 512k"]);
        room.snapshot(SECOND, VOLUME);
        let mut is_done = true;
        for snapshot_id in [SNAPSHOT, SECOND] {
            crash_after(Some(steps));
            is_done &= (0..3).any(|_| room.store(snapshot_id).is_ok_and(|percent| percent == 100));
            crash_after(None);
            room = room.reopen();
            assert!(collect(&room) <= 1);
            room.store_whole(snapshot_id);
        }
        assert_eq!(room.get_block(SECOND, 1).unwrap(), Some(block(1)));
        assert_eq!(room.get_block(SECOND, 2).unwrap(), Some(block(2)));
        assert_eq!(room.list_blocks(SECOND, 0, 9).unwrap(), [0, 1, 2, 3, 4, 5]);
        assert!(!room.files().iter().any(|file| file.ends_with("storing")), "{:?}", room.files());
        assert_eq!((collect(&room), room.kept().len()), (0, 2));
        if is_done {
            assert!(steps > 10);
            return;
        }
    }
}

#[test]
fn what_a_crash_leaves_of_a_put_goes() {
    let room = Room::new().with_snapshot();
    room.store_whole(SNAPSHOT);
    let whole = room.kept();
    let staged = PathBuf::from(format!("{}#1", whole[0].display()));
    fs::write(&staged, "half a blo").unwrap();
    room.collect().unwrap();
    assert!(staged.exists(), "somebody may be writing it");
    collect(&room);
    assert_eq!(room.kept(), whole);
}

#[test]
fn blocks_that_are_on_their_way_stay() {
    if !has_qemu() {
        return;
    }
    let room = Room::new();
    room.ensure(VOLUME, 1, None, None).unwrap();
    room.write(&["write -P 1 0 3m"]);
    room.snapshot(SNAPSHOT, VOLUME);
    assert!(room.store(SNAPSHOT).unwrap() < 100);
    assert_eq!(collect(&room), 0);
    let room = room.reopen();
    assert_eq!(collect(&room), 0);
    room.store_whole(SNAPSHOT);
    assert_eq!(room.get_block(SNAPSHOT, 0).unwrap(), Some(block(1)));
    // And those of the parent, which goes meanwhile.
    room.write(&["write -P 2 3m 3m"]);
    room.snapshot(SECOND, VOLUME);
    assert!(room.store(SECOND).unwrap() < 100);
    room.delete_snapshot(SNAPSHOT).unwrap();
    assert_eq!(collect(&room), 0);
    room.store_whole(SECOND);
    assert_eq!(room.get_block(SECOND, 0).unwrap(), Some(block(1)));
    // A restart forgets it: all is put again.
    room.write(&["write -P 3 6m 3m"]);
    room.snapshot(THIRD, VOLUME);
    assert!(room.store(THIRD).unwrap() < 100);
    let room = room.reopen();
    room.delete_snapshot(SECOND).unwrap();
    collect(&room);
    room.store_whole(THIRD);
    for (index, content) in [(0, 1), (6, 2), (12, 3)] {
        assert_eq!(room.get_block(THIRD, index).unwrap(), Some(block(content)));
    }
}

#[test]
fn layers_that_are_stored_make_room_and_come_back() {
    if !has_qemu() {
        return;
    }
    let room = Room::with_two();
    room.ensure(OTHER, 1, Some(SNAPSHOT), None).unwrap();
    let layers = |room: &Room| room.files().iter().filter(|file| file.starts_with("layers")).count();
    let before = layers(&room);
    room.drop_layers().unwrap();
    assert_eq!(layers(&room), before, "volumes lie over them");
    room.delete(VOLUME).unwrap();
    room.drop_layers().unwrap();
    assert_eq!(layers(&room), before - 2, "the second's own, and the volume's");
    let room = room.reopen();
    assert_eq!(room.list_blocks(SECOND, 0, 9).unwrap(), [0, 2, 128]);
    let disk = room.ensure(VOLUME, 2, Some(SECOND), None).unwrap();
    room.fill_all();
    let expected = [
        "read -P 1 0 512k",
        "read -P 9 1m 4k",
        "read -P 2 1028k 508k",
        "read -P 0 2m 512k",
        "read -P 7 64m 512k",
    ];
    assert!(qemu_io(&disk, &expected));
    // A snapshot of it needs but what differs.
    room.write(&["write -P 5 0 4k"]);
    room.snapshot(THIRD, VOLUME);
    room.store_whole(THIRD);
    assert_eq!(room.kept().len(), 6);
}

#[test]
fn a_copy_shares_all_and_stands_alone() {
    if !has_qemu() {
        return;
    }
    for is_stored in [false, true] {
        let room = Room::new().with_snapshot();
        if is_stored {
            room.store_whole(SNAPSHOT);
        }
        room.copy_snapshot(SNAPSHOT, SECOND, None).unwrap();
        room.copy_snapshot(SNAPSHOT, SECOND, None).unwrap();
        room.delete_snapshot(SNAPSHOT).unwrap();
        let room = room.reopen();
        assert_eq!(room.get_block(SECOND, 3).unwrap(), Some(block(3)));
        room.store_whole(SECOND);
        collect(&room);
        assert_eq!(room.get_block(SECOND, 3).unwrap(), Some(block(3)));
        assert!(is_not_found(room.copy_snapshot(SNAPSHOT, THIRD, None)));
    }
}
