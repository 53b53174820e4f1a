"""VPCs through boto3: made with what every VPC has, described, changed, and deleted with what they came with."""

import ipaddress
import uuid

import pytest
from conftest import error_code, run, wait

MISSING = "vpc-0123456789abcdef0"


@pytest.fixture
def vpc(ec2):
    return ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]


def described(ec2, vpc):
    return ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]


def of(vpc, *more):
    return [{"Name": "vpc-id", "Values": [vpc]}, *({"Name": name, "Values": [value]} for name, value in more)]


def test_a_vpc_comes_with_a_table_a_list_and_a_group(ec2):
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "main"}]}]
    made = ec2.create_vpc(CidrBlock="10.1.2.3/16", InstanceTenancy="dedicated", TagSpecifications=tags)["Vpc"]
    assert made == described(ec2, made["VpcId"])
    assert (made["CidrBlock"], made["InstanceTenancy"], made["IsDefault"]) == ("10.1.0.0/16", "dedicated", False)
    assert made["Tags"] == [{"Key": "Name", "Value": "main"}]
    (block,) = made["CidrBlockAssociationSet"]
    assert block["CidrBlock"] == "10.1.0.0/16" and block["CidrBlockState"]["State"] == "associated"
    # The options are the region's, which all its VPCs begin with.
    default = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]
    assert made["DhcpOptionsId"] == default["DhcpOptionsId"]
    (table,) = ec2.describe_route_tables(Filters=of(made["VpcId"]))["RouteTables"]
    assert table["Associations"][0]["Main"] and len(table["Routes"]) == 1
    assert table["Routes"][0]["GatewayId"] == "local"
    (acl,) = ec2.describe_network_acls(Filters=of(made["VpcId"]))["NetworkAcls"]
    assert acl["IsDefault"] and acl["Associations"] == []
    assert sorted((entry["RuleNumber"], entry["RuleAction"], entry["Egress"]) for entry in acl["Entries"]) == [
        (100, "allow", False),
        (100, "allow", True),
        (32767, "deny", False),
        (32767, "deny", True),
    ]
    (group,) = ec2.describe_security_groups(Filters=of(made["VpcId"]))["SecurityGroups"]
    assert group["GroupName"] == "default"
    attributes = {}
    for name in ["enableDnsSupport", "enableDnsHostnames", "enableNetworkAddressUsageMetrics"]:
        answer = ec2.describe_vpc_attribute(VpcId=made["VpcId"], Attribute=name)
        attributes[name] = answer[name[0].upper() + name[1:]]["Value"]
    assert list(attributes.values()) == [True, False, False]


