"""Collect all that a project needs to run in the image, as files, under constraints.

pip(1) resolves for another Python only where every project has a wheel, and some have none. So what each file asks for
is read here, and pip fetches the files of one round after the other; it runs nothing of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from amphora_mkimage.agent.constraints import Constraints
from amphora_mkimage.agent.download import download
from amphora_mkimage.agent.lock import WITHOUT_WHEEL, Package, machine
from amphora_mkimage.agent.project import Project, canonical, read_source, read_wheel
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError

#: Have code for a compiler, and install without it, a little slower.
_COMPILER_OPTIONAL = frozenset(
    ("markupsafe", "msgpack", "pyinotify", "pyrsistent", "pyyaml", "simplejson", "sqlalchemy", "wrapt")
)
#: Never got wheels for Python 3.11 and later, and is in Debian and Ubuntu as it is on PyPI; constraints until 2024.1
#: have it. By project: the Debian package.
OF_DISTRIBUTION = {"netifaces": "python3-netifaces"}
#: Sources ask for it to be built; setuptools has it in itself since 70.1. Its newest wants a packaging that is newer
#: than old constraints have.
_IN_SETUPTOOLS = frozenset(("wheel",))
_LACKING = re.compile(r"No matching distribution found for ([A-Za-z0-9][A-Za-z0-9._-]*)")
_ELSE = "another branch, or constraints with a newer version of it (DIB_REPOLOCATION_upper_constraints)"


@dataclass(frozen=True)
class Target:
    """What it is collected for.

    :param python: version of the image's Python, "3.13"
    :param arch: dpkg's name of the image's architecture
    :param debian: the image is Debian's or Ubuntu's, whose packages may stand in for what needs a compiler
    :param releases: of the same base, with their Pythons, for messages
    """

    python: str
    arch: str
    debian: bool
    releases: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def named(self, fits: Callable[[str], bool]) -> str:
        """Name the releases of the base whose Python will do, as arguments; "" when there are none."""
        return " or ".join(f"-d {name}" for name, python in self.releases.items() if fits(python))

    @property
    def older(self) -> str:
        """Say what to do where a project has nothing for this Python, but may have it for an older one."""
        names = self.named(lambda python: _minor(python) < _minor(self.python))
        first = f"try an older Python: {names}; or" if names else "no release here has an older Python: take"
        return f"{first} {_ELSE}"


class Closure:
    """What was collected so far.

    :param versions: of the projects that are there without having been fetched; "" where it is not known
    :param directory: empty; the files are put there
    """

    def __init__(
        self,
        roots: Mapping[str, Project],
        versions: Mapping[str, str],
        constraints: Constraints,
        directory: Path,
        target: Target,
        console: Console,
    ) -> None:
        self.packages: dict[str, Package] = {}  #: what was fetched, by name
        self.modules: list[str] = []  #: what the distribution must give, from :data:`OF_DISTRIBUTION`
        self._roots = tuple(roots)
        self._projects = dict(roots)
        self._versions = dict(versions)
        self._constraints = constraints
        self._directory = directory
        self._target = target
        self._console = console
        self._markers = _marker_environment(target.python, machine(target.arch))

    def collect(self) -> list[Package]:
        """Fetch until nothing is missing; the files, by name.

        :raises MkimageError: one cannot be had for the image's Python, or two projects contradict each other
        """
        while missing := {name: wants for name, wants in self._wanted().items() if name not in self._projects}:
            self._fetch({name: self._line(name, wants) for name, wants in missing.items()})
        self._check()
        return [self.packages[name] for name in sorted(self.packages)]

    def _wanted(self) -> dict[str, dict[str, SpecifierSet]]:
        """Say what is wanted of each project, by who wants it; of those that are here, read what they want."""
        wanted: dict[str, dict[str, SpecifierSet]] = {}
        todo = [(name, "") for name in self._roots]
        seen: set[tuple[str, str]] = set()
        while todo:
            name, extra = todo.pop()
            if (name, extra) in seen or name not in self._projects:
                continue
            seen.add((name, extra))
            project = self._projects[name]
            for requirement in (*project.requires, *project.builds):
                if self._applies(requirement, extra) and canonical(requirement.name) not in _IN_SETUPTOOLS:
                    other = canonical(requirement.name)
                    by = wanted.setdefault(other, {})
                    by[name] = by.get(name, SpecifierSet()) & requirement.specifier
                    todo += [(other, ""), *((other, more) for more in requirement.extras)]
        return wanted

    def _applies(self, requirement: Requirement, extra: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({**self._markers, "extra": extra})

    def _line(self, name: str, wants: Mapping[str, SpecifierSet]) -> str:
        """Give the line of a requirements file: what the constraints say, else what everybody wants."""
        pins = [pin for pin in self._constraints.pins.get(name, ()) if self._applies(pin, "")]
        if pins:
            return f"{name}{pins[-1].specifier}"
        together = SpecifierSet()
        for specifier in wants.values():
            together &= specifier
        return f"{name}{together}"

    def _fetch(self, lines: Mapping[str, str]) -> None:
        """Fetch wheels, and sources of what has none."""
        wheels = dict(lines)
        for name in sorted(WITHOUT_WHEEL.intersection(wheels)):
            self._fetch_source(name, wheels.pop(name))
        while wheels:
            try:
                self._download(list(wheels.values()), source=False)
                break
            except MkimageError as error:
                name = _lacking(error)
                if name not in wheels:
                    raise
                self._fetch_source(name, wheels.pop(name))
        for name in wheels:
            package = self._take(name)
            self._projects[name] = read_wheel(self._directory / package.file)

    def _fetch_source(self, name: str, line: str) -> None:
        self._download([line], source=True)
        package = self._take(name)
        project = self._projects[name] = read_source(self._directory / package.file)
        what = f"{name} {package.version} has no wheel for Python {self._target.python} on {self._target.arch}"
        if not project.python.contains(f"{self._target.python}.0"):
            raise MkimageError(f"{what}: it is for Python {project.python}", self._target.older)
        if project.native and self._target.debian and name in OF_DISTRIBUTION:
            del self.packages[name]
            self.modules.append(name)
        elif project.native and name not in _COMPILER_OPTIONAL:
            raise MkimageError(f"{what}, and needs a compiler ({project.native})", self._target.older)

    def _download(self, lines: Sequence[str], *, source: bool) -> None:
        target = self._target
        download(lines, self._directory, target.python, target.arch, self._console, source=source, hashes=False)

    def _take(self, name: str) -> Package:
        """Find the file of a project among what pip has put there."""
        for path in sorted(self._directory.iterdir()):
            if path.name.endswith((".whl", ".tar.gz", ".zip")) and Package("", path.name).name == name:
                package = Package(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
                self.packages[name] = package
                self._versions[name] = package.version
                return package
        raise MkimageError(f"the package index has {name} under a name that is not its own")

    def _check(self) -> None:
        """Refuse what pip would refuse: a version that somebody does not want."""
        for name, wants in self._wanted().items():
            version = self._versions[name]
            for who, specifier in wants.items():
                if version and not specifier.contains(version, prereleases=True):
                    raise MkimageError(
                        f"{who} wants {name}{specifier}, and there is {version}",
                        "name this branch's constraints (DIB_REPOLOCATION_upper_constraints), or another octavia-lib",
                    )


def _minor(python: str) -> int:
    return int(python.split(".")[1])


def _lacking(error: MkimageError) -> str:
    """Name the project of which pip found nothing that fits; "" when it failed otherwise."""
    found = [match[1] for line in error.tail if (match := _LACKING.search(line))]
    return canonical(found[0]) if found else ""


def _marker_environment(python: str, processor: str) -> dict[str, str]:
    """Give the values that environment markers ask for (PEP 508), in the image."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": processor,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
