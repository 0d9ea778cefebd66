"""Whole trees, packed by other people's programs: what comes out is what went in."""

from __future__ import annotations

import os
import re
import stat
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hostile_tar import Facts, compress, facts, unpacked

from amphora_mkimage import unpack
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.guest import userns

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw=ep (linux/capability.h)
ACL = struct.pack("<I", 2) + b"".join(  # include/uapi/linux/posix_acl_xattr.h
    struct.pack("<HHI", *entry)
    for entry in ((1, 7, 0xFFFFFFFF), (2, 6, 101), (4, 5, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)


def make_tree(tree: Path, *, acls: bool) -> None:
    """What root filesystems have."""
    for name in ("usr/bin", "etc/alternatives", "var/log/journal", "tmp", "empty", "n" * 200 + "/" + "m" * 200):
        (tree / name).mkdir(parents=True)
    files = {"usr/bin/su": 0o4755, "usr/bin/wall": 0o2755, "usr/bin/ping": 0o755, "etc/shadow": 0o640, "var/log/x": 0}
    for number, (name, mode) in enumerate(files.items()):
        (tree / name).write_bytes(b"%d" % number * 1000 * number)
        os.chown(tree / name, 100 + number, 65534 - number)
        (tree / name).chmod(mode)
    (tree / "usr/bin/su2").hardlink_to(tree / "usr/bin/su")
    (tree / "bin").symlink_to("usr/bin")
    (tree / "etc/alternatives/x").symlink_to("/usr/bin/su")
    os.chown(tree / "bin", 7, 8, follow_symlinks=False)
    (tree / os.fsdecode(b"etc/\xff\n'x")).write_text("")
    (tree / "tmp").chmod(0o1777)
    os.setxattr(tree / "usr/bin/ping", "security.capability", CAPABILITY)
    if acls:
        os.setxattr(tree / "etc/shadow", "system.posix_acl_access", ACL)
        os.setxattr(tree / "var/log/journal", "system.posix_acl_access", ACL)
        (tree / "var/log/journal/before").mkdir()
        os.setxattr(tree / "var/log/journal", "system.posix_acl_default", ACL)
    for path in (*tree.rglob("*"), tree):
        ns = 1_700_000_000_123_456_789 if acls else 1_700_000_000_000_000_000
        os.utime(path, ns=(0, ns + path.lstat().st_ino % 1000 * 1_000_000_000), follow_symlinks=False)


def packed_tree(path: Path, *argv: str, acls: bool = True, options: Sequence[str] = ()) -> Facts:
    """Make the tree in a namespace and pack it with other people's programs; what it was."""

    def work() -> Facts:
        userns.mount("tmpfs", Path("/mnt"), "tmpfs")
        tree = Path("/mnt/tree")
        tree.mkdir()
        make_tree(tree, acls=acls)
        subprocess.run([*argv, path, *options], cwd=tree, check=True, capture_output=True)
        return facts(tree)

    return userns.run(work)


@pytest.mark.parametrize("program", [None, "gzip", "xz", "zstd", "bzip2"])
def test_a_whole_tree(program: str | None, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    argv = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--format=posix", "-c", ".", "-f"]
    before = packed_tree(path, *argv)
    assert stat.filemode(0o104755) in {entry[0] for entry in before.values()}
    assert before["usr/bin/ping"][6] == {"security.capability": CAPABILITY}
    assert before["var/log/journal"][6] == {"system.posix_acl_access": ACL, "system.posix_acl_default": ACL}
    assert unpacked(compress(program, path)) == before


@pytest.mark.parametrize("compression", ["gzip", "xz", "zstd"])
def test_a_whole_squashfs(compression: str, tmp_path: Path) -> None:
    before = packed_tree(tmp_path / "x.sqfs", "mksquashfs", ".", acls=False, options=["-comp", compression])
    assert unpacked(tmp_path / "x.sqfs") == before


def test_squashfs_is_hostile_too(tmp_path: Path) -> None:
    path = tmp_path / "x.sqfs"
    (tmp_path / "source").mkdir()
    argv = ["mksquashfs", tmp_path / "source", path, "-noappend"]
    for pseudo, words in (("sda b 600 0 0 8 0", "'./sda' is a device node"), ("x f 644 70000 0 echo", "owner 70000")):
        subprocess.run([*argv, "-p", pseudo], check=True, capture_output=True)
        with pytest.raises(MkimageError, match=re.escape(words)):
            unpacked(path)
    subprocess.run([*argv, "-p", "bomb f 644 0 0 head -c 100M /dev/zero"], check=True, capture_output=True)
    with pytest.raises(MkimageError, match="100 times its size"):
        unpacked(path)
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(len(content) - 100))
    with pytest.raises(MkimageError, match="is damaged"):
        unpacked(path)


# --- what a file is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "magic", "expected"),
    [
        (0, b"\x1f\x8b", unpack.Kind.TAR),
        (0, b"\xfd7zXZ\0", unpack.Kind.TAR),
        (0, b"\x28\xb5\x2f\xfd", unpack.Kind.TAR),
        (0, b"BZh", unpack.Kind.TAR),
        (0, b"hsqs", unpack.Kind.SQUASHFS),
        (0, b"QFI\xfb", unpack.Kind.QCOW2),
        (510, b"\x55\xaa", unpack.Kind.RAW),
        (512, b"EFI PART", unpack.Kind.RAW),
        (1080, b"\x53\xef", unpack.Kind.RAW),
        (0, b"XFSB", unpack.Kind.RAW),
        (0x10040, b"_BHRfS_M", unpack.Kind.RAW),
        (512, b"LABELONE", unpack.Kind.RAW),
    ],
)
def test_kind_by_the_bytes(offset: int, magic: bytes, expected: unpack.Kind, tmp_path: Path) -> None:
    path = tmp_path / "misleading.iso"
    path.write_bytes((bytes(offset) + magic).ljust(100_000, b"\0"))
    assert unpack.kind(path) is expected


def test_kind_of_a_plain_tar(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for kind in ("v7", "ustar", "gnu", "posix"):
        subprocess.run(["tar", f"--format={kind}", "-cf", "x.qcow2", "f"], cwd=tmp_path, check=True)
        assert unpack.kind(tmp_path / "x.qcow2") is unpack.Kind.TAR


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"#!/bin/sh\n", "not a root filesystem"),
        (bytes(100_000), "not a root filesystem"),
        (b"KDMV" + bytes(1000), "is a VMDK"),
        (b"<html>" * 1000, "not a root filesystem"),
        (b"PK\x03\x04" + bytes(600), "not a root filesystem"),
    ],
)
def test_anything_else_is_a_bad_value(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(BadValueError, match=words):
        unpack.kind(path)
    for other in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BadValueError, match=r"is not a file|does not exist"):
            unpack.kind(other)
