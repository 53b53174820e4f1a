"""Security groups and their rules through boto3."""

import uuid

import pytest
from conftest import error_code, run, wait

MISSING_GROUP = "sg-0123456789abcdef0"
MISSING_RULE = "sgr-0123456789abcdef0"


@pytest.fixture
def name():
    return f"group-{uuid.uuid4().hex}"


@pytest.fixture
def group(ec2, name):
    return ec2.create_security_group(GroupName=name, Description="for a test")["GroupId"]


@pytest.fixture
def vpc(ec2):
    return ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]


def described(ec2, group):
    return ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]


def tcp(port, cidr="10.0.0.0/8", **described):
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": cidr, **described}]}


def test_a_group_begins_with_everything_out_and_nothing_in(ec2, name, vpc):
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": "a", "Value": "b"}]}]
    made = ec2.create_security_group(GroupName=name, Description="web", VpcId=vpc, TagSpecifications=tags)
    assert made["Tags"] == [{"Key": "a", "Value": "b"}]
    assert made["SecurityGroupArn"].endswith(f":security-group/{made['GroupId']}")
    group = described(ec2, made["GroupId"])
    assert (group["GroupName"], group["Description"], group["VpcId"]) == (name, "web", vpc)
    assert group["IpPermissions"] == []
    (out,) = group["IpPermissionsEgress"]
    assert out["IpProtocol"] == "-1" and out["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]
    assert "FromPort" not in out


def test_a_name_is_taken_once_in_a_vpc(ec2, name, group):
    create = {"GroupName": name, "Description": "again"}
    assert error_code(ec2.create_security_group, **create) == "InvalidGroup.Duplicate"
    assert ec2.delete_security_group(GroupId=group)["GroupId"] == group
    ec2.create_security_group(**create)


@pytest.mark.parametrize(
    "parameters, code",
    [
        ({"GroupName": "sg-web"}, "InvalidParameterValue"),
        ({"GroupName": "default"}, "InvalidParameterValue"),
        ({"GroupName": "x" * 256}, "InvalidParameterValue"),
        ({"GroupName": "wéb"}, "InvalidParameterValue"),
        ({"Description": ""}, "MissingParameter"),
        ({"Description": "x" * 256}, "InvalidParameterValue"),
        ({"Description": "a\tb"}, "InvalidParameterValue"),
        ({"VpcId": "vpc-0123456789abcdef0"}, "InvalidVpcID.NotFound"),
        ({"VpcId": "nonsense"}, "InvalidVpcID.Malformed"),
        ({"TagSpecifications": [{"ResourceType": "vpc", "Tags": [{"Key": "a", "Value": "b"}]}]}, "InvalidParameterValue"),
    ],
)
def test_what_cannot_be_made_is_refused(ec2, name, parameters, code):
    assert error_code(ec2.create_security_group, **{"GroupName": name, "Description": "d", **parameters}) == code


def test_found_by_id_name_and_filter(ec2, name, group, vpc):
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(2222, "192.0.2.0/24")])
    rule = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"][0]
    assert ec2.describe_security_groups(GroupNames=[name])["SecurityGroups"][0]["GroupId"] == group
    for wanted in [
        [("group-name", name)],
        [("group-id", group), ("vpc-id", vpc)],
        [("group-name", f"{name[:-3]}*"), ("description", "for*")],
        [("ip-permission.cidr", "192.0.2.0/24"), ("ip-permission.from-port", "2222"), ("group-name", name)],
        [("ip-permission.protocol", "tcp"), ("group-name", name)],
        [("egress.ip-permission.cidr", "0.0.0.0/0"), ("group-name", name)],
        [("security-group-rule-id", rule["SecurityGroupRuleId"])],
    ]:
        filters = [{"Name": key, "Values": [value]} for key, value in wanted]
        found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        assert [one["GroupId"] for one in found] == [group], wanted
    assert error_code(ec2.describe_security_groups, GroupIds=[MISSING_GROUP]) == "InvalidGroup.NotFound"
    assert error_code(ec2.describe_security_groups, GroupIds=["sg-1"]) == "InvalidGroupId.Malformed"
    assert error_code(ec2.describe_security_groups, GroupNames=[f"no-{name}"]) == "InvalidGroup.NotFound"
    unknown = [{"Name": "colour", "Values": ["red"]}]
    assert error_code(ec2.describe_security_groups, Filters=unknown) == "InvalidParameterValue"
    assert error_code(ec2.describe_security_groups, GroupIds=[group], MaxResults=5) == "InvalidParameterCombination"