@pytest.mark.parametrize(
    "parameters, code",
    [
        ({"CidrBlock": "10.0.0.0/15"}, "InvalidVpc.Range"),
        ({"CidrBlock": "10.0.0.0/29"}, "InvalidVpc.Range"),
        ({"CidrBlock": "169.254.0.0/16"}, "InvalidVpc.Range"),
        ({"CidrBlock": "224.0.0.0/16"}, "InvalidVpc.Range"),
        ({"CidrBlock": "10.0.0.0"}, "InvalidParameterValue"),
        ({"CidrBlock": "fd00::/56"}, "InvalidParameterValue"),
        ({"CidrBlock": ""}, "MissingParameter"),
        ({"InstanceTenancy": "host"}, "InvalidParameterValue"),
        ({"Ipv4IpamPoolId": "ipam-pool-0123456789abcdef0"}, "UnsupportedOperation"),
        ({"Ipv6Pool": "ipv6pool-ec2-0123456789abcdef0", "Ipv6CidrBlock": "2001:db8::/56"}, "UnsupportedOperation"),
        ({"Ipv6CidrBlockNetworkBorderGroup": "us-east-1"}, "InvalidParameterCombination"),
        ({"TagSpecifications": [{"ResourceType": "subnet", "Tags": []}]}, "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_cannot_be_made_is_refused(ec2, parameters, code):
    before = len(ec2.describe_vpcs()["Vpcs"])
    assert error_code(ec2.create_vpc, **{"CidrBlock": "10.0.0.0/16", **parameters}) == code
    assert len(ec2.describe_vpcs()["Vpcs"]) == before


def test_a_vpc_is_deleted_with_what_it_came_with_and_nothing_else(ec2, vpc):
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.1.0/24")["Subnet"]["SubnetId"]
    assert error_code(ec2.delete_vpc, VpcId=vpc) == "DependencyViolation"
    ec2.delete_subnet(SubnetId=subnet)
    group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    assert error_code(ec2.delete_vpc, VpcId=vpc) == "DependencyViolation"
    # Refused as a whole: it is used on.
    ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.1.0/24")
    assert error_code(ec2.delete_vpc, VpcId=vpc) == "DependencyViolation"
    for subnet in ec2.describe_subnets(Filters=of(vpc))["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_security_group(GroupId=group)
    ec2.delete_vpc(VpcId=vpc)
    assert error_code(ec2.describe_vpcs, VpcIds=[vpc]) == "InvalidVpcID.NotFound"
    assert error_code(ec2.delete_vpc, VpcId=vpc) == "InvalidVpcID.NotFound"
    assert ec2.describe_route_tables(Filters=of(vpc))["RouteTables"] == []
    assert ec2.describe_network_acls(Filters=of(vpc))["NetworkAcls"] == []
    assert ec2.describe_security_groups(Filters=of(vpc))["SecurityGroups"] == []


def test_blocks_are_associated_and_disassociated(ec2, vpc):
    first = ec2.associate_vpc_cidr_block(VpcId=vpc, CidrBlock="10.2.0.0/16")
    assert first["VpcId"] == vpc
    assert first["CidrBlockAssociation"]["CidrBlockState"]["State"] == "associating"
    associate = lambda cidr: error_code(ec2.associate_vpc_cidr_block, VpcId=vpc, CidrBlock=cidr)
    for cidr in ["10.2.1.0/24", "10.0.0.0/16", "192.168.0.0/16", "172.16.0.0/16", "198.19.0.0/16", "10.3.0.0/8"]:
        assert associate(cidr) == "InvalidVpc.Range", cidr
    assert [associate(cidr) for cidr in ["100.64.0.0/24", "10.3.0.0/16", "203.0.113.0/24"]] == [None] * 3
    assert associate("10.4.0.0/16") == "CidrLimitExceeded"
    blocks = {block["CidrBlock"]: block["AssociationId"] for block in described(ec2, vpc)["CidrBlockAssociationSet"]}
    assert list(blocks) == ["10.1.0.0/16", "10.2.0.0/16", "100.64.0.0/24", "10.3.0.0/16", "203.0.113.0/24"]
    # What is in use stays, and the primary one always.
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.2.7.0/24")["Subnet"]["SubnetId"]
    disassociate = lambda id: error_code(ec2.disassociate_vpc_cidr_block, AssociationId=id)
    assert disassociate(blocks["10.2.0.0/16"]) == "DependencyViolation"
    assert disassociate(blocks["10.1.0.0/16"]) == "OperationNotPermitted"
    assert disassociate("vpc-cidr-assoc-0123456789abcdef0") == "InvalidVpcCidrBlockAssociationID.NotFound"
    ec2.delete_subnet(SubnetId=subnet)
    answer = ec2.disassociate_vpc_cidr_block(AssociationId=blocks["10.2.0.0/16"])
    assert answer["CidrBlockAssociation"]["CidrBlockState"]["State"] == "disassociating"
    assert disassociate(blocks["10.2.0.0/16"]) == "InvalidVpcCidrBlockAssociationID.NotFound"
    assert error_code(ec2.create_subnet, VpcId=vpc, CidrBlock="10.2.7.0/24") == "InvalidSubnet.Range"


def test_ipv6_blocks_are_the_vpcs_own(ec2, vpc):
    other = ec2.create_vpc(CidrBlock="10.1.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    (block,) = other["Ipv6CidrBlockAssociationSet"]
    assert (block["Ipv6Pool"], block["NetworkBorderGroup"]) == ("Amazon", "us-east-1")
    added = ec2.associate_vpc_cidr_block(VpcId=vpc, AmazonProvidedIpv6CidrBlock=True)["Ipv6CidrBlockAssociation"]
    one, two = ipaddress.ip_network(block["Ipv6CidrBlock"]), ipaddress.ip_network(added["Ipv6CidrBlock"])
    assert one.prefixlen == two.prefixlen == 56 and not one.overlaps(two)
    assert one.supernet(new_prefix=40) == two.supernet(new_prefix=40)
    again = error_code(ec2.associate_vpc_cidr_block, VpcId=vpc, AmazonProvidedIpv6CidrBlock=True)
    assert again == "CidrLimitExceeded"
    # The defaults let it through as they do IPv4, however the VPC came to it.
    for id in [vpc, other["VpcId"]]:
        (acl,) = ec2.describe_network_acls(Filters=of(id))["NetworkAcls"]
        entries = [(entry["RuleNumber"], entry["Egress"], entry.get("Ipv6CidrBlock")) for entry in acl["Entries"]]
        assert (101, False, "::/0") in entries and (32768, True, "::/0") in entries
        (group,) = ec2.describe_security_groups(Filters=of(id))["SecurityGroups"]
        assert group["IpPermissionsEgress"][0]["Ipv6Ranges"] == [{"CidrIpv6": "::/0"}]
    # A subnet holds it.
    inside = str(next(two.subnets(new_prefix=64)))
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.0.0/24", Ipv6CidrBlock=inside)["Subnet"]
    disassociate = lambda: ec2.disassociate_vpc_cidr_block(AssociationId=added["AssociationId"])
    assert error_code(disassociate) == "DependencyViolation"
    ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    assert disassociate()["Ipv6CidrBlockAssociation"]["Ipv6CidrBlockState"]["State"] == "disassociating"
    assert described(ec2, vpc)["Ipv6CidrBlockAssociationSet"] == []


def test_attributes_are_changed_one_at_a_time(ec2, vpc):
    modify = lambda **attributes: error_code(
        ec2.modify_vpc_attribute, VpcId=vpc, **{name: {"Value": value} for name, value in attributes.items()}
    )
    assert modify(EnableDnsHostnames=True) is None
    assert modify(EnableDnsHostnames=False, EnableDnsSupport=False) == "InvalidParameterCombination"
    assert modify() == "InvalidParameterCombination"
    assert modify(EnableDnsHostnames=False) is None
    assert modify(EnableDnsSupport=False) is None
    assert modify(EnableDnsHostnames=True) == "InvalidParameterCombination"
    assert modify(EnableNetworkAddressUsageMetrics=True) is None
    assert ec2.describe_vpc_attribute(VpcId=vpc, Attribute="enableDnsSupport")["EnableDnsSupport"] == {"Value": False}
    assert error_code(ec2.describe_vpc_attribute, VpcId=vpc, Attribute="colour") == "InvalidParameterValue"
    assert error_code(ec2.modify_vpc_attribute, VpcId=MISSING, EnableDnsSupport={"Value": True}) == "InvalidVpcID.NotFound"


def test_instances_have_the_tenancy_of_their_vpc(ec2, ami):
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16", InstanceTenancy="dedicated")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]
    tenancy = lambda: run(ec2, ami, SubnetId=subnet, InstanceType="m5.large")[0]
    dedicated = tenancy()
    assert dedicated["Placement"]["Tenancy"] == "dedicated"
    assert error_code(ec2.modify_vpc_tenancy, VpcId=vpc, InstanceTenancy="host") is not None
    assert ec2.modify_vpc_tenancy(VpcId=vpc, InstanceTenancy="default")["ReturnValue"]
    shared = tenancy()
    assert shared["Placement"]["Tenancy"] == "default"
    ids = [dedicated["InstanceId"], shared["InstanceId"]]
    assert error_code(ec2.delete_subnet, SubnetId=subnet) == "DependencyViolation"
    ec2.terminate_instances(InstanceIds=ids)
    wait(ec2, "instance_terminated", ids)
    ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=vpc)


def test_found_by_every_documented_filter(ec2):
    name = uuid.uuid4().hex
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "suite", "Value": name}]}]
    vpc = ec2.create_vpc(CidrBlock="10.77.0.0/20", AmazonProvidedIpv6CidrBlock=True, TagSpecifications=tags)["Vpc"]
    (ipv6,), (ipv4,) = vpc["Ipv6CidrBlockAssociationSet"], vpc["CidrBlockAssociationSet"]
    for filters in [
        {"cidr": "10.77.0.0/20", "vpc-id": vpc["VpcId"]},
        {"cidr-block-association.cidr-block": "10.77.*", "cidr-block-association.association-id": ipv4["AssociationId"]},
        {"cidr-block-association.state": "associated", "dhcp-options-id": vpc["DhcpOptionsId"], "tag:suite": name},
        {"ipv6-cidr-block-association.association-id": ipv6["AssociationId"]},
        {"ipv6-cidr-block-association.ipv6-cidr-block": ipv6["Ipv6CidrBlock"]},
        {"ipv6-cidr-block-association.ipv6-pool": "Amazon", "tag-key": "suite", "tag:suite": name},
        {"ipv6-cidr-block-association.state": "associated", "is-default": "false", "tag:suite": name},
        {"owner-id": vpc["OwnerId"], "state": "available", "tag:suite": name},
    ]:
        found = ec2.describe_vpcs(Filters=[{"Name": name, "Values": [value]} for name, value in filters.items()])
        assert [one["VpcId"] for one in found["Vpcs"]] == [vpc["VpcId"]], filters
    assert error_code(ec2.describe_vpcs, Filters=[{"Name": "colour", "Values": ["blue"]}]) == "InvalidParameterValue"


