//! Blocks: named by what they hold, packed, and never believed before they are looked at.

use crate::BLOCK_BYTES;

/// BLAKE3 of what a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Name(pub(crate) [u8; Name::BYTES]);

/// The first byte of a packed block tells how the others are to be read.
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// The fastest: a disk's data is written once and read seldom.
const LEVEL: i32 = 1;
/// How many places of a block are looked at, and how much at each.
const SAMPLES: usize = 8;
const SAMPLE_BYTES: usize = 4096;

impl Name {
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn of(data: &[u8]) -> Name {
        Name(*blake3::hash(data).as_bytes())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        blake3::Hash::from(self.0).to_hex().fmt(f)
    }
}

/// As a block is kept: compressed where that makes it smaller.
pub(crate) fn pack(data: &[u8]) -> Vec<u8> {
    if is_worth_it(data)
        && let Ok(compressed) = zstd::bulk::compress(data, LEVEL)
        && compressed.len() < data.len()
    {
        return [&[ZSTD], &*compressed].concat();
    }
    [&[PLAIN], data].concat()
}

/// A look at some of it: what is compressed already, or encrypted, takes long to be found so.
fn is_worth_it(data: &[u8]) -> bool {
    let samples = data.chunks_exact(data.len() / SAMPLES).map(|part| &part[..SAMPLE_BYTES]);
    let sample: Vec<u8> = samples.flatten().copied().collect();
    let compressed = zstd::bulk::compress(&sample, LEVEL);
    compressed.is_ok_and(|compressed| compressed.len() < sample.len() / 20 * 19)
}

/// What a block of this name holds; None where what was kept is damaged.
pub(crate) fn unpack(name: Name, packed: &[u8]) -> Option<Vec<u8>> {
    let (kind, rest) = packed.split_first()?;
    let data = match *kind {
        PLAIN => rest.to_vec(),
        // No more than a block, whatever it says of itself.
        ZSTD => zstd::bulk::decompress(rest, BLOCK_BYTES).ok()?,
        _ => return None,
    };
    (data.len() == BLOCK_BYTES && Name::of(&data) == name).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise() -> Vec<u8> {
        let mut reader = blake3::Hasher::new().finalize_xof();
        let mut data = vec![0; BLOCK_BYTES];
        reader.fill(&mut data);
        data
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        for data in [vec![7; BLOCK_BYTES], noise()] {
            let packed = pack(&data);
            assert!(packed.len() <= BLOCK_BYTES + 1);
            assert!(unpack(Name::of(&data), &packed).as_ref() == Some(&data));
        }
        assert!(pack(&vec![7; BLOCK_BYTES]).len() < 1000);
    }

    #[test]
    fn whatever_is_damaged_is_seen() {
        for data in [vec![7; BLOCK_BYTES], noise()] {
            let (name, packed) = (Name::of(&data), pack(&data));
            for at in (0..packed.len()).step_by(packed.len() / 20 + 1) {
                let mut damaged = packed.clone();
                damaged[at] ^= 0x10;
                assert!(unpack(name, &damaged).is_none(), "{at}");
            }
            assert!(unpack(name, &packed[..packed.len() - 1]).is_none());
            assert!(unpack(name, &[]).is_none());
            assert!(unpack(Name::of(b"other"), &packed).is_none());
        }
    }
}
