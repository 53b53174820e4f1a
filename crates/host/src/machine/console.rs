//! The end of a machine's serial console.
//!
//! A hostile guest prints for ever, and nobody may be there to listen while the daemon restarts; yet nothing may
//! block the guest, fill the disk, or lose what was printed last. So QEMU keeps the newest `RING_BYTES` in its own
//! memory (a `ringbuf` character device), and we move them into a file when they are asked for, when the machine
//! resets or ends, and every few seconds.
//!
//! Weighed and not taken: a log file of QEMU's (grows without bound while the daemon is away), a pipe or socket
//! (full or broken when nobody reads, which stalls the guest or loses the output), a process of ours beside each
//! machine (one more thing to find again). What the ring costs: when the process itself is killed, the console of
//! the last few seconds is lost. For an interactive console the same serial port can be switched to a socket and back
//! (QMP `chardev-change`), reading the ring out first.
//!
//! Invariant: the file never holds more than `FILE_BYTES_MAX`.

use super::qmp::{Qmp, QmpError};
use base64::Engine;
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The character device's name.
pub(super) const CHARDEV: &str = "console";
/// A power of two, as QEMU demands. Many times what GetConsoleOutput returns, little beside a guest's memory.
pub(super) const RING_BYTES: usize = 1024 * 1024;

/// What is read of the ring at a time; as base64 it must fit into a line of the monitor.
const PIECE_BYTES: usize = 64 * 1024;
/// What is kept in the file when it is cut.
const FILE_BYTES_KEPT: u64 = 1024 * 1024;
/// When the file is cut: rarely, since cutting copies.
const FILE_BYTES_MAX: u64 = 4 * FILE_BYTES_KEPT;

pub(super) struct Console {
    path: PathBuf,
}

impl Console {
    /// Of the machine in this directory.
    pub(super) fn new(directory: &super::record::MachineDirectory) -> Self {
        Console { path: directory.file("console.log") }
    }

    /// Moves what the ring holds into the file. Exclusive access keeps the pieces in their order.
    pub(super) async fn save(&mut self, qmp: &Qmp) -> Result<(), ConsoleError> {
        // A guest that prints faster than we read must not keep us here.
        for _ in 0..=RING_BYTES / PIECE_BYTES {
            let arguments = json!({ "device": CHARDEV, "size": PIECE_BYTES, "format": "base64" });
            let answer = qmp.execute("ringbuf-read", arguments).await?;
            let text = answer.as_str().ok_or(QmpError::NotQmp)?;
            let piece =
                base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| QmpError::NotQmp)?;
            if !piece.is_empty() {
                self.append(&piece)?;
            }
            if piece.len() < PIECE_BYTES {
                break;
            }
        }
        Ok(())
    }

    fn append(&self, piece: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(piece)?;
        if file.metadata()?.len() > FILE_BYTES_MAX {
            let cut = self.path.with_extension("log.new");
            fs::write(&cut, self.tail(FILE_BYTES_KEPT)?)?;
            fs::rename(cut, &self.path)?;
        }
        Ok(())
    }

    /// The last bytes of the file, at most `limit`.
    pub(super) fn tail(&self, limit: u64) -> io::Result<Vec<u8>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut tail = Vec::new();
        file.take(limit).read_to_end(&mut tail)?;
        Ok(tail)
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ConsoleError {
    #[error("the console can't be read from the machine")]
    Monitor(#[from] QmpError),
    #[error("the console can't be kept")]
    File(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_keeps_the_end_within_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let console = Console { path: dir.path().join("console.log") };
        assert_eq!(console.tail(10).unwrap(), b"");
        let piece: Vec<u8> = (0..PIECE_BYTES).map(|n| n as u8).collect();
        for _ in 0..100 {
            console.append(&piece).unwrap();
            assert!(fs::metadata(&console.path).unwrap().len() <= FILE_BYTES_MAX);
        }
        console.append(b"the end").unwrap();
        assert_eq!(console.tail(9).unwrap(), b"\xfe\xffthe end");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