def test_the_default_vpc_goes_for_good_and_comes_back_when_asked_for(cloud_factory):
    cloud = cloud_factory("--simulate")
    ec2 = cloud.client()
    assert error_code(ec2.create_default_vpc) == "DefaultVpcAlreadyExists"
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    subnets = ec2.describe_subnets()["Subnets"]
    zone = subnets[0]["AvailabilityZone"]
    again = error_code(ec2.create_default_subnet, AvailabilityZone=zone)
    assert again == "DefaultSubnetAlreadyExistsInAvailabilityZone"
    ec2.delete_subnet(SubnetId=subnets[0]["SubnetId"])
    made = ec2.create_default_subnet(AvailabilityZone=zone)["Subnet"]
    assert made["DefaultForAz"] and made["MapPublicIpOnLaunch"]
    assert made["CidrBlock"] == subnets[0]["CidrBlock"]
    (gateway,) = ec2.describe_internet_gateways()["InternetGateways"]
    ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc["VpcId"])
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc["VpcId"])
    assert error_code(ec2.create_default_subnet, AvailabilityZone=zone) == "DefaultVpcDoesNotExist"
    # Also after a crash: the region does not begin anew.
    cloud.kill()
    cloud.start()
    ec2 = cloud.client()
    assert ec2.describe_vpcs()["Vpcs"] == []
    new = ec2.create_default_vpc()["Vpc"]
    assert new["IsDefault"] and new["CidrBlock"] == "172.31.0.0/16"
    assert len(ec2.describe_subnets(Filters=of(new["VpcId"], ("default-for-az", "true")))["Subnets"]) == len(subnets)


