//! The records, as a trace looks things up in them.

use crate::engine::Tables;
use crate::instance::desired::interface_desired;
use crate::network_interface::{NOT_ONE_ADDRESS_IN, NetworkInterface};
use crate::subnet::Subnet;
use crate::{security_group, vpc};
use datapath::trace::Ground;
use datapath::{Interface, SecurityGroup, Vpc};
use model::{Id, Region};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub struct Records<'t> {
    pub tables: &'t Tables,
    pub region: &'t Region,
}

/// As hosts are told of it.
pub fn told(interface: &NetworkInterface) -> Interface {
    interface_desired(interface, None).network
}

impl Records<'_> {
    /// Whose an address is in a VPC, whoever keeps the interface.
    pub fn holder(&self, vpc_id: &Id, address: IpAddr) -> Option<&Arc<NetworkInterface>> {
        match address {
            IpAddr::V4(address) => self.with_ipv4(vpc_id, address),
            IpAddr::V6(address) => self.with_ipv6(vpc_id, address),
        }
    }

    fn with_ipv4(&self, vpc_id: &Id, address: Ipv4Addr) -> Option<&Arc<NetworkInterface>> {
        let interfaces = &self.tables.network_interfaces;
        let mut holders = interfaces.with("private-ip-address", &address.to_string());
        holders.find(|interface| interface.vpc_id == *vpc_id).or_else(|| {
            let mut subnets = self.tables.subnets.with("vpc-id", vpc_id);
            let subnet = subnets.find(|subnet| subnet.cidr.is_some_and(|cidr| cidr.contains(&address)))?;
            let mut several = interfaces.with(NOT_ONE_ADDRESS_IN, &subnet.subnet_id);
            several.find(|interface| interface.prefixes.iter().any(|prefix| prefix.contains(&address)))
        })
    }

    fn with_ipv6(&self, vpc_id: &Id, address: Ipv6Addr) -> Option<&Arc<NetworkInterface>> {
        let mut subnets = self.tables.subnets.with("vpc-id", vpc_id);
        let is_its =
            |subnet: &&Arc<Subnet>| subnet.ipv6.as_ref().is_some_and(|of| of.cidr.contains(&address));
        let subnet = subnets.find(is_its)?;
        let mut interfaces = self.tables.network_interfaces.with("subnet-id", &subnet.subnet_id);
        interfaces.find(|interface| interface.networks().any(|net| net.contains(&IpAddr::V6(address))))
    }
}

impl Ground for Records<'_> {
    fn vpc(&self, vpc_id: &Id) -> Option<Cow<'_, Vpc>> {
        let vpc = self.tables.vpcs.find(vpc_id)?;
        Some(Cow::Owned(vpc::desired(vpc, self.tables, self.region, 0).network))
    }

    fn interface(&self, interface_id: &Id) -> Option<Cow<'_, Interface>> {
        self.tables.network_interfaces.find(interface_id).map(|interface| Cow::Owned(told(interface)))
    }

    fn owner(&self, vpc_id: &Id, address: IpAddr) -> Option<Cow<'_, Interface>> {
        // A NAT gateway's is told with its VPC.
        let holder = self.holder(vpc_id, address).filter(|interface| !interface.is_managed());
        holder.map(|interface| Cow::Owned(told(interface)))
    }

    fn inward(&self, address: IpAddr) -> Option<(Id, IpAddr)> {
        match address {
            IpAddr::V4(public_ip) => {
                let public = public_ip.to_string();
                let mut holders = self.tables.network_interfaces.with("association.public-ip", &public);
                let interface = holders.next()?;
                let own = interface.addresses.iter().find(|own| own.public_ip() == Some(public_ip))?;
                Some((interface.vpc_id.clone(), own.private_ip.into()))
            }
            IpAddr::V6(inside) => {
                let mut vpcs = self.tables.vpcs.iter();
                let vpc = vpcs.find(|vpc| vpc.ipv6_cidrs().any(|cidr| cidr.contains(&inside)))?;
                Some((vpc.vpc_id.clone(), address))
            }
        }
    }

    fn group(&self, group_id: &Id) -> Option<Cow<'_, SecurityGroup>> {
        let group = self.tables.security_groups.find(group_id)?;
        Some(Cow::Owned(security_group::to_desired(group, self.tables)))
    }
}
