#!/usr/bin/env python3
"""A cloud of 100,000 instances: how long a describe takes, what an instance costs in memory, how long a start takes.

    pip install boto3; apt-get install wrk; cargo build --release; benches/scale.py [INSTANCES]
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import api

ZONES = 16  # of /20 default subnets in a default VPC, each with 4091 addresses
REGIONS = (api.REGION, "eu-west-1")  # one default VPC is too small for all
BATCH = 1000
SECONDS = 5
MEMORY_MAX_KIB = 4
LATENCY_MAX_MS = 5


def start(data_dir):
    at = api.port()
    began = time.perf_counter()
    process = subprocess.Popen(
        [api.BINARY, "serve", "--simulate", "--zones", str(ZONES), "--data-dir", data_dir,
         "--listen", f"127.0.0.1:{at}", "--access-key", api.KEY, "--secret-key", api.SECRET],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    assert "ready" in process.stdout.readline()
    return process, at, time.perf_counter() - began


def resident_kib(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))


def fill(clients, count):
    """Launches in all zones of all regions; returns one instance's id, its tag and its VPC."""
    places = []
    for ec2 in clients:
        images = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
        zones = ec2.describe_availability_zones()["AvailabilityZones"]
        places += [(ec2, images[0]["ImageId"], zone["ZoneName"]) for zone in zones]
    made, first = 0, None
    while made < count:
        batch = min(BATCH, count - made)
        ec2, image, zone = places[made // BATCH % len(places)]
        tags = [{"Key": "batch", "Value": str(made // BATCH)}]
        instances = ec2.run_instances(
            ImageId=image, InstanceType="t3.micro", MinCount=batch, MaxCount=batch,
            Placement={"AvailabilityZone": zone},
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )["Instances"]
        first = first or (instances[0]["InstanceId"], tags[0]["Value"], instances[0]["VpcId"])
        made += batch
        if sys.stdout.isatty():
            print(f"\r    {made} instances", end="", flush=True)
    if sys.stdout.isatty():
        print()
    return first


def settled(ec2):
    """Waits until nothing is pending: what hosts report is taken in meanwhile."""
    pending = [{"Name": "instance-state-name", "Values": ["pending"]}]
    while ec2.describe_instances(Filters=pending, MaxResults=5)["Reservations"]:
        time.sleep(0.5)


def quiet(process):
    """Waits until hosts have caught up after a start: until a second takes a tenth of a processor at most."""
    began = time.perf_counter()
    before = api.cpu_seconds(process)
    while True:
        time.sleep(1)
        now = api.cpu_seconds(process)
        if now - before < 0.1:
            return time.perf_counter() - began
        before = now


def p99_ms(at, parameters, expected):
    url, headers = api.signed(at, parameters)
    assert expected in urllib.request.urlopen(urllib.request.Request(url, headers=headers)).read().decode()
    command = ["wrk", "-t1", "-c1", f"-d{SECONDS}s", "--latency", url]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in report, report
    value, unit = re.search(r"99%\s+([0-9.]+)(us|ms|s)", report).groups()
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    data_dir = tempfile.mkdtemp(prefix="cumulet-bench-")
    process, at, _ = start(data_dir)
    failed = False

    def told(what, value, unit, bound):
        nonlocal failed
        failed |= value >= bound
        print(f"{what:<58} {value:>8.2f} {unit:<4} bound < {bound} {unit}   {'ok' if value < bound else 'MISSED'}", flush=True)

    try:
        clients = [api.client(at, region) for region in REGIONS]
        for ec2 in clients:
            ec2.describe_instances()
        before = resident_kib(process)
        began = time.perf_counter()
        instance, batch, vpc = fill(clients, count)
        for ec2 in clients:
            settled(ec2)
        print(f"    {count} instances launched and running after {time.perf_counter() - began:.0f} s")
        process.kill()
        process.wait()
        process, at, ready = start(data_dir)
        print(f"    ready with them after {ready:.2f} s")
        began = time.perf_counter()
        for region in REGIONS:
            api.client(at, region).describe_instances(MaxResults=5)
        print(f"    and the last region open {time.perf_counter() - began:.2f} s later")
        print(f"    hosts have caught up {quiet(process):.0f} s later")
        told("memory, an instance, its simulated host's included", (resident_kib(process) - before) / count, "KiB", MEMORY_MAX_KIB)
        for what, parameters, expected in (
            ("by id", {"InstanceId.1": instance}, instance),
            ("by VPC, a page of 10", {"Filter.1.Name": "vpc-id", "Filter.1.Value.1": vpc, "MaxResults": "10"}, vpc),
            ("by tag, a page of 10", {"Filter.1.Name": "tag:batch", "Filter.1.Value.1": batch, "MaxResults": "10"}, batch),
        ):
            p99 = p99_ms(at, {"Action": "DescribeInstances", **parameters}, expected)
            told(f"DescribeInstances {what} among {count}, p99", p99, "ms", LATENCY_MAX_MS)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(data_dir, ignore_errors=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
