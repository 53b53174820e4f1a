//! How much a region may hold: bounds that the operator sets, and generous ones where he does not
//! (EC2 User Guide, "Amazon EC2 service quotas").

use crate::engine::table::Record;
use model::{Error, Result};
use std::collections::BTreeMap;

/// A bound on the records of one kind, in a region or in something of it.
struct Quota {
    /// As the operator names it.
    name: &'static str,
    /// Whose records are counted; None where an operation counts what is in one thing.
    table: Option<&'static str>,
    default: u64,
    /// EC2's code for too many (EC2 API Reference, "Error codes").
    code: &'static str,
}

const QUOTAS: &[Quota] = &[
    quota::<crate::instance::Instance>("instances", 1_000_000, "InstanceLimitExceeded"),
    quota::<crate::volume::Volume>("volumes", 1_000_000, "VolumeLimitExceeded"),
    quota::<crate::snapshot::Snapshot>("snapshots", 100_000, "SnapshotLimitExceeded"),
    quota::<crate::replace_root_volume_task::ReplaceRootVolumeTask>(
        "replace-root-volume-tasks",
        100_000,
        "ResourceLimitExceeded",
    ),
    quota::<crate::image::Image>("images", 50_000, "ResourceLimitExceeded"),
    quota::<crate::image::usage_report::ImageUsageReport>(
        "image-usage-reports",
        10_000,
        "ResourceLimitExceeded",
    ),
    quota::<crate::key_pair::KeyPair>("key-pairs", 5_000, "ResourceLimitExceeded"),
    quota::<crate::security_group::SecurityGroup>("security-groups", 10_000, "SecurityGroupLimitExceeded"),
    quota::<crate::placement_group::PlacementGroup>("placement-groups", 500, "ResourceLimitExceeded"),
    quota::<crate::dedicated_host::DedicatedHost>("dedicated-hosts", 10_000, "HostLimitExceeded"),
    quota::<crate::instance_type::OwnType>("instance-types", 1_000, "ResourceLimitExceeded"),
    quota::<crate::network_interface::NetworkInterface>(
        "network-interfaces",
        1_000_000,
        "NetworkInterfaceLimitExceeded",
    ),
    quota::<crate::address::Address>("elastic-ips", 1_000, "AddressLimitExceeded"),
    quota::<crate::public_pool::PublicPool>("public-pools", 100, "ResourceLimitExceeded"),
    quota::<crate::nat_gateway::NatGateway>("nat-gateways", 10_000, "NatGatewayLimitExceeded"),
    quota::<crate::vpc::Vpc>("vpcs", 10_000, "VpcLimitExceeded"),
    quota::<crate::internet_gateway::InternetGateway>(
        "internet-gateways",
        10_000,
        "InternetGatewayLimitExceeded",
    ),
    quota::<crate::egress_only_internet_gateway::EgressOnlyInternetGateway>(
        "egress-only-internet-gateways",
        10_000,
        "EgressOnlyInternetGatewayLimitExceeded",
    ),
    quota::<crate::network_insights::NetworkInsightsPath>(
        "network-insights-paths",
        1_000,
        "ResourceLimitExceeded",
    ),
    quota::<crate::network_insights::NetworkInsightsAnalysis>(
        "network-insights-analyses",
        1_000,
        "ResourceLimitExceeded",
    ),
    quota::<crate::network_insights::NetworkInsightsAccessScope>(
        "network-insights-access-scopes",
        1_000,
        "ResourceLimitExceeded",
    ),
    quota::<crate::network_insights::NetworkInsightsAccessScopeAnalysis>(
        "network-insights-access-scope-analyses",
        1_000,
        "ResourceLimitExceeded",
    ),
    // As EC2 has it (PrivateLink Guide, "AWS PrivateLink quotas").
    quota::<crate::vpc_endpoint::VpcEndpoint>("gateway-vpc-endpoints", 20, "VpcEndpointLimitExceeded"),
    quota::<crate::prefix_list::PrefixList>("prefix-lists", 10_000, "PrefixListLimitExceeded"),
    quota::<crate::dhcp_options::DhcpOptions>("dhcp-options", 10_000, "DhcpOptionsLimitExceeded"),
    // Of one VPC, table or list: as EC2 has them (VPC User Guide, "Amazon VPC quotas").
    within(PUBLIC_ACCESS_EXCLUSIONS, 50, "ResourceLimitExceeded"),
    within(CIDRS_PER_VPC, 5, "CidrLimitExceeded"),
    within(SUBNETS_PER_VPC, 200, "SubnetLimitExceeded"),
    within(PEERINGS_PER_VPC, 50, "ActiveVpcPeeringConnectionPerVpcLimitExceeded"),
    within(PENDING_PEERINGS_PER_VPC, 25, "OutstandingVpcPeeringConnectionLimitExceeded"),
    within(ROUTE_TABLES_PER_VPC, 200, "RouteTableLimitExceeded"),
    within(ROUTES_PER_TABLE, 500, "RouteLimitExceeded"),
    within(ELASTIC_IPS_PER_NAT_GATEWAY, 2, "AddressLimitExceeded"),
    within(PERMISSIONS_PER_NETWORK_INTERFACE, 100, "ResourceLimitExceeded"),
    within(NETWORK_ACLS_PER_VPC, 200, "NetworkAclLimitExceeded"),
    within(RULES_PER_NETWORK_ACL, 20, "NetworkAclEntryLimitExceeded"),
];

