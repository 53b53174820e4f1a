//! Public addresses: taken from the operator's pool while an instance runs, or until the owner of an elastic one
//! releases it.
//!
//! One that is released is not given to somebody else at once: names and tables elsewhere know it as its last owner's.
//! Addresses that nobody had yet go first, then those released longest ago; until then the account that had an elastic
//! one can have it back (EC2 User Guide, "Recover an Elastic IP address").

use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tx, filter};
use crate::subnet;
use ipnet::Ipv4Net;
use model::{AccountId, Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::time::Duration;

const SCOPE: &str = "public-address";
/// How many addresses to look at for one that nobody had, before one is taken that has rested.
const PROBES: usize = 64;
/// After so long nobody takes an address for its last owner's.
const RESTED_AFTER: Duration = Duration::from_secs(60 * 60);

/// An address of the pool that was somebody's and is nobody's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleasedAddress {
    /// In the order of their release.
    pub key: String,
    pub ip: Ipv4Addr,
    pub at: Timestamp,
    /// Whose elastic address it was; None where it was assigned to an instance.
    pub owner: Option<AccountId>,
}

const BY_IP: &str = "public-ip";

impl Record for ReleasedAddress {
    const TABLE: &'static str = "released-address";
    const INDEXED: &'static [&'static str] = &[BY_IP];

    fn id(&self) -> &str {
        &self.key
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        name == BY_IP && filter::one(values, self.ip.to_string())
    }
}

fn released(tables: &Tables, address: Ipv4Addr) -> Option<&ReleasedAddress> {
    tables.released_addresses.with(BY_IP, &address.to_string()).next().map(|released| &**released)
}

pub fn claim(tx: &mut Tx<'_>, pool: Ipv4Net, owner: &str) -> Result<Ipv4Addr> {
    let claimed = claim_fresh(tx, pool, PROBES, owner)
        .or_else(|| claim_released(tx, pool, RESTED_AFTER, owner))
        .or_else(|| claim_fresh(tx, pool, usize::MAX, owner))
        .or_else(|| claim_released(tx, pool, Duration::ZERO, owner));
    claimed.ok_or_else(|| {
        Error::new(
            "InsufficientAddressCapacity",
            format!("There are no free addresses in the public pool {pool}."),
        )
    })
}

fn claim_fresh(tx: &mut Tx<'_>, pool: Ipv4Net, probes: usize, owner: &str) -> Option<Ipv4Addr> {
    let tables = tx.tables();
    subnet::claim_any(tx, SCOPE, pool, |address| released(tables, *address).is_none(), probes, owner)
}

/// The one that was released first, and as long ago.
fn claim_released(tx: &mut Tx<'_>, pool: Ipv4Net, rested: Duration, owner: &str) -> Option<Ipv4Addr> {
    let by = tx.now().saturating_sub(rested).unwrap_or(Timestamp::MIN);
    let mut rested = tx.tables().released_addresses.iter().take_while(|released| released.at <= by);
    let found = rested.find(|released| {
        subnet::is_assignable(pool, released.ip) && tx.claim(SCOPE, &released.ip.to_string(), owner)
    })?;
    tx.delete::<ReleasedAddress>(&found.key);
    Some(found.ip)
}

/// An elastic address that the account had, where nobody has it since.
pub fn recover(
    tx: &mut Tx<'_>,
    pool: Ipv4Net,
    address: Ipv4Addr,
    account: &AccountId,
    owner: &str,
) -> Result<Ipv4Addr> {
    let had = released(tx.tables(), address).filter(|released| released.owner.as_ref() == Some(account));
    match had {
        Some(had) if subnet::is_assignable(pool, address) && tx.claim(SCOPE, &address.to_string(), owner) => {
            tx.delete::<ReleasedAddress>(&had.key);
            Ok(address)
        }
        _ => Err(Error::new("InvalidAddress.NotFound", format!("Address '{address}' not found."))),
    }
}

/// `owner` is whose elastic address it was.
pub fn release(tx: &mut Tx<'_>, address: Ipv4Addr, owner: Option<&AccountId>) {
    let at = tx.now();
    let released = ReleasedAddress {
        key: format!("{:020}/{address}", at.as_microsecond()),
        ip: address,
        at,
        owner: owner.cloned(),
    };
    tx.release(SCOPE, &address.to_string());
    tx.create(&released);
}
