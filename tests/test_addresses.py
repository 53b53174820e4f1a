"""Elastic IP addresses and NAT gateways, by boto3."""

import pytest
from conftest import error_code, run, wait


@pytest.fixture
def network(ec2):
    """A VPC with an internet gateway and a subnet of its own."""
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.20.1.0/24")["Subnet"]["SubnetId"]
    return vpc, subnet, gateway


def allocate(ec2, **parameters):
    return ec2.allocate_address(Domain="vpc", **parameters)


def one(ec2, allocation_id):
    return ec2.describe_addresses(AllocationIds=[allocation_id])["Addresses"][0]


def test_an_address_is_the_owners_until_it_is_released(ec2):
    tags = [{"ResourceType": "elastic-ip", "Tags": [{"Key": "of", "Value": "release"}]}]
    made = allocate(ec2, TagSpecifications=tags)
    assert made["Domain"] == "vpc" and made["PublicIpv4Pool"] == "amazon"
    shown = one(ec2, made["AllocationId"])
    assert shown["PublicIp"] == made["PublicIp"] and shown["Tags"] == tags[0]["Tags"]
    assert "AssociationId" not in shown
    by_tag = ec2.describe_addresses(Filters=[{"Name": "tag:of", "Values": ["release"]}])["Addresses"]
    by_ip = ec2.describe_addresses(PublicIps=[made["PublicIp"]])["Addresses"]
    assert by_tag == by_ip == [shown]
    ec2.release_address(AllocationId=made["AllocationId"])
    assert error_code(ec2.describe_addresses, AllocationIds=[made["AllocationId"]]) == "InvalidAllocationID.NotFound"
    assert error_code(ec2.release_address, AllocationId=made["AllocationId"]) == "InvalidAllocationID.NotFound"
    # It can be had again by name, while nobody else has it.
    again = allocate(ec2, Address=made["PublicIp"])
    assert again["PublicIp"] == made["PublicIp"] and again["AllocationId"] != made["AllocationId"]
    assert error_code(ec2.allocate_address, Address=made["PublicIp"]) == "InvalidAddress.NotFound"
    assert error_code(ec2.allocate_address, Address="8.8.8.8") == "InvalidAddress.NotFound"
    ec2.release_address(AllocationId=again["AllocationId"])


def test_a_released_address_rests_and_can_be_had_back_until_then(cloud_factory):
    ec2 = cloud_factory("--simulate", "--public-pool", "198.51.100.0/28").client()
    free = lambda made: ec2.release_address(AllocationId=made["AllocationId"])
    ip = lambda made: made["PublicIp"]
    # 14 of 16: one stands for the network, one for all on it.
    had = [allocate(ec2) for _ in range(14)]
    assert error_code(ec2.allocate_address) == "InsufficientAddressCapacity"
    for made in had[2:5]:
        free(made)
    # Of those that somebody had, the one released longest ago goes first.
    assert [ip(allocate(ec2)) for _ in range(3)] == [ip(made) for made in had[2:5]]
    for made in had[5:8]:
        free(made)
    back = allocate(ec2, Address=ip(had[7]))
    assert ip(back) == ip(had[7]) and back["AllocationId"] != had[7]["AllocationId"]
    assert ip(allocate(ec2)) == ip(had[5])
    assert error_code(ec2.allocate_address, Address=ip(had[5])) == "InvalidAddress.NotFound"
    # One that nobody had comes before any that was released.
    other = cloud_factory("--simulate", "--public-pool", "198.51.100.0/28").client()
    seen = set()
    for _ in range(11):
        made = allocate(other)
        other.release_address(AllocationId=made["AllocationId"])
        seen.add(ip(made))
    assert len(seen) == 11
    # What an instance had was never the account's.
    images = other.describe_images(Owners=["amazon"])["Images"]
    image = next(one["ImageId"] for one in images if one["Architecture"] == "x86_64")
    instance = run(other, image)[0]["InstanceId"]
    wait(other, "instance_running", [instance])
    shown = other.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    other.stop_instances(InstanceIds=[instance])
    wait(other, "instance_stopped", [instance])
    assert error_code(other.allocate_address, Address=shown["PublicIpAddress"]) == "InvalidAddress.NotFound"


