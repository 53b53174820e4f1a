//! Which table a subnet uses, and which one all others use. An association is kept in its table; a claim keeps a
//! subnet from having two.

use super::{Association, BY_ASSOCIATION, BY_SUBNET, RouteTable};
use crate::Context;
use crate::engine::Tx;
use crate::engine::unsupported::{given, refuse};
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
    fn associate(&mut self, tx: &Tx<'_>, subnet_id: &Id) -> Id {
        let association_id = tx.new_id(Kind::RouteTableAssociation);
        self.associations
            .push(Association { association_id: association_id.clone(), subnet_id: subnet_id.clone() });
        association_id
    }
}

pub async fn associate_route_table(
    context: &Context,
    input: ec2::AssociateRouteTableRequest,
) -> Result<ec2::AssociateRouteTableResult> {
    refuse([
        (given(&input.gateway_id), "Route tables of gateways are"),
        (given(&input.public_ipv4_pool), "Route tables of address pools are"),
    ])?;
    let id = input.route_table_id.unwrap_or_default();
    let subnet_id = input.subnet_id.ok_or_else(|| Error::missing_parameter("subnetId"))?;
    let association_id = context
        .transact(|tx| {
            let mut table = find(tx, &id)?;
            let subnet = subnet::depend(tx, &subnet_id)?;
            if subnet.vpc_id != table.vpc_id {
                return Err(Error::invalid_parameter_value(format!(
                    "Route table {id} and subnet {subnet_id} belong to different networks"
                )));
            }
            if let Some(has) = table.associations.iter().find(|of| of.subnet_id == subnet.subnet_id) {
                return Ok(has.association_id.clone());
            }
            if !tx.claim(SCOPE, &subnet_id, &id) {
                return Err(Error::new(
                    "Resource.AlreadyAssociated",
                    format!("the specified association for route table {id} conflicts with an existing association"),
                ));
            }
            let association_id = table.associate(tx, &subnet.subnet_id);
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
            tx.release(SCOPE, &of.subnet_id);
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
                Some(at) => after.associate(tx, &before.associations.remove(at).subnet_id),
                // The main one: there is always one, and only one.
                None => {
                    before.main_association_id = None;
                    let new = tx.new_id(Kind::RouteTableAssociation);
                    after.main_association_id = Some(new.clone());
                    new
                }
            };
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

/// Lets go of a subnet that is deleted.
pub fn forget(tx: &mut Tx<'_>, subnet_id: &Id) {
    let found = tx.tables().route_tables.with(BY_SUBNET, subnet_id).next();
    if let Some(table) = found.and_then(|table| tx.get::<RouteTable>(&table.route_table_id)) {
        let mut table = (*table).clone();
        table.associations.retain(|of| of.subnet_id != *subnet_id);
        tx.put(&table);
        tx.release(SCOPE, subnet_id);
    }
}
