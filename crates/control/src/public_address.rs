//! Public addresses: taken from the operator's pool while an instance runs, or until the owner of an elastic one
//! releases it.

use crate::engine::Tx;
use crate::subnet;
use ipnet::Ipv4Net;
use model::{Error, Result};
use std::net::Ipv4Addr;

const SCOPE: &str = "public-address";

pub fn claim(tx: &mut Tx<'_>, pool: Ipv4Net, owner: &str) -> Result<Ipv4Addr> {
    subnet::claim_any(tx, SCOPE, pool, &[], owner).ok_or_else(|| {
        Error::new(
            "InsufficientAddressCapacity",
            format!("There are no free addresses in the public pool {pool}."),
        )
    })
}

/// This one, where nobody has it.
pub fn claim_this(tx: &mut Tx<'_>, pool: Ipv4Net, address: Ipv4Addr, owner: &str) -> Result<Ipv4Addr> {
    let not_found = || Error::new("InvalidAddress.NotFound", format!("Address '{address}' not found."));
    if !subnet::is_assignable(pool, address) || !tx.claim(SCOPE, &address.to_string(), owner) {
        return Err(not_found());
    }
    Ok(address)
}

pub fn release(tx: &mut Tx<'_>, address: Ipv4Addr) {
    tx.release(SCOPE, &address.to_string());
}
