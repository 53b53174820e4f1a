//! CreateVpcEndpoint, ModifyVpcEndpoint, DeleteVpcEndpoints.

use super::service::{self, ADDRESS_TYPE};
use super::{GATEWAY, VpcEndpoint, policy, to_api};
use crate::Context;
use crate::engine::Tx;
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::{route_table, vpc};
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::collections::BTreeSet;

/// Most endpoints that one call deletes.
const DELETED_MAX: usize = 1000;

fn invalid(message: impl Into<String>) -> Error {
    Error::new("InvalidParameter", message)
}

/// Refuses what only an interface endpoint has.
fn check_of_gateway<const N: usize>(asked: [(bool, &str); N]) -> Result<()> {
    match asked.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(invalid(format!("{what} cannot be set for VPC endpoints of type Gateway"))),
        None => Ok(()),
    }
}

fn check_addresses(address_type: Option<&str>, dns: Option<&ec2::DnsOptionsSpecification>) -> Result<()> {
    let dns_type = dns.and_then(|dns| dns.dns_record_ip_type.as_deref()).unwrap_or("service-defined");
    refuse([
        (address_type.is_some_and(|of| of != ADDRESS_TYPE), "Gateway endpoints with IPv6 are"),
        (!matches!(dns_type, "service-defined" | "ipv4"), "DNS records of gateway endpoints with IPv6 are"),
    ])?;
    let private = dns.is_some_and(|dns| {
        dns.private_dns_only_for_inbound_resolver_endpoint.is_some()
            || given(&dns.private_dns_preference)
            || !dns.private_dns_specified_domains.is_empty()
    });
    check_of_gateway([(private, "Private DNS options")])
}

/// None is the default policy, which an empty text is as well.
fn read_policy(text: Option<String>) -> Result<Option<String>> {
    let text = text.filter(|text| !text.is_empty());
    text.as_deref().map(policy::check).transpose()?;
    Ok(text)
}

fn table_ids(ids: &[String]) -> Result<BTreeSet<Id>> {
    ids.iter().map(|id| Id::parse(Kind::RouteTable, id)).collect()
}

pub async fn create_vpc_endpoint(
    context: &Context,
    input: ec2::CreateVpcEndpointRequest,
) -> Result<ec2::CreateVpcEndpointResult> {
    let region = context.region.view.region.as_str();
    let kind = input.vpc_endpoint_type.as_deref().unwrap_or(GATEWAY);
    refuse([
        (kind == "Interface", "Interface endpoints are"),
        (kind == "GatewayLoadBalancer", "Gateway Load Balancer endpoints are"),
        (kind == "Resource" || given(&input.resource_configuration_arn), "Resource endpoints are"),
        (kind == "ServiceNetwork" || given(&input.service_network_arn), "Service network endpoints are"),
        (
            input.service_region.as_deref().is_some_and(|of| !of.is_empty() && of != region),
            "Services of other regions are",
        ),
    ])?;
    if kind != GATEWAY {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({kind}) for parameter vpcEndpointType is invalid."
        )));
    }
    check_of_gateway([
        (!input.subnet_ids.is_empty() || !input.subnet_configurations.is_empty(), "Subnets"),
        (!input.security_group_ids.is_empty(), "Security groups"),
        (input.private_dns_enabled == Some(true), "Private DNS"),
    ])?;
    check_addresses(input.ip_address_type.as_deref(), input.dns_options.as_ref())?;
    let name = input.service_name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Error::missing_parameter("ServiceName"))?;
    let service = service::named(&context.region.view.region, &name)?;
    let policy = read_policy(input.policy_document)?;
    let route_tables = table_ids(&input.route_table_ids)?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::VpcEndpoint])?;
    let vpc_id = input.vpc_id.unwrap_or_default();
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let endpoint = VpcEndpoint {
                endpoint_id: tx.new_id(Kind::VpcEndpoint),
                owner: context.account().clone(),
                vpc_id: vpc::depend(tx, &vpc_id)?.vpc_id.clone(),
                service_name: name.clone(),
                policy: policy.clone(),
                created_at: tx.now(),
                tags: tags.of(Kind::VpcEndpoint),
            };
            let list = service.prefix_list_id(tx.region());
            for table in &route_tables {
                route_table::endpoint::lead(tx, table, &endpoint, &list)?;
            }
            tx.create(&endpoint);
            idempotent.remember(tx, vec![endpoint.endpoint_id.to_string()]);
            Ok(endpoint.endpoint_id.to_string())
        })
        .await?;
    let tables = context.tables();
    let endpoint = tables.vpc_endpoints.find(&id).ok_or_else(|| Id::not_found(Kind::VpcEndpoint, &id))?;
    Ok(ec2::CreateVpcEndpointResult {
        vpc_endpoint: Some(to_api(&tables, &context.region.view.region, endpoint)),
        client_token: input.client_token,
    })
}

