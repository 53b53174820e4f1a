//! Volumes, their snapshots, and who shares what.

use super::*;

#[test]
fn an_empty_volume_takes_no_room_and_keeps_its_data() {
    let room = Room::new();
    let disk = room.ensure(VOLUME, 64, None, None).unwrap();
    let [layer] = &disk.layers[..] else { panic!("{disk:?}") };
    assert_eq!((fs::metadata(&layer.path).unwrap().len(), layer.format), (64 << 30, Format::Raw));
    fs::write(&layer.path, "data").unwrap();
    let room = room.reopen();
    assert_eq!(room.ensure(VOLUME, 64, None, None).unwrap(), disk);
    assert_eq!(fs::read(&layer.path).unwrap(), b"data");
    assert_eq!(room.volumes(), [VOLUME]);
    room.delete(VOLUME).unwrap();
    room.delete(VOLUME).unwrap();
    assert!(is_not_found(room.disk(VOLUME)));
    assert!(room.files().is_empty());
}

#[test]
fn a_volume_of_a_snapshot_holds_what_it_held_and_grows() {
    if !has_qemu() {
        return;
    }
    let room = Room::new().with_snapshot();
    assert!(is_invalid(room.ensure(OTHER, 0, Some(SNAPSHOT), None)));
    let disk = room.ensure(VOLUME, 8, Some(SNAPSHOT), None).unwrap();
    assert_eq!(disk.size, 8 << 30);
    assert!(qemu_io(&disk, &["read -P 3 1536k 512k", "read -P 0 0 1536k", "read -P 0 7g 1m"]));
    assert!(!qemu_io(&disk, &["read 8g 4k"]), "beyond the end");
    let disk = room.ensure(VOLUME, 16, Some(SNAPSHOT), None).unwrap();
    let room = room.reopen();
    assert_eq!(room.fit(VOLUME).unwrap(), disk);
    assert!(qemu_io(&disk, &["read -P 3 1536k 512k", "write -P 9 15g 4k", "read -P 9 15g 4k"]));
}

#[test]
fn a_raw_volume_grows() {
    let room = Room::new();
    room.ensure(VOLUME, 1, None, None).unwrap();
    room.ensure(VOLUME, 2, None, None).unwrap();
    let disk = room.fit(VOLUME).unwrap();
    assert_eq!(fs::metadata(&disk.layers[0].path).unwrap().len(), 2 << 30);
    assert_eq!(room.ensure(VOLUME, 1, None, None).unwrap(), disk, "never shrinks");
}

#[test]
fn a_volume_smaller_than_its_snapshot_is_refused_and_leaves_nothing() {
    let room = Room::new();
    assert!(is_not_found(room.ensure(VOLUME, 8, Some(SNAPSHOT), None)));
    room.begin(SNAPSHOT, 2, None).unwrap();
    room.complete(SNAPSHOT).unwrap();
    assert!(is_invalid(room.ensure(VOLUME, 1, Some(SNAPSHOT), None)));
    assert_eq!(room.files().len(), 2);
}

/// Each snapshot is what the volume was when it was made, and is so after the others and the volume are gone.
#[test]
fn snapshots_are_whole_by_themselves_in_whatever_order_the_others_go() {
    if !has_qemu() {
        return;
    }
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let room = Room::new();
        room.ensure(VOLUME, 1, None, None).unwrap();
        let ids = [SNAPSHOT, "snap-0123456789abcdef1", SECOND];
        for (n, id) in ids.into_iter().enumerate() {
            let write = format!("write -P {} {n}m 512k", n + 1);
            assert!(qemu_io(&room.disk(VOLUME).unwrap(), &[&write, &format!("write -P {} 64m 4k", n + 1)]));
            room.snapshot(id, VOLUME);
            room.snapshot(id, VOLUME);
        }
        assert!(qemu_io(&room.disk(VOLUME).unwrap(), &["write -P 77 0 16m", "discard 64m 1m"]));
        let check = |room: &Room, left: &[usize]| {
            for n in left {
                let blocks: Vec<u32> = (0..=*n as u32).map(|n| 2 * n).chain([128]).collect();
                assert_eq!(room.list_blocks(ids[*n], 0, 99).unwrap(), blocks);
                assert_eq!(room.get_block(ids[*n], 2 * *n as u32).unwrap(), Some(block(*n as u8 + 1)));
                let last = room.get_block(ids[*n], 128).unwrap().unwrap();
                assert_eq!((last[4095], last[4096]), (*n as u8 + 1, 0));
                // As QEMU sees it.
                let made = room.ensure(OTHER, 1, Some(ids[*n]), None).unwrap();
                assert!(qemu_io(&made, &[&format!("read -P {} 64m 4k", n + 1), "read -P 1 0 512k"]));
                room.delete(OTHER).unwrap();
            }
        };
        let mut room = room.reopen();
        check(&room, &[0, 1, 2]);
        room.delete(VOLUME).unwrap();
        for gone in 0..3 {
            room.delete_snapshot(ids[order[gone]]).unwrap();
            room = room.reopen();
            check(&room, &order[gone + 1..]);
        }
        assert!(room.files().is_empty(), "{:?}", room.files());
    }
}

