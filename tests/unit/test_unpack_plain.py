"""A tar written anew: what is hostile is refused as when unpacked, and what is left is the same to any program."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hostile_tar import END, GNU, Facts, archive, compress, facts, file, header, long_name, pax, unpacked
from test_unpack_tar import REFUSED

from amphora_mkimage import unpack
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest import userns

CAPABILITY = b"\x01\0\0\x02\0\x20\0\0" + bytes(12)  # cap_net_raw=ep
#: The kernel is the judge of this one, wherever it is unpacked.
_BY_KERNEL = "capability that is none"


def plain(path: Path, limits: unpack.Limits | None = None) -> Path:
    target = path.with_name("plain.tar")
    unpack.plain(path, target, limits or unpack.Limits(), Console(io.StringIO()))
    return target


def unpacked_by_tar(path: Path) -> Facts:
    """What GNU tar makes of it, with the options of the appliance's script."""

    def work() -> Facts:
        userns.mount("tmpfs", Path("/mnt"), "tmpfs")
        argv = ["tar", "--extract", f"--file={path}", "--directory=/mnt", "--numeric-owner", "--preserve-permissions"]
        argv += ["--same-owner", "--xattrs", "--xattrs-include=*", "--anchored"]
        done = subprocess.run(argv, capture_output=True, check=False)
        remarks = [line for line in done.stderr.splitlines() if b"implausibly old time stamp" not in line]
        assert (done.returncode, remarks) == (0, [])
        return facts(Path("/mnt"))

    return userns.run(work)


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - {_BY_KERNEL}))
def test_refused(name: str, tmp_path: Path) -> None:
    content, words = REFUSED[name]
    path = archive(tmp_path / "x.tar", file(b"first") + content + END)
    with pytest.raises(MkimageError, match=words) as caught:
        plain(path)
    assert caught.value.what.startswith("x.tar is not unpacked: ")
    assert caught.value.remedy


def accepted() -> bytes:
    """Everything that a root filesystem may have, and what other systems add."""
    long, link = b"d/" + b"l" * 200, b"/" + b"t" * 300
    content = header(b"./", b"5", mode=0o750, uid=1, gid=2, mtime=3) + file(b"none/f", b"content")
    content += file(b"late/f") + header(b"late", b"5", mode=0o2711, uid=5, gid=6, mtime=7)
    content += header(b"late/", b"5", mode=0o1700, uid=8, gid=9, mtime=10)
    content += file(b"su", b"su", mode=0o4755, uid=3, gid=4) + header(b"su2", b"1", link=b"su")
    content += header(b"etc/vi", b"2", link=b"/usr/bin/vim", uid=7) + header(b"up", b"2", link=b"../../../etc")
    content += long_name(long) + file(b"x", b"y", magic=GNU) + long_name(link, b"K") + header(b"s", b"2", magic=GNU)
    content += pax((b"path", b"\xc3\xa4/\xff"), (b"uid", b"65534"), (b"mtime", b"-1.25")) + file(b"x", b"abc")
    content += pax((b"mtime", b"1700000000.123456789")) + file(b"-rf", b"0" * 511)
    content += pax((b"SCHILY.xattr.security.capability", CAPABILITY), (b"SCHILY.xattr.security.selinux", b"x\0"))
    content += file(b"ping", b"ping", mode=0o755)
    return content


def timed(found: Facts) -> Facts:
    """Facts without the time of directories that no member was: it is that of the unpacking."""
    return {name: fact[:3] + fact[4:] if name in ("none", "etc", "d", "ä") else fact for name, fact in found.items()}


def test_nothing_is_lost(tmp_path: Path) -> None:
    path = compress("zstd", archive(tmp_path / "x.tar", accepted() + END))
    after = plain(path)
    before = timed(unpacked(path))
    assert timed(unpacked(after)) == before
    assert timed(unpacked_by_tar(after)) == before
    assert before["ping"][6] == {"security.capability": CAPABILITY}
    with tarfile.open(after) as tar:
        assert {member.name for member in tar} >= {"./su2", "./none"}


def test_devices_are_left_out_and_links_to_links_are_links(tmp_path: Path) -> None:
    content = header(b"dev/null", b"3") + header(b"run/initctl", b"6") + header(b"a", b"2", link=b"/etc/shadow")
    found = unpacked_by_tar(plain(archive(tmp_path / "x.tar", content + header(b"b", b"1", link=b"a") + END)))
    assert set(found) == {".", "a", "b"}
    assert found["b"][5] == b"/etc/shadow"
    with pytest.raises(MkimageError, match="not a file that comes before it"):
        plain(archive(tmp_path / "x.tar", header(b"dev/sda", b"4") + header(b"b", b"1", link=b"dev/sda") + END))


def test_limits(tmp_path: Path) -> None:
    bomb = compress("gzip", archive(tmp_path / "x.tar", file(b"a", bytes(100 << 20)) + END))
    with pytest.raises(MkimageError, match="100 times its size"):
        plain(bomb)
    deep = archive(tmp_path / "y.tar", file(b"a/b/c/d/e/f") + END)
    with pytest.raises(MkimageError, match="more than 5 files"):
        plain(deep, unpack.Limits(members=5))


@pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="needs squashfs-tools")
def test_a_squashfs(tmp_path: Path) -> None:
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/hostname").write_text("x\n")
    argv = ["mksquashfs", tmp_path / "tree", tmp_path / "x.squashfs", "-quiet", "-no-progress"]
    subprocess.run(argv, check=True, capture_output=True)
    path = tmp_path / "x.squashfs"
    assert unpacked(plain(path)) == unpacked(path)


def test_damage_never_gives_a_tar_that_tar_and_we_read_differently(tmp_path: Path) -> None:
    """Random damage to an archive: refused in words, or GNU tar finds the names that our reader finds."""
    whole, chosen = accepted() + END, random.Random(11)
    outcomes = [0, 0]
    for _ in range(300):
        content, place = bytearray(whole), chosen.randrange(len(whole) // 512) * 512
        for _ in range(chosen.choice((1, 2, 20))):
            content[place + chosen.randrange(512)] = chosen.choice((0, 0x2F, 0x2E, 0x37, chosen.randrange(256)))
        blank = content[place : place + 148] + b" " * 8 + content[place + 156 : place + 512]
        content[place + 148 : place + 156] = b"%06o\0 " % sum(blank)
        try:
            target = plain(archive(tmp_path / "x.tar", bytes(content)))
        except MkimageError:
            outcomes[1] += 1
            continue
        outcomes[0] += 1
        argv = ["tar", "--list", "--quoting-style=escape", f"--file={target}"]
        done = subprocess.run(argv, capture_output=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        names = done.stdout.splitlines()
        assert [name for name in names if not name.startswith(b"./") or b".." in name.split(b"/")] == []
    assert min(outcomes) > 20
