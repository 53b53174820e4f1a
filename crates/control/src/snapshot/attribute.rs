//! Attributes of a snapshot: who may make volumes of it.

use super::Snapshot;
use super::public_access::{PublicAccess, SnapshotSettings};
use crate::Context;
use crate::encryption;
use crate::engine::{Tx, settings};
use crate::sharing::Changes;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

pub async fn describe_snapshot_attribute(
    context: &Context,
    input: ec2::DescribeSnapshotAttributeRequest,
) -> Result<ec2::DescribeSnapshotAttributeResult> {
    let id = Id::parse(Kind::Snapshot, input.snapshot_id.as_deref().unwrap_or_default())?;
    let snapshot = context.region.view.record::<Snapshot>(&id);
    let snapshot = snapshot.ok_or_else(|| Id::not_found(Kind::Snapshot, &id))?;
    let mut answer =
        ec2::DescribeSnapshotAttributeResult { snapshot_id: Some(id.to_string()), ..Default::default() };
    match input.attribute.as_deref().unwrap_or_default() {
        "createVolumePermission" => answer.create_volume_permissions = permissions(&snapshot),
        "productCodes" => {}
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter attribute is invalid. Unknown attribute."
            )));
        }
    }
    Ok(answer)
}

fn permissions(snapshot: &Snapshot) -> Vec<ec2::CreateVolumePermission> {
    let everybody = snapshot
        .public
        .then(|| ec2::CreateVolumePermission { group: Some("all".into()), ..Default::default() });
    let accounts = snapshot.create_volume_permissions.iter().map(|account| ec2::CreateVolumePermission {
        user_id: Some(account.to_string()),
        ..Default::default()
    });
    everybody.into_iter().chain(accounts).collect()
}

pub async fn modify_snapshot_attribute(
    context: &Context,
    input: ec2::ModifySnapshotAttributeRequest,
) -> Result<()> {
    check_attribute(input.attribute.as_deref())?;
    let listed = input.create_volume_permission.iter().flat_map(|change| {
        let added = change.add.iter().map(|item| (true, item));
        added.chain(change.remove.iter().map(|item| (false, item)))
    });
    let changes = Changes::of(
        listed.map(|(add, item)| (add, item.user_id.as_deref(), item.group.as_deref())),
        input.operation_type.as_deref(),
        &input.user_ids,
        &input.group_names,
        "InvalidParameterValue",
    )?;
    if changes.is_empty() {
        return Err(Error::invalid_parameter_combination("No attributes specified."));
    }
    change(context, input.snapshot_id.as_deref(), |tx, snapshot| {
        if changes.shares() {
            encryption::check_can_be_shared(snapshot)?;
        }
        if changes.makes_public() && !snapshot.public {
            check_can_be_public(tx, context)?;
        }
        changes.apply(&mut snapshot.public, &mut snapshot.create_volume_permissions);
        Ok(())
    })
    .await
}

pub async fn reset_snapshot_attribute(
    context: &Context,
    input: ec2::ResetSnapshotAttributeRequest,
) -> Result<()> {
    check_attribute(input.attribute.as_deref())?;
    change(context, input.snapshot_id.as_deref(), |_, snapshot| {
        snapshot.public = false;
        snapshot.create_volume_permissions.clear();
        Ok(())
    })
    .await
}

fn check_attribute(attribute: Option<&str>) -> Result<()> {
    match attribute {
        None | Some("createVolumePermission") => Ok(()),
        Some(_) => {
            Err(Error::invalid_parameter_value("Only the attribute createVolumePermission can be modified"))
        }
    }
}

fn check_can_be_public(tx: &mut Tx<'_>, context: &Context) -> Result<()> {
    let SnapshotSettings { public_access, .. } = settings::depend(tx, context.account());
    if public_access == PublicAccess::Unblocked {
        return Ok(());
    }
    Err(Error::new(
        "OperationNotPermitted",
        "You can't publicly share this snapshot because block public access for snapshots is enabled for this account.",
    ))
}

async fn change(
    context: &Context,
    id: Option<&str>,
    change: impl Fn(&mut Tx<'_>, &mut Snapshot) -> Result<()>,
) -> Result<()> {
    let id = Id::parse(Kind::Snapshot, id.unwrap_or_default())?;
    context
        .transact(|tx| {
            let before = tx.get::<Snapshot>(&id).ok_or_else(|| Id::not_found(Kind::Snapshot, &id))?;
            let mut snapshot = (*before).clone();
            change(tx, &mut snapshot)?;
            if snapshot != *before {
                tx.put(&snapshot);
            }
            Ok(())
        })
        .await
}
