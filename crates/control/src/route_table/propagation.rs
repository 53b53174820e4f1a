//! EnableVgwRoutePropagation, DisableVgwRoutePropagation: there are no virtual private gateways that could propagate routes.

use super::RouteTable;
use crate::Context;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

fn no_gateway(context: &Context, table: Option<&str>, gateway: Option<&str>) -> Error {
    let missing = |parameter| Error::missing_parameter(parameter);
    let (Some(table), Some(gateway)) = (table, gateway) else {
        return missing(if table.is_none() { "RouteTableId" } else { "GatewayId" });
    };
    match Id::parse(Kind::RouteTable, table) {
        Ok(id) if context.region.view.record::<RouteTable>(&id).is_some() => Error::new(
            "InvalidVpnGatewayID.NotFound",
            format!("The vpnGateway ID '{gateway}' does not exist"),
        ),
        Ok(id) => Id::not_found(Kind::RouteTable, &id),
        Err(malformed) => malformed,
    }
}

pub async fn enable_vgw_route_propagation(
    context: &Context,
    input: ec2::EnableVgwRoutePropagationRequest,
) -> Result<()> {
    Err(no_gateway(context, input.route_table_id.as_deref(), input.gateway_id.as_deref()))
}

pub async fn disable_vgw_route_propagation(
    context: &Context,
    input: ec2::DisableVgwRoutePropagationRequest,
) -> Result<()> {
    Err(no_gateway(context, input.route_table_id.as_deref(), input.gateway_id.as_deref()))
}
