//! Elastic addresses offered to other accounts: EnableAddressTransfer, DisableAddressTransfer, DescribeAddressTransfers,
//! AcceptAddressTransfer (VPC User Guide, "Transfer Elastic IP addresses").
//!
//! A cloud has one account: an offer waits until it is withdrawn or expires, and none is ever made to who could accept it.

use super::Address;
use crate::Context;
use crate::engine::describe::{self, page_of};
use aws_api::ec2;
use model::{AccountId, Error, Id, Kind, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long an offer stands.
const STANDS_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    pub to: AccountId,
    pub expires_at: Timestamp,
}

impl Address {
    fn offered(&self, now: Timestamp) -> Option<&Transfer> {
        self.transfer.as_ref().filter(|transfer| now < transfer.expires_at)
    }
}

pub async fn enable_address_transfer(
    context: &Context,
    input: ec2::EnableAddressTransferRequest,
) -> Result<ec2::EnableAddressTransferResult> {
    let to = input.transfer_account_id.ok_or_else(|| Error::missing_parameter("TransferAccountId"))?;
    let to: AccountId = to.parse()?;
    if to == *context.account() {
        return Err(Error::invalid_parameter_value(format!("The account {to} owns the address.")));
    }
    let offered = change(context, input.allocation_id, |address, now| {
        if address.offered(now).is_some_and(|before| before.to != to) {
            return Err(Error::new(
                "InvalidTransfer.AddressTransferInProgress",
                format!("The address '{}' is offered to another account.", address.public_ip),
            ));
        }
        let expires_at = now.saturating_add(STANDS_FOR).unwrap_or(Timestamp::MAX);
        address.transfer = Some(Transfer { to: to.clone(), expires_at });
        Ok(address.clone())
    });
    Ok(ec2::EnableAddressTransferResult { address_transfer: Some(to_api(&offered.await?, "pending")) })
}

pub async fn disable_address_transfer(
    context: &Context,
    input: ec2::DisableAddressTransferRequest,
) -> Result<ec2::DisableAddressTransferResult> {
    let withdrawn = change(context, input.allocation_id, |address, now| {
        if address.offered(now).is_none() {
            return Err(not_offered(&address.public_ip.to_string()));
        }
        let before = address.clone();
        address.transfer = None;
        Ok(before)
    });
    Ok(ec2::DisableAddressTransferResult { address_transfer: Some(to_api(&withdrawn.await?, "disabled")) })
}

fn not_offered(address: &str) -> Error {
    Error::new("InvalidAddress.NotFound", format!("The address '{address}' is not offered for a transfer."))
}

/// Changes an address; returns what `change` does.
async fn change(
    context: &Context,
    id: Option<String>,
    change: impl Fn(&mut Address, Timestamp) -> Result<Address>,
) -> Result<Address> {
    let id = Id::parse(Kind::ElasticIp, id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let address = tx.get::<Address>(&id).ok_or_else(|| Id::not_found(Kind::ElasticIp, &id))?;
            let mut address = (*address).clone();
            let answer = change(&mut address, tx.now())?;
            tx.put(&address);
            Ok(answer)
        })
        .await
}

pub async fn describe_address_transfers(
    context: &Context,
    input: ec2::DescribeAddressTransfersRequest,
) -> Result<ec2::DescribeAddressTransfersResult> {
    let (tables, now) = (context.tables(), context.environment.clock.now());
    let addresses =
        describe::select_all(&tables.addresses, Kind::ElasticIp, &input.allocation_ids, &[], |_, _, _| {
            false
        })?;
    let offered: Vec<_> = addresses.into_iter().filter(|address| address.offered(now).is_some()).collect();
    let key = |address: &Arc<Address>| address.allocation_id.to_string();
    let (page, next_token) = page_of(&offered, key, &[], input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeAddressTransfersResult {
        address_transfers: page.iter().map(|address| to_api(address, "pending")).collect(),
        next_token,
    })
}

/// Whatever is offered is offered to others.
pub async fn accept_address_transfer(
    _: &Context,
    input: ec2::AcceptAddressTransferRequest,
) -> Result<ec2::AcceptAddressTransferResult> {
    let address = input.address.ok_or_else(|| Error::missing_parameter("Address"))?;
    Err(not_offered(&address))
}

fn to_api(address: &Address, status: &str) -> ec2::AddressTransfer {
    let transfer = address.transfer.as_ref();
    ec2::AddressTransfer {
        public_ip: Some(address.public_ip.to_string()),
        allocation_id: Some(address.allocation_id.to_string()),
        transfer_account_id: transfer.map(|transfer| transfer.to.to_string()),
        transfer_offer_expiration_timestamp: transfer.map(|transfer| transfer.expires_at),
        address_transfer_status: Some(status.into()),
        ..Default::default()
    }
}
