"""The agent's virtual environment: made once by the locked pip, kept in the cache, imported in every image.

It is made of files that were fetched and checked before; nothing here needs a network (see
:mod:`amphora_mkimage.agent.download`). There is no compiler and no pip in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from amphora_mkimage.agent import download, lock
from amphora_mkimage.agent.lock import INSTALLER, Package
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.store import Store, key_of
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.workplace import Workplace

VENV = "/opt/amphora-agent-venv"
_PLACE, _NAME = VENV.rsplit("/", 1)
#: Programs of octavia that run in an amphora.
COMMANDS = (
    "amphora-agent",
    "amphora-health-checker",
    "amphora-interface",
    "haproxy-vrrp-check",
    "prometheus-proxy",
)
#: Bytes that the environment takes on the disk (docs/agent.md), for -s.
INSTALLED_BYTES = 160_000_000
_FILES = Path(__file__).with_name("files")
_IMPORTS = _FILES / "import_commands.py"
_OFFERED = "/run/offered-agent"
_INSTALL = ("install", "--no-index", "--no-deps", "--require-hashes", "--no-compile", "--root-user-action=ignore")
_SCRIPT = "/run/amphora-import-commands.py"
_PYTHON = "/usr/bin/python3"
#: Where Debian's Python has the distribution's modules.
_DISTRIBUTION = "/usr/lib/python3/dist-packages"


@dataclass(frozen=True)
class Origin:
    """Where an agent comes from.

    :param facts: for the manifest
    :param files: for the image, by path
    """

    facts: Mapping[str, object]
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


RELEASED = Origin({"source": "released"})


@dataclass(frozen=True)
class Agent:
    """The agent that an image gets.

    :param python: version of the image's Python, "3.13"
    :param packages: files that it is installed from, with the installer
    :param modules: names of modules that are taken from the distribution's Python
    :param builders: names of packages that are removed again, because they only build others
    """

    python: str
    packages: tuple[Package, ...]
    origin: Origin = RELEASED
    modules: tuple[str, ...] = ()
    builders: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Key of its environment in the cache."""
        programs = [path.read_bytes() for path in (Path(__file__), _IMPORTS)]
        files = [f"{p.sha256} {p.file}" for p in self.packages]
        return key_of("agent", self.python, *files, *self.modules, *self.builders, *programs)

    @property
    def installed(self) -> list[Package]:
        """What is installed in the environment."""
        return [package for package in self.packages if package.name != INSTALLER]

    @property
    def kept(self) -> list[Package]:
        """What is there in the end."""
        return [package for package in self.installed if package.name not in self.builders]

    @property
    def version(self) -> str:
        """Version of octavia."""
        return next(package.version for package in self.packages if package.name == "octavia")

    @property
    def facts(self) -> dict[str, object]:
        """What the manifest says."""
        return {
            **self.origin.facts,
            "octavia": self.version,
            "python": self.python,
            "path": VENV,
            **({"modules_of_the_distribution": list(self.modules)} if self.modules else {}),
            "packages": [{"name": p.name, "version": p.version, "file": p.file, "sha256": p.sha256} for p in self.kept],
        }


def choose(python: str, arch: str) -> Agent:
    """Choose the files of the default agent.

    :param python: version of the image's Python
    :param arch: dpkg's name of the architecture
    :raises BadValueError: the lock has none for it
    """
    used = tuple(package for package in lock.read() if package.name not in lock.UNUSED)
    return Agent(python, tuple(lock.select(python, arch, used)), builders=("setuptools",))


def prepare(
    agent: Agent, arch: str, store: Store, console: Console, *, snapshot: bool, until: int | None = None
) -> None:
    """Bring all that the installation needs into the cache, while there is a network.

    :param snapshot: a finished environment in the cache will do; :func:`make` needs the packages
    :param until: as for :func:`amphora_mkimage.agent.download.fetch`
    :raises MkimageError: a package cannot be had
    """
    if not snapshot or store.checked_base(agent.key) is None:
        download.fetch(agent.packages, agent.python, arch, store, console, until=until)


