//! DescribeSecurityGroups, GetSecurityGroupsForVpc.

use super::{SecurityGroup, association, named, permission, rules_filter};
use crate::Context;
use crate::engine::describe::{self, Query, page_of};
use crate::engine::table::Record;
use crate::engine::{Tables, filter};
use aws_api::ec2;
use model::{Id, Kind, Result};
use std::sync::Arc;

pub async fn describe_security_groups(
    context: &Context,
    input: ec2::DescribeSecurityGroupsRequest,
) -> Result<ec2::DescribeSecurityGroupsResult> {
    let tables = context.tables();
    let mut ids = input.group_ids.clone();
    for name in &input.group_names {
        ids.push(named(&tables, None, Some(name))?.group_id.to_string());
    }
    let query = Query {
        ids: &ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "securityGroupIds",
    };
    let page = describe::select(
        &tables.security_groups,
        Kind::SecurityGroup,
        &query,
        |_| true,
        |group, name, values| match rules_filter(name) {
            Some((egress, "group-name")) => filter::many(values, referenced_names(&tables, group, egress)),
            _ => false,
        },
    )?;
    Ok(ec2::DescribeSecurityGroupsResult {
        security_groups: page.records.iter().map(|group| to_api(context, &tables, group)).collect(),
        next_token: page.next_token,
    })
}

pub async fn get_security_groups_for_vpc(
    context: &Context,
    input: ec2::GetSecurityGroupsForVpcRequest,
) -> Result<ec2::GetSecurityGroupsForVpcResult> {
    let vpc_id = Id::parse(Kind::Vpc, input.vpc_id.as_deref().unwrap_or_default())?;
    let tables = context.tables();
    tables.vpcs.find(&vpc_id).ok_or_else(|| Id::not_found(Kind::Vpc, &vpc_id))?;
    let filters = filter::parse(&input.filters)?;
    let mut usable: Vec<&Arc<SecurityGroup>> = Vec::new();
    let own = tables.security_groups.with("vpc-id", &vpc_id);
    for group in own.chain(association::of_vpc(&tables, &vpc_id)) {
        let passes = filter::passes(&filters, |name, values| match name {
            "primary-vpc-id" => filter::one(values, group.vpc_id.as_str()),
            "group-id" | "description" | "group-name" | "owner-id" => group.field(name, values),
            _ => false,
        })?;
        usable.extend(passes.then_some(group));
    }
    let key = |group: &&Arc<SecurityGroup>| group.group_id.to_string();
    usable.sort_by_key(key);
    let (page, next_token) =
        page_of(&usable, key, &input.filters, input.max_results, input.next_token.as_deref())?;
    let to_api = |group: &Arc<SecurityGroup>| ec2::SecurityGroupForVpc {
        group_id: Some(group.group_id.to_string()),
        group_name: Some(group.name.clone()),
        description: Some(group.description.clone()),
        owner_id: Some(group.owner.to_string()),
        primary_vpc_id: Some(group.vpc_id.to_string()),
        tags: group.tags.to_api(),
    };
    Ok(ec2::GetSecurityGroupsForVpcResult {
        security_group_for_vpcs: page.into_iter().map(to_api).collect(),
        next_token,
    })
}

fn referenced_names<'t>(
    tables: &'t Tables,
    group: &'t SecurityGroup,
    egress: bool,
) -> impl Iterator<Item = &'t str> {
    let ids = group.rules(egress).filter_map(|rule| rule.permission.peer.group_id());
    ids.filter_map(|id| tables.security_groups.find(id)).map(|group| group.name.as_str())
}

fn to_api(context: &Context, tables: &Tables, group: &SecurityGroup) -> ec2::SecurityGroup {
    ec2::SecurityGroup {
        group_id: Some(group.group_id.to_string()),
        security_group_arn: Some(context.arn("security-group", &group.group_id)),
        group_name: Some(group.name.clone()),
        description: Some(group.description.clone()),
        owner_id: Some(group.owner.to_string()),
        vpc_id: Some(group.vpc_id.to_string()),
        ip_permissions: permission::to_api(tables, group, false),
        ip_permissions_egress: permission::to_api(tables, group, true),
        tags: group.tags.to_api(),
    }
}
