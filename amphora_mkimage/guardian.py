"""A process that outlives this one by a moment, to remove what it leaves when it is killed.

SIGKILL gives no chance to clean up. A build's namespace does that itself (:mod:`amphora_mkimage.guest.userns`); what
runs outside of one, libguestfs among it, has a directory with a disk and sockets.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TRIES, _PAUSE_SECONDS = 100, 0.05


@contextlib.contextmanager
def guarded(directory: Path, then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Have a directory removed when this process ends inside the block, however it ends.

    At the end of the block nothing is removed: the caller does that, and knows what failed.

    :param then: what else is to be done in that case
    """
    # Close-on-exec: the programs that this process starts do not hold the pipe open.
    reader, writer = os.pipe()
    # Blocked until the child ignores them: neither Ctrl-C nor the terminal's end is for it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        child = os.fork()
        if child == 0:
            _guard(directory, then, reader, writer)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(reader)
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):
            os.write(writer, b"d")
        os.close(writer)
        os.waitpid(child, 0)


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """Give a directory for temporary files ($TMPDIR) that goes with the block or with this process."""
    with tempfile.TemporaryDirectory(prefix="amphora-mkimage-") as name, guarded(Path(name)):
        yield Path(name)


def _guard(directory: Path, then: Callable[[], None], reader: int, writer: int) -> None:
    """Wait for the end of the process or of the block; never returns."""
    try:
        os.setsid()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        os.close(writer)
        if os.read(reader, 1) == b"":
            remove(directory)
            then()
    finally:
        os._exit(0)


def remove(directory: Path) -> None:
    """Remove a directory that others may still be writing to: what was just killed, or another thread."""
    for _ in range(_TRIES):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        open_up(directory)
        time.sleep(_PAUSE_SECONDS)


def open_up(directory: Path) -> None:
    """Let ourselves into every directory below one: a base image's may have any mode, and files of it are taken out."""
    for place, names, _ in os.walk(directory):
        for name in names:
            path = Path(place, name)
            if not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.chmod(0o700)
