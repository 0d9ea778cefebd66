"""Make of the agent of a branch what the agent of the lock file is: files that are known by their hashes.

What follows (installation without a network, import, cache) is the same: :mod:`amphora_mkimage.agent.install`.
The code of the two checkouts is run where all other code of the image is: in the image, when it is built there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage import guardian
from amphora_mkimage.agent import closure, constraints, git, lock, project
from amphora_mkimage.agent.branch import Branch
from amphora_mkimage.agent.closure import OF_DISTRIBUTION, Closure, Target
from amphora_mkimage.agent.constraints import Constraints
from amphora_mkimage.agent.git import Found
from amphora_mkimage.agent.install import Agent, Origin
from amphora_mkimage.agent.lock import Package
from amphora_mkimage.agent.project import Project
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.store import Store, key_of

__all__ = ["OF_DISTRIBUTION", "Target", "resolve"]

#: What every image needs, whatever a branch says: pyroute2, which octavia's metadata has forgotten before; and what
#: builds the checkouts and other sources. Older pbr imports pkg_resources, which setuptools 81 has not any more.
_ALWAYS = ("pyroute2", "setuptools<81", "pbr")
_GITREFS = {"octavia": "/opt/amphora-agent.gitref", "octavia-lib": "/opt/octavia-lib.gitref"}
_CONSTRAINTS = "/opt/upper-constraints.txt"
#: Stands in a remembered list where files have their hash.
_MODULE = "module"


@dataclass(frozen=True)
class _Collected:
    """All that an agent takes.

    :param modules: what the distribution must give
    """

    packages: tuple[Package, ...]
    modules: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{package.sha256}  {package.file}\n" for package in self.packages]
        return "".join([*lines, *(f"{_MODULE}  {module}\n" for module in self.modules)])

    @classmethod
    def read(cls, text: str) -> _Collected:
        """Read what was printed."""
        rows = [line.split(maxsplit=1) for line in text.splitlines()]
        modules = tuple(name for kind, name in rows if kind == _MODULE)
        return cls(tuple(Package(kind, name) for kind, name in rows if kind != _MODULE), modules)


def resolve(branch: Branch, target: Target, store: Store, console: Console) -> Agent:
    """Find commits, constraints and every package, and bring all of it into the cache.

    :raises MkimageError: something does not exist, cannot be had, or is not for the image's Python
    """
    with console.step("find the amphora agent's branch"):
        # First the refs: of one that is misspelt there are no constraints either, which would say less.
        found = [git.find(checkout, console) for checkout in (branch.agent, branch.lib)]
        limits = constraints.fetch(branch.constraints, console)
    key = _key(found, limits, target)
    collected = _recall(key, store)
    if collected is None:
        with guardian.temporary() as place:
            collected = _collect(found, limits, target, place, store, console)
        store.remember(key, str(collected).encode())
    packages = (*collected.packages, lock.installer(target.python))
    return Agent(target.python, packages, _origin(found, limits), collected.modules)


def _key(found: Sequence[Found], limits: Constraints, target: Target) -> str:
    programs = [Path(module.__file__ or "").read_bytes() for module in (closure, git, project)]
    commits = [f"{one.checkout.project} {one.commit}" for one in found]
    return key_of("branch", repr(target), *commits, limits.content, *_ALWAYS, *programs)


def _recall(key: str, store: Store) -> _Collected | None:
    """Give the files of an earlier build, when all are still there."""
    kept = store.recall(key)
    collected = None if kept is None else _Collected.read(kept.decode())
    if collected and all(store.has_wheel(package.sha256) for package in collected.packages):
        return collected
    return None


def _collect(
    found: Sequence[Found], limits: Constraints, target: Target, place: Path, store: Store, console: Console
) -> _Collected:
    """Fetch the checkouts and what they need."""
    files = place / "files"
    files.mkdir()
    roots, versions, paths = {"amphora-mkimage": _own()}, {"amphora-mkimage": ""}, []
    with console.step("fetch the branch"):
        for one in found:
            archive, number = git.fetch(one, place / one.checkout.project, console)
            read = project.read_checkout(archive, one.checkout.project)
            _check(read, one, target)
            paths.append(git.make_source(one.checkout.project, number, archive, files))
            roots[one.checkout.project] = read
            versions[one.checkout.project] = "" if number == "0.0.0" else number
    with console.step("fetch the amphora agent's packages"):
        closed = Closure(roots, versions, limits, files, target, console)
        fetched = closed.collect()
    built = [Package(hashlib.sha256(path.read_bytes()).hexdigest(), path.name) for path in paths]
    packages = (*fetched, *built)
    for package in packages:
        store.put_wheel(package.sha256, files / package.file)
    return _Collected(packages, tuple(closed.modules))


def _own() -> Project:
    return Project("amphora-mkimage", requires=project.requirements(_ALWAYS, "this program"))


def _check(read: Project, found: Found, target: Target) -> None:
    where = found.checkout
    if project.canonical(read.name) != where.project:
        raise MkimageError(f"{where.repository.shown} is {read.name} and not {where.project}", "correct the repository")
    if not read.python.contains(f"{target.python}.0"):
        names = target.named(lambda python: read.python.contains(f"{python}.0"))
        other = names or "another base (-i): no release of this one will do"
        raise MkimageError(
            f"{where.project} {where.ref} is for Python {read.python}, and the image has {target.python}",
            f"take another branch ({where.variable}), or {other}",
        )


def _origin(found: Sequence[Found], limits: Constraints) -> Origin:
    files = {_GITREFS[one.checkout.project]: f"{one.commit}\n".encode() for one in found}
    facts = {"source": "branch", "commits": {one.checkout.project: one.facts for one in found}}
    return Origin(facts | {"constraints": limits.facts}, files | {_CONSTRAINTS: limits.content})
