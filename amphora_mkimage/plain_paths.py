"""Paths that every program takes as they are, and another name for a directory whose path is not one."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from amphora_mkimage import guardian

#: Else mmdebstrap refuses (quotes), mke2fs and mtools read options (after ? and @@), sources.list(5) lists (spaces and
#: commas). Paths that only go to programs that take any, such as tar and qemu-img, need not be plain.
_PLAIN = re.compile(r"[A-Za-z0-9/._+=~-]*")


def is_plain(path: Path) -> bool:
    """Tell whether every program that a build runs takes a path as it is."""
    return _PLAIN.fullmatch(str(path)) is not None


def temporary() -> str:
    """Return a directory for temporary files with a plain path: $TMPDIR, if it has one."""
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 (whoever uses it chooses no name)
    return next(place for place in places if is_plain(Path(place)))


@contextlib.contextmanager
def plain_name(directory: Path, *, link: bool) -> Iterator[Path | None]:
    """Make a plain path that a directory can be had under; None where its own is one.

    :param link: a symbolic link to it; else an empty directory, to bind it to in a mount namespace
    """
    if is_plain(directory):
        yield None
        return
    parent = Path(tempfile.mkdtemp(prefix="amphora-mkimage-", dir=temporary()))
    name = parent / "work"
    try:
        with guardian.guarded(parent):
            if link:
                name.symlink_to(directory)
            else:
                name.mkdir()
            yield name
    finally:
        if link:
            name.unlink(missing_ok=True)
        else:
            name.rmdir()
        parent.rmdir()
