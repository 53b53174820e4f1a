"""What the cloud's operator sees: events and workflows. Hosts and placements are in test_placement.py."""

import re
import subprocess
import urllib.request

import pytest
from conftest import BINARY, run, wait


def test_events_tell_an_instances_life(simulated, ec2, ami):
    answer = ec2.run_instances(ImageId=ami, InstanceType="t3.micro", MinCount=1, MaxCount=1)
    instance_id, ran = answer["Instances"][0]["InstanceId"], answer["ResponseMetadata"]["RequestId"]
    wait(ec2, "instance_running", [instance_id])
    ended = ec2.terminate_instances(InstanceIds=[instance_id])["ResponseMetadata"]["RequestId"]
    wait(ec2, "instance_terminated", [instance_id])
    lines = [line for line in simulated.command("events", "--newest", "1000").stdout.splitlines() if instance_id in line]
    told = [line.split(instance_id)[1].strip() for line in lines]
    assert told[0].startswith("pending on ") and told[0].endswith(f"[{ran}]")
    assert told[1:] == [
        f"pending → running  [{ran}]",
        f"running → shutting-down (Client.UserInitiatedShutdown: User initiated shutdown)  [{ended}]",
        f"shutting-down → terminated (Client.UserInitiatedShutdown: User initiated shutdown)  [{ended}]",
    ]


def test_events_are_followed(simulated, ec2):
    command = [BINARY, "events", "--follow", "--newest", "1", "--data-dir", simulated.data_dir]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        try:
            name = ec2.create_key_pair(KeyName="followed")["KeyPairId"]
            ec2.delete_key_pair(KeyName="followed")
            told = []
            while len(told) < 2:
                line = follower.stdout.readline()
                assert line, "the follower ended"
                if name in line:
                    told.append(line.split()[-1])
            assert told == ["created", "deleted"]
        finally:
            follower.kill()


def test_workflows_end(simulated, ec2):
    ebs = simulated.client("ebs")
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    request = ec2.delete_snapshot(SnapshotId=snapshot)["ResponseMetadata"]["RequestId"]
    lines = simulated.command("events", "--newest", "100").stdout.splitlines()
    assert any(f"delete-blocks:{snapshot}" in line and line.endswith(f"deleting blocks  [{request}]") for line in lines)
    for _ in range(100):
        rows = simulated.command("workflows").stdout.splitlines()
        assert rows[0].split() == ["KIND", "SUBJECT", "STEP", "AGE", "ATTEMPTS", "REQUEST", "LAST", "ERROR"]
        if not any(snapshot in row for row in rows):
            return
    pytest.fail("the workflow does not end")


def test_metrics_count_requests_and_instances(simulated, ec2, ami):
    def scrape():
        text = urllib.request.urlopen(f"http://127.0.0.1:{simulated.port}/metrics").read().decode()
        return {name: float(value) for name, value in re.findall(r"^(cumulet_\S+) (\S+)$", text, re.MULTILINE)}

    refused = 'cumulet_requests_total{service="ec2",operation="DescribeInstances",code="InvalidInstanceID.NotFound"}'
    before = scrape().get(refused, 0)
    with pytest.raises(ec2.exceptions.ClientError):
        ec2.describe_instances(InstanceIds=["i-00000000000000000"])
    (instance,) = run(ec2, ami)
    wait(ec2, "instance_running", [instance["InstanceId"]])
    now = scrape()
    assert now[refused] == before + 1
    assert now['cumulet_instances{region="us-east-1",state="running"}'] >= 1
    assert now['cumulet_request_seconds_count{service="ec2",operation="RunInstances"}'] >= 1
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])


def test_a_backup_brings_the_cloud_back(cloud_factory, tmp_path):
    data_dir = tmp_path / "cloud"
    data_dir.mkdir()
    cloud = cloud_factory("--simulate", data_dir=str(data_dir))
    ec2 = cloud.client()
    saved = ec2.create_key_pair(KeyName="saved")
    file = tmp_path / "backup"
    assert cloud.command("backup", str(file)).stdout.strip() == str(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert cloud.command("backup", str(file), check=False).returncode != 0, "a backup is never written over"
    ec2.create_key_pair(KeyName="later")
    assert "is there already" in cloud.command("restore", str(file), check=False).stderr
    keys = cloud.environment
    cloud.stop()

    other = tmp_path / "other"
    subprocess.run([BINARY, "restore", file, "--data-dir", other], check=True, capture_output=True)
    again = cloud_factory("--simulate", data_dir=str(other))
    assert again.environment["AWS_SECRET_ACCESS_KEY"] == keys["AWS_SECRET_ACCESS_KEY"]
    pairs = again.client().describe_key_pairs()["KeyPairs"]
    assert [(pair["KeyName"], pair["KeyPairId"]) for pair in pairs] == [("saved", saved["KeyPairId"])]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "cloud", "other"]


def test_what_is_no_backup_is_refused(tmp_path):
    file = tmp_path / "backup"
    file.write_bytes(b"not a backup" * 1000)
    refused = subprocess.run([BINARY, "restore", file, "--data-dir", tmp_path / "cloud"], capture_output=True, text=True)
    assert refused.returncode != 0 and "not a backup" in refused.stderr
    assert list((tmp_path / "cloud").iterdir()) == []
