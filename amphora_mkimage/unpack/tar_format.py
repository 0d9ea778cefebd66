"""Read a tar archive, member by member, strictly.

This is the only reader between an archive and the tree: what it makes of a header is both what is checked and what is
written, so no second opinion of another tar can differ. What is ambiguous is refused rather than guessed: archives of
root filesystems are made by a handful of programs (GNU tar, bsdtar, Go's and Python's libraries, sqfs2tar), and none of
them writes it. The formats: pax(1) in POSIX.1-2017, and "Basic Tar Format" in GNU tar's manual.

Python's own tarfile is not used: it guesses a lot, keeps all headers, and its mistakes on hostile headers are many
(CVE-2024-6232, CVE-2025-4517, CVE-2025-8194), while a host keeps the Python that it has.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

BLOCK = 512
#: Bytes of one extended header. Extended attributes are the largest thing in it, and 64 KiB each (xattr(7)).
EXTENDED_LIMIT = 1 << 20
#: Bytes of all extended headers: the attributes and times of directories are kept in memory until the end.
EXTENDED_TOTAL = 64 << 20
PATH_LIMIT = 4095  #: PATH_MAX without its NUL (limits.h)
NAME_LIMIT = 255
#: Components of a name. A real tree has some 20; Python's own walks, rmtree among them, recurse a level at each.
DEPTH_LIMIT = 200

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_TYPES = (REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"

_ZEROS = bytes(BLOCK)
# name mode uid gid size mtime checksum type link magic uname gname major minor prefix tail
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*", re.DOTALL)
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ")
_DECIMAL = re.compile(rb"[0-9]{1,18}")
_SECONDS = re.compile(rb"(-?[0-9]{1,11})(?:\.([0-9]{1,40}))?")
_SECONDS_LIMIT = 1 << 34  # the year 2514; ext4's end is 2446
_XATTR = b"SCHILY.xattr."


class Source(Protocol):
    """Where the archive's bytes come from."""

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes, or raise."""

    def check_rest(self) -> None:
        """Read to the end; raise unless all is zeros."""


class FormatError(Exception):
    """What the archive has that is not accepted."""


@dataclass(slots=True)
class Member:
    """A member of an archive; of a regular file, ``size`` bytes of content follow in the source.

    :param parts: components of its name, relative; empty for the root directory
    :param type: one of this module's constants
    :param link: target of a symbolic link, or the name that a hard link is another of
    :param mtime: nanoseconds since the epoch
    """

    name: str
    parts: list[str]
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: str
    xattrs: Mapping[str, bytes]


@dataclass(slots=True)
class _Extended:
    """What extended headers say of the member that follows."""

    pax: dict[bytes, bytes] = field(default_factory=dict)
    seen: list[bytes] = field(default_factory=list)


def is_header(block: bytes) -> bool:
    """Tell whether a block is a member's header: its checksum is right."""
    if len(block) != BLOCK or block == _ZEROS:
        return False
    match = _OCTAL.fullmatch(block, 148, 156)
    # The checksum is made as if its own place were blank.
    return match is not None and int(match[1] or b"0", 8) == sum(block) - sum(block[148:156]) + 8 * ord(" ")


def members(source: Source) -> Iterator[Member]:
    """Give the members in order; whoever gets a regular file must read its content from the source before the next.

    :raises FormatError: the archive has something that is not accepted
    """
    extended = _Extended()
    extended_bytes = 0
    while True:
        block = source.read(BLOCK)
        if block == _ZEROS:
            # POSIX pax: an archive ends with two blocks of zeros. What follows must be padding: another archive behind
            # it would be seen by some programs (tar --ignore-zeros) and not by others.
            if source.read(BLOCK) != _ZEROS or extended.seen:
                raise FormatError("its end is damaged")
            source.check_rest()
            return
        if not is_header(block):
            raise FormatError("a header is damaged")
        fields = _HEADER.unpack(block)
        kind = fields[7]
        if kind in (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK):
            size = _number(fields[4])
            extended_bytes += size
            if not 0 < size <= EXTENDED_LIMIT or extended_bytes > EXTENDED_TOTAL:
                raise FormatError(f"its extended headers are too large, or empty ({size} bytes)")
            _read_extended(source, kind, size, extended)
            continue
        member = _member(fields, extended.pax)
        extended = _Extended()
        yield member
        if member.size % BLOCK:
            source.read(BLOCK - member.size % BLOCK)


