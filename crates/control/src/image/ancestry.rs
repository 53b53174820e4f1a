//! What an image was made of, back to the first one: by CopyImage of an image, by CreateImage of an instance that was
//! launched of one. An image keeps its ancestors itself: they may be deregistered, or of another region.

use super::Image;
use crate::Context;
use aws_api::ec2;
use model::{Id, Region, Result, Timestamp};
use serde::{Deserialize, Serialize};

/// Of older ones nothing is kept.
const ANCESTORS_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ancestor {
    pub image_id: Id,
    pub region: Region,
    /// None where it was deregistered before its child was made.
    pub created_at: Option<Timestamp>,
    pub owner_alias: Option<String>,
}

impl Ancestor {
    /// An image that nothing but its id is known of.
    pub fn gone(image_id: &Id, region: &Region) -> Ancestor {
        Ancestor { image_id: image_id.clone(), region: region.clone(), created_at: None, owner_alias: None }
    }
}

impl Image {
    /// The ancestors of an image that is made of this one.
    pub(super) fn with_ancestors(&self, region: &Region) -> Vec<Ancestor> {
        let own = Ancestor {
            image_id: self.image_id.clone(),
            region: region.clone(),
            created_at: Some(self.created_at),
            owner_alias: self.owner_alias.clone(),
        };
        std::iter::once(own).chain(self.ancestors.iter().cloned()).take(ANCESTORS_MAX).collect()
    }

    /// The image that it was made of.
    pub(super) fn source(&self) -> Option<&Ancestor> {
        self.ancestors.first()
    }
}

pub async fn get_image_ancestry(
    context: &Context,
    input: ec2::GetImageAncestryRequest,
) -> Result<ec2::GetImageAncestryResult> {
    let id = input.image_id.as_deref().unwrap_or_default();
    let image = super::seen(&context.tables(), context.account(), id, context.environment.clock.now())?;
    let line = image.with_ancestors(&context.region.view.region);
    let sources = line.iter().skip(1).map(Some).chain([None]);
    let entry = |(image, source): (&Ancestor, Option<&Ancestor>)| ec2::ImageAncestryEntry {
        creation_date: image.created_at,
        image_id: Some(image.image_id.to_string()),
        image_owner_alias: image.owner_alias.clone(),
        source_image_id: source.map(|source| source.image_id.to_string()),
        source_image_region: source.map(|source| source.region.to_string()),
    };
    Ok(ec2::GetImageAncestryResult { image_ancestry_entries: line.iter().zip(sources).map(entry).collect() })
}
