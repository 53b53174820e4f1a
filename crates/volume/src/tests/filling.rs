//! Volumes of snapshots whose layers are gone: usable at once, and whole after a while.

use super::*;
use crate::LayerReader;
use crate::durable::crash_after;
use model::SecretKey;
use std::time::Duration;

const BLOCKS: [u32; 4] = [0, 3, 4, 2047];

/// Of what is not encrypted, and of what is.
fn each(test: impl Fn(Room, Option<&SecretKey>)) {
    for key in [None, Some(encrypted::key(1))] {
        test(Room::without_layers(key.as_ref()), key.as_ref());
    }
}

impl Room {
    /// Only the block store has its snapshot.
    fn without_layers(key: Option<&SecretKey>) -> Room {
        let room = Room::new();
        room.begin(SNAPSHOT, 1, key).unwrap();
        for index in BLOCKS {
            room.put_block(SNAPSHOT, index, &block((index % 250) as u8 + 1)).unwrap();
        }
        room.complete(SNAPSHOT).unwrap();
        while room.store(SNAPSHOT).unwrap() < 100 {}
        room.drop_layers().unwrap();
        room
    }

    fn reopen_with(self, key: Option<&SecretKey>) -> Room {
        let room = self.reopen();
        key.into_iter().for_each(|key| room.tell(key));
        room
    }

    pub(super) fn reader(&self, volume_id: &str) -> LayerReader {
        let layer = self.disk(volume_id).unwrap().layers.pop().unwrap();
        let name = layer.path.file_stem().unwrap().to_str().unwrap();
        self.read_layer(&[volume_id], name).unwrap().unwrap()
    }

    /// How many blocks' room a layer takes on the disk; one that is encrypted has headers, less than a block, and tables.
    fn taken(&self, volume_id: &str) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let layer = self.disk(volume_id).unwrap().layers.pop().unwrap();
        layer.path.metadata().unwrap().blocks() * 512 / BLOCK_BYTES as u64
    }
}

fn expected(index: u32) -> Vec<u8> {
    block(if BLOCKS.contains(&index) { (index % 250) as u8 + 1 } else { 0 })
}

fn is_right(reader: &LayerReader) -> bool {
    [0, 1, 2, 3, 4, 5, 2046, 2047].into_iter().all(|index| {
        let mut data = block(0xee);
        reader.read(u64::from(index) * BLOCK_BYTES as u64, &mut data).unwrap();
        data == expected(index)
    })
}

#[test]
fn it_is_usable_at_once_and_fetches_what_is_read() {
    each(|room, key| {
        let disk = room.ensure(VOLUME, 2, Some(SNAPSHOT), key).unwrap();
        assert!(disk.layers[1].filling.is_some());
        assert_eq!(room.taken(VOLUME), 0);
        assert_eq!(room.unfilled(), [(VOLUME.to_owned(), 4 * BLOCK_BYTES as u64, 4 * BLOCK_BYTES as u64)]);
        let reader = room.reader(VOLUME);
        assert_eq!(reader.size(), 1 << 30);
        // Over the end of a block that is there into one that is not, and out of none into the next.
        let mut across = vec![0xee; 8192];
        reader.read(BLOCK_BYTES as u64 - 4096, &mut across).unwrap();
        assert_eq!((&across[..4096], &across[4096..]), (&[1; 4096][..], &[0; 4096][..]));
        reader.read(4 * BLOCK_BYTES as u64 - 4096, &mut across).unwrap();
        assert_eq!((&across[..4096], &across[4096..]), (&[4; 4096][..], &[5; 4096][..]));
        assert_eq!(room.taken(VOLUME), 3);
        assert_eq!(room.unfilled()[0].1, BLOCK_BYTES as u64);
        assert_eq!(room.fill_all(), BLOCK_BYTES as u64, "the others were there");
        assert!(room.disk(VOLUME).unwrap().layers[1].filling.is_none() && room.unfilled().is_empty());
        assert!(is_right(&reader) && is_right(&room.reader(VOLUME)));
        assert!(!room.files().iter().any(|file| file.starts_with("filling")), "{:?}", room.files());
    });
}

