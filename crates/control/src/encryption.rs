//! Encryption at rest: with which key a volume or snapshot is encrypted (EBS User Guide, "Amazon EBS encryption").
//!
//! ```text
//!   secret.key ─▶ the account's key in the region, `alias/aws/ebs` ─▶ data keys ─▶ volumes, snapshots and their copies
//! ```
//!
//! Each key is in the records, encrypted with the one before it. A data key is shared by a volume, its snapshots and
//! what is made of those with the same key of the account; with another, or where the source is not encrypted, all is
//! encrypted anew under a new one.
//!
//! The account's own key is the only one until there is a service that manages keys. Whoever names another is answered
//! as at AWS, where a name is looked at afterwards only: what was asked for turns out to be in error.

use crate::engine::settings::{self, Settings};
use crate::engine::table::{Record, Values};
use crate::engine::unsupported::given;
use crate::engine::{Tables, Tx};
use crate::region::RegionState;
use crate::sealed;
use crate::snapshot::Snapshot;
use crate::{Context, Control};
use aws_api::ec2;
use model::{AccountId, Arn, Error, Random, Region, Result, SecretKey, Text};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The name of the account's own key.
const ALIAS: &str = "alias/aws/ebs";

/// Of whatever names a key (KMS API Reference, "DescribeKey").
const KEY_ID_LEN_MAX: usize = 2048;

/// What an account has decided about a region, and its key there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncryptionSettings {
    pub account: AccountId,
    /// Whether all is encrypted that is made.
    pub by_default: bool,
    /// None where that is what `alias/aws/ebs` names.
    pub default_key: Option<String>,
    /// Made when it is first used.
    pub key: Option<AccountKey>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccountKey {
    pub arn: String,
    sealed: String,
}

/// How a volume or snapshot is encrypted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Encryption {
    /// The ARN of the account's key, or what was named in its place and is none.
    pub kms_key_id: Text,
    /// The data key, encrypted with that one. None where there is no such key.
    sealed: Option<Text>,
}

impl Record for EncryptionSettings {
    const TABLE: &'static str = "encryption-settings";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        self.account.as_str()
    }

    fn field<'a>(&'a self, _: &str, _: &mut Values<'a>) -> bool {
        false
    }
}

impl Settings for EncryptionSettings {
    fn new(account: &AccountId) -> Self {
        EncryptionSettings { account: account.clone(), by_default: false, default_key: None, key: None }
    }
}

/// What a request says of encryption. That something shall not be encrypted which is by default, or by its source, is
/// no contradiction at EC2: it is encrypted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    pub encrypted: bool,
    kms_key_id: Option<String>,
}

impl Asked {
    pub fn of(encrypted: Option<bool>, kms_key_id: &Option<String>) -> Result<Asked> {
        let encrypted = encrypted == Some(true);
        if given(kms_key_id) && !encrypted {
            return Err(Error::new(
                "InvalidParameterDependency",
                "The parameter KmsKeyId requires the parameter Encrypted to be set.",
            ));
        }
        if kms_key_id.as_ref().is_some_and(|id| id.len() > KEY_ID_LEN_MAX) {
            return Err(Error::invalid_parameter_value("The KmsKeyId is longer than any"));
        }
        Ok(Asked { encrypted, kms_key_id: kms_key_id.clone().filter(|id| !id.is_empty()) })
    }
}

/// Which key is taken where none is named.
#[derive(Clone, Copy, PartialEq)]
pub enum Unnamed {
    /// The source's, if it is encrypted: of what is made of a snapshot.
    Source,
    /// The account's default: of copies.
    Default,
}

/// How something is encrypted that is asked for so, and made of this source; None where it is not.
pub fn choose(
    context: &Context,
    tx: &mut Tx<'_>,
    asked: &Asked,
    source: Option<&Encryption>,
    unnamed: Unnamed,
) -> Result<Option<Encryption>> {
    let settings: EncryptionSettings = settings::depend(tx, context.account());
    if !(asked.encrypted || settings.by_default || source.is_some()) {
        return Ok(None);
    }
    let named = match (&asked.kms_key_id, source) {
        (Some(named), _) => Some(named.clone()),
        (None, Some(source)) if unnamed == Unnamed::Source => return Ok(Some(source.clone())),
        (None, _) => settings.default_key.clone(),
    };
    let key = account_key(context, tx, settings)?;
    if named.as_deref().is_some_and(|named| !key.is_named(named)) {
        let kms_key_id = named.unwrap_or_default().into();
        return Ok(Some(Encryption { kms_key_id, sealed: None }));
    }
    if let Some(source) = source.filter(|source| source.kms_key_id == key.arn) {
        return Ok(Some(source.clone()));
    }
    let random = tx.random();
    let data_key = SecretKey::new(random);
    let sealed = sealed::seal(data_key.expose(), &key.arn, &key.open(&context.region)?, random)?;
    Ok(Some(Encryption { kms_key_id: key.arn.into(), sealed: Some(sealed.into()) }))
}

