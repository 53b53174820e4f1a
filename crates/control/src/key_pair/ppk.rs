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
    // Base64 is ASCII: no chunk cuts a character.
    text.as_bytes().chunks(LINE_LEN).flat_map(|line| [String::from_utf8_lossy(line), "\n".into()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // A pair made for this test; the file is what PuTTY's own puttygen 0.78 writes of it.
    const OPENSSH: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
        b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n\
        QyNTUxOQAAACBHgkOu03baMT1886YGN8JkyzasyTbvs0H/jT1xIJLSRAAAAIguNrsALja7\n\
        AAAAAAtzc2gtZWQyNTUxOQAAACBHgkOu03baMT1886YGN8JkyzasyTbvs0H/jT1xIJLSRA\n\
        AAAEC++6hq6eDCB4ZffiToNJ1OzbyLD0YyhCSZoN+mBWjiikeCQ67TdtoxPXzzpgY3wmTL\n\
        NqzJNu+zQf+NPXEgktJEAAAAAAECAwQF\n\
        -----END OPENSSH PRIVATE KEY-----\n";
    const PUTTY: &str = "PuTTY-User-Key-File-3: ssh-ed25519\n\
        Encryption: none\n\
        Comment: my key\n\
        Public-Lines: 2\n\
        AAAAC3NzaC1lZDI1NTE5AAAAIEeCQ67TdtoxPXzzpgY3wmTLNqzJNu+zQf+NPXEg\n\
        ktJE\n\
        Private-Lines: 1\n\
        AAAAIL77qGrp4MIHhl9+JOg0nU7NvIsPRjKEJJmg36YFaOKK\n\
        Private-MAC: 096f876c6cf798f29d02481b8349e4b76699e55b25767c4d4c962584488cb25c\n";

    #[test]
    fn the_file_is_the_one_that_puttygen_writes() {
        let key = PrivateKey::from_openssh(OPENSSH).unwrap();
        assert_eq!(encode(&key, "my key").unwrap(), PUTTY);
    }

    #[test]
    fn a_blob_that_fills_its_last_line_has_no_empty_one_after_it() {
        for length in [0, 47, 48, 49, 96, 97] {
            let blob = vec![7; length];
            assert_eq!(lines(&blob).lines().count(), count(&blob), "{length}");
            assert!(lines(&blob).lines().all(|line| !line.is_empty() && line.len() <= LINE_LEN), "{length}");
        }
    }
}
