//! One rule of a network ACL: read as EC2 reads it, shown again, told to hosts.

use crate::cidr;
use crate::engine::filter;
use crate::engine::table::Values;
use crate::security_group::permission;
use aws_api::ec2;
use ipnet::IpNet;
use model::{Error, Result};
use serde::{Deserialize, Serialize};

pub const ALL: &str = "-1";
const ICMP: &str = "1";
const TCP: &str = "6";
const UDP: &str = "17";
const ICMPV6: &str = "58";

/// Those that a user may give (EC2 API Reference, CreateNetworkAclEntry).
const RULE_NUMBERS: std::ops::RangeInclusive<i32> = 1..=32_766;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub rule_number: i32,
    pub egress: bool,
    pub allow: bool,
    /// IANA number; `-1` is all.
    pub protocol: String,
    /// First and last, of TCP and UDP.
    #[serde(default)]
    pub ports: Option<(i32, i32)>,
    /// Type and code, of ICMP and ICMPv6; -1 is any.
    #[serde(default)]
    pub icmp: Option<(i32, i32)>,
    pub cidr: IpNet,
}

/// What CreateNetworkAclEntry and ReplaceNetworkAclEntry say alike.
pub struct Request {
    pub rule_number: Option<i32>,
    pub egress: Option<bool>,
    pub rule_action: Option<String>,
    pub protocol: Option<String>,
    pub cidr_block: Option<String>,
    pub ipv6_cidr_block: Option<String>,
    pub icmp_type_code: Option<ec2::IcmpTypeCode>,
    pub port_range: Option<ec2::PortRange>,
}

/// Which rule a request is about.
pub fn key(rule_number: Option<i32>, egress: Option<bool>) -> Result<(i32, bool)> {
    let number = rule_number.ok_or_else(|| Error::missing_parameter("ruleNumber"))?;
    if !RULE_NUMBERS.contains(&number) {
        return Err(Error::invalid_parameter_value(format!(
            "Value ({number}) for parameter ruleNumber is invalid. The rule number must be between {} and {}.",
            RULE_NUMBERS.start(),
            RULE_NUMBERS.end()
        )));
    }
    Ok((number, egress.ok_or_else(|| Error::missing_parameter("egress"))?))
}

impl Request {
    pub fn read(&self) -> Result<Entry> {
        let (rule_number, egress) = key(self.rule_number, self.egress)?;
        let allow = match self.rule_action.as_deref().unwrap_or_default() {
            "allow" => true,
            "deny" => false,
            other => {
                return Err(Error::invalid_parameter_value(format!(
                    "Value ({other}) for parameter ruleAction is invalid. Expected 'allow' or 'deny'."
                )));
            }
        };
        let protocol = self.protocol.as_deref().filter(|text| !text.is_empty());
        let protocol = protocol_number(protocol.ok_or_else(|| Error::missing_parameter("protocol"))?)?;
        let cidr = self.cidr()?;
        let (ports, icmp) = match (protocol.as_str(), cidr) {
            (TCP | UDP, _) => (Some(self.ports()?), None),
            (ICMP, _) | (ICMPV6, IpNet::V6(_)) => (None, Some(self.icmp()?)),
            // All of the protocol, whatever the request says.
            _ => (None, None),
        };
        Ok(Entry { rule_number, egress, allow, protocol, ports, icmp, cidr })
    }

    fn cidr(&self) -> Result<IpNet> {
        let given = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
        match (given(&self.cidr_block), given(&self.ipv6_cidr_block)) {
            (Some(text), None) => Ok(cidr::ipv4("cidrBlock", &text)?.into()),
            (None, Some(text)) => Ok(cidr::ipv6("ipv6CidrBlock", &text)?.into()),
            (None, None) => Err(Error::missing_parameter("cidrBlock")),
            (Some(_), Some(_)) => Err(Error::invalid_parameter_combination(
                "Only one of cidrBlock and ipv6CidrBlock can be given",
            )),
        }
    }

    fn ports(&self) -> Result<(i32, i32)> {
        let range = self.port_range.as_ref().ok_or_else(|| Error::missing_parameter("portRange"))?;
        let from = range.from.ok_or_else(|| Error::missing_parameter("portRange.from"))?;
        let to = range.to.ok_or_else(|| Error::missing_parameter("portRange.to"))?;
        permission::port_range(from, to)?;
        Ok((from, to))
    }

    fn icmp(&self) -> Result<(i32, i32)> {
        let given = self.icmp_type_code.as_ref().ok_or_else(|| Error::missing_parameter("icmpTypeCode"))?;
        let kind = given.r#type.ok_or_else(|| Error::missing_parameter("icmpTypeCode.type"))?;
        let code = given.code.ok_or_else(|| Error::missing_parameter("icmpTypeCode.code"))?;
        permission::icmp(kind, code)?;
        Ok((kind, code))
    }
}

/// By its number, or the names that EC2 takes.
fn protocol_number(text: &str) -> Result<String> {
    let lower = text.to_ascii_lowercase();
    let number = match (lower.as_str(), lower.parse::<u8>()) {
        ("-1" | "all", _) => ALL,
        ("icmp", _) => ICMP,
        ("tcp", _) => TCP,
        ("udp", _) => UDP,
        ("icmpv6", _) => ICMPV6,
        (_, Ok(number)) => return Ok(number.to_string()),
        (_, Err(_)) => {
            return Err(Error::invalid_parameter_value(format!(
                "Invalid value '{text}' for IP protocol. Unknown protocol."
            )));
        }
    };
    Ok(number.to_owned())
}

