"""Network interfaces, by boto3."""

import pytest
from conftest import error_code, run, wait


@pytest.fixture
def network(ec2):
    """A VPC with a subnet of its own."""
    vpc = ec2.create_vpc(CidrBlock="10.30.0.0/16")["Vpc"]["VpcId"]
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.30.1.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
    return vpc, subnet


def create(ec2, subnet, **parameters):
    return ec2.create_network_interface(SubnetId=subnet, **parameters)["NetworkInterface"]


def one(ec2, interface_id):
    return ec2.describe_network_interfaces(NetworkInterfaceIds=[interface_id])["NetworkInterfaces"][0]


def free(ec2, subnet):
    return ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["AvailableIpAddressCount"]


def addresses(shown):
    return [own["PrivateIpAddress"] for own in shown["PrivateIpAddresses"]]



def test_an_interface_has_what_it_was_made_with(ec2, network):
    vpc, subnet = network
    before = free(ec2, subnet)
    tags = [{"ResourceType": "network-interface", "Tags": [{"Key": "Name", "Value": "side"}]}]
    group = ec2.create_security_group(GroupName="side", Description="of an interface", VpcId=vpc)["GroupId"]
    made = create(
        ec2,
        subnet,
        Description="a side door",
        Groups=[group],
        PrivateIpAddress="10.30.1.20",
        SecondaryPrivateIpAddressCount=2,
        Ipv4PrefixCount=1,
        TagSpecifications=tags,
        ClientToken="once",
    )
    assert made["Status"] == "pending" and made["PrivateIpAddress"] == "10.30.1.20"
    id = made["NetworkInterfaceId"]
    same = create(
        ec2,
        subnet,
        Description="a side door",
        Groups=[group],
        PrivateIpAddress="10.30.1.20",
        SecondaryPrivateIpAddressCount=2,
        Ipv4PrefixCount=1,
        TagSpecifications=tags,
        ClientToken="once",
    )
    assert same["NetworkInterfaceId"] == id
    code = error_code(ec2.create_network_interface, SubnetId=subnet, Description="another", ClientToken="once")
    assert code == "IdempotentParameterMismatch"
    shown = one(ec2, id)
    assert (shown["Status"], shown["Description"], shown["VpcId"]) == ("available", "a side door", vpc)
    assert shown["TagSet"] == tags[0]["Tags"] and [group["GroupId"] for group in shown["Groups"]] == [group]
    assert len(addresses(shown)) == 3 and addresses(shown)[0] == "10.30.1.20"
    assert [own["Primary"] for own in shown["PrivateIpAddresses"]] == [True, False, False]
    [prefix] = [one["Ipv4Prefix"] for one in shown["Ipv4Prefixes"]]
    assert prefix.startswith("10.30.1.") and prefix.endswith("/28")
    assert shown["MacAddress"] == made["MacAddress"] and shown["InterfaceType"] == "interface"
    assert free(ec2, subnet) == before - 3 - 16
    for name, value in [
        ("description", "a side*"),
        ("subnet-id", subnet),
        ("mac-address", made["MacAddress"]),
        ("addresses.private-ip-address", addresses(shown)[2]),
        ("status", "available"),
        ("group-name", "side"),
        ("tag:Name", "side"),
    ]:
        found = ec2.describe_network_interfaces(Filters=[{"Name": name, "Values": [value]}])["NetworkInterfaces"]
        assert id in [shown["NetworkInterfaceId"] for shown in found], name
    assert error_code(ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    assert error_code(ec2.delete_subnet, SubnetId=subnet) == "DependencyViolation"
    ec2.delete_network_interface(NetworkInterfaceId=id)
    assert error_code(ec2.delete_network_interface, NetworkInterfaceId=id) == "InvalidNetworkInterfaceID.NotFound"
    assert free(ec2, subnet) == before
    ec2.delete_security_group(GroupId=group)


def test_bad_requests_for_interfaces(ec2, network):
    _, subnet = network
    create_one = ec2.create_network_interface
    other = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["default"]}])["SecurityGroups"]
    elsewhere = [group["GroupId"] for group in other if group["VpcId"] != network[0]][0]
    for expected, parameters in [
        ("InvalidSubnetID.NotFound", {"SubnetId": "subnet-0123456789abcdef0"}),
        ("InvalidParameterValue", {"PrivateIpAddress": "10.31.0.9"}),
        ("InvalidParameterValue", {"PrivateIpAddress": "10.30.1.3"}),
        ("InvalidParameterValue", {"PrivateIpAddress": "ten"}),
        ("InvalidParameterValue", {"SecondaryPrivateIpAddressCount": 51}),
        ("PrivateIpAddressLimitExceeded", {"SecondaryPrivateIpAddressCount": 50}),
        ("InvalidParameterValue", {"Ipv4Prefixes": [{"Ipv4Prefix": "10.30.1.8/28"}]}),
        ("InvalidParameterValue", {"Ipv4Prefixes": [{"Ipv4Prefix": "10.30.1.0/28"}]}),
        ("InvalidParameter", {"Groups": [elsewhere]}),
        ("InvalidGroup.NotFound", {"Groups": ["sg-0123456789abcdef0"]}),
        ("DryRunOperation", {"DryRun": True}),
        (
            "InvalidParameterCombination",
            {
                "PrivateIpAddress": "10.30.1.20",
                "PrivateIpAddresses": [{"PrivateIpAddress": "10.30.1.21", "Primary": True}],
            },
        ),
    ]:
        assert error_code(create_one, **{"SubnetId": subnet, **parameters}) == expected, parameters
    taken = create(ec2, subnet)
    assert error_code(create_one, SubnetId=subnet, PrivateIpAddress=taken["PrivateIpAddress"]) == "InvalidIPAddress.InUse"
    ec2.delete_network_interface(NetworkInterfaceId=taken["NetworkInterfaceId"])


