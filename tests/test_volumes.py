"""Volumes through boto3: made, attached, modified, snapshotted, deleted; images of what they hold."""

import time
import uuid

import pytest
from conftest import error_code, run

MISSING = "vol-0123456789abcdef0"
ZONE = "us-east-1a"


def wait(ec2, waiter, **ids):
    ec2.get_waiter(waiter).wait(**ids, WaiterConfig={"Delay": 0.1, "MaxAttempts": 300})


def eventually(found):
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def zone_of(ec2, instance):
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return found["Placement"]["AvailabilityZone"]


def described(ec2, volume):
    return ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]


def make(ec2, zone=ZONE, size=1, **parameters):
    volume = ec2.create_volume(AvailabilityZone=zone, Size=size, **parameters)["VolumeId"]
    wait(ec2, "volume_available", VolumeIds=[volume])
    return volume


@pytest.fixture
def instance(ec2, ami):
    instance = run(ec2, ami)[0]["InstanceId"]
    wait(ec2, "instance_running", InstanceIds=[instance])
    yield instance
    ec2.terminate_instances(InstanceIds=[instance])


@pytest.fixture
def volume(ec2, instance):
    return make(ec2, zone_of(ec2, instance))


def test_a_volume_is_as_it_was_asked_for(ec2):
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}]
    made = ec2.create_volume(
        AvailabilityZone=ZONE, Size=100, VolumeType="gp3", Iops=4000, Throughput=500, TagSpecifications=tags
    )
    assert made["State"] == "creating" and made["Attachments"] == []
    wait(ec2, "volume_available", VolumeIds=[made["VolumeId"]])
    volume = described(ec2, made["VolumeId"])
    expected = {"Size": 100, "VolumeType": "gp3", "Iops": 4000, "Throughput": 500, "AvailabilityZone": ZONE}
    assert {name: volume[name] for name in expected} == expected
    assert volume["Tags"] == [{"Key": "a", "Value": "b"}] and volume["SnapshotId"] == ""


def test_a_token_makes_one_volume(ec2):
    token = uuid.uuid4().hex
    parameters = {"AvailabilityZone": ZONE, "Size": 1, "ClientToken": token}
    first, second = (ec2.create_volume(**parameters)["VolumeId"] for _ in range(2))
    assert first == second
    assert error_code(ec2.create_volume, **parameters | {"Size": 2}) == "IdempotentParameterMismatch"
    wait(ec2, "volume_available", VolumeIds=[first])
    ec2.delete_volume(VolumeId=first)
    assert error_code(ec2.create_volume, **parameters) == "IdempotentParameterMismatch"


@pytest.mark.parametrize(
    "parameters, code",
    [
        ({}, "MissingParameter"),
        ({"Size": 0}, "InvalidParameterValue"),
        ({"Size": 1, "VolumeType": "gp4"}, "InvalidParameterValue"),
        ({"Size": 1, "VolumeType": "st1"}, "InvalidParameterValue"),
        ({"Size": 4, "VolumeType": "io1"}, "InvalidParameterCombination"),
        ({"Size": 4, "VolumeType": "io1", "Iops": 1000}, "InvalidParameterCombination"),
        ({"Size": 4, "VolumeType": "gp2", "Iops": 100}, "InvalidParameterCombination"),
        ({"Size": 4, "VolumeType": "gp2", "Throughput": 125}, "InvalidParameterCombination"),
        ({"Size": 1, "AvailabilityZone": "us-east-1q"}, "InvalidZone.NotFound"),
        ({"SnapshotId": "snap-0123456789abcdef0"}, "InvalidSnapshot.NotFound"),
        ({"Size": 1, "KmsKeyId": "alias/aws/ebs"}, "InvalidParameterDependency"),
        ({"Size": 1, "DryRun": True}, "DryRunOperation"),
    ],
)
def test_a_volume_that_cannot_be_is_refused(ec2, parameters, code):
    parameters.setdefault("AvailabilityZone", ZONE)
    before = len(ec2.describe_volumes()["Volumes"])
    assert error_code(ec2.create_volume, **parameters) == code
    assert len(ec2.describe_volumes()["Volumes"]) == before