def test_names_in_the_reverse_are_kept_and_wait(ec2):
    made = allocate(ec2)
    id = made["AllocationId"]
    set_name = lambda name: ec2.modify_address_attribute(AllocationId=id, DomainName=name)["Address"]
    shown = lambda: ec2.describe_addresses_attribute(AllocationIds=[id], Attribute="domain-name")["Addresses"]
    assert shown() == [{"PublicIp": made["PublicIp"], "AllocationId": id}]
    update = set_name("Mail.example.com")["PtrRecordUpdate"]
    assert (update["Value"], update["Status"]) == ("mail.example.com.", "PENDING")
    assert shown()[0]["PtrRecordUpdate"] == update and "PtrRecord" not in shown()[0]
    assert error_code(set_name, name="no host") == "InvalidParameterValue"
    missing = {"AllocationId": "eipalloc-0123456789abcdef0", "DomainName": "mail.example.com"}
    assert error_code(ec2.modify_address_attribute, **missing) == "InvalidAllocationID.NotFound"
    reset = ec2.reset_address_attribute(AllocationId=id, Attribute="domain-name")["Address"]
    assert "PtrRecordUpdate" not in reset and shown() == [reset]
    ec2.release_address(AllocationId=id)


def test_what_others_have_brought_or_left_is_not_here(ec2):
    assert ec2.describe_public_ipv4_pools()["PublicIpv4Pools"] == []
    assert error_code(ec2.describe_public_ipv4_pools, PoolIds=["ipv4pool-ec2-0"]) == "InvalidPublicIpv4PoolID.NotFound"
    ip = allocate(ec2)["PublicIp"]
    for call in (ec2.move_address_to_vpc, ec2.restore_address_to_classic):
        assert error_code(call, PublicIp=ip) == "UnsupportedOperation"
        assert error_code(call, PublicIp="192.0.2.1") == "InvalidAddress.NotFound"
    ec2.release_address(PublicIp=ip)


def test_bad_requests_for_addresses(ec2):
    assert error_code(ec2.allocate_address, Domain="standard") == "InvalidParameterValue"
    assert error_code(ec2.release_address) == "MissingParameter"
    assert error_code(ec2.release_address, PublicIp="198.18.0.300") == "InvalidParameterValue"
    assert error_code(ec2.associate_address, AllocationId="eipalloc-0123456789abcdef0") == "MissingParameter"
    assert error_code(ec2.disassociate_address, AssociationId="eipassoc-0123456789abcdef0") == "InvalidAssociationID.NotFound"
    kept = {"AllocationId": allocate(ec2)["AllocationId"]}
    assert error_code(ec2.release_address, NetworkBorderGroup="us-east-1-wl1-bos-wlz-1", **kept) == "InvalidAddress.NotFound"
    ec2.release_address(NetworkBorderGroup="us-east-1", **kept)
    assert error_code(ec2.allocate_address, DryRun=True) == "DryRunOperation"


