//! Snapshots and volumes on a real file system, over crashes at every point.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use volume::{BLOCK_BYTES, Backing, Snapshots, VolumeError, Volumes};

const SNAPSHOT: &str = "snap-0123456789abcdef0";
const VOLUME: &str = "vol-0123456789abcdef0";
const OTHER: &str = "vol-0fedcba9876543210";

struct Disks {
    dir: tempfile::TempDir,
    snapshots: Arc<Snapshots>,
    volumes: Volumes,
}

impl Disks {
    fn new() -> Disks {
        let dir = tempfile::tempdir().unwrap();
        let (snapshots, volumes) = open(dir.path());
        Disks { dir, snapshots, volumes }
    }

    /// As after a crash: what is in memory is gone.
    fn reopen(self) -> Disks {
        let Disks { dir, snapshots, volumes } = self;
        drop((snapshots, volumes));
        let (snapshots, volumes) = open(dir.path());
        Disks { dir, snapshots, volumes }
    }

    fn with_snapshot(self) -> Disks {
        self.snapshots.begin(SNAPSHOT, 1).unwrap();
        self.snapshots.put_block(SNAPSHOT, 3, &block(3)).unwrap();
        self.snapshots.complete(SNAPSHOT).unwrap();
        self
    }

    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for dir in ["snapshots", "volumes"] {
            for entry in fs::read_dir(self.dir.path().join(dir)).unwrap() {
                files.push(entry.unwrap().file_name().into_string().unwrap());
            }
        }
        files.sort();
        files
    }

    fn touch(&self, path: &str) {
        fs::write(self.dir.path().join(path), "left by a crash").unwrap();
    }
}

fn open(dir: &Path) -> (Arc<Snapshots>, Volumes) {
    let snapshots = Arc::new(Snapshots::open(&dir.join("snapshots")).unwrap());
    (snapshots.clone(), Volumes::open(&dir.join("volumes"), snapshots).unwrap())
}

fn block(content: u8) -> Vec<u8> {
    vec![content; BLOCK_BYTES]
}

fn has_qemu_img() -> bool {
    let has = Command::new("qemu-img").arg("--version").output().is_ok();
    if !has {
        eprintln!("skipped: needs qemu-img");
    }
    has
}

fn is_invalid<T>(result: Result<T, VolumeError>) -> bool {
    matches!(result, Err(VolumeError::Invalid(_)))
}

fn is_not_found<T>(result: Result<T, VolumeError>) -> bool {
    matches!(result, Err(VolumeError::NotFound(_)))
}

#[test]
fn a_snapshot_holds_what_was_put_and_nothing_after_it_is_sealed() {
    let disks = Disks::new();
    let snapshots = &disks.snapshots;
    snapshots.begin(SNAPSHOT, 1).unwrap();
    snapshots.begin(SNAPSHOT, 1).unwrap();
    assert!(is_invalid(snapshots.begin(SNAPSHOT, 2)), "of another size");
    for index in [7, 2, 2047] {
        snapshots.put_block(SNAPSHOT, index, &block(1)).unwrap();
    }
    snapshots.put_block(SNAPSHOT, 7, &block(7)).unwrap();
    assert!(is_invalid(snapshots.put_block(SNAPSHOT, 0, &[1, 2, 3])), "not a whole block");
    assert!(is_invalid(snapshots.put_block(SNAPSHOT, 2048, &block(1))), "beyond the end");
    assert_eq!(snapshots.list_blocks(SNAPSHOT, 0, 10).unwrap(), [2, 7, 2047]);

    let disks = disks.reopen();
    let snapshots = &disks.snapshots;
    snapshots.complete(SNAPSHOT).unwrap();
    snapshots.complete(SNAPSHOT).unwrap();
    snapshots.begin(SNAPSHOT, 1).unwrap();
    assert!(is_invalid(snapshots.put_block(SNAPSHOT, 3, &block(3))));
    assert_eq!(disks.files(), [format!("{SNAPSHOT}.raw")]);
    assert_eq!(snapshots.list_blocks(SNAPSHOT, 3, 1).unwrap(), [7]);
    assert_eq!(snapshots.list_blocks(SNAPSHOT, 8, 10).unwrap(), [2047]);
    assert_eq!(snapshots.get_block(SNAPSHOT, 7).unwrap(), Some(block(7)));
    assert_eq!(snapshots.get_block(SNAPSHOT, 6).unwrap(), None);
    assert!(is_invalid(snapshots.get_block(SNAPSHOT, 2048)));
}

