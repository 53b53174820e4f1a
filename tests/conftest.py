"""Clouds for the tests: each its own process, port and data directory, and nothing left of it afterwards."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

# Whoever ends the tests finds nothing left of them: they end as by Ctrl-C.
signal.signal(signal.SIGTERM, signal.default_int_handler)

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(os.environ.get("CUMULET_BINARY", ROOT / "target" / "debug" / "cumulet"))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def processes_of(text):
    """Ids of the machines whose command line has the text."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if command.startswith("qemu-system") and text in command:
            found.append(int(path.parent.name))
    return found


class Cloud:
    """A running `cumulet serve`."""

    def __init__(self, *flags, data_dir=None):
        self.own_data_dir = data_dir is None
        self.data_dir = data_dir or tempfile.mkdtemp(prefix="cumulet-test-")
        self.port = free_port()
        self.flags = flags
        self.process = None

    def start(self):
        # To a file, not a pipe: a pipe that nobody reads would stop the cloud.
        self.log = open(os.path.join(self.data_dir, "serve.log"), "ab")
        command = [BINARY, "serve", "--data-dir", self.data_dir, "--listen", f"127.0.0.1:{self.port}", *self.flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("cumulet: ready on "), (line, pathlib.Path(self.log.name).read_text()[-2000:])
        self.environment = dict(
            line.removeprefix("export ").split("=", 1) for line in self.command("env").stdout.splitlines()
        )
        return self

    def command(self, *arguments, check=True, **options):
        command = [BINARY, arguments[0], *arguments[1:], "--data-dir", self.data_dir]
        return subprocess.run(command, check=check, text=True, capture_output=True, **options)

    def kill(self):
        """As a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        # Nothing is left of a test, machines and networks neither.
        if self.is_real():
            self.command("uninstall", "--end-instances", check=False)
        if self.own_data_dir:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def is_real(self):
        return os.path.exists(os.path.join(self.data_dir, "machines"))

    def client(self, service="ec2", region=None, **options):
        options.setdefault("config", Config(retries={"max_attempts": 1}))
        options.setdefault("aws_access_key_id", self.environment["AWS_ACCESS_KEY_ID"])
        options.setdefault("aws_secret_access_key", self.environment["AWS_SECRET_ACCESS_KEY"])
        return boto3.client(
            service,
            region_name=region or self.environment["AWS_DEFAULT_REGION"],
            endpoint_url=f"http://127.0.0.1:{self.port}",
            **options,
        )


@pytest.fixture(scope="session")
def simulated():
    """One simulated cloud for all tests that can share it: each makes resources of its own."""
    cloud = Cloud("--simulate").start()
    yield cloud
    cloud.stop()


@pytest.fixture
def ec2(simulated):
    return simulated.client()


@pytest.fixture
def cloud_factory():
    """Makes clouds that end with the test."""
    clouds = []

    def make(*flags, **options):
        clouds.append(Cloud(*flags, **options).start())
        return clouds[-1]

    yield make
    for cloud in clouds:
        cloud.stop()


@pytest.fixture(scope="session")
def ami(simulated):
    """An x86_64 image of the simulated cloud, none that a test makes and takes away."""
    filters = [{"Name": "architecture", "Values": ["x86_64"]}]
    images = simulated.client().describe_images(Owners=["amazon"], Filters=filters)["Images"]
    return sorted(image["ImageId"] for image in images)[0]


def error_code(call, **parameters):
    """The code that a call fails with; None where it succeeds."""
    try:
        call(**parameters)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


def run(client, ami, count=1, **parameters):
    parameters.setdefault("InstanceType", "t3.micro")
    return client.run_instances(ImageId=ami, MinCount=count, MaxCount=count, **parameters)["Instances"]


def wait(client, waiter, ids):
    ready(client, waiter, InstanceIds=ids)


def ready(client, waiter, **ids):
    client.get_waiter(waiter).wait(**ids, WaiterConfig={"Delay": 1, "MaxAttempts": 120})


def until(what, expected, seconds=60):
    deadline = time.monotonic() + seconds
    while (found := what()) != expected:
        assert time.monotonic() < deadline, (found, expected)
        time.sleep(0.2)
