//! A VPC's CIDR blocks: associated, disassociated, and which may stand beside which
//! (VPC User Guide, "VPC CIDR blocks").

use super::{IPV4_ASSOCIATION, IPV6_ASSOCIATION, Vpc, depend, ipv6_pool};
use crate::Context;
use crate::cidr::{self as block, CidrAssociation, overlap};
use crate::engine::unsupported::{given, refuse};
use crate::engine::{Tables, Tx, quota};
use crate::network_acl::NetworkAcl;
use crate::route_table::{self, Destination, Route};
use crate::security_group::{self, SecurityGroup};
use crate::vpc_peering_connection;
use aws_api::ec2;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{Error, Id, Kind, Region, Result};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Of a VPC's and of a subnet's IPv4 block.
pub const PREFIX_LENGTHS: RangeInclusive<u8> = 16..=28;

/// Where the resolver of a VPC answers: at the base of its primary block plus two.
pub fn resolver(cidr: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(cidr.network()) + 2)
}

const fn net(a: u8, b: u8, prefix_len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix_len)
}

/// RFC 1918.
const PRIVATE: [Ipv4Net; 3] = [net(10, 0, 8), net(172, 16, 12), net(192, 168, 16)];
/// EC2 keeps it for itself beside private blocks.
const BENCHMARK: Ipv4Net = net(198, 19, 16);
/// What no host may have as its address.
const NOT_UNICAST: [Ipv4Net; 5] =
    [net(0, 0, 8), net(127, 0, 8), net(169, 254, 16), net(224, 0, 4), net(240, 0, 4)];

fn out_of_range(cidr: Ipv4Net, why: &str) -> Error {
    Error::new("InvalidVpc.Range", format!("The CIDR '{cidr}' is {why}"))
}

/// Whether a VPC may have the block at all.
pub fn check_block(cidr: Ipv4Net) -> Result<()> {
    if !PREFIX_LENGTHS.contains(&cidr.prefix_len()) || NOT_UNICAST.iter().any(|not| overlap(*not, cidr)) {
        return Err(out_of_range(cidr, "invalid."));
    }
    Ok(())
}

/// Whether the block may stand beside those that the VPC has.
fn check_beside(has: &[Ipv4Net], cidr: Ipv4Net) -> Result<()> {
    check_block(cidr)?;
    if let Some(other) = has.iter().find(|other| overlap(**other, cidr)) {
        return Err(out_of_range(cidr, &format!("in conflict with '{other}', which the VPC has.")));
    }
    if has.iter().any(|other| excludes(*other, cidr) || excludes(cidr, *other)) {
        return Err(out_of_range(
            cidr,
            "restricted. Use a CIDR from the same private address range as the current VPC CIDR, or use a publicly-routable CIDR. For additional restrictions, see https://docs.aws.amazon.com/vpc/latest/userguide/vpc-cidr-blocks.html",
        ));
    }
    // The rest of the table looks at what is there, not at what comes.
    let restricted =
        |of: Ipv4Net, there: Ipv4Net, coming: Ipv4Net| there.contains(&of) && coming.contains(&cidr);
    if has.iter().any(|other| {
        restricted(*other, net(10, 0, 15), net(10, 0, 16))
            || restricted(*other, net(172, 16, 12), net(172, 31, 16))
    }) {
        return Err(out_of_range(cidr, "restricted."));
    }
    Ok(())
}

/// Private blocks of two ranges do not go together, nor with the one that EC2 keeps.
fn excludes(one: Ipv4Net, other: Ipv4Net) -> bool {
    let range = |of: Ipv4Net| PRIVATE.iter().position(|private| private.contains(&of));
    match (range(one), range(other)) {
        (Some(one), Some(other)) => one != other,
        (Some(_), None) => BENCHMARK.contains(&other),
        _ => false,
    }
}

