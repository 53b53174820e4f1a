//! Overlays: qcow2 files as this crate makes them (QEMU, `docs/interop/qcow2.txt`), and no others.
//!
//! ```text
//!   header ─▶ L1 ─▶ L2 (one a GiB) ─▶ cluster of 128 KiB, in 32 subclusters: held here · zeros · what lies below says
//! ```
//!
//! Made here, written by machines, read here. A guest that broke out of its machine may have written any bytes into its
//! overlay, so the reader believes none of the file's names, bounds what it reads, and refuses every feature that we
//! don't use: one by which a file could point at another above all.
//!
//! Of an encrypted disk what the clusters hold is encrypted by their place in the file; which are held is not.

mod write;

pub(crate) use write::{create, encrypted_end, fill, merge, tell};

use crate::encryption::{Cipher, DataKey, LayerKey, SECTOR};
use crate::{Result, SIZE_GIB_MAX, VolumeError, failed};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Written data is kept in clusters of 128 KiB, tracked in 32nds of 4 KiB, so that a guest's aligned write never
/// has to read what lies below; larger clusters collapse under random writes.
const CLUSTER_BITS: u32 = 17;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
const SUBCLUSTER: u64 = CLUSTER / 32;
/// Bytes of an L2 entry: where the cluster is, and what is in its subclusters.
const ENTRY: usize = 16;
const ENTRIES: u64 = CLUSTER / ENTRY as u64;
/// What one L2 table tells of.
const TABLE_SPAN: u64 = ENTRIES * CLUSTER;

const MAGIC: u32 = 0x5146_49fb;
const VERSION: u32 = 3;
const HEADER: usize = 104;
/// Left by a writer that was killed: of no account to a reader.
const FEATURE_DIRTY: u64 = 1;
const FEATURE_EXTENDED_L2: u64 = 1 << 4;
const ENCRYPTED_LUKS: u32 = 2;
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;

/// The key of the layer in this file.
pub(crate) fn layer_key(path: &Path, key: Option<&DataKey>) -> Option<LayerKey> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    key.map(|key| key.of_layer(&name))
}

