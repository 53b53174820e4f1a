//! Blocks: named by what they hold, packed, and never believed before they are looked at.

use crate::BLOCK_BYTES;
use crate::encryption::DataKey;

/// BLAKE3 of what a block holds, keyed where it is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Name(pub(crate) [u8; Name::BYTES]);

/// The first byte of a packed block tells how the others are to be read, but of one that is as long as what it holds: that
/// is kept as it is.
const ZSTD: u8 = 1;
/// A packed block, encrypted.
const SEALED: u8 = 2;
/// The fastest: a disk's data is written once and read seldom.
const LEVEL: i32 = 1;
/// How many places of a block are looked at, and how much at each.
const SAMPLES: usize = 8;
const SAMPLE_BYTES: usize = 4096;

impl Name {
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn of(data: &[u8], key: Option<&DataKey>) -> Name {
        key.map_or_else(|| Name(*blake3::hash(data).as_bytes()), |key| key.name(data))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        blake3::Hash::from(self.0).to_hex().fmt(f)
    }
}

/// As a block is kept: compressed where that makes it smaller, then encrypted, with a key.
pub(crate) fn pack(name: Name, data: Vec<u8>, key: Option<&DataKey>) -> Vec<u8> {
    let packed = compress(data);
    match key {
        None => packed,
        Some(key) => [&[SEALED], &*key.seal(name, &packed)].concat(),
    }
}

fn compress(data: Vec<u8>) -> Vec<u8> {
    if is_worth_it(&data)
        && let Ok(compressed) = zstd::bulk::compress(&data, LEVEL)
        && compressed.len() + 1 < data.len()
    {
        return [&[ZSTD], &*compressed].concat();
    }
    data
}

/// A look at some of it: what is compressed already, or encrypted, takes long to be found so.
fn is_worth_it(data: &[u8]) -> bool {
    let samples = data.chunks_exact(data.len() / SAMPLES).map(|part| &part[..SAMPLE_BYTES]);
    let sample = samples.collect::<Vec<_>>().concat();
    let compressed = zstd::bulk::compress(&sample, LEVEL);
    compressed.is_ok_and(|compressed| compressed.len() < sample.len() / 20 * 19)
}

/// What a block of this name holds; None where what was kept is damaged.
pub(crate) fn unpack(name: Name, packed: &[u8], key: Option<&DataKey>) -> Option<Vec<u8>> {
    let data = match key {
        None => decompress(packed)?,
        Some(key) => decompress(&key.open(name, packed.strip_prefix(&[SEALED])?)?)?,
    };
    (data.len() == BLOCK_BYTES && Name::of(&data, key) == name).then_some(data)
}

fn decompress(packed: &[u8]) -> Option<Vec<u8>> {
    if packed.len() == BLOCK_BYTES {
        return Some(packed.to_vec());
    }
    // As it was kept at first.
    if packed.len() == BLOCK_BYTES + 1
        && let Some(plain) = packed.strip_prefix(&[0])
    {
        return Some(plain.to_vec());
    }
    // No more than a block, whatever it says of itself.
    zstd::bulk::decompress(packed.strip_prefix(&[ZSTD])?, BLOCK_BYTES).ok()
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

    fn key() -> DataKey {
        DataKey::new(&[7; 32].into())
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        for data in [vec![7; BLOCK_BYTES], noise()] {
            for key in [None, Some(key())] {
                let name = Name::of(&data, key.as_ref());
                let packed = pack(name, data.clone(), key.as_ref());
                assert!(packed.len() <= BLOCK_BYTES + 42);
                assert!(unpack(name, &packed, key.as_ref()).as_ref() == Some(&data));
            }
        }
        let (data, name) = (noise(), Name::of(&noise(), None));
        assert!(unpack(name, &[&[0], &*data].concat(), None) == Some(data), "as it was kept at first");
        let data = vec![7; BLOCK_BYTES];
        assert!(pack(Name::of(&data, None), data, None).len() < 1000);
    }

    #[test]
    fn whatever_is_damaged_is_seen() {
        for data in [vec![7; BLOCK_BYTES], noise()] {
            for key in [None, Some(key())] {
                let key = key.as_ref();
                let name = Name::of(&data, key);
                let packed = pack(name, data.clone(), key);
                for at in (0..packed.len()).step_by(packed.len() / 20 + 1) {
                    let mut damaged = packed.clone();
                    damaged[at] ^= 0x10;
                    assert!(unpack(name, &damaged, key).is_none(), "{at}");
                }
                assert!(unpack(name, &packed[..packed.len() - 1], key).is_none());
                assert!(unpack(name, &[], key).is_none());
                assert!(unpack(Name::of(b"other", key), &packed, key).is_none());
            }
        }
    }
}
