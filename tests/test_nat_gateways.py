"""The secondary addresses of NAT gateways, given and taken away while they run, by boto3."""

import pytest
from botocore.config import Config
from conftest import error_code

MISSING = "nat-0123456789abcdef0"


@pytest.fixture
def subnet(ec2):
    """Of a VPC with an internet gateway."""
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    return ec2.create_subnet(VpcId=vpc, CidrBlock="10.20.1.0/24")["Subnet"]["SubnetId"]


def addresses(ec2, id):
    return ec2.describe_nat_gateways(NatGatewayIds=[id])["NatGateways"][0]["NatGatewayAddresses"]


def free(ec2, subnet):
    return ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["AvailableIpAddressCount"]


def test_private_addresses_come_and_go(simulated, subnet):
    # What boto3 would refuse by itself is sent.
    ec2 = simulated.client(config=Config(parameter_validation=False, retries={"max_attempts": 1}))
    made = ec2.create_nat_gateway(SubnetId=subnet, ConnectivityType="private")["NatGateway"]
    id = made["NatGatewayId"]
    before = free(ec2, subnet)
    assign = lambda **asked: ec2.assign_private_nat_gateway_address(NatGatewayId=id, **asked)["NatGatewayAddresses"]
    unassign = lambda *ips, **more: ec2.unassign_private_nat_gateway_address(
        NatGatewayId=id, PrivateIpAddresses=list(ips), **more
    )["NatGatewayAddresses"]
    (one,) = assign(PrivateIpAddresses=["10.20.1.77"])
    assert (one["PrivateIp"], one["Status"], one["IsPrimary"]) == ("10.20.1.77", "assigning", False)
    assert len(assign(PrivateIpAddressCount=6)) == 6 and free(ec2, subnet) == before - 7
    shown = addresses(ec2, id)
    assert {one["Status"] for one in shown} == {"succeeded"} and [one["IsPrimary"] for one in shown] == [True] + [False] * 7
    interface = ec2.describe_network_interfaces(NetworkInterfaceIds=[one["NetworkInterfaceId"]])["NetworkInterfaces"][0]
    assert len(interface["PrivateIpAddresses"]) == 8
    primary = shown[0]["PrivateIp"]
    for code, call in [
        ("PrivateIpAddressLimitExceeded", lambda: assign(PrivateIpAddressCount=1)),
        ("MissingParameter", assign),
        ("InvalidParameterCombination", lambda: assign(PrivateIpAddressCount=1, PrivateIpAddresses=["10.20.1.78"])),
        ("InvalidParameterValue", lambda: assign(PrivateIpAddressCount=0)),
        ("InvalidParameterValue", lambda: assign(PrivateIpAddresses=["10.20.1"])),
        ("InvalidParameterValue", lambda: unassign(primary)),
        ("InvalidParameterValue", lambda: unassign("10.20.1.77", "10.20.1.250")),
        ("InvalidParameterValue", lambda: unassign("10.20.1.77", MaxDrainDurationSeconds=4001)),
    ]:
        assert error_code(call) == code
    assert len(addresses(ec2, id)) == 8, "what is refused changes nothing"
    (gone,) = unassign("10.20.1.77", MaxDrainDurationSeconds=1)
    assert (gone["PrivateIp"], gone["Status"]) == ("10.20.1.77", "unassigning")
    assert "10.20.1.77" not in [one["PrivateIp"] for one in addresses(ec2, id)] and free(ec2, subnet) == before - 6
    assert error_code(lambda: assign(PrivateIpAddresses=["10.20.1.2"])) == "InvalidParameterValue"
    eip = ec2.allocate_address(Domain="vpc")["AllocationId"]
    associate = lambda: ec2.associate_nat_gateway_address(NatGatewayId=id, AllocationIds=[eip])
    assert error_code(associate) == "InvalidParameter"
    ec2.delete_nat_gateway(NatGatewayId=id)
    assert error_code(lambda: assign(PrivateIpAddressCount=1)) == "NatGatewayNotFound"
    assert free(ec2, subnet) == before + 1
    ec2.release_address(AllocationId=eip)


def test_elastic_addresses_come_and_go(ec2, subnet):
    first, second, third = [ec2.allocate_address(Domain="vpc") for _ in range(3)]
    made = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=first["AllocationId"])["NatGateway"]
    id = made["NatGatewayId"]
    associate = lambda *eips, **more: ec2.associate_nat_gateway_address(
        NatGatewayId=id, AllocationIds=[eip["AllocationId"] for eip in eips], **more
    )["NatGatewayAddresses"]
    disassociate = lambda *ids: ec2.disassociate_nat_gateway_address(NatGatewayId=id, AssociationIds=list(ids))[
        "NatGatewayAddresses"
    ]
    (one,) = associate(second, PrivateIpAddresses=["10.20.1.77"])
    assert (one["PublicIp"], one["PrivateIp"]) == (second["PublicIp"], "10.20.1.77")
    assert (one["Status"], one["IsPrimary"]) == ("associating", False)
    shown = addresses(ec2, id)
    assert [one["PublicIp"] for one in shown] == [first["PublicIp"], second["PublicIp"]]
    known = ec2.describe_addresses(AllocationIds=[second["AllocationId"]])["Addresses"][0]
    assert (known["AssociationId"], known["PrivateIpAddress"]) == (one["AssociationId"], "10.20.1.77")
    for code, call in [
        # As many as EC2 gives without asking.
        ("AddressLimitExceeded", lambda: associate(third)),
        ("MissingParameter", associate),
        ("InvalidParameterCombination", lambda: associate(third, third)),
        ("InvalidParameterCombination", lambda: associate(third, PrivateIpAddresses=["10.20.1.78", "10.20.1.79"])),
        ("UnsupportedOperation", lambda: associate(third, AvailabilityZone="us-east-1a")),
        ("InvalidParameterValue", lambda: disassociate(shown[0]["AssociationId"])),
        ("InvalidAssociationID.NotFound", lambda: disassociate("eipassoc-0123456789abcdef0")),
    ]:
        assert error_code(call) == code
    # Nobody takes it away from the gateway.
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    stolen = {"NetworkInterfaceId": interface, "AllocationId": second["AllocationId"]}
    assert error_code(ec2.associate_address, **stolen) == "OperationNotPermitted"
    ec2.delete_network_interface(NetworkInterfaceId=interface)
    (gone,) = disassociate(one["AssociationId"])
    assert (gone["PublicIp"], gone["Status"]) == (second["PublicIp"], "disassociating")
    assert [one["PublicIp"] for one in addresses(ec2, id)] == [first["PublicIp"]]
    ec2.release_address(AllocationId=second["AllocationId"])
    assert error_code(lambda: associate(second)) == "InvalidAllocationID.NotFound"
    assert len(associate(third)) == 1
    two = {"SubnetId": subnet, "AllocationId": first["AllocationId"], "SecondaryAllocationIds": [third["AllocationId"]]}
    assert error_code(ec2.create_nat_gateway, **two) == "Resource.AlreadyAssociated"
    three = {**two, "SecondaryAllocationIds": [third["AllocationId"], "eipalloc-0123456789abcdef0"]}
    assert error_code(ec2.create_nat_gateway, **three) == "AddressLimitExceeded"
    ec2.delete_nat_gateway(NatGatewayId=id)
    for eip in (first, third):
        ec2.release_address(AllocationId=eip["AllocationId"])
    assert error_code(associate, **{}) == "MissingParameter"
    missing = {"NatGatewayId": MISSING, "PrivateIpAddressCount": 1}
    assert error_code(ec2.assign_private_nat_gateway_address, **missing) == "NatGatewayNotFound"
