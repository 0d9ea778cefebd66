"""Tars made byte by byte, and trees looked at in full."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
from pathlib import Path

from amphora_mkimage import unpack
from amphora_mkimage.console import Console
from amphora_mkimage.guest import userns

END = bytes(1024)
POSIX, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)
Facts = dict[str, tuple[object, ...]]


def header(
    name: bytes,
    kind: bytes = b"0",
    size: int | bytes = 0,
    *,
    link: bytes = b"",
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    magic: bytes = POSIX,
    prefix: bytes = b"",
) -> bytes:
    """One block; numbers may be given as they stand there."""

    def number(value: int | bytes, width: int) -> bytes:
        return value.ljust(width, b"\0") if isinstance(value, bytes) else b"%0*o\0" % (width - 1, value)

    block = name.ljust(100, b"\0") + number(mode, 8) + number(uid, 8) + number(gid, 8)
    block += number(size, 12) + number(mtime, 12) + b" " * 8 + kind + link.ljust(100, b"\0") + magic
    block += bytes(32 + 32 + 8 + 8) + prefix.ljust(155, b"\0") + bytes(12)
    return with_checksum(block)


def with_checksum(block: bytes) -> bytes:
    assert len(block) == 512
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def file(name: bytes, content: bytes = b"", **fields: int | bytes) -> bytes:
    return header(name, b"0", len(content), **fields) + padded(content)  # type: ignore[arg-type]


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    content = b"".join(record(key, value) for key, value in records)
    return header(b"pax", kind, len(content)) + padded(content)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return header(b"././@LongLink", kind, len(name) + 1, magic=GNU) + padded(name + b"\0")


def archive(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def compress(program: str | None, path: Path) -> Path:
    if program is None:
        return path
    packed = path.with_name(f"{path.name}.{program}")
    with path.open("rb") as source, packed.open("wb") as target:
        subprocess.run([program, "-c"], stdin=source, stdout=target, check=True)
    return packed


def facts(tree: Path) -> Facts:
    """All that a tree has: type and mode, owner, time, links, content, extended attributes."""
    found: Facts = {}
    names: dict[int, str] = {}
    paths = [tree, *(Path(at) / name for at, directories, files in os.walk(tree) for name in directories + files)]
    for path in sorted(paths):
        status = path.lstat()
        name = os.fsdecode(os.path.relpath(path, tree))
        content = b""
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).digest()
        attributes = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        first = names.setdefault(status.st_ino, name)
        found[name] = (
            stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, first, content, attributes,
        )  # fmt: skip
    return found


def unpacked(archive: Path, limits: unpack.Limits | None = None, console: Console | None = None) -> Facts:
    """Unpack in a namespace, with something beside the tree that a hostile archive may try to reach."""

    def work() -> Facts:
        userns.mount("tmpfs", Path("/mnt"), "tmpfs")
        tree, outside = Path("/mnt/tree"), Path("/mnt/outside")
        for directory in (tree, outside):
            directory.mkdir()
        (outside / "secret").write_text("secret")
        os.utime(outside / "secret", ns=(0, 0))
        before = facts(outside)
        function = unpack.squashfs if unpack.kind(archive) is unpack.Kind.SQUASHFS else unpack.tar
        try:
            function(archive, tree, limits or unpack.Limits(), console or Console(io.StringIO()))
            return facts(tree)
        finally:
            after = facts(outside)
            assert after == before
            assert {path.name for path in Path("/mnt").iterdir()} == {"outside", "tree"}

    return userns.run(work)
