//! Making and deleting subnets.

use super::{Subnet, to_api};
use crate::Context;
use crate::cidr::{self, CidrAssociation, overlap};
use crate::default_vpc;
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::engine::{Tables, Tx, quota, retire};
use crate::network_acl::{self, NetworkAcl};
use crate::region::Zone;
use crate::route_table;
use crate::vpc::cidr::PREFIX_LENGTHS;
use crate::vpc::{self, Vpc};
use crate::vpc_block_public_access;
use aws_api::ec2;
use ipnet::{Ipv4Net, Ipv6Net};
use model::{Error, Id, Kind, Result};
use std::sync::Arc;

/// The zone that a request names, by name or by id; None where it names none.
fn zone<'c>(context: &'c Context, name: Option<&str>, id: Option<&str>) -> Result<Option<&'c Zone>> {
    let zones = &context.region.zones;
    let unknown = |text: &str, parameter: &str| {
        let names: Vec<&str> = zones.iter().map(|zone| zone.name.as_str()).collect();
        Error::invalid_parameter_value(format!(
            "Value ({text}) for parameter {parameter} is invalid. Subnets can currently only be created in the following availability zones: {}.",
            names.join(", ")
        ))
    };
    match (name.filter(|name| !name.is_empty()), id.filter(|id| !id.is_empty())) {
        (Some(_), Some(_)) => Err(Error::invalid_parameter_combination(
            "The parameters availabilityZone and availabilityZoneId cannot be used together",
        )),
        (Some(name), None) => {
            let found = zones.iter().find(|zone| zone.name == name);
            found.map(Some).ok_or_else(|| unknown(name, "availabilityZone"))
        }
        (None, Some(id)) => {
            let found = zones.iter().find(|zone| zone.id == id);
            found.map(Some).ok_or_else(|| unknown(id, "availabilityZoneId"))
        }
        (None, None) => Ok(None),
    }
}

/// Where the VPC has the fewest subnets.
fn any_zone<'c>(context: &'c Context, tables: &Tables, vpc_id: &str) -> Result<&'c Zone> {
    let count =
        |zone: &&Zone| tables.subnets.with("vpc-id", vpc_id).filter(|of| of.zone == zone.name).count();
    context.region.zones.iter().min_by_key(count).ok_or_else(|| Error::internal("the region has no zone"))
}

pub async fn create_subnet(
    context: &Context,
    input: ec2::CreateSubnetRequest,
) -> Result<ec2::CreateSubnetResult> {
    refuse([
        (given(&input.ipv4_ipam_pool_id) || given(&input.ipv6_ipam_pool_id), "IPAM pools are"),
        (input.ipv4_netmask_length.or(input.ipv6_netmask_length).is_some(), "IPAM pools are"),
        (given(&input.outpost_arn), "Outposts are"),
    ])?;
    let (cidr, ipv6) = blocks(&input)?;
    let zone = zone(context, input.availability_zone.as_deref(), input.availability_zone_id.as_deref())?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::Subnet])?;
    let vpc_id = input.vpc_id.unwrap_or_default();
    let subnet = context
        .transact(|tx| {
            let vpc = vpc::depend(tx, &vpc_id)?;
            if let Some(cidr) = cidr {
                check(tx.tables(), &vpc, cidr)?;
            }
            let zone = zone.map_or_else(|| any_zone(context, tx.tables(), &vpc_id), Ok)?;
            let mut subnet = Subnet { tags: tags.of(Kind::Subnet), ..Subnet::new(tx, &vpc, cidr, zone) };
            if let Some(cidr) = ipv6 {
                super::ipv6::check(tx.tables(), &vpc, cidr)?;
                let association_id = tx.new_id(Kind::SubnetCidrAssociation);
                subnet.ipv6 = Some(CidrAssociation { association_id, cidr });
            }
            add(tx, &vpc, &subnet)?;
            Ok(subnet)
        })
        .await?;
    Ok(ec2::CreateSubnetResult { subnet: Some(to_api(context, &context.tables(), &subnet)) })
}

/// Of IPv4, of IPv6 or of both.
fn blocks(input: &ec2::CreateSubnetRequest) -> Result<(Option<Ipv4Net>, Option<Ipv6Net>)> {
    let named = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (ipv4, ipv6) = (named(&input.cidr_block), named(&input.ipv6_cidr_block));
    match (input.ipv6_native.unwrap_or(false), &ipv4, &ipv6) {
        (true, _, None) => {
            return Err(Error::new(
                "MissingParameter",
                "Either 'ipv6CidrBlock' or 'ipv6IpamPoolId' should be provided.",
            ));
        }
        (true, Some(_), Some(_)) => {
            return Err(Error::invalid_parameter_combination(
                "When specifying ipv4 parameters, cidrBlock or ipv4IpamPoolId, you cannot set ipv6Native to true.",
            ));
        }
        (false, None, _) => {
            return Err(Error::new(
                "MissingParameter",
                "Either 'cidrBlock' or 'ipv4IpamPoolId' should be provided.",
            ));
        }
        _ => {}
    }
    let ipv4 = ipv4.map(|text| cidr::ipv4("cidrBlock", &text)).transpose()?;
    let ipv6 = ipv6.map(|text| cidr::ipv6("ipv6CidrBlock", &text)).transpose()?;
    Ok((ipv4, ipv6))
}