def install(agent: Agent, guest: NamespaceGuest, place: Workplace) -> None:
    """Put the environment into the image, and import the agent there.

    :param guest: mounted
    :raises MkimageError: the image's Python is another one, or the agent cannot be imported
    """
    kept = place.store.checked_base(agent.key)
    if kept is not None:
        _check_python(agent, guest)
        with place.console.step("unpack the cached amphora agent"):
            guest.rm_rf(VENV)
            place.unpack(kept, _PLACE)
        with place.console.step("import the amphora agent"):
            import_commands(guest, f"{VENV}/bin/python")
        _record(agent, guest)
        return
    offered = place.directory / "offered-agent"
    offer(agent, place.store, offered)
    with place.console.step("install the amphora agent"), guest.offered(offered, _OFFERED):
        make(agent, guest, _OFFERED)
    shutil.rmtree(offered)
    with place.console.step("cache the amphora agent"):
        place.pack(agent.key, _PLACE, _NAME)


def offer(agent: Agent, store: Store, directory: Path) -> None:
    """Put what :func:`make` needs into a directory to be offered to a guest.

    :param directory: made
    :raises MkimageError: a package is not in the cache
    """
    directory.mkdir()
    for package in agent.packages:
        if not store.take_wheel(package.sha256, directory / package.file):
            raise MkimageError(f"{package.file} is not in the cache any more", "build again")
    for source in (False, True):
        lines = [p.requirement for p in agent.installed if p.is_source == source]
        (directory / _list(source)).write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def make(agent: Agent, guest: Guest, offered: str) -> None:
    """Make the environment, and import the agent there.

    :param guest: mounted
    :param offered: where it sees what :func:`offer` made
    :raises MkimageError: the image's Python is another one, or the agent cannot be installed or imported
    """
    _check_python(agent, guest)
    installer = next(package.file for package in agent.packages if package.name == INSTALLER)
    guest.rm_rf(VENV)
    guest.command([_PYTHON, "-m", "venv", "--without-pip", VENV])
    # Wheels first: among them is what builds the few packages that have none, which are pure Python.
    for source in (False, True):
        options = ["--no-build-isolation", "--use-pep517"] if source else ["--only-binary=:all:"]
        _pip(
            guest,
            offered,
            installer,
            [*_INSTALL, f"--find-links={offered}", *options, "-r", f"{offered}/{_list(source)}"],
        )
    if agent.builders:
        _pip(guest, offered, installer, ["uninstall", "--yes", *agent.builders])
    for module in agent.modules:
        found = guest.glob_expand(f"{_DISTRIBUTION}/{module}*")
        guest.command(["cp", "-r", "--", *found, f"{VENV}/lib/python{agent.python}/site-packages/"])
    _trim(guest)
    import_commands(guest, f"{VENV}/bin/python")  # which leaves the byte code of what it imports, and only of that
    _record(agent, guest)


def _record(agent: Agent, guest: Guest) -> None:
    """Leave in the image where the agent is from, as diskimage-builder does."""
    for path, content in agent.origin.files.items():
        guest.write(path, content)


def _check_python(agent: Agent, guest: Guest) -> None:
    printed = guest.command([_PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    found = printed.split()[-1] if printed.split() else "?"
    if found != agent.python:
        raise MkimageError(
            f"the image has Python {found}, and the amphora agent was fetched for Python {agent.python}",
            "use another release (-d), or build without the agent (--no-agent)",
        )


def _list(source: bool) -> str:
    return "sources.txt" if source else "wheels.txt"


def _pip(guest: Guest, offered: str, installer: str, arguments: Sequence[str]) -> None:
    # A wheel of pip is run as it is: it never has to be installed, nor removed.
    pip = ["env", f"PYTHONPATH={offered}/{installer}", f"{VENV}/bin/python", "-m", "pip", "--isolated"]
    quiet = ["--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    try:
        guest.command([*pip, *quiet, *arguments])
    except MkimageError as error:
        what = "cannot install the amphora agent in the image"
        raise MkimageError(what, "build without it: --no-agent", tail=error.tail) from error


def _trim(guest: Guest) -> None:
    """Remove what no amphora runs: tests, and headers for compilers."""
    guest.command(
        ["find", f"{VENV}/lib", "-type", "d", "-name", "tests", "-prune", "-exec", "rm", "-rf", "{}", "+"]
    )  # fmt: skip
    guest.rm_rf(f"{VENV}/include")


def import_commands(guest: Guest, python: str) -> None:
    """Import what the commands import.

    :param python: path of the interpreter in the image
    :raises MkimageError: that fails
    """
    guest.write(_SCRIPT, _IMPORTS.read_bytes())
    try:
        guest.command([python, _SCRIPT, *COMMANDS])
    except MkimageError as error:
        what = "the amphora agent cannot be imported by the image's Python"
        raise MkimageError(what, "the last line says what is missing", tail=error.tail) from error
    finally:
        guest.rm_f(_SCRIPT)
