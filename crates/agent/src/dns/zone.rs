//! The names that a VPC's resolver knows itself.
//!
//! | name | is |
//! |---|---|
//! | `ip-a-b-c-d.ec2.internal` (the VPC's domain), an address of the VPC | that address |
//! | `i-….ec2.internal`, an instance of the VPC on this host that wants it so | its primary addresses |
//! | `d.c.b.a.in-addr.arpa` of such an address | that name |
//! | `….ip6.arpa` of an address of the VPC | the instance that has it, where its name after its id leads there |
//! | `instance-data.ec2.internal` | the metadata service |
//! | `…-…-…-…-….us-east-1.ip.aws` (the region's), after addresses | the address of IPv6 and, of one of IPv4 beside it, what the next name is |
//! | `ec2-a-b-c-d.compute-1.amazonaws.com` (the region's domain) | the private address of who has it in this VPC, where it gives such names, or in a peer that lets its names be resolved; else the public one |

use crate::network::{Guest, HostNetwork};
use agent_api::Instance;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use model::{Id, IpName, Region};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// As EC2's: an address may move to another instance at any time.
const TTL_SECONDS: u32 = 60;
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const METADATA_NAME: &str = "instance-data";
/// The domain that instance-data is in, whatever the VPC's own.
const EC2_DOMAIN: &str = "ec2.internal";

/// None where somebody else has to be asked. A name that is there without such a record has none.
pub(super) fn find(
    guest: &Guest,
    question: &Query,
    network: &HostNetwork,
) -> Option<Result<Vec<Record>, ResponseCode>> {
    if question.query_class() != DNSClass::IN {
        return None;
    }
    let name = question.name();
    let text = name.to_ascii().to_ascii_lowercase();
    let text = text.strip_suffix('.').unwrap_or(&text);
    let domain = guest.vpc.dns_domain.trim_end_matches('.').to_ascii_lowercase();
    if let Some(address) = text.strip_suffix(".in-addr.arpa").and_then(reversed) {
        let host = if address == METADATA {
            format!("{METADATA_NAME}.{EC2_DOMAIN}.")
        } else if is_in_vpc(guest, address) {
            let [a, b, c, d] = address.octets();
            format!("ip-{a}-{b}-{c}-{d}.{domain}.")
        } else {
            return None;
        };
        return Some(match Name::from_ascii(host) {
            Ok(host) => Ok(records(question, RecordType::PTR, RData::PTR(PTR(host)))),
            Err(_) => Err(ResponseCode::ServFail),
        });
    }
    if let Some(address) = text.strip_suffix(".ip6.arpa").and_then(reversed6) {
        if !guest.vpc.network.ipv6_cidrs.iter().any(|cidr| cidr.contains(&address)) {
            return None;
        }
        let host = owner(guest, network, address).map(|id| Name::from_ascii(format!("{id}.{domain}.")));
        return Some(match host {
            Some(Ok(host)) => Ok(records(question, RecordType::PTR, RData::PTR(PTR(host)))),
            _ => Err(ResponseCode::NXDomain),
        });
    }
    let address_record = |address| Some(Ok(records(question, RecordType::A, RData::A(A(address)))));
    for own in [domain.as_str(), EC2_DOMAIN] {
        if label_below(text, own) == Some(METADATA_NAME) {
            return address_record(METADATA);
        }
    }
    if text == domain {
        return Some(Ok(Vec::new()));
    }
    if let Some(label) = label_below(text, &domain) {
        let address = dashed(label, "ip-").filter(|address| is_in_vpc(guest, *address));
        let instance = || network.instance_in(&guest.vpc.network.vpc_id, label);
        return match address {
            Some(address) => address_record(address),
            None => Some(instance().and_then(|of| resource(question, &of)).ok_or(ResponseCode::NXDomain)),
        };
    }
    let region: Region = guest.instance.metadata.region.parse().ok()?;
    if let Some(name) = label_below(text, &region.ip_dns_domain()).and_then(IpName::parse) {
        let ipv4 = name.ipv4.map(|public_ip| inward(guest, network, public_ip).unwrap_or(public_ip));
        return Some(Ok(addresses(question, ipv4, Some(name.ipv6))));
    }
    let public_ip = dashed(label_below(text, &region.public_dns_domain())?, "ec2-")?;
    address_record(inward(guest, network, public_ip).unwrap_or(public_ip))
}

