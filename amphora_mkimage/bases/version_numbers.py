"""The numbers of releases that have a name; people and scripts know one or the other."""

from __future__ import annotations

from collections.abc import Mapping

#: By distribution, then by number.
NAMES: Mapping[str, Mapping[str, str]] = {
    "debian": {"10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"},
    "ubuntu": {"20.04": "focal", "22.04": "jammy", "24.04": "noble", "26.04": "resolute"},
    "centos": {"9": "9-stream", "10": "10-stream"},
}


def name_of(distribution: str, release: str) -> str:
    """Return the name of a release that is given by its number; anything else as it is."""
    return NAMES.get(distribution, {}).get(release, release)
