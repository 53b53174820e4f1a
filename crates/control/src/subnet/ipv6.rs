//! A subnet's IPv6 block.

use super::{IPV6_ASSOCIATION, Subnet, depend, reservation};
use crate::Context;
use crate::cidr::{self, CidrAssociation, overlap6};
use crate::engine::unsupported::{given, refuse};
use crate::engine::{Tables, Tx};
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
    if !is_free(tables, vpc, cidr) {
        let message = format!("The CIDR '{cidr}' conflicts with another subnet");
        return Err(Error::new("InvalidSubnet.Conflict", message));
    }
    Ok(())
}

fn is_free(tables: &Tables, vpc: &Vpc, cidr: Ipv6Net) -> bool {
    let mut taken = tables.subnets.with("vpc-id", &vpc.vpc_id).filter_map(|subnet| subnet.ipv6.as_ref());
    !taken.any(|other| overlap6(other.cidr, cidr))
}

/// A block of the VPC's that no subnet has.
pub fn any_free(tables: &Tables, vpc: &Vpc) -> Option<Ipv6Net> {
    let mut blocks = vpc.ipv6_cidrs().flat_map(|of| of.subnets(64).into_iter().flatten());
    blocks.find(|cidr| is_free(tables, vpc, *cidr))
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
    let netmask = input.ipv6_netmask_length.is_some();
    refuse([(given(&input.ipv6_ipam_pool_id) || netmask, "IPAM pools are")])?;
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

/// In two steps, as what is deleted goes (`engine::retire`): no address is given of a block that goes, and then all that
/// were given before are seen.
pub async fn disassociate_subnet_cidr_block(
    context: &Context,
    input: ec2::DisassociateSubnetCidrBlockRequest,
) -> Result<ec2::DisassociateSubnetCidrBlockResult> {
    let id = Id::parse(Kind::SubnetCidrAssociation, input.association_id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            let subnet = holder(tx, &id)?;
            if subnet.cidr.is_none() {
                return Err(Error::new(
                    "OperationNotPermitted",
                    format!("The IPv6 CIDR block with association ID {id} is the only one of an IPv6-only subnet and may not be disassociated."),
                ));
            }
            tx.put(&Subnet { ipv6_goes: true, ..subnet });
            Ok(())
        })
        .await?;
    let (subnet, gone) = context
        .transact(|tx| {
            let subnet = holder(tx, &id)?;
            let kept = Subnet { ipv6_goes: false, ..subnet.clone() };
            let gone = !is_used(tx.tables(), &subnet);
            tx.put(&if gone { Subnet { ipv6: None, assign_ipv6_on_creation: false, ..kept } } else { kept });
            Ok((subnet, gone))
        })
        .await?;
    let Some(removed) = subnet.ipv6.as_ref().filter(|_| gone) else {
        return Err(Error::new(
            "DependencyViolation",
            format!("The IPv6 CIDR block with association ID {id} is in use and may not be disassociated."),
        ));
    };
    Ok(ec2::DisassociateSubnetCidrBlockResult {
        subnet_id: Some(subnet.subnet_id.to_string()),
        ipv6_cidr_block_association: Some(to_api(removed, "disassociating")),
    })
}

/// The subnet that has the association.
fn holder(tx: &mut Tx<'_>, id: &Id) -> Result<Subnet> {
    let holder = tx.tables().subnets.with(IPV6_ASSOCIATION, id).next().cloned();
    let found = holder.and_then(|subnet| tx.get::<Subnet>(&subnet.subnet_id));
    let found = found.filter(|subnet| subnet.ipv6.as_ref().is_some_and(|of| of.association_id == *id));
    found.map(|subnet| (*subnet).clone()).ok_or_else(|| Id::not_found(Kind::SubnetCidrAssociation, id))
}

/// Whether an interface has anything of its block, or a part of it is reserved.
fn is_used(tables: &Tables, subnet: &Subnet) -> bool {
    tables.ipv6_blocks.count("subnet-id", &subnet.subnet_id) > 0
        || reservation::reserved6(tables, &subnet.subnet_id, false).next().is_some()
}

/// Lets blocks stay whose going a crash has cut short: nothing of it was acknowledged.
pub(crate) fn keep_all(tx: &mut Tx<'_>) {
    let going = tx.tables().subnets.iter().filter(|subnet| subnet.ipv6_goes);
    for id in going.map(|subnet| subnet.subnet_id.clone()).collect::<Vec<_>>() {
        if let Some(subnet) = tx.get::<Subnet>(&id) {
            tx.put(&Subnet { ipv6_goes: false, ..(*subnet).clone() });
        }
    }
}
