//! Block public access for snapshots: whether those of an account can be shared with everybody (EBS User Guide, "Block
//! public access for Amazon EBS snapshots").

use crate::Context;
use crate::engine::settings::{self, MANAGED_BY, Settings};
use crate::engine::table::{Record, Values};
use aws_api::ec2;
use model::{AccountId, Error, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotSettings {
    pub account: AccountId,
    pub public_access: PublicAccess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublicAccess {
    /// What is public already is treated as if it were not.
    BlockAllSharing,
    BlockNewSharing,
    Unblocked,
}

impl PublicAccess {
    fn name(self) -> &'static str {
        match self {
            PublicAccess::BlockAllSharing => "block-all-sharing",
            PublicAccess::BlockNewSharing => "block-new-sharing",
            PublicAccess::Unblocked => "unblocked",
        }
    }
}

impl Record for SnapshotSettings {
    const TABLE: &'static str = "snapshot-settings";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        self.account.as_str()
    }

    fn field<'a>(&'a self, _: &str, _: &mut Values<'a>) -> bool {
        false
    }
}

impl Settings for SnapshotSettings {
    fn new(account: &AccountId) -> Self {
        SnapshotSettings { account: account.clone(), public_access: PublicAccess::Unblocked }
    }
}

pub async fn enable_snapshot_block_public_access(
    context: &Context,
    input: ec2::EnableSnapshotBlockPublicAccessRequest,
) -> Result<ec2::EnableSnapshotBlockPublicAccessResult> {
    let asked = input.state.as_deref().unwrap_or_default();
    let blocking = [PublicAccess::BlockAllSharing, PublicAccess::BlockNewSharing];
    let state = blocking.into_iter().find(|state| state.name() == asked).ok_or_else(|| {
        Error::invalid_parameter_value(format!(
            "Value ({asked}) for parameter state is invalid. Expected: block-all-sharing, block-new-sharing."
        ))
    })?;
    decide(context, state).await?;
    Ok(ec2::EnableSnapshotBlockPublicAccessResult { state: Some(state.name().into()) })
}

pub async fn disable_snapshot_block_public_access(
    context: &Context,
    _: ec2::DisableSnapshotBlockPublicAccessRequest,
) -> Result<ec2::DisableSnapshotBlockPublicAccessResult> {
    decide(context, PublicAccess::Unblocked).await?;
    Ok(ec2::DisableSnapshotBlockPublicAccessResult { state: Some(PublicAccess::Unblocked.name().into()) })
}

async fn decide(context: &Context, public_access: PublicAccess) -> Result<()> {
    settings::change(context, |settings: &mut SnapshotSettings| settings.public_access = public_access).await
}

pub async fn get_snapshot_block_public_access_state(
    context: &Context,
    _: ec2::GetSnapshotBlockPublicAccessStateRequest,
) -> Result<ec2::GetSnapshotBlockPublicAccessStateResult> {
    let settings: SnapshotSettings = settings::of(&context.tables(), context.account());
    Ok(ec2::GetSnapshotBlockPublicAccessStateResult {
        state: Some(settings.public_access.name().into()),
        managed_by: Some(MANAGED_BY.into()),
    })
}
