"""HAProxy from the outside: which port its configuration listens on, and does it answer there?"""

from __future__ import annotations

import http.client
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from amphora_mkimage.boot.config_drive import FILES
from amphora_mkimage.errors import BadValueError

DEFAULT_CONFIG = FILES / "haproxy.cfg"
#: What the default configuration answers.
DEFAULT_ANSWER = b"amphora-mkimage: haproxy answers"

#: Addresses that stand for all of a family. Those of IPv6 take IPv4 too, unless they are told not to.
_ANY = {4: ("", "*", "0.0.0.0"), 6: ("::", "[::]")}  # noqa: S104 (compared with, not bound to)
_ADDRESS = re.compile(r"(?:ipv[46]@)?(?P<host>.*):(?P<port>\d+)(?:-\d+)?")
_SECTIONS = ("global", "defaults", "frontend", "backend", "listen")


@dataclass(frozen=True)
class Answer:
    """One HTTP answer.

    :param status: status code
    :param body: first 64 KiB of the body
    :param headers: by name in small letters
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def read_config(path: Path) -> str:
    """Read a configuration.

    :raises BadValueError: it cannot be read, or is not text
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadValueError(f"--haproxy-config {path}: {error}", "name a readable configuration of haproxy") from error


def http_port(config: str, guest: Mapping[int, str]) -> int:
    """Find the first port on which a configuration listens for plain HTTP where this host can reach it.

    :param guest: the guest's addresses by IP version; the first is where it is asked
    :raises BadValueError: there is none
    """
    for words in _binds(config):
        if "ssl" in words[2:]:
            continue
        for address in words[1].split(","):
            match = _ADDRESS.fullmatch(address)
            v6only = "v6only" in words[2:] or address.startswith("ipv6@")
            if match and match["host"] in _reachable(guest, v6only=v6only):
                return int(match["port"])
    raise BadValueError(
        "--haproxy-config: no frontend listens for plain HTTP on an address that this host can reach",
        "add a frontend with `bind *:80`",
    )


def _reachable(guest: Mapping[int, str], *, v6only: bool) -> tuple[str, ...]:
    """Return what may stand before the port so that a connection to the guest's first address arrives."""
    version, address = next(iter(guest.items()))
    if version == 6:
        return (*_ANY[6], address, f"[{address}]")
    return (*_ANY[4], address, *(() if v6only else _ANY[6]))


def _binds(config: str) -> Iterator[list[str]]:
    """Yield the words of each bind line of a proxy in HTTP mode."""
    section, default_mode, mode = "", "tcp", "tcp"
    pending: list[list[str]] = []
    for line in [*config.splitlines(), "end"]:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # unbalanced quotes: haproxy will say it better
        if not words:
            continue
        if words[0] in (*_SECTIONS, "end"):
            yield from pending if mode == "http" else []
            pending, section = [], words[0]
            default_mode = "tcp" if section == "defaults" else default_mode
            mode = default_mode
        elif words[0] == "mode" and len(words) > 1:
            mode = words[1]
            default_mode = mode if section == "defaults" else default_mode
        elif words[0] == "bind" and len(words) > 1:
            pending.append(words)


def ask(port: int, timeout: float) -> Answer:
    """Request ``/``.

    :param port: port on 127.0.0.1
    :param timeout: seconds
    :raises OSError: no connection, or no answer in time
    :raises ValueError: something answered that is not HTTP
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/", headers={"Host": "amphora", "User-Agent": "amphora-mkimage"})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, answer.read(65536), headers)
    except http.client.RemoteDisconnected:
        raise  # also a ConnectionResetError: qemu accepts for the guest, and hangs up when the guest refuses
    except http.client.HTTPException as error:
        raise ValueError(f"the answer is not HTTP: {error!r}") from error
    finally:
        connection.close()
