"""Subnets through boto3: where they fit, what they give, what stands in the way of deleting one."""

import concurrent.futures
import ipaddress

import pytest
from conftest import error_code, run, wait

MISSING = "subnet-0123456789abcdef0"


@pytest.fixture
def vpc(ec2):
    return ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]


@pytest.fixture
def ipv6_vpc(ec2):
    """A VPC and the /64 subnets of its IPv6 block."""
    made = ec2.create_vpc(CidrBlock="10.1.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    block = ipaddress.ip_network(made["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
    return made["VpcId"], block.subnets(new_prefix=64)


def create(ec2, vpc, cidr, **parameters):
    return ec2.create_subnet(VpcId=vpc, CidrBlock=cidr, **parameters)["Subnet"]


def described(ec2, subnet):
    return ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]


def test_a_subnet_is_under_the_defaults_of_its_vpc(ec2, vpc):
    tags = [{"ResourceType": "subnet", "Tags": [{"Key": "Name", "Value": "front"}]}]
    made = create(ec2, vpc, "10.1.16.7/20", AvailabilityZone="us-east-1b", TagSpecifications=tags)
    assert made == described(ec2, made["SubnetId"])
    assert (made["VpcId"], made["CidrBlock"], made["AvailabilityZone"]) == (vpc, "10.1.16.0/20", "us-east-1b")
    assert made["AvailableIpAddressCount"] == 4096 - 5 and made["Tags"] == [{"Key": "Name", "Value": "front"}]
    assert not (made["MapPublicIpOnLaunch"] or made["DefaultForAz"] or made["AssignIpv6AddressOnCreation"])
    by_id = create(ec2, vpc, "10.1.32.0/20", AvailabilityZoneId=made["AvailabilityZoneId"])
    assert by_id["AvailabilityZone"] == "us-east-1b"
    (acl,) = ec2.describe_network_acls(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["NetworkAcls"]
    associated = {association["SubnetId"] for association in acl["Associations"]}
    assert associated == {made["SubnetId"], by_id["SubnetId"]}
    # Without a zone: where there is none yet.
    assert create(ec2, vpc, "10.1.48.0/20")["AvailabilityZone"] != "us-east-1b"


@pytest.mark.parametrize(
    "parameters, code",
    [
        ({"CidrBlock": "10.1.0.0/29"}, "InvalidSubnet.Range"),
        ({"CidrBlock": "10.0.0.0/15"}, "InvalidSubnet.Range"),
        ({"CidrBlock": "10.2.0.0/24"}, "InvalidSubnet.Range"),
        ({"CidrBlock": "10.1.0.0"}, "InvalidParameterValue"),
        ({"CidrBlock": ""}, "MissingParameter"),
        ({"AvailabilityZone": "us-east-1z"}, "InvalidParameterValue"),
        ({"AvailabilityZoneId": "use1-az99"}, "InvalidParameterValue"),
        ({"AvailabilityZone": "us-east-1a", "AvailabilityZoneId": "use1-az1"}, "InvalidParameterCombination"),
        ({"VpcId": "vpc-0123456789abcdef0"}, "InvalidVpcID.NotFound"),
        ({"VpcId": "nonsense"}, "InvalidVpcID.Malformed"),
        ({"Ipv6CidrBlock": "fd00::/64"}, "InvalidSubnet.Range"),
        ({"Ipv6Native": True}, "MissingParameter"),
        ({"OutpostArn": "arn:aws:outposts:us-east-1:123456789012:outpost/op-1"}, "UnsupportedOperation"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_cannot_be_made_is_refused(ec2, vpc, parameters, code):
    assert error_code(ec2.create_subnet, **{"VpcId": vpc, "CidrBlock": "10.1.0.0/24", **parameters}) == code
    assert ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"] == []


def test_no_two_overlap_also_when_made_at_once(simulated, ec2, vpc):
    create(ec2, vpc, "10.1.4.0/24")
    for cidr in ["10.1.4.0/24", "10.1.4.128/25", "10.1.0.0/16", "10.1.4.0/22"]:
        assert error_code(create, ec2=ec2, vpc=vpc, cidr=cidr) == "InvalidSubnet.Conflict", cidr
    clients = [simulated.client() for _ in range(8)]
    make = lambda client: error_code(client.create_subnet, VpcId=vpc, CidrBlock="10.1.128.0/17")
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        codes = list(pool.map(make, clients))
    assert sorted(codes, key=str) == ["InvalidSubnet.Conflict"] * 7 + [None]


def test_ipv6_blocks_come_and_go(ec2, ipv6_vpc):
    vpc, blocks = ipv6_vpc
    first, second = str(next(blocks)), str(next(blocks))
    subnet = create(ec2, vpc, "10.1.0.0/24", Ipv6CidrBlock=first)
    (association,) = subnet["Ipv6CidrBlockAssociationSet"]
    assert association["Ipv6CidrBlock"] == first
    assert association["Ipv6CidrBlockState"]["State"] == "associated"
    conflict = error_code(create, ec2=ec2, vpc=vpc, cidr="10.1.1.0/24", Ipv6CidrBlock=first)
    assert conflict == "InvalidSubnet.Conflict"
    other = create(ec2, vpc, "10.1.1.0/24")["SubnetId"]
    associate = lambda subnet, block: ec2.associate_subnet_cidr_block(SubnetId=subnet, Ipv6CidrBlock=block)
    assert error_code(associate, subnet=other, block=first) == "InvalidSubnet.Conflict"
    assert error_code(associate, subnet=other, block=second.replace("/64", "/65")) == "InvalidSubnet.Range"
    added = associate(other, second)["Ipv6CidrBlockAssociation"]
    assert added["Ipv6CidrBlockState"]["State"] == "associating"
    assert error_code(associate, subnet=other, block=str(next(blocks))) == "SubnetIpv6CidrBlockLimitExceeded"
    ec2.modify_subnet_attribute(SubnetId=other, AssignIpv6AddressOnCreation={"Value": True})
    gone = ec2.disassociate_subnet_cidr_block(AssociationId=added["AssociationId"])
    assert gone["SubnetId"] == other
    assert gone["Ipv6CidrBlockAssociation"]["Ipv6CidrBlockState"]["State"] == "disassociating"
    assert described(ec2, other)["Ipv6CidrBlockAssociationSet"] == []
    assert not described(ec2, other)["AssignIpv6AddressOnCreation"]
    again = error_code(ec2.disassociate_subnet_cidr_block, AssociationId=added["AssociationId"])
    assert again == "InvalidSubnetCidrBlockAssociationID.NotFound"
    dual = create(ec2, vpc, "10.1.2.0/24", Ipv6CidrBlock=second)["SubnetId"]
    on = {"Value": True}
    ec2.modify_subnet_attribute(SubnetId=dual, EnableResourceNameDnsAAAARecordOnLaunch=on)
    ec2.modify_subnet_attribute(SubnetId=dual, EnableDns64=on)
    assert described(ec2, dual)["EnableDns64"] and not described(ec2, other)["EnableDns64"]
    filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "enable-dns64", "Values": ["true"]}]
    assert [one["SubnetId"] for one in ec2.describe_subnets(Filters=filters)["Subnets"]] == [dual]
    ec2.modify_subnet_attribute(SubnetId=dual, EnableDns64={"Value": False})
    assert not described(ec2, dual)["EnableDns64"]
    assert described(ec2, dual)["PrivateDnsNameOptionsOnLaunch"]["EnableResourceNameDnsAAAARecord"]


def test_attributes_are_changed_one_at_a_time(ec2, vpc):
    subnet = create(ec2, vpc, "10.1.0.0/24")["SubnetId"]
    modify = lambda **attributes: error_code(ec2.modify_subnet_attribute, SubnetId=subnet, **attributes)
    on = {"Value": True}
    assert modify() == "InvalidParameterCombination"
    assert modify(MapPublicIpOnLaunch=on, EnableDns64={"Value": False}) == "InvalidParameterCombination"
    assert modify(EnableDns64=on) == "InvalidParameterValue"
    assert modify(AssignIpv6AddressOnCreation=on) == "InvalidParameterValue"
    assert modify(EnableResourceNameDnsAAAARecordOnLaunch=on) == "InvalidParameterValue"
    assert modify(PrivateDnsHostnameTypeOnLaunch="by-colour") == "InvalidParameterValue"
    assert modify(MapCustomerOwnedIpOnLaunch=on) == "UnsupportedOperation"
    assert modify(MapCustomerOwnedIpOnLaunch={"Value": False}) is None
    for attributes in [
        {"MapPublicIpOnLaunch": on},
        {"EnableDns64": {"Value": False}},
        {"PrivateDnsHostnameTypeOnLaunch": "resource-name"},
        {"EnableResourceNameDnsARecordOnLaunch": on},
    ]:
        assert modify(**attributes) is None
    after = described(ec2, subnet)
    assert after["MapPublicIpOnLaunch"] and not after["EnableDns64"]
    assert after["PrivateDnsNameOptionsOnLaunch"] == {
        "HostnameType": "resource-name",
        "EnableResourceNameDnsARecord": True,
        "EnableResourceNameDnsAAAARecord": False,
    }
    assert error_code(ec2.modify_subnet_attribute, SubnetId=MISSING, MapPublicIpOnLaunch=on) == "InvalidSubnetID.NotFound"


def test_a_subnet_in_use_is_kept(ec2, vpc, ami):
    subnet = create(ec2, vpc, "10.1.0.0/28")["SubnetId"]
    (instance,) = run(ec2, ami, SubnetId=subnet)
    assert ipaddress.ip_address(instance["PrivateIpAddress"]) in ipaddress.ip_network("10.1.0.0/28")
    assert described(ec2, subnet)["AvailableIpAddressCount"] == 16 - 5 - 1
    assert error_code(ec2.delete_subnet, SubnetId=subnet) == "DependencyViolation"
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    wait(ec2, "instance_terminated", [instance["InstanceId"]])
    ec2.delete_subnet(SubnetId=subnet)
    assert error_code(ec2.delete_subnet, SubnetId=subnet) == "InvalidSubnetID.NotFound"
    assert error_code(ec2.delete_subnet, SubnetId="subnet") == "InvalidSubnetID.Malformed"
    (acl,) = ec2.describe_network_acls(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["NetworkAcls"]
    assert acl["Associations"] == []


def test_found_by_every_documented_filter(ec2, ipv6_vpc):
    vpc, blocks = ipv6_vpc
    tags = [{"ResourceType": "subnet", "Tags": [{"Key": "suite", "Value": "filters"}]}]
    subnet = create(
        ec2, vpc, "10.1.7.0/24", Ipv6CidrBlock=str(next(blocks)), AvailabilityZone="us-east-1a", TagSpecifications=tags
    )
    create(ec2, vpc, "10.1.8.0/25", AvailabilityZone="us-east-1b")
    (ipv6,) = subnet["Ipv6CidrBlockAssociationSet"]
    for name, value in {
        "availability-zone": "us-east-1a",
        "availabilityZone": "us-east-1a",
        "availability-zone-id": subnet["AvailabilityZoneId"],
        "available-ip-address-count": "251",
        "cidr-block": "10.1.7.0/24",
        "cidr": "10.1.7.0/24",
        "cidrBlock": "10.1.7.*",
        "ipv6-cidr-block-association.ipv6-cidr-block": ipv6["Ipv6CidrBlock"],
        "ipv6-cidr-block-association.association-id": ipv6["AssociationId"],
        "ipv6-cidr-block-association.state": "associated",
        "subnet-arn": subnet["SubnetArn"],
        "subnet-id": subnet["SubnetId"],
        "tag:suite": "filters",
        "tag-key": "suite",
    }.items():
        filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": name, "Values": [value]}]
        found = ec2.describe_subnets(Filters=filters)["Subnets"]
        assert [one["SubnetId"] for one in found] == [subnet["SubnetId"]], name
    for name, value in {
        "default-for-az": "false",
        "enable-dns64": "false",
        "ipv6-native": "false",
        "map-customer-owned-ip-on-launch": "false",
        "map-public-ip-on-launch": "false",
        "owner-id": subnet["OwnerId"],
        "private-dns-name-options-on-launch.hostname-type": "ip-name",
        "private-dns-name-options-on-launch.enable-resource-name-dns-a-record": "false",
        "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": "false",
        "state": "available",
    }.items():
        filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": name, "Values": [value]}]
        assert len(ec2.describe_subnets(Filters=filters)["Subnets"]) == 2, name


def test_what_is_reserved_is_given_only_when_asked_for(ec2, vpc, ami):
    subnet = create(ec2, vpc, "10.1.0.0/27")["SubnetId"]
    reserve = lambda cidr, **more: ec2.create_subnet_cidr_reservation(
        **{"SubnetId": subnet, "Cidr": cidr, "ReservationType": "explicit", **more}
    )
    tags = [{"ResourceType": "subnet-cidr-reservation", "Tags": [{"Key": "a", "Value": "b"}]}]
    made = reserve("10.1.0.17/28", Description="ours", TagSpecifications=tags)["SubnetCidrReservation"]
    assert (made["Cidr"], made["ReservationType"], made["Description"]) == ("10.1.0.16/28", "explicit", "ours")
    assert made["Tags"] == [{"Key": "a", "Value": "b"}]
    for parameters in [
        {"cidr": "10.1.0.24/29"},
        {"cidr": "10.1.0.32/28"},
        {"cidr": "fd00::/80"},
        {"cidr": "10.1.0.0"},
        {"cidr": "10.1.0.8/29", "ReservationType": "some"},
    ]:
        assert error_code(reserve, **parameters) == "InvalidParameterValue", parameters
    # A dozen are left for whoever comes, none of them reserved.
    others = run(ec2, ami, 12, SubnetId=subnet)
    reserved = ipaddress.ip_network("10.1.0.16/28")
    assert not any(ipaddress.ip_address(one["PrivateIpAddress"]) in reserved for one in others)
    assert error_code(run, client=ec2, ami=ami, SubnetId=subnet) == "InsufficientFreeAddressesInSubnet"
    (asked,) = run(ec2, ami, SubnetId=subnet, PrivateIpAddress="10.1.0.20")
    get = lambda **more: ec2.get_subnet_cidr_reservations(SubnetId=subnet, **more)
    assert get()["SubnetIpv4CidrReservations"] == [made] and get()["SubnetIpv6CidrReservations"] == []
    none = [{"Name": "reservationType", "Values": ["prefix"]}]
    assert get(Filters=none)["SubnetIpv4CidrReservations"] == []
    id = made["SubnetCidrReservationId"]
    delete = lambda: ec2.delete_subnet_cidr_reservation(SubnetCidrReservationId=id)
    assert delete()["DeletedSubnetCidrReservation"] == made
    assert error_code(delete) == "InvalidSubnetCidrReservationID.NotFound"
    (freed,) = run(ec2, ami, SubnetId=subnet)
    assert ipaddress.ip_address(freed["PrivateIpAddress"]) in reserved
    reserve("10.1.0.8/29", ReservationType="prefix")
    ids = [one["InstanceId"] for one in [*others, asked, freed]]
    ec2.terminate_instances(InstanceIds=ids)
    wait(ec2, "instance_terminated", ids)
    ec2.delete_subnet(SubnetId=subnet)
    assert error_code(get) == "InvalidSubnetID.NotFound"
