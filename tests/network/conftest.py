"""The trees in which cases are brought up, unpacked once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespaces import unpack


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
