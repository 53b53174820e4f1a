//! DescribeNatGateways.

use super::NatGateway;
use crate::Context;
use crate::engine::Tables;
use crate::engine::describe::{self, Query};
use crate::network_interface::{NetworkInterface, PrivateAddress};
use aws_api::ec2;
use model::{Kind, Result};

pub async fn describe_nat_gateways(
    context: &Context,
    input: ec2::DescribeNatGatewaysRequest,
) -> Result<ec2::DescribeNatGatewaysResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.nat_gateway_ids,
        filters: &input.filter,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "natGatewayIds",
    };
    let page = describe::select(&tables.nat_gateways, Kind::NatGateway, &query, |_| true, |_, _, _| false)?;
    Ok(ec2::DescribeNatGatewaysResult {
        nat_gateways: page.records.iter().map(|gateway| to_api(&tables, gateway)).collect(),
        next_token: page.next_token,
    })
}

pub fn to_api(tables: &Tables, gateway: &NatGateway) -> ec2::NatGateway {
    let interface = tables.network_interfaces.find(&gateway.interface_id);
    let addresses = interface.into_iter().flat_map(|interface| {
        interface.addresses.iter().map(|own| address_to_api(interface, own, "succeeded"))
    });
    ec2::NatGateway {
        nat_gateway_id: Some(gateway.nat_gateway_id.to_string()),
        vpc_id: Some(gateway.vpc_id.to_string()),
        subnet_id: Some(gateway.subnet_id.to_string()),
        state: Some(gateway.state().into()),
        connectivity_type: Some(if gateway.is_public { "public" } else { "private" }.into()),
        availability_mode: Some("zonal".into()),
        create_time: Some(gateway.created_at),
        delete_time: gateway.deleted_at,
        nat_gateway_addresses: addresses.collect(),
        tags: gateway.tags.to_api(),
        ..Default::default()
    }
}

/// An address that is the gateway's, or was until now.
pub fn address_to_api(
    interface: &NetworkInterface,
    own: &PrivateAddress,
    status: &str,
) -> ec2::NatGatewayAddress {
    ec2::NatGatewayAddress {
        allocation_id: own.elastic().map(|elastic| elastic.allocation_id.to_string()),
        association_id: own.elastic().map(|elastic| elastic.association_id.to_string()),
        network_interface_id: Some(interface.interface_id.to_string()),
        private_ip: Some(own.private_ip.to_string()),
        public_ip: own.public_ip().map(|ip| ip.to_string()),
        is_primary: Some(interface.private_ip() == Some(own.private_ip)),
        status: Some(status.into()),
        ..Default::default()
    }
}