def test_an_elastic_address_takes_the_place_of_the_assigned_one(ec2, ami):
    instance = run(ec2, ami)[0]["InstanceId"]
    other = run(ec2, ami)[0]["InstanceId"]
    wait(ec2, "instance_running", [instance, other])

    def public(id):
        return ec2.describe_instances(InstanceIds=[id])["Reservations"][0]["Instances"][0].get("PublicIpAddress")

    assigned = public(instance)
    made = allocate(ec2)
    association = ec2.associate_address(InstanceId=instance, AllocationId=made["AllocationId"])["AssociationId"]
    assert public(instance) == made["PublicIp"] != assigned
    shown = one(ec2, made["AllocationId"])
    assert (shown["AssociationId"], shown["InstanceId"]) == (association, instance)
    interface = ec2.describe_network_interfaces(NetworkInterfaceIds=[shown["NetworkInterfaceId"]])["NetworkInterfaces"][0]
    assert interface["Association"]["AllocationId"] == made["AllocationId"]
    assert interface["PrivateIpAddress"] == shown["PrivateIpAddress"]
    # Asked again it is the same association; another machine gets it only where it may move.
    again = ec2.associate_address(InstanceId=instance, AllocationId=made["AllocationId"])["AssociationId"]
    assert again == association
    refused = error_code(
        ec2.associate_address, InstanceId=other, AllocationId=made["AllocationId"], AllowReassociation=False
    )
    assert refused == "Resource.AlreadyAssociated"
    assert error_code(ec2.release_address, AllocationId=made["AllocationId"]) == "InvalidIPAddress.InUse"
    moved = ec2.associate_address(InstanceId=other, AllocationId=made["AllocationId"])["AssociationId"]
    assert moved != association and public(other) == made["PublicIp"]
    assert public(instance) not in (None, made["PublicIp"]), "what it loses is made up for while it runs"
    # It stays through a stop, as an assigned one does not.
    ec2.stop_instances(InstanceIds=[instance, other])
    wait(ec2, "instance_stopped", [instance, other])
    assert public(instance) is None and public(other) == made["PublicIp"]
    ec2.disassociate_address(AssociationId=moved)
    assert public(other) is None
    ec2.terminate_instances(InstanceIds=[instance, other])
    ec2.release_address(AllocationId=made["AllocationId"])


def test_a_terminated_instance_leaves_its_address_to_the_owner(ec2, ami):
    instance = run(ec2, ami)[0]["InstanceId"]
    made = allocate(ec2)
    ec2.associate_address(InstanceId=instance, PublicIp=made["PublicIp"])
    ec2.terminate_instances(InstanceIds=[instance])
    wait(ec2, "instance_terminated", [instance])
    assert "AssociationId" not in one(ec2, made["AllocationId"])
    ec2.release_address(PublicIp=made["PublicIp"])


def test_without_an_internet_gateway_there_is_nothing_to_associate(ec2, ami):
    vpc = ec2.create_vpc(CidrBlock="10.21.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.21.1.0/24")["Subnet"]["SubnetId"]
    instance = run(ec2, ami, SubnetId=subnet)[0]["InstanceId"]
    made = allocate(ec2)
    refused = error_code(ec2.associate_address, InstanceId=instance, AllocationId=made["AllocationId"])
    assert refused == "Gateway.NotAttached"
    refused = error_code(ec2.create_nat_gateway, SubnetId=subnet, AllocationId=made["AllocationId"])
    assert refused == "Gateway.NotAttached"
    ec2.terminate_instances(InstanceIds=[instance])
    ec2.release_address(AllocationId=made["AllocationId"])


