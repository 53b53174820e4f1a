"""Network ACLs through boto3: their rules, which subnets they are of."""

import pytest
from conftest import error_code

MISSING = "acl-0123456789abcdef0"


@pytest.fixture
def vpc(ec2):
    return ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]


@pytest.fixture
def subnet(ec2, vpc):
    return ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.5.0/24")["Subnet"]["SubnetId"]


@pytest.fixture
def acl(ec2, vpc):
    return ec2.create_network_acl(VpcId=vpc)["NetworkAcl"]["NetworkAclId"]


def described(ec2, acl):
    return ec2.describe_network_acls(NetworkAclIds=[acl])["NetworkAcls"][0]


def tcp(number, **more):
    return {
        "RuleNumber": number,
        "Egress": False,
        "RuleAction": "allow",
        "Protocol": "6",
        "CidrBlock": "192.0.2.0/24",
        "PortRange": {"From": 22, "To": 80},
        **more,
    }


def test_a_list_begins_with_nothing_allowed(ec2, vpc):
    tags = [{"ResourceType": "network-acl", "Tags": [{"Key": "a", "Value": "b"}]}]
    asked = {"VpcId": vpc, "TagSpecifications": tags, "ClientToken": f"list-of-{vpc}"}
    made = ec2.create_network_acl(**asked)["NetworkAcl"]
    assert ec2.create_network_acl(**asked)["NetworkAcl"] == made
    assert not made["IsDefault"] and made["Associations"] == [] and made["Tags"] == [{"Key": "a", "Value": "b"}]
    deny = {"CidrBlock": "0.0.0.0/0", "Protocol": "-1", "RuleAction": "deny", "RuleNumber": 32767}
    assert made["Entries"] == [{**deny, "Egress": True}, {**deny, "Egress": False}]
    assert error_code(ec2.delete_vpc, VpcId=vpc) == "DependencyViolation"
    ec2.delete_network_acl(NetworkAclId=made["NetworkAclId"])
    delete = lambda id: error_code(ec2.delete_network_acl, NetworkAclId=id)
    assert delete(made["NetworkAclId"]) == "InvalidNetworkAclID.NotFound"
    assert delete("acl") == "InvalidNetworkAclID.Malformed"
    assert error_code(ec2.create_network_acl, VpcId="vpc-0123456789abcdef0") == "InvalidVpcID.NotFound"
    (default,) = ec2.describe_network_acls(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["NetworkAcls"]
    assert delete(default["NetworkAclId"]) == "InvalidParameterValue"


def test_in_a_vpc_with_ipv6_it_is_denied_too(ec2):
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]["VpcId"]
    entries = ec2.create_network_acl(VpcId=vpc)["NetworkAcl"]["Entries"]
    assert [(entry["RuleNumber"], entry["Egress"], entry["RuleAction"]) for entry in entries] == [
        (32767, True, "deny"),
        (32768, True, "deny"),
        (32767, False, "deny"),
        (32768, False, "deny"),
    ]


def test_rules_are_made_replaced_and_deleted(ec2, acl):
    create = lambda entry: error_code(ec2.create_network_acl_entry, NetworkAclId=acl, **entry)
    replace = lambda entry: error_code(ec2.replace_network_acl_entry, NetworkAclId=acl, **entry)
    delete = lambda number, egress=False: error_code(
        ec2.delete_network_acl_entry, NetworkAclId=acl, RuleNumber=number, Egress=egress
    )
    entries = lambda: [entry for entry in described(ec2, acl)["Entries"] if entry["RuleNumber"] < 32767]
    assert create(tcp(200)) is None
    assert create(tcp(200)) == "NetworkAclEntryAlreadyExists"
    assert create(tcp(200, Egress=True, Protocol="udp", CidrBlock="192.0.2.7/24")) is None
    assert create(tcp(100, RuleAction="deny", Protocol="1", IcmpTypeCode={"Type": 8, "Code": -1})) is None
    udp, icmp, first = entries()
    assert udp == {**tcp(200, Egress=True), "Protocol": "17"}
    assert icmp["IcmpTypeCode"] == {"Type": 8, "Code": -1} and "PortRange" not in icmp
    assert first == tcp(200)
    ipv6 = {"Ipv6CidrBlock": "2001:DB8::1/32", "Protocol": "58", "IcmpTypeCode": {"Type": -1, "Code": -1}}
    changed = {**{key: value for key, value in tcp(200).items() if key not in ("CidrBlock", "PortRange")}, **ipv6}
    assert replace(changed) is None
    assert entries()[2] == {**changed, "Ipv6CidrBlock": "2001:db8::/32"}
    assert replace(tcp(300)) == "InvalidNetworkAclEntry.NotFound"
    assert delete(200, egress=True) is None
    assert delete(200, egress=True) == "InvalidNetworkAclEntry.NotFound"
    assert delete(32767) == "InvalidParameterValue"
    assert [entry["RuleNumber"] for entry in entries()] == [100, 200]


