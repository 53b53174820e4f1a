//! Encryption at rest: of one data key, which a volume, its snapshots and the volumes made of those share, comes a key
//! for each use.
//!
//! ```text
//!   data key ─┬▶ a layer's, by its file's name     AES-256-XTS of its clusters, by their place in the file (`luks`)
//!             ├▶ the disk's                        what QEMU is told; opens each layer's own
//!             ├▶ names of blocks                   keyed, so that none but its owner sees which are the same
//!             └▶ blocks, and another data key      XChaCha20-Poly1305
//! ```
//!
//! Data keys come from control whenever it speaks of a disk (`Disks::tell`) and stay in memory: the disk has what
//! tells one from another, and for as long as a layer is filled from what another key opens, that one sealed with the
//! layer's (`filling`).

use crate::catalogue::{Disks, Head};
use crate::store::Name;
use crate::{Result, VolumeError};
use aes::Aes256;
use aes::cipher::KeyInit;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use model::SecretKey;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use xts_mode::{Xts128, get_tweak_default};

/// What an AES-XTS tweak counts.
pub(crate) const SECTOR: usize = 512;
const NONCE: usize = 24;
/// In place of a block's name, where a data key is sealed. No block has it.
const A_KEY: Name = Name([0; Name::BYTES]);

/// A data key and what comes of it.
pub(crate) struct DataKey {
    key: SecretKey,
    pub(crate) id: String,
    names: [u8; 32],
    nonces: [u8; 32],
    blocks: XChaCha20Poly1305,
}

impl DataKey {
    pub(crate) fn new(key: &SecretKey) -> DataKey {
        let derive = |of: &str| blake3::derive_key(of, key.expose());
        DataKey {
            id: hex(&derive("cumulet 2026 the id of a data key")[..16]),
            names: derive("cumulet 2026 names of blocks"),
            nonces: derive("cumulet 2026 nonces of blocks"),
            blocks: XChaCha20Poly1305::new(&derive("cumulet 2026 blocks").into()),
            key: key.clone(),
        }
    }

    pub(crate) fn of_disk(&self) -> SecretKey {
        disk_key(&self.key)
    }

    pub(crate) fn of_layer(&self, file_name: &str) -> LayerKey {
        let mut hasher = blake3::Hasher::new_derive_key("cumulet 2026 a layer");
        let mut stream = hasher.update(self.key.expose()).update(file_name.as_bytes()).finalize_xof();
        let mut bytes = [0; LayerKey::BYTES];
        stream.fill(&mut bytes);
        LayerKey { bytes, stream }
    }

    pub(crate) fn name(&self, data: &[u8]) -> Name {
        Name(*blake3::keyed_hash(&self.names, data).as_bytes())
    }

    /// The nonce is of what is sealed, so that none is ever used for two.
    pub(crate) fn seal(&self, name: Name, packed: &[u8]) -> Vec<u8> {
        let hash = blake3::keyed_hash(&self.nonces, packed);
        let nonce = &hash.as_bytes()[..NONCE];
        let sealed = self.blocks.encrypt(XNonce::from_slice(nonce), Payload { msg: packed, aad: &name.0 });
        // It fails for what is longer than any block by far. Nothing is what can't be opened.
        [nonce, &sealed.unwrap_or_default()].concat()
    }

    /// None where it is damaged.
    pub(crate) fn open(&self, name: Name, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE)?;
        self.blocks.decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: &name.0 }).ok()
    }

    pub(crate) fn seal_key(&self, other: &DataKey) -> Vec<u8> {
        self.seal(A_KEY, other.key.expose())
    }

    /// None where it is damaged.
    pub(crate) fn open_key(&self, sealed: &[u8]) -> Option<DataKey> {
        let bytes: [u8; SecretKey::BYTES] = self.open(A_KEY, sealed)?.try_into().ok()?;
        Some(DataKey::new(&bytes.into()))
    }
}

/// Those that were told, by their ids.
#[derive(Default)]
pub(crate) struct Keys(RwLock<HashMap<String, Arc<DataKey>>>);

impl Keys {
    pub(crate) fn get(&self, id: &str) -> Result<Arc<DataKey>> {
        let key = self.0.read().get(id).cloned();
        key.ok_or_else(|| VolumeError::Locked(id.to_owned()))
    }
}

/// What QEMU opens the layers by that are encrypted with this data key.
pub fn disk_key(data_key: &SecretKey) -> SecretKey {
    blake3::derive_key("cumulet 2026 a disk", data_key.expose()).into()
}

/// The key of one layer, and a stream of bytes of its own that look random.
pub(crate) struct LayerKey {
    pub(crate) bytes: [u8; LayerKey::BYTES],
    pub(crate) stream: blake3::OutputReader,
}

impl LayerKey {
    pub(crate) const BYTES: usize = 64;