def test_a_volume_goes_to_a_running_instance_and_back(ec2, instance, volume):
    attached = ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    assert (attached["State"], attached["Device"]) == ("attaching", "/dev/sdf")
    wait(ec2, "volume_in_use", VolumeIds=[volume])
    is_attached = [{"Name": "attachment.status", "Values": ["attached"]}, {"Name": "volume-id", "Values": [volume]}]
    eventually(lambda: ec2.describe_volumes(Filters=is_attached)["Volumes"])
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    devices = {mapping["DeviceName"]: mapping["Ebs"] for mapping in found["BlockDeviceMappings"]}
    assert devices["/dev/sdf"]["VolumeId"] == volume and devices["/dev/sdf"]["DeleteOnTermination"] is False
    assert error_code(ec2.attach_volume, VolumeId=volume, InstanceId=instance, Device="/dev/sdg") == "VolumeInUse"
    assert error_code(ec2.delete_volume, VolumeId=volume) == "VolumeInUse"
    assert ec2.detach_volume(VolumeId=volume)["State"] == "detaching"
    wait(ec2, "volume_available", VolumeIds=[volume])
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert "/dev/sdf" not in [mapping["DeviceName"] for mapping in found["BlockDeviceMappings"]]
    ec2.delete_volume(VolumeId=volume)
    wait(ec2, "volume_deleted", VolumeIds=[volume])
    assert error_code(ec2.delete_volume, VolumeId=volume) == "InvalidVolume.NotFound"


def test_a_stopped_instance_has_its_volumes_at_once(ec2, instance, volume):
    ec2.stop_instances(InstanceIds=[instance])
    wait(ec2, "instance_stopped", InstanceIds=[instance])
    ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    assert described(ec2, volume)["Attachments"][0]["State"] == "attached"
    ec2.detach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    assert described(ec2, volume)["State"] == "available"


def test_the_root_is_replaced_while_the_instance_is_stopped_only(ec2, instance):
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    device = found["RootDeviceName"]
    root = next(m["Ebs"]["VolumeId"] for m in found["BlockDeviceMappings"] if m["DeviceName"] == device)
    assert error_code(ec2.detach_volume, VolumeId=root) == "OperationNotPermitted"
    ec2.stop_instances(InstanceIds=[instance])
    wait(ec2, "instance_stopped", InstanceIds=[instance])
    ec2.detach_volume(VolumeId=root)
    other = make(ec2, zone_of(ec2, instance), 8)
    ec2.attach_volume(VolumeId=other, InstanceId=instance, Device=device)
    ec2.start_instances(InstanceIds=[instance])
    wait(ec2, "instance_running", InstanceIds=[instance])
    assert described(ec2, other)["Attachments"][0]["InstanceId"] == instance


def test_what_cannot_be_attached_or_detached_is_refused(ec2, instance, volume):
    attach, detach = ec2.attach_volume, ec2.detach_volume
    good = {"VolumeId": volume, "InstanceId": instance, "Device": "/dev/sdf"}
    zone = zone_of(ec2, instance)
    elsewhere = next(
        z["ZoneName"] for z in ec2.describe_availability_zones()["AvailabilityZones"] if z["ZoneName"] != zone
    )
    for changed, code in [
        ({"VolumeId": MISSING}, "InvalidVolume.NotFound"),
        ({"InstanceId": "i-0123456789abcdef0"}, "InvalidInstanceID.NotFound"),
        ({"Device": "/dev/nvme1n1"}, "InvalidParameterValue"),
        ({"Device": "/dev/xvda"}, "InvalidParameterValue"),
        ({"VolumeId": make(ec2, elsewhere)}, "InvalidVolume.ZoneMismatch"),
    ]:
        assert error_code(attach, **good | changed) == code, changed
    assert error_code(detach, VolumeId=volume) == "IncorrectState"
    attach(**good)
    assert error_code(detach, VolumeId=volume, Device="/dev/sdz") == "InvalidAttachment.NotFound"


