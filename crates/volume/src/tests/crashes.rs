//! Everything ends at every step, and goes on from there.

use super::*;
use crate::durable::crash_after;
use model::SecretKey;

/// Runs `act` with a crash after each number of steps until one comes to its end; `check` sees what each left.
fn at_every_step(prepare: impl Fn() -> Room, act: impl Fn(&Room) -> bool, check: impl Fn(Room, bool)) {
    for steps in 0.. {
        let room = prepare();
        crash_after(Some(steps));
        let is_done = act(&room);
        crash_after(None);
        check(room.reopen(), is_done);
        if is_done {
            assert!(steps > 2, "it was not crashed");
            return;
        }
    }
}

#[test]
fn a_volume_is_whole_or_absent() {
    if !has_qemu() {
        return;
    }
    let key = &encrypted::key(1);
    // With a key its layer is one more, that of the snapshot copied.
    for (snapshot, key, more) in
        [(None, None, 2), (Some(SNAPSHOT), None, 2), (None, Some(key), 2), (Some(SNAPSHOT), Some(key), 3)]
    {
        at_every_step(
            || Room::new().with_snapshot(),
            |room| room.ensure(VOLUME, 1, snapshot, key).is_ok(),
            |room, is_done| {
                let there = room.volumes() == [VOLUME];
                assert!(there || !is_done);
                assert_eq!(room.files().len(), if there { 2 + more } else { 2 }, "{:?}", room.files());
                let disk = room.ensure(VOLUME, 1, snapshot, key).unwrap();
                assert!(qemu_io(&disk, &["write -P 1 0 4k", "read -P 1 0 4k"]));
            },
        );
    }
}

#[test]
fn an_upload_is_pending_or_sealed() {
    sealed_or_not(None);
    sealed_or_not(Some(&encrypted::key(1)));
}

fn sealed_or_not(key: Option<&SecretKey>) {
    at_every_step(
        || {
            let room = Room::new();
            room.begin(SNAPSHOT, 1, key).unwrap();
            room.put_block(SNAPSHOT, 3, &block(3)).unwrap();
            room
        },
        |room| room.complete(SNAPSHOT).is_ok(),
        |room, is_done| {
            key.into_iter().for_each(|key| room.tell(key));
            assert_eq!(room.get_block(SNAPSHOT, 3).unwrap(), Some(block(3)));
            assert!(!is_done || is_invalid(room.put_block(SNAPSHOT, 3, &block(4))));
            room.complete(SNAPSHOT).unwrap();
            assert_eq!(room.files().len(), 2, "{:?}", room.files());
        },
    );
}

/// Two volumes that a machine writes to: it puts the new layers on top if it comes to that, and goes on writing.
#[test]
fn snapshots_are_all_there_or_none_and_no_write_is_lost() {
    if !has_qemu() {
        return;
    }
    let both = [(SNAPSHOT, VOLUME), (SECOND, OTHER)];
    let volumes = |room: &Room| [VOLUME, OTHER].map(|id| room.disk(id).unwrap());
    let write = |disks: &[VolumeDisk], what: &str| {
        disks.iter().for_each(|disk| assert!(qemu_io(disk, &[what])));
    };
    at_every_step(
        || {
            let room = Room::new();
            room.ensure(VOLUME, 1, None, None).unwrap();
            room.ensure(OTHER, 1, None, None).unwrap();
            write(&volumes(&room), "write -P 1 0 1m");
            room
        },
        |room| {
            let machine = volumes(room);
            let Ok(begun) = room.begin_freeze(&both, Some("i-1")) else {
                // It never heard of a snapshot.
                write(&machine, "write -P 2 512k 512k");
                return false;
            };
            let freeze = begun.unwrap();
            let machine: Vec<_> = freeze.volumes.iter().map(|frozen| frozen.disk.clone()).collect();
            write(&machine, "write -P 2 512k 512k");
            room.finish_freeze(&freeze.key).is_ok()
        },
        |room, is_done| {
            for freeze in room.freezes().unwrap() {
                assert!(!is_done);
                room.finish_freeze(&freeze.key).unwrap();
            }
            for disk in volumes(&room) {
                assert!(qemu_io(&disk, &["read -P 1 0 512k", "read -P 2 512k 512k"]));
            }
            let held = both.map(|(id, _)| room.get_block(id, 0).ok());
            assert_eq!(held[0].is_some(), held[1].is_some(), "one without the other");
            assert!(held[0].is_some() || !is_done);
            if is_done {
                assert_eq!(room.get_block(SNAPSHOT, 1).unwrap(), Some(block(1)), "from before");
            }
            for id in [VOLUME, OTHER] {
                room.delete(id).unwrap();
            }
            both.iter().for_each(|(id, _)| room.delete_snapshot(id).unwrap());
            assert!(room.files().is_empty(), "{:?}", room.files());
        },
    );
}

#[test]
fn an_undone_snapshot_leaves_nothing_that_matters() {
    if !has_qemu() {
        return;
    }
    at_every_step(
        || {
            let room = Room::new();
            room.ensure(VOLUME, 1, None, None).unwrap();
            assert!(qemu_io(&room.disk(VOLUME).unwrap(), &["write -P 1 0 1m"]));
            room.begin_freeze(&[(SNAPSHOT, VOLUME)], Some("i-1")).unwrap();
            room
        },
        |room| room.undo_freeze(SNAPSHOT).is_ok(),
        |room, _| {
            assert!(qemu_io(&room.disk(VOLUME).unwrap(), &["read -P 1 0 1m", "write -P 2 0 4k"]));
            let is_under_way = !room.freezes().unwrap().is_empty();
            let layers = room.disk(VOLUME).unwrap().layers.len();
            assert_eq!(layers, if is_under_way { 2 } else { 1 }, "the machine writes to the first");
            room.freezes().unwrap().iter().for_each(|freeze| room.finish_freeze(&freeze.key).unwrap());
            room.snapshot(SNAPSHOT, VOLUME);
            assert_eq!(room.list_blocks(SNAPSHOT, 0, 9).unwrap(), [0, 1]);
            let layers = room.files().iter().filter(|file| file.starts_with("layers")).count();
            assert_eq!(layers, room.disk(VOLUME).unwrap().layers.len(), "{:?}", room.files());
        },
    );
}

#[test]
fn what_is_deleted_goes_whole_and_nothing_else_does() {
    if !has_qemu() {
        return;
    }
    at_every_step(
        || {
            let room = Room::new().with_snapshot();
            room.ensure(VOLUME, 1, Some(SNAPSHOT), None).unwrap();
            assert!(qemu_io(&room.disk(VOLUME).unwrap(), &["write -P 1 0 4k"]));
            room.snapshot(SECOND, VOLUME);
            room
        },
        |room| room.delete(VOLUME).is_ok() && room.delete_snapshot(SNAPSHOT).is_ok(),
        |room, _| {
            assert_eq!(room.list_blocks(SECOND, 0, 9).unwrap(), [0, 3]);
            room.delete(VOLUME).unwrap();
            room.delete_snapshot(SNAPSHOT).unwrap();
            room.delete_snapshot(SECOND).unwrap();
            assert!(room.files().is_empty(), "{:?}", room.files());
        },
    );
}