/// Whether the VPC has room for the block.
fn check(tables: &Tables, vpc: &Vpc, cidr: Ipv4Net) -> Result<()> {
    let inside = vpc.cidrs().any(|(_, of)| of.contains(&cidr));
    if !PREFIX_LENGTHS.contains(&cidr.prefix_len()) || !inside {
        return Err(Error::new("InvalidSubnet.Range", format!("The CIDR '{cidr}' is invalid.")));
    }
    if !is_free(tables, vpc, cidr) {
        let message = format!("The CIDR '{cidr}' conflicts with another subnet");
        return Err(Error::new("InvalidSubnet.Conflict", message));
    }
    Ok(())
}

fn is_free(tables: &Tables, vpc: &Vpc, cidr: Ipv4Net) -> bool {
    !tables
        .subnets
        .with("vpc-id", &vpc.vpc_id)
        .any(|other| other.cidr.is_some_and(|other| overlap(other, cidr)))
}

/// Makes a checked subnet of the VPC, under its default network ACL.
fn add(tx: &mut Tx<'_>, vpc: &Vpc, subnet: &Subnet) -> Result<()> {
    let count = tx.tables().subnets.count("vpc-id", &vpc.vpc_id) + 1;
    tx.quotas().check_within(quota::SUBNETS_PER_VPC, count)?;
    // Written as it is: who makes another subnet or changes the VPC's blocks at the same moment sees this one.
    tx.put(vpc);
    let acl = tx.tables().network_acls.with("vpc-id", &vpc.vpc_id).find(|acl| acl.is_default).cloned();
    let acl = acl.and_then(|acl| tx.get::<NetworkAcl>(&acl.network_acl_id));
    let mut acl = (*acl.ok_or_else(|| Error::internal("a VPC has no default network ACL"))?).clone();
    acl.associate(tx, &subnet.subnet_id);
    tx.put(&acl);
    tx.create(subnet);
    Ok(())
}

pub async fn create_default_subnet(
    context: &Context,
    input: ec2::CreateDefaultSubnetRequest,
) -> Result<ec2::CreateDefaultSubnetResult> {
    let zone = zone(context, input.availability_zone.as_deref(), input.availability_zone_id.as_deref())?;
    let zone = zone.ok_or_else(|| Error::missing_parameter("availabilityZone"))?;
    let ipv6_only = input.ipv6_native.unwrap_or(false);
    let subnet = context
        .transact(|tx| {
            let default = tx.tables().vpcs.with("is-default", "true").next().cloned();
            let default = default.ok_or_else(|| {
                Error::new("DefaultVpcDoesNotExist", "No default VPC exists for this account in this region.")
            })?;
            let vpc = vpc::depend(tx, &default.vpc_id)?;
            let in_zone = |of: &&Arc<Subnet>| of.default_for_zone && of.zone == zone.name;
            if let Some(other) = tx.tables().subnets.with("vpc-id", &vpc.vpc_id).find(in_zone) {
                return Err(Error::new(
                    "DefaultSubnetAlreadyExistsInAvailabilityZone",
                    format!("'{}' is already the default subnet in {}.", other.subnet_id, zone.name),
                ));
            }
            let no_room = || {
                Error::new(
                    "InsufficientCidrBlocks",
                    "The default VPC has no room for another default subnet.",
                )
            };
            let subnet = if ipv6_only {
                let cidr = super::ipv6::any_free(tx.tables(), &vpc).ok_or_else(no_room)?;
                let association_id = tx.new_id(Kind::SubnetCidrAssociation);
                let ipv6 = Some(CidrAssociation { association_id, cidr });
                Subnet { ipv6, ..default_vpc::new_subnet(tx, &vpc, None, zone) }
            } else {
                let mut cidrs = default_vpc::subnet_cidrs(&vpc);
                let cidr = cidrs.find(|cidr| is_free(tx.tables(), &vpc, *cidr)).ok_or_else(no_room)?;
                default_vpc::new_subnet(tx, &vpc, Some(cidr), zone)
            };
            add(tx, &vpc, &subnet)?;
            Ok(subnet)
        })
        .await?;
    Ok(ec2::CreateDefaultSubnetResult { subnet: Some(to_api(context, &context.tables(), &subnet)) })
}

pub async fn delete_subnet(context: &Context, input: ec2::DeleteSubnetRequest) -> Result<()> {
    let id = Id::parse(Kind::Subnet, input.subnet_id.as_deref().unwrap_or_default())?;
    let in_use = |tables: &Tables| {
        (tables.network_interfaces.count("subnet-id", &id) > 0).then(|| {
            let message = format!("The subnet '{id}' has dependencies and cannot be deleted.");
            Error::new("DependencyViolation", message)
        })
    };
    retire::delete(context, &id, || Id::not_found(Kind::Subnet, &id), in_use, gone).await
}

/// Its associations go with it.
fn gone(tx: &mut Tx<'_>, subnet: &Subnet) {
    route_table::association::forget(tx, &subnet.subnet_id);
    super::reservation::forget(tx, &subnet.subnet_id);
    vpc_block_public_access::forget(tx, &subnet.subnet_id);
    let acl = network_acl::of_subnet(tx.tables(), &subnet.subnet_id).map(|acl| acl.network_acl_id.clone());
    if let Some(acl) = acl.and_then(|id| tx.get::<NetworkAcl>(&id)) {
        let mut acl = (*acl).clone();
        acl.associations.retain(|(_, id)| *id != subnet.subnet_id);
        tx.put(&acl);
    }
}
