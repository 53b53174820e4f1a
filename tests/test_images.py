"""Images through boto3: registered, found, changed, deregistered."""

import datetime
import subprocess
import uuid

import pytest
import uefi_data
from conftest import error_code, ready, run, wait

MISSING = "ami-0123456789abcdef0"


@pytest.fixture
def name():
    return f"image-{uuid.uuid4().hex}"


def register(ec2, name, **parameters):
    parameters.setdefault("RootDeviceName", "/dev/xvda")
    return ec2.register_image(Name=name, **parameters)["ImageId"]


@pytest.fixture
def image(ec2, name):
    return register(ec2, name)


def described(ec2, image, **parameters):
    return ec2.describe_images(ImageIds=[image], **parameters)["Images"][0]


def test_a_registered_image_is_as_it_was_said(ec2, name):
    devices = [
        {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 10, "VolumeType": "gp3", "DeleteOnTermination": False}},
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
    ]
    tags = [{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}]
    made = register(
        ec2,
        name,
        Description="for a test",
        Architecture="arm64",
        BootMode="uefi",
        EnaSupport=True,
        ImdsSupport="v2.0",
        VirtualizationType="hvm",
        BlockDeviceMappings=devices,
        TagSpecifications=tags,
    )
    image = described(ec2, made)
    expected = {
        "Name": name,
        "Description": "for a test",
        "Architecture": "arm64",
        "BootMode": "uefi",
        "EnaSupport": True,
        "ImdsSupport": "v2.0",
        "VirtualizationType": "hvm",
        "RootDeviceName": "/dev/xvda",
        "RootDeviceType": "ebs",
        "State": "available",
        "Public": False,
        "Tags": [{"Key": "a", "Value": "b"}],
    }
    assert {key: image[key] for key in expected} == expected
    root, other = image["BlockDeviceMappings"]
    assert root["Ebs"]["VolumeSize"] == 10 and root["Ebs"]["DeleteOnTermination"] is False
    assert other["VirtualName"] == "ephemeral0" and "Ebs" not in other
    assert datetime.datetime.fromisoformat(image["CreationDate"])


def test_a_tpm_needs_uefi_and_comes_along(ec2, name):
    made = register(ec2, name, BootMode="uefi", TpmSupport="v2.0")
    assert described(ec2, made)["TpmSupport"] == "v2.0"
    attribute = ec2.describe_image_attribute(ImageId=made, Attribute="tpmSupport")
    assert attribute["TpmSupport"] == {"Value": "v2.0"}
    filters = [{"Name": "tpm-support", "Values": ["v2.0"]}, {"Name": "name", "Values": [name]}]
    assert [image["ImageId"] for image in ec2.describe_images(Filters=filters)["Images"]] == [made]
    copy = ec2.copy_image(Name=f"{name}-copy", SourceImageId=made, SourceRegion="us-east-1")["ImageId"]
    assert described(ec2, copy)["TpmSupport"] == "v2.0"
    (instance,) = run(ec2, made)
    assert instance["TpmSupport"] == "v2.0"
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    assert error_code(register, ec2=ec2, name=f"{name}-2", TpmSupport="v2.0") == "InvalidParameterCombination"
    for wrong in ({"TpmSupport": "v1.2", "BootMode": "uefi"}, {"BootMode": "coreboot"}, {"ImdsSupport": "v3.0"}):
        assert error_code(register, ec2=ec2, name=f"{name}-2", **wrong) == "InvalidParameterValue"


def test_uefi_data_go_from_image_to_instance_to_image(ec2, name):
    variables = {"PK": (0x27, b"key"), "Lang": (7, b"eng")}
    data = uefi_data.made(variables)
    kept = lambda image: ec2.describe_image_attribute(ImageId=image, Attribute="uefiData")["UefiData"].get("Value")
    source = register(ec2, name, BootMode="uefi", UefiData=data)
    assert kept(source) == data
    (instance,) = run(ec2, source)
    instance_id = instance["InstanceId"]
    wait(ec2, "instance_running", [instance_id])
    assert uefi_data.read(ec2.get_instance_uefi_data(InstanceId=instance_id)["UefiData"]) == variables
    image = ec2.create_image(InstanceId=instance_id, Name=f"{name}-made", NoReboot=True)["ImageId"]
    ready(ec2, "image_available", ImageIds=[image])
    copy = ec2.copy_image(SourceImageId=image, SourceRegion="us-east-1", Name=f"{name}-copied")["ImageId"]
    assert uefi_data.read(kept(image)) == uefi_data.read(kept(copy)) == variables
    ec2.terminate_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_terminated", [instance_id])
    assert error_code(ec2.get_instance_uefi_data, InstanceId=instance_id) == "IncorrectInstanceState"