#[test]
fn it_is_shared_and_its_snapshot_may_go() {
    each(|room, key| {
        room.ensure(VOLUME, 1, Some(SNAPSHOT), key).unwrap();
        room.ensure(OTHER, 1, Some(SNAPSHOT), key).unwrap();
        let layers = |volume_id| room.disk(volume_id).unwrap().layers.pop();
        assert_eq!(layers(VOLUME), layers(OTHER));
        room.delete_snapshot(SNAPSHOT).unwrap();
        assert_eq!(room.collect_older(Duration::ZERO).unwrap().blocks, 0, "they are needed");
        let room = room.reopen_with(key);
        assert!(is_right(&room.reader(OTHER)));
        room.delete(VOLUME).unwrap();
        let filled =
            std::iter::repeat_with(|| room.fill(1).unwrap()).find(|fill| !matches!(fill, Fill::Some(_)));
        assert!(matches!(filled, Some(Fill::Whole { volumes, .. }) if volumes == [OTHER]));
        assert_eq!(room.collect_older(Duration::ZERO).unwrap().blocks, 4);
        assert!(is_right(&room.reader(OTHER)));
        room.delete(OTHER).unwrap();
        assert!(room.files().is_empty(), "{:?}", room.files());
    });
}

#[test]
fn a_snapshot_that_is_kept_near_is_whole_and_stays() {
    each(|room, key| {
        while room.keep_near(SNAPSHOT, true).unwrap() < 100 {}
        let room = room.reopen_with(key);
        room.drop_layers().unwrap();
        assert!(room.ensure(VOLUME, 1, Some(SNAPSHOT), key).unwrap().layers[1].filling.is_none());
        assert!(is_right(&room.reader(VOLUME)));
        room.delete(VOLUME).unwrap();
        room.copy_snapshot(SNAPSHOT, SECOND, key).unwrap();
        assert_eq!(room.keep_near(SNAPSHOT, false).unwrap(), 100);
        room.drop_layers().unwrap();
        assert!(!room.files().iter().any(|file| file.starts_with("layers")), "{:?}", room.files());
        // A volume that was made before is told of, too.
        room.ensure(VOLUME, 1, Some(SNAPSHOT), key).unwrap();
        while room.keep_near(SNAPSHOT, true).unwrap() < 100 {}
        assert!(matches!(room.fill(1).unwrap(), Fill::Whole { volumes, .. } if volumes == [VOLUME]));
        assert_eq!(room.fill(1).unwrap(), Fill::Nothing);
    });
}

#[test]
fn a_volume_that_goes_before_it_is_whole_leaves_nothing() {
    each(|room, key| {
        room.ensure(VOLUME, 1, Some(SNAPSHOT), key).unwrap();
        let reader = room.reader(VOLUME);
        room.fill(1).unwrap();
        room.delete_snapshot(SNAPSHOT).unwrap();
        room.delete(VOLUME).unwrap();
        assert!(room.files().is_empty(), "{:?}", room.files());
        assert_eq!(room.fill(1).unwrap(), Fill::Nothing);
        // Who has it open still sees what it was.
        assert!(is_right(&reader));
    });
}

#[test]
fn a_snapshot_of_it_is_whole_too() {
    if !has_qemu() {
        return;
    }
    let room = Room::without_layers(None);
    let disk = room.ensure(VOLUME, 1, Some(SNAPSHOT), None).unwrap();
    // What is written whole needs nothing of what lies below.
    assert!(qemu_io(&disk, &["write -P 9 0 512k", "write -P 7 64m 512k"]));
    room.snapshot(SECOND, VOLUME);
    assert_eq!(room.get_block(SECOND, 3).unwrap(), Some(expected(3)));
    while room.store(SECOND).unwrap() < 100 {}
    assert_eq!(room.list_blocks(SECOND, 0, 9).unwrap(), [0, 3, 4, 128, 2047]);
    assert_eq!(room.get_block(SECOND, 0).unwrap(), Some(block(9)));
    assert_eq!(room.get_block(SECOND, 2047).unwrap(), Some(expected(2047)));
}

