"""VPC peering connections through boto3."""

import pytest
from conftest import error_code

MISSING = "pcx-0123456789abcdef0"


@pytest.fixture
def vpc(ec2):
    return lambda cidr: ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]


def create(ec2, one, other, **more):
    asked = ec2.create_vpc_peering_connection(VpcId=one, PeerVpcId=other, **more)
    return asked["VpcPeeringConnection"]


def described(ec2, id):
    return ec2.describe_vpc_peering_connections(VpcPeeringConnectionIds=[id])["VpcPeeringConnections"][0]


def code(ec2, id):
    return described(ec2, id)["Status"]["Code"]


def test_a_connection_is_asked_for_accepted_and_deleted(ec2, vpc):
    one, other = vpc("10.1.0.0/16"), vpc("10.2.0.0/16")
    tags = [{"ResourceType": "vpc-peering-connection", "Tags": [{"Key": "a", "Value": "b"}]}]
    made = create(ec2, one, other, TagSpecifications=tags)
    id = made["VpcPeeringConnectionId"]
    assert made["Status"]["Code"] == "pending-acceptance" and made["ExpirationTime"]
    assert made["Tags"] == [{"Key": "a", "Value": "b"}]
    assert made["RequesterVpcInfo"]["CidrBlock"] == "10.1.0.0/16" and "CidrBlock" not in made["AccepterVpcInfo"]
    for pair in [(one, other), (other, one)]:
        assert error_code(create, ec2=ec2, one=pair[0], other=pair[1]) == "VpcPeeringConnectionAlreadyExists"
    (table,) = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [one]}])["RouteTables"]
    to_other = {"RouteTableId": table["RouteTableId"], "DestinationCidrBlock": "10.2.0.0/16"}
    route = lambda id: error_code(ec2.create_route, VpcPeeringConnectionId=id, **to_other)
    assert route(id) == "InvalidVpcPeeringConnectionID.NotFound"
    accepted = ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=id)["VpcPeeringConnection"]
    assert accepted["Status"]["Code"] == "active"
    assert accepted["AccepterVpcInfo"]["CidrBlockSet"] == [{"CidrBlock": "10.2.0.0/16"}]
    accept = lambda: error_code(ec2.accept_vpc_peering_connection, VpcPeeringConnectionId=id)
    reject = lambda: error_code(ec2.reject_vpc_peering_connection, VpcPeeringConnectionId=id)
    delete = lambda: error_code(ec2.delete_vpc_peering_connection, VpcPeeringConnectionId=id)
    assert accept() == reject() == "InvalidStateTransition"
    assert route(id) is None
    routes = lambda: ec2.describe_route_tables(
        Filters=[{"Name": "route.vpc-peering-connection-id", "Values": [id]}]
    )["RouteTables"][0]["Routes"]
    state = lambda: next(one["State"] for one in routes() if one.get("VpcPeeringConnectionId") == id)
    assert state() == "active"
    # The two never come to overlap, and neither goes while they are connected.
    assert error_code(ec2.associate_vpc_cidr_block, VpcId=other, CidrBlock="10.1.0.0/20") == "InvalidVpc.Range"
    assert error_code(ec2.delete_vpc, VpcId=other) == "DependencyViolation"
    options = {"VpcPeeringConnectionId": id, "RequesterPeeringConnectionOptions": {}}
    options["RequesterPeeringConnectionOptions"]["AllowDnsResolutionFromRemoteVpc"] = False
    modify = ec2.modify_vpc_peering_connection_options
    assert modify(**options)["RequesterPeeringConnectionOptions"]["AllowDnsResolutionFromRemoteVpc"] is False
    options["RequesterPeeringConnectionOptions"] = {"AllowEgressFromLocalClassicLinkToRemoteVpc": True}
    assert error_code(modify, **options) == "UnsupportedOperation"
    options["RequesterPeeringConnectionOptions"] = {"AllowDnsResolutionFromRemoteVpc": True}
    assert modify(**options)["RequesterPeeringConnectionOptions"]["AllowDnsResolutionFromRemoteVpc"] is True
    shown = ec2.describe_vpc_peering_connections(VpcPeeringConnectionIds=[id])["VpcPeeringConnections"][0]
    sides = [shown[side]["PeeringOptions"] for side in ("RequesterVpcInfo", "AccepterVpcInfo")]
    assert [side["AllowDnsResolutionFromRemoteVpc"] for side in sides] == [True, False]
    assert delete() is None
    assert (code(ec2, id), state()) == ("deleted", "blackhole")
    assert delete() == "InvalidStateTransition"
    ec2.delete_vpc(VpcId=other)
    assert described(ec2, id)["AccepterVpcInfo"]["VpcId"] == other


