"""Disks of real guests: the flow from a configured instance to its copies, and volumes that come, go and grow."""

import json
import mmap
import os
import pathlib
import uuid

import pytest
from conftest import processes_of, ready, run, until, wait
from test_ebs_direct import contents, written
from test_guest import cloud, console, describe, ec2, key, ssh, tiny  # noqa: F401

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="real instances need root")

# Numbers, each durable before the next: what of them a copy has is what there was at one moment.
USER_DATA = """#!/bin/sh
echo "configured by $(hostname)" >>/root/configured
[ -e /root/numbers ] && exit
sh -c 'n=0; while :; do n=$((n + 1)); echo $n >>/root/numbers; sync; done' </dev/null >/dev/null 2>&1 &
"""


@pytest.fixture(scope="module")
def guest(ec2, tiny, key):  # noqa: F811
    (instance,) = run(ec2, tiny, KeyName="guests", UserData=USER_DATA)
    console(ec2, instance["InstanceId"], "user data done")
    return instance["InstanceId"]


def disks(client, secret, instance_id):
    """The guest's disks by their serial numbers."""
    listed = ssh(client, secret, instance_id, "cd /sys/block; for d in vd*; do echo $(cat $d/serial) $d $(cat $d/size); done")
    return {line.split()[0]: line.split()[1:] for line in listed.splitlines() if len(line.split()) == 3}


def attached(client, secret, instance_id, volume=None, **parameters):
    """The volume, a new one by default, and what the guest calls it."""
    zone = describe(client, instance_id)["Placement"]["AvailabilityZone"]
    volume = volume or client.create_volume(AvailabilityZone=zone, **parameters)["VolumeId"]
    ready(client, "volume_available", VolumeIds=[volume])
    client.attach_volume(InstanceId=instance_id, VolumeId=volume, Device="/dev/sdf")
    serial = volume.replace("-", "")
    until(lambda: serial in disks(client, secret, instance_id), True)
    return volume, disks(client, secret, instance_id)[serial][0]


def numbers(client, secret, instance_id):
    return [int(line) for line in ssh(client, secret, instance_id, "cat /root/numbers 2>/dev/null; true").split()]


def flushed_by(client, secret, instance_id):
    """The last number that is durable for certain: one more may be written and not flushed yet."""
    return numbers(client, secret, instance_id)[-1] - 1


def open_layers(instance_id):
    (pid,) = processes_of(instance_id)
    files = {os.readlink(fd) for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir() if os.path.islink(fd)}
    return [name for name in files if "/layers/" in name]


def share_a_volume(client, secret, writer, reader):
    """Two guests have a volume at once, whose own machine dies meanwhile."""
    zone = describe(client, writer)["Placement"]["AvailabilityZone"]
    shared = {"VolumeType": "io2", "Iops": 200, "MultiAttachEnabled": True}
    volume = client.create_volume(AvailabilityZone=zone, Size=4, **shared)["VolumeId"]
    ready(client, "volume_available", VolumeIds=[volume])
    serial, names = volume.replace("-", ""), {}
    for instance in (writer, reader):
        client.attach_volume(InstanceId=instance, VolumeId=volume, Device="/dev/sdf")
        until(lambda: serial in disks(client, secret, instance), True)
        names[instance] = disks(client, secret, instance)[serial][0]
    # Places far from each other: what a kernel has read ahead it does not read again.
    for number in range(2):
        write = f"echo said {number} | dd of=/dev/{names[writer]} bs=1M seek={64 * number} 2>/dev/null; sync"
        ssh(client, secret, writer, write)
        if number:
            (pid,) = processes_of(volume)
            os.kill(pid, 9)
        read = f"dd if=/dev/{names[reader]} bs=1M skip={64 * number} count=1 2>/dev/null | head -n 1"
        assert ssh(client, secret, reader, read) == f"said {number}\n"
    client.modify_volume(VolumeId=volume, Size=5)
    for instance in (writer, reader):
        until(lambda: int(disks(client, secret, instance)[serial][1]), 5 << 21)
    for instance in (writer, reader):
        client.detach_volume(VolumeId=volume, InstanceId=instance)
        until(lambda: serial in disks(client, secret, instance), False)
    ready(client, "volume_available", VolumeIds=[volume])
    until(lambda: processes_of(volume), [])
    client.delete_volume(VolumeId=volume)


