"""VPC Block Public Access: a region's mode and the exclusions from it, by boto3."""

import pytest
from botocore.config import Config
from conftest import error_code, ready, run

REGION = "eu-central-2"  # nobody else's, since the mode is the whole region's
MISSING = "vpcbpa-exclude-0123456789abcdef0"


@pytest.fixture(scope="module")
def ec2(simulated):
    return simulated.client(region=REGION, config=Config(parameter_validation=False, retries={"max_attempts": 1}))


@pytest.fixture
def network(ec2):
    """A VPC with two subnets."""
    vpc = ec2.create_vpc(CidrBlock="10.60.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=cidr)["Subnet"]["SubnetId"] for cidr in ["10.60.1.0/24", "10.60.2.0/24"]
    ]
    yield vpc, *subnets
    ec2.modify_vpc_block_public_access_options(InternetGatewayBlockMode="off")


def set_mode(ec2, mode):
    made = ec2.modify_vpc_block_public_access_options(InternetGatewayBlockMode=mode)["VpcBlockPublicAccessOptions"]
    assert (made["State"], made["InternetGatewayBlockMode"]) == ("update-in-progress", mode)


def exclude(ec2, mode="allow-bidirectional", **of):
    made = ec2.create_vpc_block_public_access_exclusion(InternetGatewayExclusionMode=mode, **of)
    made = made["VpcBlockPublicAccessExclusion"]
    assert made["State"] == "create-in-progress"
    return made["ExclusionId"]


def exclusions(ec2, *ids, **filters):
    filters = [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in filters.items()]
    found = ec2.describe_vpc_block_public_access_exclusions(ExclusionIds=list(ids), Filters=filters)
    return found["VpcBlockPublicAccessExclusions"]


def modes(ec2, network):
    """Of the VPC, and of each subnet."""
    vpc, *subnets = network
    vpcs = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
    by_id = {one["SubnetId"]: one for one in ec2.describe_subnets(SubnetIds=subnets)["Subnets"]}
    shown = vpcs + [by_id[subnet] for subnet in subnets]
    return [one["BlockPublicAccessStates"]["InternetGatewayBlockMode"] for one in shown]


def test_the_mode_is_the_regions(simulated, ec2, network):
    set_mode(ec2, "block-ingress")
    shown = ec2.describe_vpc_block_public_access_options()["VpcBlockPublicAccessOptions"]
    assert (shown["State"], shown["InternetGatewayBlockMode"]) == ("update-complete", "block-ingress")
    assert (shown["AwsRegion"], shown["ManagedBy"], shown["ExclusionsAllowed"]) == (REGION, "account", "allowed")
    assert shown["AwsAccountId"] and shown["LastUpdateTimestamp"]
    assert modes(ec2, network) == ["block-ingress"] * 3
    other = simulated.client(region="eu-central-1").describe_vpc_block_public_access_options()
    other = other["VpcBlockPublicAccessOptions"]
    assert (other["State"], other["InternetGatewayBlockMode"]) == ("default-state", "off")
    wrong = {"InternetGatewayBlockMode": "block-everything"}
    assert error_code(ec2.modify_vpc_block_public_access_options, **wrong) == "InvalidParameterValue"
    dry = {"DryRun": True, "InternetGatewayBlockMode": "off"}
    assert error_code(ec2.modify_vpc_block_public_access_options, **dry) == "DryRunOperation"


def test_exclusions_leave_more(ec2, network):
    vpc, one, two = network
    set_mode(ec2, "block-bidirectional")
    of_vpc = exclude(ec2, "allow-egress", VpcId=vpc)
    assert modes(ec2, network) == ["block-ingress"] * 3
    of_one = exclude(ec2, SubnetId=one)
    assert modes(ec2, network) == ["block-ingress", "off", "block-ingress"]
    set_mode(ec2, "block-ingress")
    assert modes(ec2, network) == ["block-ingress", "off", "block-ingress"]
    changed = ec2.modify_vpc_block_public_access_exclusion(
        ExclusionId=of_vpc, InternetGatewayExclusionMode="allow-bidirectional"
    )
    assert changed["VpcBlockPublicAccessExclusion"]["State"] == "update-in-progress"
    (shown,) = exclusions(ec2, of_vpc)
    assert (shown["State"], shown["InternetGatewayExclusionMode"]) == ("update-complete", "allow-bidirectional")
    assert shown["LastUpdateTimestamp"] >= shown["CreationTimestamp"]
    assert modes(ec2, network) == ["off"] * 3
    gone = ec2.delete_vpc_block_public_access_exclusion(ExclusionId=of_vpc)["VpcBlockPublicAccessExclusion"]
    assert gone["State"] == "delete-in-progress" and gone["DeletionTimestamp"]
    assert modes(ec2, network) == ["block-ingress", "off", "block-ingress"]
    assert [exclusion["State"] for exclusion in exclusions(ec2, of_vpc)] == ["delete-complete"]
    assert error_code(ec2.delete_vpc_block_public_access_exclusion, ExclusionId=of_vpc) == "InvalidParameterValue"

    # One goes with what it is of; a new one may come in its place.
    again = exclude(ec2, "allow-egress", VpcId=vpc)
    ec2.delete_subnet(SubnetId=one)
    assert [exclusion["State"] for exclusion in exclusions(ec2, of_one)] == ["delete-complete"]
    ec2.delete_subnet(SubnetId=two)
    ec2.delete_vpc(VpcId=vpc)
    assert [exclusion["State"] for exclusion in exclusions(ec2, again)] == ["delete-complete"]


