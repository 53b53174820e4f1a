"""Internet gateways through boto3."""

import pytest
from conftest import error_code, run, wait

MISSING = "igw-0123456789abcdef0"


@pytest.fixture
def vpc(ec2):
    return ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]


@pytest.fixture
def gateway(ec2):
    return ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]


def test_a_gateway_is_of_one_vpc_and_a_vpc_has_one(ec2, vpc, gateway):
    tags = [{"ResourceType": "internet-gateway", "Tags": [{"Key": "a", "Value": "b"}]}]
    second = ec2.create_internet_gateway(TagSpecifications=tags)["InternetGateway"]
    assert second["Attachments"] == [] and second["Tags"] == [{"Key": "a", "Value": "b"}]
    attach = lambda gateway, vpc: error_code(ec2.attach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc)
    assert attach(gateway, vpc) is None
    assert attach(gateway, vpc) == "Resource.AlreadyAssociated"
    assert attach(second["InternetGatewayId"], vpc) == "InvalidParameterValue"
    assert attach(MISSING, vpc) == "InvalidInternetGatewayID.NotFound"
    assert attach(second["InternetGatewayId"], "vpc-0123456789abcdef0") == "InvalidVpcID.NotFound"
    for filters in [
        {"attachment.vpc-id": vpc, "attachment.state": "available"},
        {"internet-gateway-id": gateway, "owner-id": second["OwnerId"]},
    ]:
        filters = [{"Name": name, "Values": [value]} for name, value in filters.items()]
        (found,) = ec2.describe_internet_gateways(Filters=filters)["InternetGateways"]
        assert found["Attachments"] == [{"State": "available", "VpcId": vpc}]
    delete = lambda gateway: error_code(ec2.delete_internet_gateway, InternetGatewayId=gateway)
    assert delete(gateway) == "DependencyViolation"
    assert error_code(ec2.delete_vpc, VpcId=vpc) == "DependencyViolation"
    detach = lambda gateway: error_code(ec2.detach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc)
    assert detach(second["InternetGatewayId"]) == "Gateway.NotAttached"
    assert detach(gateway) is None
    assert detach(gateway) == "Gateway.NotAttached"
    assert attach(second["InternetGatewayId"], vpc) is None
    assert delete(gateway) is None
    assert delete(gateway) == "InvalidInternetGatewayID.NotFound"


def test_a_gateway_stays_while_addresses_are_mapped(ec2, vpc, gateway, ami):
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.0.0/24")["Subnet"]["SubnetId"]
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    (instance,) = run(ec2, ami, SubnetId=subnet)
    detach = lambda: error_code(ec2.detach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc)
    assert detach() == "DependencyViolation"
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    wait(ec2, "instance_terminated", [instance["InstanceId"]])
    assert detach() is None
