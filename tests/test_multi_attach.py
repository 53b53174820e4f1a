"""Volumes that several instances have at once, through boto3."""

import pytest
from conftest import error_code, run
from test_volumes import ZONE, described, eventually, make, wait

SHARED = {"VolumeType": "io2", "Iops": 100, "MultiAttachEnabled": True}


@pytest.fixture
def instances(ec2, ami):
    """Three, of one zone."""
    made = [one["InstanceId"] for one in run(ec2, ami, 3, Placement={"AvailabilityZone": ZONE})]
    wait(ec2, "instance_running", InstanceIds=made)
    yield made
    ec2.terminate_instances(InstanceIds=made)


@pytest.fixture
def volume(ec2, instances):
    return make(ec2, ZONE, 4, **SHARED)


def attach(ec2, volume, instances, device="/dev/sdf"):
    for instance in instances:
        ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device=device)
    eventually(lambda: states(ec2, volume) == {instance: "attached" for instance in instances})


def states(ec2, volume):
    return {one["InstanceId"]: one["State"] for one in described(ec2, volume)["Attachments"]}


def found(ec2, volume, **filters):
    listed = [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in filters.items()]
    return volume in [one["VolumeId"] for one in ec2.describe_volumes(Filters=listed)["Volumes"]]


def devices(ec2, instance):
    described = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return {one["DeviceName"]: one["Ebs"] for one in described["BlockDeviceMappings"]}


@pytest.mark.parametrize(
    "parameters, code",
    [
        ({}, "InvalidParameterCombination"),
        ({"VolumeType": "gp3"}, "InvalidParameterCombination"),
        ({"VolumeType": "st1", "Size": 125}, "InvalidParameterCombination"),
        ({"VolumeType": "io2", "Iops": 100, "DryRun": True}, "DryRunOperation"),
    ],
)
def test_only_provisioned_iops_volumes_are_for_several_instances(ec2, parameters, code):
    parameters = {"AvailabilityZone": ZONE, "Size": 4, "MultiAttachEnabled": True} | parameters
    assert error_code(ec2.create_volume, **parameters) == code


def test_several_instances_have_a_volume_at_once(ec2, instances, volume):
    assert described(ec2, volume)["MultiAttachEnabled"] is True
    first = ec2.attach_volume(VolumeId=volume, InstanceId=instances[0], Device="/dev/sdf")
    assert (first["State"], first["InstanceId"]) == ("attaching", instances[0])
    attach_again = {"VolumeId": volume, "InstanceId": instances[0], "Device": "/dev/sdg"}
    assert error_code(ec2.attach_volume, **attach_again) == "VolumeInUse"
    ec2.attach_volume(VolumeId=volume, InstanceId=instances[1], Device="/dev/sdh")
    eventually(lambda: states(ec2, volume) == {instance: "attached" for instance in instances[:2]})
    shown = described(ec2, volume)
    assert shown["State"] == "in-use"
    names = {one["InstanceId"]: one["Device"] for one in shown["Attachments"]}
    assert names == {instances[0]: "/dev/sdf", instances[1]: "/dev/sdh"}
    for instance, device in names.items():
        ebs = devices(ec2, instance)[device]
        assert (ebs["VolumeId"], ebs["Status"], ebs["DeleteOnTermination"]) == (volume, "attached", False)
    assert error_code(ec2.delete_volume, VolumeId=volume) == "VolumeInUse"


def test_filters_find_it_by_each_of_its_attachments(ec2, instances, volume):
    attach(ec2, volume, instances[:2])
    filters = [{"Name": "multi-attach-enabled", "Values": ["true"]}]
    for instance in instances:
        by_instance = [*filters, {"Name": "attachment.instance-id", "Values": [instance]}]
        listed = [one["VolumeId"] for one in ec2.describe_volumes(Filters=by_instance)["Volumes"]]
        assert listed == ([volume] if instance in instances[:2] else [])
    assert found(ec2, volume, multi_attach_enabled="true") and not found(ec2, volume, multi_attach_enabled="false")
    by_device = [{"Name": "block-device-mapping.volume-id", "Values": [volume]}]
    reservations = ec2.describe_instances(Filters=by_device)["Reservations"]
    assert {one["InstanceId"] for all in reservations for one in all["Instances"]} == set(instances[:2])