#[test]
fn a_deleted_snapshot_stays_below_its_volumes_and_no_longer() {
    if !has_qemu() {
        return;
    }
    let room = Room::new().with_snapshot();
    room.ensure(VOLUME, 1, Some(SNAPSHOT), None).unwrap();
    let disk = room.ensure(OTHER, 1, Some(SNAPSHOT), None).unwrap();
    for _ in 0..2 {
        room.delete_snapshot(SNAPSHOT).unwrap();
    }
    assert!(is_not_found(room.get_block(SNAPSHOT, 3)));
    assert!(is_not_found(room.ensure("vol-00000000000000000", 1, Some(SNAPSHOT), None)));
    room.delete(VOLUME).unwrap();
    let room = room.reopen();
    assert_eq!(room.disk(OTHER).unwrap(), disk);
    assert!(qemu_io(&disk, &["read -P 3 1536k 512k"]));
    room.delete(OTHER).unwrap();
    assert!(room.files().is_empty());
}

/// What is discarded above is gone from later snapshots and stays in earlier ones.
#[test]
fn zeros_hide_what_lies_below() {
    if !has_qemu() {
        return;
    }
    let room = Room::new().with_snapshot();
    let disk = room.ensure(VOLUME, 1, Some(SNAPSHOT), None).unwrap();
    assert!(qemu_io(&disk, &["discard 1536k 512k", "write -P 5 1m 4k", "write -z 1028k 8k"]));
    room.snapshot(SECOND, VOLUME);
    assert_eq!(room.list_blocks(SECOND, 0, 9).unwrap(), [2]);
    assert_eq!(room.get_block(SECOND, 3).unwrap(), None);
    assert_eq!(room.list_blocks(SNAPSHOT, 0, 9).unwrap(), [3]);
}

#[test]
fn several_volumes_are_frozen_together_and_once() {
    if !has_qemu() {
        return;
    }
    let room = Room::new();
    room.ensure(VOLUME, 1, None, None).unwrap();
    room.ensure(OTHER, 2, None, None).unwrap();
    let both = [(SNAPSHOT, VOLUME), (SECOND, OTHER)];
    assert!(is_invalid(room.begin_freeze(&[(SNAPSHOT, VOLUME), (SECOND, VOLUME)], None)));
    let freeze = room.begin_freeze(&both, Some("i-1")).unwrap().unwrap();
    assert_eq!(room.begin_freeze(&both, Some("i-1")).unwrap().unwrap(), freeze);
    assert!(is_not_found(room.get_block(SNAPSHOT, 0)));
    assert!(is_invalid(room.begin_freeze(&[("snap-0123456789abcdef9", OTHER)], None)), "under way");
    let room = room.reopen();
    assert_eq!(room.freezes().unwrap(), std::slice::from_ref(&freeze));
    room.undo_freeze(&freeze.key).unwrap();
    assert_eq!(room.disk(VOLUME).unwrap().layers.len(), 1);
    assert_eq!(room.files().len(), 4);
    let freeze = room.begin_freeze(&both, None).unwrap().unwrap();
    room.delete_snapshot(SECOND).unwrap();
    room.finish_freeze(&freeze.key).unwrap();
    assert_eq!(room.begin_freeze(&both, None).unwrap(), None, "neither made again nor changed");
    assert!(is_not_found(room.get_block(SECOND, 0)), "deleted while it was made");
    assert!(room.freezes().unwrap().is_empty());
}

#[test]
fn one_that_is_deleted_while_it_is_finished_is_gone_for_good() {
    if !has_qemu() {
        return;
    }
    let room = Room::new();
    room.ensure(VOLUME, 1, None, None).unwrap();
    for _ in 0..50 {
        let freeze = room.begin_freeze(&[(SNAPSHOT, VOLUME)], None).unwrap().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| room.finish_freeze(&freeze.key).unwrap());
            scope.spawn(|| room.delete_snapshot(SNAPSHOT).unwrap());
        });
        assert!(is_not_found(room.get_block(SNAPSHOT, 0)));
        assert!(room.freezes().unwrap().is_empty());
        assert!(room.files().iter().all(|file| !file.starts_with("snapshots/")), "{:?}", room.files());
    }
}

#[test]
fn many_threads_make_the_same_volume_once() {
    let room = Room::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| room.ensure(VOLUME, 1, None, None).unwrap());
        }
    });
    assert_eq!(room.files().len(), 2);
}

#[test]
fn strange_files_are_left_alone_and_what_a_crash_left_is_not() {
    let room = Room::new();
    let strange = ["volumes/notes.txt", "snapshots/README", "volumes/vol-1.raw", "layers/x.raw"];
    for name in strange {
        fs::write(room.path(name), "strange").unwrap();
    }
    fs::write(room.path(&format!("volumes/{VOLUME}.json.new")), "half a he").unwrap();
    fs::write(room.path(&format!("layers/{VOLUME}.0.qcow2")), "half a lay").unwrap();
    let room = room.reopen();
    assert_eq!(room.files().len(), strange.len());
    assert!(room.volumes().is_empty());
}

/// A file that a hostile machine wrote is refused, not believed.
#[test]
fn a_layer_that_was_not_made_here_is_refused() {
    if !has_qemu() {
        return;
    }
    let room = Room::new();
    room.ensure(VOLUME, 1, None, None).unwrap();
    room.snapshot(SNAPSHOT, VOLUME);
    let disk = room.disk(VOLUME).unwrap();
    room.snapshot(SECOND, VOLUME);
    let top = &disk.layers[0].path;
    let sound = fs::read(top).unwrap();
    // Version, cluster size, encryption, an external data file, the L1 table's length and place.
    for at in [7, 23, 35, 79, 36, 40] {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x7e;
        fs::write(top, &bytes).unwrap();
        assert!(room.list_blocks(SECOND, 0, 9).is_err(), "byte {at}");
    }
    let mut bytes = sound.clone();
    bytes.truncate(50);
    fs::write(top, &bytes).unwrap();
    assert!(room.list_blocks(SECOND, 0, 9).is_err());
}
