"""Directories that are missing, and room that is not there; through the real command line where that is cheap."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from make_request import make
from public import PYTHON, public_root
from static_server import serving

from amphora_mkimage import guardian, places, room
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.guest import userns

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")


def test_what_was_made_and_is_empty_goes_again(tmp_path: Path) -> None:
    work, cache, output = tmp_path / "a/b/work", tmp_path / "a/cache", tmp_path / "out"
    with places.made([(work, "-w"), (cache, "-c"), (output, "-o")]):
        (cache / "amphora-mkimage/debs").mkdir(parents=True)
        (output / "image").touch()
        assert work.is_dir()
    assert not (tmp_path / "a").exists()
    assert [path.name for path in output.iterdir()] == ["image"]


def test_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with places.made([(tmp_path / "there", "-w"), (tmp_path / "there/new", "-o")]):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert list((tmp_path / "there").iterdir()) == []


def test_an_empty_directory_of_somebody_elses_stays(tmp_path: Path) -> None:
    """Another build may have mounted something on it in its namespace."""
    with places.made([(tmp_path / "work", "-w")]):
        (tmp_path / "work/.amphora-mkimage-x").mkdir()
    assert (tmp_path / "work/.amphora-mkimage-x").is_dir()


def test_what_cannot_be_made_names_the_option_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(BadValueError, match=r"^-c: the directory /proc/nothing cannot be made: ") as caught,
        places.made([(tmp_path / "work", "-w"), (Path("/proc/nothing"), "-c")]),
    ):
        pytest.fail("it was made")
    assert "-c" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_leaves_no_directory(tmp_path: Path) -> None:
    work = tmp_path / "missing/work"
    child = os.fork()
    if child == 0:
        with places.made([(work, "-w")]) as made:
            inner = work / "inner"
            inner.mkdir()
            with guardian.guarded(inner, made.remove):
                os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    for _ in range(200):
        if not list(tmp_path.iterdir()):
            return
        subprocess.run(["sleep", "0.05"], check=True)
    pytest.fail(f"left: {list(tmp_path.rglob('*'))}")


def test_a_build_that_fails_before_any_work_leaves_none_of_its_directories(tmp_path: Path) -> None:
    """The mirror has nothing."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    argv = [PYTHON, "-m", "amphora_mkimage", "-i", "debian-minimal", "--no-agent", "-f", "-l", tmp_path / "log"]
    argv += ["-w", tmp_path / "w/w", "-c", tmp_path / "c", "-o", tmp_path / "o/image"]
    with serving(mirror) as url:
        environ = {**os.environ, "PYTHONPATH": str(public_root()), "BASE_OS_MIRROR": f"{url}/debian"}
        done = subprocess.run(argv, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 1, done.stderr
    assert f"{url}/debian" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "mirror"]


# --- room ----------------------------------------------------------------------------------------------------------


def _on_small(place: Path, mib: int, *argv: str, on_disk: bool = True, fill: str = "") -> str:
    """Return what is said about room with a tmpfs of a size on a directory."""

    def inside() -> str:
        userns.mount("tmpfs", place, "tmpfs", 0, f"size={mib}m")
        for part in ("output", "work", "cache"):
            (place / part).mkdir(exist_ok=True)
        if fill:
            (place / fill).parent.mkdir(parents=True)
            (place / fill).touch()
        try:
            room.require(make(*argv), on_disk=on_disk)
        except MkimageError as error:
            assert error.status == 1
            return f"{error.what}\n{error.remedy}"
        return ""

    return userns.run(inside)


@needs_root
@pytest.mark.parametrize(
    ("mib", "types", "said"),
    [
        (119, "qcow2", True),
        (121, "qcow2", False),
        (299, "tar", True),
        (419, "tar,qcow2", True),
        (421, "tar,qcow2", False),
    ],
)
def test_room_for_the_output(mib: int, types: str, said: bool, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    text = _on_small(place, mib, "-o", f"{place}/image", "-t", types, "-w", "/", "-c", "/", on_disk=False)
    assert (f"the image in {place}" in text) == said
    assert ("-o" in text) == said
    assert ("MiB are free, at least" in text) == said


@needs_root
def test_room_for_all_that_lands_on_one_filesystem(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    argv = ("-o", f"{place}/output/image", "-w", f"{place}/work", "-c", f"{place}/cache")
    text = _on_small(place, 930, *argv)
    assert "at least 940 MiB" in text
    for flag, directory in (("-o", "output"), ("-w", "work"), ("-c", "cache")):
        assert flag in text
        assert f"{place}/{directory}" in text
    assert _on_small(place, 945, *argv) == ""
    assert _on_small(place, 945 - 200, *argv, fill="cache/amphora-mkimage/debs/x.deb") == ""  # then not all is fetched
    assert _on_small(place, 945 - 620, *argv, on_disk=False) == ""
    assert "cache" in _on_small(place, 800, *argv, fill="cache/amphora-mkimage/logs/x.log")
