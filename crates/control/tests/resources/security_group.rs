use crate::cloud::{Answer, Cloud};

async fn group(cloud: &Cloud, name: &str) -> String {
    let made =
        cloud.ok("CreateSecurityGroup", &[("GroupName", name), ("GroupDescription", "for a test")]).await;
    made.one("groupId").to_owned()
}

async fn authorize(cloud: &Cloud, group: &str, permission: &[(&str, &str)]) -> Answer {
    let mut parameters = vec![("GroupId", group)];
    parameters.extend(permission);
    cloud.call("AuthorizeSecurityGroupIngress", &parameters).await
}

const SSH: [(&str, &str); 4] = [
    ("IpPermissions.1.IpProtocol", "tcp"),
    ("IpPermissions.1.FromPort", "22"),
    ("IpPermissions.1.ToPort", "22"),
    ("IpPermissions.1.IpRanges.1.CidrIp", "10.1.2.3/8"),
];

#[tokio::test]
async fn a_rule_is_authorized_once_and_revoked_once() {
    let cloud = Cloud::start().await;
    let id = group(&cloud, "web").await;
    let made = authorize(&cloud, &id, &SSH).await.unwrap();
    let rule = made.one("securityGroupRuleId").to_owned();
    assert_eq!(
        (made.one("cidrIpv4"), made.one("isEgress"), made.one("fromPort")),
        ("10.0.0.0/8", "false", "22")
    );
    assert_eq!(authorize(&cloud, &id, &SSH).await.unwrap_err(), "InvalidPermission.Duplicate");
    let found = cloud.ok("DescribeSecurityGroupRules", &[("SecurityGroupRuleId.1", &rule)]).await;
    assert_eq!(found.one("groupId"), id);

    let revoke = [("GroupId", id.as_str()), ("SecurityGroupRuleId.1", rule.as_str())];
    assert_eq!(
        cloud.call("RevokeSecurityGroupEgress", &revoke).await.unwrap_err(),
        "InvalidSecurityGroupRuleId.NotFound"
    );
    cloud.ok("RevokeSecurityGroupIngress", &revoke).await;
    let mut again = vec![("GroupId", id.as_str())];
    again.extend(SSH);
    // In a default VPC it is told, and is no error.
    let unknown = cloud.ok("RevokeSecurityGroupIngress", &again).await;
    assert_eq!((unknown.one("return"), unknown.one("cidrIp")), ("true", "10.0.0.0/8"));
}

#[tokio::test]
async fn the_flat_parameters_say_the_same() {
    let cloud = Cloud::start().await;
    let id = group(&cloud, "web").await;
    let flat = [("IpProtocol", "tcp"), ("FromPort", "22"), ("ToPort", "22"), ("CidrIp", "10.0.0.0/8")];
    authorize(&cloud, &id, &flat).await.unwrap();
    assert_eq!(authorize(&cloud, &id, &SSH).await.unwrap_err(), "InvalidPermission.Duplicate");
    let both: Vec<_> = SSH.iter().chain(&flat).copied().collect();
    assert_eq!(authorize(&cloud, &id, &both).await.unwrap_err(), "InvalidParameterCombination");
    authorize(&cloud, &id, &[("SourceSecurityGroupName", "default")]).await.unwrap();
}

#[tokio::test]
async fn a_permission_twice_in_a_request_is_refused_whole() {
    let cloud = Cloud::start().await;
    let id = group(&cloud, "web").await;
    let twice: Vec<_> =
        SSH.iter().copied().chain([("IpPermissions.1.IpRanges.2.CidrIp", "10.9.9.9/8")]).collect();
    assert_eq!(authorize(&cloud, &id, &twice).await.unwrap_err(), "InvalidParameterValue");
    let rules = cloud
        .ok("DescribeSecurityGroupRules", &[("Filter.1.Name", "group-id"), ("Filter.1.Value.1", &id)])
        .await;
    assert_eq!(rules.one("isEgress"), "true");
}

