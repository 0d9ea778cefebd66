"""Run ``amphora-mkimage`` for stand-ins whose Python is Debian's, not that of the release which they stand for."""

from __future__ import annotations

import dataclasses
import sys
from typing import cast

from amphora_mkimage import cli
from amphora_mkimage.bases import BASES
from amphora_mkimage.bases.base import Release


def main() -> int:
    """Take the Python's version, and the command line."""
    python, *arguments = sys.argv[1:]
    for base in BASES.values():
        releases = cast("dict[str, Release]", base.releases)
        releases.update({name: dataclasses.replace(release, python=python) for name, release in releases.items()})
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
