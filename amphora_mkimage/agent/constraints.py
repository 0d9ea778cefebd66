"""OpenStack's upper-constraints: which version of each project a release was tested with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from packaging.requirements import Requirement

from amphora_mkimage.agent.project import canonical, requirements
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.download import Memory, Transfer, fetch_all
from amphora_mkimage.fetch.publication import Location
from amphora_mkimage.fetch.transport import NotThereError

_LIMIT = 4 << 20
_VARIABLE = "DIB_REPOLOCATION_upper_constraints"
_ENDED = (
    f"set {_VARIABLE} to the URL or path of constraints; OpenStack has them for its branches, "
    "until these have ended, and not for tags or branches of one's own"
)


@dataclass(frozen=True)
class Constraints:
    """A file of constraints.

    :param pins: by normalised name, in the order of the file; several where markers choose
    """

    location: Location
    content: bytes
    pins: Mapping[str, tuple[Requirement, ...]]

    @property
    def facts(self) -> dict[str, str]:
        """What the manifest says."""
        return {"from": self.location.shown, "sha256": hashlib.sha256(self.content).hexdigest()}


def fetch(location: Location, console: Console) -> Constraints:
    """Read constraints.

    :raises MkimageError: they are not there, or are none
    """
    content = _content(location, console)
    text = content.decode(errors="replace")
    try:
        lines = requirements(text.splitlines(), "it")
    except MkimageError as error:
        raise MkimageError(
            f"{location.shown} is not a file of constraints: {error.what}", f"correct {_VARIABLE}"
        ) from error
    pins: dict[str, tuple[Requirement, ...]] = {}
    for pin in lines:
        name = canonical(pin.name)
        pins[name] = (*pins.get(name, ()), pin)
    if not pins:
        raise MkimageError(f"{location.shown} is not a file of constraints: it is empty", f"correct {_VARIABLE}")
    return Constraints(location, content, pins)


def _content(location: Location, console: Console) -> bytes:
    if location.path is not None:
        try:
            return location.path.read_bytes()
        except OSError as error:
            raise MkimageError(f"cannot read the constraints {location.path}: {error.strerror}", _ENDED) from error
    target = Memory()
    try:
        fetch_all([Transfer(replace(location, variable=_VARIABLE), target, _LIMIT)], console)
    except NotThereError as error:
        raise MkimageError(f"the constraints {location.shown} do not exist", _ENDED) from error
    return bytes(target.content)