def test_nothing_is_left_of_ec2_classic(ec2, ami):
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    shown = ec2.describe_vpc_classic_link(VpcIds=[vpc])["Vpcs"]
    assert shown == [{"ClassicLinkEnabled": False, "VpcId": vpc, "Tags": shown[0]["Tags"]}]
    by = lambda value: [{"Name": "is-classic-link-enabled", "Values": [value]}]
    assert ec2.describe_vpc_classic_link(Filters=by("true"))["Vpcs"] == []
    dns = ec2.describe_vpc_classic_link_dns_support(VpcIds=[vpc])["Vpcs"]
    assert dns == [{"ClassicLinkDnsSupported": False, "VpcId": vpc}]
    assert ec2.describe_classic_link_instances()["Instances"] == []
    unknown = {"VpcId": "vpc-0123456789abcdef0"}
    for call in [
        ec2.enable_vpc_classic_link,
        ec2.disable_vpc_classic_link,
        ec2.enable_vpc_classic_link_dns_support,
        ec2.disable_vpc_classic_link_dns_support,
    ]:
        assert error_code(call, VpcId=vpc) == "UnsupportedOperation"
        assert error_code(call, **unknown) == "InvalidVpcID.NotFound"
    link = {"InstanceId": "i-0123456789abcdef0", "VpcId": vpc}
    assert error_code(ec2.attach_classic_link_vpc, **link, Groups=["sg-0123456789abcdef0"]) == "InvalidInstanceID.NotFound"
    assert error_code(ec2.detach_classic_link_vpc, **link) == "InvalidInstanceID.NotFound"


