//! The default VPC that every region begins with (VPC User Guide, "Default VPCs"): 172.31.0.0/16, a /20 subnet in
//! each zone that gives public addresses, an internet gateway, and the main route table, network ACL, security
//! group and DHCP options.

use crate::Control;
use crate::engine::{Tx, transaction};
use crate::image;
use crate::internet_gateway::InternetGateway;
use crate::region::{RegionState, Zone};
use crate::route_table::Route;
use crate::subnet::Subnet;
use crate::vpc::Vpc;
use crate::vpc::create::NewVpc;
use ipnet::Ipv4Net;
use model::{AccountId, Result};
use std::net::Ipv4Addr;
use std::sync::Arc;

const CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 31, 0, 0), 16);
const SUBNET_PREFIX_LEN: u8 = 20;

/// Says of a region that it has been made: its user may have deleted its default VPC since.
const MADE_SCOPE: &str = "region";
const MADE: &str = "made";

/// Makes what a region begins with. One transaction: a region has all of it or none.
pub(crate) async fn ensure(control: &Control, region: &Arc<RegionState>) -> Result<()> {
    let account = &control.options.account;
    transaction::transact(&*control.store, &region.view, &control.environment, |tx| {
        // Of two control nodes that make the same region, one wins.
        if !tx.claim(MADE_SCOPE, MADE, account.as_str()) || !tx.tables().vpcs.is_empty() {
            return Ok(());
        }
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

/// None where the region has one.
pub(crate) fn make(tx: &mut Tx<'_>, account: &AccountId, zones: &[Zone]) -> Option<Vpc> {
    let mut new = NewVpc::new(tx, account, CIDR);
    if !new.be_default(tx) {
        return None;
    }
    let mut gateway = InternetGateway::new(tx, account);
    gateway.attach(tx, &new.vpc);
    new.route_table.routes.push(Route::everything_to(&gateway));
    for (cidr, zone) in subnet_cidrs(&new.vpc).zip(zones) {
        let subnet = new_subnet(tx, &new.vpc, Some(cidr), zone);
        new.network_acl.associate(tx, &subnet.subnet_id);
        tx.create(&subnet);
    }
    tx.create(&gateway);
    new.create(tx);
    Some(new.vpc)
}

/// Where default subnets can be.
pub(crate) fn subnet_cidrs(vpc: &Vpc) -> impl Iterator<Item = Ipv4Net> + use<> {
    vpc.cidr.subnets(SUBNET_PREFIX_LEN).into_iter().flatten()
}

pub(crate) fn new_subnet(tx: &Tx<'_>, vpc: &Vpc, cidr: Option<Ipv4Net>, zone: &Zone) -> Subnet {
    Subnet {
        default_for_zone: true,
        map_public_ip_on_launch: cidr.is_some(),
        ..Subnet::new(tx, vpc, cidr, zone)
    }
}