def test_uefi_data_that_are_none(ec2, name, ami):
    for data in ("AAAA", "no", uefi_data.made({})[:-4], "A" * 64004):
        code = error_code(ec2.register_image, Name=name, BootMode="uefi", UefiData=data)
        assert code == "InvalidParameterValue", data
    bios = {"BootMode": "legacy-bios", "UefiData": uefi_data.made({})}
    assert error_code(ec2.register_image, Name=name, **bios) == "InvalidParameterCombination"
    (instance,) = run(ec2, register(ec2, name, BootMode="legacy-bios"))
    assert error_code(ec2.get_instance_uefi_data, InstanceId=instance["InstanceId"]) == "UnsupportedOperation"
    assert error_code(ec2.get_instance_uefi_data, InstanceId=MISSING) == "InvalidInstanceID.Malformed"
    assert error_code(ec2.get_instance_uefi_data, InstanceId="i-0123456789abcdef0") == "InvalidInstanceID.NotFound"
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])


def test_an_image_says_what_its_guests_have_drivers_for(ec2, name):
    made = register(ec2, name)
    ec2.create_tags(Resources=[made], Tags=[{"Key": "cumulet:disks", "Value": "floppy"}])
    assert error_code(ec2.run_instances, ImageId=made, MinCount=1, MaxCount=1) == "InvalidParameterValue"
    ec2.create_tags(Resources=[made], Tags=[{"Key": "cumulet:disks", "Value": "nvme"}])
    (instance,) = run(ec2, made)
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])


def test_a_name_is_taken_once(ec2, name, image):
    assert error_code(register, ec2=ec2, name=name) == "InvalidAMIName.Duplicate"
    ec2.deregister_image(ImageId=image)
    register(ec2, name)


@pytest.mark.parametrize(
    "parameters, code",
    [
        ({"Name": "a#b"}, "InvalidAMIName.Malformed"),
        ({"Description": "x" * 256}, "InvalidParameterValue"),
        ({"Architecture": "pdp11"}, "InvalidParameterValue"),
        ({"Architecture": "arm64", "BootMode": "legacy-bios"}, "InvalidParameterCombination"),
        ({"VirtualizationType": "paravirtual"}, "UnsupportedOperation"),
        ({"RootDeviceName": "/dev/a", "BlockDeviceMappings": [{"DeviceName": "/dev/b", "Ebs": {"VolumeSize": 1}}]}, "InvalidBlockDeviceMapping"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 0}}]}, "InvalidParameterValue"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}]}, "InvalidSnapshot.NotFound"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 1}}] * 2}, "InvalidBlockDeviceMapping"),
    ],
)
def test_what_is_no_image_is_refused(ec2, name, parameters, code):
    wanted = {"Name": name, "RootDeviceName": "/dev/xvda", **parameters}
    assert error_code(ec2.register_image, **wanted) == code


def test_what_is_not_wanted_may_be_said_by_an_empty_text(ec2, name):
    assert register(ec2, name, ImageLocation="", KernelId="", RamdiskId="")


def test_owners_and_filters(ec2, name, image):
    other = register(ec2, f"{name}-other", Architecture="arm64")

    def found(owners, *wanted):
        filters = [{"Name": key, "Values": [value]} for key, value in wanted]
        return {one["ImageId"] for one in ec2.describe_images(Owners=owners, Filters=filters)["Images"]}

    both = {image, other}
    owner = described(ec2, image)["OwnerId"]
    assert found(["self"], ("name", f"{name}*")) == both
    assert found([owner], ("name", f"{name}*")) == both
    assert found([], ("name", f"{name}*"), ("owner-id", owner)) == both
    assert found(["amazon"], ("name", f"{name}*")) == set()
    assert found(["self"], ("name", name), ("state", "available"), ("is-public", "false")) == {image}
    assert found(["self"], ("name", f"{name}*"), ("architecture", "arm64")) == {other}
    assert found(["self"], ("image-id", image), ("root-device-type", "ebs"), ("virtualization-type", "hvm")) == {image}
    assert found(["self"], ("name", name.upper())) == set()
    # The usual lookups of what others publish.
    assert found(["amazon"], ("name", "al2023-ami-2023*-x86_64"), ("owner-alias", "amazon"))
    assert found(["099720109477"], ("name", "ubuntu/images/hvm-ssd*/ubuntu-*-amd64-server-*"))
    assert image not in found(["amazon", "099720109477"])
    unknown = [{"Name": "colour", "Values": ["red"]}]
    assert error_code(ec2.describe_images, Filters=unknown) == "InvalidParameterValue"


