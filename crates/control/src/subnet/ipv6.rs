//! A subnet's IPv6 block.

use super::{IPV6_ASSOCIATION, Subnet, depend};
use crate::Context;
use crate::cidr::{self, CidrAssociation, overlap6};
use crate::engine::Tables;
use crate::engine::unsupported::{given, refuse};
use crate::vpc::{self, Vpc};
use aws_api::ec2;
use ipnet::Ipv6Net;
use model::{Error, Id, Kind, Result};

/// EC2 takes /44 to /64, in steps of four (VPC User Guide, "Subnet CIDR blocks").
fn is_a_size(prefix_len: u8) -> bool {
    (44..=64).contains(&prefix_len) && prefix_len.is_multiple_of(4)
}

/// Whether the VPC has room for the block.
pub fn check(tables: &Tables, vpc: &Vpc, cidr: Ipv6Net) -> Result<()> {
    if !is_a_size(cidr.prefix_len()) || !vpc.ipv6_cidrs().any(|of| of.contains(&cidr)) {
        return Err(Error::new("InvalidSubnet.Range", format!("The CIDR '{cidr}' is invalid.")));
    }
    let mut taken = tables.subnets.with("vpc-id", &vpc.vpc_id).filter_map(|subnet| subnet.ipv6.as_ref());
    if taken.any(|other| overlap6(other.cidr, cidr)) {
        let message = format!("The CIDR '{cidr}' conflicts with another subnet");
        return Err(Error::new("InvalidSubnet.Conflict", message));
    }
    Ok(())
}

pub fn to_api(of: &CidrAssociation<Ipv6Net>, state: &str) -> ec2::SubnetIpv6CidrBlockAssociation {
    ec2::SubnetIpv6CidrBlockAssociation {
        association_id: Some(of.association_id.to_string()),
        ipv6_cidr_block: Some(of.cidr.to_string()),
        ipv6_cidr_block_state: Some(ec2::SubnetCidrBlockState {
            state: Some(state.into()),
            ..Default::default()
        }),
        ip_source: Some("amazon".into()),
        ..Default::default()
    }
}

pub async fn associate_subnet_cidr_block(
    context: &Context,
    input: ec2::AssociateSubnetCidrBlockRequest,
) -> Result<ec2::AssociateSubnetCidrBlockResult> {
    refuse([(given(&input.ipv6_ipam_pool_id), "IPAM pools are")])?;
    let text = input.ipv6_cidr_block.as_deref().filter(|text| !text.is_empty());
    let cidr = cidr::ipv6("ipv6CidrBlock", text.ok_or_else(|| Error::missing_parameter("ipv6CidrBlock"))?)?;
    let subnet_id = input.subnet_id.unwrap_or_default();
    let added = context
        .transact(|tx| {
            let mut subnet = (*depend(tx, &subnet_id)?).clone();
            if subnet.ipv6.is_some() {
                return Err(Error::new(
                    "SubnetIpv6CidrBlockLimitExceeded",
                    format!("The subnet '{subnet_id}' has an IPv6 CIDR block."),
                ));
            }
            let vpc = vpc::depend(tx, &subnet.vpc_id)?;
            check(tx.tables(), &vpc, cidr)?;
            // As where a subnet is made: of two that take a block at once, the second sees the first.
            tx.put(&*vpc);
            let added = CidrAssociation { association_id: tx.new_id(Kind::SubnetCidrAssociation), cidr };
            subnet.ipv6 = Some(added.clone());
            tx.put(&subnet);
            Ok(added)
        })
        .await?;
    Ok(ec2::AssociateSubnetCidrBlockResult {
        subnet_id: Some(subnet_id),
        ipv6_cidr_block_association: Some(to_api(&added, "associating")),
    })
}

pub async fn disassociate_subnet_cidr_block(
    context: &Context,
    input: ec2::DisassociateSubnetCidrBlockRequest,
) -> Result<ec2::DisassociateSubnetCidrBlockResult> {
    let id = Id::parse(Kind::SubnetCidrAssociation, input.association_id.as_deref().unwrap_or_default())?;
    let (subnet, removed) = context
        .transact(|tx| {
            let holder = tx.tables().subnets.with(IPV6_ASSOCIATION, &id).next().cloned();
            let found = holder.and_then(|subnet| tx.get::<Subnet>(&subnet.subnet_id));
            let found = found.ok_or_else(|| Id::not_found(Kind::SubnetCidrAssociation, &id))?;
            let mut subnet = (*found).clone();
            let removed =
                subnet.ipv6.take().ok_or_else(|| Id::not_found(Kind::SubnetCidrAssociation, &id))?;
            subnet.assign_ipv6_on_creation = false;
            tx.put(&subnet);
            Ok((subnet, removed))
        })
        .await?;
    Ok(ec2::DisassociateSubnetCidrBlockResult {
        subnet_id: Some(subnet.subnet_id.to_string()),
        ipv6_cidr_block_association: Some(to_api(&removed, "disassociating")),
    })
}
