//! The keys themselves: made, read, fingerprinted
//! (EC2 User Guide, "Verify the fingerprint of your key pair").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Error, Random, Result};
use rsa::pkcs1::{DecodeRsaPublicKey, EncodeRsaPrivateKey};
use rsa::pkcs8::{DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{BigUint, RsaPrivateKey, RsaPublicKey};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use ssh_key::private::{Ed25519Keypair, KeypairData, RsaKeypair};
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, PrivateKey, PublicKey};

const RSA_BITS: usize = 2048;
const RSA_BITS_IMPORTED: [usize; 3] = [1024, 2048, 4096];
/// A 4096-bit key in any of the formats is below 2 KiB.
const MATERIAL_LEN_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    Rsa,
    Ed25519,
}

impl KeyType {
    pub fn name(self) -> &'static str {
        match self {
            KeyType::Rsa => "rsa",
            KeyType::Ed25519 => "ed25519",
        }
    }
}

/// The cloud's randomness in the form that the key libraries ask for.
struct Entropy<'r>(&'r dyn Random);

impl rand::RngCore for Entropy<'_> {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0.u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl rand::CryptoRng for Entropy<'_> {}

pub struct Generated {
    pub private: PrivateKey,
    rsa: Option<RsaPrivateKey>,
}

pub fn generate(key_type: KeyType, random: &dyn Random) -> Result<Generated> {
    let mut entropy = Entropy(random);
    let (data, rsa) = match key_type {
        KeyType::Ed25519 => (KeypairData::Ed25519(Ed25519Keypair::random(&mut entropy)), None),
        KeyType::Rsa => {
            let rsa =
                larger_prime_first(RsaPrivateKey::new(&mut entropy, RSA_BITS).map_err(Error::internal)?)?;
            (KeypairData::Rsa(RsaKeypair::try_from(rsa.clone()).map_err(Error::internal)?), Some(rsa))
        }
    };
    Ok(Generated { private: PrivateKey::new(data, "").map_err(Error::internal)?, rsa })
}

/// As OpenSSL and PuTTY write a key: the fingerprint is over its numbers in their order, and stays the same when
/// another program has written the key again.
fn larger_prime_first(key: RsaPrivateKey) -> Result<RsaPrivateKey> {
    let mut primes = key.primes().to_vec();
    primes.sort_by(|one, other| other.cmp(one));
    RsaPrivateKey::from_components(key.n().clone(), key.e().clone(), key.d().clone(), primes)
        .map_err(Error::internal)
}

impl Generated {
    /// RSA as PKCS#1, ED25519 as OpenSSH writes it.
    pub fn pem(&self) -> Result<String> {
        let pem = match &self.rsa {
            Some(rsa) => rsa.to_pkcs1_pem(LineEnding::LF).map_err(Error::internal)?,
            None => self.private.to_openssh(LineEnding::LF).map_err(Error::internal)?,
        };
        Ok(pem.to_string())
    }

    pub fn public_line(&self, comment: &str) -> Result<String> {
        line(self.private.public_key().key_data(), comment)
    }

    /// SHA-1 of the private key's PKCS#8 for RSA, OpenSSH's SHA-256 for ED25519.
    pub fn fingerprint(&self) -> Result<String> {
        match &self.rsa {
            Some(rsa) => Ok(colons(&Sha1::digest(rsa.to_pkcs8_der().map_err(Error::internal)?.as_bytes()))),
            None => Ok(sha256(self.private.public_key().key_data())),
        }
    }
}

pub struct Imported {
    pub key_type: KeyType,
    pub fingerprint: String,
    data: KeyData,
}

impl Imported {
    pub fn line(&self, comment: &str) -> Result<String> {
        line(&self.data, comment)
    }
}

/// An OpenSSH line, an SSH2 public key file (RFC 4716), or base64 DER.
pub fn import(material: &[u8]) -> Result<Imported> {
    let refuse = || Error::new("InvalidKey.Format", "Key is not in valid OpenSSH public key format");
    if material.len() > MATERIAL_LEN_MAX {
        return Err(refuse());
    }
    let text = std::str::from_utf8(material).map_err(|_| refuse())?.trim();
    let data = match PublicKey::from_openssh(text) {
        Ok(key) => key.key_data().clone(),
        Err(_) => from_ssh2(text).or_else(|| from_der(text)).ok_or_else(refuse)?,
    };
    let (key_type, fingerprint) = match &data {
        KeyData::Ed25519(_) => (KeyType::Ed25519, sha256(&data)),
        KeyData::Rsa(rsa) => {
            let rsa = rsa_key(rsa).ok_or_else(refuse)?;
            if !RSA_BITS_IMPORTED.contains(&rsa.n().bits()) {
                return Err(Error::new("InvalidKey.Format", "RSA keys must have 1024, 2048 or 4096 bits"));
            }
            let der = rsa.to_public_key_der().map_err(|_| refuse())?;
            (KeyType::Rsa, colons(&md5::Md5::digest(der.as_bytes())))
        }
        _ => return Err(Error::new("InvalidKey.Format", "Only RSA and ED25519 keys can be imported")),
    };
    Ok(Imported { key_type, fingerprint, data })
}

