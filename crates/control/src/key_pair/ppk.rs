//! PuTTY's private key files, version 3, not encrypted (PuTTY User Manual, appendix C).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use model::{Error, Result};
use sha2::Sha256;
use ssh_encoding::Encode;
use ssh_key::PrivateKey;
use ssh_key::private::KeypairData;

const LINE_LEN: usize = 64;

pub fn encode(key: &PrivateKey, comment: &str) -> Result<String> {
    let algorithm = key.algorithm().as_str().to_owned();
    let public = key.public_key().to_bytes().map_err(Error::internal)?;
    let private = private_blob(key)?;
    let mac = mac(&algorithm, comment, &public, &private)?;
    Ok(format!(
        "PuTTY-User-Key-File-3: {algorithm}\nEncryption: none\nComment: {comment}\nPublic-Lines: {}\n{}Private-Lines: {}\n{}Private-MAC: {mac}\n",
        count(&public),
        lines(&public),
        count(&private),
        lines(&private),
    ))
}

/// What only the owner knows: the seed's scalar for ED25519; d, p, q and the inverse of q for RSA.
fn private_blob(key: &PrivateKey) -> Result<Vec<u8>> {
    let mut blob = Vec::new();
    match key.key_data() {
        KeypairData::Ed25519(pair) => {
            pair.private.to_bytes().as_slice().encode(&mut blob).map_err(Error::internal)?;
        }
        KeypairData::Rsa(pair) => {
            for number in [&pair.private.d, &pair.private.p, &pair.private.q, &pair.private.iqmp] {
                number.encode(&mut blob).map_err(Error::internal)?;
            }
        }
        _ => return Err(Error::internal("a key of another type was generated")),
    }
    Ok(blob)
}

/// Over all that the file says, each part with its length before it; the key is empty without a passphrase.
fn mac(algorithm: &str, comment: &str, public: &[u8], private: &[u8]) -> Result<String> {
    let mut covered = Vec::new();
    for part in [algorithm.as_bytes(), b"none", comment.as_bytes(), public, private] {
        part.encode(&mut covered).map_err(Error::internal)?;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(&[]).map_err(Error::internal)?;
    mac.update(&covered);
    Ok(hex::encode(mac.finalize().into_bytes()))
}

fn count(blob: &[u8]) -> usize {
    STANDARD.encode(blob).len().div_ceil(LINE_LEN)
}

fn lines(blob: &[u8]) -> String {
    let text = STANDARD.encode(blob);
    let mut lines = String::new();
    for (at, character) in text.chars().enumerate() {
        lines.push(character);
        if (at + 1) % LINE_LEN == 0 {
            lines.push('\n');
        }
    }
    if text.len() % LINE_LEN != 0 {
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::material::{KeyType, generate};
    use super::*;
    use model::SeededRandom;

    #[test]
    fn line_counts_are_those_of_the_lines() {
        let key = generate(KeyType::Ed25519, &SeededRandom::new(7)).unwrap();
        let text = encode(&key.private, "me").unwrap();
        let at = |name: &str| text.lines().position(|line| line.starts_with(name)).unwrap();
        let said = |name: &str| -> usize { text.lines().nth(at(name)).unwrap().rsplit(' ').next().unwrap().parse().unwrap() };
        assert_eq!(at("Private-Lines") - at("Public-Lines") - 1, said("Public-Lines"));
        assert_eq!(at("Private-MAC") - at("Private-Lines") - 1, said("Private-Lines"));
    }
}
