//! Subnets, and the choice of addresses in them.

use crate::Context;
use crate::cidr::CidrAssociation;
use crate::engine::describe::{self, Query};
use crate::engine::retire::{self, Retire};
use crate::engine::table::{Record, Values};
use crate::engine::{Claim, Tables, Tags, Tx, filter};
use crate::host_names::HostNames;
use crate::network_interface::NOT_ONE_ADDRESS_IN;
use crate::region::Zone;
use crate::vpc::Vpc;
use crate::vpc_block_public_access;
use aws_api::ec2;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{AccountId, Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;

pub mod attribute;
pub mod create;
pub mod ipv6;
pub mod ipv6_block;
pub mod reservation;

/// The first four addresses and the last are the network's, the router's, the resolver's, a reserved one and the
/// broadcast address (VPC User Guide, "Subnet CIDR blocks").
pub const RESERVED_FIRST: u32 = 4;
pub const RESERVED: u32 = 5;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    pub subnet_id: Id,
    pub owner: AccountId,
    pub vpc_id: Id,
    /// None where it is of IPv6 alone.
    pub cidr: Option<Ipv4Net>,
    #[serde(default)]
    pub ipv6: Option<CidrAssociation<Ipv6Net>>,
    /// That one is about to go: nothing of it is given any more.
    #[serde(default)]
    pub ipv6_goes: bool,
    pub zone: String,
    pub zone_id: String,
    pub default_for_zone: bool,
    pub map_public_ip_on_launch: bool,
    #[serde(default)]
    pub assign_ipv6_on_creation: bool,
    /// `EnableDns64`: its guests find by name what has IPv4 alone.
    #[serde(default)]
    pub dns64: bool,
    #[serde(default)]
    pub names: HostNames,
    #[serde(default)]
    pub retired: bool,
    pub tags: Tags,
}

impl Subnet {
    /// Without a block of IPv4 it is of IPv6 alone: what is in it is named after itself and has an address of IPv6.
    pub fn new(tx: &Tx<'_>, vpc: &Vpc, cidr: Option<Ipv4Net>, zone: &Zone) -> Subnet {
        let ipv6_only = cidr.is_none();
        Subnet {
            subnet_id: tx.new_id(Kind::Subnet),
            owner: vpc.owner.clone(),
            vpc_id: vpc.vpc_id.clone(),
            cidr,
            ipv6: None,
            ipv6_goes: false,
            zone: zone.name.clone(),
            zone_id: zone.id.clone(),
            default_for_zone: false,
            map_public_ip_on_launch: false,
            assign_ipv6_on_creation: ipv6_only,
            dns64: false,
            names: HostNames {
                by_resource: ipv6_only,
                resource_aaaa_record: ipv6_only,
                ..HostNames::default()
            },
            retired: false,
            tags: Tags::default(),
        }
    }

    /// Under which an address of the subnet is claimed.
    pub fn claim_scope(subnet_id: &str) -> String {
        format!("address/{subnet_id}")
    }

    /// Its blocks, of both families.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        let ipv6 = self.ipv6.as_ref().map(|of| IpNet::from(of.cidr));
        self.cidr.map(IpNet::from).into_iter().chain(ipv6)
    }

    /// Its block of IPv4, where something needs one.
    pub fn ipv4(&self) -> Result<Ipv4Net> {
        self.cidr.ok_or_else(|| {
            Error::invalid_parameter_value(format!("The subnet '{}' has no IPv4 CIDR block.", self.subnet_id))
        })
    }

    /// Of IPv4.
    pub fn free_addresses(&self, tables: &Tables) -> u32 {
        let Some(cidr) = self.cidr else { return 0 };
        let size = 1u64 << (32 - cidr.prefix_len());
        let interfaces = &tables.network_interfaces;
        let all = interfaces.count("subnet-id", &self.subnet_id);
        let others = interfaces.count(NOT_ONE_ADDRESS_IN, &self.subnet_id);
        let of_others = interfaces.with(NOT_ONE_ADDRESS_IN, &self.subnet_id);
        let used = all - others + of_others.map(|interface| interface.used_addresses()).sum::<usize>();
        size.saturating_sub(u64::from(RESERVED) + used as u64) as u32
    }
}

/// Reads a subnet for something that comes to be in it: one that is about to be deleted takes nothing more.
pub fn depend(tx: &mut Tx<'_>, id: &str) -> Result<Arc<Subnet>> {
    Id::parse(Kind::Subnet, id)?;
    retire::depend(tx, id).ok_or_else(|| Id::not_found(Kind::Subnet, id))
}

impl Retire for Subnet {
    fn retired(&mut self) -> &mut bool {
        &mut self.retired
    }

    fn is_retired(&self) -> bool {
        self.retired
    }
}