impl Entry {
    /// Outbound rules first, each in the order in which they are looked at.
    pub fn place(&self) -> (bool, i32) {
        (!self.egress, self.rule_number)
    }

    fn ipv4(&self) -> Option<String> {
        matches!(self.cidr, IpNet::V4(_)).then(|| self.cidr.to_string())
    }

    fn ipv6(&self) -> Option<String> {
        matches!(self.cidr, IpNet::V6(_)).then(|| self.cidr.to_string())
    }

    fn action(&self) -> &'static str {
        if self.allow { "allow" } else { "deny" }
    }

    /// Its values under a filter's name behind `entry.`; false for a name that there is not.
    pub fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let text = |number: i32| number.to_string();
        match name {
            "cidr" => filter::some(values, self.ipv4()),
            "ipv6-cidr" => filter::some(values, self.ipv6()),
            "icmp.type" => filter::some(values, self.icmp.map(|(kind, _)| text(kind))),
            "icmp.code" => filter::some(values, self.icmp.map(|(_, code)| text(code))),
            "port-range.from" => filter::some(values, self.ports.map(|(from, _)| text(from))),
            "port-range.to" => filter::some(values, self.ports.map(|(_, to)| text(to))),
            "egress" => filter::one(values, filter::boolean(self.egress)),
            "protocol" => {
                let name = match self.protocol.as_str() {
                    TCP => Some("tcp"),
                    UDP => Some("udp"),
                    ICMP => Some("icmp"),
                    _ => None,
                };
                filter::some(values, name) && filter::one(values, self.protocol.as_str())
            }
            "rule-action" => filter::one(values, self.action()),
            "rule-number" => filter::one(values, text(self.rule_number)),
            _ => false,
        }
    }

    pub fn to_api(&self) -> ec2::NetworkAclEntry {
        ec2::NetworkAclEntry {
            cidr_block: self.ipv4(),
            ipv6_cidr_block: self.ipv6(),
            egress: Some(self.egress),
            icmp_type_code: self
                .icmp
                .map(|(kind, code)| ec2::IcmpTypeCode { r#type: Some(kind), code: Some(code) }),
            port_range: self.ports.map(|(from, to)| ec2::PortRange { from: Some(from), to: Some(to) }),
            protocol: Some(self.protocol.clone()),
            rule_action: Some(self.action().into()),
            rule_number: Some(self.rule_number),
        }
    }

    /// As a host is told; None for what no packet can match.
    pub fn to_desired(&self) -> Option<datapath::Protocol> {
        use datapath::Protocol;
        let port = |port: i32| u16::try_from(port).ok();
        // -1 is any.
        let icmp = |value: Option<i32>| value.and_then(|value| u8::try_from(value).ok());
        let kind = icmp(self.icmp.map(|(kind, _)| kind));
        let code = icmp(self.icmp.map(|(_, code)| code));
        Some(match (self.protocol.as_str(), self.ports) {
            (ALL, _) => Protocol::All,
            (TCP, Some((from, to))) => Protocol::Tcp { from: port(from)?, to: port(to)? },
            (UDP, Some((from, to))) => Protocol::Udp { from: port(from)?, to: port(to)? },
            (ICMP, _) => Protocol::Icmp { kind, code },
            (ICMPV6, _) => Protocol::Icmpv6 { kind, code },
            (number, _) => Protocol::Number(number.parse().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::Protocol;

    fn request(protocol: &str, cidr: &str) -> Request {
        let ipv6 = cidr.contains(':');
        Request {
            rule_number: Some(100),
            egress: Some(false),
            rule_action: Some("allow".into()),
            protocol: Some(protocol.into()),
            cidr_block: (!ipv6).then(|| cidr.into()),
            ipv6_cidr_block: ipv6.then(|| cidr.into()),
            icmp_type_code: Some(ec2::IcmpTypeCode { r#type: Some(8), code: Some(-1) }),
            port_range: Some(ec2::PortRange { from: Some(22), to: Some(80) }),
        }
    }

    #[test]
    fn a_host_is_told_what_a_rule_means() {
        for (protocol, cidr, number, expected) in [
            ("tcp", "10.0.0.0/8", "6", Protocol::Tcp { from: 22, to: 80 }),
            ("17", "::/0", "17", Protocol::Udp { from: 22, to: 80 }),
            ("ICMP", "10.0.0.0/8", "1", Protocol::Icmp { kind: Some(8), code: None }),
            ("58", "::/0", "58", Protocol::Icmpv6 { kind: Some(8), code: None }),
            ("58", "10.0.0.0/8", "58", Protocol::Icmpv6 { kind: None, code: None }),
            ("all", "10.0.0.0/8", "-1", Protocol::All),
            ("050", "10.0.0.0/8", "50", Protocol::Number(50)),
        ] {
            let entry = request(protocol, cidr).read().unwrap();
            assert_eq!((entry.protocol.as_str(), entry.to_desired()), (number, Some(expected)), "{protocol}");
        }
    }

    #[test]
    fn what_a_protocol_needs_must_be_said() {
        for protocol in ["tcp", "udp"] {
            let without = Request { port_range: None, ..request(protocol, "10.0.0.0/8") };
            assert_eq!(without.read().unwrap_err().code, "MissingParameter");
        }
        for (protocol, cidr) in [("icmp", "10.0.0.0/8"), ("icmpv6", "::/0")] {
            let without = Request { icmp_type_code: None, ..request(protocol, cidr) };
            assert_eq!(without.read().unwrap_err().code, "MissingParameter");
        }
        for protocol in ["", "256", "-2", "carrier-pigeon"] {
            assert!(request(protocol, "10.0.0.0/8").read().is_err());
        }
    }
}
