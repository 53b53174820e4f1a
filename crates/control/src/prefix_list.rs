//! Managed prefix lists: ranges under one name, which routes and rules of groups refer to. Hosts are told the ranges
//! (VPC User Guide, "Consolidate and manage network CIDR blocks with managed prefix lists").
//!
//! A list holds its entries as they are; what they were is in a record of its own for each version, so that one can be
//! shown and restored.

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::retire::{self, Retire};
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, Tx, filter};
use crate::route_table;
use crate::security_group;
use aws_api::ec2;
use ipnet::IpNet;
use model::{AccountId, Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

pub mod aws;
pub mod create;
pub mod entries;
pub mod modify;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrefixList {
    pub prefix_list_id: Id,
    pub owner: AccountId,
    pub name: String,
    /// Else IPv4.
    pub ipv6: bool,
    /// What resources that refer to it must have room for.
    pub max_entries: usize,
    pub version: i64,
    pub entries: Entries,
    pub change: Change,
    pub retired: bool,
    /// One of AWS's own: it names a service's addresses, and is nobody's to change.
    #[serde(default)]
    pub aws_managed: bool,
    pub tags: Tags,
}

/// Descriptions by range; without one, an empty one.
pub type Entries = BTreeMap<IpNet, String>;

/// What was done to it last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    Created,
    Modified,
    Restored,
}

/// The entries of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrefixListVersion {
    pub key: String,
    pub prefix_list_id: Id,
    pub version: i64,
    pub entries: Entries,
}

impl PrefixList {
    /// EC2's `PrefixListState`.
    fn state(&self) -> &'static str {
        match self.change {
            Change::Created => "create-complete",
            Change::Modified => "modify-complete",
            Change::Restored => "restore-complete",
        }
    }

    fn shown_owner(&self) -> &str {
        if self.aws_managed { aws::OWNER } else { self.owner.as_str() }
    }

    fn as_version(&self) -> PrefixListVersion {
        PrefixListVersion {
            key: PrefixListVersion::key(&self.prefix_list_id, self.version),
            prefix_list_id: self.prefix_list_id.clone(),
            version: self.version,
            entries: self.entries.clone(),
        }
    }
}

impl PrefixListVersion {
    fn key(prefix_list_id: &str, version: i64) -> String {
        format!("{prefix_list_id}/{version:010}")
    }
}

impl Retire for PrefixList {
    fn retired(&mut self) -> &mut bool {
        &mut self.retired
    }

    fn is_retired(&self) -> bool {
        self.retired
    }
}

/// A list that a route or a rule comes to name.
pub fn depend(tx: &mut Tx<'_>, id: &str) -> Result<Arc<PrefixList>> {
    Id::parse(Kind::PrefixList, id)?;
    retire::depend(tx, id).ok_or_else(|| Id::not_found(Kind::PrefixList, id))
}

/// A list that is to be changed.
fn own(tx: &mut Tx<'_>, id: &str) -> Result<Arc<PrefixList>> {
    let list = depend(tx, id)?;
    check_own(&list)?;
    Ok(list)
}

fn check_own(list: &PrefixList) -> Result<()> {
    if list.aws_managed {
        return Err(Error::new(
            "OperationNotPermitted",
            format!("The prefix list '{}' is managed by AWS and cannot be changed.", list.prefix_list_id),
        ));
    }
    Ok(())
}

/// The ranges of a list.
pub fn cidrs<'t>(tables: &'t Tables, id: &str) -> impl Iterator<Item = IpNet> + use<'t> {
    tables.prefix_lists.find(id).into_iter().flat_map(|list| list.entries.keys().copied())
}

/// For how many entries a list has room: what it counts for where a route or a rule names it.
pub fn max_entries(tables: &Tables, id: &Id) -> usize {
    tables.prefix_lists.find(id).map_or(0, |list| list.max_entries)
}

/// Ids and owners of what refers to a list, in order.
fn referring(tables: &Tables, id: &str) -> Vec<(Id, AccountId)> {
    let routing = route_table::leading_by(tables, id).map(|of| (of.route_table_id.clone(), of.owner.clone()));
    let ruling = security_group::naming(tables, id).map(|of| (of.group_id.clone(), of.owner.clone()));
    let all: BTreeMap<Id, AccountId> = routing.chain(ruling).collect();
    all.into_iter().collect()
}

impl Record for PrefixList {
    const TABLE: &'static str = "prefix-list";
    const INDEXED: &'static [&'static str] = &["prefix-list-name"];

    fn id(&self) -> &str {
        &self.prefix_list_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "owner-id" => filter::one(values, self.shown_owner()),
            "prefix-list-id" => filter::one(values, self.prefix_list_id.as_str()),
            "prefix-list-name" => filter::one(values, self.name.as_str()),
            _ => false,
        }
    }
}

/// The field with the list of a version.
const BY_LIST: &str = "cumulet:prefix-list-id";

impl Record for PrefixListVersion {
    const TABLE: &'static str = "prefix-list-version";
    const INDEXED: &'static [&'static str] = &[BY_LIST];

    fn id(&self) -> &str {
        &self.key
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        name == BY_LIST && filter::one(values, self.prefix_list_id.as_str())
    }
}

pub async fn describe_managed_prefix_lists(
    context: &Context,
    input: ec2::DescribeManagedPrefixListsRequest,
) -> Result<ec2::DescribeManagedPrefixListsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.prefix_list_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "prefixListIds",
    };
    let page = describe::select(&tables.prefix_lists, Kind::PrefixList, &query, |_| true, |_, _, _| false)?;
    Ok(ec2::DescribeManagedPrefixListsResult {
        prefix_lists: page.records.iter().map(|list| to_api(context, list)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(context: &Context, list: &PrefixList) -> ec2::ManagedPrefixList {
    ec2::ManagedPrefixList {
        prefix_list_id: Some(list.prefix_list_id.to_string()),
        prefix_list_arn: Some(match list.aws_managed {
            true => aws::arn(&context.region.view.region, &list.prefix_list_id),
            false => context.arn("prefix-list", &list.prefix_list_id),
        }),
        prefix_list_name: Some(list.name.clone()),
        owner_id: Some(list.shown_owner().to_owned()),
        address_family: Some(if list.ipv6 { "IPv6" } else { "IPv4" }.into()),
        // AWS's own are shown without.
        max_entries: (!list.aws_managed).then_some(list.max_entries as i32),
        version: (!list.aws_managed).then_some(list.version),
        state: Some(list.state().into()),
        tags: list.tags.to_api(),
        ..Default::default()
    }
}
