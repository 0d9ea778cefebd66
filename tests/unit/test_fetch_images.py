"""The cache of images: whole or absent, however a download ends and however many want the same one."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_server import Fault, FaultServer, running

from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.checksums import Digest
from amphora_mkimage.fetch.images import Images
from amphora_mkimage.fetch.published import Obtained, obtain_own

CONTENT = random.Random(3).randbytes(3_000_000)
DIGEST = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running() as made:
        made.files["/image.qcow2"] = CONTENT
        made.etags["/image.qcow2"] = '"one"'
        yield made


@pytest.fixture
def damage() -> list[str]:
    return []


@pytest.fixture
def images(tmp_path: Path, damage: list[str]) -> Images:
    made = Images(tmp_path, damage.append)
    made.prepare()
    return made


def url_of(server: FaultServer) -> str:
    return f"{server.url}/image.qcow2#sha256={DIGEST.hex}"


def obtain(server: FaultServer, images: Images) -> Obtained:
    return obtain_own(url_of(server), images, Console(io.StringIO()))


PROGRAM = """
import sys
from pathlib import Path
from amphora_mkimage.console import Console
from amphora_mkimage.fetch.images import Images
from amphora_mkimage.fetch.published import obtain_own
images = Images(Path(sys.argv[2]), print)
images.prepare()
found = obtain_own(sys.argv[1], images, Console())
print("cached" if found.cached else "fetched", found.path)
"""


def start(server: FaultServer, directory: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", PROGRAM, url_of(server), str(directory)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(true: object, what: str) -> None:
    end = time.monotonic() + 120
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.01)


def files(images: Images) -> list[str]:
    return sorted(path.name for path in images.root.iterdir())


@pytest.mark.parametrize("position", [0, 1_234_567, len(CONTENT) - 1])
def test_one_flipped_bit_is_found_and_the_image_fetched_again(
    position: int, server: FaultServer, images: Images, damage: list[str]
) -> None:
    path = obtain(server, images).path
    changed = bytearray(CONTENT)
    changed[position] ^= 1 << (position % 8)
    path.write_bytes(changed)
    found = obtain(server, images)
    assert not found.cached
    assert found.path.read_bytes() == CONTENT
    assert len(damage) == 1 and str(path) in damage[0]
    assert obtain(server, images).cached


@pytest.mark.parametrize("change", [b"", CONTENT[:-1], CONTENT + b"x"])
def test_another_length_is_found(change: bytes, server: FaultServer, images: Images, damage: list[str]) -> None:
    obtain(server, images).path.write_bytes(change)
    assert images.checked(DIGEST, "image.qcow2") is None
    assert files(images) == []
    assert len(damage) == 1


def test_a_damaged_image_is_gone_even_if_no_other_can_be_had(
    server: FaultServer, images: Images, damage: list[str]
) -> None:
    obtain(server, images).path.write_bytes(b"damaged")
    server.files.clear()
    with pytest.raises(MkimageError, match="is not there"):
        obtain(server, images)
    assert files(images) == []


def test_a_killed_download_leaves_nothing_that_passes_for_an_image(
    server: FaultServer, images: Images, tmp_path: Path
) -> None:
    server.faults["/image.qcow2"] = Fault(stall=2_000_000, stalls=1)
    child = start(server, tmp_path)
    until(lambda: server.sent >= 2_000_000, "the download does not begin")
    until(lambda: any(path.stat().st_size >= 1_000_000 for path in images.root.iterdir()), "nothing is written")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert images.checked(DIGEST, "image.qcow2") is None
    assert all(name.startswith(".partial-") for name in files(images))
    images.prepare()  # the next build's beginning does not throw away what it can go on with
    assert obtain(server, images).path.read_bytes() == CONTENT
    first, second = server.asked("/image.qcow2")
    assert "range" not in first.headers
    assert int(second.headers["range"].removeprefix("bytes=").removesuffix("-")) >= 1_000_000
    assert second.headers["if-range"] == '"one"'
    assert files(images) == [f"{DIGEST.hex}-image.qcow2"]


def test_two_builds_at_once_fetch_it_once(server: FaultServer, images: Images, tmp_path: Path) -> None:
    children = [start(server, tmp_path) for _ in range(3)]
    ends = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], ends
    told = sorted(out.split()[0] for out, _ in ends)
    assert told == ["cached", "cached", "fetched"]
    assert len(server.asked("/image.qcow2")) == 1
    assert server.sent == len(CONTENT)
    assert files(images) == [f"{DIGEST.hex}-image.qcow2"]


def test_who_waits_goes_on_when_the_other_is_killed(server: FaultServer, images: Images, tmp_path: Path) -> None:
    server.faults["/image.qcow2"] = Fault(stall=1_000_000, stalls=1)
    first = start(server, tmp_path)
    until(lambda: server.sent >= 1_000_000, "the first download does not begin")
    second = start(server, tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        second.communicate(timeout=1.5)  # it waits, and asks for nothing
    assert len(server.asked("/image.qcow2")) == 1
    first.kill()
    first.communicate()
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert out.startswith("fetched")
    assert images.checked(DIGEST, "image.qcow2") is not None
    assert len(server.asked("/image.qcow2")) == 2


def make_partial(images: Images, content: bytes) -> Path:
    with images.partial(str(DIGEST), known=True, on_wait=lambda: None) as partial:
        partial.restart('"one"')
        partial.write(content)
    return next(path for path in images.root.iterdir() if path.suffix == "")


def test_old_partials_are_swept_but_not_under_somebodys_hands(images: Images) -> None:
    path = make_partial(images, b"begun")
    old = time.time() - 30 * 24 * 3600
    images.prepare()
    assert path.exists()
    os.utime(path, (old, old))
    with images.partial(str(DIGEST), known=True, on_wait=lambda: None):
        os.utime(path, (old, old))
        images.prepare()
        assert path.exists()
    images.prepare()
    assert not path.exists()
    images.prepare()
    assert files(images) == []


def test_a_partial_that_is_whole_already(server: FaultServer, images: Images) -> None:
    """The build was killed between the last byte and the new name."""
    make_partial(images, CONTENT)
    assert obtain(server, images).path.read_bytes() == CONTENT
    assert server.sent == 0


def test_a_partial_of_something_longer(server: FaultServer, images: Images) -> None:
    make_partial(images, CONTENT + b"more")
    assert obtain(server, images).path.read_bytes() == CONTENT
    assert files(images) == [f"{DIGEST.hex}-image.qcow2"]


@pytest.mark.parametrize("validator", ["", "\n", 'evil"\r\nX-Evil: 1', " ", '"two"', "\udc80"])
def test_a_damaged_validator_does_no_harm(validator: str, server: FaultServer, images: Images) -> None:
    path = make_partial(images, CONTENT[:1_000_000])
    path.with_name(f"{path.name}.validator").write_bytes(validator.encode(errors="surrogateescape"))
    assert obtain(server, images).path.read_bytes() == CONTENT
    assert "x-evil" not in server.seen[0].headers


def test_a_partial_is_no_link(server: FaultServer, images: Images, tmp_path: Path) -> None:
    path = make_partial(images, b"begun")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(victim)
    with pytest.raises(MkimageError, match="cannot write"):
        obtain(server, images)
    assert victim.read_bytes() == b"precious"


def test_a_full_disk(server: FaultServer, tmp_path: Path, damage: list[str]) -> None:
    place = tmp_path / "full"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this user may not mount")
    try:
        images = Images(place, damage.append)
        images.prepare()
        with pytest.raises(MkimageError, match="No space left on device") as raised:
            obtain(server, images)
        assert "-c" in raised.value.remedy
        assert images.checked(DIGEST, "image.qcow2") is None
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "a\nb", "x" * 1000, "..", ""])
def test_a_name_is_only_for_people(name: str, images: Images) -> None:
    path = images.entry(DIGEST, name)
    assert path.parent == images.root
    assert path.name.startswith(DIGEST.hex)
    assert len(path.name) < 255
    assert "\n" not in path.name