def test_images_come_in_pages(ec2, name):
    made = {register(ec2, f"{name}-{number}") for number in range(7)}
    filters = [{"Name": "name", "Values": [f"{name}-*"]}]
    pages = ec2.get_paginator("describe_images").paginate(Filters=filters, PaginationConfig={"PageSize": 5})
    pages = [[image["ImageId"] for image in page["Images"]] for page in pages]
    assert [len(page) for page in pages] == [5, 2]
    assert set(sum(pages, [])) == made
    token = ec2.describe_images(Filters=filters, MaxResults=5)["NextToken"]
    elsewhere = {"MaxResults": 5, "NextToken": token, "Filters": [{"Name": "name", "Values": ["other"]}]}
    assert error_code(ec2.describe_images, **elsewhere) == "InvalidNextToken"


def test_ids(ec2, image):
    assert error_code(ec2.describe_images, ImageIds=[image, MISSING]) == "InvalidAMIID.NotFound"
    assert error_code(ec2.describe_images, ImageIds=["ami-1"]) == "InvalidAMIID.Malformed"
    assert error_code(ec2.deregister_image, ImageId=MISSING) == "InvalidAMIID.NotFound"


def test_attributes(ec2, image):
    def attribute(name):
        return ec2.describe_image_attribute(ImageId=image, Attribute=name)

    ec2.modify_image_attribute(ImageId=image, Description={"Value": "changed"})
    assert attribute("description")["Description"] == {"Value": "changed"}
    ec2.modify_image_attribute(ImageId=image, Attribute="description", Value="again")
    assert described(ec2, image)["Description"] == "again"
    assert attribute("blockDeviceMapping")["BlockDeviceMappings"][0]["DeviceName"] == "/dev/xvda"

    user = "123456789012"
    changes = {"Add": [{"UserId": user}, {"Group": "all"}]}
    ec2.disable_image_block_public_access()
    ec2.modify_image_attribute(ImageId=image, LaunchPermission=changes)
    permissions = attribute("launchPermission")["LaunchPermissions"]
    assert {"UserId": user} in permissions and {"Group": "all"} in permissions
    assert described(ec2, image)["Public"] is True
    by_user = ec2.describe_images(ExecutableUsers=[user], ImageIds=[image])["Images"]
    assert [one["ImageId"] for one in by_user] == [image]
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Remove": [{"Group": "all"}]})
    assert attribute("launchPermission")["LaunchPermissions"] == [{"UserId": user}]
    ec2.reset_image_attribute(ImageId=image, Attribute="launchPermission")
    assert attribute("launchPermission")["LaunchPermissions"] == []

    modify = ec2.modify_image_attribute
    modify(ImageId=image, ImdsSupport={"Value": "v2.0"})
    assert attribute("imdsSupport")["ImdsSupport"] == {"Value": "v2.0"}
    assert error_code(modify, ImageId=image, ImdsSupport={"Value": "v1.0"}) == "InvalidParameterValue"
    organization = "arn:aws:organizations::123456789012:organization/o-123example"
    assert error_code(modify, ImageId=image, OrganizationArns=[organization]) == "UnsupportedOperation"
    shared = {"LaunchPermission": {"Add": [{"OrganizationArn": organization}]}}
    assert error_code(modify, ImageId=image, **shared) == "UnsupportedOperation"
    assert error_code(modify, ImageId=image) == "InvalidParameterCombination"
    wrong = {"LaunchPermission": {"Add": [{"UserId": "me"}]}}
    assert error_code(modify, ImageId=image, **wrong) == "InvalidAMIAttributeItemValue"
    assert error_code(modify, ImageId=image, Description={"Value": "x" * 256}) == "InvalidParameterValue"