def test_addresses_come_go_and_move_to_another_interface(ec2, network):
    _, subnet = network
    one_id = create(ec2, subnet)["NetworkInterfaceId"]
    other_id = create(ec2, subnet)["NetworkInterfaceId"]
    given = ec2.assign_private_ip_addresses(NetworkInterfaceId=one_id, SecondaryPrivateIpAddressCount=2)
    given = [own["PrivateIpAddress"] for own in given["AssignedPrivateIpAddresses"]]
    assert addresses(one(ec2, one_id))[1:] == given
    primary = addresses(one(ec2, one_id))[0]
    assign, unassign = ec2.assign_private_ip_addresses, ec2.unassign_private_ip_addresses
    wanted = {"NetworkInterfaceId": other_id, "PrivateIpAddresses": [given[0]]}
    assert error_code(assign, **wanted) == "InvalidIPAddress.InUse"
    assign(**wanted, AllowReassignment=True)
    assert addresses(one(ec2, one_id))[1:] == given[1:] and addresses(one(ec2, other_id))[1:] == given[:1]
    # The primary one stays where it is.
    wanted["PrivateIpAddresses"] = [primary]
    assert error_code(assign, **wanted, AllowReassignment=True) == "InvalidParameterValue"
    assert error_code(unassign, NetworkInterfaceId=one_id, PrivateIpAddresses=[primary]) == "InvalidParameterValue"
    assert error_code(unassign, NetworkInterfaceId=one_id, PrivateIpAddresses=given) == "InvalidParameterValue"
    unassign(NetworkInterfaceId=one_id, PrivateIpAddresses=given[1:])
    assert addresses(one(ec2, one_id)) == [primary]
    prefix = assign(NetworkInterfaceId=one_id, Ipv4PrefixCount=1)["AssignedIpv4Prefixes"][0]["Ipv4Prefix"]
    assert error_code(assign, NetworkInterfaceId=other_id, Ipv4Prefixes=[prefix]) == "InvalidIPAddress.InUse"
    unassign(NetworkInterfaceId=one_id, Ipv4Prefixes=[prefix])
    assign(NetworkInterfaceId=other_id, Ipv4Prefixes=[prefix])
    for id in [one_id, other_id]:
        ec2.delete_network_interface(NetworkInterfaceId=id)


