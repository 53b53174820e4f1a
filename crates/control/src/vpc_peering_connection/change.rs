//! Peering connections requested, accepted, rejected, deleted.

use super::{Status, VpcPeeringConnection, of_vpc, to_api};
use crate::Context;
use crate::cidr::overlap;
use crate::engine::tags::Specified;
use crate::engine::unsupported::refuse;
use crate::engine::{Tables, Tx, quota};
use crate::vpc::{self, Vpc};
use aws_api::ec2;
use model::{Error, Id, Kind, Result, Timestamp};

/// How many of a VPC's connections are so.
fn count(tables: &Tables, vpc_id: &str, is_so: impl Fn(&VpcPeeringConnection) -> bool) -> usize {
    of_vpc(tables, vpc_id).filter(|peering| is_so(peering)).count()
}

fn do_overlap(one: &Vpc, other: &Vpc) -> bool {
    one.cidrs().any(|(_, cidr)| other.cidrs().any(|(_, of)| overlap(of, cidr)))
}

pub async fn create_vpc_peering_connection(
    context: &Context,
    input: ec2::CreateVpcPeeringConnectionRequest,
) -> Result<ec2::CreateVpcPeeringConnectionResult> {
    let region = context.region.view.region.as_str();
    let elsewhere = |given: &Option<String>, here: &str| {
        given.as_deref().is_some_and(|given| !given.is_empty() && given != here)
    };
    refuse([
        (elsewhere(&input.peer_region, region), "Peering connections between regions are"),
        (
            elsewhere(&input.peer_owner_id, context.account().as_str()),
            "Peering connections between accounts are",
        ),
    ])?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::VpcPeeringConnection])?;
    let requester = input.vpc_id.ok_or_else(|| Error::missing_parameter("vpcId"))?;
    let accepter = input.peer_vpc_id.ok_or_else(|| Error::missing_parameter("peerVpcId"))?;
    let accepter = Id::parse(Kind::Vpc, &accepter)?;
    if *accepter == *requester {
        return Err(Error::invalid_parameter_value("A VPC cannot be peered with itself."));
    }
    let peering = context
        .transact(|tx| {
            let one = vpc::depend(tx, &requester)?;
            let other = vpc::depend(tx, &accepter).ok();
            let now = tx.now();
            let same = |peering: &VpcPeeringConnection| {
                peering.is_live(now) && *peering.peer_of(&requester) == accepter
            };
            if count(tx.tables(), &requester, same) > 0 {
                return Err(Error::new(
                    "VpcPeeringConnectionAlreadyExists",
                    format!("A peering connection between '{requester}' and '{accepter}' already exists."),
                ));
            }
            let pending = |peering: &VpcPeeringConnection| peering.is_live(now) && !peering.is_active();
            let pending = count(tx.tables(), &requester, pending) + 1;
            tx.quotas().check_within(quota::PENDING_PEERINGS_PER_VPC, pending)?;
            let possible = other.as_ref().is_some_and(|other| !do_overlap(&one, other));
            let peering = VpcPeeringConnection {
                peering_id: tx.new_id(Kind::VpcPeeringConnection),
                owner: context.account().clone(),
                requester: one.vpc_id.clone(),
                accepter: accepter.clone(),
                status: if possible { Status::Pending } else { Status::Failed },
                requested_at: now,
                ended_at: (!possible).then_some(now),
                requester_names: false,
                accepter_names: false,
                tags: tags.of(Kind::VpcPeeringConnection),
            };
            // Written as they are: who connects the two as well, or gives one another block, sees this one.
            tx.put(&*one);
            if let Some(other) = &other {
                tx.put(&**other);
            }
            tx.create(&peering);
            Ok(peering)
        })
        .await?;
    let shown = to_api(context, &context.tables(), &peering);
    Ok(ec2::CreateVpcPeeringConnectionResult { vpc_peering_connection: Some(shown) })
}

fn find(tx: &mut Tx<'_>, id: &str) -> Result<VpcPeeringConnection> {
    Id::parse(Kind::VpcPeeringConnection, id)?;
    let peering = tx.get::<VpcPeeringConnection>(id);
    let peering = peering.ok_or_else(|| Id::not_found(Kind::VpcPeeringConnection, id))?;
    Ok((*peering).clone())
}

fn not_so(peering: &VpcPeeringConnection, now: Timestamp, verb: &str) -> Error {
    Error::new(
        "InvalidStateTransition",
        format!(
            "Invalid state transition for {}, attempted to {verb} one that is {}",
            peering.peering_id,
            peering.shown(now).0
        ),
    )
}

