//! Regions, Availability Zones, and what an account may have.

use crate::Context;
use crate::engine::filter;
use aws_api::ec2;
use model::{Error, Region, Result};
use std::collections::BTreeSet;

/// The id of a region's zone with an index, as `use1-az1` (AWS RAM User Guide, "Availability Zone IDs").
/// Regions that are not AWS's are shortened in the same way.
pub fn zone_id(region: &Region, index: usize) -> String {
    format!("{}-az{}", short_name(region.as_str()), index + 1)
}

/// `us-east-1` to `use1`, `ap-northeast-1` to `apne1`. The southern and northern halves of an east or west are
/// `se`, `ne` and so on; `central` is `c`.
fn short_name(region: &str) -> String {
    region
        .split('-')
        .map(|part| match part {
            "northeast" => "ne",
            "northwest" => "nw",
            "southeast" => "se",
            "southwest" => "sw",
            "north" => "n",
            "south" => "s",
            "east" => "e",
            "west" => "w",
            "central" => "c",
            other => other,
        })
        .collect()
}

/// Regions that an account has without asking: those from before 20 March 2019
/// (AWS General Reference, "Regions and Zones").
const WITHOUT_OPT_IN: &[&str] = &[
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

/// Here every region may be used; those that AWS would want to be asked for count as opted in.
fn opt_in_status(region: &str) -> &'static str {
    if WITHOUT_OPT_IN.contains(&region) || !Region::AWS.contains(&region) {
        "opt-in-not-required"
    } else {
        "opted-in"
    }
}

pub async fn describe_regions(
    context: &Context,
    input: ec2::DescribeRegionsRequest,
) -> Result<ec2::DescribeRegionsResult> {
    let mut names: BTreeSet<&str> = BTreeSet::from([context.options.region.as_str()]);
    if context.options.simulate {
        names.extend(Region::AWS);
    }
    if let Some(unknown) = input.region_names.iter().find(|name| !names.contains(name.as_str())) {
        return Err(Error::invalid_parameter_value(format!("Invalid region: {unknown}")));
    }
    let filters = filter::parse(&input.filters)?;
    let mut regions = Vec::new();
    for name in names {
        let endpoint = format!("ec2.{name}.amazonaws.com");
        let passes = filter::passes(&filters, |field, values| match field {
            "endpoint" => filter::one(values, endpoint.clone()),
            "opt-in-status" => filter::one(values, opt_in_status(name)),
            "region-name" => filter::one(values, name),
            _ => false,
        })?;
        if passes && (input.region_names.is_empty() || input.region_names.iter().any(|wanted| wanted == name))
        {
            regions.push(ec2::Region {
                region_name: Some(name.to_owned()),
                endpoint: Some(endpoint),
                opt_in_status: Some(opt_in_status(name).into()),
                ..Default::default()
            });
        }
    }
    Ok(ec2::DescribeRegionsResult { regions })
}

pub async fn describe_availability_zones(
    context: &Context,
    input: ec2::DescribeAvailabilityZonesRequest,
) -> Result<ec2::DescribeAvailabilityZonesResult> {
    let zones = &context.region.zones;
    if let Some(unknown) = input.zone_names.iter().find(|name| !zones.iter().any(|zone| zone.name == **name))
    {
        return Err(Error::invalid_parameter_value(format!("Invalid availability zone: [{unknown}]")));
    }
    if let Some(unknown) = input.zone_ids.iter().find(|id| !zones.iter().any(|zone| zone.id == **id)) {
        return Err(Error::invalid_parameter_value(format!("Invalid availability zone-id: [{unknown}]")));
    }
    let filters = filter::parse(&input.filters)?;
    let region = context.region.view.region.as_str();
    let group = format!("{region}-zg-1");
    let mut found = Vec::new();
    for zone in zones {
        let passes = filter::passes(&filters, |field, values| match field {
            "group-long-name" | "message" | "parent-zone-id" | "parent-zone-name" => true,
            "group-name" => filter::one(values, group.as_str()),
            "network-border-group" | "region-name" => filter::one(values, region),
            "opt-in-status" => filter::one(values, "opt-in-not-required"),
            "state" => filter::one(values, "available"),
            "zone-id" => filter::one(values, zone.id.as_str()),
            "zone-name" => filter::one(values, zone.name.as_str()),
            "zone-type" => filter::one(values, "availability-zone"),
            _ => false,
        })?;
        let named = input.zone_names.is_empty() && input.zone_ids.is_empty()
            || input.zone_names.contains(&zone.name)
            || input.zone_ids.contains(&zone.id);
        if passes && named {
            found.push(ec2::AvailabilityZone {
                state: Some("available".into()),
                opt_in_status: Some("opt-in-not-required".into()),
                region_name: Some(region.to_owned()),
                zone_name: Some(zone.name.clone()),
                zone_id: Some(zone.id.clone()),
                group_name: Some(group.clone()),
                network_border_group: Some(region.to_owned()),
                zone_type: Some("availability-zone".into()),
                ..Default::default()
            });
        }
    }
    Ok(ec2::DescribeAvailabilityZonesResult { availability_zones: found })
}

/// The bound of one launch: there is no other on how many instances an account has.
const INSTANCES_MAX: u32 = 1000;

/// EC2's documented attributes. `default-vpc` names the VPC that there is.
pub async fn describe_account_attributes(
    context: &Context,
    input: ec2::DescribeAccountAttributesRequest,
) -> Result<ec2::DescribeAccountAttributesResult> {
    let tables = context.tables();
    let default_vpc = tables.vpcs.with("is-default", "true").next().map(|vpc| vpc.vpc_id.to_string());
    let attributes = [
        ("supported-platforms", "VPC".to_owned()),
        ("default-vpc", default_vpc.unwrap_or_else(|| "none".into())),
        ("max-instances", INSTANCES_MAX.to_string()),
        ("vpc-max-security-groups-per-interface", "5".into()),
        ("max-elastic-ips", "5".into()),
        ("vpc-max-elastic-ips", "5".into()),
    ];
    let wanted =
        |name: &str| input.attribute_names.is_empty() || input.attribute_names.iter().any(|one| one == name);
    Ok(ec2::DescribeAccountAttributesResult {
        account_attributes: attributes
            .into_iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, value)| ec2::AccountAttribute {
                attribute_name: Some(name.into()),
                attribute_values: vec![ec2::AccountAttributeValue { attribute_value: Some(value) }],
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_ids_are_awss() {
        for (region, index, expected) in [
            ("us-east-1", 0, "use1-az1"),
            ("eu-west-1", 1, "euw1-az2"),
            ("eu-central-1", 2, "euc1-az3"),
            ("ap-northeast-1", 0, "apne1-az1"),
            ("ap-southeast-2", 0, "apse2-az1"),
            ("ap-south-1", 0, "aps1-az1"),
            ("ca-central-1", 0, "cac1-az1"),
            ("sa-east-1", 0, "sae1-az1"),
            ("me-south-1", 0, "mes1-az1"),
            ("il-central-1", 0, "ilc1-az1"),
            ("mx-central-1", 0, "mxc1-az1"),
            ("af-south-1", 0, "afs1-az1"),
        ] {
            assert_eq!(zone_id(&region.parse().unwrap(), index), expected);
        }
    }

    #[test]
    fn no_two_regions_share_a_short_name() {
        let names: BTreeSet<String> = Region::AWS.iter().map(|region| short_name(region)).collect();
        assert_eq!(names.len(), Region::AWS.len());
    }
}
