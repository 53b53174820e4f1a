"""The owner's own instance types, on a simulated cloud; what a guest sees of one is in test_guest.py."""

import threading

import pytest
from botocore.exceptions import ClientError
from conftest import error_code, run, wait

FIGURES = ("--vcpus", "3", "--memory", "768", "--network-gbps", "0.5", "--network-peak-gbps", "5",
           "--ebs-mbps", "80", "--ebs-iops", "400", "--instance-storage", "2x30", "--burstable", "12.5")


def create(cloud, name, *figures, **options):
    return cloud.command("instance-type", "create", name, *figures, **options)


def delete(cloud, name, **options):
    return cloud.command("instance-type", "delete", name, **options)


def listed(cloud):
    return {line.split()[0]: line for line in cloud.command("instance-type", "list").stdout.splitlines()[1:]}


@pytest.fixture
def own(simulated):
    create(simulated, "own.medium", *FIGURES)
    yield "own.medium"
    delete(simulated, "own.medium", check=False)


def only(ec2, *filters):
    pages = ec2.get_paginator("describe_instance_types").paginate(
        Filters=[{"Name": name, "Values": [value]} for name, value in filters])
    return [info["InstanceType"] for page in pages for info in page["InstanceTypes"]]


def terminate(ec2, *ids):
    ec2.terminate_instances(InstanceIds=ids)
    wait(ec2, "instance_terminated", ids)


def test_a_type_is_described_like_any_other(ec2, own):
    (info,) = ec2.describe_instance_types(InstanceTypes=[own])["InstanceTypes"]
    assert info["VCpuInfo"]["DefaultVCpus"] == 3
    assert info["MemoryInfo"]["SizeInMiB"] == 768
    assert info["BurstablePerformanceSupported"] is True
    assert info["InstanceStorageInfo"]["TotalSizeInGB"] == 60
    assert info["InstanceStorageInfo"]["Disks"] == [{"SizeInGB": 30, "Count": 2, "Type": "ssd"}]
    (card,) = info["NetworkInfo"]["NetworkCards"]
    assert (card["BaselineBandwidthInGbps"], card["PeakBandwidthInGbps"]) == (0.5, 5.0)
    assert info["EbsInfo"]["EbsOptimizedInfo"]["BaselineThroughputInMBps"] == 10.0
    assert only(ec2, ("instance-type", "own.*"), ("memory-info.size-in-mib", "768")) == [own]
    assert only(ec2, ("instance-type", "own.*"), ("burstable-performance-supported", "false")) == []
    everything = only(ec2)
    assert own in everything and everything == sorted(set(everything))
    offered = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [own]}])
    assert len(offered["InstanceTypeOfferings"]) == len(ec2.describe_availability_zones()["AvailabilityZones"])


def test_instances_have_it_and_keep_it_from_being_deleted(simulated, ec2, ami, own):
    (instance,) = run(ec2, ami, InstanceType=own)
    instance_id = instance["InstanceId"]
    (credit,) = ec2.describe_instance_credit_specifications(InstanceIds=[instance_id])["InstanceCreditSpecifications"]
    assert credit["CpuCredits"] == "standard"
    refused = delete(simulated, own, check=False)
    assert refused.returncode != 0 and f"is in use, by {instance_id}" in refused.stderr
    assert only(ec2, ("instance-type", own)) == [own]
    terminate(ec2, instance_id)
    delete(simulated, own)
    assert only(ec2, ("instance-type", own)) == []
    with pytest.raises(ClientError, match="InvalidParameterValue.*Invalid value 'own.medium' for InstanceType"):
        run(ec2, ami, InstanceType=own)


def test_cpu_options_are_held_to_the_type(ec2, ami, own):
    def options(cores, threads):
        return {"CoreCount": cores, "ThreadsPerCore": threads}

    def refusal(instance_type, wanted):
        return error_code(run, client=ec2, ami=ami, InstanceType=instance_type, CpuOptions=wanted)

    assert refusal(own, options(4, 1)) == refusal(own, options(3, 2)) == "InvalidParameterValue"
    assert refusal("m5.large", options(1, 3)) == "InvalidParameterValue"
    assert refusal("m5.large", {"CoreCount": 1}) == "InvalidParameterCombination"
    assert refusal("m1.small", options(1, 1)) == refusal("m6a.large", {"AmdSevSnp": "enabled"}) == "UnsupportedOperation"
    (whole,) = run(ec2, ami, InstanceType="m5.large")
    assert whole["CpuOptions"] == options(1, 2)
    (part,) = run(ec2, ami, InstanceType=own, CpuOptions=options(2, 1))
    assert part["CpuOptions"] == options(2, 1)
    # They end with the type that they were for.
    wait(ec2, "instance_running", [part["InstanceId"]])
    ec2.stop_instances(InstanceIds=[part["InstanceId"]])
    wait(ec2, "instance_stopped", [part["InstanceId"]])
    ec2.modify_instance_attribute(InstanceId=part["InstanceId"], InstanceType={"Value": "m5.xlarge"})
    (after,) = ec2.describe_instances(InstanceIds=[part["InstanceId"]])["Reservations"][0]["Instances"]
    assert after["CpuOptions"] == options(2, 2)
    terminate(ec2, whole["InstanceId"], part["InstanceId"])