def test_a_volume_grows_and_never_shrinks(ec2, volume):
    modification = ec2.modify_volume(VolumeId=volume, Size=10, VolumeType="gp3")["VolumeModification"]
    assert (modification["OriginalSize"], modification["TargetSize"]) == (1, 10)
    assert modification["TargetVolumeType"] == "gp3" and modification["TargetIops"] == 3000
    filters = [{"Name": "modification-state", "Values": ["completed"]}]
    found = lambda: ec2.describe_volumes_modifications(VolumeIds=[volume], Filters=filters)["VolumesModifications"]
    eventually(found)
    grown = described(ec2, volume)
    assert (grown["Size"], grown["VolumeType"], grown["Throughput"]) == (10, "gp3", 125)
    assert error_code(ec2.modify_volume, VolumeId=volume, Size=9) == "InvalidParameterValue"
    # More for each GiB than io1 takes.
    assert error_code(ec2.modify_volume, VolumeId=volume, VolumeType="io1") == "InvalidParameterCombination"
    modification = ec2.modify_volume(VolumeId=volume, VolumeType="io2")["VolumeModification"]
    assert (modification["TargetIops"], modification["ModificationState"]) == (3000, "completed")
    modification = ec2.modify_volume(VolumeId=volume, Size=10)["VolumeModification"]
    assert modification["ModificationState"] == "completed", "what is so already is no error"
    unmodified = make(ec2)
    missing = "InvalidVolumeModification.NotFound"
    assert error_code(ec2.describe_volumes_modifications, VolumeIds=[unmodified]) == missing


def test_auto_enable_io_is_kept(ec2, volume):
    ec2.modify_volume_attribute(VolumeId=volume, AutoEnableIO={"Value": True})
    assert ec2.describe_volume_attribute(VolumeId=volume, Attribute="autoEnableIO")["AutoEnableIO"]["Value"]


