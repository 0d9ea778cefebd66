"""Which releases of a base system an agent can run on, and what to do where it cannot.

The rule is the agent's and not the base's: the released agent, each branch, the distribution's package and no agent at
all ask for different Pythons. What is not known beforehand is accepted here, and looked at before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amphora_mkimage.agent import lock, refs, support
from amphora_mkimage.agent.branch import Branch
from amphora_mkimage.bases import BASES, Base, Release


@dataclass(frozen=True)
class Choice:
    """Which agent an image gets, as far as it matters here.

    :param source: as :attr:`amphora_mkimage.request.Request.agent_source` says it
    :param ref: of a branch
    :param published: it is OpenStack's branch with OpenStack's constraints
    :param origin: the flag or variable that names the branch
    """

    source: str
    ref: str = ""
    published: bool = False
    origin: str = "-g"

    @classmethod
    def of(cls, chosen: Branch | None, *, packages: bool, none: bool) -> Choice:
        """Return the choice that the settings make."""
        if chosen is None:
            return cls("none" if none else "package" if packages else "released")
        return cls("branch", refs.branch_of(chosen.agent.ref), chosen.published, chosen.agent.variable)


RELEASED = Choice("released")


def refusal(choice: Choice, base: Base, release: Release) -> str:
    """Return why an agent cannot run on a release; "" when it can, or when nobody knows yet."""
    python = release.python
    if choice.source == "released" and python not in lock.PYTHONS:
        return f"the released agent, octavia {lock.octavia()}, needs Python {lock.PYTHONS[0]}, and it has {python}"
    known = support.read().get(choice.ref) if choice.source == "branch" and choice.published else None
    if known is None:
        return ""
    if python not in known.pythons:
        return f"octavia {choice.ref} is for Python {known.python}, and it has {python}"
    if python in known.lacking:
        return f"octavia {choice.ref} needs {known.lacking[python]}, which has no wheel for its Python {python}"
    if base.dnf and known.modules.get(python):
        names = " and ".join(known.modules[python])
        return f"octavia {choice.ref} needs {names}, which has no wheel for its Python {python}"
    return ""


def remedy(choice: Choice, base: Base, name: str, arch: str) -> str:
    """Return what to do where a release cannot be used; each way that it names is accepted.

    :param name: of the release, known or not
    """
    ways = [*releases(choice, base, arch)]
    texts = [f"accepted with this agent: {' or '.join(ways or [*bases(choice, arch)]) or 'no release known here'}"]
    if name in base.usable(arch):
        others = [*agents(choice, base, name)]
        texts += [f"or keep {name} with {' or '.join(others)}"] if others else []
    return "; ".join(texts)


def usable(choice: Choice, base: Base, arch: str) -> list[str]:
    """Return the names of the releases of a base that an agent runs on, oldest first."""
    return [name for name in base.usable(arch) if not refusal(choice, base, base.releases[name])]


def releases(choice: Choice, base: Base, arch: str) -> Iterator[str]:
    """Name the releases of a base that an agent runs on, oldest first, as arguments."""
    for name in usable(choice, base, arch):
        yield f"-d {name}"


def bases(choice: Choice, arch: str) -> Iterator[str]:
    """Name the newest release of each base that an agent runs on, as arguments."""
    for base in BASES.values():
        found = [*releases(choice, base, arch)] if arch in base.bootloader else []
        if found and base.name != "rhel":  # which needs an image of one's own
            yield f"-i {base.name} {found[-1]}"


def agents(choice: Choice, base: Base, name: str) -> Iterator[str]:
    """Name other agents that run on a release, as arguments: the nearest branch, the distribution's, none."""
    known = [*support.read()]
    here = known.index(choice.ref) if choice.ref in known else 0
    able = [ref for ref in known if not refusal(Choice("branch", ref, published=True), base, base.releases[name])]
    if able:
        nearest = min(able, key=lambda ref: abs(known.index(ref) - here))
        yield f"-g {nearest}" if choice.origin == "-g" else f"{choice.origin}={nearest}"
    if choice.source != "branch":
        yield "-p"
        yield "--no-agent"
