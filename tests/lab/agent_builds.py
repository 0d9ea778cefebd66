"""Images of stand-ins with the agent: built for their Python, and driven as a controller does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amphora_mkimage.agent import install

#: The lab's packages are Debian's (trixie).
PYTHON = "3.13"


def build(base: str, environment: Mapping[str, str], place: Path) -> Path:
    """Build the default qcow2 with an empty cache; its path.

    :param environment: that sends the build to the lab
    """
    program = [sys.executable, Path(__file__).with_name("with_python.py"), PYTHON]
    arguments = ["-i", base, "-o", place / "a", "-w", place, "-c", place / "cache", "-l", place / "log"]
    env = {**os.environ, **environment}
    done = subprocess.run([*program, *arguments], env=env, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr
    return place / "a.qcow2"


def check_manifest(image: Path) -> None:
    """See every package of the agent in the manifest."""
    found = json.loads(image.with_name(f"{image.name}.manifest.json").read_text())["agent"]
    chosen = install.choose(PYTHON, "amd64")
    assert (found["octavia"], found["python"]) == (chosen.version, PYTHON)
    assert [package["sha256"] for package in found["packages"]] == [package.sha256 for package in chosen.kept]


def drive(run_cli: Any, image: Path) -> None:
    """Boot it, and see every step of the controller done."""
    done = run_cli("boot", "--json", "--timeout", "1800", image, timeout=2000)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["failed_units"]) == ("running", [])
    assert [step["name"] for step in result["agent"]["steps"] if not step["ok"]] == []
    assert {step["name"] for step in result["agent"]["steps"]} >= {"plug VIP", "traffic", "reload", "heartbeat"}