def test_attributes_of_an_interface(ec2, network):
    vpc, subnet = network
    id = create(ec2, subnet)["NetworkInterfaceId"]
    group = ec2.create_security_group(GroupName="attributes", Description="of an interface", VpcId=vpc)["GroupId"]
    modify = ec2.modify_network_interface_attribute
    modify(NetworkInterfaceId=id, Description={"Value": "changed"})
    modify(NetworkInterfaceId=id, SourceDestCheck={"Value": False})
    modify(NetworkInterfaceId=id, Groups=[group])
    shown = one(ec2, id)
    assert (shown["Description"], shown["SourceDestCheck"]) == ("changed", False)
    assert [found["GroupId"] for found in shown["Groups"]] == [group]
    ec2.reset_network_interface_attribute(NetworkInterfaceId=id, SourceDestCheck="true")
    assert one(ec2, id)["SourceDestCheck"] is True
    both = {"Description": {"Value": "x"}, "SourceDestCheck": {"Value": False}}
    assert error_code(modify, NetworkInterfaceId=id, **both) == "InvalidParameterCombination"
    assert error_code(modify, NetworkInterfaceId=id) == "InvalidParameterCombination"
    gone = {"AttachmentId": "eni-attach-0123456789abcdef0", "DeleteOnTermination": True}
    assert error_code(modify, NetworkInterfaceId=id, Attachment=gone) == "InvalidAttachmentID.NotFound"
    ec2.delete_network_interface(NetworkInterfaceId=id)