#[test]
fn neighbouring_blocks_are_all_listed() {
    let disks = Disks::new();
    disks.snapshots.begin(SNAPSHOT, 1).unwrap();
    for index in 10..20 {
        disks.snapshots.put_block(SNAPSHOT, index, &block(1)).unwrap();
    }
    assert_eq!(disks.snapshots.list_blocks(SNAPSHOT, 0, 100).unwrap(), (10..20).collect::<Vec<u32>>());
    assert_eq!(disks.snapshots.list_blocks(SNAPSHOT, 15, 3).unwrap(), [15, 16, 17]);
}

#[test]
fn a_snapshot_that_a_crash_left_without_its_size_is_begun_again() {
    let disks = Disks::new();
    fs::write(disks.dir.path().join(format!("snapshots/{SNAPSHOT}.pending")), "").unwrap();
    let disks = disks.reopen();
    disks.snapshots.begin(SNAPSHOT, 1).unwrap();
    disks.snapshots.put_block(SNAPSHOT, 2047, &block(1)).unwrap();
}

#[test]
fn only_ids_become_names_and_sizes_are_bounded() {
    let disks = Disks::new();
    for id in ["", "../../etc", "snap-0123456789abcdef0/x", "vol-0123456789abcdef0"] {
        assert!(is_invalid(disks.snapshots.begin(id, 1)), "{id}");
        assert!(is_invalid(disks.snapshots.complete(id)), "{id}");
        assert!(is_invalid(disks.volumes.delete_snapshot(id)), "{id}");
    }
    assert!(is_invalid(disks.volumes.ensure("vol-../x", 1, None)));
    for size in [0, 65537] {
        assert!(is_invalid(disks.snapshots.begin(SNAPSHOT, size)));
        assert!(is_invalid(disks.volumes.ensure(VOLUME, size, None)));
    }
    assert!(is_not_found(disks.snapshots.complete(SNAPSHOT)));
    assert!(is_not_found(disks.snapshots.put_block(SNAPSHOT, 0, &block(0))));
    assert!(is_not_found(disks.snapshots.get_block(SNAPSHOT, 0)));
    assert!(disks.files().is_empty());
}

#[test]
fn an_empty_volume_takes_no_room_and_keeps_its_data() {
    let disks = Disks::new();
    let file = disks.volumes.ensure(VOLUME, 64, None).unwrap();
    assert_eq!((fs::metadata(&file.path).unwrap().len(), &file.backing), (64 << 30, &Backing::None));
    assert!(disks.volumes.usage(VOLUME).unwrap() < 1 << 20);
    fs::write(&file.path, "data").unwrap();
    let disks = disks.reopen();
    assert_eq!(disks.volumes.ensure(VOLUME, 64, None).unwrap(), file);
    assert_eq!(fs::read(&file.path).unwrap(), b"data");
    assert_eq!(disks.volumes.list().unwrap(), [VOLUME]);
    disks.volumes.delete(VOLUME).unwrap();
    disks.volumes.delete(VOLUME).unwrap();
    assert!(is_not_found(disks.volumes.file_of(VOLUME)));
    assert!(disks.files().is_empty());
}

