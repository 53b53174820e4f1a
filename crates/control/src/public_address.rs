//! Public addresses: taken from the operator's pool while an instance runs.

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

pub fn release(tx: &mut Tx<'_>, address: Ipv4Addr) {
    tx.release(SCOPE, &address.to_string());
}
