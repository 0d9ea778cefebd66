"""What a probe found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Result(StrEnum):
    """How a probe ended."""

    OK = "ok"
    LIMITED = "limited"  #: work goes on without it, slower or with less choice
    MISSING = "missing"  #: what needs it cannot work
    FAILED = "failed"  #: the probe itself broke, so nobody knows; counts as missing


class Need(StrEnum):
    """What a probed thing is needed for."""

    BUILD = "build"
    VERIFY = "verify"
    BOOT = "boot"


@dataclass(frozen=True)
class Outcome:
    """What a probe function returns.

    :param reason: one line: what works, or why it does not
    :param remedy: one line that says what to do about it, or ""
    """

    result: Result
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class Probe:
    """One line of the report.

    :param name: the thing that was tried
    :param needed_for: what cannot be done without it
    :param result: see :class:`Result`
    :param reason: one line: what works, or why it does not
    :param remedy: one line that says what to do about it, or ""
    """

    name: str
    needed_for: tuple[Need, ...]
    result: Result
    reason: str
    remedy: str = ""
