"""Quotas and throttling: what the operator bounds is bounded, in EC2's words."""

import subprocess

from conftest import BINARY, error_code, run


def test_quotas_bound_what_a_region_holds(cloud_factory):
    cloud = cloud_factory("--simulate", "--quota", "vcpus=4", "--quota", "key-pairs=2")
    ec2 = cloud.client()
    ami = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
    for name in ("one", "two"):
        ec2.create_key_pair(KeyName=name)
    assert error_code(ec2.create_key_pair, KeyName="three") == "ResourceLimitExceeded"
    ec2.delete_key_pair(KeyName="one")
    ec2.create_key_pair(KeyName="three")

    first, second = run(ec2, ami, 2, InstanceType="t3.micro")  # two vCPUs each
    assert error_code(lambda: run(ec2, ami)) == "VcpuLimitExceeded"
    ec2.terminate_instances(InstanceIds=[first["InstanceId"]])
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[first["InstanceId"]], WaiterConfig={"Delay": 1})
    run(ec2, ami)
    # Another region has its own.
    assert cloud.client(region="eu-west-1").describe_key_pairs()["KeyPairs"] == []


def test_too_many_requests_are_refused(cloud_factory):
    ec2 = cloud_factory("--simulate", "--write-rate", "0.1").client()
    codes = [error_code(ec2.create_key_pair, KeyName=f"key-{number}") for number in range(3)]
    assert codes[0] is None and "RequestLimitExceeded" in codes
    assert error_code(ec2.describe_key_pairs) is None


def test_an_unknown_quota_is_named(cloud_factory):
    command = [BINARY, "serve", "--simulate", "--quota", "kittens=3"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert refused.returncode != 0 and "there is no quota kittens; there are vcpus, instances" in refused.stderr