def test_interfaces_come_to_an_instance_and_leave_it(ec2, ami, network):
    _, subnet = network
    instance = run(ec2, ami, SubnetId=subnet, InstanceType="t3.small")[0]["InstanceId"]
    wait(ec2, "instance_running", [instance])
    id = create(ec2, subnet)["NetworkInterfaceId"]
    attach = {"NetworkInterfaceId": id, "InstanceId": instance}
    assert error_code(ec2.attach_network_interface, **attach, DeviceIndex=0) == "InvalidParameterValue"
    assert error_code(ec2.attach_network_interface, **attach, DeviceIndex=99) == "InvalidParameterValue"
    assert error_code(ec2.attach_network_interface, **attach, DeviceIndex=1, NetworkCardIndex=1) == "InvalidParameterValue"
    made = ec2.attach_network_interface(**attach, DeviceIndex=1)
    assert error_code(ec2.attach_network_interface, **attach, DeviceIndex=2) == "InvalidNetworkInterface.InUse"
    waiter = ec2.get_waiter("network_interface_available")
    shown = one(ec2, id)
    assert shown["Status"] == "in-use" and shown["Attachment"]["AttachmentId"] == made["AttachmentId"]
    for _ in range(100):
        if one(ec2, id)["Attachment"]["Status"] == "attached":
            break
    assert one(ec2, id)["Attachment"]["Status"] == "attached"
    listed = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["NetworkInterfaces"]
    assert [own["Attachment"]["DeviceIndex"] for own in listed] == [0, 1] and listed[1]["NetworkInterfaceId"] == id
    assert error_code(ec2.delete_network_interface, NetworkInterfaceId=id) == "InvalidParameterValue"
    # Three are what a t3.small takes.
    third, fourth = (create(ec2, subnet)["NetworkInterfaceId"] for _ in range(2))
    ec2.attach_network_interface(NetworkInterfaceId=third, InstanceId=instance, DeviceIndex=2)
    over = {"NetworkInterfaceId": fourth, "InstanceId": instance, "DeviceIndex": 3}
    assert error_code(ec2.attach_network_interface, **over) == "AttachmentLimitExceeded"
    # Four addresses are what it takes on each.
    more = {"NetworkInterfaceId": third, "SecondaryPrivateIpAddressCount": 4}
    assert error_code(ec2.assign_private_ip_addresses, **more) == "PrivateIpAddressLimitExceeded"
    kept = {"AttachmentId": made["AttachmentId"], "DeleteOnTermination": True}
    ec2.modify_network_interface_attribute(NetworkInterfaceId=id, Attachment=kept)
    assert one(ec2, id)["Attachment"]["DeleteOnTermination"] is True
    primary = listed[0]["Attachment"]["AttachmentId"]
    assert error_code(ec2.detach_network_interface, AttachmentId=primary) == "OperationNotPermitted"
    third_at = one(ec2, third)["Attachment"]["AttachmentId"]
    ec2.detach_network_interface(AttachmentId=third_at)
    waiter.wait(NetworkInterfaceIds=[third], WaiterConfig={"Delay": 1})
    assert error_code(ec2.detach_network_interface, AttachmentId=third_at) == "InvalidAttachmentID.NotFound"
    # One that does not run has it, or has it no more, at once.
    ec2.stop_instances(InstanceIds=[instance])
    wait(ec2, "instance_stopped", [instance])
    again = ec2.attach_network_interface(NetworkInterfaceId=third, InstanceId=instance, DeviceIndex=2)
    assert one(ec2, third)["Attachment"]["Status"] == "attached"
    ec2.detach_network_interface(AttachmentId=again["AttachmentId"])
    assert one(ec2, third)["Status"] == "available"
    ec2.start_instances(InstanceIds=[instance])
    wait(ec2, "instance_running", [instance])
    ec2.attach_network_interface(NetworkInterfaceId=third, InstanceId=instance, DeviceIndex=2)
    ec2.terminate_instances(InstanceIds=[instance])
    wait(ec2, "instance_terminated", [instance])
    # What was to go with it is gone.
    assert error_code(ec2.describe_network_interfaces, NetworkInterfaceIds=[id]) == "InvalidNetworkInterfaceID.NotFound"
    assert one(ec2, third)["Status"] == "available"
    for left in [third, fourth]:
        ec2.delete_network_interface(NetworkInterfaceId=left)