/// Addresses are announced from the region as a whole.
pub fn check_border_group(context: &Context, group: Option<&str>, amazon_provided: bool) -> Result<()> {
    let Some(group) = group.filter(|group| !group.is_empty()) else { return Ok(()) };
    if !amazon_provided {
        return Err(Error::invalid_parameter_combination(
            "The parameter ipv6CidrBlockNetworkBorderGroup requires amazonProvidedIpv6CidrBlock",
        ));
    }
    if group != context.region.view.region.as_str() {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({group}) for parameter ipv6CidrBlockNetworkBorderGroup is invalid. There is no such network border group."
        )));
    }
    Ok(())
}

pub fn ipv4_to_api(id: &Id, cidr: Ipv4Net, state: &str) -> ec2::VpcCidrBlockAssociation {
    ec2::VpcCidrBlockAssociation {
        association_id: Some(id.to_string()),
        cidr_block: Some(cidr.to_string()),
        cidr_block_state: Some(in_state(state)),
    }
}

pub fn ipv6_to_api(
    of: &CidrAssociation<Ipv6Net>,
    region: &Region,
    state: &str,
) -> ec2::VpcIpv6CidrBlockAssociation {
    ec2::VpcIpv6CidrBlockAssociation {
        association_id: Some(of.association_id.to_string()),
        ipv6_cidr_block: Some(of.cidr.to_string()),
        ipv6_cidr_block_state: Some(in_state(state)),
        network_border_group: Some(region.to_string()),
        ipv6_pool: Some(ipv6_pool::NAME.into()),
        ip_source: Some("amazon".into()),
        ..Default::default()
    }
}

fn in_state(state: &str) -> ec2::VpcCidrBlockState {
    ec2::VpcCidrBlockState { state: Some(state.into()), ..Default::default() }
}

pub async fn associate_vpc_cidr_block(
    context: &Context,
    input: ec2::AssociateVpcCidrBlockRequest,
) -> Result<ec2::AssociateVpcCidrBlockResult> {
    refuse([
        (given(&input.ipv4_ipam_pool_id) || given(&input.ipv6_ipam_pool_id), "IPAM pools are"),
        (input.ipv4_netmask_length.or(input.ipv6_netmask_length).is_some(), "IPAM pools are"),
        (given(&input.ipv6_pool) || given(&input.ipv6_cidr_block), "IPv6 pools of one's own are"),
    ])?;
    let ipv6 = input.amazon_provided_ipv6_cidr_block.unwrap_or(false);
    check_border_group(context, input.ipv6_cidr_block_network_border_group.as_deref(), ipv6)?;
    let text = input.cidr_block.as_deref().filter(|text| !text.is_empty());
    let cidr = text.map(|text| block::ipv4("cidrBlock", text)).transpose()?;
    let vpc_id = input.vpc_id.unwrap_or_default();
    let region = &context.region.view.region;
    context
        .transact(|tx| {
            let mut vpc = (*depend(tx, &vpc_id)?).clone();
            let mut result =
                ec2::AssociateVpcCidrBlockResult { vpc_id: Some(vpc_id.clone()), ..Default::default() };
            match (cidr, ipv6) {
                (Some(cidr), false) => {
                    let id = add_ipv4(tx, &mut vpc, cidr)?;
                    result.cidr_block_association = Some(ipv4_to_api(&id, cidr, "associating"));
                }
                (None, true) => {
                    let added = add_ipv6(tx, &mut vpc)?;
                    result.ipv6_cidr_block_association = Some(ipv6_to_api(&added, region, "associating"));
                }
                (Some(_), true) => {
                    return Err(Error::invalid_parameter_combination(
                        "Only one of cidrBlock and amazonProvidedIpv6CidrBlock can be given",
                    ));
                }
                (None, false) => return Err(Error::missing_parameter("cidrBlock")),
            }
            tx.put(&vpc);
            Ok(result)
        })
        .await
}

