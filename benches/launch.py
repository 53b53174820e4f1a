#!/usr/bin/env python3
"""From launch to user data: through cumulet, and the same image under a bare QEMU command line, in turns.

    pip install boto3; cargo build --release; sudo benches/launch.py [ROUNDS]

Bare QEMU gets its metadata from a small server in a network namespace of its own, and a fresh overlay over the same
disk, as cumulet's instance does. The figure is the ratio of the medians; its bound is 1.05.
"""

import ctypes
import http.server
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import boto3
from botocore.config import Config

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(os.environ.get("CUMULET_BINARY", ROOT / "target" / "release" / "cumulet"))
MARK = "LAUNCH-BENCH-DONE"
USER_DATA = f"#!/bin/sh\necho {MARK} >/dev/console\n"
VCPUS, MEMORY_MIB = 2, 1024  # those of the instance type
TYPE = "t3.micro"
PATIENCE_S = 120
CLONE_NEWNET = 0x40000000


class Metadata(http.server.BaseHTTPRequestHandler):
    """As much of 169.254.169.254 as a guest needs to run its user data."""

    instance = "i-00000000000000000"

    def do_PUT(self):
        self.answer("token")

    def do_GET(self):
        path = self.path.removeprefix("/latest/")
        known = {
            "meta-data/instance-id": self.instance,
            "meta-data/local-hostname": "ip-10-0-0-7.ec2.internal",
            "meta-data/hostname": "ip-10-0-0-7.ec2.internal",
            "user-data": USER_DATA,
        }
        self.answer(known.get(path))

    def answer(self, text):
        body = (text or "").encode()
        self.send_response(200 if text is not None else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def bare(disk, round_number):
    """Seconds from starting QEMU to the mark on its console."""
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as directory:
        overlay, console = f"{directory}/disk.qcow2", f"{directory}/console"
        Metadata.instance = f"i-{round_number:017x}"
        began = time.perf_counter()
        options = "cluster_size=128k,extended_l2=on"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-o", options, "-b", disk, overlay], check=True)
        qemu = subprocess.Popen([
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
            "-smp", str(VCPUS), "-m", str(MEMORY_MIB), "-nodefaults", "-display", "none", "-serial", f"file:{console}",
            "-drive", f"if=none,id=root,format=qcow2,cache.direct=on,aio=native,file={overlay}",
            "-device", "virtio-blk-pci,drive=root", "-device", "virtio-net-pci,netdev=nic", "-device", "virtio-rng-pci",
            "-netdev", "user,id=nic,net=169.254.169.0/24,host=169.254.169.254,dns=169.254.169.253,dhcpstart=169.254.169.15",
        ])
        try:
            wait_for(lambda: os.path.exists(console) and MARK in open(console, errors="replace").read())
            return time.perf_counter() - began
        finally:
            qemu.kill()
            qemu.wait()


def through_cumulet(ec2, image):
    began = time.perf_counter()
    made = ec2.run_instances(ImageId=image, InstanceType=TYPE, MinCount=1, MaxCount=1, UserData=USER_DATA)
    instance = made["Instances"][0]["InstanceId"]
    output = lambda: ec2.get_console_output(InstanceId=instance, Latest=True).get("Output", "")
    try:
        wait_for(lambda: MARK in output())
        return time.perf_counter() - began
    finally:
        ec2.terminate_instances(InstanceIds=[instance])
        ec2.get_waiter("instance_terminated").wait(InstanceIds=[instance], WaiterConfig={"Delay": 1})


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "no user data"
        time.sleep(0.05)


def serve_metadata():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 80), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    data_dir = tempfile.mkdtemp(prefix="cumulet-bench-")
    serve = subprocess.Popen(
        [BINARY, "serve", "--data-dir", data_dir, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    try:
        endpoint = serve.stdout.readline().rsplit(" ", 1)[1].strip()
        cache = ROOT / "target" / "images"
        cache.mkdir(parents=True, exist_ok=True)
        build = [BINARY, "image", "build", "tiny", "--cache-dir", cache, "--data-dir", data_dir]
        image = subprocess.run(build, check=True, capture_output=True, text=True).stdout.strip()
        exports = subprocess.run([BINARY, "env", "--data-dir", data_dir], check=True, capture_output=True, text=True).stdout
        keys = dict(line.removeprefix("export ").split("=", 1) for line in exports.splitlines())
        ec2 = boto3.client("ec2", endpoint_url=endpoint, region_name=keys["AWS_DEFAULT_REGION"],
                           aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
                           aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"], config=Config(retries={"max_attempts": 1}))
        snapshot = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        (layer,) = json.loads(pathlib.Path(data_dir, "snapshots", f"{snapshot}.json").read_text())["layers"]
        disk = pathlib.Path(data_dir, "layers", layer)
        times = {"cumulet": [], "bare QEMU": []}
        for number in range(rounds):
            times["cumulet"].append(through_cumulet(ec2, image))
            times["bare QEMU"].append(in_own_network(lambda: bare(disk, number)))
        for name, seconds in times.items():
            print(f"{name:<10} median {statistics.median(seconds):.2f} s of {', '.join(f'{s:.2f}' for s in seconds)}")
        ratio = statistics.median(times["cumulet"]) / statistics.median(times["bare QEMU"])
        good = ratio <= 1.05
        print(f"launch to user data, cumulet / bare QEMU   {ratio:.3f}   bound <= 1.05   {'ok' if good else 'MISSED'}")
        return not good
    finally:
        serve.terminate()
        serve.wait()
        shutil.rmtree(data_dir, ignore_errors=True)


def in_own_network(work):
    """Runs in a child whose loopback is its own; returns the seconds that it measured."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            serve_metadata()
            os.write(writing, str(work()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return float(text)


if __name__ == "__main__":
    sys.exit(main())
