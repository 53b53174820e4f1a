"""Fast snapshot restore: states, filters, what becomes of it, and what it makes of volumes."""

import pytest
from conftest import error_code, ready, until


@pytest.fixture
def snapshot(ec2):
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    ready(ec2, "volume_available", VolumeIds=[volume])
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    ready(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    yield snapshot
    ec2.delete_volume(VolumeId=volume)
    if error_code(ec2.describe_snapshots, SnapshotIds=[snapshot]) is None:
        ec2.delete_snapshot(SnapshotId=snapshot)


def told(ec2, snapshot, **filters):
    filters = [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in filters.items()]
    filters.append({"Name": "snapshot-id", "Values": [snapshot]})
    pages = ec2.get_paginator("describe_fast_snapshot_restores").paginate(Filters=filters)
    return [restore for page in pages for restore in page["FastSnapshotRestores"]]


def states(ec2, snapshot):
    return [restore["State"] for restore in told(ec2, snapshot)]


def test_it_is_enabled_and_disabled_zone_by_zone(ec2, snapshot):
    zones = ["us-east-1a", "us-east-1b"]
    enabled = ec2.enable_fast_snapshot_restores(AvailabilityZones=zones, SourceSnapshotIds=[snapshot])
    assert not enabled["Unsuccessful"]
    assert [restore["AvailabilityZone"] for restore in enabled["Successful"]] == zones
    first = enabled["Successful"][0]
    assert first["State"] == "enabling" and first["StateTransitionReason"] == "Client.UserInitiated"
    assert first["EnablingTime"] and "EnabledTime" not in first
    until(lambda: states(ec2, snapshot), ["enabled", "enabled"])
    (restore,) = told(ec2, snapshot, availability_zone="us-east-1a")
    assert restore["EnablingTime"] <= restore["OptimizingTime"] <= restore["EnabledTime"]
    assert restore["OwnerId"] == ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["OwnerId"]
    assert told(ec2, snapshot, state="disabled") == []
    assert len(told(ec2, snapshot, availability_zone_id=restore["AvailabilityZoneId"])) == 1
    # A second time changes nothing.
    again = ec2.enable_fast_snapshot_restores(AvailabilityZones=zones[:1], SourceSnapshotIds=[snapshot])
    assert again["Successful"][0]["State"] == "enabled"

    made = {}
    for zone in ["us-east-1a", "us-east-1c"]:
        made[zone] = ec2.create_volume(AvailabilityZone=zone, SnapshotId=snapshot)
        ready(ec2, "volume_available", VolumeIds=[made[zone]["VolumeId"]])
    assert made["us-east-1a"]["FastRestored"] is True and "FastRestored" not in made["us-east-1c"]
    fast = [{"Name": "fast-restored", "Values": ["true"]}, {"Name": "snapshot-id", "Values": [snapshot]}]
    assert [v["VolumeId"] for v in ec2.describe_volumes(Filters=fast)["Volumes"]] == [made["us-east-1a"]["VolumeId"]]
    for volume in made.values():
        ec2.delete_volume(VolumeId=volume["VolumeId"])

    disabled = ec2.disable_fast_snapshot_restores(AvailabilityZones=zones[:1], SourceSnapshotIds=[snapshot])
    assert disabled["Successful"][0]["State"] == "disabling"
    until(lambda: states(ec2, snapshot), ["disabled", "enabled"])
    assert told(ec2, snapshot, state="disabled")[0]["DisabledTime"]
    enabled = ec2.enable_fast_snapshot_restores(AvailabilityZones=zones[:1], SourceSnapshotIds=[snapshot])
    assert "DisabledTime" not in enabled["Successful"][0]
    ec2.delete_snapshot(SnapshotId=snapshot)
    until(lambda: told(ec2, snapshot), [])


def test_what_can_not_be_is_told_for_each_snapshot(ec2, snapshot):
    missing = "snap-00000000000000000"
    answer = ec2.enable_fast_snapshot_restores(AvailabilityZones=["us-east-1a"], SourceSnapshotIds=[missing, snapshot])
    assert [restore["SnapshotId"] for restore in answer["Successful"]] == [snapshot]
    (failed,) = answer["Unsuccessful"]
    assert failed["SnapshotId"] == missing
    (error,) = failed["FastSnapshotRestoreStateErrors"]
    assert error["AvailabilityZone"] == "us-east-1a" and error["Error"]["Code"] == "InvalidSnapshot.NotFound"
    answer = ec2.disable_fast_snapshot_restores(AvailabilityZones=["us-east-1b"], SourceSnapshotIds=[snapshot])
    assert not answer["Successful"] and len(answer["Unsuccessful"]) == 1
    enable = ec2.enable_fast_snapshot_restores
    assert error_code(enable, SourceSnapshotIds=[snapshot]) == "MissingParameter"
    assert error_code(enable, AvailabilityZones=["us-east-1a"], SourceSnapshotIds=[snapshot], DryRun=True) == "DryRunOperation"
    assert error_code(enable, AvailabilityZones=["eu-west-1a"], SourceSnapshotIds=[snapshot]) == "InvalidParameterValue"
    both = {"AvailabilityZones": ["us-east-1a"], "AvailabilityZoneIds": ["use1-az1"]}
    assert error_code(enable, **both, SourceSnapshotIds=[snapshot]) == "InvalidParameterCombination"
