"""The host's pip against an index on loopback (PEP 503) that breaks off, lies, or lacks what is wanted."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_server import Fault, FaultServer, make_certificate, running
from package_index import HTML, add, isolate_pip, source, wheel

from amphora_mkimage.agent import download
from amphora_mkimage.agent.lock import Package
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.fetch.store import Store

WHEELS = (
    "one-1.0-py3-none-any.whl",
    "two-2.0-cp313-cp313-manylinux_2_28_x86_64.whl",
    "three-3.0-cp39-abi3-manylinux2014_x86_64.whl",
)
SOURCE = "four-4.0.tar.gz"


@dataclass
class Index:
    """An index with four projects, and what is wanted of it."""

    server: FaultServer
    wanted: list[Package]
    store: Store
    warnings: list[str]
    ran: Path

    def fetch(self) -> None:
        download.fetch(self.wanted, "3.13", "amd64", self.store, Console(io.StringIO()))

    def add(self, file: str, content: bytes) -> None:
        self.wanted.append(add(self.server, file, content))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    isolate_pip(monkeypatch)
    warnings: list[str] = []
    with running() as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        made = Index(server, [], Store(tmp_path / "cache", warnings.append), warnings, tmp_path / "ran")
        for file in WHEELS:
            made.add(file, wheel(file))
        made.add(SOURCE, source(SOURCE, f"open({str(made.ran)!r}, 'w')\n"))
        yield made


def left(index: Index) -> set[str]:
    return {path.name for path in index.store.wheels.iterdir()} if index.store.wheels.exists() else set()


def test_all_is_fetched_once_and_nothing_of_it_runs(index: Index, tmp_path: Path) -> None:
    index.fetch()
    assert left(index) == {package.sha256 for package in index.wanted}
    for package in index.wanted:
        assert index.store.take_wheel(package.sha256, tmp_path / package.file)
        assert (tmp_path / package.file).read_bytes() == index.server.files[f"/files/{package.file}"]
    assert not index.ran.exists()
    seen = len(index.server.seen)
    index.fetch()
    assert len(index.server.seen) == seen


BACKEND = """\
import pathlib
pathlib.Path({!r}).touch()
def get_requires_for_build_wheel(config_settings=None):
    return []