/// Claims an address of the subnet for an interface: the wanted one, or any free one.
pub fn claim_address(
    tx: &mut Tx<'_>,
    subnet: &Subnet,
    wanted: Option<Ipv4Addr>,
    owner: &str,
) -> Result<Ipv4Addr> {
    let scope = Subnet::claim_scope(&subnet.subnet_id);
    let cidr = subnet.ipv4()?;
    if let Some(address) = wanted {
        if !is_assignable(cidr, address) {
            return Err(Error::invalid_parameter_value(format!(
                "Address {address} does not fall within the subnet's address range"
            )));
        }
        return if tx.claim(&scope, &address.to_string(), owner) {
            Ok(address)
        } else {
            Err(Error::new("InvalidIPAddress.InUse", format!("Address {address} is in use.")))
        };
    }
    let reserved = reservation::reserved(tx.tables(), &subnet.subnet_id, false);
    let is_free = |address: &Ipv4Addr| !reserved.iter().any(|cidr| cidr.contains(address));
    claim_any(tx, &scope, assignable(cidr), is_free, usize::MAX, owner).ok_or_else(|| {
        Error::new(
            "InsufficientFreeAddressesInSubnet",
            format!("There are not enough free addresses in subnet '{}' to satisfy the requested number of instances.", subnet.subnet_id),
        )
    })
}

/// Claims a free address of a range, looked for from a random place on, so that one just released seldom comes
/// again at once; one of those that may be had, within so many probes.
pub fn claim_any(
    tx: &mut Tx<'_>,
    scope: &str,
    range: Range<u64>,
    may_be_had: impl Fn(&Ipv4Addr) -> bool,
    probes: usize,
    owner: &str,
) -> Option<Ipv4Addr> {
    let count = range.end.saturating_sub(range.start);
    if count == 0 {
        return None;
    }
    let begin = tx.random().u64() % count;
    (0..count).map(|step| Ipv4Addr::from((range.start + (begin + step) % count) as u32)).take(probes).find(
        |address| {
            may_be_had(address)
                && !tx.tables().claims.contains(&Claim::key(scope, &address.to_string()))
                && tx.claim(scope, &address.to_string(), owner)
        },
    )
}

/// Length of the prefixes that are delegated to interfaces (EC2 User Guide, "Prefix delegation").
pub const PREFIX_LEN: u8 = 28;

/// Claims a whole prefix of the subnet for an interface: the wanted one, or one that is free.
pub fn claim_prefix(
    tx: &mut Tx<'_>,
    subnet: &Subnet,
    wanted: Option<Ipv4Net>,
    owner: &str,
) -> Result<Ipv4Net> {
    let scope = Subnet::claim_scope(&subnet.subnet_id);
    let cidr = subnet.ipv4()?;
    // The reserved addresses are in the first prefix and in the last.
    let is_whole = |prefix: &Ipv4Net| addresses(*prefix).all(|address| is_assignable(cidr, address));
    if let Some(prefix) = wanted {
        if !cidr.contains(&prefix) || !is_whole(&prefix) {
            return Err(Error::invalid_parameter_value(format!(
                "Prefix {prefix} does not fall within the subnet's address range"
            )));
        }
        return match take(tx, &scope, prefix, owner) {
            true => Ok(prefix),
            false => Err(Error::new("InvalidIPAddress.InUse", format!("Prefix {prefix} is in use."))),
        };
    }
    let reserved = reservation::reserved(tx.tables(), &subnet.subnet_id, false);
    let preferred = reservation::reserved(tx.tables(), &subnet.subnet_id, true);
    let is_apart =
        |prefix: &Ipv4Net| !reserved.iter().any(|cidr| cidr.contains(prefix) || prefix.contains(cidr));
    let is_preferred = |prefix: &Ipv4Net| preferred.iter().any(|cidr| cidr.contains(prefix));
    let whole = cidr.subnets(PREFIX_LEN).into_iter().flatten().filter(is_whole);
    let mut prefixes: Vec<Ipv4Net> =
        whole.filter(|prefix| is_preferred(prefix) || is_apart(prefix)).collect();
    let start = tx.random().u64() as usize % prefixes.len().max(1);
    prefixes.rotate_left(start);
    prefixes.sort_by_key(|prefix| !is_preferred(prefix));
    let is_free =
        |prefix: &Ipv4Net| !addresses(*prefix).any(|address| tx.is_claimed(&scope, &address.to_string()));
    let free = prefixes.into_iter().find(is_free).ok_or_else(|| {
        Error::new(
            "InsufficientCidrBlocks",
            format!("There are not enough free CIDR blocks in subnet '{}'.", subnet.subnet_id),
        )
    })?;
    take(tx, &scope, free, owner);
    Ok(free)
}

fn take(tx: &mut Tx<'_>, scope: &str, prefix: Ipv4Net, owner: &str) -> bool {
    addresses(prefix).all(|address| tx.claim(scope, &address.to_string(), owner))
}

/// All of a network, its first and last too.
pub fn addresses(net: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    (net.network().to_bits()..=net.broadcast().to_bits()).map(Ipv4Addr::from)
}

