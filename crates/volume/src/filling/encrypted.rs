//! How a layer is filled that is encrypted: an overlay in which blocks lie one behind the other, as in the list, and whose
//! tables, by which QEMU finds them, come once all are there. Until then nobody but us opens it.
//!
//! ```text
//!   header │ … │ LUKS header ┃ block │ block │ … ┃ tables
//! ```
//!
//! What the store has may be encrypted with another data key, or with none. That key is kept beside the list, sealed with
//! the layer's own: whatever becomes of its snapshot, the layer needs no more than its own key to be whole one day.

use crate::encryption::{Cipher, DataKey, Keys, SECTOR};
use crate::layer::LayerName;
use crate::{BLOCK_BYTES, Result, VolumeError, qcow2};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

/// What is kept beside the list.
#[derive(Serialize, Deserialize)]
pub(super) struct Secrets {
    /// The id of the layer's data key.
    key: String,
    source: Source,
}

/// What the store's blocks are encrypted with.
#[derive(Serialize, Deserialize)]
enum Source {
    Nothing,
    /// The layer's own data key.
    Own,
    /// Another, sealed with the layer's own.
    Other(Vec<u8>),
}

impl Secrets {
    pub(super) fn new(key: &DataKey, source: Option<&DataKey>) -> Secrets {
        let source = match source {
            None => Source::Nothing,
            Some(source) if source.id == key.id => Source::Own,
            Some(source) => Source::Other(key.seal_key(source)),
        };
        Secrets { key: key.id.clone(), source }
    }
}

/// What opens once its key is told.
pub(super) struct Encrypted {
    layer: LayerName,
    secrets: Secrets,
    keys: Arc<Keys>,
    open: OnceLock<Open>,
}

pub(super) struct Open {
    cipher: Cipher,
    /// Where the first block is in the file.
    begin: u64,
    /// What the store's blocks open with.
    pub(super) source: Option<Arc<DataKey>>,
}

impl Encrypted {
    pub(super) fn new(layer: &LayerName, secrets: Secrets, keys: &Arc<Keys>) -> Encrypted {
        Encrypted { layer: layer.clone(), secrets, keys: keys.clone(), open: OnceLock::new() }
    }

    /// Of a disk of this size.
    pub(super) fn open(&self, size: u64) -> Result<&Open> {
        if let Some(open) = self.open.get() {
            return Ok(open);
        }
        let key = self.keys.get(&self.secrets.key)?;
        let damaged = || VolumeError::Damaged(format!("The key of what {} lacks", self.layer));
        let source = match &self.secrets.source {
            Source::Nothing => None,
            Source::Own => Some(key.clone()),
            Source::Other(sealed) => Some(Arc::new(key.open_key(sealed).ok_or_else(damaged)?)),
        };
        let cipher = key.of_layer(&self.layer.to_string()).cipher();
        Ok(self.open.get_or_init(|| Open { cipher, begin: qcow2::encrypted_end(size), source }))
    }
}

impl Open {
    fn offset(&self, place: usize) -> u64 {
        self.begin + place as u64 * BLOCK_BYTES as u64
    }

    /// Reads from the block at this place of the list.
    pub(super) fn read(&self, file: &File, place: usize, within: u64, into: &mut [u8]) -> io::Result<()> {
        let at = self.offset(place) + within;
        let before = (at % SECTOR as u64) as usize;
        let mut sectors = vec![0; (before + into.len()).next_multiple_of(SECTOR)];
        let first = at - before as u64;
        file.read_exact_at(&mut sectors, first)?;
        self.cipher.decrypt(first, &mut sectors);
        into.copy_from_slice(&sectors[before..before + into.len()]);
        Ok(())
    }

    /// Writes the block at this place of the list.
    pub(super) fn write(&self, file: &File, place: usize, mut block: Vec<u8>) -> io::Result<()> {
        let at = self.offset(place);
        self.cipher.encrypt(at, &mut block);
        file.write_all_at(&block, at)
    }
}
