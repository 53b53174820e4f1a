//! Resource ids as EC2 writes them: a prefix, a dash and 17 hexadecimal digits.

use crate::{Error, Random, Result};
use compact_str::{CompactString, format_compact};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Every kind of resource that has an EC2-style id: its prefix, and what EC2's error codes and tag
/// specifications call it.
macro_rules! kinds {
    ($($kind:ident $prefix:literal $code:literal $resource_type:literal),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($kind),+ }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$(Kind::$kind),+];

            /// The part before the dash.
            pub const fn prefix(self) -> &'static str {
                match self { $(Kind::$kind => $prefix),+ }
            }

            /// What stands before `.NotFound` and `.Malformed` in error codes.
            pub const fn error_noun(self) -> &'static str {
                match self { $(Kind::$kind => $code),+ }
            }

            /// The `ResourceType` of tag specifications, DescribeTags and ARNs.
            pub const fn resource_type(self) -> &'static str {
                match self { $(Kind::$kind => $resource_type),+ }
            }
        }
    };
}

kinds! {
    Instance "i" "InvalidInstanceID" "instance",
    Reservation "r" "InvalidReservationID" "reservation",
    Image "ami" "InvalidAMIID" "image",
    ImageUsageReport "amiur" "InvalidImageUsageReportId" "image-usage-report",
    Snapshot "snap" "InvalidSnapshot" "snapshot",
    Volume "vol" "InvalidVolume" "volume",
    ReplaceRootVolumeTask "replacevol" "InvalidReplaceRootVolumeTaskId" "replace-root-volume-task",
    NetworkInterface "eni" "InvalidNetworkInterfaceID" "network-interface",
    NetworkInterfaceAttachment "eni-attach" "InvalidAttachmentID" "network-interface-attachment",
    NetworkInterfacePermission "eni-perm" "InvalidPermissionID" "network-interface-permission",
    KeyPair "key" "InvalidKeyPair" "key-pair",
    Vpc "vpc" "InvalidVpcID" "vpc",
    VpcCidrAssociation "vpc-cidr-assoc" "InvalidVpcCidrBlockAssociationID" "vpc-cidr-block-association",
    Subnet "subnet" "InvalidSubnetID" "subnet",
    SubnetCidrAssociation "subnet-cidr-assoc" "InvalidSubnetCidrBlockAssociationID" "subnet-cidr-block-association",
    SubnetCidrReservation "scr" "InvalidSubnetCidrReservationID" "subnet-cidr-reservation",
    SecurityGroup "sg" "InvalidGroup" "security-group",
    SecurityGroupRule "sgr" "InvalidSecurityGroupRuleId" "security-group-rule",
    RouteTable "rtb" "InvalidRouteTableID" "route-table",
    RouteTableAssociation "rtbassoc" "InvalidAssociationID" "route-table-association",
    InternetGateway "igw" "InvalidInternetGatewayID" "internet-gateway",
    EgressOnlyInternetGateway "eigw" "InvalidEgressOnlyInternetGatewayId" "egress-only-internet-gateway",
    NatGateway "nat" "InvalidNatGatewayID" "natgateway",
    VpcPeeringConnection "pcx" "InvalidVpcPeeringConnectionID" "vpc-peering-connection",
    VpcBlockPublicAccessExclusion "vpcbpa-exclude" "InvalidVpcBlockPublicAccessExclusionId" "vpc-block-public-access-exclusion",
    VpcEndpoint "vpce" "InvalidVpcEndpointId" "vpc-endpoint",
    PrefixList "pl" "InvalidPrefixListID" "prefix-list",
    NetworkInsightsPath "nip" "InvalidNetworkInsightsPathId" "network-insights-path",
    NetworkInsightsAnalysis "nia" "InvalidNetworkInsightsAnalysisId" "network-insights-analysis",
    NetworkInsightsAccessScope "nis" "InvalidNetworkInsightsAccessScopeId" "network-insights-access-scope",
    NetworkInsightsAccessScopeAnalysis "nisa" "InvalidNetworkInsightsAccessScopeAnalysisId" "network-insights-access-scope-analysis",
    NetworkAcl "acl" "InvalidNetworkAclID" "network-acl",
    NetworkAclAssociation "aclassoc" "InvalidAssociationID" "network-acl-association",
    DhcpOptions "dopt" "InvalidDhcpOptionsID" "dhcp-options",
    ElasticIp "eipalloc" "InvalidAllocationID" "elastic-ip",
    PublicIpv4Pool "ipv4pool-ec2" "InvalidPublicIpv4PoolID" "ipv4pool-ec2",
    ElasticIpAssociation "eipassoc" "InvalidAssociationID" "elastic-ip-association",
    PlacementGroup "pg" "InvalidPlacementGroup" "placement-group",
    Host "h" "InvalidHostID" "dedicated-host",
}

/// Hexadecimal digits after the dash in the ids we make.
const DIGITS: usize = 17;
/// Hexadecimal digits in ids from before 2016, which EC2 still accepts as well formed.
const DIGITS_OLD: usize = 8;

