//! Several overlays that lie over each other, written as one.
//!
//! What is written is never written to again, so that all of it can be laid out one after the other: tables behind the
//! clusters that they tell of, and in the end the count of one for everything that there is.

use super::{CLUSTER, ENTRIES, ENTRY, OFFSET_MASK, Overlay, Part, SUBCLUSTER, TABLE_SPAN, be64, corrupt};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// In an entry: nothing else has the cluster.
const COPIED: u64 = 1 << 63;
/// Clusters that one block of counts tells of, at 16 bits each.
const COUNTS: u64 = CLUSTER / 2;
const COUNT_BITS_LOG: u32 = 4;

/// Writes into `file`, which is an empty overlay of the same size, what these say, the uppermost first.
pub(crate) fn merge(layers: &mut [Overlay], file: &File) -> io::Result<()> {
    let mut header = [0; 104];
    file.read_exact_at(&mut header, 0)?;
    let (l1_at, counts_at) = (be64(&header[40..48]), be64(&header[48..56]));
    if be64(&header[92..100]) as u32 != COUNT_BITS_LOG {
        return Err(corrupt("counts otherwise than here"));
    }
    let mut writer = Writer { file, clusters: file.metadata()?.len().div_ceil(CLUSTER) };
    let mut at = 0;
    let mut table: Option<(u64, Vec<u8>)> = None;
    loop {
        let next = next(layers, at)?;
        let number = next.map(|next| next / TABLE_SPAN);
        if let Some((done, entries)) = table.take_if(|(current, _)| Some(*current) != number) {
            let place = writer.append(&entries)?;
            file.write_all_at(&(place | COPIED).to_be_bytes(), l1_at + done * 8)?;
        }
        let Some(next) = next else { break };
        let cluster = next / CLUSTER * CLUSTER;
        let (_, entries) = table.get_or_insert_with(|| (next / TABLE_SPAN, vec![0; CLUSTER as usize]));
        let entry = (cluster % TABLE_SPAN / CLUSTER) as usize * ENTRY;
        debug_assert!(cluster / CLUSTER % ENTRIES * ENTRY as u64 == entry as u64);
        let (place, subclusters) = writer.cluster(layers, cluster)?;
        entries[entry..entry + 8].copy_from_slice(&place.to_be_bytes());
        entries[entry + 8..entry + ENTRY].copy_from_slice(&subclusters.to_be_bytes());
        at = cluster + CLUSTER;
    }
    writer.count(counts_at)
}

/// Where any of them says something of its own, at `at` or after it.
fn next(layers: &mut [Overlay], at: u64) -> io::Result<Option<u64>> {
    let mut first = None;
    for layer in layers {
        first = layer.next(at)?.into_iter().chain(first).min();
    }
    Ok(first)
}

struct Writer<'a> {
    file: &'a File,
    /// How long the file is.
    clusters: u64,
}

impl Writer<'_> {
    /// Returns where it is.
    fn append(&mut self, cluster: &[u8]) -> io::Result<u64> {
        let place = self.clusters * CLUSTER;
        self.file.write_all_at(cluster, place)?;
        self.clusters += 1;
        Ok(place)
    }

    /// Writes the cluster of the disk at `offset`, if anything is held there, and returns its entry.
    fn cluster(&mut self, layers: &mut [Overlay], offset: u64) -> io::Result<(u64, u64)> {
        let mut data = vec![0; CLUSTER as usize];
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
        let is_held = subclusters as u32 != 0;
        Ok((if is_held { self.append(&data)? | COPIED } else { 0 }, subclusters))
    }

    /// Counts one for every cluster of the file, those of the counts included.
    fn count(&mut self, table_at: u64) -> io::Result<()> {
        let mut first = [0; 8];
        self.file.read_exact_at(&mut first, table_at)?;
        let mut blocks = vec![u64::from_be_bytes(first) & OFFSET_MASK];
        while blocks.len() as u64 * COUNTS < self.clusters {
            blocks.push(self.clusters * CLUSTER);
            self.clusters += 1;
        }
        for (number, place) in blocks.iter().enumerate() {
            let before = number as u64 * COUNTS;
            let count = (self.clusters - before).min(COUNTS) as usize;
            let mut block = [0, 1].repeat(count);
            block.resize(CLUSTER as usize, 0);
            self.file.write_all_at(&block, *place)?;
            self.file.write_all_at(&place.to_be_bytes(), table_at + number as u64 * 8)?;
        }
        Ok(())
    }
}
