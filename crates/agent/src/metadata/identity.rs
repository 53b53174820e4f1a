//! Instance identity documents and their signatures (EC2 User Guide, "Instance identity documents").
//!
//! The document is JSON in the order and spacing of AWS's. `signature` is its RSA-SHA256 signature, `rsa2048` a
//! PKCS#7 message that holds and signs it, both with the cloud's own RSA-2048 key; `pkcs7` is the same as
//! `rsa2048`, where AWS's is signed with DSA. Who verifies them needs the cloud's certificate (`identity.crt`)
//! in the place of AWS's.

use super::token::write_secret;
use super::tree::primary;
use crate::network::Guest;
use agent_api::Architecture;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cms::builder::{SignedDataBuilder, SignerInfoBuilder};
use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::signed_data::{EncapsulatedContentInfo, SignerIdentifier};
use der::asn1::GeneralizedTime;
use der::oid::db::{rfc5911::ID_DATA, rfc5912::ID_SHA_256};
use der::{Any, DecodePem as _, Encode as _, EncodePem as _, Tag};
use model::{Environment, Id, Random};
use parking_lot::Mutex;
use rsa::RsaPrivateKey;
use rsa::pkcs1v15::{Signature, SigningKey};
use rsa::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding};
use rsa::signature::{Keypair as _, SignatureEncoding as _, Signer as _};
use sha2::Sha256;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use x509_cert::Certificate;
use x509_cert::builder::{Builder as _, CertificateBuilder, Profile};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

/// The version of the document's format.
const DOCUMENT_VERSION: &str = "2017-09-30";
const KEY_BITS: usize = 2048;
/// Guests and their images outlive most things; nothing renews this certificate.
const CERTIFICATE_VALID: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Signing takes a millisecond, so what is signed is kept; above this many all of it is dropped.
const KEPT_MAX: usize = 1024;
/// Characters in a line of base64: what `openssl` takes between PEM's two markers.
const LINE_CHARS: usize = 64;

/// The cloud's key, read or made when first needed, and what it has signed.
pub(crate) struct Identity {
    dir: PathBuf,
    environment: Environment,
    key: OnceCell<Arc<Key>>,
    signed: Mutex<HashMap<Id, Arc<Signed>>>,
}

struct Key {
    signing: SigningKey<Sha256>,
    certificate: Certificate,
}

/// A document and its signatures, as they are served.
pub(crate) struct Signed {
    pub document: String,
    pub signature: String,
    pub pkcs7: String,
}

impl Identity {
    pub(crate) fn new(dir: PathBuf, environment: Environment) -> Arc<Self> {
        Arc::new(Identity { dir, environment, key: OnceCell::new(), signed: Mutex::default() })
    }

    /// Reads or makes the key, so that no guest waits for it.
    pub(crate) async fn prepare(&self) {
        if let Err(error) = self.key().await {
            tracing::error!(error = &error as &dyn std::error::Error, "no identity key");
        }
    }

    pub(crate) async fn signed(&self, guest: &Guest) -> io::Result<Arc<Signed>> {
        let instance_id = &guest.instance.instance_id;
        let document = document(guest);
        if let Some(signed) = self.signed.lock().get(instance_id).filter(|signed| signed.document == document)
        {
            return Ok(signed.clone());
        }
        let key = self.key().await?;
        let signed = Arc::new(blocking(move || key.sign(document)).await?);
        let mut kept = self.signed.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(instance_id.clone(), signed.clone());
        Ok(signed)
    }

