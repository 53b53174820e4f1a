"""The EBS direct APIs through boto3: snapshots written and read block by block."""

import base64
import hashlib
import uuid

import pytest
from botocore.exceptions import ClientError
from conftest import error_code, run, wait

BLOCK = 512 * 1024
MISSING = "snap-0123456789abcdef0"


@pytest.fixture
def ebs(simulated):
    return simulated.client("ebs")


def block(seed):
    return bytes([seed]) * BLOCK


def sha256(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def aggregated(blocks):
    """The linear aggregation: a hash over the blocks' hashes in the order of their indexes."""
    return sha256(b"".join(hashlib.sha256(blocks[index]).digest() for index in sorted(blocks)))


def start(ebs, size=1, **parameters):
    return ebs.start_snapshot(VolumeSize=size, **parameters)["SnapshotId"]


def put(ebs, snapshot, index, data, **parameters):
    wanted = {"DataLength": BLOCK, "Checksum": sha256(data), "ChecksumAlgorithm": "SHA256", **parameters}
    return ebs.put_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockData=data, **wanted)


def written(ebs, blocks, size=1):
    """A completed snapshot of these blocks, of so many GiB."""
    snapshot = start(ebs, size)
    for index, data in blocks.items():
        put(ebs, snapshot, index, data)
    ebs.complete_snapshot(
        SnapshotId=snapshot,
        ChangedBlocksCount=len(blocks),
        Checksum=aggregated(blocks),
        ChecksumAlgorithm="SHA256",
        ChecksumAggregationMethod="LINEAR",
    )
    return snapshot


def contents(ebs, snapshot):
    """A snapshot's blocks, and its size in GiB."""
    tokens, page = {}, {}
    while not tokens or page.get("NextToken"):
        more = {"NextToken": page["NextToken"]} if page else {}
        page = ebs.list_snapshot_blocks(SnapshotId=snapshot, **more)
        tokens |= {one["BlockIndex"]: one["BlockToken"] for one in page["Blocks"]}
    get = ebs.get_snapshot_block
    blocks = {
        index: get(SnapshotId=snapshot, BlockIndex=index, BlockToken=token)["BlockData"].read()
        for index, token in tokens.items()
    }
    return blocks, page["VolumeSize"]


def test_what_was_put_is_read(ec2, ebs):
    blocks = {0: block(1), 7: block(2), 2047: block(3)}
    tags = [{"Key": "a", "Value": "b"}]
    started = ebs.start_snapshot(VolumeSize=1, Description="for a test", Tags=tags)
    snapshot = started["SnapshotId"]
    assert (started["Status"], started["BlockSize"], started["VolumeSize"]) == ("pending", BLOCK, 1)
    assert started["Tags"] == tags
    (pending,) = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    assert (pending["State"], pending["Description"], pending["Tags"]) == ("pending", "for a test", tags)
    for index, data in reversed(blocks.items()):
        answer = put(ebs, snapshot, index, data, Progress=100 - index // 100)
        assert (answer["Checksum"], answer["ChecksumAlgorithm"]) == (sha256(data), "SHA256")
        progress = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["Progress"]
        assert progress == f"{100 - index // 100}%"
    done = ebs.complete_snapshot(
        SnapshotId=snapshot, ChangedBlocksCount=3, Checksum=aggregated(blocks), ChecksumAlgorithm="SHA256"
    )
    assert done["Status"] in ("pending", "completed")
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1})

    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot)
    assert (listed["VolumeSize"], listed["BlockSize"]) == (1, BLOCK)
    tokens = {one["BlockIndex"]: one["BlockToken"] for one in listed["Blocks"]}
    assert sorted(tokens) == sorted(blocks)
    for index, data in blocks.items():
        read = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockToken=tokens[index])
        assert read["DataLength"] == BLOCK and read["ChecksumAlgorithm"] == "SHA256"
        assert read["BlockData"].read() == data
        assert read["Checksum"] == sha256(data)


def test_a_block_is_whole_in_its_place_and_what_it_was(ebs):
    snapshot = start(ebs)
    data = block(1)
    for wrong in [
        {"Checksum": sha256(b"other")},
        {"DataLength": 4096},
        {"data": b"short", "Checksum": sha256(b"short")},
        {"index": 2048},
        {"Progress": 101},
    ]:
        wanted = {"index": 0, "data": data, **wrong}
        assert error_code(put, ebs=ebs, snapshot=snapshot, **wanted) == "ValidationException", wrong
    assert error_code(put, ebs=ebs, snapshot=MISSING, index=0, data=data) == "ResourceNotFoundException"
    # The last one counts, also where a client repeats itself.
    put(ebs, snapshot, 0, block(9))
    put(ebs, snapshot, 0, data)
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1, Checksum=aggregated({0: data}))
    token = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"][0]["BlockToken"]
    assert ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=0, BlockToken=token)["BlockData"].read() == data