/// The addresses that may be an interface's, as numbers.
fn assignable(cidr: Ipv4Net) -> Range<u64> {
    u64::from(u32::from(cidr.network()) + RESERVED_FIRST)..u32::from(cidr.broadcast()).into()
}

pub fn is_assignable(cidr: Ipv4Net, address: Ipv4Addr) -> bool {
    assignable(cidr).contains(&u32::from(address).into())
}

impl Record for Subnet {
    const TABLE: &'static str = "subnet";
    const INDEXED: &'static [&'static str] =
        &["vpc-id", "availability-zone", "default-for-az", IPV6_ASSOCIATION];

    fn id(&self) -> &str {
        &self.subnet_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "availability-zone" | "availabilityZone" => filter::one(values, self.zone.as_str()),
            "availability-zone-id" | "availabilityZoneId" => filter::one(values, self.zone_id.as_str()),
            "cidr-block" | "cidr" | "cidrBlock" => {
                filter::some(values, self.cidr.map(|cidr| cidr.to_string()))
            }
            "default-for-az" | "defaultForAz" => filter::one(values, filter::boolean(self.default_for_zone)),
            IPV6_ASSOCIATION => filter::some(values, self.ipv6.as_ref().map(|of| of.association_id.as_str())),
            "ipv6-cidr-block-association.ipv6-cidr-block" => {
                filter::some(values, self.ipv6.as_ref().map(|of| of.cidr.to_string()))
            }
            "ipv6-cidr-block-association.state" => {
                filter::some(values, self.ipv6.as_ref().map(|_| "associated"))
            }
            "outpost-arn" | "customer-owned-ipv4-pool" | "enable-lni-at-device-index" => true,
            "enable-dns64" => filter::one(values, filter::boolean(self.dns64)),
            "map-customer-owned-ip-on-launch" => filter::one(values, "false"),
            "ipv6-native" => filter::one(values, filter::boolean(self.cidr.is_none())),
            "map-public-ip-on-launch" => filter::one(values, filter::boolean(self.map_public_ip_on_launch)),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "state" => filter::one(values, "available"),
            "subnet-id" => filter::one(values, self.subnet_id.as_str()),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            _ => match name.strip_prefix("private-dns-name-options-on-launch.") {
                Some(name) => self.names.field(name, values),
                None => false,
            },
        }
    }
}

const IPV6_ASSOCIATION: &str = "ipv6-cidr-block-association.association-id";

pub async fn describe_subnets(
    context: &Context,
    input: ec2::DescribeSubnetsRequest,
) -> Result<ec2::DescribeSubnetsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.subnet_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "subnetIds",
    };
    let page = describe::select(
        &tables.subnets,
        Kind::Subnet,
        &query,
        |_| true,
        |subnet, name, values| match name {
            "available-ip-address-count" => filter::one(values, subnet.free_addresses(&tables).to_string()),
            "subnet-arn" => filter::one(values, context.arn("subnet", &subnet.subnet_id)),
            _ => false,
        },
    )?;
    let subnets = page.records.iter().map(|subnet| to_api(context, &tables, subnet)).collect();
    Ok(ec2::DescribeSubnetsResult { subnets, next_token: page.next_token })
}

fn to_api(context: &Context, tables: &Tables, subnet: &Subnet) -> ec2::Subnet {
    ec2::Subnet {
        subnet_id: Some(subnet.subnet_id.to_string()),
        subnet_arn: Some(context.arn("subnet", &subnet.subnet_id)),
        owner_id: Some(subnet.owner.to_string()),
        vpc_id: Some(subnet.vpc_id.to_string()),
        cidr_block: subnet.cidr.map(|cidr| cidr.to_string()),
        availability_zone: Some(subnet.zone.clone()),
        availability_zone_id: Some(subnet.zone_id.clone()),
        available_ip_address_count: Some(subnet.free_addresses(tables) as i32),
        default_for_az: Some(subnet.default_for_zone),
        map_public_ip_on_launch: Some(subnet.map_public_ip_on_launch),
        map_customer_owned_ip_on_launch: Some(false),
        assign_ipv6_address_on_creation: Some(subnet.assign_ipv6_on_creation),
        ipv6_cidr_block_association_set: subnet
            .ipv6
            .iter()
            .map(|of| ipv6::to_api(of, "associated"))
            .collect(),
        enable_dns64: Some(subnet.dns64),
        ipv6_native: Some(subnet.cidr.is_none()),
        state: Some("available".into()),
        private_dns_name_options_on_launch: Some(ec2::PrivateDnsNameOptionsOnLaunch {
            hostname_type: Some(subnet.names.kind().into()),
            enable_resource_name_dns_a_record: Some(subnet.names.resource_a_record),
            enable_resource_name_dns_aaaa_record: Some(subnet.names.resource_aaaa_record),
        }),
        block_public_access_states: Some(vpc_block_public_access::of_subnet(tables, subnet).to_api()),
        tags: subnet.tags.to_api(),
        ..Default::default()
    }
}
