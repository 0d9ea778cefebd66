"""Heartbeats of the amphora agent, read from the wire.

qemu writes every frame of the management network to a file (``-object filter-dump``; libpcap's format,
draft-ietf-opsawg-pcap). So the guest needs no way to this host to be heard: the network drops what it sends, after it
was written down.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: The health manager's address, qemu's side of the management network, and Octavia's port for it.
MANAGER, PORT = "10.0.2.2", 5555

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


class Capture:
    """Reads the frames of a network from a file that qemu appends to.

    :param path: the file; need not exist yet
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def datagrams(self) -> list[bytes]:
        """Return the payloads of the datagrams to the health manager that came since the last call.

        :raises ValueError: the file is none of qemu's
        """
        return [payload for frame in self.frames() for payload in _payload(frame)]

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


def _payload(frame: bytes) -> Iterator[bytes]:
    """Yield the payload when a frame is an unfragmented datagram to the health manager (RFC 791, RFC 768)."""
    packet = frame[_ETHERNET:]
    if len(packet) < 20 or int.from_bytes(frame[12:14], "big") != _IPV4 or packet[9] != _UDP:
        return
    start = (packet[0] & 0xF) * 4
    fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
    if fragment or packet[16:20] != ipaddress.IPv4Address(MANAGER).packed or len(packet) < start + 8:
        return
    port, length = struct.unpack_from("!HH", packet, start + 2)
    if port == PORT:
        yield packet[start + 8 : start + length]
