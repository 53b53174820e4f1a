//! Rules of security groups: authorized, revoked, modified, described.

use super::permission::{self, Described};
use super::{Peer, SecurityGroup, SecurityGroupRule, named};
use crate::Context;
use crate::engine::describe::page_of;
use crate::engine::tags::Specified;
use crate::engine::{Tables, Tx, filter};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::sync::Arc;

/// Rules of one direction (VPC User Guide, "Amazon VPC quotas": 60, adjustable; 1,000 with one group).
const RULES_MAX: usize = 1000;
const DESCRIPTION_LEN_MAX: usize = 255;

/// The group that a call is about and the permissions that it names.
struct Asked<'i> {
    group_id: Option<&'i str>,
    group_name: Option<&'i str>,
    permissions: &'i [ec2::IpPermission],
    flat: (Option<&'i str>, Option<i32>, Option<i32>, Option<&'i str>, Option<&'i str>),
}

impl Asked<'_> {
    fn group(&self, tables: &Tables) -> Result<Arc<SecurityGroup>> {
        named(tables, self.group_id, self.group_name)
    }

    fn permissions(&self, tables: &Tables) -> Result<Vec<Described>> {
        let (protocol, from_port, to_port, cidr, group) = self.flat;
        let mut found = permission::from_api(tables, self.permissions)?;
        found.extend(permission::flat(tables, protocol, from_port, to_port, cidr, group)?);
        Ok(found)
    }
}

macro_rules! asked {
    ($input:ident) => {
        Asked {
            group_id: $input.group_id.as_deref(),
            group_name: asked!(@name $input),
            permissions: &$input.ip_permissions,
            flat: (
                $input.ip_protocol.as_deref(),
                $input.from_port,
                $input.to_port,
                $input.cidr_ip.as_deref(),
                $input.source_security_group_name.as_deref(),
            ),
        }
    };
    (@name $input:ident) => { None };
}

