"""Real guests: one cloud, one tiny guest shared by many assertions, one full Debian. As root only."""

import hashlib
import ipaddress
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

import pytest
import uefi_data
from conftest import Cloud, processes_of, ready, run, until, wait

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="real instances need root")

USER_DATA = """#!/bin/sh
echo "USER-DATA ran as $(id -un) on $(hostname): $((6 * 7))" >/dev/console
echo "configured once" >>/root/configured
"""


@pytest.fixture(scope="module")
def cloud():
    # At each start what snapshots hold goes from the disk: what is made of them then comes out of the block store.
    cloud = Cloud("--status-check-period", "2", "--keep-free", "100").start()
    yield cloud
    if cloud.process.poll() is not None:  # a test that killed it failed before it started it again
        cloud.start()
    ec2 = cloud.client()
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    ids = [i["InstanceId"] for r in ec2.describe_instances(Filters=alive)["Reservations"] for i in r["Instances"]]
    if ids:
        ec2.terminate_instances(InstanceIds=ids, SkipOsShutdown=True)
        wait(ec2, "instance_terminated", ids)
    cloud.stop()


@pytest.fixture(scope="module")
def ec2(cloud):
    return cloud.client()


@pytest.fixture(scope="module")
def key(ec2):
    """A key pair's private half, in a file that ssh accepts."""
    directory = tempfile.mkdtemp(prefix="cumulet-test-key-")
    path = pathlib.Path(directory, "key.pem")
    path.write_text(ec2.create_key_pair(KeyName="guests", KeyType="ed25519")["KeyMaterial"])
    path.chmod(0o600)
    everybody = {"IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    permission = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **everybody}
    ec2.authorize_security_group_ingress(GroupName="default", IpPermissions=[permission])
    yield path
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def tiny(cloud):
    return image(cloud, "tiny")


def image(cloud, recipe):
    """Builds an image; what was built before for the same recipe comes out of the cache."""
    cache = pathlib.Path(__file__).resolve().parent.parent / "target" / "images"
    cache.mkdir(parents=True, exist_ok=True)
    return cloud.command("image", "build", recipe, "--cache-dir", str(cache)).stdout.strip()


@pytest.fixture(scope="module")
def guest(ec2, tiny, key):
    """A tiny guest that has run its user data."""
    (instance,) = run(ec2, tiny, KeyName="guests", UserData=USER_DATA)
    console(ec2, instance["InstanceId"], "user data done")
    return instance["InstanceId"]


# What a kernel says whose second processor has lost its timer: QEMU's emulation of processors does that to a guest now
# and then while it starts, and nothing in the guest goes on.
TIMER_LOST = "kthread timer wakeup didn't happen"


def console(client, instance_id, expected, seconds=180):
    """The console, once it says what is expected."""
    deadline = time.monotonic() + seconds
    output, stalls = "", 0
    while time.monotonic() < deadline:
        output = client.get_console_output(InstanceId=instance_id, Latest=True).get("Output", "")
        if expected in output:
            return output
        if TIMER_LOST in output and stalls == 0:
            stalls += 1
            restart(client, instance_id)
            deadline = time.monotonic() + seconds
        time.sleep(0.3)
    raise AssertionError(f"{expected!r} is not on the console:\n{output[-3000:]}")


def restart(client, instance_id):
    """On another machine, as one does at EC2 when a status check fails."""
    client.stop_instances(InstanceIds=[instance_id], Force=True)
    client.get_waiter("instance_stopped").wait(InstanceIds=[instance_id], WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    client.start_instances(InstanceIds=[instance_id])


def describe(client, instance_id):
    return client.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def ssh(client, key, instance_id, command, user="admin", check=True):
    described = describe(client, instance_id)
    address = described.get("PublicIpAddress") or described["Ipv6Address"]
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
               "-o", "ConnectTimeout=10", "-o", "ConnectionAttempts=6"]
    done = subprocess.run(["ssh", "-i", str(key), *options, f"{user}@{address}", command],
                          capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def test_user_data_ran_and_the_owner_gets_in(ec2, guest, key):
    output = ec2.get_console_output(InstanceId=guest, Latest=True)["Output"]
    private = describe(ec2, guest)["PrivateIpAddress"]
    hostname = "ip-" + private.replace(".", "-")
    assert f"USER-DATA ran as root on {hostname}: 42" in output
    assert ssh(ec2, key, guest, "hostname").strip() == hostname
    assert private in ssh(ec2, key, guest, "ip -4 addr show dev eth0")
    # Two processors, and a queue each way for each.
    queues = ssh(ec2, key, guest, "ls /sys/class/net/eth0/queues").split()
    assert queues == ["rx-0", "rx-1", "tx-0", "tx-1"]
    assert ssh(ec2, key, guest, "cat /root/configured") == "configured once\n"


def test_the_guest_reads_its_own_metadata(ec2, guest, key):
    get = "wget -q -O - http://169.254.169.254/latest/"
    described = describe(ec2, guest)
    read = lambda path: ssh(ec2, key, guest, get + path)
    assert read("meta-data/instance-id") == guest
    assert read("meta-data/local-ipv4") == described["PrivateIpAddress"]
    assert read("meta-data/public-ipv4") == described["PublicIpAddress"]
    assert read("meta-data/instance-type") == "t3.micro"
    assert read("meta-data/public-keys/0/openssh-key").startswith("ssh-ed25519 ")
    assert read("user-data") == USER_DATA
    assert f'"instanceId" : "{guest}"' in read("dynamic/instance-identity/document")
    # Version 2 only, once the owner says so.
    ec2.modify_instance_metadata_options(InstanceId=guest, HttpTokens="required")
    deadline = time.monotonic() + 10
    while "401" not in ssh(ec2, key, guest, get + "meta-data/instance-id 2>&1; true"):
        assert time.monotonic() < deadline
    ec2.modify_instance_metadata_options(InstanceId=guest, HttpTokens="optional")


def test_names_resolve_inside(ec2, guest, key):
    private = describe(ec2, guest)["PrivateIpAddress"]
    name = "ip-" + private.replace(".", "-") + ".ec2.internal"
    assert private in ssh(ec2, key, guest, f"nslookup {name}")


def cards(ec2, key, guest):
    """The guest's network cards: their names by their addresses."""
    shown = ssh(ec2, key, guest, "cd /sys/class/net; grep . */address").split()
    return {mac: place.split("/")[0] for place, mac in (line.split(":", 1) for line in shown)}


def test_a_network_card_comes_and_goes(cloud, ec2, guest, key):
    before = cards(ec2, key, guest)
    made = ec2.create_network_interface(SubnetId=describe(ec2, guest)["SubnetId"])["NetworkInterface"]
    id, mac, address = made["NetworkInterfaceId"], made["MacAddress"], made["PrivateIpAddress"]
    attached = ec2.attach_network_interface(NetworkInterfaceId=id, InstanceId=guest, DeviceIndex=1)["AttachmentId"]
    # It gets the address that the API told, by itself as at EC2, and is known to the metadata service.
    until(lambda: mac in cards(ec2, key, guest), True)
    name = cards(ec2, key, guest)[mac]
    until(lambda: f"inet {address}/" in ssh(ec2, key, guest, f"ip -4 addr show dev {name}"), True)
    listed = f"wget -q -O - http://169.254.169.254/latest/meta-data/network/interfaces/macs/{mac}"
    assert ssh(ec2, key, guest, f"{listed}/device-number; echo; {listed}/local-ipv4s").split() == ["1", address]
    # It survives the daemon, which finds it again.
    cloud.kill()
    cloud.start()
    (shown,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[id])["NetworkInterfaces"]
    assert shown["Attachment"]["Status"] == "attached" and cards(ec2, key, guest)[mac] == name
    ec2.detach_network_interface(AttachmentId=attached)
    ec2.get_waiter("network_interface_available").wait(NetworkInterfaceIds=[id], WaiterConfig={"Delay": 1})
    assert cards(ec2, key, guest) == before
    ec2.delete_network_interface(NetworkInterfaceId=id)


def test_the_screen_can_be_seen(ec2, guest):
    import base64

    picture = base64.b64decode(ec2.get_console_screenshot(InstanceId=guest)["ImageData"])
    assert picture[:2] == b"\xff\xd8"


def test_groups_decide_who_gets_in(ec2, guest, key, tiny):
    address = describe(ec2, guest)["PublicIpAddress"]
    knock = ["timeout", "3", "bash", "-c", f"echo >/dev/tcp/{address}/22"]
    assert subprocess.run(knock, capture_output=True).returncode == 0
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.revoke_security_group_ingress(GroupName="default", IpPermissions=[rule])
    deadline = time.monotonic() + 5
    while subprocess.run(knock, capture_output=True).returncode == 0:
        assert time.monotonic() < deadline, "a revoked rule still lets through"
    ec2.authorize_security_group_ingress(GroupName="default", IpPermissions=[rule])
    deadline = time.monotonic() + 5
    while subprocess.run(knock, capture_output=True).returncode != 0:
        assert time.monotonic() < deadline, "an authorized rule does not let through"


def status(client, instance_id):
    (one,) = client.describe_instance_status(InstanceIds=[instance_id])["InstanceStatuses"]
    checks = [one[name] for name in ("InstanceStatus", "SystemStatus", "AttachedEbsStatus")]
    return [check["Status"] for check in checks], one


def until_status(client, instance_id, expected, seconds=60):
    deadline = time.monotonic() + seconds
    while status(client, instance_id)[0] != expected:
        assert time.monotonic() < deadline, status(client, instance_id)
        time.sleep(0.2)
    return status(client, instance_id)[1]


def monitor(cloud, instance_id, command):
    """Tells QEMU something behind the cloud's back, by the monitor that it has to spare."""
    with socket.socket(socket.AF_UNIX) as qmp:
        # A socket's path may be longer than an address: by the directory's descriptor it is short.
        directory = os.open(os.path.join(cloud.data_dir, "machines", instance_id), os.O_DIRECTORY)
        qmp.connect(f"/proc/self/fd/{directory}/qmp-spare.sock")
        os.close(directory)
        lines = qmp.makefile("rw")
        lines.readline()
        for each in ("qmp_capabilities", command):
            lines.write(json.dumps({"execute": each}) + "\n")
            lines.flush()
            while "return" not in json.loads(lines.readline()):
                pass


def test_status_checks_pass_and_see_a_machine_that_stands_still(cloud, ec2, guest):
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=[guest], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    ec2.get_waiter("system_status_ok").wait(InstanceIds=[guest], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    until_status(ec2, guest, ["ok", "ok", "ok"])
    monitor(cloud, guest, "stop")
    impaired = until_status(ec2, guest, ["impaired", "impaired", "ok"])
    assert impaired["SystemStatus"]["Details"][0]["Status"] == "failed"
    since = impaired["SystemStatus"]["Details"][0]["ImpairedSince"]
    filters = [{"Name": "system-status.reachability", "Values": ["failed"]}]
    assert ec2.describe_instance_status(Filters=filters)["InstanceStatuses"] == [impaired]
    # The daemon's restart forgets nothing of it.
    cloud.kill()
    cloud.start()
    assert status(ec2, guest)[0] == ["impaired", "impaired", "ok"]
    monitor(cloud, guest, "cont")
    until_status(ec2, guest, ["ok", "ok", "ok"])
    events = cloud.command("events").stdout
    assert "system status ok, instance status ok" in events and since.year >= 2024


def test_the_guest_outlives_the_daemon(cloud, ec2, guest, key):
    boot = ssh(ec2, key, guest, "cat /proc/sys/kernel/random/boot_id")
    cloud.kill()
    cloud.start()
    assert describe(ec2, guest)["State"]["Name"] == "running"
    assert ssh(ec2, key, guest, "cat /proc/sys/kernel/random/boot_id") == boot


def test_reboot_and_stop_keep_the_disk_and_run_user_data_once(ec2, guest, key):
    boot = ssh(ec2, key, guest, "echo kept >/root/mark; cat /proc/sys/kernel/random/boot_id")
    # Its machine is well, and nobody reaches it: that it is told to reboot is what an owner does then.
    ssh(ec2, key, guest, "(sleep 1; ip link set eth0 down) >/dev/null 2>&1 &")
    until_status(ec2, guest, ["impaired", "ok", "ok"])
    ec2.reboot_instances(InstanceIds=[guest])
    deadline = time.monotonic() + 120
    while ssh(ec2, key, guest, "cat /proc/sys/kernel/random/boot_id", check=False) in ("", boot):
        assert time.monotonic() < deadline, "the guest did not reboot"
    until_status(ec2, guest, ["ok", "ok", "ok"])
    before = describe(ec2, guest)
    ec2.stop_instances(InstanceIds=[guest])
    wait(ec2, "instance_stopped", [guest])
    ec2.start_instances(InstanceIds=[guest])
    wait(ec2, "instance_running", [guest])
    assert describe(ec2, guest)["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert ssh(ec2, key, guest, "cat /root/mark /root/configured") == "kept\nconfigured once\n"


def test_a_guest_that_powers_off_is_stopped_and_says_why(cloud, ec2, guest, key):
    ssh(ec2, key, guest, "poweroff", check=False)
    wait(ec2, "instance_stopped", [guest])
    assert describe(ec2, guest)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    request = ec2.start_instances(InstanceIds=[guest])["ResponseMetadata"]["RequestId"]
    wait(ec2, "instance_running", [guest])
    # One id leads from the answer through the log to the machine that was started for it.
    log = re.sub(r"\x1b\[[0-9;]*m", "", pathlib.Path(cloud.log.name).read_text())
    lines = [line for line in log.splitlines() if request in line]
    assert any("server::exchange: request " in line for line in lines)
    assert any("stopped → pending" in line for line in lines)
    assert any("agent::instance: machine runs" in line and guest in line for line in lines)


def test_a_machine_that_dies_is_stopped_and_says_why(ec2, guest):
    (pid,) = processes_of(guest)
    os.kill(pid, 9)
    wait(ec2, "instance_stopped", [guest])
    described = describe(ec2, guest)
    assert described["StateReason"]["Code"] == "Server.InternalError"
    assert described["StateReason"]["Message"].startswith("Server.InternalError: The machine's process ended")
    (stopped,) = ec2.describe_instance_status(InstanceIds=[guest], IncludeAllInstances=True)["InstanceStatuses"]
    assert stopped["SystemStatus"]["Status"] == "not-applicable"
    ec2.start_instances(InstanceIds=[guest])
    wait(ec2, "instance_running", [guest])


def test_uninstalling_leaves_nothing_on_the_host(cloud, ec2, guest):
    tag = hashlib.sha256(os.path.realpath(cloud.data_dir).encode()).hexdigest()[:8]

    def left():
        tables = subprocess.run(["nft", "list", "tables"], check=True, text=True, capture_output=True).stdout
        namespaces = pathlib.Path("/run/netns").iterdir()
        return processes_of(guest), tag in tables, any(tag in namespace.name for namespace in namespaces)

    refused = cloud.command("uninstall", check=False)
    assert refused.returncode == 1 and "stop the cloud first" in refused.stderr
    cloud.kill()
    refused = cloud.command("uninstall", check=False)
    assert refused.returncode == 1 and guest in refused.stderr
    assert all(left())
    cloud.command("uninstall", "--end-instances")
    assert left() == ([], False, False)

    # Its data are as they were.
    cloud.start()
    wait(ec2, "instance_stopped", [guest])
    ec2.start_instances(InstanceIds=[guest])
    wait(ec2, "instance_running", [guest])


def test_a_machine_that_died_while_the_daemon_was_away(cloud, ec2, guest):
    (pid,) = processes_of(guest)
    cloud.kill()
    os.kill(pid, 9)
    cloud.start()
    wait(ec2, "instance_stopped", [guest])
    assert describe(ec2, guest)["StateReason"]["Code"] == "Server.InternalError"


def test_nothing_is_left_of_a_terminated_guest(cloud, ec2, guest):
    ec2.terminate_instances(InstanceIds=[guest])
    wait(ec2, "instance_terminated", [guest])
    assert processes_of(guest) == []
    data = pathlib.Path(cloud.data_dir)
    left = [str(path) for name in ("machines", "volumes") for path in (data / name).iterdir()]
    assert left == []


@pytest.fixture(scope="module")
def ipv6(ec2):
    """The default VPC, which gets a block and a way out, and the block's parts for subnets."""
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    added = ec2.associate_vpc_cidr_block(VpcId=vpc["VpcId"], AmazonProvidedIpv6CidrBlock=True)
    block = ipaddress.ip_network(added["Ipv6CidrBlockAssociation"]["Ipv6CidrBlock"])
    of_vpc = lambda name: [{"Name": name, "Values": [vpc["VpcId"]]}]
    (gateway,) = ec2.describe_internet_gateways(Filters=of_vpc("attachment.vpc-id"))["InternetGateways"]
    (table,) = ec2.describe_route_tables(Filters=of_vpc("vpc-id"))["RouteTables"]
    out = {"DestinationIpv6CidrBlock": "::/0", "GatewayId": gateway["InternetGatewayId"]}
    ec2.create_route(RouteTableId=table["RouteTableId"], **out)
    return vpc["VpcId"], (str(part) for part in block.subnets(new_prefix=64))


def test_a_guest_of_ipv6_alone(ec2, tiny, key, ipv6):
    vpc, blocks = ipv6
    subnet = ec2.create_subnet(VpcId=vpc, Ipv6Native=True, Ipv6CidrBlock=next(blocks))["Subnet"]["SubnetId"]
    ec2.modify_subnet_attribute(SubnetId=subnet, EnableDns64={"Value": True})
    options = {"HttpProtocolIpv6": "enabled"}
    (instance,) = run(ec2, tiny, SubnetId=subnet, KeyName="guests", UserData=USER_DATA, MetadataOptions=options)
    instance_id = instance["InstanceId"]
    output = console(ec2, instance_id, "user data done")
    assert f"USER-DATA ran as root on {instance_id}: 42" in output
    inside = lambda command: ssh(ec2, key, instance_id, command)
    assert inside("imds meta-data/instance-id") == instance_id
    addresses = inside("ip addr show dev eth0")
    assert f"inet6 {instance['Ipv6Address']}/128" in addresses and "inet " not in addresses
    # Its own resolver, which names what has IPv4 alone as it can reach it through a NAT gateway.
    assert inside("cat /etc/resolv.conf").split()[-2:] == ["nameserver", "fd00:ec2::253"]
    assert "64:ff9b::ac1f:102" in inside("nslookup -type=aaaa ip-172-31-1-2.ec2.internal")
    ec2.terminate_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_terminated", [instance_id])
    ec2.delete_subnet(SubnetId=subnet)


def within(directory):
    """Names of the processes that work in a directory, or below it."""
    names = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve().is_relative_to(directory):
                names.append((process / "comm").read_text().strip())
        except OSError:  # it has ended
            continue
    return sorted(names)


def test_a_uefi_guest_with_a_tpm_and_nvme_disks(cloud, ec2, tiny, key):
    (source,) = ec2.describe_images(ImageIds=[tiny])["Images"]
    mapping = source["BlockDeviceMappings"][0]
    mapping["Ebs"] = {"SnapshotId": mapping["Ebs"]["SnapshotId"]}
    registered = ec2.register_image(
        Name="measured", Architecture="x86_64", BootMode="uefi", TpmSupport="v2.0", EnaSupport=True,
        UefiData=uefi_data.made({"Given": (7, b"given")}),
        RootDeviceName=source["RootDeviceName"], BlockDeviceMappings=[mapping], VirtualizationType="hvm",
        TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "cumulet:disks", "Value": "nvme"}]}],
    )["ImageId"]
    (instance,) = run(ec2, registered, KeyName="guests", UserData=USER_DATA)
    instance_id = instance["InstanceId"]
    console(ec2, instance_id, "user data done", seconds=300)
    described = describe(ec2, instance_id)
    assert (described["BootMode"], described["TpmSupport"]) == ("uefi", "v2.0")
    inside = lambda command, **options: ssh(ec2, key, instance_id, command, **options).strip()
    assert inside("test -d /sys/firmware/efi && cat /sys/class/tpm/tpm0/tpm_version_major") == "2"
    # What the firmware measured of itself.
    assert int(inside("cat /sys/class/tpm/tpm0/pcr-sha256/0"), 16) != 0
    variables = lambda: uefi_data.read(ec2.get_instance_uefi_data(InstanceId=instance_id)["UefiData"])
    efivars = "/sys/firmware/efi/efivars"
    own = f"{efivars}/Own-12345678-1234-1234-1234-123456789abc"
    inside(f"mount -t efivarfs efivarfs {efivars}")
    assert inside(f"tail -c +5 {efivars}/Given-*") == "given"
    inside(f"printf '\\007\\000\\000\\000kept' >{own}")
    assert variables()["Own"] == (7, b"kept") and "BootOrder" in variables()
    root = described["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    serials = lambda: inside("cat /sys/class/nvme/*/serial").split()
    assert serials() == [root.replace("-", "")]

    zone = described["Placement"]["AvailabilityZone"]
    volume = ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    ready(ec2, "volume_available", VolumeIds=[volume])
    ec2.attach_volume(VolumeId=volume, InstanceId=instance_id, Device="/dev/sdf")
    ready(ec2, "volume_in_use", VolumeIds=[volume])
    until(lambda: volume.replace("-", "") in serials(), True)
    inside("echo kept | dd of=/dev/nvme1n1 bs=512 count=1 conv=sync,fsync 2>/dev/null")
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    ready(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    ec2.modify_volume(VolumeId=volume, Size=2)

    # A daemon that starts anew takes neither the machine nor its TPM for somebody else's.
    cloud.kill()
    cloud.start()
    assert within(cloud.data_dir) == ["qemu-system-x86", "swtpm"]
    assert inside("head -c 4 /dev/nvme1n1; cat /sys/class/tpm/tpm0/tpm_version_major") == "kept2"
    # QEMU's NVMe tells a running guest of no new size; the next boot does. The TPM's state stays.
    ec2.reboot_instances(InstanceIds=[instance_id])
    until(lambda: inside("cat /sys/block/nvme1n1/size", check=False), str(2 << 21), seconds=120)
    assert inside("cat /sys/class/tpm/tpm0/tpm_version_major") == "2"
    inside(f"mount -t efivarfs efivarfs {efivars}")
    assert inside(f"tail -c +5 {own}") == "kept" and variables()["Own"] == (7, b"kept")
    ec2.detach_volume(VolumeId=volume)
    ready(ec2, "volume_available", VolumeIds=[volume])
    assert serials() == [root.replace("-", "")]
    ec2.terminate_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_terminated", [instance_id])
    assert within(cloud.data_dir) == []
    ec2.delete_volume(VolumeId=volume)


def test_secure_boot_runs_nothing_unsigned(ec2, tiny):
    """A platform key alone, which has signed nothing."""
    (source,) = ec2.describe_images(ImageIds=[tiny])["Images"]
    mapping = source["BlockDeviceMappings"][0]
    mapping["Ebs"] = {"SnapshotId": mapping["Ebs"]["SnapshotId"]}
    registered = ec2.register_image(
        Name="secure", Architecture="x86_64", BootMode="uefi", UefiData=uefi_data.made({"PK": (0x27, bytes(48))}),
        RootDeviceName=source["RootDeviceName"], BlockDeviceMappings=[mapping], VirtualizationType="hvm",
    )["ImageId"]
    (instance,) = run(ec2, registered)
    console(ec2, instance["InstanceId"], "Access Denied")
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]], SkipOsShutdown=True)
    wait(ec2, "instance_terminated", [instance["InstanceId"]])


def test_debian_with_cloud_init(cloud, ec2, key, ipv6):
    debian = image(cloud, "debian-12")
    vpc, blocks = ipv6
    subnet = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"][0]["SubnetId"]
    ec2.associate_subnet_cidr_block(SubnetId=subnet, Ipv6CidrBlock=next(blocks))
    with_ipv6 = {"SubnetId": subnet, "Ipv6AddressCount": 1}
    options = {"HttpProtocolIpv6": "enabled"}
    (instance,) = run(
        ec2, debian, InstanceType="t3.small", KeyName="guests", UserData=USER_DATA, MetadataOptions=options, **with_ipv6
    )
    instance_id = instance["InstanceId"]
    output = console(ec2, instance_id, "USER-DATA ran", seconds=400)
    assert re.search(r"USER-DATA ran as root on ip-172-31-[0-9-]+: 42", output)
    assert ssh(ec2, key, instance_id, "cloud-id").strip() == "aws"
    assert ssh(ec2, key, instance_id, "findmnt -no FSTYPE /").strip() == "ext4"
    document = ssh(ec2, key, instance_id, "cloud-init query ds.dynamic.instance_identity.document.instanceId")
    assert document.strip() == instance_id
    # By DHCPv6, and from its metadata over IPv6.
    assert instance["Ipv6Address"] in ssh(ec2, key, instance_id, "ip -6 -o address show scope global")
    metadata = "curl -s http://[fd00:ec2::254]/latest/meta-data"
    assert ssh(ec2, key, instance_id, f"{metadata}/ipv6") == instance["Ipv6Address"]
    off = {"InstanceId": instance_id, "HttpProtocolIpv6": "disabled"}
    ec2.modify_instance_metadata_options(**off)
    assert "403 - Forbidden" in ssh(ec2, key, instance_id, f"{metadata}/ipv6")
    ec2.terminate_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_terminated", [instance_id])