def test_which_instance_shall_lose_it_is_said(ec2, instances, volume):
    attach(ec2, volume, instances[:2])
    assert error_code(ec2.detach_volume, VolumeId=volume) == "MissingParameter"
    assert error_code(ec2.detach_volume, VolumeId=volume, InstanceId=instances[2]) == "InvalidAttachment.NotFound"
    detached = ec2.detach_volume(VolumeId=volume, InstanceId=instances[0])
    assert (detached["State"], detached["InstanceId"]) == ("detaching", instances[0])
    eventually(lambda: states(ec2, volume) == {instances[1]: "attached"})
    assert described(ec2, volume)["State"] == "in-use" and "/dev/sdf" not in devices(ec2, instances[0])
    ec2.detach_volume(VolumeId=volume, InstanceId=instances[1], Force=True)
    wait(ec2, "volume_available", VolumeIds=[volume])


def test_others_keep_what_one_instance_is_stopped_or_terminated_with(ec2, instances, volume):
    attach(ec2, volume, instances)
    ec2.stop_instances(InstanceIds=instances[:1])
    wait(ec2, "instance_stopped", InstanceIds=instances[:1])
    assert states(ec2, volume) == {instance: "attached" for instance in instances}
    ec2.detach_volume(VolumeId=volume, InstanceId=instances[0])
    assert states(ec2, volume) == {instance: "attached" for instance in instances[1:]}
    ec2.start_instances(InstanceIds=instances[:1])
    wait(ec2, "instance_running", InstanceIds=instances[:1])
    attach_again = {"VolumeId": volume, "InstanceId": instances[0], "Device": "/dev/sdf"}
    ec2.attach_volume(**attach_again)


@pytest.mark.parametrize("last_deletes", [True, False])
def test_the_last_instance_decides_whether_it_is_deleted(ec2, instances, volume, last_deletes):
    attach(ec2, volume, instances[:2])
    for instance, deletes in zip(instances, [not last_deletes, last_deletes]):
        mapping = {"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": deletes}}
        ec2.modify_instance_attribute(InstanceId=instance, BlockDeviceMappings=[mapping])
    shown = {one["InstanceId"]: one["DeleteOnTermination"] for one in described(ec2, volume)["Attachments"]}
    assert shown == {instances[0]: not last_deletes, instances[1]: last_deletes}
    ec2.terminate_instances(InstanceIds=instances[:1])
    wait(ec2, "instance_terminated", InstanceIds=instances[:1])
    assert states(ec2, volume) == {instances[1]: "attached"}
    ec2.terminate_instances(InstanceIds=instances[1:2])
    wait(ec2, "instance_terminated", InstanceIds=instances[1:2])
    if last_deletes:
        assert error_code(ec2.describe_volumes, VolumeIds=[volume]) == "InvalidVolume.NotFound"
    else:
        assert described(ec2, volume)["State"] == "available"


def test_sixteen_instances_have_it_at_most(ec2, ami):
    many = [one["InstanceId"] for one in run(ec2, ami, 17, Placement={"AvailabilityZone": ZONE})]
    wait(ec2, "instance_running", InstanceIds=many)
    volume = make(ec2, ZONE, 4, VolumeType="io1", Iops=100, MultiAttachEnabled=True)
    attach(ec2, volume, many[:16])
    refused = {"VolumeId": volume, "InstanceId": many[16], "Device": "/dev/sdf"}
    assert error_code(ec2.attach_volume, **refused) == "AttachmentLimitExceeded"
    ec2.terminate_instances(InstanceIds=many)


def test_instances_must_be_of_the_zone_and_of_the_nitro_system(ec2, ami, instances, volume):
    other_zone = make(ec2, "us-east-1b", 4, **SHARED)
    elsewhere = {"VolumeId": other_zone, "InstanceId": instances[0], "Device": "/dev/sdf"}
    assert error_code(ec2.attach_volume, **elsewhere) == "InvalidVolume.ZoneMismatch"
    xen = run(ec2, ami, InstanceType="t2.micro", Placement={"AvailabilityZone": ZONE})[0]
    wait(ec2, "instance_running", InstanceIds=[xen["InstanceId"]])
    refused = {"VolumeId": volume, "InstanceId": xen["InstanceId"], "Device": "/dev/sdf"}
    assert error_code(ec2.attach_volume, **refused) == "UnsupportedOperation"
    # Nor can one become so that has it.
    attach(ec2, volume, instances[:1])
    ec2.stop_instances(InstanceIds=instances[:1])
    wait(ec2, "instance_stopped", InstanceIds=instances[:1])
    become = {"InstanceId": instances[0], "InstanceType": {"Value": "t2.micro"}}
    assert error_code(ec2.modify_instance_attribute, **become) == "UnsupportedOperation"
    # Nor boot from it.
    root = devices(ec2, instances[0])["/dev/xvda"]["VolumeId"]
    ec2.detach_volume(VolumeId=root)
    wait(ec2, "volume_available", VolumeIds=[root])
    other = make(ec2, ZONE, 4, **SHARED)
    boots = {"VolumeId": other, "InstanceId": instances[0], "Device": "/dev/xvda"}
    assert error_code(ec2.attach_volume, **boots) == "UnsupportedOperation"
    ec2.attach_volume(VolumeId=root, InstanceId=instances[0], Device="/dev/xvda")
    ec2.terminate_instances(InstanceIds=[xen["InstanceId"]])


