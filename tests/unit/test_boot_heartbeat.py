"""Heartbeats: what is believed, and how they are found among the frames of a network."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from amphora_mkimage.boot.heartbeat import PORT, Capture, Heartbeat, Received, unwrap
from amphora_mkimage.boot.management import NETWORKS, Kind

MANAGER = NETWORKS[Kind.USER].controllers[4]
KEY = "insecure"
MESSAGE = {
    "id": "amphora",
    "seq": 7,
    "listeners": {"one": {"status": "OPEN", "stats": {}}},
    "pools": {"pool:one": {"status": "UP", "members": {"member": "UP"}}},
    "ver": 3,
}


def wrap(message: Any, key: str = KEY) -> bytes:
    payload = zlib.compress(message if isinstance(message, bytes) else json.dumps(message).encode())
    return payload + hmac.new(key.encode(), payload, hashlib.sha256).hexdigest().encode()


def test_a_heartbeat() -> None:
    assert unwrap(wrap(MESSAGE), KEY) == Heartbeat("amphora", 7, {"one": "OPEN"}, {"member": "UP"})


@pytest.mark.parametrize(
    ("envelope", "error"),
    [
        (wrap(MESSAGE, "another"), "wrong HMAC"),
        (b"y" + wrap(MESSAGE)[1:], "wrong HMAC"),
        (b"", "wrong HMAC"),
        (wrap(b"no JSON"), "cannot be read"),
        (wrap([]), "cannot be read"),
        (wrap({**MESSAGE, "listeners": []}), "cannot be read"),
        (wrap(b"[" + bytes(64 << 20)), "cannot be read"),
    ],
)
def test_what_is_not_believed(envelope: bytes, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        unwrap(envelope, KEY)


def udp(payload: bytes, *, to: str = MANAGER, port: int = PORT, **other: int) -> bytes:
    """Make an Ethernet frame with a datagram.

    :param other: "kind" of Ethernet frame, IP "protocol", "fragment" field, "options" length in bytes
    """
    datagram = struct.pack("!HHHH", 50000, port, 8 + len(payload), 0) + payload
    options = bytes(other.get("options", 0))
    words = 5 + len(options) // 4
    addresses = ipaddress.IPv4Address("10.0.2.15").packed + ipaddress.IPv4Address(to).packed
    protocol, fragment = other.get("protocol", 17), other.get("fragment", 0x4000)
    length = words * 4 + len(datagram)
    header = struct.pack("!BBHHHBBH", 0x40 | words, 0, length, 1, fragment, 64, protocol, 0) + addresses + options
    # Short frames are padded to 60 bytes on the wire.
    return (bytes(12) + struct.pack("!H", other.get("kind", 0x0800)) + header + datagram).ljust(60, b"\0")


def record(frame: bytes) -> bytes:
    return struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame


HEADER = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65536, 1)


def test_datagrams_are_found_among_other_frames(tmp_path: Path) -> None:
    path = tmp_path / "wire"
    capture = Capture(path, MANAGER)
    assert capture.datagrams() == []
    frames = [
        udp(b"1"),
        udp(b"port", port=53),
        udp(b"address", to="10.0.2.3"),
        udp(b"TCP", protocol=6),
        udp(b"fragment", fragment=0x2000),
        udp(b"ARP", kind=0x0806),
        b"short",
        udp(b"2" * 300, options=4),
    ]
    path.write_bytes(HEADER + b"".join(map(record, frames)))
    assert capture.datagrams() == [b"1", b"2" * 300]
    assert capture.datagrams() == []


def test_a_file_that_grows_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "wire"
    whole = HEADER + record(udp(b"1")) + record(udp(b"22"))
    capture, found = Capture(path, MANAGER), []
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        found += capture.datagrams()
    assert found == [b"1", b"22"]


def test_something_else_than_a_capture(tmp_path: Path) -> None:
    (tmp_path / "wire").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="no capture"):
        Capture(tmp_path / "wire", MANAGER).datagrams()


def test_what_arrives_at_the_controller() -> None:
    pairs = {address: socket.socketpair(type=socket.SOCK_DGRAM) for address in ("198.51.100.10", "2001:db8:b::10")}
    received = Received({address: near for address, (near, _) in pairs.items()})
    assert (received.datagrams(), received.silent()) == ([], list(pairs))
    for text in (b"1", b"2"):
        pairs["198.51.100.10"][1].send(text)
    assert (received.datagrams(), received.silent()) == ([b"1", b"2"], ["2001:db8:b::10"])
    pairs["2001:db8:b::10"][1].send(b"3")
    assert (received.datagrams(), received.silent()) == ([b"3"], [])
    for pair in pairs.values():
        for end in pair:
            end.close()
