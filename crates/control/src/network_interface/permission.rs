//! Permissions to attach an interface, granted to other accounts: CreateNetworkInterfacePermission,
//! DeleteNetworkInterfacePermission, DescribeNetworkInterfacePermissions.
//!
//! Who is granted one is a question of records here: a cloud has one account, and no other that could make use of it.

use super::NetworkInterface;
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::unsupported::{given, refuse};
use crate::engine::{Tx, filter, quota};
use aws_api::ec2;
use model::{AccountId, Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInterfacePermission {
    pub permission_id: Id,
    /// It goes with the interface.
    pub interface_id: Id,
    /// Who may.
    pub account: AccountId,
    pub permission: Permission,
}

/// EC2's `InterfacePermissionType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Permission {
    InstanceAttach,
    EipAssociate,
}

impl Permission {
    const ALL: [Permission; 2] = [Permission::InstanceAttach, Permission::EipAssociate];

    fn name(self) -> &'static str {
        match self {
            Permission::InstanceAttach => "INSTANCE-ATTACH",
            Permission::EipAssociate => "EIP-ASSOCIATE",
        }
    }

    fn parse(text: &str) -> Result<Permission> {
        Permission::ALL.into_iter().find(|one| one.name() == text).ok_or_else(|| {
            Error::invalid_parameter_value(format!("Value ({text}) for parameter permission is invalid."))
        })
    }
}

const BY_INTERFACE: &str = "network-interface-permission.network-interface-id";

impl Record for NetworkInterfacePermission {
    const TABLE: &'static str = "network-interface-permission";
    const INDEXED: &'static [&'static str] = &[BY_INTERFACE];

    fn id(&self) -> &str {
        &self.permission_id
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            BY_INTERFACE => filter::one(values, self.interface_id.as_str()),
            "network-interface-permission.network-interface-permission-id" => {
                filter::one(values, self.permission_id.as_str())
            }
            "network-interface-permission.aws-account-id" => filter::one(values, self.account.as_str()),
            "network-interface-permission.aws-service" => true,
            "network-interface-permission.permission" => filter::one(values, self.permission.name()),
            _ => false,
        }
    }
}

/// The interface goes, and what was granted on it.
pub(super) fn revoke_all(tx: &mut Tx<'_>, interface_id: &str) {
    for permission in tx.tables().network_interface_permissions.with(BY_INTERFACE, interface_id) {
        tx.delete::<NetworkInterfacePermission>(&permission.permission_id);
    }
}

pub async fn create_network_interface_permission(
    context: &Context,
    input: ec2::CreateNetworkInterfacePermissionRequest,
) -> Result<ec2::CreateNetworkInterfacePermissionResult> {
    refuse([(given(&input.aws_service), "Permissions for services are")])?;
    let permission = Permission::parse(input.permission.as_deref().unwrap_or_default())?;
    let account = input.aws_account_id.ok_or_else(|| Error::missing_parameter("AwsAccountId"))?;
    let account: AccountId = account.parse()?;
    if account == *context.account() {
        return Err(Error::invalid_parameter_value(format!("The account {account} owns the interface.")));
    }
    let id = input.network_interface_id.unwrap_or_default();
    let made = context
        .transact(|tx| {
            let interface: NetworkInterface = super::own(tx, &id)?;
            let tables = tx.tables();
            let mut there = tables.network_interface_permissions.with(BY_INTERFACE, &id);
            if there.any(|one| one.account == account && one.permission == permission) {
                return Err(Error::new(
                    "InvalidPermission.Duplicate",
                    format!("The account {account} has the permission {} already.", permission.name()),
                ));
            }
            let count = tables.network_interface_permissions.count(BY_INTERFACE, &id) + 1;
            tx.quotas().check_within(quota::PERMISSIONS_PER_NETWORK_INTERFACE, count)?;
            let made = NetworkInterfacePermission {
                permission_id: tx.new_id(Kind::NetworkInterfacePermission),
                interface_id: interface.interface_id.clone(),
                account: account.clone(),
                permission,
            };
            // Written as it is: who grants the same, or deletes the interface, sees this one.
            tx.put(&interface);
            tx.create(&made);
            Ok(made)
        })
        .await?;
    Ok(ec2::CreateNetworkInterfacePermissionResult { interface_permission: Some(to_api(&made)) })
}

pub async fn delete_network_interface_permission(
    context: &Context,
    input: ec2::DeleteNetworkInterfacePermissionRequest,
) -> Result<ec2::DeleteNetworkInterfacePermissionResult> {
    let id = input.network_interface_permission_id.unwrap_or_default();
    let id = Id::parse(Kind::NetworkInterfacePermission, &id)?;
    context
        .transact(|tx| {
            tx.get::<NetworkInterfacePermission>(&id)
                .ok_or_else(|| Id::not_found(Kind::NetworkInterfacePermission, &id))?;
            tx.delete::<NetworkInterfacePermission>(&id);
            Ok(())
        })
        .await?;
    Ok(ec2::DeleteNetworkInterfacePermissionResult { r#return: Some(true) })
}

pub async fn describe_network_interface_permissions(
    context: &Context,
    input: ec2::DescribeNetworkInterfacePermissionsRequest,
) -> Result<ec2::DescribeNetworkInterfacePermissionsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.network_interface_permission_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "networkInterfacePermissionIds",
    };
    let page = describe::select(
        &tables.network_interface_permissions,
        Kind::NetworkInterfacePermission,
        &query,
        |_| true,
        |_, _, _| false,
    )?;
    Ok(ec2::DescribeNetworkInterfacePermissionsResult {
        network_interface_permissions: page.records.iter().map(|permission| to_api(permission)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(permission: &NetworkInterfacePermission) -> ec2::NetworkInterfacePermission {
    ec2::NetworkInterfacePermission {
        network_interface_permission_id: Some(permission.permission_id.to_string()),
        network_interface_id: Some(permission.interface_id.to_string()),
        aws_account_id: Some(permission.account.to_string()),
        permission: Some(permission.permission.name().into()),
        permission_state: Some(ec2::NetworkInterfacePermissionState {
            state: Some("granted".into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}
