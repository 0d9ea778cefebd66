"""End an appliance that takes too long, that the user interrupts, or that fills the disk it writes to.

A call of libguestfs cannot be cancelled, and Python runs no signal handler before it returns: Ctrl-C would wait for the
end of a launch, and a filesystem that keeps the appliance's kernel busy would keep us for ever. Without its qemu the
call fails at once. Another thread cannot ask the handle for qemu's process id, because the call under way holds its
lock; so it is looked up among our children.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

#: Bytes that must stay free where an appliance writes; as much as it writes between two looks, and a little more.
_ROOM = 64 << 20
_LOOK_SECONDS = 0.5
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Watchdog:
    """Kills the qemu processes that are our children, when the deadline passes or an interrupt arrives.

    :param deadline: seconds from :meth:`start`
    :param written: a file that the appliance writes; when its filesystem is full, qemu would stop the appliance and
        wait for ever for somebody to make room (qemu(1), werror=enospc)
    """

    def __init__(self, deadline: float, written: Path | None = None) -> None:
        self.expired = False
        self.full = False
        self._deadline = deadline
        self._written = written
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._previous: int | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        # Only the main thread gets signals, so elsewhere there is none to watch for (signal.set_wakeup_fd).
        with contextlib.suppress(ValueError):
            self._previous = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        if self._previous is not None:
            signal.set_wakeup_fd(self._previous)
            self._previous = None
        if self._thread.is_alive():
            os.write(self._writer, b"\0")  # no signal has this number
            self._thread.join()
        for descriptor in (self._reader, self._writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._reader = self._writer = -1

    def _watch(self) -> None:
        end = time.monotonic() + self._deadline
        numbers = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            # Other signals that Python handles arrive here, too.
            while not any(number in _INTERRUPTS for number in numbers):
                left = max(0.0, end - time.monotonic())
                if not selector.select(left if self._written is None else min(left, _LOOK_SECONDS)):
                    self.expired = time.monotonic() >= end
                    self.full = self._is_full()
                    if self.expired or self.full:
                        break
                    continue
                numbers = os.read(self._reader, 64)
                if 0 in numbers:
                    return
        for pid in _own_qemus():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _is_full(self) -> bool:
        if self._written is None:
            return False
        try:
            space = os.statvfs(self._written)
        except OSError:
            return False  # somebody removed it; qemu has it open and goes on
        return space.f_bavail * space.f_frsize < _ROOM


def _own_qemus() -> Iterator[int]:
    """Find our children that are qemu (proc(5), /proc/pid/stat and status).

    /proc may be that of an outer pid namespace (a build's, see :mod:`amphora_mkimage.guest.userns`): there, all numbers
    are the outer ones, and only NSpid has the one that kill(2) takes here.
    """
    own = str(Path("/proc/self").readlink())
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = path.read_text().partition(" (")
            name, _, fields = rest.rpartition(") ")
            if fields.split()[1] == own and name.startswith("qemu"):
                status = path.with_name("status").read_text()
                yield int(status.partition("\nNSpid:")[2].partition("\n")[0].split()[-1])
        except OSError:
            continue  # it ended meanwhile
