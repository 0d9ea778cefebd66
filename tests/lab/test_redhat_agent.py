"""The agent in images of Red Hat's family, against stand-ins of its upstreams (tests/lab/) with Debian's Python."""

from __future__ import annotations

from pathlib import Path

import agent_builds
import pytest
import redhat_builds
from serve import Upstream

from amphora_mkimage.console import Console
from amphora_mkimage.verify.command import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["fedora", "centos"])
def image(request: pytest.FixtureRequest, redhat_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = str(request.param)
    environment = redhat_builds.environment(redhat_upstream(name), name)
    return agent_builds.build(name, environment, tmp_path_factory.mktemp(name))


def test_it_is_complete(image: Path) -> None:
    report = verify(image, Console())
    assert report.complete, report.text()


def test_the_manifest_has_every_package_of_the_agent(image: Path) -> None:
    agent_builds.check_manifest(image)


def test_files_have_their_selinux_labels(image: Path, tmp_path: Path) -> None:
    redhat_builds.check_labels(image, tmp_path)


def test_the_controller_drives_it(image: Path, run_cli) -> None:
    agent_builds.drive(run_cli, image)
