"""Managed prefix lists through boto3: their versions, and the routes and rules that name them."""

import uuid

import pytest
from conftest import error_code

MISSING = "pl-0123456789abcdef0"


@pytest.fixture
def name():
    return f"list-{uuid.uuid4().hex}"


def create(ec2, name, *cidrs, family="IPv4", max_entries=5, **more):
    return ec2.create_managed_prefix_list(
        PrefixListName=name,
        AddressFamily=family,
        MaxEntries=max_entries,
        Entries=[{"Cidr": cidr, "Description": f"of {cidr}"} for cidr in cidrs],
        **more,
    )["PrefixList"]


def entries(ec2, id, **more):
    return [entry["Cidr"] for entry in ec2.get_managed_prefix_list_entries(PrefixListId=id, **more)["Entries"]]


def test_a_list_has_versions(ec2, name):
    tags = [{"ResourceType": "prefix-list", "Tags": [{"Key": "a", "Value": "b"}]}]
    asked = {"ClientToken": name, "TagSpecifications": tags}
    made = create(ec2, name, "10.1.2.3/8", "192.0.2.0/24", **asked)
    id = made["PrefixListId"]
    assert create(ec2, name, "10.1.2.3/8", "192.0.2.0/24", **asked) == made
    assert (made["Version"], made["State"], made["MaxEntries"], made["AddressFamily"]) == (1, "create-complete", 5, "IPv4")
    assert made["PrefixListArn"].endswith(f":prefix-list/{id}") and made["Tags"] == [{"Key": "a", "Value": "b"}]
    assert entries(ec2, id) == ["10.0.0.0/8", "192.0.2.0/24"]
    modify = lambda version=None, **changes: ec2.modify_managed_prefix_list(
        PrefixListId=id, **({"CurrentVersion": version} if version else {}), **changes
    )["PrefixList"]
    added = modify(1, AddEntries=[{"Cidr": "203.0.113.0/24"}], RemoveEntries=[{"Cidr": "10.0.0.0/8"}])
    assert (added["Version"], added["State"]) == (2, "modify-complete")
    assert entries(ec2, id) == ["192.0.2.0/24", "203.0.113.0/24"]
    assert entries(ec2, id, TargetVersion=1) == ["10.0.0.0/8", "192.0.2.0/24"]
    restored = ec2.restore_managed_prefix_list_version(PrefixListId=id, PreviousVersion=1, CurrentVersion=2)
    assert (restored["PrefixList"]["Version"], restored["PrefixList"]["State"]) == (3, "restore-complete")
    assert entries(ec2, id) == ["10.0.0.0/8", "192.0.2.0/24"]
    # The name and the size are not the entries'.
    assert modify(PrefixListName=f"{name}-new")["Version"] == 3
    assert modify(MaxEntries=2, IpamPrefixListResolverSyncEnabled=False)["MaxEntries"] == 2
    for code, changes in [
        ("PrefixListVersionMismatch", {"version": 2, "RemoveEntries": [{"Cidr": "10.0.0.0/8"}]}),
        ("MissingParameter", {"RemoveEntries": [{"Cidr": "10.0.0.0/8"}]}),
        ("PrefixListMaxEntriesExceeded", {"version": 3, "AddEntries": [{"Cidr": "203.0.113.0/24"}]}),
        ("PrefixListMaxEntriesExceeded", {"MaxEntries": 1}),
        ("InvalidParameterValue", {"version": 3, "RemoveEntries": [{"Cidr": "203.0.113.0/24"}]}),
        ("InvalidParameterCombination", {"version": 3, "MaxEntries": 9, "AddEntries": [{"Cidr": "203.0.113.0/24"}]}),
        ("InvalidParameterValue", {"PrefixListName": "com.amazonaws.mine"}),
        ("UnsupportedOperation", {"IpamPrefixListResolverSyncEnabled": True}),
    ]:
        assert error_code(modify, **changes) == code, changes
    assert error_code(entries, ec2=ec2, id=id, TargetVersion=9) == "InvalidParameterValue"
    assert ec2.delete_managed_prefix_list(PrefixListId=id)["PrefixList"]["State"] == "delete-complete"
    assert error_code(ec2.delete_managed_prefix_list, PrefixListId=id) == "InvalidPrefixListID.NotFound"


