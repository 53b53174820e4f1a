"""What a cloud has before anything is made in it: instance types, regions, zones, the default VPC, the caller."""

import pytest
from conftest import error_code


def names(pages):
    return [info["InstanceType"] for page in pages for info in page["InstanceTypes"]]


def filtered(*wanted):
    return [{"Name": name, "Values": list(values)} for name, *values in wanted]


def test_an_instance_type_as_aws_describes_it(ec2):
    (micro,) = ec2.describe_instance_types(InstanceTypes=["t3.micro"])["InstanceTypes"]
    assert micro["VCpuInfo"]["DefaultVCpus"] == 2
    assert micro["MemoryInfo"]["SizeInMiB"] == 1024
    assert micro["ProcessorInfo"]["SupportedArchitectures"] == ["x86_64"]
    assert micro["BurstablePerformanceSupported"] is True
    assert micro["NetworkInfo"]["MaximumNetworkInterfaces"] == 2


def test_instance_types_are_filtered(ec2):
    paginator = ec2.get_paginator("describe_instance_types")
    found = names(paginator.paginate(Filters=filtered(("instance-type", "t3.*", "t3a.*"))))
    assert "t3.micro" in found and "t3a.micro" in found and "t4g.micro" not in found
    arm = names(paginator.paginate(Filters=filtered(("processor-info.supported-architecture", "arm64"))))
    assert "t4g.micro" in arm and "t3.micro" not in arm
    small = filtered(("vcpu-info.default-vcpus", "2"), ("memory-info.size-in-mib", "1024"), ("bare-metal", "false"))
    assert {"t3.micro", "t4g.micro"} <= set(names(paginator.paginate(Filters=small)))
    old = names(paginator.paginate(Filters=filtered(("current-generation", "false"))))
    assert "m1.small" in old and "t3.micro" not in old


def test_instance_types_come_in_pages_of_a_hundred(ec2):
    pages = list(ec2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 100}))
    found = names(pages)
    assert len(found) == len(set(found)) > 800
    assert all(len(page["InstanceTypes"]) == 100 for page in pages[:-1])


@pytest.mark.parametrize(
    "parameters, code",
    [
        ({"InstanceTypes": ["t9.colossal"]}, "InvalidInstanceType"),
        ({"InstanceTypes": ["t3.micro"], "MaxResults": 5}, "InvalidParameterCombination"),
        ({"InstanceTypes": ["t3.micro"] * 101}, "InvalidParameterValue"),
        ({"NextToken": "nonsense"}, "InvalidNextToken"),
        ({"Filters": filtered(("colour", "red"))}, "InvalidParameterValue"),
    ],
)
def test_what_is_no_question_about_types_is_refused(ec2, parameters, code):
    assert error_code(ec2.describe_instance_types, **parameters) == code


def test_offerings(ec2):
    zones = {zone["ZoneName"]: zone["ZoneId"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]}

    def offered(**parameters):
        wanted = filtered(("instance-type", "t3.micro"))
        answer = ec2.describe_instance_type_offerings(Filters=wanted, **parameters)
        assert all(one["InstanceType"] == "t3.micro" for one in answer["InstanceTypeOfferings"])
        return {one["Location"] for one in answer["InstanceTypeOfferings"]}

    assert offered() == offered(LocationType="region") == {"us-east-1"}
    assert offered(LocationType="availability-zone") == set(zones)
    assert offered(LocationType="availability-zone-id") == set(zones.values())
    zone = min(zones)
    wanted = filtered(("location", zone), ("instance-type", "t3.*"))
    found = ec2.describe_instance_type_offerings(LocationType="availability-zone", Filters=wanted)
    assert {one["Location"] for one in found["InstanceTypeOfferings"]} == {zone}
    unknown = filtered(("colour", "red"))
    assert error_code(ec2.describe_instance_type_offerings, Filters=unknown) == "InvalidParameterValue"
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(PaginationConfig={"PageSize": 300})
    sizes = [len(page["InstanceTypeOfferings"]) for page in pages]
    assert set(sizes[:-1]) == {300} and sum(sizes) > 800


def test_regions(ec2):
    regions = {one["RegionName"]: one for one in ec2.describe_regions()["Regions"]}
    assert {"us-east-1", "eu-central-1", "ap-southeast-2"} <= set(regions)
    assert regions["eu-west-1"]["Endpoint"] == "ec2.eu-west-1.amazonaws.com"
    assert regions["us-east-1"]["OptInStatus"] == "opt-in-not-required"
    (one,) = ec2.describe_regions(RegionNames=["eu-west-1"])["Regions"]
    assert one["RegionName"] == "eu-west-1"
    european = ec2.describe_regions(Filters=filtered(("region-name", "eu-*")))["Regions"]
    assert european and all(one["RegionName"].startswith("eu-") for one in european)
    assert error_code(ec2.describe_regions, RegionNames=["xx-nowhere-1"]) == "InvalidParameterValue"