#[tokio::test]
async fn a_modification_makes_no_two_rules_alike() {
    let cloud = Cloud::start().await;
    let id = group(&cloud, "web").await;
    authorize(&cloud, &id, &SSH).await.unwrap();
    let other = [("IpProtocol", "tcp"), ("FromPort", "80"), ("ToPort", "80"), ("CidrIp", "10.0.0.0/8")];
    let rule = authorize(&cloud, &id, &other).await.unwrap().one("securityGroupRuleId").to_owned();
    let modify = async |port: &str| {
        let parameters = [
            ("GroupId", id.as_str()),
            ("SecurityGroupRule.1.SecurityGroupRuleId", rule.as_str()),
            ("SecurityGroupRule.1.SecurityGroupRule.IpProtocol", "tcp"),
            ("SecurityGroupRule.1.SecurityGroupRule.FromPort", port),
            ("SecurityGroupRule.1.SecurityGroupRule.ToPort", port),
            ("SecurityGroupRule.1.SecurityGroupRule.CidrIpv4", "10.0.0.0/8"),
            ("SecurityGroupRule.1.SecurityGroupRule.Description", "changed"),
        ];
        cloud.call("ModifySecurityGroupRules", &parameters).await
    };
    assert_eq!(modify("22").await.unwrap_err(), "InvalidPermission.Duplicate");
    modify("443").await.unwrap();
    let changed = cloud.ok("DescribeSecurityGroupRules", &[("SecurityGroupRuleId.1", &rule)]).await;
    assert_eq!((changed.one("fromPort"), changed.one("description")), ("443", "changed"));
}

#[tokio::test]
async fn descriptions_are_given_and_taken_away() {
    let cloud = Cloud::start().await;
    let id = group(&cloud, "web").await;
    let rule = authorize(&cloud, &id, &SSH).await.unwrap().one("securityGroupRuleId").to_owned();
    let mut described = vec![("GroupId", id.as_str()), ("IpPermissions.1.IpRanges.1.Description", "office")];
    described.extend(SSH);
    cloud.ok("UpdateSecurityGroupRuleDescriptionsIngress", &described).await;
    let by_id = [("SecurityGroupRuleId.1", rule.as_str())];
    assert_eq!(cloud.ok("DescribeSecurityGroupRules", &by_id).await.one("description"), "office");
    let taken =
        [("GroupId", id.as_str()), ("SecurityGroupRuleDescription.1.SecurityGroupRuleId", rule.as_str())];
    cloud.ok("UpdateSecurityGroupRuleDescriptionsIngress", &taken).await;
    assert!(cloud.ok("DescribeSecurityGroupRules", &by_id).await.all("description").is_empty());
}

#[tokio::test]
async fn names_are_unique_and_free_again_after_deletion() {
    let cloud = Cloud::start().await;
    let create = [("GroupName", "web"), ("GroupDescription", "for a test")];
    cloud.ok("CreateSecurityGroup", &create).await;
    assert_eq!(cloud.call("CreateSecurityGroup", &create).await.unwrap_err(), "InvalidGroup.Duplicate");
    cloud.ok("DeleteSecurityGroup", &[("GroupName", "web")]).await;
    assert_eq!(
        cloud.call("DeleteSecurityGroup", &[("GroupName", "web")]).await.unwrap_err(),
        "InvalidGroup.NotFound"
    );
    cloud.ok("CreateSecurityGroup", &create).await;
    assert_eq!(
        cloud.call("DeleteSecurityGroup", &[("GroupName", "default")]).await.unwrap_err(),
        "CannotDelete"
    );
}

#[tokio::test]
async fn a_group_that_is_used_or_referred_to_stays() {
    let cloud = Cloud::start().await;
    let (web, database) = (group(&cloud, "web").await, group(&cloud, "database").await);
    let from_web = [("IpPermissions.1.IpProtocol", "-1"), ("IpPermissions.1.Groups.1.GroupId", web.as_str())];
    authorize(&cloud, &database, &from_web).await.unwrap();
    let delete = async |id: &str| cloud.call("DeleteSecurityGroup", &[("GroupId", id)]).await;
    assert_eq!(delete(&web).await.unwrap_err(), "DependencyViolation");
    let by_name = [("Filter.1.Name", "ip-permission.group-name"), ("Filter.1.Value.1", "web")];
    assert_eq!(cloud.ok("DescribeSecurityGroups", &by_name).await.one("groupName"), "database");
    cloud.run(&[("SecurityGroupId.1", &database)]).await;
    assert_eq!(delete(&database).await.unwrap_err(), "DependencyViolation");
    let of_group = [("Filter.1.Name", "group-name"), ("Filter.1.Value.1", "database")];
    assert_eq!(cloud.ok("DescribeNetworkInterfaces", &of_group).await.all("networkInterfaceId").len(), 1);
}

