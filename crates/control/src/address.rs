//! Elastic IP addresses: public ones that are the owner's until they are released
//! (EC2 User Guide, "Elastic IP addresses").
//!
//! An association is written in both records, the address's and the interface's, by one transaction.

use crate::engine::table::{Record, Values};
use crate::engine::{Tags, Tx, filter};
use crate::network_interface::{Elastic, NetworkInterface};
use model::{AccountId, Id};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

mod allocate;
mod associate;
mod attribute;
mod classic;
mod describe;
mod transfer;

pub use allocate::{allocate_address, release_address};
pub use associate::{associate_address, disassociate_address, take};
pub use attribute::{describe_addresses_attribute, modify_address_attribute, reset_address_attribute};
pub use classic::{describe_moving_addresses, move_address_to_vpc, restore_address_to_classic};
pub use describe::describe_addresses;
pub use transfer::{
    Transfer, accept_address_transfer, describe_address_transfers, disable_address_transfer,
    enable_address_transfer,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Address {
    pub allocation_id: Id,
    pub owner: AccountId,
    pub public_ip: Ipv4Addr,
    pub association: Option<Association>,
    /// What it shall be called in the reverse.
    #[serde(default)]
    pub reverse_name: Option<String>,
    /// To another account, which has not accepted it.
    #[serde(default)]
    pub transfer: Option<Transfer>,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Association {
    pub association_id: Id,
    pub interface_id: Id,
    pub private_ip: Ipv4Addr,
}

impl Record for Address {
    const TABLE: &'static str = "address";
    const INDEXED: &'static [&'static str] = &["association-id", "public-ip"];

    fn id(&self) -> &str {
        &self.allocation_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let association = self.association.as_ref();
        match name {
            "allocation-id" => filter::one(values, self.allocation_id.as_str()),
            "association-id" => filter::some(values, association.map(|one| one.association_id.as_str())),
            "domain" => filter::one(values, "vpc"),
            "network-interface-id" => filter::some(values, association.map(|one| one.interface_id.as_str())),
            "network-interface-owner-id" => filter::some(values, association.map(|_| self.owner.as_str())),
            "private-ip-address" => filter::some(values, association.map(|one| one.private_ip.to_string())),
            "public-ip" => filter::one(values, self.public_ip.to_string()),
            _ => false,
        }
    }
}

/// The interface that had the address is gone, or has it no more.
pub fn disassociated(tx: &mut Tx<'_>, elastic: &Elastic) {
    let Some(address) = tx.get::<Address>(&elastic.allocation_id) else { return };
    if address.association.as_ref().is_some_and(|one| one.association_id == elastic.association_id) {
        tx.put(&Address { association: None, ..(*address).clone() });
    }
}

/// The interface that has the address, as far as there is one.
fn interface_of(tx: &mut Tx<'_>, address: &Address) -> Option<NetworkInterface> {
    let association = address.association.as_ref()?;
    Some((*tx.get::<NetworkInterface>(&association.interface_id)?).clone())
}
