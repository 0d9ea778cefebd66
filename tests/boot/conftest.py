"""A Python that has Octavia's controller, which this project itself never needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amphora_mkimage.agent import install, lock


@pytest.fixture(scope="session")
def octavia_python(cache_dir: Path) -> Path:
    """The interpreter of an environment with the released octavia, all of it as the agent's lock file says."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    agent = install.Agent(version, tuple(lock.select(version, "amd64")))
    place = cache_dir / "lab" / f"octavia-{agent.version}-python{version}-{agent.key[:12]}"
    python = place / "bin/python"
    if (place / "complete").exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
    requirements = place / "requirements.txt"
    requirements.write_text("".join(f"{package.requirement}\n" for package in agent.installed))
    argv = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    # pip's settings for the tests' own environment are not for this one.
    env = {name: value for name, value in os.environ.items() if name not in ("PIP_TARGET", "PIP_CONSTRAINT")}
    subprocess.run([*argv, "--require-hashes", "--requirement", requirements], check=True, env=env)
    (place / "complete").touch()
    return python