fn find(tx: &mut Tx<'_>, id: &str) -> Result<VpcEndpoint> {
    let endpoint = tx.get::<VpcEndpoint>(id).ok_or_else(|| Id::not_found(Kind::VpcEndpoint, id))?;
    Ok((*endpoint).clone())
}

pub async fn modify_vpc_endpoint(
    context: &Context,
    input: ec2::ModifyVpcEndpointRequest,
) -> Result<ec2::ModifyVpcEndpointResult> {
    check_of_gateway([
        (
            !input.add_subnet_ids.is_empty()
                || !input.remove_subnet_ids.is_empty()
                || !input.subnet_configurations.is_empty(),
            "Subnets",
        ),
        (
            !input.add_security_group_ids.is_empty() || !input.remove_security_group_ids.is_empty(),
            "Security groups",
        ),
        (input.private_dns_enabled == Some(true), "Private DNS"),
    ])?;
    check_addresses(input.ip_address_type.as_deref(), input.dns_options.as_ref())?;
    let reset = input.reset_policy.unwrap_or(false);
    let policy = read_policy(input.policy_document)?;
    if reset && policy.is_some() {
        return Err(Error::invalid_parameter_combination(
            "The parameters resetPolicy and policyDocument cannot be used together",
        ));
    }
    let added = table_ids(&input.add_route_table_ids)?;
    let removed = table_ids(&input.remove_route_table_ids)?;
    if let Some(both) = added.intersection(&removed).next() {
        return Err(Error::invalid_parameter_combination(format!(
            "The route table {both} cannot be both added and removed"
        )));
    }
    let id = Id::parse(Kind::VpcEndpoint, input.vpc_endpoint_id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let mut endpoint = find(tx, &id)?;
            let service = service::named(tx.region(), &endpoint.service_name)?;
            let list = service.prefix_list_id(tx.region());
            for table in &removed {
                if !route_table::endpoint::lead_no_more(tx, table, &id) {
                    return Err(invalid(format!(
                        "The route table {table} is not associated with the VPC endpoint {id}"
                    )));
                }
            }
            for table in &added {
                route_table::endpoint::lead(tx, table, &endpoint, &list)?;
            }
            if reset || policy.is_some() {
                endpoint.policy = policy.clone();
            }
            // Written also where only tables change: who deletes it meanwhile sees them.
            tx.put(&endpoint);
            Ok(())
        })
        .await?;
    Ok(ec2::ModifyVpcEndpointResult { r#return: Some(true) })
}

/// Each for itself: what cannot be deleted is told, and keeps none of the others.
pub async fn delete_vpc_endpoints(
    context: &Context,
    input: ec2::DeleteVpcEndpointsRequest,
) -> Result<ec2::DeleteVpcEndpointsResult> {
    let ids = &input.vpc_endpoint_ids;
    if ids.len() > DELETED_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "At most {DELETED_MAX} VPC endpoints can be deleted in one request"
        )));
    }
    let ids: BTreeSet<Id> = ids.iter().map(|id| Id::parse(Kind::VpcEndpoint, id)).collect::<Result<_>>()?;
    let mut unsuccessful = Vec::new();
    for id in ids {
        if let Err(error) = delete(context, &id).await {
            unsuccessful.push(ec2::UnsuccessfulItem {
                resource_id: Some(id.to_string()),
                error: Some(ec2::UnsuccessfulItemError {
                    code: Some(error.code.to_string()),
                    message: Some(error.message),
                }),
            });
        }
    }
    Ok(ec2::DeleteVpcEndpointsResult { unsuccessful })
}

async fn delete(context: &Context, id: &Id) -> Result<()> {
    context
        .transact(|tx| {
            find(tx, id)?;
            for table in route_table::leading_to(tx.tables(), id) {
                route_table::endpoint::lead_no_more(tx, &table.route_table_id, id);
            }
            tx.delete::<VpcEndpoint>(id);
            Ok(())
        })
        .await
}
