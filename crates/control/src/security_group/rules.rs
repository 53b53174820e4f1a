//! Rules of security groups: authorized, revoked, modified.

use super::permission::{self, Flat, Reader};
use super::{Peer, Permission, SecurityGroup, SecurityGroupRule, named};
use crate::Context;
use crate::engine::tags::Specified;
use crate::engine::{Tables, Tx};
use crate::prefix_list;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::collections::BTreeSet;

mod describe;

pub use describe::{describe_security_group_rules, find_rule};
use describe::{revoked_to_api, to_api};

/// Rules of one direction (VPC User Guide, "Amazon VPC quotas": 60, adjustable; 1,000 with one group).
const RULES_MAX: usize = 1000;

/// The group that a call is about and the permissions that it names.
struct Asked<'i> {
    group_id: Option<&'i str>,
    group_name: Option<&'i str>,
    listed: &'i [ec2::IpPermission],
    flat: Flat<'i>,
}

/// The four requests that name permissions have the same members; only those about ingress know a group by name.
macro_rules! asked {
    ($input:ident, $group_name:expr) => {
        Asked {
            group_id: $input.group_id.as_deref(),
            group_name: $group_name,
            listed: &$input.ip_permissions,
            flat: Flat {
                protocol: $input.ip_protocol.as_deref(),
                from_port: $input.from_port,
                to_port: $input.to_port,
                cidr: $input.cidr_ip.as_deref(),
                group_name: $input.source_security_group_name.as_deref(),
                group_owner: $input.source_security_group_owner_id.as_deref(),
            },
        }
    };
}

/// Changes a group; `change` returns what the call answers.
async fn change<R>(
    context: &Context,
    group_id: Option<&str>,
    group_name: Option<&str>,
    change: impl Fn(&Tables, &mut SecurityGroup, &dyn Fn() -> Id) -> Result<R>,
) -> Result<R> {
    context
        .transact(|tx| {
            let found = named(tx.tables(), group_id, group_name)?;
            let before = tx
                .get::<SecurityGroup>(&found.group_id)
                .ok_or_else(|| Id::not_found(Kind::SecurityGroup, &found.group_id))?;
            let mut group = (*before).clone();
            let answer = change(tx.tables(), &mut group, &|| tx.new_id(Kind::SecurityGroupRule))?;
            if group != *before {
                check_rules(&group)?;
                check_weight(&group, |id| prefix_list::max_entries(tx.tables(), id))?;
                hold_referenced(tx, &before, &group)?;
                tx.put(&group);
            }
            Ok(answer)
        })
        .await
}

/// Depends on groups and prefix lists that are newly referred to.
fn hold_referenced(tx: &mut Tx<'_>, before: &SecurityGroup, after: &SecurityGroup) -> Result<()> {
    let referenced = |group: &SecurityGroup| -> BTreeSet<Id> {
        group.rules.iter().filter_map(|rule| rule.permission.peer.group_id()).cloned().collect()
    };
    let had = referenced(before);
    let lists = |group: &SecurityGroup| -> BTreeSet<Id> {
        group.rules.iter().filter_map(|rule| rule.permission.peer.prefix_list_id()).cloned().collect()
    };
    for id in lists(after).difference(&lists(before)) {
        prefix_list::depend(tx, id)?;
    }
    for id in referenced(after).difference(&had).filter(|id| **id != after.group_id) {
        super::depend(tx, id)?;
    }
    Ok(())
}

/// Whether a group may have so many rules: one that names a prefix list counts as many as that has room for.
pub fn check_weight(group: &SecurityGroup, max_entries: impl Fn(&Id) -> usize) -> Result<()> {
    let weight = |rule: &SecurityGroupRule| rule.permission.peer.prefix_list_id().map_or(1, &max_entries);
    match [false, true].iter().any(|egress| group.rules(*egress).map(weight).sum::<usize>() > RULES_MAX) {
        true => Err(Error::new(
            "RulesPerSecurityGroupLimitExceeded",
            "The maximum number of rules per security group has been reached.",
        )),
        false => Ok(()),
    }
}

/// What holds of a group's rules after every change.
fn check_rules(group: &SecurityGroup) -> Result<()> {
    let mut seen = BTreeSet::new();
    match group.rules.iter().find(|rule| !seen.insert((rule.egress, said(&rule.permission)))) {
        Some(rule) => Err(Error::new(
            "InvalidPermission.Duplicate",
            format!("the specified rule \"{}\" already exists", said(&rule.permission)),
        )),
        None => Ok(()),
    }
}

