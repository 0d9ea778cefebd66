"""The agent in an image of Ubuntu, against a stand-in of its upstreams (tests/lab/ubuntu.py) with Debian's Python."""

from __future__ import annotations

from pathlib import Path

import agent_builds
import pytest

from amphora_mkimage.console import Console
from amphora_mkimage.verify.command import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(ubuntu_lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_builds.build("ubuntu", ubuntu_lab.environment, tmp_path_factory.mktemp("ubuntu"))


def test_it_is_complete(image: Path) -> None:
    report = verify(image, Console())
    assert report.complete, report.text()


def test_the_manifest_has_every_package_of_the_agent(image: Path) -> None:
    agent_builds.check_manifest(image)


def test_the_controller_drives_it(image: Path, run_cli) -> None:
    agent_builds.drive(run_cli, image)
