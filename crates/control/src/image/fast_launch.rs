//! Fast launch: instances of Windows that are prepared ahead of their launch. This cloud has no images of Windows, and
//! others need no preparation.

use super::seen;
use crate::Context;
use crate::engine::describe::page_of;
use crate::engine::filter;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

fn refusal(context: &Context, id: Option<&str>, why: &str) -> Error {
    let now = context.environment.clock.now();
    match seen(&context.tables(), context.account(), id.unwrap_or_default(), now) {
        Ok(image) => Error::invalid_parameter_value(format!("The image '{}' {why}.", image.image_id)),
        Err(error) => error,
    }
}

pub async fn enable_fast_launch(
    context: &Context,
    input: ec2::EnableFastLaunchRequest,
) -> Result<ec2::EnableFastLaunchResult> {
    Err(refusal(
        context,
        input.image_id.as_deref(),
        "is not one of Windows, which alone can be launched fast",
    ))
}

pub async fn disable_fast_launch(
    context: &Context,
    input: ec2::DisableFastLaunchRequest,
) -> Result<ec2::DisableFastLaunchResult> {
    Err(refusal(context, input.image_id.as_deref(), "is not enabled for fast launch"))
}

pub async fn describe_fast_launch_images(
    _: &Context,
    input: ec2::DescribeFastLaunchImagesRequest,
) -> Result<ec2::DescribeFastLaunchImagesResult> {
    for id in &input.image_ids {
        Id::parse(Kind::Image, id)?;
    }
    let filters = filter::parse(&input.filters)?;
    filter::passes(&filters, |name, _| matches!(name, "resource-type" | "owner-id" | "state"))?;
    let none: [(); 0] = [];
    page_of(&none, |()| String::new(), &input.filters, input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeFastLaunchImagesResult::default())
}