def split(name: str, what: str) -> list[str]:
    """Split a relative name into its components, none of which leads elsewhere.

    :param what: for the error: whose name it is
    :raises FormatError: it is absolute, climbs up, or is longer than a name may be
    """
    if not name or name.startswith("/"):
        raise FormatError(f"{what} {'is absolute' if name else 'is empty'}")
    if len(name) > PATH_LIMIT or len(os.fsencode(name)) > PATH_LIMIT:
        raise FormatError(f"{what} is longer than {PATH_LIMIT} bytes")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise FormatError(f"{what} climbs out by '..'")
    if len(name) > NAME_LIMIT and any(len(os.fsencode(part)) > NAME_LIMIT for part in parts):
        raise FormatError(f"{what} has a component longer than {NAME_LIMIT} bytes")
    if len(parts) > DEPTH_LIMIT:
        raise FormatError(f"{what} has more than {DEPTH_LIMIT} components")
    return parts


def shown(name: str) -> str:
    """Quote a name for a message: on one line, in ASCII, not too long."""
    text = ascii(name)
    return text if len(text) <= 200 else f"{text[:160]}...{text[-30:]}"


def printable(text: str) -> str:
    """Leave out what could do something to a terminal."""
    return "".join(character for character in text if character.isprintable())


# --- one member ------------------------------------------------------------------------------------------------------


def _member(fields: tuple[bytes, ...], pax: Mapping[bytes, bytes]) -> Member:
    name = _name(fields, pax)
    kind = REGULAR if fields[7] == b"\0" else fields[7]
    what = f"member {shown(name)}"
    try:
        if kind not in _TYPES:
            raise FormatError(f"is of the type {ascii(kind)[1:]}, which is not accepted")
        if name.endswith("/") and kind not in (DIRECTORY, HARD_LINK):
            raise FormatError("has a directory's name and is none")
        size = _decimal(pax[b"size"]) if b"size" in pax else _number(fields[4])
        if size < 0 or (size and kind != REGULAR):
            raise FormatError(f"has a size ({size}) that it cannot have")
        link = os.fsdecode(pax[b"linkpath"] if b"linkpath" in pax else _text(fields[8]))
        if kind in (HARD_LINK, SYMLINK) and not 0 < len(os.fsencode(link)) <= PATH_LIMIT:
            raise FormatError("links to nothing, or to a name that is too long")
        parts = split(name, "its name")
        if not parts and kind != DIRECTORY:
            raise FormatError("is the root and no directory")
        return Member(
            name=name,
            parts=parts,
            type=kind,
            mode=_number(fields[1]) & 0o7777,
            uid=_id(pax.get(b"uid"), fields[2], "owner"),
            gid=_id(pax.get(b"gid"), fields[3], "group"),
            size=size,
            mtime=_time(pax[b"mtime"]) if b"mtime" in pax else _seconds(_number(fields[5])),
            link=link,
            xattrs={os.fsdecode(k[len(_XATTR) :]): v for k, v in pax.items() if k.startswith(_XATTR)} if pax else {},
        )
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from None


