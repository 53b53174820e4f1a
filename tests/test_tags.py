"""Tags through boto3: put on, taken off and found on every kind of resource."""

import uuid

import pytest
from conftest import error_code, run


@pytest.fixture
def make(ec2):
    """Makes a resource that is cheap and has no tags."""

    def make():
        name = f"tags-{uuid.uuid4().hex}"
        return ec2.create_security_group(GroupName=name, Description="tagged")["GroupId"]

    return make


@pytest.fixture
def value():
    return uuid.uuid4().hex


def tags_of(ec2, *resources, **parameters):
    filters = [{"Name": "resource-id", "Values": list(resources)}]
    found = ec2.describe_tags(Filters=filters, **parameters)["Tags"]
    return [(tag["ResourceId"], tag["Key"], tag["Value"]) for tag in found]


def tag(key, value):
    return {"Key": key, "Value": value}


def test_tags_are_put_on_overwritten_and_taken_off(ec2, make):
    one, two = make(), make()
    ec2.create_tags(Resources=[one, two], Tags=[tag("a", "1"), tag("b", "")])
    assert tags_of(ec2, one) == [(one, "a", "1"), (one, "b", "")]
    ec2.create_tags(Resources=[one], Tags=[tag("a", "2"), tag("A", "other key")])
    assert tags_of(ec2, one) == [(one, "A", "other key"), (one, "a", "2"), (one, "b", "")]
    assert tags_of(ec2, two) == [(two, "a", "1"), (two, "b", "")]
    ec2.delete_tags(Resources=[one, two], Tags=[tag("a", "2")])
    assert tags_of(ec2, one) == [(one, "A", "other key"), (one, "b", "")]
    assert tags_of(ec2, two) == [(two, "a", "1"), (two, "b", "")]
    # An empty value is a value, no value is any.
    ec2.delete_tags(Resources=[one], Tags=[tag("A", "")])
    assert (one, "A", "other key") in tags_of(ec2, one)
    ec2.delete_tags(Resources=[one], Tags=[{"Key": "A"}, {"Key": "never there"}])
    assert tags_of(ec2, one) == [(one, "b", "")]
    ec2.delete_tags(Resources=[one, two])
    assert tags_of(ec2, one, two) == []


def test_the_resource_shows_its_tags(ec2, ami):
    specification = [{"ResourceType": kind, "Tags": [tag("suite", "launch")]} for kind in ("instance", "volume")]
    (instance,) = run(ec2, ami, TagSpecifications=specification)
    assert instance["Tags"] == [tag("suite", "launch")]
    volume = ec2.describe_instances(InstanceIds=[instance["InstanceId"]])["Reservations"][0]["Instances"][0][
        "BlockDeviceMappings"
    ][0]["Ebs"]["VolumeId"]
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Tags"] == [tag("suite", "launch")]
    ec2.create_tags(Resources=[instance["InstanceId"], volume], Tags=[tag("Name", "web")])
    described = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [instance["InstanceId"], volume]}])
    assert {(one["ResourceType"], one["Key"]) for one in described["Tags"]} == {
        (kind, key) for kind in ("instance", "volume") for key in ("Name", "suite")
    }


def test_every_kind_of_resource_is_tagged(ec2, ami, value):
    name = f"tags-{value}"
    key = ec2.create_key_pair(KeyName=name, KeyType="ed25519")["KeyPairId"]
    image = ec2.register_image(Name=name, RootDeviceName="/dev/xvda")["ImageId"]
    placement = ec2.create_placement_group(GroupName=name, Strategy="spread")["PlacementGroup"]["GroupId"]
    group = ec2.create_security_group(GroupName=name, Description="tagged")["GroupId"]
    rule = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"][0]
    (instance,) = run(ec2, ami)
    kinds = {
        key: "key-pair",
        image: "image",
        placement: "placement-group",
        group: "security-group",
        rule["SecurityGroupRuleId"]: "security-group-rule",
        instance["InstanceId"]: "instance",
        instance["NetworkInterfaces"][0]["NetworkInterfaceId"]: "network-interface",
    }
    ec2.create_tags(Resources=list(kinds), Tags=[tag("suite", value)])
    found = ec2.describe_tags(Filters=[{"Name": "tag:suite", "Values": [value]}])["Tags"]
    assert {one["ResourceId"]: one["ResourceType"] for one in found} == kinds


