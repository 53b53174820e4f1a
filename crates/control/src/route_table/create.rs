//! CreateRouteTable, DeleteRouteTable.

use super::{RouteTable, to_api};
use crate::Context;
use crate::engine::quota;
use crate::engine::tags::Specified;
use crate::vpc;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

pub async fn create_route_table(
    context: &Context,
    input: ec2::CreateRouteTableRequest,
) -> Result<ec2::CreateRouteTableResult> {
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::RouteTable])?;
    let vpc_id = input.vpc_id.unwrap_or_default();
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let vpc = vpc::depend(tx, &vpc_id)?;
            let count = tx.tables().route_tables.count("vpc-id", &vpc_id) + 1;
            tx.quotas().check_within(quota::ROUTE_TABLES_PER_VPC, count)?;
            let mut table = RouteTable::new(tx, context.account(), &vpc);
            table.tags = tags.of(Kind::RouteTable);
            tx.create(&table);
            idempotent.remember(tx, vec![table.route_table_id.to_string()]);
            Ok(table.route_table_id.to_string())
        })
        .await?;
    let tables = context.tables();
    let table = tables.route_tables.find(&id).ok_or_else(|| Id::not_found(Kind::RouteTable, &id))?;
    Ok(ec2::CreateRouteTableResult {
        route_table: Some(to_api(table, &tables)),
        client_token: input.client_token,
    })
}

pub async fn delete_route_table(context: &Context, input: ec2::DeleteRouteTableRequest) -> Result<()> {
    let id = Id::parse(Kind::RouteTable, input.route_table_id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let table = tx.get::<RouteTable>(&id).ok_or_else(|| Id::not_found(Kind::RouteTable, &id))?;
            if table.main_association_id.is_some() || !table.associations.is_empty() {
                return Err(Error::new(
                    "DependencyViolation",
                    format!("The routeTable '{id}' has dependencies and cannot be deleted."),
                ));
            }
            tx.delete::<RouteTable>(&id);
            Ok(())
        })
        .await
}
