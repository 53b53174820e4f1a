//! Attributes of a snapshot: who may make volumes of it.

use super::Snapshot;
use crate::Context;
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
    if input.attribute.as_deref() == Some("createVolumePermission") {
        let everybody = snapshot
            .public
            .then(|| ec2::CreateVolumePermission { group: Some("all".into()), ..Default::default() });
        let accounts = snapshot.create_volume_permissions.iter().map(|account| ec2::CreateVolumePermission {
            user_id: Some(account.to_string()),
            ..Default::default()
        });
        answer.create_volume_permissions = everybody.into_iter().chain(accounts).collect();
    }
    Ok(answer)
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
    change(context, input.snapshot_id.as_deref(), |snapshot| {
        changes.apply(&mut snapshot.public, &mut snapshot.create_volume_permissions);
    })
    .await
}

pub async fn reset_snapshot_attribute(
    context: &Context,
    input: ec2::ResetSnapshotAttributeRequest,
) -> Result<()> {
    check_attribute(input.attribute.as_deref())?;
    change(context, input.snapshot_id.as_deref(), |snapshot| {
        snapshot.public = false;
        snapshot.create_volume_permissions.clear();
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

async fn change(context: &Context, id: Option<&str>, change: impl Fn(&mut Snapshot)) -> Result<()> {
    let id = Id::parse(Kind::Snapshot, id.unwrap_or_default())?;
    context
        .transact(|tx| {
            let before = tx.get::<Snapshot>(&id).ok_or_else(|| Id::not_found(Kind::Snapshot, &id))?;
            let mut snapshot = (*before).clone();
            change(&mut snapshot);
            if snapshot != *before {
                tx.put(&snapshot);
            }
            Ok(())
        })
        .await
}
