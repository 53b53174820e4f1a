"""DHCP options through boto3."""

import pytest
from conftest import error_code


@pytest.fixture
def vpc(ec2):
    return ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]


def create(ec2, **options):
    configurations = [{"Key": key.replace("_", "-"), "Values": values} for key, values in options.items()]
    return ec2.create_dhcp_options(DhcpConfigurations=configurations)["DhcpOptions"]


def of_vpc(ec2, vpc):
    return ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["DhcpOptionsId"]


def test_options_are_made_given_to_a_vpc_and_deleted(ec2, vpc):
    made = create(ec2, domain_name=["example.com"], domain_name_servers=["10.1.0.10,AmazonProvidedDNS"])
    id = made["DhcpOptionsId"]
    assert made["DhcpConfigurations"] == [
        {"Key": "domain-name", "Values": [{"Value": "example.com"}]},
        {"Key": "domain-name-servers", "Values": [{"Value": "10.1.0.10"}, {"Value": "AmazonProvidedDNS"}]},
    ]
    assert ec2.describe_dhcp_options(DhcpOptionsIds=[id])["DhcpOptions"] == [made]
    before = of_vpc(ec2, vpc)
    associate = lambda id: error_code(ec2.associate_dhcp_options, DhcpOptionsId=id, VpcId=vpc)
    assert associate(id) is None
    assert of_vpc(ec2, vpc) == id
    delete = lambda id: error_code(ec2.delete_dhcp_options, DhcpOptionsId=id)
    assert delete(id) == "DependencyViolation"
    assert associate("default") is None
    assert of_vpc(ec2, vpc) == "default"
    assert delete(id) is None
    assert delete(id) == "InvalidDhcpOptionID.NotFound"
    assert delete("dopt") == "InvalidDhcpOptionsID.Malformed"
    assert associate(id) == "InvalidDhcpOptionID.NotFound"
    assert associate(before) is None
    # The region's own, which its default VPC has.
    assert delete(before) == "DependencyViolation"


def test_what_no_guest_would_take_is_refused(ec2):
    for options in [
        {"domain_name_servers": ["nonsense"]},
        {"domain_name_servers": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]},
        {"ntp_servers": ["AmazonProvidedDNS"]},
        {"netbios_node_type": ["3"]},
        {"domain_name": ["a", "b"]},
        {"router": ["10.0.0.1"]},
    ]:
        assert error_code(create, ec2=ec2, **options) == "InvalidParameterValue", options
    assert error_code(ec2.create_dhcp_options, DhcpConfigurations=[]) == "MissingParameter"
    twice = [{"Key": "domain-name", "Values": ["a"]}] * 2
    assert error_code(ec2.create_dhcp_options, DhcpConfigurations=twice) == "InvalidParameterValue"


def test_found_by_every_documented_filter(ec2):
    made = create(ec2, domain_name=["filters.example"], netbios_node_type=["2"])
    id = made["DhcpOptionsId"]
    ec2.create_tags(Resources=[id], Tags=[{"Key": "of", "Value": id}])
    for filters in [
        {"dhcp-options-id": id},
        {"key": "netbios-node-type", "value": "2", "tag:of": id},
        {"value": "filters.example", "tag-key": "of", "owner-id": made["OwnerId"]},
    ]:
        filters = [{"Name": name, "Values": [value]} for name, value in filters.items()]
        found = ec2.describe_dhcp_options(Filters=filters)["DhcpOptions"]
        assert [one["DhcpOptionsId"] for one in found] == [id]
