//! Access keys: the root's, made at the first start. Secrets are encrypted at rest with a key that lies beside
//! the data, not in it.

use crate::Options;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use model::{Arn, Environment, Error, Result};
use serde::{Deserialize, Serialize};
use store::{Compare, Op, Outcome, Store, Transaction};

const ROOT_KEY: &str = "global/access-key/root";
const NONCE_LEN: usize = 12;

/// The root's access key. Its Debug form does not show the secret.
#[derive(Clone, PartialEq)]
pub struct RootKey {
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RootKey({})", self.access_key_id)
    }
}

/// As the store has it.
#[derive(Serialize, Deserialize)]
struct StoredKey {
    access_key_id: String,
    /// Hexadecimal nonce and ciphertext.
    secret: String,
}

pub(crate) struct AccessKeys {
    root: RootKey,
    principal: iam::Principal,
}

impl AccessKeys {
    /// The keys that the store has. Where it has none, or the operator named another, the wanted one is kept.
    pub async fn open(
        store: &dyn Store,
        options: &Options,
        environment: &Environment,
        wanted: Option<RootKey>,
    ) -> Result<AccessKeys> {
        let stored = store.get(ROOT_KEY).await.map_err(Error::internal)?;
        let had = stored.as_ref().map(|entry| decrypt(&entry.value, &options.encryption_key)).transpose()?;
        let root = match (had, wanted) {
            (Some(had), None) => had,
            (Some(had), Some(wanted)) if had == wanted => had,
            (_, wanted) => {
                let root = wanted.unwrap_or_else(|| {
                    let key = iam::AccessKey::generate(&*environment.random);
                    RootKey { access_key_id: key.id, secret_access_key: key.secret.expose().to_owned() }
                });
                let compare = match &stored {
                    None => Compare::Absent(ROOT_KEY.into()),
                    Some(entry) => Compare::Modified(ROOT_KEY.into(), entry.modified),
                };
                let value = encrypt(&root, &options.encryption_key, environment)?;
                let op = Op::Put { key: ROOT_KEY.into(), value, lease: None };
                let transaction = Transaction { compares: vec![compare], ops: vec![op] };
                match store.transact(transaction).await.map_err(Error::internal)? {
                    Outcome::Committed(_) => root,
                    Outcome::Conflict => {
                        return Err(Error::internal(
                            "another process changed the root's access key meanwhile",
                        ));
                    }
                }
            }
        };
        let principal = iam::Principal {
            account: options.account.clone(),
            arn: Arn::iam(&options.account, "root").to_string(),
            user_id: options.account.to_string(),
        };
        Ok(AccessKeys { root, principal })
    }

    pub fn root(&self) -> &RootKey {
        &self.root
    }
}

impl iam::Credentials for AccessKeys {
    fn find(&self, access_key_id: &str) -> Option<iam::Credential> {
        (access_key_id == self.root.access_key_id).then(|| iam::Credential {
            secret: iam::Secret::new(self.root.secret_access_key.clone()),
            principal: self.principal.clone(),
            active: true,
        })
    }
}

fn encrypt(root: &RootKey, key: &[u8; 32], environment: &Environment) -> Result<bytes::Bytes> {
    let mut nonce = [0u8; NONCE_LEN];
    environment.random.fill(&mut nonce);
    let sealed = ChaCha20Poly1305::new(Key::from_slice(key))
        .encrypt(Nonce::from_slice(&nonce), root.secret_access_key.as_bytes())
        .map_err(|_| Error::internal("the root's secret cannot be encrypted"))?;
    let stored = StoredKey {
        access_key_id: root.access_key_id.clone(),
        secret: hex::encode([&nonce[..], &sealed].concat()),
    };
    Ok(serde_json::to_vec(&stored).map_err(Error::internal)?.into())
}

fn decrypt(value: &[u8], key: &[u8; 32]) -> Result<RootKey> {
    let stored: StoredKey = serde_json::from_slice(value).map_err(Error::internal)?;
    let sealed = hex::decode(&stored.secret).map_err(Error::internal)?;
    let (nonce, sealed) = sealed
        .split_at_checked(NONCE_LEN)
        .ok_or_else(|| Error::internal("the stored secret is cut short"))?;
    let secret = ChaCha20Poly1305::new(Key::from_slice(key))
        .decrypt(Nonce::from_slice(nonce), sealed)
        .map_err(|_| {
            Error::internal(
                "the stored secrets do not open with this encryption key: was secret.key replaced?",
            )
        })?;
    Ok(RootKey {
        access_key_id: stored.access_key_id,
        secret_access_key: String::from_utf8(secret).map_err(Error::internal)?,
    })
}
