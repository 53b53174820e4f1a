"""Tenancies: dedicated instances, Dedicated Hosts, and where instances of each may be."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.config import Config
from conftest import error_code, run


@pytest.fixture(scope="module")
def cloud():
    """Two zones of four racks of three hosts each."""
    from conftest import Cloud

    cloud = Cloud("--simulate", "--hosts", "24", "--racks", "8", "--zones", "2").start()
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def ec2(cloud):
    # That there is no room is asked for once: it does not pass.
    return cloud.client(config=Config(retries={"total_max_attempts": 1}))


@pytest.fixture(scope="module")
def ami(ec2):
    images = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
    return sorted(image["ImageId"] for image in images)[0]


@pytest.fixture(scope="module")
def zones(ec2):
    return [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]]


@pytest.fixture
def allocate(ec2, zones):
    """Allocates hosts that are released when the test has ended and left nothing on them."""
    allocated = []

    def make(zone=0, quantity=1, **parameters):
        if "InstanceFamily" not in parameters:
            parameters.setdefault("InstanceType", "m5.large")
        ids = ec2.allocate_hosts(AvailabilityZone=zones[zone], Quantity=quantity, **parameters)["HostIds"]
        allocated.extend(ids)
        return ids if quantity > 1 else ids[0]

    yield make
    if allocated:
        ec2.release_hosts(HostIds=allocated)


@pytest.fixture
def launch(ec2, ami, zones):
    """Launches instances that are gone when the test has ended."""
    launched = []

    def make(count=1, zone=0, instance_type="m5.large", **placement):
        placement["AvailabilityZone"] = zones[zone]
        instances = run(ec2, ami, count, InstanceType=instance_type, Placement=placement)
        launched.extend(instance["InstanceId"] for instance in instances)
        return instances if count > 1 else instances[0]

    yield make
    if launched:
        ec2.terminate_instances(InstanceIds=launched)
        wait(ec2, "instance_terminated", launched)


def wait(ec2, waiter, ids):
    """Looked at often, for a simulated cloud is quick."""
    ec2.get_waiter(waiter).wait(InstanceIds=ids, WaiterConfig={"Delay": 0.02, "MaxAttempts": 1000})


def described(ec2, instance_id):
    return ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def host(ec2, host_id):
    return ec2.describe_hosts(HostIds=[host_id])["Hosts"][0]


def stop(ec2, instance):
    wait(ec2, "instance_running", [instance["InstanceId"]])
    ec2.stop_instances(InstanceIds=[instance["InstanceId"]])
    wait(ec2, "instance_stopped", [instance["InstanceId"]])


def start(ec2, instance):
    ec2.start_instances(InstanceIds=[instance["InstanceId"]])
    wait(ec2, "instance_running", [instance["InstanceId"]])


def machines(cloud):
    """The machine that each instance is on, and the Dedicated Host that each machine is."""
    table = lambda *flags: [line.split() for line in cloud.command("hosts", *flags).stdout.splitlines()[1:]]
    return {row[1]: row[0] for row in table("--instances")}, {row[0]: row[-1] for row in table()}


def test_a_host_is_allocated_described_and_released(ec2, zones, cloud):
    before = cloud.command("hosts").stdout
    tags = [{"ResourceType": "dedicated-host", "Tags": [{"Key": "purpose", "Value": "licences"}]}]
    parameters = dict(
        AvailabilityZone=zones[1], InstanceType="m5.large", Quantity=2, AutoPlacement="on", HostRecovery="on",
        HostMaintenance="on", TagSpecifications=tags, ClientToken="two-hosts",
    )
    ids = ec2.allocate_hosts(**parameters)["HostIds"]
    assert len(set(ids)) == 2
    assert ec2.allocate_hosts(**parameters)["HostIds"] == ids
    assert error_code(lambda: ec2.allocate_hosts(**{**parameters, "Quantity": 1})) == "IdempotentParameterMismatch"
    found = ec2.describe_hosts(HostIds=[ids[0]])["Hosts"][0]
    assert (found["State"], found["AvailabilityZone"]) == ("available", zones[1])
    assert (found["AutoPlacement"], found["HostRecovery"], found["HostMaintenance"]) == ("on", "on", "on")
    assert (found["AllowsMultipleInstanceTypes"], found["ClientToken"]) == ("off", "two-hosts")
    assert found["HostProperties"]["InstanceType"] == "m5.large" and found["HostProperties"]["Cores"] == 64
    (size,) = found["AvailableCapacity"]["AvailableInstanceCapacity"]
    # 512 GiB of 8 GiB each; vCPUs would do for twice as many.
    assert (size["TotalCapacity"], size["AvailableCapacity"]) == (64, 64)
    assert found["Tags"] == [{"Key": "purpose", "Value": "licences"}]
    assert set(ids) <= set(machines(cloud)[1].values())

    released = ec2.release_hosts(HostIds=[*ids, "h-00000000000000000"])
    assert sorted(released["Successful"]) == sorted(ids)
    assert [item["Error"]["Code"] for item in released["Unsuccessful"]] == ["Client.InvalidHostID.NotFound"]
    gone = host(ec2, ids[0])
    assert gone["State"] == "released" and "ReleaseTime" in gone and "AvailableCapacity" not in gone
    assert [item["Error"]["Code"] for item in ec2.release_hosts(HostIds=ids)["Unsuccessful"]] == [
        "Client.InvalidHostState"
    ] * 2
    assert cloud.command("hosts").stdout == before


def test_filters_and_pages(ec2, zones, allocate):
    ids = sorted(allocate(quantity=4) + allocate(zone=1, quantity=3, InstanceFamily="c5", AutoPlacement="on"))
    current = {"Name": "state", "Values": ["available"]}
    found = lambda *filters: [
        one["HostId"]
        for one in ec2.describe_hosts(Filter=[current, *({"Name": n, "Values": [v]} for n, v in filters)])["Hosts"]
    ]
    assert found() == ids
    assert len(found(("auto-placement", "on"))) == 3
    assert len(found(("instance-type", "m5.large"))) == 4
    assert found(("availability-zone", zones[1]), ("instance-type", "*")) == []
    assert found(("host-reservation-id", "*")) == found(("client-token", "x")) == found(("tag-key", "x")) == []
    ec2.create_tags(Resources=[ids[2]], Tags=[{"Key": "x", "Value": "y"}])
    assert found(("tag-key", "x")) == found(("tag:x", "y")) == [ids[2]]
    pages = ec2.get_paginator("describe_hosts").paginate(Filter=[current], PaginationConfig={"PageSize": 5})
    assert [[one["HostId"] for one in page["Hosts"]] for page in pages] == [ids[:5], ids[5:]]
    assert error_code(lambda: ec2.describe_hosts(MaxResults=501)) == "InvalidParameterValue"
    assert error_code(lambda: ec2.describe_hosts(Filter=[{"Name": "x", "Values": ["y"]}])) == "InvalidParameterValue"
    assert error_code(lambda: ec2.describe_hosts(HostIds=["h-00000000000000000"])) == "InvalidHostID.NotFound"
    assert error_code(lambda: ec2.describe_hosts(HostIds=["i-00000000000000000"])) == "InvalidHostID.Malformed"


def test_what_cannot_be_allocated_is_refused(ec2, zones):
    asked = lambda **other: error_code(
        lambda: ec2.allocate_hosts(**{"AvailabilityZone": zones[0], "InstanceType": "m5.large", "Quantity": 1, **other})
    )
    assert asked(Quantity=0) == "InvalidQuantity"
    assert asked(Quantity=13) == "InsufficientHostCapacity"
    assert asked(InstanceFamily="m5") == "InvalidParameterCombination"
    assert asked(InstanceType="m5.mini") == "InvalidParameterValue"
    assert asked(InstanceType="t2.micro") == "UnsupportedHostConfiguration"
    assert asked(InstanceType="", InstanceFamily="Mac1") == "InvalidHostConfiguration"
    assert asked(AvailabilityZone="us-east-1z") == "InvalidParameterValue"
    # The hosts behind this cloud are of the other architecture.
    assert asked(InstanceType="m6g.large") == "InsufficientHostCapacity"
    assert error_code(lambda: ec2.release_hosts(HostIds=["h-1"])) == "InvalidHostID.Malformed"


def test_host_tenancy_is_on_a_dedicated_host_alone(ec2, cloud, allocate, launch):
    assert error_code(lambda: launch(Tenancy="host")) == "InsufficientHostCapacity"
    closed, open_ = allocate(), allocate(AutoPlacement="on")
    named = launch(HostId=closed, Tenancy="host", Affinity="host")
    assert (named["Placement"]["HostId"], named["Placement"]["Affinity"]) == (closed, "host")
    implied = launch(HostId=closed)
    assert (implied["Placement"]["Tenancy"], implied["Placement"]["Affinity"]) == ("host", "default")
    placed = launch(Tenancy="host")
    assert (placed["Placement"]["HostId"], placed["Placement"]["Tenancy"]) == (open_, "host")
    shared = launch()
    assert "HostId" not in shared["Placement"] and "Affinity" not in shared["Placement"]
    machine, dedicated = machines(cloud)
    assert dedicated[machine[named["InstanceId"]]] == dedicated[machine[implied["InstanceId"]]] == closed
    assert dedicated[machine[placed["InstanceId"]]] == open_ and dedicated[machine[shared["InstanceId"]]] == "-"

    on = host(ec2, closed)
    assert {one["InstanceId"] for one in on["Instances"]} == {named["InstanceId"], implied["InstanceId"]}
    assert on["AvailableCapacity"]["AvailableInstanceCapacity"][0]["AvailableCapacity"] == 62
    assert on["AvailableCapacity"]["AvailableVCpus"] == on["HostProperties"]["TotalVCpus"] - 4
    by = lambda name, value: {
        instance["InstanceId"]
        for reservation in ec2.describe_instances(Filters=[{"Name": name, "Values": [value]}])["Reservations"]
        for instance in reservation["Instances"]
        if instance["State"]["Name"] != "terminated"
    }
    assert by("host-id", closed) == {named["InstanceId"], implied["InstanceId"]}
    assert by("affinity", "host") == {named["InstanceId"]}
    assert by("tenancy", "host") == {one["InstanceId"] for one in (named, implied, placed)}

    (item,) = ec2.release_hosts(HostIds=[closed])["Unsuccessful"]
    assert item["ResourceId"] == closed and item["Error"]["Code"] == "Client.InvalidHost.Occupied"
    lines = cloud.command("explain", "placement", named["InstanceId"]).stdout.splitlines()
    verdicts = {line.split()[0]: line for line in lines[2:]}
    assert verdicts[machine[named["InstanceId"]]].endswith("here")
    assert "not the Dedicated Host that the instance names" in verdicts[machine[placed["InstanceId"]]]
    assert "not allocated as a Dedicated Host" in verdicts[machine[shared["InstanceId"]]]


def test_what_a_dedicated_host_does_not_take_is_refused(ec2, allocate, launch):
    one, family = allocate(), allocate(InstanceFamily="m5")
    refused = lambda **asked: error_code(lambda: launch(**asked))
    assert refused(HostId=one, instance_type="m5.xlarge") == "InvalidHostConfiguration"
    assert refused(HostId=family, instance_type="c5.large") == "InvalidHostConfiguration"
    assert launch(HostId=family, instance_type="m5.xlarge")["Placement"]["HostId"] == family
    assert refused(HostId=one, count=65) == "InsufficientCapacityOnHost"
    assert refused(HostId=one, zone=1) == "InvalidParameterCombination"
    assert refused(HostId=one, Tenancy="dedicated") == "InvalidParameterCombination"
    assert refused(Affinity="host") == "InvalidParameterCombination"
    assert refused(HostId=one, Affinity="near") == "InvalidAffinity"
    assert refused(HostId="h-00000000000000000") == "InvalidHostID.NotFound"
    ec2.release_hosts(HostIds=[one])
    assert refused(HostId=one) == "InvalidHostState"


def test_hosts_are_modified(ec2, allocate, launch):
    first, second = sorted(allocate(quantity=2))
    modified = ec2.modify_hosts(
        HostIds=[first, "h-00000000000000000"], AutoPlacement="on", HostRecovery="on", InstanceFamily="m5"
    )
    assert modified["Successful"] == [first]
    assert [item["Error"]["Code"] for item in modified["Unsuccessful"]] == ["Client.InvalidHostID.NotFound"]
    found = host(ec2, first)
    assert (found["AutoPlacement"], found["HostRecovery"]) == ("on", "on")
    assert (found["AllowsMultipleInstanceTypes"], found["HostProperties"]["InstanceFamily"]) == ("on", "m5")
    sizes = {size["InstanceType"] for size in found["AvailableCapacity"]["AvailableInstanceCapacity"]}
    assert {"m5.large", "m5.24xlarge"} <= sizes
    assert host(ec2, second)["AutoPlacement"] == "off"

    assert launch(Tenancy="host", instance_type="m5.xlarge")["Placement"]["HostId"] == first
    code = lambda **change: ec2.modify_hosts(HostIds=[first], **change)["Unsuccessful"][0]["Error"]["Code"]
    assert code(InstanceType="m5.large") == "Client.InvalidHostConfiguration"
    assert code(InstanceFamily="c5") == "Client.InvalidHostConfiguration"
    assert error_code(lambda: ec2.modify_hosts(HostIds=[first])) == "InvalidParameterCombination"
    ec2.release_hosts(HostIds=[second])
    assert ec2.modify_hosts(HostIds=[second], AutoPlacement="on")["Unsuccessful"][0]["Error"]["Code"] == (
        "Client.InvalidHostState"
    )


def test_dedicated_and_default_instances_share_no_host(ec2, cloud, launch):
    dedicated = launch(count=3, Tenancy="dedicated")
    shared = launch(count=20)
    machine, _ = machines(cloud)
    of = lambda instances: {machine[instance["InstanceId"]] for instance in instances}
    # Dedicated instances keep together, so that they take few hosts away.
    assert len(of(dedicated)) == 1 and not of(dedicated) & of(shared)
    assert {instance["Placement"]["Tenancy"] for instance in dedicated} == {"dedicated"}
    # Every other host has instances of default tenancy by now.
    assert error_code(lambda: launch(Tenancy="dedicated", count=64)) == "InsufficientInstanceCapacity"
    lines = cloud.command("explain", "placement", dedicated[0]["InstanceId"]).stdout.splitlines()
    assert any(line.endswith("no: holds instances of default tenancy") for line in lines)
    lines = cloud.command("explain", "placement", shared[0]["InstanceId"]).stdout.splitlines()
    assert any(line.endswith("no: holds dedicated instances") for line in lines)


def test_groups_take_only_the_tenancies_they_may(ec2, allocate, launch):
    for strategy in ("cluster", "spread"):
        ec2.create_placement_group(GroupName=f"tenancy-{strategy}", Strategy=strategy)
    refused = lambda **asked: error_code(lambda: launch(**asked))
    allocate(AutoPlacement="on")
    assert refused(GroupName="tenancy-cluster", Tenancy="host") == "InvalidParameterCombination"
    assert refused(GroupName="tenancy-spread", Tenancy="dedicated") == "InvalidParameterCombination"
    assert launch(GroupName="tenancy-cluster", Tenancy="dedicated")["Placement"]["Tenancy"] == "dedicated"


def move(ec2, instance, **placement):
    return ec2.modify_instance_placement(InstanceId=instance["InstanceId"], **placement)["Return"]


def where(ec2, instance):
    return described(ec2, instance["InstanceId"])["Placement"]


def test_affinity_says_where_an_instance_comes_back(ec2, allocate, launch):
    first, second = sorted(allocate(quantity=2))
    bound, free = launch(HostId=first, Affinity="host"), launch(HostId=first)
    stop(ec2, bound), stop(ec2, free)
    # Stopped instances keep no host; the last host is still where they were.
    assert host(ec2, first)["Instances"] == [] and where(ec2, free)["HostId"] == first
    start(ec2, free)
    assert where(ec2, free)["HostId"] == first

    stop(ec2, free)
    ec2.modify_hosts(HostIds=[second], AutoPlacement="on")
    for instance in launch(count=64, HostId=first):
        assert instance["Placement"]["HostId"] == first
    assert error_code(lambda: start(ec2, bound)) == "InsufficientCapacityOnHost"
    start(ec2, free)
    assert where(ec2, free)["HostId"] == second
    assert move(ec2, bound, HostId=second)
    start(ec2, bound)
    assert where(ec2, bound)["HostId"] == second and where(ec2, bound)["Affinity"] == "host"
    # Affinity alone may change while it runs.
    assert move(ec2, bound, Affinity="default") and where(ec2, bound)["Affinity"] == "default"
    assert error_code(lambda: move(ec2, bound, HostId=first)) == "InvalidInstanceState"


def test_a_tenancy_is_changed_and_holds_from_the_next_start(ec2, cloud, allocate, launch):
    host_id = allocate()
    instance, other = launch(Tenancy="dedicated"), launch(Tenancy="dedicated")
    volumes = [device["Ebs"]["VolumeId"] for device in described(ec2, instance["InstanceId"])["BlockDeviceMappings"]]
    assert error_code(lambda: move(ec2, instance, Tenancy="host")) == "InvalidInstanceState"
    stop(ec2, instance)
    assert error_code(lambda: move(ec2, instance, HostId=host_id)) == "InvalidParameterCombination"
    assert error_code(lambda: move(ec2, instance, Affinity="host")) == "InvalidParameterCombination"
    assert error_code(lambda: move(ec2, instance)) == "InvalidParameterCombination"
    assert move(ec2, instance, Tenancy="host", Affinity="host")
    # No host has auto-placement.
    assert error_code(lambda: start(ec2, instance)) == "InsufficientHostCapacity"
    assert move(ec2, instance, HostId=host_id)
    start(ec2, instance)
    placement = where(ec2, instance)
    assert (placement["Tenancy"], placement["Affinity"], placement["HostId"]) == ("host", "host", host_id)
    machine, dedicated = machines(cloud)
    assert dedicated[machine[instance["InstanceId"]]] == host_id
    assert dedicated[machine[other["InstanceId"]]] == "-"
    after = described(ec2, instance["InstanceId"])["BlockDeviceMappings"]
    assert [device["Ebs"]["VolumeId"] for device in after] == volumes

    stop(ec2, instance)
    assert move(ec2, instance, Tenancy="dedicated")
    start(ec2, instance)
    assert "HostId" not in where(ec2, instance) and where(ec2, instance)["Tenancy"] == "dedicated"
    machine, _ = machines(cloud)
    assert machine[instance["InstanceId"]] == machine[other["InstanceId"]]
    assert ec2.release_hosts(HostIds=[host_id])["Successful"] == [host_id]

    small = launch(Tenancy="dedicated", instance_type="t3.micro")
    stop(ec2, small)
    assert error_code(lambda: move(ec2, small, Tenancy="host")) == "InvalidRequest"


def test_what_an_instance_cannot_be_moved_to_is_refused(ec2, allocate, launch):
    elsewhere, other = allocate(zone=1), allocate(InstanceType="c5.large")
    instance = launch(Tenancy="dedicated")
    stop(ec2, instance)
    refused = lambda **to: error_code(lambda: move(ec2, instance, **to))
    assert refused(Tenancy="host", HostId=elsewhere) == "InvalidParameterCombination"
    assert refused(Tenancy="host", HostId=other) == "InvalidHostConfiguration"
    assert refused(Tenancy="host", HostId="h-00000000000000000") == "InvalidHostID.NotFound"
    assert refused(GroupName="nowhere") == "InvalidPlacementGroup.Unknown"
    assert refused(PartitionNumber=1) == "InvalidParameterCombination"
    assert error_code(lambda: ec2.modify_instance_placement(InstanceId="i-00000000000000000", Tenancy="host")) == (
        "InvalidInstanceID.NotFound"
    )
    ec2.release_hosts(HostIds=[other])
    assert refused(Tenancy="host", HostId=other) == "InvalidHostState"
    assert where(ec2, instance)["Tenancy"] == "dedicated"


def test_a_stopped_instance_joins_and_leaves_groups(ec2, cloud, launch):
    rack = {row.split()[0]: row.split()[2] for row in cloud.command("hosts").stdout.splitlines()[1:]}
    at = lambda instance: rack[machines(cloud)[0][instance["InstanceId"]]]
    ec2.create_placement_group(GroupName="joined-cluster", Strategy="cluster")
    parts = ec2.create_placement_group(GroupName="joined-parts", Strategy="partition", PartitionCount=2)
    first = launch(GroupName="joined-cluster")
    instances = launch(count=4)
    for instance in instances:
        stop(ec2, instance)
        assert move(ec2, instance, GroupName="joined-cluster")
        start(ec2, instance)
    assert {at(instance) for instance in instances} == {at(first)}

    by_id = parts["PlacementGroup"]["GroupId"]
    for instance, partition in zip(instances, (1, 2, None, None)):
        stop(ec2, instance)
        assert move(ec2, instance, GroupId=by_id, **({"PartitionNumber": partition} if partition else {}))
        start(ec2, instance)
    partitions = [where(ec2, instance)["PartitionNumber"] for instance in instances]
    assert partitions[:2] == [1, 2] and sorted(partitions) == [1, 1, 2, 2]
    racks = {number: {at(i) for i, p in zip(instances, partitions) if p == number} for number in (1, 2)}
    assert not racks[1] & racks[2]
    stop(ec2, instances[0])
    assert error_code(lambda: move(ec2, instances[0], PartitionNumber=3)) == "InvalidParameterValue"
    assert move(ec2, instances[0], GroupName="")
    start(ec2, instances[0])
    assert where(ec2, instances[0])["GroupName"] == "" and "PartitionNumber" not in where(ec2, instances[0])


def test_a_start_goes_elsewhere_where_its_host_may_not_take_it_back(ec2, cloud, allocate, launch, zones):
    instance = launch(zone=1)
    before = machines(cloud)[0][instance["InstanceId"]]
    stop(ec2, instance)
    # Every machine of the zone but one is allocated, the instance's too.
    ids = allocate(zone=1, quantity=11)
    start(ec2, instance)
    machine, dedicated = machines(cloud)
    after = machine[instance["InstanceId"]]
    assert dedicated[before] in ids and after != before and dedicated[after] == "-"
    stop(ec2, instance)
    allocate(zone=1)
    assert error_code(lambda: start(ec2, instance)) == "InsufficientInstanceCapacity"
    assert described(ec2, instance["InstanceId"])["State"]["Name"] == "stopped"


def test_at_once_no_room_and_no_host_is_given_twice(ec2, cloud, zones, allocate, launch):
    # Each of these instances fills a host.
    host_id = allocate(InstanceType="m5.24xlarge")
    instances = []
    for _ in range(4):
        instances.append(launch(instance_type="m5.24xlarge", HostId=host_id, Affinity="host"))
        stop(ec2, instances[-1])
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda instance: error_code(lambda: start(ec2, instance)), instances))
    assert sorted(codes, key=str) == ["InsufficientCapacityOnHost"] * 3 + [None]

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda _: error_code(lambda: allocate(zone=1, quantity=5)), range(4)))
    assert sorted(codes, key=str) == ["InsufficientHostCapacity"] * 2 + [None] * 2
    dedicated = [id for id in machines(cloud)[1].values() if id != "-"]
    assert len(dedicated) == len(set(dedicated)) == 11


def test_a_simulated_cloud_of_any_size_has_hosts_to_allocate(simulated):
    ec2 = simulated.client(region="eu-west-1")
    images = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
    launch = lambda **placement: run(
        ec2, images[0]["ImageId"], InstanceType="m5.large", Placement={"AvailabilityZone": "eu-west-1a", **placement}
    )[0]
    shared = launch()
    (host_id,) = ec2.allocate_hosts(AvailabilityZone="eu-west-1a", InstanceFamily="m5", Quantity=1)["HostIds"]
    on_host, dedicated, after = launch(HostId=host_id), launch(Tenancy="dedicated"), launch()
    assert on_host["Placement"]["HostId"] == host_id and dedicated["Placement"]["Tenancy"] == "dedicated"
    ids = [instance["InstanceId"] for instance in (shared, on_host, dedicated, after)]
    wait(ec2, "instance_running", ids)
    ec2.terminate_instances(InstanceIds=ids)
    wait(ec2, "instance_terminated", ids)
    assert ec2.release_hosts(HostIds=[host_id])["Successful"] == [host_id]
