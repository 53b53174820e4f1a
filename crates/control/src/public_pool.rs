//! Pools of public addresses that the operator brings: prefixes of the network around the hosts, of which nobody else
//! there uses an address.
//!
//! To EC2's callers they are public IPv4 pools of the account (EC2 User Guide, "Bring your own IP addresses"): they can
//! be named where an elastic address is allocated. Who names none is given an address of any of them. Only where there
//! is none do addresses come from the cloud's built-in pool, which nobody but the cloud's own machine has a route to.
//!
//! A pool's hosts answer for its addresses on the interface that it names (ARP); one without an interface is routed to
//! the host by somebody else.

use crate::engine::describe::{self, Query};
use crate::engine::retire::{self, Retire};
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, filter};
use crate::{Context, cidr, description, operator, public_address};
use aws_api::{cumulet, ec2};
use ipnet::Ipv4Net;
use model::{Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

pub mod byoip;

/// The shortest prefix that a pool may have: a network of class A.
const PREFIX_LEN_MIN: u8 = 8;
/// The kernel's bound on an interface's name (`IFNAMSIZ`).
const INTERFACE_LEN_MAX: usize = 15;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublicPool {
    pub pool_id: Id,
    pub cidr: Ipv4Net,
    /// Of the hosts; None where the prefix is routed to them.
    pub interface: Option<String>,
    pub description: String,
    #[serde(default)]
    pub retired: bool,
    pub tags: Tags,
}

impl Record for PublicPool {
    const TABLE: &'static str = "public-pool";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        &self.pool_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "pool-id" => filter::one(values, self.pool_id.as_str()),
            _ => false,
        }
    }
}

impl Retire for PublicPool {
    fn retired(&mut self) -> &mut bool {
        &mut self.retired
    }

    fn is_retired(&self) -> bool {
        self.retired
    }
}

impl PublicPool {
    /// As hosts are told.
    pub fn to_desired(&self) -> datapath::PublicPool {
        datapath::PublicPool { cidr: self.cidr, interface: self.interface.clone() }
    }

    /// How many addresses it has, and how many are nobody's.
    fn count(&self, tables: &Tables) -> (usize, usize) {
        let usable = public_address::usable(self.cidr);
        let total = (usable.end - usable.start) as usize;
        (total, total.saturating_sub(public_address::taken(tables, self.cidr).count()))
    }

    fn to_operator(&self, tables: &Tables) -> cumulet::PublicPool {
        let (total, available) = self.count(tables);
        cumulet::PublicPool {
            pool_id: Some(self.pool_id.to_string()),
            cidr: Some(self.cidr.to_string()),
            interface: self.interface.clone(),
            description: Some(self.description.clone()).filter(|text| !text.is_empty()),
            addresses: Some(total as i64),
            available: Some(available as i64),
        }
    }
}

/// The pool that an address is of; None of the built-in one.
pub fn of(tables: &Tables, address: Ipv4Addr) -> Option<&PublicPool> {
    tables.public_pools.iter().map(|pool| &**pool).find(|pool| pool.cidr.contains(&address))
}

/// What EC2's callers know it as.
pub fn name_of(tables: &Tables, address: Ipv4Addr) -> String {
    of(tables, address).map_or("amazon".to_owned(), |pool| pool.pool_id.to_string())
}

pub fn not_found(id: &str) -> Error {
    Error::new("InvalidPublicIpv4PoolID.NotFound", format!("The public IPv4 pool ID '{id}' does not exist"))
}

/// The pool that a request names.
pub fn parse(id: &str) -> Result<Id> {
    match Id::is_well_formed(Kind::PublicIpv4Pool, id) {
        true => Id::parse(Kind::PublicIpv4Pool, id),
        false => Err(not_found(id)),
    }
}

fn refuse<T>(message: String) -> Result<T> {
    Err(Error::new("ValidationException", message))
}

/// Made again as it is it stays as it is.
pub async fn create_public_pool(
    context: &Context,
    input: cumulet::CreatePublicPoolRequest,
) -> Result<cumulet::CreatePublicPoolResponse> {
    let text = input.cidr.unwrap_or_default();
    let Ok(cidr) = cidr::ipv4("cidr", &text) else {
        return refuse(format!("'{text}' is no IPv4 prefix, as 192.168.50.0/24 is"));
    };
    if cidr.prefix_len() < PREFIX_LEN_MIN || !is_unicast(cidr) {
        return refuse(format!(
            "{cidr} can't be public addresses: it is too large, or not of single machines"
        ));
    }
    let interface = input.interface.filter(|name| !name.is_empty());
    if let Some(name) = &interface {
        check_interface(context, name, cidr)?;
    }
    let about = input.description.unwrap_or_default();
    description::check(&about)?;
    let builtin = context.options.public_pool;
    if cidr::overlap(cidr, builtin) {
        return refuse(format!(
            "{cidr} overlaps with {builtin}, which the cloud has from its start (--public-pool)"
        ));
    }
    let pool = context
        .transact(|tx| {
            let had = tx.tables().public_pools.iter().find(|pool| cidr::overlap(pool.cidr, cidr)).cloned();
            if let Some(had) = had {
                let same = had.cidr == cidr && had.interface == interface && !had.retired;
                return match same {
                    true => Ok((*had).clone()),
                    false => {
                        let message = format!("{cidr} overlaps with {} ({})", had.cidr, had.pool_id);
                        Err(Error::new("ConflictException", message).with_status(409))
                    }
                };
            }
            let pool = PublicPool {
                pool_id: tx.new_id(Kind::PublicIpv4Pool),
                cidr,
                interface: interface.clone(),
                description: about.clone(),
                retired: false,
                tags: Tags::default(),
            };
            // Two that overlap are not made at one moment.
            tx.serialize("public-pools");
            tx.create(&pool);
            Ok(pool)
        })
        .await?;
    Ok(cumulet::CreatePublicPoolResponse { public_pool: Some(pool.to_operator(&context.tables())) })
}

