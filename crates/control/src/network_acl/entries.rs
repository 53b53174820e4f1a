//! CreateNetworkAclEntry, ReplaceNetworkAclEntry, DeleteNetworkAclEntry.

use super::NetworkAcl;
use super::entry::{Entry, Request, key};
use crate::Context;
use crate::engine::quota;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

/// Changes the rules of a list.
async fn change(
    context: &Context,
    id: Option<String>,
    change: impl Fn(&mut Vec<Entry>, &crate::engine::Quotas) -> Result<()>,
) -> Result<()> {
    let id = Id::parse(Kind::NetworkAcl, id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let acl = tx.get::<NetworkAcl>(&id).ok_or_else(|| Id::not_found(Kind::NetworkAcl, &id))?;
            let mut acl = (*acl).clone();
            change(&mut acl.entries, tx.quotas())?;
            acl.entries.sort_by_key(Entry::place);
            tx.put(&acl);
            Ok(())
        })
        .await
}

fn position(entries: &[Entry], (number, egress): (i32, bool)) -> Option<usize> {
    entries.iter().position(|entry| entry.rule_number == number && entry.egress == egress)
}

fn no_entry(number: i32) -> Error {
    Error::new(
        "InvalidNetworkAclEntry.NotFound",
        format!("The network acl entry identified by {number} does not exist."),
    )
}

pub async fn create_network_acl_entry(
    context: &Context,
    input: ec2::CreateNetworkAclEntryRequest,
) -> Result<()> {
    let request = Request {
        rule_number: input.rule_number,
        egress: input.egress,
        rule_action: input.rule_action,
        protocol: input.protocol,
        cidr_block: input.cidr_block,
        ipv6_cidr_block: input.ipv6_cidr_block,
        icmp_type_code: input.icmp_type_code,
        port_range: input.port_range,
    };
    let entry = request.read()?;
    change(context, input.network_acl_id, |entries, quotas| {
        if position(entries, (entry.rule_number, entry.egress)).is_some() {
            return Err(Error::new(
                "NetworkAclEntryAlreadyExists",
                format!("The network acl entry identified by {} already exists.", entry.rule_number),
            ));
        }
        let count = entries.iter().filter(|other| other.egress == entry.egress).count() + 1;
        quotas.check_within(quota::RULES_PER_NETWORK_ACL, count)?;
        entries.push(entry.clone());
        Ok(())
    })
    .await
}

pub async fn replace_network_acl_entry(
    context: &Context,
    input: ec2::ReplaceNetworkAclEntryRequest,
) -> Result<()> {
    let request = Request {
        rule_number: input.rule_number,
        egress: input.egress,
        rule_action: input.rule_action,
        protocol: input.protocol,
        cidr_block: input.cidr_block,
        ipv6_cidr_block: input.ipv6_cidr_block,
        icmp_type_code: input.icmp_type_code,
        port_range: input.port_range,
    };
    let entry = request.read()?;
    change(context, input.network_acl_id, |entries, _| {
        let at = position(entries, (entry.rule_number, entry.egress));
        let at = at.ok_or_else(|| no_entry(entry.rule_number))?;
        entries[at] = entry.clone();
        Ok(())
    })
    .await
}

pub async fn delete_network_acl_entry(
    context: &Context,
    input: ec2::DeleteNetworkAclEntryRequest,
) -> Result<()> {
    let key = key(input.rule_number, input.egress)?;
    change(context, input.network_acl_id, |entries, _| {
        let at = position(entries, key).ok_or_else(|| no_entry(key.0))?;
        entries.remove(at);
        Ok(())
    })
    .await
}
