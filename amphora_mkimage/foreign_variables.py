"""Variables that other programs read, and what to use here instead; the data is in ``foreign_variables.toml``."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path

from amphora_mkimage.errors import BadValueError

_FILE = Path(__file__).with_suffix(".toml")
#: How names of diskimage-builder, Octavia's script and their wrappers begin.
PREFIXES = ("DIB_", "AMP_", "REG_")
_MEANINGLESS = "it has no meaning without diskimage-builder"
_UNKNOWN = "amphora-mkimage does not know it"


@functools.cache
def sentences() -> dict[str, str]:
    """Return what is said of each variable, by its name; a name may end in ``*``."""
    tables = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    nothing = dict.fromkeys(tables["meaningless"]["names"], _MEANINGLESS)
    return dict(sorted({**tables["packages"], **tables["general"], **nothing}.items()))


def remarks(environ: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """Return a sentence for each variable that is set and changes nothing.

    :param known: names of variables that a setting reads
    """
    settings = {*known}
    ours = [name for name in sorted(environ) if environ[name] and name not in settings]
    found = {name: _sentence(name) for name in ours}
    return [f"{name} is unused: {text}" for name, text in found.items() if text]


def refuse(environ: Mapping[str, str], origin: str) -> None:
    """Refuse variables that name another archive for the distribution's agent (-p).

    :param origin: the flag or variable that wants that agent
    :raises BadValueError: one is set
    """
    for name, text in tomllib.loads(_FILE.read_text(encoding="utf-8"))["packages"].items():
        if environ.get(name):
            raise BadValueError(f"{name}: with {origin} the agent would come from another archive", text)


def forget(environ: MutableMapping[str, str]) -> None:
    """Remove all that may hold a secret: no program that is started here reads any of these."""
    for name in [name for name in environ if name.startswith(PREFIXES)]:
        del environ[name]


def _sentence(name: str) -> str:
    texts = sentences()
    if name in texts:
        return texts[name]
    pattern = next((other for other in texts if other.endswith("*") and name.startswith(other[:-1])), "")
    return texts[pattern] if pattern else _UNKNOWN if name.startswith(PREFIXES) else ""
