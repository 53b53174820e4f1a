//! CIDR reservations: parts of a subnet that no address is chosen from by itself
//! (VPC User Guide, "Subnet CIDR reservations").

use super::{Subnet, depend};
use crate::Context;
use crate::cidr;
use crate::description;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::tags::Specified;
use crate::engine::{Tables, Tags, Tx, filter};
use aws_api::ec2;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{AccountId, Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubnetCidrReservation {
    pub reservation_id: Id,
    pub owner: AccountId,
    pub subnet_id: Id,
    pub cidr: IpNet,
    /// Prefixes are chosen from it; else only what is asked for by its address is in it.
    pub for_prefixes: bool,
    pub description: Option<String>,
    pub tags: Tags,
}

impl SubnetCidrReservation {
    fn kind(&self) -> &'static str {
        if self.for_prefixes { "prefix" } else { "explicit" }
    }
}

impl Record for SubnetCidrReservation {
    const TABLE: &'static str = "subnet-cidr-reservation";
    const INDEXED: &'static [&'static str] = &["subnet-id"];

    fn id(&self) -> &str {
        &self.reservation_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "reservationType" => filter::one(values, self.kind()),
            "subnet-id" => filter::one(values, self.subnet_id.as_str()),
            _ => false,
        }
    }
}

/// The IPv4 ranges of a subnet that no address is chosen from; with `for_prefixes`, those that prefixes are.
pub fn reserved(tables: &Tables, subnet_id: &str, for_prefixes: bool) -> Vec<Ipv4Net> {
    let cidrs = of_subnet(tables, subnet_id, for_prefixes);
    cidrs.filter_map(|cidr| if let IpNet::V4(cidr) = cidr { Some(cidr) } else { None }).collect()
}

/// The same of IPv6.
pub fn reserved6(tables: &Tables, subnet_id: &str, for_prefixes: bool) -> impl Iterator<Item = Ipv6Net> {
    let cidrs = of_subnet(tables, subnet_id, for_prefixes);
    cidrs.filter_map(|cidr| if let IpNet::V6(cidr) = cidr { Some(cidr) } else { None })
}

fn of_subnet(tables: &Tables, subnet_id: &str, for_prefixes: bool) -> impl Iterator<Item = IpNet> {
    let reservations = tables.subnet_cidr_reservations.with("subnet-id", subnet_id);
    reservations.filter(move |one| !for_prefixes || one.for_prefixes).map(|one| one.cidr)
}

/// Lets go of a subnet that is deleted.
pub fn forget(tx: &mut Tx<'_>, subnet_id: &str) {
    for reservation in tx.tables().subnet_cidr_reservations.with("subnet-id", subnet_id) {
        tx.delete::<SubnetCidrReservation>(&reservation.reservation_id);
    }
}

fn to_api(reservation: &SubnetCidrReservation) -> ec2::SubnetCidrReservation {
    ec2::SubnetCidrReservation {
        subnet_cidr_reservation_id: Some(reservation.reservation_id.to_string()),
        subnet_id: Some(reservation.subnet_id.to_string()),
        cidr: Some(reservation.cidr.to_string()),
        reservation_type: Some(reservation.kind().into()),
        owner_id: Some(reservation.owner.to_string()),
        description: reservation.description.clone(),
        tags: reservation.tags.to_api(),
    }
}

/// Whether the subnet has the range to reserve.
fn check(tables: &Tables, subnet: &Subnet, wanted: IpNet) -> Result<()> {
    if !subnet.networks().any(|of| of.contains(&wanted)) {
        return Err(Error::invalid_parameter_value(format!(
            "The CIDR '{wanted}' is not within the CIDR blocks of the subnet '{}'.",
            subnet.subnet_id
        )));
    }
    let mut others = tables.subnet_cidr_reservations.with("subnet-id", &subnet.subnet_id);
    match others.find(|other| other.cidr.contains(&wanted) || wanted.contains(&other.cidr)) {
        Some(other) => Err(Error::invalid_parameter_value(format!(
            "The CIDR '{wanted}' overlaps the reservation '{}'.",
            other.reservation_id
        ))),
        None => Ok(()),
    }
}

