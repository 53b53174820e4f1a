//! Groups that further VPCs may use (VPC User Guide, "Associate security groups with multiple VPCs").

use super::{DEFAULT, SecurityGroup, depend};
use crate::Context;
use crate::engine::describe::page_of;
use crate::engine::{Tables, Tx, filter};
use crate::vpc::{self, Vpc};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most VPCs of one group.
const VPCS_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VpcAssociation {
    pub vpc_id: Id,
    /// It is about to go: no interface comes to use it any more.
    #[serde(default)]
    pub goes: bool,
}

/// The field with the further VPCs of a group. Ours.
pub(super) const WITH_VPC: &str = "cumulet:associated-vpc";

impl SecurityGroup {
    /// Whether an interface of the VPC, which is not the group's own, may come to be in it.
    pub fn is_associated(&self, vpc_id: &str) -> bool {
        self.associations.iter().any(|of| *of.vpc_id == *vpc_id && !of.goes)
    }

    fn has(&self, vpc_id: &str) -> bool {
        self.associations.iter().any(|of| *of.vpc_id == *vpc_id)
    }

    fn without(&self, vpc_id: &str) -> SecurityGroup {
        let mut group = self.clone();
        group.associations.retain(|of| *of.vpc_id != *vpc_id);
        group
    }

    fn with(&self, vpc_id: &Id, goes: bool) -> SecurityGroup {
        let mut group = self.without(vpc_id);
        group.associations.push(VpcAssociation { vpc_id: vpc_id.clone(), goes });
        group
    }
}

/// The groups of other VPCs that one is associated with.
pub fn of_vpc<'t>(tables: &'t Tables, vpc_id: &str) -> impl Iterator<Item = &'t Arc<SecurityGroup>> {
    tables.security_groups.with(WITH_VPC, vpc_id)
}

/// Lets go of a VPC that is deleted.
pub fn forget(tx: &mut Tx<'_>, vpc_id: &str) {
    for id in of_vpc(tx.tables(), vpc_id).map(|group| group.group_id.clone()) {
        if let Some(group) = tx.get::<SecurityGroup>(&id) {
            tx.put(&group.without(vpc_id));
        }
    }
}

/// Lets associations stay whose going a crash has cut short: nothing of it was acknowledged.
pub(crate) fn keep_all(tx: &mut Tx<'_>) {
    let goes = |group: &&Arc<SecurityGroup>| group.associations.iter().any(|of| of.goes);
    for id in tx.tables().security_groups.iter().filter(goes).map(|group| group.group_id.clone()) {
        let Some(group) = tx.get::<SecurityGroup>(&id) else { continue };
        let mut group = (*group).clone();
        group.associations.iter_mut().for_each(|of| of.goes = false);
        tx.put(&group);
    }
}

pub async fn associate_security_group_vpc(
    context: &Context,
    input: ec2::AssociateSecurityGroupVpcRequest,
) -> Result<ec2::AssociateSecurityGroupVpcResult> {
    let group_id = Id::parse(Kind::SecurityGroup, input.group_id.as_deref().unwrap_or_default())?;
    let vpc_id = input.vpc_id.unwrap_or_default();
    context
        .transact(|tx| {
            let group = depend(tx, &group_id)?;
            let vpc = vpc::depend(tx, &vpc_id)?;
            check(tx, &group, &vpc)?;
            tx.put(&group.with(&vpc.vpc_id, false));
            Ok(())
        })
        .await?;
    Ok(ec2::AssociateSecurityGroupVpcResult { state: Some("associating".into()) })
}

fn check(tx: &mut Tx<'_>, group: &SecurityGroup, vpc: &Vpc) -> Result<()> {
    let own = tx.get::<Vpc>(&group.vpc_id);
    if group.name == DEFAULT {
        return Err(Error::invalid_parameter_value(
            "A default security group can't be associated with a VPC.",
        ));
    }
    if vpc.is_default || own.is_some_and(|own| own.is_default) {
        return Err(Error::invalid_parameter_value(
            "The default VPC takes no part in associations of groups.",
        ));
    }
    if vpc.vpc_id == group.vpc_id || group.has(&vpc.vpc_id) {
        return Err(Error::invalid_parameter_value(format!(
            "The security group '{}' is associated with '{}' already.",
            group.group_id, vpc.vpc_id
        )));
    }
    if group.associations.len() >= VPCS_MAX {
        return Err(Error::new(
            "ResourceLimitExceeded",
            format!("A security group can be associated with {VPCS_MAX} VPCs at most."),
        ));
    }
    Ok(())
}

