"""EC2's UefiData, read and made without the cloud's help: what awslabs/python-uefivars reads and makes."""

import base64
import pathlib
import struct
import zlib

DICTIONARY = pathlib.Path(__file__).parents[1].joinpath("crates/control/src/uefi_data/dictionary").read_bytes()
GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
SIGNED = 0x20


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def made(variables):
    """Of the platform's variables by their names: attributes and data."""
    sized = lambda data: struct.pack("<Q", len(data)) + data
    plain = struct.pack("<Q", len(variables))
    for name, (attributes, data) in variables.items():
        plain += sized(name.encode()) + sized(data) + GLOBAL + struct.pack("<I", attributes)
        plain += bytes(16) + sized(bytes(32)) if attributes & SIGNED else b""
    stream = zlib.compressobj(9, zdict=DICTIONARY)
    rest = bytes(4) + stream.compress(plain) + stream.flush()
    return base64.b64encode(b"AMZNUEFI" + struct.pack("<I", crc32c(rest)) + rest).decode()


def read(text):
    data = base64.b64decode(text)
    assert data[:8] == b"AMZNUEFI" and data[12:16] == bytes(4)
    assert struct.unpack("<I", data[8:12]) == (crc32c(data[12:]),)
    plain = zlib.decompressobj(zdict=DICTIONARY).decompress(data[16:])
    at = 8

    def take(count):
        nonlocal at
        at += count
        return plain[at - count : at]

    sized = lambda: take(struct.unpack("<Q", take(8))[0])
    variables = {}
    for _ in range(struct.unpack("<Q", plain[:8])[0]):
        name, content, _vendor = sized().decode(), sized(), take(16)
        (attributes,) = struct.unpack("<I", take(4))
        if attributes & SIGNED:
            take(16), sized()
        variables[name] = (attributes, content)
    assert at == len(plain)
    return variables
