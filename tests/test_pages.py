"""Pages hold still while the cloud changes: what was there throughout appears exactly once."""

import threading

from conftest import error_code, run


def test_what_stays_appears_exactly_once_while_others_come_and_go(cloud_factory):
    ec2 = cloud_factory("--simulate").client()
    ami = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
    stay = {instance["InstanceId"] for instance in run(ec2, ami, 60)}
    done = threading.Event()

    def churn():
        while not done.is_set():
            ids = [instance["InstanceId"] for instance in run(ec2, ami, 5)]
            ec2.terminate_instances(InstanceIds=ids)

    changing = threading.Thread(target=churn)
    changing.start()
    try:
        for _ in range(5):
            seen = []
            for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 7}):
                seen += [i["InstanceId"] for r in page["Reservations"] for i in r["Instances"]]
            kept = [instance for instance in seen if instance in stay]
            assert sorted(kept) == sorted(stay)
            assert len(seen) == len(set(seen))
    finally:
        done.set()
        changing.join()


def test_a_token_goes_on_where_its_page_ended_even_if_that_is_gone(cloud_factory):
    ec2 = cloud_factory("--simulate").client()
    ami = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
    ids = sorted(instance["InstanceId"] for instance in run(ec2, ami, 12))
    first = ec2.describe_instances(MaxResults=5)
    last = first["Reservations"][-1]["Instances"][-1]["InstanceId"]
    ec2.terminate_instances(InstanceIds=[last])
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[last], WaiterConfig={"Delay": 1})
    rest = ec2.describe_instances(MaxResults=100, NextToken=first["NextToken"])
    seen = [i["InstanceId"] for r in first["Reservations"] + rest["Reservations"] for i in r["Instances"]]
    assert sorted(seen) == ids
    assert error_code(ec2.describe_instances, NextToken="no token") == "InvalidNextToken"
    assert error_code(ec2.describe_instances, MaxResults=4) == "InvalidParameterValue"