def _name(fields: tuple[bytes, ...], pax: Mapping[bytes, bytes]) -> str:
    if b"path" in pax:
        return os.fsdecode(pax[b"path"])
    name = _text(fields[0])
    if fields[9] == b"ustar\x0000":
        # Elsewhere the prefix' place has other things: GNU's times and sparse map.
        prefix = _text(fields[14])
        name = prefix + b"/" + name if prefix else name
    elif fields[9] != b"ustar  \0" and fields[9] != bytes(8):
        raise FormatError(f"member {shown(os.fsdecode(name))}: its header is of no known format")
    return os.fsdecode(name)


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _number(raw: bytes) -> int:
    """Read a number: octal, or GNU's base 256 when the first bit is set."""
    if raw[0] & 0x80:
        # 0x80 starts a positive number, 0xff a negative one in two's complement.
        if raw[0] == 0xFF:
            return int.from_bytes(raw, "big", signed=True)
        if raw[0] != 0x80:
            raise FormatError("has a number that is too large")
        return int.from_bytes(raw[1:], "big")
    match = _OCTAL.fullmatch(raw)
    if match is None:
        raise FormatError("has a number that is none")
    return int(match[1] or b"0", 8)


def _decimal(raw: bytes) -> int:
    if not _DECIMAL.fullmatch(raw):
        raise FormatError("has a number that is none")
    return int(raw)


def _id(pax: bytes | None, raw: bytes, what: str) -> int:
    value = _number(raw) if pax is None else _decimal(pax)
    if not 0 <= value <= 65534:
        raise FormatError(f"has the {what} {value}; an image's lie between 0 and 65534")
    return value


def _time(raw: bytes) -> int:
    """Read a pax time, seconds with any number of decimals, in nanoseconds."""
    match = _SECONDS.fullmatch(raw)
    if match is None:
        raise FormatError("has a time that is none")
    fraction = int((match[2] or b"0")[:9].ljust(9, b"0"))
    return _seconds(int(match[1])) + (-fraction if raw.startswith(b"-") else fraction)


def _seconds(value: int) -> int:
    """Give nanoseconds, of a time that any filesystem can have."""
    if abs(value) > _SECONDS_LIMIT:
        raise FormatError("has a time that is none")
    return value * 1_000_000_000


# --- extended headers ------------------------------------------------------------------------------------------------


def _read_extended(source: Source, kind: bytes, size: int, extended: _Extended) -> None:
    """Read an extended header into what is known of the next member."""
    content = source.read(size)
    if size % BLOCK:
        source.read(BLOCK - size % BLOCK)
    if kind == _PAX_GLOBAL:
        # `git archive` writes a comment; anything else would change members far away from it.
        strange = set(_records(content)) - {b"comment"}
        if strange:
            raise FormatError(f"a global header sets {ascii(min(strange))[1:]}")
        return
    if kind in extended.seen:
        raise FormatError("a member has two extended headers of one type")
    extended.seen.append(kind)
    if kind == _PAX:
        found = _records(content)
        for key in found:
            _check_key(key)
    else:
        name, _, rest = content.partition(b"\0")
        if rest.strip(b"\0"):
            raise FormatError("a long name has a NUL in it")
        found = {b"path" if kind == _LONG_NAME else b"linkpath": name}
    if found.keys() & extended.pax.keys():
        raise FormatError("a member has two names")
    extended.pax.update(found)


def _records(content: bytes) -> dict[bytes, bytes]:
    """Split a pax header into its records: length, key, value, and a newline."""
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(content):
        match = _RECORD.match(content, position)
        end = position + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise FormatError("an extended header is damaged")
        key, equals, value = content[match.end() : end - 1].partition(b"=")
        if not key or not equals or key in found:
            raise FormatError("an extended header is damaged, or says one thing twice")
        if b"\0" in key or (b"\0" in value and not key.startswith(_XATTR)):
            raise FormatError("an extended header has a NUL in it")
        found[key] = value
        position = end
    return found


def _check_key(key: bytes) -> None:
    """Refuse what would change a member's meaning and is not understood here; times and names of owners do not."""
    if key.startswith((b"GNU.sparse.", b"SCHILY.realsize", b"GNU.dumpdir", b"GNU.volume.")):
        raise FormatError("it has sparse files or parts of files; make it again without (tar without --sparse)")
    if key.startswith(b"SCHILY.acl."):
        # Text with the names of users; the attribute has their numbers. To leave it out would widen the group's rights.
        raise FormatError("it has access control lists as text; make it again with --xattrs-include='*', not --acls")
