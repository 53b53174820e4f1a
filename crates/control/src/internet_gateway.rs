//! Internet gateways.

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::{Tags, Tx, filter};
use aws_api::ec2;
use model::{AccountId, Id, Kind, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InternetGateway {
    pub internet_gateway_id: Id,
    pub owner: AccountId,
    /// Where it is attached.
    pub vpc_id: Option<Id>,
    pub tags: Tags,
}

impl InternetGateway {
    pub fn attached_to(tx: &mut Tx<'_>, owner: &AccountId, vpc_id: &Id) -> InternetGateway {
        InternetGateway {
            internet_gateway_id: tx.new_id(Kind::InternetGateway),
            owner: owner.clone(),
            vpc_id: Some(vpc_id.clone()),
            tags: Tags::default(),
        }
    }
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
