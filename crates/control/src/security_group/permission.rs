//! Permissions: read from the API's forms, checked as EC2 checks them, shown again.

use super::{Peer, PeeredGroup, Permission, SecurityGroup, named, peered};
use crate::engine::Tables;
use aws_api::ec2;
use ipnet::{Ipv4Net, Ipv6Net};
use model::{Error, Id, Kind, Result};

/// Characters in a rule's description.
const DESCRIPTION_LEN_MAX: usize = 255;

/// A permission and the description of its peer.
pub type Described = (Permission, Option<String>);

/// The parameters that say one permission without a list, from before there were lists.
#[derive(Default)]
pub struct Flat<'i> {
    pub protocol: Option<&'i str>,
    pub from_port: Option<i32>,
    pub to_port: Option<i32>,
    pub cidr: Option<&'i str>,
    pub group_name: Option<&'i str>,
    pub group_owner: Option<&'i str>,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid_parameter_value(message)
}

/// Reads permissions for the rules of one group: only groups of its VPC and of those peered with it can be referred to.
pub struct Reader<'a> {
    pub tables: &'a Tables,
    pub group: &'a SecurityGroup,
    /// Whether the rules are there already: what those name may be gone.
    pub existing: bool,
}

impl Reader<'_> {
    /// All permissions of a request: one for each peer.
    pub fn all(&self, listed: &[ec2::IpPermission], flat: &Flat<'_>) -> Result<Vec<Described>> {
        let flat = self.flat(flat)?;
        if !listed.is_empty() && flat.is_some() {
            return Err(Error::invalid_parameter_combination(
                "The parameter 'ipPermissions' may not be used in combination with 'ipProtocol'",
            ));
        }
        let mut found = Vec::new();
        for permission in listed {
            self.read(permission, &mut found)?;
        }
        found.extend(flat.map(|permission| (permission, None)));
        let twice = |at: usize| found[..at].iter().any(|(before, _)| *before == found[at].0);
        if (0..found.len()).any(twice) {
            return Err(invalid("The same permission must not appear multiple times"));
        }
        Ok(found)
    }

    fn read(&self, permission: &ec2::IpPermission, found: &mut Vec<Described>) -> Result<()> {
        let protocol =
            permission.ip_protocol.as_deref().ok_or_else(|| Error::missing_parameter("ipProtocol"))?;
        let before = found.len();
        let mut add = |peer: Peer, described: &Option<String>| -> Result<()> {
            let described = description(described.as_deref())?;
            found.push((read(protocol, permission.from_port, permission.to_port, peer)?, described));
            Ok(())
        };
        for range in &permission.ip_ranges {
            add(ipv4(range.cidr_ip.as_deref())?, &range.description)?;
        }
        for range in &permission.ipv6_ranges {
            add(ipv6(range.cidr_ipv6.as_deref())?, &range.description)?;
        }
        for pair in &permission.user_id_group_pairs {
            add(self.pair(pair)?, &pair.description)?;
        }
        for list in &permission.prefix_list_ids {
            add(self.prefix_list(list.prefix_list_id.as_deref())?, &list.description)?;
        }
        if found.len() == before {
            return Err(Error::new(
                "MissingParameter",
                "The request must contain a CIDR block, a source or destination security group or a prefix list",
            ));
        }
        Ok(())
    }

    fn flat(&self, flat: &Flat<'_>) -> Result<Option<Permission>> {
        let peer = match (flat.cidr, flat.group_name) {
            (Some(cidr), None) => ipv4(Some(cidr))?,
            (None, Some(name)) => self.peer(None, Some(name), flat.group_owner)?,
            (Some(_), Some(_)) => {
                return Err(Error::invalid_parameter_combination(
                    "The parameter 'cidrIp' may not be used in combination with 'sourceSecurityGroupName'",
                ));
            }
            (None, None) if flat.protocol.is_none() => return Ok(None),
            (None, None) => return Err(Error::missing_parameter("cidrIp")),
        };
        match flat.protocol {
            Some(protocol) => read(protocol, flat.from_port, flat.to_port, peer).map(Some),
            // A group alone stands for all its traffic.
            None if flat.group_name.is_some() => read("-1", None, None, peer).map(Some),
            None => Err(Error::missing_parameter("ipProtocol")),
        }
    }

    /// A rule as ModifySecurityGroupRules says it.
    pub fn rule(&self, rule: &ec2::SecurityGroupRuleRequest) -> Result<Described> {
        let named = (&rule.cidr_ipv4, &rule.cidr_ipv6, &rule.referenced_group_id, &rule.prefix_list_id);
        let peer = match named {
            (Some(cidr), None, None, None) => ipv4(Some(cidr))?,
            (None, Some(cidr), None, None) => ipv6(Some(cidr))?,
            (None, None, Some(id), None) => self.peer(Some(id), None, None)?,
            (None, None, None, Some(id)) => self.prefix_list(Some(id))?,
            _ => {
                return Err(Error::invalid_parameter_combination(
                    "A security group rule must have exactly one source or destination",
                ));
            }
        };
        let protocol = rule.ip_protocol.as_deref().ok_or_else(|| Error::missing_parameter("IpProtocol"))?;
        let described = description(rule.description.as_deref())?;
        Ok((read(protocol, rule.from_port, rule.to_port, peer)?, described))
    }

    fn prefix_list(&self, id: Option<&str>) -> Result<Peer> {
        let id = Id::parse(Kind::PrefixList, id.ok_or_else(|| Error::missing_parameter("prefixListId"))?)?;
        match self.tables.prefix_lists.contains(&id) {
            true => Ok(Peer::PrefixList(id)),
            false => Err(Id::not_found(Kind::PrefixList, &id)),
        }
    }

    fn pair(&self, pair: &ec2::UserIdGroupPair) -> Result<Peer> {
        let peer =
            self.peer(pair.group_id.as_deref(), pair.group_name.as_deref(), pair.user_id.as_deref())?;
        let differs = |given: &Option<String>, is: &Id| given.as_deref().is_some_and(|given| *given != **is);
        match &peer {
            Peer::PeeredGroup(peered)
                if differs(&pair.vpc_id, &peered.vpc_id)
                    || differs(&pair.vpc_peering_connection_id, &peered.peering_id) =>
            {
                Err(of_different_networks())
            }
            Peer::Group(_) if differs(&pair.vpc_id, &self.group.vpc_id) => Err(of_different_networks()),
            _ => Ok(peer),
        }
    }

    fn peer(&self, group_id: Option<&str>, name: Option<&str>, owner: Option<&str>) -> Result<Peer> {
        if owner.is_some_and(|owner| owner != self.group.owner.as_str()) {
            let group = group_id.or(name).unwrap_or_default();
            return Err(Id::not_found(Kind::SecurityGroup, group));
        }
        let known = peered::named(self.group).find(|peered| group_id == Some(peered.group_id.as_str()));
        if let Some(known) = known.filter(|_| self.existing) {
            return Ok(Peer::PeeredGroup(known.clone()));
        }
        let peer = named(self.tables, group_id, name)?;
        if peer.vpc_id == self.group.vpc_id {
            return Ok(Peer::Group(peer.group_id.clone()));
        }
        let peered = PeeredGroup::of(self.tables, &self.group.vpc_id, &peer);
        peered.map(Peer::PeeredGroup).ok_or_else(of_different_networks)
    }
}