def test_a_snapshot_is_completed_when_all_is_there(ebs):
    snapshot = start(ebs)
    put(ebs, snapshot, 0, block(1))
    put(ebs, snapshot, 5, block(2))
    complete = ebs.complete_snapshot
    assert error_code(complete, SnapshotId=snapshot, ChangedBlocksCount=1) == "ValidationException"
    wrong = {"Checksum": aggregated({0: block(1)}), "ChecksumAlgorithm": "SHA256"}
    assert error_code(complete, SnapshotId=snapshot, ChangedBlocksCount=2, **wrong) == "ValidationException"
    # Before it is completed nothing of it can be read.
    assert error_code(ebs.list_snapshot_blocks, SnapshotId=snapshot) == "ValidationException"
    complete(SnapshotId=snapshot, ChangedBlocksCount=2)
    assert error_code(put, ebs=ebs, snapshot=snapshot, index=1, data=block(3)) == "ValidationException"
    assert error_code(complete, SnapshotId=MISSING, ChangedBlocksCount=0) == "ResourceNotFoundException"


def test_block_tokens_are_good_for_their_block(ebs):
    snapshot, other = written(ebs, {0: block(1), 1: block(2)}), written(ebs, {0: block(1)})
    tokens = [one["BlockToken"] for one in ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]]
    for wrong in [
        {"SnapshotId": snapshot, "BlockIndex": 1, "BlockToken": tokens[0]},
        {"SnapshotId": other, "BlockIndex": 0, "BlockToken": tokens[0]},
        {"SnapshotId": snapshot, "BlockIndex": 0, "BlockToken": "nonsense"},
    ]:
        assert error_code(ebs.get_snapshot_block, **wrong) == "ValidationException"
    missing = {"SnapshotId": MISSING, "BlockIndex": 0, "BlockToken": tokens[0]}
    with pytest.raises(ClientError) as refused:
        ebs.get_snapshot_block(**missing)
    assert refused.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert refused.value.response["Error"]["Message"]
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_the_difference_of_two_snapshots(ebs):
    one = written(ebs, {0: block(1), 1: block(2), 2: block(3)})
    two = written(ebs, {0: block(1), 1: block(9), 3: block(4)})
    answer = ebs.list_changed_blocks(FirstSnapshotId=one, SecondSnapshotId=two)
    changed = {block["BlockIndex"]: block for block in answer["ChangedBlocks"]}
    assert sorted(changed) == [1, 2, 3]
    assert "FirstBlockToken" in changed[1] and "SecondBlockToken" in changed[1]
    assert "SecondBlockToken" not in changed[2] and "FirstBlockToken" not in changed[3]
    read = ebs.get_snapshot_block(SnapshotId=two, BlockIndex=1, BlockToken=changed[1]["SecondBlockToken"])
    assert read["BlockData"].read() == block(9)
    assert ebs.list_changed_blocks(FirstSnapshotId=one, SecondSnapshotId=one)["ChangedBlocks"] == []
    assert error_code(ebs.list_changed_blocks, SecondSnapshotId=two) == "ValidationException"


def test_blocks_come_in_pages(ebs):
    blocks = {index: block(1) for index in range(0, 208, 2)}
    snapshot = written(ebs, blocks)
    pages, token = [], None
    while True:
        more = {"NextToken": token} if token else {}
        page = ebs.list_snapshot_blocks(SnapshotId=snapshot, MaxResults=100, **more)
        pages.append([one["BlockIndex"] for one in page["Blocks"]])
        token = page.get("NextToken")
        if not token:
            break
    assert [len(page) for page in pages] == [100, 4]
    assert sum(pages, []) == sorted(blocks)
    tail = ebs.list_snapshot_blocks(SnapshotId=snapshot, StartingBlockIndex=190)["Blocks"]
    assert [one["BlockIndex"] for one in tail] == list(range(190, 208, 2))
    wrong = {"MaxResults": 100, "NextToken": "nonsense"}
    assert error_code(ebs.list_snapshot_blocks, SnapshotId=snapshot, **wrong) == "ValidationException"


def test_a_client_token_stands_for_one_snapshot(ebs):
    token = uuid.uuid4().hex
    one = start(ebs, ClientToken=token, Description="one")
    assert start(ebs, ClientToken=token, Description="one") == one
    assert error_code(start, ebs=ebs, ClientToken=token, Description="two") == "ConflictException"
    assert start(ebs, Description="one") != one


@pytest.mark.parametrize(
    "parameters",
    [
        {"VolumeSize": 65537},
        {"VolumeSize": 1, "Description": "x" * 256},
        {"VolumeSize": 1, "Tags": [{"Key": "aws:a", "Value": "b"}]},
    ],
)
def test_what_is_no_snapshot_is_refused(ebs, parameters):
    assert error_code(ebs.start_snapshot, **parameters) == "ValidationException"


def test_an_image_of_a_snapshot_is_launched(ec2, ebs):
    snapshot = written(ebs, {0: block(1)})
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}]
    image = ec2.register_image(
        Name=f"direct-{uuid.uuid4().hex}", RootDeviceName="/dev/xvda", BlockDeviceMappings=devices
    )["ImageId"]
    assert error_code(ec2.delete_snapshot, SnapshotId=snapshot) == "InvalidSnapshot.InUse"
    (instance,) = run(ec2, image)
    wait(ec2, "instance_running", [instance["InstanceId"]])
    filters = [{"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}]
    assert ec2.describe_volumes(Filters=filters)["Volumes"][0]["SnapshotId"] == snapshot
    ec2.deregister_image(ImageId=image)
    ec2.delete_snapshot(SnapshotId=snapshot)
    assert error_code(ebs.list_snapshot_blocks, SnapshotId=snapshot) == "ResourceNotFoundException"
    assert error_code(ec2.describe_snapshots, SnapshotIds=[snapshot]) == "InvalidSnapshot.NotFound"
