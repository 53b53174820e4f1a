//! Which subnet, addresses and groups a launch asked for: at the instance's level, or in its one network
//! interface specification.

use crate::Context;
use crate::engine::{Tables, Tx};
use crate::instance::Tenancy;
use crate::security_group::SecurityGroup;
use crate::subnet::Subnet;
use crate::vpc::{self, Vpc};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Most groups on one interface (VPC User Guide, "Amazon VPC quotas": 5, adjustable to 16).
const GROUPS_MAX: usize = 16;

/// What a launch wants of the network, checked.
pub struct NetworkRequest {
    /// Any of these: one where the user named it, else the default subnets.
    subnets: Vec<Arc<Subnet>>,
    groups: Groups,
    pub private_ip: Option<Ipv4Addr>,
    /// None leaves it to the subnet.
    pub public_ip: Option<bool>,
    pub description: String,
    pub delete_on_termination: bool,
}

enum Groups {
    /// The VPC's default group.
    Default,
    Ids(Vec<Id>),
}

impl NetworkRequest {
    pub fn check(
        context: &Context,
        tables: &Tables,
        input: &ec2::RunInstancesRequest,
        count: usize,
    ) -> Result<Self> {
        let specification = one_specification(input)?;
        let subnet_id =
            specification.subnet_id.as_deref().or(input.subnet_id.as_deref()).filter(|id| !id.is_empty());
        let wanted_zone = wanted_zone(context, input)?;
        let subnets = match subnet_id {
            Some(id) => vec![named_subnet(tables, id, wanted_zone)?],
            None => default_subnets(context, tables, wanted_zone)?,
        };
        let private_ip = specification.private_ip_address.as_deref().or(input.private_ip_address.as_deref());
        let private_ip = private_ip.map(|text| {
            text.parse::<Ipv4Addr>().map_err(|_| {
                Error::invalid_parameter_value(format!(
                    "Value ({text}) for parameter privateIpAddress is invalid. Invalid IPv4 address."
                ))
            })
        });
        let private_ip = private_ip.transpose()?;
        if private_ip.is_some() && count > 1 {
            return Err(Error::invalid_parameter_combination(
                "A private IP address may only be specified when launching a single instance",
            ));
        }
        let vpc_id = &subnets[0].vpc_id;
        let ids =
            if specification.groups.is_empty() { &input.security_group_ids } else { &specification.groups };
        Ok(NetworkRequest {
            groups: groups(tables, vpc_id, ids, &input.security_groups)?,
            subnets,
            private_ip,
            public_ip: specification.associate_public_ip_address,
            description: specification.description.clone().unwrap_or_default(),
            delete_on_termination: specification.delete_on_termination.unwrap_or(true),
        })
    }

    /// In a VPC of dedicated tenancy no instance shares a host with others.
    pub fn tenancy(&self, tx: &mut Tx<'_>, asked: Tenancy) -> Result<Tenancy> {
        let vpc = vpc::depend(tx, &self.subnets[0].vpc_id)?;
        Ok(if vpc.dedicated && asked == Tenancy::Default { Tenancy::Dedicated } else { asked })
    }

    pub fn zones(&self) -> Vec<String> {
        self.subnets.iter().map(|subnet| subnet.zone.clone()).collect()
    }

    pub fn subnet_in(&self, zone: &str) -> Result<Arc<Subnet>> {
        self.subnets
            .iter()
            .find(|subnet| subnet.zone == zone)
            .cloned()
            .ok_or_else(|| Error::internal(format!("no subnet in {zone}")))
    }

    pub fn security_groups(&self, tables: &Tables, vpc_id: &Id) -> Result<Vec<Id>> {
        match &self.groups {
            Groups::Ids(ids) => Ok(ids.clone()),
            Groups::Default => {
                let group =
                    tables.security_groups.with("vpc-id", vpc_id).find(|group| group.name == "default");
                let group = group
                    .ok_or_else(|| Error::internal(format!("{vpc_id} has no default security group")))?;
                Ok(vec![group.group_id.clone()])
            }
        }
    }
}

/// The request's specification of the primary interface; an empty one where there is none.
fn one_specification(input: &ec2::RunInstancesRequest) -> Result<ec2::InstanceNetworkInterfaceSpecification> {
    let specification = match input.network_interfaces.as_slice() {
        [] => return Ok(Default::default()),
        [one] => one.clone(),
        _ => {
            return Err(Error::new(
                "UnsupportedOperation",
                "More than one network interface at launch is not supported by this cloud.",
            ));
        }
    };
    if input.subnet_id.is_some() {
        return Err(Error::invalid_parameter_combination(
            "Network interfaces and an instance-level subnet ID may not be specified on the same request",
        ));
    }
    if !input.security_group_ids.is_empty() || !input.security_groups.is_empty() {
        return Err(Error::invalid_parameter_combination(
            "Network interfaces and an instance-level security groups may not be specified on the same request",
        ));
    }
    if input.private_ip_address.is_some() {
        return Err(Error::invalid_parameter_combination(
            "Network interfaces and an instance-level private address may not be specified on the same request",
        ));
    }
    if specification.device_index.is_some_and(|index| index != 0) {
        return Err(Error::invalid_parameter_value(
            "Each network interface requires a device index; the first must be 0",
        ));
    }
    let unsupported = specification.network_interface_id.is_some()
        || !specification.private_ip_addresses.is_empty()
        || specification.secondary_private_ip_address_count.unwrap_or(0) > 0
        || specification.ipv6_address_count.unwrap_or(0) > 0
        || !specification.ipv6_addresses.is_empty()
        || specification.interface_type.as_deref().is_some_and(|kind| kind != "interface");
    if unsupported {
        return Err(Error::new(
            "UnsupportedOperation",
            "Existing interfaces, secondary and IPv6 addresses and other interface types are not supported at launch by this cloud.",
        ));
    }
    Ok(specification)
}

