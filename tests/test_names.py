"""What instances are called inside and outside their VPC."""

import pytest
from conftest import error_code, run, wait


@pytest.fixture
def subnet(ec2):
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.0.0/24")["Subnet"]
    ec2.modify_subnet_attribute(SubnetId=subnet["SubnetId"], MapPublicIpOnLaunch={"Value": True})
    return subnet


def described(ec2, instance):
    return ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


def test_public_names_are_given_where_the_vpc_says_so(ec2, ami, subnet):
    id = run(ec2, ami, SubnetId=subnet["SubnetId"])[0]["InstanceId"]
    wait(ec2, "instance_running", [id])
    without = described(ec2, id)
    assert without["PublicIpAddress"] and without["PublicDnsName"] == ""
    assert without["PrivateDnsName"] == f"ip-{without['PrivateIpAddress'].replace('.', '-')}.ec2.internal"
    ec2.modify_vpc_attribute(VpcId=subnet["VpcId"], EnableDnsHostnames={"Value": True})
    name = described(ec2, id)["PublicDnsName"]
    assert name == f"ec2-{without['PublicIpAddress'].replace('.', '-')}.compute-1.amazonaws.com"
    association = described(ec2, id)["NetworkInterfaces"][0]["Association"]
    assert association["PublicDnsName"] == name
    filters = [{"Name": "dns-name", "Values": [name]}]
    (found,) = ec2.describe_instances(Filters=filters)["Reservations"]
    assert found["Instances"][0]["InstanceId"] == id
    ec2.terminate_instances(InstanceIds=[id])


def test_an_instance_may_be_named_after_itself(ec2, ami, subnet):
    modify = lambda **attribute: ec2.modify_subnet_attribute(SubnetId=subnet["SubnetId"], **attribute)
    modify(PrivateDnsHostnameTypeOnLaunch="resource-name")
    modify(EnableResourceNameDnsARecordOnLaunch={"Value": True})
    by_subnet = run(ec2, ami, SubnetId=subnet["SubnetId"])[0]
    id = by_subnet["InstanceId"]
    options = {"HostnameType": "resource-name", "EnableResourceNameDnsARecord": True}
    assert by_subnet["PrivateDnsNameOptions"] == {**options, "EnableResourceNameDnsAAAARecord": False}
    assert by_subnet["PrivateDnsName"] == f"{id}.ec2.internal"
    own = run(ec2, ami, SubnetId=subnet["SubnetId"], PrivateDnsNameOptions={"HostnameType": "ip-name"})[0]
    assert own["PrivateDnsName"].startswith("ip-10-1-0-")
    assert own["PrivateDnsNameOptions"]["EnableResourceNameDnsARecord"]
    for name, value in {
        "private-dns-name": f"{id}.ec2.internal",
        "private-dns-name-options.hostname-type": "resource-name",
    }.items():
        filters = [{"Name": "subnet-id", "Values": [subnet["SubnetId"]]}, {"Name": name, "Values": [value]}]
        (found,) = ec2.describe_instances(Filters=filters)["Reservations"]
        assert found["Instances"][0]["InstanceId"] == id
    change = lambda **options: error_code(ec2.modify_private_dns_name_options, InstanceId=id, **options)
    assert change(EnableResourceNameDnsARecord=False) is None
    assert not described(ec2, id)["PrivateDnsNameOptions"]["EnableResourceNameDnsARecord"]
    # A guest learns its name when it starts.
    wait(ec2, "instance_running", [id])
    assert change(PrivateDnsHostnameType="ip-name") == "IncorrectInstanceState"
    assert change(PrivateDnsHostnameType="by-colour") == "InvalidParameterValue"
    ec2.stop_instances(InstanceIds=[id])
    wait(ec2, "instance_stopped", [id])
    assert change(PrivateDnsHostnameType="ip-name") is None
    assert described(ec2, id)["PrivateDnsName"].startswith("ip-10-1-0-")
    ec2.terminate_instances(InstanceIds=[id, own["InstanceId"]])
    missing = error_code(ec2.modify_private_dns_name_options, InstanceId="i-0123456789abcdef0")
    assert missing == "InvalidInstanceID.NotFound"
