#!/usr/bin/env python3
"""How fast the API is, beside moto's server on the same machine in the same run.

    pip install boto3 'moto[server,ec2]'; apt-get install wrk; cargo build --release; benches/api.py

Every figure is a ratio or has its bound beside it.
"""

import datetime
import hashlib
import hmac
import http.client
import itertools
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(os.environ.get("CUMULET_BINARY", ROOT / "target" / "release" / "cumulet"))
KEY, SECRET, REGION = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1"
FEW, MANY = 100, 10_000
SECONDS, CONNECTIONS, ROUNDS = 4, 8, 5
BATCH = 500
CLIENTS, LAUNCHES = 64, 2400


def port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def client(at, region=REGION):
    return boto3.client(
        "ec2",
        region_name=region,
        endpoint_url=f"http://127.0.0.1:{at}",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(read_timeout=600, retries={"max_attempts": 1}),
    )


def start_cumulet(data_dir):
    at = port()
    began = time.perf_counter()
    process = subprocess.Popen(
        [BINARY, "serve", "--simulate", "--data-dir", data_dir, "--listen", f"127.0.0.1:{at}",
         "--access-key", KEY, "--secret-key", SECRET],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    assert "ready" in process.stdout.readline()
    return process, at, time.perf_counter() - began


def start_moto():
    at = port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(at)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{at}/moto-api/")
            return process, at
        except OSError:
            time.sleep(0.1)
    raise SystemExit("moto's server did not start")


def sign(string, date):
    key = f"AWS4{SECRET}".encode()
    for part in (date, REGION, "ec2", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, string.encode(), hashlib.sha256).hexdigest()


def signed(at, parameters):
    """A request that any HTTP client can send: its URL and its headers, good for five minutes."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/{REGION}/ec2/aws4_request"
    query = urllib.parse.urlencode(sorted({"Version": "2016-11-15", **parameters}.items()))
    empty = hashlib.sha256(b"").hexdigest()
    canonical = f"GET\n/\n{query}\nhost:127.0.0.1:{at}\nx-amz-date:{now}\n\nhost;x-amz-date\n{empty}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signature = sign("\n".join(["AWS4-HMAC-SHA256", now, scope, digest]), now[:8])
    authorization = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders=host;x-amz-date, Signature={signature}"
    return f"http://127.0.0.1:{at}/?{query}", {"X-Amz-Date": now, "Authorization": authorization}


def requests_per_second(at, instance):
    url, headers = signed(at, {"Action": "DescribeInstances", "InstanceId.1": instance})
    assert instance in urllib.request.urlopen(urllib.request.Request(url, headers=headers)).read().decode()
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", url]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in report, report
    return float(re.search(r"Requests/sec:\s+([0-9.]+)", report).group(1))


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests_per_cpu_second(process, at, instance):
    before = cpu_seconds(process)
    rate = requests_per_second(at, instance)
    return rate * SECONDS / (cpu_seconds(process) - before)


def fill(ec2, ami, have, want, batch=BATCH):
    """Brings the cloud to `want` instances, in all zones: a default subnet has 4091 addresses. Returns one of them."""
    zones = itertools.cycle(zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"])
    instance = None
    while have < want:
        count = min(batch, want - have)
        made = ec2.run_instances(ImageId=ami, InstanceType="t3.micro", MinCount=count, MaxCount=count,
                                 Placement={"AvailabilityZone": next(zones)})["Instances"]
        instance, have = made[0]["InstanceId"], have + count
    return instance


def launch_latency(at, ami, calls=300):
    """Milliseconds of RunInstances calls one after another, over one connection, signed by hand."""
    connection = http.client.HTTPConnection("127.0.0.1", at)
    body = f"Action=RunInstances&Version=2016-11-15&ImageId={ami}&InstanceType=t3.micro&MinCount=1&MaxCount=1"
    kind = "application/x-www-form-urlencoded; charset=utf-8"
    times = []
    for _ in range(calls):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/{REGION}/ec2/aws4_request"
        payload = hashlib.sha256(body.encode()).hexdigest()
        names = "content-type;host;x-amz-date"
        canonical = f"POST\n/\n\ncontent-type:{kind}\nhost:127.0.0.1:{at}\nx-amz-date:{now}\n\n{names}\n{payload}"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signature = sign("\n".join(["AWS4-HMAC-SHA256", now, scope, digest]), now[:8])
        authorization = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
        began = time.perf_counter()
        connection.request("POST", "/", body, {"Content-Type": kind, "X-Amz-Date": now, "Authorization": authorization})
        answer = connection.getresponse()
        text = answer.read()
        times.append((time.perf_counter() - began) * 1000)
        assert answer.status == 200, text
    return statistics.median(times)


def launching(at, zone):
    """What `launches_per_second` needs to know of a cloud: an image, and a zone by its number."""
    ec2 = client(at)
    images = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
    return at, images[0]["ImageId"], ec2.describe_availability_zones()["AvailabilityZones"][zone]["ZoneName"]


def launches_per_second(at, ami, zone, clients, count):
    """RunInstances of one instance each, by so many clients at once, each over a connection of its own."""
    # A launch without a client token may be sent again as it is.
    url, headers = signed(at, {
        "Action": "RunInstances", "ImageId": ami, "InstanceType": "t3.micro", "MinCount": "1", "MaxCount": "1",
        "Placement.AvailabilityZone": zone,
    })
    path = url.split(str(at), 1)[1]

    def launch(calls):
        connection = http.client.HTTPConnection("127.0.0.1", at)
        for _ in range(calls):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
        connection.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(launch, [count // clients] * clients))
    return count // clients * clients / (time.perf_counter() - began)


def main():
    data_dirs, processes = [], []
    failed = False

    def told(what, value, bound, good):
        nonlocal failed
        failed |= not good
        print(f"{what:<58} {value:>12}   bound {bound:<10} {'ok' if good else 'MISSED'}", flush=True)

    try:
        starts = []
        for _ in range(5):
            data_dirs.append(tempfile.mkdtemp(prefix="cumulet-bench-"))
            process, at, seconds = start_cumulet(data_dirs[-1])
            starts.append(seconds * 1000)
            process.kill()
            process.wait()
        ready = statistics.median(starts)
        told("serve --simulate ready, fresh data directory", f"{ready:.0f} ms", "< 100 ms", ready < 100)

        process, at, _ = start_cumulet(data_dirs[0])
        processes.append(process)
        few_clients = launches_per_second(*launching(at, 0), 1, LAUNCHES // 4)
        many_clients = launches_per_second(*launching(at, 1), CLIENTS, LAUNCHES)
        gain = many_clients / few_clients
        told(f"RunInstances, {CLIENTS} clients / 1 client", f"{gain:.1f}", ">= 1.5", gain >= 1.5)

        clouds = []
        for have, data_dir in ((FEW, data_dirs[-1]), (MANY, data_dirs[-2])):
            process, at, _ = start_cumulet(data_dir)
            processes.append(process)
            ec2 = client(at)
            images = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
            latency = launch_latency(at, images[0]["ImageId"], FEW - 1)
            clouds.append((process, at, fill(ec2, images[0]["ImageId"], FEW - 1, have)))
        told("RunInstances, durable, median", f"{latency:.2f} ms", "< 10 ms", latency < 10)
        # In turns, and by the processor time that a request takes: what else the machine does falls on neither.
        rounds = [[requests_per_cpu_second(*cloud) for cloud in clouds] for _ in range(ROUNDS)]
        few, many = (statistics.median(side) for side in zip(*rounds))
        told(f"DescribeInstances by id among {MANY} / among {FEW}", f"{many / few:.2f}", ">= 0.95", many >= 0.95 * few)
        _, *of_many = clouds[-1]
        many = requests_per_second(*of_many)

        moto, at = start_moto()
        processes.append(moto)
        ec2 = client(at)
        ami = ec2.describe_images()["Images"][0]["ImageId"]
        peer = launches_per_second(*launching(at, 0), CLIENTS, LAUNCHES // 8)
        print(f"    launches: cumulet {few_clients:.0f}/s alone, {many_clients:.0f}/s by {CLIENTS}, moto {peer:.0f}/s by {CLIENTS}")
        gain = many_clients / peer
        told(f"RunInstances by {CLIENTS} clients, cumulet / moto", f"{gain:.0f}", ">= 10", gain >= 10)
        instance = fill(ec2, ami, 0, MANY)
        peer = requests_per_second(at, instance)
        print(f"    cumulet {many:.0f}/s, moto {peer:.1f}/s, {CONNECTIONS} connections")
        told(f"DescribeInstances by id among {MANY}, cumulet / moto", f"{many / peer:.0f}", ">= 50", many >= 50 * peer)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for data_dir in data_dirs:
            shutil.rmtree(data_dir, ignore_errors=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
