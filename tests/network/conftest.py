"""The trees in which cases are brought up, unpacked once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def unpack(archive: Path, target: Path) -> Path:
    """Unpack an image's tar; for an ordinary user without its owners, which no case looks at."""
    target.mkdir(parents=True)
    owners = () if os.geteuid() == 0 else ("--no-same-owner",)
    # Device nodes and the like: an ordinary user cannot make them, and every case has a /dev of its own.
    subprocess.run(["tar", "-xpf", archive, "-C", target, "--exclude=./dev/*", *owners], check=True)
    return target


@pytest.fixture(scope="session")
def trixie(built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tree of the image that other tests use as well."""
    tree = unpack(built.tar, tmp_path_factory.mktemp("network") / "trixie")
    yield tree
    shutil.rmtree(tree)


@pytest.fixture(scope="session")
def bookworm(run_cli, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tree of an image of bookworm, without the agent, which has no part in this."""
    place = tmp_path_factory.mktemp("bookworm")
    done = run_cli(
        "-i", "debian-minimal", "-d", "bookworm", "--no-agent", "-t", "tar", "-o", place / "amphora", "-w", place,
        "-c", cache_dir,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tree = unpack(place / "amphora.tar", place / "tree")
    yield tree
    shutil.rmtree(place)
