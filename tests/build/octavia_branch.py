"""Octavia's repositories, made of its releases, and an index on loopback with all that they need."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fault_server import FaultServer
from package_index import add, git

from amphora_mkimage.agent import download, lock
from amphora_mkimage.agent.lock import Package
from amphora_mkimage.console import Console
from amphora_mkimage.fetch.store import Store

BRANCH = "stable/2026.2"
PYTHON = "3.13"
#: The releases that the lock file has as wheels.
SOURCES = {
    "octavia": Package("accaa633297c9994439a060e8b786c336fe549bfee6c7314663b514f59a81004", "octavia-19.0.0.tar.gz"),
    "octavia-lib": Package(
        "f677a01de7c7668c4ec4e3cbb3f04d397e950397fdb4c1d2c763a2fe39d76bc9", "octavia_lib-3.12.0.tar.gz"
    ),
}
_SETUPTOOLS = Package(
    "95b30ddfb717250edb492926c92b5221f7ef3fbcc2b07579bcd4a27da21d0173", "setuptools-80.10.2-py3-none-any.whl"
)
#: What a source distribution has and a repository has not.
_MADE = ("PKG-INFO", "AUTHORS", "ChangeLog")


@dataclass(frozen=True)
class Repositories:
    """Two clones with a branch, and constraints."""

    directory: Path

    def variables(self, server: FaultServer) -> dict[str, str]:
        """What makes a build use them, and the index of a server."""
        return {
            "DIB_REPOLOCATION_amphora_agent": str(self.directory / "octavia"),
            "DIB_REPOLOCATION_octavia_lib": str(self.directory / "octavia-lib"),
            "DIB_REPOLOCATION_upper_constraints": str(self.directory / "upper-constraints.txt"),
            **index_variables(server),
        }

    def commit(self, project: str, files: Mapping[str, str]) -> str:
        """Commit to the branch; gives the id."""
        place = self.directory / project
        for name, text in files.items():
            (place / name).write_text(text)
        git(place, "commit", "--quiet", "--all", "--allow-empty", "--message=x")
        return self.head(project)

    def head(self, project: str) -> str:
        """Id of the commit that the branch is at."""
        return git(self.directory / project, "rev-parse", BRANCH).strip()


def index_variables(server: FaultServer) -> dict[str, str]:
    """What makes pip use the index of a server, and nothing of this host's."""
    return {
        "PIP_INDEX_URL": f"{server.url}/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
        "no_proxy": "127.0.0.1",
    }


def make(directory: Path, cache: Path) -> Repositories:
    """Make the repositories of the releases, one commit after their tags.

    :param cache: where the releases are kept
    """
    store = _store(cache)
    download.fetch([*SOURCES.values()], PYTHON, "amd64", store, Console(io.StringIO()))
    for project, package in SOURCES.items():
        archive = directory / package.file
        assert store.take_wheel(package.sha256, archive)
        subprocess.run(["tar", "--extract", "--no-same-owner", f"--file={archive}"], cwd=directory, check=True)
        place = (directory / package.file.removesuffix(".tar.gz")).rename(directory / project)
        for path in (*(place / name for name in _MADE), *place.glob("*.egg-info")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        git(place, "init", "--quiet", f"--initial-branch={BRANCH}")
        git(place, "add", "--all", "--force")
        git(place, "commit", "--quiet", "--message=x")
        git(place, "tag", "--annotate", "--message=x", package.version)
    made = Repositories(directory)
    made.commit("octavia", {})
    pins = [package for package in _packages() if package.name not in (*SOURCES, "setuptools", "pip")]
    lines = [f"{package.name}==={package.version}\n" for package in pins]
    (directory / "upper-constraints.txt").write_text("".join(lines))
    return made


def fill_index(server: FaultServer, cache: Path) -> None:
    """Put every package of the lock file for one Python into an index (PEP 503)."""
    store = _store(cache)
    packages = [*_packages(), _SETUPTOOLS]
    download.fetch(packages, PYTHON, "amd64", store, Console(io.StringIO()))
    for package in packages:
        add(server, package.file, (store.wheels / package.sha256).read_bytes(), package.sha256)


def _packages() -> list[Package]:
    return [package for package in lock.select(PYTHON, "amd64") if package.name not in SOURCES]


def _store(cache: Path) -> Store:
    store = Store(cache, print)
    store.prepare()
    return store
