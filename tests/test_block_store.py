"""Snapshots of a real cloud in a bucket: of moto's S3, on this machine."""

import os
import subprocess
import sys
import time

import boto3
import pytest
from conftest import BINARY, Cloud, error_code, free_port
from test_ebs_direct import block, sha256, written

pytest.importorskip("moto.server")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="real instances need root")

BUCKET, PREFIX = "snapshots", "cloud/one"
URL = f"s3://{BUCKET}/{PREFIX}"


@pytest.fixture(scope="module")
def s3():
    """A client of an S3 that is gone with the tests, and what a cloud must find in its environment."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    server = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", endpoint.rsplit(":", 1)[1]]
    process = subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            break
        except Exception:
            assert process.poll() is None and time.monotonic() < deadline, "moto does not answer"
    yield client, environment
    process.kill()
    process.wait()


def keys(s3):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return sorted(found["Key"] for page in pages for found in page.get("Contents", []))


def completed(ec2, snapshot):
    """It is once the store has all of it."""
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def read(ebs, snapshot):
    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    got = {}
    for entry in listed:
        token = entry["BlockToken"]
        answer = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=entry["BlockIndex"], BlockToken=token)
        data = answer["BlockData"].read()
        assert sha256(data) == answer["Checksum"]
        got[entry["BlockIndex"]] = data
    return got


def test_snapshots_are_kept_in_a_bucket_and_read_from_it(s3, monkeypatch):
    s3, environment = s3
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cloud = Cloud("--block-store", URL).start()
    try:
        ec2, ebs = cloud.client(), cloud.client("ebs")
        first, second = {0: block(1), 7: block(2)}, {0: block(1), 9: block(3)}
        one, two = written(ebs, first), written(ebs, second)
        completed(ec2, one)
        completed(ec2, two)
        stored = keys(s3)
        assert all(key.startswith(f"{PREFIX}/") for key in stored), stored
        assert sum(f"{PREFIX}/data/" in key for key in stored) == 3, "what both hold is there once"
        assert {key for key in stored if "/manifests/" in key} == {f"{PREFIX}/manifests/{id}" for id in (one, two)}
        assert not os.path.exists(os.path.join(cloud.data_dir, "blocks"))
        assert (read(ebs, one), read(ebs, two)) == (first, second)

        # What somebody has changed in the bucket is not given out: the disk has another copy, and it is put again.
        (changed, *_) = (key for key in stored if f"{PREFIX}/data/" in key)
        before = s3.get_object(Bucket=BUCKET, Key=changed)["Body"].read()
        s3.put_object(Bucket=BUCKET, Key=changed, Body=before[:-1] + b"?")
        assert (read(ebs, one), read(ebs, two)) == (first, second)
        assert s3.get_object(Bucket=BUCKET, Key=changed)["Body"].read() == before

        ec2.delete_snapshot(SnapshotId=two)
        assert error_code(ebs.list_snapshot_blocks, SnapshotId=two) == "ResourceNotFoundException"

        # A crash, and a start with another store.
        cloud.kill()
        other = subprocess.run(
            [BINARY, "serve", "--data-dir", cloud.data_dir, "--listen", f"127.0.0.1:{cloud.port}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert other.returncode != 0 and f"There are snapshots in the block store {URL}" in other.stderr, other
        cloud.start()
        ec2, ebs = cloud.client(), cloud.client("ebs")
        assert read(ebs, one) == first
        copy = ec2.copy_snapshot(SourceSnapshotId=one, SourceRegion="us-east-1")["SnapshotId"]
        completed(ec2, copy)
        ec2.delete_snapshot(SnapshotId=one)
        assert read(ebs, copy) == first
        deadline = time.monotonic() + 60
        while {key for key in keys(s3) if "/manifests/" in key} != {f"{PREFIX}/manifests/{copy}"}:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        cloud.stop()