/// In two steps, as what is deleted goes (`engine::retire`): first no interface comes to use it, and then all that do are
/// seen.
pub async fn disassociate_security_group_vpc(
    context: &Context,
    input: ec2::DisassociateSecurityGroupVpcRequest,
) -> Result<ec2::DisassociateSecurityGroupVpcResult> {
    let group_id = Id::parse(Kind::SecurityGroup, input.group_id.as_deref().unwrap_or_default())?;
    let vpc_id = Id::parse(Kind::Vpc, input.vpc_id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let group = associated(tx, &group_id, &vpc_id)?;
            tx.put(&group.with(&vpc_id, true));
            Ok(())
        })
        .await?;
    let used = context
        .transact(|tx| {
            let group = associated(tx, &group_id, &vpc_id)?;
            let mut members = tx.tables().network_interfaces.with("group-id", &group_id);
            let used = members.any(|interface| interface.vpc_id == vpc_id);
            tx.put(&if used { group.with(&vpc_id, false) } else { group.without(&vpc_id) });
            Ok(used)
        })
        .await?;
    match used {
        true => Err(Error::new(
            "DependencyViolation",
            format!("Network interfaces of '{vpc_id}' are in the security group '{group_id}'."),
        )),
        false => Ok(ec2::DisassociateSecurityGroupVpcResult { state: Some("disassociating".into()) }),
    }
}

fn associated(tx: &mut Tx<'_>, group_id: &Id, vpc_id: &Id) -> Result<Arc<SecurityGroup>> {
    let group = depend(tx, group_id)?;
    if group.has(vpc_id) {
        return Ok(group);
    }
    Err(Error::new(
        "InvalidSecurityGroupVpcAssociation.NotFound",
        format!("The security group '{group_id}' is not associated with '{vpc_id}'."),
    ))
}

pub async fn describe_security_group_vpc_associations(
    context: &Context,
    input: ec2::DescribeSecurityGroupVpcAssociationsRequest,
) -> Result<ec2::DescribeSecurityGroupVpcAssociationsResult> {
    let tables = context.tables();
    let filters = filter::parse(&input.filters)?;
    let mut found = Vec::new();
    for group in tables.security_groups.iter() {
        for of in &group.associations {
            let passes = filter::passes(&filters, |name, values| match name {
                "group-id" => filter::one(values, group.group_id.as_str()),
                "group-owner-id" | "vpc-owner-id" => filter::one(values, group.owner.as_str()),
                "state" => filter::one(values, "associated"),
                "vpc-id" => filter::one(values, of.vpc_id.as_str()),
                _ => false,
            })?;
            found.extend(passes.then_some((group, of)));
        }
    }
    let key =
        |(group, of): &(&Arc<SecurityGroup>, &VpcAssociation)| format!("{}/{}", group.group_id, of.vpc_id);
    found.sort_by_key(key);
    let (page, next_token) =
        page_of(&found, key, &input.filters, input.max_results, input.next_token.as_deref())?;
    let to_api = |(group, of): (&Arc<SecurityGroup>, &VpcAssociation)| ec2::SecurityGroupVpcAssociation {
        group_id: Some(group.group_id.to_string()),
        group_owner_id: Some(group.owner.to_string()),
        vpc_id: Some(of.vpc_id.to_string()),
        vpc_owner_id: Some(group.owner.to_string()),
        state: Some("associated".into()),
        ..Default::default()
    };
    Ok(ec2::DescribeSecurityGroupVpcAssociationsResult {
        security_group_vpc_associations: page.into_iter().map(to_api).collect(),
        next_token,
    })
}
