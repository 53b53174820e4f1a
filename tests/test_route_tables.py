"""Route tables through boto3: which subnets use which, where routes may lead, and what is left of one whose target goes."""

import concurrent.futures
import ipaddress

import pytest
from conftest import error_code, run, wait

MISSING = "rtb-0123456789abcdef0"
ANY = "0.0.0.0/0"


@pytest.fixture
def vpc(ec2):
    return ec2.create_vpc(CidrBlock="10.1.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]["VpcId"]


@pytest.fixture
def subnet(ec2, vpc):
    return ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.5.0/24")["Subnet"]["SubnetId"]


@pytest.fixture
def gateway(ec2, vpc):
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    return gateway


@pytest.fixture
def table(ec2, vpc):
    return ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]


def described(ec2, table):
    return ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]


def routes(ec2, table):
    """Target, origin and state by destination."""
    found = {}
    for route in described(ec2, table)["Routes"]:
        destination = route.get("DestinationCidrBlock") or route["DestinationIpv6CidrBlock"]
        targets = ["GatewayId", "EgressOnlyInternetGatewayId", "NetworkInterfaceId"]
        (target,) = [route[name] for name in targets if name in route]
        found[destination] = (target, route["Origin"], route["State"])
    return found


def main_table(ec2, vpc):
    filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}]
    (table,) = ec2.describe_route_tables(Filters=filters)["RouteTables"]
    return table


def test_a_table_begins_with_the_blocks_of_its_vpc_and_follows_them(ec2, vpc):
    tags = [{"ResourceType": "route-table", "Tags": [{"Key": "a", "Value": "b"}]}]
    asked = {"VpcId": vpc, "TagSpecifications": tags, "ClientToken": f"table-of-{vpc}"}
    made = ec2.create_route_table(**asked)["RouteTable"]
    table = made["RouteTableId"]
    assert ec2.create_route_table(**asked)["RouteTable"]["RouteTableId"] == table
    assert made["Associations"] == [] and made["Tags"] == [{"Key": "a", "Value": "b"}]
    local = ("local", "CreateRouteTable", "active")
    ipv6 = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
    assert routes(ec2, table) == {"10.1.0.0/16": local, ipv6: local}
    added = ec2.associate_vpc_cidr_block(VpcId=vpc, CidrBlock="10.2.0.0/16")["CidrBlockAssociation"]
    assert routes(ec2, table) == {"10.1.0.0/16": local, "10.2.0.0/16": local, ipv6: local}
    ec2.disassociate_vpc_cidr_block(AssociationId=added["AssociationId"])
    assert routes(ec2, table) == {"10.1.0.0/16": local, ipv6: local}
    assert error_code(ec2.delete_vpc, VpcId=vpc) == "DependencyViolation"
    ec2.delete_route_table(RouteTableId=table)
    assert error_code(ec2.delete_route_table, RouteTableId=table) == "InvalidRouteTableID.NotFound"
    assert error_code(ec2.delete_route_table, RouteTableId="table") == "InvalidRouteTableID.Malformed"
    assert error_code(ec2.create_route_table, VpcId="vpc-0123456789abcdef0") == "InvalidVpcID.NotFound"
    ec2.delete_vpc(VpcId=vpc)


def test_routes_are_made_replaced_and_deleted(ec2, table, gateway):
    create = lambda destination, **target: error_code(
        ec2.create_route, RouteTableId=table, DestinationCidrBlock=destination, **target
    )
    assert create("0.0.0.0/0", GatewayId=gateway) is None
    # Canonical: it is the same route.
    assert create("10.9.3.4/0", GatewayId=gateway) == "RouteAlreadyExists"
    assert create("10.1.0.0/16", GatewayId=gateway) == "RouteAlreadyExists"
    assert create("192.0.2.7/24", GatewayId=gateway) is None
    assert routes(ec2, table)["192.0.2.0/24"] == (gateway, "CreateRoute", "active")
    ec2.create_route(RouteTableId=table, DestinationIpv6CidrBlock="::/0", GatewayId=gateway)
    delete = lambda destination: error_code(
        ec2.delete_route, RouteTableId=table, DestinationCidrBlock=destination
    )
    assert delete("192.0.2.0/24") is None
    assert delete("192.0.2.0/24") == "InvalidRoute.NotFound"
    assert delete("10.1.0.0/16") == "InvalidParameterValue"
    replace = {"RouteTableId": table, "GatewayId": gateway}
    assert error_code(ec2.replace_route, DestinationCidrBlock=ANY, **replace) is None
    assert error_code(ec2.replace_route, DestinationCidrBlock="192.0.2.0/24", **replace) == "InvalidRoute.NotFound"


