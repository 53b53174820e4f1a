//! Attributes of an image: described, modified, reset; enabled, disabled, deprecated.

use super::Image;
use super::public_access::ImageSettings;
use crate::Context;
use crate::encryption;
use crate::engine::unsupported::{given, refuse};
use crate::engine::{Tx, filter, settings};
use crate::sharing::Changes;
use aws_api::ec2;
use jiff::Unit;
use model::{Error, Id, Kind, Result};
use std::time::Duration;

/// Ten years, two of a public one (EC2 User Guide, "Deprecate an Amazon EC2 AMI").
const DEPRECATED_WITHIN: Duration = Duration::from_secs(10 * YEAR_SECONDS);
const DEPRECATED_WITHIN_PUBLIC: Duration = Duration::from_secs(2 * YEAR_SECONDS);
const YEAR_SECONDS: u64 = 366 * 24 * 60 * 60;

pub(super) async fn change(
    context: &Context,
    id: Option<&str>,
    change: impl Fn(&mut Tx<'_>, &mut Image) -> Result<()>,
) -> Result<()> {
    let id = Id::parse(Kind::Image, id.unwrap_or_default())?;
    context
        .transact(|tx| {
            let before = tx.get::<Image>(&id).ok_or_else(|| Id::not_found(Kind::Image, &id))?;
            check_owner(context, &before)?;
            let mut image = (*before).clone();
            change(tx, &mut image)?;
            if image != *before {
                tx.put(&image);
            }
            Ok(())
        })
        .await
}

/// The attributes of an image are its owner's business, who may launch it above all.
pub(super) fn check_owner(context: &Context, image: &Image) -> Result<()> {
    if image.owner == *context.account() {
        return Ok(());
    }
    Err(Error::new("AuthFailure", format!("Not authorized for image:{}", image.image_id)))
}

pub async fn describe_image_attribute(
    context: &Context,
    input: ec2::DescribeImageAttributeRequest,
) -> Result<ec2::ImageAttribute> {
    let id = Id::parse(Kind::Image, input.image_id.as_deref().unwrap_or_default())?;
    let image = context.region.view.record::<Image>(&id).ok_or_else(|| Id::not_found(Kind::Image, &id))?;
    check_owner(context, &image)?;
    let text = |value: Option<&str>| Some(ec2::AttributeValue { value: value.map(str::to_owned) });
    let mut answer = ec2::ImageAttribute { image_id: Some(id.to_string()), ..Default::default() };
    match input.attribute.as_deref().unwrap_or_default() {
        "deregistrationProtection" => {
            answer.deregistration_protection = text(Some(image.protection.name()));
        }
        "lastLaunchedTime" => {
            answer.last_launched_time = text(image.last_launched_at.map(filter::time).as_deref());
        }
        "description" => answer.description = text(Some(&image.description)),
        "launchPermission" => {
            let group = image
                .public
                .then(|| ec2::LaunchPermission { group: Some("all".into()), ..Default::default() });
            let accounts = image.launch_permissions.iter().map(|account| ec2::LaunchPermission {
                user_id: Some(account.to_string()),
                ..Default::default()
            });
            answer.launch_permissions = group.into_iter().chain(accounts).collect();
        }
        "blockDeviceMapping" => {
            answer.block_device_mappings =
                image.block_devices.iter().map(super::describe::device_to_api).collect();
        }
        "bootMode" => answer.boot_mode = text(image.boot_mode.as_deref()),
        "imdsSupport" => answer.imds_support = text(image.imds_support.as_deref()),
        "kernel" => answer.kernel_id = text(None),
        "ramdisk" => answer.ramdisk_id = text(None),
        "sriovNetSupport" => answer.sriov_net_support = text(image.sriov_net_support.as_deref()),
        "tpmSupport" => answer.tpm_support = text(super::tpm_support(image.tpm)),
        "uefiData" => answer.uefi_data = text(image.uefi_data.as_deref()),
        "productCodes" => {}
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter attribute is invalid. Unknown attribute."
            )));
        }
    }
    Ok(answer)
}

pub async fn modify_image_attribute(
    context: &Context,
    input: ec2::ModifyImageAttributeRequest,
) -> Result<()> {
    refuse([
        (is_about_organizations(&input), "Images that are shared with organizations are"),
        (!input.product_codes.is_empty(), "Product codes are"),
    ])?;
    let said = |name: &str, value: &Option<ec2::AttributeValue>| {
        let by_name = input.value.clone().filter(|_| input.attribute.as_deref() == Some(name));
        value.as_ref().and_then(|value| value.value.clone()).or(by_name)
    };
    let description = said("description", &input.description);
    description.as_deref().map(crate::description::check).transpose()?;
    let imds_support = said("imdsSupport", &input.imds_support);
    imds_support.as_deref().map(super::check_imds_support).transpose()?;
    let permissions = permissions(&input)?;
    if description.is_none() && imds_support.is_none() && permissions.is_empty() {
        return Err(Error::invalid_parameter_combination("No attributes specified."));
    }
    change(context, input.image_id.as_deref(), |tx, image| {
        if permissions.shares() {
            let snapshots = image.block_devices.iter().filter_map(|device| device.snapshot_id.as_ref());
            let mut snapshots = snapshots.filter_map(|id| tx.tables().snapshots.find(id));
            snapshots.try_for_each(|snapshot| encryption::check_can_be_shared(snapshot))?;
        }
        if permissions.makes_public()
            && !image.public
            && settings::depend::<ImageSettings>(tx, context.account()).blocks_public_access
        {
            return Err(Error::new(
                "OperationNotPermitted",
                "You can't publicly share this image because block public access for AMIs is enabled for this account.",
            ));
        }
        if let Some(description) = &description {
            image.description = description.clone();
        }
        if imds_support.is_some() {
            image.imds_support = imds_support.clone();
        }
        permissions.apply(&mut image.public, &mut image.launch_permissions);
        Ok(())
    })
    .await
}

