//! The default VPC that every region begins with (VPC User Guide, "Default VPCs"): 172.31.0.0/16, a /20 subnet in
//! each zone that gives public addresses, an internet gateway, and the main route table, network ACL, security
//! group and DHCP options.

use crate::Control;
use crate::dhcp_options::DhcpOptions;
use crate::engine::{Tags, Tx, transaction};
use crate::image;
use crate::internet_gateway::InternetGateway;
use crate::network_acl::NetworkAcl;
use crate::region::{RegionState, Zone};
use crate::route_table::RouteTable;
use crate::security_group::SecurityGroup;
use crate::subnet::Subnet;
use crate::vpc::Vpc;
use ipnet::Ipv4Net;
use model::{AccountId, Kind, Result};
use std::net::Ipv4Addr;
use std::sync::Arc;

const CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 31, 0, 0), 16);
const SUBNET_PREFIX_LEN: u8 = 20;

/// Makes the default VPC of a region that has nothing yet. One transaction: a region has all of it or none.
pub(crate) async fn ensure(control: &Control, region: &Arc<RegionState>) -> Result<()> {
    if !region.view.read().vpcs.is_empty() {
        return Ok(());
    }
    let account = &control.options.account;
    transaction::transact(&*control.store, &region.view, &control.environment, |tx| {
        make(tx, account, &region.zones);
        if control.options.simulate {
            for image in image::default_images(tx.region(), tx.now()) {
                tx.create(&image);
            }
        }
        Ok(())
    })
    .await
}

fn make(tx: &mut Tx<'_>, account: &AccountId, zones: &[Zone]) {
    let dhcp_options = DhcpOptions::amazon(tx, account);
    let vpc = Vpc {
        vpc_id: tx.new_id(Kind::Vpc),
        owner: account.clone(),
        cidr: CIDR,
        cidr_association_id: tx.new_id(Kind::VpcCidrAssociation),
        dhcp_options_id: dhcp_options.dhcp_options_id.clone(),
        is_default: true,
        dns_support: true,
        dns_hostnames: true,
        tags: Tags::default(),
    };
    let gateway = InternetGateway::attached_to(tx, account, &vpc.vpc_id);
    let subnets: Vec<Subnet> = CIDR
        .subnets(SUBNET_PREFIX_LEN)
        .into_iter()
        .flatten()
        .zip(zones)
        .map(|(cidr, zone)| Subnet {
            subnet_id: tx.new_id(Kind::Subnet),
            owner: account.clone(),
            vpc_id: vpc.vpc_id.clone(),
            cidr,
            zone: zone.name.clone(),
            zone_id: zone.id.clone(),
            default_for_zone: true,
            map_public_ip_on_launch: true,
            tags: Tags::default(),
        })
        .collect();
    let route_table = RouteTable::main_with_gateway(tx, account, &vpc, &gateway.internet_gateway_id);
    let acl =
        NetworkAcl::default_for(tx, account, &vpc, subnets.iter().map(|subnet| subnet.subnet_id.clone()));
    let group = SecurityGroup::default_for(tx, account, &vpc.vpc_id);
    // Claimed together with the rest: of two control nodes that make the same region, one wins.
    tx.claim("default-vpc", "the", &vpc.vpc_id);
    tx.create(&dhcp_options);
    tx.create(&vpc);
    tx.create(&gateway);
    subnets.iter().for_each(|subnet| tx.create(subnet));
    tx.create(&route_table);
    tx.create(&acl);
    tx.create(&group);
}
