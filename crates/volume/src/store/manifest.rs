//! Manifests: which blocks a snapshot consists of.
//!
//! ```text
//!   cumulet1 · bytes of the disk · number of blocks │ index · name │ index · name │ … │ BLAKE3 of all that
//! ```
//!
//! Numbers are big-endian, indexes ascend. What is not named holds zeros.

use super::block::Name;
use crate::{BLOCK_BYTES, SIZE_GIB_MAX};

const MAGIC: &[u8; 8] = b"cumulet1";
const HEADER: usize = 24;
const ENTRY: usize = 4 + Name::BYTES;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Bytes of the disk.
    pub(crate) size: u64,
    /// By index, ascending.
    pub(crate) blocks: Vec<(u32, Name)>,
}

/// A block that two snapshots differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedBlock {
    pub index: u32,
    /// Whether they hold anything there.
    pub in_first: bool,
    pub in_second: bool,
}

impl Manifest {
    pub(crate) fn get(&self, index: u32) -> Option<Name> {
        let at = self.blocks.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(self.blocks[at].1)
    }

    /// The blocks from `start` on.
    pub(crate) fn from(&self, start: u32) -> &[(u32, Name)] {
        &self.blocks[self.blocks.partition_point(|(index, _)| *index < start)..]
    }

    /// With these blocks in place of its own; None where there is none any more. Both ascend.
    pub(crate) fn with(&self, size: u64, changed: &[(u32, Option<Name>)]) -> Manifest {
        let kept = |index: &u32| changed.binary_search_by_key(index, |(index, _)| *index).is_err();
        let mut blocks: Vec<_> = self.blocks.iter().filter(|(index, _)| kept(index)).copied().collect();
        blocks.extend(changed.iter().filter_map(|(index, name)| Some((*index, (*name)?))));
        blocks.sort_unstable_by_key(|(index, _)| *index);
        Manifest { size, blocks }
    }

    /// What differs from `start` on, at most `limit`.
    pub(crate) fn changed(&self, second: &Manifest, start: u32, limit: usize) -> Vec<ChangedBlock> {
        let (mut ours, mut theirs) = (self.from(start), second.from(start));
        let mut changed = Vec::new();
        while changed.len() < limit
            && let Some(index) =
                [ours, theirs].iter().filter_map(|left| left.first()).map(|entry| entry.0).min()
        {
            let take = |left: &mut &[(u32, Name)]| match left.split_first() {
                Some((entry, rest)) if entry.0 == index => {
                    *left = rest;
                    Some(entry.1)
                }
                _ => None,
            };
            let (first, second) = (take(&mut ours), take(&mut theirs));
            if first != second {
                changed.push(ChangedBlock { index, in_first: first.is_some(), in_second: second.is_some() });
            }
        }
        changed
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.blocks.len() * ENTRY + Name::BYTES);
        bytes.extend(MAGIC);
        bytes.extend(self.size.to_be_bytes());
        bytes.extend((self.blocks.len() as u64).to_be_bytes());
        for (index, name) in &self.blocks {
            bytes.extend(index.to_be_bytes());
            bytes.extend(name.0);
        }
        bytes.extend(Name::of(&bytes, None).0);
        bytes
    }

    /// None where it is damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Manifest> {
        let (content, sum) = bytes.split_last_chunk::<{ Name::BYTES }>()?;
        let (header, entries) = content.split_first_chunk::<HEADER>()?;
        let number = |at: usize| header[at..at + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (size, count) = (number(8), number(16));
        let is_whole = Name::of(content, None).0 == *sum
            && header[..8] == *MAGIC
            && size <= u64::from(SIZE_GIB_MAX) << 30
            && entries.len() as u64 == count.checked_mul(ENTRY as u64)?;
        if !is_whole {
            return None;
        }
        let blocks: Vec<_> = entries.chunks_exact(ENTRY).map(entry).collect();
        let is_in_order = blocks.is_sorted_by(|one, next| one.0 < next.0)
            && blocks.last().is_none_or(|last| u64::from(last.0) * (BLOCK_BYTES as u64) < size);
        is_in_order.then_some(Manifest { size, blocks })
    }
}

fn entry(bytes: &[u8]) -> (u32, Name) {
    let mut name = [0; Name::BYTES];
    name.copy_from_slice(&bytes[4..ENTRY]);
    (u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), Name(name))
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(blocks: &[(u32, u8)]) -> Manifest {
        let blocks = blocks.iter().map(|(index, content)| (*index, Name([*content; 32]))).collect();
        Manifest { size: 1 << 30, blocks }
    }

    #[test]
    fn it_is_read_as_it_was_written_or_not_at_all() {
        for manifest in [manifest(&[]), manifest(&[(0, 1), (7, 2), (2047, 1)])] {
            let bytes = manifest.encode();
            assert_eq!(Manifest::decode(&bytes), Some(manifest));
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert_eq!(Manifest::decode(&damaged), None, "{at}");
                assert_eq!(Manifest::decode(&bytes[..at]), None, "{at}");
            }
        }
        assert_eq!(Manifest::decode(&manifest(&[(2, 1), (1, 1)]).encode()), None, "out of order");
        assert_eq!(Manifest::decode(&manifest(&[(2048, 1)]).encode()), None, "behind the end");
    }

    #[test]
    fn what_differs_is_told_page_by_page() {
        let first = manifest(&[(1, 1), (2, 1), (3, 1), (9, 9)]);
        let second = first.with(1 << 30, &[(2, Some(Name([2; 32]))), (3, None), (5, Some(Name([5; 32])))]);
        assert_eq!(second, manifest(&[(1, 1), (2, 2), (5, 5), (9, 9)]));
        let changed = |index, in_first, in_second| ChangedBlock { index, in_first, in_second };
        let all = [changed(2, true, true), changed(3, true, false), changed(5, false, true)];
        assert_eq!(first.changed(&second, 0, 9), all);
        assert_eq!(first.changed(&second, 3, 1), all[1..2]);
        assert_eq!((second.get(5), second.get(3)), (Some(Name([5; 32])), None));
    }
}
