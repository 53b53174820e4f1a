//! Block public access: which subnets the internet gateways shut out (VPC User Guide, "Block public access to VPCs and
//! subnets"). Pure.
//!
//! The address decides that the gateway sees: what a NAT gateway passes on is its own subnet's, whoever began it. Only
//! the first packet of a flow is asked for; when more is barred than before, flows end that would not begin any more.

use datapath::PublicAccess;
use ipnet::IpNet;
use std::net::IpAddr;

use super::family::{Family, elements};
use super::nfnetlink::Flow;
use super::table::Table;
use super::vpc::{Vpc, egress_only};

/// The chains that drop what is barred, and let all else return.
pub(super) const OUT: &str = "barred_out";
pub(super) const IN: &str = "barred_in";

/// What is not open to the internet in a VPC.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Barred {
    subnets: Vec<IpNet>,
    /// What may nevertheless begin outward: from the first network to the second.
    led_out: Vec<(IpNet, IpNet)>,
    /// What needs no gateway.
    near: Vec<IpNet>,
}

impl Barred {
    pub(super) fn new(vpc: &Vpc) -> Barred {
        let mut barred = Barred::default();
        for subnet in vpc.plan.subnets.iter().filter(|subnet| subnet.public_access != PublicAccess::Open) {
            barred.subnets.extend(subnet.networks());
            if subnet.public_access == PublicAccess::Outward {
                let nats = vpc.plan.nat_gateways.iter().filter(|nat| nat.subnet_id == subnet.subnet_id);
                let addresses = nats.flat_map(|nat| &nat.addresses);
                let own = addresses.map(|address| IpNet::from(IpAddr::V4(address.private_ip)));
                barred.led_out.extend(own.map(|own| (own, Family::V4.everywhere())));
                barred.led_out.extend(egress_only(vpc.plan, subnet));
            }
        }
        if !barred.subnets.is_empty() {
            barred.near =
                vpc.plan.ranges().chain(vpc.peers.iter().flat_map(|(_, peer)| peer.ranges())).collect();
        }
        barred
    }

    /// Renders the chains; whether there are any.
    pub(super) fn render(&self, table: &mut Table) -> bool {
        if self.subnets.is_empty() {
            return false;
        }
        let (mut outward, mut inward) = (Vec::new(), Vec::new());
        for family in Family::BOTH {
            let (ip, address) = (family.ip(), family.address());
            let [barred, led_out] = ["barred", "led_out"].map(|name| family.named(name));
            let subnets = elements(self.subnets.iter().copied(), family);
            table.set(&barred, &format!("{address}; flags interval"), &subnets);
            let led = self.led_out.iter().filter(|(own, _)| Family::of(own.addr()) == family);
            let led: Vec<String> = led.map(|(own, to)| format!("{own} . {to}")).collect();
            table.set(&led_out, &format!("{address} . {address}; flags interval"), &led);
            outward.push(format!("{ip} saddr @{barred} {ip} saddr . {ip} daddr != @{led_out} drop"));
            inward.push(format!("{ip} daddr @{barred} drop"));
        }
        table.chain(OUT, "", outward.join("\n"));
        table.chain(IN, "", inward.join("\n"));
        true
    }

