//! Keys that bytes at rest are encrypted with.

use crate::Random;
use serde::{Deserialize, Serialize};

/// 32 secret bytes. Its Debug form does not show them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretKey([u8; SecretKey::BYTES]);

impl SecretKey {
    pub const BYTES: usize = 32;

    pub fn new(random: &dyn Random) -> SecretKey {
        let mut bytes = [0; SecretKey::BYTES];
        random.fill(&mut bytes);
        SecretKey(bytes)
    }

    pub fn expose(&self) -> &[u8; SecretKey::BYTES] {
        &self.0
    }

    /// As QEMU is told it: 64 hexadecimal digits.
    pub fn passphrase(&self) -> String {
        hex::encode(self.0)
    }
}

impl From<[u8; SecretKey::BYTES]> for SecretKey {
    fn from(bytes: [u8; SecretKey::BYTES]) -> Self {
        SecretKey(bytes)
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey")
    }
}

/// What opens the layers of an encrypted disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskKey {
    Known(SecretKey),
    /// Not told since a restart; a machine that runs has it.
    Untold,
}
