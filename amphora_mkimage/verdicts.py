"""What was found out about this host by trial, kept until it reboots, in files that only this user can have written."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MAX_BYTES = 4096


def key(*parts: object) -> str:
    """Give the key of a verdict: it holds for this boot of the host, this user, and what ``parts`` name."""
    return " ".join([_BOOT_ID.read_text(encoding="ascii").strip(), *map(str, parts), str(os.geteuid())])


def recall(name: str, wanted: str) -> dict[str, Any] | None:
    """Return the fields of the verdict ``name`` that was kept for a key; None when there is none."""
    for directory in _directories():
        found = load(directory / f"{name}.json", wanted)
        if found is not None:
            return found
    return None


def keep(name: str, wanted: str, fields: dict[str, Any]) -> None:
    """Keep a verdict where possible: one that cannot be kept costs the next command another trial, nothing else."""
    for directory in _directories():
        with contextlib.suppress(OSError):
            save(directory / f"{name}.json", wanted, fields)
            break


def load(path: Path, wanted: str) -> dict[str, Any] | None:
    """Return what ``path`` holds, when it is for the key and nobody else can have written it."""
    try:
        # sudo keeps HOME on some systems: what root reads there was written by somebody else.
        if not _is_ours(path.parent.lstat()):
            return None
        # O_NONBLOCK: no waiting for the writer of a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or not _is_ours(status):
                return None
            content = json.loads(file.read(_MAX_BYTES))
        return content if isinstance(content, dict) and content.pop("key", None) == wanted else None
    except (OSError, ValueError):
        return None  # absent, or not of our making: the trial decides


def save(path: Path, wanted: str, fields: dict[str, Any]) -> None:
    """Write a verdict, complete or not at all.

    :raises OSError: it cannot be written
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(path.parent.lstat()):
        raise PermissionError(f"{path.parent} belongs to somebody else")
    descriptor, temporary = tempfile.mkstemp(prefix=f"{path.stem}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"key": wanted, **fields}, file)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _directories() -> Iterator[Path]:
    """Where verdicts may be kept, best first: a directory that vanishes with the session, or the user's cache."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():  # su and sudo let a variable through whose directory is gone
        yield Path(runtime) / "amphora-mkimage"
    cache = os.environ.get("XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):  # no home directory
        yield (Path(cache) if cache else Path.home() / ".cache") / "amphora-mkimage"


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
