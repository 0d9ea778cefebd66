"""Compare two root filesystems path by path: kind, owner, mode, link target, device, extended attributes, content."""

from __future__ import annotations

import fnmatch
import hashlib
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

_XATTR = "SCHILY.xattr."
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
}


@dataclass(frozen=True)
class Entry:
    """What is compared of a path."""

    kind: str
    owner: tuple[int, int]
    mode: int
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, str], ...] = ()
    content: str = ""  #: SHA-256 of a file, of what the allowance's ``view`` leaves of it


@dataclass(frozen=True)
class Allowance:
    """A difference that is right.

    :param pattern: of paths, as fnmatch takes it: ``*`` crosses slashes
    :param what: "presence", or the name of a field of :class:`Entry`
    :param reason: why the difference is there and does no harm
    :param view: for "content": makes of a file's bytes what must be the same on both sides; None allows any content
    """

    pattern: str
    what: str
    reason: str
    view: Callable[[bytes], bytes] | None = None


def read_tar(path: Path, allowances: Sequence[Allowance] = ()) -> dict[str, Entry]:
    """Read a tar as :mod:`amphora_mkimage.disk.formats` writes it."""
    views = [allowance for allowance in allowances if allowance.view is not None]
    tree: dict[str, Entry] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = "/" + member.name.removeprefix(".").strip("/")
            if member.islnk():  # another name of a file: the same in all that is compared here
                tree[name] = tree["/" + member.linkname.removeprefix("./")]
                continue
            tree[name] = Entry(
                _KINDS[member.type],
                (member.uid, member.gid),
                member.mode,
                member.linkname,
                (member.devmajor, member.devminor) if member.isdev() else (0, 0),
                _xattrs(member.pax_headers),
                _digest(archive, member, name, views),
            )
    return tree


def differences(one: Mapping[str, Entry], other: Mapping[str, Entry]) -> Iterator[tuple[str, str, object, object]]:
    """Give each difference: the path, what differs, and both sides."""
    for path in sorted({*one, *other}):
        left, right = one.get(path), other.get(path)
        if left is None or right is None:
            yield path, "presence", left and left.kind, right and right.kind
            continue
        for field in fields(Entry):
            values = getattr(left, field.name), getattr(right, field.name)
            if values[0] != values[1]:
                yield path, field.name, *values


def unexplained(
    one: Mapping[str, Entry], other: Mapping[str, Entry], allowances: Sequence[Allowance]
) -> tuple[list[str], list[Allowance]]:
    """Compare; lines about differences that nothing allows, and the allowances that nothing needed.

    An allowance with a ``view`` was applied to both sides by :func:`read_tar`: what it leaves must be the same.
    """
    lines = []
    unneeded = [allowance for allowance in allowances if allowance.view is None]
    for path, what, left, right in differences(one, other):
        allowing = [a for a in allowances if a.view is None and a.what == what and fnmatch.fnmatchcase(path, a.pattern)]
        if not allowing:
            lines.append(f"{path}: {what}: {left} against {right}")
        unneeded = [allowance for allowance in unneeded if allowance not in allowing]
    return lines, unneeded


def _xattrs(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k.removeprefix(_XATTR), v) for k, v in headers.items() if k.startswith(_XATTR)))


def _digest(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, views: Sequence[Allowance]) -> str:
    if not member.isfile():
        return ""
    file = archive.extractfile(member)
    assert file is not None
    content = file.read()
    for allowance in views:
        if allowance.view is not None and fnmatch.fnmatchcase(name, allowance.pattern):
            content = allowance.view(content)
    return hashlib.sha256(content).hexdigest()
