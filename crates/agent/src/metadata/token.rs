//! Session tokens of the metadata service, version 2.
//!
//! ```text
//!   expiry (seconds, 8 bytes) │ nonce (8) │ HMAC-SHA256(key, instance id, expiry, nonce), first 24 bytes
//! ```
//! in base64: 56 characters, as EC2's are. Nothing is kept of a token; it is good where its tag is, until it
//! expires, and for the instance it was made for alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac as _};
use model::{Random, Timestamp};
use sha2::Sha256;
use std::io::Write as _;
use std::path::Path;

/// How long a token may live: one second to six hours (EC2 User Guide, "Use the Instance Metadata Service").
pub(crate) const TTL_SECONDS: std::ops::RangeInclusive<u32> = 1..=21_600;

const STAMP_BYTES: usize = 16;
const TAG_BYTES: usize = 24;
const TOKEN_CHARS: usize = 56;
/// SHA-256's block: the longest key that HMAC takes as it is.
const KEY_BYTES: usize = 64;

pub(crate) struct TokenKey([u8; KEY_BYTES]);

impl TokenKey {
    /// The key in `token.key`, so that tokens outlive a restart of the agent; made where there is none.
    pub(crate) fn load_or_make(dir: &Path, random: &dyn Random) -> std::io::Result<Self> {
        let path = dir.join("token.key");
        match std::fs::read(&path) {
            Ok(bytes) => {
                if let Ok(key) = bytes.try_into() {
                    return Ok(TokenKey(key));
                }
                // Half written, or not ours: guests ask for new tokens when theirs are refused.
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut key = [0; KEY_BYTES];
        random.fill(&mut key);
        write_secret(&path, &key)?;
        Ok(TokenKey(key))
    }

    pub(crate) fn make(
        &self,
        instance_id: &str,
        ttl_seconds: u32,
        now: Timestamp,
        random: &dyn Random,
    ) -> String {
        let mut bytes = [0; STAMP_BYTES + TAG_BYTES];
        let expiry = now.as_second().saturating_add(ttl_seconds.into());
        bytes[..8].copy_from_slice(&expiry.to_be_bytes());
        random.fill(&mut bytes[8..STAMP_BYTES]);
        let tag = self.mac(instance_id, &bytes[..STAMP_BYTES]).finalize().into_bytes();
        bytes[STAMP_BYTES..].copy_from_slice(&tag[..TAG_BYTES]);
        URL_SAFE.encode(bytes)
    }

    /// The seconds that the token is still good for; None where it is not good.
    pub(crate) fn check(&self, instance_id: &str, token: &[u8], now: Timestamp) -> Option<u32> {
        if token.len() != TOKEN_CHARS {
            return None;
        }
        let bytes = URL_SAFE.decode(token).ok()?;
        let (stamp, tag) = bytes.split_at_checked(STAMP_BYTES)?;
        self.mac(instance_id, stamp).verify_truncated_left(tag).ok().filter(|()| tag.len() == TAG_BYTES)?;
        let expiry = i64::from_be_bytes(stamp[..8].try_into().ok()?);
        u32::try_from(expiry.checked_sub(now.as_second())?).ok().filter(|left| *left > 0)
    }

    fn mac(&self, instance_id: &str, stamp: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new((&self.0).into());
        mac.update(stamp);
        mac.update(instance_id.as_bytes());
        mac
    }
}

/// Readable by its owner alone and whole or not there at all.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let half = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&half, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeededRandom;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_instance_and_time_only() {
        let dir = tempfile::tempdir().unwrap();
        let random = SeededRandom::new(1);
        let key = TokenKey::load_or_make(dir.path(), &random).unwrap();
        let token = key.make("i-1", 60, at(1000), &random);
        assert_eq!(token.len(), TOKEN_CHARS);
        assert_eq!(key.check("i-1", token.as_bytes(), at(1010)), Some(50));
        assert_eq!(key.check("i-1", token.as_bytes(), at(1060)), None);
        assert_eq!(key.check("i-2", token.as_bytes(), at(1010)), None);
        let again = TokenKey::load_or_make(dir.path(), &random).unwrap();
        assert_eq!(again.check("i-1", token.as_bytes(), at(1010)), Some(50), "after a restart");
        let other = TokenKey::load_or_make(tempfile::tempdir().unwrap().path(), &random).unwrap();
        assert_eq!(other.check("i-1", token.as_bytes(), at(1010)), None, "another host's");
    }

    #[test]
    fn the_key_is_the_owners_alone_and_a_broken_one_is_made_anew() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token.key");
        std::fs::write(&path, b"short").unwrap();
        let random = SeededRandom::new(1);
        TokenKey::load_or_make(dir.path(), &random).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(&path).unwrap().len(), KEY_BYTES);
    }

    proptest! {
        #[test]
        fn nothing_else_is_a_token(bytes in proptest::collection::vec(any::<u8>(), 0..80), flip in 0usize..56) {
            let key = TokenKey([7; KEY_BYTES]);
            prop_assert_eq!(key.check("i-1", &bytes, at(0)), None);
            let mut token = key.make("i-1", 60, at(0), &SeededRandom::new(3)).into_bytes();
            let had = token[flip];
            token[flip] = if had == b'A' { b'B' } else { b'A' };
            prop_assert_eq!(key.check("i-1", &token, at(0)), None);
        }
    }
}