def test_a_request_may_be_rejected_or_fail(ec2, vpc):
    one, other, same = vpc("10.1.0.0/16"), vpc("10.2.0.0/16"), vpc("10.1.128.0/20")
    rejected = create(ec2, one, other)["VpcPeeringConnectionId"]
    assert ec2.reject_vpc_peering_connection(VpcPeeringConnectionId=rejected)["Return"]
    assert code(ec2, rejected) == "rejected"
    again = create(ec2, other, one)["VpcPeeringConnectionId"]
    assert code(ec2, again) == "pending-acceptance"
    for peer in [same, "vpc-0123456789abcdef0"]:
        failed = create(ec2, one, peer)
        assert failed["Status"]["Code"] == "failed" and "overlapping" in failed["Status"]["Message"]
        accept = error_code(
            ec2.accept_vpc_peering_connection, VpcPeeringConnectionId=failed["VpcPeeringConnectionId"]
        )
        assert accept == "InvalidStateTransition"
    for expected, more in [
        ("InvalidParameterValue", {"other": one}),
        ("InvalidVpcID.Malformed", {"other": "vpc"}),
        ("InvalidVpcID.NotFound", {"one": "vpc-0123456789abcdef0"}),
        ("UnsupportedOperation", {"PeerRegion": "eu-west-1"}),
        ("UnsupportedOperation", {"PeerOwnerId": "123456789012"}),
        ("DryRunOperation", {"DryRun": True}),
    ]:
        assert error_code(create, **{"ec2": ec2, "one": one, "other": same, **more}) == expected, more
    for call in [
        ec2.accept_vpc_peering_connection,
        ec2.reject_vpc_peering_connection,
        ec2.delete_vpc_peering_connection,
        ec2.modify_vpc_peering_connection_options,
    ]:
        assert error_code(call, VpcPeeringConnectionId=MISSING) == "InvalidVpcPeeringConnectionID.NotFound"


def test_found_by_every_documented_filter(ec2, vpc):
    one, other = vpc("10.81.0.0/16"), vpc("10.82.0.0/16")
    made = create(ec2, one, other)
    id = made["VpcPeeringConnectionId"]
    ec2.create_tags(Resources=[id], Tags=[{"Key": "of", "Value": id}])
    for name, value in {
        "accepter-vpc-info.cidr-block": "10.82.0.0/16",
        "accepter-vpc-info.owner-id": made["RequesterVpcInfo"]["OwnerId"],
        "accepter-vpc-info.vpc-id": other,
        "expiration-time": made["ExpirationTime"].strftime("%Y-%m-%dT*"),
        "requester-vpc-info.cidr-block": "10.81.0.0/16",
        "requester-vpc-info.owner-id": made["RequesterVpcInfo"]["OwnerId"],
        "requester-vpc-info.vpc-id": one,
        "status-code": "pending-acceptance",
        "status-message": "Pending Acceptance",
        "tag:of": id,
        "tag-key": "of",
    }.items():
        filters = [{"Name": "vpc-peering-connection-id", "Values": [id]}, {"Name": name, "Values": [value]}]
        found = ec2.describe_vpc_peering_connections(Filters=filters)["VpcPeeringConnections"]
        assert [one["VpcPeeringConnectionId"] for one in found] == [id], name
