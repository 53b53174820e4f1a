//! What a volume costs beside a raw file under the same QEMU, in the same run: `cargo bench -p agent`, or some of its parts:
//! `cargo bench -p agent --bench storage -- stall launch`.
//!
//! The block nodes are those that the driver makes for a machine, in QEMU's storage daemon; what a guest would ask of
//! them comes by NBD, so that no emulated processor is measured. The figure is a ratio of two times of the same
//! requests, in turns.

#![allow(clippy::unwrap_used)]

mod daemon;
mod load;
mod machines;

#[path = "../../tests/kills/nbd.rs"]
mod nbd;

#[path = "../../../host/src/machine/aio.rs"]
#[allow(dead_code)]
mod aio;
#[path = "../../../host/src/machine/disk.rs"]
#[allow(dead_code)]
mod disk;
#[path = "../../src/examples.rs"]
#[allow(dead_code)]
mod examples;
#[path = "../../../host/src/machine/qmp.rs"]
#[allow(dead_code)]
mod qmp;

use daemon::{Daemon, layers};
// What the driver's files want to find above them.
use host::machine::{DiskBus, DiskFormat, DiskKey, DiskLayer, DiskSpec};
use load::{Disk, Load};
use machines::Machines;
use model::{Random, SecretKey, SeededRandom};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use volume::{BLOCK_BYTES, Disks};

/// Many short ones: what else the machine does falls on both sides alike.
const ROUNDS: usize = 15;
const SIZE_GIB: u32 = 2;
const KIB: usize = 1024;
const GIB: u64 = 1 << 30;
/// Of what is encrypted.
const KEY: [u8; SecretKey::BYTES] = [7; SecretKey::BYTES];

const LOADS: [(&str, Load); 6] = [
    ("4 KiB random reads, 1 at a time", load(false, true, 4 * KIB, 1, 800)),
    ("4 KiB random reads, 32 at a time", load(false, true, 4 * KIB, 32, 6_000)),
    ("4 KiB random writes, 1 at a time", load(true, true, 4 * KIB, 1, 800)),
    ("4 KiB random writes, 32 at a time", load(true, true, 4 * KIB, 32, 6_000)),
    ("1 MiB sequential reads", load(false, false, 1024 * KIB, 4, 128)),
    ("1 MiB sequential writes", load(true, false, 1024 * KIB, 4, 128)),
];

const fn load(is_write: bool, is_random: bool, bytes: usize, depth: usize, count: u64) -> Load {
    Load { is_write, is_random, bytes, depth, count }
}

#[tokio::main]
async fn main() {
    // Cargo has an option of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|wanted| !wanted.starts_with('-')).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|one| one == part);
    let room = Room::new().await;
    println!("a raw file of the same QEMU is 1; of {ROUNDS} rounds in turns the median");
    let path = room.plain();
    File::create(&path).unwrap().set_len(u64::from(SIZE_GIB) << 30).unwrap();
    let mut plain = room.daemon.add_raw("plain", &path).await;
    plain.fill();
    if is_wanted("throughput") {
        throughput(&room, &mut plain).await;
    }
    if is_wanted("storing") {
        storing(&room, &mut plain).await;
    }
    if is_wanted("lazy") {
        lazy(&room, 60, None);
        lazy(&room, 61, Some(&KEY.into()));
        lazy_sizes(&room);
    }
    if is_wanted("stall") {
        stall(&room, &mut plain).await;
    }
    if is_wanted("sizes") {
        sizes(&room).await;
    }
    if is_wanted("unchanged") {
        unchanged();
    }
    if is_wanted("launch") {
        launch(&room).await;
    }
}

