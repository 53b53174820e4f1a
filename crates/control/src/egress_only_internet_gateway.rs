//! Egress-only internet gateways: IPv6 out of a VPC, and the answers to it.

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::tags::Specified;
use crate::engine::{Tables, Tags, filter};
use crate::vpc;
use aws_api::ec2;
use model::{AccountId, Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A VPC has at most one.
const ATTACHED_SCOPE: &str = "egress-only-internet-gateway-of";
/// The field with the VPC. Ours: EC2 finds these gateways by their tags alone.
pub(crate) const BY_VPC: &str = "cumulet:vpc-id";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EgressOnlyInternetGateway {
    pub gateway_id: Id,
    pub owner: AccountId,
    pub vpc_id: Id,
    pub tags: Tags,
}

impl Record for EgressOnlyInternetGateway {
    const TABLE: &'static str = "egress-only-internet-gateway";
    const INDEXED: &'static [&'static str] = &[BY_VPC];

    fn id(&self) -> &str {
        &self.gateway_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            BY_VPC => filter::one(values, self.vpc_id.as_str()),
            _ => false,
        }
    }
}

/// The gateway of a VPC.
pub fn of_vpc<'t>(tables: &'t Tables, vpc_id: &str) -> Option<&'t Arc<EgressOnlyInternetGateway>> {
    tables.egress_only_internet_gateways.with(BY_VPC, vpc_id).next()
}

fn to_api(gateway: &EgressOnlyInternetGateway) -> ec2::EgressOnlyInternetGateway {
    ec2::EgressOnlyInternetGateway {
        egress_only_internet_gateway_id: Some(gateway.gateway_id.to_string()),
        attachments: vec![ec2::InternetGatewayAttachment {
            state: Some("attached".into()),
            vpc_id: Some(gateway.vpc_id.to_string()),
        }],
        tags: gateway.tags.to_api(),
    }
}

pub async fn create_egress_only_internet_gateway(
    context: &Context,
    input: ec2::CreateEgressOnlyInternetGatewayRequest,
) -> Result<ec2::CreateEgressOnlyInternetGatewayResult> {
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::EgressOnlyInternetGateway])?;
    let vpc_id = input.vpc_id.unwrap_or_default();
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let vpc = vpc::depend(tx, &vpc_id)?;
            let gateway = EgressOnlyInternetGateway {
                gateway_id: tx.new_id(Kind::EgressOnlyInternetGateway),
                owner: context.account().clone(),
                vpc_id: vpc.vpc_id.clone(),
                tags: tags.of(Kind::EgressOnlyInternetGateway),
            };
            if !tx.claim(ATTACHED_SCOPE, &vpc_id, &gateway.gateway_id) {
                return Err(Error::invalid_parameter_value(format!(
                    "Network {vpc_id} already has an egress only internet gateway attached"
                )));
            }
            tx.create(&gateway);
            idempotent.remember(tx, vec![gateway.gateway_id.to_string()]);
            Ok(gateway.gateway_id.to_string())
        })
        .await?;
    let gateway = context.region.view.record::<EgressOnlyInternetGateway>(&id);
    let gateway = gateway.ok_or_else(|| Id::not_found(Kind::EgressOnlyInternetGateway, &id))?;
    Ok(ec2::CreateEgressOnlyInternetGatewayResult {
        egress_only_internet_gateway: Some(to_api(&gateway)),
        client_token: input.client_token,
    })
}

pub async fn describe_egress_only_internet_gateways(
    context: &Context,
    input: ec2::DescribeEgressOnlyInternetGatewaysRequest,
) -> Result<ec2::DescribeEgressOnlyInternetGatewaysResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.egress_only_internet_gateway_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "egressOnlyInternetGatewayIds",
    };
    let page = describe::select(
        &tables.egress_only_internet_gateways,
        Kind::EgressOnlyInternetGateway,
        &query,
        |_| true,
        |_, _, _| false,
    )?;
    Ok(ec2::DescribeEgressOnlyInternetGatewaysResult {
        egress_only_internet_gateways: page.records.iter().map(|gateway| to_api(gateway)).collect(),
        next_token: page.next_token,
    })
}

/// Routes that lead to it stay, and lead nowhere.
pub async fn delete_egress_only_internet_gateway(
    context: &Context,
    input: ec2::DeleteEgressOnlyInternetGatewayRequest,
) -> Result<ec2::DeleteEgressOnlyInternetGatewayResult> {
    let id = input.egress_only_internet_gateway_id.unwrap_or_default();
    Id::parse(Kind::EgressOnlyInternetGateway, &id)?;
    context
        .transact(|tx| {
            let gateway = tx.get::<EgressOnlyInternetGateway>(&id);
            let gateway = gateway.ok_or_else(|| Id::not_found(Kind::EgressOnlyInternetGateway, &id))?;
            tx.delete::<EgressOnlyInternetGateway>(&id);
            tx.release(ATTACHED_SCOPE, &gateway.vpc_id);
            Ok(())
        })
        .await?;
    Ok(ec2::DeleteEgressOnlyInternetGatewayResult { return_code: Some(true) })
}