def test_a_nat_gateway_has_an_interface_and_an_address(ec2, network):
    vpc, subnet, gateway = network
    made = allocate(ec2)
    tags = [{"ResourceType": "natgateway", "Tags": [{"Key": "of", "Value": "nat"}]}]
    parameters = dict(
        SubnetId=subnet, AllocationId=made["AllocationId"], TagSpecifications=tags, ClientToken="the-same"
    )
    nat = ec2.create_nat_gateway(**parameters)["NatGateway"]
    assert nat["State"] == "pending" and nat["ConnectivityType"] == "public" and nat["VpcId"] == vpc
    assert ec2.create_nat_gateway(**parameters)["NatGateway"]["NatGatewayId"] == nat["NatGatewayId"]
    id = nat["NatGatewayId"]
    ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[id])
    address = nat["NatGatewayAddresses"][0]
    assert address["PublicIp"] == made["PublicIp"] and address["PrivateIp"].startswith("10.20.1.")
    interface = ec2.describe_network_interfaces(NetworkInterfaceIds=[address["NetworkInterfaceId"]])["NetworkInterfaces"][0]
    assert interface["InterfaceType"] == "nat_gateway" and interface["RequesterManaged"]
    assert interface["Description"] == f"Interface for NAT Gateway {id}" and interface["Status"] == "in-use"
    filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "state", "Values": ["available"]}]
    assert [one["NatGatewayId"] for one in ec2.describe_nat_gateways(Filter=filters)["NatGateways"]] == [id]

    # Its address is not to be had, and what stands on it stays.
    assert error_code(ec2.disassociate_address, AssociationId=address["AssociationId"]) == "OperationNotPermitted"
    assert error_code(ec2.create_nat_gateway, SubnetId=subnet, AllocationId=made["AllocationId"]) == "Resource.AlreadyAssociated"
    assert error_code(ec2.delete_subnet, SubnetId=subnet) == "DependencyViolation"
    assert error_code(ec2.detach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc) == "DependencyViolation"

    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=id)

    def route():
        routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
        return next(route for route in routes if route["DestinationCidrBlock"] == "0.0.0.0/0")

    assert (route()["NatGatewayId"], route()["State"]) == (id, "active")
    ec2.delete_nat_gateway(NatGatewayId=id)
    ec2.get_waiter("nat_gateway_deleted").wait(NatGatewayIds=[id])
    assert route()["State"] == "blackhole"
    assert "AssociationId" not in one(ec2, made["AllocationId"])
    ec2.release_address(AllocationId=made["AllocationId"])
    assert error_code(ec2.delete_nat_gateway, NatGatewayId="nat-0123456789abcdef0") == "NatGatewayNotFound"
    ec2.delete_route_table(RouteTableId=table)
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=vpc)


def test_a_private_nat_gateway_has_no_public_address(ec2, network):
    _, subnet, _ = network
    nat = ec2.create_nat_gateway(
        SubnetId=subnet, ConnectivityType="private", PrivateIpAddress="10.20.1.77", SecondaryPrivateIpAddressCount=2
    )["NatGateway"]
    addresses = nat["NatGatewayAddresses"]
    assert addresses[0]["PrivateIp"] == "10.20.1.77" and addresses[0]["IsPrimary"] and len(addresses) == 3
    assert not any("PublicIp" in address for address in addresses)
    made = allocate(ec2)
    for parameters, code in [
        (dict(ConnectivityType="private", AllocationId=made["AllocationId"]), "InvalidParameterCombination"),
        (dict(), "MissingParameter"),
        (dict(ConnectivityType="neither"), "InvalidParameterValue"),
        (dict(ConnectivityType="private", VpcId=nat["VpcId"]), "InvalidParameterCombination"),
        (dict(ConnectivityType="private", PrivateIpAddress="10.20.1.77"), "InvalidIPAddress.InUse"),
        (dict(ConnectivityType="private", PrivateIpAddress="10.99.1.77"), "InvalidParameterValue"),
        (dict(ConnectivityType="private", SecondaryPrivateIpAddressCount=40), "InvalidParameterValue"),
    ]:
        assert error_code(ec2.create_nat_gateway, SubnetId=subnet, **parameters) == code, parameters
    assert error_code(ec2.create_nat_gateway, SubnetId="subnet-0123456789abcdef0", ConnectivityType="private") == "InvalidSubnetID.NotFound"
    ec2.release_address(AllocationId=made["AllocationId"])
    ec2.delete_nat_gateway(NatGatewayId=nat["NatGatewayId"])


