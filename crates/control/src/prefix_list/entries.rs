//! GetManagedPrefixListEntries, GetManagedPrefixListAssociations.

use super::{PrefixListVersion, referring};
use crate::Context;
use crate::engine::Tables;
use crate::engine::describe::page_of;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

/// A version that the list has had and that is kept.
pub fn version<'t>(tables: &'t Tables, id: &str, version: i64) -> Result<&'t PrefixListVersion> {
    let found = tables.prefix_list_versions.find(&PrefixListVersion::key(id, version));
    found.map(|version| &**version).ok_or_else(|| {
        Error::invalid_parameter_value(format!("The prefix list '{id}' has no version {version}."))
    })
}

pub async fn get_managed_prefix_list_entries(
    context: &Context,
    input: ec2::GetManagedPrefixListEntriesRequest,
) -> Result<ec2::GetManagedPrefixListEntriesResult> {
    let id = Id::parse(Kind::PrefixList, input.prefix_list_id.as_deref().unwrap_or_default())?;
    let tables = context.tables();
    let list = tables.prefix_lists.find(&id).ok_or_else(|| Id::not_found(Kind::PrefixList, &id))?;
    let shown = match input.target_version {
        Some(wanted) => &version(&tables, &id, wanted)?.entries,
        None => &list.entries,
    };
    let mut entries: Vec<(String, String)> =
        shown.iter().map(|(cidr, described)| (cidr.to_string(), described.clone())).collect();
    entries.sort();
    let key = |entry: &(String, String)| entry.0.clone();
    let (page, next_token) = page_of(&entries, key, &[], input.max_results, input.next_token.as_deref())?;
    let to_api = |(cidr, described): (String, String)| ec2::PrefixListEntry {
        cidr: Some(cidr),
        description: Some(described).filter(|text| !text.is_empty()),
    };
    Ok(ec2::GetManagedPrefixListEntriesResult { entries: page.into_iter().map(to_api).collect(), next_token })
}

pub async fn get_managed_prefix_list_associations(
    context: &Context,
    input: ec2::GetManagedPrefixListAssociationsRequest,
) -> Result<ec2::GetManagedPrefixListAssociationsResult> {
    let id = Id::parse(Kind::PrefixList, input.prefix_list_id.as_deref().unwrap_or_default())?;
    let tables = context.tables();
    tables.prefix_lists.find(&id).ok_or_else(|| Id::not_found(Kind::PrefixList, &id))?;
    let resources = referring(&tables, &id);
    let (page, next_token) =
        page_of(&resources, |(id, _)| id.to_string(), &[], input.max_results, input.next_token.as_deref())?;
    let to_api = |(id, owner): (Id, model::AccountId)| ec2::PrefixListAssociation {
        resource_id: Some(id.to_string()),
        resource_owner: Some(owner.to_string()),
    };
    Ok(ec2::GetManagedPrefixListAssociationsResult {
        prefix_list_associations: page.into_iter().map(to_api).collect(),
        next_token,
    })
}