pub async fn create_subnet_cidr_reservation(
    context: &Context,
    input: ec2::CreateSubnetCidrReservationRequest,
) -> Result<ec2::CreateSubnetCidrReservationResult> {
    let text = input.cidr.as_deref().unwrap_or_default();
    let wanted = text.parse::<IpNet>().map_err(|_| cidr::malformed("cidr", text))?.trunc();
    let for_prefixes = match input.reservation_type.as_deref().unwrap_or_default() {
        "prefix" => true,
        "explicit" => false,
        other => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter reservationType is invalid. Expected 'prefix' or 'explicit'."
            )));
        }
    };
    description::check(input.description.as_deref().unwrap_or_default())?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::SubnetCidrReservation])?;
    let subnet_id = input.subnet_id.unwrap_or_default();
    let reservation = context
        .transact(|tx| {
            let subnet = depend(tx, &subnet_id)?;
            check(tx.tables(), &subnet, wanted)?;
            // Of two that are made at once, the second one sees the first.
            tx.put(&*subnet);
            let reservation = SubnetCidrReservation {
                reservation_id: tx.new_id(Kind::SubnetCidrReservation),
                owner: context.account().clone(),
                subnet_id: subnet.subnet_id.clone(),
                cidr: wanted,
                for_prefixes,
                description: input.description.clone().filter(|text| !text.is_empty()),
                tags: tags.of(Kind::SubnetCidrReservation),
            };
            tx.create(&reservation);
            Ok(reservation)
        })
        .await?;
    Ok(ec2::CreateSubnetCidrReservationResult { subnet_cidr_reservation: Some(to_api(&reservation)) })
}

pub async fn get_subnet_cidr_reservations(
    context: &Context,
    input: ec2::GetSubnetCidrReservationsRequest,
) -> Result<ec2::GetSubnetCidrReservationsResult> {
    let tables = context.tables();
    let id = Id::parse(Kind::Subnet, input.subnet_id.as_deref().unwrap_or_default())?;
    tables.subnets.find(&id).ok_or_else(|| Id::not_found(Kind::Subnet, &id))?;
    let mut filters = input.filters;
    filters.push(ec2::Filter { name: Some("subnet-id".into()), values: vec![id.to_string()] });
    let query = Query {
        filters: &filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ..Query::default()
    };
    let page = describe::select(
        &tables.subnet_cidr_reservations,
        Kind::SubnetCidrReservation,
        &query,
        |_| true,
        |_, _, _| false,
    )?;
    let of = |ipv4: bool| {
        let of_family = page.records.iter().filter(|one| matches!(one.cidr, IpNet::V4(_)) == ipv4);
        of_family.map(|reservation| to_api(reservation)).collect()
    };
    Ok(ec2::GetSubnetCidrReservationsResult {
        subnet_ipv4_cidr_reservations: of(true),
        subnet_ipv6_cidr_reservations: of(false),
        next_token: page.next_token,
    })
}

pub async fn delete_subnet_cidr_reservation(
    context: &Context,
    input: ec2::DeleteSubnetCidrReservationRequest,
) -> Result<ec2::DeleteSubnetCidrReservationResult> {
    let id = input.subnet_cidr_reservation_id.unwrap_or_default();
    Id::parse(Kind::SubnetCidrReservation, &id)?;
    let deleted = context
        .transact(|tx| {
            let found = tx.get::<SubnetCidrReservation>(&id);
            let found = found.ok_or_else(|| Id::not_found(Kind::SubnetCidrReservation, &id))?;
            tx.delete::<SubnetCidrReservation>(&id);
            Ok(found)
        })
        .await?;
    Ok(ec2::DeleteSubnetCidrReservationResult { deleted_subnet_cidr_reservation: Some(to_api(&deleted)) })
}