def test_zones(simulated, ec2):
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert [zone["ZoneName"] for zone in zones][0] == "us-east-1a"
    for zone in zones:
        assert zone["ZoneId"].startswith("use1-az") and zone["State"] == "available"
        assert (zone["ZoneType"], zone["RegionName"]) == ("availability-zone", "us-east-1")
    first = zones[0]
    by_id = ec2.describe_availability_zones(ZoneIds=[first["ZoneId"]])["AvailabilityZones"]
    by_filter = ec2.describe_availability_zones(Filters=filtered(("zone-name", first["ZoneName"]), ("state", "available")))
    assert by_id == by_filter["AvailabilityZones"] == [first]
    assert error_code(ec2.describe_availability_zones, ZoneNames=["us-east-1z"]) == "InvalidParameterValue"
    there = simulated.client(region="eu-central-1").describe_availability_zones()["AvailabilityZones"]
    assert there[0]["ZoneId"].startswith("euc1-az")


def test_account_attributes(ec2, vpc):
    attributes = {
        one["AttributeName"]: [value["AttributeValue"] for value in one["AttributeValues"]]
        for one in ec2.describe_account_attributes()["AccountAttributes"]
    }
    assert attributes["supported-platforms"] == ["VPC"]
    assert attributes["default-vpc"] == [vpc["VpcId"]]
    (one,) = ec2.describe_account_attributes(AttributeNames=["default-vpc"])["AccountAttributes"]
    assert one["AttributeName"] == "default-vpc"


@pytest.fixture
def vpc(ec2):
    (vpc,) = ec2.describe_vpcs(Filters=filtered(("is-default", "true")))["Vpcs"]
    return vpc


def test_the_default_vpc_is_as_aws_makes_it(ec2, vpc):
    assert (vpc["CidrBlock"], vpc["IsDefault"], vpc["State"]) == ("172.31.0.0/16", True, "available")
    for attribute, answer in [("enableDnsSupport", "EnableDnsSupport"), ("enableDnsHostnames", "EnableDnsHostnames")]:
        described = ec2.describe_vpc_attribute(VpcId=vpc["VpcId"], Attribute=attribute)
        assert described[answer] == {"Value": True}
    inside = filtered(("vpc-id", vpc["VpcId"]))
    subnets = ec2.describe_subnets(Filters=inside)["Subnets"]
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert sorted(one["AvailabilityZone"] for one in subnets) == sorted(zone["ZoneName"] for zone in zones)
    for subnet in subnets:
        assert subnet["DefaultForAz"] and subnet["MapPublicIpOnLaunch"] and subnet["CidrBlock"].endswith("/20")
    (table,) = ec2.describe_route_tables(Filters=inside)["RouteTables"]
    assert table["Associations"][0]["Main"] is True
    routes = {route["DestinationCidrBlock"]: route["GatewayId"] for route in table["Routes"]}
    (gateway,) = ec2.describe_internet_gateways(Filters=filtered(("attachment.vpc-id", vpc["VpcId"])))["InternetGateways"]
    assert routes == {"172.31.0.0/16": "local", "0.0.0.0/0": gateway["InternetGatewayId"]}
    (acl,) = ec2.describe_network_acls(Filters=inside)["NetworkAcls"]
    assert acl["IsDefault"] and len(acl["Associations"]) == len(subnets)
    (options,) = ec2.describe_dhcp_options(DhcpOptionsIds=[vpc["DhcpOptionsId"]])["DhcpOptions"]
    servers = {one["Key"]: [value["Value"] for value in one["Values"]] for one in options["DhcpConfigurations"]}
    assert servers["domain-name-servers"] == ["AmazonProvidedDNS"]
    assert error_code(ec2.describe_vpcs, VpcIds=["vpc-0123456789abcdef0"]) == "InvalidVpcID.NotFound"
    assert error_code(ec2.describe_subnets, SubnetIds=["subnet-1"]) == "InvalidSubnetID.Malformed"
    assert error_code(ec2.describe_subnets, Filters=filtered(("colour", "red"))) == "InvalidParameterValue"


def test_who_the_caller_is(simulated):
    identity = simulated.client("sts").get_caller_identity()
    assert identity["Arn"] == f"arn:aws:iam::{identity['Account']}:root"
    assert identity["UserId"] == identity["Account"] and len(identity["Account"]) == 12
    elsewhere = simulated.client("sts", region="eu-west-1").get_caller_identity()
    assert elsewhere["Account"] == identity["Account"]
    wrong = simulated.client("sts", aws_secret_access_key="x" * 40)
    assert error_code(wrong.get_caller_identity) == "SignatureDoesNotMatch"
    unknown = simulated.client("sts", aws_access_key_id="AKIAAAAAAAAAAAAAAAAA")
    assert error_code(unknown.get_caller_identity) == "InvalidClientTokenId"
