"""Who builds and where: an ordinary user, two builds on one cache, a disk that is full."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from public import public_root

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a user or a small filesystem")


# -- an ordinary user ------------------------------------------------------------------------------------------------


#: What a path of a CI job, a person's name or a typo may have in it. (PYTHONPATH cannot have a colon.)
_AWKWARD = """it's a "job"; $(false) 100%41 größe, [x]?@@1&"""


@needs_root
def test_an_ordinary_user_bootstraps_and_builds(user: pwd.struct_passwd, run_cli_as, seed_cache) -> None:
    """In directories with awkward names, which are made where they are missing; the program itself lies in one, too."""
    home = Path(user.pw_dir)
    place = home / _AWKWARD
    shutil.copytree(public_root(), place / "program")
    output, cache = place / f"out:{_AWKWARD}", place / f"cache:{_AWKWARD}"
    seed_cache(cache)
    for path in (place, *place.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)

    def build(*arguments: str) -> str:
        words = ("-i", "debian-minimal", "--no-agent", "-w", f"{place}/work/w", "-c", str(cache), *arguments)
        done = run_cli_as(user, *words, cwd=home, env={"PYTHONPATH": str(place / "program")})
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "bootstrap" in build("-t", "qcow2,tar", "-o", f"{output}/a b")
    assert {path.name for path in place.iterdir()} == {"program", output.name, cache.name}
    names = {"a b.qcow2", "a b.tar", "a b.qcow2.manifest.json", "a b.tar.manifest.json", "SHA256SUMS"}
    assert {path.name for path in output.iterdir()} == names
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=output, check=True)
    for path in (*output.iterdir(), *cache.rglob("*")):
        assert path.stat().st_uid == user.pw_uid, path
    owners = {}
    with tarfile.open(output / "a b.tar") as tar:
        for member in tar:
            assert member.uid < 65536 and member.gid < 65536, member.name
            owners[member.name] = (member.uid, member.gid, member.mode)
    assert owners["./etc/shadow"] == (0, 42, 0o640)
    assert owners["./usr/bin/passwd"] == (0, 0, 0o4755)
    assert {uid for uid, _, _ in owners.values()} - {0}
    info = json.loads(
        subprocess.run(
            ["qemu-img", "info", "--output=json", output / "a b.qcow2"], capture_output=True, text=True, check=True
        ).stdout
    )
    assert info["virtual-size"] == 5 << 30
    # Again, on disk and from the user's own cache.
    assert "unpack the cached base" in build("-f", "-t", "tar", "-o", f"{output}/b")
    with tarfile.open(output / "b.tar") as tar:
        assert {member.name: (member.uid, member.gid, member.mode) for member in tar} == owners


# -- two at once -----------------------------------------------------------------------------------------------------


def test_two_builds_at_once_on_one_cache(start_cli, run_cli, seed_cache, tmp_path: Path) -> None:
    """Both bootstrap, both write the same entry, into the same directory."""
    cache = seed_cache()
    output = tmp_path / "output"
    output.mkdir()
    children = []
    for name in ("a", "b"):
        with (tmp_path / f"{name}.err").open("wb") as errors:
            arguments = ("-i", "debian-minimal", "--no-agent", "-o", output / name, "-w", output, "-c", cache)
            children.append(start_cli(*arguments, stderr=errors))
    statuses = [child.wait(1200) for child in children]
    texts = [(tmp_path / f"{name}.err").read_text() for name in ("a", "b")]
    assert statuses == [0, 0], texts
    assert {path.name for path in output.iterdir()} == {
        *("a.qcow2", "a.qcow2.manifest.json", "b.qcow2", "b.qcow2.manifest.json", "SHA256SUMS")
    }
    sums = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=output, capture_output=True, text=True, check=True
    )
    assert len(sums.stdout.splitlines()) == 2
    assert list(cache.rglob(".partial-*")) == []
    # Whatever the cache has now is either used or found damaged and made again: a third build works.
    done = run_cli("-i", "debian-minimal", "--no-agent", "-t", "tar", "-o", output / "c", "-w", output, "-c", cache)
    assert done.returncode == 0, done.stderr
    assert "unpack the cached base" in done.stderr


# -- a full disk -----------------------------------------------------------------------------------------------------


#: sh -c _ON_SMALL sh DIRECTORY MIB COMMAND...: the command with a tmpfs on the directory, then what it left there.
_ON_SMALL = """
place=$1
mount -t tmpfs -o size=${2}m tmpfs "$place" || exit 99
[ -z "$FULL" ] || cp -a "$FULL/." "$place" || exit 98
shift 2
"$@"
status=$?
find "$place" -mindepth 1 ! -path "*/amphora-mkimage*" -exec echo LEFT {} ";" >&2
exit $status
"""


@needs_root
@pytest.mark.parametrize(
    ("small", "mib", "arguments", "cached"),
    [
        ("output", 50, (), True),  # refused before any work, as is the next but two
        ("output", 160, (), True),
        ("output", 350, ("-t", "tar"), True),
        ("work", 100, ("-f",), True),
        ("work", 700, ("-f",), True),
        ("cache", 60, (), False),
        pytest.param("work", 640, ("-f",), False, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk(
    small: str, mib: int, arguments: tuple[str, ...], cached: bool, seed_cache, cache_dir: Path, tmp_path: Path
) -> None:
    """A small filesystem in a mount namespace of the test's own.

    :param mib: its size, beside what the cache holds already
    """
    cache = cache_dir if cached else seed_cache()
    for name in ("output", "work", "cache"):
        (tmp_path / name).mkdir(exist_ok=True)
    if small == "cache":
        cache = cache.rename(tmp_path / "full")
        mib += sum(-(-file.stat().st_size // 4096) for file in cache.rglob("*.deb")) >> 8
    place = tmp_path / small
    place.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "amphora_mkimage", "-i", "debian-minimal", *arguments]
    command += [
        "-o",
        str(tmp_path / "output/a"),
        "-w",
        str(tmp_path / "work"),
        "-c",
        str(place if small == "cache" else cache),
    ]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _ON_SMALL, "sh", place, str(mib), *command],
        capture_output=True,
        text=True,
        env={**os.environ, "FULL": str(cache) if small == "cache" else ""},
        timeout=900,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr or "not enough space" in done.stderr.lower()
    assert "free some space" in done.stderr
    assert "LEFT" not in done.stderr
    assert "Traceback" not in done.stderr
    for name in ("output", "work"):
        assert list((tmp_path / name).iterdir()) == []