def test_pools_of_the_operator_are_where_public_addresses_come_from(cloud_factory):
    cloud = cloud_factory("--simulate")
    ec2 = cloud.client()
    pool = lambda *arguments, **options: cloud.command("network", "pool", *arguments, **options)
    assert ec2.describe_public_ipv4_pools()["PublicIpv4Pools"] == []
    pool("add", "192.168.50.8/30", "--interface", "eth0", "--description", "the lab")
    pool("add", "192.168.50.8/30", "--interface", "eth0")
    pool("add", "203.0.113.8/31")
    lab, routed = sorted(
        ec2.describe_public_ipv4_pools()["PublicIpv4Pools"],
        key=lambda pool: pool["PoolAddressRanges"][0]["FirstAddress"],
    )
    assert (lab["Description"], lab["TotalAddressCount"], routed["TotalAvailableAddressCount"]) == ("the lab", 2, 2)
    assert lab["PoolAddressRanges"] == [
        {"FirstAddress": "192.168.50.9", "LastAddress": "192.168.50.10", "AddressCount": 2, "AvailableAddressCount": 2}
    ]

    pages = ec2.get_paginator("describe_public_ipv4_pools").paginate(PaginationConfig={"PageSize": 1})
    assert sorted(len(page["PublicIpv4Pools"]) for page in pages) == [1, 1]

    # To those who bring addresses they are there, and advertised; the operator's to change.
    pages = ec2.get_paginator("describe_byoip_cidrs").paginate(PaginationConfig={"PageSize": 1})
    brought = {own["Cidr"]: own for page in pages for own in page["ByoipCidrs"]}
    assert {cidr: own["State"] for cidr, own in brought.items()} == dict.fromkeys(
        ["192.168.50.8/30", "203.0.113.8/31"], "advertised"
    )
    assert brought["192.168.50.8/30"]["Description"] == "the lab"
    assert ec2.advertise_byoip_cidr(Cidr="192.168.50.8/30")["ByoipCidr"] == brought["192.168.50.8/30"]
    missing = {"PoolId": "ipv4pool-ec2-0123456789abcdef0"}
    for expected, call, parameters in [
        ("InvalidParameterValue", ec2.advertise_byoip_cidr, {"Cidr": "198.51.100.0/24"}),
        ("InvalidParameterValue", ec2.withdraw_byoip_cidr, {"Cidr": "no block"}),
        ("UnsupportedOperation", ec2.withdraw_byoip_cidr, {"Cidr": "203.0.113.8/31"}),
        ("UnsupportedOperation", ec2.deprovision_byoip_cidr, {"Cidr": "203.0.113.8/31"}),
        ("UnsupportedOperation", ec2.provision_byoip_cidr, {"Cidr": "198.51.100.0/24"}),
        ("UnsupportedOperation", ec2.create_public_ipv4_pool, {}),
        ("UnsupportedOperation", ec2.delete_public_ipv4_pool, {"PoolId": lab["PoolId"]}),
        ("InvalidPublicIpv4PoolID.NotFound", ec2.delete_public_ipv4_pool, missing),
        ("InvalidPublicIpv4PoolID.NotFound", ec2.deprovision_public_ipv4_pool_cidr, {**missing, "Cidr": "10.0.0.0/8"}),
    ]:
        assert error_code(call, **parameters) == expected, parameters

    # One that is named, by pool and by address.
    one = allocate(ec2, PublicIpv4Pool=lab["PoolId"], Address="192.168.50.10")
    assert (one["PublicIp"], one["PublicIpv4Pool"]) == ("192.168.50.10", lab["PoolId"])
    assert error_code(ec2.allocate_address, PublicIpv4Pool=lab["PoolId"], Address="192.168.50.10") == "InvalidAddress.InUse"
    assert error_code(ec2.allocate_address, PublicIpv4Pool=lab["PoolId"], Address="192.168.50.11") == "InvalidAddress.NotFound"
    missing = "ipv4pool-ec2-0123456789abcdef0"
    assert error_code(ec2.allocate_address, PublicIpv4Pool=missing) == "InvalidPublicIpv4PoolID.NotFound"
    assert error_code(ec2.describe_public_ipv4_pools, PoolIds=[missing]) == "InvalidPublicIpv4PoolID.NotFound"

    # Any, for who names none, until all pools are empty.
    others = [allocate(ec2) for _ in range(3)]
    assert {other["PublicIp"] for other in others} == {"192.168.50.9", "203.0.113.8", "203.0.113.9"}
    assert error_code(ec2.allocate_address) == "InsufficientAddressCapacity"
    shown = ec2.describe_addresses()["Addresses"]
    assert {address["PublicIpv4Pool"] for address in shown} == {lab["PoolId"], routed["PoolId"]}
    ec2.create_tags(Resources=[lab["PoolId"]], Tags=[{"Key": "of", "Value": "lab"}])
    tagged = ec2.describe_public_ipv4_pools(Filters=[{"Name": "tag:of", "Values": ["lab"]}])["PublicIpv4Pools"]
    assert [found["PoolId"] for found in tagged] == [lab["PoolId"]]

    # Kept while in use, over a restart; gone after.
    assert pool("remove", "192.168.50.8/30", check=False).returncode != 0
    for made in [one, *others]:
        ec2.release_address(AllocationId=made["AllocationId"])
    rows = pool("list").stdout.splitlines()
    assert any(row.split()[:4] == [lab["PoolId"], "192.168.50.8/30", "eth0", "2"] for row in rows)
    pool("remove", "192.168.50.8/30")
    pool("remove", routed["PoolId"])
    assert ec2.describe_public_ipv4_pools()["PublicIpv4Pools"] == []
    assert allocate(ec2)["PublicIp"].startswith("198.18.")