fn of_different_networks() -> Error {
    Error::new("InvalidGroup.NotFound", "You have specified two resources that belong to different networks.")
}

fn read(protocol: &str, from_port: Option<i32>, to_port: Option<i32>, peer: Peer) -> Result<Permission> {
    let protocol = protocol_name(protocol)?;
    let (from_port, to_port) = ports(&protocol, from_port, to_port)?;
    Ok(Permission { protocol, from_port, to_port, peer })
}

/// A CIDR; bits behind its prefix are dropped, as EC2 does.
fn ipv4(text: Option<&str>) -> Result<Peer> {
    let text = text.ok_or_else(|| Error::missing_parameter("cidrIp"))?;
    let cidr: Ipv4Net = text.parse().map_err(|_| invalid(format!("CIDR block {text} is malformed")))?;
    Ok(Peer::Ipv4(cidr.trunc()))
}

fn ipv6(text: Option<&str>) -> Result<Peer> {
    let text = text.ok_or_else(|| Error::missing_parameter("cidrIpv6"))?;
    let cidr: Ipv6Net = text.parse().map_err(|_| invalid(format!("CIDR block {text} is malformed")))?;
    Ok(Peer::Ipv6(cidr.trunc()))
}

/// Names where EC2 shows names, numbers for the others.
fn protocol_name(text: &str) -> Result<String> {
    let lower = text.to_ascii_lowercase();
    let name = match (lower.as_str(), lower.parse::<u8>()) {
        ("-1" | "all", _) => "-1",
        ("tcp", _) | (_, Ok(6)) => "tcp",
        ("udp", _) | (_, Ok(17)) => "udp",
        ("icmp", _) | (_, Ok(1)) => "icmp",
        ("icmpv6", _) | (_, Ok(58)) => "icmpv6",
        (_, Ok(number)) => return Ok(number.to_string()),
        (_, Err(_)) => {
            return Err(invalid(format!("Invalid value '{text}' for IP protocol. Unknown protocol.")));
        }
    };
    Ok(name.to_owned())
}

