"""Fetch the agent's packages with the host's pip: its indexes, proxies, CA bundle and logins are those of the host.

pip(1) downloads by the lock's hashes and runs nothing of what it downloads. What arrived is kept in the cache.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from amphora_mkimage import guardian, process, trouble
from amphora_mkimage.agent import pip_settings
from amphora_mkimage.agent.lock import Package, machine
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.fetch.store import Store

_METADATA_ONLY = Path(__file__).with_name("files") / "metadata_only"
_REMEDY = "pip asks the index that its configuration names (pip config list); --no-agent builds without the agent"
#: Oldest and newest glibc that a wheel may be for: what PEP 600 begins with, and what all our bases have.
_GLIBC = range(5, 35)


def fetch(
    packages: Sequence[Package], python: str, arch: str, store: Store, console: Console, *, until: int | None = None
) -> None:
    """Bring packages into the cache; what is there is checked, and not downloaded again.

    :param python: version of the image's Python, "3.13"
    :param arch: dpkg's name of the image's architecture
    :param until: as for :func:`amphora_mkimage.process.run`; something else is being done, and shows its progress
    :raises MkimageError: the index lacks one, serves another content, or does not answer
    :raises HostError: there is no pip
    """
    wanted = [package for package in packages if not store.has_wheel(package.sha256)]
    if not wanted:
        return
    with (
        console.step(f"fetch the amphora agent ({len(wanted)} packages)"),
        guardian.temporary() as directory,
    ):
        for source in (False, True):
            part = [package for package in wanted if package.is_source == source]
            if part:
                lines = [package.requirement for package in part]
                download(lines, directory, python, arch, console, source=source, hashes=True, until=until)
        for package in wanted:
            file = directory / package.file
            if not file.exists():
                raise MkimageError(f"the package index has another file than {package.file}, with the same content")
            store.put_wheel(package.sha256, file)


def download(
    requirements: Sequence[str],
    directory: Path,
    python: str,
    arch: str,
    console: Console,
    *,
    source: bool,
    hashes: bool,
    until: int | None = None,
) -> None:
    """Let pip download files.

    :param requirements: lines of a requirements file, "name==version"
    :param source: source distributions, else wheels
    :param hashes: every line has hashes, and they count
    :param until: as for :func:`fetch`
    :raises MkimageError: pip failed
    """
    listed = directory / "requirements.txt"
    listed.write_text("".join(f"{line}\n" for line in requirements), encoding="ascii")
    pip = find_pip()
    argv = [*pip, "download", "--disable-pip-version-check", "--no-input", "--no-deps"]
    argv += ["--progress-bar=off", f"--dest={directory}", f"--requirement={listed}"]
    argv += ["--require-hashes"] if hashes else []
    env = pip_settings.environment(pip)
    if source:
        # It would ask whether this host's Python will do.
        argv += ["--no-binary=:all:", "--no-build-isolation", "--use-pep517", "--ignore-requires-python"]
        env["PYTHONPATH"] = os.fspath(_METADATA_ONLY)
    else:
        version = python.replace(".", "")
        argv += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
        argv += [f"--abi={abi}" for abi in (f"cp{version}", "abi3", "none")]
        argv += [f"--platform=manylinux_2_{level}_{machine(arch)}" for level in reversed(_GLIBC)]
        argv += [f"--platform={name}_{machine(arch)}" for name in ("manylinux2014", "manylinux2010", "manylinux1")]
    try:
        process.run(
            argv,
            console,
            what="cannot fetch the amphora agent's packages",
            remedy=_REMEDY,
            env=env,
            on_line=console.activity if until is None else None,
            until=until,
            dies_with_us=True,
        )
    except HostError:
        raise
    except MkimageError as error:
        error.remedy = trouble.remedy("\n".join(error.tail), "PIP_INDEX_URL", other=error.remedy)
        raise


def find_pip() -> list[str]:
    """Find a pip: the one of this interpreter, else the host's.

    :raises HostError: there is none
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if shutil.which(name):
            return [name]
    raise HostError(
        "cannot fetch the amphora agent's packages: pip is not installed",
        "install the package python3-pip, or build without the agent (--no-agent)",
    )
