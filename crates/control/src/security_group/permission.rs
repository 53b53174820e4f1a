//! Permissions: read from the API's forms, checked, shown again.

use super::{Peer, Permission, SecurityGroup, find};
use crate::engine::Tables;
use aws_api::ec2;
use model::{Error, Result};

/// A permission and the description of its peer.
pub type Described = (Permission, Option<String>);

/// All permissions of a list: one for each peer.
pub fn from_api(tables: &Tables, permissions: &[ec2::IpPermission]) -> Result<Vec<Described>> {
    let mut found = Vec::new();
    for permission in permissions {
        let protocol = protocol_name(permission.ip_protocol.as_deref())?;
        let (from_port, to_port) = ports(&protocol, permission.from_port, permission.to_port)?;
        let with = |peer| Permission { protocol: protocol.clone(), from_port, to_port, peer };
        for range in &permission.ip_ranges {
            found.push((with(ipv4(range.cidr_ip.as_deref())?), range.description.clone()));
        }
        for range in &permission.ipv6_ranges {
            found.push((with(ipv6(range.cidr_ipv6.as_deref())?), range.description.clone()));
        }
        for pair in &permission.user_id_group_pairs {
            let group = super::named(tables, pair.group_id.as_deref(), pair.group_name.as_deref())?;
            found.push((with(Peer::Group(group.group_id.clone())), pair.description.clone()));
        }
        if !permission.prefix_list_ids.is_empty() {
            return Err(Error::new("UnsupportedOperation", "Prefix lists in security group rules are not supported by this cloud."));
        }
    }
    Ok(found)
}

/// The flat parameters of old: one permission.
pub fn flat(
    tables: &Tables,
    protocol: Option<&str>,
    from_port: Option<i32>,
    to_port: Option<i32>,
    cidr: Option<&str>,
    group: Option<&str>,
) -> Result<Vec<Described>> {
    let peer = match (cidr, group) {
        (Some(cidr), _) => ipv4(Some(cidr))?,
        (None, Some(name)) => Peer::Group(super::named(tables, None, Some(name))?.group_id.clone()),
        (None, None) => return Ok(Vec::new()),
    };
    let protocol = if group.is_some() && protocol.is_none() { "-1".to_owned() } else { protocol_name(protocol)? };
    let (from_port, to_port) = ports(&protocol, from_port, to_port)?;
    Ok(vec![(Permission { protocol, from_port, to_port, peer }, None)])
}

/// A rule as ModifySecurityGroupRules says it.
pub fn from_request(tables: &Tables, rule: &ec2::SecurityGroupRuleRequest) -> Result<Described> {
    let protocol = protocol_name(rule.ip_protocol.as_deref())?;
    let (from_port, to_port) = ports(&protocol, rule.from_port, rule.to_port)?;
    let peer = match (&rule.cidr_ipv4, &rule.cidr_ipv6, &rule.referenced_group_id) {
        (Some(cidr), None, None) => ipv4(Some(cidr))?,
        (None, Some(cidr), None) => ipv6(Some(cidr))?,
        (None, None, Some(id)) => Peer::Group(find(tables, id)?.group_id.clone()),
        _ => return Err(Error::invalid_parameter_combination("A security group rule must have exactly one source or destination")),
    };
    Ok((Permission { protocol, from_port, to_port, peer }, rule.description.clone()))
}

fn ipv4(text: Option<&str>) -> Result<Peer> {
    let text = text.ok_or_else(|| Error::missing_parameter("CidrIp"))?;
    let cidr: ipnet::Ipv4Net = text
        .parse()
        .map_err(|_| Error::invalid_parameter_value(format!("CIDR block {text} is malformed")))?;
    Ok(Peer::Ipv4(cidr.trunc()))
}

fn ipv6(text: Option<&str>) -> Result<Peer> {
    let text = text.ok_or_else(|| Error::missing_parameter("CidrIpv6"))?;
    let cidr: ipnet::Ipv6Net = text
        .parse()
        .map_err(|_| Error::invalid_parameter_value(format!("CIDR block {text} is malformed")))?;
    Ok(Peer::Ipv6(cidr.trunc()))
}

