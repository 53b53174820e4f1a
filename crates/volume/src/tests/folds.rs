//! Chains that are made short.

use super::*;
use crate::durable::crash_after;
use model::SecretKey;

const SNAPSHOTS: u32 = 17;

fn snapshot_id(number: u32) -> String {
    format!("snap-{number:017x}")
}

/// A volume over an upload with so many snapshots that it is to be folded, and what QEMU must find in it.
fn long(key: Option<&SecretKey>) -> (Room, Vec<String>) {
    let room = Room::new();
    room.begin(SNAPSHOT, 1, key).unwrap();
    room.put_block(SNAPSHOT, 3, &block(3)).unwrap();
    room.complete(SNAPSHOT).unwrap();
    room.ensure(VOLUME, 4, Some(SNAPSHOT), key).unwrap();
    let mut expected = vec!["read -P 3 1540k 4k".to_owned()];
    for number in 1..=SNAPSHOTS {
        let mut commands = vec![
            // Part of a cluster, each in a place of its own; one that all overwrite; beyond the first table.
            format!("write -P {number} {}k 4k", 2048 + 20 * number),
            format!("write -P {number} 8m 512k"),
            format!("write -P {number} {}k 12k", 3 * 1024 * 1024 + 4 * number),
        ];
        if number == 5 {
            commands.push("write -P 5 1920k 4k".into());
        }
        if number == 9 {
            commands.extend([
                "write -z 1536k 4k".into(),
                "write -z 1920k 4k".into(),
                "discard 16m 1m".into(),
            ]);
        }
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        assert!(qemu_io(&room.disk(VOLUME).unwrap(), &commands));
        room.snapshot(&snapshot_id(number), VOLUME);
        expected.push(format!("read -P {number} {}k 4k", 2048 + 20 * number));
        expected.push(format!("read -P {number} {}k 4k", 3 * 1024 * 1024 + 4 * number));
    }
    expected.extend([
        format!("read -P {SNAPSHOTS} 8m 512k"),
        "read -P 0 1536k 4k".into(),
        "read -P 0 1920k 4k".into(),
        "read -P 0 16m 1m".into(),
        "read -P 0 2g 1m".into(),
    ]);
    (room, expected)
}

fn check(room: &Room, expected: &[String]) {
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    assert!(qemu_io(&room.disk(VOLUME).unwrap(), &expected));
    let last = snapshot_id(SNAPSHOTS);
    assert!(room.get_block(&last, 16).unwrap() == Some(block(SNAPSHOTS as u8)));
    let mut blocks = Vec::new();
    for number in [1, 4, 9, 17] {
        blocks.push(room.list_blocks(&snapshot_id(number), 0, 99).unwrap().len());
    }
    assert!(blocks.is_sorted() && blocks[0] > 3, "{blocks:?}");
}

#[test]
fn a_long_chain_is_folded_and_holds_the_same() {
    if !has_qemu() {
        return;
    }
    folded(None);
    folded(Some(&encrypted::key(1)));
}

fn folded(key: Option<&SecretKey>) {
    let (room, expected) = long(key);
    let before = room.disk(VOLUME).unwrap().layers;
    assert_eq!(before.len(), 2 + SNAPSHOTS as usize);
    room.fold(VOLUME).unwrap();
    let after = room.disk(VOLUME).unwrap().layers;
    assert!(after.len() < 8, "{after:?}");
    assert_eq!(after[0], before[0]);
    let merged = after.iter().find(|layer| !before.contains(layer)).unwrap();
    qemu_check(merged, &room.disk(VOLUME).unwrap());
    check(&room, &expected);
    room.fold(VOLUME).unwrap();
    assert_eq!(room.disk(VOLUME).unwrap().layers, after, "short enough");
    // A snapshot made since is of the short chain, and all else goes without it.
    room.snapshot(SECOND, VOLUME);
    let room = room.reopen();
    key.into_iter().for_each(|key| room.tell(key));
    let last = snapshot_id(SNAPSHOTS);
    let listed = room.list_blocks(&last, 0, 999).unwrap();
    assert_eq!(room.list_blocks(SECOND, 0, 999).unwrap(), listed);
    for index in listed {
        assert!(room.get_block(SECOND, index).unwrap() == room.get_block(&last, index).unwrap(), "{index}");
    }
    (1..=SNAPSHOTS).for_each(|number| room.delete_snapshot(&snapshot_id(number)).unwrap());
    room.delete_snapshot(SNAPSHOT).unwrap();
    let layers = room.files().iter().filter(|file| file.starts_with("layers")).count();
    assert_eq!(layers, room.disk(VOLUME).unwrap().layers.len());
    assert!(room.get_block(SECOND, 16).unwrap() == Some(block(SNAPSHOTS as u8)));
}

#[test]
fn a_crash_while_folding_changes_nothing() {
    if !has_qemu() {
        return;
    }
    let (mut room, expected) = long(None);
    for steps in 0.. {
        crash_after(Some(steps));
        let is_done = room.fold(VOLUME).is_ok();
        crash_after(None);
        room = room.reopen();
        check(&room, &expected);
        if is_done {
            assert!(steps > 3);
            return;
        }
    }
}

#[test]
fn a_snapshot_that_is_under_way_is_left_alone() {
    if !has_qemu() {
        return;
    }
    let (room, _) = long(None);
    let freeze = room.begin_freeze(&[(SECOND, VOLUME)], None).unwrap().unwrap();
    let before = room.disk(VOLUME).unwrap();
    room.fold(VOLUME).unwrap();
    assert_eq!(room.disk(VOLUME).unwrap(), before);
    room.finish_freeze(&freeze.key).unwrap();
    assert!(room.get_block(SECOND, 16).unwrap().is_some());
}

#[test]
fn what_a_machine_still_writes_to_is_not_merged() {
    if !has_qemu() {
        return;
    }
    let (room, mut expected) = long(None);
    let of_machine = room.disk(VOLUME).unwrap();
    let freeze = room.begin_freeze(&[(SECOND, VOLUME)], None).unwrap().unwrap();
    std::thread::scope(|scope| {
        let work = room.work_on(&[VOLUME]);
        let folding = scope.spawn(|| room.fold(VOLUME));
        // The machine, which has not put the new layer on top yet.
        assert!(qemu_io(&of_machine, &["write -P 99 24m 4k"]));
        room.finish_freeze(&freeze.key).unwrap();
        drop(work);
        folding.join().unwrap().unwrap();
    });
    assert!(room.disk(VOLUME).unwrap().layers.len() < 8);
    expected.push("read -P 99 24m 4k".to_owned());
    check(&room, &expected);
}