def test_copies_of_a_running_instance_are_configured_like_it(cloud, ec2, guest, key):  # noqa: F811
    ssh(ec2, key, guest, "echo precious >/root/precious; sync")
    until(lambda: len(numbers(ec2, key, guest)) > 3, True)
    before = flushed_by(ec2, key, guest)
    image = ec2.create_image(InstanceId=guest, Name="configured", NoReboot=True)["ImageId"]
    ready(ec2, "image_available", ImageIds=[image])
    until(lambda: numbers(ec2, key, guest)[-1] > before + 1, True)
    ssh(ec2, key, guest, "echo later >/root/later; sync")
    copies = run(ec2, image, count=2, KeyName="guests", UserData=USER_DATA)
    for copy in (copy["InstanceId"] for copy in copies):
        console(ec2, copy, "user data done")
        assert ssh(ec2, key, copy, "cat /root/precious; ls /root/later 2>/dev/null; true") == "precious\n"
        found = numbers(ec2, key, copy)
        assert found == list(range(1, len(found) + 1)) and len(found) >= before
        assert len(ssh(ec2, key, copy, "cat /root/configured").splitlines()) == 2, "it is an instance of its own"
        ssh(ec2, key, copy, "echo own >/root/own; sync")
    assert ssh(ec2, key, guest, "ls /root/own 2>/dev/null; true") == ""
    share_a_volume(ec2, key, guest, copies[1]["InstanceId"])
    # The image's and its maker's end is not the copies'.
    snapshot = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    ec2.deregister_image(ImageId=image)
    ec2.delete_snapshot(SnapshotId=snapshot)
    first, second = (copy["InstanceId"] for copy in copies)
    # What the guest has written and not flushed is on a volume that stays: it is asked to shut down.
    volume, name = attached(ec2, key, first, Size=1)
    ssh(ec2, key, first, f"echo unflushed >/dev/{name}")
    ec2.terminate_instances(InstanceIds=[first])
    wait(ec2, "instance_terminated", [first])
    assert ssh(ec2, key, second, "cat /root/precious /root/own") == "precious\nown\n"
    _, name = attached(ec2, key, second, volume=volume)
    assert ssh(ec2, key, second, f"head -n 1 /dev/{name}") == "unflushed\n"
    ec2.terminate_instances(InstanceIds=[second], SkipOsShutdown=True)
    wait(ec2, "instance_terminated", [second])
    ec2.delete_volume(VolumeId=volume)


def taken(cloud, volume):  # noqa: F811
    """Bytes that the volume's own layers take of the host's disk."""
    layers = pathlib.Path(cloud.data_dir, "layers").glob(f"{volume}.*")
    return sum(layer.stat().st_blocks * 512 for layer in layers)