def test_what_no_vpc_has_here_is_said_to_be_none(ec2):
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    for operation, key in [
        ("describe_ipv6_pools", "Ipv6Pools"),
        ("describe_vpc_encryption_controls", "VpcEncryptionControls"),
    ]:
        found = getattr(ec2, operation)(MaxResults=5, Filters=[{"Name": "tag:of", "Values": ["lab"]}])
        assert found[key] == [] and "NextToken" not in found
        unknown = [{"Name": "nonsense", "Values": ["1"]}]
        assert error_code(getattr(ec2, operation), Filters=unknown) == "InvalidParameterValue"
    control = {"VpcEncryptionControlId": "vpcec-0123456789abcdef0"}
    for expected, call, parameters in [
        ("InvalidPoolID.NotFound", ec2.describe_ipv6_pools, {"PoolIds": ["ipv6pool-ec2-0123456789abcdef0"]}),
        ("InvalidPoolID.NotFound", ec2.get_associated_ipv6_pool_cidrs, {"PoolId": "ipv6pool-ec2-0123456789abcdef0"}),
        ("UnsupportedOperation", ec2.create_vpc_encryption_control, {"VpcId": vpc}),
        ("InvalidVpcID.NotFound", ec2.create_vpc_encryption_control, {"VpcId": "vpc-0123456789abcdef0"}),
        ("InvalidVpcID.NotFound", ec2.describe_vpc_encryption_controls, {"VpcIds": ["vpc-0123456789abcdef0"]}),
        ("InvalidVpcEncryptionControlId.NotFound", ec2.modify_vpc_encryption_control, {**control, "Mode": "enforce"}),
        ("InvalidVpcEncryptionControlId.NotFound", ec2.delete_vpc_encryption_control, control),
        ("UnsupportedOperation", ec2.get_vpc_resources_blocking_encryption_enforcement, {"VpcId": vpc}),
        ("UnsupportedOperation", ec2.enable_reachability_analyzer_organization_sharing, {}),
        ("UnsupportedOperation", ec2.create_subnet, {"VpcId": vpc, "CidrBlock": "10.0.0.0/24", "Ipv6NetmaskLength": 64}),
    ]:
        assert error_code(call, **parameters) == expected, parameters
    ec2.delete_vpc(VpcId=vpc)