pub async fn authorize_security_group_ingress(
    context: &Context,
    input: ec2::AuthorizeSecurityGroupIngressRequest,
) -> Result<ec2::AuthorizeSecurityGroupIngressResult> {
    let asked = Asked { group_name: input.group_name.as_deref(), ..asked!(input) };
    let rules = authorize(context, &asked, &input.tag_specifications, false).await?;
    Ok(ec2::AuthorizeSecurityGroupIngressResult { r#return: Some(true), security_group_rules: rules })
}

pub async fn authorize_security_group_egress(
    context: &Context,
    input: ec2::AuthorizeSecurityGroupEgressRequest,
) -> Result<ec2::AuthorizeSecurityGroupEgressResult> {
    let rules = authorize(context, &asked!(input), &input.tag_specifications, true).await?;
    Ok(ec2::AuthorizeSecurityGroupEgressResult { r#return: Some(true), security_group_rules: rules })
}

async fn authorize(
    context: &Context,
    asked: &Asked<'_>,
    tag_specifications: &[ec2::TagSpecification],
    egress: bool,
) -> Result<Vec<ec2::SecurityGroupRule>> {
    let tags = Specified::from_api(tag_specifications, &[Kind::SecurityGroupRule])?.of(Kind::SecurityGroupRule);
    context
        .transact(|tx| {
            let mut group = (*asked.group(tx.tables())?).clone();
            tx.get::<SecurityGroup>(&group.group_id);
            let permissions = asked.permissions(tx.tables())?;
            if permissions.is_empty() {
                return Err(Error::missing_parameter("ipPermissions"));
            }
            let mut made = Vec::new();
            for (permission, description) in permissions {
                if group.rules(egress).any(|rule| rule.permission == permission) {
                    return Err(Error::new("InvalidPermission.Duplicate", format!("the specified rule \"{}\" already exists", said(&permission))));
                }
                let rule = SecurityGroupRule {
                    rule_id: tx.new_id(Kind::SecurityGroupRule),
                    egress,
                    permission,
                    description: check_description(description)?,
                    tags: tags.clone(),
                };
                made.push(to_api(context, &group, &rule));
                group.rules.push(rule);
            }
            if group.rules(egress).count() > RULES_MAX {
                return Err(Error::new("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached."));
            }
            tx.put(&group);
            Ok(made)
        })
        .await
}

fn check_description(description: Option<String>) -> Result<Option<String>> {
    match description {
        Some(text) if text.len() > DESCRIPTION_LEN_MAX => {
            Err(Error::invalid_parameter_value(format!("A rule's description has at most {DESCRIPTION_LEN_MAX} characters")))
        }
        other => Ok(other.filter(|text| !text.is_empty())),
    }
}

fn said(permission: &super::Permission) -> String {
    let peer = match &permission.peer {
        Peer::Ipv4(cidr) => cidr.to_string(),
        Peer::Ipv6(cidr) => cidr.to_string(),
        Peer::Group(id) => id.to_string(),
    };
    let ports = match (permission.from_port, permission.to_port) {
        (Some(from), Some(to)) => format!(", from port: {from}, to port: {to}"),
        _ => String::new(),
    };
    format!("peer: {peer}, {}{ports}, ALLOW", permission.protocol)
}

pub async fn revoke_security_group_ingress(
    context: &Context,
    input: ec2::RevokeSecurityGroupIngressRequest,
) -> Result<ec2::RevokeSecurityGroupIngressResult> {
    let asked = Asked { group_name: input.group_name.as_deref(), ..asked!(input) };
    let revoked = revoke(context, &asked, &input.security_group_rule_ids, false).await?;
    Ok(ec2::RevokeSecurityGroupIngressResult {
        r#return: Some(true),
        revoked_security_group_rules: revoked,
        ..Default::default()
    })
}

pub async fn revoke_security_group_egress(
    context: &Context,
    input: ec2::RevokeSecurityGroupEgressRequest,
) -> Result<ec2::RevokeSecurityGroupEgressResult> {
    let revoked = revoke(context, &asked!(input), &input.security_group_rule_ids, true).await?;
    Ok(ec2::RevokeSecurityGroupEgressResult {
        r#return: Some(true),
        revoked_security_group_rules: revoked,
        ..Default::default()
    })
}

async fn revoke(
    context: &Context,
    asked: &Asked<'_>,
    rule_ids: &[String],
    egress: bool,
) -> Result<Vec<ec2::RevokedSecurityGroupRule>> {
    context
        .transact(|tx| {
            let mut group = (*asked.group(tx.tables())?).clone();
            tx.get::<SecurityGroup>(&group.group_id);
            let permissions = asked.permissions(tx.tables())?;
            if permissions.is_empty() && rule_ids.is_empty() {
                return Err(Error::missing_parameter("ipPermissions"));
            }
            let mut revoked = Vec::new();
            for (permission, _) in permissions {
                let found = group.rules.iter().position(|rule| rule.egress == egress && rule.permission == permission);
                let at = found.ok_or_else(|| {
                    Error::new("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
                })?;
                revoked.push(revoked_to_api(&group, &group.rules[at]));
                group.rules.remove(at);
            }
            for id in rule_ids {
                let at = position(&group, id, egress)?;
                revoked.push(revoked_to_api(&group, &group.rules[at]));
                group.rules.remove(at);
            }
            tx.put(&group);
            Ok(revoked)
        })
        .await
}

fn position(group: &SecurityGroup, rule_id: &str, egress: bool) -> Result<usize> {
    Id::parse(Kind::SecurityGroupRule, rule_id)?;
    let found = group.rules.iter().position(|rule| *rule.rule_id == *rule_id && rule.egress == egress);
    found.ok_or_else(|| {
        Error::new("InvalidSecurityGroupRuleId.NotFound", format!("The security group rule ID '{rule_id}' does not exist"))
    })
}

pub async fn modify_security_group_rules(
    context: &Context,
    input: ec2::ModifySecurityGroupRulesRequest,
) -> Result<ec2::ModifySecurityGroupRulesResult> {
    change_rules(context, input.group_id.as_deref(), None, |tx, group| {
        for update in &input.security_group_rules {
            let id = update.security_group_rule_id.as_deref().unwrap_or_default();
            let Some(wanted) = &update.security_group_rule else { continue };
            let (permission, description) = permission::from_request(tx.tables(), wanted)?;
            let found = group.rules.iter_mut().find(|rule| *rule.rule_id == *id);
            let rule = found.ok_or_else(|| {
                Error::new("InvalidSecurityGroupRuleId.NotFound", format!("The security group rule ID '{id}' does not exist"))
            })?;
            rule.permission = permission;
            rule.description = check_description(description)?;
        }
        Ok(())
    })
    .await?;
    Ok(ec2::ModifySecurityGroupRulesResult { r#return: Some(true) })
}

async fn change_rules(
    context: &Context,
    group_id: Option<&str>,
    group_name: Option<&str>,
    change: impl Fn(&mut Tx<'_>, &mut SecurityGroup) -> Result<()>,
) -> Result<()> {
    context
        .transact(|tx| {
            let mut group = (*named(tx.tables(), group_id, group_name)?).clone();
            tx.get::<SecurityGroup>(&group.group_id);
            change(tx, &mut group)?;
            tx.put(&group);
            Ok(())
        })
        .await
}

fn update_descriptions(
    tx: &Tx<'_>,
    group: &mut SecurityGroup,
    egress: bool,
    permissions: &[ec2::IpPermission],
    by_id: &[ec2::SecurityGroupRuleDescription],
) -> Result<()> {
    for (permission, description) in permission::from_api(tx.tables(), permissions)? {
        let found = group.rules.iter_mut().find(|rule| rule.egress == egress && rule.permission == permission);
        let rule = found.ok_or_else(|| {
            Error::new("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
        })?;
        rule.description = check_description(description)?;
    }
    for update in by_id {
        let at = position(group, update.security_group_rule_id.as_deref().unwrap_or_default(), egress)?;
        group.rules[at].description = check_description(update.description.clone())?;
    }
    Ok(())
}

pub async fn update_security_group_rule_descriptions_ingress(
    context: &Context,
    input: ec2::UpdateSecurityGroupRuleDescriptionsIngressRequest,
) -> Result<ec2::UpdateSecurityGroupRuleDescriptionsIngressResult> {
    change_rules(context, input.group_id.as_deref(), input.group_name.as_deref(), |tx, group| {
        update_descriptions(tx, group, false, &input.ip_permissions, &input.security_group_rule_descriptions)
    })
    .await?;
    Ok(ec2::UpdateSecurityGroupRuleDescriptionsIngressResult { r#return: Some(true) })
}

pub async fn update_security_group_rule_descriptions_egress(
    context: &Context,
    input: ec2::UpdateSecurityGroupRuleDescriptionsEgressRequest,
) -> Result<ec2::UpdateSecurityGroupRuleDescriptionsEgressResult> {
    change_rules(context, input.group_id.as_deref(), input.group_name.as_deref(), |tx, group| {
        update_descriptions(tx, group, true, &input.ip_permissions, &input.security_group_rule_descriptions)
    })
    .await?;
    Ok(ec2::UpdateSecurityGroupRuleDescriptionsEgressResult { r#return: Some(true) })
}

fn to_api(context: &Context, group: &SecurityGroup, rule: &SecurityGroupRule) -> ec2::SecurityGroupRule {
    let permission = &rule.permission;
    let peer = &permission.peer;
    ec2::SecurityGroupRule {
        security_group_rule_id: Some(rule.rule_id.to_string()),
        security_group_rule_arn: Some(context.arn("security-group-rule", &rule.rule_id)),
        group_id: Some(group.group_id.to_string()),
        group_owner_id: Some(group.owner.to_string()),
        is_egress: Some(rule.egress),
        ip_protocol: Some(permission.protocol.clone()),
        from_port: Some(permission.from_port.unwrap_or(-1)),
        to_port: Some(permission.to_port.unwrap_or(-1)),
        cidr_ipv4: if let Peer::Ipv4(cidr) = peer { Some(cidr.to_string()) } else { None },
        cidr_ipv6: if let Peer::Ipv6(cidr) = peer { Some(cidr.to_string()) } else { None },
        referenced_group_info: match peer {
            Peer::Group(id) => Some(ec2::ReferencedSecurityGroup {
                group_id: Some(id.to_string()),
                user_id: Some(group.owner.to_string()),
                ..Default::default()
            }),
            _ => None,
        },
        description: rule.description.clone(),
        tags: rule.tags.to_api(),
        ..Default::default()
    }
}

fn revoked_to_api(group: &SecurityGroup, rule: &SecurityGroupRule) -> ec2::RevokedSecurityGroupRule {
    let permission = &rule.permission;
    let peer = &permission.peer;
    ec2::RevokedSecurityGroupRule {
        security_group_rule_id: Some(rule.rule_id.to_string()),
        group_id: Some(group.group_id.to_string()),
        is_egress: Some(rule.egress),
        ip_protocol: Some(permission.protocol.clone()),
        from_port: Some(permission.from_port.unwrap_or(-1)),
        to_port: Some(permission.to_port.unwrap_or(-1)),
        cidr_ipv4: if let Peer::Ipv4(cidr) = peer { Some(cidr.to_string()) } else { None },
        cidr_ipv6: if let Peer::Ipv6(cidr) = peer { Some(cidr.to_string()) } else { None },
        referenced_group_id: if let Peer::Group(id) = peer { Some(id.to_string()) } else { None },
        description: rule.description.clone(),
        ..Default::default()
    }
}

pub async fn describe_security_group_rules(
    context: &Context,
    input: ec2::DescribeSecurityGroupRulesRequest,
) -> Result<ec2::DescribeSecurityGroupRulesResult> {
    let filters = filter::parse(&input.filters)?;
    let tables = context.tables();
    let mut passed = Vec::new();
    let mut missing: Vec<&String> = input.security_group_rule_ids.iter().collect();
    for group in tables.security_groups.iter() {
        for rule in &group.rules {
            let wanted = input.security_group_rule_ids.is_empty()
                || input.security_group_rule_ids.iter().any(|id| **id == *rule.rule_id);
            missing.retain(|id| ***id != *rule.rule_id);
            let passes = filter::passes(&filters, |name, values| match name {
                "group-id" => filter::one(values, group.group_id.as_str()),
                "security-group-rule-id" => filter::one(values, rule.rule_id.as_str()),
                "tag-key" => filter::many(values, rule.tags.iter().map(|(key, _)| key)),
                _ => match name.strip_prefix("tag:") {
                    Some(key) => filter::some(values, rule.tags.get(key)),
                    None => false,
                },
            })?;
            if wanted && passes {
                passed.push((rule.rule_id.to_string(), to_api(context, group, rule)));
            }
        }
    }
    if let Some(id) = missing.first() {
        Id::parse(Kind::SecurityGroupRule, id)?;
        return Err(Error::new("InvalidSecurityGroupRuleId.NotFound", format!("The security group rule ID '{id}' does not exist")));
    }
    passed.sort_by(|one, other| one.0.cmp(&other.0));
    let (page, next_token) =
        page_of(&passed, |(id, _)| id.clone(), &input.filters, input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeSecurityGroupRulesResult {
        security_group_rules: page.into_iter().map(|(_, rule)| rule).collect(),
        next_token,
    })
}

