"""Gateway endpoints, the services they lead to and AWS's own prefix lists, through boto3."""

import json
import uuid

import pytest
from conftest import error_code

MISSING = "vpce-0123456789abcdef0"
S3 = "com.amazonaws.us-east-1.s3"
DYNAMODB = "com.amazonaws.us-east-1.dynamodb"
READ_ONLY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}],
    }
)


@pytest.fixture
def vpc(ec2):
    return ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]


@pytest.fixture(scope="module")
def lists(simulated):
    """The services' names and those of their prefix lists."""
    found = simulated.client().describe_prefix_lists()["PrefixLists"]
    return {one["PrefixListName"]: one for one in found}


def table_of(ec2, vpc):
    return ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]


def create(ec2, vpc, *tables, service=S3, **more):
    asked = {"VpcId": vpc, "ServiceName": service, "RouteTableIds": list(tables), **more}
    return ec2.create_vpc_endpoint(**asked)["VpcEndpoint"]


def described(ec2, id):
    (found,) = ec2.describe_vpc_endpoints(VpcEndpointIds=[id])["VpcEndpoints"]
    return found


def routes_to(ec2, id):
    """Tables and destinations of the routes that lead to an endpoint."""
    tables = ec2.describe_route_tables(Filters=[{"Name": "route.gateway-id", "Values": [id]}])["RouteTables"]
    return sorted(
        (table["RouteTableId"], route["DestinationPrefixListId"], route["State"])
        for table in tables
        for route in table["Routes"]
        if route.get("GatewayId") == id
    )


def test_an_endpoint_leads_its_tables_to_the_service(ec2, vpc, lists):
    first, second = table_of(ec2, vpc), table_of(ec2, vpc)
    tags = [{"ResourceType": "vpc-endpoint", "Tags": [{"Key": "a", "Value": "b"}]}]
    asked = {"ClientToken": uuid.uuid4().hex, "TagSpecifications": tags}
    made = create(ec2, vpc, first, **asked)
    id = made["VpcEndpointId"]
    assert create(ec2, vpc, first, **asked) == made
    again = error_code(create, ec2=ec2, vpc=vpc, service=DYNAMODB, **asked)
    assert again == "IdempotentParameterMismatch"
    assert (made["VpcEndpointType"], made["State"], made["ServiceName"], made["VpcId"]) == ("Gateway", "available", S3, vpc)
    assert made["Tags"] == [{"Key": "a", "Value": "b"}] and made["RouteTableIds"] == [first]
    assert json.loads(made["PolicyDocument"])["Statement"][0]["Action"] == "*"
    assert made["NetworkInterfaceIds"] == made["SubnetIds"] == made["Groups"] == []
    list_id = lists[S3]["PrefixListId"]
    assert routes_to(ec2, id) == [(first, list_id, "active")]

    modify = lambda **changes: ec2.modify_vpc_endpoint(VpcEndpointId=id, **changes)["Return"]
    assert modify(AddRouteTableIds=[second], RemoveRouteTableIds=[first], PolicyDocument=READ_ONLY)
    assert described(ec2, id)["RouteTableIds"] == [second] and routes_to(ec2, id) == [(second, list_id, "active")]
    assert json.loads(described(ec2, id)["PolicyDocument"]) == json.loads(READ_ONLY)
    assert modify(ResetPolicy=True) and described(ec2, id)["PolicyDocument"] == made["PolicyDocument"]

    # Its routes are its own: they come and go with it alone, one for each table and service.
    route = {"RouteTableId": second, "DestinationPrefixListId": list_id}
    assert error_code(ec2.delete_route, **route) == "InvalidParameterValue"
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    assert error_code(ec2.replace_route, GatewayId=gateway, **route) == "InvalidParameterValue"
    assert error_code(ec2.create_route, GatewayId=gateway, **route) == "RouteAlreadyExists"
    assert error_code(create, ec2=ec2, vpc=vpc, RouteTableIds=[second]) == "RouteAlreadyExists"
    other = {"RouteTableId": first, "DestinationCidrBlock": "192.0.2.0/24"}
    assert error_code(ec2.create_route, GatewayId=id, **other) == "InvalidGatewayID.NotFound"
    assert error_code(ec2.delete_vpc, VpcId=vpc) == "DependencyViolation"
    dynamodb = create(ec2, vpc, second, service=DYNAMODB)["VpcEndpointId"]

    gone = ec2.delete_vpc_endpoints(VpcEndpointIds=[id, MISSING])["Unsuccessful"]
    assert [(one["ResourceId"], one["Error"]["Code"]) for one in gone] == [(MISSING, "InvalidVpcEndpointId.NotFound")]
    assert error_code(described, ec2=ec2, id=id) == "InvalidVpcEndpointId.NotFound"
    assert routes_to(ec2, id) == []
    assert routes_to(ec2, dynamodb) == [(second, lists[DYNAMODB]["PrefixListId"], "active")]
    # A table that is deleted leads nowhere any more.
    ec2.delete_route_table(RouteTableId=second)
    assert described(ec2, dynamodb)["RouteTableIds"] == []
    assert ec2.delete_vpc_endpoints(VpcEndpointIds=[dynamodb])["Unsuccessful"] == []


