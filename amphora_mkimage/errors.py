"""Exit statuses and the one exception that users see.

The statuses are those of Octavia's ``diskimage-create.sh`` where it has one (3 for a bad value) and the shell's for an
interrupt; scripts that wrapped the old tool keep working.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitStatus(IntEnum):
    """What the process returns."""

    OK = 0  #: built, or verified and complete
    FAILED = 1  #: the build failed, or the image is not complete
    HOST = 2  #: this host cannot do it
    BAD_VALUE = 3  #: a flag or variable has a value that cannot be used
    INTERRUPTED = 130  #: SIGINT or SIGTERM


class MkimageError(Exception):
    """A failure told to the user: what failed, what to do, and the evidence.

    :param what: one line that says what failed
    :param remedy: one line that says what to do about it, or "" when nothing useful can be said
    :param tail: the last lines that the failing command printed, without secrets
    :param log: path of the full log; filled in by :mod:`amphora_mkimage.cli` when there is one
    :param trace: where in our code it happened; for the log only
    """

    status = ExitStatus.FAILED

    def __init__(
        self, what: str, remedy: str = "", *, tail: Sequence[str] = (), log: str = "", trace: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.tail = tuple(tail)
        self.log = log
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not pickle by themselves, and this one crosses a process boundary.
        return (_rebuild, (type(self), self.what, self.remedy, self.tail, self.log, self.trace))


class HostError(MkimageError):
    """The host lacks something that the work needs."""

    status = ExitStatus.HOST


class BadValueError(MkimageError):
    """The user gave a value that cannot be used; raised before any work."""

    status = ExitStatus.BAD_VALUE


class DefectError(MkimageError):
    """Our own code is wrong; its users can but report it."""


class InterruptedBuildError(MkimageError):
    """SIGINT or SIGTERM arrived."""

    status = ExitStatus.INTERRUPTED


def _rebuild(
    cls: type[MkimageError], what: str, remedy: str, tail: Sequence[str], log: str, trace: str
) -> MkimageError:
    return cls(what, remedy, tail=tail, log=log, trace=trace)