def test_a_snapshot_makes_a_volume_and_outlives_its_own(ec2, volume):
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "a", "Value": "b"}]}]
    made = ec2.create_snapshot(VolumeId=volume, Description="for a test", TagSpecifications=tags)
    assert (made["State"], made["VolumeId"], made["VolumeSize"]) == ("pending", volume, 1)
    ec2.delete_volume(VolumeId=volume)
    snapshot = made["SnapshotId"]
    wait(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    wait(ec2, "volume_deleted", VolumeIds=[volume])
    found = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
    assert (found["Description"], found["Progress"], found["Tags"]) == ("for a test", "100%", [{"Key": "a", "Value": "b"}])
    assert error_code(ec2.create_volume, AvailabilityZone=ZONE, SnapshotId=snapshot, Size=0) == "InvalidParameterValue"
    copy = ec2.create_volume(AvailabilityZone=ZONE, SnapshotId=snapshot)
    assert (copy["Size"], copy["SnapshotId"]) == (1, snapshot)
    wait(ec2, "volume_available", VolumeIds=[copy["VolumeId"]])
    ec2.delete_snapshot(SnapshotId=snapshot)
    assert described(ec2, copy["VolumeId"])["State"] == "available"


def test_snapshots_of_an_instance_are_of_all_its_volumes(ec2, instance, volume):
    ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    of = {"InstanceId": instance}
    everything = ec2.create_snapshots(InstanceSpecification=of)["Snapshots"]
    assert len(everything) == 2 and volume in [snapshot["VolumeId"] for snapshot in everything]
    ids = [snapshot["SnapshotId"] for snapshot in everything]
    wait(ec2, "snapshot_completed", SnapshotIds=ids)
    data = ec2.create_snapshots(InstanceSpecification=of | {"ExcludeBootVolume": True})["Snapshots"]
    assert [snapshot["VolumeId"] for snapshot in data] == [volume]
    nothing = of | {"ExcludeBootVolume": True, "ExcludeDataVolumeIds": [volume]}
    assert error_code(ec2.create_snapshots, InstanceSpecification=nothing) == "InvalidParameterValue"


@pytest.mark.parametrize("no_reboot", [False, True])
def test_an_image_of_an_instance_launches_others(ec2, instance, volume, no_reboot):
    ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    name = f"image-{uuid.uuid4().hex}"
    mappings = [{"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 3}}]
    image = ec2.create_image(InstanceId=instance, Name=name, NoReboot=no_reboot, BlockDeviceMappings=mappings)["ImageId"]
    assert error_code(ec2.create_image, InstanceId=instance, Name=name, NoReboot=True) in (
        "InvalidAMIName.Duplicate",
        "IncorrectInstanceState",
    )
    wait(ec2, "image_available", ImageIds=[image])
    found = ec2.describe_images(ImageIds=[image])["Images"][0]
    devices = {mapping["DeviceName"]: mapping["Ebs"] for mapping in found["BlockDeviceMappings"]}
    assert found["SourceInstanceId"] == instance and set(devices) == {found["RootDeviceName"], "/dev/sdf", "/dev/sdg"}
    assert devices["/dev/sdf"]["SnapshotId"] and "SnapshotId" not in devices["/dev/sdg"]
    # However its guest was captured, it runs all the while.
    source = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert source["State"]["Name"] == "running"
    copy = run(ec2, image)[0]["InstanceId"]
    wait(ec2, "instance_running", InstanceIds=[copy])
    copied = ec2.describe_instances(InstanceIds=[copy])["Reservations"][0]["Instances"][0]
    assert len(copied["BlockDeviceMappings"]) == 3
    ec2.terminate_instances(InstanceIds=[copy])


def test_an_image_that_is_not_whole_launches_nothing(cloud_factory):
    cloud = cloud_factory("--simulate")
    ec2 = cloud.client()
    images = ec2.describe_images(Owners=["amazon"], Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
    instance = run(ec2, images[0]["ImageId"])[0]["InstanceId"]
    wait(ec2, "instance_running", InstanceIds=[instance])
    image = ec2.create_image(InstanceId=instance, Name="stopped meanwhile")["ImageId"]
    # A stop while the guest is held down for the image ends as a stop.
    ec2.stop_instances(InstanceIds=[instance])
    wait(ec2, "instance_stopped", InstanceIds=[instance])
    wait(ec2, "image_available", ImageIds=[image])
    ec2.start_instances(InstanceIds=[instance])
    wait(ec2, "instance_running", InstanceIds=[instance])


@pytest.fixture
def snapshot(ec2, volume):
    snapshot = ec2.create_snapshot(VolumeId=volume, Description="first")["SnapshotId"]
    wait(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    return snapshot


def test_a_snapshot_is_copied_to_another_region(simulated, ec2, snapshot):
    there = simulated.client(region="eu-west-1")
    copy = there.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion="us-east-1", Description="copied")["SnapshotId"]
    wait(there, "snapshot_completed", SnapshotIds=[copy])
    found = there.describe_snapshots(SnapshotIds=[copy])["Snapshots"][0]
    assert (found["Description"], found["VolumeSize"], found["VolumeId"]) == ("copied", 1, "vol-ffffffff")
    assert error_code(ec2.describe_snapshots, SnapshotIds=[copy]) == "InvalidSnapshot.NotFound"
    source = {"SourceSnapshotId": "snap-0123456789abcdef0", "SourceRegion": "us-east-1"}
    assert error_code(there.copy_snapshot, **source) == "InvalidSnapshot.NotFound"
    assert error_code(there.copy_snapshot, **source | {"SourceRegion": "nowhere"}) == "InvalidParameterValue"


def test_an_image_is_copied_with_its_snapshots(simulated, ec2, snapshot):
    name = f"image-{uuid.uuid4().hex}"
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}]
    image = ec2.register_image(Name=name, RootDeviceName="/dev/xvda", BlockDeviceMappings=devices)["ImageId"]
    there = simulated.client(region="eu-west-1")
    copy = there.copy_image(Name=name, SourceImageId=image, SourceRegion="us-east-1")["ImageId"]
    wait(there, "image_available", ImageIds=[copy])
    found = there.describe_images(ImageIds=[copy])["Images"][0]
    of = found["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert found["Name"] == name and of != snapshot
    assert there.describe_snapshots(SnapshotIds=[of])["Snapshots"][0]["State"] == "completed"
    assert error_code(there.delete_snapshot, SnapshotId=of) == "InvalidSnapshot.InUse"


def test_a_snapshot_is_shared(ec2, snapshot):
    shared = {"SnapshotId": snapshot, "Attribute": "createVolumePermission"}

    def permissions():
        return ec2.describe_snapshot_attribute(**shared)["CreateVolumePermissions"]

    assert permissions() == []
    add = {"Add": [{"UserId": "111122223333"}, {"Group": "all"}]}
    ec2.modify_snapshot_attribute(**shared, CreateVolumePermission=add)
    assert permissions() == [{"Group": "all"}, {"UserId": "111122223333"}]
    ec2.modify_snapshot_attribute(**shared, OperationType="remove", GroupNames=["all"])
    assert permissions() == [{"UserId": "111122223333"}]
    assert error_code(ec2.modify_snapshot_attribute, **shared, UserIds=["me"]) == "InvalidParameterValue"
    assert error_code(ec2.describe_snapshot_attribute, SnapshotId=snapshot, Attribute="colour") == "InvalidParameterValue"

    def restorable_by(user):
        found = ec2.describe_snapshots(RestorableByUserIds=[user])["Snapshots"]
        return snapshot in {one["SnapshotId"] for one in found}

    assert restorable_by("111122223333") and restorable_by("self") and not restorable_by("all")
    ec2.reset_snapshot_attribute(**shared)
    assert permissions() == []
    assert not restorable_by("111122223333")


def test_no_snapshot_is_made_public_while_that_is_blocked(simulated):
    ec2 = simulated.client(region="eu-west-3")
    started = simulated.client("ebs", region="eu-west-3").start_snapshot(VolumeSize=1)["SnapshotId"]
    public = {"SnapshotId": started, "Attribute": "createVolumePermission", "GroupNames": ["all"]}

    def state():
        return ec2.get_snapshot_block_public_access_state()["State"]

    def shown():
        found = ec2.describe_snapshots(RestorableByUserIds=["all"])["Snapshots"]
        return started in {one["SnapshotId"] for one in found}

    assert state() == "unblocked"
    assert ec2.enable_snapshot_block_public_access(State="block-new-sharing")["State"] == state() == "block-new-sharing"
    assert error_code(ec2.modify_snapshot_attribute, **public, OperationType="add") == "OperationNotPermitted"
    assert ec2.disable_snapshot_block_public_access()["State"] == state() == "unblocked"
    ec2.modify_snapshot_attribute(**public, OperationType="add")
    assert shown()
    ec2.enable_snapshot_block_public_access(State="block-all-sharing")
    # As if it were not, for as long as that is so.
    assert not shown()
    ec2.disable_snapshot_block_public_access()
    assert shown()
    assert error_code(ec2.enable_snapshot_block_public_access, State="unblocked") == "InvalidParameterValue"


def test_a_volume_is_copied(ec2):
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "copy"}]}]
    source = ec2.create_volume(AvailabilityZone="us-east-1b", Size=2, VolumeType="gp3")["VolumeId"]
    wait(ec2, "volume_available", VolumeIds=[source])
    call = {"SourceVolumeId": source, "VolumeType": "io2", "Iops": 200, "Size": 4, "TagSpecifications": tags}
    (made,) = ec2.copy_volumes(**call, ClientToken="copy")["Volumes"]
    assert made["SourceVolumeId"] == source and made["SnapshotId"] == "" and made["State"] in ("creating", "available")
    assert (made["Size"], made["VolumeType"], made["Iops"]) == (4, "io2", 200)
    assert made["AvailabilityZone"] == "us-east-1b" and made["Tags"] == tags[0]["Tags"]
    assert ec2.copy_volumes(**call, ClientToken="copy")["Volumes"][0]["VolumeId"] == made["VolumeId"]
    # Nobody is shown what it was made by, and it does not need its source.
    snapshots = ec2.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "volume-id", "Values": [source]}])
    assert snapshots["Snapshots"] == []
    ec2.delete_volume(VolumeId=source)
    wait(ec2, "volume_deleted", VolumeIds=[source])
    wait(ec2, "volume_available", VolumeIds=[made["VolumeId"]])
    (copy,) = ec2.copy_volumes(SourceVolumeId=made["VolumeId"])["Volumes"]
    assert (copy["Size"], copy["VolumeType"]) == (4, "gp2")
    wait(ec2, "volume_available", VolumeIds=[copy["VolumeId"]])
    smaller = {"SourceVolumeId": copy["VolumeId"], "Size": 1}
    assert error_code(ec2.copy_volumes, **smaller) == "InvalidParameterValue"
    assert error_code(ec2.copy_volumes, SourceVolumeId=source) == "InvalidVolume.NotFound"
    assert error_code(ec2.copy_volumes, SourceVolumeId="snap-1") == "InvalidParameterValue"
    assert error_code(ec2.copy_volumes, **smaller | {"Size": 4}, DryRun=True) == "DryRunOperation"
    for volume in (made, copy):
        ec2.delete_volume(VolumeId=volume["VolumeId"])