def test_an_instance_starts_with_several_interfaces(ec2, ami, network):
    _, subnet = network
    existing = create(ec2, subnet, Description="kept")["NetworkInterfaceId"]
    wanted = [
        {"DeviceIndex": 1, "SubnetId": subnet, "SecondaryPrivateIpAddressCount": 1, "DeleteOnTermination": False},
        {"DeviceIndex": 0, "NetworkInterfaceId": existing},
    ]
    made = run(ec2, ami, NetworkInterfaces=wanted, InstanceType="t3.small")[0]
    instance = made["InstanceId"]
    shown = made["NetworkInterfaces"]
    assert [own["Attachment"]["DeviceIndex"] for own in shown] == [0, 1]
    assert shown[0]["NetworkInterfaceId"] == existing and made["SubnetId"] == subnet
    assert made["PrivateIpAddress"] == shown[0]["PrivateIpAddress"]
    assert len(shown[1]["PrivateIpAddresses"]) == 2
    launch = {"ImageId": ami, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.small"}
    for expected, specifications in [
        ("InvalidNetworkInterface.InUse", wanted[1:]),
        ("InvalidNetworkInterfaceID.NotFound", [{"DeviceIndex": 0, "NetworkInterfaceId": "eni-0123456789abcdef0"}]),
        ("InvalidParameterValue", [{"DeviceIndex": 1, "SubnetId": subnet}]),
        ("InvalidParameterValue", [{"DeviceIndex": 0, "SubnetId": subnet}] * 2),
        ("AttachmentLimitExceeded", [{"DeviceIndex": at, "SubnetId": subnet} for at in range(4)]),
        ("InvalidParameterCombination", [{**wanted[1], "SubnetId": subnet}]),
        ("InvalidParameterCombination", [{**wanted[1], "DeleteOnTermination": True}]),
        (
            "InvalidParameterCombination",
            [{"DeviceIndex": at, "SubnetId": subnet, "AssociatePublicIpAddress": at == 0} for at in range(2)],
        ),
    ]:
        assert error_code(ec2.run_instances, **launch, NetworkInterfaces=specifications) == expected, specifications
    two = {**launch, "MaxCount": 2, "NetworkInterfaces": wanted[1:]}
    assert error_code(ec2.run_instances, **two) == "InvalidParameterCombination"
    ec2.terminate_instances(InstanceIds=[instance])
    wait(ec2, "instance_terminated", [instance])
    for left in [existing, shown[1]["NetworkInterfaceId"]]:
        assert one(ec2, left)["Status"] == "available"
        ec2.delete_network_interface(NetworkInterfaceId=left)


def test_an_interface_of_another_zone_is_refused(ec2, ami, network):
    vpc, subnet = network
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]]
    other = ec2.create_subnet(VpcId=vpc, CidrBlock="10.30.2.0/24", AvailabilityZone=zones[1])["Subnet"]["SubnetId"]
    there = create(ec2, other)["NetworkInterfaceId"]
    instance = run(ec2, ami, SubnetId=subnet)[0]["InstanceId"]
    wait(ec2, "instance_running", [instance])
    attach = {"NetworkInterfaceId": there, "InstanceId": instance, "DeviceIndex": 1}
    assert error_code(ec2.attach_network_interface, **attach) == "InvalidParameterCombination"
    both = [{"DeviceIndex": at, "SubnetId": at_subnet} for at, at_subnet in enumerate([subnet, other])]
    launch = {"ImageId": ami, "MinCount": 1, "MaxCount": 1, "NetworkInterfaces": both, "InstanceType": "t3.small"}
    assert error_code(ec2.run_instances, **launch) == "InvalidParameterCombination"
    ec2.terminate_instances(InstanceIds=[instance])
    ec2.delete_network_interface(NetworkInterfaceId=there)


def test_others_are_granted_permissions_on_an_interface(ec2, network):
    _, subnet = network
    interface = create(ec2, subnet)["NetworkInterfaceId"]
    grant = lambda account="210987654321", permission="INSTANCE-ATTACH", **more: ec2.create_network_interface_permission(
        **{"NetworkInterfaceId": interface, "AwsAccountId": account, "Permission": permission, **more}
    )["InterfacePermission"]
    made = grant()
    id = made["NetworkInterfacePermissionId"]
    assert id.startswith("eni-perm-") and made["PermissionState"] == {"State": "granted"}
    describe = lambda **asked: ec2.describe_network_interface_permissions(**asked)["NetworkInterfacePermissions"]
    by = lambda name, value: describe(
        Filters=[
            {"Name": "network-interface-permission.network-interface-id", "Values": [interface]},
            {"Name": f"network-interface-permission.{name}", "Values": [value]},
        ]
    )
    assert describe(NetworkInterfacePermissionIds=[id]) == [made]
    for name, value, other in [
        ("network-interface-permission-id", id, "eni-perm-0123456789abcdef0"),
        ("aws-account-id", "210987654321", "210987654322"),
        ("permission", "INSTANCE-ATTACH", "EIP-ASSOCIATE"),
    ]:
        assert (by(name, value), by(name, other)) == ([made], []), name
    assert by("aws-service", "any") == []
    owner = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]["OwnerId"]
    for code, changed in [
        ("InvalidPermission.Duplicate", {}),
        ("InvalidParameterValue", {"account": "me"}),
        ("InvalidParameterValue", {"account": owner}),
        ("InvalidParameterValue", {"permission": "ALL"}),
        ("UnsupportedOperation", {"AwsService": "lambda"}),
        ("InvalidNetworkInterfaceID.NotFound", {"NetworkInterfaceId": "eni-0123456789abcdef0"}),
    ]:
        assert error_code(grant, **changed) == code, changed
    again = grant(permission="EIP-ASSOCIATE")["NetworkInterfacePermissionId"]
    assert ec2.delete_network_interface_permission(NetworkInterfacePermissionId=id, Force=True)["Return"]
    gone = error_code(ec2.delete_network_interface_permission, NetworkInterfacePermissionId=id)
    assert gone == "InvalidPermissionID.NotFound"
    # The rest goes with the interface.
    ec2.delete_network_interface(NetworkInterfaceId=interface)
    assert error_code(describe, NetworkInterfacePermissionIds=[again]) == "InvalidPermissionID.NotFound"