fn is_unicast(cidr: Ipv4Net) -> bool {
    let (first, last) = (cidr.network(), cidr.broadcast());
    let is_one = |address: Ipv4Addr| {
        !address.is_multicast()
            && !address.is_loopback()
            && !address.is_link_local()
            && address.octets()[0] < 240
    };
    first.octets()[0] != 0 && is_one(first) && is_one(last)
}

/// Whether the hosts have the interface, and none has an address of the pool itself.
fn check_interface(context: &Context, name: &str, cidr: Ipv4Net) -> Result<()> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
    if name.len() > INTERFACE_LEN_MAX || !name.bytes().all(is_name) {
        return refuse(format!("'{name}' is no name of a network interface"));
    }
    for host in &context.region.hosts {
        let host = &host.description;
        let Some(link) = host.links.iter().find(|link| link.name == name) else {
            let known: Vec<&str> = host.links.iter().map(|link| link.name.as_str()).collect();
            return refuse(format!(
                "The host {} has no interface {name}; when the cloud started it had {}",
                host.host_id,
                known.join(", ")
            ));
        };
        if let Some(own) = link.addresses.iter().find(|own| cidr.contains(*own)) {
            return refuse(format!(
                "{own} of {cidr} is the host's own: a pool has addresses that nobody on the network uses"
            ));
        }
    }
    Ok(())
}

pub async fn delete_public_pool(context: &Context, input: cumulet::DeletePublicPoolRequest) -> Result<()> {
    let id = input.pool_id.unwrap_or_default();
    let pool = context.region.view.record::<PublicPool>(&id);
    let not_found = || {
        let message = format!("There is no pool '{id}'");
        Error::new("ResourceNotFoundException", message).with_status(404)
    };
    let cidr = pool.ok_or_else(not_found)?.cidr;
    let in_use = |tables: &Tables| {
        let user = public_address::taken(tables, cidr).next()?;
        let message = format!("The pool '{id}' is in use, {user} for one");
        Some(Error::new("ConflictException", message).with_status(409))
    };
    retire::delete::<PublicPool>(context, &id, not_found, in_use, |tx, pool| {
        public_address::forget(tx, pool.cidr)
    })
    .await
}

pub async fn list_public_pools(
    context: &Context,
    input: cumulet::ListPublicPoolsRequest,
) -> Result<cumulet::ListPublicPoolsResponse> {
    let tables = context.tables();
    let (rows, next_token) =
        operator::page(&tables.public_pools, input.max_results, input.next_token.as_deref());
    Ok(cumulet::ListPublicPoolsResponse {
        next_token,
        public_pools: rows.into_iter().map(|pool| pool.to_operator(&tables)).collect(),
    })
}

pub async fn describe_public_ipv4_pools(
    context: &Context,
    input: ec2::DescribePublicIpv4PoolsRequest,
) -> Result<ec2::DescribePublicIpv4PoolsResult> {
    let tables = context.tables();
    for id in &input.pool_ids {
        let id = parse(id)?;
        tables.public_pools.find(&id).ok_or_else(|| not_found(&id))?;
    }
    let query = Query {
        ids: &input.pool_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "poolIds",
    };
    let page =
        describe::select(&tables.public_pools, Kind::PublicIpv4Pool, &query, |_| true, |_, _, _| false)?;
    let region = context.region.view.region.as_str();
    Ok(ec2::DescribePublicIpv4PoolsResult {
        public_ipv4_pools: page.records.iter().map(|pool| to_api(&tables, pool, region)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(tables: &Tables, pool: &PublicPool, region: &str) -> ec2::PublicIpv4Pool {
    let (total, available) = pool.count(tables);
    let usable = public_address::usable(pool.cidr);
    let address = |number: u64| Some(Ipv4Addr::from(number as u32).to_string());
    let range = ec2::PublicIpv4PoolRange {
        first_address: address(usable.start),
        last_address: address(usable.end - 1),
        address_count: Some(total as i32),
        available_address_count: Some(available as i32),
    };
    ec2::PublicIpv4Pool {
        pool_id: Some(pool.pool_id.to_string()),
        description: Some(pool.description.clone()),
        pool_address_ranges: vec![range],
        total_address_count: Some(total as i32),
        total_available_address_count: Some(available as i32),
        network_border_group: Some(region.to_owned()),
        tags: pool.tags.to_api(),
    }
}