async fn throughput(room: &Room, plain: &mut Disk) {
    let mut first = room.volume(1, SIZE_GIB, None).await;
    first.fill();
    compare("made empty, written once", &mut first, plain, Some(0.9));
    room.snapshot(1, 1).await;
    let mut second = room.volume(2, SIZE_GIB, Some(1)).await;
    compare_reads("of a snapshot, untouched", &mut second, plain);
    second.fill();
    compare("of a snapshot, hydrated", &mut second, plain, Some(0.9));
    compare("after a snapshot, not hydrated", &mut first, plain, None);
    drop(second);
    let mut encrypted = room.encrypted_volume(3, SIZE_GIB).await;
    encrypted.fill();
    let mut unencrypted = room.volume(4, SIZE_GIB, None).await;
    unencrypted.fill();
    compare("encrypted, beside one that is not", &mut encrypted, &mut unencrypted, None);
}

fn compare(what: &str, ours: &mut Disk, theirs: &mut Disk, bound: Option<f64>) {
    for (name, load) in LOADS {
        say(&format!("{what}: {name}"), ratio(load, ours, theirs), bound);
    }
}

fn compare_reads(what: &str, ours: &mut Disk, theirs: &mut Disk) {
    for (name, load) in LOADS.into_iter().filter(|(_, load)| !load.is_write) {
        say(&format!("{what}: {name}"), ratio(load, ours, theirs), None);
    }
}

/// The second's time over the first's.
fn ratio(load: Load, ours: &mut Disk, theirs: &mut Disk) -> f64 {
    let round = |_| {
        let [ours, theirs] = [&mut *ours, &mut *theirs].map(|disk| disk.run(load).all.as_secs_f64());
        theirs / ours
    };
    let mut ratios: Vec<f64> = (0..ROUNDS).map(round).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ROUNDS / 2]
}

/// A snapshot's way into the block store, beside as much copied plainly on the same disk, which reads it and writes it
/// too. What is stored can't be compressed.
async fn storing(room: &Room, plain: &mut Disk) {
    plain.fill();
    let mut ratios = Vec::new();
    for number in 50..55 {
        let mut disk = room.volume(number, 1, None).await;
        disk.fill();
        room.snapshot(number, number).await;
        let copied = room.copy();
        let began = Instant::now();
        room.store(number);
        ratios.push(copied.as_secs_f64() / began.elapsed().as_secs_f64());
        drop(disk);
        room.disks.delete_snapshot(&snapshot_id(number)).unwrap();
    }
    ratios.sort_by(f64::total_cmp);
    say("a snapshot of 1 GiB is stored, to copying as much", ratios[2], Some(0.7));
}

/// What a volume reads for the first time that only the block store has, beside reading the store.
fn lazy(room: &Room, number: u32, key: Option<&SecretKey>) {
    let (snapshot_id, volume_id) = (snapshot_id(number), volume_id(number));
    let (chance, mut data) = (SeededRandom::new(number.into()), vec![0; BLOCK_BYTES]);
    room.disks.begin(&snapshot_id, 1, key).unwrap();
    for index in (0..200).chain(1000..1200) {
        chance.fill(&mut data);
        room.disks.put_block(&snapshot_id, index, &data).unwrap();
    }
    room.disks.complete(&snapshot_id).unwrap();
    room.store(number);
    room.disks.make_room(100).unwrap();
    let made = room.disks.ensure(&volume_id, 1, Some(&snapshot_id), key).unwrap();
    let layer = made.layers[1].path.file_stem().unwrap().to_str().unwrap().to_owned();
    let reader = room.disks.read_layer(&[&volume_id], &layer).unwrap().unwrap();
    let mut times = [Vec::new(), Vec::new()];
    for index in 0..200u32 {
        let began = Instant::now();
        room.disks.get_block(&snapshot_id, 1000 + index).unwrap().unwrap();
        times[0].push(began.elapsed());
        let began = Instant::now();
        reader.read(u64::from(index) * BLOCK_BYTES as u64, &mut data).unwrap();
        times[1].push(began.elapsed());
    }
    let [store, first] = times.map(median);
    let what = key.map_or("", |_| ", encrypted");
    say_at_most(&format!("a block is read out of the block store{what}"), store, None);
    say_at_most("and for the first time by a volume, more than that", first.saturating_sub(store), Some(5));
}