fn ports(protocol: &str, from: Option<i32>, to: Option<i32>) -> Result<(Option<i32>, Option<i32>)> {
    match (protocol, from, to) {
        ("tcp" | "udp", Some(from), Some(to)) => port_range(from, to)?,
        ("tcp" | "udp", ..) => {
            return Err(invalid(
                "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.",
            ));
        }
        ("icmp", Some(kind), Some(code)) => icmp(kind, code)?,
        ("icmp", ..) => {
            return Err(invalid("Invalid value 'Must specify both type and code with ICMP.' for portRange."));
        }
        ("icmpv6", kind, code) => icmp(kind.unwrap_or(-1), code.unwrap_or(-1))?,
        // All ports, whatever the request says (EC2 API Reference, "IpPermission").
        _ => return Ok((None, None)),
    };
    let any = (protocol == "icmpv6").then_some(-1);
    Ok((from.or(any), to.or(any)))
}

pub fn port_range(from: i32, to: i32) -> Result<()> {
    if let Some(port) = [from, to].into_iter().find(|port| !(0..=0xffff).contains(port)) {
        return Err(invalid(format!("TCP/UDP port ({port}) out of range")));
    }
    if from > to {
        return Err(invalid(format!("Invalid TCP/UDP port range ({from}:{to})")));
    }
    Ok(())
}

/// -1 is any type, or any code.
pub fn icmp(kind: i32, code: i32) -> Result<()> {
    if !(-1..=255).contains(&kind) {
        return Err(invalid(format!("ICMP type ({kind}) out of range")));
    }
    if !(-1..=255).contains(&code) {
        return Err(invalid(format!("ICMP code ({code}) out of range")));
    }
    if kind == -1 && code != -1 {
        return Err(invalid(format!("ICMP code ({code}) cannot be specified without an ICMP type")));
    }
    Ok(())
}

/// An empty description is none.
pub fn description(text: Option<&str>) -> Result<Option<String>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.len() > DESCRIPTION_LEN_MAX || !text.bytes().all(super::create::is_allowed) {
        return Err(invalid(
            "Invalid rule description. Valid descriptions are strings less than 256 characters from the following set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
        ));
    }
    Ok(Some(text.to_owned()))
}

/// As a host is told; None for what a host cannot match.
pub fn protocol(permission: &Permission) -> Option<datapath::Protocol> {
    use datapath::Protocol;
    let port = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok());
    // -1 is any.
    let icmp = |value: Option<i32>| value.and_then(|value| u8::try_from(value).ok());
    Some(match permission.protocol.as_str() {
        "-1" => Protocol::All,
        "tcp" => Protocol::Tcp { from: port(permission.from_port)?, to: port(permission.to_port)? },
        "udp" => Protocol::Udp { from: port(permission.from_port)?, to: port(permission.to_port)? },
        "icmp" => Protocol::Icmp { kind: icmp(permission.from_port), code: icmp(permission.to_port) },
        "icmpv6" => Protocol::Icmpv6 { kind: icmp(permission.from_port), code: icmp(permission.to_port) },
        number => Protocol::Number(number.parse().ok()?),
    })
}

/// Rules of one direction as DescribeSecurityGroups shows them.
pub fn to_api(tables: &Tables, group: &SecurityGroup, egress: bool) -> Vec<ec2::IpPermission> {
    gather(tables, group, group.rules(egress).map(|rule| (&rule.permission, &rule.description)))
}