/// Enlarges an overlay that nobody has open. Not yet durable.
pub(crate) fn grow(path: &Path, size: u64, key: Option<&DataKey>) -> Result<()> {
    let mut command = Command::new("qemu-img");
    command.args(["resize", "-q"]);
    match key {
        None => command.args(["-f", "qcow2"]).arg(path),
        Some(_) => {
            let file = path.to_string_lossy().replace(',', ",,");
            let image =
                format!("driver=qcow2,encrypt.format=luks,encrypt.key-secret=disk,file.filename={file}");
            command.args(["--object", "secret,id=disk,file=/dev/stdin", "--image-opts", &image])
        }
    };
    let mut run = || {
        let child = command.arg(size.to_string()).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child?;
        if let (Some(mut stdin), Some(key)) = (child.stdin.take(), key) {
            stdin.write_all(key.of_disk().passphrase().as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(failed("can't run qemu-img (package qemu-utils) for", path))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint.lines().next_back().unwrap_or("no word of why");
    Err(VolumeError::Invalid(format!("The volume could not be enlarged: {last}")))
}

/// Bytes of the disk that an overlay is made for.
pub(crate) fn size(path: &Path, key: Option<&DataKey>) -> Result<u64> {
    Overlay::open(path, key).map(|overlay| overlay.size).map_err(failed("can't read", path))
}

/// What an overlay says of a part of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Held here, at this offset of the file.
    Data(u64),
    Zeros,
    /// What lies below is seen.
    Below,
}

/// An overlay that is open for reading. Nobody writes it meanwhile.
pub(crate) struct Overlay {
    pub(crate) file: File,
    /// None where it is not encrypted.
    cipher: Option<Cipher>,
    /// Bytes of the disk.
    pub(crate) size: u64,
    l1: Vec<u64>,
    /// The L2 table that was looked at last, by its number; None where all is seen from below.
    table: Option<(u64, Option<Vec<u8>>)>,
}

impl Overlay {
    pub(crate) fn open(path: &Path, key: Option<&DataKey>) -> io::Result<Overlay> {
        let file = File::open(path)?;
        let cipher = layer_key(path, key).map(|key| key.cipher());
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let u32_at =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
        let (size, entries) = (u64_at(24), u64::from(u32_at(36)));
        let is_ours = u32_at(0) == MAGIC
            && u32_at(4) == VERSION
            && u32_at(20) == CLUSTER_BITS
            && u32_at(32) == if cipher.is_some() { ENCRYPTED_LUKS } else { 0 }
            && u64_at(72) & !FEATURE_DIRTY == FEATURE_EXTENDED_L2
            && (1..=u64::from(SIZE_GIB_MAX) << 30).contains(&size)
            && (size.div_ceil(TABLE_SPAN)..=u64::from(SIZE_GIB_MAX)).contains(&entries);
        if !is_ours {
            return Err(corrupt("is no overlay that was made here"));
        }
        let mut bytes = vec![0; entries as usize * 8];
        file.read_exact_at(&mut bytes, u64_at(40))?;
        let l1 = bytes.chunks_exact(8).map(be64).collect();
        Ok(Overlay { file, cipher, size, l1, table: None })
    }

    /// What it says of the disk from `offset` on, and for how many bytes at least.
    pub(crate) fn part(&mut self, offset: u64) -> io::Result<(Part, u64)> {
        if offset >= self.size {
            return Ok((Part::Below, u64::MAX - offset));
        }
        let Some((place, subclusters)) = self.entry(offset)? else {
            return Ok((Part::Below, TABLE_SPAN - offset % TABLE_SPAN));
        };
        if place & COMPRESSED != 0 {
            return Err(corrupt("has a compressed cluster"));
        }
        let within = offset % CLUSTER;
        let first = within / SUBCLUSTER;
        let kind = |n: u64| (subclusters >> n & 1 == 1, subclusters >> (n + 32) & 1 == 1);
        let run = (first + 1..32).take_while(|n| kind(*n) == kind(first)).count() as u64 + 1;
        let part = match kind(first) {
            (_, true) => Part::Zeros,
            (true, _) => Part::Data((place & OFFSET_MASK) + within),
            (false, false) => Part::Below,
        };
        Ok((part, (first + run) * SUBCLUSTER - within))
    }

    /// Where it next says something of its own, at `offset` or after it.
    pub(crate) fn next(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let mut at = offset;
        while at < self.size {
            match self.part(at)? {
                (Part::Below, length) => at += length.min(self.size - at),
                _ => return Ok(Some(at)),
            }
        }
        Ok(None)
    }

    /// Reads what is held at an offset of the file, whole sectors of an encrypted one.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut length = read_at(&self.file, offset, into)?;
        if let Some(cipher) = &self.cipher {
            // None but a writer that means harm ends within a sector.
            length -= length % SECTOR;
            cipher.decrypt(offset, &mut into[..length]);
        }
        // Behind its end there are zeros: a last cluster may be cut short.
        into[length..].fill(0);
        Ok(())
    }

    /// The L2 entry of the cluster at `offset`; None where there is no table for it.
    fn entry(&mut self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        let number = offset / TABLE_SPAN;
        if self.table.as_ref().is_none_or(|(held, _)| *held != number) {
            let place = self.l1.get(number as usize).copied().unwrap_or(0) & OFFSET_MASK;
            let table = match place {
                0 => None,
                place => {
                    let mut table = vec![0; CLUSTER as usize];
                    self.file.read_exact_at(&mut table, place)?;
                    Some(table)
                }
            };
            self.table = Some((number, table));
        }
        let Some((_, Some(table))) = &self.table else { return Ok(None) };
        let at = (offset % TABLE_SPAN / CLUSTER) as usize * ENTRY;
        Ok(Some((be64(&table[at..at + 8]), be64(&table[at + 8..at + ENTRY]))))
    }
}

/// As much as there is.
fn read_at(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < into.len() {
        match file.read_at(&mut into[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn be64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
