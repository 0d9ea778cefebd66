"""Cache entries are complete or absent, whoever writes them and however the writer ends."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amphora_mkimage.errors import BadValueError
from amphora_mkimage.fetch.store import Store

CONTENT = b"the content of a package" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def damage() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, damage: list[str]) -> Store:
    made = Store(tmp_path, damage.append)
    made.prepare()
    return made


def left_behind(store: Store) -> list[Path]:
    return list(store.root.rglob(".partial-*"))


def test_a_package_goes_in_and_comes_out(store: Store, tmp_path: Path, damage: list[str]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(CONTENT)
    assert not store.take_deb(DIGEST, target)
    store.put_deb(DIGEST, source)
    assert store.has_deb(DIGEST)
    assert store.take_deb(DIGEST, target)
    assert target.read_bytes() == CONTENT
    target.write_bytes(b"changed")  # a copy: the entry stays what it was
    assert store.take_deb(DIGEST, target)
    assert damage == []


@pytest.mark.parametrize("change", [b"", CONTENT[:-1], CONTENT[:-1] + b"X", CONTENT + b"X"])
def test_a_damaged_package_is_found_removed_and_made_again(
    change: bytes, store: Store, tmp_path: Path, damage: list[str]
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(CONTENT)
    store.put_deb(DIGEST, source)
    (store.debs / f"{DIGEST}.deb").write_bytes(change)
    assert not store.take_deb(DIGEST, target)
    assert not target.exists()
    assert not store.has_deb(DIGEST)
    assert len(damage) == 1 and DIGEST in damage[0]
    store.put_deb(DIGEST, source)
    assert store.take_deb(DIGEST, target)


def put_base(store: Store, content: bytes) -> None:
    with store.writing_base("key") as file:
        file.write(content)


def test_a_base_goes_in_and_comes_out(store: Store, damage: list[str]) -> None:
    assert store.checked_base("key") is None
    put_base(store, CONTENT)
    found = store.checked_base("key")
    assert found is not None
    assert store.has_base("key")
    assert found.read_bytes() == CONTENT
    assert left_behind(store) == []
    assert damage == []


def test_rpms_and_their_list_go_in_and_come_out(store: Store, damage: list[str]) -> None:
    assert store.rpm(DIGEST) is None
    assert store.rpm_list("k") is None
    store.put_rpm(DIGEST, CONTENT)
    for content in (b"[1]", b"[2]"):
        store.put_rpm_list("k", content)
    assert store.rpm(DIGEST) == CONTENT
    assert store.rpm_list("k") == b"[2]"
    assert damage == []


@pytest.mark.parametrize("name", [DIGEST, "k.list"])
def test_a_damaged_rpm_or_list_is_removed(name: str, store: Store, damage: list[str]) -> None:
    store.put_rpm(DIGEST, CONTENT)
    store.put_rpm_list("k", CONTENT)
    content = bytearray((store.rpms / name).read_bytes())
    content[-1] ^= 1
    (store.rpms / name).write_bytes(content)
    assert (store.rpm(DIGEST) is None) == (name == DIGEST)
    assert (store.rpm_list("k") is None) == (name != DIGEST)
    assert len(damage) == 1
    assert name in damage[0]
    assert not (store.rpms / name).exists()


def test_nothing_is_visible_before_the_end(store: Store) -> None:
    with store.writing_base("key") as file:
        file.write(CONTENT)
        file.flush()
        assert store.checked_base("key") is None
        assert not store.has_base("key")
    assert store.checked_base("key") is not None


def test_an_error_leaves_nothing(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.writing_base("key") as file:
        file.write(CONTENT)
        raise KeyboardInterrupt
    assert store.checked_base("key") is None
    assert left_behind(store) == []


@pytest.mark.parametrize("change", [b"", CONTENT[:-1], CONTENT + b"X"])
def test_a_damaged_base_is_found_and_removed(change: bytes, store: Store, damage: list[str]) -> None:
    put_base(store, CONTENT)
    next(store.bases.iterdir()).write_bytes(change)
    assert store.checked_base("key") is None
    assert list(store.bases.iterdir()) == []
    assert len(damage) == 1
    put_base(store, CONTENT)
    assert store.checked_base("key") is not None


def test_a_damaged_base_does_not_hide_a_good_one(store: Store, damage: list[str]) -> None:
    put_base(store, CONTENT)
    put_base(store, CONTENT[1:])  # a second build of the same packages: other times in the tree
    good, damaged = sorted(store.bases.iterdir(), reverse=True)
    damaged.write_bytes(b"")
    assert store.checked_base("key") == good
    assert len(damage) == 1


def write_many(directory: Path, writer: int) -> None:
    store = Store(directory, lambda text: None)
    for _ in range(30):
        put_base(store, bytes([writer]) * 100_000)
        store.put_deb(DIGEST, directory / "source")


def test_parallel_writers_and_a_reader(store: Store, tmp_path: Path, damage: list[str]) -> None:
    """A reader gets nothing or what one writer wrote, never a mixture, and takes nothing for damaged."""
    (tmp_path / "source").write_bytes(CONTENT)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(tmp_path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    try:
        while any(writer.is_alive() for writer in writers):
            found = store.checked_base("key")
            if found is not None:
                content = found.read_bytes()
                assert len(content) == 100_000
                assert len(set(content)) == 1
            if store.take_deb(DIGEST, tmp_path / "target"):
                assert (tmp_path / "target").read_bytes() == CONTENT
    finally:
        for writer in writers:
            writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert left_behind(store) == []
    assert damage == []
    assert store.checked_base("key") is not None


WRITER = """
import sys, time
from pathlib import Path
from amphora_mkimage.fetch.store import Store
store = Store(Path(sys.argv[1]), print)
with store.writing_base("key") as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_writer_leaves_no_entry(number: int, store: Store, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"writing\n"
    child.send_signal(number)
    child.wait()
    child.stdout.close()
    assert store.checked_base("key") is None
    assert not store.has_base("key")
    for left in left_behind(store):  # after SIGKILL only; swept a day later
        old = time.time() - 3 * 24 * 3600
        os.utime(left, (old, old))
    store.prepare()
    assert left_behind(store) == []


def test_a_living_writers_file_is_not_swept(store: Store) -> None:
    with store.writing_base("key") as file:
        file.write(CONTENT)
        store.prepare()
    assert store.checked_base("key") is not None


# --- two users -----------------------------------------------------------------------------------------------------

OTHER = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may write to; pytest's own is one user's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o1777)
        yield Path(name)


