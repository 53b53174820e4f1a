//! CreateSecurityGroup, DeleteSecurityGroup.

use super::{ANYWHERE, DEFAULT, REFERENCES, SecurityGroup, claim_scope, default_vpc, everything, named};
use crate::Context;
use crate::engine::tags::Specified;
use crate::engine::{Tables, Tx, retire};
use crate::vpc;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

const NAME_LEN_MAX: usize = 255;

pub async fn create_security_group(
    context: &Context,
    input: ec2::CreateSecurityGroupRequest,
) -> Result<ec2::CreateSecurityGroupResult> {
    // An empty text is none.
    let given = |text: Option<String>, name| {
        text.filter(|text| !text.is_empty()).ok_or_else(|| Error::missing_parameter(name))
    };
    let name = given(input.group_name, "GroupName")?;
    let description = given(input.description, "GroupDescription")?;
    check_name(&name)?;
    check_text("groupDescription", &description)?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::SecurityGroup])?;
    let group = context
        .transact(|tx| {
            let vpc_id = match input.vpc_id.as_deref() {
                Some(id) => Id::parse(Kind::Vpc, id)?,
                None => default_vpc(tx.tables())?.vpc_id.clone(),
            };
            let vpc = vpc::depend(tx, &vpc_id)?;
            let group_id = tx.new_id(Kind::SecurityGroup);
            if !tx.claim(&claim_scope(&vpc_id), &name, &group_id) {
                return Err(Error::new(
                    "InvalidGroup.Duplicate",
                    format!("The security group '{name}' already exists for VPC '{vpc_id}'"),
                ));
            }
            let mut group = SecurityGroup {
                rules: vec![everything(tx, true, ANYWHERE)],
                group_id,
                owner: context.account().clone(),
                vpc_id,
                name: name.clone(),
                description: description.clone(),
                associations: Vec::new(),
                retired: false,
                tags: tags.of(Kind::SecurityGroup),
            };
            if !vpc.ipv6_cidrs.is_empty() {
                group.let_ipv6_out(tx);
            }
            tx.create(&group);
            Ok(group)
        })
        .await?;
    Ok(ec2::CreateSecurityGroupResult {
        group_id: Some(group.group_id.to_string()),
        security_group_arn: Some(context.arn("security-group", &group.group_id)),
        tags: group.tags.to_api(),
    })
}

/// EC2 trims no name: what begins or ends with a space is another name.
fn check_name(name: &str) -> Result<()> {
    check_text("groupName", name)?;
    if name.to_ascii_lowercase().starts_with("sg-") {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({name}) for parameter groupName is invalid. Group names may not be in the format sg-*."
        )));
    }
    if name.eq_ignore_ascii_case(DEFAULT) {
        return Err(Error::invalid_parameter_value(format!(
            "Cannot use reserved security group name: {name}"
        )));
    }
    Ok(())
}

fn check_text(parameter: &str, text: &str) -> Result<()> {
    let why = match text {
        "" => "It must not be empty.",
        _ if text.len() > NAME_LEN_MAX => "It may have at most 255 characters.",
        _ if !text.is_ascii() => "Character sets beyond ASCII are not supported.",
        _ if !text.bytes().all(is_allowed) => {
            "Valid characters are a-z, A-Z, 0-9, spaces, and ._-:/()#,@[]+=&;{}!$*."
        }
        _ => return Ok(()),
    };
    Err(Error::invalid_parameter_value(format!("Value ({text}) for parameter {parameter} is invalid. {why}")))
}

/// The characters that EC2 allows in a group's name and description in a VPC.
pub fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" ._-:/()#,@[]+=&;{}!$*".contains(&byte)
}

pub async fn delete_security_group(
    context: &Context,
    input: ec2::DeleteSecurityGroupRequest,
) -> Result<ec2::DeleteSecurityGroupResult> {
    let found = named(&context.tables(), input.group_id.as_deref(), input.group_name.as_deref())?;
    let group_id = &found.group_id;
    let not_found = || Id::not_found(Kind::SecurityGroup, group_id);
    let in_use = |tables: &Tables| check_unused(tables, &found).err();
    let gone = |tx: &mut Tx<'_>, group: &SecurityGroup| tx.release(&claim_scope(&group.vpc_id), &group.name);
    retire::delete(context, group_id, not_found, in_use, gone).await?;
    Ok(ec2::DeleteSecurityGroupResult { r#return: Some(true), group_id: Some(group_id.to_string()) })
}

fn check_unused(tables: &Tables, group: &SecurityGroup) -> Result<()> {
    let group_id = &group.group_id;
    if group.name == DEFAULT {
        return Err(Error::new(
            "CannotDelete",
            format!("the specified group: \"{group_id}\" name: \"{DEFAULT}\" cannot be deleted by a user"),
        ));
    }
    let used = tables.network_interfaces.count("group-id", group_id) > 0;
    let referred = REFERENCES
        .into_iter()
        .flat_map(|field| tables.security_groups.with(field, group_id))
        // A rule of a peered VPC is stale then, and stands against nothing.
        .any(|other| other.group_id != *group_id && other.vpc_id == group.vpc_id);
    if used || referred {
        return Err(Error::new("DependencyViolation", format!("resource {group_id} has a dependent object")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_characters() {
        for name in ["web", "web (80/tcp), [a+b]=c&d;{e}!$*#@_-.:", "sg", "a default", &"x".repeat(255)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "default", "Default", "sg-web", "SG-1", "wéb", "a\"b", "a\tb", &"x".repeat(256)] {
            assert_eq!(check_name(name).unwrap_err().code, "InvalidParameterValue", "{name}");
        }
    }
}