def test_where_a_route_may_lead(ec2, vpc, table, gateway, subnet):
    other_vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    detached = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    egress = ec2.create_egress_only_internet_gateway(VpcId=vpc)["EgressOnlyInternetGateway"]
    egress = egress["EgressOnlyInternetGatewayId"]
    foreign = ec2.create_egress_only_internet_gateway(VpcId=other_vpc)["EgressOnlyInternetGateway"]
    foreign = foreign["EgressOnlyInternetGatewayId"]
    ipv4 = {"DestinationCidrBlock": "203.0.113.0/24"}
    ipv6 = {"DestinationIpv6CidrBlock": "2001:db8::/32"}
    for parameters, code in [
        ({**ipv4, "GatewayId": detached}, "InvalidParameterValue"),
        ({**ipv4, "GatewayId": "igw-0123456789abcdef0"}, "InvalidGatewayID.NotFound"),
        ({**ipv4, "GatewayId": "local"}, "InvalidParameterValue"),
        ({**ipv4, "EgressOnlyInternetGatewayId": egress}, "InvalidParameterValue"),
        ({**ipv6, "EgressOnlyInternetGatewayId": foreign}, "InvalidParameterValue"),
        ({**ipv6, "EgressOnlyInternetGatewayId": "eigw-0123456789abcdef0"}, "InvalidGatewayID.NotFound"),
        ({**ipv4, "NetworkInterfaceId": "eni-0123456789abcdef0"}, "InvalidNetworkInterfaceID.NotFound"),
        ({**ipv4, "InstanceId": "i-0123456789abcdef0"}, "InvalidInstanceID.NotFound"),
        ({**ipv4, "NatGatewayId": "nat-0123456789abcdef0"}, "InvalidNatGatewayID.NotFound"),
        ({**ipv4, "VpcPeeringConnectionId": "pcx-0123456789abcdef0"}, "InvalidVpcPeeringConnectionID.NotFound"),
        ({**ipv4, "TransitGatewayId": "tgw-0123456789abcdef0"}, "UnsupportedOperation"),
        ({**ipv4, "VpcEndpointId": "vpce-0123456789abcdef0"}, "UnsupportedOperation"),
        ({**ipv4, "LocalGatewayId": "lgw-0123456789abcdef0"}, "UnsupportedOperation"),
        (ipv4, "MissingParameter"),
        ({"GatewayId": gateway}, "MissingParameter"),
        ({**ipv4, **ipv6, "GatewayId": gateway}, "InvalidParameterCombination"),
        ({**ipv6, "GatewayId": gateway, "EgressOnlyInternetGatewayId": egress}, "InvalidParameterCombination"),
        ({"DestinationCidrBlock": "203.0.113.0", "GatewayId": gateway}, "InvalidParameterValue"),
        ({"DestinationCidrBlock": "169.254.169.0/24", "GatewayId": gateway}, "InvalidParameterValue"),
        ({"DestinationIpv6CidrBlock": "fd00:ec2::/48", "GatewayId": gateway}, "InvalidParameterValue"),
        ({"DestinationCidrBlock": "10.1.5.0/24", "GatewayId": gateway}, "InvalidParameterValue"),
        ({"DestinationPrefixListId": "pl-0123456789abcdef0", "GatewayId": gateway}, "InvalidPrefixListID.NotFound"),
        ({**ipv4, "GatewayId": gateway, "RouteTableId": MISSING}, "InvalidRouteTableID.NotFound"),
    ]:
        assert error_code(ec2.create_route, **{"RouteTableId": table, **parameters}) == code, parameters
    assert all(target == "local" for target, _, _ in routes(ec2, table).values())
    ec2.create_route(RouteTableId=table, EgressOnlyInternetGatewayId=egress, **ipv6)
    assert routes(ec2, table)["2001:db8::/32"] == (egress, "CreateRoute", "active")
    # A block of the VPC would take over what the route leads elsewhere.
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="10.3.7.0/24", GatewayId=gateway)
    assert error_code(ec2.associate_vpc_cidr_block, VpcId=vpc, CidrBlock="10.3.0.0/16") == "InvalidVpc.Range"


