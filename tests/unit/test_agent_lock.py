"""The lock file of the agent: complete for every image that may have the agent, and each file for the right one."""

from __future__ import annotations

import pytest

from amphora_mkimage.agent import install, lock
from amphora_mkimage.agent.lock import Package
from amphora_mkimage.bases import BASES
from amphora_mkimage.errors import BadValueError

ARCHITECTURES = ("amd64", "arm64")
PYTHONS = lock.PYTHONS


def test_every_release_that_is_not_refused_says_its_python() -> None:
    assert PYTHONS
    for base in BASES.values():
        for release in base.releases.values():
            assert release.refused or release.python, release.codename


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_complete(python: str, arch: str) -> None:
    chosen = {package.name: package for package in lock.select(python, arch)}
    assert chosen.keys() == {package.name for package in lock.read()}
    # What octavia's wheel forgets, what the REST server runs in, and what installs the rest.
    assert chosen.keys() >= {"octavia", "octavia-lib", "pyroute2", "flask", "gunicorn", "pip"}
    tag = f"cp{python.replace('.', '')}"
    assert {file.file.split("-")[2] for file in chosen.values() if "-manylinux" in file.file} >= {tag}
    assert all(lock.machine(arch) in p.file for p in chosen.values() if not p.is_source and "-any." not in p.file)


def test_source_distributions_are_the_exception() -> None:
    assert {package.name for package in lock.read() if package.is_source} == {"simplegeneric", "wsme"}


def test_what_builds_them_is_locked_too() -> None:
    assert {package.name for package in lock.read()} >= {"setuptools", "pbr"}


def test_an_architecture_without_wheels_is_refused() -> None:
    with pytest.raises(BadValueError) as caught:
        lock.select("3.11", "i386")
    assert caught.value.what.startswith("-a i386: ")
    assert "--no-agent" in caught.value.remedy


@pytest.mark.parametrize(
    ("file", "name", "version"),
    [
        ("oslo_config-10.7.0-py3-none-any.whl", "oslo-config", "10.7.0"),
        ("Repoze.lru-0.8-1-py3-none-any.whl", "repoze-lru", "0.8"),
        ("python-thing-1.2.3.tar.gz", "python-thing", "1.2.3"),
        ("simplegeneric-0.8.1.zip", "simplegeneric", "0.8.1"),
    ],
)
def test_names(file: str, name: str, version: str) -> None:
    package = Package("0" * 64, file)
    assert (package.name, package.version) == (name, version)
    assert package.requirement == f"{name}=={version} --hash=sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("tags", "fits"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("py2-none-any", False),
        ("cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("cp313-cp313t-manylinux_2_17_x86_64", True),  # never locked: pip does not choose it
        ("cp312-cp312-manylinux_2_17_x86_64", False),
        ("cp39-abi3-manylinux_2_28_x86_64", True),
        ("cp314-abi3-manylinux_2_28_x86_64", False),
        ("cp313-cp313-manylinux_2_17_aarch64", False),
        ("cp313-cp313-musllinux_1_2_x86_64", False),
        ("cp313-cp313-macosx_11_0_arm64", False),
    ],
)
def test_tags(tags: str, fits: bool) -> None:
    assert (Package("0" * 64, f"thing-1.0-{tags}.whl").fitness("3.13", "x86_64") > 0) == fits


def test_the_nearest_wheel_is_chosen() -> None:
    files = (
        "a-1-py3-none-any.whl",
        "a-1-cp313-cp313-manylinux2014_x86_64.whl",
        "a-1-cp39-abi3-manylinux2014_x86_64.whl",
    )
    packages = tuple(Package(str(number) * 64, file) for number, file in enumerate(files))
    assert [package.file for package in lock.select("3.13", "amd64", packages)] == [files[1]]
    assert [package.file for package in lock.select("3.12", "amd64", packages)] == [files[2]]
    assert [package.file for package in lock.select("3.12", "arm64", packages)] == [files[0]]


def test_another_lock_is_another_environment() -> None:
    agent = install.choose("3.13", "amd64")
    assert agent.key == install.choose("3.13", "amd64").key
    assert agent.key != install.choose("3.12", "amd64").key
    changed = install.Agent("3.13", (*agent.packages[1:], Package("0" * 64, agent.packages[0].file)))
    assert agent.key != changed.key
    assert agent.version == "19.0.0"
    assert "pip" not in {package.name for package in agent.installed}
