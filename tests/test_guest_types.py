"""What a guest sees of its instance type, and that it can't take more: one guest of types of the owner's own, with figures
so low that they, and not the emulated processor, are what slows it. As root only."""

import contextlib
import os
import subprocess
import time

import pytest
from conftest import run, wait
from test_guest import cloud, ec2, key, tiny  # noqa: F401 (fixtures)
from test_guest import describe, ssh

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="real instances need root")

MIB = 1024 * 1024
SLOW = ("--vcpus", "4", "--memory", "320", "--network-gbps", "0.008", "--ebs-mbps", "24", "--ebs-iops", "200",
        "--instance-storage", "1x1")
OTHER = ("--vcpus", "1", "--memory", "448", "--instance-storage", "1x2")
# As gigabytes in whole mebibytes.
STORE, OTHER_STORE = 954 * MIB, 1908 * MIB
EBS_BYTES, EBS_IOPS, NETWORK_BYTES, VOLUME_IOPS = 24e6 / 8, 200, 8e6 / 8, 100


@pytest.fixture(scope="module")
def slow(cloud, ec2, tiny, key):
    """Its disks: the root, a volume with few operations of its own, and an instance store volume."""
    cloud.command("instance-type", "create", "own.slow", *SLOW)
    cloud.command("instance-type", "create", "own.other", *OTHER)
    volume = {"VolumeType": "io1", "Iops": VOLUME_IOPS, "VolumeSize": 4}
    (instance,) = run(ec2, tiny, InstanceType="own.slow", KeyName="guests",
                      CpuOptions={"CoreCount": 2, "ThreadsPerCore": 1},
                      BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": volume}])
    wait(ec2, "instance_running", [instance["InstanceId"]])
    return instance["InstanceId"]


def disks(ec2, key, guest):
    """Name by size in bytes."""
    lines = ssh(ec2, key, guest, "cd /sys/block; grep . vd*/size").split()
    return {int(size) * 512: name.split("/")[0] for name, size in (line.split(":") for line in lines)}


def memory_mib(ec2, key, guest):
    return int(ssh(ec2, key, guest, "grep MemTotal /proc/meminfo").split()[1]) / 1024


def rate(ec2, key, guest, command, amount):
    """How much of it a second the guest gets done, by its own clock."""
    timed = f"read a _ </proc/uptime; {command} >/dev/null 2>&1 || echo failed; read b _ </proc/uptime; echo $a $b"
    begun, ended = ssh(ec2, key, guest, timed).split()
    return amount / (float(ended) - float(begun))


def held(rate, limit):
    """No faster than a tenth above the limit, and that limit is what slows it."""
    return 0.7 * limit <= rate <= 1.1 * limit


def test_processors_memory_and_disks_are_the_types(ec2, slow, key):
    # Of the type's four processors it was launched with two.
    assert ssh(ec2, key, slow, "nproc").strip() == "2"
    # The kernel keeps some for itself.
    assert 320 * 0.8 <= memory_mib(ec2, key, slow) <= 320
    assert sorted(disks(ec2, key, slow))[0] == STORE
    assert ssh(ec2, key, slow, "wget -q -O - http://169.254.169.254/latest/meta-data/instance-type") == "own.slow"


def test_disks_are_no_faster_than_the_type_and_the_volume(ec2, slow, key):
    names = disks(ec2, key, slow)
    volume = names[4 * 1024 * MIB]
    (root,) = set(names.values()) - {volume, names[STORE]}
    count = 60
    reads = rate(ec2, key, slow, f"dd if=/dev/{root} of=/dev/null bs=256k iflag=direct count={count}", count * MIB / 4)
    assert held(reads, EBS_BYTES), reads
    writes = rate(ec2, key, slow, f"dd if=/dev/zero of=/dev/{volume} bs=256k oflag=direct count={count}", count * MIB / 4)
    assert held(writes, EBS_BYTES), writes
    small = rate(ec2, key, slow, f"dd if=/dev/{root} of=/dev/null bs=4k iflag=direct count=1000", 1000)
    assert held(small, EBS_IOPS), small
    small = rate(ec2, key, slow, f"dd if=/dev/zero of=/dev/{volume} bs=4k oflag=direct count=500", 500)
    assert held(small, VOLUME_IOPS), small


@contextlib.contextmanager
def stream(ec2, key, guest, command, **pipes):
    """Runs as long as the block does."""
    address = describe(ec2, guest)["PublicIpAddress"]
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    with subprocess.Popen(["ssh", "-i", str(key), *options, f"admin@{address}", command], **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_guest_receives_no_faster_than_its_type(ec2, slow, key):
    counter = "/sys/class/net/eth0/statistics/rx_bytes"
    count = f"read a _ </proc/uptime; read x <{counter}; sleep 6; read b _ </proc/uptime; read y <{counter}; echo $a $x $b $y"
    with open("/dev/zero", "rb") as zeros, stream(ec2, key, slow, "echo; cat >/dev/null", stdin=zeros,
                                                 stdout=subprocess.PIPE) as process:
        process.stdout.read(1)  # it has begun
        begun, before, ended, after = map(float, ssh(ec2, key, slow, count).split())
    received = (after - before) / (ended - begun)
    assert held(received, NETWORK_BYTES), received


def test_a_guest_sends_no_faster_than_its_type(ec2, slow, key):
    """What arrives counts: what it sends may still wait, or be lost."""
    with stream(ec2, key, slow, "cat /dev/zero", stdout=subprocess.PIPE, bufsize=0) as process:
        def take(seconds):
            begun, taken = time.monotonic(), 0
            while time.monotonic() < begun + seconds:
                taken += len(process.stdout.read(65536))
            return taken / (time.monotonic() - begun)

        process.stdout.read(1)
        take(1)  # what it had saved
        sent = take(6)
    assert held(sent, NETWORK_BYTES), sent


def test_a_stopped_instance_comes_back_as_another_type_with_an_empty_store(ec2, slow, key):
    store = disks(ec2, key, slow)[STORE]
    ssh(ec2, key, slow, f"echo here | dd of=/dev/{store} bs=512 conv=sync,fsync; echo kept >/root/mark; sync")
    assert ssh(ec2, key, slow, f"head -c 4 /dev/{store}") == "here"
    ec2.stop_instances(InstanceIds=[slow])
    wait(ec2, "instance_stopped", [slow])
    ec2.modify_instance_attribute(InstanceId=slow, InstanceType={"Value": "own.other"})
    ec2.start_instances(InstanceIds=[slow])
    wait(ec2, "instance_running", [slow])
    assert ssh(ec2, key, slow, "cat /root/mark; nproc").split() == ["kept", "1"]
    assert 448 * 0.8 <= memory_mib(ec2, key, slow) <= 448
    names = disks(ec2, key, slow)
    assert STORE not in names
    store = names[OTHER_STORE]
    assert ssh(ec2, key, slow, f"head -c 1048576 /dev/{store} | tr -d '\\0' | wc -c").strip() == "0"
    # What its new type does not limit is as fast as it goes.
    count = 60
    (root,) = set(names.values()) - {store, names[4 * 1024 * MIB]}
    read = rate(ec2, key, slow, f"dd if=/dev/{root} of=/dev/null bs=256k iflag=direct count={count}", count * MIB / 4)
    assert read > 2 * EBS_BYTES, read