def test_another_owners_image_is_not_ours_to_change(ec2, ami):
    change = {"ImageId": ami, "Description": {"Value": "mine"}}
    assert error_code(ec2.modify_image_attribute, **change) == "AuthFailure"
    ask = {"ImageId": ami, "Attribute": "launchPermission"}
    assert error_code(ec2.describe_image_attribute, **ask) == "AuthFailure"
    assert error_code(ec2.deregister_image, ImageId=ami) == "AuthFailure"


def test_a_deregistered_image_launches_nothing_more(ec2, name, image):
    (instance,) = run(ec2, image)
    answer = ec2.deregister_image(ImageId=image)
    assert answer["Return"] is True
    assert error_code(ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1) == "InvalidAMIID.NotFound"
    assert error_code(ec2.deregister_image, ImageId=image) == "InvalidAMIID.NotFound"
    by_name = [{"Name": "name", "Values": [name]}]
    assert ec2.describe_images(Filters=by_name)["Images"] == []
    # Its id finds nothing, and is no error while there is an instance of it.
    assert ec2.describe_images(ImageIds=[image])["Images"] == []
    # What runs goes on, and starts again.
    instance_id = instance["InstanceId"]
    wait(ec2, "instance_running", [instance_id])
    ec2.stop_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_stopped", [instance_id])
    ec2.start_instances(InstanceIds=[instance_id])
    wait(ec2, "instance_running", [instance_id])
    unused = register(ec2, name)
    ec2.deregister_image(ImageId=unused)
    assert error_code(ec2.describe_images, ImageIds=[unused]) == "InvalidAMIID.NotFound"


def test_a_disabled_image_is_away_until_it_is_enabled(ec2, name, image):
    ec2.disable_image(ImageId=image)
    filters = [{"Name": "name", "Values": [name]}]
    assert ec2.describe_images(Filters=filters)["Images"] == []
    (hidden,) = ec2.describe_images(Filters=filters, IncludeDisabled=True)["Images"]
    assert hidden["State"] == "disabled"
    assert error_code(ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1) == "InvalidAMIID.Unavailable"
    ec2.enable_image(ImageId=image)
    assert described(ec2, image)["State"] == "available"
    run(ec2, image)


def test_deprecation(ec2, image):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=2)
    ec2.enable_image_deprecation(ImageId=image, DeprecateAt=at)
    assert described(ec2, image)["DeprecationTime"][:10] == at.date().isoformat()
    ec2.disable_image_deprecation(ImageId=image)
    assert "DeprecationTime" not in described(ec2, image)
    for days in (-9, 366 * 10):
        wrong = {"ImageId": image, "DeprecateAt": at + datetime.timedelta(days=days)}
        assert error_code(ec2.enable_image_deprecation, **wrong) == "InvalidParameterValue", days


def test_a_protected_image_is_not_deregistered(ec2, image):
    def protection():
        attribute = ec2.describe_image_attribute(ImageId=image, Attribute="deregistrationProtection")
        shown = described(ec2, image)["DeregistrationProtection"]
        assert attribute["DeregistrationProtection"] == {"Value": shown}
        return shown

    assert protection() == "disabled"
    assert ec2.enable_image_deregistration_protection(ImageId=image)["Return"] == "true"
    assert protection() == "enabled-without-cooldown"
    assert error_code(ec2.deregister_image, ImageId=image) == "OperationNotPermitted"
    ec2.enable_image_deregistration_protection(ImageId=image, WithCooldown=True)
    assert protection() == "enabled-with-cooldown"
    ec2.disable_image_deregistration_protection(ImageId=image)
    assert protection() == "disabled"
    # It still cools down.
    assert error_code(ec2.deregister_image, ImageId=image) == "OperationNotPermitted"
    ec2.enable_image_deregistration_protection(ImageId=image, WithCooldown=False)
    ec2.disable_image_deregistration_protection(ImageId=image)
    ec2.deregister_image(ImageId=image)
    missing = {"ImageId": MISSING}
    assert error_code(ec2.enable_image_deregistration_protection, **missing) == "InvalidAMIID.NotFound"
    dry = {"ImageId": MISSING, "DryRun": True}
    assert error_code(ec2.enable_image_deregistration_protection, **dry) == "InvalidAMIID.NotFound"


