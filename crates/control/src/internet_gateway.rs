//! Internet gateways.

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::tags::Specified;
use crate::engine::{Tables, Tags, Tx, filter};
use crate::route_table;
use crate::vpc::{self, Vpc};
use aws_api::ec2;
use model::{AccountId, Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};

/// A VPC has at most one.
const ATTACHED_SCOPE: &str = "internet-gateway-of";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InternetGateway {
    pub internet_gateway_id: Id,
    pub owner: AccountId,
    /// Where it is attached.
    pub vpc_id: Option<Id>,
    pub tags: Tags,
}

impl InternetGateway {
    pub fn new(tx: &Tx<'_>, owner: &AccountId) -> InternetGateway {
        InternetGateway {
            internet_gateway_id: tx.new_id(Kind::InternetGateway),
            owner: owner.clone(),
            vpc_id: None,
            tags: Tags::default(),
        }
    }

    /// False where the VPC has another.
    pub fn attach(&mut self, tx: &mut Tx<'_>, vpc: &Vpc) -> bool {
        self.vpc_id = Some(vpc.vpc_id.clone());
        tx.claim(ATTACHED_SCOPE, &vpc.vpc_id, &self.internet_gateway_id)
    }
}

/// The gateway of a VPC.
pub fn of_vpc<'t>(tables: &'t Tables, vpc_id: &str) -> Option<&'t InternetGateway> {
    tables.internet_gateways.with("attachment.vpc-id", vpc_id).next().map(|gateway| &**gateway)
}

impl Record for InternetGateway {
    const TABLE: &'static str = "internet-gateway";
    const INDEXED: &'static [&'static str] = &["attachment.vpc-id"];

    fn id(&self) -> &str {
        &self.internet_gateway_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "attachment.state" => filter::some(values, self.vpc_id.as_ref().map(|_| "available")),
            "attachment.vpc-id" => filter::some(values, self.vpc_id.as_deref()),
            "internet-gateway-id" => filter::one(values, self.internet_gateway_id.as_str()),
            "owner-id" => filter::one(values, self.owner.as_str()),
            _ => false,
        }
    }
}

pub async fn describe_internet_gateways(
    context: &Context,
    input: ec2::DescribeInternetGatewaysRequest,
) -> Result<ec2::DescribeInternetGatewaysResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.internet_gateway_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "internetGatewayIds",
    };
    let page = describe::select(
        &tables.internet_gateways,
        Kind::InternetGateway,
        &query,
        |_| true,
        |_, _, _| false,
    )?;
    Ok(ec2::DescribeInternetGatewaysResult {
        internet_gateways: page.records.iter().map(|gateway| to_api(gateway)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(gateway: &InternetGateway) -> ec2::InternetGateway {
    ec2::InternetGateway {
        internet_gateway_id: Some(gateway.internet_gateway_id.to_string()),
        owner_id: Some(gateway.owner.to_string()),
        attachments: gateway
            .vpc_id
            .iter()
            .map(|vpc_id| ec2::InternetGatewayAttachment {
                state: Some("available".into()),
                vpc_id: Some(vpc_id.to_string()),
            })
            .collect(),
        tags: gateway.tags.to_api(),
    }
}

pub async fn create_internet_gateway(
    context: &Context,
    input: ec2::CreateInternetGatewayRequest,
) -> Result<ec2::CreateInternetGatewayResult> {
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::InternetGateway])?;
    let gateway = context
        .transact(|tx| {
            let mut gateway = InternetGateway::new(tx, context.account());
            gateway.tags = tags.of(Kind::InternetGateway);
            tx.create(&gateway);
            Ok(gateway)
        })
        .await?;
    Ok(ec2::CreateInternetGatewayResult { internet_gateway: Some(to_api(&gateway)) })
}

fn find(tx: &mut Tx<'_>, id: &str) -> Result<InternetGateway> {
    Id::parse(Kind::InternetGateway, id)?;
    let gateway = tx.get::<InternetGateway>(id);
    gateway.map(|gateway| (*gateway).clone()).ok_or_else(|| Id::not_found(Kind::InternetGateway, id))
}

pub async fn attach_internet_gateway(
    context: &Context,
    input: ec2::AttachInternetGatewayRequest,
) -> Result<()> {
    let (id, vpc_id) = (input.internet_gateway_id.unwrap_or_default(), input.vpc_id.unwrap_or_default());
    context
        .transact(|tx| {
            let mut gateway = find(tx, &id)?;
            let vpc = vpc::depend(tx, &vpc_id)?;
            if let Some(other) = &gateway.vpc_id {
                return Err(Error::new(
                    "Resource.AlreadyAssociated",
                    format!("resource {id} is already attached to network {other}"),
                ));
            }
            let before = of_vpc(tx.tables(), &vpc_id).is_some();
            if before || !gateway.attach(tx, &vpc) {
                return Err(Error::invalid_parameter_value(format!(
                    "Network {vpc_id} already has an internet gateway attached"
                )));
            }
            tx.put(&gateway);
            Ok(())
        })
        .await
}

pub async fn detach_internet_gateway(
    context: &Context,
    input: ec2::DetachInternetGatewayRequest,
) -> Result<()> {
    let (id, vpc_id) = (input.internet_gateway_id.unwrap_or_default(), input.vpc_id.unwrap_or_default());
    Id::parse(Kind::Vpc, &vpc_id)?;
    context
        .transact(|tx| {
            let mut gateway = find(tx, &id)?;
            tx.get::<Vpc>(&vpc_id).ok_or_else(|| Id::not_found(Kind::Vpc, &vpc_id))?;
            if gateway.vpc_id.as_deref() != Some(&*vpc_id) {
                return Err(Error::new(
                    "Gateway.NotAttached",
                    format!("resource {id} is not attached to network {vpc_id}"),
                ));
            }
            let mut interfaces = tx.tables().network_interfaces.with("vpc-id", &vpc_id);
            if interfaces.any(|interface| interface.addresses.iter().any(|address| address.public.is_some())) {
                return Err(Error::new(
                    "DependencyViolation",
                    format!("Network {vpc_id} has some mapped public address(es). Please unmap those public address(es) before detaching the gateway."),
                ));
            }
            gateway.vpc_id = None;
            route_table::association::forget(tx, &gateway.internet_gateway_id);
            tx.put(&gateway);
            tx.release(ATTACHED_SCOPE, &vpc_id);
            Ok(())
        })
        .await
}

pub async fn delete_internet_gateway(
    context: &Context,
    input: ec2::DeleteInternetGatewayRequest,
) -> Result<()> {
    let id = input.internet_gateway_id.unwrap_or_default();
    context
        .transact(|tx| {
            if find(tx, &id)?.vpc_id.is_some() {
                return Err(Error::new(
                    "DependencyViolation",
                    format!("The internetGateway '{id}' has dependencies and cannot be deleted."),
                ));
            }
            tx.delete::<InternetGateway>(&id);
            Ok(())
        })
        .await
}
