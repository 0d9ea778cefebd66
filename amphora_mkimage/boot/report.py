"""What the guest reports, read from the lines that files/reporter.py writes.

The guest is not trusted: a field of the wrong type counts as missing, and text is made fit for a terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from amphora_mkimage.boot.guest_network import Card, GuestNetwork
from amphora_mkimage.boot.text import clean

_MAX_LINES = 40
_MAX_WIDTH = 500
_BLAME = re.compile(r"\s*(?P<time>(?:[\d.]+(?:h|min|s|ms|us)\s)+)(?P<unit>\S+)")
_PART = re.compile(r"([\d.]+)(h|min|s|ms|us)\b")
_SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True)
class FailedUnit:
    """A unit in the failed state and the end of its journal."""

    unit: str
    journal: tuple[str, ...]


@dataclass(frozen=True)
class Haproxy:
    """What became of haproxy inside the guest.

    :param version: first line of ``haproxy -v``
    :param valid: the configuration was accepted
    :param started: the service started
    :param output: last lines that haproxy printed
    """

    version: str
    valid: bool
    started: bool
    output: tuple[str, ...]


@dataclass(frozen=True)
class CloudInit:
    """What became of cloud-init.

    :param datasource: where it found its data
    :param errors: what failed
    :param runcmd: the user data's runcmd was run
    """

    datasource: str
    errors: tuple[str, ...]
    runcmd: bool


@dataclass(frozen=True)
class Facts:
    """What is known when the system is up.

    :param phases: seconds of each phase, as ``systemd-analyze time`` computes them
    """

    kernel: str
    os: str
    failed: tuple[FailedUnit, ...]
    cloud_init: CloudInit
    phases: dict[str, float]


@dataclass
class GuestReport:
    """All that the guest told so far; feed it with :meth:`take`."""

    started: bool = False  #: cloud-init ran our user data
    agent: str | None = None  #: the amphora agent's unit, when the image enables one
    jobs: tuple[str, ...] = ()  #: units that were still starting when last heard of
    state: str = ""  #: what ``systemctl is-system-running --wait`` said in the end
    facts: Facts | None = None
    network: GuestNetwork | None = None  #: cards and routes when the system was up
    haproxy: Haproxy | None = None
    blame: tuple[tuple[str, float], ...] = ()  #: the slowest units and their seconds
    error: str = ""  #: why the reporter could not do its work
    complete: bool = False
    later: tuple[FailedUnit, ...] = ()  #: units that failed while the agent was driven, and before
    deleted: bool = False  #: :attr:`later` is of after the deletion of the load balancer
    garbage: list[str] = field(default_factory=list)  #: lines that are no events

    def take(self, line: str) -> None:
        """Take one line."""
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self.garbage.append(line[:_MAX_WIDTH])
            return
        reader = _READERS.get(str(event.get("event")))
        if reader is not None:
            reader(self, event)


def _started(report: GuestReport, event: Mapping[str, Any]) -> None:
    report.started, report.agent = True, _text(event, "agent") or None


def _waiting(report: GuestReport, event: Mapping[str, Any]) -> None:
    report.jobs = _texts(event, "jobs")


def _running(report: GuestReport, event: Mapping[str, Any]) -> None:
    report.state, report.jobs = _text(event, "state"), ()


def _haproxy(report: GuestReport, event: Mapping[str, Any]) -> None:
    started, valid = event.get("started") is True, event.get("valid") is True
    report.haproxy = Haproxy(_text(event, "version"), valid, started, _texts(event, "output"))


def _blame(report: GuestReport, event: Mapping[str, Any]) -> None:
    report.blame = tuple(filter(None, map(_blamed, _texts(event, "blame"))))


def _error(report: GuestReport, event: Mapping[str, Any]) -> None:
    report.error = _text(event, "text") or "unknown error"


def _end(report: GuestReport, _event: Mapping[str, Any]) -> None:
    report.complete = True


def _facts(report: GuestReport, event: Mapping[str, Any]) -> None:
    cloud_init = _mapping(event, "cloud_init")
    report.facts = Facts(
        kernel=_text(event, "kernel"),
        os=_text(event, "os"),
        failed=_failed(event),
        cloud_init=CloudInit(
            datasource=_text(cloud_init, "datasource"),
            errors=_texts(cloud_init, "errors"),
            runcmd=cloud_init.get("runcmd") is True,
        ),
        phases=phases(_mapping(event, "timestamps")),
    )


def _network(report: GuestReport, event: Mapping[str, Any]) -> None:
    cards, routes = event.get("cards"), _mapping(event, "routes")
    rows = [row for row in cards[:_MAX_LINES] if isinstance(row, dict)] if isinstance(cards, list) else []
    report.network = GuestNetwork(
        tuple(Card(_text(row, "name"), _text(row, "mac"), _number(row, "mtu")) for row in rows),
        {version: tuple(line.strip() for line in _texts(routes, f"ipv{version}")) for version in (4, 6)},
        _texts(event, "namespace"),
    )


def _units(report: GuestReport, event: Mapping[str, Any]) -> None:
    report.later, report.deleted = _failed(event), event.get("deleted") is True


def _failed(event: Mapping[str, Any]) -> tuple[FailedUnit, ...]:
    units = event.get("failed")
    failed = [unit for unit in units[:_MAX_LINES] if isinstance(unit, dict)] if isinstance(units, list) else []
    return tuple(FailedUnit(_text(unit, "unit"), _texts(unit, "journal")) for unit in failed)


def phases(timestamps: Mapping[str, Any]) -> dict[str, float]:
    """Compute the seconds of each phase of the boot.

    :param timestamps: microseconds of the manager's monotonic timestamps, as in ``systemctl show``. Those of firmware
        and loader count back from the start of the kernel; a phase that did not happen is 0, and is left out here
    """
    at = {key: value for key, value in timestamps.items() if isinstance(value, int) and value > 0}
    userspace, finish = at.get("userspace", 0), at.get("finish", 0)
    initrd, loader = at.get("initrd", 0), at.get("loader", 0)
    durations = {
        "firmware": at.get("firmware", 0) - loader,
        "loader": loader,
        "kernel": initrd or userspace,
        "initrd": userspace - initrd if initrd else 0,
        "userspace": finish - userspace,
    }
    return {name: round(value / 1e6, 3) for name, value in durations.items() if value > 0}


def _blamed(line: str) -> tuple[str, float] | None:
    """Parse a line of ``systemd-analyze blame``: "1min 2.345s some.service"."""
    match = _BLAME.fullmatch(line)
    if match is None:
        return None
    return match["unit"], round(sum(float(n) * _SECONDS[unit] for n, unit in _PART.findall(match["time"])), 3)


def _mapping(event: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = event.get(key)
    return value if isinstance(value, dict) else {}


def _text(event: Mapping[str, Any], key: str) -> str:
    value = event.get(key)
    return clean(value)[:_MAX_WIDTH].strip() if isinstance(value, str) else ""


def _number(event: Mapping[str, Any], key: str) -> int:
    value = event.get(key)
    return value if isinstance(value, int) else 0


def _texts(event: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = event.get(key)
    items = value if isinstance(value, list) else []
    return tuple(clean(item)[:_MAX_WIDTH] for item in items[:_MAX_LINES] if isinstance(item, str))


_READERS: dict[str, Callable[[GuestReport, Mapping[str, Any]], None]] = {
    "started": _started,
    "waiting": _waiting,
    "running": _running,
    "facts": _facts,
    "network": _network,
    "haproxy": _haproxy,
    "blame": _blame,
    "error": _error,
    "end": _end,
    "units": _units,
}