/// The zone that the placement names, by name or by id. Terraform names none by an empty text.
fn wanted_zone<'i>(context: &'i Context, input: &'i ec2::RunInstancesRequest) -> Result<Option<&'i str>> {
    let Some(placement) = &input.placement else { return Ok(None) };
    let given = |text: &'i Option<String>| text.as_deref().filter(|text| !text.is_empty());
    let by_id = given(&placement.availability_zone_id).map(|id| {
        let zone = context.region.zones.iter().find(|zone| zone.id == id);
        zone.map(|zone| zone.name.as_str())
            .ok_or_else(|| Error::invalid_parameter_value(format!("Invalid availability zone-id: [{id}]")))
    });
    match (given(&placement.availability_zone), by_id.transpose()?) {
        (Some(name), Some(other)) if name != other => Err(Error::invalid_parameter_combination(
            "The placement's Availability Zone and the one with its zone id are not the same",
        )),
        (name, by_id) => Ok(name.or(by_id)),
    }
}

fn named_subnet(tables: &Tables, id: &str, zone: Option<&str>) -> Result<Arc<Subnet>> {
    Id::parse(Kind::Subnet, id)?;
    let subnet = tables.subnets.find(id).ok_or_else(|| Id::not_found(Kind::Subnet, id))?;
    if zone.is_some_and(|zone| zone != subnet.zone) {
        return Err(Error::invalid_parameter_value(format!(
            "The availability zone of the subnet '{id}' is {}, not the one that the placement names.",
            subnet.zone
        )));
    }
    Ok(subnet.clone())
}

fn default_subnets(context: &Context, tables: &Tables, zone: Option<&str>) -> Result<Vec<Arc<Subnet>>> {
    if let Some(zone) = zone
        && !context.region.zones.iter().any(|known| known.name == zone)
    {
        return Err(Error::invalid_parameter_value(format!("Invalid availability zone: [{zone}]")));
    }
    let subnets: Vec<_> = tables
        .subnets
        .with("default-for-az", "true")
        .filter(|subnet| zone.is_none_or(|zone| subnet.zone == zone))
        .cloned()
        .collect();
    if subnets.is_empty() {
        return Err(match zone {
            Some(zone) => {
                Error::new("MissingInput", format!("No default subnet for availability zone: '{zone}'."))
            }
            None => Error::new("VPCIdNotSpecified", "No default VPC for this user."),
        });
    }
    let mut subnets = subnets;
    subnets.sort_by(|one, other| one.zone.cmp(&other.zone));
    Ok(subnets)
}

fn groups(tables: &Tables, vpc_id: &Id, ids: &[String], names: &[String]) -> Result<Groups> {
    if !ids.is_empty() && !names.is_empty() {
        return Err(Error::invalid_parameter_combination(
            "The parameter groupName cannot be used with the parameter groupId",
        ));
    }
    if ids.len().max(names.len()) > GROUPS_MAX {
        return Err(Error::new(
            "SecurityGroupsPerInterfaceLimitExceeded",
            format!("You have reached the maximum of {GROUPS_MAX} security groups per network interface."),
        ));
    }
    let mut found: Vec<Id> = Vec::new();
    for id in ids {
        let group_id = Id::parse(Kind::SecurityGroup, id)?;
        let group: &Arc<SecurityGroup> =
            tables.security_groups.find(id).ok_or_else(|| Id::not_found(Kind::SecurityGroup, id))?;
        if group.vpc_id != *vpc_id {
            return Err(Error::new(
                "InvalidParameter",
                format!("Security group {id} and the subnet belong to different networks."),
            ));
        }
        found.push(group_id);
    }
    for name in names {
        let in_default_vpc = tables.vpcs.find(vpc_id).is_some_and(|vpc: &Arc<Vpc>| vpc.is_default);
        if !in_default_vpc {
            return Err(Error::invalid_parameter_combination(
                "The parameter groupName cannot be used with the parameter subnet",
            ));
        }
        let group = tables.security_groups.with("group-name", name).find(|group| group.vpc_id == *vpc_id);
        let group = group.ok_or_else(|| {
            Error::new(
                "InvalidGroup.NotFound",
                format!("The security group '{name}' does not exist in default VPC '{vpc_id}'"),
            )
        })?;
        found.push(group.group_id.clone());
    }
    found.sort();
    found.dedup();
    Ok(if found.is_empty() { Groups::Default } else { Groups::Ids(found) })
}
