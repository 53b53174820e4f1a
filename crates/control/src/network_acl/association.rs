//! ReplaceNetworkAclAssociation: every subnet has one list at all times, so that one is only ever replaced by another.

use super::{BY_ASSOCIATION, NetworkAcl};
use crate::Context;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

pub async fn replace_network_acl_association(
    context: &Context,
    input: ec2::ReplaceNetworkAclAssociationRequest,
) -> Result<ec2::ReplaceNetworkAclAssociationResult> {
    let id = Id::parse(Kind::NetworkAcl, input.network_acl_id.as_deref().unwrap_or_default())?;
    let association_id = input.association_id.unwrap_or_default();
    Id::parse(Kind::NetworkAclAssociation, &association_id)?;
    let new = context
        .transact(|tx| {
            let unknown = || Id::not_found(Kind::NetworkAclAssociation, &association_id);
            let found = tx.tables().network_acls.with(BY_ASSOCIATION, &association_id).next();
            let before = found.and_then(|acl| tx.get::<NetworkAcl>(&acl.network_acl_id));
            let mut before = (*before.ok_or_else(unknown)?).clone();
            let after = tx.get::<NetworkAcl>(&id).ok_or_else(|| Id::not_found(Kind::NetworkAcl, &id))?;
            let mut after = (*after).clone();
            if before.network_acl_id == after.network_acl_id {
                return Ok(association_id.clone());
            }
            let at = before.associations.iter().position(|(of, _)| **of == *association_id);
            let (_, subnet_id) = before.associations.remove(at.ok_or_else(unknown)?);
            if before.vpc_id != after.vpc_id {
                return Err(Error::invalid_parameter_value(format!(
                    "Network ACL {id} and subnet {subnet_id} belong to different networks"
                )));
            }
            let new = after.associate(tx, &subnet_id);
            tx.put(&before);
            tx.put(&after);
            Ok(new.to_string())
        })
        .await?;
    Ok(ec2::ReplaceNetworkAclAssociationResult { new_association_id: Some(new) })
}
