//! The pool that VPCs' IPv6 blocks come from: a /40 of the region's own, chosen once by chance among the unique local
//! addresses (RFC 4193) and kept. EC2 gives global ones; a cloud that nobody has given any must not invent some that
//! are another's.

use crate::Context;
use crate::engine::{Claim, Tx, describe};
use aws_api::ec2;
use ipnet::Ipv6Net;
use model::{Error, Result};
use std::net::Ipv6Addr;

/// As EC2 names the pool of its own addresses.
pub const NAME: &str = "Amazon";

const SCOPE: &str = "ipv6-cidr-block";
const POOL_SCOPE: &str = "ipv6-pool";
const POOL_PREFIX_LEN: u8 = 40;
/// Of a VPC's block (EC2 API Reference, AssociateVpcCidrBlock).
const BLOCK_PREFIX_LEN: u8 = 56;
/// Blocks in the pool.
const BLOCKS: u64 = 1 << (BLOCK_PREFIX_LEN - POOL_PREFIX_LEN);

/// Takes a block for a VPC, looked for from a random place on.
pub fn claim(tx: &mut Tx<'_>, vpc_id: &str) -> Result<Ipv6Net> {
    let pool = pool(tx)?;
    let start = tx.random().u64();
    (0..BLOCKS)
        .map(|step| block(pool, start.wrapping_add(step) % BLOCKS))
        .find(|cidr| {
            !tx.tables().claims.contains(&Claim::key(SCOPE, &cidr.to_string()))
                && tx.claim(SCOPE, &cidr.to_string(), vpc_id)
        })
        .ok_or_else(|| {
            Error::new("InsufficientCidrBlocks", "There are not enough IPv6 CIDR blocks available.")
        })
}

pub fn release(tx: &mut Tx<'_>, cidr: Ipv6Net) {
    tx.release(SCOPE, &cidr.to_string());
}

fn pool(tx: &mut Tx<'_>) -> Result<Ipv6Addr> {
    let key = Claim::key(POOL_SCOPE, NAME);
    if let Some(claim) = tx.get::<Claim>(&key) {
        let pool: Ipv6Net =
            claim.owner.parse().map_err(|_| Error::internal("the IPv6 pool is no CIDR block"))?;
        return Ok(pool.network());
    }
    let pool = chosen(tx.random().u64());
    tx.claim(POOL_SCOPE, NAME, &pool.to_string());
    Ok(pool.network())
}

/// Of the locally assigned addresses: `fd`, then 32 bits of chance.
fn chosen(chance: u64) -> Ipv6Net {
    let bits = 0xfd << 120 | u128::from(chance as u32) << 88;
    Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), POOL_PREFIX_LEN)
}

fn block(pool: Ipv6Addr, number: u64) -> Ipv6Net {
    let bits = pool.to_bits() | u128::from(number) << (128 - BLOCK_PREFIX_LEN);
    Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), BLOCK_PREFIX_LEN)
}

/// Of one's own: there are none.
pub async fn describe_ipv6_pools(
    _: &Context,
    input: ec2::DescribeIpv6PoolsRequest,
) -> Result<ec2::DescribeIpv6PoolsResult> {
    if let Some(id) = input.pool_ids.first() {
        return Err(not_found(id));
    }
    describe::none(&[], &input.filters, input.max_results, input.next_token.as_deref())?;
    Ok(ec2::DescribeIpv6PoolsResult::default())
}

pub async fn get_associated_ipv6_pool_cidrs(
    _: &Context,
    input: ec2::GetAssociatedIpv6PoolCidrsRequest,
) -> Result<ec2::GetAssociatedIpv6PoolCidrsResult> {
    Err(not_found(input.pool_id.as_deref().unwrap_or_default()))
}

fn not_found(id: &str) -> Error {
    Error::new("InvalidPoolID.NotFound", format!("The pool ID '{id}' does not exist."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fill_the_pool_and_no_more() {
        let pool = chosen(u64::MAX);
        assert_eq!(pool.to_string(), "fdff:ffff:ff00::/40");
        assert_eq!(chosen(0x1234_5678).to_string(), "fd12:3456:7800::/40");
        assert_eq!(block(pool.network(), 0).to_string(), "fdff:ffff:ff00::/56");
        assert_eq!(block(pool.network(), BLOCKS - 1).to_string(), "fdff:ffff:ffff:ff00::/56");
        assert!(pool.contains(&block(pool.network(), BLOCKS - 1)));
    }
}
