//! Secrets among the records: encrypted with a key that lies beside the data, not in it, or with one that is.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use model::{Error, Random, Result, SecretKey};

const NONCE: usize = 12;

/// Hexadecimal nonce and ciphertext. It opens as what it is `about` only.
pub fn seal(secret: &[u8], about: &str, key: &SecretKey, random: &dyn Random) -> Result<String> {
    let mut nonce = [0; NONCE];
    random.fill(&mut nonce);
    let sealed = ChaCha20Poly1305::new(key.expose().into())
        .encrypt(Nonce::from_slice(&nonce), Payload { msg: secret, aad: about.as_bytes() })
        .map_err(|_| Error::internal("a secret cannot be encrypted"))?;
    Ok(hex::encode([&nonce[..], &sealed].concat()))
}

pub fn open(sealed: &str, about: &str, key: &SecretKey) -> Result<Vec<u8>> {
    let sealed = hex::decode(sealed).map_err(Error::internal)?;
    let cut_short = || Error::internal("a stored secret is cut short");
    let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or_else(cut_short)?;
    ChaCha20Poly1305::new(key.expose().into())
        .decrypt(Nonce::from_slice(nonce), Payload { msg: sealed, aad: about.as_bytes() })
        .map_err(|_| {
            Error::internal(
                "the stored secrets do not open with this encryption key: was secret.key replaced?",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeededRandom;

    #[test]
    fn what_is_sealed_opens_with_its_key_and_as_what_it_is() {
        let random = SeededRandom::new(1);
        let (key, other) = (SecretKey::new(&random), SecretKey::new(&random));
        let sealed = seal(b"secret", "this", &key, &random).unwrap();
        assert_eq!(open(&sealed, "this", &key).unwrap(), b"secret");
        assert_ne!(seal(b"secret", "this", &key, &random).unwrap(), sealed);
        assert!(open(&sealed, "that", &key).is_err() && open(&sealed, "this", &other).is_err());
        assert!(open(&sealed[2..], "this", &key).is_err() && open("", "this", &key).is_err());
    }
}