/// How soon a volume is used that only the block store has, however large it is and however it is encrypted. A block of
/// each 64th of it is held.
fn lazy_sizes(room: &Room) {
    let [one, other] = [KEY, [8; SecretKey::BYTES]].map(SecretKey::from);
    let (snapshot_id, volume_id) = (snapshot_id(70), volume_id(70));
    for (what, from, to) in [
        ("", None, None),
        (", encrypted", Some(&one), Some(&one)),
        (", encrypted anew", Some(&one), Some(&other)),
    ] {
        for size_gib in [8, 1024] {
            let step = size_gib * (GIB / BLOCK_BYTES as u64) as u32 / 64;
            room.disks.begin(&snapshot_id, size_gib, from).unwrap();
            for part in 0..64 {
                room.disks.put_block(&snapshot_id, part * step, &[part as u8 + 1; BLOCK_BYTES]).unwrap();
            }
            room.disks.complete(&snapshot_id).unwrap();
            room.store(70);
            let mut times = Vec::new();
            for _ in 0..ROUNDS {
                room.disks.make_room(100).unwrap();
                let began = Instant::now();
                let made = room.disks.ensure(&volume_id, size_gib, Some(&snapshot_id), to).unwrap();
                let layer = made.layers[1].path.file_stem().unwrap().to_str().unwrap();
                let reader = room.disks.read_layer(&[&volume_id], layer).unwrap().unwrap();
                let mut data = [0; 4 * KIB];
                reader.read(u64::from(63 * step) * BLOCK_BYTES as u64, &mut data).unwrap();
                times.push(began.elapsed());
                assert!(data == [64; 4 * KIB]);
                room.disks.delete(&volume_id).unwrap();
            }
            let name = format!("of the block store alone, made and read, {size_gib} GiB{what}");
            say_at_most(&name, median(times), Some(200));
            room.disks.delete_snapshot(&snapshot_id).unwrap();
        }
    }
}

/// What the longest write takes while a snapshot is taken, and while none is.
async fn stall(room: &Room, plain: &mut Disk) {
    let writes = load(true, true, 4 * KIB, 1, 3_000);
    for (number, bus) in [(75, DiskBus::Virtio), (76, DiskBus::Nvme)] {
        room.volume_by(bus, number, SIZE_GIB, None).await.fill();
        let mut longest = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS as u32 {
            longest[0].push(plain.run(writes).longest);
            let mut disk = room.daemon.connect(&room.node(number));
            let writing = tokio::task::spawn_blocking(move || disk.run(writes).longest);
            room.snapshot_by(bus, number * 100 + round, number).await;
            longest[1].push(writing.await.unwrap());
        }
        let [without, with] = longest.map(median);
        say_at_most("the longest write of 3,000, no snapshot being taken", without, None);
        say_at_most(&format!("the longest write of 3,000, a snapshot being taken, {bus:?}"), with, Some(20));
    }
}

/// What must not depend on how large a disk is.
async fn sizes(room: &Room) {
    for (number, size_gib) in [(10, 8), (20, 1024)] {
        let mut times = [const { Vec::new() }; 3];
        for round in 0..ROUNDS as u32 {
            let (empty, made, snapshot) =
                (number * 100 + round, number * 100 + 50 + round, number * 100 + round);
            let began = Instant::now();
            drop(room.volume(empty, size_gib, None).await);
            times[0].push(began.elapsed());
            let began = Instant::now();
            room.snapshot(snapshot, empty).await;
            room.store(snapshot);
            times[1].push(began.elapsed());
            let began = Instant::now();
            drop(room.volume(made, size_gib, Some(snapshot)).await);
            times[2].push(began.elapsed());
        }
        let names = [
            "an empty volume is made",
            "a snapshot with nothing in it is stored",
            "a volume of a snapshot is made",
        ];
        for ((name, times), bound_ms) in names.into_iter().zip(times).zip([200, 1000, 200]) {
            say_at_most(&format!("{name}, {size_gib} GiB"), median(times), Some(bound_ms));
        }
        let layers = room.disks.disk(&volume_id(number * 100)).unwrap().layers;
        let held = layers.iter().map(|layer| layer.path.metadata().unwrap().blocks() * 512).sum::<u64>();
        println!("  which takes {} KiB of the disk in all", held / 1024);
    }
}

