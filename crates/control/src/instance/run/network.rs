//! Which subnets, addresses and groups a launch asked for: at the instance's level, or in its network interface
//! specifications.

use crate::Context;
use crate::engine::unsupported::refuse;
use crate::engine::{Tables, Tx};
use crate::instance::Tenancy;
use crate::instance_type::{self, InterfaceLimits};
use crate::network_interface::attach::{self, Place};
use crate::network_interface::groups::{self, Groups};
use crate::network_interface::{
    Asked, AskedIpv6, InterfaceAttachment, NetworkInterface, Purpose, queues, tracking,
};
use crate::subnet::{self, Subnet};
use crate::{description, vpc};
use aws_api::ec2;
use ipnet::Ipv4Net;
use model::{Error, Id, Kind, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a launch wants of the network, checked.
pub struct NetworkRequest {
    /// Any of these: one where the user named it, else the default subnets.
    subnets: Vec<Arc<Subnet>>,
    /// In the order of their places; the primary one first.
    interfaces: Vec<Wanted>,
    limits: InterfaceLimits,
}

/// An interface that an instance starts with.
struct Wanted {
    place: Place,
    delete_on_termination: bool,
    ena_queues: Option<u16>,
    source: Source,
}

enum Source {
    Existing(Id),
    New {
        /// The instance's where None.
        subnet: Option<Arc<Subnet>>,
        groups: Groups,
        asked: Asked,
        purpose: Purpose,
        description: String,
        tracking: datapath::Tracking,
        /// None leaves it to the subnet.
        public_ip: Option<bool>,
    },
}

impl NetworkRequest {
    pub fn check(
        context: &Context,
        tables: &Tables,
        input: &ec2::RunInstancesRequest,
        instance_type: &str,
        count: usize,
    ) -> Result<Self> {
        let specifications = specifications(input)?;
        let limits = instance_type::performance(tables, instance_type).interfaces;
        let mut specified = Vec::with_capacity(specifications.len());
        for specification in &specifications {
            let index = specification.device_index.ok_or_else(no_primary)?;
            let place = Place::new(specification.network_card_index, index, &limits)?;
            specified.push((place, specification));
        }
        specified.sort_by_key(|(place, _)| *place);
        let mut places: Vec<Place> = specified.iter().map(|(place, _)| *place).collect();
        places.dedup();
        if places.len() < specified.len() {
            return Err(Error::invalid_parameter_value(
                "Each network interface requires a unique device index.",
            ));
        }
        let (primary, specification) = specified.first().ok_or_else(no_primary)?;
        if !primary.is_primary() {
            return Err(no_primary());
        }
        let purposes = specified.iter().map(|(place, one)| Ok((*place, purpose(tables, one)?)));
        attach::check_interfaces(&purposes.collect::<Result<Vec<_>>>()?, instance_type, &limits)?;
        let wanted_zone = wanted_zone(context, input)?;
        let subnets = match subnet_id(tables, specification)? {
            Some(id) => vec![named_subnet(tables, &id, wanted_zone)?],
            None => default_subnets(context, tables, wanted_zone)?,
        };
        let names = &input.security_groups;
        let interfaces = specified.iter().map(|(place, specification)| {
            let wanted = Wanted::check(tables, *place, specification, &subnets[0], names)?;
            if count > 1 && wanted.is_particular() {
                return Err(Error::invalid_parameter_combination(
                    "A network interface or a private IP address may only be specified when launching a single instance",
                ));
            }
            if specifications.len() > 1 && specification.associate_public_ip_address == Some(true) {
                return Err(Error::invalid_parameter_combination(
                    "The associatePublicIPAddress parameter cannot be specified when launching with multiple network interfaces.",
                ));
            }
            Ok(wanted)
        });
        let interfaces: Vec<Wanted> = interfaces.collect::<Result<_>>()?;
        let asked: Vec<_> = interfaces.iter().map(|wanted| (wanted.place, wanted.ena_queues)).collect();
        queues::check(&asked, instance_type, &limits)?;
        Ok(NetworkRequest { interfaces, subnets, limits })
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

    /// Makes or takes the interfaces of an instance.
    pub fn make(
        &self,
        tx: &mut Tx<'_>,
        instance_id: &Id,
        subnet: &Arc<Subnet>,
        pool: Ipv4Net,
        tags: &crate::engine::Tags,
    ) -> Result<Vec<Id>> {
        let mut ids = Vec::with_capacity(self.interfaces.len());
        let mut elsewhere = BTreeSet::new();
        for wanted in &self.interfaces {
            let attachment = InterfaceAttachment {
                delete_on_termination: wanted.delete_on_termination,
                ena_queues: wanted.ena_queues,
                ..InterfaceAttachment::new(tx, instance_id, wanted.place)
            };
            let interface = match &wanted.source {
                Source::Existing(id) => {
                    let mut interface = crate::network_interface::own(tx, id)?;
                    attach::bind(&mut interface, &attachment, &self.limits)?;
                    interface.assign(tx, pool)?;
                    tx.put(&interface);
                    interface
                }
                Source::New { subnet: other, groups, asked, purpose, description, tracking, public_ip } => {
                    let subnet = subnet::depend(tx, &other.as_ref().unwrap_or(subnet).subnet_id)?;
                    groups::depend(tx, groups)?;
                    if *public_ip == Some(true) {
                        subnet.ipv4()?;
                    }
                    let by_subnet = self.interfaces.len() == 1 && subnet.map_public_ip_on_launch;
                    let mut interface = NetworkInterface {
                        description: description.as_str().into(),
                        security_groups: groups.clone(),
                        purpose: *purpose,
                        tracking: *tracking,
                        wants_public_ip: public_ip.unwrap_or(by_subnet),
                        tags: tags.clone(),
                        ..NetworkInterface::new(tx, &subnet, asked)?
                    };
                    attach::bind(&mut interface, &attachment, &self.limits)?;
                    interface.assign(tx, pool)?;
                    tx.create(&interface);
                    interface
                }
            };
            elsewhere.extend(
                (interface.zone(tx.tables()) != subnet.zone).then_some(interface.interface_id.clone()),
            );
            ids.push(interface.interface_id);
        }
        match elsewhere.first() {
            Some(id) => Err(Error::invalid_parameter_combination(format!(
                "The network interface {id} is not in the instance's Availability Zone, {}",
                subnet.zone
            ))),
            None => Ok(ids),
        }
    }
}

impl Wanted {
    fn check(
        tables: &Tables,
        place: Place,
        specification: &ec2::InstanceNetworkInterfaceSpecification,
        subnet: &Arc<Subnet>,
        group_names: &[String],
    ) -> Result<Wanted> {
        let express = specification.ena_srd_specification.as_ref().and_then(|of| of.ena_srd_enabled);
        refuse([
            (specification.associate_carrier_ip_address == Some(true), "Carrier IP addresses are"),
            (express == Some(true), "ENA Express is"),
        ])?;
        let ena_queues = queues::asked(specification.ena_queue_count)?;
        if let Some(id) = &specification.network_interface_id {
            let id = Id::parse(Kind::NetworkInterface, id)?;
            check_existing(specification)?;
            let source = Source::Existing(id);
            return Ok(Wanted { place, delete_on_termination: false, ena_queues, source });
        }
        let other =
            specification.subnet_id.as_deref().map(|id| named_subnet(tables, id, None)).transpose()?;
        let vpc_id = &other.as_ref().unwrap_or(subnet).vpc_id;
        let prefixes: Vec<_> =
            specification.ipv4_prefixes.iter().map(|prefix| prefix.ipv4_prefix.as_deref()).collect();
        let text = specification.description.clone().unwrap_or_default();
        description::check(&text)?;
        let purpose = Purpose::asked(specification.interface_type.as_deref())?;
        Ok(Wanted {
            place,
            delete_on_termination: specification.delete_on_termination.unwrap_or(true),
            ena_queues,
            source: Source::New {
                groups: groups::resolve(tables, vpc_id, &specification.groups, group_names)?,
                asked: Asked::new(
                    specification.private_ip_address.as_deref(),
                    &specification.private_ip_addresses,
                    specification.secondary_private_ip_address_count,
                    &prefixes,
                    specification.ipv4_prefix_count,
                    AskedIpv6::new(
                        &specification.ipv6_addresses,
                        specification.ipv6_address_count,
                        &specification.ipv6_prefixes,
                        specification.ipv6_prefix_count,
                        specification.primary_ipv6,
                    )?,
                )?
                .of_purpose(purpose)?,
                purpose,
                description: text,
                tracking: tracking::asked(
                    Default::default(),
                    specification.connection_tracking_specification.as_ref(),
                )?,
                public_ip: specification.associate_public_ip_address,
                subnet: other.filter(|other| other.subnet_id != subnet.subnet_id),
            },
        })
    }

    fn is_particular(&self) -> bool {
        match &self.source {
            Source::Existing(_) => true,
            Source::New { asked, .. } => asked.is_particular(),
        }
    }
}

/// What there is of an interface can't be asked for anew.
fn check_existing(specification: &ec2::InstanceNetworkInterfaceSpecification) -> Result<()> {
    let beside = [
        ("interface type", specification.interface_type.is_some()),
        ("subnet", specification.subnet_id.is_some()),
        ("security groups", !specification.groups.is_empty()),
        ("private IP addresses", specification.private_ip_address.is_some()),
        ("private IP addresses", !specification.private_ip_addresses.is_empty()),
        ("private IP addresses", specification.secondary_private_ip_address_count.unwrap_or(0) > 0),
        ("prefixes", !specification.ipv4_prefixes.is_empty()),
        ("prefixes", specification.ipv4_prefix_count.unwrap_or(0) > 0),
        ("IPv6 addresses", !specification.ipv6_addresses.is_empty()),
        ("IPv6 addresses", specification.ipv6_address_count.unwrap_or(0) > 0),
        ("IPv6 prefixes", !specification.ipv6_prefixes.is_empty()),
        ("IPv6 prefixes", specification.ipv6_prefix_count.unwrap_or(0) > 0),
        ("primary IPv6 address", specification.primary_ipv6 == Some(true)),
        ("public IP address", specification.associate_public_ip_address.is_some()),
        ("connection tracking", specification.connection_tracking_specification.is_some()),
        ("deletion on termination", specification.delete_on_termination == Some(true)),
    ];
    match beside.into_iter().find(|(_, given)| *given) {
        Some((what, _)) => Err(Error::invalid_parameter_combination(format!(
            "A network interface may not specify both a network interface ID and its {what}"
        ))),
        None => Ok(()),
    }
}

/// Of an interface that there is, or of the one that is asked for.
fn purpose(tables: &Tables, specification: &ec2::InstanceNetworkInterfaceSpecification) -> Result<Purpose> {
    let existing = specification.network_interface_id.as_ref();
    match existing.and_then(|id| tables.network_interfaces.find(id)) {
        Some(interface) => Ok(interface.purpose),
        None => Purpose::asked(specification.interface_type.as_deref()),
    }
}

fn no_primary() -> Error {
    Error::invalid_parameter_value("Each network interface requires a device index; the first must be 0")
}

/// The request's specifications; one made of what it says of the instance where there is none.
fn specifications(
    input: &ec2::RunInstancesRequest,
) -> Result<Vec<ec2::InstanceNetworkInterfaceSpecification>> {
    if input.network_interfaces.is_empty() {
        return Ok(vec![ec2::InstanceNetworkInterfaceSpecification {
            device_index: Some(0),
            subnet_id: input.subnet_id.clone().filter(|id| !id.is_empty()),
            groups: input.security_group_ids.clone(),
            private_ip_address: input.private_ip_address.clone(),
            ipv6_addresses: input.ipv6_addresses.clone(),
            ipv6_address_count: input.ipv6_address_count,
            primary_ipv6: input.enable_primary_ipv6,
            ..Default::default()
        }]);
    }
    let beside = [
        ("subnet ID", input.subnet_id.is_some()),
        ("security groups", !input.security_group_ids.is_empty() || !input.security_groups.is_empty()),
        ("private address", input.private_ip_address.is_some()),
        ("IPv6 addresses", !input.ipv6_addresses.is_empty() || input.ipv6_address_count.is_some()),
        ("primary IPv6 address", input.enable_primary_ipv6.is_some()),
    ];
    if let Some((what, _)) = beside.into_iter().find(|(_, given)| *given) {
        return Err(Error::invalid_parameter_combination(format!(
            "Network interfaces and an instance-level {what} may not be specified on the same request"
        )));
    }
    // The primary one may leave its index out where it is the only one.
    let mut specifications = input.network_interfaces.clone();
    if let [one] = specifications.as_mut_slice() {
        one.device_index.get_or_insert(0);
    }
    Ok(specifications)
}

/// Of the primary interface: where the instance will be.
fn subnet_id(
    tables: &Tables,
    primary: &ec2::InstanceNetworkInterfaceSpecification,
) -> Result<Option<String>> {
    let Some(id) = &primary.network_interface_id else { return Ok(primary.subnet_id.clone()) };
    Id::parse(Kind::NetworkInterface, id)?;
    let interface = tables.network_interfaces.find(id);
    let interface = interface.ok_or_else(|| Id::not_found(Kind::NetworkInterface, id))?;
    Ok(Some(interface.subnet_id.to_string()))
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
