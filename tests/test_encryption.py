"""Encryption at rest through boto3: of volumes, snapshots and images, asked for, by default and by their source."""

import uuid

import pytest
from conftest import error_code, ready, run, wait
from test_ebs_direct import block, contents, put, sha256
from test_volumes import ZONE, described, eventually, make

ALIAS = "alias/aws/ebs"
NOBODYS = "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture
def ebs(simulated):
    return simulated.client("ebs")


@pytest.fixture
def by_default(cloud_factory):
    """A cloud of its own: what an account decides is decided for all tests."""
    cloud = cloud_factory("--simulate")
    cloud.client().enable_ebs_encryption_by_default()
    return cloud


def snapshot_of(ec2, volume):
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    ready(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    return snapshot


def snapshot_described(ec2, snapshot):
    return ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]


def copied(ec2, snapshot, region="us-east-1", **parameters):
    copy = ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=region, **parameters)["SnapshotId"]
    ready(ec2, "snapshot_completed", SnapshotIds=[copy])
    return snapshot_described(ec2, copy)


def key_of(ec2):
    return described(ec2, make(ec2, Encrypted=True))["KmsKeyId"]


def test_all_of_an_account_is_encrypted_with_its_key_of_the_region(simulated, ec2):
    made = ec2.create_volume(AvailabilityZone=ZONE, Size=1, Encrypted=True)
    assert made["Encrypted"]
    arn = made["KmsKeyId"]
    prefix, key_id = arn.rsplit("/", 1)
    assert prefix.startswith("arn:aws:kms:us-east-1:") and prefix.endswith(":key") and uuid.UUID(key_id)
    for name in [ALIAS, key_id, arn, f"{prefix.removesuffix(':key')}:{ALIAS}"]:
        assert described(ec2, make(ec2, Encrypted=True, KmsKeyId=name))["KmsKeyId"] == arn
    plain = described(ec2, make(ec2))
    assert not plain["Encrypted"] and "KmsKeyId" not in plain
    encrypted = [{"Name": "encrypted", "Values": ["true"]}]
    found = {volume["VolumeId"] for volume in ec2.describe_volumes(Filters=encrypted)["Volumes"]}
    assert made["VolumeId"] in found and plain["VolumeId"] not in found
    other = simulated.client(region="eu-west-1")
    (zone, *_) = other.describe_availability_zones()["AvailabilityZones"]
    elsewhere = other.create_volume(AvailabilityZone=zone["ZoneName"], Size=1, Encrypted=True)["KmsKeyId"]
    assert elsewhere.startswith("arn:aws:kms:eu-west-1:") and elsewhere.rsplit("/", 1)[1] != key_id


def test_a_key_is_named_with_what_it_encrypts(ec2, ami):
    named = {"KmsKeyId": ALIAS}
    for parameters in [named, named | {"Encrypted": False}]:
        code = error_code(ec2.create_volume, AvailabilityZone=ZONE, Size=1, **parameters)
        assert code == "InvalidParameterDependency"
    snapshot = snapshot_of(ec2, make(ec2))
    copy = {"SourceSnapshotId": snapshot, "SourceRegion": "us-east-1"}
    assert error_code(ec2.copy_snapshot, **copy, **named) == "InvalidParameterDependency"
    mapping = {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1, **named}}
    code = error_code(run, client=ec2, ami=ami, BlockDeviceMappings=[mapping])
    assert code == "InvalidParameterDependency"


def test_what_is_to_be_encrypted_with_nobody_s_key_is_in_error(ec2, ami):
    volume = ec2.create_volume(AvailabilityZone=ZONE, Size=1, Encrypted=True, KmsKeyId=NOBODYS)
    assert volume["KmsKeyId"] == NOBODYS
    eventually(lambda: described(ec2, volume["VolumeId"])["State"] == "error")
    ec2.delete_volume(VolumeId=volume["VolumeId"])
    snapshot = snapshot_of(ec2, make(ec2))
    copy = {"SourceSnapshotId": snapshot, "SourceRegion": "us-east-1"}
    copy = ec2.copy_snapshot(**copy, Encrypted=True, KmsKeyId="alias/none")["SnapshotId"]
    eventually(lambda: snapshot_described(ec2, copy)["State"] == "error")
    assert snapshot_described(ec2, copy)["StateMessage"] == "Given key ID is not accessible"
    assert error_code(ec2.modify_ebs_default_kms_key_id, KmsKeyId=NOBODYS) == "InvalidParameterValue"
    mapping = {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1, "Encrypted": True, "KmsKeyId": NOBODYS}}
    assert error_code(run, client=ec2, ami=ami, BlockDeviceMappings=[mapping]) == "InvalidParameterValue"