#[test]
fn a_damaged_block_is_told_and_keeps_no_other_from_coming() {
    each(|room, key| {
        room.ensure(VOLUME, 1, Some(SNAPSHOT), key).unwrap();
        let damaged = room.path("blocks/data");
        let mut files: Vec<PathBuf> = Vec::new();
        for part in fs::read_dir(damaged).unwrap() {
            files.extend(fs::read_dir(part.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
        }
        fs::write(&files[0], b"").unwrap();
        let fills: Vec<_> = std::iter::repeat_with(|| room.fill(1)).take(8).collect();
        assert_eq!(
            fills.iter().filter(|fill| fill.as_ref().is_err_and(|error| error.is_damaged())).count(),
            1
        );
        assert!(matches!(fills.last(), Some(Ok(Fill::Nothing))));
        let reader = room.reader(VOLUME);
        let unread = BLOCKS
            .iter()
            .filter(|index| reader.read(u64::from(**index) * BLOCK_BYTES as u64, &mut block(0)).is_err());
        assert_eq!(unread.count(), 1);
    });
}

#[test]
fn what_could_not_be_flushed_is_fetched_again() {
    each(|room, key| {
        room.ensure(VOLUME, 1, Some(SNAPSHOT), key).unwrap();
        crash_after(Some(0));
        assert!(room.fill(1).is_err());
        crash_after(None);
        assert_eq!(room.fill_all(), 4 * BLOCK_BYTES as u64);
        assert!(is_right(&room.reader(VOLUME)));
    });
}

#[test]
fn it_goes_on_after_a_crash_at_every_step() {
    let [one, other] = [1, 2].map(encrypted::key);
    for (from, to) in [(None, None), (Some(&one), Some(&one)), (Some(&one), Some(&other))] {
        let is_last = |steps| is_last_step(steps, from, to);
        assert!((0..).position(is_last).is_some_and(|steps| steps > 8), "it was not crashed");
    }
}

#[test]
fn one_that_is_whole_is_told_before_others_are() {
    let room = Room::without_layers(None);
    room.copy_snapshot(SNAPSHOT, SECOND, None).unwrap();
    room.ensure(VOLUME, 1, Some(SNAPSHOT), None).unwrap();
    room.ensure(OTHER, 1, Some(SECOND), None).unwrap();
    let fills: Vec<Fill> = std::iter::repeat_with(|| room.fill(1).unwrap()).take(6).collect();
    let told =
        fills.iter().position(|fill| matches!(fill, Fill::Whole { volumes, .. } if *volumes == [VOLUME]));
    assert_eq!(told, Some(4), "{fills:?}");
}

/// Crashes after so many steps, if there are so many, and goes on.
fn is_last_step(steps: usize, from: Option<&SecretKey>, to: Option<&SecretKey>) -> bool {
    let room = Room::without_layers(from);
    crash_after(Some(steps));
    let begun = room.ensure(VOLUME, 1, Some(SNAPSHOT), to);
    let mut is_whole = false;
    while begun.is_ok()
        && let Ok(fill) = room.fill(1)
    {
        is_whole = fill == Fill::Nothing;
        if is_whole {
            break;
        }
    }
    crash_after(None);
    let room = room.reopen_with(from);
    room.ensure(VOLUME, 1, Some(SNAPSHOT), to).unwrap();
    assert!(is_right(&room.reader(VOLUME)), "after {steps} steps");
    // It needs its own key alone.
    let room = room.reopen_with(to);
    room.fill_all();
    assert!(is_right(&room.reader(VOLUME)), "after {steps} steps");
    assert_eq!(room.files().len(), 4, "{:?}", room.files());
    is_whole
}

#[test]
fn many_may_read_while_it_is_filled() {
    each(|room, key| {
        room.ensure(VOLUME, 1, Some(SNAPSHOT), key).unwrap();
        let reader = room.reader(VOLUME);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(is_right(&reader)));
            }
            scope.spawn(|| room.fill_all());
        });
        assert!((4..=5).contains(&room.taken(VOLUME)));
    });
}
