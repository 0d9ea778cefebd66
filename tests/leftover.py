"""Processes that a test starts, known by a word in their environment, and the wait for their end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

#: How long what is left of a killed build may take to end, on a loaded machine.
SECONDS = 60


def processes() -> Iterator[Path]:
    """Every process but this one."""
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) != os.getpid())


def environ_has(process: Path, marker: bytes) -> bool:
    """Tell whether a process has a marker in its environment; one that is gone has not."""
    try:
        return marker in (process / "environ").read_bytes()
    except OSError:
        return False


def marked(marker: bytes) -> Iterator[Path]:
    """Processes that a build started, and those of libguestfs that qemu's end brings to theirs."""
    return (process for process in processes() if environ_has(process, marker))


def wait_until(condition: Callable[[], bool]) -> bool:
    """Wait for a condition; False when it did not come true in time."""
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
