"""Instances through boto3, in a simulated cloud."""

import base64
import uuid

import pytest
from conftest import error_code, run, wait


def states(client, ids):
    reservations = client.describe_instances(InstanceIds=ids)["Reservations"]
    return {i["InstanceId"]: i["State"]["Name"] for r in reservations for i in r["Instances"]}


def test_life_of_an_instance(ec2, ami):
    (instance,) = run(ec2, ami)
    instance_id = instance["InstanceId"]
    assert instance["State"] == {"Code": 0, "Name": "pending"}
    assert instance["PrivateIpAddress"].startswith("172.31.")
    wait(ec2, "instance_running", [instance_id])
    described = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    assert described["PublicIpAddress"] and described["PublicDnsName"].startswith("ec2-198-18-")
    assert [d["DeviceName"] for d in described["BlockDeviceMappings"]] == [described["RootDeviceName"]]
    volume = described["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]

    change = ec2.stop_instances(InstanceIds=[instance_id])["StoppingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    wait(ec2, "instance_stopped", [instance_id])
    stopped = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    assert stopped["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert "PublicIpAddress" not in stopped
    assert stopped["PrivateIpAddress"] == described["PrivateIpAddress"]
    assert stopped["BlockDeviceMappings"][0]["Ebs"]["VolumeId"] == volume
    assert error_code(ec2.reboot_instances, InstanceIds=[instance_id]) == "IncorrectInstanceState"

    ec2.start_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_running", [instance_id])
    ec2.reboot_instances(InstanceIds=[instance_id])
    ec2.terminate_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_terminated", [instance_id])
    gone = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    assert gone["BlockDeviceMappings"] == [] and gone["NetworkInterfaces"] == []
    assert error_code(ec2.start_instances, InstanceIds=[instance_id]) == "IncorrectInstanceState"
    assert error_code(ec2.describe_volumes, VolumeIds=[volume]) == "InvalidVolume.NotFound"


def test_a_call_changes_all_instances_or_none(ec2, ami):
    ids = [i["InstanceId"] for i in run(ec2, ami, count=2)]
    wait(ec2, "instance_running", ids)
    missing = "i-0123456789abcdef0"
    assert error_code(ec2.stop_instances, InstanceIds=[*ids, missing]) == "InvalidInstanceID.NotFound"
    assert set(states(ec2, ids).values()) == {"running"}


def test_termination_protection(ec2, ami):
    (instance,) = run(ec2, ami, DisableApiTermination=True)
    instance_id = instance["InstanceId"]
    assert error_code(ec2.terminate_instances, InstanceIds=[instance_id]) == "OperationNotPermitted"
    ec2.modify_instance_attribute(InstanceId=instance_id, DisableApiTermination={"Value": False})
    attribute = ec2.describe_instance_attribute(InstanceId=instance_id, Attribute="disableApiTermination")
    assert attribute["DisableApiTermination"] == {"Value": False}
    ec2.terminate_instances(InstanceIds=[instance_id])


def test_user_data_is_bounded_and_kept(ec2, ami):
    (instance,) = run(ec2, ami, UserData="#!/bin/sh\necho hello\n")
    attribute = ec2.describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute="userData")
    assert base64.b64decode(attribute["UserData"]["Value"]) == b"#!/bin/sh\necho hello\n"
    too_long = "x" * (16 * 1024 + 1)
    code = error_code(ec2.run_instances, ImageId=ami, MinCount=1, MaxCount=1, UserData=too_long)
    assert code == "InvalidParameterValue"


def test_resizing_needs_a_stopped_instance(ec2, ami):
    (instance,) = run(ec2, ami)
    instance_id = instance["InstanceId"]
    wait(ec2, "instance_running", [instance_id])
    resize = {"InstanceId": instance_id, "InstanceType": {"Value": "t3.large"}}
    assert error_code(ec2.modify_instance_attribute, **resize) == "IncorrectInstanceState"
    ec2.stop_instances(InstanceIds=[instance_id], Force=True)
    wait(ec2, "instance_stopped", [instance_id])
    ec2.modify_instance_attribute(**resize)
    described = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    assert described["InstanceType"] == "t3.large"


def test_pages_and_filters(ec2, ami):
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "suite", "Value": "pages"}]}]
    ids = {i["InstanceId"] for i in run(ec2, ami, count=12, TagSpecifications=tags)}
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "tag:suite", "Values": ["pa*s"]}], PaginationConfig={"PageSize": 5}
    )
    sizes, seen = [], []
    for page in pages:
        found = [i["InstanceId"] for r in page["Reservations"] for i in r["Instances"]]
        sizes.append(len(found))
        seen += found
    assert sizes == [5, 5, 2]
    assert set(seen) == ids and len(seen) == len(ids)
    assert error_code(ec2.describe_instances, MaxResults=4) == "InvalidParameterValue"
    assert error_code(ec2.describe_instances, NextToken="nonsense") == "InvalidNextToken"
    unknown = [{"Name": "colour", "Values": ["red"]}]
    assert error_code(ec2.describe_instances, Filters=unknown) == "InvalidParameterValue"
    by_type = [{"Name": "instance-type", "Values": ["t3.micro"]}, {"Name": "tag-key", "Values": ["suite"]}]
    found = ec2.describe_instances(Filters=by_type)["Reservations"]
    assert {i["InstanceId"] for r in found for i in r["Instances"]} >= ids


