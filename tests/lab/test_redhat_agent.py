"""The agent in images of Red Hat's family, against stand-ins of its upstreams (tests/lab/) with Debian's Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redhat_builds
from serve import Upstream

from amphora_mkimage.agent import install
from amphora_mkimage.console import Console
from amphora_mkimage.verify.command import verify

pytestmark = pytest.mark.slow

PYTHON = "3.13"


@pytest.fixture(scope="module", params=["fedora", "centos"])
def image(request: pytest.FixtureRequest, redhat_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = str(request.param)
    place = tmp_path_factory.mktemp(name)
    program = [sys.executable, Path(__file__).with_name("with_python.py"), PYTHON]
    arguments = ["-i", name, "-o", place / "a", "-w", place, "-c", place / "cache", "-l", place / "log"]
    env = {**os.environ, **redhat_builds.environment(redhat_upstream(name), name)}
    done = subprocess.run([*program, *arguments], env=env, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr
    return place / "a.qcow2"


def test_it_is_complete(image: Path) -> None:
    report = verify(image, Console())
    assert report.complete, report.text()


def test_the_manifest_has_every_package_of_the_agent(image: Path) -> None:
    found = json.loads(image.with_name(f"{image.name}.manifest.json").read_text())["agent"]
    chosen = install.choose(PYTHON, "amd64")
    assert (found["octavia"], found["python"]) == (chosen.version, PYTHON)
    assert [package["sha256"] for package in found["packages"]] == [package.sha256 for package in chosen.kept]


def test_files_have_their_selinux_labels(image: Path, tmp_path: Path) -> None:
    redhat_builds.check_labels(image, tmp_path)


def test_the_controller_drives_it(image: Path, run_cli) -> None:
    done = run_cli("boot", "--json", "--timeout", "1800", image, timeout=2000)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["failed_units"]) == ("running", [])
    assert [step["name"] for step in result["agent"]["steps"] if not step["ok"]] == []
    assert {step["name"] for step in result["agent"]["steps"]} >= {"plug VIP", "traffic", "reload", "heartbeat"}
