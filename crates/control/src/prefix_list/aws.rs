//! AWS's own lists: the addresses of each service that has gateway endpoints. Every region has them from the start; they
//! can be named by routes and rules, and changed by nobody.

use super::{Change, PrefixList};
use crate::engine::describe::{self, Query};
use crate::engine::{Tags, transaction};
use crate::region::RegionState;
use crate::vpc_endpoint::service::SERVICES;
use crate::{Context, Control};
use aws_api::ec2;
use ipnet::IpNet;
use model::{Id, Kind, Region, Result};

/// As the API shows it.
pub const OWNER: &str = "AWS";

pub fn arn(region: &Region, id: &Id) -> String {
    format!("arn:aws:ec2:{region}:aws:prefix-list/{id}")
}

/// Makes the region's lists, or makes them what they are now: a newer build may know others.
pub(crate) async fn ensure(control: &Control, region: &RegionState) -> Result<()> {
    transaction::transact(&*control.store, &region.view, &control.environment, |tx| {
        for service in SERVICES {
            let before = tx.get::<PrefixList>(&service.prefix_list_id(tx.region()));
            let list = PrefixList {
                prefix_list_id: service.prefix_list_id(tx.region()),
                owner: control.options.account.clone(),
                name: service.full_name(tx.region()),
                ipv6: false,
                // What a route to it counts for (VPC User Guide, "AWS-managed prefix list weight").
                max_entries: 1,
                version: 1,
                entries: [(IpNet::V4(service.range), String::new())].into(),
                change: Change::Created,
                retired: false,
                aws_managed: true,
                tags: before.as_ref().map_or_else(Tags::default, |list| list.tags.clone()),
            };
            if before.as_deref() != Some(&list) {
                tx.put(&list);
            }
        }
        Ok(())
    })
    .await
}

pub async fn describe_prefix_lists(
    context: &Context,
    input: ec2::DescribePrefixListsRequest,
) -> Result<ec2::DescribePrefixListsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.prefix_list_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "prefixListIds",
    };
    let of_aws = |list: &PrefixList| list.aws_managed;
    let page = describe::select(&tables.prefix_lists, Kind::PrefixList, &query, of_aws, |_, _, _| false)?;
    let to_api = |list: &PrefixList| ec2::PrefixList {
        prefix_list_id: Some(list.prefix_list_id.to_string()),
        prefix_list_name: Some(list.name.clone()),
        cidrs: list.entries.keys().map(IpNet::to_string).collect(),
    };
    Ok(ec2::DescribePrefixListsResult {
        prefix_lists: page.records.iter().map(|list| to_api(list)).collect(),
        next_token: page.next_token,
    })
}
