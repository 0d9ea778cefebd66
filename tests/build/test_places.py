"""Who builds and where: an ordinary user, two builds on one cache, a disk that is full."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a user or a small filesystem")


# -- an ordinary user ------------------------------------------------------------------------------------------------


@needs_root
def test_an_ordinary_user_bootstraps_and_builds(user: pwd.struct_passwd, run_cli_as, seed_cache) -> None:
    home = Path(user.pw_dir)
    seed_cache(home / ".cache/image-create", owner=(user.pw_uid, user.pw_gid))
    os.chown(home / ".cache", user.pw_uid, user.pw_gid)
    done = run_cli_as(user, "-i", "debian-minimal", "--no-agent", "-t", "qcow2,tar", "-o", "a", cwd=home)
    assert done.returncode == 0, done.stderr
    assert "bootstrap" in done.stderr
    left = {path.name for path in home.iterdir() if path.name[:4] not in (".bas", ".pro")}
    names = {"a.qcow2", "a.tar", "a.qcow2.manifest.json", "a.tar.manifest.json", "SHA256SUMS", ".cache"}
    assert left == names
    for path in (*home.iterdir(), *(home / ".cache").rglob("*")):
        assert path.stat().st_uid == user.pw_uid, path
    owners = {}
    with tarfile.open(home / "a.tar") as tar:
        for member in tar:
            assert member.uid < 65536 and member.gid < 65536, member.name
            owners[member.name] = (member.uid, member.gid, member.mode)
    assert owners["./etc/shadow"] == (0, 42, 0o640)
    assert owners["./usr/bin/passwd"] == (0, 0, 0o4755)
    assert {uid for uid, _, _ in owners.values()} - {0}
    info = json.loads(
        subprocess.run(
            ["qemu-img", "info", "--output=json", home / "a.qcow2"], capture_output=True, text=True, check=True
        ).stdout
    )
    assert info["virtual-size"] == 5 << 30
    # Again, on disk and from the user's own cache.
    done = run_cli_as(user, "-i", "debian-minimal", "--no-agent", "-f", "-t", "tar", "-o", "b", cwd=home)
    assert done.returncode == 0, done.stderr
    assert "unpack the cached base" in done.stderr
    with tarfile.open(home / "b.tar") as tar:
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