def test_root_disk_can_grow_but_not_shrink(ec2, ami):
    image = ec2.describe_images(ImageIds=[ami])["Images"][0]
    root = image["RootDeviceName"]
    mapping = {"DeviceName": root, "Ebs": {"VolumeSize": 50, "VolumeType": "gp3", "DeleteOnTermination": False}}
    (instance,) = run(ec2, ami, BlockDeviceMappings=[mapping])
    wait(ec2, "instance_running", [instance["InstanceId"]])
    filters = [{"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}]
    (volume,) = ec2.describe_volumes(Filters=filters)["Volumes"]
    assert (volume["Size"], volume["VolumeType"], volume["State"]) == (50, "gp3", "in-use")
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    wait(ec2, "instance_terminated", [instance["InstanceId"]])
    (kept,) = ec2.describe_volumes(VolumeIds=[volume["VolumeId"]])["Volumes"]
    assert kept["State"] == "available" and kept["Attachments"] == []


def test_metadata_options(ec2, ami):
    (instance,) = run(ec2, ami, MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 3})
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    answer = ec2.modify_instance_metadata_options(InstanceId=instance["InstanceId"], HttpEndpoint="disabled")
    assert answer["InstanceMetadataOptions"]["HttpEndpoint"] == "disabled"
    assert answer["InstanceMetadataOptions"]["HttpPutResponseHopLimit"] == 3


def test_console_and_status(ec2, ami):
    (instance,) = run(ec2, ami)
    instance_id = instance["InstanceId"]
    wait(ec2, "instance_status_ok", [instance_id])
    wait(ec2, "system_status_ok", [instance_id])
    (status,) = ec2.describe_instance_status(InstanceIds=[instance_id])["InstanceStatuses"]
    for check in ("InstanceStatus", "SystemStatus", "AttachedEbsStatus"):
        assert status[check] == {"Status": "ok", "Details": [{"Name": "reachability", "Status": "passed"}]}
    by_status = [{"Name": "instance-status.status", "Values": ["ok"]}]
    assert ec2.describe_instance_status(InstanceIds=[instance_id], Filters=by_status)["InstanceStatuses"] == [status]
    impaired = [{"Name": "system-status.reachability", "Values": ["failed"]}]
    assert ec2.describe_instance_status(InstanceIds=[instance_id], Filters=impaired)["InstanceStatuses"] == []
    ec2.stop_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_stopped", [instance_id])
    assert ec2.describe_instance_status(InstanceIds=[instance_id])["InstanceStatuses"] == []
    (status,) = ec2.describe_instance_status(InstanceIds=[instance_id], IncludeAllInstances=True)["InstanceStatuses"]
    assert status["InstanceStatus"]["Status"] == "not-applicable"
    ec2.start_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_status_ok", [instance_id])
    assert ec2.get_console_output(InstanceId=instance_id)["Output"]
    assert base64.b64decode(ec2.get_console_screenshot(InstanceId=instance_id)["ImageData"])[:2] == b"\xff\xd8"


def test_monitoring(ec2, ami):
    (instance,) = run(ec2, ami)
    instance_id = instance["InstanceId"]
    assert instance["Monitoring"]["State"] == "disabled"
    (answer,) = ec2.monitor_instances(InstanceIds=[instance_id])["InstanceMonitorings"]
    assert answer == {"InstanceId": instance_id, "Monitoring": {"State": "enabled"}}
    by_state = [{"Name": "monitoring-state", "Values": ["enabled"]}]
    assert ec2.describe_instances(InstanceIds=[instance_id], Filters=by_state)["Reservations"]
    ec2.unmonitor_instances(InstanceIds=[instance_id])
    assert not ec2.describe_instances(InstanceIds=[instance_id], Filters=by_state)["Reservations"]
    missing = ["i-0123456789abcdef0"]
    assert error_code(ec2.monitor_instances, InstanceIds=missing) == "InvalidInstanceID.NotFound"


def test_credits_of_burstable_instances(ec2, ami):
    (standard,) = run(ec2, ami, CreditSpecification={"CpuCredits": "standard"})
    (default,) = run(ec2, ami)
    (steady,) = run(ec2, ami, InstanceType="m5.large")
    standard, default, steady = (one["InstanceId"] for one in (standard, default, steady))
    wait(ec2, "instance_running", [standard, default, steady])

    def credits(*ids):
        found = ec2.describe_instance_credit_specifications(InstanceIds=list(ids))["InstanceCreditSpecifications"]
        return {one["InstanceId"]: one["CpuCredits"] for one in found}

    assert credits(standard, default) == {standard: "standard", default: "unlimited"}
    # Unasked it tells of the unlimited ones.
    pages = ec2.get_paginator("describe_instance_credit_specifications").paginate()
    unlimited = {one["InstanceId"] for page in pages for one in page["InstanceCreditSpecifications"]}
    assert default in unlimited and not unlimited & {standard, steady}
    assert error_code(ec2.describe_instance_credit_specifications, InstanceIds=[steady]) == "UnsupportedOperation"

    missing = "i-0123456789abcdef0"
    wanted = [{"InstanceId": id, "CpuCredits": "unlimited"} for id in (standard, steady, missing)]
    answer = ec2.modify_instance_credit_specification(InstanceCreditSpecifications=wanted)
    assert answer["SuccessfulInstanceCreditSpecifications"] == [{"InstanceId": standard}]
    refused = {
        one["InstanceId"]: one["Error"]["Code"] for one in answer["UnsuccessfulInstanceCreditSpecifications"]
    }
    assert refused == {steady: "InstanceCreditSpecification.NotSupported", missing: "InvalidInstanceID.NotFound"}
    assert credits(standard) == {standard: "unlimited"}


def test_a_zone_is_named_by_name_or_id_and_nothing_names_none(ec2, ami):
    zone = ec2.describe_availability_zones()["AvailabilityZones"][-1]
    (by_id,) = run(ec2, ami, Placement={"AvailabilityZoneId": zone["ZoneId"]})
    assert by_id["Placement"]["AvailabilityZone"] == zone["ZoneName"]
    # As Terraform asks where a subnet says it all.
    filters = [{"Name": "availability-zone", "Values": [zone["ZoneName"]]}]
    subnet = ec2.describe_subnets(Filters=filters)["Subnets"][0]["SubnetId"]
    (empty,) = run(ec2, ami, SubnetId=subnet, Placement={"AvailabilityZone": "", "GroupName": ""})
    assert empty["SubnetId"] == subnet


def reserved(**how):
    return {"CapacityReservationSpecification": how}


def test_an_instance_may_stay_out_of_capacity_reservations(ec2, ami):
    weighting = {"NetworkPerformanceOptions": {"BandwidthWeighting": "default"}}
    (out,) = run(ec2, ami, **reserved(CapacityReservationPreference="none"), **weighting)
    (open_to_all,) = run(ec2, ami)
    of = lambda instance: instance["CapacityReservationSpecification"]["CapacityReservationPreference"]
    assert (of(out), of(open_to_all)) == ("none", "open")
    name = "capacity-reservation-specification.capacity-reservation-preference"
    filters = [{"Name": name, "Values": ["none"]}, {"Name": "instance-state-name", "Values": ["pending", "running"]}]
    (found,) = ec2.describe_instances(Filters=filters)["Reservations"]
    assert [instance["InstanceId"] for instance in found["Instances"]] == [out["InstanceId"]]
    ec2.terminate_instances(InstanceIds=[out["InstanceId"], open_to_all["InstanceId"]])


@pytest.mark.parametrize(
    "parameters, code",
    [
        ({"MinCount": 2, "MaxCount": 1}, "InvalidParameterValue"),
        ({"MinCount": 0, "MaxCount": 1}, "InvalidParameterValue"),
        ({"InstanceType": "t9.colossal"}, "InvalidParameterValue"),
        ({"InstanceType": "t4g.micro"}, "InvalidParameterValue"),
        ({"KeyName": "nobody's"}, "InvalidKeyPair.NotFound"),
        ({"SubnetId": "subnet-0123456789abcdef0"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
        ({"SecurityGroups": ["nobody's"]}, "InvalidGroup.NotFound"),
        ({"Placement": {"AvailabilityZone": "us-east-1z"}}, "InvalidParameterValue"),
        ({"Placement": {"AvailabilityZoneId": "use1-az99"}}, "InvalidParameterValue"),
        ({"CreditSpecification": {"CpuCredits": "endless"}}, "InvalidParameterValue"),
        ({"Placement": {"GroupName": "nobody's"}}, "InvalidPlacementGroup.Unknown"),
        ({"LaunchTemplate": {"LaunchTemplateName": "none"}}, "InvalidLaunchTemplateName.NotFoundException"),
        ({"IamInstanceProfile": {"Name": "none"}}, "InvalidParameterValue"),
        ({"UserData": "x" * 20000}, "InvalidParameterValue"),
        ({"NetworkPerformanceOptions": {"BandwidthWeighting": "vpc-1"}}, "UnsupportedOperation"),
        ({"SecondaryInterfaces": [{"DeviceIndex": 1}]}, "UnsupportedOperation"),
        ({"Operator": {"Principal": "eks.amazonaws.com"}}, "UnsupportedOperation"),
        (reserved(CapacityReservationPreference="capacity-reservations-only"), "UnsupportedOperation"),
        (reserved(CapacityReservationTarget={"CapacityReservationId": "cr-0123456789abcdef0"}), "UnsupportedOperation"),
        ({"PrivateIpAddress": "10.0.0.1"}, "InvalidParameterValue"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/nvme0n1", "Ebs": {"VolumeSize": 8}}]}, "InvalidParameterValue"),
        ({"TagSpecifications": [{"ResourceType": "vpc", "Tags": [{"Key": "a", "Value": "b"}]}]}, "InvalidParameterValue"),
        ({"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "aws:a", "Value": "b"}]}]}, "InvalidParameterValue"),
    ],
)
def test_bad_launches_are_refused_whole(ec2, ami, parameters, code):
    before = ec2.describe_instances()["Reservations"]
    wanted = {"ImageId": ami, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.micro", **parameters}
    assert error_code(ec2.run_instances, **wanted) == code
    assert len(ec2.describe_instances()["Reservations"]) == len(before)


def test_an_acknowledged_launch_survives_a_crash_and_happens_once(cloud_factory):
    cloud = cloud_factory("--simulate")
    ec2 = cloud.client()
    ami = sorted(i["ImageId"] for i in ec2.describe_images()["Images"] if i["Architecture"] == "x86_64")[0]
    ids = [i["InstanceId"] for i in run(ec2, ami, count=3, ClientToken="once")]
    cloud.kill()
    cloud.start()
    ec2 = cloud.client()
    again = [i["InstanceId"] for i in run(ec2, ami, count=3, ClientToken="once")]
    assert sorted(again) == sorted(ids)
    wait(ec2, "instance_running", ids)
    assert len([i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]) == 3


def test_a_repeated_launch_is_answered_whatever_became_of_its_key(ec2, ami):
    name, token = f"key-{uuid.uuid4().hex}", uuid.uuid4().hex
    ec2.create_key_pair(KeyName=name)
    launch = {"KeyName": name, "ClientToken": token}
    (first,) = run(ec2, ami, **launch)
    ec2.delete_key_pair(KeyName=name)
    (again,) = run(ec2, ami, **launch)
    assert again["InstanceId"] == first["InstanceId"]
    assert error_code(run, client=ec2, ami=ami, KeyName=name) == "InvalidKeyPair.NotFound"


def test_regions_are_apart(simulated, ami):
    here, there = simulated.client(), simulated.client(region="eu-west-1")
    (instance,) = run(here, ami)
    assert error_code(there.describe_instances, InstanceIds=[instance["InstanceId"]]) == "InvalidInstanceID.NotFound"
    assert there.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    assert error_code(simulated.client(region="xx-nowhere-1").describe_vpcs) == "AuthFailure"