def test_a_rate_of_initialization_is_kept_where_something_is_to_come(ec2, snapshot):
    create, zone = ec2.create_volume, {"AvailabilityZone": "us-east-1a"}
    made = create(**zone, SnapshotId=snapshot, VolumeInitializationRate=200)["VolumeId"]
    (volume,) = ec2.describe_volumes(VolumeIds=[made])["Volumes"]
    assert volume["VolumeInitializationRate"] == 200
    for rate in (99, 301):
        assert error_code(create, **zone, SnapshotId=snapshot, VolumeInitializationRate=rate) == "InvalidParameterValue"
    assert error_code(create, **zone, Size=1, VolumeInitializationRate=200) == "InvalidParameterCombination"
    wait(ec2, "volume_available", VolumeIds=[made])
    ec2.delete_volume(VolumeId=made)


def test_initialization_is_told_of_what_is_made_of_something(ec2, snapshot):
    zone = {"AvailabilityZone": ZONE}
    status = lambda volume: ec2.describe_volume_status(VolumeIds=[volume])["VolumeStatuses"][0]
    rated = ec2.create_volume(**zone, SnapshotId=snapshot, VolumeInitializationRate=200)["VolumeId"]
    plain = ec2.create_volume(**zone, SnapshotId=snapshot)["VolumeId"]
    empty = ec2.create_volume(**zone, Size=1)["VolumeId"]
    wait(ec2, "volume_available", VolumeIds=[rated, plain, empty])
    copied = ec2.copy_volumes(SourceVolumeId=plain)["Volumes"][0]["VolumeId"]
    wait(ec2, "volume_available", VolumeIds=[copied])
    assert status(rated)["InitializationStatusDetails"] == {
        "InitializationType": "provisioned-rate", "Progress": 100, "EstimatedTimeToCompleteInSeconds": 0,
    }
    assert status(plain)["InitializationStatusDetails"] == {"InitializationType": "default", "Progress": 100}
    assert status(copied)["InitializationStatusDetails"] == {"InitializationType": "volume-copy", "Progress": 100}
    assert {"Name": "initialization-state", "Status": "completed"} in status(plain)["VolumeStatus"]["Details"]
    assert "InitializationStatusDetails" not in status(empty)
    assert "initialization-state" not in [detail["Name"] for detail in status(empty)["VolumeStatus"]["Details"]]
    for volume in (rated, plain, copied, empty):
        ec2.delete_volume(VolumeId=volume)