/// The key library would not take the 1024 bits that EC2 does.
fn rsa_key(key: &ssh_key::public::RsaPublicKey) -> Option<RsaPublicKey> {
    let number = |number: &ssh_key::Mpint| number.as_positive_bytes().map(BigUint::from_bytes_be);
    RsaPublicKey::new(number(&key.n)?, number(&key.e)?).ok()
}

fn from_ssh2(text: &str) -> Option<KeyData> {
    let body = text
        .strip_prefix("---- BEGIN SSH2 PUBLIC KEY ----")?
        .strip_suffix("---- END SSH2 PUBLIC KEY ----")?;
    let mut in_header = false;
    let mut encoded = String::new();
    for part in body.lines().map(str::trim) {
        let is_header = in_header || part.contains(':');
        // A header goes on where its line ends in a backslash.
        in_header = is_header && part.ends_with('\\');
        if !is_header {
            encoded.push_str(part);
        }
    }
    PublicKey::from_bytes(&STANDARD.decode(encoded).ok()?).ok().map(|key| key.key_data().clone())
}

fn from_der(text: &str) -> Option<KeyData> {
    let encoded: String = text
        .lines()
        .filter(|part| !part.starts_with("-----"))
        .flat_map(|part| part.split_whitespace())
        .collect();
    let der = STANDARD.decode(encoded).ok()?;
    let rsa = RsaPublicKey::from_public_key_der(&der).or_else(|_| RsaPublicKey::from_pkcs1_der(&der)).ok()?;
    Some(KeyData::Rsa(ssh_key::public::RsaPublicKey::try_from(&rsa).ok()?))
}

fn line(data: &KeyData, comment: &str) -> Result<String> {
    PublicKey::new(data.clone(), comment).to_openssh().map_err(Error::internal)
}

fn sha256(data: &KeyData) -> String {
    // EC2 shows it as OpenSSH does, without the name of the hash, padded.
    let fingerprint = data.fingerprint(HashAlg::Sha256);
    STANDARD.encode(fingerprint.as_bytes())
}

