"""Archives that are hostile, one defect each, and honest ones, whole."""

from __future__ import annotations

import io
import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_tar import END, GNU, V7, archive, compress, file, header, long_name, pax, unpacked, with_checksum

from amphora_mkimage import unpack
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.guest import userns

OUTSIDE = b"../outside"
DIRECTORY = header(b"d", b"5", mode=0o755)


# --- what is refused -------------------------------------------------------------------------------------------------

REFUSED = {
    "absolute name": (file(b"/etc/x"), "'/etc/x'.* is absolute"),
    "absolute name in pax": (pax((b"path", b"/etc/x")) + file(b"x"), "'/etc/x'.* is absolute"),
    "absolute long name": (long_name(b"/" + b"a" * 120) + file(b"x"), "is absolute"),
    "absolute prefix": (file(b"x", prefix=b"/etc"), "'/etc/x'.* is absolute"),
    "climbing": (file(b"a/../../x"), "climbs out"),
    "climbing by dots only": (header(b"..", b"5"), "climbs out"),
    "empty name": (file(b""), "is empty"),
    "root that is a file": (file(b"./"), "directory's name"),
    "root that is a link": (header(b".", b"2", link=b"/mnt/outside"), "the root and no directory"),
    "write through a link out": (header(b"a", b"2", link=OUTSIDE) + file(b"a/x"), "'a/x' lies below a symbolic link"),
    "write through an absolute link": (header(b"a", b"2", link=b"/mnt/outside") + file(b"a/x"), "symbolic link"),
    "write through a link inside": (DIRECTORY + header(b"a", b"2", link=b"d") + file(b"a/x"), "symbolic link"),
    "write through a deep link": (header(b"d/a", b"2", link=b"../../outside") + file(b"d/a/b/x"), "symbolic link"),
    "directory over a link": (header(b"a", b"2", link=OUTSIDE) + header(b"a", b"5"), "'a' comes twice"),
    "file over a link": (header(b"a", b"2", link=b"../outside/secret") + file(b"a", b"x"), "'a' comes twice"),
    "file over a file": (file(b"a", b"x") + file(b"./a", b"y"), "comes twice"),
    "link over a directory": (DIRECTORY + header(b"d", b"2", link=OUTSIDE), "comes twice"),
    "member below a file": (file(b"a") + file(b"a/x"), "lies below"),
    "hard link out": (header(b"a", b"1", link=b"../outside/secret"), "climbs out"),
    "hard link to the host": (header(b"a", b"1", link=b"/etc/shadow"), "is absolute"),
    "hard link through a link": (
        header(b"a", b"2", link=OUTSIDE) + header(b"b", b"1", link=b"a/secret"),
        "hard link to 'a/secret', which is not a file that comes before it",
    ),
    "hard link to nothing": (header(b"b", b"1", link=b"later") + file(b"later"), "not a file that comes before it"),
    "hard link to a directory": (DIRECTORY + header(b"b", b"1", link=b"d"), "not a file that comes before it"),
    "hard link to the root": (header(b"b", b"1", link=b"."), "not a file that comes before it"),
    "hard link with content": (file(b"a") + header(b"b", b"1", 5, link=b"a") + file(b"x"), "a size"),
    "hard link over a file": (file(b"a") + file(b"b") + header(b"b", b"1", link=b"a"), "comes twice"),
    "directory with content": (header(b"d", b"5", 512) + file(b"x"), "a size"),
    "block device": (header(b"sda", b"4"), "'sda' is a device node"),
    "character device": (header(b"etc/dev/null", b"3"), "is a device node"),
    "device in run": (header(b"run/null", b"3"), "is a device node"),
    "overlayfs' whiteout": (header(b"etc/passwd", b"3"), "is a device node"),
    "FIFO": (header(b"etc/fifo", b"6"), "is a FIFO"),
    "owner too high": (file(b"a", uid=65535), "owner 65535"),
    "group too high": (file(b"a", gid=1_000_000), "group 1000000"),
    "owner in pax too high": (pax((b"uid", b"4294967295")) + file(b"a"), "owner 4294967295"),
    "negative owner": (file(b"a", uid=b"\xff" * 8), "owner -1"),
    "GNU sparse": (header(b"a", b"S", magic=GNU), "type 'S'"),
    "pax sparse": (pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9")) + file(b"a"), "sparse"),
    "pax sparse of star": (pax((b"SCHILY.realsize", b"99999999")) + file(b"a"), "sparse"),
    "ACL as text": (pax((b"SCHILY.acl.access", b"user::rwx")) + file(b"a"), "access control lists as text"),
    "multi-volume": (header(b"a", b"M", magic=GNU), "type 'M'"),
    "negative size": (header(b"a", size=b"\xff" * 11 + b"\0"), "a size"),
    "absurd size": (header(b"a", size=b"\x80" + b"\x7f" * 11), "more than 16.0 GiB"),
    "absurd pax size": (pax((b"size", b"999999999999999999")) + file(b"a"), "more than 16.0 GiB"),
    "size that is none": (header(b"a", size=b"12x"), "number"),
    "pax size that is none": (pax((b"size", b"-5")) + file(b"a"), "number"),
    "time of another age": (file(b"a", mtime=b"\x80" + b"\x01" * 11), "time"),
    "pax time that is none": (pax((b"mtime", b"nan")) + file(b"a"), "time"),
    "long component": (long_name(b"a" * 256) + file(b"x"), "component longer than 255"),
    "long name": (pax((b"path", b"abc/" * 1024)) + header(b"x", b"5"), "longer than 4095"),
    "deep name": (pax((b"path", b"a/" * 201)) + header(b"x", b"5"), "more than 200 components"),
    "long target": (pax((b"linkpath", b"a" * 4096)) + header(b"x", b"2"), "too long"),
    "link without target": (header(b"x", b"2"), "links to nothing"),
    "NUL in a pax name": (pax((b"path", b"a\0b")) + file(b"x"), "NUL"),
    "NUL in a long name": (long_name(b"a\0b") + file(b"x"), "NUL"),
    "two names": (long_name(b"a") + pax((b"path", b"b")) + file(b"x"), "two names"),
    "two pax headers": (pax((b"uid", b"1")) + pax((b"path", b"b")) + file(b"x"), "two extended headers"),
    "one pax key twice": (pax((b"path", b"a"), (b"path", b"b")) + file(b"x"), "one thing twice"),
    "pax record that is cut": (header(b"p", b"x", 9) + b"99 path=a".ljust(512, b"\0") + file(b"x"), "damaged"),
    "global name": (pax((b"path", b"a"), kind=b"g") + file(b"x"), "global header sets 'path'"),
    "huge extended header": (header(b"p", b"x", 2 << 20) + bytes(2 << 20) + file(b"x"), "headers are too large"),
    "capability that is none": (pax((b"SCHILY.xattr.security.capability", b"rubbish")) + file(b"x"), "'x': Invalid"),
    "wrong checksum": (header(b"x")[:-1] + b"x", "no root filesystem|a header is damaged"),
    "unknown format": (header(b"x", magic=b"zstar\x0000"), "no known format"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    content, words = REFUSED[name]
    path = archive(tmp_path / "x.tar", file(b"first") + content + END)
    with pytest.raises(MkimageError, match=words) as caught:
        unpacked(path)
    assert caught.value.what.startswith("x.tar is not unpacked: ")
    assert caught.value.remedy


def test_names_in_messages_do_no_harm(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", file(b"/\x1b[31m\nred\xff") + END)
    with pytest.raises(MkimageError) as caught:
        unpacked(path)
    assert caught.value.what.isprintable()
    assert "\\x1b[31m\\nred" in caught.value.what


# --- how an archive ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (file(b"a"), "ends early"),
        (file(b"a") + bytes(512), "ends early"),
        (file(b"a") + bytes(512) + file(b"b") + END, "end is damaged"),
        (header(b"a", size=5000) + bytes(600), "ends early"),
        (file(b"a") + header(b"b")[:100], "ends early"),
        (file(b"a") + END + file(b"b") + END, "something follows"),
        (file(b"a") + END + b"x", "something follows"),
        (file(b"a") + pax((b"path", b"b")) + END, "end is damaged"),
    ],
)
def test_a_bad_end(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(MkimageError, match=words):
        unpacked(archive(tmp_path / "x.tar", content))


def test_padding_at_the_end(tmp_path: Path) -> None:
    assert "a" in unpacked(archive(tmp_path / "x.tar", file(b"a") + END + bytes(10240)))


@pytest.mark.parametrize("program", ["gzip", "xz", "zstd", "bzip2"])
@pytest.mark.parametrize("harm", ["flip", "cut", "garbage"])
def test_damaged_compression(program: str, harm: str, tmp_path: Path) -> None:
    random.seed(1)
    plain = archive(tmp_path / "x.tar", file(b"a", random.randbytes(100_000)) + END)
    content = bytearray(compress(program, plain).read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 4
    elif harm == "cut":
        del content[len(content) // 2 :]
    else:
        content += b"garbage that is not a stream"
    with pytest.raises(MkimageError, match="damaged"):
        unpacked(archive(tmp_path / "x.tar", bytes(content)))


@pytest.mark.parametrize("program", ["gzip", "xz", "zstd", "bzip2"])
def test_streams_of_several_parts_are_one(program: str, tmp_path: Path) -> None:
    whole = file(b"a", b"content") + END
    parts = [archive(tmp_path / str(n), part) for n, part in enumerate((whole[:700], whole[700:]))]
    content = b"".join(compress(program, part).read_bytes() for part in parts)
    assert "a" in unpacked(archive(tmp_path / "x", content))


def test_compressed_something_else(tmp_path: Path) -> None:
    path = compress("gzip", archive(tmp_path / "disk.img", bytes(510) + b"\x55\xaa" + bytes(1 << 20)))
    with pytest.raises(MkimageError, match="a header is damaged"):
        unpacked(path)


# --- bombs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "limits", "words"),
    [
        (lambda: file(b"a", bytes(100 << 20)), unpack.Limits(), "100 times its size"),
        (lambda: file(b"a", bytes(100 << 20)), unpack.Limits(total=20 << 20), "more than 0.0 GiB"),
        (lambda: b"".join(file(b"%d" % n) for n in range(5000)), unpack.Limits(total=1 << 20), "more than 0.0 GiB"),
        (lambda: b"".join(pax((b"comment", b"x" * 900_000)) + file(b"%d" % n) for n in range(75)),
         unpack.Limits(ratio=9999), "extended headers are too large"),
        (lambda: END + bytes(100 << 20), unpack.Limits(), "100 times its size"),
    ],
)  # fmt: skip
def test_bombs_stay_small(content: Callable[[], bytes], limits: unpack.Limits, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(content() + END)
    path, tree = compress("gzip", tmp_path / "x.tar"), tmp_path / "tree"
    tree.mkdir()

    def work() -> tuple[str, int, bool]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            unpack.tar(path, tree, limits, Console(io.StringIO()))
        except MkimageError as error:
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            children = True
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                children = False
            return error.what, grown, children
        return "", 0, True

    what, grown, children = userns.run(work)
    assert words in what
    assert grown < 100 << 10  # KiB
    assert not children
    assert sum(p.lstat().st_size for p in tree.rglob("*") if p.is_file()) <= 64 << 20


def test_too_many_members(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", b"".join(file(b"%d" % n) for n in range(11)) + END)
    assert len(unpacked(path, unpack.Limits(members=11))) == 12
    with pytest.raises(MkimageError, match="more than 10 files"):
        unpacked(path, unpack.Limits(members=10))
    deep = archive(tmp_path / "y.tar", file(b"a/b/c/d/e/f") + END)  # directories that no member is
    with pytest.raises(MkimageError, match="more than 5 files"):
        unpacked(deep, unpack.Limits(members=5))


def test_a_full_disk_is_not_the_archives_fault(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", file(b"a", bytes(4 << 20)) + END)

    def work() -> None:
        userns.mount("tmpfs", Path("/mnt"), "tmpfs", 0, "size=1m")
        unpack.tar(path, Path("/mnt"), unpack.Limits(), Console(io.StringIO()))

    with pytest.raises(MkimageError, match="No space left on device") as caught:
        userns.run(work)
    assert "free some space" in caught.value.remedy


def test_nothing_else_is_ever_raised(tmp_path: Path) -> None:
    """Random damage to headers whose checksums are then right again: unpacked, or refused in words."""
    blocks = [header(b"d/", b"5"), file(b"d/f", b"content"), header(b"d/s", b"2", link=b"/run/x")]
    blocks += [header(b"h", b"1", link=b"d/f"), pax((b"path", b"long"), (b"mtime", b"1.5")), file(b"x")]
    whole = b"".join(blocks) + END

    def work() -> list[int]:
        userns.mount("tmpfs", Path("/mnt"), "tmpfs")
        chosen, outcomes = random.Random(7), [0, 0]
        for number in range(600):
            content, place = bytearray(whole), chosen.randrange(len(whole) // 512) * 512
            for _ in range(chosen.choice((1, 1, 2, 20))):
                content[place + chosen.randrange(512)] = chosen.choice(
                    (0, 0x2F, 0x2E, 0x37, 0xFF, chosen.randrange(256))
                )
            content[place : place + 512] = with_checksum(bytes(content[place : place + 512]))
            (Path("/mnt/x.tar")).write_bytes(content)
            tree = Path(f"/mnt/{number}")
            tree.mkdir()
            try:
                unpack.tar(Path("/mnt/x.tar"), tree, unpack.Limits(total=1 << 20), Console(io.StringIO()))
                outcomes[0] += 1
            except MkimageError:
                outcomes[1] += 1
            shutil.rmtree(tree)
        assert list(Path("/mnt").iterdir()) == [Path("/mnt/x.tar")]
        return outcomes

    assert min(userns.run(work)) > 20


# --- what is accepted ------------------------------------------------------------------------------------------------


def test_links_stay_as_they_are(tmp_path: Path) -> None:
    content = header(b"etc/alternatives/vi", b"2", link=b"/usr/bin/vim") + header(b"up", b"2", link=b"../../../etc")
    content += header(b"again", b"1", link=b"./etc/alternatives/vi")
    found = unpacked(archive(tmp_path / "x.tar", content + END))
    assert found["etc/alternatives/vi"][5] == b"/usr/bin/vim"
    assert found["up"][5] == b"../../../etc"
    assert found["again"][0] == "lrwxrwxrwx"  # a hard link to a symbolic link is another name of the link
    assert found["again"][4] == found["etc/alternatives/vi"][4]


def test_what_boot_makes_is_left_out(tmp_path: Path) -> None:
    content = header(b"./dev/null", b"3") + header(b"dev/sda", b"4") + header(b"dev/initctl", b"6")
    content += header(b"run/initctl", b"6") + file(b"dev/README")
    assert set(unpacked(archive(tmp_path / "x.tar", content + END))) == {".", "dev", "dev/README"}


def test_directories(tmp_path: Path) -> None:
    content = file(b"late/f") + header(b"late", b"5", mode=0o2711, uid=5, gid=6, mtime=7)
    content += header(b"late/", b"5", mode=0o1700, uid=8, gid=9, mtime=10) + file(b"none/f")
    content += header(b"./", b"5", mode=0o750, uid=1, gid=2, mtime=3) + header(b"shut", b"5", mode=0) + file(b"shut/f")
    found = unpacked(archive(tmp_path / "x.tar", content + END))
    assert found["late"][:4] == ("drwx-----T", 8, 9, 10_000_000_000)
    assert found["none"][:3] == ("drwxr-xr-x", 0, 0)
    assert found["."][:4] == ("drwxr-x---", 1, 2, 3_000_000_000)
    assert found["shut"][0] == "d---------"


def test_names_and_numbers_of_all_formats(tmp_path: Path) -> None:
    long, link = b"d/" + b"l" * 200, b"/" + b"t" * 300
    content = file(b"tail", prefix=b"p/q") + file(b"old", magic=V7) + header(b"nul", b"\0", magic=V7)
    content += long_name(long) + file(b"x", b"y", magic=GNU) + long_name(link, b"K") + header(b"s", b"2", magic=GNU)
    content += pax((b"path", b"\xc3\xa4/\xff"), (b"uid", b"65534"), (b"mtime", b"-1.25"), (b"size", b"3")) + file(
        b"x", b"abc"
    )
    content += pax((b"comment", b"0123"), kind=b"g") + file(b"big", gid=b"\x80" + bytes(5) + b"\x10\0", mode=0o104755)
    content += file(b"spaces", uid=b"    12 \0")
    found = unpacked(archive(tmp_path / "x.tar", content + END))
    assert {"p/q/tail", "old", "nul", os.fsdecode(long)} < set(found)
    assert found["s"][5] == link
    assert found[os.fsdecode(b"\xc3\xa4/\xff")][1:4] == (65534, 0, -1_250_000_000)
    assert found["big"][:3] == ("-rwsr-xr-x", 0, 4096)
    assert found["spaces"][1] == 0o12


def test_attributes_of_another_system_are_dropped(tmp_path: Path) -> None:
    names = (b"security.selinux", b"security.ima", b"trusted.overlay.opaque", b"system.nfs4_acl", b"btrfs.compression")
    records = [(b"SCHILY.xattr." + name, b"x\0") for name in names]
    records += [(b"RHT.security.selinux", b"x"), (b"LIBARCHIVE.xattr.user.x", b"eA"), (b"SCHILY.ino", b"5")]
    found = unpacked(archive(tmp_path / "x.tar", pax(*records) + file(b"a") + END))
    assert found["a"][6] == {}


def test_a_filesystem_without_user_attributes(tmp_path: Path) -> None:
    """Kept where the filesystem has them (a tmpfs since Linux 6.6), else told."""
    stream = io.StringIO()
    path = archive(tmp_path / "x.tar", pax((b"SCHILY.xattr.user.x", b"\0y")) + file(b"a") + END)
    found = unpacked(path, console=Console(stream))
    assert found["a"][6] == {"user.x": b"\0y"} or "1 user attributes are left out" in stream.getvalue()


# --- the surroundings ------------------------------------------------------------------------------------------------


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compress("zstd", archive(tmp_path / "x.tar", file(b"a") + END))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="zstd is not installed"):
        unpacked(path)


def test_a_tree_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", file(b"a") + END)
    with pytest.raises(MkimageError, match="is not empty"):
        unpack.tar(path, tmp_path, unpack.Limits(), Console(io.StringIO()))
    assert list(tmp_path.iterdir()) == [path]
