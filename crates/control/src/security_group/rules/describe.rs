//! DescribeSecurityGroupRules, and rules as the API shows them.

use super::super::PeeredGroup;
use super::{Peer, SecurityGroup, SecurityGroupRule, no_such_rule};
use crate::Context;
use crate::engine::describe::page_of;
use crate::engine::filter::{self, Filter, Pattern};
use crate::engine::{Tables, Tags};
use aws_api::ec2;
use model::{Id, Kind, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A rule and the group that it is in.
type Found<'t> = (&'t SecurityGroup, &'t SecurityGroupRule);

pub async fn describe_security_group_rules(
    context: &Context,
    input: ec2::DescribeSecurityGroupRulesRequest,
) -> Result<ec2::DescribeSecurityGroupRulesResult> {
    let tables = context.tables();
    let filters = filter::parse(&input.filters)?;
    let candidates = if input.security_group_rule_ids.is_empty() {
        by_group(&tables, &filters)
    } else {
        by_id(&tables, &input.security_group_rule_ids)?
    };
    let mut passed: Vec<Found> = Vec::new();
    for (group, rule) in candidates {
        let passes = filter::passes(&filters, |name, values| match name {
            "group-id" => filter::one(values, group.group_id.as_str()),
            "security-group-rule-id" => filter::one(values, rule.rule_id.as_str()),
            "tag-key" => filter::many(values, rule.tags.iter().map(|(key, _)| key)),
            _ => name.strip_prefix("tag:").is_some_and(|key| filter::some(values, rule.tags.get(key))),
        })?;
        if passes {
            passed.push((group, rule));
        }
    }
    passed.sort_by(|(_, one), (_, other)| one.rule_id.cmp(&other.rule_id));
    let key = |(_, rule): &Found| rule.rule_id.to_string();
    let (page, next_token) =
        page_of(&passed, key, &input.filters, input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeSecurityGroupRulesResult {
        security_group_rules: page
            .into_iter()
            .map(|(group, rule)| to_api(context, &tables, group, rule))
            .collect(),
        next_token,
    })
}

fn by_id<'t>(tables: &'t Tables, ids: &[String]) -> Result<Vec<Found<'t>>> {
    let wanted: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    wanted
        .into_iter()
        .map(|id| {
            Id::parse(Kind::SecurityGroupRule, id)?;
            find_rule(tables, id).ok_or_else(|| no_such_rule(id))
        })
        .collect()
}

/// The group that has a rule, and the rule.
pub fn find_rule<'t>(tables: &'t Tables, rule_id: &str) -> Option<Found<'t>> {
    let group = tables.security_groups.with("security-group-rule-id", rule_id).next()?;
    let rule = group.rules.iter().find(|rule| *rule.rule_id == *rule_id)?;
    Some((group, rule))
}

/// The rules of the groups that a filter names one by one, or of all.
fn by_group<'t>(tables: &'t Tables, filters: &[Filter]) -> Vec<Found<'t>> {
    let named = filters.iter().find(|filter| filter.name == "group-id").and_then(|filter| {
        let exact = filter.patterns.iter().map(|pattern| match pattern {
            Pattern::Exact(id) => Some(id.as_str()),
            Pattern::Wild(_) => None,
        });
        exact.collect::<Option<BTreeSet<&str>>>()
    });
    let groups: Vec<&'t Arc<SecurityGroup>> = match named {
        Some(ids) => ids.into_iter().filter_map(|id| tables.security_groups.find(id)).collect(),
        None => tables.security_groups.iter().collect(),
    };
    groups.into_iter().flat_map(|group| group.rules.iter().map(move |rule| (&**group, rule))).collect()
}

/// The API shows a port that a protocol has not as -1.
fn port(port: Option<i32>) -> Option<i32> {
    Some(port.unwrap_or(-1))
}

pub fn to_api(
    context: &Context,
    tables: &Tables,
    group: &SecurityGroup,
    rule: &SecurityGroupRule,
) -> ec2::SecurityGroupRule {
    let permission = &rule.permission;
    let mut shown = ec2::SecurityGroupRule {
        security_group_rule_id: Some(rule.rule_id.to_string()),
        security_group_rule_arn: Some(context.arn(Kind::SecurityGroupRule.resource_type(), &rule.rule_id)),
        group_id: Some(group.group_id.to_string()),
        group_owner_id: Some(group.owner.to_string()),
        is_egress: Some(rule.egress),
        ip_protocol: Some(permission.protocol.clone()),
        from_port: port(permission.from_port),
        to_port: port(permission.to_port),
        description: rule.description.clone(),
        tags: Tags::to_api(&rule.tags),
        ..Default::default()
    };
    match &permission.peer {
        Peer::Ipv4(cidr) => shown.cidr_ipv4 = Some(cidr.to_string()),
        Peer::Ipv6(cidr) => shown.cidr_ipv6 = Some(cidr.to_string()),
        Peer::PrefixList(id) => shown.prefix_list_id = Some(id.to_string()),
        Peer::PeeredGroup(peered) => shown.referenced_group_info = Some(peered.referenced(tables)),
        Peer::Group(id) => {
            shown.referenced_group_info = Some(ec2::ReferencedSecurityGroup {
                group_id: Some(id.to_string()),
                user_id: Some(group.owner.to_string()),
                vpc_id: Some(group.vpc_id.to_string()),
                ..Default::default()
            });
        }
    }
    shown
}

pub fn revoked_to_api(group: &SecurityGroup, rule: &SecurityGroupRule) -> ec2::RevokedSecurityGroupRule {
    let permission = &rule.permission;
    let mut shown = ec2::RevokedSecurityGroupRule {
        security_group_rule_id: Some(rule.rule_id.to_string()),
        group_id: Some(group.group_id.to_string()),
        is_egress: Some(rule.egress),
        ip_protocol: Some(permission.protocol.clone()),
        from_port: port(permission.from_port),
        to_port: port(permission.to_port),
        description: rule.description.clone(),
        ..Default::default()
    };
    match &permission.peer {
        Peer::Ipv4(cidr) => shown.cidr_ipv4 = Some(cidr.to_string()),
        Peer::Ipv6(cidr) => shown.cidr_ipv6 = Some(cidr.to_string()),
        Peer::PrefixList(id) => shown.prefix_list_id = Some(id.to_string()),
        Peer::Group(id) | Peer::PeeredGroup(PeeredGroup { group_id: id, .. }) => {
            shown.referenced_group_id = Some(id.to_string())
        }
    }
    shown
}
