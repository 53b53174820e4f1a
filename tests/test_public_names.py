"""What interfaces are called outside after their addresses, through boto3."""

import ipaddress

import pytest
from conftest import error_code, run, wait

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(number, width=1):
    text = ""
    while number or len(text) < width:
        number, digit = divmod(number, 36)
        text = DIGITS[digit] + text
    return text


def label(ipv6):
    text = base36(int(ipaddress.ip_address(ipv6)), 25)
    return "-".join(text[at : at + 5] for at in range(0, 25, 5))


@pytest.fixture
def vpc(ec2):
    """A VPC of both families with public names and a gateway."""
    made = ec2.create_vpc(CidrBlock="10.61.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=made["VpcId"])
    ec2.modify_vpc_attribute(VpcId=made["VpcId"], EnableDnsHostnames={"Value": True})
    block = ipaddress.ip_network(made["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
    return made["VpcId"], str(next(block.subnets(new_prefix=64)))


def test_a_public_name_is_after_the_addresses_that_it_shall_lead_to(ec2, ami, vpc):
    vpc_id, block = vpc
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    subnet = ec2.create_subnet(
        VpcId=vpc_id, CidrBlock="10.61.1.0/24", Ipv6CidrBlock=block, AvailabilityZone=zone
    )["Subnet"]["SubnetId"]
    nic = {"DeviceIndex": 0, "SubnetId": subnet, "AssociatePublicIpAddress": True, "Ipv6AddressCount": 1}
    (started,) = run(ec2, ami, NetworkInterfaces=[nic])
    wait(ec2, "instance_running", [started["InstanceId"]])
    shown = lambda: ec2.describe_instances(InstanceIds=[started["InstanceId"]])["Reservations"][0]["Instances"][0]
    id = shown()["NetworkInterfaces"][0]["NetworkInterfaceId"]
    interface = lambda: ec2.describe_network_interfaces(NetworkInterfaceIds=[id])["NetworkInterfaces"][0]
    before, public = interface(), shown()["PublicIpAddress"]
    of_ipv6 = label(before["Ipv6Address"])
    of_both = f"{of_ipv6}-{base36(int(ipaddress.ip_address(public)))}"
    names = {
        "public-ipv4-dns-name": f"ec2-{public.replace('.', '-')}.compute-1.amazonaws.com",
        "public-ipv6-dns-name": f"{of_ipv6}.us-east-1.ip.aws",
        "public-dual-stack-dns-name": f"{of_both}.us-east-1.ip.aws",
    }
    assert before["PublicIpDnsNameOptions"] == {
        "DnsHostnameType": "public-ipv4-dns-name",
        "PublicIpv4DnsName": names["public-ipv4-dns-name"],
        "PublicIpv6DnsName": names["public-ipv6-dns-name"],
        "PublicDualStackDnsName": names["public-dual-stack-dns-name"],
    }
    for kind in ["public-dual-stack-dns-name", "public-ipv6-dns-name", "public-ipv4-dns-name"]:
        assert ec2.modify_public_ip_dns_name_options(NetworkInterfaceId=id, HostnameType=kind)["Successful"]
        assert interface()["PublicIpDnsNameOptions"]["DnsHostnameType"] == kind
        assert interface()["PublicDnsName"] == shown()["PublicDnsName"] == names[kind]
        (found,) = ec2.describe_instances(Filters=[{"Name": "dns-name", "Values": [names[kind]]}])["Reservations"]
        assert found["Instances"][0]["InstanceId"] == started["InstanceId"]

    ec2.modify_vpc_attribute(VpcId=vpc_id, EnableDnsHostnames={"Value": False})
    assert "PublicIpDnsNameOptions" not in interface()
    asked = {"NetworkInterfaceId": id, "HostnameType": "public-ipv6-dns-name"}
    assert error_code(ec2.modify_public_ip_dns_name_options, **asked) == "InvalidParameterValue"
    ec2.modify_vpc_attribute(VpcId=vpc_id, EnableDnsHostnames={"Value": True})
    plain = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    for expected, parameters in [
        ("InvalidParameterValue", {"NetworkInterfaceId": plain}),
        ("InvalidParameterValue", {"HostnameType": "public"}),
        ("InvalidNetworkInterfaceID.NotFound", {"NetworkInterfaceId": "eni-0123456789abcdef0"}),
        ("DryRunOperation", {"DryRun": True}),
    ]:
        code = error_code(ec2.modify_public_ip_dns_name_options, **{**asked, **parameters})
        assert code == expected, parameters
    ec2.terminate_instances(InstanceIds=[started["InstanceId"]])
