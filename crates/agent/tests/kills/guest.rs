//! What a guest would do: its disks are written to by QEMU's second monitor, how it went is in QEMU's log, and looked at
//! by NBD.

use crate::ledger::{Action, Content, Disk, Ledger, UNIT, UNITS_OF_PLACE, What, offsets};
use crate::nbd;
use model::{Id, Random, SeededRandom};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Acknowledged by all guests.
pub static FLUSHES: AtomicU64 = AtomicU64::new(0);

pub struct Guest {
    socket: PathBuf,
    monitor: BufReader<UnixStream>,
    /// Read as far as it has been written.
    log: File,
}

impl Guest {
    pub fn connect(socket: &Path) -> io::Result<Guest> {
        let monitor = BufReader::new(UnixStream::connect(socket)?);
        let mut log = File::open(socket.with_file_name("qemu.log"))?;
        log.seek(SeekFrom::End(0))?;
        let mut guest = Guest { socket: socket.to_owned(), monitor, log };
        guest.line()?;
        guest.ask("qmp_capabilities", json!({}))?;
        Ok(guest)
    }

    fn line(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        match self.monitor.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(serde_json::from_str(&line)?),
        }
    }

    fn ask(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments, "id": 1 }));
        self.monitor.get_mut().write_all(line.as_bytes())?;
        loop {
            let answer = self.line()?;
            if answer["id"] == 1 {
                return Ok(answer["return"].clone());
            }
        }
    }

    fn hand_over(&mut self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        let line = format!("{}\n", json!({ "execute": "getfd", "arguments": { "fdname": name }, "id": 1 }));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let line = IoSlice::new(line.as_bytes());
        rustix::net::sendmsg(self.monitor.get_ref(), &[line], &mut ancillary, SendFlags::empty())?;
        while self.line()?["id"] != 1 {}
        Ok(())
    }

    /// `done` is what QEMU says of it then.
    fn disk(&mut self, volume_id: &Id, command: &str, done: &str) -> io::Result<()> {
        let line = format!("qemu-io -d {} \"{command}\"", device(volume_id));
        let mut said = self.ask("human-monitor-command", json!({ "command-line": line }))?.to_string();
        if self.log.metadata()?.len() < self.log.stream_position()? {
            self.log.rewind()?;
        }
        self.log.read_to_string(&mut said)?;
        match said.contains(done) && !said.contains("failed:") {
            true => Ok(()),
            false => Err(io::Error::other(format!("{volume_id}: {command}: {said}"))),
        }
    }

    /// What each unit of a disk holds, which must be what it may; it is there for good.
    pub fn look(&mut self, volume_id: &Id, disk: &Disk) -> io::Result<Result<Content, String>> {
        self.disk(volume_id, "flush", "")?;
        let socket = self.socket.with_file_name("looked-at");
        let _ = std::fs::remove_file(&socket);
        // QEMU has no right to any file.
        self.hand_over("looked-at", UnixListener::bind(&socket)?.as_fd())?;
        let address = json!({ "type": "fd", "data": { "str": "looked-at" } });
        self.ask("nbd-server-start", json!({ "addr": address }))?;
        let node = self.ask("qom-get", json!({ "path": device(volume_id), "property": "drive" }))?;
        let export = json!({ "type": "nbd", "id": "look", "name": "look", "node-name": node });
        self.ask("block-export-add", export)?;
        let (mut export, _) = nbd::connect(&socket, "look")?;
        let mut content = Content::new();
        for (offset, expected) in disk.expected() {
            let mut unit = [0; UNIT as usize];
            export.write_all(&nbd::request(nbd::READ, offset, unit.len(), &[]))?;
            nbd::take_reply(&mut export)?;
            export.read_exact(&mut unit)?;
            if !expected.contains(&unit[0]) || unit.iter().any(|byte| *byte != unit[0]) {
                let held = &unit[..16];
                return Ok(Err(format!("{volume_id} at {offset} holds {held:?} …, none of {expected:?}")));
            }
            content.insert(offset, unit[0]);
        }
        drop(export);
        self.ask("nbd-server-stop", json!({}))?;
        Ok(Ok(content))
    }

    /// Does this and that to its disks until it is killed, or told to stop.
    pub fn work(&mut self, ledger: &Mutex<Ledger>, seed: u64, stop: &AtomicBool) -> io::Result<()> {
        let chance = SeededRandom::new(seed);
        let below = |bound: usize| (chance.u64() % bound as u64) as usize;
        while !stop.load(Ordering::Relaxed) {
            let (volume_id, size_gib) = {
                let ledger = ledger.lock().unwrap();
                let (volume_id, disk) = ledger.disks.iter().nth(below(ledger.disks.len())).unwrap();
                (volume_id.clone(), disk.size_gib)
            };
            if below(5) == 0 {
                self.disk(&volume_id, "flush", "")?;
                ledger.lock().unwrap().flushed(&volume_id);
                FLUSHES.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let offsets: Vec<u64> = offsets(size_gib).collect();
            let at = below(offsets.len());
            let left = UNITS_OF_PLACE as usize - at % UNITS_OF_PLACE as usize;
            let units = below(left) as u64 + 1;
            let what = match below(10) {
                0 => What::Discard,
                1 => What::Write(0),
                _ => What::Write(below(255) as u8 + 1),
            };
            let action = Action { volume_id, offset: offsets[at], units, what };
            ledger.lock().unwrap().begin(&action);
            let (at, bytes) = (action.offset, units * UNIT);
            let (command, done) = match what {
                What::Discard => (format!("discard {at} {bytes}"), "discard"),
                What::Write(0) => (format!("write -z -u {at} {bytes}"), "wrote"),
                What::Write(content) => (format!("write -P {content} {at} {bytes}"), "wrote"),
            };
            let done = format!("{done} {bytes}/{bytes} bytes at offset {at}");
            self.disk(&action.volume_id, &command, &done)?;
            ledger.lock().unwrap().end(&action);
        }
        Ok(())
    }
}

/// Where the disk itself is.
fn device(volume_id: &Id) -> String {
    format!("/machine/peripheral/{volume_id}/virtio-backend")
}
