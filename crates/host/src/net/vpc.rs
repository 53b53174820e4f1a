//! What the router of one VPC is made of: names, numbers, addresses, routes. Pure.
//!
//! A packet's mark says, while the packet is inside the namespace, whose it is and how it is routed: the low half is
//! the number of the network interface it came from, which is its tap's index, and the high half the number of the
//! route table that its subnet uses. Marks are set once, where the packet enters, by a map that the guest can't talk
//! itself into.

use datapath::{Address, Interface, Plan};
use ipnet::Ipv4Net;
use model::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::NetError;
use super::arp::Neighbour;
use super::kernel::{LOOPBACK, Layer3, MAIN_TABLE, Route, Rule};

/// Where every VPC's guests find the metadata service and the resolver (VPC User Guide, "DNS attributes").
pub(super) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
const EVERYWHERE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

/// The VPC's end of the pair that leads to the host: its internet gateway.
pub(super) const GATEWAY: &str = "igw";
pub(super) const GATEWAY_MAC: [u8; 6] = [0xfe, b'c', b'm', b'l', 0, 3];
pub(super) const GATEWAY_PEER_MAC: [u8; 6] = [0xfe, b'c', b'm', b'l', 0, 2];
/// The next hop on both ends of that pair: never on the wire, just the key of a permanent neighbour.
pub(super) const GATEWAY_PEER: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);

/// What every guest sees as its router. First octets of EC2's own interfaces are 02 to 1e.
pub(super) const ROUTER_MAC: [u8; 6] = [0xfe, b'c', b'm', b'l', 0, 1];

/// Interface numbers are 16 bits of the mark; the low ones are left to links that the kernel numbers.
pub(super) const NUMBERS: std::ops::RangeInclusive<u32> = 16..=0xffff;
pub(super) const NUMBER_MASK: u32 = 0xffff;

/// Number of the route table whose default route is the internet gateway. Zero is the table with local routes only.
const INTERNET: u32 = 1;
/// Kernel tables of the VPC's route tables, by number; above those that the kernel names.
const TABLES: u32 = 1000;
/// The kernel's own last resort.
const DEFAULT_TABLE: u32 = 253;
/// Local routes win over any route table (VPC User Guide, "Route priority").
const LOCAL_PRIORITY: u32 = 10_000;
const TABLES_PRIORITY: u32 = 20_000;

/// A network interface on its tap.
#[derive(Clone, Debug)]
pub(super) struct Nic<'a> {
    pub plan: &'a Interface,
    pub tap: String,
    /// The tap's index in the namespace.
    pub number: u32,
}

/// A VPC with its interfaces on this host, in the order of their ids.
#[derive(Clone, Debug)]
pub(super) struct Vpc<'a> {
    pub plan: &'a datapath::Vpc,
    pub nics: Vec<Nic<'a>>,
}