def test_what_is_made_of_something_encrypted_is(ec2, ebs, simulated):
    plain = snapshot_of(ec2, make(ec2))
    assert not snapshot_described(ec2, plain)["Encrypted"]
    volume = described(ec2, make(ec2, SnapshotId=plain, Encrypted=True))
    assert volume["Encrypted"] and volume["SnapshotId"] == plain
    arn = volume["KmsKeyId"]
    encrypted = snapshot_of(ec2, volume["VolumeId"])
    for found in [
        snapshot_described(ec2, encrypted),
        described(ec2, make(ec2, SnapshotId=encrypted)),
        described(ec2, make(ec2, SnapshotId=encrypted, Encrypted=False)),
        ec2.copy_volumes(SourceVolumeId=volume["VolumeId"])["Volumes"][0],
        copied(ec2, encrypted),
        copied(ec2, encrypted, Encrypted=False),
        copied(ec2, plain, Encrypted=True),
    ]:
        assert found["Encrypted"] and found["KmsKeyId"] == arn
    assert not copied(ec2, plain)["Encrypted"]
    # In another region with the key of that one.
    other = simulated.client(region="eu-central-1")
    assert copied(other, encrypted)["KmsKeyId"].startswith("arn:aws:kms:eu-central-1:")
    filters = [{"Name": "encrypted", "Values": ["false"]}]
    listed = {snapshot["SnapshotId"] for snapshot in ec2.describe_snapshots(Filters=filters)["Snapshots"]}
    assert plain in listed and encrypted not in listed


def test_an_upload_is_encrypted_where_it_is_asked_for(ec2, ebs):
    started = ebs.start_snapshot(VolumeSize=1, Encrypted=True)
    snapshot = started["SnapshotId"]
    assert started["KmsKeyArn"] == key_of(ec2)
    put(ebs, snapshot, 3, block(7))
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
    assert snapshot_described(ec2, snapshot)["Encrypted"]
    assert contents(ebs, snapshot) == ({3: block(7)}, 1)
    token = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"][0]["BlockToken"]
    got = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=3, BlockToken=token)
    assert got["Checksum"] == sha256(block(7))
    start = ebs.start_snapshot
    assert error_code(start, VolumeSize=1, KmsKeyArn=started["KmsKeyArn"]) == "ValidationException"
    assert error_code(start, VolumeSize=1, Encrypted=True, KmsKeyArn=NOBODYS) == "ValidationException"


def test_an_encrypted_snapshot_and_its_images_are_for_nobody_else(ec2):
    snapshot = snapshot_of(ec2, make(ec2, Encrypted=True))
    share = {"SnapshotId": snapshot, "Attribute": "createVolumePermission", "OperationType": "add"}
    for whom in [{"UserIds": ["111122223333"]}, {"GroupNames": ["all"]}]:
        assert error_code(ec2.modify_snapshot_attribute, **share, **whom) == "InvalidParameter"
    root = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}
    registered = ec2.register_image(
        Name=f"encrypted-{uuid.uuid4()}", RootDeviceName="/dev/xvda", BlockDeviceMappings=[root]
    )["ImageId"]
    permission = {"LaunchPermission": {"Add": [{"UserId": "111122223333"}]}}
    assert error_code(ec2.modify_image_attribute, ImageId=registered, **permission) == "InvalidParameter"