def test_groups_come_in_pages(ec2, name):
    made = {
        ec2.create_security_group(GroupName=f"{name}-{number}", Description="paged")["GroupId"] for number in range(7)
    }
    pages = ec2.get_paginator("describe_security_groups").paginate(
        Filters=[{"Name": "group-name", "Values": [f"{name}-*"]}], PaginationConfig={"PageSize": 5}
    )
    pages = [[group["GroupId"] for group in page["SecurityGroups"]] for page in pages]
    assert [len(page) for page in pages] == [5, 2]
    assert set(sum(pages, [])) == made


def test_rules_are_gathered_by_protocol_and_ports(ec2, group):
    permissions = [
        tcp(22, Description="office"),
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]},
        {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
    ]
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=permissions)
    assert made["Return"] is True
    rules = made["SecurityGroupRules"]
    assert len(rules) == 4 and not any(rule["IsEgress"] for rule in rules)
    assert {(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in rules} == {
        ("tcp", 22, 22),
        ("icmp", 8, -1),
        ("-1", -1, -1),
    }
    shown = {one["IpProtocol"]: one for one in described(ec2, group)["IpPermissions"]}
    assert shown["tcp"]["IpRanges"] == [{"CidrIp": "10.0.0.0/8", "Description": "office"}]
    assert shown["tcp"]["Ipv6Ranges"] == [{"CidrIpv6": "2001:db8::/32"}]
    assert shown["-1"]["UserIdGroupPairs"][0]["GroupId"] == group
    referenced = [rule for rule in rules if "ReferencedGroupInfo" in rule]
    assert [rule["ReferencedGroupInfo"]["GroupId"] for rule in referenced] == [group]


def test_rules_have_ids_tags_and_pages(ec2, group):
    tags = [{"ResourceType": "security-group-rule", "Tags": [{"Key": "suite", "Value": group}]}]
    permissions = [tcp(port) for port in range(1000, 1007)]
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=permissions, TagSpecifications=tags)
    ids = {rule["SecurityGroupRuleId"] for rule in made["SecurityGroupRules"]}
    paginator = ec2.get_paginator("describe_security_group_rules")
    for filters in [
        [{"Name": "tag:suite", "Values": [group]}],
        [{"Name": "group-id", "Values": [group]}, {"Name": "tag-key", "Values": ["suite"]}],
    ]:
        pages = list(paginator.paginate(Filters=filters, PaginationConfig={"PageSize": 5}))
        assert [len(page["SecurityGroupRules"]) for page in pages] == [5, 2]
        assert {rule["SecurityGroupRuleId"] for page in pages for rule in page["SecurityGroupRules"]} == ids
    missing = {"SecurityGroupRuleIds": [MISSING_RULE]}
    assert error_code(ec2.describe_security_group_rules, **missing) == "InvalidSecurityGroupRuleId.NotFound"
    malformed = {"SecurityGroupRuleIds": ["sgr-x"]}
    assert error_code(ec2.describe_security_group_rules, **malformed) == "InvalidSecurityGroupRuleId.Malformed"


def test_a_rule_is_there_once(ec2, group):
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(22)])
    again = {"GroupId": group, "IpPermissions": [tcp(80), tcp(22, Description="other words, same rule")]}
    assert error_code(ec2.authorize_security_group_ingress, **again) == "InvalidPermission.Duplicate"
    # All or nothing.
    assert [one["FromPort"] for one in described(ec2, group)["IpPermissions"]] == [22]
    twice = {"GroupId": group, "IpPermissions": [tcp(80), tcp(80)]}
    assert error_code(ec2.authorize_security_group_ingress, **twice) == "InvalidParameterValue"
    # The other direction has rules of its own.
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[tcp(22)])