    pub(crate) fn cipher(&self) -> Cipher {
        Cipher::new(&self.bytes)
    }
}

/// AES-256-XTS with tweaks that count sectors (dm-crypt's `aes-xts-plain64`).
pub(crate) struct Cipher(Xts128<Aes256>);

impl Cipher {
    pub(crate) fn new(key: &[u8; LayerKey::BYTES]) -> Cipher {
        let (first, second) = key.split_at(LayerKey::BYTES / 2);
        Cipher(Xts128::new(Aes256::new(first.into()), Aes256::new(second.into())))
    }

    /// Of whole sectors that are, or shall be, at this offset.
    pub(crate) fn encrypt(&self, offset: u64, data: &mut [u8]) {
        let first = u128::from(offset / SECTOR as u64);
        self.0.encrypt_area(data, SECTOR, first, get_tweak_default);
    }

    pub(crate) fn decrypt(&self, offset: u64, data: &mut [u8]) {
        let first = u128::from(offset / SECTOR as u64);
        self.0.decrypt_area(data, SECTOR, first, get_tweak_default);
    }

    /// Of a file in which nothing but zeros is where nothing was written.
    pub(crate) fn decrypt_with_holes(&self, offset: u64, data: &mut [u8]) {
        for (number, sector) in data.chunks_mut(SECTOR).enumerate() {
            if sector.iter().any(|byte| *byte != 0) {
                self.decrypt(offset + (number * SECTOR) as u64, sector);
            }
        }
    }
}

impl Disks {
    /// Keeps a data key in mind, for what is encrypted with it.
    pub fn tell(&self, key: &SecretKey) {
        self.told(key);
    }

    pub(crate) fn told(&self, key: &SecretKey) -> Arc<DataKey> {
        let key = Arc::new(DataKey::new(key));
        let known = self.keys.0.write().entry(key.id.clone()).or_insert_with(|| key.clone()).clone();
        if Arc::ptr_eq(&known, &key) {
            // Layers may have waited for it.
            self.lacking.notify_one();
        }
        known
    }

    /// None where the disk is not encrypted.
    pub(crate) fn key_of(&self, head: &Head) -> Result<Option<Arc<DataKey>>> {
        head.key.as_deref().map(|id| self.keys.get(id)).transpose()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> DataKey {
        DataKey::new(&[byte; 32].into())
    }

    /// IEEE Std 1619-2007, Annex B, vector 10: AES-256 and the data unit 255.
    #[test]
    fn the_mode_is_the_standard_s() {
        let half = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let first = half("2718281828459045235360287471352662497757247093699959574966967627");
        let second = half("3141592653589793238462643383279502884197169399375105820974944592");
        let mut bytes = [0; LayerKey::BYTES];
        bytes[..32].copy_from_slice(&first);
        bytes[32..].copy_from_slice(&second);
        let plain: Vec<u8> = (0..SECTOR).map(|at| at as u8).collect();
        let mut data = plain.clone();
        let cipher = Cipher::new(&bytes);
        cipher.encrypt(255 * SECTOR as u64, &mut data);
        assert_eq!(hex(&data[..16]), "1c3b3a102f770386e4836c99e370cf9b");
        cipher.decrypt_with_holes(255 * SECTOR as u64, &mut data);
        assert_eq!(data, plain);
    }

    #[test]
    fn each_use_and_each_layer_has_its_key() {
        let (one, other) = (key(1), key(2));
        assert_ne!(one.id, other.id);
        assert_ne!(one.of_layer("a").bytes, one.of_layer("b").bytes);
        assert_ne!(one.of_layer("a").bytes, other.of_layer("a").bytes);
        assert!(one.name(b"same") == key(1).name(b"same") && one.name(b"same") != other.name(b"same"));
        assert!(!format!("{:?}", one.of_disk()).contains(char::is_numeric));
    }

    #[test]
    fn a_block_opens_as_what_it_is_and_with_its_key_alone() {
        let (one, other) = (key(1), key(2));
        let name = one.name(b"data");
        let sealed = one.seal(name, b"data");
        assert_eq!(one.open(name, &sealed).unwrap(), b"data");
        assert!(other.open(name, &sealed).is_none());
        assert!(one.open(one.name(b"others"), &sealed).is_none());
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(one.open(name, &damaged).is_none(), "{at}");
        }
        assert!(one.open(name, &sealed[..10]).is_none());
    }

    #[test]
    fn a_key_is_sealed_with_another() {
        let (one, other) = (key(1), key(2));
        let sealed = one.seal_key(&other);
        assert_eq!(one.open_key(&sealed).unwrap().id, other.id);
        assert!(other.open_key(&sealed).is_none() && one.open_key(&sealed[1..]).is_none());
        assert!(one.open_key(&one.seal(A_KEY, b"short")).is_none());
    }
}
