"""Placement groups are rules: seen from describe, and from where the operator sees the instances."""

import collections

import pytest
from conftest import error_code, run


@pytest.fixture(scope="module")
def racks(request):
    """Two zones of four racks of three hosts each."""
    from conftest import Cloud

    cloud = Cloud("--simulate", "--hosts", "24", "--racks", "8", "--zones", "2").start()
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def ec2(racks):
    return racks.client()


@pytest.fixture(scope="module")
def ami(ec2):
    images = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
    return sorted(image["ImageId"] for image in images)[0]


@pytest.fixture(scope="module")
def zone(ec2):
    return ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]


def where(cloud):
    """Host and rack of each instance, as `cumulet hosts` prints them."""
    table = lambda *flags: [line.split() for line in cloud.command("hosts", *flags).stdout.splitlines()[1:]]
    rack = {row[0]: (row[1], row[2]) for row in table()}
    return {row[1]: (row[0], rack[row[0]]) for row in table("--instances")}


def place(ec2, ami, zone, count, **placement):
    return run(ec2, ami, count, Placement={"AvailabilityZone": zone, **placement})


def test_hosts_are_spread_over_zones_and_racks(racks):
    rows = [line.split() for line in racks.command("hosts").stdout.splitlines()[1:]]
    assert len(rows) == 24
    racks_of = collections.Counter((row[1], row[2]) for row in rows)
    assert len(racks_of) == 8 and set(racks_of.values()) == {3}


def test_partitions_share_no_rack_and_are_balanced(racks, ec2, ami, zone):
    ec2.create_placement_group(GroupName="parts", Strategy="partition", PartitionCount=3)
    instances = place(ec2, ami, zone, 9, GroupName="parts")
    partitions = {i["InstanceId"]: i["Placement"]["PartitionNumber"] for i in instances}
    assert sorted(partitions.values()) == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    at = where(racks)
    owners = {}
    for instance, partition in partitions.items():
        assert owners.setdefault(at[instance][1], partition) == partition
    (named,) = place(ec2, ami, zone, 1, GroupName="parts", PartitionNumber=2)
    assert named["Placement"]["PartitionNumber"] == 2
    assert error_code(lambda: place(ec2, ami, zone, 1, GroupName="parts", PartitionNumber=4)) == "InvalidParameterValue"
    found = ec2.describe_instances(Filters=[{"Name": "placement-partition-number", "Values": ["2"]}])["Reservations"]
    assert len([i for r in found for i in r["Instances"]]) == 4


def test_spread_takes_one_rack_each_and_then_refuses(racks, ec2, ami, zone):
    for unknown in [{"LinkedGroupId": "pg-0123456789abcdef0"}, {"Operator": {"Principal": "eks.amazonaws.com"}}]:
        refused = error_code(lambda: ec2.create_placement_group(GroupName="spread", Strategy="spread", **unknown))
        assert refused == "UnsupportedOperation"
    ec2.create_placement_group(GroupName="spread", Strategy="spread")
    instances = place(ec2, ami, zone, 4, GroupName="spread")
    at = where(racks)
    assert len({at[i["InstanceId"]][1] for i in instances}) == 4
    code = error_code(lambda: place(ec2, ami, zone, 1, GroupName="spread"))
    assert code == "InsufficientInstanceCapacity"


def test_spread_holds_seven_in_a_zone(cloud_factory):
    ec2 = cloud_factory("--simulate", "--hosts", "10", "--racks", "10", "--zones", "1").client()
    ami = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
    ec2.create_placement_group(GroupName="spread", Strategy="spread")
    for _ in range(7):
        run(ec2, ami, Placement={"GroupName": "spread"})
    code = error_code(lambda: run(ec2, ami, Placement={"GroupName": "spread"}))
    assert code == "PlacementGroupInstanceLimitExceeded"


def test_a_cluster_is_one_rack_until_it_is_full(racks, ec2, ami, zone):
    ec2.create_placement_group(GroupName="cluster", Strategy="cluster")
    instances = place(ec2, ami, zone, 5, GroupName="cluster")
    at = where(racks)
    assert len({at[i["InstanceId"]][1] for i in instances}) == 1
    assert error_code(lambda: place(ec2, ami, zone, 1000, GroupName="cluster")) == "InsufficientInstanceCapacity"
    assert error_code(lambda: ec2.delete_placement_group(GroupName="cluster")) == "InvalidPlacementGroup.InUse"
    ids = [i["InstanceId"] for i in instances]
    ec2.terminate_instances(InstanceIds=ids)
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1})
    ec2.delete_placement_group(GroupName="cluster")
    assert error_code(lambda: ec2.describe_placement_groups(GroupNames=["cluster"])) == "InvalidPlacementGroup.Unknown"


def test_a_placement_is_explained(racks, ec2, ami, zone):
    (instance,) = place(ec2, ami, zone, 1)
    lines = racks.command("explain", "placement", instance["InstanceId"]).stdout.splitlines()
    here = where(racks)[instance["InstanceId"]][0]
    assert lines[0].startswith(f"{instance['InstanceId']} is on {here}")
    verdicts = {line.split()[0]: line for line in lines[2:]}
    assert len(verdicts) == 24
    assert verdicts[here].endswith("here")
    assert sum(line.endswith("no: in another Availability Zone") for line in verdicts.values()) == 12
    unknown = racks.command("explain", "placement", "i-00000000000000000", check=False)
    assert unknown.returncode != 0 and "does not exist" in unknown.stderr