@pytest.mark.parametrize(
    "permission, code",
    [
        ({"IpProtocol": "carrier-pigeon", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, "InvalidParameterValue"),
        ({"IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, "InvalidParameterValue"),
        (tcp(70000), "InvalidParameterValue"),
        ({**tcp(80), "ToPort": 79}, "InvalidParameterValue"),
        (tcp(80, "10.0.0.0/33"), "InvalidParameterValue"),
        (tcp(80, "example.com"), "InvalidParameterValue"),
        (tcp(80, Description="x" * 256), "InvalidParameterValue"),
        ({"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2}, "MissingParameter"),
        ({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": MISSING_GROUP}]}, "InvalidGroup.NotFound"),
        ({"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": "pl-0123456789abcdef0"}]}, "InvalidPrefixListID.NotFound"),
    ],
)
def test_what_is_no_rule_is_refused(ec2, group, permission, code):
    wanted = {"GroupId": group, "IpPermissions": [permission]}
    assert error_code(ec2.authorize_security_group_ingress, **wanted) == code
    assert described(ec2, group)["IpPermissions"] == []


def test_rules_go_by_permission_or_by_id(ec2, group):
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(22, Description="ssh"), tcp(80)])
    ssh, web = (rule["SecurityGroupRuleId"] for rule in made["SecurityGroupRules"])
    # The description need not be said.
    revoked = ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[tcp(22)])
    assert [rule["SecurityGroupRuleId"] for rule in revoked["RevokedSecurityGroupRules"]] == [ssh]
    by_id = {"GroupId": group, "SecurityGroupRuleIds": [web]}
    assert error_code(ec2.revoke_security_group_egress, **by_id) == "InvalidSecurityGroupRuleId.NotFound"
    ec2.revoke_security_group_ingress(**by_id)
    assert error_code(ec2.revoke_security_group_ingress, **by_id) == "InvalidSecurityGroupRuleId.NotFound"
    assert described(ec2, group)["IpPermissions"] == []


def test_in_a_default_vpc_an_unknown_permission_is_told_and_the_others_go(ec2, group):
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(22)])
    answer = ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[tcp(23), tcp(22)])
    assert answer["Return"] is True
    (unknown,) = answer["UnknownIpPermissions"]
    assert (unknown["FromPort"], unknown["IpRanges"]) == (23, [{"CidrIp": "10.0.0.0/8"}])
    assert [rule["FromPort"] for rule in answer["RevokedSecurityGroupRules"]] == [22]
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    known = ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[everything])
    assert "UnknownIpPermissions" not in known or known["UnknownIpPermissions"] == []
    assert described(ec2, group)["IpPermissionsEgress"] == []


def test_rules_are_modified_in_place(ec2, group):
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(22)])
    rule_id = made["SecurityGroupRules"][0]["SecurityGroupRuleId"]
    update = {"IpProtocol": "udp", "FromPort": 53, "ToPort": 53, "CidrIpv4": "192.0.2.1/32", "Description": "dns"}
    ec2.modify_security_group_rules(
        GroupId=group, SecurityGroupRules=[{"SecurityGroupRuleId": rule_id, "SecurityGroupRule": update}]
    )
    (rule,) = ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule_id])["SecurityGroupRules"]
    assert {key: rule[key] for key in update} == update
    ec2.update_security_group_rule_descriptions_ingress(
        GroupId=group, SecurityGroupRuleDescriptions=[{"SecurityGroupRuleId": rule_id, "Description": "names"}]
    )
    (rule,) = ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule_id])["SecurityGroupRules"]
    assert rule["Description"] == "names"