def test_what_cannot_be_is_refused(ec2, vpc):
    table = table_of(ec2, vpc)
    foreign = table_of(ec2, ec2.create_vpc(CidrBlock="10.2.0.0/16")["Vpc"]["VpcId"])
    for code, changed in [
        ("InvalidVpcID.NotFound", {"vpc": "vpc-0123456789abcdef0"}),
        ("InvalidRouteTableID.NotFound", {"RouteTableIds": ["rtb-0123456789abcdef0"]}),
        ("InvalidParameterValue", {"RouteTableIds": [table, foreign]}),
        ("InvalidServiceName", {"service": "com.amazonaws.us-east-1.kittens"}),
        ("InvalidServiceName", {"service": "com.amazonaws.eu-west-1.s3"}),
        ("MissingParameter", {"service": ""}),
        ("InvalidPolicyDocument", {"PolicyDocument": "{"}),
        ("InvalidParameter", {"SubnetIds": ["subnet-0123456789abcdef0"]}),
        ("InvalidParameter", {"SecurityGroupIds": ["sg-0123456789abcdef0"]}),
        ("InvalidParameter", {"PrivateDnsEnabled": True}),
        ("InvalidParameter", {"DnsOptions": {"PrivateDnsPreference": "ALL_DOMAINS"}}),
        ("UnsupportedOperation", {"VpcEndpointType": "Interface"}),
        ("UnsupportedOperation", {"VpcEndpointType": "GatewayLoadBalancer"}),
        ("UnsupportedOperation", {"IpAddressType": "dualstack"}),
        ("DryRunOperation", {"DryRun": True}),
    ]:
        assert error_code(create, **{"ec2": ec2, "vpc": vpc, **changed}) == code, changed
    # Nothing is left of what was refused.
    of_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    assert ec2.describe_vpc_endpoints(Filters=of_vpc)["VpcEndpoints"] == []
    id = create(ec2, vpc, table)["VpcEndpointId"]
    for code, changes in [
        ("InvalidVpcEndpointId.NotFound", {"VpcEndpointId": MISSING}),
        ("InvalidVpcEndpointId.Malformed", {"VpcEndpointId": vpc}),
        ("RouteAlreadyExists", {"AddRouteTableIds": [table]}),
        ("InvalidParameterValue", {"AddRouteTableIds": [foreign]}),
        ("InvalidParameter", {"RemoveRouteTableIds": [foreign]}),
        ("InvalidParameterCombination", {"AddRouteTableIds": [table], "RemoveRouteTableIds": [table]}),
        ("InvalidParameterCombination", {"ResetPolicy": True, "PolicyDocument": READ_ONLY}),
        ("InvalidPolicyDocument", {"PolicyDocument": '{"Statement": []}'}),
        ("InvalidParameter", {"AddSubnetIds": ["subnet-0123456789abcdef0"]}),
    ]:
        assert error_code(ec2.modify_vpc_endpoint, **{"VpcEndpointId": id, **changes}) == code, changes
    assert described(ec2, id)["RouteTableIds"] == [table]
    assert error_code(ec2.delete_vpc_endpoints, VpcEndpointIds=[id, vpc]) == "InvalidVpcEndpointId.Malformed"
    assert described(ec2, id)["State"] == "available"


def test_filters(ec2, vpc):
    id = create(ec2, vpc, TagSpecifications=[{"ResourceType": "vpc-endpoint", "Tags": [{"Key": vpc, "Value": "v"}]}])[
        "VpcEndpointId"
    ]
    for name, value, other in [
        ("ip-address-type", "ipv4", "ipv6"),
        ("service-name", S3, DYNAMODB),
        ("service-region", "us-east-1", "eu-west-1"),
        (f"tag:{vpc}", "v", "w"),
        ("tag-key", vpc, "other"),
        ("vpc-id", vpc, "vpc-0123456789abcdef0"),
        ("vpc-endpoint-id", id, MISSING),
        ("vpc-endpoint-state", "available", "deleted"),
        ("vpc-endpoint-type", "Gateway", "Interface"),
    ]:
        for value, expected in [(value, [id]), (other, [])]:
            filters = [{"Name": name, "Values": [value]}, {"Name": "vpc-id", "Values": [vpc]}]
            found = ec2.describe_vpc_endpoints(Filters=filters)["VpcEndpoints"]
            assert [one["VpcEndpointId"] for one in found] == expected, (name, value)
    unknown = [{"Name": "colour", "Values": ["red"]}]
    assert error_code(ec2.describe_vpc_endpoints, Filters=unknown) == "InvalidParameterValue"


