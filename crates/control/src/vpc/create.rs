//! Making and deleting VPCs, with what every VPC has from the start: its main route table, its default network ACL and
//! its default security group.

use super::{Vpc, ipv6_pool, to_api};
use crate::Context;
use crate::cidr::{self as block, CidrAssociation};
use crate::default_vpc;
use crate::dhcp_options::DhcpOptions;
use crate::egress_only_internet_gateway;
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::engine::{Claim, Tables, Tags, Tx, retire};
use crate::network_acl::NetworkAcl;
use crate::route_table::RouteTable;
use crate::security_group::{self, SecurityGroup};
use crate::{vpc_block_public_access, vpc_peering_connection};
use aws_api::ec2;
use ipnet::Ipv4Net;
use model::{AccountId, Error, Id, Kind, Result, Timestamp};

const DEFAULT_SCOPE: &str = "default-vpc";
const DEFAULT: &str = "the";

/// A VPC and what comes with it.
pub struct NewVpc {
    pub vpc: Vpc,
    pub route_table: RouteTable,
    pub network_acl: NetworkAcl,
    security_group: SecurityGroup,
}

impl NewVpc {
    pub fn new(tx: &mut Tx<'_>, account: &AccountId, cidr: Ipv4Net) -> NewVpc {
        let vpc = Vpc {
            vpc_id: tx.new_id(Kind::Vpc),
            owner: account.clone(),
            cidr,
            cidr_association_id: tx.new_id(Kind::VpcCidrAssociation),
            secondary_cidrs: Vec::new(),
            ipv6_cidrs: Vec::new(),
            dhcp_options_id: Some(DhcpOptions::of_region(tx, account)),
            dedicated: false,
            is_default: false,
            dns_support: true,
            dns_hostnames: false,
            address_usage_metrics: false,
            retired: false,
            tags: Tags::default(),
        };
        let mut route_table = RouteTable::new(tx, account, &vpc);
        route_table.main_association_id = Some(tx.new_id(Kind::RouteTableAssociation));
        NewVpc {
            route_table,
            network_acl: NetworkAcl::default_for(tx, account, &vpc),
            security_group: SecurityGroup::default_for(tx, account, &vpc.vpc_id),
            vpc,
        }
    }

    pub fn add_ipv6(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let cidr = ipv6_pool::claim(tx, &self.vpc.vpc_id)?;
        let association_id = tx.new_id(Kind::VpcCidrAssociation);
        self.vpc.ipv6_cidrs.push(CidrAssociation { association_id, cidr });
        self.network_acl.know_ipv6();
        self.security_group.let_ipv6_out(tx);
        Ok(())
    }

    /// False where the region has a default VPC already.
    pub fn be_default(&mut self, tx: &mut Tx<'_>) -> bool {
        self.vpc.is_default = true;
        self.vpc.dns_hostnames = true;
        tx.claim(DEFAULT_SCOPE, DEFAULT, &self.vpc.vpc_id)
    }

    pub fn create(&self, tx: &mut Tx<'_>) {
        tx.create(&self.vpc);
        tx.create(&self.route_table);
        tx.create(&self.network_acl);
        tx.create(&self.security_group);
    }
}

pub async fn create_vpc(context: &Context, input: ec2::CreateVpcRequest) -> Result<ec2::CreateVpcResult> {
    refuse([
        (given(&input.ipv4_ipam_pool_id) || given(&input.ipv6_ipam_pool_id), "IPAM pools are"),
        (input.ipv4_netmask_length.or(input.ipv6_netmask_length).is_some(), "IPAM pools are"),
        (given(&input.ipv6_pool) || given(&input.ipv6_cidr_block), "IPv6 pools of one's own are"),
        (input.vpc_encryption_control.is_some(), "Encryption controls are"),
    ])?;
    let text = input.cidr_block.as_deref().filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Error::missing_parameter("cidrBlock"))?;
    let cidr = block::ipv4("cidrBlock", text)?;
    super::cidr::check_block(cidr)?;
    let dedicated = match input.instance_tenancy.as_deref() {
        None | Some("" | "default") => false,
        Some("dedicated") => true,
        Some(other) => {
            return Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter instanceTenancy is invalid. Expected 'default' or 'dedicated'."
            )));
        }
    };
    let ipv6 = input.amazon_provided_ipv6_cidr_block.unwrap_or(false);
    super::cidr::check_border_group(context, input.ipv6_cidr_block_network_border_group.as_deref(), ipv6)?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::Vpc])?;
    let vpc = context
        .transact(|tx| {
            let mut new = NewVpc::new(tx, context.account(), cidr);
            new.vpc.dedicated = dedicated;
            new.vpc.tags = tags.of(Kind::Vpc);
            if ipv6 {
                new.add_ipv6(tx)?;
            }
            new.create(tx);
            Ok(new.vpc)
        })
        .await?;
    Ok(ec2::CreateVpcResult { vpc: Some(to_api(&vpc, &context.tables(), &context.region.view.region)) })
}