/// A well-formed id; ordered as text. Nearly all fit in without an allocation: there are many of them in memory.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(CompactString);

impl Id {
    /// A fresh id.
    pub fn new(kind: Kind, random: &dyn Random) -> Id {
        let mut bytes = [0u8; 9];
        random.fill(&mut bytes);
        Id::of_bytes(kind, bytes)
    }

    /// The same id for the same bytes: of what is not made but always there.
    pub fn of_bytes(kind: Kind, bytes: [u8; 9]) -> Id {
        let digits = hex::encode(bytes);
        // EC2's own ids begin with 0 in their long form.
        Id(format_compact!("{}-0{}", kind.prefix(), &digits[..DIGITS - 1]))
    }

    /// Checks the form only: `…ID.Malformed` with EC2's wording when it is not an id of this kind.
    pub fn parse(kind: Kind, text: &str) -> Result<Id> {
        if Id::is_well_formed(kind, text) {
            return Ok(Id(text.into()));
        }
        let noun = kind.error_noun();
        let message = format!("Invalid id: \"{text}\" (expecting \"{}-...\")", kind.prefix());
        Err(match kind {
            Kind::Snapshot | Kind::Volume => Error::new(
                "InvalidParameterValue",
                format!(
                    "Value ({text}) for parameter {}Id is invalid. Expected: '{}-...'.",
                    if kind == Kind::Volume { "volume" } else { "snapshot" },
                    kind.prefix()
                ),
            ),
            Kind::SecurityGroup => Error::new("InvalidGroupId.Malformed", message),
            _ => Error::new(format!("{noun}.Malformed"), message),
        })
    }

    pub fn is_well_formed(kind: Kind, text: &str) -> bool {
        text.strip_prefix(kind.prefix()).and_then(|rest| rest.strip_prefix('-')).is_some_and(|digits| {
            matches!(digits.len(), DIGITS | DIGITS_OLD)
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    }

    pub fn is_of(kind: Kind, id: &Id) -> bool {
        id.rsplit_once('-').is_some_and(|(prefix, _)| prefix == kind.prefix())
    }

    /// The kind that an id's prefix names, for operations that take any resource (CreateTags).
    pub fn kind_of(text: &str) -> Option<Kind> {
        let (prefix, _) = text.rsplit_once('-')?;
        Kind::ALL.iter().copied().find(|kind| kind.prefix() == prefix && Id::is_well_formed(*kind, text))
    }

    /// `…NotFound` with EC2's wording.
    pub fn not_found(kind: Kind, text: &str) -> Error {
        let noun = match kind.resource_type() {
            "instance" => "instance ID",
            "image" => "image id",
            "key-pair" => "key pair",
            "subnet" => "subnet ID",
            "vpc" => "vpc ID",
            "security-group" => "security group",
            "network-interface" => "networkInterface ID",
            "dedicated-host" => "Dedicated Host",
            "route-table" => "routeTable ID",
            "network-acl" => "networkAcl ID",
            "natgateway" => "natGateway ID",
            "vpc-peering-connection" => "vpcPeeringConnection ID",
            "network-interface-permission" => "network interface permission ID",
            "vpc-endpoint" => "Vpc Endpoint Id",
            "vpc-block-public-access-exclusion" => "exclusion ID",
            "prefix-list" => "prefix list ID",
            "ipv4pool-ec2" => "public IPv4 pool ID",
            "internet-gateway" => "internetGateway ID",
            "egress-only-internet-gateway" => "egress only internet gateway ID",
            "dhcp-options" => "dhcpOption ID",
            "vpc-cidr-block-association" => "vpc CIDR block association ID",
            "subnet-cidr-block-association" => "subnet CIDR block association ID",
            "subnet-cidr-reservation" => "subnet CIDR reservation ID",
            "route-table-association" | "network-acl-association" => "association ID",
            other => other,
        };
        // EC2's error codes page has them so, unlike those for malformed ones.
        let code_noun = if kind == Kind::DhcpOptions { "InvalidDhcpOptionID" } else { kind.error_noun() };
        Error::new(
            format!("{code_noun}.NotFound"),
            if kind == Kind::Image {
                format!("The image id '[{text}]' does not exist")
            } else {
                format!("The {noun} '{text}' does not exist")
            },
        )
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Id {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRandom;

    #[test]
    fn every_kind_makes_ids_that_parse_as_that_kind_only() {
        let random = SeededRandom::new(1);
        for kind in Kind::ALL {
            let id = Id::new(*kind, &random);
            assert_eq!(Id::parse(*kind, &id).unwrap(), id);
            assert_eq!(Id::kind_of(&id), Some(*kind));
        }
    }

    #[test]
    fn malformed_ids_are_refused_with_ec2s_code() {
        for text in
            ["", "i-", "i-xyz", "i-0123", "I-0123456789abcdef0", "i-0123456789ABCDEF0", "ami-12345678"]
        {
            assert_eq!(
                Id::parse(Kind::Instance, text).unwrap_err().code,
                "InvalidInstanceID.Malformed",
                "{text}"
            );
        }
        assert!(Id::parse(Kind::Instance, "i-12345678").is_ok());
    }
}