/// As EC2 has it, of one account in a region.
pub const PUBLIC_ACCESS_EXCLUSIONS: &str = "public-access-exclusions";
pub const CIDRS_PER_VPC: &str = "cidrs-per-vpc";
pub const SUBNETS_PER_VPC: &str = "subnets-per-vpc";
pub const PEERINGS_PER_VPC: &str = "peerings-per-vpc";
pub const PENDING_PEERINGS_PER_VPC: &str = "pending-peerings-per-vpc";
pub const ROUTE_TABLES_PER_VPC: &str = "route-tables-per-vpc";
pub const ROUTES_PER_TABLE: &str = "routes-per-table";
pub const NETWORK_ACLS_PER_VPC: &str = "network-acls-per-vpc";
pub const PERMISSIONS_PER_NETWORK_INTERFACE: &str = "permissions-per-network-interface";
/// EC2 raises it to eight at most.
pub const ELASTIC_IPS_PER_NAT_GATEWAY: &str = "elastic-ips-per-nat-gateway";
/// One way, with those that can't be removed.
pub const RULES_PER_NETWORK_ACL: &str = "rules-per-network-acl";

const fn quota<T: Record>(name: &'static str, default: u64, code: &'static str) -> Quota {
    Quota { name, table: Some(T::TABLE), default, code }
}

const fn within(name: &'static str, default: u64, code: &'static str) -> Quota {
    Quota { name, table: None, default, code }
}

const VCPUS: &str = "vcpus";

/// The bounds of every region.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quotas {
    /// Of pending, running and stopping instances; None is as many as the hosts have.
    vcpus: Option<u64>,
    /// What the operator set, by name.
    set: BTreeMap<&'static str, u64>,
}

impl Quotas {
    /// All that can be set.
    pub fn names() -> impl Iterator<Item = &'static str> {
        std::iter::once(VCPUS).chain(QUOTAS.iter().map(|quota| quota.name))
    }

    /// False where there is no quota of this name.
    pub fn set(&mut self, name: &str, value: u64) -> bool {
        if name == VCPUS {
            self.vcpus = Some(value);
            return true;
        }
        let quota = QUOTAS.iter().find(|quota| quota.name == name);
        quota.map(|quota| self.set.insert(quota.name, value)).is_some()
    }

    /// Whether the region may have so many records in a table.
    pub(crate) fn check(&self, table: &str, count: usize) -> Result<()> {
        let Some(quota) = QUOTAS.iter().find(|quota| quota.table == Some(table)) else { return Ok(()) };
        let reached = |max, what| format!("You have reached the limit of {max} {what} in this Region.");
        self.check_quota(quota, count, reached)
    }

    /// Whether one thing may have so many of what the quota counts.
    pub(crate) fn check_within(&self, name: &str, count: usize) -> Result<()> {
        let Some(quota) = QUOTAS.iter().find(|quota| quota.name == name) else { return Ok(()) };
        self.check_quota(quota, count, |max, what| format!("The limit of {max} {what} has been reached."))
    }

    fn check_quota(
        &self,
        quota: &Quota,
        count: usize,
        message: impl Fn(u64, String) -> String,
    ) -> Result<()> {
        let max = self.set.get(quota.name).copied().unwrap_or(quota.default);
        if count as u64 <= max {
            return Ok(());
        }
        Err(Error::new(quota.code, message(max, quota.name.replace('-', " "))))
    }

    /// Whether instances may have so many vCPUs.
    pub fn check_vcpus(&self, vcpus: u64) -> Result<()> {
        match self.vcpus {
            Some(max) if vcpus > max => Err(Error::new(
                "VcpuLimitExceeded",
                format!(
                    "You have requested more vCPU capacity than your current vCPU limit of {max} allows for the instance bucket that the specified instance type belongs to."
                ),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_pair::KeyPair;

    #[test]
    fn what_is_set_holds_and_else_the_default() {
        let mut quotas = Quotas::default();
        assert!(quotas.check(KeyPair::TABLE, 5_000).is_ok());
        assert_eq!(quotas.check(KeyPair::TABLE, 5_001).unwrap_err().code, "ResourceLimitExceeded");
        assert!(quotas.set("key-pairs", 2));
        assert!(quotas.check(KeyPair::TABLE, 3).is_err());
        assert!(quotas.check("claim", usize::MAX).is_ok());
        assert_eq!(quotas.check_within(SUBNETS_PER_VPC, 201).unwrap_err().code, "SubnetLimitExceeded");
        assert!(quotas.set(SUBNETS_PER_VPC, 201) && quotas.check_within(SUBNETS_PER_VPC, 201).is_ok());
        assert!(!quotas.set("kittens", 1));
        assert!(quotas.check_vcpus(u64::MAX).is_ok());
        assert!(quotas.set("vcpus", 4));
        assert_eq!(quotas.check_vcpus(5).unwrap_err().code, "VcpuLimitExceeded");
        assert!(Quotas::names().all(|name| quotas.set(name, 1)));
    }
}
