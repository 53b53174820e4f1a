//! Key pairs: made here (the private half is shown once and kept nowhere) or imported.

use crate::Context;
use crate::engine::describe;
use crate::engine::table::{Record, Values};
use crate::engine::tags::Specified;
use crate::engine::{Tables, Tags, Tx, filter};
use aws_api::ec2;
use model::{AccountId, Error, Id, Kind, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

mod material;
mod ppk;

use material::{Generated, KeyType};

const NAME_SCOPE: &str = "key-pair-name";
const NAME_LEN_MAX: usize = 255;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyPair {
    pub key_pair_id: Id,
    pub owner: AccountId,
    pub key_name: String,
    pub key_type: KeyType,
    pub fingerprint: String,
    /// The OpenSSH line.
    pub public_key: String,
    pub created_at: Timestamp,
    pub tags: Tags,
}

impl Record for KeyPair {
    const TABLE: &'static str = "key-pair";
    const INDEXED: &'static [&'static str] = &["key-name"];

    fn id(&self) -> &str {
        &self.key_pair_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "key-pair-id" => filter::one(values, self.key_pair_id.as_str()),
            "fingerprint" => filter::one(values, self.fingerprint.as_str()),
            "key-name" => filter::one(values, self.key_name.as_str()),
            _ => false,
        }
    }
}

pub fn find_by_name<'t>(tables: &'t Tables, name: &str) -> Option<&'t Arc<KeyPair>> {
    tables.key_pairs.with("key-name", name).next()
}

fn no_such_name(name: &str) -> Error {
    Error::new("InvalidKeyPair.NotFound", format!("The key pair '{name}' does not exist"))
}

fn check_name(name: Option<String>) -> Result<String> {
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| Error::missing_parameter("KeyName"))?;
    if name.len() > NAME_LEN_MAX || !name.is_ascii() || name.trim() != name {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({name}) for parameter keyName is invalid. It must be at most {NAME_LEN_MAX} ASCII characters without leading or trailing spaces."
        )));
    }
    Ok(name)
}

pub async fn create_key_pair(context: &Context, input: ec2::CreateKeyPairRequest) -> Result<ec2::KeyPair> {
    let name = check_name(input.key_name)?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::KeyPair])?;
    let key_type = if input.key_type.as_deref() == Some("ed25519") { KeyType::Ed25519 } else { KeyType::Rsa };
    if find_by_name(&context.tables(), &name).is_some() {
        return Err(duplicate(&name));
    }
    let random = context.environment.random.clone();
    // Looking for primes takes a while: not on a thread that serves requests.
    let generated: Generated = tokio::task::spawn_blocking(move || material::generate(key_type, &*random))
        .await
        .map_err(Error::internal)??;
    let private = match input.key_format.as_deref() {
        Some("ppk") => ppk::encode(&generated.private, &name)?,
        _ => generated.pem()?,
    };
    let public_key = generated.public_line(&name)?;
    let key = store(context, &name, key_type, generated.fingerprint()?, public_key, &tags).await?;
    Ok(ec2::KeyPair {
        key_pair_id: Some(key.key_pair_id.to_string()),
        key_name: Some(name),
        key_fingerprint: Some(key.fingerprint.clone()),
        key_material: Some(private),
        tags: key.tags.to_api(),
    })
}

pub async fn import_key_pair(
    context: &Context,
    input: ec2::ImportKeyPairRequest,
) -> Result<ec2::ImportKeyPairResult> {
    let name = check_name(input.key_name)?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::KeyPair])?;
    let material = input.public_key_material.ok_or_else(|| Error::missing_parameter("PublicKeyMaterial"))?;
    let imported = material::import(&material)?;
    let line = imported.line(&name)?;
    let key = store(context, &name, imported.key_type, imported.fingerprint.clone(), line, &tags).await?;
    Ok(ec2::ImportKeyPairResult {
        key_pair_id: Some(key.key_pair_id.to_string()),
        key_name: Some(name),
        key_fingerprint: Some(key.fingerprint.clone()),
        tags: key.tags.to_api(),
    })
}

fn duplicate(name: &str) -> Error {
    Error::new("InvalidKeyPair.Duplicate", format!("The keypair already exists: {name}"))
}

async fn store(
    context: &Context,
    name: &str,
    key_type: KeyType,
    fingerprint: String,
    public_key: String,
    tags: &Specified,
) -> Result<KeyPair> {
    context
        .transact(|tx| {
            let key = KeyPair {
                key_pair_id: tx.new_id(Kind::KeyPair),
                owner: context.account().clone(),
                key_name: name.to_owned(),
                key_type,
                fingerprint: fingerprint.clone(),
                public_key: public_key.clone(),
                created_at: tx.now(),
                tags: tags.of(Kind::KeyPair),
            };
            if !tx.claim(NAME_SCOPE, name, &key.key_pair_id) {
                return Err(duplicate(name));
            }
            tx.create(&key);
            Ok(key)
        })
        .await
}

pub async fn describe_key_pairs(
    context: &Context,
    input: ec2::DescribeKeyPairsRequest,
) -> Result<ec2::DescribeKeyPairsResult> {
    let tables = context.tables();
    let mut ids = input.key_pair_ids.clone();
    for name in &input.key_names {
        let key = find_by_name(&tables, name).ok_or_else(|| no_such_name(name))?;
        ids.push(key.key_pair_id.to_string());
    }
    let keys = describe::select_all(&tables.key_pairs, Kind::KeyPair, &ids, &input.filters, |_, _, _| false)?;
    let with_key = input.include_public_key.unwrap_or(false);
    let to_api = |key: &Arc<KeyPair>| ec2::KeyPairInfo {
        key_pair_id: Some(key.key_pair_id.to_string()),
        key_name: Some(key.key_name.clone()),
        key_type: Some(key.key_type.name().into()),
        key_fingerprint: Some(key.fingerprint.clone()),
        public_key: with_key.then(|| key.public_key.clone()),
        create_time: Some(key.created_at),
        tags: key.tags.to_api(),
    };
    Ok(ec2::DescribeKeyPairsResult { key_pairs: keys.iter().map(to_api).collect() })
}

/// A key pair that is not there is deleted already.
pub async fn delete_key_pair(
    context: &Context,
    input: ec2::DeleteKeyPairRequest,
) -> Result<ec2::DeleteKeyPairResult> {
    if input.key_name.is_none() && input.key_pair_id.is_none() {
        return Err(Error::missing_parameter("KeyName"));
    }
    if let Some(id) = &input.key_pair_id {
        Id::parse(Kind::KeyPair, id)?;
    }
    let deleted = context
        .transact(|tx: &mut Tx<'_>| {
            let found = match (&input.key_pair_id, &input.key_name) {
                (Some(id), _) => tx.tables().key_pairs.find(id).cloned(),
                (None, name) => find_by_name(tx.tables(), name.as_deref().unwrap_or_default()).cloned(),
            };
            let Some(key) = found else { return Ok(None) };
            tx.get::<KeyPair>(&key.key_pair_id);
            tx.delete::<KeyPair>(&key.key_pair_id);
            tx.release(NAME_SCOPE, &key.key_name);
            Ok(Some(key.key_pair_id.to_string()))
        })
        .await?;
    Ok(ec2::DeleteKeyPairResult { r#return: Some(true), key_pair_id: deleted })
}
