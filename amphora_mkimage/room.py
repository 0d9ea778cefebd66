"""Is there room for what a build writes? Looked at before any work.

What is known then is the least that any image takes; a build may need more, and says so when a filesystem is full.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch import store
from amphora_mkimage.request import Request

_MIB = 1 << 20
#: MiB of the smallest images on disk (debian-minimal without the agent and SSH takes 163, 418, 418 and 384).
_OUTPUT = {"qcow2": 120, "raw": 350, "vhd": 350, "tar": 300}
#: Of the tree and the disk's written blocks together (826 there).
_WORK = 620
#: Of the packages and the bootstrapped system, where nothing is in the cache yet (142 and 110 there).
_CACHE = 200


@dataclass(frozen=True)
class Need:
    """What is written somewhere.

    :param what: for the error
    :param flag: the option that names another place
    """

    place: Path
    mib: int
    what: str
    flag: str


def require(request: Request, *, on_disk: bool) -> None:
    """Refuse a build that cannot fit on the disks of this host.

    :param on_disk: it works in the working directory, not in memory
    :raises MkimageError: naming the directory
    """
    filesystems: dict[int, list[Need]] = {}
    for need in _needs(request, on_disk=on_disk):
        filesystems.setdefault(need.place.stat().st_dev, []).append(need)
    for needs in filesystems.values():
        wanted = sum(need.mib for need in needs)
        free = _free(needs[0].place)
        if free is None or free >= wanted * _MIB:
            continue
        what = " and ".join(f"{need.what} in {need.place}" for need in needs)
        flags = " or ".join(dict.fromkeys(need.flag for need in needs))
        raise MkimageError(
            f"not enough space for {what}: {free // _MIB} MiB are free, at least {wanted} MiB are needed",
            f"free some space there, or name another place with {flags}",
        )


def _needs(request: Request, *, on_disk: bool) -> Iterator[Need]:
    yield Need(request.output.parent, sum(_OUTPUT[kind] for kind in request.types), "the image", "-o")
    if on_disk:
        yield Need(request.working_dir, _WORK, "the work on disk", "-w")
    cache = request.cache_dir / store.DIRECTORY
    if not any(path for path in cache.glob("*/*") if path.parent.name != "logs"):
        yield Need(request.cache_dir, _CACHE, "the packages", "-c")


def _free(place: Path) -> int | None:
    """Return the bytes that we may write there; None where the filesystem does not tell."""
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize if status.f_blocks else None