def test_a_volume_comes_grows_and_goes(cloud, ec2, guest, key):  # noqa: F811
    zone = describe(ec2, guest)["Placement"]["AvailabilityZone"]
    volume = ec2.create_volume(AvailabilityZone=zone, Size=1, VolumeType="gp3")["VolumeId"]
    ready(ec2, "volume_available", VolumeIds=[volume])
    serial = volume.replace("-", "")
    ec2.attach_volume(InstanceId=guest, VolumeId=volume, Device="/dev/sdf")
    until(lambda: serial in disks(ec2, key, guest), True)
    ready(ec2, "volume_in_use", VolumeIds=[volume])
    name, size = disks(ec2, key, guest)[serial]
    assert int(size) == 1 << 21
    ssh(ec2, key, guest, f"tr '\\0' x </dev/zero | head -c 16777216 >/dev/{name}; sync")
    assert taken(cloud, volume) >= 16 << 20
    ssh(ec2, key, guest, f"blkdiscard /dev/{name}")
    assert taken(cloud, volume) < 1 << 20, "what the guest discards is given back"
    ssh(ec2, key, guest, f"echo first >/dev/{name}; sync")
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    ready(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    ssh(ec2, key, guest, f"echo second >/dev/{name}; sync")
    (copy,) = ec2.copy_volumes(SourceVolumeId=volume, Size=2)["Volumes"]
    ssh(ec2, key, guest, f"echo third >/dev/{name}; sync")
    ready(ec2, "volume_available", VolumeIds=[copy["VolumeId"]])
    ec2.modify_volume(VolumeId=volume, Size=2)
    until(lambda: int(disks(ec2, key, guest)[serial][1]), 1 << 22)
    ec2.detach_volume(VolumeId=volume)
    until(lambda: serial in disks(ec2, key, guest), False)
    ready(ec2, "volume_available", VolumeIds=[volume])
    restored = ec2.create_volume(AvailabilityZone=zone, SnapshotId=snapshot)["VolumeId"]
    ready(ec2, "volume_available", VolumeIds=[restored])
    for volume_id, expected in [(volume, "third"), (restored, "first"), (copy["VolumeId"], "second")]:
        ec2.attach_volume(InstanceId=guest, VolumeId=volume_id, Device="/dev/sdf")
        serial = volume_id.replace("-", "")
        until(lambda: serial in disks(ec2, key, guest), True)
        name = disks(ec2, key, guest)[serial][0]
        assert ssh(ec2, key, guest, f"head -n 1 /dev/{name}") == f"{expected}\n"
        ec2.detach_volume(VolumeId=volume_id)
        ready(ec2, "volume_available", VolumeIds=[volume_id])
        ec2.delete_volume(VolumeId=volume_id)
    ec2.delete_snapshot(SnapshotId=snapshot)


def test_a_volume_is_read_before_all_of_it_is_there(cloud, ec2, guest, key):  # noqa: F811
    """Only the block store has its snapshot; the daemon is killed while the guest has it."""

    def deleted(volume):
        ec2.detach_volume(VolumeId=volume)
        ready(ec2, "volume_available", VolumeIds=[volume])
        ec2.delete_volume(VolumeId=volume)

    def read(name):
        return ssh(ec2, key, guest, f"echo 3 >/proc/sys/vm/drop_caches; head -c 30888896 /dev/{name} | md5sum")

    volume, name = attached(ec2, key, guest, Size=1)
    ssh(ec2, key, guest, f"seq 1 4000000 >/dev/{name}; sync")
    written = read(name)
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    ready(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    deleted(volume)
    # Its host follows a little later, and its layers are the snapshot's.
    until(pathlib.Path(cloud.data_dir, "volumes", f"{volume}.json").exists, False)
    cloud.kill()
    cloud.start()
    head = pathlib.Path(cloud.data_dir, "snapshots", f"{snapshot}.json")
    until(lambda: json.loads(head.read_text())["layers"], [])
    volume, name = attached(ec2, key, guest, SnapshotId=snapshot)

    def initialization():
        (status,) = ec2.describe_volume_status(VolumeIds=[volume])["VolumeStatuses"]
        return status["InitializationStatusDetails"]

    assert initialization()["InitializationType"] == "default" and initialization()["Progress"] <= 100
    cloud.kill()
    cloud.start()
    assert read(name) == written
    (layer,) = json.loads(head.read_text())["layers"]
    until(lambda: any(path.endswith(layer) for path in open_layers(guest)), True)
    assert read(name) == written and initialization()["Progress"] == 100
    deleted(volume)
    ec2.delete_snapshot(SnapshotId=snapshot)


def holding(directory, text):
    """The files in which the text is to be read."""
    found = []
    for path in (path for path in pathlib.Path(directory).rglob("*") if path.is_file()):
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    found += [path] if content.find(text.encode()) >= 0 else []
    return found


def test_what_an_encrypted_volume_holds_is_nowhere_to_be_read(cloud, ec2, guest, key):  # noqa: F811
    zone = describe(ec2, guest)["Placement"]["AvailabilityZone"]
    marks = {}
    for encrypted in (True, False):
        volume = ec2.create_volume(AvailabilityZone=zone, Size=1, Encrypted=encrypted)["VolumeId"]
        marks[volume] = f"mark-{uuid.uuid4()}"
        ready(ec2, "volume_available", VolumeIds=[volume])
        ec2.attach_volume(InstanceId=guest, VolumeId=volume, Device="/dev/sdf" if encrypted else "/dev/sdg")
        serial = volume.replace("-", "")
        until(lambda: serial in disks(ec2, key, guest), True)
        name = disks(ec2, key, guest)[serial][0]
        ssh(ec2, key, guest, f"echo {marks[volume]} >/dev/{name}; sync")
    volume, plain = marks
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    cloud.kill()
    cloud.start()
    ready(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    copy = ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion="us-east-1")["SnapshotId"]
    ready(ec2, "snapshot_completed", SnapshotIds=[copy])
    # One more layer is laid on top under the guest by a daemon that was told the key after the restart.
    ec2.delete_snapshot(SnapshotId=ec2.create_snapshot(VolumeId=volume)["SnapshotId"])
    restored = ec2.create_volume(AvailabilityZone=zone, SnapshotId=copy)["VolumeId"]
    ready(ec2, "volume_available", VolumeIds=[restored])
    ec2.attach_volume(InstanceId=guest, VolumeId=restored, Device="/dev/sdh")
    until(lambda: restored.replace("-", "") in disks(ec2, key, guest), True)
    found = disks(ec2, key, guest)
    for volume_id in (volume, restored):
        name = found[volume_id.replace("-", "")][0]
        read = ssh(ec2, key, guest, f"echo 3 >/proc/sys/vm/drop_caches; head -n 1 /dev/{name}")
        assert read == f"{marks[volume]}\n"
    blocks, _ = contents(cloud.client("ebs"), copy)
    assert blocks[0].startswith(marks[volume].encode())
    assert holding(cloud.data_dir, marks[plain]), "it would be found"
    assert not holding(cloud.data_dir, marks[volume])
    for volume_id in (volume, plain, restored):
        ec2.detach_volume(VolumeId=volume_id)
        ready(ec2, "volume_available", VolumeIds=[volume_id])
        ec2.delete_volume(VolumeId=volume_id)
    ec2.delete_snapshot(SnapshotId=snapshot)
    ec2.delete_snapshot(SnapshotId=copy)


def test_snapshots_outlive_whatever_is_killed(cloud, ec2, guest, key):  # noqa: F811
    """The daemon in the middle of a snapshot, then the machine; what the guest has flushed is there after each."""
    volume = describe(ec2, guest)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    snapshots = []
    for _ in range(3):
        flushed = flushed_by(ec2, key, guest)
        snapshots.append((ec2.create_snapshot(VolumeId=volume)["SnapshotId"], flushed))
        cloud.kill()
        cloud.start()
        assert numbers(ec2, key, guest)[-1] >= flushed, "the guest goes on"
    ready(ec2, "snapshot_completed", SnapshotIds=[snapshot for snapshot, _ in snapshots])
    # So many that layers are merged under the guest, which starts on the short chain.
    many = [ec2.create_snapshot(VolumeId=volume)["SnapshotId"] for _ in range(20)]
    ready(ec2, "snapshot_completed", SnapshotIds=many)
    flushed = flushed_by(ec2, key, guest)


    until(lambda: len(open_layers(guest)) < 20, True)
    assert not [name for name in open_layers(guest) if "deleted" in name]
    flushed = numbers(ec2, key, guest)[-1]
    last = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    (pid,) = processes_of(guest)
    os.kill(pid, 9)
    wait(ec2, "instance_stopped", [guest])
    ready(ec2, "snapshot_completed", SnapshotIds=[last])
    ec2.start_instances(InstanceIds=[guest])
    wait(ec2, "instance_running", [guest])
    until(lambda: ssh(ec2, key, guest, "cat /root/precious", check=False), "precious\n", 120)
    found = numbers(ec2, key, guest)
    assert found == list(range(1, len(found) + 1)) and len(found) >= flushed
    layers = json.loads(pathlib.Path(cloud.data_dir, "volumes", f"{volume}.json").read_text())["layers"]
    assert len(layers) < 20, layers
    image = ec2.register_image(
        Name="from a snapshot", RootDeviceName="/dev/xvda", Architecture="x86_64", VirtualizationType="hvm",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshots[0][0]}}],
    )["ImageId"]
    ec2.delete_snapshot(SnapshotId=snapshots[1][0])
    (copy,) = run(ec2, image, KeyName="guests", UserData=USER_DATA)
    console(ec2, copy["InstanceId"], "user data done")
    found = numbers(ec2, key, copy["InstanceId"])
    assert found == list(range(1, len(found) + 1)) and len(found) >= snapshots[0][1]


