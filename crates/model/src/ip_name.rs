//! Public host names after addresses of IPv6, alone or beside one of IPv4: base 36, the former in groups of five digits
//! (EC2 User Guide, "Public hostname types").

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The first label of such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpName {
    pub ipv6: Ipv6Addr,
    pub ipv4: Option<Ipv4Addr>,
}

const RADIX: u32 = 36;
const GROUP_DIGITS: usize = 5;
/// As many as the largest address needs.
const IPV6_DIGITS: usize = 25;

impl IpName {
    /// None of what is no such label, or not written as we write it.
    pub fn parse(label: &str) -> Option<IpName> {
        let digits: String = label.split('-').take(IPV6_DIGITS / GROUP_DIGITS).collect();
        let ipv6 = Ipv6Addr::from(u128::from_str_radix(&digits, RADIX).ok()?);
        let last = label.split('-').nth(IPV6_DIGITS / GROUP_DIGITS);
        let ipv4 =
            last.map(|digits| u32::from_str_radix(digits, RADIX).map(Ipv4Addr::from)).transpose().ok()?;
        let name = IpName { ipv6, ipv4 };
        (name.to_string() == label).then_some(name)
    }
}

impl fmt::Display for IpName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ipv6 = digits(self.ipv6.to_bits(), IPV6_DIGITS);
        let groups: Vec<&str> =
            (0..IPV6_DIGITS).step_by(GROUP_DIGITS).map(|at| &ipv6[at..at + GROUP_DIGITS]).collect();
        f.write_str(&groups.join("-"))?;
        match self.ipv4 {
            Some(ipv4) => write!(f, "-{}", digits(ipv4.to_bits().into(), 1)),
            None => Ok(()),
        }
    }
}

/// At least so many.
fn digits(mut number: u128, at_least: usize) -> String {
    let mut digits = Vec::with_capacity(IPV6_DIGITS);
    while number > 0 || digits.len() < at_least {
        let digit = (number % u128::from(RADIX)) as u32;
        digits.push(char::from_digit(digit, RADIX).unwrap_or('0'));
        number /= u128::from(RADIX);
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_label_is_as_ec2_writes_it() {
        let ipv6 = "ffff:1407:4:f000:81d:2689:1066:4489".parse().unwrap();
        let alone = IpName { ipv6, ipv4: None };
        assert_eq!(alone.to_string(), "f5lnz-0khrm-nt2u3-gyqqt-nbdl5");
        let both = IpName { ipv6, ipv4: Some(Ipv4Addr::new(52, 54, 55, 56)) };
        assert_eq!(both.to_string(), "f5lnz-0khrm-nt2u3-gyqqt-nbdl5-ehj1h4");
        for label in [
            "f5lnz-0khrm-nt2u3-gyqqt",
            "f5lnz0khrmnt2u3gyqqtnbdl5",
            "zzzzz-zzzzz-zzzzz-zzzzz-zzzzz",
            "www",
            "",
        ] {
            assert_eq!(IpName::parse(label), None, "{label}");
        }
        for more in ["-0ehj1h4", "-ehj1h4-1", "-zzzzzzz", "-"] {
            assert_eq!(IpName::parse(&format!("{alone}{more}")), None, "{more}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ipv6: u128, ipv4: Option<u32>) {
            let name = IpName { ipv6: ipv6.into(), ipv4: ipv4.map(Ipv4Addr::from) };
            prop_assert_eq!(IpName::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn no_label_makes_it_panic(label in ".{0,80}") {
            IpName::parse(&label);
        }
    }
}
