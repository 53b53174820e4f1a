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


def test_filters_say_what_a_packet_is_where_it_arrives_and_what_it_goes_by(ec2, network):
    ports = {"DestinationPortRange": {"FromPort": 22, "ToPort": 22}}
    make = ec2.create_network_insights_path

    def found(arriving, ins=(), outs=(), **more):
        path = make(Source=network["gateway"], Destination=network["outer"], Protocol="tcp", FilterAtDestination=arriving, **more)
        path = path["NetworkInsightsPath"]
        assert path["FilterAtDestination"] == arriving
        begun = ec2.start_network_insights_analysis(
            NetworkInsightsPathId=path["NetworkInsightsPathId"], FilterInArns=list(ins), FilterOutArns=list(outs)
        )["NetworkInsightsAnalysis"]
        (done,) = ec2.describe_network_insights_analyses(
            NetworkInsightsAnalysisIds=[begun["NetworkInsightsAnalysisId"]]
        )["NetworkInsightsAnalyses"]
        assert (done["FilterInArns"], done["FilterOutArns"]) == (list(ins), list(outs))
        return done

    done = found({**ports, "DestinationAddress": "10.40.1.10"})
    assert done["NetworkPathFound"]
    gateway, acl, group, _ = [one["Component"]["Arn"] for one in done["ForwardPathComponents"]]
    assert not found({**ports, "DestinationAddress": "10.40.1.11"})["NetworkPathFound"]
    assert not found({**ports, "SourceAddress": "203.0.113.9"})["NetworkPathFound"]
    somebody = {"SourceAddress": "203.0.113.9"}
    assert found({**ports, **somebody}, FilterAtSource=somebody)["NetworkPathFound"]
    assert found(ports, ins=[gateway, group])["NetworkPathFound"]
    elsewhere = gateway.replace(network["gateway"], "igw-0123456789abcdef0")
    for ins, outs, expected in [([elsewhere], [], elsewhere), ([], [acl], acl)]:
        (explanation,) = found(ports, ins, outs)["Explanations"]
        assert explanation["ExplanationCode"] == "COMPONENT_FILTER_RESTRICTION"
        assert explanation["Component"]["Arn"] == expected

    of_arn = make(Source=gateway, Destination=network["outer"], Protocol="tcp")["NetworkInsightsPath"]
    assert of_arn["SourceArn"] == gateway
    listed = ec2.describe_network_insights_paths(
        Filters=[{"Name": "filter-at-destination.destination-address", "Values": ["10.40.1.10"]}]
    )["NetworkInsightsPaths"]
    assert [one["FilterAtDestination"]["DestinationAddress"] for one in listed] == ["10.40.1.10"]
    both = {"Source": gateway, "Destination": network["outer"], "Protocol": "tcp", "DestinationPort": 22}
    assert error_code(make, **both, FilterAtSource=ports) == "InvalidParameterCombination"
    both = {"Source": gateway, "DestinationIp": "10.40.1.10", "Protocol": "tcp"}
    assert error_code(make, **both, FilterAtDestination=ports) == "InvalidParameterCombination"
    start = {"NetworkInsightsPathId": of_arn["NetworkInsightsPathId"]}
    assert error_code(ec2.start_network_insights_analysis, **start, FilterInArns=["acl"]) == "InvalidParameterValue"
    others = error_code(ec2.start_network_insights_analysis, **start, AdditionalAccounts=["210987654321"])
    assert others == "UnsupportedOperation"