def test_an_image_that_is_not_shared_with_us_stays_so(ec2, ami, image):
    assert error_code(ec2.cancel_image_launch_permission, ImageId=ami) == "OperationNotPermitted"
    assert error_code(ec2.cancel_image_launch_permission, ImageId=MISSING) == "InvalidAMIID.NotFound"
    account = described(ec2, image)["OwnerId"]
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": account}]})
    assert ec2.cancel_image_launch_permission(ImageId=image)["Return"] is True
    assert ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")["LaunchPermissions"] == []


def test_ancestors_are_told_though_they_are_gone(simulated, ec2, ami, name):
    (instance,) = run(ec2, ami)
    wait(ec2, "instance_running", [instance["InstanceId"]])
    made = ec2.create_image(InstanceId=instance["InstanceId"], Name=name, NoReboot=True)["ImageId"]
    ready(ec2, "image_available", ImageIds=[made])
    elsewhere = simulated.client(region="eu-north-1")
    copy = elsewhere.copy_image(Name=name, SourceImageId=made, SourceRegion="us-east-1")["ImageId"]
    ready(elsewhere, "image_available", ImageIds=[copy])
    ec2.deregister_image(ImageId=made)
    entries = elsewhere.get_image_ancestry(ImageId=copy)["ImageAncestryEntries"]
    assert [entry["ImageId"] for entry in entries] == [copy, made, ami]
    assert [entry.get("SourceImageId") for entry in entries] == [made, ami, None]
    assert [entry.get("SourceImageRegion") for entry in entries] == ["us-east-1", "us-east-1", None]
    assert [entry.get("ImageOwnerAlias") for entry in entries] == [None, None, "amazon"]
    assert all("CreationDate" in entry for entry in entries)
    by_source = [{"Name": "source-image-id", "Values": [made]}, {"Name": "source-image-region", "Values": ["us-east-1"]}]
    assert [one["ImageId"] for one in elsewhere.describe_images(Filters=by_source)["Images"]] == [copy]
    assert described(elsewhere, copy)["SourceImageId"] == made
    assert error_code(ec2.get_image_ancestry, ImageId=made) == "InvalidAMIID.NotFound"
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])


def test_who_uses_an_image(ec2, name, image):
    instances = {one["InstanceId"] for one in run(ec2, image, count=6)}
    assert described(ec2, image)["LastLaunchedTime"]
    unused = register(ec2, f"{name}-unused")

    def references(**parameters):
        parameters.setdefault("IncludeAllResourceTypes", True)
        pages = ec2.get_paginator("describe_image_references").paginate(
            ImageIds=[image, unused], PaginationConfig={"PageSize": 5}, **parameters
        )
        return [one for page in pages for one in page["ImageReferences"]]

    found = references()
    assert {one["Arn"].rpartition("/")[2] for one in found} == instances
    assert {(one["ImageId"], one["ResourceType"]) for one in found} == {(image, "ec2:Instance")}
    stopped = {"OptionName": "state-name", "OptionValues": ["stopped"]}
    of_stopped = [{"ResourceType": "ec2:Instance", "ResourceTypeOptions": [stopped]}]
    assert references(ResourceTypes=of_stopped, IncludeAllResourceTypes=False) == []
    assert references(ResourceTypes=[{"ResourceType": "ssm:Parameter"}], IncludeAllResourceTypes=False) == []
    assert error_code(ec2.describe_image_references, ImageIds=[image]) == "MissingParameter"
    wrong = {"OptionName": "state-name", "OptionValues": ["asleep"]}
    wrong = [{"ResourceType": "ec2:Instance", "ResourceTypeOptions": [wrong]}]
    assert error_code(ec2.describe_image_references, ImageIds=[image], ResourceTypes=wrong) == "InvalidParameterValue"

    filters = [{"Name": "image-allowed", "Values": ["true"]}]
    told = ec2.describe_instance_image_metadata(InstanceIds=sorted(instances), Filters=filters)["InstanceImageMetadata"]
    assert {one["InstanceId"] for one in told} == instances
    assert {one["ImageMetadata"]["Name"] for one in told} == {name}
    assert all(one["ImageMetadata"]["ImageAllowed"] and one["ZoneId"] for one in told)
    ec2.deregister_image(ImageId=image)
    told = ec2.describe_instance_image_metadata(InstanceIds=sorted(instances))["InstanceImageMetadata"]
    assert {one["ImageMetadata"]["State"] for one in told} == {"deregistered"}
    ec2.terminate_instances(InstanceIds=sorted(instances))