/// Of a disk that is full, one more snapshot of what the last one holds.
fn unchanged() {
    const SIZE_GIB: u32 = 1024;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let snapshot = |disks: &Disks, number: u32| {
        let pair = (&*snapshot_id(number), &*volume_id(1));
        let freeze = disks.begin_freeze(&[pair], None).unwrap().unwrap();
        disks.finish_freeze(&freeze.key).unwrap();
        while disks.store(&snapshot_id(number)).unwrap() < 100 {}
    };
    let disks = Disks::open(dir.path()).unwrap();
    disks.ensure(&volume_id(1), SIZE_GIB, None, None).unwrap();
    snapshot(&disks, 1);
    drop(disks);
    std::fs::write(dir.path().join("blocks/manifests").join(snapshot_id(1)), full_manifest(SIZE_GIB))
        .unwrap();
    let disks = Disks::open(dir.path()).unwrap();
    let mut times = Vec::new();
    for number in 2..3 + ROUNDS as u32 {
        let began = Instant::now();
        snapshot(&disks, number);
        times.push(began.elapsed());
    }
    let what = "a snapshot of 1 TiB with nothing changed is stored";
    say_at_most(&format!("{what}, the first since the start"), times.remove(0), Some(1000));
    say_at_most(what, median(times), Some(1000));
}

/// As if each block of a disk had been written.
fn full_manifest(size_gib: u32) -> Vec<u8> {
    let size = u64::from(size_gib) << 30;
    let count = size / BLOCK_BYTES as u64;
    let mut bytes = [*b"cumulet1", size.to_be_bytes(), count.to_be_bytes()].concat();
    for index in 0..count as u32 {
        bytes.extend(index.to_be_bytes());
        bytes.extend(blake3::hash(&index.to_be_bytes()).as_bytes());
    }
    bytes.extend(blake3::hash(&bytes.clone()).as_bytes());
    bytes
}

