"""The distribution's agent, from Debian's archive: complete, repaired, running."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amphora_mkimage.console import Console
from amphora_mkimage.verify.command import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def image(request: pytest.FixtureRequest, run_cli, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("package")
    release = str(request.param)
    done = run_cli("-i", "debian-minimal", "-d", release, "-p", "-o", place / "a", "-w", place, "-c", cache_dir)
    assert done.returncode == 0, done.stderr
    assert "import the amphora agent" in done.stderr
    return place / "a.qcow2"


def test_it_is_complete(image: Path) -> None:
    report = verify(image, Console())
    assert report.complete, report.text()


def test_the_manifest_names_the_package(image: Path) -> None:
    manifest = json.loads(image.with_name(f"{image.name}.manifest.json").read_text())
    agent = manifest["agent"]
    versions = {package["name"]: package["version"] for package in manifest["packages"]}
    assert (agent["source"], agent["package"]) == ("package", "octavia-agent")
    assert agent["version"] == versions["octavia-agent"] == versions["python3-octavia"]
    assert agent["version"].split(":")[-1].startswith(f"{agent['octavia']}-")


def test_it_runs(image: Path, run_cli) -> None:
    """The controller drives it through all its steps, and no unit fails."""
    done = run_cli("boot", "--json", image, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["failed_units"]) == ("running", [])
    assert result["agent"]["unit"] == "amphora-agent.service"
    assert {step["name"] for step in result["agent"]["steps"] if step["ok"]} >= {"plug VIP", "traffic", "heartbeat"}