def test_reports_say_which_accounts_use_an_image(simulated, ec2, name, image):
    instances = [instance["InstanceId"] for instance in run(ec2, image, count=2)]
    (account,) = {owner["OwnerId"] for owner in ec2.describe_images(ImageIds=[image])["Images"]}
    kinds = [
        {"ResourceType": "ec2:Instance"},
        {"ResourceType": "ec2:LaunchTemplate", "ResourceTypeOptions": [{"OptionName": "version-depth", "OptionValues": ["5"]}]},
    ]
    tags = [{"ResourceType": "image-usage-report", "Tags": [{"Key": "name", "Value": name}]}]
    asked = {"ImageId": image, "ResourceTypes": kinds, "TagSpecifications": tags, "ClientToken": name}
    report = ec2.create_image_usage_report(**asked)["ReportId"]
    assert ec2.create_image_usage_report(**asked)["ReportId"] == report
    other = ec2.create_image_usage_report(ImageId=image, ResourceTypes=kinds[:1], AccountIds=["210987654321"])["ReportId"]
    (shown,) = ec2.describe_image_usage_reports(Filters=[{"Name": "tag:name", "Values": [name]}])["ImageUsageReports"]
    assert (shown["ReportId"], shown["ImageId"], shown["State"]) == (report, image, "available")
    assert [kind["ResourceType"] for kind in shown["ResourceTypes"]] == ["ec2:Instance", "ec2:LaunchTemplate"]
    assert shown["ExpirationTime"] - shown["CreationTime"] == datetime.timedelta(days=30)
    entries = lambda **asked: ec2.describe_image_usage_report_entries(**asked)["ImageUsageReportEntries"]
    (entry,) = entries(ImageIds=[image])
    assert (entry["AccountId"], entry["ResourceType"], entry["UsageCount"]) == (account, "ec2:Instance", 2)
    assert entries(ReportIds=[report]) == [entry] and entries(ReportIds=[other]) == []
    assert entries(Filters=[{"Name": "account-id", "Values": [account]}], ReportIds=[report]) == [entry]
    assert entries(Filters=[{"Name": "resource-type", "Values": ["ec2:LaunchTemplate"]}]) == []
    for wrong in ([{"ResourceType": "ssm:Parameter"}], kinds[:1] * 2, [{**kinds[1], "ResourceType": "ec2:Instance"}]):
        assert error_code(ec2.create_image_usage_report, ImageId=image, ResourceTypes=wrong) == "InvalidParameterValue"
    assert error_code(ec2.create_image_usage_report, ImageId=MISSING, ResourceTypes=kinds) == "InvalidAMIID.NotFound"
    for report_id in (report, other):
        ec2.delete_image_usage_report(ReportId=report_id)
    assert error_code(ec2.delete_image_usage_report, ReportId=report) == "InvalidImageUsageReportId.NotFound"
    assert ec2.describe_image_usage_reports(ImageIds=[image])["ImageUsageReports"] == []
    ec2.terminate_instances(InstanceIds=instances)


