//! What an interface is called outside, after its addresses: ModifyPublicIpDnsNameOptions (EC2 User Guide, "Public hostname
//! types").

use super::{NetworkInterface, PrivateAddress, dashed};
use crate::Context;
use crate::engine::Tables;
use crate::vpc::Vpc;
use aws_api::ec2;
use model::{Error, IpName, Region, Result};
use serde::{Deserialize, Serialize};

/// Which families its public name leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublicNameType {
    #[default]
    Ipv4,
    Ipv6,
    DualStack,
}

impl PublicNameType {
    /// EC2's `PublicIpDnsOption`.
    fn name(self) -> &'static str {
        match self {
            PublicNameType::Ipv4 => "public-ipv4-dns-name",
            PublicNameType::Ipv6 => "public-ipv6-dns-name",
            PublicNameType::DualStack => "public-dual-stack-dns-name",
        }
    }

    fn parse(text: &str) -> Result<PublicNameType> {
        let all = [PublicNameType::Ipv4, PublicNameType::Ipv6, PublicNameType::DualStack];
        all.into_iter().find(|of| of.name() == text).ok_or_else(|| {
            Error::invalid_parameter_value(format!("Value ({text}) for parameter hostnameType is invalid."))
        })
    }
}

impl NetworkInterface {
    /// `ec2-198-18-0-4.compute-1.amazonaws.com`, or after its addresses of IPv6 or of both families where that is asked for.
    /// None also where its VPC gives no such names.
    pub fn public_dns_name(&self, tables: &Tables, region: &Region) -> Option<String> {
        self.public_name(self.public_name_type, tables, region)
    }

    fn public_name(&self, of: PublicNameType, tables: &Tables, region: &Region) -> Option<String> {
        if of == PublicNameType::Ipv4 {
            return self.primary().and_then(|primary| self.public_name_of(primary, tables, region));
        }
        let ipv6 = *self.ipv6.addresses.first().filter(|_| self.has_names(tables))?;
        let ipv4 = if of == PublicNameType::DualStack { Some(self.public_ip()?) } else { None };
        Some(format!("{}.{}", IpName { ipv6, ipv4 }, region.ip_dns_domain()))
    }

    /// After the public address of any private one that it has.
    pub fn public_name_of(&self, own: &PrivateAddress, tables: &Tables, region: &Region) -> Option<String> {
        let ip = own.public_ip().filter(|_| self.has_names(tables))?;
        Some(format!("ec2-{}.{}", dashed(ip), region.public_dns_domain()))
    }

    fn has_names(&self, tables: &Tables) -> bool {
        tables.vpcs.find(&self.vpc_id).is_some_and(|vpc| vpc.dns_hostnames)
    }

    /// None where it has no public name of any kind.
    pub fn public_names(&self, tables: &Tables, region: &Region) -> Option<ec2::PublicIpDnsNameOptions> {
        let name = |of| self.public_name(of, tables, region);
        let names = [PublicNameType::Ipv4, PublicNameType::Ipv6, PublicNameType::DualStack].map(name);
        let any = names.iter().any(Option::is_some);
        let [public_ipv4_dns_name, public_ipv6_dns_name, public_dual_stack_dns_name] = names;
        any.then(|| ec2::PublicIpDnsNameOptions {
            dns_hostname_type: Some(self.public_name_type.name().into()),
            public_ipv4_dns_name,
            public_ipv6_dns_name,
            public_dual_stack_dns_name,
        })
    }
}

pub async fn modify_public_ip_dns_name_options(
    context: &Context,
    input: ec2::ModifyPublicIpDnsNameOptionsRequest,
) -> Result<ec2::ModifyPublicIpDnsNameOptionsResult> {
    let wanted = PublicNameType::parse(input.hostname_type.as_deref().unwrap_or_default())?;
    let id = input.network_interface_id.as_deref().unwrap_or_default();
    let region = &context.region.view.region;
    context
        .transact(|tx| {
            let interface = super::own(tx, id)?;
            let vpc = tx.get::<Vpc>(&interface.vpc_id);
            if !vpc.is_some_and(|vpc| vpc.dns_hostnames && vpc.dns_support) {
                return Err(Error::invalid_parameter_value(format!(
                    "The VPC of {id} gives no public names: it needs enableDnsHostnames and enableDnsSupport."
                )));
            }
            if interface.public_name(wanted, tx.tables(), region).is_none() {
                return Err(Error::invalid_parameter_value(format!(
                    "{id} has no public addresses for a name of type {}.",
                    wanted.name()
                )));
            }
            tx.put(&NetworkInterface { public_name_type: wanted, ..interface });
            Ok(())
        })
        .await?;
    Ok(ec2::ModifyPublicIpDnsNameOptionsResult { successful: Some(true) })
}
