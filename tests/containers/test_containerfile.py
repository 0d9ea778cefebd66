"""The Containerfile: its packages, and the whole of it where buildah is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from amphora_mkimage.probe.tools import TOOLS

REPOSITORY = Path(__file__).parents[2]


def test_it_installs_what_is_not_for_tests_only() -> None:
    """By the expression that stands in it, and in the README."""
    commands = re.findall(r"\$\((sed .*?) (?:/tmp/)?bindep\.txt\)", (REPOSITORY / "Containerfile").read_text())
    assert len(commands) == 1
    assert commands[0] in (REPOSITORY / "README.md").read_text()
    done = subprocess.run(
        ["sh", "-c", f"{commands[0]} {REPOSITORY}/bindep.txt"], capture_output=True, text=True, check=True
    )
    packages = set(done.stdout.split())
    assert {tool.package for tool in TOOLS} - {"apt", "coreutils", "dpkg"} <= packages
    for line in (REPOSITORY / "bindep.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert (line.split()[0] in packages) is (" test]" not in line), line


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed")
def test_it_can_be_built_and_what_is_in_it_works() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "BASE"}
    subprocess.run([REPOSITORY / "tests" / "containers" / "containerfile"], env=environ, check=True, timeout=3600)
