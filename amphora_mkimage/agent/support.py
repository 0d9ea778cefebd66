"""Which Python an agent is for and can be had for, as far as that is known without asking anybody.

``files/branches.toml`` has it for the branches of octavia, made by :mod:`amphora_mkimage.agent.survey`. What is not in
there, a tag, a commit, a branch of one's own, is looked at when it is here, before anything is built
(:mod:`amphora_mkimage.agent.resolve`).
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).with_name("files") / "branches.toml"
#: Of all releases that are known here.
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


@dataclass(frozen=True)
class BranchSupport:
    """What is known of a branch.

    :param octavia: version at its head, when it was looked at
    :param python: versions that it says it is for, as a specifier
    :param pythons: which of :data:`PYTHONS` these are
    :param lacking: by version, a project of its constraints that has no wheel for it and needs a compiler
    :param modules: by version, projects that Debian's and Ubuntu's packages give in place of a wheel
    """

    name: str
    octavia: str
    python: str
    pythons: Sequence[str]
    lacking: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, Sequence[str]] = field(default_factory=dict)


@functools.cache
def read(path: Path = FILE) -> dict[str, BranchSupport]:
    """Return what is known of each branch, newest first."""
    tables = tomllib.loads(path.read_text(encoding="ascii"))
    return {name: BranchSupport(name, **table) for name, table in tables.items()}


def render(branch: BranchSupport) -> str:
    """Return the table of a branch as it stands in the file."""
    lines = [f'\n["{branch.name}"]', f'octavia = "{branch.octavia}"', f'python = "{branch.python}"']
    lines.append(f"pythons = {_array(branch.pythons)}")
    lacking = [f'"{version}" = "{what}"' for version, what in branch.lacking.items()]
    modules = [f'"{version}" = {_array(names)}' for version, names in branch.modules.items()]
    for key, entries in (("lacking", lacking), ("modules", modules)):
        if entries:
            lines.append(f"{key} = {{ {', '.join(entries)} }}")
    return "\n".join([*lines, ""])


def _array(words: Sequence[str]) -> str:
    return json.dumps(list(words))  # which is TOML, too