/// Names where EC2 shows names, numbers for the others.
fn protocol_name(text: Option<&str>) -> Result<String> {
    let text = text.ok_or_else(|| Error::missing_parameter("IpProtocol"))?.to_ascii_lowercase();
    Ok(match text.as_str() {
        "tcp" | "6" => "tcp".into(),
        "udp" | "17" => "udp".into(),
        "icmp" | "1" => "icmp".into(),
        "icmpv6" | "58" => "icmpv6".into(),
        "-1" | "all" => "-1".into(),
        number if number.parse::<u8>().is_ok() => number.to_owned(),
        other => return Err(Error::invalid_parameter_value(format!("Invalid value '{other}' for IP protocol. Unknown protocol."))),
    })
}

fn ports(protocol: &str, from: Option<i32>, to: Option<i32>) -> Result<(Option<i32>, Option<i32>)> {
    match protocol {
        "tcp" | "udp" => {
            let (Some(from), Some(to)) = (from, to) else {
                return Err(Error::invalid_parameter_value("Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange."));
            };
            if from == -1 && to == -1 {
                return Ok((Some(0), Some(65_535)));
            }
            if !(0..=65_535).contains(&from) || !(0..=65_535).contains(&to) || from > to {
                return Err(Error::invalid_parameter_value(format!("Invalid TCP/UDP port range ({from}:{to})")));
            }
            Ok((Some(from), Some(to)))
        }
        "icmp" | "icmpv6" => {
            let (from, to) = (from.unwrap_or(-1), to.unwrap_or(-1));
            if !(-1..=255).contains(&from) || !(-1..=255).contains(&to) {
                return Err(Error::invalid_parameter_value(format!("Invalid ICMP type/code ({from}:{to})")));
            }
            Ok((Some(from), Some(to)))
        }
        _ => Ok((None, None)),
    }
}

/// As a host is told; None for what a host cannot match.
pub fn protocol(permission: &Permission) -> Option<agent_api::Protocol> {
    use agent_api::Protocol;
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

/// Rules of one direction as DescribeSecurityGroups shows them: peers gathered under protocol and ports.
pub fn to_api(group: &SecurityGroup, egress: bool) -> Vec<ec2::IpPermission> {
    let mut gathered: Vec<ec2::IpPermission> = Vec::new();
    for rule in group.rules(egress) {
        let permission = &rule.permission;
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
        let description = rule.description.clone();
        match &permission.peer {
            Peer::Ipv4(cidr) => shown.ip_ranges.push(ec2::IpRange { cidr_ip: Some(cidr.to_string()), description }),
            Peer::Ipv6(cidr) => shown.ipv6_ranges.push(ec2::Ipv6Range { cidr_ipv6: Some(cidr.to_string()), description }),
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

    #[test]
    fn ports_are_checked_by_protocol() {
        assert_eq!(ports("tcp", Some(22), Some(22)).unwrap(), (Some(22), Some(22)));
        assert!(ports("tcp", Some(23), Some(22)).is_err());
        assert!(ports("udp", None, Some(22)).is_err());
        assert!(ports("tcp", Some(0), Some(65_536)).is_err());
        assert_eq!(ports("-1", Some(1), Some(2)).unwrap(), (None, None));
        assert_eq!(ports("icmp", Some(8), None).unwrap(), (Some(8), Some(-1)));
    }

    #[test]
    fn protocols_have_one_name_each() {
        for (given, name) in [("6", "tcp"), ("TCP", "tcp"), ("all", "-1"), ("58", "icmpv6"), ("47", "47")] {
            assert_eq!(protocol_name(Some(given)).unwrap(), name);
        }
        assert!(protocol_name(Some("carrier-pigeon")).is_err());
        assert!(protocol_name(Some("300")).is_err());
    }

    #[test]
    fn bits_behind_the_prefix_are_dropped_as_ec2_does() {
        assert_eq!(ipv4(Some("10.1.2.3/8")).unwrap(), Peer::Ipv4("10.0.0.0/8".parse().unwrap()));
        assert!(ipv4(Some("10.1.2.3/33")).is_err());
    }
}
