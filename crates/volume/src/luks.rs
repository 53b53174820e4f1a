//! The header by which QEMU finds a layer's key (LUKS1 On-Disk Format Specification, version 1.2.3), with one key slot.
//! Written here, read by QEMU only: all that it says follows from the data key, so that nobody here need believe a file.

use crate::encryption::{Cipher, LayerKey, SECTOR};
use model::SecretKey;
use pbkdf2::pbkdf2_hmac;
use sha2::{Digest, Sha256};

/// What opens a slot is a key of 256 bits: hashing it often makes it no harder to guess.
const ITERATIONS: u32 = 1000;
/// Over so many times its length the key is spread; QEMU takes no other number.
const STRIPES: usize = 4000;
const SLOTS: usize = 8;
const SLOT_AT: usize = 4096;
/// Bytes from one slot's key material to the next.
const SLOT: usize = (LayerKey::BYTES * STRIPES).next_multiple_of(4096);
/// All of it, with the slots that are not used.
pub(crate) const BYTES: usize = SLOT_AT + SLOTS * SLOT;

const ENABLED: u32 = 0x00ac_71f3;
const DISABLED: u32 = 0x0000_dead;
const TEXT: usize = 32;
const SALT: usize = 32;
const UUID: usize = 40;
const DIGEST: usize = 20;

/// As far as anything is in it: the header and the key material of the first slot.
pub(crate) fn header(mut key: LayerKey, disk: &SecretKey) -> Vec<u8> {
    let (mut digest_salt, mut slot_salt, mut uuid) = ([0; SALT], [0; SALT], [0; UUID / 2 - 2]);
    for salt in [&mut digest_salt[..], &mut slot_salt, &mut uuid] {
        key.stream.fill(salt);
    }
    let mut digest = [0; DIGEST];
    pbkdf2_hmac::<Sha256>(&key.bytes, &digest_salt, ITERATIONS, &mut digest);
    let mut header = Vec::with_capacity(SLOT_AT + SLOT);
    let number = |header: &mut Vec<u8>, number: usize| header.extend((number as u32).to_be_bytes());
    header.extend(b"LUKS\xba\xbe\x00\x01");
    for text in ["aes", "xts-plain64", "sha256"] {
        header.extend(text.as_bytes());
        header.resize(header.len() + TEXT - text.len(), 0);
    }
    number(&mut header, BYTES / SECTOR);
    number(&mut header, LayerKey::BYTES);
    header.extend(digest);
    header.extend(digest_salt);
    number(&mut header, ITERATIONS as usize);
    let uuid: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    header.extend(uuid.as_bytes());
    header.resize(header.len() + UUID - uuid.len(), 0);
    for slot in 0..SLOTS {
        let (state, iterations, salt) = match slot {
            0 => (ENABLED, ITERATIONS, slot_salt),
            _ => (DISABLED, 0, [0; SALT]),
        };
        header.extend(state.to_be_bytes());
        header.extend(iterations.to_be_bytes());
        header.extend(salt);
        number(&mut header, (SLOT_AT + slot * SLOT) / SECTOR);
        number(&mut header, STRIPES);
    }
    header.resize(SLOT_AT, 0);
    let mut opens = [0; LayerKey::BYTES];
    pbkdf2_hmac::<Sha256>(disk.passphrase().as_bytes(), &slot_salt, ITERATIONS, &mut opens);
    let mut material = spread(&mut key);
    Cipher::new(&opens).encrypt(0, &mut material);
    header.extend(material);
    header
}

/// The key in stripes of which every single one is needed to have it back.
fn spread(key: &mut LayerKey) -> Vec<u8> {
    let mut material = vec![0; LayerKey::BYTES * STRIPES];
    let (stripes, last) = material.split_at_mut(LayerKey::BYTES * (STRIPES - 1));
    key.stream.fill(stripes);
    let mut sum = [0; LayerKey::BYTES];
    for stripe in stripes.chunks_exact(LayerKey::BYTES) {
        sum.iter_mut().zip(stripe).for_each(|(sum, byte)| *sum ^= byte);
        diffuse(&mut sum);
    }
    let bytes = sum.iter().zip(key.bytes).map(|(sum, byte)| sum ^ byte);
    last.iter_mut().zip(bytes).for_each(|(last, byte)| *last = byte);
    material
}

fn diffuse(block: &mut [u8; LayerKey::BYTES]) {
    for (number, part) in block.chunks_exact_mut(<Sha256 as Digest>::output_size()).enumerate() {
        let hash = Sha256::new().chain_update((number as u32).to_be_bytes()).chain_update(&*part).finalize();
        part.copy_from_slice(&hash);
    }
}