def test_exclusions_are_found_and_tagged(ec2, network):
    vpc, one, _ = network
    kind = "vpc-block-public-access-exclusion"
    tags = [{"ResourceType": kind, "Tags": [{"Key": "for", "Value": "web"}]}]
    id = exclude(ec2, "allow-egress", SubnetId=one, TagSpecifications=tags)
    (shown,) = exclusions(ec2, id)
    assert shown["Tags"] == [{"Key": "for", "Value": "web"}] and shown["ResourceArn"].endswith(f":subnet/{one}")
    of_vpc = exclude(ec2, VpcId=vpc)
    ids = lambda **filters: [found["ExclusionId"] for found in exclusions(ec2, **filters)]
    assert ids(resource_arn=shown["ResourceArn"]) == [id]
    assert id in ids(internet_gateway_exclusion_mode="allow-egress") and of_vpc in ids(state="create-complete")
    assert of_vpc not in ids(tag_key="for")
    ec2.create_tags(Resources=[of_vpc], Tags=[{"Key": "for", "Value": "all"}])
    filters = [{"Name": "resource-type", "Values": [kind]}, {"Name": "resource-id", "Values": [of_vpc]}]
    assert [tag["Value"] for tag in ec2.describe_tags(Filters=filters)["Tags"]] == ["all"]


def test_what_is_refused(cloud_factory):
    cloud = cloud_factory("--simulate", "--quota", "public-access-exclusions=2")
    ec2 = cloud.client(config=Config(parameter_validation=False, retries={"max_attempts": 1}))
    vpc = ec2.create_vpc(CidrBlock="10.60.0.0/16")["Vpc"]["VpcId"]
    one, two = (
        ec2.create_subnet(VpcId=vpc, CidrBlock=cidr)["Subnet"]["SubnetId"] for cidr in ["10.60.1.0/24", "10.60.2.0/24"]
    )
    create = lambda mode="allow-egress", **of: ec2.create_vpc_block_public_access_exclusion(
        InternetGatewayExclusionMode=mode, **of
    )
    modify = lambda id, mode: ec2.modify_vpc_block_public_access_exclusion(
        ExclusionId=id, InternetGatewayExclusionMode=mode
    )
    exclude(ec2, VpcId=vpc)
    for code, call in [
        ("InvalidParameterCombination", lambda: create(VpcId=vpc, SubnetId=one)),
        ("MissingParameter", create),
        ("InvalidParameterValue", lambda: create("allow-all", SubnetId=one)),
        ("InvalidParameterValue", lambda: create(VpcId=vpc)),
        ("InvalidSubnetID.NotFound", lambda: create(SubnetId="subnet-0123456789abcdef0")),
        ("InvalidVpcID.NotFound", lambda: create(VpcId="vpc-0123456789abcdef0")),
        ("InvalidVpcBlockPublicAccessExclusionId.NotFound", lambda: modify(MISSING, "allow-egress")),
        ("InvalidVpcBlockPublicAccessExclusionId.Malformed", lambda: modify("vpcbpa-exclude-1", "allow-egress")),
        ("InvalidParameterValue", lambda: modify(MISSING, "allow-all")),
        ("InvalidVpcBlockPublicAccessExclusionId.NotFound", lambda: exclusions(ec2, MISSING)),
    ]:
        assert error_code(call) == code
    create(SubnetId=one)
    assert error_code(lambda: create(SubnetId=two)) == "ResourceLimitExceeded"


def test_an_analysis_says_that_it_is_blocked(ec2, network):
    vpc, subnet, _ = network
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ami = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    interface = {"DeviceIndex": 0, "SubnetId": subnet, "AssociatePublicIpAddress": True}
    kind = "m6g.medium" if ec2.describe_images(ImageIds=[ami])["Images"][0]["Architecture"] == "arm64" else "t3.micro"
    instance = run(ec2, ami, InstanceType=kind, NetworkInterfaces=[interface])[0]["InstanceId"]
    ready(ec2, "instance_running", InstanceIds=[instance])
    path = ec2.create_network_insights_path(Source=instance, Destination=gateway, Protocol="tcp", DestinationPort=443)
    path = path["NetworkInsightsPath"]["NetworkInsightsPathId"]

    def analyse():
        begun = ec2.start_network_insights_analysis(NetworkInsightsPathId=path)["NetworkInsightsAnalysis"]
        ids = [begun["NetworkInsightsAnalysisId"]]
        (found,) = ec2.describe_network_insights_analyses(NetworkInsightsAnalysisIds=ids)["NetworkInsightsAnalyses"]
        return found

    assert analyse()["NetworkPathFound"]
    set_mode(ec2, "block-ingress")
    found = analyse()
    assert not found["NetworkPathFound"]
    (why,) = found["Explanations"]
    assert why["ExplanationCode"] == "VPC_BLOCK_PUBLIC_ACCESS_ENABLED" and why["Subnet"]["Id"] == subnet
    exclude(ec2, SubnetId=subnet)
    assert analyse()["NetworkPathFound"]