/// A permission as EC2's messages say it; two that differ are said differently.
fn said(permission: &Permission) -> String {
    let protocol = match permission.protocol.as_str() {
        "-1" => "ALL".to_owned(),
        other => other.to_uppercase(),
    };
    let ports = match (permission.from_port, permission.to_port) {
        (Some(from), Some(to)) if permission.protocol.starts_with("icmp") => {
            format!(", type: {from}, code: {to}")
        }
        (Some(from), Some(to)) => format!(", from port: {from}, to port: {to}"),
        _ => String::new(),
    };
    format!("peer: {}, {protocol}{ports}, ALLOW", permission.peer)
}

pub async fn authorize_security_group_ingress(
    context: &Context,
    input: ec2::AuthorizeSecurityGroupIngressRequest,
) -> Result<ec2::AuthorizeSecurityGroupIngressResult> {
    let asked = asked!(input, input.group_name.as_deref());
    let rules = authorize(context, &asked, &input.tag_specifications, false).await?;
    Ok(ec2::AuthorizeSecurityGroupIngressResult { r#return: Some(true), security_group_rules: rules })
}

pub async fn authorize_security_group_egress(
    context: &Context,
    input: ec2::AuthorizeSecurityGroupEgressRequest,
) -> Result<ec2::AuthorizeSecurityGroupEgressResult> {
    let rules = authorize(context, &asked!(input, None), &input.tag_specifications, true).await?;
    Ok(ec2::AuthorizeSecurityGroupEgressResult { r#return: Some(true), security_group_rules: rules })
}

async fn authorize(
    context: &Context,
    asked: &Asked<'_>,
    tag_specifications: &[ec2::TagSpecification],
    egress: bool,
) -> Result<Vec<ec2::SecurityGroupRule>> {
    let tags =
        Specified::from_api(tag_specifications, &[Kind::SecurityGroupRule])?.of(Kind::SecurityGroupRule);
    change(context, asked.group_id, asked.group_name, |tables, group, new_id| {
        let wanted = permissions(&Reader { tables, group, existing: false }, asked)?;
        let mut made = Vec::with_capacity(wanted.len());
        for (permission, description) in wanted {
            let rule =
                SecurityGroupRule { rule_id: new_id(), egress, permission, description, tags: tags.clone() };
            made.push(to_api(context, tables, group, &rule));
            group.rules.push(rule);
        }
        Ok(made)
    })
    .await
}

/// At least one.
fn permissions(reader: &Reader<'_>, asked: &Asked<'_>) -> Result<Vec<permission::Described>> {
    let wanted = reader.all(asked.listed, &asked.flat)?;
    if wanted.is_empty() { Err(Error::missing_parameter("ipPermissions")) } else { Ok(wanted) }
}

pub async fn revoke_security_group_ingress(
    context: &Context,
    input: ec2::RevokeSecurityGroupIngressRequest,
) -> Result<ec2::RevokeSecurityGroupIngressResult> {
    let asked = asked!(input, input.group_name.as_deref());
    let revoked = revoke(context, &asked, &input.security_group_rule_ids, false).await?;
    Ok(ec2::RevokeSecurityGroupIngressResult {
        r#return: Some(true),
        unknown_ip_permissions: revoked.unknown,
        revoked_security_group_rules: revoked.rules,
    })
}

pub async fn revoke_security_group_egress(
    context: &Context,
    input: ec2::RevokeSecurityGroupEgressRequest,
) -> Result<ec2::RevokeSecurityGroupEgressResult> {
    let revoked = revoke(context, &asked!(input, None), &input.security_group_rule_ids, true).await?;
    Ok(ec2::RevokeSecurityGroupEgressResult {
        r#return: Some(true),
        unknown_ip_permissions: revoked.unknown,
        revoked_security_group_rules: revoked.rules,
    })
}

#[derive(Default)]
struct Revoked {
    rules: Vec<ec2::RevokedSecurityGroupRule>,
    unknown: Vec<ec2::IpPermission>,
}

/// All that are named are there and go, or nothing does; only in a default VPC what is not there is told and is no
/// error (EC2 API Reference, RevokeSecurityGroupIngress).
async fn revoke(context: &Context, asked: &Asked<'_>, rule_ids: &[String], egress: bool) -> Result<Revoked> {
    change(context, asked.group_id, asked.group_name, |tables, group, _| {
        let reader = Reader { tables, group, existing: true };
        let named = if rule_ids.is_empty() { permissions(&reader, asked)? } else { Vec::new() };
        let lenient = tables.vpcs.find(&group.vpc_id).is_some_and(|vpc| vpc.is_default);
        let mut revoked = Revoked::default();
        let mut unknown = Vec::new();
        for described in &named {
            match with_permission(group, &described.0, egress) {
                Ok(at) => revoked.rules.push(take(group, at)),
                Err(_) if lenient => unknown.push((&described.0, &described.1)),
                Err(error) => return Err(error),
            }
        }
        for id in rule_ids {
            let at = with_id(group, id, Some(egress))?;
            revoked.rules.push(take(group, at));
        }
        revoked.unknown = permission::gather(tables, group, unknown);
        Ok(revoked)
    })
    .await
}

fn take(group: &mut SecurityGroup, at: usize) -> ec2::RevokedSecurityGroupRule {
    let rule = group.rules.remove(at);
    revoked_to_api(group, &rule)
}

fn with_permission(group: &SecurityGroup, permission: &Permission, egress: bool) -> Result<usize> {
    let found = group.rules.iter().position(|rule| rule.egress == egress && rule.permission == *permission);
    found.ok_or_else(|| {
        Error::new("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
    })
}

/// `egress` is None where a rule of either direction will do.
fn with_id(group: &SecurityGroup, rule_id: &str, egress: Option<bool>) -> Result<usize> {
    Id::parse(Kind::SecurityGroupRule, rule_id)?;
    let wanted = |rule: &SecurityGroupRule| {
        *rule.rule_id == *rule_id && egress.is_none_or(|egress| egress == rule.egress)
    };
    group.rules.iter().position(wanted).ok_or_else(|| no_such_rule(rule_id))
}

pub fn no_such_rule(rule_id: &str) -> Error {
    Error::new(
        "InvalidSecurityGroupRuleId.NotFound",
        format!("The security group rule ID '{rule_id}' does not exist"),
    )
}

pub async fn modify_security_group_rules(
    context: &Context,
    input: ec2::ModifySecurityGroupRulesRequest,
) -> Result<ec2::ModifySecurityGroupRulesResult> {
    change(context, input.group_id.as_deref(), None, |tables, group, _| {
        for update in &input.security_group_rules {
            let at = with_id(group, update.security_group_rule_id.as_deref().unwrap_or_default(), None)?;
            let Some(wanted) = &update.security_group_rule else { continue };
            let (permission, description) = Reader { tables, group, existing: false }.rule(wanted)?;
            let rule = &mut group.rules[at];
            rule.permission = permission;
            rule.description = description;
        }
        Ok(())
    })
    .await?;
    Ok(ec2::ModifySecurityGroupRulesResult { r#return: Some(true) })
}

pub async fn update_security_group_rule_descriptions_ingress(
    context: &Context,
    input: ec2::UpdateSecurityGroupRuleDescriptionsIngressRequest,
) -> Result<ec2::UpdateSecurityGroupRuleDescriptionsIngressResult> {
    let by_id = &input.security_group_rule_descriptions;
    change(context, input.group_id.as_deref(), input.group_name.as_deref(), |tables, group, _| {
        describe_rules(tables, group, false, &input.ip_permissions, by_id)
    })
    .await?;
    Ok(ec2::UpdateSecurityGroupRuleDescriptionsIngressResult { r#return: Some(true) })
}

pub async fn update_security_group_rule_descriptions_egress(
    context: &Context,
    input: ec2::UpdateSecurityGroupRuleDescriptionsEgressRequest,
) -> Result<ec2::UpdateSecurityGroupRuleDescriptionsEgressResult> {
    let by_id = &input.security_group_rule_descriptions;
    change(context, input.group_id.as_deref(), input.group_name.as_deref(), |tables, group, _| {
        describe_rules(tables, group, true, &input.ip_permissions, by_id)
    })
    .await?;
    Ok(ec2::UpdateSecurityGroupRuleDescriptionsEgressResult { r#return: Some(true) })
}

/// Gives rules other descriptions; one left out is taken away.
fn describe_rules(
    tables: &Tables,
    group: &mut SecurityGroup,
    egress: bool,
    listed: &[ec2::IpPermission],
    by_id: &[ec2::SecurityGroupRuleDescription],
) -> Result<()> {
    if listed.is_empty() && by_id.is_empty() {
        return Err(Error::missing_parameter("ipPermissions"));
    }
    for (permission, description) in
        (Reader { tables, group, existing: true }).all(listed, &Flat::default())?
    {
        let at = with_permission(group, &permission, egress)?;
        group.rules[at].description = description;
    }
    for update in by_id {
        let at = with_id(group, update.security_group_rule_id.as_deref().unwrap_or_default(), Some(egress))?;
        group.rules[at].description = permission::description(update.description.as_deref())?;
    }
    Ok(())
}
