"""Key pairs through boto3, each judged by the tools that use it: ssh-keygen, puttygen."""

import base64
import hashlib
import subprocess
import uuid

import pytest
from botocore.exceptions import ClientError
from conftest import error_code


@pytest.fixture
def name():
    return f"key-{uuid.uuid4().hex}"


@pytest.fixture
def make(tmp_path):
    """Makes a key outside the cloud and gives the path of its private half; `.pub` is behind the public one's."""

    def make(*arguments):
        path = tmp_path / f"own-{uuid.uuid4().hex}"
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-C", "me@home", "-f", path, *arguments], check=True)
        return path

    return make


def output(*command, **options):
    return subprocess.run(command, capture_output=True, check=True, **options).stdout


def public_line(path):
    return path.with_suffix(".pub").read_bytes()


def colons(digest):
    return ":".join(f"{byte:02x}" for byte in digest)


def sha256_of_blob(line):
    """As OpenSSH shows a key, without the name of the hash: EC2's fingerprint of an ED25519 key."""
    return base64.b64encode(hashlib.sha256(base64.b64decode(line.split()[1])).digest()).decode()


def sha1_of_private(pem):
    """EC2's fingerprint of an RSA key that it made, as its user guide computes it."""
    der = output("openssl", "pkcs8", "-inform", "PEM", "-outform", "DER", "-topk8", "-nocrypt", input=pem.encode())
    return colons(hashlib.sha1(der).digest())


def der_of_public(path):
    pem = output("ssh-keygen", "-e", "-m", "PKCS8", "-f", path.with_suffix(".pub"))
    return output("openssl", "pkey", "-pubin", "-outform", "DER", input=pem)


def md5_of_public(path):
    """EC2's fingerprint of an RSA key that was imported."""
    return colons(hashlib.md5(der_of_public(path)).digest())


def public_of(ec2, name):
    return ec2.describe_key_pairs(KeyNames=[name], IncludePublicKey=True)["KeyPairs"][0]["PublicKey"]