def test_a_stopped_instance_is_made_one(ec2, ami, own):
    (instance,) = run(ec2, ami)
    instance_id = instance["InstanceId"]
    wait(ec2, "instance_running", [instance_id])
    ec2.stop_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_stopped", [instance_id])
    change = ec2.modify_instance_attribute
    assert error_code(change, InstanceId=instance_id, InstanceType={"Value": "own.none"}) == "InvalidParameterValue"
    change(InstanceId=instance_id, InstanceType={"Value": own})
    ec2.start_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_running", [instance_id])
    terminate(ec2, instance_id)


def test_made_again_it_must_be_the_same(simulated, own):
    create(simulated, own, *FIGURES)
    other = create(simulated, own, "--vcpus", "4", "--memory", "768", check=False)
    assert other.returncode != 0 and "with other figures" in other.stderr
    assert listed(simulated)[own].split() == [
        own, "x86_64", "3", "768", "MiB", "0.5", "to", "5", "Gbps", "80", "Mbps,", "400", "IOPS", "2x30", "GB", "12.5", "%"]
    gone = delete(simulated, "own.none", check=False)
    assert gone.returncode != 0 and "no instance type 'own.none'" in gone.stderr


@pytest.mark.parametrize("name, figures, why", [
    ("t3.micro", (), "one of AWS's"),
    ("t3.own", (), "one of AWS's"),
    ("own", (), "no name"),
    ("own.a/b", (), "no name"),
    ("own.x", ("--vcpus", "0"), "VCpus is 0"),
    ("own.x", ("--memory", "1"), "MemoryMiB is 1"),
    ("own.x", ("--network-gbps", "-1"), "unexpected argument"),
    ("own.x", ("--network-gbps=NaN",), "not finite"),
    ("own.x", ("--network-gbps", "1e9"), "NetworkBandwidthInGbps is 1000000000"),
    ("own.x", ("--instance-storage", "99x1"), "InstanceStorageCount is 99"),
    ("own.x", ("--instance-storage", "two"), "invalid value"),
])
def test_what_is_no_type_is_refused(simulated, name, figures, why):
    missing = [text for flag, value in (("--vcpus", "1"), ("--memory", "512")) if flag not in figures
               for text in (flag, value)]
    refused = create(simulated, name, *missing, *figures, check=False)
    assert refused.returncode != 0 and why in refused.stderr, refused.stderr
    assert name not in listed(simulated)


def test_an_acknowledged_type_survives_a_crash(cloud_factory):
    cloud = cloud_factory("--simulate")
    create(cloud, "own.kept", *FIGURES)
    create(cloud, "own.gone", *FIGURES)
    delete(cloud, "own.gone")
    cloud.kill()
    cloud.start()
    assert list(listed(cloud)) == ["own.kept"]


def test_no_instance_is_left_with_a_type_that_was_deleted(simulated, ami):
    """Launches race with deletions: whichever wins, what runs has a type."""
    for number in range(5):
        name = f"race.x{number}"
        create(simulated, name, "--vcpus", "1", "--memory", "512")
        launched, clients = [], [simulated.client() for _ in range(4)]

        def launch(client):
            try:
                launched.extend(i["InstanceId"] for i in run(client, ami, InstanceType=name))
            except ClientError as error:
                assert error.response["Error"]["Code"] == "InvalidParameterValue"

        threads = [threading.Thread(target=launch, args=(client,)) for client in clients]
        [thread.start() for thread in threads]
        deleted = delete(simulated, name, check=False).returncode == 0
        [thread.join() for thread in threads]
        assert not (deleted and launched), (name, launched)
        if launched:
            terminate(clients[0], *launched)
            delete(simulated, name)
