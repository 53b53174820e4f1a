//! NAT gateways (VPC User Guide, "NAT gateways"). One is an interface that EC2 keeps in a subnet; the interface's record
//! says which addresses it has.
//!
//! It is there with its record: hosts make it as they make routes, before any packet is led to it. So it is never seen
//! pending, but in the answer of the call that makes it.

use crate::engine::table::{Record, Values};
use crate::engine::{Tags, filter};
use model::{AccountId, Error, Id, Timestamp};
use serde::{Deserialize, Serialize};

mod address;
mod create;
mod describe;

pub use address::{
    assign_private_nat_gateway_address, associate_nat_gateway_address, disassociate_nat_gateway_address,
    unassign_private_nat_gateway_address,
};
pub use create::{create_nat_gateway, delete_nat_gateway};
pub use describe::describe_nat_gateways;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NatGateway {
    pub nat_gateway_id: Id,
    pub owner: AccountId,
    pub vpc_id: Id,
    pub subnet_id: Id,
    /// Gone with the gateway.
    pub interface_id: Id,
    /// Whether it speaks to the internet, with elastic addresses.
    pub is_public: bool,
    pub created_at: Timestamp,
    /// It is shown for a while after (EC2 API Reference, DeleteNatGateway: "about an hour").
    pub deleted_at: Option<Timestamp>,
    pub tags: Tags,
}

fn not_found(id: &str) -> Error {
    Error::new("NatGatewayNotFound", format!("NatGateway {id} was not found"))
}

impl NatGateway {
    /// EC2's `NatGatewayState`.
    pub fn state(&self) -> &'static str {
        if self.deleted_at.is_some() { "deleted" } else { "available" }
    }
}

impl Record for NatGateway {
    const TABLE: &'static str = "nat-gateway";
    const INDEXED: &'static [&'static str] = &["vpc-id", "subnet-id"];

    fn id(&self) -> &str {
        &self.nat_gateway_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "nat-gateway-id" => filter::one(values, self.nat_gateway_id.as_str()),
            "state" => filter::one(values, self.state()),
            "subnet-id" => filter::one(values, self.subnet_id.as_str()),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            _ => false,
        }
    }
}