fn add_ipv4(tx: &mut Tx<'_>, vpc: &mut Vpc, cidr: Ipv4Net) -> Result<Id> {
    let has: Vec<Ipv4Net> = vpc.cidrs().map(|(_, cidr)| cidr).collect();
    check_beside(&has, cidr)?;
    let tables = tx.tables().route_tables.with("vpc-id", &vpc.vpc_id);
    if let Some(route) = tables.flat_map(|table| &table.routes).find(|route| within(route, cidr)) {
        let why = format!("in conflict with the route to {} of the VPC.", route.destination);
        return Err(out_of_range(cidr, &why));
    }
    let now = tx.now();
    for peering in vpc_peering_connection::of_vpc(tx.tables(), &vpc.vpc_id).filter(|of| of.is_live(now)) {
        let peer = tx.get::<Vpc>(peering.peer_of(&vpc.vpc_id));
        if peer.is_some_and(|peer| peer.cidrs().any(|(_, of)| overlap(of, cidr))) {
            return Err(out_of_range(
                cidr,
                &format!("in conflict with the VPC behind {}.", peering.peering_id),
            ));
        }
    }
    tx.quotas().check_within(quota::CIDRS_PER_VPC, has.len() + 1)?;
    let association_id = tx.new_id(Kind::VpcCidrAssociation);
    vpc.secondary_cidrs.push(CidrAssociation { association_id: association_id.clone(), cidr });
    Ok(association_id)
}

/// A block must not take over what a route of the VPC leads elsewhere.
fn within(route: &Route, cidr: Ipv4Net) -> bool {
    matches!(route.destination, Destination::Cidr(destination) if IpNet::V4(cidr).contains(&destination))
}

/// A VPC's default list and group let IPv6 through from then on, as they do IPv4.
fn add_ipv6(tx: &mut Tx<'_>, vpc: &mut Vpc) -> Result<CidrAssociation<Ipv6Net>> {
    if !vpc.ipv6_cidrs.is_empty() {
        return Err(Error::new(
            "CidrLimitExceeded",
            format!("This network '{}' has met its maximum number of allowed IPv6 CIDRs: 1", vpc.vpc_id),
        ));
    }
    let cidr = ipv6_pool::claim(tx, &vpc.vpc_id)?;
    let added = CidrAssociation { association_id: tx.new_id(Kind::VpcCidrAssociation), cidr };
    vpc.ipv6_cidrs.push(added.clone());
    let acls: Vec<_> = tx.tables().network_acls.with("vpc-id", &vpc.vpc_id).cloned().collect();
    for acl in acls {
        if let Some(acl) = tx.get::<NetworkAcl>(&acl.network_acl_id) {
            let mut acl = (*acl).clone();
            acl.know_ipv6();
            tx.put(&acl);
        }
    }
    let is_default = |group: &&Arc<SecurityGroup>| group.name == security_group::DEFAULT;
    let default = tx.tables().security_groups.with("vpc-id", &vpc.vpc_id).find(is_default).cloned();
    if let Some(group) = default.and_then(|group| tx.get::<SecurityGroup>(&group.group_id)) {
        let mut group = (*group).clone();
        group.let_ipv6_out(tx);
        tx.put(&group);
    }
    Ok(added)
}

