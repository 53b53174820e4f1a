//! Reads and writes of a disk that QEMU exports by NBD over a unix socket (NetworkBlockDevice, `doc/proto.md`), so many
//! at a time.

use super::nbd::{self, READ};
use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const WRITE: u16 = 1;
const FLUSH: u16 = 3;
/// Opened so far.
static DISKS: AtomicU64 = AtomicU64::new(0);
/// What QEMU's server works on for one connection at a time.
const DEPTH_OF_ONE_MAX: usize = 16;

/// What is asked of a disk.
#[derive(Clone, Copy)]
pub struct Load {
    pub is_write: bool,
    pub is_random: bool,
    pub bytes: usize,
    pub depth: usize,
    pub count: u64,
}

/// Connections to one disk.
pub struct Disk {
    connections: Vec<Connection>,
    size: u64,
    random: u64,
    next: u64,
    data: Vec<u8>,
}

struct Connection {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
    in_flight: usize,
    is_write: bool,
}

impl Disk {
    pub fn open(socket: &Path, name: &str) -> Disk {
        let opened: Vec<(Connection, u64)> = (0..2).map(|_| Connection::open(socket, name)).collect();
        // What two disks hold differs: the block store keeps nothing twice.
        let mut random = 0x9e37_79b9_7f4a_7c15 ^ DISKS.fetch_add(1, Ordering::Relaxed);
        // Not zeros, which need not be written.
        let data = std::iter::repeat_with(|| draw(&mut random) as u8).take(1 << 20).collect();
        let size = opened[0].1;
        let connections = opened.into_iter().map(|(connection, _)| connection).collect();
        Disk { connections, size, random, next: 0, data }
    }

    /// How long all of it takes, the longest single one, and that it is durable where it was written.
    pub fn run(&mut self, load: Load) -> Took {
        let connections = load.depth.div_ceil(DEPTH_OF_ONE_MAX);
        let began = Instant::now();
        let (mut asked, mut longest, mut last) = (0, Duration::ZERO, began);
        for slot in 0..load.depth {
            if asked < load.count {
                self.ask(slot % connections, load);
                asked += 1;
            }
        }
        let mut answered = 0;
        while answered < load.count {
            for at in 0..connections {
                if self.connections[at].in_flight == 0 {
                    continue;
                }
                self.connections[at].take_answer(load.bytes, &mut self.data);
                answered += 1;
                let now = Instant::now();
                longest = longest.max(now - last);
                last = now;
                if asked < load.count {
                    self.ask(at, load);
                    asked += 1;
                }
            }
        }
        if load.is_write {
            self.connections[0].ask(FLUSH, 0, 0, &[]);
            self.connections[0].take_answer(0, &mut self.data);
        }
        Took { all: began.elapsed(), longest }
    }

    /// Writes all of the disk.
    pub fn fill(&mut self) {
        let bytes = self.data.len();
        let count = self.size / bytes as u64;
        self.next = 0;
        self.run(Load { is_write: true, is_random: false, bytes, depth: 4, count });
    }

    fn ask(&mut self, at: usize, load: Load) {
        let places = self.size / load.bytes as u64;
        let place = match load.is_random {
            true => draw(&mut self.random) % places,
            false => {
                self.next += 1;
                (self.next - 1) % places
            }
        };
        // Each block of a snapshot is another.
        for at in (0..load.bytes).step_by(volume::BLOCK_BYTES).filter(|_| load.is_write) {
            self.data[at..at + 8].copy_from_slice(&(place * load.bytes as u64 + at as u64).to_be_bytes());
        }
        let data = if load.is_write { &self.data[..load.bytes] } else { &[] };
        let kind = if load.is_write { WRITE } else { READ };
        self.connections[at].ask(kind, place * load.bytes as u64, load.bytes, data);
    }
}

pub struct Took {
    pub all: Duration,
    pub longest: Duration,
}

impl Connection {
    fn open(socket: &Path, name: &str) -> (Connection, u64) {
        let (writer, size) = nbd::connect(socket, name).unwrap();
        let reader = BufReader::with_capacity(64 * 1024, writer.try_clone().unwrap());
        (Connection { writer, reader, in_flight: 0, is_write: false }, size)
    }

    fn ask(&mut self, kind: u16, offset: u64, bytes: usize, data: &[u8]) {
        self.writer.write_all(&nbd::request(kind, offset, bytes, data)).unwrap();
        self.in_flight += 1;
        self.is_write = kind != READ;
    }

    fn take_answer(&mut self, bytes: usize, data: &mut [u8]) {
        nbd::take_reply(&mut self.reader).unwrap();
        if !self.is_write {
            self.reader.read_exact(&mut data[..bytes]).unwrap();
        }
        self.in_flight -= 1;
    }
}

/// Marsaglia's xorshift: even, and the same in each run.
fn draw(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
