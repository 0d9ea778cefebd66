"""Two repositories with a branch, its constraints, an index, and a cache, for tests of a branch's agent."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fault_server import FaultServer, running
from make_request import make
from package_index import add, commit, isolate_pip, source, wheel

from amphora_mkimage.agent import resolve
from amphora_mkimage.agent.install import Agent
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.store import Store

BRANCH = "stable/2026.1"
SETUP_CFG = "[metadata]\nname = {}\npython_requires = >=3.9\n"
#: Runs, and says so, when anybody runs code of a checkout.
SETUP_PY = "import pathlib\npathlib.Path({!r}).touch()\n"
OCTAVIA = """\
# what octavia wants
one[more]>=1.0 # MIT
old>=1;python_version<'3.9'
octavia-lib>=3.0
native>=1.0
WSME>=0.8
"""
WHEELS = {
    "one-1.5-py3-none-any.whl": ["two>=2;sys_platform=='linux'", "three; extra == 'more'", "four; extra == 'less'"],
    "one-2.0-py3-none-any.whl": ["not-there"],
    "two-2.0-cp313-cp313-manylinux_2_28_x86_64.whl": ["one"],
    "three-3.0-py3-none-any.whl": [],
    "native-1.0-cp313-cp313-manylinux2014_x86_64.whl": [],
    "pbr-7.0-py2.py3-none-any.whl": ["setuptools"],
    "pyroute2-0.9-py3-none-any.whl": [],
    "setuptools-80.9-py3-none-any.whl": [],
    "setuptools-84.0-py3-none-any.whl": [],
}
CONSTRAINTS = """\
# of everything
one===1.5
native===1.0;python_version>='3.13'
native===0.1;python_version<'3.13'
octavia-lib===2.0
"""
#: Releases of a base, with their Pythons.
DEBIAN_PYTHONS = {"bookworm": "3.11", "trixie": "3.13", "forky": "3.14"}
FETCHED = {
    "WSME-0.12.tar.gz",
    "native-1.0-cp313-cp313-manylinux2014_x86_64.whl",
    "one-1.5-py3-none-any.whl",
    "pbr-7.0-py2.py3-none-any.whl",
    "pyroute2-0.9-py3-none-any.whl",
    "setuptools-80.9-py3-none-any.whl",
    "three-3.0-py3-none-any.whl",
    "two-2.0-cp313-cp313-manylinux_2_28_x86_64.whl",
}


@dataclass
class World:
    """Two repositories with a branch, its constraints, an index, and a cache."""

    place: Path
    server: FaultServer
    commits: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    log: io.BytesIO = field(default_factory=io.BytesIO)

    @property
    def store(self) -> Store:
        return Store(self.place / "cache", self.warnings.append)

    @property
    def ran(self) -> Path:
        return self.place / "ran"

    def resolve(self, ref: str = BRANCH, *, debian: bool = True, releases: Mapping[str, str] = DEBIAN_PYTHONS) -> Agent:
        branch = make(*(("-g", ref) if ref else ()), **self.environ).branch
        assert branch is not None
        target = resolve.Target("3.13", "amd64", debian, releases)
        return resolve.resolve(branch, target, self.store, Console(io.StringIO(), self.log))

    def fails(
        self, ref: str = BRANCH, *, debian: bool = True, releases: Mapping[str, str] = DEBIAN_PYTHONS
    ) -> MkimageError:
        with pytest.raises(MkimageError) as caught:
            self.resolve(ref, debian=debian, releases=releases)
        assert caught.value.status == 1
        assert len(caught.value.what.splitlines()) == 1
        assert not self.ran.exists()
        assert not [*self.place.glob("cache/amphora-mkimage/locks/*")]
        return caught.value

    def commit(self, project: str, **files: str) -> None:
        content = {name.replace("_", "."): text for name, text in files.items()}
        self.commits[project] = commit(self.place / project, content, branch=BRANCH)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    isolate_pip(monkeypatch)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    with running() as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        made = World(tmp_path, server)
        for file, requires in WHEELS.items():
            content = wheel(file, requires)
            add(server, file, content, hashlib.sha256(content).hexdigest())
        add(server, "WSME-0.12.tar.gz", source("WSME-0.12.tar.gz", SETUP_PY.format(str(made.ran))))
        for project, requirements in (("octavia", OCTAVIA), ("octavia-lib", "two\n")):
            files = {"setup.cfg": SETUP_CFG.format(project), "setup.py": SETUP_PY.format(str(made.ran))}
            files |= {"requirements.txt": requirements, "data/template.j2": "x"}
            commit(tmp_path / project, files, tag="18.0.0")
            made.commits[project] = commit(tmp_path / project, {"more": "x"}, branch=BRANCH)
        (tmp_path / "constraints.txt").write_text(CONSTRAINTS)
        made.environ = {
            "DIB_REPOLOCATION_amphora_agent": str(tmp_path / "octavia"),
            "DIB_REPOLOCATION_octavia_lib": (tmp_path / "octavia-lib").as_uri(),
            "DIB_REPOLOCATION_upper_constraints": str(tmp_path / "constraints.txt"),
        }
        yield made
