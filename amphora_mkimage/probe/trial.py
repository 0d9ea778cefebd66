"""Try something in a forked child, so that neither a crash nor a hang of it reaches us."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import select
import signal
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable
from typing import IO, NoReturn, TypeVar, cast

from amphora_mkimage.errors import MkimageError

T = TypeVar("T")
_TAIL_LINES = 20
_GRACE_SECONDS = 5.0


def attempt(function: Callable[[], T], deadline: float) -> T:
    """Call a function in a child of ours and return what it returns; what it prints is kept for errors.

    :param deadline: seconds after which the function is interrupted, so that it can end what it started; when that
        does not help, the child is killed
    :raises MkimageError: it did not end in time, or died; the tail has what it printed
    :raises Exception: what the function raised
    """
    with tempfile.TemporaryFile() as printed:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            _child(function, deadline, write, printed)
        os.close(write)
        try:
            with open(read, "rb") as stream:  # noqa: PTH123 (a descriptor)
                data = _receive(stream, deadline + _GRACE_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        tail = _tail(printed)
    if data is None:
        raise MkimageError(_late(deadline), tail=tail)
    if not data:
        raise MkimageError(f"the trial {_ending(status)}", tail=tail)
    # The peer is our own forked child, so the pickle is as trusted as this process.
    good, value = pickle.loads(data)  # noqa: S301
    if good:
        return cast(T, value)
    if isinstance(value, MkimageError) and not value.tail:
        value.tail = tuple(tail)
    raise cast(Exception, value)


def _child(function: Callable[[], object], deadline: float, write: int, printed: IO[bytes]) -> NoReturn:
    status = 1
    try:
        os.setsid()
        for fd in (1, 2):
            os.dup2(printed.fileno(), fd)
        # Python's own objects may be somebody's replacement that does not end in these descriptors.
        sys.stdout = sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGALRM, functools.partial(_too_late, deadline))
        signal.setitimer(signal.ITIMER_REAL, deadline)
        try:
            answer: tuple[bool, object] = (True, function())
        except Exception as error:
            # Nothing but the caller can judge it. Whatever it carries beyond its text may not be picklable.
            answer = (False, error if isinstance(error, MkimageError | OSError | ImportError) else _plain(error))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        with open(write, "wb") as stream:
            pickle.dump(answer, stream)
        status = 0
    except BaseException:  # the last frame of a process: nothing above could report it
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


def _too_late(deadline: float, _signal: int, _frame: types.FrameType | None) -> None:
    raise MkimageError(_late(deadline))


def _late(deadline: float) -> str:
    return f"it did not end within {deadline:.0f} s"


def _plain(error: Exception) -> Exception:
    return RuntimeError(f"{type(error).__name__}: {error}")


def _receive(stream: IO[bytes], deadline: float) -> bytes | None:
    """Read to the end; None when the deadline passes."""
    end = time.monotonic() + deadline
    data = b""
    while (left := end - time.monotonic()) > 0:
        if select.select([stream], [], [], left)[0]:
            chunk = os.read(stream.fileno(), 65536)
            if not chunk:
                return data
            data += chunk
    return None


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else "ended without a result"


def _tail(printed: IO[bytes]) -> list[str]:
    printed.seek(0)
    return [line for line in printed.read().decode(errors="replace").splitlines() if line.strip()][-_TAIL_LINES:]