def test_flows_are_tracked_for_as_long_as_an_interface_says(ec2, ami, network):
    _, subnet = network
    times = {"TcpEstablishedTimeout": 350, "UdpTimeout": 45}
    id = create(ec2, subnet, ConnectionTrackingSpecification=times)["NetworkInterfaceId"]
    assert one(ec2, id)["ConnectionTrackingConfiguration"] == times
    change = {"UdpStreamTimeout": 60, "UdpTimeout": 30}
    ec2.modify_network_interface_attribute(NetworkInterfaceId=id, ConnectionTrackingSpecification=change)
    assert one(ec2, id)["ConnectionTrackingConfiguration"] == times | change
    assert "ConnectionTrackingConfiguration" not in one(ec2, create(ec2, subnet)["NetworkInterfaceId"])
    for wrong in ({"TcpEstablishedTimeout": 59}, {"UdpStreamTimeout": 181}, {"UdpTimeout": -1}):
        refused = {"SubnetId": subnet, "ConnectionTrackingSpecification": wrong}
        assert error_code(ec2.create_network_interface, **refused) == "InvalidParameterValue"

    specification = {"DeviceIndex": 0, "SubnetId": subnet, "ConnectionTrackingSpecification": times}
    shown = run(ec2, ami, NetworkInterfaces=[specification])[0]["NetworkInterfaces"][0]
    assert shown["ConnectionTrackingConfiguration"] == times
    assert one(ec2, shown["NetworkInterfaceId"])["ConnectionTrackingConfiguration"] == times