def test_mappings_say_nothing_that_is_not_heeded(ec2, name, ami):
    device = lambda **ebs: [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8, **ebs}}]
    outpost = "arn:aws:outposts:us-east-1:123456789012:outpost/op-0123456789abcdef0"
    for ebs in ({"OutpostArn": outpost}, {"AvailabilityZone": "us-east-1a"}, {"EbsCardIndex": 1}):
        code = error_code(register, ec2=ec2, name=name, BlockDeviceMappings=device(**ebs))
        assert code == "UnsupportedOperation", ebs
        code = error_code(run, client=ec2, ami=ami, BlockDeviceMappings=device(**ebs))
        assert code == "UnsupportedOperation", ebs
    rated = device(VolumeInitializationRate=200)
    assert error_code(register, ec2=ec2, name=name, BlockDeviceMappings=rated) == "UnsupportedOperation"
    nothing = {"DeviceName": "/dev/sdb", "NoDevice": ""}
    made = register(ec2, name, BlockDeviceMappings=[*device(), nothing])
    assert len(described(ec2, made)["BlockDeviceMappings"]) == 1
    (instance,) = run(ec2, made)
    wait(ec2, "instance_running", [instance["InstanceId"]])
    asked = {"InstanceId": instance["InstanceId"], "Name": f"{name}-made", "NoReboot": True}
    for ebs in ({"VolumeSize": 9}, {"VolumeType": "io2"}, {"Encrypted": True}):
        code = error_code(ec2.create_image, **asked, BlockDeviceMappings=device(**ebs))
        assert code == "InvalidBlockDeviceMapping", ebs
    kept = device(DeleteOnTermination=False, Encrypted=False)
    copied = ec2.create_image(**asked, BlockDeviceMappings=kept)["ImageId"]
    assert described(ec2, copied)["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is False
    ready(ec2, "image_available", ImageIds=[copied])
    timed = {"SourceImageId": copied, "SourceRegion": "us-east-1", "Name": f"{name}-timed"}
    assert error_code(ec2.copy_image, **timed, SnapshotCopyCompletionDurationMinutes=15) == "UnsupportedOperation"
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])


def test_no_image_is_made_public_while_that_is_blocked(simulated, name):
    ec2 = simulated.client(region="eu-west-3")
    image = register(ec2, name)
    public = {"ImageId": image, "LaunchPermission": {"Add": [{"Group": "all"}]}}

    def state():
        return ec2.get_image_block_public_access_state()["ImageBlockPublicAccessState"]

    assert state() == "block-new-sharing"
    assert error_code(ec2.modify_image_attribute, **public) == "OperationNotPermitted"
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": "123456789012"}]})
    assert ec2.disable_image_block_public_access()["ImageBlockPublicAccessState"] == "unblocked"
    assert state() == "unblocked"
    ec2.modify_image_attribute(**public)
    blocked = ec2.enable_image_block_public_access(ImageBlockPublicAccessState="block-new-sharing")
    assert blocked["ImageBlockPublicAccessState"] == state() == "block-new-sharing"
    # What is public already stays so.
    assert described(ec2, image)["Public"] is True
    ec2.modify_image_attribute(**public)
    wrong = {"ImageBlockPublicAccessState": "unblocked"}
    assert error_code(ec2.enable_image_block_public_access, **wrong) == "InvalidParameterValue"