/// From an image to a machine that runs, and what it then reads for the first time.
async fn launch(room: &Room) {
    let mut machines = Machines::start(room.dir.path(), room.disks.clone()).await;
    let sizes = [(90, 8), (91, 1024)];
    for (image, size_gib) in sizes {
        let mut disk = room.volume(image, size_gib, None).await;
        disk.run(load(true, false, 1024 * KIB, 4, 512));
        drop(disk);
        room.snapshot(image, image).await;
        room.store(image);
    }
    // What QEMU is made of is read from the disk once.
    let first = machines.launch(9000, 8, &snapshot_id(90)).await;
    machines.terminate(first).await;
    for (image, size_gib) in sizes {
        let mut times = Vec::new();
        for round in 0..ROUNDS as u32 {
            let machine = machines.launch(image * 100 + 1 + round, size_gib, &snapshot_id(image)).await;
            times.push(machine.took);
            machines.terminate(machine).await;
        }
        say_at_most(&format!("a machine runs that is launched of {size_gib} GiB"), median(times), Some(200));
    }
    for (image, size_gib) in sizes {
        room.disks.delete(&volume_id(image)).unwrap();
        room.disks.make_room(100).unwrap();
        let machine = machines.launch(image * 100 + 50, size_gib, &snapshot_id(image)).await;
        say_at_most(
            &format!("the same, of what the block store alone has, {size_gib} GiB"),
            machine.took,
            Some(200),
        );
        let mut times = [Vec::new(), Vec::new()];
        // From the end on, where it is not filled yet.
        for index in (512..1024u32).rev().step_by(16) {
            let began = Instant::now();
            room.disks.get_block(&snapshot_id(image), index).unwrap().unwrap();
            times[0].push(began.elapsed());
            times[1].push(machine.read(u64::from(index - 1) * BLOCK_BYTES as u64, 4 * KIB).await);
        }
        let [store, first] = times.map(median);
        say_at_most("a block is read out of the block store", store, None);
        say_at_most(
            "its machine reads one for the first time, more than that",
            first.saturating_sub(store),
            Some(5),
        );
        machines.terminate(machine).await;
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn say(what: &str, ratio: f64, bound: Option<f64>) {
    let verdict = bound.map(|bound| {
        let verdict = if ratio >= bound { "ok" } else { "MISSED" };
        format!("   bound >= {bound:<4}   {verdict}")
    });
    println!("{what:<66} {ratio:>6.2}{}", verdict.unwrap_or_default());
}

fn say_at_most(what: &str, took: Duration, bound_ms: Option<u128>) {
    let verdict = bound_ms.map(|bound_ms| {
        let verdict = if took.as_millis() <= bound_ms { "ok" } else { "MISSED" };
        format!(" bound <= {bound_ms}   {verdict}")
    });
    println!("{what:<66} {:>6.1} ms{}", took.as_secs_f64() * 1e3, verdict.unwrap_or_default());
}

fn volume_id(number: u32) -> String {
    format!("vol-{number:017x}")
}

fn snapshot_id(number: u32) -> String {
    format!("snap-{number:017x}")
}

struct Room {
    dir: tempfile::TempDir,
    disks: Arc<Disks>,
    daemon: Daemon,
}

impl Room {
    async fn new() -> Room {
        // On a disk: the directory for temporary files may be in memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let disks = Arc::new(Disks::open(&dir.path().join("data")).unwrap());
        let daemon = Daemon::start(dir.path()).await;
        Room { dir, disks, daemon }
    }

    async fn volume(&self, number: u32, size_gib: u32, snapshot: Option<u32>) -> Disk {
        self.volume_by(DiskBus::Virtio, number, size_gib, snapshot).await
    }

    async fn volume_by(&self, bus: DiskBus, number: u32, size_gib: u32, snapshot: Option<u32>) -> Disk {
        let snapshot_id = snapshot.map(snapshot_id);
        let made = self.disks.ensure(&volume_id(number), size_gib, snapshot_id.as_deref(), None).unwrap();
        self.daemon.add(&layers(made.layers), bus).await
    }

    async fn encrypted_volume(&self, number: u32, size_gib: u32) -> Disk {
        let made = self.disks.ensure(&volume_id(number), size_gib, None, Some(&KEY.into())).unwrap();
        let Some(DiskKey::Known(key)) = &made.key else { panic!("its key is known") };
        self.daemon.add_encrypted(&layers(made.layers), key).await
    }

    /// Of a volume that is in use.
    async fn snapshot(&self, snapshot: u32, volume: u32) {
        self.snapshot_by(DiskBus::Virtio, snapshot, volume).await;
    }

    async fn snapshot_by(&self, bus: DiskBus, snapshot: u32, volume: u32) {
        let pair = (&*snapshot_id(snapshot), &*volume_id(volume));
        let freeze = self.disks.begin_freeze(&[pair], Some("i-1")).unwrap().unwrap();
        let layers = layers(freeze.volumes[0].disk.layers.clone());
        self.daemon.lay_on_top(&layers[1], &layers, bus).await;
        self.disks.finish_freeze(&freeze.key).unwrap();
    }

    fn plain(&self) -> PathBuf {
        self.dir.path().join("plain.raw")
    }

    /// 1 GiB of the plain disk, past the page cache both ways.
    fn copy(&self) -> Duration {
        let copy = self.dir.path().join("copy.raw");
        let began = Instant::now();
        let status = Command::new("dd")
            .args(["bs=1M", "count=1024", "iflag=direct", "oflag=direct", "conv=fsync", "status=none"])
            .arg(format!("if={}", self.plain().display()))
            .arg(format!("of={}", copy.display()))
            .status();
        let took = began.elapsed();
        assert!(status.unwrap().success());
        std::fs::remove_file(copy).unwrap();
        took
    }

    fn store(&self, snapshot: u32) {
        while self.disks.store(&snapshot_id(snapshot)).unwrap() < 100 {}
    }

    /// The name under which the volume was exported.
    fn node(&self, volume: u32) -> String {
        let layers = layers(self.disks.disk(&volume_id(volume)).unwrap().layers);
        disk::node_name(layers.last().unwrap())
    }
}
