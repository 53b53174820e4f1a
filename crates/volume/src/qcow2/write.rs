//! Overlays that are made: empty ones for machines to write to, and such as are written once, of several that lie over
//! each other or of blocks.
//!
//! ```text
//!   header │ table of counts │ counts │ L1 │ LUKS header, of an encrypted one ┃ clusters and their tables …
//! ```
//!
//! What is written once is laid out one after the other: tables behind the clusters that they tell of, and in the end
//! the count of one for everything that there is. Blocks may also come one by one, each to its place, and be told of
//! afterwards.

use super::{
    CLUSTER, CLUSTER_BITS, ENCRYPTED_LUKS, ENTRY, FEATURE_EXTENDED_L2, MAGIC, Overlay, Part, SUBCLUSTER,
    TABLE_SPAN, VERSION, corrupt, layer_key,
};
use crate::encryption::{Cipher, DataKey};
use crate::{BLOCK_BYTES, Result, failed, luks};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// In an entry: nothing else has the cluster.
const COPIED: u64 = 1 << 63;
/// Clusters that one block of counts tells of, at 16 bits each.
const COUNTS: u64 = CLUSTER / 2;
const COUNT_BITS_LOG: u32 = 4;
/// Of a block.
const CLUSTERS: u64 = BLOCK_BYTES as u64 / CLUSTER;
const COUNTS_TABLE_AT: u64 = CLUSTER;
const COUNTS_AT: u64 = 2 * CLUSTER;
const L1_AT: u64 = 3 * CLUSTER;
const HEADER: u32 = 112;
const EXTENSION_LUKS: u32 = 0x0537_be77;
const EXTENSION_LUKS_BYTES: u32 = 16;

/// Makes an empty overlay of `size` bytes. It does not name what it lies over. Not yet durable.
pub(crate) fn create(path: &Path, size: u64, key: Option<&DataKey>) -> Result<()> {
    let create = || {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let luks_at = luks_at(size);
        let end = match key {
            None => luks_at,
            Some(key) => {
                let header = layer_key(path, Some(key)).map(|layer| luks::header(layer, &key.of_disk()));
                file.write_all_at(&header.unwrap_or_default(), luks_at)?;
                encrypted_end(size)
            }
        };
        file.set_len(end)?;
        file.write_all_at(&[0, 1].repeat((end / CLUSTER) as usize), COUNTS_AT)?;
        file.write_all_at(&COUNTS_AT.to_be_bytes(), COUNTS_TABLE_AT)?;
        file.write_all_at(&header(size, key.map(|_| luks_at)), 0)
    };
    create().map_err(failed("can't make", path))
}

/// Where the header of LUKS is, or clusters begin.
fn luks_at(size: u64) -> u64 {
    L1_AT + (size.div_ceil(TABLE_SPAN) * 8).next_multiple_of(CLUSTER)
}

/// Bytes of an empty overlay of this size that is encrypted.
pub(crate) fn encrypted_end(size: u64) -> u64 {
    luks_at(size) + (luks::BYTES as u64).next_multiple_of(CLUSTER)
}

fn header(size: u64, luks_at: Option<u64>) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER as usize + 32);
    let (backing_name, snapshots, compression) = (0u64, 0u64, 0u64);
    let mut put = |bytes: &[u8]| header.extend(bytes);
    put(&MAGIC.to_be_bytes());
    put(&VERSION.to_be_bytes());
    put(&backing_name.to_be_bytes());
    put(&0u32.to_be_bytes());
    put(&CLUSTER_BITS.to_be_bytes());
    put(&size.to_be_bytes());
    put(&luks_at.map_or(0, |_| ENCRYPTED_LUKS).to_be_bytes());
    put(&(size.div_ceil(TABLE_SPAN) as u32).to_be_bytes());
    put(&L1_AT.to_be_bytes());
    put(&COUNTS_TABLE_AT.to_be_bytes());
    put(&1u32.to_be_bytes());
    put(&0u32.to_be_bytes());
    put(&snapshots.to_be_bytes());
    put(&FEATURE_EXTENDED_L2.to_be_bytes());
    // Neither features that may be passed over nor such as a writer clears.
    put(&[0; 16]);
    put(&COUNT_BITS_LOG.to_be_bytes());
    put(&HEADER.to_be_bytes());
    put(&compression.to_be_bytes());
    if let Some(luks_at) = luks_at {
        put(&EXTENSION_LUKS.to_be_bytes());
        put(&EXTENSION_LUKS_BYTES.to_be_bytes());
        put(&luks_at.to_be_bytes());
        put(&(luks::BYTES as u64).to_be_bytes());
    }
    // No further extension.
    put(&[0; 8]);
    header
}

/// Writes into an empty overlay of the same size what these say, the uppermost first.
pub(crate) fn merge(layers: &mut [Overlay], path: &Path, key: Option<&DataKey>) -> io::Result<()> {
    let mut writer = Writer::open(path, key)?;
    let mut at = 0;
    while let Some(next) = next(layers, at)? {
        let cluster = next / CLUSTER * CLUSTER;
        let mut data = vec![0; CLUSTER as usize];
        let subclusters = read(layers, cluster, &mut data)?;
        writer.put(cluster, data, subclusters)?;
        at = cluster + CLUSTER;
    }
    writer.finish()
}

