"""A golden image as hardening roles, installers and packer leave it: the files of golden_image.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class File:
    """One file.

    :param check: of verify, that finds it
    :param note: in the line that the build prints of it; "" where it stays as it is
    :param left: its text afterwards, None when it is gone or does not matter
    """

    path: str
    text: str = ""
    link: str = ""
    mode: int = 0o644
    check: str = ""
    note: str = ""
    left: str | None = None


FILES = tuple(File(**entry) for entry in tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["file"])