def as_user(uid: int, function: Callable[[], None]) -> None:
    """Call a function as another user, in a process of its own."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@needs_root
def test_the_cache_of_another_user_is_refused_by_name(open_directory: Path) -> None:
    Store(open_directory, print).prepare()

    def refused() -> None:
        with pytest.raises(BadValueError, match=r"^-c: the cache .*/amphora-mkimage belongs to root$") as caught:
            Store(open_directory, print).require_ours()
        assert "-c" in caught.value.remedy
        Store(open_directory / "own", print).require_ours()  # which is not there yet

    as_user(OTHER, refused)
    Store(open_directory, print).require_ours()


@needs_root
def test_a_part_of_another_users_is_refused_too(open_directory: Path) -> None:
    (open_directory / "amphora-mkimage").mkdir()
    (open_directory / "amphora-mkimage/bases").mkdir()
    os.chown(open_directory / "amphora-mkimage", OTHER, OTHER)

    def refused() -> None:
        with pytest.raises(BadValueError, match=r"/bases belongs to root$"):
            Store(open_directory, print).require_ours()

    as_user(OTHER, refused)
    (open_directory / "amphora-mkimage/bases").rmdir()
    as_user(OTHER, lambda: Store(open_directory, print).require_ours())


@needs_root
def test_what_root_writes_into_a_users_cache_is_the_users(open_directory: Path) -> None:
    """As with `sudo -E`: the next build of the user's finds all of it."""
    source = open_directory / "source"
    source.write_bytes(CONTENT)

    def first() -> None:
        Store(open_directory, print).root.mkdir()

    def then() -> None:
        store = Store(open_directory, print)
        store.require_ours()
        assert store.take_deb(DIGEST, store.root / "copy")
        assert store.recall("key") == b"text"
        assert store.checked_base("base") is not None

    as_user(OTHER, first)
    store = Store(open_directory, print)
    store.prepare()
    store.put_deb(DIGEST, source)
    store.remember("key", b"text")
    with store.writing_base("base") as file:
        file.write(b"tree")
    as_user(OTHER, then)


@needs_root
def test_an_entry_that_may_not_be_read_is_made_again(open_directory: Path) -> None:
    """What root left in a user's cache before it gave its files away."""
    source = open_directory / "source"
    source.write_bytes(CONTENT)
    as_user(OTHER, Store(open_directory, print).prepare)
    entry = Store(open_directory, print).debs / f"{DIGEST}.deb"
    entry.write_bytes(CONTENT)
    entry.chmod(0o600)

    def again() -> None:
        store = Store(open_directory, print)
        assert not store.has_deb(DIGEST)
        assert not store.take_deb(DIGEST, store.root / "copy")
        store.put_deb(DIGEST, source)
        assert store.take_deb(DIGEST, store.root / "copy")

    as_user(OTHER, again)