def test_an_instance_can_be_the_router_also_within_the_vpc(ec2, vpc, table, subnet, ami):
    (instance,) = run(ec2, ami, SubnetId=subnet)
    instance, interface = instance["InstanceId"], instance["NetworkInterfaces"][0]["NetworkInterfaceId"]
    route = {"RouteTableId": table, "DestinationCidrBlock": ANY}
    ec2.create_route(InstanceId=instance, **route)
    assert routes(ec2, table)[ANY] == (interface, "CreateRoute", "active")
    shown = next(one for one in described(ec2, table)["Routes"] if one.get("DestinationCidrBlock") == ANY)
    assert (shown["InstanceId"], "InstanceOwnerId" in shown) == (instance, True)
    # More specific than local: the block of a subnet, and no other.
    create = lambda cidr: error_code(
        ec2.create_route, RouteTableId=table, DestinationCidrBlock=cidr, NetworkInterfaceId=interface
    )
    assert create("10.1.5.0/25") == "InvalidParameterValue"
    assert create("10.1.5.0/24") is None
    # The local route itself, there and back.
    local = {"RouteTableId": table, "DestinationCidrBlock": "10.1.0.0/16"}
    ec2.replace_route(NetworkInterfaceId=interface, **local)
    assert routes(ec2, table)["10.1.0.0/16"] == (interface, "CreateRouteTable", "active")
    assert error_code(ec2.delete_route, **local) == "InvalidParameterValue"
    ec2.replace_route(LocalTarget=True, **local)
    assert routes(ec2, table)["10.1.0.0/16"] == ("local", "CreateRouteTable", "active")
    assert error_code(ec2.replace_route, LocalTarget=True, **route) == "InvalidParameterValue"
    # What was said of a block goes with it.
    added = ec2.associate_vpc_cidr_block(VpcId=vpc, CidrBlock="10.2.0.0/16")["CidrBlockAssociation"]
    ec2.replace_route(NetworkInterfaceId=interface, RouteTableId=table, DestinationCidrBlock="10.2.0.0/16")
    ec2.disassociate_vpc_cidr_block(AssociationId=added["AssociationId"])
    assert "10.2.0.0/16" not in routes(ec2, table)
    filters = [{"Name": "route.instance-id", "Values": [instance]}]
    assert [one["RouteTableId"] for one in ec2.describe_route_tables(Filters=filters)["RouteTables"]] == [table]
    ec2.terminate_instances(InstanceIds=[instance])
    wait(ec2, "instance_terminated", [instance])
    assert routes(ec2, table)[ANY] == (interface, "CreateRoute", "blackhole")


def test_a_route_outlives_its_target_and_leads_nowhere(ec2, vpc, table, gateway):
    egress = ec2.create_egress_only_internet_gateway(VpcId=vpc)["EgressOnlyInternetGateway"]
    egress = egress["EgressOnlyInternetGatewayId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock=ANY, GatewayId=gateway)
    ec2.create_route(RouteTableId=table, DestinationIpv6CidrBlock="::/0", EgressOnlyInternetGatewayId=egress)
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    assert routes(ec2, table)[ANY] == (gateway, "CreateRoute", "blackhole")
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    assert routes(ec2, table)[ANY] == (gateway, "CreateRoute", "active")
    assert ec2.delete_egress_only_internet_gateway(EgressOnlyInternetGatewayId=egress)["ReturnCode"]
    assert routes(ec2, table)["::/0"] == (egress, "CreateRoute", "blackhole")
    filters = [{"Name": "route.state", "Values": ["blackhole"]}, {"Name": "vpc-id", "Values": [vpc]}]
    assert [one["RouteTableId"] for one in ec2.describe_route_tables(Filters=filters)["RouteTables"]] == [table]


def test_a_subnet_uses_one_table(simulated, ec2, vpc, table, subnet):
    second = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    associate = lambda client, table: client.associate_route_table(RouteTableId=table, SubnetId=subnet)
    # Also where two are wanted at once.
    code = lambda table: error_code(associate, client=simulated.client(), table=table)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(code, [table, second] * 4))
    assert sorted(codes, key=str) == [None] * 4 + ["Resource.AlreadyAssociated"] * 4
    filters = [{"Name": "association.subnet-id", "Values": [subnet]}]
    (used,) = ec2.describe_route_tables(Filters=filters)["RouteTables"]
    (association,) = used["Associations"]
    assert not association["Main"] and association["AssociationState"]["State"] == "associated"
    other = second if used["RouteTableId"] == table else table
    assert associate(ec2, used["RouteTableId"])["AssociationId"] == association["RouteTableAssociationId"]
    assert error_code(ec2.delete_route_table, RouteTableId=used["RouteTableId"]) == "DependencyViolation"
    replace = {"AssociationId": association["RouteTableAssociationId"], "RouteTableId": other}
    new = ec2.replace_route_table_association(**replace)["NewAssociationId"]
    assert new != association["RouteTableAssociationId"]
    assert error_code(ec2.replace_route_table_association, **replace) == "InvalidAssociationID.NotFound"
    assert described(ec2, used["RouteTableId"])["Associations"] == []
    ec2.disassociate_route_table(AssociationId=new)
    assert error_code(ec2.disassociate_route_table, AssociationId=new) == "InvalidAssociationID.NotFound"
    associate(ec2, used["RouteTableId"])
    ec2.delete_subnet(SubnetId=subnet)
    assert described(ec2, used["RouteTableId"])["Associations"] == []
    elsewhere = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=elsewhere, CidrBlock="10.1.0.0/24")["Subnet"]["SubnetId"]
    assert error_code(associate, client=ec2, table=table) == "InvalidParameterValue"