def test_a_group_in_use_stays(ec2, ami, name, group):
    (instance,) = run(ec2, ami, SecurityGroupIds=[group])
    assert error_code(ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    wait(ec2, "instance_terminated", [instance["InstanceId"]])
    other = ec2.create_security_group(GroupName=f"{name}-other", Description="refers")["GroupId"]
    pair = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=other, IpPermissions=[pair])
    assert error_code(ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    ec2.revoke_security_group_ingress(GroupId=other, IpPermissions=[pair])
    ec2.delete_security_group(GroupId=group)
    assert error_code(ec2.delete_security_group, GroupId=group) == "InvalidGroup.NotFound"


def test_the_default_group_stays(ec2, vpc):
    filters = [{"Name": "group-name", "Values": ["default"]}, {"Name": "vpc-id", "Values": [vpc]}]
    (default,) = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    assert error_code(ec2.delete_security_group, GroupId=default["GroupId"]) == "CannotDelete"
    (inward,) = default["IpPermissions"]
    assert [pair["GroupId"] for pair in inward["UserIdGroupPairs"]] == [default["GroupId"]]


def test_dry_runs_change_nothing(ec2, name, group):
    for call, parameters in [
        (ec2.create_security_group, {"GroupName": f"{name}-dry", "Description": "dry"}),
        (ec2.authorize_security_group_ingress, {"GroupId": group, "IpPermissions": [tcp(22)]}),
        (ec2.delete_security_group, {"GroupId": group}),
    ]:
        assert error_code(call, DryRun=True, **parameters) == "DryRunOperation"
    assert described(ec2, group)["IpPermissions"] == []
    assert error_code(ec2.describe_security_groups, GroupNames=[f"{name}-dry"]) == "InvalidGroup.NotFound"


def test_a_prefix_list_weighs_as_much_as_it_has_room_for(ec2):
    make = lambda name, room: ec2.create_managed_prefix_list(
        PrefixListName=name, AddressFamily="IPv4", MaxEntries=room
    )["PrefixList"]["PrefixListId"]
    large, small = make("large", 990), make("small", 10)
    group = ec2.create_security_group(GroupName="weighed", Description="by its lists")["GroupId"]
    naming = lambda port, prefix_list: {
        "GroupId": group,
        "IpPermissions": [
            {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "PrefixListIds": [{"PrefixListId": prefix_list}]}
        ],
    }
    ec2.authorize_security_group_ingress(**naming(22, large))
    ec2.authorize_security_group_ingress(**naming(22, small))
    authorize = ec2.authorize_security_group_ingress
    assert error_code(authorize, **naming(23, small)) == "RulesPerSecurityGroupLimitExceeded"
    # Each way by itself.
    ec2.authorize_security_group_egress(**naming(23, small))
    grow = {"PrefixListId": small, "MaxEntries": 11}
    assert error_code(ec2.modify_managed_prefix_list, **grow) == "RulesPerSecurityGroupLimitExceeded"
    ec2.revoke_security_group_ingress(**naming(22, large))
    ec2.modify_managed_prefix_list(**grow)
    ec2.delete_security_group(GroupId=group)


def test_a_group_is_shared_with_another_vpc(ec2, ami):
    make_vpc = lambda cidr: ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
    # Their addresses are the same ones.
    own, other = make_vpc("10.70.0.0/16"), make_vpc("10.70.0.0/16")
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    make_subnet = lambda vpc: ec2.create_subnet(VpcId=vpc, CidrBlock="10.70.1.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
    subnet = make_subnet(other)
    group = ec2.create_security_group(GroupName="shared", Description="with another", VpcId=own)["GroupId"]
    create = lambda: ec2.create_network_interface(SubnetId=subnet, Groups=[group])["NetworkInterface"]["NetworkInterfaceId"]
    assert error_code(create) == "InvalidParameter"
    shown = lambda **asked: ec2.describe_security_group_vpc_associations(**asked)["SecurityGroupVpcAssociations"]
    by = lambda name, value: shown(Filters=[{"Name": name, "Values": [value]}])
    assert by("group-id", group) == []
    associate = lambda group=group, vpc=other: ec2.associate_security_group_vpc(GroupId=group, VpcId=vpc)["State"]
    default_vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    of_vpc = [{"Name": "vpc-id", "Values": [own]}, {"Name": "group-name", "Values": ["default"]}]
    default = ec2.describe_security_groups(Filters=of_vpc)["SecurityGroups"][0]["GroupId"]
    assert associate() == "associating"
    for expected, parameters in [
        ("InvalidParameterValue", {}),
        ("InvalidParameterValue", {"vpc": own}),
        ("InvalidParameterValue", {"vpc": default_vpc}),
        ("InvalidParameterValue", {"group": default}),
        ("InvalidVpcID.NotFound", {"vpc": "vpc-0123456789abcdef0"}),
        ("InvalidGroup.NotFound", {"group": "sg-0123456789abcdef0"}),
    ]:
        assert error_code(associate, **parameters) == expected, parameters
    [association] = by("vpc-id", other)
    assert (association["GroupId"], association["VpcId"], association["State"]) == (group, other, "associated")
    usable = ec2.get_security_groups_for_vpc(VpcId=other)["SecurityGroupForVpcs"]
    assert [own] == [of["PrimaryVpcId"] for of in usable if of["GroupId"] == group]
    interface = create()
    instance = run(ec2, ami, SubnetId=subnet, SecurityGroupIds=[group])[0]["InstanceId"]
    leave = {"GroupId": group, "VpcId": other}
    assert error_code(ec2.disassociate_security_group_vpc, **leave) == "DependencyViolation"
    assert by("state", "associated") == [association]
    ec2.delete_network_interface(NetworkInterfaceId=interface)
    ec2.terminate_instances(InstanceIds=[instance])
    wait(ec2, "instance_terminated", [instance])
    assert ec2.disassociate_security_group_vpc(**leave)["State"] == "disassociating"
    assert shown() == [] and error_code(create) == "InvalidParameter"
    assert error_code(ec2.disassociate_security_group_vpc, **leave) == "InvalidSecurityGroupVpcAssociation.NotFound"
    # It goes with the VPC.
    associate()
    ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=other)
    assert shown() == []
    ec2.delete_security_group(GroupId=group)
    ec2.delete_vpc(VpcId=own)
