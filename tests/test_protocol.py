"""The protocol itself, below what SDKs show of it: signatures, envelopes, names of parameters, bounds."""

import datetime
import http.client
import re
import urllib.parse
import uuid

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from conftest import error_code, run

VERSION = "2016-11-15"


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def error(self):
        """Status and code."""
        code = re.search(r"<Code>(.*?)</Code>", self.text)
        return self.status, code and code.group(1)

    @property
    def message(self):
        return re.search(r"<Message>(.*?)</Message>", self.text).group(1)


class Wire:
    """Asks the cloud by hand."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.host = f"127.0.0.1:{cloud.port}"
        environment = cloud.environment
        self.credentials = Credentials(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
        self.region = environment["AWS_DEFAULT_REGION"]

    def send(self, method, url, headers, body=None):
        connection = http.client.HTTPConnection(self.host, timeout=10)
        try:
            connection.request(method, url, body, headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def signed(self, parameters, service="ec2", region=None, credentials=None, at=None):
        """A signed POST: its headers and body."""
        request = AWSRequest("POST", f"http://{self.host}/", data=urllib.parse.urlencode(parameters))
        request.headers["Content-Type"] = "application/x-www-form-urlencoded; charset=utf-8"
        request.headers["Host"] = self.host
        with signing_time(at):
            SigV4Auth(credentials or self.credentials, service, region or self.region).add_auth(request)
        return dict(request.headers), request.body

    def ask(self, action, parameters=(), version=VERSION, **options):
        pairs = [("Action", action), ("Version", version), *dict(parameters).items()]
        headers, body = self.signed(pairs, **options)
        return self.send("POST", "/", headers, body)

    def presigned(self, action, expires=60, at=None, credentials=None):
        """A presigned GET: its path and query."""
        query = urllib.parse.urlencode({"Action": action, "Version": VERSION})
        request = AWSRequest("GET", f"http://{self.host}/?{query}")
        request.headers["Host"] = self.host
        with signing_time(at):
            SigV4QueryAuth(credentials or self.credentials, "ec2", self.region, expires=expires).add_auth(request)
        return request.url.removeprefix(f"http://{self.host}")


class signing_time:
    """Lets botocore sign for another time than now."""

    def __init__(self, offset):
        self.offset = offset

    def __enter__(self):
        self.patch = pytest.MonkeyPatch()
        if self.offset is not None:
            at = datetime.datetime.now(datetime.timezone.utc) + self.offset

            def moved(remove_tzinfo=False):
                return at.replace(tzinfo=None) if remove_tzinfo else at

            self.patch.setattr("botocore.auth.get_current_datetime", moved)

    def __exit__(self, *_):
        self.patch.undo()


@pytest.fixture
def wire(simulated):
    return Wire(simulated)


def test_an_answer_and_its_id(wire):
    answer = wire.ask("DescribeRegions")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/xml")
    assert f'<DescribeRegionsResponse xmlns="http://ec2.amazonaws.com/doc/{VERSION}/">' in answer.text
    request_id = re.search(r"<requestId>(.*?)</requestId>", answer.text).group(1)
    assert str(uuid.UUID(request_id)) == request_id
    assert request_id in (answer.headers["x-amzn-requestid"], answer.headers["x-amz-request-id"])


def test_the_envelope_of_an_error(wire):
    answer = wire.ask("DescribeInstances", {"InstanceId.1": "i-0123456789abcdef0"})
    assert answer.error == (400, "InvalidInstanceID.NotFound")
    pattern = (
        r"(<\?xml[^>]*\?>\s*)?<Response><Errors><Error><Code>InvalidInstanceID.NotFound</Code>"
        r"<Message>The instance ID 'i-0123456789abcdef0' does not exist</Message></Error></Errors>"
        r"<RequestID>[0-9a-f-]{36}</RequestID></Response>\s*"
    )
    assert re.fullmatch(pattern, answer.text), answer.text
    # What a caller sends comes back as text, not as markup.
    hostile = wire.ask("DescribeKeyPairs", {"KeyName.1": "<b>&\"'"})
    assert hostile.error == (400, "InvalidKeyPair.NotFound") and "<b>" not in hostile.text


def test_sts_has_an_envelope_of_its_own(wire):
    answer = wire.ask("GetCallerIdentity", version="2011-06-15", service="sts")
    assert "<GetCallerIdentityResult>" in answer.text and "<ResponseMetadata><RequestId>" in answer.text
    wrong = wire.ask("GetTheWeather", version="2011-06-15", service="sts")
    assert wrong.error == (400, "InvalidAction")
    assert "<ErrorResponse" in wrong.text and "<Type>Sender</Type>" in wrong.text


@pytest.mark.parametrize(
    "action, parameters, code, said",
    [
        ("GetTheWeather", {}, "InvalidAction", "GetTheWeather"),
        ("describeinstances", {}, "InvalidAction", "describeinstances"),
        ("AcceptReservedInstancesExchangeQuote", {}, "InvalidAction", "AcceptReservedInstancesExchangeQuote"),
        ("DescribeInstances", {"Colour": "red"}, "UnknownParameter", "Colour"),
        ("DescribeInstances", {"InstanceIds.1": "i-0123456789abcdef0"}, "UnknownParameter", "InstanceIds"),
        ("DescribeInstances", {"Filter.1.Colour": "red"}, "UnknownParameter", "Filter.1.Colour"),
        ("DescribeInstances", {"InstanceId.one": "i-0123456789abcdef0"}, "UnknownParameter", "InstanceId.one"),
        ("TerminateInstances", {}, "MissingParameter", "InstanceId"),
        ("RunInstances", {"ImageId": "ami-0123456789abcdef0", "MinCount": "1"}, "MissingParameter", "MaxCount"),
        ("CreateTags", {"ResourceId.1": "i-0123456789abcdef0"}, "MissingParameter", "Tag"),
        ("DescribeInstances", {"MaxResults": "many"}, "InvalidParameterValue", "many"),
        ("DescribeInstances", {"MaxResults": "1e3"}, "InvalidParameterValue", "1e3"),
        ("DescribeInstances", {"DryRun": "perhaps"}, "InvalidParameterValue", "perhaps"),
        ("DescribeInstances", {"Filter": "name"}, "InvalidParameterValue", "name"),
        ("DescribeInstances", {"Filter.1": "name"}, "InvalidParameterValue", "name"),
        ("EnableImageDeprecation", {"ImageId": "ami-0123456789abcdef0", "DeprecateAt": "soon"}, "InvalidParameterValue", "soon"),
    ],
)
def test_what_a_request_may_say(wire, action, parameters, code, said):
    answer = wire.ask(action, parameters)
    assert answer.error == (400, code) and said in answer.message


def test_requests_that_say_too_little(wire):
    def post(*pairs):
        headers, body = wire.signed(list(pairs))
        return wire.send("POST", "/", headers, body)

    assert post(("Version", VERSION)).error == (400, "MissingAction")
    assert post(("Action", "DescribeRegions"), ("Version", "1999-01-01")).status == 200
    assert post(("Action", "DescribeRegions"), ("Version", "2999-01-01")).error == (400, "InvalidParameterValue")
    twice = post(("Action", "DescribeRegions"), ("Version", VERSION), ("RegionName.1", "a"), ("RegionName.1", "b"))
    assert twice.error == (400, "InvalidQueryParameter")


def test_lists_begin_at_any_number_and_keep_their_order(wire):
    answer = wire.ask("DescribeRegions", {"RegionName.0": "eu-west-1", "RegionName.7": "us-east-1"})
    assert re.findall(r"<regionName>(.*?)</regionName>", answer.text) == ["eu-west-1", "us-east-1"]


def test_a_query_is_signed_as_well(wire):
    answer = wire.send("GET", wire.presigned("DescribeRegions"), {"Host": wire.host})
    assert answer.status == 200 and "us-east-1" in answer.text
    # Another question under the same signature is another request.
    other = wire.presigned("DescribeRegions").replace("DescribeRegions", "DescribeVpcs")
    assert wire.send("GET", other, {"Host": wire.host}).error == (401, "AuthFailure")


def test_wrong_keys_and_signatures_are_told_alike(wire):
    key, secret = wire.credentials.access_key, wire.credentials.secret_key
    answers = [
        wire.ask("DescribeRegions", credentials=Credentials("AKIAAAAAAAAAAAAAAAAA", secret)),
        wire.ask("DescribeRegions", credentials=Credentials(key, "x" * 40)),
        wire.ask("DescribeRegions", credentials=Credentials(key, secret, token="not one of ours")),
    ]
    headers, body = wire.signed({"Action": "DescribeRegions", "Version": VERSION})
    answers.append(wire.send("POST", "/", headers, body.replace(b"Regions", b"Vpcs")))
    answers.append(wire.send("POST", "/", {**headers, "Host": "ec2.amazonaws.com"}, body))
    assert [answer.error for answer in answers] == [(401, "AuthFailure")] * 5
    assert len({answer.message for answer in answers}) == 1


def test_nobody_comes_in_without_a_signature(wire):
    body = f"Action=DescribeRegions&Version={VERSION}"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert wire.send("POST", "/", form, body).error == (403, "MissingAuthenticationToken")
    broken = {**form, "Authorization": "AWS4-HMAC-SHA256 Credential=nonsense"}
    assert wire.send("POST", "/", broken, body).error == (400, "IncompleteSignature")


def test_clocks_may_differ_a_little(wire):
    def minutes(count):
        return datetime.timedelta(minutes=count)

    assert wire.ask("DescribeRegions", at=minutes(-4)).status == 200
    assert wire.ask("DescribeRegions", at=minutes(4)).status == 200
    for skew in (-20, 20):
        assert wire.ask("DescribeRegions", at=minutes(skew)).error == (400, "RequestExpired")
    link = wire.presigned("DescribeRegions", expires=60, at=minutes(-2))
    assert wire.send("GET", link, {"Host": wire.host}).error == (400, "RequestExpired")
    # A link is good as long as it says.
    link = wire.presigned("DescribeRegions", expires=3600, at=minutes(-30))
    assert wire.send("GET", link, {"Host": wire.host}).status == 200


def test_a_signature_is_of_one_region_and_service(wire):
    assert wire.ask("DescribeRegions", region="xx-nowhere-1").error == (401, "AuthFailure")
    assert wire.ask("DescribeRegions", service="sqs").status == 501
    assert wire.ask("DescribeRegions", service="sts").status == 400


def test_bounds(wire):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert wire.send("POST", "/", form, "a=" + "x" * 1024 * 1024).error == (413, "RequestEntityTooLarge")
    deep = wire.ask("DescribeInstances", {".".join(["Filter"] * 40): "x"})
    assert deep.error == (400, "UnknownParameter")
    many = wire.ask("DescribeInstances", {f"Filter.{number}.Name": "x" for number in range(10_001)})
    assert many.status == 400
    far = wire.ask("DescribeInstances", {"InstanceId.999999999": "i-0123456789abcdef0"})
    assert far.error == (400, "UnknownParameter")
    long = wire.ask("x" * 100_000)
    assert long.error == (400, "InvalidAction")
    # It goes on.
    assert wire.ask("DescribeRegions").status == 200


def test_a_token_stands_for_one_launch(ec2, ami):
    token = uuid.uuid4().hex
    (one,) = run(ec2, ami, ClientToken=token)
    (again,) = run(ec2, ami, ClientToken=token)
    assert one["InstanceId"] == again["InstanceId"]
    other = {"ImageId": ami, "MinCount": 1, "MaxCount": 2, "InstanceType": "t3.micro", "ClientToken": token}
    assert error_code(ec2.run_instances, **other) == "IdempotentParameterMismatch"
    assert error_code(ec2.run_instances, **{**other, "ClientToken": "x" * 65}) == "InvalidParameterValue"
    found = ec2.describe_instances(Filters=[{"Name": "client-token", "Values": [token]}])["Reservations"]
    assert [i["InstanceId"] for r in found for i in r["Instances"]] == [one["InstanceId"]]


def test_a_dry_run_has_no_effect(ec2, ami):
    (instance,) = run(ec2, ami)
    instance_id = instance["InstanceId"]
    for call, parameters in [
        (ec2.describe_instances, {}),
        (ec2.run_instances, {"ImageId": ami, "MinCount": 1, "MaxCount": 1, "ClientToken": instance_id}),
        (ec2.terminate_instances, {"InstanceIds": [instance_id]}),
        (ec2.stop_instances, {"InstanceIds": [instance_id]}),
        (ec2.monitor_instances, {"InstanceIds": [instance_id]}),
        (ec2.create_tags, {"Resources": [instance_id], "Tags": [{"Key": "a", "Value": "b"}]}),
    ]:
        assert error_code(call, DryRun=True, **parameters) == "DryRunOperation"
    # What would fail does.
    assert error_code(ec2.deregister_image, ImageId=ami, DryRun=True) == "AuthFailure"
    wrong = {"ImageId": ami, "MinCount": 1, "MaxCount": 1, "InstanceType": "t0.none"}
    assert error_code(ec2.run_instances, **wrong, DryRun=True) == "InvalidParameterValue"
    (described,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"]
    assert described["State"]["Name"] in ("pending", "running") and described["Tags"] == []
    tokens = [{"Name": "client-token", "Values": [instance_id]}]
    assert ec2.describe_instances(Filters=tokens)["Reservations"] == []
