//! What there is, as a trace looks it up.

use crate::{Interface, Plan, SecurityGroup, Vpc};
use model::Id;
use std::borrow::Cow;
use std::net::IpAddr;

pub trait Ground {
    fn vpc(&self, vpc_id: &Id) -> Option<Cow<'_, Vpc>>;

    fn interface(&self, interface_id: &Id) -> Option<Cow<'_, Interface>>;

    /// The interface of an instance that has this private address in the VPC.
    fn owner(&self, vpc_id: &Id, address: IpAddr) -> Option<Cow<'_, Interface>>;

    /// The VPC that an address leads into from outside, and what it is there: a private one instead of a public one, or
    /// itself.
    fn inward(&self, address: IpAddr) -> Option<(Id, IpAddr)>;

    fn group(&self, group_id: &Id) -> Option<Cow<'_, SecurityGroup>>;
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

    fn owner(&self, vpc_id: &Id, address: IpAddr) -> Option<Cow<'_, Interface>> {
        let elsewhere = self.elsewhere.iter().map(|one| &one.interface);
        let mut all = self.interfaces.iter().chain(elsewhere);
        all.find(|interface| interface.vpc_id == *vpc_id && interface.has(address)).map(Cow::Borrowed)
    }

    fn inward(&self, address: IpAddr) -> Option<(Id, IpAddr)> {
        let IpAddr::V4(public_ip) = address else {
            let vpc = self.vpcs.iter().find(|vpc| vpc.ranges().any(|range| range.contains(&address)))?;
            return Some((vpc.vpc_id.clone(), address));
        };
        let interfaces = self.interfaces.iter().map(|interface| (&interface.vpc_id, &interface.addresses));
        let nats =
            self.vpcs.iter().flat_map(|vpc| vpc.nat_gateways.iter().map(|nat| (&vpc.vpc_id, &nat.addresses)));
        interfaces.chain(nats).find_map(|(vpc_id, addresses)| {
            let own = addresses.iter().find(|own| own.public_ip == Some(public_ip))?;
            Some((vpc_id.clone(), own.private_ip.into()))
        })
    }

    fn group(&self, group_id: &Id) -> Option<Cow<'_, SecurityGroup>> {
        self.groups.iter().find(|group| group.group_id == *group_id).map(Cow::Borrowed)
    }
}
