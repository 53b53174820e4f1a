//! Who uses images: what refers to an image, and which image each instance was launched of.

use super::Image;
use super::allowed::Judge;
use super::public_access::ImageSettings;
use crate::Context;
use crate::engine::describe::{self, Query, page_of};
use crate::engine::{filter, settings};
use crate::instance::Instance;
use aws_api::ec2;
use model::{Error, Id, InstanceState, Kind, Result};
use std::collections::BTreeSet;

const IMAGES_MAX: usize = 10;

pub(super) const INSTANCE: &str = "ec2:Instance";
/// What else may refer to an image; nothing of it is here.
pub(super) const ABSENT: &[&str] =
    &["ec2:LaunchTemplate", "ssm:Parameter", "imagebuilder:ImageRecipe", "imagebuilder:ContainerRecipe"];

pub async fn describe_image_references(
    context: &Context,
    input: ec2::DescribeImageReferencesRequest,
) -> Result<ec2::DescribeImageReferencesResult> {
    if input.image_ids.is_empty() || input.image_ids.len() > IMAGES_MAX {
        return Err(Error::invalid_parameter_value(format!("One to {IMAGES_MAX} image ids must be given.")));
    }
    for id in &input.image_ids {
        Id::parse(Kind::Image, id)?;
    }
    let images: BTreeSet<&String> = input.image_ids.iter().collect();
    let tables = context.tables();
    let mut found: Vec<(&str, &Instance)> = Vec::new();
    if let Some(states) = asked_states(&input)? {
        for image_id in images {
            let users = tables.instances.with("image-id", image_id).map(|instance| &**instance);
            let users = users.filter(|instance| states.contains(&instance.state));
            found.extend(users.map(|instance| (image_id.as_str(), instance)));
        }
    }
    let key = |(image_id, instance): &(&str, &Instance)| format!("{image_id}/{}", instance.instance_id);
    let (page, next_token) = page_of(&found, key, &[], input.max_results, input.next_token.as_deref())?;
    let to_api = |(image_id, instance): &(&str, &Instance)| ec2::ImageReference {
        image_id: Some((*image_id).to_owned()),
        resource_type: Some(INSTANCE.into()),
        arn: Some(context.arn(Kind::Instance.resource_type(), &instance.instance_id)),
    };
    Ok(ec2::DescribeImageReferencesResult { next_token, image_references: page.iter().map(to_api).collect() })
}

/// The states of the instances that are asked for; None where no instances are.
fn asked_states(input: &ec2::DescribeImageReferencesRequest) -> Result<Option<Vec<InstanceState>>> {
    let all = input.include_all_resource_types == Some(true);
    if !all && input.resource_types.is_empty() {
        return Err(Error::missing_parameter("ResourceTypes"));
    }
    let mut asked = all.then(|| InstanceState::ALL.to_vec());
    for request in &input.resource_types {
        match request.resource_type.as_deref().unwrap_or_default() {
            INSTANCE => asked = Some(states(&request.resource_type_options)?),
            absent if ABSENT.contains(&absent) => {}
            other => return Err(invalid("resourceType", other)),
        }
    }
    Ok(asked)
}

/// All where none is named.
fn states(options: &[ec2::ResourceTypeOption]) -> Result<Vec<InstanceState>> {
    let mut states = Vec::new();
    for option in options {
        match option.option_name.as_deref() {
            Some("state-name") => {}
            other => return Err(invalid("optionName", other.unwrap_or_default())),
        }
        for name in &option.option_values {
            let state = InstanceState::ALL.iter().find(|state| state.name() == name);
            states.push(*state.ok_or_else(|| invalid("optionValue", name))?);
        }
    }
    Ok(if states.is_empty() { InstanceState::ALL.to_vec() } else { states })
}

pub(super) fn invalid(name: &str, value: &str) -> Error {
    Error::invalid_parameter_value(format!("Value ({value}) for parameter {name} is invalid."))
}

pub async fn describe_instance_image_metadata(
    context: &Context,
    input: ec2::DescribeInstanceImageMetadataRequest,
) -> Result<ec2::DescribeInstanceImageMetadataResult> {
    let tables = context.tables();
    let settings: ImageSettings = settings::of(&tables, context.account());
    let judge = Judge::new(&settings, context.environment.clock.now());
    let query = Query {
        ids: &input.instance_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "instancesSet",
    };
    let image_of = |instance: &Instance| tables.images.find(&instance.image_id);
    let zone_id =
        |instance: &Instance| context.region.zone_named(&instance.placement.zone).map(|zone| zone.id.clone());
    let page = describe::select(
        &tables.instances,
        Kind::Instance,
        &query,
        |_| true,
        |instance, name, values| match name {
            "availability-zone-id" | "zone-id" => filter::some(values, zone_id(instance)),
            "image-allowed" => {
                filter::some(values, image_of(instance).map(|image| filter::boolean(judge.allows(image))))
            }
            "owner-alias" => {
                filter::some(values, image_of(instance).and_then(|image| image.owner_alias.as_deref()))
            }
            _ => false,
        },
    )?;
    let to_api = |instance: &Instance| ec2::InstanceImageMetadata {
        instance_id: Some(instance.instance_id.to_string()),
        instance_type: Some(instance.instance_type.to_string()),
        launch_time: Some(instance.launched_at),
        availability_zone: Some(instance.placement.zone.to_string()),
        zone_id: zone_id(instance),
        state: Some(ec2::InstanceState {
            code: Some(instance.state.code()),
            name: Some(instance.state.name().into()),
        }),
        owner_id: Some(instance.owner.to_string()),
        tags: instance.tags.to_api(),
        image_metadata: Some(match image_of(instance) {
            Some(image) => metadata(image, &judge),
            None => ec2::ImageMetadata {
                image_id: Some(instance.image_id.to_string()),
                state: Some("deregistered".into()),
                ..Default::default()
            },
        }),
        ..Default::default()
    };
    Ok(ec2::DescribeInstanceImageMetadataResult {
        instance_image_metadata: page.records.iter().map(|instance| to_api(instance)).collect(),
        next_token: page.next_token,
    })
}

fn metadata(image: &Image, judge: &Judge<'_>) -> ec2::ImageMetadata {
    ec2::ImageMetadata {
        image_id: Some(image.image_id.to_string()),
        name: Some(image.name.clone()),
        owner_id: Some(image.owner.to_string()),
        state: Some(image.state().into()),
        image_owner_alias: image.owner_alias.clone(),
        creation_date: Some(filter::time(image.created_at)),
        deprecation_time: image.deprecated_at.map(filter::time),
        image_allowed: Some(judge.allows(image)),
        is_public: Some(image.public),
    }
}
