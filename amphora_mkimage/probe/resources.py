"""Is there the memory that a build in a tmpfs takes, and can outputs appear out of nowhere in this directory?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from amphora_mkimage.console import Console
from amphora_mkimage.probe.outcome import Outcome, Result
from amphora_mkimage.workplace import TMPFS_BYTES

_GIB = 1 << 30
_CGROUPS = Path("/sys/fs/cgroup")


def memory(_console: Console) -> Outcome:
    """Compare what a build in memory takes with what the host has available and the cgroup allows."""
    wanted = f"a build in memory takes {TMPFS_BYTES / _GIB:.1f} GiB"
    available = _available()
    if available < TMPFS_BYTES:
        reason = f"{available / _GIB:.1f} GiB are available, {wanted}: it works on disk, slower"
        return Outcome(Result.LIMITED, reason, "free some memory")
    limit = min(memory_limits(), default=None)
    if limit is not None and limit < TMPFS_BYTES:
        reason = f"the control group allows {limit / _GIB:.1f} GiB, {wanted}"
        return Outcome(Result.LIMITED, reason, "raise its limit, or build on disk with -f")
    return Outcome(Result.OK, f"{available / _GIB:.1f} GiB available, {wanted}")


def unnamed_files(_console: Console) -> Outcome:
    """Make a file without a name here and give it one, as outputs get theirs."""
    here = Path.cwd()
    final = here / f".amphora-mkimage-check-{os.getpid()}"
    try:
        fd = os.open(here, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if not os.access(here, os.W_OK):
            return Outcome(Result.LIMITED, f"{here} is not writable", "name another place for the image with -o")
        reason = f"the filesystem of {here} has no O_TMPFILE ({error.strerror}): SIGKILL leaves a hidden file behind"
        return Outcome(Result.LIMITED, reason, "name a place for the image on a local filesystem with -o")
    try:
        os.link(f"/proc/self/fd/{fd}", final, src_dir_fd=fd, follow_symlinks=True)
        final.unlink()
    except OSError as error:
        reason = f"a file without a name cannot get one in {here}: {error.strerror}"
        return Outcome(Result.MISSING, reason, "name a place for the image on another filesystem with -o")
    finally:
        os.close(fd)
    return Outcome(Result.OK, f"images appear complete or not at all in {here}")


def _available() -> int:
    """Bytes of memory that can be had without swapping (proc(5), MemAvailable)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def memory_limits(membership: Path = Path("/proc/self/cgroup"), mounts: Path = _CGROUPS) -> Iterator[int]:
    """Give the limits, in bytes, that the control groups above us set on memory (cgroups(7)).

    :param membership: a file such as /proc/self/cgroup
    :param mounts: where control groups are mounted
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            places, name = [mounts, mounts / "unified"], "memory.max"
        elif "memory" in controllers.split(","):
            places, name = [mounts / "memory"], "memory.limit_in_bytes"
        else:
            continue
        # A limit on any ancestor counts. In a container the path may be the host's, and only the top exist here.
        group = Path(path.lstrip("/"))
        for place in places:
            for directory in (group, *group.parents):
                yield from _limit(place / directory / name)


def _limit(file: Path) -> Iterator[int]:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return
    if text.isdigit():  # or "max"; version 1 writes a huge number instead
        yield int(text)