#[test]
fn a_volume_of_a_snapshot_holds_what_it_held_and_grows() {
    if !has_qemu_img() {
        return;
    }
    let disks = Disks::new().with_snapshot();
    let file = disks.volumes.ensure(VOLUME, 8, Some(SNAPSHOT)).unwrap();
    let Backing::Raw(backing) = &file.backing else { panic!("{file:?}") };
    let read = |arguments: &[&str]| {
        let mut command = Command::new("qemu-img");
        let output = command.args(arguments).arg(&file.path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(read(&["info"]).contains("virtual size: 8 GiB"));
    let compared =
        Command::new("qemu-img").args(["compare", "-q"]).args([&file.path, backing]).status().unwrap();
    assert!(compared.success(), "zeros after the snapshot's end");
    assert!(disks.volumes.usage(VOLUME).unwrap() < 4 << 20);
}

#[test]
fn a_volume_of_no_snapshot_or_a_larger_one_is_refused_and_leaves_nothing() {
    let disks = Disks::new();
    assert!(is_not_found(disks.volumes.ensure(VOLUME, 8, Some(SNAPSHOT))));
    disks.snapshots.begin(SNAPSHOT, 2).unwrap();
    assert!(is_not_found(disks.volumes.ensure(VOLUME, 8, Some(SNAPSHOT))), "not sealed yet");
    disks.snapshots.complete(SNAPSHOT).unwrap();
    assert!(is_invalid(disks.volumes.ensure(VOLUME, 1, Some(SNAPSHOT))));
    assert_eq!(disks.files(), [format!("{SNAPSHOT}.raw")]);
}

#[test]
fn a_half_made_volume_is_made_anew() {
    let disks = Disks::new();
    disks.touch(&format!("volumes/{VOLUME}.new"));
    let disks = disks.reopen();
    assert!(disks.files().is_empty());
    disks.volumes.ensure(VOLUME, 1, None).unwrap();
    assert_eq!(disks.files(), [format!("{VOLUME}.raw")]);
}

#[test]
fn a_deleted_snapshot_stays_below_its_volumes_and_no_longer() {
    if !has_qemu_img() {
        return;
    }
    let disks = Disks::new().with_snapshot();
    disks.volumes.ensure(VOLUME, 1, Some(SNAPSHOT)).unwrap();
    let file = disks.volumes.ensure(OTHER, 1, Some(SNAPSHOT)).unwrap();
    for _ in 0..2 {
        disks.volumes.delete_snapshot(SNAPSHOT).unwrap();
    }
    assert!(is_not_found(disks.snapshots.get_block(SNAPSHOT, 3)));
    assert!(is_not_found(disks.snapshots.begin(SNAPSHOT, 1)));
    assert!(is_not_found(disks.volumes.ensure("vol-00000000000000000", 1, Some(SNAPSHOT))));
    disks.volumes.delete(VOLUME).unwrap();
    let disks = disks.reopen();
    assert_eq!(disks.volumes.file_of(OTHER).unwrap(), file);
    let Backing::Raw(backing) = file.backing else { panic!("no backing") };
    assert!(backing.exists());
    disks.volumes.delete(OTHER).unwrap();
    assert!(disks.files().is_empty());
}

#[test]
fn the_last_volume_may_go_in_a_crash() {
    if !has_qemu_img() {
        return;
    }
    let disks = Disks::new().with_snapshot();
    let file = disks.volumes.ensure(VOLUME, 1, Some(SNAPSHOT)).unwrap();
    disks.volumes.delete_snapshot(SNAPSHOT).unwrap();
    // The crash comes after the volume is gone, before its snapshot is.
    fs::remove_file(file.path).unwrap();
    let disks = disks.reopen();
    assert!(disks.files().is_empty());
}

#[test]
fn no_crash_brings_a_deleted_snapshot_back() {
    // Marked, its data still here.
    let disks = Disks::new().with_snapshot();
    disks.touch(&format!("snapshots/{SNAPSHOT}.deleted"));
    assert!(is_not_found(disks.snapshots.get_block(SNAPSHOT, 3)));
    let disks = disks.reopen();
    assert!(disks.files().is_empty());
    // Its data gone, the marker still here.
    disks.touch(&format!("snapshots/{SNAPSHOT}.deleted"));
    let disks = disks.reopen();
    assert!(disks.files().is_empty());
}

#[test]
fn a_pending_snapshot_is_deleted_with_its_blocks() {
    let disks = Disks::new();
    disks.snapshots.begin(SNAPSHOT, 1).unwrap();
    disks.snapshots.put_block(SNAPSHOT, 1, &block(1)).unwrap();
    disks.volumes.delete_snapshot(SNAPSHOT).unwrap();
    assert!(disks.files().is_empty());
}

#[test]
fn many_threads_make_the_same_volume_once() {
    let disks = Disks::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| disks.volumes.ensure(VOLUME, 1, None).unwrap());
        }
    });
    assert_eq!(disks.files(), [format!("{VOLUME}.raw")]);
}

#[test]
fn strange_files_are_left_alone() {
    let disks = Disks::new();
    for name in ["volumes/notes.txt", "snapshots/README", "volumes/vol-1.raw"] {
        disks.touch(name);
    }
    let disks = disks.reopen();
    assert_eq!(disks.files().len(), 3);
    assert!(disks.volumes.list().unwrap().is_empty());
}