def test_io2_volumes_become_so_and_cease_to_be(ec2, instances):
    volume = make(ec2, ZONE, 4, VolumeType="io2", Iops=100)
    attach(ec2, volume, instances[:1])
    assert error_code(ec2.modify_volume, VolumeId=volume, MultiAttachEnabled=True) == "VolumeInUse"
    ec2.detach_volume(VolumeId=volume)
    wait(ec2, "volume_available", VolumeIds=[volume])
    modification = ec2.modify_volume(VolumeId=volume, MultiAttachEnabled=True)["VolumeModification"]
    assert (modification["OriginalMultiAttachEnabled"], modification["TargetMultiAttachEnabled"]) == (False, True)
    by_target = [{"Name": "targetMultiAttachEnabled", "Values": ["true"]}]
    listed = ec2.describe_volumes_modifications(Filters=by_target)["VolumesModifications"]
    assert volume in [one["VolumeId"] for one in listed]
    attach(ec2, volume, instances[:2])
    assert error_code(ec2.modify_volume, VolumeId=volume, MultiAttachEnabled=False) == "VolumeInUse"
    assert error_code(ec2.modify_volume, VolumeId=volume, VolumeType="gp3") == "InvalidParameterCombination"
    ec2.modify_volume(VolumeId=volume, Size=8, Iops=200)
    eventually(lambda: described(ec2, volume)["Size"] == 8 and described(ec2, volume)["Iops"] == 200)
    is_done = [{"Name": "modification-state", "Values": ["completed"]}]
    eventually(lambda: ec2.describe_volumes_modifications(VolumeIds=[volume], Filters=is_done)["VolumesModifications"])
    ec2.detach_volume(VolumeId=volume, InstanceId=instances[0])
    eventually(lambda: states(ec2, volume) == {instances[1]: "attached"})
    ec2.modify_volume(VolumeId=volume, MultiAttachEnabled=False)
    assert described(ec2, volume)["MultiAttachEnabled"] is False
    second = {"VolumeId": volume, "InstanceId": instances[0], "Device": "/dev/sdf"}
    assert error_code(ec2.attach_volume, **second) == "VolumeInUse"
    ec2.detach_volume(VolumeId=volume)
    wait(ec2, "volume_available", VolumeIds=[volume])


def test_what_is_not_io2_stays_as_it_was_made(ec2):
    shared = make(ec2, ZONE, 4, VolumeType="io1", Iops=100, MultiAttachEnabled=True)
    for change in [{"MultiAttachEnabled": False}, {"Size": 5}, {"Iops": 150}, {"VolumeType": "io2", "Iops": 100}]:
        assert error_code(ec2.modify_volume, VolumeId=shared, **change) == "InvalidParameterCombination"
    for parameters in [{"VolumeType": "io1", "Iops": 100}, {"VolumeType": "gp3"}]:
        volume = make(ec2, ZONE, 4, **parameters)
        refused = error_code(ec2.modify_volume, VolumeId=volume, MultiAttachEnabled=True)
        assert refused == "InvalidParameterCombination"


def test_snapshots_images_and_copies_are_made_of_it_while_it_is_shared(ec2, instances, volume):
    attach(ec2, volume, instances[:2])
    of = {"InstanceId": instances[0]}
    snapshots = ec2.create_snapshots(InstanceSpecification=of)["Snapshots"]
    assert volume in [one["VolumeId"] for one in snapshots]
    wait(ec2, "snapshot_completed", SnapshotIds=[one["SnapshotId"] for one in snapshots])
    image = ec2.create_image(InstanceId=instances[1], Name=f"of-{volume}", NoReboot=True)["ImageId"]
    wait(ec2, "image_available", ImageIds=[image])
    mappings = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"]
    assert {one["DeviceName"]: one["Ebs"]["VolumeType"] for one in mappings}["/dev/sdf"] == "io2"
    copies = [{"VolumeType": "io2", "Iops": 100, "MultiAttachEnabled": True}, {}]
    made = [ec2.copy_volumes(SourceVolumeId=volume, **asked)["Volumes"][0] for asked in copies]
    assert [one["MultiAttachEnabled"] for one in made] == [True, False]
    refused = error_code(ec2.copy_volumes, SourceVolumeId=volume, MultiAttachEnabled=True)
    assert refused == "InvalidParameterCombination"
