//! CreateNetworkAcl, DeleteNetworkAcl.

use super::{NetworkAcl, to_api};
use crate::Context;
use crate::engine::quota;
use crate::engine::tags::Specified;
use crate::vpc;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

pub async fn create_network_acl(
    context: &Context,
    input: ec2::CreateNetworkAclRequest,
) -> Result<ec2::CreateNetworkAclResult> {
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::NetworkAcl])?;
    let vpc_id = input.vpc_id.unwrap_or_default();
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let vpc = vpc::depend(tx, &vpc_id)?;
            let count = tx.tables().network_acls.count("vpc-id", &vpc_id) + 1;
            tx.quotas().check_within(quota::NETWORK_ACLS_PER_VPC, count)?;
            let mut acl = NetworkAcl::new(tx, context.account(), &vpc);
            acl.tags = tags.of(Kind::NetworkAcl);
            tx.create(&acl);
            idempotent.remember(tx, vec![acl.network_acl_id.to_string()]);
            Ok(acl.network_acl_id.to_string())
        })
        .await?;
    let acl = context.region.view.record::<NetworkAcl>(&id);
    let acl = acl.ok_or_else(|| Id::not_found(Kind::NetworkAcl, &id))?;
    Ok(ec2::CreateNetworkAclResult { network_acl: Some(to_api(&acl)), client_token: input.client_token })
}

pub async fn delete_network_acl(context: &Context, input: ec2::DeleteNetworkAclRequest) -> Result<()> {
    let id = Id::parse(Kind::NetworkAcl, input.network_acl_id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let acl = tx.get::<NetworkAcl>(&id).ok_or_else(|| Id::not_found(Kind::NetworkAcl, &id))?;
            if acl.is_default {
                return Err(Error::invalid_parameter_value(format!(
                    "cannot delete default network ACL {id}"
                )));
            }
            if !acl.associations.is_empty() {
                return Err(Error::new(
                    "DependencyViolation",
                    format!("The networkAcl '{id}' has dependencies and cannot be deleted."),
                ));
            }
            tx.delete::<NetworkAcl>(&id);
            Ok(())
        })
        .await
}