def test_what_cannot_be_made_is_refused(ec2, name):
    for code, parameters in [
        ("InvalidParameterValue", {"cidrs": ["10.0.0.0"]}),
        ("InvalidParameterValue", {"cidrs": ["fd00::/8"]}),
        ("InvalidParameterValue", {"cidrs": ["10.0.0.0/8", "10.1.0.0/8"]}),
        ("InvalidParameterValue", {"family": "IPX"}),
        ("InvalidParameterValue", {"max_entries": 0}),
        ("InvalidParameterValue", {"max_entries": 1001}),
        ("PrefixListMaxEntriesExceeded", {"cidrs": ["10.0.0.0/8", "11.0.0.0/8"], "max_entries": 1}),
        ("DryRunOperation", {"DryRun": True}),
    ]:
        cidrs = parameters.pop("cidrs", ["10.0.0.0/8"])
        code_found = error_code(lambda: create(ec2, name, *cidrs, **parameters))
        assert code_found == code, (cidrs, parameters)
    assert error_code(ec2.describe_managed_prefix_lists, PrefixListIds=[MISSING]) == "InvalidPrefixListID.NotFound"


def test_routes_and_rules_name_a_list(ec2, name):
    id = create(ec2, name, "192.0.2.0/24", "203.0.113.0/24")["PrefixListId"]
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    route = {"RouteTableId": table, "DestinationPrefixListId": id}
    ec2.create_route(GatewayId=gateway, **route)
    assert error_code(ec2.create_route, GatewayId=gateway, **route) == "RouteAlreadyExists"
    filters = [{"Name": "route.destination-prefix-list-id", "Values": [id]}]
    (found,) = ec2.describe_route_tables(Filters=filters)["RouteTables"]
    shown = next(one for one in found["Routes"] if one.get("DestinationPrefixListId") == id)
    assert (shown["GatewayId"], shown["State"]) == (gateway, "active")
    # It takes the room that it may need.
    large = create(ec2, f"{name}-large", max_entries=500)["PrefixListId"]
    more = {"RouteTableId": table, "DestinationPrefixListId": large, "GatewayId": gateway}
    assert error_code(ec2.create_route, **more) == "RouteLimitExceeded"

    group = ec2.create_security_group(GroupName=name, Description="by list", VpcId=vpc)["GroupId"]
    permission = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "PrefixListIds": [{"PrefixListId": id}]}
    rules = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])["SecurityGroupRules"]
    assert [rule["PrefixListId"] for rule in rules] == [id]
    again = error_code(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[permission])
    assert again == "InvalidPermission.Duplicate"
    filters = [{"Name": "ip-permission.prefix-list-id", "Values": [id]}]
    (shown,) = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    assert shown["IpPermissions"][0]["PrefixListIds"] == [{"PrefixListId": id}]
    missing = {**permission, "PrefixListIds": [{"PrefixListId": MISSING}]}
    code = error_code(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[missing])
    assert code == "InvalidPrefixListID.NotFound"

    associated = ec2.get_managed_prefix_list_associations(PrefixListId=id)["PrefixListAssociations"]
    assert {one["ResourceId"] for one in associated} == {table, group}
    delete = lambda: error_code(ec2.delete_managed_prefix_list, PrefixListId=id)
    assert delete() == "DependencyViolation"
    ec2.delete_route(**route)
    assert delete() == "DependencyViolation"
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[permission])
    assert delete() is None


def test_found_by_every_documented_filter(ec2, name):
    made = create(ec2, name)
    for filters in [{"prefix-list-name": name}, {"prefix-list-id": made["PrefixListId"], "owner-id": made["OwnerId"]}]:
        filters = [{"Name": key, "Values": [value]} for key, value in filters.items()]
        found = ec2.describe_managed_prefix_lists(Filters=filters)["PrefixLists"]
        assert [one["PrefixListId"] for one in found] == [made["PrefixListId"]]
