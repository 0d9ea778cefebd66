"""File verbs on a tree whose links point everywhere; nothing outside may be read or changed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.namespace import NamespaceGuest, program_of
from amphora_mkimage.guest.paths import split, walk

T = TypeVar("T")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("untouched")
    (place / "dir").mkdir()
    (place / "dir/file").write_text("untouched")
    return place


@pytest.fixture
def tree(tmp_path: Path, outside: Path) -> Path:
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc/file").write_text("content")
    (root / "etc/.hidden").write_text("")
    (root / "absolute").symlink_to(outside)
    (root / "absolute-file").symlink_to(outside / "secret")
    (root / "up").symlink_to("../" * 30 + str(outside).lstrip("/"))
    (root / "up-file").symlink_to("../outside/secret")
    (root / "loop").symlink_to("loop")
    (root / "ping").symlink_to("pong")
    (root / "pong").symlink_to("ping")
    (root / "inner").symlink_to("/etc")
    (root / "inner-file").symlink_to("/etc/file")
    return root


def snapshot(place: Path) -> dict[str, tuple[int, int, int, bytes]]:
    found = {}
    for path in sorted(place.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_mtime_ns, content)
    return found


def inside(tree: Path, work: Callable[[NamespaceGuest], T]) -> T:
    def run() -> T:
        guest = NamespaceGuest(tree, Console())
        try:
            return work(guest)
        finally:
            guest.close()

    return userns.run(run)


def names_in(guest: NamespaceGuest, path: str) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        guest.ls0(path, file.name)
        return file.read()


HOSTILE = ["/absolute", "/up", "/loop", "/ping", "/absolute-file", "/up-file", "/../outside", "/etc/../../outside"]
VERBS: dict[str, Callable[[NamespaceGuest, str], object]] = {
    "write": lambda guest, path: guest.write(path, b"changed"),
    "write_append": lambda guest, path: guest.write_append(path, b"changed"),
    "read_file": lambda guest, path: guest.read_file(path),
    "mkdir_p": lambda guest, path: guest.mkdir_p(path),
    "chmod": lambda guest, path: guest.chmod(0o777, path),
    "chown": lambda guest, path: guest.chown(33, 33, path),
    "ln_sf": lambda guest, path: guest.ln_sf("x", path),
    "mv": lambda guest, path: guest.mv("/etc/file", path),
    "mv from": lambda guest, path: guest.mv(path, "/etc/moved"),
    "rm_f": lambda guest, path: guest.rm_f(path),
    "rm_rf": lambda guest, path: guest.rm_rf(path),
    "truncate": lambda guest, path: guest.truncate(path),
    "exists": lambda guest, path: guest.exists(path),
    "ls": lambda guest, path: guest.ls(path),
    "ls0": names_in,
    "pread": lambda guest, path: guest.pread(path, 100, 0),
    "lstatnslist": lambda guest, path: [s for s in guest.lstatnslist(path, ["secret", "dir"]) if s["st_ino"] != -1],
    "readlinklist": lambda guest, path: guest.readlinklist(path, ["secret", "dir"]),
    "find": lambda guest, path: guest.find(path),
    "glob_expand": lambda guest, path: guest.glob_expand(f"{path}*"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_reaches_outside(verb: str, tree: Path, outside: Path) -> None:
    before = snapshot(outside)

    def work(guest: NamespaceGuest) -> list[object]:
        answers: list[object] = []
        for link in HOSTILE:
            for path in (link, f"{link}/secret", f"{link}/dir", f"{link}/dir/file", f"{link}/new", f"{link}/new/deep"):
                try:
                    answers.append(VERBS[verb](guest, path))
                except (OSError, ValueError):
                    answers.append(None)
        return answers

    answers = inside(tree, work)
    assert snapshot(outside) == before
    for answer in answers:
        assert not answer or "untouched" not in str(answer)
        assert not answer or "secret" not in str(answer)
        assert verb != "lstatnslist" or not answer


def test_links_resolve_inside(tree: Path) -> None:
    def work(guest: NamespaceGuest) -> bytes:
        guest.write("/inner/new", b"1")
        guest.write_append("/inner/new", b"2")
        guest.truncate("/inner-file")
        return guest.read_file("/etc/new")

    assert inside(tree, work) == b"12"
    assert (tree / "etc/file").read_bytes() == b""
    assert (tree / "inner-file").is_symlink()


def test_the_kinds_of_entries(tree: Path) -> None:
    def work(guest: NamespaceGuest) -> list[tuple[bool, bool, bool, bool]]:
        return [
            (guest.exists(path), guest.is_file(path), guest.is_dir(path), guest.is_symlink(path))
            for path in ("/etc/file", "/etc", "/inner", "/loop", "/absent", "/absolute")
        ]

    assert inside(tree, work) == [
        (True, True, False, False),
        (True, False, True, False),
        (True, False, False, True),
        (False, False, False, True),
        (False, False, False, False),
        (False, False, False, True),  # its target exists outside only
    ]


def test_change_and_remove(tree: Path) -> None:
    def work(guest: NamespaceGuest) -> tuple[str, list[str], list[str], list[str]]:
        guest.mkdir_p("/a/b/c")
        guest.mkdir_p("/a/b/c")
        guest.write("/a/b/file", b"x")
        guest.chmod(0o4755, "/a/b/file")
        guest.chown(12, 34, "/a/b/file")
        guest.ln_sf("../target", "/a/link")
        guest.ln_sf("other", "/a/link")
        guest.mv("/a/b/file", "/a/moved")
        guest.rm_f("/absent")
        guest.rm_rf("/absent/too")
        return guest.readlink("/a/link"), guest.ls("/a"), guest.find("/a"), guest.glob_expand("/a/[bm]*")

    assert inside(tree, work) == ("other", ["b", "link", "moved"], ["b", "b/c", "link", "moved"], ["/a/b", "/a/moved"])
    assert (tree / "a/moved").stat().st_mode & 0o7777 in (0o4755, 0o0755)  # chown clears setuid, chown(2)
    assert (tree / "a").stat().st_mode & 0o777 == 0o755
    if os.geteuid() == 0:
        assert ((tree / "a/moved").stat().st_uid, (tree / "a/moved").stat().st_gid) == (12, 34)
    inside(tree, lambda guest: guest.rm_rf("/a"))
    assert not (tree / "a").exists()


def test_globs_skip_hidden_names_unless_asked(tree: Path) -> None:
    assert inside(tree, lambda guest: guest.glob_expand("/etc/*")) == ["/etc/file"]
    assert inside(tree, lambda guest: guest.glob_expand("/etc/.[!.]*")) == ["/etc/.hidden"]
    assert inside(tree, lambda guest: guest.glob_expand("/etc/absent")) == []
    assert inside(tree, lambda guest: guest.glob_expand("/e*/f?le")) == ["/etc/file"]


def test_write_gives_0644_whatever_the_umask(tree: Path) -> None:
    old = os.umask(0o077)
    try:
        inside(tree, lambda guest: (guest.write("/new", b""), guest.mkdir_p("/newdir")))
    finally:
        os.umask(old)
    assert (tree / "new").stat().st_mode & 0o777 == 0o644
    assert (tree / "newdir").stat().st_mode & 0o777 == 0o755


def test_mounts_do_not_follow_links(tree: Path, outside: Path) -> None:
    """/proc as a link to a directory elsewhere must not get a mount there."""
    for name in ("proc", "sys", "dev", "run", "tmp"):
        (tree / name).symlink_to(outside)

    def work(guest: NamespaceGuest) -> None:
        with guest.mounted():
            pass

    with pytest.raises(MkimageError):
        inside(tree, work)


@pytest.mark.skipif(not Path("/sys/firmware").is_dir(), reason="no such host")
def test_the_firmware_of_the_host_is_not_seen(tree: Path) -> None:
    """Packages do other things where there is /sys/firmware/efi, and could write to the firmware through it."""
    for name in ("proc", "sys", "dev", "run", "tmp"):
        (tree / name).mkdir()

    def work(guest: NamespaceGuest) -> None:
        with guest.mounted():
            assert guest.exists("/sys/class")
            assert guest.ls("/sys/firmware") == []
            with pytest.raises(OSError, match="Read-only"):
                guest.write("/sys/firmware/x", b"")

    inside(tree, work)


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["apt-get", "-y"], "apt-get"),
        (["env", "APT_CONFIG=/run/a=b", "apt-get", "-o", "x=y"], "apt-get"),
        (["env"], "env"),
    ],
)
def test_the_program_is_named_and_not_its_environment(words: list[str], program: str) -> None:
    assert program_of(words) == program


@pytest.mark.parametrize("path", ["/", "", "/a/..", "/."])
def test_split_refuses_what_names_no_entry(path: str) -> None:
    with pytest.raises(ValueError, match="does not name"):
        split(path)


def test_a_walk_visits_directories_and_no_links(tree: Path, outside: Path) -> None:
    (tree / "walk/below/deep").mkdir(parents=True)
    (tree / "walk/out").symlink_to(outside)
    (tree / "walk/below/file").touch()
    root = os.open(tree / "walk", os.O_PATH | os.O_DIRECTORY)
    try:
        seen = {path: sorted(names) for path, names, _ in walk(root)}
    finally:
        os.close(root)
    assert seen == {"/": ["below", "out"], "/below": ["deep", "file"], "/below/deep": []}