    /// Whether a flow passes the gateway that could not begin now.
    pub(super) fn ends(&self, flow: &Flow) -> bool {
        let Flow { original, reply, .. } = flow;
        // As they are inside: before the source is translated, and after the destination is.
        let (from, to) = (original.0, reply.0);
        let is_barred = |own: IpAddr| self.subnets.iter().any(|net| net.contains(&own));
        let is_far = |address: IpAddr| !self.near.iter().any(|net| net.contains(&address));
        let (leaves, enters) = match from {
            IpAddr::V4(_) => (from != reply.1, to != original.1),
            IpAddr::V6(_) => (is_far(to), is_far(from)),
        };
        let is_led_out = || self.led_out.iter().any(|(own, far)| own.contains(&from) && far.contains(&to));
        (leaves && is_barred(from) && !is_led_out()) || (enters && is_barred(to))
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::Index;
    use super::*;
    use datapath::examples::{self, id};
    use datapath::{Address, NatGateway, Plan, Target};
    use model::Kind;
    use std::collections::BTreeMap;

    /// 10.0.0.0/24 and fd12:3456:7800::/64 with a NAT gateway at 10.0.0.9.
    fn plan(public_access: PublicAccess) -> Plan {
        let mut vpc = examples::vpc(1);
        vpc.subnets = vec![examples::subnet(1, "10.0.0.0/24"), examples::subnet(2, "10.0.1.0/24")];
        vpc.ipv6_cidrs = vec!["fd12:3456:7800::/56".parse().unwrap()];
        vpc.subnets[0].ipv6_cidr = Some("fd12:3456:7800::/64".parse().unwrap());
        vpc.subnets[0].public_access = public_access;
        let address = Address { private_ip: [10, 0, 0, 9].into(), public_ip: Some([198, 18, 0, 9].into()) };
        vpc.nat_gateways.push(NatGateway {
            nat_gateway_id: id(Kind::NatGateway, 1),
            interface_id: id(Kind::NetworkInterface, 9),
            mac: [2, 0, 0, 0, 0, 9],
            subnet_id: id(Kind::Subnet, 1),
            addresses: vec![address],
        });
        let routes = &mut vpc.route_tables.values_mut().next().unwrap().routes;
        routes.retain(|route| route.destination.addr().is_ipv4());
        routes.push(datapath::Route {
            destination: "2001:db8::/32".parse().unwrap(),
            target: Target::EgressOnlyInternetGateway,
        });
        Plan { vpcs: vec![vpc], ..Plan::default() }
    }

    fn barred<T>(public_access: PublicAccess, see: impl FnOnce(Barred) -> T) -> T {
        let plan = plan(public_access);
        let index = Index::new(&plan);
        see(Barred::new(&Vpc::new(&plan.vpcs[0], &index, &BTreeMap::new()).unwrap()))
    }

    #[test]
    fn what_is_shut_is_rendered() {
        let text = |public_access| {
            barred(public_access, |barred| {
                let mut table = Table::new("inet cumulet");
                assert_eq!(barred.render(&mut table), public_access != PublicAccess::Open);
                table.whole()
            })
        };
        insta::assert_snapshot!("outward", text(PublicAccess::Outward));
        insta::assert_snapshot!("blocked", text(PublicAccess::Blocked));
        text(PublicAccess::Open);
    }

    #[test]
    fn flows_end_that_could_not_begin() {
        use PublicAccess::{Blocked, Open, Outward};
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let ends = |public_access, original: [&str; 2], reply: [&str; 2]| {
            let pair = |[from, to]: [&str; 2]| (address(from), address(to));
            let flow = Flow { original: pair(original), reply: pair(reply), protocol: 6, ports: None };
            barred(public_access, |barred| barred.ends(&flow))
        };
        let cases = [
            // A guest's own way out, one by the NAT gateway, and one in.
            (["10.0.0.5", "203.0.113.9"], ["203.0.113.9", "198.18.0.5"], [true, true]),
            (["10.0.0.9", "203.0.113.9"], ["203.0.113.9", "198.18.0.9"], [false, true]),
            (["203.0.113.9", "198.18.0.5"], ["10.0.0.5", "203.0.113.9"], [true, true]),
            // To the NAT gateway, and within the VPC.
            (["10.0.0.5", "203.0.113.9"], ["203.0.113.9", "10.0.0.5"], [false, false]),
            (["10.0.0.5", "10.0.1.5"], ["10.0.1.5", "10.0.0.5"], [false, false]),
            // Of the other subnet.
            (["10.0.1.5", "203.0.113.9"], ["203.0.113.9", "198.18.0.6"], [false, false]),
            // By the egress-only gateway, by none, in, and within the VPC.
            (["fd12:3456:7800::a", "2001:db8::1"], ["2001:db8::1", "fd12:3456:7800::a"], [false, true]),
            (["fd12:3456:7800::a", "2001:db9::1"], ["2001:db9::1", "fd12:3456:7800::a"], [true, true]),
            (["2001:db8::1", "fd12:3456:7800::a"], ["fd12:3456:7800::a", "2001:db8::1"], [true, true]),
            (
                ["fd12:3456:7800::a", "fd12:3456:7800:1::b"],
                ["fd12:3456:7800:1::b", "fd12:3456:7800::a"],
                [false, false],
            ),
        ];
        for (original, reply, expected) in cases {
            assert_eq!([Outward, Blocked].map(|of| ends(of, original, reply)), expected, "{original:?}");
            assert!(!ends(Open, original, reply));
        }
    }
}
