"""The agent in a real image: what is in it, what a second build costs, and an agent that does not start."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from amphora_mkimage.agent import install

VENV = install.VENV.strip("/")
AGENT = install.choose("3.13", "amd64")


@pytest.fixture(scope="module")
def members(built) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(built.tar) as tar:
        return {member.name.removeprefix("./"): member for member in tar}


def test_the_manifest_has_every_package_of_it(built) -> None:
    found = json.loads(built.manifest.read_text())["agent"]
    assert (found["octavia"], found["python"]) == (AGENT.version, "3.13")
    assert [package["sha256"] for package in found["packages"]] == [package.sha256 for package in AGENT.installed]


def test_what_the_manifest_says_is_installed(members, built) -> None:
    pattern = re.compile(rf"{VENV}/lib/python3\.13/site-packages/([^/]+)-([^-/]+)\.dist-info")
    found = {match.groups() for match in map(pattern.fullmatch, members) if match}
    names = {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in found}
    assert names == {(package.name, package.version) for package in AGENT.installed}


def test_its_commands_and_units(members) -> None:
    for name in install.COMMANDS:
        assert members[f"usr/local/bin/{name}"].linkname == f"{install.VENV}/bin/{name}"
        assert members[f"{VENV}/bin/{name}"].mode & 0o111
    wants = {name for name in members if ".wants/" in name}
    for target, unit in (
        ("multi-user.target", "amphora-agent.service"),
        ("multi-user.target", "prometheus-proxy.service"),
        ("amphora-agent.service", "certs-ramfs.service"),
    ):
        assert f"etc/systemd/system/{target}.wants/{unit}" in wants


def test_no_tests_no_installer_no_compiler_and_byte_code_of_what_is_imported_only(members) -> None:
    inside = [name.removeprefix(f"{VENV}/") for name in members if name.startswith(f"{VENV}/")]
    assert not [name for name in inside if "/tests/" in name or name.startswith("include/")]
    assert not [name for name in inside if re.match(r"bin/pip|lib/[^/]+/site-packages/pip/", name)]
    assert not members.keys() & {"usr/bin/gcc", "usr/bin/cc", "usr/bin/git"}
    compiled = {name for name in inside if name.endswith(".pyc")}
    site = "lib/python3.13/site-packages"
    assert f"{site}/octavia/cmd/__pycache__/agent.cpython-313.pyc" in compiled
    assert not [name for name in compiled if name.startswith(f"{site}/networkx/")]
    assert all(members[f"{VENV}/{name}"].uid == 0 for name in inside)


def test_an_agent_that_cannot_be_imported_is_found(built, run_cli, cache_dir: Path, tmp_path: Path) -> None:
    """Whatever the cache says; and nothing is fetched where it has all."""
    cache = tmp_path / "cache/amphora-mkimage/bases"
    cache.mkdir(parents=True)
    kept, *_ = (cache_dir / "amphora-mkimage/bases").glob(f"{AGENT.key}-*")
    for path in (cache_dir / "amphora-mkimage/bases").iterdir():
        if not path.name.startswith((".", AGENT.key)):
            (cache / path.name).symlink_to(path)
    broken = cache / "broken"
    without = f"tar --delete --wildcards -f - '{VENV}/lib/*/pyroute2/*'"
    subprocess.run(f"zstd -dcq {kept} | {without} | zstd -1 -q -o {broken}", shell=True, check=True)
    digest = hashlib.sha256(broken.read_bytes()).hexdigest()
    broken.rename(cache / f"{AGENT.key}-{digest}.tar.zst")
    output = tmp_path / "output"
    output.mkdir()
    done = run_cli(
        *("-i", "debian-minimal", "-t", "tar", "-o", output / "a", "-w", output, "-c", tmp_path / "cache"),
        env={"PIP_INDEX_URL": "http://127.0.0.1:9/simple"},
    )
    assert done.returncode == 1, done.stderr
    assert "unpack the cached amphora agent" in done.stderr
    assert "fetch the amphora agent" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "error:" in line)
    assert line.endswith("the amphora agent cannot be imported by the image's Python")
    assert "pyroute2" in done.stderr
    assert "Traceback" not in done.stderr.partition("error:")[0]
    assert list(output.iterdir()) == []


def test_an_index_that_does_not_answer(run_cli, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    done = run_cli(
        *("-i", "debian-minimal", "-o", output / "a", "-w", output, "-c", tmp_path / "cache"),
        env={"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0"},
    )
    assert done.returncode == 1, done.stderr
    assert "cannot fetch the amphora agent's packages" in done.stderr
    assert "--no-agent" in done.stderr
    assert list(output.iterdir()) == []