    async fn key(&self) -> io::Result<Arc<Key>> {
        let load = || {
            let (dir, environment) = (self.dir.clone(), self.environment.clone());
            // Making an RSA key takes up to seconds.
            blocking(move || Key::load_or_make(&dir, &environment).map(Arc::new))
        };
        self.key.get_or_try_init(load).await.cloned()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl Key {
    /// Files that are there but can not be read are an error, never replaced: others trust the certificate.
    fn load_or_make(dir: &Path, environment: &Environment) -> io::Result<Key> {
        let (key_path, certificate_path) = (dir.join("identity.key"), dir.join("identity.crt"));
        let key = match read(&key_path)? {
            Some(pem) => RsaPrivateKey::from_pkcs8_pem(&pem).map_err(io::Error::other)?,
            None => {
                let mut chance = Chance(&*environment.random);
                let key = RsaPrivateKey::new(&mut chance, KEY_BITS).map_err(io::Error::other)?;
                let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
                write_secret(&key_path, pem.as_bytes())?;
                key
            }
        };
        let signing = SigningKey::new(key);
        let certificate = match read(&certificate_path)? {
            Some(pem) => Certificate::from_pem(pem).map_err(io::Error::other)?,
            None => {
                let certificate = certificate(&signing, environment).map_err(io::Error::other)?;
                let pem = certificate.to_pem(LineEnding::LF).map_err(io::Error::other)?;
                std::fs::write(&certificate_path, pem)?;
                certificate
            }
        };
        Ok(Key { signing, certificate })
    }

    fn sign(&self, document: String) -> io::Result<Signed> {
        let signature = self.signing.try_sign(document.as_bytes()).map_err(io::Error::other)?;
        let pkcs7 = self.pkcs7(document.as_bytes()).map_err(io::Error::other)?;
        Ok(Signed { signature: wrapped_base64(&signature.to_vec()), pkcs7: wrapped_base64(&pkcs7), document })
    }

    /// A signed-data message that holds the content.
    fn pkcs7(&self, content: &[u8]) -> der::Result<Vec<u8>> {
        let content = EncapsulatedContentInfo {
            econtent_type: ID_DATA,
            econtent: Some(Any::new(Tag::OctetString, content)?),
        };
        let tbs = &self.certificate.tbs_certificate;
        let signer = SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: tbs.issuer.clone(),
            serial_number: tbs.serial_number.clone(),
        });
        let digest = AlgorithmIdentifierOwned { oid: ID_SHA_256, parameters: None };
        let failed = |_| der::Error::from(der::ErrorKind::Failed);
        let signer_info =
            SignerInfoBuilder::new(&self.signing, signer, digest.clone(), &content, None).map_err(failed)?;
        SignedDataBuilder::new(&content)
            .add_digest_algorithm(digest)
            .and_then(|builder| {
                builder.add_certificate(CertificateChoices::Certificate(self.certificate.clone()))
            })
            .and_then(|builder| builder.add_signer_info::<_, Signature>(signer_info))
            .and_then(|builder| builder.build())
            .map_err(failed)?
            .to_der()
    }
}

fn certificate(
    signing: &SigningKey<Sha256>,
    environment: &Environment,
) -> Result<Certificate, x509_cert::builder::Error> {
    let now = Duration::from_secs(environment.clock.now().as_second().max(0).unsigned_abs());
    // A day of grace for guests whose clock is behind.
    let from = now.saturating_sub(Duration::from_secs(86_400));
    let validity = Validity {
        not_before: Time::GeneralTime(GeneralizedTime::from_unix_duration(from)?),
        not_after: Time::GeneralTime(GeneralizedTime::from_unix_duration(now + CERTIFICATE_VALID)?),
    };
    let mut serial = [0; 16];
    environment.random.fill(&mut serial);
    // Positive and of full length, whatever chance says.
    serial[0] = serial[0] & 0x7f | 0x40;
    let name = Name::from_str("CN=cumulet instance identity")?;
    let profile =
        Profile::Leaf { issuer: name.clone(), enable_key_agreement: false, enable_key_encipherment: false };
    let public_key = SubjectPublicKeyInfoOwned::from_key(signing.verifying_key())?;
    let serial = SerialNumber::new(&serial)?;
    CertificateBuilder::new(profile, serial, validity, name, public_key, signing)?.build::<Signature>()
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn document(guest: &Guest) -> String {
    let instance = &guest.instance;
    let metadata = &instance.metadata;
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let null = || "null".to_owned();
    let fields = [
        ("accountId", quoted(&metadata.account_id)),
        (
            "architecture",
            quoted(match instance.machine.architecture {
                Architecture::X86_64 => "x86_64",
                Architecture::Arm64 => "arm64",
            }),
        ),
        ("availabilityZone", quoted(&metadata.availability_zone)),
        ("billingProducts", null()),
        ("devpayProductCodes", null()),
        ("marketplaceProductCodes", null()),
        ("imageId", quoted(&metadata.ami_id)),
        ("instanceId", quoted(&instance.instance_id)),
        ("instanceType", quoted(&instance.machine.instance_type)),
        ("kernelId", null()),
        ("pendingTime", quoted(&metadata.launched_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())),
        (
            "privateIp",
            primary(guest)
                .and_then(|interface| interface.network.primary())
                .map_or_else(null, |own| quoted(&own.private_ip.to_string())),
        ),
        ("ramdiskId", null()),
        ("region", quoted(&metadata.region)),
        ("version", quoted(DOCUMENT_VERSION)),
    ];
    let lines: Vec<String> = fields.iter().map(|(name, value)| format!("  \"{name}\" : {value}")).collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}

fn wrapped_base64(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let lines: Vec<&str> = (0..text.len())
        .step_by(LINE_CHARS)
        .map(|start| &text[start..text.len().min(start + LINE_CHARS)])
        .collect();
    lines.join("\n")
}

/// The cloud's randomness as the RSA crate wants it.
struct Chance<'a>(&'a dyn Random);