def test_images_say_and_instances_have_what_is_encrypted(ec2, ami):
    arn = key_of(ec2)
    disks = [
        {"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True}},
        {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1}},
        {"DeviceName": "/dev/sdc", "Ebs": {"VolumeSize": 1, "Encrypted": True, "KmsKeyId": ALIAS}},
    ]
    expected = {"/dev/xvda": True, "/dev/sdb": False, "/dev/sdc": True}
    (instance,) = run(ec2, ami, BlockDeviceMappings=disks)
    instance = instance["InstanceId"]
    wait(ec2, "instance_running", [instance])

    def encrypted_of(instance):
        attached = [{"Name": "attachment.instance-id", "Values": [instance]}]
        volumes = ec2.describe_volumes(Filters=attached)["Volumes"]
        assert {volume.get("KmsKeyId") for volume in volumes if volume["Encrypted"]} <= {arn}
        return {volume["Attachments"][0]["Device"]: volume["Encrypted"] for volume in volumes}

    def encrypted_in(image):
        ready(ec2, "image_available", ImageIds=[image])
        (image,) = ec2.describe_images(ImageIds=[image])["Images"]
        return {one["DeviceName"]: one["Ebs"]["Encrypted"] for one in image["BlockDeviceMappings"]}

    assert encrypted_of(instance) == expected
    name = f"of-it-{uuid.uuid4()}"
    more = [{"DeviceName": "/dev/sdd", "Ebs": {"VolumeSize": 1, "Encrypted": True}}]
    image = ec2.create_image(InstanceId=instance, Name=name, NoReboot=True, BlockDeviceMappings=more)["ImageId"]
    assert encrypted_in(image) == expected | {"/dev/sdd": True}
    (copy,) = run(ec2, image)
    wait(ec2, "instance_running", [copy["InstanceId"]])
    assert encrypted_of(copy["InstanceId"]) == expected | {"/dev/sdd": True}
    whole = ec2.copy_image(SourceImageId=image, SourceRegion="us-east-1", Name=f"{name}-all", Encrypted=True)
    assert all(encrypted_in(whole["ImageId"]).values())
    task = ec2.create_replace_root_volume_task(InstanceId=instance)["ReplaceRootVolumeTask"]
    tasks = {"ReplaceRootVolumeTaskIds": [task["ReplaceRootVolumeTaskId"]]}
    described_tasks = ec2.describe_replace_root_volume_tasks
    eventually(lambda: described_tasks(**tasks)["ReplaceRootVolumeTasks"][0]["TaskState"] == "succeeded")
    assert encrypted_of(instance) == expected
    ec2.terminate_instances(InstanceIds=[instance, copy["InstanceId"]])


def test_an_image_s_disk_is_encrypted_as_its_snapshot(ec2):
    plain = snapshot_of(ec2, make(ec2))

    def register(**ebs):
        root = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": plain, **ebs}}
        name = f"register-{uuid.uuid4()}"
        return ec2.register_image(Name=name, RootDeviceName="/dev/xvda", BlockDeviceMappings=[root])

    assert error_code(register, Encrypted=True) == "InvalidBlockDeviceMapping"
    assert error_code(register, KmsKeyId=ALIAS) == "InvalidParameterCombination"
    assert error_code(register, Encrypted=False) is None


def test_an_account_decides_that_all_is_encrypted(by_default):
    ec2, ebs = by_default.client(), by_default.client("ebs")
    settings = ec2.get_ebs_encryption_by_default()
    assert settings["EbsEncryptionByDefault"] and settings["SseType"] == "sse-kms"
    ami = ec2.describe_images(Owners=["amazon"])["Images"]
    ami = next(image["ImageId"] for image in ami if image["Architecture"] == "x86_64")
    volume = make(ec2)
    assert described(ec2, volume)["Encrypted"]
    assert described(ec2, make(ec2, Encrypted=False))["Encrypted"]
    assert snapshot_described(ec2, ebs.start_snapshot(VolumeSize=1)["SnapshotId"])["Encrypted"]
    (instance,) = run(ec2, ami)
    assert all(one["Encrypted"] for one in ec2.describe_volumes()["Volumes"])
    ec2.disable_ebs_encryption_by_default()
    plain = make(ec2)
    ec2.enable_ebs_encryption_by_default()
    assert ec2.copy_volumes(SourceVolumeId=plain)["Volumes"][0]["Encrypted"]
    ec2.disable_ebs_encryption_by_default()
    settings = ec2.get_ebs_encryption_by_default()
    assert not settings["EbsEncryptionByDefault"] and settings["SseType"] == "none"
    assert described(ec2, volume)["Encrypted"], "what is encrypted stays so"
    assert not described(ec2, make(ec2))["Encrypted"]


def test_an_account_names_its_default_key(by_default):
    ec2 = by_default.client()
    assert ec2.get_ebs_default_kms_key_id()["KmsKeyId"] == ALIAS
    arn = ec2.modify_ebs_default_kms_key_id(KmsKeyId=ALIAS)["KmsKeyId"]
    assert arn.startswith("arn:aws:kms:")
    assert ec2.get_ebs_default_kms_key_id()["KmsKeyId"] == arn == key_of(ec2)
    assert ec2.reset_ebs_default_kms_key_id()["KmsKeyId"] == ALIAS
    assert ec2.get_ebs_default_kms_key_id()["KmsKeyId"] == ALIAS
    assert key_of(ec2) == arn


def test_what_is_encrypted_is_there_after_a_restart(cloud_factory, tmp_path):
    cloud = cloud_factory("--simulate", data_dir=str(tmp_path))
    ec2 = cloud.client()
    volume = make(ec2, Encrypted=True)
    key = described(ec2, volume)["KmsKeyId"]
    cloud.kill()
    cloud.start()
    ec2 = cloud.client()
    assert described(ec2, volume)["KmsKeyId"] == key == key_of(ec2)
    assert make(ec2, SnapshotId=snapshot_of(ec2, volume))
