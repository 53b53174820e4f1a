//! Access keys: the root's, made at the first start. Secrets are encrypted at rest with a key that lies beside
//! the data, not in it.

use crate::{Options, sealed};
use model::{Arn, Environment, Error, Result, SecretKey};
use serde::{Deserialize, Serialize};
use store::{Compare, Op, Outcome, Store, Transaction};

const ROOT_KEY: &str = "global/access-key/root";
/// What its secret is sealed as.
const ABOUT: &str = "";

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
    /// Sealed.
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
        let key = SecretKey::from(options.encryption_key);
        let stored = store.get(ROOT_KEY).await.map_err(Error::internal)?;
        let had = stored.as_ref().map(|entry| decrypt(&entry.value, &key)).transpose()?;
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
                let value = encrypt(&root, &key, environment)?;
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

fn encrypt(root: &RootKey, key: &SecretKey, environment: &Environment) -> Result<bytes::Bytes> {
    let secret = root.secret_access_key.as_bytes();
    let stored = StoredKey {
        access_key_id: root.access_key_id.clone(),
        secret: sealed::seal(secret, ABOUT, key, &*environment.random)?,
    };
    Ok(serde_json::to_vec(&stored).map_err(Error::internal)?.into())
}

fn decrypt(value: &[u8], key: &SecretKey) -> Result<RootKey> {
    let stored: StoredKey = serde_json::from_slice(value).map_err(Error::internal)?;
    let secret = sealed::open(&stored.secret, ABOUT, key)?;
    Ok(RootKey {
        access_key_id: stored.access_key_id,
        secret_access_key: String::from_utf8(secret).map_err(Error::internal)?,
    })
}
