"""Make of an archive a plain tar that every program reads alike, without a tree in between.

For where no tree can be made: on a host without namespaces nobody may give files to other owners. What comes out is
written anew from what :mod:`~amphora_mkimage.unpack.tar_format` understood, member by member, after the same checks as
in :mod:`~amphora_mkimage.unpack.extract`. So the tar of an appliance never reads a header that somebody else wrote, and
nothing that it finds leads anywhere: no name climbs or lies below a link, no hard link leads to what is not before it,
no name comes twice, and no device is left.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from amphora_mkimage.console import Console
from amphora_mkimage.unpack import tar_format
from amphora_mkimage.unpack.extract import check_special, is_kept
from amphora_mkimage.unpack.kinds import Kind, kind
from amphora_mkimage.unpack.stream import Limits, Stream, open_squashfs, open_tar
from amphora_mkimage.unpack.tar_format import BLOCK, FormatError, Member, shown

#: A number in the header: eleven octal digits and a NUL.
_SIZE_LIMIT = 1 << 33
_BILLION = 1_000_000_000


def plain(path: Path, target: Path, limits: Limits, console: Console) -> None:
    """Write a tar or squashfs as a plain tar; as anybody.

    :param path: tar, plain or compressed, or squashfs
    :param target: made, or overwritten; after an error it holds a part
    :raises MkimageError: the archive is damaged, or has what a root filesystem does not have; the member is named
    :raises HostError: the program that decompresses it is missing
    """
    opened = open_squashfs if kind(path) is Kind.SQUASHFS else open_tar
    with opened(path, limits, console) as stream, target.open("wb") as file:
        _Copy(stream, file, limits, console).run()


class _Copy:
    def __init__(self, stream: Stream, target: BinaryIO, limits: Limits, console: Console) -> None:
        self._stream = stream
        self._target = target
        self._limits = limits
        self._console = console
        #: What was written, by path: "usr/bin", and "" for the root.
        self._made: dict[str, Member] = {}
        self._count = 0

    def run(self) -> None:
        try:
            for member in tar_format.members(self._stream):
                self._count_one()
                self._console.activity(f"{self._count} files")
                try:
                    self._take(member)
                except FormatError as error:
                    raise FormatError(f"member {shown(member.name)} {error}") from error
        except FormatError as error:
            raise self._stream.refusal(str(error)) from error
        self._target.write(bytes(2 * BLOCK))

    def _count_one(self) -> None:
        self._count += 1
        if self._count > self._limits.members:
            raise self._stream.refusal(f"it has more than {self._limits.members} files")

    def _take(self, member: Member) -> None:
        """Check a member against those before it, and write it."""
        if member.type in (tar_format.CHARACTER, tar_format.BLOCK_DEVICE, tar_format.FIFO):
            check_special(member)
            return
        path = "/".join(member.parts)
        self._check_parents(member.parts)
        there = self._made.get(path)
        if there is not None and member.type != tar_format.DIRECTORY:
            raise FormatError("comes twice")
        if there is not None and there.type != tar_format.DIRECTORY:
            raise FormatError("comes twice, first as something else")
        if member.type == tar_format.HARD_LINK:
            member = self._linked(member)
        self._made[path] = member
        self._write(member, path)

    def _check_parents(self, parts: list[str]) -> None:
        """See that a member lies in directories; those that no member was yet are written with root as their owner."""
        for depth in range(len(parts)):
            path = "/".join(parts[:depth])
            parent = self._made.get(path)
            if parent is None:
                self._count_one()
                parent = Member(path, parts[:depth], tar_format.DIRECTORY, 0o755, 0, 0, 0, 0, "", {})
                self._made[path] = parent
                self._write(parent, path)
            elif parent.type != tar_format.DIRECTORY:
                raise FormatError("lies below a symbolic link or something else that is not a directory")

    def _linked(self, member: Member) -> Member:
        """Give what a hard link is to be written as: another name of a file, or a symbolic link once more."""
        target = "/".join(tar_format.split(member.link, "links to what"))
        there = self._made.get(target)
        if there is None or there.type == tar_format.DIRECTORY or not target:
            raise FormatError(f"is a hard link to {shown(member.link)}, which is not a file that comes before it")
        if there.type == tar_format.SYMLINK:
            return replace(there, name=member.name, parts=member.parts)
        return replace(member, link=f"./{target}", xattrs={})

    def _write(self, member: Member, path: str) -> None:
        self._target.write(_header(member, f"./{path}"))
        if member.size:
            self._target.flush()
            self._stream.copy(self._target.fileno(), member.size)
            self._target.write(bytes(-member.size % BLOCK))


def _header(member: Member, path: str) -> bytes:
    """Make the blocks before a member's content: POSIX pax(1), with an extended header where it says more."""
    name, link = os.fsencode(path), os.fsencode(member.link)
    seconds, rest = divmod(member.mtime, _BILLION)
    more: dict[bytes, bytes] = {}
    if len(name) > 100:
        more[b"path"] = name
    if len(link) > 100:
        more[b"linkpath"] = link
    if member.size >= _SIZE_LIMIT:
        more[b"size"] = b"%d" % member.size
    if rest or not 0 <= seconds < _SIZE_LIMIT:
        # A fraction of a negative time goes the other way: -1.5 is -2 s and 0.5 s.
        sign, nanoseconds = ("-", -member.mtime) if member.mtime < 0 else ("", member.mtime)
        more[b"mtime"] = f"{sign}{nanoseconds // _BILLION}.{nanoseconds % _BILLION:09}".encode()
    for key, value in member.xattrs.items():
        if is_kept(key):
            more[b"SCHILY.xattr." + os.fsencode(key)] = value
    size = 0 if b"size" in more else member.size
    mtime = 0 if b"mtime" in more else seconds
    block = _block(name[:100], member.type, member.mode, (member.uid, member.gid), size, mtime, link[:100])
    if not more:
        return block
    records = b"".join(_record(key, value) for key, value in more.items())
    head = _block(b"./@PaxHeader", b"x", 0o644, (0, 0), len(records), 0, b"")
    return head + records + bytes(-len(records) % BLOCK) + block


def _block(name: bytes, kind: bytes, mode: int, owner: tuple[int, int], size: int, mtime: int, link: bytes) -> bytes:
    head = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, *owner, size, mtime)
    tail = kind + link.ljust(100, b"\0") + b"ustar\x0000".ljust(512 - 257, b"\0")
    # The checksum is made as if its own place were blank.
    return head + b"%06o\0 " % (sum(head) + 8 * ord(" ") + sum(tail)) + tail


def _record(key: bytes, value: bytes) -> bytes:
    """Make one record of an extended header; its length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