def test_services(ec2):
    services = lambda **more: ec2.describe_vpc_endpoint_services(**more)["ServiceNames"]
    named = lambda name, value: services(Filters=[{"Name": name, "Values": [value]}])
    assert services() == [DYNAMODB, S3]
    assert services(ServiceNames=[S3]) == [S3] and named("service-name", DYNAMODB) == [DYNAMODB]
    assert named("service-type", "Gateway") == named("owner", "amazon") == [DYNAMODB, S3]
    assert named("service-type", "Interface") == named("supported-ip-address-types", "ipv6") == []
    assert named("tag:a", "b") == services(ServiceRegions=["eu-west-1"]) == []
    assert error_code(services, ServiceNames=["kittens"]) == "InvalidServiceName"
    assert error_code(named, name="colour", value="red") == "InvalidParameterValue"
    (detail,) = ec2.describe_vpc_endpoint_services(ServiceNames=[S3])["ServiceDetails"]
    assert detail["ServiceType"] == [{"ServiceType": "Gateway"}] and detail["Owner"] == "amazon"
    assert detail["BaseEndpointDnsNames"] == ["s3.us-east-1.amazonaws.com"]
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert detail["AvailabilityZones"] == [zone["ZoneName"] for zone in zones]


def test_aws_lists_can_be_named_and_not_changed(ec2, vpc, lists):
    assert sorted(lists) == [DYNAMODB, S3]
    id = lists[S3]["PrefixListId"]
    by_name = [{"Name": "prefix-list-name", "Values": [S3]}]
    assert ec2.describe_prefix_lists(Filters=by_name)["PrefixLists"] == [lists[S3]]
    (shown,) = ec2.describe_managed_prefix_lists(Filters=by_name)["PrefixLists"]
    assert (shown["OwnerId"], shown["AddressFamily"], shown["State"]) == ("AWS", "IPv4", "create-complete")
    assert shown["PrefixListArn"] == f"arn:aws:ec2:us-east-1:aws:prefix-list/{id}"
    assert "Version" not in shown and "MaxEntries" not in shown
    of_aws = ec2.describe_managed_prefix_lists(Filters=[{"Name": "owner-id", "Values": ["AWS"]}])["PrefixLists"]
    assert sorted(one["PrefixListName"] for one in of_aws) == [DYNAMODB, S3]
    entries = ec2.get_managed_prefix_list_entries(PrefixListId=id)["Entries"]
    assert [entry["Cidr"] for entry in entries] == lists[S3]["Cidrs"]
    change = {"AddEntries": [{"Cidr": "192.0.2.0/24"}], "CurrentVersion": 1}
    assert error_code(ec2.modify_managed_prefix_list, PrefixListId=id, **change) == "OperationNotPermitted"
    assert error_code(ec2.delete_managed_prefix_list, PrefixListId=id) == "OperationNotPermitted"
    # One of the user's is none of AWS's.
    own = {"PrefixListName": "own", "AddressFamily": "IPv4", "MaxEntries": 1}
    own = ec2.create_managed_prefix_list(**own)["PrefixList"]["PrefixListId"]
    assert error_code(ec2.describe_prefix_lists, PrefixListIds=[own]) == "InvalidPrefixListID.NotFound"

    group = ec2.create_security_group(GroupName="to-s3", Description="to S3", VpcId=vpc)["GroupId"]
    permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "PrefixListIds": [{"PrefixListId": id}]}
    (rule,) = ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[permission])["SecurityGroupRules"]
    assert rule["PrefixListId"] == id
    associations = ec2.get_managed_prefix_list_associations(PrefixListId=id)["PrefixListAssociations"]
    assert group in [one["ResourceId"] for one in associations]


def test_a_region_has_twenty(cloud_factory):
    ec2 = cloud_factory("--simulate").client(region="eu-west-1")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    service = "com.amazonaws.eu-west-1.s3"
    for _ in range(20):
        create(ec2, vpc, service=service)
    assert error_code(create, ec2=ec2, vpc=vpc, service=service) == "VpcEndpointLimitExceeded"