def test_filters(ec2, make, value):
    one, two = make(), make()
    ec2.create_tags(Resources=[one], Tags=[tag("suite", value), tag("color", "red")])
    ec2.create_tags(Resources=[two], Tags=[tag("suite", value), tag("color", "blue")])
    suite = {"Name": "tag:suite", "Values": [value]}

    def found(*wanted):
        filters = [{"Name": name, "Values": values} for name, *values in wanted]
        return {(one["ResourceId"], one["Key"]) for one in ec2.describe_tags(Filters=filters)["Tags"]}

    assert found(("key", "suite"), ("value", value)) == {(one, "suite"), (two, "suite")}
    assert found(("value", f"{value[:-2]}*")) == {(one, "suite"), (two, "suite")}
    assert found(("resource-id", one, two), ("key", "color")) == {(one, "color"), (two, "color")}
    assert found(("resource-id", one, two), ("value", "red", "blue"), ("resource-type", "security-group")) == {
        (one, "color"),
        (two, "color"),
    }
    assert found(("resource-id", one), ("resource-type", "instance")) == set()
    # A resource that is named twice is one.
    assert len(ec2.describe_tags(Filters=[suite, {"Name": "resource-id", "Values": [one, one]}])["Tags"]) == 1
    unknown = [{"Name": "colour", "Values": ["red"]}]
    assert error_code(ec2.describe_tags, Filters=unknown) == "InvalidParameterValue"


def test_tags_come_in_pages(ec2, make):
    group = make()
    ec2.create_tags(Resources=[group], Tags=[tag(f"key-{number:02}", "v") for number in range(12)])
    filters = [{"Name": "resource-id", "Values": [group]}]
    pages = ec2.get_paginator("describe_tags").paginate(Filters=filters, PaginationConfig={"PageSize": 5})
    pages = [[one["Key"] for one in page["Tags"]] for page in pages]
    assert [len(page) for page in pages] == [5, 5, 2]
    assert sum(pages, []) == [f"key-{number:02}" for number in range(12)]
    assert error_code(ec2.describe_tags, MaxResults=4) == "InvalidParameterValue"
    assert error_code(ec2.describe_tags, NextToken="nonsense") == "InvalidNextToken"


def test_fifty_tags_and_no_more(ec2, make):
    group = make()
    fifty = [tag(f"key-{number}", "v") for number in range(50)]
    ec2.create_tags(Resources=[group], Tags=fifty)
    one_more = {"Resources": [group], "Tags": [tag("more", "v")]}
    assert error_code(ec2.create_tags, **one_more) == "TagLimitExceeded"
    # One that is there is overwritten, not counted again.
    ec2.create_tags(Resources=[group], Tags=[tag("key-7", "w")])
    assert len(tags_of(ec2, group)) == 50
    ec2.delete_tags(Resources=[group], Tags=[{"Key": "key-8"}])
    ec2.create_tags(**one_more)


def test_lengths_are_in_characters(ec2, make):
    group = make()
    ec2.create_tags(Resources=[group], Tags=[tag("ü" * 128, "日" * 256)])
    assert tags_of(ec2, group) == [(group, "ü" * 128, "日" * 256)]
    for refused in [tag("k" * 129, "v"), tag("k", "v" * 257), tag("", "v")]:
        assert error_code(ec2.create_tags, Resources=[group], Tags=[refused]) == "InvalidParameterValue"


@pytest.mark.parametrize("key", ["aws:mine", "AWS:mine", "aws:ec2:x"])
def test_aws_prefix_is_reserved(ec2, make, key):
    group = make()
    assert error_code(ec2.create_tags, Resources=[group], Tags=[tag(key, "v")]) == "InvalidParameterValue"
    ec2.create_tags(Resources=[group], Tags=[tag("awsome", "aws:v")])


def test_all_resources_or_none(ec2, make):
    group = make()
    for missing, code in [
        ("sg-0123456789abcdef0", "InvalidGroup.NotFound"),
        ("i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
        ("vol-0123456789abcdef0", "InvalidVolume.NotFound"),
        ("nonsense", "InvalidID"),
    ]:
        assert error_code(ec2.create_tags, Resources=[group, missing], Tags=[tag("a", "b")]) == code
    twice = [tag("a", "b"), tag("a", "c")]
    assert error_code(ec2.create_tags, Resources=[group], Tags=twice) == "InvalidParameterValue"
    assert error_code(ec2.create_tags, Resources=[group], Tags=[tag("a", "b")], DryRun=True) == "DryRunOperation"
    assert tags_of(ec2, group) == []


def test_a_resource_that_is_gone_has_no_tags(ec2, make):
    group = make()
    ec2.create_tags(Resources=[group], Tags=[tag("a", "b")])
    ec2.delete_security_group(GroupId=group)
    assert tags_of(ec2, group) == []
