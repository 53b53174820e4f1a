//! ModifyManagedPrefixList, RestoreManagedPrefixListVersion.

use super::create::{check_count, check_name, max_entries, read};
use super::{BY_LIST, Change, PrefixList, PrefixListVersion, own, to_api};
use crate::Context;
use crate::cidr;
use crate::engine::Tx;
use crate::engine::unsupported::refuse;
use crate::security_group;
use aws_api::ec2;
use ipnet::IpNet;
use model::{Error, Id, Result};

/// Versions of a list that can be shown and restored.
const VERSIONS_MAX: usize = 100;

fn check_version(list: &PrefixList, current: Option<i64>) -> Result<()> {
    let current = current.ok_or_else(|| Error::missing_parameter("currentVersion"))?;
    if current != list.version {
        return Err(Error::new(
            "PrefixListVersionMismatch",
            format!(
                "The prefix list has the incorrect version number: it is {}, not {current}.",
                list.version
            ),
        ));
    }
    Ok(())
}

/// Writes a list whose entries are others now, as its next version.
fn put_next(tx: &mut Tx<'_>, list: &mut PrefixList, change: Change) {
    list.version += 1;
    list.change = change;
    tx.create(&list.as_version());
    let kept = tx.tables().prefix_list_versions.with(BY_LIST, &list.prefix_list_id);
    let too_many = (kept.count() + 1).saturating_sub(VERSIONS_MAX);
    for old in tx.tables().prefix_list_versions.with(BY_LIST, &list.prefix_list_id).take(too_many) {
        tx.delete::<PrefixListVersion>(&old.key);
    }
    tx.put(list);
}

pub async fn modify_managed_prefix_list(
    context: &Context,
    input: ec2::ModifyManagedPrefixListRequest,
) -> Result<ec2::ModifyManagedPrefixListResult> {
    refuse([(
        input.ipam_prefix_list_resolver_sync_enabled == Some(true),
        "Prefix lists that follow an IPAM prefix list resolver are",
    )])?;
    if let Some(name) = &input.prefix_list_name {
        check_name(name)?;
    }
    let max = input.max_entries.map(max_entries).transpose()?;
    let changes_entries = !input.add_entries.is_empty() || !input.remove_entries.is_empty();
    if changes_entries && max.is_some() {
        return Err(Error::invalid_parameter_combination(
            "The entries and the size of a prefix list cannot be modified at the same time",
        ));
    }
    let id = input.prefix_list_id.unwrap_or_default();
    let list = context
        .transact(|tx| {
            let mut list = (*own(tx, &id)?).clone();
            if input.current_version.is_some() || changes_entries {
                check_version(&list, input.current_version)?;
            }
            list.name = input.prefix_list_name.clone().unwrap_or(list.name);
            if let Some(max) = max {
                check_count(list.entries.len(), max)?;
                list.max_entries = max;
                let room = |other: &Id| match *other == list.prefix_list_id {
                    true => max,
                    false => super::max_entries(tx.tables(), other),
                };
                for group in security_group::naming(tx.tables(), &id) {
                    security_group::rules::check_weight(group, room)?;
                }
            }
            for entry in &input.remove_entries {
                let text = entry.cidr.as_deref().ok_or_else(|| Error::missing_parameter("cidr"))?;
                let range = text.parse::<IpNet>().map_err(|_| cidr::malformed("cidr", text))?.trunc();
                if list.entries.remove(&range).is_none() {
                    return Err(Error::invalid_parameter_value(format!(
                        "The prefix list '{id}' has no entry '{range}'."
                    )));
                }
            }
            list.entries.extend(read(list.ipv6, &input.add_entries)?);
            check_count(list.entries.len(), list.max_entries)?;
            match changes_entries {
                true => put_next(tx, &mut list, Change::Modified),
                false => {
                    list.change = Change::Modified;
                    tx.put(&list);
                }
            }
            Ok(list)
        })
        .await?;
    Ok(ec2::ModifyManagedPrefixListResult { prefix_list: Some(to_api(context, &list)) })
}

pub async fn restore_managed_prefix_list_version(
    context: &Context,
    input: ec2::RestoreManagedPrefixListVersionRequest,
) -> Result<ec2::RestoreManagedPrefixListVersionResult> {
    let id = input.prefix_list_id.unwrap_or_default();
    let previous = input.previous_version.ok_or_else(|| Error::missing_parameter("previousVersion"))?;
    let list = context
        .transact(|tx| {
            let mut list = (*own(tx, &id)?).clone();
            check_version(&list, input.current_version)?;
            let version = super::entries::version(tx.tables(), &id, previous)?;
            check_count(version.entries.len(), list.max_entries)?;
            list.entries = version.entries.clone();
            put_next(tx, &mut list, Change::Restored);
            Ok(list)
        })
        .await?;
    Ok(ec2::RestoreManagedPrefixListVersionResult { prefix_list: Some(to_api(context, &list)) })
}
