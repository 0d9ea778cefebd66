"""What the tests of probes share."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from branch_world import world

from amphora_mkimage.console import Console

__all__ = ["world"]


@pytest.fixture
def console() -> Console:
    return Console(io.StringIO())


@pytest.fixture
def farm(tmp_path: Path) -> Path:
    """A directory of links to all programs of this host, to take one away from."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for place in ("/usr/local/bin", "/usr/bin", "/bin"):
        for program in Path(place).glob("*"):
            if not (directory / program.name).is_symlink():
                (directory / program.name).symlink_to(program)
    return directory
