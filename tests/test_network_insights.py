"""Why packets pass or not: network insights by boto3, and the command that draws them."""

import subprocess

import pytest
from conftest import BINARY, error_code, run, wait


@pytest.fixture(scope="module")
def network(simulated, ami):
    """Two subnets with an instance each, one with a way out."""
    ec2 = simulated.client()
    vpc = ec2.create_vpc(CidrBlock="10.40.0.0/16")["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    public, inner = (
        ec2.create_subnet(VpcId=vpc, CidrBlock=cidr)["Subnet"]["SubnetId"] for cidr in ["10.40.1.0/24", "10.40.2.0/24"]
    )
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=public)
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    group = ec2.create_security_group(GroupName="ssh", Description="ssh only", VpcId=vpc)["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh])

    def launch(subnet, by_name, address):
        interface = {"DeviceIndex": 0, "SubnetId": subnet, "Groups": [group], "AssociatePublicIpAddress": by_name}
        interface["PrivateIpAddress"] = address
        return run(ec2, ami, NetworkInterfaces=[interface])[0]["InstanceId"]

    outer, hidden = launch(public, True, "10.40.1.10"), launch(inner, False, "10.40.2.10")
    wait(ec2, "instance_running", [outer, hidden])
    return {"vpc": vpc, "gateway": gateway, "group": group, "outer": outer, "hidden": hidden, "inner": inner, "table": table}


def analyse(ec2, source, destination=None, port=22, **more):
    if destination:
        more["Destination"] = destination
    path = ec2.create_network_insights_path(Source=source, Protocol="tcp", DestinationPort=port, **more)
    path = path["NetworkInsightsPath"]["NetworkInsightsPathId"]
    begun = ec2.start_network_insights_analysis(NetworkInsightsPathId=path)["NetworkInsightsAnalysis"]
    assert begun["Status"] == "running" and "NetworkPathFound" not in begun
    ids = [begun["NetworkInsightsAnalysisId"]]
    (found,) = ec2.describe_network_insights_analyses(NetworkInsightsAnalysisIds=ids)["NetworkInsightsAnalyses"]
    assert found["Status"] == "succeeded" and found["NetworkInsightsPathId"] == path
    return found


def kinds(components):
    return [one["Component"]["Id"].split("-")[0] for one in components]


def test_a_path_is_shown_there_and_back(ec2, network):
    found = analyse(ec2, network["gateway"], network["outer"])
    assert found["NetworkPathFound"] and found["Explanations"] == []
    there, back = found["ForwardPathComponents"], found["ReturnPathComponents"]
    assert kinds(there) == ["igw", "acl", "sg", "eni"] and kinds(back) == ["eni", "acl", "rtb", "igw"]
    assert [one["SequenceNumber"] for one in there] == [1, 2, 3, 4]
    rule = there[2]["SecurityGroupRule"]
    assert (rule["Direction"], rule["Protocol"], rule["Cidr"]) == ("ingress", "6", "0.0.0.0/0")
    assert rule["PortRange"] == {"From": 22, "To": 22}
    assert there[1]["AclRule"]["RuleAction"] == "allow" and there[1]["AclRule"]["Egress"] is False
    assert back[2]["RouteTableRoute"]["DestinationCidr"] == "0.0.0.0/0"
    assert there[0]["Component"]["Arn"].endswith(f":internet-gateway/{network['gateway']}")
    within = analyse(ec2, network["outer"], network["hidden"])
    assert within["NetworkPathFound"]
    assert kinds(within["ForwardPathComponents"]) == ["eni", "sg", "acl", "rtb", "acl", "sg", "eni"]


def test_what_stands_in_the_way_is_explained(ec2, network):
    def explained(*ends, **more):
        found = analyse(ec2, *ends, **more)
        assert found["NetworkPathFound"] is False
        (explanation,) = found["Explanations"]
        return explanation

    refused = explained(network["outer"], network["hidden"], port=80)
    assert refused["ExplanationCode"] == "ENI_SG_RULES_MISMATCH" and refused["Direction"] == "ingress"
    assert [group["Id"] for group in refused["SecurityGroups"]] == [network["group"]]
    stranded = explained(network["hidden"], network["gateway"])
    assert stranded["ExplanationCode"] == "NO_ROUTE_TO_DESTINATION" and stranded["RouteTable"]["Id"].startswith("rtb-")
    nobody = explained(network["outer"], DestinationIp="10.40.2.77")
    assert nobody["ExplanationCode"] == "NO_POSSIBLE_DESTINATION"
    nameless = explained(network["gateway"], network["hidden"])
    assert nameless["ExplanationCode"] == "NO_POSSIBLE_DESTINATION"
    acl = ec2.create_network_acl(VpcId=network["vpc"])["NetworkAcl"]["NetworkAclId"]
    (before,) = ec2.describe_network_acls(Filters=[{"Name": "association.subnet-id", "Values": [network["inner"]]}])["NetworkAcls"]
    (association,) = [one for one in before["Associations"] if one["SubnetId"] == network["inner"]]
    swap = ec2.replace_network_acl_association
    new = swap(AssociationId=association["NetworkAclAssociationId"], NetworkAclId=acl)["NewAssociationId"]
    denied = explained(network["outer"], network["hidden"])
    assert denied["ExplanationCode"] == "SUBNET_ACL_RESTRICTION" and denied["Acl"]["Id"] == acl
    assert denied["Subnet"]["Id"] == network["inner"]
    swap(AssociationId=new, NetworkAclId=before["NetworkAclId"])
    ec2.delete_network_acl(NetworkAclId=acl)


def test_paths_and_analyses_are_kept_and_deleted(ec2, network):
    tags = [{"ResourceType": "network-insights-path", "Tags": [{"Key": "of", "Value": "kept"}]}]
    wanted = {
        "Source": network["outer"],
        "Destination": network["hidden"],
        "Protocol": "tcp",
        "FilterAtSource": {"DestinationPortRange": {"FromPort": 22, "ToPort": 22}},
        "TagSpecifications": tags,
        "ClientToken": "kept",
    }
    made = ec2.create_network_insights_path(**wanted)["NetworkInsightsPath"]
    id = made["NetworkInsightsPathId"]
    assert ec2.create_network_insights_path(**wanted)["NetworkInsightsPath"]["NetworkInsightsPathId"] == id
    assert made["FilterAtSource"]["DestinationPortRange"] == {"FromPort": 22, "ToPort": 22} and "DestinationPort" not in made
    for name, value in [
        ("source", network["outer"]),
        ("destination", network["hidden"]),
        ("protocol", "tcp"),
        ("tag:of", "kept"),
        ("filter-at-source.destination-port-range.from-port", "22"),
    ]:
        found = ec2.describe_network_insights_paths(Filters=[{"Name": name, "Values": [value]}])["NetworkInsightsPaths"]
        assert id in [path["NetworkInsightsPathId"] for path in found], name
    begun = ec2.start_network_insights_analysis(NetworkInsightsPathId=id)["NetworkInsightsAnalysis"]
    analysis = begun["NetworkInsightsAnalysisId"]
    found = ec2.describe_network_insights_analyses(
        NetworkInsightsPathId=id, Filters=[{"Name": "path-found", "Values": ["true"]}]
    )["NetworkInsightsAnalyses"]
    assert [one["NetworkInsightsAnalysisId"] for one in found] == [analysis]
    delete = ec2.delete_network_insights_path
    assert error_code(delete, NetworkInsightsPathId=id) == "AnalysisExistsForNetworkInsightsPath"
    ec2.delete_network_insights_analysis(NetworkInsightsAnalysisId=analysis)
    delete(NetworkInsightsPathId=id)
    assert error_code(delete, NetworkInsightsPathId=id) == "InvalidNetworkInsightsPathId.NotFound"
    create = {"Protocol": "tcp", "Destination": network["hidden"]}
    for expected, parameters in [
        ("InvalidInstanceID.NotFound", {"Source": "i-0123456789abcdef0"}),
        ("InvalidParameterValue", {"Source": "somewhere"}),
        ("InvalidParameterValue", {"Source": network["outer"], "Protocol": "icmp"}),
        ("InvalidParameterValue", {"Source": network["outer"], "DestinationIp": "ten"}),
        ("DryRunOperation", {"Source": network["outer"], "DryRun": True}),
    ]:
        assert error_code(ec2.create_network_insights_path, **{**create, **parameters}) == expected, parameters


def test_the_commands_draw_a_vpc_and_a_way(simulated, ec2, network):
    drawn = simulated.command("net", "show", network["vpc"]).stdout
    assert drawn.splitlines()[0] == f"{network['vpc']} 10.40.0.0/16"
    assert f"├─ {network['gateway']} internet gateway" in drawn and f"0.0.0.0/0 by {network['gateway']}" in drawn
    (inner,) = [line for line in drawn.splitlines() if network["hidden"] in line]
    assert "in ssh" in inner and "10.40.2." in inner
    told = simulated.command("net", "trace", "internet", network["outer"], "--port", "22").stdout
    assert told.splitlines()[-1] == "It passes." and f"{network['group']} allows tcp 22 0.0.0.0/0" in told

    def refused(*arguments):
        command = [BINARY, "net", "trace", *arguments, "--data-dir", simulated.data_dir]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode != 0
        return done.stdout + done.stderr

    assert "no inbound rule of the security groups" in refused("internet", network["outer"], "--port", "80")
    assert "has no route to" in refused(network["hidden"], "internet")
    assert "does not exist" in refused("i-0123456789abcdef0", "internet")
    assert "must be the id of" in refused("somewhere", "internet")
    assert "is not tcp, udp or icmp" in refused(network["outer"], "internet", "--protocol", "gre")