pub async fn accept_vpc_peering_connection(
    context: &Context,
    input: ec2::AcceptVpcPeeringConnectionRequest,
) -> Result<ec2::AcceptVpcPeeringConnectionResult> {
    let id = input.vpc_peering_connection_id.unwrap_or_default();
    let peering = context
        .transact(|tx| {
            let mut peering = find(tx, &id)?;
            let now = tx.now();
            if peering.status != Status::Pending || !peering.is_live(now) {
                return Err(not_so(&peering, now, "accept"));
            }
            let (one, other) = (vpc::depend(tx, &peering.requester)?, vpc::depend(tx, &peering.accepter)?);
            for vpc in [&one, &other] {
                let active = count(tx.tables(), &vpc.vpc_id, VpcPeeringConnection::is_active) + 1;
                tx.quotas().check_within(quota::PEERINGS_PER_VPC, active)?;
                tx.put(&**vpc);
            }
            peering.status = Status::Active;
            tx.put(&peering);
            Ok(peering)
        })
        .await?;
    let shown = to_api(context, &context.tables(), &peering);
    Ok(ec2::AcceptVpcPeeringConnectionResult { vpc_peering_connection: Some(shown) })
}

/// Ends one that `may` be ended.
async fn end(
    context: &Context,
    id: Option<String>,
    (verb, status): (&str, Status),
    may: impl Fn(&VpcPeeringConnection, Timestamp) -> bool,
) -> Result<()> {
    let id = id.unwrap_or_default();
    context
        .transact(|tx| {
            let mut peering = find(tx, &id)?;
            let now = tx.now();
            if !may(&peering, now) {
                return Err(not_so(&peering, now, verb));
            }
            peering.status = status;
            peering.ended_at = Some(now);
            tx.put(&peering);
            Ok(())
        })
        .await
}

pub async fn reject_vpc_peering_connection(
    context: &Context,
    input: ec2::RejectVpcPeeringConnectionRequest,
) -> Result<ec2::RejectVpcPeeringConnectionResult> {
    let pending = |peering: &VpcPeeringConnection, now| peering.is_live(now) && !peering.is_active();
    end(context, input.vpc_peering_connection_id, ("reject", Status::Rejected), pending).await?;
    Ok(ec2::RejectVpcPeeringConnectionResult { r#return: Some(true) })
}

/// Routes that lead to it stay, and lead nowhere.
pub async fn delete_vpc_peering_connection(
    context: &Context,
    input: ec2::DeleteVpcPeeringConnectionRequest,
) -> Result<ec2::DeleteVpcPeeringConnectionResult> {
    let live = |peering: &VpcPeeringConnection, now| peering.is_live(now);
    end(context, input.vpc_peering_connection_id, ("delete", Status::Deleted), live).await?;
    Ok(ec2::DeleteVpcPeeringConnectionResult { r#return: Some(true) })
}

pub fn options_to_api(names: bool) -> ec2::VpcPeeringConnectionOptionsDescription {
    ec2::VpcPeeringConnectionOptionsDescription {
        allow_dns_resolution_from_remote_vpc: Some(names),
        allow_egress_from_local_classic_link_to_remote_vpc: Some(false),
        allow_egress_from_local_vpc_to_remote_classic_link: Some(false),
    }
}

pub async fn modify_vpc_peering_connection_options(
    context: &Context,
    input: ec2::ModifyVpcPeeringConnectionOptionsRequest,
) -> Result<ec2::ModifyVpcPeeringConnectionOptionsResult> {
    let sides = [&input.requester_peering_connection_options, &input.accepter_peering_connection_options];
    let classic = sides.iter().copied().flatten().any(|side| {
        side.allow_egress_from_local_classic_link_to_remote_vpc == Some(true)
            || side.allow_egress_from_local_vpc_to_remote_classic_link == Some(true)
    });
    refuse([(classic, "EC2-Classic links are")])?;
    let names = sides.map(|side| side.as_ref().and_then(|side| side.allow_dns_resolution_from_remote_vpc));
    let id = input.vpc_peering_connection_id.unwrap_or_default();
    let peering = context
        .transact(|tx| {
            let mut peering = find(tx, &id)?;
            if !peering.is_active() {
                return Err(not_so(&peering, tx.now(), "modify"));
            }
            peering.requester_names = names[0].unwrap_or(peering.requester_names);
            peering.accepter_names = names[1].unwrap_or(peering.accepter_names);
            tx.put(&peering);
            Ok(peering)
        })
        .await?;
    let options = |side: &Option<_>, names| {
        side.as_ref().map(|_| ec2::PeeringConnectionOptions {
            allow_dns_resolution_from_remote_vpc: Some(names),
            allow_egress_from_local_classic_link_to_remote_vpc: Some(false),
            allow_egress_from_local_vpc_to_remote_classic_link: Some(false),
        })
    };
    Ok(ec2::ModifyVpcPeeringConnectionOptionsResult {
        requester_peering_connection_options: options(sides[0], peering.requester_names),
        accepter_peering_connection_options: options(sides[1], peering.accepter_names),
    })
}
