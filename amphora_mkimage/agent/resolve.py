"""Make of the agent of a branch what the agent of the lock file is: files that are known by their hashes.

What follows (installation without a network, import, cache) is the same: :mod:`amphora_mkimage.agent.install`.
The code of the two checkouts is run where all other code of the image is: in the image, when it is built there.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from amphora_mkimage.agent import closure, constraints, git, lock, project
from amphora_mkimage.agent.branch import Branch
from amphora_mkimage.agent.closure import Closure
from amphora_mkimage.agent.constraints import Constraints
from amphora_mkimage.agent.git import Found
from amphora_mkimage.agent.install import Agent, Origin
from amphora_mkimage.agent.lock import INSTALLER, Package
from amphora_mkimage.agent.project import Project
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.store import Store, key_of

#: What every image needs, whatever a branch says: pyroute2, which octavia's metadata has forgotten before; and what
#: builds the checkouts and other sources. Older pbr imports pkg_resources, which setuptools 81 has not any more.
_ALWAYS = ("pyroute2", "setuptools<81", "pbr")
_GITREFS = {"octavia": "/opt/amphora-agent.gitref", "octavia-lib": "/opt/octavia-lib.gitref"}
_CONSTRAINTS = "/opt/upper-constraints.txt"


def resolve(branch: Branch, python: str, arch: str, store: Store, console: Console) -> Agent:
    """Find commits, constraints and every package, and bring all of it into the cache.

    :param python: version of the image's Python, "3.13"
    :param arch: dpkg's name of the image's architecture
    :raises MkimageError: something does not exist, cannot be had, or is not for that Python
    """
    with console.step("find the amphora agent's branch"):
        limits = constraints.fetch(branch.constraints, console)
        found = [git.find(checkout, console) for checkout in (branch.agent, branch.lib)]
    key = _key(found, limits, python, arch)
    packages = _recall(key, store)
    if packages is None:
        with tempfile.TemporaryDirectory(prefix="amphora-mkimage-") as name:
            packages = _collect(found, limits, python, arch, Path(name), store, console)
        store.remember(key, "".join(f"{package.sha256}  {package.file}\n" for package in packages).encode())
    installer = [package for package in lock.read() if package.name == INSTALLER]
    return Agent(python, (*packages, *installer), _origin(found, limits))


def _key(found: Sequence[Found], limits: Constraints, python: str, arch: str) -> str:
    programs = [Path(module.__file__ or "").read_bytes() for module in (closure, git, project)]
    commits = [f"{one.checkout.project} {one.commit}" for one in found]
    return key_of("branch", python, arch, *commits, limits.content, *_ALWAYS, *programs)


def _recall(key: str, store: Store) -> tuple[Package, ...] | None:
    """Give the files of an earlier build, when all are still there."""
    kept = store.recall(key)
    if kept is None:
        return None
    packages = tuple(Package(*line.split(maxsplit=1)) for line in kept.decode("ascii").splitlines())
    return packages if all(store.has_wheel(package.sha256) for package in packages) else None


def _collect(
    found: Sequence[Found],
    limits: Constraints,
    python: str,
    arch: str,
    place: Path,
    store: Store,
    console: Console,
) -> tuple[Package, ...]:
    """Fetch the checkouts and what they need."""
    files = place / "files"
    files.mkdir()
    roots, versions, paths = {"amphora-mkimage": _own()}, {"amphora-mkimage": ""}, []
    with console.step("fetch the branch"):
        for one in found:
            archive, number = git.fetch(one, place / one.checkout.project, console)
            read = project.read_checkout(archive, one.checkout.project)
            _check(read, one, python)
            paths.append(git.make_source(one.checkout.project, number, archive, files))
            roots[one.checkout.project] = read
            versions[one.checkout.project] = "" if number == "0.0.0" else number
    with console.step("fetch the amphora agent's packages"):
        collected = Closure(roots, versions, limits, files, python, arch, console).collect()
    built = [Package(hashlib.sha256(path.read_bytes()).hexdigest(), path.name) for path in paths]
    packages = (*collected, *built)
    for package in packages:
        store.put_wheel(package.sha256, files / package.file)
    return packages


def _own() -> Project:
    return Project("amphora-mkimage", requires=project.requirements(_ALWAYS, "this program"))


def _check(read: Project, found: Found, python: str) -> None:
    where = found.checkout
    if project.canonical(read.name) != where.project:
        raise MkimageError(f"{where.repository.shown} is {read.name} and not {where.project}", "correct the repository")
    if not read.python.contains(f"{python}.0"):
        raise MkimageError(
            f"{where.project} {where.ref} is for Python {read.python}, and the image has {python}",
            "take another branch (-g), or a release with another Python (-d)",
        )


def _origin(found: Sequence[Found], limits: Constraints) -> Origin:
    files = {_GITREFS[one.checkout.project]: f"{one.commit}\n".encode() for one in found}
    facts = {"source": "branch", "commits": {one.checkout.project: one.facts for one in found}}
    return Origin(facts | {"constraints": limits.facts}, files | {_CONSTRAINTS: limits.content})