def test_another_table_becomes_the_main_one(ec2, vpc, table):
    before = main_table(ec2, vpc)
    association = before["Associations"][0]["RouteTableAssociationId"]
    assert error_code(ec2.disassociate_route_table, AssociationId=association) == "InvalidParameterValue"
    assert error_code(ec2.delete_route_table, RouteTableId=before["RouteTableId"]) == "DependencyViolation"
    new = ec2.replace_route_table_association(AssociationId=association, RouteTableId=table)["NewAssociationId"]
    after = main_table(ec2, vpc)
    assert after["RouteTableId"] == table
    assert [one["RouteTableAssociationId"] for one in after["Associations"]] == [new]
    ec2.delete_route_table(RouteTableId=before["RouteTableId"])
    ec2.delete_vpc(VpcId=vpc)


def test_egress_only_gateways(ec2, vpc):
    tags = [{"ResourceType": "egress-only-internet-gateway", "Tags": [{"Key": "of", "Value": vpc}]}]
    asked = {"VpcId": vpc, "TagSpecifications": tags, "ClientToken": f"gateway-of-{vpc}"}
    made = ec2.create_egress_only_internet_gateway(**asked)["EgressOnlyInternetGateway"]
    assert made["Attachments"] == [{"State": "attached", "VpcId": vpc}]
    assert ec2.create_egress_only_internet_gateway(**asked)["EgressOnlyInternetGateway"] == made
    assert error_code(ec2.create_egress_only_internet_gateway, VpcId=vpc) == "InvalidParameterValue"
    id = made["EgressOnlyInternetGatewayId"]
    describe = ec2.describe_egress_only_internet_gateways
    assert describe(EgressOnlyInternetGatewayIds=[id])["EgressOnlyInternetGateways"] == [made]
    filters = [{"Name": "tag:of", "Values": [vpc]}]
    assert describe(Filters=filters)["EgressOnlyInternetGateways"] == [made]
    assert error_code(ec2.delete_vpc, VpcId=vpc) == "DependencyViolation"
    ec2.delete_egress_only_internet_gateway(EgressOnlyInternetGatewayId=id)
    delete = lambda id: error_code(ec2.delete_egress_only_internet_gateway, EgressOnlyInternetGatewayId=id)
    assert delete(id) == "InvalidEgressOnlyInternetGatewayId.NotFound"
    assert delete("eigw-1") == "InvalidEgressOnlyInternetGatewayId.Malformed"
    ec2.delete_vpc(VpcId=vpc)


def test_found_by_every_documented_filter(ec2, vpc, table, gateway, subnet):
    association = ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
    ec2.create_tags(Resources=[table], Tags=[{"Key": "suite", "Value": "filters"}])
    ec2.create_route(RouteTableId=table, DestinationCidrBlock=ANY, GatewayId=gateway)
    egress = ec2.create_egress_only_internet_gateway(VpcId=vpc)["EgressOnlyInternetGateway"]
    egress = egress["EgressOnlyInternetGatewayId"]
    ec2.create_route(RouteTableId=table, DestinationIpv6CidrBlock="::/0", EgressOnlyInternetGatewayId=egress)
    find = lambda name, value: [
        one["RouteTableId"]
        for one in ec2.describe_route_tables(
            Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": name, "Values": [value]}]
        )["RouteTables"]
    ]
    main = main_table(ec2, vpc)
    for name, value in {
        "association.route-table-association-id": association,
        "association.route-table-id": table,
        "association.subnet-id": subnet,
        "association.main": "false",
        "route-table-id": table,
        "route.destination-cidr-block": ANY,
        "route.destination-ipv6-cidr-block": "::/0",
        "route.egress-only-internet-gateway-id": egress,
        "route.gateway-id": gateway,
        "route.origin": "CreateRoute",
        "tag:suite": "filters",
        "tag-key": "suite",
    }.items():
        assert find(name, value) == [table], name
    for name, value in {"owner-id": main["OwnerId"], "route.state": "active", "route.gateway-id": "local"}.items():
        assert sorted(find(name, value)) == sorted([table, main["RouteTableId"]]), name
    for name in [
        "association.gateway-id",
        "route.destination-prefix-list-id",
        "route.instance-id",
        "route.nat-gateway-id",
        "route.transit-gateway-id",
        "route.vpc-peering-connection-id",
    ]:
        assert find(name, "*") == [], name
    assert error_code(find, name="route.colour", value="blue") == "InvalidParameterValue"