def test_what_is_not_allowed_is_not_there(simulated, name):
    ec2 = simulated.client(region="eu-west-2")
    own = register(ec2, name)
    public = ec2.describe_images(Owners=["amazon"])["Images"]
    amazon = next(one["ImageId"] for one in public if one["Name"].startswith("al2023") and one["Architecture"] == "x86_64")
    debian = next(one["ImageId"] for one in public if one["Name"].startswith("debian") and one["Architecture"] == "x86_64")
    (instance,) = run(ec2, debian)

    settings = ec2.get_allowed_images_settings()
    assert (settings["State"], settings.get("ImageCriteria", []), settings["ManagedBy"]) == ("disabled", [], "account")
    criteria = [
        {"ImageProviders": ["111122223333"]},
        {"ImageProviders": ["amazon"], "ImageNames": ["al2023-*"], "CreationDateCondition": {"MaximumDaysSinceCreated": 30}},
    ]
    ec2.replace_image_criteria_in_allowed_images_settings(ImageCriteria=criteria)
    ec2.enable_allowed_images_settings(AllowedImagesSettingsState="audit-mode")
    settings = ec2.get_allowed_images_settings()
    assert settings["State"] == "audit-mode"
    said = [{key: value for key, value in one.items() if value} for one in settings["ImageCriteria"]]
    assert said == criteria

    def allowed(**parameters):
        return {one["ImageId"]: one["ImageAllowed"] for one in ec2.describe_images(**parameters)["Images"]}

    audited = allowed()
    assert (audited[own], audited[amazon], audited[debian]) == (True, True, False)
    not_allowed = [{"Name": "image-allowed", "Values": ["false"]}]
    assert debian in allowed(Filters=not_allowed) and amazon not in allowed(Filters=not_allowed)
    strangers = ec2.describe_instance_image_metadata(Filters=not_allowed)["InstanceImageMetadata"]
    assert [one["InstanceId"] for one in strangers] == [instance["InstanceId"]]
    ec2.run_instances(ImageId=debian, MinCount=1, MaxCount=1, InstanceType="t3.micro")

    ec2.enable_allowed_images_settings(AllowedImagesSettingsState="enabled")
    seen = allowed()
    assert own in seen and amazon in seen and debian not in seen
    assert error_code(ec2.describe_images, ImageIds=[debian]) == "InvalidAMIID.NotFound"
    launch = {"ImageId": debian, "MinCount": 1, "MaxCount": 1}
    assert error_code(ec2.run_instances, **launch) == "InvalidAMIID.NotFound"
    copy = {"Name": f"{name}-copy", "SourceImageId": debian, "SourceRegion": "eu-west-2"}
    assert error_code(ec2.copy_image, **copy) == "InvalidAMIID.NotFound"
    # What runs of it goes on, and starts again.
    wait(ec2, "instance_running", [instance["InstanceId"]])
    ec2.stop_instances(InstanceIds=[instance["InstanceId"]])
    wait(ec2, "instance_stopped", [instance["InstanceId"]])
    ec2.start_instances(InstanceIds=[instance["InstanceId"]])
    run(ec2, amazon)

    assert ec2.disable_allowed_images_settings()["AllowedImagesSettingsState"] == "disabled"
    assert debian in allowed()
    replace = ec2.replace_image_criteria_in_allowed_images_settings
    for wrong in (
        [{"ImageProviders": ["me"]}],
        [{"ImageProviders": ["none", "amazon"]}],
        [{"ImageNames": ["a#b"]}],
        [{"MarketplaceProductCodes": ["a-b"]}],
        [{"ImageProviders": ["amazon"]}] * 11,
    ):
        assert error_code(replace, ImageCriteria=wrong) == "InvalidParameterValue", wrong
    assert error_code(replace, ImageCriteria=[], DryRun=True) == "DryRunOperation"


def test_fast_launch_is_for_windows(ec2, ami):
    assert ec2.describe_fast_launch_images()["FastLaunchImages"] == []
    assert error_code(ec2.enable_fast_launch, ImageId=ami) == "InvalidParameterValue"
    assert error_code(ec2.disable_fast_launch, ImageId=ami) == "InvalidParameterValue"
    assert error_code(ec2.enable_fast_launch, ImageId=MISSING) == "InvalidAMIID.NotFound"
    unknown = [{"Name": "colour", "Values": ["red"]}]
    assert error_code(ec2.describe_fast_launch_images, Filters=unknown) == "InvalidParameterValue"


def test_a_disk_comes_out_as_it_went_in(simulated, ec2, name, tmp_path):
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as disk:
        disk.truncate(1 << 30)
        for at, data in ((0, b"begin"), (510, b"\x55\xaa"), (700 << 20, b"middle"), ((1 << 30) - 3, b"end")):
            disk.seek(at)
            disk.write(data)
    (tmp_path / "variables").write_text(uefi_data.made({"Lang": (7, b"eng")}) + "\n")
    by_uefi = ("--boot-mode", "uefi", "--uefi-data", str(tmp_path / "variables"))
    imported = simulated.command("image", "import", str(raw), "--name", name, "--disks", "nvme", *by_uefi).stdout.strip()
    kept = ec2.describe_image_attribute(ImageId=imported, Attribute="uefiData")["UefiData"]["Value"]
    assert uefi_data.read(kept) == {"Lang": (7, b"eng")}
    assert described(ec2, imported)["Tags"] == [{"Key": "cumulet:disks", "Value": "nvme"}]
    for extension in ("qcow2", "vmdk", "raw"):
        out = tmp_path / f"out.{extension}"
        simulated.command("image", "export", imported, str(out))
        compared = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", extension, raw, out], capture_output=True)
        assert compared.returncode == 0, compared.stdout
    again = simulated.command("image", "export", imported, str(out), check=False)
    assert again.returncode != 0 and "there already" in again.stderr
    unknown = simulated.command("image", "export", imported, str(tmp_path / "out.iso"), check=False)
    assert unknown.returncode != 0 and "--format" in unknown.stderr
