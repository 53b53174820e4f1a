"""IPv6 of interfaces and instances, by boto3."""

import ipaddress
import subprocess

import pytest
from conftest import BINARY, error_code, ready, run, wait


@pytest.fixture
def network(ec2):
    """A subnet with a block of IPv6, and the block."""
    made = ec2.create_vpc(CidrBlock="10.60.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    block = ipaddress.ip_network(made["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
    block = next(block.subnets(new_prefix=64))
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    place = {"VpcId": made["VpcId"], "AvailabilityZone": zone}
    subnet = ec2.create_subnet(CidrBlock="10.60.1.0/24", Ipv6CidrBlock=str(block), **place)["Subnet"]["SubnetId"]
    return subnet, block


def create(ec2, subnet, **parameters):
    return ec2.create_network_interface(SubnetId=subnet, **parameters)["NetworkInterface"]


def one(ec2, interface_id):
    return ec2.describe_network_interfaces(NetworkInterfaceIds=[interface_id])["NetworkInterfaces"][0]


def addresses(shown):
    return [own["Ipv6Address"] for own in shown["Ipv6Addresses"]]


def prefixes(shown):
    return [own["Ipv6Prefix"] for own in shown["Ipv6Prefixes"]]


def test_an_interface_has_the_ipv6_that_it_was_made_with(ec2, network):
    subnet, block = network
    wanted = [str(block[0x1000]), str(block[0x1001])]
    listed = [{"Ipv6Address": address} for address in wanted]
    made = create(ec2, subnet, Ipv6Addresses=listed, EnablePrimaryIpv6=True)
    assert addresses(made) == wanted and made["Ipv6Address"] == wanted[0]
    assert [own["IsPrimaryIpv6"] for own in made["Ipv6Addresses"]] == [True, False]
    chosen = create(ec2, subnet, Ipv6AddressCount=2)
    assert all(ipaddress.ip_address(address) in block for address in addresses(chosen))
    assert len(set(addresses(chosen) + wanted)) == 4
    delegated = create(ec2, subnet, Ipv6PrefixCount=2)
    assert addresses(delegated) == [] and "Ipv6Address" not in delegated
    nets = [ipaddress.ip_network(prefix) for prefix in prefixes(delegated)]
    assert len(set(nets)) == 2 and all(net.prefixlen == 80 and net.subnet_of(block) for net in nets)
    inside, last = str(nets[0][5]), f"{list(block.subnets(new_prefix=80))[-1]}"
    reserved = [str(block[3]), str(block[-1]), "fd00::1"]
    for expected, parameters in [
        ("InvalidIPAddress.InUse", {"Ipv6Addresses": listed[:1]}),
        ("InvalidIPAddress.InUse", {"Ipv6Addresses": [{"Ipv6Address": str(block[9])}] * 2}),
        ("InvalidIPAddress.InUse", {"Ipv6Addresses": [{"Ipv6Address": inside}]}),
        ("InvalidIPAddress.InUse", {"Ipv6Prefixes": [{"Ipv6Prefix": prefixes(delegated)[1]}]}),
        # The first and the last of a subnet have addresses that are EC2's.
        ("InvalidParameterValue", {"Ipv6Prefixes": [{"Ipv6Prefix": str(next(block.subnets(new_prefix=80)))}]}),
        ("InvalidParameterValue", {"Ipv6Prefixes": [{"Ipv6Prefix": last}]}),
        ("InvalidParameterValue", {"Ipv6Prefixes": [{"Ipv6Prefix": str(block)}]}),
        *[("InvalidParameterValue", {"Ipv6Addresses": [{"Ipv6Address": address}]}) for address in reserved],
        ("InvalidParameterValue", {"Ipv6Addresses": [{"Ipv6Address": "10.60.1.9"}]}),
        ("InvalidParameterValue", {"Ipv6AddressCount": -1}),
        ("InvalidParameterValue", {"Ipv6AddressCount": 51}),
        ("InvalidParameterCombination", {"Ipv6AddressCount": 1, "Ipv6Addresses": listed}),
        ("InvalidParameterCombination", {"Ipv6AddressCount": 1, "Ipv6PrefixCount": 1}),
        ("InvalidParameterCombination", {"EnablePrimaryIpv6": True}),
    ]:
        assert error_code(ec2.create_network_interface, SubnetId=subnet, **parameters) == expected, parameters
    plain = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"][0]["SubnetId"]
    code = error_code(ec2.create_network_interface, SubnetId=plain, Ipv6AddressCount=1)
    assert code == "InvalidParameterCombination"
    for name, value, found in [
        ("ipv6-addresses.ipv6-address", wanted[1], made),
        ("ipv6-addresses.ipv6-address", addresses(chosen)[1], chosen),
    ]:
        answer = ec2.describe_network_interfaces(Filters=[{"Name": name, "Values": [value]}])["NetworkInterfaces"]
        assert [shown["NetworkInterfaceId"] for shown in answer] == [found["NetworkInterfaceId"]], name
    for interface in [made, chosen, delegated]:
        ec2.delete_network_interface(NetworkInterfaceId=interface["NetworkInterfaceId"])
    # What was theirs is free again.
    again = create(ec2, subnet, Ipv6Addresses=[*listed, {"Ipv6Address": inside}])
    ec2.delete_network_interface(NetworkInterfaceId=again["NetworkInterfaceId"])


def test_ipv6_comes_to_an_interface_and_goes(ec2, network):
    subnet, block = network
    id, other = (create(ec2, subnet)["NetworkInterfaceId"] for _ in range(2))
    assert addresses(one(ec2, id)) == []
    assign, unassign = ec2.assign_ipv6_addresses, ec2.unassign_ipv6_addresses
    modify = ec2.modify_network_interface_attribute
    assert error_code(modify, NetworkInterfaceId=id, EnablePrimaryIpv6=True) == "InvalidParameterCombination"
    given = assign(NetworkInterfaceId=id, Ipv6AddressCount=2)["AssignedIpv6Addresses"]
    assert addresses(one(ec2, id)) == given
    wanted = str(block[0x77])
    assert assign(NetworkInterfaceId=id, Ipv6Addresses=[wanted])["AssignedIpv6Addresses"] == [wanted]
    [prefix] = assign(NetworkInterfaceId=id, Ipv6PrefixCount=1)["AssignedIpv6Prefixes"]
    assert prefixes(one(ec2, id)) == [prefix]
    for expected, parameters in [
        ("MissingParameter", {}),
        ("InvalidIPAddress.InUse", {"Ipv6Addresses": [wanted]}),
        ("InvalidIPAddress.InUse", {"Ipv6Prefixes": [prefix]}),
        ("PrivateIpAddressLimitExceeded", {"Ipv6AddressCount": 30, "Ipv6PrefixCount": 21}),
    ]:
        assert error_code(assign, NetworkInterfaceId=other, **parameters) == expected, parameters
    modify(NetworkInterfaceId=id, EnablePrimaryIpv6=True)
    assert [own["IsPrimaryIpv6"] for own in one(ec2, id)["Ipv6Addresses"]] == [True, False, False]
    assert error_code(modify, NetworkInterfaceId=id, EnablePrimaryIpv6=False) == "OperationNotPermitted"
    for expected, parameters in [
        ("MissingParameter", {}),
        ("OperationNotPermitted", {"Ipv6Addresses": given[:1]}),
        ("InvalidParameterValue", {"Ipv6Addresses": [str(block[0x78])]}),
        ("InvalidParameterValue", {"Ipv6Prefixes": [str(ipaddress.ip_network(prefix).supernet())]}),
    ]:
        assert error_code(unassign, NetworkInterfaceId=id, **parameters) == expected, parameters
    gone = unassign(NetworkInterfaceId=id, Ipv6Addresses=given[1:], Ipv6Prefixes=[prefix])
    assert (gone["UnassignedIpv6Addresses"], gone["UnassignedIpv6Prefixes"]) == (given[1:], [prefix])
    assert addresses(one(ec2, id)) == [given[0], wanted] and prefixes(one(ec2, id)) == []
    assign(NetworkInterfaceId=other, Ipv6Prefixes=[prefix], Ipv6Addresses=given[1:])
    for interface in [id, other]:
        ec2.delete_network_interface(NetworkInterfaceId=interface)


def test_reservations_keep_what_is_chosen_apart(ec2, network):
    subnet, block = network
    upper, lower = list(block.subnets(new_prefix=65))[::-1]
    delegable = list(lower.subnets(new_prefix=78))[5]
    reserve = lambda cidr, kind: ec2.create_subnet_cidr_reservation(
        SubnetId=subnet, Cidr=str(cidr), ReservationType=kind
    )["SubnetCidrReservation"]["SubnetCidrReservationId"]
    reservations = [reserve(upper, "explicit"), reserve(delegable, "prefix")]
    made = create(ec2, subnet, Ipv6AddressCount=20)
    for address in map(ipaddress.ip_address, addresses(made)):
        assert address in lower and address not in delegable
    given = create(ec2, subnet, Ipv6PrefixCount=5)
    nets = [ipaddress.ip_network(prefix) for prefix in prefixes(given)]
    # What is reserved for prefixes goes first.
    assert [net.subnet_of(delegable) for net in nets] == [True] * 4 + [False]
    assert not any(net.subnet_of(upper) for net in nets)
    asked = create(ec2, subnet, Ipv6Addresses=[{"Ipv6Address": str(upper[7])}])
    for interface in [made, given, asked]:
        ec2.delete_network_interface(NetworkInterfaceId=interface["NetworkInterfaceId"])
    association = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["Ipv6CidrBlockAssociationSet"][0]
    disassociate = {"AssociationId": association["AssociationId"]}
    assert error_code(ec2.disassociate_subnet_cidr_block, **disassociate) == "DependencyViolation"
    for reservation in reservations:
        ec2.delete_subnet_cidr_reservation(SubnetCidrReservationId=reservation)
    ec2.disassociate_subnet_cidr_block(**disassociate)


def test_a_block_in_use_stays(ec2, network):
    subnet, _ = network
    shown = lambda: ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["Ipv6CidrBlockAssociationSet"]
    [association] = shown()
    interface = create(ec2, subnet, Ipv6PrefixCount=1)["NetworkInterfaceId"]
    disassociate = {"AssociationId": association["AssociationId"]}
    assert error_code(ec2.disassociate_subnet_cidr_block, **disassociate) == "DependencyViolation"
    # It is still there to be given.
    assert shown() == [association]
    ec2.assign_ipv6_addresses(NetworkInterfaceId=interface, Ipv6AddressCount=1)
    ec2.delete_network_interface(NetworkInterfaceId=interface)
    ec2.disassociate_subnet_cidr_block(**disassociate)
    assert error_code(ec2.create_network_interface, SubnetId=subnet, Ipv6AddressCount=1) == "InvalidParameterCombination"


def test_instances_have_ipv6(ec2, ami, network):
    subnet, block = network
    ec2.modify_subnet_attribute(SubnetId=subnet, AssignIpv6AddressOnCreation={"Value": True})
    first, second = run(ec2, ami, 2, SubnetId=subnet)
    given = [instance["Ipv6Address"] for instance in [first, second]]
    assert given[0] != given[1] and all(ipaddress.ip_address(own) in block for own in given)
    [interface] = first["NetworkInterfaces"]
    assert interface["Ipv6Addresses"] == [{"Ipv6Address": given[0], "IsPrimaryIpv6": False}]
    assert addresses(create(ec2, subnet)) != []
    assert addresses(create(ec2, subnet, Ipv6AddressCount=0)) == []
    [plain] = run(ec2, ami, SubnetId=subnet, Ipv6AddressCount=0)
    assert "Ipv6Address" not in plain
    wanted = str(block[0x100])
    [asked] = run(ec2, ami, SubnetId=subnet, Ipv6Addresses=[{"Ipv6Address": wanted}], EnablePrimaryIpv6=True)
    assert asked["Ipv6Address"] == wanted
    specified = [
        {"DeviceIndex": 0, "SubnetId": subnet, "Ipv6PrefixCount": 1},
        {"DeviceIndex": 1, "SubnetId": subnet, "Ipv6AddressCount": 2, "PrimaryIpv6": True},
    ]
    [several] = run(ec2, ami, NetworkInterfaces=specified)
    shown = several["NetworkInterfaces"]
    assert len(shown[0]["Ipv6Prefixes"]) == 1 and "Ipv6Address" not in several
    assert [own["IsPrimaryIpv6"] for own in shown[1]["Ipv6Addresses"]] == [True, False]
    launch = {"ImageId": ami, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.micro"}
    in_subnet = {**launch, "SubnetId": subnet}
    for expected, parameters in [
        ("InvalidIPAddress.InUse", {**in_subnet, "Ipv6Addresses": [{"Ipv6Address": wanted}]}),
        ("InvalidParameterCombination", {**in_subnet, "MaxCount": 2, "Ipv6Addresses": [{"Ipv6Address": str(block[7])}]}),
        ("InvalidParameterCombination", {**launch, "NetworkInterfaces": specified[:1], "Ipv6AddressCount": 1}),
        # A t3.micro takes two on each interface, an m1.small none.
        ("PrivateIpAddressLimitExceeded", {**in_subnet, "Ipv6AddressCount": 3}),
        ("PrivateIpAddressLimitExceeded", {**in_subnet, "InstanceType": "m1.small"}),
    ]:
        assert error_code(ec2.run_instances, **parameters) == expected, parameters
    second_of_several = shown[1]["Ipv6Addresses"][1]["Ipv6Address"]
    for name, value, found in [
        ("ipv6-address", wanted, asked),
        ("network-interface.ipv6-address", wanted, asked),
        ("network-interface.ipv6-addresses.ipv6-address", second_of_several, several),
        ("network-interface.ipv6-prefixes.ipv6-prefix", shown[0]["Ipv6Prefixes"][0]["Ipv6Prefix"], several),
    ]:
        answer = ec2.describe_instances(Filters=[{"Name": name, "Values": [value]}])["Reservations"]
        assert [of["Instances"][0]["InstanceId"] for of in answer] == [found["InstanceId"]], name
    primary = [{"Name": "network-interface.ipv6-addresses.is-primary-ipv6", "Values": ["true"]}]
    answer = ec2.describe_instances(Filters=primary)["Reservations"]
    assert {of["Instances"][0]["InstanceId"] for of in answer} == {asked["InstanceId"], several["InstanceId"]}
    # It outlives a stop, and a smaller type has to take it.
    ids = [instance["InstanceId"] for instance in [first, second, plain, asked, several]]
    wait(ec2, "instance_running", ids)
    ec2.stop_instances(InstanceIds=[ids[3]])
    wait(ec2, "instance_stopped", [ids[3]])
    assert one(ec2, asked["NetworkInterfaces"][0]["NetworkInterfaceId"])["Ipv6Address"] == wanted
    smaller = {"InstanceId": ids[3], "InstanceType": {"Value": "m1.small"}}
    assert error_code(ec2.modify_instance_attribute, **smaller) == "PrivateIpAddressLimitExceeded"
    ec2.terminate_instances(InstanceIds=ids)
    wait(ec2, "instance_terminated", ids)
    ec2.delete_network_interface(NetworkInterfaceId=create(ec2, subnet, Ipv6Addresses=[{"Ipv6Address": wanted}])["NetworkInterfaceId"])


def test_the_metadata_service_is_told_of_ipv6(ec2, ami):
    [instance] = run(ec2, ami, MetadataOptions={"HttpProtocolIpv6": "enabled"})
    id = instance["InstanceId"]
    assert instance["MetadataOptions"]["HttpProtocolIpv6"] == "enabled"
    modify = ec2.modify_instance_metadata_options
    answer = modify(InstanceId=id, HttpProtocolIpv6="disabled")
    assert answer["InstanceMetadataOptions"]["HttpProtocolIpv6"] == "disabled"
    assert error_code(modify, InstanceId=id, HttpProtocolIpv6="perhaps") == "InvalidParameterValue"
    by = lambda value: [{"Name": "metadata-options.http-protocol-ipv6", "Values": [value]}]
    assert ec2.describe_instances(InstanceIds=[id], Filters=by("enabled"))["Reservations"] == []
    assert ec2.describe_instances(InstanceIds=[id], Filters=by("disabled"))["Reservations"] != []
    ec2.terminate_instances(InstanceIds=[id])


@pytest.fixture
def ipv6_only(ec2, network):
    """The network's VPC, and a subnet of it without IPv4."""
    subnet, block = network
    (shown,) = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
    free = ipaddress.ip_network((block.network_address + 2**64, 64))
    place = {"VpcId": shown["VpcId"], "AvailabilityZone": shown["AvailabilityZone"]}
    return ec2.create_subnet(Ipv6Native=True, Ipv6CidrBlock=str(free), **place)["Subnet"]


def test_a_subnet_can_be_of_ipv6_alone(ec2, ipv6_only):
    subnet = ipv6_only["SubnetId"]
    assert ipv6_only == ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]
    assert ipv6_only["Ipv6Native"] and ipv6_only["AssignIpv6AddressOnCreation"] and "CidrBlock" not in ipv6_only
    assert ipv6_only["AvailableIpAddressCount"] == 0 and not ipv6_only["MapPublicIpOnLaunch"]
    names = {"HostnameType": "resource-name", "EnableResourceNameDnsARecord": False}
    assert ipv6_only["PrivateDnsNameOptionsOnLaunch"] == {**names, "EnableResourceNameDnsAAAARecord": True}
    filters = [{"Name": "ipv6-native", "Values": ["true"]}, {"Name": "vpc-id", "Values": [ipv6_only["VpcId"]]}]
    assert [own["SubnetId"] for own in ec2.describe_subnets(Filters=filters)["Subnets"]] == [subnet]
    vpc, taken = ipv6_only["VpcId"], ipv6_only["Ipv6CidrBlockAssociationSet"][0]
    for expected, parameters in [
        ("MissingParameter", {}),
        ("MissingParameter", {"CidrBlock": "10.60.9.0/24"}),
        ("InvalidParameterCombination", {"CidrBlock": "10.60.9.0/24", "Ipv6CidrBlock": taken["Ipv6CidrBlock"]}),
        ("InvalidSubnet.Conflict", {"Ipv6CidrBlock": taken["Ipv6CidrBlock"]}),
        ("InvalidSubnet.Range", {"Ipv6CidrBlock": "2001:db8::/64"}),
    ]:
        assert error_code(ec2.create_subnet, VpcId=vpc, Ipv6Native=True, **parameters) == expected, parameters
    assert error_code(ec2.create_subnet, VpcId=vpc, Ipv6CidrBlock="2001:db8::/64") == "MissingParameter"
    for attribute, value in [
        ("MapPublicIpOnLaunch", {"Value": True}),
        ("AssignIpv6AddressOnCreation", {"Value": False}),
        ("EnableResourceNameDnsARecordOnLaunch", {"Value": True}),
        ("PrivateDnsHostnameTypeOnLaunch", "ip-name"),
    ]:
        code = error_code(ec2.modify_subnet_attribute, SubnetId=subnet, **{attribute: value})
        assert code == "InvalidParameterValue", attribute
    gateway = {"SubnetId": subnet, "ConnectivityType": "private"}
    assert error_code(ec2.create_nat_gateway, **gateway) == "InvalidParameterValue"
    code = error_code(ec2.disassociate_subnet_cidr_block, AssociationId=taken["AssociationId"])
    assert code == "OperationNotPermitted"


def test_what_is_in_such_a_subnet_has_ipv6_alone(simulated, ec2, ami, ipv6_only):
    subnet = ipv6_only["SubnetId"]
    (started,) = run(ec2, ami, SubnetId=subnet)
    wait(ec2, "instance_running", [started["InstanceId"]])
    (shown,) = ec2.describe_instances(InstanceIds=[started["InstanceId"]])["Reservations"][0]["Instances"]
    block = ipaddress.ip_network(ipv6_only["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
    assert ipaddress.ip_address(shown["Ipv6Address"]) in block and "PrivateIpAddress" not in shown
    assert shown["PrivateDnsName"] == f"{started['InstanceId']}.ec2.internal"
    (row,) = [row for row in simulated.command("ps").stdout.splitlines() if started["InstanceId"] in row]
    assert shown["Ipv6Address"] in row
    drawn = simulated.command("net", "show", ipv6_only["VpcId"]).stdout
    assert f"{subnet} {block} " in drawn and f" {shown['Ipv6Address']} {started['InstanceId']}" in drawn
    interface = one(ec2, shown["NetworkInterfaces"][0]["NetworkInterfaceId"])
    assert interface["Ipv6Native"] and interface["PrivateIpAddresses"] == [] and "PrivateIpAddress" not in interface
    assert addresses(interface) == [shown["Ipv6Address"]]
    id_of = {"NetworkInterfaceId": interface["NetworkInterfaceId"]}
    more = ec2.assign_ipv6_addresses(Ipv6AddressCount=1, **id_of)["AssignedIpv6Addresses"]
    assert len(addresses(one(ec2, id_of["NetworkInterfaceId"]))) == 2 and ipaddress.ip_address(more[0]) in block
    code = error_code(ec2.assign_private_ip_addresses, SecondaryPrivateIpAddressCount=1, **id_of)
    assert code == "InvalidParameterValue"
    elastic = ec2.allocate_address()["AllocationId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=ipv6_only["VpcId"])
    assert error_code(ec2.associate_address, AllocationId=elastic, **id_of) == "InvalidParameterValue"
    ec2.release_address(AllocationId=elastic)
    launch = {"ImageId": ami, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.micro"}
    nic = {"DeviceIndex": 0, "SubnetId": subnet}
    for parameters in [
        {"NetworkInterfaces": [{**nic, "AssociatePublicIpAddress": True}]},
        {"SubnetId": subnet, "PrivateIpAddress": "10.60.1.9"},
        {"SubnetId": subnet, "PrivateDnsNameOptions": {"HostnameType": "ip-name"}},
    ]:
        assert error_code(ec2.run_instances, **launch, **parameters) == "InvalidParameterValue", parameters
    wanted = {"HostnameType": "resource-name", "EnableResourceNameDnsARecord": False}
    assert shown["PrivateDnsNameOptions"] == {**wanted, "EnableResourceNameDnsAAAARecord": True}
    ec2.terminate_instances(InstanceIds=[started["InstanceId"]])
    wait(ec2, "instance_terminated", [started["InstanceId"]])
    made = create(ec2, subnet)
    assert len(addresses(made)) == 1 and made["PrivateIpAddresses"] == []
    ec2.delete_network_interface(NetworkInterfaceId=made["NetworkInterfaceId"])
    ec2.delete_subnet(SubnetId=subnet)


def test_a_nat_gateway_leads_it_to_what_has_ipv4_alone(simulated, ec2, network, ipv6_only):
    vpc, subnet, outer = ipv6_only["VpcId"], ipv6_only["SubnetId"], network[0]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    elastic = ec2.allocate_address(Domain="vpc")["AllocationId"]
    nat = ec2.create_nat_gateway(SubnetId=outer, AllocationId=elastic)["NatGateway"]["NatGatewayId"]
    ready(ec2, "nat_gateway_available", NatGatewayIds=[nat])
    out = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": gateway}
    for within, route in [(outer, out), (subnet, {"DestinationIpv6CidrBlock": "64:ff9b::/96", "NatGatewayId": nat})]:
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.associate_route_table(RouteTableId=table, SubnetId=within)
        ec2.create_route(RouteTableId=table, **route)
    by_nat = {"RouteTableId": table, "NatGatewayId": nat}
    for other in ["::/0", "64:ff9b::/95", "64:ff9b:1::/96", "2001:db8::/32"]:
        code = error_code(ec2.create_route, DestinationIpv6CidrBlock=other, **by_nat)
        assert code == "InvalidParameterValue", other
    many = {"AddressFamily": "IPv6", "MaxEntries": 1, "Entries": [{"Cidr": "64:ff9b::/96"}]}
    listed = ec2.create_managed_prefix_list(PrefixListName="translated", **many)["PrefixList"]["PrefixListId"]
    assert error_code(ec2.create_route, DestinationPrefixListId=listed, **by_nat) == "InvalidParameterValue"
    ec2.create_route(DestinationIpv6CidrBlock="64:ff9b::c000:200/120", **by_nat)
    (shown,) = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"]
    assert {route["DestinationIpv6CidrBlock"] for route in shown["Routes"] if route.get("NatGatewayId") == nat} == {
        "64:ff9b::/96",
        "64:ff9b::c000:200/120",
    }

    interface = create(ec2, subnet)["NetworkInterfaceId"]
    peer = create(ec2, subnet)["NetworkInterfaceId"]
    told = simulated.command("net", "trace", interface, "64:ff9b::203.0.113.9", "--port", "443").stdout
    assert nat in told and "203.0.113.9" in told and told.splitlines()[-1] == "It passes."
    # Of two that have IPv6 alone, the way over IPv6 is meant.
    (own,) = addresses(one(ec2, interface))
    ask = ["net", "trace", interface, peer, "--port", "443", "--data-dir", simulated.data_dir]
    told = subprocess.run([BINARY, *ask], capture_output=True, text=True).stdout
    assert own in told and "0.0.0.0" not in told and "::" in told, told
    # One that has none is told to have none.
    other = create(ec2, outer)["NetworkInterfaceId"]
    told = subprocess.run([BINARY, *ask[:3], other, *ask[4:]], capture_output=True, text=True)
    assert told.returncode != 0 and f"{other} has no IPv6 address." in told.stderr


def test_a_default_subnet_can_be_of_ipv6_alone(cloud_factory):
    ec2 = cloud_factory("--simulate").client()
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    (old,) = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": [zone]}])["Subnets"]
    ec2.delete_subnet(SubnetId=old["SubnetId"])
    wanted = {"AvailabilityZone": zone, "Ipv6Native": True}
    assert error_code(ec2.create_default_subnet, **wanted) == "InsufficientCidrBlocks"
    ec2.associate_vpc_cidr_block(VpcId=vpc["VpcId"], AmazonProvidedIpv6CidrBlock=True)
    made = ec2.create_default_subnet(**wanted)["Subnet"]
    assert made["Ipv6Native"] and made["DefaultForAz"] and not made["MapPublicIpOnLaunch"]
    assert made["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"].endswith("/64")
