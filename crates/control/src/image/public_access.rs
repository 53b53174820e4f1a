//! What an account has decided about the images of a region: whether its own can be made public, and which of others it
//! allows.

use super::allowed::AllowedImages;
use crate::Context;
use crate::engine::settings::{self, MANAGED_BY, Settings};
use crate::engine::table::{Record, Values};
use aws_api::ec2;
use model::{AccountId, Error, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageSettings {
    pub account: AccountId,
    pub blocks_public_access: bool,
    pub allowed: AllowedImages,
}

impl Record for ImageSettings {
    const TABLE: &'static str = "image-settings";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        self.account.as_str()
    }

    fn field<'a>(&'a self, _: &str, _: &mut Values<'a>) -> bool {
        false
    }
}

impl Settings for ImageSettings {
    /// The images of a new account stay its own (EC2 User Guide, "Block public access to your AMIs").
    fn new(account: &AccountId) -> Self {
        ImageSettings {
            account: account.clone(),
            blocks_public_access: true,
            allowed: AllowedImages::default(),
        }
    }
}

const BLOCKED: &str = "block-new-sharing";
const UNBLOCKED: &str = "unblocked";

/// What is public already stays so.
pub async fn enable_image_block_public_access(
    context: &Context,
    input: ec2::EnableImageBlockPublicAccessRequest,
) -> Result<ec2::EnableImageBlockPublicAccessResult> {
    let state = input.image_block_public_access_state.as_deref().unwrap_or_default();
    if state != BLOCKED {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({state}) for parameter imageBlockPublicAccessState is invalid. Expected: {BLOCKED}."
        )));
    }
    settings::change(context, |settings: &mut ImageSettings| settings.blocks_public_access = true).await?;
    Ok(ec2::EnableImageBlockPublicAccessResult { image_block_public_access_state: Some(BLOCKED.into()) })
}

pub async fn disable_image_block_public_access(
    context: &Context,
    _: ec2::DisableImageBlockPublicAccessRequest,
) -> Result<ec2::DisableImageBlockPublicAccessResult> {
    settings::change(context, |settings: &mut ImageSettings| settings.blocks_public_access = false).await?;
    Ok(ec2::DisableImageBlockPublicAccessResult { image_block_public_access_state: Some(UNBLOCKED.into()) })
}

pub async fn get_image_block_public_access_state(
    context: &Context,
    _: ec2::GetImageBlockPublicAccessStateRequest,
) -> Result<ec2::GetImageBlockPublicAccessStateResult> {
    let settings: ImageSettings = settings::of(&context.tables(), context.account());
    let state = if settings.blocks_public_access { BLOCKED } else { UNBLOCKED };
    Ok(ec2::GetImageBlockPublicAccessStateResult {
        image_block_public_access_state: Some(state.into()),
        managed_by: Some(MANAGED_BY.into()),
    })
}
