"""How much memory a build may use, and whether the kernel killed something for want of it.

What decides is the smallest of what the host has and of what every control group above us allows (cgroups(7)): a
container's or a CI runner's limit counts what is in a tmpfs, too. Both versions of control groups are read, whichever
are mounted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.errors import BadValueError, HostError, MkimageError

#: Memory that a build in a tmpfs takes: the tree, the packages, the disk's written blocks; measured in docs/time.md.
TMPFS_BYTES = 3 << 30

_GIB = 1 << 30
_HOST = "this host"
#: What the kernel takes back when it is needed: pages of files on disk. (A tmpfs' pages count as anonymous.)
_RECLAIMABLE = {
    "memory.max": ("active_file", "inactive_file"),
    "memory.limit_in_bytes": ("total_active_file", "total_inactive_file"),
}


@dataclass(frozen=True)
class Source:
    """What says how much memory there is.

    :param name: for messages: "this host", "the control group x"
    :param free: bytes that can still be had
    """

    name: str
    free: int

    def __str__(self) -> str:
        return f"{self.name} has {self.free / _GIB:.1f} GiB free"

    @property
    def of_host(self) -> bool:
        """Whether it is the host, not a control group."""
        return self.name == _HOST

    @property
    def enough(self) -> bool:
        """Whether a build fits in memory."""
        return self.free >= TMPFS_BYTES


@dataclass(frozen=True)
class Group:
    """A control group of memory that we are in, or one above it.

    :param directory: its files
    :param limit: name of the file with its limit, which tells the version of control groups
    """

    directory: Path
    limit: str

    @property
    def allows(self) -> int | None:
        """Bytes that its limit is, or None."""
        limits = [_number(self.directory / self.limit)]
        if self.limit == "memory.max":
            limits.append(_number(self.directory / "memory.high"))  # what goes above it is all but stopped
        else:  # of those above, which a container does not see
            limits.append(_fields(self.directory / "memory.stat").get("hierarchical_memory_limit"))
        return min((number for number in limits if number is not None), default=None)

    @property
    def free(self) -> int | None:
        """Bytes that its processes can still have; None without a limit."""
        allowed = self.allows
        if allowed is None:
            return None
        used = _number(self.directory / ("memory.current" if self.limit == "memory.max" else "memory.usage_in_bytes"))
        stat = _fields(self.directory / "memory.stat")
        return max(0, allowed - (used or 0) + sum(stat.get(name, 0) for name in _RECLAIMABLE[self.limit]))

    @property
    def kills(self) -> int:
        """How often the kernel killed something in it for want of memory."""
        file = "memory.events" if self.limit == "memory.max" else "memory.oom_control"
        return _fields(self.directory / file).get("oom_kill", 0)


def available(proc: Path = Path("/proc"), mounts: Path = Path("/sys/fs/cgroup")) -> Source:
    """Return what allows least memory.

    :param proc: has meminfo and self/cgroup
    :param mounts: where control groups are mounted
    """
    host = _fields(proc / "meminfo").get("MemAvailable:", 0) * 1024  # without swapping (proc(5))
    found = [Source(_HOST, host)]
    for group in groups(proc, mounts):
        free = group.free
        if free is not None:
            name = group.directory.relative_to(mounts).as_posix()
            found.append(Source(f"the control group {name}", free))
    return min(found, key=lambda source: source.free)


def groups(proc: Path = Path("/proc"), mounts: Path = Path("/sys/fs/cgroup")) -> Iterator[Group]:
    """Return the control groups of memory that we are in, innermost first, of both versions."""
    try:
        lines = (proc / "self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            places, limit = [mounts, mounts / "unified"], "memory.max"
        elif "memory" in controllers.split(","):
            places, limit = [mounts / "memory"], "memory.limit_in_bytes"
        else:
            continue
        # A limit on any ancestor counts. In a container the path may be the host's, and only the top exist here.
        group = Path(path.lstrip("/"))
        for place in places:
            for directory in (group, *group.parents):
                if (place / directory / limit).exists():
                    yield Group(place / directory, limit)


@contextlib.contextmanager
def explained(*, in_tmpfs: bool) -> Iterator[None]:
    """Say that memory ran out where what failed in the block did so because of that.

    :param in_tmpfs: the block works in memory
    """
    watch = Watch()
    try:
        yield
    except MkimageError as error:
        who = watch.killed()
        # Elsewhere on this host somebody else may be the one; in our control group it is hardly a coincidence.
        ours = who != _HOST or "killed" in " ".join((error.what, *error.tail)).lower()
        if isinstance(error, BadValueError | HostError) or not who or not ours:
            raise
        more = "give it more memory" if who.startswith("its") else "free some memory"
        remedy = f"build on disk with -f, or {more}" if in_tmpfs else more
        what = f"the build ran out of memory, and the kernel killed it ({who}): {error.what}"
        raise MkimageError(what, remedy, tail=error.tail) from error


class Watch:
    """Notices that the kernel kills for want of memory; the counters are read when it is made."""

    def __init__(self, proc: Path = Path("/proc"), mounts: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc = proc
        self._groups = [(group, group.kills) for group in groups(proc, mounts)]
        self._host = self._host_kills()

    def killed(self) -> str:
        """Return who ran out of memory, or "" when nobody did."""
        for group, before in self._groups:
            if group.kills > before:
                allowed = group.allows
                return "its control group" + (f", which allows {allowed / _GIB:.1f} GiB" if allowed else "")
        return _HOST if self._host_kills() > self._host else ""

    def _host_kills(self) -> int:
        return _fields(self._proc / "vmstat").get("oom_kill", 0)


def _number(file: Path) -> int | None:
    """Return the number in a file; None where there is none, or the word for no limit ("max")."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _fields(file: Path) -> dict[str, int]:
    """Return the numbers of a file with lines of a name and a number."""
    found = {}
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="ascii", errors="replace").splitlines():
            words = line.split()
            if len(words) >= 2 and words[1].isdigit():
                found[words[0]] = int(words[1])
    return found