@pytest.mark.parametrize("key_type, algorithm", [("rsa", "ssh-rsa"), ("ed25519", "ssh-ed25519")])
def test_a_pem_is_a_key_for_ssh(ec2, name, tmp_path, key_type, algorithm):
    made = ec2.create_key_pair(KeyName=name, KeyType=key_type)
    path = tmp_path / "key.pem"
    path.write_text(made["KeyMaterial"])
    path.chmod(0o600)
    printed = output("ssh-keygen", "-y", "-f", path, text=True)
    assert printed.split()[:2] == public_of(ec2, name).split()[:2]
    assert printed.startswith(algorithm)
    if key_type == "rsa":
        assert made["KeyMaterial"].startswith("-----BEGIN RSA PRIVATE KEY-----\n")
        assert output("ssh-keygen", "-l", "-f", path).startswith(b"2048 ")
        assert made["KeyFingerprint"] == sha1_of_private(made["KeyMaterial"])
    else:
        assert made["KeyMaterial"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        assert made["KeyFingerprint"] == sha256_of_blob(printed)


@pytest.mark.parametrize("key_type", ["rsa", "ed25519"])
def test_a_ppk_is_a_key_for_putty(ec2, name, tmp_path, key_type):
    made = ec2.create_key_pair(KeyName=name, KeyType=key_type, KeyFormat="ppk")
    path = tmp_path / "key.ppk"
    path.write_text(made["KeyMaterial"])

    def puttygen(form):
        return output("puttygen", path, "-O", form, "-o", "/dev/stdout", text=True)

    assert puttygen("public-openssh").split()[:2] == public_of(ec2, name).split()[:2]
    # It reads the private half only when it writes it again, and then finds a wrong MAC or number.
    private = puttygen("private-openssh")
    if key_type == "rsa":
        assert made["KeyFingerprint"] == sha1_of_private(private)
    else:
        pem = tmp_path / "key.pem"
        pem.write_text(private)
        pem.chmod(0o600)
        assert made["KeyFingerprint"] == sha256_of_blob(output("ssh-keygen", "-y", "-f", pem, text=True))


def test_an_imported_rsa_key(ec2, name, make):
    key = make("-t", "rsa", "-b", "2048")
    made = ec2.import_key_pair(KeyName=name, PublicKeyMaterial=public_line(key))
    assert made["KeyName"] == name and made["KeyPairId"].startswith("key-")
    assert made["KeyFingerprint"] == md5_of_public(key)
    (described,) = ec2.describe_key_pairs(KeyPairIds=[made["KeyPairId"]])["KeyPairs"]
    assert described["KeyType"] == "rsa" and "PublicKey" not in described
    assert public_of(ec2, name).split()[:2] == public_line(key).decode().split()[:2]


def test_an_rsa_key_comes_in_the_forms_that_ec2_takes(ec2, name, make):
    key = make("-t", "rsa", "-b", "2048")
    rfc4716 = output("ssh-keygen", "-e", "-m", "RFC4716", "-f", key.with_suffix(".pub"))
    assert rfc4716.startswith(b"---- BEGIN SSH2 PUBLIC KEY ----")
    for number, material in enumerate([base64.b64encode(der_of_public(key)), rfc4716]):
        made = ec2.import_key_pair(KeyName=f"{name}-{number}", PublicKeyMaterial=material)
        assert made["KeyFingerprint"] == md5_of_public(key)


def test_an_imported_ed25519_key(ec2, name, make):
    line = public_line(make("-t", "ed25519"))
    made = ec2.import_key_pair(KeyName=name, PublicKeyMaterial=line)
    assert made["KeyFingerprint"] == sha256_of_blob(line)


def test_what_is_no_key_for_ec2_is_not_imported(ec2, name, make):
    elliptic = public_line(make("-t", "ecdsa"))
    odd = public_line(make("-t", "rsa", "-b", "3072"))
    for material in [b"ssh-rsa", b"hello", b"ssh-ed25519 AAAA", elliptic, odd, b"ssh-rsa \xff\xfe", b"x" * 100_000]:
        assert error_code(ec2.import_key_pair, KeyName=name, PublicKeyMaterial=material) == "InvalidKey.Format"
    assert error_code(ec2.describe_key_pairs, KeyNames=[name]) == "InvalidKeyPair.NotFound"


def test_found_by_name_id_and_filter(ec2, name):
    tags = [{"ResourceType": "key-pair", "Tags": [{"Key": "suite", "Value": name}, {"Key": "n", "Value": "1"}]}]
    made = ec2.create_key_pair(KeyName=name, KeyType="ed25519", TagSpecifications=tags)
    assert sorted(tag["Key"] for tag in made["Tags"]) == ["n", "suite"]
    other = ec2.create_key_pair(KeyName=f"{name}-other", KeyType="ed25519")
    (described,) = ec2.describe_key_pairs(KeyNames=[name])["KeyPairs"]
    assert described["KeyPairId"] == made["KeyPairId"] and described["KeyType"] == "ed25519"
    assert described["KeyFingerprint"] == made["KeyFingerprint"] and described["CreateTime"]

    both = ec2.describe_key_pairs(KeyPairIds=[made["KeyPairId"], other["KeyPairId"]])["KeyPairs"]
    assert {pair["KeyName"] for pair in both} == {name, f"{name}-other"}
    for wanted, expected in [
        ([("key-name", name)], {name}),
        ([("key-name", f"{name}*")], {name, f"{name}-other"}),
        ([("key-pair-id", made["KeyPairId"])], {name}),
        ([("fingerprint", made["KeyFingerprint"].replace("?", "\\?"))], {name}),
        ([("tag:suite", name), ("tag-key", "n")], {name}),
        ([("tag:suite", name), ("key-name", f"{name}-other")], set()),
    ]:
        filters = [{"Name": key, "Values": [value]} for key, value in wanted]
        found = ec2.describe_key_pairs(Filters=filters)["KeyPairs"]
        assert {pair["KeyName"] for pair in found} == expected, wanted
    unknown = [{"Name": "colour", "Values": ["red"]}]
    assert error_code(ec2.describe_key_pairs, Filters=unknown) == "InvalidParameterValue"
    # Also where another filter finds nothing.
    none = [{"Name": "key-name", "Values": [f"no-{name}"]}]
    assert ec2.describe_key_pairs(Filters=none)["KeyPairs"] == []
    assert error_code(ec2.describe_key_pairs, Filters=none + unknown) == "InvalidParameterValue"
    missing = "key-0123456789abcdef0"
    assert error_code(ec2.describe_key_pairs, KeyNames=[name, f"no-{name}"]) == "InvalidKeyPair.NotFound"
    assert error_code(ec2.describe_key_pairs, KeyPairIds=[missing]) == "InvalidKeyPair.NotFound"


def test_a_name_is_taken_once(ec2, name, make):
    ec2.create_key_pair(KeyName=name, KeyType="ed25519")
    line = public_line(make("-t", "ed25519"))
    assert error_code(ec2.create_key_pair, KeyName=name) == "InvalidKeyPair.Duplicate"
    assert error_code(ec2.import_key_pair, KeyName=name, PublicKeyMaterial=line) == "InvalidKeyPair.Duplicate"
    ec2.delete_key_pair(KeyName=name)
    ec2.import_key_pair(KeyName=name, PublicKeyMaterial=line)


def test_deleting(ec2, name):
    made = ec2.create_key_pair(KeyName=name, KeyType="ed25519")
    assert ec2.delete_key_pair(KeyPairId=made["KeyPairId"])["KeyPairId"] == made["KeyPairId"]
    # What is not there is deleted already.
    again = ec2.delete_key_pair(KeyName=name)
    assert again["Return"] is True and "KeyPairId" not in again
    assert error_code(ec2.delete_key_pair) == "MissingParameter"


def test_a_dry_run_makes_nothing(ec2, name):
    with pytest.raises(ClientError) as refused:
        ec2.create_key_pair(KeyName=name, DryRun=True)
    assert refused.value.response["Error"]["Code"] == "DryRunOperation"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert error_code(ec2.describe_key_pairs, KeyNames=[name]) == "InvalidKeyPair.NotFound"
    ec2.create_key_pair(KeyName=name, KeyType="ed25519")
    assert error_code(ec2.delete_key_pair, KeyName=name, DryRun=True) == "DryRunOperation"
    assert ec2.describe_key_pairs(KeyNames=[name])["KeyPairs"]


@pytest.mark.parametrize(
    "parameters, code",
    [
        ({"KeyName": "x" * 256}, "InvalidParameterValue"),
        ({"KeyName": " spaced"}, "InvalidParameterValue"),
        ({"KeyName": "schlüssel"}, "InvalidParameterValue"),
        ({"KeyName": ""}, "MissingParameter"),
        ({"KeyName": "k", "KeyType": "dsa"}, "InvalidParameterValue"),
        ({"KeyName": "k", "KeyFormat": "jks"}, "InvalidParameterValue"),
        ({"KeyName": "k", "TagSpecifications": [{"ResourceType": "instance", "Tags": []}]}, "InvalidParameterValue"),
    ],
)
def test_what_cannot_be_made_is_refused(ec2, parameters, code):
    assert error_code(ec2.create_key_pair, **parameters) == code
