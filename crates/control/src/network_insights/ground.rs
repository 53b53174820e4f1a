//! The records, as a trace looks things up in them.

use crate::engine::Tables;
use crate::instance::desired::interface_desired;
use crate::network_interface::{NOT_ONE_ADDRESS_IN, NetworkInterface};
use crate::{security_group, vpc};
use datapath::trace::Ground;
use datapath::{Interface, SecurityGroup, Vpc};
use model::{Id, Region};
use std::borrow::Cow;
use std::net::Ipv4Addr;
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
    fn with_prefix(&self, vpc_id: &Id, address: Ipv4Addr) -> Option<&Arc<NetworkInterface>> {
        let mut subnets = self.tables.subnets.with("vpc-id", vpc_id);
        let subnet = subnets.find(|subnet| subnet.cidr.contains(&address))?;
        let mut several = self.tables.network_interfaces.with(NOT_ONE_ADDRESS_IN, &subnet.subnet_id);
        several.find(|interface| interface.prefixes.iter().any(|prefix| prefix.contains(&address)))
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

    fn owner(&self, vpc_id: &Id, address: Ipv4Addr) -> Option<Cow<'_, Interface>> {
        let mut holders = self.tables.network_interfaces.with("private-ip-address", &address.to_string());
        let holder = holders.find(|interface| interface.vpc_id == *vpc_id);
        let holder = holder.or_else(|| self.with_prefix(vpc_id, address));
        // A NAT gateway's is told with its VPC.
        holder.filter(|interface| !interface.is_managed()).map(|interface| Cow::Owned(told(interface)))
    }

    fn translated(&self, public_ip: Ipv4Addr) -> Option<(Id, Ipv4Addr)> {
        let public = public_ip.to_string();
        let interface = self.tables.network_interfaces.with("association.public-ip", &public).next()?;
        let own = interface.addresses.iter().find(|own| own.public_ip() == Some(public_ip))?;
        Some((interface.vpc_id.clone(), own.private_ip))
    }

    fn group(&self, group_id: &Id) -> Option<Cow<'_, SecurityGroup>> {
        let group = self.tables.security_groups.find(group_id)?;
        Some(Cow::Owned(security_group::to_desired(group, self.tables)))
    }
}