impl rand::RngCore for Chance<'_> {
    fn next_u32(&mut self) -> u32 {
        self.0.u64() as u32
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

impl rand::CryptoRng for Chance<'_> {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::examples;

    fn environment() -> Environment {
        Environment::seeded(1, "2026-03-01T00:00:00Z".parse().unwrap()).0
    }

    fn guest() -> Guest {
        Guest::new(Arc::new(examples::instance(1)), Arc::new(examples::vpc()), 0)
    }

    #[test]
    fn the_document_is_as_awss() {
        insta::assert_snapshot!(document(&guest()), @r#"
        {
          "accountId" : "123456789012",
          "architecture" : "x86_64",
          "availabilityZone" : "us-east-1a",
          "billingProducts" : null,
          "devpayProductCodes" : null,
          "marketplaceProductCodes" : null,
          "imageId" : "ami-00000000000000001",
          "instanceId" : "i-00000000000000001",
          "instanceType" : "t3.micro",
          "kernelId" : null,
          "pendingTime" : "2026-03-01T12:00:00Z",
          "privateIp" : "172.31.16.11",
          "ramdiskId" : null,
          "region" : "us-east-1",
          "version" : "2017-09-30"
        }
        "#);
    }

    #[allow(clippy::disallowed_methods)] // what users verify with
    fn openssl(dir: &Path, arguments: &[&str]) -> (bool, String) {
        let output = std::process::Command::new("openssl").current_dir(dir).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[tokio::test]
    async fn what_is_signed_verifies_as_the_user_guide_says() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::new(dir.path().to_owned(), environment());
        let signed = identity.signed(&guest()).await.unwrap();
        let pem = format!("-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n", signed.pkcs7);
        std::fs::write(dir.path().join("rsa2048"), pem).unwrap();
        let verify = ["smime", "-verify", "-in", "rsa2048", "-inform", "PEM", "-certfile", "identity.crt"];
        let (verified, content) = openssl(dir.path(), &[&verify[..], &["-noverify"]].concat());
        assert!(verified);
        assert_eq!(content, signed.document);
        let trusting = [&verify[..], &["-CAfile", "identity.crt", "-purpose", "any"]].concat();
        assert!(openssl(dir.path(), &trusting).0, "with the certificate trusted");

        let signature = STANDARD.decode(signed.signature.replace('\n', "")).unwrap();
        std::fs::write(dir.path().join("signature"), signature).unwrap();
        std::fs::write(dir.path().join("document"), &signed.document).unwrap();
        let (_, public_key) = openssl(dir.path(), &["x509", "-in", "identity.crt", "-pubkey", "-noout"]);
        std::fs::write(dir.path().join("public.pem"), public_key).unwrap();
        let verify = ["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "document"];
        assert!(openssl(dir.path(), &verify).0);
        std::fs::write(dir.path().join("document"), signed.document.replace("t3.micro", "t3.large")).unwrap();
        assert!(!openssl(dir.path(), &verify).0, "an altered document");

        // Another start of the agent signs with the same key.
        let again = Identity::new(dir.path().to_owned(), environment());
        assert_eq!(again.signed(&guest()).await.unwrap().signature, signed.signature);
    }
}