impl<'a> Vpc<'a> {
    /// Numbers the interfaces: those that have a tap keep its index, the others get the next free ones after the
    /// highest in use, so that a number comes back as late as possible.
    pub(super) fn new(
        plan: &'a datapath::Vpc,
        interfaces: &[&'a Interface],
        taps: &BTreeMap<String, u32>,
    ) -> Result<Self, NetError> {
        let mut used: BTreeSet<u32> = taps.values().copied().collect();
        let mut last = used.last().copied().unwrap_or(0);
        let mut nics = Vec::with_capacity(interfaces.len());
        for interface in interfaces {
            let tap = tap_name(&interface.interface_id);
            let number = match taps.get(&tap) {
                Some(index) => *index,
                None => {
                    let free = (last + 1..=*NUMBERS.end()).chain(NUMBERS);
                    let number = free
                        .into_iter()
                        .find(|n| NUMBERS.contains(n) && !used.contains(n))
                        .ok_or_else(|| {
                            NetError::Failed(format!(
                                "{} has too many network interfaces on one host",
                                plan.vpc_id
                            ))
                        })?;
                    used.insert(number);
                    last = number;
                    number
                }
            };
            nics.push(Nic { plan: interface, tap, number });
        }
        nics.sort_by(|a, b| a.plan.interface_id.cmp(&b.plan.interface_id));
        Ok(Vpc { plan, nics })
    }

    /// The mark of packets that come from this interface.
    pub(super) fn mark(&self, nic: &Nic) -> u32 {
        let table = if self.public_ip(nic).is_some() { INTERNET } else { 0 };
        table << 16 | nic.number
    }

    /// The address that the internet gateway translates for this interface: none where there is no gateway.
    pub(super) fn public_ip(&self, nic: &Nic) -> Option<Ipv4Addr> {
        nic.plan.primary().public_ip.filter(|_| self.plan.internet_gateway)
    }

    /// The guest as it is asked for its address: by the gateway of its subnet or, where it is in none, by the resolver.
    pub(super) fn neighbour(&self, nic: &Nic) -> Neighbour {
        let address = nic.plan.primary().private_ip;
        let subnet = self.plan.subnets.iter().find(|subnet| subnet.cidr.contains(&address));
        let gateway = subnet.map_or(RESOLVER, |subnet| nth(subnet.cidr, 1));
        Neighbour { index: nic.number, mac: nic.plan.mac, address, gateway }
    }

    /// Addresses on which the resolver answers.
    pub(super) fn resolvers(&self) -> Vec<Ipv4Addr> {
        resolvers(self.plan)
    }

    /// The whole of layer 3 inside the namespace. `gateway` is the index of the gateway's link.
    pub(super) fn layer3(&self, gateway: Option<u32>) -> Layer3 {
        let mut layer3 = Layer3::default();
        layer3.addresses.extend(self.plan.subnets.iter().map(|subnet| (LOOPBACK, nth(subnet.cidr, 1))));
        layer3.addresses.extend(self.resolvers().into_iter().map(|address| (LOOPBACK, address)));
        layer3.addresses.insert((LOOPBACK, METADATA));

        // Only known addresses of the VPC answer, and what no table routes is dropped in silence, as EC2 does: a
        // blackhole sends no error, and makes proxy ARP keep still.
        let blackholes = self.plan.cidrs.iter().copied().chain([LINK_LOCAL]);
        layer3.routes.extend(blackholes.map(|net| ((MAIN_TABLE, net.trunc()), Route::Blackhole)));
        layer3.routes.insert((DEFAULT_TABLE, EVERYWHERE), Route::Blackhole);
        for nic in &self.nics {
            let address = nic.plan.primary().private_ip;
            layer3.routes.insert((MAIN_TABLE, Ipv4Net::from(address)), Route::Link(nic.number));
            layer3.neighbours.insert((nic.number, address), nic.plan.mac);
        }

        layer3.rules.insert(Rule { priority: LOCAL_PRIORITY, mark: None, table: MAIN_TABLE });
        if let Some(link) = gateway {
            layer3.rules.insert(Rule {
                priority: TABLES_PRIORITY + INTERNET,
                mark: Some((INTERNET << 16, !NUMBER_MASK)),
                table: TABLES + INTERNET,
            });
            let route = Route::Gateway { gateway: GATEWAY_PEER, link };
            layer3.routes.insert((TABLES + INTERNET, EVERYWHERE), route);
            layer3.neighbours.insert((link, GATEWAY_PEER), GATEWAY_PEER_MAC);
        }
        layer3
    }
}

/// The resolver's addresses: one that is the same everywhere, and the VPC's base plus two.
pub(super) fn resolvers(plan: &datapath::Vpc) -> Vec<Ipv4Addr> {
    std::iter::once(RESOLVER).chain(plan.cidrs.first().map(|cidr| nth(*cidr, 2))).collect()
}

/// Refuses a plan that can't be, before anything is touched.
pub(super) fn check(plan: &Plan) -> Result<(), NetError> {
    let failed = |message: String| Err(NetError::Failed(message));
    let mut vpcs = BTreeMap::new();
    for vpc in &plan.vpcs {
        if vpcs.insert(&vpc.vpc_id, vpc).is_some() {
            return failed(format!("{} is planned twice", vpc.vpc_id));
        }
    }
    let (mut taps, mut privates, mut publics) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for Interface { interface_id, vpc_id, addresses, .. } in &plan.interfaces {
        let Some(vpc) = vpcs.get(vpc_id) else {
            return failed(format!("{interface_id} is in {vpc_id}, which is not planned"));
        };
        if addresses.is_empty() {
            return failed(format!("{interface_id} has no address"));
        }
        for Address { private_ip, public_ip } in addresses {
            if !vpc.cidrs.iter().any(|cidr| cidr.contains(private_ip)) {
                return failed(format!("{private_ip} of {interface_id} is outside of {vpc_id}"));
            }
            if !privates.insert((vpc_id, private_ip)) {
                return failed(format!("{private_ip} of {interface_id} is taken in {vpc_id}"));
            }
            if public_ip.is_some_and(|address| !publics.insert(address)) {
                return failed(format!("the public address of {interface_id} is taken"));
            }
        }
        if !taps.insert((vpc_id, tap_name(interface_id))) {
            return failed(format!("{interface_id} is planned twice, or is too like another's id"));
        }
    }
    Ok(())
}

/// A link's name has 15 characters, an id 17 digits: the last 14 are 56 of an id's 64 random bits.
pub(super) fn tap_name(interface_id: &Id) -> String {
    let digits = digits(interface_id);
    format!("t{}", &digits[digits.len().saturating_sub(14)..])
}

pub(super) fn is_tap_name(name: &str) -> bool {
    name.strip_prefix('t')
        .is_some_and(|digits| digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What follows an id's prefix.
pub(super) fn digits(id: &Id) -> &str {
    id.rsplit_once('-').map_or(id.as_str(), |(_, digits)| digits)
}

/// The address that many after the network's first.
fn nth(net: Ipv4Net, offset: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()).saturating_add(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::examples::{self, id, subnet};
    use model::Kind;

    fn plan() -> datapath::Vpc {
        datapath::Vpc {
            vpc_id: id(Kind::Vpc, 1),
            cidrs: vec!["10.0.0.0/16".parse().unwrap(), "10.9.0.0/16".parse().unwrap()],
            subnets: vec![subnet(1, "10.0.1.0/24"), subnet(2, "10.9.2.0/24")],
            ..examples::vpc(1)
        }
    }

    fn interface(number: u64, public_ip: Option<Ipv4Addr>) -> Interface {
        Interface {
            addresses: vec![Address { private_ip: Ipv4Addr::new(10, 0, 1, number as u8), public_ip }],
            ..examples::interface(number)
        }
    }

    fn numbers(taps: &[(u64, u32)], interfaces: &[u64]) -> Result<Vec<u32>, NetError> {
        let name = |number: u64| tap_name(&id(Kind::NetworkInterface, number));
        let taps = taps.iter().map(|(number, index)| (name(*number), *index)).collect();
        let interfaces: Vec<Interface> = interfaces.iter().map(|number| interface(*number, None)).collect();
        let plan = plan();
        let vpc = Vpc::new(&plan, &interfaces.iter().collect::<Vec<_>>(), &taps)?;
        Ok(vpc.nics.iter().map(|nic| nic.number).collect())
    }

    #[test]
    fn interfaces_keep_their_numbers_and_new_ones_get_late_ones() {
        assert_eq!(numbers(&[], &[1, 2]).unwrap(), [16, 17]);
        assert_eq!(numbers(&[(2, 30)], &[1, 2, 3]).unwrap(), [31, 30, 32]);
        // The number of a tap that is about to go is not given away with it.
        assert_eq!(numbers(&[(9, 40)], &[1]).unwrap(), [41]);
        assert_eq!(numbers(&[(9, 0xffff), (8, 16)], &[1, 8]).unwrap(), [17, 16]);
    }

    #[test]
    fn there_are_as_many_numbers_as_the_mark_has_room_for() {
        let taps: Vec<(u64, u32)> = NUMBERS.map(|number| (number.into(), number)).collect();
        assert!(numbers(&taps, &[1]).is_err());
    }

    #[test]
    fn taps_are_named_by_the_end_of_the_id() {
        let long = Id::parse(Kind::NetworkInterface, "eni-0123456789abcdef0").unwrap();
        assert_eq!(tap_name(&long), "t3456789abcdef0");
        let short = Id::parse(Kind::NetworkInterface, "eni-12345678").unwrap();
        assert_eq!(tap_name(&short), "t12345678");
        for id in [long, short] {
            assert!(is_tap_name(&tap_name(&id)) && tap_name(&id).len() <= 15);
        }
        assert!(!is_tap_name(GATEWAY) && !is_tap_name("lo") && !is_tap_name("tunnel"));
    }

    #[test]
    fn only_interfaces_with_a_public_address_use_the_gateways_table() {
        let plan = plan();
        let interfaces = [interface(5, Some(Ipv4Addr::new(198, 18, 0, 5))), interface(6, None)];
        let vpc = Vpc::new(&plan, &interfaces.iter().collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
        assert_eq!(vpc.nics.iter().map(|nic| vpc.mark(nic)).collect::<Vec<_>>(), [0x1_0010, 0x11]);

        let layer3 = vpc.layer3(Some(3));
        let local: Vec<Ipv4Addr> = layer3.addresses.iter().map(|(_, address)| *address).collect();
        let expected =
            [[10, 0, 0, 2], [10, 0, 1, 1], [10, 9, 2, 1], [169, 254, 169, 253], [169, 254, 169, 254]];
        assert_eq!(local, expected.map(Ipv4Addr::from));
        let default_routes: Vec<_> = layer3
            .routes
            .iter()
            .filter(|((_, net), _)| *net == EVERYWHERE)
            .map(|((table, _), r)| (*table, *r))
            .collect();
        let out = Route::Gateway { gateway: GATEWAY_PEER, link: 3 };
        assert_eq!(default_routes, [(DEFAULT_TABLE, Route::Blackhole), (1001, out)]);
        let shut = vpc.layer3(None);
        assert!(!shut.routes.values().any(|route| matches!(route, Route::Gateway { .. })));
    }

    #[test]
    fn plans_that_cannot_be_are_told_apart() {
        let public = Some(Ipv4Addr::new(198, 18, 0, 5));
        let good = Plan {
            vpcs: vec![plan()],
            interfaces: vec![interface(5, public), interface(6, None)],
            groups: Vec::new(),
        };
        assert!(check(&good).is_ok());
        type Spoil = fn(&mut Plan);
        let spoilt: [(&str, Spoil); 5] = [
            ("not planned", |plan| plan.vpcs.clear()),
            ("planned twice", |plan| plan.vpcs.push(plan.vpcs[0].clone())),
            ("outside", |plan| plan.interfaces[0].addresses[0].private_ip = Ipv4Addr::new(10, 1, 0, 5)),
            ("is taken in", |plan| {
                plan.interfaces[0].addresses[0].private_ip = plan.interfaces[1].primary().private_ip
            }),
            ("public address", |plan| {
                plan.interfaces[1].addresses[0].public_ip = plan.interfaces[0].primary().public_ip
            }),
        ];
        for (reason, spoil) in spoilt {
            let mut plan = good.clone();
            spoil(&mut plan);
            let message = check(&plan).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
    }
}