/// The account's key, made where it is not there yet.
fn account_key(context: &Context, tx: &mut Tx<'_>, settings: EncryptionSettings) -> Result<AccountKey> {
    if let Some(key) = settings.key {
        return Ok(key);
    }
    let arn = Arn::kms(tx.region(), context.account(), &new_key_id(tx.random())).to_string();
    let material = SecretKey::new(tx.random());
    let sealed = sealed::seal(material.expose(), &arn, &context.region.secret_key, tx.random())?;
    let key = AccountKey { arn, sealed };
    tx.put(&EncryptionSettings { key: Some(key.clone()), ..settings });
    Ok(key)
}

/// A random UUID, as KMS has them.
fn new_key_id(random: &dyn Random) -> String {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    // Version 4, variant 1.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

impl AccountKey {
    /// By its id, its alias, or the ARN of either.
    fn is_named(&self, name: &str) -> bool {
        let Some((prefix, id)) = self.arn.split_once("key/") else { return false };
        name == self.arn || name == id || name.strip_prefix(prefix).unwrap_or(name) == ALIAS
    }

    fn open(&self, region: &RegionState) -> Result<SecretKey> {
        to_key(&sealed::open(&self.sealed, &self.arn, &region.secret_key)?)
    }
}

impl Encryption {
    /// Refused where there is no such key: of what can't be in error afterwards.
    pub fn check(&self) -> Result<()> {
        match self.sealed {
            Some(_) => Ok(()),
            None => Err(not_there(&self.kms_key_id)),
        }
    }

    /// Whether there is no such key.
    pub fn lacks_key(&self) -> bool {
        self.sealed.is_none()
    }
}

/// What is told of a key that is not there where EC2 tells it afterwards.
pub const NOT_ACCESSIBLE: &str = "Given key ID is not accessible";

fn not_there(name: &str) -> Error {
    Error::invalid_parameter_value(format!("The KMS key '{name}' does not exist in this account and region."))
}

/// The data key of something that is encrypted. For hosts and the block store: never to be written down.
pub fn data_key(region: &RegionState, tables: &Tables, encryption: &Encryption) -> Result<SecretKey> {
    let key = tables.encryption_settings.iter().filter_map(|settings| settings.key.as_ref());
    let key = key.into_iter().find(|key| key.arn == encryption.kms_key_id);
    let (Some(key), Some(sealed)) = (key, &encryption.sealed) else {
        return Err(Error::internal(format!("there is no key {}", encryption.kms_key_id)));
    };
    to_key(&sealed::open(sealed, &key.arn, &key.open(region)?)?)
}

/// The same of any region.
pub async fn data_key_anywhere(control: &Arc<Control>, encryption: &Encryption) -> Result<SecretKey> {
    let region = encryption.kms_key_id.split(':').nth(3).unwrap_or_default();
    let region = control.region(&region.parse::<Region>()?).await?;
    let tables = region.view.read();
    data_key(&region, &tables, encryption)
}

fn to_key(bytes: &[u8]) -> Result<SecretKey> {
    let bytes: [u8; SecretKey::BYTES] = bytes.try_into().map_err(Error::internal)?;
    Ok(bytes.into())
}

/// The data key of a snapshot, after the store was told it: what the snapshot holds can be had from then on.
pub async fn tell(control: &Control, region: &RegionState, snapshot: &Snapshot) -> Result<Option<SecretKey>> {
    let Some(encryption) = &snapshot.encryption else { return Ok(None) };
    let key = data_key(region, &region.view.read(), encryption)?;
    control.snapshots.tell(&key).await;
    Ok(Some(key))
}

/// Snapshots that are encrypted with the account's own key are for nobody else, nor are images made of them.
pub fn check_can_be_shared(snapshot: &Snapshot) -> Result<()> {
    match snapshot.encryption {
        None => Ok(()),
        Some(_) => {
            Err(Error::new("InvalidParameter", "Encrypted snapshots with EBS default key cannot be shared"))
        }
    }
}

pub async fn enable_ebs_encryption_by_default(
    context: &Context,
    _: ec2::EnableEbsEncryptionByDefaultRequest,
) -> Result<ec2::EnableEbsEncryptionByDefaultResult> {
    decide(context, true).await?;
    Ok(ec2::EnableEbsEncryptionByDefaultResult { ebs_encryption_by_default: Some(true) })
}

pub async fn disable_ebs_encryption_by_default(
    context: &Context,
    _: ec2::DisableEbsEncryptionByDefaultRequest,
) -> Result<ec2::DisableEbsEncryptionByDefaultResult> {
    decide(context, false).await?;
    Ok(ec2::DisableEbsEncryptionByDefaultResult { ebs_encryption_by_default: Some(false) })
}

async fn decide(context: &Context, by_default: bool) -> Result<()> {
    settings::change(context, |settings: &mut EncryptionSettings| settings.by_default = by_default).await
}

pub async fn get_ebs_encryption_by_default(
    context: &Context,
    _: ec2::GetEbsEncryptionByDefaultRequest,
) -> Result<ec2::GetEbsEncryptionByDefaultResult> {
    let settings: EncryptionSettings = settings::of(&context.tables(), context.account());
    Ok(ec2::GetEbsEncryptionByDefaultResult {
        ebs_encryption_by_default: Some(settings.by_default),
        sse_type: Some(if settings.by_default { "sse-kms" } else { "none" }.into()),
    })
}

pub async fn get_ebs_default_kms_key_id(
    context: &Context,
    _: ec2::GetEbsDefaultKmsKeyIdRequest,
) -> Result<ec2::GetEbsDefaultKmsKeyIdResult> {
    let settings: EncryptionSettings = settings::of(&context.tables(), context.account());
    let kms_key_id = settings.default_key.unwrap_or_else(|| ALIAS.to_owned());
    Ok(ec2::GetEbsDefaultKmsKeyIdResult { kms_key_id: Some(kms_key_id) })
}

/// By its alias, too, it is a certain key from then on.
pub async fn modify_ebs_default_kms_key_id(
    context: &Context,
    input: ec2::ModifyEbsDefaultKmsKeyIdRequest,
) -> Result<ec2::ModifyEbsDefaultKmsKeyIdResult> {
    let named = input.kms_key_id.unwrap_or_default();
    let arn = context
        .transact(|tx| {
            let settings: EncryptionSettings = settings::depend(tx, context.account());
            let key = account_key(context, tx, settings.clone())?;
            if !key.is_named(&named) {
                return Err(not_there(&named));
            }
            let default_key = Some(key.arn.clone());
            let arn = key.arn.clone();
            tx.put(&EncryptionSettings { default_key, key: Some(key), ..settings });
            Ok(arn)
        })
        .await?;
    Ok(ec2::ModifyEbsDefaultKmsKeyIdResult { kms_key_id: Some(arn) })
}

pub async fn reset_ebs_default_kms_key_id(
    context: &Context,
    _: ec2::ResetEbsDefaultKmsKeyIdRequest,
) -> Result<ec2::ResetEbsDefaultKmsKeyIdResult> {
    settings::change(context, |settings: &mut EncryptionSettings| settings.default_key = None).await?;
    Ok(ec2::ResetEbsDefaultKmsKeyIdResult { kms_key_id: Some(ALIAS.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeededRandom;

    #[test]
    fn a_key_has_four_names() {
        let id = new_key_id(&SeededRandom::new(1));
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        let account = "123456789012".parse().unwrap();
        let arn = Arn::kms(&"eu-west-1".parse::<Region>().unwrap(), &account, &id).to_string();
        let key = AccountKey { arn: arn.clone(), sealed: String::new() };
        let alias = "arn:aws:kms:eu-west-1:123456789012:alias/aws/ebs";
        for name in [&*arn, &id, ALIAS, alias] {
            assert!(key.is_named(name), "{name}");
        }
        for name in ["", "alias/other", &id[1..], &arn.replace("eu-west-1", "eu-west-2"), "key/", "alias"] {
            assert!(!key.is_named(name), "{name}");
        }
    }

    #[test]
    fn a_key_is_named_only_where_encryption_is_asked_for() {
        let named = Some(ALIAS.to_owned());
        for encrypted in [None, Some(false)] {
            assert_eq!(Asked::of(encrypted, &named).unwrap_err().code, "InvalidParameterDependency");
        }
        assert!(Asked::of(Some(true), &named).unwrap().encrypted);
        // What is not wanted may be said by an empty text.
        assert_eq!(Asked::of(None, &Some(String::new())).unwrap(), Asked::default());
    }
}