def test_efas_are_on_types_that_have_them_one_a_card(ec2, ami, network):
    _, subnet = network
    before = free(ec2, subnet)
    fabric = create(ec2, subnet, InterfaceType="efa")
    only = create(ec2, subnet, InterfaceType="efa-only")
    assert (fabric["InterfaceType"], only["InterfaceType"]) == ("efa", "efa-only")
    assert only["PrivateIpAddresses"] == [] and "PrivateIpAddress" not in only
    assert free(ec2, subnet) == before - 1
    by_type = [{"Name": "interface-type", "Values": ["efa-only"]}]
    found = ec2.describe_network_interfaces(Filters=by_type)["NetworkInterfaces"]
    assert [shown["NetworkInterfaceId"] for shown in found] == [only["NetworkInterfaceId"]]
    for expected, parameters in [
        ("InvalidParameterValue", {"InterfaceType": "token-ring"}),
        ("UnsupportedOperation", {"InterfaceType": "trunk"}),
        ("InvalidParameterCombination", {"InterfaceType": "efa-only", "PrivateIpAddress": "10.30.1.50"}),
        ("InvalidParameterCombination", {"InterfaceType": "efa-only", "SecondaryPrivateIpAddressCount": 1}),
        ("InvalidParameterCombination", {"InterfaceType": "efa-only", "Ipv6AddressCount": 1}),
    ]:
        assert error_code(ec2.create_network_interface, SubnetId=subnet, **parameters) == expected, parameters
    more = {"NetworkInterfaceId": only["NetworkInterfaceId"], "SecondaryPrivateIpAddressCount": 1}
    assert error_code(ec2.assign_private_ip_addresses, **more) == "InvalidParameterCombination"
    at = lambda index, kind, card=0: {
        "DeviceIndex": index, "NetworkCardIndex": card, "SubnetId": subnet, "InterfaceType": kind
    }
    launch = {"ImageId": ami, "MinCount": 1, "MaxCount": 1}
    for expected, kind, interfaces in [
        ("InvalidParameterCombination", "t3.micro", [at(0, "efa")]),
        ("InvalidParameterCombination", "c5n.18xlarge", [at(0, "efa-only")]),
        ("AttachmentLimitExceeded", "c5n.18xlarge", [at(0, "efa"), at(1, "efa-only")]),
        ("AttachmentLimitExceeded", "p4d.24xlarge", [at(0, "interface"), at(1, "efa", 1), at(2, "efa-only", 1)]),
        ("AttachmentLimitExceeded", "p4d.24xlarge", [at(index, "interface", 0) for index in range(16)]),
    ]:
        code = error_code(ec2.run_instances, **launch, InstanceType=kind, NetworkInterfaces=interfaces)
        assert code == expected, (kind, interfaces)
    [made] = run(ec2, ami, InstanceType="c5n.9xlarge", NetworkInterfaces=[at(0, "interface"), at(1, "efa-only")])
    instance = made["InstanceId"]
    assert [own["InterfaceType"] for own in made["NetworkInterfaces"]] == ["interface", "efa-only"]
    wait(ec2, "instance_running", [instance])
    attachment = made["NetworkInterfaces"][1]["Attachment"]["AttachmentId"]
    attach = {"InstanceId": instance, "NetworkInterfaceId": fabric["NetworkInterfaceId"], "DeviceIndex": 2}
    assert error_code(ec2.attach_network_interface, **attach) == "IncorrectState"
    assert error_code(ec2.detach_network_interface, AttachmentId=attachment) == "IncorrectState"
    ec2.stop_instances(InstanceIds=[instance])
    wait(ec2, "instance_stopped", [instance])
    assert error_code(ec2.attach_network_interface, **attach) == "AttachmentLimitExceeded"
    smaller = {"InstanceId": instance, "InstanceType": {"Value": "c5n.large"}}
    assert error_code(ec2.modify_instance_attribute, **smaller) == "InvalidParameterCombination"
    ec2.detach_network_interface(AttachmentId=attachment)
    ec2.attach_network_interface(**attach)
    ec2.start_instances(InstanceIds=[instance])
    wait(ec2, "instance_running", [instance])
    ec2.terminate_instances(InstanceIds=[instance])
    wait(ec2, "instance_terminated", [instance])
    for interface in [fabric, only, made["NetworkInterfaces"][1]]:
        ec2.delete_network_interface(NetworkInterfaceId=interface["NetworkInterfaceId"])
    assert free(ec2, subnet) == before


def test_an_interface_is_in_sixteen_groups_at_most(ec2, network):
    vpc, subnet = network
    make = lambda number: ec2.create_security_group(GroupName=f"of-{number}", Description="one", VpcId=vpc)["GroupId"]
    groups = [make(number) for number in range(17)]
    made = create(ec2, subnet, Groups=groups[:16])
    assert len(made["Groups"]) == 16
    too_many = error_code(ec2.create_network_interface, SubnetId=subnet, Groups=groups)
    assert too_many == "SecurityGroupsPerInterfaceLimitExceeded"
    change = {"NetworkInterfaceId": made["NetworkInterfaceId"], "Groups": groups}
    changed = error_code(ec2.modify_network_interface_attribute, **change)
    assert changed == "SecurityGroupsPerInterfaceLimitExceeded"
    ec2.delete_network_interface(NetworkInterfaceId=made["NetworkInterfaceId"])