#[tokio::test]
async fn a_rule_over_a_peering_connection_is_told_while_it_is_there() {
    let cloud = Cloud::start().await;
    let mut vpcs = Vec::new();
    let mut groups = Vec::new();
    for cidr in ["10.1.0.0/16", "10.2.0.0/16"] {
        let vpc = cloud.ok("CreateVpc", &[("CidrBlock", cidr)]).await.all("vpcId")[0].to_owned();
        let of = [("GroupName", "g"), ("GroupDescription", "of a peer"), ("VpcId", vpc.as_str())];
        groups.push(cloud.ok("CreateSecurityGroup", &of).await.one("groupId").to_owned());
        vpcs.push(vpc);
    }
    let ends = [("VpcId", vpcs[0].as_str()), ("PeerVpcId", vpcs[1].as_str())];
    let asked = cloud.ok("CreateVpcPeeringConnection", &ends).await;
    let peering = [("VpcPeeringConnectionId", asked.one("vpcPeeringConnectionId"))];
    cloud.ok("AcceptVpcPeeringConnection", &peering).await;
    let pair =
        [("IpPermissions.1.IpProtocol", "-1"), ("IpPermissions.1.Groups.1.GroupId", groups[1].as_str())];
    authorize(&cloud, &groups[0], &pair).await.unwrap();
    let told = cloud.told_of_group(&groups[0], |group| !group.network.ingress.is_empty()).await;
    let peer = model::Id::parse(model::Kind::SecurityGroup, &groups[1]).unwrap();
    assert_eq!(told.network.ingress[0].peer, datapath::Peer::Group(peer));
    cloud.ok("DeleteVpcPeeringConnection", &peering).await;
    cloud.told_of_group(&groups[0], |group| group.network.ingress.is_empty()).await;
}

#[tokio::test]
async fn all_that_is_an_interfaces_own_speaks_for_its_groups() {
    let cloud = Cloud::start().await;
    let wanted = [("CidrBlock", "10.1.0.0/16"), ("AmazonProvidedIpv6CidrBlock", "true")];
    let vpc = cloud.ok("CreateVpc", &wanted).await.all("vpcId")[0].to_owned();
    let of = [("GroupName", "g"), ("GroupDescription", "for a test"), ("VpcId", vpc.as_str())];
    let group = cloud.ok("CreateSecurityGroup", &of).await.one("groupId").to_owned();
    let block = cloud.ok("DescribeVpcs", &[("VpcId.1", &vpc)]).await.one("ipv6CidrBlock").to_owned();
    let block = block.replace("/56", "/64");
    let of = [("VpcId", vpc.as_str()), ("CidrBlock", "10.1.1.0/24"), ("Ipv6CidrBlock", block.as_str())];
    let subnet = cloud.ok("CreateSubnet", &of).await.one("subnetId").to_owned();
    let of = [
        ("SubnetId", subnet.as_str()),
        ("SecurityGroupId.1", group.as_str()),
        ("PrivateIpAddress", "10.1.1.5"),
        ("Ipv4Prefix.1.Ipv4Prefix", "10.1.1.32/28"),
        ("Ipv6AddressCount", "1"),
    ];
    let made = cloud.ok("CreateNetworkInterface", &of).await;
    let interface = made.all("networkInterfaceId")[0].to_owned();
    let of = [("NetworkInterfaceId", interface.as_str()), ("Ipv6PrefixCount", "1")];
    let prefix = cloud.ok("AssignIpv6Addresses", &of).await.all("item")[0].to_owned();
    cloud
        .run(&[
            ("NetworkInterface.1.DeviceIndex", "0"),
            ("NetworkInterface.1.NetworkInterfaceId", &interface),
        ])
        .await;
    let told =
        cloud.told_of_group(&group, |group| group.network.members.values().any(|of| of.len() == 4)).await;
    let members: Vec<String> = told.network.members.values().flatten().map(|net| net.to_string()).collect();
    let address = format!("{}/128", made.all("ipv6Address")[0]);
    for own in ["10.1.1.5/32", "10.1.1.32/28", &address, &prefix] {
        assert!(members.iter().any(|member| member == own), "{own} is not of {members:?}");
    }
}
