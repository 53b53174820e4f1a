//! The routes that a gateway endpoint has in tables of its VPC: they come and go with it, never by themselves.

use super::route::{check_edge, find, weight};
use super::{Destination, Route, RouteTable, Target};
use crate::engine::{Tx, quota};
use crate::vpc_endpoint::VpcEndpoint;
use model::{Error, Id, Result};

/// Leads the addresses of the endpoint's service to it.
pub fn lead(tx: &mut Tx<'_>, table_id: &str, endpoint: &VpcEndpoint, prefix_list_id: &Id) -> Result<()> {
    let (mut table, _) = find(tx, table_id)?;
    let id = &endpoint.endpoint_id;
    if table.vpc_id != endpoint.vpc_id {
        return Err(Error::invalid_parameter_value(format!(
            "route table {table_id} and VPC endpoint {id} belong to different networks"
        )));
    }
    let destination = Destination::PrefixList(prefix_list_id.clone());
    if table.route_to(&destination).is_some() {
        return Err(Error::new(
            "RouteAlreadyExists",
            format!(
                "route table {table_id} already has a route with destination-prefix-list-id {destination}"
            ),
        ));
    }
    tx.quotas().check_within(quota::ROUTES_PER_TABLE, weight(tx.tables(), &table, &destination))?;
    table.routes.push(Route { destination, target: Target::VpcEndpoint(id.clone()) });
    check_edge(tx, &table)?;
    tx.put(&table);
    Ok(())
}

/// False where the table led nothing to it.
pub fn lead_no_more(tx: &mut Tx<'_>, table_id: &str, endpoint_id: &Id) -> bool {
    let Some(table) = tx.get::<RouteTable>(table_id) else { return false };
    let mut table = (*table).clone();
    let before = table.routes.len();
    table.routes.retain(|route| route.target != Target::VpcEndpoint(endpoint_id.clone()));
    tx.put(&table);
    table.routes.len() < before
}
