"""A wish for the agent of a branch: which repositories, which refs, which constraints. Nothing here uses the network.

The names are diskimage-builder's (``DIB_REPOLOCATION_*``, ``DIB_REPOREF_*``). Unlike there, octavia-lib comes from the
branch of the agent, not from master.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from amphora_mkimage.agent import refs
from amphora_mkimage.errors import BadValueError
from amphora_mkimage.fetch.publication import Location
from amphora_mkimage.setting import Value
from amphora_mkimage.settings import BY_NAME

_REPOSITORIES = "https://opendev.org/openstack"
_CONSTRAINTS = "https://opendev.org/openstack/requirements/raw/branch/{}/upper-constraints.txt"
_DEFAULT_REF = "master"
#: What git-check-ref-format(1) allows, and less: no names that git reads as something else than a ref.
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")
#: Settings that choose a branch, and those that only go with one.
_CHOOSING = ("agent_ref", "agent_repository")
_BESIDES = ("lib_repository", "lib_ref", "constraints")


@dataclass(frozen=True)
class Checkout:
    """A repository, and what is wanted of it.

    :param project: "octavia" or "octavia-lib"
    :param ref: branch, tag, commit, HEAD or the full name of a ref
    :param variable: flag or variable that names another ref, for messages
    """

    project: str
    repository: Location
    ref: str
    variable: str


@dataclass(frozen=True)
class Branch:
    """The agent of a branch.

    :param constraints: OpenStack's upper-constraints.txt
    :param insecure: what it takes may come over a connection that nobody protects
    """

    agent: Checkout
    lib: Checkout
    constraints: Location
    insecure: bool = False

    @property
    def locations(self) -> dict[str, Location]:
        """Where things come from, by the variable that names them."""
        return {
            "DIB_REPOLOCATION_amphora_agent": self.agent.repository,
            "DIB_REPOLOCATION_octavia_lib": self.lib.repository,
            "DIB_REPOLOCATION_upper_constraints": self.constraints,
        }

    @property
    def published(self) -> bool:
        """Whether all of it is OpenStack's own, so that what is known of the branch holds."""
        ref = refs.branch_of(self.agent.ref)
        checkouts = ((self.agent, "octavia"), (self.lib, "octavia-lib"))
        ours = all(each.repository.url == f"{_REPOSITORIES}/{name}" for each, name in checkouts)
        return ours and self.lib.ref == ref and self.constraints.url == _CONSTRAINTS.format(ref)

    def __str__(self) -> str:
        lib = "" if self.lib.ref == self.agent.ref else f" {self.lib.ref}"
        return f"octavia {self.agent.ref} of {self.agent.repository.shown}, octavia-lib{lib} beside it"


def wanted(values: Mapping[str, Value]) -> bool:
    """Tell whether the settings ask for a branch."""
    return any(values[name].value for name in _CHOOSING)


def choose(values: Mapping[str, Value], warn: Callable[[str], None]) -> Branch | None:
    """Read the settings; None when they ask for no branch.

    :param warn: takes a remark about each that goes with a branch, where none was asked for
    :raises BadValueError: one cannot be used, or contradicts another choice of the agent
    """
    chosen = next((values[name] for name in _CHOOSING if values[name].value), None)
    for name in ("agent_packages", "no_agent"):
        other = values[name]
        if other.value and chosen is not None:
            raise BadValueError(f"{chosen.origin} and {other.origin} both say which agent", "keep one")
    if values["agent_packages"].value and values["no_agent"].value:
        raise BadValueError(f"{values['agent_packages'].origin} and --no-agent contradict each other", "keep one")
    if chosen is None:
        for name in _BESIDES:
            if values[name].value:
                warn(f"{values[name].origin} is unused: it goes with an agent of a branch (-g)")
        return None
    ref = _ref(values["agent_ref"]) or _DEFAULT_REF
    name = refs.branch_of(ref)
    lib_ref = _ref(values["lib_ref"]) or name
    if not name:
        _require(values, f"{values['agent_ref'].origin}: what goes with {ref} cannot be known")
    branch = Branch(
        Checkout(
            "octavia",
            _repository(values["agent_repository"], "octavia"),
            ref,
            _named(values["agent_ref"], "-g"),
        ),
        Checkout(
            "octavia-lib", _repository(values["lib_repository"], "octavia-lib"), lib_ref, "DIB_REPOREF_octavia_lib"
        ),
        _constraints(values["constraints"], name),
        bool(values["insecure"].value),
    )
    for variable, location in branch.locations.items():
        if not location.protected and not branch.insecure:
            what = f"{variable}: anybody on the way could change what comes from {location.shown}"
            raise BadValueError(what, "use https, a path, or --insecure")
    return branch


def _named(value: Value, otherwise: str) -> str:
    return value.origin if value.said else otherwise


def _require(values: Mapping[str, Value], what: str) -> None:
    """Refuse a commit whose octavia-lib or constraints are not named: those of a branch would be guessed."""
    unsaid = [BY_NAME[name] for name in ("lib_ref", "constraints") if not values[name].value]
    missing = [setting.variables[0].name for setting in unsaid]
    if missing:
        raise BadValueError(what, f"set {' and '.join(missing)}; Octavia's script would take master's")


def _ref(value: Value) -> str:
    text = str(value.value or "")
    if text and (not _REF.fullmatch(text) or ".." in text or text.endswith((".lock", "/"))):
        raise BadValueError(f"{value.origin}: {text!r} is no name of a branch, tag or commit")
    return text


def _repository(value: Value, project: str) -> Location:
    location = _location(value, f"{_REPOSITORIES}/{project}")
    if location.shown != location.url:
        raise BadValueError(f"{value.origin}: git knows no query in a URL", "give user and password before the host")
    if location.path is not None and not os.path.isdir(location.path):  # noqa: PTH112 (see request.py)
        raise BadValueError(f"{value.origin}: {location.path} is no directory", "name a clone, or its URL")
    return location


def _constraints(value: Value, ref: str) -> Location:
    location = _location(value, _CONSTRAINTS.format(ref))
    if location.path is not None and not os.access(location.path, os.R_OK):
        raise BadValueError(
            f"{value.origin}: {location.path} cannot be read", "name an upper-constraints.txt, or its URL"
        )
    return location


def _location(value: Value, default: str) -> Location:
    """Read a URL or path; it may carry a password and is not repeated."""
    try:
        return Location.parse(str(value.value or default))
    except BadValueError as error:
        raise BadValueError(f"{value.origin}: {error.what}", error.remedy) from error
