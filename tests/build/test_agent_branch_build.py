"""A whole image with the agent of a branch: octavia's own code out of a local clone, and branches that are no good."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import octavia_branch
import pytest
from fault_server import FaultServer, running
from octavia_branch import BRANCH, Repositories

from amphora_mkimage.agent import install, lock
from amphora_mkimage.console import Console
from amphora_mkimage.fetch.store import Store
from amphora_mkimage.verify.command import verify

#: The faults of a branch are in tests/unit/test_agent_branch.py, which CI runs.
pytestmark = pytest.mark.slow
VENV = install.VENV.strip("/")
SITE = f"{VENV}/lib/python3.13/site-packages"


@dataclass(frozen=True)
class Image:
    """One build of a branch."""

    repositories: Repositories
    tar: Path
    members: dict[str, tarfile.TarInfo]
    agent: dict[str, Any]
    cache: Path

    def text(self, name: str) -> str:
        with tarfile.open(self.tar) as tar:
            file = tar.extractfile(self.members[name])
            assert file is not None
            return file.read().decode()


@pytest.fixture(scope="module")
def index(cache_dir: Path) -> Iterator[FaultServer]:
    with running() as server:
        octavia_branch.fill_index(server, cache_dir)
        yield server


def attempt(run_cli, place: Path, cache: Path, env: dict[str, str], *arguments: str):
    output = place / "output"
    output.mkdir(exist_ok=True)
    argv = ("-i", "debian-minimal", "-t", "tar", "-o", output / "a", "-w", output, "-c", cache)
    return run_cli(*argv, *arguments, env=env)


@pytest.fixture(scope="module")
def repositories(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Repositories:
    return octavia_branch.make(tmp_path_factory.mktemp("clones"), cache_dir)


@pytest.fixture(scope="module")
def image(built, repositories, index, run_cli, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Built with the base that other tests have made, and a cache that has nothing of an agent."""
    place = tmp_path_factory.mktemp("branch")
    bases = place / "cache/amphora-mkimage/bases"
    bases.mkdir(parents=True)
    for path in (cache_dir / "amphora-mkimage/bases").glob("[0-9a-f]*"):
        (bases / path.name).symlink_to(path)
    done = attempt(run_cli, place, place / "cache", repositories.variables(index), "-g", BRANCH)
    assert done.returncode == 0, done.stderr
    tar = place / "output/a.tar"
    with tarfile.open(tar) as files:
        members = {member.name.removeprefix("./"): member for member in files}
    manifest = json.loads((place / "output/a.tar.manifest.json").read_text())
    return Image(repositories, tar, members, manifest["agent"], place / "cache")


def test_it_is_complete(image: Image) -> None:
    report = verify(image.tar, Console())
    assert report.complete, report.text()


def test_manifest_and_image_say_what_it_is(image: Image) -> None:
    commits = {project: image.repositories.head(project) for project in octavia_branch.SOURCES}
    assert {project: found["commit"] for project, found in image.agent["commits"].items()} == commits
    assert image.agent["octavia"] == "19.0.1.dev1"
    assert image.text("opt/amphora-agent.gitref").split() == [commits["octavia"]]
    assert image.text("opt/octavia-lib.gitref").split() == [commits["octavia-lib"]]
    versions = {package["name"]: package["version"] for package in image.agent["packages"]}
    for line in image.text("opt/upper-constraints.txt").splitlines():
        name, _, version = line.partition("===")
        assert versions.get(name, version) == version
    installed = {path.name for name in image.members if (path := Path(name)).match(f"{SITE}/*.dist-info")}
    assert {"octavia-19.0.1.dev1.dist-info", "octavia_lib-3.12.0.dist-info"} <= installed
    assert len(installed) == len(versions)


@pytest.mark.parametrize("project", ["octavia", "octavia-lib"])
def test_the_checkout_is_installed_like_the_released_wheel(image: Image, cache_dir: Path, project: str) -> None:
    """File by file: what pbr asks git for, it finds without one."""
    (package,) = (p for p in lock.select(octavia_branch.PYTHON, "amd64") if p.name == project)
    with zipfile.ZipFile(Store(cache_dir, print).wheels / package.sha256) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".dist-info/RECORD")]
        rows = csv.reader(io.StringIO(wheel.read(names[0]).decode()))
        released = {row[0] for row in rows if ".dist-info/" not in row[0] and ".data/" not in row[0]}
    wanted = {name for name in released if "/tests/" not in name}
    assert len(wanted) > 10
    assert not {name for name in wanted if f"{SITE}/{name}" not in image.members}
    here = {name.removeprefix(f"{SITE}/") for name, member in image.members.items() if member.isfile()}
    top = project.replace("-", "_")
    ours = {name for name in here if name.startswith(f"{top}/") and not name.endswith(".pyc")}
    assert ours == wanted


def test_no_repository_no_compiler_no_installer(image: Image) -> None:
    assert not [name for name in image.members if "/.git/" in name or name.startswith(f"{VENV}/bin/pip")]
    assert not image.members.keys() & {"usr/bin/gcc", "usr/bin/cc", "usr/bin/git", "opt/amphora-agent"}


def test_a_second_build_fetches_nothing(image: Image, index, run_cli, tmp_path: Path) -> None:
    index.seen.clear()
    done = attempt(run_cli, tmp_path, image.cache, image.repositories.variables(index), "-g", BRANCH)
    assert done.returncode == 0, done.stderr
    assert index.seen == []
    assert "unpack the cached amphora agent" in done.stderr
    assert json.loads((tmp_path / "output/a.tar.manifest.json").read_text())["agent"] == image.agent


def test_a_branch_whose_agent_cannot_be_imported(image: Image, index, run_cli, tmp_path: Path) -> None:
    path = image.repositories.directory / "octavia/octavia/cmd/agent.py"
    image.repositories.commit("octavia", {"octavia/cmd/agent.py": f"import no_such_module\n{path.read_text()}"})
    done = attempt(run_cli, tmp_path, image.cache, image.repositories.variables(index), "-g", BRANCH)
    assert done.returncode == 1, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "error:" in line)
    assert line.endswith("the amphora agent cannot be imported by the image's Python")
    assert "no_such_module" in done.stderr
    assert [*(tmp_path / "output").iterdir()] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"-g": "stable/2010.1"}, "octavia has no branch or tag stable/2010.1"),
        ({"DIB_REPOLOCATION_upper_constraints": "URL/upper-constraints.txt"}, "upper-constraints.txt do not exist"),
        ({"DIB_REPOLOCATION_octavia_lib": "URL/octavia-lib"}, "cannot fetch octavia-lib from"),
        ({"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}, "cannot fetch the amphora agent's packages"),
    ],
)
def test_faults_end_the_build_before_it_begins(
    run_cli, repositories, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    """One message, status 1, nothing left behind."""
    with running() as server:
        env = repositories.variables(server) | {name: text.replace("URL", server.url) for name, text in change.items()}
        done = attempt(run_cli, tmp_path, tmp_path / "cache", env, "-g", env.pop("-g", BRANCH))
    assert done.returncode == 1, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "error:" in line)
    assert message in line
    assert "what to do: " in done.stderr
    assert "Traceback" not in done.stderr
    assert [*(tmp_path / "output").iterdir()] == []
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".log"] == []