pub async fn create_default_vpc(
    context: &Context,
    _: ec2::CreateDefaultVpcRequest,
) -> Result<ec2::CreateDefaultVpcResult> {
    let vpc = context
        .transact(|tx| {
            default_vpc::make(tx, context.account(), &context.region.zones).ok_or_else(|| {
                Error::new(
                    "DefaultVpcAlreadyExists",
                    "A Default VPC already exists for this account in this region.",
                )
            })
        })
        .await?;
    Ok(ec2::CreateDefaultVpcResult {
        vpc: Some(to_api(&vpc, &context.tables(), &context.region.view.region)),
    })
}

pub async fn delete_vpc(context: &Context, input: ec2::DeleteVpcRequest) -> Result<()> {
    let id = Id::parse(Kind::Vpc, input.vpc_id.as_deref().unwrap_or_default())?;
    let in_use = |tables: &Tables| {
        has_dependents(tables, &id, context.environment.clock.now()).then(|| {
            let message = format!("The vpc '{id}' has dependencies and cannot be deleted.");
            Error::new("DependencyViolation", message)
        })
    };
    retire::delete(context, &id, || Id::not_found(Kind::Vpc, &id), in_use, gone).await
}

/// Whether anything is in the VPC but what it came with.
fn has_dependents(tables: &Tables, id: &str, now: Timestamp) -> bool {
    let own = |group: &SecurityGroup| group.name == security_group::DEFAULT;
    tables.subnets.count("vpc-id", id) > 0
        || tables.network_interfaces.count("vpc-id", id) > 0
        || tables.internet_gateways.count("attachment.vpc-id", id) > 0
        || egress_only_internet_gateway::of_vpc(tables, id).is_some()
        || vpc_peering_connection::of_vpc(tables, id).any(|peering| peering.is_live(now))
        || tables.vpc_endpoints.count("vpc-id", id) > 0
        || tables.route_tables.with("vpc-id", id).any(|table| table.main_association_id.is_none())
        || tables.network_acls.with("vpc-id", id).any(|acl| !acl.is_default)
        || tables.security_groups.with("vpc-id", id).any(|group| !own(group))
}

fn gone(tx: &mut Tx<'_>, vpc: &Vpc) {
    let id = &*vpc.vpc_id;
    let tables = tx.tables();
    let route_tables: Vec<_> = tables.route_tables.with("vpc-id", id).cloned().collect();
    let network_acls: Vec<_> = tables.network_acls.with("vpc-id", id).cloned().collect();
    let groups: Vec<_> = tables.security_groups.with("vpc-id", id).cloned().collect();
    route_tables.iter().for_each(|table| tx.delete::<RouteTable>(&table.route_table_id));
    network_acls.iter().for_each(|acl| tx.delete::<NetworkAcl>(&acl.network_acl_id));
    groups.iter().for_each(|group| group.delete(tx));
    security_group::association::forget(tx, id);
    vpc_block_public_access::forget(tx, id);
    vpc.ipv6_cidrs().for_each(|cidr| ipv6_pool::release(tx, cidr));
    if vpc.is_default {
        tx.release(DEFAULT_SCOPE, DEFAULT);
    }
}

/// Whether somebody holds the place of the default VPC.
pub fn has_default(tables: &Tables) -> bool {
    tables.claims.contains(&Claim::key(DEFAULT_SCOPE, DEFAULT))
}
