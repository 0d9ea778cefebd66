"""What a check is, and what it can find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amphora_mkimage.verify.subject import Subject


#: Why a check of the disk has nothing to look at in a tar.
NO_DISK = "a root filesystem for containers has none"


class Result(StrEnum):
    """How a check ended, worst last (see :func:`worst`)."""

    NOT_APPLICABLE = "not-applicable"  #: this kind of image has no such thing, or it could not be looked at
    PASS = "pass"  # noqa: S105 (no password)
    INFO = "info"  #: worth knowing
    WARN = "warn"  #: the amphora works, but not in every case or not as asked
    FAIL = "fail"  #: Octavia cannot use this image as an amphora, or it gives something away


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    :param detail: what, in one line
    :param remedy: what to do about it, in one line, or ""
    """

    result: Result
    detail: str
    remedy: str = ""


def passed(detail: str) -> Finding:
    """Tell what is right; a check that finds nothing at all passes as well."""
    return Finding(Result.PASS, detail)


def info(detail: str) -> Finding:
    """Tell something worth knowing."""
    return Finding(Result.INFO, detail)


def warn(detail: str, remedy: str = "") -> Finding:
    """Tell what limits the amphora."""
    return Finding(Result.WARN, detail, remedy)


def fail(detail: str, remedy: str = "") -> Finding:
    """Tell what makes the image no complete amphora."""
    return Finding(Result.FAIL, detail, remedy)


def not_applicable(detail: str) -> Finding:
    """Tell why there was nothing to check."""
    return Finding(Result.NOT_APPLICABLE, detail)


@dataclass(frozen=True)
class Check:
    """One row of the table of checks.

    :param id: stable name for machines ("boot.kernel")
    :param group: heading under which people see it
    :param title: what is right when it passes
    :param function: looks, and yields what it finds; never stops at the first defect
    :param guest: it looks into the operating system, so there must be one
    :param disk: it looks at what a tar of a root filesystem does not have
    :param in_build: it costs little and needs the tree only, so that each build runs it on its own; None: if it looks
        at the guest, and not at a disk
    """

    id: str
    group: str
    title: str
    function: Callable[[Subject], Iterable[Finding]]
    guest: bool = True
    disk: bool = False
    in_build: bool | None = None

    @property
    def cheap(self) -> bool:
        """Tell whether a build runs it on its own tree."""
        return self.guest and not self.disk if self.in_build is None else self.in_build


@dataclass(frozen=True)
class Outcome:
    """A check with what it found."""

    check: Check
    findings: tuple[Finding, ...]

    @property
    def result(self) -> Result:
        """The worst of the findings; a check without findings passes."""
        return worst([finding.result for finding in self.findings] or [Result.PASS])


def worst(results: Iterable[Result]) -> Result:
    """Give the worst of some results."""
    order = list(Result)
    return max(results, key=order.index)


def some(names: list[str], shown: int = 5) -> str:
    """Name the first few and count the rest."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