def test_no_virtual_private_gateway_propagates_routes(ec2, vpc):
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    for call in [ec2.enable_vgw_route_propagation, ec2.disable_vgw_route_propagation]:
        gateway = {"GatewayId": "vgw-0123456789abcdef0"}
        assert error_code(call, RouteTableId=table, **gateway) == "InvalidVpnGatewayID.NotFound"
        assert error_code(call, RouteTableId="rtb-0123456789abcdef0", **gateway) == "InvalidRouteTableID.NotFound"


def test_a_gateway_has_routes_of_its_own(ec2, vpc, subnet, gateway, table):
    appliance = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    associate = lambda table=table, **user: ec2.associate_route_table(RouteTableId=table, **user)["AssociationId"]
    other_gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    for code, call in [
        ("InvalidParameterCombination", lambda: associate(GatewayId=gateway, SubnetId=subnet)),
        ("MissingParameter", associate),
        ("InvalidGatewayID.NotFound", lambda: associate(GatewayId="igw-0123456789abcdef0")),
        ("InvalidParameterValue", lambda: associate(GatewayId=other_gateway)),
    ]:
        assert error_code(call) == code

    # A table that leads elsewhere is none for a gateway.
    leads_out = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=leads_out, DestinationCidrBlock=ANY, GatewayId=gateway)
    assert error_code(lambda: associate(leads_out, GatewayId=gateway)) == "InvalidParameterValue"

    association = associate(GatewayId=gateway)
    assert associate(GatewayId=gateway) == association
    (shown,) = described(ec2, table)["Associations"]
    assert (shown["GatewayId"], shown["Main"], "SubnetId" in shown) == (gateway, False, False)
    filters = [{"Name": "association.gateway-id", "Values": [gateway]}]
    assert [of["RouteTableId"] for of in ec2.describe_route_tables(Filters=filters)["RouteTables"]] == [table]
    assert error_code(ec2.delete_route_table, RouteTableId=table) == "DependencyViolation"
    other = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    assert error_code(lambda: associate(other, GatewayId=gateway)) == "Resource.AlreadyAssociated"

    create = lambda destination, **target: error_code(
        ec2.create_route, RouteTableId=table, DestinationCidrBlock=destination, **target
    )
    assert create(ANY, GatewayId=gateway) == "InvalidParameterValue"
    assert create("192.0.2.0/24", NetworkInterfaceId=appliance) == "InvalidParameterValue"
    assert create("10.1.6.0/24", NetworkInterfaceId=appliance) == "InvalidParameterValue", "it is no subnet's"
    assert create("10.1.5.0/24", NetworkInterfaceId=appliance) is None
    assert routes(ec2, table)["10.1.5.0/24"] == (appliance, "CreateRoute", "blackhole")
    replace = lambda **target: error_code(
        ec2.replace_route, RouteTableId=table, DestinationCidrBlock="10.1.0.0/16", **target
    )
    assert replace(NetworkInterfaceId=appliance) is None and replace(LocalTarget=True) is None

    moved = ec2.replace_route_table_association(AssociationId=association, RouteTableId=other)["NewAssociationId"]
    assert described(ec2, table)["Associations"] == []
    assert error_code(
        ec2.replace_route_table_association, AssociationId=moved, RouteTableId=leads_out
    ) == "InvalidParameterValue"
    ec2.disassociate_route_table(AssociationId=moved)
    assert described(ec2, other)["Associations"] == []
    associate(other, GatewayId=gateway)
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    assert described(ec2, other)["Associations"] == [], "a gateway that leaves has none"
