"""Heartbeats of the amphora agent, read from the wire or from the controller's own sockets.

qemu writes every frame of the management network to a file (``-object filter-dump``; libpcap's format,
draft-ietf-opsawg-pcap). So in qemu's user network the guest needs no way to this host to be heard: the network drops
what it sends, after it was written down. Behind a router (:mod:`amphora_mkimage.boot.router`) they have to arrive.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import json
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: Octavia's port of the health manager.
PORT = 5555
#: The largest datagram.
_DATAGRAM = 65536

_FILE_HEADER, _RECORD_HEADER = struct.Struct("=IHHiIII"), struct.Struct("=IIII")
_MAGIC = 0xA1B2C3D4
_ETHERNET, _IPV4, _UDP = 14, 0x0800, 17
_DIGEST = 64  #: hexadecimal digits of an SHA-256
_MAX_TEXT = 1 << 20


@dataclass(frozen=True)
class Heartbeat:
    """What one heartbeat says.

    :param amphora_id: who sends it
    :param sequence: its number
    :param listeners: state ("OPEN") by identifier
    :param members: state ("UP", "no check") by identifier, of all pools
    """

    amphora_id: str
    sequence: int
    listeners: dict[str, str]
    members: dict[str, str]


def unwrap(envelope: bytes, key: str) -> Heartbeat:
    """Check and read a heartbeat: compressed JSON, and its HMAC (SHA-256) in hexadecimal digits.

    The format: octavia/amphorae/backends/health_daemon/status_message.py.

    :raises ValueError: it was not made with this key, or is no heartbeat
    """
    payload, digest = envelope[:-_DIGEST], envelope[-_DIGEST:]
    if not hmac.compare_digest(digest, hmac.new(key.encode(), payload, hashlib.sha256).hexdigest().encode()):
        raise ValueError("a heartbeat has a wrong HMAC")
    try:
        document = json.loads(zlib.decompressobj().decompress(payload, _MAX_TEXT))
        pools = document["pools"].values()
        return Heartbeat(
            amphora_id=str(document["id"]),
            sequence=int(document["seq"]),
            listeners={str(name): str(listener["status"]) for name, listener in document["listeners"].items()},
            members={str(name): str(state) for pool in pools for name, state in pool["members"].items()},
        )
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a heartbeat cannot be read: {error!r}") from error


class Heartbeats(Protocol):
    """Where heartbeats come in."""

    def datagrams(self) -> list[bytes]:
        """Return what came since the last call."""

    def silent(self) -> list[str]:
        """Return the controller's addresses to which nothing came yet, each of which has to be reached."""


class Received:
    """Reads what arrives at the controller.

    :param sockets: by their address
    """

    def __init__(self, sockets: Mapping[str, socket.socket]) -> None:
        self.sockets = sockets
        self._heard: set[str] = set()

    def datagrams(self) -> list[bytes]:
        """Return the datagrams that came since the last call."""
        found = []
        for address, endpoint in self.sockets.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.append(endpoint.recv(_DATAGRAM, socket.MSG_DONTWAIT))
                    self._heard.add(address)
        return found

    def silent(self) -> list[str]:
        """Return the addresses at which nothing arrived yet."""
        return [address for address in self.sockets if address not in self._heard]


class Capture:
    """Reads the frames of a network from a file that qemu appends to.

    :param path: the file; need not exist yet
    :param manager: address of the health manager (IPv4)
    """

    def __init__(self, path: Path, manager: str) -> None:
        self.path, self.manager = path, ipaddress.IPv4Address(manager)
        self._read = 0

    def datagrams(self) -> list[bytes]:
        """Return the payloads of the datagrams to the health manager that came since the last call.

        :raises ValueError: the file is none of qemu's
        """
        return [payload for frame in self.frames() for payload in _payload(frame, self.manager)]

    def silent(self) -> list[str]:
        """Return nothing: there is one address, and what is on the wire was sent to it."""
        return []

    def frames(self) -> list[bytes]:
        """Return the frames that came since the last call.

        :raises ValueError: the file is none of qemu's
        """
        try:
            with self.path.open("rb") as file:
                if self._read == 0:
                    header = file.read(_FILE_HEADER.size)
                    if len(header) < _FILE_HEADER.size:
                        return []
                    if _FILE_HEADER.unpack(header)[0] != _MAGIC:
                        raise ValueError(f"{self.path} is no capture of this machine")
                    self._read = _FILE_HEADER.size
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return []
        return list(self._complete(data))

    def _complete(self, data: bytes) -> Iterator[bytes]:
        """Yield the complete frames; what qemu is still writing is read the next time."""
        at = 0
        while at + _RECORD_HEADER.size <= len(data):
            length = _RECORD_HEADER.unpack_from(data, at)[2]
            end = at + _RECORD_HEADER.size + length
            if end > len(data):
                break
            yield data[at + _RECORD_HEADER.size : end]
            at = end
        self._read += at


def _payload(frame: bytes, manager: ipaddress.IPv4Address) -> Iterator[bytes]:
    """Yield the payload when a frame is an unfragmented datagram to the health manager (RFC 791, RFC 768)."""
    packet = frame[_ETHERNET:]
    if len(packet) < 20 or int.from_bytes(frame[12:14], "big") != _IPV4 or packet[9] != _UDP:
        return
    start = (packet[0] & 0xF) * 4
    fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
    if fragment or packet[16:20] != manager.packed or len(packet) < start + 8:
        return
    port, length = struct.unpack_from("!HH", packet, start + 2)
    if port == PORT:
        yield packet[start + 8 : start + length]
