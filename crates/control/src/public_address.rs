//! Public addresses: taken from the operator's pools while an instance runs, or until the owner of an elastic one
//! releases it.
//!
//! One that is released is not given to somebody else at once: names and tables elsewhere know it as its last owner's.
//! Addresses that nobody had yet go first, then those released longest ago; until then the account that had an elastic
//! one can have it back (EC2 User Guide, "Recover an Elastic IP address").

use crate::engine::table::{Record, Values};
use crate::engine::{Claim, Tables, Tx, filter, retire};
use crate::public_pool::{self, PublicPool};
use crate::subnet;
use ipnet::Ipv4Net;
use model::{AccountId, Error, Id, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::ops::Range;
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

/// Addresses of a pool that can be somebody's, as numbers: none that stands for the whole network or for all on it.
pub fn usable(pool: Ipv4Net) -> Range<u64> {
    let (first, last) = (u64::from(u32::from(pool.network())), u64::from(u32::from(pool.broadcast())));
    if pool.prefix_len() > 30 { first..last + 1 } else { first + 1..last }
}

fn is_usable(pool: Ipv4Net, address: Ipv4Addr) -> bool {
    usable(pool).contains(&u32::from(address).into())
}

/// Those of a prefix that are somebody's.
pub fn taken(tables: &Tables, of: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let prefix = Claim::key(SCOPE, "");
    let claims = tables.claims.after(&prefix);
    claims
        .map_while(move |claim| claim.key.strip_prefix(&prefix).map(str::to_owned))
        .filter_map(|address| address.parse().ok())
        .filter(move |address| of.contains(address))
}

/// Where addresses come from that no pool is named for: the operator's pools, or the built-in one where there is none.
fn pools(tx: &mut Tx<'_>, builtin: Ipv4Net) -> Vec<Ipv4Net> {
    let ids: Vec<_> = tx.tables().public_pools.iter().map(|pool| pool.pool_id.clone()).collect();
    if ids.is_empty() {
        return vec![builtin];
    }
    ids.iter().filter_map(|id| retire::depend::<PublicPool>(tx, id)).map(|pool| pool.cidr).collect()
}

pub fn claim(tx: &mut Tx<'_>, builtin: Ipv4Net, owner: &str) -> Result<Ipv4Addr> {
    let pools = pools(tx, builtin);
    claim_of(tx, &pools, owner).ok_or_else(|| {
        let pools: Vec<String> = pools.iter().map(Ipv4Net::to_string).collect();
        exhausted(&format!("There are no free addresses in the public pools ({}).", pools.join(", ")))
    })
}

/// An address of a pool that the account has brought: the wanted one, or any.
pub fn claim_in(tx: &mut Tx<'_>, pool_id: &Id, wanted: Option<Ipv4Addr>, owner: &str) -> Result<Ipv4Addr> {
    let pool = retire::depend::<PublicPool>(tx, pool_id).ok_or_else(|| public_pool::not_found(pool_id))?.cidr;
    let Some(wanted) = wanted else {
        let claimed = claim_of(tx, &[pool], owner);
        return claimed.ok_or_else(|| exhausted(&format!("There are no free addresses in {pool_id}.")));
    };
    if !is_usable(pool, wanted) {
        return Err(not_found(wanted));
    }
    if !tx.claim(SCOPE, &wanted.to_string(), owner) {
        return Err(Error::new("InvalidAddress.InUse", format!("Address '{wanted}' is in use.")));
    }
    if let Some(had) = released(tx.tables(), wanted) {
        tx.delete::<ReleasedAddress>(&had.key);
    }
    Ok(wanted)
}

fn exhausted(message: &str) -> Error {
    Error::new("InsufficientAddressCapacity", message)
}

fn claim_of(tx: &mut Tx<'_>, pools: &[Ipv4Net], owner: &str) -> Option<Ipv4Addr> {
    let fresh = |tx: &mut Tx<'_>, probes| {
        let tables = tx.tables();
        let is_fresh = |address: &Ipv4Addr| released(tables, *address).is_none();
        pools.iter().find_map(|pool| subnet::claim_any(tx, SCOPE, usable(*pool), is_fresh, probes, owner))
    };
    fresh(tx, PROBES)
        .or_else(|| claim_released(tx, pools, RESTED_AFTER, owner))
        .or_else(|| fresh(tx, usize::MAX))
        .or_else(|| claim_released(tx, pools, Duration::ZERO, owner))
}

/// The one that was released first, and as long ago.
fn claim_released(tx: &mut Tx<'_>, pools: &[Ipv4Net], rested: Duration, owner: &str) -> Option<Ipv4Addr> {
    let by = tx.now().saturating_sub(rested).unwrap_or(Timestamp::MIN);
    let mut rested = tx.tables().released_addresses.iter().take_while(|released| released.at <= by);
    let found = rested.find(|released| {
        pools.iter().any(|pool| is_usable(*pool, released.ip))
            && tx.claim(SCOPE, &released.ip.to_string(), owner)
    })?;
    tx.delete::<ReleasedAddress>(&found.key);
    Some(found.ip)
}

/// An elastic address that the account had, where nobody has it since.
pub fn recover(
    tx: &mut Tx<'_>,
    builtin: Ipv4Net,
    address: Ipv4Addr,
    account: &AccountId,
    owner: &str,
) -> Result<Ipv4Addr> {
    let had = released(tx.tables(), address).filter(|released| released.owner.as_ref() == Some(account));
    let is_of_pool = pools(tx, builtin).iter().any(|pool| is_usable(*pool, address));
    match had {
        Some(had) if is_of_pool && tx.claim(SCOPE, &address.to_string(), owner) => {
            tx.delete::<ReleasedAddress>(&had.key);
            Ok(address)
        }
        _ => Err(not_found(address)),
    }
}

fn not_found(address: Ipv4Addr) -> Error {
    Error::new("InvalidAddress.NotFound", format!("Address '{address}' not found."))
}

/// Nothing is known any more of who had addresses of a pool that is gone.
pub fn forget(tx: &mut Tx<'_>, pool: Ipv4Net) {
    for released in tx.tables().released_addresses.iter().filter(|released| pool.contains(&released.ip)) {
        tx.delete::<ReleasedAddress>(&released.key);
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
