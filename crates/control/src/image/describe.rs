//! DescribeImages.

use super::allowed::Judge;
use super::public_access::ImageSettings;
use super::{Image, ImageBlockDevice};
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::{filter, settings};
use crate::instance::architecture_name;
use aws_api::ec2;
use model::{Kind, Result};

pub async fn describe_images(
    context: &Context,
    input: ec2::DescribeImagesRequest,
) -> Result<ec2::DescribeImagesResult> {
    let tables = context.tables();
    let now = context.environment.clock.now();
    let account = context.account();
    let owned = |image: &Image| {
        input.owners.is_empty()
            || input.owners.iter().any(|owner| match owner.as_str() {
                "self" => image.owner == *account,
                other => image.owner.as_str() == other || image.owner_alias.as_deref() == Some(other),
            })
    };
    let executable = |image: &Image| {
        input.executable_users.is_empty()
            || input.executable_users.iter().any(|user| match user.as_str() {
                "all" => image.public,
                "self" => image.launch_permissions.contains(account),
                other => image.launch_permissions.iter().any(|allowed| allowed.as_str() == other),
            })
    };
    let named = !input.image_ids.is_empty();
    let listed = |image: &Image| {
        let deprecated = image.deprecated_at.is_some_and(|at| at <= now);
        (image.owner == *account || !deprecated || input.include_deprecated == Some(true))
            && (!image.disabled || input.include_disabled == Some(true))
    };
    // An image that is named is there or not, whoever owns it.
    let wanted = |image: &Image| owned(image) && executable(image);
    let settings: ImageSettings = settings::of(&tables, account);
    let judge = Judge::new(&settings, now);
    let visible = |image: &Image| {
        image.is_visible_to(account) && !judge.hides(image) && (named || (listed(image) && wanted(image)))
    };
    // While instances refer to an image that was deregistered, its id finds nothing and is no error
    // (EC2 API Reference, DescribeImages).
    let outlived = |id: &String| !tables.images.contains(id) && tables.instances.count("image-id", id) > 0;
    let image_ids: Vec<String> = input.image_ids.iter().filter(|id| !outlived(id)).cloned().collect();
    if image_ids.is_empty() && named {
        return Ok(ec2::DescribeImagesResult::default());
    }
    let query = Query {
        ids: &image_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "imagesSet",
    };
    let mut page =
        describe::select(&tables.images, Kind::Image, &query, visible, |image, name, values| match name {
            "image-allowed" => filter::one(values, filter::boolean(judge.allows(image))),
            _ => false,
        })?;
    page.records.retain(|image| wanted(image));
    Ok(ec2::DescribeImagesResult {
        images: page.records.iter().map(|image| to_api(image, judge.allows(image))).collect(),
        next_token: page.next_token,
    })
}

fn to_api(image: &Image, allowed: bool) -> ec2::Image {
    ec2::Image {
        image_id: Some(image.image_id.to_string()),
        image_location: Some(image.location()),
        image_type: Some("machine".into()),
        image_owner_alias: image.owner_alias.clone(),
        owner_id: Some(image.owner.to_string()),
        name: Some(image.name.clone()),
        description: (!image.description.is_empty()).then(|| image.description.clone()),
        architecture: Some(architecture_name(image.architecture).into()),
        boot_mode: image.boot_mode.clone(),
        creation_date: Some(filter::time(image.created_at)),
        deprecation_time: image.deprecated_at.map(filter::time),
        ena_support: Some(image.ena_support),
        hypervisor: Some("xen".into()),
        imds_support: image.imds_support.clone(),
        tpm_support: super::tpm_support(image.tpm).map(Into::into),
        platform_details: Some(image.platform_details.clone()),
        public: Some(image.public),
        root_device_name: Some(image.root_device_name.clone()),
        root_device_type: Some("ebs".into()),
        sriov_net_support: image.sriov_net_support.clone(),
        state: Some(image.state().into()),
        state_reason: image.failure().map(|message| ec2::StateReason {
            code: Some(super::FAILURE.into()),
            message: Some(message.to_owned()),
        }),
        image_allowed: Some(allowed),
        deregistration_protection: Some(image.protection.name().into()),
        last_launched_time: image.last_launched_at.map(filter::time),
        source_image_id: image.source().map(|source| source.image_id.to_string()),
        source_image_region: image.source().map(|source| source.region.to_string()),
        source_instance_id: image.source_instance_id.as_ref().map(|id| id.to_string()),
        usage_operation: Some("RunInstances".into()),
        virtualization_type: Some("hvm".into()),
        block_device_mappings: image.block_devices.iter().map(device_to_api).collect(),
        tags: image.tags.to_api(),
        ..Default::default()
    }
}

pub(super) fn device_to_api(device: &ImageBlockDevice) -> ec2::BlockDeviceMapping {
    ec2::BlockDeviceMapping {
        device_name: Some(device.device_name.clone()),
        virtual_name: device.virtual_name.clone(),
        ebs: device.virtual_name.is_none().then(|| ec2::EbsBlockDevice {
            snapshot_id: device.snapshot_id.as_ref().map(|id| id.to_string()),
            volume_size: device.size_gib.map(|size| size as i32),
            volume_type: Some(device.volume_type.clone()),
            iops: device.iops,
            throughput: device.throughput,
            delete_on_termination: Some(device.delete_on_termination),
            encrypted: Some(device.encrypted),
            ..Default::default()
        }),
        ..Default::default()
    }
}