fn colons(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeededRandom;
    use rsa::pkcs1::DecodeRsaPrivateKey;

    #[test]
    fn a_generated_rsa_key_has_its_larger_prime_first() {
        for seed in 0..4 {
            let key = generate(KeyType::Rsa, &SeededRandom::new(seed)).unwrap();
            let read = RsaPrivateKey::from_pkcs1_pem(&key.pem().unwrap()).unwrap();
            assert!(read.validate().is_ok());
            assert!(read.primes()[0] > read.primes()[1], "{seed}");
        }
    }

    #[test]
    fn a_generated_ed25519_key_comes_back_whole() {
        let key = generate(KeyType::Ed25519, &SeededRandom::new(7)).unwrap();
        let pem = key.pem().unwrap();
        assert!(pem.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
        let read = PrivateKey::from_openssh(&pem).unwrap();
        assert_eq!(line(read.public_key().key_data(), "me").unwrap(), key.public_line("me").unwrap());
        assert_eq!(
            import(key.public_line("me").unwrap().as_bytes()).unwrap().fingerprint,
            key.fingerprint().unwrap()
        );
    }

    // Made by ssh-keygen; fingerprints by `openssl md5 -c` of the DER and by `ssh-keygen -l`.
    const RSA_LINE: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCkGCZ59IZKuuCv4PZL3iD0RvukY0gh8Q6jpD5TpNQ5H19rziO6\
        CTExmYIcGy9350rP+24Xk6WHilq3+WrxihjDjfwI3jfZct6dOdUi74RWDyCCi56ur+Hymrfq69DFMzG+\
        TORMNmS225atpXHYG0IfMvaaElnSggW3af2tMKAB5w== a comment";
    const RSA_SSH2: &str = "---- BEGIN SSH2 PUBLIC KEY ----\n\
        Comment: \"1024-bit RSA, converted by me from OpenSSH\"\n\
        AAAAB3NzaC1yc2EAAAADAQABAAAAgQCkGCZ59IZKuuCv4PZL3iD0RvukY0gh8Q6jpD5TpN\n\
        Q5H19rziO6CTExmYIcGy9350rP+24Xk6WHilq3+WrxihjDjfwI3jfZct6dOdUi74RWDyCC\n\
        i56ur+Hymrfq69DFMzG+TORMNmS225atpXHYG0IfMvaaElnSggW3af2tMKAB5w==\n\
        ---- END SSH2 PUBLIC KEY ----\n";
    const RSA_PKCS8: &str = "-----BEGIN PUBLIC KEY-----\n\
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCkGCZ59IZKuuCv4PZL3iD0Rvuk\n\
        Y0gh8Q6jpD5TpNQ5H19rziO6CTExmYIcGy9350rP+24Xk6WHilq3+WrxihjDjfwI\n\
        3jfZct6dOdUi74RWDyCCi56ur+Hymrfq69DFMzG+TORMNmS225atpXHYG0IfMvaa\n\
        ElnSggW3af2tMKAB5wIDAQAB\n\
        -----END PUBLIC KEY-----\n";
    const RSA_FINGERPRINT: &str = "bc:3c:bd:24:84:b8:df:c3:02:41:de:49:24:b8:ef:de";
    const ED25519_LINE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO7Ow+IWAA1/706REL4v45mpa5RP+m+lRI8lzkHpN9uN ed comment";
    const ED25519_FINGERPRINT: &str = "h7Pu+mSu/45WymlzCmurvu9AG55yHjpEKEx3it9VB4s=";

    #[test]
    fn the_same_rsa_key_is_imported_from_all_forms() {
        let der: String = RSA_PKCS8.lines().filter(|line| !line.starts_with("-----")).collect();
        let crlf = RSA_SSH2.replace('\n', "\r\n");
        let continued = RSA_SSH2.replacen("Comment: ", "Subject: a\\\nb: c\\\nd\nComment: ", 1);
        for form in [RSA_LINE, RSA_SSH2, RSA_PKCS8, &der, &crlf, &continued] {
            let key = import(form.as_bytes()).unwrap();
            assert_eq!((key.key_type, key.fingerprint.as_str()), (KeyType::Rsa, RSA_FINGERPRINT), "{form}");
            assert_eq!(key.line("me").unwrap(), RSA_LINE.replace("a comment", "me"));
        }
    }

    #[test]
    fn an_ed25519_key_has_opensshs_fingerprint() {
        let key = import(ED25519_LINE.as_bytes()).unwrap();
        assert_eq!((key.key_type, key.fingerprint.as_str()), (KeyType::Ed25519, ED25519_FINGERPRINT));
    }

    #[test]
    fn a_generated_rsa_key_is_pkcs1_and_has_the_fingerprint_of_its_pkcs8() {
        let key = generate(KeyType::Rsa, &SeededRandom::new(7)).unwrap();
        let pem = key.pem().unwrap();
        assert!(pem.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
        let again = RsaPrivateKey::from_pkcs1_pem(&pem).unwrap();
        assert_eq!(again.n().bits(), RSA_BITS);
        assert_eq!(
            key.fingerprint().unwrap(),
            colons(&Sha1::digest(again.to_pkcs8_der().unwrap().as_bytes()))
        );
        assert_eq!(key.fingerprint().unwrap().len(), 59);
    }

    #[test]
    fn other_sizes_and_other_keys_are_refused() {
        let rsa = RsaPrivateKey::new(&mut Entropy(&SeededRandom::new(7)), 1032).unwrap().to_public_key();
        let odd = STANDARD.encode(rsa.to_public_key_der().unwrap().as_bytes());
        assert_eq!(
            import(odd.as_bytes()).err().unwrap().message,
            "RSA keys must have 1024, 2048 or 4096 bits"
        );
        let long = format!("{ED25519_LINE}{}", "x".repeat(MATERIAL_LEN_MAX));
        assert_eq!(import(long.as_bytes()).err().unwrap().code, "InvalidKey.Format");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "ssh-rsa", "ssh-rsa AAAA", "hello", "ssh-dss AAAAB3NzaC1kc3MAAAAB"] {
            assert_eq!(import(text.as_bytes()).err().unwrap().code, "InvalidKey.Format", "{text}");
        }
    }
}