def test_queues_are_chosen_where_the_type_lets_one(ec2, ami, network):
    _, subnet = network
    second = create(ec2, subnet)["NetworkInterfaceId"]
    primary = {"DeviceIndex": 0, "SubnetId": subnet}
    launch = lambda kind="m6i.xlarge", **more: run(ec2, ami, InstanceType=kind, NetworkInterfaces=[{**primary, **more}])[0]
    for code, wrong in [
        ("InvalidParameterCombination", {"kind": "t3.micro", "EnaQueueCount": 1}),
        ("InvalidParameterValue", {"EnaQueueCount": 5}),
        ("InvalidParameterValue", {"EnaQueueCount": 0}),
    ]:
        assert error_code(lambda: launch(**wrong)) == code
    instance = launch(EnaQueueCount=2)["InstanceId"]
    wait(ec2, "instance_running", [instance])
    attach = lambda **more: ec2.attach_network_interface(
        InstanceId=instance, NetworkInterfaceId=second, DeviceIndex=1, **more
    )["AttachmentId"]
    assert error_code(lambda: attach(EnaQueueCount=99)) == "InvalidParameterValue"
    attachment = attach(EnaQueueCount=3)

    def counts():
        found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        by_index = sorted(found["NetworkInterfaces"], key=lambda own: own["Attachment"]["DeviceIndex"])
        shown = [own["Attachment"]["EnaQueueCount"] for own in by_index]
        assert [one(ec2, own["NetworkInterfaceId"])["Attachment"]["EnaQueueCount"] for own in by_index] == shown
        return shown

    assert counts() == [2, 3]
    modify = lambda **change: ec2.modify_network_interface_attribute(
        NetworkInterfaceId=second, Attachment={"AttachmentId": attachment, **change}
    )
    assert error_code(lambda: modify(EnaQueueCount=1)) == "IncorrectInstanceState"
    assert error_code(modify) == "MissingParameter"
    ec2.stop_instances(InstanceIds=[instance])
    wait(ec2, "instance_stopped", [instance])
    assert error_code(lambda: modify(EnaQueueCount=9)) == "InvalidParameterValue"
    modify(EnaQueueCount=1)
    assert counts() == [2, 1]
    change = lambda kind: ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": kind})
    assert error_code(lambda: change("t3.micro")) == "InvalidParameterCombination", "it gives what it gives"
    modify(DefaultEnaQueueCount=True)
    assert counts() == [2, 4]


def test_there_are_no_trunks(ec2):
    subnet = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"][0]["SubnetId"]
    made = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    both = {"TrunkInterfaceId": made, "BranchInterfaceId": made, "VlanId": 7}
    missing = {**both, "BranchInterfaceId": "eni-0123456789abcdef0"}
    association = "trunk-assoc-0123456789abcdef0"
    for expected, call, parameters in [
        ("UnsupportedOperation", ec2.create_network_interface, {"SubnetId": subnet, "InterfaceType": "trunk"}),
        ("UnsupportedOperation", ec2.associate_trunk_interface, both),
        ("InvalidNetworkInterfaceID.NotFound", ec2.associate_trunk_interface, missing),
        ("InvalidAssociationID.NotFound", ec2.disassociate_trunk_interface, {"AssociationId": association}),
        (
            "InvalidAssociationID.NotFound",
            ec2.describe_trunk_interface_associations,
            {"AssociationIds": [association]},
        ),
    ]:
        assert error_code(call, **parameters) == expected, parameters
    pages = ec2.get_paginator("describe_trunk_interface_associations").paginate(PaginationConfig={"PageSize": 5})
    assert [page["InterfaceAssociations"] for page in pages] == [[]]
    ec2.delete_network_interface(NetworkInterfaceId=made)