/// Permissions that are, or would be, of a group: peers under the same protocol and ports together.
pub fn gather<'p>(
    tables: &Tables,
    group: &SecurityGroup,
    permissions: impl IntoIterator<Item = (&'p Permission, &'p Option<String>)>,
) -> Vec<ec2::IpPermission> {
    let mut gathered: Vec<ec2::IpPermission> = Vec::new();
    for (permission, description) in permissions {
        let same = |shown: &&mut ec2::IpPermission| {
            shown.ip_protocol.as_deref() == Some(&permission.protocol)
                && shown.from_port == permission.from_port
                && shown.to_port == permission.to_port
        };
        let at = match gathered.iter_mut().position(|shown| same(&shown)) {
            Some(at) => at,
            None => {
                gathered.push(ec2::IpPermission {
                    ip_protocol: Some(permission.protocol.clone()),
                    from_port: permission.from_port,
                    to_port: permission.to_port,
                    ..Default::default()
                });
                gathered.len() - 1
            }
        };
        let shown = &mut gathered[at];
        let description = description.clone();
        match &permission.peer {
            Peer::Ipv4(cidr) => {
                shown.ip_ranges.push(ec2::IpRange { cidr_ip: Some(cidr.to_string()), description })
            }
            Peer::Ipv6(cidr) => {
                shown.ipv6_ranges.push(ec2::Ipv6Range { cidr_ipv6: Some(cidr.to_string()), description })
            }
            Peer::PrefixList(id) => shown
                .prefix_list_ids
                .push(ec2::PrefixListId { prefix_list_id: Some(id.to_string()), description }),
            Peer::PeeredGroup(peered) => {
                shown.user_id_group_pairs.push(ec2::UserIdGroupPair { description, ..peered.pair(tables) })
            }
            Peer::Group(id) => shown.user_id_group_pairs.push(ec2::UserIdGroupPair {
                group_id: Some(id.to_string()),
                user_id: Some(group.owner.to_string()),
                description,
                ..Default::default()
            }),
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn protocols_have_one_name_each() {
        for (given, name) in [
            ("6", "tcp"),
            ("TCP", "tcp"),
            ("17", "udp"),
            ("all", "-1"),
            ("58", "icmpv6"),
            ("047", "47"),
            ("0", "0"),
        ] {
            assert_eq!(protocol_name(given).unwrap(), name);
        }
        for given in ["", "carrier-pigeon", "256", "300", "-2", "tcp "] {
            assert_eq!(protocol_name(given).unwrap_err().code, "InvalidParameterValue", "{given}");
        }
    }

    #[test]
    fn ports_are_wanted_where_the_protocol_has_some_and_dropped_where_not() {
        let ports = |protocol, from, to| ports(protocol, from, to).ok();
        assert_eq!(ports("tcp", Some(22), Some(22)), Some((Some(22), Some(22))));
        assert_eq!(ports("tcp", Some(0), Some(65_535)), Some((Some(0), Some(65_535))));
        assert_eq!(ports("tcp", Some(23), Some(22)), None);
        assert_eq!(ports("tcp", Some(-1), Some(-1)), None);
        assert_eq!(ports("tcp", Some(0), Some(65_536)), None);
        assert_eq!(ports("udp", None, Some(22)), None);
        assert_eq!(ports("-1", Some(1), Some(2)), Some((None, None)));
        assert_eq!(ports("50", Some(22), None), Some((None, None)));
        assert_eq!(ports("icmp", Some(8), Some(-1)), Some((Some(8), Some(-1))));
        assert_eq!(ports("icmp", Some(-1), Some(-1)), Some((Some(-1), Some(-1))));
        assert_eq!(ports("icmp", Some(-1), Some(0)), None);
        assert_eq!(ports("icmp", Some(256), Some(0)), None);
        assert_eq!(ports("icmp", Some(8), None), None);
        assert_eq!(ports("icmpv6", None, None), Some((Some(-1), Some(-1))));
        assert_eq!(ports("icmpv6", Some(128), None), Some((Some(128), Some(-1))));
    }

    #[test]
    fn bits_behind_the_prefix_are_dropped_as_ec2_does() {
        assert_eq!(ipv4(Some("10.1.2.3/8")).unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(ipv6(Some("2001:DB8::1/32")).unwrap().to_string(), "2001:db8::/32");
        for text in ["10.1.2.3/33", "10.1.2.3", "10.1.2/8", "::/0", ""] {
            assert_eq!(ipv4(Some(text)).unwrap_err().message, format!("CIDR block {text} is malformed"));
        }
    }

    #[test]
    fn descriptions_keep_to_their_characters() {
        assert_eq!(description(Some("the office (#1)")).unwrap().as_deref(), Some("the office (#1)"));
        assert_eq!(description(Some("")).unwrap(), None);
        assert!(description(Some(&"a".repeat(255))).is_ok());
        assert!(description(Some(&"a".repeat(256))).is_err());
        assert!(description(Some("söme")).is_err());
    }

    #[test]
    fn a_host_is_told_what_a_rule_means() {
        use datapath::Protocol;
        for (name, from, to, expected) in [
            ("-1", 22, 22, Protocol::All),
            ("tcp", 22, 80, Protocol::Tcp { from: 22, to: 80 }),
            ("17", 0, 65_535, Protocol::Udp { from: 0, to: 65_535 }),
            ("icmp", 8, -1, Protocol::Icmp { kind: Some(8), code: None }),
            ("icmp", -1, -1, Protocol::Icmp { kind: None, code: None }),
            ("icmpv6", 128, 0, Protocol::Icmpv6 { kind: Some(128), code: Some(0) }),
            ("50", 1, 1, Protocol::Number(50)),
        ] {
            let permission = read(name, Some(from), Some(to), super::super::ANYWHERE).unwrap();
            assert_eq!(protocol(&permission), Some(expected), "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_reads_as_itself_and_reaches_the_host(
            name in "[0-9]{1,3}|tcp|udp|icmp|icmpv6|-1", from in -2i32..70_000, to in -2i32..70_000,
        ) {
            if let Ok(kept) = read(&name, Some(from), Some(to), super::super::ANYWHERE) {
                let again = read(&kept.protocol, kept.from_port, kept.to_port, kept.peer.clone());
                prop_assert_eq!(again.unwrap(), kept.clone());
                prop_assert!(protocol(&kept).is_some());
            }
        }
    }
}