pub async fn disassociate_vpc_cidr_block(
    context: &Context,
    input: ec2::DisassociateVpcCidrBlockRequest,
) -> Result<ec2::DisassociateVpcCidrBlockResult> {
    let id = Id::parse(Kind::VpcCidrAssociation, input.association_id.as_deref().unwrap_or_default())?;
    let region = &context.region.view.region;
    context
        .transact(|tx| {
            let found = holder(tx.tables(), &id).and_then(|vpc_id| tx.get::<Vpc>(&vpc_id));
            let mut vpc = (*found.ok_or_else(|| Id::not_found(Kind::VpcCidrAssociation, &id))?).clone();
            let mut result = ec2::DisassociateVpcCidrBlockResult {
                vpc_id: Some(vpc.vpc_id.to_string()),
                ..Default::default()
            };
            if vpc.cidr_association_id == id {
                return Err(Error::new(
                    "OperationNotPermitted",
                    format!("The vpc CIDR block with association ID {id} may not be disassociated. It is the primary IPv4 CIDR block of the VPC"),
                ));
            }
            let subnets: Vec<_> = tx.tables().subnets.with("vpc-id", &vpc.vpc_id).cloned().collect();
            let used = |used: bool| match used {
                true => Err(Error::new(
                    "DependencyViolation",
                    format!("The vpc CIDR block with association ID {id} has subnets and may not be disassociated."),
                )),
                false => Ok(()),
            };
            if let Some(at) = vpc.secondary_cidrs.iter().position(|of| of.association_id == id) {
                let of = vpc.secondary_cidrs.remove(at);
                used(subnets.iter().filter_map(|subnet| subnet.cidr).any(|cidr| of.cidr.contains(&cidr)))?;
                route_table::forget_local(tx, &vpc.vpc_id, of.cidr.into());
                let association = ipv4_to_api(&id, of.cidr, "disassociating");
                result.cidr_block_association = Some(association);
            } else if let Some(at) = vpc.ipv6_cidrs.iter().position(|of| of.association_id == id) {
                let of = vpc.ipv6_cidrs.remove(at);
                used(subnets.iter().any(|subnet| subnet.ipv6.is_some()))?;
                ipv6_pool::release(tx, of.cidr);
                route_table::forget_local(tx, &vpc.vpc_id, of.cidr.into());
                result.ipv6_cidr_block_association = Some(ipv6_to_api(&of, region, "disassociating"));
            }
            tx.put(&vpc);
            Ok(result)
        })
        .await
}

/// The VPC that has the association.
fn holder(tables: &Tables, id: &str) -> Option<Id> {
    let mut vpcs = tables.vpcs.with(IPV4_ASSOCIATION, id).chain(tables.vpcs.with(IPV6_ASSOCIATION, id));
    Some(vpcs.next()?.vpc_id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_beside_each_other_are_restricted_as_the_guides_table_says() {
        for (has, cidr, allowed) in [
            (&["10.1.0.0/16"][..], "10.3.0.0/16", true),
            (&["10.1.0.0/16"], "10.0.0.0/16", false),
            (&["10.2.0.0/16"], "10.0.0.0/16", true),
            (&["10.2.0.0/16"], "10.2.128.0/17", false),
            (&["10.0.0.0/24"], "10.0.0.0/16", false),
            (&["10.1.0.0/16"], "172.16.0.0/16", false),
            (&["10.1.0.0/16"], "192.168.0.0/16", false),
            (&["10.1.0.0/16"], "198.19.0.0/16", false),
            (&["198.19.0.0/16"], "10.1.0.0/16", false),
            (&["10.1.0.0/16"], "100.64.0.0/16", true),
            (&["10.1.0.0/16"], "203.0.112.0/24", true),
            (&["172.16.0.0/16"], "172.20.0.0/16", true),
            (&["172.16.0.0/16"], "172.31.0.0/16", false),
            (&["100.64.0.0/16"], "198.19.0.0/16", true),
            (&["10.2.0.0/16", "100.64.0.0/16"], "192.168.0.0/24", false),
            (&["10.2.0.0/16"], "10.3.0.0/15", false),
            (&["10.2.0.0/16"], "10.3.0.0/29", false),
            (&["10.2.0.0/16"], "169.254.0.0/16", false),
        ] {
            let has: Vec<Ipv4Net> = has.iter().map(|cidr| cidr.parse().unwrap()).collect();
            let cidr = cidr.parse::<Ipv4Net>().unwrap().trunc();
            assert_eq!(check_beside(&has, cidr).is_ok(), allowed, "{cidr} beside {has:?}");
        }
    }
}
