//! The security groups that an interface is in.

use crate::engine::{Tables, Tx};
use crate::security_group::{self, SecurityGroup};
use model::{Error, Id, Kind, Result};
use smallvec::SmallVec;
use std::sync::Arc;

pub type Groups = SmallVec<[Id; 1]>;

/// Most groups on one interface (VPC User Guide, "Amazon VPC quotas": 5, adjustable to 16).
const GROUPS_MAX: usize = 16;

/// Groups by id or, in the default VPC, by name; the VPC's default one where none is named.
pub fn resolve(tables: &Tables, vpc_id: &Id, ids: &[String], names: &[String]) -> Result<Groups> {
    if !ids.is_empty() && !names.is_empty() {
        return Err(Error::invalid_parameter_combination(
            "The parameter groupName cannot be used with the parameter groupId",
        ));
    }
    if ids.len().max(names.len()) > GROUPS_MAX {
        return Err(Error::new(
            "SecurityGroupsPerInterfaceLimitExceeded",
            format!("You have reached the maximum of {GROUPS_MAX} security groups per network interface."),
        ));
    }
    let mut found = Groups::new();
    for id in ids {
        found.push(by_id(tables, vpc_id, id)?);
    }
    for name in names {
        found.push(by_name(tables, vpc_id, name)?);
    }
    if found.is_empty() {
        let default = of_name(tables, vpc_id, security_group::DEFAULT);
        found.push(default.ok_or_else(|| Error::internal(format!("{vpc_id} has no default group")))?);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Something comes to be in these groups: none of them is about to be deleted.
pub fn depend(tx: &mut Tx<'_>, groups: &[Id]) -> Result<()> {
    groups.iter().try_for_each(|id| security_group::depend(tx, id).map(drop))
}

fn by_id(tables: &Tables, vpc_id: &Id, id: &str) -> Result<Id> {
    let group_id = Id::parse(Kind::SecurityGroup, id)?;
    let group: &Arc<SecurityGroup> =
        tables.security_groups.find(id).ok_or_else(|| Id::not_found(Kind::SecurityGroup, id))?;
    match group.vpc_id == *vpc_id || group.is_associated(vpc_id) {
        true => Ok(group_id),
        false => Err(Error::new(
            "InvalidParameter",
            format!("Security group {id} and the subnet belong to different networks."),
        )),
    }
}

fn by_name(tables: &Tables, vpc_id: &Id, name: &str) -> Result<Id> {
    if !tables.vpcs.find(vpc_id).is_some_and(|vpc| vpc.is_default) {
        return Err(Error::invalid_parameter_combination(
            "The parameter groupName cannot be used with the parameter subnet",
        ));
    }
    of_name(tables, vpc_id, name).ok_or_else(|| {
        Error::new(
            "InvalidGroup.NotFound",
            format!("The security group '{name}' does not exist in default VPC '{vpc_id}'"),
        )
    })
}

fn of_name(tables: &Tables, vpc_id: &Id, name: &str) -> Option<Id> {
    // A VPC has few groups; many VPCs have one of this name.
    let mut groups = tables.security_groups.with("vpc-id", vpc_id);
    groups.find(|group| group.name == name).map(|group| group.group_id.clone())
}
