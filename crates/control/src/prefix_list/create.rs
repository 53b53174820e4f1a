//! CreateManagedPrefixList, DeleteManagedPrefixList.

use super::{BY_LIST, Change, Entries, PrefixList, PrefixListVersion, check_own, referring, to_api};
use crate::Context;
use crate::cidr;
use crate::description;
use crate::engine::tags::Specified;
use crate::engine::{Tables, Tx, retire};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

/// Most entries of a list (VPC User Guide, "Amazon VPC quotas").
const ENTRIES_MAX: i32 = 1000;
/// Most entries in one request (EC2 API Reference).
const ENTRIES_AT_ONCE: usize = 100;
const NAME_LEN_MAX: usize = 255;
/// Of AWS's own lists.
const RESERVED_PREFIX: &str = "com.amazonaws";

pub fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.chars().count() > NAME_LEN_MAX || name.starts_with(RESERVED_PREFIX) {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({name}) for parameter prefixListName is invalid. It has 1 to {NAME_LEN_MAX} characters and does not start with '{RESERVED_PREFIX}'."
        )));
    }
    Ok(())
}

pub fn max_entries(wanted: i32) -> Result<usize> {
    match usize::try_from(wanted) {
        Ok(max) if (1..=ENTRIES_MAX).contains(&wanted) => Ok(max),
        _ => Err(Error::invalid_parameter_value(format!(
            "Value ({wanted}) for parameter maxEntries is invalid. It is between 1 and {ENTRIES_MAX}."
        ))),
    }
}

/// Whether so many entries are few enough.
pub fn check_count(count: usize, max: usize) -> Result<()> {
    if count > max {
        return Err(Error::new(
            "PrefixListMaxEntriesExceeded",
            format!("The prefix list has at most {max} entries; {count} were asked for."),
        ));
    }
    Ok(())
}

/// Entries to add, each range once and of the list's family.
pub fn read(ipv6: bool, asked: &[ec2::AddPrefixListEntry]) -> Result<Entries> {
    if asked.len() > ENTRIES_AT_ONCE {
        return Err(Error::invalid_parameter_value(format!(
            "At most {ENTRIES_AT_ONCE} entries can be added in one request."
        )));
    }
    let mut entries = Entries::new();
    for entry in asked {
        let text = entry.cidr.as_deref().ok_or_else(|| Error::missing_parameter("cidr"))?;
        let range = match ipv6 {
            true => cidr::ipv6("cidr", text)?.into(),
            false => cidr::ipv4("cidr", text)?.into(),
        };
        let described = entry.description.clone().unwrap_or_default();
        description::check(&described)?;
        if entries.insert(range, described).is_some() {
            return Err(Error::invalid_parameter_value(format!("The CIDR '{range}' is given twice.")));
        }
    }
    Ok(entries)
}

pub async fn create_managed_prefix_list(
    context: &Context,
    input: ec2::CreateManagedPrefixListRequest,
) -> Result<ec2::CreateManagedPrefixListResult> {
    let name = input.prefix_list_name.ok_or_else(|| Error::missing_parameter("prefixListName"))?;
    check_name(&name)?;
    let ipv6 = match input.address_family.as_deref().unwrap_or_default() {
        "IPv4" => false,
        "IPv6" => true,
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter addressFamily is invalid. Expected 'IPv4' or 'IPv6'."
            )));
        }
    };
    let max = max_entries(input.max_entries.ok_or_else(|| Error::missing_parameter("maxEntries"))?)?;
    let entries = read(ipv6, &input.entries)?;
    check_count(entries.len(), max)?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::PrefixList])?;
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let list = PrefixList {
                prefix_list_id: tx.new_id(Kind::PrefixList),
                owner: context.account().clone(),
                name: name.clone(),
                ipv6,
                max_entries: max,
                version: 1,
                entries: entries.clone(),
                change: Change::Created,
                retired: false,
                aws_managed: false,
                tags: tags.of(Kind::PrefixList),
            };
            tx.create(&list);
            tx.create(&list.as_version());
            idempotent.remember(tx, vec![list.prefix_list_id.to_string()]);
            Ok(list.prefix_list_id.to_string())
        })
        .await?;
    let list = context.region.view.record::<PrefixList>(&id);
    let list = list.ok_or_else(|| Id::not_found(Kind::PrefixList, &id))?;
    Ok(ec2::CreateManagedPrefixListResult { prefix_list: Some(to_api(context, &list)) })
}

pub async fn delete_managed_prefix_list(
    context: &Context,
    input: ec2::DeleteManagedPrefixListRequest,
) -> Result<ec2::DeleteManagedPrefixListResult> {
    let id = Id::parse(Kind::PrefixList, input.prefix_list_id.as_deref().unwrap_or_default())?;
    let not_found = || Id::not_found(Kind::PrefixList, &id);
    let list = context.region.view.record::<PrefixList>(&id).ok_or_else(not_found)?;
    check_own(&list)?;
    let in_use = |tables: &Tables| {
        (!referring(tables, &id).is_empty()).then(|| {
            let message = format!("The prefix list '{id}' has dependencies and cannot be deleted.");
            Error::new("DependencyViolation", message)
        })
    };
    let gone = |tx: &mut Tx<'_>, _: &PrefixList| {
        for version in tx.tables().prefix_list_versions.with(BY_LIST, &id) {
            tx.delete::<PrefixListVersion>(&version.key);
        }
    };
    retire::delete(context, &id, not_found, in_use, gone).await?;
    let prefix_list =
        ec2::ManagedPrefixList { state: Some("delete-complete".into()), ..to_api(context, &list) };
    Ok(ec2::DeleteManagedPrefixListResult { prefix_list: Some(prefix_list) })
}