fn is_about_organizations(input: &ec2::ModifyImageAttributeRequest) -> bool {
    let listed = input.launch_permission.iter().flat_map(|change| change.add.iter().chain(&change.remove));
    !input.organization_arns.is_empty()
        || !input.organizational_unit_arns.is_empty()
        || listed
            .into_iter()
            .any(|item| given(&item.organization_arn) || given(&item.organizational_unit_arn))
}

fn permissions(input: &ec2::ModifyImageAttributeRequest) -> Result<Changes> {
    let listed = input.launch_permission.iter().flat_map(|change| {
        let added = change.add.iter().map(|item| (true, item));
        added.chain(change.remove.iter().map(|item| (false, item)))
    });
    Changes::of(
        listed.map(|(add, item)| (add, item.user_id.as_deref(), item.group.as_deref())),
        input.operation_type.as_deref(),
        &input.user_ids,
        &input.user_groups,
        "InvalidAMIAttributeItemValue",
    )
}

pub async fn reset_image_attribute(context: &Context, input: ec2::ResetImageAttributeRequest) -> Result<()> {
    if input.attribute.as_deref() != Some("launchPermission") {
        return Err(Error::invalid_parameter_value("Only the attribute launchPermission can be reset"));
    }
    change(context, input.image_id.as_deref(), |_, image| {
        image.public = false;
        image.launch_permissions.clear();
        Ok(())
    })
    .await
}

pub async fn enable_image(
    context: &Context,
    input: ec2::EnableImageRequest,
) -> Result<ec2::EnableImageResult> {
    change(context, input.image_id.as_deref(), |_, image| {
        image.disabled = false;
        Ok(())
    })
    .await?;
    Ok(ec2::EnableImageResult { r#return: Some(true) })
}

/// A disabled image cannot be launched and is no longer public.
pub async fn disable_image(
    context: &Context,
    input: ec2::DisableImageRequest,
) -> Result<ec2::DisableImageResult> {
    change(context, input.image_id.as_deref(), |_, image| {
        image.disabled = true;
        image.public = false;
        image.launch_permissions.clear();
        Ok(())
    })
    .await?;
    Ok(ec2::DisableImageResult { r#return: Some(true) })
}

pub async fn enable_image_deprecation(
    context: &Context,
    input: ec2::EnableImageDeprecationRequest,
) -> Result<ec2::EnableImageDeprecationResult> {
    let now = context.environment.clock.now();
    let at = input
        .deprecate_at
        .filter(|at| *at > now)
        // EC2 API Reference, EnableImageDeprecation: to the nearest minute.
        .and_then(|at| at.round(Unit::Minute).ok())
        .ok_or_else(|| Error::invalid_parameter_value("The deprecation date must be in the future"))?;
    change(context, input.image_id.as_deref(), |_, image| {
        let within = if image.public { DEPRECATED_WITHIN_PUBLIC } else { DEPRECATED_WITHIN };
        if at.duration_since(now).unsigned_abs() > within {
            return Err(Error::invalid_parameter_value("The deprecation date is too far in the future"));
        }
        image.deprecated_at = Some(at);
        Ok(())
    })
    .await?;
    Ok(ec2::EnableImageDeprecationResult { r#return: Some(true) })
}

pub async fn disable_image_deprecation(
    context: &Context,
    input: ec2::DisableImageDeprecationRequest,
) -> Result<ec2::DisableImageDeprecationResult> {
    change(context, input.image_id.as_deref(), |_, image| {
        image.deprecated_at = None;
        Ok(())
    })
    .await?;
    Ok(ec2::DisableImageDeprecationResult { r#return: Some(true) })
}

/// Ends that another account's image is shared with the caller's.
pub async fn cancel_image_launch_permission(
    context: &Context,
    input: ec2::CancelImageLaunchPermissionRequest,
) -> Result<ec2::CancelImageLaunchPermissionResult> {
    let id = Id::parse(Kind::Image, input.image_id.as_deref().unwrap_or_default())?;
    let account = context.account();
    context
        .transact(|tx| {
            let image = tx.get::<Image>(&id).filter(|image| image.is_visible_to(account));
            let mut image = (*image.ok_or_else(|| Id::not_found(Kind::Image, &id))?).clone();
            let shared = image.launch_permissions.len();
            image.launch_permissions.retain(|with| with != account);
            if image.launch_permissions.len() == shared {
                return Err(Error::new(
                    "OperationNotPermitted",
                    format!("The image '{id}' is not shared with the account {account}."),
                ));
            }
            tx.put(&image);
            Ok(())
        })
        .await?;
    Ok(ec2::CancelImageLaunchPermissionResult { r#return: Some(true) })
}