@pytest.mark.parametrize(
    "change, code",
    [
        ({"RuleNumber": 0}, "InvalidParameterValue"),
        ({"RuleNumber": 32767}, "InvalidParameterValue"),
        ({"RuleAction": "reject"}, "InvalidParameterValue"),
        ({"Protocol": "carrier-pigeon"}, "InvalidParameterValue"),
        ({"Protocol": "256"}, "InvalidParameterValue"),
        ({"CidrBlock": "192.0.2.0"}, "InvalidParameterValue"),
        ({"CidrBlock": ""}, "MissingParameter"),
        ({"Ipv6CidrBlock": "::/0"}, "InvalidParameterCombination"),
        ({"PortRange": {"From": 80, "To": 22}}, "InvalidParameterValue"),
        ({"PortRange": {"From": 0, "To": 65536}}, "InvalidParameterValue"),
        ({"PortRange": {}}, "MissingParameter"),
        ({"Protocol": "icmp"}, "MissingParameter"),
        ({"Protocol": "icmp", "IcmpTypeCode": {"Type": -1, "Code": 3}}, "InvalidParameterValue"),
        ({"NetworkAclId": MISSING}, "InvalidNetworkAclID.NotFound"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_cannot_be_a_rule_is_refused(ec2, acl, change, code):
    assert error_code(ec2.create_network_acl_entry, **{"NetworkAclId": acl, **tcp(100), **change}) == code
    assert len(described(ec2, acl)["Entries"]) == 2


def test_rules_of_one_direction_are_so_many(ec2, acl):
    for number in range(1, 20):
        ec2.create_network_acl_entry(NetworkAclId=acl, **tcp(number))
    more = error_code(ec2.create_network_acl_entry, NetworkAclId=acl, **tcp(20))
    assert more == "NetworkAclEntryLimitExceeded"
    ec2.create_network_acl_entry(NetworkAclId=acl, **tcp(20, Egress=True))


def test_a_subnet_has_one_list_at_all_times(ec2, vpc, subnet, acl):
    filters = [{"Name": "association.subnet-id", "Values": [subnet]}]
    find = lambda: ec2.describe_network_acls(Filters=filters)["NetworkAcls"]
    (default,) = find()
    association = default["Associations"][0]["NetworkAclAssociationId"]
    replace = {"AssociationId": association, "NetworkAclId": acl}
    new = ec2.replace_network_acl_association(**replace)["NewAssociationId"]
    (used,) = find()
    assert used["NetworkAclId"] == acl
    assert used["Associations"] == [
        {"NetworkAclAssociationId": new, "NetworkAclId": acl, "SubnetId": subnet},
    ]
    assert error_code(ec2.replace_network_acl_association, **replace) == "InvalidAssociationID.NotFound"
    assert error_code(ec2.delete_network_acl, NetworkAclId=acl) == "DependencyViolation"
    elsewhere = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    foreign = ec2.create_network_acl(VpcId=elsewhere)["NetworkAcl"]["NetworkAclId"]
    other = {"AssociationId": new, "NetworkAclId": foreign}
    assert error_code(ec2.replace_network_acl_association, **other) == "InvalidParameterValue"
    ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_network_acl(NetworkAclId=acl)


def test_found_by_every_documented_filter(ec2, vpc, subnet, acl):
    (default,) = ec2.describe_network_acls(Filters=[{"Name": "association.subnet-id", "Values": [subnet]}])["NetworkAcls"]
    association = default["Associations"][0]["NetworkAclAssociationId"]
    association = ec2.replace_network_acl_association(AssociationId=association, NetworkAclId=acl)["NewAssociationId"]
    ec2.create_network_acl_entry(NetworkAclId=acl, **tcp(7))
    icmp = {"Protocol": "icmp", "IcmpTypeCode": {"Type": 8, "Code": 0}}
    ec2.create_network_acl_entry(NetworkAclId=acl, **tcp(8, **icmp))
    ipv6 = {key: value for key, value in tcp(9).items() if key != "CidrBlock"}
    ec2.create_network_acl_entry(NetworkAclId=acl, Ipv6CidrBlock="2001:db8::/32", **ipv6)
    ec2.create_tags(Resources=[acl], Tags=[{"Key": "suite", "Value": "filters"}])
    find = lambda name, value: [
        one["NetworkAclId"]
        for one in ec2.describe_network_acls(
            Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": name, "Values": [value]}]
        )["NetworkAcls"]
    ]
    for name, value in {
        "association.association-id": association,
        "association.network-acl-id": acl,
        "association.subnet-id": subnet,
        "default": "false",
        "entry.cidr": "192.0.2.0/24",
        "entry.icmp.code": "0",
        "entry.icmp.type": "8",
        "entry.ipv6-cidr": "2001:db8::/32",
        "entry.port-range.from": "22",
        "entry.port-range.to": "80",
        "entry.protocol": "tcp",
        "entry.rule-number": "7",
        "network-acl-id": acl,
        "tag:suite": "filters",
        "tag-key": "suite",
    }.items():
        assert find(name, value) == [acl], name
    for name, value in {
        "entry.egress": "true",
        "entry.rule-action": "deny",
        "owner-id": default["OwnerId"],
        "entry.protocol": "-1",
    }.items():
        assert sorted(find(name, value)) == sorted([acl, default["NetworkAclId"]]), name
    assert error_code(find, name="entry.colour", value="blue") == "InvalidParameterValue"