"""


@pytest.mark.parametrize(
    "backend",
    ['"own"\nbackend-path = ["."]', '"setuptools.build_meta"\nbackend-path = ["."]', '"flit_core.buildapi"', '"own"'],
)
def test_no_backend_of_a_source_distribution_runs(backend: str, index: Index) -> None:
    """Neither its own, nor one of that name that the host may have."""
    code = BACKEND.format(str(index.ran))
    more = {
        "pyproject.toml": f"[build-system]\nrequires = []\nbuild-backend = {backend}\n",
        "own.py": code,
        "setuptools/__init__.py": "",
        "setuptools/build_meta.py": code,
        "sitecustomize.py": code,
    }
    index.add("five-5.0.tar.gz", source("five-5.0.tar.gz", code, more))
    index.fetch()
    assert len(left(index)) == len(index.wanted)
    assert not index.ran.exists()


def test_settings_of_other_installations_do_no_harm(
    index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "constraints.txt").write_text("one==0.5\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")
    index.fetch()
    assert len(left(index)) == len(index.wanted)


def test_what_is_there_is_not_fetched_again_and_what_is_damaged_is(index: Index) -> None:
    index.fetch()
    damaged = index.wanted[1]
    (index.store.wheels / damaged.sha256).write_bytes(b"x")
    index.server.seen.clear()
    index.fetch()
    assert {seen.path for seen in index.server.seen} == {"/simple/two/", f"/files/{damaged.file}"}
    assert len(index.warnings) == 1
    assert index.store.has_wheel(damaged.sha256)


def test_an_index_with_a_login_and_a_ca_of_its_own(
    index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path / "server.pem")
    with running(certificate) as server:
        server.files, server.faults = index.server.files, index.server.faults
        for fault in server.faults.values():
            fault.login = "Basic dXNlcjpzZXNhbWU="
        monkeypatch.setenv("PIP_INDEX_URL", server.url.replace("//", "//user:sesame@") + "/simple")
        with pytest.raises(MkimageError):
            index.fetch()  # nobody knows its CA
        monkeypatch.setenv("PIP_CERT", f"{certificate}.crt")
        index.fetch()
        assert len(left(index)) == len(index.wanted)
        for fault in server.faults.values():
            fault.login = "another"
        for path in index.store.wheels.iterdir():
            path.unlink()
        with pytest.raises(MkimageError) as caught:
            index.fetch()
    assert "sesame" not in "\n".join((caught.value.what, caught.value.remedy, *caught.value.tail))


@pytest.mark.parametrize(
    ("fault", "path"),
    [
        # So short that pip, which goes on with what it has since 25.1, does not get to the end.
        (Fault(cut=10), f"/files/{WHEELS[0]}"),
        (Fault(statuses=[503] * 9), f"/files/{WHEELS[1]}"),
        (Fault(statuses=[404] * 9), "/simple/three/"),
        (Fault(cut=10, headers=HTML), "/simple/one/"),
        (Fault(cut=10), f"/files/{SOURCE}"),
    ],
)
def test_an_index_that_breaks_off(index: Index, fault: Fault, path: str) -> None:
    index.server.faults[path] = fault
    with pytest.raises(MkimageError) as caught:
        index.fetch()
    assert caught.value.status == 1
    assert caught.value.what.startswith("cannot fetch the amphora agent's packages: ")
    assert caught.value.tail
    assert left(index) == set()


@pytest.mark.parametrize("file", [WHEELS[0], WHEELS[2], SOURCE])
def test_an_index_that_serves_another_content(index: Index, file: str) -> None:
    index.server.files[f"/files/{file}"] = source(file, "") if file == SOURCE else wheel(file) + b"x"
    with pytest.raises(MkimageError) as caught:
        index.fetch()
    assert "HASHES" in "\n".join(caught.value.tail).upper()
    assert left(index) == set()
    assert not index.ran.exists()


def test_nobody_is_there(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(MkimageError) as caught:
        index.fetch()
    assert caught.value.status == 1
    assert left(index) == set()


def test_no_pip(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError) as caught:
        index.fetch()
    assert "python3-pip" in caught.value.remedy and "--no-agent" in caught.value.remedy
    index.wanted.clear()
    index.fetch()  # where nothing is to be fetched, none is needed


FOREIGN = """\
constraint = {0}
build-constraint = {0}
requirement = {0}
no-index = true
only-binary = four
no-binary = one
prefer-binary = true
require-virtualenv = true
user = true
prefix = /nowhere
target = /nowhere
dest = /nowhere
uploaded-prior-to = 2020-01-01
"""


@pytest.mark.parametrize("section", ["global", "download"])
def test_what_a_pip_conf_says_of_other_installations_does_not_count(
    section: str, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("one==9.9\ntwo==9.9\nfour==9.9\n")
    own = tmp_path / "pip.conf"
    own.write_text(f"[{section}]\n{FOREIGN.format(constraints)}")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(own))
    index.fetch()
    assert left(index) == {package.sha256 for package in index.wanted}


def test_how_a_pip_conf_reaches_the_index_counts(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "pip.conf"
    own.write_text(f"[global]\nindex-url = {index.server.url}/simple\nproxy = http://127.0.0.1:9\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(own))
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_RETRIES", "1")  # pip tells of an attempt only when it tries again
    with pytest.raises(MkimageError) as raised:
        index.fetch()
    assert "the proxy does not serve it" in raised.value.remedy
    own.write_text(f"[global]\nindex-url = {index.server.url}/simple\n")
    index.fetch()


def test_a_directory_of_wheels_is_an_index(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = tmp_path / "house"
    house.mkdir()
    for package in index.wanted:
        (house / package.file).write_bytes(index.server.files[f"/files/{package.file}"])
    own = tmp_path / "pip.conf"
    own.write_text(f"[global]\nno-index = true\nfind-links = {house}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(own))
    seen = len(index.server.seen)
    index.fetch()
    assert len(index.server.seen) == seen