@pytest.mark.parametrize(
    "arguments, why",
    [
        (["198.18.4.0/24"], "overlaps"),
        (["0.0.0.0/0"], "can't be public addresses"),
        (["224.0.0.0/24"], "can't be public addresses"),
        (["192.168.50.0/24", "--interface", "eth9"], "has no interface eth9"),
        (["192.168.50.0/24", "--interface", "eth0; rm"], "is no name of a network interface"),
        (["fd00::/64"], "invalid"),
    ],
)
def test_what_can_be_no_pool_is_refused(simulated, arguments, why):
    refused = simulated.command("network", "pool", "add", *arguments, check=False)
    assert refused.returncode != 0 and why in refused.stderr


def test_an_address_is_offered_to_another_account(ec2):
    made = ec2.allocate_address()
    id, other = made["AllocationId"], "210987654321"
    offered = lambda: ec2.describe_address_transfers(AllocationIds=[id])["AddressTransfers"]
    assert offered() == []
    transfer = ec2.enable_address_transfer(AllocationId=id, TransferAccountId=other)["AddressTransfer"]
    assert (transfer["PublicIp"], transfer["TransferAccountId"]) == (made["PublicIp"], other)
    assert transfer["AddressTransferStatus"] == "pending" and offered() == [transfer]
    enable = ec2.enable_address_transfer
    for expected, parameters in [
        ("InvalidTransfer.AddressTransferInProgress", {"TransferAccountId": "210987654322"}),
        ("InvalidParameterValue", {"TransferAccountId": "me"}),
        ("InvalidAllocationID.NotFound", {"AllocationId": "eipalloc-0123456789abcdef0"}),
    ]:
        assert error_code(enable, **{"AllocationId": id, "TransferAccountId": other, **parameters}) == expected, parameters
    # It was not offered to us.
    assert error_code(ec2.accept_address_transfer, Address=made["PublicIp"]) == "InvalidAddress.NotFound"
    assert ec2.disable_address_transfer(AllocationId=id)["AddressTransfer"]["AddressTransferStatus"] == "disabled"
    assert offered() == [] and error_code(ec2.disable_address_transfer, AllocationId=id) == "InvalidAddress.NotFound"
    assert ec2.describe_moving_addresses()["MovingAddressStatuses"] == []
    ec2.release_address(AllocationId=id)
