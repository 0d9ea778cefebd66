"""Read a tree's package database (dpkg(1), /var/lib/dpkg/status)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STATUS = "var/lib/dpkg/status"


@dataclass(frozen=True)
class Installed:
    """One installed package.

    :param size: bytes of its content, as deb-control(5) estimates it
    """

    name: str
    version: str
    arch: str
    size: int


def installed(status: Path) -> list[Installed]:
    """Give every installed package of a status file, by name."""
    return parse(status.read_text(encoding="utf-8"))


def parse(status: str) -> list[Installed]:
    """Give every installed package of the text of a status file, by name."""
    found = []
    for stanza in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status") in ("install ok installed", "hold ok installed"):
            size = int(fields.get("Installed-Size", "0")) * 1024
            found.append(Installed(fields["Package"], fields["Version"], fields["Architecture"], size))
    return sorted(found, key=lambda package: (package.name, package.arch))
