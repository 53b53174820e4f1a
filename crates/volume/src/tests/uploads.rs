//! Snapshots that are written block by block.

use super::*;

#[test]
fn a_snapshot_holds_what_was_put_and_nothing_after_it_is_sealed() {
    let room = Room::new();
    room.begin(SNAPSHOT, 1, None).unwrap();
    room.begin(SNAPSHOT, 1, None).unwrap();
    assert!(is_invalid(room.begin(SNAPSHOT, 2, None)), "of another size");
    for index in [7, 2, 2047] {
        room.put_block(SNAPSHOT, index, &block(1)).unwrap();
    }
    room.put_block(SNAPSHOT, 7, &block(7)).unwrap();
    assert!(is_invalid(room.put_block(SNAPSHOT, 0, &[1, 2, 3])), "not a whole block");
    assert!(is_invalid(room.put_block(SNAPSHOT, 2048, &block(1))), "beyond the end");
    assert_eq!(room.list_blocks(SNAPSHOT, 0, 10).unwrap(), [2, 7, 2047]);
    assert!(is_not_found(room.ensure(VOLUME, 8, Some(SNAPSHOT), None)), "not sealed yet");

    let room = room.reopen();
    room.complete(SNAPSHOT).unwrap();
    room.complete(SNAPSHOT).unwrap();
    room.begin(SNAPSHOT, 1, None).unwrap();
    assert!(is_invalid(room.begin(SNAPSHOT, 2, None)), "of another size");
    assert!(is_invalid(room.put_block(SNAPSHOT, 3, &block(3))));
    let files = [format!("layers/{SNAPSHOT}.0.raw"), format!("snapshots/{SNAPSHOT}.json")];
    assert_eq!(room.files(), files);
    assert_eq!(room.list_blocks(SNAPSHOT, 3, 1).unwrap(), [7]);
    assert_eq!(room.list_blocks(SNAPSHOT, 8, 10).unwrap(), [2047]);
    assert_eq!(room.get_block(SNAPSHOT, 7).unwrap(), Some(block(7)));
    assert_eq!(room.get_block(SNAPSHOT, 6).unwrap(), None);
    assert!(is_invalid(room.get_block(SNAPSHOT, 2048)));
}

#[test]
fn neighbouring_blocks_are_all_listed() {
    let room = Room::new();
    room.begin(SNAPSHOT, 1, None).unwrap();
    for index in 10..20 {
        room.put_block(SNAPSHOT, index, &block(1)).unwrap();
    }
    assert_eq!(room.list_blocks(SNAPSHOT, 0, 100).unwrap(), (10..20).collect::<Vec<u32>>());
    assert_eq!(room.list_blocks(SNAPSHOT, 15, 3).unwrap(), [15, 16, 17]);
}

#[test]
fn a_snapshot_that_a_crash_left_without_its_size_is_begun_again() {
    let room = Room::new();
    fs::write(room.path(&format!("snapshots/{SNAPSHOT}.pending")), "").unwrap();
    let room = room.reopen();
    room.begin(SNAPSHOT, 1, None).unwrap();
    room.put_block(SNAPSHOT, 2047, &block(1)).unwrap();
}

#[test]
fn only_ids_become_names_and_sizes_are_bounded() {
    let room = Room::new();
    for id in ["", "../../etc", "snap-0123456789abcdef0/x", VOLUME] {
        assert!(is_invalid(room.begin(id, 1, None)), "{id}");
        assert!(is_invalid(room.complete(id)), "{id}");
        assert!(is_invalid(room.delete_snapshot(id)), "{id}");
        assert!(is_invalid(room.begin_freeze(&[(id, VOLUME)], None)), "{id}");
    }
    assert!(is_invalid(room.ensure("vol-../x", 1, None, None)));
    for size in [0, 65537] {
        assert!(is_invalid(room.begin(SNAPSHOT, size, None)));
        assert!(is_invalid(room.ensure(VOLUME, size, None, None)));
    }
    assert!(is_not_found(room.complete(SNAPSHOT)));
    assert!(is_not_found(room.put_block(SNAPSHOT, 0, &block(0))));
    assert!(is_not_found(room.get_block(SNAPSHOT, 0)));
    assert!(is_not_found(room.begin_freeze(&[(SNAPSHOT, VOLUME)], None)));
    assert!(room.files().is_empty());
}

#[test]
fn a_pending_snapshot_is_deleted_with_its_blocks() {
    let room = Room::new();
    room.begin(SNAPSHOT, 1, None).unwrap();
    room.put_block(SNAPSHOT, 1, &block(1)).unwrap();
    room.delete_snapshot(SNAPSHOT).unwrap();
    assert!(room.files().is_empty());
}
