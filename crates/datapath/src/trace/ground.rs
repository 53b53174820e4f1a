//! What there is, as a trace looks it up.

use crate::{Interface, Plan, SecurityGroup, Vpc};
use ipnet::IpNet;
use model::Id;
use std::borrow::Cow;
use std::net::Ipv4Addr;

pub trait Ground {
    fn vpc(&self, vpc_id: &Id) -> Option<Cow<'_, Vpc>>;

    fn interface(&self, interface_id: &Id) -> Option<Cow<'_, Interface>>;

    /// The interface of an instance that has this private address in the VPC.
    fn owner(&self, vpc_id: &Id, address: Ipv4Addr) -> Option<Cow<'_, Interface>>;

    /// The VPC and the private address that have this public one.
    fn translated(&self, public_ip: Ipv4Addr) -> Option<(Id, Ipv4Addr)>;

    fn group(&self, group_id: &Id) -> Option<Cow<'_, SecurityGroup>>;
}

impl Interface {
    /// Whether an address is its own: one of it, or of a prefix that is delegated to it.
    pub fn has(&self, address: Ipv4Addr) -> bool {
        let in_prefix = |prefix: &IpNet| matches!(prefix, IpNet::V4(net) if net.contains(&address));
        self.addresses.iter().any(|own| own.private_ip == address) || self.prefixes.iter().any(in_prefix)
    }
}

/// As a host that has all of it sees it.
impl Ground for Plan {
    fn vpc(&self, vpc_id: &Id) -> Option<Cow<'_, Vpc>> {
        self.vpcs.iter().find(|vpc| vpc.vpc_id == *vpc_id).map(Cow::Borrowed)
    }

    fn interface(&self, interface_id: &Id) -> Option<Cow<'_, Interface>> {
        let elsewhere = self.elsewhere.iter().map(|one| &one.interface);
        let mut all = self.interfaces.iter().chain(elsewhere);
        all.find(|interface| interface.interface_id == *interface_id).map(Cow::Borrowed)
    }

    fn owner(&self, vpc_id: &Id, address: Ipv4Addr) -> Option<Cow<'_, Interface>> {
        let elsewhere = self.elsewhere.iter().map(|one| &one.interface);
        let mut all = self.interfaces.iter().chain(elsewhere);
        all.find(|interface| interface.vpc_id == *vpc_id && interface.has(address)).map(Cow::Borrowed)
    }

    fn translated(&self, public_ip: Ipv4Addr) -> Option<(Id, Ipv4Addr)> {
        let interfaces = self.interfaces.iter().map(|interface| (&interface.vpc_id, &interface.addresses));
        let nats =
            self.vpcs.iter().flat_map(|vpc| vpc.nat_gateways.iter().map(|nat| (&vpc.vpc_id, &nat.addresses)));
        interfaces.chain(nats).find_map(|(vpc_id, addresses)| {
            let own = addresses.iter().find(|own| own.public_ip == Some(public_ip))?;
            Some((vpc_id.clone(), own.private_ip))
        })
    }

    fn group(&self, group_id: &Id) -> Option<Cow<'_, SecurityGroup>> {
        self.groups.iter().find(|group| group.group_id == *group_id).map(Cow::Borrowed)
    }
}
