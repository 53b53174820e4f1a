//! AWS STS: who the caller is.

use crate::Context;
use aws_api::sts;
use model::Result;

pub async fn get_caller_identity(
    context: &Context,
    _: sts::GetCallerIdentityRequest,
) -> Result<sts::GetCallerIdentityResponse> {
    Ok(sts::GetCallerIdentityResponse {
        user_id: Some(context.caller.user_id.clone()),
        account: Some(context.caller.account.to_string()),
        arn: Some(context.caller.arn.clone()),
    })
}