def test_an_image_is_made_of_a_guest_that_was_shut_down_for_it(cloud, ec2, guest, key):  # noqa: F811
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = ssh(ec2, key, guest, f"echo unwritten >/root/unwritten; {boot}")
    image = ec2.create_image(InstanceId=guest, Name="shut down")["ImageId"]
    ready(ec2, "image_available", ImageIds=[image])
    assert describe(ec2, guest)["State"]["Name"] == "running"
    # It boots again by itself, and with it what was only in its memory was written before.
    until(lambda: ssh(ec2, key, guest, boot, check=False) not in ("", before), True, 120)
    # Its disk goes out and in again as any tool for disk images moves one, and boots all the same, encrypted too.
    ebs = cloud.client("ebs")
    snapshot = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    uploaded = written(ebs, *contents(ebs, snapshot))
    ready(ec2, "snapshot_completed", SnapshotIds=[uploaded])
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    image = ec2.register_image(
        Name="uploaded", RootDeviceName="/dev/xvda", Architecture="x86_64", VirtualizationType="hvm",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": uploaded}}],
    )["ImageId"]
    encrypted = [{"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True}}]
    (copy,) = run(ec2, image, KeyName="guests", BlockDeviceMappings=encrypted)
    console(ec2, copy["InstanceId"], "login:")
    root = [{"Name": "attachment.instance-id", "Values": [copy["InstanceId"]]}]
    assert [volume["Encrypted"] for volume in ec2.describe_volumes(Filters=root)["Volumes"]] == [True]
    until(lambda: ssh(ec2, key, copy["InstanceId"], "cat /root/unwritten", check=False), "unwritten\n", 120)
    # It has booted before all of it was encrypted; once all is, it opens the files itself.
    until(lambda: len(open_layers(copy["InstanceId"])), 2, 120)
    text = ssh(ec2, key, copy["InstanceId"], "echo 3 >/proc/sys/vm/drop_caches; cat /root/unwritten")
    assert text == "unwritten\n"


def test_a_running_guest_boots_from_another_root_volume(ec2, guest, key):  # noqa: F811
    root = describe(ec2, guest)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    ssh(ec2, key, guest, "echo kept >/root/kept; sync")
    snapshot = ec2.create_snapshot(VolumeId=root)["SnapshotId"]
    ready(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    ssh(ec2, key, guest, "rm /root/kept; echo late >/root/late; sync")
    ec2.create_replace_root_volume_task(InstanceId=guest, SnapshotId=snapshot, DeleteReplacedRootVolume=True)
    until(lambda: ssh(ec2, key, guest, "cat /root/kept", check=False), "kept\n", 120)
    assert ssh(ec2, key, guest, "ls /root/late 2>/dev/null; true") == ""
    (task,) = ec2.describe_replace_root_volume_tasks()["ReplaceRootVolumeTasks"]
    assert task["TaskState"] == "succeeded"
    (mapping,) = describe(ec2, guest)["BlockDeviceMappings"]
    assert mapping["Ebs"]["VolumeId"] != root
    assert ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [root]}])["Volumes"] == []
