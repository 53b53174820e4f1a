//! Which table a subnet or an internet gateway uses, and which one all other subnets use. An association is kept in its
//! table; a claim keeps a user from having two.

use super::{Association, BY_ASSOCIATION, BY_GATEWAY, BY_SUBNET, RouteTable, route, target};
use crate::Context;
use crate::engine::Tx;
use crate::engine::unsupported::{given, refuse};
use crate::internet_gateway::InternetGateway;
use crate::subnet;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

const SCOPE: &str = "route-table-of";

pub fn in_state(state: &str) -> ec2::RouteTableAssociationState {
    ec2::RouteTableAssociationState { state: Some(state.into()), ..Default::default() }
}

fn find(tx: &mut Tx<'_>, id: &str) -> Result<RouteTable> {
    Id::parse(Kind::RouteTable, id)?;
    let table = tx.get::<RouteTable>(id).ok_or_else(|| Id::not_found(Kind::RouteTable, id))?;
    Ok((*table).clone())
}

/// The table that has the association.
fn holder(tx: &mut Tx<'_>, association_id: &str) -> Result<RouteTable> {
    Id::parse(Kind::RouteTableAssociation, association_id)?;
    let found = tx.tables().route_tables.with(BY_ASSOCIATION, association_id).next();
    let table = found.and_then(|table| tx.get::<RouteTable>(&table.route_table_id));
    let table = table.ok_or_else(|| Id::not_found(Kind::RouteTableAssociation, association_id))?;
    Ok((*table).clone())
}

impl RouteTable {
    fn associate(&mut self, tx: &Tx<'_>, user_id: &Id) -> Id {
        let association_id = tx.new_id(Kind::RouteTableAssociation);
        self.associations
            .push(Association { association_id: association_id.clone(), user_id: user_id.clone() });
        association_id
    }
}

/// The subnet or internet gateway that a request names, and its VPC.
fn user(tx: &mut Tx<'_>, input: &ec2::AssociateRouteTableRequest) -> Result<(Id, Option<Id>)> {
    let named = |id: &Option<String>| id.clone().filter(|id| !id.is_empty());
    match (named(&input.subnet_id), named(&input.gateway_id)) {
        (Some(id), None) => {
            let subnet = subnet::depend(tx, &id)?;
            Ok((subnet.subnet_id.clone(), Some(subnet.vpc_id.clone())))
        }
        (None, Some(id)) => {
            let gateway = tx.get::<InternetGateway>(&id).ok_or_else(|| target::no_gateway(&id))?;
            // Written as it is: who detaches it at the same moment sees its table.
            tx.put(&*gateway);
            Ok((gateway.internet_gateway_id.clone(), gateway.vpc_id.clone()))
        }
        (None, None) => Err(Error::missing_parameter("subnetId")),
        (Some(_), Some(_)) => Err(Error::invalid_parameter_combination(
            "The parameters subnetId and gatewayId cannot be used together",
        )),
    }
}

pub async fn associate_route_table(
    context: &Context,
    input: ec2::AssociateRouteTableRequest,
) -> Result<ec2::AssociateRouteTableResult> {
    refuse([(given(&input.public_ipv4_pool), "Route tables of address pools are")])?;
    let id = input.route_table_id.clone().unwrap_or_default();
    let association_id = context
        .transact(|tx| {
            let mut table = find(tx, &id)?;
            let (user_id, vpc_id) = user(tx, &input)?;
            if vpc_id.as_ref() != Some(&table.vpc_id) {
                let what = if Id::is_of(Kind::Subnet, &user_id) { "subnet" } else { "network gateway" };
                return Err(Error::invalid_parameter_value(format!(
                    "Route table {id} and {what} {user_id} belong to different networks"
                )));
            }
            if let Some(has) = table.associations.iter().find(|of| of.user_id == user_id) {
                return Ok(has.association_id.clone());
            }
            if !tx.claim(SCOPE, &user_id, &id) {
                return Err(Error::new(
                    "Resource.AlreadyAssociated",
                    format!("the specified association for route table {id} conflicts with an existing association"),
                ));
            }
            let association_id = table.associate(tx, &user_id);
            route::check_edge(tx, &table)?;
            tx.put(&table);
            Ok(association_id)
        })
        .await?;
    Ok(ec2::AssociateRouteTableResult {
        association_id: Some(association_id.to_string()),
        association_state: Some(in_state("associated")),
    })
}

pub async fn disassociate_route_table(
    context: &Context,
    input: ec2::DisassociateRouteTableRequest,
) -> Result<()> {
    let association_id = input.association_id.unwrap_or_default();
    context
        .transact(|tx| {
            let mut table = holder(tx, &association_id)?;
            let at = table.associations.iter().position(|of| *of.association_id == *association_id);
            let Some(at) = at else {
                return Err(Error::invalid_parameter_value(format!(
                    "cannot disassociate the main route table association {association_id}"
                )));
            };
            let of = table.associations.remove(at);
            tx.release(SCOPE, &of.user_id);
            tx.put(&table);
            Ok(())
        })
        .await
}

pub async fn replace_route_table_association(
    context: &Context,
    input: ec2::ReplaceRouteTableAssociationRequest,
) -> Result<ec2::ReplaceRouteTableAssociationResult> {
    let id = input.route_table_id.unwrap_or_default();
    let association_id = input.association_id.unwrap_or_default();
    let new = context
        .transact(|tx| {
            let mut before = holder(tx, &association_id)?;
            let mut after = find(tx, &id)?;
            if before.vpc_id != after.vpc_id {
                return Err(Error::invalid_parameter_value(format!(
                    "Route table {id} and route table {} belong to different networks",
                    before.route_table_id
                )));
            }
            if before.route_table_id == after.route_table_id {
                return Ok(association_id.clone());
            }
            let at = before.associations.iter().position(|of| *of.association_id == *association_id);
            let new = match at {
                Some(at) => after.associate(tx, &before.associations.remove(at).user_id),
                // The main one: there is always one, and only one.
                None => {
                    before.main_association_id = None;
                    let new = tx.new_id(Kind::RouteTableAssociation);
                    after.main_association_id = Some(new.clone());
                    new
                }
            };
            route::check_edge(tx, &after)?;
            tx.put(&before);
            tx.put(&after);
            Ok(new.to_string())
        })
        .await?;
    Ok(ec2::ReplaceRouteTableAssociationResult {
        new_association_id: Some(new),
        association_state: Some(in_state("associated")),
    })
}

/// Lets go of a subnet that is deleted, or of an internet gateway that leaves.
pub fn forget(tx: &mut Tx<'_>, user_id: &Id) {
    let by = if Id::is_of(Kind::Subnet, user_id) { BY_SUBNET } else { BY_GATEWAY };
    let found = tx.tables().route_tables.with(by, user_id).next();
    if let Some(table) = found.and_then(|table| tx.get::<RouteTable>(&table.route_table_id)) {
        let mut table = (*table).clone();
        table.associations.retain(|of| of.user_id != *user_id);
        tx.put(&table);
        tx.release(SCOPE, user_id);
    }
}