/// Writes blocks into an empty overlay, whose indexes ascend.
pub(crate) fn fill(
    blocks: impl Iterator<Item = Result<(u32, Vec<u8>)>>,
    path: &Path,
    key: Option<&DataKey>,
) -> Result<()> {
    let failed = || failed("can't write", path);
    let mut writer = Writer::open(path, key).map_err(failed())?;
    for block in blocks {
        let (index, block) = block?;
        for (number, data) in block.chunks_exact(CLUSTER as usize).enumerate() {
            let offset = u64::from(index) * BLOCK_BYTES as u64 + number as u64 * CLUSTER;
            // Nothing lies below: where nothing is held there are zeros.
            if data.iter().any(|byte| *byte != 0) {
                writer.put(offset, data.to_vec(), u64::from(u32::MAX)).map_err(failed())?;
            }
        }
    }
    writer.finish().map_err(failed())
}

/// Has an encrypted overlay of this size tell of blocks, by their indexes, which ascend: they were written behind its empty
/// form, one after the other. May be repeated as long as nobody has it open.
pub(crate) fn tell(blocks: impl ExactSizeIterator<Item = u32>, file: &File, size: u64) -> io::Result<()> {
    let begin = encrypted_end(size) / CLUSTER;
    let clusters = begin + blocks.len() as u64 * CLUSTERS;
    let mut writer = Writer { file: file.try_clone()?, cipher: None, clusters, table: None };
    // What was told before a crash.
    file.set_len(clusters * CLUSTER)?;
    for (place, index) in blocks.enumerate() {
        for number in 0..CLUSTERS {
            let place = (begin + place as u64 * CLUSTERS + number) * CLUSTER;
            let offset = u64::from(index) * BLOCK_BYTES as u64 + number * CLUSTER;
            writer.tell(offset, place | COPIED, u64::from(u32::MAX))?;
        }
    }
    writer.finish()
}

/// Where any of them says something of its own, at `at` or after it.
fn next(layers: &mut [Overlay], at: u64) -> io::Result<Option<u64>> {
    let mut first = None;
    for layer in layers {
        first = layer.next(at)?.into_iter().chain(first).min();
    }
    Ok(first)
}

/// What they say of the cluster of the disk at `offset`, and which subclusters of it are held, or zeros.
fn read(layers: &mut [Overlay], offset: u64, data: &mut [u8]) -> io::Result<u64> {
    let mut subclusters = 0u64;
    for number in 0..CLUSTER / SUBCLUSTER {
        let within = (number * SUBCLUSTER) as usize;
        for layer in &mut *layers {
            match layer.part(offset + within as u64)?.0 {
                Part::Below => continue,
                Part::Zeros => subclusters |= 1 << (number + 32),
                Part::Data(place) => {
                    layer.read(place, &mut data[within..within + SUBCLUSTER as usize])?;
                    subclusters |= 1 << number;
                }
            }
            break;
        }
    }
    Ok(subclusters)
}

struct Writer {
    file: File,
    cipher: Option<Cipher>,
    /// How long the file is.
    clusters: u64,
    /// The L2 table of the clusters that are written now, by its number.
    table: Option<(u64, Vec<u8>)>,
}

impl Writer {
    fn open(path: &Path, key: Option<&DataKey>) -> io::Result<Writer> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let cipher = layer_key(path, key).map(|key| key.cipher());
        Ok(Writer { clusters: file.metadata()?.len().div_ceil(CLUSTER), file, cipher, table: None })
    }

    /// Writes the cluster of the disk at `offset`, behind those before, if anything of it is held.
    fn put(&mut self, offset: u64, mut data: Vec<u8>, subclusters: u64) -> io::Result<()> {
        let mut place = 0;
        if subclusters as u32 != 0 {
            if let Some(cipher) = &self.cipher {
                cipher.encrypt(self.clusters * CLUSTER, &mut data);
            }
            place = self.append(&data)? | COPIED;
        }
        self.tell(offset, place, subclusters)
    }

    /// Puts the entry of the cluster of the disk at `offset` into its table.
    fn tell(&mut self, offset: u64, place: u64, subclusters: u64) -> io::Result<()> {
        let number = offset / TABLE_SPAN;
        if self.table.as_ref().is_some_and(|(current, _)| *current != number) {
            self.end_table()?;
        }
        let (_, entries) = self.table.get_or_insert_with(|| (number, vec![0; CLUSTER as usize]));
        let entry = (offset % TABLE_SPAN / CLUSTER) as usize * ENTRY;
        entries[entry..entry + 8].copy_from_slice(&place.to_be_bytes());
        entries[entry + 8..entry + ENTRY].copy_from_slice(&subclusters.to_be_bytes());
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.end_table()?;
        self.count()
    }

    fn end_table(&mut self) -> io::Result<()> {
        let Some((number, entries)) = self.table.take() else { return Ok(()) };
        let place = self.append(&entries)?;
        self.file.write_all_at(&(place | COPIED).to_be_bytes(), L1_AT + number * 8)
    }

    /// Returns where it is.
    fn append(&mut self, cluster: &[u8]) -> io::Result<u64> {
        let place = self.clusters * CLUSTER;
        self.file.write_all_at(cluster, place)?;
        self.clusters += 1;
        Ok(place)
    }

    /// Counts one for every cluster of the file, those of the counts included.
    fn count(&mut self) -> io::Result<()> {
        let mut blocks = vec![COUNTS_AT];
        while blocks.len() as u64 * COUNTS < self.clusters {
            blocks.push(self.clusters * CLUSTER);
            self.clusters += 1;
        }
        if blocks.len() as u64 * 8 > CLUSTER {
            return Err(corrupt("is larger than its counts can tell"));
        }
        for (number, place) in blocks.iter().enumerate() {
            let before = number as u64 * COUNTS;
            let count = (self.clusters - before).min(COUNTS) as usize;
            let mut block = [0, 1].repeat(count);
            block.resize(CLUSTER as usize, 0);
            self.file.write_all_at(&block, *place)?;
            self.file.write_all_at(&place.to_be_bytes(), COUNTS_TABLE_AT + number as u64 * 8)?;
        }
        Ok(())
    }
}