def test_ways_of_ipv6_and_control_messages_are_followed_too(simulated, ami):
    ec2 = simulated.client()
    vpc = ec2.create_vpc(CidrBlock="10.41.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    block = vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"].replace("/56", "/64")
    vpc = vpc["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.41.1.0/24", Ipv6CidrBlock=block)["Subnet"]["SubnetId"]
    gateway = ec2.create_egress_only_internet_gateway(VpcId=vpc)["EgressOnlyInternetGateway"]
    gateway = gateway["EgressOnlyInternetGatewayId"]
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    ec2.create_route(
        RouteTableId=tables[0]["RouteTableId"], DestinationIpv6CidrBlock="::/0", EgressOnlyInternetGatewayId=gateway
    )
    group = ec2.create_security_group(GroupName="ping", Description="ping only", VpcId=vpc)["GroupId"]
    ping = {"IpProtocol": "icmpv6", "FromPort": -1, "ToPort": -1, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    ping4 = {"IpProtocol": "icmp", "FromPort": 8, "ToPort": 0, "IpRanges": [{"CidrIp": "10.41.0.0/16"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ping, ping4])
    base = block.replace("::/64", "")

    def interface(last):
        made = ec2.create_network_interface(SubnetId=subnet, Groups=[group], PrivateIpAddress=f"10.41.1.{last}")
        id = made["NetworkInterface"]["NetworkInterfaceId"]
        ec2.assign_private_ip_addresses(NetworkInterfaceId=id, Ipv4Prefixes=[f"10.41.1.{last * 16}/28"])
        ec2.assign_ipv6_addresses(NetworkInterfaceId=id, Ipv6Addresses=[f"{base}::{last}"])
        ec2.assign_ipv6_addresses(NetworkInterfaceId=id, Ipv6Prefixes=[f"{base}:{last}::/80"])
        return id

    one, two = interface(5), interface(6)

    def asked(*arguments):
        command = [BINARY, "net", "trace", *arguments, "--data-dir", simulated.data_dir]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode == 0, done.stdout + done.stderr

    for source, destination in [
        (one, two),
        (f"10.41.1.{5 * 16 + 3}", f"10.41.1.{6 * 16 + 3}"),
        (f"{base}::5", f"{base}::6"),
        (f"{base}:5::9", f"{base}:6::9"),
    ]:
        passes, told = asked(source, destination, "--protocol", "icmp")
        assert passes and one in told and two in told, told
    assert asked("-6", one, two, "--protocol", "icmp")[0]
    passes, told = asked("-6", one, "internet")
    assert passes and "egress-only internet gateway" in told
    passes, told = asked("internet", f"{base}::6", "--protocol", "icmp")
    assert not passes and "no internet gateway" in told
    passes, told = asked(one, two, "--protocol", "icmp", "--type", "13")
    assert not passes and "no inbound rule" in told
    passes, told = asked(one, two, "--protocol", "icmp", "--type", "3", "--code", "1")
    assert not passes and "begins nothing" in told
    assert "no inbound rule" in asked(f"{base}::5", f"{base}::6", "--port", "80")[1]


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


def findings_of(ec2, match, exclude=()):
    scope = ec2.create_network_insights_access_scope(MatchPaths=match, ExcludePaths=list(exclude))
    scope = scope["NetworkInsightsAccessScope"]["NetworkInsightsAccessScopeId"]
    begun = ec2.start_network_insights_access_scope_analysis(NetworkInsightsAccessScopeId=scope)
    begun = begun["NetworkInsightsAccessScopeAnalysis"]
    assert begun["Status"] == "running" and "FindingsFound" not in begun
    id = begun["NetworkInsightsAccessScopeAnalysisId"]
    (done,) = ec2.describe_network_insights_access_scope_analyses(NetworkInsightsAccessScopeAnalysisIds=[id])[
        "NetworkInsightsAccessScopeAnalyses"
    ]
    assert done["Status"] == "succeeded" and "WarningMessage" not in done
    found = ec2.get_network_insights_access_scope_analysis_findings(NetworkInsightsAccessScopeAnalysisId=id)
    assert done["FindingsFound"] == ("true" if found["AnalysisFindings"] else "false")
    return id, found["AnalysisFindings"]


def test_a_scope_finds_the_ways_that_it_is_about(ec2, network):
    def types(*names):
        return {"ResourceStatement": {"ResourceTypes": list(names)}}

    def resources(*ids):
        return {"ResourceStatement": {"Resources": list(ids)}}

    def header(**lists):
        return {"PacketHeaderStatement": lists}

    gateway, outer, hidden = network["gateway"], network["outer"], network["hidden"]
    inward = {"Source": types("AWS::EC2::InternetGateway"), "Destination": resources(network["vpc"])}
    id, (finding,) = findings_of(ec2, [inward])
    assert finding["FindingId"] == "AnalysisFinding-1" and finding["NetworkInsightsAccessScopeAnalysisId"] == id
    assert kinds(finding["FindingComponents"]) == ["igw", "acl", "sg", "eni"]
    last = finding["FindingComponents"][-1]["OutboundHeader"]
    assert last["DestinationPortRanges"] == [{"From": 22, "To": 22}] and last["DestinationAddresses"] == ["10.40.1.10/32"]
    by = {"Source": resources(gateway), "Destination": resources(outer)}
    for path, count in [
        (by, 1),
        ({**by, "Destination": resources(hidden)}, 0),
        ({**by, "Destination": resources(network["group"])}, 1),
        ({**by, "Destination": resources(network["inner"])}, 0),
        ({**by, "Destination": {**resources(outer), **header(DestinationPorts=["20-30"], Protocols=["tcp"])}}, 1),
        ({**by, "Destination": {**resources(outer), **header(DestinationPorts=["80"])}}, 0),
        ({**by, "Destination": {**resources(outer), **header(Protocols=["udp"])}}, 0),
        ({**by, "Source": {**resources(gateway), **header(SourceAddresses=["203.0.113.0/24"])}}, 1),
        ({**by, "ThroughResources": [types("AWS::EC2::NatGateway")]}, 0),
        ({**by, "ThroughResources": [types("AWS::EC2::TransitGatewayAttachment")]}, 0),
        # Whatever it lets out, by TCP and by UDP.
        ({"Source": resources(outer), "Destination": types("AWS::EC2::InternetGateway")}, 2),
        ({"Source": resources(outer), "Destination": resources(hidden)}, 1),
    ]:
        assert len(findings_of(ec2, [path])[1]) == count, path
    assert findings_of(ec2, [by], [{"Destination": header(DestinationPorts=["22"])}])[1] == []
    assert len(findings_of(ec2, [by], [{"Source": header(SourceAddresses=["192.0.2.1"])}])[1]) == 0
    assert len(findings_of(ec2, [by, inward])[1]) == 1, "a way is found once"

    both = [{"Source": resources(outer), "Destination": types("AWS::EC2::InternetGateway")}]
    id, (first, second) = findings_of(ec2, both)
    get = ec2.get_network_insights_access_scope_analysis_findings
    page = get(NetworkInsightsAccessScopeAnalysisId=id, MaxResults=1)
    assert page["AnalysisFindings"] == [first]
    page = get(NetworkInsightsAccessScopeAnalysisId=id, MaxResults=1, NextToken=page["NextToken"])
    assert page["AnalysisFindings"] == [second] and "NextToken" not in page
    assert error_code(get, NetworkInsightsAccessScopeAnalysisId=id, NextToken="x") == "InvalidNextToken"


def test_scopes_are_kept_and_deleted(ec2, network):
    path = {
        "Source": {"ResourceStatement": {"ResourceTypes": ["AWS::EC2::NetworkInterface"]}},
        "Destination": {
            "PacketHeaderStatement": {
                "DestinationAddresses": ["10.40.0.0/16"],
                "DestinationPorts": ["22", "1000-2000"],
                "Protocols": ["tcp"],
            },
            "ResourceStatement": {"Resources": [network["outer"]]},
        },
        "ThroughResources": [{"ResourceStatement": {"ResourceTypes": ["AWS::EC2::VPCPeeringConnection"]}}],
    }
    tags = [{"ResourceType": "network-insights-access-scope", "Tags": [{"Key": "of", "Value": "scope"}]}]
    wanted = {"MatchPaths": [path], "ExcludePaths": [path], "TagSpecifications": tags, "ClientToken": "scope"}
    create = ec2.create_network_insights_access_scope
    made = create(**wanted)
    id = made["NetworkInsightsAccessScope"]["NetworkInsightsAccessScopeId"]
    assert create(**wanted)["NetworkInsightsAccessScope"]["NetworkInsightsAccessScopeId"] == id
    content = ec2.get_network_insights_access_scope_content(NetworkInsightsAccessScopeId=id)
    content = content["NetworkInsightsAccessScopeContent"]
    assert content == made["NetworkInsightsAccessScopeContent"]

    def said(one):
        """Without lists that say nothing."""
        if isinstance(one, dict):
            return {name: said(value) for name, value in one.items() if value != []}
        return [said(value) for value in one] if isinstance(one, list) else one

    assert said(content["MatchPaths"]) == [path] and said(content["ExcludePaths"]) == [path]
    tagged = [{"Name": "tag:of", "Values": ["scope"]}]
    listed = ec2.describe_network_insights_access_scopes(Filters=tagged)["NetworkInsightsAccessScopes"]
    assert [one["NetworkInsightsAccessScopeId"] for one in listed] == [id]
    begun = ec2.start_network_insights_access_scope_analysis(NetworkInsightsAccessScopeId=id)
    analysis = begun["NetworkInsightsAccessScopeAnalysis"]["NetworkInsightsAccessScopeAnalysisId"]
    listed = ec2.describe_network_insights_access_scope_analyses(
        NetworkInsightsAccessScopeId=id, Filters=[{"Name": "findings-found", "Values": ["false"]}]
    )["NetworkInsightsAccessScopeAnalyses"]
    assert [one["NetworkInsightsAccessScopeAnalysisId"] for one in listed] == [analysis]
    delete = ec2.delete_network_insights_access_scope
    assert error_code(delete, NetworkInsightsAccessScopeId=id) == "AnalysisExistsForNetworkInsightsAccessScope"
    ec2.delete_network_insights_access_scope_analysis(NetworkInsightsAccessScopeAnalysisId=analysis)
    delete(NetworkInsightsAccessScopeId=id)
    assert error_code(delete, NetworkInsightsAccessScopeId=id) == "InvalidNetworkInsightsAccessScopeId.NotFound"
    ends = path["Source"]
    both = {"ResourceStatement": {**ends["ResourceStatement"], "Resources": [network["outer"]]}}
    for expected, parameters in [
        ("MissingParameter", {}),
        ("DryRunOperation", {"MatchPaths": [{"Source": ends}], "DryRun": True}),
        ("InvalidParameterCombination", {"MatchPaths": [{"Source": both}]}),
        ("InvalidParameterValue", {"MatchPaths": [{"Source": {"ResourceStatement": {"Resources": ["nat-1"]}}}]}),
        ("InvalidParameterValue", {"MatchPaths": [{"Source": {"ResourceStatement": {"ResourceTypes": ["AWS::S3::Bucket"]}}}]}),
        ("InvalidParameterValue", {"MatchPaths": [{"Source": {"PacketHeaderStatement": {"SourcePorts": ["9-1"]}}}]}),
        ("InvalidParameterValue", {"MatchPaths": [{"Source": {"PacketHeaderStatement": {"SourceAddresses": ["::1"]}}}]}),
    ]:
        assert error_code(create, **parameters) == expected, parameters
