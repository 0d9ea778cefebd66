"""The lock file: every file that the agent is installed from, by name and SHA256.

Its lines are those of sha256sum(1). A wheel's name says which Python and machine it is for (PyPA, "Binary distribution
format"), so one file serves all images; ``python -m amphora_mkimage.agent.relock`` makes it.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.errors import BadValueError, MkimageError

_FILES = Path(__file__).with_name("files")
LOCK = _FILES / "agent.lock"
#: Names of projects in the lock that no amphora needs.
UNUSED = frozenset(
    line for line in (_FILES / "unused.txt").read_text(encoding="ascii").splitlines() if not line.startswith("#")
)
#: Installs the others, and is not installed itself.
INSTALLER = "pip"
#: Versions of Python that the released agent is for, and that the lock has wheels for.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_WHEEL = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>.+)")
_SOURCE = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)\.(tar\.gz|zip)")
#: Projects that publish no wheel; pure Python, built in the image with setuptools and pbr, which are there too.
WITHOUT_WHEEL = frozenset(("simplegeneric", "wsme"))
#: Of Linux' processor names, those that wheels call otherwise.
_MACHINES = {"armhf": "armv7l"}


@dataclass(frozen=True)
class Package:
    """One file of the lock.

    :param file: a wheel's or source distribution's file name
    """

    sha256: str
    file: str

    @property
    def is_source(self) -> bool:
        """Whether it is a source distribution, for which there is no wheel."""
        return not self.file.endswith(".whl")

    @property
    def name(self) -> str:
        """Name of the project, normalised (PEP 503)."""
        return re.sub(r"[-_.]+", "-", self._parts["name"]).lower()

    @property
    def version(self) -> str:
        """Its version."""
        return self._parts["version"]

    @property
    def requirement(self) -> str:
        """The line that lets pip take this file and no other."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"

    def fitness(self, python: str, machine: str) -> int:
        """Tell how well it fits an interpreter: 0 not at all, the more the better.

        :param python: "3.13"
        :param machine: uname(2)'s name of the processor
        """
        if self.is_source:
            return 1
        platforms = self._parts["platform"].split(".")
        if "any" not in platforms and not any(p.startswith("manylinux") and p.endswith(machine) for p in platforms):
            return 0
        interpreters, abi, minor = self._parts["python"].split("."), self._parts["abi"], int(python.split(".")[1])
        if f"cp3{minor}" in interpreters:
            return 4
        if abi == "abi3" and any(_minor(tag) <= minor for tag in interpreters):
            return 3
        return 2 if abi == "none" and "py3" in interpreters else 0

    @property
    def _parts(self) -> re.Match[str]:
        match = (_SOURCE if self.is_source else _WHEEL).fullmatch(self.file.removesuffix(".whl"))
        if match is None:
            raise MkimageError(f"the agent's lock file has a file of no known kind: {self.file}")
        return match


#: The last pip that runs on Python 3.9; the locked one needs 3.10.
_OLD_INSTALLER = Package(
    "bdb1b08f4274833d62c1aa29e20907365a2ceb950410df15fc9521bad440122b", "pip-26.0.1-py3-none-any.whl"
)


def installer(python: str) -> Package:
    """Return the pip that installs an agent for a Python.

    :param python: "3.13"
    """
    if int(python.split(".")[1]) < 10:
        return _OLD_INSTALLER
    return next(package for package in read() if package.name == INSTALLER)


def octavia() -> str:
    """Return the version of octavia that is locked."""
    return next(package.version for package in read() if package.name == "octavia")


def _minor(tag: str) -> int:
    match = re.fullmatch(r"cp3(\d+)", tag)
    return int(match[1]) if match else 1 << 30


@functools.cache
def read(path: Path = LOCK) -> tuple[Package, ...]:
    """Read a lock file, in its order."""
    lines = path.read_text(encoding="ascii").splitlines()
    return tuple(Package(*line.split(maxsplit=1)) for line in lines if line and not line.startswith("#"))


def machine(arch: str) -> str:
    """Give the name that wheels have for an architecture.

    :param arch: dpkg's name
    """
    return _MACHINES.get(arch, ARCHITECTURES[arch].machine)


def select(python: str, arch: str, packages: tuple[Package, ...] | None = None) -> list[Package]:
    """Choose one file of each project.

    :param python: version of the image's Python, "3.13"
    :param arch: dpkg's name of the image's architecture
    :param packages: of a lock file (default: ours)
    :raises BadValueError: there is none of a project that is locked
    """
    chosen: dict[str, tuple[int, Package]] = {}
    lacking: dict[str, None] = {}
    for package in read() if packages is None else packages:
        fitness = package.fitness(python, machine(arch))
        if fitness > chosen.get(package.name, (0, None))[0]:
            chosen[package.name] = (fitness, package)
        elif fitness == 0:
            lacking[package.name] = None
    missing = [name for name in lacking if name not in chosen]
    if missing:
        raise BadValueError(
            f"-a {arch}: the amphora agent cannot be had for Python {python}: no wheel of {', '.join(missing[:3])}",
            "take the distribution's agent (-p), or build without one (--no-agent)",
        )
    return [package for _, package in chosen.values()]