/// Where a public name leads from inside: in the VPC itself where it gives such names, and in a peer that lets its own be
/// resolved.
fn inward(guest: &Guest, network: &HostNetwork, public_ip: Ipv4Addr) -> Option<Ipv4Addr> {
    let vpc = &guest.vpc.network;
    let own = guest.vpc.dns_hostnames.then_some(&vpc.vpc_id);
    let peers = vpc.peerings.iter().filter(|peering| peering.resolves_names);
    let mut all = own.into_iter().chain(peers.map(|peering| &peering.peer_vpc_id));
    all.find_map(|vpc_id| network.private_address(vpc_id, public_ip))
}

/// The instance whose name after its id leads to the address.
fn owner(guest: &Guest, network: &HostNetwork, address: Ipv6Addr) -> Option<Id> {
    let interface_id =
        network.driver().interface_of_address(&guest.vpc.network.vpc_id, IpAddr::V6(address))?;
    let instance = network.guest(&interface_id)?.instance;
    let first = instance.interfaces.first()?.network.ipv6_addresses.first();
    let leads_there = instance.metadata.resource_aaaa_record && first == Some(&address);
    leads_there.then(|| instance.instance_id.clone())
}

/// The addresses that an instance has under its id; None where it is not to be found so.
fn resource(question: &Query, instance: &Instance) -> Option<Vec<Record>> {
    let interface = &instance.interfaces.first()?.network;
    let (ipv4, ipv6) = (instance.metadata.resource_a_record, instance.metadata.resource_aaaa_record);
    let own = interface.primary().filter(|_| ipv4).map(|own| own.private_ip);
    let own6 = interface.ipv6_addresses.first().filter(|_| ipv6).copied();
    (ipv4 || ipv6).then(|| addresses(question, own, own6))
}

fn addresses(question: &Query, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Vec<Record> {
    let ipv4 = ipv4.map(|address| (RecordType::A, RData::A(A(address))));
    let ipv6 = ipv6.map(|address| (RecordType::AAAA, RData::AAAA(AAAA(address))));
    ipv4.into_iter().chain(ipv6).flat_map(|(kind, data)| records(question, kind, data)).collect()
}

fn records(question: &Query, kind: RecordType, data: RData) -> Vec<Record> {
    let is_asked = question.query_type() == kind || question.query_type() == RecordType::ANY;
    is_asked.then(|| Record::from_rdata(question.name().clone(), TTL_SECONDS, data)).into_iter().collect()
}

fn is_in_vpc(guest: &Guest, address: Ipv4Addr) -> bool {
    guest.vpc.network.cidrs.iter().any(|cidr| cidr.contains(&address))
}

/// What stands before the domain, all of it.
fn label_below<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    name.strip_suffix(domain)?.strip_suffix('.')
}

/// `ip-10-0-0-1` as an address.
fn dashed(label: &str, prefix: &str) -> Option<Ipv4Addr> {
    octets(label.strip_prefix(prefix)?.split('-')).map(Ipv4Addr::from)
}

/// `1.0.0.10` as an address.
fn reversed(text: &str) -> Option<Ipv4Addr> {
    let [d, c, b, a] = octets(text.split('.'))?;
    Some(Ipv4Addr::new(a, b, c, d))
}

/// Thirty-two digits, the last one first, as an address.
fn reversed6(text: &str) -> Option<Ipv6Addr> {
    let mut bits = 0u128;
    let mut count = 0;
    for digit in text.split('.').rev() {
        let [digit] = digit.as_bytes() else { return None };
        bits = (bits << 4) | u128::from(char::from(*digit).to_digit(16)?);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(bits))
}

/// Exactly four, each as one writes it: no sign, no leading zero.
fn octets<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<[u8; 4]> {
    let mut octets = [0; 4];
    for octet in &mut octets {
        let part = parts.next()?;
        *octet = part.parse().ok().filter(|value: &u8| value.to_string() == part)?;
    }
    parts.next().is_none().then_some(octets)
}
