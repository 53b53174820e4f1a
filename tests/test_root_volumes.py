"""Root volumes of running instances, replaced."""

import uuid

import pytest
from conftest import error_code, ready, run, wait

MISSING = "replacevol-0123456789abcdef0"


@pytest.fixture
def instance(ec2, ami):
    devices = [
        {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 9, "VolumeType": "gp3", "Iops": 4000}},
        {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1}},
    ]
    (one,) = run(ec2, ami, BlockDeviceMappings=devices)
    wait(ec2, "instance_running", [one["InstanceId"]])
    yield one["InstanceId"]
    ec2.terminate_instances(InstanceIds=[one["InstanceId"]])


def root(ec2, instance):
    """The volume that the instance boots from."""
    (one,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    mapped = {mapping["DeviceName"]: mapping["Ebs"]["VolumeId"] for mapping in one["BlockDeviceMappings"]}
    assert mapped.keys() == {"/dev/xvda", "/dev/sdb"}
    return mapped[one["RootDeviceName"]]


def volumes(ec2, **filters):
    wanted = [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in filters.items()]
    return ec2.describe_volumes(Filters=wanted)["Volumes"]


def replaced(ec2, instance, **parameters):
    """A task that has ended."""
    begun = ec2.create_replace_root_volume_task(InstanceId=instance, **parameters)["ReplaceRootVolumeTask"]
    assert begun["TaskState"] == "pending" and begun["InstanceId"] == instance
    for _ in range(600):
        ids = [begun["ReplaceRootVolumeTaskId"]]
        (task,) = ec2.describe_replace_root_volume_tasks(ReplaceRootVolumeTaskIds=ids)["ReplaceRootVolumeTasks"]
        if task["TaskState"] not in ("pending", "in-progress"):
            return task
        ready(ec2, "instance_exists", InstanceIds=[instance])
    raise AssertionError(task)


def test_a_root_volume_is_as_it_was_at_launch(ec2, instance):
    before = root(ec2, instance)
    tags = [{"ResourceType": "replace-root-volume-task", "Tags": [{"Key": "a", "Value": "b"}]}]
    task = replaced(ec2, instance, TagSpecifications=tags)
    assert task["TaskState"] == "succeeded" and task["StartTime"] <= task["CompleteTime"]
    assert task["Tags"] == [{"Key": "a", "Value": "b"}]
    assert task["DeleteReplacedRootVolume"] is False
    after = root(ec2, instance)
    assert after != before
    (volume,) = volumes(ec2, volume_id=after)
    assert (volume["State"], volume["Size"], volume["VolumeType"], volume["Iops"]) == ("in-use", 9, "gp3", 4000)
    (attachment,) = volume["Attachments"]
    assert (attachment["InstanceId"], attachment["Device"], attachment["State"]) == (instance, "/dev/xvda", "attached")
    assert attachment["DeleteOnTermination"] is True
    (old,) = volumes(ec2, volume_id=before)
    assert old["State"] == "available"
    ec2.delete_volume(VolumeId=before)
    wait(ec2, "instance_running", [instance])


def test_a_snapshot_of_a_root_volume_comes_back(ec2, instance):
    first = root(ec2, instance)
    snapshot = ec2.create_snapshot(VolumeId=first)["SnapshotId"]
    ready(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    task = replaced(ec2, instance, SnapshotId=snapshot, DeleteReplacedRootVolume=True)
    assert (task["TaskState"], task["SnapshotId"]) == ("succeeded", snapshot)
    assert volumes(ec2, volume_id=first) == []
    assert [one["VolumeId"] for one in volumes(ec2, snapshot_id=snapshot)] == [root(ec2, instance)]
    # Of the volume before, and of none of the launch.
    assert replaced(ec2, instance, SnapshotId=snapshot)["TaskState"] == "succeeded"
    assert "SnapshotId" not in replaced(ec2, instance)

    (data,) = [one["VolumeId"] for one in volumes(ec2, **{"attachment.instance-id": instance, "attachment.device": "/dev/sdb"})]
    other = ec2.create_snapshot(VolumeId=data)["SnapshotId"]
    ready(ec2, "snapshot_completed", SnapshotIds=[other])
    create = ec2.create_replace_root_volume_task
    assert error_code(create, InstanceId=instance, SnapshotId=other) == "InvalidParameterValue"
    missing = {"InstanceId": instance, "SnapshotId": "snap-0123456789abcdef0"}
    assert error_code(create, **missing) == "InvalidSnapshot.NotFound"


def test_an_image_takes_the_place(ec2, instance):
    name = f"root-{uuid.uuid4().hex}"
    image = ec2.create_image(InstanceId=instance, Name=name, NoReboot=True)["ImageId"]
    ready(ec2, "image_available", ImageIds=[image])
    task = replaced(ec2, instance, ImageId=image)
    assert (task["TaskState"], task["ImageId"]) == ("succeeded", image)
    create = ec2.create_replace_root_volume_task
    arm = ec2.register_image(Name=f"{name}-arm", Architecture="arm64", RootDeviceName="/dev/xvda")["ImageId"]
    assert error_code(create, InstanceId=instance, ImageId=arm) == "InvalidParameterValue"
    both = {"InstanceId": instance, "ImageId": image, "SnapshotId": "snap-0123456789abcdef0"}
    assert error_code(create, **both) == "InvalidParameterCombination"
    ec2.disable_image(ImageId=image)
    assert error_code(create, InstanceId=instance, ImageId=image) == "InvalidAMIID.Unavailable"
    missing = {"InstanceId": instance, "ImageId": "ami-0123456789abcdef0"}
    assert error_code(create, **missing) == "InvalidAMIID.NotFound"


def test_one_root_volume_is_replaced_at_a_time(ec2, instance):
    create = ec2.create_replace_root_volume_task
    first = create(InstanceId=instance, ClientToken=instance)["ReplaceRootVolumeTask"]["ReplaceRootVolumeTaskId"]
    again = create(InstanceId=instance, ClientToken=instance)["ReplaceRootVolumeTask"]["ReplaceRootVolumeTaskId"]
    assert again == first
    other = {"InstanceId": instance, "ClientToken": instance, "DeleteReplacedRootVolume": True}
    assert error_code(create, **other) == "IdempotentParameterMismatch"
    assert error_code(create, InstanceId=instance) in ("IncorrectState", "IncorrectInstanceState")
    of_instance = [{"Name": "instance-id", "Values": [instance]}]
    pages = ec2.get_paginator("describe_replace_root_volume_tasks").paginate(Filters=of_instance)
    assert [one["ReplaceRootVolumeTaskId"] for page in pages for one in page["ReplaceRootVolumeTasks"]] == [first]


def test_what_does_not_run_is_refused(ec2, instance):
    create = ec2.create_replace_root_volume_task
    assert error_code(create, InstanceId=instance, DryRun=True) == "DryRunOperation"
    assert error_code(create, InstanceId="i-0123456789abcdef0") == "InvalidInstanceID.NotFound"
    ec2.stop_instances(InstanceIds=[instance])
    wait(ec2, "instance_stopped", [instance])
    assert error_code(create, InstanceId=instance) == "IncorrectInstanceState"
    describe = ec2.describe_replace_root_volume_tasks
    missing = {"ReplaceRootVolumeTaskIds": [MISSING]}
    assert error_code(describe, **missing) == "InvalidReplaceRootVolumeTaskId.NotFound"
